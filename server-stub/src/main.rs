//! The binary `whimbrel-server`: sets up the log, reads the command line, and turns the outcome into an exit code.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use whimbrel_server::cli::{Cli, run};

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("WHIMBREL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whimbrel-server: {error}\n  {}", error.remedy().sentence());
            ExitCode::from(error.exit_code())
        }
    }
}
