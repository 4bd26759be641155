//! Rows that a collecting step left: shown, and tried again alone when a person says so (seeds 000 and 002).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::atomic::Ordering,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    protocol::state::{HealthItem, Severity},
    remedy::{here, wait},
    rows::RowReport,
    status::{AskedBy, Event, EventKind, FailureClass, Operation},
    trust::VerifiedMigration,
};

use super::{
    apply::keep_failed,
    connection::{Managed, Missing},
    error::{ApplyError, sqlite},
    files::LockFile,
    gap::Gap,
    gate::item,
    halt::Halt,
    live::{Phase, Rows},
    perform::explain,
    rows::{Chunk, Part, RowStep, records::Record, size::Size, table},
    transaction::{Terms, write},
    units::{Work, units},
    work::{self, LOOK_PATIENCE, Looked, Shared, Site},
};
use crate::{
    store::{
        checkpoint::{self, FailedRow},
        managed::{self, MigrationRow},
    },
    trust,
};

/// What begins the codes of everything that stands in the way of rows that are tried again.
pub const CODES: &str = "items_";

/// What became of rows that were tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// Rows that were tried.
    pub tried: u64,
    /// Those that are done now.
    pub done: u64,
    /// Rows that are left, tried or not.
    pub left: u64,
}

/// Rows that were left, oldest version first, at most `most`, and how many there are. Changes nothing.
pub fn failed(shared: &Shared, site: &Site, most: u32) -> Result<(Vec<FailedRow>, u64), ApplyError> {
    let file = Managed::open(&site.path, Missing::Refuse, LOOK_PATIENCE, shared.halt.clone())?;
    Ok(checkpoint::failed_rows(&file.connection, most)?)
}

/// Tries them again, in short transactions with gaps between. Rows that are done leave the list, the others stay in it with
/// what SQLite says now; each step's event is in the transaction of its last rows. What was committed stays, whatever
/// happens after it, and the application is let in between.
pub fn retry(shared: &Shared, site: &Site, looked: &Looked) -> (Retried, Vec<HealthItem>) {
    let (mut retried, mut health) = (Retried::default(), Vec::new());
    if let Err(error) = try_retry(shared, site, looked, &mut retried, &mut health) {
        health.push(in_the_way(&error));
    }
    site.live.rows(None);
    site.live.set(Phase::Idle);
    if retried.left > 0 && retried.tried > 0 {
        let message = format!("{} rows are still left out", retried.left);
        let remedy = here("`whimbrel history --failed-items` says why; correct them and try again");
        health.push(item("items_left", Severity::Warning, message, remedy));
    }
    (retried, health)
}

fn in_the_way(error: &ApplyError) -> HealthItem {
    let severity = if error.class() == FailureClass::Transient { Severity::Warning } else { Severity::Error };
    let remedy = if error.class() == FailureClass::Transient { here("run `whimbrel retry --failed-items` again") } else { error.remedy() };
    item("items_failed", severity, error.to_string(), remedy)
}

