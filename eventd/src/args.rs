//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config;
use crate::messages::Action;

/// Watches the Ganeti job queue and publishes job progress and instance state over AMQP.
///
/// Runs on every node of a cluster: on the master it turns every new version of a job file
/// into messages; on all nodes it sends what hooks left in the outbox. It stays in the
/// foreground and ends in order on SIGTERM.
///
/// Exit status: 0 it ended in order; 1 it failed; 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "snf-ganeti-eventd", version)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", global = true, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run as the daemon.
    Run {
        /// Only print the messages, as JSON lines on standard output, from now on. Needs no
        /// broker, changes nothing, and can run beside the daemon.
        #[arg(long)]
        print: bool,
    },
    /// Check the configuration, the queue, the outbox and the way to each broker.
    Check,
    /// Send again what jobs are at now, with the ids that it was first sent with.
    Replay {
        /// Only print the messages, as JSON lines on standard output.
        #[arg(long)]
        print: bool,
        /// The jobs' numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<u64>,
    },
    /// Print our configuration made from the settings of Synnefo's node agent.
    MigrateConfig {
        /// `/etc/synnefo/20-snf-cyclades-gtools-backend.conf`.
        file: PathBuf,
    },
    /// List, retry or drop messages that cannot be delivered.
    Messages {
        /// Command
        #[command(subcommand)]
        action: Action,
    },
    /// Show what the daemon has told, and what waits.
    Status,
}

impl Args {
    /// Whether the configuration file was named on the command line: then it must be there.
    pub fn config_is_explicit(&self) -> bool {
        self.config != std::path::Path::new(config::DEFAULT_PATH)
    }
}
