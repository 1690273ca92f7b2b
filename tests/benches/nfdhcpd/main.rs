//! The speed of nfdhcpd behind the kernel's real queue, against a ceiling and against others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // a benchmark may stop, and rounds its figures

mod cpus;
mod frames;
mod load;
mod responder;
mod site;

use std::time::Duration;
use load::{Kind, Load, Pace};
use responder::{Responder, Who};

fn main() -> anyhow::Result<()> {
    use agents::netlink::nftables::*;
    let cpus = cpus::Cpus::divide()?;
    for n in [1usize, 100, 1000] {
        let t = std::time::Instant::now();
        let mut site = site::Site::new(n, 0)?;
        println!("{n} taps made in {:?}", t.elapsed());
        site.namespace.run(|| {
            const T: Table = Table::new(Family::Inet, "try");
            let mut b = Batch::new();
            b.add_table(T).add_chain(&Chain::base(T, "pre", Hook::Prerouting, -290));
            for (fam, proto, at, val, off) in [(2u8, 17u8, 2u32, vec![0u8, 67], 9u32), (10, 58, 0, vec![133], 6), (10, 58, 0, vec![135], 6)] {
                b.add_rule(T, "pre", &[Statement::equal(Field::Meta(MetaKey::Family), &[fam]), Statement::equal(Field::network(off, 1), &[proto]), Statement::equal(Field::transport(at, val.len() as u32), &val), Statement::Counter, Statement::TargetQueue{number: 42, total: 1, bypass: true}]);
            }
            Nftables::open()?.commit(&b)?;
            Ok(())
        })?;
        let r = cpus.as_responder(|| Responder::start(&site, Who::Ceiling))?;
        println!("ready {:?} rss {}", r.ready_after, r.memory()?);
        let mut load = Load::new(&mut site.guests)?;
        for kind in [Kind::Dora, Kind::Router, Kind::Neighbour] {
            let c0 = r.cpu()?;
            let o = load.run(kind, Pace::Outstanding(32), Duration::from_secs(1))?;
            let c = r.cpu()? - c0;
            println!("{kind:?} closed {}/{} {:.0}/s p50 {} p99 {} cpu {:.2}", o.answered, o.started, o.rate(), o.percentile(0.5), o.percentile(0.99), c.as_secs_f64() * 1e6 / o.answered as f64);
            for share in [0.5, 0.8, 0.9, 1.0, 1.1] {
                let rate = o.rate() * share;
                let c0 = r.cpu()?;
                let o = load.run(kind, Pace::PerSecond(rate), Duration::from_secs(1))?;
                let c = r.cpu()? - c0;
                println!("   {rate:.0}: {}/{} {:.0}/s p50 {} p99 {} cpu {:.2} el {:?}", o.answered, o.started, o.rate(), o.percentile(0.5), o.percentile(0.99), c.as_secs_f64() * 1e6 / o.answered as f64, o.elapsed);
            }
        }
    }
    Ok(())
}
