//! The connection that was open when a backup was made, kept open since: only through its own eyes is it certain that
//! nobody else has written to the file (DESIGN 8.4). `PRAGMA data_version` changes on a connection exactly when another
//! connection committed (<https://sqlite.org/pragma.html#pragma_data_version>), so our own runs go on using it.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::error::{BackupError, sqlite};
use crate::migrate::{
    connection::{Managed, Missing},
    error::ApplyError,
    files,
    halt::Halt,
};

/// Most connections that a daemon keeps open for this: three file descriptors each, of 1,024 that a process usually has.
const MOST: usize = 64;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The kept connection of one database, if there is one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Option<Held>>>);

/// Since when a connection has been watching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The backup that was made then.
    pub backup_id: String,
    data_version: i64,
}

impl Since {
    /// From now on, for a backup that `connection` is about to make: what is committed after this may be missing in it.
    pub fn now(connection: &Connection) -> Result<Self, BackupError> {
        Ok(Self { backup_id: String::new(), data_version: data_version(connection)? })
    }

    /// The same moment, for the backup that came of it.
    pub fn of(self, backup_id: &str) -> Self {
        Self { backup_id: backup_id.to_owned(), ..self }
    }

    /// Whether nobody but `connection` has committed anything since.
    pub fn is_unmoved(&self, connection: &Connection) -> bool {
        // One that cannot be asked proves nothing.
        data_version(connection).is_ok_and(|now| now == self.data_version)
    }
}

/// A connection that was kept.
#[derive(Debug)]
pub struct Held {
    file: Managed,
    since: Since,
    place: (u64, u64),
    _counted: Counted,
}

impl Held {
    /// Whether it has been watching since `backup_id` was made, and the file at `path` is still the same and untouched.
    pub fn vouches(&self, backup_id: &str, path: &Path) -> bool {
        self.since.backup_id == backup_id && self.is_of(path) && self.since.is_unmoved(&self.file.connection)
    }

    fn is_of(&self, path: &Path) -> bool {
        files::place(path).is_ok_and(|place| place == self.place)
    }
}

/// One of the [`MOST`].
#[derive(Debug)]
struct Counted;

impl Counted {
    fn one() -> Option<Self> {
        // Made first, so that one too many counts itself out again.
        let (before, counted) = (OPEN.fetch_add(1, Ordering::Relaxed), Self);
        (before < MOST).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Witness {
    /// The connection for a run: the kept one if it is still of this file and still has something to vouch for, else a
    /// new one.
    pub fn open(&self, path: &Path, wait: Duration, halt: Halt) -> Result<(Managed, Option<Since>), ApplyError> {
        match self.take() {
            Some(held) if held.is_of(path) && held.since.is_unmoved(&held.file.connection) => {
                held.file.patience.set_limit(wait);
                Ok((held.file, Some(held.since)))
            }
            Some(_) | None => Ok((Managed::open(path, Missing::Refuse, wait, halt)?, None)),
        }
    }

    /// Keeps the connection of a run that made a backup, or that went on with one that did.
    pub fn keep(&self, path: &Path, file: Managed, since: Option<Since>) {
        let (Some(since), Ok(place)) = (since, files::place(path)) else { return };
        if let Some(counted) = Counted::one() {
            *self.lock() = Some(Held { file, since, place, _counted: counted });
        }
    }

    /// Takes it away.
    pub fn take(&self) -> Option<Held> {
        self.lock().take()
    }

    /// Whether there is one.
    pub fn is_held(&self) -> bool {
        self.lock().is_some()
    }

    /// Lets it go once somebody else has written, or the file is another one: it can vouch for nothing any more.
    pub fn look(&self, path: &Path) {
        let mut held = self.lock();
        if held.as_ref().is_some_and(|h| !h.is_of(path) || !h.since.is_unmoved(&h.file.connection)) {
            *held = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn data_version(connection: &Connection) -> Result<i64, BackupError> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(sqlite("reading the data version"))
}
