//! `whimbrel release`: end a hold.

use serde::Serialize;

use super::{error::CliError, order, output::Output};
use crate::control::protocol::PersonOrder;

/// `schema` of what `release` prints.
pub const RELEASE_SCHEMA: &str = "whimbrel.release/1";

/// End a hold: the plan goes on
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   released, whether or not it was held
  1   no such database
  69  the daemon is not running")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Released {}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    // What goes on now may take hours, and is not what was asked for.
    order::place(out, args.database.as_deref(), PersonOrder::Release, false)?;
    if out.is_json() { out.json(RELEASE_SCHEMA, &Released {}) } else { out.text("released\n") }
}
