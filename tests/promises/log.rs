//! The log: appended once, read in order, gone when deleted.

use std::sync::Arc;

use tailspan_core::{
    cursor::Cursor,
    id::{TenantId, TraceId},
    listing::Place,
    observed::{Canonical, Incoming, What},
};
use tailspan_service::{
    App,
    log::{
        append::AppendOptions,
        read::{PageSize, ReadFrom},
        rows::Walk,
        settle::Look,
    },
};

use crate::{
    mesh::a_meshs_entries_are_taken_once_and_its_readers_vanish,
    stats::what_a_run_adds_is_counted_and_stays_when_the_run_goes, support::Store,
};

pub(crate) fn native(identity: Option<i64>, json: &str) -> Incoming {
    Incoming {
        context: Arc::default(),
        what: Canonical::Native(json.into()),
        identity,
        may_end_run: json.contains("workflow_completed"),
        trace_level: tailspan_core::verbosity::Verbosity::Debug,
    }
}

fn numbered(range: std::ops::Range<i64>) -> Vec<Incoming> {
    range
        .map(|n| native(Some(n), &format!("{{\"event_type\":\"step\",\"n\":{n}}}")))
        .collect()
}

/// The same promises on every store that there is.
macro_rules! on_every_store {
    ($($promise:ident),* $(,)?) => {
        on_every_store!(each on_redis_7, super::Store::node().await; $($promise),*);
        on_every_store!(each on_redis_6_2, crate::stores::redis_6_2().await; $($promise),*);
        on_every_store!(each on_valkey_9, crate::stores::valkey_9().await; $($promise),*);
        on_every_store!(each on_a_cluster, super::Store::cluster().await; $($promise),*);
        on_every_store!(each over_tls_as_a_user, crate::stores::secured().await; $($promise),*);
        on_every_store!(each behind_a_sentinel, crate::stores::behind_a_sentinel().await; $($promise),*);
        mod in_a_container {
            $(#[tokio::test]
            async fn $promise() {
                if let Some(contained) = crate::containers::redis().await {
                    super::$promise(super::case(super::Store::Container(Box::new(contained))).await).await;
                }
            })*
        }
    };
    (each $name:ident, $store:expr; $($promise:ident),*) => {
        mod $name {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::case($store).await).await;
            })*
        }
    };
}

on_every_store! {
    events_are_numbered_in_order_over_chunks,
    what_is_known_is_not_stored_again_and_the_rest_is,
    a_first_chunk_is_known_again_with_its_identities_in_its_entry_or_beside_it,
    long_text_comes_back_whole_and_is_stored_once,
    a_deleted_trace_stays_deleted_until_it_is_begun_again,
    a_run_is_settled_once_and_another_end_is_its_next_run,
    a_job_whose_worker_died_is_taken_over_and_one_that_always_fails_is_set_aside,
    the_sweep_removes_every_key_of_an_old_trace,
    rows_are_listed_newest_first_without_loss_over_pages,
    notices_cover_every_event_and_a_lost_one_is_healed_by_the_next,
    a_trace_begun_again_while_it_is_removed_keeps_its_row_and_deadline,
    a_deadline_given_during_a_settlement_outlives_it,
    a_meshs_entries_are_taken_once_and_its_readers_vanish,
    what_a_run_adds_is_counted_and_stays_when_the_run_goes,
}

const PLAIN: AppendOptions = AppendOptions { replace: false };
const REPLACE: AppendOptions = AppendOptions { replace: true };

pub(crate) struct Case {
    pub(crate) server: Store,
    pub(crate) app: App,
    tenant: TenantId,
    trace: TraceId,
}

async fn case(server: Store) -> Case {
    let app = App::start(server.config()).await.expect("the app starts");
    Case {
        server,
        app,
        tenant: TenantId::default(),
        trace: TraceId::parse("t").expect("valid"),
    }
}

