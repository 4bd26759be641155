//! Who says what: the four roles, how long what they say is good, and where it lies in a repository. Pure.

use serde::{Deserialize, Serialize};

/// A role of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Says which keys the others have. Offline, several people.
    Root,
    /// Says what the migrations are. The publisher.
    Targets,
    /// Says which targets metadata is current. The server.
    Snapshot,
    /// Says which snapshot is current, and that this was so a moment ago. The server.
    Timestamp,
}

const DAY_MS: i64 = 86_400_000;

impl Role {
    /// All of them, as they depend on each other.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];
    /// Those whose keys the server has.
    pub const ONLINE: [Self; 2] = [Self::Snapshot, Self::Timestamp];

    /// Its name in documents, tables and file names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }

    /// The role of that name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }

    /// How long a document of this role is good when nobody says otherwise. People sign the first two, and a fleet must not
    /// stop because one of them is on holiday; a server signs the others at half of that.
    pub fn lasts_ms(self) -> i64 {
        match self {
            Self::Root | Self::Targets => 730 * DAY_MS,
            Self::Snapshot | Self::Timestamp => 14 * DAY_MS,
        }
    }

    /// Largest document that devices read, in bytes.
    pub fn max_bytes(self) -> usize {
        match self {
            Self::Root => 512_000,
            Self::Targets => 5_000_000,
            Self::Snapshot => 2_000_000,
            Self::Timestamp => 16_384,
        }
    }

    /// Its file in the repository: the version is part of the name, but for the one that is asked for without knowing any.
    pub fn file(self, version: u64) -> String {
        match self {
            Self::Root | Self::Targets | Self::Snapshot => format!("{version}.{}.json", self.word()),
            Self::Timestamp => "timestamp.json".to_owned(),
        }
    }

    /// Role and version of a file name with a version: `7.root.json`.
    pub fn of_file(name: &str) -> Option<(Self, u64)> {
        let (version, rest) = name.split_once('.')?;
        let role = Self::parse(rest.strip_suffix(".json")?)?;
        let plain = !version.starts_with(['0', '+']);
        (plain && role != Self::Timestamp).then_some((role, version.parse().ok()?))
    }
}

/// As it is written in documents.
impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_says_role_and_version_or_nothing() {
        for role in [Role::Root, Role::Targets, Role::Snapshot] {
            assert_eq!(Role::of_file(&role.file(12)), Some((role, 12)));
        }
        for bad in ["root.json", "0.root.json", "01.root.json", "+1.root.json", "1.timestamp.json", "1.root", "1.other.json", "-1.root.json", "x"] {
            assert_eq!(Role::of_file(bad), None, "{bad}");
        }
    }
}
