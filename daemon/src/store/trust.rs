//! The rows that signatures rest on: the pinned root, verified metadata, version floors, and the proofs of what was
//! accepted. A row that is not what was written is told as damage, never left out.

use rusqlite::{OptionalExtension, params};
use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::TargetEntry,
};

use super::{StoreError, at, code_of, device::DeviceStore, words::parse};

/// Metadata by the name that it is kept under.
pub type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// Below which version a role is not believed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// `root`, `timestamp`, `snapshot` or `targets`.
    pub role: String,
    /// The version that was verified last.
    pub version: u64,
    /// Key ids that signed it.
    pub signers: Vec<String>,
    /// Digest of the root that was pinned then.
    pub anchor: Digest,
}

/// All that is kept of one app, but for proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The pinned root.
    pub anchor: Option<Vec<u8>>,
    /// Verified metadata whose rows are whole.
    pub files: Files,
    /// Floors whose rows are whole.
    pub floors: Vec<Floor>,
    /// A proof, read only where neither files nor floors are there: then it is all that tells how far the app had come.
    pub last_word: Option<Proof>,
    /// What is not as it was written, one sentence each.
    pub damage: Vec<String>,
}

/// The role under which the moment of the last accepting stands among the floors, in milliseconds since 1970.
pub const ACCEPTED: &str = "accepted";

/// A whole set of metadata, as it was current at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The moment for which it is verified.
    pub accepted_at_ms: i64,
    /// Versions of root, timestamp, snapshot and targets.
    pub versions: [u64; 4],
    /// Key ids that signed the targets.
    pub signers: Vec<String>,
    /// `timestamp.json`.
    pub timestamp: Vec<u8>,
    /// `snapshot.json`.
    pub snapshot: Vec<u8>,
    /// `targets.json`.
    pub targets: Vec<u8>,
}

impl Proof {
    /// Its name: the digest of all of it, and of the root that is pinned.
    pub fn id(&self, anchor: &[u8]) -> Digest {
        let numbers = format!("{} {:?} {}", self.accepted_at_ms, self.versions, self.signers.join(" "));
        of(&[b"proof", anchor, numbers.as_bytes(), &self.timestamp, &self.snapshot, &self.targets])
    }
}

/// What speaks for an accepted target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetProof {
    /// Name of its proof.
    pub proof: Digest,
    /// Since when the publisher no longer lists it.
    pub withdrawn_at_ms: Option<i64>,
}

/// A digest of parts that cannot run into each other.
fn of(parts: &[&[u8]]) -> Digest {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    Digest::of(&all)
}

fn anchor_digest(app: &AppName, root: &[u8], pinned_at_ms: i64) -> String {
    of(&[b"anchor", app.as_str().as_bytes(), root, &pinned_at_ms.to_be_bytes()]).to_string()
}

fn file_digest(app: &AppName, name: &str, body: &[u8]) -> String {
    of(&[b"file", app.as_str().as_bytes(), name.as_bytes(), body]).to_string()
}

fn floor_digest(app: &AppName, role: &str, version: i64, signers: &str, anchor: &str) -> String {
    of(&[b"floor", app.as_str().as_bytes(), role.as_bytes(), &version.to_be_bytes(), signers.as_bytes(), anchor.as_bytes()]).to_string()
}

