//! Where it is measured: a namespace with TAPs, each with a guest that has a binding.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use agents::addr::MacAddr;
use agents::binding::{self, Binding};
use anyhow::{Context as _, Result};
use harness::netns::Netns;
use harness::scratch::Scratch;
use harness::tap::Tap;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::frames::{self, GuestFrames};

/// A guest behind its TAP.
pub struct Guest {
    /// Its end; reading never waits.
    pub tap: Tap,
    /// Index of the interface.
    pub index: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// The address it is to get.
    pub ip: Ipv4Addr,
    /// What it sends.
    pub frames: GuestFrames,
}

impl Guest {
    /// What nfdhcpd is told of it.
    pub fn binding(&self, bridge: Option<&str>) -> Result<Binding> {
        let mut binding = Binding::new(MacAddr::from(self.mac), format!("snf-{}", self.index));
        binding.indev = Some(bridge.unwrap_or(self.tap.name()).to_owned());
        binding.ip = Some(self.ip);
        binding.subnet = Some("10.0.0.0/16".parse()?);
        binding.gateway = Some(frames::SERVER);
        binding.subnet6 = Some(format!("{}/64", frames::PREFIX6).parse()?);
        binding.gateway6 = Some(frames::ROUTER6);
        let eui64 =
            u128::from(frames::PREFIX6) | u128::from(frames::link_local(self.mac)) << 64 >> 64;
        binding.eui64 = Some(Ipv6Addr::from(eui64));
        binding.mtu = Some(1500);
        Ok(binding)
    }
}

/// A namespace with guests.
pub struct Site {
    /// Where the responder runs.
    pub namespace: Netns,
    /// The guests.
    pub guests: Vec<Guest>,
    /// Bindings, configuration, logs.
    pub files: Scratch,
    /// The bridge that all TAPs are ports of, if they are.
    bridge: Option<&'static str>,
}

/// The bridge's name.
const BRIDGE: &str = "br0";

impl Site {
    /// Makes `count` TAPs and writes the bindings of all but the last `unbound`.
    pub fn new(count: usize, unbound: usize) -> Result<Self> {
        Self::empty()?.with_guests(count, unbound)
    }

    /// The same, with all TAPs on a bridge where the host has the server's address.
    pub fn bridged(count: usize) -> Result<Self> {
        let mut site = Self::empty()?;
        site.namespace
            .ip(&format!("link add {BRIDGE} type bridge forward_delay 0"))?;
        site.namespace
            .ip(&format!("addr add {}/16 dev {BRIDGE}", frames::SERVER))?;
        site.namespace.ip(&format!("link set {BRIDGE} up"))?;
        site.bridge = Some(BRIDGE);
        site.with_guests(count, 0)
    }

    fn empty() -> Result<Self> {
        let site = Self {
            namespace: Netns::new()?,
            guests: Vec::new(),
            files: Scratch::new("bench")?,
            bridge: None,
        };
        // The kernel's own IPv6 would talk to the guests, too; they are not asked about that.
        for (name, value) in [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("router_solicitations", "0"),
        ] {
            site.namespace
                .sysctl(&format!("net.ipv6.conf.default.{name}"), value)?;
        }
        Ok(site)
    }

    fn with_guests(mut self, count: usize, unbound: usize) -> Result<Self> {
        let mut taps = Vec::new();
        let mut up = String::new();
        for number in 0..count {
            let tap = Tap::new(&self.namespace, &format!("tap{number}"))?;
            let master = self.bridge.map(|bridge| format!("master {bridge}"));
            writeln!(
                up,
                "link set {} {} up",
                tap.name(),
                master.unwrap_or_default()
            )?;
            fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
            taps.push(tap);
        }
        let batch = self.files.write("up", &up)?;
        self.namespace.ip(&format!("-batch {}", batch.display()))?;
        self.guests = self.namespace.run(|| {
            let guests = taps.into_iter().enumerate().map(|(number, tap)| {
                let index = nix::net::if_::if_nametoindex(tap.name())?;
                let number = u32::try_from(number)? + 256;
                let [_, b, c, d] = number.to_be_bytes();
                let (mac, ip) = ([0xaa, 0, 0, b, c, d], Ipv4Addr::new(10, b, c, d));
                Ok(Guest {
                    tap,
                    index,
                    mac,
                    ip,
                    frames: GuestFrames::new(mac, ip),
                })
            });
            guests.collect::<Result<Vec<_>>>()
        })?;
        let folder = self.files.folder("bindings")?;
        for guest in &self.guests[..count - unbound] {
            binding::save(&folder, guest.tap.name(), &guest.binding(self.bridge)?)?;
        }
        self.write_for_ceiling(&self.files.folder("ceiling")?)?;
        Ok(self)
    }

    fn write_for_ceiling(&self, folder: &Path) -> Result<()> {
        for (name, frame) in frames::canned() {
            fs::write(folder.join(name), frame).context("frames for the ceiling")?;
        }
        let mut list = String::new();
        for guest in &self.guests {
            writeln!(
                list,
                "{} {} {}",
                guest.index,
                MacAddr::from(guest.mac),
                guest.ip
            )?;
        }
        fs::write(folder.join("guests"), list).context("guests for the ceiling")
    }
}
