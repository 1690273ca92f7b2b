//! `snf-progress-monitor`.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use hooks::arguments::ProgressArguments;
use hooks::config::Config;
use hooks::progress::{self, EndSignals};

fn main() -> ExitCode {
    let args = ProgressArguments::parse();
    match work(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snf-progress-monitor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &ProgressArguments) -> anyhow::Result<()> {
    let end = EndSignals::hold_back()?;
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
        &end,
        io::stderr().lock(),
    )?;
    Ok(())
}
