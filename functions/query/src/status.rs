//! `GET /status`: how this process and what it stands on are, for a status page. No address, no secret, no tenant's name. `GET /status/limits`: what the caller's tenant may, and how much of it it has.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::Serialize;
use tailspan_core::event::rfc3339_ms;
use tailspan_service::{
    App,
    archive::Archive,
    error::ApiError,
    extract::{Operator, Read, Tenant},
    webhooks::Counts,
};

/// For an answer of the archive: a status page waits no longer.
const ARCHIVE_TIME: Duration = Duration::from_secs(3);

/// How the process is.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ProcessStatus {
    /// The worst of what follows.
    status: Standing,
    /// Of the program.
    version: &'static str,
    mode: ProcessMode,
    uptime_seconds: u64,
    store: StoreStatus,
    streams: OpenStreams,
    /// Jobs of the workers, all processes; absent while the store does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    work: Option<WorkLengths>,
    webhooks: WebhookCounts,
    forward: ForwardCounts,
    limits: LimitsInForce,
    archive: ArchiveStatus,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
enum Standing {
    Ok,
    /// Everything is answered, and something should be seen to.
    Degraded,
    /// The store does not answer.
    Unavailable,
}

#[derive(Clone, Copy, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
enum ProcessMode {
    /// A process of its own.
    Server,
    /// A function of the cloud: it lives for a while, and there are others.
    Function,
}

/// Redis.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct StoreStatus {
    up: bool,
    memory_bytes: u64,
    /// 0: unbounded.
    max_memory_bytes: u64,
    /// Its `maxmemory-policy`; empty when it may not be asked.
    policy: String,
    /// What it may not do with what was acknowledged, and what it does not let us do: how many sentences `/ready` and the log have of it.
    warnings: usize,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct OpenStreams {
    /// Of this process.
    open: u64,
    limit: u64,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct WorkLengths {
    /// Waiting or in hand.
    length: u64,
    pending: u64,
    /// Failed too often.
    set_aside: u64,
}

/// What holds here; each is described in docs/operations.md.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct LimitsInForce {
    body_bytes: u64,
    in_flight_bytes: u64,
    stream_seconds: u64,
    completions: u64,
    sessions: u64,
    retention_seconds: u64,
}

/// Notifications of runs, all tenants; as far as this process has endpoints.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct WebhookCounts {
    endpoints: usize,
    /// Deliveries that are still tried.
    waiting: u64,
    /// Dead letters.
    dead: u64,
}

/// What is passed on to other backends, all tenants; as far as this process has targets.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct ForwardCounts {
    targets: usize,
    /// Traces of which something is to be sent.
    waiting: u64,
}

/// Something that may be there.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct ArchiveStatus {
    configured: bool,
    /// It answers now; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    healthy: Option<bool>,
    /// The sort of it: `folder` or `s3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    kind: Option<&'static str>,
    /// When it last failed in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false, format = DateTime))]
    last_failed_at: Option<String>,
}

