//! Real bytes in, observations out: by both encodings, whole and broken.

use std::io::Write;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    observed::{Incoming, What},
    wire::{any_value::Value, *},
};

const TRACE: &[u8; 16] = b"\x5b\x8e\xff\xf7\x98\x03\x81\x03\xd2\x69\xb6\x33\x81\x3f\xc6\x0c";
const SPAN: &[u8; 8] = b"\xee\xe1\x9b\x7e\xc3\xc1\xb1\x73";

fn span(name: &str) -> Span {
    Span {
        trace_id: TRACE.as_slice().into(),
        span_id: SPAN.as_slice().into(),
        name: name.into(),
        start_time_unix_nano: 1_795_208_184_784_000_000,
        end_time_unix_nano: 1_795_208_184_929_380_221,
        ..Span::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn request(items: Vec<Vec<u8>>) -> Vec<u8> {
    ExportRequest {
        resources: vec![ResourceItems {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", Value::String("shop".into()))],
            }),
            scopes: vec![ScopeItems {
                items: items.into_iter().map(Into::into).collect(),
                ..ScopeItems::default()
            }],
            ..ResourceItems::default()
        }],
    }
    .encode_to_vec()
}

fn json_request(spans: Json) -> Vec<u8> {
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"scope": {"name": "s"}, "spans": spans}],
    }]})
    .to_string()
    .into_bytes()
}

fn json_span(more: Json) -> Json {
    let mut span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b173", "name": "x",
    });
    for (key, value) in more.as_object().unwrap() {
        span[key] = value.clone();
    }
    span
}

fn traces(encoding: Encoding, body: &[u8]) -> Decoded {
    decode_traces(encoding, body, &Limits::default()).unwrap()
}

fn one_json_span(more: Json) -> Span {
    let decoded = traces(Encoding::Json, &json_request(json!([json_span(more)])));
    assert_eq!(decoded.rejected, []);
    spans(&decoded).remove(0)
}

fn items(decoded: &Decoded) -> impl Iterator<Item = &Incoming> {
    decoded.traces.iter().flat_map(|(_, items)| items)
}

fn spans(decoded: &Decoded) -> Vec<Span> {
    items(decoded)
        .map(|incoming| match incoming.what.read() {
            What::Span(span) => Arc::unwrap_or_clone(span),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn reasons(decoded: &Decoded) -> Vec<(&'static str, u64)> {
    decoded
        .rejected
        .iter()
        .map(|rejected| (rejected.reason, rejected.count))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_span_is_kept_as_sent_without_its_trace_id() {
    let decoded = traces(
        Encoding::Protobuf,
        &request(vec![span("plan").encode_to_vec()]),
    );
    assert_eq!(decoded.accepted, 1);
    assert_eq!(decoded.partial_success(), None);
    let (trace, incoming) = &decoded.traces[0];
    assert_eq!(trace.as_str(), "5b8efff798038103d269b633813fc60c");
    assert_eq!(
        spans(&decoded),
        [Span {
            trace_id: Default::default(),
            ..span("plan")
        }]
    );
    assert!(incoming[0].may_end_run, "an ended span without a parent");
    let context = &incoming[0].context;
    assert_eq!(context.resource[0].key, "service.name");
}

#[test]
fn content_encodings_are_undone_up_to_the_limit() {
    let body = b"spans ".repeat(1000);
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
        encoder.write_all(&body).unwrap();
        encoder.finish().unwrap()
    };
    let raw = {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Default::default());
        encoder.write_all(&body).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&*body, 3).unwrap();
    let cases: [(Option<&str>, &[u8]); 8] = [
        (None, &body),
        (Some("identity"), &body),
        (Some("gzip"), &gzip(&body)),
        (Some(" X-GZIP "), &gzip(&body)),
        (Some("deflate"), &zlib),
        (Some("deflate"), &raw),
        (Some("zstd"), &zstd),
        (Some("zstd, gzip"), &gzip(&zstd)),
    ];
    for (encoding, packed) in cases {
        assert_eq!(
            inflate(encoding, packed, 6000).unwrap(),
            body,
            "{encoding:?}"
        );
        assert_eq!(inflate(encoding, packed, 5999).unwrap_err().status, 413);
    }
    for (encoding, packed, status) in [
        ("br", body.as_slice(), 415),
        ("gzip", &body, 400),
        ("deflate", b"\xff\xff\xff", 400),
        ("zstd", &body, 400),
        ("gzip", &gzip(&body)[..20], 400),
        ("gzip,gzip,gzip,gzip", &body, 415),
    ] {
        let refused = inflate(Some(encoding), packed, 1 << 20).unwrap_err();
        assert_eq!(refused.status, status, "{encoding}: {refused}");
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 70_000);
    let refused = inflate(Some("gzip"), &bomb, 16 << 20).unwrap_err();
    assert_eq!((refused.status, refused.code), (413, "body_too_large"));
    let twice = inflate(Some("gzip, gzip"), &gzip(&bomb), 16 << 20).unwrap_err();
    assert_eq!(twice.status, 413);
}

#[test]
fn one_damaged_span_costs_itself() {
    let mut cut = span("cut").encode_to_vec();
    cut.truncate(cut.len() - 3);
    let body = request(vec![
        span("before").encode_to_vec(),
        cut,
        vec![0xff; 12],
        span("after").encode_to_vec(),
    ]);
    let decoded = traces(Encoding::Protobuf, &body);
    let names: Vec<_> = spans(&decoded).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["before", "after"]);
    assert_eq!(reasons(&decoded), [("malformed", 2)]);
    let partial = decoded.partial_success().unwrap();
    assert_eq!(partial.rejected, 2);
    assert_eq!(
        partial.error_message,
        "2 rejected (malformed): number 2: its bytes are cut short or damaged"
    );

    let body = json_request(json!([
        json_span(json!({"name": "before"})),
        "no span",
        json_span(json!({"spanId": "abc"})),
        json_span(json!({"attributes": 5})),
        json_span(json!({"name": "after"})),
    ]));
    let decoded = traces(Encoding::Json, &body);
    let names: Vec<_> = spans(&decoded).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["before", "after"]);
    assert_eq!(
        reasons(&decoded),
        [("malformed", 2), ("invalid_span_id", 1)]
    );
}

