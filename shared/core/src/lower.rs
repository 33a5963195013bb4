//! What is recorded of an observation when its producer or the operator asked for less than everything (`trace_level`).
//!
//! | level | recorded |
//! | --- | --- |
//! | debug | everything, byte for byte |
//! | detailed | everything, each text of what was said to its first 200 characters |
//! | standard | names, ids, times, kinds, models, token counts, parameters that are a word or a number, ids and scores of what was retrieved, the first 200 characters of an error |
//! | minimal | the same; of an error only its type, of a retrieval only how many |
//!
//! Below `detailed` only the attributes and fields named here survive: what nobody has heard of is content. What a convention reads out of content (tokens within a
//! response, an agent's name within metadata) is read before, and put back under the convention's plain keys, so that a lowered trace has the same steps, counts and names.
//!
//! Whatever was lowered says so: spans and log records by the resource attribute [`MARK`], native events by the field [`FIELD`]. Both are also how a producer asks.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Value, json};

use crate::{
    attributes, convention,
    eval::record,
    id::hex,
    mesh,
    model::{Kind, Message, Retrieval, Usage},
    observed::{Canonical, Context, Incoming, Observation, What},
    verbosity::{PREVIEW_CHARACTERS, UnknownLevel, Verbosity, is_plain_detail, preview_text},
    wire::{self, AnyValue, KeyValue, any_value},
};

/// The resource attribute by which a producer asks, and by which its lowered spans and log records are known.
pub const MARK: &str = "tailspan.trace_level";
/// As [`MARK`], of a native event.
pub const FIELD: &str = "trace_level";

/// A name or an id that is longer is text, and cut as one.
const MAX_NAME_BYTES: usize = 512;
/// A parameter in words that is longer is content.
const MAX_WORD_BYTES: usize = 64;
/// JSON within JSON is followed so far; what is deeper is text.
const MAX_NESTED_TEXTS: usize = 4;
/// Items of a list that are kept under a name of facts.
const MAX_ITEMS: usize = 1_000;

/// Our own words in a lowered span: what kind of step it is, and what a retrieval was, where only content told it.
pub(crate) const KIND: &str = "tailspan.kind";
pub(crate) const RETRIEVAL: &str = "tailspan.retrieval";

/// Of a resource: what a process was called with, which may hold a question.
const COMMANDS: [&str; 3] = [
    "process.command",
    "process.command_args",
    "process.command_line",
];
/// Attributes that hold the text of an error.
const ERROR_TEXTS: [&str; 3] = [
    "error.message",
    "exception.message",
    "langfuse.observation.status_message",
];
/// Beside [`is_plain_detail`]: what an agent mesh's entries tell in attributes of their own.
const OF_A_MESH: [&str; 9] = [
    "event_type",
    "error_type",
    "llm_model",
    "llm_provider",
    "llm_input_tokens",
    "llm_output_tokens",
    "llm_total_tokens",
    "route_name",
    "hostname",
];
const ERRORS_OF_A_MESH: [&str; 2] = ["error", "error_message"];

/// Fields of native events that are no content, as `convention::native` reads them; beside [`is_plain_detail`].
const NATIVE_FACTS: [&str; 57] = [
    "event_type",
    "event_id",
    "trace_id",
    "timestamp",
    "agent_id",
    "agent_name",
    "span_id",
    "parent_span_id",
    "parent_span",
    "session_id",
    "user_id",
    "name",
    "component_id",
    "component_name",
    "operation",
    "function_name",
    "model",
    "model_name",
    "llm_model",
    "provider",
    "llm_provider",
    "call_id",
    "retrieval_id",
    "duration_ms",
    "latency_ms",
    "elapsed_ms",
    "elapsed_time",
    "duration_seconds",
    "success",
    "error_type",
    "prompt_tokens",
    "input_tokens",
    "llm_input_tokens",
    "completion_tokens",
    "output_tokens",
    "llm_output_tokens",
    "cached_tokens",
    "cache_read_tokens",
    "cache_read_input_tokens",
    "cache_write_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "total_tokens",
    "llm_total_tokens",
    "tokens",
    "tool_name",
    "tool_type",
    "time_to_first_chunk_ms",
    "time_to_first_token_ms",
    "ttft_ms",
    "time_to_first_chunk",
    "time_to_first_token",
    "chunks_retrieved",
    "chunks_count",
    "chunks_total",
    "finish_reason",
    "trace_level",
];

