//! Reachability of the database server.
//!
//! A pool of connections cannot tell a server that is away from one that is busy: both show as a
//! wait for a connection. A connection of its own, asked all the time, can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Url;
use sea_orm::sqlx::{self, Connection as _, MySqlConnection, PgConnection};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The interval between two looks at the server.
const INTERVAL: Duration = Duration::from_millis(500);
/// The time that an answer may take; a second one that is late makes the server count as away.
const PATIENCE: Duration = Duration::from_millis(1250);
/// The number of late answers in a row that makes the server count as away.
const LATE: u32 = 2;

/// The reason for which a database server is not reachable.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The server refused, or the way to it does not exist.
    #[error("{place}: {cause}")]
    Refused {
        /// The host with its port, or the socket.
        place: String,
        /// The error of the connection.
        cause: sqlx::Error,
    },
    /// The server did not answer in time.
    #[error("{place}: no answer within {} s", .patience.as_secs_f32())]
    Silent {
        /// The host with its port, or the socket.
        place: String,
        /// The time that was waited.
        patience: Duration,
    },
}

/// The host and port, or the socket, of a database URL: never its user or password.
fn place(url: &str) -> String {
    let Ok(parsed) = Url::parse(url) else {
        return "the database".to_owned();
    };
    let socket = parsed
        .query_pairs()
        .find(|(name, _)| name == "host" || name == "socket")
        .map(|(_, value)| value.into_owned());
    let default = if url.starts_with("mysql") { 3306 } else { 5432 };
    match (socket, parsed.host_str()) {
        (Some(socket), _) => socket,
        (None, Some(host)) => format!("{host}:{}", parsed.port().unwrap_or(default)),
        (None, None) => "localhost".to_owned(),
    }
}

enum Connection {
    Postgres(PgConnection),
    MySql(MySqlConnection),
    /// A file has no server.
    File,
}

impl Connection {
    async fn open(url: &str) -> Result<Self, sqlx::Error> {
        Ok(if url.starts_with("postgres") {
            Self::Postgres(PgConnection::connect(url).await?)
        } else if url.starts_with("mysql") {
            Self::MySql(MySqlConnection::connect(url).await?)
        } else {
            Self::File
        })
    }

    async fn ping(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(connection) => connection.ping().await,
            Self::MySql(connection) => connection.ping().await,
            Self::File => Ok(()),
        }
    }
}

/// Connects once, without a second attempt.
///
/// # Errors
/// The server refuses or does not answer within `patience`; the text has the place, never the
/// password.
pub async fn probe(url: &str, patience: Duration) -> Result<(), Unreachable> {
    let attempt = async { Connection::open(url).await?.ping().await };
    match timeout(patience, attempt).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(cause)) => Err(Unreachable::Refused {
            place: place(url),
            cause,
        }),
        Err(_) => Err(Unreachable::Silent {
            place: place(url),
            patience,
        }),
    }
}

/// The reachability of the database; shared by all that ask.
#[derive(Debug, Clone)]
pub struct Availability(Arc<watch::Sender<bool>>);

impl Default for Availability {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Availability {
    /// Returns whether the database is away now.
    pub fn is_away(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the database is away.
    pub async fn away(&self) {
        let mut receiver = self.0.subscribe();
        let _ = receiver.wait_for(|away| *away).await;
    }

    fn set(&self, away: bool) {
        self.0.send_if_modified(|known| {
            let changed = *known != away;
            *known = away;
            changed
        });
    }

    /// Asks the server of `url` until `stop` is true.
    pub async fn follow(self, url: String, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.ask(&url) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn ask(&self, url: &str) {
        if url.starts_with("sqlite") {
            return;
        }
        let mut connection = None;
        let mut late = 0;
        loop {
            match (
                self.look(url, &mut connection, &mut late).await,
                self.is_away(),
            ) {
                (Look::Away(error), false) => {
                    tracing::error!(database = %place(url), %error, "the database is away");
                    self.set(true);
                }
                (Look::There, true) => {
                    tracing::info!(database = %place(url), "the database is back");
                    self.set(false);
                }
                _ => {}
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(&self, url: &str, connection: &mut Option<Connection>, late: &mut u32) -> Look {
        let known = connection.take();
        let was_known = known.is_some();
        let attempt = async {
            let mut open = match known {
                Some(open) => open,
                None => Connection::open(url).await?,
            };
            open.ping().await?;
            Ok::<Connection, sqlx::Error>(open)
        };
        match timeout(PATIENCE, attempt).await {
            Ok(Ok(open)) => {
                *connection = Some(open);
                *late = 0;
                Look::There
            }
            // The server answers: that it refuses this one connection says nothing of others.
            Ok(Err(sqlx::Error::Database(error))) if !is_ending(error.code().as_deref()) => {
                tracing::warn!(%error, "the database refuses the connection that watches it");
                *late = 0;
                Look::There
            }
            // A connection that was cut may be the only one: a new one tells.
            Ok(Err(_)) if was_known => match timeout(PATIENCE, Connection::open(url)).await {
                Ok(Ok(open)) => {
                    *connection = Some(open);
                    *late = 0;
                    Look::There
                }
                Ok(Err(error)) => Look::Away(error.to_string()),
                Err(_) => Look::Away("no answer".to_owned()),
            },
            Ok(Err(error)) => Look::Away(error.to_string()),
            Err(_) => {
                *late = late.saturating_add(1);
                match *late {
                    0..LATE => Look::Unknown,
                    _ => Look::Away("no answer".to_owned()),
                }
            }
        }
    }
}

/// The result of one look at the server.
enum Look {
    There,
    Away(String),
    /// One late answer.
    Unknown,
}

/// Returns whether a server that answers with this SQLSTATE is not there for anybody: it starts or stops
/// (class 57, operator intervention).
fn is_ending(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("57P"))
}

tokio::task_local! {
    static WRITES: Arc<AtomicBool>;
}

/// Runs `work` and knows in `wrote` whether it has begun a transaction that writes.
pub async fn observed<F: Future>(wrote: Arc<AtomicBool>, work: F) -> F::Output {
    WRITES.scope(wrote, work).await
}

/// Notes that the work of [`observed`] has begun to write.
pub(super) fn note_write() {
    let _ = WRITES.try_with(|wrote| wrote.store(true, Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_no_password() {
        for (url, expected) in [
            (
                "postgres://snf:secret@db.example.org/snf",
                "db.example.org:5432",
            ),
            ("mysql://snf:secret@[::1]:3307/snf", "[::1]:3307"),
            ("postgres:///snf?host=/run/postgresql", "/run/postgresql"),
        ] {
            assert_eq!(place(url), expected);
        }
    }

    #[tokio::test]
    async fn a_refusal_comes_at_once_with_the_place() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        for scheme in ["postgres", "mysql"] {
            let url = format!("{scheme}://snf:secret@127.0.0.1:{port}/snf");
            let begun = std::time::Instant::now();
            let text = probe(&url, Duration::from_secs(3))
                .await
                .unwrap_err()
                .to_string();
            assert!(begun.elapsed() < Duration::from_secs(2), "{text}");
            assert!(text.starts_with(&format!("127.0.0.1:{port}: ")), "{text}");
            assert!(
                text.contains("refused") && !text.contains("secret"),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn silence_has_an_end() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://snf@{}/snf", silent.local_addr().unwrap());
        let text = probe(&url, Duration::from_millis(200))
            .await
            .unwrap_err()
            .to_string();
        assert!(text.contains("no answer within 0.2 s"), "{text}");
    }
}
