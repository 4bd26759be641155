//! Runs a whole chain for real before anyone else does: on an empty database, down and up again, in the seed form, and
//! on a private copy of a sample. It uses the devices' own engine, so that what passes here passes there.

mod carried;
#[cfg(test)]
mod columns_tests;
mod examine;
mod facts;
mod min_sqlite;
mod rows;
mod sample;
mod seed;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::Connection;
use whimbrel_shared::{
    fingerprint::{Schema, SchemaChange},
    ids::MigrationName,
    manifest::{Mode, Step},
    migration::Migration,
    protocol::publish::SeedQueries,
    remedy::{Remedy, here},
    row_schema::RowSchema,
    status::Operation,
};

pub use self::sample::{SampleRun, rehearse_sample};
use super::{
    columns::{self, Rows, read::Tables, seen},
    layout::{Authored, Chain},
    lint::{self, Facts, Finding, Strictness},
    scan,
};
use crate::migrate::{
    connection::{Managed, Missing},
    error::ApplyError,
    perform::{AtStep, Before, Expected, Performed, perform, set_foreign_keys},
    script::ScriptError,
    units::{Work, units},
};

/// Nobody else has a rehearsal's database open.
const NO_WAIT: Duration = Duration::from_secs(1);

/// What a version was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// The schema it leaves, object by object.
    pub schema: Schema,
    /// Oldest SQLite that can read it, such as `3.37.0`; none where any can.
    pub min_sqlite: Option<String>,
    /// Its statements for clients of the seed form.
    pub seed: SeedQueries,
    /// Of a migration in mode online, what each `sql` step does to the schema.
    pub steps: Vec<SchemaChange>,
    /// Of a migration in mode online with a way down, the first step from which that does not lead back, and why.
    pub no_way_back: Option<String>,
    /// What it did on the empty database.
    pub performed: Performed,
    /// What was found out about its tables and columns.
    pub found: columns::Found,
    /// What follows from it for their ids, and for which tables exchange rows, if nothing was published before.
    pub rows: Rows,
}

