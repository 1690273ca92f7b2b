//! The configuration file, `/etc/snf-agents/eventd.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agents::ganeti::ssconf;
use agents::message::EXCHANGE;
use agents::outbox;
use agents::service::config::{self, ConfigError};
use agents::service::log::LogFilter;
use serde::Deserialize;

use crate::publish::Bounds;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/snf-agents/eventd.toml";

/// The whole configuration. Every key has a default; an unknown key is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Ganeti's job queue.
    pub queue_dir: PathBuf,
    /// The folder with the `ssconf_*` files.
    pub ssconf_dir: PathBuf,
    /// Ganeti's configuration.
    pub config_data: PathBuf,
    /// The outbox that hooks leave messages in.
    pub outbox_dir: PathBuf,
    /// Where it is written down which states are sent. Its folder is made if it is not there.
    pub cursor_file: PathBuf,
    /// This node's name in Ganeti; unset, the kernel's host name.
    pub node_name: Option<String>,
    /// The records that are logged.
    pub log: LogFilter,
    /// Where Prometheus finds the metrics; unset, nowhere.
    pub metrics: Option<SocketAddr>,
    /// How many minutes of the newest job activity a node sends again when it becomes master:
    /// what the old master may not have got out.
    pub takeover_minutes: u32,
    /// The broker.
    pub amqp: Amqp,
    /// The outbox' bounds.
    pub outbox: OutboxLimits,
    /// Where the names of instances are kept in the DNS.
    pub dns: Dns,
}

/// Where the names of instances are kept in the DNS (RFC 2136). Without a server nothing is
/// sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// The primary name server.
    pub server: Option<SocketAddr>,
    /// The zone that the names are in; instances whose name has no dot get it appended.
    pub zone: String,
    /// The zones of the addresses: `2.0.192.in-addr.arpa`, `8.b.d.0.1.0.0.2.ip6.arpa`.
    pub reverse_zones: Vec<String>,
    /// Seconds that others may keep the answers.
    pub ttl: u32,
    /// The name of the key that changes are signed with (RFC 8945); unset, they are not.
    pub key_name: Option<String>,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    pub key_algorithm: String,
    /// The file with the key, in base64, and nothing else.
    pub key_file: Option<PathBuf>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            server: None,
            zone: String::new(),
            reverse_zones: Vec::new(),
            ttl: 300,
            key_name: None,
            key_algorithm: "hmac-sha256".to_owned(),
            key_file: None,
        }
    }
}

/// How to reach the broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amqp {
    /// `amqp://user:password@host:port/vhost` or `amqps://…`; tried in turn.
    pub hosts: Vec<String>,
    /// The topic exchange.
    pub exchange: String,
    /// What to do if the exchange is not there.
    pub exchange_missing: ExchangeMissing,
    /// Seconds between heartbeats, so that a dead broker is noticed after twice that.
    pub heartbeat: u16,
    /// Seconds until an attempt to connect is given up.
    pub connect_timeout: u16,
    /// Seconds until a message that the broker does not confirm is taken for lost.
    pub confirm_timeout: u16,
    /// The longest pause between two attempts to connect, in seconds.
    pub retry_max: u16,
    /// How many messages may be under way without a confirm.
    pub window: u16,
    /// Whether messages also carry the headers of CloudEvents' AMQP binding, binary mode; the
    /// bodies stay as they are.
    pub cloudevents: bool,
    /// Certificates, for `amqps://`.
    pub tls: Tls,
}

/// What to do if the exchange is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeMissing {
    /// Declare it: durable, of type topic.
    Create,
    /// Wait until somebody has declared it.
    Wait,
}

