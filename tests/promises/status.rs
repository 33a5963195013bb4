//! How the product speaks of itself: a status page without secrets, and requests that are found again in the log.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tailspan_core::id::TenantId;
use tailspan_service::archive::ArchiveConfig;

use crate::support::{Instance, RedisServer, config, http};

/// What is logged in a test, whose runtime and server are of one thread.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn of_requests(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["span"]["name"] == "request")
            .collect()
    }
}

struct Answer {
    status: u16,
    id: String,
    body: Value,
}

async fn get(instance: &Instance, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = http().get(instance.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    Answer {
        status: answer.status().as_u16(),
        id: answer.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned(),
        body: answer.json().await.unwrap_or_default(),
    }
}

#[tokio::test]
async fn a_request_is_known_by_its_id_and_logged_when_it_fails_for_our_sake() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter("info,fred=off")
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    config.tokens.insert(
        "secret-token".to_owned(),
        TenantId::parse("team-a").unwrap(),
    );
    let instance = Instance::with(config).await;
    let token = ("authorization", "Bearer secret-token");
    let parent = (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );

    // The sender's own id, else one of ours that no other request has.
    let absent = get(
        &instance,
        "/traces/run",
        &[token, ("x-request-id", "mine-1"), parent],
    )
    .await;
    assert_eq!((absent.status, absent.id.as_str()), (404, "mine-1"));
    // What is the client's is said in the same bytes each time.
    assert_eq!(absent.body["error"].get("request_id"), None);
    let traced = get(&instance, "/traces/run", &[token, parent]).await;
    assert_eq!(traced.id, "4bf92f3577b34da6a3ce929d0e0e4736");
    let forged = get(&instance, "/nowhere", &[("x-request-id", "two words")]).await;
    let other = get(&instance, "/traces/run/stream", &[]).await;
    assert_eq!((forged.status, other.status), (404, 401));
    assert!(forged.id.len() == 32 && other.id.len() == 32 && forged.id != other.id);
    assert_eq!(get(&instance, "/health", &[]).await.status, 200);
    assert_eq!(lines.of_requests(), Vec::<Value>::new());

    redis.kill();
    let headers = [token, ("x-request-id", "mine-2")];
    let failed = get(&instance, "/traces/run/summary?secret=1", &headers).await;
    assert_eq!((failed.status, failed.id.as_str()), (503, "mine-2"));
    assert_eq!(failed.body["error"]["request_id"], "mine-2");
    let told = lines.of_requests();
    assert_eq!(told.len(), 1, "{told:?}");
    let (line, span) = (&told[0], &told[0]["span"]);
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["fields"]["message"], "a request failed");
    assert_eq!(
        (&line["fields"]["status"], &line["fields"]["code"]),
        (&json!(503), &json!("unavailable"))
    );
    assert!(
        line["fields"]["cause"].as_str().unwrap().len() > 3,
        "{line}"
    );
    assert_eq!(span["request_id"], "mine-2");
    assert_eq!(span["route"], "/traces/{trace_id}/summary");
    assert_eq!(
        (&span["method"], &span["tenant"], &span["trace_id"]),
        (&json!("GET"), &json!("team-a"), &json!("run"))
    );
    assert!(!line.to_string().contains("secret"), "{line}");
}

#[tokio::test]
async fn a_status_page_says_how_it_is_and_nothing_of_anybody() {
    let mut redis = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&redis.url());
    for team in ["one", "two"] {
        let tenant = TenantId::parse(&format!("team-{team}")).unwrap();
        config.tokens.insert(format!("token-{team}"), tenant);
    }
    config.admin_token = Some("token-admin".to_owned());
    config.archive = Some(ArchiveConfig::Folder(folder.path().to_owned()));
    let instance = Instance::with(config).await;
    let admin = [("authorization", "Bearer token-admin")];
    // It counts over all tenants.
    assert_eq!(get(&instance, "/status", &[]).await.status, 401);
    let tenant = [("authorization", "Bearer token-one")];
    assert_eq!(get(&instance, "/status", &tenant).await.status, 403);

    let is = get(&instance, "/status", &admin).await;
    assert_eq!(is.status, 200);
    let is = is.body;
    assert_eq!(
        (&is["mode"], &is["store"]["up"]),
        (&json!("server"), &json!(true)),
        "{is}"
    );
    assert_eq!(is["status"], "ok", "{is}");
    assert_eq!(is["streams"], json!({"open": 0, "limit": 10_000}));
    assert_eq!(is["work"]["set_aside"], 0);
    assert_eq!(
        is["archive"],
        json!({"configured": true, "healthy": true, "kind": "folder"})
    );
    assert!(is["uptime_seconds"].is_u64() && is["limits"]["body_bytes"].is_u64());

    let aside = folder.path().with_extension("away");
    std::fs::rename(folder.path(), &aside).unwrap();
    let is = get(&instance, "/status", &admin).await.body;
    assert_eq!(
        (&is["status"], &is["archive"]["healthy"]),
        (&json!("degraded"), &json!(false))
    );
    assert!(is["archive"]["last_failed_at"].is_string(), "{is}");
    std::fs::rename(&aside, folder.path()).unwrap();

    redis.kill();
    let is = get(&instance, "/status", &admin).await;
    assert_eq!(
        (is.status, &is.body["status"]),
        (200, &json!("unavailable"))
    );
    let text = is.body.to_string();
    for secret in [
        "team-",
        "token",
        "127.0.0.1",
        "redis://",
        folder.path().to_str().unwrap(),
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
