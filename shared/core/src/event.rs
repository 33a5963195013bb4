//! One event as the world sees it: the JSON of streams and queries (docs/protocol.md, "Events").

use serde::Serialize;
use serde_json::{Map, Value};

use crate::attributes;
use crate::convention;
use crate::eval::record;
use crate::id::TraceId;
use crate::model::{Failure, Kind, Log, Message, Native, Retrieval, Span, Tool, Usage};
use crate::observed::{Recorded, What};
use crate::pricing::{Cost, Prices};

/// One event, flat; absent facts are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Position in the trace, from 1.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub seq: u64,
    pub event_type: String,
    pub trace_id: String,
    /// RFC 3339, UTC: the end of an ended span, the start of an open one, a log record's or native event's own time.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub timestamp: String,
    /// The agent's name, else the service's, else the producer's id of the agent; empty when nobody said.
    pub agent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::model::Kind>))]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// running, ok or error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::model::StepStatus>))]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<EventUsage>,
    /// US dollars, of a model call, as far as its model has a price. A call that two spans tell of has it on both; the summary counts it once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Of a model call: how the model was called.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub parameters: Map<String, Value>,
    /// From the start of a model call to the first piece of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_chunk_ms: Option<f64>,
    /// Of a retrieval: what was looked for and what was found; the chunks stand here and not in `output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<EventRetrieval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<EventTool>,
    /// What the model or the agent thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Of a model call: the messages that are new in this call (all after the last answer); the whole history is in the attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The rule that read it, as `convention:what`.
    pub convention: &'static str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub details: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub attributes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub span_events: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub resource: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub total_tokens: u64,
    pub cached_tokens: u64,
    pub cache_write_tokens: u64,
    pub reasoning_tokens: u64,
}

