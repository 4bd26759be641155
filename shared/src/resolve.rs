//! What becomes of a row when a change arrives for it. Pure, and the only place where that is decided.
//!
//! A strategy decides only what is *concurrent*: a column that somebody else wrote after the version that the change had
//! seen of it. An edit that saw the current value always stands, whatever its clock says. The columns in question of one
//! row are decided together by `keep-newest` and `keep-oldest`, so that two concurrent edits of an address never mix; by
//! `merge` one by one. Equal values are no conflict.
//!
//! | the server has | arrives | nothing concurrent | else, by strategy: it wins | it loses |
//! |---|---|---|---|---|
//! | nothing | new row | stored | | |
//! | nothing, or a deletion | edit of some columns | `send_whole` | | |
//! | a row of another | new row | | `key_taken`, both kept; with `keys = "global"` as an edit | |
//! | a row | edit | its columns are written | its columns are written, conflict | the server's stand, `merged`, conflict |
//! | a deletion | edit of all columns | stored anew | stored anew, conflict | stays deleted, `merged`, conflict |
//! | a row | deletion | deleted | deleted, conflict | the row stays, `merged`, conflict |
//! | nothing | deletion | nothing happens | | |
//! | a deletion | deletion | deleted, by the clock that the strategy prefers | | |
//!
//! Who wins: `keep-newest` and `merge` the later clock, `keep-oldest` the earlier one, `server-wins` what is there,
//! `client-wins` what arrives. Clocks of one client's own edits are never compared: what it sends later is later.

use crate::{
    change::{Change, Edit},
    hlc::Stamp,
    ids::ClientId,
    manifest::{Keys, SyncConflict},
    value::Value,
};

/// Who wrote something: a database in one of its lives. A file that went back is another writer, since it does not know
/// what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// The database.
    pub client: ClientId,
    /// How often its file went back, from 1.
    pub epoch: u32,
}

/// What the server has under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The space's number of its last change.
    pub version: u64,
    /// Who made it.
    pub origin: Writer,
    /// What it is.
    pub what: What,
}

/// A row, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its cells by ascending column id.
    Present(Vec<Held>),
    /// It was deleted, by whom and when.
    Deleted(Writer, Stamp),
}

/// One column of a row at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Id of the column.
    pub column: u32,
    /// Its value.
    pub value: Value,
    /// The space's number of its last change.
    pub version: u64,
    /// Who made that.
    pub by: Writer,
    /// When.
    pub stamp: Stamp,
}

/// A change and what it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The change.
    pub change: &'a Change,
    /// Whose.
    pub by: Writer,
    /// The number that it gets where it changes anything.
    pub version: u64,
    /// Whether it names every column of its table, so that a row can be made of it.
    pub whole: bool,
    /// The table's strategy.
    pub strategy: SyncConflict,
    /// The table's word on keys.
    pub keys: Option<Keys>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the client is told.
    pub outcome: Outcome,
    /// The row after it; none where nothing changed.
    pub state: Option<State>,
    /// What two people wanted, where they did not want the same.
    pub conflict: Option<Conflict>,
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it stands.
    Accepted {
        /// Whether the file now knows the whole row: nobody else had changed it since it was seen.
        known: bool,
    },
    /// Some or all of it does not stand; this is what does.
    Merged {
        /// The columns in which the server's value stands, all of the row's where a deletion lost; none: it is deleted.
        stands: Option<Vec<(u32, Value)>>,
    },
    /// There is another row under that key.
    KeyTaken,
    /// The row is not there any more and the edit may stand, but not without its other columns.
    SendWhole {
        /// What the file has seen with that: the version of the deletion, 0 where nothing is known of one.
        seen: u64,
    },
}

/// Both sides of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What kind.
    pub kind: ConflictKind,
    /// Per column in question: what arrived, and what was there.
    pub columns: Vec<Contested>,
}

/// One column of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// Id of the column.
    pub column: u32,
    /// What arrived; none where that was a deletion.
    pub arrived: Option<Value>,
    /// What was there; none where that was a deletion, or the column had no value.
    pub there: Option<Value>,
    /// Whether what arrived stands.
    pub taken: bool,
}

/// What met what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// An edit met an edit.
    Edits,
    /// An edit arrived for a deleted row.
    EditOfDeleted,
    /// A deletion arrived for an edited row.
    DeletionOfEdited,
    /// A new row arrived under the key of another.
    KeyTaken,
}