impl Case {
    /// The newest traces after one.
    async fn rows(&self, after: Option<&Place>, wanted: usize) -> Vec<Place> {
        let walk = Walk {
            after: after.cloned(),
            step: wanted,
            wanted,
            ..Walk::default()
        };
        let step = self.app.log.walk(&self.tenant, walk).await.expect("rows");
        step.found.into_iter().map(|listed| listed.place).collect()
    }

    async fn append(&self, events: Vec<Incoming>) -> tailspan_service::log::append::Appended {
        self.app
            .log
            .append(&self.tenant, &self.trace, events, PLAIN)
            .await
            .expect("appended")
    }

    /// Whether a sorted set has this member.
    async fn has_score(&self, set: &str, member: &str) -> bool {
        let score = self.server.cli(&["ZSCORE", set, member]).await;
        score.starts_with('$') && !score.starts_with("$-1")
    }

    /// How often a span of each name is in the trace `shared`.
    pub(crate) async fn spans(&self) -> std::collections::BTreeMap<String, u64> {
        let trace = TraceId::parse("shared").expect("valid");
        let mut names = std::collections::BTreeMap::new();
        let mut from = ReadFrom::Holding(0);
        loop {
            let page = self
                .app
                .log
                .page(&self.tenant, &trace, from, PageSize::LARGE)
                .await
                .expect("a page");
            let Some(last) = page.chunks.last() else {
                return names;
            };
            from = ReadFrom::After(Cursor::new(last.span.last, last.span.mark));
            for chunk in &page.chunks {
                let recorded = self.app.log.recorded(&self.tenant, &trace, chunk).await;
                for recorded in recorded.expect("a chunk") {
                    if let What::Span(span) = recorded.observation.what {
                        *names.entry(span.name.clone()).or_default() += 1;
                    }
                }
            }
        }
    }

    /// The texts of all events, in order, with their numbers.
    async fn events(&self) -> Vec<(u64, String)> {
        let mut events = Vec::new();
        let mut from = ReadFrom::Holding(0);
        loop {
            let page = self
                .app
                .log
                .page(&self.tenant, &self.trace, from, PageSize::LARGE)
                .await
                .expect("a page");
            let Some(last) = page.chunks.last() else {
                return events;
            };
            from = ReadFrom::After(Cursor::new(last.span.last, last.span.mark));
            for chunk in &page.chunks {
                for recorded in self
                    .app
                    .log
                    .recorded(&self.tenant, &self.trace, chunk)
                    .await
                    .expect("a chunk")
                {
                    let What::Native(json) = recorded.observation.what else {
                        panic!("native events only")
                    };
                    events.push((recorded.seq, json.to_string()));
                }
            }
        }
    }
}

async fn events_are_numbered_in_order_over_chunks(case: Case) {
    let appended = case.append(numbered(0..600)).await;
    assert_eq!(
        (appended.stored, appended.first_seq, appended.last_seq),
        (600, 1, 600)
    );
    let events = case.events().await;
    assert_eq!(events.len(), 600);
    for (at, (seq, json)) in events.iter().enumerate() {
        assert_eq!(*seq, at as u64 + 1);
        assert!(json.contains(&format!("\"n\":{at}}}")), "{json}");
    }
}

async fn what_is_known_is_not_stored_again_and_the_rest_is(case: Case) {
    case.append(numbered(0..10)).await;
    let again = case.append(numbered(5..15)).await;
    assert_eq!(
        (
            again.stored,
            again.duplicates,
            again.first_seq,
            again.last_seq
        ),
        (5, 5, 11, 15)
    );
    let known = case.append(numbered(0..15)).await;
    assert_eq!(
        (known.stored, known.duplicates, known.last_seq),
        (0, 15, 15)
    );
    // Inside one request too.
    let twice = case
        .append([numbered(20..22), numbered(20..22)].concat())
        .await;
    assert_eq!((twice.stored, twice.duplicates), (2, 2));
    // Events without an identity are never duplicates.
    let unnamed = vec![
        native(None, "{}"),
        native(None, "{}"),
        native(Some(3), "{}"),
    ];
    let mixed = case.append(unnamed.clone()).await;
    assert_eq!((mixed.stored, mixed.duplicates), (2, 1));
    assert_eq!(case.append(unnamed).await.stored, 2);
    assert_eq!(case.events().await.len(), 21);
}

