//! Dialects to meaning: which convention wrote a span, and what it says.
//!
//! Conventions drift monthly, so the rules look at the shape of what arrived, never at a version. The order of [`kinds::RULES`] decides: a
//! producer that writes two conventions side by side is read by the first that knows the span. What no rule knows stays a plain span
//! with all its attributes.

mod call;
mod content;
mod fields;
mod keys;
mod kinds;
mod labels;
mod mesh;
mod messages;
mod native;
mod partial;
mod python;
mod retrieval;
mod tools;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::attributes::{self, Attributes, Readings};
use crate::id::hex;
use crate::model::{Kind, Link, Log, Span};
use crate::observed::Context;
use crate::wire;

pub use kinds::Rule;
pub use labels::{Labels, labels};
pub(crate) use mesh::text_time_ns;
pub use native::read_native;
pub(crate) use native::{begins_run, ends_in_failure, ends_run, time_ms};
pub(crate) use partial::told;

/// The messages in a value of any known shape (OTel parts, OpenAI, Bedrock, Gemini, OpenInference, LangChain).
pub(crate) fn read_messages(value: &Value, default_role: &str) -> Vec<crate::model::Message> {
    messages::read(value, default_role)
}

/// What the rules look at.
struct Look<'a> {
    span: &'a wire::Span,
    attributes: Attributes<'a>,
    scope: &'a str,
    /// OpenInference's `metadata` or Traceloop's association properties, where LangChain names agents and threads.
    metadata: Value,
    /// Who wants to know what is read.
    readings: Option<&'a Readings>,
}

impl Look<'_> {
    /// A part of the span that is no attribute told the fact at hand.
    fn note(&self, part: &str) {
        if let Some(readings) = self.readings {
            readings.note(format!("({part})"));
        }
    }
}

/// Attributes that tell facts and no content: what is left of a span that is recorded with less.
pub(crate) fn plain_keys() -> impl Iterator<Item = &'static str> {
    keys::plain()
}

/// Attributes that name a session, in the order in which they are asked.
pub(crate) fn session_keys() -> &'static [&'static str] {
    keys::SESSIONS
}

/// The rule of spans that log records tell of before they are over.
pub(crate) const PARTIAL: &str = "partial:log";

/// The rules that decide what a span is, in their order.
pub fn rules() -> &'static [Rule] {
    kinds::RULES
}

/// Why a span was read as it was.
#[derive(Clone, Debug)]
pub struct Why {
    pub span: Span,
    /// Rules that were asked before the one that decided, and did not know the span.
    pub passed_over: Vec<&'static str>,
    /// The keys that told each fact; `(name)` and `(status)` are the span's own.
    pub read_from: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Reads a span as [`read_span`] does, and says why.
pub fn why(span: &wire::Span, context: &Context) -> Why {
    let readings = Readings::default();
    let (span, passed_over) = read_noting(span, context, Facts::All, Some(&readings));
    Why {
        span,
        passed_over,
        read_from: readings.into_keys(),
    }
}

/// Reads a span by the first convention that knows it.
///
/// Every input gives a span: missing ends stay open, an end before its start is moved to the start (clocks of strangers), unknown
/// kinds are [`Kind::Span`].
pub fn read_span(span: &wire::Span, context: &Context) -> Span {
    read_noting(span, context, Facts::All, None).0
}

/// As [`read_span`], without who it was and how it was asked: agent, session, user, service, provider, parameters, finish reasons and the response's id.
pub(crate) fn read_said(span: &wire::Span, context: &Context) -> Span {
    read_noting(span, context, Facts::Said, None).0
}

/// How much of a span is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Facts {
    All,
    Said,
}

fn read_noting(
    span: &wire::Span,
    context: &Context,
    facts: Facts,
    readings: Option<&Readings>,
) -> (Span, Vec<&'static str>) {
    let attributes = Attributes::noting(&span.attributes, "", readings);
    attributes.about("metadata");
    let metadata = fields::metadata(&attributes);
    let look = Look {
        span,
        attributes,
        scope: &context.scope.name,
        metadata,
        readings,
    };
    look.attributes.about("kind");
    let mut passed_over = Vec::new();
    let mut decided = None;
    for rule in kinds::RULES {
        if let Some(kind) = (rule.kind)(&look) {
            decided = Some((kind, rule.name));
            break;
        }
        if let Some(readings) = readings {
            passed_over.push(rule.name);
            readings.forget("kind");
        }
    }
    let (kind, rule) = decided.unwrap_or((Kind::Span, "plain"));

    let mut read = Span {
        id: hex(&span.span_id),
        parent_id: parent_id(&span.parent_span_id),
        name: span.name.clone(),
        kind,
        rule,
        scope: context.scope.name.clone(),
        start_ns: span.start_time_unix_nano,
        end_ns: (span.end_time_unix_nano != 0)
            .then(|| span.end_time_unix_nano.max(span.start_time_unix_nano)),
        links: span
            .links
            .iter()
            .map(|link| Link {
                trace_id: hex(&link.trace_id),
                span_id: hex(&link.span_id),
            })
            .collect(),
        ..Span::default()
    };
    if look.attributes.str("logfire.span_type") == Some("pending_span") {
        stand_for_the_real_span(&look, &mut read);
    }
    fields::read_said(&look, &mut read);
    if facts == Facts::All {
        fields::read_rest(&look, context, &mut read);
    }
    content::read(&look, &mut read);
    if look.scope == crate::mesh::SCOPE {
        mesh::read(&look, context, &mut read);
    }
    (read, passed_over)
}

