//! What a stranger may put into a request line: told apart as JSON on every route, never a fault of ours, never an empty list for an error.

use std::net::SocketAddr;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Instance, RedisServer, http};

const TRACE: &str = "5b8efff798038103d269b633813fc60c";
const SPAN: &str = "eee19b7ec3c1b174";
const ROUTES: [&str; 8] = [
    "",
    "/events",
    "/digest",
    "/summary",
    "/invocations",
    "/stream",
    "/spans/eee19b7ec3c1b174/why",
    "/spans/my%20step/why",
];

async fn instance() -> (RedisServer, Instance) {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let span = json!({"traceId": TRACE, "spanId": SPAN, "name": "s", "startTimeUnixNano": "1800000000000000000", "endTimeUnixNano": "1800000001000000000"});
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    post(&instance, "/v1/traces", &body).await;
    let step = json!({"event_type": "step", "span_id": "my step"});
    post(&instance, &format!("/traces/{TRACE}/events"), &step).await;
    (redis, instance)
}

async fn post(instance: &Instance, path: &str, body: &Value) {
    let sent = http().post(instance.url(path)).json(body).send().await;
    let response = sent.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
}

/// Status and body of a request whose line goes out as it is written here: a client library would mend it. Of a stream that opened, no body.
async fn ask(address: SocketAddr, method: &str, target: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while socket.read_buf(&mut answer).await.unwrap() > 0 {
        if answer
            .windows(28)
            .any(|part| part.eq_ignore_ascii_case(b"content-type: text/event-str"))
        {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").unwrap_or_default().1;
    (
        status.unwrap_or_else(|| panic!("{method} {target}: no answer: {answer:?}")),
        body.to_owned(),
    )
}

/// The code of an error; a panic when it is not told as errors are.
#[track_caller]
fn code(target: &str, status: u16, body: &str) -> String {
    let told: Value =
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{target}: {status} {body:?}"));
    assert!(
        told["error"]["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{target}: {body}"
    );
    told["error"]["code"].as_str().unwrap().to_owned()
}

async fn check(instance: &Instance, target: &str, status: u16, expected: &str) {
    let (told, body) = ask(instance.address, "GET", target).await;
    assert_eq!(told, status, "{target}: {body}");
    assert_eq!(code(target, told, &body), expected, "{target}: {body}");
}

#[tokio::test]
async fn what_is_no_id_is_invalid_on_every_route_and_what_is_one_is_absent() {
    let (_redis, instance) = instance().await;
    let too_long = "x".repeat(129);
    let wrong = [
        "%20",
        "%00",
        "%0d%0aX-A:b",
        "%ff",
        "%c3%28",
        "%",
        "%z",
        "%zz",
        "%2",
        ".",
        "..",
        "%2e%2e",
        "%2f",
        "..%2f..%2fetc",
        "a%2fb",
        "{x}",
        "*",
        "a:b",
        "a+b",
        "%F0%9F%92%A9",
        "a;b",
        "a'--",
        "$(x)",
        &too_long,
    ];
    let right = ["null", "-1", "0", "_", "-", "true", "undefined", "0x0"];
    for route in ROUTES {
        for id in wrong {
            check(
                &instance,
                &format!("/traces/{id}{route}"),
                400,
                "invalid_trace_id",
            )
            .await;
        }
        for id in right {
            check(
                &instance,
                &format!("/traces/{id}{route}"),
                404,
                "trace_not_found",
            )
            .await;
        }
    }
    for id in ["%00", "%ff", "%7f", "%0a", "%c2%85", &too_long] {
        let target = format!("/traces/{TRACE}/spans/{id}/why");
        check(&instance, &target, 400, "invalid_span_id").await;
    }
    for id in [
        "%", "%zz", "..", "%2e%2e", "a%2fb", "null", "-1", "%22", "%5c", "%C3%BC",
    ] {
        let target = format!("/traces/{TRACE}/spans/{id}/why");
        check(&instance, &target, 404, "span_not_found").await;
    }
    // The forms of one id are one; an encoded letter is that letter.
    for id in [
        TRACE.to_uppercase(),
        TRACE.replacen('5', "%35", 1),
        "5B8EFFF7-9803-8103-D269-B633813FC60C".to_owned(),
    ] {
        for route in ROUTES {
            let target = format!("/traces/{id}{route}");
            assert_eq!(
                ask(instance.address, "GET", &target).await.0,
                200,
                "{target}"
            );
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_of_a_query_is_told() {
    let (_redis, instance) = instance().await;
    let numbers = [
        "",
        "0",
        "-1",
        "1.5",
        "1e3",
        "0x10",
        "ten",
        "%31%20",
        "NaN",
        "18446744073709551616",
        "99999999999999999999999999",
        "%ff",
        "%00",
        "%",
        "1,2",
        "true",
        "null",
    ];
    let events = format!("/traces/{TRACE}/events");
    check(&instance, "/traces?limit=1001", 400, "invalid_parameter").await;
    for query in ["offset=-1", "offset=0&cursor=1", "offset=x"] {
        let path = format!("{events}?{query}");
        check(&instance, &path, 400, "invalid_parameter").await;
    }
    for query in [
        "level=loud",
        "level=",
        "level=DEBUG",
        "include=attributes&level=standard",
        "include=history&level=detailed",
        "include=attributes&exclude=attributes",
    ] {
        for route in ["", "/events", "/summary", "/invocations", "/stream"] {
            let path = format!("/traces/{TRACE}{route}?{query}");
            check(&instance, &path, 400, "invalid_parameter").await;
        }
    }
    for route in ["/traces", &events] {
        for limit in numbers {
            check(
                &instance,
                &format!("{route}?limit={limit}"),
                400,
                "invalid_parameter",
            )
            .await;
        }
        // Said twice: neither is the one that was meant.
        for query in ["limit=1&limit=2", "limit=1&limit=1", "cursor=1&cursor=1"] {
            check(
                &instance,
                &format!("{route}?{query}"),
                400,
                "invalid_parameter",
            )
            .await;
        }
        for cursor in [
            "",
            "-",
            "--",
            "-1",
            "+1-1",
            "1-",
            "a-b",
            "1-2-3%00",
            "%ff",
            "18446744073709551616-1%20",
            "1-%F0%9F%92%A9",
            "NaN-1",
            "99999999999999999999-a",
        ] {
            check(
                &instance,
                &format!("{route}?cursor={cursor}"),
                400,
                "invalid_cursor",
            )
            .await;
        }
    }
    let why = format!("/traces/{TRACE}/spans/{SPAN}/why");
    let stream = format!("/traces/{TRACE}/stream");
    for (route, query) in [
        (&events, "include=everything"),
        (&events, "include="),
        (&events, "include=attributes,everything"),
        (&events, "exclude=history"),
        (&events, "exclude="),
        (&events, "event_types="),
        (&events, "event_types=,%20,"),
        (&events, "event_types=a&event_types=b"),
        (&why, "attributes="),
        (&why, "attributes=no"),
        (&why, "attributes=true&attributes=false"),
        (&stream, "from=end"),
        (&stream, "from="),
        (&stream, "until=later"),
        (&stream, "wait=-1"),
        (&stream, "wait=301s"),
        (&stream, "wait=18446744073709551615m"),
        (&stream, "wait=%C2%B2s"),
        (&stream, "wait=s"),
        (&stream, "wait="),
        (&stream, "from=now&from=now"),
    ] {
        check(
            &instance,
            &format!("{route}?{query}"),
            400,
            "invalid_parameter",
        )
        .await;
    }
    for cursor in ["", "x", "1-4294967296", "9007199254740992", "%2D1"] {
        check(
            &instance,
            &format!("{stream}?cursor={cursor}"),
            400,
            "invalid_cursor",
        )
        .await;
    }
    // Cursors that could be are no error: what they cannot be shown is a gap.
    for cursor in ["9007199254740991", "9007199254740991-4294967295", "1-1"] {
        let target = format!("{events}?cursor={cursor}");
        let (status, body) = ask(instance.address, "GET", &target).await;
        let page: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &page["gap"]["reason"]),
            (200, &json!("replaced")),
            "{body}"
        );
        assert_eq!(page["events"].as_array().unwrap().len(), 2, "{body}");
    }
    for cursor in ["18446744073709551615-a", "0-a", "1-a"] {
        let target = format!("/traces?cursor={cursor}");
        let (status, body) = ask(instance.address, "GET", &target).await;
        let shown = body.contains(TRACE);
        assert_eq!(
            (status, shown),
            (200, cursor.starts_with('1') && cursor.len() > 9),
            "{body}"
        );
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_told() {
    let (_redis, instance) = instance().await;
    for target in [
        "/",
        "//",
        "/traces/",
        "//traces",
        "/traces//",
        "/Traces",
        "/traces/a/b",
        "/traces/a/events/",
        "/traces/a/spans",
        "/traces/a/spans/b",
        "/traces/a/spans/b/why/",
        "/traces/a/spans/b/c/why",
        "/%74races",
        "/health/",
        "/metrics/x",
        "/..",
        "/../traces",
        "/traces/../health",
    ] {
        check(&instance, target, 404, "route_not_found").await;
    }
    check(&instance, "/traces//events", 400, "invalid_trace_id").await;
    check(&instance, "/traces/a/spans//why", 400, "invalid_span_id").await;
    for method in ["PUT", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for route in ROUTES {
            let target = format!("/traces/{TRACE}{route}");
            let (status, body) = ask(instance.address, method, &target).await;
            assert_eq!(
                (status, &*code(&target, status, &body)),
                (405, "method_not_allowed"),
                "{method}"
            );
        }
    }
}

/// Pieces of request lines, put together at random: whatever comes out of it is answered, as JSON, and nothing of it is a fault of ours.
#[tokio::test]
async fn whatever_is_asked_is_answered() {
    const PIECES: [&str; 52] = [
        "/",
        "//",
        "traces",
        "/traces/",
        TRACE,
        SPAN,
        "/events",
        "/summary",
        "/invocations",
        "/stream",
        "/spans/",
        "/why",
        "/health",
        "/ready",
        "/metrics",
        "/v1/traces",
        "?",
        "&",
        "=",
        ";",
        "limit=",
        "cursor=",
        "include=",
        "attributes",
        "event_types=",
        "from=",
        "until=",
        "wait=",
        "token=",
        "true",
        "1",
        "-1",
        "0",
        "200",
        "1-1",
        "9007199254740991",
        "18446744073709551616",
        "%00",
        "%0a",
        "%",
        "%ff",
        "%C3%BC",
        "%2f",
        "%25",
        "..",
        "a",
        "{",
        "}",
        "'",
        "\\",
        "[]",
        "50ms",
    ];
    let (_redis, instance) = instance().await;
    // A fixed beginning (xorshift): what fails once fails again.
    let mut number = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        (number % below as u64) as usize
    };
    let beginnings = [
        "/traces".to_owned(),
        format!("/traces/{TRACE}"),
        format!("/traces/{TRACE}/events?"),
        format!("/traces/{TRACE}/stream?"),
        format!("/traces/{TRACE}/spans/"),
        "/".to_owned(),
    ];
    let targets: Vec<(&str, String)> = (0..4_000)
        .map(|_| {
            let mut target = beginnings[next(beginnings.len())].clone();
            for _ in 0..next(7) {
                target.push_str(PIECES[next(PIECES.len())]);
            }
            // Nothing is taken away here: a DELETE that hits would leave nothing to ask for.
            (["GET", "GET", "GET", "POST", "PUT"][next(5)], target)
        })
        .collect();
    let address = instance.address;
    let answers = stream::iter(targets)
        .map(|(method, target)| async move {
            let answer = ask(address, method, &target).await;
            (method, target, answer)
        })
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    let mut told = std::collections::BTreeMap::<u16, usize>::new();
    for (method, target, (status, body)) in answers {
        *told.entry(status).or_default() += 1;
        assert!(status < 500, "{method} {target}: {status} {body}");
        if status >= 400 {
            code(&target, status, &body);
        }
    }
    assert!(
        [200, 400, 404, 405]
            .iter()
            .all(|status| told.contains_key(status)),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_page_of_large_events_is_shorter_than_asked_for_and_goes_on() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    // Larger than a page, then three that share two.
    for (number, megabytes) in [(1, 5), (2, 2), (3, 1), (4, 2)] {
        let text = format!("{number}").repeat(megabytes << 20);
        let large = json!({"key": "a", "value": {"stringValue": text}});
        let span = json!({"traceId": TRACE, "spanId": format!("{number:016x}"), "name": "s", "startTimeUnixNano": "1800000000000000000", "attributes": [large]});
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
        post(&instance, "/v1/traces", &body).await;
    }
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/traces/{TRACE}/events?include=attributes&limit=1000{cursor}");
        let response = http().get(instance.url(&path)).send().await.unwrap();
        let page: Value = response.json().await.unwrap();
        let seqs = page["events"].as_array().unwrap().iter();
        pages.push(
            seqs.map(|event| event["seq"].as_u64().unwrap())
                .collect::<Vec<_>>(),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, [vec![1], vec![2, 3], vec![4]]);
}

/// A span that is sent again and again, large each time.
#[tokio::test]
async fn an_explanation_shows_what_holds_whole_and_of_the_rest_what_fits() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    for number in 1..=8 {
        let text = format!("{number}").repeat(1 << 20);
        let large = json!({"key": "a", "value": {"stringValue": text}});
        let mut span = json!({"traceId": TRACE, "spanId": SPAN, "name": "s", "startTimeUnixNano": "1800000000000000000", "attributes": [large]});
        if number == 3 {
            span["endTimeUnixNano"] = json!("1800000001000000000");
        }
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
        post(&instance, "/v1/traces", &body).await;
    }
    let path = format!("/traces/{TRACE}/spans/{SPAN}/why");
    let response = http().get(instance.url(&path)).send().await.unwrap();
    let why: Value = response.json().await.unwrap();
    let shown = why["observations"].as_array().unwrap().iter();
    let shown: Vec<_> = shown
        .map(|one| {
            let is_whole = one["attributes"]["a"]
                .as_str()
                .is_some_and(|a| a.len() == 1 << 20);
            let is_told = one["bytes_left_out"].as_u64().is_some_and(|n| n > 1 << 20);
            assert_ne!(is_whole, is_told);
            (
                one["seq"].as_u64().unwrap(),
                is_whole,
                one["holds"].as_bool().unwrap(),
            )
        })
        .collect();
    let whole: Vec<_> = shown.iter().filter(|one| one.1).map(|one| one.0).collect();
    assert_eq!(shown.len(), 8);
    assert!(
        whole.len() == 3 && whole.contains(&1) && whole.contains(&3),
        "{whole:?}"
    );
    assert!(shown.contains(&(3, true, true)), "{shown:?}");
}

/// A native event is kept as it was posted: its span's id may be written in many ways.
#[tokio::test]
async fn a_native_span_is_found_however_its_id_was_written() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let body = r#"[{"event_type":"a","span_id":"say \"hi\""},{"event_type":"b","span_id":"\u00fcber"},{"event_type":"c","span_id":"AB12"},{"event_type":"d","span_id":17}]"#;
    let sent = http().post(instance.url("/traces/t/events")).body(body);
    assert_eq!(sent.send().await.unwrap().status(), 200);
    for (id, event_type) in [
        ("say%20%22hi%22", "a"),
        ("%C3%BCber", "b"),
        ("AB12", "c"),
        ("17", "d"),
    ] {
        let target = format!("/traces/t/spans/{id}/why");
        let (status, body) = ask(instance.address, "GET", &target).await;
        assert_eq!(status, 200, "{target}: {body}");
        let why: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(why["native_events"][0]["event_type"], event_type);
    }
}
