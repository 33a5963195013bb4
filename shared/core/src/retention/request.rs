//! A request to clean up: `{"days": 7}` or `{"older_than": "12h"}`, and how.

use serde_json::{Map, Value};

use super::{DAY_MS, ENDED, LONGEST_MS, duration_ms, ended};
use crate::convention::time_ms;
use crate::listing::Place;
use crate::settle::Status;

const FIELDS: [&str; 5] = ["days", "older_than", "status", "dry_run", "cursor"];

/// Which traces are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupRequest {
    /// Those whose last event came before, ms since 1970; never later than now.
    pub before_unix_ms: u64,
    /// Those that ended so; `None`: that ended.
    pub status: Option<Status>,
    /// They are only counted.
    pub dry_run: bool,
    /// Where the request before this one stopped.
    pub after: Option<Place>,
}

impl CleanupRequest {
    /// Reads the body of a request that came at `now_unix_ms`. `default_days`: the age when none is said, for those who always had one.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn parse(body: &[u8], now_unix_ms: u64, default_days: Option<u64>) -> Result<Self, String> {
        let body = match (body.trim_ascii().is_empty(), default_days) {
            (true, Some(_)) => Value::Object(Map::new()),
            _ => serde_json::from_slice(body)
                .map_err(|error| format!("the body is no JSON: {error}"))?,
        };
        let Value::Object(fields) = body else {
            return Err(
                "the body must be an object such as {\"days\": 7} or {\"older_than\": \"12h\"}"
                    .to_owned(),
            );
        };
        if let Some(unknown) = fields.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let known = FIELDS.join(", ");
            return Err(format!("there is no field {unknown:?}: there are {known}"));
        }
        // A field that is null was not said.
        let field = |name| fields.get(name).filter(|value: &&Value| !value.is_null());
        let age_ms = match (field("days"), field("older_than")) {
            (Some(_), Some(_)) => return Err("say days or older_than, not both".to_owned()),
            (Some(days), None) => days_ms(days)?,
            (None, Some(older_than)) => age_ms(older_than, now_unix_ms)?,
            (None, None) => match default_days {
                Some(days) => days * DAY_MS,
                None => {
                    return Err(
                        "say how old: {\"days\": 7} or {\"older_than\": \"12h\"}".to_owned()
                    );
                }
            },
        };
        Ok(Self {
            before_unix_ms: now_unix_ms.saturating_sub(age_ms),
            status: field("status").map(status).transpose()?,
            dry_run: match field("dry_run") {
                None => false,
                Some(Value::Bool(dry_run)) => *dry_run,
                Some(_) => return Err("dry_run must be true or false".to_owned()),
            },
            after: match field("cursor") {
                None => None,
                Some(cursor) => {
                    let place = cursor.as_str().and_then(|text| Place::parse(text).ok());
                    Some(place.ok_or("cursor must be the next_cursor of the answer before")?)
                }
            },
        })
    }
}

fn days_ms(days: &Value) -> Result<u64, String> {
    let most = LONGEST_MS / DAY_MS;
    let days = days.as_u64().filter(|days| (1..=most).contains(days));
    days.map(|days| days * DAY_MS)
        .ok_or_else(|| format!("days must be a whole number from 1 to {most}"))
}

fn age_ms(older_than: &Value, now_unix_ms: u64) -> Result<u64, String> {
    let text = older_than.as_str().map(str::trim).unwrap_or_default();
    if let Some(ms) = duration_ms(text) {
        return Ok(ms);
    }
    // A date: a bare number could be anything.
    let moment = Some(text)
        .filter(|text| text.get(4..5) == Some("-") && text.contains('T'))
        .and_then(|text| time_ms(&Value::from(text)));
    match moment {
        Some(moment) => now_unix_ms
            .checked_sub(moment)
            .ok_or_else(|| "older_than lies in the future".to_owned()),
        None => Err("older_than must be a time such as 2025-01-20T10:30:45Z or an age such as 90s, 30m, 12h, 7d or 2w".to_owned()),
    }
}

fn status(named: &Value) -> Result<Status, String> {
    named.as_str().and_then(ended).ok_or_else(|| {
        let known = ENDED.map(Status::as_str).join(", ");
        format!("status must be one that traces end with: {known}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[track_caller]
    fn check(body: &str) -> Result<(u64, Option<Status>, bool), String> {
        let request = CleanupRequest::parse(body.as_bytes(), NOW, None)?;
        Ok((
            NOW - request.before_unix_ms,
            request.status,
            request.dry_run,
        ))
    }

    #[test]
    fn an_age_is_said_in_days_as_a_time_or_as_a_moment() {
        let plain = |ms| Ok((ms, None, false));
        assert_eq!(check(r#"{"days": 7}"#), plain(7 * DAY_MS));
        assert_eq!(
            check(r#"{"older_than": "12h", "days": null}"#),
            plain(DAY_MS / 2)
        );
        assert_eq!(
            check(r#"{"older_than": "2027-01-15T08:59:00+01:00"}"#),
            plain(60_000)
        );
        let all = r#"{"days": 1, "status": "failed", "dry_run": true, "cursor": "17-a-b"}"#;
        assert_eq!(check(all), Ok((DAY_MS, Some(Status::Failed), true)));
        let after = CleanupRequest::parse(all.as_bytes(), NOW, None)
            .unwrap()
            .after
            .unwrap();
        assert_eq!((after.started_unix_ms, after.trace.as_str()), (17, "a-b"));
        for (body, days) in [("", 7), ("{}", 7), (r#"{"days": 2}"#, 2)] {
            let request = CleanupRequest::parse(body.as_bytes(), NOW, Some(7)).unwrap();
            assert_eq!(request.before_unix_ms, NOW - days * DAY_MS);
        }
    }

    #[test]
    fn what_is_no_age_is_refused_with_what_is_wrong() {
        for (body, told) in [
            ("", "no JSON"),
            ("[]", "must be an object"),
            ("{}", "say how old"),
            (r#"{"days": 0}"#, "1 to 36500"),
            (r#"{"days": -1}"#, "1 to 36500"),
            (r#"{"days": 1.5}"#, "1 to 36500"),
            (r#"{"days": "7"}"#, "1 to 36500"),
            (r#"{"days": 99999}"#, "1 to 36500"),
            (r#"{"days": 7, "older_than": "7d"}"#, "not both"),
            (r#"{"older_than": "0d"}"#, "older_than must be"),
            (r#"{"older_than": "-7d"}"#, "older_than must be"),
            (r#"{"older_than": 7}"#, "older_than must be"),
            (r#"{"older_than": "1700000000"}"#, "older_than must be"),
            (r#"{"older_than": "yesterday"}"#, "older_than must be"),
            (r#"{"older_than": "2999-01-01T00:00:00Z"}"#, "future"),
            (
                r#"{"days": 7, "status": "running"}"#,
                "completed, failed, lost",
            ),
            (r#"{"days": 7, "dry_run": "yes"}"#, "true or false"),
            (r#"{"days": 7, "cursor": "x"}"#, "next_cursor"),
            (
                r#"{"days": 7, "tenant": "other"}"#,
                "there is no field \"tenant\"",
            ),
        ] {
            let error = check(body).unwrap_err();
            assert!(error.contains(told), "{body}: {error}");
        }
    }
}
