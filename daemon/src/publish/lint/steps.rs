//! The rules about steps that change rows, and about `continues_after`: what the manifest and the shipped files show. Pure.

use whimbrel_shared::{
    manifest::{Backfill, Load, LoadConflict, Mode, Rebuild, Step},
    sql::{Token, tokens},
};

use super::{
    Desk, Rule, Weight,
    rows::{Rows, SoFar},
};
use crate::{
    migrate::rows::records::{self, Form, Place},
    publish::scan::TableKind,
};

/// Rows of a shipped file that are read at a time.
const ROWS_AT_ONCE: u32 = 10_000;

/// Judges the row steps of one migration. `rows` are the tables as it leaves them, `so_far` as it finds them.
pub(super) fn judge(desk: &mut Desk<'_>, steps: &[Step], so_far: &SoFar, rows: &Rows) {
    let at_end = rows.tables();
    let table_kind = |table: &str| at_end.get(table).or_else(|| so_far.tables.get(table)).copied();
    let mode = desk.authored.migration.manifest.mode;
    for step in steps {
        let (key, table, batch) = match step {
            Step::Sql { .. } | Step::Verify { .. } => continue,
            Step::Backfill(backfill) => {
                own_row(desk, backfill);
                ("backfill", &backfill.table, backfill.batch)
            }
            Step::Load(load) => {
                shipped(desk, load);
                ("load", &load.into, load.batch)
            }
            Step::Rebuild(rebuild) => {
                own_values(desk, rebuild);
                ("rebuild", &rebuild.table, rebuild.batch)
            }
        };
        let name = table.to_lowercase();
        if table_kind(&name) != Some(TableKind::Ordinary) {
            say(desk, Rule::RowTarget, Weight::Always, format!("a `{key}` step names {table}, and there is no such table"), "correct the name");
        }
        if batch == Some(0) {
            let what = format!("a `{key}` step of {table} says batch = 0, and would never come to an end");
            say(desk, Rule::RowStep, Weight::Always, what, "say how many rows a part may have at most, or take `batch` away");
        }
        // Others repeat a backfill for their rows, and a copy changes nothing: a rebuild that computes is neither.
        if matches!(step, Step::Rebuild(rebuild) if !rebuild.values.is_empty()) && so_far.synced.contains(&name) {
            let what = format!("{table} exchanges rows, and the `values` of its rebuild change them without anyone else learning of it");
            say(desk, Rule::SyncedRows, Weight::Always, what, "let the rebuild copy, and compute the column in a `backfill` step");
        }
        let filled = matches!(step, Step::Backfill(_));
        if filled && mode == Mode::Atomic && so_far.synced.contains(&name) {
            let what = format!("{table} exchanges rows, and its backfill is one transaction, under one lock");
            say(
                desk,
                Rule::SyncedInOne,
                Weight::OursOnly,
                what,
                "say mode = \"online\": then it is done in short ones, and rows go on being exchanged",
            );
        }
    }
    continues(desk, steps);
}

/// In `migration.toml`, where the steps stand.
fn say(desk: &mut Desk<'_>, rule: Rule, weight: Weight, what: impl Into<String>, remedy: impl Into<String>) {
    desk.note(rule, weight, "migration.toml", 0, what, remedy);
}

/// A backfill is repeated at the server and for rows that arrive later: the same row must give the same values.
fn own_row(desk: &mut Desk<'_>, step: &Backfill) {
    for (key, expression) in [("set", &step.set), ("where", &step.filter)] {
        if let Some(what) = depends_on_more(expression) {
            let what = format!("the backfill of {} says {what} in its `{key}`, so the same row gives different values elsewhere", step.table);
            say(desk, Rule::Backfill, Weight::Always, what, "compute from the row's own columns only");
        }
    }
}

/// The same holds for the values of a rebuild: a row that is copied twice must come out the same.
fn own_values(desk: &mut Desk<'_>, step: &Rebuild) {
    for (column, expression) in &step.values {
        if let Some(what) = depends_on_more(expression) {
            let what = format!("the rebuild of {} says {what} for {column}, so the same row gives different values elsewhere", step.table);
            say(desk, Rule::Backfill, Weight::Always, what, "compute from the row's own columns only");
        }
    }
}

