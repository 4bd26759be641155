//! The daemon's engine on an open file, without a daemon: what `work.rs` does with one database, and nothing else.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::Connection;
use whimbrel::{
    ambient::Ambient,
    migrate::{
        apply::{self, Job, Policy, Ran},
        chain::Chain,
        connection::Managed,
        error::ApplyError,
        files,
        halt::Halt,
        live::Live,
        plan::{self, Next},
        recover,
        schema::SchemaReader,
        transaction::{Terms, write},
    },
    store::{
        device::StoredTarget,
        managed::{self, FileIdentity},
    },
    trust::AcceptError,
};
use whimbrel_shared::{
    fingerprint::Schema,
    ids::{AppName, ClientId},
    manifest::{Mode, Step},
    protocol::{poll::Order, state::HealthItem},
    trust::verify,
};

use crate::migrations::{Mig, links};

/// Nobody else has the file open.
const PATIENCE: Duration = Duration::from_secs(5);

/// A chain, and what it takes to run it on any file. Its clock and dice are its own: two runs do the same.
pub struct Engine {
    chain: Chain,
    bodies: Vec<Vec<u8>>,
    identity: FileIdentity,
    ambient: Ambient,
    /// How migrations are run.
    pub policy: Policy,
}

/// What an [`Engine::advance`] came to.
#[derive(Debug)]
pub enum Advanced {
    /// The file is where the order wants it.
    There,
    /// Something was run. Look at `stopped`.
    Ran(Ran),
    /// A failure stands, and waits for a person.
    Stands(HealthItem),
}

impl Advanced {
    /// Whether the file is, as far as this goes, where the order wants it.
    pub fn well(&self) -> bool {
        match self {
            Self::There => true,
            Self::Ran(ran) => ran.stopped.is_none(),
            Self::Stands(_) => false,
        }
    }
}

impl Engine {
    /// For a chain, as published without a rehearsal.
    pub fn new(chain: &[Mig]) -> Self {
        let (entries, bodies) = links(chain).into_iter().map(|l| (l.target, l.body.into_bytes())).unzip();
        let clock = AtomicI64::new(1_700_000_000_000);
        let dice = Mutex::new(fastrand::Rng::with_seed(7));
        Self {
            chain: Chain::new(entries),
            bodies,
            identity: files::new_identity(ClientId::from_dice(1), &"notes".parse().expect("it is an app's name"), (0, 0)),
            ambient: Ambient::new(move || clock.fetch_add(1, Relaxed), move || dice.lock().expect("no holder panics").u128(..)),
            policy: Policy { max_attempts: 3, grouping: true, wait_for_app: PATIENCE, report_values: false, skip_verify: false },
        }
    }

    /// For a chain that was rehearsed: the schema that each link leaves is part of it, and judged. `plain` are statements
    /// that do to a file what each link does.
    pub fn rehearsed(chain: &[Mig], plain: &[String]) -> Self {
        let mut engine = Self::new(chain);
        let empty = Connection::open_in_memory().expect("memory is there");
        let (mut reader, mut schema, mut entries) = (SchemaReader::default(), Schema::default(), Vec::new());
        for (version, (mig, sql)) in (1..).zip(chain.iter().zip(plain)) {
            let mut entry = engine.chain.newest(version).expect("the chain has it").clone();
            empty.execute_batch(sql).expect("the chain runs on an empty file");
            reader.read(&empty).expect("the schema is read");
            let change = schema.change_to(reader.schema());
            let manifest = mig.manifest();
            let scripts = manifest.step.iter().filter(|step| matches!(step, Step::Sql { .. } | Step::Rebuild(_))).count();
            if manifest.mode == Mode::Online && scripts > 0 {
                assert_eq!(scripts, 1, "{}: what each of several scripts does is not told apart here", mig.name);
                entry.custom.steps = vec![change.clone()];
            }
            entry.custom.schema = Some(change);
            schema = reader.schema().clone();
            entries.push(entry);
        }
        engine.chain = Chain::new(entries);
        engine
    }

    /// The chain, as a daemon knows it.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Its links as they lie in `device.db` once they are accepted.
    pub fn accepted(&self) -> Vec<StoredTarget> {
        let entries = (1..=self.chain.latest()).map(|v| self.chain.newest(v).expect("the chain has it").clone());
        entries.zip(&self.bodies).map(|(entry, body)| StoredTarget { entry, body: body.clone(), accepted_at_ms: 0 }).collect()
    }

    /// Whose databases it migrates.
    pub fn app(&self) -> &AppName {
        &self.identity.app
    }

    /// Its clock and dice.
    pub fn ambient(&self) -> &Ambient {
        &self.ambient
    }

    /// Takes an open connection as the daemon would have opened it.
    pub fn adopt(&self, connection: Connection) -> Result<Managed, ApplyError> {
        Managed::adopt(connection, PATIENCE, Halt::default())
    }

    /// Everything a daemon does that is started on this file and has this order. `own`: an intent that lies there was
    /// left by this process itself, which did not die.
    pub fn advance(&self, file: &mut Managed, order: Order, own: bool) -> Result<Advanced, ApplyError> {
        if !managed::is_prepared(&file.connection)? {
            write(file, Terms::ours(PATIENCE), |file| Ok(managed::prepare(&file.connection, &self.identity)?))?;
        }
        recover::recover(file, &self.identity, &self.chain, &self.ambient, self.policy, own)?;
        let history = managed::history(&file.connection)?;
        let (operation, from, to, by) = match plan::next(&history, &self.chain, Some(order), None) {
            Next::Nothing => return Ok(Advanced::There),
            Next::Stopped(why) => return Ok(Advanced::Stands(why)),
            Next::Run { operation, from, to, by } => (operation, from, to, by),
        };
        let load = |version: u32, _: u32| {
            let entry = self.chain.newest(version).expect("the chain has what the plan names");
            verify(entry, &self.bodies[version as usize - 1]).map_err(AcceptError::from)
        };
        let (ambient, live) = (&self.ambient, &Live::default());
        let job = Job { identity: &self.identity, chain: &self.chain, load: &load, operation, from, to, by, policy: self.policy, ambient, live };
        Ok(Advanced::Ran(apply::run(file, &job)))
    }
}
