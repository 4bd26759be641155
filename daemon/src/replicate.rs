//! One database's rows and its space: what was edited here goes up, what others edited comes down (DESIGN 9, docs/sync.md).
//!
//! A thread of its own does it, with short transactions on the file and a gap for the application after each. Nothing is
//! held while the server is asked. Whatever ends it, and wherever, the next one goes on from what the file says.

pub mod by_hand;
mod pulling;
mod pushing;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::{runtime::Handle, sync::watch};
use whimbrel_shared::{
    columns::ColumnMap,
    ids::ClientId,
    protocol::{
        problem::{FILE_WENT_BACK, SNAPSHOT_NEEDED},
        pull::PullRequest,
    },
    synced::SyncedTables,
};

use crate::{
    ambient::Ambient,
    migrate::{
        connection::{JournalMode, Managed},
        error::{ApplyError, sqlite},
        gap::Gap,
        rows::size::Size,
        transaction::{Terms, write},
    },
    store::{
        conflict,
        exchange::{self, Marking},
        journal, known, managed, outbox,
    },
    sync::{
        boot::Boot,
        clock,
        error::SyncError,
        fold::{Origin, fold},
        names,
        sweep::sweep,
        tables::Tables,
    },
    transport::{TransportError, server::Server},
};

/// How long a transaction waits for the application: it can be had again at the next cycle.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a transaction's work aims at while the application writes, and while it does not.
const SHARED: Duration = Duration::from_millis(2);
const ALONE: Duration = Duration::from_millis(10);
/// Notes of the journal that are folded in one transaction, where that is given.
const FOLDED: u32 = 1_000;
/// Rows of a sweep in one transaction.
const SWEPT: usize = 1_000;
/// Rounds of push and pull in one exchange: what settles one may leave something for the next.
const ROUNDS: usize = 4;
/// Decided conflicts are remembered for so long.
const CONFLICTS_KEPT_MS: i64 = 30 * 24 * 3_600_000;

/// A file that stands at a version, with what that version says about rows.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct At<'a> {
    /// Who it is.
    pub client_id: ClientId,
    /// How often it went back.
    pub epoch: u32,
    /// The version that it has completed.
    pub version: u32,
    /// Ids and names at that version.
    pub map: &'a ColumnMap,
    /// Which tables exchange rows then.
    pub synced: &'a SyncedTables,
    /// The tables that exchanged rows at an older version.
    pub synced_at: &'a dyn Fn(u32) -> BTreeSet<u32>,
    /// Whether the file still stands there: asked inside each transaction.
    pub holds: &'a dyn Fn(&Connection) -> Result<bool, ApplyError>,
}

/// What it is done with.
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct Means<'a> {
    /// The server.
    pub server: &'a Server,
    /// Runs its requests.
    pub handle: &'a Handle,
    /// Clock and dice.
    pub ambient: &'a Ambient,
    /// This boot of the machine.
    pub boot: &'a dyn Fn() -> Boot,
    /// Turns true when no answer is waited for any more.
    pub stop: watch::Receiver<bool>,
    /// How fast.
    pub pace: Pace<'a>,
}

/// How many rows a transaction takes, and what is between two of them.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a function has none")]
pub enum Pace<'a> {
    /// As the application needs it: both are found by measuring.
    Measured,
    /// As it is told, where no time may be measured: a simulation.
    Given {
        /// Rows in one transaction.
        rows: u32,
        /// Runs after each transaction. With an error the exchange ends there.
        between: &'a dyn Fn() -> Result<(), ApplyError>,
    },
}

/// What an exchange did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicated {
    /// Rows sent.
    pub pushed: u64,
    /// Of these, accepted as they were.
    pub accepted: u64,
    /// Of these, with something of another that stands.
    pub merged: u64,
    /// Of these, waiting for a decision.
    pub open: u64,
    /// Rows that landed.
    pub landed: u64,
    /// Whether the server had everything told anew.
    pub anew: bool,
    /// The longest that the write lock was held.
    pub longest_hold: Duration,
}

/// Why it ended early. What was done before stays done.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// The server.
    #[error(transparent)]
    Server(#[from] TransportError),
    /// The file.
    #[error(transparent)]
    File(#[from] ApplyError),
}

impl From<SyncError> for ReplicateError {
    fn from(error: SyncError) -> Self {
        Self::File(error.into())
    }
}

impl From<crate::store::StoreError> for ReplicateError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::File(error.into())
    }
}

