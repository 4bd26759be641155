//! `whimbrel status`: how everything stands, now.

use whimbrel_shared::{
    protocol::{poll::Order, state::HealthItem},
    rows::RowsAt,
    status::Operation,
};

use super::{
    error::CliError,
    look::{Look, Table, cell, clean, count, length},
    output::Output,
    tables,
};
use crate::{
    control::{
        client::{Client, unexpected},
        protocol::{DaemonView, DatabaseView, Reply, Request, RowsView, STATUS_SCHEMA, ServerView, Snapshot},
    },
    migrate::live::{Phase, Picture, Rows, Throttle},
    sync::standing::{MOST_COUNTED, Standing},
};

/// Show how everything stands: the daemon, the server, every database
///
/// It asks the running daemon and changes nothing. Every line that begins with a mark (info, warning, error) has a
/// remedy below it. With --json the schema is whimbrel.status/1; it is documented in docs/cli.md and stays stable.
///
/// With --tables, rows and bytes of the tables instead. Counting stops after some seconds; what is not counted by then is
/// estimated, and says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown, whatever it shows; `whimbrel wait` has codes for how databases stand
  69  the daemon is not running")]
pub struct Args {
    /// Show how large the tables are, with their indexes, instead
    #[arg(long)]
    tables: bool,
    /// With --tables: path, file name or beginning of the client id of a database; all of them if left out
    #[arg(requires = "tables")]
    database: Option<String>,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    if args.tables {
        return tables::run(args.database.as_deref(), out);
    }
    let snapshot = ask(&mut out.daemon()?)?;
    if out.is_json() { out.json(STATUS_SCHEMA, &snapshot) } else { out.text(&human(&snapshot, &out.look())) }
}

/// The daemon's snapshot.
pub(super) fn ask(daemon: &mut Client) -> Result<Snapshot, CliError> {
    match daemon.ask(&Request::Status)? {
        Reply::Status(snapshot) => Ok(*snapshot),
        other => Err(unexpected(&other).into()),
    }
}

/// The whole screen.
pub(super) fn human(snapshot: &Snapshot, look: &Look) -> String {
    let mut lines = header(snapshot, look);
    lines.push(String::new());
    lines.extend(databases(&snapshot.databases, look));
    lines.join("\n") + "\n"
}

fn header(snapshot: &Snapshot, look: &Look) -> Vec<String> {
    let Snapshot { daemon, server, health, .. } = snapshot;
    let mut lines = vec![format!("{}  {}", look.dim("daemon "), daemon_line(daemon, look))];
    lines.push(format!("{}  {}", look.dim("server "), server_line(server, look)));
    if let Some(error) = &server.error {
        lines.push(format!("         {}", look.flowed(error, 9)));
    }
    if let Some(remedy) = &server.remedy {
        lines.push(look.remedy(9, remedy));
    }
    lines.push(format!("{}  {}", look.dim("reports"), reports(server.reports_unsent)));
    if server.trust == "none" {
        lines.push(trust_line(look));
    }
    for item in health.iter().filter(|item| !(server.trust == "none" && item.code == "trust_none")) {
        lines.extend(health_lines(item, 0, look));
    }
    lines
}

fn daemon_line(daemon: &DaemonView, look: &Look) -> String {
    let up = length(look.now_ms.saturating_sub(daemon.started_at_ms).max(0).unsigned_abs());
    format!("whimbrel {}, pid {}, up {up}, {}, {}", daemon.version, daemon.pid, daemon.activity, count(daemon.cycles, "cycle"))
}

fn server_line(server: &ServerView, look: &Look) -> String {
    use whimbrel_shared::protocol::state::Severity::{Error, Warning};
    let mut parts = vec![cell(server.url.as_deref().map_or_else(|| "no address yet".to_owned(), clean))];
    let state = server.state.replace('_', " ");
    let painted = match server.state.as_str() {
        "online" => state.clone(),
        "refused" | "not_enrolled" => look.severity(Error, &state),
        _ => look.severity(Warning, &state),
    };
    parts.push((state, Some(painted)));
    if let Some(at) = server.last_exchange_ms {
        parts.push(cell(format!("last exchange {}", look.ago(at))));
    }
    match server.failures {
        0 => {}
        1 => parts.push(cell("1 failed try")),
        n => parts.push(cell(format!("{n} failed tries in a row"))),
    }
    if let Some(at) = server.next_poll_ms {
        parts.push(cell(format!("next poll {}", look.until(at))));
    }
    look.listed(&parts, 9)
}

