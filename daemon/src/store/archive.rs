//! Values that were not sent and have no place any more (`_whimbrel_archive`). Every function runs inside the caller's
//! transaction.

use rusqlite::{Connection, params};

use super::{StoreError, at, key::KeyValue};

/// What is kept of one value, or of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// When it was put here, in milliseconds since 1970.
    pub at_ms: i64,
    /// The version at which it had a place.
    pub version: u32,
    /// Why it has none any more, in words.
    pub why: String,
    /// Its table's id, and its name then.
    pub table: (u32, String),
    /// The row's key, as JSON.
    pub key: String,
    /// Its column's id, and its name then; none: the row was deleted, and that was not sent.
    pub column: Option<(u32, String)>,
    /// The value; none: NULL, or it is not known.
    pub value: Option<KeyValue>,
    /// When it was written, by the application's clock.
    pub wall_ms: i64,
}

/// Puts one value into the archive.
pub fn put(connection: &Connection, one: &Archived) -> Result<(), StoreError> {
    let (id, name) = (one.column.as_ref().map(|c| c.0), one.column.as_ref().map(|c| &c.1));
    connection
        .prepare_cached(
            "INSERT INTO main._whimbrel_archive (at_ms, version, why, tab, name, key, col, column_name, value, wall_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .and_then(|mut s| s.execute(params![one.at_ms, one.version, one.why, one.table.0, one.table.1, one.key, id, name, one.value, one.wall_ms]))
        .map(|_| ())
        .map_err(at("archiving a value"))
}

/// The number of the newest entry; 0: there is none.
pub fn last(connection: &Connection) -> Result<i64, StoreError> {
    connection
        .prepare_cached("SELECT coalesce(max(id), 0) FROM main._whimbrel_archive")
        .and_then(|mut s| s.query_row([], |row| row.get(0)))
        .map_err(at("reading the archive"))
}

/// Takes out what was put in after entry `mark` of one column: it has a place after all.
pub fn forget_column(connection: &Connection, mark: i64, table: u32, column: u32) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_archive WHERE id > ?1 AND tab = ?2 AND col = ?3")
        .and_then(|mut s| s.execute(params![mark, table, column]))
        .map(|_| ())
        .map_err(at("taking a value out of the archive"))
}

/// Takes out what was put in after entry `mark` of one value, or of one row that was deleted.
pub fn forget_value(connection: &Connection, mark: i64, table: u32, key: &str, column: Option<u32>) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_archive WHERE id > ?1 AND tab = ?2 AND key = ?3 AND col IS ?4")
        .and_then(|mut s| s.execute(params![mark, table, key, column]))
        .map(|_| ())
        .map_err(at("taking a value out of the archive"))
}

/// Values in it.
pub fn count(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .query_row("SELECT count(*) FROM main._whimbrel_archive", [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .map_err(at("counting the archive"))
}
