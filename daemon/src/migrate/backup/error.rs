//! Why a copy of a database could not be made, checked or brought back (DESIGN 8.4).

use std::path::PathBuf;

use whimbrel_shared::{
    remedy::{Remedy, here, wait},
    status::FailureClass,
};

use crate::{
    migrate::error::class_of,
    store::{StoreError, code_of, is_disk_full},
};

/// Why a backup, a restore or a private copy did not happen. What was begun of it has been taken away again: the managed
/// file is as it was, and so is every finished backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The disk that the copy goes to is too small.
    #[error("not enough room in {place}: {needed_bytes} bytes are needed and {free_bytes} are free")]
    NoRoom {
        /// The directory.
        place: PathBuf,
        /// What the copy takes.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// A directory or file could not be made, synced, renamed or read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Our own tables in the copy could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy is not whole.
    #[error("the copy {path} is damaged: {found}")]
    Damaged {
        /// The copy.
        path: PathBuf,
        /// What SQLite's check said.
        found: String,
    },
    /// It is not a backup of this database, or not what its name says.
    #[error("{path} is not a backup of this database: {why}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// There is no such backup.
    #[error("{database} has no backup {wanted}; it has {there}")]
    Unknown {
        /// The database.
        database: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The ids that there are, or `none`.
        there: String,
    },
    /// The database itself cannot be opened, and a restore writes into the live file.
    #[error("{database} cannot be opened, so the backup cannot be written into it")]
    NoDatabase {
        /// The database.
        database: PathBuf,
        /// The file to put into its place by hand.
        backup: PathBuf,
    },
    /// A restore would throw away what came since, and nobody said that it may.
    #[error("{database} may hold what the backup {backup_id} does not: {why}. Going back would lose {lost}")]
    Newer {
        /// The database.
        database: PathBuf,
        /// The backup.
        backup_id: String,
        /// Why it cannot be ruled out.
        why: &'static str,
        /// The rows that would go, table by table, or that they could not be counted.
        lost: String,
    },
    /// In WAL mode SQLite cannot change the page size (<https://sqlite.org/c3ref/backup_finish.html>).
    #[error("the backup has pages of {backup} bytes and the database pages of {live}; SQLite cannot change that in WAL mode")]
    PageSize {
        /// Of the backup.
        backup: u32,
        /// Of the database.
        live: u32,
    },
    /// The daemon ends, or a person wants the database left alone.
    #[error("the copy was given up: the daemon ends, or the database is to be left alone")]
    Cancelled,
}

/// Gives a rusqlite error its place.
pub(crate) fn sqlite(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> BackupError {
    move |source| BackupError::Sqlite { doing, source }
}

/// Gives an I/O error its place.
pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> BackupError {
    move |source| BackupError::Io { path: path.into(), source }
}

impl BackupError {
    /// A short stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "backup_no_room",
            Self::Io { .. } | Self::Sqlite { .. } | Self::Store(_) => "backup_failed",
            Self::Damaged { .. } => "backup_damaged",
            Self::Foreign { .. } => "backup_foreign",
            Self::Unknown { .. } => "backup_unknown",
            Self::NoDatabase { .. } | Self::Newer { .. } | Self::PageSize { .. } => "restore_refused",
            Self::Cancelled => "backup_cancelled",
        }
    }

    /// How it is retried.
    pub fn class(&self) -> FailureClass {
        match self {
            // A copy that is damaged says that the file is, or that the disk it went to is: the file's own check decides.
            Self::NoRoom { .. } | Self::Io { .. } | Self::Damaged { .. } | Self::Cancelled => FailureClass::Transient,
            Self::Sqlite { source, .. } => class_of(code_of(source)),
            Self::Store(error) => class_of(error.sqlite_code()),
            Self::Foreign { .. } | Self::Unknown { .. } | Self::NoDatabase { .. } | Self::Newer { .. } | Self::PageSize { .. } => {
                FailureClass::Permanent
            }
        }
    }

    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NoRoom { .. } => here("free some disk space, or name another disk: `dir` of [backup] in the configuration"),
            Self::Io { .. } => here("let the daemon's user write there, or name another directory: `dir` of [backup] in the configuration"),
            Self::Sqlite { source, .. } if is_disk_full(code_of(source)) => {
                here("free some disk space, or name another disk: `dir` of [backup] in the configuration")
            }
            Self::Sqlite { .. } => wait("it is tried again by itself; if it stays, look at the disk"),
            Self::Store(error) => error.remedy(),
            Self::Damaged { .. } => here("look at the disk that it lies on; `whimbrel backup list` shows the other backups"),
            Self::Foreign { .. } | Self::Unknown { .. } => here("`whimbrel backup list` shows what there is"),
            Self::NoDatabase { backup, .. } => {
                here(format!("stop the application, move the damaged file away, and copy {} into its place", backup.display()))
            }
            Self::Newer { database, backup_id, .. } => {
                here(format!("`whimbrel backup restore {} --backup {backup_id} --discard-newer` goes back all the same", database.display()))
            }
            Self::PageSize { .. } => here("stop the application, set `PRAGMA journal_mode = delete` on the database, and restore again"),
            Self::Cancelled => wait("it begins again with the next run"),
        }
    }

    /// Whether a full disk caused it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Sqlite { source, .. } => is_disk_full(code_of(source)),
            Self::Store(error) => is_disk_full(error.sqlite_code()),
            Self::Damaged { .. }
            | Self::Foreign { .. }
            | Self::Unknown { .. }
            | Self::NoDatabase { .. }
            | Self::Newer { .. }
            | Self::PageSize { .. }
            | Self::Cancelled => false,
        }
    }
}
