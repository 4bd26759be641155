//! What applying and idling cost, as ratios and against limits, measured in one run:
//! `cargo bench -p whimbrel-tests --bench apply`. With `-- --check` a missed target is a failure, with `-- --quick` the
//! idle minute is ten seconds; the words `speed`, `binary` and `daemon` choose a part.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, params};
use serde_json::Value;
use whimbrel::migrate::{
    apply::Policy,
    connection::{Managed, Missing},
    halt::Halt,
    live::Live,
};
use whimbrel_tests::{Device, Server, bins, chain, engine::Accepted, scores::Scores, until};

/// Migrations in the chain that is measured.
const LENGTH: u32 = 200;
/// Each way is measured so often, in turns; the middle ratio counts.
const ROUNDS: usize = 7;
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let asked = |flag: &str| args.iter().any(|a| a == flag);
    if let ["--one-run", way, folder] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return one_run(Way::from_word(way), Path::new(folder));
    }
    let parts: Vec<&str> = ["speed", "binary", "daemon"].into_iter().filter(|part| asked(part)).collect();
    let part = |name: &str| parts.is_empty() || parts.contains(&name);
    if part("daemon") {
        bins::build();
    }
    let mut scores = Scores::default();
    if part("speed") {
        speed(&mut scores);
    }
    if part("binary") {
        binary(&mut scores);
    }
    if part("daemon") {
        daemon(&mut scores, if asked("--quick") { Duration::from_secs(10) } else { Duration::from_secs(60) });
    }
    scores.end(asked("--check"));
}

// ---- applying ----------------------------------------------------------------------------------------------------------

/// How the chain is applied.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The same statements through rusqlite: one transaction each, with one bookkeeping row.
    Floor,
    /// By the engine, one transaction each.
    Each,
    /// By the engine, grouped.
    Grouped,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Each => "each",
            Self::Grouped => "grouped",
        }
    }

    fn from_word(word: &str) -> Self {
        [Self::Floor, Self::Each, Self::Grouped].into_iter().find(|w| w.word() == word).expect("a way is floor, each or grouped")
    }
}

/// Applies the chain to a new file, and says how long it took from opening the file to the last commit.
fn measure(way: Way, accepted: &Accepted, path: &Path) -> Duration {
    for beside in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{beside}", path.display()));
    }
    let new = Connection::open(path).expect("a file is made");
    new.pragma_update(None, "journal_mode", "wal").expect("WAL");
    if way == Way::Floor {
        new.execute_batch("CREATE TABLE history(version INTEGER PRIMARY KEY, name TEXT NOT NULL, at_ms INTEGER NOT NULL)").expect("a table is made");
        drop(new);
        return floor(accepted, path);
    }
    drop(new);
    engine(way, accepted, path)
}

fn floor(accepted: &Accepted, path: &Path) -> Duration {
    let begun = Instant::now();
    let file = Connection::open(path).expect("it opens");
    file.pragma_update(None, "synchronous", "FULL").expect("FULL");
    for (version, mig) in (1u32..).zip(&accepted.migrations) {
        file.execute_batch("BEGIN IMMEDIATE").expect("begin");
        file.execute_batch(&mig.up).expect("the statements run");
        file.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3)").and_then(|mut s| s.execute(params![version, mig.name, 0])).expect("a row");
        file.execute_batch("COMMIT").expect("commit");
    }
    begun.elapsed()
}

fn engine(way: Way, accepted: &Accepted, path: &Path) -> Duration {
    // What happens once in a file's life is not part of it; the floor's table is not either.
    let identity = accepted.prepare(path);
    let begun = Instant::now();
    let mut file = Managed::open(path, Missing::Refuse, LIMIT, Halt::default()).expect("it opens");
    let policy = Policy { max_attempts: 3, grouping: way == Way::Grouped, wait_for_app: LIMIT, report_values: false, skip_verify: false };
    let ran = accepted.run(&mut file, &identity, (1, LENGTH), policy, &Live::default());
    let took = begun.elapsed();
    assert!(ran.stopped.is_none() && ran.done.len() == LENGTH as usize, "{:?}", ran.stopped);
    took
}

/// Milliseconds, and milliseconds of the processor, by way.
type Round = BTreeMap<&'static str, (f64, f64)>;

