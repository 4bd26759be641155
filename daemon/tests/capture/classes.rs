//! What each kind of table is judged to be, in files that an application with a function and a collation of its own made.

use std::process::Command;

use rusqlite::{Connection, config::DbConfig};
use whimbrel::sync::{
    classify::{Class, Judged, classify},
    shape::{Echo, Mode},
};
use whimbrel_shared::columns::{Column, TableColumns};

/// The application: another process, so that nothing of it is on our connection.
const APP: &str = "
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.create_function('own', 1, lambda x: x, deterministic=True)
connection.create_collation('own', lambda a, b: (a > b) - (a < b))
connection.executescript(sys.argv[2])
";

/// The judgement on table `t` of a file that an application with a function and a collation of its own made.
fn judge(schema: &str, columns: &[&str]) -> Judged {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let made = Command::new("python3").args(["-c", APP]).arg(&path).arg(schema).output().expect("python3 has to be installed");
    assert!(made.status.success(), "{schema}: {}", String::from_utf8_lossy(&made.stderr));
    let columns = (1..).zip(columns).map(|(id, name)| Column { id, name: (*name).to_owned() }).collect();
    let connection = Connection::open(&path).unwrap();
    let judged = classify(&connection, &TableColumns { id: 1, name: "t".to_owned(), columns }, Mode::Mask).unwrap();
    assert!(connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER).unwrap());
    judged
}

#[test]
fn each_table_is_read_write_push_only_or_unsupported_for_a_reason_with_a_remedy() {
    use Class::{PushOnly, ReadWrite, Unsupported};
    let check = |schema: &str, class: Class, why: &str| {
        let judged = judge(schema, &["id", "a"]);
        assert_eq!(judged.class, class, "{schema}: {judged:?}");
        let reason = judged.reasons.iter().find(|r| r.class == class);
        assert!(why.is_empty() == reason.is_none() && reason.is_none_or(|r| r.why.contains(why) && !r.remedy.is_empty()), "{schema}: {judged:?}");
        assert_eq!(judged.captured.map(|c| c.push_only), (class != Unsupported).then_some(class == PushOnly), "{schema}");
    };
    check("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", ReadWrite, "");
    check("CREATE TABLE t(id TEXT PRIMARY KEY, a); INSERT INTO t VALUES ('a', 1)", ReadWrite, "");
    check("CREATE TABLE t(id TEXT PRIMARY KEY, a); INSERT INTO t VALUES (NULL, 1)", PushOnly, "NULL in the key column id");
    check("CREATE TABLE t(id, a)", Unsupported, "no PRIMARY KEY");
    check("CREATE TABLE t(id, a, c, d, e, PRIMARY KEY(id, a, c, d, e))", Unsupported, "5 columns");
    check("CREATE TABLE t(id, k, a, PRIMARY KEY(id, k))", Unsupported, "key column k has no column id");
    check("CREATE TABLE t(id INTEGER PRIMARY KEY)", Unsupported, "column a is not in the file");
    check("CREATE VIEW t AS SELECT 1 AS id, 2 AS a", Unsupported, "a view");
    check("CREATE VIRTUAL TABLE t USING fts5(id, a)", Unsupported, "a virtual table");
    check("SELECT 1", Unsupported, "no such table");
    check("CREATE TABLE t(id TEXT COLLATE own PRIMARY KEY NOT NULL, a)", Unsupported, "collation own");
    check("CREATE TABLE t(id INTEGER PRIMARY KEY, a CHECK (own(a) > 0))", PushOnly, "unknown function: own()");
    check("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t(own(a))", PushOnly, "own");
    check("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE own); CREATE INDEX i ON t(a)", PushOnly, "no such collation sequence: own");
    check("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE own)", ReadWrite, "");
    check(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT own(NEW.a); END",
        PushOnly,
        "its triggers (g) cannot run",
    );
    check("CREATE TABLE t(id INTEGER PRIMARY KEY, a, text); CREATE UNIQUE INDEX i ON t(CAST(a AS text))", ReadWrite, "the index i");
}

#[test]
fn landing_runs_the_applications_triggers_where_they_write_elsewhere() {
    let check = |schema: &str, echo: Echo| {
        let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a + 1)); CREATE TABLE log(x); {schema}");
        assert_eq!(judge(&schema, &["id", "a"]).captured.unwrap().echo, echo, "{schema}");
    };
    check("", Echo::Switch);
    check("CREATE TRIGGER g AFTER UPDATE ON t BEGIN UPDATE t SET a = 1 WHERE id = NEW.id; END", Echo::Switch);
    check("CREATE TRIGGER g BEFORE UPDATE ON t BEGIN SELECT RAISE(ABORT, 'no') WHERE NEW.a = 1; END", Echo::Switch);
    check("CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO log VALUES (OLD.a); END", Echo::Rewrite);
    check("CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM log; END", Echo::Rewrite);
    check("CREATE VIRTUAL TABLE f USING fts5(a); CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO f(a) VALUES (NEW.a); END", Echo::Rewrite);
    check(
        "CREATE TABLE u(x); CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO u VALUES (1); END; CREATE TRIGGER h AFTER INSERT ON u BEGIN DELETE FROM log; END",
        Echo::Rewrite,
    );
}
