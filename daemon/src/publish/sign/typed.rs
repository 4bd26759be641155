//! A line that a person types at the terminal, and that the terminal does not show.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::fd::AsRawFd,
};

use zeroize::Zeroizing;

use super::{SignError, passphrase::first_line};

/// Asks, and reads the answer.
pub(super) fn line(question: &str) -> Result<Zeroizing<String>, SignError> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| SignError::NoPassphrase("there is no terminal to ask at".to_owned()))?;
    let silent = Silent::new(terminal.try_clone().map_err(|e| SignError::NoPassphrase(e.to_string()))?);
    let _ = terminal.write_all(question.as_bytes());
    let text = first_line(terminal.try_clone().map_err(|e| SignError::NoPassphrase(e.to_string()))?);
    drop(silent);
    let _ = terminal.write_all(b"\n");
    text
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silent {
    terminal: File,
    before: Option<libc::termios>,
}

impl Silent {
    fn new(terminal: File) -> Self {
        let mut found = std::mem::MaybeUninit::uninit();
        // SAFETY: the descriptor is open, and tcgetattr writes a whole termios or answers -1.
        let before = unsafe { (libc::tcgetattr(terminal.as_raw_fd(), found.as_mut_ptr()) == 0).then(|| found.assume_init()) };
        if let Some(mut settings) = before {
            settings.c_lflag &= !libc::ECHO;
            // SAFETY: the descriptor is open, and the settings are those it gave.
            unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, &settings) };
        }
        Self { terminal, before }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: the descriptor is open, and the settings are those it had.
            unsafe { libc::tcsetattr(self.terminal.as_raw_fd(), libc::TCSAFLUSH, before) };
        }
    }
}
