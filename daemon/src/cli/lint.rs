//! `whimbrel lint`: what a reviewer would say.

use std::path::PathBuf;

use crate::publish::{self, PublishError, Report, layout::Layout};

/// What it takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The migrations directory, ours or another tool's, or a seed-form JSON file
    pub dir: PathBuf,
    /// Read it as this layout instead of finding out
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// Judge another tool's migrations as strictly as ours
    #[arg(long)]
    pub strict: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the findings; fails when one is an error.
pub fn run(args: &Args) -> Result<(), PublishError> {
    let (chain, findings) = publish::read(&args.dir, args.layout, args.strict)?;
    let verdict = publish::judge(&chain, &findings, 0);
    print(&Report::new(&chain, findings), args.json)?;
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
