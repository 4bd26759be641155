//! `whimbrel completions`: for a shell, made from the command line itself.

use clap_complete::Shell;

use super::{error::CliError, output::Output};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which
    shell: Shell,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "whimbrel", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}