/// Exchanges rows until there is nothing more to say on either side. `file` is a connection of its own.
pub fn replicate(file: &mut Managed, at: &At<'_>, means: &Means<'_>) -> Result<Replicated, ReplicateError> {
    let mut one = Replication::open(file, at, means)?;
    one.catch_up()?;
    one.begin()?;
    for _ in 0..ROUNDS {
        one.refused(Replication::push)?;
        if !one.refused(Replication::pull)? && !one.has_more()? {
            break;
        }
    }
    one.end()
}

/// Only sends what waits, until nothing does or `until` has passed: before a migration takes the file to another version.
/// Returns how many rows still wait.
pub fn drain(file: &mut Managed, at: &At<'_>, means: &Means<'_>, until: Instant) -> Result<u64, ReplicateError> {
    let mut one = Replication::open(file, at, means)?;
    one.until = Some(until);
    one.catch_up()?;
    one.begin()?;
    one.push()?;
    Ok(outbox::count(&one.file.connection)?)
}

struct Replication<'a, 'f> {
    file: &'f mut Managed,
    at: &'a At<'a>,
    means: &'a Means<'a>,
    epoch: u32,
    tables: Tables,
    gap: Gap,
    until: Option<Instant>,
    /// Whether the file knows everything that it wrote itself.
    sure: bool,
    /// Whether the application writes too.
    shared: bool,
    /// How many notes are folded in one transaction.
    folding: Size,
    /// How many known rows are gone through.
    marking: Size,
    /// How many rows are taken for a push.
    taking: Size,
    /// How many answers are settled.
    settling: Size,
    /// How many rows land.
    landing: Size,
    done: Replicated,
}

impl<'a, 'f> Replication<'a, 'f> {
    fn open(file: &'f mut Managed, at: &'a At<'a>, means: &'a Means<'a>) -> Result<Self, ReplicateError> {
        if file.journal_mode == JournalMode::Wal {
            // What a power cut takes with it is said again by the server, or found in the rows: no commit has to be synced, but
            // for the order of a push.
            synchronous(&file.connection, "NORMAL")?;
        }
        let tables = Tables::open(&file.connection, at.map, at.synced)?;
        Ok(Self {
            file,
            at,
            means,
            epoch: at.epoch,
            tables,
            gap: Gap::for_chunks(),
            until: None,
            sure: true,
            shared: false,
            folding: match means.pace {
                Pace::Measured => Size::new(None),
                Pace::Given { .. } => Size::fixed(FOLDED),
            },
            marking: size(means.pace),
            taking: size(means.pace),
            settling: size(means.pace),
            landing: size(means.pace),
            done: Replicated::default(),
        })
    }

    /// One short transaction, and a gap for the application. Returns how long its work took without the commit.
    fn write<T>(&mut self, mut work: impl FnMut(&Connection, &Tables) -> Result<T, ApplyError>) -> Result<(T, Duration, Duration), ReplicateError> {
        let (tables, holds) = (&self.tables, self.at.holds);
        let mut worked = Duration::ZERO;
        let (value, held) = write(self.file, Terms::ours(PATIENCE), |file| {
            if !holds(&file.connection)? {
                return Err(ApplyError::Moved("another version began while rows were exchanged".to_owned()));
            }
            let begun = Instant::now();
            let value = work(&file.connection, tables);
            worked = begun.elapsed();
            value
        })?;
        self.done.longest_hold = self.done.longest_hold.max(held);
        match self.means.pace {
            Pace::Measured => self.shared = self.gap.leave(self.file, held)?,
            Pace::Given { between, .. } => between()?,
        }
        Ok((value, worked, held.saturating_sub(worked)))
    }

    /// An answer of the server, unless it is not waited for any more.
    fn ask<T>(&self, asking: impl Future<Output = Result<T, TransportError>>) -> Result<T, ReplicateError> {
        let mut stop = self.means.stop.clone();
        let answer = self.means.handle.block_on(async {
            tokio::select! {
                answer = asking => answer,
                Ok(_) = stop.wait_for(|stop| *stop) => Err(TransportError::AskedToWait { left: Duration::ZERO }),
            }
        });
        Ok(answer?)
    }

    fn now_ms(&self) -> i64 {
        self.means.ambient.now_ms()
    }

