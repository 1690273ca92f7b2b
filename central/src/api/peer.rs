//! The address that a request comes from: the other end of the connection or, behind a proxy that
//! the configuration trusts, what that proxy says in `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::context::Context;
use super::fault::Fault;
use crate::config::{Net, admits};

/// The client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl FromRequestParts<Context> for Peer {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, api: &Context) -> Result<Self, Fault> {
        let connected = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            // Requests that come by no connection are those of tests.
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
        let proxies = &api.config().trusted_proxies;
        Ok(Self(client(connected, &parts.headers, proxies)))
    }
}

/// The last address that no trusted proxy has: what is to the left of it, anybody may have made up.
fn client(connected: IpAddr, headers: &HeaderMap, proxies: &[Net]) -> IpAddr {
    let mut client = connected.to_canonical();
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while admits(proxies, client) {
        let Some(next) = hops.next().and_then(|hop| address(hop.trim())) else {
            break;
        };
        client = next;
    }
    client
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let address = inner.parse::<IpAddr>().or_else(|_| with_port()).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::net;

    fn seen(connected: &str, lines: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let proxies = [net("10.0.0.0/8").unwrap(), net("::1").unwrap()];
        client(connected.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_trusted_proxies_tell_addresses() {
        assert_eq!(seen("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("::1", &["1.1.1.1, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            seen("::1", &["1.1.1.1, 198.51.100.1, 10.3.4.5"]),
            "198.51.100.1"
        );
        assert_eq!(
            seen("::1", &["1.1.1.1", "198.51.100.1", "10.3.4.5"]),
            "198.51.100.1"
        );
        assert_eq!(seen("10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        // What cannot be read is not believed, nor what is before it.
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, nonsense"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, "]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }
}
