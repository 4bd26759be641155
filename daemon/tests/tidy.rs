//! The house stands as ARCHITECTURE.md draws it: imports point downwards, borrowed machinery stays behind its file, and
//! what calls itself pure is. Reads the text of the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each part of the daemon may use, besides `shared` and itself. `protocol` is `control/protocol.rs`: words only.
const MAY_USE: &[(&str, &[&str])] = &[
    ("ambient", &[]),
    ("wake", &[]),
    ("telemetry", &[]),
    ("config", &["wake"]),
    ("store", &[]),
    ("trust", &["store", "transport"]),
    ("transport", &["ambient"]),
    ("sync", &["ambient", "store"]),
    ("migrate", &["ambient", "config", "store", "sync", "trust", "wake"]),
    ("protocol", &["migrate", "replicate", "sync"]),
    ("publish", &["ambient", "migrate", "store", "transport", "trust"]),
    ("replicate", &["ambient", "migrate", "store", "sync", "transport"]),
    ("enroll", &["ambient", "config", "store", "transport", "trust"]),
    ("cycle", &["config", "migrate", "protocol", "replicate", "store", "sync", "transport", "trust", "wake"]),
    ("control", &["config", "cycle", "migrate", "protocol", "replicate", "store", "sync", "trust", "wake"]),
    ("daemon", &["ambient", "config", "control", "cycle", "migrate", "protocol", "store", "transport", "trust", "wake"]),
    (
        "cli",
        &[
            "ambient",
            "config",
            "control",
            "daemon",
            "enroll",
            "migrate",
            "protocol",
            "publish",
            "replicate",
            "store",
            "sync",
            "telemetry",
            "transport",
        ],
    ),
];

/// Crates that only these places may name.
const ONLY_IN: &[(&str, &[&str])] = &[
    (
        "rusqlite",
        &[
            "daemon/src/store/",
            "daemon/src/migrate/",
            "daemon/src/sync/",
            "daemon/src/replicate",
            "daemon/src/publish/",
            "server-stub/src/store/sqlite",
            "server-stub/src/lift/",
        ],
    ),
    ("reqwest", &["daemon/src/transport/"]),
    ("rustls", &["daemon/src/transport/"]),
    ("sigstore_tuf", &["daemon/src/trust/tuf.rs"]),
    ("tokio_cron_scheduler", &["daemon/src/wake/cron.rs"]),
    ("glob", &["daemon/src/migrate/work.rs"]),
];

/// What a pure file cannot need.
const IMPURE: &[&str] =
    &["std::fs", "std::net", "std::process", "std::env", "SystemTime::now", "Instant::now", "tokio::", "rusqlite", "reqwest", "getrandom"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source file below `dir`: its path from the root, and its text without tests.
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![root().join(dir)];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                found.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), code));
            }
        }
    }
    assert!(!found.is_empty(), "{dir} has no sources");
    found
}

/// The lines that are code.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|l| !l.starts_with("//"))
}

/// Parts of the daemon that a text names, through `crate::part` or `crate::{part …}`.
fn parts_used(text: &str) -> Vec<String> {
    let flat = code(text).collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for (at, _) in flat.match_indices("crate::") {
        let rest = &flat[at + "crate::".len()..];
        let names: Vec<String> = if let Some(list) = rest.strip_prefix('{') {
            // Names at the first level of the braces.
            let (mut depth, mut names, mut word, mut fresh) = (0, Vec::new(), String::new(), true);
            for c in list.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    _ => {}
                }
                if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                } else if !word.is_empty() {
                    names.push(list_name(&std::mem::take(&mut word), list));
                    fresh = false;
                }
            }
            names
        } else {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            vec![list_name(&name, rest)]
        };
        found.extend(names);
    }
    found
}

/// `control::protocol` is a part of its own, when nothing else of `control` is named there.
fn list_name(name: &str, rest: &str) -> String {
    let only_words = rest.contains("control::protocol") || rest.contains("control::{protocol");
    if name == "control" && only_words && !rest.contains("control::server") && !rest.contains("control::{client") {
        "protocol".to_owned()
    } else {
        name.to_owned()
    }
}

#[test]
fn imports_point_downwards() {
    let mut wrong = Vec::new();
    for (path, text) in sources("daemon/src") {
        let inside = path.strip_prefix("daemon/src/").unwrap();
        let part = match inside {
            _ if inside.starts_with("control/protocol") => "protocol",
            "lib.rs" | "main.rs" => continue,
            _ if inside.ends_with("_tests.rs") || inside.ends_with("/tests.rs") || inside.ends_with("fixture.rs") || inside.ends_with("fake.rs") => {
                continue;
            }
            _ => inside.split(['/', '.']).next().unwrap(),
        };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{path}: the part {part:?} is not in the table"));
            continue;
        };
        for used in parts_used(&text) {
            let known = MAY_USE.iter().any(|(name, _)| *name == used);
            if known && used != part && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{path} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point upwards:\n{}", wrong.join("\n"));
}

#[test]
fn borrowed_machinery_stays_behind_its_file() {
    let mut wrong = Vec::new();
    for (path, text) in ["shared/src", "daemon/src", "server-stub/src"].into_iter().flat_map(sources) {
        for (name, places) in ONLY_IN {
            let named = code(&text).any(|l| l.contains(&format!("{name}::")));
            if named && !places.iter().any(|p| path.starts_with(p)) {
                wrong.push(format!("{path} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_calls_itself_pure_is() {
    let mut pure = 0;
    for (path, text) in ["shared/src", "daemon/src", "server-stub/src"].into_iter().flat_map(sources) {
        let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
        assert!(!head.is_empty(), "{path} does not say what lives in it (a //! line first)");
        if path.starts_with("shared/") || head.contains(" Pure") {
            pure += 1;
            for word in IMPURE {
                assert!(!code(&text).any(|l| l.contains(word)), "{path} says it is pure and names {word}");
            }
        }
    }
    assert!(pure > 15, "only {pure} pure files were found");
}
