//! An independent judge of [`super::resolve`]: random histories of a few databases that edit one row, with answers that get
//! lost. The judge knows no versions and no bases. It gives every write an id, knows of each client which writes it had
//! before its eyes, and says who should stand; the decider has to come to the same, and all databases to the same row.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{change::Cell, hlc::Clock};

const COLUMNS: [u32; 3] = [1, 2, 3];

#[derive(Clone, Debug)]
enum Step {
    Write {
        who: usize,
        column: u32,
        value: i64,
        wall_ms: i64,
    },
    Delete {
        who: usize,
        wall_ms: i64,
    },
    Push {
        who: usize,
        answer_lost: bool,
    },
    Pull {
        who: usize,
    },
    /// What was sent last is not known any more: a migration came between, or the file was restored.
    Forget {
        who: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0usize..4;
    let step = prop_oneof![
        6 => (who.clone(), 1u32..4, 0i64..4, 0i64..60).prop_map(|(who, column, value, wall_ms)| Step::Write { who, column, value, wall_ms }),
        1 => (who.clone(), 0i64..60).prop_map(|(who, wall_ms)| Step::Delete { who, wall_ms }),
        4 => (who.clone(), prop::bool::weighted(0.2)).prop_map(|(who, answer_lost)| Step::Push { who, answer_lost }),
        3 => who.clone().prop_map(|who| Step::Pull { who }),
        1 => who.prop_map(|who| Step::Forget { who }),
    ];
    prop::collection::vec(step, 1..60)
}

fn strategies() -> impl Strategy<Value = SyncConflict> {
    use SyncConflict::*;
    prop::sample::select(vec![KeepNewest, KeepOldest, Merge, ServerWins, ClientWins])
}

/// A write as the judge knows it. The last digit of its id is its column, 0 for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fact {
    id: u64,
    value: i64,
    stamp: Stamp,
    by: usize,
}

/// The row as the judge has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Truth {
    #[default]
    Never,
    Alive(usize, BTreeMap<u32, Fact>),
    Dead(usize, Fact),
}

/// One database: what a daemon keeps beside its row, and what the judge knows that it has seen.
#[derive(Default)]
struct Client {
    row: Option<BTreeMap<u32, i64>>,
    seen: u64,
    newest: Clock,
    /// Touched and not acknowledged: base and clock of a column, and the write that was before its eyes.
    dirty: BTreeMap<u32, (u64, Clock, Option<u64>)>,
    /// The same of a deletion: its base, its clock, the writes before its eyes.
    deleted: Option<(u64, Clock, Vec<u64>)>,
    knows: BTreeMap<u32, u64>,
    knows_dead: Option<u64>,
    /// What was sent and not answered: it is sent again as it was.
    unanswered: Option<Answered>,
}

/// A change with its answer, and what was so when it was given.
#[derive(Clone)]
struct Answered {
    change: Change,
    outcome: Outcome,
    server: Option<State>,
    truth: Truth,
}

struct World {
    strategy: SyncConflict,
    global: bool,
    clients: Vec<Client>,
    server: Option<State>,
    truth: Truth,
    version: u64,
}

fn writer(who: usize) -> Writer {
    Writer { client: ClientId::from_dice(who as u128), epoch: 1 }
}

impl World {
    fn new(strategy: SyncConflict, global: bool) -> Self {
        let clients = (0..4).map(|_| Client::default()).collect();
        Self { strategy, global, clients, server: None, truth: Truth::Never, version: 0 }
    }

