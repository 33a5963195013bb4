//! The dev server's REST routes: sessions, files and what is refused, on any instance and for one tenant alone.

use serde_json::{Value, json};
use tailspan_core::{
    id::{SessionKey, TenantId},
    live::wire_form::Reader,
};
use tailspan_service::live::Start;

use crate::support::{Instance, RedisServer, Viewer, config, http};

/// An answer: its status, and its body where it is JSON.
pub(crate) struct Said {
    status: u16,
    text: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The `data` of an answer in the envelope.
    fn data(&self) -> Value {
        let mut json = self.json();
        assert_eq!(
            (self.status, &json["error"]),
            (200, &Value::Null),
            "{}",
            self.text
        );
        json["data"].take()
    }

    /// The sentence of an error.
    fn detail(&self) -> (u16, String) {
        let json = self.json();
        let fields = json.as_object().expect("an object");
        assert_eq!(fields.len(), 1, "{json}");
        let detail = &fields["detail"];
        let text = detail
            .as_str()
            .map_or_else(|| detail.to_string(), str::to_owned);
        (self.status, text)
    }
}

async fn ask(instance: &Instance, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Said {
    let method = method.parse().expect("a method");
    let mut request = http().request(method, instance.url(path)).body(body);
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let response = request.send().await.expect("answered");
    Said {
        status: response.status().as_u16(),
        text: String::from_utf8_lossy(&response.bytes().await.expect("read")).into_owned(),
    }
}

async fn get(instance: &Instance, path: &str) -> Said {
    ask(instance, "GET", path, "", Vec::new()).await
}

async fn post(instance: &Instance, path: &str, body: &Value) -> Said {
    let body = body.to_string().into_bytes();
    ask(instance, "POST", path, "application/json", body).await
}

/// A field of a form: its name, the name of its file, and what is in it.
pub(crate) type Field<'a> = (&'a str, Option<&'a str>, &'a [u8]);

pub(crate) async fn upload(instance: &Instance, path: &str, fields: &[Field<'_>]) -> Said {
    let mut body = Vec::new();
    for (name, file, content) in fields {
        let file = file.map(|file| format!("; filename=\"{file}\""));
        let file = file.unwrap_or_default();
        let head =
            format!("--frontier\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--frontier--\r\n");
    let kind = "multipart/form-data; boundary=frontier";
    ask(instance, "POST", path, kind, body).await
}

fn attributes(pairs: &[(&str, Value)]) -> Value {
    let pairs = pairs.iter().map(|(key, value)| {
        let value = match value {
            Value::Number(number) => json!({"intValue": number.to_string()}),
            Value::String(text) => json!({ "stringValue": text }),
            other => json!({"stringValue": other.to_string()}),
        };
        json!({"key": key, "value": value})
    });
    pairs.collect()
}

/// A run of an agent that rolls a die, as an OTLP export.
fn export(session: &str, trace: u32, rolled: u32) -> Value {
    let span = |id: u32, parent: u32, name: &str, from: u64, more: Value| {
        let parent = match parent {
            0 => String::new(),
            parent => format!("{parent:016x}"),
        };
        let nanos = |ms: u64| (1_760_000_000_000_000_000 + ms * 1_000_000).to_string();
        json!({"traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"), "parentSpanId": parent, "name": name, "kind": 1,
            "startTimeUnixNano": nanos(from), "endTimeUnixNano": nanos(from + 90), "attributes": more})
    };
    let said = |role: &str, text: &str| json!([{"role": role, "parts": [{"type": "text", "content": text}]}]);
    let tool = attributes(&[
        ("gen_ai.operation.name", "execute_tool".into()),
        ("gen_ai.tool.name", "roll_die".into()),
        ("gen_ai.tool.call.id", "call_1".into()),
        ("gen_ai.tool.call.arguments", json!({"number_of_sides": 20})),
        ("gen_ai.tool.call.result", json!({"rolled_number": rolled})),
    ]);
    let call = attributes(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.provider.name", "openai".into()),
        ("gen_ai.request.model", "gpt-4o".into()),
        ("gen_ai.usage.input_tokens", 20.into()),
        ("gen_ai.usage.output_tokens", 5.into()),
        ("gen_ai.input.messages", said("user", "Roll a die")),
        (
            "gen_ai.output.messages",
            said("assistant", &format!("It shows {rolled}.")),
        ),
    ]);
    let agent = attributes(&[
        ("gen_ai.operation.name", "invoke_agent".into()),
        ("gen_ai.agent.name", "dice".into()),
    ]);
    let spans = json!([
        span(2, 1, "execute_tool roll_die", 100, tool),
        span(3, 1, "chat gpt-4o", 200, call),
        span(1, 0, "invoke_agent dice", 0, agent),
    ]);
    let resource = attributes(&[
        ("agentevals.session_name", session.into()),
        ("agentevals.eval_set_id", "dice".into()),
        ("service.name", "dice".into()),
    ]);
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"scope": {"name": "dice"}, "spans": spans}]}]})
}

