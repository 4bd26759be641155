//! The documents: what they tell people to type is typed.

use std::{fs, path::Path, process::Command};

use whimbrel_tests::bins;

use crate::stage;

/// The `sh` blocks of a document, by the heading that they stand under.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut heading, mut inside) = (String::new(), false);
    for line in text.lines() {
        match (inside, line.trim_end()) {
            (false, "```sh") => {
                inside = true;
                if found.last().is_none_or(|(h, _)| *h != heading) {
                    found.push((heading.clone(), String::new()));
                }
            }
            (true, "```") => inside = false,
            (true, line) => {
                let (_, script) = found.last_mut().expect("a block was begun");
                script.push_str(line);
                script.push('\n');
            }
            (false, line) if line.starts_with("## ") => heading = line[3..].to_owned(),
            (false, _) => {}
        }
    }
    found
}

#[test]
fn blocks_are_found_under_their_headings() {
    let text = "# t\n## a\n```sh\none\n```\nwords\n```sh\ntwo\n```\n```toml\nno\n```\n## b\n```sh\nthree\n```\n";
    assert_eq!(blocks(text), [("a".to_owned(), "one\ntwo\n".to_owned()), ("b".to_owned(), "three\n".to_owned())]);
}

#[test]
fn the_demonstration_runs_to_its_end() {
    let output = Command::new(bins::folder().join("demo")).args(["--once", "--built"]).output().unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("none lost, none twice"), "{said}");
}

#[test]
fn the_commands_of_docs_start_md_run() {
    commands_run("start.md");
}

#[test]
fn the_commands_of_docs_signing_md_run() {
    commands_run("signing.md");
}

fn commands_run(name: &str) {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let text = fs::read_to_string(&document).unwrap_or_else(|e| panic!("{}: {e}", document.display()));
    let found = blocks(&text);
    assert!(!found.is_empty(), "{name} has no sh blocks");
    let stage = stage();
    // One after the other in one folder and one shell: each part goes on where the last one ended.
    let script: String = found.iter().map(|(heading, block)| format!("echo '== {}'\n{block}\n", heading.replace('\'', ""))).collect();
    let file = stage.path().join("start.sh");
    // What was put into the background ends with the shell.
    fs::write(&file, format!("set -eu\ntrap 'jobs -p | xargs -r kill 2>/dev/null || true' EXIT\n{script}")).unwrap();
    let path = format!("{}:{}", bins::folder().display(), std::env::var("PATH").unwrap_or_default());
    let work = stage.path().join("work");
    fs::create_dir(&work).unwrap();
    // The document names a port. In a network of its own it is free; without the right to make one it has to be.
    let alone = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output().is_ok_and(|o| o.status.success());
    let begin: &[&str] =
        if alone { &["unshare", "--net", "sh", "-c", "ip link set lo up; exec timeout 120 bash \"$0\""] } else { &["timeout", "120", "bash"] };
    let mut command = Command::new(begin[0]);
    command.args(&begin[1..]).arg(&file).current_dir(&work).env("PATH", path).env("HOME", &work);
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "WHIMBREL_CONFIG", "WHIMBREL_API_KEY"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n--- the script:\n{script}", said);
}
