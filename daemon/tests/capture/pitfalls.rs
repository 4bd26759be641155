//! The pitfalls of capture by triggers (reference 2.4), by number, through the drivers that applications use. A case is a
//! schema, rows that the server has, what the application does, and what then waits to be sent.

use std::path::Path;

use rusqlite::Connection;
use whimbrel::{
    store::{
        journal,
        key::KeyValue,
        outbox::{self, Deed, pending},
    },
    sync::{
        capture::{self, Seen, Wanted},
        classify::{Class, Judged},
        echo::Landing,
        fold::{Boot, Folded, Origin, fold},
        shape::{Captured, Echo, Mode},
        sweep,
        triggers::triggers,
    },
};
use whimbrel_shared::columns::{Column, ColumnMap, TableColumns};

use crate::{
    driver::Driver,
    replica::{Replica, truth},
};

const NOW_MS: i64 = 1_700_000_000_000;

/// A file with capture, and the other side.
struct World {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    connection: Connection,
    map: ColumnMap,
    wanted: Vec<Wanted>,
    replica: Replica,
    driver: Driver,
}

impl World {
    /// Captures every table of `schema` whose name does not begin with `own_`; ids are given in order.
    fn new(driver: Driver, mode: Mode, schema: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let connection = Connection::open(&path).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection.execute_batch(&format!("PRAGMA journal_mode = wal; {schema}")).unwrap();
        journal::make(&connection).unwrap();
        let map = map(&connection);
        let wanted = map.tables.iter().map(|t| Wanted { table: t.id, mode }).collect();
        let mut world = Self { _folder: folder, path, connection, map, wanted, replica: Replica::default(), driver };
        world.install();
        world.converge();
        world
    }

    fn install(&self) -> Vec<Judged> {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let judged = capture::install(&self.connection, &self.map, &self.wanted, NOW_MS).unwrap();
        self.connection.execute_batch("COMMIT").unwrap();
        judged
    }

    fn tables(&self) -> Vec<Captured> {
        capture::captured(&self.connection).unwrap()
    }

    /// The application runs statements, and none of them fails.
    fn app(&self, statements: &[&str]) {
        assert_eq!(self.driver.run(&self.path, statements), [""; 0], "{statements:?}");
    }

    fn fold(&self, most: Option<u64>) -> Folded {
        fold_now(&self.connection, most)
    }

    /// What waits to be sent, as `table key deed columns`.
    fn waits(&self) -> Vec<String> {
        self.fold(None);
        let tables = self.tables();
        let waiting = pending(&self.connection, None, 1000, &|id| tables.iter().find(|t| t.id == id).map(|t| t.key.len())).unwrap();
        let mut shown: Vec<_> = waiting
            .iter()
            .map(|(place, entry)| {
                let table = tables.iter().find(|t| t.id == place.table).unwrap();
                let key: Vec<_> = place.key.0.iter().map(show).collect();
                let mut columns: Vec<u32> = entry.edits.iter().flat_map(|e| e.columns.clone()).collect();
                columns.sort_unstable();
                let name = |id: &u32| table.tracked().iter().find(|(known, _)| known == id).unwrap().1.to_owned();
                let what = match entry.deed {
                    Deed::Insert => "insert".to_owned(),
                    Deed::Delete => "delete".to_owned(),
                    Deed::Edit => format!("edit {}", columns.iter().map(name).collect::<Vec<_>>().join(",")),
                };
                format!("{} {} {what}", table.name, key.join("/"))
            })
            .collect();
        shown.sort_unstable();
        shown
    }

    /// Everything is sent and acknowledged, and both sides are the same.
    fn converge(&mut self) {
        let tables = self.tables();
        for _ in 0..10 {
            self.fold(None);
            self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            sweep::sweep(&self.connection, 1000).unwrap();
            self.replica.send(&self.connection, &tables, &mut || true);
            while !self.replica.on_the_way.is_empty() {
                self.replica.arrive(&self.connection, 0);
            }
            self.connection.execute_batch("COMMIT").unwrap();
        }
        assert_eq!(outbox::count(&self.connection).unwrap(), 0);
        assert_eq!(self.replica.rows, truth(&self.connection, &tables));
    }

