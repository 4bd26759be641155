//! Where an online migration stands that was begun and is not done: read from its checkpoint, so that it is known also
//! while nothing runs (held, stopped, waiting).

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::MigrationName,
    rows::{RowReport, RowsAt},
    status::Operation,
};

use super::{
    apply::Load,
    connection::Managed,
    error::{ApplyError, sqlite},
    units::units,
};
use crate::store::checkpoint;

/// An online migration that is half done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfDone {
    /// Its version.
    pub version: u32,
    /// Its name.
    pub migration: MigrationName,
    /// What it has done so far; `at` is where it stands.
    pub rows: RowReport,
}

/// What the file's checkpoint says; none when no online migration is under way. `load` reads the migration, which knows
/// its steps. Changes nothing.
pub fn half_done(file: &mut Managed, load: &Load<'_>) -> Result<Option<HalfDone>, ApplyError> {
    let Some(at) = checkpoint::checkpoint(&file.connection)? else { return Ok(None) };
    let migration = load(at.version, at.revision)?;
    file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let steps = number(migration.migration().steps().len());
    let step = units(migration.migration(), Operation::Apply, &file.schema)?.get(at.unit as usize).map_or(steps, |unit| number(unit.step));
    let place = RowsAt { step, steps, done: at.examined, total: at.total };
    let rows = RowReport { changed: at.changed, skipped: at.skipped, failed: at.failed, at: Some(place), ..RowReport::default() };
    Ok(Some(HalfDone { version: at.version, migration: migration.link().name.clone(), rows }))
}
