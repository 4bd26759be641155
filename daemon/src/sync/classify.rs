//! Whether rows of a table can be exchanged: both ways, only sent, or not at all, and why.

use rusqlite::{Connection, config::DbConfig};
use whimbrel_shared::{
    columns::{TableColumns, reserved},
    sql::quote,
};

use super::{
    error::{SyncError, sqlite},
    shape::{Captured, Collation, DataColumn, Echo, KeyColumn, MOST_KEY_COLUMNS, Mode},
    table::Facts,
    unique::{Cover, cover},
};
use crate::store::code_of;

/// What can be done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Rows are sent and land.
    ReadWrite,
    /// Rows are sent; none can land.
    PushOnly,
    /// Nothing.
    Unsupported,
}

/// Why a table is not read-write, or what a person should know of one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The class that it leads to.
    pub class: Class,
    /// What is so.
    pub why: String,
    /// What changes it.
    pub remedy: String,
}

/// The judgement on one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The table's id.
    pub table: u32,
    /// Its name.
    pub name: String,
    /// The worst of the reasons.
    pub class: Class,
    /// Why.
    pub reasons: Vec<Reason>,
    /// How it is captured; none where it is unsupported.
    pub captured: Option<Captured>,
}

const BY_MIGRATION: &str = "publish a migration that rebuilds the table";

/// Judges the table that `columns` is about, as it is in the file now. Only reads; our own triggers on it do not count.
pub fn classify(connection: &Connection, columns: &TableColumns, mode: Mode) -> Result<Judged, SyncError> {
    let facts = Facts::read(connection, &columns.name).map_err(sqlite("reading the shape of a table"))?;
    let mut judge = Judge { connection, reasons: Vec::new() };
    let captured = match facts {
        None => judge.unsupported("there is no such table in the file".to_owned(), "migrate the file to the version that has it"),
        Some(facts) => judge.table(&facts, columns, mode)?,
    };
    let class = judge.reasons.iter().map(|r| r.class).max().unwrap_or(Class::ReadWrite);
    let captured = captured.filter(|_| class != Class::Unsupported).map(|c| Captured { push_only: class == Class::PushOnly, ..c });
    Ok(Judged { table: columns.id, name: columns.name.clone(), class, reasons: judge.reasons, captured })
}

struct Judge<'c> {
    connection: &'c Connection,
    reasons: Vec<Reason>,
}

