//! Live sessions in the store: begun, filled, ended, named and removed, on whichever instance, and told of in the tenant's log.

use bytes::Bytes;
use std::sync::Arc;
use tailspan_core::{
    feed::{FeedCursor, Happened, SessionNews},
    id::{SessionKey, TenantId, TraceId},
    observed::{Canonical, Context, Incoming, What},
    verbosity::Verbosity,
    wire,
};
use tailspan_service::{
    config::Config,
    live::{LiveSession, Source, Start},
    log::{Log, feed::Scope},
};

use crate::support::{Instance, Store};

fn pair(key: &str, value: &str) -> wire::KeyValue {
    wire::KeyValue {
        key: key.into(),
        value: Some(wire::AnyValue {
            value: Some(wire::any_value::Value::String(value.into())),
        }),
    }
}

/// A span of an exported trace; a root ends its run.
fn span(id: u8, root: bool, resource: &[(&str, &str)], attributes: &[(&str, &str)]) -> Incoming {
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| pair(k, v)).collect();
    let span = wire::Span {
        span_id: Bytes::copy_from_slice(&[1, 1, 1, 1, 1, 1, 1, id]),
        parent_span_id: match root {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(&[1, 1, 1, 1, 1, 1, 1, 255]),
        },
        name: "step".to_owned(),
        start_time_unix_nano: 1_760_000_000_000_000_000,
        end_time_unix_nano: 1_760_000_000_100_000_000,
        attributes: of(attributes),
        ..wire::Span::default()
    };
    Incoming {
        context: Arc::new(Context {
            resource: of(resource),
            ..Context::default()
        }),
        what: Canonical::from(&What::Span(Arc::new(span))),
        identity: Some(i64::from(id)),
        may_end_run: root,
        trace_level: Verbosity::Debug,
    }
}

fn trace(n: u32) -> TraceId {
    TraceId::parse(&format!("{n:012x}00000000000000000001")).unwrap()
}

/// What was told of sessions, in order.
async fn told(log: &Log, tenant: &TenantId) -> Vec<String> {
    let all = log
        .notices(tenant, &Scope::Tenant, FeedCursor::START, 10_000)
        .await
        .unwrap();
    let all = all.into_iter();
    let sessions = all.filter_map(|noticed| match noticed.happened {
        Happened::Session { name, news, .. } => Some(match news {
            SessionNews::Started => format!("{name} started"),
            SessionNews::Complete => format!("{name} complete"),
            SessionNews::Removed { absorbed_by: None } => format!("{name} removed"),
            SessionNews::Removed {
                absorbed_by: Some(by),
            } => format!("{name} absorbed by {by}"),
        }),
        _ => None,
    });
    sessions.collect()
}

async fn session(log: &Log, tenant: &TenantId, name: &str) -> Option<LiveSession> {
    let key = SessionKey::of(name);
    log.live_session(tenant, &key).await.unwrap()
}

