//! Backups: whole copies of a database, made while its application goes on, each of which says itself what it is of, and
//! brought back through SQLite's backup API (DESIGN 8.4).
//!
//! Each database has a directory of its own, `DIR/CLIENT_ID/`, with `ID.db` for each backup and nothing else but a `.part`
//! while one is being made. A backup is a plain SQLite file; the one row that tells it from the database stands in
//! `_whimbrel_meta` under `backup`. Restored, that row comes along and tells the daemon that the file went back.

mod away;
mod bites;
pub mod copy;
mod difference;
mod error;
pub mod restore;
pub mod witness;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    fingerprint::Schema,
    ids::{AppName, ClientId, Digest},
    manifest,
    migration::Migration,
    status::Operation,
};

pub(in crate::migrate) use self::away::take_away;
pub use self::error::BackupError;
use self::{
    copy::{Pages, copy},
    error::{io, sqlite},
    witness::Since,
};
use super::{
    chain::Chain,
    connection::Managed,
    error::ApplyError,
    halt::Halt,
    live::Phase,
    plan,
    schema::SchemaReader,
    work::{Looked, Planned, Shared, Site},
};
use crate::store::{
    managed,
    private::{make_private_dir, open_database},
};

/// Where backups are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    /// The directory; each database has one of its own in it.
    pub dir: PathBuf,
    /// Newest backups kept of each database, at least 1.
    pub keep: u32,
}

/// What a backup is of. It is written into the backup itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// Its name, unique for the database: when it was made (UTC) and the version it holds.
    pub backup_id: String,
    /// The database.
    pub client_id: ClientId,
    /// Its app.
    pub app: AppName,
    /// How often the database had gone back then, from 1.
    pub epoch: u32,
    /// Highest version in place in it.
    pub version: u32,
    /// Fingerprint of the chain's objects in it; none where the chain was published without a rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// When it was made, in milliseconds since 1970.
    pub taken_at_ms: i64,
    /// Why it was made.
    pub reason: Reason,
}

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A migration that was about to run asked for it.
    BeforeApply,
    /// A migration that was about to be reverted asked for it.
    BeforeRevert,
    /// A person asked for it.
    Person,
}

/// A backup on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// What it is of.
    #[serde(flatten)]
    pub of: Of,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
}

/// Whether `migration` wants a backup before it runs, by the publisher's signed word: `always`, or `auto` and what it
/// does is destructive. Publishing refuses a destructive step whose manifest does not say so. Pure.
pub fn is_wanted(migration: &Migration) -> bool {
    match migration.manifest.backup {
        manifest::Backup::Always => true,
        manifest::Backup::Auto => migration.manifest.destructive,
        manifest::Backup::Never => false,
    }
}

/// Makes a backup before a run of which a migration asks for one. Where the run's connection has been watching since an
/// earlier backup of the same version and nobody has written since, that one serves. The caller holds the lock file and
/// no transaction; answers since when the connection can vouch for the file.
pub fn before_run(
    shared: &Shared,
    site: &Site,
    file: &mut Managed,
    since: Option<Since>,
    looked: &Looked,
    chain: &Chain,
    planned: &[Planned],
) -> Result<Option<Since>, ApplyError> {
    let Some(first) = planned.first().filter(|_| planned.iter().any(|p| p.backup)) else { return Ok(since) };
    let reason = match first.operation {
        Operation::Apply => Reason::BeforeApply,
        Operation::Revert => Reason::BeforeRevert,
    };
    if let Some(since) = &since {
        let serves = |b: &Backup| b.of.backup_id == since.backup_id && b.of.version == looked.position;
        if since.is_unmoved(&file.connection) && list(&shared.shelf, looked.identity.client_id)?.iter().any(serves) {
            return Ok(Some(since.clone()));
        }
    }
    let (_, since) = take(shared, site, file, looked, chain, reason)?;
    Ok(Some(since))
}

