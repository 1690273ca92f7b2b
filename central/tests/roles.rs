//! Roles: every operation of the OpenAPI document as each role, and as a stranger.
//!
//! The document says which operations there are; [`MATRIX`] says who may use them. An operation
//! without a row fails the test, as does a row without an operation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use serde_json::{Value, json};
use support::rapi::FakeRapi;
use support::{Answer, Central, OTHER_TOKEN, TOKEN, until};

const ROOT: &str = "a-token-for-root-and-tests";
const MARY: &str = "a-token-for-mary-and-tests";
const CAROL: &str = "a-token-for-carol-and-tests";
const EVE: &str = "a-token-for-eve-and-tests";

/// The users beside alice of wonderland and bob of elsewhere, who are members.
const USERS: &str = r#"
[[project]]
name = "office"
[[user]]
name = "root"
token = "a-token-for-root-and-tests"
projects = ["office"]
admin = true
[[user]]
name = "mary"
token = "a-token-for-mary-and-tests"
projects = ["wonderland"]
administers = ["wonderland"]
[[user]]
name = "carol"
token = "a-token-for-carol-and-tests"
projects = ["wonderland"]
[[user]]
name = "eve"
token = "a-token-for-eve-and-tests"
projects = ["elsewhere"]
administers = ["elsewhere"]
[[network]]
name = "large"
type = "CUSTOM"
link = "br2"
public = true
floating_ip_pool = true
[[network.subnet]]
cidr = "198.51.100.0/24"
"#;

const MORE: &str = "[parameters]\nurl = 'http://central.example.org'\n\
    [images]\nsources = ['https://images.example.org/', '/srv/images']\n";

/// Part of the name of each object of wonderland: no answer to anybody else may contain it.
const MARK: &str = "wonderland-secret";

/// A caller of an operation on objects of wonderland, which alice has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Root of the project office.
    CloudAdministrator,
    /// Mary of wonderland.
    ProjectAdministrator,
    /// Alice of wonderland, who has made the objects.
    Member,
    /// Carol of wonderland.
    Colleague,
    /// Eve of elsewhere.
    OtherAdministrator,
    /// Bob of elsewhere.
    OtherMember,
}

use Role::{CloudAdministrator, ProjectAdministrator};
use Role::{Colleague, Member, OtherAdministrator, OtherMember};

impl Role {
    const ALL: [Self; 6] = [
        OtherMember,
        OtherAdministrator,
        Colleague,
        CloudAdministrator,
        ProjectAdministrator,
        Member,
    ];

    fn token(self) -> &'static str {
        match self {
            CloudAdministrator => ROOT,
            ProjectAdministrator => MARY,
            Member => TOKEN,
            Colleague => CAROL,
            OtherAdministrator => EVE,
            OtherMember => OTHER_TOKEN,
        }
    }

    /// Outside the project of the objects.
    fn is_outside(self) -> bool {
        matches!(self, CloudAdministrator | OtherAdministrator | OtherMember)
    }
}

/// The roles that may use an operation; the others are refused, and nothing changes.
type Rule = &'static [Role];

/// Anybody, without a token.
const PUBLIC: Option<Rule> = None;
/// Every role: the answer holds what is public, or what is of the caller's project.
const ALL: Option<Rule> = Some(&Role::ALL);
/// The project of the object.
const OWN: Option<Rule> = Some(&[ProjectAdministrator, Member, Colleague]);
/// The user of the object.
const USER: Option<Rule> = Some(&[Member]);
/// The user of the object, and administrators of the cloud.
const TOKENS: Option<Rule> = Some(&[Member, CloudAdministrator]);
/// The user who registered an image, and administrators of the project.
const IMAGE: Option<Rule> = Some(&[Member, ProjectAdministrator]);
/// The project, and administrators of the cloud.
const PROJECT: Option<Rule> = Some(&[ProjectAdministrator, Member, Colleague, CloudAdministrator]);
/// Administrators of the project, and of the cloud.
const MANAGE: Option<Rule> = Some(&[ProjectAdministrator, CloudAdministrator]);
/// Administrators of any project, and of the cloud.
const MANAGERS: Option<Rule> =
    Some(&[ProjectAdministrator, OtherAdministrator, CloudAdministrator]);
/// The user, and administrators of any project, who find users to make members of.
const PEOPLE: Option<Rule> = Some(&[
    Member,
    ProjectAdministrator,
    OtherAdministrator,
    CloudAdministrator,
]);
/// Administrators of the cloud.
const CLOUD: Option<Rule> = Some(&[CloudAdministrator]);