/// What a resource asks for; [`Verbosity::Debug`] when it asks for nothing.
///
/// # Errors
/// A level that is none.
pub fn asked_by(resource: &[KeyValue]) -> Result<Verbosity, UnknownLevel> {
    let Some(asked) = resource.iter().rev().find(|pair| pair.key == MARK) else {
        return Ok(Verbosity::Debug);
    };
    match asked.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::String(level)) => level.parse(),
        Some(_) => Err(UnknownLevel),
        None => Ok(Verbosity::Debug),
    }
}

/// How much was recorded of a native event that says so.
pub(crate) fn native_mark(fields: &Map<String, Value>) -> Verbosity {
    let level = fields.get(FIELD).and_then(Value::as_str);
    level
        .and_then(|level| level.parse().ok())
        .unwrap_or(Verbosity::Debug)
}

/// The events as they are recorded at a level, with the identities that they had.
pub fn lower(events: &[&Incoming], level: Verbosity) -> Vec<Incoming> {
    let mut contexts: HashMap<*const Context, Arc<Context>> = HashMap::new();
    let lowered = events.iter().map(|incoming| {
        let (context, what) = match &incoming.what {
            _ if level == Verbosity::Debug => {
                (Arc::clone(&incoming.context), incoming.what.clone())
            }
            Canonical::Native(text) => (
                Arc::clone(&incoming.context),
                Canonical::Native(native(text, level).into()),
            ),
            message => {
                let marked = contexts
                    .entry(Arc::as_ptr(&incoming.context))
                    .or_insert_with(|| Arc::new(marked(&incoming.context, level)));
                let what = match message.read() {
                    What::Span(mut whole) => {
                        span(Arc::make_mut(&mut whole), marked, level);
                        What::Span(whole)
                    }
                    What::Log(whole) => {
                        let whole = Arc::unwrap_or_clone(whole);
                        What::Log(Arc::new(log(whole, marked, level)))
                    }
                    What::Native(text) => What::Native(text),
                };
                (Arc::clone(marked), Canonical::from(&what))
            }
        };
        Incoming {
            context,
            what,
            identity: incoming.identity,
            may_end_run: incoming.may_end_run,
            trace_level: level,
        }
    });
    lowered.collect()
}

pub(crate) fn marked(context: &Context, level: Verbosity) -> Context {
    let mut context = context.clone();
    context.resource.retain(|pair| {
        let key = pair.key.as_str();
        key != MARK && (level >= Verbosity::Detailed || !COMMANDS.contains(&key))
    });
    context.resource.push(text(MARK, level.as_str()));
    context
}

fn span(span: &mut wire::Span, context: &Context, level: Verbosity) {
    let whole = convention::read_span(span, context);
    if level >= Verbosity::Detailed {
        span.attributes.iter_mut().for_each(preview_attribute);
        for event in &mut span.events {
            event.attributes.iter_mut().for_each(preview_attribute);
        }
        if let Some(status) = &mut span.status {
            status.message = error_text(&status.message, level);
        }
        for link in &mut span.links {
            link.attributes.iter_mut().for_each(preview_attribute);
        }
    } else {
        // An exception that is no failure is a step of the framework's, and its text what that step hands on.
        let of_errors = match whole.failure {
            Some(_) => level,
            None => Verbosity::Minimal,
        };
        let is_mesh = context.scope.name == mesh::SCOPE;
        keep_facts(&mut span.attributes, is_mesh, of_errors);
        span.trace_state.clear();
        span.events.retain(|event| event.name == "exception");
        for event in &mut span.events {
            keep_facts(&mut event.attributes, false, of_errors);
        }
        if let Some(status) = &mut span.status {
            status.message = error_text(&status.message, of_errors);
        }
        for link in &mut span.links {
            link.attributes.clear();
            link.trace_state.clear();
        }
    }
    restore(span, context, &whole, level);
}