fn try_retry(shared: &Shared, site: &Site, looked: &Looked, retried: &mut Retried, health: &mut Vec<HealthItem>) -> Result<(), ApplyError> {
    let patience = shared.policy.wait_for_app;
    site.live.hold.store(false, Ordering::Relaxed);
    // After the switch was reset: a hold that came meanwhile counts.
    if shared.store().holds(shared.ambient.now_ms())?.contains_key(&looked.identity.client_id) {
        let remedy = here("`whimbrel release` ends the hold; then try again");
        health.push(item("items_held", Severity::Warning, "a person holds this database: its rows were not tried", remedy));
        return Ok(());
    }
    let halt = Halt { hold: site.live.hold.clone(), ..shared.halt.clone() };
    let _lock = LockFile::hold(&site.path, patience, &halt)?;
    let mut file = Managed::open(&site.path, Missing::Refuse, patience, halt)?;
    site.live.watch(file.patience.clone());
    let under_way = checkpoint::checkpoint(&file.connection)?.map(|at| at.version);
    let history = managed::history(&file.connection)?;
    let mut gap = Gap::for_chunks();
    for (version, revision, step, rows) in checkpoint::failed_steps(&file.connection)? {
        retried.left += rows;
        let row = history.get(&version).filter(|row| row.status.is_in_place());
        let Some(row) = row.filter(|_| under_way != Some(version)) else {
            let message = format!("version {version} is not in place yet: the {rows} rows that it left were not tried");
            health.push(item("items_under_way", Severity::Warning, message, wait("they can be tried when it is completed")));
            continue;
        };
        let left = Left { shared, site, looked, row, version, revision, step, rows };
        match left.retry(&mut file, &mut gap, retried) {
            Ok(()) => {}
            // The other steps' rows may fare better: a table may be gone, a busy file is busy for all.
            Err(error) if error.class() == FailureClass::Permanent => health.push(in_the_way(&error)),
            Err(error) => return Err(error),
        }
    }
    work::copy_events(shared, site, &file, &looked.identity)
}

/// What one step left.
struct Left<'a> {
    shared: &'a Shared,
    site: &'a Site,
    looked: &'a Looked,
    row: &'a MigrationRow,
    version: u32,
    revision: u32,
    step: u32,
    rows: u64,
}

impl Left<'_> {
    fn retry(&self, file: &mut Managed, gap: &mut Gap, retried: &mut Retried) -> Result<(), ApplyError> {
        let migration = trust::load(&self.shared.store(), &self.site.rule.app, self.version, self.revision)?;
        file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
        let mut step = self.ready(file, &migration)?;
        let live = &self.site.live;
        live.set(Phase::Running { version: self.version, name: self.row.name.clone(), operation: Operation::Apply });

        let (begun, began_ms) = (Instant::now(), self.shared.ambient.now_ms());
        let (mut size, mut after, mut done, mut tried) = (Size::new(None), None::<String>, 0u64, 0u64);
        loop {
            let names = checkpoint::failed_after(&file.connection, (self.version, self.revision, self.step), after.as_deref(), size.rows())?;
            let Some(last) = names.last().cloned() else { return Ok(()) };
            let more = checkpoint::failed_after(&file.connection, (self.version, self.revision, self.step), Some(&last), 1)?;
            let batch = Batch::read(&step, &names)?;
            let terms = Terms { foreign_keys: true, ..Terms::ours(self.shared.policy.wait_for_app) };
            let ((still, work), held) = write(file, terms, |file| {
                let working = Instant::now();
                let chunk = self.run(file, &mut step, &batch, &migration)?;
                let still: HashSet<&str> = chunk.failed.iter().map(|item| item.key.as_str()).collect();
                for name in names.iter().filter(|name| !still.contains(name.as_str())) {
                    checkpoint::forget_failed_row(&file.connection, self.version, self.step, name)?;
                }
                let numbered: Vec<_> = chunk.failed.iter().map(|item| (self.step as usize, item.clone())).collect();
                keep_failed(&file.connection, &migration, &numbered, began_ms)?;
                if more.is_empty() {
                    let now_done = done + (names.len() - still.len()) as u64;
                    managed::append_event(&file.connection, &self.event(file, now_done, begun)?)?;
                }
                Ok((still.len() as u64, working.elapsed()))
            })?;
            let rows = names.len() as u64;
            (tried, done, after) = (tried + rows, done + rows - still, Some(last));
            retried.tried += rows;
            retried.done += rows - still;
            retried.left -= rows - still;
            size.took(rows, work, held.saturating_sub(work));
            let (table, total) = (step.table().name.clone(), self.rows.max(tried));
            live.rows(Some(Rows { table, done: tried, total, changed: done, failed: tried - done, ..Rows::default() }));
            gap.leave(file, held)?;
            if more.is_empty() {
                return Ok(());
            }
        }
    }

    /// The step, as it is on the file now.
    fn ready(&self, file: &Managed, migration: &VerifiedMigration) -> Result<RowStep, ApplyError> {
        let units = units(migration.migration(), Operation::Apply, &file.schema)?;
        let own = |work: &Work| matches!(work, Work::Backfill(_) | Work::Load(_));
        let unit = units.iter().find(|unit| unit.step == self.step as usize && own(&unit.work));
        let step = unit.map(|unit| unit.row_step(file, migration.migration())).transpose()?.flatten();
        step.ok_or_else(|| ApplyError::BadStep {
            place: format!("{}, step {}", migration.link().name, self.step),
            why: "it has left rows, and is no step that does".to_owned(),
        })
    }

    fn run(&self, file: &Managed, step: &mut RowStep, batch: &Batch, migration: &VerifiedMigration) -> Result<Chunk, ApplyError> {
        let timeout = migration.migration().manifest.timeout.get();
        let none = HashSet::new();
        let part = Part { position: None, rows: 0, failed: &none };
        let on = file.guard.on(timeout, false);
        let ran = match (step, batch) {
            (RowStep::Backfill(step), Batch::Keys(keys)) => step.touched(file, keys, &part),
            (RowStep::Load(step), Batch::Records(records)) => step.put(file, &records.iter().collect::<Vec<_>>()),
            (RowStep::Backfill(_) | RowStep::Load(_) | RowStep::Clear(_) | RowStep::Rebuild(_), _) => unreachable!("a batch is read for its step"),
        };
        let stopped = file.guard.stopped();
        drop(on);
        ran.map_err(|error| explain(error, stopped, timeout))
    }

    fn event(&self, file: &Managed, done: u64, begun: Instant) -> Result<Event, ApplyError> {
        let (shared, row) = (self.shared, self.row);
        let left = checkpoint::report_failed(&file.connection, self.version, Some(self.step), shared.policy.report_values)?;
        Ok(Event {
            event_id: shared.ambient.event_id(),
            client_id: self.looked.identity.client_id,
            app: self.looked.identity.app.clone(),
            kind: EventKind::Retried,
            operation: Operation::Apply,
            migration: row.name.clone(),
            version: row.version,
            revision: row.revision,
            digest: row.digest,
            status: row.status,
            attempt: row.attempts,
            by: AskedBy::Person,
            at_ms: shared.ambient.now_ms(),
            took_ms: Some(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
            failure: None,
            fingerprint: None,
            rows: Some(RowReport { changed: done, ..left }),
            verify_skipped: false,
        })
    }
}

