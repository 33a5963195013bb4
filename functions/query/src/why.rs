//! Why a span is shown as it is.

use axum::{Json, extract::State};
use serde::Deserialize;
use tailspan_core::{
    cursor::Cursor,
    tree,
    verbosity::{self, Verbosity},
    why::{Collector, Explanation},
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{LensParams, Params, SpanPath, Tenant, View},
    log::read::{PageSize, ReadFrom},
};
#[cfg(feature = "openapi")]
use tailspan_service::{
    extract::{SpanSegment, TraceSegment},
    openapi::SpanNotFound,
};

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct WhyQuery {
    /// `false`: without what the producer sent, which may be long.
    #[cfg_attr(feature = "openapi", param(default = true))]
    attributes: Option<bool>,
}

/// Why a span is shown as it is: the rule that read it, which attributes told each fact, and everything that was sent of it.
// Reads the whole trace: a span is sent once or twice, and its log records come at any time.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/spans/{span_id}/why", tag = "traces", params(TraceSegment, SpanSegment, WhyQuery),
    responses(
        (status = 200, description = "the explanation", body = Explanation),
        (status = 404, response = SpanNotFound),
    ),
))]
pub(crate) async fn get_why(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<View>,
    SpanPath(trace, span_id): SpanPath,
    Params(query): Params<WhyQuery>,
    Params(lens): Params<LensParams>,
) -> Result<Json<Explanation>, ApiError> {
    // Who asks this wants to see what was sent: all of it, unless less is asked for.
    let level = lens.level()?.unwrap_or(Verbosity::Debug);
    let with_attributes = query.attributes.unwrap_or(true) && level == Verbosity::Debug;
    let mut collector = Collector::new(trace.clone(), &span_id, with_attributes);
    let mut cursor = Cursor::START;
    loop {
        let from = ReadFrom::After(cursor);
        let page = app
            .log
            .page_or_archived(&tenant, &trace, from, PageSize::LARGE)
            .await?;
        let state = page.state.filter(|state| !state.dead);
        state.ok_or_else(|| ApiError::trace_not_found(&trace))?;
        let Some(last) = page.chunks.last() else {
            break;
        };
        cursor = last.span.end();
        for chunk in &page.chunks {
            let recorded = app.log.recorded(&tenant, &trace, chunk).await?;
            if let Some((from, to)) = chunk.unread(&recorded) {
                collector.miss(to - from + 1);
            }
            recorded
                .iter()
                .for_each(|recorded| collector.take(recorded));
        }
    }
    let folded = app.log.folded_or_archived(&tenant, &trace).await?;
    let folded = folded.ok_or_else(|| ApiError::trace_not_found(&trace))?;
    let explanation = collector.finish(tree::rows(&folded.state, &app.config.prices));
    explanation
        .map(|mut explanation| {
            explanation.event = explanation
                .event
                .and_then(|event| verbosity::show(event, level));
            Json(explanation)
        })
        .ok_or_else(|| ApiError::span_not_found(&trace, &span_id))
}