/// A chain that ran from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// Version 1, 2, 3 …
    pub versions: Vec<Rehearsed>,
    /// What the run showed that no text does.
    pub findings: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Why a chain did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// A migration failed.
    #[error("{name} (number {version} of {of}) failed: {source}")]
    Failed {
        /// The migration.
        name: MigrationName,
        /// Its version.
        version: usize,
        /// How many there are.
        of: usize,
        /// Why, with the place in the author's own file.
        source: Box<ApplyError>,
    },
    /// The same statements in the seed form leave another schema.
    #[error("{name}: in the seed form it does not do the same: {what}")]
    Seed {
        /// The migration.
        name: MigrationName,
        /// How it differs.
        what: String,
    },
    /// The ids of tables and columns do not follow from each other.
    #[error("{name}: its column ids cannot be: {why}")]
    Ids {
        /// The migration.
        name: MigrationName,
        /// Why.
        why: String,
    },
    /// Rows of the sample did not go where `[[carry]]` says.
    #[error("{name}: on the sample, {what}")]
    NotCarried {
        /// The migration.
        name: MigrationName,
        /// What did not arrive.
        what: String,
    },
    /// The sample's schema is none of the chain's.
    #[error("{path} is at no version of this chain; it comes closest to {closest}, from which it differs: {drift}")]
    SampleUnknown {
        /// The sample.
        path: String,
        /// The version whose schema it is most like.
        closest: String,
        /// How it differs.
        drift: String,
    },
    /// The sample cannot be copied.
    #[error("{path} cannot be copied: {source}")]
    SampleCopy {
        /// The sample.
        path: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// SQLite failed outside a migration.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The engine failed outside a migration.
    #[error("preparing the rehearsal: {0}")]
    Engine(#[from] ApplyError),
    /// There is nowhere to rehearse.
    #[error("a temporary directory cannot be made: {0}")]
    NoRoom(std::io::Error),
}

impl RehearsalError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            // What is the operator's to mend at a device is the author's to mend here.
            Self::Failed { source, .. } => match source.as_ref() {
                ApplyError::Script(ScriptError::Refused { .. }) => here("take the statement out, or do what it does at another place"),
                ApplyError::Script(ScriptError::Sqlite { message, .. }) if message.contains("no such function") => {
                    here("only the application has this function, and it is not there when a device migrates: say the same in SQLite's own functions")
                }
                ApplyError::Script(ScriptError::Sqlite { .. }) => {
                    here("correct the statement (or name the directory of the migrations for SQLite, if these are for another system)")
                }
                ApplyError::Script(ScriptError::NotTrue { .. }) => here("correct the migration, or what is verified of it"),
                ApplyError::BadStep { why, .. } if why.contains("ON CONFLICT clause does not match") => {
                    here("name in `key` the columns that identify a row: those of the primary key, or of one UNIQUE index (WB031)")
                }
                ApplyError::Broken { .. } => here("drop or make these objects again in the same migration (WB011)"),
                ApplyError::BadStep { .. } | ApplyError::NotIdempotent { .. } | ApplyError::Row { .. } => here("correct the step in migration.toml"),
                ApplyError::NewViolations { .. } => here("keep the rows that others refer to, or delete those others too"),
                ApplyError::Sqlite { source, .. } if source.to_string().contains("foreign key mismatch") => {
                    here("give the columns that are referred to a UNIQUE index or make them the primary key, or take the reference away")
                }
                ApplyError::Timeout { .. } => here("a larger `timeout` in migration.toml lets it run longer"),
                other => here(other.remedy().sentence()),
            },
            Self::NotCarried { .. } => here("let the SQL copy the values where [[carry]] in migration.toml says that they go, or correct the entry"),
            Self::Ids { .. } => here("this should not happen: please report it with the migration"),
            Self::Seed { .. } => here("this should not happen: please report it with the migration"),
            Self::SampleUnknown { .. } => here("take a sample from a device at a known version, or add the migration that explains the difference"),
            Self::SampleCopy { .. } => here("name an SQLite database that you may read"),
            Self::Sqlite { .. } | Self::Engine(_) | Self::NoRoom(_) => here("check that the temporary directory has room"),
        }
    }
}