    fn count(&self, sql: &str) -> i64 {
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn fold_now(connection: &Connection, most: Option<u64>) -> Folded {
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let done = fold(connection, &Boot { id: "a boot".to_owned(), began_ms: 0 }, Origin::App, NOW_MS, most).unwrap();
    connection.execute_batch("COMMIT").unwrap();
    done
}

fn map(connection: &Connection) -> ColumnMap {
    let names = |sql: &str, name: &str| -> Vec<String> {
        connection.prepare(sql).unwrap().query_map([name], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let tables = names("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '_whimbrel_*' AND name NOT GLOB ?1", "own_*");
    let columns = |table: &str| {
        let names = names("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid", table);
        (1..).zip(names).map(|(id, name)| Column { id, name }).collect()
    };
    ColumnMap { tables: (1..).zip(tables).map(|(id, name)| TableColumns { id, columns: columns(&name), name }).collect() }
}

fn show(value: &KeyValue) -> String {
    match value {
        KeyValue::Integer(n) => n.to_string(),
        KeyValue::Real(bits) => f64::from_bits(*bits).to_string(),
        KeyValue::Text(text) => String::from_utf8_lossy(text).into_owned(),
        KeyValue::Blob(bytes) => format!("{bytes:?}"),
    }
}

/// A schema with rows, what the application does, and what waits then.
struct Case {
    pitfall: u32,
    schema: &'static str,
    app: &'static [&'static str],
    waits: &'static [&'static str],
}

const ITEM: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, mail TEXT UNIQUE, n); INSERT INTO item VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3);";

