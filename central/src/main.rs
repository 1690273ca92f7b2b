//! `snf-central`: reads the arguments, starts logging, calls the library.

use std::process::ExitCode;

use central::admin::objects;
use central::arguments::{Arguments, Command};
use central::config::Config;
use central::{admin, arenas, serve};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// `EX_CONFIG` of sysexits.h.
const WRONG_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    arenas::share();
    serve::install_tls();
    let arguments = Arguments::parse();
    if let Command::Openapi = arguments.command {
        println!("{}", admin::openapi());
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("snf-central: {error}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    agents::service::log::init(&config.log);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("snf-central: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(config, arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snf-central: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve => {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            serve::run(config, |_| {}, stop).await
        }
        Command::User(command) => objects::run(&config, objects::Command::User(command)).await,
        Command::Project(command) => {
            objects::run(&config, objects::Command::Project(command)).await
        }
        Command::Token(command) => objects::run(&config, objects::Command::Token(command)).await,
        Command::Backend(command) => {
            objects::run(&config, objects::Command::Backend(command)).await
        }
        Command::Flavor(command) => objects::run(&config, objects::Command::Flavor(command)).await,
        Command::Image(command) => objects::run(&config, objects::Command::Image(command)).await,
        Command::Network(command) => {
            objects::run(&config, objects::Command::Network(command)).await
        }
        Command::Address(command) => {
            objects::run(&config, objects::Command::Address(command)).await
        }
        Command::Quota(command) => objects::run(&config, objects::Command::Quota(command)).await,
        Command::Server(command) => objects::run(&config, objects::Command::Server(command)).await,
        Command::Instance { command } => admin::instance::run(&config, &command).await,
        Command::Openapi => Ok(()),
        Command::Migrate => admin::migrate(&config).await,
        Command::Check => admin::check::run(&config).await,
        Command::Seed { file } => admin::seed::run(&config, &file).await,
        Command::Status(options) => admin::status::run(&config, &options).await,
        Command::Queue { command } => admin::queue::run(&config, &command).await,
        Command::Reconcile {
            options,
            acceptance,
        } if acceptance.accept_restored || acceptance.take_over => {
            admin::reconcile::accept(&config, options.backend.as_deref(), acceptance).await
        }
        Command::Reconcile { options, .. } => admin::reconcile::run(&config, &options).await,
    }
}
