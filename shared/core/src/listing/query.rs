//! What a request for a list says, read once. A parameter that is not known, said twice or empty is refused: a filter that is overlooked lists everything.

use serde_json::Value;

use super::Filter;
use crate::convention::time_ms;
use crate::id::TraceId;
use crate::settle::Status;
use crate::verbosity::{UnknownLevel, Verbosity};

/// Rows of a page when nobody says, and at most.
const PAGE: usize = 20;
pub const LARGEST_PAGE: usize = 200;
/// Rows up to the end of a numbered page; beyond, a cursor is what one pages with.
const DEEPEST_PAGE: usize = 10_000;
/// Characters of a text that is searched for.
const LONGEST_TEXT: usize = 200;

const FILTERS: &str = "agent_id, user_id, session_id, status, start_time, end_time, min_duration_ms, max_duration_ms, min_duration, max_duration, has_error, text, operation, parent_span_id";
const PAGES: &str = "limit, cursor, page, page_size";
/// Said of every read; they do not choose traces.
const ELSEWHERE: [&str; 2] = ["token", "format"];

/// Why a request was not understood; the text goes to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("{0}")]
    Parameter(String),
    #[error("cursor must be the next_cursor of a list")]
    Cursor,
}

/// A place in a list: after this trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub started_unix_ms: u64,
    pub trace: TraceId,
}

impl Place {
    /// A place, as [`Place::cursor`] wrote it.
    ///
    /// # Errors
    /// It did not.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (started, trace) = text.split_once('-').ok_or(Invalid::Cursor)?;
        Ok(Self {
            started_unix_ms: started.parse().map_err(|_| Invalid::Cursor)?,
            trace: TraceId::parse(trace).map_err(|_| Invalid::Cursor)?,
        })
    }

    /// As a client sends it back.
    pub fn cursor(&self) -> String {
        format!("{}-{}", self.started_unix_ms, self.trace)
    }
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paging {
    /// `limit` rows after a place; from the newest when there is none. What is added meanwhile moves nothing.
    After { place: Option<Place>, limit: usize },
    /// As in the seed: a numbered page, from 1.
    Page { page: usize, size: usize },
}

impl Paging {
    /// Rows of a full page.
    pub fn size(&self) -> usize {
        match self {
            Self::After { limit, .. } => *limit,
            Self::Page { size, .. } => *size,
        }
    }

    /// Rows of the pages before this one.
    pub fn skipped(&self) -> usize {
        match self {
            Self::After { .. } => 0,
            Self::Page { page, size } => page.saturating_sub(1).saturating_mul(*size),
        }
    }
}

/// A request for a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub filter: Filter,
    pub paging: Paging,
    /// A row has no error's text at the least level, and the beginning of it at the others.
    pub level: Verbosity,
}

impl Request {
    /// Reads the parameters of a query, percent-decoded.
    ///
    /// # Errors
    /// [`Invalid`], naming the parameter and what it may be.
    pub fn parse(pairs: Vec<(String, String)>) -> Result<Self, Invalid> {
        let mut said = Said::of(pairs)?;
        let filter = Filter {
            agent: said.name("agent_id")?,
            user: said.name("user_id")?,
            session: said.name("session_id")?,
            status: said.read(
                "status",
                |text| text.parse::<Status>().ok(),
                "running, stalled, lost, completed or failed",
            )?,
            from_unix_ms: said.time("start_time")?,
            to_unix_ms: said.time("end_time")?,
            min_duration_ms: said.duration("min_duration_ms", "min_duration")?,
            max_duration_ms: said.duration("max_duration_ms", "max_duration")?,
            has_error: said.read(
                "has_error",
                |text| match text {
                    "true" | "1" => Some(true),
                    "false" | "0" => Some(false),
                    _ => None,
                },
                "true or false",
            )?,
            text: said.words("text")?,
            operation: said.words("operation")?,
            parent_span_id: said.words("parent_span_id")?,
        };
        ordered(
            "start_time",
            filter.from_unix_ms,
            "end_time",
            filter.to_unix_ms,
        )?;
        ordered(
            "min_duration_ms",
            filter.min_duration_ms,
            "max_duration_ms",
            filter.max_duration_ms,
        )?;
        let paging = said.paging()?;
        let level = said.level()?;
        said.nothing_else(&format!("{FILTERS}, {PAGES}, level"))?;
        Ok(Self {
            filter,
            paging,
            level,
        })
    }
}

/// `limit` and `cursor` of a list of sessions: after the session of this key that was heard of last at this moment.
///
/// # Errors
/// [`Invalid`].
pub fn page_of_sessions(
    pairs: Vec<(String, String)>,
) -> Result<(usize, Option<(u64, String)>), Invalid> {
    let mut said = Said::of(pairs)?;
    let limit = said.count("limit", LARGEST_PAGE)?.unwrap_or(PAGE);
    let after = match said.take("cursor") {
        None => None,
        Some(text) => {
            let (at, key) = text.split_once('-').ok_or(Invalid::Cursor)?;
            let key = crate::id::SessionKey::parse(key).ok_or(Invalid::Cursor)?;
            Some((
                at.parse().map_err(|_| Invalid::Cursor)?,
                key.as_str().to_owned(),
            ))
        }
    };
    // Its rows have no words that a level could take away; one that is none is told all the same.
    said.level()?;
    said.nothing_else("limit, cursor, level")?;
    Ok((limit, after))
}

