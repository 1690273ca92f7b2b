//! The command line of nfdhcpd.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nfdhcpd::config::{Config, DEFAULT_PATH};
use nfdhcpd::serve;

/// Answers DHCPv4, DHCPv6, router and neighbour solicitations of guests.
///
/// Each guest's interface has a binding file, named after it, in /var/lib/nfdhcpd; whoever
/// starts the guest writes it. Packets come from a netfilter queue, answers go straight into the
/// interface.
#[derive(Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct Arguments {
    /// Configuration file. The default one may be missing.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve guests, in the foreground, until SIGTERM.
    Run,
    /// Check the configuration and all bindings; say what is wrong with them.
    Check,
}

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 failed, or check found something wrong; 2 wrong usage; 78 the configuration \
is wrong.";
/// sysexits(3): EX_CONFIG.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match &arguments.config {
        Some(path) => Config::load(path),
        None => Config::load_or_default(Path::new(DEFAULT_PATH)),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("nfdhcpd: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    if let Err(error) = agents::service::log::init(&config.log) {
        eprintln!("nfdhcpd: {error}");
        return ExitCode::from(EX_CONFIG);
    }
    let result = match arguments.command {
        Command::Run => serve::run(config),
        Command::Check => nfdhcpd::check::check(&config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nfdhcpd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