fn speed(scores: &mut Scores) {
    println!("\nApplying {LENGTH} small migrations to a file on disk (WAL, synchronous=FULL), {ROUNDS} rounds in turns:");
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    let accepted = Accepted::new(folder.path(), chain::small(LENGTH));
    let path = folder.path().join("bench.db");
    let mut rounds: Vec<BTreeMap<&str, (f64, f64)>> = Vec::new();
    for _ in 0..ROUNDS {
        let round = [Way::Floor, Way::Each, Way::Grouped].map(|way| {
            let processor = own_processor_ms();
            let took_ms = measure(way, &accepted, &path).as_secs_f64() * 1000.0;
            (way.word(), (took_ms, own_processor_ms() - processor))
        });
        rounds.push(round.into());
    }
    let middle = |of: &dyn Fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for way in [Way::Floor, Way::Each, Way::Grouped] {
        let (took, processor) = (middle(&|r| r[way.word()].0), middle(&|r| r[way.word()].1));
        // Where syncs are slow the ratio flatters us, where they are fast it does not: both are shown.
        scores.note(&format!("{}: milliseconds, and of the processor, the middle of {ROUNDS}", way.word()), format!("{took:.1} ({processor:.1})"));
    }
    scores.at_most("one transaction each ÷ floor", middle(&|r| r["each"].0 / r["floor"].0), 1.5, "×");
    scores.at_most("grouped ÷ floor", middle(&|r| r["grouped"].0 / r["floor"].0), 0.6, "×");
    for way in [Way::Floor, Way::Each, Way::Grouped] {
        match syncs(way, folder.path()) {
            Some(count) => scores.note(&format!("{}: syncs per migration", way.word()), format!("{:.2}", f64::from(count) / f64::from(LENGTH))),
            None => scores.note(&format!("{}: syncs per migration", way.word()), "not counted: strace is missing"),
        }
    }
}

/// Processor time of this process so far.
fn own_processor_ms() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value that lives here.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1000.0 + time.tv_nsec as f64 / 1e6
}

/// Counts the syncs of one run, as the kernel sees them, in a process of its own: `--one-run` does the preparation before
/// it says so on its own stderr, and strace counts from there.
fn syncs(way: Way, folder: &Path) -> Option<u32> {
    let (trace, work) = (folder.join("trace"), folder.join(format!("traced-{}", way.word())));
    std::fs::create_dir_all(&work).ok()?;
    let me = std::env::current_exe().ok()?;
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,write", "-e", "signal=none", "-s", "40", "-o"])
        .arg(&trace)
        .arg(me)
        .args(["--one-run", way.word()])
        .arg(&work)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .ok()?;
    assert!(status.success(), "the traced run failed");
    let text = std::fs::read_to_string(&trace).ok()?;
    let between = text.split(MARK).nth(1).expect("the traced run marks its beginning and its end");
    let calls = between.lines().filter(|l| l.contains("fsync(") || l.contains("fdatasync(")).count();
    u32::try_from(calls).ok()
}

/// What the traced run writes before and after what is counted.
const MARK: &str = "-- counted --";

fn one_run(way: Way, folder: &Path) {
    let accepted = Accepted::new(folder, chain::small(LENGTH));
    let path = folder.join("traced.db");
    // Once for the preparation, once for the count: only the second lies between the marks.
    eprintln!("{MARK}");
    measure(way, &accepted, &path);
    eprintln!("{MARK}");
}

// ---- the binary --------------------------------------------------------------------------------------------------------