impl Judge<'_> {
    fn add(&mut self, class: Class, why: String, remedy: &str) {
        self.reasons.push(Reason { class, why, remedy: remedy.to_owned() });
    }

    fn unsupported<T>(&mut self, why: String, remedy: &str) -> Option<T> {
        self.add(Class::Unsupported, why, remedy);
        None
    }

    fn table(&mut self, facts: &Facts, columns: &TableColumns, mode: Mode) -> Result<Option<Captured>, SyncError> {
        if facts.kind != "table" {
            let remedy = "exchange the tables that it is made of";
            return Ok(self.unsupported(format!("it is a {}, which has no rows of its own to capture", kind(&facts.kind)), remedy));
        }
        let Some(key) = self.key(facts, columns) else { return Ok(None) };
        let Some(data) = self.data(facts, columns) else { return Ok(None) };
        self.null_keys(facts)?;

        let (mut probes, mut unprobed) = (Vec::new(), Vec::new());
        for index in &facts.unique {
            match cover(facts, index, mode == Mode::KeyOnly) {
                Cover::ByKey => {}
                // What SQLite does not compile here it would not compile in the trigger.
                Cover::Probe(probe) if self.probe_compiles(facts, &probe)? => probes.push(probe),
                Cover::Probe(_) => unprobed.push((index.name.clone(), "it uses what only the application's connection has")),
                Cover::Sweep(why) => unprobed.push((index.name.clone(), why)),
            }
        }
        for (index, why) in &unprobed {
            let why =
                format!("rows that REPLACE deletes because of the index {index} are found only by comparing the table from time to time: {why}");
            self.add(Class::ReadWrite, why, "make it a UNIQUE constraint on plain columns, if that is not soon enough");
        }
        let echo = self.writable(facts)?;
        Ok(Some(Captured {
            id: columns.id,
            name: facts.name.clone(),
            mode,
            echo,
            push_only: false,
            key,
            row_id: facts.row_id,
            columns: data,
            probes,
            unprobed: unprobed.into_iter().map(|(index, _)| index).collect(),
        }))
    }

    fn key(&mut self, facts: &Facts, columns: &TableColumns) -> Option<Vec<KeyColumn>> {
        if facts.key.is_empty() {
            let why = "it declares no PRIMARY KEY, and SQLite may number rows without one anew".to_owned();
            return self.unsupported(why, "publish a migration that rebuilds the table with a PRIMARY KEY");
        }
        if facts.key.len() > MOST_KEY_COLUMNS {
            let why = format!("its primary key has {} columns, and at most {MOST_KEY_COLUMNS} can be captured", facts.key.len());
            return self.unsupported(why, "publish a migration that gives it a key of fewer columns");
        }
        let mut key = Vec::new();
        for (at, collation) in &facts.key {
            let column = &facts.columns[*at];
            let Some(known) = columns.column(&column.name) else {
                return self.unsupported(format!("its key column {} has no column id", column.name), BY_MIGRATION);
            };
            let Some(known_collation) = Collation::named(collation) else {
                let why = format!("its key column {} is compared by the collation {collation}, which only the application has", column.name);
                return self.unsupported(why, "publish a migration that gives the key a built-in collation");
            };
            key.push(KeyColumn {
                id: known.id,
                name: column.name.clone(),
                collation: known_collation,
                collated: is_collated(&column.collation),
                untyped: facts.is_untyped(column),
            });
        }
        Some(key)
    }

    /// The columns that have ids and are not of the key. Others of the application's own are left out; generated ones
    /// follow from the others.
    fn data(&mut self, facts: &Facts, columns: &TableColumns) -> Option<Vec<DataColumn>> {
        let mut data = Vec::new();
        for known in &columns.columns {
            let Some((at, column)) = facts.columns.iter().enumerate().find(|(_, c)| c.name.eq_ignore_ascii_case(&known.name)) else {
                let why = format!("its column {} is not in the file", known.name);
                return self.unsupported(why, "find out what changed the file's schema, and restore the column");
            };
            if column.hidden || facts.key.iter().any(|(key, _)| *key == at) {
                continue;
            }
            let (collated, untyped) = (is_collated(&column.collation), facts.is_untyped(column));
            data.push(DataColumn { id: known.id, name: column.name.clone(), collated, untyped });
        }
        data.sort_unstable_by_key(|c| c.id);
        Some(data)
    }

    /// Rows with a NULL in the key cannot be told apart, so they are not captured.
    fn null_keys(&mut self, facts: &Facts) -> Result<(), SyncError> {
        if facts.without_row_id || facts.row_id || facts.strict {
            return Ok(());
        }
        let nullable: Vec<_> = facts.key.iter().map(|(at, _)| &facts.columns[*at]).filter(|c| !c.not_null).collect();
        for column in nullable {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{0} AS t WHERE t.{1} IS NULL)", quote(&facts.name), quote(&column.name));
            let found: bool = self.connection.query_row(&sql, [], |row| row.get(0)).map_err(sqlite("looking for rows without a key"))?;
            if found {
                let why = format!("rows of it have NULL in the key column {}: they cannot be told apart, and stay on this device", column.name);
                self.add(Class::PushOnly, why, "give these rows keys, and publish a migration that makes the key NOT NULL");
            }
        }
        Ok(())
    }

    fn probe_compiles(&self, facts: &Facts, probe: &super::shape::Probe) -> Result<bool, SyncError> {
        let name = quote(&facts.name);
        let terms: Vec<_> = probe.terms.iter().map(|(there, new)| format!("{there} = {new}")).chain(probe.condition.clone()).collect();
        Ok(compiles(self.connection, &format!("SELECT 1 FROM main.{name}, main.{name} AS new WHERE {}", terms.join(" AND ")))?.is_none())
    }

    /// Whether our connection can write there at all, and with the application's triggers; and so how landing is done.
    fn writable(&mut self, facts: &Facts) -> Result<Echo, SyncError> {
        const REMEDY: &str = "let the manifest say direction = \"push\", or publish a migration that does without it";
        let (insert, update, delete) = writes(facts);
        let was_on = self
            .connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
            .and_then(|_| self.without_triggers(&[&insert, &update, &delete]));
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)
            .map_err(sqlite("switching triggers on again on whimbrel's connection"))?;
        if let Some(message) = was_on.map_err(sqlite("trying what can be written"))? {
            self.add(Class::PushOnly, format!("rows cannot be written outside the application: {message}"), REMEDY);
            return Ok(Echo::Switch);
        }
        if facts.triggers.is_empty() {
            return Ok(Echo::Switch);
        }
        let mut elsewhere = Vec::new();
        for sql in [&insert, &update, &delete] {
            match reached(self.connection, sql) {
                Ok(tables) => elsewhere.extend(tables),
                Err(error) if is_sql_error(&error) => {
                    let why = format!("its triggers ({}) cannot run outside the application: {}", facts.triggers.join(", "), message(&error));
                    self.add(Class::PushOnly, why, REMEDY);
                    return Ok(Echo::Switch);
                }
                Err(error) => return Err(sqlite("trying what triggers do")(error)),
            }
        }
        elsewhere.retain(|table| !table.eq_ignore_ascii_case(&facts.name) && !reserved(table));
        elsewhere.sort_unstable();
        elsewhere.dedup();
        if elsewhere.is_empty() {
            let why = format!("its triggers ({}) change only the table itself, and do not run for rows that land", facts.triggers.join(", "));
            self.add(Class::ReadWrite, why, "nothing has to be done: they ran where the row was written");
            return Ok(Echo::Switch);
        }
        let why = format!("its triggers ({}) run for rows that land, because they write to {}", facts.triggers.join(", "), elsewhere.join(", "));
        self.add(Class::ReadWrite, why, "nothing has to be done");
        Ok(Echo::Rewrite)
    }

    fn without_triggers(&self, statements: &[&str]) -> rusqlite::Result<Option<String>> {
        for sql in statements {
            match self.connection.prepare(sql) {
                Ok(_) => {}
                Err(error) if is_sql_error(&error) => return Ok(Some(message(&error))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn kind(kind: &str) -> &str {
    match kind {
        "virtual" => "virtual table",
        "shadow" => "table of a virtual table",
        other => other,
    }
}

fn is_collated(collation: &str) -> bool {
    !collation.eq_ignore_ascii_case("BINARY")
}

/// An INSERT, UPDATE and DELETE as landing does them.
fn writes(facts: &Facts) -> (String, String, String) {
    let name = format!("main.{}", quote(&facts.name));
    let columns: Vec<_> = facts.columns.iter().filter(|c| !c.hidden).map(|c| quote(&c.name)).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let set: Vec<_> = columns.iter().map(|c| format!("{c} = ?")).collect();
    let key: Vec<_> = facts.key.iter().map(|(at, _)| format!("{} = ?", quote(&facts.columns[*at].name))).collect();
    let key = key.join(" AND ");
    (
        format!("INSERT INTO {name} ({}) VALUES ({marks})", columns.join(", ")),
        format!("UPDATE {name} SET {} WHERE {key}", set.join(", ")),
        format!("DELETE FROM {name} WHERE {key}"),
    )
}

/// Tables that a statement and the triggers it fires would write to: SQLite's own program says which roots it opens for
/// writing. A virtual table has no root; it is listed as such.
fn reached(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut roots = Vec::new();
    let mut names = Vec::new();
    let mut program = connection.prepare(&format!("EXPLAIN {sql}"))?;
    // Nothing is bound: EXPLAIN runs nothing.
    let mut rows = program.raw_query();
    while let Some(row) = rows.next()? {
        let (opcode, p1, p2, p3): (String, i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        match opcode.as_str() {
            "OpenWrite" if p3 == 0 => roots.push(p2),
            "Clear" if p2 == 0 => roots.push(p1),
            "VUpdate" => names.push("a virtual table".to_owned()),
            _ => {}
        }
    }
    let mut table_of = connection.prepare_cached("SELECT tbl_name FROM main.sqlite_schema WHERE rootpage = ?1")?;
    for root in roots {
        names.extend(table_of.query_map([root], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?);
    }
    Ok(names)
}

/// What SQLite says against a statement; `None`: it compiles.
fn compiles(connection: &Connection, sql: &str) -> Result<Option<String>, SyncError> {
    match connection.prepare(sql) {
        Ok(_) => Ok(None),
        Err(error) if is_sql_error(&error) => Ok(Some(message(&error))),
        Err(error) => Err(sqlite("trying a statement")(error)),
    }
}

/// What SQLite says, without our statement.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// A statement that does not compile, and not a file that cannot be read.
fn is_sql_error(error: &rusqlite::Error) -> bool {
    code_of(error) & 0xff == rusqlite::ffi::SQLITE_ERROR
}
