//! What is in place on a database, from its reports and its state. Pure.
//!
//! Both speak of the same thing and arrive apart, so the newer word counts: a report says what a migration did, a state
//! says how the file is now (and takes back reports when the file was restored from a backup).

use std::collections::BTreeMap;

use whimbrel_shared::{
    protocol::clients::MigrationStatus,
    status::{Event, EventKind, Status},
};

/// Where a migration stands after `event`, which is the newest: a device sends in the order in which things happened,
/// and an event that was stored before never comes here again.
pub(crate) fn after(before: Option<MigrationStatus>, event: &Event) -> MigrationStatus {
    let (started_at_ms, completed_at_ms, failure) = match before {
        Some(before) => (before.started_at_ms, before.completed_at_ms, before.failure),
        None => (None, None, None),
    };
    let (started_at_ms, completed_at_ms, failure) = match event.kind {
        EventKind::Started => (Some(event.at_ms), completed_at_ms, None),
        EventKind::Completed | EventKind::Skipped => (started_at_ms, Some(event.at_ms), None),
        EventKind::Failed | EventKind::Crashed => (started_at_ms, completed_at_ms, event.failure.clone().or(failure)),
        EventKind::Reverted | EventKind::GivenBack => (started_at_ms, None, None),
        EventKind::Retried => (started_at_ms, completed_at_ms, None),
    };
    MigrationStatus {
        name: event.migration.clone(),
        version: event.version,
        status: event.status,
        attempts: event.attempt,
        started_at_ms,
        completed_at_ms,
        failure,
    }
}

/// The version up to which everything is in place. `reported` is the version of the last state (0 without one), `newer`
/// what reports that arrived after it say, by version.
pub(crate) fn version(reported: u32, newer: &BTreeMap<u32, Status>) -> u32 {
    let first_missing = newer.iter().filter(|(v, s)| **v > 0 && !s.is_in_place()).map(|(v, _)| *v).next();
    let mut version = reported;
    while let Some(next) = version.checked_add(1).filter(|next| newer.get(next).is_some_and(|s| s.is_in_place())) {
        version = next;
    }
    match first_missing {
        Some(missing) => version.min(missing - 1),
        None => version,
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::{
        ids::{ClientId, Digest, EventId},
        remedy::operator,
        status::{AskedBy, Failure, FailureClass, Operation},
    };

    use super::*;

    #[test]
    fn the_newer_word_counts() {
        use Status::{Completed, Failed, Reverted, Running, Skipped};
        let check = |reported, newer: &[(u32, Status)], expected| {
            let map = newer.iter().copied().collect();
            assert_eq!(version(reported, &map), expected, "{reported} {newer:?}");
        };
        check(0, &[], 0);
        check(3, &[], 3);
        check(0, &[(1, Skipped), (2, Completed), (3, Failed)], 2);
        check(2, &[(3, Completed)], 3);
        check(3, &[(3, Reverted)], 2);
        check(3, &[(2, Reverted), (3, Reverted)], 1);
        check(1, &[(2, Running)], 1);
        // A seed client does not stop at a failure: what is above it is ahead, not in line.
        check(0, &[(1, Failed), (2, Completed)], 0);
        check(0, &[(2, Completed)], 0);
        // A report about something that was never published has no version.
        check(0, &[(0, Failed), (1, Completed)], 1);
        check(u32::MAX, &[], u32::MAX);
    }

    #[test]
    fn a_status_keeps_its_times_and_forgets_a_failure_that_is_over() {
        let mut status = None;
        for (kind, word, at_ms) in [(EventKind::Started, Status::Running, 1), (EventKind::Failed, Status::Failed, 2)] {
            status = Some(after(status, &event(kind, word, at_ms)));
        }
        let failed = status.clone().unwrap();
        assert_eq!(failed.started_at_ms, Some(1));
        assert_eq!(failed.failure.unwrap().code, "sql_error");
        for (kind, word, at_ms) in
            [(EventKind::Retried, Status::Pending, 3), (EventKind::Started, Status::Running, 4), (EventKind::Completed, Status::Completed, 5)]
        {
            status = Some(after(status, &event(kind, word, at_ms)));
        }
        let done = status.clone().unwrap();
        assert_eq!((done.started_at_ms, done.completed_at_ms, done.failure), (Some(4), Some(5), None));
        let reverted = after(status, &event(EventKind::Reverted, Status::Reverted, 6));
        assert_eq!(reverted.completed_at_ms, None);
        assert_eq!(reverted.status, Status::Reverted);
        let adopted = after(None, &event(EventKind::Skipped, Status::Skipped, 7));
        assert_eq!((adopted.status, adopted.started_at_ms, adopted.completed_at_ms), (Status::Skipped, None, Some(7)));
        let given_back = after(Some(adopted), &event(EventKind::GivenBack, Status::Pending, 8));
        assert_eq!((given_back.status, given_back.completed_at_ms), (Status::Pending, None));
    }

    fn event(kind: EventKind, status: Status, at_ms: i64) -> Event {
        Event {
            event_id: EventId::from_dice(1),
            client_id: ClientId::from_dice(2),
            app: "notes".parse().unwrap(),
            kind,
            operation: Operation::Apply,
            migration: "0001".parse().unwrap(),
            version: 1,
            revision: 1,
            digest: Digest::of(b""),
            status,
            attempt: 1,
            by: AskedBy::Plan,
            at_ms,
            took_ms: None,
            failure: (kind == EventKind::Failed).then(|| Failure {
                item: None,
                code: "sql_error".to_owned(),
                class: FailureClass::Permanent,
                message: "no such table".to_owned(),
                remedy: operator("publish a revision"),
            }),
            fingerprint: None,
            rows: None,
            verify_skipped: false,
        }
    }
}
