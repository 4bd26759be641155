//! A push, in SQLite: every change of it judged and written, its answer kept, all in one transaction.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{
    change::{Cell, Change, Edit},
    hlc::Clock,
    ids::{ClientId, Digest},
    protocol::{
        conflicts::{Kept, KeptKind},
        push::{Answer, MAX_ANSWER_BYTES, PushHead, PushResponse, Reason},
    },
    resolve::{self, Arrival, Conflict, ConflictKind, Outcome, Resolved, State, What, Writer},
    value::Value,
};

use super::{
    conflicts::{self, Keeper, UnsaidOf},
    json,
    lifting::Lifting,
    natural, parsed,
    record::{self, Record},
    spaces::{self, Bound, Schemas, WriterBook},
    to_json,
    unique::{At, TakenBy, UniqueSets},
};
use crate::{
    decide::rows::{RowsAt, index_bytes},
    lift::{Pushed as Edited, Unsaid},
    store::{Refusal, StoreError, rows::Push},
};

/// What a push comes to. Both are committed.
pub(super) enum Pushed {
    /// Answered.
    Answered(PushResponse),
    /// It has seen numbers that were never given here, and the space has another series now.
    Rewound(Refusal),
}

pub(super) fn push(tx: &Transaction<'_>, schemas: &Schemas, push: &Push) -> Result<Pushed, StoreError> {
    let head = &push.request.head;
    let bound = spaces::ensure_bound(tx, push.device, head.client_id)?;
    if let Some(answer) = answered(tx, head, &push.content)? {
        return Ok(Pushed::Answered(answer));
    }
    if head.epoch < bound.epoch || (head.epoch == bound.epoch && head.order <= bound.last_push) {
        return Err(Refusal::FileWentBack { epoch: head.epoch, order: head.order, known: (bound.epoch, bound.last_push) }.into());
    }
    let seen = push.request.changes.iter().map(newest_seen).max().unwrap_or(0);
    let counts = if head.series == Some(bound.series) { seen } else { 0 };
    if let Some(reached) = spaces::never_given(&bound, head.reached, counts)? {
        spaces::begin_anew(tx, bound.space, reached)?;
        let why = format!("the file has seen {reached}, and {}.{} is the last that this store gave: it was restored", bound.series, bound.seq);
        return Ok(Pushed::Rewound(Refusal::SnapshotNeeded(why)));
    }
    if head.series.is_some_and(|s| s != bound.series) || (head.series.is_none() && seen > 0) {
        return Err(Refusal::SnapshotNeeded("what the file has seen counts in another series".to_owned()).into());
    }
    let (latest, own) = schemas.at(tx, &bound.app, head.schema)?;
    let first = spaces::take_numbers(tx, bound.space, push.request.changes.len())?;
    let mut taker = Taker {
        tx,
        bound: &bound,
        head,
        by: Writer { client: head.client_id, epoch: head.epoch },
        own: &own,
        latest: &latest,
        writers: WriterBook::new(tx),
        sets: UniqueSets::default(),
        lifting: schemas.lifting(tx, &bound.app)?,
        keeper: Keeper::new(tx, bound.space, head.client_id, push.now_ms)?,
        now_ms: push.now_ms,
        room: MAX_ANSWER_BYTES,
        restamped: 0,
        newest: Clock::ZERO,
    };
    let mut answers = Vec::new();
    let mut again = Vec::new();
    for (place, change) in (0u32..).zip(&push.request.changes) {
        match taker.take(change, first + u64::from(place), Try::First)? {
            // What stands in its way may go later in the same push.
            Some(Answer::Rejected(Reason::UniqueTaken { .. })) => again.push((place, change)),
            Some(answer) => answers.push((place, answer)),
            None => {}
        }
    }
    answers.extend(taker.together(&mut again, first)?);
    for (place, change) in again {
        answers.extend(taker.take(change, first + u64::from(place), Try::Last)?.map(|answer| (place, answer)));
    }
    answers.sort_by_key(|(place, _)| *place);
    let (restamped, newest) = (taker.restamped, taker.newest);
    let answer =
        PushResponse { push_id: head.push_id, content: push.content, series: bound.series, now_ms: push.now_ms, first, restamped, newest, answers };
    remember(tx, push, &answer)?;
    Ok(Pushed::Answered(answer))
}

/// The answer that this push got before.
fn answered(tx: &Transaction<'_>, head: &PushHead, content: &Digest) -> Result<Option<PushResponse>, StoreError> {
    let known = tx
        .prepare_cached("SELECT client_id, content, answer FROM push WHERE push_id = ?1")?
        .query_row([head.push_id.to_string()], |row| Ok((parsed::<ClientId>(row, 0)?, parsed::<Digest>(row, 1)?, json::<PushResponse>(row, 2)?)))
        .optional()?;
    match known {
        None => Ok(None),
        Some((client, known, answer)) if client == head.client_id && known == *content => Ok(Some(answer)),
        Some(_) => Err(Refusal::PushDiffers(head.push_id).into()),
    }
}

