//! `whimbrel detach`: leave a file as if whimbrel had never been there.

use super::{
    error::{CliError, ExitCode},
    look::{clean, count},
    output::Output,
    rows,
};
use crate::control::protocol::{Detached, PersonOrder, RowsDone};

/// `schema` of `whimbrel detach --json`.
pub(super) const DETACH_SCHEMA: &str = "whimbrel.detach/1";

/// Leave a database: send what waits, and remove everything of whimbrel's from the file
///
/// The application may have it open. What could not be sent (the server does not answer, a conflict is open) and what is in
/// quarantine and in the archive is written to a JSON file beside the database first. The daemon leaves the file alone from
/// then on; remove it from the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   left; the output names the file with what was not exchanged, if there was anything
  1   refused or failed; the file is as it was, and the remedy says what to do
  69  the daemon is not running")]
pub struct Args {
    /// Path, file name or beginning of the client id of the database
    database: String,
    /// Keep what says which migrations were applied, so that it can be taken up again later
    #[arg(long)]
    keep_history: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let order = PersonOrder::Detach { keep_history: args.keep_history };
    rows::carry_out(out, Some(&args.database), order, DETACH_SCHEMA, human, |_| ExitCode::Done)
}

fn human(rows: &[RowsDone]) -> String {
    rows.iter().filter_map(|r| Some(one(&clean(&r.database.to_string_lossy()), r.detached.as_ref()?))).collect()
}

fn one(database: &str, gone: &Detached) -> String {
    let mut lines = vec![format!("{database}: {} removed", count(gone.objects as u64, "object"))];
    if let Some(file) = &gone.file {
        let left = gone.left;
        let parts = [
            (left.unsent, "row", "not sent"),
            (left.conflicts, "conflict", "not decided"),
            (left.quarantined, "row", "in quarantine"),
            (left.archived, "value", "from the archive"),
        ];
        let parts: Vec<String> = parts.iter().filter(|(n, ..)| *n > 0).map(|(n, noun, what)| format!("{} {what}", count(*n, noun))).collect();
        lines.push(format!("  {}: {}", clean(&file.to_string_lossy()), parts.join(", ")));
    }
    lines.push(format!("  remove it from the configuration: the `[[database]]` whose path is, or matches, {database}"));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn what_was_left_is_said_with_what_to_remove() {
        golden::check("detach.txt", &human(&fixture::detached()));
        golden::check("detach.json", &document(DETACH_SCHEMA, &rows::Done { databases: &fixture::detached(), errors: &[] }).unwrap());
    }
}
