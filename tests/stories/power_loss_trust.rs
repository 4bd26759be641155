//! The power goes, or the disk fails, while the daemon keeps what it verified and accepts what is signed. Whatever the disk
//! kept of `device.db`, it is what was there before a deed or after it, whole: no floor is forgotten, nothing that was
//! accepted lacks its proof, and none of it is taken for damage.

use std::{collections::HashSet, fs, path::Path};

use crashvfs::{Disk, Fault, Files, Moment, Trouble};
use whimbrel::{
    store::device::{DeviceStore, Signatures},
    trust::{
        self,
        catch_up::{Caught, Judged, Standing, chain_of, judge_signed, keep},
    },
};
use whimbrel_shared::{ids::Digest, migration::TargetEntry};
use whimbrel_tests::{
    night,
    proof::{put, scratch},
    sample,
    signed_server::APP,
    tuf_client::{TufClient, word},
    tuf_place::TufPlace,
    tuf_repository::TufRepository,
};

use crate::tuf_client::NOW;

/// What the daemon writes at once.
enum Deed {
    Keep(Box<Caught>, Judged),
    Accept(Box<TargetEntry>, Vec<u8>, Digest),
}

impl Deed {
    fn done(&self, store: &mut DeviceStore) -> anyhow::Result<()> {
        let app = APP.parse()?;
        match self {
            Self::Keep(caught, judged) => keep(store, &app, caught, Some(judged))?,
            Self::Accept(entry, body, proof) => trust::accept_proven(store, &app, entry, body, *proof, NOW)?,
        }
        Ok(())
    }
}

/// What `device.db` says, as far as it is about trust.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    floors: Vec<(String, u64)>,
    files: Vec<(String, Digest)>,
    /// Accepted versions whose proof holds.
    accepted: Vec<u32>,
    withdrawn: Vec<(u32, u32)>,
}

/// A life in deeds, with its beginning.
struct Life {
    base: Files,
    deeds: Vec<Deed>,
    /// Before the first deed, and after each.
    states: Vec<State>,
    /// The repository at the end, and as it was early.
    place: TufPlace,
    early: TufPlace,
}

/// Three publishes, a withdrawal, a new timestamp, and a root that takes the online keys away.
fn life() -> Life {
    let folder = scratch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = TufClient { folder: folder.path().to_owned(), app: Some(APP.parse().unwrap()) };
    let mut repository = TufRepository::new(Some(APP), NOW);
    client.init(&repository.root(), NOW).unwrap();
    let base = laid(folder.path());
    let (place, early) = (TufPlace::start(&repository), TufPlace::start(&repository));
    let mut life = Life { base, deeds: Vec::new(), states: vec![state(folder.path()).unwrap()], place, early };
    for chapter in 0..6 {
        match chapter {
            0..=2 => {
                repository.add_migration();
                repository.sign_targets();
            }
            3 => {
                repository.targets.remove("0003_t3.r1.json");
                repository.sign_targets();
            }
            4 => repository.sign_timestamp(),
            _ => {
                repository.rotate("timestamp");
                repository.rotate("snapshot");
                repository.sign_snapshot();
            }
        }
        life.place.serve(&repository);
        let mut store = client.store().unwrap();
        let standing = Standing::of(&client.kept_as(), store.kept(&client.kept_as()).unwrap()).unwrap();
        let http = std::sync::Arc::new(whimbrel::transport::http::Reqwest::new(&Default::default()).unwrap());
        let (url, none) = (life.place.url(), whimbrel::transport::server::Credential::None);
        let mirror = whimbrel::transport::repository::Mirror::new(http, &url, &url, none);
        let caught = runtime.block_on(trust::catch_up::catch_up(standing, client.app.as_ref(), &[mirror], NOW)).unwrap();
        let offered = chain_of(&client.kept_as(), &caught.outcome.as_ref().unwrap().listing).unwrap();
        let judged = judge_signed(&store.entries(&client.kept_as()).unwrap(), &offered).unwrap();
        let bodies: Vec<Deed> = judged
            .new
            .iter()
            .map(|entry| {
                let target = caught.client.listed(&entry.path()).unwrap();
                let body = runtime.block_on(caught.client.download(&entry.path(), &target)).unwrap();
                Deed::Accept(Box::new(entry.clone()), body, caught.proof().unwrap())
            })
            .collect();
        for deed in std::iter::once(Deed::Keep(Box::new(caught), judged)).chain(bodies) {
            deed.done(&mut store).unwrap();
            life.states.push(state(folder.path()).unwrap());
            life.deeds.push(deed);
        }
    }
    life
}

/// Reads it all back as the daemon does; what is damaged, or accepted without a proof that holds, is an error.
fn state(folder: &Path) -> Result<State, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let app = APP.parse().unwrap();
    let store = DeviceStore::open(&folder.join("state")).map_err(|e| text(&e))?.with_signatures(Signatures::Required);
    let kept = store.kept(&app).map_err(|e| text(&e))?;
    let files = kept.files.iter().map(|(name, body)| (name.clone(), Digest::of(body))).collect();
    let mut floors: Vec<_> = kept.floors.iter().map(|floor| (floor.role.clone(), floor.version)).collect();
    floors.sort();
    let standing = Standing::of(&app, kept).map_err(|e| text(&e))?;
    if !standing.damage.is_empty() {
        return Err(format!("it is taken for damaged: {:?}", standing.damage));
    }
    let mut accepted = Vec::new();
    for entry in store.entries(&app).map_err(|e| text(&e))? {
        let link = &entry.custom;
        trust::load(&store, &app, link.version, link.revision).map_err(|e| text(&e))?;
        accepted.push(link.version);
    }
    let withdrawn = store.withdrawn(&app).map_err(|e| text(&e))?;
    Ok(State { floors, files, accepted, withdrawn })
}

