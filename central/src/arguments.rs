//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::admin::{instance, objects, queue, reconcile, status};
use crate::config;

/// The API and the dispatcher of a Ganeti cloud
///
/// Exit status: 0 done; 1 failed; 2 wrong usage; 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "snf-central", version)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, short, global = true, default_value = config::DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API and the dispatcher, in the foreground
    Serve,
    /// Bring the schema of the database up to date
    Migrate,
    /// Check the configuration, the database, the clusters
    Check,
    /// Users
    #[command(subcommand)]
    User(objects::User),
    /// Projects and their members
    #[command(subcommand)]
    Project(objects::Project),
    /// Tokens
    #[command(subcommand)]
    Token(objects::Token),
    /// Clusters
    #[command(subcommand)]
    Backend(objects::Backend),
    /// Flavors
    #[command(subcommand)]
    Flavor(objects::Flavor),
    /// Images
    #[command(subcommand)]
    Image(objects::Image),
    /// Networks
    #[command(subcommand)]
    Network(objects::Network),
    /// Addresses
    #[command(subcommand)]
    Address(objects::Address),
    /// Limits of projects
    #[command(subcommand)]
    Quota(objects::Quota),
    /// Servers
    #[command(subcommand)]
    Server(objects::Server),
    /// Unknown instances: such as carry our prefix and have no row
    Instance {
        /// Command
        #[command(subcommand)]
        command: instance::Command,
    },
    /// Print the OpenAPI document of the API
    Openapi,
    /// Make users, projects, backends, flavors, images and networks as a file describes them
    ///
    /// What is there already is brought in line with the file; nothing is removed.
    Seed {
        /// The description, in TOML: see `central-seed.toml`
        file: PathBuf,
    },
    /// Compare the clusters with the database, and repair what differs
    ///
    /// The service does this all the time. Here it is done now: two looks, and what both show
    /// is repaired.
    Reconcile {
        /// How
        #[command(flatten)]
        options: reconcile::Options,
        /// Sign to accept
        #[command(flatten)]
        acceptance: reconcile::Acceptance,
    },
    /// Show how the clusters, their eventds, the broker and the reconciler are
    ///
    /// Every eventd is asked through its cluster and answers through the broker. Exit status:
    /// 0 all is well; 1 something is not, or there are dead letters.
    Status(status::Options),
    /// Look at the messages that could not be applied
    Queue {
        /// What to do with them
        #[command(subcommand)]
        command: queue::Command,
    },
}
