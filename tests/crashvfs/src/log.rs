//! What SQLite did to the files of a disk, in order. Pure.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// The files of a folder: name and content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// One call that changed something, or promised that what was changed stays. `file` is its name in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file came into being, empty. Its name may be forgotten until [`Op::SyncFolder`].
    Create {
        /// Which.
        file: Arc<str>,
    },
    /// Bytes were written. They may be lost until [`Op::Sync`].
    Write {
        /// Where.
        file: Arc<str>,
        /// At which byte.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file got another length.
    Truncate {
        /// Which.
        file: Arc<str>,
        /// Its length, in bytes.
        size: usize,
    },
    /// All that was written to a file is on the disk.
    Sync {
        /// Which.
        file: Arc<str>,
    },
    /// A name is gone. It may come back until [`Op::SyncFolder`].
    Delete {
        /// Which.
        file: Arc<str>,
    },
    /// All names that came or went are settled.
    SyncFolder,
    /// SQLite holds a transaction for committed: from here on none of it may be forgotten.
    /// (`SQLITE_FCNTL_COMMIT_PHASETWO`, <https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>.)
    Commit,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { file } => write!(f, "create {file}"),
            Self::Write { file, offset, bytes } => write!(f, "write {} bytes at {offset} of {file}", bytes.len()),
            Self::Truncate { file, size } => write!(f, "truncate {file} to {size} bytes"),
            Self::Sync { file } => write!(f, "sync {file}"),
            Self::Delete { file } => write!(f, "delete {file}"),
            Self::SyncFolder => f.write_str("sync the folder"),
            Self::Commit => f.write_str("commit"),
        }
    }
}

/// A folder as it lay on the disk when the recording began, and everything since.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What was there, and safe.
    pub base: Files,
    /// What was done then.
    pub ops: Vec<Op>,
}

impl Log {
    /// Commits before position `at`.
    pub fn commits_before(&self, at: usize) -> usize {
        self.ops[..at].iter().filter(|op| **op == Op::Commit).count()
    }
}