fn reports(unsent: u64) -> String {
    if unsent == 0 { "all delivered".to_owned() } else { format!("{unsent} not delivered yet; kept until they are") }
}

fn trust_line(look: &Look) -> String {
    use whimbrel_shared::protocol::state::Severity::Warning;
    format!("{} trust = \"none\": the server is believed whatever it says", look.severity(Warning, "warning:"))
}

/// The table of databases, each followed by what is wrong or waited for.
fn databases(databases: &[DatabaseView], look: &Look) -> Vec<String> {
    if databases.is_empty() {
        return vec!["no database yet: no file matches a `path` of the configuration".to_owned()];
    }
    let mut table = Table::of_paths(["DATABASE", "APP", "VERSION", "PENDING", "STATUS", "NOW"]);
    for d in databases {
        table.row([
            cell(d.path.to_string_lossy()),
            cell(d.app.as_str()),
            cell(version(d)),
            cell(pending(d)),
            (d.status.to_string(), Some(look.status(d.status))),
            cell(standing(d).unwrap_or_else(|| now(&d.now, d.waiting_ms))),
        ]);
    }
    let mut lines = table.lines(look).into_iter();
    let mut all: Vec<String> = lines.next().into_iter().collect();
    for (d, line) in databases.iter().zip(lines) {
        all.push(line);
        all.extend(d.rows.as_ref().map(|rows| rows_line(rows, look)));
        all.extend(troubles(d, look));
    }
    all
}

fn version(d: &DatabaseView) -> String {
    if d.latest > d.version { format!("{} of {}", d.version, d.latest) } else { d.version.to_string() }
}

fn pending(d: &DatabaseView) -> String {
    match d.order {
        Some(Order::RevertDownTo { version }) if version < d.version => format!("down to {version}"),
        Some(Order::ApplyUpTo { .. } | Order::RevertDownTo { .. }) | None if d.pending == 0 => "-".to_owned(),
        Some(Order::ApplyUpTo { .. } | Order::RevertDownTo { .. }) | None => d.pending.to_string(),
    }
}

/// Where an online migration stands that nothing is being done about.
fn standing(d: &DatabaseView) -> Option<String> {
    let half = d.half_done.as_ref().filter(|_| d.now.phase == Phase::Idle)?;
    let at = half.rows.at.as_ref().map(|at| format!(", {}", place(at))).unwrap_or_default();
    Some(format!("{} is half done{at}", half.migration))
}

/// `step 2 of 3, 1200 of 3000 rows (40 %)`.
pub(super) fn place(at: &RowsAt) -> String {
    let step = format!("step {} of {}", at.step, at.steps);
    if at.total == 0 { step } else { format!("{step}, {} of {} ({} %)", at.done, count(at.total, "row"), at.percent()) }
}

/// What is being done: `apply 0004_tags, step 1 of 2, statement 3 (1 of 4 done)`.
pub(super) fn now(picture: &Picture, waiting_ms: Option<u64>) -> String {
    let mut text = match &picture.phase {
        Phase::Idle => return waiting_ms.map_or_else(|| "-".to_owned(), |ms| format!("waiting for the app for {}", length(ms))),
        Phase::Preflight => "looking before touching".to_owned(),
        Phase::Waiting => match waiting_ms {
            Some(ms) => format!("waiting for the app for {}", length(ms)),
            None => "asking for the write lock".to_owned(),
        },
        Phase::Running { name, operation, .. } => {
            let verb = match operation {
                Operation::Apply => "applying",
                Operation::Revert => "reverting",
            };
            let at = match (picture.steps, &picture.rows) {
                (0, _) => String::new(),
                (steps, Some(rows)) => format!(", step {} of {steps}: {}", picture.step, how_far(rows)),
                (steps, None) => format!(", step {} of {steps}, statement {}", picture.step, picture.statement),
            };
            format!("{verb} {name}{at}")
        }
        Phase::Committing => "committing".to_owned(),
        Phase::Copying(pages) => format!("copying the file: {} % of {}", pages.percent, count(u64::from(pages.pages), "page")),
        Phase::Restoring(pages) => format!("going back to a backup: {} % of {}", pages.percent, count(u64::from(pages.pages), "page")),
    };
    if picture.total > 1 {
        text.push_str(&format!(" ({} of {} done)", picture.done, picture.total));
    }
    text
}