fn binary(scores: &mut Scores) {
    println!("\nThe binary:");
    let path = bins::shipped();
    let size = path.metadata().expect("it is there").len() as f64 / 1e6;
    scores.at_most("size of whimbrel as it is shipped", size, 10.0, "MB");
    let mut took: Vec<f64> = (0..21)
        .map(|_| {
            let begun = Instant::now();
            let output = Command::new(&path).arg("--version").output().expect("it starts");
            assert!(output.status.success());
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    took.sort_by(f64::total_cmp);
    scores.at_most("whimbrel --version", took[took.len() / 2], 10.0, "ms");
}

// ---- the daemon --------------------------------------------------------------------------------------------------------

fn daemon(scores: &mut Scores, idle: Duration) {
    let stage = tempfile::Builder::new().prefix("bench-").tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    let server = Server::start(stage.path());
    server.publish("small", &chain::small(LENGTH));

    println!("\nA cycle that finds nothing to do, {LENGTH} migrations applied:");
    no_op(scores, stage.path(), &server);

    println!("\nA daemon with nothing to do for {idle:?}:");
    server.publish("few", &chain::small(3));
    let make = |name: &str, files: u32| {
        // The schedule as it is when nobody writes one.
        let device = Device::new(stage.path(), name, &server.url()).polls("0 */5 * * * *").database("*.db", "few");
        for n in 0..files {
            device.make(&format!("{n}.db"), "CREATE TABLE app(x)");
        }
        device.enroll(&server.token("few"));
        device
    };
    let devices = [(1, make("one", 1)), (100, make("hundred", 100))];
    let mut daemons: Vec<_> = devices.iter().map(|(files, device)| (*files, device, device.start())).collect();
    for (_, _, daemon) in &mut daemons {
        daemon.until_settled(LIMIT, 3);
    }
    // What follows a cycle (its last writes, its threads' end) is not idling, and neither is a poll.
    std::thread::sleep(Duration::from_secs(3) + over_the_next_poll(idle));
    let before: Vec<_> = daemons.iter().map(|(files, device, daemon)| (Usage::of(daemon.process.pid()), stamps(device, *files))).collect();
    let mut switches: Vec<_> = daemons.iter().map(|(_, _, daemon)| Switches::of(daemon.process.pid())).collect();
    let begun = Instant::now();
    while begun.elapsed() < idle {
        std::thread::sleep(Duration::from_secs(1));
        switches.iter_mut().for_each(Switches::look);
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (((files, device, daemon), (usage, stamp)), switches) in daemons.iter().zip(before).zip(switches) {
        let now = Usage::of(daemon.process.pid());
        let name = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
        let wakes = switches.count() as f64 / seconds;
        scores.at_most(&format!("{name}: voluntary context switches, all threads"), wakes, 4.0, "/s");
        scores.at_most(&format!("{name}: processor"), (now.cpu.saturating_sub(usage.cpu)).as_secs_f64() / seconds * 100.0, 0.2, "%");
        scores.at_most(&format!("{name}: resident"), now.resident_kb as f64 / 1000.0, 20.0, "MB");
        let written = stamps(device, *files).iter().zip(&stamp).filter(|(a, b)| a != b).count();
        scores.at_most(&format!("{name}: managed files written to"), written as f64, 0.0, "");
    }
}

/// How long to wait so that no poll of every five minutes falls into the time after.
fn over_the_next_poll(idle: Duration) -> Duration {
    const EVERY: Duration = Duration::from_secs(5 * 60);
    // A fleet's polls are spread over a tenth of that.
    const POLL: Duration = Duration::from_secs(45);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    let since_the_last = Duration::from_millis(now_ms % EVERY.as_millis() as u64);
    let to_the_next = EVERY - since_the_last;
    if since_the_last < POLL {
        POLL - since_the_last
    } else if to_the_next < idle + Duration::from_secs(10) {
        to_the_next + POLL
    } else {
        Duration::ZERO
    }
}

fn no_op(scores: &mut Scores, stage: &Path, server: &Server) {
    let device = Device::new(stage, "cycles", &server.url()).polls("* * * * * *").database("app.db", "small");
    device.make("app.db", "");
    device.enroll(&server.token("small"));
    let mut daemon = device.start();
    daemon.until_settled(LIMIT, LENGTH);
    let cycles = |status: &Value| status["daemon"]["cycles"].as_u64().unwrap_or(0);
    let (first, pid) = (cycles(&daemon.status()), daemon.process.pid());
    // Asking for status costs it something too, so it is asked seldom.
    let before = Usage::of(pid).cpu;
    let mut last = first;
    until(LIMIT, "ten cycles", || {
        std::thread::sleep(Duration::from_secs(3));
        last = cycles(&daemon.status());
        (last >= first + 10).then_some(())
    });
    let spent = Usage::of(pid).cpu.saturating_sub(before).as_secs_f64() * 1000.0;
    scores.note("cycles measured", last - first);
    scores.at_most("processor per cycle: look, poll, decide", spent / (last - first) as f64, 5.0, "ms");
    daemon.stop();
}

/// What a process has used.
struct Usage {
    cpu: Duration,
    resident_kb: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let mut usage = Self { cpu: Duration::ZERO, resident_kb: number(&format!("/proc/{pid}/status"), "VmRSS:") };
        // The clock of the whole process, ended threads too, in nanoseconds.
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both pointers are to values that live here.
        let got = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0 };
        assert!(got, "the processor time of {pid} cannot be read");
        usage.cpu = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0));
        usage
    }
}

/// Voluntary context switches of a process. Threads come and go, so each is followed: what it had at first and last sight.
struct Switches {
    pid: u32,
    threads: BTreeMap<PathBuf, (u64, u64)>,
}

impl Switches {
    fn of(pid: u32) -> Self {
        let mut switches = Self { pid, threads: BTreeMap::new() };
        switches.look();
        switches.threads.values_mut().for_each(|(first, last)| *first = *last);
        switches
    }

    fn look(&mut self) {
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the process lives").filter_map(Result::ok) {
            let path = thread.path();
            let now = number(&path.join("status").to_string_lossy(), "voluntary_ctxt_switches:");
            // One that is new began with none.
            let (_, last) = self.threads.entry(path).or_insert((0, 0));
            *last = now.max(*last);
        }
    }

    fn count(&self) -> u64 {
        self.threads.values().map(|(first, last)| last - first).sum()
    }
}

fn number(path: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(key)).and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Length and time of last change of every managed file and what lies beside it.
fn stamps(device: &Device, files: u32) -> Vec<Option<(PathBuf, u64, std::time::SystemTime)>> {
    (0..files)
        .flat_map(|n| ["", "-wal"].map(|beside| device.path(&format!("{n}.db{beside}"))))
        .map(|path| {
            let meta = path.metadata().ok()?;
            Some((path, meta.len(), meta.modified().ok()?))
        })
        .collect()
}
