//! DHCPv4: RFC 2131, sections 4.3.1 to 4.3.6, for the one address that a guest can have.

use std::net::{IpAddr, Ipv4Addr};

use agents::addr::{Ipv4Net, MacAddr};
use agents::binding::DomainName;

use super::{Action, Answer, Kind, Scratch};
use crate::client::Client;
use crate::packet::addresses::Addresses;
use crate::packet::dhcp4::{MessageType, OptionList, Reply, Request, code};
use crate::packet::frame::{self, Route};
use crate::profile::{Boot, Profile, ServerId};
use crate::reason::Reason;

/// RFC 7600, section 4.8: an address that nobody has, to send from when there is nothing better.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Answers the datagram `data` to the port of DHCPv4 servers.
pub fn respond(
    _addresses: Addresses<Ipv4Addr>,
    data: &[u8],
    source_mac: Option<MacAddr>,
    client: &Client,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> (Kind, Action) {
    if !client.profile.dhcp.enabled {
        // Another server's business.
        return (Kind::Dhcp4(None), Action::Pass);
    }
    let request = match Request::parse(data) {
        Ok(request) => request,
        Err(reason) => return (Kind::Dhcp4(None), Action::Drop(reason)),
    };
    let kind = Kind::Dhcp4(request.message_type);
    match decide(&request, source_mac, client) {
        Ok(answer) => {
            write(answer, &request, client, scratch, out);
            (kind, Action::Reply(Answer::Dhcp4(answer.message_type)))
        }
        Err(reason) => (kind, Action::Drop(reason)),
    }
}

/// What will be said, before how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    message_type: MessageType,
    server: Ipv4Addr,
    /// The address that is given or confirmed; unspecified in NAK and the answer to INFORM.
    lease: Ipv4Addr,
}

fn decide(
    request: &Request<'_>,
    source_mac: Option<MacAddr>,
    client: &Client,
) -> Result<Decision, Reason> {
    let settings = &client.profile.dhcp;
    let message_type = request.message_type.ok_or(Reason::Bootp)?;
    if !client.owns(request.chaddr) || source_mac.is_some_and(|mac| mac != request.chaddr) {
        return Err(Reason::SpoofedChaddr);
    }
    if !request.giaddr.is_unspecified() {
        return Err(Reason::Relayed);
    }
    let address = client.binding.ip.ok_or(Reason::NoAddress)?;
    let server = server_id(client, settings.server);
    let answer = |message_type, lease| {
        Ok(Decision {
            message_type,
            server,
            lease,
        })
    };
    match message_type {
        MessageType::Discover => answer(MessageType::Offer, address),
        MessageType::Request => {
            if request.server_id.is_some_and(|chosen| chosen != server) {
                return Err(Reason::OtherServer);
            }
            // SELECTING and INIT-REBOOT name the address in option 50, RENEWING and REBINDING in
            // `ciaddr`. A client that fills in both must mean the same by both.
            let meant = match (request.requested_address, request.ciaddr) {
                (Some(requested), Ipv4Addr::UNSPECIFIED) => requested,
                (Some(requested), ciaddr) if requested == ciaddr => ciaddr,
                (Some(requested), ciaddr) if ciaddr == address => requested,
                (_, Ipv4Addr::UNSPECIFIED) => return Err(Reason::MalformedDhcp4),
                (_, ciaddr) => ciaddr,
            };
            if meant == address {
                answer(MessageType::Ack, address)
            } else {
                answer(MessageType::Nak, Ipv4Addr::UNSPECIFIED)
            }
        }
        // The client has its address from elsewhere and wants the rest.
        MessageType::Inform if request.ciaddr.is_unspecified() => Err(Reason::MalformedDhcp4),
        MessageType::Inform => answer(MessageType::Ack, Ipv4Addr::UNSPECIFIED),
        MessageType::Decline | MessageType::Release => Err(Reason::NoReply),
        MessageType::Offer | MessageType::Ack | MessageType::Nak => Err(Reason::NotAClient),
    }
}

