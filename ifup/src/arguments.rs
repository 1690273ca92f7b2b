//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Connects a guest's network interface: bridge or routes, nfdhcpd's binding.
///
/// Ganeti 3.0 and 3.1 run it as /etc/ganeti/kvm-vif-bridge, Ganeti 3.2 as
/// /etc/ganeti/network/MODE/up and down: links to this program, without arguments, with the NIC
/// in the environment.
///
/// Exit status: 0 done; 1 failed and undone; 2 called wrongly; 65 the environment is wrong;
/// 78 the configuration is wrong. With check: 1 if something is wrong. With explain: 0 whether it
/// passes or is dropped.
#[derive(Debug, Parser)]
#[command(name = "snf-ifup", version, arg_required_else_help = true)]
pub struct Arguments {
    /// Configuration; without this /etc/snf-agents/ifup.toml, if it is there
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect the NIC that the environment describes
    Up {
        /// Read the NIC's variables from this file, as NAME=value lines, instead
        #[arg(long, value_name = "FILE")]
        env: Option<PathBuf>,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Disconnect an interface, by what was recorded when it was connected
    Down {
        /// The interface; without this, INTERFACE of the environment
        interface: Option<String>,
        /// Read the NIC's variables from this file, as NAME=value lines, instead
        #[arg(long, value_name = "FILE", conflicts_with = "interface")]
        env: Option<PathBuf>,
    },
    /// Say on the network where the guest of an interface is: gratuitous ARP, neighbour
    /// advertisements, RARP
    Announce {
        /// The interface
        interface: String,
    },
    /// Take back what interfaces that are gone have left, finish or take back what a call that was
    /// killed left half done, do anew what an older program did otherwise, put our filters back; and
    /// print which interfaces were not as they should be
    Restore,
    /// Stay, do that whenever it is needed, and follow guests that migrate in the forwarding tables
    /// of bridges
    Monitor,
    /// List the interfaces that are connected
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print our configuration made from the variables of gnt-networking
    MigrateConfig {
        /// /etc/default/gnt-networking or /etc/default/snf-network
        file: PathBuf,
    },
    /// Say whether the configuration and this host are fit, each NIC is as it was made, and our
    /// filters are as they should be and judge every evasion that we know rightly; and whether the
    /// bridges have learned, or would learn, an address of others from a guest
    Check,
    /// Say what becomes of a frame that the guest of an interface sends, by which rule, and why
    Explain {
        /// The interface
        interface: String,
        /// The frame from its destination's MAC address on, as hexadecimal digits; - reads them
        /// from standard input
        frame: String,
        /// A frame that goes to the guest instead
        #[arg(long)]
        to: bool,
    },
}
