//! A migration's statements one by one, for clients of the seed form. SQLite says where each ends, and each is run by
//! itself on a database of its own, which must come out the same: a wrong cut would reach machines that we cannot see.

use rusqlite::Connection;
use whimbrel_shared::{
    fingerprint::Schema,
    manifest::{LegacyAlterTable, Manifest, Rebuild, Step},
    migration::{Migration, SeedMigration},
    protocol::publish::SeedQueries,
    status::Operation,
};

use super::{NO_WAIT, RehearsalError, Stage, differs, sqlite};
use crate::{
    migrate::{
        connection::Managed,
        error::ApplyError,
        perform::{Before, perform},
        rebuild::Rebuilding,
        rows::table::quote,
        units::units,
    },
    publish::{
        layout::Authored,
        scan::{self, Deed},
    },
};

/// The seed form of a chain, and the database on which it is tried.
pub(super) struct Seeds {
    stage: Stage,
    last_timestamp: i64,
}

impl Seeds {
    pub(super) fn new() -> Result<Self, RehearsalError> {
        let connection = Connection::open_in_memory().map_err(sqlite("opening a database in memory"))?;
        let mut managed = Managed::adopt(connection, NO_WAIT, crate::migrate::halt::Halt::default())?;
        managed.schema.read(&managed.connection).map_err(sqlite("reading the schema"))?;
        Ok(Self { stage: Stage { managed, known: Before::default(), _directory: None }, last_timestamp: 0 })
    }

    /// The seed form of the next migration. `expected` is the schema that it leaves in our form.
    pub(super) fn of(
        &mut self,
        authored: &Authored,
        version: usize,
        expected: &Schema,
        notes: &mut Vec<String>,
    ) -> Result<SeedQueries, RehearsalError> {
        let migration = &authored.migration;
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        // Seed clients run in the order of time stamps: it must be the chain's, whatever the names say.
        self.last_timestamp = authored.timestamp_ms.unwrap_or(version).max(self.last_timestamp.saturating_add(1));
        let (up_queries, left_out) =
            self.up_queries(authored).map_err(|error| RehearsalError::Seed { name: migration.name.clone(), what: error.to_string() })?;
        if left_out {
            notes.push(format!("{}: clients of the seed form do not get the rows of its `load` steps", migration.name));
        }
        let down = migration.down.as_deref().and_then(|file| migration.file(file)).unwrap_or_default();
        let queries = SeedQueries { timestamp: self.last_timestamp, up_queries, down_queries: down_queries(migration, down) };

        let wrong = |what: String| RehearsalError::Seed { name: migration.name.clone(), what };
        let form = SeedMigration {
            timestamp: queries.timestamp,
            migration_name: migration.name.clone(),
            up_queries: queries.up_queries.clone(),
            down_queries: Vec::new(),
            client_applied: false,
        };
        let mut again = authored.clone();
        // Foreign keys as the manifest wants them: a seed client of ours learns it from the PRAGMA lines.
        again.migration = Migration {
            manifest: Manifest { foreign_keys: migration.manifest.foreign_keys, timeout: migration.manifest.timeout, ..Manifest::default() },
            ..form.to_migration()
        };
        let (performed, _) = self.stage.up(&again, None).map_err(|error| wrong(error.to_string()))?;
        if let Some(how) = differs(expected, self.stage.managed.schema.schema()) {
            return Err(wrong(how));
        }
        let run = queries.up_queries.iter().filter(|query| !is_instruction(query)).count();
        if performed.statements != run {
            return Err(wrong(format!("{run} texts are {} statements", performed.statements)));
        }
        Ok(queries)
    }

    /// The statements up, and whether something could not be said in them.
    fn up_queries(&mut self, authored: &Authored) -> Result<(Vec<String>, bool), ApplyError> {
        let migration = &authored.migration;
        let mut queries = Vec::new();
        let mut left_out = false;
        for (at, step) in migration.steps().into_iter().enumerate() {
            match step {
                Step::Sql { file } => queries.extend(cut(migration.file(&file).unwrap_or_default())),
                Step::Backfill(step) => queries.push(format!("UPDATE {} SET {} WHERE {}", quote(&step.table), step.set, step.filter)),
                // A seed client has no way to verify.
                Step::Verify { .. } => {}
                Step::Load(_) => left_out = true,
                Step::Rebuild(step) => queries.extend(self.rebuild(authored, at + 1, &step)?),
            }
        }
        Ok((queries, left_out))
    }

    /// A rebuild as statements: what the table has by then is known when the steps before it have run. The database is left
    /// as it was found.
    fn rebuild(&mut self, authored: &Authored, number: usize, step: &Rebuild) -> Result<Vec<String>, ApplyError> {
        let migration = &authored.migration;
        let mut queries = Vec::new();
        let found: Result<(), ApplyError> = self.stage.within(authored, |stage| {
            let before: Vec<_> = units(migration, Operation::Apply, &stage.managed.schema)?.into_iter().filter(|unit| unit.step < number).collect();
            perform(&mut stage.managed, migration, &before, None, &stage.known, &mut |_| {})?;
            queries = Rebuilding::new(&stage.managed, step, number, migration, migration.name.to_string())?.shape.statements();
            // What was done here is rolled back.
            Err(ApplyError::Cancelled)
        });
        match found {
            Err(ApplyError::Cancelled) => Ok(queries),
            Err(error) => Err(error),
            Ok(()) => Ok(queries),
        }
    }
}

/// The statements down. A seed client reads no manifest, so what it asks of the engine is said in the pragma.
fn down_queries(migration: &Migration, down: &str) -> Vec<String> {
    let mut queries = cut(down);
    if migration.manifest.legacy_alter_table == LegacyAlterTable::Down && !queries.is_empty() {
        queries.insert(0, "PRAGMA legacy_alter_table = ON".to_owned());
        queries.push("PRAGMA legacy_alter_table = OFF".to_owned());
    }
    queries
}

/// The statements of a text, each without its semicolon and without BEGIN and COMMIT: a seed client has its own
/// transaction around them.
fn cut(text: &str) -> Vec<String> {
    scan::statements(text)
        .iter()
        .filter(|statement| !matches!(scan::deed(statement), Deed::Transaction(_)))
        .map(|statement| statement.text(text).to_owned())
        .collect()
}

/// What the engine reads as a wish and does not run.
fn is_instruction(query: &str) -> bool {
    let statements = scan::statements(query);
    let deed = statements.first().map(scan::deed);
    matches!(deed, Some(Deed::Pragma { name, value: Some(_) })
        if matches!(name.as_str(), "foreign_keys" | "defer_foreign_keys" | "legacy_alter_table"))
}
