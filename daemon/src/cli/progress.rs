//! Progress while something is waited for: bars on a terminal, lines elsewhere, nothing with `--quiet`. On stderr.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{history::file_name, look::clean, output::Output, select, status};
use crate::{
    control::protocol::{DatabaseView, Snapshot},
    migrate::live::Phase,
};

/// How it is shown.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    out: &'a Output,
    database: Option<String>,
    how: How,
}

#[derive(Debug)]
enum How {
    Bars(MultiProgress, BTreeMap<PathBuf, ProgressBar>),
    /// What was last said about each.
    Lines(BTreeMap<PathBuf, String>),
}

impl<'a> Progress<'a> {
    /// For the databases that were meant.
    pub(super) fn new(out: &'a Output, database: Option<String>) -> Self {
        let how = if out.draws_progress() { How::Bars(MultiProgress::new(), BTreeMap::new()) } else { How::Lines(BTreeMap::new()) };
        Self { out, database, how }
    }

    /// As it is now.
    pub(super) fn show(&mut self, snapshot: &Snapshot) {
        for d in snapshot.databases.iter().filter(|d| select::means(self.database.as_deref(), d)) {
            match &mut self.how {
                How::Bars(all, bars) => draw(all, bars, d),
                How::Lines(said) => {
                    if let Some(line) = news(d)
                        && said.insert(d.path.clone(), line.clone()).as_ref() != Some(&line)
                    {
                        self.out.say(format!("{}: {line}", clean(&d.path.to_string_lossy())));
                    }
                }
            }
        }
    }

    /// Takes the bars away, so that the result stands alone.
    pub(super) fn end(self) {
        match self.how {
            How::Bars(all, bars) => {
                bars.values().for_each(ProgressBar::finish_and_clear);
                // A terminal that went away is no trouble of the order's.
                let _ = all.clear();
            }
            How::Lines(_) => {}
        }
    }
}

/// What is worth a line: the migration, not each of its statements.
fn news(d: &DatabaseView) -> Option<String> {
    match &d.now.phase {
        Phase::Idle | Phase::Preflight | Phase::Committing => None,
        Phase::Copying(_) => Some("copying the file".to_owned()),
        Phase::Restoring(_) => Some("going back to a backup".to_owned()),
        Phase::Waiting => d.waiting_ms.map(|_| "waiting for the app".to_owned()),
        Phase::Running { .. } => {
            let picture = crate::migrate::live::Picture { step: 0, steps: 0, statement: 0, done: 0, total: 0, rows: None, ..d.now.clone() };
            Some(status::now(&picture, None))
        }
    }
}

fn draw(all: &MultiProgress, bars: &mut BTreeMap<PathBuf, ProgressBar>, d: &DatabaseView) {
    if d.now.phase == Phase::Idle {
        if let Some(bar) = bars.remove(&d.path) {
            bar.finish_and_clear();
        }
        return;
    }
    let bar = bars.entry(d.path.clone()).or_insert_with(|| {
        let bar = all.add(ProgressBar::new(0).with_prefix(file_name(&d.path)));
        // So that the elapsed time moves while a long statement runs.
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    });
    let (done, total) = match (&d.now.phase, &d.now.rows) {
        (Phase::Copying(pages) | Phase::Restoring(pages), _) => (u64::from(pages.pages_done), u64::from(pages.pages)),
        (_, Some(rows)) => (rows.done, rows.total),
        (_, None) => (u64::from(d.now.done), u64::from(d.now.total)),
    };
    let template = if total > 0 { "{prefix} [{bar:20}] {pos}/{len} {elapsed} {wide_msg}" } else { "{prefix} {spinner} {elapsed} {wide_msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_length(total);
    bar.set_position(done);
    // The bar shows how many of how many.
    let picture = crate::migrate::live::Picture { total: 0, ..d.now.clone() };
    bar.set_message(status::now(&picture, d.waiting_ms));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    #[test]
    fn lines_tell_of_migrations_and_not_of_statements() {
        let mut d = fixture::snapshot().databases.swap_remove(1);
        assert_eq!(news(&d).unwrap(), "applying 0004_tags");
        d.now.statement += 1;
        assert_eq!(news(&d).unwrap(), "applying 0004_tags");
        d.now.phase = Phase::Committing;
        assert_eq!(news(&d), None);
    }
}
