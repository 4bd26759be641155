//! The least that a database has to keep so as to exchange rows: its rows, what of them it changed and has no answer for,
//! what it has seen, and rows that cannot land yet.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::{
    change::{Cell, Change, Edit, Row},
    hlc::Clock,
    ids::PushId,
    packed,
    protocol::{
        pull::PullHead,
        push::{Answer, Answered, PushHead, PushRequest, PushResponse, Series},
    },
    sums::TableSums,
    value::Value,
};

use crate::support::{Stage, client_id};

/// A row's own migration to a version: new values, and for each which column's edit it is.
type Migrate = fn(u32, &mut BTreeMap<u32, Value>) -> &'static [(u32, u32)];

/// What a database's tables are like.
#[derive(Debug)]
pub(crate) struct Shape {
    /// How many there are, from 1.
    pub(crate) tables: u32,
    /// The columns beside the key, at a version.
    pub(crate) columns: fn(u32) -> &'static [u32],
    /// Up to which of them one key is one thing.
    pub(crate) global: u32,
    /// What a column has that nobody has written.
    pub(crate) empty: fn() -> Value,
    pub(crate) migrate: Migrate,
}

type Id = (u32, i64);
/// Values that lost: table, column, value.
pub(crate) type Lost = BTreeSet<(u32, u32, Value)>;

/// What goes wrong with a request.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    None,
    Doubled,
    Cut,
    AnswerLost,
}

/// Whether there was anything to send.
pub(crate) enum Sent {
    Nothing,
    Some(Lost),
}

#[derive(Debug, Default)]
struct Local {
    values: Option<BTreeMap<u32, Value>>,
    seen: u64,
    /// Base and clock of what was touched.
    dirty: BTreeMap<u32, (u64, Clock)>,
    deleted: Option<(u64, Clock)>,
}

impl Local {
    /// Clears what is still as it was sent; what was touched since stays.
    fn clear(&mut self, answered: &Answered<'_>) {
        for (column, hash) in &answered.sent() {
            if self.values.as_ref().and_then(|v| v.get(column)).is_some_and(|v| v.hash() == *hash) {
                self.dirty.remove(column);
            }
        }
        if matches!(&answered.change.edit, Edit::Deleted { clock, .. } if self.deleted.is_some_and(|d| d.1 == *clock)) {
            self.deleted = None;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) n: u8,
    pub(crate) newest: Clock,
    pub(crate) token: String,
    pub(crate) schema: u32,
    shape: &'static Shape,
    rows: BTreeMap<Id, Local>,
    /// Rows of the server under keys that were made here and never seen from there: which of the two it is, a push says.
    waiting: BTreeMap<Id, Row>,
    /// Sent, and not answered.
    unanswered: Option<PushRequest>,
    series: Option<Series>,
    pub(crate) cursor: u64,
    acked: u64,
    order: u64,
    renumbered: i64,
    /// Whether the next pull tells what this database wrote itself, too.
    tell_again: bool,
    /// From which version it came and has not asked what is new to it, and how far it had pulled then.
    walk: Option<(u32, u64)>,
    /// What it sent last.
    pub(crate) sent: Option<PushRequest>,
}

impl Database {
    pub(crate) fn new(n: u8, token: String, shape: &'static Shape) -> Self {
        let rows = BTreeMap::new();
        let newest = Clock::ZERO;
        Self {
            n,
            newest,
            token,
            schema: 1,
            shape,
            rows,
            waiting: BTreeMap::new(),
            unanswered: None,
            series: None,
            cursor: 0,
            acked: 0,
            order: 0,
            renumbered: 0,
            tell_again: false,
            walk: None,
            sent: None,
        }
    }

    fn columns(&self) -> &'static [u32] {
        (self.shape.columns)(self.schema)
    }

    /// Runs its own migration to the next version: what is computed from an unsent edit is an unsent edit.
    pub(crate) fn migrate(&mut self) {
        let from = self.schema;
        self.schema += 1;
        self.walk = self.walk.or((self.cursor > 0).then_some((from, self.cursor)));
        self.unanswered = None;
        let columns = self.columns();
        for row in self.rows.values_mut() {
            let Some(values) = &mut row.values else { continue };
            let derived = (self.shape.migrate)(self.schema, values);
            let dirty: Vec<_> = derived.iter().filter_map(|(source, column)| Some((*column, *row.dirty.get(source)?))).collect();
            row.dirty.extend(dirty);
            row.dirty.retain(|column, _| columns.contains(column));
            values.retain(|column, _| columns.contains(column));
        }
    }

