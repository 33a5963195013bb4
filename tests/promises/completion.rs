//! Completion with trace: an agent is called over HTTP, its answer comes with what happened on the way, and whatever becomes of agent or caller, the trace
//! ends and says how.
//!
//! The agent is a server of this test, which answers when and what the test says.

use std::{convert::Infallible, io};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use futures::stream;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tailspan_service::{agents::Agents, config::Config};
use tokio::sync::{mpsc, oneshot};

use crate::support::{Frame, Instance, RedisServer, ReservedPort, Viewer, config, http};

/// A call that the agent got, and has not answered yet.
struct Call {
    headers: HeaderMap,
    body: Value,
    answer: oneshot::Sender<Response>,
}

impl Call {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn reply(self, status: u16, kind: &str, body: impl Into<Body>) {
        let response = Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header("content-type", kind)
            .body(body.into())
            .unwrap();
        let _ = self.answer.send(response);
    }

    fn json(self, body: &Value) {
        self.reply(200, "application/json", body.to_string());
    }

    /// Answers with a stream, of which the head goes out now.
    fn stream(self) -> Words {
        let (words, pieces) = mpsc::unbounded_channel();
        let body = stream::unfold(pieces, |mut pieces: mpsc::UnboundedReceiver<_>| async {
            Some((pieces.recv().await?, pieces))
        });
        self.reply(200, "text/event-stream", Body::from_stream(body));
        Words(words)
    }
}

/// What an agent says, piece by piece. Dropping it ends the answer.
struct Words(mpsc::UnboundedSender<io::Result<Bytes>>);

impl Words {
    fn raw(&self, text: &str) {
        let _ = self.0.send(Ok(Bytes::from(text.to_owned())));
    }

    fn frame(&self, data: &Value) {
        self.raw(&format!("data: {data}\n\n"));
    }

    fn say(&self, words: &str) {
        self.frame(&json!({"object": "chat.completion.chunk", "model": "m-1", "choices": [{"index": 0, "delta": {"content": words}}]}));
    }

    fn end(self) {
        self.frame(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
        self.frame(&json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}));
        self.raw("data: [DONE]\n\n");
    }

    /// The connection breaks.
    fn cut(self) {
        let _ = self.0.send(Err(io::Error::other("cut")));
    }
}

/// A server that hands every call to the test.
struct Agent {
    url: String,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Agent {
    async fn start() -> Self {
        async fn take(
            State(calls): State<mpsc::UnboundedSender<Call>>,
            headers: HeaderMap,
            body: Bytes,
        ) -> Result<Response, Infallible> {
            let (answer, answered) = oneshot::channel();
            let body = serde_json::from_slice(&body).unwrap();
            let _ = calls.send(Call {
                headers,
                body,
                answer,
            });
            // One that is never answered stays open.
            match answered.await {
                Ok(response) => Ok(response),
                Err(_) => std::future::pending().await,
            }
        }
        let (sender, calls) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/v1/chat/completions",
            listener.local_addr().unwrap()
        );
        let router = Router::new().fallback(take).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls }
    }

    async fn call(&mut self) -> Call {
        let call = tokio::time::timeout(std::time::Duration::from_secs(15), self.calls.recv());
        call.await.expect("a call within 15 s").unwrap()
    }
}

const KEY: &str = "sk-a-key-that-nobody-may-see";

/// Settings with one agent, "helper", that has these fields too.
fn settings(redis: &RedisServer, url: &str, more: Value) -> Config {
    let mut agent =
        json!({"kind": "openai_chat", "url": url, "headers": {"authorization": "Bearer ${KEY}"}});
    for (name, value) in more.as_object().unwrap() {
        agent[name] = value.clone();
    }
    let file = json!({ "helper": agent }).to_string();
    let agents = Agents::parse(&file, |name| (name == "KEY").then(|| KEY.to_owned()));
    Config {
        agents: agents.unwrap(),
        ..config(&redis.url())
    }
}

async fn with_agent(more: Value) -> (RedisServer, Agent, Instance) {
    let (redis, agent) = (RedisServer::start().await, Agent::start().await);
    let instance = Instance::with(settings(&redis, &agent.url, more)).await;
    (redis, agent, instance)
}

async fn ask(instance: &Instance, body: &Value) -> reqwest::Response {
    let url = instance.url("/agents/helper/completions/trace");
    http().post(url).json(body).send().await.unwrap()
}