/// Puts back what only content told.
fn restore(span: &mut wire::Span, context: &Context, whole: &crate::model::Span, level: Verbosity) {
    let mut left = convention::read_span(span, context);
    if left.kind != whole.kind {
        span.attributes.push(text(KIND, whole.kind.as_str()));
        left = convention::read_span(span, context);
    }
    let mut add = Vec::new();
    let mut differs = |key: &str, now: Option<&String>, before: Option<&String>| {
        if let Some(before) = before.filter(|_| now != before) {
            add.push(text(key, &name(before)));
        }
    };
    let (now, before) = (left.tool.as_ref(), whole.tool.as_ref());
    differs(
        "gen_ai.agent.name",
        left.agent.as_ref(),
        whole.agent.as_ref(),
    );
    differs("user.id", left.user.as_ref(), whole.user.as_ref());
    differs(
        "gen_ai.request.model",
        left.request_model.as_ref(),
        whole.request_model.as_ref(),
    );
    differs(
        "gen_ai.response.model",
        left.response_model.as_ref(),
        whole.response_model.as_ref(),
    );
    differs(
        "gen_ai.response.id",
        left.response_id.as_ref(),
        whole.response_id.as_ref(),
    );
    differs(
        "gen_ai.tool.name",
        now.map(|tool| &tool.name),
        before.map(|tool| &tool.name),
    );
    differs(
        "gen_ai.tool.call.id",
        now.and_then(|tool| tool.call_id.as_ref()),
        before.and_then(|tool| tool.call_id.as_ref()),
    );
    differs(
        "gen_ai.tool.type",
        now.and_then(|tool| tool.tool_type.as_ref()),
        before.and_then(|tool| tool.tool_type.as_ref()),
    );
    differs(
        "gen_ai.handoff.to_agent",
        now.and_then(|tool| tool.target.as_ref()),
        before.and_then(|tool| tool.target.as_ref()),
    );
    add_sessions(&span.attributes, &left.sessions, &whole.sessions, &mut add);
    if left.finish_reasons != whole.finish_reasons {
        let reasons = whole.finish_reasons.iter().take(16);
        add.push(text(
            "gen_ai.response.finish_reasons",
            &json!(reasons.map(|reason| name(reason)).collect::<Vec<_>>()).to_string(),
        ));
    }
    if left.usage != whole.usage
        && let Some(usage) = &whole.usage
    {
        add_usage(usage, &mut add);
    }
    if left.time_to_first_chunk_ns != whole.time_to_first_chunk_ns
        && let Some(ns) = whole.time_to_first_chunk_ns
    {
        // Half a nanosecond more: it is cut to whole ones when it is read.
        let ms = (ns as f64 + 0.5) / 1e6;
        add.push(pair(
            "ai.response.msToFirstChunk",
            any_value::Value::Double(ms),
        ));
    }
    for (name, value) in words(&whole.parameters) {
        if left.parameters.get(&name) != Some(&value) {
            let key = format!("gen_ai.request.{name}");
            match scalar(&value) {
                Some(value) => add.push(pair(&key, value)),
                None => continue,
            }
        }
    }
    if level < Verbosity::Detailed
        && let Some(retrieval) = &whole.retrieval
    {
        let told = Value::Object(lean(retrieval, level));
        add.push(text(RETRIEVAL, &told.to_string()));
    }
    if whole.kind == Kind::Llm && calls(&left.output) != calls(&whole.output) {
        add.push(text("gen_ai.output.messages", &answer(&whole.output)));
    }
    span.attributes.extend(add);
    match (&left.failure, &whole.failure) {
        // Its text said that it failed.
        (None, Some(_)) if context.scope.name == mesh::SCOPE => {
            span.attributes.push(text("success", "false"));
        }
        (None, Some(_)) => span.status.get_or_insert_default().code = 2,
        // Its text said that it did not: a hand-over that a framework reports as an exception.
        (Some(_), None) => span.status.get_or_insert_default().code = 1,
        _ => {}
    }
}