/// Settles what is due until a session is complete.
async fn completed(log: &Log, tenant: &TenantId, name: &str) -> LiveSession {
    for _ in 0..400 {
        log.settle_due(tenant).await.unwrap();
        if let Some(session) = session(log, tenant, name).await
            && session.complete
        {
            return session;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{name} is not complete");
}

#[tokio::test]
async fn a_session_lives_in_the_store() {
    frames(Store::node().await).await;
}

#[tokio::test]
async fn a_session_lives_in_the_store_of_a_cluster() {
    frames(Store::cluster().await).await;
}

#[tokio::test]
async fn a_session_lives_in_a_store_with_few_rights() {
    frames(crate::stores::secured().await).await;
}

async fn frames(store: Store) {
    let one = Instance::with(store.config()).await;
    let other = Instance::with(store.config()).await;
    let tenant = TenantId::default();
    let (log, elsewhere) = (&one.app.log, &other.app.log);
    assert_eq!(log.live_take(&tenant, "s", 1, 0).await.unwrap(), None);
    assert!(!log.live_end(&tenant, "s").await.unwrap());

    let start = Start {
        session: "s".to_owned(),
        trace: "whatever the client says".to_owned(),
        eval_set_id: Some(String::new()),
        metadata: serde_json::from_str(r#"{"model":"m","n":1}"#).unwrap(),
    };
    log.live_start(&tenant, &start).await.unwrap();
    let begun = session(log, &tenant, "s").await.unwrap();
    assert_eq!(
        (
            begun.source,
            begun.complete,
            begun.spans,
            begun.traces.len()
        ),
        (Source::WebSocket, false, 0, 1)
    );
    assert_eq!(
        (&begun.trace, &begun.eval_set_id, &begun.metadata),
        (&start.trace, &start.eval_set_id, &start.metadata)
    );
    let taken = log.live_take(&tenant, "s", 3, 2).await.unwrap().unwrap();
    assert_eq!((taken.spans, taken.logs, taken.span_count), (3, 2, 3));
    assert_eq!(Some(&taken.into), begun.into.as_ref());
    let events = vec![span(1, false, &[], &[]), span(2, true, &[], &[])];
    let events = log.clean(&tenant, events);
    log.live_append(&tenant, "s", &taken.into, &events)
        .await
        .unwrap();
    assert_eq!(
        log.live_session_of(&tenant, &taken.into).await.unwrap(),
        Some(begun.key.clone())
    );
    // Its root ended, and still only its producer ends it.
    for _ in 0..30 {
        log.settle_due(&tenant).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!session(log, &tenant, "s").await.unwrap().complete);
    assert!(elsewhere.live_end(&tenant, "s").await.unwrap());
    let ended = session(log, &tenant, "s").await.unwrap();
    assert!(ended.complete && ended.completed_unix_us >= Some(ended.started_unix_us));
    assert!(ended.traces.iter().all(|trace| !trace.open));

    // Begun anew: another life, another trace; the former's is kept.
    elsewhere.live_start(&tenant, &start).await.unwrap();
    let again = session(log, &tenant, "s").await.unwrap();
    assert!(again.life > begun.life && again.into != begun.into && !again.complete);
    assert!(!again.has(&taken.into));
    assert!(log.state(&tenant, &taken.into).await.unwrap().is_some());
    assert_eq!(log.live_sessions(&tenant).await.unwrap(), vec![again]);

    assert_eq!(
        log.live_remove(&tenant, std::slice::from_ref(&begun.key))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        told(log, &tenant).await,
        ["s started", "s complete", "s started", "s removed"]
    );
    assert_eq!(log.live_sessions(&tenant).await.unwrap(), vec![]);
}

#[tokio::test]
async fn places_are_given_out_up_to_the_limits() {
    let store = Store::node().await;
    let mut config: Config = store.config();
    config.live.max_spans = 5;
    config.live.max_logs = 1;
    let instance = Instance::with(config).await;
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let start = Start {
        session: "s".to_owned(),
        ..Start::default()
    };
    log.live_start(&tenant, &start).await.unwrap();
    let take = async |spans, logs| {
        let taken = log.live_take(&tenant, "s", spans, logs).await;
        let taken = taken.unwrap().unwrap();
        (taken.spans, taken.logs, taken.span_count, taken.log_count)
    };
    assert_eq!(take(3, 0).await, (3, 0, 3, 0));
    assert_eq!(take(4, 3).await, (2, 1, 5, 1));
    assert_eq!(take(1, 1).await, (0, 0, 5, 1));
}

#[tokio::test]
async fn exported_traces_find_their_session() {
    exported(Store::node().await).await;
}

#[tokio::test]
async fn exported_traces_find_their_session_on_a_cluster() {
    exported(Store::cluster().await).await;
}

async fn exported(store: Store) {
    let instance = Instance::with(store.config()).await;
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let append = async |n: u32, spans: Vec<Incoming>| {
        log.append(&tenant, &trace(n), spans, Default::default())
            .await
            .unwrap();
    };
    // Named by nothing: its own. Then a conversation is heard of, and what is left empty is absorbed.
    let resource = [
        ("service.name", "agent"),
        ("agentevals.eval_set_id", "golden"),
    ];
    append(1, vec![span(1, false, &resource, &[])]).await;
    let own = "otlp-000000000001";
    let begun = session(log, &tenant, own).await.unwrap();
    assert_eq!(begun.eval_set_id.as_deref(), Some("golden"));
    assert_eq!(
        serde_json::Value::Object(begun.metadata),
        serde_json::json!({"service.name": "agent"})
    );
    let talk = [("gen_ai.conversation.id", "talk")];
    append(1, vec![span(2, true, &resource, &talk)]).await;
    assert_eq!(session(log, &tenant, own).await, None);
    let complete = completed(log, &tenant, "talk").await;
    assert_eq!((complete.traces.len(), complete.source), (1, Source::Otlp));

    // The next turn opens the same session, and ends it again.
    append(2, vec![span(1, true, &resource, &talk)]).await;
    let open = session(log, &tenant, "talk").await.unwrap();
    assert!(!open.complete && open.life == complete.life);
    let open: Vec<_> = open.traces.iter().map(|trace| trace.open).collect();
    assert_eq!(open, [false, true]);
    completed(log, &tenant, "talk").await;
    // What is late opens it as well.
    append(1, vec![span(3, false, &resource, &[])]).await;
    assert!(!session(log, &tenant, "talk").await.unwrap().complete);
    let late = completed(log, &tenant, "talk").await;
    assert_eq!(log.live_span_count(&tenant, &late).await.unwrap(), 4);

    // A name that was given for this goes before a conversation's, and takes nothing but its own trace.
    let named = [("agentevals.session_name", "mine")];
    append(2, vec![span(9, true, &named, &[])]).await;
    let mine = completed(log, &tenant, "mine").await;
    assert!(mine.has(&trace(2)));
    assert!(!session(log, &tenant, "talk").await.unwrap().has(&trace(2)));
    assert_eq!(
        log.live_session_of(&tenant, &trace(2)).await.unwrap(),
        Some(mine.key)
    );

    log.delete(&tenant, &trace(2)).await.unwrap();
    assert_eq!(session(log, &tenant, "mine").await, None);
    assert_eq!(
        told(log, &tenant).await,
        [
            "otlp-000000000001 started",
            "talk started",
            "otlp-000000000001 absorbed by talk",
            "talk complete",
            "talk complete",
            "talk complete",
            "mine started",
            "mine complete",
            "mine removed",
        ]
    );
}

#[tokio::test]
async fn too_many_sessions_and_old_ones_make_room() {
    let store = Store::node().await;
    let mut config = store.config();
    config.live.max_sessions = 3;
    let instance = Instance::with(config).await;
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let names = async || {
        let sessions = log.live_sessions(&tenant).await.unwrap().into_iter();
        sessions.map(|session| session.name).collect::<Vec<_>>()
    };
    let start = async |name: &str| {
        let start = Start {
            session: name.to_owned(),
            ..Start::default()
        };
        log.live_start(&tenant, &start).await.unwrap();
    };
    for name in ["a", "b", "c"] {
        start(name).await;
    }
    log.live_end(&tenant, "b").await.unwrap();
    start("d").await;
    assert_eq!(names().await, ["a", "c", "d"]);
    // Open ones stay, and the sweep takes the first that is complete.
    start("e").await;
    assert_eq!(names().await, ["a", "c", "d", "e"]);
    log.live_end(&tenant, "d").await.unwrap();
    log.live_end(&tenant, "e").await.unwrap();
    assert_eq!(log.live_sweep(&tenant).await.unwrap(), 1);
    assert_eq!(names().await, ["a", "c", "e"]);

    let mut config = store.config();
    config.live.ttl_ms = 1;
    let strict = Instance::with(config).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(strict.app.log.live_sweep(&tenant).await.unwrap(), 1);
    assert_eq!(names().await, ["a", "c"]);
}