    /// Milliseconds since the machine started: setting its clock does not change them.
    fn since_boot_ms(&self) -> i64 {
        self.now_ms() - (self.means.boot)().began_ms
    }

    /// A transaction of some kind did so many rows.
    fn pace(&mut self, of: impl Fn(&mut Self) -> &mut Size, rows: usize, worked: Duration, commit: Duration) {
        let shared = self.shared;
        let size = of(self);
        size.aim_at(if shared { SHARED } else { ALONE });
        size.took(rows as u64, worked, commit);
    }

    /// Folds what is in the journal, and compares what has to be compared, in short transactions.
    fn catch_up(&mut self) -> Result<(), ReplicateError> {
        let (ambient, boot) = (self.means.ambient, self.means.boot);
        while !journal::extent(&self.file.connection)?.is_folded() {
            let most = u64::from(self.folding.rows());
            let (folded, worked, commit) = self.write(|file, _| Ok(fold(file, &boot(), Origin::App, ambient.now_ms(), Some(most))?))?;
            self.pace(|one| &mut one.folding, folded.notes as usize, worked, commit);
            if !folded.more {
                break;
            }
        }
        while !journal::sweeps(&self.file.connection, &|_| None)?.is_empty() {
            let (swept, ..) = self.write(|file, _| {
                fold(file, &boot(), Origin::App, ambient.now_ms(), None)?;
                Ok(sweep(file, SWEPT)?)
            })?;
            if !swept.more {
                break;
            }
        }
        Ok(())
    }

    /// Notes which version of the schema rows are told for, what has to be told again for that, and the server's time.
    fn begin(&mut self) -> Result<(), ReplicateError> {
        let (version, at) = (self.at.version, self.at);
        let stands = exchange::read(&self.file.connection)?;
        if stands.version != version {
            // The server told the version before nothing of a table with a later `min_schema`, and the cursor passed what was done
            // to its rows, deletions too: no walk tells those.
            let before = (at.synced_at)(stands.version);
            let withheld = at.synced.0.values().any(|t| stands.version < t.min_schema && before.contains(&t.table));
            self.write(|file, _| {
                names::write(file, at.map, at.synced)?;
                if exchange::read(file)?.cursor > 0 && withheld {
                    exchange::begin_anew(file)?;
                }
                let mut stands = exchange::read(file)?;
                if stands.cursor > 0 && stands.version > 0 {
                    // One that was under way told some of what the version before it did not know; this one tells it all.
                    let since = stands.walk.map_or(stands.version, |w| w.since.min(stands.version));
                    stands.walk = Some(exchange::Walk { since, until: stands.cursor, at: 0 });
                }
                stands.version = version;
                exchange::write(file, &stands)?;
                Ok(conflict::release_held(file, version)?)
            })?;
        }
        if !clock::knows_server_time(&self.file.connection, &(self.means.boot)())? {
            // A walk without an end tells nothing but the time.
            let nothing = PullRequest { since_schema: Some(version), until: Some(0), series: None, reached: None, ..self.question(&stands, 0, 0) };
            let asked = self.since_boot_ms();
            let (head, _) = self.ask(self.means.server.pull(&nothing))?;
            self.note_time(head.now_ms, asked)?;
        }
        Ok(())
    }

    /// The server said `server_ms` somewhere between `asked` and now, in milliseconds since the machine started.
    fn note_time(&mut self, server_ms: i64, asked: i64) -> Result<(), ReplicateError> {
        let half = (self.since_boot_ms() - asked).max(0) / 2;
        let (boot, now_ms) = ((self.means.boot)(), self.now_ms());
        let known = clock::knows_server_time(&self.file.connection, &boot)?;
        if !known || clock::is_off(&self.file.connection, &boot, server_ms + half, now_ms)? {
            self.write(|file, _| Ok(clock::note_server_time(file, &boot, server_ms + half, now_ms)?))?;
        }
        Ok(())
    }

    fn question(&self, stands: &exchange::Exchange, cursor: u64, acked: u64) -> PullRequest {
        PullRequest {
            client_id: self.at.client_id,
            epoch: self.epoch,
            schema: self.at.version,
            series: stands.series,
            cursor,
            acked,
            since_schema: None,
            until: None,
            reached: stands.reached,
        }
    }

