//! Lists of traces: all of a tenant's, one agent's; filtered, newest first, page by page.
//!
//! A list walks one index: that of the filter with the fewest traces within the time that was asked for. The other filters are looked up for what it walks over: labels by the same
//! script, durations and texts from the rows, the status from the traces themselves. What a request may walk is bounded; a page that is not full then has a cursor all the same.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;
use tailspan_core::{
    event::rfc3339_ms,
    id::{TenantId, TraceId},
    listing::{Condition, Filter, Invalid, KeptRow, Label, Paging, Place, Request},
    settle::Status,
    verbosity::Verbosity,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Read, Tenant},
    log::{
        now_unix_ms,
        read::TraceState,
        rows::{Listed, Walk},
    },
};

/// Index entries that one step looks at where filters are combined.
const STEP: usize = 100;
/// Steps of one request: with a cursor, and up to a numbered page, which ends at row 10,000 at the latest.
const STEPS: usize = 14;
const STEPS_TO_A_PAGE: usize = 100;
/// States asked for at the same time.
const STATES_AT_ONCE: usize = 16;

/// Parameters of a query, as they came.
pub(crate) type Pairs = Vec<(String, String)>;

/// A page of a list.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Found {
    pub(crate) traces: Vec<ListedTrace>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
    /// Traces that the list has; absent where that is not known without walking to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<u64>,
    /// In its place: the list has these, and may have more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_at_least: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page_size: Option<usize>,
}

/// Counted state, as of now; and what was summed up last (`run.as_of_seq` says up to where).
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ListedTrace {
    pub(crate) trace_id: TraceId,
    pub(crate) status: Status,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub(crate) started_at: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub(crate) last_event_at: String,
    pub(crate) total_events: u64,
    /// Runs that ended before the current one.
    pub(crate) ended_runs: u64,
    pub(crate) as_of_seq: u64,
    /// It names more agents, users and sessions than it can be found by.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) labels_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::openapi::RunRow>))]
    pub(crate) run: Option<Value>,
}

/// The traces, newest first, filtered, page by page.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces", tag = "traces",
    params(crate::openapi::OfAgent, crate::openapi::InSession, crate::openapi::ListQuery),
    responses((status = 200, description = "a page of traces", body = Found)),
))]
pub(crate) async fn list_traces(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    Params(pairs): Params<Pairs>,
) -> Result<Json<Found>, ApiError> {
    let request = Request::parse(pairs).map_err(invalid)?;
    Ok(Json(find(&app, &tenant, &request).await?))
}

/// The traces of one agent; the parameters are those of the list of all.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/agents/{agent_id}/traces", tag = "traces",
    params(("agent_id" = String, Path, description = "name or id of the agent, percent-encoded"), crate::openapi::InSession, crate::openapi::ListQuery),
    responses((status = 200, description = "a page of traces", body = Found)),
))]
pub(crate) async fn list_traces_of_agent(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    agent: Result<Path<String>, PathRejection>,
    Params(pairs): Params<Pairs>,
) -> Result<Json<Found>, ApiError> {
    let request = of_agent(agent, pairs)?;
    Ok(Json(find(&app, &tenant, &request).await?))
}

/// What is asked of the traces of an agent whose name stands in the path.
pub(crate) fn of_agent(
    agent: Result<Path<String>, PathRejection>,
    pairs: Pairs,
) -> Result<Request, ApiError> {
    let mut request = Request::parse(pairs).map_err(invalid)?;
    let agent = name_in_path(agent, "agent_id")?;
    if request.filter.agent.is_some() {
        let message = "agent_id stands in the path already";
        return Err(ApiError::invalid("invalid_parameter", message));
    }
    request.filter.agent = Some(agent);
    Ok(request)
}

/// A name of somebody else's in a path segment: any text, percent-encoded.
pub(crate) fn name_in_path(
    segment: Result<Path<String>, PathRejection>,
    what: &str,
) -> Result<String, ApiError> {
    match segment {
        Ok(Path(name)) if !name.trim().is_empty() => Ok(name),
        _ => Err(ApiError::invalid(
            "invalid_parameter",
            format!("{what} must be a name, percent-encoded as UTF-8"),
        )),
    }
}

