//! Leaving: what was not exchanged is written down, and everything of whimbrel's goes from the file.

use std::io::{self, Write};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use whimbrel_shared::{sql::quote, value::Value};

use super::{
    error::{SyncError, sqlite},
    tables::Tables,
    values::{Values, told, value},
};
use crate::store::{
    conflict,
    key::MOST_KEY_COLUMNS,
    outbox::{self, Deed, Entry, Place},
    quarantine,
};

/// `schema` of the file that is left beside a database.
pub const LEFT_SCHEMA: &str = "whimbrel.left/1";

/// Rows that are read at once.
const AT_ONCE: usize = 500;

/// Objects that keep what was applied here. The rest of the tables of `001` are empty between two runs, and stay with them.
const HISTORY: [&str; 10] = [
    "_whimbrel_meta",
    "_whimbrel_migration",
    "_whimbrel_event",
    "_whimbrel_intent",
    "_whimbrel_crash",
    "_whimbrel_checkpoint",
    "_whimbrel_touched",
    "_whimbrel_failed_item",
    "_whimbrel_status",
    "_whimbrel_history",
];

/// What was written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Rows with edits that were not sent.
    pub unsent: u64,
    /// Conflicts that nobody decided.
    pub conflicts: u64,
    /// Rows of the server that could not land.
    pub quarantined: u64,
    /// Values in the archive.
    pub archived: u64,
}

impl Left {
    /// Whether there is nothing to write down.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What there is to write down.
pub fn left(connection: &Connection) -> Result<Left, SyncError> {
    let doing = "counting what was not exchanged";
    connection
        .query_row(
            "SELECT (SELECT count(*) FROM main._whimbrel_outbox), (SELECT count(*) FROM main._whimbrel_conflict WHERE open),
                    (SELECT count(*) FROM main._whimbrel_quarantine), (SELECT count(*) FROM main._whimbrel_archive)",
            [],
            |row| {
                let count = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
                Ok(Left { unsent: count(0)?, conflicts: count(1)?, quarantined: count(2)?, archived: count(3)? })
            },
        )
        .map_err(sqlite(doing))
}

/// Writes it down as one JSON document: rows by the names that tables and columns have in the file, values in the form of
/// `shared/src/value.rs`. Inside the caller's transaction, with the journal folded, so that what is written is what goes.
pub fn write_down(connection: &Connection, tables: &Tables, now_ms: i64, to: &mut dyn Write) -> Result<io::Result<()>, SyncError> {
    let columns = |id: u32| Some(tables.key_columns(id).unwrap_or(MOST_KEY_COLUMNS));
    let mut list = List { to, result: Ok(()), first: true };
    list.raw(&format!("{{\"schema\": {}, \"at_ms\": {now_ms}, \"unsent\": [", json!(LEFT_SCHEMA)));
    let mut after: Option<Place> = None;
    loop {
        let some = outbox::pending(connection, after.as_ref(), AT_ONCE, &columns)?;
        for (place, entry) in &some {
            list.one(&unsent(connection, tables, place, entry)?);
        }
        after = some.into_iter().last().map(|(place, _)| place);
        if after.is_none() {
            break;
        }
    }
    let name = |id: u32| tables.get(id).and_then(|t| t.shape.as_ref()).map(|s| s.name.clone());
    list.next("conflicts");
    let mut before = None;
    loop {
        let some = conflict::list(connection, true, before, AT_ONCE as u32, &columns)?;
        for it in &some {
            list.one(&json!({ "table": name(it.table), "kind": it.kind.as_str(), "at_ms": it.at_ms, "detail": it.detail }));
        }
        before = some.last().map(|it| it.id);
        if before.is_none() {
            break;
        }
    }
    list.next("quarantined");
    quarantine::each(connection, &mut |row, code, why| {
        list.one(&json!({ "table": name(row.table), "code": code.as_str(), "why": why, "row": row }))
    })?;
    list.next("archived");
    archived(connection, &mut |one| list.one(one))?;
    list.raw("]}\n");
    Ok(list.result)
}

/// One row of the outbox, with its values as they are in the file now.
fn unsent(connection: &Connection, tables: &Tables, place: &Place, entry: &Entry) -> Result<Json, SyncError> {
    let deed = match entry.deed {
        Deed::Insert => "insert",
        Deed::Edit => "edit",
        Deed::Delete => "delete",
    };
    let wall_ms = entry.edits.iter().map(|e| e.stamp.wall_ms).max();
    let base = entry.edits.iter().filter_map(|e| e.base).min();
    let Some(shape) = tables.get(place.table).and_then(|t| t.shape.as_ref()) else {
        return Ok(json!({ "table": null, "table_id": place.table, "key": told(&place.key), "deed": deed, "base": base, "wall_ms": wall_ms }));
    };
    let row = match Values::open(connection, shape).and_then(|mut values| values.read(&place.key)) {
        Err(SyncError::Unreadable { .. }) => None,
        other => other?,
    };
    let named = |id: u32| shape.columns.iter().find(|c| c.id == id).map(|c| c.name.clone());
    let dirty = |id: u32| entry.deed == Deed::Insert || entry.edits.iter().any(|e| e.columns.contains(&id));
    let cells = row.iter().flat_map(|r| &r.cells).filter(|(id, _)| dirty(*id));
    let values: serde_json::Map<String, Json> = cells.filter_map(|(id, value)| Some((named(*id)?, json!(value)))).collect();
    let key = row.as_ref().map_or_else(|| told(&place.key), |r| r.key.clone());
    Ok(json!({ "table": shape.name, "key": key, "deed": deed, "values": values, "base": base, "wall_ms": wall_ms }))
}

fn archived(connection: &Connection, each: &mut dyn FnMut(&Json)) -> Result<(), SyncError> {
    let doing = "reading the archive";
    let mut statement = connection
        .prepare("SELECT at_ms, version, why, name, key, column_name, value, wall_ms FROM main._whimbrel_archive ORDER BY id")
        .map_err(sqlite(doing))?;
    let mut rows = statement.query([]).map_err(sqlite(doing))?;
    while let Some(row) = rows.next().map_err(sqlite(doing))? {
        let read = || -> rusqlite::Result<Json> {
            let (key, held): (String, Value) = (row.get(4)?, value(row.get_ref(6)?));
            let key: Json = serde_json::from_str(&key).unwrap_or(Json::String(key));
            let (at_ms, version, why): (i64, u32, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (table, column, wall_ms): (String, Option<String>, i64) = (row.get(3)?, row.get(5)?, row.get(7)?);
            Ok(
                json!({ "table": table, "key": key, "column": column, "value": held, "why": why, "version": version, "at_ms": at_ms, "wall_ms": wall_ms }),
            )
        };
        each(&read().map_err(sqlite(doing))?);
    }
    Ok(())
}

/// Writes the lists of the document; after an error nothing more.
struct List<'w> {
    to: &'w mut dyn Write,
    result: io::Result<()>,
    first: bool,
}

impl List<'_> {
    fn raw(&mut self, text: &str) {
        if self.result.is_ok() {
            self.result = self.to.write_all(text.as_bytes());
        }
    }

