//! What the dev server's own Python client sent of nineteen agents, and what that server answered: the same here, but for what is on purpose.
//!
//! `live/frames.jsonl` holds the frames as the client sent them (tests/peers/agentevals/scenarios.py has the agents), `live/answered.jsonl` the
//! answers of version 0.7.3. Every difference stands in [`CORRECTED`], and in docs/protocol.md with its reason.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tailspan_core::fold::State;
use tailspan_core::limits::Limits;
use tailspan_core::live::compat;
use tailspan_core::observed::Recorded;
use tailspan_core::otlp::{Encoding, decode_logs, decode_traces};

/// Scenario, turn and field, and what is answered here.
const CORRECTED: &[(&str, &str)] = &[
    // Parts of an answer follow one another without a space.
    ("adk[0].agentText", "There are a and b."),
    ("adk_ids[0].agentText", "There are a and b."),
    // The call that led to the answer is of its turn, although it has a span of its own.
    (
        "bare_calls[0].toolCalls",
        r#"[{"name":"find","args":{"k":"v"},"id":"x1"}]"#,
    ),
    (
        "bare_calls[0].toolResponses",
        r#"[{"name":"find","response":{"result":"found"},"id":"x1"}]"#,
    ),
    // What is counted is the turn's, not the session's.
    ("history[0].modelInfo.inputTokens", "30"),
    ("history[0].modelInfo.outputTokens", "6"),
    ("history[1].modelInfo.inputTokens", "30"),
    ("history[1].modelInfo.outputTokens", "6"),
    ("history[2].modelInfo.inputTokens", "20"),
    ("history[2].modelInfo.outputTokens", "4"),
    // A call that a model asked for and a tool ran is one call.
    (
        "langchain[0].toolCalls",
        r#"[{"name":"search","args":{"q":"France"},"id":"lc_1"}]"#,
    ),
    ("langchain[0].toolResponses[0].id", "lc_1"),
    // A list that Python printed is the list.
    ("logged_agent[0].modelInfo.finishReasons[0]", "stop"),
    ("logged_turns[0].modelInfo.finishReasons[0]", "stop"),
    ("logged_turns[0].modelInfo.inputTokens", "18"),
    ("logged_turns[0].modelInfo.outputTokens", "6"),
    // What a tool said is known from what the model was told.
    (
        "logged_turns[0].toolResponses",
        r#"[{"name":"roll_die","response":{"result":"4"},"id":"call_1"}]"#,
    ),
    ("logged_turns[1].modelInfo.finishReasons[0]", "stop"),
    ("logged_turns[1].modelInfo.inputTokens", "18"),
    ("logged_turns[1].modelInfo.outputTokens", "6"),
    (
        "logged_turns[1].toolResponses",
        r#"[{"name":"check_prime","response":{"result":"4"},"id":"call_2"}]"#,
    ),
    ("logged_turns_untimed[0].modelInfo.finishReasons[0]", "stop"),
    ("logged_turns_untimed[0].modelInfo.inputTokens", "18"),
    ("logged_turns_untimed[0].modelInfo.outputTokens", "6"),
    (
        "logged_turns_untimed[0].toolResponses",
        r#"[{"name":"roll_die","response":{"result":"4"},"id":"call_1"}]"#,
    ),
    ("logged_turns_untimed[1].modelInfo.finishReasons[0]", "stop"),
    ("logged_turns_untimed[1].modelInfo.inputTokens", "18"),
    ("logged_turns_untimed[1].modelInfo.outputTokens", "6"),
    (
        "logged_turns_untimed[1].toolResponses",
        r#"[{"name":"check_prime","response":{"result":"4"},"id":"call_2"}]"#,
    ),
    (
        "models[0].modelInfo.finishReasons",
        r#"["length","stop","tool_calls"]"#,
    ),
    (
        "models[0].toolResponses",
        r#"[{"name":"t","response":{"result":"x"},"id":"m1"}]"#,
    ),
    // A turn of which nothing was captured but its steps is a turn.
    (
        "no_content",
        r#"[{"invocationId":"genai-a112000000000001","userText":"","agentText":"","toolCalls":[{"name":"t","args":{},"id":"n1"}],"toolResponses":[],"modelInfo":{"models":["gpt-4o"],"inputTokens":5,"outputTokens":1,"provider":"openai"}}]"#,
    ),
    ("single_turn[0].modelInfo.finishReasons[0]", "stop"),
    ("single_turn[0].modelInfo.finishReasons[1]", "tool_calls"),
    // An agent's span repeats the counts of its calls.
    ("strands[0].modelInfo.inputTokens", "300"),
    ("strands[0].modelInfo.outputTokens", "30"),
    // The same question again is another turn.
    (
        "yes_twice",
        r#"[{"invocationId":"genai-a106000000000001","userText":"yes","agentText":"Step 1 is done.","toolCalls":[],"toolResponses":[],"modelInfo":{"models":["gpt-4o"],"provider":"openai"}},{"invocationId":"genai-a106000000000003","userText":"yes","agentText":"Step 2 is done.","toolCalls":[],"toolResponses":[],"modelInfo":{"models":["gpt-4o"],"provider":"openai"}}]"#,
    ),
];