/// Makes a backup of the database as it is now, checks it, and takes away what is more than the shelf keeps. Answers it,
/// and since when `file` can vouch that nobody else has written. Fails without a trace: a `.part` that a crash leaves is
/// swept before the next one.
pub fn take(shared: &Shared, site: &Site, file: &mut Managed, looked: &Looked, chain: &Chain, reason: Reason) -> Result<(Backup, Since), ApplyError> {
    let identity = &looked.identity;
    let dir = shared.shelf.dir.join(identity.client_id.to_string());
    make_private_dir(&dir).map_err(io(&dir))?;
    sweep(&shared.shelf, identity.client_id)?;
    let taken_at_ms = shared.ambient.now_ms();
    let mut of = None;
    site.live.set(Phase::Copying(Pages::default()));
    let mut watch = |pages| site.live.set(Phase::Copying(pages));
    // The version is that of the copy: what the look found may be older than the pin.
    let mark = |connection: &Connection| {
        let version = plan::position(&managed::history(connection)?);
        let made = Of {
            backup_id: free_id(&dir, taken_at_ms, version),
            client_id: identity.client_id,
            app: identity.app.clone(),
            epoch: identity.epoch,
            version,
            fingerprint: fingerprint(connection, chain, version).map_err(sqlite("reading the copy's schema"))?,
            taken_at_ms,
            reason,
        };
        let text = serde_json::to_string(&made).expect("a mark has text keys");
        managed::set_backup_mark(connection, Some(&text))?;
        of = Some(made);
        Ok(())
    };
    // Before the pin: what moves from here on is not in the copy for certain.
    let begun = Since::now(&file.connection)?;
    let part = copy(&file.connection, dir.join("next.part"), &halt_of(shared, site), &mut watch, mark)?;
    let of = of.expect("a copy that was made was marked");
    check(&part.path)?;
    let path = dir.join(format!("{}.db", of.backup_id));
    part.finish(&path)?;
    let size_bytes = fs::metadata(&path).map_err(io(&path))?.len();
    tracing::info!(database.path = %site.path.display(), backup = %path.display(), "made the backup {} of {size_bytes} bytes", of.backup_id);
    retain(&shared.shelf, &of)?;
    let since = begun.of(&of.backup_id);
    Ok((Backup { of, path, size_bytes }, since))
}

/// The backups of a database, newest first. A file that is not one is left out and left alone.
pub fn list(shelf: &Shelf, client: ClientId) -> Result<Vec<Backup>, BackupError> {
    let mut found: Vec<Backup> = files(shelf, client, "db")?.iter().filter_map(|path| read(path).ok()).collect();
    found.retain(|b| b.of.client_id == client);
    found.sort_by(|a, b| (b.of.taken_at_ms, &b.of.backup_id).cmp(&(a.of.taken_at_ms, &a.of.backup_id)));
    Ok(found)
}

/// Reads what a backup says of itself.
pub fn read(path: &Path) -> Result<Backup, BackupError> {
    let foreign = |why: String| BackupError::Foreign { path: path.to_owned(), why };
    let connection = open(path)?;
    let mark = managed::backup_mark(&connection).map_err(|e| foreign(e.to_string()))?;
    let mark = mark.ok_or_else(|| foreign("it does not say what it is of".to_owned()))?;
    let of = serde_json::from_str(&mark).map_err(|e| foreign(e.to_string()))?;
    Ok(Backup { of, path: path.to_owned(), size_bytes: fs::metadata(path).map_err(io(path))?.len() })
}

/// Takes away what a backup that was killed left behind. Nobody else makes backups of this database.
pub fn sweep(shelf: &Shelf, client: ClientId) -> Result<(), BackupError> {
    for suffix in ["part", "part-journal", "part-wal", "part-shm"] {
        for path in files(shelf, client, suffix)? {
            take_away(&path).map_err(io(&path))?;
            tracing::info!(file = %path.display(), "took away what an interrupted backup left behind");
        }
    }
    Ok(())
}

/// Which backups go when `made` has come: all but the newest `keep`, and what an earlier try of the same run made, so that a
/// migration that fails again and again does not push out what is older. `made` itself never goes, whatever the clock
/// did. `all` is newest first. Pure.
pub fn superfluous<'a>(all: &'a [Backup], made: &Of, keep: u32) -> Vec<&'a Backup> {
    let again = |b: &Backup| made.reason != Reason::Person && (b.of.reason, b.of.version, b.of.epoch) == (made.reason, made.version, made.epoch);
    let (go, stay): (Vec<_>, Vec<_>) = all.iter().filter(|b| b.of.backup_id != made.backup_id).partition(|b| again(b));
    let others = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(1);
    go.into_iter().chain(stay.into_iter().skip(others)).collect()
}

/// Takes away the backups that are too many now that `made` is there.
fn retain(shelf: &Shelf, made: &Of) -> Result<(), BackupError> {
    for old in superfluous(&list(shelf, made.client_id)?, made, shelf.keep) {
        discard(&old.path)?;
        tracing::info!(backup = %old.path.display(), "took away the backup {}: newer ones are kept", old.of.backup_id);
    }
    Ok(())
}

/// Takes a backup away. It is no backup any more before it is touched: a crash leaves a `.part`, which is swept, and whoever
/// reads the file meanwhile keeps it whole.
pub fn discard(backup: &Path) -> Result<(), BackupError> {
    let part = backup.with_extension("part");
    fs::rename(backup, &part).map_err(io(backup))?;
    take_away(&part).map_err(io(&part))
}

