//! Public keys and their ids. Pure. Only ed25519: what publishers, servers and hardware of today have in common with TUF.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::canonical::canonical;
use crate::ids::{BadId, Digest};

/// Length of a signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// Whether a signature over some bytes was made by the owner of a key.
pub type Verify = fn(key: &PublicKey, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool;

/// An ed25519 public key, as TUF writes it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct PublicKey([u8; 32]);

/// What a key is called in documents: SHA-256 of the canonical form of the key object (specification 4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Digest);

impl PublicKey {
    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        let object = json!({"keytype": ED25519, "keyval": {"public": self.to_string()}, "scheme": ED25519});
        KeyId(Digest::of(&canonical(&object).expect("texts have a canonical form")))
    }
}

/// 64 lower-case hex digits.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{self}")
    }
}

impl FromStr for PublicKey {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        from_hex(text).map(Self).ok_or_else(|| BadId::new("public key", text, "it is 64 lower-case hex digits of an ed25519 key"))
    }
}

impl KeyId {
    /// The first 12 hex digits: enough for a person to tell two apart.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        text.parse().map(Self)
    }
}

const ED25519: &str = "ed25519";

/// A key object. Members of other tools, such as who owns the key, are read over: what is signed keeps them.
#[derive(Serialize, Deserialize)]
struct Written {
    keytype: String,
    scheme: String,
    keyval: KeyVal,
}

#[derive(Serialize, Deserialize)]
struct KeyVal {
    public: String,
}

impl TryFrom<Written> for PublicKey {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        if (written.keytype.as_str(), written.scheme.as_str()) != (ED25519, ED25519) {
            return Err(format!("the key is {:?} with scheme {:?}; whimbrel signs with {ED25519} alone", written.keytype, written.scheme));
        }
        written.keyval.public.parse().map_err(|e: BadId| e.to_string())
    }
}

impl From<PublicKey> for Written {
    fn from(key: PublicKey) -> Self {
        Self { keytype: ED25519.to_owned(), scheme: ED25519.to_owned(), keyval: KeyVal { public: key.to_string() } }
    }
}

/// Lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Exactly `N` bytes of lower-case hex.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut bytes = [0u8; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_that_of_the_reference_implementation() {
        // securesystemslib 1.4: SSlibKey with this public part.
        let key: PublicKey = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().unwrap();
        assert_eq!(key.id().to_string(), "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
    }

    #[test]
    fn other_kinds_of_keys_are_refused_by_name() {
        let rsa = r#"{"keytype":"rsa","scheme":"rsassa-pss-sha256","keyval":{"public":"x"}}"#;
        let error = serde_json::from_str::<PublicKey>(rsa).unwrap_err().to_string();
        assert!(error.contains("rsassa-pss-sha256"), "{error}");
        assert!("D7".parse::<PublicKey>().is_err());
    }
}
