//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Answers DHCPv4, DHCPv6, router and neighbour solicitations of guests.
///
/// Each guest's interface has a binding file, named after it, in /var/lib/nfdhcpd; whoever
/// starts the guest writes it. Packets come from a netfilter queue, answers go straight into the
/// interface.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS)]
pub struct Arguments {
    /// Configuration file; the original's kind if its name ends in .conf. Else
    /// /etc/nfdhcpd/nfdhcpd.toml, or else /etc/nfdhcpd/nfdhcpd.conf, or else the defaults.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
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
