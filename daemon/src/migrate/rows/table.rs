//! A table as the row steps see it: what identifies its rows, and the conditions on ranges of them.

use rusqlite::{Connection, OptionalExtension, Row, types::Value};
use serde_json::json;
pub use whimbrel_shared::sql::quote;

use crate::migrate::error::{ApplyError, sqlite};

/// Most columns of a declared primary key that a row step can walk along.
pub const MOST_KEY_COLUMNS: usize = 8;

/// What identifies a row: the row id, or the values of the declared primary key of a table WITHOUT ROWID.
pub type Key = Vec<Value>;

/// A table whose rows can be walked in the order of their keys.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name as it is written.
    pub name: String,
    /// `main."name"`.
    pub quoted: String,
    /// What identifies a row, quoted where it is a column.
    pub key: Vec<String>,
    /// Names of its columns.
    pub columns: Vec<String>,
}

impl Table {
    /// Reads the shape of the table `name`. `None`: there is none, or it is a view or virtual and has no rows of its own.
    pub fn read(connection: &Connection, name: &str) -> Result<Option<Self>, ApplyError> {
        Self::try_read(connection, name).map_err(sqlite("reading the shape of a table"))
    }

    fn try_read(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let mut statement =
            connection.prepare("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?1 COLLATE NOCASE")?;
        let mut rows = statement.query([name])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (name, without_rowid): (String, bool) = (row.get(0)?, row.get(1)?);
        let mut statement = connection.prepare("SELECT name, pk FROM pragma_table_xinfo(?1)")?;
        let columns: Vec<(String, i64)> = statement.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let key = if without_rowid {
            let mut key: Vec<_> = columns.iter().filter(|(_, place)| *place > 0).collect();
            key.sort_by_key(|(_, place)| *place);
            key.into_iter().map(|(column, _)| quote(column)).collect()
        } else {
            // A column may be called like the row id; then another of its names stands for it.
            let free = |name: &&str| !columns.iter().any(|(c, _)| c.eq_ignore_ascii_case(name));
            ["_rowid_", "rowid", "oid"].into_iter().find(free).map(str::to_owned).into_iter().collect()
        };
        let columns = columns.into_iter().map(|(column, _)| column).collect();
        Ok(Some(Self { quoted: format!("main.{}", quote(&name)), name, key, columns }))
    }

    /// The key's columns with commas between.
    pub fn key_list(&self) -> String {
        self.key.join(", ")
    }

    /// `(key) op (?first, …)`.
    pub fn compare(&self, operator: &str, first: usize) -> String {
        let parameters: Vec<_> = (first..first + self.key.len()).map(|n| format!("?{n}")).collect();
        format!("({}) {operator} ({})", self.key_list(), parameters.join(", "))
    }

    /// The condition for the rows after one key and up to another, with parameters in that order; all rows without them.
    pub fn range(&self, after: bool, up_to: bool) -> String {
        match (after, up_to) {
            (false, false) => "TRUE".to_owned(),
            (true, false) => self.compare(">", 1),
            (false, true) => self.compare("<=", 1),
            (true, true) => format!("{} AND {}", self.compare(">", 1), self.compare("<=", 1 + self.key.len())),
        }
    }

    /// A row's key from the first columns of a query.
    pub fn key_of(&self, row: &Row<'_>) -> rusqlite::Result<Key> {
        (0..self.key.len()).map(|column| row.get(column)).collect()
    }

    /// The key of the last row of the next part after `after`, and how many rows it has. `None`: the part goes to the end.
    pub fn bound(&self, connection: &Connection, after: Option<&Key>, rows: u32) -> Result<(Option<Key>, u64), ApplyError> {
        let (table, key) = (&self.quoted, self.key_list());
        let from = after.map_or_else(|| "TRUE".to_owned(), |_| self.compare(">", 1));
        let parameters: Vec<Value> = after.into_iter().flatten().cloned().chain([Value::Integer(i64::from(rows.max(1)) - 1)]).collect();
        let sql = format!("SELECT {key} FROM {table} WHERE {from} ORDER BY {key} LIMIT 1 OFFSET ?{}", parameters.len());
        let last = connection
            .prepare_cached(&sql)
            .and_then(|mut s| s.query_row(rusqlite::params_from_iter(&parameters), |row| self.key_of(row)).optional())
            .map_err(sqlite("finding the next rows"))?;
        if last.is_some() {
            return Ok((last, u64::from(rows)));
        }
        let sql = format!("SELECT count(*) FROM {table} WHERE {from}");
        let left: i64 = connection
            .prepare_cached(&sql)
            .and_then(|mut s| s.query_row(rusqlite::params_from_iter(after.into_iter().flatten()), |row| row.get(0)))
            .map_err(sqlite("finding the next rows"))?;
        Ok((None, left.unsigned_abs()))
    }

