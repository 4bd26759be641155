//! The doors of a device: who gets to the daemon, what lies where its own files should, and files that somebody prepared.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
};

use rusqlite::Connection;
use whimbrel_tests::{
    Device, Mig, Server, content_hash,
    device::{Outcome, one},
    host,
};

use crate::{pair, stage};

/// A user that no file on this machine belongs to, and a group of the system that it is in.
const STRANGER: u32 = 65_533;
const GROUP: (&str, u32) = ("games", 60);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a command says to somebody else, who is in that group.
fn as_stranger(device: &Device, gid: u32, args: &[&str]) -> Outcome {
    let mut command = device.command(args);
    Outcome::of(args, &command.uid(STRANGER).gid(gid).current_dir("/").output().unwrap())
}

/// Lets a stranger run our binary and reach the socket, as far as the file system is asked.
fn open_the_way(stage: &Path, device: &Device) {
    for folder in [stage, device.folder()] {
        set_mode(folder, 0o711);
    }
    set_mode(&device.config(), 0o644);
}

#[test]
fn another_user_is_turned_away_by_the_daemon_even_where_the_file_system_lets_them_in() {
    if !host::root() {
        return;
    }
    let stage = stage();
    let server = Server::start(stage.path());
    let socket = stage.path().join("run/control.sock");
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes").setting(&format!("socket = {socket:?}"));
    device.make("notes.db", "CREATE TABLE notes(id INTEGER PRIMARY KEY)");
    let daemon = device.start();
    assert_eq!(mode(&socket), 0o600);
    open_the_way(stage.path(), &device);
    set_mode(socket.parent().unwrap(), 0o711);
    as_stranger(&device, STRANGER, &["status"]).says(77, &["this user may not talk to the daemon"]);
    // A careless hand, or a race before the socket was closed.
    set_mode(&socket, 0o666);
    as_stranger(&device, STRANGER, &["status"]).says(77, &["uid 65533 may not talk to the daemon", "[control] group"]);
    as_stranger(&device, STRANGER, &["hold", "notes.db"]).says(77, &["uid 65533 may not"]);
    assert_eq!(device.run(&["status"]).code, 0);
    daemon.stop();
}

#[test]
fn a_group_may_look_and_gives_orders_only_where_that_is_written() {
    if !host::root() {
        return;
    }
    let (name, gid) = GROUP;
    let stage = stage();
    let server = Server::start(stage.path());
    let run = |folder: &str, may: &str| {
        let socket = stage.path().join(folder).join("run/control.sock");
        let device = Device::new(stage.path(), folder, &server.url())
            .database("notes.db", "notes")
            .setting(&format!("socket = {socket:?}"))
            .table(&format!("[control]\ngroup = {name:?}\n{may}"));
        device.make("notes.db", "CREATE TABLE notes(id INTEGER PRIMARY KEY)");
        device.enroll(&server.token("notes"));
        let daemon = device.start();
        open_the_way(stage.path(), &device);
        assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o660, 0o710));
        as_stranger(&device, STRANGER, &["status"]).says(77, &["this user may not talk"]);
        assert_eq!(as_stranger(&device, gid, &["status"]).code, 0);
        assert_eq!(as_stranger(&device, gid, &["history"]).code, 0);
        let orders = [&["conflicts", "list"][..], &["hold", "notes.db"][..]].map(|order| as_stranger(&device, gid, order));
        assert_eq!(device.run(&["status"]).code, 0);
        daemon.stop();
        orders
    };
    for refused in run("looks", "") {
        refused.says(77, &["the group games may look", "group_may = \"operate\""]);
    }
    for done in run("operates", "group_may = \"operate\"") {
        assert!([0, 3].contains(&done.code), "{done}");
    }
}

