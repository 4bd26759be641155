//! Writing a large file beside an application that syncs its own: what is written goes to the disk bite by bite, without a
//! commit of the file system's journal for each. A journal commit is everybody's (on ext4 an application's `fsync` waits for
//! the one that is running, and for the data of every file that grew in it), so the room is reserved first, and written
//! pages are only pushed out; the one real sync is at the end. A disk's queue is everybody's as well: an `fsync` waits for
//! what was pushed before it, so bites are small.

use std::{fs::File, io};

/// What is pushed at a time; twice as much is on its way at most. A fraction of a millisecond of a disk that takes 500 MB/s.
pub(super) const BITE_BYTES: u64 = 256 * 1024;

/// Pushes a file out while it is written from its beginning to its end.
#[derive(Debug)]
pub(super) struct Bites {
    file: File,
    /// Bytes from here on have not been pushed out.
    pushed: u64,
    /// Bytes from here on may still be on their way.
    arrived: u64,
}

impl Bites {
    /// Reserves room for `size_bytes`. Where the file system cannot, the file grows as it is written.
    pub(super) fn new(file: File, size_bytes: u64) -> Self {
        reserve(&file, size_bytes);
        Self { file, pushed: 0, arrived: 0 }
    }

    /// Everything below `written` is in the file: begins to push it out, and waits for the bite before it, so that no more
    /// than two are on their way.
    pub(super) fn push(&mut self, written: u64) -> io::Result<()> {
        push(&self.file, self.pushed, written, false)?;
        push(&self.file, self.arrived, self.pushed, true)?;
        (self.arrived, self.pushed) = (self.pushed, written.max(self.pushed));
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, size_bytes: u64) {
    use std::os::fd::AsRawFd;
    let Ok(size) = libc::off_t::try_from(size_bytes) else { return };
    // SAFETY: a plain system call on a file that is open. It is an optimisation: what it says is no matter.
    unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, size) };
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _size_bytes: u64) {}

#[cfg(target_os = "linux")]
fn push(file: &File, from: u64, to: u64, wait: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (Ok(from), Ok(to)) = (libc::off64_t::try_from(from), libc::off64_t::try_from(to)) else { return Ok(()) };
    // A length of 0 would mean the rest of the file.
    if to <= from {
        return Ok(());
    }
    let begin = libc::SYNC_FILE_RANGE_WRITE;
    let flags = if wait { libc::SYNC_FILE_RANGE_WAIT_BEFORE | begin | libc::SYNC_FILE_RANGE_WAIT_AFTER } else { begin };
    // SAFETY: a plain system call on a file that is open.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), from, to - from, flags) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // File systems without pages to push: the sync at the end does it all.
            error if [Some(libc::ENOSYS), Some(libc::EINVAL), Some(libc::ESPIPE)].contains(&error.raw_os_error()) => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn push(file: &File, _from: u64, _to: u64, wait: bool) -> io::Result<()> {
    if wait { file.sync_data() } else { Ok(()) }
}
