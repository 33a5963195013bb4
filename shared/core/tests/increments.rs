//! What is told of a run event by event against what is said of it as a whole, on real exports.
//!
//! The recordings lie outside the repository (`TAILSPAN_CORPUS`, else `../shared/corpus` beside it); without them there is nothing to check, and the test says so.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailspan_core::{
    convention,
    fold::State,
    id::TraceId,
    invocations::invocations,
    limits::Limits,
    live::incremental::{Extractor, Told},
    observed::{Incoming, Recorded, What},
    otlp::{Encoding, decode_logs, decode_traces, inflate},
};

fn scenarios() -> Option<Vec<PathBuf>> {
    let folder = std::env::var("TAILSPAN_CORPUS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus").to_owned()
    });
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("no corpus at {folder}: skipped");
        return None;
    };
    let mut scenarios: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("truth.json").exists())
        .collect();
    scenarios.sort();
    Some(scenarios)
}

fn traces(scenario: &Path) -> Vec<(TraceId, Vec<Incoming>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(scenario.join("requests"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let about: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let header = |wanted: &str| {
            about["headers"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(wanted))
                .find_map(|header| header[1].as_str())
        };
        let body = std::fs::read(file.with_extension("body")).unwrap();
        let body = inflate(header("content-encoding"), &body, 16 << 20).unwrap();
        let encoding = Encoding::of(header("content-type"), &body).unwrap();
        let limits = Limits::default();
        match about["path"].as_str().unwrap() {
            "/v1/traces" => all.extend(decode_traces(encoding, &body, &limits).unwrap().traces),
            "/v1/logs" => all.extend(decode_logs(encoding, &body, &limits).unwrap().traces),
            _ => {}
        }
    }
    all
}

#[derive(Default)]
struct Said {
    user: Vec<String>,
    agent: Vec<String>,
    calls: Vec<(String, String)>,
    results: usize,
    input: u64,
    output: u64,
}

fn recorded(seq: u64, item: &Incoming) -> Recorded {
    Recorded {
        seq,
        arrived_unix_ms: 1_800_000_000_000 + seq,
        observation: item.observation(),
    }
}

fn print(trace: &TraceId, recorded: &Recorded) {
    let observation = &recorded.observation;
    let line = match &observation.what {
        What::Span(span) => {
            let read = convention::read_span(span, &observation.context);
            let parent = read.parent_id.unwrap_or_default();
            format!("{:?} {} under {parent}: {}", read.kind, read.id, read.name)
        }
        What::Log(record) => {
            let read = convention::read_log(record, &observation.context);
            let messages = (read.input.len(), read.output.len());
            format!(
                "log {:?} of {:?} {messages:?}",
                read.event_name, read.span_id
            )
        }
        What::Native(text) => text.to_string(),
    };
    println!("{} {line}", trace.as_str());
}

/// (event by event, as a whole)
fn say(traces: &[(TraceId, Vec<Incoming>)]) -> (Said, Said) {
    let mut by_trace: BTreeMap<&str, (Extractor, State)> = BTreeMap::new();
    let mut live = Said::default();
    for (trace, incoming) in traces {
        let (extractor, state) = by_trace.entry(trace.as_str()).or_default();
        for item in incoming {
            let recorded = recorded(state.events + 1, item);
            state.apply(&recorded);
            if std::env::var_os("SCENARIO").is_some() {
                print(trace, &recorded);
            }
            for increment in extractor.apply(&recorded) {
                if std::env::var_os("SCENARIO").is_some() {
                    println!("        {increment:?}");
                }
                add(&mut live, increment.what);
            }
        }
    }
    let mut whole = Said::default();
    for (extractor, state) in by_trace.values_mut() {
        for increment in extractor.finish() {
            add(&mut live, increment.what);
        }
        for turn in invocations(state) {
            whole.user.push(turn.user_text);
            whole.agent.push(turn.agent_text);
            whole.input += turn.model_info.input_tokens;
            whole.output += turn.model_info.output_tokens;
            for call in turn.tool_calls {
                whole.calls.push((call.name, call.args.to_string()));
            }
        }
    }
    (live, whole)
}

fn add(said: &mut Said, told: Told) {
    match told {
        Told::UserInput { text, .. } => said.user.push(text),
        Told::AgentResponse { text, .. } => said.agent.push(text),
        Told::ToolCall { name, args, .. } => said.calls.push((name, args.to_string())),
        Told::ToolResult { .. } => said.results += 1,
        Told::Tokens { input, output, .. } => {
            said.input += input;
            said.output += output;
        }
    }
}

/// What is in one and not in the other, as often as it is there.
fn beyond<T: Ord + Clone>(some: &[T], others: &[T]) -> Vec<T> {
    let mut left: Vec<T> = others.to_vec();
    let mut more = Vec::new();
    for item in some {
        match left.iter().position(|other| other == item) {
            Some(at) => drop(left.swap_remove(at)),
            None => more.push(item.clone()),
        }
    }
    more
}

fn trimmed(texts: &[String]) -> Vec<String> {
    let texts = texts.iter().map(|text| text.trim().to_owned());
    texts.filter(|text| !text.is_empty()).collect()
}

/// What the whole says and an event after the other does not, and why.
const UNTOLD: &[(&str, &str)] = &[
    // The server that ran the tool tells of it before the client that knows with what it was called.
    ("mcp-oi-http calls", r#"roll_die {"sides":20}"#),
    ("mcp-oi-stdio calls", r#"roll_die {"sides":20}"#),
    ("mcp-oi-stdio calls", r#"check_prime {"n":17}"#),
    (
        "mcp-oi-stdio calls",
        r#"read_sensor {"sensor_id":"th-404"}"#,
    ),
    // A tool loop of bare calls, each a trace and so a turn of its own: the second is shown the question again, and nobody asked it again.
    ("openai-v2-error user", "Read the sensor th-404."),
    ("openai-v2-latest user", "Roll two dice."),
    ("openai-v2-old user", "Roll two dice."),
];

#[test]
fn what_was_told_event_by_event_is_what_the_whole_says() {
    let Some(scenarios) = scenarios() else { return };
    let only = std::env::var("SCENARIO").ok();
    let mut wrong: BTreeSet<String> = BTreeSet::new();
    println!(
        "{:34}{:>12}{:>12}{:>12}{:>14}",
        "scenario", "user", "agent", "calls", "tokens"
    );
    for scenario in &scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (live, whole) = say(&traces(scenario));
        let mut row = format!("{name:34}");
        let pairs = [
            (trimmed(&live.user), trimmed(&whole.user), "user"),
            (trimmed(&live.agent), trimmed(&whole.agent), "agent"),
            (names(&live.calls), names(&whole.calls), "calls"),
        ];
        for (live, whole, about) in &pairs {
            let (missing, more) = (beyond(whole, live), beyond(live, whole));
            row.push_str(&format!(
                "{:>12}",
                format!("{} -{} +{}", whole.len(), missing.len(), more.len())
            ));
            if only.is_some() {
                println!("{about}: missing {missing:#?} more {more:#?}");
            }
            for missing in missing {
                let of = format!("{name} {about}");
                if !UNTOLD.contains(&(of.as_str(), missing.as_str())) {
                    wrong.insert(format!("{of}: {missing}"));
                }
            }
        }
        let tokens = format!(
            "{:+} {:+}",
            live.input as i64 - whole.input as i64,
            live.output as i64 - whole.output as i64
        );
        println!("{row}{tokens:>14}");
        if tokens != "+0 +0" {
            wrong.insert(format!("{name} tokens: {tokens}"));
        }
        if live.calls.len() != whole.calls.len() {
            wrong.insert(format!("{name}: {} calls", live.calls.len()));
        }
        // A call has one result at most.
        if live.results > live.calls.len() {
            wrong.insert(format!("{name}: {} results", live.results));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn names(calls: &[(String, String)]) -> Vec<String> {
    let calls = calls.iter();
    calls.map(|(name, args)| format!("{name} {args}")).collect()
}
