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
use tailspan_core::id::{TenantId, TraceId};
use tailspan_service::{agents::Agents, config::Config};
use tokio::sync::{mpsc, oneshot};

use crate::support::{Frame, Instance, RedisServer, ReservedPort, Viewer, config, http};

/// A call that the agent got, and has not answered yet.
pub(crate) struct Call {
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

    pub(crate) fn json(self, body: &Value) {
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
pub(crate) struct Agent {
    pub(crate) url: String,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Agent {
    pub(crate) async fn start() -> Self {
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

    pub(crate) async fn call(&mut self) -> Call {
        let call = tokio::time::timeout(std::time::Duration::from_secs(15), self.calls.recv());
        call.await.expect("a call within 15 s").unwrap()
    }
}

const KEY: &str = "sk-a-key-that-nobody-may-see";

/// Settings with one agent, "helper", that has these fields too.
pub(crate) fn settings(redis: &RedisServer, url: &str, more: Value) -> Config {
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
    let (redis, mut agent, patient) = with_agent(json!({})).await;
    let hasty = json!({"total_seconds": 3.0});
    let hasty = Instance::with(settings(&redis, &agent.url, hasty)).await;
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
            "the agent did not end its answer within 3s",
        ),
    ];
    for (end, code, message) in ends {
        let instance = match code {
            "agent_timeout" => &hasty,
            _ => &patient,
        };
        let (response, words_of_agent) = tokio::join!(ask_why(instance, true), async {
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
        let (status, events) = ended(instance, &trace).await;
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
        let tenant = TenantId::parse(tenant).unwrap();
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

#[tokio::test]
async fn two_callers_at_a_time_hear_only_their_own() {
    let (_redis, mut agent, instance) = with_agent(json!({})).await;
    let questions = [json!({"question": "one?"}), json!({"question": "two?"})];
    let (one, two, calls) = tokio::join!(
        ask(&instance, &questions[0]),
        ask(&instance, &questions[1]),
        async {
            let mut calls = [agent.call().await, agent.call().await];
            calls.sort_by_key(|call| call.body["messages"][0]["content"] == "two?");
            calls.map(|call| {
                let trace = call.header("x-trace-id").to_owned();
                let words = call.stream();
                words.say("-");
                (trace, words)
            })
        }
    );
    let [(first, words_one), (second, words_two)] = calls;
    assert_eq!(
        (trace_of(&one), trace_of(&two)),
        (first.clone(), second.clone())
    );
    assert_ne!(first, second);
    for n in 0..20 {
        words_one.say(&format!("a{n}"));
        words_two.say(&format!("b{n}"));
    }
    words_two.end();
    words_one.end();
    for (response, trace, letter) in [(one, first, "a"), (two, second, "b")] {
        let frames = Viewer::of(response).rest().await.unwrap();
        let said: String = (0..20).map(|n| format!("{letter}{n}")).collect();
        assert_eq!(words(&frames), format!("-{said}"));
        for event in trace_frames(&frames) {
            assert_eq!(event["trace_id"], json!(trace));
        }
        let (status, events) = ended(&instance, &trace).await;
        assert_eq!((status.as_str(), events.len()), ("completed", 3));
        assert_eq!(events[2]["output"]["content"], format!("-{said}"));
    }
}

#[tokio::test]
async fn a_bare_models_use_of_tokens_is_recorded_as_a_call_of_the_run() {
    let (_redis, mut agent, instance) =
        with_agent(json!({"instrumented": false, "model": "gpt-4o-mini"})).await;
    let body = json!({"question": "why?", "trace_level": "debug"});
    let (response, ()) = tokio::join!(ask(&instance, &body), async {
        let words = agent.call().await.stream();
        words.say("because");
        words.end();
    });
    let trace = trace_of(&response);
    let frames = Viewer::of(response).rest().await.unwrap();
    let all = [
        "workflow_started",
        "llm_call_started",
        "llm_call_completed",
        "message_generated",
        "workflow_completed",
    ];
    assert_eq!(types(&trace_frames(&frames)), all);
    let summary = get(&instance, &format!("/traces/{trace}/summary")).await;
    let counted = ["total_llm_calls", "input_tokens", "output_tokens"]
        .map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counted, [1, 3, 2], "{summary}");
    let turns = get(&instance, &format!("/traces/{trace}/invocations")).await;
    assert_eq!(
        (&turns[0]["userText"], &turns[0]["agentText"]),
        (&json!("why?"), &json!("because"))
    );
}

fn engine(event: &str, data: Value) -> Value {
    json!({"event": event, "message_id": "m1", "created_at": 15294, "task_id": "t", "session_id": "s1", "data": data})
}

fn node(event: &str, name: &str, error: Value) -> Value {
    engine(
        event,
        json!({"component_id": name, "component_name": name, "component_type": "Agent", "inputs": {"q": "why?"}, "outputs": {"a": 0}, "error": error, "elapsed_time": 0.5, "created_at": 15294.0382}),
    )
}

/// What RAGFlow's engine says of a run with two steps, thinking and a retrieval.
fn engine_run(words: &Words) {
    words.frame(&engine("workflow_started", json!({"inputs": {}})));
    words.frame(&node("node_started", "Begin", Value::Null));
    words.frame(&node("node_finished", "Begin", Value::Null));
    words.frame(&node("node_started", "Search", Value::Null));
    words.frame(&node("node_finished", "Search", json!("index is gone")));
    for data in [
        json!({"content": "", "start_to_think": true}),
        json!({"content": "hm"}),
        json!({"content": "", "end_to_think": true}),
        json!({"content": "be"}),
        json!({"content": "cause"}),
    ] {
        words.frame(&engine("message", data));
    }
    let chunk = json!({"id": "k", "content": "text", "document_id": "d", "similarity": 0.5});
    words.frame(&engine(
        "message_end",
        json!({"reference": {"chunks": [chunk]}}),
    ));
}

const ENGINE_EVENTS: [&str; 10] = [
    "workflow_started",
    "node_started",
    "node_finished",
    "node_started",
    "node_failed",
    "thinking_started",
    "thinking_completed",
    "retrieval_completed",
    "message_generated",
    "workflow_completed",
];

#[tokio::test]
async fn the_seeds_own_agents_tell_their_steps() {
    let (_redis, mut agent, instance) = with_agent(json!({"kind": "ragflow"})).await;
    // Streamed and not: the engine is asked for its frames either way.
    for stream in [true, false] {
        let body = json!({"question": "why?", "stream": stream, "trace_level": "debug"});
        let (response, ()) = tokio::join!(ask(&instance, &body), async {
            let call = agent.call().await;
            assert_eq!(call.body, json!({"question": "why?", "stream": true}));
            let words = call.stream();
            engine_run(&words);
            words.frame(&engine(
                "workflow_finished",
                json!({"outputs": {"content": "because"}, "elapsed_time": 1.0}),
            ));
            words.raw("data:[DONE]\n\n");
        });
        assert_eq!(response.status(), 200);
        let trace = trace_of(&response);
        match stream {
            true => {
                let frames = Viewer::of(response).rest().await.unwrap();
                let own = frames
                    .iter()
                    .filter(|frame| frame.data.contains("message_id"));
                assert_eq!(own.count(), 12, "the engine's frames as they came");
                assert_eq!(types(&trace_frames(&frames)), ENGINE_EVENTS);
            }
            false => {
                let answer: Value = response.json().await.unwrap();
                assert_eq!(
                    (&answer["event"], &answer["data"]["content"]),
                    (&json!("message_end"), &json!("because"))
                );
                assert_eq!(answer["data"]["reference"]["chunks"][0]["id"], "k");
                assert_eq!(
                    types(answer["trace"]["events"].as_array().unwrap()),
                    ENGINE_EVENTS
                );
            }
        }
        let (status, events) = ended(&instance, &trace).await;
        assert_eq!(
            (status.as_str(), types(&events)),
            ("completed", ENGINE_EVENTS.to_vec())
        );
        assert_eq!(
            (&events[4]["name"], &events[4]["error"]["message"]),
            (&json!("Search"), &json!("index is gone"))
        );
        assert_eq!(
            events[1]["session_id"], "s1",
            "the engine's session, for the caller named none"
        );
        let tree = get(&instance, &format!("/traces/{trace}")).await;
        let steps = tree["spans"].as_array().unwrap();
        let nodes = steps.iter().filter(|step| step["kind"] == "task").count();
        assert_eq!(
            nodes, 2,
            "each step once, its start and its end joined: {steps:?}"
        );
        assert!(
            steps.iter().all(|step| step["status"] != "running"),
            "{steps:?}"
        );
    }
    // Its failure is silence: there is no frame for it.
    let (response, ()) = tokio::join!(ask_why(&instance, true), async {
        let words = agent.call().await.stream();
        engine_run(&words);
        words.raw("data:[DONE]\n\n");
    });
    let trace = trace_of(&response);
    let frames = Viewer::of(response).rest().await.unwrap();
    assert_eq!(
        frames[frames.len() - 2].json()["data"]["code"],
        "agent_failed"
    );
    assert_eq!(ended(&instance, &trace).await.0, "failed");
}

#[tokio::test]
async fn the_seeds_clients_get_its_frames_and_its_envelope() {
    let (_redis, mut agent, instance) = with_agent(json!({"kind": "ragflow"})).await;
    let url = instance.url("/v1/trace/agents/helper/completions/trace");
    for (stream, works) in [(true, true), (false, true), (false, false)] {
        let body = json!({"question": "why?", "stream": stream});
        let asking = http().post(&url).json(&body).send();
        let (response, ()) = tokio::join!(asking, async {
            let words = agent.call().await.stream();
            engine_run(&words);
            if works {
                words.frame(&engine(
                    "workflow_finished",
                    json!({"outputs": {"content": "because"}}),
                ));
            }
        });
        let response = response.unwrap();
        let trace = trace_of(&response);
        if stream {
            let mut frames = Viewer::of(response).rest().await.unwrap();
            assert_eq!(frames.pop().unwrap().data, "[DONE]");
            let session = frames.pop().unwrap().json();
            assert_eq!(
                (&session["event"], &session["data"]["status"]),
                (&json!("trace"), &json!("completed"))
            );
            assert!(session["data"]["timeline"].is_array(), "{session}");
            let shown = trace_frames(&frames);
            assert!(
                shown.iter().all(|event| event["event_id"].is_string()),
                "{shown:?}"
            );
            continue;
        }
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        if works {
            assert_eq!((status.as_u16(), &answer["code"]), (200, &json!(0)));
            assert_eq!(answer["data"]["data"]["content"], "because");
            assert_eq!(
                (
                    &answer["data"]["trace"]["status"],
                    &answer["data"]["trace_id"]
                ),
                (&json!("completed"), &json!(trace))
            );
        } else {
            assert_eq!(
                (status.as_u16(), &answer["code"], &answer["error"]),
                (502, &json!(100), &json!("agent_failed"))
            );
            assert_eq!(
                (&answer["trace"]["status"], &answer["trace_id"]),
                (&json!("failed"), &json!(trace))
            );
        }
    }
    let unknown = instance.url("/v1/trace/agents/nobody/completions/trace");
    let refused = http()
        .post(unknown)
        .json(&json!({"question": "why?"}))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 404);
    let told: Value = refused.json().await.unwrap();
    assert_eq!(
        (&told["code"], &told["error"]),
        (&json!(102), &json!("agent_not_found"))
    );
}

#[tokio::test]
async fn a_response_of_openais_newer_api_is_passed_on_as_it_is() {
    let (_redis, mut agent, instance) =
        with_agent(json!({"kind": "openai_responses", "model": "m-1"})).await;
    let whole = json!({"object": "response", "status": "completed", "model": "m-1", "usage": {"input_tokens": 3, "output_tokens": 2},
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "because"}]}]});
    let (response, ()) = tokio::join!(ask_why(&instance, true), async {
        let call = agent.call().await;
        assert_eq!(
            call.body,
            json!({"model": "m-1", "stream": true, "input": [{"role": "user", "content": "why?"}]})
        );
        let words = call.stream();
        words.raw("event: response.output_text.delta\ndata: {\"type\": \"response.output_text.delta\", \"delta\": \"because\"}\n\n");
        words.raw(&format!(
            "event: response.completed\ndata: {}\n\n",
            json!({"type": "response.completed", "response": whole})
        ));
    });
    let trace = trace_of(&response);
    let frames = Viewer::of(response).rest().await.unwrap();
    let named: Vec<_> = frames
        .iter()
        .map(|frame| frame.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(named, ["response.output_text.delta", "response.completed"]);
    let (status, events) = ended(&instance, &trace).await;
    assert_eq!(status, "completed");
    assert_eq!(
        (
            &events[1]["output"]["content"],
            &events[1]["usage"]["output_tokens"]
        ),
        (&json!("because"), &json!(2))
    );
    let (response, ()) = tokio::join!(ask_why(&instance, false), async {
        agent.call().await.json(&whole)
    });
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["output"], whole["output"]);
}