pub(crate) fn invalid(error: Invalid) -> ApiError {
    let code = match error {
        Invalid::Parameter(_) => "invalid_parameter",
        Invalid::Cursor => "invalid_cursor",
    };
    ApiError::invalid(code, error.to_string())
}

/// A page of a tenant's traces.
///
/// # Errors
/// 400 for a numbered page that lies too deep for its filters; what the store says.
pub(crate) async fn find(
    app: &App,
    tenant: &TenantId,
    request: &Request,
) -> Result<Found, ApiError> {
    let (filter, paging) = (&request.filter, &request.paging);
    let conditions = filter.conditions();
    let (index, size, others) = most_selective(app, tenant, filter, &conditions).await?;
    let is_plain = others.is_empty() && !filter.needs_row();
    let mut list = Walking {
        app,
        tenant,
        filter,
        index,
        others: &others,
        is_plain,
        after: match paging {
            Paging::After { place, .. } => place.clone(),
            Paging::Page { .. } => None,
        },
        // Where one index says all, the rows of earlier pages need not be looked at.
        offset: if is_plain { paging.skipped() } else { 0 },
        to_skip: if is_plain { 0 } else { paging.skipped() },
        shown: Vec::new(),
        more: size > 0,
    };
    let steps = match paging {
        Paging::After { .. } => STEPS,
        Paging::Page { .. } => STEPS_TO_A_PAGE,
    };
    for _ in 0..steps {
        if !list.more || list.shown.len() >= paging.size() {
            break;
        }
        list.step(paging.size()).await?;
    }
    if list.more && list.to_skip > 0 {
        return Err(ApiError::invalid(
            "invalid_parameter",
            "this page lies too deep for these filters; follow next_cursor from the first",
        ));
    }
    let (page, page_size) = match paging {
        Paging::After { .. } => (None, None),
        Paging::Page { page, size } => (Some(*page), Some(*size)),
    };
    let begins = !matches!(paging, Paging::After { place: Some(_), .. });
    let seen = (paging.skipped() - list.to_skip + list.shown.len()) as u64;
    let total = match () {
        () if is_plain => Some(size),
        () if begins && !list.more => Some(seen),
        () => None,
    };
    Ok(Found {
        next_cursor: list.after.as_ref().filter(|_| list.more).map(Place::cursor),
        total,
        total_at_least: total.is_none().then_some(seen),
        page,
        page_size,
        traces: list.rows(request.level).await?,
    })
}

/// The index with the fewest traces within the time, how many, and what the others must say.
async fn most_selective<'a>(
    app: &App,
    tenant: &TenantId,
    filter: &Filter,
    conditions: &'a [Condition],
) -> Result<(Option<&'a Label>, u64, Vec<Condition>), ApiError> {
    let mut indexes: Vec<Option<&Label>> = conditions
        .iter()
        .filter(|condition| condition.present)
        .map(|condition| Some(&condition.label))
        .collect();
    if indexes.is_empty() {
        indexes.push(None);
    }
    let (from, to) = (filter.from_unix_ms, filter.to_unix_ms);
    let counts = app.log.count_traces(tenant, &indexes, from, to).await?;
    let smallest = indexes
        .into_iter()
        .zip(counts)
        .min_by_key(|(_, count)| *count);
    let (index, size) = smallest.unwrap_or((None, 0));
    let others = conditions
        .iter()
        .filter(|condition| Some(&condition.label) != index)
        .cloned()
        .collect();
    Ok((index, size, others))
}

/// A list that is being walked.
struct Walking<'a> {
    app: &'a App,
    tenant: &'a TenantId,
    filter: &'a Filter,
    index: Option<&'a Label>,
    others: &'a [Condition],
    /// The index alone says what is shown.
    is_plain: bool,
    /// The last trace that was looked at.
    after: Option<Place>,
    offset: usize,
    /// Rows of earlier pages that were not come by yet.
    to_skip: usize,
    shown: Vec<(Listed, TraceState, Status)>,
    more: bool,
}

