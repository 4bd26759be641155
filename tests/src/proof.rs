//! What has to hold of a file whatever happened to it and to the engine: the stories of power cuts and failing disks ask
//! for it after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crashvfs::Files;
use rusqlite::Connection;
use whimbrel::{migrate::plan, store::managed};
use whimbrel_shared::{ids::Digest, protocol::poll::Order, status::EventKind};

use crate::{
    features::{BEFORE, Feature},
    hash::{content, everything},
    lone_engine::{Advanced, Engine},
};

/// The file's name in its folder.
pub const NAME: &str = "app.db";

/// How the application keeps its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// A write-ahead log.
    Wal,
    /// A rollback journal that is deleted.
    Rollback,
}

/// A feature, an engine for it, and what is right for it.
pub struct Proof {
    /// The feature.
    pub feature: Feature,
    /// How the file is kept.
    pub journal: Journal,
    /// The engine.
    pub engine: Engine,
    /// The application's content at every position that the chain may be at, made by plain SQLite.
    right: BTreeSet<(u32, Digest)>,
}

/// What every way through a feature has to come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The application's content.
    pub content: Digest,
    /// Version and status, in order.
    pub statuses: Vec<String>,
    /// Rows that were left because they failed.
    pub failed: Vec<String>,
}

impl Proof {
    /// For one feature on one kind of file.
    pub fn new(feature: Feature, journal: Journal) -> Self {
        let migs: Vec<_> = feature.chain.iter().map(|p| p.mig.clone()).collect();
        let plain: Vec<_> = feature.chain.iter().map(|p| p.plain.clone()).collect();
        let mut engine = Engine::rehearsed(&migs, &plain);
        engine.policy.grouping = feature.grouping;
        let right = right(&feature);
        Self { feature, journal, engine, right }
    }

    /// The application's files, before whimbrel came.
    pub fn before(&self) -> Files {
        let folder = scratch();
        let file = Connection::open(folder.path().join(NAME)).expect("the file opens");
        let mode = match self.journal {
            Journal::Wal => "wal",
            Journal::Rollback => "delete",
        };
        file.execute_batch(&format!("PRAGMA journal_mode = {mode}; {BEFORE}")).expect("the application writes");
        drop(file);
        crashvfs::Disk::new(folder.path()).files()
    }

    /// Whether an order came to what it has to come to when nothing disturbs it.
    pub fn judge(&self, done: &Advanced, order: usize) -> Result<(), String> {
        let last = order + 1 == self.feature.orders.len();
        if done.well() != (last && self.feature.fails) { Ok(()) } else { Err(format!("order {order} came to {done:?}")) }
    }

    /// Opens the file in `folder` as anybody would, and looks whether it is whole and right: its pages, the application's
    /// content against the history, the history against the events. Returns a digest of all it holds.
    pub fn check(&self, folder: &Path) -> Result<Digest, String> {
        let file = Connection::open(folder.join(NAME)).map_err(|e| e.to_string())?;
        let one = |sql: &str| file.query_row(sql, [], |row| row.get::<_, String>(0)).map_err(|e| format!("{sql}: {e}"));
        let integrity = one("SELECT group_concat(integrity_check) FROM pragma_integrity_check")?;
        if integrity != "ok" {
            return Err(integrity);
        }
        if one("SELECT CAST(count(*) AS TEXT) FROM pragma_foreign_key_check")? != "0" && self.feature.halfway.is_empty() {
            return Err("foreign keys are violated".to_owned());
        }
        let all = everything(&file);
        if !managed::is_prepared(&file).map_err(|e| e.to_string())? {
            let ours: i64 = file
                .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_whimbrel%' ESCAPE '\\'", [], |r| r.get(0))
                .map_err(|e| e.to_string())?;
            return if ours == 0 && self.right.contains(&(0, content(&file))) { Ok(all) } else { Err("half prepared".to_owned()) };
        }
        let history = managed::history(&file).map_err(|e| e.to_string())?;
        let position = plan::position(&history);
        if history.values().any(|row| row.version > position && row.status.is_in_place()) {
            return Err("the history has a gap".to_owned());
        }
        if !self.right.contains(&(position, content(&file))) {
            // A migration of several transactions may be under way: then one of them has to find it right.
            let judged: Vec<_> = self.feature.halfway.iter().map(|judge| judge(&file)).collect();
            if !judged.iter().any(Result::is_ok) {
                return Err(format!("the content is not that of version {position} ({judged:?})"));
            }
        }
        let identity = managed::identity(&file).map_err(|e| e.to_string())?;
        let events = managed::events_after(&file, &identity, 0, u32::MAX).map_err(|e| e.to_string())?;
        let mut in_place = BTreeMap::<u32, i32>::new();
        for (nth, (seq, event)) in (1..).zip(&events) {
            if *seq != nth {
                return Err(format!("event {nth} has number {seq}"));
            }
            *in_place.entry(event.version).or_default() += match event.kind {
                EventKind::Completed => 1,
                EventKind::Reverted => -1,
                _ => 0,
            };
        }
        for row in history.values() {
            let count = in_place.remove(&row.version).unwrap_or(0);
            if count != i32::from(row.status.is_in_place()) {
                return Err(format!("version {} is {} and its events say {count}", row.version, row.status));
            }
        }
        if in_place.values().any(|n| *n != 0) {
            return Err("an event has no history row".to_owned());
        }
        if let Some(intent) = managed::intent(&file).map_err(|e| e.to_string())?
            && ![position, position + 1].contains(&intent.next)
        {
            return Err(format!("the intent is before version {} and the file at {position}", intent.next));
        }
        Ok(all)
    }