    fn write(&mut self, who: usize, column: u32, value: i64, wall_ms: i64) {
        let client = &mut self.clients[who];
        client.newest = client.newest.next(wall_ms);
        let (seen, clock) = (client.seen, client.newest);
        // A row that is made has all its columns, as an INSERT has.
        let made = client.row.is_none();
        let row = client.row.get_or_insert_with(|| COLUMNS.iter().map(|c| (*c, 0)).collect());
        row.insert(column, value);
        if made {
            // Deleted and made again before that was sent: the edit of a row as it was before the eyes then.
            let undone = client.deleted.take();
            for at in COLUMNS {
                let (base, knew) = match &undone {
                    Some((base, _, sight)) => (*base, sight.iter().copied().find(|id| id % 10 == u64::from(at) || id % 10 == 0)),
                    None => (seen, client.knows_dead),
                };
                client.dirty.insert(at, (base, clock, knew));
            }
        }
        let knew = client.knows.get(&column).copied();
        client.dirty.entry(column).or_insert((seen, clock, knew)).1 = clock;
    }

    fn delete(&mut self, who: usize, wall_ms: i64) {
        let client = &mut self.clients[who];
        if client.row.take().is_some() {
            client.newest = client.newest.next(wall_ms);
            let base = client.dirty.values().map(|(base, ..)| *base).fold(client.seen, u64::min);
            // What was before its eyes when each column was first touched.
            let sight = COLUMNS.iter().filter_map(|c| match client.dirty.get(c) {
                Some((_, _, knew)) => *knew,
                None => client.knows.get(c).copied(),
            });
            // One base for the whole row is the oldest: what came after it counts as not seen.
            let sight = if base == client.seen { sight.collect() } else { self.sight_at(base, who) };
            let client = &mut self.clients[who];
            client.deleted = Some((base, client.newest, sight));
            client.dirty.clear();
        }
    }

    /// The writes that stand now and were there at a version.
    fn sight_at(&self, version: u64, _: usize) -> Vec<u64> {
        let held = self.server.iter().flat_map(|s| s.cells());
        let old: Vec<u32> = held.filter(|h| h.version <= version).map(|h| h.column).collect();
        match &self.truth {
            Truth::Alive(_, cells) => cells.iter().filter(|(c, _)| old.contains(c)).map(|(_, f)| f.id).collect(),
            Truth::Never | Truth::Dead(..) => Vec::new(),
        }
    }

    fn change(&self, who: usize) -> Option<Change> {
        let client = &self.clients[who];
        let edit = match (&client.row, &client.deleted) {
            (Some(row), _) if !client.dirty.is_empty() => {
                let cell = |(column, (base, clock, _)): (&u32, &(u64, Clock, Option<u64>))| Cell {
                    column: *column,
                    value: Value::Integer(row[column]),
                    base: *base,
                    clock: *clock,
                };
                Edit::Present { seen: client.seen, cells: client.dirty.iter().map(cell).collect() }
            }
            (None, Some((base, clock, _))) => Edit::Deleted { base: *base, clock: *clock },
            _ => return None,
        };
        Some(Change { table: 1, key: vec![Value::Integer(7)], edit })
    }

    fn push(&mut self, who: usize, answer_lost: bool) {
        if let Some(before) = self.clients[who].unanswered.clone() {
            // The server has the answer still.
            if answer_lost {
                return;
            }
            self.answered(who, before);
        }
        let Some(change) = self.change(who) else { return };
        self.version += 1;
        let whole = matches!(&change.edit, Edit::Present { cells, .. } if cells.len() == COLUMNS.len());
        let keys = self.global.then_some(Keys::Global);
        let arrival = Arrival { change: &change, by: writer(who), version: self.version, whole, strategy: self.strategy, keys };
        let resolved = resolve(self.server.as_ref(), arrival);
        let expected = self.judge(who, &change, whole);
        if let Some(state) = resolved.state {
            assert_eq!(state.version, self.version);
            self.server = Some(state);
        }
        if let Some(expected) = expected {
            self.truth = expected;
        }
        self.same(&change);
        let answered = Answered { change, outcome: resolved.outcome, server: self.server.clone(), truth: self.truth.clone() };
        if answer_lost {
            self.clients[who].unanswered = Some(answered);
        } else {
            self.answered(who, answered);
        }
    }

