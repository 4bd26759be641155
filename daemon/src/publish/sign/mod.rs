//! Signing as people do it: keys that lie in files, in the environment or in hardware, and a file that is passed round until
//! enough have signed.

pub mod chain;
pub mod draft;
pub mod hand;
pub mod passphrase;
pub mod round;
#[cfg(unix)]
mod typed;
pub mod vouch;

use std::path::PathBuf;

use whimbrel_keys::{FileError, PemError};
use whimbrel_shared::{
    remedy::{Remedy, here},
    tuf::{KeyId, RootError},
};

/// Why something was not signed. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file with a secret.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key that cannot be read.
    #[error("{from}: {source}")]
    Pem {
        /// Where it came from.
        from: String,
        /// What is wrong.
        source: PemError,
    },
    /// A key source that gives nothing.
    #[error("{from}: {why}")]
    NoKey {
        /// Where it should have come from.
        from: String,
        /// Why there is none.
        why: String,
    },
    /// A passphrase that was not given.
    #[error("the passphrase cannot be read: {0}")]
    NoPassphrase(String),
    /// The command that signs did not.
    #[error("the command that signs failed: {0}")]
    Command(String),
    /// A key that has no say.
    #[error("the key {key} has no say in this: it is one of {wanted} that sign {what}")]
    NotAsked {
        /// The key.
        key: KeyId,
        /// Who has.
        wanted: String,
        /// What is signed.
        what: String,
    },
    /// A public key that is none.
    #[error("{0:?} is no public key: neither a file with one, nor 64 hex digits")]
    NotPublic(String),
    /// A file that is no such file.
    #[error("{path}: {why}", path = path.display())]
    NotARound {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file that could not be written.
    #[error("{path} cannot be written: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A root that cannot be.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A change of the root that makes no sense.
    #[error("{0}")]
    Draft(String),
    /// The server says that something is published which nobody here knows.
    #[error("the server has {names}, which this directory does not make and the key {key} has never signed; nothing was signed")]
    Strange {
        /// What, in part.
        names: String,
        /// The key that would sign it.
        key: KeyId,
    },
    /// The server says another floor than the one that was signed.
    #[error("the server says that a plan may revert {}, and the key {key} has not signed that; nothing was signed", .floor.map_or_else(|| "nothing".to_owned(), |f| format!("down to version {f}")))]
    StrangeFloor {
        /// What it says.
        floor: Option<u32>,
        /// The key that would sign it.
        key: KeyId,
    },
    /// The server says a version that nothing could follow.
    #[error("the server says that version {known} is published: what follows it could not be followed; nothing was signed")]
    FastForward {
        /// The version.
        known: u64,
    },
    /// A file with something else in it than what is to be published.
    #[error("{path} is signed over something else than what would be published now: {why}", path = path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// How it differs.
        why: String,
    },
}

impl SignError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::File(error) => error.remedy(),
            Self::Pem { source, .. } => source.remedy(),
            Self::NoKey { .. } => here("--key is a file, env:NAME, fd:NUMBER, or exec:COMMAND"),
            Self::NoPassphrase(_) => here("give it at a terminal, by --passphrase-fd NUMBER, or in WHIMBREL_KEY_PASSPHRASE"),
            Self::Command(_) => here("it gets the bytes to sign on stdin, and answers 64 bytes or 128 hex digits on stdout"),
            Self::NotAsked { .. } => here("sign with one of those; `whimbrel keys show FILE` lists them"),
            Self::NotPublic(_) => here("name the .pub file that `whimbrel keys create` made, or one of `openssl pkey -pubout`"),
            Self::NotARound { .. } => here("name a file that `whimbrel keys root` or `whimbrel publish` wrote"),
            Self::Write { .. } => here("check the path and its permissions"),
            Self::Root(error) => error.remedy(),
            Self::Draft(_) => here("`whimbrel keys show` says what the root has now"),
            Self::Strange { .. } => here(
                "find out who published them, and what they do; a server that was broken into would want them signed. Where they are yours \
                 (published with other line endings, by an older whimbrel, or mended since), add --trust-published",
            ),
            Self::StrangeFloor { .. } => here("say which one is meant: --revert-floor VERSION, or --revert-floor none"),
            Self::FastForward { .. } => here("do not publish to this server before its operator has found out why"),
            Self::Stale { path, .. } => here(format!("take {} away and sign again from the start", path.display())),
        }
    }
}
