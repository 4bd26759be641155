//! mode = "online": schema steps in a transaction each, rows in short ones, and the file usable in between (DESIGN 8.6).
//! Everything that says how far it has come is in the transaction that went there, so it may be killed anywhere.
//!
//! An older build of the application may write rows behind a backfill's walk. Triggers note the keys it touches while
//! the walk lasts; they are looked at as the walk goes on, and the last of them in the transaction that ends the step.

use std::{collections::HashSet, time::Instant};

use rusqlite::config::DbConfig;
use whimbrel_shared::{
    fingerprint::{Schema, SchemaChange},
    manifest::Mode,
    status::{EventKind, Operation, Status},
    trust::VerifiedMigration,
};

use super::{
    apply::{Done, Job, Runner, keep_failed},
    connection::{JournalMode, Managed},
    error::{ApplyError, sqlite},
    foreign::Violations,
    gap::Gap,
    live::{Phase, Throttle},
    passage::Crossing,
    perform::{AtStep, Before, Expected, Performed, explain, judge, perform},
    rebuild::{self, Rebuilding},
    rows::{
        Chunk, FailedItem, Part, RowStep,
        catch_up::CatchUp,
        meter::Meter,
        size::Size,
        table::{Table, quote},
    },
    transaction::{Terms, write},
    units::{Unit, Work, units},
    wal::Wal,
};
use crate::{
    store::{
        checkpoint::{self, Checkpoint, Touched},
        managed,
    },
    sync::{across, fold::Boot},
};

/// Begin of the names of the triggers that note what the application touches. The unit's number follows.
const CATCH: &str = "_whimbrel_catch_";
/// SQLite's own.
const AUTOCHECKPOINT_PAGES: u32 = 1000;

impl Runner<'_, '_> {
    /// Runs what is left of an online migration. What was committed stays, whatever happens.
    pub(super) fn online(&mut self, migration: &VerifiedMigration) -> Result<(), ApplyError> {
        let version = migration.link().version;
        let mut at = self.take_up(migration)?;
        self.expected = self.job.chain.schema_within(version, migration.link().revision, at.schemas);
        self.file.schema.read(&self.file.connection).map_err(sqlite("reading the schema"))?;
        self.check_drift()?;
        self.before.violations = Some(self.violations_before(migration, &at)?);
        loop {
            if self.file.guard.halt().no_more() {
                return Err(ApplyError::Cancelled);
            }
            self.file.schema.read(&self.file.connection).map_err(sqlite("reading the schema"))?;
            let units = units(migration.migration(), Operation::Apply, &self.file.schema)?;
            let tail = units.iter().rposition(|u| !matches!(u.work, Work::Verify(_))).map_or(0, |last| last + 1);
            match units.get(at.unit as usize).filter(|_| (at.unit as usize) < tail) {
                None => return self.finish(migration, &units, tail, &at),
                Some(unit) => match unit.row_step(self.file, migration.migration())? {
                    Some(mut step) => self.rows(migration, &units, unit, &mut step, &mut at)?,
                    None => self.step(migration, &units, &mut at)?,
                },
            }
        }
    }

    fn check_drift(&self) -> Result<(), ApplyError> {
        let drift = self.expected.as_ref().map(|e| e.drift(self.file.schema.schema())).unwrap_or_default();
        if drift.is_empty() { Ok(()) } else { Err(ApplyError::Drift { drift }) }
    }

