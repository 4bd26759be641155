//! The engine on real files.

use std::{collections::BTreeMap, path::PathBuf};

use rusqlite::Connection;
use whimbrel_shared::{
    manifest::Manifest,
    migration::{FORMAT, Link, Migration, TargetEntry},
    trust::{VerifiedMigration, verify},
};

use super::*;
use crate::migrate::{connection::Missing, halt::Halt, plan, recover};

/// A file, a chain, and what it takes to run one on the other.
struct Bed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    chain: Chain,
    bodies: Vec<Vec<u8>>,
    policy: Policy,
}

fn identity() -> FileIdentity {
    crate::migrate::files::new_identity(whimbrel_shared::ids::ClientId::from_dice(1), &"notes".parse().unwrap(), (0, 0))
}

impl Bed {
    /// `steps` are (up, down). `before` is what the application did.
    fn new(before: &str, steps: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA journal_mode = wal; {before}")).unwrap();
        let mut previous = None;
        let (mut entries, mut bodies) = (Vec::new(), Vec::new());
        for (index, (up, down)) in steps.iter().enumerate() {
            let mut files = BTreeMap::from([("up.sql".to_owned(), (*up).to_owned())]);
            let has_down = !down.is_empty();
            if has_down {
                files.insert("down.sql".to_owned(), (*down).to_owned());
            }
            let migration = Migration {
                format: FORMAT.to_owned(),
                name: format!("m{}", index + 1).parse().unwrap(),
                manifest: Manifest::default(),
                down: has_down.then(|| "down.sql".to_owned()),
                files,
            };
            let body = migration.to_bytes();
            let link = Link::new(migration.name.clone(), u32::try_from(index).unwrap() + 1, previous);
            let entry = TargetEntry::new(&body, link);
            previous = Some(entry.digest());
            entries.push(entry);
            bodies.push(body);
        }
        let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: Duration::from_secs(20), report_values: false, skip_verify: false };
        let bed = Self { _dir: dir, path, chain: Chain::new(entries), bodies, policy };
        let mut file = bed.open();
        write(&mut file, Terms::ours(Duration::from_secs(1)), |f| Ok(managed::prepare(&f.connection, &identity())?)).unwrap();
        bed
    }

    /// The chain as a publisher's rehearsal would have recorded it.
    fn rehearsed(mut self) -> Self {
        let empty = Connection::open_in_memory().unwrap();
        let mut reader = crate::migrate::schema::SchemaReader::default();
        let (mut schema, mut entries) = (Schema::default(), Vec::new());
        for version in 1..=self.chain.latest() {
            let mut entry = self.chain.newest(version).unwrap().clone();
            let migration = verify(&entry, &self.bodies[version as usize - 1]).unwrap();
            empty.execute_batch(migration.migration().file("up.sql").unwrap()).unwrap();
            reader.read(&empty).unwrap();
            entry.custom.schema = Some(schema.change_to(reader.schema()));
            schema = reader.schema().clone();
            entries.push(entry);
        }
        self.chain = Chain::new(entries);
        self
    }

    fn open(&self) -> Managed {
        Managed::open(&self.path, Missing::Refuse, Duration::from_secs(5), Halt::default()).unwrap()
    }

    fn app(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    fn run_on(&self, file: &mut Managed, operation: Operation, from: u32, to: u32) -> Ran {
        let load = |version: u32, _: u32| -> Result<VerifiedMigration, AcceptError> {
            Ok(verify(self.chain.newest(version).unwrap(), &self.bodies[version as usize - 1])?)
        };
        let identity = identity();
        run(
            file,
            &Job {
                identity: &identity,
                chain: &self.chain,
                load: &load,
                operation,
                from,
                to,
                by: AskedBy::Plan,
                policy: self.policy,
                ambient: &Ambient::real(),
                live: &Live::default(),
            },
        )
    }

    fn apply(&self) -> Ran {
        let mut file = self.open();
        let from = plan::position(&managed::history(&file.connection).unwrap()) + 1;
        self.run_on(&mut file, Operation::Apply, from, self.chain.latest())
    }

    fn value<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.app().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn statuses(&self) -> String {
        self.value("SELECT group_concat(version || status, ' ') FROM (SELECT * FROM _whimbrel_migration ORDER BY version)")
    }

    fn kinds(&self) -> String {
        self.value("SELECT group_concat(version || kind, ' ') FROM (SELECT * FROM _whimbrel_event ORDER BY seq)")
    }
}

fn stop_code(ran: &Ran) -> &str {
    ran.stopped.as_ref().map_or("", |s| s.failure.code.as_str())
}