/// How the process and what it stands on are, for a status page.
///
/// Answered 200 also while the store is away: `status` says so. It names no address, no secret and no tenant.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/status", tag = "process",
    responses((status = 200, description = "how it is", body = ProcessStatus)),
))]
pub(crate) async fn get_status(State(app): State<App>, _: Operator) -> Json<ProcessStatus> {
    let (memory, archive) = tokio::join!(app.store_memory(), archive(app.log.archive()));
    let up = memory.is_ok();
    let memory = memory.unwrap_or_default();
    let warnings = usize::from(memory.warning().is_some()) + app.refusals().len();
    let work = match up {
        true => app.log.work_counts().await.ok(),
        false => None,
    };
    let (mut deliveries, mut to_forward) = (Counts::default(), 0);
    if up {
        deliveries = app.count_deliveries().await.unwrap_or_default();
        to_forward = app.count_to_forward().await.unwrap_or_default();
    }
    let status = match (up, warnings, archive.healthy) {
        (false, ..) => Standing::Unavailable,
        (true, 0, None | Some(true)) => Standing::Ok,
        _ => Standing::Degraded,
    };
    let config = &app.config;
    Json(ProcessStatus {
        status,
        version: env!("CARGO_PKG_VERSION"),
        mode: match app.is_function() {
            true => ProcessMode::Function,
            false => ProcessMode::Server,
        },
        uptime_seconds: app.began.elapsed().as_secs(),
        store: StoreStatus {
            up,
            memory_bytes: memory.used_bytes,
            max_memory_bytes: memory.max_bytes,
            policy: memory.policy,
            warnings,
        },
        streams: OpenStreams {
            open: u64::try_from(app.metrics.viewers.get()).unwrap_or_default(),
            limit: config.max_streams as u64,
        },
        work: work.map(|work| WorkLengths {
            length: work.length,
            pending: work.pending,
            set_aside: work.set_aside,
        }),
        webhooks: WebhookCounts {
            endpoints: config.webhooks.len(),
            waiting: deliveries.waiting,
            dead: deliveries.dead,
        },
        forward: ForwardCounts {
            targets: config.forward.len(),
            waiting: to_forward,
        },
        limits: LimitsInForce {
            body_bytes: config.max_body_bytes as u64,
            in_flight_bytes: config.max_in_flight_bytes as u64,
            stream_seconds: config.stream_lifetime.as_secs(),
            completions: config.max_completions as u64,
            sessions: config.live.max_sessions,
            retention_seconds: config.retention.longest_ms() / 1000,
        },
        archive,
    })
}

/// What a tenant may send, watch and hold. What is absent is not limited.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct TenantLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    events: Option<EventRate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    streams: Option<LimitUse>,
    /// Blocks and pieces of traces, packed; the store needs some more beside them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    stored_bytes: Option<LimitUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    spans_per_trace: Option<u64>,
}

/// Spans, log records and native events.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct EventRate {
    per_second: f64,
    /// At once.
    burst: u64,
    /// That may be sent now.
    left: u64,
    /// Until one may be sent again, rounded up; 0 when one may.
    wait_seconds: u64,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct LimitUse {
    limit: u64,
    used: u64,
}

/// What the caller's tenant may send, watch and hold, and how much of it it does.
///
/// Counted over all instances.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/status/limits", tag = "process",
    responses((status = 200, description = "the limits of the tenant", body = TenantLimits)),
))]
pub(crate) async fn get_limits(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
) -> Result<Json<TenantLimits>, ApiError> {
    let quota = *app.limits.of(&tenant);
    let standing = app.limits.standing(&tenant).await?;
    let events = quota
        .rate
        .zip(standing)
        .map(|(bucket, standing)| EventRate {
            per_second: bucket.events_per_second,
            burst: bucket.burst,
            left: standing.left,
            wait_seconds: standing.wait.as_secs() + u64::from(standing.wait.subsec_nanos() > 0),
        });
    let streams = match quota.streams {
        Some(limit) => Some(LimitUse {
            limit,
            used: app.limits.open_streams(&tenant).await?,
        }),
        None => None,
    };
    let stored_bytes = match quota.stored_bytes {
        Some(limit) => Some(LimitUse {
            limit,
            used: app.log.stored_bytes(&tenant).await?,
        }),
        None => None,
    };
    Ok(Json(TenantLimits {
        events,
        streams,
        stored_bytes,
        spans_per_trace: quota.spans_per_trace,
    }))
}

async fn archive(archive: Option<&Archive>) -> ArchiveStatus {
    let Some(archive) = archive else {
        return ArchiveStatus {
            configured: false,
            healthy: None,
            kind: None,
            last_failed_at: None,
        };
    };
    let asked = tokio::time::timeout(ARCHIVE_TIME, archive.ask()).await;
    let failed_at = archive.health().failed_at_unix_ms;
    ArchiveStatus {
        configured: true,
        healthy: Some(matches!(asked, Ok(Ok(())))),
        kind: Some(archive.kind()),
        last_failed_at: (failed_at > 0).then(|| rfc3339_ms(failed_at)),
    }
}
