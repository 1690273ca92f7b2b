//! The thread that carries out changes of the DNS, one after the other.
//!
//! A name server that is away or refuses keeps only the DNS waiting: never a message, and
//! never Ganeti.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use agents::message::EventTime;
use agents::outbox::{DNS_FOLDER, DnsChange, FileName, Outbox, ReadError};
use hickory_proto::rr::TSigner;

use super::exchange::{ExchangeError, exchange};
use super::update::Zones;
use crate::config::Config;
use crate::publish::{Backoff, Outage};

/// How often the folder is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A TSIG signature holds if the two clocks differ by no more than this, in seconds (RFC 8945,
/// section 10).
const FUDGE: u16 = 300;

/// Starts the thread, if a name server is configured.
///
/// # Errors
/// The key cannot be read, the folder not be made, or no thread be started.
pub fn start(config: &Config) -> io::Result<()> {
    let Some(server) = config.dns.server else {
        return Ok(());
    };
    let wrong = |(key, value, reason)| io::Error::other(format!("{key} = {value}: {reason}"));
    let zones = Zones::new(&config.dns).map_err(wrong)?;
    let signer = match &config.dns.key_file {
        None => None,
        Some(path) => Some(signer(path, &zones)?),
    };
    let outbox = Outbox::open(&config.outbox_dir.join(DNS_FOLDER))?;
    let keep = config.limits().age;
    thread::Builder::new()
        .name("dns".to_owned())
        .spawn(move || {
            Worker {
                server,
                zones,
                signer,
                outbox,
                keep,
                outage: Outage::default(),
                backoff: Backoff::new(RETRY_MAX),
            }
            .run();
        })?;
    Ok(())
}

fn signer(path: &Path, zones: &Zones) -> io::Result<TSigner> {
    let fault = |reason: String| io::Error::other(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let key = base64(text.trim()).ok_or_else(|| fault("not a key in base64".to_owned()))?;
    let name = zones.key_name.clone().unwrap_or_default();
    TSigner::new(key, zones.algorithm.clone(), name, FUDGE)
        .map_err(|error| fault(error.to_string()))
}

/// Decodes base64 (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    if digits.is_empty() || !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut held, mut bits) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        held = held << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

struct Worker {
    server: SocketAddr,
    zones: Zones,
    signer: Option<TSigner>,
    outbox: Outbox,
    /// A change that could not be carried out for so long is given up.
    keep: Duration,
    outage: Outage,
    backoff: Backoff,
}

impl Worker {
    fn run(mut self) -> ! {
        loop {
            let names = self.outbox.list().unwrap_or_else(|error| {
                tracing::error!("dns: {}: {error}", self.outbox.folder().display());
                Vec::new()
            });
            for name in names {
                while let Err(error) = self.carry_out(&name) {
                    if self.outage.fails(Instant::now()).is_some() {
                        tracing::warn!(server = %self.server, "dns: {error}; retrying");
                    }
                    if self.is_too_old(&name) {
                        tracing::error!(%name, "dns: given up: {error}");
                        break;
                    }
                    thread::sleep(self.backoff.pause());
                }
                if let Err(error) = self.outbox.remove(&name) {
                    tracing::error!(%name, "dns: cannot be removed: {error}");
                }
            }
            thread::sleep(INTERVAL);
        }
    }

    fn is_too_old(&self, name: &FileName) -> bool {
        let now = EventTime::now().since_epoch();
        now.saturating_sub(Duration::from_micros(name.time)) > self.keep
    }

    /// Carries out what is in a file. What is no change is set aside, and no error.
    fn carry_out(&mut self, name: &FileName) -> Result<(), ExchangeError> {
        let changes: Vec<DnsChange> = match self.outbox.read_json(name) {
            Ok(changes) => changes,
            Err(ReadError::Gone) => return Ok(()),
            Err(ReadError::Io(error)) => return Err(error.into()),
            Err(ReadError::Bad(error)) => {
                tracing::warn!(%name, "dns: set aside: {error}");
                return Ok(self.outbox.set_aside(name)?);
            }
        };
        for change in changes {
            let updates = match self.zones.updates(&change) {
                Ok(updates) => updates,
                Err(reason) => {
                    tracing::warn!("dns: {reason}");
                    continue;
                }
            };
            for (zone, mut message) in updates {
                exchange(self.server, &mut message, self.signer.as_ref())?;
                tracing::info!(instance = change.name, %zone, "dns: updated");
            }
            self.backoff.reset();
            if let Some(away) = self.outage.works(Instant::now()) {
                let seconds = away.as_secs_f64();
                tracing::info!(server = %self.server, "dns: works again after {seconds:.1} s");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn a_key_is_decoded_as_rfc_4648_says() {
        for (text, bytes) in [
            ("Zg==", &b"f"[..]),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["", "=", "Zg", "Zg=", "Z===", "Zm9\n", "Zm-v", "Zm9v Zm9v"] {
            assert_eq!(base64(text), None, "{text:?}");
        }
    }
}