#[test]
fn a_chain_is_applied_once_and_a_second_run_does_nothing() {
    let bed = Bed::new("CREATE TABLE mine(x)", &[("CREATE TABLE a(x)", ""), ("INSERT INTO a VALUES (1)", ""), ("INSERT INTO a VALUES (2)", "")]);
    let ran = bed.apply();
    assert_eq!((ran.done.as_slice(), ran.commits), (&[1, 2, 3][..], 2));
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM a"), 2);
    assert_eq!(bed.statuses(), "1completed 2completed 3completed");
    assert_eq!(bed.kinds(), "1started 1completed 2completed 3completed");
    let again = bed.run_on(&mut bed.open(), Operation::Apply, 3, 3);
    assert!(again.done.is_empty() && again.stopped.is_none());
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM a"), 2);
}

#[test]
fn a_failing_migration_keeps_what_came_before_and_stops_what_comes_after() {
    let bed = Bed::new("", &[("CREATE TABLE a(x)", ""), ("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)", ""), ("CREATE TABLE c(x)", "")]);
    let ran = bed.apply();
    assert_eq!((ran.done.as_slice(), stop_code(&ran)), (&[1][..], "sql_error"));
    assert_eq!(bed.statuses(), "1completed 2failed");
    assert_eq!(bed.kinds(), "1started 1completed 2failed");
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM a"), 0);
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_intent"), 0);
    let message: String = bed.value("SELECT error FROM _whimbrel_status WHERE version = 2");
    assert!(message.contains("m2/up.sql:1:") && message.contains("no such table: b"), "{message}");
}

const PARENT: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, a); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE);
    INSERT INTO p VALUES (1, 'a'), (2, 'b'); INSERT INTO c VALUES (1, 1), (2, 1), (3, 2);";
const REBUILD: &str =
    "PRAGMA foreign_keys=OFF; BEGIN; CREATE TABLE new_p(id INTEGER PRIMARY KEY, a TEXT NOT NULL); INSERT INTO new_p SELECT * FROM p;
    DROP TABLE p; ALTER TABLE new_p RENAME TO p; COMMIT; PRAGMA foreign_keys=ON;";

#[test]
fn a_rebuilt_parent_keeps_its_children_up_and_down() {
    let bed = Bed::new(PARENT, &[(REBUILD, REBUILD)]);
    assert_eq!(bed.apply().done, [1]);
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM c"), 3);
    let ran = bed.run_on(&mut bed.open(), Operation::Revert, 1, 1);
    assert_eq!(ran.done, [1], "{:?}", ran.stopped);
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM c"), 3);
    assert_eq!(bed.statuses(), "1reverted");
}

#[test]
fn new_violations_are_refused_and_named_and_old_ones_are_tolerated() {
    let old = format!("{PARENT} PRAGMA foreign_keys=OFF; INSERT INTO c VALUES (9, 77);");
    let bed = Bed::new(&old, &[(REBUILD, ""), ("DELETE FROM p WHERE id = 1", "")]);
    let ran = bed.apply();
    assert_eq!((ran.done.as_slice(), stop_code(&ran)), (&[1][..], "new_violations"));
    let message = &ran.stopped.unwrap().failure.message;
    assert!(message.contains("2 rows") && message.contains("c row 1") && !message.contains("row 9"), "{message}");
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM p"), 2);
}

#[test]
fn a_key_that_sqlite_cannot_check_does_not_stop_the_chain() {
    let bed =
        Bed::new("CREATE TABLE p(a); CREATE TABLE c(a REFERENCES p(a))", &[("ALTER TABLE c ADD COLUMN b", ""), ("INSERT INTO p VALUES (1)", "")]);
    assert_eq!(bed.apply().done, [1, 2]);
}

#[test]
fn a_reference_to_our_tables_is_refused_wherever_it_hides() {
    for (sql, code) in [
        ("CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM _whimbrel_event; END", "names_our_tables"),
        ("CREATE VIEW v AS SELECT * FROM _WHIMBREL_event", "names_our_tables"),
        ("ALTER TABLE a RENAME TO _whimbrel_x", "changed_our_tables"),
        ("COMMIT; DELETE FROM a", "refused"),
        ("CREATE VIEW v AS SELECT nope FROM a", "does_not_compile"),
        ("CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE nope SET x = 1; END", "does_not_compile"),
    ] {
        let bed = Bed::new("CREATE TABLE a(x); INSERT INTO a VALUES (1)", &[(sql, "")]);
        assert_eq!(stop_code(&bed.apply()), code, "{sql}");
        assert_eq!(bed.value::<i64>("SELECT count(*) FROM a"), 1, "{sql}");
        assert_eq!(bed.value::<i64>("SELECT count(*) FROM sqlite_schema WHERE name IN ('t', 'v')"), 0, "{sql}");
    }
}

