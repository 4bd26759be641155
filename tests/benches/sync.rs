//! What the exchange of rows does in a second, beside a prepared upsert loop over the same rows; what a row takes on the wire;
//! and what a file that begins with a million rows costs: `cargo bench -p whimbrel-tests --bench sync`. With `-- --check` a
//! missed target is a failure; the words `throughput`, `steady` and `bootstrap` choose a part.

use std::{
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use whimbrel_tests::{
    Mig, bins,
    replica::{Replica, Space},
    scores::Scores,
};

/// Rows of the throughput.
const ROWS: u32 = 100_000;
/// Rows of the bootstrap.
const MANY: u32 = 1_000_000;
/// Exchanges of which the write lock is measured.
const STEADY: u32 = 300;
/// Rows that an application writes before each of them.
const A_TURN: u32 = 40;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| args.iter().any(|a| a == word);
    let all = !["throughput", "steady", "bootstrap"].into_iter().any(asked);
    let mut scores = Scores::default();
    let folder = |name: &str| tempfile::Builder::new().prefix(name).tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    if all || asked("throughput") {
        println!("\n{ROWS} rows of 5 columns over loopback, rows/s ÷ those of a prepared upsert loop in one transaction:");
        throughput(&mut scores, folder("bench-sync-").path());
    }
    if all || asked("steady") {
        println!("\nThe write lock in steady exchange, {A_TURN} rows a turn:");
        steady(&mut scores, folder("bench-steady-").path());
    }
    if all || asked("bootstrap") {
        println!("\nA file that begins with {MANY} rows:");
        bootstrap(&mut scores, folder("bench-many-").path());
    }
    scores.end(asked("--check"));
}

const TABLE: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, mail TEXT, count INTEGER, price REAL, body TEXT)";
const UPSERT: &str = "INSERT INTO item VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT(id) DO UPDATE SET
    mail = excluded.mail, count = excluded.count, price = excluded.price, body = excluded.body";

fn space(folder: &Path) -> Space {
    Space::new(folder, vec![Mig::up("0001_init", TABLE).toml("[sync.item]\nconflict = \"keep-newest\"\nkeys = \"renumber\"\n")])
}

/// Writes rows in one transaction. Returns how long it took.
fn upsert(connection: &Connection, first: u32, rows: u32) -> Duration {
    let begun = Instant::now();
    connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
    let mut statement = connection.prepare_cached(UPSERT).expect("it compiles");
    for n in first..first + rows {
        // Not so regular that a page shrinks to nothing.
        let spread = (u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
        statement
            .execute(params![
                n,
                format!("someone{spread}@example.com"),
                spread % 1_000,
                f64::from(spread) * 0.25,
                format!("a note with {} words", spread % 97)
            ])
            .expect("a row");
    }
    drop(statement);
    connection.execute_batch("COMMIT").expect("commit");
    begun.elapsed()
}

fn throughput(scores: &mut Scores, folder: &Path) {
    let plain = Connection::open(folder.join("plain.db")).expect("a file");
    plain.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {TABLE}")).expect("a table");
    let alone = upsert(&plain, 1, ROWS);
    scores.note("the loop alone, rows/s", format!("{:.0}", f64::from(ROWS) / alone.as_secs_f64()));
    let space = space(folder);
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    // What happens once in a file's life is no part of it.
    for replica in [&a, &b] {
        replica.sync(&space);
    }
    upsert(&a.app, 1, ROWS);
    let mut one = |what: &str, replica: &Replica, done: fn(&whimbrel::replicate::Replicated) -> u64| {
        let bytes = replica.traffic.bytes.load(Relaxed);
        let begun = Instant::now();
        let replicated = replica.sync(&space);
        let took = begun.elapsed();
        assert_eq!(done(&replicated), u64::from(ROWS), "{replicated:?}");
        scores.at_least(&format!("{what}, ratio"), alone.as_secs_f64() / took.as_secs_f64(), 0.4, "");
        scores.note(&format!("{what}, rows/s"), format!("{:.0}", f64::from(ROWS) / took.as_secs_f64()));
        let bytes = (replica.traffic.bytes.load(Relaxed) - bytes) as f64 / f64::from(ROWS);
        scores.at_most(&format!("{what}, on the wire"), bytes, 20.0, "B/row");
        scores.note(&format!("{what}, the longest hold of the write lock"), format!("{:?}", replicated.longest_hold));
    };
    one("push and acknowledge", &a, |done| done.accepted);
    one("pull and land", &b, |done| done.landed);
}

fn steady(scores: &mut Scores, folder: &Path) {
    let space = space(folder);
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    upsert(&a.app, 1, ROWS / 10);
    let mut holds = Vec::new();
    for turn in 0..STEADY {
        let (writes, reads) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
        writes.write(&format!("UPDATE item SET count = count + 1 WHERE id > {0} AND id <= {0} + {A_TURN}", turn * A_TURN % (ROWS / 10)));
        holds.extend([writes, reads].map(|replica| replica.sync(&space).longest_hold));
    }
    holds.sort_unstable();
    let p99 = holds[holds.len() * 99 / 100];
    scores.at_most("the longest hold of an exchange, p99", p99.as_secs_f64() * 1e3, 50.0, "ms");
}

fn bootstrap(scores: &mut Scores, folder: &Path) {
    let space = space(folder);
    let a = Replica::new(&space, "a", 1);
    for part in 0..10 {
        upsert(&a.app, part * (MANY / 10) + 1, MANY / 10);
    }
    let before = forget_peak();
    let begun = Instant::now();
    assert_eq!(a.sync(&space).accepted, u64::from(MANY));
    scores.note("sent, rows/s", format!("{:.0}", f64::from(MANY) / begun.elapsed().as_secs_f64()));
    scores.at_most("memory of both sides while it is sent", peak() - before, 64.0, "MB");

    let b = Replica::new(&space, "b", 1);
    let pages = u64::from(MANY).div_ceil(whimbrel_shared::change::MAX_PAGE_ROWS as u64);
    let before = forget_peak();
    let begun = Instant::now();
    // Ended in the middle of a page.
    b.traffic.stop_after.store(pages / 2, Relaxed);
    b.try_sync(&space).expect_err("it was stopped");
    b.traffic.stop_after.store(u64::MAX, Relaxed);
    b.halt.stop.store(false, Relaxed);
    b.sync(&space);
    let took = begun.elapsed();
    scores.note("landed, rows/s", format!("{:.0}", f64::from(MANY) / took.as_secs_f64()));
    scores.at_most("memory of both sides while it lands", peak() - before, 64.0, "MB");
    // One asks for the time, and one finds that there is no more.
    let again = b.traffic.pulls.load(Relaxed) as f64 - pages as f64 - 2.0;
    scores.at_most("pages that were fetched again after a kill", again, 1.0, "");
    assert_eq!(b.table("SELECT count(*) FROM item"), [format!("Integer({MANY})")]);
}

/// A figure of this process, in MB.
fn memory(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = status.lines().find(|line| line.starts_with(what)).expect("it is there");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kilobytes") / 1024.0
}

/// The most that was in memory so far.
fn peak() -> f64 {
    memory("VmHWM")
}

/// The most counts from now on. Returns what is in memory now.
fn forget_peak() -> f64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux forgets");
    memory("VmRSS")
}
