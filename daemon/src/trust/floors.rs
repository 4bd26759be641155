//! Which versions are not believed any more. Pure. The rules are those of TUF 5.3.11 and 5.4 to 5.6
//! (<https://theupdateframework.github.io/specification/>), which the library holds against the metadata that is kept;
//! here they are held against the second copy, so that a damaged store forgets nothing.

use std::collections::BTreeMap;

use whimbrel_shared::ids::Digest;

use crate::store::trust::Floor;

/// Roles with a floor, in the order of the chain.
pub const ROLES: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// What a root says of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleKeys {
    /// Keys that may sign.
    pub keyids: Vec<String>,
    /// How many have to.
    pub threshold: usize,
}

/// What has been verified of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub version: u64,
    /// Key ids that signed it.
    pub signers: Vec<String>,
}

/// A version that is lower than one that was believed before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{role} has version {offered}, and version {floor} was verified before")]
pub struct BelowFloor {
    /// Of which role.
    pub role: String,
    /// What was offered.
    pub offered: u64,
    /// What was verified before.
    pub floor: u64,
}

/// Whether what these keys signed is still signed well enough for the role.
fn stands(signers: &[String], keys: Option<&RoleKeys>) -> bool {
    keys.is_some_and(|keys| keys.threshold > 0 && keys.keyids.iter().filter(|id| signers.contains(id)).count() >= keys.threshold)
}

fn floor<'a>(floors: &'a [Floor], role: &str) -> Option<&'a Floor> {
    floors.iter().filter(|f| f.role == role).max_by_key(|f| f.version)
}

/// Whether a root with `keys` took the keys of timestamp or snapshot away since the floors were set.
pub fn rotated(floors: &[Floor], keys: &BTreeMap<String, RoleKeys>) -> bool {
    ["timestamp", "snapshot"].iter().any(|role| floor(floors, role).is_some_and(|f| !stands(&f.signers, keys.get(*role))))
}

/// The floors after `seen` was verified under a root with `keys`, pinned as `anchor`; or the floor that it falls below.
/// A role that was not seen keeps its floor. Roots never go back below one that began at the same pinned root. Floors of the
/// other roles end when the root takes the keys of timestamp or snapshot away: that is how a repository recovers from
/// versions that a thief drove up.
pub fn raise(floors: &[Floor], seen: &BTreeMap<String, Seen>, keys: &BTreeMap<String, RoleKeys>, anchor: Digest) -> Result<Vec<Floor>, BelowFloor> {
    let rotated = rotated(floors, keys);
    let mut raised = Vec::new();
    for role in ROLES {
        let holds = floor(floors, role).filter(|f| match role {
            "root" => f.anchor == anchor || stands(&f.signers, keys.get(role)),
            _ => !rotated,
        });
        match (seen.get(role), holds) {
            (Some(seen), Some(floor)) if seen.version < floor.version => {
                return Err(BelowFloor { role: role.to_owned(), offered: seen.version, floor: floor.version });
            }
            (Some(seen), _) => {
                raised.push(Floor { role: role.to_owned(), version: seen.version, signers: seen.signers.clone(), anchor });
            }
            (None, Some(floor)) => raised.push(floor.clone()),
            (None, None) => {}
        }
    }
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn floor(role: &str, version: u64, signer: &str) -> Floor {
        Floor { role: role.into(), version, signers: vec![signer.into()], anchor: anchor("a") }
    }

    fn seen(all: &[(&str, u64)]) -> BTreeMap<String, Seen> {
        all.iter().map(|(role, version)| ((*role).to_owned(), Seen { version: *version, signers: vec![format!("{role}-key")] })).collect()
    }

    fn keys(timestamp: &str) -> BTreeMap<String, RoleKeys> {
        let one = |id: &str| RoleKeys { keyids: vec![id.to_owned()], threshold: 1 };
        let mut keys: BTreeMap<_, _> = ROLES.iter().map(|role| ((*role).to_owned(), one(&format!("{role}-key")))).collect();
        keys.insert("timestamp".into(), one(timestamp));
        keys
    }

    fn floors() -> Vec<Floor> {
        ROLES.iter().map(|role| floor(role, 5, &format!("{role}-key"))).collect()
    }

    const ALL_FIVE: [(&str, u64); 4] = [("root", 5), ("timestamp", 5), ("snapshot", 5), ("targets", 5)];

    #[test]
    fn no_role_goes_back() {
        for (at, role) in ROLES.iter().enumerate() {
            let mut offered = ALL_FIVE;
            assert!(raise(&floors(), &seen(&offered), &keys("timestamp-key"), anchor("a")).is_ok());
            offered[at].1 = 4;
            let error = raise(&floors(), &seen(&offered), &keys("timestamp-key"), anchor("a")).unwrap_err();
            assert_eq!(error, BelowFloor { role: (*role).to_owned(), offered: 4, floor: 5 });
        }
    }

    #[test]
    fn a_root_that_takes_the_online_keys_away_ends_what_a_thief_drove_up() {
        let lower = seen(&[("root", 6), ("timestamp", 1), ("snapshot", 1), ("targets", 1)]);
        assert!(raise(&floors(), &lower, &keys("timestamp-key"), anchor("a")).is_err());
        let raised = raise(&floors(), &lower, &keys("another-key"), anchor("a")).unwrap();
        assert_eq!(raised.iter().map(|f| f.version).collect::<Vec<_>>(), [6, 1, 1, 1]);
    }

    #[test]
    fn a_role_that_was_not_reached_keeps_its_floor() {
        let raised = raise(&floors(), &seen(&[("root", 6)]), &keys("timestamp-key"), anchor("a")).unwrap();
        assert_eq!(raised.iter().map(|f| f.version).collect::<Vec<_>>(), [6, 5, 5, 5]);
    }

    #[test]
    fn a_root_goes_back_only_where_a_person_pinned_another_line_of_roots() {
        let first = seen(&[("root", 1)]);
        assert!(raise(&floors(), &first, &keys("timestamp-key"), anchor("a")).is_err());
        assert!(raise(&floors(), &first, &keys("timestamp-key"), anchor("b")).is_err(), "signed by keys that the floor knows");
        let mut strangers = keys("timestamp-key");
        strangers.insert("root".into(), RoleKeys { keyids: vec!["stranger".into()], threshold: 1 });
        assert!(raise(&floors(), &first, &strangers, anchor("b")).is_ok());
    }
}