/// The frames of a scenario as one trace.
fn state_of(frames: &[Value]) -> State {
    let mut state = State::default();
    for (at, frame) in frames.iter().enumerate() {
        let incoming = if let Some(span) = frame.get("span") {
            let mut span = span.clone();
            span["traceId"] = json!("ab".repeat(16));
            let scope = span["attributes"][0]["value"]["stringValue"].clone();
            let request = json!({"resourceSpans": [{"scopeSpans": [{"scope": {"name": scope}, "spans": [span]}]}]});
            decode_traces(
                Encoding::Json,
                request.to_string().as_bytes(),
                &Limits::default(),
            )
        } else {
            let log = &frame["log"];
            let record = json!({
                "traceId": "ab".repeat(16),
                "timeUnixNano": log["timestamp"].as_str().unwrap_or("0"),
                "eventName": log["event_name"],
                "body": any_value(&log["body"]),
            });
            let request = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
            decode_logs(
                Encoding::Json,
                request.to_string().as_bytes(),
                &Limits::default(),
            )
        };
        let incoming = incoming.unwrap();
        for item in incoming.traces.iter().flat_map(|(_, items)| items) {
            state.apply(&Recorded {
                seq: at as u64 + 1,
                arrived_unix_ms: 1_800_000_000_000 + at as u64,
                observation: item.observation(),
            });
        }
    }
    state
}

fn any_value(json: &Value) -> Value {
    match json {
        Value::Null => json!({}),
        Value::Bool(truth) => json!({ "boolValue": truth }),
        Value::Number(number) => json!({ "intValue": number }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => {
            let values: Vec<_> = items.iter().map(any_value).collect();
            json!({"arrayValue": {"values": values}})
        }
        Value::Object(fields) => {
            let values = fields
                .iter()
                .map(|(key, value)| json!({"key": key, "value": any_value(value)}));
            json!({"kvlistValue": {"values": values.collect::<Vec<_>>()}})
        }
    }
}

fn by_scenario(lines: &str, field: Option<&str>) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let known = all
            .entry(line["scenario"].as_str().unwrap().to_owned())
            .or_default();
        match field {
            Some(field) => known.extend(line[field].as_array().unwrap().iter().cloned()),
            None => known.push(line),
        }
    }
    all
}

fn told_of(scenario: &str) -> Vec<Value> {
    let frames = by_scenario(include_str!("live/frames.jsonl"), None);
    frames.get(scenario).unwrap().clone()
}

#[test]
fn every_turn_is_what_the_original_answered_but_for_what_is_on_purpose() {
    let frames = by_scenario(include_str!("live/frames.jsonl"), None);
    let answered = by_scenario(include_str!("live/answered.jsonl"), Some("invocations"));
    let mut differences = Vec::new();
    for (scenario, original) in &answered {
        let ours = compat::invocations(&state_of(frames.get(scenario).unwrap()));
        differing(scenario, &json!(original), &json!(ours), &mut differences);
    }
    let expected: Vec<(String, String)> = CORRECTED
        .iter()
        .map(|(path, ours)| ((*path).to_owned(), (*ours).to_owned()))
        .collect();
    assert_eq!(differences, expected, "{differences:#?}");
}

fn differing(path: &str, original: &Value, ours: &Value, into: &mut Vec<(String, String)>) {
    match (original, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned();
                let absent = || json!("(absent)");
                let (a, b) = (of(a).unwrap_or_else(absent), of(b).unwrap_or_else(absent));
                differing(&format!("{path}.{key}"), &a, &b, into);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differing(&format!("{path}[{at}]"), a, b, into);
            }
        }
        _ if original == ours => {}
        (_, Value::String(text)) => into.push((path.to_owned(), text.clone())),
        _ => into.push((path.to_owned(), ours.to_string())),
    }
}

