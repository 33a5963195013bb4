//! A run's results in the forms that people and pipelines read.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::outcome::{MetricResult, RunResult, Status, TraceResult};
use super::reader::camel;

/// The JSON of the command line: snake_case, `details` and `performance_metrics` only where there are any.
pub fn json(run: &RunResult) -> Value {
    let traces: Vec<Value> = run.trace_results.iter().map(trace_json).collect();
    let mut object = Map::new();
    object.insert("traces".into(), Value::Array(traces));
    object.insert("errors".into(), json!(run.errors));
    if let Some(performance) = &run.performance_metrics {
        object.insert("performance_metrics".into(), performance.clone());
    }
    Value::Object(object)
}

fn trace_json(trace: &TraceResult) -> Value {
    let metrics: Vec<Value> = trace.metric_results.iter().map(metric_json).collect();
    let mut object = Map::new();
    object.insert("trace_id".into(), json!(trace.trace_id));
    object.insert("num_invocations".into(), json!(trace.num_invocations));
    object.insert(
        "conversion_warnings".into(),
        json!(trace.conversion_warnings),
    );
    object.insert("metrics".into(), Value::Array(metrics));
    if let Some(performance) = &trace.performance_metrics {
        object.insert("performance_metrics".into(), performance.clone());
    }
    Value::Object(object)
}

fn metric_json(metric: &MetricResult) -> Value {
    let mut object = Map::new();
    object.insert("metric_name".into(), json!(metric.metric_name));
    object.insert("score".into(), json!(metric.score));
    object.insert("eval_status".into(), json!(metric.eval_status));
    object.insert(
        "per_invocation_scores".into(),
        json!(metric.per_invocation_scores),
    );
    object.insert("duration_ms".into(), json!(metric.duration_ms));
    object.insert("error".into(), json!(metric.error));
    if let Some(details) = metric
        .details
        .as_ref()
        .filter(|details| !details.is_empty())
    {
        object.insert("details".into(), Value::Object(details.clone()));
    }
    Value::Object(object)
}

/// Every key of a value in camelCase, as `/api` answers; the keys of tool arguments are changed too, as agentevals does.
/// What it is given was read from JSON and is at most 128 levels deep.
pub fn camelized(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .map(|(key, value)| (camel(&key), camelized(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(camelized).collect()),
        other => other,
    }
}

/// A line for each metric.
pub fn summary(run: &RunResult) -> String {
    let mut out = errors(run);
    for trace in &run.trace_results {
        let _ = writeln!(
            out,
            "Trace {} ({} invocations):",
            trace.trace_id, trace.num_invocations
        );
        for metric in &trace.metric_results {
            let took = match metric.duration_ms {
                Some(ms) => format!(" [{}]", duration(ms)),
                None => String::new(),
            };
            let said = match (&metric.error, metric.score) {
                (Some(error), _) => format!("ERROR - {error}"),
                (None, score) => format!("{} ({})", shown(score), metric.eval_status.as_str()),
            };
            let icon = icon(metric.eval_status);
            let _ = writeln!(out, "  {icon} {}: {said}{took}", metric.metric_name);
        }
        out.push('\n');
    }
    out
}

/// A table for each trace, what did not match, and what it took.
pub fn table(run: &RunResult) -> String {
    let mut out = errors(run);
    for trace in &run.trace_results {
        let _ = writeln!(out, "Trace: {}", trace.trace_id);
        let _ = writeln!(out, "Invocations: {}", trace.num_invocations);
        for warning in &trace.conversion_warnings {
            let _ = writeln!(out, "  Warning: {warning}");
        }
        let rows: Vec<[String; 7]> = trace
            .metric_results
            .iter()
            .map(|metric| {
                let scores: Vec<String> = metric
                    .per_invocation_scores
                    .iter()
                    .map(|score| shown(*score))
                    .collect();
                [
                    icon(metric.eval_status).to_owned(),
                    metric.metric_name.clone(),
                    shown(metric.score),
                    metric.eval_status.as_str().to_owned(),
                    scores.join(", "),
                    metric.duration_ms.map(duration).unwrap_or_default(),
                    one_line(metric.error.as_deref().unwrap_or_default()),
                ]
            })
            .collect();
        if !rows.is_empty() {
            write_rows(&mut out, &rows);
        }
        for metric in &trace.metric_results {
            if metric.eval_status == Status::Failed {
                write_mismatches(&mut out, metric);
            }
        }
        if let Some(performance) = &trace.performance_metrics {
            write_performance(&mut out, performance);
        }
        out.push('\n');
    }
    if let Some(performance) = &run.performance_metrics {
        write_overall(&mut out, performance);
    }
    out
}

fn errors(run: &RunResult) -> String {
    let mut out = String::new();
    if !run.errors.is_empty() {
        out.push_str("Errors:\n");
        for error in &run.errors {
            let _ = writeln!(out, "  - {error}");
        }
        out.push('\n');
    }
    out
}

fn icon(status: Status) -> &'static str {
    match status {
        Status::Passed => "[PASS]",
        Status::Failed => "[FAIL]",
        Status::NotEvaluated => "[----]",
    }
}