#[tokio::test]
async fn what_was_said_is_in_no_trace_below_the_level_that_promises_it() {
    const CANARY: &str = "canary-7f3a";
    let (_redis, mut agent, instance) = with_agent(json!({"kind": "ragflow"})).await;
    for (level, is_told) in [
        ("minimal", false),
        ("standard", false),
        ("detailed", true),
        ("debug", true),
    ] {
        for stream in [true, false] {
            let body = json!({"question": CANARY, "stream": stream, "trace_level": level});
            let (response, ()) = tokio::join!(ask(&instance, &body), async {
                let words = agent.call().await.stream();
                let mut step = node("node_started", "Ask", Value::Null);
                step["data"]["inputs"] = json!({"q": CANARY});
                words.frame(&engine("workflow_started", json!({})));
                words.frame(&step);
                step["event"] = json!("node_finished");
                step["data"]["outputs"] = json!({"a": CANARY});
                words.frame(&step);
                words.frame(&engine(
                    "message",
                    json!({"content": CANARY, "start_to_think": true, "end_to_think": true}),
                ));
                words.frame(&engine("message", json!({"content": CANARY})));
                words.frame(&engine(
                    "message_end",
                    json!({"reference": {"chunks": [{"id": "k", "content": CANARY}]}}),
                ));
                words.frame(&engine(
                    "workflow_finished",
                    json!({"outputs": {"content": CANARY}}),
                ));
            });
            let trace = match stream {
                true => json!(trace_frames(&Viewer::of(response).rest().await.unwrap())),
                false => response.json::<Value>().await.unwrap()["trace"].clone(),
            };
            assert_eq!(
                trace.to_string().contains(CANARY),
                is_told,
                "{level} {stream}: {trace}"
            );
        }
    }
}

