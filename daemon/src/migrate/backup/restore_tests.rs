//! What a restore makes of a file that moved on, of a backup that is not what it says, and of rollback-journal mode.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use whimbrel_shared::ids::ClientId;

use super::*;
use crate::{
    ambient::Ambient,
    config::DatabaseRule,
    migrate::{
        apply::Policy,
        backup::{Reason, Shelf, list, take},
        chain::Chain,
    },
    store::{device::DeviceStore, managed},
};

struct Bed {
    _dir: tempfile::TempDir,
    shared: Shared,
    site: Site,
    app: Connection,
}

impl Bed {
    fn new(journal_mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let store = Arc::new(Mutex::new(DeviceStore::open(&state_dir).unwrap()));
        let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: Duration::from_secs(5), report_values: false, skip_verify: false };
        let shelf = Shelf { dir: state_dir.join("backups"), keep: 3 };
        let shared = Shared { store, state_dir, ambient: Ambient::real(), policy, halt: Halt::default(), shelf };
        let path = dir.path().join("a.db");
        let rule = DatabaseRule {
            path: path.to_string_lossy().into_owned(),
            app: "notes".parse().unwrap(),
            app_version: None,
            app_sqlite: None,
            create: true,
            capture: Default::default(),
        };
        let site = Site::new(path.clone(), rule);
        let app = Connection::open(&path).unwrap();
        app.pragma_update(None, "journal_mode", journal_mode).unwrap();
        app.execute_batch("CREATE TABLE mine(x); INSERT INTO mine VALUES (1)").unwrap();
        Self { _dir: dir, shared, site, app }
    }

    fn look(&self) -> Looked {
        work::look(&self.shared, &self.site, &Chain::default(), Missing::Refuse).unwrap()
    }

    /// As a run does: the connection stays open afterwards.
    fn back_up(&self, looked: &Looked) -> Backup {
        let (mut file, _) = self.site.witness.open(&self.site.path, Duration::from_secs(1), Halt::default()).unwrap();
        let (backup, since) = take(&self.shared, &self.site, &mut file, looked, &Chain::default(), Reason::Person).unwrap();
        self.site.witness.keep(&self.site.path, file, Some(since));
        backup
    }

    fn restore(&self, looked: &Looked, backup: &Backup, newer: Newer) -> Result<(), ApplyError> {
        restore(&self.shared, &self.site, looked, backup, newer)
    }

    fn rows(&self) -> u32 {
        self.app.query_row("SELECT count(*) FROM mine", [], |row| row.get(0)).unwrap()
    }
}

fn why(refused: Result<(), ApplyError>) -> String {
    match refused {
        Err(ApplyError::Backup(BackupError::Newer { why, lost, .. })) => format!("{why}; {lost}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_whimbrel_writes_through_the_kept_connection_is_no_foreign_write() {
    let bed = Bed::new("wal");
    let looked = bed.look();
    let backup = bed.back_up(&looked);
    let (file, since) = bed.site.witness.open(&bed.site.path, Duration::from_secs(1), Halt::default()).unwrap();
    assert!(since.is_some(), "the kept connection is used again");
    file.connection.execute_batch("DELETE FROM mine").unwrap();
    bed.site.witness.keep(&bed.site.path, file, since);
    assert_eq!(bed.rows(), 0);
    bed.restore(&looked, &backup, Newer::Keep).unwrap();
    assert_eq!(bed.rows(), 1);
    let again = bed.look();
    assert_eq!((again.identity.client_id, again.identity.epoch), (looked.identity.client_id, 2), "it went back, although no event is missing");
    assert_eq!(bed.look().identity.epoch, 2, "and is known again");
    assert_eq!(managed::backup_mark(&bed.app).unwrap(), None);
}

#[test]
fn one_foreign_commit_is_enough_to_refuse() {
    let bed = Bed::new("wal");
    let looked = bed.look();
    let backup = bed.back_up(&looked);
    bed.app.execute_batch("INSERT INTO mine VALUES (2)").unwrap();
    assert!(why(bed.restore(&looked, &backup, Newer::Keep)).contains("1 row of mine"));
    assert_eq!(bed.rows(), 2);
    // And it stays so: the connection that could vouch is gone.
    assert!(why(bed.restore(&looked, &backup, Newer::Keep)).contains("has not had the file open"));
    bed.restore(&looked, &backup, Newer::Discard).unwrap();
    assert_eq!(bed.rows(), 1);
}

#[test]
fn in_rollback_journal_mode_a_person_has_to_say_so() {
    let bed = Bed::new("delete");
    let looked = bed.look();
    let backup = bed.back_up(&looked);
    assert!(why(bed.restore(&looked, &backup, Newer::Keep)).contains("rollback-journal mode"));
    bed.app.execute_batch("DELETE FROM mine").unwrap();
    bed.restore(&looked, &backup, Newer::Discard).unwrap();
    assert_eq!(bed.rows(), 1);
    assert_eq!(bed.app.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)).unwrap(), "delete");
}