#[test]
fn a_state_directory_that_others_could_read_is_closed_and_one_they_could_write_is_refused() {
    let stage = stage();
    let (_server, device) = pair(&stage, "CREATE TABLE notes(id INTEGER PRIMARY KEY)");
    set_mode(&device.state(), 0o755);
    device.once_well();
    assert_eq!((mode(&device.state()), mode(&device.state().join("device.db"))), (0o700, 0o600));
    set_mode(&device.state(), 0o777);
    device.once().says(77, &["can be written by others (mode 0777)", "chmod 700"]);
    set_mode(&device.state(), 0o700);
    if host::root() {
        open_the_way(stage.path(), &device);
        set_mode(&device.state(), 0o755);
        as_stranger(&device, STRANGER, &["run", "--once"]).says(77, &["state belongs to uid 0", "runs as uid 65533"]);
        assert_eq!(mode(&device.state()), 0o755, "somebody else's was changed");
    }
}

#[test]
fn a_link_is_not_followed_where_one_of_our_files_or_a_database_should_be() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(id INTEGER PRIMARY KEY); INSERT INTO notes VALUES (1)");
    server.publish("notes", &[Mig::up("0001_base", "CREATE TABLE more(x);").toml("backup = \"always\"\n")]);
    let elsewhere = stage.path().join("elsewhere");
    fs::write(&elsewhere, "somebody's own").unwrap();
    let untouched = || assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's own");
    for name in ["lock", "device.db"] {
        let (path, kept) = (device.state().join(name), device.state().join("kept"));
        let there = path.exists();
        if there {
            fs::rename(&path, &kept).unwrap();
        }
        symlink(&elsewhere, &path).unwrap();
        device.once().says(77, &[&format!("{name} is a link to {}", elsewhere.display()), "remove the link"]);
        untouched();
        fs::remove_file(&path).unwrap();
        if there {
            fs::rename(&kept, &path).unwrap();
        }
    }
    // The socket: the daemon works without it, and says so.
    let socket = device.state().join("control.sock");
    symlink(&elsewhere, &socket).unwrap();
    let said = device.run(&["run", "--once"]);
    assert!(said.said().contains("control.sock is a link to"), "{said}");
    untouched();
    assert!(socket.is_symlink(), "it was taken away");
    fs::remove_file(&socket).unwrap();

    // The database: what the link leads to is a whole database of ours, and stays as it is.
    let (path, aim) = (device.path("notes.db"), stage.path().join("aim.db"));
    server.publish(
        "notes",
        &[Mig::up("0001_base", "CREATE TABLE more(x);").toml("backup = \"always\"\n"), Mig::up("0002_next", "CREATE TABLE next(x);")],
    );
    fs::rename(&path, &aim).unwrap();
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", path.display()));
    }
    symlink(&aim, &path).unwrap();
    let before = content_hash(&aim);
    device.once().says(4, &["notes.db is a link to", "name", "aim.db itself in the configuration"]);
    assert_eq!(content_hash(&aim), before);
    // A dangling one is not made into a file either.
    fs::remove_file(&path).unwrap();
    symlink(stage.path().join("nowhere.db"), &path).unwrap();
    device.once().says(4, &["notes.db is a link to"]);
    assert!(!stage.path().join("nowhere.db").exists());
    fs::remove_file(&path).unwrap();
    fs::rename(&aim, &path).unwrap();
    device.once_well();
    assert_eq!(one::<u32>(&path, "SELECT count(*) FROM notes"), 1);
}

#[test]
fn a_backup_is_not_read_through_a_link() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(id INTEGER PRIMARY KEY)");
    server.publish("notes", &[Mig::up("0001_base", "CREATE TABLE more(x);")]);
    device.once_well();
    let daemon = device.start();
    let made = device.json(&["backup", "create"]);
    let listed = device.json(&["backup", "list"]);
    let text = listed.to_string();
    let file = walk(&device.state().join("backups")).pop().unwrap_or_else(|| panic!("no backup: {made} {text}"));
    let aim = stage.path().join("aim.db");
    fs::rename(&file, &aim).unwrap();
    symlink(&aim, &file).unwrap();
    let id = file.file_stem().unwrap().to_str().unwrap().to_owned();
    let outcome = device.run(&["backup", "restore", "notes.db", &id, "--yes"]);
    assert_ne!(outcome.code, 0, "{outcome}");
    daemon.stop();
}

