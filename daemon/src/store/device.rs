//! `device.db`: what the daemon knows, has accepted and still has to say. WAL with `synchronous=FULL`: with NORMAL a
//! power cut loses acknowledged migrations in one image of five (reference ops 1.1).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use whimbrel_shared::{
    ids::{AppName, ClientId, EventId, RequestId},
    migration::TargetEntry,
    protocol::poll::Plan,
    status::Event,
};

use super::{
    StoreError, at,
    managed::FileIdentity,
    private::{make_private_dir, make_private_file, open_database},
    words::parse,
};

const SCHEMA: [&str; 2] = [include_str!("../../schema/device/001_init.sql"), include_str!("../../schema/device/002_trust.sql")];

/// Most fulfilled requests that are kept for `whimbrel history` to name.
const KEPT_REQUESTS: u32 = 200;

/// A database as the daemon last saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDatabase {
    /// Who the file said it is.
    pub identity: FileIdentity,
    /// Where it was.
    pub path: PathBuf,
    /// Last event that was copied.
    pub copied_seq: i64,
    /// Its id.
    pub copied_id: Option<String>,
}

/// A target file as it was accepted. Not yet trusted: see `trust`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTarget {
    /// Its targets entry.
    pub entry: TargetEntry,
    /// Its bytes.
    pub body: Vec<u8>,
    /// When it was accepted.
    pub accepted_at_ms: i64,
}

/// The daemon's store. One connection; used off the async threads.
#[derive(Debug)]
pub struct DeviceStore {
    pub(super) connection: Connection,
    signatures: Signatures,
}

/// Whose word makes what was accepted fit to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signatures {
    /// The publisher's, where a root is pinned for the app.
    #[default]
    AsPinned,
    /// The publisher's, and without a root nothing runs: `trust = "tuf"`.
    Required,
    /// Nobody's: `trust = "none"`.
    Ignored,
}

impl DeviceStore {
    /// Opens or makes `device.db` in `state_dir`. The directory is made 0700 and the file 0600; links in
    /// their places are refused as `private` says.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        make_private_dir(state_dir).map_err(io(state_dir))?;
        let path = state_dir.join("device.db");
        make_private_file(&path).map_err(io(&path))?;
        let connection = open_database(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(at("opening device.db"))?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(at("opening device.db"))?;
        connection
            .pragma_update(None, "journal_mode", "wal")
            .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
            .map_err(at("opening device.db"))?;
        let mut store = Self { connection, signatures: Signatures::default() };
        store.upgrade()?;
        Ok(store)
    }

    /// The same store, with what the configuration says of signatures.
    #[must_use]
    pub fn with_signatures(self, signatures: Signatures) -> Self {
        Self { signatures, ..self }
    }

    /// Whose word makes what was accepted fit to run.
    pub fn signatures(&self) -> Signatures {
        self.signatures
    }

