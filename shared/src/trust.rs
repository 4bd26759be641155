//! When bytes may run. Pure. `verify` is the only road to a [`VerifiedMigration`].

use crate::{
    ids::Digest,
    migration::{BadMigration, Link, MAX_CHAIN, Migration, TargetEntry, Targets},
    remedy::{Remedy, operator},
    row_schema::RowSchema,
};

/// A migration whose bytes are those of its targets entry. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedMigration {
    migration: Migration,
    entry: TargetEntry,
}

impl VerifiedMigration {
    /// What is to run.
    pub fn migration(&self) -> &Migration {
        &self.migration
    }

    /// Where it stands.
    pub fn link(&self) -> &Link {
        &self.entry.custom
    }

    /// Digest of its bytes.
    pub fn digest(&self) -> Digest {
        self.entry.digest()
    }
}

/// Why bytes or a chain are not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Length or digest differ.
    #[error("the bytes of {path} are not those of its targets entry: {got_bytes} bytes {got}, expected {want_bytes} bytes {want}")]
    WrongBytes {
        /// Target path.
        path: String,
        /// Length received.
        got_bytes: u64,
        /// Digest received.
        got: Digest,
        /// Length promised.
        want_bytes: u64,
        /// Digest promised.
        want: Digest,
    },
    /// The bytes are right and are not a migration.
    #[error("{path}: {source}")]
    NotAMigration {
        /// Target path.
        path: String,
        /// What is wrong.
        source: BadMigration,
    },
    /// The entry stands under another path, or names another migration.
    #[error("the targets entry {path:?} belongs to {belongs:?}")]
    WrongName {
        /// Where it stands.
        path: String,
        /// Where it should.
        belongs: String,
    },
    /// The versions are not 1, 2, 3 …, or `previous` is not the predecessor's digest.
    #[error("the chain is broken at version {version}: {why}")]
    BrokenChain {
        /// Where.
        version: u32,
        /// How.
        why: String,
    },
    /// The ids of tables and columns, or what is said of exchanging rows, cannot be.
    #[error("version {version} (revision {revision}) gives ids or settings of rows that cannot be: {why}")]
    BadIds {
        /// Where.
        version: u32,
        /// Its revision.
        revision: u32,
        /// How.
        why: String,
    },
    /// A published link changed.
    #[error("{name} was accepted with digest {known} and is now offered with {offered}; the accepted one is kept")]
    Changed {
        /// The migration.
        name: String,
        /// What was accepted.
        known: Digest,
        /// What is offered.
        offered: Digest,
    },
}

impl TrustError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::WrongBytes { .. } | Self::NotAMigration { .. } | Self::WrongName { .. } => {
                operator("the repository serves damaged or foreign bytes: restore it, or publish again")
            }
            Self::BrokenChain { .. } => operator("publish the chain again from the directory it came from"),
            Self::BadIds { .. } => operator(
                "restore the repository from a backup, or publish with whimbrel, which gives ids by itself; those that were given never change",
            ),
            Self::Changed { .. } => operator("a published migration never changes: restore its text, and put the change into a new one"),
        }
    }
}

/// Checks `bytes` against `entry`: length first, then digest, then content. Nothing is kept on failure.
pub fn verify(entry: &TargetEntry, bytes: &[u8]) -> Result<VerifiedMigration, TrustError> {
    let path = entry.path();
    let got = Digest::of(bytes);
    if bytes.len() as u64 != entry.length || got != entry.digest() {
        return Err(TrustError::WrongBytes { path, got_bytes: bytes.len() as u64, got, want_bytes: entry.length, want: entry.digest() });
    }
    let migration = Migration::from_bytes(bytes).map_err(|source| TrustError::NotAMigration { path: path.clone(), source })?;
    if migration.name != entry.custom.name {
        return Err(TrustError::WrongName { path, belongs: migration.name.to_string() });
    }
    Ok(VerifiedMigration { migration, entry: entry.clone() })
}

