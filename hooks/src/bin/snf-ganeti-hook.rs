//! `snf-ganeti-hook`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hooks::config::{self, Config};
use hooks::hook;

/// A Ganeti hook: tells an instance's NICs after it was created, started, rebooted or
/// modified, by leaving a message in the outbox, from where snf-ganeti-eventd publishes it;
/// and on the node that an instance has left (stop, remove, migrate, failover), ends the
/// neighbour proxies of its routed NICs.
///
/// Ganeti runs it, without arguments, through links in
/// /etc/ganeti/hooks/instance-{add,start,reboot,modify,stop,remove,migrate,failover}-post.d/;
/// what it does it takes from the GANETI_* variables. It never waits for the network.
///
/// Exit status: 0 done, or nothing to do; 1 failed, with one line that says why (Ganeti logs
/// it, and the operation stays successful); 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "snf-ganeti-hook", version)]
struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
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
