//! The targets metadata of a chain, as it is signed before a publish. Pure, but for the file that goes round.

use std::{collections::BTreeMap, path::Path};

use whimbrel_shared::{
    ids::AppName,
    migration::Targets,
    protocol::publish::{PublishLink, TrustResponse},
    tuf::{Envelope, Role, SignedTargets, Time, fresh::next_version},
};

use super::{
    SignError,
    round::{Content, Round},
};

/// Down to which version a plan of the server may revert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// As it was signed before; none at first.
    AsBefore,
    /// Nowhere: only a person at the device reverts.
    None,
    /// To that version.
    Version(u32),
}

impl std::str::FromStr for Floor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            number => number.parse().map(Self::Version).map_err(|_| "it is a version, or none".to_owned()),
        }
    }
}

/// The newest version of the targets so far, as far as the server remembers.
pub fn known(published: Option<&Targets>, trust: &TrustResponse) -> u64 {
    let signed = trust.expires.get(Role::Targets.word()).map_or(0, |s| s.version);
    published.map_or(0, |p| p.version).max(signed)
}

/// What is to be signed: what is published, and `links` after it. Its version counts by the clock: a server that was restored
/// from a backup has forgotten some, and devices have not.
pub fn document(
    app: &AppName,
    published: Option<&Targets>,
    links: &[PublishLink],
    trust: &TrustResponse,
    floor: Floor,
    lasts_ms: i64,
    now_ms: i64,
) -> SignedTargets {
    let mut targets = published.map_or_else(BTreeMap::new, |p| p.targets.clone());
    targets.extend(links.iter().map(|link| (link.target.path(), link.target.clone())));
    let version = next_version(known(published, trust), now_ms);
    let revert_floor = match floor {
        Floor::AsBefore => trust.revert_floor,
        Floor::None => None,
        Floor::Version(version) => Some(version),
    };
    let expires = Time::from_ms(now_ms.saturating_add(lasts_ms));
    SignedTargets { app: app.clone(), version, expires, revert_floor, targets }
}

/// The round of a document: the one in `file`, if it is over the same, else a new one. Whoever comes second signs what the first
/// has signed, with its version and its end, and not their own copy of it. `known`: the newest version that is published.
pub fn round(file: &Path, wanted: &SignedTargets, known: u64, root: &Envelope) -> Result<Round, SignError> {
    if !file.exists() {
        return Ok(Round::new(Envelope::new(wanted).map_err(|e| SignError::Root(e.into()))?, Some(root.clone())));
    }
    let round = Round::read(file)?;
    let stale = |why: &str| Err(SignError::Stale { path: file.to_owned(), why: why.to_owned() });
    let Content::Targets(found) = round.content()? else {
        return stale("it is a root");
    };
    if round.before()?.map(|r| r.version) != root.document::<whimbrel_shared::tuf::Root>().ok().map(|r| r.version) {
        return stale("the root has changed since");
    }
    if found.app != wanted.app {
        return stale("it is for another app");
    }
    if found.version <= known {
        return stale(&format!("it is version {}, and version {known} is published", found.version));
    }
    if found.revert_floor != wanted.revert_floor {
        return stale("it has another revert floor");
    }
    let differs = wanted.targets.iter().find(|(path, entry)| found.targets.get(*path) != Some(entry)).map(|(path, _)| path);
    match differs.or_else(|| found.targets.keys().find(|path| !wanted.targets.contains_key(*path))) {
        Some(path) => stale(&format!("{path} differs")),
        None => Ok(round),
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_keys::SigningKey;
    use whimbrel_shared::{
        migration::{Link, TargetEntry},
        protocol::publish::SeedQueries,
    };

    use super::*;
    use crate::publish::sign::{
        draft::{Changes, draft, tests::online},
        hand::Hand,
    };

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32])
    }

    fn link(version: u32) -> PublishLink {
        let target = TargetEntry::new(b"{}", Link::new(format!("{version:04}").parse().unwrap(), version, None));
        PublishLink { target, body: "{}".to_owned(), seed: SeedQueries::default() }
    }

    #[test]
    fn a_round_is_continued_only_over_the_same_chain() {
        let app: AppName = "notes".parse().unwrap();
        let publishers = Changes {
            add_root: vec![key(1).public()],
            add_publishers: vec![key(8).public(), key(9).public()],
            publisher_threshold: Some(2),
            ..Changes::default()
        };
        let root = Envelope::new(&draft(&app, None, &publishers, &online(), 0).unwrap()).unwrap();
        let trust = TrustResponse { online: online(), root: Some(root.clone()), revert_floor: Some(3), expires: BTreeMap::new(), alarms: Vec::new() };
        let wanted = |links: &[PublishLink], floor, now_ms| document(&app, None, links, &trust, floor, 1_000, now_ms);
        assert_eq!(wanted(&[], Floor::AsBefore, 0).revert_floor, Some(3));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("targets.json");
        let mut first = round(&file, &wanted(&[link(1)], Floor::None, 0), 0, &root).unwrap();
        first.sign(&Hand::Key(key(8))).unwrap();
        assert_eq!(first.missing().unwrap(), 1);
        first.write(&file).unwrap();
        let mut second = round(&file, &wanted(&[link(1)], Floor::None, 5_000), 0, &root).unwrap();
        second.sign(&Hand::Key(key(9))).unwrap();
        assert_eq!(second.missing().unwrap(), 0);
        assert_eq!(wanted(&[link(1)], Floor::None, 5_000_000).version, 5_000, "by the clock");
        let published = round(&file, &wanted(&[link(1)], Floor::None, 9_000), 1, &root).unwrap_err();
        assert!(published.to_string().contains("version 1 is published"), "{published}");
        for (links, floor) in [(vec![link(1), link(2)], Floor::None), (vec![], Floor::None), (vec![link(1)], Floor::Version(1))] {
            let error = round(&file, &wanted(&links, floor, 0), 0, &root).unwrap_err();
            assert!(matches!(error, SignError::Stale { .. }), "{error}");
        }
    }
}