    /// The daemon is started again, and carries out the orders from `order` on. `own`: as in [`Engine::advance`]. It comes
    /// to `wanted`, keeps every report there is, and reports the crash if there was one.
    pub fn go_on(&self, folder: &Path, order: usize, own: bool, wanted: &End) -> Result<(), String> {
        let mut file = self.engine.adopt(Connection::open(folder.join(NAME)).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let known = reports(&file.connection);
        let crashed = !own && !known.is_empty() && managed::intent(&file.connection).map_err(|e| e.to_string())?.is_some();
        for at in order..self.feature.orders.len() {
            let done = self.engine.advance(&mut file, self.feature.orders[at], own && at == order).map_err(|e| e.to_string())?;
            self.judge(&done, at)?;
        }
        let found = End::of(&file.connection);
        if found != *wanted {
            return Err(format!("it ends in {found:?} instead of {wanted:?}"));
        }
        let reports = reports(&file.connection);
        let new = reports.strip_prefix(known.as_slice()).ok_or("a report was lost")?;
        let crashes = new.iter().filter(|(_, kind)| kind == "crashed").count();
        if crashes != usize::from(crashed) {
            return Err(format!("{crashes} crashes were reported; an intent was left: {crashed}"));
        }
        drop(file);
        self.check(folder).map(|_| ())
    }
}

/// Id and kind of every event, in order; none where the file is not prepared.
pub fn reports(file: &Connection) -> Vec<(String, String)> {
    let Ok(mut statement) = file.prepare("SELECT event_id, kind FROM _whimbrel_event ORDER BY seq") else { return Vec::new() };
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).expect("the events are read")
}

impl End {
    /// What a file has come to.
    pub fn of(file: &Connection) -> Self {
        let list = |sql: &str| -> Vec<String> {
            let mut statement = file.prepare(sql).expect("the file is prepared");
            statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("our tables are read")
        };
        Self {
            content: content(file),
            statuses: list("SELECT version || ' ' || status FROM _whimbrel_migration ORDER BY version"),
            failed: list("SELECT version || ' ' || item FROM _whimbrel_failed_item ORDER BY version, item"),
        }
    }
}

/// The application's content at each position, by plain statements and without any engine.
fn right(feature: &Feature) -> BTreeSet<(u32, Digest)> {
    let file = Connection::open_in_memory().expect("SQLite runs what the feature says");
    file.execute_batch(BEFORE).expect("SQLite runs what the feature says");
    let mut position = 0;
    let mut right = BTreeSet::from([(0, content(&file))]);
    let failing = feature.chain.len() as u32 * u32::from(feature.fails);
    for order in &feature.orders {
        loop {
            let (sql, on) = match *order {
                Order::ApplyUpTo { version } if position < version && position + 1 != failing => {
                    position += 1;
                    let part = &feature.chain[position as usize - 1];
                    (part.plain.as_str(), part.mig.toml.as_deref().is_some_and(|toml| toml.contains("foreign_keys = \"on\"")))
                }
                Order::RevertDownTo { version } if position > version => {
                    position -= 1;
                    (feature.chain[position as usize].mig.down.as_deref().unwrap(), false)
                }
                Order::ApplyUpTo { .. } | Order::RevertDownTo { .. } => break,
            };
            file.pragma_update(None, "foreign_keys", on).expect("SQLite runs what the feature says");
            file.execute_batch(sql).unwrap_or_else(|e| panic!("{}: {sql}: {e}", feature.name));
            right.insert((position, content(&file)));
        }
    }
    right
}

/// Writes files into a folder.
pub fn put(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).expect("a file can be written");
    }
}

/// A folder in memory where there is room for that: thousands of syncs would take minutes on a disk, and nothing here
/// asks a real one.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder can be made")
}
