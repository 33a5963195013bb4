//! Live sessions: what an agent under development tells of itself, by WebSocket or by OTLP, as a page of the dev server's dialect shows it.
//!
//! A session is a view of traces: its spans and log records are events of a trace like any other. What is kept of the session itself lies in the tenant's slot (`{tenant}:live`, `{tenant}:live:<session>`), so
//! that one script changes it and writes the notice of it into the tenant's log ([`Happened::Session`](tailspan_core::feed::Happened)). Sessions of exported traces are made by the script that writes
//! notices (`note.lua`), those of a WebSocket here.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value};
use tailspan_core::{
    id::{SessionKey, TenantId, TraceId},
    live::compat,
    redact::Clean,
    verbosity::Verbosity,
};

pub use tailspan_core::live::protocol::Start;

use crate::{
    access::held::Admitted,
    log::{
        Log, LogError,
        append::Appended,
        beside,
        notice::{NOTICES_KEPT, Named, Notice},
        now_unix_ms, now_unix_us,
        read::Snapshot,
    },
    redis::{Arg, RedisError, Reply, Script},
};

static START: Script = Script::new(concat!(
    include_str!("lua/live.lua"),
    include_str!("lua/live_start.lua")
));
static TAKE: Script = Script::new(include_str!("lua/live_take.lua"));
static END: Script = Script::new(concat!(
    include_str!("lua/live.lua"),
    include_str!("lua/live_end.lua")
));
static REMOVE: Script = Script::new(concat!(
    include_str!("lua/live.lua"),
    include_str!("lua/live_remove.lua")
));
static SWEEP: Script = Script::new(concat!(
    include_str!("lua/live.lua"),
    include_str!("lua/live_sweep.lua")
));

/// Sessions read at the same time.
const AT_ONCE: usize = 64;
/// Sessions that one step of a sweep looks at.
const SWEEP_STEP: u64 = 200;

/// API Gateway ends a connection after two hours.
const CONNECTION_SECONDS: u64 = 3 * 3600;

/// Where a session's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    WebSocket,
    Otlp,
}

impl Source {
    /// As the dialect says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Otlp => "otlp",
        }
    }
}

/// A trace of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTrace {
    pub trace: TraceId,
    /// Its run goes on.
    pub open: bool,
}

/// A session as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveSession {
    pub key: SessionKey,
    /// The session's id in the dialect.
    pub name: String,
    /// The trace id that the client gave with it; of exported traces that of the first.
    pub trace: String,
    /// The trace to which frames for it are appended; `None` until one came.
    pub into: Option<TraceId>,
    /// Its traces, in the order in which they came to it.
    pub traces: Vec<LiveTrace>,
    pub eval_set_id: Option<String>,
    pub metadata: Map<String, Value>,
    pub source: Source,
    /// Microseconds since 1970.
    pub started_unix_us: u64,
    pub complete: bool,
    /// When it was complete last, microseconds since 1970.
    pub completed_unix_us: Option<u64>,
    /// Spans and log records that came by frames; those of exported traces are not counted here (see [`Log::live_span_count`]).
    pub spans: u64,
    pub logs: u64,
    /// Tells the sessions apart that had this name one after the other: greater is later.
    pub life: u64,
}

impl LiveSession {
    /// Whether a trace is of it; those of its former lives are not.
    pub fn has(&self, trace: &TraceId) -> bool {
        self.traces.iter().any(|of| of.trace == *trace)
    }
}

/// Places that were given out for events of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// To which trace they are to be appended.
    pub into: TraceId,
    pub life: u64,
    /// How many of those asked for are granted: the first ones.
    pub spans: u64,
    pub logs: u64,
    /// How many it has, with these.
    pub span_count: u64,
    pub log_count: u64,
}

impl Log {
    /// Begins a session. One of this name gets a new life, with a trace of its own; the former life's trace stays in the log.
    ///
    /// # Errors
    /// [`LogError`]; whether it began is unknown then.
    pub async fn live_start(&self, tenant: &TenantId, start: &Start) -> Result<u64, LogError> {
        let start = self.clean_start(tenant, start);
        let session = SessionKey::of(&start.session);
        let into = new_trace();
        let eval_set = match &start.eval_set_id {
            Some(id) => format!("={id}"),
            None => String::new(),
        };
        let args = vec![
            Arg::from(self.live.max_sessions),
            Arg::from(session.as_str()),
            Arg::from(&start.session),
            Arg::from(&start.trace),
            Arg::from(into.as_str()),
            Arg::from(eval_set),
            Arg::from(Value::Object(start.metadata.clone()).to_string()),
        ];
        let reply = self.live_write(&START, tenant, args).await?;
        Ok(reply.number().unwrap_or_default())
    }

