//! Publishers sign: what they type, what they are told, and what never gets out. `docs/signing.md` is the other half: its
//! commands run as they stand.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;
use whimbrel_tests::{
    Mig, Server,
    publisher::{PASSPHRASE, Publisher},
};

use crate::{pair, stage};

#[test]
fn a_device_without_trust_goes_on_while_its_app_becomes_signed() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let publisher = Publisher::new(&stage.path().join("publisher"), &server, "notes");
    let mut chain = vec![Mig::up("0001_notes", "CREATE TABLE notes(id INTEGER PRIMARY KEY);")];
    publisher.write(&chain);
    assert!(publisher.publish(&[]).status.success(), "unsigned, as long as there is no root");
    device.once_well();
    publisher.begin();
    device.once_well();
    chain.push(Mig::up("0002_title", "ALTER TABLE notes ADD COLUMN title TEXT;"));
    publisher.write(&chain);
    let unsigned = publisher.publish(&[]);
    assert_eq!(unsigned.status.code(), Some(77), "{unsigned:?}");
    assert!(String::from_utf8_lossy(&unsigned.stderr).contains("--key"), "{unsigned:?}");
    assert!(publisher.publish(&["--key", "ci.pem"]).status.success());
    device.once_well();
    let history: i64 = whimbrel_tests::device::one(&device.path("notes.db"), "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'");
    assert_eq!(history, 2);
    // Nothing new is nothing to sign.
    let again = publisher.publish(&[]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("nothing new"), "{again:?}");
    publisher.refused(&["publish", "migrations", "--app", "other", "--key", "ci.pem"], 1, "has no root");
}

#[test]
fn a_key_that_others_could_have_read_or_that_has_no_say_signs_nothing() {
    let stage = stage();
    let server = Server::start(stage.path());
    let publisher = Publisher::new(&stage.path().join("publisher"), &server, "notes");
    publisher.begin();
    publisher.write(&[Mig::up("0001_notes", "CREATE TABLE notes(id INTEGER PRIMARY KEY);")]);
    let publish = ["publish", "migrations", "--app", "notes", "--key"];
    let with = |key: &'static str| [&publish[..], &[key]].concat();
    publisher.refused(&with("root.pem"), 1, "has no say");
    publisher.refused(&with("gone.pem"), 1, "gone.pem");
    publisher.refused(&with("env:NOT_SET"), 2, "not set");
    publisher.refused(&with("exec:exit 9"), 1, "command that signs failed");
    publisher.refused(&["keys", "create", "ci.pem"], 1, "never overwritten");
    fs::set_permissions(publisher.folder.join("ci.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    publisher.refused(&with("ci.pem"), 77, "chmod 600");
    fs::set_permissions(publisher.folder.join("ci.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let output = publisher.command(&with("ci.pem")).env("WHIMBREL_KEY_PASSPHRASE", "another").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not open"), "{output:?}");
    // With no terminal to ask at, nobody waits for an answer.
    let output = publisher.command(&["keys", "create", "more.pem"]).env_remove("WHIMBREL_KEY_PASSPHRASE").output().unwrap();
    assert!(output.status.code() == Some(2) && !publisher.folder.join("more.pem").exists(), "{output:?}");
    assert_eq!(server.get("/api/trust/notes")["expires"].get("targets"), None, "something was published");
}

#[test]
fn a_publisher_signs_nothing_on_the_servers_word() {
    let stage = stage();
    let server = Server::start(stage.path());
    let publisher = Publisher::new(&stage.path().join("publisher"), &server, "notes");
    let mut chain = vec![Mig::up("0001_notes", "CREATE TABLE notes(id INTEGER PRIMARY KEY);")];
    // The text is the publisher's; what is said of it is not.
    server.publish_unchecked("notes", &chain);
    publisher.begin();
    publisher.write(&chain);
    let publish = ["publish", "migrations", "--app", "notes", "--key", "ci.pem"];
    publisher.refused(&publish, 1, "0001_notes.r1.json");
    assert_eq!(server.get("/api/trust/notes")["expires"].get("targets"), None, "it was signed");
    // A person has looked. From then on the key knows it.
    publisher.does(&[&publish[..], &["--trust-published"]].concat());
    chain.push(Mig::up("0002_title", "ALTER TABLE notes ADD COLUMN title TEXT;"));
    publisher.publish_signed(&chain);
    assert_eq!(server.get("/api/trust/notes")["alarms"], Value::Array(Vec::new()));
}

#[test]
fn no_secret_gets_into_output_logs_files_or_arguments() {
    let stage = stage();
    let server = Server::start(stage.path());
    let publisher = Publisher::new(&stage.path().join("publisher"), &server, "notes");
    publisher.begin();
    publisher.write(&[Mig::up("0001_notes", "CREATE TABLE notes(id INTEGER PRIMARY KEY);")]);
    let outputs = [
        publisher.publish(&["--key", "ci.pem", "--json"]),
        publisher.run(&["keys", "show", "root.json", "--json"]),
        publisher.run(&["keys", "sign", "root.json", "--key", "ci.pem"]),
        publisher.command(&["keys", "sign", "root.json", "--key", "env:WHIMBREL_KEY_PASSPHRASE"]).output().unwrap(),
    ];
    let seen: Value = serde_json::from_slice(&outputs[0].stdout).unwrap();
    assert_eq!((&seen["sent"], &seen["signed"]["missing"]), (&Value::from(true), &Value::from(0)));
    // The server's keys are not encrypted here: their seeds are what must be nowhere else.
    let mut secrets = vec![PASSPHRASE.to_owned(), server.key.clone()];
    for name in ["snapshot", "timestamp", "plan"] {
        let path = stage.path().join(format!("server/keys/{name}.pem"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        secrets.push(fs::read_to_string(&path).unwrap().lines().nth(1).unwrap().to_owned());
    }
    let check = |what: &str, bytes: &[u8]| {
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{what} has a secret");
        }
    };
    for output in &outputs {
        check("an output", &output.stdout);
        check("an output", &output.stderr);
    }
    let mut folders = vec![stage.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("keys")).then_some(path));
            } else {
                check(&path.display().to_string(), &fs::read(&path).unwrap());
            }
        }
    }
}
