//! Answers, files, disks and settings that are wrong: a clear error with a remedy, nothing lost, nothing half done.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    time::Duration,
};

use rusqlite::Connection;
use whimbrel_tests::{
    Device, Mig, Server, Wire, content_hash,
    device::{client_id, list, one},
    host,
    http::Message,
    net, until,
};

use crate::{SOON, pair, stage};

type Change = fn(&Message) -> Vec<u8>;

fn with_body(answer: &Message, body: impl Into<Vec<u8>>) -> Vec<u8> {
    let mut answer = answer.clone();
    answer.headers.remove("etag");
    answer.body = body.into();
    answer.to_bytes()
}

/// Ways in which an answer can be wrong.
const WRONG: [(&str, Change); 13] = [
    ("truncated", |a| {
        let bytes = a.to_bytes();
        bytes[..bytes.len().saturating_sub(7)].to_vec()
    }),
    ("cut in its head", |a| a.to_bytes()[..20].to_vec()),
    ("silent", |_| Vec::new()),
    ("oversized", |a| with_body(a, vec![b' '; 70 * 1024 * 1024])),
    ("said to be oversized", |a| a.to_bytes().escape_ascii().to_string().replace("content-length: ", "content-length: 99999999").into_bytes()),
    ("not UTF-8", |a| with_body(a, vec![0xff, 0xfe, 0x00, 0x80])),
    ("an empty text", |a| with_body(a, "")),
    ("of the wrong type", |a| with_body(a, "[1, \"two\", null]")),
    ("of a wrong type inside", |a| {
        let text = String::from_utf8_lossy(&a.body).into_owned();
        let changes =
            [("\"version\":", "\"version\":\"x\",\"was\":"), ("\"acknowledged\":[", "\"acknowledged\":[7,"), ("\"files\":{", "\"files\":{\"x\":7,")];
        with_body(a, changes.iter().fold(text, |text, (from, to)| text.replace(from, to)))
    }),
    ("null", |a| with_body(a, "null")),
    ("a page of a hotel's network", |a| {
        let mut page = a.clone();
        page.headers.insert("content-type".to_owned(), "text/html".to_owned());
        with_body(&page, "<html><body>Welcome! Please sign in.</body></html>")
    }),
    ("no HTTP", |_| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ("an error of a proxy", |_| b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\nconnection: close\r\n\r\noops\n".to_vec()),
];

/// Spoils the answers to requests whose first line contains `which`, one way after the other, and shows each time that
/// the device says so, changes nothing, and goes on when the wire is good again.
fn spoil(which: &'static str) {
    let stage = stage();
    let server = Server::start(stage.path());
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "CREATE TABLE notes(x)");
    device.enroll(&server.token("notes"));
    device.once();
    let chain = |length: u32| (1..=length).map(|n| Mig::up(&format!("{n:04}_m"), format!("CREATE TABLE t{n}(x)"))).collect::<Vec<_>>();
    for ((name, change), n) in WRONG.iter().zip(1..) {
        server.publish_unchecked("notes", &chain(n));
        let before = content_hash(&file);
        let change = *change;
        wire.tamper(move |request, answer| {
            let spoilt = request.first.contains(which) && answer.status() != 304;
            if spoilt { change(answer) } else { answer.to_bytes() }
        });
        let outcome = device.once();
        let said = outcome.said();
        assert!([1, 3, 4, 75].contains(&outcome.code), "{which} {name}: {outcome}");
        assert!(said.contains(&wire.url()) || said.contains("targets entry"), "{which} {name}: it does not say what was wrong: {outcome}");
        assert!(said.contains("remedy") || said.contains("; "), "{which} {name}: no remedy: {outcome}");
        assert!(!said.contains("panicked"), "{which} {name}: {outcome}");
        let reports = which.contains("status");
        if !reports {
            assert_eq!(content_hash(&file), before, "{which} {name}");
        }
        wire.mend();
        device.once_well();
        assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), n, "{which} {name}");
    }
    assert_eq!(server.stored_reports(&client_id(&file)), list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq"), "reports");
}

#[test]
fn wrong_answers_to_a_poll_change_nothing() {
    spoil("GET /api/poll");
}

#[test]
fn wrong_metadata_changes_nothing() {
    spoil("/targets.json");
}

