//! `whimbrel retry`: clear a failure and try again, or try the rows again that a step left out.

use super::{error::CliError, order, output::Output};
use crate::control::protocol::PersonOrder;

/// Clear a failure and try the migration again
///
/// For a failure that stopped a chain and waits for a person: when what was in its way is gone. Transient failures (a busy
/// file, a full disk) are tried again by themselves.
///
/// With --failed-items nothing is cleared: the rows that a step with `on_error = "collect"` left out are tried again, alone.
/// Those that succeed leave the list that `whimbrel history --failed-items` shows; the others stay in it with their new
/// error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   every database is at its planned version; with --failed-items: no row is left
  3   something waits; the output says for what and what to do
  4   a migration failed again
  69  the daemon is not running")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Try the rows again that steps left out, and nothing else
    #[arg(long)]
    failed_items: bool,
    /// Print the request's id and do not wait; `whimbrel wait --request ID` waits for it later
    #[arg(long)]
    no_wait: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let order = if args.failed_items { PersonOrder::RetryItems } else { PersonOrder::Retry };
    let placed = order::place(out, args.database.as_deref(), order, !args.no_wait)?;
    order::report(out, &placed)
}
