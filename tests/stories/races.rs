//! The application writes, and the wire breaks, at every moment of an exchange: nothing is lost and nothing is doubled.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::Connection;
use serde_json::Value;
use whimbrel::{
    migrate::error::ApplyError,
    replicate::{Pace, ReplicateError},
};
use whimbrel_tests::{
    Mig,
    replica::{Replica, Space, lost, settle},
    sample, until, wait,
};

use crate::SOON;

/// Rows in one transaction, so that an exchange has many.
const ROWS: u32 = 2;

fn chain() -> Vec<Mig> {
    vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE newest(id TEXT PRIMARY KEY NOT NULL, one TEXT, two TEXT, three TEXT);
             CREATE TABLE merged(id TEXT PRIMARY KEY NOT NULL, one TEXT, two TEXT, three TEXT);
             CREATE TABLE oldest(id TEXT PRIMARY KEY NOT NULL, one TEXT, two TEXT, three TEXT);
             CREATE TABLE first(id TEXT PRIMARY KEY NOT NULL, one TEXT, two TEXT, three TEXT);
             CREATE TABLE last(id TEXT PRIMARY KEY NOT NULL, one TEXT, two TEXT, three TEXT);
             CREATE TABLE numbered(id INTEGER PRIMARY KEY, one TEXT);
             CREATE TABLE parent(id TEXT PRIMARY KEY NOT NULL, name TEXT);
             CREATE TABLE child(id TEXT PRIMARY KEY NOT NULL, parent TEXT NOT NULL REFERENCES parent(id) ON DELETE CASCADE, body BLOB)",
        )
        .toml(
            "[sync.newest]\nconflict = 'keep-newest'\n[sync.merged]\nconflict = 'merge'\n[sync.oldest]\nconflict = 'keep-oldest'\n\
             [sync.first]\nconflict = 'server-wins'\n[sync.last]\nconflict = 'client-wins'\n[sync.numbered]\nkeys = 'renumber'\n[sync.parent]\n[sync.child]\n",
        ),
    ]
}

struct Two {
    space: Space,
    a: Replica,
    b: Replica,
    _folder: tempfile::TempDir,
}

impl Two {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(folder.path(), chain());
        let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
        Self { space, a, b, _folder: folder }
    }

    fn settle(&self) {
        settle(&self.space, &[&self.a, &self.b]);
    }

    /// Both have these rows, nothing waits, and the server has them too.
    #[track_caller]
    fn are_one(&self, sql: &str, rows: &[String], when: &str) {
        self.have(sql, rows, when);
        for replica in [&self.a, &self.b] {
            let verified = replica.verify(&self.space).unwrap_or_else(|e| panic!("{when}: {e:?}"));
            assert!(verified.tables.iter().all(|t| t.is_equal()), "{when}: {verified:?}");
        }
    }

    /// Both have these rows, and nothing waits.
    #[track_caller]
    fn have(&self, sql: &str, rows: &[String], when: &str) {
        for replica in [&self.a, &self.b] {
            assert_eq!(replica.table(sql), rows, "{}, {when}", replica.path.display());
            assert_eq!((replica.unsent(), replica.quarantine().len()), (0, 0), "{when}: {:?}", replica.quarantine());
        }
    }

    /// Conflicts that somebody was told of, anywhere.
    fn conflicts(&self) -> Vec<String> {
        let at_the_server = self.space.operate("GET", "/api/conflicts?app=bench&limit=500", &Value::Null).json();
        let kept = at_the_server["conflicts"].as_array().expect("a list").iter().map(Value::to_string);
        [&self.a, &self.b].iter().flat_map(|r| r.table("SELECT detail FROM _whimbrel_conflict")).chain(kept).collect()
    }
}

/// A moment of an exchange.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This answer was given and has not arrived.
    Answer(u32),
    /// This transaction was committed.
    Transaction(u32),
}

/// Plays a story for every moment of an exchange, until it says that there was no such moment.
fn at_every_moment(story: impl FnMut(Moment) -> bool) {
    at_moments(1, story);
}