#[test]
fn wrong_bytes_of_a_migration_are_never_run() {
    spoil("/targets/");
}

#[test]
fn wrong_answers_to_reports_lose_and_double_nothing() {
    spoil("POST /api/migrations/status");
}

#[test]
fn duplicated_and_swapped_answers_are_told_from_right_ones() {
    let stage = stage();
    let server = Server::start(stage.path());
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    // Twice the same answer: the second belongs to nothing.
    server.publish("notes", &[Mig::up("0001_m", "CREATE TABLE one(x)")]);
    wire.tamper(|_, answer| [answer.to_bytes(), answer.to_bytes()].concat());
    let outcome = device.once();
    assert!([0, 75, 1].contains(&outcome.code), "{outcome}");
    wire.mend();
    device.once_well();
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration"), 1);

    // The bytes of one migration where another's belong.
    let chain = [Mig::up("0001_m", "CREATE TABLE one(x)"), Mig::up("0002_m", "CREATE TABLE two(x)"), Mig::up("0003_m", "CREATE TABLE six(x)")];
    server.publish("notes", &chain);
    let other = server.ask("GET", "/repository/notes/targets/0003_m.r1.json", &serde_json::Value::Null).body;
    wire.tamper(move |request, answer| if request.first.contains("0002_m") { with_body(answer, other.clone()) } else { answer.to_bytes() });
    let outcome = device.once();
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(outcome.said().contains("0002_m"), "{outcome}");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM sqlite_schema WHERE name IN ('two', 'six')"), 0);
    wire.mend();
    device.once_well();
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), 3);
}

#[test]
fn a_file_that_is_no_database_is_left_as_it_is() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[Mig::up("0001_m", "CREATE TABLE one(x)")]);
    for (name, content) in
        [("text", b"this is a letter to my aunt\n".repeat(100)), ("noise", (0..9000u32).map(|n| ((n * 7919) >> 3) as u8).collect())]
    {
        let other = Device::new(stage.path(), name, &server.url()).database("letter.txt", "notes");
        other.enroll(&server.token("notes"));
        let path = other.path("letter.txt");
        fs::write(&path, &content).unwrap();
        other.once().says(4, &["letter.txt", "not an SQLite database"]);
        assert_eq!(fs::read(&path).unwrap(), content, "{name}");
        assert!(!other.path("letter.txt-wal").exists() && !other.path("letter.txt-shm").exists(), "{name}");
    }
    // The good one beside it is not held up.
    device.once_well();
}

#[test]
fn a_damaged_database_is_set_aside_and_nothing_is_written_to_it() {
    let stage = stage();
    let (server, device) = pair(
        &stage,
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000) INSERT INTO notes SELECT n, hex(randomblob(100)) FROM c;",
    );
    server.publish_unchecked("notes", &[Mig::up("0001_m", "CREATE TABLE copy AS SELECT * FROM notes")]);
    let file = device.path("notes.db");
    Connection::open(&file).unwrap().execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let mut bytes = fs::read(&file).unwrap();
    // The pages of the table, not the first one.
    bytes[4096..200_000].iter_mut().step_by(3).for_each(|b| *b = b.wrapping_mul(31).wrapping_add(7));
    fs::write(&file, &bytes).unwrap();
    device.once().says(4, &["notes.db", "damaged", "backup"]);
    let user_tables = list(&file, "SELECT name FROM sqlite_schema WHERE name = 'copy'");
    assert!(user_tables.is_empty());
}

/// A user that is not root and owns nothing else.
const NOBODY: u32 = 65534;