fn log(mut record: wire::LogRecord, context: &Arc<Context>, level: Verbosity) -> wire::LogRecord {
    if level >= Verbosity::Detailed {
        record.attributes.iter_mut().for_each(preview_attribute);
        if let Some(body) = &mut record.body {
            preview_any(body);
        }
        return record;
    }
    let observation = Observation {
        context: Arc::clone(context),
        what: What::Log(Arc::new(record)),
    };
    let (told, is_partial) = convention::told(&observation);
    let partial = match &told.what {
        What::Span(of) if is_partial => {
            let mut of = of.as_ref().clone();
            span(&mut of, &told.context, level);
            Some((otlp_json(&of, &told.context), of.end_time_unix_nano != 0))
        }
        _ => None,
    };
    let What::Log(record) = observation.what else {
        return wire::LogRecord::default();
    };
    let mut record = Arc::unwrap_or_clone(record);
    let whole = convention::read_log(&record, context);
    record.body = None;
    keep_facts(&mut record.attributes, false, level);
    if let Some((json, is_over)) = partial {
        let word = if is_over { "stop" } else { "heartbeat" };
        record.attributes.push(text("partial.event", word));
        record.body = text("", &json).value;
        return record;
    }
    let left = convention::read_log(&record, context);
    if left.failure.is_none() && whole.failure.is_some() {
        record.attributes.push(text("exception.type", ""));
    }
    if !calls(&whole.output).is_empty() {
        let answer = answer(&whole.output);
        match whole.is_whole_call {
            true => record
                .attributes
                .push(text("gen_ai.output.messages", &answer)),
            false => record.body = text("", &format!("{{\"message\":{answer}}}")).value,
        }
    } else if let Some(message) = whole.input.first() {
        // That something was said: of a call that no span tells of, this is all that is known.
        record.body = text(
            "",
            &json!({"role": name(&message.role), "content": ""}).to_string(),
        )
        .value;
    }
    record
}

/// Keeps the attributes that are no content, each of a size that a name may have.
fn keep_facts(list: &mut Vec<KeyValue>, is_mesh: bool, level: Verbosity) {
    list.retain_mut(|pair| {
        let key = pair.key.as_str();
        if ERROR_TEXTS.contains(&key) || is_mesh && ERRORS_OF_A_MESH.contains(&key) {
            let Some(any_value::Value::String(message)) =
                pair.value.as_mut().and_then(|value| value.value.as_mut())
            else {
                return false;
            };
            *message = error_text(message, level).into();
            return !message.is_empty();
        }
        let of_a_mesh = is_mesh && (is_plain_detail(key) || OF_A_MESH.contains(&key));
        (is_fact(key) || of_a_mesh) && pair.value.as_mut().is_some_and(keep_plain)
    });
}

fn is_fact(key: &str) -> bool {
    static FACTS: LazyLock<HashSet<&'static str>> =
        LazyLock::new(|| convention::plain_keys().collect());
    FACTS.contains(key) || record::is_fact(key)
}

