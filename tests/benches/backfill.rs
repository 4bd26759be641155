//! What a backfill costs the application, and what the application costs it; and how fast shipped rows are loaded:
//! `cargo bench -p whimbrel-tests --bench backfill`. With `-- --check` a missed target is a failure, with `-- --quick` the
//! table has a tenth of its rows; the words `backfill` and `load` choose a part.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use serde_json::Value;
use whimbrel::migrate::{
    apply::Policy,
    connection::{Managed, Missing},
    halt::Halt,
    live::Live,
};
use whimbrel_tests::{App, Mig, bins, engine::Accepted, scores::Scores};

/// Rows of the table that is backfilled.
const ROWS: u32 = 1_500_000;
/// Rows that are loaded.
const SHIPPED: u32 = 100_000;
/// What the reference's peers take at once (2.8).
const PEER_CHUNK: i64 = 10_000;
const LIMIT: Duration = Duration::from_secs(60);
/// How long the application is watched alone.
const BASELINE: Duration = Duration::from_secs(8);

/// Backfills whose estimates are looked at.
const ETAS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let asked = |flag: &str| args.iter().any(|a| a == flag);
    let parts: Vec<&str> = ["backfill", "load"].into_iter().filter(|part| asked(part)).collect();
    let part = |name: &str| parts.is_empty() || parts.contains(&name);
    bins::build();
    let mut scores = Scores::default();
    if part("backfill") {
        backfill(&mut scores, if asked("--quick") { ROWS / 10 } else { ROWS });
    }
    if part("load") {
        load(&mut scores);
    }
    scores.end(asked("--check"));
}

const SET: &str = "slug = lower(replace(title, ' ', '-'))";

fn backfill(scores: &mut Scores, rows: u32) {
    println!("\nA backfill of {rows} rows (WAL), beside an application that writes every 5 ms:");
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    let toml = format!("mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"{SET}\"\nwhere = \"slug IS NULL\"\n");
    let accepted = Accepted::new(
        folder.path(),
        vec![
            Mig::up(
                "0001_init",
                "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT); CREATE TABLE app_log(id INTEGER PRIMARY KEY, body TEXT);",
            ),
            Mig::up("0002_slugs", "ALTER TABLE notes ADD COLUMN slug TEXT;").toml(toml),
        ],
    );
    let base = folder.path().join("base.db");
    let connection = Connection::open(&base).expect("a file is made");
    connection.pragma_update(None, "journal_mode", "wal").expect("WAL");
    let identity = accepted.prepare(&base);
    let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: LIMIT, report_values: false, skip_verify: false };
    let mut file = Managed::open(&base, Missing::Refuse, LIMIT, Halt::default()).expect("it opens");
    let first = accepted.run(&mut file, &identity, (1, 1), policy, &Live::default());
    assert!(first.stopped.is_none(), "{:?}", first.stopped);
    drop(file);
    connection
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO notes(title, body) SELECT 'Note Number ' || i, 'the body of a note, with a few words in it ' || i FROM n",
            [rows],
        )
        .expect("rows");
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    drop(connection);
    let copy = |name: &str| {
        let path = folder.path().join(name);
        std::fs::copy(&base, &path).expect("a copy");
        // Else the first sync of whoever comes first pays for the whole file.
        std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("a sync");
        path
    };

    let path = copy("alone.db");
    let app = App::writing(&path, "app_log", 5, 5_000);
    std::thread::sleep(BASELINE);
    let alone = app.stop();
    shown(scores, "the application alone", &alone);

    let path = copy("chunks.db");
    prepared(&path);
    let unthrottled = f64::from(rows) / in_chunks(&path).as_secs_f64();
    scores.note("one unthrottled update in chunks: rows/s", format!("{unthrottled:.0}"));

    let path = copy("single.db");
    let connection = prepared(&path);
    let app = App::writing(&path, "app_log", 5, 60_000);
    let begun = Instant::now();
    connection.execute_batch(&format!("UPDATE notes SET {SET} WHERE slug IS NULL")).expect("one statement");
    scores.note("one statement: rows/s", format!("{:.0}", f64::from(rows) / begun.elapsed().as_secs_f64()));
    shown(scores, "the application beside one statement", &app.stop());

    let engine = |path: &Path| {
        let mut file = Managed::open(path, Missing::Refuse, LIMIT, Halt::default()).expect("it opens");
        let (live, longest) = (Live::default(), LongestLog::watch(path));
        let eta = Eta::watch(&live, rows);
        let begun = Instant::now();
        let ran = accepted.run(&mut file, &identity, (2, 2), policy, &live);
        let took = begun.elapsed();
        assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
        let left: i64 = file.connection.query_row("SELECT count(*) FROM notes WHERE slug IS NULL", [], |row| row.get(0)).expect("a count");
        assert_eq!(left, 0);
        (f64::from(rows) / took.as_secs_f64(), longest.stop(), eta.stop(took))
    };
    let path = copy("busy.db");
    let app = App::writing(&path, "app_log", 5, 5_000);
    let (busy_rate, wal_bytes, eta) = engine(&path);
    let beside = app.stop();
    shown(scores, "the application beside our backfill", &beside);
    let (idle_rate, _, idle_eta) = engine(&copy("idle.db"));
    // A tenth of it is less than half a second, in which a shared machine says little: the middle of several counts.
    let mut etas = vec![eta, idle_eta];
    etas.extend((etas.len()..ETAS).map(|n| {
        let path = copy(&format!("eta{n}.db"));
        let (.., eta) = engine(&path);
        std::fs::remove_file(path).expect("a copy");
        eta
    }));
    for eta in &etas {
        let tenths: Vec<_> = eta.tenths.iter().map(Duration::as_millis).collect();
        scores.note(&format!("time left, off by {:.0} %; what each tenth took, ms", eta.off_percent), format!("{tenths:?}"));
    }
    etas.sort_by(|a, b| a.off_percent.total_cmp(&b.off_percent));
    let silent = etas.iter().map(|e| e.silent).max().unwrap_or_default();
    let ms = |count: &Value, what: &str| count[what].as_f64().unwrap_or(f64::MAX) / 1000.0;
    scores.at_most("the application's p99, above its own alone", ms(&beside, "p99_us") - ms(&alone, "p99_us"), 5.0, "ms");
    scores.at_most("the application's longest, above its own alone", ms(&beside, "max_us") - ms(&alone, "max_us"), 25.0, "ms");
    scores.at_most("BUSY in the application", beside["busy"].as_f64().unwrap_or(f64::MAX), 0.0, "");
    scores.at_least("rows/s ÷ the unthrottled update's", busy_rate / unthrottled, 0.25, "×");
    scores.at_least("rows/s ÷ the unthrottled update's, the application idle", idle_rate / unthrottled, 0.7, "×");
    scores.at_most("longest write-ahead log", wal_bytes as f64 / 1e6, 16.0, "MB");
    scores.at_most(&format!("time left, said after a tenth, the middle of {ETAS}: off by"), etas[ETAS / 2].off_percent, 15.0, "%");
    scores.at_most("longest without news", silent.as_secs_f64(), 1.0, "s");
}

