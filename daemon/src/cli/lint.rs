//! `whimbrel lint`: what a reviewer would say.

use std::path::PathBuf;

use super::{error::CliError, output::Output};
use crate::publish::{self, PublishError, Report, layout::Layout};

/// Say what a reviewer would say about a migrations directory
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing to object, 2 the directory is no chain, 4 a finding is an error")]
pub struct Args {
    /// The migrations directory, ours or another tool's, or a seed-form JSON file
    pub dir: PathBuf,
    /// Read it as this layout instead of finding out
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// Judge another tool's migrations as strictly as ours
    #[arg(long)]
    pub strict: bool,
}

/// Prints the findings; fails when one is an error.
pub fn run(args: &Args, out: &Output) -> Result<(), CliError> {
    execute(args, out).map_err(CliError::from)
}

fn execute(args: &Args, out: &Output) -> Result<(), PublishError> {
    let (chain, findings) = publish::read(&args.dir, args.layout, args.strict)?;
    let verdict = publish::judge(&chain, &findings, 0);
    print(&Report::new(&chain, findings), out.is_json())?;
    verdict
}

/// Prints a report on standard output, as text or JSON.
pub(super) fn print(report: &impl Shown, json: bool) -> Result<(), PublishError> {
    if json {
        let text = serde_json::to_string_pretty(report).map_err(|error| PublishError::SetUp(error.to_string()))?;
        println!("{text}");
    } else {
        println!("{report}");
    }
    Ok(())
}

/// What can be printed both ways.
pub(super) trait Shown: serde::Serialize + std::fmt::Display {}
impl<T: serde::Serialize + std::fmt::Display> Shown for T {}
