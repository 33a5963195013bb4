//! `/api/convert`: what trace files tell, without an evaluation.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use serde_json::Value;
use tailspan_core::{invocations::Invocation, live::compat, verbosity::preview_text};
use tailspan_service::{
    error::ApiError,
    extract::{Read, Tenant},
};

use crate::{
    Evaluate,
    answer::{Answer, Refusal},
    request::Form,
    shape::camelized,
    uploads::{TraceFile, Uploaded, format},
};

/// Characters of a preview.
const PREVIEW: usize = 200;

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Converted {
    traces: Vec<ConvertedTrace>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConvertedTrace {
    /// As the file spells it.
    trace_id: String,
    /// The turns, as those of an eval case, with camelCase keys; the keys of arguments and responses are the tools' own.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<std::collections::HashMap<String, Value>>))]
    invocations: Vec<Value>,
    warnings: Vec<String>,
    metadata: Metadata,
}

/// What is told of a trace in a line.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TraceMetadata))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    agent_name: Option<String>,
    /// null
    agent_id: Option<String>,
    model: Option<String>,
    response_model: Option<String>,
    provider: Option<String>,
    /// Microseconds since 1970.
    start_time: Option<u64>,
    /// Of the first question, 200 characters.
    user_input_preview: Option<String>,
    /// Of the first answer, 200 characters.
    final_output_preview: Option<String>,
    /// What the file is called after, when that begins as the server's own files do (`agentevals_`, `trace_`).
    session_name: Option<String>,
}

impl Metadata {
    pub(crate) fn of(trace: &Uploaded, turns: &[Invocation]) -> Self {
        let summary = trace.summary();
        let first = |names: Vec<String>| names.into_iter().next();
        let preview = |text: &str| (!text.is_empty()).then(|| preview_text(text, PREVIEW));
        let turn = turns.first();
        Self {
            agent_name: first(summary.agents),
            agent_id: None,
            model: first(summary.models),
            response_model: first(summary.response_models),
            provider: first(summary.providers),
            start_time: Some(trace.started_us).filter(|started| *started > 0),
            user_input_preview: turn.and_then(|turn| preview(&turn.user_text)),
            final_output_preview: turn.and_then(|turn| preview(&turn.agent_text)),
            session_name: session_name(&trace.file),
        }
    }
}

/// `agentevals_dice.jsonl` is of the session `dice`.
fn session_name(file: &str) -> Option<String> {
    let base = file.rsplit(['/', '\\']).next()?;
    let base = match base.rsplit_once('.') {
        Some((base, "json" | "jsonl")) => base,
        _ => base,
    };
    let of = base
        .strip_prefix("trace_")
        .or_else(|| base.strip_prefix("agentevals_"));
    of.map(str::to_owned)
}

/// What trace files tell: their turns, and of what they are.
///
/// Files that cannot be read are passed over while one can.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/convert", tag = "dev", operation_id = "dev_convert",
    request_body(content = crate::openapi::ConvertForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "the traces, in the order of the files", body = Answer<Converted>),
        (status = 413, description = "the body is too large", body = crate::openapi::DevRefusal),
        (status = 422, description = "there is no file", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn convert(
    State(evaluate): State<Evaluate>,
    _: Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<Converted>>, Refusal> {
    let form = Form::read(&evaluate.intake, request).await?;
    let files = form.files("trace_files");
    let files = files.map_err(|problem| Refusal::misshapen(vec![problem]))?;
    let files = TraceFile::all(&files)?;
    let format = format(form.text("trace_format").as_deref())?;
    let _turn = evaluate.readings.acquire().await;
    let read = tokio::task::spawn_blocking(move || {
        let (mut traces, mut errors) = (Vec::new(), Vec::new());
        for file in &files {
            match file.read(format) {
                Ok(read) => traces.extend(read.iter().map(converted)),
                Err(error) => errors.push(error),
            }
        }
        (traces, errors)
    });
    let (traces, errors) = read.await.map_err(|error| {
        tracing::error!(%error, "failed to read trace files");
        ApiError::internal()
    })?;
    if traces.is_empty() {
        let mut says = "No traces found in uploaded files".to_owned();
        if !errors.is_empty() {
            says = format!("{says}. Errors: {}", errors.join("; "));
        }
        return Err(Refusal::unusable(says));
    }
    Ok(Answer::of(Converted { traces }))
}

fn converted(trace: &Uploaded) -> ConvertedTrace {
    let turns = trace.turns();
    let shown = turns.iter().map(|turn| {
        let mut told = camelized(compat::eval_invocation(turn));
        if let (Value::Object(fields), true) = (&mut told, turn.source.from_ns > 0) {
            let seconds = turn.source.from_ns as f64 / 1e9;
            fields.insert("creationTimestamp".to_owned(), Value::from(seconds));
        }
        told
    });
    ConvertedTrace {
        trace_id: trace.trace_id.clone(),
        invocations: shown.collect(),
        warnings: match turns.is_empty() {
            true => vec!["No invocations extracted from trace.".to_owned()],
            false => Vec::new(),
        },
        metadata: Metadata::of(trace, &turns),
    }
}
