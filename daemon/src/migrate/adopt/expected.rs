//! What each version of the chain leaves behind. Where it was published without a rehearsal (a server of the seed's kind),
//! the device rehearses it itself, on a private empty database in memory.

use rusqlite::Connection;
use whimbrel_shared::{
    fingerprint::Schema,
    ids::{AppName, ClientId},
    status::{AskedBy, Operation},
};

use super::fit::Expected;
use crate::{
    migrate::{
        apply::{self, Job, Policy},
        chain::Chain,
        connection::Managed,
        error::{ApplyError, sqlite},
        files,
        live::Live,
        transaction::{Terms, write},
        work::Shared,
    },
    store::managed,
    trust,
};

/// What was recorded, else what a rehearsal shows; up to the first migration that needs rows to run.
pub(super) fn expected(shared: &Shared, app: &AppName, chain: &Chain) -> Result<Expected, ApplyError> {
    let recorded = Expected::recorded(chain);
    if recorded.known() == chain.latest() {
        return Ok(recorded);
    }
    let rehearsed = rehearse(shared, app, chain)?;
    Ok(if rehearsed.known() > recorded.known() { rehearsed } else { recorded })
}

fn rehearse(shared: &Shared, app: &AppName, chain: &Chain) -> Result<Expected, ApplyError> {
    let memory = Connection::open_in_memory().map_err(sqlite("opening a database in memory"))?;
    let wait = shared.policy.wait_for_app;
    let mut file = Managed::adopt(memory, wait, shared.halt.clone())?;
    let identity = files::new_identity(ClientId::from_dice(shared.ambient.dice()), app, (0, 0));
    write(&mut file, Terms::ours(wait), |file| Ok(managed::prepare(&file.connection, &identity)?))?;
    let load = |version, revision| trust::load(&shared.store(), app, version, revision);
    let live = Live::default();
    let (mut changes, mut before) = (Vec::new(), Schema::default());
    for version in 1..=chain.latest() {
        let job = Job {
            identity: &identity,
            chain,
            load: &load,
            operation: Operation::Apply,
            from: version,
            to: version,
            by: AskedBy::Person,
            policy: Policy { max_attempts: 0, grouping: false, wait_for_app: wait, report_values: false, skip_verify: false },
            ambient: &shared.ambient,
            live: &live,
        };
        if apply::run(&mut file, &job).stopped.is_some() {
            break;
        }
        file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
        let after = file.schema.schema().clone();
        changes.push(before.change_to(&after));
        before = after;
    }
    Ok(Expected::new(changes))
}