/// Runs a cycle as somebody who is not root, so that permissions count.
fn once_as_nobody(device: &Device) -> (i32, String) {
    let mut command = device.command(&["run", "--once"]);
    // SAFETY: a plain system call without arguments.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Gives a device to that user.
fn give_to_nobody(stage: &Path, device: &Device) {
    fs::set_permissions(stage, fs::Permissions::from_mode(0o755)).unwrap();
    // SAFETY: a plain system call without arguments.
    if unsafe { libc::geteuid() } == 0 {
        let done = std::process::Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(device.folder()).status().unwrap();
        assert!(done.success());
    }
}

#[test]
fn a_file_that_may_not_be_read_says_so_and_how_to_mend_it() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x)");
    server.publish("notes", &[Mig::up("0001_m", "CREATE TABLE one(x)")]);
    give_to_nobody(stage.path(), &device);
    let file = device.path("notes.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let (code, said) = once_as_nobody(&device);
    assert!([3, 4].contains(&code), "{code}: {said}");
    assert!(said.contains("notes.db") && said.contains("let the daemon's user read"), "{said}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, said) = once_as_nobody(&device);
    assert_eq!(code, 0, "{said}");

    fs::set_permissions(device.config(), fs::Permissions::from_mode(0o000)).unwrap();
    let (code, said) = once_as_nobody(&device);
    assert_eq!(code, 77, "{said}");
    assert!(said.contains("config.toml"), "{said}");
}

#[test]
fn a_file_of_another_owner_is_not_opened_unless_its_owner_can_go_on_writing() {
    if !host::root() {
        return;
    }
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x)");
    server.publish("notes", &[Mig::up("0001_m", "CREATE TABLE one(x)")]);
    give_to_nobody(stage.path(), &device);
    let file = device.path("notes.db");
    std::os::unix::fs::chown(&file, Some(12345), Some(12345)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let before = fs::read(&file).unwrap();
    let (code, said) = once_as_nobody(&device);
    assert!([3, 4].contains(&code) && said.contains("notes.db") && said.contains("owner"), "{code}: {said}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(!device.path("notes.db-wal").exists() && !device.path("notes.db-shm").exists());

    // As root what SQLite makes beside the file belongs to the file's owner, who goes on writing.
    std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    let reader = whimbrel_tests::App::idle(&file);
    device.once_well();
    for beside in ["notes.db-wal", "notes.db-shm"] {
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(device.path(beside)).unwrap());
        assert_eq!(owner, NOBODY, "{beside}");
    }
    drop(reader);
}

/// A device whose database lies on a disk of 2 MB.
fn on_a_small_disk(stage: &Path, server: &Server) -> Option<(Device, net::SmallDisk)> {
    let disk = stage.join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(mounted) = net::small_disk(&disk, 2 * 1024 * 1024) else {
        host::skip("a small file system cannot be mounted here");
        return None;
    };
    let device = Device::new(stage, "device", &server.url()).database(disk.join("notes.db").to_str().unwrap(), "notes");
    device.make(
        disk.join("notes.db").to_str().unwrap(),
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); INSERT INTO notes(body) VALUES ('keep')",
    );
    device.enroll(&server.token("notes"));
    Some((device, mounted))
}

/// Fills a disk, but for `left` bytes.
fn fill(disk: &Path, left: u64) {
    use std::io::Write;
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let full = filler.metadata().unwrap().len();
    filler.set_len(full.saturating_sub(left)).unwrap();
}

#[test]
fn a_full_disk_stops_a_migration_whole_and_it_goes_on_when_there_is_room() {
    if !host::root() {
        return;
    }
    let stage = stage();
    let server = Server::start(stage.path());
    let Some((device, _mounted)) = on_a_small_disk(stage.path(), &server) else { return };
    let disk = stage.path().join("disk");
    let file = disk.join("notes.db");
    server.plan_nothing("notes");
    device.once();
    let grow = "CREATE TABLE big(x); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 150) INSERT INTO big SELECT randomblob(4000) FROM c;";
    server.publish_unchecked("notes", &[Mig::up("0001_grow", grow)]);
    server.plan_all("notes");
    let before = content_hash(&file);
    // Full to the last byte, then nearly: refused before it begins, or stopped in the middle.
    for left in [0, 200_000, 400_000] {
        fill(&disk, left);
        let outcome = device.once();
        assert!([3, 4].contains(&outcome.code), "{left} bytes left: {outcome}");
        assert!(outcome.said().contains("free some disk space"), "{left} bytes left: {outcome}");
        fs::remove_file(disk.join("filler")).unwrap();
        assert_eq!(content_hash(&file), before, "{left} bytes left");
        assert_eq!(one::<String>(&file, "PRAGMA integrity_check"), "ok");
    }
    device.once_well();
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM big"), 150);
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM notes WHERE body = 'keep'"), 1);
}