fn integer(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// A table that SQLite itself cannot read is damage as well; any other failure is one of the moment.
fn or_damage(what: &str, read: Result<(), rusqlite::Error>, damage: &mut Vec<String>) -> Result<(), StoreError> {
    match read {
        Ok(()) => Ok(()),
        Err(error) if matches!(code_of(&error) & 0xff, rusqlite::ffi::SQLITE_CORRUPT | rusqlite::ffi::SQLITE_NOTADB) => {
            damage.push(format!("{what} cannot be read: {error}"));
            Ok(())
        }
        // A value of another type than was written.
        Err(error @ (rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::Utf8Error(..))) => {
            damage.push(format!("{what} cannot be read: {error}"));
            Ok(())
        }
        Err(error) => Err(at("reading what is trusted")(error)),
    }
}

impl DeviceStore {
    /// Everything that is kept of `app`. Fails only where `device.db` cannot be used at the moment; rows that are not as
    /// they were written are left out and named in [`Kept::damage`].
    pub fn kept(&self, app: &AppName) -> Result<Kept, StoreError> {
        let mut kept = Kept::default();
        let mut damage = Vec::new();
        let (anchor, files, floors) = (&mut kept.anchor, &mut kept.files, &mut kept.floors);
        let read = self
            .connection
            .prepare_cached("SELECT root, pinned_at_ms, digest FROM trust_anchor WHERE app = ?1")
            .and_then(|mut s| s.query_row([app.as_str()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get::<_, String>(2)?))).optional())
            .map(|row| {
                if let Some((root, pinned_at_ms, digest)) = row {
                    if anchor_digest(app, &root, pinned_at_ms) == digest {
                        *anchor = Some(root);
                    } else {
                        damage.push("the pinned root is not what was pinned".to_owned());
                    }
                }
            });
        or_damage("the pinned root", read, &mut damage)?;
        let read = (|| {
            let mut statement = self.connection.prepare_cached("SELECT name, body, digest FROM trust_file WHERE app = ?1")?;
            let mut rows = statement.query([app.as_str()])?;
            while let Some(row) = rows.next()? {
                let (name, body, digest): (String, Vec<u8>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if file_digest(app, &name, &body) == digest {
                    files.insert(name, body);
                } else {
                    damage.push(format!("{name} is not what was kept"));
                }
            }
            Ok(())
        })();
        or_damage("the kept metadata", read, &mut damage)?;
        let read = (|| {
            let mut statement = self.connection.prepare_cached("SELECT role, version, signers, anchor, digest FROM trust_floor WHERE app = ?1")?;
            let mut rows = statement.query([app.as_str()])?;
            while let Some(row) = rows.next()? {
                let (role, version, signers, anchor, digest): (String, i64, String, String, String) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                let whole = floor_digest(app, &role, version, &signers, &anchor) == digest;
                match anchor.parse() {
                    Ok(anchor) if whole => {
                        let signers = signers.split_whitespace().map(str::to_owned).collect();
                        floors.push(Floor { role, version: version.cast_unsigned(), signers, anchor });
                    }
                    _ => damage.push(format!("the floor of {role} is not what was kept")),
                }
            }
            Ok(())
        })();
        or_damage("the floors", read, &mut damage)?;
        if kept.files.is_empty() && kept.floors.is_empty() && damage.is_empty() {
            let some = self.proof_ids(app, "SELECT proof FROM trust_proof WHERE app = ?1 ORDER BY accepted_at_ms DESC LIMIT 1")?;
            kept.last_word = some.first().map(|id| self.proof(app, *id)).transpose()?.flatten();
        }
        kept.damage = damage;
        Ok(kept)
    }

    /// Pins `root` for `app`. Verified metadata starts anew from it; floors stay.
    pub fn pin(&self, app: &AppName, root: &[u8], now_ms: i64) -> Result<(), StoreError> {
        let work = || -> rusqlite::Result<()> {
            self.connection.execute(
                "INSERT OR REPLACE INTO trust_anchor (app, root, pinned_at_ms, digest) VALUES (?1,?2,?3,?4)",
                params![app.as_str(), root, now_ms, anchor_digest(app, root, now_ms)],
            )?;
            self.connection.execute("DELETE FROM trust_file WHERE app = ?1", [app.as_str()])?;
            Ok(())
        };
        work().map_err(at("pinning a root"))
    }

    /// Replaces the metadata and the floors of `app`. Part of a transaction of the caller's.
    pub fn keep_trusted(&self, app: &AppName, before: &Files, files: &Files, floors: &[Floor]) -> Result<(), StoreError> {
        let work = || -> rusqlite::Result<()> {
            let mut gone = self.connection.prepare_cached("DELETE FROM trust_file WHERE app = ?1 AND name = ?2")?;
            for name in before.keys().filter(|name| !files.contains_key(*name)) {
                gone.execute([app.as_str(), name])?;
            }
            let mut put = self.connection.prepare_cached("INSERT OR REPLACE INTO trust_file (app, name, body, digest) VALUES (?1,?2,?3,?4)")?;
            for (name, body) in files.iter().filter(|(name, body)| before.get(*name) != Some(*body)) {
                put.execute(params![app.as_str(), name, body, file_digest(app, name, body)])?;
            }
            self.connection.execute("DELETE FROM trust_floor WHERE app = ?1", [app.as_str()])?;
            let mut put =
                self.connection.prepare_cached("INSERT INTO trust_floor (app, role, version, signers, anchor, digest) VALUES (?1,?2,?3,?4,?5,?6)")?;
            for floor in floors {
                let (version, signers, anchor) = (integer(floor.version), floor.signers.join(" "), floor.anchor.to_string());
                put.execute(params![app.as_str(), floor.role, version, signers, anchor, floor_digest(app, &floor.role, version, &signers, &anchor)])?;
            }
            Ok(())
        };
        work().map_err(at("keeping what is trusted"))
    }

    /// Takes away all rows of metadata and floors of `app`, whole or not. Part of a transaction of the caller's, which puts
    /// the floors back.
    pub fn clear_trusted(&self, app: &AppName) -> Result<(), StoreError> {
        ["DELETE FROM trust_file WHERE app = ?1", "DELETE FROM trust_floor WHERE app = ?1"]
            .iter()
            .try_for_each(|sql| self.connection.execute(sql, [app.as_str()]).map(|_| ()))
            .map_err(at("clearing what was damaged"))
    }

    /// Keeps a proof; one that is kept already stays.
    pub fn put_proof(&self, app: &AppName, id: Digest, proof: &Proof) -> Result<(), StoreError> {
        let [root, timestamp, snapshot, targets] = proof.versions.map(integer);
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO trust_proof (app, proof, accepted_at_ms, root_version, timestamp_version, snapshot_version, targets_version,
                    signers, timestamp, snapshot, targets) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
            )
            .and_then(|mut s| {
                s.execute(params![
                    app.as_str(),
                    id.to_string(),
                    proof.accepted_at_ms,
                    root,
                    timestamp,
                    snapshot,
                    targets,
                    proof.signers.join(" "),
                    proof.timestamp,
                    proof.snapshot,
                    proof.targets
                ])
            })
            .map(|_| ())
            .map_err(at("keeping a proof"))
    }

    /// A proof by its name, as it lies there: whoever uses it compares [`Proof::id`].
    pub fn proof(&self, app: &AppName, id: Digest) -> Result<Option<Proof>, StoreError> {
        self.connection
            .prepare_cached(
                "SELECT accepted_at_ms, root_version, timestamp_version, snapshot_version, targets_version, signers, timestamp, snapshot, targets
                 FROM trust_proof WHERE app = ?1 AND proof = ?2",
            )
            .and_then(|mut s| {
                s.query_row([app.as_str(), &id.to_string()], |row| {
                    let version = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                    Ok(Proof {
                        accepted_at_ms: row.get(0)?,
                        versions: [version(1)?, version(2)?, version(3)?, version(4)?],
                        signers: row.get::<_, String>(5)?.split_whitespace().map(str::to_owned).collect(),
                        timestamp: row.get(6)?,
                        snapshot: row.get(7)?,
                        targets: row.get(8)?,
                    })
                })
                .optional()
            })
            .map_err(at("reading a proof"))
    }

    /// Names of the proofs that speak for targets which are still listed.
    pub fn live_proofs(&self, app: &AppName) -> Result<Vec<Digest>, StoreError> {
        self.proof_ids(app, "SELECT DISTINCT proof FROM target_proof WHERE app = ?1 AND withdrawn_at_ms IS NULL")
    }

    fn proof_ids(&self, app: &AppName, sql: &str) -> Result<Vec<Digest>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(at("reading the proofs"))?;
        let names = statement.query_map([app.as_str()], |row| row.get::<_, String>(0)).map_err(at("reading the proofs"))?;
        names.map(|name| parse("trust_proof", &name.map_err(at("reading the proofs"))?)).collect()
    }

    /// When metadata of any app was accepted last, in milliseconds since 1970, as far as rows are whole.
    pub fn newest_accepted_ms(&self) -> Result<Option<i64>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT app, version, signers, anchor, digest FROM trust_floor WHERE role = ?1")
            .map_err(at("reading when something was accepted"))?;
        let rows = statement
            .query_map([ACCEPTED], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?, row.get::<_, String>(4)?))
            })
            .map_err(at("reading when something was accepted"))?;
        // A row that is damaged says so elsewhere: a time that nobody wrote must not make everything expire.
        let whole = rows.filter_map(Result::ok).filter_map(|(app, ms, signers, anchor, digest)| {
            let app = app.parse().ok()?;
            (floor_digest(&app, ACCEPTED, ms, &signers, &anchor) == digest).then_some(ms)
        });
        Ok(whole.max())
    }

    /// Says which proof speaks for a target; it is listed.
    pub fn prove(&self, app: &AppName, entry: &TargetEntry, proof: Digest) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO target_proof (app, version, revision, proof, withdrawn_at_ms) VALUES (?1,?2,?3,?4,NULL)")
            .and_then(|mut s| s.execute(params![app.as_str(), entry.custom.version, entry.custom.revision, proof.to_string()]))
            .map(|_| ())
            .map_err(at("proving a target"))
    }

    /// The publisher no longer lists a target. When that was first seen stays, and so does the proof that it once had; one
    /// that never had any gets `proof`, which does not list it.
    pub fn withdraw(&self, app: &AppName, entry: &TargetEntry, proof: Digest, now_ms: i64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO target_proof (app, version, revision, proof, withdrawn_at_ms) VALUES (?1,?2,?3,?4,?5)
                 ON CONFLICT (app, version, revision) DO UPDATE SET withdrawn_at_ms = coalesce(withdrawn_at_ms, excluded.withdrawn_at_ms)",
            )
            .and_then(|mut s| s.execute(params![app.as_str(), entry.custom.version, entry.custom.revision, proof.to_string(), now_ms]))
            .map(|_| ())
            .map_err(at("withdrawing a target"))
    }

    /// What speaks for a target.
    pub fn proof_of(&self, app: &AppName, version: u32, revision: u32) -> Result<Option<TargetProof>, StoreError> {
        let row = self
            .connection
            .prepare_cached("SELECT proof, withdrawn_at_ms FROM target_proof WHERE app = ?1 AND version = ?2 AND revision = ?3")
            .and_then(|mut s| s.query_row(params![app.as_str(), version, revision], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional())
            .map_err(at("reading what speaks for a target"))?;
        row.map(|(proof, withdrawn_at_ms)| Ok(TargetProof { proof: parse("target_proof", &proof)?, withdrawn_at_ms })).transpose()
    }

    /// Which versions and revisions of `app` are accepted and no longer listed.
    pub fn withdrawn(&self, app: &AppName) -> Result<Vec<(u32, u32)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT version, revision FROM target_proof WHERE app = ?1 AND withdrawn_at_ms IS NOT NULL ORDER BY version, revision")
            .map_err(at("reading what was withdrawn"))?;
        let rows = statement.query_map([app.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).map_err(at("reading what was withdrawn"))?;
        rows.collect::<Result<_, _>>().map_err(at("reading what was withdrawn"))
    }

    /// Lets go of proofs that speak for nothing, but for `newest`.
    pub fn drop_idle_proofs(&self, app: &AppName, newest: Digest) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM trust_proof WHERE app = ?1 AND proof <> ?2 AND proof NOT IN (SELECT proof FROM target_proof WHERE app = ?1)")
            .and_then(|mut s| s.execute([app.as_str(), &newest.to_string()]))
            .map(|_| ())
            .map_err(at("dropping old proofs"))
    }
}
