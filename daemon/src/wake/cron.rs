//! The schedule. `tokio-cron-scheduler` rings the bell in its cron form and does nothing else: its repeated form stops
//! after a suspend, jobs overlap, and it goes on for a tick after shutdown (reference ops 1.5). The loop keeps a plain
//! deadline beside it, computed here, so that a clock set back does not silence the schedule.

use chrono::{DateTime, Local, TimeZone};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::bell::{Bell, Why};

/// Reads an expression exactly as the scheduler does.
pub fn parse(expression: &str) -> Result<Cron, String> {
    CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build().parse(expression).map_err(|e| e.to_string())
}

/// When `expression` next comes after `now`, in milliseconds since 1970; none when it never does.
pub fn next_ms<Tz: TimeZone>(expression: &Cron, now_ms: i64, zone: &Tz) -> Option<i64> {
    let now = zone.timestamp_millis_opt(now_ms).single()?;
    expression.find_next_occurrence(&now, false).ok().map(|t: DateTime<Tz>| t.timestamp_millis())
}

/// Whether a window that opens at `open` and stays open for `length_ms` is open at `now_ms`. Pure.
pub fn is_open<Tz: TimeZone>(open: &Cron, length_ms: i64, now_ms: i64, zone: &Tz) -> bool {
    // It is open if it opened at some time in (now - length, now].
    next_ms(open, now_ms - length_ms, zone).is_some_and(|opened| opened <= now_ms)
}

/// The running scheduler. Dropping it does not stop it; [`Ringer::stop`] does.
pub struct Ringer(JobScheduler);

impl Ringer {
    /// Begins to ring `bell` as `expression` says, in the device's time zone.
    pub async fn start(expression: &str, bell: Bell) -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.add(Job::new_tz(expression, Local, move |_, _| bell.ring(Why::Schedule))?).await?;
        scheduler.start().await?;
        Ok(Self(scheduler))
    }

    /// Ends it. A last ring may still come; the loop has ended by then.
    pub async fn stop(mut self) {
        if let Err(error) = self.0.shutdown().await {
            tracing::debug!(%error, "the scheduler did not stop cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_window_is_open_from_its_beginning_to_its_end() {
        let open = parse("0 0 2 * * *").unwrap();
        let at = |hour: i64, minute: i64| 20_000 * 24 * HOUR + hour * HOUR + minute * 60_000;
        for (hour, minute, expected) in [(1, 59, false), (2, 0, true), (4, 59, true), (5, 0, false), (23, 0, false)] {
            assert_eq!(is_open(&open, 3 * HOUR, at(hour, minute), &Utc), expected, "{hour}:{minute}");
        }
        // Over midnight.
        let late = parse("0 0 23 * * *").unwrap();
        assert!(is_open(&late, 3 * HOUR, at(1, 30), &Utc) && !is_open(&late, 3 * HOUR, at(2, 0), &Utc));
    }

    #[test]
    fn an_expression_without_seconds_is_refused() {
        assert!(parse("*/5 * * * *").is_err() && parse("0 */5 * * * *").is_ok());
    }
}
