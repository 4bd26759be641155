//! Databases with a past: the daemon looks, and the daemon takes over.

use serde::Serialize;

use crate::cli::{
    error::{CliError, ExitCode},
    look::{Look, clean},
    order::{self, Placed},
    output::Output,
    select,
    status::health_lines,
    summary::{self, SUMMARY_SCHEMA},
};
use crate::control::{
    client::unexpected,
    protocol::{AdoptView, PersonOrder, Reply, Request, TrackerView},
};

/// `schema` of `whimbrel adopt status --json`.
const ADOPT_SCHEMA: &str = "whimbrel.adopt/1";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Databases<'a> {
    /// One each.
    databases: &'a [AdoptView],
}

pub(super) fn status(database: Option<String>, out: &Output) -> Result<(), CliError> {
    let databases = match out.daemon()?.ask(&Request::Adopt { database: select::selector(database.as_deref()) })? {
        Reply::Adopt { databases } => databases,
        other => return Err(unexpected(&other).into()),
    };
    if out.is_json() { out.json(ADOPT_SCHEMA, &Databases { databases: &databases }) } else { out.text(&human(&databases, &out.look())) }
}

pub(super) fn order(database: Option<&str>, order: PersonOrder, no_wait: bool, out: &Output) -> Result<(), CliError> {
    let back = order == PersonOrder::GiveBack;
    let placed = order::place(out, database, order, !no_wait)?;
    let Placed::Finished(summary, moved) = &placed else { return order::report(out, &placed) };
    if out.is_json() {
        out.json(SUMMARY_SCHEMA, summary)?;
    } else {
        out.text(&summary::each(&summary.errors, moved, &out.look()))?;
    }
    match (back, moved.is_empty(), summary.failed) {
        (true, false, _) => out.say("held where it is now; `whimbrel release` lets the plan begin at its first migration"),
        (_, true, 0) => out.say(if back { "nothing was to be taken back" } else { "nothing was to be taken over" }),
        (_, _, _) => {}
    }
    if summary.failed == 0 { Ok(()) } else { Err(CliError::told(ExitCode::Failed)) }
}

fn human(databases: &[AdoptView], look: &Look) -> String {
    if databases.is_empty() {
        return "no database yet: no file matches a `path` of the configuration\n".to_owned();
    }
    let each = databases.iter().map(|database| one(database, look).join("\n") + "\n");
    each.collect::<Vec<_>>().join("\n")
}

fn one(database: &AdoptView, look: &Look) -> Vec<String> {
    let path = clean(&database.path.to_string_lossy());
    let mut lines = vec![format!("{} ({}, version {} of {})", look.bold(&path), database.app, database.version, database.latest)];
    for tracker in &database.trackers {
        lines.push(look.labelled(2, "found:", &look.bold("found:"), &tracker_line(tracker)));
    }
    if let Some(adopted) = &database.adopted {
        let text = format!("at version {}, as {} said, {}", adopted.version, said(&adopted.by), look.moment(adopted.at_ms));
        lines.push(look.labelled(2, "adopted:", &look.bold("adopted:"), &text));
        lines.extend(adopted.drift.iter().map(|d| format!("    accepted: {}", clean(d))));
    }
    if let Some(would) = &database.would {
        let text = format!("at version {}, as {} says; `whimbrel adopt run` takes it over", would.version, said(&would.by));
        lines.push(look.labelled(2, "would be adopted:", &look.bold("would be adopted:"), &text));
        lines.extend(would.notes.iter().map(|note| format!("    {}", look.flowed(note, 4))));
    }
    // Whose history is whimbrel's already has nothing to be told.
    if let Some(refused) = database.refused.as_ref().filter(|r| r.code != "has_history") {
        lines.extend(health_lines(refused, 2, look));
    }
    lines
}

fn tracker_line(tracker: &TrackerView) -> String {
    let applied = match (tracker.applied, &tracker.last) {
        (0, _) | (_, None) => "nothing applied".to_owned(),
        // A tool that keeps only where it stands, or that began there.
        (1, Some(last)) => format!("at {last}"),
        (n, Some(last)) => format!("{n} applied, the last {last}"),
    };
    format!("{} in {}: {applied}", tracker.tool, tracker.table)
}

fn said(by: &str) -> &str {
    match by {
        "schema" => "its schema",
        "person" => "a person",
        tool => tool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn a_past_is_shown_with_what_says_it_and_what_is_in_the_way() {
        golden::check("adopt.txt", &human(&fixture::adopt_views(), &fixture::look()));
    }

    #[test]
    fn json_is_the_list_of_databases() {
        golden::check("adopt.json", &document(ADOPT_SCHEMA, &Databases { databases: &fixture::adopt_views() }).unwrap());
    }
}
