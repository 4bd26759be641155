//! `whimbrel keys create`: a key, sealed with a passphrase.

use std::path::PathBuf;

use serde::Serialize;
use whimbrel_keys::{SigningKey, create_private, seal};
use whimbrel_shared::tuf::{KeyId, PublicKey};

use super::{
    super::{error::CliError, output::Output},
    KEYS_SCHEMA,
};
use crate::publish::sign::{SignError, passphrase::Passphrases, round::replace};

/// Make a key: FILE, which a passphrase opens, and FILE.pub, which everybody may have
///
/// The key is ed25519, in PKCS#8, encrypted (PBKDF2 and AES-256): `openssl pkey` reads it too. The file is made with mode 0600
/// and never overwritten. Keep a copy where a fire at the first place does not reach it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  made
  1  the file is there already, or cannot be written
  2  there is no passphrase")]
pub(super) struct Args {
    /// Where the key is kept
    file: PathBuf,
    /// Read the passphrase from this descriptor, instead of WHIMBREL_KEY_PASSPHRASE or the terminal
    #[arg(long, value_name = "NUMBER")]
    passphrase_fd: Option<u32>,
}

#[derive(Serialize)]
struct Created {
    key_id: KeyId,
    public: PublicKey,
    file: PathBuf,
    public_file: PathBuf,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let file = args.file;
    if file.exists() {
        // Before a person thinks of a passphrase.
        return Err(SignError::File(whimbrel_keys::FileError::Exists { path: file }).into());
    }
    let words = Passphrases::new(args.passphrase_fd).to_seal(&file.display().to_string())?;
    let key = SigningKey::generate();
    let public = key.public();
    create_private(&file, &seal(&key, &words)).map_err(SignError::from)?;
    let mut public_file = file.clone().into_os_string();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    let mut text = serde_json::to_vec(&public).expect("a key has text keys");
    text.push(b'\n');
    replace(&public_file, &text)?;
    let created = Created { key_id: public.id(), public, file, public_file };
    if out.is_json() {
        return out.json(KEYS_SCHEMA, &created);
    }
    out.text(&format!("key {}\n  private {}\n  public  {}\n", created.key_id, created.file.display(), created.public_file.display()))
}
