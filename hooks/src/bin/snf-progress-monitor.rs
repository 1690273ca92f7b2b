//! `snf-progress-monitor`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hooks::config::{self, Config};
use hooks::progress;

/// Reads the JSON objects that an image deployment writes, from standard input, and leaves
/// them as messages in the outbox, from where snf-ganeti-eventd publishes them.
///
/// At most five messages a second leave, and always the last. What is no message is written
/// to standard error as it came.
///
/// Exit status: 0 the input ended; 1 it could not be read, or the last message not be left;
/// 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "snf-progress-monitor", version)]
struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The instance that the image is for.
    #[arg(value_parser = instance_name)]
    instance: String,
}

fn instance_name(name: &str) -> Result<String, String> {
    let good = !name.is_empty()
        && name.len() <= 255
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'));
    if good {
        Ok(name.to_owned())
    } else {
        Err("not the name of an instance".to_owned())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match work(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snf-progress-monitor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let node = config.node_name()?;
    // Unbuffered, so that what is polled for and what is read are the same.
    let input = io::stdin();
    let input = std::fs::File::from(std::os::fd::AsFd::as_fd(&input).try_clone_to_owned()?);
    progress::run(
        &args.instance,
        &node,
        &config.outbox_dir,
        input,
        io::stderr().lock(),
    )?;
    Ok(())
}
