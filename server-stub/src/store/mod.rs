//! What the server keeps, as whole deeds: each method is one transaction, and true or not done. Nothing here knows which
//! database does it; [`sqlite`] is one.

#[cfg(test)]
mod contract;
pub mod rows;
pub mod signed;
pub mod sqlite;

use std::{collections::BTreeSet, future::Future, pin::Pin};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, Digest, EnrolmentId, EventId, PushId, SpaceName},
    migration::{SeedMigration, Targets},
    protocol::{
        clients::{ClientDetail, ClientsResponse, PlanRequest, PublishedMigration},
        conflicts::ConflictsResponse,
        poll::{Order, PollResponse},
        publish::PublishLink,
        pull::{PullRequest, PullResponse},
        push::PushResponse,
        report::SeedStatus,
        state::{MAX_DATABASES, StateRequest},
        sums::{SumsRequest, SumsResponse},
    },
    remedy::{Remedy, here, operator, wait},
    status::Event,
    tuf::Role,
};

use crate::secrets::Scope;

/// A deed under way. Dropping it does not undo it: it may still be done.
pub type Deed<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Everything the server does with its store. Times are milliseconds since 1970.
pub trait Store: Send + Sync {
    /// Whether it answers.
    fn ready(&self) -> Deed<'_, ()>;

    /// Keeps a new API key. Refused when the name is taken.
    fn create_key(&self, key: NewKey) -> Deed<'_, ()>;
    /// Every API key, revoked ones too, by name.
    fn keys(&self) -> Deed<'_, Vec<KeyInfo>>;
    /// Revokes a key; refused when there is none of that name. Twice is once.
    fn revoke_key(&self, name: String, now_ms: i64) -> Deed<'_, ()>;
    /// The key with that digest, if it is not revoked.
    fn key(&self, hash: Digest) -> Deed<'_, Option<Key>>;

    /// Keeps a new enrolment token, and makes its app if it is not there. Answers the token's number.
    fn create_token(&self, token: NewToken) -> Deed<'_, i64>;
    /// Every enrolment token, by number.
    fn tokens(&self) -> Deed<'_, Vec<TokenInfo>>;
    /// Revokes a token; refused when there is none of that number. Twice is once.
    fn revoke_token(&self, id: i64, now_ms: i64) -> Deed<'_, ()>;

    /// Spends one use of a token on a device. A device that already has the token's app spends none.
    fn enroll(&self, enrolment: Enrolment) -> Deed<'_, Enrolled>;
    /// The device that has the token with that digest, or had it until lately. Refused when an operator revoked it.
    fn device(&self, token: Digest, now_ms: i64) -> Deed<'_, Option<Device>>;
    /// Puts another token in the place of a device's; the old one counts on for a while. Answers whose it is, and none where
    /// nobody has it. Asking twice for the same one is asking once; for another one with the old token is refused.
    fn rotate_token(&self, rotation: Rotation) -> Deed<'_, Option<DeviceId>>;
    /// Ends the tokens of a device until it is enrolled again; refused when there is no such device. Twice is once.
    fn revoke_device(&self, device: DeviceId, by: String, now_ms: i64) -> Deed<'_, ()>;
    /// A page of devices, by id.
    fn devices(&self, page: DevicesPage) -> Deed<'_, DevicesResponse>;
    /// Its databases, by id.
    fn clients_of(&self, device: DeviceId) -> Deed<'_, Vec<ClientRef>>;
    /// Makes a database for a device that has none of that app; else answers the one it has.
    fn add_client(&self, device: DeviceId, fresh: ClientRef) -> Deed<'_, ClientRef>;
    /// Writes when devices were last heard of. A time never goes back.
    fn save_seen(&self, seen: Vec<(DeviceId, i64)>) -> Deed<'_, ()>;
    /// Keeps a device's state. Refused as a whole when one database is another device's or of an app not enrolled for.
    fn save_state(&self, device: DeviceId, state: StateRequest) -> Deed<'_, ()>;
    /// What the device with that token may do. Writes nothing.
    fn poll(&self, token: Digest, now_ms: i64) -> Deed<'_, Option<(DeviceId, PollResponse)>>;

