//! The daemon: one thread, which owns everything. It waits for packets, for changes of bindings
//! and interfaces, for timers and for signals, and does one after the other.
//!
//! A batch of packets is bounded, and so is what is done between two batches: a guest that floods
//! keeps neither the bindings nor the timers of others waiting for long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

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
use crate::config::{Config, RulesBy, Source};
use crate::control::{Control, Report};
use crate::folder::{Change, Folder};
use crate::guest::{Guest, Now};
use crate::host::{Affected, Host};
use crate::packet::ip::Checksum;
use crate::privileges;
use crate::queue::{NetfilterQueue, PacketQueue};
use crate::reason::Reason;
use crate::respond::{self, Action, Kind, Query, Scratch, ra};
use crate::rules::{Attachment, Rules};
use crate::schedule::Schedule;
use crate::stats::{Outcome, Stats};
use crate::transmit::Transmitter;

/// Unsolicited advertisements sent between two looks at the queues.
const ADVERTISEMENTS: usize = 64;
/// Batches of packets taken between two looks at everything else.
const BATCHES: usize = 8;
/// How often the rules' counts are read.
const COUNT_RULES: Duration = Duration::from_secs(5);
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP reads the configuration again from `source`.
///
/// # Errors
/// What it cannot work without: the folder of bindings, a queue, the packet socket, netlink.
pub fn run(config: Config, source: Source) -> anyhow::Result<()> {
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

    let mut server = Server::start(config, source)?;
    // The kernel's table of queues is out of sight later.
    let table = File::open("/proc/thread-self/net/netfilter/nfnetlink_queue").ok();
    privileges::drop_capabilities(server.config.user.as_deref()).context("privileges")?;
    privileges::hide_files(&server.config, server.source.path()).context("landlock")?;
    if let Some(address) = server.config.metrics {
        let (stats, queues) = (Arc::clone(&server.stats), server.config.queues.clone());
        let render = move || crate::metrics::text(&stats, table.as_ref(), &queues);
        agents::service::metrics::serve(address, render)
            .with_context(|| format!("metrics on {address}"))?;
    }
    privileges::restrict_system_calls()?;
    server.read_all()?;
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
    source: Source,
    control: Option<Control>,
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
    stats: Arc<Stats>,
    /// Of the batch at hand: the packets that go on, and whose answers are sent.
    pass: Vec<u32>,
    sent: Vec<u32>,
    /// How often the service manager wants to hear from us.
    watchdog: Option<Duration>,
    /// When the rules' counts were read.
    counted: Instant,
    /// Whether each binding is worth a line: not the thousands that are there at the start.
    announce: bool,
    /// The interfaces whose binding is refused.
    refused: BTreeSet<String>,
}

/// What the daemon waits for, in the order of its descriptors.
#[derive(Clone, Copy)]
enum Waiting {
    Signals,
    Folder,
    Links,
    Addresses,
    Tables,
    Control,
    /// From here on, the queues.
    Queues,
}