#[test]
fn a_cut_envelope_is_refused_with_advice() {
    let body = request(vec![span("x").encode_to_vec()]);
    for end in 1..body.len() {
        let refused = decode_traces(Encoding::Protobuf, &body[..end], &Limits::default());
        assert_eq!(refused.unwrap_err().status, 400, "cut at {end}");
    }
    let say = |encoding, body: &[u8]| {
        decode_traces(encoding, body, &Limits::default())
            .unwrap_err()
            .message
    };
    assert!(say(Encoding::Protobuf, b"{}").contains("application/json"));
    assert!(say(Encoding::Protobuf, &gzip(&body)).contains("content-encoding"));
    let json = json_request(json!([json_span(json!({}))]));
    for end in 0..json.len() {
        let refused = decode_traces(Encoding::Json, &json[..end], &Limits::default());
        assert_eq!(refused.unwrap_err().status, 400, "cut at {end}");
    }
    assert!(say(Encoding::Json, b"[]").contains("line 1 column"));
}

#[test]
fn json_is_read_as_it_is_found() {
    // Ids in hex of any case, base64 and with a UUID's dashes.
    for id in [
        "5B8EFFF798038103D269B633813FC60C",
        "W47/95gDgQPSabYzgT/GDA==",
        "W47_95gDgQPSabYzgT_GDA",
        "5b8efff7-9803-8103-d269-b633813fc60c",
    ] {
        let body = json_request(json!([json_span(json!({"traceId": id}))]));
        let decoded = traces(Encoding::Json, &body);
        assert_eq!(
            decoded.traces[0].0.as_str(),
            "5b8efff798038103d269b633813fc60c"
        );
    }
    assert_eq!(
        one_json_span(json!({"spanId": "7uGbfsPBsXM="})).span_id,
        &SPAN[..]
    );
    // 64-bit numbers as text, number and double.
    for time in [
        json!("1795208184784000000"),
        json!(1_795_208_184_784_000_000u64),
        json!(1.795_208_184_784e18),
    ] {
        let span = one_json_span(json!({"startTimeUnixNano": time, "end_time_unix_nano": time}));
        assert_eq!(span.start_time_unix_nano, 1_795_208_184_784_000_000);
        assert_eq!(span.end_time_unix_nano, 1_795_208_184_784_000_000);
    }
    // Enums by ordinal and by name.
    for kind in [
        json!(3),
        json!("3"),
        json!("SPAN_KIND_CLIENT"),
        json!("client"),
    ] {
        assert_eq!(one_json_span(json!({"kind": kind})).kind, 3);
    }
    for code in [json!(2), json!("STATUS_CODE_ERROR"), json!("Error")] {
        let status = one_json_span(json!({"status": {"code": code}}))
            .status
            .unwrap();
        assert_eq!(status.code, 2);
    }
    // Values in every form.
    for (found, value) in [
        (json!({"intValue": "7"}), Value::Int(7)),
        (json!({"int_value": 7}), Value::Int(7)),
        (json!({"intValue": 7.0}), Value::Int(7)),
        (
            json!({"intValue": "9223372036854775807"}),
            Value::Int(i64::MAX),
        ),
        (json!({"intValue": "many"}), Value::String("many".into())),
        (json!({"doubleValue": 0.1}), Value::Double(0.1)),
        (json!({"doubleValue": 1}), Value::Double(1.0)),
        (
            json!({"doubleValue": "-Infinity"}),
            Value::Double(f64::NEG_INFINITY),
        ),
        (json!({"boolValue": true}), Value::Bool(true)),
        (json!({"boolValue": "false"}), Value::Bool(false)),
        (
            json!({"bytesValue": "AQI="}),
            Value::Bytes(vec![1, 2].into()),
        ),
        (json!({"stringValue": 5}), Value::String("5".into())),
        (json!("bare"), Value::String("bare".into())),
        (json!(5), Value::Int(5)),
        (
            json!({"arrayValue": {}}),
            Value::Array(ArrayValue::default()),
        ),
        (
            json!({"kvlistValue": {"values": [{"key": "k", "value": {"intValue": 1}}]}}),
            Value::Map(KeyValueList {
                values: vec![attribute("k", Value::Int(1))],
            }),
        ),
    ] {
        let span = one_json_span(json!({"attributes": [{"key": "a", "value": found}]}));
        assert_eq!(span.attributes, [attribute("a", value)], "{found}");
    }
    let nan = one_json_span(json!({"attributes": [{"key": "a", "value": {"doubleValue": "NaN"}}]}));
    assert!(matches!(
        nan.attributes[0].value, Some(AnyValue { value: Some(Value::Double(value)) }) if value.is_nan()
    ));
    // Absent, null, unknown, and attributes as an object.
    let span = one_json_span(json!({
        "attributes": {"a": "x"}, "events": null, "links": [], "status": null, "new": {"deep": [1]},
        "parentSpanId": "", "flags": 257,
    }));
    assert_eq!(span.attributes, [attribute("a", Value::String("x".into()))]);
    assert_eq!((span.flags, span.status), (257, None));
}