/// Fingerprint of the chain's objects as they are in the file.
pub(super) fn fingerprint(connection: &Connection, chain: &Chain, version: u32) -> rusqlite::Result<Option<Digest>> {
    let Some(expected) = chain.schema_at(version).filter(|_| version > 0) else { return Ok(None) };
    let mut found = SchemaReader::default();
    found.read(connection)?;
    Ok(Some(Schema::digest(&expected.restricted(found.schema()))))
}

/// What stops a copy of this database.
pub fn halt_of(shared: &Shared, site: &Site) -> Halt {
    Halt { hold: site.live.hold.clone(), ..shared.halt.clone() }
}

/// Opens a backup for reading.
fn open(path: &Path) -> Result<Connection, BackupError> {
    open_database(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite("opening the backup"))
}

/// SQLite's own check, through a connection that has nothing of it in memory.
fn check(path: &Path) -> Result<(), BackupError> {
    let mut connection = open(path)?;
    // Long for a large file; every thousand steps of it are a sign of life.
    connection
        .progress_handler(
            1_000_000,
            Some(|| {
                crate::ambient::pulse();
                false
            }),
        )
        .map_err(sqlite("checking the backup"))?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite("checking the backup"))?;
    if found == "ok" { Ok(()) } else { Err(BackupError::Damaged { path: path.to_owned(), found }) }
}

/// `20261121-112233-v3`, with a number behind it where that is taken.
fn free_id(dir: &Path, taken_at_ms: i64, version: u32) -> String {
    let at = chrono::DateTime::from_timestamp_millis(taken_at_ms).unwrap_or_default().format("%Y%m%d-%H%M%S");
    let plain = format!("{at}-v{version}");
    let mut ids = std::iter::once(plain.clone()).chain((2u32..).map(|n| format!("{plain}-{n}")));
    ids.find(|id| !dir.join(format!("{id}.db")).exists()).expect("there is always a next number")
}

/// The files of a database on the shelf whose names end in `.suffix`.
fn files(shelf: &Shelf, client: ClientId, suffix: &str) -> Result<Vec<PathBuf>, BackupError> {
    let dir = shelf.dir.join(client.to_string());
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(&dir)(error)),
    };
    let paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(io(&dir))?;
    Ok(paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == suffix)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(id: &str, taken_at_ms: i64, version: u32, reason: Reason) -> Backup {
        let (client_id, app) = (ClientId::from_dice(1), "notes".parse().unwrap());
        let of = Of { backup_id: id.to_owned(), client_id, app, epoch: 1, version, fingerprint: None, taken_at_ms, reason };
        Backup { of, path: format!("{id}.db").into(), size_bytes: 0 }
    }

    #[test]
    fn the_newest_are_kept_and_tries_of_one_run_count_once() {
        use Reason::{BeforeApply, Person};
        let check = |all: &[Backup], keep, expected: &[&str]| {
            let made = all.iter().find(|b| b.of.backup_id == "made").unwrap();
            let go: Vec<_> = superfluous(all, &made.of, keep).into_iter().map(|b| b.of.backup_id.clone()).collect();
            assert_eq!(go, expected);
        };
        let [c, b, a] = [made("c", 3, 3, Person), made("b", 2, 2, BeforeApply), made("a", 1, 1, BeforeApply)];
        let now = |version, reason| made("made", 9, version, reason);
        check(&[now(4, BeforeApply), c.clone(), b.clone(), a.clone()], 3, &["a"]);
        check(&[now(4, BeforeApply), c.clone(), b.clone(), a.clone()], 1, &["c", "b", "a"]);
        // Tried again: only its own earlier try goes.
        check(&[now(2, BeforeApply), c.clone(), b.clone(), a.clone()], 3, &["b"]);
        // A person's own backups of one version stand side by side.
        check(&[now(3, Person), c.clone(), b.clone(), a.clone()], 4, &[]);
        // The clock went back: what was just made looks oldest, and stays.
        check(&[c, b, a, made("made", 0, 4, BeforeApply)], 2, &["b", "a"]);
    }

    #[test]
    fn a_backup_is_wanted_as_the_manifest_says() {
        let check = |toml: &str, expected| {
            let manifest = manifest::Manifest::parse(toml).unwrap();
            let migration = Migration { format: String::new(), name: "m".parse().unwrap(), manifest, down: None, files: Default::default() };
            assert_eq!(is_wanted(&migration), expected, "{toml}");
        };
        check("", false);
        check("destructive = true", true);
        check("backup = \"always\"", true);
        check("backup = \"never\"\ndestructive = true", false);
    }

    #[test]
    fn two_backups_of_one_second_have_two_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(free_id(dir.path(), 1_795_260_153_000, 3), "20261121-112233-v3");
        fs::write(dir.path().join("20261121-112233-v3.db"), "").unwrap();
        assert_eq!(free_id(dir.path(), 1_795_260_153_000, 3), "20261121-112233-v3-2");
    }
}