/// How far a row step has come: `120000 of 1500000 rows of notes (8 %), 85000 a second, 16 s left; the app goes first`.
pub(super) fn how_far(rows: &Rows) -> String {
    let percent = (rows.done * 100).checked_div(rows.total).unwrap_or(100);
    let mut text = format!("{} of {} of {} ({percent} %), {} a second", rows.done, count(rows.total, "row"), rows.table, rows.rate);
    if let Some(ms) = rows.left_ms {
        text.push_str(&format!(", {} left", length(ms)));
    }
    if rows.failed > 0 {
        text.push_str(&format!(", {} left out", rows.failed));
    }
    match rows.throttle {
        Some(Throttle::App) => text.push_str("; the app goes first"),
        Some(Throttle::Wal) => text.push_str("; waiting for a reader that keeps the log from being emptied"),
        Some(Throttle::Touched) => text.push_str("; the app changes rows faster than they are looked at, so the lock is held longer, up to max_lock"),
        None => {}
    }
    text
}

/// How its rows stand: `rows: 3 not sent, 2 conflicts open, exchanged 12 s ago`.
fn rows_line(rows: &RowsView, look: &Look) -> String {
    use whimbrel_shared::protocol::state::Severity::Warning;
    let Standing { unsent, unfolded, quarantined, conflicts_open, .. } = rows.standing;
    let more = |n: u32| if n >= MOST_COUNTED { format!("{n} or more") } else { n.to_string() };
    let mut parts = Vec::new();
    match (unsent, unfolded) {
        (0, 0) => parts.push(cell("all sent")),
        (0, changes) => parts.push(cell(format!("{} not sent", count(changes, "change")))),
        (rows, 0) => parts.push(cell(format!("{} not sent", more(rows)))),
        (rows, changes) => parts.push(cell(format!("{} not sent, and {} not looked at", more(rows), count(changes, "change")))),
    }
    let mut waits = |n: u32, text: String| {
        if n > 0 {
            let painted = look.severity(Warning, &text);
            parts.push((text, Some(painted)));
        }
    };
    waits(
        conflicts_open,
        format!("{} open", if conflicts_open == 1 { "1 conflict".to_owned() } else { format!("{} conflicts", more(conflicts_open)) }),
    );
    waits(quarantined, format!("{} in quarantine", more(quarantined)));
    match (rows.checked_ms, rows.standing.exchanged_ms) {
        (Some(at), _) => parts.push(cell(format!("exchanged {}", look.ago(at)))),
        (None, Some(at)) => parts.push(cell(format!("last moved {}", look.ago(at)))),
        (None, None) => parts.push(cell("not exchanged yet")),
    }
    if let Some(error) = &rows.error {
        parts.push(cell(clean(error)));
    }
    format!("  {} {}", look.dim("rows:"), look.listed(&parts, 8))
}

/// What is wrong with a database or waited for, below its row.
fn troubles(d: &DatabaseView, look: &Look) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(f) = &d.failure {
        let which = f.migration.as_ref().map_or_else(|| format!("version {}", f.version), ToString::to_string);
        lines.push(look.labelled(2, "failed:", &look.red("failed:"), &named(&which, &f.failure.message)));
        lines.push(look.remedy(4, &f.failure.remedy));
        if let Some(at) = d.next_try_ms {
            lines.push(format!("    tried again {}", look.until(at)));
        }
    }
    // The failure's own health item would say the same twice.
    let own = |item: &&HealthItem| d.failure.as_ref().is_none_or(|f| !item.message.ends_with(&f.failure.message));
    for item in d.health.iter().filter(own) {
        lines.extend(health_lines(item, 2, look));
    }
    lines
}

