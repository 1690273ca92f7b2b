//! The brokers that may be connected to, and how long to wait between attempts.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};

/// One broker: a parsed `amqp://` or `amqps://` URI. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Host(AMQPUri);

impl Host {
    /// Parses a URI.
    ///
    /// # Errors
    /// What is wrong with it, without the password.
    pub fn parse(uri: &str) -> Result<Self, String> {
        uri.parse()
            .map(Self)
            .map_err(|reason| format!("not an amqp:// or amqps:// URI: {reason}"))
    }

    /// The URI.
    pub fn uri(&self) -> &AMQPUri {
        &self.0
    }

    /// Whether it is `amqps://`.
    pub fn is_tls(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.0.authority;
        let vhost = self.0.vhost.replace('/', "%2f");
        let scheme = if self.is_tls() { "amqps" } else { "amqp" };
        write!(
            formatter,
            "{scheme}://{}:{}/{vhost}",
            authority.host, authority.port
        )
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The pause before the next attempt: after the first failure of all hosts a fraction of a
/// second, then twice as long each time up to a limit, each with up to half as much again or
/// less, so that many nodes do not come back at the same instant.
#[derive(Debug, Clone)]
pub struct Backoff {
    limit: Duration,
    failures: u32,
    random: RandomState,
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);

impl Backoff {
    /// No failure yet; pauses of at most `limit`.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            failures: 0,
            random: RandomState::new(),
        }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed; how long to wait before the next.
    pub fn pause(&mut self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.limit);
        // between half of it and all of it
        let permille = u32::try_from(self.random.hash_one(self.failures) % 501).unwrap_or(0);
        whole
            .saturating_mul(permille.saturating_add(500))
            .checked_div(1000)
            .unwrap_or(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_shown_without_its_password() {
        let host = Host::parse("amqps://eventd:s3cret@mq1.example.org:5671/%2fprod").unwrap();
        assert!(host.is_tls());
        assert_eq!(host.to_string(), "amqps://mq1.example.org:5671/%2fprod");
        assert!(!format!("{host:?}").contains("s3cret"));
        for wrong in ["", "mq1", "http://mq1/", "amqp://u:s3cret@mq1:99999/"] {
            let error = Host::parse(wrong).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_the_limit_and_differ() {
        let limit = Duration::from_secs(30);
        let mut backoff = Backoff::new(limit);
        let first = backoff.pause();
        assert!(
            (FIRST_PAUSE / 2..=FIRST_PAUSE).contains(&first),
            "{first:?}"
        );
        let later: Vec<_> = (0..50).map(|_| backoff.pause()).collect();
        assert!(later.iter().all(|pause| *pause <= limit));
        assert!(later[20..].iter().all(|pause| *pause >= limit / 2));
        assert!(later[20..].iter().any(|pause| *pause != later[20]));
        backoff.reset();
        assert!(backoff.pause() <= FIRST_PAUSE);
    }
}
