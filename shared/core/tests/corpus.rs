//! Real exports against what really happened: the fold tells the truth of every recorded scenario, in any order of arrival.
//!
//! The recordings lie outside the repository (`TAILSPAN_CORPUS`, else `../shared/corpus` beside it); without them there is nothing to
//! check, and the test says so. `scripts/corpus` asks a running server the same questions.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tailspan_core::{
    analysis::{Asked, Thresholds, analyze},
    convention,
    fold::{State, decode_snapshot, encode_snapshot},
    id::{TenantId, TraceId},
    invocations::invocations,
    limits::Limits,
    lower::lower,
    model::Kind,
    observed::{Canonical, Incoming, Recorded, What},
    otlp::{Encoding, decode_logs, decode_traces, inflate},
    pricing::Prices,
    redact::Redactor,
    settle,
    stats::History,
    summary::summary,
    tree,
    verbosity::Verbosity,
    wire::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
};

/// Everything is told without the messages on spans. OpenLLMetry, for one, does not name the tools of hand-offs then.
fn content_may_stand_in_logs(scenario: &str) -> bool {
    scenario.starts_with("adk")
        || scenario.contains("-oi-")
        || scenario.ends_with("-oi")
        || scenario.starts_with("openai-v2")
}

/// Tokens that the provider counted but no export tells, by the corpus's own account (`tok(llm/all/true)`).
const TOKENS_SENT: &[(&str, u64, u64)] = &[
    // The server answered a call that its client had given up.
    ("openai-v2-error", 160, 27),
    // Streams without counts.
    ("llamaindex-stream", 0, 0),
    // Only the tools are instrumented.
    ("mcp-tl-stdio", 0, 0),
];

/// Errors of the truth that no export tells although the truth does not mark them hidden.
const ERRORS_UNSENT: &[(&str, usize)] = &[
    // A stream that its reader abandoned has log records and no span.
    ("openai-v2-error", 1),
];

#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Right,
    NotSent,
    Wrong,
}

struct Told {
    agents: Vec<String>,
    tool_calls: Vec<(String, String)>,
    models: BTreeSet<String>,
    input_tokens: u64,
    output_tokens: u64,
    user: Vec<String>,
    agent: Vec<String>,
    errors: usize,
    error_lines: Vec<String>,
    sessions: BTreeSet<String>,
    statuses: Vec<String>,
    llm_calls: usize,
}

/// What another exporter would have sent of the same run.
type Change = fn(&mut What);

fn attributes_of(what: &mut What) -> &mut Vec<KeyValue> {
    match what {
        What::Span(span) => &mut Arc::make_mut(span).attributes,
        What::Log(log) => &mut Arc::make_mut(log).attributes,
        What::Native(_) => unreachable!("the corpus has none"),
    }
}

/// Content in log records only (`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=EVENT_ONLY`).
fn content_in_logs_only(what: &mut What) {
    if let What::Span(span) = what {
        Arc::make_mut(span).attributes.retain(|pair| {
            ![
                "gen_ai.input.messages",
                "gen_ai.output.messages",
                "gen_ai.system_instructions",
            ]
            .contains(&pair.key.as_str())
        });
    }
}

