//! Whether links may be added to an app's chain, and what its targets metadata is then. Pure.

use whimbrel_shared::{
    ids::{AppName, MigrationName},
    migration::{TargetEntry, Targets},
    protocol::publish::PublishLink,
    remedy::{Remedy, operator},
    trust::{self, TrustError},
};

/// The targets of an app that has published nothing.
pub(crate) fn nothing_published(app: &AppName) -> Targets {
    Targets { app: app.clone(), version: 0, targets: std::collections::BTreeMap::new() }
}

/// The exact bytes that are stored and served.
pub(crate) fn bytes(targets: &Targets) -> Vec<u8> {
    serde_json::to_vec(targets).expect("targets have only text keys and plain values")
}

/// What a publish request comes to.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The targets after it. Its version is the old one when nothing is new.
    pub(crate) targets: Targets,
    /// Newest version in it.
    pub(crate) latest: u32,
    /// The links to store.
    pub(crate) new: Vec<PublishLink>,
    /// Those that were there already.
    pub(crate) unchanged: Vec<MigrationName>,
}

/// Why links are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// A body is not what its entry says.
    #[error(transparent)]
    BadBody(TrustError),
    /// The chain with the new links is not one.
    #[error(transparent)]
    BadChain(TrustError),
    /// The link is there with other bytes or at another place.
    #[error(transparent)]
    Changed(TrustError),
    /// The same link at another version.
    #[error("{name} was published as version {known} and is now offered as version {offered}")]
    Moved {
        /// The migration.
        name: MigrationName,
        /// Its published version.
        known: u32,
        /// The version it is offered with.
        offered: u32,
    },
    /// Somebody else's link has that version.
    #[error("version {version} is {taken_by}; {name} cannot be version {version} too")]
    Taken {
        /// The version.
        version: u32,
        /// Who has it.
        taken_by: MigrationName,
        /// Who wants it.
        name: MigrationName,
    },
}

impl PublishError {
    /// What can be done.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::BadBody(_) => operator("build the request again from the migrations directory; nothing was published"),
            Self::BadChain(error) | Self::Changed(error) => error.remedy(),
            Self::Moved { .. } => {
                operator("a published migration never changes: restore the order of the directory, and add new migrations at its end")
            }
            Self::Taken { .. } => {
                operator("somebody published first: take their migration into the directory, put this one after it, and publish again")
            }
        }
    }
}

/// Adds `links` to `current`. All of them or none.
pub(crate) fn decide(current: &Targets, links: Vec<PublishLink>) -> Result<Accepted, PublishError> {
    let mut targets = current.clone();
    let (mut new, mut unchanged) = (Vec::new(), Vec::new());
    for link in links {
        trust::verify(&link.target, link.body.as_bytes()).map_err(PublishError::BadBody)?;
        match targets.targets.get(&link.target.path()) {
            Some(known) => {
                same_link(known, &link.target)?;
                unchanged.push(link.target.custom.name.clone());
            }
            None => {
                free_slot(&targets, &link.target)?;
                targets.targets.insert(link.target.path(), link.target.clone());
                new.push(link);
            }
        }
    }
    let chain = trust::check_chain(&targets).map_err(PublishError::BadChain)?;
    let latest = chain.last().map_or(0, |entry| entry.custom.version);
    if !new.is_empty() {
        targets.version = targets.version.saturating_add(1);
    }
    Ok(Accepted { targets, latest, new, unchanged })
}

fn same_link(known: &TargetEntry, offered: &TargetEntry) -> Result<(), PublishError> {
    if known.digest() != offered.digest() {
        return Err(PublishError::Changed(TrustError::Changed {
            name: offered.custom.name.to_string(),
            known: known.digest(),
            offered: offered.digest(),
        }));
    }
    if known.custom.version != offered.custom.version {
        return Err(PublishError::Moved { name: offered.custom.name.clone(), known: known.custom.version, offered: offered.custom.version });
    }
    Ok(())
}

