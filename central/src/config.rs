//! The configuration file, `/etc/snf-central/central.toml`, and what it says once checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agents::addr::{Ipv4Net, Ipv6Net};
use agents::ganeti::names::Names;
use agents::service::config::{self, ConfigError};
use agents::service::log::LogFilter;
use serde::Deserialize;

use crate::ganeti::image::check_folder;
pub use crate::listener::Limits;
use crate::model::database::ACQUIRE_TIMEOUT;
pub use crate::reconcile::memory::Limit;

/// Where the configuration is read from unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/snf-central/central.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    log: Option<LogFilter>,
    metrics: Option<String>,
    api: ApiFile,
    database: DatabaseFile,
    broker: BrokerFile,
    ganeti: GanetiFile,
    tokens: TokensFile,
    images: ImagesFile,
    networks: NetworksFile,
    parameters: ParametersFile,
    reconcile: ReconcileFile,
    keystone: KeystoneFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApiFile {
    listen: String,
    console_page: Option<String>,
    base_url: Option<String>,
    body_limit: usize,
    trusted_proxies: Vec<String>,
    connections: usize,
    connections_per_address: usize,
    header_seconds: u64,
    body_seconds: u64,
    idle_seconds: u64,
    send_seconds: u64,
}

impl Default for ApiFile {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8774".to_owned(),
            console_page: None,
            base_url: None,
            body_limit: 512 << 10,
            trusted_proxies: Vec::new(),
            connections: 1024,
            connections_per_address: 640,
            header_seconds: 15,
            body_seconds: 30,
            idle_seconds: 75,
            send_seconds: 60,
        }
    }
}

/// The most connections to a database server, if the configuration does not say.
const CONNECTIONS: u32 = 16;
/// The same to an SQLite file: one writes at a time, and each has a thread and a cache.
const SQLITE_CONNECTIONS: u32 = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DatabaseFile {
    url: String,
    connections: Option<u32>,
    acquire_timeout_seconds: u64,
}

