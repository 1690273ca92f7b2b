//! The OpenAPI document: what the API answers to, for people and for programs that try it out.
//!
//! It is made from the table below. A test asks each of its operations of a running server, and
//! one compares the committed document with the table.

use axum::Json;
use serde_json::{Map, Value, json};

/// The mount that the document describes; the Cyclades one has the same paths behind a prefix.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// The status of success.
    status: &'static str,
    /// The member of the answer that has what was asked for; empty: no body, or not an object.
    member: &'static str,
    body: Option<fn() -> Value>,
}

const fn reads(
    path: &'static str,
    summary: &'static str,
    status: &'static str,
    member: &'static str,
) -> Operation {
    Operation {
        method: "get",
        path,
        summary,
        status,
        member,
        body: None,
    }
}

const fn deletes(path: &'static str, summary: &'static str, status: &'static str) -> Operation {
    Operation {
        method: "delete",
        path,
        summary,
        status,
        member: "",
        body: None,
    }
}

const fn writes(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    status: &'static str,
    member: &'static str,
    body: fn() -> Value,
) -> Operation {
    Operation {
        method,
        path,
        summary,
        status,
        member,
        body: Some(body),
    }
}

const OPERATIONS: &[Operation] = &[
    reads("/", "The services", "200", ""),
    reads(
        "/identity",
        "Versions of the identity service",
        "300",
        "versions",
    ),
    reads("/identity/v2.0", "Identity version 2.0", "200", "version"),
    reads("/identity/v3", "Identity version 3", "200", "version"),
    writes(
        "post",
        "/identity/v2.0/tokens",
        "Log in",
        "200",
        "access",
        v2_login,
    ),
    reads(
        "/identity/v2.0/tenants",
        "The caller's projects",
        "200",
        "tenants",
    ),
    writes(
        "post",
        "/identity/v3/auth/tokens",
        "Log in",
        "201",
        "token",
        v3_login,
    ),
    reads("/identity/v3/auth/catalog", "The catalog", "200", "catalog"),
    reads(
        "/identity/v3/auth/projects",
        "The caller's projects",
        "200",
        "projects",
    ),
    reads(
        "/compute",
        "Versions of the compute service",
        "200",
        "versions",
    ),
    reads("/compute/v2.0", "Compute version 2.0", "200", "version"),
    reads(
        "/compute/v2.0/servers",
        "Servers, in short",
        "200",
        "servers",
    ),
    writes(
        "post",
        "/compute/v2.0/servers",
        "Create a server",
        "202",
        "server",
        server,
    ),
    reads("/compute/v2.0/servers/detail", "Servers", "200", "servers"),
    reads("/compute/v2.0/servers/{id}", "A server", "200", "server"),
    writes(
        "put",
        "/compute/v2.0/servers/{id}",
        "Rename a server",
        "200",
        "server",
        || named("server"),
    ),
    deletes("/compute/v2.0/servers/{id}", "Delete a server", "204"),
    writes(
        "post",
        "/compute/v2.0/servers/{id}/action",
        "Do something to a server",
        "202",
        "",
        action,
    ),
    reads(
        "/compute/v2.0/servers/{id}/ips",
        "Addresses",
        "200",
        "addresses",
    ),
    reads(
        "/compute/v2.0/servers/{id}/metadata",
        "Metadata",
        "200",
        "metadata",
    ),
    writes(
        "post",
        "/compute/v2.0/servers/{id}/metadata",
        "Add metadata",
        "200",
        "metadata",
        metadata,
    ),
    writes(
        "put",
        "/compute/v2.0/servers/{id}/metadata",
        "Replace metadata",
        "200",
        "metadata",
        metadata,
    ),
    reads(
        "/compute/v2.0/servers/{id}/metadata/{key}",
        "One item",
        "200",
        "meta",
    ),
    writes(
        "put",
        "/compute/v2.0/servers/{id}/metadata/{key}",
        "Set one item",
        "200",
        "meta",
        meta,
    ),
    deletes(
        "/compute/v2.0/servers/{id}/metadata/{key}",
        "Remove one item",
        "204",
    ),
    reads(
        "/compute/v2.0/servers/{id}/password",
        "The first password, once",
        "200",
        "password",
    ),
    deletes(
        "/compute/v2.0/servers/{id}/password",
        "Forget the first password untold",
        "204",
    ),
    reads("/compute/v2.0/servers/{id}/tags", "Tags", "200", "tags"),
    writes(
        "put",
        "/compute/v2.0/servers/{id}/tags",
        "Replace all tags",
        "200",
        "tags",
        tags,
    ),
    deletes("/compute/v2.0/servers/{id}/tags", "Remove all tags", "204"),
    reads(
        "/compute/v2.0/servers/{id}/tags/{tag}",
        "Whether it has a tag",
        "204",
        "",
    ),
    deletes(
        "/compute/v2.0/servers/{id}/tags/{tag}",
        "Remove a tag",
        "204",
    ),
    reads(
        "/compute/v2.0/servers/{id}/os-volume_attachments",
        "Disks",
        "200",
        "volumeAttachments",
    ),
    reads(
        "/compute/v2.0/servers/{id}/os-volume_attachments/{volume}",
        "A disk",
        "200",
        "volumeAttachment",
    ),
    reads(
        "/compute/v2.0/servers/{id}/diagnostics",
        "What happened to a server",
        "200",
        "",
    ),
    reads(
        "/compute/v2.0/servers/{id}/os-interface",
        "NICs",
        "200",
        "interfaceAttachments",
    ),
    writes(
        "post",
        "/compute/v2.0/servers/{id}/os-interface",
        "Add a NIC",
        "200",
        "interfaceAttachment",
        interface,
    ),
    reads(
        "/compute/v2.0/servers/{id}/os-interface/{port}",
        "A NIC",
        "200",
        "interfaceAttachment",
    ),
    deletes(
        "/compute/v2.0/servers/{id}/os-interface/{port}",
        "Remove a NIC",
        "202",
    ),
    reads(
        "/compute/v2.0/flavors",
        "Flavors, in short",
        "200",
        "flavors",
    ),
    reads("/compute/v2.0/flavors/detail", "Flavors", "200", "flavors"),
    reads("/compute/v2.0/flavors/{id}", "A flavor", "200", "flavor"),
    reads("/compute/v2.0/images", "Images, in short", "200", "images"),
    reads("/compute/v2.0/images/detail", "Images", "200", "images"),
    reads("/compute/v2.0/images/{id}", "An image", "200", "image"),
    reads("/compute/v2.0/os-keypairs", "Keypairs", "200", "keypairs"),
    writes(
        "post",
        "/compute/v2.0/os-keypairs",
        "Make or import a keypair",
        "201",
        "keypair",
        || named("keypair"),
    ),
    reads(
        "/compute/v2.0/os-keypairs/{name}",
        "A keypair",
        "200",
        "keypair",
    ),
    deletes(
        "/compute/v2.0/os-keypairs/{name}",
        "Forget a keypair",
        "202",
    ),
    reads(
        "/compute/v2.0/os-floating-ips",
        "Floating IPs",
        "200",
        "floating_ips",
    ),
    reads(
        "/compute/v2.0/os-floating-ip-pools",
        "Pools of floating IPs",
        "200",
        "floating_ip_pools",
    ),
    reads("/compute/v2.0/os-networks", "Networks", "200", "networks"),
    reads(
        "/compute/v2.0/os-availability-zone",
        "Zones",
        "200",
        "availabilityZoneInfo",
    ),
    reads(
        "/compute/v2.0/os-hypervisors",
        "Clusters, in short, for administrators",
        "200",
        "hypervisors",
    ),
    reads(
        "/compute/v2.0/os-hypervisors/detail",
        "Clusters, for administrators",
        "200",
        "hypervisors",
    ),
    reads(
        "/compute/v2.0/os-hypervisors/{id}",
        "A cluster, for administrators",
        "200",
        "hypervisor",
    ),
    reads(
        "/compute/v2.0/os-hosts",
        "Names of clusters, for administrators",
        "200",
        "hosts",
    ),
    reads(
        "/compute/v2.0/os-hosts/{name}",
        "A cluster's use, for administrators",
        "200",
        "host",
    ),
    reads(
        "/compute/v2.0/os-services",
        "Clusters as services, for administrators",
        "200",
        "services",
    ),
    reads("/compute/v2.0/limits", "Limits and use", "200", "limits"),
    reads(
        "/compute/v2.0/extensions",
        "Extensions",
        "200",
        "extensions",
    ),
    reads(
        "/network",
        "Versions of the network service",
        "200",
        "versions",
    ),
    reads("/network/v2.0", "Network version 2.0", "200", "resources"),
    reads("/network/v2.0/networks", "Networks", "200", "networks"),
    writes(
        "post",
        "/network/v2.0/networks",
        "Make a network",
        "201",
        "network",
        || named("network"),
    ),
    reads("/network/v2.0/networks/{id}", "A network", "200", "network"),
    writes(
        "put",
        "/network/v2.0/networks/{id}",
        "Rename a network",
        "200",
        "network",
        || named("network"),
    ),
    deletes("/network/v2.0/networks/{id}", "Delete a network", "204"),
    reads("/network/v2.0/subnets", "Subnets", "200", "subnets"),
    writes(
        "post",
        "/network/v2.0/subnets",
        "Make a subnet",
        "201",
        "subnet",
        subnet,
    ),
    reads("/network/v2.0/subnets/{id}", "A subnet", "200", "subnet"),
    writes(
        "put",
        "/network/v2.0/subnets/{id}",
        "Rename a subnet",
        "200",
        "subnet",
        || named("subnet"),
    ),
    deletes("/network/v2.0/subnets/{id}", "Delete a subnet", "204"),
    reads("/network/v2.0/ports", "Ports", "200", "ports"),
    writes(
        "post",
        "/network/v2.0/ports",
        "Plug a server into a network",
        "201",
        "port",
        port,
    ),
    reads("/network/v2.0/ports/{id}", "A port", "200", "port"),
    writes(
        "put",
        "/network/v2.0/ports/{id}",
        "Rename a port",
        "200",
        "port",
        || named("port"),
    ),
    deletes("/network/v2.0/ports/{id}", "Unplug a port", "204"),
    reads(
        "/network/v2.0/floatingips",
        "Floating IPs",
        "200",
        "floatingips",
    ),
    writes(
        "post",
        "/network/v2.0/floatingips",
        "Take a floating IP",
        "201",
        "floatingip",
        floating_ip,
    ),
    reads(
        "/network/v2.0/floatingips/{id}",
        "A floating IP",
        "200",
        "floatingip",
    ),
    writes(
        "put",
        "/network/v2.0/floatingips/{id}",
        "Attach or detach a floating IP",
        "200",
        "floatingip",
        attachment,
    ),
    deletes(
        "/network/v2.0/floatingips/{id}",
        "Give a floating IP back",
        "204",
    ),
    reads(
        "/volume",
        "Versions of the volume service",
        "300",
        "versions",
    ),
    reads(
        "/volume/v3/volumes",
        "Root disks, in short",
        "200",
        "volumes",
    ),
    writes(
        "post",
        "/volume/v3/volumes",
        "Not offered: 501",
        "202",
        "volume",
        volume,
    ),
    reads("/volume/v3/volumes/detail", "Root disks", "200", "volumes"),
    reads("/volume/v3/volumes/{id}", "A root disk", "200", "volume"),
    writes(
        "put",
        "/volume/v3/volumes/{id}",
        "Rename a root disk",
        "200",
        "volume",
        || named("volume"),
    ),
    deletes(
        "/volume/v3/volumes/{id}",
        "Refused: it goes with its server",
        "202",
    ),
    reads("/volume/v3/types", "Disk templates", "200", "volume_types"),
    reads(
        "/volume/v3/types/{id}",
        "A disk template",
        "200",
        "volume_type",
    ),
    reads("/volume/v3/snapshots/detail", "None", "200", "snapshots"),
    reads("/volume/v3/limits", "Use", "200", "limits"),
    reads("/image", "Versions of the image service", "300", "versions"),
    reads("/image/v2/images", "Images", "200", "images"),
    reads("/image/v2/images/{id}", "An image", "200", ""),
    writes(
        "post",
        "/image/v2/images",
        "Register an image",
        "201",
        "",
        image,
    ),
    writes(
        "patch",
        "/image/v2/images/{id}",
        "Change an image",
        "200",
        "",
        patch,
    ),
    deletes("/image/v2/images/{id}", "Forget an image", "204"),
    reads("/image/v1.0/images/detail", "Images", "200", ""),
];

fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn wrapped(name: &str, inner: &Value) -> Value {
    object(&[name], &json!({ name: inner }))
}

fn text() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

fn named(what: &str) -> Value {
    wrapped(what, &object(&["name"], &json!({"name": text()})))
}

fn v2_login() -> Value {
    let password = object(
        &["username", "password"],
        &json!({"username": text(), "password": text()}),
    );
    let auth = json!({"tenantName": text(), "passwordCredentials": password});
    wrapped("auth", &object(&["passwordCredentials"], &auth))
}

fn v3_login() -> Value {
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

fn server() -> Value {
    let nic = object(
        &["uuid"],
        &json!({"uuid": text(), "fixed_ip": {"type": "string"}}),
    );
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

fn action() -> Value {
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
    ]})
}

fn tags() -> Value {
    object(
        &["tags"],
        &json!({"tags": {"type": "array", "items": text(), "maxItems": 50}}),
    )
}

fn volume() -> Value {
    wrapped(
        "volume",
        &object(
            &["size"],
            &json!({"size": {"type": "integer", "minimum": 1}}),
        ),
    )
}

fn image() -> Value {
    object(
        &["name", "source"],
        &json!({
            "name": text(),
            "source": text(),
            "disk_format": text(),
            "visibility": {"enum": ["private", "public"]},
            "min_ram": {"type": "integer", "minimum": 0},
            "min_disk": {"type": "integer", "minimum": 0},
        }),
    )
}

