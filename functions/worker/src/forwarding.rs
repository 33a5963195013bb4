//! What comes in is passed on to other backends: read from the log, batched, and sent by one process at a time for each target and tenant.
//!
//! Its place in each trace moves when the target took what lies before it. So whoever is killed in between leaves some that are sent again, and none that are not sent.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{FutureExt as _, future::BoxFuture};
use http::{
    HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use tailspan_core::{
    forward::{Item, Signal, Verdict, is_passing, request, verdict},
    id::{TenantId, TraceId},
    notify::Patience,
};
use tailspan_service::{
    App,
    forward::{Lease, Target},
    log::{
        LogError,
        read::{PageSize, ReadFrom},
    },
    metrics::Reason,
    outward::Outward,
};
use tracing::{debug, error, info, warn};

/// A request is sent when it holds as much; a larger item goes alone.
const MOST_ITEMS: usize = 512;
const MOST_BYTES: usize = 1 << 20;
/// Traces that are looked at in one go.
const MOST_TRACES: usize = 64;
/// Of an answer, what is read.
const ANSWER_BYTES: usize = 16 << 10;
/// The lease holds for a request's time and this.
const LEASE_BEYOND: Duration = Duration::from_secs(10);
/// How often a target is said to be wanted, and new tenants are found.
const WANT_EVERY: Duration = Duration::from_secs(60);
/// Between two looks when there is nothing to forward.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pauses after failures in a row: 1 s, 4 s, 16 s, then each minute.
const PATIENCE: Patience = Patience {
    attempts: u32::MAX,
    first_ms: 1_000,
    longest_ms: 60_000,
};
/// The longest pause that a target may ask for.
const LONGEST_ASKED_MS: u64 = 3_600_000;
/// After so many failures in a row an answer that the specification calls final (500, say) is taken as such.
const MOST_REFUSALS: u32 = 10;

/// The forwarding of one process.
pub(crate) struct Forwarding {
    app: App,
    outward: Outward,
    holder: String,
    wanted: BTreeMap<(String, TenantId), Instant>,
}

/// Traces whose events were gathered, and what is to be sent of them.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
    /// Up to where each trace is in it; `None`: it is gone.
    through: BTreeMap<TraceId, Option<u64>>,
    /// More than was gathered is there.
    is_full: bool,
}

/// Why forwarding to a target stops for now.
enum Stop {
    Store(LogError),
    /// The target does not take it.
    Target {
        asked_ms: Option<u64>,
    },
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Store(error)
    }
}

impl Forwarding {
    pub(crate) fn new(app: &App, holder: String) -> Self {
        Self {
            app: app.clone(),
            outward: Outward::default(),
            holder,
            wanted: BTreeMap::new(),
        }
    }

    /// Forwards for as long as the process works; each target by itself, so that one that is away holds up no other.
    pub(crate) async fn run(app: &App, holder: &str) {
        let targets = app.config.forward.all().map(|target| {
            let mut forwarding = Self::new(app, holder.to_owned());
            async move {
                loop {
                    match forwarding.pass(target, None).await {
                        Ok(0) => tokio::time::sleep(LOOK_EVERY).await,
                        Ok(_) => {}
                        Err(error) => {
                            debug!(%error, "failed to look for what is to be forwarded");
                            tokio::time::sleep(LOOK_EVERY).await;
                        }
                    }
                }
            }
        });
        futures::future::join_all(targets).await;
    }

    /// Forwards what there is of all tenants to one target, until nothing is left, the target takes nothing, or it is time. Returns how many requests it took.
    ///
    /// # Errors
    /// [`LogError`]; nothing is lost.
    pub(crate) async fn pass(
        &mut self,
        target: &Arc<Target>,
        until: Option<Instant>,
    ) -> Result<usize, LogError> {
        let mut sent = 0;
        for tenant in self.app.log.tenants().await? {
            if !target.is_for(&tenant) || until.is_some_and(|until| Instant::now() >= until) {
                continue;
            }
            let of = (target.name.clone(), tenant.clone());
            let said = self.wanted.get(&of);
            if said.is_none_or(|said| said.elapsed() >= WANT_EVERY) {
                self.app.log.want_forwarded(&tenant, &target.name).await?;
                self.wanted.insert(of, Instant::now());
            }
            sent += self.pass_tenant(target, &tenant, until).await?;
        }
        Ok(sent)
    }

