//! `whimbrel retry`: clear a failure and try again.

use super::{error::CliError, order, output::Output};
use crate::control::protocol::PersonOrder;

/// Clear a failure and try the migration again
///
/// For a failure that stopped a chain and waits for a person: when what was in its way is gone. Transient failures (a busy
/// file, a full disk) are tried again by themselves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   every database is at its planned version
  3   something waits; the output says for what and what to do
  4   a migration failed again
  69  the daemon is not running")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long)]
    no_wait: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let placed = order::place(out, args.database.as_deref(), PersonOrder::Retry, !args.no_wait)?;
    order::report(out, &placed)
}
