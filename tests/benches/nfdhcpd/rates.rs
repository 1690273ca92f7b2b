//! Exchanges a second, latency, CPU time and memory, with some number of TAPs.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Settings;
use crate::load::{Kind, Load, Outcome, Pace, Until};
use crate::responder::{Responder, Who};
use crate::site::Site;
use crate::table::{Figure, Table};

/// Exchanges open at once when each answer starts the next.
const OUTSTANDING: u64 = 32;
/// Steps of the search: the interval becomes smaller by its square root with each.
const STEPS: u32 = 5;
/// Where it is searched, as shares of the rate with [`OUTSTANDING`] open.
const SEARCH: (f64, f64) = (0.4, 1.3);

const CLOSED: Figure = figure(0, "32 outstanding, /s", 0);
const HIGHEST: Figure = figure(1, "highest without loss, /s", 0);
const P50: Figure = figure(2, "at 80 % of it: p50, µs", 1);
const P99: Figure = figure(3, "               p99, µs", 1);
const P999: Figure = figure(4, "               p99.9, µs", 1);
const CPU: Figure = figure(5, "               CPU µs/exchange", 2);
const CPU_CLOSED: Figure = figure(6, "CPU µs/exchange, 32 outstanding", 2);
const MEMORY: Figure = figure(7, "resident afterwards, MiB", 1);

const fn figure(place: usize, name: &'static str, digits: usize) -> Figure {
    Figure {
        place,
        name,
        digits,
    }
}

/// Measures and prints.
pub fn measure(settings: &Settings, taps: usize) -> Result<()> {
    let mut site = Site::new(taps, 0)?;
    // leaves the rules that the ceiling needs
    settings
        .cpus
        .as_responder(|| Responder::start(&site, Who::Nfdhcpd))?
        .kill();
    let kinds = [
        (Kind::Dora, "DISCOVER, OFFER, REQUEST, ACK"),
        (Kind::Router, "router solicitation, advertisement"),
        (Kind::Neighbour, "neighbour solicitation, advertisement"),
    ];
    let mut tables = kinds.map(|_| Table::default());
    for round in 0..settings.rounds {
        let mut both = [Who::Ceiling, Who::Nfdhcpd];
        if round % 2 == 1 {
            both.reverse();
        }
        for who in both {
            let mut responder = settings
                .cpus
                .as_responder(|| Responder::start(&site, who))?;
            for ((kind, _), table) in kinds.iter().zip(&mut tables) {
                let mut load = Load::new(&mut site.guests)?;
                one(settings, &mut load, *kind, &responder, |figure, value| {
                    table.note(figure, who, value);
                })?;
            }
            responder.check()?;
            responder.kill();
        }
    }
    for ((_, title), table) in kinds.iter().zip(&tables) {
        table.print(&format!("{title}: {taps} TAPs"));
    }
    Ok(())
}

/// Measures one kind of exchange with one responder.
pub fn one(
    settings: &Settings,
    load: &mut Load<'_>,
    kind: Kind,
    responder: &Responder,
    mut note: impl FnMut(Figure, f64),
) -> Result<()> {
    let mut run = |pace, time| -> Result<(Outcome, f64)> {
        let before = responder.cpu()?;
        let outcome = load.run(kind, pace, Until::Elapsed(time))?;
        let cpu = (responder.cpu()? - before).as_secs_f64() * 1e6 / outcome.answered as f64;
        Ok((outcome, cpu))
    };
    run(Pace::Outstanding(OUTSTANDING), Duration::from_millis(100))?;
    let (closed, cpu) = run(Pace::Outstanding(OUTSTANDING), settings.trial)?;
    ensure!(closed.answered > 0, "{kind:?}: no answers at all");
    note(CLOSED, closed.rate());
    note(CPU_CLOSED, cpu);
    let (mut low, mut high) = (closed.rate() * SEARCH.0, closed.rate() * SEARCH.1);
    for _ in 0..STEPS {
        let rate = (low * high).sqrt();
        let pace = Pace::PerSecond(rate);
        // Once may be the machine's other work.
        if passes(&run(pace, settings.trial)?.0, settings.trial)
            || passes(&run(pace, settings.trial)?.0, settings.trial)
        {
            low = rate;
        } else {
            high = rate;
        }
    }
    note(HIGHEST, low);
    let (at80, cpu) = run(Pace::PerSecond(low * 0.8), settings.trial * 2)?;
    note(P50, at80.percentile(0.5));
    note(P99, at80.percentile(0.99));
    note(P999, at80.percentile(0.999));
    note(CPU, cpu);
    note(MEMORY, responder.memory()?);
    Ok(())
}

/// Nothing was lost, and it did not take longer than the rate says.
fn passes(outcome: &Outcome, time: Duration) -> bool {
    outcome.answered == outcome.started
        && outcome.elapsed < time.mul_f64(1.02) + Duration::from_millis(20)
}
