//! The command line of nfdhcpd.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use nfdhcpd::arguments::{Arguments, Command};
use nfdhcpd::config::{Config, Source, to_toml};
use nfdhcpd::{control, explain, serve};

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
    agents::service::log::init(&config.log);
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
    match agents::service::config::migrate(file, to_toml, Config::parse) {
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
