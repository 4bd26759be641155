//! Copies a database page by page while its application goes on writing: SQLite's backup API under one read transaction
//! pinned on the source (DESIGN 8.4).
//!
//! Stepping without the pin begins again with every foreign commit and never ends under a writing application; with it
//! nothing begins again and the application does not notice (reference 0.4). In rollback-journal mode there are no
//! snapshots: there the application's writes wait for as long as the copy takes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use serde::{Deserialize, Serialize};

use super::{
    away::take_away,
    bites::{BITE_BYTES, Bites},
    error::{BackupError, io, sqlite},
};
use crate::{
    migrate::{files::free_bytes, halt::Halt},
    store::private::{make_private_file, open_own},
};

/// Pages that the copy keeps in memory: SQLite writes what is more, so all but so many of the pages that are done are in
/// the file. As it is, hundreds would stay, and a bite would push out what is not there yet.
const PAGES_IN_MEMORY: u32 = 16;

/// Room that stays free beside the copy.
const MARGIN_BYTES: u64 = 1024 * 1024;

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Pages that are copied.
    pub pages_done: u32,
    /// Pages that there are.
    pub pages: u32,
    /// The same in percent, rounded down.
    pub percent: u8,
}

impl Pages {
    /// From what the backup API says.
    pub(super) fn of(progress: rusqlite::backup::Progress) -> Self {
        let pages = u32::try_from(progress.pagecount).unwrap_or(0);
        let done = pages.saturating_sub(u32::try_from(progress.remaining).unwrap_or(0));
        let percent = if pages == 0 { 0 } else { u64::from(done) * 100 / u64::from(pages) };
        Self { pages_done: done, pages, percent: u8::try_from(percent).unwrap_or(100) }
    }
}

/// A copy that nobody else knows of yet. Taken away when it is dropped; [`Part::finish`] makes it last.
#[derive(Debug)]
pub struct Part {
    /// Where it is: its name ends in `.part`.
    pub path: PathBuf,
    finished: bool,
}

impl Part {
    /// Syncs it and gives it its name. Until the rename only a `.part` is there, after it the whole file.
    pub fn finish(mut self, name: &Path) -> Result<(), BackupError> {
        // What was reserved beyond its end is given back.
        let give_back = |file: File| file.metadata().and_then(|m| file.set_len(m.len())).and_then(|()| file.sync_all());
        File::options().write(true).open(&self.path).and_then(give_back).map_err(io(&self.path))?;
        fs::rename(&self.path, name).map_err(io(name))?;
        self.finished = true;
        let directory = name.parent().unwrap_or(Path::new("."));
        File::open(directory).and_then(|d| d.sync_all()).map_err(io(directory))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            // What is not there needs not be taken away; what stays is swept later.
            let _ = take_away(&self.path);
            for beside in ["-journal", "-wal", "-shm"] {
                let mut name = self.path.clone().into_os_string();
                name.push(beside);
                let _ = fs::remove_file(name);
            }
        }
    }
}

/// Copies `source` into the new file `to`, whose name ends in `.part`, and lets `finish` write into the copy. The file
/// is private (0600), in rollback-journal mode, and not synced yet. Fails before it begins when the disk has no room,
/// and between two steps when `halt` says so; then nothing is left behind.
pub fn copy(
    source: &Connection,
    to: PathBuf,
    halt: &Halt,
    watch: &mut dyn FnMut(Pages),
    finish: impl FnOnce(&Connection) -> Result<(), BackupError>,
) -> Result<Part, BackupError> {
    check_room(to.parent().unwrap_or(Path::new(".")), size_bytes(source)?)?;
    let disk = make_private_file(&to).map_err(io(&to))?;
    let part = Part { path: to, finished: false };
    let mut bites = Bites::new(disk, size_bytes(source)?);
    let mut target = open_own(&part.path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite("making the copy"))?;
    // Nobody reads it before it is synced as a whole: no journal, no syncs on the way. Exclusive, so that the copy of a
    // WAL database makes no shared memory beside it.
    target
        .pragma_update(None, "locking_mode", "exclusive")
        .and_then(|()| target.pragma_update(None, "journal_mode", "off"))
        .and_then(|()| target.pragma_update(None, "synchronous", "off"))
        .and_then(|()| target.pragma_update(None, "cache_size", PAGES_IN_MEMORY))
        .map_err(sqlite("making the copy"))?;

    source.execute_batch("BEGIN").map_err(sqlite("pinning the database"))?;
    let copied = pages(source, &mut target, &mut bites, halt, watch);
    // It only read, and whether it could end says nothing about the copy.
    let _ = source.execute_batch("COMMIT");
    copied?;

    // One file that any SQLite reads, without anything beside it.
    target.pragma_update(None, "journal_mode", "delete").map_err(sqlite("closing the copy's journal"))?;
    finish(&target)?;
    target.close().map_err(|(_, source)| BackupError::Sqlite { doing: "closing the copy", source })?;
    Ok(part)
}

