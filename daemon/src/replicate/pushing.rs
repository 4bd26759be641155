//! What waits goes up, push by push; each answer is settled before the next.

use std::{collections::HashSet, time::Instant};

use whimbrel_shared::{
    ids::PushId,
    packed,
    protocol::{
        problem::PUSH_DIFFERS,
        push::{PushHead, PushRequest, PushResponse},
    },
};

use super::{ReplicateError, Replication, synchronous};
use crate::{
    migrate::connection::{JournalMode, data_version},
    store::{
        exchange::{self, Exchange},
        in_flight, journal,
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
    /// The same as it goes over the wire, and as the file keeps it until it is answered.
    body: Vec<u8>,
    /// The row of each change, as it was; empty where it was sent before.
    was: Vec<Was>,
    /// What the file's data version was before the first of them was looked at.
    since: Option<i64>,
    /// The last row that was looked at.
    last: Option<Place>,
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
        let mut unanswered = self.unanswered(&stands)?;
        let mut after = None;
        for _ in 0..PUSHES {
            if self.until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let next = match unanswered.take() {
                Some(next) => Some(next),
                None => self.next_push(after.as_ref())?,
            };
            let Some(mut next) = next else { break };
            any = true;
            self.done.pushed += next.request.changes.len() as u64;
            let asked = self.since_boot_ms();
            let answer = self.ask(self.means.server.push(std::mem::take(&mut next.body).into()));
            if let Err(ReplicateError::Server(error)) = &answer {
                self.refused_push(error)?;
            }
            let answer = answer?;
            self.settle(&next, &answer)?;
            self.note_time(answer.now_ms, asked)?;
            if !next.more {
                break;
            }
            after = next.last;
        }
        Ok(any)
    }

    /// The last push, where no answer to it was settled as a whole. The server may have taken it, and others may have seen it
    /// there: in a new push its edits would be new ones, that never saw what those others wrote. So it goes again as it was.
    fn unanswered(&self, stands: &Exchange) -> Result<Option<Next>, ReplicateError> {
        if stands.answered == stands.pushes {
            return Ok(None);
        }
        let body = in_flight::read(&self.file.connection)?;
        let Ok((head, changes)) = packed::unpack_changes::<PushHead>(&body) else { return Ok(None) };
        let own = (head.client_id, head.epoch, head.order, head.schema) == (self.at.client_id, self.epoch, stands.pushes, self.at.version);
        // The first of all pushes counts in no series.
        let counts = head.series.is_none() || head.series == stands.series;
        let next = Next { request: PushRequest { head, changes }, body, was: Vec::new(), since: None, last: None, more: true };
        Ok((own && counts).then_some(next))
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
        if changes.is_empty() {
            return Ok(None);
        }
        let stands = exchange::read(&self.file.connection)?;
        let head = PushHead {
            push_id: PushId::from_dice(ambient.dice()),
            client_id: self.at.client_id,
            epoch: self.epoch,
            order: stands.pushes + 1,
            schema: self.at.version,
            series: stands.series,
            reached: stands.reached,
        };
        let body = packed::pack_changes(&head, &changes);
        self.keep(&head, &body)?;
        Ok(Some(Next { request: PushRequest { head, changes }, body, was, since, last: at, more }))
    }

    /// Puts a push on disk, before it is sent: with its last piece its order is there, and it is synced.
    fn keep(&mut self, head: &PushHead, body: &[u8]) -> Result<(), ReplicateError> {
        let wal = self.file.journal_mode == JournalMode::Wal;
        let pieces = body.len().div_ceil(in_flight::PIECE);
        for (at, piece) in body.chunks(in_flight::PIECE).enumerate() {
            let is_last = at + 1 == pieces;
            if wal && is_last {
                synchronous(&self.file.connection, "FULL")?;
            }
            self.write(|file, _| {
                in_flight::put(file, at, piece)?;
                if is_last {
                    exchange::write(file, &Exchange { pushes: head.order, ..exchange::read(file)? })?;
                }
                Ok(())
            })?;
        }
        if wal {
            synchronous(&self.file.connection, "NORMAL")?;
        }
        Ok(())
    }

    /// What a refusal means for the push that is kept: it may stand in the way of all others.
    fn refused_push(&mut self, error: &TransportError) -> Result<(), ReplicateError> {
        match (error.problem(), error.status()) {
            (Some(PUSH_DIFFERS), _) => self.write(|file, _| Ok(in_flight::forget(file)?)).map(|_| ()),
            (_, Some(400 | 413 | 422)) => self.write(|file, _| Ok(in_flight::refused(file)?)).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Settles an answer in short transactions. One that is cut off leaves a push that is sent again.
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
                    in_flight::forget(file)?;
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