/// Option 54. It must stay the same while a guest moves from node to node, so that it can renew
/// its lease: hence nothing of the node is in it.
fn server_id(client: &Client, setting: ServerId) -> Ipv4Addr {
    let binding = &client.binding;
    match (setting, binding.gateway, binding.subnet) {
        (ServerId::Fixed(address), ..) => address,
        (ServerId::OnLink, Some(gateway), _) => gateway,
        (ServerId::OnLink, None, Some(subnet)) => subnet
            .hosts()
            .find(|address| Some(*address) != binding.ip)
            .unwrap_or(DUMMY),
        (ServerId::OnLink, None, None) => DUMMY,
    }
}

fn write(
    decision: Decision,
    request: &Request<'_>,
    client: &Client,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let Scratch { options, omissions } = scratch;
    options.clear();
    options.push(code::MESSAGE_TYPE, &[decision.message_type as u8]);
    options.push(code::SERVER_ID, &decision.server.octets());
    let is_nak = decision.message_type == MessageType::Nak;
    let boot = if is_nak {
        None
    } else {
        boot(request, &client.profile.dhcp.boot)
    };
    if is_nak {
        options.push(code::MESSAGE, b"this is not your address");
    } else {
        push_options(decision, request, client, boot, options);
    }
    // RFC 6842: the client's identifier goes back as it came; RFC 3046: so does the relay's, last.
    options.extend(code::CLIENT_ID, request.client_id.bytes());
    options.extend(code::RELAY_AGENT, request.relay_agent.bytes());

    let reply = Reply {
        message_type: decision.message_type,
        yiaddr: decision.lease,
        siaddr: boot
            .and_then(|boot| boot.next_server)
            .unwrap_or(Ipv4Addr::UNSPECIFIED),
        // RFC 2131, table 3: repeated in an ACK alone.
        ciaddr: match decision.message_type {
            MessageType::Ack => request.ciaddr,
            _ => Ipv4Addr::UNSPECIFIED,
        },
        sname: boot
            .map(|boot| boot.server_name.as_bytes())
            .unwrap_or_default(),
        // What is longer than the field is in option 67 alone.
        file: boot
            .map(|boot| boot.file.as_bytes())
            .filter(|file| file.len() < 128)
            .unwrap_or_default(),
    };
    frame::start(out, frame::DHCP4_OFFSET);
    let mtu = client.binding.mtu.unwrap_or(1500);
    reply.write(request, options, mtu, out, omissions);
    let (destination, destination_mac) = destination(decision, request);
    let route = Route {
        source_mac: client.port.host_mac,
        destination_mac,
        source: decision.server,
        destination,
    };
    // The message is shorter than `mtu`, so it fits.
    let _fits = frame::finish_dhcp4(out, route);
}

/// RFC 2131, section 4.1: where the reply goes. A NAK is always broadcast: a client that is to
/// give up its address need not listen to it any more.
fn destination(decision: Decision, request: &Request<'_>) -> (Ipv4Addr, MacAddr) {
    if decision.message_type == MessageType::Nak {
        (Ipv4Addr::BROADCAST, MacAddr::BROADCAST)
    } else if !request.ciaddr.is_unspecified() {
        (request.ciaddr, request.chaddr)
    } else if request.broadcast {
        (Ipv4Addr::BROADCAST, MacAddr::BROADCAST)
    } else {
        (decision.lease, request.chaddr)
    }
}

/// The options of OFFER and ACK, the most important first.
fn push_options(
    decision: Decision,
    request: &Request<'_>,
    client: &Client,
    boot: Option<&Boot>,
    options: &mut OptionList,
) {
    let settings = &client.profile.dhcp;
    if !decision.lease.is_unspecified() {
        for (code, time) in [
            (code::ADDRESS_TIME, settings.lease),
            (code::RENEWAL_TIME, settings.renew),
            (code::REBINDING_TIME, settings.rebind),
        ] {
            let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
            options.push(code, &seconds.to_be_bytes());
        }
    }
    // Without these the guest has no network: they are sent whether it asks or not.
    let link = Link::of(client, decision.lease);
    for code in [code::SUBNET_MASK, code::ROUTER] {
        push_option(code, request, client, &link, boot, options);
    }
    if link.is_off_link {
        for code in [code::CLASSLESS_ROUTES, code::CLASSLESS_ROUTES_MICROSOFT] {
            push_option(code, request, client, &link, boot, options);
        }
    }
    push_option(code::MTU_INTERFACE, request, client, &link, boot, options);
    if boot.is_some() {
        for code in [code::CLASS_ID, code::SERVER_NAME, code::BOOTFILE_NAME] {
            push_option(code, request, client, &link, boot, options);
        }
    }
    // The rest in the client's own order (RFC 2132, section 9.8), or if it has none, in ours.
    if request.parameters.is_present() {
        for code in request.parameters.bytes() {
            push_option(code, request, client, &link, boot, options);
        }
    } else {
        for code in UNASKED {
            push_option(code, request, client, &link, boot, options);
        }
    }
}

