//! Rebuilt tables that go back, from the end and from half-way; and one that an application never leaves alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use whimbrel_shared::status::Operation;

use super::tests::Bed;
use crate::migrate::{apply::Ran, live::Live};

const TABLE: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT); CREATE INDEX notes_title ON notes(title);
    CREATE TABLE tags(note INTEGER REFERENCES notes(id) ON DELETE CASCADE, tag TEXT);";
const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO notes SELECT i, 'Note ' || i, CASE WHEN i % 3 THEN 'body ' || i END FROM n; INSERT INTO tags SELECT id, 'tag' FROM notes WHERE id % 10 = 0;";
const SHAPE: (&str, &str) =
    ("notes.sql", "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT NOT NULL CHECK (body <> 'bad'), words INTEGER);");
const REBUILD: &str =
    "mode = \"online\"\n[[step]]\nrebuild = \"notes\"\nas = \"notes.sql\"\nvalues = { body = \"coalesce(body, '')\" }\nbatch = 20\n";
const FILL: &str = "[[step]]\nbackfill = \"notes\"\nset = \"words = length(body)\"\nwhere = \"words IS NULL\"\nbatch = 20\n";
/// A way down as a tool writes it, valid wherever the table has its new shape.
const DOWN: (&str, &str) = (
    "down.sql",
    "CREATE TABLE notes_new(id INTEGER PRIMARY KEY, title TEXT, body TEXT); INSERT INTO notes_new SELECT id, title, nullif(body, '') FROM notes;
     DROP TABLE notes; ALTER TABLE notes_new RENAME TO notes; CREATE INDEX notes_title ON notes(title);",
);
const READ: &str = "SELECT group_concat(id || '|' || title || '|' || ifnull(body, '-'), ';') FROM (SELECT * FROM notes ORDER BY id)";

fn bed(more: &str) -> Bed {
    Bed::new(ROWS, &[&[("up.sql", TABLE)], &[("migration.toml", &format!("{REBUILD}{more}")), SHAPE, DOWN]])
}

/// Runs the migration until `there` is seen in the file, and stops it there.
fn until(bed: &Bed, there: &str) -> Ran {
    let (halt, path, sql) = (bed.halt.clone(), bed.path.clone(), there.to_owned());
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let stopper = std::thread::spawn(move || {
        let file = rusqlite::Connection::open(path).unwrap();
        file.busy_timeout(Duration::from_secs(5)).unwrap();
        while !ended.load(Ordering::Relaxed) && !file.query_row(&sql, [], |row| row.get::<_, bool>(0)).unwrap() {
            std::thread::yield_now();
        }
        halt.stop.store(true, Ordering::Relaxed);
    });
    let ran = bed.run(Operation::Apply, 2, 2, &Live::default());
    over.store(true, Ordering::Relaxed);
    stopper.join().unwrap();
    bed.halt.stop.store(false, Ordering::Relaxed);
    ran
}

/// The table is as it was, with its rows and what belongs to it, and the chain at version 1.
#[track_caller]
fn is_back(bed: &Bed, rows: &str) {
    assert_eq!(bed.one::<String>(READ), rows);
    assert_eq!(bed.one::<String>("SELECT group_concat(name) FROM pragma_table_info('notes')"), "id,title,body");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM sqlite_schema WHERE name = 'notes_title' AND tbl_name = 'notes'"), 1);
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM tags"), 200, "no child went");
    assert_eq!(
        bed.one::<i64>("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%aside%' OR name LIKE '%side\\_%' ESCAPE '\\'"),
        0,
        "no table of ours is left"
    );
    assert_eq!(bed.one::<String>("SELECT group_concat(integrity_check, ';') FROM pragma_integrity_check"), "ok");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    assert_eq!(bed.one::<String>("SELECT status FROM _whimbrel_migration WHERE version = 2"), "reverted");
    bed.nothing_is_left();
}

