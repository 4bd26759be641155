//! `whimbrel apply`: apply what is pending now.

use super::{error::CliError, order, output::Output};
use crate::control::protocol::PersonOrder;

/// Apply what is pending now, without waiting for the schedule or the maintenance window
///
/// Up to MIGRATION, or all that the server's plan allows. The order is kept by the daemon before anything is done, so it is
/// carried out even after a restart. Interrupting this command stops the display and not the work.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   every database is at its planned version
  3   something waits; the output says for what and what to do
  4   a migration failed; its database is as it was before that migration
  69  the daemon is not running")]
pub struct Args {
    /// Name or version of the last migration to apply
    migration: Option<String>,
    /// Path, file name or beginning of the client id of a database; all of them if left out
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Leave `verify` steps out, also of a migration that failed: for a check that is wrong and data that is right. It is
    /// written into the history and reported
    #[arg(long)]
    skip_verify: bool,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long)]
    no_wait: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let order = PersonOrder::Apply { to: args.migration, skip_verify: args.skip_verify };
    let placed = order::place(out, args.database.as_deref(), order, !args.no_wait)?;
    order::report(out, &placed)
}
