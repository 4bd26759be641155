//! A document with its signatures. Pure: what signs and what verifies are arguments.
//!
//! The `signed` part is kept as JSON, never as a type: members that this Whimbrel does not know were signed too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    SPEC_VERSION,
    canonical::{NotWhole, canonical},
    key::{KeyId, PublicKey, SIGNATURE_BYTES, Verify, from_hex, to_hex},
    role::Role,
    root::RoleKeys,
    time::Time,
};
use crate::ids::AppName;

/// Most signatures that are looked at.
const MAX_SIGNATURES: usize = 100;

/// What a role says.
pub trait Document: Serialize + DeserializeOwned {
    /// Whose word it is.
    const ROLE: Role;
    /// Its version.
    fn version(&self) -> u64;
    /// When it expires.
    fn expires(&self) -> Time;
    /// Whose repository it belongs to. TUF knows one repository at an address; a server here has one per app, and signs them
    /// all with the same online keys, so each document says its own.
    fn app(&self) -> &AppName;
}

/// Why bytes are not the document that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADocument {
    /// Over what devices read.
    #[error("{role}.json has {size_bytes} bytes; devices read at most {max_bytes}")]
    TooLarge {
        /// Whose.
        role: Role,
        /// Its size.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// Not JSON, or members are missing.
    #[error("{role}.json cannot be read: {why}")]
    Unreadable {
        /// What was expected.
        role: Role,
        /// What the reader says.
        why: String,
    },
    /// Another role's word.
    #[error("this is a document of type {found:?}, and {role:?} was expected", role = role.word())]
    OtherType {
        /// What was expected.
        role: Role,
        /// What it says it is.
        found: String,
    },
    /// Of a TUF to come.
    #[error("it is written for TUF {found:?}, and this whimbrel reads 1.x")]
    OtherSpec {
        /// Its `spec_version`.
        found: String,
    },
    /// A number that cannot be signed.
    #[error(transparent)]
    NotWhole(#[from] NotWhole),
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose.
    pub keyid: KeyId,
    /// The signature, in hex.
    pub sig: SignatureBytes,
}

/// The bytes of a signature; hex in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureBytes(pub [u8; SIGNATURE_BYTES]);

impl Serialize for SignatureBytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for SignatureBytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        from_hex(&String::deserialize(d)?).map(Self).ok_or_else(|| de::Error::custom("a signature is 128 lower-case hex digits"))
    }
}

/// `{"signatures": […], "signed": {…}}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Envelope {
    signatures: Vec<Signature>,
    signed: Value,
}

/// An envelope as it arrives: it may hold what cannot be signed.
#[derive(Deserialize)]
struct Parts {
    signatures: Vec<Signature>,
    signed: Value,
}

impl TryFrom<Parts> for Envelope {
    type Error = String;
    fn try_from(Parts { signatures, signed }: Parts) -> Result<Self, String> {
        if signatures.len() > MAX_SIGNATURES {
            return Err(format!("it has {} signatures; at most {MAX_SIGNATURES} are looked at", signatures.len()));
        }
        canonical(&signed).map_err(|e| e.to_string())?;
        Ok(Self { signatures, signed })
    }
}

impl Envelope {
    /// An unsigned one. Fails where the document has a number that cannot be signed.
    pub fn new<D: Document>(document: &D) -> Result<Self, NotADocument> {
        let unreadable = |why: String| NotADocument::Unreadable { role: D::ROLE, why };
        let mut signed = Map::new();
        signed.insert("_type".to_owned(), D::ROLE.word().into());
        signed.insert("spec_version".to_owned(), SPEC_VERSION.into());
        match serde_json::to_value(document).map_err(|e| unreadable(e.to_string()))? {
            Value::Object(members) => signed.extend(members),
            other => return Err(unreadable(format!("{other} is no object"))),
        }
        Ok(Self::unsigned(Value::Object(signed))?)
    }

    pub(super) fn unsigned(signed: Value) -> Result<Self, NotWhole> {
        canonical(&signed)?;
        Ok(Self { signatures: Vec::new(), signed })
    }

    /// Reads the document of a role, with whatever signatures there are. None of them is verified by this.
    pub fn read<D: Document>(bytes: &[u8]) -> Result<(Self, D), NotADocument> {
        let role = D::ROLE;
        if bytes.len() > role.max_bytes() {
            return Err(NotADocument::TooLarge { role, size_bytes: bytes.len(), max_bytes: role.max_bytes() });
        }
        let envelope: Self = serde_json::from_slice(bytes).map_err(|e| NotADocument::Unreadable { role, why: e.to_string() })?;
        let document = envelope.document()?;
        Ok((envelope, document))
    }

    /// The role that its `_type` names.
    pub fn role(&self) -> Option<Role> {
        self.signed.get("_type").and_then(Value::as_str).and_then(Role::parse)
    }

    /// What it says, as the type of a role.
    pub fn document<D: Document>(&self) -> Result<D, NotADocument> {
        let found = |text: &str| text.chars().take(40).collect();
        if self.type_word() != D::ROLE.word() {
            return Err(NotADocument::OtherType { role: D::ROLE, found: found(self.type_word()) });
        }
        let spec = self.word("spec_version");
        if spec.split('.').next() != Some("1") {
            return Err(NotADocument::OtherSpec { found: found(spec) });
        }
        self.content().map_err(|why| NotADocument::Unreadable { role: D::ROLE, why })
    }

    /// Its `_type`, empty where it has none.
    pub(super) fn type_word(&self) -> &str {
        self.word("_type")
    }

    fn word(&self, name: &str) -> &str {
        self.signed.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn content<T: DeserializeOwned>(&self) -> Result<T, String> {
        T::deserialize(&self.signed).map_err(|e| e.to_string())
    }

    /// The bytes that are signed.
    pub fn payload(&self) -> Vec<u8> {
        canonical(&self.signed).expect("what cannot be signed is refused where an envelope is made")
    }

    /// The bytes that are stored and served: the same envelope always gives the same.
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("an envelope has text keys");
        canonical(&value).expect("what cannot be signed is refused where an envelope is made")
    }

    /// The signatures, valid or not.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature over [`Envelope::payload`], in place of an earlier one by the same key.
    pub fn add(&mut self, key: &PublicKey, signature: [u8; SIGNATURE_BYTES]) {
        let keyid = key.id();
        self.signatures.retain(|s| s.keyid != keyid);
        self.signatures.push(Signature { keyid, sig: SignatureBytes(signature) });
        self.signatures.sort_by_key(|s| s.keyid);
    }

    /// Which of a role's keys have signed it, each counted once.
    pub fn signed_by(&self, keys: &BTreeMap<KeyId, PublicKey>, role: &RoleKeys, verify: Verify) -> BTreeSet<KeyId> {
        let payload = self.payload();
        let good = |s: &&Signature| role.keyids.contains(&s.keyid) && keys.get(&s.keyid).is_some_and(|key| verify(key, &payload, &s.sig.0));
        self.signatures.iter().filter(good).map(|s| s.keyid).collect()
    }
}