#[test]
fn what_was_broken_before_is_not_this_migrations_fault() {
    let bed = Bed::new("CREATE TABLE a(x); CREATE TABLE b(y); CREATE VIEW v AS SELECT y FROM b; DROP TABLE b", &[("CREATE TABLE n(x)", "")]);
    assert_eq!(bed.apply().done, [1]);
}

#[test]
fn the_crash_of_a_group_is_counted_against_the_one_that_did_not_commit() {
    let mut bed = Bed::new("", &[("CREATE TABLE a(x)", ""), ("CREATE TABLE b(x)", "")]);
    bed.policy.max_attempts = 2;
    let mut file = bed.open();
    assert_eq!(bed.run_on(&mut file, Operation::Apply, 1, 1).done, [1]);
    let crash = |file: &mut Managed| {
        // What a process that died in version 2 leaves behind.
        let intent = Intent { operation: Operation::Apply, from: 1, to: 2, next: 2, by: AskedBy::Plan, started_at_ms: 0 };
        managed::put_intent(&file.connection, &intent).unwrap();
        recover::recover(file, &identity(), &bed.chain, &Ambient::real(), bed.policy, false).unwrap()
    };
    assert!(crash(&mut file).is_none());
    assert_eq!(bed.kinds(), "1started 1completed 2crashed");
    assert!(crash(&mut file).is_some());
    assert_eq!(bed.statuses(), "1completed 2failed");
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_intent"), 0);
}

#[test]
fn a_reader_in_rollback_mode_is_waited_out_and_new_readers_are_let_in() {
    let bed = Bed::new("PRAGMA journal_mode = delete; CREATE TABLE a(x); INSERT INTO a VALUES (1)", &[("INSERT INTO a VALUES (2)", "")]);
    let (reader, other) = (bed.app(), bed.app());
    reader.execute_batch("BEGIN; SELECT * FROM a").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM a", [], |r| r.get(0)).unwrap();
    other.busy_timeout(Duration::from_secs(3)).unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| bed.apply());
        let begun = Instant::now();
        // Longer than one COMMIT is tried for.
        while begun.elapsed() < Duration::from_millis(2500) {
            let seen: i64 = other.query_row("SELECT count(*) FROM a", [], |r| r.get(0)).unwrap();
            assert_eq!(seen, 1);
        }
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(worker.join().unwrap().done, [1]);
    });
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM a"), 2);
}

#[test]
fn a_cancel_leaves_nothing_half_done() {
    let endless = "CREATE TABLE b(x); INSERT INTO b WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c";
    let bed = Bed::new("", &[(endless, "")]);
    let halt = Halt::default();
    let mut file = Managed::open(&bed.path, Missing::Refuse, Duration::from_secs(5), halt.clone()).unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| bed.run_on(&mut file, Operation::Apply, 1, 1));
        while bed.value::<i64>("SELECT count(*) FROM _whimbrel_intent") == 0 {
            std::thread::yield_now();
        }
        let asked = Instant::now();
        halt.hold.store(true, std::sync::atomic::Ordering::Relaxed);
        let ran = worker.join().unwrap();
        assert_eq!(stop_code(&ran), "cancelled");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM sqlite_schema WHERE name = 'b'"), 0);
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_intent"), 0);
    assert_eq!(bed.statuses(), "1pending");
}

#[test]
fn an_old_violation_does_not_hide_a_new_one_with_the_same_value() {
    let before = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE q(id INTEGER PRIMARY KEY); PRAGMA foreign_keys=OFF;
        CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id)); CREATE TABLE d(id INTEGER PRIMARY KEY, q REFERENCES q(id));
        INSERT INTO c VALUES (1, 77); INSERT INTO q VALUES (77); INSERT INTO d VALUES (1, 77);";
    let bed = Bed::new(before, &[("UPDATE c SET id = 2; DELETE FROM q", "")]);
    assert_eq!(stop_code(&bed.apply()), "new_violations");
}

#[test]
fn a_column_called_rowid_and_names_beyond_ascii_are_checked_like_others() {
    let before = "CREATE TABLE p(id INTEGER PRIMARY KEY); PRAGMA foreign_keys=OFF; CREATE TABLE \"Ärzte\"(rowid TEXT, p REFERENCES p(id));
        INSERT INTO p VALUES (1); INSERT INTO \"Ärzte\" VALUES ('a', 1), ('b', 99);";
    let bed = Bed::new(before, &[("CREATE VIEW \"Übersicht\" AS SELECT * FROM \"Ärzte\"", ""), ("DELETE FROM p", "")]);
    let ran = bed.apply();
    assert_eq!((ran.done.as_slice(), stop_code(&ran)), (&[1][..], "new_violations"));
    assert!(ran.stopped.unwrap().failure.message.starts_with("1 row "));
}