impl Server {
    fn start(config: Config, source: Source) -> anyhow::Result<Self> {
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
                let rules = Rules::install(number, config.mark, config.guest_rate)
                    .context("nftables rules")?;
                (Some(rules), Some(NftablesMonitor::open()?))
            }
        };
        let control = match Control::open(&config.control) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::warn!(
                    path = %config.control.display(),
                    %error,
                    "no control socket: `nfdhcpd clients` will not work"
                );
                None
            }
        };
        let server = Self {
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
            stats: Arc::new(Stats::default()),
            pass: Vec::new(),
            sent: Vec::new(),
            watchdog: notify::watchdog_interval(),
            counted: Instant::now(),
            announce: false,
            refused: BTreeSet::new(),
            config,
            source,
            control,
        };
        Ok(server)
    }

    /// Learns what there is: with no more privileges than later, so that a binding that could not
    /// be read later is not read now either.
    fn read_all(&mut self) -> anyhow::Result<()> {
        self.list_host()?;
        self.rescan()?;
        self.apply_rules();
        self.count();
        self.announce = true;
        Ok(())
    }

    /// Waits for something to do and does it. True when it is time to end.
    fn step(&mut self, signals: &SignalFd) -> anyhow::Result<bool> {
        let now = Instant::now();
        // The service manager wants to hear from this loop, which must not hang, twice in a time.
        let idle = match self.watchdog {
            Some(interval) => {
                notify::alive();
                IDLE.min(interval / 2)
            }
            None => IDLE,
        };
        let wait = self.schedule.wait(now).unwrap_or(idle).min(idle);
        // Rounded up, so that the timer is due when we wake.
        let wait =
            PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let readable = self.poll(signals, wait)?;
        let is_readable = |what: Waiting| readable.get(what as usize).copied().unwrap_or_default();
        if is_readable(Waiting::Signals) && self.hear_signals(signals)? {
            return Ok(true);
        }
        // Bindings and interfaces before packets: a guest asks as soon as it can.
        if is_readable(Waiting::Links) {
            self.hear_links()?;
        }
        if is_readable(Waiting::Addresses) {
            self.hear_addresses()?;
        }
        if is_readable(Waiting::Folder) {
            self.hear_folder()?;
        }
        if is_readable(Waiting::Tables) {
            self.hear_tables()?;
        }
        if is_readable(Waiting::Control)
            && let Some(control) = &self.control
        {
            control.answer(|| self.reports());
        }
        self.apply_rules();
        self.count();
        self.advertise();
        for (index, readable) in readable.iter().skip(Waiting::Queues as usize).enumerate() {
            if *readable {
                self.serve_queue(index);
            }
        }
        Ok(false)
    }

    /// Waits for one of the descriptors; says of each whether it can be read, in the order of
    /// [`Waiting`], and then of the queues.
    fn poll(&self, signals: &SignalFd, wait: PollTimeout) -> anyhow::Result<Vec<bool>> {
        // In the place of what is not there, one that is looked at anyway.
        let instead = signals.as_fd();
        let fixed: [BorrowedFd<'_>; Waiting::Queues as usize] = [
            signals.as_fd(),
            self.folder.as_fd(),
            self.links.as_fd(),
            self.addresses.as_fd(),
            self.tables
                .as_ref()
                .map_or(instead, |tables| tables.as_fd()),
            self.control
                .as_ref()
                .map_or(instead, |control| control.as_fd()),
        ];
        let queues = self.queues.iter().map(|queue| queue.as_fd());
        let mut fds: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(queues)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting"),
        }
        Ok(fds.iter().map(|fd| fd.any().unwrap_or_default()).collect())
    }

    fn hear_signals(&mut self, signals: &SignalFd) -> anyhow::Result<bool> {
        while let Some(signal) = signals.read_signal().context("signals")? {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGTERM | Signal::SIGINT)) => return Ok(true),
                Ok(Ok(Signal::SIGHUP)) => self.reload(),
                Ok(Ok(Signal::SIGUSR1)) => self.log_guests(),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Reads the configuration again; a bad one changes nothing.
    fn reload(&mut self) {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => {
                self.stats.refused_reloads.one();
                tracing::error!(%error, "reload refused: the configuration stays as it was");
                return;
            }
        };
        let fixed = |config: &Config| {
            (
                config.bindings.clone(),
                config.queues.clone(),
                config.queue_length,
                config.rules,
                config.mark,
                config.metrics,
                config.control.clone(),
                config.user.clone(),
            )
        };
        if fixed(&config) != fixed(&self.config) {
            tracing::warn!(
                "bindings, user, control, metrics and [queue] (but for the guests' rate) take \
                 effect at the next start"
            );
        }
        let old = std::mem::replace(&mut self.config, config);
        self.config.bindings = old.bindings;
        self.config.queues = old.queues;
        if let Some(rules) = &mut self.rules
            && let Err(error) = rules.set_rate(self.config.guest_rate)
        {
            tracing::error!(%error, "nftables rules: the guests' rate stays as it was");
        }
        let names: Vec<String> = self.bindings.keys().cloned().collect();
        for name in names {
            self.place(&name);
        }
        tracing::info!("configuration read again");
    }

    fn reports(&self) -> Vec<Report> {
        let mut reports: Vec<Report> = self.guests.values().map(Report::of).collect();
        reports.sort_by(|one, other| one.interface.cmp(&other.interface));
        reports
    }

    /// The table of guests, as a signal to the original writes it.
    fn log_guests(&self) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        for line in crate::control::table(&self.reports(), now.as_secs()).lines() {
            tracing::info!("{line}");
        }
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
                if self.announce {
                    tracing::info!(
                        interface,
                        instance = binding.hostname,
                        mac = %binding.mac,
                        ip = binding.ip.map(tracing::field::display),
                        subnet6 = binding.subnet6.map(tracing::field::display),
                        "binding"
                    );
                }
                self.bindings.insert(interface.to_owned(), binding);
                self.refused.remove(interface);
            }
            Err(error) => {
                self.refused.remove(interface);
                if !error.is_not_found() {
                    self.refused.insert(interface.to_owned());
                    tracing::error!(interface, %error, "binding refused; this interface is not served");
                } else if self.bindings.contains_key(interface) {
                    tracing::info!(interface, "binding removed");
                }
                self.bindings.remove(interface);
            }
        }
        self.place(interface);
    }

    /// Tells the counts of what there is now.
    fn count(&mut self) {
        // The rules' own counts cost a question to the kernel.
        if self.counted.elapsed() > COUNT_RULES
            && let Some(rules) = &mut self.rules
        {
            self.counted = Instant::now();
            match rules.limited() {
                Ok(packets) => self.stats.limited.set(packets),
                Err(error) => tracing::debug!(%error, "the rules' counts"),
            }
        }
        let number = |count: usize| u64::try_from(count).unwrap_or_default();
        self.stats.interfaces.set(number(self.guests.len()));
        self.stats.bindings.set(number(self.bindings.len()));
        self.stats.refused_bindings.set(number(self.refused.len()));
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
        let guest = self
            .guests
            .entry(port.index)
            .or_insert_with(|| Guest::new(client.clone()));
        guest.change(client);
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
            let omissions = &mut self.scratch.omissions;
            if ra::unsolicited(&guest.client, omissions, &mut self.frame).is_ok() {
                self.stats.omit(omissions);
                guest.omitted(omissions);
                self.transmitter.push(index, &self.frame);
                sent.push(index);
            }
        }
        let (guests, stats) = (&self.guests, &self.stats);
        stats
            .advertisements
            .add(u64::try_from(sent.len()).unwrap_or_default());
        self.transmitter.flush(|number, error| {
            stats.send_failures.one();
            if let Some(guest) = sent.get(number).and_then(|index| guests.get(index)) {
                tracing::debug!(interface = guest.client.interface, %error, "RA not sent");
            }
        });
    }

    fn serve_queue(&mut self, index: usize) {
        for _ in 0..BATCHES {
            match self.serve_batch(index) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "queue");
                    return;
                }
            }
        }
    }

    /// Takes one batch of packets from a queue, answers and settles it. True if nothing more
    /// waits.
    fn serve_batch(&mut self, index: usize) -> io::Result<bool> {
        let Some(queue) = self.queues.get_mut(index) else {
            return Ok(true);
        };
        let count = match queue.receive() {
            Ok(0) => return Ok(true),
            Ok(count) => count,
            // The kernel has dropped what did not fit; what did is still there.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.stats.overruns.one();
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let now = Now::read();
        self.pass.clear();
        self.sent.clear();
        for number in 0..count {
            let Some(packet) = queue.packet(number) else {
                continue;
            };
            let Some(guest) = self.guests.get_mut(&packet.port) else {
                self.stats.unknown.one();
                self.pass.push(packet.id);
                continue;
            };
            if !guest.packets.allows(self.config.guest_rate, now.instant) {
                self.stats.dropped(Kind::Other, Reason::RateLimited);
                guest.dropped(Kind::Other, Reason::RateLimited, now);
                continue;
            }
            let query = Query {
                packet: packet.payload,
                source_mac: packet.source_mac,
                checksum: if packet.checksum_is_partial {
                    Checksum::Partial
                } else {
                    Checksum::Present
                },
            };
            let (kind, action) =
                respond::respond(query, &guest.client, &mut self.scratch, &mut self.frame);
            match action {
                Action::Reply(answer) | Action::ReplyAndPass(answer) => {
                    self.stats.message(kind, Outcome::Answered);
                    guest.answered(kind, answer, now);
                    self.stats.omit(&self.scratch.omissions);
                    guest.omitted(&self.scratch.omissions);
                    self.transmitter.push(packet.port, &self.frame);
                    self.sent.push(packet.port);
                    if matches!(action, Action::ReplyAndPass(_)) {
                        self.pass.push(packet.id);
                    }
                }
                Action::Drop(reason) => {
                    self.stats.dropped(kind, reason);
                    guest.dropped(kind, reason, now);
                }
                Action::Pass => {
                    self.stats.message(kind, Outcome::Passed);
                    self.pass.push(packet.id);
                }
            }
        }
        let (sent, guests, stats) = (&self.sent, &mut self.guests, &self.stats);
        self.transmitter.flush(|number, error| {
            stats.send_failures.one();
            if let Some(guest) = sent.get(number).and_then(|index| guests.get_mut(index)) {
                tracing::debug!(interface = guest.client.interface, %error, "answer not sent");
                guest.dropped(Kind::Other, Reason::SendFailed, now);
            }
        });
        if !sent.is_empty() {
            let packets = u64::try_from(sent.len()).unwrap_or_default();
            stats.latency(packets, now.instant.elapsed());
        }
        queue.settle(&self.pass)?;
        Ok(queue.is_drained())
    }
}

fn explain_queue(number: u16, error: &io::Error) -> anyhow::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY) => ": another program has it",
        Some(libc::EPERM) => ": we have no CAP_NET_ADMIN here",
        _ => "",
    };
    anyhow::anyhow!("netfilter queue {number}: {error}{hint}")
}