/// Checks that `targets` are one unbroken chain: versions 1, 2, 3 … without a gap, revisions 1, 2 … in each that all do the
/// same to the schema, to ids and to the settings of rows, `previous` the digest of the predecessor's first revision, names
/// unique, no id given twice. Returns it in order.
pub fn check_chain(targets: &Targets) -> Result<Vec<&TargetEntry>, TrustError> {
    let broken = |version: u32, why: String| TrustError::BrokenChain { version, why };
    if targets.targets.len() > MAX_CHAIN {
        return Err(broken(0, format!("it has {} links; at most {MAX_CHAIN} are read", targets.targets.len())));
    }
    for (path, entry) in &targets.targets {
        if *path != entry.path() {
            return Err(TrustError::WrongName { path: path.clone(), belongs: entry.path() });
        }
    }
    let chain = targets.chain();
    let mut slot: Option<&TargetEntry> = None; // first revision of the version being read
    let mut last: Option<&TargetEntry> = None;
    let mut names = std::collections::BTreeSet::new();
    let mut ids = RowSchema::default();
    for entry in &chain {
        let link = &entry.custom;
        let (version, revision) = last.map_or((0, 0), |l| (l.custom.version, l.custom.revision));
        if link.version == version {
            let first = slot.expect("a version that was seen has a first revision");
            if link.revision != revision + 1 {
                return Err(broken(link.version, format!("revision {} follows revision {revision}", link.revision)));
            }
            if link.name != first.custom.name || link.mends != Some(first.digest()) || link.previous != first.custom.previous {
                return Err(broken(link.version, format!("revision {} does not mend revision 1", link.revision)));
            }
            // Who completed another revision stands where this one ends.
            if first.custom.schema.is_some() && link.schema != first.custom.schema {
                return Err(broken(link.version, format!("revision {} ends in another schema than revision 1", link.revision)));
            }
            // Rows travel by these, whichever revision ran.
            if link.columns != first.custom.columns || link.sync != first.custom.sync {
                return Err(broken(link.version, format!("revision {} gives other column ids or settings of rows than revision 1", link.revision)));
            }
        } else {
            if link.version != version + 1 {
                return Err(broken(link.version, format!("it follows version {version}")));
            }
            if link.revision != 1 {
                return Err(broken(link.version, "its first revision is missing".to_owned()));
            }
            if link.previous != slot.map(TargetEntry::digest) {
                return Err(broken(link.version, "its `previous` is not the digest of its predecessor".to_owned()));
            }
            if !names.insert(&link.name) {
                return Err(broken(link.version, format!("the name {} stands twice", link.name)));
            }
            slot = Some(entry);
            ids.pass(link).map_err(|why| TrustError::BadIds { version: link.version, revision: link.revision, why })?;
        }
        last = Some(entry);
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{fingerprint::SchemaChange, manifest::Manifest, migration::FORMAT};

    fn chain(length: u32) -> (Targets, Vec<Vec<u8>>) {
        let mut targets = Targets { app: "notes".parse().unwrap(), version: 1, targets: BTreeMap::new() };
        let mut bodies = Vec::new();
        let mut previous = None;
        for version in 1..=length {
            let migration = Migration {
                format: FORMAT.to_owned(),
                name: format!("{version:04}").parse().unwrap(),
                manifest: Manifest::default(),
                down: None,
                files: BTreeMap::from([("up.sql".to_owned(), format!("CREATE TABLE t{version}(x);"))]),
            };
            let body = migration.to_bytes();
            let link = Link::new(migration.name.clone(), version, previous);
            let entry = TargetEntry::new(&body, link);
            previous = Some(entry.digest());
            targets.targets.insert(entry.path(), entry);
            bodies.push(body);
        }
        (targets, bodies)
    }

    #[test]
    fn one_changed_bit_is_refused() {
        let (targets, bodies) = chain(1);
        let entry = targets.chain()[0].clone();
        assert!(verify(&entry, &bodies[0]).is_ok());
        for at in 0..bodies[0].len() {
            let mut bytes = bodies[0].clone();
            bytes[at] ^= 1;
            assert!(matches!(verify(&entry, &bytes), Err(TrustError::WrongBytes { .. })));
        }
    }

    #[test]
    fn a_gap_a_swap_and_a_forged_predecessor_break_the_chain() {
        let (whole, _) = chain(5);
        assert_eq!(check_chain(&whole).unwrap().len(), 5);
        let path = |v: u32| format!("{v:04}.r1.json");

        let mut gap = whole.clone();
        gap.targets.remove(&path(3));
        assert!(matches!(check_chain(&gap), Err(TrustError::BrokenChain { version: 4, .. })));

        let mut forged = whole.clone();
        forged.targets.get_mut(&path(4)).unwrap().custom.previous = Some(Digest::of(b"else"));
        assert!(matches!(check_chain(&forged), Err(TrustError::BrokenChain { version: 4, .. })));

        let mut swapped = whole.clone();
        let two = swapped.targets[&path(2)].clone();
        swapped.targets.insert(path(3), two);
        assert!(matches!(check_chain(&swapped), Err(TrustError::WrongName { .. })));
    }

    #[test]
    fn ids_that_come_back_or_differ_among_revisions_break_the_chain() {
        let (mut targets, _) = chain(3);
        let ids = |json: &str| -> Option<crate::ledger::ColumnChange> { Some(serde_json::from_str(json).unwrap()) };
        let give = |targets: &mut Targets, version: u32, json: &str| {
            targets.targets.get_mut(&format!("{version:04}.r1.json")).unwrap().custom.columns = ids(json);
        };
        give(&mut targets, 1, r#"{"made":[[1,"t1",[[1,"x"]]]]}"#);
        give(&mut targets, 2, r#"{"made":[[2,"t2",[[1,"x"]]]],"dropped":[1]}"#);
        give(&mut targets, 3, r#"{"made":[[3,"t3",[[1,"x"]]]]}"#);
        check_chain(&targets).unwrap();
        let mut again = targets.clone();
        give(&mut again, 3, r#"{"made":[[1,"t3",[[1,"x"]]]]}"#);
        let error = check_chain(&again).unwrap_err();
        assert!(matches!(&error, TrustError::BadIds { version: 3, why, .. } if why.contains("never given again")), "{error}");
        let mut second = targets.targets["0002.r1.json"].clone();
        second.custom.revision = 2;
        second.custom.mends = Some(targets.targets["0002.r1.json"].digest());
        second.hashes.sha256 = Digest::of(b"mended");
        targets.targets.insert(second.path(), second.clone());
        check_chain(&targets).unwrap();
        second.custom.columns = ids(r#"{"made":[[2,"t2",[[2,"x"]]]],"dropped":[1]}"#);
        targets.targets.insert(second.path(), second);
        let error = check_chain(&targets).unwrap_err();
        assert!(error.to_string().contains("revision 2 gives other column ids"), "{error}");
    }

    #[test]
    fn a_revision_mends_its_slot_and_the_chain_goes_on_from_the_slot() {
        let (mut targets, _) = chain(3);
        let first = targets.targets["0002.r1.json"].clone();
        let mut second = first.clone();
        second.custom.revision = 2;
        second.custom.mends = Some(first.digest());
        second.hashes.sha256 = Digest::of(b"mended");
        targets.targets.insert(second.path(), second.clone());
        assert!(check_chain(&targets).is_ok());
        // Wherever the first was rehearsed, all of them end in one schema.
        let change = |digest: &str| SchemaChange(BTreeMap::from([("table t2".to_owned(), Some(digest.to_owned()))]));
        let mut rehearsed = targets.clone();
        for path in ["0002.r1.json", "0002.r2.json"] {
            rehearsed.targets.get_mut(path).unwrap().custom.schema = Some(change("0123456789abcdef"));
        }
        assert!(check_chain(&rehearsed).is_ok());
        for other in [Some(change("fedcba9876543210")), None] {
            rehearsed.targets.get_mut("0002.r2.json").unwrap().custom.schema = other;
            assert!(matches!(check_chain(&rehearsed), Err(TrustError::BrokenChain { version: 2, .. })));
        }
        second.custom.mends = None;
        targets.targets.insert(second.path(), second);
        assert!(matches!(check_chain(&targets), Err(TrustError::BrokenChain { version: 2, .. })));
    }
}
