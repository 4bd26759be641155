//! A folder on a disk that is watched, and that fails when it is told to.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use rusqlite::{Connection, OpenFlags, ffi};

use crate::{
    log::{Files, Log, Op},
    vfs,
};

/// Every disk there is, by folder. SQLite knows a file by its path alone.
static DISKS: LazyLock<Mutex<Vec<Known>>> = LazyLock::new(Mutex::default);

/// A folder, and the disk in it.
type Known = (PathBuf, Weak<Disk>);

/// A folder that is watched. Files of SQLite in it that are opened through [`Disk::open`] are recorded; what anybody else
/// does there is not seen.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    fault: Option<Fault>,
    /// Calls since the last [`Disk::fail`] that a fault could have struck.
    calls: usize,
    struck: Vec<Kind>,
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which call is struck, counted from 0.
    pub at: usize,
    /// How.
    pub trouble: Trouble,
    /// Whether every call after it is struck too, until [`Disk::mend`].
    pub stays: bool,
    /// Whether reads are counted and struck as well.
    pub reads: bool,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// `ENOSPC`: what needs room has none. A write gets half of its bytes out.
    Full,
    /// `EIO`.
    Io,
}

/// A call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file is made.
    Create,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file is shortened.
    Truncate,
    /// A file is synced.
    Sync,
    /// A file is deleted.
    Delete,
    /// The memory that the connections of a WAL database share gets larger: a file too.
    Grow,
}

impl Kind {
    /// SQLite's result code for it, as its own VFS for unix answers.
    fn code(self, trouble: Trouble) -> i32 {
        match (self, trouble) {
            (Self::Create, _) => ffi::SQLITE_CANTOPEN,
            (Self::Read, _) => ffi::SQLITE_IOERR_READ,
            (Self::Write, Trouble::Full) => ffi::SQLITE_FULL,
            (Self::Write, Trouble::Io) => ffi::SQLITE_IOERR_WRITE,
            (Self::Truncate, _) => ffi::SQLITE_IOERR_TRUNCATE,
            (Self::Sync, _) => ffi::SQLITE_IOERR_FSYNC,
            (Self::Delete, _) => ffi::SQLITE_IOERR_DELETE,
            (Self::Grow, _) => ffi::SQLITE_IOERR_SHMSIZE,
        }
    }
}

impl Disk {
    /// Watches `folder`, which exists, until it is dropped. What lies in it now counts as safe.
    pub fn new(folder: &Path) -> Arc<Self> {
        vfs::register();
        let folder = folder.canonicalize().expect("the folder exists");
        let disk = Arc::new(Self { folder: folder.clone(), state: Mutex::default() });
        disk.record();
        disks().push((folder, Arc::downgrade(&disk)));
        disk
    }

    /// From now on SQLite opens every file of this process through the VFS of ours: for code that opens its files itself. What
    /// lies on no disk is passed on as it is.
    pub fn for_everybody() {
        vfs::register();
        vfs::make_default();
    }

    /// The disk that a path lies on.
    pub(crate) fn of(path: &Path) -> Option<Arc<Self>> {
        let folder = path.parent()?;
        disks().iter().find(|(known, _)| known == folder).and_then(|(_, disk)| disk.upgrade())
    }

    /// Where a file of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Opens the database `name`, which is made where it is missing.
    pub fn open(&self, name: &str) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags_and_vfs(self.path(name), flags, vfs::NAME)
    }

    /// Begins a new log: what lies in the folder now is taken for safe.
    pub fn record(&self) {
        let base = self.files();
        self.state().log = Log { base, ops: Vec::new() };
    }

    /// What was done since.
    pub fn log(&self) -> Log {
        self.state().log.clone()
    }

    /// The files as they are. The memory that connections share is none of them: a power cut does not spare it.
    pub fn files(&self) -> Files {
        let entries = fs::read_dir(&self.folder).expect("the folder can be read").map(|e| e.expect("the folder can be read"));
        entries
            .filter(|e| e.path().is_file())
            .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("a file can be read")))
            .filter(|(name, _)| !name.ends_with("-shm"))
            .collect()
    }

    /// From now on `fault` strikes; calls are counted from 0 again.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.state();
        (state.calls, state.fault) = (0, Some(fault));
        state.struck.clear();
    }

    /// Nothing fails any more. Returns which calls did, in order.
    pub fn mend(&self) -> Vec<Kind> {
        let mut state = self.state();
        state.fault = None;
        std::mem::take(&mut state.struck)
    }

    /// Whether the call that is about to be made fails, and with which code.
    pub(crate) fn strikes(&self, kind: Kind) -> Option<i32> {
        let mut state = self.state();
        let fault = state.fault?;
        if kind == Kind::Read && !fault.reads {
            return None;
        }
        let call = state.calls;
        state.calls += 1;
        let strikes = if fault.stays { call >= fault.at } else { call == fault.at };
        strikes.then(|| {
            state.struck.push(kind);
            kind.code(fault.trouble)
        })
    }

    /// Whether a write that fails gets part of its bytes out.
    pub(crate) fn is_full(&self) -> bool {
        self.state().fault.is_some_and(|f| f.trouble == Trouble::Full)
    }

    pub(crate) fn note(&self, op: Op) {
        self.state().log.ops.push(op);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        disks().retain(|(folder, _)| *folder != self.folder);
    }
}