/// Opens a copy the way a peer would, with the column there.
fn prepared(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("it opens");
    connection.busy_timeout(LIMIT).expect("a timeout");
    connection.execute_batch("PRAGMA synchronous = FULL; ALTER TABLE notes ADD COLUMN slug TEXT").expect("the column");
    connection
}

/// The peer: key ranges one right after the other.
fn in_chunks(path: &Path) -> Duration {
    let connection = Connection::open(path).expect("it opens");
    connection.pragma_update(None, "synchronous", "FULL").expect("FULL");
    let begun = Instant::now();
    let last: i64 = connection.query_row("SELECT max(id) FROM notes", [], |row| row.get(0)).expect("a row");
    let mut at = 0;
    while at < last {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        connection
            .prepare_cached(&format!("UPDATE notes SET {SET} WHERE id > ?1 AND id <= ?2 AND slug IS NULL"))
            .and_then(|mut s| s.execute(params![at, at + PEER_CHUNK]))
            .expect("a chunk");
        connection.execute_batch("COMMIT").expect("commit");
        at += PEER_CHUNK;
    }
    begun.elapsed()
}

fn shown(scores: &Scores, who: &str, count: &Value) {
    let ms = |what: &str| count[what].as_f64().unwrap_or_default() / 1000.0;
    scores
        .note(&format!("{who}: writes, p50, p99, max ms"), format!("{} {:.2} {:.2} {:.2}", count["done"], ms("p50_us"), ms("p99_us"), ms("max_us")));
}

