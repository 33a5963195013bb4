//! A TCP proxy that does what networks do: delay, cut, reset, close one half, fall silent.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How rough the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Connections live up to this long; `None`: for ever.
    pub(crate) longest_life: Option<Duration>,
    /// Bytes wait up to this long.
    pub(crate) longest_delay: Duration,
}

impl Weather {
    pub(crate) const CALM: Self = Self {
        longest_life: None,
        longest_delay: Duration::ZERO,
    };
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: Mutex<SocketAddr>,
    weather: Mutex<Weather>,
    generation: AtomicU64,
    /// Connections up to this generation stay open and carry nothing.
    silent: AtomicU64,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr, weather: Weather) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("bound"),
            shared: Arc::new(Shared {
                to: Mutex::new(target),
                weather: Mutex::new(weather),
                generation: AtomicU64::new(1),
                silent: AtomicU64::new(0),
            }),
        };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&shared)));
            }
        });
        proxy
    }

    /// From now on, connections lead elsewhere; the old ones are cut.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.to.lock().expect("not poisoned") = target;
        self.cut_all();
    }

    /// From now on, nothing passes over the connections that are open, and nobody is told. New ones work.
    pub(crate) fn silence_all(&self) {
        let generation = self.shared.generation.load(Ordering::SeqCst);
        self.shared.silent.store(generation, Ordering::SeqCst);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn cut_all(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }
}

/// How a connection ends.
#[derive(Clone, Copy)]
enum Fate {
    Closed,
    Reset,
    /// The client hears the end, the server hears nothing.
    HalfClosed,
    /// Open, and nothing passes any more.
    Silent,
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let target = *shared.to.lock().expect("not poisoned");
    let weather = *shared.weather.lock().expect("not poisoned");
    let generation = shared.generation.load(Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let life = weather
        .longest_life
        .map(|longest| longest.mul_f64(rand::random_range(0.0..1.0)));
    let fate = match rand::random_range(0..10) {
        0..4 => Fate::Closed,
        4..7 => Fate::Reset,
        7..9 => Fate::HalfClosed,
        _ => Fate::Silent,
    };
    let cut = async {
        match life {
            Some(life) => tokio::time::sleep(life).await,
            None => std::future::pending().await,
        }
    };
    let cut_by_hand = async {
        while shared.generation.load(Ordering::SeqCst) == generation {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let delay = weather.longest_delay;
    tokio::select! {
        () = pass(&mut from_client, &mut to_server, delay) => return,
        () = pass(&mut from_server, &mut to_client, delay) => return,
        () = cut_by_hand => {
            if shared.silent.load(Ordering::SeqCst) >= generation {
                std::future::pending::<()>().await;
            }
            return;
        }
        () = cut => {}
    }
    match fate {
        Fate::Closed => {}
        Fate::Reset => {
            // Linger 0 makes the close a reset.
            if let Ok(socket) = to_client.reunite(from_client) {
                let _ = socket.set_zero_linger();
            }
        }
        Fate::HalfClosed => {
            let _ = to_client.shutdown().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Fate::Silent => tokio::time::sleep(Duration::from_millis(600)).await,
    }
}

async fn pass(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, longest_delay: Duration) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        if !longest_delay.is_zero() && rand::random_bool(0.2) {
            tokio::time::sleep(longest_delay.mul_f64(rand::random_range(0.0..1.0))).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