const CASES: &[Case] = &[
    Case {
        pitfall: 1,
        schema: ITEM,
        app: &[
            "INSERT OR REPLACE INTO item VALUES (1, 'x', 7)",
            "INSERT OR IGNORE INTO item VALUES (4, 'w', 7)",
            "INSERT OR FAIL INTO item VALUES (5, 'v', 7)",
            "INSERT OR ROLLBACK INTO item VALUES (6, 'u', 7)",
            "UPDATE OR REPLACE item SET n = 8 WHERE id = 2",
        ],
        waits: &["item 1 edit n", "item 2 edit n", "item 4 insert", "item 5 insert", "item 6 insert"],
    },
    Case {
        pitfall: 2,
        schema: ITEM,
        app: &[
            "PRAGMA recursive_triggers = OFF",
            "INSERT OR REPLACE INTO item VALUES (9, 'x', 1)",
            "UPDATE OR REPLACE item SET mail = 'z' WHERE id = 2",
        ],
        waits: &["item 1 delete", "item 2 edit mail", "item 3 delete", "item 9 insert"],
    },
    Case {
        pitfall: 2,
        schema: ITEM,
        app: &["PRAGMA recursive_triggers = ON", "REPLACE INTO item VALUES (9, 'x', 1)", "UPDATE OR REPLACE item SET id = 3 WHERE id = 2"],
        waits: &["item 1 delete", "item 2 delete", "item 3 edit mail,n", "item 9 insert"],
    },
    Case { pitfall: 3, schema: ITEM, app: &["INSERT OR IGNORE INTO item VALUES (9, 'x', 1)", "UPDATE OR IGNORE item SET mail = 'x'"], waits: &[] },
    Case {
        pitfall: 4,
        schema: "CREATE TABLE item(id INTEGER PRIMARY KEY, mail TEXT UNIQUE); INSERT INTO item VALUES (-1, 'x'), (1, 'y');",
        app: &["INSERT INTO item(mail) VALUES ('w')", "INSERT OR REPLACE INTO item VALUES (NULL, 'x')"],
        waits: &["item -1 delete", "item 2 insert", "item 3 insert"],
    },
    Case {
        pitfall: 5,
        schema: "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, n, other TEXT); INSERT INTO person VALUES (1, 'Lee', 1, 'a'), (2, 'b', 2, 'b');",
        app: &["UPDATE person SET name = 'lee', other = 'c' WHERE id = 1", "UPDATE person SET n = 2.0, other = 'c' WHERE id = 2"],
        waits: &["person 1 edit name,other", "person 2 edit n,other"],
    },
    Case {
        pitfall: 6,
        schema: "CREATE TABLE word(w TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, n); INSERT INTO word VALUES ('Abc', 1), ('Def', 1);",
        app: &["UPDATE word SET w = 'aBC' WHERE w = 'abc'", "UPDATE word SET n = 2 WHERE w = 'ABC'", "REPLACE INTO word VALUES ('DEF', 1)"],
        waits: &["word abc edit w,n", "word def edit w"],
    },
    Case {
        pitfall: 9,
        schema: ITEM,
        app: &["DELETE FROM item WHERE id = 3", "INSERT INTO item(mail, n) VALUES ('new', 3.0)"],
        waits: &["item 3 edit mail,n"],
    },
    Case {
        pitfall: 10,
        schema: "CREATE TABLE a(id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1), (2);
                 CREATE TABLE b(id INTEGER PRIMARY KEY, a REFERENCES a ON DELETE CASCADE); INSERT INTO b VALUES (1, 1), (2, 2);
                 CREATE TABLE c(id INTEGER PRIMARY KEY, a REFERENCES a ON DELETE SET NULL ON UPDATE CASCADE); INSERT INTO c VALUES (1, 1), (2, 2);",
        app: &["PRAGMA foreign_keys = ON", "DELETE FROM a WHERE id = 1", "DELETE FROM b", "UPDATE a SET id = 5"],
        waits: &["a 1 delete", "a 2 delete", "a 5 insert", "b 1 delete", "b 2 delete", "c 1 edit a", "c 2 edit a"],
    },
    Case { pitfall: 11, schema: ITEM, app: &["DELETE FROM item"], waits: &["item 1 delete", "item 2 delete", "item 3 delete"] },
    Case {
        pitfall: 12,
        schema: ITEM,
        app: &["INSERT INTO item VALUES (4, 'w', 1) RETURNING id, n", "DELETE FROM item WHERE id = 1 RETURNING *"],
        waits: &["item 1 delete", "item 4 insert"],
    },
    Case {
        pitfall: 14,
        schema: ITEM,
        app: &[
            "PRAGMA trusted_schema = OFF",
            "INSERT INTO item VALUES (4, 'w', 1)",
            "UPDATE item SET n = 9 WHERE id = 1",
            "DELETE FROM item WHERE id = 2",
        ],
        waits: &["item 1 edit n", "item 2 delete", "item 4 insert"],
    },
    Case {
        pitfall: 16,
        schema: ITEM,
        app: &[
            "UPDATE item SET n = x'00ff' WHERE id = 1",
            "UPDATE item SET n = 9e999 WHERE id = 2",
            "UPDATE item SET n = 0.1 + 0.2, mail = zeroblob(2000000) WHERE id = 3",
        ],
        waits: &["item 1 edit n", "item 2 edit n", "item 3 edit mail,n"],
    },
    Case {
        pitfall: 18,
        schema: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, at); INSERT INTO t VALUES (1, 1, 1);
                 CREATE TRIGGER own AFTER UPDATE OF a ON t BEGIN UPDATE t SET at = at + 1 WHERE id = NEW.id; END;",
        app: &["UPDATE t SET a = 2"],
        waits: &["t 1 edit a,at"],
    },
    Case {
        pitfall: 19,
        schema: "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a + 1) STORED UNIQUE, v AS (a * 2)); INSERT INTO t(id, a) VALUES (1, 1), (2, 2);",
        app: &["UPDATE t SET a = 5 WHERE id = 1", "REPLACE INTO t(id, a) VALUES (7, 2)"],
        waits: &["t 1 edit a", "t 2 delete", "t 7 insert"],
    },
];

