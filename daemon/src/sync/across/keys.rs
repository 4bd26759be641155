//! Rows that get other keys: by the migration's expressions over the old row, or because a part of each moves into a
//! table of its own. Old keys are mapped to new ones before the steps run, while the old rows are there; on the way down
//! after them, since the expressions lead up: over the row below they give the key that it had above.

use std::collections::BTreeSet;

use rusqlite::{Connection, config::DbConfig, params_from_iter};
use whimbrel_shared::{change::Row, manifest::DropPolicy, sql::quote, value::Value};

use super::{
    AT_ONCE, Begun, Passage, Reach, Vet,
    leave::{condition, each, name, of, text},
    number,
    passage::{Rekey, collation},
};
use crate::{
    store::{
        archive, carried,
        key::{Key, KeyValue},
        outbox::{Deed, Outbox, known_after},
    },
    sync::{
        error::{SyncError, sqlite},
        shape::{Captured, Collation},
        table::Facts,
    },
};

/// Whether the rows have the new keys already, from an earlier step.
fn is_done(passage: &Passage, rekey: &Rekey, table: &Captured) -> bool {
    let ids: Vec<u32> = table.key.iter().map(|k| k.id).collect();
    let wanted: Vec<u32> = passage.synced_after.table(rekey.into).map(|s| s.key.iter().map(|k| k.0).collect()).unwrap_or_default();
    let before: Vec<u32> = passage.synced_before.table(rekey.into).map(|s| s.key.iter().map(|k| k.0).collect()).unwrap_or_default();
    rekey.from == rekey.into && ids == wanted && before != wanted
}

/// Maps the keys of all rows that are known or wait. Returns which of the passage's ways were filled.
pub(super) fn begin(
    connection: &Connection,
    passage: &Passage,
    tables: &[Captured],
    vet: &Vet<'_>,
    now_ms: i64,
) -> Result<BTreeSet<usize>, SyncError> {
    let mut filled = BTreeSet::new();
    if passage.keys.is_empty() {
        return Ok(filled);
    }
    carried::make_keys(connection)?;
    for (way, rekey) in passage.keys.iter().enumerate() {
        let Some(table) = tables.iter().find(|t| t.id == rekey.from) else { continue };
        if rekey.backwards || is_done(passage, rekey, table) {
            continue;
        }
        let Some(mut of_row) = OfRow::new(connection, table, rekey, vet)? else { continue };
        filled.insert(way);
        let mut after: Option<Key> = None;
        loop {
            let keys = known_after(connection, table.id, after.as_ref(), table.key.len(), AT_ONCE)?;
            for key in &keys {
                if let Some(new) = of_row.new_key(key)? {
                    carried::put_key(connection, number(way), key, &new)?;
                }
            }
            if keys.len() < AT_ONCE {
                break;
            }
            after = keys.into_iter().last();
        }
        if rekey.from == rekey.into {
            unknown(connection, passage, table, way, rekey, now_ms)?;
            quarantined(connection, table, way, rekey, &mut of_row)?;
        }
    }
    Ok(filled)
}

/// Deletions of rows whose new key nobody can tell any more.
fn unknown(connection: &Connection, passage: &Passage, table: &Captured, way: usize, rekey: &Rekey, now_ms: i64) -> Result<(), SyncError> {
    each(connection, table, &mut |key, entry| {
        if entry.deed == Deed::Delete && carried::new_key(connection, number(way), key, rekey.values.len())?.is_none() {
            let why = "the row is gone, and its new key cannot be told from its old one";
            archive::put(connection, &of(passage, table, key, (None, None), &entry.edits[0], why, now_ms))?;
        }
        Ok(())
    })
}

/// Rows in quarantine have all that is needed with them.
fn quarantined(connection: &Connection, table: &Captured, way: usize, rekey: &Rekey, of_row: &mut OfRow<'_, '_>) -> Result<(), SyncError> {
    let mut moved = Vec::new();
    for (key, json) in carried::quarantined(connection, table.id, table.key.len())? {
        let Ok(mut row) = serde_json::from_str::<Row>(&json) else { continue };
        let known = carried::new_key(connection, number(way), &key, rekey.values.len())?;
        let new = match known {
            Some(new) => Some(new),
            None => {
                let values = row.values.iter().flatten().map(|(id, value)| (name(table, *id).to_owned(), stored(value)));
                let key = table.key.iter().zip(&row.key).map(|(k, value)| (k.name.clone(), stored(value)));
                of_row.of_values(&key.chain(values).filter(|(name, _)| !name.is_empty()).collect::<Vec<_>>())?
            }
        };
        if let Some(new) = new {
            row.key = new.0.iter().map(shown).collect();
            moved.push((key, new, serde_json::to_string(&row).expect("it was read from JSON")));
        }
    }
    Ok(carried::move_quarantined(connection, table.id, &moved)?)
}

