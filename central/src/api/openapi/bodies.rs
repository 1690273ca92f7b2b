//! The schemas of what is sent.

use serde_json::{Value, json};

use crate::ganeti::image::DiskFormat;

/// An object; what else is in it is not looked at.
fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

/// `{"name": inner}`.
fn wrapped(name: &str, inner: &Value) -> Value {
    object(&[name], &json!({ name: inner }))
}

/// A name, an id, an address.
fn text() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

/// A new name for something.
pub fn named(what: &str) -> Value {
    wrapped(what, &object(&["name"], &json!({"name": text()})))
}

pub fn quota_set() -> Value {
    let limit = json!({"type": "integer", "minimum": -1});
    let set = json!({"instances": limit, "cores": limit, "ram": limit, "floating_ips": limit});
    wrapped("quota_set", &object(&[], &set))
}

pub fn v2_login() -> Value {
    let password = object(
        &["username", "password"],
        &json!({"username": text(), "password": text()}),
    );
    let by_password = json!({"tenantName": text(), "passwordCredentials": password});
    let token = object(&["id"], &json!({"id": text()}));
    let by_token = json!({"tenantName": text(), "token": token});
    json!({"oneOf": [
        wrapped("auth", &object(&["passwordCredentials"], &by_password)),
        wrapped("auth", &object(&["token"], &by_token)),
    ]})
}

pub fn v3_login() -> Value {
    let user = object(
        &["name", "password"],
        &json!({"name": text(), "password": text()}),
    );
    let password = object(&["user"], &json!({ "user": user }));
    let methods = json!({"type": "array", "items": {"const": "password"}, "minItems": 1});
    let identity = object(
        &["methods", "password"],
        &json!({"methods": methods, "password": password}),
    );
    wrapped(
        "auth",
        &object(&["identity"], &json!({ "identity": identity })),
    )
}

fn values() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 255}})
}

pub fn server() -> Value {
    let nic = json!({"oneOf": [
        object(&["uuid"], &json!({"uuid": text(), "fixed_ip": {"type": "string"}})),
        object(&["port"], &json!({"port": text()})),
    ]});
    let file = object(
        &["path", "contents"],
        &json!({
            "path": {"type": "string", "pattern": "^/.*[^/]$", "maxLength": 255},
            "contents": {"type": "string", "contentEncoding": "base64"},
            "owner": text(),
            "group": text(),
            "mode": {"type": "integer", "minimum": 0, "maximum": 4095},
        }),
    );
    wrapped(
        "server",
        &object(
            &["name", "imageRef", "flavorRef"],
            &json!({
                "name": text(),
                "imageRef": text(),
                "flavorRef": text(),
                "key_name": text(),
                "metadata": values(),
                "tags": {"type": "array", "items": text(), "maxItems": 50},
                "adminPass": {
                    "type": "string", "format": "password", "minLength": 8, "maxLength": 128,
                },
                "user_data": {
                    "type": "string", "contentEncoding": "base64", "maxLength": 65535,
                },
                "personality": {"type": "array", "items": file, "maxItems": 5},
                "networks": {"type": "array", "items": nic, "maxItems": 8},
            }),
        ),
    )
}

pub fn action() -> Value {
    let empty = json!({"type": ["object", "null"]});
    json!({"oneOf": [
        wrapped("os-start", &empty),
        wrapped("os-stop", &empty),
        wrapped("reboot", &object(&["type"], &json!({"type": {"enum": ["SOFT", "HARD"]}}))),
        wrapped("resize", &object(&["flavorRef"], &json!({"flavorRef": text()}))),
        wrapped(
            "firewallProfile",
            &object(
                &["profile", "nic"],
                &json!({
                    "profile": {"enum": ["ENABLED", "PROTECTED", "DISABLED"]},
                    "nic": text(),
                }),
            ),
        ),
        wrapped("console", &object(&["type"], &json!({"type": {"enum": ["vnc-ws", "vnc-wss"]}}))),
        wrapped("os-getVNCConsole", &object(&["type"], &json!({"type": {"const": "novnc"}}))),
        wrapped("addFixedIp", &object(&["networkId"], &json!({"networkId": text()}))),
        wrapped("removeFixedIp", &object(&["address"], &json!({"address": text()}))),
        wrapped("addFloatingIp", &object(&["address"], &json!({"address": text()}))),
        wrapped("removeFloatingIp", &object(&["address"], &json!({"address": text()}))),
        wrapped("rescue", &empty),
        wrapped("unrescue", &empty),
    ]})
}