    /// The current targets metadata, byte for byte as it was stored.
    fn targets(&self, app: AppName) -> Deed<'_, Option<Vec<u8>>>;
    /// The bytes and digest of one target file.
    fn target(&self, app: AppName, path: String) -> Deed<'_, Option<(Digest, Vec<u8>)>>;
    /// Adds links, if the targets still have the version that the decision was made on; makes the app if needed.
    fn publish(&self, publication: Publication) -> Deed<'_, ()>;
    /// The newest documents of an app's signed repository; none without a root.
    fn repository(&self, app: AppName) -> Deed<'_, Option<signed::Repository>>;
    /// One signed document: of that version, or the newest.
    fn metadata(&self, app: AppName, role: Role, version: Option<u64>) -> Deed<'_, Option<signed::Kept>>;
    /// The apps that have a root, by name.
    fn signed_apps(&self) -> Deed<'_, Vec<AppName>>;
    /// Keeps signed documents, all or none, if the repository is still the one that was decided on; makes the app if needed.
    fn sign(&self, signing: signed::Signing) -> Deed<'_, ()>;
    /// An app's published revisions in chain order, each with how many databases have it; none without the app.
    fn migrations(&self, app: AppName) -> Deed<'_, Option<Vec<PublishedMigration>>>;

    /// What a database may apply and has not, in chain order, at most a few hundred at once.
    fn pending(&self, client: ClientId) -> Deed<'_, Vec<SeedMigration>>;
    /// Keeps a batch of reports, all or none; answers their ids. Stored ones with the same content count as kept.
    fn report(&self, device: DeviceId, reports: Vec<Event>, now_ms: i64) -> Deed<'_, Vec<EventId>>;
    /// Keeps what a seed client's flag says, unless it is known; answers the id of the event if one was stored.
    fn report_flag(&self, client: ClientRef, flag: SeedStatus, id: EventId, now_ms: i64) -> Deed<'_, Option<EventId>>;

    /// A page of databases, by id.
    fn clients(&self, page: ClientsPage) -> Deed<'_, ClientsResponse>;
    /// One database with the newest part of its history.
    fn client(&self, id: ClientId) -> Deed<'_, Option<ClientDetail>>;
    /// A page of a database's events, newest first.
    fn history(&self, id: ClientId, page: Page) -> Deed<'_, Option<HistoryResponse>>;
    /// Changes a plan, or nothing when it says so already. Answers the app's plan.
    fn set_plan(&self, request: PlanRequest, by: String, now_ms: i64) -> Deed<'_, PlanResponse>;
    /// An app's plan.
    fn plan(&self, app: AppName) -> Deed<'_, Option<PlanResponse>>;
    /// Takes a push: every change judged and written, or its answer from before. Refused as a whole where the file or its
    /// schema are not what they should be; what is wrong with one change is in its answer.
    fn push(&self, push: rows::Push) -> Deed<'_, PushResponse>;
    /// A page of the rows that a device's database has not seen. Binds the database to its space at the first time.
    fn pull(&self, device: DeviceId, asked: PullRequest, now_ms: i64) -> Deed<'_, PullResponse>;
    /// What the rows come to that a device's database should have.
    fn sums(&self, device: DeviceId, asked: SumsRequest) -> Deed<'_, SumsResponse>;
    /// Binds a database to a space. Bound to another one before, it takes a snapshot next.
    fn bind_space(&self, binding: rows::Binding) -> Deed<'_, ()>;
    /// A page of conflicts and of changes that are kept and not written, newest first.
    fn conflicts(&self, page: rows::ConflictsPage) -> Deed<'_, ConflictsResponse>;
    /// Forgets deletions of rows, answers of pushes and decided conflicts from before those times. Answers how many deletions.
    /// Who has not seen one of those takes a snapshot.
    fn forget_rows(&self, before: rows::Forget) -> Deed<'_, u64>;

    /// A page of what operators did, newest first.
    fn audit(&self, page: Page) -> Deed<'_, AuditResponse>;
}

/// An API key to keep.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its name, unique among all keys ever made.
    pub name: String,
    /// Digest of the secret.
    pub hash: Digest,
    /// What it may do.
    pub scope: Scope,
    /// Now.
    pub now_ms: i64,
}

