//! `snf-ganeti-eventd`.

use std::process::ExitCode;

use clap::Parser;
use eventd::args::{Args, Command};
use eventd::config::Config;

fn main() -> ExitCode {
    let args = Args::parse();
    match work(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("snf-ganeti-eventd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &Args) -> anyhow::Result<bool> {
    if let Command::MigrateConfig { file } = &args.command {
        print!("{}", eventd::takeover::migrate(file)?);
        return Ok(true);
    }
    let config = Config::load(&args.config, args.config_is_explicit())?;
    agents::service::log::init(&config.log);
    match &args.command {
        Command::Run { print: false } => eventd::serve::run(&config)?,
        Command::Run { print: true } => eventd::print::print(&config)?,
        Command::Check => return Ok(eventd::check::check(&config)?),
        Command::Replay { print, jobs } => eventd::replay::replay(&config, jobs, *print)?,
        // done above: our own configuration need not be there yet
        Command::MigrateConfig { .. } => {}
        Command::Messages { action } => eventd::messages::act(&config, action)?,
        Command::Status => print!("{}", eventd::status::status(&config)),
    }
    Ok(true)
}