/// The files below a folder whose names end in `.db`.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        } else if entry.path().extension().is_some_and(|e| e == "db") {
            found.push(entry.path());
        }
    }
    found
}

/// What every damaged file was before.
const BASE: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT, n INT); CREATE INDEX notes_n ON notes(n, body);
    CREATE VIEW seen AS SELECT * FROM notes; CREATE TRIGGER tt AFTER INSERT ON notes BEGIN UPDATE notes SET n = 1 WHERE id = new.id; END;
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) INSERT INTO notes SELECT i, printf('note %08d', i), i % 7 FROM c;";

/// Writes bytes somewhere into a file.
fn damage(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn files_that_somebody_damaged_or_prepared_stop_neither_the_daemon_nor_their_neighbours() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("*.db", "notes").setting("parallel = 4");
    let files = if std::env::var_os("WHIMBREL_NIGHT").is_some() { 400 } else { 40 };
    let base = device.make_in("base", "delete", BASE);
    let size = fs::metadata(&base).unwrap().len();
    for n in 0..files {
        let path = device.path(&format!("{n:03}.db"));
        fs::copy(&base, &path).unwrap();
        let mut dice = fastrand::Rng::with_seed(n);
        match n % 4 {
            // Lengths and pointers of the first pages: the schema and the roots.
            0 => (0..8).for_each(|_| damage(&path, dice.u64(100..3 * 4096), &[dice.u8(..)])),
            // Anywhere.
            1 => (0..200).for_each(|_| damage(&path, dice.u64(100..size), &[dice.u8(..), dice.u8(..)])),
            // A page that is another one.
            2 => {
                let bytes = fs::read(&path).unwrap();
                let (from, to) = (dice.usize(0..(size / 4096) as usize) * 4096, dice.u64(1..size / 4096) * 4096);
                damage(&path, to, &bytes[from..from + 4096]);
            }
            // Cut off.
            _ => fs::File::options().write(true).open(&path).unwrap().set_len(dice.u64(513..size)).unwrap(),
        }
    }
    // A schema that calls what reaches beyond SQL, wherever it is looked at or written to.
    let outside = stage.path().join("outside.so");
    for (name, sql) in [
        ("view", format!("DROP VIEW seen; CREATE VIEW seen AS SELECT load_extension('{}') AS id", outside.display())),
        ("trigger", format!("DROP TRIGGER tt; CREATE TRIGGER tt AFTER UPDATE ON notes BEGIN SELECT load_extension('{}'); END", outside.display())),
    ] {
        let path = device.path(&format!("prepared-{name}.db"));
        fs::copy(&base, &path).unwrap();
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    }
    for n in 0..3 {
        fs::copy(&base, device.path(&format!("whole-{n}.db"))).unwrap();
    }
    server.publish_unchecked(
        "notes",
        &[Mig::up("0001_more", "UPDATE notes SET n = n + 1 WHERE id % 3 = 0; CREATE TABLE more AS SELECT * FROM seen LIMIT 3;")],
    );
    device.enroll(&server.token("notes"));
    // Twice: what the first run remembers of a file is read by the second.
    for _ in 0..2 {
        let outcome = device.once();
        assert!([0, 3, 4].contains(&outcome.code), "{outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        for n in 0..3 {
            let done = one::<u32>(&device.path(&format!("whole-{n}.db")), "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'");
            assert_eq!(done, 1, "a whole file was held up: {outcome}");
        }
    }
    for name in ["view", "trigger"] {
        let path = device.path(&format!("prepared-{name}.db"));
        let error: String = one(&path, "SELECT error FROM _whimbrel_migration");
        assert!(error.contains("load_extension"), "{name}: {error}");
    }
}