/// Which of a table's own keys are to be changed at this end of a passage; those of the way down are mapped now.
pub(super) fn after(connection: &Connection, passage: &Passage, begun: &Begun, reach: Reach<'_>, vet: &Vet<'_>) -> Result<Vec<usize>, SyncError> {
    let mut ways = Vec::new();
    for (way, rekey) in passage.keys.iter().enumerate().filter(|(_, k)| k.from == k.into) {
        let Some(table) = begun.tables.iter().find(|t| t.id == rekey.from) else { continue };
        let now = match reach {
            Reach::Whole => passage.after.table_by_id(table.id),
            Reach::Partly(now) => now.table_by_id(table.id),
        };
        let Some(now) = now else { continue };
        let facts = Facts::read(connection, &now.name).map_err(sqlite("reading the shape of a table"))?;
        let Some(facts) = facts else { continue };
        let key: Vec<u32> = facts.key.iter().filter_map(|(at, _)| now.column(&facts.columns[*at].name)).map(|c| c.id).collect();
        let changed = matches!(reach, Reach::Whole) || key != table.key.iter().map(|k| k.id).collect::<Vec<_>>();
        if rekey.backwards && changed {
            backwards(connection, passage, table, way, rekey, &facts, vet)?;
            ways.push(way);
        } else if begun.keys.contains(&way) && changed {
            ways.push(way);
        }
    }
    Ok(ways)
}

/// Over each row below, the key that it had above.
fn backwards(
    connection: &Connection,
    passage: &Passage,
    above: &Captured,
    way: usize,
    rekey: &Rekey,
    below: &Facts,
    vet: &Vet<'_>,
) -> Result<(), SyncError> {
    let quoted = quote(&below.name);
    let key: Vec<String> = below.key.iter().map(|(at, _)| format!("{quoted}.{}", quote(&below.columns[*at].name))).collect();
    let values: Vec<String> = rekey.values.iter().map(|value| format!("({value}\n)")).collect();
    let sql = format!("SELECT {}, {} FROM main.{quoted}", key.join(", "), values.join(", "));
    vet(&sql).map_err(|why| SyncError::Key { table: above.name.clone(), why })?;
    let doing = "computing the keys that rows had";
    let new_collations: Vec<Collation> =
        passage.synced_after.table(rekey.into).map(|s| s.key.iter().map(|k| collation(k.1)).collect()).unwrap_or_default();
    let mut statement = connection.prepare(&sql).map_err(|e| SyncError::Key { table: above.name.clone(), why: e.to_string() })?;
    let mut rows = statement.query([]).map_err(sqlite(doing))?;
    while let Some(row) = rows.next().map_err(sqlite(doing))? {
        let new = Key::read(row, 0, key.len()).map_err(sqlite(doing))?;
        let old = Key::read(row, key.len(), values.len()).map_err(sqlite(doing))?;
        if let (Some(old), Some(new)) = (old, new) {
            carried::put_key(connection, number(way), &old.canonical(&above.collations()), &new.canonical(&new_collations))?;
        }
    }
    Ok(())
}

/// What waits and what is known follows to the new keys.
pub(super) fn follow(connection: &Connection, passage: &Passage, begun: &Begun, way: usize) -> Result<(), SyncError> {
    let rekey = &passage.keys[way];
    if rekey.backwards {
        let table = begun.tables.iter().find(|t| t.id == rekey.from).expect("it was looked at");
        // What was archived in case that no key would be found, and what has no place in any case.
        let mut outbox = Outbox::open(connection)?;
        let mut after: Option<Key> = None;
        loop {
            let keys = carried::waiting_after(connection, table.id, after.as_ref(), table.key.len(), AT_ONCE)?;
            for key in &keys {
                if carried::new_key(connection, number(way), key, rekey.collations.len())?.is_none() {
                    continue;
                }
                let entry = outbox.entry(table.id, key)?;
                archive::forget_value(connection, begun.archived, table.id, &text(key), None)?;
                for column in entry.iter().flat_map(|e| &e.edits).flat_map(|e| &e.columns) {
                    if super::fate(passage, table.id, *column) != Some(DropPolicy::Archive) {
                        archive::forget_value(connection, begun.archived, table.id, &text(key), Some(*column))?;
                    }
                }
            }
            if keys.len() < AT_ONCE {
                break;
            }
            after = keys.into_iter().last();
        }
        let columns = rekey_columns(passage, rekey);
        let mut moved = Vec::new();
        for (key, json) in carried::quarantined(connection, table.id, table.key.len())? {
            let new = carried::new_key(connection, number(way), &key, columns)?;
            if let (Some(new), Ok(mut row)) = (new, serde_json::from_str::<Row>(&json)) {
                row.key = new.0.iter().map(shown).collect();
                moved.push((key, new, serde_json::to_string(&row).expect("it was read from JSON")));
            }
        }
        carried::move_quarantined(connection, table.id, &moved)?;
        // Rows of which nobody knows any more which they were above are rows that the server has never seen.
        crate::store::journal::mark_sweep(connection, table.id, crate::store::journal::SweepReason::New, begun.boot_ms)?;
    }
    Ok(carried::move_keys(connection, rekey.from, number(way))?)
}