/// Whether a value may stand under a name of facts: a scalar, or a list of them.
fn keep_plain(value: &mut AnyValue) -> bool {
    let is_scalar = |value: &mut AnyValue| match &mut value.value {
        Some(any_value::Value::String(text)) => {
            *text = name(text).into();
            true
        }
        Some(
            any_value::Value::Bool(_) | any_value::Value::Int(_) | any_value::Value::Double(_),
        ) => true,
        _ => false,
    };
    match &mut value.value {
        Some(any_value::Value::Array(list)) => {
            list.values.truncate(MAX_ITEMS);
            list.values.iter_mut().all(is_scalar)
        }
        _ => is_scalar(value),
    }
}

/// The text of an error, as far as a level tells it.
fn error_text(message: &str, level: Verbosity) -> String {
    match level {
        Verbosity::Minimal => String::new(),
        _ => preview_text(message, PREVIEW_CHARACTERS),
    }
}

fn name(text: &str) -> String {
    match text.len() <= MAX_NAME_BYTES {
        true => text.to_owned(),
        false => preview_text(text, PREVIEW_CHARACTERS),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, any_value::Value::String(value.into()))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

/// Sessions that were named elsewhere, under keys that are asked after those that are there.
fn add_sessions(
    attributes: &[KeyValue],
    left: &[String],
    whole: &[String],
    add: &mut Vec<KeyValue>,
) {
    let missing: Vec<_> = whole
        .iter()
        .filter(|session| !left.contains(session))
        .collect();
    let free = convention::session_keys().iter().rev();
    let free = free.filter(|key| !attributes.iter().any(|pair| pair.key == **key));
    let free: Vec<_> = free.take(missing.len()).collect();
    for (key, session) in free.into_iter().rev().zip(missing) {
        add.push(text(key, &name(session)));
    }
}

fn add_usage(usage: &Usage, add: &mut Vec<KeyValue>) {
    for (key, count) in [
        ("gen_ai.usage.input_tokens", usage.input),
        ("gen_ai.usage.output_tokens", usage.output),
        ("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
        ("gen_ai.usage.cache_write.input_tokens", usage.cache_write),
        ("gen_ai.usage.reasoning_tokens", usage.reasoning),
    ] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        add.push(pair(key, any_value::Value::Int(count)));
    }
}

/// Parameters that are a number, a truth or a word: `stop` and schemas may hold anything.
fn words(parameters: &Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    let is_word = |value: &Value| match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => text.len() <= MAX_WORD_BYTES && !text.contains(char::is_whitespace),
        _ => false,
    };
    parameters
        .iter()
        .filter(move |(name, value)| *name != "stop" && is_word(value))
        .map(|(name, value)| (name.clone(), value.clone()))
}

fn scalar(value: &Value) -> Option<any_value::Value> {
    Some(match value {
        Value::Bool(truth) => any_value::Value::Bool(*truth),
        Value::String(text) => any_value::Value::String(text.as_str().into()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => any_value::Value::Int(whole),
            None => any_value::Value::Double(number.as_f64()?),
        },
        _ => return None,
    })
}

/// How was looked and how much was found, without what was looked for and what it says.
fn lean(retrieval: &Retrieval, level: Verbosity) -> Map<String, Value> {
    let mut told = Map::new();
    let mut say = |key: &str, value: Value| {
        if !value.is_null() {
            told.insert(key.to_owned(), value);
        }
    };
    say("top_k", json!(retrieval.top_k));
    say("similarity_threshold", json!(retrieval.threshold));
    say("rerank", json!(retrieval.rerank));
    say("chunks_total", json!(retrieval.chunks_total));
    if !retrieval.knowledge_bases.is_empty() {
        let names = retrieval.knowledge_bases.iter().take(MAX_ITEMS);
        let names: Vec<_> = names.map(|base| name(base)).collect();
        say("knowledge_bases", json!(names));
    }
    if level > Verbosity::Minimal && !retrieval.chunks.is_empty() {
        let chunk = |chunk: &crate::model::Chunk| {
            let id = chunk.id.as_deref().map(name);
            json!({"id": id, "score": chunk.score})
        };
        say("chunks", retrieval.chunks.iter().map(chunk).collect());
    }
    told
}

