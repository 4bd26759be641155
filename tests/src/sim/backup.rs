//! Files and the server go back, and a file is copied to another device: what persons do with files.

use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::json;
use whimbrel::store::{exchange, managed};
use whimbrel_shared::ids::ClientId;

use super::{
    app::{App, Place},
    check,
    ledger::Then,
    net::{self, lock},
    schema::{NEWEST, tables},
    world::{Purpose, World, serve},
};

/// A copy of the server's store.
pub struct Backup {
    path: PathBuf,
    /// The newest version that was published.
    published: u32,
    then: Then,
}

impl World {
    /// What a file is now.
    fn content(&self, file: usize) -> Vec<u8> {
        self.shared.tell(|| format!("f{file} copied"));
        let side = lock(&self.shared.sides[file]);
        let app = side.app.as_ref().expect("it is open");
        app.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody else has it open");
        std::fs::read(&self.files[file].path).expect("the file is read")
    }

    /// A copy of a file is put aside.
    pub fn copy(&self, file: usize) {
        let content = self.content(file);
        self.files[file].copies.borrow_mut().push(content);
    }

    /// A person puts an older copy of the file back.
    pub fn restore(&self, file: usize) {
        let copies = self.files[file].copies.borrow();
        if !copies.is_empty() {
            self.count("restored");
            self.replace(file, &copies[self.shared.roll(copies.len() as u32) as usize]);
        }
    }

    /// The file has this content now. What was in it and was never sent, a person gave up.
    fn replace(&self, file: usize, content: &[u8]) {
        check::keep(self);
        let mut side = lock(&self.shared.sides[file]);
        let app = side.app.take().expect("it is open");
        let (before, whole) = (app.tokens(), app.places());
        drop(app);
        let path = &self.files[file].path;
        for beside in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{beside}", path.display()));
        }
        std::fs::write(path, content).expect("the file is written");
        let app = App::open(path, self.files[file].recursive);
        let after = app.tokens();
        self.shared.tell(|| format!("f{file} replaced: -{:?} +{:?}", before.difference(&after), after.difference(&before)));
        side.app = Some(app);
        let mut ledger = lock(&self.shared.ledger);
        let lost: Vec<u32> = before.difference(&after).filter(|t| !ledger.taken.contains(t)).copied().collect();
        ledger.given_up.extend(lost);
        // What was deleted and not sent is there again.
        ledger.removed.clear();
        // What the server took and no later version has a column for is nowhere else.
        let newest = tables(NEWEST);
        let stays = |place: &Place| newest.iter().any(|t| t.is == place.0 && t.holds.iter().any(|c| c.is == place.1 || c.was == Some(place.1)));
        ledger.gone.extend(whole.iter().filter(|place| !stays(place)).map(|place| place.3));
    }

    /// A person copies another's file over this one. The server takes nothing from it until it is somebody of its own.
    pub fn clone_to(&self, file: usize) -> Result<(), String> {
        let from = self.shared.roll(self.files.len() as u32) as usize;
        if from == file {
            return Ok(());
        }
        self.count("cloned");
        self.cloned.set(true);
        let content = self.content(from);
        self.replace(file, &content);
        let one = &self.files[file];
        one.copies.borrow_mut().clear();
        one.client_id.set(self.files[from].client_id.get());
        if self.exchanged(file, super::world::DEEP, Purpose::Exchange).is_ok() {
            return Err(format!("f{file} exchanged rows as f{from}"));
        }
        let id = ClientId::from_dice(lock(&self.shared.rng).u128(..));
        one.client_id.set(id);
        let version = {
            let side = lock(&self.shared.sides[file]);
            let app = side.app.as_ref().expect("it is open");
            let known = managed::identity(&app.connection).expect("an identity");
            managed::set_identity(&app.connection, &managed::FileIdentity { client_id: id, ..known }).expect("it gets its name");
            // It was noticed by the machine's clock, which no seed may depend on.
            let now_ms = self.shared.now_ms.load(std::sync::atomic::Ordering::Relaxed) + side.skew_ms;
            let noticed = "UPDATE _whimbrel_meta SET value = ?1 WHERE key = 'inherited_ms'";
            app.connection.execute(noticed, [now_ms]).expect("it is written");
            app.version
        };
        self.shared.tell(|| format!("f{file} is a copy of f{from}, known as {id}"));
        self.report(file, version)
    }

    /// The device says which database it has, as it does in every cycle in which the server does not know it.
    fn report(&self, file: usize, version: u32) -> Result<(), String> {
        let one = &self.files[file];
        let id = one.client_id.get();
        let state = json!({ "daemon_version": "0", "labels": {}, "databases": [{
            "client_id": id, "app": crate::replica::APP, "file_name": "x.db", "epoch": 1, "version": version,
            "pending": 0, "status": "completed", "health": [],
        }]});
        let request = net::post("/api/state", ("authorization", format!("Bearer {}", one.token)), state.to_string().into());
        let answer = self.stage.runtime.block_on(self.shared.deliver(&request));
        if answer.status == 200 { Ok(()) } else { Err(format!("the copy is not taken: {}", String::from_utf8_lossy(&answer.body))) }
    }

    /// The operator copies the server's store.
    pub fn back_up_server(&self) {
        self.shared.tell(|| "server copied".to_owned());
        let path = self.folder.path().join(format!("backup{}.db", self.backups.borrow().len()));
        let store = Connection::open(self.server()).expect("the store opens");
        store.execute("VACUUM INTO ?1", [path.to_str().expect("a path is text")]).expect("the store is copied");
        let then = lock(&self.shared.ledger).then();
        self.backups.borrow_mut().push(Backup { path, published: self.published.get(), then });
    }

    /// The operator puts an older copy of the server's store back, and the publisher publishes again. Who has seen most comes
    /// first: before that nobody can tell, and numbers would be given twice.
    pub fn restore_server(&self) -> Result<(), String> {
        let backups = self.backups.borrow();
        if backups.is_empty() {
            return Ok(());
        }
        self.count("server restored");
        check::keep(self);
        let Backup { path, published, then } = &backups[self.shared.roll(backups.len() as u32) as usize];
        self.stores.set(self.stores.get() + 1);
        std::fs::copy(path, self.server()).expect("the store is copied");
        *lock(&self.shared.endpoints) = serve(&self.server(), &self.shared.now_ms);
        self.shared.tell(|| "server restored".to_owned());
        lock(&self.shared.ledger).went_back(then.clone());
        let until = self.published.replace(*published);
        self.publish_up_to(until);
        for file in 0..self.files.len() {
            let version = lock(&self.shared.sides[file]).version();
            self.report(file, version)?;
        }
        let seen = |file: usize| {
            let side = lock(&self.shared.sides[file]);
            exchange::read(&side.app.as_ref().expect("it is open").connection).expect("where it stands").reached
        };
        let first = (0..self.files.len()).max_by_key(|file| seen(*file)).expect("there are files");
        let rough = self.shared.rough.swap(false, std::sync::atomic::Ordering::Relaxed);
        let _ = self.exchange(first, super::world::DEEP);
        self.shared.rough.store(rough, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}
