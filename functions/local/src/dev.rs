//! `tailspan serve --dev`: what somebody sees who develops an agent beside it: where everything is, and a line for each session that ends.

use std::collections::BTreeSet;
use std::time::Duration;

use tailspan_core::feed::{FeedCursor, Happened, SessionNews};
use tailspan_core::id::TenantId;
use tailspan_service::App;
use tailspan_service::log::LogError;
use tailspan_service::log::feed::{Noticed, Scope};

/// Before the store is asked again that did not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Notices that are read at once.
const AT_ONCE: usize = 256;

/// Where everything is, in lines.
pub(crate) fn banner(app: &App, url: &str, otlp: &str, headless: bool) -> Vec<String> {
    let live = &app.config.live;
    let socket = url.replacen("http", "ws", 1);
    let pages = match headless {
        true => "none (--headless)".to_owned(),
        false => format!("{url}/"),
    };
    vec![
        format!(
            "dev: at most {} sessions, kept for {} after they began",
            live.max_sessions,
            age(live.ttl_ms / 1000)
        ),
        format!("  WebSocket  {socket}/ws/traces"),
        format!("  OTLP       {otlp}"),
        format!("  API        {url}/api"),
        format!("  SSE        {url}/stream/ui-updates"),
        format!("  pages      {pages}"),
    ]
}

/// Whole days, hours or minutes where it is that.
fn age(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units
        .iter()
        .find(|(unit, _)| seconds.is_multiple_of(*unit) && seconds > 0);
    match whole {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// Whoever can be spoken for here: those there is a token for, and those who need none.
pub(crate) fn tenants(app: &App) -> BTreeSet<TenantId> {
    let mut tenants: BTreeSet<TenantId> = app.access.named_tenants().cloned().collect();
    tenants.insert(TenantId::default());
    tenants
}

/// Says a line for each session of the tenant that is complete, until the process shuts down.
pub(crate) async fn tell_of_sessions(app: App, tenant: TenantId, say: fn(&str)) {
    let mut watch = app.hub.watch_feed(&tenant, &Scope::Tenant);
    let mut from = None;
    while !app.shutdown.is_cancelled() {
        // What has rung is read; what cannot be read is tried again.
        let read = read_on(&app, &tenant, &mut from, say).await;
        let again = async {
            match read {
                Ok(()) => watch.changed().await,
                Err(error) => {
                    tracing::debug!(%error, "failed to read what happens to sessions");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = again => {}
            () = app.shutdown.cancelled() => {}
        }
    }
}

/// Everything since the last time; the first time only looks where the end is.
async fn read_on(
    app: &App,
    tenant: &TenantId,
    from: &mut Option<FeedCursor>,
    say: fn(&str),
) -> Result<(), LogError> {
    loop {
        let Some(cursor) = *from else {
            *from = Some(app.log.last_notice(tenant, &Scope::Tenant).await?);
            continue;
        };
        let notices = app
            .log
            .notices(tenant, &Scope::Tenant, cursor, AT_ONCE)
            .await?;
        let mut is_news = false;
        for notice in notices {
            // The notice of the cursor itself comes again.
            if (notice.ms, notice.n) <= cursor.notice() {
                continue;
            }
            is_news = true;
            if let Some(line) = line(app, tenant, &notice).await? {
                say(&line);
            }
            *from = Some(FeedCursor {
                ms: notice.ms,
                n: notice.n,
                seq: 0,
            });
        }
        if !is_news {
            return Ok(());
        }
    }
}

async fn line(app: &App, tenant: &TenantId, notice: &Noticed) -> Result<Option<String>, LogError> {
    let Happened::Session {
        session,
        name,
        news: SessionNews::Complete,
        ..
    } = &notice.happened
    else {
        return Ok(None);
    };
    // Removed since: then its name is what there is to say.
    let Some(session) = app.log.live_session(tenant, session).await? else {
        return Ok(Some(format!("session   {name}")));
    };
    let spans = app.log.live_span_count(tenant, &session).await?;
    let traces = match session.traces.len() {
        1 => "1 trace".to_owned(),
        count => format!("{count} traces"),
    };
    let source = session.source.as_str();
    let took = session
        .completed_unix_us
        .map(|end| end.saturating_sub(session.started_unix_us) / 100_000)
        .map(|tenths| format!("  {}.{} s", tenths / 10, tenths % 10))
        .unwrap_or_default();
    let line = format!("session   {name} ended  {traces}  {spans} spans{took}  ({source})");
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn ages_are_told_in_their_largest_whole_unit() {
        let ages = [7_200, 604_800, 5_400, 59, 0].map(age);
        assert_eq!(ages, ["2h", "7d", "90m", "59s", "0s"]);
    }
}