    async fn pass_tenant(
        &self,
        target: &Arc<Target>,
        tenant: &TenantId,
        until: Option<Instant>,
    ) -> Result<usize, LogError> {
        let (log, name) = (&self.app.log, target.name.as_str());
        if log.to_forward(tenant, name, 1).await?.is_empty() {
            return Ok(0);
        }
        let lasts = target.timeout + LEASE_BEYOND;
        let lease = async || {
            log.lease_forwarding(tenant, name, &self.holder, lasts)
                .await
        };
        let (mut sent, mut failures) = (0, 0);
        let stopped = loop {
            match lease().await? {
                Lease::NotNow => return Ok(sent),
                Lease::Held { failures: known } => failures = known.max(failures),
            }
            let batch = self.gather(target, tenant).await?;
            if batch.through.is_empty() {
                break None;
            }
            match self.send_batch(target, tenant, &batch, failures).await {
                Ok(()) => {
                    log.forwarded(tenant, name, &batch.through).await?;
                    sent += 1;
                    if failures > 0 {
                        info!(target = name, %tenant, "the target takes what it is sent again");
                        log.release_forwarding(tenant, name, &self.holder, None, 0)
                            .await?;
                        failures = 0;
                    }
                }
                Err(Stop::Store(error)) => return Err(error),
                Err(Stop::Target { asked_ms }) => break Some(asked_ms),
            }
            if !batch.is_full || until.is_some_and(|until| Instant::now() >= until) {
                break None;
            }
        };
        let (pause, failures) = match stopped {
            None => (None, 0),
            Some(asked_ms) => {
                failures = failures.saturating_add(1);
                let usual = PATIENCE.pause_ms(failures, rand::random(), None);
                let asked = asked_ms.unwrap_or_default().min(LONGEST_ASKED_MS);
                let pause_ms = usual.unwrap_or_default().max(asked);
                (Some(Duration::from_millis(pause_ms)), failures)
            }
        };
        log.release_forwarding(tenant, name, &self.holder, pause, failures)
            .await?;
        Ok(sent)
    }

    /// Reads on in the traces that wait longest, until a request is full.
    async fn gather(&self, target: &Target, tenant: &TenantId) -> Result<Batch, LogError> {
        let log = &self.app.log;
        let waiting = log.to_forward(tenant, &target.name, MOST_TRACES).await?;
        let mut batch = Batch {
            is_full: waiting.len() == MOST_TRACES,
            ..Batch::default()
        };
        for trace in waiting {
            if batch.items.len() >= MOST_ITEMS || batch.bytes >= MOST_BYTES {
                batch.is_full = true;
                break;
            }
            self.gather_trace(target, tenant, trace, &mut batch).await?;
        }
        Ok(batch)
    }

    async fn gather_trace(
        &self,
        target: &Target,
        tenant: &TenantId,
        trace: TraceId,
        batch: &mut Batch,
    ) -> Result<(), LogError> {
        let log = &self.app.log;
        let known = log.forwarded_through(tenant, &trace, &target.name).await?;
        let from = ReadFrom::Holding(known + 1);
        let page = log.page(tenant, &trace, from, PageSize::LARGE).await?;
        let state = match page.state {
            Some(state) if !state.dead && !state.archived => state,
            // Whoever deletes a trace does not want it kept elsewhere either.
            Some(state) if state.dead => {
                self.count("deleted", 1);
                batch.through.insert(trace, None);
                return Ok(());
            }
            _ => {
                self.lose(target, &trace, "removed", 1);
                batch.through.insert(trace, None);
                return Ok(());
            }
        };
        let mut through = known.max(state.base);
        for chunk in &page.chunks {
            if chunk.span.last <= through {
                continue;
            }
            let missing = chunk.span.first.saturating_sub(through + 1);
            if missing > 0 {
                self.lose(target, &trace, "trimmed", missing);
            }
            let events = log.recorded(tenant, &trace, chunk).await?;
            if let Some((from, to)) = chunk.unread(&events) {
                self.lose(target, &trace, "unreadable", to + 1 - from);
            }
            for event in events.iter().filter(|event| event.seq > through) {
                match Item::of(&trace, &event.observation) {
                    Some(item) if target.signals.contains(&item.signal) => {
                        batch.bytes += item.len();
                        batch.items.push(item);
                    }
                    Some(_) => self.count("signal", 1),
                    None => self.count("no_otlp", 1),
                }
            }
            through = chunk.span.last;
            if batch.items.len() >= MOST_ITEMS || batch.bytes >= MOST_BYTES {
                break;
            }
        }
        if page.chunks.is_empty() && through < state.seq {
            // Its state outlived its log, which Redis does only when it evicts.
            self.lose(target, &trace, "trimmed", state.seq - through);
            through = state.seq;
        }
        batch.is_full |= through < state.seq;
        batch.through.insert(trace, Some(through));
        Ok(())
    }

