//! `whimbrel rehearse`: the whole chain for real, on databases that nobody needs.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{error::CliError, lint::print, output::Output};
use crate::publish::{
    self, PublishError, Report,
    layout::{Chain, Layout},
    rehearse::{Progress, Rehearsal, SampleRun, rehearse, rehearse_sample},
};

/// Apply the whole chain to an empty database, and every migration down and up again
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the chain runs up, down and up again, 2 the directory is no chain, 4 a migration failed or a finding is an error"
)]
pub struct Args {
    /// The migrations directory, ours or another tool's, or a seed-form JSON file
    pub dir: PathBuf,
    /// Also run what it has not got on a private copy of this database
    #[arg(long, value_name = "FILE")]
    pub sample: Option<PathBuf>,
    /// Read it as this layout instead of finding out
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// Judge another tool's migrations as strictly as ours
    #[arg(long)]
    pub strict: bool,
}

/// Prints what was found and done; fails when a migration fails or a finding is an error.
pub fn run(args: &Args, out: &Output) -> Result<(), CliError> {
    execute(args, out).map_err(CliError::from)
}

fn execute(args: &Args, out: &Output) -> Result<(), PublishError> {
    let (chain, mut findings) = publish::read(&args.dir, args.layout, args.strict)?;
    let rehearsal = match with_progress(&chain, args.strict) {
        Ok(rehearsal) => rehearsal,
        Err(error) => {
            // Lint's findings often say why.
            print(&Report::new(&chain, findings), out.is_json())?;
            return Err(error);
        }
    };
    let (sample, failed) = match args.sample.as_deref().map(|path| on_sample(&chain, &rehearsal, path)).transpose() {
        Ok(sample) => (sample, None),
        Err(error) => (None, Some(error)),
    };
    findings.extend(rehearsal.findings.iter().cloned());
    let mut report = Report::new(&chain, findings);
    report.notes.extend(rehearsal.notes.iter().cloned());
    let last = rehearsal.versions.last();
    let verdict = publish::judge(&chain, &report.findings, 0);
    let outcome = Outcome {
        report,
        objects: last.map_or(0, |v| v.schema.0.len()),
        fingerprint: last.map(|v| v.schema.digest().to_string()),
        min_sqlite: last.and_then(|v| v.min_sqlite.clone()),
        sample,
    };
    print(&outcome, out.is_json())?;
    failed.map_or(verdict, Err)
}

/// What a rehearsal came to.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: Report,
    /// Objects in the last version's schema.
    objects: usize,
    /// Digest of that schema.
    fingerprint: Option<String>,
    /// Oldest SQLite that reads it.
    min_sqlite: Option<String>,
    /// What happened on the copy of the sample.
    sample: Option<OnSample>,
}

#[derive(Debug, Serialize)]
struct OnSample {
    /// The version at which the sample stands.
    at_version: usize,
    /// The migrations that it got.
    applied: Vec<Applied>,
}

#[derive(Debug, Serialize)]
struct Applied {
    name: String,
    rows: u64,
    took_ms: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.report)?;
        write!(f, "all {} ran on an empty database", self.report.migrations)?;
        let oldest = self.min_sqlite.as_deref().map_or_else(|| "any SQLite".to_owned(), |v| format!("SQLite {v} or later"));
        write!(f, ": {} objects, readable by {oldest}", self.objects)?;
        if let Some(sample) = &self.sample {
            write!(f, "\nthe sample is at version {}", sample.at_version)?;
            for Applied { name, rows, took_ms } in &sample.applied {
                write!(f, "\n  {name}: {rows} rows in {took_ms} ms")?;
            }
        }
        Ok(())
    }
}

fn on_sample(chain: &Chain, rehearsal: &Rehearsal, path: &Path) -> Result<OnSample, PublishError> {
    let (at_version, runs) = rehearse_sample(chain, rehearsal, path)?;
    let applied = runs.into_iter().map(|SampleRun { name, rows, took_ms }| Applied { name: name.to_string(), rows, took_ms }).collect();
    Ok(OnSample { at_version, applied })
}

/// Rehearses with a bar on a terminal, and in silence elsewhere: a rehearsal takes seconds.
pub(super) fn with_progress(chain: &Chain, strict: bool) -> Result<Rehearsal, PublishError> {
    let bar = if stderr().is_terminal() { ProgressBar::new(chain.migrations.len() as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let rehearsal = rehearse(chain, strict, &mut |progress| match progress {
        Progress::Up(name, version, _) => {
            bar.set_position(version.saturating_sub(1) as u64);
            bar.set_message(name.to_string());
        }
        Progress::Down(name, _, _) => bar.set_message(format!("{name}, down and up again")),
    });
    bar.finish_and_clear();
    Ok(rehearsal?)
}
