//! `whimbrel sync`: exchange rows now, and prove that both sides hold the same.

use super::{
    error::{CliError, ExitCode},
    look::{Look, clean, count},
    output::Output,
    rows,
};
use crate::{
    control::protocol::{PersonOrder, RowsDone, RowsMoved},
    sync::verify::VerifiedTable,
};

/// `schema` of `whimbrel sync --json`.
pub(super) const SYNC_SCHEMA: &str = "whimbrel.sync/1";

/// Exchange rows with the server now
///
/// The daemon does it by itself within seconds of a write, and whenever it looks at the server; this asks for it, waits, and
/// says what moved. Migrations that may run now run before it, as ever.
///
/// With --verify both sides are summed after it, table by table and column by column, and compared: what differs is named.
/// Nothing of the rows travels for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   exchanged; with --verify: and equal
  1   refused or failed, or with --verify: something differs, or cannot be compared now; the output says what
  69  the daemon is not running
  75  the server does not answer; what waits is kept and goes with the next exchange")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Compare both sides after it
    #[arg(long)]
    verify: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let order = PersonOrder::Exchange { verify: args.verify };
    let look = out.look();
    let code = |rows: &[RowsDone]| {
        if rows.iter().flat_map(|r| r.compared.iter().flatten()).all(VerifiedTable::is_equal) { ExitCode::Done } else { ExitCode::Failed }
    };
    rows::carry_out(out, args.database.as_deref(), order, SYNC_SCHEMA, |rows| human(rows, &look), code)
}

fn human(rows: &[RowsDone], look: &Look) -> String {
    let mut lines = Vec::new();
    for done in rows {
        let database = clean(&done.database.to_string_lossy());
        if let Some(moved) = &done.exchanged {
            lines.push(format!("{}: {}", look.bold(&database), said(moved)));
        }
        for table in done.compared.iter().flatten() {
            lines.extend(compared(table, look));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What moved, in words: `3 rows up (1 waits for a decision), 2 rows down`.
pub(super) fn said(moved: &RowsMoved) -> String {
    if (moved.pushed, moved.landed) == (0, 0) {
        return "nothing to exchange".to_owned();
    }
    let mut notes = Vec::new();
    if moved.merged > 0 {
        notes.push(format!("{} met another's edit", moved.merged));
    }
    if moved.open > 0 {
        notes.push(format!("{} {} for a decision", moved.open, if moved.open == 1 { "waits" } else { "wait" }));
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    let anew = if moved.anew { "; everything was told anew" } else { "" };
    format!("{} up{notes}, {} down{anew}", count(moved.pushed, "row"), count(moved.landed, "row"))
}

fn compared(table: &VerifiedTable, look: &Look) -> Vec<String> {
    let name = clean(&table.name);
    let (here, there) = table.rows;
    let mut lines = Vec::new();
    if table.is_equal() {
        lines.push(format!("  {name}: equal, {}", count(here, "row")));
    }
    if !table.keys {
        let what = if here == there { "not the same rows".to_owned() } else { format!("{here} here, {there} at the server") };
        lines.push(format!("  {name}: {} {what}; `whimbrel quarantine list` shows those that could not land", look.red("differs:")));
    }
    if !table.differs.is_empty() {
        lines.push(format!("  {name}: {} in {}", look.red("differs:"), clean(&table.differs.join(", "))));
    }
    if !table.unsaid.is_empty() {
        lines.push(format!("  {name}: {} not compared: older rows never said a value there", clean(&table.unsaid.join(", "))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn what_moved_and_what_differs_is_said_in_lines() {
        golden::check("sync.txt", &human(&fixture::synced(), &fixture::look()));
        assert_eq!(said(&RowsMoved::default()), "nothing to exchange");
    }

    #[test]
    fn json_is_what_moved_and_how_both_sides_compare() {
        let errors = fixture::offline_rows();
        golden::check("sync.json", &document(SYNC_SCHEMA, &rows::Done { databases: &fixture::synced(), errors: &errors }).unwrap());
    }
}