/// What is going on, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A migration begins: its version and how many there are.
    Up(&'a MigrationName, usize, usize),
    /// It goes down and up again.
    Down(&'a MigrationName, usize, usize),
}

fn sqlite(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> RehearsalError {
    move |source| RehearsalError::Sqlite { doing, source }
}

/// Rehearses `chain` on an empty database. Fails at the first migration that fails; a way down that fails is a finding.
pub fn rehearse(chain: &Chain, strict: bool, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Rehearsal, RehearsalError> {
    let strictness = Strictness { layout: chain.layout, strict };
    let of = chain.migrations.len();
    let mut stage = Stage::empty()?;
    let mut seeds = seed::Seeds::new()?;
    let mut rehearsal = Rehearsal { versions: Vec::with_capacity(of), findings: Vec::new(), notes: Vec::new() };
    let mut before = Facts::default();
    let mut tables = Arc::new(Tables::default());
    let mut ids = RowSchema::default();
    for (index, authored) in chain.migrations.iter().enumerate() {
        let (version, migration) = (index + 1, &authored.migration);
        progress(Progress::Up(&migration.name, version, of));
        let failed = |source| RehearsalError::Failed { name: migration.name.clone(), version, of, source: Box::new(authors_place(authored, source)) };
        let no_way_back = stage.half_way(authored, &before.schema)?;
        if let Some(what) = &no_way_back {
            rehearsal.findings.push(lint::half_way(authored, strictness, what));
        }
        let hints = stage.made_up(authored)?;
        rehearsal.findings.extend(hints.iter().map(|hint| lint::made_up(authored, strictness, &hint.what, hint.again)));
        let examined = stage.examine(authored)?;
        let (performed, steps) = stage.up(authored, None).map_err(failed)?;
        let now = stage.facts(&before)?;
        rehearsal.findings.extend(lint::after(authored, strictness, &before, &now));
        let seen = seen::seen(&tables.shapes, deeds(migration).iter());
        if now.schema != before.schema {
            tables = Arc::new(columns::read::read(&stage.managed.connection).map_err(sqlite("reading the schema"))?);
        }
        let found = columns::Found { tables: Arc::clone(&tables), seen, filled: stage.filled(&examined)?, bad_keys: examined.bad_keys };
        let number = u32::try_from(version).unwrap_or(u32::MAX);
        let rows = match found.decide(&ids, number, &migration.manifest) {
            Ok((rows, notes)) => {
                rehearsal.findings.extend(notes.iter().map(|note| lint::remark(authored, strictness, note)));
                rows
            }
            Err(problems) => {
                rehearsal.findings.extend(problems.iter().map(|problem| lint::problem(authored, strictness, problem)));
                found.by_name(&ids)
            }
        };
        ids.advance(number, rows.columns.as_ref(), &rows.sync).map_err(|why| RehearsalError::Ids { name: migration.name.clone(), why })?;
        if migration.down.is_some() {
            progress(Progress::Down(&migration.name, version, of));
            if let Err(what) = stage.down_and_up(authored, &before.schema, &now.schema)? {
                rehearsal.findings.push(lint::down(authored, strictness, what));
            }
        }
        let min_sqlite = min_sqlite::of(&stage.managed.connection).map_err(sqlite("reading the schema"))?;
        let seed = seeds.of(authored, version, &now.schema, &mut rehearsal.notes)?;
        rehearsal.versions.push(Rehearsed { schema: now.schema.clone(), min_sqlite, seed, steps, no_way_back, performed, found, rows });
        before = now;
    }
    Ok(rehearsal)
}

/// What the statements of a migration's `sql` steps do, in order.
fn deeds(migration: &Migration) -> Vec<scan::Deed> {
    let steps = migration.steps();
    let files = steps.iter().filter_map(|step| if let Step::Sql { file } = step { migration.file(file) } else { None });
    files.flat_map(|text| scan::statements(text).iter().map(scan::deed).collect::<Vec<_>>()).collect()
}

/// An error of the engine, at the place where the author has the text.
fn authors_place(authored: &Authored, error: ApplyError) -> ApplyError {
    let ApplyError::Script(mut error) = error else { return error };
    match &mut error {
        ScriptError::Sqlite { place, .. } | ScriptError::Refused { place, .. } | ScriptError::NotTrue { place, .. } => {
            let file = place.file.rsplit('/').next().unwrap_or_default();
            let (path, line) = authored.place(file, u32::try_from(place.line).unwrap_or(u32::MAX));
            place.file = path;
            place.line = usize::try_from(line).unwrap_or(usize::MAX);
        }
        ScriptError::Nul { .. } => {}
    }
    ApplyError::Script(error)
}

/// A database to rehearse on.
struct Stage {
    managed: Managed,
    /// What to blame nobody for.
    known: Before,
    /// Goes with its files.
    _directory: Option<Directory>,
}

impl Stage {
    /// An empty file, as a device would have it.
    fn empty() -> Result<Self, RehearsalError> {
        let directory = Directory::new().map_err(RehearsalError::NoRoom)?;
        let path = directory.0.join("rehearsal.db");
        Self::open(&path, Some(directory))
    }

    fn open(path: &Path, directory: Option<Directory>) -> Result<Self, RehearsalError> {
        let mut managed = Managed::open(path, Missing::Create, NO_WAIT, crate::migrate::halt::Halt::default())?;
        // Nothing here has to outlive a power cut.
        managed.connection.pragma_update(None, "synchronous", "OFF").map_err(sqlite("preparing the rehearsal"))?;
        managed.schema.read(&managed.connection).map_err(sqlite("reading the schema"))?;
        Ok(Self { managed, known: Before::default(), _directory: directory })
    }

    /// Applies one migration in a transaction of its own; of an online one, says what each `sql` step did to the schema.
    /// A failure leaves the file as it was.
    fn up(&mut self, authored: &Authored, expected: Option<Expected<'_>>) -> Result<(Performed, Vec<SchemaChange>), ApplyError> {
        self.within(authored, |stage| stage.run(&authored.migration, Operation::Apply, expected))
    }

    /// Runs a migration in the open transaction, an online one unit by unit as a device does.
    fn run(
        &mut self,
        migration: &Migration,
        operation: Operation,
        expected: Option<Expected<'_>>,
    ) -> Result<(Performed, Vec<SchemaChange>), ApplyError> {
        let all = units(migration, operation, &self.managed.schema)?;
        let nobody = &mut |_: AtStep| {};
        if migration.manifest.mode == Mode::Atomic || operation == Operation::Revert {
            return Ok((perform(&mut self.managed, migration, &all, expected, &self.known, nobody)?, Vec::new()));
        }
        let (mut whole, mut steps) = (Performed::default(), Vec::new());
        for at in 0..all.len() {
            // Read again: the order of loads depends on the tables that are there by now.
            let unit = units(migration, operation, &self.managed.schema)?.swap_remove(at);
            let before = self.managed.schema.schema().clone();
            let performed = perform(&mut self.managed, migration, std::slice::from_ref(&unit), None, &self.known, nobody)?;
            if unit.changes_schema() {
                steps.push(before.change_to(self.managed.schema.schema()));
            }
            whole.statements += performed.statements;
            whole.rows += performed.rows;
            whole.failed.extend(performed.failed);
        }
        if let Some(expected) = expected {
            let mut wanted = expected.from.clone();
            wanted.apply(expected.change);
            let drift = wanted.drift(self.managed.schema.schema());
            if !drift.is_empty() {
                return Err(ApplyError::WrongSchema { drift });
            }
        }
        Ok((whole, steps))
    }

    /// Stops an online migration after each of its steps but the last and takes its way down from there, as a device does
    /// for a revision that mends it. Says which step that does not lead back from, and why; a step that fails is not this
    /// function's news. The file is left as it was found.
    fn half_way(&mut self, authored: &Authored, before: &Schema) -> Result<Option<String>, RehearsalError> {
        let migration = &authored.migration;
        if migration.manifest.mode == Mode::Atomic || migration.down.is_none() {
            return Ok(None);
        }
        let all = units(migration, Operation::Apply, &self.managed.schema)?;
        let last = all.iter().rposition(|unit| !matches!(unit.work, Work::Verify(_))).unwrap_or(0);
        // A row step may stop before its end; one of schema has not begun then.
        let first = usize::from(all.first().is_none_or(|unit| unit.changes_schema() || matches!(unit.work, Work::Verify(_))));
        for done in first..=last {
            let after = all.get(done.wrapping_sub(1)).map_or(0, |unit| unit.step);
            let result: Result<(), Fell> = self.within(authored, |stage| {
                for at in 0..done {
                    let unit = units(migration, Operation::Apply, &stage.managed.schema)?.swap_remove(at);
                    perform(&mut stage.managed, migration, std::slice::from_ref(&unit), None, &stage.known, &mut |_: AtStep| {})?;
                }
                let reached = stage.run(migration, Operation::Revert, None);
                let said = match reached {
                    Err(error) => Some(format!("it fails: {}", authors_place(authored, error))),
                    Ok(_) => differs(before, stage.managed.schema.schema()),
                };
                // Always an error: what was done here is rolled back.
                Err(Fell::Said(said.unwrap_or_default()))
            });
            if let Err(Fell::Said(what)) = result
                && !what.is_empty()
            {
                return Ok(Some(if after == 0 { format!("while step 1 is under way: {what}") } else { format!("after step {after}: {what}") }));
            }
        }
        Ok(None)
    }

    /// Reverts and applies it again; `Ok(Err)` says in words what did not come back. The file is left as it was found.
    fn down_and_up(&mut self, authored: &Authored, before: &Schema, now: &Schema) -> Result<Result<(), String>, RehearsalError> {
        let result = self.within(authored, |stage| {
            let mut run = |operation| {
                stage
                    .run(&authored.migration, operation, None)
                    .map_err(|error| authors_place(authored, error).to_string())
                    .map(|_| stage.managed.schema.schema().clone())
            };
            let there = run(Operation::Revert).map_err(|error| format!("its way down fails: {error}"))?;
            differs(before, &there).map_or(Ok(()), |how| Err(Fell::Said(format!("its way down does not lead back: {how}"))))?;
            let again = run(Operation::Apply).map_err(|error| format!("it cannot be applied again after its way down: {error}"))?;
            differs(now, &again).map_or(Ok(()), |how| Err(Fell::Said(format!("applied again after its way down it leaves something else: {how}"))))
        });
        match result {
            Ok(()) => Ok(Ok(())),
            Err(Fell::Said(what)) => Ok(Err(what)),
            Err(Fell::Engine(error)) => Err(error.into()),
        }
    }

    /// Runs `work` in a transaction with the foreign keys that the migration wants, and rolls back when it fails.
    fn within<T, E: From<ApplyError>>(&mut self, authored: &Authored, work: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        use crate::migrate::error::sqlite;
        set_foreign_keys(&self.managed.connection, &authored.migration.manifest)?;
        self.managed.connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite("beginning"))?;
        let result = work(self);
        if result.is_ok() {
            self.managed.connection.execute_batch("COMMIT").map_err(sqlite("committing"))?;
        } else {
            if !self.managed.connection.is_autocommit() {
                self.managed.connection.execute_batch("ROLLBACK").map_err(sqlite("rolling back"))?;
            }
            self.managed.schema.forget();
            self.managed.schema.read(&self.managed.connection).map_err(sqlite("reading the schema"))?;
        }
        result
    }

    fn facts(&self, before: &Facts) -> Result<Facts, RehearsalError> {
        let schema = self.managed.schema.schema();
        if *schema == before.schema {
            return Ok(before.clone());
        }
        facts::read(&self.managed.connection, schema).map_err(sqlite("reading the schema"))
    }
}

/// Why a step of the rehearsal fell through: a finding, or a fault of the stage.
enum Fell {
    Said(String),
    Engine(ApplyError),
}

impl From<ApplyError> for Fell {
    fn from(error: ApplyError) -> Self {
        Self::Engine(error)
    }
}

impl From<String> for Fell {
    fn from(what: String) -> Self {
        Self::Said(what)
    }
}

/// How `found` differs from `wanted`, whole and not only in what is expected; none where it does not.
pub(super) fn differs(wanted: &Schema, found: &Schema) -> Option<String> {
    let mut lines = wanted.drift(found);
    lines.extend(found.0.keys().filter(|object| !wanted.0.contains_key(*object)).map(|object| format!("{object} is left over")));
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// A directory of our own that goes with its files when it is dropped.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        let mut dice = [0u8; 8];
        getrandom::fill(&mut dice).map_err(std::io::Error::other)?;
        let path = std::env::temp_dir().join(format!("whimbrel-rehearsal-{:016x}", u64::from_be_bytes(dice)));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        {
            // A sample holds somebody's rows.
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is a temporary file for the system to sweep; there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All rows of a query without parameters, through one closure.
fn each(connection: &Connection, sql: &str, mut row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(found) = rows.next()? {
        row(found)?;
    }
    Ok(())
}
