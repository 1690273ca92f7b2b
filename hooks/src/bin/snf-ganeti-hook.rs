//! `snf-ganeti-hook`.

use std::process::ExitCode;

use clap::Parser;
use hooks::arguments::HookArguments;
use hooks::config::Config;
use hooks::hook;

fn main() -> ExitCode {
    let args = HookArguments::parse();
    // Not `vars()`, which panics on a variable that is not UTF-8.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let result = Config::load(&args.config)
        .map_err(|error| error.to_string())
        .and_then(|config| hook::run(&config, variables).map_err(|error| error.to_string()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snf-ganeti-hook: {error}");
            ExitCode::FAILURE
        }
    }
}
