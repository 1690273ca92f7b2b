//! The operations: which paths there are, what each takes and gives.

use serde_json::Value;

use super::bodies;
use crate::api::authorization::Role;

/// What the body of a success is.
#[derive(Clone, Copy)]
pub enum Answer {
    /// There is none.
    Nothing,
    /// Any of a schema, with nothing around it.
    Bare(&'static str),
    /// A list of them, with nothing around it.
    BareList(&'static str),
    /// One, as the only member of an object.
    One(&'static str, &'static str),
    /// A list of them, as a member of an object.
    Many(&'static str, &'static str),
}

use Answer::{Bare, BareList, Many, Nothing, One};

/// An operation of the `OpenStack` mount; the Cyclades one has the same paths behind a prefix.
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub summary: &'static str,
    /// The statuses of success; the answer comes with the first of them.
    pub statuses: &'static [u16],
    pub answer: Answer,
    pub body: Option<fn() -> Value>,
    /// It may be missing.
    pub body_optional: bool,
    /// The parameters in the query string.
    pub query: &'static [&'static str],
    /// The headers that are read, and whether they must be there.
    pub headers: &'static [(&'static str, bool)],
    /// Nobody needs a token for it.
    pub open: bool,
    /// The least role that may use it, where a token is needed.
    pub role: Role,
    /// What it may be refused with, beyond what its method may be.
    pub faults: &'static [u16],
}

const fn operation(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    statuses: &'static [u16],
    answer: Answer,
) -> Operation {
    Operation {
        method,
        path,
        summary,
        statuses,
        answer,
        body: None,
        body_optional: false,
        query: &[],
        headers: &[],
        open: false,
        role: Role::Member,
        faults: &[],
    }
}

const fn get(path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    operation("get", path, summary, &[200], answer)
}

/// A document of versions, for everybody.
const fn version(path: &'static str, summary: &'static str, status: &'static [u16]) -> Operation {
    let mut version = operation("get", path, summary, status, Bare("Versions"));
    version.open = true;
    version
}

const fn delete(path: &'static str, summary: &'static str) -> Operation {
    operation("delete", path, summary, &[204], Nothing)
}

const fn write(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: fn() -> Value,
    answer: Answer,
) -> Operation {
    let mut operation = operation(method, path, summary, &[200], answer);
    operation.body = Some(body);
    operation
}

const fn post(
    path: &'static str,
    summary: &'static str,
    body: fn() -> Value,
    answer: Answer,
) -> Operation {
    write("post", path, summary, body, answer)
}

const fn put(
    path: &'static str,
    summary: &'static str,
    body: fn() -> Value,
    answer: Answer,
) -> Operation {
    write("put", path, summary, body, answer)
}

impl Operation {
    const fn status(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    const fn query(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }

    const fn headers(mut self, headers: &'static [(&'static str, bool)]) -> Self {
        self.headers = headers;
        self
    }

    const fn body_optional(mut self) -> Self {
        self.body_optional = true;
        self
    }

    const fn open(mut self) -> Self {
        self.open = true;
        self
    }

    const fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    const fn faults(mut self, faults: &'static [u16]) -> Self {
        self.faults = faults;
        self
    }
}

const SERVERS: &[&str] = &[
    "limit",
    "marker",
    "changes-since",
    "name",
    "status",
    "flavor",
    "image",
];
const FLAVORS: &[&str] = &["limit", "marker", "is_public", "minRam", "minDisk"];
const IMAGES: &[&str] = &["marker", "changes-since", "limit", "name", "status"];
const SUBJECT: &[(&str, bool)] = &[("X-Subject-Token", true)];
const NOT_OFFERED: &[u16] = &[501];

