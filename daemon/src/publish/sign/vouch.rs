//! What a publisher's key signs besides what is new: everything that is published already. The server says what that is, and the server is
//! what signatures are to protect from. Pure.
//!
//! So each entry has to be known here: signed by the same key before, or made by this directory just the same.

use std::collections::BTreeMap;

use whimbrel_keys::verify;
use whimbrel_shared::{
    migration::{TargetEntry, Targets},
    protocol::publish::PublishLink,
    tuf::{Envelope, KeyId, PublicKey, RoleKeys, SignedTargets},
};

use super::{SignError, chain::Floor};

/// Longest that a version may be ahead of the clock, in seconds. A server that says more wants a version signed that nothing can follow.
const MAX_AHEAD_S: u64 = 365 * 86_400;
/// Most entries that an error names.
const NAMED: usize = 5;

/// What is known here of what the server says.
#[derive(Debug)]
pub struct Known<'a> {
    /// What the server says is published.
    pub published: Option<&'a Targets>,
    /// The newest signed targets that it has.
    pub signed: Option<&'a Envelope>,
    /// What this directory would publish if nothing were.
    pub made: &'a [PublishLink],
    /// What was asked about the floor.
    pub floor: Floor,
}

impl Known<'_> {
    /// Refuses `wanted` where it says, on the server's word alone, what the owner of `key` does not know.
    pub fn check(&self, key: &PublicKey, wanted: &SignedTargets) -> Result<(), SignError> {
        let before = self.signed_by(key);
        let made: BTreeMap<String, &TargetEntry> = self.made.iter().map(|link| (link.target.path(), &link.target)).collect();
        let known = |path: &String, entry: &TargetEntry| {
            before.as_ref().is_some_and(|b| b.targets.get(path) == Some(entry)) || made.get(path).is_some_and(|m| *m == entry)
        };
        let published = self.published.into_iter().flat_map(|p| &p.targets);
        let strange: Vec<String> = published.filter(|(path, entry)| !known(path, entry)).map(|(path, _)| path.clone()).collect();
        if !strange.is_empty() {
            let more = strange.len().saturating_sub(NAMED);
            let mut names = strange.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            if more > 0 {
                names += &format!(" and {more} more");
            }
            return Err(SignError::Strange { names, key: key.id() });
        }
        if self.floor == Floor::AsBefore && wanted.revert_floor != before.as_ref().and_then(|b| b.revert_floor) {
            return Err(SignError::StrangeFloor { floor: wanted.revert_floor, key: key.id() });
        }
        Ok(())
    }

    /// The signed targets, if `key` has signed them.
    fn signed_by(&self, key: &PublicKey) -> Option<SignedTargets> {
        let envelope = self.signed?;
        let alone = RoleKeys { keyids: [key.id()].into(), threshold: 1 };
        let keys: BTreeMap<KeyId, PublicKey> = [(key.id(), *key)].into();
        let signed = alone.met_by(&envelope.signed_by(&keys, &alone, verify));
        signed.then(|| envelope.document().ok()).flatten()
    }
}

/// Refuses a version after which there could be no other.
pub fn check_version(known: u64, now_ms: i64) -> Result<(), SignError> {
    let now_s = u64::try_from(now_ms / 1000).unwrap_or(0);
    if known > now_s.saturating_add(MAX_AHEAD_S) { Err(SignError::FastForward { known }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use whimbrel_keys::SigningKey;
    use whimbrel_shared::{
        migration::Link,
        protocol::publish::SeedQueries,
        tuf::{Document, Time},
    };

    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32])
    }

    fn link(version: u32, body: &str) -> PublishLink {
        let target = TargetEntry::new(body.as_bytes(), Link::new(format!("{version:04}").parse().unwrap(), version, None));
        PublishLink { target, body: body.to_owned(), seed: SeedQueries::default() }
    }

    fn plain(links: &[PublishLink]) -> Targets {
        let targets = links.iter().map(|l| (l.target.path(), l.target.clone())).collect();
        Targets { app: "notes".parse().unwrap(), version: 1, targets }
    }

    fn signed(links: &[PublishLink], revert_floor: Option<u32>) -> SignedTargets {
        let Targets { app, targets, .. } = plain(links);
        SignedTargets { app, version: 2, expires: Time::from_ms(0), revert_floor, targets }
    }

    fn envelope(document: &impl Document, signer: &SigningKey) -> Envelope {
        let mut envelope = Envelope::new(document).unwrap();
        let signature = signer.sign(&envelope.payload());
        envelope.add(&signer.public(), signature);
        envelope
    }

    #[test]
    fn a_key_signs_what_it_signed_before_or_what_the_directory_makes_and_nothing_on_the_servers_word() {
        let (mine, theirs) = (key(1), key(2));
        let links = [link(1, "a"), link(2, "b")];
        let published = plain(&links);
        let before = envelope(&signed(&links, Some(1)), &mine);
        let check = |published: &Targets, before: Option<&Envelope>, made: &[PublishLink], floor, wanted: &SignedTargets| {
            Known { published: Some(published), signed: before, made, floor }.check(&mine.public(), wanted)
        };
        // Signed by this key, with its floor; nothing in the directory.
        check(&published, Some(&before), &[], Floor::AsBefore, &signed(&links, Some(1))).unwrap();
        // Never signed, and made here just so.
        check(&published, None, &links, Floor::AsBefore, &signed(&links, None)).unwrap();
        // Signed by somebody else: as good as not.
        let others = envelope(&signed(&links, Some(1)), &theirs);
        let error = check(&published, Some(&others), &links[..1], Floor::None, &signed(&links, None)).unwrap_err();
        assert!(matches!(&error, SignError::Strange { names, .. } if names == "0002.r1.json"), "{error}");
        // One that was slipped in, and one with other bytes, between those that are known.
        for slipped in [link(3, "DROP TABLE x"), link(2, "DROP TABLE x")] {
            let all = [links[0].clone(), links[1].clone(), slipped];
            let error = check(&plain(&all), Some(&before), &links, Floor::AsBefore, &signed(&all, Some(1))).unwrap_err();
            assert!(matches!(error, SignError::Strange { .. }), "{error}");
        }
        // The bytes are right, and what the entry says of them is not.
        let mut entry = links.clone();
        entry[1].target.custom.min_sqlite = Some("9.9.9".to_owned());
        assert!(check(&plain(&entry), None, &links, Floor::AsBefore, &signed(&entry, None)).is_err());
        // A floor that the server made up is refused; one that the publisher says is not.
        let error = check(&published, Some(&before), &links, Floor::AsBefore, &signed(&links, Some(0))).unwrap_err();
        assert!(matches!(error, SignError::StrangeFloor { floor: Some(0), .. }), "{error}");
        check(&published, Some(&before), &links, Floor::Version(0), &signed(&links, Some(0))).unwrap();
    }

    #[test]
    fn a_version_that_none_could_follow_is_not_signed() {
        check_version(5, 0).unwrap();
        check_version(1_800_000_000, 1_800_000_000_000).unwrap();
        assert!(check_version(u64::MAX - 1, 1_800_000_000_000).is_err());
    }
}