/// A server with these sessions, all of them complete.
async fn with_sessions(sessions: &[(&str, u32)]) -> (RedisServer, Instance) {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    for (number, (session, rolled)) in (1..).zip(sessions) {
        let stored = post(&instance, "/v1/traces", &export(session, number, *rolled)).await;
        assert_eq!(stored.status, 200, "{}", stored.text);
        let tenant = TenantId::default();
        let ended = instance.app.log.live_end(&tenant, session);
        assert!(ended.await.expect("ended"), "{session}");
    }
    (redis, instance)
}

#[tokio::test]
async fn sessions_are_listed_with_their_turns() {
    let (redis, first) = with_sessions(&[("gold", 17), ("other one", 3)]).await;
    post(&first, "/v1/traces", &export("goes-on", 9, 4)).await;
    // Whichever instance is asked.
    let instance = Instance::start(&redis.url()).await;
    let sessions = get(&instance, "/api/streaming/sessions").await.data();
    let names: Vec<_> = sessions.as_array().expect("a list").iter().collect();
    let names: Vec<_> = names.iter().map(|it| it["sessionId"].clone()).collect();
    assert_eq!(names, ["gold", "other one", "goes-on"]);
    let gold = &sessions[0];
    assert_eq!(
        (&gold["isComplete"], &gold["spanCount"], &gold["evalSetId"]),
        (&json!(true), &json!(3), &json!("dice"))
    );
    assert_eq!(gold["metadata"], json!({"service.name": "dice"}));
    let started = gold["startedAt"].as_str().expect("text");
    assert!(
        started.len() == 32 && started.ends_with("+00:00"),
        "{started}"
    );
    let turn = &gold["invocations"][0];
    assert_eq!(turn["userText"], "Roll a die");
    assert_eq!(turn["agentText"], "It shows 17.");
    let call = json!([{"name": "roll_die", "args": {"number_of_sides": 20}, "id": "call_1"}]);
    assert_eq!(turn["toolCalls"], call);
    let told = json!([{"name": "roll_die", "response": {"rolled_number": 17}, "id": "call_1"}]);
    assert_eq!(turn["toolResponses"], told);
    assert_eq!(
        (&sessions[2]["isComplete"], &sessions[2]["invocations"]),
        (&json!(false), &Value::Null)
    );
}

