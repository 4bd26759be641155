//! What applying costs, as ratios in one run: against the same statements through rusqlite on the same disk in the same
//! minute. And what the daemon costs while it does nothing.
//!
//! `cargo bench -p whimbrel-tests --bench apply` prints figure beside target; with `-- --check` a missed one is exit 1.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use whimbrel::{
    ambient::Ambient,
    migrate::{
        apply::{self, Job, Policy},
        chain::Chain,
        connection::{Managed, Missing},
        files,
        halt::Halt,
        live::Live,
        transaction::{self, Terms},
    },
    store::managed,
};
use whimbrel_shared::{
    ids::ClientId,
    protocol::publish::PublishLink,
    status::{AskedBy, Operation},
    trust::verify,
};
use whimbrel_tests::{bins, device::Device, migrations, server::Server, wait};

const MIGRATIONS: usize = 200;
const ROUNDS: usize = 9;
/// How long nothing is done.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--once") {
        // Re-run under strace, to count its syncs.
        let folder = PathBuf::from(&arguments[at + 2]);
        let links = chain();
        match arguments[at + 1].as_str() {
            "floor" => drop(floor(&folder)),
            kind => drop(engine(&folder, &links, kind == "grouped")),
        }
        return;
    }
    let mut verdict = Verdict::default();
    // On a disk, not in memory: a sync that costs nothing measures nothing.
    let stage = tempfile::tempdir_in(bins::folder()).expect("the target directory can be written");
    applying(&mut verdict, stage.path());
    nothing_to_apply(&mut verdict, stage.path());
    for databases in [1, 100] {
        idle(&mut verdict, stage.path(), databases);
    }
    binary(&mut verdict);
    if arguments.iter().any(|a| a == "--check") && verdict.missed > 0 {
        std::process::exit(1);
    }
}

#[derive(Default)]
struct Verdict {
    missed: u32,
}

