//! What is to be done: a pure function of what is asked and what the host is like.

mod binding;
mod bridged;
mod guard;
mod routed;

use std::fmt;

use crate::config::Config;
use crate::facts::Facts;
use crate::request::{Connection, Request};
use crate::step::Step;

/// What is to be done for a NIC, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// For this NIC alone.
    pub steps: Vec<Step>,
    /// For several: done before the others, taken back with the last NIC that needs them.
    pub shared: Vec<Step>,
}

impl Plan {
    /// Makes the plan.
    pub fn make(request: &Request, facts: &Facts, config: &Config) -> Self {
        let mut plan = Self::default();
        // First: there is no moment in which the guest could send what it may not.
        if let Some(guard) = guard::plan(request, config) {
            plan.shared
                .extend(request.gateway6.map(|address| Step::Reserve {
                    bridged: guard.bridged,
                    address,
                }));
            plan.steps.push(Step::Guard(guard));
        }
        match &request.connection {
            Connection::Bridged { bridge, vlans } => {
                let port = bridged::Port {
                    bridge,
                    vlans: vlans.as_ref(),
                };
                bridged::plan(&mut plan, request, &port, facts, config);
            }
            Connection::OpenVSwitch { bridge, vlans } => {
                plan.steps.extend(no_host(request, facts));
                plan.steps.push(Step::SwitchPort {
                    bridge: bridge.clone(),
                    vlans: vlans.clone(),
                });
                // A router of VRRP (RFC 5798) has the address of its group as well.
                if !request.tags.any_mac && request.tags.vrrp.is_empty() {
                    plan.steps.push(Step::SwitchSource {
                        bridge: bridge.clone(),
                        mac: request.nic.mac,
                    });
                }
                plan.steps.push(Step::Up);
            }
            Connection::External => {
                plan.steps.extend(no_host(request, facts));
                plan.steps.push(Step::Up);
            }
            Connection::Routed { table } => {
                routed::plan(&mut plan, request, *table, facts, config);
            }
        }
        plan.shared.extend(
            request
                .masquerade
                .map(|network| Step::Masquerade { network }),
        );
        if let Some(bits) = request.tags.rate_in {
            plan.steps.push(Step::Rate { bits });
        }
        if request.nfdhcpd {
            plan.steps.push(Step::Binding {
                text: binding::text(request, facts, config),
            });
        }
        plan
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.shared {
            writeln!(f, "{step} (shared)")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

/// The host itself is no one on the guest's link.
fn no_host(request: &Request, facts: &Facts) -> Option<Step> {
    let name = format!("net/ipv6/conf/{}/disable_ipv6", request.interface());
    facts.ipv6.then(|| setting(name, "1"))
}

/// A setting of an interface that goes with it, so that it need not be put back.
fn setting(name: String, value: &str) -> Step {
    Step::Sysctl {
        name,
        value: value.to_owned(),
        before: None,
    }
}