fn through(driver: Driver) {
    for case in CASES {
        let mut world = World::new(driver, Mode::Mask, case.schema);
        world.app(case.app);
        assert_eq!(world.waits(), case.waits, "pitfall {} through {driver:?}", case.pitfall);
        world.converge();
    }
    others(driver);
}

#[test]
fn the_pitfalls_through_rusqlite() {
    through(Driver::Rusqlite);
}

#[test]
fn the_pitfalls_through_the_sqlite3_shell() {
    through(Driver::Shell);
}

#[test]
fn the_pitfalls_through_pythons_sqlite3() {
    through(Driver::Python);
}

#[test]
fn the_pitfalls_through_better_sqlite3() {
    through(Driver::BetterSqlite3);
}

/// Those that need more than statements and what waits.
fn others(driver: Driver) {
    keys_with_null(driver);
    no_declared_key(driver);
    counters_are_the_applications(driver);
    plain_grammar(driver);
    the_application_changes_its_schema(driver);
    lost_triggers_and_tables(driver);
    short_holds(driver);
    columns_of_its_own(driver);
    a_look_is_cheap(driver);
    a_copied_file(driver);
}

/// 7
fn keys_with_null(driver: Driver) {
    let mut world = World::new(driver, Mode::Mask, "CREATE TABLE t(id TEXT PRIMARY KEY, a); INSERT INTO t VALUES ('x', 1);");
    assert_eq!(world.install()[0].class, Class::ReadWrite);
    world.app(&["INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('y', 2)"]);
    assert_eq!(world.waits(), ["t y insert"]);
    let judged = world.install();
    assert_eq!(judged[0].class, Class::PushOnly);
    assert!(judged[0].reasons[0].why.contains("NULL in the key column id"), "{judged:?}");
    world.app(&["DELETE FROM t WHERE id IS NULL"]);
    assert_eq!(world.waits(), ["t y insert"]);
    world.converge();
}

/// 8
fn no_declared_key(driver: Driver) {
    let world = World::new(driver, Mode::Mask, "CREATE TABLE t(rowid, a); INSERT INTO t VALUES (1, 1);");
    let judged = world.install();
    assert_eq!(judged[0].class, Class::Unsupported);
    assert!(judged[0].reasons[0].why.contains("no PRIMARY KEY"), "{judged:?}");
    world.app(&["INSERT INTO t VALUES (2, 2)", "VACUUM"]);
    assert_eq!(world.waits(), [""; 0]);
}

/// 13
fn counters_are_the_applications(driver: Driver) {
    let schema = format!("{ITEM} CREATE TABLE own_seen(changes, last);");
    let mut world = World::new(driver, Mode::Mask, &schema);
    world.app(&[
        "INSERT INTO item VALUES (70, 'w', 1), (71, 'v', 1)",
        "INSERT INTO own_seen SELECT changes(), last_insert_rowid()",
        "UPDATE item SET n = 5 WHERE id < 3",
        "INSERT INTO own_seen SELECT changes(), 0",
    ]);
    assert_eq!(world.count("SELECT group_concat(changes || ' ' || last) = '2 71,2 0' FROM own_seen"), 1);
    world.converge();
}

/// 15: no word that an older SQLite does not know stands in what its library parses. `WITHOUT ROWID` is of 3.8.2.
fn plain_grammar(driver: Driver) {
    let world = World::new(driver, Mode::Mask, ITEM);
    let mut statement = world.connection.prepare("SELECT sql FROM sqlite_schema WHERE name GLOB '_whimbrel_*' AND sql IS NOT NULL").unwrap();
    let texts: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(texts.len() > 10);
    for text in texts {
        let words: Vec<String> = whimbrel_shared::sql::tokens(&text).iter().map(whimbrel_shared::sql::Token::text).collect();
        for newer in [
            "strict",
            "returning",
            "conflict",
            "do",
            "json",
            "unixepoch",
            "subsec",
            "distinct",
            "iif",
            "filter",
            "over",
            "with",
            "generated",
            "true",
            "false",
        ] {
            assert!(!words.iter().any(|w| w == newer), "{newer} in {text}");
        }
        assert!(!text.contains("->") && !text.contains(") = (") && !text.contains("), ("), "{text}");
    }
    world.app(&["SELECT * FROM item", "SELECT count(*) FROM sqlite_master"]);
}

