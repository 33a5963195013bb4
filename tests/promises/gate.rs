//! A proxy before Redis that falls silent at a named point, so that a process can be killed there.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// Where a process is stopped: when these bytes pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) part: &'static [u8],
    /// In what the process sends; else in what Redis answers.
    pub(crate) sent: bool,
    /// Redis still gets it.
    pub(crate) passes: bool,
    /// How often they pass before.
    pub(crate) after: usize,
}

/// Falls silent, for ever, on all connections, when a process comes to a point.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    shared: Arc<Held>,
}

#[derive(Default)]
struct Held {
    stop: Mutex<Option<Stop>>,
    reached: Notify,
    /// Connections of earlier processes stay silent.
    generation: AtomicU64,
    silent: AtomicU64,
}

impl Gate {
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Held::default());
        let held = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(target).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let generation = held.generation.load(Ordering::SeqCst);
                tokio::spawn(pass(
                    from_client,
                    to_server,
                    Arc::clone(&held),
                    generation,
                    true,
                ));
                tokio::spawn(pass(
                    from_server,
                    to_client,
                    Arc::clone(&held),
                    generation,
                    false,
                ));
            }
        });
        Self { address, shared }
    }

    /// From now on: a new process, that is to be stopped there.
    pub(crate) fn arm(&self, stop: Option<Stop>) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        *self.shared.stop.lock().unwrap() = stop;
    }

    /// Waits until it is.
    pub(crate) async fn reached(&self) {
        self.shared.reached.notified().await;
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    held: Arc<Held>,
    generation: u64,
    is_request: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        if held.silent.load(Ordering::SeqCst) >= generation && generation > 0 {
            continue;
        }
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        let passes = {
            let mut stop = held.stop.lock().unwrap();
            let is_mine = held.generation.load(Ordering::SeqCst) == generation;
            match stop.as_mut() {
                Some(at) if is_mine && at.sent == is_request && holds(at.part) => {
                    if at.after == 0 {
                        let passes = at.passes;
                        *stop = None;
                        held.silent.store(generation, Ordering::SeqCst);
                        held.reached.notify_one();
                        passes
                    } else {
                        at.after -= 1;
                        true
                    }
                }
                _ => true,
            }
        };
        if passes && to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
