//! Small runs with a known answer: each gets exactly its findings.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use serde_json::{Value, json};
use tailspan_core::{
    analysis::{Analysis, Asked, Thresholds, analyze},
    fold::State,
    observed::{Context, Observation, Recorded, What},
    pricing::Prices,
    settle::{self, Status},
    stats::{Dimension, History, Sketch},
    wire::{self, AnyValue, KeyValue, any_value},
};

/// When every run begins, milliseconds since 1970.
const BEGAN_MS: u64 = 1_800_000_000_000;

/// A run in lines: `label kind name from..to key=value ...`, times in milliseconds, an indented line lies in the one above it, `..` without an end is open.
///
/// Kinds: agent, workflow, llm, tool, retriever, step, span. Keys: `args` and `result` (JSON), `call` (its id), `asks` (`id:tool,id:tool`), `error` (`type:message`),
/// `in`, `out`, `cached` (tokens), `first` (milliseconds to the first piece), `user` (what the user said, a word each), `service`, `parent` (a label that is not there), `agent`.
struct Told {
    state: State,
    labels: Vec<String>,
    thresholds: Thresholds,
    history: History,
    status: Option<Status>,
    silent_ms: u64,
}

fn run(lines: &str) -> Told {
    let mut state = State::default();
    let mut labels: Vec<String> = Vec::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    let rows = lines.lines().filter(|line| !line.trim().is_empty());
    for (number, line) in rows.enumerate() {
        let indent = line.len() - line.trim_start().len();
        let arrived_unix_ms = BEGAN_MS + 100_000 + number as u64;
        let seq = number as u64 + 1;
        let (what, service) = match line.trim().starts_with('{') {
            true => (What::Native(line.trim().into()), None),
            false => {
                above.retain(|(outer, _)| *outer < indent);
                let parent = above.last().map(|(_, label)| label.as_str());
                let (label, span, service) = span(line.trim(), parent);
                above.push((indent, label.clone()));
                labels.push(label);
                (What::Span(Arc::new(span)), service)
            }
        };
        let mut context = Context::default();
        if let Some(service) = service {
            context.resource.push(pair("service.name", json!(service)));
        }
        state.apply(&Recorded {
            seq,
            arrived_unix_ms,
            observation: Observation {
                context: Arc::new(context),
                what,
            },
        });
    }
    Told {
        state,
        labels,
        thresholds: Thresholds::default(),
        history: History::default(),
        status: None,
        silent_ms: 2_000,
    }
}

fn span(line: &str, parent: Option<&str>) -> (String, wire::Span, Option<String>) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [label, kind, name, times, keys @ ..] = words.as_slice() else {
        panic!("too short: {line}");
    };
    let (from, to) = times.split_once("..").unwrap();
    let at = |ms: &str| ((BEGAN_MS as f64 + ms.parse::<f64>().unwrap()) * 1e6) as u64;
    let mut attributes = Vec::new();
    let mut put = |key: &str, value: Value| attributes.push(pair(key, value));
    match *kind {
        "agent" => {
            put("gen_ai.operation.name", json!("invoke_agent"));
            put("gen_ai.agent.name", json!(name));
        }
        "workflow" => put("gen_ai.operation.name", json!("invoke_workflow")),
        "llm" => {
            put("gen_ai.operation.name", json!("chat"));
            put("gen_ai.request.model", json!(name));
        }
        "tool" => {
            put("gen_ai.operation.name", json!("execute_tool"));
            put("gen_ai.tool.name", json!(name));
        }
        "retriever" => put("openinference.span.kind", json!("RETRIEVER")),
        "step" => put("openinference.span.kind", json!("CHAIN")),
        "span" => {}
        other => panic!("no kind: {other}"),
    }
    let mut status = wire::Status::default();
    let mut parent = parent.map(str::to_owned);
    let mut service = None;
    for word in keys {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "args" => put("gen_ai.tool.call.arguments", json!(value)),
            "result" => put("gen_ai.tool.call.result", json!(value)),
            "call" => put("gen_ai.tool.call.id", json!(value)),
            "in" => put(
                "gen_ai.usage.input_tokens",
                json!(value.parse::<i64>().unwrap()),
            ),
            "out" => put(
                "gen_ai.usage.output_tokens",
                json!(value.parse::<i64>().unwrap()),
            ),
            "cached" => put(
                "gen_ai.usage.cache_read.input_tokens",
                json!(value.parse::<i64>().unwrap()),
            ),
            "asks" => {
                let calls: Vec<Value> = value
                    .split(',')
                    .map(|call| {
                        let (id, tool) = call.split_once(':').unwrap();
                        json!({"type": "tool_call", "id": id, "name": tool, "arguments": {"of": id}})
                    })
                    .collect();
                let messages = json!([{"role": "assistant", "parts": calls}]);
                put("gen_ai.output.messages", json!(messages.to_string()));
            }
            "user" => {
                let said: Vec<Value> = value
                    .split(',')
                    .map(|text| json!({"role": "user", "parts": [{"type": "text", "content": text}]}))
                    .collect();
                put("gen_ai.input.messages", json!(json!(said).to_string()));
            }
            "agent" => put("gen_ai.agent.name", json!(value)),
            "first" => put(
                "gen_ai.response.time_to_first_chunk",
                json!(value.parse::<f64>().unwrap() / 1e3),
            ),
            "error" => {
                let (kind, message) = value.split_once(':').unwrap();
                put("error.type", json!(kind));
                status = wire::Status {
                    code: 2,
                    message: message.replace('_', " "),
                };
            }
            "parent" => parent = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            other => panic!("no key: {other}"),
        }
    }
    let span = wire::Span {
        span_id: id_of(label).to_vec().into(),
        parent_span_id: parent
            .map_or_else(Vec::new, |label| id_of(&label).to_vec())
            .into(),
        name: (*name).to_owned(),
        start_time_unix_nano: at(from),
        end_time_unix_nano: if to.is_empty() { 0 } else { at(to) },
        attributes,
        status: Some(status),
        ..wire::Span::default()
    };
    ((*label).to_owned(), span, service)
}