    /// What the row should be; none where it should stay.
    fn judge(&self, who: usize, change: &Change, whole: bool) -> Option<Truth> {
        let client = &self.clients[who];
        let id = self.version * 10;
        let wins = |mine: Stamp, there: Stamp| match self.strategy {
            SyncConflict::KeepNewest | SyncConflict::Merge => mine > there,
            SyncConflict::KeepOldest => mine < there,
            SyncConflict::ServerWins => false,
            SyncConflict::ClientWins => true,
        };
        let stamp = |clock| Stamp { clock, client: writer(who).client };
        match (&change.edit, &self.truth) {
            (Edit::Present { cells, .. }, truth) => {
                let fact = |at: &Cell| {
                    let Value::Integer(value) = at.value else { unreachable!() };
                    Fact { id: id + u64::from(at.column), value, stamp: stamp(at.clock), by: who }
                };
                let mine: BTreeMap<u32, Fact> = cells.iter().map(|c| (c.column, fact(c))).collect();
                let knew = |column: &u32| client.dirty[column].2;
                match truth {
                    Truth::Never => whole.then_some(Truth::Alive(who, mine)),
                    Truth::Dead(origin, death) => {
                        let another = client.seen == 0 && whole && *origin != who;
                        let unseen = !another && client.dirty.values().any(|d| d.2 != Some(death.id));
                        let latest = mine.values().map(|f| f.stamp).max().unwrap();
                        let stays = death.by != who && unseen && !wins(latest, death.stamp);
                        (!stays && whole).then_some(Truth::Alive(who, mine))
                    }
                    Truth::Alive(origin, there) => {
                        if client.seen == 0 && *origin != who && !self.global {
                            return None;
                        }
                        let rivals: Vec<u32> =
                            mine.keys().copied().filter(|c| there.get(c).is_some_and(|f| Some(f.id) != knew(c) && f.by != who)).collect();
                        let differ: Vec<u32> = rivals.iter().copied().filter(|c| there[c].value != mine[c].value).collect();
                        let best = |side: &BTreeMap<u32, Fact>| differ.iter().map(|c| side[c].stamp).max();
                        let mut after = there.clone();
                        for (column, fact) in mine.clone() {
                            let alone = self.strategy == SyncConflict::Merge || !differ.contains(&column);
                            let (a, b) = if alone {
                                (fact.stamp, there.get(&column).map_or(fact.stamp, |f| f.stamp))
                            } else {
                                (best(&mine).unwrap(), best(there).unwrap())
                            };
                            // Sent again without an answer it is the write that it was.
                            let same = there.get(&column).is_some_and(|f| (f.by, f.stamp, f.value) == (who, fact.stamp, fact.value));
                            if !same && (!rivals.contains(&column) || wins(a, b)) {
                                after.insert(column, fact);
                            }
                        }
                        Some(Truth::Alive(*origin, after))
                    }
                }
            }
            (Edit::Deleted { base, clock }, Truth::Alive(origin, there)) => {
                if *base == 0 && *origin != who && !self.global {
                    return None;
                }
                let sight = &client.deleted.as_ref().unwrap().2;
                let unseen = there.values().filter(|f| f.by != who && !sight.contains(&f.id)).map(|f| f.stamp).max();
                let deletes = unseen.is_none_or(|latest| wins(stamp(*clock), latest));
                deletes.then(|| Truth::Dead(*origin, Fact { id, value: 0, stamp: stamp(*clock), by: who }))
            }
            (Edit::Deleted { clock, .. }, Truth::Dead(origin, death)) => {
                let kept = if wins(stamp(*clock), death.stamp) { stamp(*clock) } else { death.stamp };
                Some(Truth::Dead(*origin, Fact { id, value: 0, stamp: kept, by: who }))
            }
            (Edit::Deleted { .. }, Truth::Never) => None,
        }
    }