/// The largest size of a file's log.
struct LongestLog {
    stop: Arc<AtomicBool>,
    largest: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl LongestLog {
    fn watch(path: &Path) -> Self {
        let (stop, largest) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let log = format!("{}-wal", path.display());
        let (ends, found) = (stop.clone(), largest.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                found.fetch_max(std::fs::metadata(&log).map_or(0, |m| m.len()), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, largest, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher ends");
        self.largest.load(Ordering::Relaxed)
    }
}

/// What the daemon says about the time that is left, against what it took.
struct Eta {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Watched>,
}

/// What was seen of one backfill.
struct Watched {
    /// When it said how much is left, and what it said.
    said: Option<(Duration, Duration)>,
    silent: Duration,
    tenths: Vec<Duration>,
}

/// How right it was.
struct EtaScore {
    off_percent: f64,
    silent: Duration,
    /// What each tenth of the rows took.
    tenths: Vec<Duration>,
}

impl Eta {
    fn watch(live: &Live, rows: u32) -> Self {
        let (stop, live) = (Arc::<AtomicBool>::default(), live.clone());
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            let (begun, mut said, mut silent) = (Instant::now(), None, Duration::ZERO);
            let (mut last, mut since, mut ends_of) = (0, Instant::now(), vec![begun]);
            while !ends.load(Ordering::Relaxed) {
                if let Some(at) = live.picture().rows {
                    if at.done != last {
                        silent = silent.max(since.elapsed());
                        (last, since) = (at.done, Instant::now());
                    }
                    while at.done * 10 / u64::from(rows) >= ends_of.len() as u64 {
                        ends_of.push(Instant::now());
                    }
                    if said.is_none() && at.done >= u64::from(rows) / 10 {
                        said = at.left_ms.map(|ms| (begun.elapsed(), Duration::from_millis(ms)));
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Watched { said, silent, tenths: ends_of.windows(2).map(|two| two[1] - two[0]).collect() }
        });
        Self { stop, thread }
    }

    fn stop(self, took: Duration) -> EtaScore {
        self.stop.store(true, Ordering::Relaxed);
        let Watched { said, silent, tenths } = self.thread.join().expect("the watcher ends");
        let (at, left) = said.expect("it said how long");
        let really = took.saturating_sub(at).as_secs_f64();
        EtaScore { off_percent: (left.as_secs_f64() - really).abs() / really * 100.0, silent, tenths }
    }
}

fn load(scores: &mut Scores) {
    println!("\nLoading {SHIPPED} shipped rows:");
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    let table = "CREATE TABLE cards(id INTEGER PRIMARY KEY, face TEXT NOT NULL, back TEXT, rank INTEGER);";
    let rows: String =
        (1..=SHIPPED).map(|n| format!("{{\"id\":{n},\"face\":\"the face of card {n}\",\"back\":\"its back\",\"rank\":{}}}\n", n % 97)).collect();
    let step = "[[step]]\nload = \"cards.ndjson\"\ninto = \"cards\"\nkey = [\"id\"]\nconflict = \"replace\"\n";
    let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: LIMIT, report_values: false, skip_verify: false };
    let mut rates = Vec::new();
    for mode in ["atomic", "online"] {
        let folder = folder.path().join(mode);
        let accepted = Accepted::new(
            &folder,
            vec![
                Mig::up("0001_init", table),
                Mig::up("0002_cards", "").toml(format!("mode = \"{mode}\"\n{step}")).file("cards.ndjson", rows.clone()),
            ],
        );
        let path = folder.join("bench.db");
        Connection::open(&path).expect("a file").pragma_update(None, "journal_mode", "wal").expect("WAL");
        let identity = accepted.prepare(&path);
        let mut file = Managed::open(&path, Missing::Refuse, LIMIT, Halt::default()).expect("it opens");
        accepted.run(&mut file, &identity, (1, 1), policy, &Live::default());
        let begun = Instant::now();
        let ran = accepted.run(&mut file, &identity, (2, 2), policy, &Live::default());
        rates.push(f64::from(SHIPPED) / begun.elapsed().as_secs_f64());
        assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
        let there: u32 = file.connection.query_row("SELECT count(*) FROM cards", [], |row| row.get(0)).expect("a count");
        assert_eq!(there, SHIPPED);
    }
    let insert = |name: &str, rows: u32, together: bool| {
        let connection = Connection::open(folder.path().join(name)).expect("a file");
        connection.execute_batch(&format!("PRAGMA journal_mode = wal; PRAGMA synchronous = FULL; {table}")).expect("a table");
        let begun = Instant::now();
        if together {
            connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        }
        for n in 1..=rows {
            connection
                .prepare_cached("INSERT INTO cards VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut s| s.execute(params![n, format!("the face of card {n}"), "its back", n % 97]))
                .expect("a row");
        }
        if together {
            connection.execute_batch("COMMIT").expect("commit");
        }
        f64::from(rows) / begun.elapsed().as_secs_f64()
    };
    let (floor, single) = (insert("floor.db", SHIPPED, true), insert("single.db", SHIPPED / 50, false));
    scores.note("a prepared INSERT in one transaction: rows/s", format!("{floor:.0}"));
    scores.at_least("load, atomic ÷ a prepared INSERT in one transaction", rates[0] / floor, 0.5, "×");
    scores.note("load, online ÷ the same", format!("{:.2}", rates[1] / floor));
    scores.at_least("load, atomic ÷ a transaction for each row", rates[0] / single, 10.0, "×");
    scores.note("load, online ÷ the same", format!("{:.1}", rates[1] / single));
}