fn id_of(label: &str) -> [u8; 8] {
    let mut id = [0; 8];
    id[..label.len()].copy_from_slice(label.as_bytes());
    id
}

fn hex(label: &str) -> String {
    id_of(label)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn pair(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::String(text) => any_value::Value::String(text.into()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => any_value::Value::Int(whole),
            None => any_value::Value::Double(number.as_f64().unwrap()),
        },
        other => panic!("no attribute: {other}"),
    };
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

impl Told {
    fn silent(mut self, ms: u64) -> Self {
        self.silent_ms = ms;
        self
    }

    fn is(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Thresholds)) -> Self {
        change(&mut self.thresholds);
        self
    }

    /// As many durations of milliseconds were seen before.
    fn usually(mut self, of: Dimension, name: &str, count: usize, ms: u64) -> Self {
        let mut sketch = Sketch::default();
        (0..count).for_each(|_| sketch.record(ms * 1_000_000));
        self.history.add(of, name, &sketch);
        self
    }

    fn analysis(&self) -> Analysis {
        let now_unix_ms = self.state.last_arrival_unix_ms + self.silent_ms;
        let status = self.status.unwrap_or_else(|| {
            let patience = settle::Patience::default();
            settle::decide(
                &self.state,
                self.state.last_arrival_unix_ms,
                now_unix_ms,
                &patience,
            )
            .status()
        });
        let asked = Asked {
            status,
            now_unix_ms,
            thresholds: &self.thresholds,
            history: &self.history,
            prices: &Prices::builtin(),
        };
        let analysis = analyze(&self.state, "t", &asked);
        check_sums(&analysis);
        analysis
    }

    /// The label of a span; of native steps their own id.
    fn label(&self, id: &str) -> String {
        let found = self.labels.iter().find(|label| hex(label) == id);
        found.cloned().unwrap_or_else(|| id.to_owned())
    }

    fn found(&self) -> Vec<String> {
        let findings = self.analysis().findings;
        let lines = findings.iter().map(|finding| {
            let spans: Vec<String> = finding.spans.iter().map(|id| self.label(id)).collect();
            format!("{}: {}", finding.class.as_str(), spans.join(" "))
        });
        lines.collect()
    }

    fn path(&self) -> String {
        let steps = self.analysis().critical_path;
        let labels: Vec<String> = steps
            .iter()
            .map(|step| format!("{} {:.0}", self.label(&step.span_id), step.path_ms))
            .collect();
        labels.join(", ")
    }
}

/// What holds of every analysis.
fn check_sums(analysis: &Analysis) {
    let time = &analysis.time;
    let shares = [
        time.model,
        time.tool,
        time.retrieval,
        time.other,
        time.queue,
        time.idle,
    ];
    assert!(
        shares.iter().all(|share| (0.0..=1.0).contains(share)),
        "{time:?}"
    );
    assert!(shares.iter().sum::<f64>() <= 1.0 + 1e-9, "{time:?}");
    let path: f64 = analysis.critical_path.iter().map(|step| step.share).sum();
    assert!(path <= 1.0 + 1e-9, "{path}");
    let path_ms: f64 = analysis.critical_path.iter().map(|step| step.path_ms).sum();
    assert!(
        path_ms <= analysis.duration_ms + 0.1,
        "{path_ms} of {}",
        analysis.duration_ms
    );
    assert_eq!(
        analysis.event_distribution.values().sum::<u64>(),
        analysis.total_events
    );
    for finding in &analysis.findings {
        assert!(
            !finding.message.is_empty() && !finding.recommendation.is_empty(),
            "{finding:?}"
        );
        assert!(!finding.spans.is_empty(), "{finding:?}");
        let named = finding.components.first().is_none_or(|name| {
            let name: String = name.chars().take(20).collect();
            finding.recommendation.contains(&name) || finding.message.contains(&name)
        });
        assert!(named, "{finding:?}");
        assert!(
            finding
                .recommendation
                .chars()
                .any(|c| c.is_ascii_digit() || c == '`'),
            "{finding:?}"
        );
        assert!(analysis.recommendations.contains(&finding.recommendation));
    }
    for step in &analysis.steps {
        assert!(
            step.self_ms <= step.total_ms + 0.001 && step.self_ms >= 0.0,
            "{step:?}"
        );
    }
}

