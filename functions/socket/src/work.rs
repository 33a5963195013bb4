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

/// Does it all, in the order of each session; the answers in theirs.
pub(crate) async fn perform(app: &App, tenant: &TenantId, actions: Vec<Action>) -> Vec<String> {
    let mut answers = Vec::new();
    let mut appends = Vec::new();
    for action in actions {
        // What may be done together was gathered by session, so no two of these are of one.
        if let Action::Append(of) = action {
            if appends.len() >= SESSIONS_AT_ONCE {
                flush(app, tenant, &mut appends, &mut answers).await;
            }
            appends.push(of);
            continue;
        }
        flush(app, tenant, &mut appends, &mut answers).await;
        match action {
            Action::Start(start) => {
                let name = start.session.clone();
                let started = retried(|| app.log.live_start(tenant, &start)).await;
                if let Err(error) = started {
                    warn!(%tenant, %error, "failed to begin a live session");
                    answers.push(lost(&format!("session {name} was not begun"), &error));
                }
            }
            Action::End { session } => answers.extend(end(app, tenant, &session).await),
            Action::Answer(answer) => answers.push(answer),
            Action::Append(_) => {}
        }
    }
    flush(app, tenant, &mut appends, &mut answers).await;
    answers
}

async fn flush(app: &App, tenant: &TenantId, appends: &mut Vec<Append>, answers: &mut Vec<String>) {
    if appends.is_empty() {
        return;
    }
    let all = std::mem::take(appends).into_iter();
    let told = join_all(all.map(|of| append(app, tenant, of))).await;
    answers.extend(told.into_iter().flatten());
}

/// Appends what has a place. An event of an unknown session is passed over, as the dialect has it.
async fn append(app: &App, tenant: &TenantId, of: Append) -> Vec<String> {
    let (session, spans, logs) = (of.session.clone(), of.spans, of.logs);
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
    let into = &taken.into;
    let stored = retried(|| app.log.live_append(tenant, &session, into, events.clone())).await;
    match stored {
        Ok(_) => {
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
async fn end(app: &App, tenant: &TenantId, session: &str) -> Option<String> {
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
    Some(protocol::complete(said.as_deref().unwrap_or("[]")))
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
