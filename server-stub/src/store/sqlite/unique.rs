//! Unique sets of a space: which values are in use, and by which row, in SQLite.

use std::collections::{HashMap, hash_map::Entry};

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{
    resolve::State,
    synced::{KeyColumn, Synced},
    value::Value,
};

use super::{
    lifting::Lifting,
    natural,
    record::{self, Writers},
};
use crate::{decide::rows::index_bytes, store::StoreError};

/// The sets of the tables that one push touches, each with its number.
#[derive(Default)]
pub(super) struct UniqueSets(HashMap<u32, Vec<(i64, Vec<KeyColumn>)>>);

/// A row as far as sets are concerned.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) space: i64,
    pub(super) table: &'a Synced,
    /// Its key in the index.
    pub(super) index: &'a [u8],
    /// Its key.
    pub(super) key: &'a [Value],
    /// The version in whose terms rows are.
    pub(super) version: u32,
}

/// Another row has the values of a set.
pub(super) struct TakenBy {
    /// The set's columns.
    pub(super) columns: Vec<u32>,
    /// That row's key in the index.
    pub(super) index: Vec<u8>,
}

impl UniqueSets {
    /// Moves a row's values from `before` to `after`. Where another row has one, nothing is moved.
    pub(super) fn claim(
        &mut self,
        tx: &Transaction<'_>,
        writers: &mut impl Writers,
        lifting: &mut Lifting,
        at: At<'_>,
        before: Option<&State>,
        after: &State,
    ) -> Result<Option<TakenBy>, StoreError> {
        if at.table.unique.is_empty() {
            return Ok(None);
        }
        let sets = self.of(tx, writers, lifting, at)?;
        let mut moves = Vec::new();
        for (set, columns) in sets {
            let old = before.and_then(|state| values(columns, at.table, at.key, state));
            let new = values(columns, at.table, at.key, after);
            if old == new {
                continue;
            }
            if let Some(new) = &new {
                let mut query = tx.prepare_cached("SELECT key FROM unique_value WHERE set_id = ?1 AND value = ?2")?;
                let owner: Option<Vec<u8>> = query.query_row((set, new), |row| row.get(0)).optional()?;
                if let Some(owner) = owner.filter(|owner| owner != at.index) {
                    return Ok(Some(TakenBy { columns: columns.iter().map(|c| c.0).collect(), index: owner }));
                }
            }
            moves.push((*set, old, new));
        }
        for (set, old, new) in moves {
            if let Some(old) = old {
                tx.prepare_cached("DELETE FROM unique_value WHERE set_id = ?1 AND value = ?2 AND key = ?3")?.execute((set, old, at.index))?;
            }
            if let Some(new) = new {
                tx.prepare_cached("INSERT INTO unique_value (set_id, value, key) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
                    .execute((set, new, at.index))?;
            }
        }
        Ok(None)
    }

    /// A row gives up the values that it has in `state`, to claim them anew.
    pub(super) fn release(
        &mut self,
        tx: &Transaction<'_>,
        writers: &mut impl Writers,
        lifting: &mut Lifting,
        at: At<'_>,
        state: &State,
    ) -> Result<(), StoreError> {
        for (set, columns) in self.of(tx, writers, lifting, at)? {
            if let Some(value) = values(columns, at.table, at.key, state) {
                tx.prepare_cached("DELETE FROM unique_value WHERE set_id = ?1 AND value = ?2 AND key = ?3")?.execute((set, value, at.index))?;
            }
        }
        Ok(())
    }

    fn of(
        &mut self,
        tx: &Transaction<'_>,
        writers: &mut impl Writers,
        lifting: &mut Lifting,
        at: At<'_>,
    ) -> Result<&[(i64, Vec<KeyColumn>)], StoreError> {
        match self.0.entry(at.table.table) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let sets = at.table.unique.iter().map(|columns| Ok((ensure_set(tx, writers, lifting, at, columns)?, columns.clone())));
                Ok(new.insert(sets.collect::<Result<Vec<_>, StoreError>>()?))
            }
        }
    }
}

/// The number of a set. One that is new (a migration made it) is filled with what is there; where two rows have the same
/// values already, the first by version has them, and the other stays as it is.
fn ensure_set(tx: &Transaction<'_>, writers: &mut impl Writers, lifting: &mut Lifting, at: At<'_>, columns: &[KeyColumn]) -> Result<i64, StoreError> {
    let name = serde_json::to_string(columns).map_err(|e| StoreError::Damaged(e.to_string()))?;
    let mut query = tx.prepare_cached("SELECT id FROM unique_set WHERE space_id = ?1 AND table_id = ?2 AND columns = ?3")?;
    let known: Option<i64> = query.query_row((at.space, at.table.table, &name), |row| row.get(0)).optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    tx.execute("INSERT INTO unique_set (space_id, table_id, columns) VALUES (?1, ?2, ?3)", (at.space, at.table.table, &name))?;
    let set = tx.last_insert_rowid();
    let mut rows =
        tx.prepare("SELECT version, key, record FROM synced_row WHERE space_id = ?1 AND table_id = ?2 AND deleted_at_ms IS NULL ORDER BY version")?;
    let mut rows = rows.query((at.space, at.table.table))?;
    let mut insert = tx.prepare("INSERT INTO unique_value (set_id, value, key) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?;
    while let Some(row) = rows.next()? {
        let mut found = record::decode(row.get_ref(2)?.as_blob().map_err(|e| StoreError::Damaged(e.to_string()))?, natural(row, 0)?, writers)?;
        lifting.complete(at.table.table, &found.key, &mut found.state, found.level, at.version);
        if let Some(value) = values(columns, at.table, &found.key, &found.state) {
            insert.execute((set, value, row.get::<_, Vec<u8>>(1)?))?;
        }
    }
    Ok(set)
}

/// The row's values in a set; none where one is NULL or not said, which is equal to nothing.
fn values(columns: &[KeyColumn], table: &Synced, key: &[Value], state: &State) -> Option<Vec<u8>> {
    if state.is_deleted() {
        return None;
    }
    let value = |column: &KeyColumn| match table.key.iter().position(|k| k.0 == column.0) {
        Some(at) => key.get(at),
        None => state.cells().iter().find(|held| held.column == column.0).map(|held| &held.value),
    };
    let values: Option<Vec<&Value>> = columns.iter().map(|c| value(c).filter(|v| **v != Value::Null)).collect();
    values.map(|values| index_bytes(columns, values.into_iter()))
}
