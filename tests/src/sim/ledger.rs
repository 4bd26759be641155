//! What became of every value that an application wrote, and what the server has to have, worked out from the wire alone:
//! who may overwrite what is asked here with another code than the product's.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use whimbrel_shared::{
    change::{Change, Edit},
    columns::ColumnMap,
    hlc::Stamp,
    ids::ClientId,
    manifest::{Keys, SyncConflict},
    protocol::push::{Answer, PushHead, PushRequest, PushResponse, Series},
    resolve::Writer,
    synced::{Collation, SyncedTables},
    value::Value,
};

use super::{
    app::{Place, Wrote, token_of},
    schema::SPLIT,
};

/// One column of the server's row.
#[derive(Clone, Debug)]
struct Cell {
    value: Value,
    version: u64,
    by: Writer,
    stamp: Stamp,
}

/// A row of the server.
#[derive(Clone, Debug)]
struct Held {
    version: u64,
    cells: BTreeMap<u32, Cell>,
    gone: bool,
    /// Who made it.
    origin: Writer,
}

/// A write as it goes over the wire: who wrote which column of which row, at what clock.
type Write = (ClientId, u32, (u32, Vec<Value>), u32, u64);

/// What the server had at some moment.
#[derive(Clone, Debug)]
pub struct Then {
    rows: BTreeMap<(u32, Vec<Value>), Held>,
    answered: HashSet<String>,
    taken: BTreeSet<u32>,
}