#[test]
fn adding_a_column_to_a_parent_does_not_read_its_children() {
    // A child that cannot be checked in time: with a check, the migration's deadline would strike.
    let bed = Bed::new(PARENT, &[("ALTER TABLE p ADD COLUMN nick TEXT", "")]);
    let mut file = bed.open();
    file.schema.read(&file.connection).unwrap();
    assert!(file.schema.children_of(&|t| t == "p", &|_| false).is_empty());
    assert_eq!(file.schema.children_of(&|_| false, &|t| t == "p"), ["c"]);
    drop(file);
    assert_eq!(bed.apply().done, [1]);
}

#[test]
fn after_a_crash_migrations_go_one_by_one() {
    let bed = Bed::new("", &[("CREATE TABLE a(x)", ""), ("CREATE TABLE b(x)", ""), ("CREATE TABLE c(x)", "")]);
    let mut file = bed.open();
    managed::count_crash(&file.connection, Some(1)).unwrap();
    let ran = bed.run_on(&mut file, Operation::Apply, 1, 3);
    assert_eq!((ran.done.len(), ran.commits), (3, 4));
    assert_eq!(managed::crashes(&file.connection, 1).unwrap(), 0);
}

#[test]
fn a_revert_that_fails_is_not_tried_for_ever() {
    use whimbrel_shared::protocol::poll::Order;
    let bed = Bed::new("", &[("CREATE TABLE a(x)", "DROP TABLE nope")]);
    assert_eq!(bed.apply().done, [1]);
    let ran = bed.run_on(&mut bed.open(), Operation::Revert, 1, 1);
    assert_eq!(stop_code(&ran), "sql_error");
    assert_eq!(bed.statuses(), "1completed");
    let history = managed::history(&bed.open().connection).unwrap();
    let next = plan::next(&history, &bed.chain, Some(Order::RevertDownTo { version: 0 }), None);
    assert!(matches!(next, plan::Next::Stopped(_)), "{next:?}");
}

#[test]
fn a_wait_that_is_given_up_is_no_crash() {
    let bed = Bed::new("CREATE TABLE a(x)", &[("INSERT INTO a VALUES (1)", "")]);
    let app = bed.app();
    let halt = Halt::default();
    let mut file = Managed::open(&bed.path, Missing::Refuse, Duration::from_secs(5), halt.clone()).unwrap();
    // The intent is committed before the lock is taken away.
    managed::put_intent(&file.connection, &Intent { operation: Operation::Apply, from: 1, to: 1, next: 1, by: AskedBy::Plan, started_at_ms: 0 })
        .unwrap();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    halt.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let ran = bed.run_on(&mut file, Operation::Apply, 1, 1);
    assert_eq!(stop_code(&ran), "cancelled");
    app.execute_batch("COMMIT").unwrap();
    drop(file);
    let mut file = bed.open();
    assert!(recover::recover(&mut file, &identity(), &bed.chain, &Ambient::real(), bed.policy, true).unwrap().is_none());
    assert_eq!((managed::crashes(&file.connection, 1).unwrap(), managed::intent(&file.connection).unwrap()), (0, None));
}

#[test]
fn a_rebuild_keeps_what_the_application_put_on_the_table_itself() {
    let rebuild =
        "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT ''); INSERT INTO n SELECT * FROM p; DROP TABLE p; ALTER TABLE n RENAME TO p;";
    let bed = Bed::new("", &[("CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX chains ON p(a)", ""), (rebuild, "")]).rehearsed();
    let mut file = bed.open();
    assert_eq!(bed.run_on(&mut file, Operation::Apply, 1, 1).done, [1]);
    bed.app().execute_batch("CREATE INDEX apps ON p(a); CREATE TRIGGER apps_too AFTER INSERT ON p BEGIN SELECT 1; END").unwrap();
    let ran = bed.run_on(&mut file, Operation::Apply, 2, 2);
    assert_eq!(ran.done, [2], "{:?}", ran.stopped);
    let left: String =
        bed.value("SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE tbl_name = 'p' AND type <> 'table' ORDER BY name)");
    assert_eq!(left, "apps,apps_too");
}

#[test]
fn drift_is_named_and_stops_the_chain() {
    let bed = Bed::new("", &[("CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT)", ""), ("CREATE TABLE q(x)", "")]).rehearsed();
    let mut file = bed.open();
    assert_eq!(bed.run_on(&mut file, Operation::Apply, 1, 1).done, [1]);
    bed.app().execute_batch("ALTER TABLE p ADD COLUMN mine TEXT; CREATE TABLE extra(x)").unwrap();
    let ran = bed.run_on(&mut file, Operation::Apply, 2, 2);
    let failure = ran.stopped.unwrap().failure;
    assert_eq!(failure.code, "drift");
    assert!(failure.message.contains("table p differs") && !failure.message.contains("extra"), "{}", failure.message);
}
