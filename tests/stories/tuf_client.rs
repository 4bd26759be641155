//! The client half of TUF against repositories that a test signs: what is believed, what is not, and what a damaged store
//! or an odd clock does to it. The first seven are those that the public conformance suite does not have.

use std::collections::BTreeMap;

use rusqlite::Connection;
use whimbrel::store::trust::ACCEPTED;
use whimbrel_tests::{
    tuf_client::{TufClient, word},
    tuf_place::{Misdeed, TufPlace},
    tuf_repository::{DAY_MS, Delegate, Key, TufRepository, target},
};

/// Some day in 2030.
pub(crate) const NOW: i64 = 1_900_000_000_000;

struct Stage {
    _folder: tempfile::TempDir,
    client: TufClient,
    repository: TufRepository,
    place: TufPlace,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    /// A client that has pinned the first root of a repository with two migrations' worth of files, and asked nobody yet.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut repository = TufRepository::new(None, NOW);
        repository.add("a.txt", b"first", None);
        repository.sign_targets();
        let client = TufClient::new(folder.path());
        client.init(&repository.files["1.root.json"], NOW).unwrap();
        let place = TufPlace::start(&repository);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { _folder: folder, client, repository, place, runtime }
    }

    /// Refreshes, and says how it ended.
    fn refresh(&self, now_ms: i64) -> String {
        self.refresh_from(&[self.place.url()], now_ms)
    }

    fn refresh_from(&self, urls: &[String], now_ms: i64) -> String {
        word(&self.runtime.block_on(self.client.refresh(urls, now_ms)))
    }

    fn download(&self, name: &str, now_ms: i64) -> anyhow::Result<()> {
        let into = self.client.folder.join("targets");
        std::fs::create_dir_all(&into).unwrap();
        let url = self.place.url();
        self.runtime.block_on(self.client.download(&url, &url, &[name.to_owned()], &into, now_ms))
    }

    /// The floors, as `device.db` has them.
    fn floors(&self) -> BTreeMap<String, u64> {
        let kept = self.client.store().unwrap().kept(&self.client.kept_as()).unwrap();
        kept.floors.into_iter().filter(|floor| floor.role != ACCEPTED).map(|floor| (floor.role, floor.version)).collect()
    }

    /// What is not as it was kept.
    fn damage(&self) -> Vec<String> {
        let app = self.client.kept_as();
        whimbrel::trust::catch_up::Standing::of(&app, self.client.store().unwrap().kept(&app).unwrap()).map(|s| s.damage).unwrap_or_default()
    }

    /// Does something to the tables of `device.db`, as a bad disk would.
    fn harm(&self, sql: &str) {
        let harmed = Connection::open(self.client.folder.join("state/device.db")).unwrap().execute(sql, []).unwrap();
        assert!(harmed > 0, "nothing was harmed");
    }

    fn serve(&self) {
        self.place.serve(&self.repository);
    }
}

const TEAR: &str = "UPDATE trust_file SET body = substr(body, 1, length(body) / 2)";

// ---- seven that the public suite does not have ----------------------------------------------------------------------

#[test]
fn a_torn_cache_followed_by_a_rollback_is_refused_and_an_honest_refresh_heals_it() {
    let mut stage = Stage::new();
    let old = stage.repository.files.clone();
    for version in 2..=4 {
        stage.repository.add("a.txt", format!("text {version}").as_bytes(), None);
        stage.repository.sign_targets();
    }
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    let floors = stage.floors();
    for harm in [
        TEAR,
        "UPDATE trust_file SET body = x'00' WHERE name = 'timestamp.json'",
        "DELETE FROM trust_file WHERE name = 'snapshot.json'",
        "DELETE FROM trust_file",
        "UPDATE trust_floor SET version = 1 WHERE role = 'targets'",
        "DELETE FROM trust_floor",
        "UPDATE trust_file SET digest = ''",
    ] {
        stage.harm(harm);
        assert!(!stage.damage().is_empty(), "{harm}");
        let new = std::mem::replace(&mut stage.repository.files, old.clone());
        stage.serve();
        assert_eq!(stage.refresh(NOW), "rollback", "{harm}");
        assert!(!stage.damage().is_empty(), "nothing was healed by a rollback: {harm}");
        stage.repository.files = new;
        stage.serve();
        assert_eq!(stage.refresh(NOW), "believed", "{harm}");
        assert_eq!((stage.floors(), stage.damage()), (floors.clone(), Vec::new()), "{harm}");
    }
}

#[test]
fn a_500_on_the_next_root_is_not_the_end_of_the_chain() {
    let mut stage = Stage::new();
    stage.repository.rotate("root");
    stage.serve();
    stage.place.misbehave("2.root.json", Misdeed::Status(500));
    assert_eq!(stage.refresh(NOW), "repository");
    assert_eq!(stage.floors().get("timestamp"), None, "nothing was believed under the old root");
    stage.place.behave();
    assert_eq!(stage.refresh(NOW), "believed");
    assert_eq!(stage.floors()["root"], 2);
}

