//! The outbox of unsent edits (`_whimbrel_outbox`) and what the server is known to have (`_whimbrel_row`). Every function
//! runs inside the caller's transaction. Keys are canonical ([`Key::canonical`]).

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{
    StoreError, at,
    journal::key_parameters,
    key::{Key, MOST_KEY_COLUMNS},
};

/// When something was edited: enough to compute its clock later, when the clock of the server is known too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The clock on the wall of the process that edited, in milliseconds since 1970.
    pub wall_ms: i64,
    /// Number of the boot in which it was folded; 0: the edit is older than that boot.
    pub boot: u32,
    /// Its place in the order of all edits in this file.
    pub seq: i64,
}

/// Whether an edit was ever sent. What was sent may have been accepted, so it does not vanish by being undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Never.
    Never,
    /// It was sent as it is, with this clock.
    As(u64),
    /// It was sent and edited since: it gets a new clock.
    EditedSince,
}

/// What becomes of the row at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The server never had a row under this key: the row as a whole is sent.
    Insert,
    /// Columns of a row that the server has.
    Edit,
    /// The row is gone.
    Delete,
}

/// One edit: of the columns in it, or, in a [`Deed::Delete`], of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The server's version of the row when the edit was first made; none: the server had no row.
    pub base: Option<u64>,
    /// When it was last made.
    pub stamp: Stamp,
    /// Whether it was sent.
    pub sent: Sent,
    /// Made by a trigger of the application while remote rows landed, not by a person.
    pub derived: bool,
    /// Ids of the columns, ascending. Empty in a delete.
    pub columns: Vec<u32>,
}

/// What waits to be sent of one row. The values are in the row: they are read when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What becomes of it.
    pub deed: Deed,
    /// Its edits; no column is in two of them. One in a delete.
    pub edits: Vec<Edit>,
}

impl Entry {
    /// The number of the last edit.
    pub fn seq(&self) -> i64 {
        self.edits.iter().map(|e| e.stamp.seq).max().unwrap_or(0)
    }

    /// Whether any of it was ever sent.
    pub fn was_sent(&self) -> bool {
        self.edits.iter().any(|e| e.sent != Sent::Never)
    }

    /// Whether it deletes a row of which nothing was seen in what versions count in now.
    pub fn deletes_unseen(&self) -> bool {
        self.deed == Deed::Delete && self.edits.iter().any(|e| e.base.unwrap_or(0) == 0)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        for edit in &self.edits {
            let (flag, clock) = match edit.sent {
                Sent::Never => (0, None),
                Sent::As(clock) => (1, Some(clock)),
                Sent::EditedSince => (2, None),
            };
            out.push(flag | u8::from(edit.derived) << 2 | u8::from(edit.base.is_some()) << 3);
            for number in edit.base.into_iter().chain(clock) {
                put(&mut out, number);
            }
            for number in [edit.stamp.wall_ms.cast_unsigned(), edit.stamp.boot.into(), edit.stamp.seq.cast_unsigned(), edit.columns.len() as u64] {
                put(&mut out, number);
            }
            let mut before = 0;
            for id in &edit.columns {
                put(&mut out, u64::from(id.wrapping_sub(before)));
                before = *id;
            }
        }
        out
    }

    fn decode(deed: i64, bytes: &[u8]) -> Option<Self> {
        let deed = DEEDS.into_iter().find(|d| number_of(*d) == deed)?;
        let (form, mut rest) = bytes.split_first()?;
        if *form != FORM {
            return None;
        }
        let mut edits = Vec::new();
        while let Some((flags, after)) = rest.split_first() {
            rest = after;
            let base = if flags & 8 == 0 { None } else { Some(take(&mut rest)?) };
            let sent = match flags & 3 {
                0 => Sent::Never,
                1 => Sent::As(take(&mut rest)?),
                2 => Sent::EditedSince,
                _ => return None,
            };
            let stamp =
                Stamp { wall_ms: take(&mut rest)?.cast_signed(), boot: take(&mut rest)?.try_into().ok()?, seq: take(&mut rest)?.cast_signed() };
            let mut before = 0_u32;
            let columns = (0..take(&mut rest)?)
                .map(|_| {
                    before = before.checked_add(take(&mut rest)?.try_into().ok()?)?;
                    Some(before)
                })
                .collect::<Option<_>>()?;
            edits.push(Edit { base, stamp, sent, derived: flags & 4 != 0, columns });
        }
        (!edits.is_empty()).then_some(Self { deed, edits })
    }
}

/// First byte of what is written here, so that a later form is told apart.
const FORM: u8 = 1;
/// The same, of a row that the server deleted.
pub(super) const GONE: u8 = 2;
const DEEDS: [Deed; 3] = [Deed::Insert, Deed::Edit, Deed::Delete];

