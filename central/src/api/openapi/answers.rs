//! The schemas of what is answered, by name.

use serde_json::{Map, Value, json};

fn text() -> Value {
    json!({"type": "string"})
}

fn number() -> Value {
    json!({"type": "integer"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// `schema`, or null.
fn maybe(schema: &Value) -> Value {
    json!({"oneOf": [schema, {"type": "null"}]})
}

fn list(schema: &Value) -> Value {
    json!({"type": "array", "items": schema})
}

fn map(schema: &Value) -> Value {
    json!({"type": "object", "additionalProperties": schema})
}

fn choice(values: &[&str]) -> Value {
    json!({"enum": values})
}

/// A schema of the document.
pub fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// An object with these members, of which the `optional` ones may be missing, and no others.
fn closed(optional: &[&str], properties: Value) -> Value {
    let required: Vec<&String> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .filter(|name| !optional.contains(&name.as_str()))
        .collect();
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

/// All of `one` and of `other`.
fn both(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

/// The schemas, by name.
pub fn schemas() -> Value {
    let mut all = Map::new();
    for group in [
        common(),
        identity(),
        servers(),
        compute(),
        network(),
        volume(),
        image(),
    ] {
        if let Value::Object(group) = group {
            all.extend(group);
        }
    }
    Value::Object(all)
}

fn common() -> Value {
    let link = closed(&[], json!({"rel": text(), "href": text()}));
    let version = closed(
        &["updated", "version", "min_version", "media-types"],
        json!({
            "id": text(),
            "status": text(),
            "updated": time(),
            "links": list(&named("Link")),
            "version": text(),
            "min_version": text(),
            "media-types": list(&map(&text())),
        }),
    );
    let versions = list(&named("Version"));
    json!({
        "Anything": {},
        "Text": text(),
        "Texts": map(&text()),
        "Link": link,
        "Named": closed(&[], json!({"id": text(), "name": text(), "links": list(&named("Link"))})),
        "Service": closed(&[], json!({"name": text(), "links": list(&named("Link"))})),
        "Version": version,
        // One, or all: Keystone has them in `values`.
        "Versions": closed(
            &["version", "versions"],
            json!({
                "version": named("Version"),
                "versions": {"oneOf": [versions, closed(&[], json!({"values": versions}))]},
            }),
        ),
        // The project's id, and a limit for each resource.
        "QuotaSet": map(&json!({"type": ["integer", "string"]})),
        "QuotaSetDetail": map(&json!({"oneOf": [text(), closed(
            &[],
            json!({
                "limit": number(), "SNF:granted": number(), "in_use": number(),
                "reserved": number(),
            }),
        )]})),
        "Limits": closed(&[], json!({"rate": list(&json!({})), "absolute": map(&number())})),
        "Fault": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties":
                closed(&[], json!({"code": number(), "message": text(), "details": text()})),
        },
    })
}

fn identity() -> Value {
    let domain = closed(&[], json!({"id": text(), "name": text()}));
    let role = domain.clone();
    let tenant = json!({"id": text(), "name": text(), "enabled": flag(), "description": text()});
    let endpoint = closed(
        &[],
        json!({
            "id": text(), "interface": text(), "region": text(), "region_id": text(), "url": text(),
        }),
    );
    json!({
        "Tenant": closed(&[], tenant.clone()),
        "Project": closed(&[], both(tenant, json!({"domain": domain, "domain_id": text()}))),
        "Role": closed(
            &[],
            json!({
                "id": text(), "name": text(), "domain_id": {"type": "null"},
                "description": text(), "links": json!({}),
            }),
        ),
        "User": closed(
            &[],
            json!({
                "id": text(), "name": text(), "enabled": flag(), "domain_id": text(),
                "password_expires_at": {"type": "null"}, "links": json!({}),
            }),
        ),
        "RoleAssignment": closed(
            &[],
            json!({
                "role": role,
                "user": closed(&[], json!({"id": text(), "name": text(), "domain": domain})),
                "scope": closed(
                    &[],
                    json!({"project": closed(
                        &[],
                        json!({"id": text(), "name": text(), "domain": domain}),
                    )}),
                ),
                "links": json!({}),
            }),
        ),
        "CatalogEntry": closed(
            &[],
            json!({"id": text(), "type": text(), "name": text(), "endpoints": list(&endpoint)}),
        ),
        // Who is nobody gets the catalog alone.
        "Access": closed(
            &["token", "user", "metadata"],
            json!({
                "token": closed(
                    &[],
                    json!({
                        "id": text(), "issued_at": time(), "expires": time(),
                        "tenant": named("Tenant"),
                    }),
                ),
                "user": closed(
                    &[],
                    json!({
                        "id": text(), "name": text(), "username": text(), "roles": list(&role),
                        "roles_links": list(&json!({})), "projects": list(&text()),
                    }),
                ),
                "serviceCatalog": list(&closed(
                    &[],
                    json!({
                        "type": text(), "name": text(), "endpoints": list(&map(&text())),
                        "endpoints_links": list(&json!({})),
                    }),
                )),
                "metadata": closed(&[], json!({"is_admin": number(), "roles": list(&text())})),
            }),
        ),
        "Token": closed(
            &[],
            json!({
                "methods": list(&text()),
                "user": closed(
                    &[],
                    json!({
                        "id": text(), "name": text(), "domain": domain,
                        "password_expires_at": {"type": "null"},
                    }),
                ),
                "project": named("Project"),
                "roles": list(&role),
                "is_domain": flag(),
                "catalog": list(&named("CatalogEntry")),
                "issued_at": time(),
                "expires_at": time(),
                "audit_ids": list(&text()),
            }),
        ),
    })
}

fn servers() -> Value {
    let reference = closed(&[], json!({"id": text(), "links": list(&named("Link"))}));
    let kind = choice(&["fixed", "floating"]);
    let attachment = closed(
        &[],
        json!({
            "id": number(), "network_id": text(), "mac_address": text(), "ipv4": text(),
            "ipv6": text(), "firewallProfile": choice(&["ENABLED", "PROTECTED", "DISABLED"]),
            "OS-EXT-IPS:type": kind,
        }),
    );
    let address = closed(
        &[],
        json!({
            "version": {"enum": [4, 6]}, "addr": text(), "OS-EXT-IPS:type": kind,
            "OS-EXT-IPS-MAC:mac_addr": maybe(&text()),
        }),
    );
    let seen = json!({
                "id": text(),
                "name": text(),
                "links": list(&named("Link")),
                "status": choice(&[
                    "BUILD", "ACTIVE", "SHUTOFF", "REBOOT", "RESIZE", "ERROR", "DELETED", "UNKNOWN",
                ]),
                "progress": {"type": "integer", "minimum": 0, "maximum": 100},
                "user_id": text(),
                "tenant_id": text(),
                "shared_to_project": flag(),
                "created": time(),
                "updated": time(),
                "hostId": text(),
                "flavor": reference,
                "image": reference,
                "addresses": named("Addresses"),
                "attachments": list(&attachment),
    });
    let told = json!({
                "metadata": named("Texts"),
                "volumes": list(&number()),
                "os-extended-volumes:volumes_attached": list(&closed(&[], json!({"id": text()}))),
                "security_groups": list(&closed(&[], json!({"name": text()}))),
                "key_name": maybe(&text()),
                "config_drive": text(),
                "accessIPv4": text(),
                "accessIPv6": text(),
                "suspended": flag(),
                "deleted": flag(),
                "tags": list(&text()),
                "adminPass": text(),
                "SNF:task_state": text(),
                "SNF:fqdn": text(),
                "SNF:port_forwarding": {"type": "object"},
                "SNF:rescue": flag(),
                "OS-EXT-STS:task_state": maybe(&text()),
                "OS-EXT-STS:vm_state":
                    choice(&["active", "stopped", "building", "error", "deleted"]),
                "OS-EXT-STS:power_state": number(),
                "OS-EXT-AZ:availability_zone": text(),
                "OS-DCF:diskConfig": text(),
    });
    json!({
        "Addresses": map(&list(&address)),
        "Tags": closed(
            &[],
            json!({"tags": list(&text()), "statuses": list(&choice(&["ACTIVE", "PENDADD"]))}),
        ),
        // A page to look at, or where a client of its own finds the console.
        "Console": closed(
            &["host", "port", "password"],
            json!({
                "type": text(), "url": text(), "host": text(), "port": number(),
                "password": text(),
            }),
        ),
        "Diagnostic": closed(
            &[],
            json!({
                "level": text(), "source": text(), "message": text(), "details": maybe(&text()),
                "created": time(), "source_date": maybe(&time()),
            }),
        ),
        "Server": closed(&["adminPass"], both(seen, told)),
    })
}

fn compute() -> Value {
    let host = json!({
        "id": number(), "hypervisor_hostname": text(), "state": choice(&["up", "down"]),
        "status": choice(&["enabled", "disabled"]),
    });
    let counts: Map<String, Value> = [
        "hypervisor_version",
        "vcpus",
        "vcpus_used",
        "memory_mb",
        "memory_mb_used",
        "free_ram_mb",
        "local_gb",
        "local_gb_used",
        "free_disk_gb",
        "disk_available_least",
        "running_vms",
        "current_workload",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), number()))
    .collect();
    let resource = closed(
        &[],
        json!({
            "project": text(), "host": text(), "cpu": number(), "memory_mb": number(),
            "disk_gb": number(),
        }),
    );
    let more = json!({
        "hypervisor_type": text(), "host_ip": text(), "cpu_info": text(),
        "service": closed(
            &[],
            json!({"id": number(), "host": text(), "disabled_reason": maybe(&text())}),
        ),
    });
    let keypair = json!({
        "name": text(), "fingerprint": text(), "public_key": text(), "type": text(),
    });
    json!({
        "Flavor": closed(
            &[],
            json!({
                "id": text(), "name": text(), "links": list(&named("Link")), "ram": number(),
                "disk": number(), "vcpus": number(), "swap": text(),
                "rxtx_factor": {"type": "number"}, "OS-FLV-EXT-DATA:ephemeral": number(),
                "OS-FLV-DISABLED:disabled": flag(), "os-flavor-access:is_public": flag(),
                "SNF:disk_template": text(), "SNF:volume_type": number(),
                "SNF:allow_create": flag(), "SNF:flavor-access": list(&text()),
            }),
        ),
        "Image": closed(
            &[],
            json!({
                "id": text(), "name": text(), "links": list(&named("Link")), "status": text(),
                "progress": number(), "created": time(), "updated": time(),
                "user_id": maybe(&text()), "tenant_id": maybe(&text()), "public": flag(),
                "minDisk": number(), "minRam": number(), "OS-EXT-IMG-SIZE:size": number(),
                "metadata": named("Texts"), "is_snapshot": flag(),
            }),
        ),
        "KeypairEntry": closed(&[], json!({"keypair": named("Keypair")})),
        "Keypair": closed(
            &[
                "id", "user_id", "private_key", "deleted", "created_at", "updated_at", "deleted_at",
            ],
            both(
                keypair,
                json!({
                    "id": number(), "user_id": text(), "private_key": text(), "deleted": flag(),
                    "created_at": time(), "updated_at": {"type": "null"},
                    "deleted_at": {"type": "null"},
                }),
            ),
        ),
        "ComputeFloatingIp": closed(
            &[],
            json!({
                "id": text(), "ip": text(), "instance_id": maybe(&text()),
                "fixed_ip": maybe(&text()), "pool": text(),
            }),
        ),
        "Pool": closed(&[], json!({"name": text()})),
        "ComputeNetwork": closed(
            &[],
            json!({
                "id": text(), "label": text(), "cidr": maybe(&text()), "cidr_v6": maybe(&text()),
                "project_id": maybe(&text()),
            }),
        ),
        "SecurityGroup": closed(
            &[],
            json!({
                "id": text(), "name": text(), "description": text(), "tenant_id": text(),
                "rules": list(&json!({})),
            }),
        ),
        "VolumeAttachment": closed(
            &[],
            json!({"id": text(), "volumeId": text(), "serverId": text(), "device": text()}),
        ),
        "Interface": closed(
            &[],
            json!({
                "port_id": text(), "net_id": text(), "mac_addr": text(), "port_state": text(),
                "fixed_ips": list(&named("FixedIp")),
            }),
        ),
        "Zone": closed(
            &[],
            json!({
                "zoneName": text(), "zoneState": closed(&[], json!({"available": flag()})),
                "hosts": {"type": "null"},
            }),
        ),
        "Host": closed(&[], host.clone()),
        "Hypervisor": closed(&[], both(both(host, more), Value::Object(counts))),
        "HostName": closed(&[], json!({"host_name": text(), "service": text(), "zone": text()})),
        "HostUse": closed(&[], json!({"resource": resource})),
        "HostService": closed(
            &[],
            json!({
                "id": number(), "binary": text(), "host": text(), "zone": text(), "status": text(),
                "state": text(), "updated_at": maybe(&time()), "disabled_reason": maybe(&text()),
            }),
        ),
        "Extension": closed(
            &[],
            json!({
                "alias": text(), "name": text(), "description": text(), "namespace": text(),
                "updated": time(), "links": list(&named("Link")),
            }),
        ),
    })
}

fn network() -> Value {
    json!({
        "Resource": closed(
            &[],
            json!({"name": text(), "collection": text(), "links": list(&named("Link"))}),
        ),
        "FixedIp": closed(
            &[],
            json!({"ip_address": text(), "subnet": text(), "subnet_id": text()}),
        ),
        "Network": closed(
            &[],
            json!({
                "id": text(), "name": text(), "links": list(&named("Link")),
                "user_id": maybe(&text()), "tenant_id": maybe(&text()),
                "project_id": maybe(&text()), "shared_to_project": flag(), "type": text(),
                "status": choice(&["ACTIVE", "DELETED"]), "public": flag(), "shared": flag(),
                "router:external": flag(), "admin_state_up": flag(), "subnets": list(&text()),
                "SNF:floating_ip_pool": flag(), "port_security_enabled": flag(),
                "deleted": flag(), "created": time(), "updated": time(), "created_at": time(),
                "updated_at": time(),
            }),
        ),
        "Subnet": closed(
            &["enable_slaac", "ipv6_address_mode", "ipv6_ra_mode"],
            json!({
                "id": text(), "name": text(), "links": list(&named("Link")), "network_id": text(),
                "tenant_id": maybe(&text()), "project_id": maybe(&text()),
                "user_id": maybe(&text()), "public": flag(), "gateway_ip": maybe(&text()),
                "ip_version": {"enum": [4, 6]}, "cidr": text(), "enable_dhcp": flag(),
                "dns_nameservers": list(&text()),
                "host_routes":
                    list(&closed(&[], json!({"destination": text(), "nexthop": text()}))),
                "allocation_pools": list(&closed(&[], json!({"start": text(), "end": text()}))),
                "deleted": flag(), "enable_slaac": flag(), "ipv6_address_mode": maybe(&text()),
                "ipv6_ra_mode": maybe(&text()),
            }),
        ),
        "Port": closed(
            &[],
            json!({
                "id": text(), "name": text(), "links": list(&named("Link")), "user_id": text(),
                "tenant_id": text(), "project_id": text(), "network_id": text(),
                "device_id": text(), "device_owner": maybe(&text()), "admin_state_up": flag(),
                "mac_address": text(), "status": text(), "fixed_ips": list(&named("FixedIp")),
                "security_groups": list(&text()), "created": time(), "updated": time(),
            }),
        ),
        "AddressUse": closed(
            &[],
            json!({
                "id": text(), "address": text(), "network_id": text(), "server_id": text(),
                "port_id": text(), "mac_address": maybe(&text()), "user_id": text(),
                "tenant_id": text(), "bound": time(), "released": maybe(&time()),
            }),
        ),
        "FloatingIp": closed(
            &[],
            json!({
                "id": text(), "floating_ip_address": text(), "floating_network_id": text(),
                "fixed_ip_address": maybe(&text()), "instance_id": maybe(&text()),
                "port_id": maybe(&text()), "router_id": {"type": "null"},
                "status": choice(&["ACTIVE", "DOWN"]), "user_id": text(), "tenant_id": text(),
                "project_id": text(), "shared_to_project": flag(), "description": text(),
                "tags": list(&text()), "deleted": flag(),
            }),
        ),
    })
}

fn volume() -> Value {
    let brief = json!({
        "id": text(), "name": text(), "display_name": text(), "links": list(&named("Link")),
    });
    let attachment = closed(
        &[],
        json!({
            "id": text(), "attachment_id": text(), "volume_id": text(), "server_id": text(),
            "device_index": number(), "device": text(), "host_name": maybe(&text()),
            "attached_at": time(),
        }),
    );
    let more = json!({
        "description": text(), "display_description": text(), "status": text(), "size": number(),
        "created_at": time(), "updated_at": time(), "metadata": named("Texts"),
        "snapshot_id": maybe(&text()), "source_volid": maybe(&text()), "image_id": maybe(&text()),
        "attachments": list(&attachment), "volume_type": maybe(&text()),
        "availability_zone": text(), "bootable": choice(&["true", "false"]), "encrypted": flag(),
        "multiattach": flag(), "deleted": flag(), "delete_on_termination": flag(),
        "user_id": text(), "tenant_id": text(), "os-vol-tenant-attr:tenant_id": text(),
        "shared_to_project": flag(),
    });
    json!({
        "NamedVolume": closed(&[], brief.clone()),
        "Volume": closed(&[], both(brief, more)),
        "VolumeType": closed(
            &[],
            json!({
                "id": text(), "name": text(), "SNF:disk_template": text(),
                "description": maybe(&text()), "is_public": flag(), "extra_specs": map(&text()),
                "deleted": flag(),
            }),
        ),
    })
}

fn image() -> Value {
    let brief = json!({
        "id": text(), "name": text(), "status": text(), "size": number(), "disk_format": text(),
        "container_format": text(),
    });
    let more = json!({
        "checksum": maybe(&text()), "location": text(), "owner": maybe(&text()),
        "is_public": flag(), "created_at": time(), "updated_at": time(), "deleted_at": text(),
        "properties": map(&text()),
    });
    let mut glance = closed(
        &[],
        both(
            brief.clone(),
            json!({
                "visibility": choice(&["public", "private"]), "owner": maybe(&text()),
                "checksum": maybe(&text()), "min_disk": number(), "min_ram": number(),
                "protected": flag(), "tags": list(&text()), "created_at": time(),
                "updated_at": time(), "self": text(), "file": text(), "schema": text(),
            }),
        ),
    );
    // Its properties stand beside what every image has.
    if let Some(schema) = glance.as_object_mut() {
        schema.insert("additionalProperties".to_owned(), text());
    }
    json!({
        "BriefImage": closed(&[], brief.clone()),
        "DetailedImage": closed(&[], both(brief, more)),
        "GlanceImage": glance,
    })
}
