//! `whimbrel keys root`: the next root, to be signed.

use std::path::PathBuf;

use whimbrel_shared::{
    duration::Span,
    ids::AppName,
    tuf::{Envelope, KeyId, NotADocument, Root, RootError},
};

use super::{
    super::{error::CliError, output::Output},
    At, KEYS_SCHEMA, Seen,
};
use crate::{
    ambient::Ambient,
    publish::sign::{
        SignError,
        draft::{Changes, draft},
        hand::public_key,
        round::{Content, Round},
    },
};

/// Make the first root of an app, or the next one, and write it for others to sign
///
/// The next one has the keys of the one before it, but for what is added and removed here, and always the online keys of the
/// server. To rotate a key, add the new one and remove the old one; to revoke one, remove it. Nothing is signed or sent:
/// `whimbrel keys sign` and `whimbrel keys upload` do that.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   written
  1   that would be no root, such as one that nobody could sign
  2   a key or a file that is none
  75  the server does not answer
  77  WHIMBREL_API_KEY is missing, or may not read

A public key is a .pub file of `whimbrel keys create`, one of `openssl pkey -pubout`, or 64 hex digits.")]
pub(super) struct Args {
    /// The app whose root it is
    #[arg(long, value_name = "NAME")]
    app: AppName,
    #[command(flatten)]
    at: At,
    /// The root before it, instead of the one that the server has
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// A public key that may sign roots (may be given several times)
    #[arg(long, value_name = "KEY")]
    root_key: Vec<String>,
    /// How many root keys have to sign
    #[arg(long, value_name = "NUMBER")]
    root_threshold: Option<u32>,
    /// A public key that may sign migrations (may be given several times)
    #[arg(long, value_name = "KEY")]
    publisher_key: Vec<String>,
    /// How many publishers have to sign
    #[arg(long, value_name = "NUMBER")]
    publisher_threshold: Option<u32>,
    /// A key that has no say any more, by its id or as a public key (may be given several times)
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "730d")]
    expires: Span,
    /// Where it is written
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let keys = |texts: &[String]| texts.iter().map(|text| public_key(text)).collect::<Result<Vec<_>, _>>();
    let id = |text: &String| text.parse::<KeyId>().or_else(|_| public_key(text).map(|key| key.id()));
    let changes = Changes {
        add_root: keys(&args.root_key)?,
        root_threshold: args.root_threshold,
        add_publishers: keys(&args.publisher_key)?,
        publisher_threshold: args.publisher_threshold,
        remove: args.remove.iter().map(id).collect::<Result<_, _>>()?,
        lasts_ms: i64::try_from(args.expires.as_millis()).ok(),
    };
    let trust = args.at.trust(&args.app)?;
    let before = match &args.from {
        Some(path) => Some(trusted(path)?),
        None => trust.root,
    };
    let read = |envelope: &Envelope| envelope.document::<Root>().map_err(|e: NotADocument| SignError::Root(RootError::from(e)));
    let before_root = before.as_ref().map(read).transpose()?;
    let root = draft(&args.app, before_root.as_ref(), &changes, &trust.online, Ambient::real().now_ms())?;
    let envelope = Envelope::new(&root).map_err(|e| SignError::Root(e.into()))?;
    let round = Round::new(envelope, before);
    round.write(&args.out)?;
    let seen = Seen::of(&round)?;
    if out.is_json() {
        return out.json(KEYS_SCHEMA, &seen);
    }
    out.text(&seen.text())?;
    out.say(format!("next: each signer runs `whimbrel keys sign {} --key KEY`", args.out.display()));
    Ok(())
}

fn trusted(path: &std::path::Path) -> Result<Envelope, SignError> {
    let round = Round::read(path)?;
    match round.content()? {
        Content::Root(_) => Ok(round.document().clone()),
        Content::Targets(_) => Err(SignError::NotARound { path: path.to_owned(), why: "it is no root".to_owned() }),
    }
}
