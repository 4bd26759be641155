//! Values that were not sent and lose their place: waited for, or archived with their row's key.

use std::collections::BTreeMap;

use rusqlite::{Connection, params_from_iter};
use whimbrel_shared::{columns::ColumnMap, manifest::DropPolicy, sql::quote, value::Value};

use super::{AT_ONCE, Begun, Passage, Reach, fate, ids};
use crate::{
    store::{
        archive::{self, Archived},
        carried,
        key::{Key, KeyValue},
        outbox::{Deed, Edit, Entry, Outbox},
    },
    sync::{
        capture,
        error::{SyncError, sqlite},
        shape::Captured,
    },
};

/// Most rows that a message names.
const NAMED: usize = 20;

/// Edits that a migration waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The first of them: table, key and column.
    pub rows: Vec<String>,
    /// How many.
    pub total: u64,
}

/// The edits that the passage waits for, as far as they are folded. Only reads.
pub fn waiting(connection: &Connection, passage: &Passage) -> Result<Waiting, SyncError> {
    if crate::store::journal::is_there(connection)? { blocked(connection, passage, &capture::captured(connection)?) } else { Ok(Waiting::default()) }
}

/// Whether values of a table lose their place, and are not simply discarded.
pub(super) fn leaves(passage: &Passage, table: &Captured) -> bool {
    let kept = |policy| matches!(policy, DropPolicy::Archive | DropPolicy::Block);
    passage.end(table.id, Reach::Whole).is_some_and(kept) || ids(table).any(|id| fate(passage, table.id, id).is_some_and(kept))
}

/// Whether any value of a table has the fate `policy`.
fn is_said(passage: &Passage, table: &Captured, policy: DropPolicy) -> bool {
    passage.end(table.id, Reach::Whole) == Some(policy) || ids(table).any(|id| fate(passage, table.id, id) == Some(policy))
}

