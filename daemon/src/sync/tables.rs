//! The tables that exchange rows at the version that a file has completed, as they are in the file.

use std::collections::BTreeMap;

use rusqlite::Connection;
use whimbrel_shared::{
    columns::ColumnMap,
    manifest::Direction,
    synced::{Synced, SyncedTables},
};

use super::{
    capture::captured,
    classify::classify,
    error::SyncError,
    foreign::{ForeignKey, foreign_keys},
    shape::{Captured, Collation, Mode},
};

/// One table.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// Its columns as they are in the file; none where its rows can neither be read nor written.
    pub shape: Option<Captured>,
    /// How it exchanges rows.
    pub rules: Synced,
    /// How the columns of its key are compared.
    pub collations: Vec<Collation>,
}

impl Exchanged {
    /// Its shape where what changes in it is sent.
    pub fn sends(&self) -> Option<&Captured> {
        self.shape.as_ref().filter(|_| self.rules.direction != Direction::Pull)
    }

    /// Its shape where rows of the server land in it.
    pub fn lands(&self) -> Option<&Captured> {
        self.shape.as_ref().filter(|shape| self.rules.direction != Direction::Push && !shape.push_only)
    }
}

/// All of them, by id.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    by_id: BTreeMap<u32, Exchanged>,
    /// Between any two of them, or between one and a table that exchanges none.
    pub(super) foreign: Vec<ForeignKey>,
}

impl Tables {
    /// Those of `synced`, as they are captured; those that rows only land in are looked at. Only reads.
    pub fn open(connection: &Connection, map: &ColumnMap, synced: &SyncedTables) -> Result<Self, SyncError> {
        let mut shapes: BTreeMap<u32, Captured> = captured(connection)?.into_iter().map(|c| (c.id, c)).collect();
        let mut by_id = BTreeMap::new();
        for (id, rules) in &synced.0 {
            let shape = match (shapes.remove(id), map.table_by_id(*id)) {
                (Some(shape), _) => Some(shape),
                (None, Some(columns)) if rules.direction == Direction::Pull => classify(connection, columns, Mode::Mask)?.captured,
                (None, _) => None,
            };
            let collation = |k: &whimbrel_shared::synced::KeyColumn| match k.1 {
                whimbrel_shared::synced::Collation::Binary => Collation::Binary,
                whimbrel_shared::synced::Collation::Nocase => Collation::NoCase,
                whimbrel_shared::synced::Collation::Rtrim => Collation::RTrim,
            };
            let collations = shape.as_ref().map_or_else(|| rules.key.iter().map(collation).collect(), Captured::collations);
            by_id.insert(*id, Exchanged { shape, rules: rules.clone(), collations });
        }
        let names: Vec<(u32, String)> = by_id.iter().filter_map(|(id, t)| Some((*id, t.shape.as_ref()?.name.clone()))).collect();
        let foreign = foreign_keys(connection, &names)?;
        Ok(Self { by_id, foreign })
    }

    /// One by its id.
    pub fn get(&self, id: u32) -> Option<&Exchanged> {
        self.by_id.get(&id)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Exchanged)> {
        self.by_id.iter().map(|(id, table)| (*id, table))
    }

    /// How many columns the key of a table has.
    pub fn key_columns(&self, id: u32) -> Option<usize> {
        self.by_id.get(&id).map(|t| t.collations.len())
    }
}
