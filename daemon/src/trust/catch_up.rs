//! Catching up with a signed repository: what is kept, what the repository says, and what is kept then.
//!
//! Three steps, so that nobody waits for the network with `device.db` in hand: [`Standing::of`] what is kept,
//! [`catch_up`] with the mirrors, [`keep`] what came of it, in one transaction.

use std::collections::BTreeMap;

use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::{TargetEntry, Targets},
    remedy::{Remedy, here, operator, wait},
    trust::{TrustError, check_chain},
};

use super::{
    floors::{self, BelowFloor},
    tuf::{self, Client, Listing, TufError, Verified},
};
use crate::{
    store::{
        StoreError,
        device::DeviceStore,
        trust::{ACCEPTED, Files, Floor, Kept},
    },
    transport::repository::Mirror,
};

/// Why a repository is not believed. What was accepted before stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Disbelief {
    /// No root is pinned.
    #[error("no root is pinned for {app}")]
    NoRoot {
        /// The app.
        app: AppName,
    },
    /// The pinned root itself is damaged.
    #[error("what is trusted of {app} is damaged: {}", damage.join("; "))]
    Damaged {
        /// The app.
        app: AppName,
        /// What is wrong, one sentence each.
        damage: Vec<String>,
    },
    /// Metadata or a target is not right.
    #[error("{url}: {source}")]
    Tuf {
        /// Who served it.
        url: String,
        /// What is wrong.
        source: TufError,
    },
    /// It goes back behind what was verified before.
    #[error("{url}: {source}")]
    BelowFloor {
        /// Who served it.
        url: String,
        /// Where.
        source: BelowFloor,
    },
    /// It is signed, and for another app.
    #[error("{url}: {role} is signed for {}, and not for {app}", found.as_deref().unwrap_or("no app"))]
    OtherApp {
        /// Who served it.
        url: String,
        /// Which document.
        role: String,
        /// The app that it names.
        found: Option<String>,
        /// The app that was asked for.
        app: AppName,
    },
    /// The publisher signed something that is no chain.
    #[error("what is signed for {app} is no chain: {why}")]
    NoChain {
        /// The app.
        app: AppName,
        /// What cannot be read.
        why: String,
    },
}

impl Disbelief {
    /// A word for it, as health items have one.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoot { .. } => "no_root",
            Self::Damaged { .. } => "trust_damaged",
            Self::Tuf { source: TufError::Expired { .. }, .. } => "stale",
            Self::Tuf { source: TufError::Rollback { .. }, .. } | Self::BelowFloor { .. } => "rollback",
            Self::Tuf { source: TufError::Unsigned { .. }, .. } => "unsigned",
            Self::Tuf { source: TufError::Mixed { .. }, .. } => "mixed",
            Self::Tuf { source: TufError::Transport(_) | TufError::NotThere { .. } | TufError::Unreadable { .. }, .. } => "repository",
            Self::OtherApp { .. } => "other_app",
            Self::NoChain { .. } => "repository",
        }
    }

    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NoRoot { .. } => {
                here("`whimbrel enroll URL --root FILE`, or name it below [roots] in the configuration, with the publisher's root.json")
            }
            Self::Damaged { .. } => here("pin the root again: `whimbrel enroll URL --root FILE`, with the publisher's root.json"),
            Self::Tuf { source: TufError::Transport(error), .. } => error.remedy(),
            Self::Tuf { source: TufError::Expired { .. }, .. } => {
                operator("let the server sign anew; if it does, somebody in between serves old metadata. What was accepted still runs")
            }
            Self::Tuf { source: TufError::NotThere { .. }, .. } => wait("it is asked for again by itself"),
            Self::Tuf { .. } | Self::BelowFloor { .. } | Self::OtherApp { .. } => {
                operator("the repository, or something in front of it, serves what its keys did not sign so: nothing was taken from it")
            }
            Self::NoChain { .. } => operator("publish again with `whimbrel publish`"),
        }
    }
}

/// What a client starts from.
#[derive(Clone, Debug)]
pub struct Standing {
    anchor: Vec<u8>,
    files: Files,
    floors: Vec<Floor>,
    /// What is not as it was kept. Then nothing but the pinned root and the floors is believed.
    pub damage: Vec<String>,
}

