//! Writes the baseline, and takes it back: one transaction each, under the lock file, with everything that it rests on
//! read again under the lock. What another tool keeps is not touched.

use whimbrel_shared::{
    fingerprint::Schema,
    migration::TargetEntry,
    protocol::state::{HealthItem, Severity},
    remedy::here,
    status::{AskedBy, Event, EventKind, Operation, Status},
};

use super::{
    decide::{Decision, Word, decide},
    error::AdoptError,
    expected::expected,
    fit::Expected,
    map::{self, Names},
    past::{Past, Tool},
    trackers,
};
use crate::{
    migrate::{
        chain::Chain,
        connection::{Managed, Missing},
        error::{ApplyError, sqlite},
        files::LockFile,
        gate::item,
        plan::{self, History},
        transaction::{Terms, write},
        work::{Looked, Shared, Site},
    },
    store::managed::{self, Adopted, FileIdentity, MigrationRow},
};

/// What a look at a database with a past shows. Nothing was written.
#[derive(Debug)]
pub struct Survey {
    /// The trackers it has.
    pub pasts: Vec<Past>,
    /// What it was adopted as, if it was.
    pub adopted: Option<Adopted>,
    /// At which version it would be taken over, or why it would not.
    pub decision: Result<Decision, AdoptError>,
}

/// Looks at what there is to take over.
pub fn survey(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, word: Word) -> Result<Survey, ApplyError> {
    let expected = expected(shared, &site.rule.app, chain)?;
    let mut file = Managed::open(&site.path, Missing::Refuse, shared.policy.wait_for_app, shared.halt.clone())?;
    let pasts = trackers::read(&file.connection).map_err(sqlite("reading the trackers of other tools"))?;
    let adopted = managed::adopted(&file.connection)?;
    let decision = judge(&mut file, chain, &expected, &pasts, word)?;
    // What was found is no news once it is whimbrel's own.
    let decision = if looked.position > 0 { Err(AdoptError::Begun { version: looked.position }) } else { decision };
    Ok(Survey { pasts, adopted, decision })
}

/// Records everything up to the decided version as in place, without running it: a history row and an event each, by a
/// person, and what it rests on. Fails with nothing written.
pub fn adopt(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, word: Word) -> Result<Decision, AdoptError> {
    let expected = expected(shared, &site.rule.app, chain)?;
    let (_lock, mut file) = open(shared, site)?;
    let now_ms = shared.ambient.now_ms();
    let (outcome, _) = write(&mut file, Terms::ours(shared.policy.wait_for_app), |file| {
        if managed::intent(&file.connection)?.is_some() {
            return Ok(Err(AdoptError::Unfinished));
        }
        let version = plan::position(&managed::history(&file.connection)?);
        if version > 0 {
            return Ok(Err(AdoptError::Begun { version }));
        }
        let pasts = trackers::read(&file.connection).map_err(sqlite("reading the trackers of other tools"))?;
        let decision = match judge(file, chain, &expected, &pasts, word)? {
            Ok(decision) => decision,
            Err(why) => return Ok(Err(why)),
        };
        let fingerprint = expected.at(decision.version).map(|schema| schema.restricted(file.schema.schema()).digest());
        for version in 1..=decision.version {
            let entry = chain.newest(version).expect("the decision is within the chain");
            let row = row(entry);
            let last = version == decision.version;
            let event = event(shared, &looked.identity, &row, EventKind::Skipped, now_ms);
            managed::put_migration(&file.connection, &row)?;
            managed::append_event(&file.connection, &Event { fingerprint: fingerprint.filter(|_| last), ..event })?;
        }
        // What a first try ran into before somebody looked is over.
        managed::count_crash(&file.connection, None)?;
        let adopted = Adopted { by: decision.by.name().to_owned(), version: decision.version, at_ms: now_ms, drift: decision.drift.clone() };
        managed::set_adopted(&file.connection, Some(&adopted))?;
        Ok(Ok(decision))
    })?;
    outcome
}

