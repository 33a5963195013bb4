//! `GET /traces/{trace_id}/events`: a trace's events, page by page.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tailspan_core::{
    continuity::{Continuity, locate},
    cursor::Cursor,
    event::Event,
    format,
    id::{TenantId, TraceId},
    lens::Lens,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Glimpse, LensParams, Params, Tenant, TracePath},
    log::read::{PageSize, ReadFrom},
};
#[cfg(feature = "openapi")]
use tailspan_service::{extract::TraceSegment, openapi::TraceNotFound};
use tracing::error;

/// Events of a page when nobody says, and at most: who asks for more gets as many.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// Bytes of events on one page: with their attributes a thousand could be gigabytes. An event that is larger stands on a page of its own.
const PAGE_BYTES: usize = 4 << 20;

/// Where a page begins and how long it may be.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct EventsQuery {
    /// Events of a page; more than 1000 gives 1000.
    #[cfg_attr(feature = "openapi", param(minimum = 1, default = 100))]
    limit: Option<usize>,
    /// Only what comes after: the `next_cursor` of the page before, or the `id` of a stream's frame.
    #[cfg_attr(feature = "openapi", param(pattern = "^[0-9]{1,15}(-[0-9]{1,9})?$"))]
    cursor: Option<String>,
    /// Events that are let pass and not shown; the answer then says how many there are in all.
    offset: Option<u64>,
}