fn ordered<T: PartialOrd>(
    least: &str,
    from: Option<T>,
    most: &str,
    to: Option<T>,
) -> Result<(), Invalid> {
    match (from, to) {
        (Some(from), Some(to)) if from > to => Err(Invalid::Parameter(format!(
            "{least} must not be greater than {most}"
        ))),
        _ => Ok(()),
    }
}

/// Parameters that were not looked at yet.
struct Said(Vec<(String, String)>);

impl Said {
    fn level(&mut self) -> Result<Verbosity, Invalid> {
        match self.take("level") {
            Some(text) => text
                .parse()
                .map_err(|error: UnknownLevel| Invalid::Parameter(error.to_string())),
            None => Ok(Verbosity::default()),
        }
    }

    fn of(pairs: Vec<(String, String)>) -> Result<Self, Invalid> {
        for (at, (name, value)) in pairs.iter().enumerate() {
            if value.trim().is_empty() && name == "cursor" {
                return Err(Invalid::Cursor);
            }
            if value.trim().is_empty() {
                return Err(Invalid::Parameter(format!(
                    "{name} is empty; leave it out to filter by nothing"
                )));
            }
            if pairs.iter().take(at).any(|(other, _)| other == name) {
                return Err(Invalid::Parameter(format!("{name} is given twice")));
            }
            // A stranger's list of a million parameters is not compared with itself.
            if at >= 64 {
                return Err(Invalid::Parameter(
                    "there are more parameters than are known".to_owned(),
                ));
            }
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
        rule: &str,
    ) -> Result<Option<T>, Invalid> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        match read(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(Invalid::Parameter(format!("{name} must be {rule}"))),
        }
    }

    fn name(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        self.read(name, |text| Some(text.to_owned()), "text")
    }

    fn words(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        let rule = format!("at most {LONGEST_TEXT} characters");
        self.read(
            name,
            |text| (text.chars().count() <= LONGEST_TEXT).then(|| text.to_lowercase()),
            &rule,
        )
    }

    fn time(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        self.read(
            name,
            time_of,
            "a time as RFC 3339 (2025-01-20T10:30:45Z; without a zone it is UTC), or seconds or milliseconds since 1970",
        )
    }

    /// Milliseconds as a number, or under the other name seconds as a number or with a unit.
    fn duration(&mut self, in_ms: &str, with_unit: &str) -> Result<Option<f64>, Invalid> {
        let ms = self.read(in_ms, positive, "a number of milliseconds, not negative")?;
        let text = self.read(
            with_unit,
            duration_of,
            "a duration such as 1.5s, 250ms, 2m or 1h (a bare number counts seconds)",
        )?;
        match (ms, text) {
            (Some(_), Some(_)) => Err(Invalid::Parameter(format!(
                "{in_ms} and {with_unit} say the same; give one of them"
            ))),
            (ms, text) => Ok(ms.or(text)),
        }
    }

    fn count(&mut self, name: &str, most: usize) -> Result<Option<usize>, Invalid> {
        let rule = format!("1 to {most}");
        self.read(
            name,
            |text| text.parse().ok().filter(|count| (1..=most).contains(count)),
            &rule,
        )
    }

    fn paging(&mut self) -> Result<Paging, Invalid> {
        let limit = self.count("limit", LARGEST_PAGE)?;
        let place = self
            .take("cursor")
            .as_deref()
            .map(Place::parse)
            .transpose()?;
        let page = self.count("page", DEEPEST_PAGE)?;
        let size = self.count("page_size", LARGEST_PAGE)?;
        if page.is_none() && size.is_none() {
            return Ok(Paging::After {
                place,
                limit: limit.unwrap_or(PAGE),
            });
        }
        if limit.is_some() || place.is_some() {
            return Err(Invalid::Parameter(
                "page and page_size go without limit and cursor: number pages, or follow next_cursor".to_owned(),
            ));
        }
        let (page, size) = (page.unwrap_or(1), size.unwrap_or(PAGE));
        if page.saturating_mul(size) > DEEPEST_PAGE {
            return Err(Invalid::Parameter(format!(
                "page * page_size must be at most {DEEPEST_PAGE}; follow next_cursor to go deeper"
            )));
        }
        Ok(Paging::Page { page, size })
    }

    fn nothing_else(&self, valid: &str) -> Result<(), Invalid> {
        let unknown = self.0.iter().map(|(name, _)| name.as_str());
        let mut unknown = unknown.filter(|name| !ELSEWHERE.contains(name));
        match unknown.next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(40).collect();
                Err(Invalid::Parameter(format!(
                    "there is no parameter {name:?}; valid are {valid}"
                )))
            }
        }
    }
}

