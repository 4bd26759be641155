//! What the public TUF conformance suite runs as the client under test
//! (<https://github.com/theupdateframework/tuf-conformance>, CLIENT-CLI.md): three verbs, exit code 0 or 1.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Context, bail};
use whimbrel_tests::tuf_client::TufClient;

/// What was asked: flags come before the verb.
#[derive(Default)]
struct Asked {
    metadata_dir: Option<PathBuf>,
    metadata_url: Option<String>,
    target_names: Vec<String>,
    target_dir: Option<PathBuf>,
    target_base_url: Option<String>,
    words: Vec<String>,
}

fn asked(mut args: impl Iterator<Item = String>) -> anyhow::Result<Asked> {
    let mut asked = Asked::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--metadata-dir" => asked.metadata_dir = Some(value()?.into()),
            "--metadata-url" => asked.metadata_url = Some(value()?),
            "--target-name" => asked.target_names.push(value()?),
            "--target-dir" => asked.target_dir = Some(value()?.into()),
            "--target-base-url" => asked.target_base_url = Some(value()?),
            flag if flag.starts_with('-') => bail!("{flag} is unknown"),
            _ => asked.words.push(arg),
        }
    }
    Ok(asked)
}

async fn run() -> anyhow::Result<()> {
    let asked = asked(std::env::args().skip(1))?;
    let client = TufClient::new(asked.metadata_dir.context("--metadata-dir is missing")?);
    let now_ms = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let url = || asked.metadata_url.clone().context("--metadata-url is missing");
    match asked.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["init", root] => client.init(&std::fs::read(root).with_context(|| root.to_owned())?, now_ms),
        ["refresh"] => client.refresh(&[url()?], now_ms).await?.outcome.map(|_| ()).map_err(Into::into),
        ["download"] => {
            let into = asked.target_dir.clone().context("--target-dir is missing")?;
            let targets = asked.target_base_url.clone().context("--target-base-url is missing")?;
            client.download(&url()?, &targets, &asked.target_names, &into, now_ms).await
        }
        _ => bail!("the verbs are init ROOT, refresh and download"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}
