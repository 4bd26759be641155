//! Where a table's rows are after a script: the difference between a rebuild, which carries them over, and a drop. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Deed;
use crate::publish::scan::TableKind;

/// What the migrations so far left behind.
#[derive(Clone, Debug, Default)]
pub(in crate::publish) struct SoFar {
    /// Tables with their kinds; lower case.
    pub tables: BTreeMap<String, TableKind>,
    /// Tables that exchange rows; lower case.
    pub synced: BTreeSet<String>,
}

/// Which tables' rows each table holds: its own, and those that were copied into it.
#[derive(Clone, Debug)]
pub(in crate::publish) struct Rows {
    holds: BTreeMap<String, (TableKind, BTreeSet<String>)>,
    /// What each dropped table held, by the statement that dropped it.
    dropped: Vec<(usize, BTreeSet<String>)>,
    /// Tables made by the script.
    pub made: BTreeSet<String>,
}

impl Rows {
    /// Every table of `so_far` holds its own.
    pub(in crate::publish) fn new(so_far: &SoFar) -> Self {
        Self {
            holds: so_far.tables.iter().map(|(t, kind)| (t.clone(), (*kind, BTreeSet::from([t.clone()])))).collect(),
            dropped: Vec::new(),
            made: BTreeSet::new(),
        }
    }

    /// Follows one statement, which has `index` in its migration.
    pub(in crate::publish) fn follow(&mut self, index: usize, deed: &Deed) {
        match deed {
            Deed::CreateTable { table, from, kind } => {
                let rows = self.all_of(from);
                // IF NOT EXISTS over one that is there changes nothing.
                if !self.holds.contains_key(table) {
                    self.holds.insert(table.clone(), (*kind, rows));
                    self.made.insert(table.clone());
                }
            }
            Deed::Insert { into: table, from } | Deed::Update { table, from, .. } => {
                let rows = self.all_of(from);
                if let Some((_, held)) = self.holds.get_mut(table) {
                    held.extend(rows);
                }
            }
            Deed::RenameTable { from, to } => {
                if let Some(held) = self.holds.remove(from) {
                    self.holds.insert(to.clone(), held);
                }
                if self.made.remove(from) {
                    self.made.insert(to.clone());
                }
            }
            Deed::DropTable { table } => {
                if let Some((_, held)) = self.holds.remove(table) {
                    self.dropped.push((index, held));
                }
                self.made.remove(table);
            }
            _ => {}
        }
    }

    fn all_of(&self, tables: &[String]) -> BTreeSet<String> {
        tables.iter().filter_map(|t| self.holds.get(t)).flat_map(|(_, held)| held.iter().cloned()).collect()
    }

    /// Whether the rows that `table` had at the beginning are in some table at the end.
    pub(super) fn survive(&self, table: &str) -> bool {
        self.holds.values().any(|(kind, held)| *kind != TableKind::Temporary && held.contains(table))
    }

    /// Whether `table` holds rows at the end that `from` had at the beginning.
    pub(in crate::publish) fn hold(&self, table: &str, from: &str) -> bool {
        self.holds.get(table).is_some_and(|(_, held)| held.contains(from))
    }

    /// The statements that dropped rows for good, each with the tables whose rows went.
    pub(super) fn lost(&self) -> Vec<(usize, Vec<&str>)> {
        self.dropped
            .iter()
            .map(|(index, held)| (*index, held.iter().map(String::as_str).filter(|t| !self.survive(t)).collect::<Vec<_>>()))
            .filter(|(_, lost)| !lost.is_empty())
            .collect()
    }

    /// Whether a table of this name is there at the end.
    pub(super) fn there(&self, table: &str) -> bool {
        self.holds.contains_key(table)
    }

    /// The tables at the end, with their kinds.
    pub(super) fn tables(&self) -> BTreeMap<String, TableKind> {
        self.holds.iter().filter(|(_, (kind, _))| *kind != TableKind::Temporary).map(|(t, (kind, _))| (t.clone(), *kind)).collect()
    }
}
