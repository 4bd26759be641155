//! `whimbrel history --failed-items`: the rows that steps went on without.

use serde::Serialize;

use super::{
    error::CliError,
    look::{Look, clean, count},
    output::Output,
    select,
};
use crate::control::{
    client::unexpected,
    protocol::{FailedItemView, Reply, Request},
};

/// `schema` of `whimbrel history --failed-items --json`.
pub(super) const FAILED_ITEMS_SCHEMA: &str = "whimbrel.failed-items/1";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct FailedItems<'a> {
    /// How many there are; more than are listed where the limit cut them.
    total: u64,
    /// Oldest version first in each database.
    items: &'a [FailedItemView],
}

/// Asks the daemon, and prints.
pub(super) fn run(database: Option<&str>, limit: u32, out: &Output) -> Result<(), CliError> {
    let request = Request::FailedItems { database: select::selector(database), limit };
    let (items, total) = match out.daemon()?.ask(&request)? {
        Reply::FailedItems { items, total } => (items, total),
        other => return Err(unexpected(&other).into()),
    };
    if out.is_json() { out.json(FAILED_ITEMS_SCHEMA, &FailedItems { total, items: &items }) } else { out.text(&human(&items, total, &out.look())) }
}

fn human(items: &[FailedItemView], total: u64, look: &Look) -> String {
    if total == 0 {
        return "no row was left out\n".to_owned();
    }
    let mut lines = Vec::new();
    let mut last = None;
    for item in items {
        let group = (&item.database, item.version, item.step);
        if last.replace(group) != Some(group) {
            let name = item.migration.as_ref().map_or_else(|| format!("version {}", item.version), ToString::to_string);
            lines.push(format!("{}, {name}, step {}", look.bold(&clean(&item.database.to_string_lossy())), item.step));
        }
        let key = clean(&item.key);
        lines.push(look.labelled(2, &key, &look.red(&key), &format!("{} (code {}, {})", item.message, item.code, look.ago(item.at_ms))));
        if let Some(row) = &item.row {
            lines.push(format!("    {}", look.dim(&look.flowed(row, 4))));
        }
    }
    let shown = items.len() as u64;
    lines.push(match total > shown {
        true => format!("{shown} of {} that were left out; --limit shows more", count(total, "row")),
        false => format!("{} left out; `whimbrel retry --failed-items` tries {} again", count(total, "row"), if total == 1 { "it" } else { "them" }),
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn rows_are_listed_by_step_with_what_sqlite_said() {
        golden::check("failed-items.txt", &human(&fixture::failed_items(), 2, &fixture::look()));
        assert!(human(&fixture::failed_items(), 40, &fixture::look()).contains("2 of 40 rows that were left out; --limit shows more"));
        assert_eq!(human(&[], 0, &fixture::look()), "no row was left out\n");
    }

    #[test]
    fn json_is_the_list_of_rows_with_their_total() {
        let items = fixture::failed_items();
        golden::check("failed-items.json", &document(FAILED_ITEMS_SCHEMA, &FailedItems { total: 40, items: &items }).unwrap());
    }
}