    /// Finds where an earlier run stopped, or begins.
    fn take_up(&mut self, migration: &VerifiedMigration) -> Result<Checkpoint, ApplyError> {
        let link = migration.link();
        let found = checkpoint::checkpoint(&self.file.connection)?;
        if let Some(at) = found {
            if at.version != link.version {
                return Err(ApplyError::Moved(format!("version {} is half done", at.version)));
            }
            if at.digest == migration.digest() {
                return Ok(at);
            }
            if self.continues(migration, &at)? {
                return self.go_on(migration, at);
            }
            self.undo(&at)?;
        }
        let (job, now_ms) = (self.job, self.job.ambient.now_ms());
        let at = Checkpoint {
            version: link.version,
            revision: link.revision,
            digest: migration.digest(),
            unit: 0,
            schemas: 0,
            position: None,
            examined: 0,
            total: 0,
            changed: 0,
            skipped: 0,
            failed: 0,
            started_at_ms: now_ms,
            verify_skipped: false,
        };
        let row = self.history.get(&link.version).cloned();
        let ((), held) = write(self.file, self.terms(None), |file| {
            // The first of a run was begun with the intent.
            if link.version != job.from {
                let entry = job.entry(link.version, row.as_ref())?;
                let attempts = row.as_ref().map_or(0, |r| r.attempts) + 1;
                managed::put_migration(&file.connection, &job.row(&entry, Status::Running, attempts, now_ms, None, None))?;
                managed::append_event(&file.connection, &job.event(&entry, EventKind::Started, Status::Running, attempts, now_ms))?;
            }
            checkpoint::forget_failed(&file.connection, link.version)?;
            Ok(checkpoint::put_checkpoint(&file.connection, &at)?)
        })?;
        self.gap.leave(self.file, held)?;
        Ok(at)
    }

    /// Takes over what another revision began. Where the step that stopped is another one now, what was noted and left for
    /// it belongs to rows that nobody asks for any more, perhaps of another table.
    fn go_on(&mut self, migration: &VerifiedMigration, mut at: Checkpoint) -> Result<Checkpoint, ApplyError> {
        let link = migration.link();
        let known = units(migration.migration(), Operation::Apply, &self.file.schema)?;
        let same = migration.migration().manifest.continues_after.unwrap_or(0);
        let replaced = known.get(at.unit as usize).is_none_or(|unit| unit.step > same as usize);
        (at.revision, at.digest) = (link.revision, migration.digest());
        if replaced {
            (at.position, at.examined, at.total) = (None, 0, 0);
        }
        let (at, held) = write(self.file, self.terms(None), |file| {
            let mut at = at.clone();
            if replaced {
                drop_catches(file, Some(at.unit))?;
                rebuild::take_away(file, None)?;
                let left = checkpoint::forget_failed_after(&file.connection, link.version, same)?;
                at.failed = at.failed.saturating_sub(left);
            }
            checkpoint::put_checkpoint(&file.connection, &at)?;
            file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
            Ok(at)
        })?;
        self.gap.leave(self.file, held)?;
        Ok(at)
    }

    /// Whether this revision goes on where another one stopped.
    fn continues(&self, migration: &VerifiedMigration, at: &Checkpoint) -> Result<bool, ApplyError> {
        let Some(after) = migration.migration().manifest.continues_after else { return Ok(false) };
        let known = units(migration.migration(), Operation::Apply, &self.file.schema)?;
        let equal = known.iter().filter(|unit| unit.step <= after as usize).count();
        if at.unit as usize <= equal {
            return Ok(true);
        }
        let why = format!("revision {} continues after step {after}, and revision {} got further here", migration.link().revision, at.revision);
        Err(ApplyError::BadStep { place: migration.link().name.to_string(), why })
    }

    /// Takes back what a run left half-way, where this one does not go on with it: a revision that is one transaction
    /// mends it, or the chain goes down.
    pub(super) fn take_back(&mut self, version: u32) -> Result<(), ApplyError> {
        let Some(at) = checkpoint::checkpoint(&self.file.connection)? else { return Ok(()) };
        let goes_on = match self.job.operation {
            Operation::Revert => false,
            Operation::Apply => {
                let newest = (self.job.load)(version, self.job.entry(version, None)?.revision)?;
                at.version != version || newest.migration().manifest.mode == Mode::Online
            }
        };
        if goes_on { Ok(()) } else { self.undo(&at) }
    }

