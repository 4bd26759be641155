//! What is to be done on one database: from its history, the accepted chain, the server's plan and a person's word. Pure.

use std::collections::BTreeMap;

use whimbrel_shared::{
    protocol::{
        poll::Order,
        state::{HealthItem, Severity},
    },
    remedy::{here, operator, wait},
    status::{AskedBy, Failure, FailureClass, Operation, Status},
};

use super::chain::Chain;
use crate::store::managed::MigrationRow;

/// A history by version.
pub type History = BTreeMap<u32, MigrationRow>;

/// What comes next on a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is where it should be.
    Nothing,
    /// A stretch of the chain is to be run.
    Run {
        /// Which way.
        operation: Operation,
        /// First version.
        from: u32,
        /// Last version.
        to: u32,
        /// Who asked.
        by: AskedBy,
    },
    /// The chain stands still, and why.
    Stopped(HealthItem),
}

/// What a person wants, as far as it concerns the order of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Apply, at most to this version.
    ApplyUpTo(u32),
    /// Revert every version above this one.
    RevertDownTo(u32),
    /// Take back this one, an online migration that stopped half-way.
    TakeBack(u32),
}

/// Highest version in place without a gap below it.
pub fn position(history: &History) -> u32 {
    let mut position = 0;
    while history.get(&(position + 1)).is_some_and(|row| row.status.is_in_place()) {
        position += 1;
    }
    position
}

/// Decides. `order` is the server's plan, none before the first poll.
pub fn next(history: &History, chain: &Chain, order: Option<Order>, wish: Option<Wish>) -> Next {
    let position = position(history);
    let stopped = |code: &str, severity, message: String, remedy| Next::Stopped(HealthItem { code: code.to_owned(), severity, message, remedy });
    if let Some((version, row)) = history.iter().find(|(v, row)| **v > position + 1 && row.status.is_in_place()) {
        return stopped(
            "history_gap",
            Severity::Error,
            format!("version {version} ({}) is in place and version {} is not", row.name, position + 1),
            here("restore the file from a backup: its history was changed by somebody else"),
        );
    }
    for (version, row) in history.range(..=position) {
        let revisions = chain.revisions(*version);
        if !revisions.is_empty() && !revisions.iter().any(|e| e.digest() == row.digest) {
            return stopped(
                "other_chain",
                Severity::Error,
                format!("version {version} ({}) in the file is not version {version} of the accepted chain", row.name),
                operator("the file was migrated by another chain: correct `app`, or restore what was published"),
            );
        }
    }

    match (wish, order) {
        (Some(Wish::RevertDownTo(target)), _) => revert(history, position, target, AskedBy::Person),
        (Some(Wish::TakeBack(version)), _) => Next::Run { operation: Operation::Revert, from: version, to: version, by: AskedBy::Person },
        (None, Some(Order::RevertDownTo { version })) => revert(history, position, version, AskedBy::Plan),
        // A person may hurry the plan, and not go past it.
        (Some(Wish::ApplyUpTo(target)), Some(Order::ApplyUpTo { version })) => apply(history, chain, position, target.min(version), AskedBy::Person),
        (None, Some(Order::ApplyUpTo { version })) => apply(history, chain, position, version, AskedBy::Plan),
        (Some(Wish::ApplyUpTo(_)), Some(Order::RevertDownTo { version })) => {
            stopped("plan_reverts", Severity::Warning, format!("the server's plan is to stay at version {version}"), operator("change the plan"))
        }
        (_, None) => stopped(
            "no_plan",
            Severity::Info,
            "the server has not said yet what this database may have".to_owned(),
            wait("it is asked as soon as it can be reached"),
        ),
    }
}

fn revert(history: &History, position: u32, target: u32, by: AskedBy) -> Next {
    if position > target
        && let Some(row) = history.get(&position)
        && let Some(failure) = &row.failure
    {
        // A person may try a failed revert again; one that killed the daemon is looked at first.
        let stands = match failure.class {
            FailureClass::Permanent | FailureClass::Corrupt => by != AskedBy::Person,
            FailureClass::Crash => true,
            FailureClass::Transient => false,
        };
        if stands {
            return Next::Stopped(stopped_by(row, failure));
        }
    }
    if position > target { Next::Run { operation: Operation::Revert, from: position, to: target + 1, by } } else { Next::Nothing }
}

fn stopped_by(row: &MigrationRow, failure: &Failure) -> HealthItem {
    HealthItem {
        code: failure.code.clone(),
        severity: Severity::Error,
        message: format!("{} failed: {}", row.name, failure.message),
        remedy: failure.remedy.clone(),
    }
}

