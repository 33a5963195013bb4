//! Nothing of one tenant is visible, countable or deletable by another, on any route.

use tailspan_core::id::TenantId;

use crate::support::{Instance, RedisServer, config, http};

const ROUTES: [&str; 8] = [
    "/traces/shared",
    "/traces/shared/events",
    "/traces/shared/digest",
    "/traces/shared/summary",
    "/traces/shared/invocations",
    "/traces/shared/spans/step/why",
    "/traces/shared/stream",
    "/traces/shared/stream?wait=50ms",
];

async fn two_tenants() -> (RedisServer, Instance) {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    for team in ["a", "b"] {
        let tenant = TenantId::parse(&format!("team-{team}")).expect("valid");
        config.tokens.insert(format!("token-{team}"), tenant);
    }
    config.admin_token = Some("token-admin".to_owned());
    let instance = Instance::with(config).await;
    (redis, instance)
}

struct Client<'a> {
    instance: &'a Instance,
    token: &'a str,
}

impl Client<'_> {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let http = http();
        let method = method.parse().expect("a method");
        let mut request = http
            .request(method, self.instance.url(path))
            .body(body.to_owned());
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token);
        }
        let response = request.send().await.expect("answered");
        let status = response.status().as_u16();
        // A stream that opened is not read: whoever gets one here has failed already.
        let body = if status == 200 && path.contains("stream") {
            String::new()
        } else {
            response.text().await.expect("read")
        };
        (status, body)
    }
}

#[tokio::test]
async fn a_tenant_sees_counts_and_deletes_only_its_own() {
    let (_redis, instance) = two_tenants().await;
    let client = |token| Client {
        instance: &instance,
        token,
    };
    let (a, b, nobody) = (client("token-a"), client("token-b"), client(""));
    let event = |n: u32| {
        format!(
            "{{\"event_type\":\"step\",\"event_id\":\"{n}\",\"span_id\":\"step\",\"session_id\":\"s\"}}"
        )
    };
    assert_eq!(
        a.ask("POST", "/traces/shared/events", &event(1)).await.0,
        200
    );

    for path in ROUTES {
        assert_eq!(b.ask("GET", path, "").await.0, 404, "{path}");
        assert_eq!(nobody.ask("GET", path, "").await.0, 401, "{path}");
        assert_eq!(
            client("token-c").ask("GET", path, "").await.0,
            401,
            "{path}"
        );
        assert_eq!(a.ask("GET", path, "").await.0, 200, "{path}");
    }
    assert_eq!(b.ask("DELETE", "/traces/shared", "").await.0, 404);
    assert_eq!(
        b.ask("GET", "/traces", "").await,
        (200, "{\"traces\":[],\"total\":0}".to_owned())
    );
    for (method, path) in [
        ("GET", "/traces"),
        ("DELETE", "/traces/shared"),
        ("POST", "/traces/shared/events"),
        ("POST", "/v1/traces"),
        ("POST", "/v1/logs"),
        ("POST", "/v1/metrics"),
        ("GET", "/metrics"),
    ] {
        assert_eq!(
            nobody.ask(method, path, "{}").await.0,
            401,
            "{method} {path}"
        );
    }
    assert_eq!(b.ask("GET", "/metrics", "").await.0, 403);
    assert_eq!(
        client("token-admin").ask("GET", "/metrics", "").await.0,
        200
    );
    assert_eq!(client("token-admin").ask("GET", "/traces", "").await.0, 401);

    // The same id is another trace; the same event is no duplicate there.
    assert_eq!(
        b.ask("POST", "/traces/shared/events", &event(1)).await.0,
        200
    );
    assert_eq!(
        b.ask("POST", "/traces/shared/events", &event(2)).await.0,
        200
    );
    let total = |body: &str| {
        serde_json::from_str::<serde_json::Value>(body).expect("json")["total"].clone()
    };
    assert_eq!(total(&a.ask("GET", "/traces/shared/events", "").await.1), 1);
    assert_eq!(total(&b.ask("GET", "/traces/shared/events", "").await.1), 2);
    assert_eq!(b.ask("DELETE", "/traces/shared", "").await.0, 409);
    let path = "/traces/shared?force=true";
    assert_eq!(b.ask("DELETE", path, "").await.0, 204);
    assert_eq!(b.ask("GET", "/traces/shared", "").await.0, 404);
    assert_eq!(a.ask("GET", "/traces/shared", "").await.0, 200);
}