    /// Takes back what another revision began, by its own way down, which is valid from each of its steps. Where the chain
    /// goes down, that is a revert of its own, with its event.
    fn undo(&mut self, at: &Checkpoint) -> Result<(), ApplyError> {
        let job = self.job;
        let old = (job.load)(at.version, at.revision)?;
        // Nothing of it is to be seen yet: there is nothing to take back, and its way down would fail for that.
        let first = units(old.migration(), Operation::Apply, &self.file.schema)?.into_iter().next();
        let beside = first.is_some_and(|unit| matches!(unit.work, Work::Rebuild(_)));
        let touched = at.unit > 0 || at.position.is_some() && !beside;
        let down = if touched { units(old.migration(), Operation::Revert, &self.file.schema)? } else { Vec::new() };
        let (from, to) = (job.chain.schema_within(at.version, at.revision, at.schemas), job.chain.schema_at(at.version - 1));
        let change = from.as_ref().zip(to.as_ref()).map(|(from, to)| from.change_to(to));
        let (before, begun, row) = (self.before.clone(), Instant::now(), self.history.get(&at.version).cloned());
        self.file.schema.read(&self.file.connection).map_err(sqlite("reading the schema"))?;
        job.live.set(Phase::Running { version: at.version, name: old.link().name.clone(), operation: Operation::Revert });
        let ((), held) = write(self.file, self.terms(Some(&old)), |file| {
            drop_catches(file, None)?;
            rebuild::take_away(file, None)?;
            file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
            let expected = from.as_ref().zip(change.as_ref()).map(|(from, change)| Expected { from, change });
            let crossing = if before.captured { Crossing::begin(file, job, Operation::Revert, &old)? } else { None };
            let performed = perform(file, old.migration(), &down, expected, &before, &mut |step: AtStep| job.live.at(step))?;
            if let Some(crossing) = crossing {
                crossing.end(file, true, &performed.written)?;
            }
            checkpoint::forget_failed(&file.connection, at.version)?;
            checkpoint::clear_checkpoint(&file.connection)?;
            if job.operation == Operation::Revert {
                let done = Done { changed: 0, skipped: 0, failed: &[], verify_skipped: false, begun, started_ms: job.ambient.now_ms() };
                job.complete(&file.connection, &old, row.as_ref(), to.as_ref(), &done)?;
                if at.version == job.from {
                    job.advance(&file.connection, at.version)?;
                }
            }
            Ok(())
        })?;
        if job.operation == Operation::Revert && at.version == job.from {
            self.expected = to;
            return self.committed(&[at.version], held);
        }
        self.gap.leave(self.file, held).map(|_| ())
    }

    /// Violations that were there before this migration emptied a table. Backfilled and loaded rows are judged one by one.
    fn violations_before(&self, migration: &VerifiedMigration, at: &Checkpoint) -> Result<Violations, ApplyError> {
        let units = units(migration.migration(), Operation::Apply, &self.file.schema)?;
        let cleared: Vec<String> = cleared(&units);
        let begun = units.iter().take(at.unit as usize + 1).any(|u| matches!(u.work, Work::Clear(_)));
        if cleared.is_empty() || begun {
            return Ok(Violations::default());
        }
        let children = self.file.schema.children_of(&|_| false, &|table| cleared.iter().any(|c| c == table));
        let read = Violations::read(&self.file.connection, &self.file.schema, Some(&children));
        read.map(|(found, _)| found).map_err(sqlite("checking foreign keys"))
    }

    /// A `sql` or `verify` step in a transaction of its own.
    fn step(&mut self, migration: &VerifiedMigration, all: &[Unit], at: &mut Checkpoint) -> Result<(), ApplyError> {
        let (job, link) = (self.job, migration.link());
        let unit = &all[at.unit as usize];
        let schema_step = unit.changes_schema();
        let nothing = SchemaChange::default();
        let change = if schema_step { link.steps.get(at.schemas as usize) } else { Some(&nothing) };
        let (from, before, crashed) = (self.expected.take(), self.before.clone(), self.crashed);
        let chosen = job.policy.chosen(std::slice::from_ref(unit));
        let next = Checkpoint {
            unit: at.unit + 1,
            schemas: at.schemas + u32::from(schema_step),
            position: None,
            examined: 0,
            total: 0,
            verify_skipped: at.verify_skipped || chosen.is_empty(),
            ..at.clone()
        };
        job.live.set(Phase::Waiting);
        let (next, held) = write(self.file, self.terms(Some(migration)), |file| {
            job.live.set(Phase::Running { version: link.version, name: link.name.clone(), operation: Operation::Apply });
            let failed = last_touched(file, migration, all, at, noting(job, &before))?;
            drop_catches(file, None)?;
            let expected = from.as_ref().zip(change).map(|(from, change)| Expected { from, change });
            let crossing = if before.captured && schema_step { Crossing::begin(file, job, Operation::Apply, migration)? } else { None };
            let performed = perform(file, migration.migration(), &chosen, expected, &before, &mut |step: AtStep| job.live.at(step))?;
            if let Some(crossing) = crossing {
                crossing.end(file, false, &performed.written)?;
            }
            keep_failed(&file.connection, migration, &failed, job.ambient.now_ms())?;
            if crashed {
                managed::count_crash(&file.connection, None)?;
            }
            let next = Checkpoint { changed: next.changed + performed.rows, failed: next.failed + failed.len() as u64, ..next.clone() };
            checkpoint::put_checkpoint(&file.connection, &next)?;
            Ok(next)
        })?;
        *at = next;
        self.crashed = false;
        self.expected = from.zip(change).map(|(mut schema, change)| {
            schema.apply(change);
            schema
        });
        self.gap.leave(self.file, held).map(|_| ())
    }

