//! The schedule. `tokio-cron-scheduler` rings the bell in its cron form and does nothing else: its repeated form stops
//! after a suspend, jobs overlap, and it goes on for a tick after shutdown (reference ops 1.5). The loop keeps a plain
//! deadline beside it, computed here, so that a clock set back does not silence the schedule.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Local, TimeZone};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use tokio::sync::Notify;
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

/// How long before a ring the scheduler is started. It looks at the clock every 500 ms.
const LEAD: Duration = Duration::from_millis(1_500);
/// How long it is waited for. A clock that is set back in these seconds makes it silent; then it is looked up anew.
const LONGEST: Duration = Duration::from_secs(5);

/// Rings `bell` as `expression` says, in the device's time zone, for ever.
///
/// The scheduler lives only for the seconds around a ring, in a thread and a runtime of its own: it wakes the processor
/// twice a second as long as it lives, and its tasks end only with their runtime.
pub async fn ring(expression: String, cron: Cron, bell: Bell, clock: impl Fn() -> i64) {
    loop {
        let now_ms = clock();
        let until =
            next_ms(&cron, now_ms, &Local).map_or(Duration::from_secs(3600), |next| Duration::from_millis((next - now_ms).max(0).unsigned_abs()));
        tokio::time::sleep(until.saturating_sub(LEAD)).await;
        if until > LEAD + LONGEST {
            let (done, ended) = tokio::sync::oneshot::channel();
            let (expression, bell) = (expression.clone(), bell.clone());
            // Detached: an end of the daemon does not wait for it.
            std::thread::spawn(move || done.send(ring_once(&expression, bell)));
            if let Ok(Err(error)) = ended.await {
                tracing::warn!(%error, "the schedule did not ring; the deadline beside it does");
            }
        } else {
            // Closer together than that it would be started for ever.
            tokio::time::sleep(LEAD.min(until)).await;
            bell.ring(Why::Schedule);
        }
    }
}

fn ring_once(expression: &str, bell: Bell) -> Result<(), JobSchedulerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|_| JobSchedulerError::CantInit)?;
    runtime.block_on(async {
        let rung = Arc::new(Notify::new());
        let heard = rung.clone();
        let scheduler = JobScheduler::new().await?;
        let job = Job::new_tz(expression, Local, move |_, _| {
            bell.ring(Why::Schedule);
            rung.notify_one();
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        // Not ringing in time is no error: the clock was set, and the loop looks again.
        let _ = tokio::time::timeout(LEAD + LONGEST, heard.notified()).await;
        Ok(())
    })
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

    #[tokio::test]
    async fn the_schedule_rings_again_and_again() {
        // The clock runs as it is; only where a ring falls is chosen: every second, and at the next ten-second mark.
        let bell = Bell::default();
        let clock = || chrono::Utc::now().timestamp_millis();
        let every = "* * * * * *";
        let often = tokio::spawn(ring(every.to_owned(), parse(every).unwrap(), bell.clone(), clock));
        for _ in 0..2 {
            tokio::time::timeout(Duration::from_secs(5), bell.heard()).await.unwrap();
            assert!(bell.take().has(Why::Schedule));
        }
        often.abort();
        let second = (clock() / 1000 + 8) % 60;
        let later = format!("{second} * * * * *");
        let begun = clock();
        let _later = tokio::spawn(ring(later.clone(), parse(&later).unwrap(), bell.clone(), clock));
        tokio::time::timeout(Duration::from_secs(12), bell.heard()).await.unwrap();
        assert!(clock() - begun >= 6_500, "it rang {} ms after the start", clock() - begun);
    }

    #[test]
    fn an_expression_without_seconds_is_refused() {
        assert!(parse("*/5 * * * *").is_err() && parse("0 */5 * * * *").is_ok());
    }
}
