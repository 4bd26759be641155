//! What this machine lets a story do.

use std::path::{Path, PathBuf};

/// Says on stderr that a story was skipped and why; the continuous integration fails on it.
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Whether we are root; says so where not.
pub fn root() -> bool {
    // SAFETY: a plain system call without arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skip("needs root");
    }
    root
}

/// The library that shifts a process's clock; says so where it is not installed.
pub fn faketime() -> Option<PathBuf> {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime", "/usr/lib64/faketime"];
    let found = places.iter().map(|p| Path::new(p).join("libfaketimeMT.so.1")).find(|p| p.exists());
    if found.is_none() {
        skip("needs libfaketime (Debian package faketime)");
    }
    found
}

/// Whether a program is installed; says so where not.
pub fn has(program: &str) -> bool {
    let there = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|p| p.join(program).exists()));
    if !there {
        skip(&format!("needs {program}"));
    }
    there
}
