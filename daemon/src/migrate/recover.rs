//! After a crash: an intent that is there while nobody holds the lock file belongs to somebody who died.

use whimbrel_shared::{
    remedy::{here, wait},
    status::{AskedBy, EventKind, Failure, FailureClass, Operation, Status},
};

use super::{
    apply::{Job, Policy},
    chain::Chain,
    connection::Managed,
    error::ApplyError,
    live::Live,
    transaction::{Terms, write},
};
use crate::{
    ambient::Ambient,
    store::managed::{self, FileIdentity, MigrationRow},
};

/// Takes up what a dead process left behind. The caller holds the lock file, so an intent that is there belongs to
/// nobody; with `ours`, to a run of this very process, and then nobody died. Returns the failure when the limit of crashes
/// is reached.
pub fn recover(
    file: &mut Managed,
    identity: &FileIdentity,
    chain: &Chain,
    ambient: &Ambient,
    policy: Policy,
    ours: bool,
) -> Result<Option<Failure>, ApplyError> {
    if managed::intent(&file.connection)?.is_none() {
        return Ok(None);
    }
    let now_ms = ambient.now_ms();
    let live = Live::default();
    let load = |_, _| unreachable!("recovery runs nothing");
    let terms = Terms::ours(policy.wait_for_app);
    let (failure, _) = write(file, terms, |file| {
        let Some(intent) = managed::intent(&file.connection)? else { return Ok(None) };
        let job = Job {
            identity,
            chain,
            load: &load,
            operation: intent.operation,
            from: intent.from,
            to: intent.to,
            by: AskedBy::Recovery,
            policy,
            ambient,
            live: &live,
        };
        let row = managed::migration(&file.connection, intent.next)?;
        if ours {
            if let Some(row) = row.filter(|r| r.status == Status::Running) {
                managed::put_migration(&file.connection, &MigrationRow { status: Status::Pending, ..row })?;
            }
            managed::clear_intent(&file.connection)?;
            return Ok(None);
        }
        managed::count_crash(&file.connection, Some(intent.next))?;
        let crashes = managed::crashes(&file.connection, intent.next)?;
        let gave_up = policy.max_attempts > 0 && crashes >= policy.max_attempts;
        let failure = Failure {
            item: None,
            code: "crashed".to_owned(),
            class: FailureClass::Crash,
            message: format!("the daemon died {crashes} time{} in a row while it ran", if crashes == 1 { "" } else { "s" }),
            remedy: if gave_up {
                here("look at the system's log for what killed it (memory, power), then run `whimbrel retry`")
            } else {
                wait("it is tried again by itself")
            },
        };
        if let Ok(entry) = job.entry(intent.next, row.as_ref()) {
            let attempts = row.as_ref().map_or(0, |r| r.attempts).max(1);
            let status = match (intent.operation, gave_up) {
                (Operation::Apply, true) => Status::Failed,
                (Operation::Apply, false) => Status::Pending,
                // What is taken back from half-way was never in place.
                (Operation::Revert, _) => row.as_ref().map_or(Status::Completed, |row| row.status),
            };
            let kept = gave_up.then(|| failure.clone());
            managed::put_migration(&file.connection, &job.row(&entry, status, attempts, now_ms, row.and_then(|r| r.completed_at_ms), kept))?;
            let mut event = job.event(&entry, EventKind::Crashed, status, attempts, now_ms);
            event.failure = Some(failure.clone());
            managed::append_event(&file.connection, &event)?;
        }
        managed::clear_intent(&file.connection)?;
        Ok(gave_up.then_some(failure))
    })?;
    Ok(failure)
}
