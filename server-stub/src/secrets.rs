//! Keys and tokens: 256 random bits behind a prefix that says what it is. The server keeps only their digests.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use whimbrel_shared::ids::Digest;

/// What a secret is for. Its prefix lets a person see it, and a scanner find a leaked one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operator's or publisher's API key.
    ApiKey,
    /// Exchanged once for a device token.
    Enrolment,
    /// What a device proves itself with.
    Device,
}

impl Kind {
    const ALL: [Self; 3] = [Self::ApiKey, Self::Enrolment, Self::Device];

    fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "whk_",
            Self::Enrolment => "wht_",
            Self::Device => "whd_",
        }
    }

    /// The name for people.
    pub fn noun(self) -> &'static str {
        match self {
            Self::ApiKey => "an API key",
            Self::Enrolment => "an enrolment token",
            Self::Device => "a device token",
        }
    }

    /// What `text` claims to be, by its prefix.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))
    }
}

/// A new secret, in the clear. It is printed or sent once and never stored or logged.
pub struct Secret(String);

impl Secret {
    /// 256 bits from the system.
    pub fn new(kind: Kind) -> Self {
        let hex: String = random::<32>().iter().map(|b| format!("{b:02x}")).collect();
        Self(format!("{}{hex}", kind.prefix()))
    }

    /// The text, for the one who asked for it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether two digests are equal, in a time that does not depend on where they differ.
pub fn same(a: &Digest, b: &Digest) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Read, and publish migrations.
    Publish,
    /// Read, and set plans.
    Operate,
    /// Read.
    Read,
}

impl Scope {
    /// The word as it stands in tables and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Publish => "publish",
            Self::Operate => "operate",
            Self::Read => "read",
        }
    }

    /// The scope for a word, if it is one.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Admin, Self::Publish, Self::Operate, Self::Read].into_iter().find(|scope| scope.as_str() == word)
    }

    /// Whether a key of this scope may do what needs `needed`.
    pub fn allows(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Publish | Self::Operate => needed == self || needed == Self::Read,
            Self::Read => needed == Self::Read,
        }
    }
}

/// 128 random bits, for ids.
pub fn dice() -> u128 {
    u128::from_be_bytes(random::<16>())
}

/// Milliseconds since 1970 by the system's clock.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("Linux's random source cannot fail once it is seeded");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_what_it_is_and_no_two_are_equal() {
        let secret = Secret::new(Kind::Device);
        assert_eq!(Kind::of(secret.reveal()), Some(Kind::Device));
        assert_eq!(secret.reveal().len(), 4 + 64);
        assert!(!same(&secret.digest(), &Secret::new(Kind::Device).digest()));
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }

    #[test]
    fn a_scope_allows_itself_and_reading_and_only_admin_allows_all() {
        let check = |scope: Scope, allowed: &[Scope]| {
            for needed in [Scope::Admin, Scope::Publish, Scope::Operate, Scope::Read] {
                assert_eq!(scope.allows(needed), allowed.contains(&needed), "{scope:?} for {needed:?}");
            }
        };
        check(Scope::Admin, &[Scope::Admin, Scope::Publish, Scope::Operate, Scope::Read]);
        check(Scope::Publish, &[Scope::Publish, Scope::Read]);
        check(Scope::Operate, &[Scope::Operate, Scope::Read]);
        check(Scope::Read, &[Scope::Read]);
    }
}