#[test]
fn broken_characters_cost_themselves() {
    let half_an_emoji = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
        "spanId":"eee19b7ec3c1b173","name":"a\ud83d \ud83d\ude00 \\ud83d \ude00"}]}]}]}"#;
    let decoded = traces(Encoding::Json, half_an_emoji);
    assert_eq!(
        spans(&decoded)[0].name,
        "a\u{fffd} \u{1f600} \\ud83d \u{fffd}"
    );

    let bytes = json_request(json!([json_span(json!({"name": "a@b"}))]));
    let broken: Vec<u8> = bytes
        .into_iter()
        .map(|b| if b == b'@' { 0xff } else { b })
        .collect();
    assert_eq!(
        spans(&traces(Encoding::Json, &broken))[0].name,
        "a\u{fffd}b"
    );

    let mut item = span("a@b").encode_to_vec();
    for byte in item.iter_mut().filter(|byte| **byte == b'@') {
        *byte = 0xff;
    }
    let decoded = traces(Encoding::Protobuf, &request(vec![item]));
    assert_eq!(spans(&decoded)[0].name, "a\u{fffd}b");
}

#[test]
fn what_cannot_be_placed_is_rejected_for_its_reason() {
    let check = |item: Span, reason: &'static str| {
        let body = request(vec![span("before").encode_to_vec(), item.encode_to_vec()]);
        let decoded = traces(Encoding::Protobuf, &body);
        assert_eq!(reasons(&decoded), [(reason, 1)]);
        assert_eq!(decoded.accepted, 1);
    };
    check(
        Span {
            trace_id: vec![0; 16].into(),
            ..span("x")
        },
        "invalid_trace_id",
    );
    check(
        Span {
            trace_id: vec![1; 15].into(),
            ..span("x")
        },
        "invalid_trace_id",
    );
    check(
        Span {
            trace_id: vec![].into(),
            ..span("x")
        },
        "invalid_trace_id",
    );
    check(
        Span {
            span_id: vec![0; 8].into(),
            ..span("x")
        },
        "invalid_span_id",
    );
    check(
        Span {
            span_id: vec![1; 400].into(),
            ..span("x")
        },
        "invalid_span_id",
    );
    check(
        Span {
            parent_span_id: vec![1; 4].into(),
            ..span("x")
        },
        "invalid_parent_span_id",
    );
    check(
        Span {
            start_time_unix_nano: u64::MAX,
            ..span("x")
        },
        "invalid_time",
    );

    let negative = json_request(json!([json_span(json!({"startTimeUnixNano": "-5"}))]));
    assert_eq!(
        reasons(&traces(Encoding::Json, &negative)),
        [("invalid_time", 1)]
    );
    let text = json_request(json!([json_span(json!({"endTimeUnixNano": "soon"}))]));
    assert_eq!(
        reasons(&traces(Encoding::Json, &text)),
        [("invalid_time", 1)]
    );

    // A clock that went back is the reader's business.
    let backwards = Span {
        end_time_unix_nano: 5,
        ..span("x")
    };
    assert_eq!(
        traces(
            Encoding::Protobuf,
            &request(vec![backwards.encode_to_vec()])
        )
        .accepted,
        1
    );
}

#[test]
fn signals_at_the_wrong_endpoint_are_told_where_to_go() {
    let log = LogRecord {
        time_unix_nano: 1,
        trace_id: TRACE.as_slice().into(),
        event_name: "e".into(),
        ..LogRecord::default()
    };
    let limits = Limits::default();
    let body = request(vec![log.encode_to_vec(), span("x").encode_to_vec()]);
    let decoded = traces(Encoding::Protobuf, &body);
    assert_eq!(
        (decoded.accepted, reasons(&decoded)),
        (1, vec![("log_record", 1)])
    );
    assert!(decoded.rejected[0].example.contains("/v1/logs"));
    let decoded = decode_logs(Encoding::Protobuf, &body, &limits).unwrap();
    assert_eq!(
        (decoded.accepted, reasons(&decoded)),
        (1, vec![("span", 1)])
    );

    let body = json_request(json!([json_span(json!({}))]));
    let decoded = decode_logs(Encoding::Json, &body, &limits).unwrap();
    assert_eq!(reasons(&decoded), [("span", 1)]);
}

