//! The WebSocket of agents under development: every row of its protocol, over real sockets, on whichever instance.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tailspan_core::{
    feed::{FeedCursor, Happened, SessionNews},
    id::{SessionKey, TenantId},
    live::wire_form::wire_span,
};
use tailspan_service::{App, live::LiveSession, log::feed::Scope};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use crate::support::{Instance, Store};

pub(crate) struct Client(WebSocketStream<TcpStream>);

impl Client {
    pub(crate) async fn connect(instance: &Instance) -> Self {
        Self::try_connect(instance, "").await.unwrap()
    }

    pub(crate) async fn try_connect(instance: &Instance, query: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(instance.address).await?;
        let url = format!("ws://{}/ws/traces{query}", instance.address);
        let config = WebSocketConfig::default().max_message_size(None);
        let (socket, _) =
            client_async_with_config(url, stream, Some(config.max_frame_size(None))).await?;
        Ok(Self(socket))
    }

    pub(crate) async fn send(&mut self, frame: impl ToString) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame with text; a close as its code.
    pub(crate) async fn next(&mut self) -> Result<Value, u16> {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(15), self.0.next());
            match frame.await.expect("a frame within 15 s") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => {
                    return Err(close.map_or(1005, |close| close.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    async fn start(&mut self, session: &str) {
        self.send(json!({
            "type": "session_start", "session_id": session, "trace_id": format!("trace of {session}"),
            "eval_set_id": "golden", "metadata": {"model": "m"},
        }))
        .await;
    }

    async fn span(&mut self, session: &str, id: u64) {
        self.send(json!({"type": "span", "session_id": session, "span": span(id)}))
            .await;
    }

    async fn end(&mut self, session: &str) {
        self.send(json!({"type": "session_end", "session_id": session}))
            .await;
    }

    /// Ends a session and reads its answer.
    pub(crate) async fn ended(&mut self, session: &str) -> Value {
        self.end(session).await;
        self.next().await.unwrap()
    }
}

/// A model call of a turn of its own, as the dialect's client sends it.
fn span(id: u64) -> Value {
    let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
    json!({
        "traceId": "a1000000000000000000000000000001", "spanId": format!("{id:016x}"), "parentSpanId": null,
        "name": "chat gpt-4o", "kind": 2,
        "startTimeUnixNano": format!("{}", 1_760_000_000_000_000_000 + id * 1_000_000_000),
        "endTimeUnixNano": format!("{}", 1_760_000_000_200_000_000 + id * 1_000_000_000),
        "attributes": [
            text("otel.scope.name", "opentelemetry.instrumentation.openai_v2"),
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "gpt-4o"),
            text("gen_ai.input.messages", &format!(r#"[{{"role":"user","parts":[{{"type":"text","content":"question {id}"}}]}}]"#)),
            text("gen_ai.output.messages", &format!(r#"[{{"role":"assistant","parts":[{{"type":"text","content":"answer {id}"}}]}}]"#)),
            json!({"key": "gen_ai.usage.input_tokens", "value": {"intValue": 3}}),
        ],
        "status": {"code": 0},
    })
}

async fn session(app: &App, name: &str) -> Option<LiveSession> {
    let key = SessionKey::of(name);
    app.log
        .live_session(&TenantId::default(), &key)
        .await
        .unwrap()
}

/// The spans of a session as a page gets them.
async fn spans(app: &App, name: &str) -> Vec<Value> {
    let session = session(app, name).await.unwrap();
    let trace = session.into.unwrap();
    let tenant = TenantId::default();
    let page = app
        .log
        .page(
            &tenant,
            &trace,
            tailspan_service::log::read::ReadFrom::Holding(1),
            tailspan_service::log::read::PageSize::LARGE,
        )
        .await
        .unwrap();
    let mut spans = Vec::new();
    for chunk in &page.chunks {
        for recorded in app.log.recorded(&tenant, &trace, chunk).await.unwrap() {
            let span = wire_span(&trace, &recorded.observation);
            spans.extend(span.map(|span| serde_json::from_str::<Value>(&span).unwrap()));
        }
    }
    spans
}

async fn happened(app: &App) -> impl Iterator<Item = Happened> {
    let (tenant, scope) = (TenantId::default(), Scope::Tenant);
    let all = app.log.notices(&tenant, &scope, FeedCursor::START, 10_000);
    let all = all.await.unwrap().into_iter();
    all.map(|noticed| noticed.happened)
}

async fn told(app: &App) -> Vec<String> {
    let sessions = happened(app).await.filter_map(|happened| match happened {
        Happened::Session { name, news, .. } => Some(match news {
            SessionNews::Started => format!("{name} started"),
            SessionNews::Complete => format!("{name} complete"),
            SessionNews::Removed { .. } => format!("{name} removed"),
        }),
        _ => None,
    });
    sessions.collect()
}

const KEYS: [&str; 6] = [
    "invocationId",
    "userText",
    "agentText",
    "toolCalls",
    "toolResponses",
    "modelInfo",
];

#[tokio::test]
async fn a_session_is_told_of_and_answered_with_its_turns() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    client.span("s", 1).await;
    client.span("s", 2).await;
    let log = json!({"event_name": "gen_ai.other", "timestamp": "1760000000001000000", "body": {"a": 1}, "attributes": {}});
    client
        .send(json!({"type": "log", "session_id": "s", "log": log}))
        .await;
    let answer = client.ended("s").await;
    // Of which session it is says its place: there is no id.
    assert_eq!(
        answer.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["type", "invocations"]
    );
    let turns = answer["invocations"].as_array().unwrap();
    assert_eq!(turns.len(), 2, "{answer}");
    for (turn, id) in turns.iter().zip([1, 2]) {
        assert_eq!(turn.as_object().unwrap().keys().collect::<Vec<_>>(), KEYS);
        assert_eq!(turn["userText"], format!("question {id}"));
        assert_eq!(turn["agentText"], format!("answer {id}"));
    }
    let begun = session(&instance.app, "s").await.unwrap();
    assert_eq!(
        (
            begun.spans,
            begun.logs,
            begun.complete,
            begun.trace.as_str()
        ),
        (2, 1, true, "trace of s")
    );
    // As they came, though another trace holds them.
    assert_eq!(spans(&instance.app, "s").await, [span(1), span(2)]);

    // After its end it takes more, and ends again with all of it.
    client.span("s", 3).await;
    let again = client.ended("s").await;
    assert_eq!(again["invocations"].as_array().unwrap().len(), 3);
    let once_more = client.ended("s").await;
    assert_eq!(once_more, again);
    assert_eq!(
        told(&instance.app).await,
        ["s started", "s complete", "s complete", "s complete"]
    );

    // Begun anew, it is empty; what was there is a trace of its own.
    client.start("s").await;
    client.span("s", 9).await;
    let anew = client.ended("s").await;
    assert_eq!(anew["invocations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_begun_on_one_instance_goes_on_and_ends_on_another() {
    let store = Store::node().await;
    let one = Instance::with(store.config()).await;
    let other = Instance::with(store.config()).await;
    let mut first = Client::connect(&one).await;
    first.start("s").await;
    first.span("s", 1).await;
    // An answer, after which all of it is there.
    first.send("hello").await;
    assert_eq!(first.next().await.unwrap()["type"], "error");
    drop(first);
    assert!(!session(&other.app, "s").await.unwrap().complete);

    let mut second = Client::connect(&other).await;
    second.span("s", 2).await;
    let answer = second.ended("s").await;
    assert_eq!(answer["invocations"].as_array().unwrap().len(), 2);
    assert!(session(&one.app, "s").await.unwrap().complete);
}

#[tokio::test]
async fn a_client_that_leaves_at_once_has_its_session_ended() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    for id in 1..=500 {
        client.span("s", id).await;
    }
    client.end("s").await;
    let _ = client.0.close(None).await;
    drop(client);
    for _ in 0..600 {
        if session(&instance.app, "s")
            .await
            .is_some_and(|session| session.complete)
        {
            assert_eq!(session(&instance.app, "s").await.unwrap().spans, 500);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the session was not ended");
}

#[tokio::test]
async fn what_is_malformed_is_answered_and_costs_only_itself() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    client.span("s", 1).await;
    for frame in [
        "{".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        json!({"type": "span", "session_id": "s"}).to_string(),
        json!({"type": "span", "session_id": "s", "span": {"attributes": {}}}).to_string(),
        json!({"type": "session_start", "session_id": 7, "trace_id": "t"}).to_string(),
        json!({"type": "session_start", "session_id": "x", "trace_id": "t", "metadata": []})
            .to_string(),
    ] {
        client.send(&frame).await;
        let answer = client.next().await.unwrap();
        assert_eq!(answer["type"], "error", "{frame}");
        assert!(answer["message"].is_string());
    }
    // No answer to what is unknown, and none to what has none.
    client.send(json!({"type": "later"})).await;
    client.span("nobody", 1).await;
    client.end("nobody").await;
    let binary = json!({"type": "span", "session_id": "s", "span": span(2)}).to_string();
    client.0.send(Message::binary(binary)).await.unwrap();
    let empty = json!({"type": "span", "session_id": "s", "span": {}});
    client.send(&empty).await;
    client.send(&empty).await;
    let odd = json!({"spanId": "x", "parentSpanId": "y", "attributes": null, "more": [1]});
    client
        .send(json!({"type": "span", "session_id": "s", "span": odd}))
        .await;
    assert_eq!(client.ended("s").await["type"], "session_complete");
    assert_eq!(
        spans(&instance.app, "s").await,
        [span(1), span(2), json!({}), json!({}), odd]
    );
    assert_eq!(told(&instance.app).await, ["s started", "s complete"]);
}

#[tokio::test]
async fn beyond_a_limit_each_item_is_answered() {
    let store = Store::node().await;
    let mut config = store.config();
    config.live.max_spans = 3;
    config.live.max_logs = 1;
    let instance = Instance::with(config).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    for id in 1..=5 {
        client.span("s", id).await;
    }
    let log = json!({"type": "log", "session_id": "s", "log": {"event_name": "gen_ai.x"}});
    client.send(&log).await;
    client.send(&log).await;
    let spans_full =
        json!({"type": "error", "message": "Session has reached maximum span limit (3)"});
    let logs_full =
        json!({"type": "error", "message": "Session has reached maximum log limit (1)"});
    for expected in [&spans_full, &spans_full, &logs_full] {
        assert_eq!(&client.next().await.unwrap(), expected);
    }
    let answer = client.ended("s").await;
    assert_eq!(answer["invocations"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn sessions_share_a_connection_and_answers_keep_the_order_of_ends() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    for name in &names {
        client.start(name).await;
    }
    for round in 1..=3 {
        for (n, name) in names.iter().enumerate() {
            client.span(name, 100 * n as u64 + round).await;
        }
    }
    for name in names.iter().rev() {
        client.end(name).await;
    }
    for n in (0..40).rev() {
        let answer = client.next().await.unwrap();
        let turns = answer["invocations"].as_array().unwrap();
        let said: Vec<_> = turns.iter().map(|turn| turn["userText"].clone()).collect();
        let expected = [1, 2, 3].map(|round| json!(format!("question {}", 100 * n + round)));
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn spans_that_follow_each_other_are_taken_together() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    for id in 1..=200 {
        client.span("s", id).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = client.ended("s").await;
    assert_eq!(answer["invocations"].as_array().unwrap().len(), 200);
    assert_eq!(spans(&instance.app, "s").await.len(), 200);
    let all = happened(&instance.app).await;
    let appends = all.filter(|happened| matches!(happened, Happened::Moved { .. }));
    // One each 15 ms where nothing else runs.
    assert!((1..=100).contains(&appends.count()));
}

#[tokio::test]
async fn large_messages_are_taken_and_too_large_ones_close_the_connection() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    let mut large = span(1);
    large["attributes"][0]["value"]["stringValue"] = json!("x".repeat(15 << 20));
    let frame = |span: &Value| json!({"type": "span", "session_id": "s", "span": span});
    client.send(frame(&large)).await;
    client.send("").await;
    assert_eq!(client.next().await.unwrap()["type"], "error");
    assert_eq!(session(&instance.app, "s").await.unwrap().spans, 1);
    large["attributes"][0]["value"]["stringValue"] = json!("x".repeat(17 << 20));
    let _ = client
        .0
        .send(Message::text(frame(&large).to_string()))
        .await;
    assert_eq!(client.next().await, Err(1009));
    assert!(session(&instance.app, "s").await.is_some());
}

#[tokio::test]
async fn a_silent_client_is_asked_and_then_told_to_go() {
    let store = Store::node().await;
    let app = App::start(store.config()).await.unwrap();
    let patience = tailspan_socket::Keepalive {
        every: Duration::from_millis(150),
    };
    let router = tailspan_socket::router_with(app.clone(), patience);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/ws/traces");
        Client(client_async_with_config(url, stream, None).await.unwrap().0)
    };
    // One that reads answers pings, and stays for longer than both times.
    let mut reads = connect().await;
    let stays = tokio::time::timeout(Duration::from_millis(900), reads.0.next());
    let ping = stays.await.expect("a ping");
    assert!(matches!(ping, Some(Ok(Message::Ping(_)))), "{ping:?}");
    for _ in 0..4 {
        assert!(matches!(reads.0.next().await, Some(Ok(Message::Ping(_)))));
    }
    reads.start("s").await;
    reads.send("").await;
    assert!(reads.next().await.is_ok());
    // One that answers none is told why it is let go.
    let (mut silent, request) = (
        TcpStream::connect(address).await.unwrap(),
        format!(
            "GET /ws/traces HTTP/1.1\r\nhost: {address}\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    silent.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), silent.read_to_end(&mut all));
    read.await.expect("the connection ends").unwrap();
    let head = String::from_utf8_lossy(&all);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let at = all.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    // A ping without a payload, then a close: 1011 and its reason.
    assert_eq!(all[at..at + 2], [0x89, 0]);
    assert_eq!(all[at + 2], 0x88);
    assert_eq!(all[at + 4..at + 6], 1011u16.to_be_bytes());
    assert!(all.ends_with(b"keepalive ping timeout"));
    app.shutdown.cancel();
}

#[tokio::test]
async fn a_drain_tells_clients_to_go_after_what_they_sent_is_done() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let mut client = Client::connect(&instance).await;
    client.start("s").await;
    client.span("s", 1).await;
    client.send("").await;
    client.next().await.unwrap();
    instance.app.shutdown.cancel();
    assert_eq!(client.next().await, Err(1001));
    drop(client);
    instance.app.tasks.close();
    let drained = tokio::time::timeout(Duration::from_secs(10), instance.app.tasks.wait());
    drained.await.expect("nothing is left");
}

#[tokio::test]
async fn each_tenant_has_its_own_sessions_and_nobody_else_gets_in() {
    let store = Store::node().await;
    let mut config = store.config();
    for name in ["one", "two"] {
        let tenant = TenantId::parse(name).unwrap();
        config.tokens.insert(format!("token-{name}"), tenant);
    }
    let instance = Instance::with(config).await;
    let refused = |answer: Result<Client, Error>| match answer {
        Err(Error::Http(response)) => response.status().as_u16(),
        _ => panic!("let in"),
    };
    assert_eq!(refused(Client::try_connect(&instance, "").await), 401);
    assert_eq!(
        refused(Client::try_connect(&instance, "?token=x").await),
        401
    );
    let mut one = Client::try_connect(&instance, "?token=token-one")
        .await
        .unwrap();
    let mut two = Client::try_connect(&instance, "?token=token-two")
        .await
        .unwrap();
    one.start("s").await;
    one.span("s", 1).await;
    // Of another's session nothing is known.
    two.span("s", 2).await;
    two.end("s").await;
    two.send("").await;
    assert_eq!(two.next().await.unwrap()["type"], "error");
    let answer = one.ended("s").await;
    assert_eq!(answer["invocations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_plain_request_is_told_what_this_is() {
    let store = Store::node().await;
    let instance = Instance::with(store.config()).await;
    let response = crate::support::http()
        .get(instance.url("/ws/traces"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 426);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "upgrade_required");
}

#[tokio::test]
async fn a_gateway_holds_the_connection_and_each_frame_is_an_event() {
    let store = Store::node().await;
    let mut config = store.config();
    let tenant = TenantId::default();
    config.tokens.insert("secret".to_owned(), tenant);
    let instance = Instance::with(config).await;
    let other = Instance::with(instance.app.config.clone()).await;
    let event = |kind: &str, body: Value| {
        json!({
            "requestContext": {"eventType": kind, "connectionId": "L0SM9cOFvHcCIhw="},
            "headers": {"Authorization": "Bearer secret"}, "isBase64Encoded": false,
            "body": match body { Value::Null => Value::Null, body => Value::String(body.to_string()) },
        })
    };
    let ask = async |app: &App, event: Value| {
        let management = tailspan_socket::cloud::Management::default();
        tailspan_socket::cloud::answer(app, &management, event)
            .await
            .unwrap()
    };
    let mut stranger = event("CONNECT", Value::Null);
    stranger["headers"] = json!({});
    let app = &instance.app;
    assert_eq!(ask(app, stranger).await, json!({"statusCode": 401}));
    let start = json!({"type": "session_start", "session_id": "s", "trace_id": "t"});
    // Nobody was let in yet.
    assert_eq!(
        ask(app, event("MESSAGE", start.clone())).await["statusCode"],
        401
    );
    assert_eq!(
        ask(app, event("CONNECT", Value::Null)).await,
        json!({"statusCode": 200})
    );
    let sent = json!({"type": "span", "session_id": "s", "span": span(1)});
    for frame in [start, sent] {
        // Without a body there is no frame for the client.
        assert_eq!(
            ask(&other.app, event("MESSAGE", frame)).await,
            json!({"statusCode": 200})
        );
    }
    let end = json!({"type": "session_end", "session_id": "s"});
    let answer = ask(app, event("MESSAGE", end)).await;
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["invocations"][0]["userText"], "question 1");
    let wrong = ask(app, event("MESSAGE", json!([]))).await;
    assert!(wrong["body"].as_str().unwrap().contains("error"));
    assert_eq!(
        ask(app, event("DISCONNECT", Value::Null)).await["statusCode"],
        200
    );
    assert_eq!(
        ask(app, event("MESSAGE", json!({}))).await["statusCode"],
        401
    );
}
