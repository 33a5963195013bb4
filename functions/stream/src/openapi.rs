//! This function's part of the API's document (tests/openapi makes it): what stands in the `data` of control frames, as types.
#![expect(dead_code, reason = "types that only say what other code writes")]

use tailspan_core::settle::Status;
use tailspan_service::openapi::{ErrorBody, ErrorCode, ErrorSaid, GapReason};
use utoipa::{OpenApi, ToSchema};

use crate::{completion, feed, updates, viewer};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(
    paths(
        viewer::stream_trace,
        viewer::stream_seed,
        feed::stream_session,
        feed::stream_tenant,
        updates::stream_updates,
        completion::complete,
        completion::complete_seed
    ),
    components(schemas(
        tailspan_core::event::Event,
        tailspan_core::openapi::FormattedFrame,
        GapData,
        EndData,
        SeedRemark,
        CompletionData,
        TraceHappened,
        FormattedHappened,
        FeedGap
    ))
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

/// A gap, or the end of a run while the stream goes on, as seed 001's clients are told of it.
#[derive(ToSchema)]
pub(crate) struct SeedRemark {
    pub event: RemarkName,
    pub data: Remark,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum RemarkName {
    Gap,
    End,
}

#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum Remark {
    Gap(GapData),
    End(EndData),
}

/// What happened to a trace, as the followers of many are told.
#[derive(ToSchema)]
pub(crate) struct TraceHappened {
    pub event_type: HappenedName,
    pub trace_id: String,
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// The first of the events that came.
    #[schema(nullable = false)]
    pub first_seq: Option<u64>,
    /// The last of them, or the last of the run that ended.
    pub last_seq: u64,
    /// Of a run that ended.
    #[schema(nullable = false)]
    pub status: Option<Status>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names on the wire")]
pub(crate) enum HappenedName {
    TraceStarted,
    TraceUpdated,
    TraceCompleted,
}

/// The same where a `format` is asked for.
#[derive(ToSchema)]
pub(crate) struct FormattedHappened {
    pub event: HappenedName,
    pub data: TraceHappened,
}

/// The `data` of a frame `gap` of many traces: events of one, or what happened after a place in their log.
#[derive(ToSchema)]
pub(crate) struct FeedGap {
    pub reason: GapReason,
    #[schema(nullable = false)]
    pub trace_id: Option<String>,
    #[schema(nullable = false)]
    pub from: Option<u64>,
    #[schema(nullable = false)]
    pub to: Option<u64>,
    /// The cursor after which something is missing.
    #[schema(nullable = false)]
    pub after: Option<String>,
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
    /// Absent when `include_trace` is false.
    #[schema(nullable = false)]
    pub trace: Option<CompletionTrace>,
}

/// The same for the clients of seed 001.
#[derive(ToSchema)]
pub(crate) struct SeedCompletionAnswer {
    pub trace_id: String,
    /// Absent when `include_trace` is false.
    #[schema(nullable = false)]
    pub trace: Option<SeedCompletionTrace>,
}

#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum CompletionTrace {
    Told(Box<RunSoFar>),
    /// The trace could not be read; the answer is worth having without it.
    Unread(ErrorBody),
}

#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum SeedCompletionTrace {
    Told(Box<tailspan_core::openapi::CompactSession>),
    /// The trace could not be read; the answer is worth having without it.
    Unread(ErrorBody),
}

/// A trace's summary, and its events since the run began: at most 1,000 or 4 MiB.
#[derive(ToSchema)]
pub(crate) struct RunSoFar {
    #[serde(flatten)]
    pub summary: tailspan_core::summary::Summary,
    pub events: Vec<tailspan_core::event::Event>,
    /// For `GET /traces/{trace_id}/events`, when there are more.
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// The agent failed; with the trace so far, unless the run had not begun.
#[derive(ToSchema)]
pub(crate) struct FailedCompletion {
    pub error: ErrorSaid,
    #[schema(nullable = false)]
    pub trace_id: Option<String>,
    #[schema(nullable = false)]
    pub trace: Option<CompletionTrace>,
}

/// The agent failed; with the trace so far, unless the run had not begun.
#[derive(ToSchema)]
pub(crate) struct SeedFailedCompletion {
    pub code: u16,
    pub message: String,
    /// null
    pub data: Option<String>,
    pub error: ErrorCode,
    #[schema(nullable = false)]
    pub trace_id: Option<String>,
    #[schema(nullable = false)]
    pub trace: Option<SeedCompletionTrace>,
}

/// The `data` of a frame of a completion. `[DONE]` is the last one.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum CompletionData {
    Ours(OurFrame),
    /// An event in the streaming form of seed 001, under `/v1/trace`; before the last line the compact session.
    Seed(tailspan_core::openapi::FormattedFrame),
    /// The agent's own frame, as it came.
    #[schema(value_type = Object)]
    Agent(serde_json::Value),
}

#[derive(ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub(crate) enum OurFrame {
    /// The first frame.
    TraceStarted(TraceStarted),
    /// An event of the trace; the frame's `id` is where a stream of it goes on.
    Trace(Box<tailspan_core::event::Event>),
    /// Events that cannot be shown.
    TraceGap(TraceGap),
    /// The agent failed after its first frame.
    Error(CompletionError),
}

#[derive(ToSchema)]
pub(crate) struct TraceStarted {
    pub trace_id: String,
    pub agent_id: String,
    pub trace_level: tailspan_core::verbosity::Verbosity,
    /// Where the trace can be watched.
    pub stream: String,
}

#[derive(ToSchema)]
pub(crate) struct TraceGap {
    /// As of a stream's `gap`; `unavailable`: the store did not answer at the end.
    pub reason: String,
    pub from: u64,
    #[schema(nullable = false)]
    pub to: Option<u64>,
    /// Events of the run that could not be stored.
    #[schema(nullable = false)]
    pub lost: Option<u64>,
}

#[derive(ToSchema)]
pub(crate) struct CompletionError {
    pub code: ErrorCode,
    pub message: String,
    pub trace_id: String,
}