/// What a client gets that does not say what it wants.
const UNASKED: [u8; 8] = [
    code::DOMAIN_SERVER,
    code::DOMAIN_NAME,
    code::HOSTNAME,
    code::BROADCAST_ADDRESS,
    code::CLASSLESS_ROUTES,
    code::CLASSLESS_ROUTES_MICROSOFT,
    code::DOMAIN_SEARCH,
    code::NTP_SERVERS,
];

/// The guest's IPv4 link as it is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    /// Mask and broadcast address come from this; none if the guest is given no address.
    prefix: Option<Ipv4Net>,
    /// The router to announce.
    router: Option<Ipv4Addr>,
    /// The router is outside the prefix: it needs a route of its own.
    is_off_link: bool,
}

impl Link {
    fn of(client: &Client, lease: Ipv4Addr) -> Self {
        let binding = &client.binding;
        // INFORM: the guest's own address says nothing of our prefix, but it can only be there.
        let address = if lease.is_unspecified() {
            binding.ip.unwrap_or(lease)
        } else {
            lease
        };
        let host = Ipv4Net::from(address);
        let router = binding.gateway.filter(|_| !binding.private);
        // An address outside its own prefix is one behind the router, alone.
        let prefix = binding
            .subnet
            .filter(|subnet| subnet.contains(&address))
            .unwrap_or(host);
        match router {
            Some(router) if !prefix.contains(&router) => {
                if binding.no_onlink32
                    && let Some(wide) = prefix_of_both(address, router)
                {
                    return Self {
                        prefix: Some(wide),
                        router: Some(router),
                        is_off_link: false,
                    };
                }
                Self {
                    prefix: Some(prefix),
                    router: Some(router),
                    is_off_link: true,
                }
            }
            _ => Self {
                prefix: Some(prefix),
                router,
                is_off_link: false,
            },
        }
    }
}

/// The longest prefix, of 24 to 8 bits, in which both are ordinary addresses.
fn prefix_of_both(address: Ipv4Addr, router: Ipv4Addr) -> Option<Ipv4Net> {
    (8..=24).rev().find_map(|length| {
        let prefix = Ipv4Net::new(address, length).ok()?.trunc();
        let ordinary = |host: Ipv4Addr| {
            prefix.contains(&host) && host != prefix.network() && host != prefix.broadcast()
        };
        (ordinary(address) && ordinary(router)).then_some(prefix)
    })
}

