//! What is ours alone: directories that nobody else enters, and files that are opened where they lie and not where a link
//! in their place leads. A link in the way there is the file system's own business: only the last name is looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use whimbrel_shared::remedy::{Remedy, here};

/// Why something of ours is not used as it lies there. Travels inside an [`io::Error`]: see [`remedy_of`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exposed {
    /// A link lies where the thing itself should.
    #[error("{path} is a link to {target}, and links are not followed there")]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Others could have put something into it.
    #[error("{path} can be written by others (mode {mode:04o}), and there is something in it")]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Somebody else's.
    #[error("{path} belongs to uid {owner}, and this whimbrel runs as uid {us}")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Something else lies there.
    #[error("{path} is no {expected}")]
    Kind {
        /// What lies there.
        path: PathBuf,
        /// What should.
        expected: &'static str,
    },
}

impl Exposed {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Link { path, target } => {
                here(format!("name {} itself in the configuration, or remove the link {} if you did not make it", target.display(), path.display()))
            }
            Self::Writable { path, .. } => {
                here(format!("see that everything in {0} is yours, then `chmod 700 {0}`; another directory is `state_dir`", path.display()))
            }
            Self::Owner { owner, .. } => here(format!("run whimbrel as that user (`sudo -u '#{owner}' whimbrel …`), or name another `state_dir`")),
            Self::Kind { path, .. } => here(format!("move {} away, or name another path in the configuration", path.display())),
        }
    }
}

impl From<Exposed> for io::Error {
    fn from(exposed: Exposed) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, exposed)
    }
}

/// The remedy for an error of this file; none for the system's own.
pub fn remedy_of(error: &io::Error) -> Option<Remedy> {
    error.get_ref()?.downcast_ref::<Exposed>().map(Exposed::remedy)
}

/// Refuses a link at `path`. Nothing there is no link.
pub fn no_link(path: &Path) -> Result<(), Exposed> {
    match fs::read_link(path) {
        Ok(target) => Err(Exposed::Link { path: path.to_owned(), target }),
        // Not there, or no link; what else may be wrong is said by who opens it.
        Err(_) => Ok(()),
    }
}

/// Makes a directory that only we can enter; missing ones above it too. One that is there has to be ours, or we root: where others
/// could read in it, it is closed to them and that is logged, and where they could write, it has to be empty. A link in its
/// place is followed if we or root made it.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let Some(found) = there(fs::symlink_metadata(path))? else {
        return make_dir(path);
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        // SAFETY: a plain system call without arguments.
        let us = unsafe { libc::geteuid() };
        if found.is_symlink() && found.uid() != us && found.uid() != 0 {
            no_link(path)?;
        }
        let found = fs::metadata(path)?;
        if !found.is_dir() {
            return Err(Exposed::Kind { path: path.to_owned(), expected: "directory" }.into());
        }
        // Root may work for others, as it may open their databases.
        if found.uid() != us && us != 0 {
            return Err(Exposed::Owner { path: path.to_owned(), owner: found.uid(), us }.into());
        }
        let mode = found.mode() & 0o7777;
        if mode & 0o022 != 0 && fs::read_dir(path)?.next().is_some() {
            return Err(Exposed::Writable { path: path.to_owned(), mode }.into());
        }
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            tracing::warn!("{} could be entered by others (mode {mode:04o}); it is closed to them now", path.display());
        }
        Ok(())
    }
    #[cfg(not(unix))]
    if found.is_dir() { Ok(()) } else { Err(Exposed::Kind { path: path.to_owned(), expected: "directory" }.into()) }
}

/// Makes a directory, and those above it, for us alone. One that is there is left as it is.
pub fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Opens an ordinary file of ours for reading and writing; makes an empty one, for us alone, where there is none. Refuses a
/// link. Permissions that others have on a file of ours are taken back.
pub fn make_private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
        // Not blocking: a pipe in its place would wait for a reader for ever.
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        no_link(path)?;
        let file = options.open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(Exposed::Kind { path: path.to_owned(), expected: "ordinary file" }.into());
        }
        if found.mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    {
        no_link(path)?;
        options.open(path)
    }
}

