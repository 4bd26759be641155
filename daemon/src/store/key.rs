//! The key of a captured row: up to four values, exact to the byte, and the one form that stands for all its spellings.

use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};
use whimbrel_shared::value::Value;

/// Most columns of a key that the journal has room for.
pub const MOST_KEY_COLUMNS: usize = 4;

/// How SQLite compares the text of a key column. A key with another collation than these cannot be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Collation {
    /// Byte by byte.
    Binary,
    /// ASCII letters without regard to case.
    NoCase,
    /// Without regard to spaces at the end.
    RTrim,
}

impl Collation {
    /// The built-in collation of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Binary, Self::NoCase, Self::RTrim].into_iter().find(|c| c.name().eq_ignore_ascii_case(name))
    }

    /// As SQL writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::NoCase => "NOCASE",
            Self::RTrim => "RTRIM",
        }
    }
}

/// One value of a key. Text is bytes: SQLite stores text that is not UTF-8 too. NULL is none: such a row has no key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// An integer.
    Integer(i64),
    /// The bits of a number that is no integer.
    Real(u64),
    /// Text.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl KeyValue {
    /// A stored value; `None` for NULL.
    pub fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Null => None,
            ValueRef::Integer(n) => Some(Self::Integer(n)),
            ValueRef::Real(r) => Some(Self::Real(r.to_bits())),
            ValueRef::Text(text) => Some(Self::Text(text.to_owned())),
            ValueRef::Blob(bytes) => Some(Self::Blob(bytes.to_owned())),
        }
    }

    /// The one form of all values that are the same key to SQLite: 1 for 1.0, and lower case or no spaces at the end where
    /// the collation does not regard them. (SQLite's NOCASE stops at a zero byte; a key with one inside is not unified.)
    pub fn canonical(self, collation: Collation) -> Self {
        match self {
            Self::Real(bits) => {
                let real = f64::from_bits(bits);
                // Exclusive above: 2^63 itself is no i64.
                let whole = real.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&real);
                if whole { Self::Integer(real as i64) } else { self }
            }
            Self::Text(mut text) => {
                match collation {
                    Collation::Binary => {}
                    Collation::NoCase => text.make_ascii_lowercase(),
                    Collation::RTrim => text.truncate(text.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1)),
                }
                Self::Text(text)
            }
            Self::Integer(_) | Self::Blob(_) => self,
        }
    }
}

impl ToSql for KeyValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Integer(n) => ToSqlOutput::Borrowed(ValueRef::Integer(*n)),
            Self::Real(bits) => ToSqlOutput::Borrowed(ValueRef::Real(f64::from_bits(*bits))),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text)),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

impl FromSql for KeyValue {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::of(value).ok_or(rusqlite::types::FromSqlError::InvalidType)
    }
}

/// A key: one to [`MOST_KEY_COLUMNS`] values, in the order of the table's declared primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Vec<KeyValue>);

impl Key {
    /// The columns of a query from `first` on; `None` when one of them is NULL.
    pub fn read(row: &rusqlite::Row<'_>, first: usize, columns: usize) -> rusqlite::Result<Option<Self>> {
        (first..first + columns).map(|at| Ok(KeyValue::of(row.get_ref(at)?))).collect::<rusqlite::Result<Option<Vec<_>>>>().map(|key| key.map(Self))
    }

    /// [`KeyValue::canonical`] of each value.
    pub fn canonical(self, collations: &[Collation]) -> Self {
        let columns = self.0.into_iter().zip(collations);
        Self(columns.map(|(value, collation)| value.canonical(*collation)).collect())
    }

    /// Its values, for the wire and for people.
    pub fn values(&self) -> Vec<Value> {
        let one = |value: &KeyValue| match value {
            KeyValue::Integer(n) => Value::Integer(*n),
            KeyValue::Real(bits) => Value::Real(*bits),
            KeyValue::Text(bytes) => Value::Text(bytes.clone()),
            KeyValue::Blob(bytes) => Value::Blob(bytes.clone()),
        };
        self.0.iter().map(one).collect()
    }

    /// The value of column `at` as our own tables keep it: 0 where the key has fewer.
    pub(super) fn column(&self, at: usize) -> &KeyValue {
        self.0.get(at).unwrap_or(&KeyValue::Integer(0))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn keys_have_one_form_exactly_where_sqlite_takes_them_for_the_same() {
        let reals: [f64; 8] = [0.0, -0.0, 1.0, 1.5, 1e300, -2_f64.powi(63), 2_f64.powi(63), 4_503_599_627_370_497.0];
        let texts = ["a", "A", "a ", "a  ", " a", "", " ", "Ä", "ä", "1"];
        let mut values: Vec<KeyValue> = reals.iter().map(|r| KeyValue::Real(r.to_bits())).collect();
        values.extend([0, 1, i64::MIN, i64::MAX, 4_503_599_627_370_497].map(KeyValue::Integer));
        values.extend(texts.map(|t| KeyValue::Text(t.into())));
        values.extend([KeyValue::Blob(b"a".to_vec()), KeyValue::Blob(Vec::new()), KeyValue::Text(vec![0xff, b'A'])]);
        let connection = Connection::open_in_memory().unwrap();
        for collation in [Collation::Binary, Collation::NoCase, Collation::RTrim] {
            let mut same = connection.prepare(&format!("SELECT ?1 = ?2 COLLATE {}", collation.name())).unwrap();
            for a in &values {
                for b in &values {
                    let sqlite: bool = same.query_row([a, b], |row| row.get(0)).unwrap();
                    assert_eq!(a.clone().canonical(collation) == b.clone().canonical(collation), sqlite, "{a:?} {b:?} {collation:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_with_null_is_no_key() {
        let connection = Connection::open_in_memory().unwrap();
        let read = |sql: &str| connection.query_row(sql, [], |row| Key::read(row, 0, 2)).unwrap();
        assert_eq!(read("SELECT 1, NULL"), None);
        assert_eq!(read("SELECT 1, x'00'"), Some(Key(vec![KeyValue::Integer(1), KeyValue::Blob(vec![0])])));
    }
}
