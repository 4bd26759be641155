//! `whimbrel enroll`: exchange a token. The token is read here and goes nowhere but to the server.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use serde::Serialize;
use whimbrel_shared::{
    address::{Way, way},
    ids::{AppName, DeviceId},
};

use super::{
    error::{CliError, ExitCode},
    output::Output,
    run::{block_on, store_exit, transport_exit},
};
use crate::{
    enroll::{EnrollError, enroll},
    telemetry,
};

/// `schema` of what `enroll` prints.
pub const ENROLL_SCHEMA: &str = "whimbrel.enroll/1";
/// Longest token that is read; ours have 60 characters.
const MAX_TOKEN_BYTES: u64 = 4096;
const TOKEN_VARIABLE: &str = "WHIMBREL_TOKEN";

/// Make this device known to a server, with an enrolment token from its operator
///
/// The token is exchanged once for a device token, which is kept in the state directory and never shown. A device that is
/// enrolled already stays who it is and adds the token's app. If the answer is lost, run it again: that costs no second use
/// of the token. Nothing is applied yet: that is what `whimbrel run` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   enrolled
  1   the server refused the token
  2   no token, a wrong address, or a root that cannot be pinned
  75  the server did not answer
  77  not permitted
  78  the configuration cannot be used, or names another server

A token on the command line can be seen in the list of processes and in the shell's history:
`--token-file -` reads it from stdin, and WHIMBREL_TOKEN gives it in the environment.")]
pub struct Args {
    /// The server's address, such as https://updates.example.com
    url: String,
    /// The enrolment token
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the enrolment token; - is stdin
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Become another device for the server, where it does not know this one's token any more
    #[arg(long)]
    as_new: bool,
    /// The publisher's root.json: only what is signed under it runs on this device (trust = "tuf")
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    device_id: DeviceId,
    app: &'a AppName,
    server: &'a str,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let token = token(&args, std::env::var(TOKEN_VARIABLE).ok())?;
    let config = out.config()?;
    telemetry::start(telemetry::COMMAND);
    if way(&args.url) == Ok(Way::Plain) {
        out.say(format!("{} is plain http to another machine: everybody on the way can read the tokens", args.url));
    }
    let enrolled = block_on(enroll(&config, &args.url, &token, args.root.as_deref(), args.as_new))?.map_err(from_enroll)?;
    if out.is_json() {
        return out.json(ENROLL_SCHEMA, &Printed { device_id: enrolled.device_id, app: &enrolled.app, server: &enrolled.server });
    }
    out.text(&format!("enrolled for {} at {} as device {}\n", enrolled.app, enrolled.server, enrolled.device_id))?;
    if !config.databases.iter().any(|d| d.app == enrolled.app) {
        out.say(format!("no [[database]] in {} has app = \"{}\": add one, or nothing will be applied", config.file.display(), enrolled.app));
    }
    Ok(())
}

/// The token, from the one place that has it.
fn token(args: &Args, variable: Option<String>) -> Result<String, CliError> {
    let read = |source: &mut dyn Read, name: &str| {
        let mut text = String::new();
        match source.take(MAX_TOKEN_BYTES).read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(e) => Err(CliError::usage(format!("the token cannot be read from {name}: {e}"), "name a file with the token alone")),
        }
    };
    let text = match (&args.token, &args.token_file, variable) {
        (Some(token), _, _) => token.clone(),
        (None, Some(file), _) if file.as_os_str() == "-" => read(&mut io::stdin().lock(), "stdin")?,
        (None, Some(path), _) => {
            let name = path.display().to_string();
            let file =
                File::open(path).map_err(|e| CliError::usage(format!("the token file {name} cannot be opened: {e}"), "name a file that is there"));
            read(&mut file?, &name)?
        }
        (None, None, Some(token)) => token,
        (None, None, None) => String::new(),
    };
    match text.trim() {
        "" => Err(CliError::usage(
            "there is no enrolment token",
            format!("give --token TOKEN, --token-file FILE or {TOKEN_VARIABLE}; the operator makes one with `whimbrel-server token create`"),
        )),
        token => Ok(token.to_owned()),
    }
}

fn from_enroll(error: EnrollError) -> CliError {
    let exit = match &error {
        EnrollError::BadUrl { .. } => ExitCode::Usage,
        EnrollError::OtherServer { .. } => ExitCode::Configuration,
        EnrollError::Root(_) => ExitCode::Usage,
        EnrollError::Transport(error) => transport_exit(error),
        EnrollError::Store(error) => store_exit(error),
    };
    CliError::new(exit, error.to_string(), error.remedy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_comes_from_a_flag_a_file_or_the_environment() {
        let args = |token: Option<&str>, file: Option<PathBuf>| Args {
            url: String::new(),
            token: token.map(str::to_owned),
            token_file: file,
            as_new: false,
            root: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        let variable = || Some("from-env".to_owned());
        assert_eq!(token(&args(Some("flag"), None), variable()).unwrap(), "flag");
        assert_eq!(token(&args(None, Some(file)), variable()).unwrap(), "from-file");
        assert_eq!(token(&args(None, None), variable()).unwrap(), "from-env");
        for (args, variable) in [(args(None, None), None), (args(Some("  "), None), None), (args(None, Some(dir.path().join("none"))), None)] {
            assert_eq!(token(&args, variable).unwrap_err().exit, ExitCode::Usage);
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_a_usage_error() {
        assert_eq!(from_enroll(EnrollError::BadUrl { url: "x".into(), why: "y".into() }).exit, ExitCode::Usage);
    }
}
