//! Writes rows of the server into one table, as far as the file takes them.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, ffi, params_from_iter};
use whimbrel_shared::{sql::quote, value::Value};

use super::{
    error::{SyncError, sqlite},
    shape::Captured,
    values::{Bound, Values, Whole, by_key},
};
use crate::store::{code_of, key::Key, quarantine::Code};

/// Why the file does not take a row now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) why: String,
    /// Whether it is the key itself that is there already.
    pub(super) key: bool,
}

/// One table's statements.
pub(super) struct Writer<'c, 't> {
    connection: &'c Connection,
    pub(super) table: &'t Captured,
    /// By the columns that are given.
    inserts: HashMap<Vec<u32>, CachedStatement<'c>>,
    updates: HashMap<Vec<u32>, CachedStatement<'c>>,
    delete: Option<CachedStatement<'c>>,
    values: Option<Values<'c, 't>>,
}

const DOING: &str = "landing a row";

impl<'c, 't> Writer<'c, 't> {
    pub(super) fn new(connection: &'c Connection, table: &'t Captured) -> Self {
        Self { connection, table, inserts: HashMap::new(), updates: HashMap::new(), delete: None, values: None }
    }

    /// The row as it is.
    pub(super) fn read(&mut self, key: &Key) -> Result<Option<Whole>, SyncError> {
        if self.values.is_none() {
            self.values = Some(Values::open(self.connection, self.table)?);
        }
        self.values.as_mut().expect("it was put there").read(key)
    }

    /// A new row. Columns that are not in `cells` get their defaults.
    pub(super) fn insert(&mut self, key: &[Value], cells: &[(u32, &Value)]) -> Result<Result<(), Refused>, SyncError> {
        let ids: Vec<u32> = cells.iter().map(|(id, _)| *id).collect();
        if !self.inserts.contains_key(&ids) {
            let names = self.table.key.iter().map(|k| k.name.as_str()).chain(ids.iter().map(|id| self.name(*id)));
            let names: Vec<String> = names.map(quote).collect();
            let marks: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
            let sql = format!("INSERT INTO main.{} ({}) VALUES ({})", quote(&self.table.name), names.join(", "), marks.join(", "));
            match self.connection.prepare_cached(&sql) {
                Ok(statement) => self.inserts.insert(ids.clone(), statement),
                Err(error) => return self.judge(error).map(Err),
            };
        }
        let statement = self.inserts.get_mut(&ids).expect("it was put there");
        match statement.execute(params_from_iter(key.iter().chain(cells.iter().map(|(_, value)| *value)).map(Bound))) {
            Ok(_) => Ok(Ok(())),
            Err(error) => self.judge(error).map(Err),
        }
    }

    /// Other values for some columns of a row, and another spelling of its key where that is given. `Ok(false)`: there is no
    /// such row.
    pub(super) fn update(&mut self, at: &Key, spelled: Option<&[Value]>, cells: &[(u32, &Value)]) -> Result<Result<bool, Refused>, SyncError> {
        let mut ids: Vec<u32> = cells.iter().map(|(id, _)| *id).collect();
        let keys = self.table.key.len();
        if spelled.is_some() {
            ids.extend(self.table.key.iter().map(|k| k.id));
        }
        if !self.updates.contains_key(&ids) {
            let set = ids.iter().enumerate().map(|(n, id)| format!("{} = ?{}", quote(self.name(*id)), keys + n + 1));
            let set = set.collect::<Vec<_>>().join(", ");
            let sql = format!("UPDATE main.{} SET {set} WHERE {}", quote(&self.table.name), by_key(self.table, ""));
            match self.connection.prepare_cached(&sql) {
                Ok(statement) => self.updates.insert(ids.clone(), statement),
                Err(error) => return self.judge(error).map(Err),
            };
        }
        let statement = self.updates.get_mut(&ids).expect("it was put there");
        let values: Vec<Bound<'_>> = cells.iter().map(|(_, value)| Bound(value)).chain(spelled.unwrap_or_default().iter().map(Bound)).collect();
        let parameters = at.0.iter().map(|k| k as &dyn rusqlite::ToSql).chain(values.iter().map(|v| v as &dyn rusqlite::ToSql));
        match statement.execute(params_from_iter(parameters)) {
            Ok(changed) => Ok(Ok(changed > 0)),
            Err(error) => self.judge(error).map(Err),
        }
    }

    /// The row goes.
    pub(super) fn delete(&mut self, at: &Key) -> Result<Result<(), Refused>, SyncError> {
        if self.delete.is_none() {
            let sql = format!("DELETE FROM main.{} WHERE {}", quote(&self.table.name), by_key(self.table, ""));
            match self.connection.prepare_cached(&sql) {
                Ok(statement) => self.delete = Some(statement),
                Err(error) => return self.judge(error).map(Err),
            }
        }
        let statement = self.delete.as_mut().expect("it was put there");
        match statement.execute(params_from_iter(&at.0)) {
            Ok(_) => Ok(Ok(())),
            Err(error) => self.judge(error).map(Err),
        }
    }

    fn name(&self, id: u32) -> &str {
        let column = self.table.columns.iter().find(|c| c.id == id).map(|c| c.name.as_str());
        column.or_else(|| self.table.key.iter().find(|k| k.id == id).map(|k| k.name.as_str())).expect("a column of the table")
    }

    /// Whether an error says something about the row; what says something about the file or the machine stays an error.
    fn judge(&self, error: rusqlite::Error) -> Result<Refused, SyncError> {
        if self.connection.is_autocommit() {
            return Err(SyncError::LostTransaction);
        }
        let (code, key) = match code_of(&error) {
            ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => (Code::Unique, true),
            ffi::SQLITE_CONSTRAINT_UNIQUE => (Code::Unique, false),
            code => match code & 0xff {
                ffi::SQLITE_CONSTRAINT | ffi::SQLITE_TOOBIG | ffi::SQLITE_MISMATCH => (Code::Refused, false),
                // It does not compile: a function, collation or column that is not here.
                ffi::SQLITE_ERROR | ffi::SQLITE_AUTH => (Code::CannotWrite, false),
                _ => return Err(sqlite(DOING)(error)),
            },
        };
        Ok(Refused { code, why: error.to_string(), key })
    }
}