#[track_caller]
fn revert(bed: &Bed) {
    let ran = bed.run(Operation::Revert, 2, 2, &Live::default());
    assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
}

#[test]
fn a_rebuilt_table_goes_back_and_is_rebuilt_again() {
    let bed = bed(FILL);
    let rows: String = bed.one(READ);
    for _ in 0..2 {
        bed.apply();
        assert_eq!(bed.one::<i64>("SELECT count(*) FROM notes WHERE words = length(body)"), 2000);
        revert(&bed);
        is_back(&bed, &rows);
    }
}

#[test]
fn a_rebuild_that_stopped_while_the_old_table_is_emptied_goes_back() {
    let bed = bed("");
    let rows: String = bed.one(READ);
    let ran = until(&bed, "SELECT count(*) = 1 FROM sqlite_schema WHERE name = '_whimbrel_aside_1'");
    assert_eq!(ran.stopped.expect("it was stopped").failure.code, "cancelled");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM sqlite_schema WHERE name = '_whimbrel_aside_1'"), 1, "half-way");
    revert(&bed);
    is_back(&bed, &rows);
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM notes WHERE body IS NOT NULL"), 2000);
}

#[test]
fn a_rebuild_that_stopped_among_its_rows_goes_back_without_a_way_down() {
    let bed = bed("");
    let rows: String = bed.one(READ);
    let ran = until(&bed, "SELECT count(*) = 1 AND max(examined) > 200 FROM _whimbrel_checkpoint");
    assert_eq!(ran.stopped.expect("it was stopped").failure.code, "cancelled");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM sqlite_schema WHERE name = '_whimbrel_side_1'"), 1, "half-way");
    revert(&bed);
    is_back(&bed, &rows);
}

#[test]
fn a_backfill_that_stops_behind_a_rebuild_takes_the_rebuild_back_with_it() {
    let bed = bed(FILL);
    let rows: String = bed.one(READ);
    let ran = until(&bed, "SELECT count(*) = 1 FROM _whimbrel_checkpoint WHERE unit = 2 AND examined > 200");
    assert_eq!(ran.stopped.expect("it was stopped").failure.code, "cancelled");
    assert!((200..2000).contains(&bed.one::<i64>("SELECT count(words) FROM notes")), "half-way");
    revert(&bed);
    is_back(&bed, &rows);
}

/// Longer than this is never.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_rebuild_ends_under_an_application_that_never_pauses() {
    let toml = REBUILD.replace("batch = 20", "batch = 500");
    let bed = Arc::new(Bed::new(ROWS, &[&[("up.sql", TABLE)], &[("migration.toml", &toml), SHAPE, DOWN]]));
    let over = Arc::new(AtomicBool::new(false));
    let (ended, other, begun) = (over.clone(), bed.clone(), Instant::now());
    // A third of the table with every statement, one right after the other.
    let app = std::thread::spawn(move || {
        let app = other.app();
        let mut said = 0u32;
        while !ended.load(Ordering::Relaxed) {
            app.execute("UPDATE notes SET title = 'changed ' || ?1 WHERE id % 3 = ?1 % 3", [said]).unwrap();
            said += 1;
            if begun.elapsed() > LIMIT {
                other.halt.stop.store(true, Ordering::Relaxed);
            }
        }
        said
    });
    let ran = bed.run(Operation::Apply, 2, 2, &Live::default());
    over.store(true, Ordering::Relaxed);
    let said = app.join().unwrap();
    println!("{said} statements of some 670 rows each meanwhile, {:?}", begun.elapsed());
    assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
    for third in 0..3 {
        let last = (said - 3..said).find(|n| n % 3 == third).unwrap();
        assert_eq!(
            bed.one::<i64>(&format!("SELECT count(*) FROM notes WHERE id % 3 = {third} AND title <> 'changed {last}'")),
            0,
            "its last word stands"
        );
    }
    bed.nothing_is_left();
}