#[test]
fn a_reader_that_stays_keeps_what_it_sees_and_a_writer_is_waited_for() {
    let bed = Bed::new("wal");
    let looked = bed.look();
    let backup = bed.back_up(&looked);
    bed.app.execute_batch("INSERT INTO mine VALUES (2)").unwrap();
    let reader = Connection::open(&bed.site.path).unwrap();
    let seen = |c: &Connection| c.query_row("SELECT count(*) FROM mine", [], |row| row.get::<_, u32>(0)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(seen(&reader), 2);
    bed.restore(&looked, &backup, Newer::Discard).unwrap();
    assert_eq!((seen(&reader), bed.rows()), (2, 1));
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(seen(&reader), 1);
    // A writer that does not end: nothing is forced, and nothing is changed.
    bed.app.execute_batch("BEGIN IMMEDIATE; INSERT INTO mine VALUES (3)").unwrap();
    let mut shared = bed.shared.clone();
    shared.policy.wait_for_app = Duration::from_millis(50);
    let refused = restore(&shared, &bed.site, &looked, &backup, Newer::Discard);
    assert!(matches!(refused, Err(ApplyError::Busy { .. })), "{refused:?}");
    bed.app.execute_batch("COMMIT").unwrap();
    assert_eq!(bed.rows(), 2);
}

#[test]
fn a_backup_that_is_damaged_or_of_another_database_is_never_written_back() {
    let bed = Bed::new("wal");
    bed.app.execute_batch("CREATE TABLE pad(x); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 200) INSERT INTO pad SELECT zeroblob(3000) FROM c").unwrap();
    let looked = bed.look();
    let backup = bed.back_up(&looked);
    let mut other = looked.clone();
    other.identity.client_id = ClientId::from_dice(7);
    let refused = bed.restore(&other, &backup, Newer::Discard);
    assert!(matches!(refused, Err(ApplyError::Backup(BackupError::Foreign { .. }))), "{refused:?}");

    let mut bytes = fs::read(&backup.path).unwrap();
    let middle = (bytes.len() / 2) & !4095;
    bytes[middle..middle + 4096].fill(0xab);
    fs::write(&backup.path, bytes).unwrap();
    let refused = bed.restore(&looked, &backup, Newer::Discard);
    assert!(matches!(refused, Err(ApplyError::Backup(BackupError::Damaged { .. } | BackupError::Sqlite { .. }))), "{refused:?}");
    assert_eq!(bed.rows(), 1);
    assert_eq!(bed.look().identity.epoch, 1, "the file did not go back");
}

#[test]
fn what_lies_on_the_shelf_and_is_no_backup_is_left_out_and_left_alone() {
    let bed = Bed::new("wal");
    let looked = bed.look();
    let backup = bed.back_up(&looked);
    let folder: PathBuf = backup.path.parent().unwrap().to_owned();
    fs::write(folder.join("notes.db"), "no database at all").unwrap();
    fs::write(folder.join("next.part"), "half a backup").unwrap();
    fs::write(folder.join("next.part-journal"), "").unwrap();
    assert_eq!(list(&bed.shared.shelf, looked.identity.client_id).unwrap(), std::slice::from_ref(&backup));
    super::super::sweep(&bed.shared.shelf, looked.identity.client_id).unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [format!("{}.db", backup.of.backup_id), "notes.db".to_owned()]);
}
