//! DHCP on a bridge, against what an operator could take instead: the same guests ask for the
//! same fixed addresses, and check the answers in the same way.
//!
//! dnsmasq and Kea listen on the bridge with ordinary sockets, as they always do; both keep no
//! file of leases, which makes them faster, and is what nfdhcpd does.

use std::fmt::Write as _;
use std::process::Command;

use agents::addr::MacAddr;
use anyhow::{Context as _, Result};

use crate::Settings;
use crate::load::{Kind, Load};
use crate::rates;
use crate::responder::{Responder, Who};
use crate::site::Site;
use crate::start;
use crate::table::Table;

/// Guests on the bridge.
const GUESTS: usize = 100;

/// Measures and prints.
pub fn measure(settings: &Settings) -> Result<()> {
    let mut all = vec![Who::Nfdhcpd];
    for (who, program) in [(Who::Dnsmasq, "dnsmasq"), (Who::Kea, "kea-dhcp4")] {
        if Command::new(program).arg("-v").output().is_ok() {
            all.push(who);
        } else {
            println!("\nnot measured: {} is not installed", who.name());
        }
    }
    let mut site = Site::bridged(GUESTS)?;
    let mut table = Table::default();
    for _ in 0..settings.rounds {
        for who in &all {
            let mut responder = settings
                .cpus
                .as_responder(|| Responder::start(&site, *who))?;
            start::first_offer(&mut site.guests[0])
                .with_context(|| format!("{}: {}", who.name(), responder.log()))?;
            let mut load = Load::new(&mut site.guests)?;
            rates::one(
                settings,
                &mut load,
                Kind::Dora,
                &responder,
                |figure, value| {
                    table.note(figure, *who, value);
                },
            )?;
            responder.check()?;
            // it takes its rules with it: what comes next has none of them in its way
            responder.stop()?;
        }
    }
    table.print(&format!(
        "DISCOVER, OFFER, REQUEST, ACK: {GUESTS} TAPs on a bridge"
    ));
    Ok(())
}

/// dnsmasq's configuration.
pub fn dnsmasq(site: &Site) -> Result<String> {
    let mut text = "port=0\nuser=root\ninterface=br0\nbind-interfaces\nno-ping\nquiet-dhcp\n\
                    leasefile-ro\ndhcp-authoritative\ndhcp-lease-max=100000\n\
                    dhcp-range=10.0.0.0,static,255.255.0.0\n"
        .to_owned();
    for guest in &site.guests {
        writeln!(text, "dhcp-host={},{}", MacAddr::from(guest.mac), guest.ip)?;
    }
    Ok(text)
}

/// Kea's configuration.
pub fn kea(site: &Site) -> String {
    let reservation = |guest: &crate::site::Guest| {
        serde_json::json!({
            "hw-address": MacAddr::from(guest.mac).to_string(),
            "ip-address": guest.ip,
        })
    };
    serde_json::json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": ["br0"], "dhcp-socket-type": "raw" },
        "lease-database": { "type": "memfile", "persist": false },
        "valid-lifetime": 604_800,
        "subnet4": [{
            "id": 1,
            "subnet": "10.0.0.0/16",
            "option-data": [{ "name": "routers", "data": "10.0.0.1" }],
            "reservations": site.guests.iter().map(reservation).collect::<Vec<_>>(),
        }],
        "loggers": [{
            "name": "kea-dhcp4",
            "severity": "WARN",
            "output_options": [{ "output": "stdout" }],
        }],
    }})
    .to_string()
}
