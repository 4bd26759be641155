//! A page of a space's rows, in SQLite.

use rusqlite::Transaction;
use whimbrel_shared::{
    change::{MAX_PAGE_BYTES, MAX_PAGE_CELLS, MAX_PAGE_ROWS, Row},
    hlc::Clock,
    protocol::{
        pull::{PullHead, PullRequest, PullResponse},
        push::Reached,
    },
    resolve::{State, What, Writer},
};

use super::{
    conflicts::UnsaidOf,
    lifting::Lifting,
    natural,
    record::{self, Record},
    spaces::{self, Bound, Schemas, WriterBook},
};
use crate::{
    decide::rows::ShownTable,
    store::{Refusal, StoreError},
};

/// Most rows that are looked at for one page: where little of a space is told, a page may be nearly empty, and is soon there.
const LOOKED_AT: usize = 5 * MAX_PAGE_ROWS;

/// What a pull comes to.
pub(super) enum Pulled {
    /// A page, and columns of rows in it that could not be computed.
    Page(Box<PullResponse>, Vec<UnsaidOf>),
    /// The database has no space yet.
    Unbound,
    /// It has seen numbers of this space that were never given; the highest.
    Rewound(i64, Reached),
}

pub(super) fn pull(
    tx: &Transaction<'_>,
    schemas: &Schemas,
    device: whimbrel_shared::ids::DeviceId,
    asked: &PullRequest,
    now_ms: i64,
) -> Result<Pulled, StoreError> {
    let Some(bound) = spaces::bound(tx, device, asked.client_id)? else { return Ok(Pulled::Unbound) };
    // What it wrote itself it has an answer for, and need not have been told.
    let counts = if asked.series.is_none_or(|s| s == bound.series) { asked.cursor.max(asked.acked) } else { 0 };
    if let Some(reached) = spaces::never_given(&bound, asked.reached, counts)? {
        return Ok(Pulled::Rewound(bound.space, reached));
    }
    let snapshot = |why: String| Err(Refusal::SnapshotNeeded(why).into());
    if asked.series.is_some_and(|s| s != bound.series) || (asked.series.is_none() && asked.cursor > 0) {
        return snapshot("the cursor counts in another series".to_owned());
    }
    let walk = asked.since_schema.is_some();
    if !walk && asked.cursor > 0 && asked.cursor < bound.horizon {
        return snapshot(format!("the cursor is {}, and deletions up to {} are forgotten", asked.cursor, bound.horizon));
    }
    let (latest, own) = schemas.at(tx, &bound.app, asked.schema)?;
    let since = asked.since_schema.map(|since| schemas.at(tx, &bound.app, since)).transpose()?.map(|(_, since)| since);
    let shown = own.shown(since.as_deref(), &latest);
    let page = Page {
        asked,
        me: Writer { client: asked.client_id, epoch: asked.epoch },
        walk,
        head: PullHead {
            series: bound.series,
            now_ms,
            next: asked.cursor,
            more: false,
            echoes: 0,
            withheld: shown.withheld.clone(),
            horizon: bound.horizon,
        },
        rows: Vec::new(),
        bytes: 0,
        cells: 0,
        lifting: schemas.lifting(tx, &bound.app)?,
        unsaid: Vec::new(),
    };
    page.fill(tx, &bound, &shown.tables)
}

struct Page<'a> {
    asked: &'a PullRequest,
    me: Writer,
    walk: bool,
    head: PullHead,
    rows: Vec<Row>,
    bytes: usize,
    cells: usize,
    lifting: Lifting,
    unsaid: Vec<UnsaidOf>,
}

impl Page<'_> {
    fn fill(mut self, tx: &Transaction<'_>, bound: &Bound, tables: &std::collections::BTreeMap<u32, ShownTable>) -> Result<Pulled, StoreError> {
        let mut writers = WriterBook::new(tx);
        let end = self.asked.until.unwrap_or(bound.seq).min(bound.seq);
        let mut query = tx.prepare_cached(
            "SELECT version, table_id, record, key FROM synced_row WHERE space_id = ?1 AND version > ?2 AND version <= ?3 ORDER BY version",
        )?;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut found = query.query((bound.space, number(self.asked.cursor), number(end)))?;
        let mut looked_at = 0;
        while let Some(row) = found.next()? {
            let version = natural(row, 0)?;
            if self.rows.len() == MAX_PAGE_ROWS || looked_at == LOOKED_AT {
                self.head.more = true;
                break;
            }
            looked_at += 1;
            let table: u32 = row.get(1)?;
            if let Some(shown) = tables.get(&table) {
                let bytes = row.get_ref(2)?.as_blob().map_err(|e| StoreError::Damaged(e.to_string()))?;
                let mut record = record::decode(bytes, version, &mut writers)?;
                let echo = self.is_echo(&record.state);
                if !echo {
                    let unsaid = self.lifting.complete(table, &record.key, &mut record.state, record.level, self.asked.schema);
                    let (client, space) = (record.state.origin.client, bound.space);
                    for unsaid in unsaid {
                        self.unsaid.push(UnsaidOf { space, client, table, index: row.get(3)?, key: record.key.clone(), unsaid });
                    }
                }
                if echo {
                    self.head.echoes += 1;
                } else if let Some(row) = told(table, record, shown, self.walk) {
                    let (bytes, cells) = (row.size_bytes(), row.key.len() + row.values.as_ref().map_or(0, Vec::len));
                    if !self.rows.is_empty() && (self.bytes + bytes > MAX_PAGE_BYTES || self.cells + cells > MAX_PAGE_CELLS) {
                        self.head.more = true;
                        break;
                    }
                    self.bytes += bytes;
                    self.cells += cells;
                    self.rows.push(row);
                }
            }
            self.head.next = version;
        }
        if !self.head.more {
            self.head.next = end.max(self.asked.cursor);
        }
        Ok(Pulled::Page(Box::new(PullResponse { head: self.head, rows: self.rows }), self.unsaid))
    }

    /// Whether all that is new in it since the cursor is the file's own, and the file has the answer.
    fn is_echo(&self, state: &State) -> bool {
        let own = |by: Writer, version: u64| by == self.me && version <= self.asked.acked;
        !self.walk
            && match &state.what {
                What::Deleted(by, _) => own(*by, state.version),
                What::Present(cells) => {
                    state.version <= self.asked.acked
                        && !cells.is_empty()
                        && cells.iter().all(|held| held.version <= self.asked.cursor || own(held.by, held.version))
                }
            }
    }
}

/// The row as a version sees it; none where that has nothing to tell.
fn told(table: u32, record: Record, shown: &ShownTable, walk: bool) -> Option<Row> {
    let Record { key, state, .. } = record;
    let version = state.version;
    match state.what {
        // A walk fills in what was not known; what is gone the cursor has passed.
        What::Deleted(..) if walk => None,
        What::Deleted(_, stamp) => Some(Row { table, key, version, clock: stamp.clock, values: None }),
        What::Present(cells) => {
            let clock = cells.iter().map(|held| held.stamp.clock).max().unwrap_or(Clock::ZERO);
            let known = |id: u32| shown.columns.binary_search(&id).is_ok();
            let values: Vec<_> = cells.into_iter().filter(|held| known(held.column)).map(|held| (held.column, held.value)).collect();
            (shown.every_row || !walk || !values.is_empty()).then_some(Row { table, key, version, clock, values: Some(values) })
        }
    }
}