    /// The server has what the judge says.
    fn same(&self, change: &Change) {
        let found = match &self.server {
            None => Vec::new(),
            Some(state) => match &state.what {
                What::Present(cells) => cells.iter().map(|h| (h.column, format!("{:?}", h.value), h.stamp, h.by)).collect(),
                What::Deleted(by, stamp) => vec![(0, "deleted".to_owned(), *stamp, *by)],
            },
        };
        let expected: Vec<_> = match &self.truth {
            Truth::Never => Vec::new(),
            Truth::Alive(_, cells) => cells.iter().map(|(c, f)| (*c, f.value.to_string(), f.stamp, writer(f.by))).collect(),
            Truth::Dead(_, f) => vec![(0, "deleted".to_owned(), f.stamp, writer(f.by))],
        };
        assert_eq!(found, expected, "after {change:?} by {:?}", self.strategy);
    }

    fn answered(&mut self, who: usize, Answered { change, outcome, server, truth }: Answered) {
        let client = &mut self.clients[who];
        client.unanswered = None;
        let mut dirty = BTreeMap::new();
        match &change.edit {
            Edit::Present { cells, .. } => {
                for cell in cells {
                    // What was edited since has another clock, and stays unsent.
                    if let Some(sent) = client.dirty.get(&cell.column).filter(|now| now.1 == cell.clock) {
                        dirty.insert(cell.column, *sent);
                        client.dirty.remove(&cell.column);
                    }
                }
            }
            Edit::Deleted { clock, .. } => client.deleted = client.deleted.take().filter(|(_, now, _)| now != clock),
        }
        let learn = |client: &mut Client, columns: &[u32]| {
            if let Truth::Alive(_, cells) = &truth {
                // What stands of it: an equal value of another is another write.
                client.knows.extend(columns.iter().filter_map(|c| cells.get(c).filter(|f| f.by == who).map(|f| (*c, f.id))));
            }
        };
        match outcome {
            Outcome::Accepted { known } => {
                learn(client, &dirty.keys().copied().collect::<Vec<_>>());
                if known {
                    client.seen = server.as_ref().map_or(client.seen, |s| s.version);
                    client.knows_dead = match &truth {
                        Truth::Dead(_, f) => Some(f.id),
                        Truth::Never | Truth::Alive(..) => None,
                    };
                }
            }
            Outcome::Merged { stands: None } => {
                client.row = client.row.take().filter(|_| !client.dirty.is_empty());
                client.land(server.as_ref(), &truth);
            }
            // The next pull brings the row; a daemon lands what stands with the answer, and asks for the rest.
            Outcome::Merged { stands: Some(_) } => client.land(server.as_ref(), &truth),
            Outcome::KeyTaken => {
                // Somebody decided to give it up.
                client.row = None;
                client.dirty.clear();
                client.land(server.as_ref(), &truth);
            }
            Outcome::SendWhole { seen } => {
                client.seen = seen;
                let dead = match &truth {
                    Truth::Dead(_, f) => Some(f.id),
                    Truth::Never | Truth::Alive(..) => None,
                };
                client.knows.clear();
                if client.row.is_some() {
                    dirty.append(&mut client.dirty);
                    let clock = dirty.values().map(|d| d.1).max().unwrap();
                    client.dirty = COLUMNS.iter().map(|c| (*c, (seen, dirty.get(c).map_or(clock, |d| d.1), dead))).collect();
                }
            }
        }
    }

    fn pull(&mut self, who: usize) {
        if let Some(before) = self.clients[who].unanswered.clone() {
            self.answered(who, before);
        }
        let (server, truth) = (self.server.clone(), self.truth.clone());
        let client = &mut self.clients[who];
        if server.as_ref().is_some_and(|s| s.version > client.seen) {
            client.land(server.as_ref(), &truth);
        }
    }
}

