//! `whimbrel status --tables`: how large the tables of the databases are.

use serde::Serialize;

use super::{
    error::CliError,
    look::{Look, Table, cell, clean, size},
    output::Output,
    select,
    status::health_lines,
};
use crate::control::{
    client::unexpected,
    protocol::{Reply, Request, TablesView},
};

/// `schema` of `whimbrel status --tables --json`.
pub(super) const TABLES_SCHEMA: &str = "whimbrel.tables/1";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Tables<'a> {
    /// One per database.
    databases: &'a [TablesView],
}

/// Asks the daemon, and prints.
pub(super) fn run(database: Option<&str>, out: &Output) -> Result<(), CliError> {
    let databases = match out.daemon()?.ask(&Request::Tables { database: select::selector(database) })? {
        Reply::Tables { databases } => databases,
        other => return Err(unexpected(&other).into()),
    };
    if out.is_json() { out.json(TABLES_SCHEMA, &Tables { databases: &databases }) } else { out.text(&human(&databases, &out.look())) }
}

fn human(databases: &[TablesView], look: &Look) -> String {
    let mut lines = Vec::new();
    for view in databases {
        lines.push(format!("{} ({})", look.bold(&clean(&view.database.to_string_lossy())), size(view.file_bytes)));
        lines.extend(view.error.iter().flat_map(|error| health_lines(error, 2, look)));
        if view.tables.is_empty() && view.error.is_none() {
            lines.push("  no table yet".to_owned());
        } else if !view.tables.is_empty() {
            let mut table = Table::new(["TABLE", "ROWS", "SIZE"]);
            let about = |guess, text: String| cell(if guess { format!("about {text}") } else { text });
            for t in &view.tables {
                table.row([cell(&t.table), about(t.rows_estimated, t.rows.to_string()), about(t.bytes_estimated, size(t.bytes))]);
            }
            lines.extend(table.lines(look).iter().map(|line| format!("  {line}")));
        }
    }
    if databases.is_empty() {
        lines.push("no database that can be looked at yet; `whimbrel status` says why".to_owned());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn estimates_say_that_they_are() {
        golden::check("tables.txt", &human(&fixture::tables(), &fixture::look()));
        assert!(human(&[], &fixture::look()).starts_with("no database"));
    }

    #[test]
    fn json_is_the_list_of_databases() {
        golden::check("tables.json", &document(TABLES_SCHEMA, &Tables { databases: &fixture::tables() }).unwrap());
    }
}
