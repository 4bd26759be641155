//! What `sync`, `conflicts`, `quarantine` and `detach` share: values for people, and how an order about rows ends.

use serde::Serialize;
use whimbrel_shared::value::Value;

use super::{
    error::{CliError, ExitCode},
    look::clean,
    order::{self, Placed},
    output::Output,
};
use crate::control::protocol::{PersonOrder, RowsDone, SummaryError};

/// Characters of a value that a person is shown; `--json` has all of it.
const SHOWN: usize = 60;

/// A value on one line, cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = clean(&format!("{value:?}"));
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], value.size_bytes()),
        None => text,
    }
}

/// A key on one line: `7`, or `"a", 7`.
pub(super) fn key(values: &[Value]) -> String {
    values.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// What `--json` prints of an order about rows.
#[derive(Debug, Serialize)]
pub(super) struct Done<'a> {
    /// One per database.
    pub(super) databases: &'a [RowsDone],
    /// What stood in the way.
    pub(super) errors: &'a [SummaryError],
}

/// Places an order about rows, stays until it is done, and prints what it came to. What stood in the way goes to stderr;
/// `code` is the exit code where nothing did.
pub(super) fn carry_out(
    out: &Output,
    database: Option<&str>,
    order: PersonOrder,
    schema: &str,
    human: impl Fn(&[RowsDone]) -> String,
    code: impl Fn(&[RowsDone]) -> ExitCode,
) -> Result<(), CliError> {
    let placed = order::place(out, database, order, true)?;
    let Placed::Finished(summary, _) = &placed else { return order::report(out, &placed) };
    if out.is_json() {
        out.json(schema, &Done { databases: &summary.rows, errors: &summary.errors })?;
    } else {
        out.text(&human(&summary.rows))?;
    }
    let Some(first) = summary.errors.first() else {
        return match code(&summary.rows) {
            ExitCode::Done => Ok(()),
            exit => Err(CliError::told(exit)),
        };
    };
    let exit = if summary.errors.iter().all(|e| e.code == "rows_offline") { ExitCode::ServerUnreachable } else { ExitCode::Failed };
    if out.is_json() {
        return Err(CliError::told(exit));
    }
    let error = |e: &SummaryError| CliError::new(exit, format!("{}: {}", clean(&e.database.to_string_lossy()), e.message), e.remedy.clone());
    summary.errors.iter().skip(1).for_each(|e| out.complain(&error(e)));
    Err(error(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_where_a_character_ends_and_says_how_long_it_is() {
        assert_eq!(shown(&Value::text("né")), "\"né\"");
        let long = shown(&Value::text(&"é".repeat(100)));
        assert_eq!(long, format!("\"{}… (204 bytes)", "é".repeat(SHOWN - 1)));
        assert_eq!(shown(&Value::text("a\x1b[31m")), r#""a\u{1b}[31m""#);
        assert_eq!(key(&[Value::text("a"), Value::Integer(7), Value::Blob(vec![0, 255])]), "\"a\", 7, x'00ff'");
    }
}