fn apply(history: &History, chain: &Chain, position: u32, target: u32, by: AskedBy) -> Next {
    let to = target.min(chain.latest());
    if position >= to {
        return Next::Nothing;
    }
    let from = position + 1;
    if let Some(row) = history.get(&from)
        && row.status == Status::Failed
        && let Some(failure) = &row.failure
    {
        // A newer revision mends it for those who have not completed it.
        let mended = chain.newest(from).is_some_and(|e| e.custom.revision > row.revision);
        let waits = match failure.class {
            FailureClass::Permanent | FailureClass::Crash | FailureClass::Corrupt => !mended,
            FailureClass::Transient => false,
        };
        if waits {
            return Next::Stopped(stopped_by(row, failure));
        }
    }
    Next::Run { operation: Operation::Apply, from, to, by }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::{
        ids::Digest,
        migration::{Link, TargetEntry},
    };

    use super::*;

    fn chain(latest: u32) -> Chain {
        let link = |version: u32| Link::new(format!("m{version}").parse().unwrap(), version, None);
        Chain::new((1..=latest).map(|v| TargetEntry::new(format!("m{v}").as_bytes(), link(v))).collect())
    }

    fn history(words: &[(u32, Status, Option<FailureClass>)]) -> History {
        let row = |version: u32, status, class: Option<FailureClass>| MigrationRow {
            version,
            revision: 1,
            name: format!("m{version}").parse().unwrap(),
            digest: Digest::of(format!("m{version}").as_bytes()),
            status,
            attempts: 1,
            started_at_ms: None,
            completed_at_ms: None,
            failure: class.map(|class| Failure { code: "sql_error".into(), class, message: "m".into(), remedy: wait("w"), item: None }),
        };
        words.iter().map(|(v, s, c)| (*v, row(*v, *s, *c))).collect()
    }

    fn describe(next: &Next) -> String {
        match next {
            Next::Nothing => "nothing".into(),
            Next::Run { operation, from, to, by } => format!("{operation} {from}..{to} {by:?}"),
            Next::Stopped(item) => item.code.clone(),
        }
    }

    #[test]
    fn what_comes_next() {
        use Order::{ApplyUpTo, RevertDownTo};
        use Status::{Completed, Failed, Pending, Reverted, Running, Skipped};
        let up = |version| Some(ApplyUpTo { version });
        let down = |version| Some(RevertDownTo { version });
        let permanent = Some(FailureClass::Permanent);
        type Row = (u32, Status, Option<FailureClass>);
        type Case<'a> = (&'a [Row], Option<Order>, Option<Wish>, &'a str);
        let cases: &[Case<'_>] = &[
            (&[], None, None, "no_plan"),
            (&[], up(3), None, "apply 1..3 Plan"),
            (&[], up(9), None, "apply 1..3 Plan"),
            (&[(1, Completed, None)], up(1), None, "nothing"),
            (&[(1, Completed, None), (2, Skipped, None)], up(3), None, "apply 3..3 Plan"),
            (&[(1, Completed, None), (2, Running, None)], up(3), None, "apply 2..3 Plan"),
            (&[(1, Completed, None), (2, Reverted, None)], up(3), None, "apply 2..3 Plan"),
            (&[(1, Completed, None), (2, Failed, permanent)], up(3), None, "sql_error"),
            (&[(1, Completed, None), (2, Failed, Some(FailureClass::Transient))], up(3), None, "apply 2..3 Plan"),
            (&[(1, Completed, None), (2, Pending, Some(FailureClass::Transient))], up(3), None, "apply 2..3 Plan"),
            (&[(1, Completed, None), (3, Completed, None)], up(3), None, "history_gap"),
            (&[(1, Completed, None)], up(3), Some(Wish::ApplyUpTo(2)), "apply 2..2 Person"),
            (&[(1, Completed, None)], up(2), Some(Wish::ApplyUpTo(9)), "apply 2..2 Person"),
            (&[(1, Completed, None), (2, Completed, None)], up(2), Some(Wish::RevertDownTo(0)), "revert 2..1 Person"),
            (&[(1, Completed, None), (2, Completed, None)], down(1), None, "revert 2..2 Plan"),
            (&[(1, Completed, None)], down(1), None, "nothing"),
            (&[(1, Completed, permanent)], down(0), None, "sql_error"),
            (&[(1, Completed, permanent)], down(0), Some(Wish::RevertDownTo(0)), "revert 1..1 Person"),
            (&[(1, Completed, Some(FailureClass::Crash))], down(0), Some(Wish::RevertDownTo(0)), "sql_error"),
            (&[(1, Completed, None)], down(1), Some(Wish::ApplyUpTo(3)), "plan_reverts"),
            (&[(1, Completed, None), (2, Failed, permanent)], up(2), Some(Wish::TakeBack(2)), "revert 2..2 Person"),
        ];
        for (rows, order, wish, expected) in cases {
            assert_eq!(describe(&next(&history(rows), &chain(3), *order, *wish)), *expected, "{rows:?} {order:?} {wish:?}");
        }
    }

    #[test]
    fn a_file_of_another_chain_is_left_alone() {
        let mut rows = history(&[(1, Status::Completed, None)]);
        rows.get_mut(&1).unwrap().digest = Digest::of(b"else");
        assert_eq!(describe(&next(&rows, &chain(3), Some(Order::ApplyUpTo { version: 3 }), None)), "other_chain");
    }

    #[test]
    fn a_new_revision_frees_a_failed_migration() {
        let rows = history(&[(1, Status::Failed, Some(FailureClass::Permanent))]);
        let mut entries = vec![chain(1).newest(1).unwrap().clone()];
        let mut second = entries[0].clone();
        second.custom.revision = 2;
        entries.push(second);
        assert_eq!(describe(&next(&rows, &Chain::new(entries), Some(Order::ApplyUpTo { version: 1 }), None)), "apply 1..1 Plan");
    }
}