/// (question, answer, names of the tools that were called) of every turn.
fn said(frames: &[Value]) -> Vec<(String, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    compat::invocations(&state_of(frames))
        .iter()
        .map(|turn| {
            let calls = turn["toolCalls"].as_array().unwrap();
            let names = calls.iter().map(|call| text(&call["name"])).collect();
            (text(&turn["userText"]), text(&turn["agentText"]), names)
        })
        .collect()
}

fn turn(question: &str, answer: &str, tools: &[&str]) -> (String, String, Vec<String>) {
    let tools = tools.iter().map(|name| (*name).to_owned()).collect();
    (question.to_owned(), answer.to_owned(), tools)
}

#[test]
fn records_without_a_span_are_of_the_call_at_their_time_in_whatever_order_they_come() {
    let turns = [
        turn("Roll a die", "Answer 1.", &["roll_die"]),
        turn("Is it prime?", "Answer 2.", &["check_prime"]),
    ];
    let frames = told_of("logged_turns");
    assert_eq!(said(&frames), turns);
    let reversed: Vec<Value> = frames.iter().rev().cloned().collect();
    assert_eq!(said(&reversed), turns, "the last first");
    let (logs, spans): (Vec<_>, Vec<_>) = frames
        .into_iter()
        .partition(|frame| frame.get("log").is_some());
    assert_eq!(
        said(&[logs.clone(), spans.clone()].concat()),
        turns,
        "records before spans"
    );
    assert_eq!(said(&[spans, logs].concat()), turns, "late records");
}

#[test]
fn records_without_a_span_or_a_time_are_of_the_call_that_follows() {
    let turns = [
        turn("Roll a die", "Answer 1.", &["roll_die"]),
        turn("Is it prime?", "Answer 2.", &["check_prime"]),
    ];
    let frames = told_of("logged_turns_untimed");
    assert_eq!(said(&frames), turns);
    let (logs, spans): (Vec<_>, Vec<_>) = frames
        .into_iter()
        .partition(|frame| frame.get("log").is_some());
    assert_eq!(
        said(&[logs, spans].concat()),
        turns,
        "all records before all spans"
    );
}

#[test]
fn what_is_said_in_a_call_is_known_before_its_span_comes() {
    let frames = told_of("logged_turns");
    let last_span = frames
        .iter()
        .rposition(|frame| frame.get("span").is_some())
        .unwrap();
    let turns = said(&frames[..last_span]);
    assert_eq!(
        turns.last().unwrap(),
        &turn("Is it prime?", "Answer 2.", &["check_prime"])
    );
}

#[test]
fn records_that_repeat_what_a_span_says_say_nothing_new() {
    let mut frames = told_of("yes_twice");
    let log = |name: &str, time_ms: u64, text: &str| {
        let time = (1_760_000_000_000 + time_ms) * 1_000_000;
        json!({"log": {"event_name": name, "timestamp": time.to_string(), "body": {"content": text}}})
    };
    // Within the first call, and long after the last.
    for at in [25, 5_000] {
        frames.push(log("gen_ai.user.message", at, "yes"));
        frames.push(log("gen_ai.choice", at + 1, "Step 1 is done."));
    }
    assert_eq!(
        said(&frames),
        [
            turn("yes", "Step 1 is done.", &[]),
            turn("yes", "Step 2 is done.", &[])
        ]
    );
}

/// A call of its own, in log records (`alone`: nobody's child) or with both messages on the span.
fn call(number: u64, parent: Option<u64>, attributes: &Value) -> Value {
    let pair = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let told = attributes.as_object().unwrap().iter();
    let mut pairs = vec![
        pair("otel.scope.name", "demo"),
        pair("gen_ai.request.model", "m"),
    ];
    pairs.extend(told.map(|(key, value)| pair(key, value.as_str().unwrap())));
    let (start, parent) = (number * 1_000, parent.map(|id| format!("{id:016x}")));
    json!({"span": {
        "spanId": format!("{number:016x}"), "parentSpanId": parent, "name": "chat m", "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": (start + 500).to_string(), "attributes": pairs, "status": {},
    }})
}

fn messages(input: &[(&str, &str)], output: &str) -> Value {
    let list: Vec<Value> = input
        .iter()
        .map(|(role, text)| json!({"role": role, "content": text}))
        .collect();
    let output = json!([{"role": "assistant", "content": output}]);
    json!({"gen_ai.input.messages": json!(list).to_string(), "gen_ai.output.messages": output.to_string()})
}