    /// A row step, from where it stands to its end.
    fn rows(&mut self, migration: &VerifiedMigration, all: &[Unit], unit: &Unit, step: &mut RowStep, at: &mut Checkpoint) -> Result<(), ApplyError> {
        let table = step.table().clone();
        if at.position.is_none() {
            at.total = step.total(self.file);
            at.examined = 0;
            let ((), held) = write(self.file, self.terms(None), |file| {
                match step {
                    RowStep::Backfill(_) => catch(file, &table, at.unit)?,
                    RowStep::Rebuild(rebuilding) => {
                        // Keys that were noted for an earlier try of this unit have no image to be missing.
                        checkpoint::forget_touched(&file.connection, at.unit, i64::MAX, true)?;
                        rebuilding.begin(file, unit.step, Some(at.unit))?;
                    }
                    RowStep::Clear(_) | RowStep::Load(_) => {}
                }
                checkpoint::put_checkpoint(&file.connection, at)?;
                // What we made is not news when the rows are gone through.
                file.schema.read(&file.connection).map(|_| ()).map_err(sqlite("reading the schema"))
            })?;
            self.gap.leave(self.file, held)?;
        }
        // The application's own triggers fire; where it has none, none has to be looked for.
        // Where rows are exchanged, what else is written than what a backfill computes is recorded by what our triggers note.
        let noted = self.before.captured && matches!(unit.work, Work::Load(_) | Work::Clear(_));
        let fire = noted || has_own_triggers(self.file, &table)?;
        switch(self.file, fire, true)?;
        let walked = self.walk(migration, unit, step, at, fire);
        switch(self.file, true, false)?;
        self.job.live.rows(None);
        walked?;
        if let RowStep::Rebuild(rebuilding) = step {
            return self.swap(migration, all, rebuilding, at);
        }
        at.unit += 1;
        (at.position, at.examined, at.total) = (None, 0, 0);
        let ((), held) = write(self.file, self.terms(None), |file| {
            if matches!(unit.work, Work::Discard(_)) {
                drop_catches(file, Some(at.unit - 1))?;
                rebuild::take_away(file, Some(unit.step))?;
                file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
            }
            Ok(checkpoint::put_checkpoint(&file.connection, at)?)
        })?;
        self.gap.leave(self.file, held).map(|_| ())
    }

