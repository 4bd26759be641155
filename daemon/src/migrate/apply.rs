//! Runs a stretch of the chain on one file, exactly once whatever happens in between (DESIGN 4, invariants 2 and 3).
//!
//! One intent covers the stretch and is committed before it begins. Each migration then commits together with its
//! history row, its event and the intent's next step: one sync a migration, or one a group. A crash leaves the intent,
//! and the next run reads from it which migration was being worked on.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use whimbrel_shared::{
    fingerprint::Schema,
    ids::{Digest, MigrationName},
    manifest::{ForeignKeys, Mode},
    rows::RowReport,
    status::{AskedBy, Event, EventKind, Failure, FailureClass, Operation, Status},
    trust::VerifiedMigration,
};

use super::{
    chain::Chain,
    connection::Managed,
    error::{ApplyError, sqlite},
    foreign::Violations,
    gap::Gap,
    live::{Live, Phase},
    passage::Crossing,
    perform::{Before, Expected, broken, perform},
    plan::History,
    rows::FailedItem,
    schema::Changes,
    standing::half_done,
    tend::tend,
    transaction::{Terms, write},
    units::{Unit, Work, units},
};
use crate::{
    ambient::Ambient,
    store::{
        checkpoint::{self, FailedRow},
        journal,
        managed::{self, FileIdentity, Intent, MigrationRow},
    },
    trust::AcceptError,
};

/// Longest that a group of migrations holds the write lock: short enough that no application notices, long enough for
/// a hundred small migrations.
const GROUP_HOLD: Duration = Duration::from_millis(100);

/// Most migrations, and most bytes of them, that are read for one group.
const MOST_IN_GROUP: u32 = 256;
const MOST_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Longest that the journal is folded, and tables are compared, in short transactions in front of a run.
const TENDED: Duration = Duration::from_secs(60);

/// Files up to this size are checked before every run: about 80 ms.
const CHECKED_BYTES: i64 = 32 * 1024 * 1024;

/// Reads an accepted migration back, verified.
pub type Load<'a> = dyn Fn(u32, u32) -> Result<VerifiedMigration, AcceptError> + 'a;

/// What is to be run, and how.
pub struct Job<'a> {
    /// Who the file is.
    pub identity: &'a FileIdentity,
    /// The accepted chain.
    pub chain: &'a Chain,
    /// Reads its migrations.
    pub load: &'a Load<'a>,
    /// Which way.
    pub operation: Operation,
    /// First version to run. Reverting, the highest.
    pub from: u32,
    /// Last version to run. Reverting, the lowest.
    pub to: u32,
    /// Who asked.
    pub by: AskedBy,
    /// How the device wants it.
    pub policy: Policy,
    /// Clock and dice.
    pub ambient: &'a Ambient,
    /// For whoever watches.
    pub live: &'a Live,
}

/// How a device wants its migrations run.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Crashes in a row without progress before a person is asked; 0: never.
    pub max_attempts: u32,
    /// Whether several migrations may share a transaction.
    pub grouping: bool,
    /// How long the application is waited for.
    pub wait_for_app: Duration,
    /// Whether reports may name rows that failed.
    pub report_values: bool,
    /// Whether a person had `verify` steps left out of this run.
    pub skip_verify: bool,
}