    /// Whether it has seen that row.
    pub(crate) fn has_seen(&self, table: u32, key: i64) -> bool {
        self.rows.get(&(table, key)).is_some_and(|row| row.seen > 0)
    }

    /// Writes one column, and makes the row if it is not there. Answers what was written: column, time, the column asked for.
    pub(crate) fn write(&mut self, table: u32, key: i64, column: u32, value: Value, wall_ms: i64) -> Vec<(u32, Clock, u32)> {
        let (columns, empty) = (self.columns(), self.shape.empty);
        self.newest = self.newest.next(wall_ms);
        let clock = self.newest;
        let row = self.rows.entry((table, key)).or_default();
        let made = row.values.is_none();
        if made {
            let base = row.deleted.take().map_or(row.seen, |(base, _)| base);
            row.values = Some(columns.iter().map(|c| (*c, empty())).collect());
            row.dirty = columns.iter().map(|c| (*c, (base, clock))).collect();
        }
        row.values.as_mut().unwrap().insert(column, value);
        row.dirty.entry(column).or_insert((row.seen, clock)).1 = clock;
        columns.iter().filter(|c| made || **c == column).map(|c| (*c, clock, column)).collect()
    }

    pub(crate) fn delete(&mut self, table: u32, key: i64, wall_ms: i64) {
        let Some(row) = self.rows.get_mut(&(table, key)).filter(|r| r.values.is_some()) else { return };
        self.newest = self.newest.next(wall_ms);
        let base = row.dirty.values().map(|(base, _)| *base).fold(row.seen, u64::min);
        row.values = None;
        row.dirty.clear();
        row.deleted = Some((base, self.newest));
    }

