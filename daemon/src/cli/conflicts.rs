//! `whimbrel conflicts`: what met another's edit, and what becomes of it.

use serde::Serialize;

use super::{
    error::{CliError, ExitCode},
    look::{Look, Table, cell, clean, count},
    output::Output,
    rows::{self, key, shown},
    select,
};
use crate::{
    control::{
        client::unexpected,
        protocol::{ConflictView, PersonOrder, Reply, Request, RowsDone},
    },
    sync::decide::Choice,
};

/// `schema` of `whimbrel conflicts list --json` and `show --json`.
pub(super) const CONFLICTS_SCHEMA: &str = "whimbrel.conflicts/1";
/// `schema` of whatever decides something.
pub(super) const DECIDED_SCHEMA: &str = "whimbrel.decided/1";

/// Show rows that met another's edit, and decide what becomes of them
///
/// Most are decided by the table's strategy and listed with --all, with both sides: nothing is lost without a trace. Those
/// that wait for a person are open: the row's edits are not sent until somebody decides, or edits the row again. docs/sync.md
/// says what each kind means.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Resolve(Resolve),
}

/// List the conflicts that wait for a decision, newest first
///
/// They are read from the database and stay on this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown
  1   no such database
  69  the daemon is not running")]
struct List {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Also those that are decided, of the last 30 days
    #[arg(long)]
    all: bool,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Show one conflict with both sides, and what decides it
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown
  1   no such conflict
  69  the daemon is not running")]
struct Show {
    /// Its number, as `whimbrel conflicts list` shows it
    id: i64,
    /// Path, file name or beginning of the client id of its database; may be left out where there is one
    #[arg(long)]
    database: Option<String>,
}

/// Decide one conflict
///
/// What is given up is kept in the table _whimbrel_archive of the database. What is decided goes to the server with the
/// next exchange, like any edit.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("choice").required(true)), after_help = "Exit codes:
  0   decided
  1   it cannot be decided so; nothing was changed, and the remedy says what can
  69  the daemon is not running")]
struct Resolve {
    /// Its number, as `whimbrel conflicts list` shows it
    id: i64,
    /// Path, file name or beginning of the client id of its database; may be left out where there is one
    #[arg(long)]
    database: Option<String>,
    /// What was written here: it is written again, as an edit that saw the other
    #[arg(long, group = "choice")]
    mine: bool,
    /// What the server has
    #[arg(long, group = "choice")]
    theirs: bool,
    /// Both: the row from here gets another key, and rows that refer to it follow
    #[arg(long, group = "choice")]
    renumber: bool,
    /// Send it once more as it is
    #[arg(long, group = "choice")]
    retry: bool,
}

/// What `list` and `show` print.
#[derive(Debug, Serialize)]
struct Conflicts<'a> {
    /// How many there are; more than are listed where the limit cut them.
    total: u64,
    conflicts: &'a [ConflictView],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    match args.command {
        Command::List(args) => {
            let request = Request::Conflicts { database: select::selector(args.database.as_deref()), id: None, all: args.all, limit: args.limit };
            let (conflicts, total) = ask(out, &request)?;
            print(out, &conflicts, total, |look| human(&conflicts, total, args.all, look))
        }
        Command::Show(args) => {
            let request = Request::Conflicts { database: select::selector(args.database.as_deref()), id: Some(args.id), all: true, limit: 50 };
            let (conflicts, total) = ask(out, &request)?;
            print(out, &conflicts, total, |look| conflicts.iter().map(|c| whole(c, look)).collect())
        }
        Command::Resolve(args) => {
            let choice = match (args.mine, args.theirs, args.renumber) {
                (true, ..) => Choice::Mine,
                (_, true, _) => Choice::Theirs,
                (.., true) => Choice::Renumber,
                (false, false, false) => Choice::Retry,
            };
            let order = PersonOrder::Decide { conflict: args.id, choice };
            rows::carry_out(out, args.database.as_deref(), order, DECIDED_SCHEMA, decided, |_| ExitCode::Done)
        }
    }
}

fn ask(out: &Output, request: &Request) -> Result<(Vec<ConflictView>, u64), CliError> {
    match out.daemon()?.ask(request)? {
        Reply::Conflicts { conflicts, total } => Ok((conflicts, total)),
        other => Err(unexpected(&other).into()),
    }
}

fn print(out: &Output, conflicts: &[ConflictView], total: u64, human: impl FnOnce(&Look) -> String) -> Result<(), CliError> {
    if out.is_json() { out.json(CONFLICTS_SCHEMA, &Conflicts { total, conflicts }) } else { out.text(&human(&out.look())) }
}