#[test]
fn log_records_need_a_trace() {
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"timeUnixNano": "5", "body": {"stringValue": "hi"}, "severityNumber": "SEVERITY_NUMBER_INFO2",
         "traceId": "5b8efff798038103d269b633813fc60c", "eventName": "gen_ai.choice"},
        {"body": {"stringValue": "lost"}},
        {"traceId": "00000000000000000000000000000000"},
    ]}]}]});
    let decoded = decode_logs(
        Encoding::Json,
        body.to_string().as_bytes(),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(reasons(&decoded), [("no_trace_id", 2)]);
    let incoming = items(&decoded).next().unwrap();
    let What::Log(log) = incoming.what.read() else {
        panic!()
    };
    assert_eq!(
        (log.severity_number, log.event_name.as_str()),
        (10, "gen_ai.choice")
    );
    assert!(!incoming.may_end_run);
}

#[test]
fn a_million_attributes_cost_only_those_beyond_the_limit() {
    let item = Span {
        attributes: vec![attribute("k", Value::Bool(true)); 1_000_000],
        ..span("wide")
    };
    let body = request(vec![
        span("before").encode_to_vec(),
        item.encode_to_vec(),
        span("after").encode_to_vec(),
    ]);
    let decoded = traces(Encoding::Protobuf, &body);
    let spans = spans(&decoded);
    assert_eq!(spans.len(), 3);
    assert_eq!(spans[1].attributes.len(), 4096);
    assert_eq!(spans[1].dropped_attributes_count, 995_904);
    assert_eq!(
        decoded.partial_success().unwrap().error_message,
        "995904 attributes, span events or links were left out: too many or too deep"
    );

    let wide = json_span(json!({"attributes": vec![json!({"key": "k"}); 100_000]}));
    let decoded = traces(
        Encoding::Json,
        &json_request(json!([json_span(json!({"name": "before"})), wide])),
    );
    assert_eq!(decoded.accepted, 2);
    assert_eq!(self::spans(&decoded)[1].dropped_attributes_count, 95_904);
}

#[test]
fn values_are_bounded_over_the_whole_request() {
    let limits = Limits {
        values: 10,
        ..Limits::default()
    };
    let numbers = |count| {
        Value::Array(ArrayValue {
            values: vec![
                AnyValue {
                    value: Some(Value::Int(1))
                };
                count
            ],
        })
    };
    let item = Span {
        attributes: vec![
            attribute("short", numbers(3)),
            attribute("long", numbers(50)),
            attribute("s", Value::Bool(true)),
        ],
        ..span("x")
    };
    let decoded = decode_traces(
        Encoding::Protobuf,
        &request(vec![item.encode_to_vec()]),
        &limits,
    )
    .unwrap();
    let span = &spans(&decoded)[0];
    assert_eq!(span.attributes.len(), 1);
    assert_eq!(span.dropped_attributes_count, 2);
}

#[test]
fn depth_is_bounded_by_both_encodings() {
    let nested = |depth| {
        (1..depth).fold(Value::Int(1), |inner, level| {
            let inner = AnyValue { value: Some(inner) };
            if level % 2 == 0 {
                Value::Array(ArrayValue {
                    values: vec![inner],
                })
            } else {
                Value::Map(KeyValueList {
                    values: vec![KeyValue {
                        key: "k".into(),
                        value: Some(inner),
                    }],
                })
            }
        })
    };
    for (depth, kept) in [(24, true), (25, false), (1_000, false)] {
        let item = Span {
            attributes: vec![
                attribute("deep", nested(depth)),
                attribute("flat", Value::Int(1)),
            ],
            ..span("x")
        };
        let body = request(vec![item.encode_to_vec()]);
        let by_protobuf = traces(Encoding::Protobuf, &body);
        let span = &spans(&by_protobuf)[0];
        assert_eq!(
            span.attributes.len(),
            if kept { 2 } else { 1 },
            "depth {depth}"
        );
        assert_eq!(span.dropped_attributes_count, u32::from(!kept));
        if depth < 100 {
            let json = json!({"resourceSpans": [{"scopeSpans": [{"spans": [to_json(&item)]}]}]});
            let by_json = traces(Encoding::Json, json.to_string().as_bytes());
            assert_eq!(spans(&by_json), spans(&by_protobuf));
        }
    }
    // Far deeper than any parser recurses: the item is lost, its neighbours are not.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = String::from_utf8(json_request(json!([
        json_span(json!({"name": "a"})),
        "DEEP",
        json_span(json!({"name": "b"}))
    ])))
    .unwrap();
    for (place, rejected) in [("\"DEEP\"", 1), ("\"shop\"", 1)] {
        let decoded = decode_traces(
            Encoding::Json,
            body.replace(place, &deep).as_bytes(),
            &Limits::default(),
        );
        match decoded {
            Ok(decoded) => assert_eq!((decoded.accepted, decoded.rejected_count()), (2, rejected)),
            Err(refused) => assert_eq!(refused.status, 400),
        }
    }
    let bomb = "[".repeat(8 << 20);
    assert_eq!(
        decode_traces(Encoding::Json, bomb.as_bytes(), &Limits::default())
            .unwrap_err()
            .status,
        400
    );
}