/// An API key that proved itself.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
}

/// An API key for people to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
}

/// An enrolment token to keep.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Digest of the secret.
    pub hash: Digest,
    /// The app it enrols for.
    pub app: AppName,
    /// The space that their databases exchange rows in.
    pub space: SpaceName,
    /// How many devices it can enrol.
    pub uses: u32,
    /// Now.
    pub now_ms: i64,
    /// When it ends.
    pub expires_at_ms: i64,
}

/// An enrolment token for people to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its number.
    pub id: i64,
    /// Its app.
    pub app: AppName,
    /// The space that it binds databases to.
    pub space: SpaceName,
    /// How many devices it can still enrol.
    pub uses_left: u32,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it ends.
    pub expires_at_ms: i64,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
}

/// A device that wants to enrol.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Its id and the digest of what is asked, where the device gave one.
    pub id: Option<(EnrolmentId, Digest)>,
    /// Digest of the enrolment token.
    pub token: Digest,
    /// Who it says it is, with the digest of its device token.
    pub known: Option<(DeviceId, Digest)>,
    /// The id and token digest it gets otherwise.
    pub fresh: (DeviceId, Digest),
    /// The host's name.
    pub name: String,
    /// Version of the daemon.
    pub daemon_version: String,
    /// Now.
    pub now_ms: i64,
}

/// A device that enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Which: the known one, or the fresh one.
    pub device_id: DeviceId,
    /// For which app.
    pub app: AppName,
    /// Whether it has the fresh token; else the one that it came with goes on.
    pub fresh: bool,
}

/// A device's wish for another token.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Digest of the token that it asks with.
    pub token: Digest,
    /// Digest of the one that is to count.
    pub next: Digest,
    /// Now.
    pub now_ms: i64,
    /// How long the old one counts too.
    pub grace_ms: i64,
}

/// Which devices to list.
#[derive(Clone, Copy, Debug)]
pub struct DevicesPage {
    /// Only those after this one.
    pub after: Option<DeviceId>,
    /// At most so many.
    pub limit: u32,
}

/// A page of devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevicesResponse {
    /// By id.
    pub devices: Vec<DeviceInfo>,
    /// Pass as `after` for the next page; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DeviceId>,
}

/// A device for people to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its id.
    pub device_id: DeviceId,
    /// The host's name.
    pub name: String,
    /// What it is enrolled for.
    pub apps: BTreeSet<AppName>,
    /// Version of the daemon.
    pub daemon_version: String,
    /// When it was enrolled first.
    pub enrolled_at_ms: i64,
    /// When it was last heard of.
    pub last_seen_ms: i64,
    /// Since when it has the token that counts.
    pub token_since_ms: i64,
    /// When it was revoked, if it is.
    pub revoked_at_ms: Option<i64>,
}

/// A device that proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub device_id: DeviceId,
    /// What it is enrolled for.
    pub apps: BTreeSet<AppName>,
}

/// A database and its app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRef {
    /// The database.
    pub client_id: ClientId,
    /// Its app.
    pub app: AppName,
}

/// Links that were accepted.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The version of the targets on which that was decided.
    pub decided_on: u64,
    /// The targets after it.
    pub targets: Targets,
    /// Newest version in them.
    pub latest: u32,
    /// The new links.
    pub links: Vec<PublishLink>,
    /// The documents that go with them, in an app that has a root.
    pub signing: Option<signed::Signing>,
    /// Name of the key.
    pub by: String,
    /// Now.
    pub now_ms: i64,
}

/// Which databases to list.
#[derive(Clone, Debug, Default)]
pub struct ClientsPage {
    /// Only those of this app.
    pub app: Option<AppName>,
    /// Only those behind the newest published version.
    pub outdated: bool,
    /// Only those after this one.
    pub after: Option<ClientId>,
    /// At most so many.
    pub limit: u32,
}

