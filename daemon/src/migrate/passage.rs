//! A migration's transaction and the edits that are not sent yet: what `sync::across` has to be told, from the chain and the
//! manifest, and the calls at both ends of the steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_shared::{
    carry,
    manifest::{Rebuild, Step},
    status::Operation,
    trust::VerifiedMigration,
};

use super::{
    apply::Job,
    chain::Chain,
    connection::Managed,
    error::{ApplyError, sqlite},
};
use crate::sync::{
    across::{self, Begun, Left, Passage, Way},
    error::SyncError,
    shape::Mode,
    table::Facts,
};

/// What carries edits across one migration, or one step of it.
#[derive(Debug)]
pub(super) struct Crossing {
    passage: Passage,
    timeout: Duration,
    begun: Option<Begun>,
}

/// What a migration means for edits that are not sent yet; none where rows cannot be exchanged before or after it.
pub(super) fn passage(chain: &Chain, operation: Operation, migration: &VerifiedMigration) -> Result<Option<Passage>, ApplyError> {
    let link = migration.link();
    let version = link.version;
    let damaged = |why: String| ApplyError::BadStep { place: link.name.to_string(), why };
    let (lower, upper) = (chain.rows_at(version - 1).map_err(damaged)?, chain.rows_at(version).map_err(damaged)?);
    // Ids and settings are those of the first revision; what is said of edits is of the one that runs.
    let Some(slot) = chain.revisions(version).first().map(|entry| &entry.custom) else { return Ok(None) };
    let (Ok(before), Ok(after), Some(change)) = (lower.map(), upper.map(), &slot.columns) else { return Ok(None) };
    let carries = carry::by_id(&before, &after, change, &migration.migration().manifest.carry).map_err(|e| damaged(e.to_string()))?;
    let way = if operation == Operation::Apply { Way::Up } else { Way::Down };
    let Some(mut passage) = Passage::new(way, version, &lower, &upper, &carries, &slot.sync) else { return Ok(None) };
    let mut follows: BTreeMap<u32, BTreeMap<u32, BTreeSet<u32>>> = BTreeMap::new();
    let steps = &migration.migration().manifest.step;
    for lift in &slot.lifts {
        if let Some(Step::Backfill(fill)) = (lift.step as usize).checked_sub(1).and_then(|at| steps.get(at)) {
            lift.follows(&fill.set, &fill.filter, follows.entry(lift.table).or_default());
        }
    }
    for (table, columns) in follows {
        for (to, sources) in columns {
            sources.into_iter().for_each(|from| passage.follow(table, from, to));
        }
    }
    Ok(Some(passage))
}

impl Crossing {
    /// In front of the steps, inside the transaction. `None`: the file captures nothing, or rows cannot be exchanged.
    pub(super) fn begin(file: &mut Managed, job: &Job<'_>, operation: Operation, migration: &VerifiedMigration) -> Result<Option<Self>, ApplyError> {
        let Some(passage) = passage(job.chain, operation, migration)? else { return Ok(None) };
        let timeout = migration.migration().manifest.timeout.get();
        let now_ms = job.ambient.now_ms();
        let begun = across::begin(&file.connection, &passage, &job.ambient.boot(), now_ms, &|sql| vet(file, timeout, sql))?;
        // Our triggers are gone, and that is no change of the migration's.
        file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
        Ok(Some(Self { passage, timeout, begun }))
    }

    /// Behind the steps. `written`: tables whose rows they wrote, lower case; `whole`: the migration is done.
    pub(super) fn end(self, file: &mut Managed, whole: bool, written: &BTreeSet<String>) -> Result<(), ApplyError> {
        self.leave(file, &Left { whole, written, copied: false, mode: Mode::default() })
    }

    /// Behind the swap of a rebuilt table, whose rows were copied; `values_stay`: as they were.
    pub(super) fn swapped(self, file: &mut Managed, table: &str, values_stay: bool) -> Result<(), ApplyError> {
        let written = if values_stay { BTreeSet::new() } else { BTreeSet::from([table.to_ascii_lowercase()]) };
        self.leave(file, &Left { whole: false, written: &written, copied: true, mode: Mode::default() })
    }

    fn leave(self, file: &mut Managed, left: &Left<'_>) -> Result<(), ApplyError> {
        let Some(begun) = self.begun else { return Ok(()) };
        across::end(&file.connection, &self.passage, &begun, left, &|sql| vet(file, self.timeout, sql))?;
        file.schema.read(&file.connection).map(|_| ()).map_err(sqlite("reading the schema"))
    }

    /// Whether a rebuild leaves the values of columns that stay as they are: they are copied by name into columns of the same
    /// type. Before the swap, with the side table there.
    pub(super) fn values_stay(&self, file: &Managed, step: &Rebuild, side: &str) -> Result<bool, ApplyError> {
        let doing = "comparing a table with the one that takes its place";
        let (old, new) = (Facts::read(&file.connection, &step.table), Facts::read(&file.connection, side));
        let (Some(old), Some(new)) = (old.map_err(sqlite(doing))?, new.map_err(sqlite(doing))?) else { return Ok(false) };
        let Some(before) = self.passage.before.table(&step.table) else { return Ok(true) };
        let Some(after) = self.passage.after.table_by_id(before.id) else { return Ok(true) };
        let stays = |column: &whimbrel_shared::columns::Column| {
            let Some(later) = after.column_by_id(column.id) else { return true };
            let value = step.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(&later.name)).map(|(_, value)| value.trim());
            let copied = value.unwrap_or(&later.name).trim_matches('"').eq_ignore_ascii_case(&column.name);
            let kind = |facts: &Facts, name: &str| {
                facts.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)).map(|c| c.decl_type.to_ascii_uppercase())
            };
            copied && kind(&old, &column.name) == kind(&new, &later.name)
        };
        Ok(old.strict == new.strict && before.columns.iter().all(stays))
    }
}

/// Whether SQL around an expression of the migration's may be compiled: its guard says so, and SQLite.
fn vet(file: &Managed, timeout: Duration, sql: &str) -> Result<(), String> {
    let on = file.guard.on(timeout, false);
    let compiled = file.connection.prepare(sql).map(drop);
    let denied = file.guard.take_denied();
    drop(on);
    match (compiled, denied) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(super::guard::Denied::Refused(why))) => Err(why),
        (Err(error), _) => Err(error.to_string()),
    }
}

/// The edits that a migration waits for before it can run, as far as they are folded; none where there are none.
pub(super) fn waits_for(file: &Managed, chain: &Chain, operation: Operation, migration: &VerifiedMigration) -> Result<Option<SyncError>, ApplyError> {
    let Some(passage) = passage(chain, operation, migration)? else { return Ok(None) };
    let waiting = across::waiting(&file.connection, &passage)?;
    Ok((waiting.total > 0).then_some(SyncError::Unsent { rows: waiting.rows, total: waiting.total }))
}
