//! The catalog: which services there are and where.

use serde_json::{Value, json};

use crate::api::caller::Mount;
use crate::api::dialect::Dialect;

/// The one region. libcloud looks for this name unless it is told another.
pub const REGION: &str = "RegionOne";

struct Service {
    kind: &'static str,
    /// libcloud looks services up by these names.
    name: &'static str,
    path: &'static str,
    version: &'static str,
}

const SERVICES: &[Service] = &[
    Service {
        kind: "compute",
        name: "nova",
        path: "/compute/v2.0",
        version: "v2.0",
    },
    Service {
        kind: "network",
        name: "neutron",
        path: "/network",
        version: "v2.0",
    },
    Service {
        kind: "image",
        name: "glance",
        path: "/image",
        version: "v2",
    },
    Service {
        kind: "volumev3",
        name: "cinderv3",
        path: "/volume/v3",
        version: "v3",
    },
    Service {
        kind: "volumev2",
        name: "cinderv2",
        path: "/volume/v2",
        version: "v2",
    },
    Service {
        kind: "identity",
        name: "keystone",
        path: "/identity",
        version: "v2.0",
    },
];

/// What only Cyclades clients look for, by type or name.
const CYCLADES: &[Service] = &[
    Service {
        kind: "compute",
        name: "cyclades_compute",
        path: "/compute/v2.0",
        version: "v2.0",
    },
    Service {
        kind: "network",
        name: "cyclades_network",
        path: "/network/v2.0",
        version: "v2.0",
    },
    Service {
        kind: "image",
        name: "cyclades_plankton",
        path: "/image/v1.0",
        version: "v1.0",
    },
    Service {
        kind: "volume",
        name: "cyclades_volume",
        path: "/volume/v2.0",
        version: "v2.0",
    },
    Service {
        kind: "identity",
        name: "astakos_identity",
        path: "/identity/v2.0",
        version: "v2.0",
    },
    Service {
        kind: "account",
        name: "astakos_account",
        path: "/account/v1.0",
        version: "v1.0",
    },
];

fn services(dialect: Dialect) -> &'static [Service] {
    match dialect {
        Dialect::OpenStack => SERVICES,
        Dialect::Cyclades => CYCLADES,
    }
}

/// In the form of Keystone v2.
pub fn v2(mount: &Mount) -> Value {
    services(mount.dialect)
        .iter()
        .map(|service| {
            let url = mount.url(service.path);
            json!({
                "type": service.kind,
                "name": service.name,
                "endpoints_links": [],
                "endpoints": [{
                    "region": REGION,
                    "versionId": service.version,
                    "publicURL": url,
                    "internalURL": url,
                    "adminURL": url,
                    "SNF:uiURL": mount.url("/"),
                    "id": service.kind,
                }],
            })
        })
        .collect()
}

/// In the form of Keystone v3.
pub fn v3(mount: &Mount) -> Value {
    services(mount.dialect)
        .iter()
        .map(|service| {
            let url = mount.url(service.path);
            let endpoint = |interface: &str| {
                json!({
                    "id": format!("{}-{interface}", service.kind),
                    "interface": interface,
                    "region": REGION,
                    "region_id": REGION,
                    "url": url,
                })
            };
            let endpoints = ["public", "internal", "admin"].map(endpoint);
            json!({
                "id": service.kind,
                "type": service.kind,
                "name": service.name,
                "endpoints": endpoints,
            })
        })
        .collect()
}