#[test]
fn items_and_contexts_are_bounded() {
    let limits = Limits {
        items: 2,
        ..Limits::default()
    };
    let named: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| span(name).encode_to_vec())
        .into();
    let decoded = decode_traces(Encoding::Protobuf, &request(named), &limits).unwrap();
    assert_eq!(
        (decoded.accepted, reasons(&decoded)),
        (2, vec![("too_many_items", 2)])
    );
    let named = json!(["a", "b", "c", "d"].map(|name| json_span(json!({"name": name}))));
    let decoded = decode_traces(Encoding::Json, &json_request(named), &limits).unwrap();
    assert_eq!(
        (decoded.accepted, reasons(&decoded)),
        (2, vec![("too_many_items", 2)])
    );

    let limits = Limits {
        context_bytes: 3000,
        ..Limits::default()
    };
    let scope = |name: &str, item: &str| ScopeItems {
        scope: Some(Scope {
            name: name.into(),
            ..Scope::default()
        }),
        items: vec![span(item).encode_to_vec().into()],
        ..ScopeItems::default()
    };
    let body = ExportRequest {
        resources: vec![ResourceItems {
            resource: Some(Resource {
                attributes: vec![attribute("k", Value::String("v".repeat(2000).into()))],
            }),
            scopes: vec![scope("s", "a"), scope("s", "b"), scope("t", "c")],
            ..ResourceItems::default()
        }],
    };
    let decoded = decode_traces(Encoding::Protobuf, &body.encode_to_vec(), &limits).unwrap();
    assert_eq!(
        (decoded.accepted, reasons(&decoded)),
        (2, vec![("too_many_scopes", 1)])
    );
}

#[test]
fn two_byte_tricks_stay_small() {
    // Eight million empty resources, scopes, items and attributes: nothing of it is kept.
    for tag in [0x0a, 0x12] {
        let body = [tag, 0].repeat(8 << 20);
        let decoded = traces(Encoding::Protobuf, &body);
        assert_eq!((decoded.memory_bytes, decoded.traces), (body.len(), vec![]));
    }
    let scopes = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{}{{}}]}}]}}"#,
        "{},".repeat(1 << 20)
    );
    let decoded = traces(Encoding::Json, scopes.as_bytes());
    assert_eq!(
        (decoded.memory_bytes, decoded.traces),
        (scopes.len(), vec![])
    );
    let items = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}0]}}]}}]}}"#,
        "0,".repeat(1 << 20)
    );
    let decoded = traces(Encoding::Json, items.as_bytes());
    assert_eq!(decoded.rejected_count(), (1 << 20) + 1);
}

#[test]
fn a_body_that_becomes_large_says_so() {
    // Half a million array elements of two bytes each.
    let array = Value::Array(ArrayValue {
        values: vec![AnyValue::default(); 500_000],
    });
    let item = Span {
        attributes: vec![attribute("a", array)],
        ..span("x")
    };
    let body = request(vec![item.encode_to_vec()]);
    let decoded = traces(Encoding::Protobuf, &body);
    assert_eq!(decoded.left_out, 0);
    assert!(decoded.memory_bytes > 500_000 * size_of::<AnyValue>());
}

#[test]
fn repeats_inside_a_request_are_taken_once_and_updates_are_kept() {
    let update = Span {
        end_time_unix_nano: 0,
        ..span("x")
    };
    let body = request(
        [&span("x"), &span("x"), &update]
            .map(Message::encode_to_vec)
            .into(),
    );
    let decoded = traces(Encoding::Protobuf, &body);
    assert_eq!((decoded.accepted, decoded.repeated), (3, 1));
    assert_eq!(spans(&decoded).len(), 2);
    assert!(!decoded.traces[0].1[1].may_end_run, "still open");
}

#[test]
fn parents_in_a_circle_are_only_links_to_us() {
    let a = Span {
        parent_span_id: vec![2; 8].into(),
        span_id: vec![1; 8].into(),
        ..span("a")
    };
    let b = Span {
        parent_span_id: vec![1; 8].into(),
        span_id: vec![2; 8].into(),
        ..span("b")
    };
    let own = Span {
        parent_span_id: vec![3; 8].into(),
        span_id: vec![3; 8].into(),
        ..span("c")
    };
    let body = request([a, b, own].map(|span| span.encode_to_vec()).into());
    assert_eq!(traces(Encoding::Protobuf, &body).accepted, 3);
}

