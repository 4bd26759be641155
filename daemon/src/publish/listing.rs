//! A migrations directory as a list of paths and texts: bounded, and nothing from outside of it. What the files mean is
//! `layout`'s business.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use whimbrel_shared::{
    migration::MAX_BODY_BYTES,
    remedy::{Remedy, here},
};

/// Most files that are looked at: a chain has at most 10 000 links, each with a few files.
const MAX_ENTRIES: usize = 60_000;
/// Deepest directory that is looked into, counted from the migrations directory.
const MAX_DEPTH: usize = 4;
/// Most text held in memory over all files.
const MAX_TOTAL_BYTES: u64 = 512 * 1024 * 1024;

/// Content of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// UTF-8 text without its byte-order mark.
    Text(String),
    /// Bytes that are not UTF-8, or text with a NUL, at which SQLite would stop reading.
    NotText,
    /// More bytes than a migration may have; not read.
    TooLarge {
        /// Its size.
        size_bytes: u64,
    },
    /// A symbolic link that leads out of the directory; not read.
    Outside,
}

/// The files of a directory by their path in it, with `/` between the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every file that was looked at.
    pub files: BTreeMap<String, Content>,
}

/// Why a directory, or a file that a migration needs, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The file system said no.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Too many files or bytes for a migrations directory.
    #[error("{path} has more than {limit}; it is probably not a migrations directory", path = path.display())]
    TooMuch {
        /// The directory.
        path: PathBuf,
        /// The limit, with its unit.
        limit: String,
    },
    /// A file of a migration is not text.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// The file.
        file: String,
    },
    /// A file of a migration is too large.
    #[error("{file} has {size_bytes} bytes; a migration has at most {MAX_BODY_BYTES}")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        size_bytes: u64,
    },
    /// A file of a migration is a link to elsewhere.
    #[error("{file} is a symbolic link that leads out of the directory")]
    Outside {
        /// The file.
        file: String,
    },
    /// A file that another one names is not there.
    #[error("{file} is not there, and {named_by} names it")]
    Missing {
        /// The file.
        file: String,
        /// Where it is named.
        named_by: String,
    },
}

impl ListingError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Io { .. } => here("check the path and its permissions"),
            Self::TooMuch { .. } => here("name the directory that holds the migrations themselves"),
            Self::NotText { file } => here(format!("save {file} as UTF-8 without NUL characters")),
            Self::TooLarge { .. } => here("split it into several migrations, or ship rows in a `load` step"),
            Self::Outside { file } => here(format!("put a copy of the file in place of {file}")),
            Self::Missing { file, .. } => here(format!("put {file} there, or take its name out")),
        }
    }
}

impl Listing {
    /// Reads `path`: a directory, or one file (a seed-form JSON). Hidden entries are passed over. Files that cannot be
    /// text are listed without their content: they only matter when a migration turns out to need them.
    pub fn read(path: &Path) -> Result<Self, ListingError> {
        let io = |source| ListingError::Io { path: path.to_owned(), source };
        let root = fs::canonicalize(path).map_err(io)?;
        let mut listing = Self::default();
        if root.is_file() {
            let name = root.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            listing.files.insert(name, read_file(&root, &mut 0)?);
            return Ok(listing);
        }
        let mut total_bytes = 0;
        let mut directories = vec![(root.clone(), String::new(), 1)];
        while let Some((directory, prefix, depth)) = directories.pop() {
            for entry in fs::read_dir(&directory).map_err(io)? {
                let entry = entry.map_err(io)?;
                // A name that is not text cannot be a migration's: those become part of URLs.
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                if name.starts_with('.') || name == "node_modules" {
                    continue;
                }
                let relative = format!("{prefix}{name}");
                let kind = entry.file_type().map_err(io)?;
                if kind.is_dir() {
                    if depth < MAX_DEPTH {
                        directories.push((entry.path(), format!("{relative}/"), depth + 1));
                    }
                    continue;
                }
                let target = if kind.is_symlink() {
                    match fs::canonicalize(entry.path()) {
                        Ok(target) if target.starts_with(&root) => target,
                        Ok(_) | Err(_) => {
                            listing.files.insert(relative, Content::Outside);
                            continue;
                        }
                    }
                } else {
                    entry.path()
                };
                // A directory through a link (it may lead in a circle), a socket, a pipe.
                if !target.is_file() {
                    continue;
                }
                let content = read_file(&target, &mut total_bytes)?;
                listing.files.insert(relative, content);
                let limit = if listing.files.len() > MAX_ENTRIES {
                    format!("{MAX_ENTRIES} files")
                } else if total_bytes > MAX_TOTAL_BYTES {
                    format!("{MAX_TOTAL_BYTES} bytes of text")
                } else {
                    continue;
                };
                return Err(ListingError::TooMuch { path: path.to_owned(), limit });
            }
        }
        Ok(listing)
    }

