//! `snf-central seed FILE`: makes what an installation starts with.

use std::collections::BTreeMap;
use std::path::Path;

use agents::addr::{Ipv4Net, Ipv6Net};
use agents::service::config as toml_file;
use anyhow::{Context, bail};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    IntoActiveModel, QueryFilter, QuerySelect,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::caller::digest;
use crate::api::identity::login::LONGEST;
use crate::api::identity::{issue, passwords};
use crate::api::quota::{Resource, UNLIMITED};
use crate::config::Config;
use crate::ganeti::image::check_parameters;
use crate::ganeti::pools;
use crate::model::entity::{
    backend, flavor, image, membership, network, project, quota, subnet, token, user,
};
use crate::model::{database, id, moment};

/// What the file says. Everything is found again by its name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Seed {
    project: Vec<ProjectSeed>,
    user: Vec<UserSeed>,
    backend: Vec<BackendSeed>,
    flavor: Vec<FlavorSeed>,
    image: Vec<ImageSeed>,
    network: Vec<NetworkSeed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectSeed {
    name: String,
    #[serde(default)]
    id: Option<String>,
    /// Limits: `servers`, `total_cpu`, `cpu`, `total_ram`, `ram` (MiB), `disk` (GiB),
    /// `private_networks`, `floating_ips`; what is not named is not limited.
    #[serde(default)]
    quota: BTreeMap<String, i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserSeed {
    name: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// A token that does not expire, for services and tests.
    #[serde(default)]
    token: Option<String>,
    /// The first one is the default.
    projects: Vec<String>,
    /// Those of `projects` that the user administers.
    #[serde(default)]
    administers: Vec<String>,
    /// An administrator of the cloud.
    #[serde(default)]
    admin: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendSeed {
    name: String,
    url: String,
    #[serde(alias = "user")]
    username: String,
    password_file: String,
    #[serde(default)]
    ca_file: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    drained: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    hvparams: BTreeMap<String, Value>,
    #[serde(default)]
    osparams: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlavorSeed {
    #[serde(default)]
    name: Option<String>,
    vcpus: i64,
    /// MiB
    ram: i64,
    /// GiB
    disk: i64,
    disk_template: String,
    #[serde(default)]
    disk_provider: Option<String>,
    #[serde(default = "yes")]
    public: bool,
    #[serde(default = "yes")]
    allow_create: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageSeed {
    name: String,
    #[serde(default)]
    id: Option<String>,
    /// Ganeti's name of the OS definition, with its variant.
    #[serde(default = "snf_image")]
    os: String,
    #[serde(default)]
    osparams: BTreeMap<String, Value>,
    #[serde(default)]
    source: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    properties: BTreeMap<String, Value>,
    #[serde(default)]
    min_ram: i64,
    #[serde(default)]
    min_disk: i64,
    #[serde(default = "yes")]
    public: bool,
    #[serde(default)]
    project: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkSeed {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    mac_prefix: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    project: Option<String>,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    floating_ip_pool: bool,
    #[serde(default)]
    external_router: bool,
    #[serde(default)]
    subnet: Vec<SubnetSeed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetSeed {
    cidr: String,
    #[serde(default)]
    gateway: Option<String>,
    #[serde(default = "yes")]
    dhcp: bool,
    #[serde(default)]
    dns: Vec<String>,
    /// `[["10.0.0.10", "10.0.0.99"]]`
    #[serde(default)]
    pools: Vec<(String, String)>,
}

fn snf_image() -> String {
    "snf-image+default".to_owned()
}

fn yes() -> bool {
    true
}

/// Brings the database in line with the file; also makes the schema if it is not there.
///
/// # Errors
/// The file or the database cannot be used; then nothing has changed.
pub async fn run(config: &Config, file: &Path) -> anyhow::Result<()> {
    let seed: Seed = toml_file::load(file)?;
    let database = super::open(config).await?;
    database::migrate(&database).await?;
    let transaction = database::write(&database).await?;
    for entry in &seed.project {
        let name = &entry.name;
        let id = project(&transaction, entry).await?;
        quotas(&transaction, &id, &entry.quota)
            .await
            .with_context(|| format!("project {name:?}"))?;
    }
    for entry in &seed.user {
        let name = &entry.name;
        user(&transaction, entry)
            .await
            .with_context(|| format!("user {name:?}"))?;
    }
    for entry in &seed.backend {
        let name = &entry.name;
        backend(&transaction, entry)
            .await
            .with_context(|| format!("backend {name:?}"))?;
    }
    for entry in &seed.flavor {
        flavor(&transaction, entry).await.context("flavor")?;
    }
    for entry in &seed.image {
        let name = &entry.name;
        image(&transaction, entry)
            .await
            .with_context(|| format!("image {name:?}"))?;
    }
    for entry in &seed.network {
        let name = &entry.name;
        network(&transaction, config, entry)
            .await
            .with_context(|| format!("network {name:?}"))?;
    }
    transaction.commit().await?;
    println!(
        "seeded: {} projects, {} users, {} backends, {} flavors, {} images, {} networks",
        seed.project.len(),
        seed.user.len(),
        seed.backend.len(),
        seed.flavor.len(),
        seed.image.len(),
        seed.network.len(),
    );
    Ok(())
}

async fn project(transaction: &DatabaseTransaction, entry: &ProjectSeed) -> anyhow::Result<String> {
    let found = project::Entity::find()
        .filter(project::Column::Name.eq(entry.name.as_str()))
        .one(transaction)
        .await?;
    if let Some(found) = found {
        return Ok(found.id);
    }
    let id = match &entry.id {
        Some(id) => id.clone(),
        None => id::random()?,
    };
    let row = project::ActiveModel {
        id: ActiveValue::Set(id),
        name: ActiveValue::Set(entry.name.clone()),
        enabled: ActiveValue::Set(true),
        created_at: ActiveValue::Set(moment::now()),
    };
    Ok(row.insert(transaction).await?.id)
}

async fn quotas(
    transaction: &DatabaseTransaction,
    project_id: &str,
    limits: &BTreeMap<String, i64>,
) -> anyhow::Result<()> {
    for (name, most) in limits {
        if !Resource::ALL.iter().any(|known| known.name() == name) {
            let known = Resource::ALL.map(Resource::name).join(", ");
            bail!("quota: {name}: must be one of {known}");
        }
        if *most < UNLIMITED {
            bail!("quota: {name} = {most}: must be 0 or more, or {UNLIMITED} for no limit");
        }
        quota::Entity::insert(quota::ActiveModel {
            project_id: ActiveValue::Set(project_id.to_owned()),
            resource: ActiveValue::Set(name.clone()),
            most: ActiveValue::Set(*most),
        })
        .on_conflict(
            OnConflict::columns([quota::Column::ProjectId, quota::Column::Resource])
                .update_column(quota::Column::Most)
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await?;
    }
    Ok(())
}

async fn project_id(database: &impl ConnectionTrait, name: &str) -> anyhow::Result<String> {
    project::Entity::find()
        .filter(project::Column::Name.eq(name))
        .one(database)
        .await?
        .map(|project| project.id)
        .with_context(|| format!("project {name:?} is not known"))
}

async fn user(transaction: &DatabaseTransaction, entry: &UserSeed) -> anyhow::Result<()> {
    let Some(first) = entry.projects.first() else {
        bail!("projects: a user needs at least one");
    };
    if let Some(name) = entry
        .administers
        .iter()
        .find(|name| !entry.projects.contains(name))
    {
        bail!("administers: {name:?} is not in projects");
    }
    let default = project_id(transaction, first).await?;
    let found = user::Entity::find()
        .filter(user::Column::Name.eq(entry.name.as_str()))
        .one(transaction)
        .await?;
    let known = found.is_some();
    let old_hash = found.as_ref().and_then(|user| user.password_hash.clone());
    let mut row = match found {
        Some(found) => found.into_active_model(),
        None => user::ActiveModel {
            id: ActiveValue::Set(match &entry.id {
                Some(id) => id.clone(),
                None => id::random()?,
            }),
            name: ActiveValue::Set(entry.name.clone()),
            password_hash: ActiveValue::Set(None),
            enabled: ActiveValue::Set(true),
            created_at: ActiveValue::Set(moment::now()),
            ..Default::default()
        },
    };
    let mut changed = false;
    row.email = ActiveValue::Set(entry.email.clone());
    row.admin = ActiveValue::Set(entry.admin);
    row.project_id = ActiveValue::Set(default);
    if let Some(password) = &entry.password
        && !passwords::matches(password, old_hash.as_deref())
    {
        if password.len() > LONGEST {
            bail!("password: longer than {LONGEST} bytes");
        }
        let hash = passwords::hash(password).map_err(anyhow::Error::msg)?;
        row.password_hash = ActiveValue::Set(Some(hash));
        changed = true;
    }
    let user = if known {
        row.update(transaction).await?
    } else {
        row.insert(transaction).await?
    };
    if changed {
        issue::revoke_of_password(transaction, &user.id).await?;
    }
    for name in &entry.projects {
        let project = project_id(transaction, name).await?;
        let role = match entry.administers.contains(name) {
            true => membership::Role::Manager,
            false => membership::Role::Member,
        };
        let key = (user.id.clone(), project.clone());
        let found = membership::Entity::find_by_id(key).one(transaction).await?;
        match found {
            None => {
                membership::ActiveModel {
                    user_id: ActiveValue::Set(user.id.clone()),
                    project_id: ActiveValue::Set(project),
                    role: ActiveValue::Set(role.name().to_owned()),
                }
                .insert(transaction)
                .await?;
            }
            // A role that was given since is not taken back.
            Some(found) if role > found.role() => {
                let mut row = found.into_active_model();
                row.role = ActiveValue::Set(role.name().to_owned());
                row.update(transaction).await?;
            }
            Some(_) => {}
        }
    }
    if let Some(text) = &entry.token {
        if text.len() < 16 {
            bail!("token: shorter than 16 characters: it could be guessed");
        }
        let key = digest(text);
        if token::Entity::find_by_id(key.as_str())
            .one(transaction)
            .await?
            .is_none()
        {
            token::ActiveModel {
                digest: ActiveValue::Set(key),
                user_id: ActiveValue::Set(user.id),
                project_id: ActiveValue::Set(Some(user.project_id)),
                issued_at: ActiveValue::Set(moment::now()),
                expires_at: ActiveValue::Set(token::NEVER),
                parent: ActiveValue::Set(None),
            }
            .insert(transaction)
            .await?;
        }
    }
    Ok(())
}

async fn backend(transaction: &DatabaseTransaction, entry: &BackendSeed) -> anyhow::Result<()> {
    if !(entry.url.starts_with("https://") || entry.url.starts_with("http://")) {
        bail!(
            "url: {:?}: must begin with https:// (or http://)",
            entry.url
        );
    }
    let found = backend::Entity::find()
        .filter(backend::Column::Name.eq(entry.name.as_str()))
        .one(transaction)
        .await?;
    let known = found.is_some();
    let mut row = match found {
        Some(found) => found.into_active_model(),
        None => {
            let used: Vec<i32> = backend::Entity::find()
                .select_only()
                .column(backend::Column::MacIndex)
                .into_tuple()
                .all(transaction)
                .await?;
            let Some(index) = (0..16).find(|index| !used.contains(index)) else {
                bail!("there are sixteen backends already: no digit is left for MAC addresses");
            };
            backend::ActiveModel {
                name: ActiveValue::Set(entry.name.clone()),
                mac_index: ActiveValue::Set(index),
                disk_templates: ActiveValue::Set(json!([])),
                memory_total: ActiveValue::Set(0),
                memory_free: ActiveValue::Set(0),
                disk_total: ActiveValue::Set(0),
                disk_free: ActiveValue::Set(0),
                cpus: ActiveValue::Set(0),
                instances: ActiveValue::Set(0),
                measured_at: ActiveValue::Set(None),
                version: ActiveValue::Set(None),
                cluster: ActiveValue::Set(None),
                ..Default::default()
            }
        }
    };
    row.url = ActiveValue::Set(entry.url.trim_end_matches('/').to_owned());
    row.username = ActiveValue::Set(entry.username.clone());
    row.password_file = ActiveValue::Set(entry.password_file.clone());
    row.ca_file = ActiveValue::Set(entry.ca_file.clone());
    row.insecure = ActiveValue::Set(entry.insecure);
    row.drained = ActiveValue::Set(entry.drained);
    row.offline = ActiveValue::Set(entry.offline);
    row.hvparams = ActiveValue::Set(json!(entry.hvparams));
    row.os_params = ActiveValue::Set(json!(entry.osparams));
    if known {
        row.update(transaction).await?;
    } else {
        row.insert(transaction).await?;
    }
    Ok(())
}

async fn flavor(transaction: &DatabaseTransaction, entry: &FlavorSeed) -> anyhow::Result<()> {
    if entry.vcpus < 1 || entry.ram < 1 || entry.disk < 0 {
        bail!("vcpus and ram must be at least 1, disk not negative: {entry:?}");
    }
    let name = match &entry.name {
        Some(name) => name.clone(),
        None => format!(
            "C{}R{}D{}{}",
            entry.vcpus, entry.ram, entry.disk, entry.disk_template
        ),
    };
    let found = flavor::Entity::find()
        .filter(flavor::Column::Name.eq(name.as_str()))
        .one(transaction)
        .await?;
    if let Some(found) = found {
        // Servers may be of this size: what it is does not change, only who may use it.
        if (found.vcpus, found.ram, found.disk) != (entry.vcpus, entry.ram, entry.disk)
            || found.disk_template != entry.disk_template
        {
            bail!("{name:?} exists with another size: give the new one another name");
        }
        let mut row = found.into_active_model();
        row.public = ActiveValue::Set(entry.public);
        row.allow_create = ActiveValue::Set(entry.allow_create);
        row.disk_provider = ActiveValue::Set(entry.disk_provider.clone());
        row.update(transaction).await?;
        return Ok(());
    }
    flavor::ActiveModel {
        id: ActiveValue::NotSet,
        name: ActiveValue::Set(name),
        vcpus: ActiveValue::Set(entry.vcpus),
        ram: ActiveValue::Set(entry.ram),
        disk: ActiveValue::Set(entry.disk),
        disk_template: ActiveValue::Set(entry.disk_template.clone()),
        disk_provider: ActiveValue::Set(entry.disk_provider.clone()),
        public: ActiveValue::Set(entry.public),
        allow_create: ActiveValue::Set(entry.allow_create),
        created_at: ActiveValue::Set(moment::now()),
        deleted_at: ActiveValue::Set(None),
    }
    .insert(transaction)
    .await?;
    Ok(())
}

async fn image(transaction: &DatabaseTransaction, entry: &ImageSeed) -> anyhow::Result<()> {
    check_parameters(&entry.source, &entry.format)?;
    let found = image::Entity::find()
        .filter(image::Column::Name.eq(entry.name.as_str()))
        .filter(image::Column::DeletedAt.is_null())
        .one(transaction)
        .await?;
    let project = match &entry.project {
        Some(name) => Some(project_id(transaction, name).await?),
        None => None,
    };
    let now = moment::now();
    let known = found.is_some();
    let mut row = match found {
        Some(found) => found.into_active_model(),
        None => image::ActiveModel {
            id: ActiveValue::Set(match &entry.id {
                Some(id) => id.clone(),
                None => id::random()?,
            }),
            name: ActiveValue::Set(entry.name.clone()),
            checksum: ActiveValue::Set(None),
            user_id: ActiveValue::Set(None),
            created_at: ActiveValue::Set(now),
            deleted_at: ActiveValue::Set(None),
            ..Default::default()
        },
    };
    row.os = ActiveValue::Set(entry.os.clone());
    row.os_params = ActiveValue::Set(json!(entry.osparams));
    row.source = ActiveValue::Set(entry.source.clone());
    row.format = ActiveValue::Set(entry.format.clone());
    row.size = ActiveValue::Set(entry.size);
    row.properties = ActiveValue::Set(json!(entry.properties));
    row.status = ActiveValue::Set("ACTIVE".to_owned());
    row.project_id = ActiveValue::Set(project);
    row.public = ActiveValue::Set(entry.public);
    row.min_ram = ActiveValue::Set(entry.min_ram);
    row.min_disk = ActiveValue::Set(entry.min_disk);
    row.updated_at = ActiveValue::Set(now);
    if known {
        row.update(transaction).await?;
    } else {
        row.insert(transaction).await?;
    }
    Ok(())
}

async fn network(
    transaction: &DatabaseTransaction,
    config: &Config,
    entry: &NetworkSeed,
) -> anyhow::Result<()> {
    let default_mode = match entry.kind.as_str() {
        "CUSTOM" | "MAC_FILTERED" | "PHYSICAL_VLAN" => "bridged",
        "IP_LESS_ROUTED" => "routed",
        other => {
            bail!("type: {other:?}: must be CUSTOM, IP_LESS_ROUTED, MAC_FILTERED or PHYSICAL_VLAN")
        }
    };
    let mode = entry.mode.as_deref().unwrap_or(default_mode);
    if !matches!(mode, "bridged" | "routed") {
        bail!("mode: {mode:?}: must be bridged or routed");
    }
    let project = match &entry.project {
        Some(name) => Some(project_id(transaction, name).await?),
        None => None,
    };
    let found = network::Entity::find()
        .filter(network::Column::Name.eq(entry.name.as_str()))
        .filter(network::Column::DeletedAt.is_null())
        .one(transaction)
        .await?;
    let now = moment::now();
    let known = found.is_some();
    let mut row = match found {
        Some(found) => found.into_active_model(),
        None => network::ActiveModel {
            id: ActiveValue::NotSet,
            name: ActiveValue::Set(entry.name.clone()),
            user_id: ActiveValue::Set(None),
            link: ActiveValue::Set(String::new()),
            mac_prefix: ActiveValue::Set(pools::COMMON_MAC_PREFIX.to_owned()),
            drained: ActiveValue::Set(false),
            created_at: ActiveValue::Set(now),
            deleted_at: ActiveValue::Set(None),
            ..Default::default()
        },
    };
    row.kind = ActiveValue::Set(entry.kind.clone());
    row.mode = ActiveValue::Set(mode.to_owned());
    row.project_id = ActiveValue::Set(project);
    row.public = ActiveValue::Set(entry.public);
    row.floating_ip_pool = ActiveValue::Set(entry.floating_ip_pool);
    row.external_router = ActiveValue::Set(entry.external_router);
    row.tags = ActiveValue::Set(json!(entry.tags));
    row.updated_at = ActiveValue::Set(now);
    let network = if known {
        row.update(transaction).await?
    } else {
        row.insert(transaction).await?
    };
    let id = network.id;
    let mut row = network.into_active_model();
    if let Some(link) = &entry.link {
        row.link = ActiveValue::Set(link.clone());
    } else if !known {
        row.link = ActiveValue::Set(match entry.kind.as_str() {
            "MAC_FILTERED" => config.mac_filtered_bridge.clone(),
            "IP_LESS_ROUTED" => format!("{}-link-{id}", config.names.prefix()),
            "PHYSICAL_VLAN" => pools::bridge(transaction, id, &config.bridges)
                .await?
                .context("no bridge is left: say which, as link")?,
            _ => config.custom_bridge.clone(),
        });
    }
    if let Some(prefix) = &entry.mac_prefix {
        row.mac_prefix = ActiveValue::Set(prefix.clone());
    } else if !known && entry.kind == "MAC_FILTERED" {
        let prefix = pools::mac_prefix(transaction, id).await?;
        row.mac_prefix = ActiveValue::Set(prefix.context("no MAC prefix is left")?);
    }
    row.update(transaction).await?;
    for range in &entry.subnet {
        subnet(transaction, id, range)
            .await
            .with_context(|| format!("subnet {:?}", range.cidr))?;
    }
    Ok(())
}

async fn subnet(
    transaction: &DatabaseTransaction,
    network_id: i64,
    entry: &SubnetSeed,
) -> anyhow::Result<()> {
    let version = if entry.cidr.contains(':') {
        let net: Ipv6Net = entry.cidr.parse().context("not an IPv6 prefix")?;
        if net.prefix_len() != 64 {
            bail!("must be a /64");
        }
        6
    } else {
        entry
            .cidr
            .parse::<Ipv4Net>()
            .context("not an IPv4 prefix")?;
        4
    };
    let found = subnet::Entity::find()
        .filter(subnet::Column::NetworkId.eq(network_id))
        .filter(subnet::Column::IpVersion.eq(version))
        .filter(subnet::Column::Live.eq(true))
        .one(transaction)
        .await?;
    let now = moment::now();
    let known = found.is_some();
    let mut row = match found {
        Some(found) => found.into_active_model(),
        None => subnet::ActiveModel {
            id: ActiveValue::NotSet,
            network_id: ActiveValue::Set(network_id),
            name: ActiveValue::Set(String::new()),
            ip_version: ActiveValue::Set(version),
            host_routes: ActiveValue::Set(json!([])),
            live: ActiveValue::Set(Some(true)),
            created_at: ActiveValue::Set(now),
            deleted_at: ActiveValue::Set(None),
            ..Default::default()
        },
    };
    let pools: Vec<Value> = entry
        .pools
        .iter()
        .map(|(first, last)| json!([first, last]))
        .collect();
    row.cidr = ActiveValue::Set(entry.cidr.clone());
    row.gateway = ActiveValue::Set(entry.gateway.clone());
    row.dhcp = ActiveValue::Set(version == 4 && entry.dhcp);
    row.slaac = ActiveValue::Set(version == 6 && entry.dhcp);
    row.dns = ActiveValue::Set(json!(entry.dns));
    row.pools = ActiveValue::Set(json!(pools));
    row.updated_at = ActiveValue::Set(now);
    if known {
        row.update(transaction).await?;
    } else {
        row.insert(transaction).await?;
    }
    Ok(())
}