/// A part of a list that is read newest first.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only what is older than this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A page of a database's events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryResponse {
    /// Newest first.
    pub events: Vec<Event>,
    /// Pass as `before` for the next page; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// An app's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanResponse {
    /// The app.
    pub app: AppName,
    /// Newest published version.
    pub latest: u32,
    /// For databases without a plan of their own.
    pub order: Order,
    /// Whether `order` was set, and does not follow what is published.
    pub pinned: bool,
    /// Databases with a plan of their own; the first 500.
    pub clients: Vec<ClientPlan>,
}

/// A database's own plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// The database.
    pub client_id: ClientId,
    /// What it may do.
    pub order: Order,
}

/// A page of what operators did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditResponse {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// Pass as `before` for the next page; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// One thing that an operator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at_ms: i64,
    /// Name of the key, or `command line`.
    pub actor: String,
    /// `publish`, `plan`, `key.create` …
    pub action: String,
    /// What exactly.
    pub detail: String,
}

/// Why a deed was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not answer now.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// It was written by a later server.
    #[error("the store has schema {found}, and this whimbrel-server knows schema {known}")]
    Newer {
        /// Schema of the store.
        found: i64,
        /// Newest schema this binary knows.
        known: i64,
    },
    /// It holds what it should not, or refuses what it should take.
    #[error("the store is damaged, or this is a fault of ours: {0}")]
    Damaged(String),
    /// It is in order, and says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl StoreError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable(_) => wait("try again; if it stays, look at the server's disk and its log"),
            Self::Newer { .. } => here("run the whimbrel-server that wrote this store, or a later one"),
            Self::Damaged(_) => operator("look at the server's log; check the store with `PRAGMA integrity_check`"),
            Self::Refused(refusal) => refusal.remedy(),
        }
    }
}

/// What the store says no to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such enrolment token, or revoked.
    #[error("the enrolment token is not known here, or was revoked")]
    UnknownEnrolment,
    /// Past its end.
    #[error("the enrolment token has expired")]
    EnrolmentExpired,
    /// All its uses are spent.
    #[error("the enrolment token has no uses left")]
    EnrolmentUsedUp,
    /// The same id of an enrolment with other content.
    #[error("the enrolment {0} was asked for before with other content; nothing was changed")]
    EnrolmentDiffers(EnrolmentId),
    /// The device id and the device token do not belong together.
    #[error("device {0} is not known here with that device token")]
    UnknownDevice(DeviceId),
    /// An operator ended the device's tokens.
    #[error("an operator revoked this device")]
    DeviceRevoked,
    /// The token asked with is not the one that counts.
    #[error("the token of device {0} was replaced by another one already; nothing was changed")]
    TokenReplaced(DeviceId),
    /// The app is not one of the device's.
    #[error("the device is not enrolled for the app {0}")]
    NotEnrolled(AppName),
    /// The database belongs to another device, or to another app of this one.
    #[error("the client id {0} belongs to another database")]
    ClientTaken(ClientId),
    /// More than [`MAX_DATABASES`].
    #[error("a device has at most {MAX_DATABASES} databases")]
    TooManyClients,
    /// The client id asked for is not this device's.
    #[error("the device has no database {client_id}; it has {}", list(yours))]
    NotYours {
        /// What was asked for.
        client_id: ClientId,
        /// What it has.
        yours: Vec<ClientId>,
    },
    /// Several databases and none named.
    #[error("the device has {} databases: {}", clients.len(), list(clients))]
    WhichClient {
        /// Which.
        clients: Vec<ClientId>,
    },
    /// No database, and several apps.
    #[error("the device has no database yet and is enrolled for {}", list(apps))]
    WhichApp {
        /// Which.
        apps: Vec<AppName>,
    },
    /// The same event id with other content.
    #[error("the event {0} was reported before with other content; nothing of this batch was stored")]
    EventDiffers(EventId),
    /// Another publisher came in between.
    #[error("another publisher added to {0} at the same time; nothing of this request was published")]
    PublishRace(AppName),
    /// No such app.
    #[error("there is no app {0}")]
    NoApp(AppName),
    /// No such database, or not of that app.
    #[error("there is no database {0} of that app")]
    NoClient(ClientId),
    /// A plan beyond what is published.
    #[error("version {version} is beyond the newest published one, {latest}")]
    BeyondLatest {
        /// What was asked for.
        version: u32,
        /// What there is.
        latest: u32,
    },
    /// A name or number that nothing has.
    #[error("there is no {what} {which}")]
    Nothing {
        /// A key, a token.
        what: &'static str,
        /// Its name or number.
        which: String,
    },
    /// Rows of a database that never reported its state.
    #[error("the database {0} is not known here yet")]
    NotReported(ClientId),
    /// The same push id with other content.
    #[error("the push {0} came before with other content; nothing of this one was taken")]
    PushDiffers(PushId),
    /// A push that is not after the last one.
    #[error(
        "push {order} of epoch {epoch} comes after push {} of epoch {} was taken: the file went back to an older state", known.1, known.0
    )]
    FileWentBack {
        /// The epoch of the push.
        epoch: u32,
        /// Its order.
        order: u64,
        /// Epoch and order of the last that was taken.
        known: (u32, u64),
    },
    /// What was seen does not lead to what is there.
    #[error("{0}; rows can go on only from a snapshot")]
    SnapshotNeeded(String),
    /// A schema that the server has not got.
    #[error("the rows are of version {schema}, and the newest published one is {latest}")]
    SchemaAhead {
        /// Theirs.
        schema: u32,
        /// Ours.
        latest: u32,
    },
    /// A version without ids.
    #[error("rows cannot be exchanged: {0}")]
    NoRowIds(String),
    /// A name that was used before.
    #[error("there is or was an API key named {0:?}")]
    NameTaken(String),
}