    /// The transaction in which a rebuilt table takes its place: what the application touched last, the names, the checks.
    fn swap(&mut self, migration: &VerifiedMigration, all: &[Unit], rebuilding: &mut Rebuilding, at: &mut Checkpoint) -> Result<(), ApplyError> {
        let (job, link, timeout) = (self.job, migration.link(), migration.migration().manifest.timeout.get());
        let number = all[at.unit as usize].step;
        let change = link.steps.get(at.schemas as usize);
        let (from, before, crashed) = (self.expected.take(), self.before.clone(), self.crashed);
        let next = Checkpoint { unit: at.unit + 1, schemas: at.schemas + 1, position: None, examined: 0, total: 0, ..at.clone() };
        let (next, held) = write(self.file, self.terms(None), |file| {
            if file.schema.read(&file.connection).map_err(sqlite("reading the schema"))? != Default::default() {
                return Err(ApplyError::Moved("the schema changed while rows were gone through".to_owned()));
            }
            let failed = last_touched(file, migration, all, at, noting(job, &before))?;
            let keys = checkpoint::touched(&file.connection, at.unit, rebuilding.table().key.len(), u32::MAX)?.keys;
            let on = file.guard.on(timeout, false);
            file.guard.lend(rebuilding.lent());
            let ran = rebuilding.touched(file, &keys);
            let stopped = file.guard.stopped();
            drop(on);
            ran.map_err(|error| explain(error, stopped, timeout))?;
            drop_catches(file, None)?;
            let crossing = match (&all[at.unit as usize].work, before.captured) {
                (Work::Rebuild(step), true) => {
                    let crossing = Crossing::begin(file, job, Operation::Apply, migration)?;
                    let stay = crossing.as_ref().map(|c| c.values_stay(file, step, &rebuilding.shape.side)).transpose()?;
                    crossing.zip(stay).map(|(crossing, stay)| (crossing, step, stay))
                }
                _ => None,
            };
            let touched = rebuilding.swap(file)?;
            rebuilding.watch_aside(file, next.unit)?;
            let expected = from.as_ref().zip(change).map(|(from, change)| Expected { from, change });
            judge(file, expected, &before, &touched, true)?;
            if let Some((crossing, step, stay)) = crossing {
                crossing.swapped(file, &step.table, stay)?;
            }
            keep_failed(&file.connection, migration, &failed, job.ambient.now_ms())?;
            if crashed {
                managed::count_crash(&file.connection, None)?;
            }
            let next = Checkpoint { failed: next.failed + failed.len() as u64, ..next.clone() };
            checkpoint::put_checkpoint(&file.connection, &next)?;
            Ok(next)
        })?;
        tracing::debug!(step = number, held_us = held.as_micros(), "a rebuilt table took its place");
        *at = next;
        self.crashed = false;
        self.expected = from.zip(change).map(|(mut schema, change)| {
            schema.apply(change);
            schema
        });
        self.gap.leave(self.file, held).map(|_| ())
    }

