//! `whimbrel watch`: see it happen. A screen on a terminal, lines elsewhere, a stream of documents with `--json`.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use whimbrel_shared::status::Event;

use super::{
    error::CliError,
    history::{Names, asked_by, what},
    look::{Look, clean, length},
    output::Output,
    status, sync,
};
use crate::control::{
    client::{ClientError, Heard},
    protocol::{Reply, Request, RowsView, STATUS_SCHEMA, Snapshot},
};

/// `schema` of an event in the stream.
pub const EVENT_SCHEMA: &str = "whimbrel.event/1";
/// Events shown below the screen.
const SHOWN_EVENTS: usize = 6;
/// How often the screen is drawn anew without news, for its times.
const TICK: Duration = Duration::from_secs(1);

/// Watch: everything that changes, as it changes, until interrupted
///
/// On a terminal the screen of `whimbrel status`, kept up to date, with the newest events below it. Elsewhere a line per
/// event and change. With --json a stream of lines: whimbrel.status/1 whenever something changed, whimbrel.event/1 when
/// something happened to a migration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  69  the daemon is not running, or went away; it does not end by itself")]
pub struct Args {}

/// See [`Args`].
pub fn run(_args: Args, out: &Output) -> Result<(), CliError> {
    let mut daemon = out.daemon()?;
    daemon.say(&Request::Watch)?;
    let screen = out.can_redraw();
    let mut last: Option<Snapshot> = None;
    let mut events = VecDeque::new();
    let mut first_line = true;
    loop {
        match daemon.next(screen.then(|| Instant::now() + TICK))? {
            Heard::Reply(Reply::Status(snapshot)) if out.is_json() => out.json_line(STATUS_SCHEMA, &snapshot)?,
            Heard::Reply(Reply::Event(event)) if out.is_json() => out.json_line(EVENT_SCHEMA, &event)?,
            Heard::Reply(Reply::Status(snapshot)) => {
                if !screen {
                    for line in changes(last.as_ref(), &snapshot) {
                        out.text(&format!("{} {line}\n", stamp(out)))?;
                    }
                }
                last = Some(*snapshot);
            }
            Heard::Reply(Reply::Event(event)) => {
                let line = event_line(&event, &last.as_ref().map(Names::of).unwrap_or_default(), &out.look());
                if screen {
                    events.push_back(line);
                    events.drain(..events.len().saturating_sub(SHOWN_EVENTS));
                } else {
                    out.text(&format!("{line}\n"))?;
                }
            }
            Heard::Nothing => {}
            Heard::Reply(other) => return Err(crate::control::client::unexpected(&other).into()),
            Heard::End => return Err(ClientError::Gone.into()),
        }
        if let (true, Some(snapshot)) = (screen, &last) {
            out.text(&redrawn(snapshot, events.make_contiguous(), &out.look(), height(), std::mem::take(&mut first_line)))?;
        }
    }
}

fn stamp(out: &Output) -> String {
    let look = out.look();
    look.time_of_day(look.now_ms)
}

fn height() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(24, |(_, h)| usize::from(h.0))
}

/// What makes the terminal show the screen: from the top left, each line cleared behind its end, the rest cleared.
fn redrawn(snapshot: &Snapshot, events: &[String], look: &Look, height: usize, first: bool) -> String {
    let text = status::human(snapshot, look);
    let mut lines: Vec<&str> = text.lines().collect();
    if !events.is_empty() {
        lines.push("");
        lines.extend(events.iter().map(String::as_str));
    }
    // Without room below the last line the terminal would scroll. What changes last stands last: the middle goes.
    let room = height.saturating_sub(1).max(8);
    let hidden = lines.len().saturating_sub(room - 1);
    let note = format!("… {hidden} more lines: `whimbrel status` shows them");
    if lines.len() > room {
        let tail = (events.len() + 1).min(room / 2);
        let head = room - 1 - tail;
        lines.splice(head..lines.len() - tail, [note.as_str()]);
    }
    // Without wrapping: a line that is too long must not take two.
    let mut drawn = String::from(if first { "\x1b[2J\x1b[?7l\x1b[H" } else { "\x1b[?7l\x1b[H" });
    lines.iter().for_each(|l| drawn.push_str(&format!("{l}\x1b[K\n")));
    drawn.push_str("\x1b[J\x1b[?7h");
    drawn
}