    /// What a client says of a session, without what must not be stored.
    pub fn clean_start(&self, tenant: &TenantId, start: &Start) -> Start {
        let text = |text: &str| self.redactor.clean_text(tenant, text).into_owned();
        Start {
            session: text(&start.session),
            trace: text(&start.trace),
            eval_set_id: start.eval_set_id.as_deref().map(text),
            metadata: self.redactor.clean_object(tenant, &start.metadata),
        }
    }

    /// The name under which a session is known here.
    pub fn clean_session(&self, tenant: &TenantId, session: &str) -> String {
        self.redactor.clean_text(tenant, session).into_owned()
    }

    /// Asks for places for events of a session. `None`: there is no such session.
    ///
    /// # Errors
    /// [`LogError`]; places may have been given out then.
    pub async fn live_take(
        &self,
        tenant: &TenantId,
        session: &str,
        spans: u64,
        logs: u64,
    ) -> Result<Option<Taken>, LogError> {
        let key = SessionKey::of(&self.redactor.clean_text(tenant, session));
        let hash = self.keys.live_session(tenant, &key);
        let noted = self.keys.tenant(tenant).noted;
        let args = vec![
            Arg::from(key.as_str()),
            Arg::from(spans),
            Arg::from(logs),
            Arg::from(self.live.max_spans),
            Arg::from(self.live.max_logs),
            Arg::from(new_trace().as_str()),
        ];
        let reply = self.redis.script(&TAKE, &[&hash, &noted], args).await?;
        let reply = reply.list();
        let number = |at: usize| reply.get(at).and_then(Reply::number).unwrap_or_default();
        let Some(into) = reply.get(1).and_then(Reply::text) else {
            return Ok(None);
        };
        let into = TraceId::parse(&into)
            .map_err(|invalid| LogError::Internal(format!("a session's trace: {invalid}")))?;
        Ok(Some(Taken {
            into,
            life: number(2),
            spans: number(3),
            logs: number(4),
            span_count: number(5),
            log_count: number(6),
        }))
    }

    /// Appends events for which places were given out, cleaned by [`Log::clean`].
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn live_append(
        &self,
        tenant: &TenantId,
        session: &str,
        into: &TraceId,
        events: &[Clean],
    ) -> Result<Appended, LogError> {
        let session = self.redactor.clean_text(tenant, session);
        let named = Named::of_session(events, &session);
        let appended = self.append_counted(tenant, into, events).await?;
        let notice = Notice {
            trace: into,
            last_seq: appended.last_seq,
            named: &named,
            status: None,
            level: Verbosity::Minimal,
            is_first: false,
        };
        self.note(tenant, &[notice]).await;
        Ok(appended)
    }

    /// Ends a session: none of its traces is open any more, and its followers are told, each time anew. `false`: there is no such session.
    ///
    /// # Errors
    /// [`LogError`]; repeating it is harmless.
    pub async fn live_end(&self, tenant: &TenantId, session: &str) -> Result<bool, LogError> {
        let key = SessionKey::of(&self.redactor.clean_text(tenant, session));
        let args = vec![Arg::from(key.as_str())];
        let reply = self.live_write(&END, tenant, args).await?;
        let is_there = reply.number() == Some(1);
        if is_there
            && let Some(into) = self
                .live_session(tenant, &key)
                .await?
                .and_then(|of| of.into)
            && self.state(tenant, &into).await?.is_some()
        {
            // Frames end no run by themselves: it would be folded after each turn. This does, and its settlement looks.
            let trace = self.keys.trace(tenant, &into).trace;
            let args = [trace.as_str(), "term", &now_unix_ms().to_string()].map(Arg::from);
            self.redis.command("HSET", &trace, args.to_vec()).await?;
            self.look_within(tenant, &into, self.patience.grace_ms)
                .await?;
        }
        Ok(is_there)
    }

