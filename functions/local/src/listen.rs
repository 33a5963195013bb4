//! Sockets: bound with clear words, served with bounds on time and number, drained at the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::streams;

/// A client that is gone without a word (a closed laptop) is noticed when what was sent to it stays unconfirmed this long.
const UNCONFIRMED_SECONDS: u64 = 60;
/// From the end of an answer, or the opening of the connection, to the whole head of the next request. Exporters keep connections
/// open between their batches, which are seconds apart.
const HEAD_SECONDS: u64 = 75;
/// Connections that wait to be accepted; as many viewers come at once when a stream's lifetime ends for all of them.
const BACKLOG: u32 = 1024;

/// Binds a port on a host.
///
/// On a loopback host the other family's loopback address is taken too when it is free: `localhost` is either, and a client that
/// tries the wrong one first would find nobody.
///
/// # Errors
///
/// The host is no address of this machine, or the port is in use; the text names `option`, which chooses another.
pub(crate) async fn bind(host: &str, port: u16, option: &str) -> anyhow::Result<Vec<TcpListener>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|error| anyhow::anyhow!("cannot find the address of host {host}: {error}"))?
        .collect();
    // IPv4 first: it is what the printed address says.
    let Some(first) = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first()) else {
        anyhow::bail!("host {host} has no address");
    };
    let listener = listen(*first).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {port} on {host} is in use by another program: stop it, or choose another port with {option}"
        ),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "port {port} on {host} is not for this user (ports below 1024 need root): choose another with {option}"
        ),
        _ => anyhow::anyhow!("cannot listen on {first}: {error}"),
    })?;
    let port = listener.local_addr()?.port();

    let mut listeners = vec![listener];
    if first.ip() == IpAddr::from([127, 0, 0, 1]) {
        listeners.extend(listen(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).ok());
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A port whose last connections are still being forgotten by the kernel may be taken again; one with a listener may not.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves a router on every listener until `stop`, then lets the requests in flight finish.
///
/// Beyond the permits of `connections` a client is told 503 at once. The connections are in `tracker`: closed and empty, all is
/// answered. `stop` ends the accepting and the idle connections; that a stream ends is the router's own matter.
pub(crate) fn serve(
    listeners: Vec<TcpListener>,
    router: &Router,
    connections: &Arc<Semaphore>,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) {
    for listener in listeners {
        let (router, connections) = (router.clone(), connections.clone());
        let (stop, connection_tracker) = (stop.clone(), tracker.clone());
        tracker.spawn(async move {
            while let Some(stream) = accept(&listener, &stop).await {
                match connections.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let connection = answer(stream, router.clone(), stop.clone(), permit);
                        connection_tracker.spawn(connection);
                    }
                    Err(_) => {
                        connection_tracker.spawn(refuse(stream));
                    }
                }
            }
        });
    }
}

async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => return Some(stream),
            // The client went away while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // No file descriptors or no memory: there may be some in a moment, and spinning would not bring them.
            Err(error) => {
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    set_socket_options(&stream);
    let mut stream = stream;
    let asked = tokio::select! {
        asked = Box::pin(streams::asked(&mut stream, Duration::from_secs(HEAD_SECONDS))) => asked,
        () = stop.cancelled() => None,
    };
    if let Some(request) = asked {
        if let Err(error) = streams::answer(stream, router, request).await {
            tracing::debug!("stream ended: {error}");
        }
        return;
    }
    Box::pin(answer_any(stream, router, stop)).await;
}

/// Whatever a client wants, by a general server.
async fn answer_any(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECONDS))
        .serve_connection(TokioIo::new(stream), service)
        // A WebSocket leaves here, and is a task of its own.
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients leave in many ways; that is their right.
        tracing::debug!("connection ended: {error}");
    }
}

fn set_socket_options(stream: &TcpStream) {
    // A socket that cannot do one of these still works.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let unconfirmed = Duration::from_secs(UNCONFIRMED_SECONDS);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(unconfirmed));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(unconfirmed));
}

/// One connection too many: says so without reading what it wants.
async fn refuse(mut stream: TcpStream) {
    const BODY: &str = r#"{"error":{"code":"too_many_connections","message":"this process has as many connections as it may have"}}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let _ = within_a_second(stream.write_all(answer.as_bytes())).await;
    let _ = within_a_second(stream.shutdown()).await;
}

async fn within_a_second<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(Duration::from_secs(1), future)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::routing::get;
    use tokio::io::AsyncReadExt;

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        tracker: TaskTracker,
    }

    async fn serve_slowly(most: usize) -> Served {
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            "done"
        };
        let router = Router::new().route("/slow", get(slow));
        let listeners = bind("127.0.0.1", 0, "--port").await.unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let connections = Arc::new(Semaphore::new(most));
        serve(listeners, &router, &connections, &stop, &tracker);
        tracker.close();
        Served {
            address,
            stop,
            tracker,
        }
    }

    async fn request(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_stop_lets_the_request_in_flight_finish_and_closes_idle_connections() {
        let served = serve_slowly(10).await;
        let idle = TcpStream::connect(served.address).await.unwrap();
        let busy = request(served.address).await;
        tokio::time::sleep(Duration::from_millis(50)).await;

        served.stop.cancel();
        assert!(rest(busy).await.ends_with("done"));
        assert_eq!(rest(idle).await, "");
        served.tracker.wait().await;
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so() {
        let served = serve_slowly(1).await;
        let first = request(served.address).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = TcpStream::connect(served.address).await.unwrap();
        assert!(rest(second).await.starts_with("HTTP/1.1 503 "));

        served.stop.cancel();
        assert!(rest(first).await.ends_with("done"));
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_option_that_chooses_another() {
        let taken = bind("127.0.0.1", 0, "--port").await.unwrap();
        let port = taken[0].local_addr().unwrap().port();
        let error = bind("127.0.0.1", port, "--otlp-port").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "port {port} on 127.0.0.1 is in use by another program: stop it, or choose another port with --otlp-port"
            )
        );
    }

    #[tokio::test]
    async fn a_loopback_port_answers_under_both_of_its_addresses() {
        let listeners = bind("localhost", 0, "--port").await.unwrap();
        assert!(listeners[0].local_addr().unwrap().is_ipv4());
        let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
        assert_eq!(listeners.len(), if has_ipv6 { 2 } else { 1 });
    }
}
