//! The metrics endpoint: what Prometheus scrapes, over HTTP on its own thread.
//!
//! It serves one text, made anew for each request, and nothing else; it is meant for a
//! loopback or management address, and serves one client at a time with short time-outs, so
//! that no client can hold memory or threads.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// The longest request head that is read; a longer one is refused.
const REQUEST_LIMIT: usize = 4096;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

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
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            for client in listener.incoming() {
                match client.and_then(|client| answer(client, &render)) {
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "metrics client"),
                }
            }
        })?;
    Ok(bound)
}

fn answer(mut client: TcpStream, render: &impl Fn() -> String) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = client.read(&mut chunk)?;
        head.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if length == 0 || head.len() > REQUEST_LIMIT {
            return respond(
                &mut client,
                "400 Bad Request",
                "request head too long or cut off\n",
            );
        }
    }
    if head.starts_with(b"GET /metrics ") || head.starts_with(b"GET /metrics?") {
        respond(&mut client, "200 OK", &render())
    } else if head.starts_with(b"GET ") {
        respond(&mut client, "404 Not Found", "only /metrics is here\n")
    } else {
        respond(&mut client, "405 Method Not Allowed", "only GET\n")
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
}