fn patch() -> Value {
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

fn metadata() -> Value {
    wrapped("metadata", &values())
}

fn meta() -> Value {
    wrapped("meta", &values())
}

fn interface() -> Value {
    wrapped(
        "interfaceAttachment",
        &object(&["net_id"], &json!({"net_id": text()})),
    )
}

fn subnet() -> Value {
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
            }),
        ),
    )
}

fn port() -> Value {
    wrapped(
        "port",
        &object(
            &["network_id", "device_id"],
            &json!({"network_id": text(), "device_id": text()}),
        ),
    )
}

fn floating_ip() -> Value {
    wrapped(
        "floatingip",
        &json!({"type": "object", "properties": {"floating_network_id": text()}}),
    )
}

fn attachment() -> Value {
    let port = json!({"type": ["string", "null"]});
    wrapped(
        "floatingip",
        &object(&["port_id"], &json!({ "port_id": port })),
    )
}

/// Every fault: one member, named after its kind.
fn fault() -> Value {
    json!({
        "description": "A refusal, with its reason",
        "content": {"application/json": {"schema": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": object(
                &["code", "message"],
                &json!({
                    "code": {"type": "integer"},
                    "message": {"type": "string"},
                    "details": {"type": "string"},
                }),
            ),
        }}},
    })
}

/// What an operation answers when it does what was asked.
fn success(operation: &Operation) -> Value {
    let mut answer = json!({"description": "Done"});
    if !operation.member.is_empty()
        && let Some(map) = answer.as_object_mut()
    {
        let schema = wrapped(operation.member, &json!({}));
        map.insert(
            "content".to_owned(),
            json!({"application/json": {"schema": schema}}),
        );
    }
    answer
}

fn describe(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": text()}))
        .collect();
    let mut described = json!({
        "summary": operation.summary,
        "operationId": format!("{} {}", operation.method, operation.path),
        "parameters": parameters,
        "responses": {operation.status: success(operation), "default": fault()},
    });
    if let (Some(body), Some(map)) = (operation.body, described.as_object_mut()) {
        map.insert(
            "requestBody".to_owned(),
            json!({
                "required": true,
                "content": {"application/json": {"schema": body()}},
            }),
        );
    }
    described
}

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), describe(operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "snf-central",
            "description": "OpenStack's dialect; the Cyclades one has the same paths behind /cyclades.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "security": [{"token": []}],
        "components": {"securitySchemes": {
            "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
        }},
        "paths": paths,
    })
}

/// `GET /openapi.json`.
pub async fn show() -> Json<Value> {
    Json(document())
}
