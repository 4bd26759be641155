//! Tables rebuilt on real files, from a publisher's directory to the rows, with an application at work meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use whimbrel_shared::status::Operation;

use super::tests::Bed;
use crate::migrate::live::Live;

/// A table with everything that belongs to one, and others that refer to it.
const TABLES: &str = "
    CREATE TABLE authors(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body TEXT, code TEXT UNIQUE, author INTEGER REFERENCES authors(id),
        above INTEGER REFERENCES notes(id), state TEXT);
    CREATE INDEX notes_title ON notes(title);
    CREATE UNIQUE INDEX notes_open ON notes(state, title) WHERE state = 'open';
    CREATE TABLE log(note INTEGER);
    CREATE TRIGGER notes_log AFTER UPDATE OF title ON notes BEGIN INSERT INTO log VALUES (NEW.id); END;
    CREATE TABLE tags(note INTEGER REFERENCES notes(id) ON DELETE CASCADE, tag TEXT);
    CREATE VIEW titles AS SELECT id, title FROM notes;";
const ROWS: &str = "
    INSERT INTO authors SELECT i, 'author ' || i FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) SELECT i FROM n);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ROWS)
    INSERT INTO notes(title, body, code, author, above) SELECT 'Note ' || i, CASE WHEN i % 3 THEN 'body ' || i END, 'c' || i, 1 + i % 20, nullif(i / 2, 0) FROM n;
    INSERT INTO tags SELECT id, 'tag' FROM notes WHERE id % 10 = 0;
    INSERT INTO notes(id) VALUES (ROWS + 50); DELETE FROM notes WHERE id = ROWS + 50;";
const SHAPE: (&str, &str) = (
    "notes.sql",
    "CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body TEXT NOT NULL CHECK (body <> 'bad'), code TEXT UNIQUE,
        author INTEGER REFERENCES authors(id), above INTEGER REFERENCES notes(id), state TEXT, words INTEGER AS (length(body)) STORED);
     CREATE INDEX notes_author ON notes(author);",
);
const REBUILD: &str = "[[step]]\nrebuild = \"notes\"\nas = \"notes.sql\"\nvalues = { body = \"coalesce(body, '')\" }\n";
/// The rows as they have to be, from those that the table had.
const WANTED: &str = "SELECT group_concat(id || '|' || ifnull(title, '-') || '|' || ifnull(BODY, '') || '|' || ifnull(code, '-') || '|' || ifnull(author, '-') || '|' || ifnull(above, '-') || '|' || ifnull(state, '-'), ';') FROM (SELECT * FROM notes ORDER BY id)";

fn rows(n: u32) -> String {
    ROWS.replace("ROWS", &n.to_string())
}

fn bed(mode: &str, rows: u32, batch: u32) -> Bed {
    let toml = format!("mode = \"{mode}\"\n{REBUILD}batch = {batch}\n");
    Bed::new(&self::rows(rows), &[&[("up.sql", TABLES)], &[("migration.toml", &toml), SHAPE]])
}

/// Everything that has to be true of the file when the table has its new shape.
fn whole(bed: &Bed) {
    assert_eq!(bed.one::<String>("SELECT group_concat(integrity_check, ';') FROM pragma_integrity_check"), "ok");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    let there = "SELECT group_concat(type || ' ' || name || ' ' || tbl_name, '; ') FROM (SELECT * FROM sqlite_schema WHERE tbl_name IN ('notes', 'titles') ORDER BY type, name)";
    assert_eq!(
        bed.one::<String>(there),
        "index notes_author notes; index notes_open notes; index notes_title notes; index sqlite_autoindex_notes_1 notes; table notes notes; trigger notes_log notes; view titles titles"
    );
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_whimbrel\\_%\\_2%' ESCAPE '\\' OR name LIKE '%aside%' OR name LIKE '%side\\_%' ESCAPE '\\'"), 0);
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM sqlite_sequence WHERE name <> 'notes'"), 0);
    bed.nothing_is_left();
}