fn number_of(deed: Deed) -> i64 {
    match deed {
        Deed::Insert => 1,
        Deed::Edit => 2,
        Deed::Delete => 3,
    }
}

/// Seven bits a byte, lowest first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// What the server is known to have of a row.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Its version of the row; 0: one that counts in another series.
    pub version: u64,
    /// A hash of each column's value, by column id, ascending. A column that is not in it has the value that a migration
    /// gave it. Empty for a row that is gone.
    pub hashes: Vec<(u32, u64)>,
    /// Whether it deleted the row in that version.
    pub gone: bool,
    /// Whether everything is being told anew, and this row was not told yet.
    pub untold: bool,
}

impl Recorded {
    /// The hash of one column's value.
    pub fn hash(&self, column: u32) -> Option<u64> {
        self.hashes.binary_search_by_key(&column, |(id, _)| *id).ok().map(|at| self.hashes[at].1)
    }

    /// Notes what columns hold now.
    pub fn note(&mut self, hashes: impl IntoIterator<Item = (u32, u64)>) {
        for (column, hash) in hashes {
            match self.hashes.binary_search_by_key(&column, |(id, _)| *id) {
                Ok(at) => self.hashes[at].1 = hash,
                Err(at) => self.hashes.insert(at, (column, hash)),
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.hashes.len() * 9);
        out.push(if self.gone { GONE } else { FORM });
        let mut before = 0;
        for (id, hash) in &self.hashes {
            put(&mut out, u64::from(id.wrapping_sub(before)));
            out.extend(hash.to_le_bytes());
            before = *id;
        }
        out
    }

    fn decode(version: i64, bytes: &[u8]) -> Option<Self> {
        let (form, mut rest) = bytes.split_first()?;
        let (mut hashes, mut before) = (Vec::with_capacity(rest.len() / 9), 0_u32);
        while !rest.is_empty() {
            before = before.checked_add(take(&mut rest)?.try_into().ok()?)?;
            let (hash, after) = rest.split_first_chunk()?;
            rest = after;
            hashes.push((before, u64::from_le_bytes(*hash)));
        }
        matches!(*form, FORM | GONE).then_some(Self { version: version.unsigned_abs(), hashes, gone: *form == GONE, untold: version < 0 })
    }
}

/// The outbox and the recorded rows of one file, with their statements ready.
#[expect(missing_debug_implementations, reason = "rusqlite's cached statements have none")]
pub struct Outbox<'c> {
    entry: CachedStatement<'c>,
    put: CachedStatement<'c>,
    mark: CachedStatement<'c>,
    remove: CachedStatement<'c>,
    recorded: CachedStatement<'c>,
    record: CachedStatement<'c>,
    forget: CachedStatement<'c>,
}

const PLACE: &str = "tab = ?1 AND k1 = ?2 AND k2 = ?3 AND k3 = ?4 AND k4 = ?5";

