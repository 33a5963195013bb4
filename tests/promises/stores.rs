//! The stores that the log's promises are shown on: releases of Redis and Valkey, TLS with a user of few rights, a sentinel.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tailspan_service::config::{Config, RedisTls};
use tempfile::TempDir;

use crate::support::{RedisServer, ReservedPort, Store, config};

const VOLATILE: [&str; 4] = ["--save", "", "--appendonly", "no"];

pub(crate) async fn redis_6_2() -> Store {
    Store::Node(RedisServer::of(fetched("get-redis-6.2"), &VOLATILE).await)
}

pub(crate) async fn valkey_9() -> Store {
    Store::Node(RedisServer::of(fetched("get-valkey"), &VOLATILE).await)
}

pub(crate) async fn secured() -> Store {
    Store::Secured(Secured::start().await)
}

pub(crate) async fn behind_a_sentinel() -> Store {
    Store::Sentinel(Watched::start().await)
}

/// A server that a script of ours fetches where it is not there yet. One that cannot be had is an error, and not a test that passed.
pub(crate) fn fetched(script: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scripts")
        .join(script);
    let output = Command::new(&script).output().expect("the script runs");
    if output.status.code() == Some(3) && std::env::var_os("CI").is_none() {
        eprintln!(
            "{}: not for this platform; the usual server takes its place",
            script.display()
        );
        return crate::support::redis_binary();
    }
    assert!(output.status.success(), "{}: {output:?}", script.display());
    let path = String::from_utf8(output.stdout).expect("a path");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    target.join(path.trim())
}

/// The rule of docs/operations.md, word for word: what is shown with it holds for who follows the document.
pub(crate) fn documented_rule() -> Vec<String> {
    let text = include_str!("../../docs/operations.md");
    let rule = text
        .lines()
        .skip_while(|line| !line.starts_with("ACL SETUSER tailspan"))
        .take_while(|line| !line.starts_with("```"))
        .flat_map(|line| line.trim_end_matches('\\').split_whitespace());
    rule.map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

/// A Redis that takes TLS with known certificates from the product, and plain connections from the test.
pub(crate) struct Secured {
    pub(crate) server: RedisServer,
    pub(crate) tls_port: ReservedPort,
    pub(crate) files: TempDir,
}

impl Secured {
    pub(crate) async fn start() -> Self {
        let files = tempfile::tempdir().expect("a temporary folder");
        certificates(files.path());
        let tls_port = ReservedPort::take();
        let file = |name: &str| files.path().join(name).display().to_string();
        let server = RedisServer::start_with(&[
            "--save",
            "",
            "--tls-port",
            &tls_port.number.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
        ])
        .await;
        let rule = documented_rule();
        let rule: Vec<_> = rule.iter().map(String::as_str).collect();
        assert_eq!(server.cli(&rule).await, "+OK\r\n");
        Self {
            server,
            tls_port,
            files,
        }
    }

    pub(crate) fn url(&self) -> String {
        let port = self.tls_port.number;
        format!("rediss://tailspan:a-long-password@localhost:{port}")
    }

    pub(crate) fn config(&self) -> Config {
        let file = |name: &str| self.files.path().join(name);
        Config {
            redis_tls: RedisTls {
                ca_file: Some(file("ca.pem")),
                client_files: Some((file("client.pem"), file("client.key"))),
            },
            ..config(&self.url())
        }
    }
}

/// An authority, and two certificates that it signed: for a server called localhost, and for a client.
fn certificates(folder: &Path) {
    let key = || KeyPair::generate().expect("a key");
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect(name);
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority
        .distinguished_name
        .push(DnType::CommonName, "an authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("signed");
    write("ca.pem", authority.pem());
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = key();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &authority).expect("signed");
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// A master with a replica, and a sentinel that asks for a password of its own.
pub(crate) struct Watched {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinel: std::process::Child,
    pub(crate) sentinel_port: ReservedPort,
    _folder: TempDir,
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let (master, replica) = tokio::join!(RedisServer::start(), RedisServer::start());
        replica
            .cli(&["REPLICAOF", "127.0.0.1", &master.port.to_string()])
            .await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sentinel_port = ReservedPort::take();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 700\nsentinel failover-timeout main 5000\nuser default on >of-the-sentinel ~* &* +@all\n",
            sentinel_port.number,
            folder.path().display(),
            master.port,
        );
        std::fs::write(&file, text).expect("written");
        let sentinel = Command::new(crate::support::redis_binary())
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a sentinel starts");
        let watched = Self {
            master,
            replica,
            sentinel,
            sentinel_port,
            _folder: folder,
        };
        for _ in 0..1_000 {
            let master = watched.master.cli(&["INFO", "replication"]).await;
            let listens =
                tokio::net::TcpStream::connect(("127.0.0.1", watched.sentinel_port.number)).await;
            if listens.is_ok() && master.contains("state=online") {
                return watched;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the replica or the sentinel is not there after 10 s");
    }

    /// Waits until the sentinel knows whom to promote.
    pub(crate) async fn sees_the_replica(&self) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = ("127.0.0.1", self.sentinel_port.number);
        let mut socket = tokio::net::TcpStream::connect(address)
            .await
            .expect("it listens");
        let login = b"AUTH of-the-sentinel\r\n";
        socket.write_all(login).await.expect("sent");
        let port = self.replica.port.to_string();
        let mut said = Vec::with_capacity(64 * 1024);
        for _ in 0..1_500 {
            said.clear();
            let asked = b"SENTINEL REPLICAS main\r\n";
            socket.write_all(asked).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.read_buf(&mut said).await.expect("answered");
            let text = String::from_utf8_lossy(&said);
            if text.contains(&port) && text.contains("master-link-status\r\n$2\r\nok") {
                return;
            }
        }
        let text = String::from_utf8_lossy(&said);
        panic!("the sentinel does not see the replica after 30 s: {text}");
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "redis-sentinel://127.0.0.1:{}?service=main&sentinel_password=of-the-sentinel",
            self.sentinel_port.number
        )
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}