    /// What was said in a session, turn by turn: the text of a JSON list in the dialect's form. Whoever asks while nothing new came is given the same text.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn live_told(
        &self,
        tenant: &TenantId,
        session: &LiveSession,
    ) -> Result<Arc<str>, LogError> {
        let who = (tenant.clone(), session.key.clone());
        let _turn = self.folds.telling.take(who).await;
        let mut states = Vec::new();
        for of in &session.traces {
            let folded = self.folded_keeping(tenant, &of.trace, Snapshot::Later);
            states.extend(folded.await?.map(|folded| folded.state));
        }
        if let Some(text) = self.folds.told(&states) {
            return Ok(text);
        }
        let of = states.clone();
        let text = beside(move || compat::session_text(of.iter().map(Arc::as_ref))).await?;
        let text: Arc<str> = text.into();
        self.folds.keep_told(&states, &text);
        Ok(text)
    }

    /// Remembers with what somebody was let in whose connection a gateway holds, for longer than one can live there.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn keep_connection(&self, id: &str, admitted: &Admitted) -> Result<(), LogError> {
        let key = self.keys.connection(connection_id(id)?);
        let seconds = CONNECTION_SECONDS.to_string();
        let admitted = serde_json::to_string(admitted)
            .map_err(|error| LogError::Internal(error.to_string()))?;
        let args = [key.as_str(), &admitted, "EX", &seconds].map(Arg::from);
        self.redis.command("SET", &key, args.to_vec()).await?;
        Ok(())
    }

    /// With what somebody was let in. `None`: nobody was, for this connection.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn connection(&self, id: &str) -> Result<Option<Admitted>, LogError> {
        let key = self.keys.connection(connection_id(id)?);
        let kept = self
            .redis
            .command("GET", &key, vec![Arg::from(&key)])
            .await?;
        Ok(kept
            .text()
            .and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// # Errors
    /// [`LogError`].
    pub async fn forget_connection(&self, id: &str) -> Result<(), LogError> {
        let key = self.keys.connection(connection_id(id)?);
        self.redis
            .command("DEL", &key, vec![Arg::from(&key)])
            .await?;
        Ok(())
    }

    /// All sessions of a tenant, in the order in which they began.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn live_sessions(&self, tenant: &TenantId) -> Result<Vec<LiveSession>, LogError> {
        let all = self.keys.tenant(tenant).live;
        let args = [&all, "0", "-1"].map(|text| Arg::from(text as &str));
        let keys = self.redis.command("ZRANGE", &all, args.to_vec()).await?;
        let keys = keys.list();
        let keys = keys
            .iter()
            .filter_map(|key| SessionKey::parse(&key.text()?));
        let keys: Vec<_> = keys.collect();
        let sessions: Vec<_> = stream::iter(keys)
            .map(|key| async move { self.live_session(tenant, &key).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(sessions.into_iter().flatten().collect())
    }

    /// One session.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn live_session(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
    ) -> Result<Option<LiveSession>, LogError> {
        let hash = self.keys.live_session(tenant, key);
        let args = vec![Arg::from(&hash)];
        let fields = self.redis.command("HGETALL", &hash, args).await?.list();
        Ok(session(key, &fields))
    }

    /// The session that a trace is in.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn live_session_of(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<SessionKey>, LogError> {
        let noted = self.keys.tenant(tenant).noted;
        let args = vec![Arg::from(&noted), Arg::from(trace.as_str())];
        let value = self.redis.command("HGET", &noted, args).await?.text();
        Ok(value.as_deref().and_then(session_in))
    }

    /// How many spans a session has: those of its frames, and those of its exported traces.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn live_span_count(
        &self,
        tenant: &TenantId,
        session: &LiveSession,
    ) -> Result<u64, LogError> {
        let exported = session
            .traces
            .iter()
            .filter(|of| Some(&of.trace) != session.into.as_ref());
        let exported: Vec<_> = exported.map(|of| of.trace.clone()).collect();
        let counts: Vec<u64> = stream::iter(exported)
            .map(|trace| async move {
                let key = self.keys.trace(tenant, &trace).trace;
                let args = vec![Arg::from(&key), Arg::from("spans")];
                let spans = self.redis.command("HGET", &key, args).await?;
                Ok::<_, RedisError>(spans.number().unwrap_or_default())
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(session.spans + counts.iter().sum::<u64>())
    }

    /// Removes sessions; their traces stay. Their followers are told. Returns how many there were.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn live_remove(
        &self,
        tenant: &TenantId,
        sessions: &[SessionKey],
    ) -> Result<u64, LogError> {
        let mut args = vec![Arg::from(self.publish())];
        args.extend(sessions.iter().map(|key| Arg::from(key.as_str())));
        let reply = self.live_script(&REMOVE, tenant, args).await?;
        Ok(reply.number().unwrap_or_default())
    }

    /// Removes sessions beyond the limits of their number and their time. Returns how many went.
    ///
    /// # Errors
    /// [`LogError`]; the next sweep goes on.
    pub async fn live_sweep(&self, tenant: &TenantId) -> Result<u64, LogError> {
        let now_ms = self.sure_now().await?;
        let before = |age_ms: u64| Arg::from(now_ms.saturating_sub(age_ms).saturating_mul(1000));
        let (mut offset, mut all) = (0, 0);
        loop {
            let args = vec![
                Arg::from(self.publish()),
                Arg::from(self.live.max_sessions),
                before(self.live.ttl_ms),
                // An agent may wait long for its first step; for as long as traces are kept.
                before(self.retention.longest_ms()),
                Arg::from(offset),
                Arg::from(SWEEP_STEP),
            ];
            let reply = self.live_script(&SWEEP, tenant, args).await?.list();
            let number = |at: usize| reply.get(at).and_then(Reply::number).unwrap_or_default();
            let (removed, looked_at) = (number(0), number(1));
            all += removed;
            if looked_at < SWEEP_STEP {
                return Ok(all);
            }
            offset += looked_at.saturating_sub(removed);
        }
    }

    /// A script over a tenant's sessions that may be repeated: what it did is seen by the repeat.
    async fn live_write(
        &self,
        script: &Script,
        tenant: &TenantId,
        args: Vec<Arg>,
    ) -> Result<Reply, LogError> {
        let mut all = vec![Arg::from(now_unix_us()), Arg::from(self.publish())];
        all.extend(args);
        match self.live_script(script, tenant, all.clone()).await {
            Err(LogError::Unavailable(_)) => self.live_script(script, tenant, all).await,
            reply => reply,
        }
    }

    async fn live_script(
        &self,
        script: &Script,
        tenant: &TenantId,
        args: Vec<Arg>,
    ) -> Result<Reply, LogError> {
        let keys = self.keys.tenant(tenant);
        let mut all = vec![Arg::from(&keys.live_of), Arg::from(NOTICES_KEPT)];
        all.extend(args);
        let slots = [keys.live.as_str(), &keys.log, &keys.noted];
        Ok(self.redis.script(script, &slots, all).await?)
    }
}

