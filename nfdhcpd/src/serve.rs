//! The daemon: one thread, which owns everything. It waits for packets, for changes of bindings
//! and interfaces, for timers and for signals, and does one after the other.
//!
//! A batch of packets is bounded, and so is what is done between two batches: a guest that floods
//! keeps neither the bindings nor the timers of others waiting for long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use agents::binding::{self, Binding};
use agents::netlink::monitor::LinkMonitor;
use agents::netlink::nftables::monitor::NftablesMonitor;
use agents::netlink::{AddressMonitor, Rtnetlink};
use agents::service::notify;
use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::client::{Client, Port};
use crate::config::{Config, RulesBy};
use crate::folder::{Change, Folder};
use crate::host::{Affected, Host};
use crate::packet::ip::Checksum;
use crate::queue::{NetfilterQueue, PacketQueue};
use crate::reason::Reason;
use crate::respond::{self, Action, Answer, Kind, Query, Scratch, ra};
use crate::rules::{Attachment, Rules};
use crate::schedule::{Schedule, Timer};
use crate::transmit::Transmitter;

/// Unsolicited advertisements sent between two looks at the queues.
const ADVERTISEMENTS: usize = 64;
/// Batches of packets taken between two looks at everything else.
const BATCHES: usize = 8;
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What it cannot work without: the folder of bindings, a queue, the packet socket, netlink.
pub fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("signals")?;

    let mut server = Server::start(config)?;
    notify::ready();
    tracing::info!(
        interfaces = server.guests.len(),
        bindings = server.bindings.len(),
        queues = ?server.config.queues,
        rules = %server.rules.as_ref().map_or("external".to_owned(), |rules| rules.method().to_string()),
        "ready"
    );
    while !server.step(&signals)? {}
    notify::stopping();
    if let Some(rules) = server.rules.take()
        && let Err(error) = rules.uninstall()
    {
        tracing::warn!(%error, "the rules could not be removed");
    }
    tracing::info!("stopped");
    Ok(())
}

struct Server {
    config: Config,
    folder: Folder,
    routes: Rtnetlink,
    links: LinkMonitor,
    addresses: AddressMonitor,
    tables: Option<NftablesMonitor>,
    rules: Option<Rules>,
    queues: Vec<NetfilterQueue>,
    transmitter: Transmitter,
    host: Host,
    /// By interface name.
    bindings: BTreeMap<String, Binding>,
    /// The interfaces that have a binding and are there, by index.
    guests: HashMap<u32, Guest>,
    /// The index of each guest's interface, by name.
    indices: HashMap<String, u32>,
    schedule: Schedule,
    scratch: Scratch,
    frame: Vec<u8>,
}

/// An interface that is served.
struct Guest {
    client: Client,
    timer: Timer,
}