/// 17
fn the_application_changes_its_schema(driver: Driver) {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 1, 1), (2, 2, 2);";
    let rebuild = [
        "BEGIN",
        "CREATE TABLE new(id INTEGER PRIMARY KEY, a, b, c)",
        "INSERT INTO new SELECT *, 0 FROM t",
        "DROP TABLE t",
        "ALTER TABLE new RENAME TO t",
        "COMMIT",
    ];
    let world = World::new(driver, Mode::KeyOnly, schema);
    world.app(&[
        "ALTER TABLE t RENAME COLUMN b TO bb",
        "ALTER TABLE t RENAME COLUMN bb TO b",
        "ALTER TABLE t ADD COLUMN c",
        "UPDATE t SET a = 9 WHERE id = 1",
    ]);
    assert_eq!(world.waits(), ["t 1 edit a"]);
    world.app(&["ALTER TABLE t DROP COLUMN b"]);
    world.app(&["UPDATE t SET a = 8"]);
    // A column that the server knows is gone: it is said, and nothing is lost.
    let done = world.fold(None);
    assert_eq!(done.unreadable.len(), 1, "{done:?}");
    world.app(&["ALTER TABLE t ADD COLUMN b"]);
    assert_eq!(world.fold(None).unreadable, []);
    world.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    sweep::sweep(&world.connection, 1000).unwrap();
    world.connection.execute_batch("COMMIT").unwrap();
    assert_eq!(world.waits(), ["t 1 edit a,b", "t 2 edit a,b"]);

    // In mask mode the application cannot drop the column, and is told which trigger names it.
    let mut world = World::new(driver, Mode::Mask, schema);
    let failed = driver.run(&world.path, &["ALTER TABLE t DROP COLUMN b"]);
    assert!(failed[0].contains("_whimbrel_capture_1_au"), "{failed:?}");
    // Dropping the table takes the triggers with it, and fires none.
    world.app(&rebuild);
    world.app(&["INSERT INTO t VALUES (3, 3, 3, 3)", "DELETE FROM t WHERE id = 1", "UPDATE t SET a = 7 WHERE id = 2"]);
    assert_eq!(world.waits(), [""; 0]);
    let mut seen = Seen::default();
    let lost = capture::check(&world.connection, &mut seen).unwrap();
    assert_eq!((lost.len(), lost[0].what.as_str()), (1, "3 of 3 triggers gone, 0 altered"));
    repair(&world);
    world.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    sweep::sweep(&world.connection, 1000).unwrap();
    world.connection.execute_batch("COMMIT").unwrap();
    assert_eq!(world.waits(), ["t 1 delete", "t 2 edit a", "t 3 insert"]);
    world.converge();
}

fn repair(world: &World) {
    world.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(!capture::repair(&world.connection, &world.map, &world.wanted, NOW_MS).unwrap().is_empty());
    world.connection.execute_batch("COMMIT").unwrap();
    assert_eq!(capture::check(&world.connection, &mut Seen::default()).unwrap(), []);
}

