//! Why rows could not be captured or folded, and what can be done.

use whimbrel_shared::remedy::{Remedy, here, operator, wait};

use crate::store::{StoreError, code_of, is_disk_full};

/// Why capture or fold did not happen. The caller's transaction is to be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Our own tables in the file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite failed.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A table cannot be read the way it was captured: it, or a column of it, is not there any more.
    #[error("the table {table} cannot be read as it was captured: {why}")]
    Unreadable {
        /// Its name.
        table: String,
        /// What SQLite said.
        why: String,
    },
    /// What was written about a captured table is not what we write.
    #[error("what is known of the captured table {table} was not written by this whimbrel: {why}")]
    BadShape {
        /// Its id.
        table: u32,
        /// What is wrong.
        why: String,
    },
    /// Edits that a migration may not leave behind are not sent yet.
    #[error("{total} row{} with edits that are not sent yet would lose their place, and the migration says that they are waited for: {}",
        if *total == 1 { "" } else { "s" }, rows.join("; "))]
    Unsent {
        /// The first of them: table, key and column.
        rows: Vec<String>,
        /// How many.
        total: u64,
    },
    /// An expression over a row, in a migration's `key`, cannot be used.
    #[error("the new key of the rows of {table} cannot be computed: {why}")]
    Key {
        /// The table.
        table: String,
        /// What SQLite said.
        why: String,
    },
    /// More rows refer to one that gets another key than are moved at once.
    #[error("more than {most} rows follow a row of {table} that gets another key")]
    TooManyFollow {
        /// The table.
        table: String,
        /// The limit.
        most: usize,
    },
    /// An error ended the transaction; what came after it would have run alone.
    #[error("SQLite ended the transaction in the middle of it (a full disk or an interrupt does); nothing of it was kept")]
    LostTransaction,
    /// The caller holds no transaction, and what is done here is all or nothing.
    #[error("{doing} needs an open write transaction, and there is none")]
    NoTransaction {
        /// What was to be done.
        doing: &'static str,
    },
}

impl SyncError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Sqlite { source, .. } if is_disk_full(code_of(source)) => here("free some disk space; it is tried again by itself"),
            Self::Sqlite { .. } | Self::LostTransaction => wait("it is tried again by itself; if it stays, look at the disk"),
            Self::Unreadable { .. } => wait("the table is compared with what the server has as soon as it can be read again"),
            Self::TooManyFollow { .. } => here("give the row another key in the application"),
            Self::BadShape { .. } => here("update whimbrel to the version that wrote it, or a later one"),
            Self::Unsent { .. } => {
                wait("it runs by itself as soon as they are sent; `whimbrel sync` sends them now, where the server can be reached")
            }
            Self::Key { .. } => operator("publish a revision whose `key` is over the old row's own columns"),
            Self::NoTransaction { .. } => here("report this: it should not happen"),
        }
    }
}

/// Gives a rusqlite error its place.
pub(crate) fn sqlite(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> SyncError {
    move |source| SyncError::Sqlite { doing, source }
}