async fn ask_why(instance: &Instance, stream: bool) -> reqwest::Response {
    ask(instance, &json!({"question": "why?", "stream": stream})).await
}

fn trace_of(response: &reqwest::Response) -> String {
    let id = response.headers()["x-trace-id"].to_str().unwrap();
    assert_eq!(id.len(), 32, "{id}");
    id.to_owned()
}

async fn get(instance: &Instance, path: &str) -> Value {
    let response = http().get(instance.url(path)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

/// Waits for the end of a trace: its status, and its events with everything in them.
async fn ended(instance: &Instance, trace: &str) -> (String, Vec<Value>) {
    let url = instance.url(&format!("/traces/{trace}/stream?wait=15s"));
    let frames = Viewer::open(&url, None)
        .await
        .unwrap()
        .rest()
        .await
        .unwrap();
    let end = frames.last().unwrap();
    assert_eq!(end.name, "end", "{frames:?}");
    let status = end.json()["status"].as_str().unwrap().to_owned();
    let page = get(instance, &format!("/traces/{trace}/events?level=debug")).await;
    (status, page["events"].as_array().unwrap().clone())
}

fn types(events: &[Value]) -> Vec<&str> {
    let types = events
        .iter()
        .map(|event| event["event_type"].as_str().unwrap());
    types.collect()
}

/// The trace's events among the frames of a completion.
fn trace_frames(frames: &[Frame]) -> Vec<Value> {
    let json = frames
        .iter()
        .filter(|frame| frame.data != "[DONE]")
        .map(Frame::json);
    json.filter(|frame| frame["event"] == "trace")
        .map(|frame| frame["data"].clone())
        .collect()
}

/// What the agent said, as a client of OpenAI's puts it together.
fn words(frames: &[Frame]) -> String {
    let json = frames
        .iter()
        .filter(|frame| frame.data != "[DONE]")
        .map(Frame::json);
    json.filter_map(|frame| {
        Some(
            frame
                .pointer("/choices/0/delta/content")?
                .as_str()?
                .to_owned(),
        )
    })
    .collect()
}

async fn next(viewer: &mut Viewer) -> Value {
    viewer.soon().await.unwrap().expect("a frame").json()
}

#[tokio::test]
async fn words_and_trace_come_as_they_happen_and_a_second_client_follows_by_the_headers_id() {
    let (redis, mut agent, instance) = with_agent(json!({"model": "m-1"})).await;
    let other = Instance::start(&redis.url()).await;
    let body =
        json!({"question": "why?", "session_id": "talk", "user_id": "ann", "temperature": 0});
    let asking = ask(&instance, &body);
    let (response, words_of_agent) = tokio::join!(asking, async {
        let call = agent.call().await;
        assert_eq!(
            call.body,
            json!({"temperature": 0, "model": "m-1", "stream": true, "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "why?"}]})
        );
        assert_eq!(call.header("authorization"), format!("Bearer {KEY}"));
        let (trace, span) = (call.header("x-trace-id"), call.header("x-parent-span"));
        assert_eq!(call.header("traceparent"), format!("00-{trace}-{span}-01"));
        let (trace, span) = (trace.to_owned(), span.to_owned());
        let words = call.stream();
        words.say("be");
        (words, trace, span)
    });
    let (words_of_agent, trace, span) = words_of_agent;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(trace_of(&response), trace);
    let mut viewer = Viewer::of(response);
    let first = next(&mut viewer).await;
    assert_eq!(
        (&first["event"], &first["trace_id"]),
        (&json!("trace_started"), &json!(trace))
    );

    // On another instance, while the agent still speaks.
    let url = other.url(&format!("/traces/{trace}/stream"));
    let mut follower = Viewer::open(&url, None).await.unwrap();
    let started = next(&mut follower).await;
    assert_eq!(started["event_type"], "workflow_started");
    assert_eq!(
        (
            &started["agent_id"],
            &started["session_id"],
            &started["user_id"]
        ),
        (&json!("helper"), &json!("talk"), &json!("ann"))
    );

    // The agent's own telemetry, to the other instance, under the context that it was given.
    let tool = json!({"traceId": trace, "spanId": "eee19b7ec3c1b174", "parentSpanId": span, "name": "execute_tool look_up",
        "startTimeUnixNano": "1800000000000000000", "endTimeUnixNano": "1800000001000000000",
        "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}}, {"key": "gen_ai.tool.name", "value": {"stringValue": "look_up"}}]});
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": [tool]}]}]});
    let sent = http()
        .post(other.url("/v1/traces"))
        .json(&export)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    let mut frames = Vec::new();
    while types(&trace_frames(&frames)).last() != Some(&"tool_call_completed") {
        frames.push(viewer.soon().await.unwrap().unwrap());
    }
    assert_eq!(words(&frames), "be", "the agent was heard before it ended");
    assert_eq!(
        next(&mut follower).await["event_type"],
        "tool_call_completed"
    );

    words_of_agent.say("cause");
    words_of_agent.end();
    frames.extend(viewer.rest().await.unwrap());
    assert_eq!(words(&frames), "because");
    assert_eq!(frames.pop().unwrap().data, "[DONE]");
    assert!(
        frames.iter().all(|frame| frame.data != "[DONE]"),
        "only one is ours"
    );
    let shown = trace_frames(&frames);
    let all = [
        "workflow_started",
        "tool_call_completed",
        "message_generated",
        "workflow_completed",
    ];
    assert_eq!(types(&shown), all);
    let (status, events) = ended(&instance, &trace).await;
    assert_eq!(
        (status.as_str(), types(&events)),
        ("completed", all.to_vec())
    );
    let seqs: Vec<_> = shown
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4], "each event once");
    let tree = get(&instance, &format!("/traces/{trace}")).await;
    let tool = tree["spans"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["span_id"] == "eee19b7ec3c1b174");
    assert_eq!(
        tool.unwrap()["parent_span_id"],
        json!(span),
        "the agent's work stands below the run"
    );
    let rest = follower.rest().await.unwrap();
    assert_eq!(rest.last().unwrap().json()["status"], "completed");
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_the_agents_own_with_the_trace() {
    let (_redis, mut agent, instance) = with_agent(json!({})).await;
    let completion = json!({"id": "c-1", "object": "chat.completion", "model": "m-1", "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "because"}}]});
    for include_trace in [true, false] {
        let body = json!({"messages": [{"role": "user", "content": "why?"}], "model": "m", "stream": false, "include_trace": include_trace, "trace_level": "debug"});
        let (response, ()) = tokio::join!(ask(&instance, &body), async {
            let call = agent.call().await;
            let sent = json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": "why?"}]});
            assert_eq!(call.body, sent);
            call.json(&completion);
        });
        assert_eq!(response.status(), 200);
        let trace = trace_of(&response);
        let mut answer: Value = response.json().await.unwrap();
        assert_eq!(answer["trace_id"], json!(trace));
        let told = answer.as_object_mut().unwrap().shift_remove("trace");
        answer.as_object_mut().unwrap().shift_remove("trace_id");
        assert_eq!(answer, completion);
        match told {
            None => assert!(!include_trace),
            Some(told) => {
                assert!(include_trace);
                assert_eq!(told["status"], "completed");
                let events = told["events"].as_array().unwrap();
                assert_eq!(
                    types(events),
                    [
                        "workflow_started",
                        "message_generated",
                        "workflow_completed"
                    ]
                );
                assert_eq!(events[0]["input"]["question"], "why?");
                assert_eq!(
                    (
                        &events[1]["output"]["content"],
                        &events[1]["usage"]["input_tokens"]
                    ),
                    (&json!("because"), &json!(3))
                );
                assert_eq!(events[2]["output"]["content"], "because");
            }
        }
        assert_eq!(ended(&instance, &trace).await.0, "completed");
    }
}

/// An answer with an error instead: as JSON with the trace so far, the trace having failed, and nothing secret anywhere.
async fn fails(
    instance: &Instance,
    response: reqwest::Response,
    status: u16,
    code: &str,
) -> String {
    let trace = trace_of(&response);
    assert_eq!(response.status(), status);
    let text = response.text().await.unwrap();
    assert!(!text.contains(KEY), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&body["error"]["code"], &body["trace_id"]),
        (&json!(code), &json!(trace))
    );
    assert_eq!(body["trace"]["status"], "failed", "{text}");
    assert_eq!(
        types(body["trace"]["events"].as_array().unwrap()),
        ["workflow_started", "workflow_failed"]
    );
    let events = get(instance, &format!("/traces/{trace}/events?level=debug")).await;
    assert!(!events.to_string().contains(KEY));
    body["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_agent_that_fails_before_it_speaks_is_told_by_the_status() {
    let (redis, mut agent, instance) = with_agent(json!({"max_answer_bytes": 1000})).await;
    let port = ReservedPort::take();
    let nobody = format!("http://127.0.0.1:{}/", port.number);
    let deserted = Instance::with(settings(&redis, &nobody, json!({}))).await;
    for stream in [true, false] {
        let body = json!({"question": "why?", "stream": stream});
        let message = fails(&deserted, ask(&deserted, &body).await, 502, "agent_failed").await;
        assert_eq!(message, "the agent cannot be reached");
        let error = json!({"error": {"message": format!("no such key: {KEY}")}}).to_string();
        let large = format!("{{\"x\": \"{}\"}}", "x".repeat(1000));
        for (status, kind, answer, expected) in [
            (
                401,
                "application/json",
                error.as_str(),
                "the agent answered 401: no such key: ***",
            ),
            (
                500,
                "text/html",
                "<html>oh</html>",
                "the agent answered 500",
            ),
            (307, "text/plain", "elsewhere", "the agent answered 307"),
            (
                200,
                "text/html",
                "<html>hi</html>",
                "the agent answered with \"text/html\", which is neither an event stream nor JSON",
            ),
            (
                200,
                "application/json",
                "{\"cho",
                "the agent's answer is not JSON",
            ),
            (
                200,
                "application/json",
                "{}",
                "the agent's answer has no choices[0].message",
            ),
            (
                200,
                "application/json",
                large.as_str(),
                "the agent's answer has more than 1000 bytes",
            ),
            (
                200,
                "text/event-stream",
                "data: <html>\n\n",
                "the agent sent a frame that is not JSON",
            ),
            (
                200,
                "text/event-stream",
                "",
                "the agent's answer broke off before its end",
            ),
        ] {
            let (response, ()) = tokio::join!(ask(&instance, &body), async {
                agent.call().await.reply(status, kind, answer.to_owned());
            });
            assert_eq!(
                fails(&instance, response, 502, "agent_failed").await,
                expected
            );
        }
    }
}

#[tokio::test]
async fn an_agent_that_is_too_slow_is_told_apart() {
    let (_redis, mut agent, instance) = with_agent(json!({"first_byte_seconds": 0.2})).await;
    for stream in [true, false] {
        let body = json!({"question": "why?", "stream": stream});
        // Held to the end, so that the connection stays.
        let (response, _silent) = tokio::join!(ask(&instance, &body), agent.call());
        let message = fails(&instance, response, 504, "agent_timeout").await;
        assert_eq!(message, "the agent sent nothing within 200ms");
        let (response, _silent) =
            tokio::join!(ask(&instance, &body), async { agent.call().await.stream() });
        fails(&instance, response, 504, "agent_timeout").await;
    }
}

#[tokio::test]
async fn an_agent_that_fails_in_the_middle_is_told_by_a_frame() {
    let (_redis, mut agent, instance) = with_agent(json!({"total_seconds": 1.0})).await;
    type End = fn(Words);
    let ends: [(End, &str, &str); 5] = [
        (
            |words| words.cut(),
            "agent_failed",
            "the agent's answer broke off before its end",
        ),
        (
            drop,
            "agent_failed",
            "the agent's answer broke off before its end",
        ),
        (
            |words| words.raw("data: <html>\n\n"),
            "agent_failed",
            "the agent sent a frame that is not JSON",
        ),
        (
            |words| words.frame(&json!({"error": {"message": format!("{KEY} is used up")}})),
            "agent_failed",
            "*** is used up",
        ),
        // Silent, and open.
        (
            std::mem::forget,
            "agent_timeout",
            "the agent did not end its answer within 1s",
        ),
    ];
    for (end, code, message) in ends {
        let (response, words_of_agent) = tokio::join!(ask_why(&instance, true), async {
            let words = agent.call().await.stream();
            words.say("be");
            words
        });
        let trace = trace_of(&response);
        assert_eq!(response.status(), 200);
        end(words_of_agent);
        let mut frames = Viewer::of(response).rest().await.unwrap();
        assert_eq!(words(&frames), "be");
        assert_eq!(frames.pop().unwrap().data, "[DONE]");
        let error = frames.pop().unwrap().json();
        assert_eq!(
            error,
            json!({"event": "error", "data": {"code": code, "message": message, "trace_id": trace}})
        );
        let all = ["workflow_started", "message_generated", "workflow_failed"];
        assert_eq!(types(&trace_frames(&frames)), all, "the trace so far");
        let (status, events) = ended(&instance, &trace).await;
        assert_eq!((status.as_str(), types(&events)), ("failed", all.to_vec()));
        assert_eq!(events[2]["error"]["message"], message);
        assert_eq!(events[2]["output"]["content"], "be");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_the_run() {
    let (_redis, mut agent, instance) = with_agent(json!({})).await;
    // One that has seen the beginning of a stream.
    let (response, words_of_agent) = tokio::join!(ask_why(&instance, true), async {
        let words = agent.call().await.stream();
        words.say("be");
        words
    });
    let trace = trace_of(&response);
    let mut viewer = Viewer::of(response);
    next(&mut viewer).await;
    drop(viewer);
    words_of_agent.say("cause");
    words_of_agent.end();
    let (status, events) = ended(&instance, &trace).await;
    assert_eq!(status, "completed");
    assert_eq!(events.last().unwrap()["output"]["content"], "because");

    // One that waits for the whole answer, and hangs up.
    let call = tokio::select! {
        _ = ask_why(&instance, false) => panic!("the agent has not answered"),
        call = agent.call() => call,
    };
    let trace = call.header("x-trace-id").to_owned();
    let message = json!({"role": "assistant", "content": "because"});
    call.json(&json!({"choices": [{"message": message, "finish_reason": "stop"}]}));
    let (status, events) = ended(&instance, &trace).await;
    assert_eq!(status, "completed");
    assert_eq!(events.last().unwrap()["output"]["content"], "because");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_before_anybody_is_called() {
    let (redis, agent, _) = with_agent(json!({})).await;
    let mut settings = settings(&redis, &agent.url, json!({"tenants": ["team-a"]}));
    for (token, tenant) in [("a", "team-a"), ("b", "team-b")] {
        let tenant = tailspan_core::id::TenantId::parse(tenant).unwrap();
        settings.tokens.insert(token.to_owned(), tenant);
    }
    let instance = Instance::with(settings).await;
    let send = async |token: &str, agent: &str, kind: &str, trace: Option<&str>, body: String| {
        let mut request = http()
            .post(instance.url(&format!("/agents/{agent}/completions/trace")))
            .bearer_auth(token)
            .header(CONTENT_TYPE, kind)
            .body(body);
        if let Some(trace) = trace {
            request = request.header("x-trace-id", trace);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    };
    let (json, question) = ("application/json", r#"{"question": "why?"}"#);
    for (token, agent, kind, trace, body, status, code) in [
        ("c", "helper", json, None, question, 401, "unauthorized"),
        ("a", "nobody", json, None, question, 404, "agent_not_found"),
        ("a", "%ff", json, None, question, 404, "agent_not_found"),
        ("b", "helper", json, None, question, 404, "agent_not_found"),
        (
            "a",
            "helper",
            "text/plain",
            None,
            question,
            415,
            "unsupported_media_type",
        ),
        ("a", "helper", json, None, "{", 400, "invalid_body"),
        ("a", "helper", json, None, "{}", 400, "missing_question"),
        (
            "a",
            "helper",
            json,
            None,
            r#"{"question": "x", "trace_level": "all"}"#,
            400,
            "invalid_parameter",
        ),
        (
            "a",
            "helper",
            json,
            Some("../x"),
            question,
            400,
            "invalid_trace_id",
        ),
    ] {
        let told = send(token, agent, kind, trace, body.to_owned()).await;
        assert_eq!(
            told,
            (status, code.to_owned()),
            "{token} {agent} {kind} {trace:?} {body}"
        );
    }
    let large = format!(r#"{{"question": "{}"}}"#, "x".repeat(5 << 20));
    assert_eq!(
        send("a", "helper", json, None, large).await,
        (413, "too_large".to_owned())
    );
    let traces = http()
        .get(instance.url("/traces"))
        .bearer_auth("a")
        .send()
        .await
        .unwrap();
    let traces: Value = traces.json().await.unwrap();
    assert_eq!(traces["traces"], json!([]), "nothing was begun");
}