/// The roles that may use each operation, in the order in which they are tried: what an operation
/// deletes, the ones before it need.
const MATRIX: &[(&str, &str, Option<Rule>)] = &[
    ("GET", "/", PUBLIC),
    ("GET", "/identity", PUBLIC),
    ("GET", "/identity/v2.0", PUBLIC),
    ("GET", "/identity/v3", PUBLIC),
    ("GET", "/compute", PUBLIC),
    ("GET", "/compute/v2.0", PUBLIC),
    ("GET", "/network", PUBLIC),
    ("GET", "/network/v2.0", PUBLIC),
    ("GET", "/volume", PUBLIC),
    ("GET", "/volume/v3", PUBLIC),
    ("GET", "/image", PUBLIC),
    ("GET", "/image/versions", PUBLIC),
    ("POST", "/identity/v2.0/tokens", PUBLIC),
    ("POST", "/identity/v3/auth/tokens", PUBLIC),
    ("GET", "/identity/v2.0/tenants", ALL),
    ("GET", "/identity/v3/auth/catalog", ALL),
    ("GET", "/identity/v3/auth/projects", ALL),
    ("GET", "/identity/v3/projects", ALL),
    ("GET", "/identity/v3/projects/{project}", PROJECT),
    ("GET", "/identity/v3/roles", ALL),
    ("GET", "/identity/v3/roles/{role}", ALL),
    ("GET", "/identity/v3/users", MANAGERS),
    ("GET", "/identity/v3/users/{user}", PEOPLE),
    ("GET", "/identity/v3/users/{user}/projects", TOKENS),
    ("GET", "/identity/v3/role_assignments", MANAGE),
    (
        "GET",
        "/identity/v3/projects/{project}/users/{user}/roles",
        MANAGE,
    ),
    (
        "PUT",
        "/identity/v3/projects/{project}/users/{user}/roles/{role}",
        MANAGE,
    ),
    (
        "GET",
        "/identity/v3/projects/{project}/users/{user}/roles/{role}",
        MANAGE,
    ),
    (
        "DELETE",
        "/identity/v3/projects/{project}/users/{user}/roles/{role}",
        MANAGE,
    ),
    ("GET", "/identity/v2.0/tokens/{token}", TOKENS),
    ("GET", "/identity/v3/auth/tokens", TOKENS),
    ("GET", "/compute/v2.0/servers", ALL),
    ("GET", "/compute/v2.0/servers/detail", ALL),
    ("GET", "/compute/v2.0/servers/{id}", OWN),
    ("GET", "/compute/v2.0/servers/{id}/ips", OWN),
    ("GET", "/compute/v2.0/servers/{id}/ips/{network}", OWN),
    ("GET", "/compute/v2.0/servers/{id}/metadata", OWN),
    ("GET", "/compute/v2.0/servers/{id}/metadata/{key}", OWN),
    ("GET", "/compute/v2.0/servers/{id}/tags", OWN),
    ("GET", "/compute/v2.0/servers/{id}/tags/{tag}", OWN),
    (
        "GET",
        "/compute/v2.0/servers/{id}/os-volume_attachments",
        OWN,
    ),
    (
        "GET",
        "/compute/v2.0/servers/{id}/os-volume_attachments/{volume}",
        OWN,
    ),
    ("GET", "/compute/v2.0/servers/{id}/diagnostics", OWN),
    ("GET", "/compute/v2.0/servers/{id}/os-interface", OWN),
    ("GET", "/compute/v2.0/servers/{id}/os-interface/{port}", OWN),
    ("GET", "/compute/v2.0/servers/{id}/os-security-groups", OWN),
    ("GET", "/compute/v2.0/os-security-groups", ALL),
    ("GET", "/compute/v2.0/flavors", ALL),
    ("GET", "/compute/v2.0/flavors/detail", ALL),
    ("GET", "/compute/v2.0/flavors/{id}", ALL),
    ("GET", "/compute/v2.0/flavors/{id}/os-extra_specs", ALL),
    ("GET", "/compute/v2.0/images", ALL),
    ("GET", "/compute/v2.0/images/detail", ALL),
    ("GET", "/compute/v2.0/images/{id}", OWN),
    ("GET", "/compute/v2.0/os-keypairs", ALL),
    ("POST", "/compute/v2.0/os-keypairs", ALL),
    ("GET", "/compute/v2.0/os-keypairs/{name}", USER),
    ("GET", "/compute/v2.0/os-floating-ips", ALL),
    ("POST", "/compute/v2.0/os-floating-ips", ALL),
    ("GET", "/compute/v2.0/os-floating-ips/{id}", OWN),
    ("GET", "/compute/v2.0/os-floating-ip-pools", ALL),
    ("GET", "/compute/v2.0/os-networks", ALL),
    ("GET", "/compute/v2.0/os-tenant-networks", ALL),
    ("GET", "/compute/v2.0/os-networks/{id}", OWN),
    ("GET", "/compute/v2.0/os-availability-zone", ALL),
    ("GET", "/compute/v2.0/os-availability-zone/detail", ALL),
    ("GET", "/compute/v2.0/os-hypervisors", CLOUD),
    ("GET", "/compute/v2.0/os-hypervisors/detail", CLOUD),
    ("GET", "/compute/v2.0/os-hypervisors/{id}", CLOUD),
    ("GET", "/compute/v2.0/os-hosts", CLOUD),
    ("GET", "/compute/v2.0/os-hosts/{name}", CLOUD),
    ("GET", "/compute/v2.0/os-services", CLOUD),
    ("GET", "/compute/v2.0/os-quota-sets/{project}", PROJECT),
    (
        "GET",
        "/compute/v2.0/os-quota-sets/{project}/detail",
        PROJECT,
    ),
    ("PUT", "/compute/v2.0/os-quota-sets/{project}", MANAGE),
    ("GET", "/compute/v2.0/limits", ALL),
    ("GET", "/compute/v2.0/extensions", ALL),
    ("GET", "/compute/v2.0/extensions/{alias}", ALL),
    ("GET", "/network/v2.0/extensions", ALL),
    // There are none: 404 for everybody.
    ("GET", "/network/v2.0/extensions/{alias}", Some(&[])),
    ("GET", "/network/v2.0/networks", ALL),
    ("GET", "/network/v2.0/networks/detail", ALL),
    ("POST", "/network/v2.0/networks", ALL),
    ("GET", "/network/v2.0/networks/{id}", OWN),
    ("PUT", "/network/v2.0/networks/{id}", OWN),
    ("GET", "/network/v2.0/subnets", ALL),
    ("POST", "/network/v2.0/subnets", OWN),
    ("GET", "/network/v2.0/subnets/{id}", OWN),
    ("PUT", "/network/v2.0/subnets/{id}", OWN),
    ("GET", "/network/v2.0/address-history", CLOUD),
    ("GET", "/network/v2.0/ports", ALL),
    ("POST", "/network/v2.0/ports", OWN),
    ("GET", "/network/v2.0/ports/{id}", OWN),
    ("PUT", "/network/v2.0/ports/{id}", OWN),
    ("GET", "/network/v2.0/floatingips", ALL),
    ("POST", "/network/v2.0/floatingips", ALL),
    ("GET", "/network/v2.0/floatingips/{id}", OWN),
    ("PUT", "/network/v2.0/floatingips/{id}", OWN),
    ("GET", "/volume/v3/volumes", ALL),
    // Not offered: 501 for everybody.
    ("POST", "/volume/v3/volumes", ALL),
    ("GET", "/volume/v3/volumes/detail", ALL),
    ("GET", "/volume/v3/volumes/{id}", OWN),
    ("PUT", "/volume/v3/volumes/{id}", OWN),
    ("GET", "/volume/v3/volumes/{id}/metadata", OWN),
    ("POST", "/volume/v3/volumes/{id}/action", OWN),
    ("GET", "/volume/v3/types", ALL),
    ("GET", "/volume/v3/types/{id}", ALL),
    ("GET", "/volume/v3/snapshots", ALL),
    ("GET", "/volume/v3/snapshots/detail", ALL),
    ("GET", "/volume/v3/limits", ALL),
    ("GET", "/image/v2/images", ALL),
    ("POST", "/image/v2/images", ALL),
    ("GET", "/image/v2/images/{id}", OWN),
    ("GET", "/image/v2/images/{id}/file", OWN),
    ("PUT", "/image/v2/images/{id}/file", OWN),
    ("PATCH", "/image/v2/images/{id}", IMAGE),
    ("GET", "/image/v2/schemas/image", ALL),
    ("GET", "/image/v1.0/images", ALL),
    ("POST", "/image/v1.0/images", ALL),
    ("GET", "/image/v1.0/images/detail", ALL),
    ("GET", "/image/v1.0/images/{id}", OWN),
    ("HEAD", "/image/v1.0/images/{id}", OWN),
    ("PUT", "/image/v1.0/images/{id}", IMAGE),
    ("POST", "/compute/v2.0/servers", OWN),
    ("PUT", "/compute/v2.0/servers/{id}", OWN),
    ("POST", "/compute/v2.0/servers/{id}/metadata", OWN),
    ("PUT", "/compute/v2.0/servers/{id}/metadata/{key}", OWN),
    ("DELETE", "/compute/v2.0/servers/{id}/metadata/{key}", OWN),
    ("PUT", "/compute/v2.0/servers/{id}/metadata", OWN),
    ("GET", "/compute/v2.0/servers/{id}/password", USER),
    ("DELETE", "/compute/v2.0/servers/{id}/password", USER),
    ("PUT", "/compute/v2.0/servers/{id}/tags/{tag}", OWN),
    ("DELETE", "/compute/v2.0/servers/{id}/tags/{tag}", OWN),
    ("PUT", "/compute/v2.0/servers/{id}/tags", OWN),
    ("DELETE", "/compute/v2.0/servers/{id}/tags", OWN),
    ("POST", "/compute/v2.0/servers/{id}/action", OWN),
    ("POST", "/compute/v2.0/servers/{id}/os-interface", OWN),
    (
        "DELETE",
        "/compute/v2.0/servers/{id}/os-interface/{port}",
        OWN,
    ),
    ("DELETE", "/network/v2.0/ports/{id}", OWN),
    ("DELETE", "/network/v2.0/floatingips/{id}", OWN),
    ("DELETE", "/compute/v2.0/os-floating-ips/{id}", OWN),
    ("DELETE", "/network/v2.0/subnets/{id}", OWN),
    ("DELETE", "/network/v2.0/networks/{id}", OWN),
    ("DELETE", "/compute/v2.0/os-keypairs/{name}", USER),
    ("DELETE", "/image/v2/images/{id}", IMAGE),
    ("DELETE", "/image/v1.0/images/{id}", IMAGE),
    ("DELETE", "/volume/v3/volumes/{id}", OWN),
    ("DELETE", "/compute/v2.0/servers/{id}", OWN),
    ("DELETE", "/identity/v2.0/tokens/{token}", TOKENS),
    ("DELETE", "/identity/v3/auth/tokens", TOKENS),
];