fn pages(source: &Connection, target: &mut Connection, bites: &mut Bites, halt: &Halt, watch: &mut dyn FnMut(Pages)) -> Result<(), BackupError> {
    // A deferred transaction has no snapshot before its first read.
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(sqlite("pinning the database"))?;
    let page_bytes: u32 = source.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0)).map_err(sqlite("reading the page size"))?;
    let backup = Backup::new(source, target).map_err(sqlite("beginning the copy"))?;
    let pages_a_step = i32::try_from(BITE_BYTES / u64::from(page_bytes.max(1))).unwrap_or(i32::MAX).max(1);
    loop {
        if halt.no_more() {
            return Err(BackupError::Cancelled);
        }
        let step = backup.step(pages_a_step).map_err(sqlite("copying pages"))?;
        let pages = Pages::of(backup.progress());
        // Bite by bite: hundreds of megabytes that go to the disk at once keep the application's own syncs waiting (a 99th
        // percentile of 56 ms instead of 16, 100 MB on ext4, where it was 12 to 16 without a backup).
        let written = u64::from(pages.pages_done.saturating_sub(PAGES_IN_MEMORY)) * u64::from(page_bytes);
        bites.push(written).map_err(|source| BackupError::Io { path: "the copy".into(), source })?;
        crate::ambient::pulse();
        watch(pages);
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // The pin keeps writers of the source away from us, and nobody else knows the target.
            other => {
                let code = if other == StepResult::Locked { rusqlite::ffi::SQLITE_LOCKED } else { rusqlite::ffi::SQLITE_BUSY };
                let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
                return Err(BackupError::Sqlite { doing: "copying pages", source });
            }
        }
    }
}

/// Refuses when the disk of `place` has not the room for a file of `size_bytes`.
pub fn check_room(place: &Path, size_bytes: u64) -> Result<(), BackupError> {
    let needed_bytes = size_bytes.saturating_add(MARGIN_BYTES);
    match free_bytes(place) {
        Some(free_bytes) if free_bytes < needed_bytes => Err(BackupError::NoRoom { place: place.to_owned(), needed_bytes, free_bytes }),
        Some(_) | None => Ok(()),
    }
}

/// Size of a database as one file, in bytes: the backup API copies free pages too.
pub fn size_bytes(connection: &Connection) -> Result<u64, BackupError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite("reading the file's size"));
    Ok(number("page_count")?.saturating_mul(number("page_size")?).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wal(path: &Path, rows: u32) -> Connection {
        let file = Connection::open(path).unwrap();
        file.pragma_update(None, "journal_mode", "wal").unwrap();
        file.execute_batch(&format!(
            "CREATE TABLE t(n, pad); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) INSERT INTO t SELECT n, zeroblob(1000) FROM c"
        ))
        .unwrap();
        file
    }

    #[test]
    fn a_copy_shows_one_moment_however_much_is_written_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let app = wal(&dir.path().join("a.db"), 20_000);
        let source = Connection::open(dir.path().join("a.db")).unwrap();
        let mut steps = Vec::new();
        let mut watch = |pages| {
            // In the middle of it, the application writes to what is copied and to what is not yet.
            app.execute_batch("UPDATE t SET pad = zeroblob(900) WHERE n % 1000 = 0; INSERT INTO t VALUES (-1, NULL)").unwrap();
            steps.push(pages);
            assert!(steps.len() < 100, "it begins again with every write: {steps:?}");
        };
        let part = copy(&source, dir.path().join("copy.part"), &Halt::default(), &mut watch, |_| Ok(())).unwrap();
        assert!(steps.len() > 4, "{steps:?}");
        assert!(steps.windows(2).all(|w| w[0].pages_done < w[1].pages_done), "it began again: {steps:?}");
        let last = steps.last().unwrap();
        assert_eq!((last.pages_done, last.percent), (last.pages, 100));
        part.finish(&dir.path().join("copy.db")).unwrap();
        let copy = Connection::open(dir.path().join("copy.db")).unwrap();
        let one = |sql: &str| copy.query_row(sql, [], |r| r.get::<_, u32>(0)).unwrap();
        assert_eq!((one("SELECT count(*) FROM t"), one("SELECT count(*) FROM t WHERE length(pad) = 900")), (20_000, 0));
        assert_eq!(copy.query_row("PRAGMA journal_mode", [], |r| r.get::<_, String>(0)).unwrap(), "delete");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|n| n.starts_with("copy.part") || n.starts_with("copy.db-")), "{names:?}");
    }

    #[test]
    fn a_copy_that_is_given_up_or_has_no_room_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = wal(&dir.path().join("a.db"), 5_000);
        let halt = Halt::default();
        let mut stop = |_| halt.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let stopped = copy(&file, dir.path().join("copy.part"), &halt, &mut stop, |_| Ok(()));
        assert!(matches!(stopped, Err(BackupError::Cancelled)), "{stopped:?}");
        assert!(!dir.path().join("copy.part").exists());
        assert!(file.is_autocommit(), "the pin was left behind");
        assert!(matches!(check_room(dir.path(), u64::MAX / 2), Err(BackupError::NoRoom { .. })));
    }
}
