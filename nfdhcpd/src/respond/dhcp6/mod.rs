//! DHCPv6: RFC 8415, section 18.3, for the one address that a guest can have.
//!
//! Who asks is known by its interface. Its DUID and IAID are repeated as they came, and count for
//! nothing: installers, clones and reinstalled guests change them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use agents::addr::MacAddr;
use agents::binding::DomainName;

use super::{Action, Answer, Kind, Scratch};
use crate::client::Client;
use crate::omission::Omission;
use crate::packet::addresses::Addresses;
use crate::packet::dhcp6::{self, Ia, IaKind, ListedOption, MessageType, Request, Status, code};
use crate::packet::frame::{self, Route};
use crate::packet::ip::DHCP6_CLIENT;
use crate::profile::{Mode, Profile};
use crate::reason::Reason;

/// The length of the headers before the message.
const IP_AND_UDP: usize = 48;

/// How long the answer to an Information-request is good, if the client wants to know.
const REFRESH: Duration = Duration::from_secs(3600);

/// Answers the datagram `data` to the port of DHCPv6 servers.
pub fn respond(
    addresses: Addresses<Ipv6Addr>,
    data: &[u8],
    source_mac: Option<MacAddr>,
    client: &Client,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> (Kind, Action) {
    let settings = &client.profile.ipv6;
    let binding = &client.binding;
    if !settings.enabled || settings.mode == Mode::Slaac {
        return (Kind::Dhcp6(None), Action::Pass);
    }
    let request = match Request::parse(data) {
        Ok(request) => request,
        Err(reason) => return (Kind::Dhcp6(None), Action::Drop(reason)),
    };
    let kind = Kind::Dhcp6(Some(request.message_type));
    if binding.subnet6.is_none() && binding.ip6.is_none() {
        // Whoever gives IPv6 to this guest is somewhere else on the bridge.
        let action = if client.port.bridged {
            Action::Pass
        } else {
            Action::Drop(Reason::NoAddress)
        };
        return (kind, action);
    }
    if !agents::addr::is_link_local(addresses.source) {
        return (kind, Action::Drop(Reason::NotLinkLocal));
    }
    frame::start(out, frame::DHCP6_OFFSET);
    let answer = match write(&request, client, &mut scratch.omissions, out) {
        Ok(answer) => answer,
        Err(reason) => return (kind, Action::Drop(reason)),
    };
    let route = Route {
        source_mac: client.port.host_mac,
        destination_mac: source_mac.unwrap_or(binding.mac),
        source: client.port.host_link_local,
        destination: addresses.source,
    };
    if frame::finish_dhcp6(out, route, DHCP6_CLIENT) {
        (kind, Action::Reply(Answer::Dhcp6(answer)))
    } else {
        (kind, Action::Drop(Reason::TooLarge))
    }
}

/// Appends the answer.
fn write(
    request: &Request<'_>,
    client: &Client,
    omitted: &mut Vec<Omission>,
    out: &mut Vec<u8>,
) -> Result<MessageType, Reason> {
    // `out` has room for the headers before the message.
    let end = super::room(client, 1280) - IP_AND_UDP + out.len();
    validate(request, &client.profile.ipv6.server_duid)?;
    let rapid = request.message_type == MessageType::Solicit && request.rapid_commit;
    let answer = match request.message_type {
        MessageType::Solicit if !rapid => MessageType::Advertise,
        _ => MessageType::Reply,
    };
    let [t0, t1, t2] = request.transaction;
    out.extend_from_slice(&[answer as u8, t0, t1, t2]);
    dhcp6::option(code::SERVERID, out, |out| {
        out.extend_from_slice(&client.profile.ipv6.server_duid);
    });
    if let Some(duid) = request.client_id {
        dhcp6::option(code::CLIENTID, out, |out| out.extend_from_slice(duid));
    }
    match request.message_type {
        MessageType::Confirm => write_confirmation(request, client, out)?,
        MessageType::Release | MessageType::Decline => {
            dhcp6::status(Status::Success, "", out);
            write_unknown(request, client, out);
        }
        MessageType::InformationRequest => {
            write_settings(request, client, end.saturating_sub(out.len()), omitted, out);
        }
        _ => {
            if answer == MessageType::Advertise {
                // RFC 8415, section 18.2.1: with this preference the client does not wait for others.
                dhcp6::option(code::PREFERENCE, out, |out| out.push(255));
            } else if rapid {
                dhcp6::option(code::RAPID_COMMIT, out, |_| {});
            }
            write_ias(request, client, out);
            write_settings(request, client, end.saturating_sub(out.len()), omitted, out);
        }
    }
    Ok(answer)
}

/// RFC 8415, section 16: what must and what must not be in which message.
fn validate(request: &Request<'_>, server_duid: &[u8]) -> Result<(), Reason> {
    use MessageType as M;
    let for_us = request.server_id.is_some_and(|duid| duid == server_duid);
    match request.message_type {
        M::Solicit | M::Confirm | M::Rebind => {
            if request.client_id.is_none() || request.server_id.is_some() {
                return Err(Reason::MalformedDhcp6);
            }
        }
        M::Request | M::Renew | M::Release | M::Decline => {
            if request.client_id.is_none() || request.server_id.is_none() {
                return Err(Reason::MalformedDhcp6);
            }
            if !for_us {
                return Err(Reason::OtherServer);
            }
        }
        M::InformationRequest => {
            if request.server_id.is_some() && !for_us {
                return Err(Reason::OtherServer);
            }
            if request.ias().next().is_some() {
                return Err(Reason::MalformedDhcp6);
            }
        }
        M::Advertise | M::Reply => return Err(Reason::NotAClient),
    }
    Ok(())
}

/// RFC 8415, section 18.3.3.
fn write_confirmation(
    request: &Request<'_>,
    client: &Client,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let mut addresses = request.ias().flat_map(Ia::addresses).peekable();
    if addresses.peek().is_none() {
        return Err(Reason::NoReply);
    }
    if addresses.all(|address| is_on_link(client, address)) {
        dhcp6::status(Status::Success, "", out);
    } else {
        dhcp6::status(Status::NotOnLink, "not an address of this link", out);
    }
    Ok(())
}

/// Returns whether an address is one of the guest's link.
fn is_on_link(client: &Client, address: Ipv6Addr) -> bool {
    let binding = &client.binding;
    binding.ip6 == Some(address)
        || binding
            .subnet6
            .is_some_and(|subnet| subnet.contains(&address))
}

/// The code of the option that an association is.
fn code_of(ia: &Ia<'_>) -> u16 {
    match ia.kind {
        IaKind::NonTemporary => code::IA_NA,
        IaKind::Temporary => code::IA_TA,
        IaKind::Prefix => code::IA_PD,
    }
}

/// RFC 8415, sections 18.3.7 and 18.3.8: the associations of a Release or Decline in which there is
/// nothing that the guest was given.
fn write_unknown(request: &Request<'_>, client: &Client, out: &mut Vec<u8>) {
    let given = address(client);
    for ia in request.ias() {
        let is_known =
            ia.kind == IaKind::NonTemporary && ia.addresses().any(|address| Some(address) == given);
        if !is_known {
            write_ia(ia, None, client, out, |out| {
                dhcp6::status(Status::NoBinding, "nothing was given for this", out);
            });
        }
    }
}

/// Appends an association with one address or none; `rest` appends what else is in it.
fn write_ia(
    ia: &Ia<'_>,
    address: Option<Ipv6Addr>,
    client: &Client,
    out: &mut Vec<u8>,
    rest: impl FnOnce(&mut Vec<u8>),
) {
    dhcp6::option(code_of(ia), out, |out| {
        out.extend_from_slice(&ia.id);
        if ia.kind != IaKind::Temporary {
            let preferred = client.profile.ipv6.preferred_lifetime;
            // RFC 8415, section 21.4: half and four fifths of the preferred lifetime.
            let (t1, t2) = if address.is_some() {
                (preferred / 2, preferred * 4 / 5)
            } else {
                Default::default()
            };
            out.extend_from_slice(&seconds(t1));
            out.extend_from_slice(&seconds(t2));
        }
        if let Some(address) = address {
            write_address(address, client, true, out);
        }
        rest(out);
    });
}

/// The reason that an association gets no address (RFC 8415, sections 18.3.2, 18.3.4, 18.3.5 and 18.3.9).
fn refusal(request: &Request<'_>, ia: &Ia<'_>) -> (Status, &'static str) {
    match (request.message_type, ia.kind) {
        (MessageType::Renew | MessageType::Rebind, _) => {
            (Status::NoBinding, "nothing was given for this")
        }
        (_, IaKind::Prefix) => (Status::NoPrefixAvail, "no prefixes here"),
        _ => (Status::NoAddrsAvail, "no address here"),
    }
}

fn write_ias(request: &Request<'_>, client: &Client, out: &mut Vec<u8>) {
    // One address can be given to one association.
    let mut free = address(client);
    let mut given = false;
    for ia in request.ias() {
        // RFC 8415, section 18.3.2. In a Solicit an address is only a hint.
        if request.message_type == MessageType::Request
            && ia.kind != IaKind::Prefix
            && ia.addresses().any(|address| !is_on_link(client, address))
        {
            write_ia(ia, None, client, out, |out| {
                dhcp6::status(Status::NotOnLink, "not an address of this link", out);
            });
            continue;
        }
        let mine = if ia.kind == IaKind::NonTemporary {
            free.take()
        } else {
            None
        };
        given |= mine.is_some();
        write_ia(ia, mine, client, out, |out| {
            // Addresses that are not ours to give are taken back where the client holds them.
            let holds = matches!(
                request.message_type,
                MessageType::Renew | MessageType::Rebind
            );
            if holds && ia.kind == IaKind::NonTemporary {
                for other in ia.addresses().filter(|address| Some(*address) != mine) {
                    write_address(other, client, false, out);
                }
            }
            if mine.is_none() {
                let (status, text) = refusal(request, ia);
                dhcp6::status(status, text, out);
            }
        });
    }
    if request.message_type == MessageType::Solicit && !given {
        write_refusal_of_all(request, out);
    }
}

/// Says of a whole Advertise, or of the Reply to a Solicit with rapid commit, that nothing is
/// given: RFC 8415 has that in each association, clients of RFC 3315 (section 17.2.2) look here.
fn write_refusal_of_all(request: &Request<'_>, out: &mut Vec<u8>) {
    let wants = |kind: fn(IaKind) -> bool| request.ias().any(|ia| kind(ia.kind));
    if wants(|kind| kind != IaKind::Prefix) {
        let text = "addresses come by router advertisements";
        dhcp6::status(Status::NoAddrsAvail, text, out);
    } else if wants(|kind| kind == IaKind::Prefix) {
        dhcp6::status(Status::NoPrefixAvail, "no prefixes here", out);
    }
}

/// The address that stateful DHCPv6 gives.
fn address(client: &Client) -> Option<Ipv6Addr> {
    match client.profile.ipv6.mode {
        Mode::Dhcp6 | Mode::Auto => client.binding.ip6,
        Mode::Slaac | Mode::SlaacDhcp6 => None,
    }
}

fn write_address(address: Ipv6Addr, client: &Client, valid: bool, out: &mut Vec<u8>) {
    let settings = &client.profile.ipv6;
    dhcp6::option(code::IAADDR, out, |out| {
        out.extend_from_slice(&address.octets());
        for lifetime in [settings.preferred_lifetime, settings.valid_lifetime] {
            out.extend_from_slice(&seconds(if valid { lifetime } else { Duration::ZERO }));
        }
    });
}

/// The options that are the same for all messages, so many bytes at most.
fn write_settings(
    request: &Request<'_>,
    client: &Client,
    room: usize,
    omitted: &mut Vec<Omission>,
    out: &mut Vec<u8>,
) {
    let (binding, settings) = (&client.binding, &client.profile.ipv6);
    let mut options = Vec::new();
    let mut add = |code: u16, items: Vec<Vec<u8>>| {
        if !items.is_empty() && request.wants(code) {
            options.push(ListedOption { code, items });
        }
    };
    let ipv6 = |address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    let octets = |address: Ipv6Addr| address.octets().to_vec();
    let servers = Profile::nameservers(&binding.nameservers, &settings.nameservers, ipv6);
    add(code::DNS_SERVERS, servers.map(octets).collect());
    let search = if binding.domain.is_empty() {
        &settings.search
    } else {
        &binding.domain
    };
    let names = search.iter().map(DomainName::to_wire);
    add(code::DOMAIN_LIST, names.collect());
    // RFC 5908, section 4.1: suboption 1 is an address.
    let suboption = |server: &Ipv6Addr| [&[0, 1, 0, 16][..], &server.octets()].concat();
    add(
        code::NTP_SERVER,
        settings.ntp.iter().map(suboption).collect(),
    );
    let servers = settings.ntp.iter().copied().map(octets);
    add(code::SNTP_SERVERS, servers.collect());
    let url = settings.boot_file_url.iter();
    let url = url.map(|url| url.as_bytes().to_vec());
    add(code::BOOTFILE_URL, url.collect());
    if request.message_type == MessageType::InformationRequest {
        add(
            code::INFORMATION_REFRESH_TIME,
            vec![seconds(REFRESH).to_vec()],
        );
    }
    if (request.has_fqdn || request.wants(code::CLIENT_FQDN))
        && let Some(name) = full_name(client)
    {
        // RFC 4704, section 4.1: the N flag, we do not update DNS.
        let value = [&[0x04][..], &name.to_wire()].concat();
        options.push(ListedOption {
            code: code::CLIENT_FQDN,
            items: vec![value],
        });
    }
    dhcp6::listed_options(&options, room, out, omitted);
}

/// The guest's name with its domain, if it has one.
fn full_name(client: &Client) -> Option<DomainName> {
    let binding = &client.binding;
    let first = binding.hostname.split('.').next().unwrap_or_default();
    match binding
        .domain
        .first()
        .or(client.profile.ipv6.search.first())
    {
        Some(domain) => format!("{first}.{domain}").parse().ok(),
        None => binding.hostname.parse().ok(),
    }
}

fn seconds(time: Duration) -> [u8; 4] {
    u32::try_from(time.as_secs())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

#[cfg(test)]
mod tests;
