//! Rows out: one consistent picture of the tables, parents before their children.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, types::Value};

use super::{ExportedTable, FORMAT, Header, Line, TransferError, may_open};
use crate::{
    migrate::{
        error::{ApplyError, sqlite},
        rows::table::{Table, quote, to_json},
        schema::SchemaReader,
        units::depths,
    },
    store::{managed, private::open_database},
};

/// Rows between two calls of `watch`.
const SHOWN_EVERY: u64 = 1_000;

/// Writes the rows of `tables`, or of all, as they are at one moment, and tells `watch` how many of how many are written.
/// With a write-ahead log the application goes on meanwhile, and its log is not emptied; with a rollback journal the file
/// is copied first, and the application's writers wait as long as the copy takes. Returns the first line. The database is
/// not changed.
pub fn export(path: &Path, tables: &[String], out: &mut dyn Write, watch: &mut dyn FnMut(u64, u64)) -> Result<Header, TransferError> {
    may_open(path)?;
    let connection = open(path)?;
    let copy = Copied::if_needed(&connection, path)?;
    let connection = match &copy {
        Some(copy) => {
            drop(connection);
            open(&copy.0)?
        }
        None => connection,
    };
    connection.execute_batch("BEGIN").map_err(sqlite("beginning to read"))?;
    let mut schema = SchemaReader::default();
    schema.read(&connection).map_err(sqlite("reading the schema"))?;
    let names = chosen(&connection, &schema, tables)?;
    let count = |table: &String| -> Result<ExportedTable, ApplyError> {
        let sql = format!("SELECT count(*) FROM main.{}", quote(table));
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).map_err(sqlite("counting rows"))?;
        Ok(ExportedTable { table: table.clone(), rows: rows.unsigned_abs() })
    };
    let counted = names.iter().map(count).collect::<Result<Vec<_>, _>>()?;
    let app = managed::is_prepared(&connection).unwrap_or(false).then(|| managed::identity(&connection).ok()).flatten().map(|i| i.app);
    let header = Header { whimbrel_export: FORMAT, app, fingerprint: schema.schema().digest(), tables: counted };
    let total = header.tables.iter().map(|t| t.rows).sum();
    let mut done = 0;
    line(out, &header)?;
    for table in &names {
        write_rows(&connection, table, out, &mut |rows| {
            done += rows;
            watch(done, total);
        })?;
    }
    out.flush().map_err(lost)?;
    Ok(header)
}

fn open(path: &Path) -> Result<Connection, TransferError> {
    // Not read-only: a journal that a crash left is rolled back first.
    let connection = open_database(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite("opening the file"))?;
    connection.busy_timeout(std::time::Duration::from_secs(30)).map_err(sqlite("setting a timeout"))?;
    connection.pragma_update(None, "query_only", true).map_err(sqlite("setting up the connection"))?;
    Ok(connection)
}

/// A copy of the file that goes when it is dropped.
struct Copied(PathBuf);

impl Copied {
    /// Copies a file with a rollback journal, whose writers would wait for us as long as we read.
    fn if_needed(connection: &Connection, path: &Path) -> Result<Option<Self>, TransferError> {
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(sqlite("reading the journal mode"))?;
        if mode.eq_ignore_ascii_case("wal") {
            return Ok(None);
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-whimbrel-export-{}", std::process::id()));
        let copy = PathBuf::from(name);
        let io = |source| TransferError::Io { path: copy.clone(), source };
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        connection.execute_batch("BEGIN; SELECT count(*) FROM main.sqlite_schema").map_err(sqlite("beginning to read"))?;
        let mut to = options.open(&copy).map_err(io)?;
        let kept = Self(copy.clone());
        // Closing this handle ends SQLite's own locks of this process (POSIX), so it is closed after the last byte was read.
        let mut from = File::open(path).map_err(io)?;
        io::copy(&mut from, &mut to).map_err(io)?;
        Ok(Some(kept))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Nobody else knows of it; what cannot be removed is named like what it is.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The tables that are meant, each after those that it refers to.
fn chosen(connection: &Connection, schema: &SchemaReader, wanted: &[String]) -> Result<Vec<String>, TransferError> {
    let there: Vec<String> = connection
        .prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_whimbrel\\_%' ESCAPE '\\' ORDER BY name",
        )
        .and_then(|mut s| s.query_map([], |row| row.get(0))?.collect())
        .map_err(sqlite("reading the tables"))?;
    if let Some(missing) = wanted.iter().find(|table| !there.iter().any(|t| t.eq_ignore_ascii_case(table))) {
        return Err(TransferError::NoTable { table: missing.clone(), there });
    }
    let mut names: Vec<String> =
        there.into_iter().filter(|table| wanted.is_empty() || wanted.iter().any(|w| w.eq_ignore_ascii_case(table))).collect();
    let lower: Vec<String> = names.iter().map(|table| table.to_ascii_lowercase()).collect();
    let depth = depths(&lower, &|table: &String| schema.foreign_keys(table).iter().map(|k| k.parent.clone()).collect());
    names.sort_by_key(|table| depth[&table.to_ascii_lowercase()]);
    Ok(names)
}

fn write_rows(connection: &Connection, name: &str, out: &mut dyn Write, wrote: &mut dyn FnMut(u64)) -> Result<(), TransferError> {
    let Some(table) = Table::read(connection, name)? else { return Ok(()) };
    // What is generated from other columns cannot be put in again.
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")
        .and_then(|mut s| s.query_map([name], |row| row.get(0))?.collect())
        .map_err(sqlite("reading the columns"))?;
    let list: Vec<String> = columns.iter().map(|column| quote(column)).collect();
    let order = if table.key.is_empty() { String::new() } else { format!(" ORDER BY {}", table.key_list()) };
    let sql = format!("SELECT {} FROM {}{order}", list.join(", "), table.quoted);
    let mut statement = connection.prepare(&sql).map_err(sqlite("reading rows"))?;
    let mut rows = statement.query([]).map_err(sqlite("reading rows"))?;
    let mut pending = 0;
    while let Some(row) = rows.next().map_err(sqlite("reading rows"))? {
        let values = columns.iter().enumerate().map(|(at, column)| Ok((column.clone(), to_json(&row.get::<_, Value>(at)?))));
        let row = values.collect::<rusqlite::Result<_>>().map_err(sqlite("reading a row"))?;
        line(out, &Line { table: table.name.clone(), row })?;
        pending += 1;
        if pending == SHOWN_EVERY {
            wrote(std::mem::take(&mut pending));
        }
    }
    wrote(pending);
    Ok(())
}

fn line(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), TransferError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from).and_then(|()| out.write_all(b"\n")).map_err(lost)
}

fn lost(source: io::Error) -> TransferError {
    TransferError::Io { path: PathBuf::from("the output"), source }
}
