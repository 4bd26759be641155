//! Where a passphrase comes from: a descriptor, the environment, or a person at a terminal. Never an argument, which every
//! process of the machine could read.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

use whimbrel_keys::Passphrase;
use zeroize::Zeroizing;

use super::SignError;
#[cfg(unix)]
use super::typed;

/// The variable that holds it.
pub const VARIABLE: &str = "WHIMBREL_KEY_PASSPHRASE";
/// Longest that is read, in bytes.
const LONGEST: u64 = 1024;

/// Finds passphrases; asks for each key.
#[derive(Clone, Debug, Default)]
pub struct Passphrases {
    fd: Option<u32>,
}

impl Passphrases {
    /// `fd`: an inherited descriptor whose first line it is.
    pub fn new(fd: Option<u32>) -> Self {
        Self { fd }
    }

    /// To open the key at `name`.
    pub fn to_open(&self, name: &str) -> Result<Passphrase, SignError> {
        match self.given()? {
            Some(words) => Ok(words),
            None => ask(&format!("Passphrase of {name}: ")),
        }
    }

    /// To seal a new key: a person says it twice.
    pub fn to_seal(&self, name: &str) -> Result<Passphrase, SignError> {
        if let Some(words) = self.given()? {
            return Ok(words);
        }
        let first = line(&format!("New passphrase of {name}: "))?;
        if *line("The same again: ")? != *first {
            return Err(SignError::NoPassphrase("the two are not the same".to_owned()));
        }
        whole(first)
    }

    fn given(&self) -> Result<Option<Passphrase>, SignError> {
        if let Some(fd) = self.fd {
            return whole(first_line(inherited(fd)?)?).map(Some);
        }
        match std::env::var(VARIABLE).map(Zeroizing::new) {
            Ok(text) => whole(text).map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// What an inherited descriptor gives. Through its name, so that it stays open for whoever reads it after us.
pub(super) fn inherited(fd: u32) -> Result<File, SignError> {
    File::open(format!("/proc/self/fd/{fd}")).map_err(|e| SignError::NoPassphrase(format!("descriptor {fd}: {e}")))
}

fn whole(text: Zeroizing<String>) -> Result<Passphrase, SignError> {
    Passphrase::new(text).ok_or_else(|| SignError::NoPassphrase("it is empty".to_owned()))
}

pub(super) fn first_line(file: File) -> Result<Zeroizing<String>, SignError> {
    // One byte after the other would be slow, and more at once would take what the next reader of the pipe needs: a passphrase
    // has its descriptor to itself.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    let read = BufReader::new(file.take(LONGEST)).read_line(&mut text);
    read.map_err(|e| SignError::NoPassphrase(e.to_string()))?;
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

fn ask(question: &str) -> Result<Passphrase, SignError> {
    whole(line(question)?)
}

/// A line that is typed and not shown.
fn line(question: &str) -> Result<Zeroizing<String>, SignError> {
    #[cfg(unix)]
    return typed::line(question);
    #[cfg(not(unix))]
    {
        let _ = question;
        Err(SignError::NoPassphrase("here nobody is asked".to_owned()))
    }
}
