//! Rows of a captured table as the values that go over the wire, exact to the bit.

use rusqlite::{
    CachedStatement, Connection, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};
use whimbrel_shared::{sql::quote, value::Value};

use super::{
    error::{SyncError, sqlite},
    hash::{Stored, hash},
    rows::unreadable,
    shape::Captured,
};
use crate::store::key::{Collation, Key, KeyValue};

/// A value as a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'v>(pub(super) &'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(n) => ValueRef::Integer(*n),
            Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A stored value.
pub(super) fn value(stored: ValueRef<'_>) -> Value {
    match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(r) => Value::real(r),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// The hash that is recorded of a value in the file.
pub(super) fn recorded_hash(value: &Value) -> u64 {
    hash(match value {
        Value::Null => Stored::Null,
        Value::Integer(n) => Stored::Integer(*n),
        Value::Real(bits) => Stored::Real(f64::from_bits(*bits)),
        Value::Text(bytes) => Stored::Text(bytes),
        Value::Blob(bytes) => Stored::Blob(bytes),
    })
}

/// A key from the wire as our own tables have it; none where it has a NULL or another number of columns.
pub fn canonical(key: &[Value], collations: &[Collation]) -> Option<Key> {
    spelled(key).filter(|k| k.0.len() == collations.len()).map(|k| k.canonical(collations))
}

/// A key from the wire, as it is spelled; none where it has a NULL.
pub(super) fn spelled(key: &[Value]) -> Option<Key> {
    key.iter().map(kept).collect::<Option<Vec<_>>>().map(Key)
}

/// A value as our own tables keep it; none for NULL.
pub(super) fn kept(value: &Value) -> Option<KeyValue> {
    match value {
        Value::Null => None,
        Value::Integer(n) => Some(KeyValue::Integer(*n)),
        Value::Real(bits) => Some(KeyValue::Real(*bits)),
        Value::Text(bytes) => Some(KeyValue::Text(bytes.clone())),
        Value::Blob(bytes) => Some(KeyValue::Blob(bytes.clone())),
    }
}

/// A key of our own tables, or as it is spelled in a row, for the wire.
pub fn told(key: &Key) -> Vec<Value> {
    key.values()
}

/// A row with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its key as it is spelled.
    pub key: Vec<Value>,
    /// Its other columns, by ascending id.
    pub cells: Vec<(u32, Value)>,
}

impl Whole {
    /// The value of a column.
    pub fn cell(&self, column: u32) -> Option<&Value> {
        self.cells.binary_search_by_key(&column, |(id, _)| *id).ok().map(|at| &self.cells[at].1)
    }
}

/// The hashes of a key's own spelling, by column id: of columns in which texts that differ can be one key.
pub(super) fn spelling<'k>(table: &'k Captured, key: &'k [Value]) -> impl Iterator<Item = (u32, u64)> + 'k {
    table.key.iter().zip(key).filter(|(column, _)| column.is_loose()).map(|(column, value)| (column.id, recorded_hash(value)))
}

/// Reads rows of one table by their keys.
pub(super) struct Values<'c, 't> {
    table: &'t Captured,
    statement: CachedStatement<'c>,
}

impl<'c, 't> Values<'c, 't> {
    /// Of `table`.
    /// # Errors
    /// [`SyncError::Unreadable`] when the table, or a column of it, is not there any more.
    pub(super) fn open(connection: &'c Connection, table: &'t Captured) -> Result<Self, SyncError> {
        let names = table.key.iter().map(|k| &k.name).chain(table.columns.iter().map(|c| &c.name));
        let list = names.map(|name| format!("t.{}", quote(name))).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {list} FROM main.{} AS t WHERE {}", quote(&table.name), by_key(table, "t."));
        let doing = "reading a row to send it";
        let statement = connection.prepare_cached(&sql).map_err(|e| unreadable(&table.name, doing, e))?;
        Ok(Self { table, statement })
    }

    /// The row with this key, in any of its spellings.
    pub(super) fn read(&mut self, key: &Key) -> Result<Option<Whole>, SyncError> {
        let doing = "reading a row to send it";
        let name = &self.table.name;
        let mut rows = self.statement.query(params_from_iter(&key.0)).map_err(|e| unreadable(name, doing, e))?;
        let Some(row) = rows.next().map_err(|e| unreadable(name, doing, e))? else { return Ok(None) };
        let read = |at: usize| Ok(value(row.get_ref(at)?));
        let keys = self.table.key.len();
        let key = (0..keys).map(read).collect::<rusqlite::Result<_>>().map_err(sqlite(doing))?;
        let cells = self.table.columns.iter().enumerate().map(|(at, column)| Ok((column.id, read(keys + at)?)));
        let cells = cells.collect::<rusqlite::Result<_>>().map_err(sqlite(doing))?;
        Ok(Some(Whole { key, cells }))
    }
}

/// The condition that finds a row by its key, as parameters from 1 on.
pub(super) fn by_key(table: &Captured, prefix: &str) -> String {
    let one = |(n, k): (usize, &super::shape::KeyColumn)| format!("{prefix}{} = ?{} COLLATE {}", quote(&k.name), n + 1, k.collation.name());
    table.key.iter().enumerate().map(one).collect::<Vec<_>>().join(" AND ")
}