/// The operations that only some of the clients' documents name.
const CYCLADES_ONLY: &[(&str, &str)] = &[
    ("POST", "/cyclades/account/v1.0/user_catalogs"),
    ("GET", "/cyclades/account/v1.0/quotas"),
    ("GET", "/cyclades/account/v1.0/projects"),
    ("GET", "/cyclades/account/v1.0/resources"),
    ("GET", "/cyclades/account/v1.0/authenticate"),
    ("POST", "/cyclades/account/v1.0/authenticate"),
    ("GET", "/cyclades/image/v1.0/"),
];

/// Objects of wonderland, made by alice.
struct Objects {
    server: String,
    volume: String,
    port: String,
    loose: String,
    network: String,
    free_network: String,
    subnet: String,
    floating: String,
    another_floating: String,
    image: String,
    another_image: String,
    key: String,
    token: String,
    another_token: String,
    project: String,
    user: String,
    carol: String,
    flavor: String,
    host: String,
    name: String,
    number: usize,
}

async fn ask(central: &Central, token: &str, method: &str, path: &str, body: Value) -> Answer {
    let body = (!body.is_null()).then_some(body);
    central
        .ask(method.parse().unwrap(), path, Some(token), body)
        .await
}

async fn log_in(central: &Central) -> String {
    let alice = json!({"username": "alice", "password": "rabbit"});
    let body = json!({"auth": {"passwordCredentials": alice}});
    let path = "/identity/v2.0/tokens";
    let answer = central.ask(Method::POST, path, None, Some(body)).await;
    let made = answer.expect(200);
    made["access"]["token"]["id"].as_str().unwrap().to_owned()
}

async fn database(central: &Central) -> DatabaseConnection {
    Database::connect(&central.config.database_url)
        .await
        .unwrap()
}

