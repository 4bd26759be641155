//! The tables of the seed systems' clients: `client_migration_status` says what is applied, `client_migration` lists what
//! came from the server, `migration_changes` is the queue of their processor.

use std::collections::BTreeSet;

use super::{
    super::past::{Applied, Key, Past, Tool, Trouble},
    Source, is_true,
};

/// Most names that a message has.
const NAMED: usize = 6;

/// Reads them. Work that the old processor would still do is trouble: it and the daemon would both do it.
pub(super) fn read(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Seed);
    let flag = if source.has_column("applied") { "applied" } else { "clientApplied" };
    let stamps = stamps(source)?;
    let mut rows = source.rows(["migrationName", flag], "ORDER BY rowid")?;
    // By the server's order, not by that in which somebody queued them.
    rows.sort_by_key(|[name, _]| stamps.iter().position(|s| Some(s) == name.as_ref()).unwrap_or(usize::MAX));
    for [name, applied] in rows {
        let name = name.unwrap_or_default();
        if is_true(applied.as_ref()) {
            past.applied.push(Applied::one(name.clone(), vec![Key::Name(name)]));
        }
    }
    let Some(queue) = source.has("migration_changes") else { return Ok(past) };
    let changes = source.rows_of(queue, ["migration_name", "operation", "processed", "attempts", "max_attempts"], "ORDER BY timestamp")?;
    let (mut open, mut stuck) = (BTreeSet::new(), BTreeSet::new());
    for [name, operation, processed, attempts, most] in changes {
        if is_true(processed.as_ref()) {
            continue;
        }
        let number = |text: Option<String>, or: u64| text.and_then(|t| t.parse().ok()).unwrap_or(or);
        let given_up = number(attempts, 0) >= number(most, 3);
        let said = format!("{} {}", operation.unwrap_or_default(), name.unwrap_or_default());
        if given_up {
            stuck.insert(said)
        } else {
            open.insert(said)
        };
    }
    if !open.is_empty() {
        past.trouble = Some(Trouble::locked(
            format!("its processor has still to {} ({queue})", few(&open)),
            format!("let the application finish them, or stop its processor and delete them from {queue}"),
        ));
    }
    if !stuck.is_empty() {
        past.notes.push(format!("given up by the old processor, and pending here: {}", few(&stuck)));
    }
    Ok(past)
}

/// Names in the order of the server's list, where it is there.
fn stamps(source: &Source<'_>) -> rusqlite::Result<Vec<String>> {
    let Some(list) = source.has(super::super::recognise::SEED_LIST) else { return Ok(Vec::new()) };
    let rows = source.rows_of(list, ["migrationName"], "ORDER BY timestamp, migrationName")?;
    Ok(rows.into_iter().filter_map(|[name]| name).collect())
}

fn few(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