impl<'c> Outbox<'c> {
    /// Makes its statements ready.
    pub fn open(connection: &'c Connection) -> Result<Self, StoreError> {
        let ready = |sql: &str| connection.prepare_cached(sql).map_err(at("opening the outbox"));
        Ok(Self {
            entry: ready(&format!("SELECT deed, edits FROM main._whimbrel_outbox WHERE {PLACE}"))?,
            put: ready(
                "INSERT OR REPLACE INTO main._whimbrel_outbox (tab, k1, k2, k3, k4, seq, deed, edits) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?,
            mark: ready(&format!("UPDATE main._whimbrel_outbox SET edits = ?6 WHERE {PLACE}"))?,
            remove: ready(&format!("DELETE FROM main._whimbrel_outbox WHERE {PLACE}"))?,
            recorded: ready(&format!("SELECT version, hashes FROM main._whimbrel_row WHERE {PLACE}"))?,
            record: ready("INSERT OR REPLACE INTO main._whimbrel_row (tab, k1, k2, k3, k4, version, hashes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            forget: ready(&format!("DELETE FROM main._whimbrel_row WHERE {PLACE}"))?,
        })
    }

    /// What waits to be sent of a row.
    pub fn entry(&mut self, table: u32, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found: Option<(i64, Vec<u8>)> = self
            .entry
            .query_row(&key_parameters(&table, key)[..], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(at("reading the outbox"))?;
        found.map(|(deed, edits)| Entry::decode(deed, &edits).ok_or_else(damaged_outbox)).transpose()
    }

    /// Writes what waits; none takes it away.
    pub fn put(&mut self, table: u32, key: &Key, entry: Option<&Entry>) -> Result<(), StoreError> {
        let place = key_parameters(&table, key);
        match entry {
            Some(entry) => {
                let [table, k1, k2, k3, k4] = place;
                self.put.execute(params![table, k1, k2, k3, k4, entry.seq(), number_of(entry.deed), entry.encode()])
            }
            None => self.remove.execute(&place[..]),
        }
        .map(|_| ())
        .map_err(at("writing the outbox"))
    }

    /// Writes clocks and such into an entry that is there, whose last edit is the same as before.
    pub fn mark(&mut self, table: u32, key: &Key, entry: &Entry) -> Result<(), StoreError> {
        let [table, k1, k2, k3, k4] = key_parameters(&table, key);
        self.mark.execute(params![table, k1, k2, k3, k4, entry.encode()]).map(|_| ()).map_err(at("writing the outbox"))
    }

    /// What the server is known to have of a row.
    pub fn recorded(&mut self, table: u32, key: &Key) -> Result<Option<Recorded>, StoreError> {
        let found: Option<(i64, Vec<u8>)> = self
            .recorded
            .query_row(&key_parameters(&table, key)[..], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(at("reading what the server has"))?;
        found.map(|(version, hashes)| Recorded::decode(version, &hashes).ok_or_else(damaged_row)).transpose()
    }

    /// Writes what the server has now; none: it has no such row.
    pub fn record(&mut self, table: u32, key: &Key, recorded: Option<&Recorded>) -> Result<(), StoreError> {
        let place = key_parameters(&table, key);
        match recorded {
            Some(recorded) => {
                let [table, k1, k2, k3, k4] = place;
                let version = recorded.version.cast_signed();
                self.record.execute(params![table, k1, k2, k3, k4, if recorded.untold { -version } else { version }, recorded.encode()])
            }
            None => self.forget.execute(&place[..]),
        }
        .map(|_| ())
        .map_err(at("writing what the server has"))
    }
}

/// A row's place in the order in which rows are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of its last edit.
    pub seq: i64,
    /// Its table's id.
    pub table: u32,
    /// Its key.
    pub key: Key,
}

/// What waits to be sent, in the order of the last edits: up to `most` rows after a place. Keys of tables that `columns` does
/// not know come with all the columns that our own tables have.
pub fn pending(
    connection: &Connection,
    after: Option<&Place>,
    most: usize,
    columns: &dyn Fn(u32) -> Option<usize>,
) -> Result<Vec<(Place, Entry)>, StoreError> {
    let doing = "reading the outbox";
    let range = if after.is_some() { "WHERE (seq, tab, k1, k2, k3, k4) > (?2, ?3, ?4, ?5, ?6, ?7)" } else { "" };
    let sql = format!("SELECT seq, tab, deed, edits, k1, k2, k3, k4 FROM main._whimbrel_outbox {range} ORDER BY seq, tab, k1, k2, k3, k4 LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(at(doing))?;
    let most = most as i64;
    let mut rows = match after {
        Some(place) => {
            let [table, k1, k2, k3, k4] = key_parameters(&place.table, &place.key);
            statement.query(params![most, place.seq, table, k1, k2, k3, k4])
        }
        None => statement.query([most]),
    }
    .map_err(at(doing))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        let read = || -> rusqlite::Result<_> { Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?)) };
        let (seq, table, deed, edits) = read().map_err(at(doing))?;
        let key = Key::read(row, 4, columns(table).unwrap_or(MOST_KEY_COLUMNS)).map_err(at(doing))?.ok_or_else(damaged_outbox)?;
        found.push((Place { seq, table, key }, Entry::decode(deed, &edits).ok_or_else(damaged_outbox)?));
    }
    Ok(found)
}

/// No edit of the next rows after a place, up to `most`, saw a version of the server that still counts. Returns where it ended,
/// if there may be more.
pub fn forget_bases(connection: &Connection, after: Option<&Place>, most: usize) -> Result<Option<Place>, StoreError> {
    let mut outbox = Outbox::open(connection)?;
    let some = pending(connection, after, most, &|_| None)?;
    let last = some.last().filter(|_| some.len() == most).map(|(place, _)| place.clone());
    for (place, mut entry) in some {
        for edit in &mut entry.edits {
            edit.base = None;
        }
        outbox.mark(place.table, &place.key, &entry)?;
    }
    Ok(last)
}

/// Whether no row waits to be sent. Cheap.
pub fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    connection.prepare_cached("SELECT 1 FROM main._whimbrel_outbox").and_then(|mut s| s.exists([])).map(|any| !any).map_err(at("reading the outbox"))
}

/// The lowest number of a row's last edit that waits; none where nothing does.
pub fn oldest(connection: &Connection) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached("SELECT min(seq) FROM main._whimbrel_outbox")
        .and_then(|mut s| s.query_row([], |row| row.get(0)))
        .map_err(at("reading the outbox"))
}

