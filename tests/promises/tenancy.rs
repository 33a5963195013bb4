//! Every operation of the API's document, by a tenant with another one's ids, and by every kind of credential that is not good: nothing leaks by a status, a body, a
//! count of commands or a stream. What the document has and this does not know how to fill fails the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use tailspan_core::{
    id::{TenantId, TraceId},
    notify::Kind,
};
use tailspan_service::{
    access::{
        Scopes,
        keys::NewKey,
        lent::{Lent, Loan},
        settings::Mode,
    },
    agents::Agents,
};

use crate::{
    issuer::{Signer, access, claims, now_seconds},
    socket::Client,
    support::{Instance, RedisServer, Viewer, config, http},
};

/// In every name and word of the tenants, to be looked for in what the other one gets.
const A: &str = "secreta";
const B: &str = "secretb";

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    /// What its query may say.
    query: Vec<String>,
    /// It takes up again where its caller was.
    resumes: bool,
    /// It says nothing of anybody, and asks nobody who they are.
    is_open: bool,
}

fn operations() -> Vec<Operation> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let document = std::fs::read(document).expect("the document");
    let document: Value = serde_json::from_slice(&document).expect("json");
    let paths = document["paths"].as_object().expect("paths");
    let of_path = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods").iter();
        methods.map(|(method, operation)| {
            let named = |place: &str| {
                let all = operation["parameters"].as_array().into_iter().flatten();
                let of = all.filter(|parameter| parameter["in"] == place);
                of.map(|it| it["name"].as_str().expect("a name").to_owned())
                    .collect::<Vec<_>>()
            };
            Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                query: named("query"),
                resumes: named("header").iter().any(|name| name == "Last-Event-ID"),
                is_open: operation.get("security").is_some(),
            }
        })
    });
    of_path.collect()
}

/// The ids of something, put into the segments of a path.
struct Ids {
    trace: String,
    session: String,
    token: String,
    key: String,
    delivery: String,
}

impl Ids {
    /// Of a tenant's.
    fn new(team: &str, token: &str, key: &str) -> Self {
        Self {
            trace: format!("{team}-run"),
            session: format!("{team}-talk"),
            token: token.to_owned(),
            key: key.to_owned(),
            delivery: format!("msg_{:032x}", team.bytes().map(u32::from).sum::<u32>()),
        }
    }

    /// Of something that nobody has.
    fn absent() -> Self {
        Self::new("nothing", "0123456789abcdef", "0123456789abcdef")
    }

    /// How the tenant calls another thing of its own.
    fn of(&self, what: &str) -> String {
        self.session.replace("-talk", &format!("-{what}"))
    }

    /// A text without them, for what else it says.
    fn taken_out(&self, text: &str) -> String {
        let (agent, user, step) = (self.of("agent"), self.of("user"), self.of("step"));
        let all = [
            &self.trace,
            &self.session,
            &self.token,
            &self.key,
            &self.delivery,
            &agent,
            &user,
            &step,
        ];
        all.into_iter()
            .fold(text.to_owned(), |text, id| text.replace(id, "ID"))
    }

    /// The path, and the id that it holds.
    fn fill(&self, path: &str) -> (String, Option<String>) {
        let Some((before, rest)) = path.split_once('{') else {
            return (path.to_owned(), None);
        };
        let (name, after) = rest.split_once('}').expect("a segment");
        let id = match name {
            "trace_id" => self.trace.clone(),
            "session_id" => self.session.clone(),
            "agent_id" => self.of("agent"),
            "filename" => format!("eval_set_{}.json", self.session),
            "token_id" => self.token.clone(),
            "key_id" => self.key.clone(),
            "delivery_id" => self.delivery.clone(),
            other => panic!("the test does not know what to put for {{{other}}} in {path}"),
        };
        // A span of the trace; the same one everywhere.
        let after = after.replace("{span_id}", "step");
        assert!(
            !after.contains('{'),
            "the test does not know how to fill {path}"
        );
        (format!("{before}{id}{after}"), Some(id))
    }
}