/// What a client of Glance v1 may say of an image.
const IMAGE_HEADERS: &[(&str, bool)] = &[
    ("x-image-meta-name", false),
    ("x-image-meta-location", false),
    ("x-image-meta-disk-format", false),
    ("x-image-meta-is-public", false),
    ("x-image-meta-size", false),
];

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    get("/", "The services", Many("services", "Service")).open(),
    // identity
    version("/identity", "Versions of the identity service", &[300]),
    version("/identity/v2.0", "Identity version 2.0", &[200]),
    version("/identity/v3", "Identity version 3", &[200]),
    post(
        "/identity/v2.0/tokens",
        "Log in",
        bodies::v2_login,
        One("access", "Access"),
    )
    .body_optional()
    .open()
    .faults(&[401, 429]),
    get(
        "/identity/v2.0/tokens/{token}",
        "Whose token it is",
        One("access", "Access"),
    ),
    delete("/identity/v2.0/tokens/{token}", "End a token"),
    get(
        "/identity/v2.0/tenants",
        "The caller's projects",
        Many("tenants", "Tenant"),
    ),
    get(
        "/identity/v3/auth/tokens",
        "Whose token it is",
        One("token", "Token"),
    )
    .headers(SUBJECT),
    post(
        "/identity/v3/auth/tokens",
        "Log in",
        bodies::v3_login,
        One("token", "Token"),
    )
    .status(&[201])
    .open()
    .faults(&[401, 429]),
    delete("/identity/v3/auth/tokens", "End a token").headers(SUBJECT),
    get(
        "/identity/v3/auth/catalog",
        "The catalog",
        Many("catalog", "CatalogEntry"),
    ),
    get(
        "/identity/v3/auth/projects",
        "The caller's projects",
        Many("projects", "Project"),
    ),
    get(
        "/identity/v3/projects",
        "The caller's projects",
        Many("projects", "Project"),
    )
    .query(&["name"]),
    get(
        "/identity/v3/projects/{project}",
        "A project",
        One("project", "Project"),
    ),
    get(
        "/identity/v3/roles",
        "The roles that a user can have in a project",
        Many("roles", "Role"),
    )
    .query(&["name"]),
    get("/identity/v3/roles/{role}", "A role", One("role", "Role")),
    get(
        "/identity/v3/users",
        "The users of the project, or the one of a name",
        Many("users", "User"),
    )
    .query(&["limit", "marker", "name"])
    .role(Role::ProjectAdministrator),
    get("/identity/v3/users/{user}", "A user", One("user", "User")).faults(&[403]),
    get(
        "/identity/v3/role_assignments",
        "The members of a project, with their roles",
        Many("role_assignments", "RoleAssignment"),
    )
    .query(&["limit", "marker", "scope.project.id", "user.id", "role.id"])
    .faults(&[404])
    .role(Role::ProjectAdministrator),
    get(
        "/identity/v3/projects/{project}/users/{user}/roles",
        "The role of a user in a project",
        Many("roles", "Role"),
    )
    .role(Role::ProjectAdministrator),
    operation(
        "get",
        "/identity/v3/projects/{project}/users/{user}/roles/{role}",
        "Has a user a role in a project: 404 if not",
        &[204],
        Nothing,
    )
    .role(Role::ProjectAdministrator),
    operation(
        "put",
        "/identity/v3/projects/{project}/users/{user}/roles/{role}",
        "Give a user a role in a project",
        &[204],
        Nothing,
    )
    .role(Role::ProjectAdministrator),
    delete(
        "/identity/v3/projects/{project}/users/{user}/roles/{role}",
        "Take a role in a project from a user",
    )
    .role(Role::ProjectAdministrator),
    get(
        "/identity/v3/users/{user}/projects",
        "The caller's projects",
        Many("projects", "Project"),
    ),
    // compute
    version("/compute", "Versions of the compute service", &[200]),
    version("/compute/v2.0", "Compute version 2.0", &[200]),
    get(
        "/compute/v2.0/servers",
        "Servers, in short",
        Many("servers", "Named"),
    )
    .query(SERVERS),
    post(
        "/compute/v2.0/servers",
        "Create a server",
        bodies::server,
        One("server", "Server"),
    )
    .status(&[202])
    .faults(NOT_OFFERED),
    get(
        "/compute/v2.0/servers/detail",
        "Servers",
        Many("servers", "Server"),
    )
    .query(SERVERS),
    get(
        "/compute/v2.0/servers/{id}",
        "A server",
        One("server", "Server"),
    ),
    put(
        "/compute/v2.0/servers/{id}",
        "Rename a server",
        || bodies::named("server"),
        One("server", "Server"),
    ),
    delete("/compute/v2.0/servers/{id}", "Delete a server"),
    post(
        "/compute/v2.0/servers/{id}/action",
        "Do something to a server",
        bodies::action,
        One("console", "Console"),
    )
    .status(&[200, 202])
    .faults(NOT_OFFERED),
    get(
        "/compute/v2.0/servers/{id}/ips",
        "Addresses",
        One("addresses", "Addresses"),
    ),
    get(
        "/compute/v2.0/servers/{id}/ips/{network}",
        "Addresses in a network",
        Bare("Addresses"),
    ),
    get(
        "/compute/v2.0/servers/{id}/metadata",
        "Metadata",
        One("metadata", "Texts"),
    ),
    post(
        "/compute/v2.0/servers/{id}/metadata",
        "Add metadata",
        bodies::metadata,
        One("metadata", "Texts"),
    ),
    put(
        "/compute/v2.0/servers/{id}/metadata",
        "Replace metadata",
        bodies::metadata,
        One("metadata", "Texts"),
    ),
    get(
        "/compute/v2.0/servers/{id}/metadata/{key}",
        "One item",
        One("meta", "Texts"),
    ),
    put(
        "/compute/v2.0/servers/{id}/metadata/{key}",
        "Set one item",
        bodies::meta,
        One("meta", "Texts"),
    ),
    delete(
        "/compute/v2.0/servers/{id}/metadata/{key}",
        "Remove one item",
    ),
    get(
        "/compute/v2.0/servers/{id}/password",
        "The first password, once",
        One("password", "Text"),
    ),
    delete(
        "/compute/v2.0/servers/{id}/password",
        "Forget the first password untold",
    ),
    get("/compute/v2.0/servers/{id}/tags", "Tags", Bare("Tags")),
    put(
        "/compute/v2.0/servers/{id}/tags",
        "Replace all tags",
        bodies::tags,
        Bare("Tags"),
    ),
    delete("/compute/v2.0/servers/{id}/tags", "Remove all tags"),
    get(
        "/compute/v2.0/servers/{id}/tags/{tag}",
        "Whether it has a tag",
        Nothing,
    )
    .status(&[204]),
    operation(
        "put",
        "/compute/v2.0/servers/{id}/tags/{tag}",
        "Add a tag",
        &[201, 204],
        Nothing,
    ),
    delete("/compute/v2.0/servers/{id}/tags/{tag}", "Remove a tag"),
    get(
        "/compute/v2.0/servers/{id}/os-volume_attachments",
        "Disks",
        Many("volumeAttachments", "VolumeAttachment"),
    ),
    get(
        "/compute/v2.0/servers/{id}/os-volume_attachments/{volume}",
        "A disk",
        One("volumeAttachment", "VolumeAttachment"),
    ),
    get(
        "/compute/v2.0/servers/{id}/diagnostics",
        "What happened to a server",
        BareList("Diagnostic"),
    ),
    get(
        "/compute/v2.0/servers/{id}/os-interface",
        "NICs",
        Many("interfaceAttachments", "Interface"),
    ),
    post(
        "/compute/v2.0/servers/{id}/os-interface",
        "Add a NIC",
        bodies::interface,
        One("interfaceAttachment", "Interface"),
    ),
    get(
        "/compute/v2.0/servers/{id}/os-interface/{port}",
        "A NIC",
        One("interfaceAttachment", "Interface"),
    ),
    delete(
        "/compute/v2.0/servers/{id}/os-interface/{port}",
        "Remove a NIC",
    )
    .status(&[202]),
    get(
        "/compute/v2.0/servers/{id}/os-security-groups",
        "The one there is",
        Many("security_groups", "SecurityGroup"),
    ),
    get(
        "/compute/v2.0/os-security-groups",
        "The one there is",
        Many("security_groups", "SecurityGroup"),
    ),
    get(
        "/compute/v2.0/flavors",
        "Flavors, in short",
        Many("flavors", "Named"),
    )
    .query(FLAVORS),
    get(
        "/compute/v2.0/flavors/detail",
        "Flavors",
        Many("flavors", "Flavor"),
    )
    .query(FLAVORS),
    get(
        "/compute/v2.0/flavors/{id}",
        "A flavor",
        One("flavor", "Flavor"),
    ),
    get(
        "/compute/v2.0/flavors/{id}/os-extra_specs",
        "Its disk template",
        One("extra_specs", "Texts"),
    ),
    get(
        "/compute/v2.0/images",
        "Images, in short",
        Many("images", "Named"),
    )
    .query(IMAGES),
    get(
        "/compute/v2.0/images/detail",
        "Images",
        Many("images", "Image"),
    )
    .query(IMAGES),
    get(
        "/compute/v2.0/images/{id}",
        "An image",
        One("image", "Image"),
    ),
    get(
        "/compute/v2.0/os-keypairs",
        "Keypairs",
        Many("keypairs", "KeypairEntry"),
    ),
    post(
        "/compute/v2.0/os-keypairs",
        "Make or import a keypair",
        bodies::keypair,
        One("keypair", "Keypair"),
    ),
    get(
        "/compute/v2.0/os-keypairs/{name}",
        "A keypair",
        One("keypair", "Keypair"),
    ),
    delete("/compute/v2.0/os-keypairs/{name}", "Forget a keypair").status(&[202]),
    get(
        "/compute/v2.0/os-floating-ips",
        "Floating IPs",
        Many("floating_ips", "ComputeFloatingIp"),
    ),
    post(
        "/compute/v2.0/os-floating-ips",
        "Take a floating IP",
        bodies::pool,
        One("floating_ip", "ComputeFloatingIp"),
    )
    .body_optional(),
    get(
        "/compute/v2.0/os-floating-ips/{id}",
        "A floating IP",
        One("floating_ip", "ComputeFloatingIp"),
    ),
    delete(
        "/compute/v2.0/os-floating-ips/{id}",
        "Give a floating IP back",
    )
    .status(&[202]),
    get(
        "/compute/v2.0/os-floating-ip-pools",
        "Pools of floating IPs",
        Many("floating_ip_pools", "Pool"),
    ),
    get(
        "/compute/v2.0/os-networks",
        "Networks",
        Many("networks", "ComputeNetwork"),
    ),
    get(
        "/compute/v2.0/os-tenant-networks",
        "Networks",
        Many("networks", "ComputeNetwork"),
    ),
    get(
        "/compute/v2.0/os-networks/{id}",
        "A network",
        One("network", "ComputeNetwork"),
    ),
    get(
        "/compute/v2.0/os-availability-zone",
        "Zones",
        Many("availabilityZoneInfo", "Zone"),
    ),
    get(
        "/compute/v2.0/os-availability-zone/detail",
        "Zones",
        Many("availabilityZoneInfo", "Zone"),
    ),
    get(
        "/compute/v2.0/os-hypervisors",
        "Clusters, in short, for administrators",
        Many("hypervisors", "Host"),
    )
    .role(Role::CloudAdministrator),
    get(
        "/compute/v2.0/os-hypervisors/detail",
        "Clusters, for administrators",
        Many("hypervisors", "Hypervisor"),
    )
    .role(Role::CloudAdministrator),
    get(
        "/compute/v2.0/os-hypervisors/{id}",
        "A cluster, for administrators",
        One("hypervisor", "Hypervisor"),
    )
    .role(Role::CloudAdministrator),
    get(
        "/compute/v2.0/os-hosts",
        "Names of clusters, for administrators",
        Many("hosts", "HostName"),
    )
    .role(Role::CloudAdministrator),
    get(
        "/compute/v2.0/os-hosts/{name}",
        "A cluster's use, for administrators",
        Many("host", "HostUse"),
    )
    .role(Role::CloudAdministrator),
    get(
        "/compute/v2.0/os-services",
        "Clusters as services, for administrators",
        Many("services", "HostService"),
    )
    .role(Role::CloudAdministrator),
    get(
        "/compute/v2.0/os-quota-sets/{project}",
        "The limits of a project",
        One("quota_set", "QuotaSet"),
    ),
    put(
        "/compute/v2.0/os-quota-sets/{project}",
        "Set limits of a project, within those that it was granted; -1: none",
        bodies::quota_set,
        One("quota_set", "QuotaSet"),
    ),
    get(
        "/compute/v2.0/os-quota-sets/{project}/detail",
        "The limits of a project and its use",
        One("quota_set", "QuotaSetDetail"),
    ),
    get(
        "/compute/v2.0/limits",
        "Limits and use",
        One("limits", "Limits"),
    ),
    get(
        "/compute/v2.0/extensions",
        "Extensions",
        Many("extensions", "Extension"),
    ),
    get(
        "/compute/v2.0/extensions/{alias}",
        "An extension",
        One("extension", "Extension"),
    ),
    // network
    version("/network", "Versions of the network service", &[200]),
    get(
        "/network/v2.0",
        "What there is",
        Many("resources", "Resource"),
    )
    .open(),
    get(
        "/network/v2.0/extensions",
        "None",
        Many("extensions", "Anything"),
    ),
    get(
        "/network/v2.0/extensions/{alias}",
        "None",
        One("extension", "Anything"),
    ),
    get(
        "/network/v2.0/networks",
        "Networks",
        Many("networks", "Network"),
    )
    .query(&[
        "limit",
        "marker",
        "changes-since",
        "name",
        "id",
        "router:external",
        "shared",
        "public",
        "SNF:floating_ip_pool",
        "tenant_id",
        "project_id",
    ]),
    get(
        "/network/v2.0/networks/detail",
        "Networks",
        Many("networks", "Network"),
    )
    .query(&["changes-since"]),
    post(
        "/network/v2.0/networks",
        "Make a network",
        bodies::network,
        One("network", "Network"),
    )
    .status(&[201]),
    get(
        "/network/v2.0/networks/{id}",
        "A network",
        One("network", "Network"),
    ),
    put(
        "/network/v2.0/networks/{id}",
        "Rename a network",
        || bodies::named("network"),
        One("network", "Network"),
    ),
    delete("/network/v2.0/networks/{id}", "Delete a network"),
    get(
        "/network/v2.0/subnets",
        "Subnets",
        Many("subnets", "Subnet"),
    )
    .query(&[
        "limit",
        "marker",
        "changes-since",
        "network_id",
        "name",
        "ip_version",
        "cidr",
    ]),
    post(
        "/network/v2.0/subnets",
        "Make a subnet",
        bodies::subnet,
        One("subnet", "Subnet"),
    )
    .status(&[201]),
    get(
        "/network/v2.0/subnets/{id}",
        "A subnet",
        One("subnet", "Subnet"),
    ),
    put(
        "/network/v2.0/subnets/{id}",
        "Rename a subnet",
        || bodies::named("subnet"),
        One("subnet", "Subnet"),
    ),
    delete("/network/v2.0/subnets/{id}", "Delete a subnet"),
    get(
        "/network/v2.0/address-history",
        "Which server had an address, or which addresses a server had: for administrators",
        Many("address_history", "AddressUse"),
    )
    .query(&["limit", "marker", "address", "server_id", "at"])
    .role(Role::CloudAdministrator),
    get("/network/v2.0/ports", "Ports", Many("ports", "Port")).query(&[
        "limit",
        "marker",
        "name",
        "device_id",
        "network_id",
        "mac_address",
        "status",
    ]),
    post(
        "/network/v2.0/ports",
        "Plug a server into a network",
        bodies::port,
        One("port", "Port"),
    )
    .status(&[201]),
    get("/network/v2.0/ports/{id}", "A port", One("port", "Port")),
    put(
        "/network/v2.0/ports/{id}",
        "Rename a port",
        || bodies::named("port"),
        One("port", "Port"),
    ),
    delete("/network/v2.0/ports/{id}", "Unplug a port"),
    get(
        "/network/v2.0/floatingips",
        "Floating IPs",
        Many("floatingips", "FloatingIp"),
    )
    .query(&[
        "limit",
        "marker",
        "changes-since",
        "floating_ip_address",
        "floating_network_id",
        "port_id",
        "status",
    ]),
    post(
        "/network/v2.0/floatingips",
        "Take a floating IP",
        bodies::floating_ip,
        One("floatingip", "FloatingIp"),
    )
    .status(&[201]),
    get(
        "/network/v2.0/floatingips/{id}",
        "A floating IP",
        One("floatingip", "FloatingIp"),
    ),
    put(
        "/network/v2.0/floatingips/{id}",
        "Attach or detach a floating IP",
        bodies::attachment,
        One("floatingip", "FloatingIp"),
    ),
    delete("/network/v2.0/floatingips/{id}", "Give a floating IP back"),
    // volume
    version("/volume", "Versions of the volume service", &[300]),
    version("/volume/v3", "Volume version 3", &[200]),
    get(
        "/volume/v3/volumes",
        "Root disks, in short",
        Many("volumes", "NamedVolume"),
    )
    .query(&["limit", "marker", "changes-since", "name", "status"]),
    post(
        "/volume/v3/volumes",
        "Not offered: 501",
        bodies::volume,
        Nothing,
    )
    .status(&[202])
    .faults(NOT_OFFERED),
    get(
        "/volume/v3/volumes/detail",
        "Root disks",
        Many("volumes", "Volume"),
    )
    .query(&["limit", "marker", "changes-since", "name", "status"]),
    get(
        "/volume/v3/volumes/{id}",
        "A root disk",
        One("volume", "Volume"),
    ),
    put(
        "/volume/v3/volumes/{id}",
        "Rename a root disk",
        || bodies::named("volume"),
        One("volume", "Volume"),
    ),
    delete(
        "/volume/v3/volumes/{id}",
        "Refused: it goes with its server",
    )
    .status(&[202]),
    get(
        "/volume/v3/volumes/{id}/metadata",
        "None",
        One("metadata", "Texts"),
    ),
    post(
        "/volume/v3/volumes/{id}/action",
        "Not offered: 501",
        bodies::volume_action,
        Nothing,
    )
    .status(&[202])
    .faults(NOT_OFFERED),
    get(
        "/volume/v3/types",
        "Disk templates",
        Many("volume_types", "VolumeType"),
    ),
    get(
        "/volume/v3/types/{id}",
        "A disk template",
        One("volume_type", "VolumeType"),
    ),
    get(
        "/volume/v3/snapshots",
        "None",
        Many("snapshots", "Anything"),
    ),
    get(
        "/volume/v3/snapshots/detail",
        "None",
        Many("snapshots", "Anything"),
    ),
    get("/volume/v3/limits", "Use", One("limits", "Limits")),
    // image
    version("/image", "Versions of the image service", &[300]),
    version("/image/versions", "Versions of the image service", &[200]),
    get("/image/v2/images", "Images", Many("images", "GlanceImage")).query(&[
        "limit",
        "marker",
        "name",
        "status",
        "visibility",
    ]),
    post(
        "/image/v2/images",
        "Register an image",
        bodies::image,
        Bare("GlanceImage"),
    )
    .status(&[201]),
    get("/image/v2/images/{id}", "An image", Bare("GlanceImage")),
    write(
        "patch",
        "/image/v2/images/{id}",
        "Change an image",
        bodies::patch,
        Bare("GlanceImage"),
    ),
    delete("/image/v2/images/{id}", "Forget an image"),
    get("/image/v2/images/{id}/file", "Not offered: 501", Nothing).faults(NOT_OFFERED),
    operation(
        "put",
        "/image/v2/images/{id}/file",
        "Not offered: 501",
        &[204],
        Nothing,
    )
    .faults(NOT_OFFERED),
    get(
        "/image/v2/schemas/image",
        "What an image is",
        Bare("Anything"),
    ),
    get(
        "/image/v1.0/images",
        "Images, in short",
        BareList("BriefImage"),
    )
    .query(&[
        "limit",
        "marker",
        "name",
        "disk_format",
        "size_min",
        "size_max",
    ]),
    operation(
        "post",
        "/image/v1.0/images",
        "Register an image",
        &[200],
        Nothing,
    )
    .headers(IMAGE_HEADERS),
    get(
        "/image/v1.0/images/detail",
        "Images",
        BareList("DetailedImage"),
    )
    .query(&[
        "limit",
        "marker",
        "name",
        "disk_format",
        "size_min",
        "size_max",
    ]),
    get("/image/v1.0/images/{id}", "Not offered: 501", Nothing).faults(NOT_OFFERED),
    operation(
        "head",
        "/image/v1.0/images/{id}",
        "An image, in headers",
        &[200],
        Nothing,
    ),
    operation(
        "put",
        "/image/v1.0/images/{id}",
        "Change an image",
        &[200],
        Nothing,
    )
    .headers(IMAGE_HEADERS),
    delete("/image/v1.0/images/{id}", "Forget an image"),
];
