//! `whimbrel plan`: what would happen, how long, how much disk; with `--rehearse`, what did happen to a private copy. Writes
//! nothing into a database.

use serde::Serialize;
use whimbrel_shared::status::{Failure, Operation};

use super::{
    error::{CliError, ExitCode},
    look::{Look, clean, count, length, size},
    output::Output,
    status::health_lines,
};
use crate::{
    control::{
        client::{ClientError, Heard, unexpected},
        protocol::{PlanView, PlannedMigration, Reply, Request, Selector},
    },
    migrate::{
        live::{Phase, Picture},
        rehearse::Rehearsal,
    },
};

/// `schema` of `whimbrel plan --json`.
pub const PLAN_SCHEMA: &str = "whimbrel.plan/1";
/// Lines of one file that are shown without `--full`: a shipped set of rows can have thousands.
const SHOWN_LINES: usize = 40;

/// Show what would happen to the databases, and write nothing
///
/// For every database: the migrations that would run, in order, with their statements, about how many rows they touch, how
/// long they keep the application from writing, how many bytes they write; and what is waited for before they run.
///
/// With --rehearse the daemon makes a private copy of each database, applies to it what is pending, whatever it waits for,
/// and takes the copy away again. It shows how each migration ended, the rows it changed, how long it took and the
/// fingerprint of the resulting schema. The database itself is only read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   shown; with --rehearse, everything went well
  1   no such database
  4   a rehearsed migration failed, or could not be rehearsed; the output says why and what to do
  69  the daemon is not running")]
pub struct Args {
    /// Path, file name or beginning of the client id of a database; all of them if left out
    database: Option<String>,
    /// Show long files whole
    #[arg(long)]
    full: bool,
    /// Try it on a private copy, and show what happened there
    #[arg(long)]
    rehearse: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Plans<'a> {
    /// One per database.
    plans: &'a [PlanView],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let plans = plans(out, Selector(args.database), args.rehearse)?;
    if out.is_json() {
        out.json(PLAN_SCHEMA, &Plans { plans: &plans })?;
    } else {
        out.text(&human(&plans, if args.full { usize::MAX } else { SHOWN_LINES }, &out.look()))?;
    }
    let well = plans.iter().filter_map(|p| p.rehearsal.as_ref()).all(Rehearsal::is_well);
    if well { Ok(()) } else { Err(CliError::told(ExitCode::MigrationFailed)) }
}

/// The daemon's plans. While it rehearses, it says how far it is.
fn plans(out: &Output, database: Selector, rehearse: bool) -> Result<Vec<PlanView>, CliError> {
    let mut daemon = out.daemon()?;
    daemon.say(&Request::Plan { database, rehearse })?;
    let mut said = String::new();
    loop {
        match daemon.next(None)? {
            Heard::Reply(Reply::Plan { plans }) => return Ok(plans),
            Heard::Reply(Reply::Rehearsing { database, now }) => {
                let line = format!("{}: rehearsing: {}", clean(&database.to_string_lossy()), doing(&now));
                if line != said {
                    out.say(&line);
                    said = line;
                }
            }
            Heard::Reply(other) => return Err(unexpected(&other).into()),
            Heard::Nothing | Heard::End => return Err(ClientError::Gone.into()),
        }
    }
}

/// The migration, and not each of its statements.
fn doing(now: &Picture) -> String {
    match &now.phase {
        Phase::Copying(_) => "copying the file".to_owned(),
        Phase::Running { name, .. } => name.to_string(),
        Phase::Idle | Phase::Preflight | Phase::Waiting | Phase::Committing | Phase::Restoring(_) => "beginning".to_owned(),
    }
}

fn human(plans: &[PlanView], shown_lines: usize, look: &Look) -> String {
    if plans.is_empty() {
        return "no database yet: no file matches a `path` of the configuration\n".to_owned();
    }
    let each = plans.iter().map(|plan| database(plan, shown_lines, look).join("\n") + "\n");
    each.collect::<Vec<_>>().join("\n")
}