/// Up to `most` rows that the server was known to have and did not tell when it told everything, of one table. What it told and
/// cannot land yet is in quarantine.
pub fn untold(connection: &Connection, table: u32, columns: usize, most: usize) -> Result<Vec<Key>, StoreError> {
    let doing = "reading what the server has";
    let mut statement = connection
        .prepare_cached(
            "SELECT k1, k2, k3, k4 FROM main._whimbrel_row AS r WHERE tab = ?1 AND version <= 0 AND NOT EXISTS
                 (SELECT 1 FROM main._whimbrel_quarantine AS q WHERE q.tab = r.tab AND q.k1 = r.k1 AND q.k2 = r.k2 AND q.k3 = r.k3 AND q.k4 = r.k4)
                 LIMIT ?2",
        )
        .map_err(at(doing))?;
    let mut rows = statement.query(params![table, most as i64]).map_err(at(doing))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        keys.push(Key::read(row, 0, columns).map_err(at(doing))?.ok_or_else(damaged_row)?);
    }
    Ok(keys)
}

/// Rows that wait to be sent.
pub fn count(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .query_row("SELECT count(*) FROM main._whimbrel_outbox", [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .map_err(at("counting the outbox"))
}

/// Keys that were recorded or wait to be sent, of one table of `columns` key columns, after one of them, in the order of
/// our own tables; at most `most`.
pub fn known_after(connection: &Connection, table: u32, after: Option<&Key>, columns: usize, most: usize) -> Result<Vec<Key>, StoreError> {
    let doing = "reading what the server has";
    // UNION keeps each key once, and both halves are in key order already.
    let range = if after.is_some() { "tab = ?1 AND (k1, k2, k3, k4) > (?3, ?4, ?5, ?6)" } else { "tab = ?1" };
    let sql = format!(
        "SELECT k1, k2, k3, k4 FROM main._whimbrel_row WHERE {range} UNION
         SELECT k1, k2, k3, k4 FROM main._whimbrel_outbox WHERE {range} ORDER BY 1, 2, 3, 4 LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(at(doing))?;
    let most = most as i64;
    let mut rows = match after {
        Some(key) => statement.query(params![table, most, key.column(0), key.column(1), key.column(2), key.column(3)]),
        None => statement.query(params![table, most]),
    }
    .map_err(at(doing))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        keys.push(Key::read(row, 0, columns).map_err(at(doing))?.ok_or_else(damaged_row)?);
    }
    Ok(keys)
}

fn damaged_outbox() -> StoreError {
    StoreError::Damaged { what: "_whimbrel_outbox", detail: "an entry is not of a form that this whimbrel knows".to_owned() }
}

fn damaged_row() -> StoreError {
    StoreError::Damaged { what: "_whimbrel_row", detail: "a row is not of a form that this whimbrel knows".to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let sent = prop_oneof![Just(Sent::Never), any::<u64>().prop_map(Sent::As), Just(Sent::EditedSince)];
        let stamp = (any::<i64>(), any::<u32>(), any::<i64>()).prop_map(|(wall_ms, boot, seq)| Stamp { wall_ms, boot, seq });
        let columns = prop::collection::btree_set(any::<u32>(), 0..80).prop_map(|set| set.into_iter().collect());
        let edit = (any::<Option<u64>>(), stamp, sent, any::<bool>(), columns).prop_map(|(base, stamp, sent, derived, columns)| Edit {
            base,
            stamp,
            sent,
            derived,
            columns,
        });
        prop::collection::vec(edit, 1..4)
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_bytes(edits in edits(), deed in prop::sample::select(&DEEDS[..])) {
            let entry = Entry { deed, edits };
            prop_assert_eq!(Entry::decode(number_of(deed), &entry.encode()), Some(entry));
        }

        #[test]
        fn a_recorded_row_survives_its_bytes(version in 0..=i64::MAX as u64, hashes in prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..80)) {
            let recorded = Recorded { version, hashes: hashes.into_iter().collect(), gone: false, untold: false };
            prop_assert_eq!(Recorded::decode(version.cast_signed(), &recorded.encode()), Some(recorded));
        }

        #[test]
        fn foreign_bytes_are_refused_or_read_and_never_more(bytes: Vec<u8>) {
            if let Some(entry) = Entry::decode(2, &bytes) {
                prop_assert!(!entry.edits.is_empty());
            }
            let _ = Recorded::decode(1, &bytes);
        }
    }

    #[test]
    fn the_bytes_of_an_entry_stay_as_they_are() {
        let stamp = Stamp { wall_ms: 1_700_000_000_000, boot: 1, seq: 300 };
        let edit = Edit { base: Some(7), stamp, sent: Sent::As(9), derived: true, columns: vec![1, 2, 70] };
        let bytes = Entry { deed: Deed::Edit, edits: vec![edit] }.encode();
        assert_eq!(bytes, [1, 13, 7, 9, 128, 208, 149, 255, 188, 49, 1, 172, 2, 3, 1, 1, 68]);
    }
}