#[track_caller]
fn check(told: &Told, expected: &[&str]) {
    let found = told.found();
    assert_eq!(found, expected, "{:#?}", told.analysis().findings);
}

// Where the time went.

#[test]
fn a_step_that_is_most_of_the_run_is_its_bottleneck() {
    let told = run("
        a agent planner 0..3300
          m llm gpt-4o 0..200 in=100 out=5
          t tool search 250..3250
    ");
    check(&told, &["bottleneck: t"]);
    let analysis = told.analysis();
    let line = &analysis.bottlenecks[0];
    assert_eq!(
        (
            line.component.as_str(),
            line.avg_execution_time,
            line.executions
        ),
        ("search", 3.0, 1)
    );
    assert!((line.share - 0.909).abs() < 0.001);
    assert_eq!(told.path(), "m 200, a 100, t 3000");
    assert!(
        analysis.recommendations[0].contains("tool `search`"),
        "{:?}",
        analysis.recommendations
    );
}

#[test]
fn a_long_healthy_run_has_no_findings() {
    let mut lines = String::from("a agent planner 0..60000\n");
    for turn in 0..10 {
        let at = turn * 6_000;
        lines += &format!(
            " m{turn} llm gpt-4o {}..{} in=1000 out=200\n",
            at + 10,
            at + 3_500
        );
        lines += &format!(
            " t{turn} tool search {}..{} args={{\"n\":{turn}}}\n",
            at + 3_510,
            at + 5_990
        );
    }
    check(&run(&lines), &[]);
}

#[test]
fn a_run_of_one_long_step_says_nothing() {
    check(&run("a agent planner 0..60000"), &[]);
    check(&run("m llm gpt-4o 0..60000 in=100 out=2000"), &[]);
}

#[test]
fn a_root_that_does_the_work_itself_is_no_bottleneck() {
    check(
        &run("
        w workflow job 0..60000
          a agent planner 100..200
          b agent writer 59000..59100
        "),
        &[],
    );
}

#[test]
fn two_steps_of_equal_length_are_no_bottleneck() {
    check(
        &run("
        a agent planner 0..6200
          m llm gpt-4o 0..3000 in=10 out=10
          t tool search 3050..3150
          n llm gpt-4o 3200..6200 in=20 out=10
        "),
        &[],
    );
}

#[test]
fn a_short_run_has_no_bottleneck() {
    check(
        &run("
        a agent planner 0..900
          t tool search 10..890
        "),
        &[],
    );
}

#[test]
fn the_longer_branch_is_the_path() {
    let told = run("
        w workflow job 0..4000
          a agent left 100..1900
            t tool read 150..1850
          b agent right 100..3900
            u tool write 200..3800
    ");
    check(&told, &["bottleneck: u"]);
    assert_eq!(told.path(), "w 200, b 200, u 3600");
    let analysis = told.analysis();
    let beside = &analysis.parallel[0];
    assert_eq!(
        (
            told.label(&beside.span_id),
            told.label(&beside.beside),
            beside.slack_ms
        ),
        ("a".into(), "b".into(), 2000.0)
    );
    assert_eq!(analysis.parallelism.most, 2);
}

#[test]
fn what_a_parent_does_itself_is_its_own_and_its_children_are_not() {
    let told = run("
        w workflow job 0..5000
          a agent planner 100..4900
            m llm gpt-4o 200..700 in=10 out=10
            n llm gpt-4o 4200..4700 in=10 out=10
    ");
    check(&told, &["bottleneck: a"]);
    let analysis = told.analysis();
    let of = |label: &str| {
        analysis
            .steps
            .iter()
            .find(|step| step.span_id == hex(label))
            .unwrap()
            .self_ms
    };
    assert_eq!((of("a"), of("w"), of("m")), (3800.0, 200.0, 500.0));
    assert!(
        (analysis.time.queue - 0.8).abs() < 1e-9,
        "{:?}",
        analysis.time
    );
}

#[test]
fn a_request_within_a_tool_is_the_tools_time() {
    let told = run("
        a agent planner 0..3300
          t tool search 200..3250
            h span POST 210..3240
    ");
    check(&told, &["bottleneck: t"]);
    assert!((told.analysis().time.tool - 3050.0 / 3300.0).abs() < 1e-3);
}

#[test]
fn thresholds_can_be_set() {
    let lines = "
        a agent planner 0..1000
          t tool search 0..400
          u tool read 410..990
    ";
    check(&run(lines), &[]);
    check(
        &run(lines).with(|set| set.bottleneck_ms = 500),
        &["bottleneck: u"],
    );
    check(
        &run(lines).with(|set| (set.bottleneck_ms, set.bottleneck_share) = (300, 0.3)),
        &["bottleneck: u", "bottleneck: t"],
    );
}

#[test]
fn times_between_turns_are_nobodys() {
    let told = run("
        a agent helper 0..2000
          m llm gpt-4o 10..1990 in=1 out=1
        b agent helper 600000..602000
          n llm gpt-4o 600010..601990 in=1 out=1
    ");
    check(&told, &[]);
    assert!(told.analysis().time.idle > 0.99);
}

#[test]
fn flat_native_events_are_put_where_they_ran() {
    let told = run(r#"
        {"event_type":"workflow_started","agent_id":"helper","timestamp":1800000000000}
        {"event_type":"node_started","component_name":"Search","timestamp":1800000000100}
        {"event_type":"retrieval_started","retrieval_id":"r1","query":"x","timestamp":1800000000150}
        {"event_type":"retrieval_completed","retrieval_id":"r1","timestamp":1800000000250}
        {"event_type":"node_finished","component_name":"Search","elapsed_time":0.2,"timestamp":1800000000300}
        {"event_type":"node_started","component_name":"Write","timestamp":1800000000300}
        {"event_type":"node_finished","component_name":"Write","elapsed_time":3.0,"timestamp":1800000003300}
        {"event_type":"workflow_completed","agent_id":"helper","elapsed_time":3.3,"timestamp":1800000003300}
    "#);
    let analysis = told.analysis();
    assert_eq!(analysis.bottlenecks.len(), 1, "{:#?}", analysis.findings);
    assert_eq!(analysis.bottlenecks[0].component, "Write");
    assert_eq!(analysis.component_execution_times["Write"], [3.0]);
    assert_eq!(analysis.event_distribution["node_started"], 2);
    assert!(
        (analysis.time.retrieval - 0.0303).abs() < 1e-3,
        "{:?}",
        analysis.time
    );
}

#[test]
fn a_producer_that_says_how_long_and_not_when_is_believed() {
    let told = run(r#"
        {"event_type":"workflow_started","agent_id":"helper"}
        {"event_type":"node_started","component_name":"Search"}
        {"event_type":"node_finished","component_name":"Search","elapsed_time":0.3}
        {"event_type":"node_started","component_name":"Write"}
        {"event_type":"node_finished","component_name":"Write","elapsed_time":3.0}
        {"event_type":"workflow_completed","agent_id":"helper","elapsed_time":3.3}
    "#);
    let analysis = told.analysis();
    assert_eq!(analysis.bottlenecks.len(), 1, "{:#?}", analysis.findings);
    assert_eq!(
        (
            analysis.bottlenecks[0].component.as_str(),
            analysis.bottlenecks[0].avg_execution_time
        ),
        ("Write", 3.0)
    );
    assert_eq!(analysis.findings.len(), 1, "{:#?}", analysis.findings);

    let healthy = run(r#"
        {"event_type":"workflow_started","agent_id":"helper"}
        {"event_type":"workflow_completed","agent_id":"helper","elapsed_time":60.0}
    "#);
    check(&healthy, &[]);
}

#[test]
fn the_same_question_in_another_turn_is_no_repeat() {
    check(
        &run("
        a agent helper 0..500
          t tool search 10..100 args={\"q\":1}
        b agent helper 60000..60500
          u tool search 60010..60100 args={\"q\":1}
        "),
        &[],
    );
}

#[test]
fn a_step_slower_than_it_was_is_told() {
    let lines = "
        w workflow job 0..10000
          t tool search 100..4000
          u tool read 4100..9900
    ";
    let usual = |told: Told| {
        told.usually(Dimension::Tool, "search", 100, 300).usually(
            Dimension::Tool,
            "read",
            100,
            6_000,
        )
    };
    check(
        &usual(run(lines)),
        &["bottleneck: u", "slower_than_usual: t"],
    );
    let few = run(lines).usually(Dimension::Tool, "search", 19, 300);
    check(&few, &["bottleneck: u"]);
}

#[test]
fn an_answer_that_is_long_in_coming_is_told() {
    let lines = "
        a agent helper 0..9000
          m llm gpt-4o 0..4000 in=900 out=200 first=3500
          n llm gpt-4o 4100..8900 in=900 out=200 first=400
    ";
    check(&run(lines), &["bottleneck: n", "slow_first_token: m"]);
    check(
        &run(lines).with(|set| set.first_token_ms = 4_000),
        &["bottleneck: n"],
    );
}

#[test]
fn what_is_begun_after_its_caller_ended_counts_where_it_ran() {
    let told = run("
        w workflow job 0..3000
          a agent first 0..1000
            s span flush 2900..2950
          b agent second 1000..2800
    ");
    check(&told, &["bottleneck: b"]);
    assert_eq!(told.path(), "a 1000, b 1800, w 150, s 50");
}

#[test]
fn late_calls_of_a_service_whose_clock_agrees_are_no_skew() {
    check(
        &run("
        a agent helper 0..9000 service=one
          t tool fetch 100..600 service=one
            h span fetch 150..550 service=two
            i span write_log 2000..2001 service=two
        "),
        &[],
    );
}

// What went wrong.

#[test]
fn an_agent_that_fails_because_its_tool_did_has_one_cause() {
    let told = run("
        w workflow job 0..900 error=ToolError:no_such_sensor
          a agent reader 10..890 error=ToolError:no_such_sensor
            m llm gpt-4o 20..200 in=10 out=5
            t tool read_sensor 210..250 args={\"id\":4} error=ToolError:no_such_sensor
    ");
    check(&told, &["root_cause_error: t"]);
    let finding = &told.analysis().findings[0];
    assert_eq!(finding.numbers["echoes"], json!([hex("a"), hex("w")]));
    assert_eq!(finding.error.as_deref(), Some("no such sensor"));
    let error = &told.analysis().errors[0];
    assert_eq!(
        (
            error.component.as_str(),
            error.error.as_str(),
            told.analysis().errors_count
        ),
        ("read_sensor", "no such sensor", 1)
    );
}

#[test]
fn a_retry_that_succeeded_is_no_error() {
    check(
        &run("
        a agent reader 0..900
          m llm gpt-4o 10..200 in=10 out=5
          t tool fetch 210..250 args={\"id\":4} error=Timeout:too_late
          u tool fetch 260..300 args={\"id\":4}
          n llm gpt-4o 310..500 in=10 out=5
        "),
        &["retry: t u"],
    );
}

#[test]
fn tries_that_all_failed_are_a_retry_and_a_cause() {
    check(
        &run("
        a agent reader 0..900 error=Timeout:too_late
          m llm gpt-4o 10..200 in=10 out=5
          t tool fetch 210..250 args={\"id\":4} error=Timeout:too_late
          u tool fetch 260..300 args={\"id\":4} error=Timeout:too_late
          v tool fetch 310..350 args={\"id\":4} error=Timeout:too_late
        "),
        &["root_cause_error: t u v", "retry: t u v"],
    );
}

#[test]
fn a_model_call_that_is_made_again_is_a_retry() {
    check(
        &run("
        a agent reader 0..900
          m llm gpt-4o 10..200 error=RateLimit:slow_down
          n llm gpt-4o 300..500 in=10 out=5
        "),
        &["retry: m n"],
    );
}

#[test]
fn another_call_of_a_tool_that_failed_is_no_retry() {
    check(
        &run("
        a agent reader 0..900
          t tool fetch 210..250 args={\"id\":4} error=NotFound:none
          m llm gpt-4o 260..300 in=10 out=5
          u tool fetch 310..350 args={\"id\":5}
          n llm gpt-4o 360..500 in=10 out=5
        "),
        &["root_cause_error: t"],
    );
}

#[test]
fn the_failure_that_ended_the_run_stands_before_one_that_did_not() {
    check(
        &run("
        a agent reader 0..900 error=Overloaded:no_model
          t tool fetch 210..250 args={\"id\":4} error=NotFound:none
          m llm gpt-4o 260..300 in=10 out=5
          n llm gpt-4o 360..500 error=Overloaded:no_model
        "),
        &["root_cause_error: n", "root_cause_error: t"],
    );
}

#[test]
fn a_node_that_is_run_again_after_it_failed_is_a_retry() {
    check(
        &run("
        w workflow job 0..900
          s step load 10..200 error=IOError:disk
          t step load 210..400
          u step store 410..500
        "),
        &["retry: s t"],
    );
}

#[test]
fn steps_that_never_ended_are_told_when_the_run_is_over() {
    let lines = "
        a agent reader 0..900
          t tool fetch 100..
          u tool read 200..300
    ";
    check(&run(lines).silent(70_000), &["unclosed_span: t"]);
    check(&run(lines).is(Status::Running), &[]);
}

#[test]
fn a_stalled_run_names_the_innermost_open_step() {
    let told = run("
        a agent reader 0..
          t tool fetch 100..
    ")
    .silent(120_000);
    check(&told, &["unclosed_span: t a"]);
    let waiting = told.analysis().waiting_on;
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (waiting[0].name.as_str(), waiting[0].silent_ms),
        ("fetch", 120_000)
    );
}

#[test]
fn a_run_whose_root_never_came_is_told_of() {
    check(
        &run("t tool fetch 100..200 parent=zz").silent(120_000),
        &[&format!("unclosed_span: {}", hex("zz"))],
    );
}

#[test]
fn a_running_trace_says_what_it_waits_for() {
    let told = run("
        a agent reader 0..
          m llm gpt-4o 10..500 in=10 out=5
          t tool fetch 500..
    ")
    .silent(1_500);
    check(&told, &[]);
    let analysis = told.analysis();
    assert_eq!(analysis.status, Status::Running);
    let waiting: Vec<(&str, f64, u64)> = analysis
        .waiting_on
        .iter()
        .map(|step| (step.name.as_str(), step.open_ms, step.silent_ms))
        .collect();
    assert_eq!(waiting, [("fetch", 1500.0, 1500)]);
    assert_eq!(analysis.duration_ms, 2000.0);
}

#[test]
fn a_parent_that_has_not_come_is_waited_for() {
    let told = run("t tool fetch 100..200 parent=zz").silent(300);
    check(&told, &[]);
    let waiting = told.analysis().waiting_on;
    let about = (
        waiting[0].span_id.clone(),
        waiting[0].estimated,
        waiting[0].after.as_deref(),
    );
    assert_eq!(about, (hex("zz"), true, Some("fetch")));
    assert_eq!(told.analysis().duration_ms, 400.0);
    assert!((told.analysis().time.queue - 0.75).abs() < 1e-9);
}

#[test]
fn a_clock_that_is_behind_is_moved_and_durations_stay() {
    let told = run("
        a agent reader 0..1000 service=one
          t tool fetch -4000..-3400 service=two
            s span select -3900..-3500 service=two
    ");
    check(&told, &["clock_skew: t"]);
    let analysis = told.analysis();
    assert_eq!(analysis.duration_ms, 1000.0);
    assert_eq!(told.path(), "t 200, s 400, a 400");
}

#[test]
fn a_clock_that_is_ahead_is_moved_too() {
    let told = run("
        a agent reader 0..1000 service=one
          t tool fetch 5000..5600 service=two
    ");
    check(&told, &["clock_skew: t"]);
    assert_eq!(told.analysis().duration_ms, 1000.0);
}

#[test]
fn a_step_that_began_before_its_caller_and_took_longer_is_cut() {
    let told = run("
        a agent reader 0..900
          t tool fetch -2000..500
    ");
    check(&told, &["clock_skew: t"]);
    assert_eq!(told.analysis().duration_ms, 900.0);
}

#[test]
fn what_is_begun_and_left_running_is_no_skew() {
    let told = run("
        a agent reader 0..500
          t tool log_visit 400..900
    ");
    check(&told, &[]);
    assert_eq!(told.analysis().duration_ms, 900.0);
}

#[test]
fn a_clock_of_whole_milliseconds_is_no_skew() {
    check(
        &run("
        a agent reader 0.7..900.2
          t tool fetch 0..400.1
          u tool read 400..900.4
        "),
        &[],
    );
}

// What was done in vain.

#[test]
fn the_same_call_three_times_is_a_loop() {
    check(
        &run("
        a agent reader 0..900
          m llm gpt-4o 10..50 in=10 out=5
          t tool search 60..100 args={\"q\":\"x\"}
          n llm gpt-4o 110..150 in=10 out=5
          u tool search 160..200 args={\"q\":\"x\"}
          o llm gpt-4o 210..250 in=10 out=5
          v tool search 260..300 args={\"q\":\"x\"}
        "),
        &["loop: t u v"],
    );
}

#[test]
fn the_same_call_twice_is_repeated() {
    let told = run("
        a agent reader 0..900
          t tool search 60..100 args={\"q\":\"x\",\"n\":1} result=[1]
          n llm gpt-4o 110..150 in=10 out=5
          u tool search 160..200 args={\"n\":1,\"q\":\"x\"} result=[1]
    ");
    check(&told, &["repeated_call: t u"]);
    assert_eq!(
        told.analysis().findings[0].numbers["same_result"],
        json!(true)
    );
}

#[test]
fn other_arguments_and_other_agents_are_no_repeats() {
    check(
        &run("
        w workflow job 0..900
          a agent left 0..400
            t tool search 60..100 args={\"q\":\"x\"}
            u tool search 110..150 args={\"q\":\"y\"}
          b agent right 400..800
            v tool search 460..500 args={\"q\":\"x\"}
        "),
        &[],
    );
}

#[test]
fn calls_of_which_nobody_told_the_arguments_are_no_repeats() {
    check(
        &run("
        a agent reader 0..900
          t tool search 60..100
          u tool search 110..150
          v tool search 160..200
          x tool now 260..300 args={}
          y tool now 310..350 args={}
        "),
        &[],
    );
}

#[test]
fn two_calls_in_turns_are_a_loop() {
    let mut lines = String::from("a agent reader 0..2000\n");
    for round in 0..3 {
        let at = round * 200;
        lines += &format!(
            " s{round} tool search {}..{} args={{\"q\":1}}\n",
            at + 10,
            at + 50
        );
        lines += &format!(
            " o{round} tool open {}..{} args={{\"p\":2}}\n",
            at + 60,
            at + 100
        );
    }
    check(&run(&lines), &["loop: s0 o0 s1 o1 s2 o2"]);
}

#[test]
fn search_and_read_of_ever_other_things_are_no_loop() {
    let mut lines = String::from("a agent reader 0..2000\n");
    for round in 0..5 {
        let at = round * 200;
        lines += &format!(
            " s{round} tool search {}..{} args={{\"q\":{round}}}\n",
            at + 10,
            at + 50
        );
        lines += &format!(
            " o{round} tool open {}..{} args={{\"p\":{round}}}\n",
            at + 60,
            at + 100
        );
    }
    check(&run(&lines), &[]);
}

#[test]
fn agents_that_pass_the_work_to_and_fro_are_a_loop() {
    let mut lines = String::from("w workflow job 0..2000\n");
    for round in 0..3 {
        let at = round * 200;
        lines += &format!(" a{round} agent writer {}..{}\n", at + 10, at + 50);
        lines += &format!(" b{round} agent critic {}..{}\n", at + 60, at + 100);
    }
    check(&run(&lines), &["loop: a0 b0 a1 b1 a2 b2"]);
}

#[test]
fn two_rounds_of_writer_and_critic_are_work() {
    check(
        &run("
        w workflow job 0..2000
          a agent writer 0..100
          b agent critic 110..200
          c agent writer 210..300
          d agent critic 310..400
        "),
        &[],
    );
}

#[test]
fn a_history_that_is_sent_again_and_again_is_waste() {
    let mut lines = String::from("a agent reader 0..9000\n");
    for call in 0..6 {
        let at = call * 1_000;
        lines += &format!(
            " m{call} llm gpt-4o {}..{} in={} out=50\n",
            at + 10,
            at + 900,
            8_000 + call * 500
        );
    }
    check(&run(&lines), &["token_waste: m0 m1 m2 m3 m4 m5"]);
    check(&run(&lines.replace("out=50", "out=50 cached=8000")), &[]);
}

#[test]
fn small_histories_and_long_answers_are_no_waste() {
    let mut lines = String::from("a agent reader 0..9000\n");
    for call in 0..6 {
        let at = call * 1_000;
        lines += &format!(
            " m{call} llm gpt-4o {}..{} in={} out=2000\n",
            at + 10,
            at + 900,
            8_000 + call * 500
        );
    }
    check(&run(&lines), &[]);
    let mut small = String::from("a agent reader 0..9000\n");
    for call in 0..6 {
        small += &format!(
            " m{call} llm gpt-4o {call}00..{call}90 in={} out=5\n",
            1_000 + call * 50
        );
    }
    check(&run(&small), &[]);
}

#[test]
fn a_large_result_that_goes_back_to_the_model_is_waste() {
    let result = "x".repeat(40_000);
    let lines = format!(
        "
        a agent reader 0..900
          m llm gpt-4o 10..50 in=10 out=5
          t tool read 60..100 args={{\"q\":1}} result=\"{result}\"
          n llm gpt-4o 110..150 in=10010 out=5
    "
    );
    check(&run(&lines), &["token_waste: t"]);
    // Nobody reads it.
    check(
        &run(&format!(
            "a agent reader 0..900\n t tool read 60..100 result=\"{result}\""
        )),
        &[],
    );
}

#[test]
fn calls_of_one_answer_one_after_the_other_miss_their_chance() {
    let lines = "
        a agent reader 0..4000
          m llm gpt-4o 0..500 in=10 out=5 asks=c1:search,c2:search,c3:read
          t tool search 500..1500 call=c1
          u tool search 1500..2500 call=c2
          v tool read 2500..3500 call=c3
    ";
    check(&run(lines), &["missed_parallelism: t u v"]);
    assert_eq!(run(lines).analysis().parallelism.missed_ms, 2000.0);
    let side_by_side = lines
        .replace("1500..2500", "500..1500")
        .replace("2500..3500", "500..1400");
    check(&run(&side_by_side), &[]);
}

#[test]
fn calls_of_several_answers_are_in_order() {
    check(
        &run("
        a agent reader 0..4000
          m llm gpt-4o 0..500 in=10 out=5 asks=c1:search
          t tool search 500..1500 call=c1
          n llm gpt-4o 1500..2000 in=10 out=5 asks=c2:search
          u tool search 2000..3000 call=c2
        "),
        &[],
    );
}

#[test]
fn calls_after_one_unrecorded_answer_miss_their_chance_too() {
    check(
        &run("
        a agent reader 0..4000
          m llm gpt-4o 0..500 in=10 out=5
          t tool search 500..1500 args={\"q\":1}
          u tool search 1510..2500 args={\"q\":2}
          n llm gpt-4o 2600..3900 in=10 out=5
        "),
        &["missed_parallelism: t u"],
    );
}

#[test]
fn costs_are_told_by_agent() {
    let told = run("
        w workflow job 0..900
          a agent left 0..400
            m llm gpt-4o 10..350 in=1000 out=100
          b agent right 400..800
            n llm gpt-4o 410..600 in=2000 out=100
            o llm no-such-model 610..790 in=10 out=10
    ");
    check(&told, &[]);
    let costs = told.analysis().cost_by_agent;
    let names: Vec<_> = costs
        .iter()
        .map(|cost| {
            (
                cost.agent.clone().unwrap(),
                cost.llm_calls,
                cost.unpriced_llm_calls,
            )
        })
        .collect();
    assert_eq!(
        names,
        [("right".to_owned(), 2, 1), ("left".to_owned(), 1, 0)]
    );
    assert!(costs[0].cost_usd > costs[1].cost_usd);
    let by_model = told.analysis().cost_by_model;
    let names: Vec<_> = by_model
        .iter()
        .map(|cost| (cost.model.as_deref().unwrap(), cost.llm_calls))
        .collect();
    assert_eq!(names, [("gpt-4o", 2), ("no-such-model", 1)]);
    assert_eq!(
        (by_model[0].input_tokens, by_model[1].cost_usd),
        (3000, None)
    );
}

mod any_run {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Step {
        kind: usize,
        name: usize,
        parent: usize,
        start: u64,
        end: Option<u64>,
        failed: bool,
        service: usize,
        tokens: i64,
    }

    fn step() -> impl Strategy<Value = Step> {
        let time = prop_oneof![8 => 0u64..400, 1 => Just(0), 1 => Just(u64::MAX / 2_000_000)];
        let numbers = (0usize..7, 0usize..3, 0usize..30, 0usize..3, 0i64..9_000);
        (
            numbers,
            time.clone(),
            proptest::option::weighted(0.9, time),
            proptest::bool::weighted(0.2),
        )
            .prop_map(
                |((kind, name, parent, service, tokens), start, end, failed)| Step {
                    kind,
                    name,
                    parent,
                    start,
                    end,
                    failed,
                    service,
                    tokens,
                },
            )
    }

    fn state_of(steps: &[Step]) -> State {
        const KINDS: [&str; 7] = [
            "agent",
            "workflow",
            "llm",
            "tool",
            "retriever",
            "step",
            "span",
        ];
        let mut state = State::default();
        for (at, step) in steps.iter().enumerate() {
            let end = step.end.map_or_else(String::new, |end| end.to_string());
            let mut line = format!(
                "s{at} {} n{} {}..{end} parent=s{}",
                KINDS[step.kind], step.name, step.start, step.parent
            );
            if step.failed {
                line += " error=E:it_broke";
            }
            match KINDS[step.kind] {
                "tool" => {
                    line += &format!(
                        " args={{\"q\":{}}} result=\"{}\"",
                        step.name,
                        "x".repeat(step.tokens as usize * 4)
                    )
                }
                "llm" => line += &format!(" in={} out=1 first={}", step.tokens, step.tokens),
                _ => {}
            }
            let (_, mut span, _) = span(&line, None);
            // Roots, and times that no run has.
            if step.parent % 5 == 0 {
                span.parent_span_id = Vec::new().into();
            }
            if step.start == 0 {
                span.start_time_unix_nano = 0;
            }
            let mut context = Context::default();
            context
                .resource
                .push(pair("service.name", json!(format!("v{}", step.service))));
            state.apply(&Recorded {
                seq: at as u64 + 1,
                arrived_unix_ms: BEGAN_MS + at as u64,
                observation: Observation {
                    context: Arc::new(context),
                    what: What::Span(Arc::new(span)),
                },
            });
        }
        state
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn is_examined_and_its_shares_are_of_one_whole(steps in proptest::collection::vec(step(), 0..30), silent_ms in 0u64..100_000) {
            let told = Told {
                state: state_of(&steps),
                labels: Vec::new(),
                thresholds: Thresholds { loop_count: 2, bottleneck_ms: 0, bottleneck_share: 0.1, missed_ms: 0, ..Thresholds::default() },
                history: History::default(),
                status: None,
                silent_ms,
            };
            // `analysis` checks what holds of every run.
            let decided = told.analysis();
            for status in [Status::Running, Status::Stalled, Status::Lost, Status::Completed, Status::Failed] {
                let told = Told { state: told.state.clone(), labels: Vec::new(), history: History::default(), status: Some(status), thresholds: told.thresholds.clone(), silent_ms };
                let analysis = told.analysis();
                prop_assert_eq!(analysis.total_events, decided.total_events);
            }
        }
    }
}
