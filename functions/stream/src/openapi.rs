//! This function's part of the API's document (tests/openapi makes it): what stands in the `data` of control frames, as types.
#![expect(dead_code, reason = "types that only say what other code writes")]

use tailspan_core::settle::Status;
use tailspan_service::openapi::GapReason;
use utoipa::{OpenApi, ToSchema};

use crate::viewer;

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(
    paths(viewer::stream_trace, viewer::stream_seed),
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