impl Client {
    /// Lands the server's row: what is dirty stays, and keeps its base.
    fn land(&mut self, server: Option<&State>, truth: &Truth) {
        let Some(state) = server else { return };
        // What is not sent of a key that was never seen from the server goes up first: it may be another thing.
        let own = self.seen == 0 && (self.deleted.is_some() || !self.dirty.is_empty());
        if own {
            return;
        }
        for held in state.cells() {
            self.newest = self.newest.max(held.stamp.clock);
        }
        if let What::Deleted(_, stamp) = &state.what {
            self.newest = self.newest.max(stamp.clock);
        }
        self.seen = state.version;
        self.knows.clear();
        self.knows_dead = None;
        match truth {
            Truth::Alive(_, cells) => {
                self.knows.extend(cells.iter().map(|(c, f)| (*c, f.id)));
                if self.deleted.is_none() {
                    let row = self.row.get_or_insert_with(BTreeMap::new);
                    for (column, fact) in cells {
                        if !self.dirty.contains_key(column) {
                            row.insert(*column, fact.value);
                        }
                    }
                }
            }
            Truth::Dead(_, fact) => {
                self.knows_dead = Some(fact.id);
                if self.dirty.is_empty() {
                    self.row = None;
                    self.deleted = None;
                }
            }
            Truth::Never => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_comes_out_as_the_judge_says_and_all_databases_end_with_the_same_row(
        strategy in strategies(),
        global in any::<bool>(),
        steps in steps(),
    ) {
        let mut world = World::new(strategy, global);
        for step in steps {
            match step {
                Step::Write { who, column, value, wall_ms } => world.write(who, column, value, wall_ms),
                Step::Delete { who, wall_ms } => world.delete(who, wall_ms),
                Step::Push { who, answer_lost } => world.push(who, answer_lost),
                Step::Pull { who } => world.pull(who),
                Step::Forget { who } => world.clients[who].unanswered = None,
            }
        }
        // Two rounds bring everything up (a row may have to be sent whole), a third brings it down.
        for _ in 0..3 {
            for who in 0..4 {
                world.push(who, false);
                world.push(who, false);
                world.pull(who);
            }
        }
        let server = world.server.as_ref().filter(|s| !s.is_deleted()).map(|s| {
            s.cells().iter().map(|h| (h.column, format!("{:?}", h.value))).collect::<Vec<_>>()
        });
        for client in &world.clients {
            let row = client.row.as_ref().map(|r| r.iter().map(|(c, v)| (*c, v.to_string())).collect::<Vec<_>>());
            prop_assert_eq!(&row, &server);
            prop_assert!(client.dirty.is_empty() && client.deleted.is_none());
        }
    }

    /// Without deletions and answers lost or not, `merge` ends with the latest write of each column, whoever pushed when.
    #[test]
    fn merge_ends_with_the_latest_write_of_each_column(steps in steps()) {
        let mut world = World::new(SyncConflict::Merge, true);
        world.write(0, 1, 0, 0);
        world.push(0, false);
        (1..4).for_each(|who| world.pull(who));
        let mut latest: BTreeMap<u32, (Stamp, i64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write { who, column, value, wall_ms } => {
                    world.write(who, column, value, wall_ms);
                    let stamp = Stamp { clock: world.clients[who].newest, client: writer(who).client };
                    let entry = latest.entry(column).or_insert((stamp, value));
                    *entry = (*entry).max((stamp, value));
                }
                Step::Push { who, answer_lost } => world.push(who, answer_lost),
                Step::Pull { who } => world.pull(who),
                Step::Forget { who } => world.clients[who].unanswered = None,
                Step::Delete { .. } => {}
            }
        }
        for who in 0..4 {
            world.push(who, false);
        }
        for held in world.server.as_ref().unwrap().cells() {
            let expected = latest.get(&held.column).map_or(0, |(_, value)| *value);
            prop_assert_eq!(&held.value, &Value::Integer(expected), "column {}", held.column);
        }
    }
}
