//! What capture costs the application, as CPU time next to the same writes without our triggers; and what it keeps in the
//! file: `cargo bench -p whimbrel-tests --bench capture`. With `-- --check` a missed target is a failure.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, params};
use whimbrel::{
    store::journal,
    sync::{
        capture::{self, Wanted},
        fold::{Boot, Origin, fold},
        shape::Mode,
        sweep::sweep,
    },
};
use whimbrel_shared::columns::{Column, ColumnMap, TableColumns};
use whimbrel_tests::{bins, scores::Scores};

/// Rows of a bulk write.
const ROWS: u32 = 60_000;
/// Writes with a transaction each.
const SINGLES: u32 = 4_000;
/// Writes that one file has before it is the turn of the next.
const SINGLES_A_TURN: usize = 200;
const BULK_A_TURN: usize = 5_000;
/// Rounds; the middle one counts.
const ROUNDS: u32 = 3;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut scores = Scores::default();
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(bins::folder()).expect("a folder on the disk of the build");
    for (what, index, limits) in [
        ("5 columns, random text key", "", Some((1.15, 1.5, 1.8))),
        ("the same, and two indexes", "CREATE INDEX i ON item(mail); CREATE INDEX j ON item(price);", None),
        ("the same, and a UNIQUE index with its probe", "CREATE UNIQUE INDEX u ON item(mail);", None),
    ] {
        println!("\nCPU with capture ÷ without, {what} (WAL, synchronous = NORMAL):");
        compare(&mut scores, folder.path(), index, limits);
    }
    println!("\nWhat is kept in the file:");
    sizes(&mut scores, folder.path());
    scores.end(args.iter().any(|a| a == "--check"));
}

const TABLE: &str = "CREATE TABLE item(id TEXT PRIMARY KEY, mail TEXT, count INTEGER, price REAL, body TEXT);";

fn map() -> ColumnMap {
    let names = ["id", "mail", "count", "price", "body"];
    let columns = (1..).zip(names).map(|(id, name)| Column { id, name: name.to_owned() }).collect();
    ColumnMap { tables: vec![TableColumns { id: 1, name: "item".to_owned(), columns }] }
}

fn open(path: &Path, index: &str, mode: Option<Mode>) -> Connection {
    let connection = Connection::open(path).expect("a file");
    connection.execute_batch(&format!("PRAGMA journal_mode = wal; PRAGMA synchronous = NORMAL; {TABLE} {index}")).expect("a table");
    if let Some(mode) = mode {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        journal::make(&connection).expect("our tables");
        let judged = capture::install(&connection, &map(), &[Wanted { table: 1, mode }], 0).expect("it is installed");
        assert!(judged[0].captured.is_some(), "{judged:?}");
        connection.execute_batch("COMMIT").expect("commit");
    }
    connection
}

/// A key that comes at random, the same in every run.
fn key(n: u32) -> String {
    let spread = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}{:016x}", spread, spread.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

const INSERT: &str = "INSERT INTO item VALUES (?1, ?2, ?3, ?4, ?5)";
const UPDATE: &str = "UPDATE item SET count = count + 1, body = ?2 WHERE id = ?1";

fn insert(connection: &Connection, keys: &[String], first: u32) {
    let mut statement = connection.prepare_cached(INSERT).expect("it compiles");
    for (n, key) in (first..).zip(keys) {
        statement
            .execute(params![key, format!("someone{n}@example.com"), n, f64::from(n) * 0.25, "the body of a note, with a few words in it"])
            .expect("a row");
    }
}

fn update(connection: &Connection, keys: &[String]) {
    let mut statement = connection.prepare_cached(UPDATE).expect("it compiles");
    for key in keys {
        statement.execute(params![key, "another body of the note, with other words"]).expect("a row");
    }
}

fn together(connection: &Connection, work: impl FnOnce()) {
    connection.execute_batch("BEGIN").expect("begin");
    work();
    connection.execute_batch("COMMIT").expect("commit");
}

/// CPU time of this thread for `work`.
fn cpu(work: impl FnOnce()) -> Duration {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes to the struct that it is given.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let begun = now();
    work();
    now() - begun
}

const KINDS: [&str; 5] = ["autocommit insert", "autocommit update", "bulk insert", "bulk update", "bulk delete"];

/// The same writes into files that are captured in different ways, in turns of some milliseconds, so that what else runs on
/// the machine meets all of them alike. CPU of each kind of write, by file.
fn round(files: &[Connection; 3], bulk: &[String], singles: &[String]) -> [[Duration; 5]; 3] {
    let mut spent = [[Duration::ZERO; 5]; 3];
    let (before, after) = bulk.split_at(bulk.len() / 2);
    let mut turns = |kind: usize, keys: &[String], size: usize, work: &dyn Fn(&Connection, &[String], u32)| {
        for (turn, keys) in (0..).zip(keys.chunks(size)) {
            for n in 0..3 {
                let file = (turn as usize + n) % 3;
                spent[file][kind] += cpu(|| work(&files[file], keys, turn));
            }
        }
    };
    // The single writes meet a table that has rows.
    for file in files {
        together(file, || insert(file, before, 0));
    }
    turns(0, singles, SINGLES_A_TURN, &|file, keys, turn| insert(file, keys, 10_000_000 + turn * 10_000));
    turns(1, singles, SINGLES_A_TURN, &|file, keys, _| update(file, keys));
    turns(2, after, BULK_A_TURN, &|file, keys, turn| together(file, || insert(file, keys, 20_000_000 + turn * 100_000)));
    turns(3, after, BULK_A_TURN, &|file, keys, _| together(file, || update(file, keys)));
    turns(4, before, BULK_A_TURN, &|file, keys, _| together(file, || delete(file, keys)));
    spent
}

