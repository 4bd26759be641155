//! Why a migrations directory cannot be read, and what to do about it.

use whimbrel_shared::{
    ids::BadId,
    migration::{BadMigration, MAX_CHAIN},
    remedy::{Remedy, here},
};

use super::Layout;
use crate::publish::listing::ListingError;

/// Why a directory is not one chain of migrations.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file that is needed cannot be read.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// Nothing here looks like a migration.
    #[error("no migrations are here{}", what_is_there(.seen, .forced.as_ref()))]
    Nothing {
        /// A few of the files that are there.
        seen: Vec<String>,
        /// The layout that was asked for.
        forced: Option<Layout>,
        /// A directory below that holds migrations.
        below: Option<String>,
    },
    /// Files of several layouts.
    #[error("the files are of {} layouts: {}", .seen.len(), several(.seen))]
    Ambiguous {
        /// Each layout with one of its files.
        seen: Vec<(Layout, String)>,
    },
    /// Two migrations claim one place.
    #[error("{first} and {second} have the same {number}")]
    Duplicate {
        /// The number or name.
        number: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// Migrations written in a programming language.
    #[error("{file} is a migration in code, which a device cannot run{}", and_more(*.count))]
    Code {
        /// The first of them.
        file: String,
        /// How many there are.
        count: usize,
    },
    /// A file that a tool runs whenever it changes.
    #[error("{file} is repeatable: it has no place in a chain")]
    Repeatable {
        /// The file.
        file: String,
    },
    /// A down without its up.
    #[error("{file} takes back a migration that is not here")]
    NoUp {
        /// The down.
        file: String,
    },
    /// A directory of our layout without a number.
    #[error("{path} does not begin with its number")]
    NoNumber {
        /// The file.
        path: String,
    },
    /// A name that cannot be a migration's.
    #[error("{path}: {source}")]
    BadName {
        /// The file.
        path: String,
        /// The rule.
        source: BadId,
    },
    /// A marker comment of goose, sql-migrate or dbmate that does not fit.
    #[error("{file}:{line}: {what}")]
    BadMark {
        /// The file.
        file: String,
        /// From 1.
        line: u32,
        /// What is wrong.
        what: String,
    },
    /// A manifest, journal or JSON file that cannot be parsed.
    #[error("{file}: {what}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong, with its line where known.
        what: String,
    },
    /// Migrations for another database system.
    #[error("{file} says that these migrations are for {dialect}")]
    OtherDialect {
        /// The file.
        file: String,
        /// The system.
        dialect: String,
    },
    /// More than a chain may have.
    #[error("{found} migrations are here; a chain has at most {MAX_CHAIN}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// What was read breaks a rule for migrations.
    #[error("{path}: {source}")]
    Migration {
        /// The file.
        path: String,
        /// The layout.
        layout: Layout,
        /// The rule.
        source: BadMigration,
    },
}

fn what_is_there(files: &[String], forced: Option<&Layout>) -> String {
    let layout = forced.map_or_else(String::new, |l| format!(" in the layout {l}"));
    if files.is_empty() { format!("{layout}: the directory has no files") } else { format!("{layout}: there are {}", files.join(", ")) }
}

fn several(seen: &[(Layout, String)]) -> String {
    seen.iter().map(|(layout, file)| format!("{layout} ({file})")).collect::<Vec<_>>().join(", ")
}

fn and_more(count: usize) -> String {
    match count.saturating_sub(1) {
        0 => String::new(),
        1 => " (and 1 more)".to_owned(),
        more => format!(" (and {more} more)"),
    }
}

impl LayoutError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Listing(error) => error.remedy(),
            Self::Nothing { below: Some(below), .. } => here(format!("name the directory {below} in it, which has migrations")),
            Self::Nothing { .. } => here("name the directory that holds the migrations, or begin one with `whimbrel new NAME`"),
            Self::Ambiguous { seen } => here(format!(
                "keep one layout in a directory, or say which one counts: --layout {}",
                seen.iter().map(|(l, _)| l.name()).collect::<Vec<_>>().join(" or --layout ")
            )),
            Self::Duplicate { .. } => here("renumber one of the two"),
            Self::Code { .. } => here(
                "write what it does as SQL; or, if every device has run it already, publish a first migration made from `sqlite3 FILE .schema` instead of the old ones and adopt the devices at it; or export it in the seed form {timestamp, migrationName, upQueries, downQueries}; or force a layout with --layout to leave code files out",
            ),
            Self::Repeatable { .. } => here("give it the next number; each later change is a migration of its own"),
            Self::NoUp { .. } => here("put its up migration there, or take the file away"),
            Self::NoNumber { .. } => here("begin the name with a number, as in 0001_init: numbers make the order"),
            Self::BadName { .. } => here("rename it; the name becomes part of file names and URLs"),
            Self::BadMark { .. } => here("correct the line; the comment is read as the tool reads it"),
            Self::BadFile { file, .. } => here(format!("correct {file}")),
            Self::OtherDialect { .. } => here("name the directory of the migrations for SQLite, if there is one"),
            Self::TooMany { .. } => here("squash the oldest ones into one first migration and adopt the devices at it"),
            Self::Migration { source, .. } => match source {
                BadMigration::MissingFile { .. } => here("put the file beside migration.toml, or correct the name there"),
                BadMigration::TooLarge { .. } | BadMigration::TooManyFiles { .. } => here("split the migration"),
                BadMigration::NotJson(_) | BadMigration::UnknownFormat(_) => here("this should not happen: please report it with the file"),
            },
        }
    }
}