impl EventsQuery {
    /// Counting pages, unless a cursor is given: as the seed does.
    pub(crate) fn counted(self) -> Self {
        Self {
            offset: self.offset.or(self.cursor.is_none().then_some(0)),
            ..self
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Events {
    trace_id: TraceId,
    /// Events of the trace.
    total: u64,
    /// With `offset`: those of them that the level and the filters let pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    matching: Option<u64>,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<tailspan_core::openapi::AnyEvent>))]
    events: Vec<Box<RawValue>>,
    /// For the next page, and for a stream that goes on from here; absent when this was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Where the last event shown or left out stands.
    cursor: String,
    /// Events that cannot be shown: before these, or where their numbers leave a hole.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Gap {
    #[cfg_attr(feature = "openapi", schema(value_type = tailspan_service::openapi::GapReason))]
    reason: &'static str,
    from: u64,
    to: u64,
}

/// Some events of a trace.
pub(crate) struct EventsPage {
    pub(crate) events: Vec<Event>,
    /// The same, as JSON in the form asked for.
    pub(crate) lines: Vec<Box<RawValue>>,
    pub(crate) total: u64,
    pub(crate) matching: Option<u64>,
    pub(crate) cursor: Cursor,
    pub(crate) next: Option<Cursor>,
    pub(crate) gap: Option<Gap>,
}

/// The events of a trace in their order, page by page.
///
/// A page also ends at 4 MiB of events; a larger event stands on a page of its own.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/events", tag = "traces", params(TraceSegment, EventsQuery, LensParams),
    responses(
        (status = 200, description = "a page of events", body = Events),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_events(
    State(app): State<App>,
    Tenant(tenant, viewer): Tenant<Glimpse>,
    TracePath(trace): TracePath,
    Params(query): Params<EventsQuery>,
    Params(lens): Params<LensParams>,
) -> Result<Json<Events>, ApiError> {
    let lens = lens.for_viewer(viewer)?.lens()?;
    let page = page(&app, &tenant, &trace, &query, PAGE, &lens).await?;
    Ok(Json(Events {
        trace_id: trace,
        total: page.total,
        matching: page.matching,
        events: page.lines,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
        cursor: page.cursor.to_string(),
        gap: page.gap,
    }))
}

/// Reads a page of events through a lens; `usual` is its length when the query does not say.
///
/// # Errors
/// 400 for a query that cannot be read, 404 for a trace that is not there, 503.
pub(crate) async fn page(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    query: &EventsQuery,
    usual: usize,
    lens: &Lens,
) -> Result<EventsPage, ApiError> {
    let invalid = |message: &str| ApiError::invalid("invalid_parameter", message);
    let limit = query.limit.unwrap_or(usual).min(LARGEST_PAGE);
    if limit == 0 {
        return Err(invalid("limit must be at least 1"));
    }
    let mut cursor: Cursor = match &query.cursor {
        Some(text) => text.parse().map_err(|_| {
            ApiError::invalid("invalid_cursor", "cursor must be <seq> or <seq>-<mark>")
        })?,
        None => Cursor::START,
    };
    if query.offset.is_some() && query.cursor.is_some() {
        return Err(invalid("cursor and offset exclude one another"));
    }
    let mut to_skip = query.offset.unwrap_or(0);
    // Who counts pages is told how many there are: the rest is read for it.
    let is_counted = query.offset.is_some();
    let asked = cursor;
    let mut page = EventsPage {
        events: Vec::new(),
        lines: Vec::new(),
        total: 0,
        matching: is_counted.then_some(0),
        cursor,
        next: None,
        gap: None,
    };
    let (mut bytes, mut is_full) = (0, false);
    loop {
        let read = app
            .log
            .page_or_archived(
                tenant,
                trace,
                ReadFrom::Holding(cursor.seq),
                PageSize::LARGE,
            )
            .await?;
        let state = read
            .state
            .filter(|state| !state.dead)
            .ok_or_else(|| ApiError::trace_not_found(trace))?;
        match locate(
            cursor,
            state.extent(),
            read.chunks.first().map(|chunk| chunk.span),
        ) {
            Continuity::Continues => {}
            Continuity::Trimmed { from, to } => {
                page.gap = Some(Gap {
                    reason: "trimmed",
                    from,
                    to,
                });
                cursor = Cursor {
                    seq: to,
                    mark: None,
                };
                continue;
            }
            Continuity::Replaced => {
                page.gap = Some(Gap {
                    reason: "replaced",
                    from: cursor.seq,
                    to: cursor.seq,
                });
                cursor = Cursor::START;
                continue;
            }
        }
        let before = cursor;
        'page: for chunk in &read.chunks {
            if chunk.span.last <= cursor.seq {
                continue;
            }
            let recorded = app.log.recorded(tenant, trace, chunk).await?;
            let unread = chunk.unread(&recorded);
            for recorded in recorded {
                if recorded.seq <= cursor.seq {
                    continue;
                }
                if let Some(event) = lens.event(trace, &recorded, &app.config.prices) {
                    page.matching = page.matching.map(|count| count + 1);
                    if to_skip > 0 {
                        to_skip -= 1;
                    } else if !is_full {
                        let line = line(trace, &event, lens)?;
                        let more = bytes + line.get().len();
                        is_full = page.events.len() >= limit
                            || !page.events.is_empty() && more > PAGE_BYTES;
                        if is_full {
                            page.next = Some(cursor);
                            page.cursor = cursor;
                            if !is_counted {
                                break 'page;
                            }
                        } else {
                            bytes = more;
                            page.lines.push(line);
                            page.events.push(event);
                        }
                    }
                }
                cursor = Cursor::new(recorded.seq, chunk.span.mark);
            }
            if let Some((from, to)) = unread {
                if page.gap.is_some() && !is_full {
                    // One gap an answer: this one stands at the head of the next page.
                    break 'page;
                }
                if !is_full {
                    let reason = "unreadable";
                    page.gap = Some(Gap { reason, from, to });
                }
                cursor = chunk.span.end();
            }
        }
        let is_done = is_full || !is_counted && page.events.len() >= limit;
        let is_over = cursor.seq >= state.seq || cursor == before;
        if is_done && !is_counted || is_over {
            page.total = state.seq - state.base;
            if !is_full {
                page.cursor = cursor;
                // A page that did not get on would be asked for again and again.
                page.next = (cursor.seq < state.seq && cursor != asked).then_some(cursor);
            }
            return Ok(page);
        }
    }
}

fn line(trace: &TraceId, event: &Event, lens: &Lens) -> Result<Box<RawValue>, ApiError> {
    let line = match lens.format {
        None => to_raw_value(event),
        Some(format) => to_raw_value(&format::event(event, format)),
    };
    line.map_err(|error| {
        error!(%trace, seq = event.seq, %error, "failed to write an event as JSON");
        ApiError::internal()
    })
}
