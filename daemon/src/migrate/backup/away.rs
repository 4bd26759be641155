//! Takes a large file of ours away without the application noticing. To unlink hundreds of megabytes is one deed for the
//! file system: on ext4 it took 150 to 200 ms for 500 MB, and every `fsync` of the application waited 40 to 60 ms for the
//! journal commit in the middle of it, twice. So the file is made shorter bite by bite first.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

/// What goes at a time: well below a millisecond of the file system's journal.
const BITE_BYTES: u64 = 2 * 1024 * 1024;
/// Between two bites, so that a sync that waits gets its turn.
const PAUSE: Duration = Duration::from_micros(500);

/// Takes away the file at `path`, which nobody is meant to open any more. Somebody may have opened it before, or keep it
/// under a second name: then it is only unlinked, and whole for them. A directory is not followed. When it fails, `path`
/// may be shorter than it was: give it a name first that no reader looks for.
pub(in crate::migrate) fn take_away(path: &Path) -> io::Result<()> {
    // Only what is worth it.
    let size_bytes = fs::symlink_metadata(path)?.len();
    if size_bytes > 2 * BITE_BYTES
        && let Ok(file) = File::options().write(true).open(path)
        && is_ours_alone(&file)
    {
        let mut left = size_bytes;
        while left > BITE_BYTES {
            left -= BITE_BYTES;
            file.set_len(left)?;
            crate::ambient::pulse();
            std::thread::sleep(PAUSE);
        }
    }
    fs::remove_file(path)
}

/// Whether no other name and no other descriptor leads to the file. Where that cannot be found out, it is not.
#[cfg(target_os = "linux")]
fn is_ours_alone(file: &File) -> bool {
    use std::os::{fd::AsRawFd, unix::fs::MetadataExt};
    // <asm-generic/fcntl.h>; where an architecture has another number, the call fails.
    const F_SETSIG: libc::c_int = 10;
    if !file.metadata().is_ok_and(|m| m.is_file() && m.nlink() == 1) {
        return false;
    }
    let fd = file.as_raw_fd();
    // The kernel gives a write lease exactly when nobody else has the file open (fcntl(2)). It is given back at once. Who opens
    // the file in between makes the kernel send a signal: one that is ignored, and not SIGIO, which ends a process.
    // SAFETY: plain system calls on a file that is open.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn is_ours_alone(_file: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SIZE: usize = 5 * BITE_BYTES as usize;

    #[test]
    fn a_large_file_goes_and_who_has_it_open_keeps_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.part");
        fs::write(&path, vec![7; SIZE]).unwrap();
        let mut reader = File::open(&path).unwrap();
        take_away(&path).unwrap();
        assert!(!path.exists());
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert!(seen == vec![7; SIZE], "{} bytes are left", seen.len());
    }

    #[test]
    fn a_second_name_keeps_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("old.part"), dir.path().join("kept.db"));
        fs::write(&path, vec![7; SIZE]).unwrap();
        fs::hard_link(&path, &kept).unwrap();
        take_away(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::metadata(&kept).unwrap().len(), SIZE as u64);
    }

    /// Without this the others would pass if it never made a file shorter.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_nobody_else_knows_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.part");
        fs::write(&path, "x").unwrap();
        let ours = File::options().write(true).open(&path).unwrap();
        assert!(is_ours_alone(&ours));
        let other = File::open(&path).unwrap();
        assert!(!is_ours_alone(&ours));
        drop(other);
        assert!(is_ours_alone(&ours));
    }
}
