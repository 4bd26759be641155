//! Somebody who signs what they publish, at the command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{
    bins,
    migrations::{self, Mig},
    server::Server,
};

/// The passphrase of every key.
pub const PASSPHRASE: &str = "correct horse battery";

/// A publisher with a folder for keys and migrations, and one app on one server.
pub struct Publisher {
    /// Where everything of theirs is.
    pub folder: PathBuf,
    app: String,
    url: String,
    api_key: String,
}

impl Publisher {
    /// One with an empty folder, who has made nothing yet.
    pub fn new(folder: &Path, server: &Server, app: &str) -> Self {
        fs::create_dir_all(folder).expect("a folder can be made");
        Self { folder: folder.to_owned(), app: app.to_owned(), url: server.url(), api_key: server.key.clone() }
    }

    /// Makes the app a signed one: `root.pem` signs its root, `ci.pem` its migrations. Answers the root, as devices are given it.
    #[track_caller]
    pub fn begin(&self) -> PathBuf {
        for key in ["root.pem", "ci.pem"] {
            self.does(&["keys", "create", key]);
        }
        self.root(&["--root-key", "root.pem.pub", "--publisher-key", "ci.pem.pub"], &["root.pem"])
    }

    /// Makes, signs and uploads the next root. Answers it, as devices are given it.
    #[track_caller]
    pub fn root(&self, changes: &[&str], signers: &[&str]) -> PathBuf {
        self.does(&[&["keys", "root", "--app", &self.app, "--out", "root.json"], changes].concat());
        for signer in signers {
            self.does(&["keys", "sign", "root.json", "--key", signer]);
        }
        self.does(&["keys", "verify", "root.json", "--out", "trusted-root.json"]);
        self.does(&["keys", "upload", "root.json"]);
        self.folder.join("trusted-root.json")
    }

    /// Writes migrations, in place of those that were there.
    pub fn write(&self, chain: &[Mig]) {
        let folder = self.folder.join("migrations");
        let _ = fs::remove_dir_all(&folder);
        migrations::write(&folder, chain);
    }

    /// Runs `whimbrel publish` on them, with more arguments.
    pub fn publish(&self, more: &[&str]) -> Output {
        self.run(&[&["publish", "migrations", "--app", &self.app], more].concat())
    }

    /// Writes and publishes migrations, signed with `ci.pem`.
    #[track_caller]
    pub fn publish_signed(&self, chain: &[Mig]) {
        self.write(chain);
        let output = self.publish(&["--key", "ci.pem"]);
        assert!(output.status.success(), "publish: {output:?}");
    }

    /// A command of theirs.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bins::whimbrel());
        command.args(args).current_dir(&self.folder).stdin(Stdio::null());
        command.env("WHIMBREL_SERVER", &self.url).env("WHIMBREL_API_KEY", &self.api_key).env("WHIMBREL_KEY_PASSPHRASE", PASSPHRASE);
        command
    }

    /// Runs a command.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("whimbrel starts")
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    pub fn does(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that has to fail, with this exit code and these words.
    #[track_caller]
    pub fn refused(&self, args: &[&str], exit: i32, says: &str) {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(exit) && said.contains(says), "{args:?}: {output:?}");
    }
}