    fn walk(&mut self, migration: &VerifiedMigration, unit: &Unit, step: &mut RowStep, at: &mut Checkpoint, fire: bool) -> Result<(), ApplyError> {
        let (job, link) = (self.job, migration.link());
        let (timeout, number) = (migration.migration().manifest.timeout.get(), unit.step);
        let catches = unit.catches();
        let batch = match &unit.work {
            Work::Backfill(step) => step.batch,
            Work::Load(step) | Work::Clear(step) => step.batch,
            Work::Rebuild(step) | Work::Discard(step) => step.batch,
            Work::Sql(_) | Work::Verify(_) => None,
        };
        let mut failed: HashSet<String> = checkpoint::failed_keys(&self.file.connection, link.version, u32::try_from(number).unwrap_or(u32::MAX))?;
        // Rows are judged as they change, so that none that was wrong before is blamed. Emptying is judged at the end, and
        // copies by themselves.
        let terms = Terms { foreign_keys: matches!(unit.work, Work::Backfill(_) | Work::Load(_)), ..self.terms(None) };
        let mut size = Size::new(batch);
        let mut pace = Gap::for_chunks();
        let mut wal = Wal::new(self.file)?;
        let mut meter = Meter::from(Instant::now());
        let mut catch_up = CatchUp::new(migration.migration().manifest.max_lock.get());
        let mut walking = true;
        job.live.set(Phase::Running { version: link.version, name: link.name.clone(), operation: Operation::Apply });
        job.live.at(AtStep { step: number, steps: migration.migration().steps().len(), statement: 1 });
        loop {
            if self.file.guard.halt().no_more() {
                return Err(ApplyError::Cancelled);
            }
            let noting = noting(job, &self.before).filter(|_| fire);
            let (crashed, unit_number, asked) = (self.crashed, at.unit, catch_up.ask(&size));
            let ((chunk, next, left, work), held) = write(self.file, terms, |file| {
                let begun = Instant::now();
                if file.schema.read(&file.connection).map_err(sqlite("reading the schema"))? != Default::default() {
                    return Err(ApplyError::Moved("the schema changed while rows were gone through".to_owned()));
                }
                let mark = if catches && fire { checkpoint::last_touched(&file.connection)? } else { 0 };
                let touched = match walking {
                    true => Touched::default(),
                    false => checkpoint::touched(&file.connection, unit_number, step.table().key.len(), asked)?,
                };
                let noted = noted(file, noting.as_ref())?;
                let on = file.guard.on(timeout, false);
                file.guard.lend(step.lent());
                let part = Part { position: at.position.as_deref(), rows: size.rows(), failed: &failed };
                let ran = match (walking, &mut *step) {
                    (false, RowStep::Backfill(step)) => step.touched(file, &touched.keys, &part),
                    (false, RowStep::Rebuild(step)) => step.touched(file, &touched.keys),
                    (_, step) => step.chunk(file, &part),
                };
                let stopped = file.guard.stopped();
                drop(on);
                let chunk = ran.map_err(|error| explain(error, stopped, timeout))?;
                noted.map_or(Ok(()), |noted| noted.end(&file.connection))?;
                if catches && fire {
                    checkpoint::forget_touched(&file.connection, unit_number, mark, false)?;
                }
                if !walking {
                    checkpoint::forget_touched(&file.connection, unit_number, touched.last, true)?;
                }
                keep_failed(&file.connection, migration, &numbered(number, &chunk), job.ambient.now_ms())?;
                let next = after(at, &chunk, walking);
                checkpoint::put_checkpoint(&file.connection, &next)?;
                if crashed {
                    managed::count_crash(&file.connection, None)?;
                }
                Ok((chunk, next, touched.left, begun.elapsed()))
            })?;
            let synced = wal.sync(self.file)?;
            *at = next;
            self.crashed = false;
            size.took(chunk.examined, work, held.saturating_sub(work) + synced);
            failed.extend(chunk.failed.iter().map(|item| item.key.clone()));
            meter.saw(chunk.examined);
            let throttle = pace.leave(self.file, held)?.then_some(Throttle::App);
            let throttle = wal.keep_small(self.file, || job.live.rows(Some(meter.rows(step.table(), at, Some(Throttle::Wal)))))?.or(throttle);
            let over = if walking { chunk.end } else { catch_up.is_over(asked, chunk.examined, left, Instant::now()) };
            let throttle = if catch_up.is_behind() { Some(Throttle::Touched) } else { throttle };
            job.live.rows(Some(meter.rows(step.table(), at, throttle)));
            if over && walking && catches {
                walking = false;
            } else if over {
                break;
            }
        }
        Ok(())
    }

    /// The last transaction: what the application touched last, the last checks, and the facts.
    fn finish(&mut self, migration: &VerifiedMigration, all: &[Unit], tail: usize, at: &Checkpoint) -> Result<(), ApplyError> {
        let (job, link) = (self.job, migration.link());
        let row = self.history.get(&link.version).cloned();
        let (before, crashed, begun) = (self.before.clone(), self.crashed, Instant::now());
        let (from, wanted) = (self.expected.take(), job.chain.schema_at(link.version));
        let cleared = cleared(all);
        let chosen = job.policy.chosen(&all[tail..]);
        let verify_skipped = at.verify_skipped || chosen.len() < all.len() - tail;
        job.live.set(Phase::Waiting);
        let ((), held) = write(self.file, self.terms(Some(migration)), |file| {
            job.live.set(Phase::Running { version: link.version, name: link.name.clone(), operation: Operation::Apply });
            let failed = last_touched(file, migration, all, at, noting(job, &before))?;
            drop_catches(file, None)?;
            let nothing = SchemaChange::default();
            let expected = from.as_ref().map(|from| Expected { from, change: &nothing });
            let crossing = if before.captured { Crossing::begin(file, job, Operation::Apply, migration)? } else { None };
            let performed = perform(file, migration.migration(), &chosen, expected, &before, &mut |step: AtStep| job.live.at(step))?;
            if let Some(crossing) = crossing {
                crossing.end(file, true, &performed.written)?;
            }
            check_cleared(file, &cleared, before.violations.as_ref())?;
            let drift = wanted.as_ref().map(|wanted: &Schema| wanted.drift(file.schema.schema())).unwrap_or_default();
            if !drift.is_empty() {
                return Err(ApplyError::WrongSchema { drift });
            }
            let (changed, skipped, started_ms) = (at.changed, at.skipped, at.started_at_ms);
            let done = Done { changed, skipped, failed: &failed, verify_skipped, begun, started_ms };
            job.complete(&file.connection, migration, row.as_ref(), wanted.as_ref(), &done)?;
            checkpoint::clear_checkpoint(&file.connection)?;
            if crashed {
                managed::count_crash(&file.connection, None)?;
            }
            job.advance(&file.connection, link.version)
        })?;
        job.live.performed(link.version, Performed { rows: at.changed, ..Performed::default() });
        self.expected = wanted;
        self.committed(&[link.version], held)
    }
}

