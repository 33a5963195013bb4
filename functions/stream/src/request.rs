//! What a viewer asked for: query and headers become one value, or a 400.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header::ACCEPT};
use serde::Deserialize;
use tailspan_core::{cursor::Cursor, feed::FeedCursor};
use tailspan_service::error::ApiError;

use crate::updates::Place;

/// The longest a viewer may wait for a trace that has not begun.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct Query {
    /// Go on after this event: the `id` of its frame, `<seq>-<mark>`, or `<seq>`, unverified. `Last-Event-ID` wins.
    #[cfg_attr(feature = "openapi", param(pattern = "^[0-9]{1,15}(-[0-9]{1,9})?$"))]
    cursor: Option<String>,
    /// `start`: history first. `now`: only what comes from now on.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(start|now)$", default = "start")
    )]
    from: Option<String>,
    /// Wait so long for a trace that has not begun: `30s`, `500ms`, `2m`, at most 300 s.
    #[cfg_attr(
        feature = "openapi",
        param(
            pattern = "^([0-9]{1,2}|[12][0-9]{2}|300)s?$|^[0-9]{1,5}ms$|^[0-5]m$",
            default = "0"
        )
    )]
    wait: Option<String>,
    /// `end`: to the end of the run. `closed`: stay between the runs of the trace.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(end|closed)$", default = "end")
    )]
    until: Option<String>,
}

/// What a viewer of many traces may say beside the lens.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct FeedQuery {
    /// Go on after this: the `id` of a frame of this stream, `<ms>-<n>.<seq>`. `Last-Event-ID` wins.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^[0-9]{1,15}-[0-9]{1,15}\\.[0-9]{1,15}$")
    )]
    cursor: Option<String>,
    /// `start`: what the log of notices still holds, first. `now`: only what comes from now on. A session's stream begins at its start, a tenant's now.
    #[cfg_attr(feature = "openapi", param(pattern = "^(start|now)$"))]
    from: Option<String>,
    /// `events`: every event. `traces`: that traces began, moved and ended, and no events. `all`: both.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(all|events|traces)$", default = "all")
    )]
    view: Option<String>,
    /// Wait so long for a session that no trace has named: `30s`, `500ms`, `2m`, at most 300 s.
    #[cfg_attr(
        feature = "openapi",
        param(
            pattern = "^([0-9]{1,2}|[12][0-9]{2}|300)s?$|^[0-9]{1,5}ms$|^[0-5]m$",
            default = "0"
        )
    )]
    wait: Option<String>,
}

/// What a listener of the live view may say.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct UpdatesQuery {
    /// Go on after this: the `id` of a frame of this stream. `Last-Event-ID` wins.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^[0-9]{1,15}-[0-9]{1,15}\\.[0-9]{1,15}(\\.[0-9]{1,9})?$")
    )]
    cursor: Option<String>,
}

/// Where a listener of the live view goes on; `None`: with what comes.
///
/// # Errors
/// As [`wanted`].
pub(crate) fn wanted_updates(
    query: &UpdatesQuery,
    headers: &HeaderMap,
) -> Result<Option<Place>, ApiError> {
    check_accepts(headers)?;
    feed_cursor(query.cursor.as_deref(), headers)
}

/// The header's cursor, else the query's.
fn feed_cursor<C: FromStr>(
    of_query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Option<C>, ApiError> {
    let cursor = match (last_event_id(headers)?, of_query) {
        (Some(id), _) => Some((id, "Last-Event-ID")),
        (None, cursor) => cursor.map(|cursor| (cursor, "cursor")),
    };
    let cursor = cursor.map(|(text, name)| {
        text.parse().map_err(|_| {
            ApiError::invalid(
                "invalid_cursor",
                format!("{name} must be the id of a frame of this stream: <ms>-<n>.<seq>"),
            )
        })
    });
    cursor.transpose()
}

/// What a viewer of many traces wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WantedFeed {
    pub(crate) cursor: Option<FeedCursor>,
    pub(crate) from_now: Option<bool>,
    pub(crate) with_events: bool,
    pub(crate) with_traces: bool,
    pub(crate) wait: Duration,
}

/// As [`wanted`], of many traces.
///
/// # Errors
/// As there.
pub(crate) fn wanted_feed(query: &FeedQuery, headers: &HeaderMap) -> Result<WantedFeed, ApiError> {
    let invalid = |message: &str| ApiError::invalid("invalid_parameter", message);
    check_accepts(headers)?;
    let (with_traces, with_events) = match query.view.as_deref() {
        None | Some("all") => (true, true),
        Some("events") => (false, true),
        Some("traces") => (true, false),
        Some(_) => return Err(invalid("view must be all, events or traces")),
    };
    Ok(WantedFeed {
        cursor: feed_cursor(query.cursor.as_deref(), headers)?,
        from_now: match query.from.as_deref() {
            None => None,
            Some("start") => Some(false),
            Some("now") => Some(true),
            Some(_) => return Err(invalid("from must be start or now")),
        },
        with_events,
        with_traces,
        wait: query
            .wait
            .as_deref()
            .map_or(Ok(Duration::ZERO), parse_wait)?,
    })
}

fn check_accepts(headers: &HeaderMap) -> Result<(), ApiError> {
    match accepts_event_stream(headers) {
        true => Ok(()),
        false => Err(ApiError::not_acceptable(
            "this route answers text/event-stream only",
        )),
    }
}

