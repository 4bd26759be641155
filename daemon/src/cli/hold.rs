//! `whimbrel hold`: apply nothing for a while.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime};
use serde::Serialize;
use whimbrel_shared::duration::Span;

use super::{
    error::CliError,
    order::{self, Placed},
    output::Output,
};
use crate::{ambient::Ambient, control::protocol::PersonOrder};

/// `schema` of what `hold` prints.
pub const HOLD_SCHEMA: &str = "whimbrel.hold/1";

/// Apply nothing to a database until it is released, or until a time
///
/// What is accepted from the server is kept, and reports go on. A migration that runs now is rolled back and begins again
/// afterwards; one in mode online stops where it is, and goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   held
  1   no such database
  2   the time is not understood, or past
  69  the daemon is not running

Examples:
  whimbrel hold                                 all databases, until `whimbrel release`
  whimbrel hold notes.db --for 3h
  whimbrel hold --until 2026-12-01T08:00        in the device's time zone")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// When it ends by itself: 2026-12-01T08:00, in the device's time zone unless it says another
    #[arg(long, value_name = "TIME", conflicts_with = "length")]
    until: Option<String>,
    /// How long it lasts: 30m, 3h, 2d
    #[arg(long = "for", id = "length", value_name = "LENGTH")]
    length: Option<Span>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Held {
    /// When it ends by itself, in milliseconds since 1970.
    until_ms: Option<i64>,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let now_ms = Ambient::real().now_ms();
    let until_ms = match (&args.until, args.length) {
        (Some(text), _) => Some(moment(text, now_ms)?),
        (None, Some(length)) => Some(now_ms.saturating_add_unsigned(length.as_millis())),
        (None, None) => None,
    };
    match order::place(out, args.database.as_deref(), PersonOrder::Hold { until_ms }, true)? {
        // How the databases stand was not the question.
        Placed::Kept(_) | Placed::Finished(_, _) => {}
    }
    if out.is_json() {
        return out.json(HOLD_SCHEMA, &Held { until_ms });
    }
    let until = until_ms
        .map_or_else(|| "until `whimbrel release`".to_owned(), |ms| format!("until {}; `whimbrel release` ends it earlier", out.look().moment(ms)));
    out.text(&format!("held {until}\n"))
}

/// The moment that a text means, in the device's time zone unless it says another.
fn moment(text: &str, now_ms: i64) -> Result<i64, CliError> {
    let text = text.trim();
    let naive = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    let at_ms = match (DateTime::parse_from_rfc3339(text), naive) {
        (Ok(zoned), _) => zoned.timestamp_millis(),
        // An hour that the clocks repeat is held until its second end.
        (Err(_), Some(naive)) => match naive.and_local_timezone(Local).latest() {
            Some(local) => local.timestamp_millis(),
            None => return Err(CliError::usage(format!("{text:?} does not exist here: the clocks skip it"), "name a time an hour later")),
        },
        (Err(_), None) => return Err(CliError::usage(format!("{text:?} is not a time"), "write it like 2026-12-01T08:00, or use --for 3h")),
    };
    if at_ms <= now_ms {
        return Err(CliError::usage(format!("{text} is past"), "name a time to come, or use `whimbrel release`"));
    }
    Ok(at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{error::ExitCode, fixture::NOW_MS};

    #[test]
    fn a_time_to_come_is_understood_in_the_forms_people_write() {
        for text in ["2026-12-01T08:00", "2026-12-01 08:00", "2026-12-01T08:00:00", "2026-12-01"] {
            assert!(moment(text, NOW_MS).is_ok_and(|ms| ms > NOW_MS), "{text}");
        }
        assert_eq!(moment("2026-12-01T08:00:00+01:00", NOW_MS).unwrap(), 1_796_108_400_000);
        for text in ["tomorrow", "", "2026-13-01", "2020-01-01"] {
            assert_eq!(moment(text, NOW_MS).unwrap_err().exit, ExitCode::Usage, "{text}");
        }
    }
}
