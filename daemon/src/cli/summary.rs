//! What work came to, as it is printed: by `run --once`, and by the orders of a person.

use std::path::PathBuf;

use super::{
    look::{Look, clean, count},
    select, status,
};
use crate::control::protocol::{Snapshot, Summary, SummaryError};

/// `schema` of a summary.
pub(super) const SUMMARY_SCHEMA: &str = "whimbrel.summary/1";

/// A database whose version changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) path: PathBuf,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// What changed between two snapshots, of the databases that were meant.
pub(super) fn moved(before: &Snapshot, after: &Snapshot, database: Option<&str>) -> Vec<Moved> {
    let was = |path: &PathBuf| before.databases.iter().find(|d| d.path == *path).map_or(0, |d| d.version);
    let chosen = after.databases.iter().filter(|d| select::means(database, d));
    chosen.map(|d| Moved { path: d.path.clone(), from: was(&d.path), to: d.version }).filter(|m| m.from != m.to).collect()
}

/// One paragraph per database that changed, failed or waits, then the sum.
pub(super) fn human(summary: &Summary, moved: &[Moved], look: &Look) -> String {
    format!("{}{}\n", each(&summary.errors, moved, look), sum(summary))
}

/// The same without the sum.
pub(super) fn each<'a>(errors: impl IntoIterator<Item = &'a SummaryError>, moved: &[Moved], look: &Look) -> String {
    let changes = moved.iter().map(|m| format!("{}: version {} → {}\n", clean(&m.path.to_string_lossy()), m.from, m.to));
    changes.chain(errors.into_iter().map(|e| trouble(e, look))).collect()
}

fn trouble(error: &SummaryError, look: &Look) -> String {
    use whimbrel_shared::protocol::state::Severity::Warning;
    let (label, painted) = if error.waiting { ("waits:", look.severity(Warning, "waits:")) } else { ("failed:", look.red("failed:")) };
    let place = if error.database.as_os_str().is_empty() { "this device".to_owned() } else { clean(&error.database.to_string_lossy()) };
    let message = error.migration.as_ref().map_or_else(|| error.message.clone(), |m| status::named(m.as_str(), &error.message));
    format!("{place}\n{}\n{}\n", look.labelled(2, label, &painted, &message), look.remedy(2, &error.remedy))
}

fn sum(s: &Summary) -> String {
    if let Some(items) = &s.items {
        return format!("{} tried again: {} done, {} left", count(items.tried, "row"), items.done, items.left);
    }
    let mut parts = vec![format!("{} at the planned version", s.completed)];
    if s.skipped > 0 {
        parts.push(format!("{} waiting", s.skipped));
    }
    if s.failed > 0 {
        parts.push(format!("{} failed", s.failed));
    }
    format!("{}: {}; {} run", count(u64::from(s.total), "database"), parts.join(", "), count(u64::from(s.migrations), "migration"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn a_summary_names_what_changed_and_why_the_rest_did_not() {
        let after = fixture::snapshot();
        let mut before = after.clone();
        before.databases[0].version = 3;
        let moved = moved(&before, &after, None);
        golden::check("summary.txt", &human(&fixture::summary(), &moved, &fixture::look()));
    }

    #[test]
    fn rows_that_were_tried_again_are_counted() {
        let items = Some(crate::migrate::items::Retried { tried: 12, done: 10, left: 2 });
        let summary = Summary { items, errors: vec![], ..fixture::summary() };
        assert_eq!(human(&summary, &[], &fixture::look()), "12 rows tried again: 10 done, 2 left\n");
    }

    #[test]
    fn json_is_the_summary() {
        golden::check("summary.json", &document(SUMMARY_SCHEMA, &fixture::summary()).unwrap());
    }

    #[test]
    fn only_the_databases_that_were_meant_count_as_changed() {
        let after = fixture::snapshot();
        let mut before = after.clone();
        before.databases.iter_mut().for_each(|d| d.version = 1);
        assert_eq!(moved(&before, &after, Some("c.db")), [Moved { path: "/var/lib/notes/c.db".into(), from: 1, to: 3 }]);
    }
}