/// 20
fn lost_triggers_and_tables(driver: Driver) {
    let mut world = World::new(driver, Mode::Mask, ITEM);
    let mut seen = Seen::default();
    assert_eq!(capture::check(&world.connection, &mut seen).unwrap(), []);
    world.app(&["DROP TRIGGER _whimbrel_capture_1_au", "UPDATE item SET n = 77 WHERE id = 1"]);
    assert_eq!(capture::check(&world.connection, &mut seen).unwrap()[0].what, "1 of 5 triggers gone, 0 altered");
    repair(&world);
    world.converge();
    assert_eq!(world.count("SELECT n FROM item WHERE id = 1"), 77);

    // A tool that drops tables it does not know.
    world.app(&["INSERT INTO item VALUES (50, 'fifty', 1)", "DROP TABLE _whimbrel_journal"]);
    assert_eq!(capture::check(&world.connection, &mut Seen::default()).unwrap()[0].table, None);
    repair(&world);
    world.converge();
    // And one that empties them.
    world.app(&["UPDATE item SET n = 78 WHERE id = 2", "DELETE FROM _whimbrel_journal", "UPDATE item SET n = 79 WHERE id = 3"]);
    assert!(world.fold(None).lost);
    world.converge();
}

/// 21
fn short_holds(driver: Driver) {
    let mut world = World::new(driver, Mode::Mask, ITEM);
    world.app(&["WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO item SELECT i, i, i FROM n"]);
    let done = world.fold(Some(100));
    assert_eq!((done.notes, done.more), (100, true));
    assert_eq!(outbox::count(&world.connection).unwrap(), 100);
    world.converge();
}

/// 22
fn columns_of_its_own(driver: Driver) {
    let mut world = World::new(driver, Mode::Mask, ITEM);
    world.app(&["ALTER TABLE item ADD COLUMN own DEFAULT 0", "UPDATE item SET own = 5"]);
    assert_eq!(world.waits(), [""; 0]);
    assert_eq!(driver.run(&world.path, &["INSERT INTO item VALUES (9, 'nine', 9)"]).len(), 1);
    world.app(&["INSERT INTO item(id, mail, n) VALUES (9, 'nine', 9)"]);
    assert_eq!(world.waits(), ["item 9 insert"]);
    world.converge();
}

/// 23
fn a_look_is_cheap(driver: Driver) {
    let world = World::new(driver, Mode::Mask, ITEM);
    let look = || world.count("PRAGMA data_version");
    let before = look();
    assert_eq!(look(), before);
    world.app(&["UPDATE item SET n = 9"]);
    assert_ne!(look(), before);
    world.fold(None);
    assert!(journal::extent(&world.connection).unwrap().is_folded());
}

/// 24: what waits in a file goes with each copy of it. That it is a copy is seen by who the file is, not here.
fn a_copied_file(driver: Driver) {
    let mut world = World::new(driver, Mode::Mask, ITEM);
    world.app(&["UPDATE item SET n = 9 WHERE id = 1"]);
    world.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let copy = world.path.with_extension("copy");
    std::fs::copy(&world.path, &copy).unwrap();
    assert_eq!(driver.run(&copy, &["UPDATE item SET n = 10 WHERE id = 2"]), [""; 0]);
    let other = Connection::open(&copy as &Path).unwrap();
    fold_now(&other, None);
    assert_eq!(outbox::count(&other).unwrap(), 2);
    assert_eq!(world.waits(), ["item 1 edit n"]);
    world.converge();
}

