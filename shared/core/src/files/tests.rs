use serde_json::json;

use super::*;
use crate::{
    invocations::{Invocation, invocations},
    observed::{Canonical, What},
};

fn read_ok(bytes: &[u8]) -> Vec<FileTrace> {
    read("t.json", bytes, None).unwrap()
}

fn turns(trace: &FileTrace) -> Vec<Invocation> {
    invocations(&trace.fold())
}

fn span_json(trace: &str, id: &str, attributes: serde_json::Value) -> serde_json::Value {
    json!({"traceId": trace, "spanId": id, "parentSpanId": null, "name": "chat m", "kind": 2,
        "startTimeUnixNano": "1760000000010000000", "endTimeUnixNano": "1760000000210000000",
        "attributes": attributes, "status": {"code": 0}})
}

fn said(model: &str) -> serde_json::Value {
    json!([
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": model}},
        {"key": "gen_ai.input.messages", "value": {"stringValue": "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hi\"}]}]"}},
        {"key": "gen_ai.output.messages", "value": {"stringValue": "[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"hello\"}]}]"}},
    ])
}

const TRACE: &str = "a1000000000000000000000000000001";

#[test]
fn one_span_is_the_same_in_every_wrapping() {
    let span = span_json(TRACE, "a100000000000002", said("m"));
    let list = json!([{"resource": {}, "scopeSpans": [{"scope": {"name": "s"}, "spans": [span]}]}]);
    let old = json!([{"resource": {}, "instrumentationLibrarySpans": [
        {"instrumentationLibrary": {"name": "s"}, "spans": [span]}]}]);
    let mut bare = span.clone();
    bare["attributes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"key": "otel.scope.name", "value": {"stringValue": "s"}}));
    let wholes = [
        json!({"resourceSpans": list}).to_string(),
        serde_json::to_string_pretty(&json!({"resourceSpans": list})).unwrap(),
        json!({"batches": old}).to_string(),
        json!({"trace": {"batches": old}}).to_string(),
        json!({"trace": {"resourceSpans": list}}).to_string(),
        json!({"result": {"resourceSpans": list}}).to_string(),
        format!("{bare}\n\n"),
        format!("\u{feff}{}\r\n", json!({"resourceSpans": list})),
    ];
    let first = read_ok(wholes[0].as_bytes());
    assert_eq!(first[0].trace_id.as_str(), TRACE);
    assert_eq!(first[0].spelled, TRACE);
    let told = turns(&first[0]);
    assert_eq!(
        (told[0].user_text.as_str(), told[0].agent_text.as_str()),
        ("hi", "hello")
    );
    for whole in &wholes {
        assert_eq!(read_ok(whole.as_bytes()), first, "{whole}");
        let packed = zstd::encode_all(whole.as_bytes(), 1).unwrap();
        assert_eq!(read_ok(&packed), first);
    }
}

#[test]
fn lines_may_be_of_any_kind() {
    let export = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span_json(TRACE, "a100000000000002", said("m"))]}]}]});
    let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"timeUnixNano": "5", "traceId": TRACE, "spanId": "a100000000000002", "body": {"stringValue": "x"}},
        {"timeUnixNano": "5", "body": {"stringValue": "of no trace"}}]}]}]});
    let log = json!({"timeUnixNano": "6", "traceId": TRACE, "eventName": "e", "body": {"stringValue": "y"}});
    let native = json!({"event_type": "task_started", "trace_id": "run-7", "timestamp": 3});
    let text = format!(
        "{export}\n{logs}\n{log}\n{native}\n{}\n",
        span_json("other", "s1", said("m"))
    );
    let traces = read_ok(text.as_bytes());
    let shape: Vec<_> = traces
        .iter()
        .map(|t| (t.spelled.as_str(), t.items.len()))
        .collect();
    assert_eq!(shape, [(TRACE, 3), ("run-7", 1), ("other", 1)]);
    assert_eq!(traces[1].trace_id.as_str(), "run-7");
    assert_eq!(traces[2].trace_id.as_str().len(), 32);
}

#[test]
fn attributes_may_be_flat_or_nested() {
    let nested = json!({"gen_ai": {"operation": {"name": "chat"}, "request": {"model": "m"}, "usage": {"input_tokens": 3}},
        "service.name": "x", "list": [1, "a"], "own": {"stringValue": "v"}});
    let traces = read_ok(span_json("t", "s", nested).to_string().as_bytes());
    let What::Span(span) = traces[0].items[0].what.read() else {
        panic!("a span")
    };
    assert_eq!(
        crate::attributes::list_to_json(&span.attributes),
        json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3,
            "list": [1, "a"], "own": "v", "service.name": "x"})
    );
}