/// Certificates, all PEM files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Who may have signed the broker's certificate; unset, the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// How much may wait in the outbox.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxLimits {
    /// Mebibytes; above it the oldest progress is dropped, then the oldest states on the way.
    pub max_mib: u32,
    /// Hours; what is older and not final is dropped.
    pub max_hours: u32,
    /// Mebibytes of what no queue wants, or the broker refuses for good; above it the oldest is
    /// dropped, final or not. Never more than `max_mib`.
    pub parked_max_mib: u32,
    /// The same, in messages.
    pub parked_max_messages: u32,
    /// Hours after which such a message is dropped.
    pub parked_max_hours: u32,
    /// The longest pause before the broker is asked again for a queue that wants them, in seconds.
    pub parked_retry_max: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_dir: "/var/lib/ganeti/queue".into(),
            ssconf_dir: ssconf::DEFAULT_FOLDER.into(),
            config_data: "/var/lib/ganeti/config.data".into(),
            outbox_dir: outbox::DEFAULT_FOLDER.into(),
            cursor_file: "/var/lib/snf-ganeti-eventd/cursor.json".into(),
            node_name: None,
            log: LogFilter::info(),
            metrics: None,
            takeover_minutes: 15,
            amqp: Amqp::default(),
            outbox: OutboxLimits::default(),
            dns: Dns::default(),
        }
    }
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            hosts: vec!["amqp://guest:guest@localhost:5672/%2f".to_owned()],
            exchange: EXCHANGE.to_owned(),
            exchange_missing: ExchangeMissing::Create,
            heartbeat: 10,
            connect_timeout: 10,
            confirm_timeout: 30,
            retry_max: 30,
            window: 1000,
            cloudevents: false,
            tls: Tls::default(),
        }
    }
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            max_mib: 256,
            max_hours: 24 * 7,
            parked_max_mib: 64,
            parked_max_messages: 10_000,
            parked_max_hours: 24 * 7,
            parked_retry_max: 60,
        }
    }
}

impl Config {
    /// Reads and checks the configuration; a file that is not there gives the defaults,
    /// unless it was asked for by name (`explicit`).
    ///
    /// # Errors
    /// The file cannot be read, or a value cannot be used; the text names file, key, value.
    pub fn load(path: &Path, explicit: bool) -> Result<Self, ConfigError> {
        let config: Self = if explicit {
            config::load(path)?
        } else {
            config::load_or_default(path)?
        };
        config.check(path)?;
        Ok(config)
    }

