//! The speed of nfdhcpd behind the kernel's real queue, against a ceiling and against what else
//! answers DHCP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)] // a benchmark may stop, and rounds its figures

mod cpus;
mod frames;
mod load;
mod peers;
#[path = "../shared/priority.rs"]
mod priority;
mod rates;
mod responder;
mod site;
mod soak;
mod start;
#[path = "../shared/statistics.rs"]
mod statistics;
mod table;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use cpus::Cpus;

/// Measures nfdhcpd: exchanges through TAPs and the kernel's queue, all replies checked.
///
/// The guests are on one CPU, what answers on the others; the two take turns in one run, over
/// several rounds. Printed are medians, in brackets the least and the most, and the ratio of the
/// medians. A percentile of a latency is the median of those of twenty slices of a run.
#[derive(Parser)]
struct Arguments {
    /// What to measure; all of it but the soak if nothing is said.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of TAPs for the rates.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000])]
    taps: Vec<usize>,
    /// Bindings at the start.
    #[arg(long, default_value_t = 5000)]
    bindings: usize,
    /// Exchanges of the soak.
    #[arg(long, default_value_t = 10_000_000)]
    exchanges: u64,
    /// Length of one trial, milliseconds.
    #[arg(long, default_value_t = 500)]
    trial: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Exchanges a second, latency, CPU time, memory.
    Rates,
    /// From the start of the process to the answers of many guests.
    Start,
    /// From the signal to end until the next process is ready.
    Restart,
    /// From a binding's file to the first answer.
    Binding,
    /// DHCP on a bridge, against dnsmasq and Kea if they are installed.
    Peers,
    /// Memory over millions of exchanges; takes minutes, so only if named.
    Soak,
}

/// What every measurement is given.
struct Settings {
    cpus: Cpus,
    rounds: usize,
    trial: Duration,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        cpus: Cpus::divide()?,
        rounds: arguments.rounds,
        trial: Duration::from_millis(arguments.trial),
    };
    raise_file_limit()?;
    let wanted = |what| arguments.what.is_empty() || arguments.what.contains(&what);
    if wanted(What::Rates) {
        for taps in &arguments.taps {
            rates::measure(&settings, *taps)?;
        }
    }
    if wanted(What::Binding) {
        start::binding(&settings)?;
    }
    if wanted(What::Start) {
        start::start(&settings, arguments.bindings)?;
    }
    if wanted(What::Restart) {
        start::restart(&settings)?;
    }
    if wanted(What::Peers) {
        peers::measure(&settings)?;
    }
    if arguments.what.contains(&What::Soak) {
        soak::measure(&settings, arguments.exchanges)?;
    }
    Ok(())
}

/// Each TAP is a file.
fn raise_file_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