fn remember(tx: &Transaction<'_>, push: &Push, answer: &PushResponse) -> Result<(), StoreError> {
    let head = &push.request.head;
    let client = head.client_id.to_string();
    tx.prepare_cached("INSERT INTO push (push_id, client_id, content, answer, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
        head.push_id.to_string(),
        &client,
        push.content.to_string(),
        to_json(answer)?,
        push.now_ms,
    ))?;
    let order = i64::try_from(head.order).unwrap_or(i64::MAX);
    tx.prepare_cached("UPDATE synced_client SET epoch = ?2, last_push = ?3 WHERE client_id = ?1")?.execute((client, head.epoch, order))?;
    Ok(())
}

fn newest_seen(change: &Change) -> u64 {
    match &change.edit {
        Edit::Present { seen, .. } => *seen,
        Edit::Deleted { base, .. } => *base,
    }
}

/// Most changes that are tried together.
const MOST_TOGETHER: usize = 200;

/// How a change is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Try {
    /// By itself. Where a unique set is taken, nothing is kept of it yet.
    First,
    /// With others, all of which gave up their values in unique sets.
    Together,
    /// By itself, and a unique set that is taken is the end of it: kept as a conflict.
    Last,
}

/// What all changes of a push have in common.
struct Taker<'a> {
    tx: &'a Transaction<'a>,
    bound: &'a Bound,
    head: &'a PushHead,
    by: Writer,
    own: &'a RowsAt,
    latest: &'a RowsAt,
    writers: WriterBook<'a>,
    sets: UniqueSets,
    lifting: Lifting,
    keeper: Keeper<'a>,
    now_ms: i64,
    /// Bytes of values that the answer has room for.
    room: usize,
    restamped: u32,
    /// The latest clock of what stands against the push.
    newest: Clock,
}