/// The same for every answer and every so many transactions.
fn at_moments(step: usize, mut story: impl FnMut(Moment) -> bool) {
    for (moment, step) in [(Moment::Answer as fn(u32) -> Moment, 1), (Moment::Transaction as fn(u32) -> Moment, step)] {
        let came = (1..).step_by(step).take_while(|at| story(moment(*at))).count();
        assert!(came >= 2, "only {came} such moments as {:?}", moment(1));
    }
}

/// What happens at a moment.
#[derive(Clone, Copy)]
struct Deed<'s> {
    /// One value that the application reads before it writes.
    reads: &'s str,
    /// What it writes, in the same transaction.
    writes: &'s str,
    /// Whether the exchange ends there: the wire is cut before the answer, or the daemon dies after its transaction.
    cut: bool,
}

/// An exchange with a deed at a moment of it. Returns what the application read; none where the moment never came.
fn exchange(two: &Two, who: &Replica, moment: Moment, deed: Deed<'_>) -> Option<Option<String>> {
    let write = |path: &Path, reads: &str, writes: &str| -> Option<String> {
        let app = Connection::open(path).unwrap();
        app.busy_timeout(SOON).unwrap();
        app.execute_batch("PRAGMA foreign_keys = ON; BEGIN IMMEDIATE").unwrap();
        let read = app.query_row(reads, [], |row| row.get(0)).unwrap();
        app.execute_batch(writes).unwrap_or_else(|e| panic!("{writes}: {e}"));
        app.execute_batch("COMMIT").unwrap();
        read
    };
    let (left, read) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(None)));
    let between = || {
        if left.fetch_sub(1, Relaxed) != 1 {
            return Ok(());
        }
        *read.lock().unwrap() = Some(write(&who.path, deed.reads, deed.writes));
        if deed.cut { Err(ApplyError::Cancelled) } else { Ok(()) }
    };
    let nothing = || Ok(());
    let ended = match moment {
        Moment::Transaction(at) => {
            left.store(at, Relaxed);
            who.try_sync_at(&two.space, Pace::Given { rows: ROWS, between: &between })
        }
        Moment::Answer(at) => {
            left.store(at, Relaxed);
            let (path, reads, writes): (PathBuf, String, String) = (who.path.clone(), deed.reads.to_owned(), deed.writes.to_owned());
            let (left, read) = (Arc::clone(&left), Arc::clone(&read));
            who.meddle(move |asked, answer| {
                if left.fetch_sub(1, Relaxed) != 1 {
                    return Ok(answer);
                }
                *read.lock().unwrap() = Some(write(&path, &reads, &writes));
                if deed.cut { Err(lost(asked)) } else { Ok(answer) }
            });
            who.try_sync_at(&two.space, Pace::Given { rows: ROWS, between: &nothing })
        }
    };
    who.leave_alone();
    let read = read.lock().unwrap().take();
    match ended {
        Ok(_) => assert!(read.is_none() || !deed.cut, "{moment:?}: it was cut and ended well"),
        Err(ReplicateError::Server(_) | ReplicateError::File(ApplyError::Cancelled)) if deed.cut && read.is_some() => {}
        Err(other) => panic!("{moment:?}: {other}"),
    }
    read
}

/// Moves the stamps of what was not folded yet into the future.
fn stamped(ahead_ms: u32) -> String {
    format!("UPDATE _whimbrel_journal SET wall_ms = wall_ms + {ahead_ms} WHERE seq > (SELECT seq FROM _whimbrel_folded)")
}