fn delete(connection: &Connection, keys: &[String]) {
    let mut statement = connection.prepare_cached("DELETE FROM item WHERE id = ?1").expect("it compiles");
    for key in keys {
        statement.execute([key]).expect("a row");
    }
}

fn compare(scores: &mut Scores, folder: &Path, index: &str, limits: Option<(f64, f64, f64)>) {
    let bulk: Vec<String> = (0..ROWS * 2).map(key).collect();
    let singles: Vec<String> = (0..SINGLES).map(|n| key(1_000_000_000 + n)).collect();
    let mut ratios: [[Vec<f64>; 5]; 2] = Default::default();
    for round_number in 0..ROUNDS {
        let folder = folder.join(format!("{round_number}{}", index.len()));
        std::fs::create_dir(&folder).expect("a folder");
        let files =
            [("none", None), ("mask", Some(Mode::Mask)), ("key", Some(Mode::KeyOnly))].map(|(name, mode)| open(&folder.join(name), index, mode));
        let spent = round(&files, &bulk, &singles);
        drop(files);
        std::fs::remove_dir_all(&folder).expect("it can be removed");
        for (ratios, spent) in ratios.iter_mut().zip(&spent[1..]) {
            for (kind, ratios) in ratios.iter_mut().enumerate() {
                ratios.push(spent[kind].as_secs_f64());
            }
        }
        for ratios in &mut ratios {
            for (kind, ratios) in ratios.iter_mut().enumerate() {
                *ratios.last_mut().expect("one was pushed") /= spent[0][kind].as_secs_f64();
            }
        }
    }
    let mut middle = |mode: usize, kind: usize| -> f64 {
        ratios[mode][kind].sort_unstable_by(f64::total_cmp);
        ratios[mode][kind][ROUNDS as usize / 2]
    };
    for (at, kind) in KINDS.iter().enumerate() {
        let (mask, key_only) = (middle(0, at), middle(1, at));
        match (limits, at) {
            (Some((limit, _, _)), 0) | (Some((_, limit, _)), 1) | (Some((_, _, limit)), 2) => scores.at_most(kind, mask, limit, "×"),
            _ => scores.note(kind, format!("{mask:.2} ×")),
        }
        scores.note(&format!("{kind}, key-only mode"), format!("{key_only:.2} ×"));
    }
}

fn sizes(scores: &mut Scores, folder: &Path) {
    let keys: Vec<String> = (0..ROWS).map(key).collect();
    let size = |connection: &Connection| {
        connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a count");
        pages as f64 * 4096.0
    };
    let plain = open(&folder.join("plain.db"), "", None);
    together(&plain, || insert(&plain, &keys, 0));
    let plain = size(&plain);

    let path = folder.join("captured.db");
    let connection = open(&path, "", Some(Mode::Mask));
    connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
    sweep(&connection, 10).expect("a sweep of nothing");
    connection.execute_batch("COMMIT").expect("commit");
    let empty = size(&connection);
    scores.note("our tables, empty", format!("{:.0} KB", (empty - size(&open(&folder.join("none.db"), "", None))) / 1e3));
    together(&connection, || insert(&connection, &keys, 0));
    let unfolded = size(&connection);
    let rows = journal::size(&connection).expect("a count");
    let per_row = (unfolded - plain - (empty - 8192.0)) / rows as f64;
    scores.at_most("a row of the journal, with its key of 32 bytes", per_row, 60.0, "bytes");

    let boot = Boot { id: "bench".to_owned(), began_ms: 0 };
    let took = cpu(|| {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        fold(&connection, &boot, Origin::App, 0, None).expect("it folds");
        connection.execute_batch("COMMIT").expect("commit");
    });
    scores.note("fold of inserts: rows/s of CPU", format!("{:.0}", f64::from(ROWS) / took.as_secs_f64()));
    let folded = size(&connection);
    scores.note("file after the fold, everything unsent, ÷ without capture", format!("{:.2} ×", folded / plain));

    acknowledge(&connection);
    let acknowledged = size(&connection);
    scores.note("file after the acknowledgement of everything ÷ without capture", format!("{:.2} ×", acknowledged / plain));
    scores.note("what is recorded of a row", format!("{:.0} bytes", (acknowledged - empty) / f64::from(ROWS) - (plain / f64::from(ROWS))));

    together(&connection, || update(&connection, &keys));
    let took = cpu(|| {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        fold(&connection, &boot, Origin::App, 0, None).expect("it folds");
        connection.execute_batch("COMMIT").expect("commit");
    });
    scores.note("fold of updates of known rows: rows/s of CPU", format!("{:.0}", f64::from(ROWS) / took.as_secs_f64()));
    scores.note("most that a journal nobody folds takes, keys of 32 bytes", format!("{:.1} MB", journal::most_bytes(32) as f64 / 1e6));
}

/// As the server would: every row that waits is recorded, and waits no more.
fn acknowledge(connection: &Connection) {
    use whimbrel::{
        store::outbox::{Outbox, Recorded, pending},
        sync::rows::{Columns, Rows},
    };
    let tables = capture::captured(connection).expect("it is captured");
    let mut rows = Rows::new(connection, &tables[0]);
    let mut outbox = Outbox::open(connection).expect("an outbox");
    connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
    loop {
        let page = pending(connection, None, 1000, &|_| Some(1)).expect("a page");
        if page.is_empty() {
            break;
        }
        for (place, _) in page {
            let hashes = rows.read(&place.key, Columns::All).expect("it can be read").expect("it is there");
            outbox.record(place.table, &place.key, Some(&Recorded { version: 1, hashes, gone: false, untold: false })).expect("it is recorded");
            outbox.put(place.table, &place.key, None).expect("it waits no more");
        }
    }
    connection.execute_batch("COMMIT").expect("commit");
}
