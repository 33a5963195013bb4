//! `GET /traces/{trace_id}/digest`: by what a viewer knows that it has every event once and in order.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tailspan_core::{
    continuity::{Continuity, locate},
    cursor::Cursor,
    id::TraceId,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Glimpse, LensParams, Params, Tenant, TracePath},
    log::read::{PageSize, ReadFrom},
};
#[cfg(feature = "openapi")]
use tailspan_service::{extract::TraceSegment, openapi::TraceNotFound};

/// How far to count.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct DigestQuery {
    /// Up to the event of this number: the last one that the viewer has. All there is when it is not said.
    through: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Digest {
    trace_id: TraceId,
    /// The number of the last event that was looked at; 0 when there is none.
    through: u64,
    /// Those that a stream with the same level, format and filters shows.
    events: u64,
    /// Those that cannot be shown any more: a stream tells of them by a `gap`.
    left_out: u64,
    /// SHA-256 of the `data` of those frames, each followed by a line feed; hex.
    sha256: String,
}

/// The count and a digest of the events that a stream shows, to compare with those that were received.
///
/// The whole trace is read for it.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/digest", tag = "traces", params(TraceSegment, DigestQuery, LensParams),
    responses(
        (status = 200, description = "the count and the digest", body = Digest),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_digest(
    State(app): State<App>,
    Tenant(tenant, viewer): Tenant<Glimpse>,
    TracePath(trace): TracePath,
    Params(query): Params<DigestQuery>,
    Params(lens): Params<LensParams>,
) -> Result<Json<Digest>, ApiError> {
    let lens = lens.for_viewer(viewer)?.lens()?;
    let through = query.through.unwrap_or(u64::MAX);
    let mut cursor = Cursor::START;
    let (mut events, mut left_out, mut hash) = (0, 0, Sha256::new());
    loop {
        let from = ReadFrom::Holding(cursor.seq);
        let read = app
            .log
            .page_or_archived(&tenant, &trace, from, PageSize::LARGE)
            .await?;
        let state = read
            .state
            .filter(|state| !state.dead)
            .ok_or_else(|| ApiError::trace_not_found(&trace))?;
        let next = read.chunks.first().map(|chunk| chunk.span);
        match locate(cursor, state.extent(), next) {
            Continuity::Continues => {}
            Continuity::Trimmed { from, to } => {
                left_out += to.min(through).saturating_sub(from.saturating_sub(1));
                cursor = Cursor {
                    seq: to,
                    mark: None,
                };
                if to >= through {
                    break;
                }
                continue;
            }
            // Begun anew while it was read: what was counted is another log's.
            Continuity::Replaced => {
                (cursor, events, left_out, hash) = (Cursor::START, 0, 0, Sha256::new());
                continue;
            }
        }
        let before = cursor;
        for chunk in &read.chunks {
            if chunk.span.last <= cursor.seq || cursor.seq >= through {
                continue;
            }
            let recorded = app.log.recorded(&tenant, &trace, chunk).await?;
            let unread = chunk.unread(&recorded);
            for recorded in recorded {
                if recorded.seq <= cursor.seq || recorded.seq > through {
                    continue;
                }
                if let Some(data) = lens.frame(&trace, &recorded, &app.config.prices) {
                    events += 1;
                    hash.update(data.as_bytes());
                    hash.update(b"\n");
                }
                cursor = Cursor::new(recorded.seq, chunk.span.mark);
            }
            if let Some((from, to)) = unread {
                left_out += to.min(through).saturating_sub(from.saturating_sub(1));
                cursor = chunk.span.end();
            }
        }
        if cursor.seq >= state.seq.min(through) || cursor == before {
            break;
        }
    }
    Ok(Json(Digest {
        trace_id: trace,
        through: cursor.seq.min(through),
        events,
        left_out,
        sha256: format!("{:x}", hash.finalize()),
    }))
}