#[test]
fn what_the_application_writes_at_any_moment_of_an_exchange_is_not_lost_under_what_lands() {
    for table in ["newest", "merged"] {
        // b's application edits the column that a edited, after it or before it, or another one.
        for (column, a_ahead, b_ahead) in [("one", 0, 1_000), ("one", 1_000, 0), ("two", 0, 0)] {
            let (two, mut round) = (Two::new(), 0);
            at_every_moment(|moment| {
                round += 1;
                let when = format!("{table}.{column}, a {a_ahead} ms ahead, b {b_ahead}, {moment:?}");
                two.a.write(&format!(
                    "INSERT INTO {table}(id, one, two) VALUES ('{round}-1', 'x', 'x'), ('{round}-2', 'x', 'x'), ('{round}-3', 'x', 'x')"
                ));
                two.settle();
                let ahead = stamped(a_ahead * round);
                two.a.write(&format!("BEGIN; UPDATE {table} SET one = 'of a {round}' WHERE id LIKE '{round}-%'; {ahead}; COMMIT"));
                two.a.sync(&two.space);
                // Something to send too, so that transactions go before the landing.
                two.b.write(&format!("INSERT INTO {table}(id) VALUES ('{round}-b1'), ('{round}-b2'), ('{round}-b3')"));
                let deed = Deed {
                    reads: &format!("SELECT one FROM {table} WHERE id = '{round}-2'"),
                    writes: &format!("UPDATE {table} SET {column} = 'of b {round}' WHERE id = '{round}-2'; {}", stamped(b_ahead * round)),
                    cut: false,
                };
                let Some(read) = exchange(&two, &two.b, moment, deed) else { return false };
                two.settle();
                let saw = read.as_deref() != Some("x");
                // Who saw the other's edit stands; else the later one does.
                let one = if column == "one" && (saw || b_ahead > 0) { "of b" } else { "of a" };
                let second = if column == "two" { format!("of b {round}") } else { "x".to_owned() };
                two.are_one(
                    &format!("SELECT one, two FROM {table} WHERE id = '{round}-2'"),
                    &[format!(r#"Text("{one} {round}") Text("{second}")"#)],
                    &when,
                );
                let told: Vec<String> = two
                    .conflicts()
                    .into_iter()
                    .filter(|c| c.contains(&format!("of b {round}\\\"")) || c.contains(&format!("of b {round}\"")))
                    .collect();
                let met = column == "one" && !saw;
                assert_eq!(!told.is_empty(), met, "{when}: {told:?}");
                assert!(told.iter().all(|c| c.contains(&format!("of a {round}"))), "{when}: both sides are kept: {told:?}");
                true
            });
        }
    }
}

#[test]
fn a_push_whose_answer_is_lost_is_sent_again_with_what_was_edited_since_and_nothing_is_doubled() {
    for table in ["newest", "merged", "oldest", "first", "last"] {
        // Whether another device reads, and edits, what arrived of the first push.
        for between in [false, true] {
            let (two, mut round) = (Two::new(), 0);
            at_every_moment(|moment| {
                round += 1;
                let when = format!("{table}, {moment:?}, the other {}", if between { "edits" } else { "is silent" });
                let (a, b) = (&two.a, &two.b);
                for known in ["same", "other", "gone", "still"] {
                    a.write(&format!("INSERT INTO {table}(id, one, two) VALUES ('{round} known {known}', 'x', 'x')"));
                }
                two.settle();
                // Each of them is new, or edited, and sent; then edited in the same column or another, deleted, or left.
                a.write(&format!("UPDATE {table} SET one = 'first' WHERE id LIKE '{round} known %'"));
                for new in ["same", "other", "gone", "still"] {
                    a.write(&format!("INSERT INTO {table}(id, one, two) VALUES ('{round} new {new}', 'first', 'x')"));
                }
                a.write(&format!("INSERT INTO numbered VALUES ({round}, 'first')"));
                let writes = format!(
                    "UPDATE {table} SET one = 'second' WHERE id LIKE '{round} % same'; UPDATE {table} SET two = 'second' WHERE id LIKE '{round} % other';
                     DELETE FROM {table} WHERE id LIKE '{round} % gone'; UPDATE numbered SET one = 'second' WHERE id = {round}"
                );
                let deed = Deed { reads: "SELECT NULL", writes: &writes, cut: true };
                let Some(_) = exchange(&two, a, moment, deed) else {
                    a.write("DELETE FROM numbered");
                    two.settle();
                    return false;
                };
                let (mut third, mut fourth) = (Vec::new(), Vec::new());
                if between {
                    b.sync(&two.space);
                    // What it does not know of cannot be lost; what is deleted under it is another story.
                    let rows = format!("id LIKE '{round} %' AND id NOT LIKE '% gone'");
                    third = b.table(&format!("SELECT id FROM {table} WHERE {rows}"));
                    // Who saw what arrived, and wrote after it, stands whatever comes a second time.
                    let seen = format!("id LIKE '{round} % still' AND one = 'first'");
                    fourth = b.table(&format!("SELECT id FROM {table} WHERE {seen}"));
                    b.write(&format!("UPDATE {table} SET three = 'of b' WHERE {rows}; UPDATE {table} SET one = 'of b' WHERE {seen}"));
                    b.sync(&two.space);
                }
                two.settle();
                let mut expected = Vec::new();
                for deed in ["known", "new"] {
                    for (since, one, second) in [("other", "first", "second"), ("same", "second", "x"), ("still", "first", "x")] {
                        let id = format!(r#"Text("{round} {deed} {since}")"#);
                        let of_b = if third.contains(&id) { r#"Text("of b")"# } else { "Null" };
                        let one = if fourth.contains(&id) { "of b" } else { one };
                        expected.push(format!(r#"{id} Text("{one}") Text("{second}") {of_b}"#));
                    }
                }
                two.are_one(&format!("SELECT id, one, two, three FROM {table} WHERE id LIKE '{round} %' ORDER BY id"), &expected, &when);
                // The number that the first push took is its own.
                two.are_one(&format!("SELECT * FROM numbered WHERE id >= {round}"), &[format!(r#"Integer({round}) Text("second")"#)], &when);
                assert_eq!(two.conflicts(), [""; 0], "{when}: nobody wanted anything else");
                true
            });
        }
    }
}

#[test]
fn a_parent_that_is_edited_or_deleted_after_its_children_were_sent_arrives_so_and_they_with_it() {
    let (two, mut round) = (Two::new(), 0);
    for writes in ["UPDATE parent SET name = 'newest' WHERE id = '#'", "DELETE FROM parent WHERE id = '#'"] {
        // What is large takes its time: all moments, and both ways, at night.
        for cut in [true, false].into_iter().take(sample(1, 2)) {
            at_moments(sample(7, 1), |moment| {
                round += 1;
                let when = format!("{writes}, {moment:?}, {}", if cut { "cut" } else { "whole" });
                // So large that a push has room for two: the parent, which was edited last, goes with the second push.
                two.a.write(&format!("INSERT INTO parent VALUES ('{round}', 'new')"));
                for child in 1..=3 {
                    two.a.write(&format!("INSERT INTO child VALUES ('{round}-{child}', '{round}', zeroblob(1500000))"));
                }
                two.a.write(&format!("UPDATE parent SET name = 'newer' WHERE id = '{round}'"));
                let deed = Deed { reads: "SELECT NULL", writes: &writes.replace('#', &round.to_string()), cut };
                let Some(_) = exchange(&two, &two.a, moment, deed) else {
                    two.a.write("DELETE FROM parent; DELETE FROM child");
                    two.settle();
                    return false;
                };
                for _ in 0..2 {
                    two.b.sync(&two.space);
                    assert_eq!(two.b.table("SELECT * FROM pragma_foreign_key_check"), [""; 0], "{when}: a child is there without its parent");
                }
                two.settle();
                let there = if writes.starts_with("UPDATE") { 1 } else { 0 };
                two.have("SELECT id, name FROM parent", &vec![format!(r#"Text("{round}") Text("newest")"#); there], &when);
                let children: Vec<String> =
                    (1..=3 * there).map(|child| format!(r#"Text("{round}-{child}") Text("{round}") Integer(1500000)"#)).collect();
                two.have("SELECT id, parent, length(body) FROM child ORDER BY id", &children, &when);
                assert_eq!(two.conflicts(), [""; 0], "{when}");
                two.a.write("DELETE FROM child; DELETE FROM parent");
                two.settle();
                true
            });
        }
    }
}

/// Most rows that the application inserts.
const MOST: i64 = 20_000;
/// Between two of them: who never lets go of the lock is waited for.
const EVERY: Duration = Duration::from_millis(1);

/// Whether the step is over, and with it what it promises: the next one is done, or there is none.
const ENDED: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'note_slug')
    OR EXISTS (SELECT 1 FROM _whimbrel_migration WHERE version = 2 AND status = 'completed')";

/// A row that the application inserted while it was migrated: its number, and whether the backfill was over then.
type Inserted = (i64, bool);

/// An older build of the application, which knows nothing of a new column: inserts rows, each with a lower number than all
/// before it, until it has seen the end of the backfill for a while, or [`MOST`].
fn older_build(path: &Path, begun: &AtomicBool) -> Vec<Inserted> {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(SOON).unwrap();
    let (mut inserted, mut after) = (Vec::new(), 0);
    for number in 1..=MOST {
        app.execute_batch("BEGIN IMMEDIATE").unwrap();
        app.execute("INSERT INTO note(id, title) VALUES (?1, 'Title ' || ?1)", [-number]).unwrap();
        let over: bool = app.query_row(ENDED, [], |row| row.get(0)).unwrap();
        app.execute_batch("COMMIT").unwrap();
        inserted.push((-number, over));
        begun.store(true, Relaxed);
        after += u32::from(over);
        if after == 20 {
            return inserted;
        }
        wait::moment(EVERY);
    }
    panic!("{MOST} rows, and the backfill is not over");
}

#[test]
fn rows_that_an_older_build_inserts_behind_an_online_backfill_are_filled_and_arrive_whole() {
    let slugs =
        "[[step]]\nbackfill = 'note'\nset = \"slug = lower(replace(title, ' ', '-'))\"\nwhere = 'slug IS NULL AND title IS NOT NULL'\nbatch = 20\n";
    for last_step in ["", "[[step]]\nsql = 'index.sql'\n"] {
        let folder = tempfile::tempdir().unwrap();
        let chain = vec![
            Mig::up("0001_init", "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT)").toml("[sync.note]\nkeys = 'global'"),
            Mig::up("0002_slugs", "ALTER TABLE note ADD COLUMN slug TEXT")
                .file("index.sql", "CREATE INDEX note_slug ON note(slug)")
                .toml(format!("mode = 'online'\n[[step]]\nsql = 'up.sql'\n{slugs}{last_step}")),
        ];
        let space = Space::new(folder.path(), chain);
        let (mut a, mut b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
        a.write("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO note SELECT i, 'Title ' || i FROM n");
        settle(&space, &[&a, &b]);
        b.migrate(&space, 2);
        settle(&space, &[&b]);

        let (path, begun) = (a.path.clone(), AtomicBool::new(false));
        let inserted = std::thread::scope(|scope| {
            let app = scope.spawn(|| older_build(&path, &begun));
            until(SOON, "the application writes", || begun.load(Relaxed).then_some(()));
            a.migrate(&space, 2);
            app.join().unwrap()
        });
        settle(&space, &[&a, &b]);
        let rows = "SELECT id, title, slug FROM note ORDER BY id";
        let row = |id: i64, filled: bool| {
            let slug = if filled { format!(r#"Text("title-{id}")"#) } else { "Null".to_owned() };
            format!(r#"Integer({id}) Text("Title {id}") {slug}"#)
        };
        // The walk began at 1: all of these were behind it. What comes when it is over is the application's to fill.
        let expected: Vec<String> = inserted.iter().rev().map(|(id, over)| row(*id, !over)).chain((1..=3_000).map(|id| row(id, true))).collect();
        let behind = inserted.iter().filter(|(_, over)| !over).count();
        assert!(behind >= 50, "the application had {behind} turns");
        for replica in [&a, &b] {
            let found = replica.table(rows);
            let differs: Vec<_> = found.iter().filter(|row| !expected.contains(row)).take(5).collect();
            assert!(found == expected, "{last_step}, {}: {differs:?} of {} rows, {} expected", replica.path.display(), found.len(), expected.len());
            let verified = replica.verify(&space).unwrap();
            assert!(verified.tables.iter().all(|t| t.is_equal()), "{last_step}: {verified:?}");
            assert_eq!((replica.unsent(), replica.quarantine().len(), replica.conflicts().len()), (0, 0, 0), "{last_step}");
        }
    }
}