impl Taker<'_> {
    /// Takes changes that are in each other's way, such as two rows that swap a unique value: all of them give up their values,
    /// then each takes its own. Those with which that does not go stay in `group`. Returns the answers to the others.
    fn together(&mut self, group: &mut Vec<(u32, &Change)>, first: u64) -> Result<Vec<(u32, Answer)>, StoreError> {
        let mut out = Vec::new();
        while (2..=MOST_TOGETHER).contains(&group.len()) {
            self.tx.execute_batch("SAVEPOINT together")?;
            let before = (self.room, self.newest);
            for (_, change) in group.iter() {
                self.release(change)?;
            }
            let (mut answers, mut stopped) = (Vec::new(), None);
            for (at, (place, change)) in group.iter().enumerate() {
                match self.take(change, first + u64::from(*place), Try::Together)? {
                    Some(Answer::Rejected(_) | Answer::Later) => {
                        stopped = Some(at);
                        break;
                    }
                    Some(answer) => answers.push((*place, answer)),
                    None => {}
                }
            }
            let Some(at) = stopped else {
                self.tx.execute_batch("RELEASE together")?;
                *group = out;
                return Ok(answers);
            };
            self.tx.execute_batch("ROLLBACK TO together; RELEASE together")?;
            // Numbers that were given meanwhile are given no more.
            (self.room, self.newest) = before;
            (self.writers, self.sets) = (WriterBook::new(self.tx), UniqueSets::default());
            out.push(group.remove(at));
        }
        group.append(&mut out);
        Ok(Vec::new())
    }

    fn release(&mut self, change: &Change) -> Result<(), StoreError> {
        let (index, Ok(rules)) = (self.index(change), self.own.take(change, self.latest)) else { return Ok(()) };
        let Some(there) = self.row(change.table, &index)?.0 else { return Ok(()) };
        let at = At { space: self.bound.space, table: rules.table, index: &index, key: &there.key, version: self.latest.version };
        self.sets.release(self.tx, &mut self.writers, &mut self.lifting, at, &there.state)
    }

    /// Takes one change, as `version`. None: accepted as it was sent, and known.
    fn take(&mut self, change: &Change, version: u64, which: Try) -> Result<Option<Answer>, StoreError> {
        let last = which == Try::Last;
        let bounded = bounded(change, self.now_ms);
        if bounded.is_some() && which == Try::First {
            self.restamped += 1;
        }
        let change = bounded.as_ref().unwrap_or(change);
        let rules = match self.own.take(change, self.latest) {
            Ok(rules) => rules,
            Err(answer) => {
                if matches!(answer, Answer::Held { .. }) {
                    let index = self.index(change);
                    self.keeper.keep(&index, &self.kept(KeptKind::Held, change, true))?;
                }
                return Ok(Some(answer));
            }
        };
        let index = self.index(change);
        let (there, mut unsaid) = self.row(change.table, &index)?;
        let state = there.as_ref().map(|r| &r.state);
        let (strategy, keys) = (rules.table.conflict, rules.table.keys);
        let mut resolved = resolve::resolve(state, Arrival { change, by: self.by, version, whole: rules.whole, strategy, keys });
        let answer = self.answer(change, &resolved, state);
        if let Some(bytes) = answer.as_ref().map(stands_bytes) {
            if bytes > self.room {
                return Ok(Some(Answer::Later));
            }
            self.room -= bytes;
            self.newest = self.newest.max(latest_clock(state));
        }
        if which == Try::Together
            && resolved.state.is_none()
            && let Some(stays) = state
        {
            // It gave up its values and keeps them after all.
            let at = At { space: self.bound.space, table: rules.table, index: &index, key: &change.key, version: self.latest.version };
            if let Some(TakenBy { columns, .. }) = self.sets.claim(self.tx, &mut self.writers, &mut self.lifting, at, None, stays)? {
                return Ok(Some(Answer::Rejected(Reason::UniqueTaken { columns, key: Vec::new() })));
            }
        }
        if let Some(after) = &mut resolved.state {
            let edited = Edited { by: self.by, schema: self.own.version, number: version, strategy };
            let derived = self.lifting.follow(change.table, &change.key, state, after, edited, self.latest.version);
            unsaid.extend(derived.unsaid);
            if !derived.contested.is_empty() {
                let conflict = resolved.conflict.get_or_insert(Conflict { kind: ConflictKind::Edits, columns: Vec::new() });
                conflict.columns.extend(derived.contested);
            }
            let at = At { space: self.bound.space, table: rules.table, index: &index, key: &change.key, version: self.latest.version };
            let held = state.filter(|_| which != Try::Together);
            while let Some(TakenBy { columns, index: owner }) = self.sets.claim(self.tx, &mut self.writers, &mut self.lifting, at, held, after)? {
                // What nobody said themselves stands in nobody's way.
                let computed = give_back(&columns, change, state, after);
                if !computed.is_empty() {
                    let why = "another row of the space has that value in a unique set".to_owned();
                    unsaid.push(Unsaid { version: self.latest.version, columns: computed, why });
                    continue;
                }
                let key = self.row(change.table, &owner)?.0.map_or_else(Vec::new, |r| r.key);
                if last {
                    let kept = Kept { other_key: Some(key.clone()), ..self.kept(KeptKind::UniqueTaken, change, true) };
                    self.keeper.keep(&index, &kept)?;
                }
                return Ok(Some(Answer::Rejected(Reason::UniqueTaken { columns, key })));
            }
            self.write(change, &index, there.as_ref(), after)?;
            self.keeper.settle(change.table, &index)?;
            self.keeper.settle_unsaid(change.table, &index, after, version)?;
        }
        if let Some(conflict) = &resolved.conflict {
            let kind = conflicts::kind(conflict.kind);
            let kept = Kept {
                columns: conflicts::columns(conflict),
                strategy: (!kind.is_open()).then_some(strategy),
                ..self.kept(kind, change, kind.is_open())
            };
            self.keeper.keep(&index, &kept)?;
        }
        let of = |unsaid| UnsaidOf {
            space: self.bound.space,
            client: self.head.client_id,
            table: change.table,
            index: index.clone(),
            key: change.key.clone(),
            unsaid,
        };
        let unsaid: Vec<UnsaidOf> = unsaid.into_iter().map(of).collect();
        self.keeper.keep_unsaid(&unsaid)?;
        Ok(answer)
    }

    /// The row's key as the table's index compares it.
    fn index(&self, change: &Change) -> Vec<u8> {
        index_bytes(self.own.key(change.table, self.latest).unwrap_or_default(), change.key.iter())
    }

    fn kept(&self, kind: KeptKind, change: &Change, whole: bool) -> Kept {
        Kept {
            kind,
            table: change.table,
            key: change.key.clone(),
            schema: self.head.schema,
            strategy: None,
            columns: Vec::new(),
            other_key: None,
            change: whole.then(|| change.clone()),
            why: None,
        }
    }

    /// A row in the newest version's terms, and what of it cannot be told in them.
    fn row(&mut self, table: u32, index: &[u8]) -> Result<(Option<Record>, Vec<Unsaid>), StoreError> {
        let mut query = self.tx.prepare_cached("SELECT version, record FROM synced_row WHERE space_id = ?1 AND table_id = ?2 AND key = ?3")?;
        let found = query.query_row((self.bound.space, table, index), |row| Ok((natural(row, 0)?, row.get::<_, Vec<u8>>(1)?))).optional()?;
        let Some((version, bytes)) = found else { return Ok((None, Vec::new())) };
        let mut record = record::decode(&bytes, version, &mut self.writers)?;
        let unsaid = self.lifting.complete(table, &record.key, &mut record.state, record.level, self.latest.version);
        Ok((Some(record), unsaid))
    }

    fn write(&mut self, change: &Change, index: &[u8], before: Option<&Record>, after: &State) -> Result<(), StoreError> {
        // A deletion names the row; how its key is spelled is the last edit's.
        let key: &[Value] = before.filter(|_| after.is_deleted()).map_or(&change.key, |r| &r.key);
        let bytes = record::encode(key, self.latest.version, after, &mut self.writers)?;
        let deleted = after.is_deleted().then_some(self.now_ms);
        let version = i64::try_from(after.version).unwrap_or(i64::MAX);
        match before {
            None => self
                .tx
                .prepare_cached("INSERT INTO synced_row (space_id, version, table_id, key, record, deleted_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute((self.bound.space, version, change.table, index, bytes, deleted))?,
            Some(before) => self
                .tx
                .prepare_cached("UPDATE synced_row SET version = ?3, record = ?4, deleted_at_ms = ?5 WHERE space_id = ?1 AND version = ?2")?
                .execute((self.bound.space, i64::try_from(before.state.version).unwrap_or(i64::MAX), version, bytes, deleted))?,
        };
        Ok(())
    }

    fn answer(&self, change: &Change, resolved: &Resolved, before: Option<&State>) -> Option<Answer> {
        Some(match &resolved.outcome {
            Outcome::Accepted { known: true } => return None,
            Outcome::Accepted { known: false } => Answer::Behind,
            Outcome::KeyTaken => Answer::KeyTaken,
            Outcome::SendWhole { seen } => Answer::SendWhole { seen: *seen },
            Outcome::Merged { stands } => {
                let after = resolved.state.as_ref().or(before);
                let stands = stands.as_ref().map(|cells| {
                    let columns = self.own.map.table_by_id(change.table);
                    cells.iter().filter(|(id, _)| columns.is_some_and(|t| t.column_by_id(*id).is_some())).cloned().collect::<Vec<_>>()
                });
                let told = |column: u32| stands.as_ref().is_none_or(|cells| cells.iter().any(|(id, _)| *id == column));
                let seen = newest_seen(change);
                let known = after.filter(|s| s.cells().iter().all(|h| h.version <= seen || h.by == self.by || told(h.column)));
                Answer::Merged { version: known.map(|s| s.version), stands }
            }
        })
    }
}

