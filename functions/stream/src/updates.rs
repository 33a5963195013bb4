//! The live view of all sessions: what is said and done in them, as it happens, in the dev server's dialect (docs/protocol.md, "Live updates").

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::Hash,
    str::FromStr,
};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use tailspan_core::{
    feed::{FeedCursor, Happened, InvalidFeedCursor, SessionNews},
    id::{SessionKey, TenantId, TraceId},
    live::{
        frames::{self, Shown},
        incremental::{Extractor, Increment},
    },
    observed::{Recorded, Sent},
};
#[cfg(feature = "openapi")]
use tailspan_service::openapi::{NotAcceptable, TooMany};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Read, Tenant},
    function::StreamUntil,
    log::{
        LogError,
        feed::{Noticed, Scope},
        read::{PageSize, ReadFrom},
    },
};

use crate::{
    feed::{Feed, Follower, Frames, From, Tell},
    request::{UpdatesQuery, wanted_updates},
    viewer::Seat,
};

/// Traces whose reading a listener goes on with where it stopped; of others it reads the beginning again, silently.
const TRACES_AT_HAND: usize = 64;
/// Sessions whose name a listener knows.
const NAMES_AT_HAND: usize = 1_024;

/// What is said and done in all sessions of the tenant, as it happens.
///
/// Frames have no name; their data is an object with a `type`. A listener without a cursor is told of what comes from now on: the sessions that there are it asks `GET /api/streaming/sessions` for.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/stream/ui-updates", tag = "streams",
    params(
        UpdatesQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "go on after this: the `id` of a frame; wins over `cursor`", pattern = "^[0-9]{1,15}-[0-9]{1,15}\\.[0-9]{1,15}(\\.[0-9]{1,9})?$"),
    ),
    responses(
        (status = 200, description = "the frames", body = String, content_type = "text/event-stream"),
        (status = 406, response = NotAcceptable),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn stream_updates(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    Params(query): Params<UpdatesQuery>,
    until: StreamUntil,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = wanted_updates(&query, &headers)?;
    let seat = Seat::take(&app, &tenant, until).await?;
    let watch = app.hub.watch_feed(&tenant, &Scope::Tenant);
    let from = match wanted {
        Some(place) => From::Cursor(place),
        None => From::Now,
    };
    let feed = Feed {
        tenant,
        scope: Scope::Tenant,
        watch,
    };
    let mut response = Follower::follow(app, feed, from, Updates::default(), seat).await?;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    Ok(response)
}

/// Between two frames of a feed whose events may give several: `part` of those that stand behind the cursor were shown.
///
/// Text form `<ms>-<n>.<seq>`, where some were shown `<ms>-<n>.<seq>.<part>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cursor: FeedCursor,
    pub(crate) part: u32,
}