/// What a reconnecting EventSource sends; an empty one says nothing.
fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let id = headers.get("last-event-id").map(HeaderValue::to_str);
    let id = id
        .transpose()
        .map_err(|_| invalid_cursor("Last-Event-ID"))?;
    Ok(id.filter(|id| !id.is_empty()))
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    /// Only what comes from now on.
    Now,
    Cursor(Cursor),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) from: From,
    /// How long to wait for a trace that is not there.
    pub(crate) wait: Duration,
    /// Stay between the runs of a trace.
    pub(crate) until_closed: bool,
}

/// Reads what a viewer wants. `Last-Event-ID` is what a reconnecting EventSource sends, and is newer than the URL it was made with.
///
/// # Errors
/// 400 for a parameter that cannot be read, 406 for a client that does not take event streams.
pub(crate) fn wanted(query: Query, headers: &HeaderMap) -> Result<Wanted, ApiError> {
    check_accepts(headers)?;
    let cursor = match (last_event_id(headers)?, &query.cursor) {
        (Some(id), _) => Some(id.parse().map_err(|_| invalid_cursor("Last-Event-ID"))?),
        (None, Some(cursor)) => Some(cursor.parse().map_err(|_| invalid_cursor("cursor"))?),
        (None, None) => None,
    };
    let from = match (cursor, query.from.as_deref()) {
        (Some(cursor), _) => From::Cursor(cursor),
        (None, None | Some("start")) => From::Start,
        (None, Some("now")) => From::Now,
        (None, Some(_)) => {
            return Err(ApiError::invalid(
                "invalid_parameter",
                "from must be start or now",
            ));
        }
    };
    let until_closed = match query.until.as_deref() {
        None | Some("end") => false,
        Some("closed") => true,
        Some(_) => {
            return Err(ApiError::invalid(
                "invalid_parameter",
                "until must be end or closed",
            ));
        }
    };
    Ok(Wanted {
        from,
        wait: query
            .wait
            .as_deref()
            .map_or(Ok(Duration::ZERO), parse_wait)?,
        until_closed,
    })
}

fn invalid_cursor(name: &str) -> ApiError {
    ApiError::invalid(
        "invalid_cursor",
        format!("{name} must be the id of an event of this trace: <seq> or <seq>-<mark>"),
    )
}

/// `30s`, `500ms`, `2m`, or plain seconds; at most five minutes.
fn parse_wait(text: &str) -> Result<Duration, ApiError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "" | "s" => Some(1000),
        "ms" => Some(1),
        "m" => Some(60_000),
        _ => None,
    };
    let number = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse::<u64>().ok())
        .flatten();
    unit_ms
        .zip(number)
        .and_then(|(unit, number)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|wait| *wait <= LONGEST_WAIT)
        .ok_or_else(|| {
            ApiError::invalid(
                "invalid_parameter",
                "wait must be a time such as 30s or 500ms, at most 300s",
            )
        })
}

/// Absent, `*/*`, `text/*` and `text/event-stream` will do, unless refused by `q=0`.
fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let refused = parts.any(|parameter| {
                parameter
                    .strip_prefix("q=")
                    .and_then(|q| q.parse::<f32>().ok())
                    .is_some_and(|q| q <= 0.0)
            });
            !refused && matches!(kind.as_str(), "*/*" | "text/*" | "text/event-stream")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, headers: &[(&'static str, &str)], expected: Result<Wanted, &str>) {
        let uri: axum::http::Uri = format!("/?{query}").parse().unwrap();
        let query = axum::extract::Query::<Query>::try_from_uri(&uri).unwrap().0;
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        assert_eq!(
            wanted(query, &headers).map_err(|error| error.code),
            expected
        );
    }

    const PLAIN: Wanted = Wanted {
        from: From::Start,
        wait: Duration::ZERO,
        until_closed: false,
    };

    #[test]
    fn what_a_viewer_may_ask_for() {
        let at = |seq, mark| From::Cursor(Cursor { seq, mark });
        check("", &[], Ok(PLAIN));
        check("", &[("accept", "*/*")], Ok(PLAIN));
        check(
            "from=now",
            &[],
            Ok(Wanted {
                from: From::Now,
                ..PLAIN
            }),
        );
        check(
            "cursor=7-9",
            &[],
            Ok(Wanted {
                from: at(7, Some(9)),
                ..PLAIN
            }),
        );
        check(
            "cursor=7-9",
            &[("last-event-id", "8")],
            Ok(Wanted {
                from: at(8, None),
                ..PLAIN
            }),
        );
        check(
            "wait=30s&until=closed",
            &[],
            Ok(Wanted {
                wait: Duration::from_secs(30),
                until_closed: true,
                ..PLAIN
            }),
        );
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        check("cursor=x", &[], Err("invalid_cursor"));
        check("", &[("last-event-id", "../1")], Err("invalid_cursor"));
        check("from=yesterday", &[], Err("invalid_parameter"));
        check("wait=1h", &[], Err("invalid_parameter"));
        check("wait=301", &[], Err("invalid_parameter"));
        check("until=never", &[], Err("invalid_parameter"));
        check("", &[("accept", "application/json")], Err("not_acceptable"));
        check(
            "",
            &[("accept", "text/event-stream;q=0")],
            Err("not_acceptable"),
        );
    }
}