/// One event on one line.
fn event_line(e: &Event, names: &Names, look: &Look) -> String {
    let took = e.took_ms.map(|ms| format!(" in {}", length(ms))).unwrap_or_default();
    let why = e.failure.as_ref().map(|f| format!(": {}", clean(&f.message).lines().next().unwrap_or_default())).unwrap_or_default();
    format!(
        "{} {} {} {}{took} (try {}, asked by {}){why}",
        look.time_of_day(e.at_ms),
        names.get(e.client_id),
        e.migration,
        what(e),
        e.attempt,
        asked_by(e.by)
    )
}

/// What differs between two snapshots, in words; events tell the rest.
fn changes(before: Option<&Snapshot>, after: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none_or(|b| b.server.state != after.server.state) {
        let why = after.server.error.as_deref().map(|e| format!(": {}", clean(e))).unwrap_or_default();
        lines.push(format!("server {}{why}", after.server.state.replace('_', " ")));
    }
    for d in &after.databases {
        let was = before.and_then(|b| b.databases.iter().find(|o| o.path == d.path));
        let name = clean(&d.path.to_string_lossy());
        if was.is_none_or(|w| (w.version, w.latest, w.pending, w.status) != (d.version, d.latest, d.pending, d.status)) {
            lines.push(format!("{name} {} version {} of {}, {} pending", d.status, d.version, d.latest, d.pending));
        }
        lines.extend(rows_changes(was.and_then(|w| w.rows.as_ref()), d.rows.as_ref()).into_iter().map(|line| format!("{name} {line}")));
        for item in d.health.iter().filter(|i| was.is_none_or(|w| !w.health.iter().any(|o| o.code == i.code))) {
            let first = clean(item.message.lines().next().unwrap_or_default());
            lines.push(format!("{name} {}: {first} (remedy: {})", clean(&item.code), clean(&item.remedy.sentence())));
        }
    }
    if let Some(before) = before {
        let gone = before.databases.iter().filter(|o| !after.databases.iter().any(|d| d.path == o.path));
        lines.extend(gone.map(|d| format!("{} is gone", clean(&d.path.to_string_lossy()))));
    }
    lines
}

/// What became of rows: some moved, a conflict opened, one went to quarantine.
fn rows_changes(before: Option<&RowsView>, after: Option<&RowsView>) -> Vec<String> {
    let Some(after) = after else { return Vec::new() };
    let none = RowsView::default();
    let before = before.unwrap_or(&none);
    let mut lines = Vec::new();
    if before.checked_ms != after.checked_ms && after.moved.pushed + after.moved.landed > 0 {
        lines.push(format!("rows: {}", sync::said(&after.moved)));
    }
    let (was, is) = (&before.standing, &after.standing);
    if is.conflicts_open > was.conflicts_open {
        lines.push(format!("conflict: {} open (remedy: `whimbrel conflicts list`)", is.conflicts_open));
    }
    if is.quarantined > was.quarantined {
        lines.push(format!("quarantine: {} waiting (remedy: `whimbrel quarantine list` says why)", is.quarantined));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden};

    #[test]
    fn only_what_changed_is_a_line() {
        let after = fixture::snapshot();
        assert!(changes(Some(&after), &after).is_empty());
        let mut before = after.clone();
        before.server.state = "online".into();
        before.databases[3].health.clear();
        before.databases[3].rows = None;
        before.databases[0].version = 4;
        before.databases.push(fixture::database("z.db", 9));
        let first = changes(None, &after).join("\n");
        let then = changes(Some(&before), &after).join("\n");
        golden::check("watch.txt", &format!("{first}\n--\n{then}\n"));
    }

    #[test]
    fn events_read_as_lines() {
        let names = Names::of(&fixture::snapshot());
        let lines: Vec<String> = fixture::events().iter().map(|e| event_line(e, &names, &fixture::look())).collect();
        golden::check("watch-events.txt", &(lines.join("\n") + "\n"));
    }

    #[test]
    fn a_low_terminal_never_scrolls() {
        let events: Vec<String> = (0..4).map(|n| format!("event {n}")).collect();
        for height in [10, 12, 20, 60] {
            let drawn = redrawn(&fixture::snapshot(), &events, &fixture::look(), height, false);
            assert!(drawn.lines().count() <= height, "{height}: {}", drawn.lines().count());
            assert!(drawn.contains("event 3"));
        }
    }
}
