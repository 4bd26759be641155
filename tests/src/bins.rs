//! Finding the binaries under test beside the one that asks.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The daemon and command line.
pub fn whimbrel() -> PathBuf {
    find("whimbrel")
}

/// The server.
pub fn server() -> PathBuf {
    find("whimbrel-server")
}

/// The application beside the daemon.
pub fn app() -> PathBuf {
    find("whimbrel-test-app")
}

/// The folder of the running profile: `target/debug` or `target/release`.
pub fn folder() -> PathBuf {
    let me = std::env::current_exe().expect("a process has an executable");
    let folder = me.parent().expect("an executable lies in a folder");
    if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder").to_owned() } else { folder.to_owned() }
}

/// The daemon as the packages ship it, built first: its own profile is smaller than `release`.
pub fn shipped() -> PathBuf {
    cargo(&["device"]);
    folder().parent().expect("a profile's folder lies in the target folder").join("device/whimbrel")
}

/// Builds the binaries in the profile that is running: `cargo run` and `cargo bench` build only what was named.
pub fn build() {
    let release = folder().ends_with("release").then_some("--release");
    cargo(&["build", "--workspace", "--bins"].into_iter().chain(release).collect::<Vec<_>>());
}

fn cargo(args: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(status.success(), "cargo {} failed", args.join(" "));
}

fn find(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is not built: `cargo build --workspace --bins` makes it", path.display());
    // A test of old binaries misleads. Only a word, since an editor may touch a source at any time.
    if newest_source().zip(modified(&path)).is_some_and(|(source, built)| source > built) {
        eprintln!("note: {name} is older than its sources: `cargo build --workspace --bins`");
    }
    path
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn newest_source() -> Option<SystemTime> {
    fn newest(folder: &Path) -> Option<SystemTime> {
        std::fs::read_dir(folder)
            .ok()?
            .filter_map(Result::ok)
            .filter_map(|e| if e.path().is_dir() { newest(&e.path()) } else { modified(&e.path()) })
            .max()
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    ["shared/src", "daemon/src", "daemon/schema", "server-stub/src", "server-stub/schema"].iter().filter_map(|f| newest(&root.join(f))).max()
}