fn shown(score: Option<f64>) -> String {
    score.map_or_else(|| "N/A".to_owned(), |score| format!("{score:.4}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `7ms`, `1.5s`, `2m 3s`.
pub fn duration(ms: f64) -> String {
    let ms = ms.round();
    if ms < 1_000.0 {
        return format!("{ms:.0}ms");
    }
    let seconds = ms / 1_000.0;
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    format!("{}m {}s", whole / 60, whole % 60)
}

const HEADERS: [&str; 7] = [
    "",
    "Metric",
    "Score",
    "Status",
    "Per-Invocation",
    "Time",
    "Error",
];

/// Columns as wide as what stands in them, two spaces between, a rule under the headers; scores at the right.
fn write_rows(out: &mut String, rows: &[[String; 7]]) {
    let width = |column: usize| -> usize {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let header = HEADERS.get(column).map_or(0, |header| header.len());
        cells
            .map(|cell| cell.chars().count())
            .fold(header, usize::max)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut line = |cells: [&str; 7]| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if column > 0 {
                text.push_str("  ");
            }
            let _ = if column == 2 {
                write!(text, "{cell:>width$}")
            } else {
                write!(text, "{cell:<width$}")
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(HEADERS);
    let rules = widths.map(|width| "-".repeat(width));
    line(rules.each_ref().map(String::as_str));
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
}

fn write_mismatches(out: &mut String, metric: &MetricResult) {
    let comparisons = metric
        .details
        .as_ref()
        .and_then(|details| details.get("comparisons"))
        .and_then(Value::as_array);
    for (n, comparison) in comparisons.into_iter().flatten().enumerate() {
        if comparison.get("matched") != Some(&Value::Bool(false)) {
            continue;
        }
        let _ = writeln!(out, "  Invocation {} trajectory mismatch:", n + 1);
        for (title, key) in [("Expected", "expected"), ("Actual", "actual")] {
            let _ = writeln!(out, "    {title}:");
            let calls = comparison.get(key).and_then(Value::as_array);
            let calls = calls.map(Vec::as_slice).unwrap_or_default();
            for call in calls {
                let name = call.get("name").and_then(Value::as_str).unwrap_or_default();
                let args = call.get("args").filter(|args| !args.is_null());
                let args = args.map_or_else(|| "{}".to_owned(), Value::to_string);
                let _ = writeln!(out, "      - {name}({args})");
            }
            if calls.is_empty() {
                out.push_str("      (none)\n");
            }
        }
    }
    out.push('\n');
}

fn number(value: &Value, pointer: &str) -> f64 {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
}

fn names(value: &Value, pointer: &str) -> String {
    let names = value.pointer(pointer).and_then(Value::as_array);
    let names: Vec<&str> = names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    names.join(", ")
}

fn write_performance(out: &mut String, performance: &Value) {
    out.push_str("\n  Performance Metrics:\n");
    let models = names(performance, "/models");
    if !models.is_empty() {
        let _ = writeln!(out, "    Model: {models}");
    }
    let counts: Vec<String> = [
        ("/counts/llm_calls", "LLM calls"),
        ("/counts/tool_calls", "tool calls"),
        ("/counts/invocations", "invocations"),
    ]
    .into_iter()
    .filter(|(pointer, _)| number(performance, pointer) > 0.0)
    .map(|(pointer, what)| format!("{} {what}", number(performance, pointer)))
    .collect();
    if !counts.is_empty() {
        let _ = writeln!(out, "    Counts: {}", counts.join(", "));
    }
    for (title, key) in [
        ("Overall Latency:", "overall"),
        ("LLM Latency:    ", "llm_calls"),
        ("Tool Latency:   ", "tool_executions"),
    ] {
        let of = |what: &str| number(performance, &format!("/latency/{key}/{what}"));
        if of("count") > 0.0 {
            let _ = writeln!(
                out,
                "    {title} min={}, median={}, max={}",
                duration(of("min")),
                duration(of("median")),
                duration(of("max"))
            );
        }
    }
    let _ = writeln!(
        out,
        "    Tokens: {} total ({} prompt + {} output){}",
        number(performance, "/tokens/total"),
        number(performance, "/tokens/total_prompt"),
        number(performance, "/tokens/total_output"),
        match cached(performance) {
            cached if cached.is_empty() => cached,
            cached => format!(" [{cached}]"),
        }
    );
}

fn cached(performance: &Value) -> String {
    let parts: Vec<String> = [
        ("/tokens/cache_read_tokens", "cache read"),
        ("/tokens/cache_creation_tokens", "cache write"),
    ]
    .into_iter()
    .filter(|(pointer, _)| number(performance, pointer) > 0.0)
    .map(|(pointer, what)| format!("{} {what}", number(performance, pointer)))
    .collect();
    parts.join(", ")
}

fn write_overall(out: &mut String, performance: &Value) {
    out.push_str("Overall Performance:\n");
    let of = |pointer: &str| number(performance, pointer);
    let _ = writeln!(
        out,
        "  Traces: {}, LLM Calls: {}, Tool Calls: {}",
        of("/counts/traces"),
        of("/counts/total_llm_calls"),
        of("/counts/total_tool_calls")
    );
    let models = names(performance, "/models");
    if !models.is_empty() {
        let _ = writeln!(out, "  Models: {models}");
    }
    if of("/latency/overall_per_trace/p50") > 0.0 {
        let _ = writeln!(
            out,
            "  Latency per Trace: p50={}, p95={}, p99={}",
            duration(of("/latency/overall_per_trace/p50")),
            duration(of("/latency/overall_per_trace/p95")),
            duration(of("/latency/overall_per_trace/p99"))
        );
    }
    let _ = writeln!(
        out,
        "  Total Tokens: {} ({} prompt + {} output)",
        of("/tokens/total"),
        of("/tokens/total_prompt"),
        of("/tokens/total_output")
    );
    let _ = writeln!(
        out,
        "  Avg per Trace: {:.0} prompt, {:.0} output",
        of("/tokens/avg_per_trace/prompt"),
        of("/tokens/avg_per_trace/output")
    );
    let cached = cached(performance);
    if !cached.is_empty() {
        let _ = writeln!(out, "  Cache Tokens: {cached}");
    }
    out.push('\n');
}

/// JUnit XML: a suite per trace, a case per metric. A metric below its threshold is a failure, one without an answer an error, one that
/// was not evaluated and says no reason is skipped.
pub fn junit(run: &RunResult) -> String {
    let mut tests = 0;
    let mut suites = String::new();
    let (mut failures, mut broken) = (0, 0);
    for trace in &run.trace_results {
        let (mut cases, mut failed, mut errors, mut skipped) = (String::new(), 0, 0, 0);
        let mut seconds = 0.0;
        for metric in &trace.metric_results {
            let took = metric.duration_ms.unwrap_or(0.0) / 1_000.0;
            seconds += took;
            let _ = write!(
                cases,
                "    <testcase name=\"{}\" classname=\"{}\" time=\"{took:.3}\"",
                xml(&metric.metric_name),
                xml(&trace.trace_id)
            );
            let inner = match (&metric.error, metric.eval_status) {
                (Some(error), _) => {
                    errors += 1;
                    format!("<error message=\"{}\"/>", xml(error))
                }
                (None, Status::Failed) => {
                    failed += 1;
                    let mut text = String::new();
                    write_mismatches(&mut text, metric);
                    format!(
                        "<failure message=\"score {}\">{}</failure>",
                        shown(metric.score),
                        xml(text.trim_end())
                    )
                }
                (None, Status::NotEvaluated) => {
                    skipped += 1;
                    "<skipped/>".to_owned()
                }
                (None, Status::Passed) => {
                    format!("<system-out>score {}</system-out>", shown(metric.score))
                }
            };
            let _ = writeln!(cases, ">{inner}</testcase>");
        }
        let count = trace.metric_results.len();
        let _ = write!(
            suites,
            "  <testsuite name=\"{}\" tests=\"{count}\" failures=\"{failed}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{seconds:.3}\">\n{cases}  </testsuite>\n",
            xml(&trace.trace_id)
        );
        tests += count;
        failures += failed;
        broken += errors;
    }
    if !run.errors.is_empty() {
        let count = run.errors.len();
        let _ = writeln!(
            suites,
            "  <testsuite name=\"errors\" tests=\"{count}\" failures=\"0\" errors=\"{count}\" skipped=\"0\" time=\"0.000\">"
        );
        for (n, error) in run.errors.iter().enumerate() {
            let _ = writeln!(
                suites,
                "    <testcase name=\"error {}\" classname=\"errors\" time=\"0.000\"><error message=\"{}\"/></testcase>",
                n + 1,
                xml(error)
            );
        }
        suites.push_str("  </testsuite>\n");
        tests += count;
        broken += count;
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"tailspan\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{broken}\">\n{suites}</testsuites>\n"
    )
}

/// Text for an attribute or an element; what XML 1.0 cannot hold becomes U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunResult {
        let failed = MetricResult::of_turns("tool_trajectory_avg_score", &[0.0, 0.5], 0.5).with_details(
            json!({"comparisons": [{"matched": false, "expected": [{"name": "a", "args": {"x": "<1>"}}], "actual": []}]}),
        );
        let mut passed = MetricResult::scored("response_match_score", 0.81, 0.5);
        passed.duration_ms = Some(15_500.0);
        RunResult {
            trace_results: vec![TraceResult {
                trace_id: "t1".into(),
                num_invocations: 2,
                metric_results: vec![failed, passed, MetricResult::failed("x", "no \"key\"\u{1}")],
                ..TraceResult::default()
            }],
            errors: vec!["cannot read a.json".into()],
            performance_metrics: None,
        }
    }

    #[test]
    fn the_summary_has_a_line_per_metric() {
        assert_eq!(
            summary(&run()),
            "Errors:\n  - cannot read a.json\n\nTrace t1 (2 invocations):\n  \
             [FAIL] tool_trajectory_avg_score: 0.2500 (FAILED)\n  \
             [PASS] response_match_score: 0.8100 (PASSED) [15.5s]\n  \
             [----] x: ERROR - no \"key\"\u{1}\n\n"
        );
    }

    #[test]
    fn the_table_says_what_did_not_match() {
        let table = table(&run());
        assert!(
            table.contains(
                "[FAIL]  tool_trajectory_avg_score  0.2500  FAILED         0.0000, 0.5000\n"
            ),
            "{table}"
        );
        assert!(table.contains("  Invocation 1 trajectory mismatch:\n    Expected:\n      - a({\"x\":\"<1>\"})\n    Actual:\n      (none)\n"), "{table}");
    }

    #[test]
    fn junit_tells_failures_from_errors() {
        let junit = junit(&run());
        assert!(
            junit.contains("tests=\"4\" failures=\"1\" errors=\"2\""),
            "{junit}"
        );
        assert!(
            junit.contains("<error message=\"no &quot;key&quot;\u{fffd}\"/>"),
            "{junit}"
        );
        assert!(
            junit.contains("(&quot;x&quot;") || junit.contains("&lt;1&gt;"),
            "{junit}"
        );
    }

    #[test]
    fn the_json_has_the_names_of_the_command_line() {
        let json = json(&run());
        assert_eq!(json["traces"][0]["metrics"][1]["duration_ms"], 15500.0);
        assert!(json["traces"][0]["metrics"][1].get("details").is_none());
        assert_eq!(
            json["traces"][0]["metrics"][2]["eval_status"],
            "NOT_EVALUATED"
        );
        assert!(!run().is_success());
    }

    #[test]
    fn durations_are_short() {
        for (ms, text) in [
            (0.4, "0ms"),
            (999.4, "999ms"),
            (1_500.0, "1.5s"),
            (123_000.0, "2m 3s"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