#[test]
fn jaeger_tells_parents_kinds_resources_and_times() {
    let text = json!({"data": [
        {"traceID": "00ab", "spans": []},
        {"traceID": "abc", "processes": {"p1": {"serviceName": "svc", "tags": [{"key": "k", "type": "int64", "value": "9007199254740993"}]}},
         "spans": [
            {"spanID": "1", "operationName": "old", "startTime": 1, "duration": 1},
            {"spanID": "1", "operationName": "root", "startTime": 1771237534577907u64, "duration": 5510, "processID": "p1", "references": []},
            {"spanID": "2", "operationName": "child", "startTime": 1771237534577908u64, "duration": 10, "processID": "p1",
             "references": [{"refType": "FOLLOWS_FROM", "traceID": "abc", "spanID": "7"}, {"refType": "CHILD_OF", "traceID": "abc", "spanID": "1"}],
             "tags": [{"key": "span.kind", "type": "string", "value": "client"}, {"key": "otel.scope.name", "value": "lib"},
                {"key": "error", "type": "bool", "value": true}, {"key": "n", "type": "float64", "value": 2},
                {"key": "args", "value": {"a": [1, null]}}],
             "logs": [{"timestamp": 1771237534577909u64, "fields": [{"key": "event", "value": "exception"}, {"key": "x", "value": 1}]}]}]}]});
    let traces = read_ok(text.to_string().as_bytes());
    assert_eq!(traces.len(), 1);
    assert_eq!(
        (traces[0].spelled.as_str(), traces[0].trace_id.as_str()),
        ("abc", "00000000000000000000000000000abc")
    );
    let spans: Vec<_> = traces[0]
        .items
        .iter()
        .map(|item| match item.what.read() {
            What::Span(span) => (item.context.clone(), span),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(spans.len(), 2);
    let (context, child) = &spans[1];
    assert_eq!(context.scope.name, "lib");
    assert_eq!(
        crate::attributes::list_to_json(&context.resource),
        json!({"service.name": "svc", "k": 9007199254740993i64})
    );
    assert_eq!(child.parent_span_id, spans[0].1.span_id);
    assert_eq!((child.kind, child.status.as_ref().unwrap().code), (3, 2));
    assert_eq!(child.start_time_unix_nano, 1_771_237_534_577_908_000);
    assert_eq!(child.end_time_unix_nano, 1_771_237_534_577_918_000);
    assert_eq!(
        crate::attributes::list_to_json(&child.attributes),
        json!({"n": 2.0, "args": {"a": [1, null]}})
    );
    assert_eq!(
        (child.links.len(), child.events[0].name.as_str()),
        (1, "exception")
    );
}

#[test]
fn a_broken_file_says_where() {
    let check = |text: &str, format: Option<Format>, expected: &str| {
        assert_eq!(
            read("f.json", text.as_bytes(), format)
                .unwrap_err()
                .to_string(),
            expected
        );
    };
    check("", None, "f.json: the file is empty");
    check(
        "hello",
        None,
        "f.json: no known trace format: expected Jaeger JSON ({\"data\": [..]}), OTLP JSON ({\"resourceSpans\": [..]}, {\"batches\": [..]}) or lines of exports or spans",
    );
    check(
        "{\"resourceSpans\": [\n  {\"resource\": ",
        None,
        "f.json: line 2, column 15: EOF while parsing a value",
    );
    check(
        "{\"spanId\":\"1\"}\n\n{\"spanId\":\"2\",}\n",
        None,
        "f.json: line 3, column 15: key must be a string",
    );
    check(
        "[1]",
        None,
        "f.json: line 1, column 1: this is no JSON object",
    );
    check(
        "{\"a\":1}",
        Some(Format::JaegerJson),
        "f.json: line 1, column 1: not Jaeger JSON: the key \"data\" is missing",
    );
    check(
        "{\"data\": {}}",
        None,
        "f.json: line 1, column 9: invalid type: map, expected a sequence",
    );
    check(
        "{\"resourceSpans\": [{\"scopeSpans\": [{\"spans\": [\n{\"name\":\"ok\"},\n{\"name\":\"chat\", \"spanId\":\"s1\",\n \"attributes\": 7}]}]}]}",
        None,
        "f.json: line 4, column 16: span \"chat\" (s1): number 2: invalid type: integer `7`, expected a list of attributes",
    );
    check(
        "{\"name\":\"chat\", \"spanId\":\"00f067aa0ba902b7\", \"startTimeUnixNano\": \"soon\"}",
        None,
        "f.json: span 00f067aa0ba902b7 \"chat\": a time is 0 to 2^63 nanoseconds since 1970",
    );
    check(
        "{\"data\":[{\"traceID\":\"a\",\"spans\":[\n{\"spanID\":\"b\",\"operationName\":\"x\",\"startTime\":\"soon\"}]}]}",
        None,
        "f.json: line 2, column 1: span 1: \"x\" (b): startTime is no number of microseconds",
    );
    assert_eq!(read("f.jsonl", b"", Some(Format::OtlpJson)).unwrap(), []);
    let bomb = zstd::encode_all(vec![b' '; 1 << 20].as_slice(), 1).unwrap();
    let small = Limits {
        body_bytes: 1 << 16,
        ..limits()
    };
    assert_eq!(
        read_within("z", &bomb, None, &small).unwrap_err().message,
        "the file is larger than 65536 bytes unpacked"
    );
}

#[test]
fn protobuf_is_read_when_told() {
    let text = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span_json(TRACE, "a100000000000002", said("m"))]}]}]});
    let traces = read_ok(text.to_string().as_bytes());
    let Canonical::Span(bytes) = &traces[0].items[0].what else {
        panic!("a span")
    };
    // Its trace id is the key, and not in it.
    let mut item = vec![10, 16];
    item.extend(otel_bytes(&traces[0].trace_id).unwrap());
    item.extend_from_slice(bytes);
    let request = crate::wire::ExportRequest {
        resources: vec![crate::wire::ResourceItems {
            scopes: vec![crate::wire::ScopeItems {
                items: vec![item.into()],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let packed = prost::Message::encode_to_vec(&request);
    let read = |format| read("t.json", &packed, format);
    assert_eq!(read(Some(Format::OtlpProtobuf)).unwrap(), traces);
    assert!(read(None).is_err());
}