#[test]
fn a_clock_that_steps_back_two_days_refuses_nothing() {
    let mut stage = Stage::new();
    assert_eq!(stage.refresh(NOW), "believed");
    stage.repository.sign_timestamp();
    stage.serve();
    assert_eq!(stage.refresh(NOW - 2 * DAY_MS), "believed");
}

/// A delegate of `name/*` with one target.
fn delegate(stage: &mut Stage, name: &str, expires_ms: i64) {
    let body = name.as_bytes();
    let path = format!("{name}/file");
    let (entry, stored) = target(&path, body, None);
    stage.repository.files.insert(format!("targets/{stored}"), body.to_vec());
    stage.repository.delegates.push(Delegate {
        name: name.to_owned(),
        paths: vec![format!("{name}/*")],
        key: Key::new(),
        targets: BTreeMap::from([(path, entry)]),
        expires_ms,
    });
}

#[test]
fn one_bad_delegate_does_not_block_the_targets_of_others() {
    let mut stage = Stage::new();
    delegate(&mut stage, "bad", NOW + DAY_MS);
    delegate(&mut stage, "good", NOW + DAY_MS);
    let strays = stage.repository.delegates[1].targets.clone();
    stage.repository.delegates[0].targets.extend(strays);
    stage.repository.sign_targets();
    stage.serve();
    stage.place.misbehave("1.bad.json", Misdeed::Other(b"{}".to_vec()));
    stage.download("good/file", NOW).unwrap();
    stage.download("a.txt", NOW).unwrap();
    assert!(stage.download("bad/file", NOW).is_err());
}

#[test]
fn one_expired_delegate_does_not_block_the_targets_of_others() {
    let mut stage = Stage::new();
    delegate(&mut stage, "over", NOW - DAY_MS);
    delegate(&mut stage, "good", NOW + DAY_MS);
    stage.repository.sign_targets();
    stage.serve();
    stage.download("good/file", NOW).unwrap();
    assert!(stage.download("over/file", NOW).is_err());
}

#[test]
fn a_refresh_that_finds_nothing_new_asks_twice() {
    let stage = Stage::new();
    assert_eq!(stage.refresh(NOW), "believed");
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    assert_eq!(stage.place.asked(), ["2.root.json", "timestamp.json"]);
}

#[test]
fn an_endless_timestamp_is_cut_off() {
    let stage = Stage::new();
    stage.place.misbehave("timestamp.json", Misdeed::Endless);
    assert_eq!(stage.refresh(NOW), "repository");
    // What was on its way in the sockets' buffers counts as well.
    let sent = stage.place.endless_bytes();
    assert!(sent < 8 << 20, "{sent} bytes were taken");
    stage.place.behave();
    assert_eq!(stage.refresh(NOW), "believed");
}

// ---- attacks on the metadata, by their names in the specification --------------------------------------------------------

#[test]
fn keys_that_the_root_does_not_name_sign_nothing() {
    for role in ["targets", "snapshot", "timestamp"] {
        let mut stage = Stage::new();
        assert_eq!(stage.refresh(NOW), "believed");
        let before = stage.floors();
        stage.repository.keys.insert(role.to_owned(), vec![Key::new()]);
        stage.repository.add("a.txt", b"forged", None);
        stage.repository.sign_targets();
        stage.serve();
        assert_eq!(stage.refresh(NOW), "unsigned", "{role}");
        assert_eq!(stage.floors()["targets"], before["targets"]);
    }
}

#[test]
fn half_of_a_threshold_is_nothing() {
    let mut stage = Stage::new();
    stage.repository.thresholds.insert("targets".to_owned(), 2);
    stage.repository.keys.get_mut("targets").unwrap().push(Key::new());
    stage.repository.sign_root(&[]);
    stage.repository.sign_targets();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    let second = stage.repository.keys.get_mut("targets").unwrap().pop().unwrap();
    stage.repository.add("a.txt", b"one of two wants this", None);
    stage.repository.sign_targets();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "unsigned");
    stage.repository.keys.get_mut("targets").unwrap().push(second);
    stage.repository.sign_targets();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
}

#[test]
fn an_old_timestamp_snapshot_or_targets_is_a_rollback() {
    let mut stage = Stage::new();
    let old = stage.repository.files["timestamp.json"].clone();
    stage.repository.sign_targets();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    let floors = stage.floors();
    stage.place.misbehave("timestamp.json", Misdeed::Other(old));
    assert_eq!(stage.refresh(NOW), "rollback");
    stage.place.behave();
    // Signed anew, with older parts.
    for role in ["snapshot", "targets"] {
        let newest = stage.repository.versions[role];
        stage.repository.versions.insert(role.to_owned(), newest - 1);
        if role == "targets" {
            stage.repository.sign_snapshot()
        } else {
            stage.repository.sign_timestamp()
        }
        stage.serve();
        assert_eq!(stage.refresh(NOW), "rollback", "{role}");
        assert!(stage.floors().iter().all(|(role, version)| *version >= floors[role]), "{:?}", stage.floors());
        stage.repository.versions.insert(role.to_owned(), newest);
        stage.repository.sign_snapshot();
        stage.serve();
        assert_eq!(stage.refresh(NOW), "believed", "{role}");
    }
}