/// Takes a baseline back: the history is as if it had never been written, and the events say so. Refused once a migration
/// ran on top. Returns the version that it stood at.
pub fn give_back(shared: &Shared, site: &Site, looked: &Looked) -> Result<u32, AdoptError> {
    let (_lock, mut file) = open(shared, site)?;
    let now_ms = shared.ambient.now_ms();
    let (outcome, _) = write(&mut file, Terms::ours(shared.policy.wait_for_app), |file| {
        if managed::intent(&file.connection)?.is_some() {
            return Ok(Err(AdoptError::Unfinished));
        }
        let Some(adopted) = managed::adopted(&file.connection)? else { return Ok(Err(AdoptError::NotAdopted)) };
        let history = managed::history(&file.connection)?;
        // Also below the baseline: what was reverted and ran again is no part of it any more.
        if let Some(row) = history.values().rfind(|row| row.status.is_in_place() && row.status != Status::Skipped) {
            return Ok(Err(AdoptError::OnTop { name: row.name.to_string(), version: row.version, base: adopted.version }));
        }
        for row in history.into_values().filter(|row| row.status == Status::Skipped).rev() {
            managed::remove_migration(&file.connection, row.version)?;
            let row = MigrationRow { status: Status::Pending, ..row };
            managed::append_event(&file.connection, &event(shared, &looked.identity, &row, EventKind::GivenBack, now_ms))?;
        }
        managed::set_adopted(&file.connection, None)?;
        Ok(Ok(adopted.version))
    })?;
    outcome
}

/// Why nothing of the chain may run on this file yet: another tool has run part of it, and running it again would fail
/// halfway or do it twice. None once a person has decided, or where nothing of the chain is there.
pub fn first(file: &mut Managed, chain: &Chain, history: &History) -> Result<Option<HealthItem>, ApplyError> {
    if plan::position(history) > 0 || chain.latest() == 0 || managed::adopted(&file.connection)?.is_some() {
        return Ok(None);
    }
    let pasts = trackers::read(&file.connection).map_err(sqlite("reading the trackers of other tools"))?;
    let names = names(chain);
    let Some(past) = pasts.iter().find(|p| p.tool != Tool::UserVersion && map::is_known(p, &names)) else { return Ok(None) };
    file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
    let expected = Expected::recorded(chain);
    let there = expected.closest(file.schema.schema()).and_then(|v| expected.at(v)).map(|schema| schema.restricted(file.schema.schema()));
    // Another tool that counts its own tables from 1 is none of the chain's business.
    if there.is_some_and(|schema| schema == Schema::default()) {
        return Ok(None);
    }
    let message = format!("{} has applied migrations of this chain here ({}): nothing is run until they are taken over", past.tool, past.table);
    let remedy = here(
        "`whimbrel adopt run` takes them over; `whimbrel adopt run --version 0 --accept-drift` says that the chain begins here at its first migration",
    );
    Ok(Some(item("adopt_first", Severity::Warning, message, remedy)))
}

fn open(shared: &Shared, site: &Site) -> Result<(LockFile, Managed), ApplyError> {
    let wait = shared.policy.wait_for_app;
    let lock = LockFile::hold(&site.path, wait, &shared.halt)?;
    let file = Managed::open(&site.path, Missing::Refuse, wait, shared.halt.clone())?;
    Ok((lock, file))
}

fn judge(file: &mut Managed, chain: &Chain, expected: &Expected, pasts: &[Past], word: Word) -> Result<Result<Decision, AdoptError>, ApplyError> {
    file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
    if let Some(asked) = word.version.filter(|v| *v > chain.latest()) {
        return Ok(Err(AdoptError::NoSuchVersion { asked: asked.to_string(), latest: chain.latest() }));
    }
    Ok(decide(pasts, &names(chain), expected, file.schema.schema(), word))
}

fn names(chain: &Chain) -> Names<'_> {
    Names::new((1..=chain.latest()).filter_map(|v| chain.newest(v)).map(|e| e.custom.name.as_str()).collect())
}

/// As if the newest revision had run: a later one would not run here either.
fn row(entry: &TargetEntry) -> MigrationRow {
    MigrationRow {
        version: entry.custom.version,
        revision: entry.custom.revision,
        name: entry.custom.name.clone(),
        digest: entry.digest(),
        status: Status::Skipped,
        attempts: 0,
        started_at_ms: None,
        completed_at_ms: None,
        failure: None,
    }
}

fn event(shared: &Shared, identity: &FileIdentity, row: &MigrationRow, kind: EventKind, at_ms: i64) -> Event {
    Event {
        event_id: shared.ambient.event_id(),
        client_id: identity.client_id,
        app: identity.app.clone(),
        kind,
        operation: Operation::Apply,
        migration: row.name.clone(),
        version: row.version,
        revision: row.revision,
        digest: row.digest,
        status: row.status,
        attempt: 0,
        by: AskedBy::Person,
        at_ms,
        took_ms: None,
        failure: None,
        fingerprint: None,
        rows: None,
        verify_skipped: false,
    }
}
