//! Ingest beside agentevals, the live dev server whose work Tailspan takes over: the same bodies to both, one after the other.
//!
//! It keeps what it gets in its own memory; we store it in Redis, whose share is printed apart.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;

use crate::{
    latency::Http,
    serve::{cpu_of, resident_bytes_of},
};

/// A Python program with many imports, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// `agentevals serve --dev` with an OTLP receiver.
pub(crate) struct Agentevals {
    address: String,
    child: Child,
}

impl Agentevals {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let child = Command::new(program)
            .args(["serve", "--dev", "--headless", "--host", "127.0.0.1"])
            .args(["--port", &ports[0], "--otlp-http-port", &ports[1]])
            .args(["--otlp-grpc-port", &ports[2], "--api-grpc-port", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            address: format!("127.0.0.1:{}", ports[1]),
            child,
        };
        server.answers(program)
    }

    /// `agentevals serve --dev` of version 0.7.3, which has the WebSocket.
    pub(crate) fn start_live(program: &Path) -> Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let child = Command::new(program)
            .args(["serve", "--dev", "--headless", "--host", "127.0.0.1"])
            .args(["--port", &ports[0], "--otlp-http-port", &ports[1]])
            .args(["--otlp-grpc-port", &ports[2]])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            address: format!("127.0.0.1:{}", ports[0]),
            child,
        };
        server.answers(program)
    }

    fn answers(mut self, program: &Path) -> Result<Self> {
        let since = Instant::now();
        while Http::connect(&self.address).is_err() {
            if self.child.try_wait()?.is_some() || since.elapsed() > START {
                bail!("{} does not serve", program.display());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(self)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.child)
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        resident_bytes_of(&self.child)
    }

    /// How many of the bodies it took before it was full, and the CPU time of that.
    pub(crate) fn take(&self, bodies: &[Bytes]) -> Result<(usize, Duration)> {
        let mut client = Http::connect(&self.address)?;
        let before = cpu_of(&self.child)?;
        let mut taken = 0;
        for body in bodies {
            match client.post("/v1/traces", "application/x-protobuf", body) {
                Ok(_) => taken += 1,
                // It keeps everything in memory, up to a bound.
                Err(error) if taken > 0 && error.to_string().contains("answered 503") => break,
                Err(error) => return Err(error),
            }
        }
        Ok((taken, cpu_of(&self.child)? - before))
    }
}

impl Drop for Agentevals {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port().to_string())
}
