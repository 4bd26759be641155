//! What the backfills of a migration fill, asked of SQLite at the step's own place in it: the columns that it names may be
//! there only then.

use whimbrel_shared::{
    manifest::{Backfill, Step},
    status::Operation,
};

use super::{Fell, RehearsalError, Stage, sqlite};
use crate::{
    migrate::{
        perform::{AtStep, perform},
        rows::table::Table,
        units::{Work, units},
    },
    publish::{
        columns::own_row::{self, Filled},
        layout::Authored,
    },
};

/// What was found before the migration ran.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Each backfill with what it fills; none where that could not be asked.
    backfills: Vec<(Backfill, Option<Filled>)>,
    /// Expressions of `carry.key` that depend on more than their row: table, column, why.
    pub(super) bad_keys: Vec<(String, String, String)>,
}

impl Stage {
    /// Asks. The file is left as it was found.
    pub(super) fn examine(&mut self, authored: &Authored) -> Result<Examined, RehearsalError> {
        let migration = &authored.migration;
        let mut examined = Examined::default();
        for carry in &migration.manifest.carry {
            let Some((create, column)) = self.made_by(&carry.table)? else { continue };
            for (key, expression) in &carry.key {
                let why = own_row::depends(&carry.table, &create, &column, expression);
                examined.bad_keys.extend(why.into_iter().map(|why| (carry.table.clone(), key.clone(), why)));
            }
        }
        let steps = migration.steps();
        let is_backfill = |step: &Step| matches!(step, Step::Backfill(_));
        if !steps.iter().any(is_backfill) {
            return Ok(examined);
        }
        let mut found: Vec<(Backfill, Option<Filled>)> = Vec::new();
        // What fails here fails when it runs, and is said then with its place.
        let _: Result<(), Fell> = self.within(authored, |stage| {
            let count = units(migration, Operation::Apply, &stage.managed.schema)?.len();
            for at in 0..count {
                let unit = units(migration, Operation::Apply, &stage.managed.schema)?.swap_remove(at);
                if let Work::Backfill(step) = &unit.work {
                    found.push((step.clone(), stage.fills(step).map_err(|e| Fell::Said(e.to_string()))?));
                }
                perform(&mut stage.managed, migration, std::slice::from_ref(&unit), None, &stage.known, &mut |_: AtStep| {})?;
            }
            // Always an error: what was done here is rolled back.
            Err(Fell::Said(String::new()))
        });
        let asked = found.len();
        let rest = steps.into_iter().filter_map(|step| if let Step::Backfill(step) = step { Some((step, None)) } else { None }).skip(asked);
        examined.backfills = found.into_iter().chain(rest).collect();
        Ok(examined)
    }

    /// What is filled, once the migration ran: what could not be asked at its place is asked of the schema that it leaves.
    pub(super) fn filled(&self, examined: &Examined) -> Result<Vec<Filled>, RehearsalError> {
        let one = |(step, filled): &(Backfill, Option<Filled>)| match filled {
            Some(filled) => Ok(filled.clone()),
            None => Ok(self.fills(step)?.unwrap_or_else(|| Filled {
                table: step.table.clone(),
                columns: Vec::new(),
                refused: vec!["its `set` and `where` cannot be compiled over the table by itself".to_owned()],
                create: String::new(),
                names: Vec::new(),
            })),
        };
        examined.backfills.iter().map(one).collect()
    }

    fn fills(&self, step: &Backfill) -> Result<Option<Filled>, RehearsalError> {
        Ok(self.made_by(&step.table)?.and_then(|(create, _)| own_row::filled(&step.table, &create, &step.set, &step.filter)))
    }

    /// The text of a table's CREATE, and its first column.
    fn made_by(&self, table: &str) -> Result<Option<(String, String)>, RehearsalError> {
        let connection = &self.managed.connection;
        let Some(found) = Table::read(connection, table)? else { return Ok(None) };
        let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
        let create: String = connection.query_row(sql, [&found.name], |row| row.get(0)).map_err(sqlite("reading the schema"))?;
        Ok(found.columns.first().map(|column| (create, column.clone())))
    }
}
