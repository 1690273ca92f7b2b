//! `snf-ganeti-hook`.

use std::process::ExitCode;

use agents::ganeti::hook_environment::HookEnvironment;
use agents::service::environment;
use clap::Parser;
use hooks::arguments::HookArguments;
use hooks::config::Config;
use hooks::hook;

fn main() -> ExitCode {
    let args = HookArguments::parse();
    match work(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snf-ganeti-hook: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &HookArguments) -> anyhow::Result<()> {
    let variables = environment::texts(std::env::vars_os(), HookEnvironment::is_variable)?;
    let config = Config::load(&args.config)?;
    hook::run(&config, variables)?;
    Ok(())
}
