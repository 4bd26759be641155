//! Migrations of many transactions, while the application goes on writing between them.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use whimbrel::{store::journal, sync::shape::Mode};
use whimbrel_shared::status::Operation;

use crate::bed::{Answer, Bed, Published, files, publish};

const ROWS: u32 = 3_000;
const PERSON: &str = "CREATE TABLE person(id INTEGER PRIMARY KEY, last TEXT, zip TEXT, note TEXT);";
const FIRST: &str = "[sync.person]\nkeys = 'global'";

/// The splits of `last` in three steps: columns, backfill, and then the old one goes.
fn split() -> Published {
    publish(&files(&[
        ("1_a/up.sql", PERSON),
        ("1_a/migration.toml", FIRST),
        ("2_b/up.sql", "ALTER TABLE person ADD family TEXT; ALTER TABLE person ADD suffix TEXT;"),
        ("2_b/drop.sql", "ALTER TABLE person DROP last; ALTER TABLE person DROP zip;"),
        (
            "2_b/migration.toml",
            "mode = 'online'\ndestructive = true\n[[step]]\nsql = 'up.sql'\n[[step]]\nbackfill = 'person'\nbatch = 50\nset = \"family = 'f-' || last, suffix = 's-' || last\"\nwhere = \"family IS NOT 'f-' || last AND last IS NOT NULL\"\n[[step]]\nsql = 'drop.sql'\n[[carry]]\ntable = 'person'\nsplit = { last = ['family', 'suffix'] }",
        ),
    ]))
}

fn filled(published: &Published) -> Bed<'_> {
    let mut bed = Bed::new(published);
    bed.go(Operation::Apply, 1, 1);
    bed.capture(1, Mode::Mask);
    let fill = format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) INSERT INTO person SELECT n, 'l' || n, 'z' || n, 'n' FROM c"
    );
    bed.app().execute_batch(&fill).unwrap();
    bed.exchange(&mut || Answer::Accepted);
    bed
}

/// The application edits rows, each once, for as long as the migration runs and at least a few. Returns which.
fn while_edited(bed: &Bed<'_>, edit: &(dyn Fn(&Connection, u32) -> rusqlite::Result<usize> + Sync), run: &dyn Fn()) -> Vec<u32> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let app = scope.spawn(|| {
            let app = bed.app();
            app.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
            let mut done = Vec::new();
            for row in (1..=ROWS).step_by(7) {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                match edit(&app, row) {
                    Ok(1) => done.push(row),
                    // Its column is gone: the migration is at its end.
                    other => assert!(other.as_ref().is_err_and(|e| e.to_string().contains("no such column")), "{other:?}"),
                }
            }
            done
        });
        run();
        over.store(true, Ordering::Relaxed);
        app.join().unwrap()
    })
}

/// The rows that wait to be sent, with the columns.
fn waiting(bed: &Bed<'_>, column: &str) -> Vec<u32> {
    let dirty = bed.dirty();
    let mut rows: Vec<u32> = dirty.keys().filter(|cell| cell.2.as_deref() == Some(column)).map(|cell| key(&cell.1[0])).collect();
    rows.sort_unstable();
    rows
}

