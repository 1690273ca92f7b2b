//! The listener of the API: takes connections, up to a number in all and per address, and bounds
//! the time that each may take for what it sends and for taking what it is sent.
//!
//! When there are too many, the one that has done nothing for the longest makes room; if all are
//! busy, a new one is answered with 503. Websockets count, and have limits of their own.

pub mod body;
mod connection;
pub mod descriptors;
mod stream;
mod table;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::table::{Full, Table};
use crate::metrics;

pub use self::table::share;

/// The pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);
/// The interval at which a lasting trouble is logged.
const REMIND: Duration = Duration::from_secs(60);
/// The time without trouble until it is said to be over.
const CALM: Duration = Duration::from_secs(5);
/// The most connections that are answered at once that there is no room, and the time limit of that.
const REFUSALS: usize = 16;
const REFUSAL: Duration = Duration::from_secs(1);
/// The most connections that were told to end and may still be there when another one is taken.
const EXCESS: usize = 8;

/// The limits on connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at once.
    pub most: usize,
    /// The most of one address, or of one IPv6 network of 64 bits.
    pub per_address: usize,
    /// The time limit of a header.
    pub header: Duration,
    /// The time that a body may stand still.
    pub body: Duration,
    /// The time that a connection may be idle between two requests.
    pub idle: Duration,
    /// The time that the other side may take nothing of what is sent.
    pub send: Duration,
}

/// The service behind the listener; always ready.
pub trait RequestService:
    tower::Service<Request, Response = Response, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> RequestService for T where
    T: tower::Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves until `stop` is true and what has begun by then is done. `is_proxy` tells the addresses
/// that bring the requests of many.
pub async fn serve<S: RequestService>(
    listener: TcpListener,
    limits: Limits,
    is_proxy: impl Fn(IpAddr) -> bool,
    service: S,
    mut stop: watch::Receiver<bool>,
) {
    let table = Arc::new(Table::new(limits.most, limits.per_address));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut connections = JoinSet::new();
    let mut trouble = Trouble::default();
    let mut calm = tokio::time::interval(CALM);
    loop {
        for _ in 0..100 {
            if table.excess() <= EXCESS {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = calm.tick() => {
                trouble.look(Instant::now());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_about_one_connection(&error) => continue,
            Err(error) => {
                metrics::accept_failed();
                trouble.note(
                    Instant::now(),
                    &format!("the listener cannot accept connections: {error}"),
                );
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match table.enter(peer.ip(), is_proxy(peer.ip())) {
            Ok((place, made_room)) => {
                if made_room {
                    trouble.note(
                        Instant::now(),
                        &format!(
                            "the listener is full: an idle connection makes room for one of {}",
                            peer.ip()
                        ),
                    );
                }
                connections.spawn(connection::serve(
                    tcp,
                    peer,
                    place,
                    service.clone(),
                    limits,
                    stop.clone(),
                ));
            }
            Err(full) => {
                metrics::connection_refused(full.name());
                trouble.note(
                    Instant::now(),
                    &format!(
                        "the listener is full: {} = {} is reached, a connection of {} is refused",
                        full.name(),
                        match full {
                            Full::All => limits.most,
                            Full::Address => limits.per_address,
                        },
                        peer.ip()
                    ),
                );
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    connections.spawn(async move {
                        let _ = timeout(REFUSAL, refuse(tcp)).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns whether accepting failed for the connection alone: the next one may be good (accept(2)).
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Tells a client that there is no room for it.
async fn refuse(mut tcp: TcpStream) -> io::Result<()> {
    let body = r#"{"serviceUnavailable": {"code": 503, "message": "too many connections; try again", "details": ""}}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(answer.as_bytes()).await?;
    tcp.shutdown().await?;
    // What is not read when a connection is closed takes the answer away from the client.
    let mut rest = [0; 1024];
    while tcp.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The trouble of the listener: logged at once, then now and then, and when it is over.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    last: Option<Instant>,
    said: Option<Instant>,
    count: u64,
}

impl Trouble {
    fn note(&mut self, now: Instant, what: &str) {
        self.since.get_or_insert(now);
        self.last = Some(now);
        self.count = self.count.saturating_add(1);
        let due = self
            .said
            .is_none_or(|said| now.saturating_duration_since(said) >= REMIND);
        if due {
            self.said = Some(now);
            tracing::warn!(times = self.count, "{what}");
        }
    }

    fn look(&mut self, now: Instant) {
        if let (Some(since), Some(last)) = (self.since, self.last)
            && now.saturating_duration_since(last) >= CALM
        {
            let seconds = last.saturating_duration_since(since).as_secs();
            tracing::info!(
                times = self.count,
                seconds,
                "the listener has room again for every connection"
            );
            *self = Self::default();
        }
    }
}
