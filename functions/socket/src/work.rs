//! Doing what frames ask for.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tailspan_core::{
    id::{SessionKey, TenantId},
    live::protocol::{self, Action, Append, Places},
};
use tailspan_service::{App, log::LogError};
use tracing::{debug, warn};

/// Sessions appended to at the same time.
const SESSIONS_AT_ONCE: usize = 16;
/// Pauses before a store that does not answer is asked again. Nobody sends an event twice here, so patience is all there is between an event and its loss.
const PAUSES_MS: [u64; 5] = [100, 400, 1_000, 2_000, 4_000];

/// How long frames of a connection wait for their tenant's rate: nothing more is read from it meanwhile, which slows its client down, and a client's own pings are not waited for longer than 20 s. Behind a gateway nobody would be slowed down.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a gateway's frames are waited for that another one overtook, and how long each time.
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(300);
const PAUSES_BEFORE_START: usize = 5;
const PAUSES_BEFORE_END: usize = 10;

/// What frames come by.
#[derive(Clone, Copy, Debug)]
// Without the cloud there is no gateway to make the second.
#[cfg_attr(not(feature = "cloud"), allow(dead_code))]
pub(crate) enum Way<'a> {
    /// A connection: in their order, and answers may be of any length.
    Socket,
    /// A gateway that gives each frame to whom it likes: they overtake each other, and answers have at most so many bytes. What is longer is read below this URL.
    Gateway {
        longest_answer: usize,
        public_url: &'a str,
    },
}

/// Does it all, in the order of each session; the answers in theirs.
pub(crate) async fn perform(
    app: &App,
    tenant: &TenantId,
    actions: Vec<Action>,
    way: Way<'_>,
) -> Vec<String> {
    let mut answers = Vec::new();
    let mut appends = Vec::new();
    for action in actions {
        let action = clean(app, tenant, action);
        // What may be done together was gathered by session, so no two of these are of one.
        if let Action::Append(of) = action {
            if appends.len() >= SESSIONS_AT_ONCE {
                flush(app, tenant, &mut appends, &mut answers, way).await;
            }
            appends.push(of);
            continue;
        }
        flush(app, tenant, &mut appends, &mut answers, way).await;
        match action {
            Action::Start(start) => {
                let name = start.session.clone();
                let started = retried(|| app.log.live_start(tenant, &start)).await;
                if let Err(error) = started {
                    warn!(%tenant, %error, "failed to begin a live session");
                    answers.push(lost(&format!("session {name} was not begun"), &error));
                }
            }
            Action::End { session } => answers.extend(end(app, tenant, &session, way).await),
            Action::Answer(answer) => answers.push(answer),
            Action::Append(_) => {}
        }
    }
    flush(app, tenant, &mut appends, &mut answers, way).await;
    answers
}

/// The action on the session of the name under which it is kept: a name may be a secret, or hold one.
fn clean(app: &App, tenant: &TenantId, action: Action) -> Action {
    match action {
        Action::Start(start) => Action::Start(app.log.clean_start(tenant, &start)),
        Action::Append(of) => Action::Append(Append {
            session: app.log.clean_session(tenant, &of.session),
            ..of
        }),
        Action::End { session } => Action::End {
            session: app.log.clean_session(tenant, &session),
        },
        Action::Answer(answer) => Action::Answer(answer),
    }
}

async fn flush(
    app: &App,
    tenant: &TenantId,
    appends: &mut Vec<Append>,
    answers: &mut Vec<String>,
    way: Way<'_>,
) {
    if appends.is_empty() {
        return;
    }
    let all = std::mem::take(appends).into_iter();
    let told = join_all(all.map(|of| append(app, tenant, of, way))).await;
    answers.extend(told.into_iter().flatten());
}

/// Appends what has a place. An event of an unknown session is passed over, as the dialect has it.
async fn append(app: &App, tenant: &TenantId, of: Append, way: Way<'_>) -> Vec<String> {
    let (session, spans, logs) = (of.session.clone(), of.spans, of.logs);
    if let Way::Gateway { .. } = way
        && let Err(error) = started(app, tenant, &session).await
    {
        debug!(%tenant, %error, "failed to look for a session");
    }
    let patience = match way {
        Way::Socket => PATIENCE,
        Way::Gateway { .. } => Duration::ZERO,
    };
    let taken = async {
        app.log.has_room(tenant).await?;
        let limits = &app.limits;
        limits.take_within(tenant, spans + logs, patience).await
    };
    if let Err(refused) = taken.await {
        app.metrics.reject(refused.code, spans + logs);
        return vec![protocol::error(&format!(
            "{spans} spans and {logs} logs of session {session} were not stored: {}",
            refused.message
        ))];
    }
    let asked = retried(|| app.log.live_take(tenant, &session, spans, logs)).await;
    let failed = |error: &LogError| {
        warn!(%tenant, %error, spans, logs, "failed to store events of a live session");
        let what = format!("{spans} spans and {logs} logs of session {session} were not stored");
        vec![lost(&what, error)]
    };
    let taken = match asked {
        Ok(Some(taken)) => taken,
        Ok(None) => {
            debug!(%tenant, spans, logs, "events of an unknown live session");
            return Vec::new();
        }
        Err(error) => return failed(&error),
    };
    let (events, mut answers) = of.within(Places {
        spans: taken.spans,
        logs: taken.logs,
        span_count: taken.span_count,
        log_count: taken.log_count,
    });
    if events.is_empty() {
        return answers;
    }
    let (events, into) = (app.log.clean(tenant, events), &taken.into);
    let stored = retried(|| app.log.live_append(tenant, &session, into, &events)).await;
    match stored {
        Ok(appended) => {
            if appended.refused > 0 {
                answers.push(protocol::error(&format!(
                    "{} spans of session {session} were not stored: its trace has as many as it may",
                    appended.refused
                )));
            }
            app.metrics.spans.inc_by(taken.spans.min(spans));
            app.metrics.log_records.inc_by(taken.logs.min(logs));
        }
        Err(error) => answers.extend(failed(&error)),
    }
    answers
}