/// A column of the first row.
async fn text(central: &Central, query: &str) -> String {
    let database = database(central).await;
    let statement = Statement::from_string(database.get_database_backend(), query);
    let row = database.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

async fn stage() -> Central {
    let rapi = FakeRapi::start().await;
    rapi.succeed();
    let central = Central::with(rapi, MORE).await;
    let seed = central.folder.path().join("users.toml");
    std::fs::write(&seed, USERS).unwrap();
    central::admin::seed::run(&central.config, &seed)
        .await
        .unwrap();
    central
}

async fn idle(central: &Central, server: &str) {
    until("an idle server", async || {
        let server = central.server(server).await;
        server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
    })
    .await;
}

async fn made(central: &Central, path: &str, body: Value, member: &str) -> String {
    let answer = central.post(path, body).await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
    let object = if member.is_empty() {
        &answer.body
    } else {
        &answer.body[member]
    };
    object["id"].as_str().unwrap().to_owned()
}

/// Makes one object of each kind.
async fn objects(central: &Central, number: usize) -> Objects {
    let name = format!("{MARK}-{number}");
    let network = json!({"network": {"name": name}});
    let network = made(central, "/network/v2.0/networks", network, "network").await;
    let free_network = json!({"network": {"name": format!("{name}-free")}});
    let free_network = made(central, "/network/v2.0/networks", free_network, "network").await;
    let subnet = json!({"subnet": {"network_id": network, "cidr": "10.9.0.0/24", "name": name}});
    let subnet = made(central, "/network/v2.0/subnets", subnet, "subnet").await;
    let key = format!("{name}-key");
    let body = json!({"keypair": {"name": key}});
    central
        .post("/compute/v2.0/os-keypairs", body)
        .await
        .expect(200);
    let image = json!({"name": name, "source": format!("/srv/images/{name}.img")});
    let image = made(central, "/image/v2/images", image, "").await;
    let another_image = json!({"name": name, "source": format!("/srv/images/{name}-2.img")});
    let another_image = made(central, "/image/v2/images", another_image, "").await;
    let mut order = central.order(&name, &[]).await;
    order["server"]["networks"] = json!([{"uuid": network}]);
    order["server"]["metadata"] = json!({"secret": name});
    order["server"]["tags"] = json!([name]);
    let server = central
        .post("/compute/v2.0/servers", order)
        .await
        .expect(202);
    let server = server["server"]["id"].as_str().unwrap().to_owned();
    idle(central, &server).await;
    let ports = central
        .get(&format!("/network/v2.0/ports?device_id={server}"))
        .await
        .expect(200);
    let port = ports["ports"][0]["id"].as_str().unwrap().to_owned();
    let loose = json!({"port": {"network_id": network, "name": name}});
    let loose = made(central, "/network/v2.0/ports", loose, "port").await;
    let attachments = format!("/compute/v2.0/servers/{server}/os-volume_attachments");
    let attachments = central.get(&attachments).await.expect(200);
    let volume = attachments["volumeAttachments"][0]["id"].as_str().unwrap();
    let floating = async || {
        let body = json!({"floatingip": {}});
        made(central, "/network/v2.0/floatingips", body, "floatingip").await
    };
    Objects {
        volume: volume.to_owned(),
        server,
        port,
        loose,
        network,
        free_network,
        subnet,
        floating: floating().await,
        another_floating: floating().await,
        image,
        another_image,
        key,
        token: log_in(central).await,
        another_token: log_in(central).await,
        project: text(central, "SELECT id FROM projects WHERE name = 'wonderland'").await,
        user: text(central, "SELECT id FROM users WHERE name = 'alice'").await,
        carol: text(central, "SELECT id FROM users WHERE name = 'carol'").await,
        flavor: central.id_of("/compute/v2.0/flavors", "tiny").await,
        host: text(central, "SELECT CAST(id AS TEXT) FROM backends").await,
        name,
        number,
    }
}

impl Objects {
    /// The path with the ids of the objects.
    fn fill(&self, method: &str, path: &str) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            let before = parts.last().copied().unwrap_or_default();
            parts.push(match (part, before) {
                ("{id}", "servers") => &self.server,
                ("{id}", "volumes") => &self.volume,
                ("{id}", "ports") => match method {
                    "DELETE" => &self.loose,
                    _ => &self.port,
                },
                ("{id}", "networks") if method == "DELETE" => &self.free_network,
                ("{id}", "networks" | "os-networks") => &self.network,
                ("{id}", "subnets") => &self.subnet,
                ("{id}", "floatingips") => &self.floating,
                ("{id}", "os-floating-ips") => &self.another_floating,
                ("{id}", "images") if path.contains("v1.0") => &self.another_image,
                ("{id}", "images") => &self.image,
                ("{id}", "flavors") => &self.flavor,
                ("{id}", "types") => "file",
                ("{id}", "os-hypervisors") => &self.host,
                ("{network}", _) => &self.name,
                ("{port}", _) => &self.port,
                ("{volume}", _) => &self.volume,
                ("{key}", _) => "secret",
                ("{tag}", _) => "tag-of-mine",
                ("{name}", "os-hosts") => "cluster",
                ("{name}", _) => &self.key,
                ("{alias}", _) => "os-keypairs",
                ("{token}", _) => &self.token,
                ("{project}", _) => &self.project,
                ("{user}", "users") if path.contains("projects/{project}") => &self.carol,
                ("{user}", _) => &self.user,
                ("{role}", _) => "member",
                (other, _) => {
                    assert!(!other.starts_with('{'), "{path}: {other}");
                    other
                }
            });
        }
        let filled = parts.join("/");
        match path {
            "/identity/v3/role_assignments" => {
                format!("{filled}?scope.project.id={}", self.project)
            }
            "/network/v2.0/address-history" => format!("{filled}?server_id={}", self.server),
            _ => filled,
        }
    }

    /// A body that names objects of wonderland wherever it can.
    fn body(&self, method: &str, path: &str, caller: &str) -> Value {
        let name = format!("new-{caller}-{}", self.number);
        match (method, path) {
            ("POST", "/compute/v2.0/servers") => json!({"server": {
                "name": name, "flavorRef": self.flavor, "imageRef": self.image,
                "networks": [{"uuid": self.network}],
            }}),
            ("PUT", "/compute/v2.0/servers/{id}") => json!({"server": {"name": name}}),
            ("POST", "/compute/v2.0/servers/{id}/action") => json!({"os-stop": null}),
            ("POST" | "PUT", "/compute/v2.0/servers/{id}/metadata") => {
                json!({"metadata": {"secret": name}})
            }
            ("PUT", "/compute/v2.0/servers/{id}/metadata/{key}") => {
                json!({"meta": {"secret": name}})
            }
            ("PUT", "/compute/v2.0/servers/{id}/tags") => json!({"tags": [name]}),
            ("POST", "/compute/v2.0/servers/{id}/os-interface") => {
                json!({"interfaceAttachment": {"net_id": self.network}})
            }
            ("POST", "/compute/v2.0/os-keypairs") => json!({"keypair": {"name": name}}),
            ("PUT", "/compute/v2.0/os-quota-sets/{project}") => {
                json!({"quota_set": {"SNF:disk": 1000}})
            }
            ("POST", "/network/v2.0/networks") => json!({"network": {"name": name}}),
            ("PUT", "/network/v2.0/networks/{id}") => json!({"network": {"name": name}}),
            ("POST", "/network/v2.0/subnets") => {
                json!({"subnet": {"network_id": self.free_network, "cidr": "10.8.0.0/24"}})
            }
            ("PUT", "/network/v2.0/subnets/{id}") => json!({"subnet": {"name": name}}),
            ("POST", "/network/v2.0/ports") => json!({"port": {"network_id": self.network}}),
            ("PUT", "/network/v2.0/ports/{id}") => json!({"port": {"name": name}}),
            ("POST", "/network/v2.0/floatingips") => json!({"floatingip": {}}),
            ("PUT", "/network/v2.0/floatingips/{id}") => json!({"floatingip": {"port_id": null}}),
            ("POST", "/volume/v3/volumes") => json!({"volume": {}}),
            ("PUT", "/volume/v3/volumes/{id}") => json!({"volume": {"name": name}}),
            ("POST", "/volume/v3/volumes/{id}/action") => json!({"os-extend": {}}),
            ("POST", "/image/v2/images") => json!({
                "name": name, "source": format!("/srv/images/{name}"),
            }),
            ("PATCH", "/image/v2/images/{id}") => json!([
                {"op": "replace", "path": "/name", "value": name},
            ]),
            _ => Value::Null,
        }
    }

    async fn ask(
        &self,
        central: &Central,
        caller: &str,
        token: Option<&str>,
        method: &str,
        path: &str,
        prefix: &str,
    ) -> Answer {
        let http = reqwest::Client::new();
        let filled = self.fill(method, path);
        let mut request = http.request(
            method.parse().unwrap(),
            format!("{}{prefix}{filled}", central.base),
        );
        if let Some(token) = token {
            request = request.header("X-Auth-Token", token);
        }
        if path == "/identity/v3/auth/tokens" && method != "POST" {
            request = request.header("X-Subject-Token", &self.another_token);
        }
        if path.starts_with("/image/v1.0") {
            let name = format!("new-{caller}-{}", self.number);
            request = request
                .header("x-image-meta-name", &name)
                .header("x-image-meta-location", format!("/srv/images/{name}-v1"));
        }
        let body = self.body(method, path, caller);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }
}

fn documented() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect()
}

#[test]
fn every_operation_of_the_document_has_its_row() {
    let listed: BTreeSet<(String, String)> = MATRIX
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(listed.len(), MATRIX.len(), "a row twice");
    assert_eq!(listed, documented());
}

/// Waits until an action on the server is over, so that the next one finds it idle.
async fn settle(central: &Central, objects: &Objects) {
    until("the server to settle", async || {
        let path = format!("/compute/v2.0/servers/{}", objects.server);
        let shown = central.get(&path).await;
        shown.status == 404
            || shown.body["server"]["SNF:task_state"] == ""
            || shown.body["server"]["status"] == "DELETED"
    })
    .await;
}

