//! What others changed comes down, page by page; a page lands in bites, each with its cursor.

use std::collections::BTreeSet;

use whimbrel_shared::{change::Row, protocol::pull::PullRequest};

use super::{ReplicateError, Replication};
use crate::{
    store::exchange::{self, Exchange, Marking},
    sync::land::{Told, land, remove_untold},
};

impl Replication<'_, '_> {
    /// Asks for pages until there are no more, and for what this version of the schema knows and the last one did not.
    /// Returns whether anything landed, or everything was told anew.
    pub(super) fn pull(&mut self) -> Result<bool, ReplicateError> {
        let before = self.done.landed;
        self.mark()?;
        let (mut last, mut horizon);
        let mut stands = exchange::read(&self.file.connection)?;
        loop {
            let waits = crate::store::quarantine::any_undecided(&self.file.connection)?;
            // A row that waits may have an own answer on top: then everything is told again.
            let acked = if waits || stands.tell_again { 0 } else { stands.acked };
            let asked = self.question(&stands, stands.cursor, acked);
            let began = self.since_boot_ms();
            let (head, rows) = self.ask(self.means.server.pull(&asked))?;
            self.note_time(head.now_ms, began)?;
            (last, horizon) = (!head.more, head.horizon);
            if stands.anew && stands.series.is_none() && stands.was != Some(head.series) {
                self.write(|file, _| {
                    let stands = Exchange { marking: Some(Marking::NoSeries), ..exchange::read(file)? };
                    Ok(exchange::write(file, &stands)?)
                })?;
                self.mark()?;
            }
            let end = |stands: &mut Exchange, version: Option<u64>| {
                stands.series = Some(head.series);
                match version {
                    Some(version) => stands.cursor = version,
                    None => {
                        stands.cursor = head.next;
                        stands.tell_again &= !last;
                    }
                }
                stands.reach(head.series, stands.cursor);
            };
            if rows.is_empty() && stands.cursor == head.next && stands.series == Some(head.series) && !(last && stands.tell_again) {
                // What waits here may have waited for something that the application did.
                if crate::store::quarantine::count(&self.file.connection)? > 0 {
                    stands = self.land(&rows, Told::Changes, |_, _| {})?;
                }
                break;
            }
            stands = self.land(&rows, Told::Changes, end)?;
            if last {
                break;
            }
        }
        if stands.anew {
            self.after_snapshot(stands.was == stands.series)?;
        }
        self.walk()?;
        self.forget_gone(horizon)?;
        // What waits to be sent waited for everything to be told.
        Ok(stands.anew || self.done.landed > before)
    }

    /// Everything was told anew. What the server was known to have and did not tell is deleted there, where it still counts
    /// as before; where it was restored or is another's, it is sent again as new.
    fn after_snapshot(&mut self, same_series: bool) -> Result<(), ReplicateError> {
        loop {
            let now_ms = self.now_ms();
            let boot = self.means.boot;
            let (more, ..) = self.write(|file, tables| Ok(remove_untold(file, tables, same_series, &boot(), now_ms)?))?;
            if !more {
                return Ok(());
            }
        }
    }

    /// New columns and tables, for everything up to the cursor.
    fn walk(&mut self) -> Result<(), ReplicateError> {
        loop {
            let stands = exchange::read(&self.file.connection)?;
            let Some(walk) = stands.walk else { return Ok(()) };
            let before: BTreeSet<u32> = (self.at.synced_at)(walk.since);
            let new: BTreeSet<u32> = self.at.synced.0.keys().filter(|id| !before.contains(id)).copied().collect();
            let asked = PullRequest { since_schema: Some(walk.since), until: Some(walk.until), ..self.question(&stands, walk.at, 0) };
            let (head, rows) = self.ask(self.means.server.pull(&asked))?;
            let last = !head.more;
            let end = |stands: &mut Exchange, version: Option<u64>| {
                if let Some(walk) = &mut stands.walk {
                    walk.at = version.unwrap_or(head.next);
                }
                if version.is_none() && last {
                    stands.walk = None;
                }
            };
            self.land(&rows, Told::New(&new), end)?;
        }
    }

    /// Lands a page in short transactions. `end` moves the cursor: to the version of the last row of a bite, or past the
    /// page.
    fn land(&mut self, rows: &[Row], told: Told<'_>, end: impl Fn(&mut Exchange, Option<u64>)) -> Result<Exchange, ReplicateError> {
        let (ambient, boot) = (self.means.ambient, self.means.boot);
        let mut rest = rows;
        loop {
            let (some, left) = rest.split_at(rest.len().min(self.landing.rows() as usize));
            let ((stands, landed), worked, commit) = self.write(|file, tables| {
                let mut stands = exchange::read(file)?;
                end(&mut stands, if left.is_empty() { None } else { some.last().map(|row| row.version) });
                let landed = land(file, tables, some, told, &mut stands, &boot(), ambient.now_ms())?;
                Ok((stands, landed))
            })?;
            self.pace(|one| &mut one.landing, some.len(), worked, commit);
            self.done.landed += landed.rows;
            rest = left;
            if rest.is_empty() {
                return Ok(stands);
            }
        }
    }
}