impl Default for DatabaseFile {
    fn default() -> Self {
        Self {
            url: "sqlite:///var/lib/snf-central/central.db".to_owned(),
            connections: None,
            acquire_timeout_seconds: ACQUIRE_TIMEOUT.as_secs(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BrokerFile {
    urls: Vec<String>,
    prefetch: u16,
}

impl Default for BrokerFile {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            prefetch: 64,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GanetiFile {
    prefix: String,
    timeout_seconds: u64,
}

impl Default for GanetiFile {
    fn default() -> Self {
        Self {
            prefix: "snf".to_owned(),
            timeout_seconds: 20,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokensFile {
    hours: u32,
    per_user: u64,
}

impl Default for TokensFile {
    fn default() -> Self {
        Self {
            hours: 24,
            per_user: 500,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NetworksFile {
    types: Vec<String>,
    mac_filtered_bridge: String,
    custom_bridge: String,
    bridges: Vec<String>,
}

impl Default for NetworksFile {
    fn default() -> Self {
        Self {
            types: vec!["MAC_FILTERED".to_owned()],
            mac_filtered_bridge: "prv0".to_owned(),
            custom_bridge: "br0".to_owned(),
            bridges: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ImagesFile {
    sources: Vec<String>,
    os: String,
    rescue: Option<String>,
}

impl Default for ImagesFile {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            os: "snf-image+default".to_owned(),
            rescue: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ParametersFile {
    url: Option<String>,
    nodes: Vec<String>,
    minutes: u32,
}

impl Default for ParametersFile {
    fn default() -> Self {
        Self {
            url: None,
            nodes: Vec::new(),
            minutes: 60,
        }
    }
}

/// How the OS definitions of new servers get what they are told once.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// How a node reaches this API, without a slash at its end.
    pub url: String,
    /// The networks that nodes are in; none: anybody who knows the secret may ask.
    pub nodes: Vec<Net>,
    /// How long they are kept for a node that does not ask.
    pub life: Duration,
}

/// A range of addresses, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Of IPv4.
    V4(Ipv4Net),
    /// Of IPv6.
    V6(Ipv6Net),
}

impl Parameters {
    /// Whether `address` may be a node's.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.nodes.is_empty() || admits(&self.nodes, address)
    }
}

/// Returns whether `address` is in one of `nets`.
pub fn admits(nets: &[Net], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| match (net, address) {
        (Net::V4(net), IpAddr::V4(address)) => net.contains(&address),
        (Net::V6(net), IpAddr::V6(address)) => net.contains(&address),
        _ => false,
    })
}

/// A range of addresses, or a single one.
pub fn net(text: &str) -> Option<Net> {
    let text = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => format!("{text}/32"),
        Ok(IpAddr::V6(_)) => format!("{text}/128"),
        Err(_) => text.to_owned(),
    };
    let v4 = text.parse().map(Net::V4).ok();
    v4.or_else(|| text.parse().map(Net::V6).ok())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeystoneFile {
    url: Option<String>,
    username: String,
    user_domain: String,
    project: String,
    project_domain: String,
    password_file: PathBuf,
    ca_file: Option<PathBuf>,
    timeout_seconds: u64,
    cache_seconds: u64,
    admin_roles: Vec<String>,
    admin_projects: Vec<String>,
    manager_roles: Vec<String>,
    user_roles: Vec<String>,
    create_projects: bool,
    projects: BTreeMap<String, String>,
}

impl Default for KeystoneFile {
    fn default() -> Self {
        Self {
            url: None,
            username: "central".to_owned(),
            user_domain: "Default".to_owned(),
            project: "service".to_owned(),
            project_domain: "Default".to_owned(),
            password_file: PathBuf::from("/etc/snf-central/keystone-password"),
            ca_file: None,
            timeout_seconds: 10,
            cache_seconds: 60,
            admin_roles: vec!["admin".to_owned()],
            admin_projects: Vec::new(),
            manager_roles: vec!["manager".to_owned()],
            user_roles: vec!["member".to_owned()],
            create_projects: true,
            projects: BTreeMap::new(),
        }
    }
}

/// An external Keystone, whose tokens are good here as well.
#[derive(Debug, Clone, Default)]
pub struct Keystone {
    /// Its version 3, without a slash at its end: `https://keystone.example.org:5000/v3`.
    pub url: String,
    /// As whom we ask it.
    pub username: String,
    /// The name of that user's domain.
    pub user_domain: String,
    /// The name of the project that we ask it for.
    pub project: String,
    /// The name of that project's domain.
    pub project_domain: String,
    /// Where our password is.
    pub password_file: PathBuf,
    /// Its certificate, or those of authorities.
    pub ca_file: Option<PathBuf>,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How long its answer is believed.
    pub cache: Duration,
    /// The names of roles that make an administrator: of the cloud in a token for one of
    /// [`Self::admin_projects`], of the token's project in any other.
    pub admin_roles: Vec<String>,
    /// The ids of the projects there whose administrators administer the cloud; none: a token of
    /// Keystone's makes no administrator of the cloud.
    pub admin_projects: Vec<String>,
    /// The names of roles that make an administrator of the token's project.
    pub manager_roles: Vec<String>,
    /// The names of roles that make a user here.
    pub user_roles: Vec<String>,
    /// Whether a project that was never seen is made here.
    pub create_projects: bool,
    /// By the id of a project there, the name of the one here that it is.
    pub projects: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReconcileFile {
    interval_seconds: u64,
    most_percent: u8,
    few: usize,
}

impl Default for ReconcileFile {
    fn default() -> Self {
        Self {
            interval_seconds: 60,
            most_percent: 10,
            few: 3,
        }
    }
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The records that are logged.
    pub log: LogFilter,
    /// Where Prometheus finds the metrics; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// What clients see in front of every path, without a slash at its end; none: what the
    /// request's `Host` header says, over plain HTTP.
    pub base_url: Option<String>,
    /// A page with noVNC that shows a console; none: whoever asks gets the websocket itself.
    pub console_page: Option<String>,
    /// The longest request body, in bytes.
    pub body_limit: usize,
    /// The proxies whose `X-Forwarded-For` is believed; they have no share of their own of the
    /// connections.
    pub trusted_proxies: Vec<Net>,
    /// The limits on connections.
    pub connections: Limits,
    /// `sqlite:///path`, `postgres://…` or `mysql://…`.
    pub database_url: String,
    /// The most connections to the database at once.
    pub database_connections: u32,
    /// The time that a request waits for one of them while all are in use.
    pub database_acquire_timeout: Duration,
    /// The brokers, tried in turn; none: no dispatcher runs.
    pub broker_urls: Vec<String>,
    /// How many messages a consumer may have unacknowledged.
    pub prefetch: u16,
    /// How our objects are called in Ganeti.
    pub names: Names,
    /// How long a RAPI call may take.
    pub rapi_timeout: Duration,
    /// How long a token of a login is good for.
    pub token_life: Duration,
    /// The most tokens of a user at once, without those of the seed.
    pub tokens_per_user: u64,
    /// The types of networks that users may make.
    pub network_types: Vec<String>,
    /// The bridge that all MAC_FILTERED networks share.
    pub mac_filtered_bridge: String,
    /// The bridge of CUSTOM networks.
    pub custom_bridge: String,
    /// The bridges of which every PHYSICAL_VLAN network gets one.
    pub bridges: Vec<String>,
    /// What the sources of images that users register begin with; none: only administrators
    /// register images.
    pub image_sources: Vec<String>,
    /// The OS definition, with its variant, of images that users register.
    pub image_os: String,
    /// The image that servers are rescued with: a path on every node, or a URL; none: servers
    /// cannot be rescued.
    pub rescue_image: Option<String>,
    /// How new servers get their files and passwords; none: they get none.
    pub parameters: Option<Parameters>,
    /// How often the clusters are compared with the database.
    pub reconcile_interval: Duration,
    /// How much of it one comparison may change.
    pub reconcile_limit: Limit,
    /// An external Keystone; none: only our own tokens are good.
    pub keystone: Option<Keystone>,
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has an unknown key, or a value that cannot be used;
    /// the text names the file, the key and the value.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::check(path, config::load(path)?)
    }

    /// As [`Config::load`], from `text`, which was read from `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::check(path, config::parse(path, text)?)
    }

    fn check(path: &Path, file: File) -> Result<Self, ConfigError> {
        let bad = |key: &str, value: &str, reason: String| ConfigError::Value {
            path: PathBuf::from(path),
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
        };
        let listen = file.api.listen.parse().map_err(|_| {
            bad(
                "api.listen",
                &file.api.listen,
                "not ADDRESS:PORT".to_owned(),
            )
        })?;
        for (key, url) in [
            ("api.base_url", &file.api.base_url),
            ("api.console_page", &file.api.console_page),
        ] {
            if let Some(url) = url
                && !(url.starts_with("http://") || url.starts_with("https://"))
            {
                let reason = "must begin with http:// or https://".to_owned();
                return Err(bad(key, url, reason));
            }
        }
        let scheme = file.database.url.split(':').next().unwrap_or_default();
        if !matches!(scheme, "sqlite" | "postgres" | "postgresql" | "mysql") {
            // The value may hold a password: only its scheme is shown.
            return Err(bad(
                "database.url",
                &format!("{scheme}:…"),
                "must begin with sqlite:, postgres: or mysql:".to_owned(),
            ));
        }
        for url in &file.broker.urls {
            if !(url.starts_with("amqp://") || url.starts_with("amqps://")) {
                let scheme = url.split(':').next().unwrap_or_default();
                return Err(bad(
                    "broker.urls",
                    &format!("{scheme}:…"),
                    "must begin with amqp:// or amqps://".to_owned(),
                ));
            }
        }
        let positive = |key: &str, value: u64| {
            if value == 0 {
                Err(bad(key, "0", "must be at least 1".to_owned()))
            } else {
                Ok(value)
            }
        };
        let database_connections = match file.database.connections {
            Some(connections) => connections,
            None if file.database.url.starts_with("sqlite:") => SQLITE_CONNECTIONS,
            None => CONNECTIONS,
        };
        positive("database.connections", database_connections.into())?;
        let acquire_timeout = positive(
            "database.acquire_timeout_seconds",
            file.database.acquire_timeout_seconds,
        )?;
        positive("broker.prefetch", file.broker.prefetch.into())?;
        positive("api.body_limit", file.api.body_limit as u64)?;
        positive("tokens.per_user", file.tokens.per_user)?;
        let seconds = |key: &str, value: u64| positive(key, value).map(Duration::from_secs);
        let connections = Limits {
            most: file.api.connections,
            per_address: file.api.connections_per_address,
            header: seconds("api.header_seconds", file.api.header_seconds)?,
            body: seconds("api.body_seconds", file.api.body_seconds)?,
            idle: seconds("api.idle_seconds", file.api.idle_seconds)?,
            send: seconds("api.send_seconds", file.api.send_seconds)?,
        };
        positive("api.connections", connections.most as u64)?;
        positive(
            "api.connections_per_address",
            connections.per_address as u64,
        )?;
        let mut trusted_proxies = Vec::new();
        for text in &file.api.trusted_proxies {
            let reason = || "not an address or a range, as 192.0.2.0/24".to_owned();
            trusted_proxies
                .push(net(text).ok_or_else(|| bad("api.trusted_proxies", text, reason()))?);
        }
        let timeout = positive("ganeti.timeout_seconds", file.ganeti.timeout_seconds)?;
        let hours = positive("tokens.hours", file.tokens.hours.into())?;
        let interval = positive(
            "reconcile.interval_seconds",
            file.reconcile.interval_seconds,
        )?;
        if file.reconcile.most_percent > 100 {
            let percent = file.reconcile.most_percent.to_string();
            let reason = "must be from 0 to 100".to_owned();
            return Err(bad("reconcile.most_percent", &percent, reason));
        }
        let known = ["MAC_FILTERED", "IP_LESS_ROUTED", "PHYSICAL_VLAN", "CUSTOM"];
        if let Some(other) = file
            .networks
            .types
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            let reason = format!("must be one of {}", known.join(", "));
            return Err(bad("networks.types", other, reason));
        }
        if let Some(url) = &file.parameters.url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            let reason = "must begin with http:// or https://".to_owned();
            return Err(bad("parameters.url", url, reason));
        }
        if let Some(source) = file.images.sources.iter().find(|source| source.len() < 4) {
            let reason = "too short: nearly everything would be allowed".to_owned();
            return Err(bad("images.sources", source, reason));
        }
        if let Some(image) = &file.images.rescue
            && !image.starts_with('/')
            && !image.contains("://")
        {
            let reason = "must be an absolute path or a URL".to_owned();
            return Err(bad("images.rescue", image, reason));
        }
        let minutes = positive("parameters.minutes", file.parameters.minutes.into())?;
        let mut nodes = Vec::new();
        for text in &file.parameters.nodes {
            let reason = || "not an address or a range, as 192.0.2.0/24".to_owned();
            nodes.push(net(text).ok_or_else(|| bad("parameters.nodes", text, reason()))?);
        }
        let parameters = file.parameters.url.map(|url| Parameters {
            url: url.trim_end_matches('/').to_owned(),
            nodes,
            life: Duration::from_secs(minutes * 60),
        });
        let keystone = match file.keystone.url {
            None => None,
            Some(url) => {
                let reason = match (url.starts_with("https://"), &file.keystone.ca_file) {
                    (true, None) => Some("needs keystone.ca_file to know it by"),
                    (true, Some(_)) => None,
                    (false, _) if url.starts_with("http://") => None,
                    _ => Some("must begin with http:// or https://"),
                };
                if let Some(reason) = reason {
                    return Err(bad("keystone.url", &url, reason.to_owned()));
                }
                let timeout = positive("keystone.timeout_seconds", file.keystone.timeout_seconds)?;
                Some(Keystone {
                    url: url.trim_end_matches('/').to_owned(),
                    username: file.keystone.username,
                    user_domain: file.keystone.user_domain,
                    project: file.keystone.project,
                    project_domain: file.keystone.project_domain,
                    password_file: file.keystone.password_file,
                    ca_file: file.keystone.ca_file,
                    timeout: Duration::from_secs(timeout),
                    cache: Duration::from_secs(file.keystone.cache_seconds),
                    admin_roles: file.keystone.admin_roles,
                    admin_projects: file.keystone.admin_projects,
                    manager_roles: file.keystone.manager_roles,
                    user_roles: file.keystone.user_roles,
                    create_projects: file.keystone.create_projects,
                    projects: file.keystone.projects,
                })
            }
        };
        for folder in &file.images.sources {
            check_folder(folder)
                .map_err(|reason| bad("images.sources", folder, reason.to_owned()))?;
        }
        let names = Names::new(&file.ganeti.prefix)
            .map_err(|error| bad("ganeti.prefix", &file.ganeti.prefix, error.to_string()))?;
        let metrics = match &file.metrics {
            Some(text) => Some(
                text.parse()
                    .map_err(|_| bad("metrics", text, "not an address with a port".to_owned()))?,
            ),
            None => None,
        };
        Ok(Self {
            metrics,
            log: file.log.unwrap_or_else(LogFilter::info),
            listen,
            base_url: file
                .api
                .base_url
                .map(|url| url.trim_end_matches('/').to_owned()),
            console_page: file.api.console_page,
            body_limit: file.api.body_limit,
            trusted_proxies,
            connections,
            database_url: file.database.url,
            database_connections,
            database_acquire_timeout: Duration::from_secs(acquire_timeout),
            broker_urls: file.broker.urls,
            prefetch: file.broker.prefetch,
            names,
            rapi_timeout: Duration::from_secs(timeout),
            token_life: Duration::from_secs(hours * 3600),
            tokens_per_user: file.tokens.per_user,
            network_types: file.networks.types,
            mac_filtered_bridge: file.networks.mac_filtered_bridge,
            custom_bridge: file.networks.custom_bridge,
            bridges: file.networks.bridges,
            image_sources: file.images.sources,
            image_os: file.images.os,
            rescue_image: file.images.rescue,
            parameters,
            reconcile_interval: Duration::from_secs(interval),
            reconcile_limit: Limit {
                percent: file.reconcile.most_percent,
                few: file.reconcile.few,
            },
            keystone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("central.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.listen.port(), 8774);
        assert!(config.broker_urls.is_empty());
        assert_eq!(config.names.prefix(), "snf");
    }

    #[test]
    fn only_nodes_are_admitted() {
        let text = "[parameters]\nurl = 'http://x/'\nnodes = ['10.0.0.0/24', 'fd00::7']";
        let parameters = parse(text).unwrap().parameters.unwrap();
        assert_eq!(parameters.url, "http://x");
        let admits = |text: &str| parameters.admits(text.parse().unwrap());
        assert!(admits("10.0.0.9") && admits("::ffff:10.0.0.9") && admits("fd00::7"));
        assert!(!admits("10.0.1.9") && !admits("fd00::8"));
        assert!(parse("").unwrap().parameters.is_none());
    }

    #[test]
    fn a_bad_value_is_refused_with_its_key_and_without_its_secret() {
        for (text, expected) in [
            ("[api]\nlisten = 'here'", "api.listen = here"),
            ("[api]\nbase_url = 'x'", "api.base_url"),
            (
                "[database]\nurl = 'oracle://u:secret@x'",
                "database.url = oracle:…",
            ),
            ("[database]\nconnections = 0", "database.connections"),
            (
                "[broker]\nurls = ['http://u:secret@x']",
                "broker.urls = http:…",
            ),
            ("[broker]\nprefetch = 0", "broker.prefetch"),
            ("[ganeti]\nprefix = 'a-b'", "ganeti.prefix"),
            ("[parameters]\nurl = 'x'", "parameters.url = x"),
            ("[parameters]\nnodes = ['10.0.0.0/33']", "parameters.nodes"),
            ("[ganeti]\nprefx = 'a'", "prefx"),
            ("[keystone]\nurl = 'x'", "keystone.url = x"),
            ("[keystone]\nurl = 'https://x/v3'", "keystone.ca_file"),
            (
                "[keystone]\nurl = 'http://x/v3'\ntimeout_seconds = 0",
                "keystone.timeout_seconds",
            ),
            ("[api]\nconnections = 0", "api.connections"),
            ("[api]\nheader_seconds = 0", "api.header_seconds"),
            (
                "[api]\ntrusted_proxies = ['proxy']",
                "api.trusted_proxies = proxy",
            ),
            ("[tokens]\nper_user = 0", "tokens.per_user"),
            (
                "[reconcile]\ninterval_seconds = 0",
                "reconcile.interval_seconds",
            ),
            (
                "[reconcile]\nmost_percent = 101",
                "reconcile.most_percent = 101",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
