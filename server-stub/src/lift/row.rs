//! A row of an older version, taken up: which of its cells a version fills, with whose clock, and what an older client's
//! edit does to what newer ones have written meanwhile.

use std::{collections::BTreeSet, sync::Arc};

use whimbrel_shared::{
    change::{Cell, Change, Edit},
    hlc::{Clock, Stamp},
    manifest::{Keys, SyncConflict},
    resolve::{self, Arrival, Contested, Held, State, What, Writer},
    value::Value,
};

use super::{
    bench::{Bench, Filled, Ran},
    plan::{Hop, Plan},
};

/// Takes rows of one app up.
pub(crate) struct Lifter {
    plan: Arc<Plan>,
    bench: Bench,
}

/// Columns that a row does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsaid {
    /// The version that fills them.
    pub(crate) version: u32,
    /// Their ids; none where the whole step cannot be repeated.
    pub(crate) columns: BTreeSet<u32>,
    /// What SQLite said.
    pub(crate) why: String,
}

/// An older client's change, once it is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    /// Who wrote it.
    pub(crate) by: Writer,
    /// The version of its client.
    pub(crate) schema: u32,
    /// The number that it has.
    pub(crate) number: u64,
    /// The table's strategy.
    pub(crate) strategy: SyncConflict,
}

/// What an older client's change did beside itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Derived {
    /// Columns in which somebody else had said something of their own.
    pub(crate) contested: Vec<Contested>,
    /// Columns that stay as they are, because they could not be computed.
    pub(crate) unsaid: Vec<Unsaid>,
}

impl Lifter {
    pub(crate) fn new(plan: Arc<Plan>, bench: Bench) -> Self {
        Self { plan, bench }
    }

    /// Its databases, for the next one.
    pub(crate) fn into_bench(self) -> Bench {
        self.bench
    }

    /// Takes a row that is at `level` up to `to`. What is filled has clock, version and writer of the latest cell that it is
    /// computed from, so that it is nobody's edit. Answers what could not be.
    pub(crate) fn complete(&mut self, table: u32, key: &[Value], state: &mut State, level: u32, to: u32) -> Vec<Unsaid> {
        let mut unsaid = Vec::new();
        let What::Present(cells) = &mut state.what else { return unsaid };
        let nothing = (state.version, state.origin, Clock::ZERO);
        let plan = Arc::clone(&self.plan);
        for hop in plan.hops(table, level, to) {
            let ran = self.bench.run(hop, key, &|id| find(cells, id).map(|held| held.value.clone()));
            unsaid.extend(failure(hop, &ran));
            let computed = ran.filled.into_iter().filter(|(_, filled)| filled.computed);
            let fresh: Vec<Held> = computed.map(|(column, filled)| inherit(cells, column, filled, nothing)).collect();
            fresh.into_iter().for_each(|held| put(cells, held));
        }
        unsaid
    }

    /// Lets what an older client changed (`before` to `after`, which is decided already) go through the versions after its
    /// own, up to `to`. A column that was as the row said before follows it. One in which somebody else has said something
    /// of their own is an edit that the older client cannot have seen, and the table's strategy decides.
    pub(crate) fn follow(&mut self, table: u32, key: &[Value], before: Option<&State>, after: &mut State, pushed: Pushed, to: u32) -> Derived {
        let mut derived = Derived::default();
        let Some(before) = before.filter(|state| !state.is_deleted()) else {
            // Nobody has said anything of a row that is new.
            derived.unsaid = self.complete(table, key, after, pushed.schema, to);
            return derived;
        };
        let plan = Arc::clone(&self.plan);
        if plan.hops(table, pushed.schema, to).next().is_none() {
            return derived;
        }
        let mut changed: BTreeSet<u32> = differing(before.cells(), after.cells());
        for hop in plan.hops(table, pushed.schema, to) {
            if after.is_deleted() || !self.bench.reads(hop, &changed) {
                continue;
            }
            let now = self.bench.run(hop, key, &|id| find(after.cells(), id).map(|held| held.value.clone()));
            let then = self.bench.run(hop, key, &|id| find(before.cells(), id).map(|held| held.value.clone()));
            derived.unsaid.extend(failure(hop, &now));
            let mut contested = Vec::new();
            for (column, filled) in now.filled {
                let was = then.filled.get(&column).map(|f| &f.value);
                if was == Some(&filled.value) {
                    continue;
                }
                let held = find(after.cells(), column);
                if held.is_none() && !filled.computed {
                    continue;
                }
                let nothing = (pushed.number, pushed.by, Clock::ZERO);
                let mut fresh = inherit(after.cells(), column, filled, nothing);
                let follows = held.is_none_or(|h| was == Some(&h.value) || h.value == fresh.value || h.by == pushed.by);
                // A file knows which rows it wrote by number and writer, so these are the change's own; the clock is the source's.
                (fresh.version, fresh.by, fresh.stamp.client) = (pushed.number, pushed.by, pushed.by.client);
                match &mut after.what {
                    What::Present(cells) if follows => put(cells, fresh),
                    What::Present(_) => contested.push(Cell { column, value: fresh.value, base: 0, clock: fresh.stamp.clock }),
                    What::Deleted(..) => {}
                }
            }
            if !contested.is_empty() {
                derived.contested.extend(decide(table, key, contested, after, pushed));
            }
            changed.extend(differing(before.cells(), after.cells()));
        }
        derived
    }
}

