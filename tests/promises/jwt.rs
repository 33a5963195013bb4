//! Tokens of an issuer: what they open, whose keys they are signed with, and how often the issuer is asked for those.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tailspan_core::id::TenantId;
use tailspan_service::access::{
    Scopes,
    keys::NewKey,
    settings::{AccessSettings, Mode},
};

use crate::{
    issuer::{Issuer, Mood, Signer, access, claims, now_seconds},
    socket::Client,
    support::{Instance, RedisServer, Viewer, config, http},
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn instance(redis: &RedisServer, access: AccessSettings) -> Instance {
    let mut config = config(&redis.url());
    config
        .tokens
        .insert("a-token".to_owned(), TenantId::default());
    config.access = access;
    Instance::with(config).await
}

async fn get(instance: &Instance, token: &str, path: &str) -> (u16, String) {
    let request = http().get(instance.url(path)).bearer_auth(token);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn post(instance: &Instance, token: &str, path: &str, body: Value) -> (u16, String) {
    let request = http().post(instance.url(path)).bearer_auth(token);
    let answer = request.json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn status(instance: &Instance, token: &str) -> u16 {
    get(instance, token, "/traces").await.0
}

/// As if the time were over before which the issuer is not asked again.
async fn may_ask_again(redis: &RedisServer) {
    let keys = redis.cli(&["KEYS", "access:jwks:*:asked"]).await;
    for key in keys.lines().filter(|line| line.starts_with("access:")) {
        redis.cli(&["DEL", key]).await;
    }
}

#[tokio::test]
async fn a_token_opens_what_its_claims_say_beside_keys_and_configured_tokens() {
    let redis = RedisServer::start().await;
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    let instance = instance(&redis, access(&issuer.url, &[])).await;
    let token = |tenant: &str, scopes: &str| signer.sign(&issuer.claims(tenant, scopes));
    let event = json!({"event_type": "step", "span_id": "step", "name": "one"});

    let writes = token("team-a", "openid ingest");
    let stored = post(&instance, &writes, "/traces/run/events", event.clone()).await;
    assert_eq!(stored.0, 200, "{}", stored.1);
    let reads = token("team-a", "read");
    let (read, body) = get(&instance, &reads, "/traces/run/events").await;
    assert!(read == 200 && body.contains("one"), "{body}");
    assert_eq!(get(&instance, &writes, "/traces/run").await.0, 403);
    let stored = post(&instance, &reads, "/traces/run/events", event).await;
    assert_eq!(stored.0, 403, "{}", stored.1);
    // Another tenant has none of it, and one of none has nothing.
    let other = token("team-b", "read ingest admin");
    assert_eq!(get(&instance, &other, "/traces/run").await.0, 404);
    for tenant in ["Team A", "team_a", "", "team-a/run"] {
        let (status, said) = get(&instance, &token(tenant, "read"), "/traces").await;
        assert!(status == 403 && said.contains("org.id"), "{status} {said}");
    }
    assert_eq!(status(&instance, &token("team-a", "openid")).await, 403);
    // Beside it: what was configured, what it makes, and what it lends.
    assert_eq!(status(&instance, "a-token").await, 200);
    let admin = token("team-a", "read admin");
    let made = post(
        &instance,
        &admin,
        "/admin/keys",
        json!({"scopes": ["read"]}),
    )
    .await;
    let made: Value = serde_json::from_str(&made.1).unwrap();
    let key = made["key"].as_str().unwrap();
    assert_eq!(get(&instance, key, "/traces/run").await.0, 200);
    let lent = post(&instance, &reads, "/tokens", json!({"trace_id": "run"})).await;
    let lent: Value = serde_json::from_str(&lent.1).unwrap();
    let lent = lent["token"].as_str().unwrap();
    assert_eq!(get(&instance, lent, "/traces/run").await.0, 200);
    let in_url = http().get(instance.url(&format!("/traces/run?token={reads}")));
    assert_eq!(in_url.send().await.unwrap().status(), 200);
    // Where keys are asked for, tokens of nobody are known.
    let keys = AccessSettings {
        mode: Some(Mode::Keys),
        ..AccessSettings::default()
    };
    let asks_for_keys = self::instance(&redis, keys).await;
    assert_eq!(status(&asks_for_keys, &reads).await, 401);
    assert_eq!(get(&asks_for_keys, key, "/traces/run").await.0, 200);
}

#[tokio::test]
async fn claims_are_tenants_and_scopes_by_the_operators_tables() {
    let redis = RedisServer::start().await;
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    let tables = [
        ("TAILSPAN_JWT_TENANTS", "Team A=team-a"),
        ("TAILSPAN_JWT_SCOPES_CLAIM", "roles"),
        ("TAILSPAN_JWT_SCOPES", "Viewer=read,Robot=ingest read"),
    ];
    let instance = instance(&redis, access(&issuer.url, &tables)).await;
    let ask = async |tenant: &str, roles: Value| {
        let mut claims = issuer.claims(tenant, "admin read ingest");
        claims["roles"] = roles;
        status(&instance, &signer.sign(&claims)).await
    };
    assert_eq!(ask("Team A", json!(["Viewer", "x"])).await, 200);
    assert_eq!(ask("Team A", json!("x Robot")).await, 200);
    assert_eq!(ask("Team A", json!(["read"])).await, 403);
    assert_eq!(ask("team-a", json!(["Viewer"])).await, 403);
}

#[tokio::test]
async fn all_processes_ask_the_issuer_once_and_again_for_a_new_key_but_not_for_strangers() {
    let redis = RedisServer::start().await;
    let (issuer, first) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&first]);
    let settings = || access(&issuer.url, &[]);
    let instances = [
        instance(&redis, settings()).await,
        instance(&redis, settings()).await,
    ];
    let token = |signer: &Signer| signer.sign(&issuer.claims("team-a", "read"));
    let mine = token(&first);
    let all = instances
        .iter()
        .flat_map(|instance| (0..20).map(|_| status(instance, &mine)));
    assert!(join_all(all).await.into_iter().all(|status| status == 200));
    assert_eq!(issuer.asked(), 1);
    // Strangers with keys of their own, in their own names and in that of ours.
    for name in ["stranger", "first"] {
        let stranger = token(&Signer::new(name));
        for instance in &instances {
            let all = (0..20).map(|_| status(instance, &stranger));
            assert!(join_all(all).await.into_iter().all(|status| status == 401));
        }
    }
    assert_eq!(issuer.asked(), 1);

    // A new key: whoever comes with it first makes one process ask, and all of them know it then.
    let second = Signer::new("second");
    issuer.has(&[&first, &second]);
    let new = token(&second);
    may_ask_again(&redis).await;
    for instance in &instances {
        let known = async {
            while status(instance, &new).await != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.unwrap();
        let all = (0..20).map(|_| status(instance, &new));
        assert!(join_all(all).await.into_iter().all(|status| status == 200));
    }
    assert_eq!(issuer.asked(), 2);

    // And one that is taken away is good no more where it was looked at.
    issuer.has(&[&second]);
    may_ask_again(&redis).await;
    let gone = async {
        while status(&instances[0], &mine).await != 401 {
            // Any unknown key makes it look.
            status(&instances[0], &token(&Signer::new("third"))).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(status(&instances[0], &new).await, 200);
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn an_issuer_that_is_away_stops_nobody_whose_key_is_known() {
    let redis = RedisServer::start().await;
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    issuer.is_down(true);
    let token = signer.sign(&issuer.claims("team-a", "read"));
    let first = instance(&redis, access(&issuer.url, &[])).await;
    // Nothing is known of whether it is good: told apart from a token that is not.
    let answer = http().get(first.url("/traces")).bearer_auth(&token);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    // What cannot be good asks nobody.
    let asked = issuer.asked();
    may_ask_again(&redis).await;
    let of_another = signer.sign(&claims("https://id.example.com", "team-a", "read"));
    assert_eq!(status(&first, &of_another).await, 401);
    assert_eq!(status(&first, "a.b.c").await, 401);
    assert_eq!(issuer.asked(), asked);

    issuer.is_down(false);
    assert_eq!(status(&first, &token).await, 200);
    issuer.is_down(true);
    may_ask_again(&redis).await;
    let stranger = Signer::new("stranger").sign(&issuer.claims("team-a", "read"));
    assert_eq!(status(&first, &stranger).await, 401);
    assert_eq!(status(&first, &token).await, 200);
    // A process that begins now has the keys of the others.
    let second = instance(&redis, access(&issuer.url, &[])).await;
    assert_eq!(status(&second, &token).await, 200);
}

#[tokio::test]
async fn keys_are_taken_only_from_where_they_may_be() {
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    let token = signer.sign(&issuer.claims("team-a", "read"));
    let mut expected = 503;
    for mood in [
        Mood {
            issuer: Some(format!("{}/", issuer.url)),
            ..Mood::default()
        },
        Mood {
            jwks_uri: Some("http://example.com/keys".to_owned()),
            ..Mood::default()
        },
        Mood {
            jwks_uri: Some("file:///etc/passwd".to_owned()),
            ..Mood::default()
        },
        Mood {
            jwks_uri: Some(format!("{}/redirect", issuer.url)),
            ..Mood::default()
        },
        Mood {
            jwks: Some(format!(
                "{{\"keys\": [{}], \"x\": \"{}\"}}",
                signer.jwk(),
                "x".repeat(600_000)
            )),
            ..Mood::default()
        },
        Mood {
            jwks: Some("<html>".to_owned()),
            ..Mood::default()
        },
        Mood {
            jwks: Some(r#"{"keys": []}"#.to_owned()),
            ..Mood::default()
        },
        Mood::default(),
    ] {
        let redis = RedisServer::start().await;
        let instance = instance(&redis, access(&issuer.url, &[])).await;
        let told = format!("{mood:?}");
        if mood.issuer.is_none() && mood.jwks_uri.is_none() && mood.jwks.is_none() {
            expected = 200;
        }
        issuer.answers(mood);
        assert_eq!(status(&instance, &token).await, expected, "{told:.200}");
    }
    assert_eq!((expected, issuer.followed()), (200, 0));

    // Without a server: from a file, and as they are.
    let redis = RedisServer::start().await;
    let keys = json!({"keys": [signer.jwk()]}).to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &keys).unwrap();
    let path = file.path().to_str().unwrap();
    for keys in [path, &keys] {
        let access = access("anybody", &[("TAILSPAN_JWT_JWKS", keys)]);
        let instance = instance(&redis, access).await;
        let token = signer.sign(&claims("anybody", "team-a", "read"));
        assert_eq!(status(&instance, &token).await, 200);
        // A file is read again when a key is not in it.
        let other = Signer::new("other");
        let token = other.sign(&claims("anybody", "team-a", "read"));
        if keys == path {
            std::fs::write(path, json!({"keys": [other.jwk()]}).to_string()).unwrap();
            assert_eq!(status(&instance, &token).await, 200);
        } else {
            assert_eq!(status(&instance, &token).await, 401);
        }
    }
}

#[tokio::test]
async fn an_open_connection_ends_with_its_token() {
    let redis = RedisServer::start().await;
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    let instance = instance(&redis, access(&issuer.url, &[])).await;
    // Good for six seconds more: clocks may be a minute apart.
    let mut claims = issuer.claims("team-a", "read ingest");
    claims["exp"] = (now_seconds() - 54).into();
    let token = signer.sign(&claims);
    let event = json!({"event_type": "step", "span_id": "step", "name": "one"});
    let stored = post(&instance, &token, "/traces/run/events", event).await;
    assert_eq!(stored.0, 200, "{}", stored.1);
    let stream = async |path: &str| {
        let url = instance.url(&format!("{path}?token={token}"));
        let mut viewer = Viewer::open(&url, None).await.unwrap();
        let ended = async { while viewer.next().await.unwrap().is_some() {} };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    };
    let socket = async {
        let query = format!("?token={token}");
        let mut client = Client::try_connect(&instance, &query).await.unwrap();
        assert!(client.next().await.is_err());
    };
    tokio::join!(
        stream("/traces/run/stream"),
        stream("/stream"),
        stream("/stream/ui-updates"),
        socket
    );
    assert_eq!(status(&instance, &token).await, 401);
}

#[tokio::test]
async fn a_gateways_connection_does_not_outlive_what_opened_it() {
    let redis = RedisServer::start().await;
    let (issuer, signer) = (Issuer::start().await, Signer::new("first"));
    issuer.has(&[&signer]);
    // Who lets in is another process than those that do the frames.
    let door = instance(&redis, access(&issuer.url, &[])).await;
    let worker = instance(&redis, access(&issuer.url, &[])).await;
    let management = tailspan_socket::cloud::Management::default();
    let ask = async |of: &Instance, kind: &str, id: &str, token: &str| {
        let frame = json!({"type": "session_end", "session_id": "nobody"}).to_string();
        let event = json!({
            "requestContext": {"eventType": kind, "connectionId": id}, "body": frame,
            "headers": {"Authorization": format!("Bearer {token}")},
        });
        let answered = tailspan_socket::cloud::answer(&of.app, &management, event).await;
        answered.unwrap()["statusCode"].as_u64().unwrap()
    };
    let tenant = TenantId::parse("team-a").unwrap();
    let make = async || {
        let new = NewKey {
            tenant: tenant.clone(),
            name: String::new(),
            scopes: Scopes::INGEST,
            lifetime: None,
        };
        let (row, key) = door.app.access.create_key(new).await.unwrap();
        (row.id, key)
    };
    let (revoked, by_revoked) = make().await;
    let (rotated, by_rotated) = make().await;
    let mut claims = issuer.claims("team-a", "ingest");
    claims["exp"] = (now_seconds() - 50).into();
    let expires = signer.sign(&claims);
    let reads = signer.sign(&issuer.claims("team-a", "read"));
    assert_eq!(ask(&door, "CONNECT", "r", &reads).await, 403);
    let connections = [
        ("a", by_revoked.as_str()),
        ("b", by_rotated.as_str()),
        ("c", expires.as_str()),
        ("d", "a-token"),
    ];
    for (id, token) in connections {
        assert_eq!(ask(&door, "CONNECT", id, token).await, 200, "{id}");
        // The events of frames have no headers that anybody looks at.
        assert_eq!(ask(&worker, "MESSAGE", id, "").await, 200, "{id}");
        let kept = redis.cli(&["GET", &format!("socket:{id}")]).await;
        let secret = token.rsplit(['_', '.']).next().unwrap();
        assert!(!kept.contains(secret) && kept.len() > 20, "{kept}");
    }
    door.app.access.revoke_key(&tenant, &revoked).await.unwrap();
    let grace = Duration::ZERO;
    let rotation = door.app.access.rotate_key(&tenant, &rotated, grace).await;
    let (_, new) = rotation.unwrap();
    for (id, _) in &connections[..3] {
        let refused = async {
            while ask(&worker, "MESSAGE", id, "").await != 401 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, refused).await.expect(id);
        // Forgotten: it is not asked again.
        let kept = redis.cli(&["EXISTS", &format!("socket:{id}")]).await;
        assert_eq!(kept, ":0\r\n", "{id}");
    }
    assert_eq!(ask(&worker, "MESSAGE", "d", "").await, 200);
    assert_eq!(ask(&door, "CONNECT", "b", &by_rotated).await, 401);
    assert_eq!(ask(&door, "CONNECT", "b", &new).await, 200);
    assert_eq!(ask(&worker, "MESSAGE", "b", "").await, 200);
}