/// Appends the option with this code, if we have something to say and it is not there yet.
fn push_option(
    code: u8,
    request: &Request<'_>,
    client: &Client,
    link: &Link,
    boot: Option<&Boot>,
    options: &mut OptionList,
) {
    if options.contains(code) {
        return;
    }
    let (binding, settings) = (&client.binding, &client.profile.dhcp);
    match code {
        code::SUBNET_MASK => options.addresses(code, link.prefix.map(|prefix| prefix.netmask())),
        code::ROUTER => options.addresses(code, link.router),
        code::DOMAIN_SERVER => {
            let ipv4 = |address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            };
            options.addresses(
                code,
                Profile::nameservers(&binding.nameservers, &settings.nameservers, ipv4),
            );
        }
        code::HOSTNAME => options.push(code, host_name(&binding.hostname).as_bytes()),
        code::DOMAIN_NAME => {
            if let Some(domain) = domain(client) {
                options.push(code, domain.as_str().as_bytes());
            }
        }
        code::MTU_INTERFACE => {
            options.extend(code, binding.mtu.into_iter().flat_map(u16::to_be_bytes))
        }
        code::BROADCAST_ADDRESS => options.addresses(
            code,
            // RFC 3021: two addresses have no third for broadcast.
            link.prefix
                .filter(|prefix| prefix.prefix_len() < 31)
                .map(|prefix| prefix.broadcast()),
        ),
        code::NTP_SERVERS => options.addresses(code, settings.ntp.iter().copied()),
        code::DOMAIN_SEARCH => {
            let list = if binding.domain.len() > 1 {
                &binding.domain
            } else {
                &settings.search
            };
            options.list(code, list.iter().map(DomainName::to_wire));
        }
        code::CLASSLESS_ROUTES | code::CLASSLESS_ROUTES_MICROSOFT => {
            push_routes(code, client, link, options)
        }
        code::IPV6_ONLY => {
            let wait = settings.ipv6_only_wait.map(|wait| wait.as_secs());
            let wait = wait.map(|wait| u32::try_from(wait).unwrap_or(u32::MAX));
            options.extend(code, wait.into_iter().flat_map(u32::to_be_bytes));
        }
        code::CAPTIVE_PORTAL => {
            if let Some(url) = &settings.captive_portal {
                options.push(code, url.as_bytes());
            }
        }
        code::CLASS_ID => {
            // A PXE or HTTP client takes an answer only if the server says that it is one too.
            for class in ["PXEClient", "HTTPClient"] {
                if boot.is_some() && request.vendor_class.starts_with(class.as_bytes()) {
                    options.push(code, class.as_bytes());
                }
            }
        }
        code::SERVER_NAME => {
            options.push(
                code,
                boot.map(|boot| boot.server_name.as_bytes())
                    .unwrap_or_default(),
            );
        }
        code::BOOTFILE_NAME => {
            options.push(
                code,
                boot.map(|boot| boot.file.as_bytes()).unwrap_or_default(),
            );
        }
        _ => {}
    }
}

/// RFC 3442: destination in as few bytes as its length needs, then the router. With this option a
/// client ignores option 3, so the default route is in it too.
fn push_routes(code: u8, client: &Client, link: &Link, options: &mut OptionList) {
    let binding = &client.binding;
    let on_link = link
        .router
        .filter(|_| link.is_off_link)
        .map(|router| (router.into(), Ipv4Addr::UNSPECIFIED));
    let has_default = binding
        .routes
        .iter()
        .any(|route| route.destination.prefix_len() == 0);
    let default = link
        .router
        .filter(|_| !has_default && (link.is_off_link || !binding.routes.is_empty()))
        .map(|router| (Ipv4Net::default(), router));
    let own = binding
        .routes
        .iter()
        .map(|route| (route.destination, route.via));
    let routes = on_link.into_iter().chain(default).chain(own);
    options.list(
        code,
        routes.map(|(destination, via): (Ipv4Net, Ipv4Addr)| {
            let length = destination.prefix_len();
            let significant = usize::from(length.div_ceil(8));
            std::iter::once(length)
                .chain(destination.network().octets().into_iter().take(significant))
                .chain(via.octets())
        }),
    );
}

/// The first label of the instance's name.
fn host_name(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// The binding's domain, or the configuration's, or what follows the first dot of the name.
fn domain(client: &Client) -> Option<DomainName> {
    let own = client
        .binding
        .domain
        .first()
        .or(client.profile.dhcp.domain.as_ref());
    own.cloned()
        .or_else(|| client.binding.hostname.split_once('.')?.1.parse().ok())
}

/// The first entry that fits the client, if it is one that boots from the network.
fn boot<'a>(request: &Request<'_>, entries: &'a [Boot]) -> Option<&'a Boot> {
    entries.iter().find(|entry| {
        let wants = request.architecture.is_some()
            || request.asks_for(code::BOOTFILE_NAME)
            || request.vendor_class.starts_with(b"PXEClient")
            || request.vendor_class.starts_with(b"HTTPClient");
        wants
            && entry
                .architecture
                .is_none_or(|wanted| request.architecture == Some(wanted))
            && request.vendor_class.starts_with(entry.class.as_bytes())
            && request.user_class.starts_with(entry.user_class.as_bytes())
    })
}

#[cfg(test)]
mod tests;