/// The first word by which an expression depends on more than its own row.
fn depends_on_more(expression: &str) -> Option<String> {
    const MACHINE: [&str; 8] =
        ["random", "randomblob", "changes", "total_changes", "last_insert_rowid", "sqlite_version", "sqlite_source_id", "sqlite_compileoption_used"];
    const CLOCK: [&str; 3] = ["current_timestamp", "current_time", "current_date"];
    const DATES: [&str; 6] = ["date", "time", "datetime", "julianday", "unixepoch", "timediff"];
    // What a date function says of the machine: its clock, or its time zone.
    const HERE: [&str; 5] = ["'now'", "'localtime'", "'utc'", "'subsec'", "'subsecond'"];
    let tokens = tokens(expression);
    tokens.iter().enumerate().find_map(|(at, token)| {
        let next = |n: usize| tokens.get(at + n);
        let before = |word: &str| at.checked_sub(1).and_then(|b| tokens.get(b)).is_some_and(|t| t.is(word));
        let call = next(1) == Some(&Token::Mark('('));
        let is_any = |words: &[&str]| words.iter().any(|word| token.is(word));
        let says_here =
            || arguments(&tokens[at + 1..]).iter().any(|t| matches!(t, Token::Literal(l) if HERE.iter().any(|h| l.eq_ignore_ascii_case(h))));
        let now = call && is_any(&DATES) && (next(2) == Some(&Token::Mark(')')) || says_here());
        // A format and nothing more is the format of this moment.
        let formatted = call && token.is("strftime") && (next(3) == Some(&Token::Mark(')')) || says_here());
        // `x IN t` reads a table; so does `SET a = b FROM t`. `IS DISTINCT FROM` does not.
        let table = token.is("in") && next(1).is_some_and(|t| *t != Token::Mark('(')) || token.is("from") && !before("distinct");
        let more = is_any(&CLOCK) || is_any(&["select", "values"]) || call && is_any(&MACHINE) || now || formatted || table;
        more.then(|| token.text().to_uppercase())
    })
}

/// The tokens of a call's arguments; `tokens` begins with its parenthesis.
fn arguments(tokens: &[Token]) -> &[Token] {
    let mut depth = 0usize;
    let end = tokens.iter().position(|token| {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    &tokens[..end.unwrap_or(tokens.len())]
}

/// A `load` step and its file.
fn shipped(desk: &mut Desk<'_>, load: &Load) {
    let Load { file, into, .. } = load;
    if load.key.is_empty() {
        say(desk, Rule::RowStep, Weight::Always, format!("the load into {into} has no column in its `key`"), "name the columns that identify a row");
    }
    let compares = match (load.conflict, load.since) {
        (_, true) => Some("since = true"),
        (LoadConflict::KeepNewest, false) => Some("conflict = \"keep-newest\""),
        (LoadConflict::KeepOldest, false) => Some("conflict = \"keep-oldest\""),
        (LoadConflict::Merge | LoadConflict::Replace | LoadConflict::Skip, false) => None,
    };
    if let (Some(said), None) = (compares, &load.newest) {
        let what = format!("the load into {into} says {said}, and not by which column rows are compared");
        say(desk, Rule::RowStep, Weight::Always, what, "add newest = \"COLUMN\"");
    }
    if load.clear_existing {
        let what = format!("every row of {into} goes before {file} is loaded");
        say(desk, Rule::ClearExisting, Weight::Destructive, what, "say that it is meant: destructive = true in migration.toml");
    }
    let migration = &desk.authored.migration;
    let text = migration.file(file).unwrap_or_default();
    let Some(form) = Form::of(file) else {
        let what = format!("{file} is neither .ndjson nor .jsonl nor .csv");
        return say(desk, Rule::ShippedFile, Weight::Always, what, "ship the rows as one JSON object a line, or as CSV with a header");
    };
    let mut place = Place::default();
    loop {
        match records::read(form, text, place, ROWS_AT_ONCE) {
            Ok((rows, _)) if rows.is_empty() => return,
            Ok((_, next)) => place = next,
            Err(why) => {
                // The message names the line of the file by itself.
                return desk.note(Rule::ShippedFile, Weight::Always, file, 0, format!("{file} cannot be read: {why}"), "correct that line");
            }
        }
    }
}

/// `continues_after` has to be a place where a run can have stopped.
fn continues(desk: &mut Desk<'_>, steps: &[Step]) {
    let manifest = &desk.authored.migration.manifest;
    let Some(after) = manifest.continues_after else { return };
    let at = after as usize;
    let is_load = |step: Option<&Step>| matches!(step, Some(Step::Load(_)));
    let (what, remedy) = if manifest.mode == Mode::Atomic {
        ("continues_after is said of a migration that is one transaction: it never stops half-way", "take it away, or say mode = \"online\"")
    } else if at == 0 || at > steps.len() {
        ("continues_after names no step of this migration", "name the number of the last step that is as it was, from 1")
    } else if at.checked_sub(1).is_some_and(|last| is_load(steps.get(last))) && is_load(steps.get(at)) {
        (
            "continues_after parts loads that stand together, and those run in the order of their tables",
            "name the last of them, or the step before the first",
        )
    } else {
        return;
    };
    say(desk, Rule::Continues, Weight::Always, what, remedy);
}
