//! `whimbrel export`: rows as NDJSON.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use whimbrel_shared::remedy::here;

use super::{
    error::{CliError, ExitCode},
    look::count,
    output::Output,
    transfer,
};
use crate::migrate::transfer::{ExportedTable, Header, export::export};

/// `schema` of `whimbrel export -o FILE --json`.
const EXPORT_SCHEMA: &str = "whimbrel.export/1";

/// Write the rows of a database as NDJSON: its tables as they are at one moment
///
/// The first line names the tables and the schema's fingerprint; each line after it is one row, parents before children.
/// What JSON cannot hold exactly is written as {"$blob": …} or {"$real": …}. The application writes on meanwhile; in
/// rollback-journal mode it waits as long as a copy of the file takes. No daemon is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   written
  1   it cannot be read or written
  77  the file belongs to another user")]
pub struct Args {
    /// Path of a database, or the file name of one that the configuration has
    database: String,
    /// Only this table; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// A new file to write to, which only its owner reads [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What `--json` prints where the rows go to a file.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    /// The file.
    file: &'a Path,
    /// What it holds.
    tables: &'a [ExportedTable],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let path = transfer::file_of(out, &args.database)?;
    let bar = transfer::bar(out, "exporting");
    let mut watch = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let Some(file) = args.output.filter(|file| file.as_os_str() != "-") else {
        let written = export(&path, &args.tables, &mut BufWriter::new(io::stdout().lock()), &mut watch);
        bar.finish_and_clear();
        return written.map(drop).map_err(|error| transfer::from(&error));
    };
    let written = write(&file, |to| export(&path, &args.tables, to, &mut watch).map_err(|error| transfer::from(&error)));
    bar.finish_and_clear();
    let header: Header = written?;
    if out.is_json() {
        return out.json(EXPORT_SCHEMA, &Exported { file: &file, tables: &header.tables });
    }
    let rows = header.tables.iter().map(|t| t.rows).sum();
    out.text(&format!("{}: {} of {}\n", file.display(), count(rows, "row"), count(header.tables.len() as u64, "table")))
}

/// A new file that only its owner reads. One that is not whole goes.
fn write<T>(file: &Path, work: impl FnOnce(&mut dyn Write) -> Result<T, CliError>) -> Result<T, CliError> {
    let failed = |error: io::Error| {
        let exit = if error.kind() == io::ErrorKind::PermissionDenied { ExitCode::NotPermitted } else { ExitCode::Failed };
        CliError::new(exit, format!("{} cannot be written: {error}", file.display()), here("name another file with -o FILE"))
    };
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut to = BufWriter::new(options.open(file).map_err(failed)?);
    let done = work(&mut to).and_then(|done| to.flush().and_then(|()| to.get_ref().sync_all()).map(|()| done).map_err(failed));
    if done.is_err() {
        // What went wrong says more than a file that cannot be removed.
        let _ = std::fs::remove_file(file);
    }
    done
}
