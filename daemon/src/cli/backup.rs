//! `whimbrel backup`: whole copies of a database, made while the application goes on, and the way back to one.

use clap::Subcommand;
use serde::Serialize;

use super::{
    error::{CliError, ExitCode},
    look::{Look, Table, cell, clean, count, size},
    order::{self, Placed},
    output::Output,
    select, summary,
};
use crate::{
    control::{
        client::unexpected,
        protocol::{BackupView, PersonOrder, Reply, Request, Summary},
    },
    migrate::backup::Reason,
};

/// `schema` of `whimbrel backup list --json` and of `create`.
pub const BACKUPS_SCHEMA: &str = "whimbrel.backups/1";
/// `schema` of `whimbrel backup restore --json`.
pub const RESTORE_SCHEMA: &str = "whimbrel.restore/1";

/// Make, list and restore backups of the databases
///
/// A backup is a whole copy of a database as one plain SQLite file, made while the application goes on and checked before
/// it counts. The daemon makes one by itself before a migration that is destructive or asks for it. The newest of each
/// database are kept: `keep` and `dir` of `[backup]` in the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Restore(Restore),
}

/// Make a backup now
///
/// The application goes on writing; the backup shows the one moment at which it was begun. (In rollback-journal mode SQLite
/// has no such moments: there the application's writes wait until it is done.)
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   made
  1   it could not be made, or there is no such database; nothing is left behind
  69  the daemon is not running")]
struct Create {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long)]
    no_wait: bool,
}

/// List the backups, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown, also if there are none
  1   no such database
  69  the daemon is not running")]
struct List {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
}

/// Go back to a backup, then hold the database
///
/// The backup is written into the live file in one transaction: the application may keep it open, and sees the rows of the
/// backup from its next read on. It goes back only if it is certain that nobody but whimbrel has written since the backup;
/// else it says what would be lost and changes nothing, and --discard-newer goes back all the same. Afterwards the
/// database is held, or the server's plan would lead it forward again: `whimbrel release` lets it go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   gone back
  1   refused or failed; the database is as it was, and the output says what to do
  69  the daemon is not running")]
struct Restore {
    /// Path, file name or beginning of the client id of a database
    database: String,
    /// Which backup, by the id that `whimbrel backup list` shows [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Go back even if rows that came after the backup are lost
    #[arg(long)]
    discard_newer: bool,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long)]
    no_wait: bool,
}

/// What `create` and `list` print.
#[derive(Debug, Serialize)]
struct Backups<'a> {
    backups: &'a [BackupView],
}

/// What `restore` prints.
#[derive(Debug, Serialize)]
struct Restored<'a> {
    restored: bool,
    errors: &'a [crate::control::protocol::SummaryError],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    match args.command {
        Command::Create(args) => create(args, out),
        Command::List(args) => list(args, out),
        Command::Restore(args) => restore(args, out),
    }
}

fn create(args: Create, out: &Output) -> Result<(), CliError> {
    let before = ask(out, args.database.as_deref())?;
    let placed = order::place(out, args.database.as_deref(), PersonOrder::Backup, !args.no_wait)?;
    let Placed::Finished(summary, _) = &placed else { return order::report(out, &placed) };
    let mut made = ask(out, args.database.as_deref())?;
    made.retain(|b| !before.contains(b));
    if out.is_json() {
        out.json(BACKUPS_SCHEMA, &Backups { backups: &made })?;
    } else {
        out.text(&human(&made, &out.look()))?;
    }
    ended(out, summary)
}

fn list(args: List, out: &Output) -> Result<(), CliError> {
    let backups = ask(out, args.database.as_deref())?;
    if out.is_json() {
        return out.json(BACKUPS_SCHEMA, &Backups { backups: &backups });
    }
    if backups.is_empty() {
        out.say("no backup yet; `whimbrel backup create` makes one");
    }
    out.text(&human(&backups, &out.look()))
}

fn restore(args: Restore, out: &Output) -> Result<(), CliError> {
    let order = PersonOrder::Restore { backup: args.backup, discard_newer: args.discard_newer };
    let placed = order::place(out, Some(&args.database), order, !args.no_wait)?;
    let Placed::Finished(summary, moved) = &placed else { return order::report(out, &placed) };
    let well = summary.failed == 0;
    if out.is_json() {
        out.json(RESTORE_SCHEMA, &Restored { restored: well, errors: &summary.errors })?;
    } else if well {
        out.text(&summary::each(std::iter::empty(), moved, &out.look()))?;
        out.say("gone back to the backup, and held there; `whimbrel release` lets the plan go on");
    }
    ended(out, summary)
}

fn ask(out: &Output, database: Option<&str>) -> Result<Vec<BackupView>, CliError> {
    match out.daemon()?.ask(&Request::Backups { database: select::selector(database) })? {
        Reply::Backups { backups } => Ok(backups),
        other => Err(unexpected(&other).into()),
    }
}

/// What went wrong goes to stderr, first the reason and then the remedy, and is a failure.
fn ended(out: &Output, summary: &Summary) -> Result<(), CliError> {
    match summary.errors.first() {
        None => Ok(()),
        Some(_) if out.is_json() => Err(CliError::told(ExitCode::Failed)),
        Some(first) => Err(CliError::failed(format!("{}: {}", clean(&first.database.to_string_lossy()), first.message), first.remedy.clone())),
    }
}

fn human(backups: &[BackupView], look: &Look) -> String {
    if backups.is_empty() {
        return String::new();
    }
    let mut table = Table::of_paths(["DATABASE", "BACKUP", "VERSION", "TAKEN", "SIZE", "WHY"]);
    for b in backups {
        table.row([
            cell(b.database.to_string_lossy()),
            cell(b.backup.of.backup_id.as_str()),
            cell(b.backup.of.version.to_string()),
            cell(look.ago(b.backup.of.taken_at_ms)),
            cell(size(b.backup.size_bytes)),
            cell(why(b.backup.of.reason)),
        ]);
    }
    let mut lines = table.lines(look);
    lines.push(format!("{} in {}", count(backups.len() as u64, "backup"), places(backups)));
    lines.join("\n") + "\n"
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::BeforeApply => "before applying",
        Reason::BeforeRevert => "before reverting",
        Reason::Person => "asked for",
    }
}

/// The directories that they lie in.
fn places(backups: &[BackupView]) -> String {
    let mut places: Vec<String> = backups.iter().filter_map(|b| b.backup.path.parent()).map(|p| clean(&p.to_string_lossy())).collect();
    places.sort();
    places.dedup();
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn a_list_of_backups_says_what_each_is_of() {
        golden::check("backups.txt", &human(&fixture::backups(), &fixture::look()));
    }

    #[test]
    fn json_is_the_list_of_backups() {
        golden::check("backups.json", &document(BACKUPS_SCHEMA, &Backups { backups: &fixture::backups() }).unwrap());
    }

    #[test]
    fn json_of_a_restore_says_whether_it_went_back_and_why_not() {
        let errors = fixture::refused_restore();
        golden::check("restore.json", &document(RESTORE_SCHEMA, &Restored { restored: false, errors: &errors }).unwrap());
    }
}
