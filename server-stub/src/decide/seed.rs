//! What the one flag of a seed client says. Pure.

use whimbrel_shared::{
    ids::{AppName, ClientId, Digest, EventId},
    protocol::{clients::MigrationStatus, report::SeedStatus},
    remedy::here,
    status::{AskedBy, Event, EventKind, Failure, FailureClass, Operation, Status},
};

/// Longest error text kept, in characters.
const MAX_ERROR_CHARS: usize = 4_000;

/// A published migration that a flag is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Its place in the chain.
    pub(crate) version: u32,
    /// Newest revision.
    pub(crate) revision: u32,
    /// Digest of that revision.
    pub(crate) digest: Digest,
}

/// The event that a flag amounts to, or none when it says what is known already. A migration that was never published
/// here (`known` is none) is kept in the history as version 0, revision 0, with the digest of nothing.
pub(crate) fn event(
    before: Option<&MigrationStatus>,
    known: Option<Known>,
    client_id: ClientId,
    app: &AppName,
    flag: SeedStatus,
    event_id: EventId,
    now_ms: i64,
) -> Option<Event> {
    let was = before.map_or(Status::Pending, |b| b.status);
    let message: Option<String> = flag.error.filter(|e| !e.is_empty()).map(|e| e.chars().take(MAX_ERROR_CHARS).collect());
    let (kind, status, operation) = match (flag.applied, &message, was.is_in_place()) {
        (true, _, true) => return None,
        (true, _, false) => (EventKind::Completed, Status::Completed, Operation::Apply),
        (false, Some(text), _) => {
            let known = before.and_then(|b| b.failure.as_ref()).map(|f| &f.message);
            if was == Status::Failed && known == Some(text) {
                return None;
            }
            (EventKind::Failed, Status::Failed, Operation::Apply)
        }
        (false, None, true) => (EventKind::Reverted, Status::Reverted, Operation::Revert),
        (false, None, false) => return None,
    };
    let failure = message.filter(|_| kind == EventKind::Failed).map(|message| Failure {
        item: None,
        code: "reported".to_owned(),
        class: FailureClass::Permanent,
        message,
        remedy: here("look at the client: it reports no more than this text"),
    });
    let known = known.unwrap_or(Known { version: 0, revision: 0, digest: Digest::of(b"") });
    Some(Event {
        event_id,
        client_id,
        app: app.clone(),
        kind,
        operation,
        migration: flag.migration_name,
        version: known.version,
        revision: known.revision,
        digest: known.digest,
        status,
        attempt: before.map_or(0, |b| b.attempts).saturating_add(1),
        by: AskedBy::Plan,
        at_ms: now_ms,
        took_ms: None,
        failure,
        fingerprint: None,
        rows: None,
        verify_skipped: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::place;

    #[test]
    fn a_flag_that_says_nothing_new_is_no_event() {
        let mut before: Option<MigrationStatus> = None;
        let mut check = |applied, error: Option<&str>, expected: Option<EventKind>| {
            let flag = SeedStatus { migration_name: "0001".parse().unwrap(), applied, error: error.map(str::to_owned) };
            let id = EventId::from_dice(9);
            let found = event(before.as_ref(), None, ClientId::from_dice(1), &"notes".parse().unwrap(), flag, id, 5);
            assert_eq!(found.as_ref().map(|e| e.kind), expected);
            if let Some(event) = found {
                before = Some(place::after(before.take(), &event));
            }
        };
        check(false, None, None);
        check(false, Some("no such table"), Some(EventKind::Failed));
        check(false, Some("no such table"), None);
        check(false, Some("disk full"), Some(EventKind::Failed));
        check(true, None, Some(EventKind::Completed));
        check(true, None, None);
        check(false, None, Some(EventKind::Reverted));
        check(false, None, None);
        check(true, None, Some(EventKind::Completed));
    }
}
