//! A key-value store in a table of an SQLite file: one short transaction per entry, beside whoever else uses the file.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension, types::ValueRef};
use whimbrel_shared::queue::KeyValue;

use super::{Columns, KvError};
use crate::store::private::open_database;

/// How long the queue's own workers are waited for, for each entry.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open table.
#[derive(Debug)]
pub struct Table {
    connection: Connection,
    table: String,
    key: String,
    value: String,
    /// What else a row has, and a copy gets too: an expiry.
    rest: Vec<String>,
}

impl Table {
    pub(super) fn open(path: &Path, columns: &Columns) -> Result<Self, KvError> {
        // No CREATE: a wrong path is an error and no empty queue.
        let connection = open_database(&std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()), OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(sqlite("opening the store"))?;
        connection.busy_timeout(PATIENCE).map_err(sqlite("opening the store"))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite("opening the store"))?;

        let tables = texts(&connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name", [])?;
        let Some(table) = tables.iter().find(|t| t.eq_ignore_ascii_case(&columns.table)).cloned() else {
            return Err(KvError::NotThere { what: "table", name: columns.table.clone(), there: tables });
        };
        let there = texts(&connection, "SELECT name FROM pragma_table_info(?1)", [&table])?;
        let column = |name: &str| {
            let found = there.iter().find(|c| c.eq_ignore_ascii_case(name));
            found.cloned().ok_or_else(|| KvError::NotThere { what: "column", name: name.to_owned(), there: there.clone() })
        };
        let (key, value) = (column(&columns.key)?, column(&columns.value)?);
        // A number of its own stays its own: the copy gets another.
        let own = texts(&connection, "SELECT name FROM pragma_table_info(?1) WHERE pk > 0", [&table])?;
        let rest = there.into_iter().filter(|c| *c != key && *c != value && !own.contains(c)).collect();
        Ok(Self { table: quoted(&table), key: quoted(&key), value: quoted(&value), rest, connection })
    }

    /// Waits for nobody any more.
    #[cfg(test)]
    pub(super) fn do_not_wait(&mut self) {
        self.connection.busy_timeout(Duration::ZERO).expect("a timeout can be set");
    }

    fn begin(&self) -> Result<(), KvError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite("beginning a transaction"))?;
        }
        Ok(())
    }
}

impl KeyValue for Table {
    type Error = KvError;

    fn keys(&self, front: &str) -> Result<Vec<String>, KvError> {
        let Self { table, key, .. } = self;
        // `;` follows `:`, with which every front ends: a range that an index can serve.
        let end = front.strip_suffix(':').map(|f| format!("{f};"));
        let keys = match &end {
            Some(end) => texts(&self.connection, &format!("SELECT {key} FROM {table} WHERE {key} >= ?1 AND {key} < ?2 ORDER BY {key}"), [front, end]),
            None => texts(&self.connection, &format!("SELECT {key} FROM {table} WHERE {key} >= ?1 ORDER BY {key}"), [front]),
        }?;
        Ok(keys.into_iter().filter(|k| k.starts_with(front)).collect())
    }

    fn get(&self, key: &str) -> Result<Option<String>, KvError> {
        let sql = format!("SELECT {} FROM {} WHERE {} = ?1", self.value, self.table, self.key);
        let bytes = self.connection.prepare_cached(&sql).and_then(|mut s| {
            s.query_row([key], |row| {
                Ok(match row.get_ref(0)? {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
                    ValueRef::Integer(n) => Some(n.to_string().into_bytes()),
                    ValueRef::Null | ValueRef::Real(_) => None,
                })
            })
            .optional()
        });
        let no_text = || KvError::NoText { key: key.to_owned() };
        match bytes.map_err(sqlite("reading a key"))? {
            None => Ok(None),
            Some(bytes) => String::from_utf8(bytes.ok_or_else(no_text)?).map(Some).map_err(|_| no_text()),
        }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), KvError> {
        self.begin()?;
        let update = format!("UPDATE {} SET {} = ?2 WHERE {} = ?1", self.table, self.value, self.key);
        let insert = format!("INSERT INTO {} ({}, {}) VALUES (?1, ?2)", self.table, self.key, self.value);
        let changed = self.connection.execute(&update, [key, value]);
        let done = changed.and_then(|n| if n == 0 { self.connection.execute(&insert, [key, value]) } else { Ok(n) });
        done.map(|_| ()).map_err(sqlite("writing a key"))
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<(), KvError> {
        self.begin()?;
        let rest: String = self.rest.iter().map(|c| format!(", {}", quoted(c))).collect();
        let Self { table, key, value, .. } = self;
        let sql = format!("INSERT INTO {table} ({key}, {value}{rest}) SELECT ?2, {value}{rest} FROM {table} WHERE {key} = ?1");
        self.connection.execute(&sql, [from, to]).map(|_| ()).map_err(sqlite("writing a key"))
    }

    fn remove(&mut self, key: &str) -> Result<(), KvError> {
        self.begin()?;
        let sql = format!("DELETE FROM {} WHERE {} = ?1", self.table, self.key);
        self.connection.execute(&sql, [key]).map(|_| ()).map_err(sqlite("removing a key"))
    }

    fn keep(&mut self) -> Result<(), KvError> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection.execute_batch("COMMIT").map_err(sqlite("committing"))
    }

    fn forget(&mut self) {
        if !self.connection.is_autocommit() {
            // What brought us here says more than a failing rollback would; SQLite ends the transaction either way.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

fn texts<P: rusqlite::Params>(connection: &Connection, sql: &str, params: P) -> Result<Vec<String>, KvError> {
    let read = || -> rusqlite::Result<Vec<String>> { connection.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect() };
    read().map_err(sqlite("reading the store"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sqlite(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> KvError {
    move |source| KvError::Sqlite { doing, source }
}