impl Verdict {
    fn at_most(&mut self, what: &str, figure: f64, target: f64, unit: &str) {
        let met = figure <= target;
        self.missed += u32::from(!met);
        println!("{what:<62} {figure:>9.2} {unit:<4} target ≤ {target:>6.2}  {}", if met { "met" } else { "MISSED" });
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn sql(number: usize) -> String {
    format!(
        "CREATE TABLE t{number} (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size INTEGER);\n\
         CREATE INDEX t{number}_size ON t{number} (size);\nINSERT INTO t{number} (name, size) VALUES ('first', {number});\n"
    )
}

fn chain() -> Vec<PublishLink> {
    let chain: Vec<_> = (1..=MIGRATIONS).map(|n| migrations::Mig::up(&format!("{n:04}_table"), sql(n))).collect();
    migrations::links(&chain)
}

fn fresh(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    for suffix in ["", "-wal", "-shm", "-whimbrel-lock"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    path
}

/// The same statements, one transaction each, with one bookkeeping row.
fn floor(folder: &Path) -> Duration {
    let connection = Connection::open(fresh(folder, "floor.db")).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = FULL; CREATE TABLE book (version INTEGER PRIMARY KEY, name TEXT, at INTEGER)")
        .unwrap();
    let begun = Instant::now();
    for number in 1..=MIGRATIONS {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection.execute_batch(&sql(number)).unwrap();
        connection.execute("INSERT INTO book VALUES (?1, ?2, 0)", params![number as i64, format!("{number:04}_table")]).unwrap();
        connection.execute_batch("COMMIT").unwrap();
    }
    begun.elapsed()
}

/// The engine as the daemon runs it: intents, guard, checks, history, events.
fn engine(folder: &Path, links: &[PublishLink], grouping: bool) -> (Duration, u32) {
    let path = fresh(folder, "engine.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = wal; CREATE TABLE mine (x)").unwrap();
    let mut file = Managed::open(&path, Missing::Refuse, Duration::from_secs(5), Halt::default()).unwrap();
    let identity = files::new_identity(ClientId::from_dice(1), &"bench".parse().unwrap(), (0, 0));
    transaction::write(&mut file, Terms::ours(Duration::from_secs(1)), |f| Ok(managed::prepare(&f.connection, &identity)?)).unwrap();
    let chain = Chain::new(links.iter().map(|l| l.target.clone()).collect());
    let load = |version: u32, _: u32| Ok(verify(&links[version as usize - 1].target, links[version as usize - 1].body.as_bytes())?);
    let begun = Instant::now();
    let ran = apply::run(
        &mut file,
        &Job {
            identity: &identity,
            chain: &chain,
            load: &load,
            operation: Operation::Apply,
            from: 1,
            to: MIGRATIONS as u32,
            by: AskedBy::Plan,
            policy: Policy { max_attempts: 3, grouping, wait_for_app: Duration::from_secs(5) },
            ambient: &Ambient::real(),
            live: &Live::default(),
        },
    );
    assert!(ran.stopped.is_none() && ran.done.len() == MIGRATIONS, "{:?}", ran.stopped);
    (begun.elapsed(), ran.commits)
}

fn applying(verdict: &mut Verdict, folder: &Path) {
    let links = chain();
    let (mut single, mut grouped, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let base = floor(folder).as_secs_f64();
        let one = engine(folder, &links, false).0.as_secs_f64();
        let many = engine(folder, &links, true).0.as_secs_f64();
        if round > 0 {
            floors.push(base * 1000.0);
            single.push(one / base);
            grouped.push(many / base);
        }
    }
    println!("{MIGRATIONS} small migrations; the floor took {:.0} ms (median of {ROUNDS})", median(floors));
    verdict.at_most("  one by one, against the floor", median(single), 1.5, "x");
    verdict.at_most("  grouped, against the floor", median(grouped), 0.6, "x");
    for kind in ["floor", "single", "grouped"] {
        match syncs(kind, folder) {
            Some(count) => println!("  {kind:<8} {:.2} syncs a migration", count as f64 / MIGRATIONS as f64),
            None => println!("  {kind:<8} syncs not counted: strace is not installed"),
        }
    }
}

/// fsync and fdatasync calls of a run in a process of its own.
fn syncs(kind: &str, folder: &Path) -> Option<usize> {
    let log = folder.join("strace.log");
    let me = std::env::current_exe().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&log)
        .arg(me)
        .args(["--once", kind])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    assert!(status.success());
    Some(fs::read_to_string(log).unwrap().lines().filter(|l| l.contains("sync(")).count())
}

/// CPU of a cycle over a database that has everything, as the process's own accounting tells it.
fn nothing_to_apply(verdict: &mut Verdict, folder: &Path) {
    const CYCLES: u32 = 50;
    let folder = folder.join("noop");
    fs::create_dir_all(&folder).unwrap();
    let server = Server::start(&folder);
    let device = Device::new(&folder, "device", &server.url()).database("app.db", "bench").polls("0 0 3 * * *");
    device.make("app.db", "CREATE TABLE mine (x)");
    let chain: Vec<_> = (1..=MIGRATIONS).map(|n| migrations::Mig::up(&format!("{n:04}_table"), sql(n))).collect();
    server.publish("bench", &chain);
    device.enroll(&server.token("bench"));
    let mut daemon = device.start();
    daemon.until_settled(Duration::from_secs(60), MIGRATIONS as u32);
    let cycles = |status: &serde_json::Value| status["daemon"]["cycles"].as_u64().unwrap();
    let pid = daemon.process.pid();
    let (first, before) = (cycles(&daemon.status()), cpu(pid));
    for n in 1..=u64::from(CYCLES) {
        daemon.poll();
        daemon.until(Duration::from_secs(10), "the cycle", |s| (cycles(s) >= first + n && s["daemon"]["activity"] == "idle").then_some(()));
    }
    let done = cycles(&daemon.status()) - first;
    let each = (cpu(pid) - before).as_secs_f64() * 1000.0 / done as f64;
    verdict.at_most("a cycle with nothing to do over 200 applied, CPU (status asked between)", each, 5.0, "ms");
    daemon.stop();
}

/// User and system time of a process and all its threads, those that ended included.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // 100 a second on every Linux that Rust runs on.
    Duration::from_millis(ticks * 10)
}

fn idle(verdict: &mut Verdict, folder: &Path, databases: usize) {
    let folder = folder.join(format!("idle{databases}"));
    fs::create_dir_all(&folder).unwrap();
    let server = Server::start(&folder);
    let device = Device::new(&folder, "device", &server.url()).database("*.db", "bench").polls("0 0 3 * * *");
    let files: Vec<PathBuf> = (0..databases).map(|n| device.make(&format!("app{n:03}.db"), "CREATE TABLE mine (x)")).collect();
    server.publish("bench", &[migrations::Mig::up("0001_table", sql(1))]);
    device.enroll(&server.token("bench"));
    let mut daemon = device.start();
    daemon.until(Duration::from_secs(120), "every database at version 1", |s| {
        s["databases"].as_array().unwrap().iter().filter(|d| d["version"] == 1).count().eq(&databases).then_some(())
    });
    let pid = daemon.process.pid();
    // Threads that worked go after ten idle seconds, and take their counts with them: begin when only the loop is left.
    wait::until(Duration::from_secs(60), "the working threads to end", || (threads(pid) == 1).then_some(()));

    let picture = |files: &[PathBuf]| -> Vec<(u64, std::time::SystemTime)> {
        let all = files.iter().flat_map(|f| ["", "-wal"].map(|s| PathBuf::from(format!("{}{s}", f.display()))));
        all.filter_map(|f| fs::metadata(f).ok()).map(|m| (m.len(), m.modified().unwrap())).collect()
    };
    let (files_before, switches_before, cpu_before) = (picture(&files), switches(pid), cpu(pid));
    wait::moment(IDLE);
    let seconds = IDLE.as_secs_f64();
    println!("idle for {seconds:.0} s with {databases} database(s):");
    verdict.at_most("  managed files written", f64::from(u8::from(picture(&files) != files_before)), 0.0, "");
    verdict.at_most("  voluntary context switches a second, all threads", (switches(pid) - switches_before) as f64 / seconds, 4.0, "");
    verdict.at_most("  of a core", (cpu(pid) - cpu_before).as_secs_f64() / seconds * 100.0, 0.2, "%");
    verdict.at_most("  resident", resident_kib(pid) as f64 / 1024.0, 20.0, "MiB");
    daemon.stop();
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|t| number_in(&t.unwrap().path().join("status"), "voluntary_ctxt_switches:")).sum()
}

fn resident_kib(pid: u32) -> u64 {
    number_in(Path::new(&format!("/proc/{pid}/status")), "VmRSS:")
}

fn number_in(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn binary(verdict: &mut Verdict) {
    let binary = bins::whimbrel();
    verdict.at_most("the daemon's binary", fs::metadata(&binary).unwrap().len() as f64 / 1024.0 / 1024.0, 10.0, "MiB");
    let mut times = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        assert!(Command::new(&binary).arg("--version").stdout(Stdio::null()).status().unwrap().success());
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    verdict.at_most("whimbrel --version", median(times), 10.0, "ms");
}
