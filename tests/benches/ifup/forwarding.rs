//! What the filter costs: packets a second from a guest through the bridge.

use std::fs;
use std::time::{Duration, Instant};

use agents::addr::MacAddr;
use anyhow::{Context, Result, bail};
use harness::netns::Netns;
use harness::tap::Tap;

use super::{Mode, Nic, Site, median, run};

/// Packets of one measurement.
const PACKETS: u32 = 100_000;
/// Measurements of each place, in turns.
const ROUNDS: usize = 7;

/// A guest whose frames a bridge sends on to a port that only counts.
struct Place {
    name: String,
    namespace: Netns,
    guest: Tap,
    frame: Vec<u8>,
    times: Vec<Duration>,
    // They stay as long as the place does.
    _site: Option<Site>,
    _others: Vec<(Tap, Nic)>,
}

const SINK: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0x99]);

/// A UDP datagram of 18 bytes from the guest: the shortest frame.
fn frame(nic: &Nic) -> Vec<u8> {
    let value = |wanted: &str| {
        let mut all = nic.variables.iter();
        all.find(|(name, _)| *name == wanted).unwrap().1.clone()
    };
    let mac: MacAddr = value("MAC").parse().unwrap();
    let ip: std::net::Ipv4Addr = value("IP").parse().unwrap();
    let mut frame = SINK.octets().to_vec();
    frame.extend(mac.octets());
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(ip.octets());
    frame.extend([10, 0, 0, 99]);
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x13, 0x88, 0x13, 0x89, 0, 26, 0, 0]);
    frame.resize(60, 7);
    frame
}

impl Place {
    fn new(name: &str, site: Option<Site>, others: Vec<(Tap, Nic)>) -> Result<Self> {
        let namespace = match &site {
            Some(site) => site.namespace.clone(),
            None => Netns::new()?,
        };
        let nic = Nic::new(Mode::Bridged, "m", 0);
        let guest = Tap::new(&namespace, &nic.interface)?;
        match &site {
            Some(site) => {
                namespace.run(|| {
                    for (_, other) in &others {
                        run(&mut other.of(site.ours(&["up"])))?;
                    }
                    run(&mut nic.of(site.ours(&["up"])))
                })?;
            }
            None => {
                namespace.sh(&format!(
                    "ip link add br0 type bridge; ip link set br0 up
                     ip link set {0} master br0; ip link set {0} up",
                    nic.interface
                ))?;
            }
        }
        // Packets of the bridge are not the host's filters' business.
        for name in ["iptables", "ip6tables", "arptables"] {
            let _ = namespace.sysctl(&format!("net.bridge.bridge-nf-call-{name}"), "0");
        }
        namespace.sh(&format!(
            "ip link add sink type veth peer name drain; ip link set drain up
             ip link set sink master br0; ip link set sink up
             bridge fdb add {SINK} dev sink master static"
        ))?;
        Ok(Self {
            name: name.to_owned(),
            namespace,
            guest,
            frame: frame(&nic),
            times: Vec::new(),
            _site: site,
            _others: others,
        })
    }

    fn counted(&self) -> Result<u64> {
        let text = self
            .namespace
            .run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("sink:"));
        let sent = line.and_then(|line| line.split_whitespace().nth(9));
        sent.and_then(|sent| sent.parse().ok()).context("the sink")
    }

    fn measure(&mut self) -> Result<()> {
        let before = self.counted()?;
        let start = Instant::now();
        for _ in 0..PACKETS {
            self.guest.send(&self.frame)?;
        }
        self.times.push(start.elapsed());
        let passed = self.counted()? - before;
        // The kernel's own groups go there too.
        if passed < u64::from(PACKETS) {
            bail!("{}: only {passed} of {PACKETS} came through", self.name);
        }
        Ok(())
    }
}

/// Measures and prints.
pub(super) fn measure(many: usize) -> Result<()> {
    let mut places = vec![Place::new("no filter", None, Vec::new())?];
    places.push(Place::new(
        "1 guarded port",
        Some(Site::new()?),
        Vec::new(),
    )?);
    let site = Site::new()?;
    let others = site.nics(Mode::Bridged, "o", many.saturating_sub(1))?;
    places.push(Place::new(
        &format!("{many} guarded ports"),
        Some(site),
        others,
    )?);
    super::settle()?;
    for _ in 0..ROUNDS {
        for place in &mut places {
            place.measure()?;
        }
    }
    println!("forwarding, frames of 60 bytes from a TAP through the bridge, one core:");
    let rate = |place: &Place| f64::from(PACKETS) / median(&place.times).as_secs_f64();
    let alone = rate(&places[0]);
    for place in &places {
        let least = place.times.iter().max().copied().unwrap_or_default();
        let most = place.times.iter().min().copied().unwrap_or_default();
        let of = |time: Duration| f64::from(PACKETS) / time.as_secs_f64() / 1000.0;
        println!(
            "  {:20} {:.0} k/s [{:.0}-{:.0}], {:.2} of no filter, {:+.2} µs a packet",
            place.name,
            rate(place) / 1000.0,
            of(least),
            of(most),
            rate(place) / alone,
            (1.0 / rate(place) - 1.0 / alone) * 1e6
        );
    }
    Ok(())
}
