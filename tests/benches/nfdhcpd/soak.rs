//! Memory over very many exchanges.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::Settings;
use crate::load::{Kind, Load, Pace, Until};
use crate::responder::{Responder, Who};
use crate::site::Site;

/// TAPs that take turns.
const TAPS: usize = 100;
/// Exchanges open at once.
const OUTSTANDING: u64 = 32;
/// Exchanges in one go; of these, each kind has its share.
const CHUNK: u64 = 100_000;
const SHARES: [(Kind, u64); 3] = [(Kind::Dora, 60), (Kind::Router, 20), (Kind::Neighbour, 20)];
/// What the memory may grow after the first tenth, MiB: what the allocator rounds to.
const GROWTH: f64 = 0.5;

/// Makes `exchanges`, all replies checked, and prints the resident memory after each tenth.
///
/// # Errors
/// An exchange was lost, or the memory grew.
pub fn measure(settings: &Settings, exchanges: u64) -> Result<()> {
    let mut site = Site::new(TAPS, 0)?;
    let mut responder = settings
        .cpus
        .as_responder(|| Responder::start(&site, Who::Nfdhcpd))?;
    println!("\n{exchanges} exchanges on {TAPS} TAPs: 60 % DHCP, 20 % RS, 20 % NS");
    println!("  at the start             {:.2} MiB", responder.memory()?);
    let begin = Instant::now();
    let (mut done, mut first, mut last, mut tenth) = (0, None, 0.0, 1);
    let mut load = Load::new(&mut site.guests)?;
    while done < exchanges {
        for (kind, share) in SHARES {
            let count = CHUNK * share / 100;
            let outcome = load.run(kind, Pace::Outstanding(OUTSTANDING), Until::Started(count))?;
            ensure!(
                outcome.answered == count,
                "{} of {count} exchanges were answered after {done}",
                outcome.answered
            );
            done += count;
        }
        if done * 10 >= exchanges * tenth {
            last = responder.memory()?;
            first.get_or_insert(last);
            println!("  after {done:>10} of them {last:.2} MiB");
            tenth = done * 10 / exchanges + 1;
        } else {
            eprint!(
                "\r{done} of {exchanges}, {:.0} s\r",
                begin.elapsed().as_secs_f64()
            );
            std::io::stderr().flush()?;
        }
    }
    responder.check()?;
    responder.kill();
    let grown = last - first.unwrap_or(last);
    println!(
        "  growth after the first tenth: {grown:.2} MiB; {:.0} exchanges/s",
        done as f64 / begin.elapsed().as_secs_f64()
    );
    ensure!(grown <= GROWTH, "the memory grew by {grown:.2} MiB");
    Ok(())
}