pub fn tags() -> Value {
    object(
        &["tags"],
        &json!({"tags": {"type": "array", "items": text(), "maxItems": 50}}),
    )
}

pub fn keypair() -> Value {
    let keypair = json!({"name": text(), "public_key": {"type": "string", "maxLength": 4096}});
    wrapped("keypair", &object(&["name"], &keypair))
}

pub fn network() -> Value {
    let kinds = ["MAC_FILTERED", "IP_LESS_ROUTED", "PHYSICAL_VLAN", "CUSTOM"];
    wrapped(
        "network",
        &object(&[], &json!({"name": text(), "type": {"enum": kinds}})),
    )
}

pub fn pool() -> Value {
    object(&[], &json!({"pool": text()}))
}

pub fn volume_action() -> Value {
    wrapped(
        "os-extend",
        &object(
            &["new_size"],
            &json!({"new_size": {"type": "integer", "minimum": 1}}),
        ),
    )
}

pub fn volume() -> Value {
    wrapped(
        "volume",
        &object(
            &["size"],
            &json!({"size": {"type": "integer", "minimum": 1}}),
        ),
    )
}

pub fn image() -> Value {
    let formats = DiskFormat::ALL.map(DiskFormat::name);
    object(
        &["name", "source"],
        &json!({
            "name": text(),
            "source": text(),
            "disk_format": {"enum": formats},
            "visibility": {"enum": ["private", "public"]},
            "min_ram": {"type": "integer", "minimum": 0},
            "min_disk": {"type": "integer", "minimum": 0},
        }),
    )
}

pub fn patch() -> Value {
    let entry = object(
        &["op", "path", "value"],
        &json!({
            "op": {"enum": ["add", "replace"]},
            "path": text(),
            "value": text(),
        }),
    );
    json!({"type": "array", "items": entry, "maxItems": 64})
}

pub fn metadata() -> Value {
    wrapped("metadata", &values())
}

pub fn meta() -> Value {
    wrapped("meta", &values())
}

fn fixed_ips() -> Value {
    let address = object(&["ip_address"], &json!({"ip_address": text()}));
    json!({"type": "array", "items": address, "maxItems": 1})
}

pub fn interface() -> Value {
    wrapped(
        "interfaceAttachment",
        &json!({"oneOf": [
            object(&["net_id"], &json!({"net_id": text(), "fixed_ips": fixed_ips()})),
            object(&["port_id"], &json!({"port_id": text()})),
        ]}),
    )
}

pub fn subnet() -> Value {
    let route = object(
        &["destination", "nexthop"],
        &json!({"destination": text(), "nexthop": text()}),
    );
    let pool = object(&["start", "end"], &json!({"start": text(), "end": text()}));
    wrapped(
        "subnet",
        &object(
            &["network_id", "cidr"],
            &json!({
                "network_id": text(),
                "cidr": text(),
                "ip_version": {"enum": [4, 6]},
                "gateway_ip": {"type": ["string", "null"]},
                "enable_dhcp": {"type": "boolean"},
                "enable_slaac": {"type": "boolean"},
                "name": text(),
                "dns_nameservers": {"type": "array", "items": text(), "maxItems": 8},
                "host_routes": {"type": "array", "items": route, "maxItems": 32},
                "allocation_pools": {"type": "array", "items": pool, "maxItems": 32},
            }),
        ),
    )
}

pub fn port() -> Value {
    wrapped(
        "port",
        &object(
            &["network_id"],
            &json!({
                "network_id": text(),
                "device_id": text(),
                "name": text(),
                "fixed_ips": fixed_ips(),
            }),
        ),
    )
}

pub fn floating_ip() -> Value {
    wrapped(
        "floatingip",
        &object(
            &[],
            &json!({
                "floating_network_id": text(),
                "floating_ip_address": {"type": "string", "format": "ipv4"},
            }),
        ),
    )
}

pub fn attachment() -> Value {
    let port = json!({"type": ["string", "null"]});
    wrapped(
        "floatingip",
        &object(&["port_id"], &json!({ "port_id": port })),
    )
}