#[tokio::test]
async fn no_more_calls_go_on_than_were_allowed_and_places_come_back() {
    let (redis, mut agent) = (RedisServer::start().await, Agent::start().await);
    let mut settings = settings(&redis, &agent.url, json!({}));
    settings.max_completions = 1;
    let instance = Instance::with(settings).await;
    let (response, words_of_agent) = tokio::join!(ask_why(&instance, true), async {
        let words = agent.call().await.stream();
        words.say("be");
        words
    });
    let refused = ask_why(&instance, false).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    words_of_agent.end();
    Viewer::of(response).rest().await.unwrap();
    instance.app.tasks.close();
    instance.app.tasks.wait().await;
    let (response, ()) = tokio::join!(ask_why(&instance, true), async {
        agent.call().await.stream().end();
    });
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_run_joins_the_trace_that_its_caller_names() {
    let (_redis, mut agent, instance) = with_agent(json!({})).await;
    let url = instance.url("/agents/helper/completions/trace");
    let body = json!({"question": "why?"});
    let parent = "00-5b8efff798038103d269b633813fc60c-00f067aa0ba902b7-01";
    for (name, value, trace, above) in [
        ("x-trace-id", "run-1", "run-1", None),
        (
            "traceparent",
            parent,
            "5b8efff798038103d269b633813fc60c",
            Some("00f067aa0ba902b7"),
        ),
    ] {
        // What was there before is not this run's to show.
        let before = instance.url(&format!("/traces/{trace}/events"));
        http()
            .post(before)
            .json(&json!({"event_type": "step"}))
            .send()
            .await
            .unwrap();
        let asking = http().post(&url).header(name, value).json(&body).send();
        let (response, has_parent) = tokio::join!(asking, async {
            let call = agent.call().await;
            assert_eq!(call.header("x-trace-id"), trace);
            let has_parent = call.headers.contains_key("traceparent");
            call.stream().end();
            has_parent
        });
        assert_eq!(
            has_parent,
            above.is_some(),
            "an id that is none of OTel's fits no traceparent"
        );
        let response = response.unwrap();
        assert_eq!(response.headers()["x-trace-id"], trace);
        let shown = trace_frames(&Viewer::of(response).rest().await.unwrap());
        assert_eq!(
            (types(&shown)[0], &shown[0]["seq"]),
            ("workflow_started", &json!(2))
        );
        assert_eq!(shown[0]["parent_span_id"].as_str(), above);
    }
    let trace = TraceId::parse("run-1").unwrap();
    instance
        .app
        .log
        .delete(&TenantId::default(), &trace)
        .await
        .unwrap();
    let refused = http()
        .post(&url)
        .header("x-trace-id", "run-1")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 410);
}