/// JSON text as the structure that it spells.
fn structured(what: &mut What) {
    for pair in attributes_of(what) {
        let Some(AnyValue {
            value: Some(any_value::Value::String(text)),
        }) = &pair.value
        else {
            continue;
        };
        if let Ok(json @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(text) {
            pair.value = Some(of_json(&json));
        }
    }
}

fn of_json(json: &Value) -> AnyValue {
    let value = match json {
        Value::Null => None,
        Value::Bool(truth) => Some(any_value::Value::Bool(*truth)),
        Value::Number(number) => Some(number.as_i64().map_or_else(
            || any_value::Value::Double(number.as_f64().unwrap()),
            any_value::Value::Int,
        )),
        Value::String(text) => Some(any_value::Value::String(text.as_str().into())),
        Value::Array(items) => Some(any_value::Value::Array(ArrayValue {
            values: items.iter().map(of_json).collect(),
        })),
        Value::Object(object) => Some(any_value::Value::Map(KeyValueList {
            values: object
                .iter()
                .map(|(key, value)| KeyValue {
                    key: key.as_str().into(),
                    value: Some(of_json(value)),
                })
                .collect(),
        })),
    };
    AnyValue { value }
}

/// Numbers as digits: an exporter that knows only strings.
fn numbers_as_text(what: &mut What) {
    for pair in attributes_of(what) {
        if let Some(AnyValue {
            value: Some(any_value::Value::Int(number)),
        }) = &pair.value
        {
            pair.value = Some(AnyValue {
                value: Some(any_value::Value::String(number.to_string().into())),
            });
        }
    }
}

/// What the dev server's Python client makes of a run: lists as Python prints them, of span events two attributes, records without their span.
fn as_the_dev_servers_client(what: &mut What) {
    match what {
        What::Span(span) => {
            let span = Arc::make_mut(span);
            for event in std::mem::take(&mut span.events) {
                for pair in event.attributes {
                    let is_promoted = ["gen_ai.input.messages", "gen_ai.output.messages"]
                        .contains(&pair.key.as_str());
                    if is_promoted && span.attributes.iter().all(|known| known.key != pair.key) {
                        span.attributes.push(pair);
                    }
                }
            }
            span.links.clear();
        }
        What::Log(log) => Arc::make_mut(log).span_id = Default::default(),
        What::Native(_) => {}
    }
    let What::Span(span) = what else { return };
    for pair in &mut Arc::make_mut(span).attributes {
        let Some(AnyValue {
            value: Some(any_value::Value::Array(list)),
        }) = &pair.value
        else {
            continue;
        };
        let items = list.values.iter().map(|item| match &item.value {
            Some(any_value::Value::String(text)) => format!("'{text}', "),
            other => format!("{other:?}, "),
        });
        let printed = format!("({})", items.collect::<String>());
        pair.value = Some(AnyValue {
            value: Some(any_value::Value::String(printed.into())),
        });
    }
}

/// The older names of tokens, provider and cache.
fn older_names(what: &mut What) {
    for pair in attributes_of(what) {
        let older = match pair.key.as_str() {
            "gen_ai.usage.input_tokens" => "gen_ai.usage.prompt_tokens",
            "gen_ai.usage.output_tokens" => "gen_ai.usage.completion_tokens",
            "gen_ai.provider.name" => "gen_ai.system",
            "gen_ai.conversation.id" => "session.id",
            _ => continue,
        };
        pair.key = older.into();
    }
}

#[test]
fn other_exporters_of_the_same_runs_are_read_as_well() {
    let Some(scenarios) = scenarios() else { return };
    let changes: [(&str, Change); 5] = [
        ("as the dev server's client", as_the_dev_servers_client),
        ("content in logs only", content_in_logs_only),
        ("structured", structured),
        ("numbers as text", numbers_as_text),
        ("older names", older_names),
    ];
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        let truth: Value =
            serde_json::from_slice(&std::fs::read(scenario.join("truth.json")).unwrap()).unwrap();
        for (about, change) in changes {
            if about == "content in logs only" && !content_may_stand_in_logs(&name) {
                continue;
            }
            let mut requests = requests(scenario);
            for (_, incoming) in requests.iter_mut().flatten() {
                for item in incoming {
                    let mut what = item.what.read();
                    change(&mut what);
                    item.what = Canonical::from(&what);
                }
            }
            let haystack = haystack(&requests);
            let cells = judge(&name, &truth, &tell(&requests, "forward"), &haystack);
            let bad: Vec<&str> = cells
                .iter()
                .filter(|(_, cell)| *cell == Cell::Wrong)
                .map(|(field, _)| *field)
                // Of exceptions that client sends nothing.
                .filter(|field| *field != "errors" || about != "as the dev server's client")
                .collect();
            if !bad.is_empty() {
                wrong.push(format!("{name}, {about}: {bad:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is left of a run that is recorded with less: the same steps, names, counts and outcomes, and nothing of what was said.
#[test]
fn a_run_that_is_recorded_with_less_is_the_same_but_for_what_was_said() {
    let Some(scenarios) = scenarios() else { return };
    let only = std::env::var("SCENARIO").ok();
    let mut wrong = BTreeSet::new();
    for scenario in scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let requests = requests(&scenario);
        let fold = |level: Verbosity| {
            let mut states: BTreeMap<TraceId, State> = BTreeMap::new();
            for (trace, incoming) in requests.iter().flatten() {
                let state = states.entry(trace.clone()).or_default();
                for item in lower(&incoming.iter().collect::<Vec<_>>(), level) {
                    state.apply(&Recorded {
                        seq: state.events + 1,
                        arrived_unix_ms: 1_800_000_000_000,
                        observation: item.observation(),
                    });
                }
            }
            states
        };
        let whole = fold(Verbosity::Debug);
        for level in [Verbosity::Detailed, Verbosity::Standard, Verbosity::Minimal] {
            for (trace, state) in fold(level) {
                let facts = |state: &State| {
                    let prices = Prices::builtin();
                    let mut told = summary(state, "t", settle::standing(state), &prices);
                    for error in &mut told.errors {
                        error.message = String::new();
                    }
                    told.trace_level = Verbosity::Debug;
                    told.content_recorded = true;
                    let summary = serde_json::to_value(told).unwrap();
                    let rows: Vec<_> = tree::rows(state, &prices)
                        .into_iter()
                        .map(|row| {
                            json!([
                                row.span_id,
                                row.parent_span_id,
                                row.kind,
                                row.agent_name,
                                row.status,
                                row.model
                            ])
                        })
                        .collect();
                    (summary, rows)
                };
                let ((before, rows), (now, left)) = (facts(&whole[&trace]), facts(&state));
                assert_eq!(state.trace_level(), level);
                for (field, value) in before.as_object().unwrap() {
                    if now.get(field) != Some(value) {
                        wrong.insert(format!(
                            "{name} {level} {field}: {value} is now {}",
                            now[field]
                        ));
                    }
                }
                for (before, now) in rows.iter().zip(&left) {
                    if before != now {
                        wrong.insert(format!("{name} {level}: {before} is now {now}"));
                    }
                }
            }
        }
        for (_, incoming) in requests.iter().flatten() {
            for item in incoming {
                let left = lower(&[item], Verbosity::Standard);
                let left = String::from_utf8_lossy(bytes_of(&left[0].what)).into_owned();
                for said in said(item) {
                    if left.contains(&said) {
                        wrong.insert(format!("{name}: {said:?} is still there in {left:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_of_a_recorded_run_is_taken_for_a_secret() {
    let Some(scenarios) = scenarios() else {
        return;
    };
    let (redactor, tenant) = (Redactor::default(), TenantId::default());
    let mut wrong = BTreeSet::new();
    for scenario in scenarios {
        for (_, incoming) in requests(&scenario).into_iter().flatten() {
            let cleaned = redactor.clean(&tenant, incoming.clone());
            for (before, after) in incoming.iter().zip(&cleaned.events) {
                if **after != *before {
                    let text = String::from_utf8_lossy(bytes_of(&after.what)).into_owned();
                    let at = text.find("[redacted]").unwrap_or_default();
                    let from = text.floor_char_boundary(at.saturating_sub(120));
                    let to = text.ceil_char_boundary((at + 60).min(text.len()));
                    wrong.insert(format!("{}: {}", scenario.display(), &text[from..to]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn bytes_of(what: &Canonical) -> &[u8] {
    match what {
        Canonical::Span(span) => span,
        Canonical::Log(bytes) => bytes,
        Canonical::Native(text) => text.as_bytes(),
    }
}

/// Sentences that went in or came out of a step.
fn said(item: &Incoming) -> Vec<String> {
    fn texts(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::String(text) => into.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
            Value::Object(fields) => fields.values().for_each(|item| texts(item, into)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    let mut error = String::new();
    let messages = match item.what.read() {
        What::Span(span) => {
            let read = convention::read_span(&span, &item.context);
            error = read.failure.unwrap_or_default().message;
            let tool = read.tool.unwrap_or_default();
            let values = [
                read.input_value,
                read.output_value,
                tool.arguments,
                tool.result,
            ];
            values
                .iter()
                .flatten()
                .for_each(|value| texts(value, &mut all));
            [read.input, read.output].concat()
        }
        What::Log(record) => {
            let read = convention::read_log(&record, &item.context);
            [read.input, read.output].concat()
        }
        What::Native(_) => Vec::new(),
    };
    for message in messages {
        all.push(message.text);
        all.extend(message.thinking);
        message
            .tool_calls
            .iter()
            .for_each(|call| texts(&call.arguments, &mut all));
    }
    // A word may be a name too; a sentence has spaces.
    all.retain(|text| {
        text.len() > 16 && text.trim().contains(' ') && !error.contains(text.as_str())
    });
    all
}

/// Tools that are not instrumented are known from what the models asked for.
#[test]
fn tool_calls_are_known_without_tool_spans() {
    let Some(scenarios) = scenarios() else { return };
    let mut wrong = Vec::new();
    for scenario in scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        let truth: Value =
            serde_json::from_slice(&std::fs::read(scenario.join("truth.json")).unwrap()).unwrap();
        let mut requests = requests(&scenario);
        for (_, incoming) in requests.iter_mut().flatten() {
            incoming.retain(|item| match item.what.read() {
                What::Span(span) => {
                    let read = convention::read_span(&span, &item.context);
                    read.kind != Kind::Tool
                }
                _ => true,
            });
        }
        let haystack = haystack(&requests);
        let cells = judge(&name, &truth, &tell(&requests, "forward"), &haystack);
        let about = ["tools", "args", "models", "input", "output", "calls"];
        let bad: Vec<&str> = cells
            .iter()
            .filter(|(field, cell)| *cell == Cell::Wrong && about.contains(field))
            .map(|(field, _)| *field)
            .collect();
        let no_content = cells
            .iter()
            .any(|(field, cell)| *field == "args" && *cell == Cell::NotSent);
        if !bad.is_empty() && !no_content {
            wrong.push(format!("{name}: {bad:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Producers that use a session's id as the trace's put all turns into one trace.
#[test]
fn a_session_in_one_trace_has_the_same_turns() {
    let Some(scenarios) = scenarios() else { return };
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        let truth: Value =
            serde_json::from_slice(&std::fs::read(scenario.join("truth.json")).unwrap()).unwrap();
        // The same question again after a call that failed, and no history: nothing tells a new turn from a second try.
        if name == "openai-v2-error" {
            continue;
        }
        let session = TraceId::parse("session-7").unwrap();
        let requests: Vec<Batch> = requests(scenario)
            .into_iter()
            .map(|batch| {
                batch
                    .into_iter()
                    .map(|(_, incoming)| (session.clone(), incoming))
                    .collect()
            })
            .collect();
        let told = tell(&requests, "forward");
        let cells = judge(&name, &truth, &told, &haystack(&requests));
        // Which of several runs in a trace failed is told by each run's end, not by the trace.
        let bad: Vec<&str> = cells
            .iter()
            .filter(|(field, cell)| *cell == Cell::Wrong && *field != "status")
            .map(|(field, _)| *field)
            .collect();
        if !bad.is_empty() {
            print(&told, &truth);
            wrong.push(format!("{name}: {bad:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

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

/// What the analysis says of each run (`SCENARIO=name` and `--no-capture` show it): failures where the truth has some, and none where it has not.
#[test]
fn the_analysis_remarks_on_what_happened() {
    let Some(scenarios) = scenarios() else { return };
    let only = std::env::var("SCENARIO").ok();
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let truth: Value =
            serde_json::from_slice(&std::fs::read(scenario.join("truth.json")).unwrap()).unwrap();
        let mut states: BTreeMap<TraceId, State> = BTreeMap::new();
        for (trace, incoming) in requests(scenario).into_iter().flatten() {
            let state = states.entry(trace).or_default();
            for item in incoming {
                state.apply(&Recorded {
                    seq: state.events + 1,
                    arrived_unix_ms: 1_800_000_000_000,
                    observation: item.observation(),
                });
            }
        }
        let mut causes = 0;
        for (trace, state) in &states {
            let asked = Asked {
                status: settle::standing(state),
                now_unix_ms: 1_800_000_010_000,
                thresholds: &Thresholds::default(),
                history: &History::default(),
                prices: &Prices::builtin(),
            };
            let analysis = analyze(state, trace.as_str(), &asked);
            println!(
                "{name} {trace}: {} {} ms, {:?}, {:?}",
                analysis.status, analysis.duration_ms, analysis.time, analysis.parallelism
            );
            if only.is_some() {
                for step in &analysis.critical_path {
                    println!(
                        "    {:8.3} of {:8.3} ms {:10} {}",
                        step.path_ms, step.duration_ms, step.kind, step.name
                    );
                }
            }
            for finding in &analysis.findings {
                let class = finding.class.as_str();
                println!("  {class} {:?} {}", finding.severity, finding.message);
                println!(
                    "      {} {}",
                    finding.recommendation,
                    Value::Object(finding.numbers.clone())
                );
                causes += usize::from(class == "root_cause_error" || class == "retry");
            }
            let sum: f64 = analysis.critical_path.iter().map(|step| step.path_ms).sum();
            assert!(
                sum <= analysis.duration_ms + 0.1,
                "{name}: {sum} of {}",
                analysis.duration_ms
            );
        }
        let has_errors = truth["errors"].as_u64() > Some(0);
        if (causes > 0) != has_errors {
            wrong.push(format!(
                "{name}: {causes} causes, truth {}",
                truth["errors"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_fold_tells_what_happened() {
    let Some(scenarios) = scenarios() else { return };
    let only = std::env::var("SCENARIO").ok();
    let mut wrong = Vec::new();
    println!(
        "{:32} {}",
        "scenario",
        [
            "agents", "tools", "args", "models", "input", "output", "user", "answer", "errors",
            "session", "status", "calls"
        ]
        .map(|name| format!("{name:>8}"))
        .join("")
    );
    for scenario in &scenarios {
        let name = scenario.file_name().unwrap().to_str().unwrap().to_owned();
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let truth: Value =
            serde_json::from_slice(&std::fs::read(scenario.join("truth.json")).unwrap()).unwrap();
        let requests = requests(scenario);
        let haystack = haystack(&requests);
        for order in ["forward", "reverse", "twice"] {
            let told = tell(&requests, order);
            let cells = judge(&name, &truth, &told, &haystack);
            let line: String = cells
                .iter()
                .map(|(_, cell)| match cell {
                    Cell::Right => "      ok".to_owned(),
                    Cell::NotSent => "       -".to_owned(),
                    Cell::Wrong => "   WRONG".to_owned(),
                })
                .collect();
            if order == "forward" {
                println!("{name:32} {line}");
            }
            let bad: Vec<&str> = cells
                .iter()
                .filter(|(_, cell)| *cell == Cell::Wrong)
                .map(|(field, _)| *field)
                .collect();
            if !bad.is_empty() {
                println!("    {order} {bad:?}");
                if only.is_some() {
                    print(&told, &truth);
                }
                wrong.push(format!("{name} {order} {bad:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn print(told: &Told, truth: &Value) {
    println!("      agents {:?} / {}", told.agents, truth["agents"]);
    println!("      tools {:?}", told.tool_calls);
    println!("        truth {:?}", true_calls(truth));
    println!("      models {:?} / {}", told.models, truth["models"]);
    println!(
        "      tokens {}+{} / {}+{}",
        told.input_tokens, told.output_tokens, truth["input_tokens"], truth["output_tokens"]
    );
    println!("      user {:?} / {}", told.user, truth["user_text"]);
    println!("      answer {:?} / {}", told.agent, truth["agent_text"]);
    println!(
        "      errors {:?} / {}",
        told.error_lines, truth["error_list"]
    );
    println!("      sessions {:?} / {}", told.sessions, truth["sessions"]);
    println!(
        "      statuses {:?}, {} calls / {}+{}",
        told.statuses, told.llm_calls, truth["llm_calls_ok"], truth["llm_http_errors"]
    );
}

type Batch = Vec<(TraceId, Vec<Incoming>)>;

fn requests(scenario: &Path) -> Vec<Batch> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(scenario.join("requests"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| {
            let about: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
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
                "/v1/traces" => Some(decode_traces(encoding, &body, &limits).unwrap().traces),
                "/v1/logs" => Some(decode_logs(encoding, &body, &limits).unwrap().traces),
                _ => None,
            }
        })
        .collect()
}

/// Everything that was sent, as text, to tell "wrong" from "not sent".
struct Haystack {
    text: String,
    /// Letters and digits only: spelling of quotes, escapes and dashes aside.
    plain: String,
}

fn haystack(requests: &[Batch]) -> Haystack {
    let mut text = String::new();
    for (_, incoming) in requests.iter().flatten() {
        for item in incoming {
            let what = item.what.read();
            let (list, events, more) = match &what {
                What::Span(span) => (
                    &span.attributes,
                    span.events
                        .iter()
                        .map(|event| {
                            tailspan_core::attributes::list_to_json(&event.attributes).to_string()
                        })
                        .collect(),
                    span.name.clone(),
                ),
                What::Log(log) => (
                    &log.attributes,
                    String::new(),
                    log.body
                        .as_ref()
                        .map(|body| tailspan_core::attributes::to_json(body).to_string())
                        .unwrap_or_default(),
                ),
                What::Native(_) => continue,
            };
            text.push_str(&tailspan_core::attributes::list_to_json(list).to_string());
            text.push_str(&events);
            text.push_str(&more);
            text.push('\n');
        }
    }
    // JSON within JSON within JSON: take the escapes off, and the ASCII-only spelling of other letters.
    for _ in 0..4 {
        text = text.replace("\\\"", "\"").replace("\\\\", "\\");
    }
    let text = text.replace("\\n", "\n");
    Haystack {
        plain: plain(&text),
        text,
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric()).collect()
}

fn was_sent(haystack: &Haystack, text: &str) -> bool {
    let Some(part) = text
        .split(|c: char| !c.is_ascii())
        .max_by_key(|part| part.len())
    else {
        return true;
    };
    haystack.plain.contains(&plain(part))
}

/// Folds every trace apart, as the product does, in one order of arrival, and joins the traces by time.
fn tell(requests: &[Batch], order: &str) -> Told {
    let mut sent: Vec<&Batch> = requests.iter().collect();
    match order {
        "reverse" => sent.reverse(),
        "twice" => sent = sent.iter().flat_map(|batch| [*batch, *batch]).collect(),
        _ => {}
    }
    let mut states: BTreeMap<String, (State, HashSet<i64>)> = BTreeMap::new();
    let mut arrived = 1_800_000_000_000;
    for (trace, incoming) in sent.into_iter().flatten() {
        let (state, seen) = states.entry(trace.as_str().to_owned()).or_default();
        for item in incoming {
            arrived += 1;
            if item.identity.is_some_and(|identity| !seen.insert(identity)) {
                continue;
            }
            state.apply(&Recorded {
                seq: state.events + 1,
                arrived_unix_ms: arrived,
                observation: item.observation(),
            });
        }
    }
    let mut told = Told {
        agents: Vec::new(),
        tool_calls: Vec::new(),
        models: BTreeSet::new(),
        input_tokens: 0,
        output_tokens: 0,
        user: Vec::new(),
        agent: Vec::new(),
        errors: 0,
        error_lines: Vec::new(),
        sessions: BTreeSet::new(),
        statuses: Vec::new(),
        llm_calls: 0,
    };
    let prices = Prices::builtin();
    let mut summaries = Vec::new();
    for (trace, (state, _)) in &states {
        let (back, through) = decode_snapshot(&encode_snapshot(state, 7)).unwrap();
        assert_eq!((&back, through), (state, 7));
        let summed = summary(state, trace, settle::standing(state), &prices);
        let rows = tree::rows(state, &prices);
        assert!(rows.len() >= summed.total_spans);
        let priced: f64 = rows.iter().filter_map(|row| row.cost_usd).sum();
        assert!((priced - summed.cost_usd.unwrap_or(0.0)).abs() < 1e-9);
        // The recorded models are all sold: only a call without counts has no cost.
        assert!(summed.unpriced_llm_calls == 0 || summed.total_tokens == 0);
        summaries.push((summed, state));
    }
    summaries.sort_by(|(a, _), (b, _)| a.started_at.cmp(&b.started_at));
    for (summary, state) in summaries {
        for agent in summary.agents {
            if !told.agents.contains(&agent) {
                told.agents.push(agent);
            }
        }
        told.models.extend(summary.models);
        told.llm_calls += summary.total_llm_calls;
        told.input_tokens += summary.input_tokens;
        told.output_tokens += summary.output_tokens;
        told.errors += summary.errors_count;
        told.error_lines.extend(
            summary
                .errors
                .iter()
                .map(|line| format!("{} {}: {}", line.kind, line.name, line.message)),
        );
        told.sessions.extend(summary.sessions);
        told.statuses.push(summary.status.to_string());
        let turns = invocations(state);
        assert_eq!(
            turns
                .iter()
                .map(|turn| turn.tool_calls.len())
                .sum::<usize>(),
            summary.total_tool_calls,
            "every call belongs to a turn"
        );
        for turn in turns {
            told.tool_calls.extend(
                turn.tool_calls
                    .iter()
                    .map(|call| (call.name.clone(), call.args.to_string())),
            );
            // A turn may be spread over traces when nothing holds them together: raw clients.
            let goes_on = told.user.last() == Some(&turn.user_text)
                && !turn.agent_text.is_empty()
                && told.agent.last().is_some_and(String::is_empty);
            if goes_on {
                told.agent.pop();
            } else {
                told.user.push(turn.user_text);
            }
            told.agent.push(turn.agent_text);
        }
    }
    told
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().unwrap().trim().to_owned())
            .collect(),
        other => vec![other.as_str().unwrap().trim().to_owned()],
    }
}

fn true_calls(truth: &Value) -> Vec<(String, String)> {
    truth["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            (
                call["name"].as_str().unwrap().to_owned(),
                call["args"].to_string(),
            )
        })
        .collect()
}

fn judge(name: &str, truth: &Value, told: &Told, haystack: &Haystack) -> Vec<(&'static str, Cell)> {
    let set = |value: &Value| -> BTreeSet<String> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    let cell = |right: bool, sent: bool| match (right, sent) {
        (true, _) => Cell::Right,
        (false, true) => Cell::Wrong,
        (false, false) => Cell::NotSent,
    };
    let agents: BTreeSet<String> = told.agents.iter().cloned().collect();
    let true_agents = set(&truth["agents"]);
    let names = |calls: &[(String, String)]| {
        let mut names: Vec<String> = calls.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    let sorted = |calls: &[(String, String)]| {
        let mut calls: Vec<(String, Value)> = calls
            .iter()
            .map(|(name, args)| (name.clone(), serde_json::from_str(args).unwrap()))
            .collect();
        calls.sort_by_key(|(name, args)| (name.clone(), args.to_string()));
        calls
    };
    let calls = true_calls(truth);
    let args_sent = calls.iter().all(|(_, args)| {
        let args: Value = serde_json::from_str(args).unwrap();
        args.as_object().unwrap().iter().all(|(key, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            haystack.text.contains(key)
                && haystack
                    .plain
                    .contains(&format!("{}{}", plain(key), plain(&value)))
        })
    });
    let (input, output) = TOKENS_SENT
        .iter()
        .find(|(scenario, ..)| *scenario == name)
        .map_or(
            (
                truth["input_tokens"].as_u64().unwrap(),
                truth["output_tokens"].as_u64().unwrap(),
            ),
            |(_, input, output)| (*input, *output),
        );
    let unsent = ERRORS_UNSENT
        .iter()
        .find(|(scenario, _)| *scenario == name)
        .map_or(0, |(_, count)| *count);
    let errors = truth["error_list"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|error| error["hidden"] != true)
        .count()
        - unsent;
    let user = texts(&truth["user_text"]);
    let agent = texts(&truth["agent_text"]);
    let ok_calls = usize::try_from(truth["llm_calls_ok"].as_u64().unwrap()).unwrap();
    let failed_calls = usize::try_from(truth["llm_http_errors"].as_u64().unwrap()).unwrap();
    let any_fatal = truth["error_list"]
        .as_array()
        .unwrap()
        .iter()
        .any(|error| error["fatal"] == true);
    let failed = told.statuses.iter().any(|status| status == "failed");
    vec![
        (
            "agents",
            cell(
                agents == true_agents,
                true_agents.iter().all(|agent| was_sent(haystack, agent)),
            ),
        ),
        (
            "tools",
            cell(names(&told.tool_calls) == names(&calls), true),
        ),
        (
            "args",
            cell(sorted(&told.tool_calls) == sorted(&calls), args_sent),
        ),
        (
            "models",
            cell(
                told.models == set(&truth["models"])
                    || told.models == set(&truth["response_models"]),
                !told.models.is_empty(),
            ),
        ),
        ("input", cell(told.input_tokens == input, true)),
        ("output", cell(told.output_tokens == output, true)),
        (
            "user",
            cell(
                told.user == user,
                user.iter().all(|text| was_sent(haystack, text)),
            ),
        ),
        (
            "answer",
            cell(
                told.agent == agent,
                agent.iter().all(|text| was_sent(haystack, text)),
            ),
        ),
        ("errors", cell(told.errors == errors, true)),
        (
            "session",
            cell(
                set(&truth["sessions"]).is_subset(&told.sessions),
                set(&truth["sessions"])
                    .iter()
                    .all(|session| haystack.text.contains(session)),
            ),
        ),
        ("status", cell(failed == any_fatal, true)),
        (
            "calls",
            cell(
                (ok_calls..=ok_calls + failed_calls).contains(&told.llm_calls),
                told.llm_calls > 0,
            ),
        ),
    ]
}