#[tokio::test]
async fn a_session_taken_out_as_a_file_is_the_same_when_it_is_read() {
    let (_redis, instance) = with_sessions(&[("gold", 17)]).await;
    let body = json!({"session_id": "gold"});
    let taken = post(&instance, "/api/streaming/get-trace", &body).await;
    let taken = taken.data();
    assert_eq!(taken["numSpans"], 3);
    let file = taken["traceContent"].as_str().expect("text").to_owned();
    assert_eq!(file.lines().count(), 3);
    let name = Some("agentevals_gold.jsonl");
    let files = [("trace_files", name, file.as_bytes())];
    let converted = upload(&instance, "/api/convert", &files).await.data();
    let trace = &converted["traces"][0];
    assert_eq!(trace["metadata"]["sessionName"], "gold");
    assert_eq!(trace["metadata"]["agentName"], "dice");
    assert_eq!(trace["metadata"]["model"], "gpt-4o");
    assert_eq!(trace["metadata"]["startTime"], 1_760_000_000_000_000_u64);
    assert_eq!(trace["metadata"]["finalOutputPreview"], "It shows 17.");
    let body = json!({"session_id": "gold", "eval_set_id": "e"});
    let made = post(&instance, "/api/streaming/create-eval-set", &body).await;
    let made = made.data();
    assert_eq!(made["numInvocations"], 1);
    let expected = &made["evalSet"]["eval_cases"][0]["conversation"][0];
    let turn = &trace["invocations"][0];
    assert_eq!(turn["userContent"], expected["user_content"]);
    assert_eq!(turn["finalResponse"], expected["final_response"]);
    // The keys of tools stay as they are.
    assert_eq!(
        turn["intermediateData"]["toolUses"][0]["args"],
        json!({"number_of_sides": 20})
    );
    assert_eq!(
        turn["intermediateData"]["toolResponses"][0]["response"],
        json!({"rolled_number": 17})
    );
    let set = made["evalSet"].to_string();
    let set = [("eval_set_file", Some("e.json"), set.as_bytes())];
    let valid = upload(&instance, "/api/validate/eval-set", &set).await;
    let expected = json!({"valid": true, "evalSetId": "e", "numCases": 1, "errors": []});
    assert_eq!(valid.data(), expected);
}

#[tokio::test]
async fn only_what_was_prepared_can_be_downloaded() {
    let (redis, first) = with_sessions(&[("gold", 17), ("other one", 3)]).await;
    post(&first, "/v1/traces", &export("goes-on", 9, 4)).await;
    let wanted = ["other one", "goes-on", "nobody"];
    let body = json!({"golden_session_id": "gold", "session_ids": wanted});
    let prepared = post(&first, "/api/streaming/prepare-evaluation", &body).await;
    let urls = json!({
        "evalSetUrl": "/api/streaming/download/eval_set_gold.json",
        "traceUrls": ["/api/streaming/download/agentevals_other%20one.jsonl"],
        "numTraces": 1,
    });
    assert_eq!(prepared.data(), urls);
    let instance = Instance::start(&redis.url()).await;
    let set = get(&instance, "/api/streaming/download/eval_set_gold.json").await;
    assert_eq!(set.json()["eval_set_id"], "golden_gold");
    let url = urls["traceUrls"][0].as_str().expect("text");
    let lines = get(&instance, url).await;
    assert_eq!((lines.status, lines.text.lines().count()), (200, 3));
    let stranger = std::env::temp_dir().join("eval_set_x.json");
    std::fs::write(&stranger, "{}").expect("written");
    for name in [
        "eval_set_x.json",
        "agentevals_goes-on.jsonl",
        "agentevals_nobody.jsonl",
        "..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "agentevals_..%2F..%2Fetc%2Fpasswd.jsonl",
        "%FF",
    ] {
        let said = get(&instance, &format!("/api/streaming/download/{name}")).await;
        assert_eq!(said.detail(), (404, "File not found".to_owned()), "{name}");
    }
    std::fs::remove_file(stranger).expect("removed");
}