#[test]
fn encodings_are_told_by_content_type_or_by_looking() {
    let check = |content_type, body: &[u8], encoding| {
        assert_eq!(
            Encoding::of(content_type, body),
            encoding,
            "{content_type:?}"
        );
    };
    check(
        Some("application/x-protobuf"),
        b"{}",
        Some(Encoding::Protobuf),
    );
    check(
        Some("Application/JSON; charset=utf-8"),
        b"",
        Some(Encoding::Json),
    );
    check(Some("text/plain"), b"{}", None);
    check(None, b" {}", Some(Encoding::Json));
    check(None, b"", Some(Encoding::Protobuf));
    // The tag of field 1 is a line feed, and a length may look like a brace.
    let resource = request(vec![span(&"n".repeat(45)).encode_to_vec()]);
    assert_eq!(resource[..2], *b"\n{");
    check(None, &resource, Some(Encoding::Protobuf));
}

#[test]
fn answers_are_in_the_requests_encoding() {
    let partial = || {
        Some(PartialSuccess {
            rejected: 3,
            error_message: "why".into(),
        })
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!(
        encode_response(Encoding::Protobuf, Signal::Traces, None),
        b""
    );
    assert_eq!(
        text(encode_response(Encoding::Json, Signal::Traces, None)),
        "{}"
    );
    assert_eq!(
        text(encode_response(Encoding::Json, Signal::Logs, partial())),
        r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"why"}}"#
    );
    let answer = encode_response(Encoding::Protobuf, Signal::Traces, partial());
    assert_eq!(
        ExportResponse::decode(&*answer).unwrap().partial_success,
        partial()
    );
    assert_eq!(
        text(encode_status(Encoding::Json, 503, "later")),
        r#"{"code":14,"message":"later"}"#
    );
    let status = RpcStatus::decode(&*encode_status(Encoding::Protobuf, 400, "no")).unwrap();
    assert_eq!((status.code, status.message.as_str()), (3, "no"));
}

/// Every request of real frameworks' exporters in `TAILSPAN_CORPUS`, or `../shared/corpus` beside the repository: skipped
/// where there is none.
#[test]
fn real_exports_are_taken_whole() {
    let folder = std::env::var("TAILSPAN_CORPUS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus").to_owned()
    });
    let Ok(scenarios) = std::fs::read_dir(&folder) else {
        println!("no corpus at {folder}: skipped");
        return;
    };
    let mut requests = 0;
    for scenario in scenarios {
        let Ok(files) = std::fs::read_dir(scenario.unwrap().path().join("requests")) else {
            continue;
        };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let about: Json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let header = |wanted: &str| {
                let headers = about["headers"].as_array().unwrap().iter();
                headers
                    .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(wanted))
                    .find_map(|header| header[1].as_str())
            };
            let body = std::fs::read(file.with_extension("body")).unwrap();
            let body = inflate(header("content-encoding"), &body, 16 << 20).unwrap();
            let encoding = Encoding::of(header("content-type"), &body).unwrap();
            assert_eq!(Encoding::of(None, &body), Some(encoding), "{file:?}");
            requests += 1;
            let decoded = match about["path"].as_str().unwrap() {
                "/v1/traces" => traces(encoding, &body),
                "/v1/logs" => decode_logs(encoding, &body, &Limits::default()).unwrap(),
                _ => {
                    check_metrics(encoding, &body).unwrap();
                    continue;
                }
            };
            assert!(decoded.accepted > 0, "{file:?}");
            assert_eq!(decoded.left_out, 0, "{file:?}");
            println!("{file:?}: {:?}", decoded.rejected);
            assert_eq!(decoded.rejected, [], "{file:?}");
        }
    }
    println!("{requests} requests");
}

// Properties.

/// How a correct exporter writes a span in OTLP/JSON.
fn to_json(span: &Span) -> Json {
    json!({
        "traceId": crate::id::hex(&span.trace_id), "spanId": crate::id::hex(&span.span_id),
        "parentSpanId": crate::id::hex(&span.parent_span_id), "traceState": span.trace_state,
        "name": span.name, "kind": span.kind, "flags": span.flags,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes_json(&span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": span.events.iter().map(|event| json!({
            "timeUnixNano": event.time_unix_nano.to_string(), "name": event.name,
            "attributes": attributes_json(&event.attributes),
        })).collect::<Vec<_>>(),
        "links": span.links.iter().map(|link| json!({
            "traceId": crate::id::hex(&link.trace_id), "spanId": crate::id::hex(&link.span_id),
            "attributes": attributes_json(&link.attributes), "flags": link.flags,
        })).collect::<Vec<_>>(),
        "status": span.status.as_ref().map(|status| json!({"code": status.code, "message": status.message})),
    })
}

fn attributes_json(attributes: &[KeyValue]) -> Json {
    attributes.iter().map(pair_json).collect()
}

fn pair_json(pair: &KeyValue) -> Json {
    json!({"key": pair.key, "value": pair.value.as_ref().map(value_json)})
}