/// Takes back what was computed in these columns and not sent, to what was there before. Answers in which.
fn give_back(columns: &[u32], change: &Change, before: Option<&State>, after: &mut State) -> BTreeSet<u32> {
    let sent: &[Cell] = match &change.edit {
        Edit::Present { cells, .. } => cells,
        Edit::Deleted { .. } => &[],
    };
    let was = |id: u32| before.and_then(|state| state.cells().iter().find(|held| held.column == id)).cloned();
    let mut given = BTreeSet::new();
    let What::Present(cells) = &mut after.what else { return given };
    cells.retain_mut(|held| {
        let was = was(held.column);
        let computed = columns.contains(&held.column) && !sent.iter().any(|c| c.column == held.column);
        if !computed || was.as_ref().is_some_and(|was| was.value == held.value) {
            return true;
        }
        given.insert(held.column);
        match was {
            Some(was) => *held = was,
            None => return false,
        }
        true
    });
    given
}

fn latest_clock(state: Option<&State>) -> Clock {
    let Some(state) = state else { return Clock::ZERO };
    match &state.what {
        What::Deleted(_, stamp) => stamp.clock,
        What::Present(cells) => cells.iter().map(|held| held.stamp.clock).max().unwrap_or(Clock::ZERO),
    }
}

fn stands_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Merged { stands: Some(cells), .. } => cells.iter().map(|(_, value)| value.size_bytes()).sum(),
        _ => 0,
    }
}

/// The change with the clocks that are too far ahead set to the server's; none where none is.
fn bounded(change: &Change, now_ms: i64) -> Option<Change> {
    let bound = |clock: Clock| clock.bounded(now_ms);
    let ahead = match &change.edit {
        Edit::Present { cells, .. } => cells.iter().any(|c| bound(c.clock) != c.clock),
        Edit::Deleted { clock, .. } => bound(*clock) != *clock,
    };
    ahead.then(|| {
        let mut change = change.clone();
        match &mut change.edit {
            Edit::Present { cells, .. } => cells.iter_mut().for_each(|c| c.clock = bound(c.clock)),
            Edit::Deleted { clock, .. } => *clock = bound(*clock),
        }
        change
    })
}