#[tokio::test]
async fn sessions_are_those_of_one_tenant() {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    for team in ["a", "b"] {
        let tenant = TenantId::parse(team).expect("valid");
        config.tokens.insert(format!("token-{team}"), tenant);
    }
    let instance = Instance::with(config).await;
    let to = |path: &str, team: &str| format!("{path}?token=token-{team}");
    let stored = post(&instance, &to("/v1/traces", "a"), &export("gold", 1, 17)).await;
    assert_eq!(stored.status, 200);
    let list = async |team| get(&instance, &to("/api/streaming/sessions", team)).await;
    assert_eq!(list("a").await.data()[0]["sessionId"], "gold");
    assert_eq!(list("b").await.data(), json!([]));
    for (path, body) in [
        ("get-trace", json!({"session_id": "gold"})),
        (
            "create-eval-set",
            json!({"session_id": "gold", "eval_set_id": "e"}),
        ),
        (
            "prepare-evaluation",
            json!({"golden_session_id": "gold", "session_ids": ["gold"]}),
        ),
    ] {
        let path = format!("/api/streaming/{path}");
        assert_eq!(post(&instance, &to(&path, "b"), &body).await.status, 404);
        assert_eq!(post(&instance, &path, &body).await.detail().0, 401);
    }
    let file = "/api/streaming/download/eval_set_gold.json";
    assert_eq!(get(&instance, &to(file, "a")).await.status, 200);
    assert_eq!(get(&instance, &to(file, "b")).await.status, 404);
    assert_eq!(get(&instance, file).await.detail().0, 401);
    assert_eq!(get(&instance, "/api/config").await.detail().0, 401);
    assert_eq!(get(&instance, "/api/health").await.data()["status"], "ok");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_as_the_dev_server_does() {
    let (_redis, instance) = with_sessions(&[]).await;
    let api = "/api/streaming/create-eval-set";
    let said = post(&instance, api, &json!({"session_id": 5})).await;
    assert_eq!(said.status, 422);
    let problems = json!([
        {"type": "string_type", "loc": ["body", "session_id"], "msg": "Input should be a valid string", "input": 5},
        {"type": "missing", "loc": ["body", "eval_set_id"], "msg": "Field required", "input": null},
    ]);
    assert_eq!(said.json()["detail"], problems);
    let absent = json!({"session_id": "x", "eval_set_id": "y"});
    let said = post(&instance, api, &absent).await;
    assert_eq!(said.detail(), (404, "Session not found".to_owned()));
    for body in ["", "{", "[1]", "null"] {
        let said = ask(&instance, "POST", api, "application/json", body.into()).await;
        assert_eq!(said.detail().0, 422, "{body}");
    }
    let large = json!({"session_id": "x".repeat(2 << 20)});
    let said = post(&instance, api, &large).await;
    assert_eq!(said.detail().0, 413);

    let convert = "/api/convert";
    let said = post(&instance, convert, &json!({})).await;
    assert_eq!(said.detail().0, 422);
    let said = upload(&instance, convert, &[("trace_files", None, b"text")]).await;
    assert_eq!(said.detail().0, 422);
    for (file, content, says) in [
        ("a.txt", &b"{}"[..], "Invalid file extension for a.txt"),
        (
            "a.json",
            b"{}",
            "No traces found in uploaded files. Errors: a.json",
        ),
        ("a.json", b"\xff\xfe\x00", "No traces found"),
        ("", b"{}", "No valid trace files provided"),
    ] {
        let said = upload(&instance, convert, &[("trace_files", Some(file), content)]).await;
        let (status, detail) = said.detail();
        assert!(
            status == 400 && detail.starts_with(says),
            "{status} {detail}"
        );
    }
    let zeros = vec![b' '; (10 << 20) + 1];
    let large = [("trace_files", Some("a.json"), &*zeros)];
    let said = upload(&instance, convert, &large).await;
    let says = "File a.json exceeds 10MB limit".to_owned();
    assert_eq!(said.detail(), (400, says));
    let kind = "multipart/form-data; boundary=frontier";
    let broken = b"--frontier\r\ncontent-disposition: form-data; name=\"trace_files\"; filename=\"a.json\"\r\n\r\n{".to_vec();
    let said = ask(&instance, "POST", convert, kind, broken).await;
    assert_eq!(said.detail().0, 400);
    // A file that cannot be read costs only itself.
    let good = export("gold", 1, 2).to_string();
    let both = [
        ("trace_files", Some("a.json"), &b"{"[..]),
        ("trace_files", Some("b.json"), good.as_bytes()),
    ];
    let converted = upload(&instance, convert, &both).await.data();
    assert_eq!(converted["traces"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_bug_report_is_an_archive_of_the_sessions() {
    let (_redis, instance) = with_sessions(&[("gold/../x", 17)]).await;
    let body = json!({"user_description": "it broke", "console_logs": [{"level": "error"}]});
    let request = http()
        .post(instance.url("/api/debug/bundle"))
        .json(&body)
        .send();
    let response = request.await.expect("answered");
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "application/zip");
    let named = header("content-disposition");
    assert!(
        named.starts_with("attachment; filename=\"bug-report-"),
        "{named}"
    );
    let bytes = response.bytes().await.expect("read");
    // Another server that loads it has the same session.
    let (_other_redis, other) = with_sessions(&[]).await;
    let files = [("file", Some("r.zip"), &*bytes)];
    let loaded = upload(&other, "/api/debug/load", &files).await.data();
    assert_eq!(loaded, json!({"loadedSessions": ["gold/../x"], "count": 1}));
    let of = async |instance: &Instance| {
        let sessions = get(instance, "/api/streaming/sessions").await.data();
        let mut session = sessions[0].clone();
        session["startedAt"] = Value::Null;
        session
    };
    assert_eq!(of(&other).await, of(&instance).await);
    for (archive, says) in [
        (&b"nothing"[..], "Invalid ZIP file"),
        (&bytes[..bytes.len() / 2], "Invalid ZIP file"),
    ] {
        let files = [("file", Some("r.zip"), archive)];
        let said = upload(&other, "/api/debug/load", &files).await;
        assert_eq!(said.detail(), (400, says.to_owned()));
    }
    let text = String::from_utf8_lossy(&bytes);
    for file in [
        "spans.json",
        "logs.json",
        "session_meta.json",
        "metadata.json",
        "console_logs.json",
    ] {
        assert!(text.contains(file), "{file}");
    }
    // A session's name is no path.
    assert!(!text.contains(".."));
    let wrong = json!({"console_logs": 5});
    let said = post(&instance, "/api/debug/bundle", &wrong).await;
    assert_eq!(said.detail().0, 422);
}

/// An eval set that expects a roll of a die to show this.
fn eval_set(shown: u32) -> Value {
    let said = |role: &str, text: String| json!({"role": role, "parts": [{"text": text}]});
    let uses = json!([{"name": "roll_die", "args": {"number_of_sides": 20}}]);
    json!({"eval_set_id": "dice", "eval_cases": [{"eval_id": "1", "conversation": [{
        "user_content": said("user", "Roll a die".to_owned()),
        "final_response": said("model", format!("It shows {shown}.")),
        "intermediate_data": {"tool_uses": uses, "tool_responses": []}}]}]})
}

const METRICS: &str =
    r#"{"metrics": ["tool_trajectory_avg_score", "response_match_score"], "threshold": 0.9}"#;

/// Names, scores and statuses of the metrics of a trace's result.
fn scores(result: &Value) -> Vec<(String, f64, String)> {
    let metrics = result["metricResults"].as_array().expect("a list");
    let of = |metric: &Value| {
        (
            metric["metricName"].as_str().expect("text").to_owned(),
            metric["score"].as_f64().unwrap_or(-1.0),
            metric["evalStatus"].as_str().expect("text").to_owned(),
        )
    };
    metrics.iter().map(of).collect()
}

#[tokio::test]
async fn files_are_evaluated_and_a_stream_tells_how_it_goes() {
    let (_redis, instance) = with_sessions(&[]).await;
    let (trace, set) = (export("gold", 1, 17).to_string(), eval_set(3).to_string());
    let fields = [
        ("trace_files", Some("a.json"), trace.as_bytes()),
        ("trace_files", Some("b.json"), b"{"),
        ("eval_set_file", Some("e.json"), set.as_bytes()),
        ("config", None, METRICS.as_bytes()),
    ];
    let result = upload(&instance, "/api/evaluate", &fields).await.data();
    let of_trace = &result["traceResults"][0];
    let trajectory = "tool_trajectory_avg_score".to_owned();
    let (first, second) = match &scores(of_trace)[..] {
        [first, second] => (first.clone(), second.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(first, (trajectory, 1.0, "PASSED".to_owned()));
    assert_eq!((&*second.0, &*second.2), ("response_match_score", "FAILED"));
    let comparison = &of_trace["metricResults"][0]["details"]["comparisons"][0];
    assert_eq!(comparison["invocationId"], "genai-0000000000000001");
    // The keys of tools stay as they are.
    assert_eq!(
        comparison["actual"][0]["args"],
        json!({"number_of_sides": 20})
    );
    assert_eq!(of_trace["performanceMetrics"]["tokens"]["totalPrompt"], 20);
    let errors = result["errors"].as_array().expect("a list");
    assert!(
        errors.len() == 1 && errors[0].as_str().is_some_and(|it| it.contains("b.json")),
        "{errors:?}"
    );

    let streamed = upload(&instance, "/api/evaluate/stream", &fields).await;
    assert_eq!(streamed.status, 200);
    let frames: Vec<(&str, Value)> = streamed
        .text
        .split("\n\n")
        .filter(|frame| !frame.is_empty())
        .map(|frame| {
            let (name, data) = match frame.strip_prefix("event: ") {
                Some(named) => named.split_once('\n').expect("data"),
                None => ("", frame),
            };
            let data = data.strip_prefix("data: ").expect("data");
            (name, serde_json::from_str(data).expect("JSON"))
        })
        .collect();
    let says: Vec<String> = frames
        .iter()
        .map(|(name, data)| match data["message"].as_str() {
            Some(message) => message.to_owned(),
            None if name.is_empty() => data
                .as_object()
                .and_then(|it| it.keys().next().cloned())
                .unwrap_or_default(),
            None => (*name).to_owned(),
        })
        .collect();
    assert_eq!(
        says,
        [
            "performance_metrics",
            "Evaluating 1 trace...",
            "Trace 1/1: 000000000000...",
            "Running tool_trajectory_avg_score...",
            "traceProgress",
            "Running response_match_score...",
            "traceProgress",
            "Evaluation complete",
            "done",
        ]
    );
    assert_eq!(frames[0].1["traceMetadata"]["agentName"], "dice");
    let done = &frames.last().expect("a frame").1["result"];
    assert_eq!(scores(&done["traceResults"][0]), scores(of_trace));
}

#[tokio::test]
async fn what_is_wrong_with_an_evaluation_is_told_and_no_program_comes_with_a_request() {
    let (_redis, instance) = with_sessions(&[]).await;
    let trace = export("gold", 1, 17).to_string();
    let ask = async |path: &str, config: &str| {
        let fields = [
            ("trace_files", Some("a.json"), trace.as_bytes()),
            ("config", None, config.as_bytes()),
        ];
        upload(&instance, path, &fields).await
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (program, mark) = (folder.path().join("x.py"), folder.path().join("ran"));
    let source = format!("open({:?}, 'w')", mark.display().to_string());
    std::fs::write(&program, source).expect("written");
    let code = json!({"customEvaluators": [{"name": "x", "type": "code", "path": program}]});
    for (config, says) in [
        ("{", "Invalid config JSON"),
        ("[]", "Invalid config"),
        (
            r#"{"metrics": []}"#,
            "Config must include 'metrics' as a non-empty array",
        ),
        (r#"{"threshold": 2}"#, "Threshold must be between 0 and 1"),
        (r#"{"trajectoryMatchType": "X"}"#, "Invalid config"),
        (&code.to_string(), "Invalid customEvaluators"),
    ] {
        let (status, detail) = ask("/api/evaluate", config).await.detail();
        assert!(
            status == 400 && detail.starts_with(says),
            "{config}: {status} {detail}"
        );
        let streamed = ask("/api/evaluate/stream", config).await;
        assert_eq!(streamed.status, 200);
        assert!(
            streamed.text.starts_with("data: {\"error\":\"") && streamed.text.contains(says),
            "{config}: {}",
            streamed.text
        );
    }
    assert!(!mark.exists());
    let said = upload(&instance, "/api/evaluate", &[("config", None, b"{}")]).await;
    assert_eq!(said.detail().0, 422);

    let json = "/api/evaluate/json";
    let export: Value = serde_json::from_str(&trace).expect("JSON");
    let body = json!({"traces": export, "evalSet": eval_set(17), "config": {"metrics": ["response_match_score"]}});
    let result = post(&instance, json, &body).await.data();
    let passed = ("response_match_score".to_owned(), 1.0, "PASSED".to_owned());
    assert_eq!(scores(&result["traceResults"][0]), [passed]);
    for (body, status) in [
        (json!({}), 422),
        (json!({"traces": []}), 422),
        (json!({"traces": export, "config": {"threshold": "x"}}), 422),
        (json!({"traces": {"a": 1}}), 400),
        (json!({"traces": {"resourceSpans": []}}), 400),
        (json!({"traces": export, "evalSet": {"a": 1}}), 400),
    ] {
        assert_eq!(
            post(&instance, json, &body).await.detail().0,
            status,
            "{body}"
        );
    }
}

#[tokio::test]
async fn sessions_are_compared_with_a_golden_one() {
    let (_redis, instance) = with_sessions(&[("gold", 17), ("other one", 3)]).await;
    post(&instance, "/v1/traces", &export("goes-on", 9, 4)).await;
    let path = "/api/streaming/evaluate-sessions";
    let body = json!({"golden_session_id": "gold", "eval_set_id": "e", "metrics": ["tool_trajectory_avg_score", "response_match_score"]});
    let compared = post(&instance, path, &body).await.data();
    assert_eq!(compared["goldenSessionId"], "gold");
    let results = compared["results"].as_array().expect("a list");
    let names: Vec<_> = results.iter().map(|it| it["sessionId"].clone()).collect();
    assert_eq!(names, ["gold", "other one"]);
    for (at, response) in [(0, 1.0), (1, 2.0 / 3.0)] {
        let found: Vec<f64> = scores(&results[at]).into_iter().map(|it| it.1).collect();
        assert!(
            found.len() == 2 && found[0] == 1.0 && (found[1] - response).abs() < 1e-9,
            "{found:?}"
        );
    }
    let nobody = json!({"golden_session_id": "x", "eval_set_id": "e"});
    let said = post(&instance, path, &nobody).await;
    assert_eq!(said.detail(), (404, "Golden session not found".to_owned()));
    let wrong =
        json!({"golden_session_id": "gold", "eval_set_id": "e", "trajectory_match_type": "x"});
    assert_eq!(post(&instance, path, &wrong).await.detail().0, 422);
}

#[tokio::test]
async fn what_a_comparison_finds_stands_once_with_its_session_and_is_streamed() {
    let (redis, instance) = with_sessions(&[("gold", 17), ("other one", 3)]).await;
    // A session of two traces, and one of frames.
    post(&instance, "/v1/traces", &export("other one", 7, 17)).await;
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let start = Start {
        session: "frames".to_owned(),
        trace: "t".to_owned(),
        ..Start::default()
    };
    log.live_start(&tenant, &start).await.expect("begun");
    let mut reader = Reader::new(1);
    let call = &export("frames", 8, 17)["resourceSpans"][0]["scopeSpans"][0]["spans"][1];
    let span = reader.span("frames", &call.to_string()).expect("a span");
    let taken = log.live_take(&tenant, "frames", 1, 0).await.expect("asked");
    let into = taken.expect("a place").into;
    let span = log.clean(&tenant, vec![span]);
    let appended = log.live_append(&tenant, "frames", &into, &span).await;
    appended.expect("appended");
    for session in ["other one", "frames"] {
        assert!(log.live_end(&tenant, session).await.expect("ended"));
    }
    let last_of = async |session: &str| {
        let session = log.live_session(&tenant, &SessionKey::of(session)).await;
        let session = session.expect("found").expect("is there");
        assert!(session.complete);
        session.traces.last().expect("a trace").trace.to_string()
    };
    let results = async |trace: &str| {
        let path =
            format!("/traces/{trace}/events?event_types=gen_ai.evaluation.result&level=debug");
        let events = get(&instance, &path).await.json();
        events["events"].as_array().expect("a list").clone()
    };
    let mut viewers = Vec::new();
    for path in [
        "/sessions/frames/stream",
        "/traces/00000000000000000000000000000007/stream",
    ] {
        let url = instance.url(&format!("{path}?level=debug&until=closed"));
        viewers.push(Viewer::open(&url, None).await.expect("open"));
    }

    let path = "/api/streaming/evaluate-sessions";
    let body = json!({"golden_session_id": "gold", "eval_set_id": "e", "metrics": ["response_match_score", "error_free"]});
    let compared = post(&instance, path, &body).await.data();
    assert_eq!(compared["results"].as_array().map(Vec::len), Some(3));
    let other = last_of("other one").await;
    assert_eq!(other, format!("{:032x}", 7));
    let found = results(&other).await;
    let said = |result: &Value, key: &str| result["attributes"][key].clone();
    for (at, metric) in ["response_match_score", "error_free"].iter().enumerate() {
        let metrics = &compared["results"][1]["metricResults"];
        assert_eq!(said(&found[at], "gen_ai.evaluation.name"), *metric);
        let score = said(&found[at], "gen_ai.evaluation.score.value");
        assert_eq!(score, metrics[at]["score"]);
        assert_eq!(said(&found[at], "tailspan.evaluation.eval_set"), "e");
        assert_eq!(said(&found[at], "tailspan.evaluation.session"), "other one");
    }
    assert_eq!(found.len(), 2);
    assert_eq!(results(&format!("{:032x}", 2)).await.len(), 0);
    for viewer in &mut viewers {
        for metric in ["response_match_score", "error_free"] {
            let event = loop {
                let frame = viewer.soon().await.expect("in time").expect("goes on");
                if frame.name.is_empty() && frame.json()["event_type"] == "gen_ai.evaluation.result"
                {
                    break frame.json();
                }
            };
            assert_eq!(event["details"]["metric"], metric);
        }
    }

    // Whoever asks again, anywhere, is answered and stores nothing; with another eval set it is another evaluation.
    let elsewhere = Instance::start(&redis.url()).await;
    assert_eq!(post(&elsewhere, path, &body).await.data(), compared);
    assert_eq!(results(&other).await, found);
    let mut of_others = body.clone();
    of_others["golden_session_id"] = "frames".into();
    post(&elsewhere, path, &of_others).await.data();
    assert_eq!(results(&other).await.len(), 4);
    assert_eq!(results(&last_of("frames").await).await.len(), 4);
    // What came to the first trace changed the session.
    let mut late = export("other one", 2, 5);
    let spans = late["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut();
    let spans = spans.expect("a list");
    spans.truncate(1);
    spans[0]["spanId"] = "00000000000000aa".into();
    post(&instance, "/v1/traces", &late).await;
    assert!(log.live_end(&tenant, "other one").await.expect("ended"));
    post(&instance, path, &body).await.data();
    assert_eq!(results(&other).await.len(), 6);
}
