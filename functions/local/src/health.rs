//! `tailspan health`: asks the server of this machine how it is; for containers that hold no other program to ask with.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

use crate::options::HealthOptions;

/// For each of connecting, sending and every read; a health check that hangs says nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// Enough of an answer to read its status from and to show somebody its body.
const ANSWER_BYTES: u64 = 8 * 1024;

/// Asks `/health` (the process answers), or `/ready` (Redis does too), and returns the body of the answer.
///
/// # Errors
///
/// Nobody answers within 3 s, or with another status than 200; then the text holds what was answered.
pub fn ask(options: &HealthOptions) -> anyhow::Result<String> {
    let host = reachable(&options.host);
    let address = (host.as_str(), options.port)
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of host {host}"))?
        .next()
        .with_context(|| format!("host {host} has no address"))?;
    let path = if options.ready { "/ready" } else { "/health" };
    let answer = get(address, path)
        .with_context(|| format!("no answer from {address} within {PATIENCE:?}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => anyhow::bail!("{address}{path} answered {}", answer.trim()),
    }
}

fn get(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // The address is a host that every server takes which listens there (see `guard`).
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where a server is reached from its own machine that was told to listen on `host`: "everywhere" is no address to connect to.
fn reachable(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".to_owned(),
        _ => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;

    /// Asks a server that gives every connection this answer.
    fn asked(answer: &'static str) -> (anyhow::Result<String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let options = HealthOptions {
            host: "0.0.0.0".to_owned(),
            port,
            ready: true,
        };
        (ask(&options), server.join().unwrap())
    }

    #[test]
    fn only_200_is_healthy() {
        let (said, request) = asked("HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ready\"}");
        assert_eq!(said.unwrap(), "{\"status\":\"ready\"}");
        assert!(request.starts_with("GET /ready HTTP/1.1\r\nhost: 127.0.0.1:"));
        for sick in ["HTTP/1.1 503 No\r\n\r\n200", "", "200", "HTTP/1.1"] {
            assert!(asked(sick).0.is_err(), "{sick}");
        }
    }

    #[test]
    fn a_server_on_every_address_is_asked_on_the_loopback() {
        assert_eq!(reachable("0.0.0.0"), "127.0.0.1");
        assert_eq!(reachable("[::]"), "::1");
        assert_eq!(reachable("::"), "::1");
        assert_eq!(reachable("10.0.0.5"), "10.0.0.5");
        assert_eq!(reachable("localhost"), "localhost");
    }
}