    fn one(&mut self, value: &Json) {
        let comma = if std::mem::take(&mut self.first) { "\n" } else { ",\n" };
        self.raw(&format!("{comma}{value}"));
    }

    fn next(&mut self, name: &str) {
        self.first = true;
        self.raw(&format!("], \"{name}\": ["));
    }
}

/// Removes every object of ours from the file; with `keep_history`, all but those that say what was applied. Inside the
/// caller's write transaction. Returns how many went.
pub fn remove(connection: &Connection, keep_history: bool) -> Result<usize, SyncError> {
    let doing = "removing whimbrel's objects";
    let found: Vec<(String, String)> = connection
        .prepare(
            r"SELECT type, name FROM main.sqlite_schema WHERE name LIKE '\_whimbrel\_%' ESCAPE '\'
              ORDER BY CASE type WHEN 'trigger' THEN 1 WHEN 'view' THEN 2 WHEN 'index' THEN 3 ELSE 4 END",
        )
        .and_then(|mut s| s.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(sqlite(doing))?;
    let goes = |name: &String| !keep_history || !HISTORY.contains(&name.as_str());
    let mut gone = 0;
    for (kind, name) in found.iter().filter(|(_, name)| goes(name)) {
        // What a table takes with it (its own indexes) may be gone already.
        connection.execute_batch(&format!("DROP {kind} IF EXISTS main.{}", quote(name))).map_err(sqlite(doing))?;
        gone += 1;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        journal,
        managed::{self, FileIdentity},
    };

    fn ours(connection: &Connection) -> Vec<String> {
        let mut statement = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn file() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE a_whimbrel_b(x); CREATE TABLE own(x)").unwrap();
        let identity =
            FileIdentity { client_id: whimbrel_shared::ids::ClientId::from_dice(1), app: "notes".parse().unwrap(), epoch: 1, device: 1, inode: 1 };
        managed::prepare(&connection, &identity).unwrap();
        journal::make(&connection).unwrap();
        connection.execute_batch("CREATE TRIGGER _whimbrel_capture_1_ai AFTER INSERT ON own BEGIN SELECT 1; END").unwrap();
        connection
    }

    #[test]
    fn nothing_of_ours_stays_and_everything_of_the_applications_does() {
        let connection = file();
        remove(&connection, false).unwrap();
        assert_eq!(ours(&connection), ["a_whimbrel_b", "own"]);
    }

    #[test]
    fn the_history_stays_where_it_is_wanted_and_can_be_gone_on_with() {
        let connection = file();
        remove(&connection, true).unwrap();
        let kept: Vec<String> = ours(&connection).into_iter().filter(|n| n.starts_with("_whimbrel")).collect();
        assert_eq!(kept.len(), HISTORY.len(), "{kept:?}");
        assert!(managed::is_prepared(&connection).unwrap() && managed::identity(&connection).is_ok());
        assert!(!journal::is_there(&connection).unwrap());
    }
}