/// A plus sign that was not percent-encoded comes as a blank: `2025-01-20T10:30:45 02:00`.
fn time_of(text: &str) -> Option<u64> {
    let zone = text
        .rfind(' ')
        .filter(|at| *at > 10 && text.get(..*at).is_some_and(|time| time.contains(':')));
    let mended = zone.map(|at| format!("{}+{}", &text[..at], text[at..].trim_start()));
    time_ms(&Value::from(mended.as_deref().unwrap_or(text)))
}

fn positive(text: &str) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// Milliseconds.
fn duration_of(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 4] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3)];
    let unit = UNITS
        .iter()
        .find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, *ms)));
    let (number, ms) = unit.unwrap_or((text, 1e3));
    Some(positive(number.trim())? * ms).filter(|ms| ms.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Result<Request, Invalid> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Request::parse(pairs.collect())
    }

    #[test]
    fn every_filter_is_read() {
        let read = request(&[
            ("agent_id", "Triage agent"),
            ("user_id", "u-1"),
            ("session_id", "s-1"),
            ("status", "failed"),
            ("start_time", "2025-01-20T12:30:45+02:00"),
            ("end_time", "1737369046"),
            ("min_duration_ms", "250"),
            ("max_duration", "1.5s"),
            ("has_error", "true"),
            ("text", "The Sensor"),
            ("operation", "Read_Sensor"),
            ("parent_span_id", "00F067AA0BA902B7"),
            ("limit", "7"),
            ("cursor", "1737369045000-abc-d"),
            ("token", "t"),
            ("level", "minimal"),
        ])
        .expect("valid");
        assert_eq!(
            read.filter,
            Filter {
                agent: Some("Triage agent".to_owned()),
                user: Some("u-1".to_owned()),
                session: Some("s-1".to_owned()),
                status: Some(Status::Failed),
                from_unix_ms: Some(1_737_369_045_000),
                to_unix_ms: Some(1_737_369_046_000),
                min_duration_ms: Some(250.0),
                max_duration_ms: Some(1_500.0),
                has_error: Some(true),
                text: Some("the sensor".to_owned()),
                operation: Some("read_sensor".to_owned()),
                parent_span_id: Some("00f067aa0ba902b7".to_owned()),
            }
        );
        let place = Place {
            started_unix_ms: 1_737_369_045_000,
            trace: TraceId::parse("abc-d").expect("valid"),
        };
        assert_eq!(place.cursor(), "1737369045000-abc-d");
        assert_eq!(
            read.paging,
            Paging::After {
                place: Some(place),
                limit: 7
            }
        );
        assert_eq!(read.level, Verbosity::Minimal);
    }

    #[test]
    fn a_time_without_a_zone_is_utc_and_a_lost_plus_is_found() {
        for time in [
            "2025-01-20T10:30:45",
            "2025-01-20 10:30:45",
            "2025-01-20T12:30:45 02:00",
            "1737369045",
            "1737369045000",
        ] {
            let read = request(&[("start_time", time)]).expect(time);
            assert_eq!(read.filter.from_unix_ms, Some(1_737_369_045_000), "{time}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_valid_values() {
        for (pairs, expected) in [
            (&[("agent", "a")][..], "valid are agent_id"),
            (
                &[("status", "done")],
                "status must be running, stalled, lost, completed or failed",
            ),
            (&[("start_time", "yesterday")], "start_time must be a time"),
            (
                &[("start_time", "2025-01-20T10:30:45é")],
                "start_time must be",
            ),
            (
                &[("start_time", "2"), ("end_time", "1")],
                "start_time must not be greater",
            ),
            (&[("min_duration_ms", "-1")], "not negative"),
            (&[("max_duration_ms", "nan")], "not negative"),
            (&[("min_duration", "fast")], "such as 1.5s"),
            (
                &[("min_duration", "1s"), ("min_duration_ms", "1000")],
                "say the same",
            ),
            (&[("has_error", "maybe")], "true or false"),
            (&[("agent_id", "")], "agent_id is empty"),
            (&[("user_id", "a"), ("user_id", "b")], "given twice"),
            (&[("limit", "0")], "limit must be 1 to 200"),
            (&[("page", "0")], "page must be"),
            (&[("page", "-1")], "page must be"),
            (&[("page_size", "201")], "page_size must be 1 to 200"),
            (&[("page", "51"), ("page_size", "200")], "next_cursor"),
            (&[("page", "1"), ("limit", "5")], "without limit"),
            (&[("cursor", "zzz")], "cursor must be"),
        ] {
            let error = request(pairs).expect_err("refused").to_string();
            assert!(error.contains(expected), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn pages_are_numbered_as_in_the_seed() {
        let read = request(&[("page", "3"), ("page_size", "50")]).expect("valid");
        assert_eq!((read.paging.skipped(), read.paging.size()), (100, 50));
        let read = request(&[]).expect("valid");
        assert_eq!(
            read.paging,
            Paging::After {
                place: None,
                limit: 20
            }
        );
        let long = "x".repeat(LONGEST_TEXT + 1);
        assert!(request(&[("text", &long)]).is_err());
    }
}
