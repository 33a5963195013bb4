//! Notifications of runs: which there are, what each says, by which id it is known, and when a delivery that failed is tried again.
//!
//! A notification is known by what it is about: the same moment of the same run gives the same id for the same endpoint, whoever finds it and however often. So a
//! receiver that remembers ids acts once.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    event::rfc3339_ms,
    id::{TenantId, TraceId},
    settle::Status,
    summary::Summary,
    verbosity::{PREVIEW_CHARACTERS, Verbosity, preview_text},
};

/// Names and errors of a body, at most; the link leads to the rest. With [`PREVIEW_CHARACTERS`] of each this keeps a body below the 20 kB that receivers are asked to
/// take (Standard Webhooks, "Payload size").
const MOST_NAMES: usize = 10;
const MOST_ERRORS: usize = 5;
const MOST_EVALUATIONS: usize = 20;

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Completed,
    Failed,
    /// Silent for so long that nobody expects its end.
    Lost,
    /// Silent for longer than a run that goes on may be.
    Stalled,
    /// An evaluator found it wanting, or could not say.
    EvaluationFailed,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Completed,
        Self::Failed,
        Self::Lost,
        Self::Stalled,
        Self::EvaluationFailed,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "run.completed",
            Self::Failed => "run.failed",
            Self::Lost => "run.lost",
            Self::Stalled => "run.stalled",
            Self::EvaluationFailed => "evaluation.failed",
        }
    }

    /// The kind that [`Kind::as_str`] names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What is told of a run that came to stand so; `None` of one that goes on.
    pub fn of(status: Status) -> Option<Self> {
        match status {
            Status::Running => None,
            Status::Stalled => Some(Self::Stalled),
            Status::Lost => Some(Self::Lost),
            Status::Completed => Some(Self::Completed),
            Status::Failed => Some(Self::Failed),
        }
    }
}

/// The moment of a run that a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment<'a> {
    pub tenant: &'a TenantId,
    pub trace: &'a TraceId,
    /// When the trace's first event arrived, ms since 1970: tells a trace from a later one of its name.
    pub began_unix_ms: u64,
    /// The run's last event then: its end's epoch.
    pub through: u64,
    pub kind: Kind,
}

impl Moment<'_> {
    /// The id of the notification for an endpoint: `msg_` and 128 bits of SHA-256 over all of it, as hex.
    pub fn id(&self, endpoint: &str) -> String {
        let mut hash = Sha256::new();
        let numbers = format!("{} {}", self.began_unix_ms, self.through);
        let parts = [
            self.tenant.as_str(),
            self.trace.as_str(),
            &numbers,
            self.kind.as_str(),
            endpoint,
        ];
        for part in parts {
            hash.update(part.as_bytes());
            // In none of them.
            hash.update(b"\0");
        }
        let bytes = hash.finalize();
        let mut id = String::from("msg_");
        for byte in bytes.iter().take(16) {
            id.push_str(&format!("{byte:02x}"));
        }
        id
    }
}

/// Whether a text may be the id of a notification.
pub fn is_id(text: &str) -> bool {
    text.strip_prefix("msg_").is_some_and(|hex| {
        hex.len() == 32
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    })
}

/// A result of an evaluator, without what it says about contents.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub name: String,
    pub score: Option<f64>,
    /// `passed`, `failed`, `not_evaluated`, or `error` where the evaluator itself failed.
    pub label: String,
}

/// What a notification is made of.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    pub moment: Moment<'a>,
    /// How many runs of the trace ended before this one.
    pub run: u64,
    /// When it happened, ms since 1970.
    pub at_unix_ms: u64,
    /// Of the run's first step.
    pub name: Option<&'a str>,
    pub summary: &'a Summary,
    /// Of [`Kind::EvaluationFailed`].
    pub evaluations: &'a [Evaluation],
    /// Where the trace can be seen.
    pub url: Option<&'a str>,
}

/// The body of a notification: `{"type", "timestamp", "data"}` as Standard Webhooks has it. Facts only: names, numbers and types of errors; above `minimal` also what
/// errors say, cut to 200 characters.
pub fn body(told: &Told<'_>, level: Verbosity) -> String {
    let summary = told.summary;
    let cut = |text: &str| preview_text(text, PREVIEW_CHARACTERS);
    let names = |names: &[String]| -> Vec<String> {
        names
            .iter()
            .take(MOST_NAMES)
            .map(|name| cut(name))
            .collect()
    };
    let errors = summary.errors.iter().take(MOST_ERRORS).map(|error| {
        let mut line = Map::new();
        line.insert("type".to_owned(), cut(&error.error_type).into());
        line.insert("kind".to_owned(), error.kind.into());
        line.insert("name".to_owned(), cut(&error.name).into());
        line.insert("agent".to_owned(), error.agent.as_deref().map(cut).into());
        if level > Verbosity::Minimal {
            line.insert("message".to_owned(), cut(&error.message).into());
        }
        Value::Object(line)
    });
    let mut data = json!({
        "tenant": told.moment.tenant.as_str(),
        "trace_id": told.moment.trace.as_str(),
        "status": summary.status.as_str(),
        "run": told.run + 1,
        "as_of_seq": told.moment.through,
        "name": told.name.map(cut),
        "agents": names(&summary.agents),
        "models": names(&summary.models),
        "sessions": names(&summary.sessions),
        "started_at": summary.started_at,
        "ended_at": summary.ended_at,
        "duration_ms": summary.duration_ms,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "total_tokens": summary.total_tokens,
        "cost_usd": summary.cost_usd,
        "errors_count": summary.errors_count,
        "errors": errors.collect::<Vec<_>>(),
    });
    let evaluations = told.evaluations.iter().take(MOST_EVALUATIONS).map(
        |found| json!({"name": cut(&found.name), "score": found.score, "label": cut(&found.label)}),
    );
    if let Some(data) = data.as_object_mut() {
        if told.moment.kind == Kind::EvaluationFailed {
            data.insert("evaluations".to_owned(), evaluations.collect());
        }
        if let Some(url) = told.url {
            data.insert("url".to_owned(), url.into());
        }
    }
    json!({
        "type": told.moment.kind.as_str(),
        "timestamp": rfc3339_ms(told.at_unix_ms),
        "data": data,
    })
    .to_string()
}