impl What {
    fn cells(&self) -> &[Held] {
        match self {
            Self::Present(cells) => cells,
            Self::Deleted(..) => &[],
        }
    }
}

impl State {
    /// The cells of a row; none of a deleted one.
    pub fn cells(&self) -> &[Held] {
        self.what.cells()
    }

    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        matches!(self.what, What::Deleted(..))
    }
}

/// Decides.
pub fn resolve(there: Option<&State>, arrival: Arrival<'_>) -> Resolved {
    match (&arrival.change.edit, there) {
        (Edit::Present { .. }, Some(state)) => match &state.what {
            What::Present(cells) => edit(state, cells, arrival),
            What::Deleted(by, stamp) => edit_of_deleted(state, *by, *stamp, arrival),
        },
        (Edit::Present { .. }, None) if arrival.whole => arrival.stored(None),
        (Edit::Present { .. }, None) => unchanged(Outcome::SendWhole { seen: 0 }),
        (Edit::Deleted { base, .. }, Some(state)) => match &state.what {
            What::Present(cells) => deletion(state, cells, *base, arrival),
            What::Deleted(_, stamp) => {
                let preferred = if arrival.prefers(arrival.stamp(), *stamp) { arrival.stamp() } else { *stamp };
                arrival.deleted(state.origin, preferred, None)
            }
        },
        (Edit::Deleted { .. }, None) => unchanged(Outcome::Accepted { known: false }),
    }
}

fn unchanged(outcome: Outcome) -> Resolved {
    Resolved { outcome, state: None, conflict: None }
}

fn edit(state: &State, cells: &[Held], arrival: Arrival<'_>) -> Resolved {
    let Edit::Present { seen, cells: sent } = &arrival.change.edit else { unreachable!("it is an edit") };
    if *seen == 0 && state.origin != arrival.by && arrival.keys != Some(Keys::Global) {
        let columns = sent.iter().map(|c| contested(c.column, Some(&c.value), find(cells, c.column), false)).collect();
        return Resolved { outcome: Outcome::KeyTaken, state: None, conflict: Some(Conflict { kind: ConflictKind::KeyTaken, columns }) };
    }
    // Somebody else wrote it after it was seen, and something else.
    let concurrent = |held: &&Held, base: u64| held.version > base && held.by != arrival.by;
    let questions: Vec<(&Held, Stamp)> = sent
        .iter()
        .filter_map(|cell| {
            let held = find(cells, cell.column).filter(|held| concurrent(held, cell.base) && held.value != cell.value)?;
            Some((held, Stamp { clock: cell.clock, client: arrival.by.client }))
        })
        .collect();
    let together = match (questions.iter().map(|(_, sent)| *sent).max(), questions.iter().map(|(held, _)| held.stamp).max()) {
        (Some(sent), Some(held)) => arrival.prefers(sent, held),
        _ => true,
    };
    let (mut after, mut stands, mut columns, mut changed) = (cells.to_vec(), Vec::new(), Vec::new(), false);
    for cell in sent {
        let stamp = Stamp { clock: cell.clock, client: arrival.by.client };
        let held = find(cells, cell.column);
        let taken = match held.filter(|held| concurrent(held, cell.base)) {
            // It was taken before, and the answer was lost. As a new write it would stand against who has seen it meanwhile.
            None => !held.is_some_and(|held| held.by == arrival.by && held.stamp == stamp && held.value == cell.value),
            Some(held) if held.value == cell.value => arrival.prefers(stamp, held.stamp),
            Some(held) => {
                let taken = if arrival.strategy == SyncConflict::Merge { arrival.prefers(stamp, held.stamp) } else { together };
                columns.push(contested(cell.column, Some(&cell.value), Some(held), taken));
                if !taken {
                    stands.push((cell.column, held.value.clone()));
                }
                taken
            }
        };
        if taken {
            changed = true;
            put(&mut after, arrival.held(cell.column, cell.value.clone(), stamp));
        }
    }
    // What others wrote unseen and this overwrites does not have to be told.
    let known = after.iter().all(|held| held.version <= *seen || held.by == arrival.by) && (changed || state.version <= *seen);
    let outcome = if stands.is_empty() { Outcome::Accepted { known } } else { Outcome::Merged { stands: Some(stands) } };
    let state = changed.then_some(State { version: arrival.version, origin: state.origin, what: What::Present(after) });
    let conflict = (!columns.is_empty()).then_some(Conflict { kind: ConflictKind::Edits, columns });
    Resolved { outcome, state, conflict }
}

