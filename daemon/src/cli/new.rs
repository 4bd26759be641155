//! `whimbrel new`: the directory of a new migration.

use std::{fs, path::PathBuf};

use serde::Serialize;

use super::{error::CliError, output::Output};
use crate::publish::{
    PublishError,
    layout::{self, Layout},
    listing::Listing,
    template,
};

/// `schema` of `whimbrel new --json`.
pub const NEW_SCHEMA: &str = "whimbrel.new/1";

/// Make the files of a new migration
///
/// Makes a directory with the next number and, in it, up.sql, down.sql and migration.toml with comments that say what may
/// stand there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  made
  1  it cannot be written
  2  the name cannot be used, or the directory has another tool's migrations")]
pub struct Args {
    /// What the migration does, in a few words
    name: String,
    /// The migrations directory; made when it is not there
    #[arg(long, default_value = "migrations", value_name = "DIR")]
    dir: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made {
    /// Its name.
    migration: String,
    /// Paths of its files.
    files: Vec<PathBuf>,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let made = make(&args)?;
    if out.is_json() {
        out.json(NEW_SCHEMA, &made)
    } else {
        out.text(&made.files.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
    }
}

fn make(args: &Args) -> Result<Made, PublishError> {
    let write = |path: PathBuf| move |source| PublishError::Write { path, source };
    fs::create_dir_all(&args.dir).map_err(write(args.dir.clone()))?;
    let listing = Listing::read(&args.dir)?;
    // One of ours among another tool's would make the directory unreadable for both.
    if let Ok(chain) = layout::read(&listing, None)
        && chain.layout != Layout::Whimbrel
    {
        return Err(PublishError::OthersDirectory { directory: args.dir.clone(), layout: chain.layout });
    }
    let name = template::name(&listing, &args.name)?;
    let directory = args.dir.join(name.as_str());
    fs::create_dir(&directory).map_err(write(directory.clone()))?;
    let mut files = Vec::new();
    for (file, text) in template::FILES {
        let path = directory.join(file);
        fs::write(&path, text).map_err(write(path.clone()))?;
        files.push(path);
    }
    Ok(Made { migration: name.to_string(), files })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::ExitCode;

    #[test]
    fn a_new_migration_follows_ours_and_does_not_mix_with_others() {
        let dir = tempfile::tempdir().unwrap();
        let args = |name: &str| Args { name: name.to_owned(), dir: dir.path().join("migrations") };
        assert_eq!(make(&args("init")).unwrap().migration, "0001_init");
        let second = make(&args("add slugs")).unwrap();
        assert_eq!(second.migration, "0002_add_slugs");
        assert!(second.files.iter().all(|path| path.exists()));
        let code = |error: PublishError| CliError::from(error).exit;
        assert_eq!(code(make(&args("a/b")).unwrap_err()), ExitCode::Usage);
        fs::remove_dir_all(&args("").dir).unwrap();
        fs::create_dir(&args("").dir).unwrap();
        fs::write(args("").dir.join("1_a.sql"), "SELECT 1").unwrap();
        let error = make(&args("b")).unwrap_err();
        assert!(error.to_string().contains("sqlx"), "{error}");
        assert_eq!(code(error), ExitCode::Usage);
    }
}