#[tokio::test]
async fn a_store_that_goes_away_holds_up_nobody_and_hears_the_rest_when_it_is_back() {
    let (mut redis, mut agent) = (RedisServer::durable().await, Agent::start().await);
    let instance = Instance::with(settings(&redis, &agent.url, json!({}))).await;
    let (response, words_of_agent) = tokio::join!(ask_why(&instance, true), async {
        let words = agent.call().await.stream();
        words.say("be");
        words
    });
    let trace = trace_of(&response);
    let mut viewer = Viewer::of(response);
    redis.kill();
    words_of_agent.say("cause");
    let mut frames = Vec::new();
    while words(&frames) != "because" {
        frames.push(viewer.soon().await.unwrap().unwrap());
    }
    // The end comes while nobody can store it.
    words_of_agent.end();
    while !frames.iter().any(|frame| frame.data.contains("\"stop\"")) {
        frames.push(viewer.soon().await.unwrap().unwrap());
    }
    redis.launch().await;
    frames.extend(viewer.rest().await.unwrap());
    assert_eq!(frames.last().unwrap().data, "[DONE]");
    let all = [
        "workflow_started",
        "message_generated",
        "workflow_completed",
    ];
    assert_eq!(types(&trace_frames(&frames)), all);
    let (status, events) = ended(&instance, &trace).await;
    assert_eq!(
        (status.as_str(), types(&events)),
        ("completed", all.to_vec())
    );
}