fn free_slot(targets: &Targets, offered: &TargetEntry) -> Result<(), PublishError> {
    let link = &offered.custom;
    let other = targets.targets.values().find(|e| e.custom.version == link.version && e.custom.name != link.name);
    match other {
        Some(other) => Err(PublishError::Taken { version: link.version, taken_by: other.custom.name.clone(), name: link.name.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use whimbrel_shared::{
        ids::Digest,
        manifest::Manifest,
        migration::{FORMAT, Link, Migration},
        protocol::publish::SeedQueries,
    };

    use super::*;

    /// Links 1..=n, each one table.
    pub(crate) fn chain(n: u32) -> Vec<PublishLink> {
        let mut previous = None;
        (1..=n)
            .map(|version| {
                let link = link(version, previous, &format!("CREATE TABLE t{version}(x);"));
                previous = Some(link.target.digest());
                link
            })
            .collect()
    }

    pub(crate) fn link(version: u32, previous: Option<Digest>, sql: &str) -> PublishLink {
        let migration = Migration {
            format: FORMAT.to_owned(),
            name: format!("{version:04}").parse().unwrap(),
            manifest: Manifest::default(),
            down: None,
            files: BTreeMap::from([("up.sql".to_owned(), sql.to_owned())]),
        };
        let body = String::from_utf8(migration.to_bytes()).unwrap();
        let custom = Link::new(migration.name, version, previous);
        PublishLink {
            target: TargetEntry::new(body.as_bytes(), custom),
            body,
            seed: SeedQueries { timestamp: version.into(), up_queries: vec![sql.to_owned()], down_queries: Vec::new() },
        }
    }

    fn published(n: u32) -> Targets {
        let empty = nothing_published(&"notes".parse().unwrap());
        decide(&empty, chain(n)).unwrap().targets
    }

    #[test]
    fn publishing_again_changes_nothing_and_new_links_are_added_at_the_end() {
        let two = published(2);
        assert_eq!(two.version, 1);
        let again = decide(&two, chain(2)).unwrap();
        assert_eq!((again.targets.version, again.new.len()), (1, 0));
        assert_eq!(bytes(&again.targets), bytes(&two));
        let four = decide(&two, chain(4)).unwrap();
        assert_eq!((four.targets.version, four.latest), (2, 4));
        assert_eq!((four.new.len(), four.unchanged.len()), (2, 2));
    }

    /// A text that mends `slot`.
    pub(crate) fn revision(slot: &PublishLink, revision: u32, sql: &str) -> PublishLink {
        let first = &slot.target.custom;
        let mut link = link(first.version, first.previous, sql);
        let custom = Link { revision, mends: Some(slot.target.digest()), ..link.target.custom };
        link.target = TargetEntry::new(link.body.as_bytes(), custom);
        link
    }

    #[test]
    fn a_revision_is_added_beside_what_it_mends_and_nothing_after_it_changes() {
        let three = published(3);
        let slot = chain(3).remove(1);
        let mended = decide(&three, vec![revision(&slot, 2, "CREATE TABLE IF NOT EXISTS t2(x);")]).unwrap();
        assert_eq!((mended.targets.targets.len(), mended.latest, mended.new.len()), (4, 3, 1));
        assert!(three.targets.iter().all(|(path, entry)| mended.targets.targets.get(path) == Some(entry)));
        // Published on from the slot, with the revision there.
        let four = decide(&mended.targets, chain(4)).unwrap();
        assert_eq!((four.latest, four.new.len()), (4, 1));

        let out_of_turn = decide(&three, vec![revision(&slot, 3, "CREATE TABLE IF NOT EXISTS t2(x);")]).unwrap_err();
        assert!(matches!(out_of_turn, PublishError::BadChain(_)), "{out_of_turn}");
        let mut elsewhere = revision(&slot, 2, "CREATE TABLE t2(y);");
        let mut recorded = three.clone();
        let one = whimbrel_shared::fingerprint::SchemaChange(BTreeMap::from([("table t2".to_owned(), Some("0123456789abcdef".to_owned()))]));
        recorded.targets.get_mut(&slot.target.path()).unwrap().custom.schema = Some(one.clone());
        assert!(decide(&recorded, vec![elsewhere.clone()]).unwrap_err().to_string().contains("another schema"));
        elsewhere.target.custom.schema = Some(one);
        decide(&recorded, vec![elsewhere]).unwrap();
    }

    #[test]
    fn ids_are_checked_over_the_whole_chain_and_kept_as_they_were_given() {
        let with_ids = |json: [&str; 2]| {
            let mut links = chain(2);
            for (link, json) in links.iter_mut().zip(json) {
                link.target.custom.columns = Some(serde_json::from_str(json).unwrap());
            }
            links
        };
        let empty = nothing_published(&"notes".parse().unwrap());
        let (one, two) = (r#"{"made":[[1,"t1",[[1,"x"]]]]}"#, r#"{"made":[[2,"t2",[[1,"x"]]]]}"#);
        let again = decide(&empty, with_ids([one, r#"{"made":[[1,"t2",[[1,"x"],[2,"y"]]]]}"#]));
        assert!(again.is_ok(), "a table that is renamed keeps its id");
        let refused = decide(&empty, with_ids([two, one])).unwrap_err();
        assert!(matches!(&refused, PublishError::BadChain(TrustError::BadIds { version: 2, .. })), "{refused}");
        let published = decide(&empty, with_ids([one, two])).unwrap().targets;
        let served: Targets = serde_json::from_slice(&bytes(&published)).unwrap();
        assert_eq!(served.targets["0002.r1.json"].custom.columns, with_ids([one, two])[1].target.custom.columns);
        // Somebody else's rehearsal gives others for the same text: what was published stays.
        let other = decide(&published, with_ids([one, r#"{"made":[[7,"t2",[[1,"x"]]]]}"#])).unwrap();
        assert_eq!((other.new.len(), bytes(&other.targets)), (0, bytes(&published)));
    }

    #[test]
    fn a_published_link_cannot_change_move_or_be_overtaken() {
        let two = published(2);
        let refused = |link: PublishLink| decide(&two, vec![link]).unwrap_err();
        let first = chain(1).remove(0).target.digest();

        let changed = refused(link(2, Some(first), "DROP TABLE t1;"));
        assert!(matches!(changed, PublishError::Changed(_)), "{changed}");

        let mut moved = chain(2).remove(1);
        moved.target.custom.version = 3;
        assert!(matches!(refused(moved), PublishError::Moved { .. }));

        let mut taken = link(2, Some(first), "CREATE TABLE other(x);");
        taken.target.custom.name = "0002_other".parse().unwrap();
        let body = taken.body.replace("\"0002\"", "\"0002_other\"");
        taken.target = TargetEntry::new(body.as_bytes(), taken.target.custom);
        taken.body = body;
        assert!(matches!(refused(taken), PublishError::Taken { .. }));

        let gap = chain(4).remove(3);
        assert!(matches!(refused(gap), PublishError::BadChain(_)));

        let mut forged = chain(3).remove(2);
        forged.body.push(' ');
        assert!(matches!(refused(forged), PublishError::BadBody(_)));
    }
}