    /// Sends some of what is not sent, or again what was not answered.
    pub(crate) async fn push(&mut self, stage: &Stage, dice: &mut fastrand::Rng, fault: Fault) -> Lost {
        let again = self.unanswered.take().filter(|_| dice.bool());
        let some = dice.usize(1..6);
        let Some(request) = again.or_else(|| self.request(dice, some)) else { return Lost::new() };
        let body = packed::pack_changes(&request.head, &request.changes);
        self.sent = Some(request.clone());
        match fault {
            Fault::Cut => {
                let cut = dice.usize(..body.len());
                self.send(stage, &body[..cut]).await.problem(400, "bad-body");
            }
            Fault::Doubled => assert_eq!(self.send(stage, &body).await.status, 200),
            Fault::None | Fault::AnswerLost => {}
        }
        let reply = self.send(stage, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        if matches!(fault, Fault::AnswerLost) {
            self.unanswered = Some(request);
            return Lost::new();
        }
        let answer = serde_json::from_slice(&reply.body).unwrap();
        self.settle(&request, &answer)
    }

    /// Sends everything.
    pub(crate) async fn push_all(&mut self, stage: &Stage, dice: &mut fastrand::Rng) -> Sent {
        let again = self.unanswered.take();
        let Some(request) = again.or_else(|| self.request(dice, usize::MAX)) else { return Sent::Nothing };
        self.sent = Some(request.clone());
        let reply = self.send(stage, &packed::pack_changes(&request.head, &request.changes)).await;
        let answer = serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
        Sent::Some(self.settle(&request, &answer))
    }

    async fn send(&self, stage: &Stage, body: &[u8]) -> crate::support::Reply {
        let headers = format!("Authorization: Bearer {}\r\nContent-Type: {}\r\n", self.token, packed::CONTENT_TYPE);
        stage.ask("POST", "/api/sync/push", &headers, body).await
    }

    fn request(&mut self, dice: &mut fastrand::Rng, most: usize) -> Option<PushRequest> {
        let mut ids: Vec<Id> = self.rows.iter().filter(|(_, r)| !r.dirty.is_empty() || r.deleted.is_some()).map(|(id, _)| *id).collect();
        dice.shuffle(&mut ids);
        ids.truncate(most);
        let change = |id: &Id| {
            let row = &self.rows[id];
            let edit = match (&row.values, row.deleted) {
                (Some(values), _) => {
                    let cell = |(column, (base, clock)): (&u32, &(u64, Clock))| Cell {
                        column: *column,
                        value: values.get(column).cloned().unwrap_or(Value::Null),
                        base: *base,
                        clock: *clock,
                    };
                    Edit::Present { seen: row.seen, cells: row.dirty.iter().map(cell).collect() }
                }
                (None, Some((base, clock))) => Edit::Deleted { base, clock },
                (None, None) => unreachable!("a row that is not there has nothing to send"),
            };
            Change { table: id.0, key: vec![Value::Integer(id.1)], edit }
        };
        let changes: Vec<Change> = ids.iter().map(change).collect();
        if changes.is_empty() {
            return None;
        }
        self.order += 1;
        let head = PushHead {
            push_id: PushId::from_dice(dice.u128(..)),
            client_id: client_id(self.n).parse().unwrap(),
            epoch: 1,
            order: self.order,
            schema: self.schema,
            series: self.series,
            reached: None,
        };
        Some(PushRequest { head, changes })
    }

    fn settle(&mut self, request: &PushRequest, answer: &PushResponse) -> Lost {
        self.series = Some(answer.series);
        self.newest = self.newest.max(answer.newest);
        let mut lost = Lost::new();
        let columns = self.columns();
        for answered in answer.of(request).unwrap() {
            self.acked = self.acked.max(answered.version.unwrap_or(0));
            let Value::Integer(key) = answered.change.key[0] else { unreachable!() };
            let id = (answered.change.table, key);
            let row = self.rows.get_mut(&id).unwrap();
            // The answer was lost, and what came after the push is here already: what it says of the row is no more. Sent again.
            if row.seen.max(self.waiting.get(&id).map_or(0, |r| r.version)) >= answer.first {
                continue;
            }
            let value = |column: u32| match &answered.change.edit {
                Edit::Present { cells, .. } => cells.iter().find(|c| c.column == column).map(|c| c.value.clone()),
                Edit::Deleted { .. } => None,
            };
            match answered.answer {
                None => {
                    row.clear(&answered);
                    row.seen = answered.version.unwrap();
                    self.waiting.remove(&id);
                }
                Some(Answer::Behind) => {
                    row.clear(&answered);
                    self.land_waiting(id);
                }
                Some(Answer::Merged { version, stands }) => {
                    let sent_deletion = matches!(answered.change.edit, Edit::Deleted { .. });
                    // Not where the row was made again and deleted again meanwhile: that is another deletion, and is sent yet.
                    let was_deleted = row.deleted.is_some();
                    row.clear(&answered);
                    let undone = sent_deletion && was_deleted && row.deleted.is_none();
                    match stands {
                        None => {
                            lost.extend(answered.sent().iter().filter_map(|(c, _)| Some((id.0, *c, value(*c)?))));
                            if row.dirty.is_empty() {
                                row.values = None;
                            }
                        }
                        Some(stands) => {
                            lost.extend(stands.iter().filter_map(|(c, _)| Some((id.0, *c, value(*c)?))));
                            if undone || row.values.is_some() {
                                let values = row.values.get_or_insert_with(BTreeMap::new);
                                for (column, value) in stands {
                                    assert!(columns.contains(column), "{column} is not of version {}", request.head.schema);
                                    if !row.dirty.contains_key(column) {
                                        values.insert(*column, value.clone());
                                    }
                                }
                            }
                        }
                    }
                    if let Some(version) = version {
                        row.seen = *version;
                        self.waiting.remove(&id);
                    }
                    self.land_waiting(id);
                }
                Some(Answer::SendWhole { seen }) => {
                    row.seen = *seen;
                    if row.values.is_some() {
                        let clock = answered.change.clock();
                        row.dirty = columns.iter().map(|c| (*c, (*seen, row.dirty.get(c).map_or(clock, |d| d.1)))).collect();
                    }
                }
                Some(Answer::KeyTaken) => {
                    // Another thing has the key: this one gets a free one.
                    self.renumbered += 1;
                    let free = 1000 * i64::from(self.n) + self.renumbered;
                    let mut moved = std::mem::take(row);
                    moved.dirty.values_mut().for_each(|d| d.0 = 0);
                    if moved.values.is_some() {
                        self.rows.insert((id.0, free), moved);
                    }
                    self.land_waiting(id);
                }
                Some(other) => panic!("{other:?} of {:?}", answered.change),
            }
        }
        lost
    }

    /// Asks for pages until there are no more.
    pub(crate) async fn pull(&mut self, stage: &Stage, fault: Fault) {
        self.walk(stage).await;
        loop {
            // A row that waits may have an own answer on top: then everything is told again.
            let acked = if self.waiting.is_empty() && !self.tell_again { self.acked } else { 0 };
            let series = self.series.map_or_else(String::new, |s| format!("&series={s}"));
            let path =
                format!("/api/sync/pull?client_id={}&epoch=1&schema={}&cursor={}&acked={acked}{series}", client_id(self.n), self.schema, self.cursor);
            let headers = format!("Authorization: Bearer {}\r\nAccept: {}\r\n", self.token, packed::CONTENT_TYPE);
            let reply = stage.ask("GET", &path, &headers, b"").await;
            if matches!(fault, Fault::AnswerLost) {
                return;
            }
            let (head, rows) = packed::unpack_rows::<PullHead>(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
            for row in rows {
                self.land(row);
            }
            (self.cursor, self.series) = (head.next, Some(head.series));
            if !head.more {
                self.tell_again = false;
                return;
            }
        }
    }

    /// Asks for what was not told to the version that it came from.
    async fn walk(&mut self, stage: &Stage) {
        let Some((since, until)) = self.walk.take() else { return };
        let (mut cursor, series) = (0, self.series.unwrap());
        loop {
            let path = format!(
                "/api/sync/pull?client_id={}&epoch=1&schema={}&cursor={cursor}&since_schema={since}&until={until}&series={series}",
                client_id(self.n),
                self.schema
            );
            let headers = format!("Authorization: Bearer {}\r\nAccept: {}\r\n", self.token, packed::CONTENT_TYPE);
            let reply = stage.ask("GET", &path, &headers, b"").await;
            let (head, rows) = packed::unpack_rows::<PullHead>(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
            for row in rows {
                let Value::Integer(key) = row.key[0] else { unreachable!() };
                self.newest = self.newest.max(row.clock);
                let Some(local) = self.rows.get_mut(&(row.table, key)) else { continue };
                let (Some(there), Some(values)) = (&mut local.values, row.values) else { continue };
                there.extend(values.into_iter().filter(|(column, _)| !local.dirty.contains_key(column)));
            }
            cursor = head.next;
            if !head.more {
                return;
            }
        }
    }

    fn land(&mut self, row: Row) {
        let Value::Integer(key) = row.key[0] else { unreachable!() };
        let id = (row.table, key);
        self.newest = self.newest.max(row.clock);
        let local = self.rows.entry(id).or_default();
        if row.version <= local.seen {
            return;
        }
        let unsent = local.deleted.is_some() || !local.dirty.is_empty();
        if local.seen == 0 && unsent && (id.0 > self.shape.global || local.deleted.is_some()) {
            self.waiting.insert(id, row);
            return;
        }
        local.seen = row.version;
        match row.values {
            None if !unsent => local.values = None,
            None => {}
            Some(values) if local.deleted.is_none() => {
                let there = local.values.get_or_insert_with(BTreeMap::new);
                for (column, value) in values {
                    if !local.dirty.contains_key(&column) {
                        there.insert(column, value);
                    }
                }
            }
            Some(_) => {}
        }
    }

    /// What was accepted of the row meanwhile lies on top of what waited: the next pull tells it all again.
    fn land_waiting(&mut self, id: Id) {
        if let Some(row) = self.waiting.remove(&id) {
            self.tell_again = true;
            self.land(row);
        }
    }

    pub(crate) fn sums(&self) -> Vec<TableSums> {
        let mut tables: Vec<TableSums> = (1..=self.shape.tables).map(|table| TableSums::new(table, self.columns())).collect();
        for ((table, key), local) in &self.rows {
            if let Some(values) = &local.values {
                tables[*table as usize - 1].add(&[Value::Integer(*key)], values.iter().map(|(c, v)| (*c, v)));
            }
        }
        tables
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.waiting.is_empty() && self.unanswered.is_none() && self.rows.values().all(|r| r.dirty.is_empty() && r.deleted.is_none())
    }

    /// The rows that are there, in short.
    pub(crate) fn rows(&self) -> BTreeMap<(u32, String), String> {
        let row = |(id, local): (&Id, &Local)| {
            let values = local.values.as_ref()?;
            let text: Vec<String> = values.iter().map(|(c, v)| format!("{c}={v:?}")).collect();
            Some(((id.0, id.1.to_string()), text.join(" ")))
        };
        self.rows.iter().filter_map(row).collect()
    }
}
