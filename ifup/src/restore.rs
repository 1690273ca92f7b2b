//! Putting back what a flush of the host's filters or a start of the node took away, and taking
//! back what interfaces that are gone have left.

use std::fmt;

use agents::netlink::Rtnetlink;
use agents::netlink::nftables::Nftables;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::guard::install;
use crate::lock::Lock;
use crate::masquerade;
use crate::openvswitch::openflow;
use crate::record::{self, Record};
use crate::run::{self, Finished};
use crate::step::Step;

/// Takes back what is recorded of interfaces that are gone. The interfaces' names.
///
/// # Errors
/// The folder of records cannot be read. What cannot be taken back is logged, and tried again
/// the next time.
pub fn sweep(config: &Config) -> Result<Vec<String>> {
    let mut rtnetlink = Rtnetlink::open()?;
    let mut gone = Vec::new();
    for interface in record::interfaces(&config.state)? {
        let record = match Record::load(&config.state, &interface) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(interface, %error, "the record");
                continue;
            }
        };
        let link = rtnetlink.link_by_name(&interface)?;
        if link.is_some_and(|link| link.index == record.index) {
            continue;
        }
        match run::clean_up(&interface, record.index, config) {
            Ok(()) => {
                let instance = record.instance;
                tracing::info!(interface, instance, "gone; what it left was taken back");
                gone.push(interface);
            }
            Err(error) => tracing::warn!(interface, %error, "not all was taken back"),
        }
    }
    Ok(gone)
}

/// A NIC whose last call was cut off, or was an older program's, and what became of it.
#[derive(Debug)]
pub struct Repaired {
    /// The interface.
    pub interface: String,
    /// The instance.
    pub instance: String,
    /// The result.
    pub outcome: Result<Finished>,
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.interface, self.instance)?;
        match &self.outcome {
            Ok(Finished::Connected) => f.write_str("was half done; it is connected now"),
            Ok(Finished::Disconnected) => {
                f.write_str("was half taken back; it is disconnected now")
            }
            Ok(Finished::GivenUp(reason)) => write!(
                f,
                "was half done and cannot be connected; it is disconnected now: {reason}"
            ),
            Ok(Finished::Renewed) => {
                f.write_str("was connected by an older program; it is as this one does it now")
            }
            Err(error) => write!(f, "is not as it should be, and cannot be repaired: {error}"),
        }
    }
}

/// Finishes what calls that were killed have left half done, of interfaces that are there, and does
/// anew what an older program did otherwise.
///
/// # Errors
/// The folder of records cannot be read. What becomes of each NIC is returned.
pub fn finish(config: &Config) -> Result<Vec<Repaired>> {
    record::make_folder(&config.state)?;
    {
        let deadline = Deadline::start(config.deadline_seconds);
        let _lock = Lock::take(&config.state, &deadline)?;
        record::remove_temporaries(&config.state)?;
    }
    let mut repaired = Vec::new();
    for interface in record::interfaces(&config.state)? {
        let Ok(Some(record)) = Record::load(&config.state, &interface) else {
            continue;
        };
        if !record.unfinished && !record.leaving && !record.is_outdated() {
            continue;
        }
        let outcome = match run::finish(&interface, config) {
            Ok(None) => continue,
            Ok(Some(finished)) => Ok(finished),
            Err(error) => Err(error),
        };
        repaired.push(Repaired {
            interface,
            instance: record.instance,
            outcome,
        });
    }
    Ok(repaired)
}

/// Puts back the flows of NICs whose Open vSwitch was started anew without them. Returns the
/// interfaces.
///
/// # Errors
/// The folder of records cannot be read, or a switch refuses.
pub fn switch_flows(config: &Config) -> Result<Vec<String>> {
    let program = &config.openvswitch.flow_program;
    let mut limited = Vec::new();
    for interface in record::interfaces(&config.state)? {
        let Ok(Some(record)) = Record::load(&config.state, &interface) else {
            continue;
        };
        for step in &record.steps {
            if let Step::SwitchSource { bridge, mac } = step
                && !openflow::is_limited(program, bridge, &interface, *mac)?
            {
                openflow::limit_source(program, bridge, &interface, *mac)?;
                limited.push(interface.clone());
            }
        }
    }
    Ok(limited)
}

/// Makes the guard's tables anew from the records if they are not as they should be; whether
/// they were not.
///
/// # Errors
/// The kernel refuses.
pub fn guard(config: &Config) -> Result<bool> {
    let deadline = Deadline::start(config.deadline_seconds);
    record::make_folder(&config.state)?;
    let _lock = Lock::take(&config.state, &deadline)?;
    let mut nftables = Nftables::open()?;
    let profiles = config.named_profiles();
    let known = record::known(&config.state, "")?;
    let mut changed = false;
    for network in &known.masqueraded {
        if !masquerade::is_there(&mut nftables, *network)? {
            masquerade::add(&mut nftables, *network)?;
            changed = true;
        }
    }
    if !install::is_complete(&mut nftables, &profiles, &known)? {
        install::rebuild(&mut nftables, &profiles, &known)?;
        changed = true;
    }
    Ok(changed)
}
