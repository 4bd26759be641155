//! `whimbrel revert`: undo migrations, newest first. It asks before it does, for it can lose what the newer schema held.

use std::io::{self, BufRead, Write};

use super::{
    error::{CliError, ExitCode},
    look::clean,
    order::{self, Placed},
    output::Output,
    select, status,
    summary::{self, Moved, SUMMARY_SCHEMA},
};
use crate::control::protocol::{DatabaseView, PersonOrder, Snapshot, Summary, SummaryError};

/// Revert a migration and all after it, then hold the database
///
/// Runs the migrations' down steps, newest first, each in one transaction. What only the newer schema could hold may be
/// lost: it asks first. Afterwards the database is held, or the server's plan would apply them again: `whimbrel release`
/// lets it go on.
#[derive(Debug, clap::Args)]
#[command(override_usage = "whimbrel revert [OPTIONS] <MIGRATION>\n       whimbrel revert [OPTIONS] --to <VERSION>")]
#[command(after_help = "Exit codes:
  0   reverted
  1   not confirmed, or nothing to revert
  2   there is no terminal to ask at and --yes is missing
  3   something waits; the output says for what and what to do
  4   a down step failed or there is none; the database is as it was before that step
  69  the daemon is not running")]
pub struct Args {
    /// Name of the oldest migration that is to go
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    migration: Option<String>,
    /// The version to stay at; 0 reverts all
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    /// Path, file name or beginning of the client id of a database; all of them if left out
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long)]
    no_wait: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    if !args.yes {
        confirm(&args, out)?;
    }
    let revert = PersonOrder::Revert { migration: args.migration, to: args.to };
    let placed = order::place(out, args.database.as_deref(), revert, !args.no_wait)?;
    match placed {
        Placed::Kept(_) => order::report(out, &placed),
        Placed::Finished(summary, moved) => {
            let exit = exit(&summary, &moved);
            if out.is_json() {
                out.json(SUMMARY_SCHEMA, &summary)?;
            } else {
                // No sum: "at its planned version" is what these are not any more.
                out.text(&summary::each(summary.errors.iter().filter(|e| !is_held_now(e, &moved)), &moved, &out.look()))?;
            }
            match (moved.is_empty(), summary.errors.is_empty()) {
                (false, _) => out.say("held where it is now; `whimbrel release` lets the plan go on"),
                (true, true) => out.say("no version that was in place was to be reverted; held all the same: `whimbrel release` lets the plan go on"),
                (true, false) => {}
            }
            if exit == ExitCode::Done { Ok(()) } else { Err(CliError::told(exit)) }
        }
    }
}

/// A database that went back waits for its plan from then on: that is what was asked for.
fn is_held_now(error: &SummaryError, moved: &[Moved]) -> bool {
    error.waiting && moved.iter().any(|m| m.path == error.database)
}

fn exit(summary: &Summary, moved: &[Moved]) -> ExitCode {
    match (summary.failed, summary.errors.iter().any(|e| e.waiting && !is_held_now(e, moved))) {
        (0, false) => ExitCode::Done,
        (0, true) => ExitCode::Waiting,
        (_, _) => ExitCode::MigrationFailed,
    }
}

fn confirm(args: &Args, out: &Output) -> Result<(), CliError> {
    if !out.can_ask() {
        return Err(CliError::usage("a revert is confirmed by a person, and there is no terminal to ask at", "add --yes"));
    }
    let snapshot = status::ask(&mut out.daemon()?)?;
    let what = would_revert(&snapshot, args);
    if what.is_empty() {
        return Err(CliError::failed(
            "nothing to revert: no database that is meant has this in place",
            whimbrel_shared::remedy::here("look at `whimbrel status --json`"),
        ));
    }
    let mut terminal = io::stderr().lock();
    let question = format!("{}\nWhat only the newer schema could hold may be lost. Revert? [y/N] ", what.join("\n"));
    let asked = terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush());
    let mut answer = String::new();
    let heard = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    match heard {
        Ok(_) if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") => Ok(()),
        Ok(_) | Err(_) => {
            out.say("nothing was reverted");
            Err(CliError::told(ExitCode::Failed))
        }
    }
}

/// One line per database that would change.
fn would_revert(snapshot: &Snapshot, args: &Args) -> Vec<String> {
    let meant = select::selector(args.database.as_deref()).0;
    let line = |d: &DatabaseView| {
        let stay = match (&args.migration, args.to) {
            (Some(name), _) => d.migrations.iter().find(|m| m.name.as_str() == name || m.version.to_string() == *name)?.version.saturating_sub(1),
            (None, to) => to.unwrap_or_default(),
        };
        // What stands half-way is above everything in place, and goes too.
        let half = d.half_done.as_ref().map(|half| half.version);
        let goes = |version: u32, in_place: bool| version > stay && (version <= d.version && in_place || Some(version) == half);
        let going = d.migrations.iter().rev().filter(|m| goes(m.version, m.status.is_in_place()));
        let names: Vec<&str> = going.map(|m| m.name.as_str()).collect();
        (!names.is_empty()).then(|| format!("{}: version {} → {stay}, reverting {}", clean(&d.path.to_string_lossy()), d.version, names.join(", ")))
    };
    snapshot.databases.iter().filter(|d| select::means(meant.as_deref(), d)).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    #[test]
    fn the_question_names_every_database_and_migration_that_would_go() {
        let args = |migration: Option<&str>, to, database: Option<&str>| Args {
            migration: migration.map(str::to_owned),
            to,
            database: database.map(str::to_owned),
            yes: false,
            no_wait: false,
        };
        let snapshot = fixture::snapshot();
        let asked = would_revert(&snapshot, &args(Some("0004_tags"), None, None));
        assert_eq!(asked[0], "/var/lib/notes/a.db: version 5 → 3, reverting 0005_index, 0004_tags");
        assert_eq!(asked.len(), 3, "{asked:?}"); // a, d and e have it; b and c have not
        assert_eq!(would_revert(&snapshot, &args(None, Some(3), Some("d.db"))), ["/var/lib/notes/d.db: version 4 → 3, reverting 0004_tags"]);
        assert!(would_revert(&snapshot, &args(Some("0009_none"), None, None)).is_empty());
    }

    #[test]
    fn a_database_that_went_back_is_done_and_one_that_could_not_yet_waits() {
        let summary = |failed| Summary { failed, ..fixture::summary() };
        let d_went_back = [Moved { path: "/var/lib/notes/d.db".into(), from: 5, to: 4 }];
        assert_eq!(exit(&summary(0), &d_went_back), ExitCode::Done);
        assert_eq!(exit(&summary(0), &[]), ExitCode::Waiting);
        assert_eq!(exit(&summary(1), &d_went_back), ExitCode::MigrationFailed);
    }
}