/// `Integer(7)`, as the bed writes a number.
fn key(text: &str) -> u32 {
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn what_the_application_edits_while_a_column_is_split_online_arrives_in_both_parts() {
    let published = split();
    let bed = filled(&published);
    bed.app().execute_batch("UPDATE person SET last = 'before' WHERE id = 1; UPDATE person SET zip = 'before' WHERE id = 2").unwrap();
    // A trigger of its own fires for what the backfill writes, and writes into the row.
    bed.app()
        .execute_batch(
            "CREATE TRIGGER own AFTER UPDATE OF family ON person WHEN NEW.id % 100 = 0 BEGIN UPDATE person SET note = 'own' WHERE id = NEW.id; END",
        )
        .unwrap();
    let edit = |app: &Connection, row: u32| app.execute("UPDATE person SET last = 'later' || ?1 WHERE id = ?1", [row]);
    let mut edited = while_edited(&bed, &edit, &|| bed.go(Operation::Apply, 2, 2));
    edited.extend((!edited.contains(&1)).then_some(1));
    edited.sort_unstable();
    assert!(edited.len() > 1, "the application had no turn");
    assert_eq!(waiting(&bed, "family"), edited);
    assert_eq!(waiting(&bed, "suffix"), edited);
    let wrong =
        "SELECT count(*) FROM person WHERE substr(family, 3) <> substr(suffix, 3) OR family NOT IN ('f-l' || id, 'f-later' || id, 'f-before')";
    assert_eq!(bed.value::<i64>(wrong), 0);
    let archived: Vec<_> = bed.archive().into_iter().map(|(_, key, column, value)| (key, column.unwrap(), value.unwrap())).collect();
    assert!(archived.contains(&("[2]".to_owned(), "zip".to_owned(), "before".to_owned())), "{archived:?}");
    assert!(archived.iter().all(|(_, column, _)| column == "zip"), "{archived:?}");
    let before = bed.dirty();
    bed.sweep_all();
    assert_eq!(bed.dirty().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

#[test]
fn what_the_application_edits_while_a_table_is_rebuilt_is_captured_before_and_after_the_swap() {
    let published = publish(&files(&[
        ("1_a/up.sql", PERSON),
        ("1_a/migration.toml", FIRST),
        ("2_b/person.sql", "CREATE TABLE person(id INTEGER PRIMARY KEY, given TEXT NOT NULL DEFAULT '', zip INTEGER, note TEXT)"),
        (
            "2_b/migration.toml",
            "mode = 'online'\ndestructive = true\n[[step]]\nrebuild = 'person'\nas = 'person.sql'\nvalues = { given = 'last' }\nbatch = 50\n[[carry]]\ntable = 'person'\nrename = { last = 'given' }",
        ),
    ]));
    let bed = filled(&published);
    bed.app().execute_batch("UPDATE person SET last = 'before' WHERE id = 1").unwrap();
    let edit = |app: &Connection, row: u32| {
        app.execute("UPDATE person SET last = 'later' WHERE id = ?1", [row])
            .or_else(|_| app.execute("UPDATE person SET given = 'later' WHERE id = ?1", [row]))
    };
    let mut edited = while_edited(&bed, &edit, &|| bed.go(Operation::Apply, 2, 2));
    edited.extend((!edited.contains(&1)).then_some(1));
    edited.sort_unstable();
    assert_eq!(waiting(&bed, "given"), edited);
    assert_eq!(bed.dirty().len(), edited.len());
    // The type of zip is another, and its values with it.
    bed.sweep_all();
    assert_eq!(bed.dirty().len(), edited.len());
    bed.app().execute_batch("DELETE FROM person WHERE id = 3").unwrap();
    assert!(bed.dirty().keys().any(|cell| key(&cell.1[0]) == 3));
}

#[test]
fn an_online_migration_that_is_taken_back_half_way_gives_every_edit_back() {
    let published = publish(&files(&[
        ("1_a/up.sql", PERSON),
        ("1_a/migration.toml", FIRST),
        ("2_b/up.sql", "ALTER TABLE person ADD family TEXT;"),
        ("2_b/down.sql", "ALTER TABLE person DROP family;"),
        (
            "2_b/migration.toml",
            "mode = 'online'\ndestructive = true\n[[step]]\nsql = 'up.sql'\n[[step]]\nverify = 'verify.sql'\n[[carry]]\ntable = 'person'",
        ),
        ("2_b/verify.sql", "SELECT count(*) = 0 FROM person WHERE zip = 'bad'"),
    ]));
    let bed = filled(&published);
    bed.app().execute_batch("UPDATE person SET last = 'mine', zip = 'bad' WHERE id = 1").unwrap();
    let before = bed.dirty();
    let failure = bed.run(Operation::Apply, 2, 2).stopped.unwrap().failure;
    assert_eq!(failure.code, "not_verified", "{failure:?}");
    // Half-way, and the application goes on: also in the column that is there now.
    bed.app().execute_batch("UPDATE person SET last = 'again', family = 'new' WHERE id = 1; UPDATE person SET zip = 'x' WHERE id = 5").unwrap();
    assert!(waiting(&bed, "family") == [1] && waiting(&bed, "zip") == [1, 5]);
    bed.go(Operation::Revert, 2, 2);
    assert_eq!(bed.dirty().len(), before.len() + 1);
    assert_eq!(bed.value::<String>("SELECT group_concat(column_name || '=' || value) FROM _whimbrel_archive"), "family=new");
    assert!(journal::is_whole(&bed.app()).unwrap());
    bed.sweep_all();
    assert_eq!(bed.dirty().len(), before.len() + 1);
}
