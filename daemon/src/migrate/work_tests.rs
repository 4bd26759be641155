//! What a look makes of a file that was copied, restored, moved, locked or never a database.

use std::{collections::BTreeMap, fs};

use rusqlite::Connection;

use super::*;

struct Bed {
    dir: tempfile::TempDir,
    shared: Shared,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let store = Arc::new(Mutex::new(DeviceStore::open(&state_dir).unwrap()));
        let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: Duration::from_secs(5), report_values: false, skip_verify: false };
        let shelf = Shelf { dir: state_dir.join("backups"), keep: 3 };
        let shared = Shared { store, state_dir, ambient: Ambient::real(), policy, halt: Halt::default(), shelf };
        Self { dir, shared }
    }

    fn site(&self, name: &str) -> Site {
        let path = self.dir.path().join(name);
        let rule = DatabaseRule {
            path: path.to_string_lossy().into_owned(),
            app: "notes".parse().unwrap(),
            app_version: None,
            app_sqlite: None,
            create: true,
            capture: Default::default(),
        };
        Site::new(path, rule)
    }

    fn make(&self, name: &str) -> Site {
        let site = self.site(name);
        Connection::open(&site.path).unwrap().execute_batch("CREATE TABLE mine(x)").unwrap();
        site
    }

    fn look(&self, site: &Site) -> Result<Looked, HealthItem> {
        look(&self.shared, site, &Chain::default(), Missing::Refuse)
    }

    fn add_event(&self, site: &Site, looked: &Looked) {
        let mut file = Managed::open(&site.path, Missing::Refuse, Duration::from_secs(1), Halt::default()).unwrap();
        let event = Event {
            event_id: self.shared.ambient.event_id(),
            client_id: looked.identity.client_id,
            app: looked.identity.app.clone(),
            kind: EventKind::Retried,
            operation: Operation::Apply,
            migration: "m".parse().unwrap(),
            version: 1,
            revision: 1,
            digest: Digest::of(b"m"),
            status: Status::Pending,
            attempt: 1,
            by: AskedBy::Person,
            at_ms: 0,
            took_ms: None,
            failure: None,
            fingerprint: None,
            rows: None,
            verify_skipped: false,
        };
        write(&mut file, Terms::ours(Duration::from_secs(1)), |f| Ok(managed::append_event(&f.connection, &event)?)).unwrap();
    }

    fn unsent(&self) -> usize {
        self.shared.store().unsent(1000).unwrap().len()
    }
}

#[test]
fn a_look_prepares_a_file_once_and_knows_it_again() {
    let bed = Bed::new();
    let site = bed.make("a.db");
    let first = bed.look(&site).unwrap();
    assert_eq!(bed.look(&site).unwrap().identity, first.identity);
    fs::rename(&site.path, bed.dir.path().join("b.db")).unwrap();
    assert_eq!(bed.look(&bed.site("b.db")).unwrap().identity.client_id, first.identity.client_id);
}

#[test]
fn a_copy_gets_a_client_id_of_its_own_and_does_not_report_again() {
    let bed = Bed::new();
    let site = bed.make("a.db");
    let original = bed.look(&site).unwrap();
    bed.add_event(&site, &original);
    bed.look(&site).unwrap();
    let copy = bed.site("copy.db");
    fs::copy(&site.path, &copy.path).unwrap();
    let cloned = bed.look(&copy).unwrap();
    assert_ne!(cloned.identity.client_id, original.identity.client_id);
    assert_eq!(bed.look(&site).unwrap().identity.client_id, original.identity.client_id);
    assert_eq!(bed.unsent(), 1);
    bed.add_event(&copy, &cloned);
    bed.look(&copy).unwrap();
    assert_eq!(bed.unsent(), 2);
}