impl Standing {
    /// Judges what is kept. A floor and its file have to say the same version; whichever of the two copies can be read
    /// counts, the higher one where they differ.
    pub fn of(app: &AppName, kept: Kept) -> Result<Self, Disbelief> {
        let Kept { anchor, files, mut floors, last_word, mut damage } = kept;
        let Some(anchor) = anchor else {
            return Err(if damage.is_empty() { Disbelief::NoRoot { app: app.clone() } } else { Disbelief::Damaged { app: app.clone(), damage } });
        };
        let pinned = Digest::of(&anchor);
        let said = tuf::said(&files);
        for role in floors::ROLES {
            let (file, floor) = (said.get(role), floors.iter().position(|f| f.role == role));
            match (file, floor) {
                (None, None) => {}
                (Some(file), Some(at)) if floors[at].version == file.version => {}
                // A root that was pinned anew starts without files; its floors wait for them.
                (None, Some(at)) if floors[at].anchor != pinned => {}
                (None, Some(at)) => damage.push(format!("{role}.json is gone; version {} was verified", floors[at].version)),
                (Some(file), None) => {
                    damage.push(format!("the floor of {role} is gone; version {} is kept", file.version));
                    floors.push(Floor { role: role.to_owned(), version: file.version, signers: file.signers.clone(), anchor: pinned });
                }
                (Some(file), Some(at)) => {
                    damage.push(format!("{role}.json has version {}, and its floor is {}", file.version, floors[at].version));
                    if file.version > floors[at].version {
                        floors[at] = Floor { role: role.to_owned(), version: file.version, signers: file.signers.clone(), anchor: pinned };
                    }
                }
            }
        }
        if let Some(proof) = last_word {
            damage.push("metadata and floors are gone; a proof of what was accepted is there".to_owned());
            let proven = Files::from([
                ("timestamp.json".to_owned(), proof.timestamp),
                ("snapshot.json".to_owned(), proof.snapshot),
                ("targets.json".to_owned(), proof.targets),
            ]);
            let floor = |(role, said): (String, floors::Seen)| Floor { role, version: said.version, signers: said.signers, anchor: pinned };
            floors.extend(tuf::said(&proven).into_iter().map(floor));
            floors.push(Floor { role: "root".to_owned(), version: proof.versions[0], signers: Vec::new(), anchor: pinned });
        }
        let files = if damage.is_empty() { files } else { Files::new() };
        Ok(Self { anchor, files, floors, damage })
    }

    /// When the kept timestamp expires, in milliseconds since 1970.
    pub fn fresh_until_ms(&self) -> Option<i64> {
        tuf::fresh_until_ms(&self.files)
    }
}

/// What came of catching up.
#[derive(Debug)]
pub struct Caught {
    /// The client, for targets.
    pub client: Client,
    /// What was verified, or why nothing new is believed.
    pub outcome: Result<Verified, Disbelief>,
    before: Standing,
    files: Files,
    floors: Vec<Floor>,
}

/// Asks `mirrors` one after another until one is believed. `app`: the name that every document has to carry; none where
/// documents carry none. Fails without any outcome only where the pinned root is no root.
pub async fn catch_up(standing: Standing, app: Option<&AppName>, mirrors: &[Mirror], now_ms: i64) -> Result<Caught, Disbelief> {
    let pinned = Digest::of(&standing.anchor);
    let (mut files, mut floors) = (standing.files.clone(), standing.floors.clone());
    let mut first: Option<(Client, Disbelief)> = None;
    for mirror in mirrors {
        let url = mirror.url().to_owned();
        let tuf = |source| Disbelief::Tuf { url: url.clone(), source };
        let mut client = Client::new(&standing.anchor, files.clone(), mirror.clone()).map_err(tuf)?;
        let refreshed = client.refresh(now_ms).await.map_err(tuf);
        let (mut reached, mut seen) = (client.files(), client.seen());
        if refreshed.is_err() && floors::rotated(&floors, &client.keys()) {
            // TUF 5.3.11: what the old keys signed goes, or its versions would bind those of the new keys.
            for role in &floors::ROLES[1..] {
                let name = format!("{role}.json");
                if reached.get(&name) == files.get(&name) {
                    reached.remove(&name);
                    seen.remove(*role);
                }
            }
        }
        let judged = of_app(&url, app, &reached).and_then(|()| {
            floors::raise(&floors, &seen, &client.keys(), pinned).map_err(|source| Disbelief::BelowFloor { url: url.clone(), source })
        });
        let outcome = match judged {
            Ok(raised) => {
                (files, floors) = (reached, raised);
                refreshed.and_then(|()| client.verified(now_ms).map_err(tuf))
            }
            Err(disbelief) => Err(disbelief),
        };
        match outcome {
            Ok(verified) => return Ok(Caught { client, outcome: Ok(verified), before: standing, files, floors }),
            Err(disbelief) => first = first.or(Some((client, disbelief))),
        }
    }
    let (client, disbelief) = first.expect("there is at least the server itself to ask");
    Ok(Caught { client, outcome: Err(disbelief), before: standing, files, floors })
}

fn of_app(url: &str, app: Option<&AppName>, files: &Files) -> Result<(), Disbelief> {
    let Some(app) = app else { return Ok(()) };
    match tuf::apps(files).into_iter().find(|(_, found)| found.as_deref() != Some(app.as_str())) {
        None => Ok(()),
        Some((role, found)) => Err(Disbelief::OtherApp { url: url.to_owned(), role: role.to_owned(), found, app: app.clone() }),
    }
}

