//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
    RouteScope as Scope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::socket::{Received, Socket, u32_at};
use super::{Result, Rtnetlink, absent_is_done};

/// Answer with the route itself, not with what it makes of the packet (`linux/rtnetlink.h`).
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// An address that no network has (RFC 6666).
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteKind {
    /// Send it on.
    #[default]
    Unicast,
    /// Deliver it here.
    Local,
    /// Refuse it with an ICMP message.
    Unreachable,
    /// Drop it.
    Blackhole,
    /// Look in the next table.
    Throw,
    /// Any other kind, by the kernel's number.
    Other(u8),
}

/// How far the destination is. IPv6 knows only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteScope {
    /// Behind a gateway, or anywhere.
    #[default]
    Universe,
    /// On the link itself.
    Link,
    /// This host.
    Host,
}

/// A route with at most one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Address of the destination; unspecified for the default route.
    pub destination: IpAddr,
    /// Prefix length of the destination, in bits.
    pub prefix_length: u8,
    /// Table: 254 is main, 255 local.
    pub table: u32,
    /// Index of the interface to send out of.
    pub interface: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Source address preferred for packets of the host.
    pub source: Option<IpAddr>,
    /// Metric; the smallest wins. IPv6 gives 1024 where none is set.
    pub metric: Option<u32>,
    /// What it does.
    pub kind: RouteKind,
    /// How far.
    pub scope: RouteScope,
    /// Who made it (`rtnetlink(7)`: 3 boot, 4 static, …).
    pub protocol: u8,
    /// The gateway is taken to be on the link although no route says so.
    pub on_link: bool,
}

impl Route {
    /// A unicast route to one address: /32 or /128.
    pub fn host(destination: IpAddr, interface: u32, table: u32, protocol: u8) -> Self {
        Self {
            destination,
            prefix_length: if destination.is_ipv4() { 32 } else { 128 },
            table,
            interface: Some(interface),
            gateway: None,
            source: None,
            metric: None,
            kind: RouteKind::Unicast,
            scope: if destination.is_ipv4() {
                RouteScope::Link
            } else {
                RouteScope::Universe
            },
            protocol,
            on_link: false,
        }
    }

    /// Whether it is a default route: it matches every address.
    pub fn is_default(&self) -> bool {
        self.prefix_length == 0
    }

    fn text(&self) -> String {
        format!(
            "route {}/{} table {}",
            self.destination, self.prefix_length, self.table
        )
    }

    fn message(&self) -> RouteMessage {
        let mut header = RouteHeader {
            address_family: family(self.destination.is_ipv4()),
            destination_prefix_length: self.prefix_length,
            table: u8::try_from(self.table).unwrap_or_default(),
            protocol: RouteProtocol::from(self.protocol),
            scope: match self.scope {
                RouteScope::Universe => Scope::Universe,
                RouteScope::Link => Scope::Link,
                RouteScope::Host => Scope::Host,
            },
            kind: match self.kind {
                RouteKind::Unicast => RouteType::Unicast,
                RouteKind::Local => RouteType::Local,
                RouteKind::Unreachable => RouteType::Unreachable,
                RouteKind::Blackhole => RouteType::BlackHole,
                RouteKind::Throw => RouteType::Throw,
                RouteKind::Other(kind) => RouteType::Other(kind),
            },
            ..RouteHeader::default()
        };
        if self.on_link {
            header.flags |= RouteFlags::Onlink;
        }
        let mut message = RouteMessage::default();
        message.header = header;
        let attributes = [
            (!self.is_default()).then(|| RouteAttribute::Destination(address(self.destination))),
            Some(RouteAttribute::Table(self.table)),
            self.interface.map(RouteAttribute::Oif),
            self.gateway
                .map(|gateway| RouteAttribute::Gateway(address(gateway))),
            self.source
                .map(|source| RouteAttribute::PrefSource(address(source))),
            self.metric.map(RouteAttribute::Priority),
        ];
        message.attributes.extend(attributes.into_iter().flatten());
        message
    }
}

