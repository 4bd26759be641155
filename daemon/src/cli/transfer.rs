//! What `export` and `import` share: which file is meant, how far it is, how it failed.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use whimbrel_shared::remedy::here;

use super::{
    error::{CliError, ExitCode},
    output::Output,
};
use crate::migrate::{transfer::TransferError, work};

/// The file that `database` means: a path, or the name of a file that the configuration has. No daemon is asked.
pub(super) fn file_of(out: &Output, database: &str) -> Result<PathBuf, CliError> {
    let path = PathBuf::from(database);
    if path.is_file() {
        return Ok(std::fs::canonicalize(&path).unwrap_or(path));
    }
    let known: Vec<PathBuf> = out.config().map(|c| c.databases.iter().flat_map(work::expand).collect()).unwrap_or_default();
    let found = known.iter().find(|file| file.file_name().is_some_and(|name| name == database) && file.is_file());
    found.cloned().ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|file| file.display().to_string()).collect();
        let remedy =
            if names.is_empty() { here("name its path") } else { here(format!("name its path; the configuration has: {}", names.join(", "))) };
        CliError::new(ExitCode::Failed, format!("there is no database at {database:?}"), remedy)
    })
}

/// A bar on a terminal, nothing elsewhere: what comes of it is printed at the end.
pub(super) fn bar(out: &Output, what: &'static str) -> ProgressBar {
    if !out.draws_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0).with_message(what);
    let style = ProgressStyle::with_template("{msg} [{bar:20}] {percent} % {elapsed}, {eta} left");
    style.map(|style| bar.set_style(style.progress_chars("=> "))).ok();
    bar
}

/// An error with its exit code.
pub(super) fn from(error: &TransferError) -> CliError {
    let exit = match error {
        TransferError::NotOurs(_) => ExitCode::NotPermitted,
        TransferError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => ExitCode::NotPermitted,
        TransferError::UnderWay | TransferError::Apply(crate::migrate::error::ApplyError::OtherRunner { .. }) => ExitCode::Waiting,
        TransferError::WhichTable { .. } | TransferError::NoKey { .. } => ExitCode::Usage,
        TransferError::Apply(_) | TransferError::Io { .. } | TransferError::NoTable { .. } | TransferError::Line { .. } => ExitCode::Failed,
    };
    CliError::new(exit, error.to_string(), error.remedy())
}
