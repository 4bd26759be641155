//! Opens an application's file the way the engine needs it: its journal mode kept, every commit durable, hostile content
//! without teeth (DESIGN 7 "Settings", 8.7).

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    error::{ApplyError, sqlite},
    guard::Guard,
    halt::Halt,
    patience::Patience,
    schema::SchemaReader,
};
use crate::store::private::open_database;

/// Pages that may be dirty before they spill into the file, about 64 MB of 4 KiB pages. In rollback-journal mode a spill
/// needs the exclusive lock in the middle of the work.
const CACHE_SPILL_PAGES: u32 = 16_384;

/// How the file keeps its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalMode {
    /// Write-ahead log: readers and our transaction do not meet.
    Wal,
    /// A rollback journal of some kind: COMMIT needs every reader gone.
    Rollback,
}

/// A managed file, open for migrating.
#[derive(Debug)]
pub struct Managed {
    /// The connection. Its hooks are ours.
    pub connection: Connection,
    /// What foreign SQL may do.
    pub guard: Guard,
    /// How long it waits for the application.
    pub patience: Patience,
    /// The file's schema, read as far as it changed.
    pub schema: SchemaReader,
    /// How the file keeps its transactions.
    pub journal_mode: JournalMode,
}

/// Whether a file that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An empty database is made.
    Create,
    /// It is an error.
    Refuse,
}

impl Managed {
    /// Opens `path`. Waits up to `patience` for the application, and stops when `halt` says so. The file's content is
    /// not changed; a WAL left by a crash is recovered by SQLite.
    pub fn open(path: &Path, missing: Missing, patience: Duration, halt: Halt) -> Result<Self, ApplyError> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        if missing == Missing::Create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let connection = open_database(path, flags).map_err(sqlite("opening the file"))?;
        Self::adopt(connection, patience, halt)
    }

    /// Prepares a connection that was opened elsewhere (a private copy, an empty database).
    pub fn adopt(mut connection: Connection, patience: Duration, halt: Halt) -> Result<Self, ApplyError> {
        let patience = Patience::new(halt.clone(), patience);
        let handler = patience.clone();
        connection.busy_handler(Some(move |refusals| handler.handle(refusals))).map_err(sqlite("setting the busy handler"))?;
        let guard = Guard::install(&mut connection, halt).map_err(sqlite("installing the guard"))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).map_err(sqlite("switching foreign keys off"))?;
        connection.set_prepared_statement_cache_capacity(64);

        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(sqlite("reading the journal mode"))?;
        let journal_mode = if mode.eq_ignore_ascii_case("wal") { JournalMode::Wal } else { JournalMode::Rollback };
        let synchronous = match journal_mode {
            JournalMode::Wal => "FULL",
            // EXTRA also syncs the directory after the journal is gone; with FULL one image in eight forgot a commit
            // (reference ops 1.1).
            JournalMode::Rollback => "EXTRA",
        };
        let set = |name: &str, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value);
        set("synchronous", &synchronous)
            .and_then(|()| set("cell_size_check", &true))
            .and_then(|()| set("mmap_size", &0))
            .and_then(|()| set("cache_spill", &CACHE_SPILL_PAGES))
            .map_err(sqlite("setting up the connection"))?;
        patience.over();
        Ok(Self { connection, guard, patience, schema: SchemaReader::default(), journal_mode })
    }
}

/// A number that is another one once somebody else has committed to the file; our own commits do not change it.
pub fn data_version(connection: &Connection) -> Result<i64, ApplyError> {
    connection
        .prepare_cached("PRAGMA data_version")
        .and_then(|mut s| s.query_row([], |row| row.get(0)))
        .map_err(sqlite("looking whether the application wrote"))
}
