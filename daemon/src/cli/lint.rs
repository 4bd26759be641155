//! `whimbrel lint`: what a reviewer would say. With what the publisher's other commands share: the directory's arguments,
//! how a report is printed, and which exit code an error has.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Serialize;
use whimbrel_shared::remedy::Remedy;

use super::{
    error::{CliError, ExitCode},
    look::clean,
    output::Output,
    run::transport_exit,
};
use crate::publish::{
    self, PublishError, Report,
    compare::CompareError,
    layout::{Chain, Layout},
    lint::Finding,
    rehearse::RehearsalError,
    upload::UploadError,
};

/// `schema` of `whimbrel lint --json`.
pub const LINT_SCHEMA: &str = "whimbrel.lint/1";

/// `schema` of `whimbrel lint --list --json`.
pub const RULES_SCHEMA: &str = "whimbrel.rules/1";

#[derive(Serialize)]
struct Rules {
    rules: Vec<publish::lint::Listed>,
}

/// Say what a reviewer would say about a directory of migrations
///
/// Reads migrations of whimbrel, golang-migrate, sqlx, diesel, refinery, goose, sql-migrate, dbmate, Prisma and drizzle, and
/// the seed systems' JSON, as they are. What destroys data is an error in our layout, unless migration.toml says that it is
/// meant, and a warning in another tool's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  no errors
  1  a finding is an error
  2  the directory cannot be read as migrations")]
pub struct Args {
    #[command(flatten)]
    directory: Option<Directory>,
    /// Print every rule with its code instead
    #[arg(long, conflicts_with_all = ["dir", "layout", "strict"])]
    list: bool,
}

/// Which migrations, and how strictly.
#[derive(Debug, clap::Args)]
pub(super) struct Directory {
    /// The migrations directory, or a JSON file in the seed form
    pub(super) dir: PathBuf,
    /// Read it as this layout, instead of finding out which it is
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<Layout>,
    /// Judge another tool's migrations as strictly as ours
    #[arg(long)]
    pub(super) strict: bool,
}

impl Directory {
    /// Reads and lints it.
    pub(super) fn read(&self) -> Result<(Chain, Vec<Finding>), PublishError> {
        publish::read(&self.dir, self.layout, self.strict)
    }
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let Some(directory) = args.directory.filter(|_| !args.list) else {
        let rules = publish::lint::list();
        let text: String = rules.iter().map(|rule| format!("{}  {:8}  {}\n", rule.code, rule.seen_by, rule.what)).collect();
        return print(out, RULES_SCHEMA, &Rules { rules }, &text);
    };
    let (chain, findings) = directory.read()?;
    let verdict = publish::judge(&findings, &BTreeSet::new());
    let report = Report::new(&chain, findings);
    match verdict {
        Ok(()) => print(out, LINT_SCHEMA, &report, &report.to_string()),
        Err(error) => Err(refused(out, LINT_SCHEMA, &report, error)),
    }
}

/// Prints a report beside an error, because the findings often say why. A program gets both in one document.
pub(super) fn refused(out: &Output, schema: &str, report: &Report, error: PublishError) -> CliError {
    #[derive(Serialize)]
    struct Refused<'a> {
        #[serde(flatten)]
        report: &'a Report,
        error: &'a str,
        remedy: Option<&'a Remedy>,
    }
    let error = CliError::from(error);
    let document = Refused { report, error: &error.message, remedy: error.remedy.as_ref() };
    match print(out, schema, &document, &report.to_string()) {
        Ok(()) if out.is_json() => CliError::told(error.exit),
        Ok(()) => error,
        Err(unprinted) => unprinted,
    }
}

/// Prints a report as JSON or text. What comes out of the author's files is cleaned line by line: a terminal must not obey it.
pub(super) fn print(out: &Output, schema: &str, report: &impl Serialize, text: &str) -> Result<(), CliError> {
    if out.is_json() { out.json(schema, report) } else { out.text(&text.lines().map(|line| format!("{}\n", clean(line))).collect::<String>()) }
}

impl From<PublishError> for CliError {
    fn from(error: PublishError) -> Self {
        if let PublishError::Sign(error) = error {
            // Keys have codes of their own.
            return error.into();
        }
        let exit = match &error {
            PublishError::Rehearsal(RehearsalError::Failed { .. } | RehearsalError::Seed { .. }) => ExitCode::MigrationFailed,
            PublishError::NoKey | PublishError::Unsigned { .. } => ExitCode::NotPermitted,
            PublishError::Upload(UploadError::Transport(error)) => match error.status() {
                Some(401 | 403) => ExitCode::NotPermitted,
                Some(_) | None => transport_exit(error),
            },
            PublishError::Listing(_) | PublishError::Layout(_) | PublishError::BadName(_) | PublishError::OthersDirectory { .. } => ExitCode::Usage,
            PublishError::Findings { .. }
            | PublishError::Revise(_)
            | PublishError::Rehearsal(_)
            | PublishError::Upload(
                UploadError::Compare(
                    CompareError::Trust(_)
                    | CompareError::Lacks { .. }
                    | CompareError::Order { .. }
                    | CompareError::Changed { .. }
                    | CompareError::NotPublished { .. }
                    | CompareError::Older { .. }
                    | CompareError::Rows { .. }
                    | CompareError::TooLong { .. },
                )
                | UploadError::TooMuchAtOnce { .. },
            )
            | PublishError::NoRoot { .. }
            | PublishError::Write { .. }
            | PublishError::Sign(_)
            | PublishError::SetUp(_) => ExitCode::Failed,
        };
        Self::new(exit, error.to_string(), error.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{publish::listing::ListingError, transport::TransportError};

    #[test]
    fn each_error_of_a_publisher_has_its_exit_code() {
        let check = |error: PublishError, exit| assert_eq!(CliError::from(error).exit, exit);
        let upload = |error| PublishError::Upload(UploadError::Transport(error));
        check(PublishError::Findings { errors: 1 }, ExitCode::Failed);
        check(PublishError::NoKey, ExitCode::NotPermitted);
        check(ListingError::NotText { file: "a".into() }.into(), ExitCode::Usage);
        check(upload(TransportError::Unreachable { url: "x".into(), why: "y".into() }), ExitCode::ServerUnreachable);
        check(upload(TransportError::SetUp("x".into())), ExitCode::Configuration);
        check(RehearsalError::Seed { name: "1_a".parse().unwrap(), what: "x".into() }.into(), ExitCode::MigrationFailed);
    }

    #[test]
    fn the_help_names_every_layout_that_is_read() {
        let help = <Args as clap::Args>::augment_args(clap::Command::new("lint")).render_long_help().to_string().to_lowercase().replace('\n', " ");
        for layout in Layout::ALL {
            let name = layout.name().replace("seed-json", "json");
            assert!(help.contains(&name), "{name}");
        }
    }
}