/// The tools that an answer asks for: id and name of each call.
fn calls(output: &[Message]) -> Vec<(Option<&str>, &str)> {
    let calls = output.iter().flat_map(|message| &message.tool_calls);
    calls
        .map(|call| (call.id.as_deref(), call.name.as_str()))
        .collect()
}

/// An answer that has nothing but the tools it asks for.
fn answer(output: &[Message]) -> String {
    let parts: Vec<_> = calls(output)
        .into_iter()
        .map(|(id, tool)| match id {
            Some(id) => json!({"type": "tool_call", "id": name(id), "name": name(tool)}),
            None => json!({"type": "tool_call", "name": name(tool)}),
        })
        .collect();
    json!([{"role": "assistant", "parts": parts}]).to_string()
}

/// A span as an OTLP export of its own: the form in which log records tell of spans that are not over.
fn otlp_json(span: &wire::Span, context: &Context) -> String {
    let attributes = |list: &[KeyValue]| -> Vec<Value> {
        list.iter()
            .filter_map(|pair| {
                let value = otlp_value(pair.value.as_ref()?)?;
                Some(json!({"key": pair.key, "value": value}))
            })
            .collect()
    };
    let events: Vec<_> = span
        .events
        .iter()
        .map(|event| {
            json!({
                "name": event.name, "timeUnixNano": event.time_unix_nano.to_string(),
                "attributes": attributes(&event.attributes),
            })
        })
        .collect();
    let status = span.status.as_ref();
    let told = json!({
        // Inside a trace's log no span says which trace it is of; this reader wants to hear one.
        "traceId": "00000000000000000000000000000001",
        "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
        "events": events,
        "status": {"code": status.map_or(0, |status| status.code), "message": status.map_or("", |status| status.message.as_str())},
    });
    let scope = json!({"name": context.scope.name, "version": context.scope.version});
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&context.resource)},
        "scopeSpans": [{"scope": scope, "spans": [told]}],
    }]})
    .to_string()
}

/// A scalar or a list of them; nothing else is left where this is asked.
fn otlp_value(value: &AnyValue) -> Option<Value> {
    let scalar = |value: &AnyValue| {
        Some(match value.value.as_ref()? {
            any_value::Value::String(text) => json!({"stringValue": text}),
            any_value::Value::Bool(truth) => json!({"boolValue": truth}),
            any_value::Value::Int(number) => json!({"intValue": number.to_string()}),
            any_value::Value::Double(number) => json!({"doubleValue": number}),
            _ => return None,
        })
    };
    match value.value.as_ref()? {
        any_value::Value::Array(list) => {
            let values: Vec<_> = list.values.iter().filter_map(scalar).collect();
            Some(json!({"arrayValue": {"values": values}}))
        }
        _ => scalar(value),
    }
}

