//! How large an application's tables are: rows and bytes. Counted as far as a time limit lets it, estimated beyond it. The
//! application is never in the way of it, nor it in the application's: it only reads, one statement at a time.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::{
    error::{ApplyError, sqlite},
    rows::table::quote,
};
use crate::store::private::open_database;

/// How long one database is looked at before the rest is estimated.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Between two interrupts of what runs past the limit.
const AGAIN: Duration = Duration::from_millis(10);
/// Most tables of a database that are shown.
const MOST_TABLES: usize = 10_000;

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSize {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its pages in the file, and of its indexes'.
    pub bytes: u64,
    /// Whether `rows` is a guess.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rows_estimated: bool,
    /// Whether `bytes` is a guess.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes_estimated: bool,
}

/// The tables of a file, the largest first, and the file's size in bytes. Tables of SQLite itself and ours are left out.
/// Takes about `limit` at most: what is not counted by then is estimated, and says so.
pub fn sizes(path: &std::path::Path, limit: Duration) -> Result<(Vec<TableSize>, u64), ApplyError> {
    let connection = open_database(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite("opening the file"))?;
    connection.busy_timeout(limit).map_err(sqlite("setting a timeout"))?;
    let deadline = Instant::now() + limit;
    let names: Vec<String> = connection
        .prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_whimbrel\\_%' ESCAPE '\\' LIMIT ?1",
        )
        .and_then(|mut s| s.query_map([MOST_TABLES as i64], |row| row.get(0))?.collect())
        .map_err(sqlite("reading the tables"))?;
    let file_bytes = number(&connection, "SELECT (SELECT * FROM pragma_page_count) * (SELECT * FROM pragma_page_size)")
        .map_err(sqlite("reading the file's size"))?;
    // `count(*)` is one step of SQLite's machine, however long it takes: a progress handler would not stop it.
    let (over, wait_for_end) = mpsc::channel::<()>();
    let interrupt = connection.get_interrupt_handle();
    let clock = std::thread::spawn(move || {
        let mut wait = limit;
        while wait_for_end.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
            interrupt.interrupt();
            wait = AGAIN;
        }
    });
    let mut found: Vec<TableSize> = Vec::with_capacity(names.len());
    for table in names {
        let in_time = |found: rusqlite::Result<u64>| found.ok().filter(|_| Instant::now() < deadline);
        let counted = in_time(number(&connection, &format!("SELECT count(*) FROM main.{}", quote(&table))));
        // Each table by itself: with a filter on the name, dbstat reads only its pages.
        let weighed = in_time(connection.query_row(
            "SELECT sum(d.pgsize) FROM main.sqlite_schema AS s, dbstat AS d WHERE s.tbl_name = ?1 COLLATE NOCASE AND s.rootpage > 0 AND d.name = s.name",
            [&table],
            |row| row.get::<_, Option<i64>>(0).map(|n| n.unwrap_or(0).unsigned_abs()),
        ));
        let (rows, rows_estimated) = (counted.unwrap_or(0), counted.is_none());
        let (bytes, bytes_estimated) = (weighed.unwrap_or(0), weighed.is_none());
        found.push(TableSize { table, rows, bytes, rows_estimated, bytes_estimated });
    }
    drop(over);
    // It ends at once; that it panicked cannot be.
    let _ = clock.join();
    for size in found.iter_mut().filter(|size| size.rows_estimated) {
        // Row ids are mostly dense; a table without them says nothing quickly.
        size.rows = number(&connection, &format!("SELECT max(_rowid_) - min(_rowid_) + 1 FROM main.{}", quote(&size.table))).unwrap_or(0);
    }
    share_the_rest(&mut found, file_bytes);
    found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.table.cmp(&b.table)));
    Ok((found, file_bytes))
}

fn number(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map(|n| n.unwrap_or(0).unsigned_abs())
}

/// Gives the tables that were not weighed what the others leave of the file, by their rows.
fn share_the_rest(found: &mut [TableSize], file_bytes: u64) {
    let known: u64 = found.iter().filter(|s| !s.bytes_estimated).map(|s| s.bytes).sum();
    let rows: u64 = found.iter().filter(|s| s.bytes_estimated).map(|s| s.rows.max(1)).sum();
    let rest = file_bytes.saturating_sub(known);
    for size in found.iter_mut().filter(|s| s.bytes_estimated) {
        size.bytes = (rest as f64 * size.rows.max(1) as f64 / rows.max(1) as f64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        (dir, path)
    }

    const ROWS: &str = "CREATE TABLE big(id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX big_text ON big(text); CREATE TABLE none(x);
        CREATE TABLE _whimbrel_meta(x); CREATE TABLE keyed(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO keyed VALUES (1, 2);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO big(text) SELECT printf('%0100d', i) FROM n;";

    #[test]
    fn tables_are_counted_and_weighed_with_their_indexes() {
        let (_dir, path) = file(ROWS);
        let (found, file_bytes) = sizes(&path, Duration::from_secs(60)).unwrap();
        let named: Vec<_> = found.iter().map(|s| (s.table.as_str(), s.rows, s.rows_estimated || s.bytes_estimated)).collect();
        assert_eq!(named, [("big", 5000, false), ("keyed", 1, false), ("none", 0, false)]);
        let total: u64 = found.iter().map(|s| s.bytes).sum();
        assert!(found[0].bytes > 1_000_000 && total < file_bytes, "{found:?} of {file_bytes}");
    }

    #[test]
    fn what_cannot_be_counted_in_time_is_estimated_and_says_so() {
        let (_dir, path) = file(ROWS);
        let (found, _) = sizes(&path, Duration::ZERO).unwrap();
        let big = &found[0];
        assert_eq!((big.table.as_str(), big.rows, big.rows_estimated, big.bytes_estimated), ("big", 5000, true, true));
        assert!(big.bytes > 500_000, "{found:?}");
    }
}
