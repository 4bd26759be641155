//! What a backup costs, retention and all, and what an application that goes on writing notices of it, measured in one run
//! against one undisturbed `sqlite3_backup_step(-1)`: `cargo bench -p whimbrel-tests --bench backup`. With `-- --check` a missed target
//! is a failure, with `-- --mb 50` the database is smaller than its 500 MB.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, backup::Backup};
use whimbrel::migrate::{
    backup::{copy::copy, discard},
    connection::{Managed, Missing},
    halt::Halt,
};
use whimbrel_tests::{App, bins};

/// Each way is measured so often, in turns; the middle counts.
const ROUNDS: usize = 5;
/// The application writes one row every so many milliseconds.
const EVERY_MS: u32 = 5;
/// How long the application is watched at least, with and without backups: enough writes for a 99th percentile.
const WATCHED: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let after = |flag: &str| args.iter().position(|a| a == flag).and_then(|at| args.get(at + 1));
    let mb: u32 = after("--mb").map_or(500, |text| text.parse().expect("--mb is a number of megabytes"));
    bins::build();
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    let file = folder.path().join("app.db");
    let size = make(&file, mb);
    println!("\nA backup of {:.0} MB (WAL), {ROUNDS} rounds in turns:", size as f64 / 1e6);

    let mut scores = Scores::default();
    let (mut plain, mut ours, mut checks, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(step_at_once(&file, folder.path()));
        let app = App::writing(&file, "app_log", EVERY_MS, 1_000);
        let (took, events) = backup(&file, folder.path());
        app.stop();
        ours.push(took);
        steps.push(events as f64 / took.as_secs_f64());
        checks.push(quick_check(&folder.path().join("copy.db")));
    }
    let ms = |all: &mut Vec<Duration>| middle(all).as_secs_f64() * 1000.0;
    let (plain, ours, check) = (ms(&mut plain), ms(&mut ours), ms(&mut checks));
    scores.note("step(-1), nobody writing: milliseconds", format!("{plain:.0}"));
    scores.note("backup under a writing application: milliseconds", format!("{ours:.0}"));
    scores.note("its quick_check afterwards: milliseconds", format!("{check:.0}"));
    scores.at_most("backup, synced and renamed ÷ step(-1)", ours / plain, 1.5, "×");
    scores.at_least("steps of progress", steps.iter().copied().fold(f64::MAX, f64::min), 4.0, "/s");

    println!("\nAn application that writes a row every {EVERY_MS} ms, for {WATCHED:?} each:");
    let app = App::writing(&file, "app_log", EVERY_MS, 1_000);
    std::thread::sleep(WATCHED);
    let alone = app.stop();
    let app = App::writing(&file, "app_log", EVERY_MS, 1_000);
    let begun = Instant::now();
    let mut backups = 0;
    while begun.elapsed() < WATCHED {
        backup(&file, folder.path());
        backups += 1;
    }
    let beside = app.stop();
    let p99 = |count: &serde_json::Value| count["p99_us"].as_f64().expect("it counted") / 1000.0;
    scores.note("alone: p99 and maximum in milliseconds", format!("{:.2}, {:.1}", p99(&alone), alone["max_us"].as_f64().unwrap_or(0.0) / 1000.0));
    scores.note(
        &format!("beside {backups} backups on end: p99 and maximum in milliseconds"),
        format!("{:.2}, {:.1}", p99(&beside), beside["max_us"].as_f64().unwrap_or(0.0) / 1000.0),
    );
    scores.at_most("p99 beside a backup above p99 alone", (p99(&beside) - p99(&alone)).max(0.0), 2.0, "ms");
    scores.at_most("BUSY in the application", beside["busy"].as_f64().unwrap_or(f64::MAX), 0.0, "");

    println!();
    match scores.missed {
        0 => println!("every target is met"),
        missed => println!("{missed} target(s) missed"),
    }
    if args.iter().any(|a| a == "--check") && scores.missed > 0 {
        std::process::exit(1);
    }
}

/// Makes a database of about `mb` megabytes, as the application would. Returns its size in bytes.
fn make(path: &Path, mb: u32) -> u64 {
    let file = Connection::open(path).expect("a file is made");
    file.pragma_update(None, "journal_mode", "wal").expect("WAL");
    file.execute_batch(&format!(
        "CREATE TABLE app_log(id INTEGER PRIMARY KEY, body TEXT); CREATE TABLE t(n INTEGER PRIMARY KEY, pad BLOB);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {}) INSERT INTO t SELECT n, randomblob(150) FROM c;",
        u64::from(mb) * 6_000
    ))
    .expect("it is filled");
    // The log as long as the file would be read along with it.
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    drop(file);
    std::fs::metadata(path).expect("it is there").len()
}

/// The yardstick: one step over all pages into a new file as SQLite makes it by itself, nobody writing.
fn step_at_once(path: &Path, folder: &Path) -> Duration {
    let to = folder.join("plain.db");
    let _ = std::fs::remove_file(&to);
    let source = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it opens");
    let begun = Instant::now();
    let mut target = Connection::open(&to).expect("a file is made");
    Backup::new(&source, &mut target).and_then(|b| b.step(-1)).expect("it is copied");
    begun.elapsed()
}

/// Ours, from opening the file to the renamed copy, and the one before it gone as retention takes it away. Returns how long it
/// took and the steps of progress that it told of.
fn backup(path: &Path, folder: &Path) -> (Duration, u32) {
    let mut events = 0;
    let begun = Instant::now();
    let source = Managed::open(path, Missing::Refuse, LIMIT, Halt::default()).expect("it opens");
    let part = copy(&source.connection, folder.join("copy.part"), &Halt::default(), &mut |_| events += 1, |_| Ok(())).expect("it is copied");
    let (copy, old) = (folder.join("copy.db"), folder.join("old.db"));
    if copy.exists() {
        std::fs::rename(&copy, &old).expect("the one before it has a name");
    }
    part.finish(&copy).expect("it is synced and renamed");
    if old.exists() {
        discard(&old).expect("the one before it goes");
    }
    (begun.elapsed(), events)
}

fn quick_check(path: &Path) -> Duration {
    let begun = Instant::now();
    let found: String = Connection::open(path).and_then(|c| c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))).expect("it can be checked");
    assert_eq!(found, "ok");
    begun.elapsed()
}

fn middle(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// Figures beside their targets.
#[derive(Default)]
struct Scores {
    missed: u32,
}

impl Scores {
    fn at_most(&mut self, what: &str, figure: f64, limit: f64, unit: &str) {
        self.score(what, figure, figure <= limit, '≤', limit, unit);
    }

    fn at_least(&mut self, what: &str, figure: f64, limit: f64, unit: &str) {
        self.score(what, figure, figure >= limit, '≥', limit, unit);
    }

    fn score(&mut self, what: &str, figure: f64, met: bool, sign: char, limit: f64, unit: &str) {
        self.missed += u32::from(!met);
        println!("  {} {what:<64} {figure:>9.2} {unit:<5} target {sign} {limit} {unit}", if met { "ok  " } else { "MISS" });
    }

    fn note(&self, what: &str, figure: impl std::fmt::Display) {
        println!("       {what:<64} {figure:>12}");
    }
}
