//! The key-value stores that a seed system's queue can lie in: a table of an SQLite file, or a dump as JSON. The move itself
//! is `whimbrel_shared::queue`, which the server uses too.

mod dump;
mod table;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, str::FromStr};

use whimbrel_shared::{
    queue::KeyValue,
    remedy::{Remedy, here, wait},
};

use self::{dump::Dump, table::Table};

/// Where a key-value store lies, as `--kv` names it: `sqlite:PATH` or `json:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A table of an SQLite file.
    Sqlite(PathBuf),
    /// A dump: an object of keys and values, or a list of `{"key", "value", …}`.
    Json(PathBuf),
}

/// A text that names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key-value store: write sqlite:PATH or json:PATH")]
pub struct UnknownPlace(String);

impl FromStr for Place {
    type Err = UnknownPlace;
    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(("json", path)) if !path.is_empty() => Ok(Self::Json(path.into())),
            _ => Err(UnknownPlace(text.chars().take(200).collect())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Json(path) => write!(f, "json:{}", path.display()),
        }
    }
}

/// The table of an SQLite store, and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The table.
    pub table: String,
    /// The column with the keys.
    pub key: String,
    /// The column with the values.
    pub value: String,
}

/// Why a store could not be used. What was not kept is as it was.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// SQLite failed.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The table or a column is not there.
    #[error("there is no {what} {name:?}; there {}", if there.is_empty() { "is none".to_owned() } else { format!("are {}", there.join(", ")) })]
    NotThere {
        /// `table` or `column`.
        what: &'static str,
        /// As asked.
        name: String,
        /// What there is instead.
        there: Vec<String>,
    },
    /// A value is no text.
    #[error("the value of {key} is no text")]
    NoText {
        /// Its key.
        key: String,
    },
    /// The dump's file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The dump is none.
    #[error("{path} is no dump of a key-value store: {why}")]
    NoDump {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Somebody else wrote it in the meantime.
    #[error("{path} was changed by somebody else in the meantime; it was left as it is now")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl KvError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Sqlite { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                wait("the queue's workers hold the file; run it again")
            }
            Self::Sqlite { .. } => here("look at the path, and at who may read and write it"),
            Self::NotThere { .. } => here("name them: --table, --key-column, --value-column"),
            Self::NoText { .. } => here("the queue's values are JSON texts: is this the right table?"),
            Self::Io { .. } => here("look at the path, and at who may read and write it"),
            Self::NoDump { .. } => here("it is an object of keys and values, or a list of objects with \"key\" and \"value\""),
            Self::Changed { .. } => here("stop who writes it, and run it again"),
        }
    }
}

/// An open store.
#[derive(Debug)]
pub enum Store {
    /// A table.
    Table(Table),
    /// A dump.
    Dump(Dump),
}

impl Store {
    /// Opens one that is there.
    pub fn open(place: &Place, columns: &Columns) -> Result<Self, KvError> {
        match place {
            Place::Sqlite(path) => Ok(Self::Table(Table::open(path, columns)?)),
            Place::Json(path) => Ok(Self::Dump(Dump::open(path)?)),
        }
    }

    /// Writes what was kept in memory only: a dump is replaced as a whole. A table has kept every entry by itself.
    pub fn save(self) -> Result<(), KvError> {
        match self {
            Self::Table(_) => Ok(()),
            Self::Dump(dump) => dump.save(),
        }
    }
}

impl KeyValue for Store {
    type Error = KvError;

    fn keys(&self, front: &str) -> Result<Vec<String>, KvError> {
        match self {
            Self::Table(table) => table.keys(front),
            Self::Dump(dump) => dump.keys(front),
        }
    }

    fn get(&self, key: &str) -> Result<Option<String>, KvError> {
        match self {
            Self::Table(table) => table.get(key),
            Self::Dump(dump) => dump.get(key),
        }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), KvError> {
        match self {
            Self::Table(table) => table.put(key, value),
            Self::Dump(dump) => dump.put(key, value),
        }
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<(), KvError> {
        match self {
            Self::Table(table) => table.copy(from, to),
            Self::Dump(dump) => dump.copy(from, to),
        }
    }

    fn remove(&mut self, key: &str) -> Result<(), KvError> {
        match self {
            Self::Table(table) => table.remove(key),
            Self::Dump(dump) => dump.remove(key),
        }
    }

    fn keep(&mut self) -> Result<(), KvError> {
        match self {
            Self::Table(table) => table.keep(),
            Self::Dump(dump) => dump.keep(),
        }
    }

    fn forget(&mut self) {
        match self {
            Self::Table(table) => table.forget(),
            Self::Dump(dump) => dump.forget(),
        }
    }
}