/// `path` with every link resolved in the way there, and none in its last name.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?.join(name)),
        _ => fs::canonicalize(path),
    }
}

/// Opens a database where it lies: a link in its place is SQLite's "unable to open". Nothing that its schema says is trusted
/// beyond what SQL itself may do, and damage is looked for in every page that is read. A path is a path, and no URI.
pub fn open_database(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = open_own(path, flags)?;
    distrust(&connection)?;
    Ok(connection)
}

/// The same for a file that we are making.
pub fn open_own(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // SQLite refuses a link anywhere in the path. What cannot be resolved cannot be opened either, and SQLite says why.
    let path = resolved(path).unwrap_or_else(|_| path.to_owned());
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW)
}

/// Takes nothing on trust that lies in the file.
pub fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // A file that is cut off while it is mapped ends the process.
    connection.pragma_update(None, "mmap_size", 0)
}

fn there(found: io::Result<fs::Metadata>) -> io::Result<Option<fs::Metadata>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn exposed(result: io::Result<impl Sized>) -> Exposed {
        result.err().expect("it is refused").get_ref().unwrap().downcast_ref::<Exposed>().unwrap().clone()
    }

    #[test]
    fn a_directory_that_others_could_read_is_closed_and_one_they_could_write_is_refused_unless_empty() {
        let dir = tempfile::tempdir().unwrap();
        let check = |before: u32, filled: bool, after: Option<u32>| {
            let path = dir.path().join(format!("{before:o}{filled}"));
            fs::create_dir(&path).unwrap();
            if filled {
                fs::write(path.join("device.db"), "").unwrap();
            }
            set(&path, before);
            match (make_private_dir(&path), after) {
                (Ok(()), Some(after)) => assert_eq!(mode(&path), after, "{before:o}"),
                (Err(error), None) => assert!(remedy_of(&error).unwrap().sentence().contains("chmod 700"), "{error}"),
                (made, _) => panic!("{before:o}, filled {filled}: {made:?}"),
            }
        };
        check(0o700, true, Some(0o700));
        check(0o755, true, Some(0o700));
        check(0o711, true, Some(0o700));
        check(0o775, true, None);
        check(0o777, true, None);
        check(0o1777, true, None);
        check(0o777, false, Some(0o700));
    }

    #[test]
    fn what_lies_in_the_place_of_a_private_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (link, aim, folder) = (dir.path().join("link"), dir.path().join("aim"), dir.path().join("folder"));
        symlink(&aim, &link).unwrap();
        assert_eq!(exposed(make_private_file(&link)), Exposed::Link { path: link.clone(), target: aim.clone() });
        assert!(!aim.exists(), "the link was followed");
        fs::create_dir(&folder).unwrap();
        assert!(make_private_file(&folder).is_err());
        fs::write(&aim, "mine").unwrap();
        set(&aim, 0o644);
        make_private_file(&aim).unwrap();
        assert_eq!((mode(&aim), fs::read_to_string(&aim).unwrap().as_str()), (0o600, "mine"));
    }

    #[test]
    fn a_database_is_opened_through_linked_directories_and_not_through_a_link_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        Connection::open(real.join("a.db")).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        let (way, link) = (dir.path().join("way"), dir.path().join("b.db"));
        symlink(&real, &way).unwrap();
        symlink(real.join("a.db"), &link).unwrap();
        let open = |path: &Path| open_database(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
        open(&way.join("a.db")).unwrap();
        let error = open(&link).unwrap_err();
        assert_eq!(super::super::code_of(&error), rusqlite::ffi::SQLITE_CANTOPEN_SYMLINK, "{error}");
    }

    #[test]
    fn a_view_in_a_file_cannot_call_what_reaches_beyond_sql() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        Connection::open(&path).unwrap().execute_batch("CREATE VIEW v AS SELECT load_extension('/tmp/x.so')").unwrap();
        let file = open_database(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let error = file.query_row("SELECT * FROM v", [], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("unsafe use of load_extension"), "{error}");
        assert!(file.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema").is_err());
    }
}
