//! Brings a backup back into the live file, through the backup API and never by renaming: whoever has the file open goes
//! on with it (DESIGN 8.4).
//!
//! By itself only where a connection that has been open since the backup vouches, under the write lock, that nobody else
//! has written since. Else a person has to say that what came since may go.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection,
    backup::{Backup as Copy, StepResult},
};

use super::{
    Backup, BackupError, check,
    copy::{Pages, check_room, size_bytes},
    difference,
    error::sqlite,
    halt_of, open, read,
    witness::Held,
};
use crate::migrate::{
    connection::{JournalMode, Managed, Missing},
    error::ApplyError,
    files::LockFile,
    halt::Halt,
    live::Phase,
    work::{self, Looked, Shared, Site},
};

/// Pages between two looks at the halt and two steps of progress: some 10 ms for 4 KiB pages.
const PAGES_A_STEP: i32 = 1_000;

/// Whether what came after the backup may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// It is kept: the restore is refused unless it is certain that there is nothing.
    Keep,
    /// A person said that it may go.
    Discard,
}

/// Restores `backup`. Checked before anything is touched: that it is whole, of this database, and that there is room. The
/// restore is one transaction, whoever reads meanwhile keeps what they see (in WAL mode; in rollback-journal mode the
/// file is locked until it is done). On failure the file is as it was. Afterwards it carries the backup's mark, by which
/// the next look knows that it went back.
pub fn restore(shared: &Shared, site: &Site, looked: &Looked, backup: &Backup, newer: Newer) -> Result<(), ApplyError> {
    let found = read(&backup.path)?;
    if found.of != backup.of || found.of.client_id != looked.identity.client_id {
        let why = format!("it says that it is {} of {}", found.of.backup_id, found.of.client_id);
        return Err(BackupError::Foreign { path: backup.path.clone(), why }.into());
    }
    check(&backup.path)?;
    let source = open(&backup.path)?;
    let halt = halt_of(shared, site);
    let wait = shared.policy.wait_for_app;
    site.live.set(Phase::Waiting);
    let _lock = LockFile::hold(&site.path, wait, &halt)?;
    let witness = site.witness.take();
    let mut file = Managed::open(&site.path, Missing::Refuse, wait, halt.clone())?;
    site.live.watch(file.patience.clone());
    check_fits(&source, &file, &site.path)?;
    let witness = match newer {
        Newer::Discard => None,
        Newer::Keep => Some(vouching(witness, site, backup, file.journal_mode)?),
    };
    // What happened since is history, and history is reported.
    work::copy_events(shared, site, &file, &looked.identity)?;
    write(&source, &mut file, site, backup, witness.as_ref(), wait, &halt)?;
    tracing::warn!(database.path = %site.path.display(), backup = %backup.path.display(), "went back to the backup {}", backup.of.backup_id);
    Ok(())
}

/// Refuses what SQLite could not do, and a disk that is too small for the log and the larger file.
fn check_fits(source: &Connection, file: &Managed, path: &Path) -> Result<(), ApplyError> {
    let page_size = |c: &Connection| c.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0)).map_err(sqlite("reading the page size"));
    let (backup, live) = (page_size(source)?, page_size(&file.connection)?);
    if backup != live && file.journal_mode == JournalMode::Wal {
        return Err(BackupError::PageSize { backup, live }.into());
    }
    let (backup_bytes, live_bytes) = (size_bytes(source)?, size_bytes(&file.connection)?);
    let log_bytes = match file.journal_mode {
        JournalMode::Wal => backup_bytes,
        JournalMode::Rollback => live_bytes,
    };
    check_room(path, log_bytes.saturating_add(backup_bytes.saturating_sub(live_bytes)))?;
    Ok(())
}

/// The connection that vouches for the file, or why there is none.
fn vouching(witness: Option<Held>, site: &Site, backup: &Backup, journal_mode: JournalMode) -> Result<Held, BackupError> {
    let why = match witness {
        // While somebody holds the exclusive lock of this mode nobody else can ask anything, so the last look would be
        // before it, and a commit could slip in between.
        _ if journal_mode == JournalMode::Rollback => "in rollback-journal mode it cannot be looked at under the write lock",
        None => "whimbrel has not had the file open without a foreign write since that backup was made",
        Some(held) if held.vouches(&backup.of.backup_id, &site.path) => return Ok(held),
        Some(_) => "somebody else has written since, or it is not the newest backup",
    };
    Err(refused(site, backup, why))
}

fn refused(site: &Site, backup: &Backup, why: &'static str) -> BackupError {
    let lost = difference::lost(&site.path, &backup.path);
    BackupError::Newer { database: site.path.clone(), backup_id: backup.of.backup_id.clone(), why, lost }
}

fn write(
    source: &Connection,
    file: &mut Managed,
    site: &Site,
    backup: &Backup,
    witness: Option<&Held>,
    wait: Duration,
    halt: &Halt,
) -> Result<(), ApplyError> {
    file.patience.set_limit(wait);
    let (patience, begun) = (file.patience.clone(), Instant::now());
    let copy = Copy::new(source, &mut file.connection).map_err(sqlite("beginning the restore"))?;
    let busy = || ApplyError::Busy { waited: begun.elapsed(), limit: wait };
    // No page yet, but the write lock: it is taken with the first step, and waited for as everywhere.
    match copy.step(0).map_err(sqlite("taking the write lock"))? {
        StepResult::Busy | StepResult::Locked if halt.no_more() => return Err(ApplyError::Cancelled),
        StepResult::Busy | StepResult::Locked => return Err(busy()),
        _ => patience.over(),
    }
    if witness.is_some_and(|held| !held.vouches(&backup.of.backup_id, &site.path)) {
        drop(copy);
        return Err(refused(site, backup, "somebody else wrote while the write lock was waited for").into());
    }
    loop {
        if halt.no_more() {
            return Err(BackupError::Cancelled.into());
        }
        let step = copy.step(PAGES_A_STEP).map_err(sqlite("writing the backup into the file"))?;
        crate::ambient::pulse();
        site.live.set(Phase::Restoring(Pages::of(copy.progress())));
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => return Err(busy()),
        }
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
