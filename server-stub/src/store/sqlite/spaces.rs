//! Spaces, who is bound to which, their sequences, and the short numbers of writers, in SQLite.

use std::{
    collections::HashMap,
    sync::Arc,
    sync::{Mutex, PoisonError},
};

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, Digest, SpaceName},
    migration::Targets,
    protocol::push::{Reached, Series},
    resolve::Writer,
};

use super::{
    keys,
    lifting::{Lifting, Lifts},
    natural, parsed,
    record::Writers,
};
use crate::{
    decide::rows::RowsAt,
    store::{Refusal, StoreError, rows::Binding},
};

/// A database with its space as they are in this transaction.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) space: i64,
    pub(super) app: AppName,
    pub(super) series: Series,
    /// The last number given.
    pub(super) seq: u64,
    /// Deletions up to this number are forgotten.
    pub(super) horizon: u64,
    /// The newest epoch that the database pushed in, and the order of its last push of that.
    pub(super) epoch: u32,
    pub(super) last_push: u64,
}

/// The space of a device's database; none where it is not bound yet.
pub(super) fn bound(tx: &Transaction<'_>, device: DeviceId, client: ClientId) -> Result<Option<Bound>, StoreError> {
    let app = app_of(tx, device, client)?;
    let mut query = tx.prepare_cached(
        "SELECT s.id, s.epoch, s.seq, s.horizon, c.epoch, c.last_push FROM synced_client c JOIN space s ON s.id = c.space_id
         WHERE c.client_id = ?1",
    )?;
    let found = query.query_row([client.to_string()], |row| {
        let series = Series { space: natural(row, 0)?, epoch: row.get(1)? };
        Ok(Bound {
            space: row.get(0)?,
            app,
            series,
            seq: natural(row, 2)?,
            horizon: natural(row, 3)?,
            epoch: row.get(4)?,
            last_push: natural(row, 5)?,
        })
    });
    Ok(found.optional()?)
}

/// The same, bound now to the space of the device's enrolment if it was not.
pub(super) fn ensure_bound(tx: &Transaction<'_>, device: DeviceId, client: ClientId) -> Result<Bound, StoreError> {
    if let Some(bound) = bound(tx, device, client)? {
        return Ok(bound);
    }
    let app = app_of(tx, device, client)?;
    let name: SpaceName = tx
        .prepare_cached("SELECT space FROM device_app WHERE device_id = ?1 AND app = ?2")?
        .query_row((device.to_string(), app.as_str()), |row| parsed(row, 0))?;
    let space = ensure_space(tx, &app, &name)?;
    tx.prepare_cached("INSERT INTO synced_client (client_id, space_id, epoch, last_push) VALUES (?1, ?2, 0, 0)")?
        .execute((client.to_string(), space))?;
    bound(tx, device, client)?.ok_or_else(|| StoreError::Damaged("a database that was bound is not".to_owned()))
}

/// Binds a database to a space, whatever it was bound to before. Numbers of the old one mean nothing any more, and it is told.
pub(super) fn bind(tx: &Transaction<'_>, binding: &Binding) -> Result<(), StoreError> {
    let id = binding.client_id.to_string();
    let app: Option<AppName> = tx.prepare_cached("SELECT app FROM client WHERE client_id = ?1")?.query_row([&id], |row| parsed(row, 0)).optional()?;
    let app = app.ok_or(Refusal::NoClient(binding.client_id))?;
    let space = ensure_space(tx, &app, &binding.space)?;
    tx.prepare_cached(
        "INSERT INTO synced_client (client_id, space_id, epoch, last_push) VALUES (?1, ?2, 0, 0)
         ON CONFLICT (client_id) DO UPDATE SET space_id = excluded.space_id",
    )?
    .execute((&id, space))?;
    keys::note(tx, binding.now_ms, &binding.by, "space.bind", &format!("{id}: {}", binding.space))
}

fn ensure_space(tx: &Transaction<'_>, app: &AppName, name: &SpaceName) -> Result<i64, StoreError> {
    tx.prepare_cached("INSERT INTO space (app, name, epoch, seq, horizon) VALUES (?1, ?2, 1, 0, 0) ON CONFLICT (app, name) DO NOTHING")?
        .execute((app.as_str(), name.as_str()))?;
    let mut query = tx.prepare_cached("SELECT id FROM space WHERE app = ?1 AND name = ?2")?;
    Ok(query.query_row((app.as_str(), name.as_str()), |row| row.get(0))?)
}

fn app_of(tx: &Transaction<'_>, device: DeviceId, client: ClientId) -> Result<AppName, StoreError> {
    let owner = tx
        .prepare_cached("SELECT device_id, app FROM client WHERE client_id = ?1")?
        .query_row([client.to_string()], |row| Ok((parsed::<DeviceId>(row, 0)?, parsed::<AppName>(row, 1)?)))
        .optional()?;
    match owner {
        Some((of, app)) if of == device => Ok(app),
        Some(_) => Err(Refusal::ClientTaken(client).into()),
        None => Err(Refusal::NotReported(client).into()),
    }
}

/// Takes `count` numbers; answers the first. Nobody else gets a number of this space before the COMMIT.
pub(super) fn take_numbers(tx: &Transaction<'_>, space: i64, count: usize) -> Result<u64, StoreError> {
    let mut update = tx.prepare_cached("UPDATE space SET seq = seq + ?2 WHERE id = ?1 RETURNING seq")?;
    let last = update.query_row((space, i64::try_from(count).unwrap_or(i64::MAX)), |row| natural(row, 0))?;
    Ok(last - count as u64 + 1)
}

/// Most numbers and series that a restored store is believed to have given since: who says more is wrong, and would use up the
/// numbers of everybody in the space.
const MOST_GIVEN: u64 = 1 << 40;
const MOST_SERIES: u32 = 10_000;

