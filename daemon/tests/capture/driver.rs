//! Ways in which applications reach SQLite. Each is another process with another library, but for the first.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rusqlite::Connection;

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Rusqlite,
    Shell,
    Python,
    BetterSqlite3,
}

impl Driver {
    /// Runs statements on one connection of its own; returns the messages of those that failed. What the driver needs and
    /// is not there fails the test.
    pub(crate) fn run(self, path: &Path, statements: &[&str]) -> Vec<String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capture/drivers");
        let json = serde_json::to_string(statements).unwrap();
        match self {
            Self::Rusqlite => {
                let connection = Connection::open(path).unwrap();
                statements.iter().filter_map(|sql| connection.execute_batch(sql).err()).map(|e| e.to_string()).collect()
            }
            Self::Shell => {
                let (_, said) = piped(Command::new("sqlite3").arg("-batch").arg(path), &(statements.join(";\n") + ";\n"));
                said.lines().filter(|line| line.contains("rror")).map(str::to_owned).collect()
            }
            Self::Python => list(piped(Command::new("python3").arg(here.join("python.py")).arg(path), &json)),
            Self::BetterSqlite3 => {
                let script = better_sqlite3(&here);
                list(piped(Command::new("node").arg(script).arg(path), &json))
            }
        }
    }
}

/// Installs it once below the build, and gives the script beside it.
fn better_sqlite3(here: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capture-drivers");
    let installed = folder.join("node_modules/better-sqlite3/build/Release/better_sqlite3.node");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "better_sqlite3.js"] {
        std::fs::copy(here.join(file), folder.join(file)).unwrap();
    }
    if !installed.exists() {
        let made = Command::new("npm").args(["install", "--no-package-lock", "--no-audit", "--no-fund"]).current_dir(&folder).output();
        let made = made.expect("npm has to be installed (Debian: nodejs, npm, make, g++)");
        let said = String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success() && installed.exists(), "better-sqlite3 could not be installed:\n{said}");
    }
    folder.join("better_sqlite3.js")
}

/// What it printed, and what it complained about.
fn piped(command: &mut Command, input: &str) -> (String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?} has to be installed (Debian: sqlite3, python3, nodejs): {e}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn list((printed, said): (String, String)) -> Vec<String> {
    serde_json::from_str(&printed).unwrap_or_else(|e| panic!("the driver failed: {e}: {printed}{said}"))
}