#[test]
fn a_rebuilt_table_keeps_its_rows_indexes_triggers_and_numbers() {
    for mode in ["online", "atomic"] {
        let bed = bed(mode, 2000, 150);
        let before: String = bed.one(&WANTED.replace("BODY", "body"));
        bed.apply();
        assert_eq!(bed.one::<String>(&WANTED.replace("BODY", "body")), before, "{mode}");
        whole(&bed);
        assert_eq!(bed.one::<i64>("SELECT seq FROM sqlite_sequence WHERE name = 'notes'"), 2050, "{mode}");
        assert_eq!(bed.one::<i64>("SELECT count(*) FROM log"), 0, "no trigger of the application fired for the copy");
        assert_eq!(bed.one::<i64>("SELECT count(*) FROM tags"), 200, "no child went");
        let app = bed.app();
        app.execute_batch("PRAGMA foreign_keys = ON; UPDATE notes SET title = 'x' WHERE id = 1; DELETE FROM notes WHERE id = 2000").unwrap();
        assert_eq!(bed.one::<i64>("SELECT count(*) FROM log"), 1);
        assert_eq!(bed.one::<i64>("SELECT count(*) FROM tags"), 199);
        assert!(app.execute_batch("INSERT INTO notes(body, code) VALUES ('', 'c1')").unwrap_err().to_string().contains("UNIQUE"));
        assert!(app.execute_batch("INSERT INTO notes(body) VALUES ('bad')").unwrap_err().to_string().contains("CHECK"));
    }
}

#[test]
fn a_large_table_is_rebuilt_online_without_one_long_hold() {
    // How long the lock was held without a break, as one sees it who asks for it again and again.
    let longest = |mode: &str| -> Duration {
        let bed = Arc::new(bed(mode, 40_000, 100_000));
        let over = Arc::new(AtomicBool::new(false));
        let (other, ended) = (bed.clone(), over.clone());
        let asks = std::thread::spawn(move || {
            let app = Connection::open(&other.path).unwrap();
            app.busy_timeout(Duration::ZERO).unwrap();
            let (mut longest, mut free) = (Duration::ZERO, Instant::now());
            while !ended.load(Ordering::Relaxed) {
                match app.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
                    Ok(()) => free = Instant::now(),
                    Err(_) => longest = longest.max(free.elapsed()),
                }
                std::thread::yield_now();
            }
            longest
        });
        bed.apply();
        over.store(true, Ordering::Relaxed);
        whole(&bed);
        asks.join().unwrap()
    };
    let (online, atomic) = (longest("online"), longest("atomic"));
    println!("40,000 rows: the lock was held for {online:?} at most online, and {atomic:?} in one transaction");
    assert!(online * 3 < atomic, "{online:?} online, {atomic:?} in one transaction");
}

#[test]
fn a_row_that_the_new_table_does_not_take_stops_the_step_and_the_old_table_stays() {
    let bed = bed("online", 300, 50);
    bed.app().execute_batch("UPDATE notes SET body = 'bad' WHERE id = 222").unwrap();
    let (code, message) = bed.fails();
    assert!(code == "constraint" && message.contains("row [222]"), "{code}: {message}");
    // The application goes on as if nothing was: the row that stops it is corrected, others change.
    bed.app().execute_batch("UPDATE notes SET body = 'good' WHERE id = 222; DELETE FROM notes WHERE id = 299").unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM notes"), 299);
    whole(&bed);
}

#[test]
fn a_foreign_key_that_is_new_is_judged_and_what_was_wrong_before_is_not() {
    let shape = SHAPE.1.replace("state TEXT,", "state TEXT REFERENCES states(name),");
    let tables = format!("{TABLES} CREATE TABLE states(name TEXT PRIMARY KEY); INSERT INTO states VALUES ('open');");
    let step = format!("mode = \"online\"\n{REBUILD}");
    let bed = |more: &str| Bed::new(&format!("{}{more}", rows(50)), &[&[("up.sql", &tables)], &[("migration.toml", &step), ("notes.sql", &shape)]]);
    let wrong_before = "PRAGMA foreign_keys = OFF; UPDATE notes SET author = 999 WHERE id = 3;";
    let tolerated = bed(wrong_before);
    tolerated.apply();
    assert_eq!(tolerated.one::<i64>("SELECT count(*) FROM pragma_foreign_key_check"), 1);
    let (code, message) = bed("UPDATE notes SET state = 'lost' WHERE id = 4").fails();
    assert!(code == "new_violations" && message.contains("[4]") && message.contains("states"), "{code}: {message}");
}