fn edit_of_deleted(state: &State, by: Writer, stamp: Stamp, arrival: Arrival<'_>) -> Resolved {
    let Edit::Present { seen, cells: sent } = &arrival.change.edit else { unreachable!("it is an edit") };
    // A row that is new to its client, and was never anything else, is another thing that has the key now. It comes whole.
    let new = *seen == 0 && arrival.whole && state.origin != arrival.by;
    let concurrent = by != arrival.by && !new && sent.iter().any(|c| c.base < state.version);
    let wins = !concurrent || arrival.prefers(arrival.stamp(), stamp);
    let columns = || sent.iter().map(|c| contested(c.column, Some(&c.value), None, wins)).collect();
    let conflict = concurrent.then(|| Conflict { kind: ConflictKind::EditOfDeleted, columns: columns() });
    if !wins {
        return Resolved { outcome: Outcome::Merged { stands: None }, state: None, conflict };
    }
    if !arrival.whole {
        return Resolved { outcome: Outcome::SendWhole { seen: state.version }, state: None, conflict };
    }
    arrival.stored(conflict)
}

fn deletion(state: &State, cells: &[Held], base: u64, arrival: Arrival<'_>) -> Resolved {
    if base == 0 && state.origin != arrival.by && arrival.keys != Some(Keys::Global) {
        // It deleted a row of its own that never got here; this one is another's.
        return unchanged(Outcome::Accepted { known: false });
    }
    let unseen = || cells.iter().filter(|held| held.version > base && held.by != arrival.by);
    let wins = unseen().map(|held| held.stamp).max().is_none_or(|latest| arrival.prefers(arrival.stamp(), latest));
    let columns: Vec<Contested> = unseen().map(|held| contested(held.column, None, Some(held), wins)).collect();
    let conflict = (!columns.is_empty()).then_some(Conflict { kind: ConflictKind::DeletionOfEdited, columns });
    if wins {
        return arrival.deleted(state.origin, arrival.stamp(), conflict);
    }
    let stands = cells.iter().map(|held| (held.column, held.value.clone())).collect();
    Resolved { outcome: Outcome::Merged { stands: Some(stands) }, state: None, conflict }
}

impl Arrival<'_> {
    fn stamp(&self) -> Stamp {
        Stamp { clock: self.change.clock(), client: self.by.client }
    }

    /// Whether what arrives with that stamp wins over what is there with that one.
    fn prefers(&self, arrives: Stamp, there: Stamp) -> bool {
        match self.strategy {
            SyncConflict::KeepNewest | SyncConflict::Merge => arrives > there,
            SyncConflict::KeepOldest => arrives < there,
            SyncConflict::ServerWins => false,
            SyncConflict::ClientWins => true,
        }
    }

    fn held(&self, column: u32, value: Value, stamp: Stamp) -> Held {
        Held { column, value, version: self.version, by: self.by, stamp }
    }

    /// The row as the change has it, from now on this client's.
    fn stored(&self, conflict: Option<Conflict>) -> Resolved {
        let Edit::Present { cells, .. } = &self.change.edit else { unreachable!("only edits are stored") };
        let stamp = |cell: &crate::change::Cell| Stamp { clock: cell.clock, client: self.by.client };
        let cells = cells.iter().map(|cell| self.held(cell.column, cell.value.clone(), stamp(cell))).collect();
        let state = State { version: self.version, origin: self.by, what: What::Present(cells) };
        Resolved { outcome: Outcome::Accepted { known: true }, state: Some(state), conflict }
    }

    fn deleted(&self, origin: Writer, stamp: Stamp, conflict: Option<Conflict>) -> Resolved {
        let state = State { version: self.version, origin, what: What::Deleted(self.by, stamp) };
        Resolved { outcome: Outcome::Accepted { known: true }, state: Some(state), conflict }
    }
}

fn find(cells: &[Held], column: u32) -> Option<&Held> {
    cells.binary_search_by_key(&column, |held| held.column).ok().map(|at| &cells[at])
}

fn put(cells: &mut Vec<Held>, held: Held) {
    match cells.binary_search_by_key(&held.column, |h| h.column) {
        Ok(at) => cells[at] = held,
        Err(at) => cells.insert(at, held),
    }
}

fn contested(column: u32, arrived: Option<&Value>, there: Option<&Held>, taken: bool) -> Contested {
    Contested { column, arrived: arrived.cloned(), there: there.map(|held| held.value.clone()), taken }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