    /// Runs a part of the exchange. Where the server wants everything told anew, that is prepared, and the part is over:
    /// the next pull begins at the beginning. Returns whether anything happened.
    fn refused(&mut self, part: impl FnOnce(&mut Self) -> Result<bool, ReplicateError>) -> Result<bool, ReplicateError> {
        match part(self) {
            Err(ReplicateError::Server(error)) if !self.done.anew && matches!(error.problem(), Some(SNAPSHOT_NEEDED | FILE_WENT_BACK)) => {
                tracing::warn!(client_id = %self.at.client_id, "everything is told anew: {error}");
                let went_back = error.problem() == Some(FILE_WENT_BACK);
                let epoch = self.epoch + u32::from(went_back);
                self.write(|file, _| {
                    exchange::begin_anew(file)?;
                    if went_back {
                        let identity = managed::identity(file)?;
                        managed::set_identity(file, &managed::FileIdentity { epoch, ..identity })?;
                    }
                    Ok(())
                })?;
                self.epoch = epoch;
                self.done.anew = true;
                Ok(true)
            }
            other => other,
        }
    }

    /// Marks what is known of rows where everything is told anew, in short transactions. Nothing lands before that is done.
    fn mark(&mut self) -> Result<(), ReplicateError> {
        let Some(marking) = exchange::read(&self.file.connection)?.marking else { return Ok(()) };
        let lands: Vec<u32> = self.tables.iter().filter(|(_, t)| t.lands().is_some()).map(|(id, _)| id).collect();
        self.each_known(|file, after, most| known::mark(file, marking, &lands, after, most))?;
        let mut forgotten = None;
        while let Marking::NoSeries = marking {
            let most = self.taking.rows() as usize;
            let (last, ..) = self.write(|file, _| Ok(outbox::forget_bases(file, forgotten.as_ref(), most)?))?;
            forgotten = last;
            if forgotten.is_none() {
                break;
            }
        }
        self.write(|file, _| {
            let stands = exchange::Exchange { marking: None, ..exchange::read(file)? };
            Ok(exchange::write(file, &stands)?)
        })?;
        Ok(())
    }

    /// Forgets the deletions that the server forgot.
    fn forget_gone(&mut self, horizon: u64) -> Result<(), ReplicateError> {
        if exchange::read(&self.file.connection)?.horizon >= horizon {
            return Ok(());
        }
        self.each_known(|file, after, most| known::forget_gone(file, horizon, after, most))?;
        self.write(|file, _| {
            let stands = exchange::Exchange { horizon, ..exchange::read(file)? };
            Ok(exchange::write(file, &stands)?)
        })?;
        Ok(())
    }

    /// Goes through all that is known of rows, in short transactions.
    fn each_known(
        &mut self,
        each: impl Fn(&Connection, Option<&known::At>, u32) -> Result<Option<known::At>, crate::store::StoreError>,
    ) -> Result<(), ReplicateError> {
        let mut after = None;
        loop {
            let most = self.marking.rows();
            let (last, worked, commit) = self.write(|file, _| Ok(each(file, after.as_ref(), most)?))?;
            self.pace(|one| &mut one.marking, most as usize, worked, commit);
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Whether something waits that a further round may settle.
    fn has_more(&self) -> Result<bool, ReplicateError> {
        let stands = exchange::read(&self.file.connection)?;
        Ok(self.done.anew && !outbox::is_empty(&self.file.connection)? || stands.tell_again)
    }

    fn end(mut self) -> Result<Replicated, ReplicateError> {
        let now_ms = self.now_ms();
        let stands = exchange::read(&self.file.connection)?;
        // An exchange in which nothing was said writes nothing: an idle file stays as it is.
        if self.done.pushed > 0 || self.done.landed > 0 || stands.exchanged_ms.is_none() {
            self.write(|file, _| {
                let stands = exchange::Exchange { exchanged_ms: Some(now_ms), ..exchange::read(file)? };
                exchange::write(file, &stands)?;
                conflict::forget(file, now_ms - CONFLICTS_KEPT_MS)?;
                Ok(())
            })?;
        }
        Ok(self.done)
    }
}

/// Finds how many rows a transaction takes.
fn size(pace: Pace<'_>) -> Size {
    match pace {
        Pace::Measured => Size::new(Some(whimbrel_shared::change::MAX_PAGE_ROWS as u32)),
        Pace::Given { rows, .. } => Size::fixed(rows),
    }
}

fn synchronous(connection: &Connection, level: &str) -> Result<(), ApplyError> {
    connection.pragma_update(None, "synchronous", level).map_err(sqlite("setting up the connection"))
}