/// Columns in question, decided as an edit that saw nothing of them.
fn decide(table: u32, key: &[Value], cells: Vec<Cell>, after: &mut State, pushed: Pushed) -> Vec<Contested> {
    let change = Change { table, key: key.to_vec(), edit: Edit::Present { seen: u64::MAX, cells } };
    let Pushed { by, number: version, strategy, .. } = pushed;
    let resolved = resolve::resolve(Some(after), Arrival { change: &change, by, version, whole: false, strategy, keys: Some(Keys::Global) });
    if let Some(state) = resolved.state {
        *after = state;
    }
    resolved.conflict.map_or_else(Vec::new, |conflict| conflict.columns)
}

fn failure(hop: &Hop, ran: &Ran) -> Option<Unsaid> {
    let (columns, why) = ran.failed.clone()?;
    Some(Unsaid { version: hop.version, columns, why })
}

/// A cell with clock, version and writer of the latest that it is computed from; else of the latest of the row.
fn inherit(cells: &[Held], column: u32, filled: Filled, nothing: (u64, Writer, Clock)) -> Held {
    let of = |held: &&Held| filled.sources.contains(&held.column);
    let from: Vec<&Held> = cells.iter().filter(of).collect();
    let from = if from.is_empty() { cells.iter().collect() } else { from };
    let latest = from.iter().max_by_key(|held| (held.stamp, held.version));
    let (_, by, clock) = latest.map_or(nothing, |held| (held.version, held.by, held.stamp.clock));
    let version = from.iter().map(|held| held.version).max().unwrap_or(nothing.0);
    Held { column, value: filled.value, version, by, stamp: Stamp { clock, client: by.client } }
}

