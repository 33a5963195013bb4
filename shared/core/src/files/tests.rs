use std::sync::Arc;

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

use proptest::prelude::*;

use super::{
    send::requests,
    write::{Form, Writer, lowered},
};
use crate::{
    native::{self, Sender},
    otlp::{Encoding, decode_logs, decode_traces},
    verbosity::Verbosity,
    wire::{self, AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
};

fn value() -> impl Strategy<Value = any_value::Value> {
    let leaf = prop_oneof![
        ".{0,8}".prop_map(|text| any_value::Value::String(text.into())),
        any::<bool>().prop_map(any_value::Value::Bool),
        any::<i64>().prop_map(any_value::Value::Int),
        any::<f64>()
            .prop_filter("one NaN is as good as another", |f| !f.is_nan())
            .prop_map(any_value::Value::Double),
        proptest::collection::vec(any::<u8>(), 0..6)
            .prop_map(|bytes| any_value::Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let any = inner.prop_map(|value| AnyValue { value: Some(value) });
        prop_oneof![
            proptest::collection::vec(any.clone(), 0..4)
                .prop_map(|values| any_value::Value::Array(ArrayValue { values })),
            proptest::collection::vec(("[a-c.]{0,3}", any), 0..4).prop_map(|pairs| {
                let pairs = pairs.into_iter().map(|(key, value)| KeyValue {
                    key: key.into(),
                    value: Some(value),
                });
                any_value::Value::Map(KeyValueList {
                    values: pairs.collect(),
                })
            }),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let one = (".{0,4}", value()).prop_map(|(key, value)| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    });
    proptest::collection::vec(one, 0..4)
}

fn id(length: usize) -> impl Strategy<Value = bytes::Bytes> {
    proptest::collection::vec(1u8.., length).prop_map(Into::into)
}

fn event() -> impl Strategy<Value = What> {
    let time = 0u64..1 << 62;
    let span = (
        id(8),
        proptest::option::of(id(8)),
        ".{0,6}",
        0i32..6,
        (time.clone(), time.clone()),
        attributes(),
        attributes(),
        0i32..3,
        any::<u32>(),
    )
        .prop_map(
            |(span_id, parent, name, kind, (start, end), list, of_event, code, number)| {
                What::Span(Arc::new(wire::Span {
                    links: vec![wire::Link {
                        trace_id: vec![7; 16].into(),
                        span_id: span_id.clone(),
                        flags: number,
                        ..Default::default()
                    }],
                    span_id,
                    parent_span_id: parent.unwrap_or_default(),
                    trace_state: name.clone(),
                    kind,
                    start_time_unix_nano: start,
                    end_time_unix_nano: end,
                    attributes: list,
                    events: vec![wire::SpanEvent {
                        time_unix_nano: start,
                        name: name.clone(),
                        attributes: of_event,
                        dropped_attributes_count: number,
                    }],
                    status: (code > 0).then(|| wire::Status {
                        code,
                        message: name.clone(),
                    }),
                    dropped_links_count: number,
                    flags: number,
                    name,
                    ..Default::default()
                }))
            },
        );
    let log = (
        proptest::option::of(id(8)),
        time,
        attributes(),
        value(),
        ".{0,6}",
        0i32..25,
    )
        .prop_map(|(span_id, time, attributes, body, name, severity)| {
            What::Log(Arc::new(wire::LogRecord {
                span_id: span_id.unwrap_or_default(),
                time_unix_nano: time,
                observed_time_unix_nano: time / 2,
                attributes,
                body: Some(AnyValue { value: Some(body) }),
                event_name: name.clone(),
                severity_text: name,
                severity_number: severity,
                ..Default::default()
            }))
        });
    let native = (any::<u32>(), ".{0,5}").prop_map(|(number, text)| {
        What::Native(
            format!(
                "{{\"event_type\":\"own\",\n \"event_id\":\"{number}\", \"x\":{}}}",
                json!(text)
            )
            .into(),
        )
    });
    prop_oneof![3 => span, 2 => log, 1 => native]
}

fn trace() -> impl Strategy<Value = Vec<Recorded>> {
    let context =
        (attributes(), attributes(), ".{0,3}").prop_map(|(resource, attributes, name)| {
            crate::observed::Context {
                resource,
                scope: wire::Scope {
                    version: name.clone(),
                    name,
                    attributes,
                },
                schema_url: "https://x".to_owned(),
            }
        });
    proptest::collection::vec((context, proptest::collection::vec(event(), 1..4)), 0..5).prop_map(
        |groups| {
            let of = |(context, whats): (crate::observed::Context, Vec<What>)| {
                let context = std::sync::Arc::new(context);
                whats.into_iter().map(move |what| match what {
                    // A native event has no surroundings.
                    What::Native(_) => crate::observed::Observation {
                        context: Default::default(),
                        what,
                    },
                    _ => crate::observed::Observation {
                        context: context.clone(),
                        what,
                    },
                })
            };
            let observations = groups.into_iter().flat_map(of);
            (1..)
                .zip(observations)
                .map(|(seq, observation)| Recorded {
                    seq,
                    arrived_unix_ms: 1,
                    observation,
                })
                .collect()
        },
    )
}

fn written(form: Form, events: &[Recorded]) -> String {
    let mut writer = Writer::new(form, &TraceId::parse(TRACE).unwrap());
    let mut out = String::new();
    loop {
        events.iter().for_each(|event| writer.push(event, &mut out));
        if !writer.end_pass(&mut out) {
            return out;
        }
    }
}

/// What of a trace is told apart: each item in its context.
fn facts(items: &[Incoming]) -> Vec<String> {
    let mut facts: Vec<_> = items
        .iter()
        .map(|item| match &item.what {
            Canonical::Native(text) => format!("native {}", text.replace('\n', " ")),
            other => format!("{other:?} {:?}", item.context),
        })
        .collect();
    facts.sort();
    facts.dedup();
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_exported_and_imported_is_the_same(events in trace()) {
        let incoming: Vec<Incoming> = events.iter().map(|event| Incoming {
            context: event.observation.context.clone(),
            what: Canonical::from(&event.observation.what),
            identity: None, may_end_run: false, trace_level: Verbosity::Debug,
        }).collect();
        for form in [Form::Otlp, Form::Jsonl] {
            let text = written(form, &events);
            if text.is_empty() {
                prop_assert!(events.is_empty());
                continue;
            }
            let read = read("x", text.as_bytes(), None).unwrap();
            prop_assert!(read.len() <= 1);
            let items = read.first().map(|trace| trace.items.clone()).unwrap_or_default();
            prop_assert_eq!(facts(&items), facts(&incoming), "{}", text);
            let Some(trace) = read.first() else { continue };
            // And over the network.
            let mut sent = Vec::new();
            for request in requests(trace) {
                let limits = Limits::default();
                let decoded = match request.path.as_str() {
                    "/v1/traces" => decode_traces(Encoding::Protobuf, &request.body, &limits).unwrap(),
                    "/v1/logs" => decode_logs(Encoding::Protobuf, &request.body, &limits).unwrap(),
                    _ => {
                        let posted = native::decode(&trace.trace_id, &request.body, native::Format::Json, Sender::default(), &limits).unwrap();
                        prop_assert!(posted.rejected.is_empty());
                        sent.extend(posted.events);
                        continue;
                    }
                };
                prop_assert!(decoded.rejected.is_empty());
                sent.extend(decoded.traces.into_iter().flat_map(|(id, items)| { assert_eq!(id.as_str(), TRACE); items }));
            }
            prop_assert_eq!(facts(&sent), facts(&incoming));
        }
        let jaeger = written(Form::Jaeger, &events);
        let read = read("x", jaeger.as_bytes(), None).unwrap();
        let spans: std::collections::BTreeSet<_> = events.iter().filter_map(|event| match &event.observation.what {
            What::Span(span) => Some(span.span_id.clone()),
            _ => None,
        }).collect();
        prop_assert_eq!(read.iter().map(|trace| trace.items.len()).sum::<usize>(), spans.len(), "{}", jaeger);
        for level in [Verbosity::Minimal, Verbosity::Detailed] {
            prop_assert_eq!(lowered(events.clone(), level).len(), events.len());
        }
    }

    #[test]
    fn nothing_that_a_file_holds_is_a_surprise(text in "[\\[\\]{}:,\"a0 \n]{0,40}", key in 0usize..8, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let keys = ["data", "resourceSpans", "spans", "batches", "spanId", "body", "nativeEvents", "trace"];
        let _ = read("x", format!("{{\"{}\":{text}", keys[key]).as_bytes(), None);
        let _ = read("x", format!("{{\"{}\":[{{\"spans\":[{{{text}}}]}}]}}", keys[key]).as_bytes(), None);
        for format in [None, Some(Format::OtlpProtobuf), Some(Format::OtlpJson), Some(Format::JaegerJson)] {
            let _ = read("x", &bytes, format);
        }
    }
}