async fn a_first_chunk_is_known_again_with_its_identities_in_its_entry_or_beside_it(case: Case) {
    // With the first chunk alone, small and large, before and after a set of identities is there; and in a life after the first.
    let seen = "{default/t}:seen";
    for (life, size) in [(0, 1), (1, 16), (2, 17)] {
        let events = numbered(0..size);
        if life > 0 {
            let log = &case.app.log;
            let begun = log.append(&case.tenant, &case.trace, events.clone(), REPLACE);
            begun.await.expect("begun again");
        } else {
            case.append(events.clone()).await;
        }
        let beside = case.server.cli(&["EXISTS", seen]).await;
        assert_eq!(beside.trim(), if size > 16 { ":1" } else { ":0" });
        let again = case.append(events.clone()).await;
        assert_eq!((again.stored, again.duplicates), (0, size as u64));
        let more = case.append(numbered(size - 1..size + 1)).await;
        assert_eq!((more.stored, more.duplicates), (1, 1));
        assert_eq!(case.append(events).await.stored, 0);
        let all = case.server.cli(&["SCARD", seen]).await;
        assert_eq!(all.trim(), format!(":{}", size + 1));
        let left = case.server.cli(&["TTL", seen]).await;
        assert_ne!(left.trim(), ":-1", "the set has no time-out");
    }
}

async fn long_text_comes_back_whole_and_is_stored_once(case: Case) {
    let text = format!(
        "{{\"text\":\"{}\"}}",
        "Tallinn, Riga and Vilnius. ".repeat(3000)
    );
    for n in 0..20 {
        case.append(vec![native(Some(n), &text)]).await;
    }
    assert!(case.events().await.iter().all(|(_, json)| *json == text));
    let used = case
        .server
        .cli(&["MEMORY", "USAGE", "{default/t}:blobs"])
        .await;
    let used: usize = used
        .trim()
        .trim_start_matches(':')
        .parse()
        .expect("a number");
    assert!(
        used < text.len(),
        "{used} bytes for {} bytes sent 20 times",
        text.len()
    );
}

async fn a_deleted_trace_stays_deleted_until_it_is_begun_again(case: Case) {
    let delete = || case.app.log.delete(&case.tenant, &case.trace);
    assert!(!delete().await.expect("answered"), "nothing to delete yet");
    case.append(numbered(0..10)).await;
    assert!(delete().await.expect("answered"));
    assert!(!delete().await.expect("answered"), "deleted already");
    let late = case.append(numbered(10..12)).await;
    assert!(late.deleted);
    assert_eq!(case.events().await, []);
    assert!(
        case.app
            .log
            .folded(&case.tenant, &case.trace)
            .await
            .expect("answered")
            .is_none()
    );
    assert_eq!(case.rows(None, 10).await, []);

    let anew = case
        .app
        .log
        .append(&case.tenant, &case.trace, numbered(0..3), REPLACE)
        .await
        .expect("appended");
    assert_eq!((anew.stored, anew.first_seq, anew.last_seq), (3, 11, 13));
    assert_eq!(case.rows(None, 10).await.len(), 1);
}

