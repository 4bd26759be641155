//! Who signs: a private key from a file, the environment or a descriptor, or a command that has the key in hardware or in a
//! service (PKCS#11, a KMS) and never shows it.

use std::{io::Read, path::Path, process::Stdio, str::FromStr, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};
use whimbrel_keys::{SigningKey, is_sealed, open, public_from_pem, read_private};
use whimbrel_shared::tuf::{
    PublicKey,
    key::{SIGNATURE_BYTES, from_hex},
};
use zeroize::Zeroizing;

use super::{
    SignError,
    passphrase::{self, Passphrases, inherited},
};

/// Longest that a command may take: a person may have to find the token and press its button.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest key text that is read.
const LONGEST: u64 = 64 * 1024;

/// Where a key is, as `--key` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file that only its owner may read, encrypted.
    File(std::path::PathBuf),
    /// An environment variable with the PEM text.
    Env(String),
    /// An inherited descriptor with the PEM text.
    Fd(u32),
    /// A command that signs.
    Command(String),
}

impl FromStr for KeySource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("fd", number)) => number.parse().map(Self::Fd).map_err(|_| "fd:NUMBER names an open descriptor".to_owned()),
            Some(("exec", command)) if !command.trim().is_empty() => Ok(Self::Command(command.to_owned())),
            Some(("env" | "exec", _)) => Err("it is env:NAME or exec:COMMAND".to_owned()),
            _ if text.contains("PRIVATE KEY-----") => Err("name where the key is; on the command line everybody could read it".to_owned()),
            Some(_) | None => Ok(Self::File(text.into())),
        }
    }
}

/// Something that signs.
#[derive(Debug)]
pub enum Hand {
    /// With this key.
    Key(SigningKey),
    /// With a key that only the command has.
    Command(String),
}

impl KeySource {
    /// The key, or the command.
    pub fn take(&self, passphrases: &Passphrases) -> Result<Hand, SignError> {
        let no_key = |from: &str, why: String| SignError::NoKey { from: from.to_owned(), why };
        let (from, pem) = match self {
            Self::Command(command) => return Ok(Hand::Command(command.clone())),
            Self::File(path) => (path.display().to_string(), read_private(path)?),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => (format!("env:{name}"), Zeroizing::new(text)),
                Err(_) => return Err(no_key(&format!("env:{name}"), "the variable is not set".to_owned())),
            },
            Self::Fd(fd) => {
                let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
                inherited(*fd)?.take(LONGEST).read_to_string(&mut text).map_err(|e| no_key(&format!("fd:{fd}"), e.to_string()))?;
                (format!("fd:{fd}"), text)
            }
        };
        let wrong = |source| SignError::Pem { from: from.clone(), source };
        let sealed = is_sealed(&pem);
        // On a disk a key lies encrypted: a backup of the disk is not a copy of the key.
        if !sealed && matches!(self, Self::File(_)) && pem.contains("PRIVATE KEY-----") {
            return Err(wrong(whimbrel_keys::PemError::NotSealed));
        }
        let words = if sealed { Some(passphrases.to_open(&from)?) } else { None };
        open(&pem, words.as_ref()).map(Hand::Key).map_err(wrong)
    }
}

impl Hand {
    /// Signs `payload` as one of `wanted`: those keys that have a say and have not signed yet. Answers which it was.
    pub fn sign(&self, payload: &[u8], wanted: &[PublicKey], what: &str) -> Result<(PublicKey, [u8; SIGNATURE_BYTES]), SignError> {
        match self {
            Self::Key(key) => match wanted.contains(&key.public()) {
                true => Ok((key.public(), key.sign(payload))),
                false => Err(SignError::NotAsked { key: key.public().id(), wanted: list(wanted), what: what.to_owned() }),
            },
            Self::Command(command) => {
                let signature = answer(command, payload)?;
                // A command does not say whose key it has; the signature does.
                let whose = wanted.iter().find(|key| whimbrel_keys::verify(key, payload, &signature));
                let nobodys = || SignError::Command(format!("its signature is of none of the keys that sign {what}: {}", list(wanted)));
                whose.map(|key| (*key, signature)).ok_or_else(nobodys)
            }
        }
    }
}