/// How long a delivery is tried: the pause before the second attempt, four times as long before each further one up to the longest, and how many attempts in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub attempts: u32,
    pub first_ms: u64,
    pub longest_ms: u64,
}

impl Default for Patience {
    /// Ten attempts within about a day: 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, then every six hours.
    fn default() -> Self {
        Self {
            attempts: 10,
            first_ms: 5_000,
            longest_ms: 6 * 3_600_000,
        }
    }
}

impl Patience {
    /// How long to wait after so many attempts, milliseconds; `None`: it is given up. `jitter` in 0..1 takes up to a fifth away, so that what failed together does not
    /// come back together. What the receiver asked for (`Retry-After`) is waited at least, up to the longest pause.
    pub fn pause_ms(&self, attempts: u32, jitter: f64, asked_ms: Option<u64>) -> Option<u64> {
        if attempts >= self.attempts {
            return None;
        }
        let times = 4_u64.saturating_pow(attempts.saturating_sub(1).min(31));
        let usual = self.first_ms.saturating_mul(times).min(self.longest_ms);
        // A fifth of a pause, below 2^53.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds of some hours"
        )]
        let less = (usual as f64 * 0.2 * jitter.clamp(0.0, 1.0)) as u64;
        let asked = asked_ms.unwrap_or_default().min(self.longest_ms);
        Some(usual.saturating_sub(less).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fold::State, pricing::Prices, summary::summary};

    fn moment<'a>(tenant: &'a TenantId, trace: &'a TraceId) -> Moment<'a> {
        Moment {
            tenant,
            trace,
            began_unix_ms: 1_763_683_200_000,
            through: 7,
            kind: Kind::Failed,
        }
    }

    #[test]
    fn a_moment_has_one_id_for_each_endpoint() {
        let (tenant, trace) = (TenantId::default(), TraceId::parse("t").unwrap());
        let moment = moment(&tenant, &trace);
        assert_eq!(moment.id("ops"), moment.id("ops"));
        assert!(is_id(&moment.id("ops")), "{}", moment.id("ops"));
        let others = [
            moment.id("other"),
            Moment {
                through: 8,
                ..moment
            }
            .id("ops"),
            Moment {
                began_unix_ms: 1,
                ..moment
            }
            .id("ops"),
            Moment {
                kind: Kind::Stalled,
                ..moment
            }
            .id("ops"),
        ];
        assert!(others.iter().all(|other| *other != moment.id("ops")));
        for none in ["", "msg_", "msg_0123", &format!("msg_{}", "G".repeat(32))] {
            assert!(!is_id(none), "{none}");
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn a_body_says_what_happened_and_no_contents() {
        let (tenant, trace) = (TenantId::default(), TraceId::parse("t").unwrap());
        let mut summary = summary(&State::default(), "t", Status::Failed, &Prices::builtin());
        summary.agents = vec!["planner".to_owned(); 30];
        summary.errors = vec![crate::summary::ErrorLine {
            span_id: "s".to_owned(),
            agent: None,
            name: "search".to_owned(),
            kind: "tool_call",
            error_type: "timeout".to_owned(),
            message: "of a secret".to_owned(),
        }];
        let told = Told {
            moment: moment(&tenant, &trace),
            run: 0,
            at_unix_ms: 1_763_683_200_000,
            name: Some("planner"),
            summary: &summary,
            evaluations: &[],
            url: Some("https://tailspan.example/runs/t"),
        };
        let minimal = body(&told, Verbosity::Minimal);
        assert!(!minimal.contains("secret"), "{minimal}");
        assert!(body(&told, Verbosity::Standard).contains("of a secret"));
        let read: Value = serde_json::from_str(&minimal).unwrap();
        assert_eq!(read["type"], "run.failed");
        assert_eq!(read["timestamp"], "2025-11-21T00:00:00.000Z");
        assert_eq!(read["data"]["status"], "failed");
        assert_eq!(read["data"]["errors"][0]["type"], "timeout");
        assert_eq!(read["data"]["agents"].as_array().unwrap().len(), MOST_NAMES);
        assert_eq!(read["data"]["url"], "https://tailspan.example/runs/t");
        assert!(read["data"].get("evaluations").is_none());
    }

    #[test]
    fn pauses_grow_and_end() {
        let patience = Patience::default();
        let pauses = |jitter| -> Vec<u64> {
            (1..)
                .map_while(|attempts| patience.pause_ms(attempts, jitter, None))
                .map(|ms| ms / 1000)
                .collect()
        };
        assert_eq!(
            pauses(0.0),
            [5, 20, 80, 320, 1280, 5120, 20480, 21600, 21600]
        );
        assert_eq!(pauses(1.0)[..3], [4, 16, 64]);
        assert_eq!(patience.pause_ms(1, 0.0, Some(60_000)), Some(60_000));
        // Nobody makes us wait for ever.
        let years = Some(u64::MAX);
        assert_eq!(patience.pause_ms(1, 0.0, years), Some(21_600_000));
        assert_eq!(patience.pause_ms(10, 0.0, years), None);
    }
}
