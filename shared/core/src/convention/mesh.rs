//! Entries of an agent mesh's stream ([`crate::mesh`] made them spans): what they say about their step.

use serde_json::{Map, Value};

use super::{Look, native};
use crate::{
    attributes::Attributes,
    mesh::SCOPE,
    model::{Failure, Kind, Span, Usage},
    observed::Context,
};

/// The details of seed 000's event shape, and what an entry calls them.
const DETAILS: &[(&str, &[&str])] = &[
    ("agent_name", &["agent_name"]),
    ("ip_address", &["ip_address", "agent_ip"]),
];

/// Shown elsewhere, or no use to a reader.
const NOT_DETAILS: &[&str] = &[
    "service.name",
    "agent_id",
    "agent_ip",
    "error",
    "event_type",
    "published_at",
];

/// Every function that an agent runs is a call of that agent, but a call of a model and the caller's side of a call to another agent, which the mesh's own tools hide.
pub(super) fn kind(look: &Look) -> Option<Kind> {
    if look.scope != SCOPE {
        return None;
    }
    let name = look.span.name.as_str();
    Some(
        if look.attributes.has("llm_model") || look.attributes.has("llm_provider") {
            Kind::Llm
        } else if name == "proxy_call_wrapper" || name.starts_with("_internal_") {
            Kind::Span
        } else {
            Kind::Agent
        },
    )
}

/// Fills in what only these entries say, and under names of their own.
pub(super) fn read(look: &Look, context: &Context, span: &mut Span) {
    let (said, agent) = (&look.attributes, Attributes::new(&context.resource));
    span.agent_id = agent.text("agent_id");
    span.agent = agent.first_text(&["agent_name", "agent_id"]);
    span.failure = failure(said);
    if span.kind == Kind::Llm {
        span.request_model = said.text("llm_model");
        span.provider = said.text("llm_provider");
        let (input, output) = (
            said.count(&["llm_input_tokens"]),
            said.count(&["llm_output_tokens"]),
        );
        // A total alone cannot be divided: what is not known to be an answer was asked.
        let input = input.or_else(|| {
            let total = said.count(&["llm_total_tokens"])?;
            Some(total.saturating_sub(output.unwrap_or(0)))
        });
        span.usage = (input.is_some() || output.is_some()).then(|| Usage {
            input: input.unwrap_or(0),
            output: output.unwrap_or(0),
            ..Usage::default()
        });
    }
    let mut details = Map::new();
    if !span.name.is_empty() {
        details.insert("operation".to_owned(), Value::from(span.name.as_str()));
    }
    for (name, keys) in DETAILS {
        if let Some(text) = agent.first_text(keys) {
            details.insert((*name).to_owned(), Value::String(text));
        }
    }
    for pair in look.span.attributes.iter().chain(&context.resource) {
        let key = pair.key.as_str();
        if NOT_DETAILS.contains(&key) || key.starts_with("llm_") {
            continue;
        }
        if let Some(text) = said.text(key).or_else(|| agent.text(key)) {
            details.entry(key).or_insert_with(|| value(&text));
        }
    }
    if let Some(failure) = &span.failure
        && !failure.message.is_empty()
    {
        let message = Value::from(failure.message.as_str());
        details.insert("error_message".to_owned(), message);
    }
    span.details = details;
}

fn failure(said: &Attributes) -> Option<Failure> {
    let unsuccessful = said.text("success").is_some_and(|word| {
        let word = word.trim().to_ascii_lowercase();
        matches!(word.as_str(), "false" | "0" | "no")
    });
    let message = said.first_text(&["error", "error_message"]);
    let status = said.count(&["status_code"]).filter(|code| *code >= 500);
    let failed = unsuccessful
        || message.is_some()
        || status.is_some()
        || said.text("event_type").as_deref() == Some("error");
    failed.then(|| Failure {
        kind: said.text("error_type").unwrap_or_default(),
        message: message
            .or_else(|| Some(format!("HTTP {}", status?)))
            .unwrap_or_default(),
    })
}

/// A number, a truth or a list that came as text, as itself.
fn value(text: &str) -> Value {
    match text {
        "True" | "true" => Value::Bool(true),
        "False" | "false" => Value::Bool(false),
        _ => match serde_json::from_str(text) {
            Ok(value @ (Value::Number(_) | Value::Array(_) | Value::Object(_))) => value,
            _ => Value::from(text),
        },
    }
}

/// Nanoseconds since 1970 of a moment as text: seconds with a fraction, digit by digit, because a float of today's seconds is only good for 240 ns; else as in any native event.
pub(crate) fn text_time_ns(text: &str) -> Option<u64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    // Up to the year 5138; longer numbers are of a smaller unit.
    if (1..=11).contains(&whole.len()) && digits(whole) && digits(fraction) {
        let seconds: u64 = whole.parse().ok()?;
        let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        return seconds
            .checked_mul(1_000_000_000)?
            .checked_add(nanoseconds)
            .filter(|moment| *moment > 0);
    }
    native::time_ms(&Value::from(text))?.checked_mul(1_000_000)
}