/// An answer that tells of objects of wonderland, beside the name that was asked for.
fn tells(answer: &Answer, objects: &Objects) -> bool {
    answer
        .body
        .to_string()
        .replace(&objects.key, "")
        .contains(MARK)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_as_each_role() {
    let central = stage().await;
    let mut wrong = Vec::new();
    // Those who are refused, first: afterwards everything must still be there.
    let victims = objects(&central, 0).await;
    for prefix in ["", "/cyclades"] {
        for role in Role::ALL {
            for (method, path, rule) in MATRIX {
                let Some(rule) = rule else { continue };
                if rule.contains(&role) {
                    continue;
                }
                let caller = format!("{role:?}");
                let answer = victims
                    .ask(&central, &caller, Some(role.token()), method, path, prefix)
                    .await;
                let refused = matches!(answer.status.as_u16(), 403 | 404);
                let told = role.is_outside() && tells(&answer, &victims);
                if !refused || told {
                    wrong.push(format!(
                        "{role:?} {method} {prefix}{path}: {} {}",
                        answer.status, answer.body
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
    // Those who may, each with objects of their own.
    for (number, role) in Role::ALL.into_iter().enumerate() {
        let objects = objects(&central, number + 1).await;
        for (method, path, rule) in MATRIX {
            let allowed = rule.is_none_or(|rule| rule.contains(&role));
            if !allowed {
                continue;
            }
            let caller = format!("{role:?}");
            let answer = objects
                .ask(&central, &caller, Some(role.token()), method, path, "")
                .await;
            let status = answer.status.as_u16();
            let good = match (*method, *path) {
                // Without a body.
                ("POST", "/identity/v3/auth/tokens") => status == 400,
                // What is not offered is not offered to those who may ask for it.
                (_, path) if path.ends_with("/file") => status == 501,
                ("GET", "/image/v1.0/images/{id}") => status == 501,
                ("POST", "/volume/v3/volumes" | "/volume/v3/volumes/{id}/action") => status == 501,
                // It was told before, which is once.
                ("DELETE", path) if path.ends_with("/password") => status == 404,
                // It goes with its server.
                ("DELETE", "/volume/v3/volumes/{id}") => status == 409,
                // Tags of which there may be none any more; a quota that is used up.
                (_, path) if path.ends_with("/tags/{tag}") && *method == "GET" => {
                    matches!(status, 204 | 404)
                }
                ("POST", "/network/v2.0/floatingips" | "/compute/v2.0/os-floating-ips") => {
                    matches!(status, 200 | 201 | 409 | 413)
                }
                ("POST", "/network/v2.0/networks") => matches!(status, 201 | 413),
                // The network still has ports.
                ("DELETE", "/network/v2.0/subnets/{id}") => matches!(status, 204 | 409),
                _ => answer.status.is_success() || status == 300,
            };
            // A list of another project's caller shows nothing of wonderland.
            let shared = rule == &ALL || rule.is_none();
            let told = role.is_outside() && shared && tells(&answer, &objects);
            if !good || told {
                wrong.push(format!(
                    "{role:?} {method} {path}: {} {}",
                    answer.status, answer.body
                ));
            }
            if *method != "GET" {
                settle(&central, &objects).await;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not as it should be:\n{}",
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing_but_what_is_public() {
    let central = stage().await;
    let objects = objects(&central, 0).await;
    let expired = log_in(&central).await;
    // The latest of all.
    database(&central)
        .await
        .execute_unprepared(
            "UPDATE tokens SET expires_at = 1 WHERE issued_at = (SELECT MAX(issued_at) FROM tokens)",
        )
        .await
        .unwrap();
    let tokens = [None, Some(expired.as_str()), Some("nonsense"), Some("")];
    for (method, path, rule) in MATRIX {
        for token in tokens {
            for prefix in ["", "/cyclades"] {
                let answer = objects
                    .ask(&central, "stranger", token, method, path, prefix)
                    .await;
                let what = format!(
                    "{token:?} {method} {prefix}{path}: {} {}",
                    answer.status, answer.body
                );
                assert_eq!(rule.is_some(), answer.status == 401, "{what}");
                assert!(!tells(&answer, &objects), "{what}");
            }
        }
    }
    for (method, path) in CYCLADES_ONLY {
        let method: Method = method.parse().unwrap();
        for token in tokens {
            let answer = central.ask(method.clone(), path, token, None).await;
            assert_eq!(answer.status, 401, "{token:?} {method} {path}");
        }
        let body = Some(json!({"uuids": []}));
        let answer = central
            .ask(method.clone(), path, Some(OTHER_TOKEN), body)
            .await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        assert!(!answer.body.to_string().contains(MARK), "{method} {path}");
    }
}

/// Runs `snf-central` on the database of `central`.
async fn shell(central: &Central, words: &[&str]) -> (Option<i32>, String) {
    let config = central.folder.path().join("central.toml");
    let text = format!(
        "log = 'warn'\n[database]\nurl = '{}'\n",
        central.config.database_url
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_snf-central"));
    command.arg("--config").arg(&config).args(words);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

const HOSTS: &str = "/compute/v2.0/os-hosts";

async fn status(central: &Central, token: &str, path: &str) -> u16 {
    ask(central, token, "GET", path, Value::Null)
        .await
        .status
        .as_u16()
}

/// The names of the roles in the answer to a login of bob.
async fn names_of_roles(central: &Central) -> Vec<String> {
    let user = json!({"name": "bob", "password": "builder", "domain": {"id": "default"}});
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}});
    let path = "/identity/v3/auth/tokens";
    let answer = central.ask(Method::POST, path, None, Some(body)).await;
    let body = answer.expect(201);
    let roles = body["token"]["roles"].as_array().unwrap().iter();
    roles
        .map(|role| role["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_project_is_none_of_the_cloud() {
    let central = stage().await;
    assert_eq!(names_of_roles(&central).await, ["member"]);
    let (code, told) = shell(
        &central,
        &["project", "join", "elsewhere", "bob", "--admin"],
    )
    .await;
    assert_eq!(
        (code, told.as_str()),
        (Some(0), "user bob: administrator of project elsewhere\n")
    );
    until("the role", async || {
        names_of_roles(&central).await == ["manager", "member"]
    })
    .await;
    let as_bob = async |method: &str, path: &str, body: Value| {
        ask(&central, OTHER_TOKEN, method, path, body).await
    };
    until("the role to be known", async || {
        as_bob("GET", "/identity/v3/users", Value::Null)
            .await
            .status
            == 200
    })
    .await;
    let busybox = central.id_of("/compute/v2.0/images", "busybox").await;
    let bridged = central.id_of("/network/v2.0/networks", "bridged").await;
    let alice = log_in(&central).await;
    for (method, path, body, code) in [
        (
            "POST",
            "/image/v2/images".to_owned(),
            json!({"name": "x", "source": "/etc/shadow", "visibility": "public"}),
            403,
        ),
        (
            "POST",
            "/image/v2/images".to_owned(),
            json!({"name": "x", "source": "/etc/shadow"}),
            400,
        ),
        (
            "DELETE",
            format!("/image/v2/images/{busybox}"),
            Value::Null,
            403,
        ),
        (
            "DELETE",
            format!("/image/v1.0/images/{busybox}"),
            Value::Null,
            403,
        ),
        (
            "PATCH",
            format!("/image/v2/images/{busybox}"),
            json!([{"op": "replace", "path": "/name", "value": "x"}]),
            403,
        ),
        (
            "DELETE",
            format!("/network/v2.0/networks/{bridged}"),
            Value::Null,
            403,
        ),
        (
            "PUT",
            format!("/network/v2.0/networks/{bridged}"),
            json!({"network": {"name": "x"}}),
            403,
        ),
        (
            "POST",
            "/network/v2.0/networks".to_owned(),
            json!({"network": {"name": "x", "type": "PHYSICAL_VLAN"}}),
            403,
        ),
        (
            "GET",
            format!("/identity/v2.0/tokens/{alice}"),
            Value::Null,
            404,
        ),
        (
            "DELETE",
            format!("/identity/v2.0/tokens/{alice}"),
            Value::Null,
            404,
        ),
        ("GET", HOSTS.to_owned(), Value::Null, 403),
        (
            "GET",
            "/network/v2.0/address-history?server_id=1".to_owned(),
            Value::Null,
            403,
        ),
    ] {
        for prefix in ["", "/cyclades"] {
            let answer = as_bob(method, &format!("{prefix}{path}"), body.clone()).await;
            assert_eq!(
                answer.status.as_u16(),
                code,
                "{method} {prefix}{path}: {answer:?}"
            );
        }
    }
    assert_eq!(status(&central, &alice, "/compute/v2.0/servers").await, 200);

    // The grant is one of its own, and is taken back.
    let users = async || {
        let (_, told) = shell(&central, &["user", "list", "--json"]).await;
        let users: Value = serde_json::from_str(&told).unwrap();
        let mut users = users.as_array().unwrap().iter();
        let bob = users.find(|user| user["name"] == "bob").unwrap();
        (bob["admin"].clone(), bob["administers"].clone())
    };
    assert_eq!(users().await, (json!(false), json!("elsewhere")));
    let (code, told) = shell(&central, &["user", "grant-admin", "bob"]).await;
    assert_eq!(
        (code, told.as_str()),
        (Some(0), "user bob: administrator of the cloud\n")
    );
    until("the grant", async || {
        status(&central, OTHER_TOKEN, HOSTS).await == 200
    })
    .await;
    assert_eq!(
        names_of_roles(&central).await,
        ["admin", "manager", "member"]
    );
    assert_eq!(users().await, (json!(true), json!("elsewhere")));
    let (code, _) = shell(&central, &["user", "revoke-admin", "bob"]).await;
    assert_eq!(code, Some(0));
    until("the revocation", async || {
        status(&central, OTHER_TOKEN, HOSTS).await == 403
    })
    .await;
    assert_eq!(names_of_roles(&central).await, ["manager", "member"]);
    assert_eq!(
        shell(&central, &["user", "grant-admin", "nobody"]).await.0,
        Some(1)
    );
}

/// A database from before the roles were told apart: its administrators are of projects only.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_membership_makes_no_administrator_of_the_cloud() {
    let mut central = stage().await;
    central.stop().await;
    let database = database(&central).await;
    for statement in [
        "UPDATE memberships SET role = 'admin' WHERE role = 'manager'",
        "DROP TABLE project_limits",
        "DELETE FROM seaql_migrations WHERE version = 'm0006_roles'",
    ] {
        database.execute_unprepared(statement).await.unwrap();
    }
    let (code, told) = shell(&central, &["migrate"]).await;
    assert_eq!(code, Some(0), "{told}");
    let roles = "SELECT GROUP_CONCAT(DISTINCT role) FROM memberships WHERE role <> 'member'";
    assert_eq!(text(&central, roles).await, "manager");
    // An older `project join --admin` writes it again.
    database
        .execute_unprepared("UPDATE memberships SET role = 'admin' WHERE role = 'manager'")
        .await
        .unwrap();
    let central = Central::again(central).await;
    assert_eq!(status(&central, EVE, HOSTS).await, 403);
    assert_eq!(status(&central, EVE, "/identity/v3/users").await, 200);
    assert_eq!(status(&central, ROOT, HOSTS).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_project_manages_its_members() {
    let central = stage().await;
    let project = text(
        &central,
        "SELECT id FROM projects WHERE name = 'wonderland'",
    )
    .await;
    let elsewhere = text(&central, "SELECT id FROM projects WHERE name = 'elsewhere'").await;
    let found = ask(
        &central,
        MARY,
        "GET",
        "/identity/v3/users?name=bob",
        Value::Null,
    )
    .await;
    let bob = found.expect(200)["users"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let role = |project: &str, role: &str| {
        format!("/identity/v3/projects/{project}/users/{bob}/roles/{role}")
    };
    let as_mary = async |method: &str, path: String| {
        ask(&central, MARY, method, &path, Value::Null)
            .await
            .status
            .as_u16()
    };
    let log_in = async || {
        let body = json!({"auth": {"tenantName": "wonderland",
            "passwordCredentials": {"username": "bob", "password": "builder"}}});
        let path = "/identity/v2.0/tokens";
        let answer = central.ask(Method::POST, path, None, Some(body)).await;
        let token = answer.body["access"]["token"]["id"].as_str();
        token.map(str::to_owned)
    };
    assert_eq!(log_in().await, None);
    assert_eq!(as_mary("GET", role(&project, "member")).await, 404);
    assert_eq!(as_mary("PUT", role(&project, "member")).await, 204);
    assert_eq!(as_mary("PUT", role(&project, "member")).await, 204);
    let token = log_in().await.unwrap();
    assert_eq!(status(&central, &token, "/identity/v3/users").await, 403);
    assert_eq!(as_mary("PUT", role(&project, "manager")).await, 204);
    // The smaller role is in the greater one.
    assert_eq!(as_mary("PUT", role(&project, "member")).await, 204);
    assert_eq!(as_mary("GET", role(&project, "manager")).await, 204);
    until("the role", async || {
        status(&central, &token, "/identity/v3/users").await == 200
    })
    .await;
    let path = "/identity/v3/role_assignments";
    let listed = ask(&central, MARY, "GET", path, Value::Null)
        .await
        .expect(200);
    let mut listed: Vec<String> = listed["role_assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!(row["scope"]["project"]["id"], project);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!(
                "{} {}",
                text(&row["user"]["name"]),
                text(&row["role"]["name"])
            )
        })
        .collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            "alice member",
            "bob manager",
            "carol member",
            "mary manager"
        ]
    );
    assert_eq!(as_mary("DELETE", role(&project, "manager")).await, 204);
    assert_eq!(as_mary("DELETE", role(&project, "manager")).await, 404);
    until("the role to go", async || {
        status(&central, &token, "/identity/v3/users").await == 403
    })
    .await;
    assert_eq!(as_mary("DELETE", role(&project, "member")).await, 204);
    until("the token to go", async || {
        status(&central, &token, "/compute/v2.0/servers").await == 401
    })
    .await;
    // Nothing of that in another project, and nobody administers the cloud by it.
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(
            as_mary(method, role(&elsewhere, "member")).await,
            404,
            "{method}"
        );
        assert_eq!(
            as_mary(method, role(&project, "admin")).await,
            404,
            "{method}"
        );
        assert_eq!(
            as_mary(method, role(&project, "root")).await,
            404,
            "{method}"
        );
    }
    let other = format!("{path}?scope.project.id={elsewhere}");
    assert_eq!(as_mary("GET", other.clone()).await, 404);
    assert_eq!(status(&central, ROOT, &other).await, 200);
    let given = ask(
        &central,
        ROOT,
        "PUT",
        &role(&project, "manager"),
        Value::Null,
    )
    .await;
    assert_eq!(given.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_project_lowers_what_it_was_granted() {
    let central = stage().await;
    let elsewhere = text(&central, "SELECT id FROM projects WHERE name = 'elsewhere'").await;
    let path = format!("/compute/v2.0/os-quota-sets/{elsewhere}");
    let set = async |token: &str, set: Value| {
        ask(&central, token, "PUT", &path, json!({ "quota_set": set })).await
    };
    let shown = async || {
        let shown = ask(&central, OTHER_TOKEN, "GET", &path, Value::Null)
            .await
            .expect(200);
        (
            shown["quota_set"]["instances"].clone(),
            shown["quota_set"]["SNF:disk"].clone(),
        )
    };
    assert_eq!(shown().await, (json!(2), json!(-1)));
    set(OTHER_TOKEN, json!({"instances": 1}))
        .await
        .fault(403, "forbidden");
    set(EVE, json!({"instances": 3}))
        .await
        .fault(403, "forbidden");
    set(EVE, json!({"SNF:disk": 5, "instances": 3}))
        .await
        .fault(403, "forbidden");
    assert_eq!(shown().await, (json!(2), json!(-1)), "half of it was done");
    set(EVE, json!({"instances": 1, "SNF:disk": 50}))
        .await
        .expect(200);
    assert_eq!(shown().await, (json!(1), json!(50)));
    for (wrong, says) in [
        (json!({"unicorns": 1}), "unicorns"),
        (json!({"instances": -2}), "instances"),
        (json!({"instances": "many"}), "instances"),
    ] {
        let message = set(EVE, wrong).await.fault(400, "badRequest");
        assert!(message.contains(says), "{message}");
    }
    // It holds, and the granted one below it does.
    let mut order = central.order("one", &[]).await;
    order["server"]["networks"] = json!([]);
    let make = async || {
        ask(
            &central,
            OTHER_TOKEN,
            "POST",
            "/compute/v2.0/servers",
            order.clone(),
        )
        .await
    };
    make().await.expect(202);
    make().await.fault(413, "overLimit");
    set(ROOT, json!({"instances": 0})).await.expect(200);
    assert_eq!(shown().await, (json!(0), json!(50)));
    set(EVE, json!({"instances": -1, "SNF:disk": -1}))
        .await
        .expect(200);
    assert_eq!(shown().await, (json!(0), json!(-1)));
    set(ROOT, json!({"instances": -1})).await.expect(200);
    assert_eq!(shown().await, (json!(-1), json!(-1)));
    let detail = format!("{path}/detail");
    let detail = ask(&central, EVE, "GET", &detail, Value::Null)
        .await
        .expect(200);
    let instances = json!({"limit": -1, "SNF:granted": -1, "in_use": 1, "reserved": 0});
    assert_eq!(detail["quota_set"]["instances"], instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_project_is_no_source() {
    let central = stage().await;
    let images = "/image/v2/images";
    let wanted = |source: &str| json!({"name": "x", "source": source});
    for (source, others) in [
        (
            "/srv/images/alice-secret.img",
            vec![
                "/srv/images/alice-secret.img",
                "/srv/images//alice-secret.img",
                "/srv/images/./alice-secret.img",
                "/srv/images/x/../alice-secret.img",
                "/srv/images/%61lice-secret.img",
                "/srv/images/alice-secret.img/",
                "//srv/images/alice-secret.img",
            ],
        ),
        (
            "https://images.example.org/alice-secret.img",
            vec![
                "https://images.example.org/alice-secret.img",
                "https://IMAGES.example.org/alice-secret.img",
                "https://images.example.org:443/alice-secret.img",
                "https://images.example.org//alice-secret.img",
                "https://images.example.org/%2e/alice-secret.img",
            ],
        ),
    ] {
        let id = made(&central, images, wanted(source), "").await;
        for token in [OTHER_TOKEN, EVE] {
            for other in &others {
                let answer = ask(&central, token, "POST", images, wanted(other)).await;
                assert!(
                    matches!(answer.status.as_u16(), 400 | 403),
                    "{other}: {answer:?}"
                );
            }
        }
        // Nor by changing an image of one's own.
        let own = wanted(&format!("{source}-of-bob"));
        let own = ask(&central, OTHER_TOKEN, "POST", images, own)
            .await
            .expect(201);
        let patch = json!([{"op": "replace", "path": "/source", "value": source}]);
        let path = format!("{images}/{}", own["id"].as_str().unwrap());
        ask(&central, OTHER_TOKEN, "PATCH", &path, patch)
            .await
            .fault(403, "forbidden");
        // The project itself and an administrator of the cloud may.
        ask(&central, CAROL, "POST", images, wanted(source))
            .await
            .expect(201);
        ask(&central, ROOT, "POST", images, wanted(source))
            .await
            .expect(201);
        // What is forgotten is still where it was.
        central.delete(&format!("{images}/{id}")).await.expect(204);
        ask(&central, OTHER_TOKEN, "POST", images, wanted(source))
            .await
            .fault(403, "forbidden");
        // What everybody may use is no secret.
        let body = json!({"name": "y", "source": source, "visibility": "public"});
        ask(&central, ROOT, "POST", images, body).await.expect(201);
        ask(&central, OTHER_TOKEN, "POST", images, wanted(source))
            .await
            .expect(201);
    }
    // Outside the folders, and beside them.
    for source in [
        "/etc/shadow",
        "/srv/images-of-others/x",
        "/srv/images",
        "http://images.example.org/x",
    ] {
        ask(&central, OTHER_TOKEN, "POST", images, wanted(source))
            .await
            .fault(400, "badRequest");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_gets_a_format_or_a_source_that_is_none() {
    let central = stage().await;
    let images = "/image/v2/images";
    let good = "https://images.example.org/x.img";
    for format in ["raw", "diskdump", "qcow2", "extdump", "ntfsdump"] {
        let body = json!({"name": "x", "source": good, "disk_format": format});
        let shown = central.post(images, body).await.expect(201);
        assert_eq!(shown["disk_format"], format);
    }
    let formats = [
        "$(id)", "../../x", "vmdk", "vhd", "iso", "RAW", "", " raw", "raw;id", "--help",
    ];
    let sources = [
        "$(id)",
        "`id`",
        "/srv/images/$(id)",
        "/srv/images/a b",
        "/srv/images/'",
        "/srv/images/\"",
        " --help",
        "--help",
        "/srv/images/;id",
        "/srv/images/|id",
        "/srv/images/&",
        "/srv/images/\\x",
        "/srv/images/é",
        "/srv/images/x\n",
        "/srv/images/../../etc/shadow",
        "json:{}",
        "https://images.example.org/../x",
        "https://u:p@images.example.org/x",
        "nbd://h/x",
        "",
    ];
    // Not even an administrator of the cloud.
    for token in [TOKEN, ROOT] {
        for format in formats {
            let body = json!({"name": "x", "source": good, "disk_format": format});
            let message = ask(&central, token, "POST", images, body)
                .await
                .fault(400, "badRequest");
            assert!(message.contains("disk_format"), "{message}");
        }
        for source in sources {
            let body = json!({"name": "x", "source": source});
            let answer = ask(&central, token, "POST", images, body).await;
            let message = answer.fault(400, "badRequest");
            assert!(message.contains("source"), "{message}");
        }
    }
    let http = reqwest::Client::new();
    for (header, value) in [
        ("x-image-meta-disk-format", "$(id)"),
        ("x-image-meta-disk-format", "vmdk"),
        ("x-image-meta-location", "/srv/images/$(id)"),
        ("x-image-meta-location", "/srv/images/a b"),
    ] {
        let mut request = http
            .post(format!("{}/image/v1.0/images", central.base))
            .header("X-Auth-Token", TOKEN)
            .header("x-image-meta-name", "x")
            .header(header, value);
        if header.ends_with("format") {
            request = request.header("x-image-meta-location", good);
        }
        assert_eq!(
            request.send().await.unwrap().status(),
            400,
            "{header}: {value}"
        );
    }
    // The seed file has the same validator.
    for (key, value) in [
        ("format", "vmdk"),
        ("source", "/srv/$(id)"),
        ("source", "-x"),
    ] {
        let seed = central.folder.path().join("bad.toml");
        let source = if key == "source" {
            ""
        } else {
            "source = '/srv/x'\n"
        };
        std::fs::write(
            &seed,
            format!("[[image]]\nname = 'bad'\n{source}{key} = '{value}'\n"),
        )
        .unwrap();
        let error = central::admin::seed::run(&central.config, &seed)
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains(value), "{error:#}");
    }
    // What is in the database already does not reach Ganeti either.
    let busybox = central.id_of("/compute/v2.0/images", "busybox").await;
    for (column, value) in [("format", "$(id)"), ("source", "/srv/`id`")] {
        let statement = format!("UPDATE images SET {column} = '{value}' WHERE id = '{busybox}'");
        database(&central)
            .await
            .execute_unprepared(&statement)
            .await
            .unwrap();
        let before = central.rapi.submissions().len();
        let order = central.order("web", &[]).await;
        let message = central
            .post("/compute/v2.0/servers", order)
            .await
            .fault(409, "conflict");
        assert!(message.contains(&busybox), "{message}");
        assert_eq!(central.rapi.submissions().len(), before);
    }
    assert_eq!(
        central.get("/compute/v2.0/servers").await.expect(200)["servers"],
        json!([])
    );
}

/// Only what shows it: no access, no change of it nor of what is attached.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_server_can_only_be_looked_at() {
    let central = stage().await;
    let objects = objects(&central, 0).await;
    let server = objects.server.clone();
    assert_eq!(
        shell(&central, &["server", "suspend", &server]).await.0,
        Some(0)
    );
    let path = format!("/compute/v2.0/servers/{server}");
    let mut changes = vec![
        ("PUT", path.clone(), json!({"server": {"name": "x"}})),
        ("DELETE", path.clone(), Value::Null),
        ("GET", format!("{path}/password"), Value::Null),
        ("DELETE", format!("{path}/password"), Value::Null),
        (
            "POST",
            format!("{path}/metadata"),
            json!({"metadata": {"a": "b"}}),
        ),
        (
            "PUT",
            format!("{path}/metadata"),
            json!({"metadata": {"a": "b"}}),
        ),
        (
            "PUT",
            format!("{path}/metadata/secret"),
            json!({"meta": {"secret": "b"}}),
        ),
        ("DELETE", format!("{path}/metadata/secret"), Value::Null),
        ("PUT", format!("{path}/tags"), json!({"tags": ["a"]})),
        ("PUT", format!("{path}/tags/a"), Value::Null),
        ("DELETE", format!("{path}/tags/{MARK}-0"), Value::Null),
        ("DELETE", format!("{path}/tags"), Value::Null),
        (
            "POST",
            format!("{path}/os-interface"),
            json!({"interfaceAttachment": {"net_id": objects.network}}),
        ),
        (
            "POST",
            format!("{path}/os-interface"),
            json!({"interfaceAttachment": {"port_id": objects.loose}}),
        ),
        (
            "DELETE",
            format!("{path}/os-interface/{}", objects.port),
            Value::Null,
        ),
        (
            "PUT",
            format!("/network/v2.0/ports/{}", objects.port),
            json!({"port": {"name": "x"}}),
        ),
        (
            "DELETE",
            format!("/network/v2.0/ports/{}", objects.port),
            Value::Null,
        ),
        (
            "POST",
            "/network/v2.0/ports".to_owned(),
            json!({"port": {"network_id": objects.network, "device_id": server}}),
        ),
        (
            "PUT",
            format!("/network/v2.0/floatingips/{}", objects.floating),
            json!({"floatingip": {"port_id": objects.port}}),
        ),
        (
            "PUT",
            format!("/volume/v3/volumes/{}", objects.volume),
            json!({"volume": {"name": "x"}}),
        ),
    ];
    for action in [
        json!({"start": {}}),
        json!({"os-stop": null}),
        json!({"reboot": {"type": "HARD"}}),
        json!({"console": {"type": "vnc-ws"}}),
        json!({"os-getVNCConsole": {"type": "novnc"}}),
        json!({"resize": {"flavorRef": objects.flavor}}),
        json!({"rescue": null}),
        json!({"addFixedIp": {"networkId": objects.network}}),
        json!({"removeFixedIp": {"address": "10.9.0.2"}}),
        json!({"addFloatingIp": {"address": "192.0.2.2"}}),
        json!({"firewallProfile": {"nic": objects.port, "profile": "ENABLED"}}),
    ] {
        changes.push(("POST", format!("{path}/action"), action));
    }
    let before = central.server(&server).await;
    for token in [TOKEN, MARY] {
        for prefix in ["", "/cyclades"] {
            for (method, path, body) in &changes {
                let answer = ask(
                    &central,
                    token,
                    method,
                    &format!("{prefix}{path}"),
                    body.clone(),
                )
                .await;
                assert_eq!(
                    answer.status, 403,
                    "{method} {prefix}{path} {body}: {answer:?}"
                );
            }
        }
    }
    assert_eq!(central.server(&server).await, before);
    for shown in [
        "",
        "/metadata",
        "/tags",
        "/os-interface",
        "/ips",
        "/diagnostics",
    ] {
        assert_eq!(
            status(&central, TOKEN, &format!("{path}{shown}")).await,
            200,
            "{shown}"
        );
    }
    // Another server's port, and the password afterwards.
    let loose = format!("/network/v2.0/ports/{}", objects.loose);
    central
        .put(&loose, json!({"port": {"name": "y"}}))
        .await
        .expect(200);
    assert_eq!(
        shell(&central, &["server", "resume", &server]).await.0,
        Some(0)
    );
    central.get(&format!("{path}/password")).await.expect(200);
    let port = format!("/network/v2.0/ports/{}", objects.port);
    central
        .put(&port, json!({"port": {"name": "y"}}))
        .await
        .expect(200);
}

/// A Keystone that answers to one password login and to questions about tokens `PROJECT/ROLE`.
async fn keystone() -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v3", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0_u8; 8192];
                let count = stream.read(&mut request).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&request[..count]).into_owned();
                let subject = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("x-subject-token")
                        .then(|| value.trim().to_owned())
                });
                let text = match subject.as_deref().and_then(|token| token.split_once('/')) {
                    None => {
                        "HTTP/1.1 201 Created\r\nX-Subject-Token: ours\r\nContent-Length: 0\r\n\
                             Connection: close\r\n\r\n"
                            .to_owned()
                    }
                    Some((project, role)) => {
                        let domain = json!({"id": "default", "name": "Default"});
                        let body = json!({"token": {
                            "user": {"id": "u1", "name": "kate", "domain": domain},
                            "project": {"id": project, "name": project, "domain": domain},
                            "roles": [{"id": "r", "name": role}],
                            "issued_at": "2026-01-01T00:00:00.000000Z",
                            "expires_at": "2999-01-01T00:00:00.000000Z",
                        }})
                        .to_string();
                        format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                            body.len()
                        )
                    }
                };
                let _ = stream.write_all(text.as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn who_administers_a_project_of_keystone_administers_that_project() {
    for (more, admin_of_hill) in [("", 403), ("admin_projects = ['hill']", 200)] {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "secret").unwrap();
        let more = format!(
            "[keystone]\nurl = '{}'\npassword_file = '{}'\n{more}\n",
            keystone().await,
            Path::new(&password).display()
        );
        let central = Central::with(FakeRapi::start().await, &more).await;
        for (token, hosts, users) in [
            ("vale/admin", 403, 200),
            ("vale/manager", 403, 200),
            ("vale/member", 403, 403),
            ("hill/admin", admin_of_hill, 200),
            ("hill/manager", 403, 200),
            ("hill/member", 403, 403),
            ("hill/reader", 403, 403),
        ] {
            assert_eq!(status(&central, token, HOSTS).await, hosts, "{token}");
            assert_eq!(
                status(&central, token, "/identity/v3/users").await,
                users,
                "{token}"
            );
        }
        assert_eq!(
            status(&central, "vale/reader", "/compute/v2.0/servers").await,
            403
        );
    }
}
