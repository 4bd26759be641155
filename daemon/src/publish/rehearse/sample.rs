//! Rehearses on a private copy of a real database: rows are where migrations fail that pass on an empty file.

use std::{path::Path, time::Instant};

use rusqlite::OpenFlags;
use whimbrel_shared::{fingerprint::Schema, ids::MigrationName};

use super::{Directory, Rehearsal, RehearsalError, Stage, authors_place, carried, sqlite};
use crate::{
    migrate::{
        foreign::Violations,
        perform::{Expected, broken},
    },
    publish::layout::Chain,
    store::private::open_database,
};

/// Most differences that a message names.
const NAMED: usize = 8;

/// What one migration did on the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleRun {
    /// The migration.
    pub name: MigrationName,
    /// Rows it changed.
    pub rows: u64,
    /// How long it took here.
    pub took_ms: u64,
}

/// Applies what the sample at `path` has not got yet to a private copy of it, which goes afterwards. Gives the version at
/// which the sample stands, and what each further migration did. The sample itself is only read.
pub fn rehearse_sample(chain: &Chain, rehearsal: &Rehearsal, path: &Path) -> Result<(usize, Vec<SampleRun>), RehearsalError> {
    let directory = Directory::new().map_err(RehearsalError::NoRoom)?;
    let copy = directory.0.join("sample.db");
    copy_to(path, &copy).map_err(|source| RehearsalError::SampleCopy { path: path.display().to_string(), source })?;
    let mut stage = Stage::open(&copy, Some(directory))?;
    let at = version_of(rehearsal, &stage, path)?;

    let managed = &stage.managed;
    let (violations, _) = Violations::read(&managed.connection, &managed.schema, None).map_err(sqlite("checking foreign keys"))?;
    let known_broken = broken(managed).into_iter().map(|(object, _)| object).collect();
    stage.known.violations = Some(violations);
    stage.known.broken = known_broken;

    let nothing = Schema::default();
    let of = chain.migrations.len();
    let mut runs = Vec::new();
    for (index, authored) in chain.migrations.iter().enumerate().skip(at) {
        let begun = Instant::now();
        let name = &authored.migration.name;
        let schema = |index: usize| rehearsal.versions.get(index).map_or(&nothing, |v| &v.schema);
        let from = index.checked_sub(1).map_or(&nothing, schema);
        let change = from.change_to(schema(index));
        let expected = Some(Expected { from, change: &change });
        let watched = carried::watch(&stage.managed.connection, &authored.migration.manifest).map_err(sqlite("reading rows of the sample"))?;
        let (performed, _) = stage.up(authored, expected).map_err(|source| RehearsalError::Failed {
            name: name.clone(),
            version: index + 1,
            of,
            source: Box::new(authors_place(authored, source)),
        })?;
        if let Some(what) = watched.lost(&stage.managed.connection).map_err(sqlite("reading rows of the sample"))? {
            return Err(RehearsalError::NotCarried { name: name.clone(), what });
        }
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        runs.push(SampleRun { name: name.clone(), rows: performed.rows, took_ms });
    }
    Ok((at, runs))
}

/// The version whose schema the sample has; the newest one where several do.
fn version_of(rehearsal: &Rehearsal, stage: &Stage, path: &Path) -> Result<usize, RehearsalError> {
    let found = stage.managed.schema.schema();
    if let Some(index) = rehearsal.versions.iter().rposition(|v| !v.schema.0.is_empty() && v.schema.drift(found).is_empty()) {
        return Ok(index + 1);
    }
    // None of the chain's objects: a file from before the chain, or an empty one.
    let any = rehearsal.versions.iter().any(|v| v.schema.0.keys().any(|object| found.0.contains_key(object)));
    if !any {
        return Ok(0);
    }
    let closest = rehearsal.versions.iter().enumerate().min_by_key(|(_, v)| v.schema.drift(found).len());
    let (closest, drift) =
        closest.map_or_else(|| ("an empty database".to_owned(), Vec::new()), |(index, v)| (format!("version {}", index + 1), v.schema.drift(found)));
    let mut shown = drift.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if drift.len() > NAMED {
        shown.push_str(&format!("; and {} more", drift.len() - NAMED));
    }
    Err(RehearsalError::SampleUnknown { path: path.display().to_string(), closest, drift: shown })
}

/// A consistent copy, with what a WAL beside it holds, while an application may be writing.
fn copy_to(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let source = open_database(&std::fs::canonicalize(from).unwrap_or_else(|_| from.to_owned()), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    source.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}
