//! `whimbrel man`: the manual pages, made from the command line itself.

use std::path::PathBuf;

use whimbrel_shared::remedy::here;

use super::{error::CliError, output::Output};

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to; made if it is not there
    directory: PathBuf,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let written = std::fs::create_dir_all(&args.directory).and_then(|()| clap_mangen::generate_to(super::command(), &args.directory));
    written.map_err(|e| {
        CliError::failed(format!("{} cannot be written: {e}", args.directory.display()), here("name a directory that can be written"))
    })?;
    out.say(format!("manual pages are in {}", args.directory.display()));
    Ok(())
}
