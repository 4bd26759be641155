//! From a migrations directory to published links: read it in any tool's layout, lint it, rehearse it, upload it.

pub mod columns;
pub mod compare;
pub mod layout;
pub mod lint;
pub mod listing;
pub mod rehearse;
pub mod revise;
pub mod scan;
pub mod sign;
pub mod template;
pub mod upload;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;
use whimbrel_shared::{
    ids::{BadId, MigrationName},
    remedy::{Remedy, here},
};

use self::{
    layout::{Chain, Layout, LayoutError},
    lint::{Ask, Finding, Level, Rule},
    listing::{Listing, ListingError},
    rehearse::RehearsalError,
    revise::ReviseError,
    upload::UploadError,
};

/// Why a publisher's command stopped.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The directory cannot be read.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// It is not one chain.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Lint refuses it; the findings have been shown.
    #[error("{errors} finding{} of lint refuse{} it; nothing was published", if *errors == 1 { "" } else { "s" }, if *errors == 1 { "s" } else { "" })]
    Findings {
        /// How many are errors.
        errors: usize,
    },
    /// A migration failed.
    #[error(transparent)]
    Rehearsal(#[from] RehearsalError),
    /// What was changed cannot be a revision.
    #[error(transparent)]
    Revise(#[from] ReviseError),
    /// The server has something else, or cannot be reached.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] sign::SignError),
    /// The app has a root, and nobody signs.
    #[error("{app} has a root: what is published to it is signed, and no key was named")]
    Unsigned {
        /// The app.
        app: whimbrel_shared::ids::AppName,
    },
    /// There is no root that says whose signature counts.
    #[error("{app} has no root on the server, so a signature says nothing")]
    NoRoot {
        /// The app.
        app: whimbrel_shared::ids::AppName,
    },
    /// A new migration cannot be made there.
    #[error("{path} cannot be written: {source}", path = path.display())]
    Write {
        /// What.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory belongs to another tool.
    #[error("{directory} has migrations of {layout}", directory = directory.display())]
    OthersDirectory {
        /// The directory.
        directory: std::path::PathBuf,
        /// Whose.
        layout: Layout,
    },
    /// A name that cannot be used.
    #[error(transparent)]
    BadName(#[from] BadId),
    /// No key was given.
    #[error("WHIMBREL_API_KEY is not set")]
    NoKey,
    /// SQLite or the runtime could not be set up.
    #[error("{0}")]
    SetUp(String),
}

impl PublishError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Listing(error) => error.remedy(),
            Self::Layout(error) => error.remedy(),
            Self::Findings { .. } => here("each finding says how it is mended"),
            Self::Rehearsal(error) => error.remedy(),
            Self::Revise(error) => error.remedy(),
            Self::Upload(error) => error.remedy(),
            Self::Sign(error) => error.remedy(),
            Self::Unsigned { .. } => here("name a publisher's key with --key"),
            Self::NoRoot { .. } => here("publish without --key, or make a root first: `whimbrel keys root`"),
            Self::Write { .. } => here("check the path and its permissions"),
            Self::OthersDirectory { layout, .. } => {
                here(format!("make the new one with that tool ({layout} publishes as it is), or name another directory with --dir"))
            }
            Self::BadName(_) => here("choose another name"),
            Self::NoKey => here("set it to a key that may publish; the server's operator issues one"),
            Self::SetUp(_) => here("this should not happen: please report it"),
        }
    }
}

/// Reads and lints a directory.
pub fn read(directory: &Path, layout: Option<Layout>, strict: bool) -> Result<(Chain, Vec<Finding>), PublishError> {
    let listing = Listing::read(directory)?;
    let chain = layout::read(&listing, layout)?;
    let ask = Ask::new().map_err(|error| PublishError::SetUp(format!("SQLite cannot be set up: {error}")))?;
    let findings = lint::lint(&chain, strict, &|statement| ask.refused(statement));
    Ok((chain, findings))
}

/// Refuses when a finding is an error. `settled`: migrations that were published already, about which nothing can be done
/// any more.
pub fn judge(findings: &[Finding], settled: &BTreeSet<MigrationName>) -> Result<(), PublishError> {
    let errors = findings.iter().filter(|f| f.level == Level::Error && !settled.contains(&f.migration)).count();
    if errors == 0 { Ok(()) } else { Err(PublishError::Findings { errors }) }
}

/// What was read and found, for people (`Display`) and for machines.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// As which layout.
    pub layout: &'static str,
    /// How many migrations.
    pub migrations: usize,
    /// How many of them can be reverted.
    pub downs: usize,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What lint and rehearsal found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Over a chain.
    pub fn new(chain: &Chain, findings: Vec<Finding>) -> Self {
        Self {
            layout: chain.layout.name(),
            migrations: chain.migrations.len(),
            downs: chain.migrations.iter().filter(|m| m.migration.down.is_some()).count(),
            notes: chain.notes.clone(),
            findings,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// A rule that an old project breaks a hundred times is understood after a few.
        const SHOWN: usize = 5;
        let s = |n: usize| if n == 1 { "" } else { "s" };
        writeln!(f, "read {} migration{} as {}, {} with a way down", self.migrations, s(self.migrations), self.layout, self.downs)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let mut counts: BTreeMap<(Rule, Level), usize> = BTreeMap::new();
        for finding in &self.findings {
            let count = counts.entry((finding.code, finding.level)).or_default();
            *count += 1;
            // Errors are all shown: each has to be mended.
            if finding.level == Level::Error || *count <= SHOWN {
                writeln!(f, "{finding}")?;
            }
        }
        for ((rule, level), count) in &counts {
            if *level == Level::Warning && *count > SHOWN {
                writeln!(f, "warning[{}]: and {} more of these (--json shows them)", rule.code(), count - SHOWN)?;
            }
        }
        let errors = self.findings.iter().filter(|x| x.level == Level::Error).count();
        let warnings = self.findings.len() - errors;
        write!(f, "{errors} error{}, {warnings} warning{}", s(errors), s(warnings))
    }
}