    fn upgrade(&mut self) -> Result<(), StoreError> {
        let known = SCHEMA.len() as u32;
        let number =
            |c: &Connection| c.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).map_err(at("reading the schema of device.db"));
        if number(&self.connection)? == known {
            return Ok(());
        }
        let tx = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(at("upgrading device.db"))?;
        let found = number(&tx)?;
        if found > known {
            return Err(StoreError::TooNew { what: "device.db".to_owned(), found, known });
        }
        for sql in &SCHEMA[found as usize..] {
            tx.execute_batch(sql).map_err(at("upgrading device.db"))?;
        }
        tx.pragma_update(None, "user_version", known).map_err(at("upgrading device.db"))?;
        tx.commit().map_err(at("upgrading device.db"))
    }

    /// Runs `work` in one transaction: all of it is kept, or none.
    pub fn atomically<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(at("beginning in device.db"))?;
        let done = work(self).and_then(|value| self.connection.execute_batch("COMMIT").map(|()| value).map_err(at("committing to device.db")));
        if done.is_err() && !self.connection.is_autocommit() {
            // The error that brought us here says more than a failing rollback would.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done
    }

    // ---- settings ------------------------------------------------------------------------------------------------

    /// A value of ours.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .prepare_cached("SELECT value FROM setting WHERE key = ?1")
            .and_then(|mut s| s.query_row([key], |row| row.get(0)).optional())
            .map(Option::flatten)
            .map_err(at("reading a setting"))
    }

    /// Writes a value of ours; none removes it.
    pub fn set_setting(&self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        match value {
            Some(value) => self.connection.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)", params![key, value]),
            None => self.connection.execute("DELETE FROM setting WHERE key = ?1", [key]),
        }
        .map(|_| ())
        .map_err(at("writing a setting"))
    }

    // ---- databases -----------------------------------------------------------------------------------------------

    /// Every database ever seen, by client id.
    pub fn databases(&self) -> Result<Vec<KnownDatabase>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT client_id, path, app, epoch, device, inode, copied_seq, copied_id FROM database")
            .map_err(at("reading the databases"))?;
        let rows = statement
            .query_map([], |row| {
                Ok((
                    (row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?),
                    (row.get(3)?, row.get::<_, i64>(4)?, row.get::<_, i64>(5)?, row.get(6)?, row.get(7)?),
                ))
            })
            .map_err(at("reading the databases"))?;
        let bad = |e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "database", detail: e.to_string() };
        rows.map(|row| {
            let ((client_id, path, app), (epoch, device, inode, copied_seq, copied_id)) = row.map_err(at("reading the databases"))?;
            let identity = FileIdentity {
                client_id: client_id.parse().map_err(bad)?,
                app: app.parse().map_err(bad)?,
                epoch,
                device: device.cast_unsigned(),
                inode: inode.cast_unsigned(),
            };
            Ok(KnownDatabase { identity, path: PathBuf::from(path), copied_seq, copied_id })
        })
        .collect()
    }

    /// Remembers a database.
    pub fn put_database(&self, known: &KnownDatabase) -> Result<(), StoreError> {
        let id = &known.identity;
        self.connection
            .execute(
                "INSERT OR REPLACE INTO database (client_id, path, app, epoch, device, inode, copied_seq, copied_id) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
                params![
                    id.client_id.to_string(),
                    known.path.to_string_lossy(),
                    id.app.as_str(),
                    id.epoch,
                    id.device.cast_signed(),
                    id.inode.cast_signed(),
                    known.copied_seq,
                    known.copied_id
                ],
            )
            .map(|_| ())
            .map_err(at("remembering a database"))
    }

    /// A file has another client id from now on. `since`: events that happened after it came here, which are to be copied
    /// again under that id; what else was not sent of the old one stays, and is not sent. A hold goes along.
    pub fn part_database(&self, old: ClientId, known: &KnownDatabase, since: &[EventId]) -> Result<(), StoreError> {
        let (old, new) = (old.to_string(), known.identity.client_id.to_string());
        let doing = at("parting a copied database from its original");
        let work = || -> rusqlite::Result<()> {
            let mut again = self.connection.prepare_cached("DELETE FROM report WHERE event_id = ?1 AND client_id = ?2 AND sent <> 1")?;
            for id in since {
                again.execute([&id.to_string(), &old])?;
            }
            self.connection.execute("UPDATE report SET sent = 2 WHERE client_id = ?1 AND sent = 0", [&old])?;
            self.connection.execute("UPDATE OR REPLACE hold SET client_id = ?2 WHERE client_id = ?1", [&old, &new])?;
            self.connection.execute("DELETE FROM plan WHERE client_id = ?1", [&old])?;
            self.connection.execute("DELETE FROM database WHERE client_id = ?1", [&old])?;
            Ok(())
        };
        work().map_err(doing)?;
        self.put_database(known)
    }

    // ---- accepted migrations -------------------------------------------------------------------------------------

    /// Entries of every accepted target of `app`, in chain order.
    pub fn entries(&self, app: &AppName) -> Result<Vec<TargetEntry>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT entry FROM target WHERE app = ?1 ORDER BY version, revision")
            .map_err(at("reading accepted migrations"))?;
        let rows = statement.query_map([app.as_str()], |row| row.get::<_, String>(0)).map_err(at("reading accepted migrations"))?;
        rows.map(|row| parse("target", &row.map_err(at("reading accepted migrations"))?)).collect()
    }

    /// How many targets of `app` were accepted.
    pub fn count_targets(&self, app: &AppName) -> Result<u32, StoreError> {
        self.connection
            .query_row("SELECT count(*) FROM target WHERE app = ?1", [app.as_str()], |row| row.get(0))
            .map_err(at("counting accepted migrations"))
    }

    /// One accepted target with its bytes.
    pub fn target(&self, app: &AppName, version: u32, revision: u32) -> Result<Option<StoredTarget>, StoreError> {
        let row = self
            .connection
            .prepare_cached("SELECT entry, body, accepted_at_ms FROM target WHERE app = ?1 AND version = ?2 AND revision = ?3")
            .and_then(|mut s| {
                s.query_row(params![app.as_str(), version, revision], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))).optional()
            })
            .map_err(at("reading an accepted migration"))?;
        row.map(|(entry, body, accepted_at_ms)| Ok(StoredTarget { entry: parse("target", &entry)?, body, accepted_at_ms })).transpose()
    }

    /// Keeps a target. A target that is kept already is never overwritten; returns whether it was new.
    pub fn accept(&self, app: &AppName, target: &StoredTarget) -> Result<bool, StoreError> {
        let link = &target.entry.custom;
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO target (app, version, revision, name, digest, entry, body, accepted_at_ms) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
            )
            .and_then(|mut s| {
                s.execute(params![
                    app.as_str(),
                    link.version,
                    link.revision,
                    link.name.as_str(),
                    target.entry.digest().to_string(),
                    serde_json::to_string(&target.entry).expect("entries have text keys"),
                    target.body,
                    target.accepted_at_ms
                ])
            })
            .map(|n| n == 1)
            .map_err(at("accepting a migration"))
    }

    // ---- plans ---------------------------------------------------------------------------------------------------

    /// What the server allows, by database.
    pub fn plans(&self) -> Result<BTreeMap<ClientId, Plan>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT body FROM plan").map_err(at("reading the plans"))?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(at("reading the plans"))?;
        rows.map(|row| {
            let plan: Plan = parse("plan", &row.map_err(at("reading the plans"))?)?;
            Ok((plan.client_id, plan))
        })
        .collect()
    }

    /// Keeps a plan unless a later one (by `plan_seq`) is kept; returns whether it was.
    pub fn put_plan(&self, plan: &Plan) -> Result<bool, StoreError> {
        self.connection
            .execute(
                "INSERT INTO plan (client_id, plan_seq, body) VALUES (?1,?2,?3)
                 ON CONFLICT (client_id) DO UPDATE SET plan_seq = excluded.plan_seq, body = excluded.body WHERE excluded.plan_seq >= plan_seq",
                params![
                    plan.client_id.to_string(),
                    i64::try_from(plan.plan_seq).unwrap_or(i64::MAX),
                    serde_json::to_string(plan).expect("plans have text keys")
                ],
            )
            .map(|n| n == 1)
            .map_err(at("keeping a plan"))
    }

    // ---- reports -------------------------------------------------------------------------------------------------

    /// Copies events of a file. An event that was copied before is left as it is.
    pub fn copy_events(&self, events: &[(i64, Event)]) -> Result<(), StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO report (event_id, client_id, body) VALUES (?1,?2,?3)")
            .map_err(at("copying reports"))?;
        for (_, event) in events {
            let body = serde_json::to_string(event).expect("events have text keys");
            statement.execute(params![event.event_id.to_string(), event.client_id.to_string(), body]).map_err(at("copying reports"))?;
        }
        Ok(())
    }

    /// Up to `limit` reports that the server has not acknowledged, oldest first.
    pub fn unsent(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT body FROM report WHERE sent = 0 ORDER BY seq LIMIT ?1").map_err(at("reading reports"))?;
        let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| row.get::<_, String>(0)).map_err(at("reading reports"))?;
        rows.map(|row| parse("report", &row.map_err(at("reading reports"))?)).collect()
    }

    /// How many reports the server has not acknowledged.
    pub fn count_unsent(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row("SELECT count(*) FROM report WHERE sent = 0", [], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(at("counting reports"))
    }

    /// Number of the newest report.
    pub fn last_report(&self) -> Result<Option<i64>, StoreError> {
        self.connection.query_row("SELECT max(seq) FROM report", [], |row| row.get(0)).map_err(at("reading reports"))
    }

    /// The server has these.
    pub fn acknowledge(&self, ids: &[EventId]) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached("UPDATE report SET sent = 1 WHERE event_id = ?1").map_err(at("marking reports"))?;
        for id in ids {
            statement.execute([id.to_string()]).map_err(at("marking reports"))?;
        }
        Ok(())
    }

    /// The server refuses this one for what it says: it is kept, and not sent again.
    pub fn set_aside(&self, id: EventId) -> Result<(), StoreError> {
        self.connection.execute("UPDATE report SET sent = 2 WHERE event_id = ?1", [id.to_string()]).map(|_| ()).map_err(at("setting a report aside"))
    }

    /// Events of one database, or of all, newest first.
    pub fn history(&self, client: Option<ClientId>, limit: u32) -> Result<Vec<Event>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM report WHERE ?1 IS NULL OR client_id = ?1 ORDER BY seq DESC LIMIT ?2")
            .map_err(at("reading the history"))?;
        let rows =
            statement.query_map(params![client.map(|c| c.to_string()), limit], |row| row.get::<_, String>(0)).map_err(at("reading the history"))?;
        rows.map(|row| parse("report", &row.map_err(at("reading the history"))?)).collect()
    }

    // ---- what a person asked for ---------------------------------------------------------------------------------

    /// Keeps a request until it is done. `body` is JSON of the caller's.
    pub fn put_request(&self, id: RequestId, body: &str, now_ms: i64) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR IGNORE INTO request (request_id, seq, body, asked_at_ms) VALUES (?1, (SELECT 1 + coalesce(max(seq), 0) FROM request), ?2, ?3)",
                params![id.to_string(), body, now_ms],
            )
            .map_err(at("keeping a request"))?;
        self.connection
            .execute("DELETE FROM request WHERE outcome IS NOT NULL AND seq <= (SELECT max(seq) FROM request) - ?1", [KEPT_REQUESTS])
            .map(|_| ())
            .map_err(at("keeping a request"))
    }

    /// Requests that are not done, oldest first.
    pub fn open_requests(&self) -> Result<Vec<(RequestId, String)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT request_id, body FROM request WHERE outcome IS NULL ORDER BY seq")
            .map_err(at("reading requests"))?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).map_err(at("reading requests"))?;
        rows.map(|row| {
            let (id, body) = row.map_err(at("reading requests"))?;
            let id = id.parse().map_err(|e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "request", detail: e.to_string() })?;
            Ok((id, body))
        })
        .collect()
    }

    /// What became of a request: `None` unknown, `Some(None)` open.
    pub fn outcome(&self, id: RequestId) -> Result<Option<Option<String>>, StoreError> {
        self.connection
            .query_row("SELECT outcome FROM request WHERE request_id = ?1", [id.to_string()], |row| row.get(0))
            .optional()
            .map_err(at("reading a request"))
    }

    /// A request is done.
    pub fn finish_request(&self, id: RequestId, outcome: &str) -> Result<(), StoreError> {
        self.connection
            .execute("UPDATE request SET outcome = ?2 WHERE request_id = ?1 AND outcome IS NULL", params![id.to_string(), outcome])
            .map(|_| ())
            .map_err(at("finishing a request"))
    }

    // ---- holds ---------------------------------------------------------------------------------------------------

    /// Databases that a person holds, with the end of the hold where it has one. Ended holds are left out.
    pub fn holds(&self, now_ms: i64) -> Result<BTreeMap<ClientId, Option<i64>>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT client_id, until_ms FROM hold WHERE until_ms IS NULL OR until_ms > ?1")
            .map_err(at("reading holds"))?;
        let rows = statement.query_map([now_ms], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).map_err(at("reading holds"))?;
        rows.map(|row| {
            let (id, until) = row.map_err(at("reading holds"))?;
            let id = id.parse().map_err(|e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "hold", detail: e.to_string() })?;
            Ok((id, until))
        })
        .collect()
    }

    /// Holds a database, or lets it go.
    pub fn set_hold(&self, client: ClientId, hold: Option<Option<i64>>, now_ms: i64) -> Result<(), StoreError> {
        match hold {
            Some(until_ms) => self.connection.execute(
                "INSERT OR REPLACE INTO hold (client_id, until_ms, since_ms) VALUES (?1,?2,?3)",
                params![client.to_string(), until_ms, now_ms],
            ),
            None => self.connection.execute("DELETE FROM hold WHERE client_id = ?1", [client.to_string()]),
        }
        .map(|_| ())
        .map_err(at("writing a hold"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, DeviceStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DeviceStore::open(&dir.path().join("state")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_store_of_a_later_whimbrel_is_refused() {
        let (dir, store) = store();
        store.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        let error = DeviceStore::open(&dir.path().join("state")).unwrap_err();
        assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
    }

    #[test]
    fn an_older_plan_never_replaces_a_newer_one() {
        let (_dir, store) = store();
        let plan = |plan_seq, version| Plan {
            client_id: ClientId::from_dice(7),
            app: "notes".parse().unwrap(),
            plan_seq,
            order: whimbrel_shared::protocol::poll::Order::ApplyUpTo { version },
        };
        assert!(store.put_plan(&plan(5, 5)).unwrap());
        assert!(!store.put_plan(&plan(4, 4)).unwrap());
        assert_eq!(store.plans().unwrap()[&ClientId::from_dice(7)], plan(5, 5));
    }

    #[test]
    fn what_fails_half_way_leaves_nothing() {
        let (_dir, mut store) = store();
        let failed: Result<(), _> = store.atomically(|s| {
            s.set_setting("a", Some("1"))?;
            Err(StoreError::Damaged { what: "test", detail: String::new() })
        });
        assert!(failed.is_err());
        assert_eq!(store.setting("a").unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_store() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _store) = store();
        let mode = |p: PathBuf| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.path().join("state")), 0o700);
        assert_eq!(mode(dir.path().join("state/device.db")), 0o600);
    }
}
