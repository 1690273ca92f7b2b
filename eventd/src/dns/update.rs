//! From a change to the update messages that carry it out: one for each zone.

use std::net::IpAddr;

use agents::outbox::DnsChange;
use hickory_proto::op::{Message, OpCode, Query, UpdateMessage as _};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::config::Dns;

/// The zones that names and addresses are in.
#[derive(Debug, Clone)]
pub struct Zones {
    zone: Name,
    reverse: Vec<Name>,
    ttl: u32,
    /// How updates are signed.
    pub algorithm: TsigAlgorithm,
    /// The key's name, if they are.
    pub key_name: Option<Name>,
}

impl Zones {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A key, its value, and what is wrong with it.
    pub fn new(dns: &Dns) -> Result<Self, (&'static str, String, String)> {
        let name = |key: &'static str, text: &str| {
            Name::from_ascii(text)
                .map(|mut name| {
                    name.set_fqdn(true);
                    name
                })
                .map_err(|error| (key, format!("{text:?}"), error.to_string()))
        };
        if dns.server.is_some() && dns.zone.is_empty() {
            let reason = "must be set if dns.server is".to_owned();
            return Err(("dns.zone", "\"\"".to_owned(), reason));
        }
        let mut reverse = Vec::new();
        for zone in &dns.reverse_zones {
            let zone_name = name("dns.reverse_zones", zone)?;
            if zone_name.parse_arpa_name().is_err() {
                let reason = "must be under in-addr.arpa or ip6.arpa".to_owned();
                return Err(("dns.reverse_zones", format!("{zone:?}"), reason));
            }
            reverse.push(zone_name);
        }
        // the nearest zone of an address goes first
        reverse.sort_by_key(|zone| std::cmp::Reverse(zone.num_labels()));
        let algorithm = match dns.key_algorithm.as_str() {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            other => {
                let reason = "must be hmac-sha256, hmac-sha384 or hmac-sha512".to_owned();
                return Err(("dns.key_algorithm", format!("{other:?}"), reason));
            }
        };
        let key_name = match (&dns.key_name, &dns.key_file) {
            (Some(key), Some(_)) => Some(name("dns.key_name", key)?),
            (None, None) => None,
            _ => {
                let value = format!("{:?}", dns.key_name);
                let reason = "key_name and key_file go together".to_owned();
                return Err(("dns.key_name", value, reason));
            }
        };
        Ok(Self {
            zone: name("dns.zone", &dns.zone)?,
            reverse,
            ttl: dns.ttl,
            algorithm,
            key_name,
        })
    }

    /// The whole name of an instance; `None` if it is not in our zone.
    fn host(&self, name: &str) -> Option<Name> {
        let mut host = Name::from_ascii(name).ok()?;
        if host.num_labels() == 1 && !host.is_fqdn() {
            return host.append_domain(&self.zone).ok();
        }
        host.set_fqdn(true);
        (self.zone.zone_of(&host) && host != self.zone).then_some(host)
    }

    /// The updates that carry out a change, each with its zone. Addresses in none of our zones
    /// get no PTR record.
    ///
    /// # Errors
    /// The name is not one that can be in our zone.
    pub fn updates(&self, change: &DnsChange) -> Result<Vec<(Name, Message)>, String> {
        let host = self
            .host(&change.name)
            .ok_or_else(|| format!("{:?} is no name in {}", change.name, self.zone))?;
        let mut forward = update(&self.zone);
        for kind in [RecordType::A, RecordType::AAAA] {
            forward.add_update(delete_set(&host, kind));
        }
        for address in &change.addresses {
            let data = RData::from(*address);
            forward.add_update(Record::from_rdata(host.clone(), self.ttl, data));
        }
        let mut updates = vec![(self.zone.clone(), forward)];
        for zone in &self.reverse {
            let mut reverse = update(zone);
            let ours = |address: &&IpAddr| {
                let name = Name::from(**address);
                self.reverse.iter().find(|zone| zone.zone_of(&name)) == Some(zone)
            };
            let pointer = RData::PTR(PTR(host.clone()));
            for address in change.gone.iter().filter(ours) {
                // only if it still points to this instance
                let mut record = Record::from_rdata(Name::from(*address), 0, pointer.clone());
                record.dns_class = DNSClass::NONE;
                reverse.add_update(record);
            }
            for address in change.addresses.iter().filter(ours) {
                let name = Name::from(*address);
                reverse.add_update(delete_set(&name, RecordType::PTR));
                reverse.add_update(Record::from_rdata(name, self.ttl, pointer.clone()));
            }
            if !reverse.updates().is_empty() {
                updates.push((zone.clone(), reverse));
            }
        }
        Ok(updates)
    }
}

/// An update of a zone that does nothing yet (RFC 2136, section 2).
fn update(zone: &Name) -> Message {
    let mut query = Query::new();
    query
        .set_name(zone.clone())
        .set_query_class(DNSClass::IN)
        .set_query_type(RecordType::SOA);
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(query);
    message
}

/// Deletes all records of a type (RFC 2136, section 2.5.2).
fn delete_set(name: &Name, kind: RecordType) -> Record {
    let mut record = Record::update0(name.clone(), 0, kind);
    record.dns_class = DNSClass::ANY;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Zones {
        Zones::new(&Dns {
            zone: "vms.example.com".to_owned(),
            reverse_zones: vec![
                "192.in-addr.arpa".to_owned(),
                "2.0.192.in-addr.arpa".to_owned(),
                "8.b.d.0.1.0.0.2.ip6.arpa".to_owned(),
            ],
            ..Dns::default()
        })
        .unwrap()
    }

    fn change(name: &str, addresses: &[&str], gone: &[&str]) -> DnsChange {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        DnsChange {
            name: name.to_owned(),
            addresses: list(addresses),
            gone: list(gone),
        }
    }

    #[test]
    fn each_zone_gets_what_is_in_it() {
        let change = change(
            "snf-1",
            &["192.0.2.7", "2001:db8::7", "198.51.100.7"],
            &["192.0.3.9"],
        );
        let updates = zones().updates(&change).unwrap();
        let said: Vec<_> = updates
            .iter()
            .map(|(zone, message)| (zone.to_string(), message.updates().len()))
            .collect();
        let ip6 = "8.b.d.0.1.0.0.2.ip6.arpa.".to_owned();
        assert_eq!(
            said[..2],
            [("vms.example.com.".to_owned(), 5), (ip6, 2)],
            "two deletions and three addresses; one pointer"
        );
        assert_eq!(said[2], ("2.0.192.in-addr.arpa.".to_owned(), 2));
        assert_eq!(said[3], ("192.in-addr.arpa.".to_owned(), 1));
        for (_, message) in &updates {
            let bytes = message.to_vec().unwrap();
            assert_eq!(Message::from_vec(&bytes).unwrap().op_code, OpCode::Update);
        }
    }

    #[test]
    fn a_name_that_is_not_in_the_zone_is_refused() {
        let zones = zones();
        for name in [
            "",
            "a b",
            "web.example.com",
            "vms.example.com",
            "x.",
            &"x".repeat(64),
        ] {
            let change = change(name, &["192.0.2.7"], &[]);
            assert!(zones.updates(&change).is_err(), "{name:?}");
        }
        for name in ["snf-1", "web.vms.example.com", "WEB.vms.example.com."] {
            let change = change(name, &["192.0.2.7"], &[]);
            assert!(zones.updates(&change).is_ok(), "{name:?}");
        }
    }
}
