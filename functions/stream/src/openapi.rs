//! This function's part of the API's document (tests/openapi makes it): what stands in the `data` of control frames, as types.
#![expect(dead_code, reason = "types that only say what other code writes")]

use tailspan_core::settle::Status;
use tailspan_service::openapi::GapReason;
use utoipa::{OpenApi, ToSchema};

use crate::{completion, feed, viewer};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(
    paths(
        viewer::stream_trace,
        viewer::stream_seed,
        feed::stream_session,
        feed::stream_tenant,
        completion::complete,
        completion::complete_seed
    ),
    components(schemas(tailspan_core::event::Event, GapData, EndData))
)]
pub struct Document;

/// The `data` of a frame `gap`: what cannot be shown any more.
#[derive(ToSchema)]
pub(crate) struct GapData {
    pub reason: GapReason,
    /// The first event that cannot be shown; of a trace that was replaced or is gone the first that is.
    pub from: u64,
    /// The last event that cannot be shown.
    #[schema(nullable = false)]
    pub to: Option<u64>,
    /// Of a trace that was replaced: the event that the cursor named.
    #[schema(nullable = false)]
    pub known: Option<u64>,
}

/// The `data` of a frame `end`, after which the stream closes.
#[derive(ToSchema)]
pub(crate) struct EndData {
    pub status: EndStatus,
}

/// How a run stands, or that its trace is gone.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum EndStatus {
    Run(Status),
    Gone(Gone),
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Gone {
    Deleted,
    Expired,
}

/// What an agent is asked. Every other field is passed on to it.
#[derive(ToSchema)]
pub(crate) struct CompletionRequest {
    /// What the agent is to answer. An OpenAI-compatible agent takes `messages` too, or instead; the question is their end.
    pub question: Option<String>,
    /// The conversation, as OpenAI's API has it.
    pub messages: Option<Vec<std::collections::HashMap<String, serde_json::Value>>>,
    pub session_id: Option<String>,
    pub user_id: Option<String>,
    /// Frames as they happen (the default), or one JSON.
    pub stream: Option<bool>,
    /// How much of the run is recorded and shown. When it is not said, everything is recorded, and `standard` shown.
    pub trace_level: Option<tailspan_core::verbosity::Verbosity>,
    /// `true` when it is not said.
    pub include_trace: Option<bool>,
}

/// The agent's own answer with two more fields.
#[derive(ToSchema)]
pub(crate) struct CompletionAnswer {
    pub trace_id: String,
    /// The summary of the trace, and `events`: those since the run began, at most 1,000 or 4 MiB; `next_cursor` when there are more. Absent when `include_trace` is false.
    #[schema(nullable = false)]
    pub trace: Option<std::collections::HashMap<String, serde_json::Value>>,
}