fn value_json(value: &AnyValue) -> Json {
    use base64::prelude::*;
    match &value.value {
        None => json!({}),
        Some(Value::String(text)) => json!({"stringValue": text}),
        Some(Value::Bool(value)) => json!({"boolValue": value}),
        Some(Value::Int(value)) => json!({"intValue": value.to_string()}),
        Some(Value::Double(value)) if value.is_nan() => json!({"doubleValue": "NaN"}),
        Some(Value::Double(value)) if value.is_infinite() => {
            json!({"doubleValue": if *value > 0.0 { "Infinity" } else { "-Infinity" }})
        }
        Some(Value::Double(value)) => json!({"doubleValue": value}),
        Some(Value::Array(array)) => {
            json!({"arrayValue": {"values": array.values.iter().map(value_json).collect::<Vec<_>>()}})
        }
        Some(Value::Map(map)) => json!({"kvlistValue": {"values": attributes_json(&map.values)}}),
        Some(Value::Bytes(bytes)) => json!({"bytesValue": BASE64_STANDARD.encode(bytes)}),
    }
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        any::<String>().prop_map(|text| Value::String(text.into())),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        Just(Value::Double(f64::NAN)),
        any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    let some = |value| AnyValue { value: Some(value) };
    leaf.prop_map(some).prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(move |values| some(Value::Array(ArrayValue { values }))),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(move |pairs| {
                let values = pairs
                    .into_iter()
                    .map(|(key, value)| KeyValue {
                        key: key.into(),
                        value: Some(value),
                    })
                    .collect();
                some(Value::Map(KeyValueList { values }))
            }),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec(
        (any::<String>(), prop::option::of(any_value())).prop_map(|(key, value)| KeyValue {
            key: key.into(),
            value,
        }),
        0..5,
    )
}

prop_compose! {
    fn any_span()(
        trace_id in prop::array::uniform16(1u8..), span_id in prop::array::uniform8(1u8..),
        parent in prop::option::of(prop::array::uniform8(1u8..)),
        name in any::<String>(), trace_state in any::<String>(), kind in 0..6i32,
        (start, end) in (0..=i64::MAX as u64, 0..=i64::MAX as u64),
        span_attributes in attributes(), flags in any::<u32>(), dropped in any::<u32>(),
        events in prop::collection::vec((0..=i64::MAX as u64, any::<String>(), attributes()), 0..3),
        links in prop::collection::vec((prop::array::uniform16(1u8..), prop::array::uniform8(1u8..), attributes()), 0..3),
        status in prop::option::of((1..3i32, any::<String>())),
    ) -> Span {
        Span {
            trace_id: trace_id.to_vec().into(),
            span_id: span_id.to_vec().into(),
            trace_state,
            parent_span_id: parent.map(|id| id.to_vec()).unwrap_or_default().into(),
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: span_attributes,
            dropped_attributes_count: dropped,
            events: events.into_iter().map(|(time_unix_nano, name, attributes)| SpanEvent {
                time_unix_nano, name, attributes, dropped_attributes_count: 0,
            }).collect(),
            dropped_events_count: 0,
            links: links.into_iter().map(|(trace_id, span_id, attributes)| Link {
                trace_id: trace_id.to_vec().into(), span_id: span_id.to_vec().into(), attributes, ..Link::default()
            }).collect(),
            dropped_links_count: 0,
            status: status.map(|(code, message)| Status { code, message }),
            flags,
        }
    }
}

proptest! {
    #[test]
    fn a_span_is_the_same_by_both_encodings_and_survives(sent in any_span()) {
        let by_protobuf = traces(Encoding::Protobuf, &request(vec![sent.encode_to_vec()]));
        let by_json = traces(Encoding::Json, &json_request(json!([to_json(&sent)])));
        prop_assert_eq!(&by_protobuf.rejected, &[]);
        prop_assert_eq!(&by_json.rejected, &[]);
        let identity = |decoded: &Decoded| items(decoded).next().and_then(|item| item.identity);
        prop_assert_eq!(identity(&by_protobuf), identity(&by_json));
        // NaN is not equal to itself, its bytes are.
        let kept = spans(&by_protobuf).remove(0).encode_to_vec();
        let sent = Span { trace_id: Default::default(), ..sent }.encode_to_vec();
        prop_assert_eq!(kept, sent);
    }

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        let limits = Limits::default();
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            for body in [bytes.as_slice(), text.as_bytes()] {
                let _ = decode_traces(encoding, body, &limits);
                let _ = decode_logs(encoding, body, &limits);
                let _ = check_metrics(encoding, body);
            }
        }
        for name in ["gzip", "deflate", "zstd"] {
            let _ = inflate(Some(name), &bytes, 1 << 16);
        }
    }

    #[test]
    fn a_flipped_byte_loses_at_most_its_own_span(sent in any_span(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut damaged = sent.encode_to_vec();
        let at = at.index(damaged.len());
        damaged[at] = with;
        let body = request(vec![span("before").encode_to_vec(), damaged, span("after").encode_to_vec()]);
        let decoded = traces(Encoding::Protobuf, &body);
        let names: Vec<_> = spans(&decoded).into_iter().map(|span| span.name).collect();
        prop_assert!(names.iter().any(|name| name == "before"));
        prop_assert!(names.iter().any(|name| name == "after"));
        prop_assert_eq!(decoded.accepted + decoded.rejected_count(), 3);
    }
}

