//! What waits goes up, push by push; each answer is settled before the next.

use std::{collections::HashSet, time::Instant};

use whimbrel_shared::{
    ids::PushId,
    packed,
    protocol::push::{PushHead, PushRequest, PushResponse},
};

use super::{ReplicateError, Replication, synchronous};
use crate::{
    migrate::connection::{JournalMode, data_version},
    store::{
        exchange, journal,
        outbox::{self, Place},
        quarantine,
    },
    sync::{
        answer,
        clock::Clocks,
        fold::{Origin, fold},
        push::{Room, Was, take},
    },
    transport::TransportError,
};

/// Pushes in one exchange without a pull in between.
const PUSHES: usize = 1_000;

/// A push that is ready to be sent.
struct Next {
    request: PushRequest,
    /// The row of each change, as it was.
    was: Vec<Was>,
    /// What the file's data version was before the first of them was looked at.
    since: Option<i64>,
    /// The last row that was looked at.
    last: Place,
    /// Whether rows after it may wait.
    more: bool,
}

impl Replication<'_, '_> {
    /// Sends what waits. Returns whether anything was sent.
    pub(super) fn push(&mut self) -> Result<bool, ReplicateError> {
        let stands = exchange::read(&self.file.connection)?;
        if stands.anew {
            // What it has seen counts for nothing until everything was told.
            return Ok(false);
        }
        self.sure = !stands.tell_again;
        let mut any = false;
        let mut after = None;
        for _ in 0..PUSHES {
            if self.until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let Some(next) = self.next_push(after.as_ref())? else { break };
            any = true;
            self.done.pushed += next.request.changes.len() as u64;
            let body = packed::pack_changes(&next.request.head, &next.request.changes);
            let asked = self.since_boot_ms();
            let answer = self.ask(self.means.server.push(body.into()))?;
            self.settle(&next, &answer)?;
            self.note_time(answer.now_ms, asked)?;
            if !next.more {
                break;
            }
            after = Some(next.last);
        }
        Ok(any)
    }

    /// The next push: rows that wait after a place, until it is full. Its order is on disk before it is sent.
    fn next_push(&mut self, after: Option<&Place>) -> Result<Option<Next>, ReplicateError> {
        if outbox::is_empty(&self.file.connection)? && journal::extent(&self.file.connection)?.is_folded() {
            return Ok(None);
        }
        let (ambient, boot) = (self.means.ambient, self.means.boot);
        let mut room = Room::default();
        let (mut changes, mut was, mut since) = (Vec::new(), Vec::new(), None);
        let (mut at, mut more, mut there) = (after.cloned(), true, HashSet::new());
        while more {
            let most = self.taking.rows() as usize;
            let mut left = room;
            let (taken, worked, commit) = self.write(|file, tables| {
                left = room;
                fold(file, &boot(), Origin::App, ambient.now_ms(), None)?;
                let mut clocks = Clocks::open(file, &boot())?;
                let taken = take(file, tables, &mut clocks, at.as_ref(), &there, most, &mut left, ambient.now_ms())?;
                Ok((data_version(file)?, taken))
            })?;
            let (data_version, taken) = taken;
            since.get_or_insert(data_version);
            room = left;
            self.pace(|one| &mut one.taking, taken.changes.len(), worked, commit);
            let full = taken.more && taken.last.is_none();
            there.extend(taken.was.iter().zip(&taken.changes).map(|(was, change)| (change.table, was.key.clone())));
            was.extend(taken.was);
            changes.extend(taken.changes);
            at = taken.last.or(at);
            more = taken.more;
            // A row did not fit any more, or fewer came than were asked for and more wait.
            if full || room.is_full() {
                break;
            }
        }
        let (false, Some(last)) = (changes.is_empty(), at) else { return Ok(None) };
        let wal = self.file.journal_mode == JournalMode::Wal;
        if wal {
            synchronous(&self.file.connection, "FULL")?;
        }
        let (stands, ..) = self.write(|file, _| {
            let mut stands = exchange::read(file)?;
            stands.pushes += 1;
            exchange::write(file, &stands)?;
            Ok(stands)
        })?;
        if wal {
            synchronous(&self.file.connection, "NORMAL")?;
        }
        let head = PushHead {
            push_id: PushId::from_dice(ambient.dice()),
            client_id: self.at.client_id,
            epoch: self.epoch,
            order: stands.pushes,
            schema: self.at.version,
            series: stands.series,
            reached: stands.reached,
        };
        Ok(Some(Next { request: PushRequest { head, changes }, was, since, last, more }))
    }

    /// Settles an answer in short transactions. One that is cut off leaves rows that are sent again.
    fn settle(&mut self, next: &Next, answer: &PushResponse) -> Result<(), ReplicateError> {
        let request = &next.request;
        let not_this = |e: whimbrel_shared::protocol::push::BadAnswer| TransportError::NotUnderstood {
            url: self.means.server.url().to_owned(),
            why: e.to_string(),
        };
        let answered = answer.of(request).map_err(not_this)?;
        let (ambient, boot) = (self.means.ambient, self.means.boot);
        // A push before it may have been taken, and nobody here knows what was in it: perhaps the file went back.
        self.sure &= exchange::read(&self.file.connection)?.answered + 1 == request.head.order;
        let of = answer::Of { first: answer.first, newest: answer.newest, sure: self.sure };
        let mut rest = answered.as_slice();
        while !rest.is_empty() {
            let (some, left) = rest.split_at(rest.len().min(self.settling.rows() as usize));
            let is_last = left.is_empty();
            let done = answered.len() - rest.len();
            let (settled, worked, commit) = self.write(|file, tables| {
                let mut stands = exchange::read(file)?;
                stands.series = Some(answer.series);
                stands.tell_again |= !of.sure;
                stands.reach(answer.series, some.iter().filter_map(|a| a.version).max().unwrap_or(0));
                if is_last {
                    // Whoever asks by it is not told what it wrote up to there, so all of it has to be recorded.
                    let highest = answered.iter().filter_map(|a| a.version).max().unwrap_or(0);
                    stands.acked = stands.acked.max(highest);
                    stands.answered = request.head.order;
                }
                // Where all of it was accepted and nobody wrote to the file since, the rows are as they were taken.
                let as_taken = answer.answers.is_empty() && next.since == Some(data_version(file)?) && quarantine::count(file)? == 0;
                let was = as_taken.then(|| &next.was[done..done + some.len()]);
                Ok(answer::settle(file, tables, some, was, of, &mut stands, &boot(), ambient.now_ms())?)
            })?;
            self.pace(|one| &mut one.settling, some.len(), worked, commit);
            self.done.accepted += settled.accepted;
            self.done.merged += settled.merged;
            self.done.open += settled.open;
            rest = left;
        }
        Ok(())
    }
}
