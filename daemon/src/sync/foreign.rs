//! Foreign keys between rows that land: whose parent has to be there first, and who refers to a row that goes.

use rusqlite::{Connection, OptionalExtension, params_from_iter};
use whimbrel_shared::{sql::quote, value::Value};

use super::{
    error::{SyncError, sqlite},
    shape::Captured,
    values::{Bound, by_key},
};
use crate::store::key::Key;

/// A declared foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignKey {
    /// The referring table: its id, and its name.
    pub(super) child: (Option<u32>, String),
    /// Its columns.
    pub(super) columns: Vec<String>,
    /// The table referred to.
    pub(super) parent: (Option<u32>, String),
    /// The columns there.
    pub(super) refers_to: Vec<String>,
}

/// The foreign keys of which one end at least is in one of `tables` (id and name).
pub(super) fn foreign_keys(connection: &Connection, tables: &[(u32, String)]) -> Result<Vec<ForeignKey>, SyncError> {
    let doing = "reading the foreign keys";
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let id = |name: &str| tables.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(id, _)| *id);
    let mut statement = connection
        .prepare_cached(
            "SELECT s.name, f.id, f.\"table\", f.\"from\", f.\"to\" FROM main.sqlite_schema AS s, pragma_foreign_key_list(s.name, 'main') AS f
             WHERE s.type = 'table' ORDER BY s.name, f.id, f.seq",
        )
        .map_err(sqlite(doing))?;
    let mut rows = statement.query([]).map_err(sqlite(doing))?;
    let mut found: Vec<(i64, ForeignKey)> = Vec::new();
    while let Some(row) = rows.next().map_err(sqlite(doing))? {
        let read = || -> rusqlite::Result<(String, i64, String, String, Option<String>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let (child, number, parent, from, to) = read().map_err(sqlite(doing))?;
        if id(&child).is_none() && id(&parent).is_none() {
            continue;
        }
        match found.last_mut() {
            Some((n, key)) if *n == number && key.child.1 == child => {
                key.columns.push(from);
                key.refers_to.extend(to);
            }
            _ => found.push((
                number,
                ForeignKey { child: (id(&child), child), columns: vec![from], parent: (id(&parent), parent), refers_to: to.into_iter().collect() },
            )),
        }
    }
    let mut keys: Vec<ForeignKey> = found.into_iter().map(|(_, key)| key).collect();
    for key in &mut keys {
        if key.refers_to.is_empty() {
            // Without a list it is the parent's primary key.
            key.refers_to = connection
                .prepare_cached("SELECT name FROM pragma_table_info(?1, 'main') WHERE pk > 0 ORDER BY pk")
                .and_then(|mut s| s.query_map([&key.parent.1], |row| row.get(0))?.collect())
                .map_err(sqlite(doing))?;
        }
    }
    // What refers to nothing that could be looked up is the application's own mistake, and nothing is held up for it.
    keys.retain(|key| key.refers_to.len() == key.columns.len());
    Ok(keys)
}

impl ForeignKey {
    /// Whether the row of the child that has these values by column name (`None`: not known) refers to a row that is not there.
    pub(super) fn dangles<'v>(&self, connection: &Connection, of: impl Fn(&str) -> Option<&'v Value>) -> Result<bool, SyncError> {
        let mut values = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            match of(column) {
                // NULL refers to nothing.
                None | Some(Value::Null) => return Ok(false),
                Some(value) => values.push(Bound(value)),
            }
        }
        let condition = |(n, name): (usize, &String)| format!("p.{} = ?{}", quote(name), n + 1);
        let conditions = self.refers_to.iter().enumerate().map(condition).collect::<Vec<_>>().join(" AND ");
        let sql = format!("SELECT 1 FROM main.{} AS p WHERE {conditions}", quote(&self.parent.1));
        match connection.prepare_cached(&sql).and_then(|mut s| s.exists(params_from_iter(&values))) {
            Ok(there) => Ok(!there),
            // There is no such table or column to refer to.
            Err(rusqlite::Error::SqliteFailure(e, _)) if e.code == rusqlite::ErrorCode::Unknown => Ok(false),
            Err(error) => Err(sqlite("looking for the row that one refers to")(error)),
        }
    }

    /// Whether rows of the child refer to the parent's row with this key, other than that row itself.
    pub(super) fn is_referred_to(&self, connection: &Connection, parent: &Captured, key: &Key) -> Result<bool, SyncError> {
        let join = |(from, to): (&String, &String)| format!("c.{} = p.{}", quote(from), quote(to));
        let joined = self.columns.iter().zip(&self.refers_to).map(join).collect::<Vec<_>>().join(" AND ");
        let itself = if self.child.0 == self.parent.0 {
            let same = parent.key.iter().map(|k| format!("c.{0} IS p.{0}", quote(&k.name))).collect::<Vec<_>>().join(" AND ");
            format!("AND NOT ({same})")
        } else {
            String::new()
        };
        let sql = format!(
            "SELECT 1 FROM main.{} AS p CROSS JOIN main.{} AS c WHERE {} AND {joined} {itself} LIMIT 1",
            quote(&parent.name),
            quote(&self.child.1),
            by_key(parent, "p.")
        );
        let found = connection.prepare_cached(&sql).and_then(|mut s| s.query_row(params_from_iter(&key.0), |_| Ok(())).optional());
        match found {
            Ok(found) => Ok(found.is_some()),
            Err(rusqlite::Error::SqliteFailure(e, _)) if e.code == rusqlite::ErrorCode::Unknown => Ok(false),
            Err(error) => Err(sqlite("looking for rows that refer to one")(error)),
        }
    }
}