#[test]
fn a_daemon_whose_own_disk_is_full_stays_alive_says_so_and_recovers() {
    if !host::root() {
        return;
    }
    let stage = stage();
    let server = Server::start(stage.path());
    let disk = stage.path().join("device/state");
    fs::create_dir_all(&disk).unwrap();
    let Some(_mounted) = net::small_disk(&disk, 16 * 1024 * 1024) else { return host::skip("a small file system cannot be mounted here") };
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes").polls("*/2 * * * * *");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    server.publish("notes", &[Mig::up("0001_m", "CREATE TABLE one(x)")]);
    let mut daemon = device.start();
    daemon.until_settled(SOON, 1);
    for word in ["disk", "full", "device.db"] {
        daemon.process.expect_error(word);
    }
    fill(&disk, 0);
    // Too large for what a device keeps in reserve.
    let comment = "-- padding\n".repeat(250_000);
    server.publish("notes", &[Mig::up("0001_m", "CREATE TABLE one(x)"), Mig::up("0002_m", format!("{comment}CREATE TABLE two(x);"))]);
    until(SOON, "it says that its disk is full", || {
        assert!(daemon.process.ended().is_none(), "the daemon ended:\n{}", daemon.process.log());
        let status = device.try_status()?;
        let said = status.to_string() + &daemon.process.log();
        (said.contains("disk_full") || said.contains("free some disk space")).then_some(())
    });
    fs::remove_file(disk.join("filler")).unwrap();
    until(SOON + Duration::from_secs(60), "it has recovered", || {
        assert!(daemon.process.ended().is_none(), "the daemon ended:\n{}", daemon.process.log());
        Connection::open(&file).ok()?.query_row("SELECT count(*) FROM two", [], |r| r.get::<_, u32>(0)).ok()
    });
}

#[test]
fn a_wrong_configuration_is_refused_with_its_line_and_the_nearest_right_key() {
    let stage = stage();
    let device = Device::new(stage.path(), "device", "http://127.0.0.1:9").database("notes.db", "notes");
    let good = fs::read_to_string(device.config()).unwrap();
    let cases: [(&str, String, &[&str]); 7] = [
        ("unknown key", good.replace("state_dir", "state_dri"), &["line 3", "state_dri", "state_dir"]),
        ("unknown table", format!("{good}\n[shedule]\npoll = \"x\"\n"), &["shedule", "schedule"]),
        ("wrong type", format!("parallel = \"three\"\n{good}"), &["parallel", "line 1"]),
        ("bad cron", good.replace("0 0 0 1 1 *", "every day"), &["poll", "six fields"]),
        ("plain http to another machine", good.replace("127.0.0.1:9", "updates.example.com"), &["https"]),
        ("no TOML", format!("{good}\n]["), &["config.toml"]),
        ("no databases", good.replace("[[database]]", "[labels]"), &["database"]),
    ];
    for (name, text, words) in cases {
        fs::write(device.config(), text).unwrap();
        for command in [&["run", "--once"][..], &["run"], &["status"]] {
            let outcome = device.run(command);
            assert_eq!(outcome.code, 78, "{name}: {outcome}");
            outcome.says(78, words);
        }
    }
    fs::remove_file(device.config()).unwrap();
    device.run(&["run", "--once"]).says(78, &["config.toml"]);
    assert!(!device.state().exists() && !device.path("notes.db").exists(), "something was made all the same");
}

#[test]
fn wrong_tokens_and_missing_servers_say_what_to_do() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes");
    device.make("notes.db", "");
    let wrong = device.run(&["enroll", &server.url(), "--token", "wbe_not-a-token"]);
    assert_ne!(wrong.code, 0, "{wrong}");
    assert!(wrong.stderr.contains("token"), "{wrong}");
    assert!(!wrong.said().contains("wbe_not-a-token"), "a secret was shown: {wrong}");
    let mut lost = Device::new(stage.path(), "lost", &server.url()).database("notes.db", "notes");
    lost.lead_to("http://127.0.0.1:1");
    let gone = lost.run(&["enroll", "http://127.0.0.1:1", "--token", "x"]);
    assert_eq!(gone.code, 75, "{gone}");
    // Not enrolled: it says so, and touches nothing of the user's.
    let outcome = device.once();
    assert!(outcome.code != 0 && outcome.said().contains("enroll"), "{outcome}");
    device.run(&["status"]).says(69, &["whimbrel run"]);
}
