//! What a managed file is on its file system: whose, on which disk, and whether it is still the one we knew (DESIGN 7).

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use whimbrel_shared::ids::ClientId;

use super::{error::ApplyError, halt::Halt};
use crate::store::{
    device::KnownDatabase,
    managed::FileIdentity,
    private::{self, Exposed},
};

/// Pause between two tries to get the lock file.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why a file is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// `-wal` and `-shm` that we make would shut its owner out.
    #[error("{path} belongs to uid {owner}, and the daemon runs as uid {us}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// A link lies in its place: who may write there could have it lead anywhere.
    #[error(transparent)]
    Link(#[from] Exposed),
    /// SQLite's locks do not work there.
    #[error("{path} is on a network file system ({kind}), where SQLite's locks do not protect it")]
    Network {
        /// The file.
        path: PathBuf,
        /// Which.
        kind: &'static str,
    },
}

/// Where a file is: device and inode number. Zeros where the system has none.
pub fn place(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        Ok((0, 0))
    }
}

/// Whether we may open a file without harming its owner.
#[cfg(unix)]
pub fn may_open(path: &Path) -> io::Result<Result<(), NotOurs>> {
    if let Err(link) = private::no_link(path) {
        return Ok(Err(link.into()));
    }
    use std::os::unix::fs::MetadataExt;
    if let Some(kind) = network_kind(path)? {
        return Ok(Err(NotOurs::Network { path: path.to_owned(), kind }));
    }
    let file = fs::metadata(path)?;
    let directory = fs::metadata(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    // SAFETY: a plain system call.
    let us = unsafe { libc::geteuid() };
    // As root, SQLite gives the files it makes to the database's owner. In a set-gid directory they get its group, and
    // SQLite gives them the database's mode.
    let shared = directory.mode() & 0o2000 != 0 && file.gid() == directory.gid() && file.mode() & 0o060 == 0o060;
    if us == 0 || us == file.uid() || shared { Ok(Ok(())) } else { Ok(Err(NotOurs::Owner { path: path.to_owned(), owner: file.uid(), us })) }
}

/// Whether we may open a file without harming its owner.
#[cfg(not(unix))]
pub fn may_open(_path: &Path) -> io::Result<Result<(), NotOurs>> {
    Ok(Ok(()))
}

#[cfg(target_os = "linux")]
fn network_kind(path: &Path) -> io::Result<Option<&'static str>> {
    let kind = statfs(path)?.f_type as u64 & 0xffff_ffff;
    // Magic numbers of linux/magic.h.
    Ok(match kind {
        0x6969 => Some("nfs"),
        0x517b => Some("smb"),
        0xff53_4d42 => Some("cifs"),
        0xfe53_4d42 => Some("smb2"),
        0x5346_414f => Some("afs"),
        0x00c3_6400 => Some("ceph"),
        _ => None,
    })
}

#[cfg(all(unix, not(target_os = "linux")))]
fn network_kind(_path: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

#[cfg(target_os = "linux")]
fn statfs(path: &Path) -> io::Result<libc::statfs> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in NUL and the structure is plain data.
    unsafe {
        let mut out = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &raw mut out) != 0 { Err(io::Error::last_os_error()) } else { Ok(out) }
    }
}

/// Free bytes for us on the disk of `path`; none where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let stat = statfs(path).ok()?;
        u64::try_from(stat.f_bsize).ok()?.checked_mul(stat.f_bavail)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

/// Room for what SQLite sorts outside the file, when it makes an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempRoom {
    /// The directory.
    pub directory: PathBuf,
    /// Free bytes there.
    pub free_bytes: u64,
    /// Whether it is on the database's own disk.
    pub same_disk: bool,
}

/// Where SQLite sorts while it works on `path`, and the room there (<https://www.sqlite.org/tempfiles.html>, 5: the first
/// of these that is a directory and can be written). None where the system does not say.
pub fn temp_room(path: &Path) -> Option<TempRoom> {
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp"].into_iter().map(PathBuf::from);
    let usable = |directory: &PathBuf| std::fs::metadata(directory).is_ok_and(|found| found.is_dir() && !found.permissions().readonly());
    let directory = named.chain(usual).find(usable)?;
    #[cfg(unix)]
    let same_disk = {
        use std::os::unix::fs::MetadataExt as _;
        let disk = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
        let database = disk(path).or_else(|| path.parent().and_then(disk));
        database.is_some() && disk(&directory) == database
    };
    #[cfg(not(unix))]
    let same_disk = false;
    Some(TempRoom { free_bytes: free_bytes(&directory)?, directory, same_disk })
}

