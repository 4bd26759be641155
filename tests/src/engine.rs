//! The engine without a daemon around it: a chain that a publisher rehearsed and a device accepted, and a file to run it on.

use std::{path::Path, time::Duration};

use whimbrel::{
    ambient::Ambient,
    migrate::{
        apply::{self, Job, Policy, Ran},
        chain::Chain,
        connection::{Managed, Missing},
        files,
        halt::Halt,
        live::Live,
        transaction::{Terms, write},
    },
    publish,
    store::{
        device::{DeviceStore, StoredTarget},
        managed::{self, FileIdentity},
    },
    trust,
};
use whimbrel_shared::{
    ids::{AppName, ClientId},
    migration::TargetEntry,
    protocol::publish::PublishRequest,
    status::{AskedBy, Operation},
};

use crate::{Mig, migrations};

const LIMIT: Duration = Duration::from_secs(60);

/// The chain, accepted by a device: `device.db` and the entries in it, with the schema that a rehearsal recorded.
pub struct Accepted {
    store: DeviceStore,
    app: AppName,
    /// Its order.
    pub chain: Chain,
    /// As it was written.
    pub migrations: Vec<Mig>,
    /// The request that publishes it.
    pub request: serde_json::Value,
}

impl Accepted {
    /// Publishes and accepts `migrations` inside `folder`.
    pub fn new(folder: &Path, migrations: Vec<Mig>) -> Self {
        let source = folder.join("migrations");
        migrations::write(&source, &migrations);
        let (read, _) = publish::read(&source, None, false).expect("the chain is read");
        let rehearsal = publish::rehearse::rehearse(&read, false, &mut |_| {}).expect("the chain is rehearsed");
        let app: AppName = "bench".parse().expect("a name");
        let links = publish::compare::links(&read, &rehearsal, &app, &publish::compare::Found::default(), None).expect("the chain is linked");
        let request = serde_json::to_value(PublishRequest { app: app.clone(), links: links.clone(), signed: None }).expect("a request is JSON");
        let store = DeviceStore::open(&folder.join("state")).expect("a store opens");
        let mut entries: Vec<TargetEntry> = Vec::new();
        for link in links {
            assert!(link.target.custom.schema.is_some(), "checks are on");
            store.accept(&app, &StoredTarget { entry: link.target.clone(), body: link.body.into_bytes(), accepted_at_ms: 0 }).expect("it is kept");
            entries.push(link.target);
        }
        Self { store, app, chain: Chain::new(entries), migrations, request }
    }

    /// Makes our tables in the file.
    pub fn prepare(&self, path: &Path) -> FileIdentity {
        self.prepare_as(path, ClientId::from_dice(Ambient::real().dice()))
    }

    /// The same for a file that is known by `id`.
    pub fn prepare_as(&self, path: &Path, id: ClientId) -> FileIdentity {
        let identity = files::new_identity(id, &self.app, files::place(path).expect("the file is there"));
        let mut file = Managed::open(path, Missing::Refuse, LIMIT, Halt::default()).expect("it opens");
        write(&mut file, Terms::ours(LIMIT), |file| Ok(managed::prepare(&file.connection, &identity)?)).expect("our tables are made");
        identity
    }

    /// Applies the versions `from` to `to`.
    pub fn run(&self, file: &mut Managed, identity: &FileIdentity, (from, to): (u32, u32), policy: Policy, live: &Live) -> Ran {
        let load = |version, revision| trust::load(&self.store, &self.app, version, revision);
        let (ambient, chain) = (&Ambient::real(), &self.chain);
        apply::run(file, &Job { identity, chain, load: &load, operation: Operation::Apply, from, to, by: AskedBy::Plan, policy, ambient, live })
    }
}
