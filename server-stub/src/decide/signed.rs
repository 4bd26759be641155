//! What of a signed repository is taken, and what the server signs of it. Pure: signing is a function of a key and bytes.

use whimbrel_keys::verify;
use whimbrel_shared::{
    ids::AppName,
    migration::Targets,
    remedy::{Remedy, here, operator},
    tuf::{
        Document, Envelope, NotADocument, Pin, PublicKey, Role, Root, RootError, SignedTargets, Snapshot, Time, Timestamp,
        fresh::{SnapshotMeta, TimestampMeta, due, next_version},
        root::{self, check_unexpired},
    },
};

use crate::{
    online::OnlineKeys,
    store::signed::{Kept, Repository},
};

/// How long before the end of what people sign they are told.
const NOTICE_MS: i64 = 60 * 86_400_000;

/// Why something signed, or unsigned, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignedError {
    /// No signature where one is needed.
    #[error("the app {0} has a root, and what is published to it has to be signed; this was not")]
    Unsigned(AppName),
    /// A signature that nobody can judge.
    #[error("the app {0} has no root here, so a signature says nothing")]
    NoRoot(AppName),
    /// Not signed by whom it has to be, or no such document.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The signed chain is not what was sent with it and what is there.
    #[error("the signed targets are not the published chain with the new links: {path} {what}")]
    OtherChain {
        /// Where they differ.
        path: String,
        /// How.
        what: &'static str,
    },
    /// A version that was used.
    #[error("the signed targets have version {found}; it has to be higher than {known}")]
    OldVersion {
        /// The published one.
        known: u64,
        /// The offered one.
        found: u64,
    },
    /// A floor above everything.
    #[error("the revert floor {floor} is above the newest version, {latest}")]
    Floor {
        /// The floor.
        floor: u32,
        /// The newest version.
        latest: u32,
    },
    /// A revert that the publisher has not allowed.
    #[error("a plan may revert {}, as its publisher signed it, and not down to version {version}", .floor.map_or_else(|| "nothing".to_owned(), |f| format!("down to version {f}")))]
    BelowFloor {
        /// What was ordered.
        version: u32,
        /// The floor.
        floor: Option<u32>,
    },
    /// The root names other online keys.
    #[error("root version {root} does not name this server's {role} key {ours} with a threshold of 1")]
    OtherServer {
        /// Which root.
        root: u64,
        /// Whose key.
        role: &'static str,
        /// Ours.
        ours: PublicKey,
    },
    /// A server that signs nothing.
    #[error("this server has no online keys, so no app here can be signed")]
    NoOnlineKeys,
}

impl From<NotADocument> for SignedError {
    fn from(error: NotADocument) -> Self {
        Self::Root(error.into())
    }
}

impl SignedError {
    /// What can be done.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Unsigned(_) => here("publish with a key: `whimbrel publish --key KEY`"),
            Self::NoRoot(_) => here("publish without a key, or upload a root first: `whimbrel keys upload root.json`"),
            Self::Root(error) => error.remedy(),
            Self::OtherChain { .. } | Self::OldVersion { .. } => here("somebody published in between: run `whimbrel publish` again, and sign again"),
            Self::Floor { .. } => here("name a version that is published as the floor"),
            Self::BelowFloor { .. } => {
                operator("ask a publisher to sign another floor (`whimbrel publish --revert-floor`), or revert at the device (`whimbrel revert`)")
            }
            Self::OtherServer { .. } => here("make the root with this server's keys: `whimbrel keys root --server URL`"),
            Self::NoOnlineKeys => operator("start the server with a folder for its keys"),
        }
    }
}

/// A root that may follow the trusted one, and under which this server can sign.
pub(crate) fn accept_root(offered: &Envelope, trusted: Option<&Root>, online: &OnlineKeys, now_ms: i64) -> Result<(Envelope, Root), SignedError> {
    let (envelope, root) = root::accept(&offered.to_bytes(), trusted, verify)?;
    check_unexpired(&root, now_ms)?;
    ours(&root, online)?;
    Ok((envelope, root))
}

/// Refuses a root under which this server could sign nothing.
fn ours(root: &Root, online: &OnlineKeys) -> Result<(), SignedError> {
    let public = online.public();
    let plan = root.plan.as_ref();
    let named = [
        ("snapshot", Some(&root.roles.snapshot), public.snapshot),
        ("timestamp", Some(&root.roles.timestamp), public.timestamp),
        ("plan", plan, public.plan),
    ];
    for (role, keys, ours) in named {
        let fits = keys.is_none_or(|keys| keys.threshold == 1 && keys.keyids.contains(&ours.id()));
        if !fits {
            return Err(SignedError::OtherServer { root: root.version, role, ours });
        }
    }
    Ok(())
}

