//! What was counted, as lines of CloudWatch's embedded metric format (docs/operations.md, "Metrics of functions").
//!
//! Read from the text of `/metrics`, so that a metric which is added there is told here, and under the same name.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use crate::metrics::Metrics;

const NAMESPACE: &str = "Tailspan";
const PREFIX: &str = "tailspan_";
/// Metrics of one line (embedded metric format specification, "MetricDirective").
const MOST_METRICS: usize = 100;
/// Lines of one invocation: as many reasons are told. There are some dozens of them in the program.
const MOST_LINES: usize = 64;
/// Of a process, and of no use summed up over thousands of them.
const LEFT_OUT: [&str; 2] = ["tasks", "subscriptions"];

pub(super) struct Emf {
    metrics: Arc<Metrics>,
    function: String,
    /// As it was told last.
    told: Mutex<Seen>,
}

/// Samples by reason and name; the reason is empty where there is none.
type Seen = BTreeMap<(String, String), Sample>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sample {
    Counter(f64),
    Gauge(f64),
    /// Of what was observed.
    Histogram {
        sum: f64,
        count: f64,
    },
}

impl Emf {
    pub(super) fn new(metrics: Arc<Metrics>, function: String) -> Self {
        let told = Mutex::new(seen(&metrics.render()));
        Self {
            metrics,
            function,
            told,
        }
    }