/// What was decided, a line per database.
pub(super) fn decided(rows: &[RowsDone]) -> String {
    let line = |r: &RowsDone| Some(format!("{}: {}\n", clean(&r.database.to_string_lossy()), clean(r.decided.as_ref()?)));
    rows.iter().filter_map(line).collect()
}

fn human(conflicts: &[ConflictView], total: u64, all: bool, look: &Look) -> String {
    if total == 0 {
        return if all { "no conflict\n".to_owned() } else { "no conflict waits for a decision\n".to_owned() };
    }
    let mut table = Table::of_paths(["DATABASE", "ID", "TABLE", "KEY", "KIND", "WHEN", "STATE"]);
    for c in conflicts {
        table.row([
            cell(c.database.to_string_lossy()),
            cell(c.id.to_string()),
            cell(&c.table),
            cell(key(&c.key)),
            cell(&c.kind),
            cell(look.ago(c.at_ms)),
            cell(state(c)),
        ]);
    }
    let mut lines = table.lines(look);
    let shown = conflicts.len() as u64;
    lines.push(match total > shown {
        true => format!("{shown} of {}; --limit shows more", count(total, "conflict")),
        false => "`whimbrel conflicts show ID` shows both sides".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn state(c: &ConflictView) -> String {
    match (&c.decided, c.open) {
        (Some(decided), _) => format!("decided: {decided}"),
        (None, true) => "open: its edits wait".to_owned(),
        (None, false) if c.choices.is_empty() => "over".to_owned(),
        (None, false) => "decided by the strategy".to_owned(),
    }
}

/// Both sides.
fn whole(c: &ConflictView, look: &Look) -> String {
    let mut lines = vec![
        format!("{} conflict {} in {}, row {}", look.bold(&clean(&c.database.to_string_lossy())), c.id, clean(&c.table), key(&c.key)),
        format!("  {}: {}, {}", c.kind, meaning(&c.kind), look.ago(c.at_ms)),
        format!("  {}", clean(&state(c))),
    ];
    if let Some(why) = &c.why {
        lines.push(format!("  {}", look.flowed(why, 2)));
    }
    if let Some(other) = &c.other_key {
        lines.push(format!("  the other row has the key {}", key(other)));
    }
    if let Some(min) = c.min_schema {
        lines.push(format!("  the server takes it from version {min} of the schema on"));
    }
    if !c.columns.is_empty() {
        let mut table = Table::new(["COLUMN", "MINE", "THEIRS"]);
        for column in &c.columns {
            let side = |value: &Option<whimbrel_shared::value::Value>| cell(value.as_ref().map_or_else(|| "-".to_owned(), shown));
            table.row([cell(&column.column), side(&column.mine), side(&column.theirs)]);
        }
        lines.extend(table.lines(look).iter().map(|line| format!("  {line}")));
    }
    if !c.choices.is_empty() {
        let may: Vec<String> = c.choices.iter().map(|choice| format!("--{}", choice.as_str())).collect();
        lines.push(format!("  `whimbrel conflicts resolve {} {}` decides it", c.id, may.join(" | ")));
    }
    lines.join("\n") + "\n"
}

/// What a kind means, in words.
fn meaning(kind: &str) -> &'static str {
    match kind {
        "edits" => "an edit from here met another's, and the other's stands",
        "edit_of_deleted" => "an edit from here met a deletion, and the row is deleted",
        "deletion_of_edited" => "a deletion from here met an edit, and the row is there again",
        "key_taken" => "a new row from here has the key of another row",
        "unique_taken" => "the row has values that are another row's alone",
        "held" => "the server waits for a newer version of the schema",
        _ => "the server cannot take the row as it is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn conflicts_are_listed_with_what_became_of_them() {
        golden::check("conflicts.txt", &human(&fixture::conflicts(), 2, true, &fixture::look()));
        assert!(human(&fixture::conflicts(), 40, true, &fixture::look()).contains("2 of 40 conflicts; --limit shows more"));
        assert_eq!(human(&[], 0, false, &fixture::look()), "no conflict waits for a decision\n");
    }

    #[test]
    fn one_conflict_is_shown_with_both_sides_and_what_decides_it() {
        let shown: String = fixture::conflicts().iter().map(|c| whole(c, &fixture::look())).collect();
        golden::check("conflict.txt", &shown);
    }

    #[test]
    fn json_has_the_values_whole() {
        let conflicts = fixture::conflicts();
        let printed = document(CONFLICTS_SCHEMA, &Conflicts { total: 2, conflicts: &conflicts }).unwrap();
        golden::check("conflicts.json", &printed);
        let read: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(serde_json::from_value::<Vec<ConflictView>>(read["conflicts"].clone()).unwrap(), conflicts);
    }
}