/// Ends a session; its answer, if it is one.
///
/// What was said is read before anybody is told of the end: listeners of this process then have it at once, and what they are told of other sessions does not wait behind it.
async fn end(app: &App, tenant: &TenantId, session: &str, way: Way<'_>) -> Option<String> {
    if let Way::Gateway { .. } = way
        && let Err(error) = quiet(app, tenant, session).await
    {
        debug!(%tenant, %error, "failed to look for a session");
    }
    let before = said(app, tenant, session).await;
    if let Ok(None) = before {
        return None;
    }
    match retried(|| app.log.live_end(tenant, session)).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => {
            warn!(%tenant, %error, "failed to end a live session");
            return Some(lost(&format!("session {session} was not ended"), &error));
        }
    }
    let said = match said(app, tenant, session).await {
        Ok(said) => said,
        Err(error) => {
            // The dialect's client waits for this frame, and knows no other for it.
            warn!(%tenant, %error, "failed to read what was said in a live session");
            before.unwrap_or_default()
        }
    };
    let said = said.as_deref().unwrap_or("[]");
    Some(match way {
        Way::Socket => protocol::complete(said),
        Way::Gateway {
            longest_answer,
            public_url,
        } => {
            let place = whole_at(app, tenant, session).await;
            protocol::complete_within(said, longest_answer, &format!("{public_url}{place}"))
        }
    })
}

/// Waits for the session's start where one of its events overtook it.
async fn started(app: &App, tenant: &TenantId, session: &str) -> Result<(), LogError> {
    let key = SessionKey::of(session);
    for _ in 0..PAUSES_BEFORE_START {
        if app.log.live_session(tenant, &key).await?.is_some() {
            return Ok(());
        }
        tokio::time::sleep(OVERTAKEN_PAUSE).await;
    }
    Ok(())
}

/// Waits until nothing more comes of a session whose end may have overtaken some of it.
async fn quiet(app: &App, tenant: &TenantId, session: &str) -> Result<(), LogError> {
    let key = SessionKey::of(session);
    let mut before = None;
    for pause in 0..PAUSES_BEFORE_END {
        let now = app.log.live_session(tenant, &key).await?;
        let now = now.map(|of| (of.started_unix_us, of.spans, of.logs));
        if now.is_some() && now == before || now.is_none() && pause >= PAUSES_BEFORE_START {
            return Ok(());
        }
        before = now;
        tokio::time::sleep(OVERTAKEN_PAUSE).await;
    }
    Ok(())
}

/// Where all of what was said in a session is read.
async fn whole_at(app: &App, tenant: &TenantId, session: &str) -> String {
    let key = SessionKey::of(session);
    let of = app.log.live_session(tenant, &key).await;
    match of.ok().flatten().as_ref().map(|of| of.traces.as_slice()) {
        Some([only]) => format!("/traces/{}/invocations", only.trace),
        _ => "/api/streaming/sessions".to_owned(),
    }
}

/// What was said in a session. `None`: there is no such session.
async fn said(app: &App, tenant: &TenantId, session: &str) -> Result<Option<Arc<str>>, LogError> {
    let key = SessionKey::of(session);
    match app.log.live_session(tenant, &key).await? {
        Some(session) => app.log.live_told(tenant, &session).await.map(Some),
        None => Ok(None),
    }
}

fn lost(what: &str, error: &LogError) -> String {
    let why = match error {
        LogError::Full(_) => "the store is full",
        LogError::TooLargeToRead => "the trace is archived",
        LogError::Unavailable(_) => "the store does not answer",
        LogError::Internal(_) => "tailspan failed, its log says why",
    };
    protocol::error(&format!("{what}: {why}"))
}

async fn retried<T, F>(ask: impl Fn() -> F) -> Result<T, LogError>
where
    F: Future<Output = Result<T, LogError>>,
{
    for pause_ms in PAUSES_MS {
        match ask().await {
            Err(LogError::Unavailable(_)) => {}
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    ask().await
}
