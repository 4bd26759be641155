//! `whimbrel history`: what happened, newest first.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use whimbrel_shared::{
    ids::ClientId,
    status::{AskedBy, Event, EventKind, Operation},
};

use super::{
    error::CliError,
    failed_items,
    look::{Look, Table, cell, clean, length},
    output::Output,
    status,
};
use crate::control::{
    client::unexpected,
    protocol::{Reply, Request, Selector, Snapshot},
};

/// `schema` of `whimbrel history --json`.
pub const HISTORY_SCHEMA: &str = "whimbrel.history/1";

/// Show what happened to the databases, newest first
///
/// Every start, completion, failure, crash, retry and revert of a migration, with who asked for it: the server's plan, a
/// person at this device, or the daemon itself picking up after a crash.
///
/// With --failed-items, the rows instead that steps with `on_error = "collect"` went on without: which row, what SQLite said
/// and the row itself. They are read from the database and stay on this machine. `whimbrel retry --failed-items` tries them
/// again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown
  1   no such database
  69  the daemon is not running")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Show the rows that steps left out, oldest first
    #[arg(long)]
    failed_items: bool,
    /// At most so many events or rows
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct History<'a> {
    /// Newest first.
    events: &'a [Event],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    if args.failed_items {
        return failed_items::run(args.database.as_deref(), args.limit, out);
    }
    let mut daemon = out.daemon()?;
    let events = match daemon.ask(&Request::History { database: Selector(args.database), limit: args.limit })? {
        Reply::History { events } => events,
        other => return Err(unexpected(&other).into()),
    };
    if out.is_json() {
        return out.json(HISTORY_SCHEMA, &History { events: &events });
    }
    let names = Names::of(&status::ask(&mut out.daemon()?)?);
    out.text(&human(&events, &names, &out.look()))
}

/// File names by client id: events travel, so they carry no paths.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<ClientId, String>);

impl Names {
    /// Of the databases that are there.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self(snapshot.databases.iter().filter_map(|d| Some((d.client_id?, file_name(&d.path)))).collect())
    }

    /// The file's name, or the beginning of the client id of a file that is gone.
    pub(super) fn get(&self, client: ClientId) -> String {
        self.0.get(&client).cloned().unwrap_or_else(|| client.to_string()[..8].to_owned())
    }
}

/// The last part of a path.
pub(super) fn file_name(path: &Path) -> String {
    clean(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

fn human(events: &[Event], names: &Names, look: &Look) -> String {
    if events.is_empty() {
        return "nothing has happened yet\n".to_owned();
    }
    let mut table = Table::new(["WHEN", "DATABASE", "MIGRATION", "WHAT", "TRY", "TOOK", "ASKED BY"]);
    for e in events {
        let what = what(e);
        table.row([
            cell(look.moment(e.at_ms)),
            cell(names.get(e.client_id)),
            cell(e.migration.as_str()),
            (what.clone(), Some(if e.failure.is_some() { look.red(&what) } else { what })),
            cell(e.attempt.to_string()),
            cell(e.took_ms.map_or_else(|| "-".to_owned(), length)),
            cell(asked_by(e.by)),
        ]);
    }
    let mut lines = table.lines(look).into_iter();
    let mut text: Vec<String> = lines.next().into_iter().collect();
    for (e, line) in events.iter().zip(lines) {
        text.push(line);
        text.extend(told(e).map(|told| look.labelled(2, "rows:", &look.dim("rows:"), &told)));
        if e.verify_skipped {
            text.push(look.labelled(2, "verify:", &look.bold("verify:"), "left out, as a person asked"));
        }
        if let Some(f) = &e.failure {
            let label = format!("{}:", clean(&f.code));
            text.push(look.labelled(2, &label, &look.red(&label), &f.message));
            text.push(look.remedy(4, &f.remedy));
        }
    }
    text.join("\n") + "\n"
}

/// What became of rows: `1200 changed, 300 needed nothing, 3 left out (2 with code 1299, 1 with code 2067)`.
fn told(event: &Event) -> Option<String> {
    let rows = event.rows.as_ref()?;
    let mut text = format!("{} changed, {} needed nothing, {} left out", rows.changed, rows.skipped, rows.failed);
    if event.kind == EventKind::Retried {
        text = format!("{} done, {} left", rows.changed, rows.failed);
    }
    if !rows.codes.is_empty() {
        let codes: Vec<String> = rows.codes.iter().map(|c| format!("{} with code {}", c.rows, c.code)).collect();
        text.push_str(&format!(" ({})", codes.join(", ")));
    }
    if let Some(at) = &rows.at {
        text.push_str(&format!("; it stands at {}", status::place(at)));
    }
    Some(text)
}

/// `failed`, or `revert failed` where it was the other way.
pub(super) fn what(event: &Event) -> String {
    match (event.operation, event.kind) {
        (Operation::Apply, kind) | (Operation::Revert, kind @ EventKind::Reverted) => kind.as_str().to_owned(),
        (Operation::Revert, kind) => format!("revert {}", kind.as_str()),
    }
}

/// Who asked.
pub(super) fn asked_by(by: AskedBy) -> &'static str {
    match by {
        AskedBy::Plan => "the plan",
        AskedBy::Person => "a person",
        AskedBy::Recovery => "recovery",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn the_history_of_a_migration_that_crashed_was_retried_and_failed() {
        golden::check("history.txt", &human(&fixture::events(), &Names::of(&fixture::snapshot()), &fixture::look()));
        assert_eq!(human(&[], &Names::default(), &fixture::look()), "nothing has happened yet\n");
    }

    #[test]
    fn what_became_of_rows_is_told_below_the_event() {
        let mut event = fixture::events().swap_remove(1);
        (event.kind, event.rows, event.verify_skipped) = (EventKind::Completed, Some(fixture::rows()), true);
        let mut again = event.clone();
        (again.kind, again.verify_skipped) = (EventKind::Retried, false);
        golden::check("history-rows.txt", &human(&[event, again], &Names::default(), &fixture::look()));
    }

    #[test]
    fn json_is_the_list_of_events() {
        golden::check("history.json", &document(HISTORY_SCHEMA, &History { events: &fixture::events() }).unwrap());
    }

    #[test]
    fn an_event_of_a_file_that_is_gone_shows_the_beginning_of_its_id() {
        let gone = ClientId::from_dice(u128::MAX);
        assert_eq!(Names::default().get(gone), gone.to_string()[..8]);
    }
}
