//! Routing rules: which table a packet is looked up in.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::text;
use super::route::read_address;
use super::socket::{Received, u32_at};
use super::{Result, Rtnetlink, absent_is_done};

const RTM_NEWRULE: u16 = libc::RTM_NEWRULE;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

/// A rule "from, to, iif, oif lookup table". It stays when its interface vanishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// For IPv4; else for IPv6.
    pub ipv4: bool,
    /// Place in the order of rules; the smallest is asked first.
    pub priority: u32,
    /// Name of the interface that the packet came in by.
    pub input: Option<String>,
    /// Name of the interface that it shall go out of.
    pub output: Option<String>,
    /// Source prefix.
    pub source: Option<(IpAddr, u8)>,
    /// Destination prefix.
    pub destination: Option<(IpAddr, u8)>,
    /// Table to look in.
    pub table: u32,
    /// Who made it (see [`super::Route::protocol`]).
    pub protocol: u8,
}

impl Rule {
    fn text(&self) -> String {
        let mut text = format!(
            "rule {} {}",
            if self.ipv4 { "IPv4" } else { "IPv6" },
            self.priority
        );
        for (key, name) in [("iif", &self.input), ("oif", &self.output)] {
            if let Some(name) = name {
                text = format!("{text} {key} {name}");
            }
        }
        for (key, prefix) in [("from", self.source), ("to", self.destination)] {
            if let Some((address, length)) = prefix {
                text = format!("{text} {key} {address}/{length}");
            }
        }
        format!("{text} lookup {}", self.table)
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header = RuleHeader {
            family: if self.ipv4 {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            },
            table: u8::try_from(self.table).unwrap_or_default(),
            action: RuleAction::ToTable,
            src_len: self.source.map_or(0, |(_, length)| length),
            dst_len: self.destination.map_or(0, |(_, length)| length),
            ..RuleHeader::default()
        };
        let attributes = [
            Some(RuleAttribute::Priority(self.priority)),
            Some(RuleAttribute::Table(self.table)),
            Some(RuleAttribute::Protocol(self.protocol.into())),
            self.input.clone().map(RuleAttribute::Iifname),
            self.output.clone().map(RuleAttribute::Oifname),
            self.source
                .map(|(address, _)| RuleAttribute::Source(address)),
            self.destination
                .map(|(address, _)| RuleAttribute::Destination(address)),
        ];
        message.attributes.extend(attributes.into_iter().flatten());
        message
    }
}

impl Rtnetlink {
    /// Adds a rule; `false` if the very same is there already.
    ///
    /// # Errors
    /// What else the kernel says.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<bool> {
        let added = self.socket.request(
            RouteNetlinkMessage::NewRule(rule.message()),
            NLM_F_CREATE | NLM_F_EXCL,
            || rule.text(),
        );
        match added {
            Ok(_) => Ok(true),
            Err(error) if error.is_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a rule. One that is not there is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<()> {
        let deleted = self
            .socket
            .request(RouteNetlinkMessage::DelRule(rule.message()), 0, || {
                format!("delete {}", rule.text())
            });
        absent_is_done(deleted)
    }

    /// All rules of one family that look in a table, in their order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rules(&mut self, ipv4: bool) -> Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = if ipv4 {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetRule(message), || {
                "routing rules".to_owned()
            })?;
        Ok(answers.iter().filter_map(read).collect())
    }
}

fn read(received: &Received) -> Option<Rule> {
    let payload = received.payload.as_slice();
    if received.kind != RTM_NEWRULE || *payload.get(7)? != FR_ACT_TO_TBL {
        return None;
    }
    let (destination_length, source_length) = (*payload.get(1)?, *payload.get(2)?);
    let mut rule = Rule {
        ipv4: i32::from(*payload.first()?) == libc::AF_INET,
        priority: 0,
        input: None,
        output: None,
        source: None,
        destination: None,
        table: u32::from(*payload.get(4)?),
        protocol: 0,
    };
    for attribute in NlasIterator::new(payload.get(12..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            FRA_DST => rule.destination = read_address(value).map(|a| (a, destination_length)),
            FRA_SRC => rule.source = read_address(value).map(|a| (a, source_length)),
            FRA_IIFNAME => rule.input = Some(text(value)),
            FRA_OIFNAME => rule.output = Some(text(value)),
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_TABLE => rule.table = u32_at(value, 0)?,
            FRA_PROTOCOL => rule.protocol = *value.first()?,
            _ => {}
        }
    }
    Some(rule)
}