fn database(plan: &PlanView, shown_lines: usize, look: &Look) -> Vec<String> {
    let disk = plan.free_bytes.map(|b| format!(", {} free on its disk", size(b))).unwrap_or_default();
    let path = clean(&plan.path.to_string_lossy());
    let mut lines = vec![format!("{} ({}, version {}{disk})", look.bold(&path), plan.app, plan.version)];
    if plan.steps.is_empty() {
        lines.push("  nothing to do".to_owned());
    }
    for item in &plan.waits_for {
        lines.extend(health_lines(item, 2, look));
    }
    for step in &plan.steps {
        lines.push(format!("  {} {} (version {}): {}", step.operation, look.bold(step.name.as_str()), step.version, estimate(step)));
        if step.backup {
            lines.push("    a backup is made before it".to_owned());
        }
        for (name, text) in step.files.iter().filter(|(name, _)| belongs(step.operation, name)) {
            lines.push(format!("    {}", look.dim(&clean(name))));
            let all = text.trim_end().lines().count();
            lines.extend(text.trim_end().lines().take(shown_lines).map(|l| format!("      {}", clean(l))));
            if all > shown_lines {
                lines.push(look.dim(&format!("      … {} more lines; --full shows them", all - shown_lines)));
            }
        }
    }
    if let Some(rehearsal) = &plan.rehearsal {
        lines.extend(rehearsed(rehearsal, look));
    }
    lines
}

/// What happened to the private copy.
fn rehearsed(rehearsal: &Rehearsal, look: &Look) -> Vec<String> {
    let mut lines = Vec::new();
    if rehearsal.copy_bytes > 0 {
        lines.push(format!("  rehearsed on a copy of {}, made in {}:", size(rehearsal.copy_bytes), length(rehearsal.copied_ms)));
    }
    for m in &rehearsal.migrations {
        let schema = m.fingerprint.map(|f| format!(", schema {}", f.to_string().chars().take(12).collect::<String>())).unwrap_or_default();
        let what = format!("{} changed, {}{schema}", count(m.rows, "row"), length(m.took_ms));
        lines.push(format!("    {} {}: {what}", look.status(m.status), look.bold(m.name.as_str())));
        lines.extend(m.failure.as_ref().map(|f| failed(f, look)).into_iter().flatten());
    }
    lines.extend(rehearsal.failure.as_ref().map(|f| failed(f, look)).into_iter().flatten());
    lines
}

fn failed(failure: &Failure, look: &Look) -> [String; 2] {
    [look.labelled(6, "failed:", &look.red("failed:"), &failure.message), look.remedy(6, &failure.remedy)]
}

/// Whether a file of a migration is run this way.
fn belongs(operation: Operation, file: &str) -> bool {
    let down = file.ends_with("down.sql");
    match operation {
        Operation::Apply => !down,
        Operation::Revert => down,
    }
}

fn estimate(step: &PlannedMigration) -> String {
    match (step.rows, step.write_bytes) {
        (0, 0) => "next to nothing to write, by the estimate".to_owned(),
        (rows, bytes) => {
            // Where it is more than the lock: rows that are gone through in short transactions.
            let whole = if step.took_ms > step.lock_ms { format!("{} in all, ", length(step.took_ms)) } else { String::new() };
            format!("about {}, {whole}{} of write lock, {} written", count(rows, "row"), length(step.lock_ms), size(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn a_plan_shows_statements_estimates_and_gates() {
        golden::check("plan.txt", &human(&fixture::plans(), SHOWN_LINES, &fixture::look()));
    }

    #[test]
    fn a_rehearsal_shows_how_each_migration_ended() {
        golden::check("plan-rehearsed.txt", &human(&fixture::rehearsed_plans(), 0, &fixture::look()));
        golden::check("plan-rehearsed.json", &document(PLAN_SCHEMA, &Plans { plans: &fixture::rehearsed_plans() }).unwrap());
    }

    #[test]
    fn a_long_file_is_cut_unless_it_is_wanted_whole() {
        let mut plans = fixture::plans();
        plans[1].steps[0].files.insert("rows.ndjson".into(), "{}\n".repeat(1_000));
        let shown = |lines| human(&plans, lines, &fixture::look());
        assert!(shown(SHOWN_LINES).contains("… 960 more lines; --full shows them"));
        assert!(!shown(usize::MAX).contains("--full"));
    }

    #[test]
    fn json_is_the_list_of_plans() {
        golden::check("plan.json", &document(PLAN_SCHEMA, &Plans { plans: &fixture::plans() }).unwrap());
    }
}
