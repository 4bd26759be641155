//! The seed's queue in a real table and in real dumps.

use std::path::PathBuf;

use rusqlite::Connection;
use whimbrel_shared::queue;

use super::*;

const ENTRIES: [(&str, &str); 6] = [
    ("orchestrator:pending", r#"["b", "a"]"#),
    ("orchestrator:queue:a", r#"{"id": "a"}"#),
    ("orchestrator:queue:b", r#"{"id": "b"}"#),
    ("orchestrator:lease:a", r#"{"workerId": "w"}"#),
    ("orchestrator:queuex", "not ours"),
    ("session:1", "not ours either"),
];

struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A table with an expiry, a number of its own, and a constraint that refuses one key.
    fn table(&self) -> Place {
        let file = Connection::open(self.path("kv.db")).unwrap();
        file.execute_batch(
            "PRAGMA journal_mode = wal;
             CREATE TABLE \"my cache\"(id INTEGER PRIMARY KEY, k TEXT UNIQUE, v BLOB CHECK (k <> 'queue:task:never'), expires INT, size AS (length(v)))",
        )
        .unwrap();
        for (key, value) in ENTRIES {
            file.execute("INSERT INTO \"my cache\"(k, v, expires) VALUES (?1, ?2, length(?1))", [key, value]).unwrap();
        }
        Place::Sqlite(self.path("kv.db"))
    }

    fn rows(&self) -> Vec<String> {
        let file = Connection::open(self.path("kv.db")).unwrap();
        let mut rows = file.prepare("SELECT k || '=' || v || ' ' || coalesce(expires, '-') FROM \"my cache\" ORDER BY k").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn dump(&self, text: &str) -> Place {
        std::fs::write(self.path("kv.json"), text).unwrap();
        Place::Json(self.path("kv.json"))
    }

    fn read(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("kv.json")).unwrap()).unwrap()
    }
}

fn columns() -> Columns {
    Columns { table: "My Cache".into(), key: "K".into(), value: "v".into() }
}

fn open(place: &Place) -> Store {
    Store::open(place, &columns()).unwrap()
}

#[test]
fn a_table_is_moved_with_its_expiries_and_comes_back_as_it_was() {
    let bed = Bed::new();
    let place = bed.table();
    let before = bed.rows();
    let answer = queue::run(&mut open(&place)).unwrap();
    assert_eq!((answer.tasks.migrated, answer.leases.migrated, answer.total_failed), (2, 1, 0), "{answer:?}");
    let moved = bed.rows();
    assert!(moved.contains(&r#"queue:task:a={"id": "a"} 20"#.to_owned()), "{moved:?}");
    assert!(!moved.iter().any(|r| r.starts_with("orchestrator:") && !r.starts_with("orchestrator:queuex")), "{moved:?}");
    assert_eq!(queue::tasks(&open(&place)).unwrap(), ["b", "a"]);
    queue::rollback(&mut open(&place)).unwrap();
    assert_eq!(bed.rows(), before);
}

#[test]
fn a_row_that_the_table_refuses_stays_and_the_rest_goes_on() {
    let bed = Bed::new();
    let place = bed.table();
    Connection::open(bed.path("kv.db")).unwrap().execute("INSERT INTO \"my cache\"(k, v) VALUES ('orchestrator:queue:never', 'x')", []).unwrap();
    let answer = queue::run(&mut open(&place)).unwrap();
    assert_eq!((answer.tasks.migrated, answer.tasks.failed), (2, 1));
    assert!(answer.errors[0].starts_with("Task never: writing a key: CHECK constraint failed"), "{answer:?}");
    let status = queue::status(&open(&place)).unwrap().status;
    assert_eq!((status.old_task_count, status.new_task_count), (1, 2));
    assert!(!queue::finish(&mut open(&place)).unwrap().success);
}

#[test]
fn a_busy_worker_is_told_by_name_and_nothing_is_half_moved() {
    let bed = Bed::new();
    let place = bed.table();
    let worker = Connection::open(bed.path("kv.db")).unwrap();
    worker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let Store::Table(mut table) = open(&place) else { unreachable!("it is a table") };
    table.do_not_wait();
    let error = queue::run(&mut table).unwrap_err();
    assert!(error.to_string().contains("database is locked"), "{error}");
    worker.execute_batch("ROLLBACK").unwrap();
    assert_eq!(queue::status(&open(&place)).unwrap().status.old_task_count, 2);
}

#[test]
fn a_wrong_table_column_or_path_is_named_and_nothing_is_made() {
    let bed = Bed::new();
    let place = bed.table();
    let said = |columns: Columns| Store::open(&place, &columns).unwrap_err().to_string();
    assert_eq!(said(Columns { table: "kv".into(), ..columns() }), "there is no table \"kv\"; there are my cache");
    assert_eq!(said(Columns { key: "key".into(), ..columns() }), "there is no column \"key\"; there are id, k, v, expires");
    assert!(Store::open(&Place::Sqlite(bed.path("none.db")), &columns()).is_err());
    assert!(!bed.path("none.db").exists());
    assert_eq!("sqlite:/a/b".parse(), Ok(Place::Sqlite("/a/b".into())));
    assert!("mysql:x".parse::<Place>().is_err() && "json:".parse::<Place>().is_err());
}

#[test]
fn a_dump_of_either_form_is_replaced_as_a_whole() {
    let bed = Bed::new();
    let object = r#"{"orchestrator:pending": ["b", "a"], "orchestrator:queue:a": {"id": "a"}, "orchestrator:queue:b": {"n": 1}, "x": "y"}"#;
    let list = r#"[{"key": "orchestrator:pending", "value": "[\"b\",\"a\"]"}, {"key": "orchestrator:queue:a", "value": "1", "expiration": 7},
        {"key": "orchestrator:queue:b", "value": "2"}, {"key": "x", "value": "y"}]"#;
    for text in [object, list] {
        let place = bed.dump(text);
        let before = bed.read();
        let mut store = open(&place);
        assert_eq!(queue::run(&mut store).unwrap().total_migrated, 2);
        assert_eq!(bed.read(), before, "nothing is written before it is saved");
        store.save().unwrap();
        let moved = bed.read().to_string();
        assert!(moved.contains("queue:task:a") && !moved.contains("orchestrator:"), "{moved}");
        assert!(!text.contains("expiration") || moved.contains(r#"{"key":"queue:task:a","value":"1","expiration":7}"#), "{moved}");
        let mut store = open(&place);
        queue::rollback(&mut store).unwrap();
        store.save().unwrap();
        assert_eq!(bed.read(), before);
    }
    assert_eq!(std::fs::read_dir(bed.dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_dump_that_somebody_else_wrote_in_the_meantime_is_left_alone() {
    let bed = Bed::new();
    let place = bed.dump(r#"{"orchestrator:queue:a": "1"}"#);
    let mut store = open(&place);
    queue::run(&mut store).unwrap();
    bed.dump(r#"{"orchestrator:queue:a": "2"}"#);
    assert!(matches!(store.save(), Err(KvError::Changed { .. })));
    assert_eq!(bed.read().to_string(), r#"{"orchestrator:queue:a":"2"}"#);
    for text in ["", "7", r#"[{"key": "a"}]"#, r#"[{"key": "a", "value": 1}, {"key": "a", "value": 1}]"#] {
        let place = bed.dump(text);
        assert!(matches!(Store::open(&place, &columns()), Err(KvError::NoDump { .. })), "{text:?}");
    }
}
