//! What tables and columns are called, for whoever reads the file without the chain: the application, through the views.

use std::collections::BTreeMap;

use rusqlite::Connection;
use whimbrel_shared::{columns::ColumnMap, synced::SyncedTables};

use super::error::{SyncError, sqlite};

/// Writes the names of the tables that exchange rows, and of their columns, in place of those that were there. Inside the
/// caller's write transaction.
pub fn write(connection: &Connection, map: &ColumnMap, synced: &SyncedTables) -> Result<(), SyncError> {
    let doing = "writing the names of tables and columns";
    connection.execute("DELETE FROM main._whimbrel_name", []).map_err(sqlite(doing))?;
    let mut put = connection.prepare_cached("INSERT INTO main._whimbrel_name (tab, col, name) VALUES (?1, ?2, ?3)").map_err(sqlite(doing))?;
    for table in synced.0.keys().filter_map(|id| map.table_by_id(*id)) {
        put.execute((table.id, 0, &table.name)).map_err(sqlite(doing))?;
        for column in &table.columns {
            put.execute((table.id, column.id, &column.name)).map_err(sqlite(doing))?;
        }
    }
    Ok(())
}

/// The names of tables, by id.
pub fn tables(connection: &Connection) -> Result<BTreeMap<u32, String>, SyncError> {
    connection
        .prepare_cached("SELECT tab, name FROM main._whimbrel_name WHERE col = 0")
        .and_then(|mut s| s.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(sqlite("reading the names of tables"))
}
