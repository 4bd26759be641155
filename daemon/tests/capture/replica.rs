//! The other side: rows by canonical key, built only from what is sent.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value};
use whimbrel::{
    store::{
        key::Key,
        outbox::{Deed, Edit, Entry, Outbox, Place, Recorded, Sent, pending},
    },
    sync::{
        hash::{Stored, hash},
        shape::Captured,
    },
};

/// A value that compares by storage class and bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exact {
    Null,
    Integer(i64),
    Real(u64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<Value> for Exact {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(n) => Self::Integer(n),
            Value::Real(r) => Self::Real(r.to_bits()),
            Value::Text(t) => Self::Text(t),
            Value::Blob(b) => Self::Blob(b),
        }
    }
}

impl Exact {
    fn hash(&self) -> u64 {
        hash(match self {
            Self::Null => Stored::Null,
            Self::Integer(n) => Stored::Integer(*n),
            Self::Real(r) => Stored::Real(f64::from_bits(*r)),
            Self::Text(t) => Stored::Text(t.as_bytes()),
            Self::Blob(b) => Stored::Blob(b),
        })
    }
}

pub(crate) type Columns = BTreeMap<u32, Exact>;
pub(crate) type Rows = BTreeMap<(u32, Key), Columns>;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    table: u32,
    key: Key,
    deed: Deed,
    clock: u64,
    values: Columns,
}

/// The other side.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) rows: Rows,
    version: u64,
    clock: u64,
    pub(crate) on_the_way: Vec<Sending>,
}

impl Replica {
    /// Sends what waits and `choose` picks: the values are read from the rows, and the clock is fixed.
    pub(crate) fn send(&mut self, connection: &Connection, tables: &[Captured], choose: &mut dyn FnMut() -> bool) -> usize {
        let columns = |id: u32| tables.iter().find(|t| t.id == id).map(|t| t.key.len());
        let (mut outbox, mut sent, mut after) = (Outbox::open(connection).unwrap(), 0, None::<Place>);
        loop {
            let page = pending(connection, after.as_ref(), 3, &columns).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (Place { table, key, .. }, entry) in page {
                let unsent = |e: &Edit| !matches!(e.sent, Sent::As(_));
                if self.on_the_way.iter().any(|s| s.table == table && s.key == key) || !entry.edits.iter().any(unsent) || !choose() {
                    continue;
                }
                let shape = tables.iter().find(|t| t.id == table).unwrap();
                let ids: Vec<u32> = match entry.deed {
                    Deed::Delete => Vec::new(),
                    Deed::Insert => shape.tracked().iter().map(|(id, _)| *id).collect(),
                    Deed::Edit => entry.edits.iter().flat_map(|e| e.columns.clone()).collect(),
                };
                // It may be gone by what is not folded yet.
                let values = if entry.deed == Deed::Delete { Some(Columns::new()) } else { read(connection, shape, &key, &ids) };
                let Some(values) = values else { continue };
                self.clock += 1;
                let edits = entry.edits.iter().map(|e| Edit { sent: Sent::As(self.clock), ..e.clone() }).collect();
                outbox.put(table, &key, Some(&Entry { deed: entry.deed, edits })).unwrap();
                self.on_the_way.push(Sending { table, key, deed: entry.deed, clock: self.clock, values });
                sent += 1;
            }
        }
        sent
    }

    /// One message arrives, and its acknowledgement too: what still is as it was sent is no longer dirty.
    pub(crate) fn arrive(&mut self, connection: &Connection, at: usize) {
        let Sending { table, key, deed, clock, values } = self.on_the_way.swap_remove(at);
        self.version += 1;
        let mut outbox = Outbox::open(connection).unwrap();
        let entry = outbox.entry(table, &key).unwrap();
        let place = (table, key.clone());
        if deed == Deed::Delete {
            self.rows.remove(&place);
            outbox.record(table, &key, None).unwrap();
        } else {
            let row = self.rows.entry(place).or_default();
            row.extend(values);
            let hashes = row.iter().map(|(id, value)| (*id, value.hash())).collect();
            outbox.record(table, &key, Some(&Recorded { version: self.version, hashes, gone: false, untold: false })).unwrap();
        }
        let left = entry.and_then(|entry| {
            let edits: Vec<_> = entry.edits.into_iter().filter(|e| e.sent != Sent::As(clock)).collect();
            let deed = match entry.deed {
                Deed::Delete => Deed::Delete,
                Deed::Insert | Deed::Edit if deed == Deed::Delete => Deed::Insert,
                Deed::Insert | Deed::Edit => Deed::Edit,
            };
            (!edits.is_empty()).then_some(Entry { deed, edits })
        });
        outbox.put(table, &key, left.as_ref()).unwrap();
    }
}

/// Columns of one row.
pub(crate) fn read(connection: &Connection, shape: &Captured, key: &Key, ids: &[u32]) -> Option<Columns> {
    let name = |id: &u32| shape.tracked().into_iter().find(|(known, _)| known == id).map(|(_, name)| name.to_owned()).unwrap();
    let list: Vec<_> = ids.iter().map(name).chain(["1".to_owned()]).collect();
    let place: Vec<_> = shape.key.iter().map(|k| format!("{} = ? COLLATE {}", k.name, k.collation.name())).collect();
    let sql = format!("SELECT {} FROM {} WHERE {}", list.join(", "), shape.name, place.join(" AND "));
    connection
        .query_row(&sql, params_from_iter(&key.0), |row| {
            ids.iter().enumerate().map(|(at, id)| Ok((*id, Exact::from(row.get::<_, Value>(at)?)))).collect::<rusqlite::Result<_>>()
        })
        .optional()
        .unwrap()
}

/// Every row of every table, as a replica should have it.
pub(crate) fn truth(connection: &Connection, tables: &[Captured]) -> Rows {
    let mut rows = Rows::new();
    for table in tables {
        let tracked = table.tracked();
        let list: Vec<_> = table.key.iter().map(|k| k.name.as_str()).chain(tracked.iter().map(|(_, name)| *name)).collect();
        let mut statement = connection.prepare(&format!("SELECT {} FROM {}", list.join(", "), table.name)).unwrap();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let key = Key::read(row, 0, table.key.len()).unwrap().expect("keys are NOT NULL").canonical(&table.collations());
            let value = |at: usize| Exact::from(row.get::<_, Value>(table.key.len() + at).unwrap());
            let columns = tracked.iter().enumerate().map(|(at, (id, _))| (*id, value(at))).collect();
            assert!(rows.insert((table.id, key), columns).is_none(), "two rows have one canonical key");
        }
    }
    rows
}
