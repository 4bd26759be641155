//! Online migrations on real files, from a publisher's directory to the rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::Ordering,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension};
use whimbrel_shared::{
    ids::ClientId,
    migration::{Migration, TargetEntry, Targets},
    rows::RowReport,
    status::{AskedBy, Operation},
    trust::verify,
};

use crate::{
    ambient::Ambient,
    migrate::{
        apply::{self, Job, Policy, Ran},
        chain::Chain,
        connection::{Managed, Missing},
        files,
        halt::Halt,
        live::Live,
        rows::{Part, backfill::Backfilling},
        standing::half_done,
        transaction::{Terms, write},
    },
    publish::{self, compare::Found},
    store::managed::{self, FileIdentity},
    trust::AcceptError,
};

/// A file of an application, and a chain that a publisher rehearsed.
pub(super) struct Bed {
    _dir: tempfile::TempDir,
    pub(super) path: PathBuf,
    chain: Chain,
    /// By version and revision.
    bodies: BTreeMap<(u32, u32), Vec<u8>>,
    identity: FileIdentity,
    pub(super) halt: Halt,
}

/// One migration: its files by name.
type Files<'a> = &'a [(&'a str, &'a str)];

impl Bed {
    pub(super) fn new(before: &str, migrations: &[Files<'_>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let source = dir.path().join("migrations");
        for (index, files) in migrations.iter().enumerate() {
            let folder = source.join(format!("{:04}_m{}", index + 1, index + 1));
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in *files {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        let (read, _) = publish::read(&source, None, false).unwrap();
        let rehearsal = publish::rehearse::rehearse(&read, false, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let app = "notes".parse().unwrap();
        let (mut entries, mut bodies) = (Vec::<TargetEntry>::new(), BTreeMap::new());
        for link in publish::compare::links(&read, &rehearsal, &app, &Found::default(), None).unwrap() {
            bodies.insert((link.target.custom.version, link.target.custom.revision), link.body.into_bytes());
            entries.push(link.target);
        }
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = wal").unwrap();
        let identity = files::new_identity(ClientId::from_dice(1), &app, (0, 0));
        let bed = Self { _dir: dir, path, chain: Chain::new(entries), bodies, identity, halt: Halt::default() };
        let mut file = bed.open();
        write(&mut file, Terms::ours(Duration::from_secs(1)), |f| Ok(managed::prepare(&f.connection, &bed.identity)?)).unwrap();
        drop(file);
        bed.run(Operation::Apply, 1, 1, &Live::default());
        bed.app().execute_batch(before).unwrap();
        bed
    }

    pub(super) fn open(&self) -> Managed {
        Managed::open(&self.path, Missing::Refuse, Duration::from_secs(5), self.halt.clone()).unwrap()
    }

    pub(super) fn app(&self) -> Connection {
        let app = Connection::open(&self.path).unwrap();
        app.busy_timeout(Duration::from_secs(5)).unwrap();
        app
    }

    pub(super) fn run(&self, operation: Operation, from: u32, to: u32, live: &Live) -> Ran {
        self.run_on(&mut self.open(), operation, from, to, live)
    }

    pub(super) fn run_on(&self, file: &mut Managed, operation: Operation, from: u32, to: u32, live: &Live) -> Ran {
        self.run_with(file, (operation, from, to), live, false)
    }

    fn run_with(&self, file: &mut Managed, (operation, from, to): (Operation, u32, u32), live: &Live, skip_verify: bool) -> Ran {
        let load = |version: u32, revision: u32| -> Result<_, AcceptError> {
            let entry = self.chain.revisions(version).iter().find(|entry| entry.custom.revision == revision).unwrap();
            Ok(verify(entry, &self.bodies[&(version, revision)])?)
        };
        let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: Duration::from_secs(20), report_values: false, skip_verify };
        let (chain, identity, ambient) = (&self.chain, &self.identity, &Ambient::real());
        apply::run(file, &Job { identity, chain, load: &load, operation, from, to, by: AskedBy::Plan, policy, ambient, live })
    }

    /// Publishes another text of a version, as a publisher does, and lets the device have it.
    pub(super) fn revise(&mut self, version: u32, files: Files<'_>) -> Result<(), String> {
        let source = self._dir.path().join("migrations");
        let folder = source.join(format!("{version:04}_m{version}"));
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let (read, _) = publish::read(&source, None, false).unwrap();
        let app = "notes".parse().unwrap();
        let mut targets = Targets { app, version: 1, targets: BTreeMap::new() };
        let all = |chain: &Chain| (1..=chain.latest()).flat_map(|v| chain.revisions(v).to_vec()).collect::<Vec<_>>();
        targets.targets = all(&self.chain).into_iter().map(|entry| (entry.path(), entry)).collect();
        let body = |entry: &TargetEntry| Migration::from_bytes(&self.bodies[&(entry.custom.version, entry.custom.revision)]).unwrap();
        let bodies = targets.targets.values().map(|entry| (entry.path(), body(entry))).collect();
        let revise = BTreeSet::from([read.migrations[version as usize - 1].migration.name.clone()]);
        let found = publish::compare::compare(&read, &targets, &bodies, &revise).map_err(|e| e.to_string())?;
        let rehearsal = publish::rehearse::rehearse(&read, false, &mut |_| {}).map_err(|e| e.to_string())?;
        publish::revise::check(&read, &found, &rehearsal, None).map_err(|e| e.to_string())?;
        let mut entries = all(&self.chain);
        for link in publish::compare::links(&read, &rehearsal, &targets.app, &found, Some(&targets)).unwrap() {
            self.bodies.insert((link.target.custom.version, link.target.custom.revision), link.body.into_bytes());
            entries.push(link.target);
        }
        entries.sort_by_key(|entry| (entry.custom.version, entry.custom.revision));
        self.chain = Chain::new(entries);
        Ok(())
    }

    #[track_caller]
    pub(super) fn apply(&self) -> Ran {
        let ran = self.run(Operation::Apply, 2, self.chain.latest(), &Live::default());
        assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
        ran
    }

    #[track_caller]
    pub(super) fn fails(&self) -> (String, String) {
        let stopped = self.run(Operation::Apply, 2, self.chain.latest(), &Live::default()).stopped.expect("it fails");
        (stopped.failure.code, stopped.failure.message)
    }

    #[track_caller]
    pub(super) fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.app().query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    pub(super) fn nothing_is_left(&self) {
        let left: i64 = self.one(
            "SELECT (SELECT count(*) FROM _whimbrel_checkpoint) + (SELECT count(*) FROM _whimbrel_touched) + (SELECT count(*) FROM _whimbrel_intent)
             + (SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_whimbrel\\_catch%' ESCAPE '\\')",
        );
        assert_eq!(left, 0);
    }
}

const NOTES: Files<'static> = &[("up.sql", "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, at INTEGER);")];
const ROWS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO notes(title, at) SELECT 'Note ' || i, i FROM n;";
const SLUGS: &str = "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"slug = lower(replace(title, ' ', '-'))\"\nwhere = \"slug IS NULL\"\n";
const SLUG: (&str, &str) = ("up.sql", "ALTER TABLE notes ADD COLUMN slug TEXT;");

#[test]
fn rows_are_changed_in_many_transactions_and_completed_in_the_last() {
    let toml = format!("{SLUGS}[[step]]\nsql = \"index.sql\"\n[[step]]\nverify = \"verify.sql\"\n");
    let bed = Bed::new(
        ROWS,
        &[
            NOTES,
            &[
                ("migration.toml", &toml),
                SLUG,
                ("index.sql", "CREATE UNIQUE INDEX notes_slug ON notes(slug);"),
                ("verify.sql", "SELECT count(*) = 0 FROM notes WHERE slug IS NULL;"),
            ],
        ],
    );
    let live = Live::default();
    let ran = bed.run(Operation::Apply, 2, 2, &live);
    assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
    assert_eq!(bed.one::<String>("SELECT slug FROM notes WHERE id = 3000"), "note-3000");
    assert_eq!(bed.one::<i64>("SELECT count(DISTINCT slug) FROM notes"), 3000);
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM _whimbrel_event WHERE version = 2 AND kind = 'completed'"), 1);
    bed.nothing_is_left();
}

#[test]
fn a_stopped_run_goes_on_where_it_stood() {
    let bed = Bed::new(ROWS, &[NOTES, &[("migration.toml", &format!("{SLUGS}batch = 100\n")), SLUG]]);
    let mut file = bed.open();
    // The application's commits are seen by its `data_version`; here a thread stops the run once rows are done.
    let (live, halt) = (Live::default(), bed.halt.clone());
    let watch = live.clone();
    let stopper = std::thread::spawn(move || {
        while watch.picture().rows.is_none_or(|rows| rows.done < 500) {
            std::thread::yield_now();
        }
        halt.stop.store(true, Ordering::Relaxed);
    });
    let ran = bed.run_on(&mut file, Operation::Apply, 2, 2, &live);
    stopper.join().unwrap();
    assert_eq!(ran.stopped.unwrap().failure.code, "cancelled");
    let done = bed.one::<i64>("SELECT count(*) FROM notes WHERE slug IS NOT NULL");
    assert!((500..3000).contains(&done), "{done}");
    assert_eq!(bed.one::<i64>("SELECT examined FROM _whimbrel_checkpoint"), done);
    assert_eq!(bed.one::<String>("SELECT status FROM _whimbrel_migration WHERE version = 2"), "pending");
    drop(file);

    bed.halt.stop.store(false, Ordering::Relaxed);
    // Changed by nobody but an application that knows the new column: it must not be done again.
    bed.app().execute_batch("UPDATE notes SET slug = 'mine' WHERE id = 1").unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM notes WHERE slug IS NULL"), 0);
    assert_eq!(bed.one::<String>("SELECT slug FROM notes WHERE id = 1"), "mine");
    bed.nothing_is_left();
}

#[test]
fn what_an_older_application_writes_behind_the_walk_is_looked_at() {
    // Long enough for a writer that sleeps up to 100 ms between two tries.
    let bed = Bed::new(&ROWS.replace("3000", "30000"), &[NOTES, &[("migration.toml", &format!("{SLUGS}batch = 50\n")), SLUG]]);
    let live = Live::default();
    let (watch, path) = (live.clone(), bed.path.clone());
    let writer = std::thread::spawn(move || {
        while watch.picture().rows.is_none_or(|rows| rows.done < 500) {
            std::thread::yield_now();
        }
        let app = Connection::open(path).unwrap();
        app.busy_timeout(Duration::from_secs(5)).unwrap();
        app.execute("INSERT INTO notes(id, title) VALUES (-7, 'Behind It')", []).unwrap();
        app.execute("UPDATE notes SET slug = NULL, title = 'New Title' WHERE id = 3", []).unwrap();
    });
    let ran = bed.run(Operation::Apply, 2, 2, &live);
    writer.join().unwrap();
    assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
    assert_eq!(bed.one::<String>("SELECT slug FROM notes WHERE id = -7"), "behind-it");
    assert_eq!(bed.one::<String>("SELECT slug FROM notes WHERE id = 3"), "new-title");
    bed.nothing_is_left();
}

#[test]
fn a_failing_row_stops_the_step_or_is_left_with_its_error() {
    let bad = "UPDATE notes SET title = NULL WHERE id IN (7, 2500);";
    let set = |on_error: &str| {
        format!(
            "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"words = length(title) + 1\"\nwhere = \"words = 0\"\non_error = \"{on_error}\"\n"
        )
    };
    let up = ("up.sql", "ALTER TABLE notes ADD COLUMN words INTEGER NOT NULL DEFAULT 0;");
    let bed = Bed::new(&format!("{ROWS}{bad}"), &[NOTES, &[("migration.toml", &set("stop")), up]]);
    let (code, message) = bed.fails();
    assert!(code == "constraint" && message.contains("row [7]") && message.contains("NOT NULL"), "{code}: {message}");
    assert_eq!(bed.one::<String>("SELECT status FROM _whimbrel_migration WHERE version = 2"), "failed");

    let bed = Bed::new(&format!("{ROWS}{bad}"), &[NOTES, &[("migration.toml", &set("collect")), up]]);
    bed.apply();
    let items: String = bed.one("SELECT group_concat(item || ' ' || step, ', ') FROM (SELECT * FROM _whimbrel_failed_item ORDER BY item)");
    assert_eq!(items, "[2500] 2, [7] 2");
    assert!(bed.one::<String>("SELECT row FROM _whimbrel_failed_item").contains("\"title\":null"));
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM notes WHERE words = 0"), 2);
    bed.nothing_is_left();
}

#[test]
fn what_stopped_half_way_tells_where_it_stands_and_what_is_done_tells_what_it_did() {
    let set =
        "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"words = length(title) + 1\"\nwhere = \"words = 0\"\n";
    let up = ("up.sql", "ALTER TABLE notes ADD COLUMN words INTEGER NOT NULL DEFAULT 0;");
    let bed = Bed::new(&format!("{ROWS}UPDATE notes SET title = NULL WHERE id = 2500;"), &[NOTES, &[("migration.toml", set), up]]);
    bed.fails();
    let told = |kind: &str| -> RowReport {
        serde_json::from_str(&bed.one::<String>(&format!("SELECT rows FROM _whimbrel_event WHERE kind = '{kind}' AND version = 2"))).unwrap()
    };
    let stopped = told("failed");
    let at = stopped.at.unwrap();
    assert!((at.step, at.steps, at.total) == (2, 2, 3000) && at.done > 0 && at.done < 2500 && at.done == stopped.changed, "{stopped:?}");
    let load = |version: u32, _: u32| -> Result<_, AcceptError> { Ok(verify(bed.chain.newest(version).unwrap(), &bed.bodies[&(version, 1)])?) };
    assert_eq!(half_done(&mut bed.open(), &load).unwrap().unwrap().rows, stopped, "and says so as long as nothing runs");

    bed.app().execute_batch("UPDATE notes SET title = 'whole' WHERE id = 2500").unwrap();
    bed.apply();
    assert_eq!(told("completed"), RowReport { changed: 3000, ..RowReport::default() });
    assert_eq!(half_done(&mut bed.open(), &load).unwrap(), None);
}

#[test]
fn a_check_that_was_left_out_in_the_middle_is_told_although_the_run_that_ends_leaves_none_out() {
    let toml = "mode = \"online\"\n[[step]]\nverify = \"verify.sql\"\n[[step]]\nsql = \"up.sql\"\n";
    let wrong = ("verify.sql", "SELECT * FROM notes;");
    let stops = ("up.sql", "CREATE TABLE taken(x);");
    let bed = Bed::new(&format!("{ROWS}CREATE TABLE taken(x);"), &[NOTES, &[("migration.toml", toml), wrong, stops]]);
    assert_eq!(bed.fails().0, "not_verified");
    let ran = bed.run_with(&mut bed.open(), (Operation::Apply, 2, 2), &Live::default(), true);
    assert_eq!(ran.stopped.expect("the table is there already").failure.code, "sql_error");
    bed.app().execute_batch("DROP TABLE taken").unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT verify_skipped FROM _whimbrel_event WHERE kind = 'completed' AND version = 2"), 1);
    assert_eq!(bed.one::<i64>("SELECT verify_skipped FROM _whimbrel_event WHERE kind = 'completed' AND version = 1"), 0);
    bed.nothing_is_left();
}

#[test]
fn a_step_that_would_never_end_is_refused() {
    let toml = SLUGS.replace("slug IS NULL", "id > 0");
    let bed = Bed::new("INSERT INTO notes(title) VALUES ('a')", &[NOTES, &[("migration.toml", &toml), SLUG]]);
    let (code, message) = bed.fails();
    assert!(code == "not_idempotent" && message.contains("[1]"), "{code}: {message}");
    assert_eq!(bed.one::<Option<String>>("SELECT slug FROM notes"), None, "the part is undone");
}

#[test]
fn the_applications_triggers_fire_and_ours_note_no_change_of_our_own() {
    let log = "CREATE TABLE log(id INTEGER); CREATE TRIGGER t AFTER UPDATE OF slug ON notes BEGIN INSERT INTO log VALUES (NEW.id); END;";
    let bed = Bed::new(&format!("{ROWS}{}", ""), &[&[("up.sql", &format!("{}{log}", NOTES[0].1))], &[("migration.toml", SLUGS), SLUG]]);
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM log"), 3000);
    bed.nothing_is_left();
}

#[test]
fn a_table_without_row_ids_is_walked_by_its_key() {
    let table = "CREATE TABLE notes(lang TEXT COLLATE NOCASE, n REAL, title TEXT, PRIMARY KEY(lang DESC, n)) WITHOUT ROWID;";
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO notes SELECT char(97 + i % 7), i / 3.0, 'T ' || i FROM n;";
    let bed = Bed::new(rows, &[&[("up.sql", table)], &[("migration.toml", &format!("{SLUGS}batch = 7\n")), SLUG]]);
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM notes WHERE slug IS NULL"), 0);
}

#[test]
fn shipped_rows_are_loaded_by_key_and_in_the_order_of_their_tables() {
    let tables = "CREATE TABLE packs(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
                  CREATE TABLE cards(id INTEGER PRIMARY KEY, pack INTEGER NOT NULL REFERENCES packs(id), face TEXT, at INTEGER);";
    for mode in ["online", "atomic"] {
        for (conflict, face) in [
            ("skip", "Some(\"old\")"),
            ("replace", "Some(\"new\")"),
            ("merge", "Some(\"old\")"),
            ("keep-newest", "Some(\"new\")"),
            ("keep-oldest", "Some(\"old\")"),
        ] {
            let newest = if conflict.starts_with("keep") { "newest = \"at\"\n" } else { "" };
            // Children first in the file: the engine puts parents in first.
            let toml = format!(
                "mode = \"{mode}\"\n[[step]]\nload = \"cards.ndjson\"\ninto = \"cards\"\nkey = [\"id\"]\nconflict = \"{conflict}\"\n{newest}[[step]]\nload = \"packs.csv\"\ninto = \"packs\"\nkey = [\"id\"]\n"
            );
            let bed = Bed::new(
                "INSERT INTO packs VALUES (1, 'one'); INSERT INTO cards VALUES (1, 1, 'old', 10), (2, 1, NULL, 10);",
                &[
                    &[("up.sql", tables)],
                    &[
                        ("migration.toml", &toml),
                        (
                            "cards.ndjson",
                            "{\"id\": 1, \"pack\": 1, \"face\": \"new\", \"at\": 20}\n{\"id\": 2, \"pack\": 1, \"face\": \"filled\", \"at\": 5}\n{\"id\": 3, \"pack\": 2, \"face\": \"x\", \"at\": 1}\n",
                        ),
                        ("packs.csv", "id,name\n1,other\n2,\"two, three\"\n"),
                    ],
                ],
            );
            bed.apply();
            let found: Option<String> = bed.one("SELECT face FROM cards WHERE id = 1");
            assert_eq!(format!("{found:?}"), face, "{mode} {conflict}");
            let second: Option<String> = bed.one("SELECT face FROM cards WHERE id = 2");
            assert_eq!(second.is_some(), ["replace", "merge", "keep-oldest"].contains(&conflict), "{mode} {conflict}: {second:?}");
            assert_eq!(bed.one::<String>("SELECT group_concat(name, ';') FROM (SELECT name FROM packs ORDER BY id)"), "one;two, three");
            assert_eq!(bed.one::<i64>("SELECT count(*) FROM cards"), 3);
            bed.nothing_is_left();
        }
    }
}

#[test]
fn a_cleared_table_is_filled_again_or_its_children_are_named() {
    let tables = "CREATE TABLE packs(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE cards(id INTEGER PRIMARY KEY, pack REFERENCES packs(id) ON DELETE CASCADE);";
    let toml = "mode = \"online\"\ndestructive = true\n[[step]]\nload = \"packs.ndjson\"\ninto = \"packs\"\nkey = [\"id\"]\nclear_existing = true\n";
    let before = "INSERT INTO packs VALUES (1, 'a'), (2, 'b'); INSERT INTO cards VALUES (1, 1), (2, 2);";
    let bed = |rows: &str| Bed::new(before, &[&[("up.sql", tables)], &[("migration.toml", toml), ("packs.ndjson", rows)]]);
    let whole = bed("{\"id\": 1, \"name\": \"A\"}\n{\"id\": 2, \"name\": \"B\"}");
    whole.apply();
    assert_eq!(whole.one::<String>("SELECT group_concat(name, '') FROM packs"), "AB");
    assert_eq!(whole.one::<i64>("SELECT count(*) FROM cards"), 2, "no cascade");
    let (code, message) = bed("{\"id\": 1, \"name\": \"A\"}").fails();
    assert!(code == "new_violations" && message.contains("cards"), "{code}: {message}");
}

#[test]
fn a_load_goes_on_from_the_newest_row_that_is_there() {
    let toml = "[[step]]\nload = \"n.ndjson\"\ninto = \"notes\"\nkey = [\"id\"]\nnewest = \"at\"\nsince = true\nconflict = \"keep-newest\"\n";
    let bed = Bed::new(
        "INSERT INTO notes(id, at) VALUES (1, 5)",
        &[NOTES, &[("migration.toml", toml), ("n.ndjson", "{\"id\": 2, \"at\": 4}\n{\"id\": 3, \"at\": 6}")]],
    );
    bed.apply();
    let found: Option<i64> = bed.app().query_row("SELECT id FROM notes WHERE id = 2", [], |row| row.get(0)).optional().unwrap();
    assert_eq!((found, bed.one::<i64>("SELECT count(*) FROM notes")), (None, 2));
}

#[test]
fn a_walk_over_nothing_can_be_taken_up_again() {
    let bed = Bed::new("", &[NOTES, &[("migration.toml", SLUGS), SLUG]]);
    let mut file = bed.open();
    file.schema.read(&file.connection).unwrap();
    let step = whimbrel_shared::manifest::Backfill {
        table: "notes".into(),
        set: "title = 'x'".into(),
        filter: "title IS NULL".into(),
        on_error: Default::default(),
        batch: None,
    };
    let mut step = Backfilling::new(&file, &step, "here".into()).unwrap();
    let failed = Default::default();
    let first = step.chunk(&file, &Part { position: None, rows: 10, failed: &failed }).unwrap();
    assert!(first.end && first.examined == 0);
    bed.app().execute_batch("INSERT INTO notes(id) VALUES (1)").unwrap();
    let again = step.chunk(&file, &Part { position: Some(&first.position), rows: 10, failed: &failed }).unwrap();
    assert_eq!((again.examined, again.changed), (1, 1));
}

// ---- revisions ------------------------------------------------------------------------------------------------------------

/// Two schema steps with rows between them; the second fails where a title stands twice.
const UNIQUE: &str = "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"slug = lower(title)\"\nwhere = \"slug IS NULL\"\n[[step]]\nsql = \"index.sql\"\n";
const INDEX: (&str, &str) = ("index.sql", "CREATE UNIQUE INDEX notes_slug ON notes(slug);");
const BACK: (&str, &str) = ("down.sql", "DROP INDEX IF EXISTS notes_slug; ALTER TABLE notes DROP COLUMN slug;");
const TWICE: &str = "INSERT INTO notes(title) VALUES ('a'), ('b'), ('A');";
/// The mended backfill.
fn with_ids(head: &str) -> String {
    head.replace("lower(title)", "lower(title) || '-' || id")
}

#[test]
fn a_revision_takes_back_what_stopped_half_way_and_runs_whole() {
    let mut bed = Bed::new(TWICE, &[NOTES, &[("migration.toml", UNIQUE), SLUG, INDEX, BACK]]);
    assert_eq!(bed.fails().0, "constraint");
    assert_eq!(bed.one::<i64>("SELECT unit FROM _whimbrel_checkpoint"), 2);
    bed.revise(2, &[("migration.toml", &with_ids(UNIQUE)), SLUG, INDEX, BACK]).unwrap();
    bed.apply();
    assert_eq!(bed.one::<String>("SELECT group_concat(slug, ' ') FROM (SELECT slug FROM notes ORDER BY id)"), "a-1 b-2 a-3");
    assert_eq!(bed.one::<i64>("SELECT revision FROM _whimbrel_migration WHERE version = 2 AND status = 'completed'"), 2);
    bed.nothing_is_left();

    // What ran is what is reverted, whatever was published since: this one's way down would fail.
    bed.revise(2, &[("migration.toml", &with_ids(UNIQUE)), SLUG, INDEX, ("down.sql", "DROP TABLE nope;")]).unwrap();
    let ran = bed.run(Operation::Revert, 2, 2, &Live::default());
    assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
    assert_eq!(bed.one::<i64>("SELECT revision FROM _whimbrel_migration WHERE version = 2 AND status = 'reverted'"), 2);
}

#[test]
fn a_revision_of_what_failed_in_its_first_step_has_nothing_to_take_back() {
    let copies = ("up.sql", "ALTER TABLE notes ADD COLUMN slug TEXT; CREATE UNIQUE INDEX notes_slug ON notes(title COLLATE NOCASE);");
    let toml = UNIQUE.replace("[[step]]\nsql = \"index.sql\"\n", "");
    let mut bed = Bed::new(TWICE, &[NOTES, &[("migration.toml", &toml), copies, BACK]]);
    assert_eq!(bed.fails().0, "constraint");
    let mended = (
        "up.sql",
        "DELETE FROM notes WHERE id = 3; ALTER TABLE notes ADD COLUMN slug TEXT; CREATE UNIQUE INDEX notes_slug ON notes(title COLLATE NOCASE);",
    );
    bed.revise(2, &[("migration.toml", &toml), mended, BACK]).unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(slug) FROM notes"), 2);
    bed.nothing_is_left();
}

#[test]
fn a_revision_goes_on_after_the_steps_that_are_the_same() {
    let mut bed = Bed::new(TWICE, &[NOTES, &[("migration.toml", UNIQUE), SLUG, INDEX]]);
    assert_eq!(bed.fails().0, "constraint");
    let two = format!("continues_after = 2\n{UNIQUE}");
    let files = |toml: &'static str| [("migration.toml", toml), SLUG, INDEX];
    let why = bed.revise(2, &files(UNIQUE.replace("lower(title)", "upper(title)").leak())).unwrap_err();
    assert!(why.contains("half-way in revision 1") && why.contains("it has none"), "{why}");
    let why = bed.revise(2, &files(with_ids(&two).leak())).unwrap_err();
    assert!(why.contains("its step 2 is not that of revision 1"), "{why}");
    // Half of its rows were done by a step that is the same; the rest of the migration is new.
    let mended = ("index.sql", "UPDATE notes SET slug = slug || '-' || id WHERE id = 3; CREATE UNIQUE INDEX notes_slug ON notes(slug);");
    bed.revise(2, &[("migration.toml", &two), SLUG, mended]).unwrap();
    bed.apply();
    assert_eq!(bed.one::<String>("SELECT group_concat(slug, ' ') FROM (SELECT slug FROM notes ORDER BY id)"), "a b a-3");
    assert_eq!(bed.one::<i64>("SELECT revision FROM _whimbrel_migration WHERE version = 2"), 2);
    bed.nothing_is_left();
}

#[test]
fn what_was_noted_and_left_for_a_step_that_a_revision_replaces_is_forgotten() {
    let tables = &format!("{} CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE CHECK (name <> 'TAG 7'));", NOTES[0].1);
    let up = ("up.sql", "ALTER TABLE notes ADD COLUMN slug TEXT CHECK (slug <> 'note-7');");
    let first = format!("{SLUGS}on_error = \"collect\"\nbatch = 10\n");
    // Row 300 would be changed for ever: the run stops there, with row 7 left out.
    let first = first.replace("lower(replace(title, ' ', '-'))", "CASE WHEN id <> 300 THEN lower(replace(title, ' ', '-')) END");
    let tags = "INSERT INTO tags SELECT id, lower('Tag ' || id) FROM notes WHERE id <= 50;";
    let mut bed = Bed::new(&format!("{ROWS}{tags}"), &[&[("up.sql", tables)], &[("migration.toml", &first), up]]);
    assert_eq!(bed.fails().0, "not_idempotent");
    bed.app().execute_batch("UPDATE notes SET title = 'Other' WHERE id < 100").unwrap();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM _whimbrel_touched"), 99);
    assert_eq!(bed.one::<String>("SELECT item FROM _whimbrel_failed_item"), "[7]");

    // The step is one of another table now, and its first rows do not load.
    let load =
        "continues_after = 1\nmode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nload = \"tags.ndjson\"\ninto = \"tags\"\nkey = [\"id\"]\n";
    bed.revise(2, &[("migration.toml", load), up, ("tags.ndjson", "{\"id\": 60, \"name\": \"tag 5\"}")]).unwrap();
    assert_eq!(bed.fails().0, "constraint");
    let left =
        "SELECT (SELECT count(*) FROM _whimbrel_touched) + (SELECT count(*) FROM _whimbrel_failed_item) + (SELECT failed FROM _whimbrel_checkpoint)
                + (SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name <> '_whimbrel_journal_bound')";
    assert_eq!(bed.one::<i64>(left), 0, "nobody watches notes any more");

    let filled = "continues_after = 1\nmode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"tags\"\nset = \"name = upper(name)\"\nwhere = \"name <> upper(name)\"\non_error = \"collect\"\n";
    bed.revise(2, &[("migration.toml", filled), up]).unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM tags WHERE name = upper(name)"), 49);
    assert_eq!(bed.one::<String>("SELECT group_concat(item || message) FROM _whimbrel_failed_item"), "[7]CHECK constraint failed: name <> 'TAG 7'");
    bed.nothing_is_left();
}

#[test]
fn a_revision_in_one_transaction_and_a_revert_take_back_what_stopped_half_way() {
    let half_way = || {
        let bed = Bed::new(TWICE, &[NOTES, &[("migration.toml", UNIQUE), SLUG, INDEX, BACK]]);
        assert_eq!(bed.fails().0, "constraint");
        bed
    };
    let mut bed = half_way();
    bed.revise(2, &[("migration.toml", &with_ids(UNIQUE).replace("online", "atomic")), SLUG, INDEX, BACK]).unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(DISTINCT slug) FROM notes"), 3);
    bed.nothing_is_left();

    let mut bed = half_way();
    bed.revise(1, &[NOTES[0], ("down.sql", "DROP TABLE notes")]).unwrap();
    let ran = bed.run(Operation::Revert, 1, 1, &Live::default());
    assert_eq!(ran.stopped.map(|s| s.failure.code), Some("no_down".to_owned()), "revision 1 ran, and it has none");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM pragma_table_info('notes') WHERE name = 'slug'"), 0);
}

#[test]
fn what_stopped_half_way_is_taken_back_alone_on_a_persons_word() {
    let bed = Bed::new(TWICE, &[NOTES, &[("migration.toml", UNIQUE), SLUG, INDEX, BACK]]);
    assert_eq!(bed.fails().0, "constraint");
    let ran = bed.run(Operation::Revert, 2, 2, &Live::default());
    assert!(ran.stopped.is_none() && ran.done == [2], "{ran:?}");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM pragma_table_info('notes') WHERE name = 'slug'"), 0);
    assert_eq!(bed.one::<String>("SELECT group_concat(version || status) FROM _whimbrel_migration"), "1completed,2reverted");
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM _whimbrel_event WHERE kind = 'reverted' AND status = 'reverted'"), 1);
    bed.nothing_is_left();
    bed.app().execute_batch("DELETE FROM notes WHERE id = 3").unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(slug) FROM notes"), 2);
}

#[test]
fn the_key_of_a_row_that_stops_a_step_stays_in_the_file() {
    let toml = SLUGS.replace("slug = lower(replace(title, ' ', '-'))", "slug = nullif(title, 'Note 4711')");
    let up = ("up.sql", "ALTER TABLE notes ADD COLUMN slug TEXT CHECK (slug <> 'secret');");
    let bed = Bed::new("INSERT INTO notes(id, title) VALUES (4711, 'secret')", &[NOTES, &[("migration.toml", &toml), up]]);
    assert!(bed.fails().1.contains("row [4711]"), "the person at the device is told");
    assert!(bed.one::<String>("SELECT failure FROM _whimbrel_migration WHERE version = 2").contains("[4711]"));
    let told: String = bed.one("SELECT failure FROM _whimbrel_event WHERE kind = 'failed'");
    assert!(!told.contains("4711") && told.contains("a row: CHECK"), "{told}");
}

#[test]
fn a_revision_that_ends_elsewhere_is_refused() {
    let mut bed = Bed::new("", &[NOTES, &[("up.sql", "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT)")]]);
    let why = bed.revise(2, &[("up.sql", "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT, colour TEXT)")]).unwrap_err();
    assert!(why.contains("another schema than revision 1") && why.contains("table tags differs"), "{why}");
    let why =
        bed.revise(2, &[("migration.toml", "continues_after = 1"), ("up.sql", "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT);")]).unwrap_err();
    assert!(why.contains("no earlier revision of it could stop half-way"), "{why}");
    bed.revise(2, &[("up.sql", "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO tags(name) VALUES ('new');")]).unwrap();
    bed.apply();
    assert_eq!(bed.one::<i64>("SELECT count(*) FROM tags"), 1);
}
