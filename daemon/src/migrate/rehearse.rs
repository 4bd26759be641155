//! The pending chain, run for real on a private copy of the database: what `whimbrel plan --rehearse` shows (DESIGN 8.2).
//! The same engine under the same guard and the same judge, so it meets the same errors; the file itself is only read.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{Digest, MigrationName},
    protocol::poll::Order,
    status::{AskedBy, Event, EventKind, Failure, Operation, Status},
};

use super::{
    apply::{self, Job, Policy},
    backup::{
        self,
        copy::{check_room, copy, size_bytes},
    },
    chain::Chain,
    connection::{JournalMode, Managed, Missing},
    error::{ApplyError, sqlite},
    estimate::estimate,
    halt::Halt,
    live::{Live, Phase},
    plan::{self, Next},
    speed::Speed,
    work::{Looked, Shared, Site},
};
use crate::{
    store::{StoreError, managed, private::make_private_dir},
    trust,
};

/// Nobody else has the copy open: a wait can only be for ourselves.
const WAIT: Duration = Duration::from_secs(5);

/// What became of a rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Size of the private copy, in bytes.
    pub copy_bytes: u64,
    /// How long it took to make.
    pub copied_ms: u64,
    /// What ran, in order. Where one failed, it is the last.
    pub migrations: Vec<Rehearsed>,
    /// Why nothing could be rehearsed, or no more of it, where that is not a migration's fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Rehearsal {
    /// Whether everything that is pending ran to its end.
    pub fn is_well(&self) -> bool {
        self.failure.is_none() && self.migrations.iter().all(|m| m.failure.is_none())
    }
}

/// One migration of a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Its place.
    pub version: u32,
    /// Its name.
    pub name: MigrationName,
    /// Which way.
    pub operation: Operation,
    /// How it ended: `completed`, `reverted` or `failed`; `pending` for what would be tried again by itself.
    pub status: Status,
    /// Rows that its statements changed.
    pub rows: u64,
    /// How long it took, from its first statement to its last record.
    pub took_ms: u64,
    /// Fingerprint of the chain's objects after it; none where the chain was published without a rehearsal of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// Why it failed, and what can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Rehearses what `order` allows, whatever gate it waits for: a gate says when, a rehearsal says how. An earlier failure
/// is tried again. The copy lies in the state directory and is gone afterwards, also after a failure; what a crash leaves
/// is taken away by the next rehearsal. One at a time. Errors are those before the first migration.
pub fn rehearse(
    shared: &Shared,
    site: &Site,
    looked: &Looked,
    chain: &Chain,
    order: Option<Order>,
    halt: &Halt,
    live: &Live,
) -> Result<Rehearsal, ApplyError> {
    static ONE: Mutex<()> = Mutex::new(());
    let mut history = looked.history.clone();
    history.retain(|_, row| row.status != Status::Failed);
    history.values_mut().for_each(|row| row.failure = None);
    let Next::Run { operation, from, to, by: _ } = plan::next(&history, chain, order, None) else { return Ok(Rehearsal::default()) };

    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new(shared.state_dir.join("rehearsal"))?;
    let source = Managed::open(&site.path, Missing::Refuse, WAIT, halt.clone())?;
    let mut work_bytes = size_bytes(&source.connection)?;
    for version in between(from, to) {
        let migration = load(shared, site, chain, looked, operation, version)?;
        work_bytes = work_bytes.saturating_add(estimate(&source.connection, migration.migration(), operation, &Speed::default()).write_bytes);
    }
    check_room(&stage.0, work_bytes)?;

    let begun = Instant::now();
    let journal_mode = source.journal_mode;
    let keep_mode = |connection: &rusqlite::Connection| match journal_mode {
        // As the database's own: what a commit costs depends on it.
        JournalMode::Wal => connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(|source| backup::BackupError::Sqlite { doing: "setting the copy's journal mode", source }),
        JournalMode::Rollback => Ok(()),
    };
    live.set(Phase::Copying(Default::default()));
    let part = copy(&source.connection, stage.0.join("copy.part"), halt, &mut |pages| live.set(Phase::Copying(pages)), keep_mode)?;
    let copied_ms = ms(begun.elapsed());
    drop(source);
    let mut rehearsal = Rehearsal { copy_bytes: std::fs::metadata(&part.path).map_or(0, |m| m.len()), copied_ms, ..Rehearsal::default() };
    let mut file = Managed::open(&part.path, Missing::Refuse, WAIT, halt.clone())?;
    let load = |version, revision| trust::load(&shared.store(), &site.rule.app, version, revision);
    for version in between(from, to) {
        let job = Job {
            identity: &looked.identity,
            chain,
            load: &load,
            operation,
            from: version,
            to: version,
            by: AskedBy::Person,
            policy: Policy { max_attempts: 0, wait_for_app: WAIT, ..shared.policy },
            ambient: &shared.ambient,
            live,
        };
        let last = managed::events_after(&file.connection, &looked.identity, 0, u32::MAX)?.last().map_or(0, |(seq, _)| *seq);
        let begun = Instant::now();
        let ran = apply::run(&mut file, &job);
        let took = begun.elapsed();
        let events: Vec<Event> =
            managed::events_after(&file.connection, &looked.identity, last, u32::MAX)?.into_iter().map(|(_, event)| event).collect();
        let done = ran.stopped.is_none();
        let now = match operation {
            Operation::Apply => version,
            Operation::Revert => version - 1,
        };
        let ended = events.iter().find(|e| matches!(e.kind, EventKind::Completed | EventKind::Reverted | EventKind::Failed));
        let Some(name) = chain.newest(version).map(|e| e.custom.name.clone()) else { break };
        let failed = ran.stopped.map(|s| s.failure);
        rehearsal.migrations.push(Rehearsed {
            version,
            name,
            operation,
            status: ended.map_or(Status::Pending, |e| e.status),
            rows: live.what(version).map_or(0, |p| p.rows),
            took_ms: ended.and_then(|e| e.took_ms).unwrap_or_else(|| ms(took)),
            fingerprint: if done { backup::fingerprint(&file.connection, chain, now).map_err(sqlite("reading the copy's schema"))? } else { None },
            failure: failed,
        });
        if !done {
            break;
        }
    }
    Ok(rehearsal)
}

/// The folder of the copy: empty at the beginning, gone at the end.
struct Stage(PathBuf);

impl Stage {
    fn new(dir: PathBuf) -> Result<Self, ApplyError> {
        let io = |source| StoreError::Io { path: dir.clone(), source };
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(io)?;
        }
        make_private_dir(&dir).map_err(io)?;
        Ok(Self(dir))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "the copy of a rehearsal could not be taken away; the next one does");
        }
    }
}

/// The versions of a stretch, in the order in which they run.
fn between(from: u32, to: u32) -> Box<dyn Iterator<Item = u32>> {
    if from <= to { Box::new(from..=to) } else { Box::new((to..=from).rev()) }
}

fn load(
    shared: &Shared,
    site: &Site,
    chain: &Chain,
    looked: &Looked,
    operation: Operation,
    version: u32,
) -> Result<whimbrel_shared::trust::VerifiedMigration, ApplyError> {
    let revision = match (operation, looked.history.get(&version)) {
        (Operation::Revert, Some(row)) => row.revision,
        (Operation::Apply | Operation::Revert, _) => chain.newest(version).map_or(1, |e| e.custom.revision),
    };
    Ok(trust::load(&shared.store(), &site.rule.app, version, revision)?)
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