/// The accounts.
#[derive(Debug)]
pub struct Ledger {
    synced: SyncedTables,
    /// The column that a later version splits.
    whole: Option<u32>,
    /// Every token that was in a file after a transaction of an application, and what wrote it.
    pub written: BTreeMap<u32, (usize, String)>,
    /// Tokens that an application took out of its file, or that were overwritten by somebody who had seen them.
    pub superseded: BTreeSet<u32>,
    /// Where an application took tokens out, and where nobody may see them again but for a reason that the wire shows.
    pub removed: BTreeSet<Place>,
    /// Tokens that the server took.
    pub taken: BTreeSet<u32>,
    /// Tokens that somebody overwrote without having seen them: the server has to keep both sides.
    pub contested: BTreeMap<u32, String>,
    /// Tokens that were lost to a person who put an old file back.
    pub given_up: BTreeSet<u32>,
    /// Tokens that a migration took out of a file with their column, sent or archived.
    pub gone: BTreeSet<u32>,
    /// Tokens in conflicts, quarantines and archives.
    pub kept: BTreeSet<u32>,
    rows: BTreeMap<(u32, Vec<Value>), Held>,
    answered: HashSet<String>,
    /// The value of every write that was taken, by its cell and clock, and at which version of which series.
    writes: BTreeMap<Write, (Value, (u32, Option<Series>))>,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Ledger {
    /// Nothing was written.
    pub fn new(synced: SyncedTables, first: &ColumnMap) -> Self {
        Self {
            synced,
            whole: first.table("line").and_then(|line| Some(line.column("b")?.id)),
            written: BTreeMap::new(),
            superseded: BTreeSet::new(),
            removed: BTreeSet::new(),
            taken: BTreeSet::new(),
            contested: BTreeMap::new(),
            given_up: BTreeSet::new(),
            gone: BTreeSet::new(),
            kept: BTreeSet::new(),
            rows: BTreeMap::new(),
            answered: HashSet::new(),
            writes: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// An application wrote.
    pub fn wrote(&mut self, file: usize, wrote: &Wrote) {
        for token in &wrote.appeared {
            self.written.entry(*token).or_insert_with(|| (file, wrote.sql.clone()));
        }
        self.superseded.extend(&wrote.vanished);
        let (came, went) = &wrote.places;
        self.removed.retain(|place| !came.contains(place));
        self.removed.extend(went.iter().cloned());
    }

    /// Versions after `before` up to `until` were published. From the one on in which a column is split, what it held is in
    /// each part: nobody may change the whole any more.
    pub fn published(&mut self, (before, until): (u32, u32), map: &ColumnMap) {
        if !(before < SPLIT && SPLIT <= until) {
            return;
        }
        let Some(line) = map.table("line") else { return };
        let parts: Vec<u32> = ["head", "tail"].iter().filter_map(|part| Some(line.column(part)?.id)).collect();
        for ((table, _), held) in &mut self.rows {
            if let (true, Some(whole)) = (*table == line.id, self.whole.and_then(|id| held.cells.get(&id)).cloned()) {
                held.cells.extend(parts.iter().map(|id| (*id, whole.clone())));
            }
        }
    }

    /// What the server has now.
    pub fn then(&self) -> Then {
        Then { rows: self.rows.clone(), answered: self.answered.clone(), taken: self.taken.clone() }
    }

    /// The server has again what it had: what it took since is given up, as far as no file brings it back.
    pub fn went_back(&mut self, to: Then) {
        self.given_up.extend(self.taken.difference(&to.taken));
        self.removed.clear();
        (self.rows, self.answered, self.taken) = (to.rows, to.answered, to.taken);
        self.writes.clear();
    }

    fn place(&self, change: &Change) -> (u32, Vec<Value>) {
        let collations = self.synced.0.get(&change.table).map(|s| s.key.iter().map(|k| k.1).collect::<Vec<_>>()).unwrap_or_default();
        let one = |(value, collation): (&Value, Collation)| match (value, collation) {
            (Value::Text(text), Collation::Nocase) => Value::Text(text.to_ascii_lowercase()),
            (value, _) => value.clone(),
        };
        (change.table, change.key.iter().zip(collations).map(one).collect())
    }

    /// The server answered a push. The same answer again changes nothing.
    pub fn answered(&mut self, request: &PushRequest, answer: &PushResponse) {
        let Ok(answers) = answer.of(request) else {
            self.wrong.push("an answer is of another push".to_owned());
            return;
        };
        if !self.answered.insert(request.head.push_id.to_string()) {
            return;
        }
        let by = Writer { client: request.head.client_id, epoch: request.head.epoch };
        // What is in the way of a unique value may go later in the same push, so rejected rows are looked at twice, and what
        // was taken the second time has no answer: places do not tell, but no two changes of a push are of one row.
        for (at, one) in (0u64..).zip(&answers) {
            self.only_once(&request.head, one.change, one.answer);
            self.one(one.change, one.answer, answer.first + at, by, answer.now_ms);
        }
    }

    /// A change that was taken comes no second time in another push: there it would be one that saw nothing of what others
    /// wrote after it.
    fn only_once(&mut self, head: &PushHead, change: &Change, answer: Option<&Answer>) {
        let Edit::Present { cells, .. } = &change.edit else { return };
        if !matches!(answer, None | Some(Answer::Behind)) {
            return;
        }
        let (place, at) = (self.place(change), (head.schema, head.series));
        let mut new = cells.is_empty();
        for cell in cells {
            let write = (head.client_id, head.epoch, place.clone(), cell.column, cell.clock.bits());
            // What refers to a row that got another key has the clock that it had, and another value.
            let was = self.writes.insert(write, (cell.value.clone(), at));
            new |= was.is_none_or(|was| was != (cell.value.clone(), at));
        }
        if !new {
            self.wrong.push(format!("{} {:?} was sent again in a new push", change.table, change.key));
        }
    }

    fn one(&mut self, change: &Change, answer: Option<&Answer>, version: u64, by: Writer, now_ms: i64) {
        let place = self.place(change);
        let Some(rules) = self.synced.0.get(&change.table) else { return };
        let (strategy, keys) = (rules.conflict, rules.keys);
        let there = self.rows.get(&place).cloned();
        let name = format!("{} {:?}", change.table, change.key);
        match (&change.edit, answer) {
            (_, Some(Answer::KeyTaken)) => {
                if keys == Some(Keys::Global) || there.as_ref().is_none_or(|h| h.gone) {
                    self.wrong.push(format!("{name}: a key was called taken that is not"));
                }
            }
            (_, Some(Answer::Rejected(_) | Answer::Held { .. } | Answer::Later | Answer::SendWhole { .. })) => {}
            (Edit::Deleted { base, clock }, Some(Answer::Merged { .. })) => {
                // The row stays.
                let stays: Vec<u32> = there.iter().flat_map(|h| h.cells.values()).filter_map(|c| token_of(&c.value)).collect();
                self.removed.retain(|place| !stays.contains(&place.3));
                let held = there.filter(|h| !h.gone);
                let unseen: Vec<Cell> = held.iter().flat_map(|h| h.cells.values()).filter(|c| c.version > *base && c.by != by).cloned().collect();
                let stamp = Stamp { clock: clock.bounded(now_ms), client: by.client };
                if unseen.is_empty() || unseen.iter().map(|c| c.stamp).max().is_some_and(|latest| prefers(strategy, stamp, latest)) {
                    self.wrong.push(format!("{name}: a deletion lost that had to win"));
                }
            }
            (Edit::Deleted { .. }, Some(Answer::Behind)) => {
                // It made the row in another of its lives, and does not know that it did (docs/sync.md, "Limits").
                if let Some(held) = there.filter(|h| h.origin.client == by.client && h.origin != by) {
                    let stays: Vec<u32> = held.cells.values().filter_map(|c| token_of(&c.value)).collect();
                    self.removed.retain(|place| !stays.contains(&place.3));
                }
            }
            (Edit::Deleted { base, clock }, None) => {
                let stamp = Stamp { clock: clock.bounded(now_ms), client: by.client };
                let mut held = there.unwrap_or(Held { version: 0, cells: BTreeMap::new(), gone: true, origin: by });
                let unseen: Vec<&Cell> = held.cells.values().filter(|c| c.version > *base && c.by != by).collect();
                if !held.gone && unseen.iter().map(|c| c.stamp).max().is_some_and(|latest| !prefers(strategy, stamp, latest)) {
                    self.wrong.push(format!("{name}: a deletion won that had to lose"));
                }
                for cell in held.cells.values() {
                    self.overwritten(cell, cell.version <= *base || cell.by == by, &name);
                }
                held.cells.clear();
                (held.version, held.gone) = (version, true);
                self.rows.insert(place, held);
            }
            (Edit::Present { .. }, Some(Answer::Merged { stands: None, .. })) => {
                if there.is_none_or(|h| !h.gone) {
                    self.wrong.push(format!("{name}: it was answered as deleted and is not"));
                }
            }
            (Edit::Present { seen, cells }, answer) => {
                let stands: &[(u32, Value)] = match answer {
                    Some(Answer::Merged { stands: Some(stands), .. }) => stands,
                    _ => &[],
                };
                if there.as_ref().is_none_or(|h| h.gone) {
                    // The row is there again, or only now.
                    let comes: Vec<u32> = cells.iter().filter_map(|c| token_of(&c.value)).collect();
                    self.removed.retain(|place| !comes.contains(&place.3));
                }
                let mut held = there.filter(|h| !h.gone).unwrap_or(Held { version: 0, cells: BTreeMap::new(), gone: false, origin: by });
                let concurrent = |cell: &Cell, base: u64| cell.version > base && cell.by != by;
                let in_question: Vec<(u32, Stamp, Stamp)> = cells
                    .iter()
                    .filter_map(|c| {
                        let there = held.cells.get(&c.column).filter(|t| concurrent(t, c.base) && t.value != c.value)?;
                        Some((c.column, Stamp { clock: c.clock.bounded(now_ms), client: by.client }, there.stamp))
                    })
                    .collect();
                let newest = |pick: fn(&(u32, Stamp, Stamp)) -> Stamp| in_question.iter().map(pick).max();
                let together = newest(|q| q.1).zip(newest(|q| q.2)).is_none_or(|(sent, there)| prefers(strategy, sent, there));
                for c in cells {
                    let lost = stands.iter().any(|(id, _)| *id == c.column);
                    let question = in_question.iter().find(|q| q.0 == c.column);
                    let has_to_lose = question.is_some_and(|(_, sent, there)| match strategy {
                        SyncConflict::Merge => !prefers(strategy, *sent, *there),
                        _ => !together,
                    });
                    if lost != has_to_lose {
                        self.wrong.push(format!("{name}: column {} {} by {strategy:?}", c.column, if lost { "lost" } else { "won" }));
                    }
                    if lost {
                        continue;
                    }
                    self.taken.extend(token_of(&c.value));
                    let stamp = Stamp { clock: c.clock.bounded(now_ms), client: by.client };
                    if let Some(there) = held.cells.get(&c.column) {
                        if (there.by, there.stamp) == (by, stamp) && there.value == c.value {
                            // Sent again because its answer was lost: the write that it was.
                            continue;
                        }
                        if there.value == c.value && concurrent(there, c.base) && !prefers(strategy, stamp, there.stamp) {
                            continue;
                        }
                        if there.value != c.value {
                            if !concurrent(there, c.base) && there.by != by && stamp.clock <= there.stamp.clock {
                                self.wrong
                                    .push(format!("{name}: column {} was written after another edit was seen, with an earlier clock", c.column));
                            }
                            let there = there.clone();
                            self.overwritten(&there, !concurrent(&there, c.base), &name);
                        }
                    }
                    held.cells.insert(c.column, Cell { value: c.value.clone(), version, by, stamp });
                }
                if *seen == 0 && keys != Some(Keys::Global) && held.origin != by {
                    self.wrong.push(format!("{name}: a new row was merged into another"));
                }
                held.version = version;
                self.rows.insert(place, held);
            }
        }
    }

    fn overwritten(&mut self, cell: &Cell, seen: bool, name: &str) {
        let Some(token) = token_of(&cell.value) else { return };
        if seen {
            self.superseded.insert(token);
        } else {
            self.contested.insert(token, name.to_owned());
        }
    }
}

fn prefers(strategy: SyncConflict, arrives: Stamp, there: Stamp) -> bool {
    match strategy {
        SyncConflict::KeepNewest | SyncConflict::Merge => arrives > there,
        SyncConflict::KeepOldest => arrives < there,
        SyncConflict::ServerWins => false,
        SyncConflict::ClientWins => true,
    }
}