fn disks() -> MutexGuard<'static, Vec<Known>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crate::Moment;

    use super::*;

    fn folder() -> tempfile::TempDir {
        // In memory where there is room for that: what is a thousand syncs there is minutes on a disk.
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
    }

    fn count(files: &Files, sql: &str) -> rusqlite::Result<i64> {
        let folder = folder();
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
        Connection::open(folder.path().join("a.db"))?.query_row(sql, [], |row| row.get(0))
    }

    #[test]
    fn the_log_played_to_its_end_gives_the_files_as_they_are() {
        for mode in ["wal", "delete", "truncate", "persist"] {
            let folder = folder();
            let disk = Disk::new(folder.path());
            let a = disk.open("a.db").unwrap();
            a.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(x); INSERT INTO t VALUES (1); UPDATE t SET x = 2")).unwrap();
            let log = disk.log();
            let mut moment = Moment::of(&log.base);
            log.ops.iter().for_each(|op| moment.step(op));
            assert_eq!(moment.after(&crate::Loss::Nothing), disk.files(), "{mode}");
            assert!(log.commits_before(log.ops.len()) >= 3, "{mode}");
        }
    }

    /// The point of it all: it tells a durable setting from one that is not.
    #[test]
    fn a_setting_that_forgets_commits_is_seen() {
        let forgets = |setting: &str| {
            let folder = folder();
            let disk = Disk::new(folder.path());
            let a = disk.open("a.db").unwrap();
            a.execute_batch(&format!("{setting}; CREATE TABLE t(x)")).unwrap();
            disk.record();
            for n in 1..=3 {
                a.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
            }
            let log = disk.log();
            let mut moment = Moment::of(&log.base);
            let mut forgot = 0;
            for at in 0..=log.ops.len() {
                let acknowledged = log.commits_before(at) as i64;
                for loss in moment.losses(4) {
                    let found = count(&moment.after(&loss), "SELECT count(*) FROM t").unwrap_or(-1);
                    forgot += usize::from(found < acknowledged);
                }
                log.ops.get(at).into_iter().for_each(|op| moment.step(op));
            }
            forgot
        };
        assert_eq!(forgets("PRAGMA journal_mode=wal; PRAGMA synchronous=full"), 0);
        assert_eq!(forgets("PRAGMA journal_mode=delete; PRAGMA synchronous=extra"), 0);
        assert!(forgets("PRAGMA journal_mode=wal; PRAGMA synchronous=normal") > 0);
        assert!(forgets("PRAGMA journal_mode=delete; PRAGMA synchronous=full") > 0);
        assert!(forgets("PRAGMA journal_mode=delete; PRAGMA synchronous=off") > 0);
    }

    #[test]
    fn every_call_can_be_made_to_fail() {
        for trouble in [Trouble::Full, Trouble::Io] {
            let mut struck = std::collections::BTreeSet::new();
            for at in 0.. {
                let folder = folder();
                let disk = Disk::new(folder.path());
                let a = disk.open("a.db").unwrap();
                a.execute_batch("PRAGMA journal_mode=delete; CREATE TABLE t(x)").unwrap();
                disk.fail(Fault { at, trouble, stays: false, reads: false });
                let inserted = a.execute("INSERT INTO t VALUES (zeroblob(9000))", []);
                let told = disk.state().struck.is_empty() == inserted.is_ok();
                assert!(told, "{at}: {inserted:?}");
                let _ = a.execute_batch("PRAGMA journal_mode=wal; INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(truncate)");
                let kinds = disk.mend();
                drop(a);
                assert_eq!(count(&disk.files(), "SELECT count(*) > 0 FROM pragma_integrity_check WHERE integrity_check = 'ok'"), Ok(1), "{at}");
                if kinds.is_empty() {
                    break;
                }
                struck.extend(kinds);
            }
            assert_eq!(struck.into_iter().collect::<Vec<_>>(), [Kind::Create, Kind::Write, Kind::Truncate, Kind::Sync, Kind::Delete, Kind::Grow]);
        }
    }
}
