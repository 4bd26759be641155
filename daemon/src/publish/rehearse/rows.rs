//! Backfills and rebuilds on made-up rows. On an empty table a row step does nothing, and what is wrong with it shows at a device. So a
//! row is made up in front of the migration, once with a value in each column and once with NULL wherever that is
//! allowed, and the migration runs on it. What a table's constraints make impossible is left out, and what is found is a
//! hint: nobody knows which rows there are.

use whimbrel_shared::{manifest::Step, status::Operation};

use super::{Fell, RehearsalError, Stage};
use crate::{
    migrate::{
        error::{ApplyError, sqlite},
        rows::table::{Table, affinity, quote},
    },
    publish::layout::Authored,
};

/// What is in the made-up row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// A value in each column.
    Values,
    /// NULL wherever it is allowed.
    Nulls,
}

/// What a backfill does to a made-up row that it should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// Whether the row matches `where` again after its own change: the device would stop.
    pub(super) again: bool,
    /// What happened, to which row.
    pub(super) what: String,
}

impl Stage {
    /// Runs the migration on a made-up row of each table that it backfills or rebuilds. The file is left as it was found.
    pub(super) fn made_up(&mut self, authored: &Authored) -> Result<Vec<Hint>, RehearsalError> {
        let mut hints: Vec<Hint> = Vec::new();
        let steps = authored.migration.steps();
        let table = |step| match step {
            Step::Backfill(backfill) => Some(backfill.table),
            Step::Rebuild(rebuild) => Some(rebuild.table),
            Step::Sql { .. } | Step::Verify { .. } | Step::Load(_) => None,
        };
        let tables: Vec<String> = steps.into_iter().filter_map(table).collect();
        if tables.is_empty() {
            return Ok(hints);
        }
        for (filling, row) in [(Filling::Values, "a row with a value in each column"), (Filling::Nulls, "a row with NULL wherever it is allowed")] {
            let result: Result<(), Fell> = self.within(authored, |stage| {
                if !stage.fill(&tables, filling)? {
                    return Err(Fell::Said(String::new()));
                }
                // Always an error: what was done here is rolled back.
                Err(match stage.run(&authored.migration, Operation::Apply, None) {
                    Ok(_) => Fell::Said(String::new()),
                    Err(error) => Fell::Engine(error),
                })
            });
            match result {
                Err(Fell::Engine(ApplyError::NotIdempotent { place, .. })) => {
                    hints.push(Hint {
                        again: filling == Filling::Values,
                        what: format!("{place}: {row} matches its `where` again after its own change"),
                    });
                }
                Err(Fell::Engine(ApplyError::Row { place, message, .. })) => {
                    hints.push(Hint { again: false, what: format!("{place}: {row} fails: {message}") })
                }
                // What does not come from a row is found on the empty database, where it is said with its place.
                Err(_) | Ok(()) => {}
            }
        }
        Ok(hints)
    }

    /// Puts a row into each table that is there. `false`: none could be.
    fn fill(&self, tables: &[String], filling: Filling) -> Result<bool, ApplyError> {
        let connection = &self.managed.connection;
        let mut any = false;
        for name in tables {
            let Some(table) = Table::read(connection, name)? else { continue };
            let mut statement = connection
                .prepare("SELECT name, type, \"notnull\" OR pk > 0 FROM pragma_table_xinfo(?1) WHERE hidden = 0")
                .map_err(sqlite("making up a row"))?;
            let columns: Vec<(String, String, bool)> = statement
                .query_map([&table.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .and_then(Iterator::collect)
                .map_err(sqlite("making up a row"))?;
            let names: Vec<String> = columns.iter().map(|(name, _, _)| quote(name)).collect();
            let values: Vec<&str> =
                columns.iter().map(|(_, kind, needed)| if *needed || filling == Filling::Values { value(kind) } else { "NULL" }).collect();
            let sql = format!("INSERT OR IGNORE INTO {} ({}) VALUES ({})", table.quoted, names.join(", "), values.join(", "));
            // A CHECK or a trigger may refuse it: then nothing is known about this table's rows.
            any |= connection.execute(&sql, []).is_ok_and(|rows| rows > 0);
        }
        Ok(any)
    }
}

/// A value that a column of this declared type holds as it is.
fn value(kind: &str) -> &'static str {
    match affinity(kind) {
        "INTEGER" => "1",
        "TEXT" => "'a b'",
        "BLOB" => "x'00'",
        _ => "1.5",
    }
}
