//! `whimbrel keys upload`: a signed root to the server.

use std::path::PathBuf;

use whimbrel_shared::{protocol::publish::RootRequest, remedy::here};

use super::{
    super::{
        error::{CliError, ExitCode},
        output::Output,
    },
    At, KEYS_SCHEMA, Seen,
};
use crate::publish::sign::{
    SignError,
    round::{Content, Round},
};

/// Send a signed root to the server
///
/// The server takes it when enough of the keys before it and enough of its own have signed it, and when it names the server's
/// own keys. From the first root on, the server takes nothing for this app that is not signed. Sent twice is sent once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   the server has it
  1   the server refuses it
  2   the file is no root
  3   signatures are missing
  75  the server does not answer
  77  WHIMBREL_API_KEY is missing, or may not publish")]
pub(super) struct Args {
    /// The signed root
    file: PathBuf,
    #[command(flatten)]
    at: At,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let round = Round::read(&args.file)?;
    if !matches!(round.content()?, Content::Root(_)) {
        let why = "targets are sent by `whimbrel publish`".to_owned();
        return Err(SignError::NotARound { path: args.file, why }.into());
    }
    let seen = Seen::of(&round)?;
    if seen.missing > 0 {
        let message = format!("{} has not been signed by enough people; nothing was sent", args.file.display());
        return Err(CliError::new(ExitCode::Waiting, message, here("pass it on: `whimbrel keys sign FILE --key KEY`")));
    }
    let request = RootRequest { root: round.document().clone() };
    let trust = args.at.ask(async |server| server.upload_root(&request).await)?;
    for alarm in &trust.alarms {
        out.say(format!("the server says: {alarm}"));
    }
    if out.is_json() {
        return out.json(KEYS_SCHEMA, &seen);
    }
    out.text(&format!("{} has {}\n", args.at.server, seen.title))?;
    if !trust.expires.contains_key("targets") {
        out.say("next: `whimbrel publish DIR --key KEY` signs the migrations");
    }
    Ok(())
}
