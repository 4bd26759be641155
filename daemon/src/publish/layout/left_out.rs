//! What other tools' migrations say that is not a migration's to say: settings of a connection, VACUUM, and the COMMIT of
//! a transaction that the tool opened. Inside the tools these do nothing or work around them; the engine refuses them.
//! Real projects have them in files that they cannot change any more, so they become comments here, and a note. Pure.

use std::collections::BTreeMap;

use super::{Draft, few};
use crate::publish::scan::{self, Deed, Statement};

/// Pragmas that set up a connection or the file as a whole, and change neither schema nor rows.
const SETTINGS: [&str; 20] = [
    "auto_vacuum",
    "automatic_index",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "encoding",
    "incremental_vacuum",
    "journal_mode",
    "journal_size_limit",
    "locking_mode",
    "mmap_size",
    "page_size",
    "recursive_triggers",
    "secure_delete",
    "synchronous",
    "temp_store",
    "threads",
    "trusted_schema",
    "wal_autocheckpoint",
    "wal_checkpoint",
];

/// Comments them out in `drafts`. Gives a note where there were any.
pub(super) fn leave_out(drafts: &mut [Draft]) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in drafts.iter_mut().flat_map(|draft| draft.files.values_mut()) {
        if let Some(sql) = without(&text.sql, &mut counts) {
            text.sql = sql;
        }
    }
    let said = counts.into_iter().map(|(what, count)| if count == 1 { what } else { format!("{what} ({count} times)") });
    (said.len() > 0).then(|| format!("left out, as the application's or the tool's to say and not a migration's: {}", few(said)))
}

fn without(sql: &str, counts: &mut BTreeMap<String, usize>) -> Option<String> {
    let mut out = String::new();
    let mut at = 0;
    let mut open = false;
    for statement in scan::statements(sql) {
        let what = match scan::deed(&statement) {
            Deed::Pragma { name, .. } if SETTINGS.contains(&name.as_str()) => format!("PRAGMA {name}"),
            Deed::WholeFile(word) if word == "vacuum" && !statement.tokens.iter().any(|t| t.token.is("into")) => "VACUUM".to_owned(),
            Deed::Transaction(word) if word == "begin" => {
                open = true;
                continue;
            }
            // It ends the transaction that the tool had begun, to have foreign_keys = OFF heard. Here it is heard anyway.
            Deed::Transaction(word) if (word == "commit" || word == "end") && !open => "a COMMIT without its BEGIN".to_owned(),
            Deed::Transaction(word) if word == "commit" || word == "end" => {
                open = false;
                continue;
            }
            _ => continue,
        };
        *counts.entry(what).or_default() += 1;
        let (begin, said) = (statement.at(), said(&statement, sql));
        out.push_str(&sql[at..begin]);
        out.push_str(&said);
        at = begin + statement.text(sql).len();
    }
    (at > 0).then(|| out + &sql[at..])
}

/// The statement as a comment on the same lines, for whoever compares.
fn said(statement: &Statement, sql: &str) -> String {
    let text = statement.text(sql);
    if text.contains("/*") || text.contains("*/") {
        text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
    } else {
        format!("/* left out: {text} */")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_borrowed_transactions_become_comments_on_their_lines() {
        let check = |sql: &str, want: Option<&str>| assert_eq!(without(sql, &mut BTreeMap::new()).as_deref(), want, "{sql}");
        check(
            "-- wal\nPRAGMA journal_mode = WAL;\nCREATE TABLE a(x); VACUUM;",
            Some("-- wal\n/* left out: PRAGMA journal_mode = WAL */;\nCREATE TABLE a(x); /* left out: VACUUM */;"),
        );
        check(
            "COMMIT TRANSACTION;\nPRAGMA foreign_keys = OFF;\nBEGIN TRANSACTION;\nA;\nCOMMIT TRANSACTION;\nBEGIN",
            Some("/* left out: COMMIT TRANSACTION */;\nPRAGMA foreign_keys = OFF;\nBEGIN TRANSACTION;\nA;\nCOMMIT TRANSACTION;\nBEGIN"),
        );
        check("PRAGMA synchronous /* why */\n= OFF; A;", Some("                            \n     ; A;"));
        check("BEGIN; A; END;", None);
        check("PRAGMA writable_schema = 1; VACUUM INTO 'x'; ATTACH 'y' AS y;", None);
        check("SELECT 'VACUUM;'; -- PRAGMA journal_mode=WAL;", None);
        check("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END; A;", None);
    }
}
