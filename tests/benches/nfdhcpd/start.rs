//! How soon guests are answered: after the start with many bindings, after a restart, and after
//! a new binding.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use agents::binding;
use anyhow::{Result, bail, ensure};
use nix::errno::Errno;

use crate::Settings;
use crate::frames::{self, Reply};
use crate::load::{Kind, Load, Pace, Until};
use crate::responder::{Responder, Who};
use crate::site::{Guest, Site};
use crate::table::{Figure, Table, text};

/// Interfaces that get a binding while others are served.
const NEW: usize = 200;
/// Interfaces that are served meanwhile.
const SERVED: usize = 100;

const READY: Figure = Figure {
    place: 0,
    name: "start to ready, ms",
    digits: 1,
};
const ALL: Figure = Figure {
    place: 1,
    name: "start to all answered (DORA), ms",
    digits: 1,
};
const MEMORY: Figure = Figure {
    place: 2,
    name: "resident when ready, MiB",
    digits: 1,
};

/// Measures and prints how soon many guests are answered after the start.
pub fn start(settings: &Settings, bindings: usize) -> Result<()> {
    let mut site = Site::new(bindings, 0)?;
    settings
        .cpus
        .as_responder(|| Responder::start(&site, Who::Nfdhcpd))?
        .kill();
    let mut table = Table::default();
    for _ in 0..settings.rounds {
        for who in [Who::Ceiling, Who::Nfdhcpd] {
            let responder = settings
                .cpus
                .as_responder(|| Responder::start(&site, who))?;
            table.note(READY, who, milliseconds(responder.ready_after));
            table.note(MEMORY, who, responder.memory()?);
            let mut load = Load::new(&mut site.guests)?;
            let all = Until::Started(bindings as u64);
            let outcome = load.run(Kind::Dora, Pace::Outstanding(32), all)?;
            ensure!(
                outcome.answered == outcome.started,
                "only {} of {bindings} guests were answered",
                outcome.answered
            );
            table.note(
                ALL,
                who,
                milliseconds(responder.ready_after + outcome.elapsed),
            );
            responder.kill();
        }
    }
    table.print(&format!("start with {bindings} bindings"));
    Ok(())
}

/// Measures and prints how soon a guest is answered whose binding is new.
pub fn binding(settings: &Settings) -> Result<()> {
    let mut site = Site::new(SERVED + NEW, NEW)?;
    let responder = settings
        .cpus
        .as_responder(|| Responder::start(&site, Who::Nfdhcpd))?;
    let folder = site.files.join("bindings");
    let mut taken = Vec::new();
    for guest in &mut site.guests[SERVED..] {
        let binding = guest.binding(None)?;
        binding::save(&folder, guest.tap.name(), &binding)?;
        taken.push(milliseconds(first_offer(guest)?));
    }
    responder.kill();
    taken.sort_by(f64::total_cmp);
    let p99 = taken[taken.len() * 99 / 100];
    println!("\nbinding written, {SERVED} others there");
    println!("  first OFFER after, ms: {}, p99 {p99:.2}", text(&taken, 2));
    Ok(())
}

/// Measures and prints how long nobody answers when the service is restarted, as by an upgrade of
/// its package: from the signal to end until the next process is ready.
pub fn restart(settings: &Settings) -> Result<()> {
    const RESTARTS: usize = 20;
    for bindings in [SERVED, 1000, 5000] {
        let site = Site::new(bindings, 0)?;
        let start = || {
            settings
                .cpus
                .as_responder(|| Responder::start(&site, Who::Nfdhcpd))
        };
        let mut responder = start()?;
        let mut taken = Vec::new();
        for _ in 0..RESTARTS {
            let begin = Instant::now();
            responder.stop()?;
            responder = start()?;
            taken.push(milliseconds(begin.elapsed()));
        }
        responder.kill();
        taken.sort_by(f64::total_cmp);
        println!("\nrestart with {bindings} bindings");
        println!("  signal to ready again, ms: {}", text(&taken, 1));
    }
    Ok(())
}

/// Asks every 50 µs, and says after what time the first offer came.
pub fn first_offer(guest: &mut Guest) -> Result<Duration> {
    let begin = Instant::now();
    let mut buffer = [0; 2048];
    let mut asked = 0;
    while begin.elapsed() < Duration::from_secs(5) {
        let due = u32::try_from(begin.elapsed().as_micros() / 50)?;
        if due >= asked {
            asked = due + 1;
            nix::unistd::write(guest.tap.as_fd(), guest.frames.discover(asked))?;
        }
        match nix::unistd::read(guest.tap.as_fd(), &mut buffer) {
            Ok(length) => {
                let reply = frames::read(&buffer[..length], guest.mac);
                if let Reply::Dhcp {
                    kind: frames::OFFER,
                    yiaddr,
                    ..
                } = reply
                    .map_err(anyhow::Error::msg)?
                    .unwrap_or(Reply::RouterAdvertisement)
                {
                    ensure!(yiaddr == guest.ip, "{}: offered {yiaddr}", guest.tap.name());
                    return Ok(begin.elapsed());
                }
            }
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!(
        "{}: no offer in 5 s after its binding was written",
        guest.tap.name()
    )
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
