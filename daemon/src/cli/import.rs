//! `whimbrel import`: rows of a file into a database.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use serde::Serialize;
use whimbrel_shared::manifest::LoadConflict;

use super::{
    error::CliError,
    look::{clean, count},
    output::Output,
    transfer,
};
use crate::migrate::transfer::import::{Imported, Wanted, import};

/// `schema` of `whimbrel import --json`.
const IMPORT_SCHEMA: &str = "whimbrel.import/1";

/// Put the rows of a file into a database, in short transactions beside the application
///
/// FILE is what `whimbrel export` wrote or, with --table, NDJSON (one object a line) or CSV (with a header) of one table's
/// rows. A row is known by the table's primary key or by --key. An import that was interrupted or refused is run again: what
/// is in already is left as it is. Nothing is put in while a migration is under way. No daemon is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   every row was looked at
  1   a row or the file cannot be put in; rows before it are in
  3   a migration is under way on the database, or another whimbrel works on it
  77  the file belongs to another user")]
pub struct Args {
    /// Path of a database, or the file name of one that the configuration has
    database: String,
    /// The file with the rows
    file: PathBuf,
    /// Only this table; may be given several times for an export
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Column that tells rows apart, beside others of the same option; the columns need a unique index
    #[arg(long, value_name = "COLUMN", requires = "tables")]
    key: Vec<String>,
    /// What happens to a row that is there: it stays, the larger or smaller --newest stays, its empty columns are filled, or
    /// it is replaced
    #[arg(long, value_name = "STRATEGY", default_value = "skip",
          value_parser = PossibleValuesParser::new(["skip", "keep-newest", "keep-oldest", "merge", "replace"]))]
    conflict: String,
    /// Column that tells the newer of two rows
    #[arg(long, value_name = "COLUMN", required_if_eq_any = [("conflict", "keep-newest"), ("conflict", "keep-oldest")])]
    newest: Option<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// One per table that had rows.
    tables: &'a [Imported],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let path = transfer::file_of(out, &args.database)?;
    let conflict = strategy(&args.conflict);
    let wanted = Wanted { tables: args.tables, key: args.key, conflict, newest: args.newest };
    let bar = transfer::bar(out, "importing");
    let done = import(&path, &args.file, &wanted, &mut |read, total| {
        bar.set_length(total);
        bar.set_position(read);
    });
    bar.finish_and_clear();
    let tables = done.map_err(|error| transfer::from(&error))?;
    if out.is_json() {
        return out.json(IMPORT_SCHEMA, &Document { tables: &tables });
    }
    out.text(&human(&tables))
}

fn strategy(word: &str) -> LoadConflict {
    match word {
        "keep-newest" => LoadConflict::KeepNewest,
        "keep-oldest" => LoadConflict::KeepOldest,
        "merge" => LoadConflict::Merge,
        "replace" => LoadConflict::Replace,
        _ => LoadConflict::Skip,
    }
}

fn human(tables: &[Imported]) -> String {
    if tables.is_empty() {
        return "the file has no rows\n".to_owned();
    }
    let line = |t: &Imported| {
        format!(
            "{}: {}, {} put in or changed, {} left as they were\n",
            clean(&t.table),
            count(t.rows, "row"),
            t.changed,
            t.rows.saturating_sub(t.changed)
        )
    };
    tables.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_rows_is_told_by_table() {
        let tables = [Imported { table: "cards".into(), rows: 3, changed: 2 }];
        assert_eq!(human(&tables), "cards: 3 rows, 2 put in or changed, 1 left as they were\n");
        assert_eq!(human(&[]), "the file has no rows\n");
    }
}