/// How far a file knows the sequence, where this store never gave that number. `seen`: a number of the store's own series.
/// `SnapshotNeeded` where no store can have given it.
pub(super) fn never_given(bound: &Bound, reached: Option<Reached>, seen: u64) -> Result<Option<Reached>, StoreError> {
    let seen = Reached { series: bound.series, number: seen };
    let furthest = reached.filter(|r| r.series.space == bound.series.space).map_or(seen, |r| r.max(seen));
    if furthest.number.saturating_sub(bound.seq) > MOST_GIVEN || furthest.series.epoch.saturating_sub(bound.series.epoch) > MOST_SERIES {
        let why = format!("the file says that it has seen {furthest}, and {}.{} is the last that was given here", bound.series, bound.seq);
        return Err(Refusal::SnapshotNeeded(why).into());
    }
    Ok((furthest > Reached { number: bound.seq, ..seen }).then_some(furthest))
}

/// Somebody has seen a number that was never given: this store went back. The count goes on beyond it as another series, so
/// that nobody takes a number given twice for one.
pub(super) fn begin_anew(tx: &Transaction<'_>, space: i64, reached: Reached) -> Result<(), StoreError> {
    let number = i64::try_from(reached.number).unwrap_or(i64::MAX / 2);
    tx.prepare_cached("UPDATE space SET epoch = min(max(epoch, ?3), ?4) + 1, seq = max(seq, ?2) WHERE id = ?1")?.execute((
        space,
        number,
        reached.series.epoch,
        u32::MAX - 1,
    ))?;
    Ok(())
}

/// Numbers of writers, looked up once per transaction.
pub(super) struct WriterBook<'t> {
    tx: &'t Transaction<'t>,
    numbers: HashMap<Writer, u64>,
    writers: HashMap<u64, Writer>,
}

impl<'t> WriterBook<'t> {
    pub(super) fn new(tx: &'t Transaction<'t>) -> Self {
        Self { tx, numbers: HashMap::new(), writers: HashMap::new() }
    }

    fn note(&mut self, number: u64, writer: Writer) {
        self.numbers.insert(writer, number);
        self.writers.insert(number, writer);
    }
}

impl Writers for WriterBook<'_> {
    fn number(&mut self, writer: Writer) -> Result<u64, StoreError> {
        if let Some(number) = self.numbers.get(&writer) {
            return Ok(*number);
        }
        let who = (writer.client.to_string(), writer.epoch);
        self.tx.prepare_cached("INSERT INTO writer (client_id, epoch) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?.execute(who.clone())?;
        let mut query = self.tx.prepare_cached("SELECT id FROM writer WHERE client_id = ?1 AND epoch = ?2")?;
        let number = query.query_row(who, |row| natural(row, 0))?;
        self.note(number, writer);
        Ok(number)
    }

    fn writer(&mut self, number: u64) -> Result<Writer, StoreError> {
        if let Some(writer) = self.writers.get(&number) {
            return Ok(*writer);
        }
        let mut query = self.tx.prepare_cached("SELECT client_id, epoch FROM writer WHERE id = ?1")?;
        let writer =
            query.query_row([i64::try_from(number).unwrap_or(i64::MAX)], |row| Ok(Writer { client: parsed(row, 0)?, epoch: row.get(1)? }))?;
        self.note(number, writer);
        Ok(writer)
    }
}

/// Most versions whose ids are kept at hand.
const AT_HAND: usize = 64;

type Known = HashMap<(AppName, u32), (Digest, Arc<RowsAt>)>;

/// What published chains say about rows, read once per version and publication.
#[derive(Clone, Default)]
pub(super) struct Schemas {
    known: Arc<Mutex<Known>>,
    lifts: Lifts,
}

impl Schemas {
    /// What takes rows of older versions up.
    pub(super) fn lifting(&self, tx: &Transaction<'_>, app: &AppName) -> Result<Lifting, StoreError> {
        self.lifts.of(tx, app)
    }

    /// At the newest version, and at `asked`. Refused where that is beyond it, or has no ids.
    pub(super) fn at(&self, tx: &Transaction<'_>, app: &AppName, asked: u32) -> Result<(Arc<RowsAt>, Arc<RowsAt>), StoreError> {
        let mut query = tx.prepare_cached("SELECT targets_digest, latest FROM app WHERE name = ?1")?;
        let (digest, latest): (Digest, u32) = query.query_row([app.as_str()], |row| Ok((parsed(row, 0)?, row.get(1)?)))?;
        if asked > latest {
            return Err(Refusal::SchemaAhead { schema: asked, latest }.into());
        }
        Ok((self.one(tx, app, &digest, latest)?, self.one(tx, app, &digest, asked)?))
    }

    fn one(&self, tx: &Transaction<'_>, app: &AppName, digest: &Digest, version: u32) -> Result<Arc<RowsAt>, StoreError> {
        let at = (app.clone(), version);
        if let Some((_, known)) = self.known().get(&at).filter(|(d, _)| d == digest) {
            return Ok(known.clone());
        }
        let bytes: Vec<u8> = tx.query_row("SELECT targets FROM app WHERE name = ?1", [app.as_str()], |row| row.get(0))?;
        let targets: Targets = serde_json::from_slice(&bytes).map_err(|e| StoreError::Damaged(format!("the targets of {app}: {e}")))?;
        let rows = Arc::new(RowsAt::of(&targets, version).map_err(|e| Refusal::NoRowIds(e.to_string()))?);
        let mut known = self.known();
        if known.len() >= AT_HAND {
            known.clear();
        }
        known.insert(at, (*digest, rows.clone()));
        Ok(rows)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