#[test]
fn versions_that_a_thief_drove_up_are_recovered_from_by_a_new_root() {
    let mut stage = Stage::new();
    for role in ["timestamp", "snapshot"] {
        stage.repository.versions.insert(role.to_owned(), 1 << 53);
    }
    stage.repository.sign_snapshot();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    for role in ["timestamp", "snapshot"] {
        stage.repository.rotate(role);
        stage.repository.versions.insert(role.to_owned(), 0);
    }
    stage.repository.sign_snapshot();
    stage.serve();
    // Also where the first try ends in the middle.
    stage.place.misbehave("1.snapshot.json", Misdeed::Status(500));
    assert_eq!(stage.refresh(NOW), "repository");
    assert_eq!(stage.damage(), Vec::<String>::new());
    stage.place.behave();
    assert_eq!(stage.refresh(NOW), "believed");
    let floors = stage.floors();
    assert_eq!((floors["root"], floors["timestamp"], floors["snapshot"]), (3, 1, 1));
}

#[test]
fn a_timestamp_that_is_played_again_turns_stale_when_it_expires() {
    let stage = Stage::new();
    assert_eq!(stage.refresh(NOW), "believed");
    assert_eq!(stage.refresh(NOW + 29 * DAY_MS), "believed");
    assert_eq!(stage.refresh(NOW + 31 * DAY_MS), "stale");
    assert_eq!(stage.damage(), Vec::<String>::new());
}

#[test]
fn new_timestamp_and_snapshot_with_old_targets_do_not_go_together() {
    let mut stage = Stage::new();
    assert_eq!(stage.refresh(NOW), "believed");
    let old = stage.repository.files[&format!("{}.targets.json", stage.repository.versions["targets"])].clone();
    stage.repository.sign_targets();
    stage.serve();
    stage.place.misbehave(&format!("{}.targets.json", stage.repository.versions["targets"]), Misdeed::Other(old));
    assert_eq!(stage.refresh(NOW), "mixed");
}

#[test]
fn a_mirror_that_fails_or_lies_does_not_keep_updates_away() {
    let mut stage = Stage::new();
    stage.repository.sign_targets();
    let bad = TufPlace::start(&stage.repository);
    for misdeed in [Misdeed::Status(500), Misdeed::Other(b"garbage".to_vec()), Misdeed::Endless] {
        stage.repository.sign_targets();
        stage.serve();
        bad.misbehave("timestamp.json", misdeed.clone());
        assert_eq!(stage.refresh_from(&[bad.url(), stage.place.url()], NOW), "believed", "{misdeed:?}");
        assert_eq!(stage.floors()["targets"], stage.repository.versions["targets"]);
    }
}

#[test]
fn a_document_that_is_signed_for_another_app_is_refused_and_moves_no_floor() {
    let mut stage = Stage::new();
    stage.client.app = Some("notes".parse().unwrap());
    stage.repository = TufRepository::new(Some("notes"), NOW);
    stage.client.init(&stage.repository.root(), NOW).unwrap();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    let floors = stage.floors();
    for role in ["timestamp", "targets"] {
        // The same publisher, and the same server, sign for another app: further along.
        stage.repository.app = Some("tasks".to_owned());
        if role == "timestamp" {
            stage.repository.sign_timestamp()
        } else {
            stage.repository.sign_targets()
        }
        stage.serve();
        assert_eq!(stage.refresh(NOW), "other_app", "{role}");
        assert_eq!(stage.floors(), floors, "{role}");
    }
    stage.repository.app = Some("notes".to_owned());
    stage.repository.sign_targets();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
}

// ---- long sleep ----------------------------------------------------------------------------------------------------------

#[test]
fn two_hundred_roots_are_caught_up_with_in_one_refresh() {
    let mut stage = Stage::new();
    assert_eq!(stage.refresh(NOW), "believed");
    for _ in 0..200 {
        stage.repository.rotate("root");
    }
    stage.repository.sign_timestamp();
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    assert_eq!(stage.floors()["root"], 201);
    assert!(stage.place.asked().len() <= 203, "{} requests", stage.place.asked().len());
    // Nothing of it is asked for again.
    stage.serve();
    assert_eq!(stage.refresh(NOW), "believed");
    assert_eq!(stage.place.asked(), ["202.root.json", "timestamp.json"]);
}
