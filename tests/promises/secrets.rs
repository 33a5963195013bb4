//! Nothing secret is said: not in a log line at any level, not in an answer, not in what is stored, whatever is sent and however it fails.

use std::time::Duration;

use serde_json::{Value, json};
use tailspan_core::id::{TenantId, TraceId};
use tailspan_service::access::{
    Scopes,
    keys::NewKey,
    lent::{Lent, Loan},
};

use crate::{
    issuer::{Issuer, Signer, access},
    socket::Client,
    status::Lines,
    support::{Instance, RedisServer, config, http},
};

/// What a credential must not be known by: all of it that is not said openly.
fn secret_of(credential: &str) -> &str {
    // Of a key the id is listed; of a JWT and a viewer token the signature makes it one.
    match credential.rsplit_once(['.', '_']) {
        Some((_, secret)) if secret.len() >= 16 => secret,
        _ => credential,
    }
}

#[tokio::test]
async fn no_credential_stands_in_a_log_line_an_answer_or_the_store() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter("trace")
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let redis = RedisServer::start().await;
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    let mut config = config(&redis.url());
    let tenant = TenantId::parse("team-a").unwrap();
    let configured = "configured-token-5d1f0c7e2b".to_owned();
    config.tokens.insert(configured.clone(), tenant.clone());
    let admin = "admin-token-93b8a07ce41d".to_owned();
    config.admin_token = Some(admin.clone());
    config.access = access(&issuer.url, &[]);
    let signing = "signing-key-0f8e7d6c5b4a39281706f5e4d3c2b1a0".to_owned();
    config.access.signing_keys = vec![signing.clone()];
    let instance = Instance::with(config).await;
    let app = &instance.app;

    let mut credentials = vec![configured.clone(), admin.clone()];
    for lifetime in [None, Some(Duration::ZERO)] {
        let new = NewKey {
            tenant: tenant.clone(),
            name: "ci".to_owned(),
            scopes: Scopes::ALL,
            lifetime,
        };
        let (_, key) = app.access.create_key(new).await.unwrap();
        // A byte of it changed, too.
        let (id, secret) = key.rsplit_once('_').unwrap();
        let turned: String = secret.chars().rev().collect();
        credentials.push(format!("{id}_{turned}"));
        credentials.push(key);
        let loan = Loan {
            what: Lent::Trace(TraceId::parse("run").unwrap()),
            redact: true,
            lifetime: lifetime.unwrap_or(Duration::from_secs(3600)),
            name: String::new(),
        };
        credentials.push(app.access.lend(&tenant, loan).await.unwrap().1);
    }
    let mut claims = issuer.claims("team-a", "read ingest admin");
    for (name, value) in [
        ("x", Value::Null),
        ("exp", json!(1)),
        ("aud", json!("another")),
        ("org", json!({"id": "Nobody Here"})),
    ] {
        claims[name] = value;
        credentials.push(signer.sign(&claims));
        claims = issuer.claims("team-a", "read ingest admin");
    }
    credentials.push(Signer::new("stranger").sign(&claims));
    credentials.push(signer.sign_as(&json!({"alg": "none", "kid": "first"}), &claims.to_string()));
    // What is no credential of ours may be somebody's all the same.
    credentials.push("hunter2-hunter2-hunter2".to_owned());

    let event = json!({"event_type": "step", "span_id": "step", "name": "one"});
    let mut answers = String::new();
    let mut store = String::new();
    for is_up in [true, false] {
        if !is_up {
            let keys = redis.cli(&["KEYS", "*"]).await;
            for key in keys.lines().filter(|line| !line.starts_with(['$', '*'])) {
                store += &format!("{key}\n");
                for read in [
                    &["GET", key][..],
                    &["HGETALL", key],
                    &["ZRANGE", key, "0", "-1"],
                ] {
                    store += &redis.cli(read).await;
                }
            }
            // And what fails for our sake is logged with its cause.
            redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
            redis
                .cli(&["CONFIG", "SET", "requirepass", "another"])
                .await;
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        for credential in &credentials {
            let paths = match is_up {
                true => &[
                    "/traces",
                    "/traces/run",
                    "/traces/run/stream",
                    "/status",
                    "/metrics",
                    "/ready",
                    "/admin/keys",
                    "/tokens",
                    "/nowhere",
                    "/traces/no%20id",
                ][..],
                false => &["/traces/run"][..],
            };
            for path in paths {
                let by_url = http().get(instance.url(&format!("{path}?token={credential}")));
                let by_header = http().get(instance.url(path)).bearer_auth(credential);
                for request in [by_url, by_header] {
                    let answer = request
                        .timeout(Duration::from_secs(10))
                        .send()
                        .await
                        .unwrap();
                    answers += &format!("{:?}", answer.headers());
                    let is_stream = answer
                        .headers()
                        .get("content-type")
                        .is_some_and(|kind| kind == "text/event-stream");
                    if !is_stream {
                        answers += &answer.text().await.unwrap_or_default();
                    }
                }
            }
            let stored = http()
                .post(instance.url("/traces/run/events"))
                .bearer_auth(credential)
                .json(&event);
            answers += &stored.send().await.unwrap().text().await.unwrap();
            if is_up {
                let _ = Client::try_connect(&instance, &format!("?token={credential}")).await;
            }
        }
    }
    assert!(store.contains("access:key:") && store.contains("access:jwks:"));
    let log = lines.text();
    assert!(
        log.contains("TRACE") && log.contains("\"request\""),
        "{}",
        &log[..log.len().min(2000)]
    );
    let secrets = credentials.iter().map(|it| secret_of(it)).chain([
        signing.as_str(),
        configured.as_str(),
        admin.as_str(),
    ]);
    for secret in secrets {
        for (what, text) in [
            ("the log", &log),
            ("an answer", &answers),
            ("the store", &store),
        ] {
            let at = text.find(secret);
            let around = at.map(|at| &text[at.saturating_sub(300)..at]);
            assert_eq!(around, None, "{what} has {secret}");
        }
    }
}