/// The files of `device.db` in a folder.
fn laid(folder: &Path) -> Files {
    let entries = fs::read_dir(folder.join("state")).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).unwrap())).filter(|(name, _)| !name.ends_with("-shm")).collect()
}

fn lay(folder: &Path, files: &Files) {
    let state = folder.join("state");
    let _ = fs::remove_dir_all(&state);
    fs::create_dir_all(&state).unwrap();
    put(&state, files);
}

#[test]
fn a_power_cut_while_trust_is_kept_forgets_no_floor_and_leaves_nothing_unproven() {
    Disk::for_everybody();
    let life = life();
    let folder = scratch();
    lay(folder.path(), &life.base);
    let disk = Disk::new(&folder.path().join("state"));
    let mut store = DeviceStore::open(&folder.path().join("state")).unwrap();
    // After so many operations a deed was done.
    let mut done = vec![0];
    for deed in &life.deeds {
        deed.done(&mut store).unwrap();
        done.push(disk.log().ops.len());
    }
    drop(store);
    let log = disk.log();
    drop(disk);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = TufClient { folder: folder.path().to_owned(), app: Some(APP.parse().unwrap()) };
    let (mut points, mut distinct, mut refreshed, mut seen) = (0, 0, 0, HashSet::new());
    let mut moment = Moment::of(&log.base);
    for at in 0..=log.ops.len() {
        let before = done.iter().rposition(|ops| *ops <= at).unwrap();
        for loss in moment.losses(sample(4, 12)) {
            points += 1;
            let files = moment.after(&loss);
            if !seen.insert(files.clone()) {
                continue;
            }
            distinct += 1;
            let place = || format!("before operation {at} of {}, after deed {before} of {}, losing {loss:?}", log.ops.len(), life.deeds.len());
            lay(folder.path(), &files);
            let found = state(folder.path()).unwrap_or_else(|why| panic!("{}: {why}", place()));
            assert!(life.states[before..].iter().take(2).any(|state| *state == found), "{}: {found:#?}", place());
            if distinct % sample(40, 4) == 0 {
                refreshed += 1;
                // Who plays old metadata has waited for this.
                let early = word(&runtime.block_on(client.refresh(&[life.early.url()], NOW)));
                let believed = found == life.states[0];
                assert!(if believed { early == "believed" } else { early == "rollback" || early == "unsigned" }, "{}: {early}", place());
                assert_eq!(word(&runtime.block_on(client.refresh(&[life.place.url()], NOW))), "believed", "{}", place());
            }
        }
        log.ops.get(at).into_iter().for_each(|op| moment.step(op));
    }
    eprintln!("{} operations, {points} images ({distinct} distinct) read back, {refreshed} of them caught up", log.ops.len());
    assert!(points >= 1000, "{points} points are too few");
}

#[test]
fn a_disk_that_fails_while_trust_is_kept_forgets_no_floor_and_leaves_nothing_unproven() {
    Disk::for_everybody();
    let life = life();
    let troubles = [(Trouble::Full, false), (Trouble::Io, false), (Trouble::Full, true), (Trouble::Io, true)];
    let (mut runs, mut told) = (0, 0);
    for at in 0.. {
        let chosen: Vec<_> = if night() { troubles.to_vec() } else { vec![troubles[at % troubles.len()]] };
        let mut struck = false;
        for (trouble, stays) in chosen {
            let folder = scratch();
            lay(folder.path(), &life.base);
            let disk = Disk::new(&folder.path().join("state"));
            let mut store = DeviceStore::open(&folder.path().join("state")).unwrap();
            disk.fail(Fault { at, trouble, stays, reads: false });
            for (nth, deed) in life.deeds.iter().enumerate() {
                if deed.done(&mut store).is_ok() {
                    continue;
                }
                told += 1;
                struck |= !disk.mend().is_empty();
                let found = state(folder.path()).unwrap_or_else(|why| panic!("call {at} ({trouble:?}), deed {nth}: {why}"));
                assert!(life.states[nth..].iter().take(2).any(|state| *state == found), "call {at} ({trouble:?}), deed {nth}: {found:#?}");
                deed.done(&mut store).unwrap_or_else(|why| panic!("call {at} ({trouble:?}), deed {nth}, tried again: {why}"));
            }
            struck |= !disk.mend().is_empty();
            assert_eq!(state(folder.path()).unwrap(), *life.states.last().unwrap(), "call {at} ({trouble:?})");
            runs += 1;
        }
        if !struck {
            break;
        }
    }
    eprintln!("{runs} runs with a fault, of which {told} were told to the caller");
    assert!(told * 2 > runs, "most faults were not noticed: they did not strike what matters");
}
