//! `snf-ifup`: what Ganeti runs for each KVM NIC.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agents::ganeti::nic_environment::{Action, NicError};
use agents::service::environment;
use clap::Parser;
use ifup::arguments::{Arguments, Command};
use ifup::config::Config;
use ifup::error::{Error, Result};
use ifup::invocation::Invocation;
use ifup::request::{is_variable, read_environment, variables};
use ifup::{announce, check, explain, list, monitor, restore, run, takeover};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let result = match Invocation::of(Path::new(&program)) {
        Invocation::Ganeti { action, mode } => {
            by_ganeti(action, mode.map(|mode| mode.name()), arguments.next())
        }
        Invocation::CommandLine => by_hand(Arguments::parse()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("snf-ifup: {}{}", subject(), one_line(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ganeti shows the text in the middle of a sentence of its own.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.lines().map(str::trim).collect();
    words.join("; ")
}

/// The NIC that the environment is about, for the start of an error's text.
fn subject() -> String {
    let value = |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
        Some(value.to_string_lossy().into_owned())
    };
    match (value("INTERFACE"), value("INSTANCE")) {
        (Some(interface), Some(instance)) => {
            format!("{} ({}): ", one_line(&interface), one_line(&instance))
        }
        _ => String::new(),
    }
}

/// Ganeti's variables. One that is not UTF-8 is refused, if it `matters`: to take it for one that
/// is not set would leave out an address or a tag.
fn environment(matters: impl Fn(&str) -> bool) -> Result<BTreeMap<String, String>> {
    let texts = environment::texts(std::env::vars_os(), |name| {
        is_variable(name) && matters(name)
    });
    Ok(variables(texts?))
}

fn by_ganeti(action: Action, mode: Option<&str>, argument: Option<OsString>) -> Result<ExitCode> {
    if let Some(argument) = argument {
        let text = format!("called as a script of Ganeti, with the argument {argument:?}");
        return Err(Error::Usage(text));
    }
    // A NIC is taken down whatever else is wrong with it.
    let variables = environment(|name| {
        action == Action::Up || matches!(name, "INTERFACE" | "MODE" | "ACTION")
    })?;
    let value = |name: &str| variables.get(name).map(String::as_str);
    if let (Some(mode), Some(set)) = (mode, value("MODE"))
        && mode != set
    {
        let reason = format!("but this is the script of mode {mode}");
        return Err(NicError::value("MODE", set, reason).into());
    }
    let wanted = match action {
        Action::Up => "up",
        Action::Down => "down",
    };
    if let Some(set) = value("ACTION")
        && !set.is_empty()
        && set != wanted
    {
        let reason = format!("but this is the script for {wanted}");
        return Err(NicError::value("ACTION", set, reason).into());
    }
    let config = Config::load(None)?;
    agents::service::log::init(&config.log);
    match action {
        Action::Up => run::up(&variables, &config),
        Action::Down => match value("INTERFACE") {
            Some(interface) => run::down(interface, &config),
            None => Err(NicError::Missing("INTERFACE").into()),
        },
    }
    .map(|()| ExitCode::SUCCESS)
}

fn by_hand(arguments: Arguments) -> Result<ExitCode> {
    if let Command::MigrateConfig { file } = &arguments.command {
        print!("{}", takeover::migrate(file)?);
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(arguments.config.as_deref())?;
    agents::service::log::init(&config.log);
    let nic = |env: Option<PathBuf>| match env {
        Some(path) => read_environment(&path),
        None => environment(|_| true),
    };
    match arguments.command {
        Command::Up { env, dry_run: true } => print!("{}", run::dry_run(&nic(env)?, &config)?),
        Command::Up {
            env,
            dry_run: false,
        } => run::up(&nic(env)?, &config)?,
        Command::Down { interface, env } => {
            let interface = match interface {
                Some(interface) => interface,
                None => nic(env)?
                    .remove("INTERFACE")
                    .ok_or(NicError::Missing("INTERFACE"))?,
            };
            run::down(&interface, &config)?;
        }
        Command::Announce { interface } => {
            announce::by_record(&interface, &config)?;
        }
        Command::Restore => {
            for interface in restore::sweep(&config)? {
                println!("{interface}: gone; what it left was taken back");
            }
            let repaired = restore::finish(&config)?;
            restore::guard(&config)?;
            for interface in restore::switch_flows(&config)? {
                println!("{interface}: the flows of its switch were gone; they are put back");
            }
            for nic in &repaired {
                println!("{nic}");
            }
            if repaired.iter().any(|nic| nic.outcome.is_err()) {
                return Ok(ExitCode::FAILURE);
            }
        }
        // done above: our own configuration need not be there yet
        Command::MigrateConfig { .. } => {}
        Command::Monitor => monitor::run(&config)?,
        Command::List { json } => {
            let entries = list::entries(&config)?;
            let text = if json {
                list::json(&entries)?
            } else {
                list::table(&entries)
            };
            println!("{}", text.trim_end());
        }
        Command::Check => {
            let mut found = check::host::unfit(&config)?;
            found.extend(check::nics::all(&config)?);
            for line in found.iter().chain(&check::nics::notes(&config)?) {
                println!("{line}");
            }
            // Nothing that is wrong: what scripts read stays as it was.
            for line in list::variants(&config)? {
                eprintln!("note: {line}");
            }
            if !found.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            println!("the configuration, this host and its NICs are as they should be");
        }
        Command::Explain {
            interface,
            frame,
            to,
        } => {
            let frame = if frame == "-" {
                std::io::read_to_string(std::io::stdin())
                    .map_err(|error| Error::file("standard input", error))?
            } else {
                frame
            };
            let frame = explain::parse_frame(&frame)?;
            let way = if to {
                explain::Way::To
            } else {
                explain::Way::From
            };
            print!(
                "{}",
                explain::of_interface(&interface, &frame, way, &config)?
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
