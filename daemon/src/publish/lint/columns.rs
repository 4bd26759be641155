//! Findings about column ids, `[[carry]]` and `[sync]`: what `publish/columns` found, with codes and weights. Pure.

use whimbrel_shared::synced::SyncError;

use super::{Desk, Finding, Rule, Strictness, Weight};
use crate::publish::{
    columns::{Note, Problem},
    layout::Authored,
};

/// What is wrong: publishing is refused, whoever wrote it, because edits would be lost.
pub fn problem(authored: &Authored, strictness: Strictness, problem: &Problem) -> Finding {
    let rule = match problem {
        Problem::Carry(_) | Problem::Ids { .. } => Rule::Carry,
        Problem::Sync(SyncError::Assigned { .. } | SyncError::NoKey { .. }) => Rule::SyncKeys,
        Problem::Sync(_) | Problem::NoIds { .. } => Rule::SyncTable,
        Problem::NotOwnRow { .. } | Problem::KeyFilled { .. } => Rule::OwnRow,
        Problem::NoWayUp { .. } | Problem::Unclear { .. } => Rule::NoWayUp,
    };
    find(authored, strictness, rule, Weight::Always, problem.to_string(), problem.remedy())
}

/// What is good to know.
pub fn remark(authored: &Authored, strictness: Strictness, note: &Note) -> Finding {
    let (rule, what, remedy) = match note {
        Note::Renewed(table, column) => (
            Rule::Renewed,
            format!(
                "{table} exchanges rows, and {column} is filled anew: it gets another id, and what older versions write there goes through the backfill"
            ),
            format!("if that is not meant, say min_schema = \"this\" in [sync.{table}]: then older versions' edits wait instead"),
        ),
        Note::NotAtServer(table, index, why) => (
            Rule::NotAtServer,
            format!("{table} exchanges rows, and the server cannot see to the unique index {index}: {why}"),
            "two devices may both have such a value: one of the rows then waits in quarantine; a plain unique index is seen to at the server"
                .to_owned(),
        ),
        Note::NullableKey(table, column) => (
            Rule::NullableKey,
            format!("{table} exchanges rows, and its key column {column} may be NULL: such rows are not exchanged"),
            "declare it NOT NULL".to_owned(),
        ),
    };
    find(authored, strictness, rule, Weight::Advice, what, remedy)
}

fn find(authored: &Authored, strictness: Strictness, rule: Rule, weight: Weight, what: String, remedy: String) -> Finding {
    let mut findings = Vec::new();
    let file = if authored.migration.manifest == Default::default() { "up.sql" } else { "migration.toml" };
    Desk { authored, strictness, findings: &mut findings }.note(rule, weight, file, 0, what, remedy);
    findings.swap_remove(0)
}