/// The request's items, each with a field of no meaning: what is read field by field, and not taken over as it is. The field stands first: after an
/// item that breaks off within a number it would complete the number.
fn in_the_slow_way(items: &[Vec<u8>]) -> Vec<u8> {
    let marked = items
        .iter()
        .map(|item| [&b"\xf8\x7f\x01"[..], item].concat());
    request(marked.collect())
}

fn nested() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        "[a-zé]{0,20}".prop_map(|text| Some(Value::String(text.into()))),
        any::<bool>().prop_map(|truth| Some(Value::Bool(truth))),
        any::<i64>().prop_map(|number| Some(Value::Int(number))),
        any::<f64>().prop_map(|number| Some(Value::Double(number))),
        proptest::collection::vec(any::<u8>(), 0..9)
            .prop_map(|bytes| Some(Value::Bytes(bytes.into()))),
    ];
    leaf.prop_map(|value| AnyValue { value })
        .prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|values| Value::Array(ArrayValue { values })),
                proptest::collection::vec(("[a-z]{0,3}", proptest::option::of(inner)), 0..4)
                    .prop_map(|pairs| Value::Map(KeyValueList {
                        values: pairs
                            .into_iter()
                            .map(|(key, value)| KeyValue {
                                key: key.into(),
                                value
                            })
                            .collect(),
                    })),
            ]
            .prop_map(|value| AnyValue { value: Some(value) })
        })
}

proptest! {
    /// What is taken over as it came is what reading and writing it would have made of it.
    #[test]
    fn bytes_taken_over_are_the_bytes_that_reading_makes(
        values in proptest::collection::vec(("[a-z]{0,3}", proptest::option::of(nested())), 0..6),
        scalars in any::<[u8; 8]>(),
        (broken_at, broken) in (any::<proptest::sample::Index>(), proptest::option::of(any::<u8>())),
    ) {
        let attributes: Vec<_> = values.into_iter().map(|(key, value)| KeyValue { key: key.into(), value }).collect();
        let small = |at: usize| u32::from(scalars[at] % 3);
        let id = |at: usize| vec![scalars[at] % 3; 8];
        let span = Span {
            trace_id: TRACE.as_slice().into(),
            span_id: SPAN.as_slice().into(),
            trace_state: "a=b".repeat(small(0) as usize),
            parent_span_id: id(1).into(),
            name: "n".repeat(small(2) as usize),
            kind: small(3).cast_signed() - 1,
            start_time_unix_nano: u64::from(small(4)),
            end_time_unix_nano: u64::from(small(5)),
            dropped_attributes_count: small(6),
            events: vec![SpanEvent { time_unix_nano: u64::from(small(7)), name: "e".repeat(small(0) as usize), attributes: attributes.clone(), dropped_attributes_count: small(1) }; small(2) as usize],
            links: vec![Link { trace_id: TRACE.as_slice().into(), span_id: id(3).into(), attributes: attributes.clone(), flags: small(4), ..Link::default() }; small(5) as usize],
            status: (small(6) > 0).then(|| Status { code: small(7).cast_signed(), message: "m".repeat(small(0) as usize) }),
            flags: small(1),
            attributes: attributes.clone(),
            ..Span::default()
        };
        let log = LogRecord {
            time_unix_nano: u64::from(small(0)),
            severity_number: small(1).cast_signed(),
            body: attributes.first().and_then(|pair| pair.value.clone()),
            trace_id: TRACE.as_slice().into(),
            span_id: id(3).into(),
            attributes,
            event_name: "e".repeat(small(4) as usize),
            ..LogRecord::default()
        };
        for (mut item, signal) in [(span.encode_to_vec(), Kind::Span), (log.encode_to_vec(), Kind::Log)] {
            if let Some(byte) = broken {
                let at = broken_at.index(item.len());
                item[at] = byte;
            }
            let read = |body: &[u8]| decode(Encoding::Protobuf, body, signal, &Limits::default()).unwrap();
            let (fast, slow) = (read(&request(vec![item.clone()])), read(&in_the_slow_way(&[item])));
            prop_assert_eq!(&fast.traces, &slow.traces);
            prop_assert_eq!(fast.rejected_count(), slow.rejected_count());
            prop_assert_eq!(fast.left_out, slow.left_out);
        }
    }
}

/// The exporters' usual spans are taken over: otherwise ingest is several times slower, and nothing else would tell.
#[test]
fn usual_spans_are_taken_over() {
    let mut usual = span("chat");
    usual.attributes = vec![attribute(
        "gen_ai.operation.name",
        Value::String("chat".into()),
    )];
    // As the Python SDK does.
    usual.status = Some(Status::default());
    let budget = Budget::new(&Limits::default());
    let bytes = usual.encode_to_vec();
    let canonical = canonical::span(&bytes, &budget).unwrap();
    let mut written = Vec::new();
    canonical.write(&mut written);
    usual.trace_id = Vec::new().into();
    usual.status = None;
    assert_eq!(written, usual.encode_to_vec());
    assert!(canonical.is_ended_root);
    assert_eq!(budget.spent(), 1);
}