/// The lock file beside a database: `NAME-whimbrel-lock`. The kernel frees it when its holder dies, so there is no row
/// to clean up and no time to wait for. Never deleted: two holders of one name could each hold another file.
#[derive(Debug)]
pub struct LockFile(#[expect(dead_code, reason = "held for its lock")] File);

impl LockFile {
    /// Waits for it up to `wait`; stops when `halt` says so.
    pub fn hold(database: &Path, wait: Duration, halt: &Halt) -> Result<Self, ApplyError> {
        let mut name = database.as_os_str().to_owned();
        name.push("-whimbrel-lock");
        let path = PathBuf::from(name);
        let failed = |source| ApplyError::Lock { path: path.clone(), source };
        private::no_link(&path).map_err(|link| failed(link.into()))?;
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
            // As the database: in a shared directory the owner's own whimbrel must be able to take it.
            options.mode(fs::metadata(database).map_or(0o600, |m| m.mode() & 0o666)).custom_flags(libc::O_NOFOLLOW);
        }
        let file = options.open(&path).map_err(failed)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if halt.no_more() => return Err(ApplyError::Cancelled),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= wait => return Err(ApplyError::OtherRunner { waited: begun.elapsed() }),
                Err(TryLockError::WouldBlock) => {
                    crate::ambient::pulse();
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }
}

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// The one we knew, or one that another daemon of ours prepared.
    Same,
    /// It went back to an older state: it gets the next epoch, and its events are copied anew.
    WentBack,
    /// A copy of a file that is still there: it gets a client id of its own.
    Clone,
}

/// Recognises a file. `known` is what the daemon remembers of this client id, `other_is_there` whether the file it
/// remembers lies at another path and is still that file, `last_event_is_there` whether the last event that was copied
/// is still in the file. Pure.
pub fn recognise(known: Option<&KnownDatabase>, path: &Path, other_is_there: bool, last_event_is_there: bool) -> Recognised {
    match known {
        None => Recognised::Same,
        Some(known) if known.path != path && other_is_there => Recognised::Clone,
        Some(_) if !last_event_is_there => Recognised::WentBack,
        Some(_) => Recognised::Same,
    }
}

/// A new identity for a file at `(device, inode)`.
pub fn new_identity(client_id: ClientId, app: &whimbrel_shared::ids::AppName, place: (u64, u64)) -> FileIdentity {
    FileIdentity { client_id, app: app.clone(), epoch: 1, device: place.0, inode: place.1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_a_restored_and_a_moved_file_are_told_apart() {
        let identity = new_identity(ClientId::from_dice(1), &"notes".parse().unwrap(), (1, 2));
        let known = KnownDatabase { identity, path: "/a/one.db".into(), copied_seq: 9, copied_id: None };
        let check = |path: &str, other, last, expected| assert_eq!(recognise(Some(&known), Path::new(path), other, last), expected);
        check("/a/one.db", true, true, Recognised::Same);
        check("/a/one.db", true, false, Recognised::WentBack);
        check("/b/two.db", true, true, Recognised::Clone);
        check("/b/two.db", false, true, Recognised::Same); // moved
        check("/b/two.db", false, false, Recognised::WentBack);
        assert_eq!(recognise(None, Path::new("/b"), false, false), Recognised::Same);
    }

    #[test]
    fn only_one_holds_the_lock_file_and_death_frees_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let go = Halt::default();
        let first = LockFile::hold(&path, Duration::ZERO, &go).unwrap();
        assert!(matches!(LockFile::hold(&path, Duration::ZERO, &go), Err(ApplyError::OtherRunner { .. })));
        drop(first);
        LockFile::hold(&path, Duration::ZERO, &go).unwrap();
    }
}
