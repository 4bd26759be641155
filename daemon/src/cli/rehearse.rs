//! `whimbrel rehearse`: the whole chain for real, on databases that nobody needs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    error::CliError,
    lint::{Directory, print, refused},
    look::count,
    output::Output,
};
use crate::publish::{
    self, PublishError, Report,
    layout::Chain,
    rehearse::{Progress, Rehearsal, SampleRun, rehearse, rehearse_sample},
};

/// `schema` of `whimbrel rehearse --json`.
pub const REHEARSE_SCHEMA: &str = "whimbrel.rehearse/1";

/// Run a directory of migrations for real, on a database that goes afterwards
///
/// Applies the whole chain to an empty database with the engine that devices have, each migration down and up again where
/// it has a way down, and says what it found. With --sample also what a real database has not got yet, on a private copy of
/// it: rows are where migrations fail that pass on an empty file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  everything ran
  1  a finding is an error, or the sample cannot be used
  2  the directory cannot be read as migrations
  4  a migration failed")]
pub struct Args {
    #[command(flatten)]
    directory: Directory,
    /// A database to copy and rehearse on as well
    #[arg(long, value_name = "FILE")]
    sample: Option<PathBuf>,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let (chain, mut findings) = args.directory.read()?;
    let rehearsal = match with_progress(&chain, args.directory.strict, out) {
        Ok(rehearsal) => rehearsal,
        Err(error) => return Err(refused(out, REHEARSE_SCHEMA, &Report::new(&chain, findings), error)),
    };
    let (sample, sample_failed) = match args.sample.as_deref().map(|path| on_sample(&chain, &rehearsal, path)).transpose() {
        Ok(sample) => (sample, None),
        Err(error) => (None, Some(error)),
    };
    findings.extend(rehearsal.findings.iter().cloned());
    let mut report = Report::new(&chain, findings);
    report.notes.extend(rehearsal.notes.iter().cloned());
    let verdict = publish::judge(&report.findings, &BTreeSet::new());
    let last = rehearsal.versions.last();
    let outcome = Outcome {
        report,
        objects: last.map_or(0, |v| v.schema.0.len()),
        fingerprint: last.map(|v| v.schema.digest().to_string()),
        min_sqlite: last.and_then(|v| v.min_sqlite.clone()),
        sample,
    };
    if let Some(error) = sample_failed {
        return Err(refused(out, REHEARSE_SCHEMA, &outcome.report, error));
    }
    match verdict {
        Ok(()) => print(out, REHEARSE_SCHEMA, &outcome, &outcome.text()),
        Err(error) => Err(refused(out, REHEARSE_SCHEMA, &outcome.report, error)),
    }
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

impl Outcome {
    fn text(&self) -> String {
        let oldest = self.min_sqlite.as_deref().map_or_else(|| "any SQLite".to_owned(), |v| format!("SQLite {v} or later"));
        let all = match self.report.migrations {
            1 => "it".to_owned(),
            many => format!("all {many}"),
        };
        let objects = count(self.objects as u64, "object");
        let mut text = format!("{}\n{all} ran on an empty database: {objects}, readable by {oldest}\n", self.report);
        if let Some(sample) = &self.sample {
            text.push_str(&format!("the sample is at version {}\n", sample.at_version));
            for Applied { name, rows, took_ms } in &sample.applied {
                text.push_str(&format!("  {name}: {} in {took_ms} ms\n", count(*rows, "row")));
            }
        }
        text
    }
}

fn on_sample(chain: &Chain, rehearsal: &Rehearsal, path: &Path) -> Result<OnSample, PublishError> {
    let (at_version, runs) = rehearse_sample(chain, rehearsal, path)?;
    let applied = runs.into_iter().map(|SampleRun { name, rows, took_ms }| Applied { name: name.to_string(), rows, took_ms }).collect();
    Ok(OnSample { at_version, applied })
}

/// Rehearses with a bar on a terminal, and with a line elsewhere: a rehearsal takes seconds.
pub(super) fn with_progress(chain: &Chain, strict: bool, out: &Output) -> Result<Rehearsal, PublishError> {
    let bar = if out.draws_progress() {
        ProgressBar::new(chain.migrations.len() as u64)
    } else {
        out.say(format_args!("rehearsing {}", count(chain.migrations.len() as u64, "migration")));
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("[{bar:20}] {pos}/{len} {elapsed} {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::layout::Layout;

    #[test]
    fn one_is_not_many() {
        let text = |n: usize| {
            let report = Report { layout: Layout::Whimbrel.name(), migrations: n, downs: 0, notes: vec![], findings: vec![] };
            let applied = vec![Applied { name: "0001_a".into(), rows: n as u64, took_ms: 3 }];
            Outcome { report, objects: n, fingerprint: None, min_sqlite: None, sample: Some(OnSample { at_version: 0, applied }) }.text()
        };
        assert!(text(1).contains("it ran on an empty database: 1 object, readable by any SQLite\n"), "{}", text(1));
        assert!(text(1).contains("0001_a: 1 row in 3 ms\n"), "{}", text(1));
        assert!(text(2).contains("all 2 ran on an empty database: 2 objects, readable by any SQLite\n"), "{}", text(2));
    }
}
