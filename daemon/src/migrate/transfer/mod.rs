//! Rows out of a database and into one, as NDJSON: `whimbrel export` and `whimbrel import`. The command line does it itself,
//! under the owner's rule and, where it writes, under the same lock file as the daemon: rows by the million do not belong
//! on the control socket.

pub mod export;
pub mod import;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{AppName, Digest},
    remedy::{Remedy, here, wait},
};

use super::{
    error::ApplyError,
    files::{self, NotOurs},
};

/// The number in an export's first line.
pub const FORMAT: u32 = 1;

/// The first line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`]; also what tells an export from other NDJSON.
    pub whimbrel_export: u32,
    /// The app, where the file is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Fingerprint of the whole schema that the rows were read under.
    pub fingerprint: Digest,
    /// The tables, each after those that it refers to.
    pub tables: Vec<ExportedTable>,
}

/// One table of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedTable {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
}

/// Every line of an export but the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The table.
    pub table: String,
    /// The row: columns with their values, in the form of `rows/table.rs`.
    pub row: serde_json::Map<String, serde_json::Value>,
}

/// Why rows were not moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The database.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// It is not ours to open.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database has no such table.
    #[error("there is no table {table}; it is one of: {}", there.join(", "))]
    NoTable {
        /// The table.
        table: String,
        /// Those there are.
        there: Vec<String>,
    },
    /// A migration was begun on the database and is not done.
    #[error("a migration is under way on this database")]
    UnderWay,
    /// Nothing tells the rows of a table apart.
    #[error("{table} has no primary key: nothing says which of its rows a row of the file is")]
    NoKey {
        /// The table.
        table: String,
    },
    /// A file of rows does not say which table they are of.
    #[error("{path} is no export: it does not say which table its rows are of")]
    WhichTable {
        /// The file.
        path: PathBuf,
    },
    /// A line of the file.
    #[error("{path}, line {line}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl TransferError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Apply(ApplyError::OtherRunner { .. }) | Self::UnderWay => wait("run it again when `whimbrel status` shows no migration at work"),
            Self::Apply(ApplyError::Row { .. }) => here("correct the row and run it again: rows that are in already are left as they are"),
            Self::Apply(error) => match error.remedy() {
                Remedy::Wait(_) => here("run it again later; rows that are in already are left as they are"),
                Remedy::Operator(_) => here("look at the database's schema and at the file: they do not fit together"),
                other => other,
            },
            Self::NotOurs(NotOurs::Owner { .. }) => here("run it as the user that the file belongs to"),
            Self::NotOurs(NotOurs::Link(link)) => link.remedy(),
            Self::NotOurs(NotOurs::Network { .. }) => here("run it on the machine that has the file"),
            Self::Io { .. } => here("name a file that can be read and written"),
            Self::NoTable { .. } => here("name one of those with --table"),
            Self::NoKey { .. } => here("name its unique columns with --key"),
            Self::WhichTable { .. } => here("name it with --table"),
            Self::Line { .. } => here("correct the line and run it again: rows that are in already are left as they are"),
        }
    }
}

/// Whether we may open the file, by the owner's rule.
fn may_open(path: &Path) -> Result<(), TransferError> {
    Ok(files::may_open(path).map_err(|source| TransferError::Io { path: path.to_owned(), source })??)
}

#[cfg(test)]
mod tests;
