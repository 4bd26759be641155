//! The binary `whimbrel-server`: sets up the log, reads the command line, and turns the outcome into an exit code.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};
use whimbrel_server::cli::{Cli, run};

fn main() -> ExitCode {
    let wanted = std::env::var("WHIMBREL_LOG").ok().and_then(|w| w.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(stderr.with_filter(filter)).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whimbrel-server: {error}\n  {}", error.remedy().sentence());
            ExitCode::from(error.exit_code())
        }
    }
}