#[tokio::test]
async fn a_process_that_shuts_down_ends_its_runs_and_says_so() {
    let (redis, mut agent, instance) = with_agent(json!({})).await;
    let other = Instance::start(&redis.url()).await;
    let (response, words_of_agent) = tokio::join!(ask_why(&instance, true), async {
        let words = agent.call().await.stream();
        words.say("be");
        words
    });
    let trace = trace_of(&response);
    instance.app.shutdown.cancel();
    instance.app.tasks.close();
    let (frames, ()) = tokio::join!(
        async { Viewer::of(response).rest().await.unwrap() },
        instance.app.tasks.wait()
    );
    assert_eq!(frames.last().unwrap().data, "[DONE]");
    assert_eq!(
        frames[frames.len() - 2].json()["data"]["code"],
        "agent_failed"
    );
    let (status, events) = ended(&other, &trace).await;
    assert_eq!(status, "failed");
    assert_eq!(events.last().unwrap()["error"]["type"], "interrupted");
    drop(words_of_agent);
}

#[tokio::test]
async fn a_stream_grows_with_its_events_and_not_with_their_square() {
    let (_redis, mut agent, instance) = with_agent(json!({"kind": "ragflow"})).await;
    let mut sizes = Vec::new();
    for steps in [100, 200] {
        let (response, ()) = tokio::join!(ask_why(&instance, true), async {
            let words = agent.call().await.stream();
            for _ in 0..steps {
                words.frame(&node("node_started", "Ask", Value::Null));
                words.frame(&node("node_finished", "Ask", Value::Null));
            }
            words.frame(&engine(
                "workflow_finished",
                json!({"outputs": {"content": ""}}),
            ));
        });
        let frames = Viewer::of(response).rest().await.unwrap();
        assert_eq!(trace_frames(&frames).len(), 2 * steps + 2);
        sizes.push(frames.iter().map(|frame| frame.data.len()).sum::<usize>());
    }
    assert!(sizes[1] < 2 * sizes[0] + 1000, "{sizes:?}");
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_up_nobody() {
    let (_redis, mut agent, instance) = with_agent(json!({})).await;
    let (response, words_of_agent) = tokio::join!(ask_why(&instance, true), async {
        let words = agent.call().await.stream();
        words.say("be");
        words
    });
    let trace = trace_of(&response);
    // More than sockets hold.
    let paragraph = "x".repeat(30_000);
    for _ in 0..100 {
        words_of_agent.say(&paragraph);
    }
    words_of_agent.end();
    let (status, events) = ended(&instance, &trace).await;
    assert_eq!(status, "completed");
    assert!(
        events[1]["output"].to_string().contains("bytes more"),
        "a very long answer is cut in its event, and says so"
    );
    let frames = Viewer::of(response).rest().await.unwrap();
    assert_eq!(
        words(&frames).len(),
        2 + 100 * paragraph.len(),
        "and whole for its caller"
    );
    assert_eq!(frames.last().unwrap().data, "[DONE]");
}