/// What the publisher's word means for what was accepted before.
#[derive(Debug, Default)]
pub struct Judged {
    /// Not accepted yet, in order.
    pub new: Vec<TargetEntry>,
    /// Accepted, and listed as it was accepted.
    pub listed: Vec<TargetEntry>,
    /// Accepted, and listed no more.
    pub withdrawn: Vec<TargetEntry>,
}

/// Reads a listing as the chain of `app`.
pub fn chain_of(app: &AppName, listing: &Listing) -> Result<Targets, Disbelief> {
    let entry = |(path, value): (&String, &serde_json::Value)| {
        let read = serde_json::from_value::<TargetEntry>(value.clone());
        read.map(|entry| (path.clone(), entry)).map_err(|e| Disbelief::NoChain { app: app.clone(), why: format!("{path}: {e}") })
    };
    let targets = listing.targets.iter().map(entry).collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(Targets { app: app.clone(), version: listing.version, targets })
}

/// Judges a signed chain against what was accepted before. What was accepted and is listed otherwise than it was is an error.
pub fn judge_signed(accepted: &[TargetEntry], offered: &Targets) -> Result<Judged, TrustError> {
    let chain = check_chain(offered)?;
    let mut judged = Judged::default();
    let same_place = |a: &TargetEntry, b: &TargetEntry| (a.custom.version, a.custom.revision) == (b.custom.version, b.custom.revision);
    for known in accepted {
        match chain.iter().find(|entry| same_place(entry, known)) {
            None => judged.withdrawn.push(known.clone()),
            Some(entry) if entry.digest() != known.digest() => {
                let (name, known, offered) = (known.custom.name.to_string(), known.digest(), entry.digest());
                return Err(TrustError::Changed { name, known, offered });
            }
            Some(entry) if *entry != known => {
                let why = format!("what is signed of {} is not what was accepted", known.custom.name);
                return Err(TrustError::BrokenChain { version: known.custom.version, why });
            }
            Some(_) => judged.listed.push(known.clone()),
        }
    }
    judged.new = chain.into_iter().filter(|entry| !accepted.iter().any(|known| same_place(entry, known))).cloned().collect();
    Ok(judged)
}

/// Keeps what came of catching up: all of it, or nothing. Where something was believed, it also becomes the proof of what
/// was accepted before and is still listed, and what is listed no more is withdrawn. A damaged store is replaced only once
/// the whole repository was verified from the pinned root, at or above the floors.
pub fn keep(store: &mut DeviceStore, app: &AppName, caught: &Caught, judged: Option<&Judged>) -> Result<(), StoreError> {
    let damaged = !caught.before.damage.is_empty();
    if damaged && caught.outcome.is_err() {
        return Ok(());
    }
    let bare = |floors: &[Floor]| floors.iter().filter(|floor| floor.role != ACCEPTED).cloned().collect::<Vec<_>>();
    let unchanged = !damaged && caught.files == caught.before.files && bare(&caught.floors) == bare(&caught.before.floors);
    if unchanged && judged.is_none() {
        return Ok(());
    }
    let mut floors = caught.floors.clone();
    let before = caught.before.floors.iter().find(|floor| floor.role == ACCEPTED);
    floors.extend(match &caught.outcome {
        Ok(verified) => {
            let version = verified.proof.accepted_at_ms.max(before.map_or(0, |floor| floor.version.cast_signed())).cast_unsigned();
            Some(Floor { role: ACCEPTED.to_owned(), version, signers: Vec::new(), anchor: Digest::of(&caught.before.anchor) })
        }
        Err(_) => before.cloned(),
    });
    store.atomically(|store| {
        if damaged {
            store.clear_trusted(app)?;
        }
        store.keep_trusted(app, &caught.before.files, &caught.files, &floors)?;
        let (Ok(verified), Some(judged)) = (&caught.outcome, judged) else { return Ok(()) };
        let proof = verified.proof.id(&caught.before.anchor);
        store.put_proof(app, proof, &verified.proof)?;
        judged.listed.iter().try_for_each(|entry| store.prove(app, entry, proof))?;
        judged.withdrawn.iter().try_for_each(|entry| store.withdraw(app, entry, proof, verified.proof.accepted_at_ms))?;
        store.drop_idle_proofs(app, proof)
    })
}

impl Caught {
    /// Name of the proof that [`keep`] kept.
    pub fn proof(&self) -> Option<Digest> {
        self.outcome.as_ref().ok().map(|verified| verified.proof.id(&self.before.anchor))
    }

    /// What was damaged before.
    pub fn damage(&self) -> &[String] {
        &self.before.damage
    }
}
