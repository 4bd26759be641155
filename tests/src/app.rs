//! The application beside the daemon: a process of its own (`whimbrel-test-app`) with its own SQLite connection.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::Value;

/// Longest until it says that it is ready, or how it went.
const LIMIT: Duration = Duration::from_secs(30);

/// A running application.
pub struct App {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl App {
    /// Writes one row into `table` (its column `body`) every `every_ms`, with that busy timeout, until it is stopped.
    pub fn writing(database: &Path, table: &str, every_ms: u32, busy_ms: u32) -> Self {
        Self::start(&["write", path(database), table, &every_ms.to_string(), &busy_ms.to_string()])
    }

    /// Opens a new connection every `every_ms`, reads with that busy timeout, and closes it.
    pub fn reading(database: &Path, every_ms: u32, busy_ms: u32) -> Self {
        Self::start(&["read", path(database), &every_ms.to_string(), &busy_ms.to_string()])
    }

    /// Holds the write lock for so long, or until it is stopped.
    pub fn holding_the_lock(database: &Path, hold: Duration) -> Self {
        Self::start(&["hold-write", path(database), &hold.as_millis().to_string()])
    }

    /// Holds a read transaction for so long, or until it is stopped.
    pub fn holding_a_read(database: &Path, hold: Duration) -> Self {
        Self::start(&["hold-read", path(database), &hold.as_millis().to_string()])
    }

    /// Only has the file open, having read from it.
    pub fn idle(database: &Path) -> Self {
        Self::start(&["open", path(database)])
    }

    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(crate::bins::app())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("the application does not start: {e}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (tell, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let app = Self { child, stdin, lines };
        app.says("ready", LIMIT);
        app
    }

    /// Waits for a line that begins with `word`.
    #[track_caller]
    pub fn says(&self, word: &str, limit: Duration) -> String {
        let line = self.lines.recv_timeout(limit).unwrap_or_else(|e| panic!("the application did not say {word:?} within {limit:?}: {e}"));
        assert!(line.starts_with(word), "the application said {line:?}, not {word:?}");
        line
    }

    /// Whether it has said something that was not listened to.
    pub fn spoke(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Stops it, and gives what it counted: `done`, `busy`, `errors`, `p50_us`, `p99_us`, `max_us`, `longest_busy_us`.
    #[track_caller]
    pub fn stop(mut self) -> Value {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(b"stop\n");
        }
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("the application says how it went");
            if line.starts_with('{') {
                return serde_json::from_str(&line).expect("the application says it in JSON");
            }
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the stage's paths are text")
}