impl Rtnetlink {
    /// Adds a route, in place of the one to the same destination with the same metric.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.socket
            .request(
                RouteNetlinkMessage::NewRoute(route.message()),
                NLM_F_CREATE | NLM_F_REPLACE,
                || route.text(),
            )
            .map(drop)
    }

    /// Adds a route; `false` if there is one to the same destination already.
    ///
    /// # Errors
    /// What else the kernel says.
    pub fn add_route(&mut self, route: &Route) -> Result<bool> {
        let added = self.socket.request(
            RouteNetlinkMessage::NewRoute(route.message()),
            NLM_F_CREATE | NLM_F_EXCL,
            || route.text(),
        );
        match added {
            Ok(_) => Ok(true),
            Err(error) if error.is_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a route. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let deleted =
            self.socket
                .request(RouteNetlinkMessage::DelRoute(route.message()), 0, || {
                    format!("delete {}", route.text())
                });
        absent_is_done(deleted)
    }

    /// The routes of one family in one table; none if the table does not exist.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn routes(&mut self, ipv4: bool, table: u32) -> Result<Vec<Route>> {
        let answers = self
            .socket
            .dump(list(ipv4, table), || format!("routes of table {table}"));
        Ok(of_table(none_if_absent(answers)?, table).collect())
    }

    /// The IPv4 default route of a table with the smallest metric, if it has one. However
    /// many routes there are: the kernel lists it first.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn default_route(table: u32) -> Result<Option<Route>> {
        let socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        let answers = socket.dump_beginning(list(true, table), || {
            format!("default route of table {table}")
        });
        Ok(of_table(none_if_absent(answers)?, table)
            .filter(Route::is_default)
            .min_by_key(|route| route.metric))
    }

    /// The IPv6 default route of a table, asked of the kernel by what it would do with a packet
    /// that came in by an interface which a rule sends to that table. However many routes there
    /// are, this takes the same time; [`Rtnetlink::routes`] lists the default route last.
    ///
    /// None says nothing: there may be no such rule, or a longer prefix for that packet.
    ///
    /// # Errors
    /// What the kernel says, other than that there is no way.
    pub fn default_route6(&mut self, table: u32, input: u32) -> Result<Option<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.header.flags = RouteFlags::from_bits_retain(RTM_F_FIB_MATCH);
        message.attributes.extend([
            RouteAttribute::Destination(RouteAddress::Inet6(NOWHERE)),
            RouteAttribute::Iif(input),
        ]);
        let found = self.get_route(message, || format!("default route of table {table}"))?;
        Ok(found.filter(|route| route.table == table && route.is_default()))
    }

    /// What the host does with a packet of its own to `destination`; none if it cannot.
    ///
    /// # Errors
    /// What the kernel says, other than that there is no way.
    pub fn lookup(&mut self, destination: IpAddr) -> Result<Option<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.is_ipv4());
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(address(destination)));
        self.get_route(message, || format!("route to {destination}"))
    }

    fn get_route(
        &mut self,
        message: RouteMessage,
        what: impl FnOnce() -> String,
    ) -> Result<Option<Route>> {
        let answers = self
            .socket
            .request(RouteNetlinkMessage::GetRoute(message), 0, what);
        match answers {
            Ok(answers) => Ok(answers.iter().find_map(read)),
            Err(error)
                if error.is_not_found()
                    || matches!(
                        error.errno(),
                        // Of a blackhole the kernel says that the request is invalid.
                        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL
                    ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The request for the routes of a table. The kernel filters, if it is not too old.
fn list(ipv4: bool, table: u32) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(ipv4);
    message.header.table = u8::try_from(table).unwrap_or_default();
    message.attributes.push(RouteAttribute::Table(table));
    RouteNetlinkMessage::GetRoute(message)
}

fn of_table(answers: Vec<Received>, table: u32) -> impl Iterator<Item = Route> {
    answers
        .into_iter()
        .filter_map(|received| read(&received))
        .filter(move |route| route.table == table)
}

/// A table that does not exist has no routes.
fn none_if_absent(answers: Result<Vec<Received>>) -> Result<Vec<Received>> {
    match answers {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

fn family(ipv4: bool) -> AddressFamily {
    if ipv4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// Reads RTM_NEWROUTE. Of several next hops the first is taken.
fn read(received: &Received) -> Option<Route> {
    if received.kind != libc::RTM_NEWROUTE {
        return None;
    }
    let payload = received.payload.as_slice();
    let ipv4 = i32::from(*payload.first()?) == libc::AF_INET;
    let flags = u32_at(payload, 8)?;
    let mut route = Route {
        destination: if ipv4 {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        },
        prefix_length: *payload.get(1)?,
        table: u32::from(*payload.get(4)?),
        interface: None,
        gateway: None,
        source: None,
        metric: None,
        protocol: *payload.get(5)?,
        scope: match *payload.get(6)? {
            253 => RouteScope::Link,
            254 => RouteScope::Host,
            _ => RouteScope::Universe,
        },
        kind: match *payload.get(7)? {
            1 => RouteKind::Unicast,
            2 => RouteKind::Local,
            6 => RouteKind::Blackhole,
            7 => RouteKind::Unreachable,
            9 => RouteKind::Throw,
            other => RouteKind::Other(other),
        },
        on_link: flags & 4 != 0,
    };
    for attribute in NlasIterator::new(payload.get(12..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            libc::RTA_DST => route.destination = read_address(value)?,
            libc::RTA_TABLE => route.table = u32_at(value, 0)?,
            libc::RTA_OIF => route.interface = u32_at(value, 0),
            libc::RTA_GATEWAY => route.gateway = read_address(value),
            libc::RTA_PREFSRC => route.source = read_address(value),
            libc::RTA_PRIORITY => route.metric = u32_at(value, 0),
            libc::RTA_MULTIPATH if route.interface.is_none() => {
                route.interface = u32_at(value, 4);
                route.gateway = NlasIterator::new(value.get(8..)?)
                    .flatten()
                    .find(|hop| hop.kind() == libc::RTA_GATEWAY)
                    .and_then(|hop| read_address(hop.value()));
            }
            _ => {}
        }
    }
    Some(route)
}

/// An address attribute, by its length.
pub(super) fn read_address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(bytes));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}
