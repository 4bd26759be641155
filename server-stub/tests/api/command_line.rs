//! The binary: keys, tokens, serving, stopping, exit codes.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_whimbrel-server");

#[test]
fn a_secret_is_the_last_line_on_stdout_and_is_nowhere_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let key = run(folder.path(), &["key", "create", "--store", "sqlite:s.db", "--scope", "read", "--name", "ci"]);
    let token = run(folder.path(), &["token", "create", "--store", "sqlite:s.db", "--app", "notes", "--uses", "3"]);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        kept.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    for (output, prefix) in [(key, "whk_"), (token, "wht_")] {
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let secret = stdout.strip_suffix('\n').unwrap();
        assert!(secret.starts_with(prefix) && !secret.contains('\n'), "{stdout:?}");
        assert!(!output.stderr.is_empty());
        let found = kept.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "the store holds {prefix}…");
    }
    let list = run(folder.path(), &["key", "list", "--store", "sqlite:s.db", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["scope"]), (&"ci".into(), &"read".into()));
    let revoke = run(folder.path(), &["token", "revoke", "--store", "sqlite:s.db", "1"]);
    assert!(revoke.status.success());
    let list = run(folder.path(), &["token", "list", "--store", "sqlite:s.db"]);
    assert!(String::from_utf8(list.stdout).unwrap().contains("revoked"));
}

#[test]
fn a_mistake_on_the_command_line_has_its_exit_code_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], code: i32, said: &str| {
        let output = run(folder.path(), arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{stderr}");
    };
    check(&["serve"], 2, "--store");
    check(&["serve", "--store", "sqlite:s.db", "--keep-deleted", "6h"], 2, "from 1d to 3650d");
    check(&["serve", "--store", "sqlite:s.db", "--keep-answers", "a month"], 2, "not a length of time");
    check(&["serve", "--store", "sqlite:s.db", "--keep-conflicts", "3651d"], 2, "length of time");
    check(&["key", "list", "--store", "oracle:x"], 2, "sqlite:PATH");
    check(&["key", "revoke", "--store", "sqlite:s.db", "nobody"], 2, "key list");
    check(&["key", "list", "--store", "sqlite:s.db/x"], 75, "try again");
    std::fs::write(folder.path().join("text"), "no database ".repeat(500)).unwrap();
    check(&["key", "list", "--store", "sqlite:text"], 78, "integrity_check");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    check(&["serve", "--store", "sqlite:s.db", "--listen", &addr], 75, "--listen");
}

#[test]
fn a_development_server_says_what_is_needed_to_use_it_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Running(
        Command::new(BINARY).args(["serve", "--dev", "--listen", "127.0.0.1:0"]).current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap(),
    );
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert!(line().contains("whk_"));
    assert!(line().contains("demo: wht_"));
    let address = line();
    let port = address.strip_prefix("listening on http://127.0.0.1:").unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_ok());
    assert!(folder.path().join("whimbrel-dev/whimbrel.db").exists());
    let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status();
    assert!(told.unwrap().success());
    // The pipe ends with the process.
    assert!(lines.next().is_none());
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).current_dir(folder).output().unwrap()
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