    /// Sends what was gathered, in as many requests as it takes.
    async fn send_batch(
        &self,
        target: &Arc<Target>,
        tenant: &TenantId,
        batch: &Batch,
        failures: u32,
    ) -> Result<(), Stop> {
        for signal in Signal::ALL {
            let of = batch.items.iter().filter(|item| item.signal == signal);
            let items: Vec<Item> = of.cloned().collect();
            let mut rest = items.as_slice();
            while !rest.is_empty() {
                let mut bytes = 0;
                let fit = rest.iter().take(MOST_ITEMS).take_while(|item| {
                    let is_first = bytes == 0;
                    bytes += item.len();
                    is_first || bytes <= MOST_BYTES
                });
                let (now, later) = rest.split_at(fit.count().clamp(1, rest.len()));
                self.send(target, tenant, signal, now, failures).await?;
                rest = later;
            }
        }
        Ok(())
    }

    fn send<'a>(
        &'a self,
        target: &'a Arc<Target>,
        tenant: &'a TenantId,
        signal: Signal,
        items: &'a [Item],
        failures: u32,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        async move {
            let name = target.name.as_str();
            let lasts = target.timeout + LEASE_BEYOND;
            let log = &self.app.log;
            // Requests before this one may have taken their time.
            let lease = log.lease_forwarding(tenant, name, &self.holder, lasts);
            if lease.await? == Lease::NotNow {
                return Err(Stop::Target { asked_ms: None });
            }
            let mut headers = target.headers.clone();
            let protobuf = HeaderValue::from_static("application/x-protobuf");
            headers.insert(CONTENT_TYPE, protobuf);
            let mut body = request(items);
            if target.gzip
                && let Some(packed) = gzip(&body)
            {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                body = packed;
            }
            let url = target.url(signal);
            let posting = self.outward.post(
                &url,
                headers,
                Bytes::from(body),
                target.timeout,
                ANSWER_BYTES,
            );
            let answer = match posting.await {
                Ok(answer) => answer,
                Err(error) => {
                    let error = target.without_secrets(&error);
                    warn!(target = name, failures, error, "a target does not answer");
                    self.app.metrics.forward_failures.inc();
                    return Err(Stop::Target { asked_ms: None });
                }
            };
            let (status, count) = (answer.status, items.len());
            match verdict(status, &answer.body) {
                Verdict::Taken { rejected, message } => {
                    let rejected = rejected.min(count as u64);
                    self.app.metrics.forwarded.inc_by(count as u64 - rejected);
                    if rejected > 0 || !message.is_empty() {
                        let message = target.without_secrets(&message);
                        self.count("rejected", rejected);
                        warn!(
                            target = name,
                            rejected, message, "a target did not take all that it was sent"
                        );
                    }
                    Ok(())
                }
                Verdict::Halve if count > 1 => {
                    let (first, second) = items.split_at(count / 2);
                    self.send(target, tenant, signal, first, failures).await?;
                    self.send(target, tenant, signal, second, failures).await
                }
                Verdict::Again if is_passing(status) || failures < MOST_REFUSALS => {
                    warn!(
                        target = name,
                        status, failures, "a target takes nothing now"
                    );
                    self.app.metrics.forward_failures.inc();
                    Err(Stop::Target {
                        asked_ms: answer.retry_after_ms,
                    })
                }
                Verdict::Again | Verdict::Halve | Verdict::Refused => {
                    self.count("refused", count as u64);
                    error!(
                        target = name,
                        status,
                        count,
                        signal = signal.as_str(),
                        "a target refused what it was sent: it is not forwarded"
                    );
                    Ok(())
                }
            }
        }
        .boxed()
    }

    /// What is not forwarded although it should have been.
    fn lose(&self, target: &Target, trace: &TraceId, reason: &'static str, count: u64) {
        error!(target = target.name, %trace, reason, count, "could not forward what is no longer there");
        self.count(reason, count);
    }

    fn count(&self, reason: &'static str, count: u64) {
        self.app
            .metrics
            .not_forwarded
            .get_or_create(&Reason { reason })
            .inc_by(count);
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}