fn list(keys: &[PublicKey]) -> String {
    keys.iter().map(|k| k.id().short()).collect::<Vec<_>>().join(", ")
}

fn answer(command: &str, payload: &[u8]) -> Result<[u8; SIGNATURE_BYTES], SignError> {
    let failed = |e: std::io::Error| SignError::Command(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let output = runtime.block_on(async {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            // What opens our other keys is none of its business.
            .env_remove(passphrase::VARIABLE)
            .env_remove("WHIMBREL_API_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take().expect("it was piped");
        let give = async move {
            // A command that does not read all of it says by its exit what that means.
            let _ = stdin.write_all(payload).await;
        };
        let both = async { tokio::join!(give, child.wait_with_output()).1 };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(output) => output.map_err(failed),
            Err(_) => Err(SignError::Command(format!("it did not answer within {PATIENCE:?}"))),
        }
    })?;
    if !output.status.success() {
        return Err(SignError::Command(output.status.to_string()));
    }
    let wrong = || SignError::Command(format!("it answered {} bytes that are no signature", output.stdout.len()));
    match <[u8; SIGNATURE_BYTES]>::try_from(output.stdout.as_slice()) {
        Ok(raw) => Ok(raw),
        Err(_) => std::str::from_utf8(&output.stdout).ok().and_then(|text| from_hex(&text.trim().to_ascii_lowercase())).ok_or_else(wrong),
    }
}

/// A public key as people name it: a `.pub` file of ours, PEM of `openssl pkey -pubout`, or its 64 hex digits.
pub fn public_key(text: &str) -> Result<PublicKey, SignError> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let none = || SignError::NotPublic(text.chars().take(200).collect());
    let content = std::fs::read_to_string(Path::new(text)).map_err(|_| none())?;
    serde_json::from_str(&content).ok().or_else(|| public_from_pem(&content)).or_else(|| content.trim().parse().ok()).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_where_it_is_and_never_by_itself() {
        let check = |text: &str, expected| assert_eq!(text.parse::<KeySource>().unwrap(), expected);
        check("keys/alice.pem", KeySource::File("keys/alice.pem".into()));
        check("env:CI_KEY", KeySource::Env("CI_KEY".to_owned()));
        check("fd:3", KeySource::Fd(3));
        check("exec:pkcs11-sign --slot 1", KeySource::Command("pkcs11-sign --slot 1".to_owned()));
        for bad in ["env:", "fd:x", "exec: ", "-----BEGIN PRIVATE KEY-----"] {
            assert!(bad.parse::<KeySource>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_signs_by_its_answer_alone_and_its_signature_says_whose_key_it_has() {
        let key = SigningKey::from_seed(&[7; 32]);
        let signature = whimbrel_shared::tuf::key::to_hex(&key.sign(b"payload"));
        let command =
            |script: &str| Hand::Command(script.to_owned()).sign(b"payload", &[SigningKey::from_seed(&[8; 32]).public(), key.public()], "it");
        let right = format!("test \"$(cat)\" = payload && test -z \"$WHIMBREL_API_KEY\" && echo {signature}");
        assert_eq!(command(&right).unwrap().0, key.public());
        let other = whimbrel_shared::tuf::key::to_hex(&key.sign(b"other"));
        for (script, says) in [(format!("echo {other}"), "none of the keys"), ("echo x".to_owned(), "2 bytes"), ("exit 3".to_owned(), "3")] {
            let error = command(&script).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_key_without_a_passphrase_is_refused_on_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        whimbrel_keys::create_private(&path, &SigningKey::from_seed(&[7; 32]).to_pem()).unwrap();
        let error = KeySource::File(path).take(&Passphrases::default()).unwrap_err();
        assert!(error.remedy().sentence().contains("openssl pkcs8"), "{error}");
    }
}