#[test]
fn a_copy_that_has_not_taken_its_place_is_taken_away_on_a_persons_word() {
    let mut bed = bed("online", 300, 50);
    bed.app().execute_batch("UPDATE notes SET body = 'bad' WHERE id = 222").unwrap();
    bed.fails();
    let ran = bed.run(Operation::Revert, 2, 2, &Live::default());
    assert_eq!(ran.stopped.map(|s| s.failure.code).as_deref(), None, "nothing of it was to be seen, so no way down is needed");
    bed.nothing_is_left();
    bed.fails();
    let other = format!("mode = \"online\"\n{}", REBUILD.replace("coalesce(body, '')", "coalesce(nullif(body, 'bad'), '')"));
    let down = "CREATE TABLE notes_old(id INTEGER PRIMARY KEY);";
    let why = bed.revise(2, &[("migration.toml", &other), SHAPE, ("down.sql", down)]).unwrap_err();
    assert!(why.contains("half-way in revision 1"), "{why}");
}

// ---- an application that writes meanwhile ---------------------------------------------------------------------------------

/// Statements of one application.
const MOST_SAID: u32 = 600;

/// Numbers that a seed gives.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// A table, what it becomes, and what an application says to it.
struct Case {
    tables: &'static str,
    rows: String,
    files: [(&'static str, &'static str); 1],
    step: &'static str,
    /// The rows, in the new shape, as both have them.
    rows_old: &'static str,
    rows_new: &'static str,
    says: fn(&mut Dice) -> String,
}

fn notes_case() -> Case {
    Case {
        tables: TABLES,
        rows: rows(1500),
        files: [SHAPE],
        step: REBUILD,
        rows_old: "SELECT id, title, coalesce(body, ''), code, author, above, state FROM notes ORDER BY id",
        rows_new: "SELECT id, title, body, code, author, above, state FROM notes ORDER BY id",
        says: |dice| {
            let (a, b, c) = (1 + dice.below(1700), 1 + dice.below(1700), dice.below(1700));
            match dice.below(16) {
                0 => format!("INSERT INTO notes(title, body, code, author) VALUES ('new {a}', 'b', 'c{b}', 1 + {c} % 20)"),
                1 => format!("INSERT OR REPLACE INTO notes(id, title, body, code, author) VALUES ({a}, 'replaced', 'b', 'c{b}', 3)"),
                2 => format!("INSERT OR IGNORE INTO notes(id, title, body, code) VALUES ({a}, 'ignored', 'b', 'c{b}')"),
                3 => format!("UPDATE notes SET title = 'changed {b}', body = 'x' WHERE id BETWEEN {a} AND {a} + 20"),
                4 => format!("UPDATE OR REPLACE notes SET code = 'c{b}' WHERE id = {a}"),
                5 => format!("UPDATE OR IGNORE notes SET id = {b} WHERE id = {a}"),
                6 => format!("UPDATE OR REPLACE notes SET id = {b}, above = NULL WHERE id = {a}"),
                7 => format!("DELETE FROM notes WHERE id = {a}"),
                8 => format!("UPDATE notes SET above = NULL WHERE above = {a}; DELETE FROM notes WHERE id = {a}"),
                9 => format!("INSERT INTO notes(body, code) VALUES ('up', 'c{a}') ON CONFLICT(code) DO UPDATE SET title = 'upserted'"),
                10 => format!("INSERT OR REPLACE INTO notes(body, state, title) VALUES ('o', 'open', 'task {}')", a % 9),
                11 => format!("UPDATE OR REPLACE notes SET state = 'open', title = 'task {}' WHERE id = {b}", a % 9),
                12 => format!("BEGIN; DELETE FROM notes WHERE id > {a}; UPDATE notes SET code = NULL; ROLLBACK"),
                13 => format!("BEGIN; UPDATE notes SET author = 2 WHERE author = {0}; DELETE FROM authors WHERE id = {0}; COMMIT", 3 + c % 17),
                14 => format!("DELETE FROM authors WHERE id = {}", 1 + c % 20),
                _ => format!("UPDATE notes SET above = {b} WHERE id = {a}"),
            }
        },
    }
}