/// A gateway's own id of a connection, as it may stand in a key.
fn connection_id(id: &str) -> Result<&str, LogError> {
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+/".contains(&byte);
    match (1..=128).contains(&id.len()) && id.bytes().all(is_id) {
        true => Ok(id),
        false => Err(LogError::Internal(
            "a connection without a usable id".to_owned(),
        )),
    }
}

/// A trace for the frames of a session.
fn new_trace() -> TraceId {
    loop {
        // All zero is no id.
        if let Some(trace) = TraceId::from_otel(&rand::random::<[u8; 16]>()) {
            return trace;
        }
    }
}

/// The session in what is noted of a trace: `<seq> @<rank><state><session> <label> ...`.
fn session_in(noted: &str) -> Option<SessionKey> {
    let (_, rest) = noted.split_once(" @")?;
    let word = rest.split(' ').next()?;
    SessionKey::parse(word.get(2..)?)
}

/// A session's hash, as it was read. `None`: there is none.
fn session(key: &SessionKey, fields: &[Reply]) -> Option<LiveSession> {
    let mut named: HashMap<String, String> = HashMap::new();
    let mut traces: Vec<(u64, LiveTrace)> = Vec::new();
    for pair in fields.chunks_exact(2) {
        let [field, value] = pair else { continue };
        let (Some(field), Some(value)) = (field.text(), value.text()) else {
            continue;
        };
        let Some(trace) = field.strip_prefix("t:") else {
            named.insert(field, value);
            continue;
        };
        if let (Ok(trace), Some((state, place))) = (TraceId::parse(trace), value.split_once(' ')) {
            let open = state == "o";
            traces.push((place.parse().unwrap_or(u64::MAX), LiveTrace { trace, open }));
        }
    }
    traces.sort_by_key(|(place, _)| *place);
    let number = |field: &str| named.get(field).and_then(|value| value.parse().ok());
    let started_unix_us = number("started")?;
    let metadata = named.get("meta").and_then(|meta| {
        let meta = serde_json::from_str::<Map<String, Value>>(meta);
        meta.ok()
    });
    Some(LiveSession {
        key: key.clone(),
        name: named.get("name")?.clone(),
        trace: named.get("trace").cloned().unwrap_or_default(),
        into: named
            .get("into")
            .and_then(|trace| TraceId::parse(trace).ok()),
        traces: traces.into_iter().map(|(_, trace)| trace).collect(),
        eval_set_id: named.get("eval_set").cloned(),
        metadata: metadata.unwrap_or_default(),
        source: match named.get("source").map(String::as_str) {
            Some("websocket") => Source::WebSocket,
            _ => Source::Otlp,
        },
        started_unix_us,
        complete: named.get("complete").is_some_and(|is| is == "1"),
        completed_unix_us: number("completed")
            .filter(|_| named.get("complete").is_some_and(|is| is == "1")),
        spans: number("spans").unwrap_or_default(),
        logs: number("logs").unwrap_or_default(),
        life: started_unix_us,
    })
}
