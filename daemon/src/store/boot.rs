//! Boots of this machine, as stamps in a file name them (`_whimbrel_boot`). Every function runs inside the caller's
//! transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, at};

/// One boot, as a file knows it. Times in milliseconds; a beginning is since 1970, by some clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRow {
    /// What stands for it in stamps, from 1.
    pub number: u32,
    /// When it began, by the clock in whose time all stamps of this boot are.
    pub began_ms: i64,
    /// The same, by the clock as it was at the last fold.
    pub last_ms: i64,
    /// When the last fold was, since the machine started.
    pub folded_ms: i64,
    /// The server's time when it began, once it is known.
    pub server_ms: Option<i64>,
}

const COLUMNS: &str = "number, began_ms, last_ms, folded_ms, server_ms";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<BootRow> {
    Ok(BootRow { number: row.get(0)?, began_ms: row.get(1)?, last_ms: row.get(2)?, folded_ms: row.get(3)?, server_ms: row.get(4)? })
}

/// The boot with the kernel's id `boot`, if this file has seen it.
pub fn boot(connection: &Connection, boot: &str) -> Result<Option<BootRow>, StoreError> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM main._whimbrel_boot WHERE boot = ?1"))
        .and_then(|mut s| s.query_row([boot], read).optional())
        .map_err(at("reading the boots"))
}

/// A boot that this file has not seen, which began at `began_ms`.
pub fn begin(connection: &Connection, boot: &str, began_ms: i64) -> Result<BootRow, StoreError> {
    connection
        .prepare_cached("INSERT INTO main._whimbrel_boot (boot, began_ms, last_ms, folded_ms) VALUES (?1, ?2, ?2, 0)")
        .and_then(|mut s| s.insert(params![boot, began_ms]))
        .map(|number| BootRow { number: u32::try_from(number).unwrap_or(u32::MAX), began_ms, last_ms: began_ms, folded_ms: 0, server_ms: None })
        .map_err(at("noting a boot"))
}

/// Writes what changed of a boot.
pub fn put(connection: &Connection, row: &BootRow) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE main._whimbrel_boot SET last_ms = ?2, folded_ms = ?3, server_ms = ?4 WHERE number = ?1")
        .and_then(|mut s| s.execute(params![row.number, row.last_ms, row.folded_ms, row.server_ms]))
        .map(|_| ())
        .map_err(at("noting a boot"))
}

/// Every boot that this file has seen, the oldest first.
pub fn all(connection: &Connection) -> Result<Vec<BootRow>, StoreError> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM main._whimbrel_boot ORDER BY number"))
        .and_then(|mut s| s.query_map([], read)?.collect())
        .map_err(at("reading the boots"))
}