/// Sets up the connection for chunks, whose log [`Wal`] looks after, or back.
fn switch(file: &Managed, triggers: bool, chunks: bool) -> Result<(), ApplyError> {
    let set = |name: &str, value: &dyn rusqlite::ToSql| file.connection.pragma_update(None, name, value);
    file.connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, triggers)
        .and_then(|_| set("wal_autocheckpoint", if chunks { &0 } else { &AUTOCHECKPOINT_PAGES }))
        .and_then(|()| match file.journal_mode {
            JournalMode::Wal => set("synchronous", if chunks { &"NORMAL" } else { &"FULL" }),
            JournalMode::Rollback => Ok(()),
        })
        .map_err(sqlite("setting up the connection"))
}

/// The checkpoint after a chunk.
fn after(at: &Checkpoint, chunk: &Chunk, walking: bool) -> Checkpoint {
    Checkpoint {
        position: if walking { Some(chunk.position.clone()) } else { at.position.clone() },
        examined: at.examined + if walking { chunk.examined } else { 0 },
        changed: at.changed + chunk.changed,
        skipped: at.skipped + if walking { chunk.skipped } else { 0 },
        failed: at.failed + chunk.failed.len() as u64,
        ..at.clone()
    }
}

fn numbered(step: usize, chunk: &Chunk) -> Vec<(usize, FailedItem)> {
    chunk.failed.iter().map(|item| (step, item.clone())).collect()
}

/// Tables that the migration empties, in lower case.
fn cleared(units: &[Unit]) -> Vec<String> {
    let clear = |unit: &Unit| match &unit.work {
        Work::Clear(load) => Some(load.into.to_ascii_lowercase()),
        _ => None,
    };
    units.iter().filter_map(clear).collect()
}

/// Whether rows refer to rows that were in an emptied table and did not come back.
fn check_cleared(file: &Managed, cleared: &[String], before: Option<&Violations>) -> Result<(), ApplyError> {
    if cleared.is_empty() {
        return Ok(());
    }
    let children = file.schema.children_of(&|_| false, &|table| cleared.iter().any(|c| c == table));
    let (_, found) = Violations::read(&file.connection, &file.schema, Some(&children)).map_err(sqlite("checking foreign keys"))?;
    let new = before.cloned().unwrap_or_default().new_in(found);
    if new.is_empty() {
        return Ok(());
    }
    Err(ApplyError::NewViolations { total: new.len(), rows: new.into_iter().take(super::error::NAMED + 1).map(|v| v.0).collect() })
}

// ---- what the application touches meanwhile ---------------------------------------------------------------------------

/// Notes the keys of rows that anybody inserts or updates from now on. Plain grammar: the application's library reads it.
fn catch(file: &Managed, table: &Table, unit: u32) -> Result<(), ApplyError> {
    let columns: Vec<String> = (1..=table.key.len()).map(|n| format!("k{n}")).collect();
    let values: Vec<String> = table.key.iter().map(|column| format!("NEW.{column}")).collect();
    let name = quote(&table.name);
    for event in ["INSERT", "UPDATE"] {
        // It is there when a run died before its first chunk.
        let sql = format!(
            "DROP TRIGGER IF EXISTS main._whimbrel_catch_{unit}_{0};
             CREATE TRIGGER main._whimbrel_catch_{unit}_{0} AFTER {event} ON {name} BEGIN
               INSERT INTO _whimbrel_touched (unit, {1}) VALUES ({unit}, {2}); END",
            event.to_ascii_lowercase(),
            columns.join(", "),
            values.join(", ")
        );
        file.connection.execute_batch(&sql).map_err(sqlite("watching what the application touches"))?;
    }
    Ok(())
}

