//! Files that only their owner may read.

#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use whimbrel_shared::remedy::{Remedy, here};
use zeroize::Zeroizing;

/// Longest secret file that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a secret file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system's word.
    #[error("{path}: {source}", path = path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others could have read it.
    #[error("{path} has mode {mode:03o}: others than its owner may read or change it", path = path.display())]
    OpenToOthers {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No plain file, or a large one.
    #[error("{path} is no file of at most {MAX_BYTES} bytes of text", path = path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// There is one already.
    #[error("{path} is there already; a key is never overwritten", path = path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
}

impl FileError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::System { .. } => here("check the path and its permissions"),
            Self::OpenToOthers { path, .. } => {
                here(format!("`chmod 600 {}`; if somebody may have read it, make a new key and revoke this one", path.display()))
            }
            Self::NotText { .. } => here("name a file that holds the key and nothing else"),
            Self::Exists { .. } => here("name another file"),
        }
    }
}

/// Reads a file that nobody but its owner may read. The file that was looked at is the one that is read.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, FileError> {
    read(path, true)
}

/// Reads a credential that systemd laid down. Who may read it, systemd says by an access list, which looks like a group's right.
pub fn read_credential(path: &Path) -> Result<Zeroizing<String>, FileError> {
    read(path, false)
}

fn read(path: &Path, private: bool) -> Result<Zeroizing<String>, FileError> {
    let system = |source| FileError::System { path: path.to_owned(), source };
    let not_text = || FileError::NotText { path: path.to_owned() };
    // Before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(system)?.is_file() {
        return Err(not_text());
    }
    let file = File::open(path).map_err(system)?;
    let found = file.metadata().map_err(system)?;
    if private && mode(&found) & 0o077 != 0 {
        return Err(FileError::OpenToOthers { path: path.to_owned(), mode: mode(&found) });
    }
    if !found.is_file() || found.len() > MAX_BYTES {
        return Err(not_text());
    }
    let mut text = Zeroizing::new(String::with_capacity(found.len() as usize + 1));
    match file.take(MAX_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(not_text()),
        Err(e) => Err(system(e)),
    }
}

/// Makes a file with mode 0600, and is sure that it is on the disk. One that is there is never overwritten.
pub fn create_private(path: &Path, text: &str) -> Result<(), FileError> {
    let system = |source| FileError::System { path: path.to_owned(), source };
    let mut how = OpenOptions::new();
    how.write(true).create_new(true);
    #[cfg(unix)]
    how.mode(0o600);
    let mut file = how.open(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => system(e),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is worse than none: it looks like one.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(system)?;
    // Elsewhere a folder is no file that can be synced.
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(system)?;
    }
    Ok(())
}

/// Who may do what with it. Where there are no modes, the folder's access list decides.
fn mode(found: &Metadata) -> u32 {
    #[cfg(unix)]
    return found.mode() & 0o7777;
    #[cfg(not(unix))]
    {
        let _ = found;
        0o600
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_for_its_owner_alone_and_refused_when_it_is_opened_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        create_private(&path, "secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(*read_private(&path).unwrap(), "secret");
        assert!(matches!(create_private(&path, "other"), Err(FileError::Exists { .. })));
        assert_eq!(*read_private(&path).unwrap(), "secret");
        for mode in [0o640, 0o604, 0o620, 0o660, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private(&path).unwrap_err();
            assert!(error.to_string().contains(&format!("{mode:03o}")), "{error}");
            assert!(error.remedy().sentence().contains("chmod 600"));
        }
        assert!(matches!(read_private(folder.path()), Err(FileError::NotText { .. })));
    }
}