fn differing(one: &[Held], other: &[Held]) -> BTreeSet<u32> {
    let lacks = |all: &[Held], held: &Held| find(all, held.column).is_none_or(|there| there.value != held.value);
    one.iter().filter(|held| lacks(other, held)).chain(other.iter().filter(|held| lacks(one, held))).map(|held| held.column).collect()
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

#[cfg(test)]
mod tests {
    use whimbrel_shared::ids::ClientId;

    use super::*;
    use crate::lift::bench::tests::{fill, hop};

    /// Version 2 fills `slug` (3) from `title` (2), version 3 `short` (5) from `slug`; `body` (4) is nobody's source.
    fn lifter() -> Lifter {
        let slug =
            fill("n(id, title, slug, body)", "slug = lower(title)", "slug IS NULL", &[("id", 1, 1), ("title", 2, 2), ("slug", 0, 3), ("body", 4, 4)]);
        let short = fill(
            "n(id, title, slug, body, short)",
            "short = substr(slug, 1, 2)",
            "short IS NULL",
            &[("id", 1, 1), ("title", 2, 2), ("slug", 3, 3), ("body", 4, 4), ("short", 0, 5)],
        );
        Lifter::new(Arc::new(Plan::of_hops([hop(2, vec![slug]), hop(3, vec![short])])), Bench::default())
    }

    fn writer(n: u128) -> Writer {
        Writer { client: ClientId::from_dice(n), epoch: 1 }
    }

    fn held(column: u32, text: &str, number: u64, ms: i64, by: u128) -> Held {
        let stamp = Stamp { clock: Clock::at_ms(ms), client: ClientId::from_dice(by) };
        Held { column, value: Value::text(text), version: number, by: writer(by), stamp }
    }

    fn row(cells: &[Held]) -> State {
        let version = cells.iter().map(|h| h.version).max().unwrap();
        State { version, origin: writer(1), what: What::Present(cells.to_vec()) }
    }

    /// `column=value@ms#number` of each cell.
    fn said(state: &State) -> String {
        let cell = |h: &Held| format!("{}={:?}@{}#{}", h.column, h.value, h.stamp.clock.wall_ms(), h.version).replace('"', "");
        state.cells().iter().map(cell).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_row_is_taken_up_version_by_version_with_the_clock_of_what_it_is_computed_from() {
        let mut state = row(&[held(2, "AbC", 7, 100, 1), held(4, "x", 9, 900, 2)]);
        assert_eq!(lifter().complete(1, &[Value::Integer(1)], &mut state, 1, 2), []);
        assert_eq!(said(&state), "2=AbC@100#7 3=abc@100#7 4=x@900#9");
        lifter().complete(1, &[Value::Integer(1)], &mut state, 2, 3);
        assert_eq!(said(&state), "2=AbC@100#7 3=abc@100#7 4=x@900#9 5=ab@100#7");
        // At its level nothing is computed again, whatever it was computed from.
        let mut state = row(&[held(2, "New", 7, 100, 1), held(3, "mine", 7, 100, 1)]);
        lifter().complete(1, &[Value::Integer(1)], &mut state, 2, 2);
        assert_eq!(said(&state), "2=New@100#7 3=mine@100#7");
    }

    fn follow(before: &[Held], edit: Held, strategy: SyncConflict) -> (String, Derived) {
        let before = row(before);
        let mut after = before.clone();
        let pushed = Pushed { by: edit.by, schema: 1, number: edit.version, strategy };
        let What::Present(cells) = &mut after.what else { unreachable!() };
        put(cells, edit);
        let derived = lifter().follow(1, &[Value::Integer(1)], Some(&before), &mut after, pushed, 3);
        (said(&after), derived)
    }

    #[test]
    fn what_was_as_the_row_said_follows_an_older_clients_edit_and_what_it_does_not_touch_stays() {
        let before = [held(2, "Abc", 1, 100, 1), held(3, "abc", 1, 100, 1), held(4, "x", 1, 100, 1), held(5, "ab", 1, 100, 1)];
        let (after, derived) = follow(&before, held(2, "Xyz", 8, 500, 2), SyncConflict::ServerWins);
        assert_eq!((after.as_str(), derived), ("2=Xyz@500#8 3=xyz@500#8 4=x@100#1 5=xy@500#8", Derived::default()));
        let (after, _) = follow(&before, held(4, "y", 8, 500, 2), SyncConflict::Merge);
        assert_eq!(after, "2=Abc@100#1 3=abc@100#1 4=y@500#8 5=ab@100#1");
        // The same value from another: what follows from it is what it was.
        let (after, _) = follow(&before, held(2, "ABC", 8, 500, 2), SyncConflict::Merge);
        assert_eq!(after, "2=ABC@500#8 3=abc@100#1 4=x@100#1 5=ab@100#1");
    }

    #[test]
    fn what_somebody_said_otherwise_meets_an_older_clients_edit_as_the_strategy_says() {
        let before = [held(2, "Abc", 1, 100, 1), held(3, "mine", 6, 300, 3), held(5, "mi", 6, 300, 3)];
        let check = |ms: i64, strategy: SyncConflict, expected: &str, taken: bool| {
            let (after, derived) = follow(&before, held(2, "Xyz", 8, ms, 2), strategy);
            assert_eq!(after, expected, "{strategy:?}");
            let column = &derived.contested[0];
            assert_eq!(
                (column.column, &column.arrived, &column.there, column.taken),
                (3, &Some(Value::text("xyz")), &Some(Value::text("mine")), taken)
            );
        };
        check(500, SyncConflict::KeepNewest, "2=Xyz@500#8 3=xyz@500#8 5=xy@500#8", true);
        check(200, SyncConflict::Merge, "2=Xyz@200#8 3=mine@300#6 5=mi@300#6", false);
        check(200, SyncConflict::KeepOldest, "2=Xyz@200#8 3=xyz@200#8 5=xy@200#8", true);
        check(500, SyncConflict::ServerWins, "2=Xyz@500#8 3=mine@300#6 5=mi@300#6", false);
        check(200, SyncConflict::ClientWins, "2=Xyz@200#8 3=xyz@200#8 5=xy@200#8", true);
    }
}