/// Rows as their step takes them.
enum Batch {
    /// Keys of rows that are in the table.
    Keys(Vec<table::Key>),
    /// Shipped rows.
    Records(Vec<Record>),
}

impl Batch {
    /// Reads names as the step wrote them. Outside the transaction: a shipped file may be long.
    fn read(step: &RowStep, names: &[String]) -> Result<Self, ApplyError> {
        let bad = |name: &String| ApplyError::BadStep { place: step.table().name.clone(), why: format!("{name:?} names no row of it") };
        Ok(match step {
            RowStep::Backfill(_) => Self::Keys(names.iter().map(|name| table::key_from_text(name).map_err(|_| bad(name))).collect::<Result<_, _>>()?),
            RowStep::Load(step) => {
                let line = |name: &String| name.rsplit_once(':').and_then(|(_, line)| line.parse().ok()).ok_or_else(|| bad(name));
                let lines: BTreeMap<u64, &String> = names.iter().map(|name| Ok((line(name)?, name))).collect::<Result<_, ApplyError>>()?;
                let records = step.named(&lines.keys().copied().collect::<BTreeSet<_>>())?;
                if let Some(name) = lines.iter().find(|(line, _)| !records.iter().any(|r| r.line == **line)).map(|(_, name)| name) {
                    return Err(bad(name));
                }
                Self::Records(records)
            }
            RowStep::Clear(_) | RowStep::Rebuild(_) => unreachable!("these leave no rows"),
        })
    }
}