/// What an operation needs, and a body for it, with the ids that a body names. A route that only reads needs nothing said here.
fn needs(operation: &Operation, ids: &Ids) -> (Scopes, Option<Value>) {
    let both = Scopes::INGEST.with(Scopes::READ);
    let event = json!({"event_type": "step", "span_id": "step"});
    match (operation.method.as_str(), operation.path.as_str()) {
        ("GET", "/ws/traces") => (Scopes::INGEST, None),
        ("GET", "/metrics" | "/status") => (Scopes::ADMIN, None),
        ("GET", path) if path.starts_with("/admin/") => (Scopes::ADMIN, None),
        ("GET", _) => (Scopes::READ, None),
        ("POST", "/v1/traces" | "/v1/logs" | "/v1/metrics") => (Scopes::INGEST, Some(json!({}))),
        ("POST", "/traces/{trace_id}/events" | "/traces/events") => (Scopes::INGEST, Some(event)),
        ("POST", "/traces/import") => (Scopes::INGEST, Some(event)),
        ("POST", "/traces/cleanup" | "/v1/trace/traces/cleanup") => {
            (Scopes::ADMIN, Some(json!({"older_than_seconds": 3600})))
        }
        ("POST", path) if path.ends_with("/completions/trace") => {
            (both, Some(json!({"question": "why"})))
        }
        ("POST", "/api/debug/load") => (both, None),
        (
            "POST",
            "/api/streaming/create-eval-set"
            | "/api/streaming/prepare-evaluation"
            | "/api/streaming/get-trace"
            | "/api/streaming/evaluate-sessions",
        ) => (Scopes::READ, Some(of_session(ids))),
        (
            "POST",
            "/api/validate/eval-set"
            | "/api/convert"
            | "/api/evaluate"
            | "/api/evaluate/stream"
            | "/api/evaluate/json"
            | "/api/evaluate/json/stream"
            | "/api/debug/bundle",
        ) => (Scopes::READ, Some(json!({}))),
        ("POST", "/traces/{trace_id}/redact") => (Scopes::ADMIN, Some(json!({}))),
        ("POST", "/tokens") => (Scopes::READ, Some(json!({"name": A}))),
        ("DELETE", "/tokens/{token_id}") => (Scopes::READ, None),
        ("POST", "/admin/keys") => (Scopes::ADMIN, Some(json!({"scopes": ["read"]}))),
        ("POST", path) if path.starts_with("/admin/webhooks/") => (Scopes::ADMIN, None),
        ("POST", "/admin/keys/{key_id}/rotate") => (Scopes::ADMIN, Some(json!({}))),
        (
            "DELETE",
            "/traces/{trace_id}" | "/v1/trace/traces/{trace_id}" | "/admin/keys/{key_id}",
        ) => (Scopes::ADMIN, None),
        (method, path) => panic!("the test does not know what {method} {path} needs"),
    }
}

/// What the routes of the dev server are told of a session; each takes its part of it.
fn of_session(ids: &Ids) -> Value {
    let session = &ids.session;
    json!({
        "session_id": session, "session_ids": [session], "golden_session_id": session, "eval_set_id": "golden",
        "metrics": ["tool_trajectory_avg_score"],
    })
}

/// Storing under an id is no question about it: the tenant gets a trace of its own of that name.
fn stores(operation: &Operation) -> bool {
    operation.method == "POST" && operation.path == "/traces/{trace_id}/events"
}

struct Told {
    status: u16,
    body: String,
}

async fn ask(
    instance: &Instance,
    credential: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Told {
    ask_from(instance, credential, method, path, body, None).await
}

/// As [`ask`], by a client that was there before, at this cursor: what a stream says then is read to its end.
async fn ask_from(
    instance: &Instance,
    credential: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&Value>,
    cursor: Option<&str>,
) -> Told {
    let method = method.parse().expect("a method");
    let mut request = http().request(method, instance.url(path));
    if let Some(cursor) = cursor {
        request = request.header("last-event-id", cursor);
    }
    if let Some(credential) = credential {
        request = request.bearer_auth(credential);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.expect("answered");
    let kind = response.headers().get("content-type").cloned();
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let status = response.status().as_u16();
    // Streams that open are followed elsewhere, but for what is gone: they end by themselves.
    let body = match is_stream && status == 200 && cursor.is_none() {
        true => String::new(),
        false => response.text().await.expect("read"),
    };
    Told { status, body }
}

/// How often each command ran.
async fn commands(redis: &RedisServer) -> BTreeMap<String, u64> {
    let info = redis.cli(&["INFO", "commandstats"]).await;
    let lines = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        // What the test itself does.
        (!matches!(name, "info" | "quit")).then(|| (name.to_owned(), calls))
    });
    lines.collect()
}

