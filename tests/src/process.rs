//! A child process with its log: stopped, killed or frozen by its id, and never left behind.

use std::{
    fs::File,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::wait::until;

/// Longest that a process may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// A running child. Killed when dropped; an ERROR in its log that nobody expected fails the story then.
pub struct Process {
    name: String,
    child: Option<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
    expected: Vec<String>,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `folder/name.out` and `folder/name.log`.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.log")));
        let append = |path: &Path| File::options().create(true).append(true).open(path).expect("a log file can be made");
        // SAFETY: only an async-signal-safe call between fork and exec.
        unsafe {
            // A test that is killed takes its children along.
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.stdin(Stdio::null()).stdout(append(&stdout)).stderr(append(&stderr)).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self { name: name.to_owned(), child: Some(child), stdout, stderr, expected: Vec::new() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    /// Lets ERROR lines pass that contain `text`.
    pub fn expect_error(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// What it wrote to stdout so far.
    pub fn out(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        read(&self.stderr)
    }

    /// Waits for a line on stdout that contains `text`, and gives it.
    #[track_caller]
    pub fn line(&mut self, limit: Duration, text: &str) -> String {
        until(limit, &format!("{text:?} on stdout of {}", self.name), || {
            if let Some(line) = self.out().lines().find(|l| l.contains(text)) {
                return Some(line.to_owned());
            }
            if let Some(status) = self.ended() {
                panic!("{} ended with {status}:\n{}{}", self.name, self.out(), self.log());
            }
            None
        })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().expect("it was not reaped").try_wait().expect("a child can be waited for")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is ours and not reaped yet, so its id is not another's.
        unsafe { libc::kill(self.pid().cast_signed(), signal) };
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, and gives how it did.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(STOP_LIMIT)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        match self.wait_quietly(limit) {
            Some(status) => status,
            None => panic!("{} has not ended after {:?}:\n{}", self.name, begun.elapsed(), self.log()),
        }
    }

    fn wait_quietly(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// ERROR lines of its log that nobody expected.
    pub fn errors(&self) -> Vec<String> {
        unexpected_errors(&self.log(), &self.expected)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let errors = self.errors();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}---", self.name, tail(&self.log()));
        } else {
            assert!(errors.is_empty(), "{} logged errors that were not expected:\n{}", self.name, errors.join("\n"));
        }
    }
}

/// ERROR lines in `log` that contain none of `expected`.
pub fn unexpected_errors(log: &str, expected: &[String]) -> Vec<String> {
    let is_error = |line: &str| line.split_whitespace().take(3).any(|word| word == "ERROR") || line.contains("panicked at");
    log.lines().filter(|l| is_error(l) && !expected.iter().any(|e| l.contains(e))).map(str::to_owned).collect()
}

/// The exit code, or minus the signal.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_a_log_is_found_unless_it_was_expected() {
        let log = "2026-01-01T00:00:00Z ERROR whimbrel::cycle: it failed\n2026-01-01T00:00:00Z  INFO x: no ERROR here\nthread 'main' panicked at x\n";
        assert_eq!(unexpected_errors(log, &[]).len(), 2);
        assert_eq!(unexpected_errors(log, &["it failed".to_owned()]).len(), 1);
    }
}