    /// Writes what changed since the last time to standard output, where the platform takes such lines from.
    pub(super) fn tell(&self, request_id: &str) {
        let lines = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let now = seen(&self.metrics.render());
            let changes = changes(&told, &now);
            *told = now;
            lines(changes, &self.function, request_id, now_unix_ms())
        };
        if lines.is_empty() {
            return;
        }
        // In one go: nothing else comes between the parts of a line.
        let mut text = lines.join("\n");
        text.push('\n');
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Reads OpenMetrics text, which is our own.
fn seen(text: &str) -> Seen {
    let mut all = Seen::new();
    let (mut family, mut kind) = ("", "");
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            (family, kind) = of.split_once(' ').unwrap_or_default();
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let (series, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = family.strip_prefix(PREFIX).unwrap_or(family);
        let (Some(part), Ok(value)) = (series.strip_prefix(family), value.parse::<f64>()) else {
            continue;
        };
        if LEFT_OUT.contains(&name) || !value.is_finite() {
            continue;
        }
        let reason = labels.split_once("reason=\"");
        let reason = reason.and_then(|(_, rest)| rest.split('"').next());
        let key = (reason.unwrap_or_default().to_owned(), name.to_owned());
        match (kind, part) {
            ("counter", "_total") => {
                // Series that other labels tell apart are one here.
                if let Sample::Counter(sum) = all.entry(key).or_insert(Sample::Counter(0.0)) {
                    *sum += value;
                }
            }
            ("gauge", "") => {
                if let Sample::Gauge(sum) = all.entry(key).or_insert(Sample::Gauge(0.0)) {
                    *sum += value;
                }
            }
            ("histogram", "_sum" | "_count") => {
                let none = Sample::Histogram {
                    sum: 0.0,
                    count: 0.0,
                };
                if let Sample::Histogram { sum, count } = all.entry(key).or_insert(none) {
                    *match part {
                        "_sum" => sum,
                        _ => count,
                    } += value;
                }
            }
            _ => {}
        }
    }
    all
}

/// What is to be told, by reason: the name, its unit, its value.
type Changes = BTreeMap<String, Vec<(String, &'static str, f64)>>;

fn changes(before: &Seen, now: &Seen) -> Changes {
    let mut all = Changes::new();
    for (key, sample) in now {
        let (reason, name) = key;
        let told = match (sample, before.get(key)) {
            (Sample::Counter(now), Some(Sample::Counter(before))) => Some(now - before),
            (Sample::Counter(now), _) => Some(*now),
            (Sample::Gauge(now), before) => {
                let was = before.is_some_and(|before| *before != Sample::Gauge(0.0));
                // A gauge that became 0 is told once.
                (*now != 0.0 || was).then_some(*now)
            }
            (Sample::Histogram { sum, count }, before) => {
                let (sum_before, count_before) = match before {
                    Some(Sample::Histogram { sum, count }) => (*sum, *count),
                    _ => (0.0, 0.0),
                };
                let new = count - count_before;
                (new > 0.0).then(|| (sum - sum_before) / new)
            }
        };
        let is_count = matches!(sample, Sample::Counter(_));
        let Some(value) = told.filter(|value| !is_count || *value > 0.0) else {
            continue;
        };
        let unit = match name {
            name if name.ends_with("_seconds") => "Seconds",
            name if name.ends_with("_bytes") => "Bytes",
            _ => "Count",
        };
        let of = all.entry(reason.clone()).or_default();
        of.push((name.clone(), unit, value));
    }
    all
}

fn lines(changes: Changes, function: &str, request_id: &str, unix_ms: u64) -> Vec<String> {
    let lines = changes.iter().flat_map(|(reason, of)| {
        of.chunks(MOST_METRICS)
            .map(move |of| line(reason, of, function, request_id, unix_ms))
    });
    lines.take(MOST_LINES).collect()
}

fn line(
    reason: &str,
    of: &[(String, &str, f64)],
    function: &str,
    request_id: &str,
    unix_ms: u64,
) -> String {
    let dimensions = match reason {
        "" => json!([["function"]]),
        _ => json!([["function"], ["function", "reason"]]),
    };
    let metrics: Vec<_> = of
        .iter()
        .map(|(name, unit, _)| json!({"Name": name, "Unit": unit}))
        .collect();
    let mut root = Map::new();
    root.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": unix_ms,
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": metrics}],
        }),
    );
    root.insert("function".to_owned(), function.into());
    if !reason.is_empty() {
        root.insert("reason".to_owned(), reason.into());
    }
    root.insert("request_id".to_owned(), request_id.into());
    for (name, _, value) in of {
        root.insert(name.clone(), (*value).into());
    }
    Value::Object(root).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: &Seen, metrics: &Metrics) -> Vec<Value> {
        let now = seen(&metrics.render());
        lines(changes(before, &now), "ingest", "r-1", 1_800_000_000_000)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let metrics = Metrics::default();
        let before = seen(&metrics.render());
        assert!(told(&before, &metrics).is_empty());
        metrics.spans.inc_by(3);
        metrics.reject("invalid", 2);
        metrics.reject("rate", 1);
        metrics.viewers.inc();
        metrics.tasks.set(7);
        metrics.ring_to_frame_seconds.observe(0.002);
        metrics.ring_to_frame_seconds.observe(0.004);
        let all = told(&before, &metrics);
        let values: Vec<_> = all
            .iter()
            .map(|line| {
                let mut line = line.as_object().unwrap().clone();
                line.remove("_aws");
                Value::Object(line)
            })
            .collect();
        assert_eq!(
            Value::from(values),
            json!([
                {"function": "ingest", "request_id": "r-1", "ring_to_frame_seconds": 0.003, "spans": 3.0, "viewers": 1.0},
                {"function": "ingest", "reason": "invalid", "request_id": "r-1", "rejected": 2.0},
                {"function": "ingest", "reason": "rate", "request_id": "r-1", "rejected": 1.0},
            ])
        );
        assert_eq!(
            all.get(1).unwrap()["_aws"],
            json!({"Timestamp": 1_800_000_000_000_u64, "CloudWatchMetrics": [{
                "Namespace": "Tailspan", "Dimensions": [["function"], ["function", "reason"]], "Metrics": [{"Name": "rejected", "Unit": "Count"}],
            }]})
        );
        let before = seen(&metrics.render());
        metrics.viewers.dec();
        let all = told(&before, &metrics);
        assert_eq!(all.len(), 1);
        assert_eq!(all.first().unwrap()["viewers"], 0.0);
    }
}