    /// Reads the text of such a file; `path` is for messages alone.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(path, text)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, reason: &str| {
            Err(ConfigError::Value {
                path: path.to_owned(),
                key: key.to_owned(),
                value,
                reason: reason.to_owned(),
            })
        };
        let amqp = &self.amqp;
        if amqp.hosts.is_empty() {
            return refuse("amqp.hosts", "[]".to_owned(), "at least one is needed");
        }
        for host in &amqp.hosts {
            if let Err(error) = crate::publish::Host::parse(host) {
                // the text of the URI has the password in it
                return refuse("amqp.hosts", "(one of them)".to_owned(), &error);
            }
        }
        for (key, value) in [
            ("amqp.connect_timeout", amqp.connect_timeout),
            ("amqp.confirm_timeout", amqp.confirm_timeout),
            ("amqp.retry_max", amqp.retry_max),
            ("amqp.window", amqp.window),
        ] {
            if value == 0 {
                return refuse(key, value.to_string(), "must be at least 1");
            }
        }
        if amqp.exchange.is_empty() || amqp.exchange.len() > 127 {
            let reason = "must have 1 to 127 letters";
            return refuse("amqp.exchange", format!("{:?}", amqp.exchange), reason);
        }
        if amqp.tls.certificate_file.is_some() != amqp.tls.key_file.is_some() {
            let reason = "certificate_file and key_file go together";
            return refuse("amqp.tls", format!("{:?}", amqp.tls), reason);
        }
        if let Err((key, value, reason)) = crate::dns::Zones::new(&self.dns) {
            return refuse(key, value, &reason);
        }
        let outbox = &self.outbox;
        for (key, value) in [
            ("outbox.parked_max_mib", outbox.parked_max_mib),
            ("outbox.parked_max_messages", outbox.parked_max_messages),
            ("outbox.parked_max_hours", outbox.parked_max_hours),
            (
                "outbox.parked_retry_max",
                u32::from(outbox.parked_retry_max),
            ),
        ] {
            if value == 0 {
                return refuse(key, "0".to_owned(), "must be at least 1");
            }
        }
        if self.outbox.max_mib == 0 {
            return refuse("outbox.max_mib", "0".to_owned(), "must be at least 1");
        }
        Ok(())
    }

    /// This node's name.
    ///
    /// # Errors
    /// It is not configured, and the kernel's cannot be read.
    pub fn node_name(&self) -> std::io::Result<String> {
        self.node_name.clone().map_or_else(ssconf::own_name, Ok)
    }

    /// See [`Config::takeover_minutes`].
    pub fn takeover(&self) -> Duration {
        Duration::from_secs(u64::from(self.takeover_minutes).saturating_mul(60))
    }

    /// The bounds of what no queue wants.
    pub fn bounds(&self) -> Bounds {
        let outbox = &self.outbox;
        let mebibytes = outbox.parked_max_mib.min(outbox.max_mib);
        Bounds {
            bytes: u64::from(mebibytes) << 20,
            messages: usize::try_from(outbox.parked_max_messages).unwrap_or(usize::MAX),
            age: Duration::from_secs(u64::from(outbox.parked_max_hours).saturating_mul(3600)),
        }
    }

    /// The outbox' bounds.
    pub fn limits(&self) -> outbox::Limits {
        outbox::Limits {
            bytes: u64::from(self.outbox.max_mib) << 20,
            age: Duration::from_secs(u64::from(self.outbox.max_hours).saturating_mul(3600)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGED: &str = include_str!("../../packaging/defaults/eventd.toml");

    fn load(text: &str) -> Result<Config, ConfigError> {
        let path = Path::new("/etc/x.toml");
        let config: Config = config::parse(path, text)?;
        config.check(path)?;
        Ok(config)
    }

    #[test]
    fn the_packaged_file_names_every_key_with_its_default() {
        let plain = load(PACKAGED).unwrap();
        assert_eq!(format!("{plain:?}"), format!("{:?}", Config::default()));
        // with every key taken in, it is the same but for those that have no default
        let uncommented: String = PACKAGED
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.contains(" = ") && !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut full = load(&uncommented).unwrap();
        assert_eq!(full.node_name.take().as_deref(), Some("node1.example.com"));
        assert!(full.metrics.take().is_some());
        assert!(full.amqp.tls.key_file.is_some());
        full.amqp.tls = Tls::default();
        assert!(full.dns.server.is_some() && full.dns.key_name.is_some());
        assert_eq!(full.dns.ttl, Dns::default().ttl);
        assert_eq!(full.dns.key_algorithm, Dns::default().key_algorithm);
        full.dns = Dns::default();
        assert_eq!(format!("{full:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_with_its_key() {
        for (text, key) in [
            ("[amqp]\nhosts = []", "amqp.hosts"),
            ("[amqp]\nhosts = [\"http://u:s3cret@h\"]", "amqp.hosts"),
            ("[amqp]\nwindow = 0", "amqp.window"),
            ("[amqp]\nwindow = 70000", "window"),
            ("[amqp]\nexchange = \"\"", "amqp.exchange"),
            ("[amqp]\nexchange_missing = \"cry\"", "exchange_missing"),
            ("[amqp.tls]\nkey_file = \"k\"", "amqp.tls"),
            ("[outbox]\nmax_mib = 0", "outbox.max_mib"),
            (
                "[outbox]\nparked_max_messages = 0",
                "outbox.parked_max_messages",
            ),
            ("[outbox]\nparked_retry_max = 0", "outbox.parked_retry_max"),
            ("[dns]\nserver = \"192.0.2.53:53\"", "dns.zone"),
            ("[dns]\nserver = \"192.0.2.53\"", "server"),
            (
                "[dns]\nreverse_zones = [\"example.com\"]",
                "dns.reverse_zones",
            ),
            ("[dns]\nkey_name = \"k\"", "dns.key_name"),
            ("[dns]\nkey_algorithm = \"rot13\"", "dns.key_algorithm"),
            ("quue_dir = \"/x\"", "quue_dir"),
            ("metrics = \"nowhere\"", "metrics"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(key), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
