//! The application writes, and the wire breaks, at every moment of an exchange: nothing is lost and nothing is doubled.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
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
             CREATE TABLE numbered(id INTEGER PRIMARY KEY, one TEXT);
             CREATE TABLE parent(id TEXT PRIMARY KEY NOT NULL, name TEXT);
             CREATE TABLE child(id TEXT PRIMARY KEY NOT NULL, parent TEXT NOT NULL REFERENCES parent(id) ON DELETE CASCADE, body BLOB)",
        )
        .toml(
            "[sync.newest]\nconflict = 'keep-newest'\n[sync.merged]\nconflict = 'merge'\n[sync.numbered]\nkeys = 'renumber'\n[sync.parent]\n[sync.child]\n",
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
        for replica in [&self.a, &self.b] {
            assert_eq!(replica.table(sql), rows, "{}, {when}", replica.path.display());
            assert_eq!((replica.unsent(), replica.quarantine().len()), (0, 0), "{when}: {:?}", replica.quarantine());
            let verified = replica.verify(&self.space).unwrap_or_else(|e| panic!("{when}: {e:?}"));
            assert!(verified.tables.iter().all(|t| t.is_equal()), "{when}: {verified:?}");
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
fn at_every_moment(mut story: impl FnMut(Moment) -> bool) {
    for (moment, least) in [(Moment::Answer as fn(u32) -> Moment, 2), (Moment::Transaction as fn(u32) -> Moment, 4)] {
        let came = (1..).take_while(|at| story(moment(*at))).count();
        assert!(came >= least, "only {came} such moments as {:?}", moment(1));
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
                two.a.write(&format!("INSERT INTO {table}(id, one, two) VALUES ('{round}-1', 'x', 'x'), ('{round}-2', 'x', 'x'), ('{round}-3', 'x', 'x')"));
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
                let told: Vec<String> = two.conflicts().into_iter().filter(|c| c.contains(&format!("of b {round}\\\"")) || c.contains(&format!("of b {round}\""))).collect();
                let met = column == "one" && !saw;
                assert_eq!(!told.is_empty(), met, "{when}: {told:?}");
                assert!(told.iter().all(|c| c.contains(&format!("of a {round}"))), "{when}: both sides are kept: {told:?}");
                true
            });
        }
    }
}
