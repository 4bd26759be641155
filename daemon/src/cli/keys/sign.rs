//! `whimbrel keys sign`: one more signature.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
};

use super::{
    super::{
        error::{CliError, ExitCode},
        output::Output,
    },
    KEYS_SCHEMA, Seen,
};
use crate::publish::sign::{hand::KeySource, passphrase::Passphrases, round::Round};

/// Add a signature to a root or to targets that go round
///
/// Shows what is signed first, and asks at a terminal. Says how many signatures are missing still: pass the file on until none
/// is. No network is needed. Signing twice with one key counts once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  signed; also where others have to sign still
  1  the key has no say in it, or does not open
  2  no such file, key or passphrase
  77 others than its owner may read the key's file

--key is a file, env:NAME (the PEM text in a variable), fd:NUMBER (from a descriptor), or exec:COMMAND, which gets the bytes to
sign on stdin and answers the signature (64 bytes, or in hex): the door to PKCS#11 and key services.")]
pub(super) struct Args {
    /// The file that goes round
    file: PathBuf,
    /// Where the key is (may be given several times)
    #[arg(long, required = true, value_name = "SOURCE")]
    key: Vec<KeySource>,
    /// Read the passphrase from this descriptor, instead of WHIMBREL_KEY_PASSPHRASE or the terminal
    #[arg(long, value_name = "NUMBER")]
    passphrase_fd: Option<u32>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let mut round = Round::read(&args.file)?;
    if out.can_ask() && !args.yes && !agreed(&Seen::of(&round)?.text()) {
        out.say("nothing was signed");
        return Err(CliError::told(ExitCode::Failed));
    }
    let passphrases = Passphrases::new(args.passphrase_fd);
    for source in &args.key {
        let signer = round.sign(&source.take(&passphrases)?)?;
        out.say(format!("signed by {signer}"));
    }
    round.write(&args.file)?;
    let seen = Seen::of(&round)?;
    if out.is_json() {
        return out.json(KEYS_SCHEMA, &seen);
    }
    out.text(&seen.text())
}

fn agreed(what: &str) -> bool {
    let mut terminal = io::stderr().lock();
    let asked = terminal.write_all(format!("{what}Sign? [y/N] ").as_bytes()).and_then(|()| terminal.flush());
    let mut answer = String::new();
    let heard = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    heard.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