impl Walking<'_> {
    async fn step(&mut self, size: usize) -> Result<(), ApiError> {
        let missing = size.saturating_sub(self.shown.len());
        let step = self
            .app
            .log
            .walk(
                self.tenant,
                Walk {
                    index: self.index,
                    others: self.others,
                    from_unix_ms: self.filter.from_unix_ms,
                    to_unix_ms: self.filter.to_unix_ms,
                    after: self.after.clone(),
                    offset: self.offset,
                    // One more than is shown tells whether there are more.
                    step: if self.is_plain { missing + 1 } else { STEP },
                    wanted: if self.filter.needs_row() {
                        STEP
                    } else {
                        missing + self.to_skip
                    },
                },
            )
            .await?;
        self.offset = 0;
        let mut shown_last = None;
        self.more = step.more;
        let Some(last) = step.last else {
            self.more = false;
            return Ok(());
        };
        let mut fitting: Vec<Listed> = step
            .found
            .into_iter()
            .filter(|listed| self.filter.admits_row(listed.row.as_deref()))
            .collect();
        let skipped = self.to_skip.min(fitting.len());
        self.to_skip -= skipped;
        fitting.drain(..skipped);
        self.after = Some(last);
        while !fitting.is_empty() {
            let missing = size - self.shown.len();
            if missing == 0 {
                // The page ends before what was looked at does.
                self.after = shown_last;
                self.more = true;
                break;
            }
            let later = fitting.split_off(missing.min(fitting.len()));
            shown_last = fitting.last().map(|listed| listed.place.clone());
            self.show(fitting).await?;
            fitting = later;
        }
        Ok(())
    }

    /// Shows those of some traces that are there, and stand as was asked for.
    async fn show(&mut self, some: Vec<Listed>) -> Result<(), ApiError> {
        let (log, tenant) = (&self.app.log, self.tenant);
        let names: Vec<TraceId> = some
            .iter()
            .map(|listed| listed.place.trace.clone())
            .collect();
        let states = stream::iter(names)
            .map(|trace| async move { log.state(tenant, &trace).await })
            .buffered(STATES_AT_ONCE);
        let states: Vec<Option<TraceState>> = states.try_collect().await?;
        for (listed, state) in some.into_iter().zip(states) {
            // A row without a trace is one whose first append is under way, or never came.
            let Some(state) = state.filter(|state| !state.dead) else {
                continue;
            };
            let status = status(self.app, &state);
            if self.filter.admits_status(status) {
                self.shown.push((listed, state, status));
            }
        }
        Ok(())
    }

    /// What was found, as a client sees it.
    async fn rows(self, level: Verbosity) -> Result<Vec<ListedTrace>, ApiError> {
        let names: Vec<&TraceId> = self
            .shown
            .iter()
            .map(|(listed, ..)| &listed.place.trace)
            .collect();
        let log = &self.app.log;
        let truncated = log.have_label(self.tenant, &Label::more(), &names).await?;
        let rows = self.shown.iter().zip(truncated);
        Ok(rows
            .map(|((listed, state, status), labels_truncated)| ListedTrace {
                trace_id: listed.place.trace.clone(),
                status: *status,
                started_at: rfc3339_ms(listed.place.started_unix_ms),
                last_event_at: rfc3339_ms(state.last_arrival_unix_ms),
                total_events: state.seq - state.base,
                ended_runs: state.run + u64::from(state.settled.is_some() || state.reopened),
                as_of_seq: state.seq,
                labels_truncated,
                run: listed.row.as_deref().and_then(|row| run(row, level)),
            })
            .collect())
    }
}

/// How a trace stands at this moment.
fn status(app: &App, state: &TraceState) -> Status {
    let patience = app.log.patience();
    let silent_ms = now_unix_ms().saturating_sub(state.last_arrival_unix_ms);
    match state.ended() {
        Some(status) => status.parse().unwrap_or(Status::Completed),
        None if silent_ms >= patience.lost_ms => Status::Lost,
        None if silent_ms >= patience.stalled_ms => Status::Stalled,
        None => Status::Running,
    }
}

/// The summary that was kept; the least level shows which step failed with which type, and no text of an error.
fn run(row: &str, level: Verbosity) -> Option<Value> {
    let mut run: Value = serde_json::from_str(KeptRow::parse(row)?.json).ok()?;
    if level == Verbosity::Minimal
        && let Some(errors) = run.get_mut("errors").and_then(Value::as_array_mut)
    {
        for error in errors.iter_mut().filter_map(Value::as_object_mut) {
            error.insert("message".to_owned(), Value::from(""));
        }
    }
    Some(run)
}