impl Policy {
    /// Those of `units` that are run.
    pub(super) fn chosen(&self, units: &[Unit]) -> Vec<Unit> {
        units.iter().filter(|unit| !(self.skip_verify && matches!(unit.work, Work::Verify(_)))).cloned().collect()
    }
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Ran {
    /// Versions that were committed, in order.
    pub done: Vec<u32>,
    /// What stopped it.
    pub stopped: Option<Stopped>,
    /// The longest that the write lock was held.
    pub longest_hold: Duration,
    /// Transactions committed.
    pub commits: u32,
    /// Whether the intent could not be cleared: what is left is this process's own, and no crash.
    pub left_intent: bool,
}

/// What stopped a run. What was committed before it stays.
#[derive(Debug)]
pub struct Stopped {
    /// Where.
    pub version: u32,
    /// The migration.
    pub name: Option<MigrationName>,
    /// Why.
    pub failure: Failure,
    /// Whether a full disk caused it.
    pub disk_full: bool,
}

/// Runs it. The caller holds the lock file. Nothing half done is left behind: each migration is in the file whole, with
/// its history and its report, or not at all.
pub fn run(file: &mut Managed, job: &Job<'_>) -> Ran {
    let mut ran = Ran::default();
    let mut at = job.from;
    let runner = Runner {
        file,
        job,
        ran: &mut ran,
        before: Before::default(),
        expected: None,
        alone: None,
        crashed: false,
        one_by_one: false,
        verified: false,
        gap: Gap::default(),
        history: History::new(),
    };
    if let Err(error) = runner.run(&mut at) {
        ran.stopped = Some(Stopped {
            version: at,
            name: job.chain.newest(at).map(|e| e.custom.name.clone()),
            disk_full: error.is_disk_full(),
            failure: error.failure(),
        });
    }
    job.live.set(Phase::Idle);
    ran
}

pub(super) struct Runner<'r, 'a> {
    pub(super) file: &'r mut Managed,
    pub(super) job: &'r Job<'a>,
    ran: &'r mut Ran,
    pub(super) before: Before,
    /// The chain's schema in front of the next migration; none where it is not known.
    pub(super) expected: Option<Schema>,
    /// A version that has to run in a transaction of its own: something went wrong with it in a group.
    alone: Option<u32>,
    /// Whether crashes are on record, to be cleared by progress.
    pub(super) crashed: bool,
    /// Whether no groups are made in this run: one of them died, or was lost as a whole.
    one_by_one: bool,
    /// Whether the schema as a whole was compared in this run; after that only changes are.
    verified: bool,
    /// What the application is owed between two transactions.
    pub(super) gap: Gap,
    /// The history as it was when the intent was committed. Only this run changes it: it holds the lock file.
    pub(super) history: History,
}

impl Runner<'_, '_> {
    fn run(mut self, at: &mut u32) -> Result<(), ApplyError> {
        self.look()?;
        if self.before.captured {
            // What is left for the migrations' own transactions is little then.
            tend(self.file, self.job.ambient, self.job.policy.wait_for_app, TENDED, true)?;
        }
        if !self.begin()? {
            *at = self.next().unwrap_or(self.job.from);
            return Ok(());
        }
        while let Some(next) = self.next() {
            *at = next;
            if self.file.guard.halt().no_more() {
                self.abandon(None);
                return Err(ApplyError::Cancelled);
            }
            // What stands half-way is the first of a run, or above it.
            let settled = if self.ran.done.is_empty() { self.take_back(next) } else { Ok(()) };
            let grouping = self.job.policy.grouping && self.job.operation == Operation::Apply && !self.one_by_one && self.alone != Some(next);
            let outcome = settled.and_then(|()| if grouping { self.group(next) } else { Ok(0) });
            let outcome = match outcome {
                // It stood half-way, and was taken back.
                Ok(_) if self.ran.done.last() == Some(&next) => Ok(()),
                Ok(0) => self.one(next),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.fail(next, &error)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The version after the last that was committed.
    fn next(&self) -> Option<u32> {
        let (from, to) = (self.job.from, self.job.to);
        match (self.job.operation, self.ran.done.last()) {
            (_, None) => Some(from),
            (_, Some(last)) if *last == to => None,
            (Operation::Apply, Some(last)) => Some(last + 1),
            (Operation::Revert, Some(last)) => Some(last - 1),
        }
    }

    pub(super) fn terms(&self, migration: Option<&VerifiedMigration>) -> Terms {
        let on = migration.is_some_and(|m| m.migration().manifest.foreign_keys == ForeignKeys::On);
        Terms { wait: self.job.policy.wait_for_app, foreign_keys: on, stoppable: true }
    }

    /// What is broken before is not this run's doing.
    fn look(&mut self) -> Result<(), ApplyError> {
        self.job.live.set(Phase::Preflight);
        self.file.patience.set_limit(self.job.policy.wait_for_app);
        self.file.schema.read(&self.file.connection).map_err(sqlite("reading the schema"))?;
        self.file.patience.over();
        self.check_file()?;
        self.before.captured = journal::is_there(&self.file.connection)?;
        self.before.broken = broken(self.file).into_iter().map(|(object, _)| object).collect::<BTreeSet<_>>();
        self.expected = self.job.schema_before(self.job.from);
        Ok(())
    }

    /// A damaged file is not made worse. Small files are checked each time; large ones after something went wrong, since
    /// a check reads them from end to end (1.1 s for 492 MB, reference 2.4).
    fn check_file(&self) -> Result<(), ApplyError> {
        let connection = &self.file.connection;
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite("reading the file's size"));
        let size_bytes = number("page_count")?.saturating_mul(number("page_size")?);
        if size_bytes > CHECKED_BYTES && managed::crashes(connection, self.job.from)? == 0 {
            return Ok(());
        }
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite("checking the file"))?;
        if found == "ok" { Ok(()) } else { Err(ApplyError::Damaged(found)) }
    }

    /// Commits the intent, having read the history again under the lock. `false`: there is nothing to do any more.
    fn begin(&mut self) -> Result<bool, ApplyError> {
        let (job, terms) = (self.job, self.terms(None));
        job.live.set(Phase::Waiting);
        let now_ms = job.ambient.now_ms();
        let ((go, crashed, history), held) = write(self.file, terms, |file| {
            let connection = &file.connection;
            let mut history = managed::history(connection)?;
            let row = history.get(&job.from).cloned();
            let in_place = row.as_ref().is_some_and(|r| r.status.is_in_place());
            let half_way = checkpoint::checkpoint(connection)?.is_some_and(|at| at.version == job.from);
            let wanted = match job.operation {
                Operation::Apply => !in_place,
                Operation::Revert => in_place || half_way,
            };
            if !wanted {
                return Ok((false, false, history));
            }
            let below_in_place = job.from == 1 || history.get(&(job.from - 1)).is_some_and(|r| r.status.is_in_place());
            if job.operation == Operation::Apply && !below_in_place {
                return Err(ApplyError::Moved(format!("version {} is not in place", job.from - 1)));
            }
            let entry = job.entry(job.from, row.as_ref())?;
            let attempts = match job.operation {
                Operation::Apply => row.as_ref().map_or(0, |r| r.attempts) + 1,
                Operation::Revert => 1,
            };
            managed::put_intent(
                connection,
                &Intent { operation: job.operation, from: job.from, to: job.to, next: job.from, by: job.by, started_at_ms: now_ms },
            )?;
            if job.operation == Operation::Apply {
                let kept = row.as_ref().filter(|r| r.status == Status::Pending).and_then(|r| r.failure.clone());
                let running = job.row(&entry, Status::Running, attempts, now_ms, None, kept);
                managed::put_migration(connection, &running)?;
                history.insert(job.from, running);
            }
            // Another try of what passed away by itself is no news: its first failure said so.
            if row.as_ref().is_none_or(|r| r.status != Status::Pending || r.failure.is_none()) {
                managed::append_event(connection, &job.event(&entry, EventKind::Started, Status::Running, attempts, now_ms))?;
            }
            Ok((true, managed::crashes(connection, job.from)? > 0, history))
        })?;
        self.history = history;
        self.ran.commits += 1;
        self.crashed = crashed;
        self.one_by_one = crashed;
        self.gap.leave(self.file, held)?;
        Ok(go)
    }

    /// As many migrations as fit into one short transaction, a savepoint each. Returns how many were committed; with 0,
    /// the next one has to run alone.
    fn group(&mut self, first: u32) -> Result<usize, ApplyError> {
        let (job, terms) = (self.job, self.terms(None));
        let (before, crashed, verified) = (self.before.clone(), self.crashed, self.verified);
        let history = &self.history;
        // Read before the lock is asked for: what is read from another disk must not hold it.
        let mut loaded = Vec::new();
        let mut size_bytes = 0;
        for version in first..=job.to.min(first.saturating_add(MOST_IN_GROUP - 1)) {
            let migration = (job.load)(version, job.entry(version, None)?.revision)?;
            size_bytes += migration.migration().files.values().map(String::len).sum::<usize>();
            let manifest = &migration.migration().manifest;
            // Foreign keys can only be switched between transactions, and an online migration has several of its own.
            let apart = manifest.foreign_keys == ForeignKeys::On || manifest.mode == Mode::Online;
            if apart || (size_bytes > MOST_GROUP_BYTES && !loaded.is_empty()) {
                break;
            }
            loaded.push(migration);
        }
        if loaded.is_empty() {
            return Ok(0);
        }
        job.live.set(Phase::Waiting);
        // The first try takes it, another one makes it anew.
        let mut start = Some(self.expected.take());
        let attempt = write(self.file, terms, |file| {
            let locked = Instant::now();
            let mut expected = start.take().unwrap_or_else(|| job.schema_before(first));
            let (mut done, mut broke) = (Vec::new(), false);
            let changes = file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
            let look = !verified || changes != Changes::default();
            for migration in &loaded {
                if locked.elapsed() >= GROUP_HOLD {
                    break;
                }
                file.connection.execute_batch("SAVEPOINT whimbrel").map_err(sqlite("setting a savepoint"))?;
                let row = history.get(&migration.link().version);
                match job.one_inside(file, migration, row, &mut expected, &before, done.is_empty() && crashed, done.is_empty() && look) {
                    Ok(()) => {
                        file.connection.execute_batch("RELEASE whimbrel").map_err(sqlite("releasing a savepoint"))?;
                        done.push(migration.link().version);
                    }
                    // Gone as a whole: the caller goes on one by one.
                    Err(_) if file.connection.is_autocommit() => return Err(ApplyError::LostTransaction),
                    // Nothing to keep: this is its verdict.
                    Err(error) if done.is_empty() => return Err(job.or_moved(file, first, error)),
                    Err(_) => {
                        // The good prefix is kept. This one runs again, alone, and there its error is judged.
                        file.connection.execute_batch("ROLLBACK TO whimbrel; RELEASE whimbrel").map_err(sqlite("going back to a savepoint"))?;
                        file.schema.forget();
                        expected = job.schema_before(migration.link().version);
                        broke = true;
                        break;
                    }
                }
            }
            Ok((done, expected, broke))
        });
        if attempt.is_err() {
            self.expected = job.schema_before(first);
        }
        match attempt {
            Ok(((done, expected, broke), held)) => {
                self.committed(&done, held)?;
                self.expected = expected;
                self.alone = self.next().filter(|_| broke);
                Ok(done.len())
            }
            Err(ApplyError::LostTransaction | ApplyError::CommitBusy { .. }) => {
                self.one_by_one = true;
                Ok(0)
            }
            // Which of them are new has to be found out, and that takes a transaction of its own.
            Err(ApplyError::NewViolations { .. }) if self.before.violations.is_none() => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// One migration in a transaction of its own.
    fn one(&mut self, version: u32) -> Result<(), ApplyError> {
        let job = self.job;
        let row = self.history.get(&version);
        let migration = (job.load)(version, job.entry(version, row)?.revision)?;
        if migration.migration().manifest.mode == Mode::Online && job.operation == Operation::Apply {
            return self.online(&migration);
        }
        let terms = self.terms(Some(&migration));
        let verified = self.verified;
        let mut start = Some(self.expected.take());
        loop {
            let before = &self.before;
            let mut expected = None;
            job.live.set(Phase::Waiting);
            let outcome = write(self.file, terms, |file| {
                let changes = file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
                expected = start.take().unwrap_or_else(|| job.schema_before(version));
                let look = !verified || changes != Changes::default();
                job.one_inside(file, &migration, row, &mut expected, before, self.crashed, look).map_err(|e| job.or_moved(file, version, e))
            });
            match outcome {
                Ok(((), held)) => {
                    self.expected = expected;
                    return self.committed(&[version], held);
                }
                // Which of them are new can only be told by those that were there before. Looked at outside the lock.
                Err(ApplyError::NewViolations { .. }) if self.before.violations.is_none() => {
                    self.file.schema.read(&self.file.connection).map_err(sqlite("reading the schema"))?;
                    let (found, _) = Violations::read(&self.file.connection, &self.file.schema, None).map_err(sqlite("checking foreign keys"))?;
                    self.before.violations = Some(found);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn committed(&mut self, versions: &[u32], held: Duration) -> Result<(), ApplyError> {
        self.ran.done.extend_from_slice(versions);
        self.ran.longest_hold = self.ran.longest_hold.max(held);
        self.ran.commits += 1;
        (self.crashed, self.verified) = (false, true);
        self.job.live.progress(self.ran.done.len() as u32, self.job.from.abs_diff(self.job.to) + 1);
        if self.next().is_some() { self.gap.leave(self.file, held).map(|_| ()) } else { Ok(()) }
    }

    /// Records what went wrong, and ends the run. What cannot be recorded leaves the intent for the next start.
    fn fail(&mut self, version: u32, error: &ApplyError) -> Result<(), ApplyError> {
        let (job, failure) = (self.job, error.failure());
        let terms = Terms { stoppable: false, ..self.terms(None) };
        match failure.class {
            // Nothing is written to a damaged file.
            FailureClass::Corrupt => return Ok(()),
            FailureClass::Transient => {
                self.abandon((!matches!(error, ApplyError::Cancelled)).then_some(failure));
                return Ok(());
            }
            FailureClass::Permanent | FailureClass::Crash => {}
        }
        let now_ms = job.ambient.now_ms();
        write(self.file, terms, |file| {
            let row = managed::migration(&file.connection, version)?;
            let entry = job.entry(version, row.as_ref())?;
            let attempts = row.as_ref().map_or(1, |r| r.attempts.max(1));
            let status = match job.operation {
                Operation::Apply => Status::Failed,
                Operation::Revert => row.as_ref().map_or(Status::Completed, |r| r.status),
            };
            let completed = row.as_ref().and_then(|r| r.completed_at_ms);
            managed::put_migration(&file.connection, &job.row(&entry, status, attempts, now_ms, completed, Some(failure.clone())))?;
            let mut event = job.event(&entry, EventKind::Failed, status, attempts, now_ms);
            event.failure = Some(failure.told(job.policy.report_values));
            event.rows = job.stands(file, version)?;
            managed::append_event(&file.connection, &event)?;
            managed::clear_intent(&file.connection)?;
            Ok(())
        })
        .map(|_| ())
    }

    /// Ends the run without a verdict: it will be tried again, and no attempt is counted. What passed away by itself is
    /// told once, and not again while it stays the same.
    fn abandon(&mut self, failure: Option<Failure>) {
        let (job, terms) = (self.job, Terms { stoppable: false, ..Terms::ours(Duration::from_secs(5)) });
        let (next, now_ms) = (self.next(), job.ambient.now_ms());
        let done = write(self.file, terms, |file| {
            if let Some(row) = next.map(|v| managed::migration(&file.connection, v)).transpose()?.flatten()
                && row.status == Status::Running
            {
                let news = failure.as_ref().filter(|f| row.failure.as_ref().is_none_or(|known| known.code != f.code));
                if let Some(failure) = news {
                    let mut event = job.event(&job.entry(row.version, Some(&row))?, EventKind::Failed, Status::Pending, row.attempts, now_ms);
                    event.failure = Some(failure.told(job.policy.report_values));
                    event.rows = job.stands(file, row.version)?;
                    managed::append_event(&file.connection, &event)?;
                }
                let kept = failure.clone().or_else(|| row.failure.clone());
                let attempts = row.attempts.saturating_sub(1);
                managed::put_migration(&file.connection, &MigrationRow { status: Status::Pending, attempts, failure: kept, ..row })?;
            }
            managed::clear_intent(&file.connection)?;
            Ok(())
        });
        if let Err(error) = done {
            // The intent stays, and the next look takes it up: not as a crash, since nobody died.
            self.ran.left_intent = true;
            tracing::warn!(%error, database.client_id = %job.identity.client_id, "could not record that the run was abandoned");
        }
    }
}

impl Job<'_> {
    /// Everything of one migration that has to be true together, inside the open transaction. With `look`, the schema is
    /// compared as a whole first. After an error `expected` is empty.
    fn one_inside(
        &self,
        file: &mut Managed,
        migration: &VerifiedMigration,
        row: Option<&MigrationRow>,
        expected: &mut Option<Schema>,
        before: &Before,
        crashed: bool,
        look: bool,
    ) -> Result<(), ApplyError> {
        let link = migration.link();
        let (version, begun, now_ms) = (link.version, Instant::now(), self.ambient.now_ms());
        if let Some(schema) = expected.as_ref().filter(|_| look) {
            let drift = schema.drift(file.schema.schema());
            if !drift.is_empty() {
                return Err(ApplyError::Drift { drift });
            }
        }
        // Taken out, so that what fails half-way does not leave a schema behind that nobody checked.
        let from = expected.take();
        let reverting;
        let change = match self.operation {
            Operation::Apply => link.schema.as_ref(),
            Operation::Revert => {
                reverting = from.as_ref().zip(self.chain.schema_at(version - 1)).map(|(from, to)| from.change_to(&to));
                reverting.as_ref()
            }
        };
        let wanted = from.as_ref().zip(change).map(|(from, change)| Expected { from, change });
        self.live.set(Phase::Running { version, name: link.name.clone(), operation: self.operation });
        let crossing = if before.captured { Crossing::begin(file, self, self.operation, migration)? } else { None };
        let units = units(migration.migration(), self.operation, &file.schema)?;
        let chosen = self.policy.chosen(&units);
        let performed = perform(file, migration.migration(), &chosen, wanted, before, &mut |at| self.live.at(at))?;
        if let Some(crossing) = crossing {
            crossing.end(file, true, &performed.written)?;
        }
        *expected = from.zip(change).map(|(mut schema, change)| {
            schema.apply(change);
            schema
        });
        self.live.performed(version, performed.clone());
        tracing::debug!(migration.name = %link.name, performed.statements, performed.rows, "ran its steps");
        let verify_skipped = chosen.len() < units.len();
        let done = Done { changed: performed.rows, skipped: performed.skipped, failed: &performed.failed, verify_skipped, begun, started_ms: now_ms };
        self.complete(&file.connection, migration, row, expected.as_ref(), &done)?;
        if crashed {
            managed::count_crash(&file.connection, None)?;
        }
        self.advance(&file.connection, version)
    }

    /// The facts of a migration that is done: its row, its event, the rows it went on without.
    pub(super) fn complete(
        &self,
        connection: &Connection,
        migration: &VerifiedMigration,
        row: Option<&MigrationRow>,
        expected: Option<&Schema>,
        done: &Done<'_>,
    ) -> Result<(), ApplyError> {
        self.live.set(Phase::Committing);
        let link = migration.link();
        let version = link.version;
        let attempts = row.filter(|r| r.digest == migration.digest()).map_or(0, |r| r.attempts).max(1);
        let entry = Entry { name: link.name.clone(), version, revision: link.revision, digest: migration.digest() };
        let (kind, status) = match self.operation {
            Operation::Apply => (EventKind::Completed, Status::Completed),
            Operation::Revert => (EventKind::Reverted, Status::Reverted),
        };
        let ended_ms = self.ambient.now_ms();
        managed::put_migration(
            connection,
            &self.row(&entry, status, attempts, done.started_ms, (status == Status::Completed).then_some(ended_ms), None),
        )?;
        let mut event = self.event(&entry, kind, status, attempts, ended_ms);
        event.took_ms = Some(u64::try_from(done.begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        // Where the run ends. What lies between is passed through.
        event.fingerprint = expected.filter(|_| version == self.to).map(Schema::digest);
        event.verify_skipped = done.verify_skipped;
        // Before the event, which counts them.
        match self.operation {
            Operation::Apply => keep_failed(connection, migration, done.failed, ended_ms)?,
            Operation::Revert => checkpoint::forget_failed(connection, version)?,
        }
        let left = checkpoint::report_failed(connection, version, None, self.policy.report_values)?;
        event.rows = Some(RowReport { changed: done.changed, skipped: done.skipped, ..left }).filter(|rows| !rows.is_empty());
        Ok(managed::append_event(connection, &event)?)
    }

    /// What an online migration that stopped has done so far, and where it stands. What cannot be found out must not keep
    /// the stop from being recorded; but a read that failed may have ended the transaction, and then the record would stand
    /// alone.
    fn stands(&self, file: &mut Managed, version: u32) -> Result<Option<RowReport>, ApplyError> {
        match half_done(file, self.load) {
            Ok(found) => Ok(found.filter(|half| half.version == version && self.operation == Operation::Apply).map(|half| half.rows)),
            Err(_) if file.connection.is_autocommit() => Err(ApplyError::LostTransaction),
            Err(error) => {
                tracing::debug!(%error, "where the migration stands is not known");
                Ok(None)
            }
        }
    }

    /// Takes the intent from `version` to the next.
    pub(super) fn advance(&self, connection: &Connection, version: u32) -> Result<(), ApplyError> {
        let next = match self.operation {
            _ if version == self.to => None,
            Operation::Apply => Some(version + 1),
            Operation::Revert => Some(version - 1),
        };
        // Last: an intent that stands elsewhere undoes all of it.
        if managed::advance_intent(connection, self.operation, version, next)? { Ok(()) } else { Err(self.moved(connection)?) }
    }

    /// The chain's schema in front of `version`, going this job's way.
    pub(super) fn schema_before(&self, version: u32) -> Option<Schema> {
        match self.operation {
            Operation::Apply => self.chain.schema_at(version - 1),
            Operation::Revert => self.chain.schema_at(version),
        }
    }

    /// What happened to the intent that this run committed.
    fn moved(&self, connection: &Connection) -> Result<ApplyError, ApplyError> {
        Ok(ApplyError::Moved(match managed::intent(connection)? {
            Some(intent) => format!("it stands before version {}", intent.next),
            None => "the intent is gone".to_owned(),
        }))
    }

    /// `error`, unless `version` was not the one to run: somebody else moved the file on, and what it did there is no
    /// fault of the migration.
    fn or_moved(&self, file: &Managed, version: u32, error: ApplyError) -> ApplyError {
        match managed::intent(&file.connection) {
            Ok(Some(intent)) if intent.next == version && intent.operation == self.operation => error,
            Ok(_) => self.moved(&file.connection).unwrap_or(error),
            Err(_) => error,
        }
    }

    /// Which revision runs: the newest, or, reverting, the one that ran.
    pub(super) fn entry(&self, version: u32, row: Option<&MigrationRow>) -> Result<Entry, ApplyError> {
        let missing = || ApplyError::Trust(AcceptError::Missing { app: self.identity.app.clone(), version, revision: row.map_or(1, |r| r.revision) });
        let entry = match (self.operation, row) {
            (Operation::Revert, Some(row)) => self.chain.revisions(version).iter().find(|e| e.digest() == row.digest),
            (Operation::Apply | Operation::Revert, _) => self.chain.newest(version),
        }
        .ok_or_else(missing)?;
        Ok(Entry { name: entry.custom.name.clone(), version, revision: entry.custom.revision, digest: entry.digest() })
    }

    pub(super) fn row(
        &self,
        entry: &Entry,
        status: Status,
        attempts: u32,
        started: i64,
        completed: Option<i64>,
        failure: Option<Failure>,
    ) -> MigrationRow {
        MigrationRow {
            version: entry.version,
            revision: entry.revision,
            name: entry.name.clone(),
            digest: entry.digest,
            status,
            attempts,
            started_at_ms: Some(started),
            completed_at_ms: completed,
            failure,
        }
    }

    pub(super) fn event(&self, entry: &Entry, kind: EventKind, status: Status, attempt: u32, at_ms: i64) -> Event {
        Event {
            event_id: self.ambient.event_id(),
            client_id: self.identity.client_id,
            app: self.identity.app.clone(),
            kind,
            operation: self.operation,
            migration: entry.name.clone(),
            version: entry.version,
            revision: entry.revision,
            digest: entry.digest,
            status,
            attempt,
            by: self.by,
            at_ms,
            took_ms: None,
            failure: None,
            fingerprint: None,
            rows: None,
            verify_skipped: false,
        }
    }
}

/// What a migration that is done did.
pub(super) struct Done<'a> {
    /// Rows changed.
    pub(super) changed: u64,
    /// Rows that needed nothing.
    pub(super) skipped: u64,
    /// Rows that it went on without and that are not kept yet.
    pub(super) failed: &'a [(usize, FailedItem)],
    /// Whether `verify` steps were left out.
    pub(super) verify_skipped: bool,
    /// When this run began with it.
    pub(super) begun: Instant,
    /// When it was begun, in milliseconds since 1970.
    pub(super) started_ms: i64,
}

/// Keeps the rows that a migration went on without.
pub(super) fn keep_failed(
    connection: &Connection,
    migration: &VerifiedMigration,
    failed: &[(usize, FailedItem)],
    at_ms: i64,
) -> Result<(), ApplyError> {
    let link = migration.link();
    for (step, item) in failed {
        let (key, message, row) = (item.key.clone(), item.message.clone(), item.row.clone());
        let step = u32::try_from(*step).unwrap_or(u32::MAX);
        let row = FailedRow { version: link.version, step, item: key, code: item.code, message, row, at_ms };
        checkpoint::put_failed(connection, link.revision, &row)?;
    }
    Ok(())
}

/// Which bytes run, where.
pub(super) struct Entry {
    pub(super) name: MigrationName,
    pub(super) version: u32,
    pub(super) revision: u32,
    pub(super) digest: Digest,
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
