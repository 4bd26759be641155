//! Whether rows of a sample went where `[[carry]]` says: what is said of unsent edits has to be true of the rows that are
//! there, or an edit would be sent with another value.

use std::collections::BTreeMap;

use rusqlite::{Connection, types::Value};
use whimbrel_shared::manifest::{Carry, Manifest};

use crate::migrate::rows::table::{Table, quote};

/// Rows of one table that are looked at.
const MOST_ROWS: usize = 10_000;

/// Values of one column by their row's key.
type Values = BTreeMap<Vec<String>, Value>;

/// What was there before a migration.
pub(super) struct Watched {
    entries: Vec<Entry>,
}

struct Entry {
    carry: Carry,
    /// Columns of the declared primary key.
    key: Vec<String>,
    /// By column before.
    values: BTreeMap<String, Values>,
}

/// Notes the values of what `manifest` carries.
pub(super) fn watch(connection: &Connection, manifest: &Manifest) -> rusqlite::Result<Watched> {
    let mut entries = Vec::new();
    for carry in &manifest.carry {
        let key = key_of(connection, &carry.table)?;
        // Without a key no row is found again; with another one, neither.
        if key.is_empty() || !carry.key.is_empty() || carry.gone.is_some() && carry.into.is_empty() {
            continue;
        }
        let renamed = carry.rename.keys().chain(carry.split.keys()).chain(carry.merge.values().flatten());
        let moved = carry.into.values().flat_map(|part| part.columns.keys());
        let mut values = BTreeMap::new();
        for column in renamed.chain(moved).chain(key.first().filter(|_| carry.to.is_some())) {
            values.insert(column.clone(), read(connection, &carry.table, &key, column)?);
        }
        entries.push(Entry { carry: carry.clone(), key, values });
    }
    Ok(Watched { entries })
}

impl Watched {
    /// The first thing that is not where it should be, in words.
    pub(super) fn lost(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        for Entry { carry, key, values } in &self.entries {
            let table = carry.to.as_ref().unwrap_or(&carry.table);
            let now = |column: &String| carry.rename.iter().find(|(from, _)| from.eq_ignore_ascii_case(column)).map_or(column, |(_, to)| to).clone();
            let key_now: Vec<String> = key.iter().map(now).collect();
            let before = |column: &String| values.get(column).cloned().unwrap_or_default();
            for (from, to) in carry.to.iter().flat_map(|_| key.first()).map(|k| (k, now(k))).chain(carry.rename.iter().map(|(f, t)| (f, t.clone()))) {
                let what = format!("{}.{from} and {table}.{to}", carry.table);
                let same = |a: &Value, b: Option<&Value>| b == Some(a);
                if let Some(lost) = compare(&what, &before(from), &read(connection, table, &key_now, &to)?, same) {
                    return Ok(Some(lost));
                }
            }
            // What is split or merged is computed: that there is something is all that can be said of it.
            let something = |a: &Value, b: Option<&Value>| *a == Value::Null || b.is_some_and(|b| *b != Value::Null);
            for (from, to) in carry
                .split
                .iter()
                .map(|(f, t)| (vec![f], t.iter().collect::<Vec<_>>()))
                .chain(carry.merge.iter().map(|(t, f)| (f.iter().collect(), vec![t])))
            {
                let mut after = Values::new();
                for column in &to {
                    for (key, value) in read(connection, table, &key_now, column)? {
                        let kept = after.entry(key).or_insert(Value::Null);
                        if *kept == Value::Null {
                            *kept = value;
                        }
                    }
                }
                for from in from {
                    let names: Vec<&str> = to.iter().map(|c| c.as_str()).collect();
                    let what = format!("{}.{from} and {table}.{}", carry.table, names.join(", "));
                    if let Some(lost) = compare(&what, &before(from), &after, something) {
                        return Ok(Some(lost));
                    }
                }
            }
            for (name, part) in &carry.into {
                // In the order of the old key.
                let there: Vec<String> =
                    key.iter().filter_map(|k| part.key.iter().find(|(_, from)| from.eq_ignore_ascii_case(k)).map(|(to, _)| to.clone())).collect();
                if there.len() != key.len() {
                    continue;
                }
                for (from, to) in &part.columns {
                    let what = format!("{}.{from} and {name}.{to}", carry.table);
                    // Nothing to tell needs no row.
                    let same = |a: &Value, b: Option<&Value>| b.unwrap_or(&Value::Null) == a;
                    if let Some(lost) = compare(&what, &before(from), &read(connection, name, &there, to)?, same) {
                        return Ok(Some(lost));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn compare(what: &str, before: &Values, after: &Values, same: impl Fn(&Value, Option<&Value>) -> bool) -> Option<String> {
    let wrong = before.iter().filter(|(key, value)| !same(value, after.get(*key))).count();
    (wrong > 0).then(|| format!("{what} are not the same in {wrong} of {} rows", before.len()))
}

fn key_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE pk > 0 ORDER BY pk")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Nothing where the table or a column is not there: then the chain itself is refused.
fn read(connection: &Connection, table: &str, key: &[String], column: &str) -> rusqlite::Result<Values> {
    let there = Table::read(connection, table).ok().flatten();
    let has = |name: &str| there.as_ref().is_some_and(|t| t.columns.iter().any(|c| c.eq_ignore_ascii_case(name)));
    if !key.iter().all(|k| has(k)) || !has(column) {
        return Ok(Values::new());
    }
    let keys: Vec<String> = key.iter().map(|k| format!("quote({})", quote(k))).collect();
    let order: Vec<String> = key.iter().map(|k| quote(k)).collect();
    // The first by key, before as after: a sample may have more rows than anybody wants to wait for.
    let sql = format!("SELECT {}, {} FROM main.{} ORDER BY {} LIMIT {MOST_ROWS}", quote(column), keys.join(", "), quote(table), order.join(", "));
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut out = Values::new();
    while let Some(row) = rows.next()? {
        let key = (1..=key.len()).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
        out.insert(key, row.get(0)?);
    }
    Ok(out)
}