const PAIRS: &str = "INSERT INTO pairs SELECT 'k' || i % 40, i, 'c' || i, 'w' || i FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n);";

fn says_to_pairs(dice: &mut Dice) -> String {
    // Which of several rows wins depends on their order, and the new shape may have another.
    let one = |b: u64| format!("(a, b) = (SELECT a, b FROM pairs WHERE b = {b} ORDER BY a LIMIT 1)");
    let (a, b, c, d) = (dice.below(42), dice.below(1600), dice.below(1600), dice.below(42));
    match dice.below(9) {
        0 => format!("INSERT INTO pairs VALUES ('k{a}', {b}, 'c{c}', 'new')"),
        1 => format!("INSERT OR REPLACE INTO pairs VALUES ('K{a}', {b}, 'c{c}', 'replaced')"),
        2 => format!("UPDATE pairs SET word = 'changed' WHERE a = 'k{a}' AND b < {b}"),
        3 => format!("UPDATE OR REPLACE pairs SET a = 'k{d}', b = {c} WHERE {}", one(b)),
        4 => format!("UPDATE OR REPLACE pairs SET c = 'c{c}' WHERE {}", one(b)),
        5 => format!("DELETE FROM pairs WHERE b = {b}"),
        6 => format!("INSERT INTO pairs VALUES ('k{a}', {b}, NULL, 'up') ON CONFLICT(a, b) DO UPDATE SET word = 'upserted'"),
        7 => "BEGIN; DELETE FROM pairs; INSERT INTO pairs VALUES ('k', 0, NULL, 'none'); ROLLBACK".to_owned(),
        _ => format!("UPDATE OR IGNORE pairs SET b = b + 5000 WHERE a = 'k{a}' AND b < {b}"),
    }
}

fn pairs_case(tables: &'static str, shape: &'static str) -> Case {
    Case {
        tables,
        rows: PAIRS.to_owned(),
        files: [("pairs.sql", shape)],
        step: "[[step]]\nrebuild = \"pairs\"\nas = \"pairs.sql\"\nvalues = { said = \"upper(word)\" }\n",
        rows_old: "SELECT a, b, c, upper(word) FROM pairs ORDER BY a, b",
        rows_new: "SELECT a, b, c, upper(said) FROM pairs ORDER BY a, b",
        says: says_to_pairs,
    }
}

