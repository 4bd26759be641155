//! The only code that knows our own tables: those in a managed file, and those of the daemon's own store.

pub mod archive;
pub mod ballast;
pub mod boot;
pub mod carried;
pub mod checkpoint;
pub mod conflict;
pub mod device;
pub mod exchange;
pub mod in_flight;
pub mod journal;
pub mod key;
pub mod known;
pub mod managed;
pub mod outbox;
pub mod private;
pub mod quarantine;
pub mod settings;
pub mod trust;
mod words;

/// Why one of our own stores could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A later whimbrel wrote it.
    #[error("{what} was written by a later whimbrel (schema {found}, this one knows {known})")]
    TooNew {
        /// Which store.
        what: String,
        /// Its schema number.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A value of ours is not what we write.
    #[error("{what} holds a value that whimbrel did not write: {detail}")]
    Damaged {
        /// Which table.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The directory or file could not be made.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl StoreError {
    /// What can be done.
    pub fn remedy(&self) -> whimbrel_shared::remedy::Remedy {
        use whimbrel_shared::remedy::{here, wait};
        match self {
            Self::Sqlite { source, .. } if is_disk_full(code_of(source)) => here("free some disk space; it is tried again by itself"),
            Self::Sqlite { .. } => wait("it is tried again by itself; if it stays, look at the disk"),
            Self::TooNew { .. } => here("update whimbrel to the version that wrote it, or a later one"),
            Self::Damaged { .. } => here("restore the file from a backup, and report this: it should not happen"),
            Self::Io { source, .. } => private::remedy_of(source).unwrap_or_else(|| here("let the daemon's user read and write there")),
        }
    }

    /// SQLite's extended code, 0 where it has none.
    pub fn sqlite_code(&self) -> i32 {
        match self {
            Self::Sqlite { source, .. } => code_of(source),
            Self::TooNew { .. } | Self::Damaged { .. } | Self::Io { .. } => 0,
        }
    }
}

/// SQLite's extended result code in a rusqlite error; 0 where it has none.
pub fn code_of(error: &rusqlite::Error) -> i32 {
    match error {
        // What prepare says of a statement that does not compile.
        rusqlite::Error::SqlInputError { error, .. } => error.extended_code,
        other => other.sqlite_error().map_or(0, |e| e.extended_code),
    }
}

/// Whether a code means that the disk is full. 4874 is what a cold WAL database answers on a full disk (reference 1.3).
pub fn is_disk_full(code: i32) -> bool {
    code & 0xff == rusqlite::ffi::SQLITE_FULL || code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
}

/// Gives a rusqlite error its place.
pub(crate) fn at(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sqlite { doing, source }
}