#[test]
fn a_file_copied_to_another_device_gets_a_client_id_of_its_own_when_the_server_says_so() {
    let (there, here) = (Bed::new(), Bed::new());
    let original = there.make("a.db");
    let first = there.look(&original).unwrap();
    let client = first.identity.client_id;
    there.add_event(&original, &first);
    there.look(&original).unwrap();
    // A file that never moved keeps its name, whatever a server says.
    assert_eq!(arrived::part(&there.shared, &original, client).unwrap(), None);

    let copy = here.site("copy.db");
    fs::copy(&original.path, &copy.path).unwrap();
    let came = here.look(&copy).unwrap();
    // It may be the original, moved: only the server knows.
    assert_eq!(came.identity.client_id, client);
    here.add_event(&copy, &came);
    assert_eq!(here.look(&copy).unwrap().identity.client_id, client);
    here.shared.store().set_hold(client, Some(None), 1).unwrap();
    assert_eq!(arrived::part(&here.shared, &copy, ClientId::from_dice(7)).unwrap(), None);
    let new = arrived::part(&here.shared, &copy, client).unwrap().unwrap();
    // Asked again before the file was written, as after a crash.
    assert_eq!(arrived::part(&here.shared, &copy, client).unwrap(), Some(new));
    for _ in 0..2 {
        assert_eq!(here.look(&copy).unwrap().identity.client_id, new);
    }
    assert!(here.shared.store().holds(2).unwrap().contains_key(&new));
    // The original reports its own past; what happened here is reported from here, under the new name, once.
    let unsent = here.shared.store().unsent(1000).unwrap();
    assert_eq!(unsent.iter().map(|e| e.client_id).collect::<Vec<_>>(), [new]);
    assert_eq!(
        managed::events_after(
            &Managed::open(&copy.path, Missing::Refuse, Duration::from_secs(1), Halt::default()).unwrap().connection,
            &came.identity,
            0,
            9
        )
        .unwrap()
        .len(),
        2
    );
    assert_eq!(arrived::part(&here.shared, &copy, client).unwrap(), None);

    // A file that the server took for this device's was moved, and stays who it is.
    let moved = here.site("moved.db");
    fs::copy(&original.path, &moved.path).unwrap();
    here.look(&moved).unwrap();
    arrived::accepted(&here.shared, [client].into_iter()).unwrap();
    assert_eq!(arrived::part(&here.shared, &moved, client).unwrap(), None);
    assert_eq!(here.look(&moved).unwrap().identity.client_id, client);
}

#[test]
fn a_file_that_went_back_gets_the_next_epoch_and_reports_nothing_twice() {
    let bed = Bed::new();
    let site = bed.make("a.db");
    let looked = bed.look(&site).unwrap();
    bed.add_event(&site, &looked);
    bed.look(&site).unwrap();
    let backup = fs::read(&site.path).unwrap();
    bed.add_event(&site, &looked);
    bed.look(&site).unwrap();
    assert_eq!(bed.unsent(), 2);
    fs::write(&site.path, backup).unwrap();
    let back = bed.look(&site).unwrap();
    assert_eq!((back.identity.client_id, back.identity.epoch), (looked.identity.client_id, 2));
    assert_eq!(bed.unsent(), 2);
    bed.add_event(&site, &back);
    assert_eq!(bed.look(&site).unwrap().identity.epoch, 2);
    assert_eq!(bed.unsent(), 3);
}

#[test]
fn what_is_no_database_is_left_as_it_is_and_named() {
    let bed = Bed::new();
    let site = bed.site("a.db");
    assert_eq!(bed.look(&site).unwrap_err().code, "no_file");
    fs::write(&site.path, "certainly no database, but long enough to be one".repeat(30)).unwrap();
    let before = fs::read(&site.path).unwrap();
    assert_eq!(bed.look(&site).unwrap_err().code, "not_a_database");
    assert_eq!(fs::read(&site.path).unwrap(), before);
}

#[test]
fn a_pattern_names_databases_and_not_what_lies_beside_them() {
    let bed = Bed::new();
    for name in ["a.db", "b.db", "a.db-wal", "a.db-shm", "a.db-journal", "a.db-whimbrel-lock"] {
        fs::write(bed.dir.path().join(name), "").unwrap();
    }
    let mut rule = bed.site("x").rule;
    rule.path = bed.dir.path().join("*.db*").to_string_lossy().into_owned();
    let names: Vec<_> = expand(&rule).into_iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["a.db", "b.db"]);
}

#[test]
fn what_a_run_took_is_what_the_next_estimate_goes_by() {
    let bed = Bed::new();
    let file = Connection::open_in_memory().unwrap();
    file.execute_batch(
        "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO t SELECT i FROM n",
    )
    .unwrap();
    let files = BTreeMap::from([("up.sql".to_owned(), "UPDATE t SET x = 1".to_owned())]);
    let migration =
        whimbrel_shared::migration::Migration { format: String::new(), name: "m".parse().unwrap(), manifest: Default::default(), down: None, files };
    let now = || {
        let speed = Speed::from_text(bed.shared.store().setting(settings::SPEED).unwrap().as_deref());
        estimate(&file, &migration, Operation::Apply, &speed)
    };
    let first = now();
    // Ten times as slow as the reference's machine.
    remember_speed(&bed.shared, &first, 10 * first.reference_lock, 11 * first.reference_lock).unwrap();
    let then = now();
    assert!(then.lock > 10 * first.reference_lock && then.lock > 2 * first.lock, "{first:?} {then:?}");
    assert!(first.took == first.lock && then.took == then.lock);
}
