//! `whimbrel new`: the directory of a new migration.

use std::{fs, path::PathBuf};

use super::{error::CliError, output::Output};
use crate::publish::{
    PublishError,
    layout::{self, Layout},
    listing::Listing,
    template,
};

/// Make a migration: a directory with up.sql, down.sql and migration.toml, ready to be filled in
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 made, 1 it could not be written, 2 the name cannot be used")]
pub struct Args {
    /// What the migration does, in a few words
    pub name: String,
    /// The migrations directory; made when it is not there
    #[arg(long, default_value = "migrations")]
    pub dir: PathBuf,
}

/// Makes the files and prints their paths.
pub fn run(args: &Args, _out: &Output) -> Result<(), CliError> {
    execute(args).map_err(CliError::from)
}

fn execute(args: &Args) -> Result<(), PublishError> {
    let write = |path: PathBuf| move |source| PublishError::Write { path, source };
    fs::create_dir_all(&args.dir).map_err(write(args.dir.clone()))?;
    let listing = Listing::read(&args.dir)?;
    // One of ours among another tool's would make the directory unreadable for both.
    if let Ok(chain) = layout::read(&listing, None)
        && chain.layout != Layout::Whimbrel
    {
        return Err(PublishError::OthersDirectory { directory: args.dir.clone(), layout: chain.layout });
    }
    let directory = args.dir.join(template::name(&listing, &args.name)?.as_str());
    fs::create_dir(&directory).map_err(write(directory.clone()))?;
    for (file, text) in template::FILES {
        let path = directory.join(file);
        fs::write(&path, text).map_err(write(path.clone()))?;
        println!("{}", path.display());
    }
    Ok(())
}