/// A message that begins with what it is about, once.
pub(super) fn named(what: &str, message: &str) -> String {
    let message = message.strip_prefix(&format!("{what} failed: ")).unwrap_or(message);
    if message.starts_with(what) { message.to_owned() } else { format!("{what}: {message}") }
}

/// A health item and its remedy, indented.
pub(super) fn health_lines(item: &HealthItem, by: usize, look: &Look) -> [String; 2] {
    let label = format!("{}:", severity_word(item));
    [look.labelled(by, &label, &look.severity(item.severity, &label), &item.message), look.remedy(by + 2, &item.remedy)]
}

fn severity_word(item: &HealthItem) -> &'static str {
    use whimbrel_shared::protocol::state::Severity;
    match item.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::rows::RowReport;

    use super::*;
    use crate::cli::{fixture, golden, output::document};
    use crate::migrate::standing::HalfDone;

    #[test]
    fn the_screen_of_a_device_with_every_kind_of_trouble() {
        golden::check("status.txt", &human(&fixture::snapshot(), &fixture::look()));
    }

    #[test]
    fn the_screen_of_a_device_where_all_is_well() {
        golden::check("status-well.txt", &human(&fixture::well(), &fixture::look()));
    }

    #[test]
    fn the_screen_in_colour_on_eighty_columns() {
        golden::check("status-colour.txt", &human(&fixture::snapshot(), &Look { color: true, width: Some(80), ..fixture::look() }));
    }

    #[test]
    fn json_is_the_snapshot_exactly() {
        let printed = document(STATUS_SCHEMA, &fixture::snapshot()).unwrap();
        golden::check("status.json", &printed);
        assert_eq!(serde_json::from_str::<Snapshot>(&printed).unwrap(), fixture::snapshot());
    }

    #[test]
    fn a_migration_that_is_half_done_says_where_it_stands_while_nothing_runs() {
        let at = RowsAt { step: 2, steps: 3, done: 1_200, total: 3_000 };
        let rows = RowReport { at: Some(at), ..RowReport::default() };
        let half_done = Some(HalfDone { version: 4, migration: "0004_tags".parse().unwrap(), rows });
        let mut d = DatabaseView { half_done, ..fixture::database("a.db", 1) };
        assert_eq!(standing(&d).unwrap(), "0004_tags is half done, step 2 of 3, 1200 of 3000 rows (40 %)");
        d.now.phase = Phase::Waiting;
        assert_eq!(standing(&d), None, "what is being done says more");
    }

    #[test]
    fn what_is_being_done_reads_as_a_sentence() {
        let running = |operation| Phase::Running { version: 4, name: "0004_tags".parse().unwrap(), operation };
        let at = |phase| Picture { phase, step: 1, steps: 2, statement: 3, done: 1, total: 4, rows: None };
        assert_eq!(now(&at(running(Operation::Apply)), None), "applying 0004_tags, step 1 of 2, statement 3 (1 of 4 done)");
        assert_eq!(now(&Picture { phase: running(Operation::Revert), ..Picture::default() }, None), "reverting 0004_tags");
        assert_eq!(now(&Picture { phase: Phase::Waiting, ..Picture::default() }, Some(65_000)), "waiting for the app for 1 min 5 s");
        assert_eq!(now(&Picture::default(), None), "-");
        let rows = Rows {
            table: "notes".into(),
            done: 120_000,
            total: 1_500_000,
            rate: 85_000,
            left_ms: Some(16_000),
            throttle: Some(Throttle::App),
            ..Rows::default()
        };
        assert_eq!(
            now(&Picture { rows: Some(rows), total: 1, ..at(running(Operation::Apply)) }, None),
            "applying 0004_tags, step 1 of 2: 120000 of 1500000 rows of notes (8 %), 85000 a second, 16 s left; the app goes first"
        );
    }
}