fn rekey_columns(passage: &Passage, rekey: &Rekey) -> usize {
    passage.synced_after.table(rekey.into).map_or(1, |s| s.key.len())
}

/// Computes the new key of one row.
struct OfRow<'c, 't> {
    connection: &'c Connection,
    table: &'t Captured,
    rekey: &'t Rekey,
    sql: String,
    /// Over the old key alone, for rows that are gone.
    of_key: Option<String>,
}

impl<'c, 't> OfRow<'c, 't> {
    /// `None`: a part whose columns are not there any more.
    fn new(connection: &'c Connection, table: &'t Captured, rekey: &'t Rekey, vet: &Vet<'_>) -> Result<Option<Self>, SyncError> {
        let quoted = quote(&table.name);
        let values = rekey.values.iter().map(|value| format!("({value}\n)")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {values} FROM main.{quoted} WHERE {}", condition(table, &quoted));
        let bad = |why: String| SyncError::Key { table: table.name.clone(), why };
        if let Err(why) = vet(&sql) {
            let gone = rekey.from != rekey.into && why.contains("no such column");
            return if gone { Ok(None) } else { Err(bad(why)) };
        }
        let mut of_row = Self { connection, table, rekey, sql, of_key: None };
        let key: Vec<String> = table.key.iter().map(|k| k.name.clone()).collect();
        let of_key = of_row.over(&key);
        if vet(&of_key).is_ok() && of_row.compiles(&of_key)? {
            of_row.of_key = Some(of_key);
        }
        Ok(Some(of_row))
    }

    /// The expressions over named parameters in place of a row.
    fn over(&self, names: &[String]) -> String {
        let values = self.rekey.values.iter().map(|value| format!("({value}\n)")).collect::<Vec<_>>().join(", ");
        let columns = names.iter().enumerate().map(|(n, name)| format!("?{} AS {}", n + 1, quote(name))).collect::<Vec<_>>().join(", ");
        format!("SELECT {values} FROM (SELECT {columns}) AS {}", quote(&self.table.name))
    }

    /// Whether it compiles where a name in double quotes is no text: a column that is not given must not become one.
    fn compiles(&self, sql: &str) -> Result<bool, SyncError> {
        let doing = "switching how double quotes are read";
        let was = self.connection.db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML).map_err(sqlite(doing))?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).map_err(sqlite(doing))?;
        let compiles = self.connection.prepare(sql).is_ok();
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, was).map_err(sqlite(doing))?;
        Ok(compiles)
    }

    /// The new key of the row with this one, or of the row that had it. `None`: it cannot be told, or has a NULL.
    fn new_key(&mut self, old: &Key) -> Result<Option<Key>, SyncError> {
        let found = self.read(&self.sql, &old.0)?;
        match (found, &self.of_key) {
            (Some(new), _) => Ok(new),
            (None, Some(sql)) => Ok(self.read(sql, &old.0)?.flatten()),
            (None, None) => Ok(None),
        }
    }

    /// The new key of a row that is not in the table.
    fn of_values(&mut self, values: &[(String, Option<KeyValue>)]) -> Result<Option<Key>, SyncError> {
        let sql = self.over(&values.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        if !self.compiles(&sql)? {
            return Ok(None);
        }
        let values: Vec<_> = values.iter().map(|(_, value)| value).collect();
        Ok(self.read_any(&sql, params_from_iter(values))?.flatten())
    }

    fn read(&self, sql: &str, key: &[KeyValue]) -> Result<Option<Option<Key>>, SyncError> {
        self.read_any(sql, params_from_iter(key))
    }

    fn read_any(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Option<Option<Key>>, SyncError> {
        let doing = "computing the new key of a row";
        let mut statement = self.connection.prepare_cached(sql).map_err(sqlite(doing))?;
        let mut rows = statement.query(parameters).map_err(sqlite(doing))?;
        let Some(row) = rows.next().map_err(sqlite(doing))? else { return Ok(None) };
        let key = Key::read(row, 0, self.rekey.values.len()).map_err(sqlite(doing))?;
        Ok(Some(key.map(|key| key.canonical(&self.rekey.collations))))
    }
}

fn stored(value: &Value) -> Option<KeyValue> {
    match value {
        Value::Null => None,
        Value::Integer(n) => Some(KeyValue::Integer(*n)),
        Value::Real(bits) => Some(KeyValue::Real(*bits)),
        Value::Text(text) => Some(KeyValue::Text(text.clone())),
        Value::Blob(blob) => Some(KeyValue::Blob(blob.clone())),
    }
}

fn shown(value: &KeyValue) -> Value {
    match value {
        KeyValue::Integer(n) => Value::Integer(*n),
        KeyValue::Real(bits) => Value::Real(*bits),
        KeyValue::Text(text) => Value::Text(text.clone()),
        KeyValue::Blob(blob) => Value::Blob(blob.clone()),
    }
}