pub(super) fn blocked(connection: &Connection, passage: &Passage, tables: &[Captured]) -> Result<Waiting, SyncError> {
    let mut found = Waiting::default();
    for table in tables.iter().filter(|t| is_said(passage, t, DropPolicy::Block)) {
        each(connection, table, &mut |key, entry| {
            let columns: Vec<&str> = lost(passage, table, entry, DropPolicy::Block).map(|(_, column)| name(table, column)).collect();
            if columns.is_empty() && !deleted(passage, table, entry, DropPolicy::Block) {
                return Ok(());
            }
            found.total += 1;
            if found.rows.len() < NAMED {
                let what = if columns.is_empty() { "deleted".to_owned() } else { columns.join(", ") };
                found.rows.push(format!("{} {}: {what}", table.name, text(key)));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Archives every unsent value that has no place at the end of the passage.
pub(super) fn archive(connection: &Connection, passage: &Passage, tables: &[Captured], now_ms: i64) -> Result<(), SyncError> {
    for table in tables {
        // Whose new keys are only known when the steps have run: those that get none are archived whole.
        let all = passage.keys.iter().any(|k| k.backwards && k.from == table.id);
        if !all && !is_said(passage, table, DropPolicy::Archive) {
            continue;
        }
        let mut values = Values::new(connection, table);
        each(connection, table, &mut |key, entry| {
            let put = |column: Option<u32>, value: Option<KeyValue>, edit: &Edit| {
                let column = column.map(|id| (id, name(table, id).to_owned()));
                let why = match (&column, passage.end(table.id, Reach::Whole)) {
                    _ if all => "the migration that was taken back gave the row its key",
                    (_, Some(_)) => "the table exchanges no rows any more",
                    (Some(_), None) => "the column is gone",
                    (None, None) => "the row is gone",
                };
                archive::put(connection, &of(passage, table, key, (column, value), edit, why, now_ms))
            };
            if deleted(passage, table, entry, DropPolicy::Archive) || all && entry.deed == Deed::Delete {
                return Ok(put(None, None, &entry.edits[0])?);
            }
            for edit in &entry.edits {
                for column in edit.columns.iter().filter(|id| all || fate(passage, table.id, **id) == Some(DropPolicy::Archive)) {
                    if let Some(value) = values.of(key, *column)? {
                        put(Some(*column), value, edit)?;
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Of a step of a migration: what it left where it was has its place still.
pub(super) fn take_back(connection: &Connection, begun: &Begun, now: &ColumnMap) -> Result<(), SyncError> {
    for table in &begun.tables {
        let Some(there) = now.table_by_id(table.id) else { continue };
        for id in ids(table).filter(|id| there.column_by_id(*id).is_some()) {
            archive::forget_column(connection, begun.archived, table.id, id)?;
        }
    }
    Ok(())
}

/// An entry of the archive.
pub(super) fn of(
    passage: &Passage,
    table: &Captured,
    key: &Key,
    (column, value): (Option<(u32, String)>, Option<KeyValue>),
    edit: &Edit,
    why: &str,
    now_ms: i64,
) -> Archived {
    Archived {
        at_ms: now_ms,
        version: passage.from,
        why: why.to_owned(),
        table: (table.id, table.name.clone()),
        key: text(key),
        column,
        value,
        wall_ms: edit.stamp.wall_ms,
    }
}

/// Every entry of a table, in the order of its keys.
pub(super) fn each(connection: &Connection, table: &Captured, look: &mut dyn FnMut(&Key, &Entry) -> Result<(), SyncError>) -> Result<(), SyncError> {
    let mut outbox = Outbox::open(connection)?;
    let mut after: Option<Key> = None;
    loop {
        let keys = carried::waiting_after(connection, table.id, after.as_ref(), table.key.len(), AT_ONCE)?;
        for key in &keys {
            if let Some(entry) = outbox.entry(table.id, key)? {
                look(key, &entry)?;
            }
        }
        if keys.len() < AT_ONCE {
            return Ok(());
        }
        after = keys.into_iter().last();
    }
}

/// The dirty columns of an entry that have the fate `policy`, each with its edit.
fn lost<'e>(passage: &'e Passage, table: &'e Captured, entry: &'e Entry, policy: DropPolicy) -> impl Iterator<Item = (&'e Edit, u32)> + 'e {
    let columns = entry.edits.iter().flat_map(|edit| edit.columns.iter().map(move |id| (edit, *id)));
    columns.filter(move |(_, id)| fate(passage, table.id, *id) == Some(policy))
}

/// Whether a deletion, or a row that is all key, ends with its table and the fate `policy`.
fn deleted(passage: &Passage, table: &Captured, entry: &Entry, policy: DropPolicy) -> bool {
    let parts = passage.keys.iter().any(|k| k.from == table.id && k.into != table.id);
    let whole = entry.deed == Deed::Delete || entry.edits.iter().all(|e| e.columns.is_empty());
    whole && !parts && passage.end(table.id, Reach::Whole) == Some(policy)
}

pub(super) fn name(table: &Captured, column: u32) -> &str {
    let data = table.columns.iter().find(|c| c.id == column).map(|c| c.name.as_str());
    data.or_else(|| table.key.iter().find(|k| k.id == column).map(|k| k.name.as_str())).unwrap_or("")
}

/// A key as JSON: what the archive keeps, and what people read.
pub(super) fn text(key: &Key) -> String {
    let value = |v: &KeyValue| match v {
        KeyValue::Integer(n) => Value::Integer(*n),
        KeyValue::Real(bits) => Value::Real(*bits),
        KeyValue::Text(bytes) => Value::Text(bytes.clone()),
        KeyValue::Blob(bytes) => Value::Blob(bytes.clone()),
    };
    serde_json::to_string(&key.0.iter().map(value).collect::<Vec<_>>()).expect("values have a JSON form")
}

/// Values of a table's rows, exactly.
struct Values<'c, 't> {
    connection: &'c Connection,
    table: &'t Captured,
    sql: BTreeMap<u32, Option<String>>,
}

impl<'c, 't> Values<'c, 't> {
    fn new(connection: &'c Connection, table: &'t Captured) -> Self {
        Self { connection, table, sql: BTreeMap::new() }
    }

    /// The value of one column; `None`: there is no such row, or no such column.
    fn of(&mut self, key: &Key, column: u32) -> Result<Option<Option<KeyValue>>, SyncError> {
        let table = self.table;
        let known = || ids(table).any(|id| id == column);
        let sql = self.sql.entry(column).or_insert_with(|| {
            known().then(|| format!("SELECT t.{} FROM main.{} AS t WHERE {}", quote(name(table, column)), quote(&table.name), condition(table, "t")))
        });
        let Some(sql) = sql else { return Ok(None) };
        let doing = "reading a value for the archive";
        let mut statement = self.connection.prepare_cached(sql).map_err(sqlite(doing))?;
        let mut rows = statement.query(params_from_iter(&key.0)).map_err(sqlite(doing))?;
        match rows.next().map_err(sqlite(doing))? {
            Some(row) => Ok(Some(KeyValue::of(row.get_ref(0).map_err(sqlite(doing))?))),
            None => Ok(None),
        }
    }
}

/// The row with a key, in any of its spellings.
pub(super) fn condition(table: &Captured, row: &str) -> String {
    let term = |(n, k): (usize, &crate::sync::shape::KeyColumn)| format!("{row}.{} = ?{} COLLATE {}", quote(&k.name), n + 1, k.collation.name());
    table.key.iter().enumerate().map(term).collect::<Vec<_>>().join(" AND ")
}