/// Checks signed targets against the root and against the chain that was decided on. `known`: the newest version so far.
pub(crate) fn check_targets(
    root: &Root,
    offered: &Envelope,
    known: u64,
    decided: &Targets,
    latest: u32,
    now_ms: i64,
) -> Result<(Envelope, SignedTargets), SignedError> {
    let (envelope, targets) = Envelope::read::<SignedTargets>(&offered.to_bytes())?;
    root.authorises(&envelope, &targets, verify)?;
    check_unexpired(&targets, now_ms)?;
    if targets.version <= known {
        return Err(SignedError::OldVersion { known, found: targets.version });
    }
    if let Some(floor) = targets.revert_floor.filter(|floor| *floor > latest) {
        return Err(SignedError::Floor { floor, latest });
    }
    let differs = |path: &String, what| Err(SignedError::OtherChain { path: path.clone(), what });
    for (path, entry) in &decided.targets {
        match targets.targets.get(path) {
            Some(signed) if signed == entry => {}
            Some(_) => return differs(path, "has another entry"),
            None => return differs(path, "is missing"),
        }
    }
    match targets.targets.keys().find(|path| !decided.targets.contains_key(*path)) {
        Some(path) => differs(path, "was not sent"),
        None => Ok((envelope, targets)),
    }
}

/// Refuses a revert below the floor of the signed targets.
pub(crate) fn check_revert(targets: &Kept, version: u32) -> Result<(), SignedError> {
    let floor = Envelope::read::<SignedTargets>(&targets.bytes)?.1.revert_floor;
    match floor.is_some_and(|floor| version >= floor) {
        true => Ok(()),
        false => Err(SignedError::BelowFloor { version, floor }),
    }
}

/// A new snapshot and timestamp over `targets`.
pub(crate) fn fresh(root: &Root, targets: &Kept, before: Option<&Repository>, online: &OnlineKeys, now_ms: i64) -> Result<[Kept; 2], SignedError> {
    ours(root, online)?;
    let last = |kept: fn(&Repository) -> &Option<Kept>| before.and_then(|b| kept(b).as_ref()).map_or(0, |k| k.version);
    let ends = |role: Role| Time::from_ms(now_ms.saturating_add(role.lasts_ms()));
    let snapshot = Snapshot {
        app: root.app.clone(),
        version: next_version(last(|r| &r.snapshot), now_ms),
        expires: ends(Role::Snapshot),
        meta: SnapshotMeta { targets: Pin::of(targets.version, &targets.bytes) },
    };
    let snapshot = signed(&snapshot, |bytes| online.snapshot.sign(bytes), &online.public().snapshot)?;
    let timestamp = Timestamp {
        app: root.app.clone(),
        version: next_version(last(|r| &r.timestamp), now_ms),
        expires: ends(Role::Timestamp),
        meta: TimestampMeta { snapshot: Pin::of(snapshot.version, &snapshot.bytes) },
    };
    let timestamp = signed(&timestamp, |bytes| online.timestamp.sign(bytes), &online.public().timestamp)?;
    Ok([snapshot, timestamp])
}

fn signed<D: Document>(document: &D, sign: impl Fn(&[u8]) -> [u8; 64], key: &PublicKey) -> Result<Kept, SignedError> {
    let mut envelope = Envelope::new(document)?;
    let signature = sign(&envelope.payload());
    envelope.add(key, signature);
    Ok(Kept::new(document, envelope.to_bytes()))
}

/// Whether the server's own signatures have to be made again: half of their life is over, or there are none.
pub(crate) fn is_due(repository: &Repository, now_ms: i64) -> bool {
    let due_of = |kept: &Option<Kept>| kept.as_ref().is_none_or(|k| due(Time::from_ms(k.expires_at_ms), k.role, now_ms));
    repository.targets.is_some() && (due_of(&repository.snapshot) || due_of(&repository.timestamp))
}

/// What a person has to look at in an app's repository.
pub(crate) fn alarms(repository: &Repository, root: &Root, online: &OnlineKeys, now_ms: i64) -> Vec<String> {
    let mut alarms = Vec::new();
    let app = &root.app;
    for kept in [Some(&repository.root), repository.targets.as_ref()].into_iter().flatten() {
        let (word, at) = (kept.role.word(), Time::from_ms(kept.expires_at_ms));
        let what = match kept.role {
            Role::Root => "make and sign the next root (`whimbrel keys root --from`)",
            Role::Targets | Role::Snapshot | Role::Timestamp => "sign it again (`whimbrel publish --renew`)",
        };
        if kept.expires_at_ms <= now_ms {
            alarms.push(format!("{app}: {word}.json version {} expired at {at}, and devices take nothing new: {what}", kept.version));
        } else if kept.expires_at_ms - now_ms < NOTICE_MS {
            alarms.push(format!("{app}: {word}.json version {} expires at {at}: {what}", kept.version));
        }
    }
    if let Err(error) = ours(root, online) {
        alarms.push(format!("{app}: {error}, and nothing can be signed for its devices: restore the server's keys, or sign a root that names these"));
    }
    if let Some(targets) = &repository.targets {
        let refused = Envelope::read::<SignedTargets>(&targets.bytes)
            .map_err(RootError::from)
            .and_then(|(envelope, document)| root.authorises(&envelope, &document, verify));
        if let Err(error) = refused {
            alarms.push(format!("{app}: {error}, and devices refuse it: sign it again (`whimbrel publish --renew`)"));
        }
        // A day after it was due it has been tried two dozen times.
        if is_due(repository, now_ms - 86_400_000) {
            let at = repository.timestamp.as_ref().map_or_else(|| "now".to_owned(), |t| Time::from_ms(t.expires_at_ms).to_string());
            alarms.push(format!("{app}: the timestamp could not be renewed, and devices take nothing new after {at}: the log says why"));
        }
    }
    alarms
}
