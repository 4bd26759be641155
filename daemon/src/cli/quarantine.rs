//! `whimbrel quarantine`: rows of the server that cannot land yet.

use serde::Serialize;

use super::{
    conflicts::{DECIDED_SCHEMA, decided},
    error::{CliError, ExitCode},
    look::{Look, Table, cell, clean, count},
    output::Output,
    rows::{self, key, shown},
    select,
};
use crate::control::{
    client::unexpected,
    protocol::{PersonOrder, Reply, Request, WaitingView},
};

/// `schema` of `whimbrel quarantine list --json` and `show --json`.
pub(super) const QUARANTINE_SCHEMA: &str = "whimbrel.quarantine/1";

/// Rows that are looked through for one.
const MOST_SHOWN: u32 = 100_000;

/// Show rows of the server that cannot land here yet, and what becomes of them
///
/// Each waits with its reason and is tried again with every exchange, after every migration, and when what is in its way
/// changes. It holds up no other row.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Retry(Retry),
    Drop(Drop),
}

/// List the rows that wait, with the reason of each
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
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Show one row that waits, with its values
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown
  1   no such row waits
  69  the daemon is not running")]
struct Show {
    /// Its table
    table: String,
    /// Its key: one value per column
    #[arg(required = true)]
    key: Vec<String>,
    /// Path, file name or beginning of the client id of its database; all of them if left out
    #[arg(long)]
    database: Option<String>,
}

/// Try the rows again, now
///
/// They are tried by themselves; this is for when what was in their way is gone and nobody wants to wait.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   tried; the output says how many landed and how many wait
  1   it could not be tried
  69  the daemon is not running")]
struct Retry {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
}

/// Do without a row that waits, until it changes at the server
///
/// Its values are kept in the table _whimbrel_archive of the database. Nothing is deleted at the server; there the row stays,
/// and this database has it no more, or as it was before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   dropped; the output says what is missing here now
  1   no such row waits, or it is not for a person to drop
  69  the daemon is not running")]
struct Drop {
    /// Its table
    table: String,
    /// Its key: one value per column
    #[arg(required = true)]
    key: Vec<String>,
    /// Path, file name or beginning of the client id of its database; may be left out where there is one
    #[arg(long)]
    database: Option<String>,
}

/// What `list` and `show` print.
#[derive(Debug, Serialize)]
struct Quarantine<'a> {
    /// How many there are; more than are listed where the limit cut them.
    total: u64,
    rows: &'a [WaitingView],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    match args.command {
        Command::List(args) => {
            let (rows, total) = ask(out, args.database.as_deref(), args.limit)?;
            print(out, &rows, total, |look| human(&rows, total, look))
        }
        Command::Show(args) => {
            let (mut rows, _) = ask(out, args.database.as_deref(), MOST_SHOWN)?;
            rows.retain(|row| row.table.eq_ignore_ascii_case(&args.table) && is(row, &args.key));
            if rows.is_empty() {
                let message = format!("no row {} of {} waits in quarantine", args.key.join(", "), args.table);
                return Err(CliError::failed(message, whimbrel_shared::remedy::here("`whimbrel quarantine list` shows what does")));
            }
            print(out, &rows, rows.len() as u64, |look| rows.iter().map(|row| whole(row, look)).collect())
        }
        Command::Retry(args) => {
            rows::carry_out(out, args.database.as_deref(), PersonOrder::RetryWaiting, DECIDED_SCHEMA, decided, |_| ExitCode::Done)
        }
        Command::Drop(args) => {
            let order = PersonOrder::DropWaiting { table: args.table, key: args.key };
            rows::carry_out(out, args.database.as_deref(), order, DECIDED_SCHEMA, decided, |_| ExitCode::Done)
        }
    }
}

fn ask(out: &Output, database: Option<&str>, limit: u32) -> Result<(Vec<WaitingView>, u64), CliError> {
    match out.daemon()?.ask(&Request::Quarantine { database: select::selector(database), limit })? {
        Reply::Quarantine { rows, total } => Ok((rows, total)),
        other => Err(unexpected(&other).into()),
    }
}

fn print(out: &Output, rows: &[WaitingView], total: u64, human: impl FnOnce(&Look) -> String) -> Result<(), CliError> {
    if out.is_json() { out.json(QUARANTINE_SCHEMA, &Quarantine { total, rows }) } else { out.text(&human(&out.look())) }
}

/// Whether a row has this key, as a person writes it: a text as it is, or as it is shown.
fn is(row: &WaitingView, key: &[String]) -> bool {
    let one =
        |value: &whimbrel_shared::value::Value, text: &String| format!("{value:?}") == *text || *value == whimbrel_shared::value::Value::text(text);
    row.key.len() == key.len() && row.key.iter().zip(key).all(|(value, text)| one(value, text))
}

fn human(rows: &[WaitingView], total: u64, look: &Look) -> String {
    if total == 0 {
        return "no row waits in quarantine\n".to_owned();
    }
    let mut table = Table::of_paths(["DATABASE", "TABLE", "KEY", "SINCE", "TRIED", "WHY"]);
    for row in rows {
        table.row([
            cell(row.database.to_string_lossy()),
            cell(&row.table),
            cell(key(&row.key)),
            cell(look.ago(row.at_ms)),
            cell(row.tries.to_string()),
            cell(format!("{}: {}", row.code, row.why)),
        ]);
    }
    let mut lines = table.lines(look);
    let shown = rows.len() as u64;
    lines.push(match total > shown {
        true => format!("{shown} of {}; --limit shows more", count(total, "row")),
        false => "they are tried again by themselves; `whimbrel quarantine show TABLE KEY` shows one".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn whole(row: &WaitingView, look: &Look) -> String {
    let mut lines = vec![
        format!("{} {}, row {}, version {}", look.bold(&clean(&row.database.to_string_lossy())), clean(&row.table), key(&row.key), row.version),
        format!("  {}: {}", row.code, look.flowed(&row.why, row.code.len() + 4)),
        format!("  since {}, tried {}", look.ago(row.at_ms), count(row.tries.into(), "time")),
    ];
    match &row.values {
        None => lines.push("  it is deleted at the server".to_owned()),
        Some(values) => {
            let mut table = Table::new(["COLUMN", "VALUE"]);
            values.iter().for_each(|column| table.row([cell(&column.column), cell(shown(&column.value))]));
            lines.extend(table.lines(look).iter().map(|line| format!("  {line}")));
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn rows_that_wait_are_listed_with_their_reasons() {
        golden::check("quarantine.txt", &human(&fixture::waiting(), 2, &fixture::look()));
        assert_eq!(human(&[], 0, &fixture::look()), "no row waits in quarantine\n");
        let shown: String = fixture::waiting().iter().map(|row| whole(row, &fixture::look())).collect();
        golden::check("quarantine-row.txt", &shown);
    }

    #[test]
    fn a_row_is_named_by_its_key_as_it_is_or_as_it_is_shown() {
        let row = &fixture::waiting()[0];
        assert!(is(row, &["7".to_owned()]) && !is(row, &["8".to_owned()]) && !is(row, &[]));
        let row = &fixture::waiting()[1];
        assert!(is(row, &["b".to_owned(), "7".to_owned()]) && is(row, &["\"b\"".to_owned(), "7".to_owned()]));
    }

    #[test]
    fn json_has_the_rows_whole() {
        let rows = fixture::waiting();
        golden::check("quarantine.json", &document(QUARANTINE_SCHEMA, &Quarantine { total: 2, rows: &rows }).unwrap());
    }
}
