//! What this process did, for `/metrics` in the OpenMetrics text format.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::log::append::Appended;

/// The one label there is.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

/// Counters and gauges of one process.
pub struct Metrics {
    registry: Registry,
    pub spans: Counter,
    pub log_records: Counter,
    pub native_events: Counter,
    pub rejected: Family<Reason, Counter>,
    pub duplicates: Counter,
    pub redacted: Counter,
    pub events_stored: Counter,
    pub appends: Counter,
    pub append_failures: Family<Reason, Counter>,
    pub ring_to_frame_seconds: Histogram,
    pub viewers: Gauge,
    pub viewers_cut: Counter,
    pub watched_traces: Gauge,
    pub frames: Counter,
    pub gaps: Family<Reason, Counter>,
    pub unreadable_chunks: Counter,
    pub lost_pieces: Counter,
    pub runs_ended: Family<Reason, Counter>,
    pub swept_traces: Counter,
    pub archived_traces: Counter,
    pub archive_failures: Counter,
    pub archived_reads: Counter,
    pub restored_traces: Counter,
    pub set_aside: Counter,
    pub work_length: Gauge,
    pub work_pending: Gauge,
    pub work_set_aside: Gauge,
    pub work_consumers: Gauge,
    pub webhooks_delivered: Counter,
    pub webhooks_failed: Counter,
    pub webhooks_dead: Counter,
    pub webhooks_dropped: Counter,
    pub forwarded: Counter,
    pub forward_failures: Counter,
    pub not_forwarded: Family<Reason, Counter>,
    pub forward_waiting: Gauge,
    pub mesh_entries: Counter,
    pub mesh_set_aside: Counter,
    pub mesh_lost: Counter,
    pub mesh_pending: Gauge,
    pub mesh_lag: Gauge,
    pub mesh_consumers: Gauge,
    pub completions: Counter,
    pub completions_failed: Family<Reason, Counter>,
    pub replies_failed: Counter,
    pub subscriptions: Gauge,
    pub tasks: Gauge,
    pub redis_memory_bytes: Gauge,
    pub redis_up: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tailspan");
        macro_rules! metric {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        Self {
            spans: metric!("spans", "Spans received and accepted", Counter::default()),
            log_records: metric!(
                "log_records",
                "Log records received and accepted",
                Counter::default()
            ),
            native_events: metric!(
                "native_events",
                "Native events received and accepted",
                Counter::default()
            ),
            rejected: metric!(
                "rejected",
                "Spans, log records, events and requests that were not accepted",
                Family::default()
            ),
            duplicates: metric!(
                "duplicates",
                "Events that were stored already",
                Counter::default()
            ),
            redacted: metric!(
                "redacted",
                "Values taken out before they were stored, or after",
                Counter::default()
            ),
            events_stored: metric!(
                "events_stored",
                "Events appended to traces",
                Counter::default()
            ),
            appends: metric!(
                "appends",
                "Batches appended, one per trace and request",
                Counter::default()
            ),
            append_failures: metric!(
                "append_failures",
                "Appends that failed after all attempts",
                Family::default()
            ),
            ring_to_frame_seconds: metric!(
                "ring_to_frame_seconds",
                "From the doorbell's ring to frames that viewers can take",
                Histogram::new([0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0])
            ),
            viewers: metric!("viewers", "Open streams", Gauge::default()),
            viewers_cut: metric!(
                "viewers_cut",
                "Streams whose viewer went or stopped reading before their end",
                Counter::default()
            ),
            watched_traces: metric!(
                "watched_traces",
                "Traces that somebody watches",
                Gauge::default()
            ),
            frames: metric!(
                "frames",
                "Event frames handed to viewers",
                Counter::default()
            ),
            gaps: metric!("gaps", "Gaps announced to viewers", Family::default()),
            unreadable_chunks: metric!(
                "unreadable_chunks",
                "Stored chunks that could not be read",
                Counter::default()
            ),
            lost_pieces: metric!(
                "lost_pieces",
                "Pieces of text gone from the store",
                Counter::default()
            ),
            runs_ended: metric!(
                "runs_ended",
                "Runs settled by this process's worker, by status",
                Family::default()
            ),
            swept_traces: metric!(
                "swept_traces",
                "Traces removed by retention",
                Counter::default()
            ),
            archived_traces: metric!(
                "archived_traces",
                "Traces written to the archive",
                Counter::default()
            ),
            archive_failures: metric!(
                "archive_failures",
                "Traces that could not be written to the archive and stay where they are",
                Counter::default()
            ),
            archived_reads: metric!(
                "archived_reads",
                "Traces that were read from the archive because the log does not have them",
                Counter::default()
            ),
            restored_traces: metric!(
                "restored_traces",
                "Traces brought back from an archive",
                Counter::default()
            ),
            set_aside: metric!(
                "set_aside",
                "Jobs set aside after failing too often",
                Counter::default()
            ),
            work_length: metric!(
                "work_length",
                "Jobs that wait or are in hand, all processes",
                Gauge::default()
            ),
            work_pending: metric!(
                "work_pending",
                "Jobs taken and not acknowledged, all processes",
                Gauge::default()
            ),
            work_set_aside: metric!(
                "work_set_aside",
                "Jobs that lie aside, all processes",
                Gauge::default()
            ),
            work_consumers: metric!(
                "work_consumers",
                "Members of the worker group, also those that left in the last hour, all processes",
                Gauge::default()
            ),
            webhooks_delivered: metric!(
                "webhooks_delivered",
                "Notifications that a receiver took",
                Counter::default()
            ),
            webhooks_failed: metric!(
                "webhooks_failed",
                "Attempts to deliver a notification that failed",
                Counter::default()
            ),
            webhooks_dead: metric!(
                "webhooks_dead",
                "Notifications given up: dead letters",
                Counter::default()
            ),
            webhooks_dropped: metric!(
                "webhooks_dropped",
                "Dead letters dropped because more are not kept",
                Counter::default()
            ),
            forwarded: metric!(
                "forwarded",
                "Spans and log records that another backend took",
                Counter::default()
            ),
            forward_failures: metric!(
                "forward_failures",
                "Requests that another backend did not take, to be sent again",
                Counter::default()
            ),
            not_forwarded: metric!(
                "not_forwarded",
                "What is not forwarded, by reason",
                Family::default()
            ),
            forward_waiting: metric!(
                "forward_waiting",
                "Traces that wait to be forwarded, all processes",
                Gauge::default()
            ),
            mesh_entries: metric!(
                "mesh_entries",
                "Entries of the mesh's stream stored",
                Counter::default()
            ),
            mesh_set_aside: metric!(
                "mesh_set_aside",
                "Entries of the mesh's stream set aside: no event, or refused too often",
                Counter::default()
            ),
            mesh_lost: metric!(
                "mesh_lost",
                "Entries that were trimmed from the mesh's stream before they were stored",
                Counter::default()
            ),
            mesh_pending: metric!(
                "mesh_pending",
                "Entries of the mesh's stream read and not acknowledged, all processes",
                Gauge::default()
            ),
            mesh_lag: metric!(
                "mesh_lag",
                "Entries of the mesh's stream not read yet, all processes (Redis 7.0 and newer)",
                Gauge::default()
            ),
            mesh_consumers: metric!(
                "mesh_consumers",
                "Readers of the mesh's stream, all processes",
                Gauge::default()
            ),
            completions: metric!(
                "completions",
                "Calls to agents that began",
                Counter::default()
            ),
            completions_failed: metric!(
                "completions_failed",
                "Calls to agents that failed, by reason",
                Family::default()
            ),
            replies_failed: metric!(
                "replies_failed",
                "Answers that did not reach the client of a gateway's WebSocket",
                Counter::default()
            ),
            subscriptions: metric!(
                "subscriptions",
                "Doorbells this process is subscribed to",
                Gauge::default()
            ),
            tasks: metric!("tasks", "Tasks of this process", Gauge::default()),
            redis_memory_bytes: metric!(
                "redis_memory_bytes",
                "used_memory of Redis",
                Gauge::default()
            ),
            redis_up: metric!(
                "redis_up",
                "1 when Redis answered the last question",
                Gauge::default()
            ),
            registry,
        }
    }
}

impl Metrics {
    pub(crate) fn appended(&self, appended: &Appended) {
        self.appends.inc();
        self.events_stored.inc_by(appended.stored);
        self.duplicates.inc_by(appended.duplicates);
        if appended.deleted {
            self.reject("trace_deleted", 1);
        }
        if appended.refused > 0 {
            self.reject("spans_exceeded", appended.refused);
        }
    }

    /// Counts an append that failed after all attempts, by reason.
    pub(crate) fn append_failed(&self, reason: &'static str) {
        self.append_failures.get_or_create(&Reason { reason }).inc();
    }

    /// Counts an answer that a gateway did not take, its client being there.
    pub fn reply_failed(&self) {
        self.replies_failed.inc();
    }

    /// Counts what was not accepted, by reason.
    pub fn reject(&self, reason: &'static str, count: u64) {
        self.rejected
            .get_or_create(&Reason { reason })
            .inc_by(count);
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
