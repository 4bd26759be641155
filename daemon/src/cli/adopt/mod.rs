//! `whimbrel adopt`: take over what another tool did before, in a database or in a queue.

mod databases;
mod queue;

use super::{error::CliError, output::Output};
use crate::{
    control::protocol::PersonOrder,
    migrate::adopt::queue::{Columns, Place},
};

/// Take over a database with a past, or the seed systems' queue
///
/// A database that another tool migrated is taken over without running anything again: what that tool's own table says is in
/// place, or what the schema shows, becomes the beginning of whimbrel's history. The tool's table is read and never changed.
/// With --kv, the tasks of a seed system's queue move from its old layout to its new one. docs/adopt.md tells both.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(Status),
    Run(Run),
    Rollback(Rollback),
    Finish(Finish),
}

/// Show what there is to take over, and write nothing
///
/// For each database: the trackers of other tools that it has, at which version of the accepted chain it would be taken over
/// and what says so, or why it would not be. With --kv: how many tasks and leases are in which layout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown
  1   no such database or store
  69  the daemon is not running (not with --kv)")]
struct Status {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    #[arg(conflicts_with = "kv")]
    database: Option<String>,
    /// List the ids of the queue's tasks, whichever layout they are in, in their order
    #[arg(long, requires = "kv")]
    tasks: bool,
    #[command(flatten)]
    kv: Kv,
}

/// Take it over
///
/// A database: every migration up to the version that its tracker or its schema shows is recorded as in place, in one
/// transaction; then the plan goes on from there. It is refused, with nothing written, if the tracker is dirty or locked, if
/// it does not fit the accepted chain, or if the schema is not what the chain leaves at that version. With --kv: every task
/// and lease is written in the new layout, verified, and only then removed from the old one; one that fails is named and
/// stays, and the rest goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   taken over, or nothing to take over
  1   refused, or some entries of the queue could not be moved; the output says which and why
  2   the command line is wrong
  69  the daemon is not running (not with --kv)

Examples:
  whimbrel adopt run                                    every database that has a past
  whimbrel adopt run notes.db --version 0007_add_tags   a person says what is in place
  whimbrel adopt run --kv sqlite:cache.db --table kv --key-column key --value-column value")]
struct Run {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    #[arg(conflicts_with = "kv")]
    database: Option<String>,
    /// Name or version of the last migration that is in place, whatever a tracker says; 0: none of the chain is
    #[arg(long, value_name = "VERSION", conflicts_with = "kv")]
    version: Option<String>,
    /// Take it over although its schema differs from that version's. Migrations wait until the objects are mended
    #[arg(long, requires = "version")]
    accept_drift: bool,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long, conflicts_with = "kv")]
    no_wait: bool,
    #[command(flatten)]
    kv: Kv,
}

/// Take it back
///
/// A database: what `adopt run` recorded is forgotten, if no migration ran on top, and the database is held. With --kv: every
/// task and lease goes back to the old layout, those that came since too, each written and verified before it is removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   as it was before
  1   refused, or some entries of the queue could not be moved back; the output says which and why
  2   the command line is wrong
  69  the daemon is not running (not with --kv)")]
struct Rollback {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    #[arg(conflicts_with = "kv")]
    database: Option<String>,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long, conflicts_with = "kv")]
    no_wait: bool,
    #[command(flatten)]
    kv: Kv,
}

/// End the time of two layouts of a queue: there is no rollback any more
///
/// Refused while a task or lease is still in the old layout. A database needs no finish.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   the old layout is gone
  1   something is still in the old layout; nothing was changed
  2   the command line is wrong")]
struct Finish {
    #[command(flatten)]
    kv: Kv,
}

/// A queue's key-value store.
#[derive(Debug, clap::Args)]
struct Kv {
    /// The key-value store of a queue: sqlite:PATH, or json:PATH for a dump
    #[arg(long, value_name = "STORE")]
    kv: Option<Place>,
    /// Its table, in SQLite
    #[arg(long, value_name = "TABLE", default_value = "kv", requires = "kv")]
    table: String,
    /// The column with the keys
    #[arg(long, value_name = "COLUMN", default_value = "key", requires = "kv")]
    key_column: String,
    /// The column with the values
    #[arg(long, value_name = "COLUMN", default_value = "value", requires = "kv")]
    value_column: String,
}

impl Kv {
    fn named(self) -> Option<(Place, Columns)> {
        let columns = Columns { table: self.table, key: self.key_column, value: self.value_column };
        self.kv.map(|place| (place, columns))
    }
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    match args.command {
        Command::Status(Status { database, tasks, kv }) => match kv.named() {
            Some((place, columns)) if tasks => queue::tasks(&place, &columns, out),
            Some((place, columns)) => queue::status(&place, &columns, out),
            None => databases::status(database, out),
        },
        Command::Run(Run { database, version, accept_drift, no_wait, kv }) => match kv.named() {
            Some((place, columns)) => queue::run(&place, &columns, out),
            None => databases::order(database.as_deref(), PersonOrder::Adopt { version, accept_drift }, no_wait, out),
        },
        Command::Rollback(Rollback { database, no_wait, kv }) => match kv.named() {
            Some((place, columns)) => queue::rollback(&place, &columns, out),
            None => databases::order(database.as_deref(), PersonOrder::GiveBack, no_wait, out),
        },
        Command::Finish(Finish { kv }) => match kv.named() {
            Some((place, columns)) => queue::finish(&place, &columns, out),
            None => Err(CliError::usage("only the move of a queue is finished", "name its store: --kv sqlite:PATH or --kv json:PATH")),
        },
    }
}
