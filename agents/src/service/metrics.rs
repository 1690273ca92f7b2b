//! The metrics endpoint: what Prometheus scrapes, over HTTP on its own thread.
//!
//! It serves one text, made anew for each request, and nothing else; it is meant for a
//! loopback or management address. A client has a few seconds in all, and only so many are served
//! at once, of which the oldest ends for a new one: silent clients keep nobody out.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest request head that is read; a longer one is refused.
const REQUEST_LIMIT: usize = 4096;
/// The time limit of a client's request, and of each part of the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// The most clients at once.
const CLIENTS: usize = 8;
/// The pause after accepting failed, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address` and serves `render()` at `/metrics`.
///
/// Returns the address in use (`address` may have port 0).
///
/// # Errors
/// The address cannot be bound, or no thread can be started.
pub fn serve(
    address: SocketAddr,
    render: impl Fn() -> String + Send + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    let render = Arc::new(Mutex::new(render));
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || accept(&listener, &render))?;
    Ok(bound)
}

/// Serves clients, each in a thread of its own.
fn accept<R: Fn() -> String + Send + 'static>(listener: &TcpListener, render: &Arc<Mutex<R>>) {
    let mut clients: VecDeque<(TcpStream, thread::JoinHandle<()>)> = VecDeque::new();
    let mut failing = false;
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                if !failing {
                    tracing::warn!("the metrics listener cannot accept connections: {error}");
                }
                failing = true;
                thread::sleep(PAUSE);
                continue;
            }
        };
        if failing {
            tracing::info!("the metrics listener accepts connections again");
        }
        failing = false;
        clients.retain(|(_, thread)| !thread.is_finished());
        if clients.len() >= CLIENTS
            && let Some((oldest, thread)) = clients.pop_front()
        {
            // Its reads and writes fail from now on.
            let _ = oldest.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
        let Ok(other) = client.try_clone() else {
            continue;
        };
        let render = Arc::clone(render);
        let served = thread::Builder::new()
            .name("metrics client".to_owned())
            .spawn(move || {
                let mut client = client;
                if let Err(error) = answer(&mut client, &render) {
                    tracing::debug!(%error, "metrics client");
                }
                // The list of clients has it open, too.
                let _ = client.shutdown(Shutdown::Both);
            });
        match served {
            Ok(thread) => clients.push_back((other, thread)),
            Err(error) => tracing::warn!(%error, "no thread for a client of the metrics"),
        }
    }
}

fn answer<R: Fn() -> String>(client: &mut TcpStream, render: &Mutex<R>) -> io::Result<()> {
    let start = Instant::now();
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        // A time-out of zero would be none.
        let left = CLIENT_TIMEOUT.saturating_sub(start.elapsed());
        client.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = client.read(&mut chunk)?;
        head.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if length == 0 || head.len() > REQUEST_LIMIT || start.elapsed() >= CLIENT_TIMEOUT {
            return respond(
                client,
                "400 Bad Request",
                "request head too long, cut off or late\n",
            );
        }
    }
    if head.starts_with(b"GET /metrics ") || head.starts_with(b"GET /metrics?") {
        let text = render.lock().unwrap_or_else(PoisonError::into_inner)();
        respond(client, "200 OK", &text)
    } else if head.starts_with(b"GET ") {
        respond(client, "404 Not Found", "only /metrics is here\n")
    } else {
        respond(client, "405 Method Not Allowed", "only GET\n")
    }
}

fn respond(client: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/openmetrics-text; version=1.0.0; \
         charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn it_serves_the_metrics_and_refuses_all_else() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve(any, || "up 1\n".to_owned()).unwrap();
        let good = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200"), "{good}");
        assert!(good.ends_with("\r\n\r\nup 1\n"), "{good}");
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8000));
        assert!(ask(address, &long).starts_with("HTTP/1.1 400"));
    }
    #[test]
    fn silent_and_slow_clients_keep_nobody_out() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve(any, || "up 1\n".to_owned()).unwrap();
        let silent: Vec<TcpStream> = (0..50)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let start = Instant::now();
        let good = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200"), "{good}");
        assert!(start.elapsed() < Duration::from_secs(1));
        drop(silent);
        // A byte now and then is not enough.
        let mut slow = TcpStream::connect(address).unwrap();
        let start = Instant::now();
        while slow.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(200));
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}
