//! Names and numbers that identify things. Pure. Each is its own type, checked where it enters.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct BadId {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl BadId {
    /// For ids that live beside what they number.
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else {
                    let shown: String = text.chars().take(80).collect();
                    Err(BadId { what: $what, text: shown, rule: $rule })
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
        impl fmt::Display for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }
        impl fmt::Debug for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// From 128 bits of the caller's dice, so that a simulation can replay them.
            pub fn from_dice(dice: u128) -> Self {
                Self(uuid::Builder::from_random_bytes(dice.to_be_bytes()).into_uuid())
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                uuid::Uuid::parse_str(text).map(Self).map_err(|_| BadId {
                    what: stringify!($name), text: text.chars().take(80).collect(), rule: "it is a UUID",
                })
            }
        }
        impl fmt::Display for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) } }
        impl fmt::Debug for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) } }
    };
}

text_id!(
    /// One application's schema lineage.
    AppName, "app name", "1 to 64 of a-z, 0-9, '-', '_' and '.', the first a letter or digit",
    |t| (1..=64).contains(&t.len())
        && t.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
);
text_id!(
    /// The name of one migration, unique in its app. It becomes part of a file name and of a URL path.
    MigrationName, "migration name", "1 to 200 of letters, digits, '-', '_', '.', '+' and space, the first no dot or space",
    |t| (1..=200).contains(&t.len())
        && !t.starts_with(['.', ' '])
        && !t.ends_with(' ')
        && t.chars().all(|c| c.is_alphanumeric() || "-_.+ ".contains(c))
);
text_id!(
    /// The set of rows that a database exchanges, unique in its app.
    SpaceName, "space name", "1 to 64 of letters, digits, '-', '_', '.' and '@', the first a letter or digit",
    |t| (1..=64).contains(&t.len())
        && t.starts_with(|c: char| c.is_ascii_alphanumeric())
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
);

impl Default for SpaceName {
    /// The one space that an app has where nobody says otherwise.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

uuid_id!(
    /// A machine with the daemon.
    DeviceId
);
uuid_id!(
    /// One database of an app on a device: the seed systems' `clientId`.
    ClientId
);
uuid_id!(
    /// One fact in a database's history. Random, so that a restored file never reuses one.
    EventId
);
uuid_id!(
    /// One wish of a device to be enrolled, however often it is asked.
    EnrolmentId
);
uuid_id!(
    /// One push of rows, however often it is sent.
    PushId
);
uuid_id!(
    /// One request of a person at the device (`whimbrel apply`, `retry`, `revert`).
    RequestId
);

/// SHA-256 of some bytes; lower-case hex on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex digits: enough for a person to tell two apart.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { what: "digest", text: text.chars().take(80).collect(), rule: "it is 64 lower-case hex digits" };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(bad());
        }
        let mut bytes = [0u8; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", "../etc", "a/b", ".hidden", "a\\b", "a\0b", " x"] {
            assert!(bad.parse::<MigrationName>().is_err(), "{bad:?}");
        }
        for good in ["0001_init", "2024-01-01T10.00 add users", "V1__ürlaub", "20240101120000_x"] {
            assert!(good.parse::<MigrationName>().is_ok(), "{good:?}");
        }
        assert!("Notes".parse::<AppName>().is_err());
        assert!("notes-2.x".parse::<AppName>().is_ok());
    }

    #[test]
    fn a_digest_reads_back_what_it_printed() {
        let digest = Digest::of(b"whimbrel");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }
}