/// Looks at what the application touched last behind the backfills that no schema step has followed yet. Inside the open
/// transaction; the caller stops watching.
fn last_touched(
    file: &mut Managed,
    migration: &VerifiedMigration,
    all: &[Unit],
    at: &Checkpoint,
    noting: Option<(Boot, i64)>,
) -> Result<Vec<(usize, FailedItem)>, ApplyError> {
    let mut left = Vec::new();
    let noted = noted(file, noting.as_ref())?;
    let timeout = migration.migration().manifest.timeout.get();
    let done = &all[..at.unit as usize];
    let open = done.iter().rposition(Unit::changes_schema).map_or(0, |schema| schema + 1);
    for (number, unit) in done.iter().enumerate().skip(open) {
        if !matches!(unit.work, Work::Backfill(_)) {
            continue;
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let Some(RowStep::Backfill(mut step)) = unit.row_step(file, migration.migration())? else { continue };
        let version = migration.link().version;
        let failed = checkpoint::failed_keys(&file.connection, version, u32::try_from(unit.step).unwrap_or(u32::MAX))?;
        let keys = checkpoint::touched(&file.connection, number, step.table.key.len(), u32::MAX)?.keys;
        let on = file.guard.on(timeout, false);
        let ran = step.touched(file, &keys, &Part { position: None, rows: 0, failed: &failed });
        let stopped = file.guard.stopped();
        drop(on);
        let chunk = ran.map_err(|error| explain(error, stopped, timeout))?;
        left.extend(numbered(unit.step, &chunk));
    }
    noted.map_or(Ok(()), |noted| noted.end(&file.connection))?;
    Ok(left)
}

/// Stops watching for one unit, or for all, and forgets what was noted for it.
fn drop_catches(file: &mut Managed, unit: Option<u32>) -> Result<(), ApplyError> {
    let doing = "no longer watching what the application touches";
    let prefix = unit.map_or_else(|| CATCH.to_owned(), |unit| format!("{CATCH}{unit}_"));
    let names: Vec<String> = file
        .connection
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1")
        .and_then(|mut s| s.query_map([&prefix], |row| row.get(0))?.collect())
        .map_err(sqlite(doing))?;
    for name in names {
        file.connection.execute_batch(&format!("DROP TRIGGER main.{}", quote(&name))).map_err(sqlite(doing))?;
    }
    file.connection.execute("DELETE FROM main._whimbrel_touched WHERE ?1 IS NULL OR unit = ?1", [unit]).map_err(sqlite(doing))?;
    file.schema.read(&file.connection).map(|_| ()).map_err(sqlite("reading the schema"))
}

/// When it is, where what is written has to be told from what the application writes.
fn noting(job: &Job<'_>, before: &Before) -> Option<(Boot, i64)> {
    before.captured.then(|| (job.ambient.boot(), job.ambient.now_ms()))
}

/// From here on our triggers note what we write.
fn noted(file: &Managed, noting: Option<&(Boot, i64)>) -> Result<Option<across::Chunk>, ApplyError> {
    let begin = |(boot, now_ms): &(Boot, i64)| across::Chunk::begin(&file.connection, boot, *now_ms);
    Ok(noting.map(begin).transpose()?.flatten())
}

fn has_own_triggers(file: &Managed, table: &Table) -> Result<bool, ApplyError> {
    file.connection
        .query_row(
            "SELECT count(*) FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND name NOT LIKE '\\_whimbrel\\_%' ESCAPE '\\'",
            [&table.name],
            |row| row.get::<_, i64>(0),
        )
        .map(|n| n > 0)
        .map_err(sqlite("looking for triggers"))
}

#[cfg(test)]
#[path = "online_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rebuild/tests.rs"]
mod rebuild_tests;

#[cfg(test)]
#[path = "rebuild/back_tests.rs"]
mod rebuild_back_tests;