fn native(event: &str, level: Verbosity) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(event) else {
        return json!({"event_type": "unknown", (FIELD): level}).to_string();
    };
    if level >= Verbosity::Detailed {
        for (key, value) in &mut fields {
            if !NATIVE_FACTS.contains(&key.as_str()) {
                *value = previewed(value.take(), 0);
            }
        }
        fields.insert(FIELD.to_owned(), Value::from(level.as_str()));
        return Value::Object(fields).to_string();
    }
    let whole = convention::read_native(event, 0);
    let mut kept = plain_fields(&fields, |key| {
        NATIVE_FACTS.contains(&key) || is_plain_detail(key)
    });
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            kept.insert(key.to_owned(), value);
        }
    };
    let numbers = |value: &Value| value.is_number();
    if let Some(Value::Object(usage)) = fields.get("usage") {
        let usage = usage.iter().filter(|(_, count)| numbers(count)).take(64);
        let usage = usage.map(|(unit, count)| (name(unit), count.clone()));
        put("usage", Value::Object(usage.collect()));
    }
    if let Some(Value::Object(metadata)) = fields.get("metadata") {
        let facts = plain_fields(metadata, |key| NATIVE_FACTS.contains(&key));
        put("metadata", Value::Object(facts));
    }
    if let Some(Value::Object(details)) = &whole.details {
        put(
            "details",
            Value::Object(plain_fields(details, is_plain_detail)),
        );
    }
    if let Some(tool) = &whole.tool {
        put(
            "tool_name",
            json!(Some(name(&tool.name)).filter(|name| !name.is_empty())),
        );
        put("tool_type", json!(tool.tool_type.as_deref().map(name)));
    }
    if let Some(named) = &whole.name {
        put("name", Value::from(name(named)));
    }
    let parameters: Map<_, _> = words(&whole.parameters).collect();
    if !parameters.is_empty() {
        put("parameters", Value::Object(parameters));
    }
    if let Some(retrieval) = &whole.retrieval {
        for (key, value) in lean(retrieval, level) {
            put(&key, value);
        }
    }
    if let Some(failure) = &whole.failure {
        let message = error_text(&failure.message, level);
        if !failure.kind.is_empty() {
            put("error_type", Value::from(name(&failure.kind)));
        }
        match message.is_empty() {
            true => put("success", Value::Bool(false)),
            false => put("error", Value::from(message)),
        }
    }
    put(FIELD, Value::from(level.as_str()));
    Value::Object(kept).to_string()
}

/// The fields of these names that are scalars.
fn plain_fields(
    fields: &Map<String, Value>,
    is_plain: impl Fn(&str) -> bool,
) -> Map<String, Value> {
    let plain = fields.iter().filter_map(|(key, value)| {
        let value = match value {
            _ if !is_plain(key) => return None,
            Value::String(text) => Value::from(name(text)),
            Value::Array(_) | Value::Object(_) => return None,
            other => other.clone(),
        };
        Some((key.clone(), value))
    });
    plain.collect()
}

fn preview_attribute(pair: &mut KeyValue) {
    if !is_fact(&pair.key)
        && let Some(value) = &mut pair.value
    {
        preview_any(value);
    }
}

/// Cuts the texts within a value. Decoding has bounded how deep it is.
fn preview_any(value: &mut AnyValue) {
    match &mut value.value {
        Some(any_value::Value::String(text)) => *text = previewed_text(text, 0).into(),
        Some(any_value::Value::Array(list)) => list.values.iter_mut().for_each(preview_any),
        Some(any_value::Value::Map(map)) => {
            for pair in &mut map.values {
                pair.key = preview_text(&pair.key, PREVIEW_CHARACTERS).into();
                pair.value.iter_mut().for_each(preview_any);
            }
        }
        Some(any_value::Value::Bytes(bytes)) => bytes.truncate(PREVIEW_CHARACTERS),
        Some(
            any_value::Value::Bool(_) | any_value::Value::Int(_) | any_value::Value::Double(_),
        )
        | None => {}
    }
}

/// Lists and objects keep their form, so that messages stay messages; only texts are cut.
fn previewed(value: Value, nested: usize) -> Value {
    match value {
        Value::String(text) => Value::String(previewed_text(&text, nested)),
        Value::Array(list) => list
            .into_iter()
            .map(|item| previewed(item, nested))
            .collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| {
                let key = preview_text(&key, PREVIEW_CHARACTERS);
                (key, previewed(value, nested))
            })
            .collect(),
        other => other,
    }
}

/// Text that is JSON stays JSON.
fn previewed_text(text: &str, nested: usize) -> String {
    if text.len() > PREVIEW_CHARACTERS
        && nested < MAX_NESTED_TEXTS
        && let value @ (Value::Array(_) | Value::Object(_)) = attributes::parse_text(text)
    {
        return previewed(value, nested + 1).to_string();
    }
    preview_text(text, PREVIEW_CHARACTERS)
}