/// Logfire announces a span that began by a copy of no length: its parent is the span that it stands for, the true parent lies in
/// an attribute (all zeros for a root). <https://logfire.pydantic.dev/docs>, `PendingSpanProcessor`.
fn stand_for_the_real_span(look: &Look, read: &mut Span) {
    if let Some(real) = read.parent_id.take() {
        read.id = real;
        read.parent_id = look
            .attributes
            .str("logfire.pending_parent_id")
            .filter(|id| id.bytes().any(|digit| digit != b'0'))
            .map(str::to_ascii_lowercase);
        read.end_ns = None;
        read.rule = "logfire:pending_span";
    }
}

fn parent_id(bytes: &[u8]) -> Option<String> {
    bytes.iter().any(|byte| *byte != 0).then(|| hex(bytes))
}

/// Reads a log record: a message of a span, a whole call of it, or just a line.
pub fn read_log(record: &wire::LogRecord, context: &Context) -> Log {
    let attributes = Attributes::new(&record.attributes);
    let body = record
        .body
        .as_ref()
        .map_or(Value::Null, attributes::to_json);
    let event_name = Some(record.event_name.as_str())
        .filter(|name| !name.is_empty())
        // JavaScript's SDK had no field for it.
        .or_else(|| attributes.str("event.name"))
        .map(str::to_owned);
    let mut log = Log {
        event_name,
        span_id: parent_id(&record.span_id),
        time_ns: if record.time_unix_nano != 0 {
            record.time_unix_nano
        } else {
            record.observed_time_unix_nano
        },
        severity: record.severity_number,
        rule: "plain",
        ..Log::default()
    };
    fields::read_log(&attributes, context, &mut log);
    content::read_log(&attributes, &body, &mut log);
    log.body = body;
    log
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::wire::{AnyValue, KeyValue, any_value};

    fn span(name: &str, attributes: &[(&str, &str)]) -> wire::Span {
        wire::Span {
            span_id: vec![2; 8].into(),
            parent_span_id: vec![1; 8].into(),
            name: name.to_owned(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            attributes: attributes
                .iter()
                .map(|(key, value)| KeyValue {
                    key: (*key).into(),
                    value: Some(AnyValue {
                        value: Some(any_value::Value::String((*value).into())),
                    }),
                })
                .collect(),
            ..wire::Span::default()
        }
    }

    fn scope(name: &str) -> Context {
        Context {
            scope: wire::Scope {
                name: name.to_owned(),
                ..wire::Scope::default()
            },
            ..Context::default()
        }
    }

    /// (kind, rule, agent, tool) of a span that some dialect wrote.
    fn check(
        in_scope: &str,
        name: &str,
        attributes: &[(&str, &str)],
        expected: (Kind, &str, Option<&str>, Option<&str>),
    ) {
        let read = read_span(&span(name, attributes), &scope(in_scope));
        let tool = read.tool.map(|tool| tool.name);
        assert_eq!(
            (read.kind, read.rule, read.agent.as_deref(), tool.as_deref()),
            expected,
            "{name}"
        );
    }

    #[test]
    fn the_first_convention_that_knows_a_span_reads_it() {
        let op = "gen_ai.operation.name";
        check(
            "x",
            "chat m",
            &[(op, "chat")],
            (Kind::Llm, "gen_ai:operation.name", None, None),
        );
        check(
            "x",
            "s",
            &[
                (op, "chat"),
                ("openinference.span.kind", "TOOL"),
                ("tool.name", "t"),
            ],
            (Kind::Tool, "openinference:span.kind", None, Some("t")),
        );
        check(
            "x",
            "s",
            &[(op, "something new")],
            (Kind::Span, "plain", None, None),
        );
        check(
            "x",
            "s",
            &[(op, "something new"), ("gen_ai.tool.name", "t")],
            (Kind::Tool, "gen_ai:tool", None, Some("t")),
        );
        check(
            "x",
            "tools/call t",
            &[("mcp.method.name", "tools/call")],
            (Kind::Tool, "mcp:method.name", None, Some("t")),
        );
        check(
            "x",
            "tools/list",
            &[("mcp.method.name", "tools/list")],
            (Kind::Mcp, "mcp:method.name", None, None),
        );
        check(
            "gcp.vertex.agent",
            "call_llm",
            &[],
            (Kind::Llm, "adk:span.name", None, None),
        );
        check(
            "gcp.vertex.agent",
            "agent_run [a b]",
            &[],
            (Kind::Agent, "adk:span.name", Some("a b"), None),
        );
        check(
            "ai",
            "ai.generateText",
            &[
                ("ai.operationId", "ai.generateText"),
                ("ai.telemetry.functionId", "f"),
            ],
            (Kind::Agent, "vercel:operationId", Some("f"), None),
        );
        check(
            "ai",
            "ai.generateText.doGenerate",
            &[("operation.name", "ai.generateText.doGenerate f")],
            (Kind::Llm, "vercel:operationId", None, None),
        );
        check(
            "x",
            "agent Assistant",
            &[],
            (Kind::Agent, "name:agent", Some("Assistant"), None),
        );
        check("x", "agent loop", &[], (Kind::Span, "plain", None, None));
        check(
            "x",
            "GET /",
            &[("http.method", "GET")],
            (Kind::Span, "plain", None, None),
        );
    }

    #[test]
    fn agents_are_named_in_many_places() {
        let kind = ("openinference.span.kind", "AGENT");
        check(
            "crewai",
            "c",
            &[kind, ("graph.node.id", "Writer\n")],
            (Kind::Agent, "openinference:span.kind", Some("Writer"), None),
        );
        check(
            "smolagents",
            "CodeAgent.run",
            &[kind],
            (
                Kind::Agent,
                "openinference:span.kind",
                Some("CodeAgent"),
                None,
            ),
        );
        check(
            "openinference.instrumentation.langchain",
            "triage",
            &[
                ("openinference.span.kind", "CHAIN"),
                ("metadata", r#"{"lc_agent_name": "triage"}"#),
            ],
            (Kind::Agent, "openinference:span.kind", Some("triage"), None),
        );
        let node = r#"{"langgraph_node": "model", "langgraph_checkpoint_ns": "planner:1|model:2"}"#;
        check(
            "langchain",
            "ChatX",
            &[("openinference.span.kind", "LLM"), ("metadata", node)],
            (Kind::Llm, "openinference:span.kind", Some("planner"), None),
        );
        let contrib = "opentelemetry.instrumentation.openai_agents";
        check(
            contrib,
            "invoke_agent Triage",
            &[
                ("gen_ai.operation.name", "invoke_agent"),
                ("gen_ai.agent.name", "OpenAI Agent"),
            ],
            (Kind::Agent, "gen_ai:operation.name", Some("Triage"), None),
        );
        check(
            contrib,
            "chat m",
            &[
                ("gen_ai.operation.name", "chat"),
                ("gen_ai.agent.name", "OpenAI Agent"),
            ],
            (Kind::Llm, "gen_ai:operation.name", None, None),
        );
    }

    #[test]
    fn a_pending_span_stands_for_the_real_one() {
        let read = read_span(
            &span(
                "s",
                &[
                    ("logfire.span_type", "pending_span"),
                    ("logfire.pending_parent_id", "00000000000000aB"),
                ],
            ),
            &Context::default(),
        );
        assert_eq!(read.id, "0101010101010101");
        assert_eq!(read.parent_id.as_deref(), Some("00000000000000ab"));
        assert_eq!(read.end_ns, None);
    }

    #[test]
    fn an_end_before_the_start_is_no_time_at_all() {
        let mut early = span("s", &[]);
        early.end_time_unix_nano = 3;
        assert_eq!(
            read_span(&early, &Context::default()).duration_ns(),
            Some(0)
        );
    }

    /// The tables of docs/conventions.md; with TAILSPAN_BLESS set they are written anew.
    #[test]
    fn the_document_shows_the_rules_and_the_keys() {
        let mut rules =
            "| # | rule | written by | looks for | reference |\n| --- | --- | --- | --- | --- |\n"
                .to_owned();
        for (at, rule) in kinds::RULES.iter().enumerate() {
            let (name, written_by, looks_for) = (rule.name, rule.written_by, rule.looks_for);
            let number = at + 1;
            let _ = writeln!(
                rules,
                "| {number} | `{name}` | {written_by} | {looks_for} | {} |",
                rule.reference
            );
        }
        let mut keys = "| fact | attributes, in this order |\n| --- | --- |\n".to_owned();
        for fact in keys::FACTS {
            let all: Vec<_> = fact.keys.iter().map(|key| format!("`{key}`")).collect();
            let _ = writeln!(keys, "| {} | {} |", fact.name, all.join(", "));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/conventions.md");
        let mut document = std::fs::read_to_string(path).unwrap();
        for (name, table) in [("rules", rules), ("keys", keys)] {
            let (begin, end) = (
                format!("<!-- {name} -->\n"),
                format!("<!-- end of {name} -->"),
            );
            let from = document.find(&begin).expect("the table's mark") + begin.len();
            let to = document.find(&end).expect("the table's mark");
            if std::env::var_os("TAILSPAN_BLESS").is_some() {
                document.replace_range(from..to, &table);
                std::fs::write(path, &document).unwrap();
            } else {
                assert_eq!(
                    &document[from..to],
                    table,
                    "run this test with TAILSPAN_BLESS=1 to write it anew"
                );
            }
        }
    }
}
