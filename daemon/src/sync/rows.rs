//! Reads rows of a captured table as hashes: whether they are there, and what their columns hold.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, Row, params_from_iter, types::ValueRef};
use whimbrel_shared::sql::quote;

use super::{
    error::{SyncError, sqlite},
    hash::{Stored, hash},
    shape::{Captured, bit},
};
use crate::store::{code_of, key::Key};

/// Which columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Columns {
    /// None: only whether the row is there.
    Presence,
    /// Those with a bit in the mask.
    Mask(i64),
    /// All that are tracked.
    All,
}

/// Hashes of columns by id, ascending.
pub type Hashes = Vec<(u32, u64)>;

/// Reads rows of one table; its statements are made as they are needed.
#[expect(missing_debug_implementations, reason = "rusqlite's cached statements have none")]
pub struct Rows<'c, 't> {
    connection: &'c Connection,
    table: &'t Captured,
    tracked: Vec<(u32, &'t str)>,
    ids: Vec<u32>,
    by_key: HashMap<Columns, (CachedStatement<'c>, Vec<u32>)>,
}

impl<'c, 't> Rows<'c, 't> {
    /// Of `table`. Reads nothing yet.
    pub fn new(connection: &'c Connection, table: &'t Captured) -> Self {
        let tracked = table.tracked();
        Self { connection, table, ids: tracked.iter().map(|(id, _)| *id).collect(), tracked, by_key: HashMap::new() }
    }

    /// Ids of the columns whose value can change while the row stays the same, ascending.
    pub fn tracked(&self) -> &[u32] {
        &self.ids
    }

    /// The row with this key, in any of its spellings; `None`: there is none.
    ///
    /// # Errors
    /// [`SyncError::Unreadable`] when the table, or a column of it, is not there any more.
    pub fn read(&mut self, key: &Key, columns: Columns) -> Result<Option<Hashes>, SyncError> {
        if !self.by_key.contains_key(&columns) {
            let (list, ids) = self.list(columns);
            // By a qualified name: a column that is gone is an error, and not a text in double quotes.
            let conditions =
                self.table.key.iter().enumerate().map(|(n, k)| format!("t.{} = ?{} COLLATE {}", quote(&k.name), n + 1, k.collation.name()));
            let conditions = conditions.collect::<Vec<_>>().join(" AND ");
            let statement = self.prepare(&format!("SELECT {list} FROM main.{} AS t WHERE {conditions}", quote(&self.table.name)))?;
            self.by_key.insert(columns, (statement, ids));
        }
        let (statement, ids) = self.by_key.get_mut(&columns).expect("it was put there");
        let doing = "reading a row that changed";
        let name = &self.table.name;
        let mut rows = statement.query(params_from_iter(&key.0)).map_err(|e| unreadable(name, doing, e))?;
        match rows.next().map_err(|e| unreadable(name, doing, e))? {
            Some(row) => hashes(row, 0, ids).map(Some).map_err(sqlite(doing)),
            None => Ok(None),
        }
    }

    /// The rows after a key in the order of the table's own key, at most `most`: keys as they are spelled, and the hashes of
    /// all tracked columns. Rows without a key are passed over.
    pub fn after(&self, after: Option<&Key>, most: usize) -> Result<Vec<(Key, Hashes)>, SyncError> {
        let (list, ids) = self.list(Columns::All);
        let key = |k: &super::shape::KeyColumn| format!("t.{} COLLATE {}", quote(&k.name), k.collation.name());
        let order = self.table.key.iter().map(key).collect::<Vec<_>>().join(", ");
        let names = self.table.key.iter().map(|k| format!("t.{}", quote(&k.name))).collect::<Vec<_>>();
        let mut conditions: Vec<_> = names.iter().map(|name| format!("{name} IS NOT NULL")).collect();
        let marks: Vec<_> = (2..2 + self.table.key.len()).map(|n| format!("?{n}")).collect();
        if after.is_some() {
            conditions.push(format!("({order}) > ({})", marks.join(", ")));
        }
        let sql = format!(
            "SELECT {}, {list} FROM main.{} AS t WHERE {} ORDER BY {order} LIMIT ?1",
            names.join(", "),
            quote(&self.table.name),
            conditions.join(" AND ")
        );
        let doing = "reading rows to compare them";
        let mut statement = self.prepare(&sql)?;
        let most = most as i64;
        let parameters = std::iter::once(&most as &dyn rusqlite::ToSql).chain(after.iter().flat_map(|k| &k.0).map(|v| v as &dyn rusqlite::ToSql));
        let name = &self.table.name;
        let mut rows = statement.query(params_from_iter(parameters)).map_err(|e| unreadable(name, doing, e))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(|e| unreadable(name, doing, e))? {
            let columns = self.table.key.len();
            if let Some(key) = Key::read(row, 0, columns).map_err(sqlite(doing))? {
                found.push((key, hashes(row, columns, &ids).map_err(sqlite(doing))?));
            }
        }
        Ok(found)
    }

    fn list(&self, columns: Columns) -> (String, Vec<u32>) {
        let wanted = |id: u32| match columns {
            Columns::Presence => false,
            Columns::Mask(mask) => mask & bit(id) != 0,
            Columns::All => true,
        };
        let chosen: Vec<_> = self.tracked.iter().filter(|(id, _)| wanted(*id)).collect();
        let list = chosen.iter().map(|(_, name)| format!("t.{}", quote(name))).collect::<Vec<_>>().join(", ");
        (if list.is_empty() { "1".to_owned() } else { list }, chosen.iter().map(|(id, _)| *id).collect())
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'c>, SyncError> {
        self.connection.prepare_cached(sql).map_err(|e| unreadable(&self.table.name, "preparing to read rows", e))
    }
}

/// A statement that does not compile: also one that was kept, when it is prepared anew for a schema that changed.
pub(super) fn unreadable(table: &str, doing: &'static str, source: rusqlite::Error) -> SyncError {
    match code_of(&source) {
        rusqlite::ffi::SQLITE_ERROR => SyncError::Unreadable { table: table.to_owned(), why: source.to_string() },
        _ => SyncError::Sqlite { doing, source },
    }
}

fn hashes(row: &Row<'_>, first: usize, ids: &[u32]) -> rusqlite::Result<Hashes> {
    ids.iter().enumerate().map(|(at, id)| Ok((*id, hash(stored(row.get_ref(first + at)?))))).collect()
}

fn stored(value: ValueRef<'_>) -> Stored<'_> {
    match value {
        ValueRef::Null => Stored::Null,
        ValueRef::Integer(n) => Stored::Integer(n),
        ValueRef::Real(r) => Stored::Real(r),
        ValueRef::Text(bytes) => Stored::Text(bytes),
        ValueRef::Blob(bytes) => Stored::Blob(bytes),
    }
}
