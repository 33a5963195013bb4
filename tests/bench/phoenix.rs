//! Ingest beside Phoenix, which keeps traces in SQLite: the same bodies.
//!
//! It acknowledges what it only queued, so the clock runs until the number of spans it has stored no longer grows, and only those count.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tempfile::TempDir;

use crate::{agentevals::free_port, latency::Http, serve::cpu_of_tree};

const START: Duration = Duration::from_secs(120);
/// It stored nothing more for this long.
const STILL: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `phoenix serve` with a database of its own.
pub(crate) struct Phoenix {
    address: String,
    child: Child,
    _dir: TempDir,
}

/// What became of the bodies.
pub(crate) struct Stored {
    pub(crate) spans: u64,
    pub(crate) cpu: Duration,
}

impl Phoenix {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (port, grpc_port) = (free_port()?, free_port()?);
        let child = Command::new(program)
            .arg("serve")
            .env("PHOENIX_HOST", "127.0.0.1")
            .env("PHOENIX_PORT", &port)
            .env("PHOENIX_GRPC_PORT", &grpc_port)
            .env("PHOENIX_WORKING_DIR", dir.path())
            .env("PHOENIX_TELEMETRY_ENABLED", "false")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self {
            address: format!("127.0.0.1:{port}"),
            child,
            _dir: dir,
        };
        let since = Instant::now();
        while server.stored().is_err() {
            if server.child.try_wait()?.is_some() || since.elapsed() > START {
                bail!("{} does not serve", program.display());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// Sends the bodies one after the other and waits until it has stored what it will; `spans` is how many they hold.
    pub(crate) fn take(&self, bodies: &[Bytes], spans: u64) -> Result<Stored> {
        let mut client = Http::connect(&self.address)?;
        let before = cpu_of_tree(self.child.id())?;
        for body in bodies {
            let (status, answer) =
                client.answer_to("/v1/traces", "application/x-protobuf", body)?;
            if status != 200 {
                bail!(
                    "phoenix answered {status}: {}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
        let (mut stored, mut grew) = (0, Instant::now());
        while stored < spans && grew.elapsed() < STILL {
            thread::sleep(LOOK_EVERY);
            let now = self.stored()?;
            if now > stored {
                (stored, grew) = (now, Instant::now());
            }
        }
        Ok(Stored {
            spans: stored,
            cpu: cpu_of_tree(self.child.id())? - before,
        })
    }

    fn stored(&self) -> Result<u64> {
        let mut client = Http::connect(&self.address)?;
        let query = br#"{"query": "{ projects { edges { node { recordCount } } } }"}"#;
        let (status, answer) = client.answer_to("/graphql", "application/json", query)?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)
            .with_context(|| format!("phoenix answered {status}"))?;
        let projects = answer["data"]["projects"]["edges"]
            .as_array()
            .context("phoenix tells no projects")?;
        Ok(projects
            .iter()
            .filter_map(|project| project["node"]["recordCount"].as_u64())
            .sum())
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