impl Refusal {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::UnknownEnrolment | Self::EnrolmentExpired | Self::EnrolmentUsedUp => {
                operator("make a new one with `whimbrel-server token create --app NAME`")
            }
            Self::EnrolmentDiffers(_) => here("give every enrolment its own random id; `whimbrel enroll`, run again, does"),
            Self::UnknownDevice(_) => here("enrol it as a new device: `whimbrel enroll --as-new`"),
            Self::DeviceRevoked => {
                operator("the operator makes a new enrolment token (`whimbrel-server token create`), and `whimbrel enroll` on the device takes it")
            }
            Self::TokenReplaced(_) => operator("if nobody restored this device from a backup, its token was stolen: revoke it and enrol it again"),
            Self::NotEnrolled(app) => {
                operator(format!("make a token with `whimbrel-server token create --app {app}`, and enrol this device with it too"))
            }
            Self::ClientTaken(_) => wait("the device gives a copied database a new client id and reports again"),
            Self::TooManyClients => here("spread the databases over several devices"),
            Self::NotYours { .. } | Self::WhichClient { .. } => here("name one of them: add `?client_id=…` to the address"),
            Self::WhichApp { .. } => here("send the database with `POST /api/state` first, which names its app"),
            Self::EventDiffers(_) => here("give every event its own random id, and never change one that was sent"),
            Self::PublishRace(_) => here("publish again: what the other one added is then taken into account"),
            Self::NoApp(_) => operator("publish to it, or make an enrolment token for it, and it is there"),
            Self::NoClient(_) => here("`GET /api/clients` lists them"),
            Self::BeyondLatest { .. } => here("publish the migration first, or name a published version"),
            Self::Nothing { what, .. } => here(format!("`whimbrel-server {what} list` lists them")),
            Self::NotReported(_) => wait("the device sends its state first (`POST /api/state`)"),
            Self::PushDiffers(_) => here("give every push its own random id, and send the same bytes until it is answered"),
            Self::FileWentBack { .. } => wait("the file gets a new epoch and takes a snapshot; what it has not sent stays"),
            Self::SnapshotNeeded(_) => wait("the device pulls from the beginning, and sends what it has not sent on top of it"),
            Self::SchemaAhead { .. } => {
                operator("publish that version here too, or restore the server from a newer backup; the rows wait on the device")
            }
            Self::NoRowIds(_) => operator("publish the chain with a whimbrel that gives column ids"),
            Self::NameTaken(_) => here("choose another name"),
        }
    }
}

/// The first twenty, for a sentence.
fn list<T: std::fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 20;
    if items.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = items.iter().take(SHOWN).map(T::to_string).collect();
    let more = if items.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