#[test]
fn the_same_question_again_is_another_turn() {
    // With the history, and by a client that shows none.
    let with_history = [
        call(1, None, &messages(&[("user", "yes")], "One.")),
        call(
            2,
            None,
            &messages(
                &[("user", "yes"), ("assistant", "One."), ("user", "yes")],
                "Two.",
            ),
        ),
    ];
    let without = [
        call(1, None, &messages(&[("user", "yes")], "One.")),
        call(2, None, &messages(&[("user", "yes")], "Two.")),
    ];
    let turns = [turn("yes", "One.", &[]), turn("yes", "Two.", &[])];
    assert_eq!(said(&with_history), turns);
    assert_eq!(said(&without), turns);
}

#[test]
fn a_turn_may_be_several_traces_of_a_session() {
    let turns = [
        ("Roll a die", "Answer 1.", 1),
        ("Is it prime?", "Answer 2.", 1),
    ];
    // Every call is a trace: four spans, each with the records that came before it.
    let frames = told_of("logged_turns");
    let mut traces = Vec::new();
    let mut begun = Vec::new();
    for frame in frames {
        let is_span = frame.get("span").is_some();
        begun.push(frame);
        if is_span {
            traces.push(state_of(&std::mem::take(&mut begun)));
        }
    }
    assert_eq!(traces.len(), 4);
    let said: Vec<Value> = compat::of_session(&traces);
    let said: Vec<_> = said
        .iter()
        .map(|turn| {
            let calls = turn["toolCalls"].as_array().unwrap().len();
            (
                turn["userText"].as_str().unwrap(),
                turn["agentText"].as_str().unwrap(),
                calls,
            )
        })
        .collect();
    assert_eq!(said, turns);
}

#[test]
fn answers_may_be_told_as_messages_of_the_assistant() {
    let log = |name: &str, time: u64, body: Value| json!({"log": {"event_name": name, "timestamp": time.to_string(), "body": body}});
    let wanted =
        json!([{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]);
    let frames = [
        call(1, None, &json!({})),
        log("gen_ai.user.message", 1_100, json!({"content": "Look!"})),
        log(
            "gen_ai.assistant.message",
            1_200,
            json!({"tool_calls": wanted}),
        ),
        log(
            "gen_ai.tool.message",
            1_300,
            json!({"id": "c", "content": "nothing"}),
        ),
        log(
            "gen_ai.assistant.message",
            1_400,
            json!({"content": "Nothing."}),
        ),
    ];
    assert_eq!(said(&frames), [turn("Look!", "Nothing.", &["look"])]);
    let turns = compat::invocations(&state_of(&frames));
    assert_eq!(
        turns[0]["toolResponses"][0]["response"],
        json!({"result": "nothing"})
    );
}

#[test]
fn an_eval_case_is_made_of_turns() {
    let turns = tailspan_core::invocations::invocations(&state_of(&told_of("single_turn")));
    let case = compat::eval_invocation(&turns[0]);
    assert_eq!(
        case,
        json!({
            "invocation_id": "genai-a101000000000001",
            "user_content": {"parts": [{"text": "Roll a d20"}], "role": "user"},
            "final_response": {"parts": [{"text": "You rolled 13."}], "role": "model"},
            "intermediate_data": {
                "tool_uses": [{"id": "call_1", "args": {"sides": 20}, "name": "roll_die"}],
                "tool_responses": [{"id": "call_1", "name": "roll_die", "response": {"result": 13}}],
                "intermediate_responses": [],
            },
        })
    );
}

/// 1,000 turns of nine spans with all their history: an agent, four model calls, four tools.
#[test]
fn many_turns_are_read_in_linear_time() {
    let frames = |turns: u64| {
        let mut frames = Vec::new();
        for turn in 0..turns {
            let first = turn * 10 + 1;
            let root = json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"});
            frames.push(call(first, None, &root));
            for step in 0..4 {
                let asked = format!("Question {turn}");
                frames.push(call(
                    first + 1 + step * 2,
                    Some(first),
                    &messages(&[("user", &asked)], &format!("Answer {turn}.{step}")),
                ));
                let tool = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t", "gen_ai.tool.call.id": format!("c{turn}.{step}"),
                    "gen_ai.tool.call.arguments": "{\"n\": 1}", "gen_ai.tool.call.result": "done"});
                frames.push(call(first + 2 + step * 2, Some(first), &tool));
            }
        }
        frames
    };
    let state = state_of(&frames(1_000));
    let begun = std::time::Instant::now();
    let turns = compat::invocations(&state);
    println!("1,000 turns of 9,000 spans: {:?}", begun.elapsed());
    assert_eq!(turns.len(), 1_000);
    assert_eq!(turns[999]["userText"], "Question 999");
    assert_eq!(turns[999]["toolCalls"].as_array().unwrap().len(), 4);
}