    /// A row as JSON, for a person: at most `limit` bytes.
    pub fn show(&self, connection: &Connection, key: &Key, limit: usize) -> rusqlite::Result<Option<String>> {
        let sql = format!("SELECT * FROM {} WHERE {}", self.quoted, self.compare("=", 1));
        let mut statement = connection.prepare_cached(&sql)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query(rusqlite::params_from_iter(key))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let mut object = serde_json::Map::new();
        for (at, name) in names.into_iter().enumerate() {
            object.insert(name, to_json(&row.get(at)?));
        }
        let mut text = serde_json::Value::Object(object).to_string();
        if text.len() > limit {
            let cut = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        Ok(Some(text))
    }
}

/// What SQLite makes of a declared type (<https://www.sqlite.org/datatype3.html>, 3.1).
pub fn affinity(kind: &str) -> &'static str {
    let kind = kind.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    if has(&["INT"]) {
        "INTEGER"
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        "TEXT"
    } else if kind.is_empty() || has(&["BLOB"]) {
        "BLOB"
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        "REAL"
    } else {
        "NUMERIC"
    }
}

/// A value as JSON. What JSON cannot hold exactly is an object: `{"$blob": hex}`, `{"$real": hex of the bits}`.
pub fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Integer(n) => json!(n),
        Value::Real(r) if r.is_finite() && r.to_string().parse() == Ok(*r) && r.fract() != 0.0 && r.abs() < 1e15 => json!(r),
        Value::Real(r) => json!({ "$real": format!("{:016x}", r.to_bits()) }),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "$blob": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() }),
    }
}

/// The value that JSON stands for: [`to_json`]'s, and booleans as 1 and 0. An array or another object is its own text.
pub fn from_json(json: serde_json::Value) -> Result<Value, String> {
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Integer(i64::from(b)),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Value::Integer(n),
            (None, Some(r)) => Value::Real(r),
            (None, None) => return Err(format!("{n} is no number that SQLite can hold")),
        },
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Object(object) if object.len() == 1 && (object.contains_key("$blob") || object.contains_key("$real")) => {
            let (kind, text) = object.iter().next().map(|(k, v)| (k.as_str(), v.as_str())).expect("it has one entry");
            let text = text.filter(|t| t.is_ascii()).ok_or_else(|| format!("{kind} needs hexadecimal digits"))?;
            if kind == "$blob" {
                let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
                Value::Blob(bytes.ok_or_else(|| "$blob needs pairs of hexadecimal digits".to_owned())?)
            } else {
                let bits = u64::from_str_radix(text, 16).map_err(|_| "$real needs the bits as 16 hexadecimal digits".to_owned())?;
                Value::Real(f64::from_bits(bits))
            }
        }
        other => Value::Text(other.to_string()),
    })
}

/// A key as text: a JSON array, the same for the same key.
pub fn key_text(key: &Key) -> String {
    serde_json::Value::Array(key.iter().map(to_json).collect()).to_string()
}

/// The key that [`key_text`] wrote.
pub fn key_from_text(text: &str) -> Result<Key, String> {
    let values: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    values.into_iter().map(from_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text() {
        let key = vec![
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::Real(1e300),
            Value::Real(-0.0),
            Value::Text("ä\"\u{1}".into()),
            Value::Blob(vec![0, 255]),
            Value::Null,
        ];
        assert_eq!(key_from_text(&key_text(&key)).unwrap(), key);
        assert!(from_json(json!({ "$blob": "abc" })).is_err() && from_json(json!({ "$blob": "äö" })).is_err());
    }

    #[test]
    fn the_key_is_the_row_id_or_the_declared_one() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE a(x); CREATE TABLE b(_rowid_, y); CREATE TABLE c(x, y, PRIMARY KEY(y, x)) WITHOUT ROWID; CREATE VIEW v AS SELECT 1",
            )
            .unwrap();
        let key = |name| Table::read(&connection, name).unwrap().map(|t| t.key_list());
        assert_eq!(
            [key("A"), key("b"), key("c"), key("v"), key("d")],
            [Some("_rowid_".to_owned()), Some("rowid".to_owned()), Some("\"y\", \"x\"".to_owned()), None, None]
        );
    }
}
