//! A migration's steps as the parts that are run one after the other. Loads that stand together are ordered by their
//! tables' foreign keys: parents are filled first, and emptied last.

use std::collections::BTreeMap;

use whimbrel_shared::{
    manifest::{Backfill, Load, Rebuild, Step},
    migration::Migration,
    status::Operation,
};

use super::{
    connection::Managed,
    error::ApplyError,
    rebuild::{self, Rebuilding},
    rows::{RowStep, backfill::Backfilling, load::Clearing, load::Loading},
    schema::SchemaReader,
};

/// One part of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Number of the step it belongs to, from 1.
    pub step: usize,
    /// What is done.
    pub work: Work,
}

/// What a part does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Runs a file's statements.
    Sql(String),
    /// Checks with a file's statements.
    Verify(String),
    /// Changes rows.
    Backfill(Backfill),
    /// Empties a table before its load.
    Clear(Load),
    /// Puts shipped rows in.
    Load(Load),
    /// Copies a table's rows into one of another shape, which then takes its place.
    Rebuild(Rebuild),
    /// Empties and drops the table that was replaced.
    Discard(Rebuild),
}

impl Unit {
    /// The migration and the step, for errors.
    pub fn place(&self, migration: &Migration) -> String {
        let what = match &self.work {
            Work::Sql(file) | Work::Verify(file) => file.clone(),
            Work::Backfill(backfill) => format!("backfill of {}", backfill.table),
            Work::Clear(load) => format!("clearing {}", load.into),
            Work::Load(load) => format!("load of {} into {}", load.file, load.into),
            Work::Rebuild(rebuild) => format!("rebuild of {}", rebuild.table),
            Work::Discard(rebuild) => format!("discarding the old {}", rebuild.table),
        };
        format!("{}, step {} ({what})", migration.name, self.step)
    }

    /// Whether its end is a change of the schema that is known by name.
    pub fn changes_schema(&self) -> bool {
        match self.work {
            Work::Sql(_) | Work::Rebuild(_) => true,
            Work::Verify(_) | Work::Backfill(_) | Work::Clear(_) | Work::Load(_) | Work::Discard(_) => false,
        }
    }

    /// Whether keys that the application touches are noted while it runs.
    pub fn catches(&self) -> bool {
        matches!(self.work, Work::Backfill(_) | Work::Rebuild(_))
    }

    /// The row step, if it is one, ready to run on the file as it is now.
    pub fn row_step(&self, managed: &Managed, migration: &Migration) -> Result<Option<RowStep>, ApplyError> {
        let place = self.place(migration);
        Ok(Some(match &self.work {
            Work::Sql(_) | Work::Verify(_) => return Ok(None),
            Work::Backfill(step) => RowStep::Backfill(Backfilling::new(managed, step, place)?),
            Work::Clear(load) => RowStep::Clear(Clearing::new(managed, &load.into, place)?),
            Work::Load(step) => {
                let text = migration.file(&step.file).expect("a verified migration has every file its steps name");
                RowStep::Load(Loading::new(managed, step, text, place)?)
            }
            Work::Rebuild(step) => RowStep::Rebuild(Box::new(Rebuilding::new(managed, step, self.step, migration, place)?)),
            Work::Discard(_) => RowStep::Clear(Clearing::of_ours(managed, &rebuild::aside(self.step), place)?),
        }))
    }
}

/// The parts of `migration`, in the order in which they run. Their number does not depend on the schema, so a part is
/// known by its place.
pub fn units(migration: &Migration, operation: Operation, schema: &SchemaReader) -> Result<Vec<Unit>, ApplyError> {
    let steps = match operation {
        Operation::Apply => migration.steps(),
        Operation::Revert => {
            let file = migration.down.clone().ok_or_else(|| ApplyError::NoDown(migration.name.clone()))?;
            return Ok(vec![Unit { step: 1, work: Work::Sql(file) }]);
        }
    };
    let mut units = Vec::with_capacity(steps.len());
    let mut loads: Vec<(usize, Load)> = Vec::new();
    for (at, step) in steps.into_iter().enumerate() {
        let step_number = at + 1;
        let work = match step {
            Step::Load(load) => {
                loads.push((step_number, load));
                continue;
            }
            Step::Sql { file } => Work::Sql(file),
            Step::Verify { file } => Work::Verify(file),
            Step::Backfill(backfill) => Work::Backfill(backfill),
            Step::Rebuild(rebuild) => Work::Rebuild(rebuild),
        };
        put_loads(&mut loads, schema, &mut units);
        let rest = if let Work::Rebuild(rebuild) = &work { Some(Work::Discard(rebuild.clone())) } else { None };
        units.extend(std::iter::once(work).chain(rest).map(|work| Unit { step: step_number, work }));
    }
    put_loads(&mut loads, schema, &mut units);
    Ok(units)
}

fn put_loads(loads: &mut Vec<(usize, Load)>, schema: &SchemaReader, units: &mut Vec<Unit>) {
    let tables: Vec<String> = loads.iter().map(|(_, load)| load.into.to_ascii_lowercase()).collect();
    let parents = |table: &String| schema.foreign_keys(table).iter().map(|k| k.parent.clone()).collect();
    let depth = depths(&tables, &parents);
    // Stable: what does not depend on each other stays in the author's order.
    loads.sort_by_key(|(_, load)| depth[&load.into.to_ascii_lowercase()]);
    let clears = loads.iter().rev().filter(|(_, load)| load.clear_existing);
    units.extend(clears.map(|(step, load)| Unit { step: *step, work: Work::Clear(load.clone()) }));
    units.extend(loads.drain(..).map(|(step, load)| Unit { step, work: Work::Load(load) }));
}

/// How many of `tables` each stands below. Tables that refer to each other in a circle are taken as they come.
pub(super) fn depths(tables: &[String], parents: &dyn Fn(&String) -> Vec<String>) -> BTreeMap<String, usize> {
    let mut depth: BTreeMap<String, usize> = tables.iter().map(|t| (t.clone(), 0)).collect();
    for _ in 0..tables.len() {
        for table in tables {
            let above = parents(table).iter().filter(|p| *p != table).filter_map(|p| depth.get(p)).max().map_or(0, |d| d + 1);
            if above > depth[table] && above < tables.len() {
                depth.insert(table.clone(), above);
            }
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_children_and_a_circle_ends() {
        let tables = ["c", "a", "b", "x", "y"].map(str::to_owned);
        let parents = |table: &String| -> Vec<String> {
            match table.as_str() {
                "b" => vec!["a".into(), "b".into()],
                "c" => vec!["b".into(), "elsewhere".into()],
                "x" => vec!["y".into()],
                "y" => vec!["x".into()],
                _ => Vec::new(),
            }
        };
        let depth = depths(&tables, &parents);
        assert!(depth["a"] < depth["b"] && depth["b"] < depth["c"], "{depth:?}");
    }
}