async fn a_run_is_settled_once_and_another_end_is_its_next_run(case: Case) {
    case.append(numbered(0..300)).await;
    case.append(vec![native(
        Some(1000),
        "{\"event_type\":\"workflow_completed\"}",
    )])
    .await;
    let log = &case.app.log;
    let worker = log.worker("w").await.expect("a worker");
    let mut jobs = Vec::new();
    while jobs.is_empty() {
        log.settle_due(&case.tenant).await.expect("settled");
        jobs = worker
            .next(std::time::Duration::from_millis(100))
            .await
            .expect("jobs");
    }
    assert_eq!(jobs[0].job.through, 301);
    assert_eq!(jobs[0].job.status, "completed");
    worker.done(&jobs[0]).await.expect("done");
    assert_eq!(
        log.settle(&case.tenant, &case.trace).await.expect("looked"),
        Look::Settled
    );
    assert_eq!(log.settle_due(&case.tenant).await.expect("looked"), 0);
    let state = log
        .state(&case.tenant, &case.trace)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(state.ended(), Some("completed"));
    let work = log.work_counts().await.expect("counted");
    assert_eq!((work.length, work.pending, work.set_aside), (0, 0, 0));
    assert_eq!(work.consumers, 1);

    case.append(numbered(400..401)).await;
    let state = log
        .state(&case.tenant, &case.trace)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(
        (state.ended(), state.run, state.reopened),
        (None, 0, true),
        "late for the run that ended"
    );
    // It came late and left the run ended: settled again after the grace, and not when the silence of an open run would be over.
    let soon = std::time::Duration::from_secs(10);
    assert!(soon.as_millis() < u128::from(case.app.config.patience.stalled_ms));
    let settled_again = async {
        loop {
            log.settle_due(&case.tenant).await.expect("settled");
            let state = log
                .state(&case.tenant, &case.trace)
                .await
                .expect("answered");
            if state.is_some_and(|state| state.ended() == Some("completed")) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(soon, settled_again)
        .await
        .expect("settled again soon");

    // Another end is that of another run, also when more of it came first.
    case.append(numbered(500..501)).await;
    case.append(vec![native(
        Some(1001),
        "{\"event_type\":\"workflow_completed\"}",
    )])
    .await;
    let state = log.state(&case.tenant, &case.trace).await;
    let state = state.expect("answered").expect("there");
    assert_eq!((state.run, state.reopened), (1, false));
}

async fn a_job_whose_worker_died_is_taken_over_and_one_that_always_fails_is_set_aside(case: Case) {
    case.append(vec![native(
        Some(1),
        "{\"event_type\":\"workflow_completed\"}",
    )])
    .await;
    let log = &case.app.log;
    let worker = log.worker("first").await.expect("a worker");
    let mut taken = Vec::new();
    while taken.is_empty() {
        log.settle_due(&case.tenant).await.expect("settled");
        taken = worker
            .next(std::time::Duration::from_millis(100))
            .await
            .expect("jobs");
    }
    let other = log.worker("second").await.expect("a worker");
    assert!(
        other.take_over().await.expect("looked").is_empty(),
        "not idle for long enough"
    );
    // XCLAIM with IDLE makes the entry old without waiting for it.
    for deliveries in ["1", "5"] {
        let claim = [
            "XCLAIM",
            "work",
            "workers",
            "first",
            "0",
            &taken[0].entry,
            "IDLE",
            "60000",
            "RETRYCOUNT",
            deliveries,
        ];
        case.server.cli(&claim).await;
        let again = other.take_over().await.expect("looked");
        assert_eq!(again.len(), usize::from(deliveries == "1"));
    }
    let work = log.work_counts().await.expect("counted");
    assert_eq!((work.length, work.pending, work.set_aside), (0, 0, 1));
    // The group heals after its stream was deleted.
    case.server.cli(&["DEL", "work"]).await;
    assert!(
        worker
            .next(std::time::Duration::from_millis(10))
            .await
            .expect("made again")
            .is_empty()
    );
}

async fn the_sweep_removes_every_key_of_an_old_trace(case: Case) {
    case.append(numbered(0..10)).await;
    case.append(vec![native(None, &"x".repeat(1000))]).await;
    let log = &case.app.log;
    let soon = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let swept = log.sweep(&case.tenant, soon).await.expect("swept");
    assert_eq!((swept.removed, swept.complete), (0, true));
    let later = tailspan_service::log::now_unix_ms() + 1;
    assert_eq!(
        log.remove_before(&case.tenant, later).await.expect("swept"),
        1
    );
    let keys = case.server.cli(&["KEYS", "*"]).await;
    assert!(!keys.contains("{default/t}"), "{keys}");
    let index = case.server.cli(&["ZCARD", "{default}:traces"]).await;
    assert_eq!(index.trim(), ":0");
}

async fn rows_are_listed_newest_first_without_loss_over_pages(case: Case) {
    for n in 0..25 {
        let trace = TraceId::parse(&format!("t{n:02}")).expect("valid");
        case.app
            .log
            .append(&case.tenant, &trace, numbered(0..1), PLAIN)
            .await
            .expect("appended");
    }
    let mut seen = Vec::new();
    loop {
        let page = case.rows(seen.last(), 4).await;
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen.len(), 25);
    assert!(
        seen.is_sorted_by(|a, b| (b.started_unix_ms, &b.trace) < (a.started_unix_ms, &a.trace))
    );
}

async fn notices_cover_every_event_and_a_lost_one_is_healed_by_the_next(case: Case) {
    let in_session = |n: i64| {
        native(
            Some(n),
            &format!("{{\"event_type\":\"x\",\"session_id\":\"s {{}}\",\"n\":{n}}}"),
        )
    };
    case.append(vec![in_session(1), in_session(2)]).await;
    // As if a notice had been lost.
    case.server
        .cli(&["HSET", "{default}:noted", "t", "1"])
        .await;
    case.append(vec![in_session(3)]).await;
    let log = case
        .server
        .cli(&["XRANGE", "{default}:log", "-", "+"])
        .await;
    let noted: Vec<&str> = log
        .lines()
        // The live session's start, in microseconds, is no number of an event.
        .filter(|line| line.len() < 9 && line.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert_eq!(noted, ["1", "2", "2", "3"], "{log}");
    let keys = case.server.cli(&["KEYS", "{default/s/*"]).await;
    assert!(keys.contains(":session") && keys.contains(":log"), "{keys}");
}

async fn a_trace_begun_again_while_it_is_removed_keeps_its_row_and_deadline(case: Case) {
    let log = &case.app.log;
    let traces: Vec<TraceId> = (0..20)
        .map(|n| TraceId::parse(&format!("t{n}")).expect("valid"))
        .collect();
    let remove = async {
        for _ in 0..40 {
            let all = tailspan_service::log::now_unix_ms() + 1_000;
            log.remove_before(&case.tenant, all).await.expect("swept");
        }
    };
    let append = async {
        for n in 0..40 {
            let appends = traces
                .iter()
                .map(|trace| log.append(&case.tenant, trace, numbered(n..n + 1), PLAIN));
            futures::future::try_join_all(appends)
                .await
                .expect("appended");
        }
    };
    tokio::join!(remove, append);
    let listed = case.rows(None, 100).await;
    for trace in &traces {
        let living = log.state(&case.tenant, trace).await.expect("answered");
        if living.is_some() {
            assert!(listed.iter().any(|row| row.trace == *trace), "{trace}");
            assert!(
                case.has_score("{default}:due", trace.as_str()).await,
                "{trace}"
            );
        }
    }
    // One that lost both all the same has them again after its next event.
    case.append(numbered(0..1)).await;
    for index in ["{default}:traces", "{default}:due"] {
        case.server.cli(&["ZREM", index, "t"]).await;
    }
    case.append(numbered(1..2)).await;
    for index in ["{default}:traces", "{default}:due"] {
        assert!(case.has_score(index, "t").await, "{index}");
    }
}

async fn a_deadline_given_during_a_settlement_outlives_it(case: Case) {
    case.append(vec![native(
        Some(1),
        "{\"event_type\":\"workflow_completed\"}",
    )])
    .await;
    let log = &case.app.log;
    assert_eq!(
        log.settle(&case.tenant, &case.trace).await.expect("looked"),
        Look::Settled
    );
    // Somebody holds a claim on the trace, and has settled it; the next run begins before the claim is released.
    let claim = format!("{}.500", tailspan_service::log::now_unix_ms() + 30_000);
    let due = "{default}:due";
    case.server.cli(&["ZADD", due, &claim, "t"]).await;
    case.append(numbered(2..3)).await;
    let release = include_str!("../../shared/service/src/lua/release.lua");
    let eval = ["EVAL", release, "1", due, "t", &claim, ""];
    case.server.cli(&eval).await;
    assert!(
        case.has_score(due, "t").await,
        "the new run has no deadline"
    );
}