impl Place {
    /// Writes its text form.
    pub(crate) fn push_to(&self, into: &mut String) {
        self.cursor.push_to(into);
        if self.part > 0 {
            into.push('.');
            into.push_str(itoa::Buffer::new().format(self.part));
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.push_to(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Place {
    type Err = InvalidFeedCursor;

    fn from_str(text: &str) -> Result<Self, InvalidFeedCursor> {
        let (cursor, part) = match text.rsplit_once('.') {
            Some((before, part)) if before.contains('.') => (before, part),
            _ => (text, "0"),
        };
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let part = part.parse().ok().filter(|_| is_number);
        Ok(Self {
            cursor: cursor.parse()?,
            part: part.ok_or(InvalidFeedCursor)?,
        })
    }
}

/// What a listener knows beside its place; all of it can be found again.
#[derive(Default)]
struct Updates {
    names: AtHand<SessionKey, String>,
    traces: AtHand<TraceId, Reading>,
    /// The session whose events are shown.
    of: String,
}

/// A trace, read up to an event.
#[derive(Default)]
struct Reading {
    extractor: Extractor,
    next_seq: u64,
}

impl Tell for Updates {
    async fn notice(
        &mut self,
        app: &App,
        tenant: &TenantId,
        noticed: &Noticed,
        frames: &mut Frames,
    ) -> Result<(), LogError> {
        match &noticed.happened {
            Happened::Moved { .. } => Ok(()),
            Happened::Ended { last, .. } => {
                let Some(session) = app.log.live_session_of(tenant, &noticed.trace).await? else {
                    return Ok(());
                };
                let Some(name) = self.name(app, tenant, &session).await? else {
                    return Ok(());
                };
                let reading = self.reading(app, tenant, &noticed.trace, last + 1).await?;
                tell(&name, &reading.extractor.finish(), frames);
                Ok(())
            }
            Happened::Session {
                session,
                name,
                life,
                news,
            } => {
                self.names.put(session.clone(), name.clone());
                let session = (session, name.as_str(), *life);
                let told = self.news(app, tenant, noticed, session, news, frames);
                let told = told.await?;
                frames.push(&told);
                Ok(())
            }
        }
    }

    async fn prepare(
        &mut self,
        app: &App,
        tenant: &TenantId,
        noticed: &Noticed,
        next_seq: u64,
    ) -> Result<bool, LogError> {
        let Some(session) = &noticed.session else {
            return Ok(false);
        };
        // Removed since: nobody looks at it any more.
        let Some(name) = self.name(app, tenant, session).await? else {
            return Ok(false);
        };
        self.of = name;
        self.reading(app, tenant, &noticed.trace, next_seq).await?;
        Ok(true)
    }

    fn event(
        &mut self,
        _: &App,
        trace: &TraceId,
        recorded: &Recorded,
        sent: Option<&Sent>,
        frames: &mut Frames,
    ) {
        if let Some(reading) = self.traces.get(trace) {
            reading.next_seq = recorded.seq + 1;
            tell(&self.of, &reading.extractor.apply(recorded), frames);
        }
        let (event, sent) = (&recorded.observation, sent.map(Sent::as_str));
        frames.push_with(|into| frames::push_span_received(into, &self.of, trace, event, sent));
    }
}

impl Updates {
    /// The frame about a session, after those about what was still open in it.
    async fn news(
        &mut self,
        app: &App,
        tenant: &TenantId,
        noticed: &Noticed,
        (session, name, life): (&SessionKey, &str, u64),
        news: &SessionNews,
        frames: &mut Frames,
    ) -> Result<String, LogError> {
        match news {
            SessionNews::Started => {
                let now = app.log.live_session(tenant, session).await?;
                let now = now.filter(|now| now.life == life);
                let shown = match &now {
                    Some(now) => Shown {
                        name,
                        trace: &now.trace,
                        eval_set_id: now.eval_set_id.as_deref(),
                        started_unix_us: now.started_unix_us,
                        metadata: Some(&now.metadata),
                        ..Shown::default()
                    },
                    // Removed or begun anew since.
                    None => Shown {
                        name,
                        trace: noticed.trace.as_str(),
                        started_unix_us: life,
                        ..Shown::default()
                    },
                };
                Ok(frames::session_started(&shown))
            }
            SessionNews::Complete => {
                let reading = self.traces.get(&noticed.trace);
                let last = reading.map(|reading| reading.extractor.finish());
                tell(name, &last.unwrap_or_default(), frames);
                let now = app.log.live_session(tenant, session).await?;
                let turns = match now.filter(|now| now.life == life) {
                    Some(now) => app.log.live_told(tenant, &now).await?,
                    None => "[]".into(),
                };
                Ok(frames::session_complete(name, &turns))
            }
            SessionNews::Removed { absorbed_by } => {
                Ok(frames::session_removed(name, absorbed_by.as_deref()))
            }
        }
    }

    async fn name(
        &mut self,
        app: &App,
        tenant: &TenantId,
        session: &SessionKey,
    ) -> Result<Option<String>, LogError> {
        if let Some(name) = self.names.get(session) {
            return Ok(Some(name.clone()));
        }
        let Some(found) = app.log.live_session(tenant, session).await? else {
            return Ok(None);
        };
        self.names.put(session.clone(), found.name.clone());
        Ok(Some(found.name))
    }

    /// The trace, read up to before an event: where it was not followed to there, its beginning is read again and not shown.
    async fn reading(
        &mut self,
        app: &App,
        tenant: &TenantId,
        trace: &TraceId,
        next_seq: u64,
    ) -> Result<&mut Reading, LogError> {
        let at_hand = self.traces.get(trace);
        if at_hand.is_none_or(|reading| reading.next_seq != next_seq) {
            let reading = read_to(app, tenant, trace, next_seq).await?;
            self.traces.put(trace.clone(), reading);
        }
        Ok(self.traces.entry(trace))
    }
}

async fn read_to(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    next_seq: u64,
) -> Result<Reading, LogError> {
    let mut reading = Reading {
        next_seq,
        ..Reading::default()
    };
    let mut from = 1;
    while from < next_seq && !app.shutdown.is_cancelled() {
        let page = app
            .log
            .page(tenant, trace, ReadFrom::Holding(from), PageSize::LARGE)
            .await?;
        let base = page.state.as_ref().map_or(0, |state| state.base);
        let Some(last) = page.chunks.last().map(|chunk| chunk.span.last) else {
            break;
        };
        for chunk in &page.chunks {
            for recorded in app.log.recorded(tenant, trace, chunk).await? {
                // What a replaced trace had before is of another life.
                if (from.max(base + 1)..next_seq).contains(&recorded.seq) {
                    reading.extractor.apply(&recorded);
                }
            }
        }
        from = from.max(last) + 1;
    }
    Ok(reading)
}

fn tell(session: &str, increments: &[Increment], frames: &mut Frames) {
    for increment in increments {
        frames.push_with(|into| {
            frames::push_increment(into, session, increment);
            true
        });
    }
}

/// The latest so many things, by what they are known by.
struct AtHand<K, V> {
    by_key: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<V> Default for AtHand<SessionKey, V> {
    fn default() -> Self {
        Self::holding(NAMES_AT_HAND)
    }
}

impl<V> Default for AtHand<TraceId, V> {
    fn default() -> Self {
        Self::holding(TRACES_AT_HAND)
    }
}

impl<K: Clone + Eq + Hash, V> AtHand<K, V> {
    fn holding(most: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    fn get(&mut self, key: &K) -> Option<&mut V> {
        let found = self.by_key.get_mut(key)?;
        // Few enough to look through; the latest stand last, and are asked for most.
        if self.order.back() != Some(key)
            && let Some(at) = self.order.iter().rposition(|known| known == key)
            && let Some(key) = self.order.remove(at)
        {
            self.order.push_back(key);
        }
        Some(found)
    }

    fn put(&mut self, key: K, value: V) {
        if self.by_key.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.most
            && let Some(first) = self.order.pop_front()
        {
            self.by_key.remove(&first);
        }
    }
}

impl<K: Clone + Eq + Hash, V: Default> AtHand<K, V> {
    fn entry(&mut self, key: &K) -> &mut V {
        if !self.by_key.contains_key(key) {
            self.put(key.clone(), V::default());
        }
        self.by_key.entry(key.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let cursor = FeedCursor {
            ms: 1,
            n: 2,
            seq: 3,
        };
        for (text, part) in [("1-2.3", 0), ("1-2.3.4", 4)] {
            let place = Place { cursor, part };
            assert_eq!(text.parse(), Ok(place));
            assert_eq!(place.to_string(), text);
        }
        for text in [
            "",
            "1-2",
            "1-2.3.",
            "1-2.3.+4",
            "1-2.3.4.5",
            "1-2.3.99999999999",
        ] {
            assert_eq!(text.parse::<Place>(), Err(InvalidFeedCursor), "{text}");
        }
    }

    #[test]
    fn what_was_not_asked_for_longest_is_let_go() {
        let mut at_hand = AtHand::holding(2);
        at_hand.put(1, "a");
        at_hand.put(2, "b");
        assert_eq!(at_hand.get(&1), Some(&mut "a"));
        at_hand.put(3, "c");
        assert_eq!(at_hand.get(&2), None);
        assert_eq!(at_hand.order.len(), 2);
    }
}
