//! `whimbrel keys show` and `verify`: what goes round, and who has signed it.

use std::path::PathBuf;

use whimbrel_shared::remedy::here;

use super::{
    super::{
        error::{CliError, ExitCode},
        output::Output,
    },
    KEYS_SCHEMA, Seen,
};
use crate::publish::sign::round::{Round, replace};

/// Show a root or targets that go round: what they say, who has to sign, who has
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  shown
  2  no such file")]
pub(super) struct Args {
    /// The file that goes round, or a root as a repository has it
    file: PathBuf,
}

/// Check that enough have signed, and write the bare document
///
/// The bare root is what a device is given when it is enrolled, by another way than from the server.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  enough have signed
  2  no such file
  3  signatures are missing")]
pub(super) struct VerifyArgs {
    /// The file that goes round, or a root as a repository has it
    file: PathBuf,
    /// Write the document alone, as a repository has it
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), CliError> {
    print(&Seen::of(&Round::read(&args.file)?)?, out)
}

pub(super) fn verify(args: VerifyArgs, out: &Output) -> Result<(), CliError> {
    let round = Round::read(&args.file)?;
    let seen = Seen::of(&round)?;
    print(&seen, out)?;
    if seen.missing > 0 {
        let message = format!("{} has not been signed by enough people", args.file.display());
        return Err(CliError::new(ExitCode::Waiting, message, here("pass it on: `whimbrel keys sign FILE --key KEY`")));
    }
    if let Some(path) = args.out {
        replace(&path, &round.document().to_bytes())?;
    }
    Ok(())
}

fn print(seen: &Seen, out: &Output) -> Result<(), CliError> {
    if out.is_json() { out.json(KEYS_SCHEMA, seen) } else { out.text(&seen.text()) }
}