impl From<Usage> for EventUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input,
            output_tokens: usage.output,
            total_tokens: usage.total(),
            cached_tokens: usage.cache_read,
            cache_write_tokens: usage.cache_write,
            reasoning_tokens: usage.reasoning,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventTool {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// tool, handoff or agent_tool.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::ToolKind))]
    pub kind: &'static str,
    /// In the producer's word: function, extension, datastore, mcp, a class.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub tool_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Absent: not told. `null`, `""`, `0`, `false` and `[]` are results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl From<Tool> for EventTool {
    fn from(tool: Tool) -> Self {
        Self {
            name: tool.name,
            call_id: tool.call_id,
            kind: tool.kind.as_str(),
            tool_type: tool.tool_type,
            arguments: tool.arguments,
            result: tool.result,
            target: tool.target,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventRetrieval {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub knowledge_bases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank: Option<bool>,
    /// How many were found, also when fewer are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_total: Option<u64>,
    /// `{id, score, document, text}` each, as far as it is told; after the last of those shown a text says of how many (`5 of 7 chunks`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Value>,
}

impl From<Retrieval> for EventRetrieval {
    fn from(retrieval: Retrieval) -> Self {
        Self {
            query: retrieval.query,
            knowledge_bases: retrieval.knowledge_bases,
            top_k: retrieval.top_k,
            threshold: retrieval.threshold,
            rerank: retrieval.rerank,
            chunks_total: retrieval.chunks_total,
            chunks: retrieval
                .chunks
                .into_iter()
                .map(|chunk| serde_json::to_value(chunk).unwrap_or_default())
                .collect(),
        }
    }
}

/// An observation as an event, whole: what is shown of it is [`crate::verbosity`]'s to say.
pub fn view(trace_id: &TraceId, recorded: &Recorded) -> Event {
    let (observation, is_partial) = convention::told(&recorded.observation);
    let context = &observation.context;
    let mut event = match &observation.what {
        What::Span(span) if is_partial => of_partial(convention::read_span(span, context)),
        What::Span(span) => of_span(convention::read_span(span, context)),
        What::Log(record) => {
            let log = convention::read_log(record, context);
            let mut event = of_log(log, recorded.arrived_unix_ms);
            if record::is_result(&observation) {
                // One that tells of no score is a result too, and no error of the run.
                record::EVENT.clone_into(&mut event.event_type);
                event.error = None;
                event.details.extend(record::details(record));
            }
            event
        }
        What::Native(text) => of_native(convention::read_native(text, recorded.arrived_unix_ms)),
    };
    event.seq = recorded.seq;
    trace_id.as_str().clone_into(&mut event.trace_id);
    event
}

/// All messages that a model call was sent, also those before its new ones; `None` where no messages are told.
pub(crate) fn history(recorded: &Recorded) -> Option<Value> {
    let (observation, _) = convention::told(&recorded.observation);
    let context = &observation.context;
    let messages = match &observation.what {
        What::Span(span) => convention::read_span(span, context).input,
        What::Log(record) => convention::read_log(record, context).input,
        What::Native(_) => return None,
    };
    said(&messages)
}

/// What a model call cost.
pub(crate) fn cost_usd(event: &Event, prices: &Prices) -> Option<f64> {
    let is_call = event.kind == Some(Kind::Llm.as_str())
        || (event.kind.is_none() && event.event_type.starts_with("llm_call_"));
    let usage = event.usage.filter(|_| is_call)?;
    let usage = Usage {
        input: usage.input_tokens,
        output: usage.output_tokens,
        cache_read: usage.cached_tokens,
        cache_write: usage.cache_write_tokens,
        reasoning: usage.reasoning_tokens,
    };
    let answered = event.details.get("response_model").and_then(Value::as_str);
    prices
        .cost_of_call(
            event.model.as_deref(),
            answered,
            event.provider.as_deref(),
            &usage,
        )
        .map(Cost::usd)
}

/// As [`view`], with the producer's own words: `attributes`, `span_events`, `resource`.
pub fn view_with_attributes(trace_id: &TraceId, recorded: &Recorded) -> Event {
    let mut event = view(trace_id, recorded);
    let (observation, _) = convention::told(&recorded.observation);
    let (list, span_events) = match &observation.what {
        What::Span(span) => (&span.attributes, Some(&span.events)),
        What::Log(record) => (&record.attributes, None),
        What::Native(_) => return event,
    };
    event.attributes = Some(attributes::list_to_json(list));
    event.span_events = span_events
        .filter(|events| !events.is_empty())
        .map(|events| {
            events
                .iter()
                .map(|event| {
                    serde_json::json!({
                        "name": event.name,
                        "time": rfc3339_ns(event.time_unix_nano),
                        "attributes": attributes::list_to_json(&event.attributes),
                    })
                })
                .collect()
        });
    event.resource = Some(attributes::list_to_json(&observation.context.resource));
    event
}

/// A span's event type: what its kind is called when it is open, ended or failed.
pub fn span_event_type(kind: Kind, is_open: bool, failed: bool) -> &'static str {
    match (kind, is_open, failed) {
        (Kind::Agent, true, _) => "task_started",
        (Kind::Agent, false, false) => "agent_called",
        (Kind::Agent, false, true) => "task_failed",
        (Kind::Workflow, true, _) => "workflow_started",
        (Kind::Workflow, false, false) => "workflow_completed",
        (Kind::Workflow, false, true) => "workflow_failed",
        (Kind::Llm, true, _) => "llm_call_started",
        (Kind::Llm, false, _) => "llm_call_completed",
        (Kind::Tool, true, _) => "tool_call_started",
        (Kind::Tool, false, _) => "tool_call_completed",
        (Kind::Retriever, true, _) => "retrieval_started",
        (Kind::Retriever, false, _) => "retrieval_completed",
        (Kind::Plan, true, _) => "thinking_started",
        (Kind::Plan, false, _) => "thinking_completed",
        (_, true, _) => "node_started",
        (_, false, false) => "node_finished",
        (_, false, true) => "node_failed",
    }
}

/// The event type of a span as it was observed.
pub(crate) fn type_of_span(span: &Span, is_partial: bool) -> &'static str {
    match (span.end_ns, is_partial) {
        (None, true) => "task_progress",
        (end, _) => span_event_type(span.kind, end.is_none(), span.failure.is_some()),
    }
}

/// The event type of a log record: its own, else `log`.
pub(crate) fn type_of_log(log: &Log) -> &str {
    log.event_name.as_deref().unwrap_or("log")
}

/// A span that a log record tells of while it runs: it may be told every few seconds, so what says that it runs is no start.
fn of_partial(span: Span) -> Event {
    let is_open = span.end_ns.is_none();
    let mut event = of_span(Span {
        rule: convention::PARTIAL,
        ..span
    });
    if is_open {
        "task_progress".clone_into(&mut event.event_type);
    }
    event
}

fn of_span(span: Span) -> Event {
    let is_open = span.end_ns.is_none();
    let failed = span.failure.is_some();
    let mut details = span.details;
    let mut detail = |key: &str, value: Value| {
        details.insert(key.to_owned(), value);
    };
    if !span.finish_reasons.is_empty() {
        detail(
            "finish_reasons",
            span.finish_reasons.iter().cloned().collect(),
        );
    }
    if let Some(model) = &span.response_model {
        detail("response_model", Value::from(model.as_str()));
    }
    if span.input.len() > 1 {
        detail("input_messages", Value::from(span.input.len()));
    }
    if let Some(id) = &span.invocation_id {
        detail("invocation_id", Value::from(id.as_str()));
    }
    if span.made_up {
        detail("made_up", Value::Bool(true));
    }
    if !span.links.is_empty() {
        let links: Vec<Value> = span
            .links
            .iter()
            .map(|link| serde_json::json!({"trace_id": link.trace_id, "span_id": link.span_id}))
            .collect();
        detail("links", Value::Array(links));
    }
    let duration = span.end_ns.map(|end| duration_ms(span.start_ns, end));
    let retrieval = span.retrieval.map(EventRetrieval::from);
    let shows_chunks = shows_chunks(retrieval.as_ref());
    Event {
        event_type: span_event_type(span.kind, is_open, failed).to_owned(),
        timestamp: rfc3339_ns(span.end_ns.unwrap_or(span.start_ns)),
        agent_id: span
            .agent_id
            .or_else(|| span.agent.clone())
            .or_else(|| span.service.clone())
            .unwrap_or_default(),
        agent_name: span.agent,
        span_id: Some(span.id),
        parent_span_id: span.parent_id,
        kind: Some(span.kind.as_str()),
        status: Some(match (failed, is_open) {
            (true, _) => "error",
            (false, true) => "running",
            (false, false) => "ok",
        }),
        name: Some(span.name),
        start_time: Some(rfc3339_ns(span.start_ns)),
        end_time: span.end_ns.map(rfc3339_ns),
        duration_ms: duration,
        session_id: span.sessions.into_iter().next(),
        user_id: span.user,
        model: span.request_model.or(span.response_model),
        provider: span.provider,
        usage: span.usage.map(EventUsage::from),
        parameters: span.parameters,
        time_to_first_chunk_ms: span.time_to_first_chunk_ns.map(|ns| duration_ms(0, ns)),
        retrieval,
        tool: span.tool.map(EventTool::from),
        thinking: thoughts(&span.output),
        input: said(new_messages(&span.input)).or(span.input_value),
        output: said(&span.output)
            .or(span.output_value)
            .filter(|_| !shows_chunks),
        error: span.failure,
        service: span.service,
        convention: span.rule,
        details,
        ..Event::default()
    }
}

fn of_log(log: Log, arrived_unix_ms: u64) -> Event {
    let mut details = Map::new();
    if log.severity != 0 {
        details.insert("severity".to_owned(), Value::from(log.severity));
    }
    let has_messages = !(log.input.is_empty() && log.output.is_empty());
    if !has_messages && !log.body.is_null() {
        details.insert("body".to_owned(), log.body);
    }
    let time_ns = if log.time_ns == 0 {
        arrived_unix_ms.saturating_mul(1_000_000)
    } else {
        log.time_ns
    };
    let event_type = match log.event_name.as_deref() {
        _ if log.failure.is_some() => "error_occurred",
        Some("gen_ai.choice") => "message_generated",
        Some(name) => name,
        None => "log",
    }
    .to_owned();
    if let Some(name) = log.event_name.filter(|name| *name != event_type) {
        details.insert("event_name".to_owned(), Value::String(name));
    }
    Event {
        event_type,
        timestamp: rfc3339_ns(time_ns),
        agent_id: log
            .agent
            .clone()
            .or_else(|| log.service.clone())
            .unwrap_or_default(),
        agent_name: log.agent,
        span_id: log.span_id,
        kind: Some(Kind::Log.as_str()),
        session_id: log.sessions.into_iter().next(),
        user_id: log.user,
        model: log.model,
        provider: log.provider,
        input: said(new_messages(&log.input)),
        thinking: thoughts(&log.output),
        output: said(&log.output),
        error: log.failure,
        service: log.service,
        convention: log.rule,
        details,
        ..Event::default()
    }
}

fn of_native(native: Native) -> Event {
    let mut details = match native.details {
        Some(Value::Object(details)) => details,
        Some(other) => Map::from_iter([("details".to_owned(), other)]),
        None => Map::new(),
    };
    for (key, value) in native.rest {
        // The trace and the position are ours to say.
        if key != "trace_id" && key != "seq" {
            details.entry(key).or_insert(value);
        }
    }
    if let Some(id) = native.call_id.filter(|_| native.tool.is_none()) {
        details.insert("call_id".to_owned(), Value::String(id));
    }
    if let Some(id) = native.event_id {
        details.insert("event_id".to_owned(), Value::String(id));
    }
    let failed = native.failure.is_some();
    let retrieval = native.retrieval.map(EventRetrieval::from);
    let shows_chunks = shows_chunks(retrieval.as_ref());
    Event {
        event_type: native.event_type,
        timestamp: rfc3339_ms(native.timestamp_ms),
        // Seed 000's viewers know an agent by its id.
        agent_id: native
            .agent_id
            .clone()
            .or_else(|| native.agent_name.clone())
            .unwrap_or_default(),
        agent_name: native.agent_name,
        span_id: native.span_id,
        parent_span_id: native.parent_span_id,
        name: native.name,
        status: failed.then_some("error"),
        duration_ms: native.duration_ms,
        session_id: native.session_id,
        user_id: native.user_id,
        model: native.model,
        provider: native.provider,
        usage: native.usage.map(EventUsage::from),
        parameters: native.parameters,
        time_to_first_chunk_ms: native.time_to_first_chunk_ns.map(|ns| duration_ms(0, ns)),
        retrieval,
        tool: native.tool.map(EventTool::from),
        thinking: native.thinking,
        input: native.inputs,
        output: native.outputs.filter(|_| !shows_chunks),
        error: native.failure,
        convention: "native",
        details,
        ..Event::default()
    }
}

/// The messages after the last answer: what this call adds to the one before it.
fn new_messages(messages: &[Message]) -> &[Message] {
    let from = messages
        .iter()
        .rposition(|message| message.role == "assistant")
        .map_or(0, |at| at + 1);
    messages
        .get(from..)
        .filter(|new| !new.is_empty())
        .unwrap_or(messages)
}

fn said(messages: &[Message]) -> Option<Value> {
    if messages.is_empty() {
        return None;
    }
    Some(messages.iter().map(message_json).collect())
}

fn message_json(message: &Message) -> Value {
    let mut object = Map::new();
    object.insert("role".to_owned(), Value::from(message.role.as_str()));
    if !message.text.is_empty() || message.tool_calls.is_empty() {
        object.insert("content".to_owned(), Value::String(message.text.clone()));
    }
    if !message.tool_calls.is_empty() {
        let calls = message
            .tool_calls
            .iter()
            .map(|call| serde_json::json!({"id": call.id, "name": call.name, "arguments": call.arguments}))
            .collect();
        object.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    if let Some(id) = &message.tool_call_id {
        object.insert("tool_call_id".to_owned(), Value::from(id.as_str()));
    }
    Value::Object(object)
}

/// What was thought before an answer.
fn thoughts(output: &[Message]) -> Option<String> {
    let thoughts: Vec<&str> = output
        .iter()
        .filter_map(|message| message.thinking.as_deref())
        .collect();
    (!thoughts.is_empty()).then(|| thoughts.join("\n"))
}

fn shows_chunks(retrieval: Option<&EventRetrieval>) -> bool {
    retrieval.is_some_and(|retrieval| !retrieval.chunks.is_empty())
}
/// Milliseconds between two moments, to the microsecond; never negative.
pub(crate) fn duration_ms(start_ns: u64, end_ns: u64) -> f64 {
    (end_ns.saturating_sub(start_ns) / 1_000) as f64 / 1_000.0
}

/// RFC 3339, UTC, with microseconds.
pub fn rfc3339_ns(unix_ns: u64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        moment.microsecond()
    )
}

/// RFC 3339, UTC, with microseconds and the zone as a number, as Python writes it.
pub(crate) fn rfc3339_us(unix_us: u64) -> String {
    let mut text = rfc3339_ns(unix_us.saturating_mul(1_000));
    text.pop();
    text + "+00:00"
}

/// As [`rfc3339_ns`], with milliseconds.
pub fn rfc3339_ms(unix_ms: u64) -> String {
    // A native event may lie in a year that nanoseconds cannot count to.
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        moment.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::observed::{Context, Observation};
    use crate::wire;

    fn pair(key: &str, value: &str) -> wire::KeyValue {
        wire::KeyValue {
            key: key.into(),
            value: Some(wire::AnyValue {
                value: Some(wire::any_value::Value::String(value.into())),
            }),
        }
    }

    fn check(what: What, expected: &Value) {
        let recorded = Recorded {
            seq: 7,
            arrived_unix_ms: 1_800_000_000_000,
            observation: Observation {
                context: Arc::new(Context {
                    resource: vec![pair("service.name", "dice")],
                    ..Context::default()
                }),
                what,
            },
        };
        let trace = TraceId::parse("t-1").expect("an id");
        let seen = serde_json::to_value(view(&trace, &recorded)).expect("json");
        assert_eq!(&seen, expected);
    }

    #[test]
    fn a_failed_tool_call_keeps_its_name() {
        check(
            What::Span(Arc::new(wire::Span {
                span_id: vec![2; 8].into(),
                parent_span_id: vec![1; 8].into(),
                name: "execute_tool roll_die".to_owned(),
                start_time_unix_nano: 1_800_000_000_000_000_000,
                end_time_unix_nano: 1_800_000_000_052_100_000,
                attributes: vec![
                    pair("gen_ai.operation.name", "execute_tool"),
                    pair("gen_ai.tool.name", "roll_die"),
                    pair("gen_ai.tool.call.id", "call_1"),
                    pair("gen_ai.tool.call.arguments", r#"{"sides": 6}"#),
                    pair("gen_ai.agent.name", "roller"),
                    pair("session.id", "s"),
                ],
                status: Some(wire::Status {
                    message: "the die is lost".to_owned(),
                    code: 2,
                }),
                ..wire::Span::default()
            })),
            &json!({
                "seq": 7, "event_type": "tool_call_completed", "trace_id": "t-1", "timestamp": "2027-01-15T08:00:00.052100Z",
                "agent_id": "roller", "agent_name": "roller", "span_id": "0202020202020202", "parent_span_id": "0101010101010101",
                "kind": "tool", "name": "execute_tool roll_die", "status": "error",
                "start_time": "2027-01-15T08:00:00.000000Z", "end_time": "2027-01-15T08:00:00.052100Z", "duration_ms": 52.1,
                "session_id": "s",
                "tool": {"name": "roll_die", "call_id": "call_1", "kind": "tool", "arguments": {"sides": 6}},
                "error": {"type": "", "message": "the die is lost"},
                "service": "dice", "convention": "gen_ai:operation.name"
            }),
        );
    }

    #[test]
    fn a_plain_open_span_is_a_node_of_its_service() {
        check(
            What::Span(Arc::new(wire::Span {
                span_id: vec![2; 8].into(),
                name: "GET /".to_owned(),
                start_time_unix_nano: 1_800_000_000_000_000_000,
                ..wire::Span::default()
            })),
            &json!({
                "seq": 7, "event_type": "node_started", "trace_id": "t-1", "timestamp": "2027-01-15T08:00:00.000000Z",
                "agent_id": "dice", "span_id": "0202020202020202", "kind": "span", "name": "GET /", "status": "running",
                "start_time": "2027-01-15T08:00:00.000000Z", "service": "dice", "convention": "plain"
            }),
        );
    }

    #[test]
    fn a_native_event_keeps_its_own_words() {
        check(
            What::Native(
                r#"{"event_type": "agent_called", "agent_id": "dependent-service", "timestamp": "2025-01-20T10:30:45Z", "hue": 3, "details": {"operation": "plan"}}"#
                    .into(),
            ),
            &json!({
                "seq": 7, "event_type": "agent_called", "trace_id": "t-1", "timestamp": "2025-01-20T10:30:45.000Z",
                "agent_id": "dependent-service", "name": "plan", "convention": "native", "details": {"operation": "plan", "hue": 3}
            }),
        );
    }

    #[test]
    fn a_call_shows_what_is_new_in_it() {
        let history =
            [("user", "a"), ("assistant", "b"), ("user", "c")].map(|(role, text)| Message {
                role: role.to_owned(),
                text: text.to_owned(),
                ..Message::default()
            });
        assert_eq!(
            said(new_messages(&history)),
            Some(json!([{"role": "user", "content": "c"}]))
        );
        assert_eq!(new_messages(&history[..2]).len(), 2);
    }
}