#[test]
fn what_lands_is_no_edit_and_what_the_applications_triggers_make_of_it_is_kept_as_derived() {
    use whimbrel::store::{
        key::Key,
        outbox::{Outbox, Recorded},
    };
    let schema = "CREATE TABLE plain(id INTEGER PRIMARY KEY, a); INSERT INTO plain VALUES (1, 1);
                  CREATE TABLE own(id INTEGER PRIMARY KEY, a, at); INSERT INTO own VALUES (1, 1, 1);
                  CREATE TRIGGER stamp AFTER UPDATE OF a ON own BEGIN UPDATE own SET at = at + 1 WHERE id = NEW.id; END;
                  CREATE TABLE a(id INTEGER PRIMARY KEY, b); INSERT INTO a VALUES (1, 1);
                  CREATE TABLE total(id INTEGER PRIMARY KEY, n); INSERT INTO total VALUES (1, 0);
                  CREATE TRIGGER sum AFTER UPDATE OF b ON a BEGIN UPDATE total SET n = n + NEW.b; END;";
    let world = World::new(Driver::Rusqlite, Mode::Mask, schema);
    let tables = world.tables();
    let table = |name: &str| tables.iter().find(|t| t.name == name).unwrap();
    assert_eq!(["plain", "own", "a", "total"].map(|name| table(name).echo), [Echo::Switch, Echo::Switch, Echo::Rewrite, Echo::Switch]);
    world.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (name, column, sql) in [("plain", 2, "UPDATE plain SET a = 5"), ("own", 2, "UPDATE own SET a = 5"), ("a", 2, "UPDATE a SET b = 5")] {
        let landing = Landing::begin(&world.connection, table(name).echo).unwrap();
        world.connection.execute_batch(sql).unwrap();
        drop(landing);
        let (mut outbox, key) = (Outbox::open(&world.connection).unwrap(), Key(vec![KeyValue::Integer(1)]));
        let before = outbox.recorded(table(name).id, &key).unwrap().unwrap();
        let hash = whimbrel::sync::hash::hash(whimbrel::sync::hash::Stored::Integer(5));
        let hashes = before.hashes.iter().map(|(id, old)| (*id, if *id == column { hash } else { *old })).collect();
        outbox.record(table(name).id, &key, Some(&Recorded { version: 99, hashes, gone: false, untold: false })).unwrap();
    }
    fold(&world.connection, &Boot { id: "a boot".to_owned(), began_ms: 0 }, Origin::Landing, NOW_MS, None).unwrap();
    world.connection.execute_batch("COMMIT").unwrap();
    assert_eq!(world.waits(), ["total 1 edit n"]);
    assert_eq!(world.count("SELECT at FROM own"), 1);
    let waiting = pending(&world.connection, None, 10, &|_| Some(1)).unwrap();
    assert!(waiting[0].1.edits[0].derived);
    // Afterwards the application is captured as before, on the same connection too.
    world.connection.execute_batch("UPDATE plain SET a = 6").unwrap();
    assert_eq!(world.waits(), ["plain 1 edit a", "total 1 edit n"]);
}

#[test]
fn a_journal_that_nobody_folds_stays_within_its_bound_and_its_rows_are_found() {
    let mut world =
        World::new(Driver::Rusqlite, Mode::Mask, "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE quiet(id INTEGER PRIMARY KEY, a)");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)";
    world.app(&[&format!("{rows} INSERT INTO t SELECT i, 0 FROM n"), "INSERT INTO quiet VALUES (1, 1)"]);
    for turn in 0..4 {
        world.app(&[&format!("UPDATE t SET a = {turn} + 1"), &format!("DELETE FROM t WHERE id % 10 = {turn}")]);
        assert!(journal::size(&world.connection).unwrap() <= journal::MOST_ROWS + 512);
    }
    world.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let used = world.count("SELECT (SELECT count(*) FROM pragma_freelist_count) + sum(pgsize) FROM dbstat WHERE name = '_whimbrel_journal'");
    assert!(used.unsigned_abs() <= journal::most_bytes(4), "{used} of {}", journal::most_bytes(4));
    let done = world.fold(None);
    assert!(done.lost && !done.more, "{done:?}");
    loop {
        world.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let swept = sweep::sweep(&world.connection, 20_000).unwrap();
        world.connection.execute_batch("COMMIT").unwrap();
        if !swept.more {
            break;
        }
    }
    assert_eq!(outbox::count(&world.connection).unwrap(), 60_001);
    assert!(!world.fold(None).lost);
    world.replica = Replica::default();
}

#[test]
fn sqlite_keeps_the_texts_of_our_triggers_as_they_are() {
    let world = World::new(Driver::Rusqlite, Mode::Mask, ITEM);
    for trigger in triggers(&world.tables()[0]) {
        let kept: String = world.connection.query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [&trigger.name], |row| row.get(0)).unwrap();
        assert_eq!(kept, trigger.sql);
    }
}