/// What was run since, when nobody listens any more: a channel is left after the answer.
async fn commands_since(
    redis: &RedisServer,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let count = |ran: &BTreeMap<String, u64>, name: &str| ran.get(name).copied().unwrap_or(0);
    loop {
        let ran = more(before, &commands(redis).await);
        if ["subscribe", "ssubscribe"]
            .into_iter()
            .all(|name| count(&ran, name) == count(&ran, &name.replace("sub", "unsub")))
        {
            return ran;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn more(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = after.iter().filter_map(|(name, calls)| {
        let more = calls - before.get(name).copied().unwrap_or_default();
        (more > 0).then(|| (name.clone(), more))
    });
    more.collect()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("valid")
}

async fn key(
    instance: &Instance,
    of: &str,
    scopes: Scopes,
    lifetime: Option<Duration>,
) -> (String, String) {
    let new = NewKey {
        tenant: tenant(of),
        name: of.to_owned(),
        scopes,
        lifetime,
    };
    let (row, key) = instance.app.access.create_key(new).await.expect("made");
    (row.id, key)
}

async fn lend(
    instance: &Instance,
    of: &str,
    what: Lent,
    redact: bool,
    lifetime: Duration,
) -> (String, String) {
    let loan = Loan {
        what,
        redact,
        lifetime,
        name: of.to_owned(),
    };
    let (row, token) = instance
        .app
        .access
        .lend(&tenant(of), loan)
        .await
        .expect("lent");
    (row.id, token)
}

const HOUR: Duration = Duration::from_secs(3600);

fn lent_trace(id: &str) -> Lent {
    Lent::Trace(TraceId::parse(id).expect("valid"))
}

async fn started() -> (RedisServer, Instance) {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    // Configured tokens are known without asking Redis, so that commands can be counted.
    for team in [A, B] {
        config.tokens.insert(format!("token-{team}"), tenant(team));
    }
    config.admin_token = Some("token-admin".to_owned());
    // The keys as they are: what is fetched is tried elsewhere, and costs commands now and then.
    let keys = json!({"keys": [signer().jwk()]}).to_string();
    config.access = access(ISSUER, &[("TAILSPAN_JWT_JWKS", &keys)]);
    // An agent that only the other one may call; nobody is there.
    let agents = json!({"secretb-agent": {"kind": "openai_chat", "url": "http://127.0.0.1:9/", "model": "m", "tenants": [B]}});
    config.agents = Agents::parse(&agents.to_string(), |_| None).expect("agents");
    let instance = Instance::with(config).await;
    for team in [A, B] {
        fill(&instance, team).await;
    }
    (redis, instance)
}

const ISSUER: &str = "https://id.example.com";

/// The key of the issuer.
fn signer() -> &'static Signer {
    static SIGNER: std::sync::OnceLock<Signer> = std::sync::OnceLock::new();
    SIGNER.get_or_init(|| Signer::new("first"))
}

/// A token of the issuer's.
fn jwt(team: &str, scopes: &str) -> String {
    signer().sign(&claims(ISSUER, team, scopes))
}

/// Tokens that are none of the issuer's, or none that are good.
fn bad_jwts() -> Vec<String> {
    let good = claims(ISSUER, A, "ingest read admin");
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signer().sign(&claims)
    };
    let now = now_seconds();
    let usual = json!({"alg": "EdDSA", "kid": "first"});
    let whole = signer().sign(&good);
    let twice = format!(
        "{},\"iss\":\"{ISSUER}\"}}",
        good.to_string().trim_end_matches('}')
    );
    let unsigned = signer().sign_as(&json!({"alg": "none"}), &good.to_string());
    vec![
        with("exp", json!(now - 3600)),
        with("exp", json!(null)),
        with("nbf", json!(now + 3600)),
        with("aud", json!("another")),
        with("iss", json!("https://id.example.org")),
        Signer::new("first").sign(&good),
        Signer::new("other").sign(&good),
        signer().sign_as(&json!({"alg": "HS256", "kid": "first"}), &good.to_string()),
        signer().sign_as(
            &json!({"alg": "EdDSA", "kid": "first", "crit": ["x"]}),
            &good.to_string(),
        ),
        signer().sign_as(&usual, &twice),
        format!("{}.", unsigned.rsplit_once('.').expect("parts").0),
        whole[..whole.len() - 1].to_owned(),
        format!("{whole}x"),
        format!("{whole}.{whole}"),
    ]
}

/// A run of a tenant, named after it in every place.
async fn fill(instance: &Instance, team: &str) {
    let event = json!({
        "event_type": "llm_call", "span_id": "step", "name": format!("{team}-step"), "event_id": team,
        "session_id": format!("{team}-talk"), "agent_name": format!("{team}-agent"), "user_id": format!("{team}-user"),
        "data": {"input": format!("{team}-words"), "output": format!("{team}-words"), "model": format!("{team}-model")},
    });
    let path = format!("/traces/{team}-run/events");
    let token = format!("token-{team}");
    let told = ask(instance, Some(&token), "POST", &path, Some(&event)).await;
    assert_eq!(told.status, 200, "{}", told.body);
    // The session, as the dev server's clients know it.
    let mut client = Client::try_connect(instance, &format!("?token={token}"))
        .await
        .expect("let in");
    let session = format!("{team}-talk");
    client
        .send(json!({"type": "session_start", "session_id": session, "trace_id": "t"}))
        .await;
    client
        .send(json!({"type": "session_end", "session_id": session}))
        .await;
    client.next().await.expect("it is complete");
}

/// The ids of somebody else, and of nobody.
async fn foreign_and_absent(instance: &Instance) -> (Ids, Ids) {
    let (key, _) = key(instance, B, Scopes::ALL, None).await;
    let (token, _) = lend(instance, B, lent_trace("secretb-run"), false, HOUR).await;
    let foreign = Ids::new(B, &token, &key);
    let (run, kind) = (TraceId::parse(&foreign.trace).unwrap(), Kind::Failed);
    let (log, body) = (&instance.app.log, "{}".to_owned());
    log.add_delivery(
        &tenant(B),
        "secretb-ops",
        kind,
        &run,
        &foreign.delivery,
        body,
    )
    .await
    .unwrap();
    (foreign, Ids::absent())
}

/// All that the other tenant sees of its own.
async fn all_of_b(instance: &Instance) -> Vec<String> {
    let mut all = Vec::new();
    for path in [
        "/traces/secretb-run/digest",
        "/traces/secretb-run/events?level=debug",
        "/traces",
        "/sessions/secretb-talk",
        "/api/streaming/sessions",
        "/stats",
        "/tokens",
        "/admin/keys",
        "/admin/webhooks/deliveries?standing=waiting",
    ] {
        let told = ask(instance, Some("token-secretb"), "GET", path, None).await;
        assert_eq!(told.status, 200, "{path}: {}", told.body);
        // Statistics begin with the time of the question.
        let (_, body) = told
            .body
            .split_once("\"truncated\"")
            .unwrap_or(("", &told.body));
        all.push(body.to_owned());
    }
    assert!(all[0].contains("sha256"), "{}", all[0]);
    all
}

#[tokio::test]
async fn an_absent_and_a_foreign_id_are_told_by_the_same_bytes_after_the_same_commands() {
    same_bytes_after_the_same_commands("token-secreta").await;
}

#[tokio::test]
async fn and_so_they_are_to_the_bearer_of_a_token_of_the_issuer() {
    same_bytes_after_the_same_commands(&jwt(A, "ingest read admin")).await;
}

async fn same_bytes_after_the_same_commands(mine: &str) {
    let (redis, instance) = started().await;
    let (foreign, absent) = foreign_and_absent(&instance).await;
    let before = all_of_b(&instance).await;
    let mut compared = 0;
    let mut operations = operations();
    // What is stored under an absent id is there afterwards.
    operations.sort_by_key(stores);
    for operation in operations {
        let what = format!("{} {}", operation.method, operation.path);
        let mut told = Vec::new();
        let mut has_id = operation.path.contains('{');
        // The first is for what is done once only: scripts that Redis does not know yet.
        for ids in [&absent, &absent, &foreign] {
            let (_, body) = needs(&operation, ids);
            let (path, _) = ids.fill(&operation.path);
            has_id |= body == Some(of_session(ids));
            let from = commands(&redis).await;
            let answer = ask(
                &instance,
                Some(mine),
                &operation.method,
                &path,
                body.as_ref(),
            )
            .await;
            let ran = commands_since(&redis, &from).await;
            let said = ids.taken_out(&answer.body);
            // Nothing of the other tenant but what the caller said itself.
            if !stores(&operation) {
                assert!(!said.contains(&format!("{B}-")), "{what}: {said}");
            }
            told.push((answer.status, said, ran));
        }
        if has_id && !stores(&operation) {
            assert_eq!(told[1], told[2], "{what}");
            // Whoever has no traces has an empty list of them; everything else is not there.
            let is_list = operation.path.contains("{agent_id}");
            assert!(
                is_list || (400..500).contains(&told[2].0),
                "{what}: {}",
                told[2].0
            );
            compared += 1;
        }
        assert_eq!(told[1].0, told[2].0, "{what}");
    }
    assert!(compared > 20, "{compared} operations have ids");
    assert_eq!(
        all_of_b(&instance).await,
        before,
        "the other tenant's is as it was"
    );
}

#[tokio::test]
async fn filters_and_cursors_of_another_tenant_find_nothing_and_cost_the_same() {
    let (redis, instance) = started().await;
    let (foreign, absent) = foreign_and_absent(&instance).await;
    let own = Ids::new(A, "0123456789abcdef", "0123456789abcdef");
    let mine = Some("token-secreta");
    let compared = async |what: String, of: &dyn Fn(&Ids) -> (String, Option<&'static str>)| {
        let mut told = Vec::new();
        for ids in [&absent, &absent, &foreign] {
            let (path, cursor) = of(ids);
            let from = commands(&redis).await;
            let answer = ask_from(&instance, mine, "GET", &path, None, cursor).await;
            let ran = commands_since(&redis, &from).await;
            let said = ids.taken_out(&answer.body);
            assert!(!said.contains(&format!("{B}-")), "{what}: {said}");
            told.push((answer.status, said, ran));
        }
        assert_eq!(told[1], told[2], "{what}");
        told.pop().expect("three").0
    };
    let (mut filters, mut cursors) = (0, 0);
    for operation in operations() {
        if operation.method != "GET" || operation.is_open {
            continue;
        }
        // Of one's own: a filter that names what another tenant has finds what one that names nothing finds.
        for name in &operation.query {
            let of = |ids: &Ids| match name.as_str() {
                "session_id" => ids.session.clone(),
                "user_id" => ids.of("user"),
                "agent_id" | "agent" | "component" => ids.of("agent"),
                "text" => ids.of("words"),
                "operation" | "component_id" | "parent_span_id" => ids.of("step"),
                _ => String::new(),
            };
            // A stream of one's own opens all the same, and goes on.
            if of(&own).is_empty() || operation.resumes {
                continue;
            }
            let (path, _) = own.fill(&operation.path);
            let path = |ids: &Ids| (format!("{path}?{name}={}", of(ids)), None);
            compared(format!("{} by {name}", operation.path), &path).await;
            filters += 1;
        }
        // Who was there before is told that it is gone, whether it ever was or is somebody else's.
        if operation.resumes && operation.path.contains("_id}") {
            for cursor in ["1", "1-0a0b0c0d", "900-0a0b0c0d", "1700000000000-0"] {
                let path = |ids: &Ids| (ids.fill(&operation.path).0, Some(cursor));
                let what = format!("{} from {cursor}", operation.path);
                let status = compared(what, &path).await;
                assert!(
                    matches!(status, 200 | 400 | 404),
                    "{} {status}",
                    operation.path
                );
                cursors += 1;
            }
        }
    }
    assert!(
        filters > 40 && cursors >= 9,
        "{filters} filters, {cursors} cursors"
    );
}

#[tokio::test]
async fn what_a_tenant_says_of_anothers_ids_is_its_own() {
    let (_redis, instance) = started().await;
    let before = all_of_b(&instance).await;
    let event = json!({"event_type": "step", "span_id": "step", "name": "mine", "trace_id": "secretb-run", "session_id": "secretb-talk"});
    let id = "secretb-run";
    for (method, path, body) in [
        ("POST", "/traces/events".to_owned(), Some(event.clone())),
        (
            "POST",
            "/traces/events?replace=true".to_owned(),
            Some(event.clone()),
        ),
        (
            "POST",
            format!("/traces/{id}/events?replace=true"),
            Some(event.clone()),
        ),
        ("POST", "/traces/import".to_owned(), Some(event.clone())),
        (
            "POST",
            "/traces/import?replace=true".to_owned(),
            Some(event.clone()),
        ),
        ("GET", format!("/traces/{id}/events?level=debug"), None),
        ("POST", "/tokens".to_owned(), Some(json!({"trace_id": id}))),
        (
            "POST",
            "/tokens".to_owned(),
            Some(json!({"session_id": "secretb-talk"})),
        ),
        ("DELETE", format!("/traces/{id}?force=true"), None),
        (
            "POST",
            "/traces/cleanup".to_owned(),
            Some(json!({"older_than_seconds": 0})),
        ),
        ("GET", "/admin/keys?tenant=secretb".to_owned(), None),
        (
            "POST",
            "/admin/keys?tenant=secretb".to_owned(),
            Some(json!({"scopes": ["read"]})),
        ),
    ] {
        for mine in ["token-secreta", &jwt(A, "ingest read admin")] {
            let told = ask(&instance, Some(mine), method, &path, body.as_ref()).await;
            assert!(
                told.status < 500 && told.status != 401,
                "{method} {path}: {} {}",
                told.status,
                told.body
            );
            assert!(
                !told.body.contains("secretb-words"),
                "{method} {path}: {}",
                told.body
            );
            if let Ok(made) = serde_json::from_str::<Value>(&told.body)
                && let Some(lent) = made["token"].as_str()
            {
                let shown = ask(
                    &instance,
                    Some(lent),
                    "GET",
                    &format!("/traces/{id}/events?level=debug"),
                    None,
                )
                .await;
                assert!(!shown.body.contains("secretb-words"), "{}", shown.body);
            }
        }
    }
    // A live session of the other's name is a session of one's own.
    let mut client = Client::try_connect(&instance, "?token=token-secreta")
        .await
        .expect("let in");
    client.send(json!({"type": "session_start", "session_id": "secretb-talk", "trace_id": id, "eval_set_id": "x"})).await;
    client
        .send(json!({"type": "session_end", "session_id": "secretb-talk"}))
        .await;
    let told = client.next().await.expect("an answer");
    assert_eq!(told, json!({"type": "session_complete", "invocations": []}));
    assert_eq!(
        all_of_b(&instance).await,
        before,
        "the other tenant's is as it was"
    );
}

#[tokio::test]
async fn no_credential_opens_more_than_it_says() {
    let (_redis, instance) = started().await;
    let access = &instance.app.access;
    let (revoked_id, revoked) = key(&instance, A, Scopes::ALL, None).await;
    access
        .revoke_key(&tenant(A), &revoked_id)
        .await
        .expect("revoked");
    let (_, expired) = key(&instance, A, Scopes::ALL, Some(Duration::ZERO)).await;
    let (ended_id, ended) = lend(&instance, A, Lent::Reads, false, HOUR).await;
    access.end_loan(&tenant(A), &ended_id).await.expect("ended");
    let (_, over) = lend(&instance, A, Lent::Reads, false, Duration::ZERO).await;
    let (_, good) = key(&instance, A, Scopes::ALL, None).await;
    let (_, lent) = lend(&instance, A, lent_trace("secreta-run"), false, HOUR).await;
    // The claims of one with the signature of another, a byte changed, one cut.
    let other = lend(&instance, B, Lent::Reads, false, HOUR).await.1;
    let forged = format!(
        "{}.{}",
        other.split('.').next().expect("claims"),
        lent.split('.').nth(1).expect("a signature")
    );
    let wrong_secret = format!("{}0", &good[..good.len() - 1]);
    let mut nobody = vec![
        String::new(),
        "nonsense".to_owned(),
        "ts_".to_owned(),
        "ts_0123456789abcdef_0".to_owned(),
        "tv_e30.e30".to_owned(),
        good[..good.len() - 1].to_owned(),
        if wrong_secret == good {
            format!("{}1", &good[..good.len() - 1])
        } else {
            wrong_secret
        },
        revoked,
        expired,
        ended,
        over,
        forged,
    ];
    nobody.extend(bad_jwts());
    let mut single = Vec::new();
    for scope in [Scopes::INGEST, Scopes::READ, Scopes::ADMIN] {
        single.push((scope, key(&instance, A, scope, None).await.1));
        let names: Vec<_> = scope.names().collect();
        single.push((scope, jwt(A, &names.join(" "))));
    }
    let good_jwt = jwt(A, "read");
    let told = ask(&instance, Some(&good_jwt), "GET", "/traces", None).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let (_, of_b_run) = lend(&instance, B, lent_trace("secretb-run"), false, HOUR).await;
    let (_, of_b_talk) = lend(&instance, B, Lent::Session(format!("{B}-talk")), true, HOUR).await;
    let nothing = Ids::absent();
    let ids = Ids::new(A, &nothing.token, &nothing.key);
    let mut open = BTreeSet::new();
    for operation in operations() {
        let what = format!("{} {}", operation.method, operation.path);
        if operation.is_open {
            open.insert(operation.path.clone());
            continue;
        }
        let (scopes, body) = needs(&operation, &ids);
        let (path, _) = ids.fill(&operation.path);
        let method = operation.method.as_str();
        let ask_as = async |credential: &str, path: &str| {
            let given = Some(credential).filter(|text| !text.is_empty());
            ask(&instance, given, method, path, body.as_ref()).await
        };
        for credential in &nobody {
            let mut told = vec![ask_as(credential, &path).await];
            // As a page's `EventSource` sends it.
            if method == "GET" {
                told.push(ask_as("", &format!("{path}?token={credential}")).await);
            }
            for told in told {
                assert_eq!(
                    told.status, 401,
                    "{what} with {credential:?}: {}",
                    told.body
                );
                assert!(!told.body.contains(A), "{what}: {}", told.body);
                assert!(
                    credential.len() < 20 || !told.body.contains(credential.as_str()),
                    "{what}"
                );
            }
        }
        // Somebody else's viewer: told neither that it is there nor that it is not.
        for credential in [&of_b_run, &of_b_talk] {
            let told = ask_as(credential, &path).await;
            assert!(
                matches!(told.status, 403 | 404),
                "{what}: {} {}",
                told.status,
                told.body
            );
            let of_absent = ask_as(credential, &nothing.fill(&operation.path).0).await;
            assert_eq!(
                (told.status, ids.taken_out(&told.body)),
                (of_absent.status, nothing.taken_out(&of_absent.body)),
                "{what}"
            );
        }
        let (path, _) = nothing.fill(&operation.path);
        for (scope, credential) in &single {
            let told = ask_as(credential, &path).await;
            // What is counted over several tenants is not for one of them.
            let counts_all = matches!(operation.path.as_str(), "/metrics" | "/status");
            let is_refused = !scope.has(scopes) || counts_all;
            assert_eq!(
                told.status == 403,
                is_refused,
                "{what} with {scope:?}: {} {}",
                told.status,
                told.body
            );
            assert_ne!(told.status, 401, "{what} with {scope:?}");
        }
    }
    for credential in &nobody {
        let let_in = Client::try_connect(&instance, &format!("?token={credential}")).await;
        assert!(let_in.is_err(), "a websocket with {credential:?}");
    }
    let known = [
        "/api/health",
        "/docs",
        "/health",
        "/openapi.json",
        "/ready",
        "/status",
    ];
    for path in &open {
        assert!(
            known.contains(&path.as_str()),
            "{path} asks nobody who they are"
        );
    }
}

#[tokio::test]
async fn streams_show_a_tenant_its_own_and_lists_count_it() {
    let (_redis, instance) = started().await;
    let url = |path: &str| instance.url(path);
    let streams = [
        "/stream?token=token-secreta",
        "/stream/ui-updates?token=token-secreta",
    ];
    for (at, path) in streams.into_iter().enumerate() {
        let mut viewer = Viewer::open(&url(path), None).await.expect("opens");
        for team in [B, A] {
            let event = json!({"event_type": "step", "span_id": "late", "name": format!("{team}-late"), "session_id": format!("{team}-talk-{at}")});
            let path = format!("/traces/{team}-late-{at}/events");
            let token = format!("token-{team}");
            assert_eq!(
                ask(&instance, Some(&token), "POST", &path, Some(&event))
                    .await
                    .status,
                200
            );
        }
        let mut seen = String::new();
        while !seen.contains("secreta-late") && !seen.contains("secreta-talk") {
            seen += &viewer.soon().await.expect("reads").expect("goes on").data;
        }
        assert!(!seen.contains(B), "{path}: {seen}");
    }
    for path in [
        "/traces",
        "/sessions",
        "/stats",
        "/api/streaming/sessions",
        "/v1/trace/traces",
    ] {
        let told = ask(&instance, Some("token-secreta"), "GET", path, None).await;
        assert_eq!(told.status, 200, "{path}: {}", told.body);
        assert!(!told.body.contains(B), "{path}: {}", told.body);
    }
    let total = ask(&instance, Some("token-secreta"), "GET", "/traces", None)
        .await
        .body;
    let total: Value = serde_json::from_str(&total).expect("json");
    assert_eq!(total["total"], 3);
    let answer = http()
        .get(url("/traces?token=token-secreta"))
        .send()
        .await
        .expect("answered");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
}

#[tokio::test]
async fn a_trace_and_a_session_that_two_tenants_call_alike_are_two() {
    let (_redis, instance) = started().await;
    let store = async |team: &str, name: String| {
        let event = json!({
            "event_type": "step", "span_id": name, "name": format!("{team}-{name}"), "session_id": "shared-talk", "agent_id": "shared-agent",
        });
        let token = format!("token-{team}");
        let path = "/traces/shared/events";
        let told = ask(&instance, Some(&token), "POST", path, Some(&event)).await;
        assert_eq!(told.status, 200, "{}", told.body);
    };
    for team in [B, A] {
        store(team, "first".to_owned()).await;
    }
    let mine = Some("token-secreta");
    for path in [
        "/traces/shared/stream",
        "/v1/trace/traces/shared/stream",
        "/sessions/shared-talk/stream",
        "/stream?from=start",
    ] {
        let of_mine = match path.contains('?') {
            true => "&token=token-secreta",
            false => "?token=token-secreta",
        };
        let url = instance.url(&format!("{path}{of_mine}"));
        let mut viewer = Viewer::open(&url, None).await.expect("opens");
        let late = format!("late-{}", path.len());
        for team in [B, A] {
            store(team, late.clone()).await;
        }
        let (mut seen, wanted) = (String::new(), format!("{A}-{late}"));
        while !seen.contains(&wanted) {
            seen += &viewer.soon().await.expect("reads").expect("goes on").data;
        }
        assert!(seen.contains(&format!("{A}-first")), "{path}: {seen}");
        assert!(!seen.contains(B), "{path}: {seen}");
    }
    for path in [
        "/traces/shared",
        "/traces/shared/events",
        "/traces/shared/summary",
        "/traces/shared/export",
        "/sessions/shared-talk",
        "/agents/shared-agent/traces",
        "/v1/trace/traces/shared",
    ] {
        let told = ask(&instance, mine, "GET", path, None).await;
        assert_eq!(told.status, 200, "{path}: {}", told.body);
        assert!(!told.body.contains(B), "{path}: {}", told.body);
    }
    let told = ask(&instance, mine, "DELETE", "/traces/shared?force=true", None).await;
    assert!(told.status < 300, "{}", told.body);
    let of_b = ask(
        &instance,
        Some("token-secretb"),
        "GET",
        "/traces/shared/events",
        None,
    )
    .await;
    assert!(
        of_b.status == 200 && of_b.body.contains("secretb-first"),
        "{}",
        of_b.body
    );
}

#[tokio::test]
async fn keys_are_made_rotated_and_revoked_and_stored_without_their_secret() {
    let (redis, instance) = started().await;
    let other = {
        let mut config = config(&redis.url());
        config.access.mode = Some(Mode::Keys);
        Instance::with(config).await
    };
    let admin = Some("token-admin");
    let made = json!({"name": "ci", "scopes": ["read", "admin"], "expires_in_seconds": 3600});
    let made = ask(
        &instance,
        admin,
        "POST",
        "/admin/keys?tenant=secreta",
        Some(&made),
    )
    .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made: Value = serde_json::from_str(&made.body).expect("json");
    let first = made["key"].as_str().expect("a key").to_owned();
    let id = made["id"].as_str().expect("an id").to_owned();
    let secret = first.rsplit('_').next().expect("a secret").to_owned();
    let stored = redis.cli(&["HGETALL", &format!("access:key:{id}")]).await;
    assert!(
        stored.contains("hash") && !stored.contains(&secret),
        "{stored}"
    );
    let list = async |instance: &Instance, key: &str| {
        ask(instance, Some(key), "GET", "/admin/keys", None).await
    };
    let status = async |instance: &Instance, key: &str| {
        ask(instance, Some(key), "GET", "/traces", None)
            .await
            .status
    };
    assert_eq!(
        (
            status(&instance, &first).await,
            status(&other, &first).await
        ),
        (200, 200)
    );
    let listed = list(&instance, &first).await;
    assert!(
        listed.body.contains(&id) && !listed.body.contains(&secret),
        "{}",
        listed.body
    );
    let listed: Value = serde_json::from_str(&listed.body).expect("json");
    assert!(listed["keys"][0]["last_used_at"].is_string(), "{listed}");
    // Nobody but the operator keeps another tenant's keys.
    let path = "/admin/keys?tenant=secretb";
    assert_eq!(
        ask(&instance, Some(&first), "GET", path, None).await.status,
        403
    );

    let rotate = async |grace: u64| {
        let path = format!("/admin/keys/{id}/rotate");
        let grace = json!({"grace_seconds": grace});
        let told = ask(
            &instance,
            Some("token-secreta"),
            "POST",
            &path,
            Some(&grace),
        )
        .await;
        assert_eq!(told.status, 200, "{}", told.body);
        let told: Value = serde_json::from_str(&told.body).expect("json");
        told["key"].as_str().expect("a key").to_owned()
    };
    let second = rotate(3600).await;
    assert_eq!(
        (
            status(&instance, &first).await,
            status(&instance, &second).await
        ),
        (200, 200)
    );
    let third = rotate(0).await;
    let now = (
        status(&instance, &first).await,
        status(&instance, &second).await,
        status(&instance, &third).await,
    );
    assert_eq!(now, (401, 401, 200));

    let path = format!("/admin/keys/{id}");
    assert_eq!(
        ask(&instance, Some("token-secretb"), "DELETE", &path, None)
            .await
            .status,
        404
    );
    assert_eq!(
        ask(&instance, Some("token-secreta"), "DELETE", &path, None)
            .await
            .status,
        204
    );
    assert_eq!(status(&instance, &third).await, 401);
    let gone = async {
        while status(&other, &third).await != 401 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("within seconds elsewhere");
}

#[tokio::test]
async fn a_link_opens_one_thing_and_no_words_where_they_are_not_lent() {
    let (_redis, instance) = started().await;
    let other = json!({"event_type": "step", "span_id": "step", "name": "alone"});
    let mine = Some("token-secreta");
    assert_eq!(
        ask(
            &instance,
            mine,
            "POST",
            "/traces/alone/events",
            Some(&other)
        )
        .await
        .status,
        200
    );
    let make = async |what: Value| {
        let told = ask(&instance, mine, "POST", "/tokens", Some(&what)).await;
        assert_eq!(told.status, 201, "{}", told.body);
        let told: Value = serde_json::from_str(&told.body).expect("json");
        let text = |name: &str| told[name].as_str().expect("text").to_owned();
        (text("id"), text("token"))
    };
    let get = async |token: &str, path: &str| ask(&instance, Some(token), "GET", path, None).await;
    let (_, whole) = make(json!({"trace_id": "secreta-run"})).await;
    let (_, redacted) = make(json!({"trace_id": "secreta-run", "redact": true})).await;
    let (ended, session) = make(json!({"session_id": "secreta-talk"})).await;
    for token in [&whole, &redacted, &session] {
        for path in [
            "/traces/secreta-run",
            "/traces/secreta-run/events",
            "/traces/secreta-run/summary",
            "/traces/secreta-run/digest",
            "/traces/secreta-run/stream",
        ] {
            let told = get(token, path).await;
            assert_eq!(told.status, 200, "{path}: {}", told.body);
        }
        assert_eq!(get(token, "/traces/alone").await.status, 404);
        for path in [
            "/traces",
            "/sessions",
            "/stats",
            "/stream",
            "/tokens",
            "/admin/keys",
        ] {
            assert_eq!(get(token, path).await.status, 403, "{path}");
        }
        let made = ask(&instance, Some(token), "POST", "/tokens", Some(&json!({}))).await;
        assert_eq!(made.status, 403, "what was lent is lent to nobody");
    }
    let words = get(&whole, "/traces/secreta-run/events?level=debug").await;
    assert!(words.body.contains("secreta-words"), "{}", words.body);
    for path in [
        "/traces/secreta-run/events?level=debug",
        "/traces/secreta-run/events?include=attributes,history",
        "/traces/secreta-run?level=debug&format=detailed",
        "/traces/secreta-run?format=timeline&level=debug",
        "/traces/secreta-run/summary?level=debug",
    ] {
        let told = get(&redacted, path).await;
        assert_eq!(told.status, 200, "{path}: {}", told.body);
        assert!(
            !told.body.contains("secreta-words"),
            "{path}: {}",
            told.body
        );
    }
    let url = instance.url(&format!(
        "/traces/secreta-run/stream?level=debug&token={redacted}"
    ));
    let frame = Viewer::open(&url, None)
        .await
        .expect("opens")
        .soon()
        .await
        .expect("reads")
        .expect("a frame");
    assert!(!frame.data.contains("secreta-words"), "{}", frame.data);
    for path in [
        "/traces/secreta-run/export",
        "/traces/secreta-run/invocations",
        "/traces/secreta-run/analysis",
    ] {
        assert_eq!(get(&redacted, path).await.status, 403, "{path}");
        assert_eq!(get(&whole, path).await.status, 200, "{path}");
    }
    assert_eq!(get(&session, "/sessions/secreta-talk").await.status, 200);
    assert_eq!(get(&session, "/sessions/other").await.status, 404);
    let path = format!("/tokens/{ended}");
    assert_eq!(
        ask(&instance, Some("token-secretb"), "DELETE", &path, None)
            .await
            .status,
        404
    );
    assert_eq!(
        ask(&instance, mine, "DELETE", &path, None).await.status,
        204
    );
    assert_eq!(get(&session, "/sessions/secreta-talk").await.status, 401);
}