    /// The text of a file that a migration needs.
    pub fn text(&self, file: &str) -> Result<&str, ListingError> {
        let file = file.to_owned();
        match self.files.get(&file) {
            Some(Content::Text(text)) => Ok(text),
            Some(Content::NotText) => Err(ListingError::NotText { file }),
            Some(Content::TooLarge { size_bytes }) => Err(ListingError::TooLarge { file, size_bytes: *size_bytes }),
            Some(Content::Outside) => Err(ListingError::Outside { file }),
            None => Err(ListingError::Missing { file, named_by: "the migrations directory".to_owned() }),
        }
    }

    /// The text of a file, where it is there and is text.
    pub fn peek(&self, file: &str) -> Option<&str> {
        match self.files.get(file) {
            Some(Content::Text(text)) => Some(text),
            Some(Content::NotText | Content::TooLarge { .. } | Content::Outside) | None => None,
        }
    }

    /// Paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The files below `directory`, with their paths from there.
    pub fn below(&self, directory: &str) -> Self {
        let prefix = format!("{directory}/");
        Self { files: self.files.iter().filter_map(|(path, content)| Some((path.strip_prefix(&prefix)?.to_owned(), content.clone()))).collect() }
    }
}

/// Bytes as content: without a byte-order mark, which SQLite would read as part of the first word.
pub fn content(bytes: Vec<u8>) -> Content {
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Content::NotText,
        Ok(text) => Content::Text(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }),
        Err(_) => Content::NotText,
    }
}

fn read_file(path: &Path, total_bytes: &mut u64) -> Result<Content, ListingError> {
    let io = |source| ListingError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io)?;
    let size_bytes = file.metadata().map_err(io)?.len();
    if size_bytes > MAX_BODY_BYTES {
        return Ok(Content::TooLarge { size_bytes });
    }
    let mut bytes = Vec::new();
    // `take`, because the file may grow between the two calls.
    file.take(MAX_BODY_BYTES).read_to_end(&mut bytes).map_err(io)?;
    *total_bytes = total_bytes.saturating_add(bytes.len() as u64);
    Ok(content(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_listed_with_paths_from_it_and_hidden_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("0001_a")).unwrap();
        fs::create_dir_all(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join("0001_a/up.sql"), "\u{feff}SELECT 1;\r\n").unwrap();
        fs::write(dir.path().join(".git/config"), "x").unwrap();
        fs::write(dir.path().join(".keep"), "").unwrap();
        fs::write(dir.path().join("sample.db"), b"\xff\xfe\x00").unwrap();
        let listing = Listing::read(dir.path()).unwrap();
        assert_eq!(listing.paths().collect::<Vec<_>>(), ["0001_a/up.sql", "sample.db"]);
        assert_eq!(listing.text("0001_a/up.sql").unwrap(), "SELECT 1;\r\n");
        assert!(matches!(listing.text("sample.db"), Err(ListingError::NotText { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_inside_the_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.sql"), "x").unwrap();
        fs::write(dir.path().join("a.sql"), "a").unwrap();
        let link = |to: &Path, from: &str| {
            std::os::unix::fs::symlink(to, dir.path().join(from)).unwrap();
        };
        link(&dir.path().join("a.sql"), "b.sql");
        link(&outside.path().join("secret.sql"), "c.sql");
        link(outside.path(), "d");
        link(dir.path(), "circle");
        let listing = Listing::read(dir.path()).unwrap();
        assert_eq!(listing.text("b.sql").unwrap(), "a");
        assert!(matches!(listing.text("c.sql"), Err(ListingError::Outside { .. })));
        assert_eq!(listing.peek("d"), None);
        assert!(!listing.paths().any(|p| p.starts_with("circle/")));
    }

    #[test]
    fn a_file_over_the_limit_is_named_and_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("1_big.sql")).unwrap();
        file.set_len(MAX_BODY_BYTES + 1).unwrap();
        let listing = Listing::read(dir.path()).unwrap();
        let error = listing.text("1_big.sql").unwrap_err();
        assert!(error.to_string().contains("1_big.sql"), "{error}");
    }
}
