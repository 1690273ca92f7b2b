//! The command line of nfdhcpd.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Parser, Subcommand};
use nfdhcpd::config::{Config, Source, to_toml};
use nfdhcpd::{control, explain, serve};

/// Answers DHCPv4, DHCPv6, router and neighbour solicitations of guests.
///
/// Each guest's interface has a binding file, named after it, in /var/lib/nfdhcpd; whoever
/// starts the guest writes it. Packets come from a netfilter queue, answers go straight into the
/// interface.
#[derive(Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct Arguments {
    /// Configuration file; the original's kind if its name ends in .conf. Else
    /// /etc/nfdhcpd/nfdhcpd.toml, or else /etc/nfdhcpd/nfdhcpd.conf, or else the defaults.
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
    /// Show the guests that the running daemon serves.
    Clients {
        /// As JSON, one object a guest.
        #[arg(long)]
        json: bool,
    },
    /// Say what would be answered to a frame, and why.
    Explain {
        /// The guest's interface.
        interface: String,
        /// The frame from its Ethernet header on, in hexadecimal digits.
        frame: String,
    },
    /// Print nfdhcpd.toml for a configuration of the original nfdhcpd.
    MigrateConfig {
        /// The original's file.
        #[arg(default_value = "/etc/nfdhcpd/nfdhcpd.conf")]
        file: PathBuf,
    },
}

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 failed, or check found something wrong; 2 wrong usage; 78 the configuration \
is wrong.";
/// sysexits(3): EX_CONFIG.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::MigrateConfig { file } = &arguments.command {
        return migrate(file);
    }
    let source = Source::find(arguments.config);
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => return refuse_config(&error),
    };
    if let Err(error) = agents::service::log::init(&config.log) {
        return refuse_config(&format!("log: {error}"));
    }
    let result = match arguments.command {
        Command::Run => serve::run(config, source),
        Command::Check => nfdhcpd::check::check(&config),
        Command::Clients { json } => clients(&config.control, json),
        Command::Explain { interface, frame } => {
            explain::explain(&config, &interface, &frame).map(|text| print!("{text}"))
        }
        Command::MigrateConfig { .. } => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nfdhcpd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse_config(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("nfdhcpd: {error}");
    ExitCode::from(EX_CONFIG)
}

fn migrate(file: &Path) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("nfdhcpd: cannot read {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    // What is printed must also be good: values are checked by the way that they will be read.
    let checked = to_toml(file, &text).and_then(|toml| Config::parse(file, &toml).map(|_| toml));
    match checked {
        Ok(toml) => {
            print!("{toml}");
            ExitCode::SUCCESS
        }
        Err(error) => refuse_config(&error),
    }
}

fn clients(socket: &Path, json: bool) -> anyhow::Result<()> {
    let reports = control::ask(socket)
        .with_context(|| format!("no daemon answers at {} (are you root?)", socket.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        print!("{}", control::table(&reports, now));
    }
    Ok(())
}