impl Server {
    fn start(config: Config) -> anyhow::Result<Self> {
        // Everything that tells of changes is opened before the first look, so that no change is
        // missed between the two.
        let folder = Folder::watch(&config.bindings)
            .with_context(|| format!("folder of bindings {}", config.bindings.display()))?;
        let links = LinkMonitor::open()?;
        let addresses = AddressMonitor::open()?;
        let queues = config
            .queues
            .iter()
            .map(|number| {
                NetfilterQueue::bind(*number, config.queue_length)
                    .map_err(|error| explain_queue(*number, &error))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (rules, tables) = match config.rules {
            RulesBy::External => (None, None),
            RulesBy::Auto => {
                let number = config.queues.first().copied().unwrap_or_default();
                let rules = Rules::install(number, config.mark).context("nftables rules")?;
                (Some(rules), Some(NftablesMonitor::open()?))
            }
        };
        let mut server = Self {
            folder,
            routes: Rtnetlink::open()?,
            links,
            addresses,
            tables,
            rules,
            queues,
            transmitter: Transmitter::open().context("packet socket")?,
            host: Host::default(),
            bindings: BTreeMap::new(),
            guests: HashMap::new(),
            indices: HashMap::new(),
            schedule: Schedule::default(),
            scratch: Scratch::default(),
            frame: Vec::with_capacity(2048),
            config,
        };
        server.list_host()?;
        server.rescan()?;
        server.apply_rules();
        Ok(server)
    }

    /// Waits for something to do and does it. True when it is time to end.
    fn step(&mut self, signals: &SignalFd) -> anyhow::Result<bool> {
        let now = Instant::now();
        let wait = self.schedule.wait(now).unwrap_or(IDLE).min(IDLE);
        // Rounded up, so that the timer is due when we wake.
        let wait =
            PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let readable = {
            let sources = [
                signals.as_fd(),
                self.folder.as_fd(),
                self.links.as_fd(),
                self.addresses.as_fd(),
                self.tables
                    .as_ref()
                    .map_or(signals.as_fd(), |tables| tables.as_fd()),
            ];
            let mut fds: Vec<PollFd<'_>> = sources
                .into_iter()
                .chain(self.queues.iter().map(|queue| queue.as_fd()))
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            match poll(&mut fds, wait) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting"),
            }
            fds.iter()
                .map(|fd| fd.any().unwrap_or_default())
                .collect::<Vec<bool>>()
        };
        let is_readable = |index: usize| readable.get(index).copied().unwrap_or_default();
        if is_readable(0) && self.hear_signals(signals)? {
            return Ok(true);
        }
        // Bindings and interfaces before packets: a guest asks as soon as it can.
        if is_readable(2) {
            self.hear_links()?;
        }
        if is_readable(3) {
            self.hear_addresses()?;
        }
        if is_readable(1) {
            self.hear_folder()?;
        }
        if is_readable(4) {
            self.hear_tables()?;
        }
        self.apply_rules();
        self.advertise();
        for index in 0..self.queues.len() {
            if is_readable(5 + index) {
                self.serve_queue(index);
            }
        }
        Ok(false)
    }

    fn hear_signals(&mut self, signals: &SignalFd) -> anyhow::Result<bool> {
        while let Some(signal) = signals.read_signal().context("signals")? {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGTERM | Signal::SIGINT)) => return Ok(true),
                Ok(Ok(signal)) => tracing::info!(%signal, "signal"),
                _ => {}
            }
        }
        Ok(false)
    }

    fn hear_links(&mut self) -> anyhow::Result<()> {
        match self.links.events() {
            Ok(events) => {
                let affected: Vec<_> = events
                    .into_iter()
                    .flat_map(|event| self.host.link_event(event))
                    .collect();
                self.refresh(affected);
                Ok(())
            }
            Err(error) if error.is_lost() => self.list_host(),
            Err(error) => Err(error.into()),
        }
    }

    fn hear_addresses(&mut self) -> anyhow::Result<()> {
        match self.addresses.events() {
            Ok(events) => {
                let affected: Vec<_> = events
                    .into_iter()
                    .flat_map(|event| self.host.address_event(event))
                    .collect();
                self.refresh(affected);
                Ok(())
            }
            Err(error) if error.is_lost() => self.list_host(),
            Err(error) => Err(error.into()),
        }
    }

    fn hear_folder(&mut self) -> anyhow::Result<()> {
        match self.folder.changes() {
            Ok(Change::Files(names)) => {
                for name in names {
                    self.load(&name);
                }
                Ok(())
            }
            Ok(Change::Everything) => {
                tracing::info!("reading all bindings again");
                self.rescan()
            }
            Err(error) => Err(error)
                .with_context(|| format!("folder of bindings {}", self.config.bindings.display())),
        }
    }

    fn hear_tables(&mut self) -> anyhow::Result<()> {
        let Some(tables) = &mut self.tables else {
            return Ok(());
        };
        if tables.deleted()?
            && let Some(rules) = &mut self.rules
            && !rules.are_present()?
        {
            tracing::warn!("our nftables rules were removed: putting them back");
            rules.reload().context("nftables rules")?;
        }
        Ok(())
    }

    /// Learns all interfaces and addresses anew, and serves every binding accordingly.
    fn list_host(&mut self) -> anyhow::Result<()> {
        let links = self.routes.links()?;
        let addresses = self.routes.addresses()?.into_iter();
        let addresses = addresses.filter_map(|(interface, address)| match address {
            IpAddr::V6(address) => Some((interface, address)),
            IpAddr::V4(_) => None,
        });
        self.host.replace(links, addresses);
        let names: Vec<String> = self.bindings.keys().cloned().collect();
        for name in names {
            self.place(&name);
        }
        Ok(())
    }

    /// Reads all binding files; forgets those that are no more.
    fn rescan(&mut self) -> anyhow::Result<()> {
        let there = self
            .folder
            .list()
            .with_context(|| format!("folder of bindings {}", self.config.bindings.display()))?;
        let gone: Vec<String> = self
            .bindings
            .keys()
            .filter(|name| !there.contains(*name))
            .cloned()
            .collect();
        for name in gone.iter().chain(&there) {
            self.load(name);
        }
        Ok(())
    }

    /// Reads one binding file, and serves its interface accordingly.
    fn load(&mut self, interface: &str) {
        match binding::load(&self.folder.file(interface)) {
            Ok(binding) => {
                if self.bindings.get(interface) == Some(&binding) {
                    return;
                }
                tracing::info!(
                    interface,
                    instance = binding.hostname,
                    mac = %binding.mac,
                    ip = binding.ip.map(tracing::field::display),
                    subnet6 = binding.subnet6.map(tracing::field::display),
                    "binding"
                );
                self.bindings.insert(interface.to_owned(), binding);
            }
            Err(error) => {
                if !error.is_not_found() {
                    tracing::error!(interface, %error, "binding refused; this interface is not served");
                } else if self.bindings.contains_key(interface) {
                    tracing::info!(interface, "binding removed");
                }
                self.bindings.remove(interface);
            }
        }
        self.place(interface);
    }

    fn refresh(&mut self, affected: Vec<Affected>) {
        let mut names = BTreeSet::new();
        for affected in affected {
            match affected {
                Affected::Interface(name) => {
                    names.insert(name);
                }
                Affected::PortsOf(bridge) => {
                    names.extend(
                        self.bindings
                            .keys()
                            .filter(|name| self.host.bridge_of(name) == Some(bridge))
                            .cloned(),
                    );
                }
            }
        }
        for name in names {
            self.place(&name);
        }
    }

    /// Serves an interface as its binding and its place in the host say, or not at all.
    fn place(&mut self, interface: &str) {
        let place = self.bindings.get(interface).and_then(|binding| {
            let port = self.host.port(interface, binding)?;
            Some((binding.clone(), port))
        });
        let old = self.indices.get(interface).copied();
        if let Some(old) = old
            && place.as_ref().is_none_or(|(_, port)| port.index != old)
        {
            self.indices.remove(interface);
            if let Some(mut guest) = self.guests.remove(&old) {
                self.schedule.stop(old, &mut guest.timer);
            }
        }
        match place {
            Some((binding, port)) => self.put(interface, binding, port),
            None => {
                if let Some(rules) = &mut self.rules {
                    rules.remove(interface);
                }
            }
        }
    }

    fn put(&mut self, interface: &str, binding: Binding, port: Port) {
        let profile = self.config.profile(&binding);
        let client = Client {
            interface: interface.to_owned(),
            binding,
            port,
            profile,
        };
        if let Some(rules) = &mut self.rules {
            let attachment = if port.bridged {
                Attachment::Bridged
            } else {
                Attachment::Routed
            };
            rules.add(interface, attachment);
        }
        let now = Instant::now();
        let wants_timer = client.profile.ipv6.enabled && client.binding.subnet6.is_some();
        self.indices.insert(interface.to_owned(), port.index);
        let guest = self.guests.entry(port.index).or_insert_with(|| Guest {
            client: client.clone(),
            timer: Timer::default(),
        });
        guest.client = client;
        // A guest that is told something new is told soon.
        self.schedule.stop(port.index, &mut guest.timer);
        if wants_timer {
            guest.timer = self.schedule.start(port.index, now);
        }
    }

    fn apply_rules(&mut self) {
        if let Some(rules) = &mut self.rules
            && let Err(error) = rules.apply()
        {
            tracing::error!(%error, "nftables rules");
        }
    }

    /// Sends the advertisements whose time has come.
    fn advertise(&mut self) {
        let now = Instant::now();
        let mut sent = Vec::new();
        while sent.len() < ADVERTISEMENTS
            && let Some(index) = self.schedule.pop(now)
        {
            let Some(guest) = self.guests.get_mut(&index) else {
                continue;
            };
            let interval = guest.client.profile.ipv6.interval;
            self.schedule.wind(index, &mut guest.timer, interval, now);
            if ra::unsolicited(&guest.client, &mut self.frame).is_ok() {
                self.transmitter.push(index, &self.frame);
                sent.push(index);
            }
        }
        let guests = &self.guests;
        self.transmitter.flush(|number, error| {
            if let Some(guest) = sent.get(number).and_then(|index| guests.get(index)) {
                tracing::debug!(interface = guest.client.interface, %error, "RA not sent");
            }
        });
    }

    fn serve_queue(&mut self, index: usize) {
        for _ in 0..BATCHES {
            match self.serve_batch(index) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "queue");
                    return;
                }
            }
        }
    }

    /// Takes one batch of packets from a queue, answers and settles it.
    fn serve_batch(&mut self, index: usize) -> io::Result<usize> {
        let Some(queue) = self.queues.get_mut(index) else {
            return Ok(0);
        };
        let count = queue.receive()?;
        let mut pass = Vec::new();
        let mut sent = Vec::new();
        for number in 0..count {
            let Some(packet) = queue.packet(number) else {
                continue;
            };
            let Some(guest) = self.guests.get(&packet.port) else {
                pass.push(packet.id);
                continue;
            };
            let query = Query {
                packet: packet.payload,
                source_mac: packet.source_mac,
                checksum: if packet.checksum_is_partial {
                    Checksum::Partial
                } else {
                    Checksum::Present
                },
            };
            let client = &guest.client;
            let (kind, action) =
                respond::respond(query, client, &mut self.scratch, &mut self.frame);
            match action {
                Action::Reply(answer) | Action::ReplyAndPass(answer) => {
                    log_answer(client, kind, answer);
                    self.transmitter.push(client.port.index, &self.frame);
                    sent.push(client.port.index);
                    if matches!(action, Action::ReplyAndPass(_)) {
                        pass.push(packet.id);
                    }
                }
                Action::Drop(reason) => log_drop(client, kind, reason),
                Action::Pass => pass.push(packet.id),
            }
        }
        let guests = &self.guests;
        self.transmitter.flush(|number, error| {
            if let Some(guest) = sent.get(number).and_then(|index| guests.get(index)) {
                tracing::warn!(interface = guest.client.interface, %error, "answer not sent");
            }
        });
        if count > 0 {
            queue.settle(&pass)?;
        }
        Ok(count)
    }
}

fn log_answer(client: &Client, kind: Kind, answer: Answer) {
    let binding = &client.binding;
    let address: &dyn std::fmt::Display = match answer {
        Answer::Dhcp4(_) => binding.ip.as_ref().map_or(&"none", |ip| ip),
        Answer::Dhcp6(_) if binding.ip6.is_some() => binding.ip6.as_ref().map_or(&"none", |ip| ip),
        _ => binding.subnet6.as_ref().map_or(&"none", |subnet| subnet),
    };
    tracing::info!(
        interface = client.interface,
        instance = binding.hostname,
        mac = %binding.mac,
        %address,
        "{} -> {}",
        kind.name(),
        answer.name(),
    );
}

fn log_drop(client: &Client, kind: Kind, reason: Reason) {
    tracing::info!(
        interface = client.interface,
        instance = client.binding.hostname,
        mac = %client.binding.mac,
        %reason,
        "{} dropped",
        kind.name(),
    );
}

fn explain_queue(number: u16, error: &io::Error) -> anyhow::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY) => ": another program has it",
        Some(libc::EPERM) => ": we have no CAP_NET_ADMIN here",
        _ => "",
    };
    anyhow::anyhow!("netfilter queue {number}: {error}{hint}")
}