/// An application says the same to the file, while its table is rebuilt, and to a file that nobody touches. Each statement
/// has to end the same in both, and so have the rows. The run is stopped now and then, and goes on.
fn with_an_application(name: &str, case: &Case, seed: u64) {
    let toml = format!("mode = \"online\"\n{}batch = 25\n", case.step);
    let bed = Arc::new(Bed::new(&case.rows, &[&[("up.sql", case.tables)], &[("migration.toml", &toml), case.files[0]]]));
    let mirror = Connection::open_in_memory().unwrap();
    mirror.execute_batch(&format!("{}{}PRAGMA foreign_keys = ON", case.tables, case.rows)).unwrap();
    let (live, over) = (Live::default(), Arc::new(AtomicBool::new(false)));
    let (watch, ended, other, says) = (live.clone(), over.clone(), bed.clone(), case.says);
    let app = std::thread::spawn(move || {
        let (mut dice, mut said) = (Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), 0u32);
        let app = other.app();
        app.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        while watch.picture().rows.is_none() && !ended.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // An application that never pauses could touch rows faster than they are looked at.
        while said < 50 || said < MOST_SAID && !ended.load(Ordering::Relaxed) {
            let sql = says(&mut dice);
            let run = |file: &Connection| {
                let result = file.execute_batch(&sql).map_err(|e| e.to_string());
                if !file.is_autocommit() {
                    file.execute_batch("ROLLBACK").unwrap();
                }
                result
            };
            let (in_file, in_mirror) = (run(&app), run(&mirror));
            // What the new shape says first may be another of several constraints.
            assert_eq!(in_file.is_ok(), in_mirror.is_ok(), "seed {seed}, statement {said}: {sql}: {in_file:?}, {in_mirror:?}");
            said += 1;
            if dice.below(60) == 0 {
                other.halt.stop.store(true, Ordering::Relaxed);
            }
        }
        (mirror, said)
    });
    let mut stops = 0;
    loop {
        let ran = bed.run(Operation::Apply, 2, 2, &live);
        match ran.stopped {
            None => break,
            Some(stopped) if stopped.failure.code == "cancelled" => stops += 1,
            Some(stopped) => {
                over.store(true, Ordering::Relaxed);
                let _ = app.join();
                panic!("{name}, seed {seed}: {stopped:?}");
            }
        }
        bed.halt.stop.store(false, Ordering::Relaxed);
    }
    over.store(true, Ordering::Relaxed);
    let (mirror, said) = app.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let read = |file: &Connection, sql: &str| -> Vec<String> {
        let mut statement = file.prepare(sql).unwrap();
        let columns = statement.column_count();
        let row =
            |row: &rusqlite::Row<'_>| Ok(format!("{:?}", (0..columns).map(|c| row.get::<_, rusqlite::types::Value>(c).unwrap()).collect::<Vec<_>>()));
        statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let (found, wanted) = (read(&bed.app(), case.rows_new), read(&mirror, case.rows_old));
    let different: Vec<_> = found.iter().filter(|r| !wanted.contains(r)).chain(wanted.iter().filter(|r| !found.contains(r))).take(5).collect();
    assert!(found == wanted, "{name}, seed {seed}: {} rows for {}, such as {different:?}", found.len(), wanted.len());
    assert_eq!(bed.one::<String>("SELECT group_concat(integrity_check, ';') FROM pragma_integrity_check"), "ok");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    bed.nothing_is_left();
    println!("{name}, seed {seed}: {said} statements, {stops} stops, {} rows", found.len());
}

fn seeds() -> std::ops::Range<u64> {
    if std::env::var_os("WHIMBREL_NIGHT").is_some() { 1..60 } else { 1..4 }
}

#[test]
fn whatever_an_application_says_meanwhile_the_rebuilt_table_has_its_rows() {
    seeds().for_each(|seed| with_an_application("notes", &notes_case(), seed));
}

#[test]
fn a_table_without_row_ids_is_rebuilt_under_an_application() {
    let old = "CREATE TABLE pairs(a TEXT COLLATE NOCASE, b INTEGER, c TEXT UNIQUE, word TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID;";
    let new = "CREATE TABLE pairs(b INTEGER, a TEXT COLLATE NOCASE, said TEXT DEFAULT 'UP', c TEXT UNIQUE, word TEXT, PRIMARY KEY(a DESC, b)) WITHOUT ROWID;";
    let case = Case {
        rows_new: "SELECT a, b, c, upper(word) FROM pairs ORDER BY a, b",
        says: |dice| says_to_pairs(dice).replace("INTO pairs VALUES", "INTO pairs(a, b, c, word) VALUES"),
        ..pairs_case(old, new)
    };
    seeds().for_each(|seed| with_an_application("without row ids", &case, seed));
}

#[test]
fn a_table_gets_its_key_instead_of_row_ids_and_back_under_an_application() {
    let with = "CREATE TABLE pairs(a TEXT COLLATE NOCASE, b INTEGER, c TEXT UNIQUE, word TEXT, said TEXT, PRIMARY KEY(a, b));";
    let without = "CREATE TABLE pairs(a TEXT COLLATE NOCASE, b INTEGER, c TEXT UNIQUE, word TEXT, said TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID;";
    for (name, old, new) in [("to a key", with, without), ("to row ids", without, with)] {
        let case = Case {
            rows: PAIRS.replace("INTO pairs SELECT", "INTO pairs(a, b, c, word) SELECT"),
            rows_old: "SELECT a, b, c, word FROM pairs ORDER BY a, b",
            rows_new: "SELECT a, b, c, word FROM pairs ORDER BY a, b",
            says: |dice| says_to_pairs(dice).replace("INTO pairs VALUES", "INTO pairs(a, b, c, word) VALUES"),
            ..pairs_case(old, new)
        };
        seeds().for_each(|seed| with_an_application(name, &case, seed));
    }
}
