//! Following: every watched trace is read once per process, and all its viewers share what was read.
//!
//! A ring of the doorbell, a (re)subscription, or two seconds of silence make the reader of a trace read on from its cursor: the bell may
//! be lost, the log is the truth. What it reads lies framed in a short window; a viewer takes from there what
//! follows its own cursor, and one that is behind the window reads the log itself. So a slow viewer holds nothing but its cursor, and nobody waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use serde_json::json;
use tailspan_core::{
    continuity::{ChunkSpan, Continuity, locate},
    cursor::Cursor,
    frame,
    id::{TenantId, TraceId},
    lens::Lens,
    observed::Recorded,
    pricing::Prices,
};
use tokio::sync::{Notify, broadcast};
use tracing::{debug, warn};

use super::{
    Log, LogError,
    feed::{Bells, FeedWatch, Scope},
    now_unix_ms,
    read::{PageSize, ReadFrom, StoredChunk, TraceState},
    settle::Look,
};

/// A watched trace that did not ring is looked at this often.
const UNRUNG_READ: Duration = Duration::from_secs(2);
/// After a failed read.
const RETRY_READ: Duration = Duration::from_millis(250);
/// The window shared by a trace's viewers: chunks and bytes of frames.
const WINDOW_CHUNKS: usize = 128;
const WINDOW_BYTES: usize = 1024 * 1024;
/// Lenses for which the chunks of one trace are framed as they come.
const MOST_LENSES: usize = 16;

/// A chunk's events as SSE frames, as those see them who look through one lens.
#[derive(Debug)]
pub struct Framed {
    pub span: ChunkSpan,
    text: Bytes,
    /// Where the frame of each event ends; one that is not shown ends where the one before it does.
    ends: Vec<usize>,
}

impl Framed {
    fn new(
        lens: &Lens,
        prices: &Prices,
        trace: &TraceId,
        chunk: &StoredChunk,
        events: &[Recorded],
    ) -> Self {
        let mut text = String::new();
        let mut ends = Vec::with_capacity(events.len());
        for recorded in events {
            if let Some(json) = lens.frame(trace, recorded, prices) {
                frame::data(&mut text, Cursor::new(recorded.seq, chunk.span.mark), &json);
            }
            ends.push(text.len());
        }
        let framed = Self {
            span: chunk.span,
            text: Bytes::new(),
            ends,
        };
        if let Some((from, to)) = chunk.unread(events) {
            let gap = json!({"reason": "unreadable", "from": from, "to": to});
            text += &frame::control("gap", Some(framed.end()), &gap.to_string());
        }
        Self {
            text: text.into(),
            ..framed
        }
    }

    /// The frames after event `seq`, and how many events they are of. No copy is made.
    pub fn after(&self, seq: u64) -> (Bytes, usize) {
        let before = seq.saturating_add(1).saturating_sub(self.span.first);
        let skipped = usize::try_from(before).map_or(self.ends.len(), |n| n.min(self.ends.len()));
        // What stands after the last event, a gap, is for everybody.
        let from = skipped
            .checked_sub(1)
            .and_then(|at| self.ends.get(at).copied())
            .unwrap_or(0);
        (self.text.slice(from..), self.ends.len() - skipped)
    }

    /// The cursor after the chunk.
    pub fn end(&self) -> Cursor {
        self.span.end()
    }
}

/// A chunk of the window: its frames for every lens through which somebody looked when it was read.
#[derive(Debug)]
struct Shown {
    span: ChunkSpan,
    framed: Vec<(Arc<Lens>, Arc<Framed>)>,
}

impl Shown {
    fn through(&self, lens: &Arc<Lens>) -> Option<Arc<Framed>> {
        let mut all = self.framed.iter();
        let found = all.find(|(known, _)| Arc::ptr_eq(known, lens))?;
        Some(Arc::clone(&found.1))
    }

    fn bytes(&self) -> usize {
        self.framed
            .iter()
            .map(|(_, framed)| framed.text.len())
            .sum()
    }
}

/// What follows a viewer's cursor.
#[derive(Debug)]
pub enum Next {
    /// And the trace as it is now, where nothing follows the chunk.
    Chunk(Arc<Framed>, Option<Arc<TraceState>>),
    /// Not in the window: ask [`Hub::catch_up`].
    Behind,
    /// Nothing; the trace as it is now.
    CaughtUp(Arc<TraceState>),
    /// There is no such trace (yet, or any more).
    Gone,
    /// The store does not answer; the reader tries again.
    Unavailable,
}

/// What the log itself has after a cursor.
#[derive(Debug)]
pub enum CatchUp {
    /// Chunks that follow without a hole, not unfolded yet. Empty when the end is reached.
    Chunks(Vec<StoredChunk>),
    /// Events that cannot be shown any more; go on after `to`.
    Trimmed { from: u64, to: u64 },
    /// The viewer's log is not this one; begin again after `base`.
    Replaced { base: u64 },
    /// There is no such trace.
    Gone,
}

/// Followers of traces in this process.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    watched: Mutex<HashMap<String, Arc<Watched>>>,
    feeds: Arc<Bells>,
    closing: Arc<AtomicBool>,
}

struct Watched {
    tenant: TenantId,
    trace: TraceId,
    bell: String,
    viewers: AtomicUsize,
    rung: Notify,
    rung_at: Mutex<Option<Instant>>,
    window: Mutex<Window>,
    /// Goes up with every change of the window.
    version: AtomicU64,
    wakers: Mutex<Wakers>,
    /// What chunks are framed for as they come, each with the number of viewers who look so.
    lenses: Mutex<Vec<(Arc<Lens>, usize)>>,
}

/// Whom to wake when the window changes. A viewer's place is taken once and stays: with thousands of viewers, entering and leaving a list for every event was a third of what an event cost.
#[derive(Default)]
struct Wakers {
    last: u64,
    by_viewer: HashMap<u64, Arc<AtomicWaker>>,
}

#[derive(Default)]
struct Window {
    chunks: VecDeque<Shown>,
    bytes: usize,
    tail: Tail,
}

#[derive(Clone, Debug, Default)]
enum Tail {
    /// Not read yet.
    #[default]
    Unknown,
    Gone,
    Unavailable,
    At(Arc<TraceState>),
}

/// A viewer's hold on a watched trace; dropping it lets go.
pub struct Watch {
    watched: Arc<Watched>,
    /// The version that [`Watch::next`] last looked at.
    seen: u64,
    number: u64,
    waker: Arc<AtomicWaker>,
    closing: Arc<AtomicBool>,
    lens: Arc<Lens>,
    log: Log,
}

impl Hub {
    /// Passes the doorbell's rings on for as long as the hub or a watch lives; call it within a runtime.
    pub fn new(log: Log) -> Self {
        let hub = Self {
            inner: Arc::new(Inner {
                log,
                watched: Mutex::default(),
                feeds: Arc::default(),
                closing: Arc::default(),
            }),
        };
        tokio::spawn(pass_rings_on(
            Arc::downgrade(&hub.inner),
            hub.inner.log.redis.rings(),
        ));
        hub
    }

    /// Begins to watch a trace, whether it exists or not.
    pub fn watch(&self, tenant: &TenantId, trace: &TraceId, lens: Lens) -> Watch {
        let log = self.inner.log.clone();
        let bell = log.keys.trace(tenant, trace).bell;
        let mut all = lock(&self.inner.watched);
        let watched = all.entry(bell.clone()).or_insert_with(|| {
            let watched = Arc::new(Watched {
                tenant: tenant.clone(),
                trace: trace.clone(),
                bell,
                viewers: AtomicUsize::new(0),
                rung: Notify::new(),
                rung_at: Mutex::default(),
                window: Mutex::default(),
                version: AtomicU64::new(0),
                wakers: Mutex::default(),
                lenses: Mutex::default(),
            });
            tokio::spawn(read_on(Arc::clone(&self.inner), Arc::clone(&watched)));
            log.metrics.watched_traces.inc();
            watched
        });
        // Under the lock: the reader ends only when it sees no viewer under the same lock.
        watched.viewers.fetch_add(1, Ordering::SeqCst);
        let waker = Arc::new(AtomicWaker::new());
        let mut wakers = lock(&watched.wakers);
        wakers.last += 1;
        let number = wakers.last;
        wakers.by_viewer.insert(number, Arc::clone(&waker));
        drop(wakers);
        Watch {
            seen: watched.version.load(Ordering::SeqCst),
            lens: watched.look_through(lens),
            number,
            waker,
            closing: Arc::clone(&self.inner.closing),
            watched: Arc::clone(watched),
            log,
        }
    }

    /// Begins to wait for notices of a session's or the tenant's traces.
    pub fn watch_feed(&self, tenant: &TenantId, scope: &Scope) -> FeedWatch {
        self.inner.feeds.watch(&self.inner.log, tenant, scope)
    }

    /// Wakes every viewer, and from now on lets none wait: the process shuts down.
    pub fn wake_all(&self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        let watched: Vec<_> = lock(&self.inner.watched).values().cloned().collect();
        watched.iter().for_each(|watched| watched.show(|_| {}));
    }
}

impl Watch {
    /// What follows `cursor`, from memory.
    pub fn next(&mut self, cursor: Cursor) -> Next {
        self.seen = self.watched.version.load(Ordering::SeqCst);
        let window = lock(&self.watched.window);
        let state = match &window.tail {
            Tail::Unknown | Tail::Unavailable => return Next::Unavailable,
            Tail::Gone => return Next::Gone,
            Tail::At(state) => state,
        };
        if state.dead {
            return Next::CaughtUp(Arc::clone(state));
        }
        if cursor.seq >= state.seq {
            let known =
                cursor.seq == state.seq && cursor.mark.is_none_or(|mark| mark == state.mark);
            // A replaced trace that has nothing yet: only a viewer from the start is at its end.
            let in_this_life = cursor.seq > state.base || cursor.seq == 0;
            return if known && in_this_life {
                Next::CaughtUp(Arc::clone(state))
            } else {
                Next::Behind
            };
        }
        let at = window
            .chunks
            .partition_point(|chunk| chunk.span.last <= cursor.seq);
        match window.chunks.get(at) {
            Some(chunk) if chunk.span.first <= cursor.seq + 1 => {
                let continues = locate(cursor, state.extent(), Some(chunk.span));
                match (continues, chunk.through(&self.lens)) {
                    (Continuity::Continues, Some(framed)) => {
                        let is_last =
                            at + 1 == window.chunks.len() && chunk.span.end() == state.cursor();
                        Next::Chunk(framed, is_last.then(|| Arc::clone(state)))
                    }
                    _ => Next::Behind,
                }
            }
            _ => Next::Behind,
        }
    }

    /// Waits until [`Watch::next`] may answer something else.
    pub async fn changed(&mut self) {
        std::future::poll_fn(|context| self.poll_changed(context)).await;
        self.seen = self.watched.version.load(Ordering::SeqCst);
    }

    /// As [`Watch::changed`]; the task is woken once when it is `Pending`.
    pub fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Registered before it is looked at: a change in between wakes.
        self.waker.register(context.waker());
        let is_old = self.watched.version.load(Ordering::SeqCst) == self.seen;
        match is_old && !self.closing.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// Reads the log itself after `cursor`.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn catch_up(&self, cursor: Cursor) -> Result<CatchUp, LogError> {
        let (tenant, trace) = (&self.watched.tenant, &self.watched.trace);
        let page = self
            .log
            .page_or_archived(
                tenant,
                trace,
                ReadFrom::Holding(cursor.seq),
                PageSize::SMALL,
            )
            .await?;
        let Some(state) = page.state.filter(|state| !state.dead) else {
            return Ok(CatchUp::Gone);
        };
        let verdict = |continuity| match continuity {
            Continuity::Continues => None,
            Continuity::Trimmed { from, to } => Some(CatchUp::Trimmed { from, to }),
            Continuity::Replaced => Some(CatchUp::Replaced { base: state.base }),
        };
        let mut at = cursor;
        let mut following = Vec::new();
        if page.chunks.is_empty()
            && let Some(broken) = verdict(locate(at, state.extent(), None))
        {
            return Ok(broken);
        }
        for chunk in page.chunks {
            if let Some(broken) = verdict(locate(at, state.extent(), Some(chunk.span))) {
                // What was read before the hole is shown first.
                if following.is_empty() {
                    return Ok(broken);
                }
                break;
            }
            at = chunk.span.end();
            if chunk.span.last > cursor.seq {
                following.push(chunk);
            }
        }
        Ok(CatchUp::Chunks(following))
    }
}

impl Watch {
    /// Unfolds one chunk that [`Watch::catch_up`] brought.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn frame(&self, chunk: &StoredChunk) -> Result<Framed, LogError> {
        let (tenant, trace) = (&self.watched.tenant, &self.watched.trace);
        let events = self.log.recorded(tenant, trace, chunk).await?;
        Ok(Framed::new(
            &self.lens,
            &self.log.prices,
            trace,
            chunk,
            &events,
        ))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.watched.wakers).by_viewer.remove(&self.number);
        self.watched.look_away(&self.lens);
        if self.watched.viewers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.watched.rung.notify_one();
        }
    }
}

/// Wakes the readers whose bell rang; all of them where a ring may have been missed.
async fn pass_rings_on(
    hub: std::sync::Weak<Inner>,
    mut rings: broadcast::Receiver<crate::redis::Ring>,
) {
    loop {
        let ring = match rings.recv().await {
            Ok(ring) => ring,
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(hub) = hub.upgrade() else { return };
        if ring.is_none() {
            // Perhaps another server answers now, which has not all that was stored.
            hub.log.recent.forget();
        }
        hub.feeds.ring(ring.as_deref());
        let watched = lock(&hub.watched);
        match ring {
            Some(bell) => {
                if let Some(watched) = watched.get(&*bell) {
                    lock(&watched.rung_at).get_or_insert_with(Instant::now);
                    watched.rung.notify_one();
                }
            }
            None => watched
                .values()
                .for_each(|watched| watched.rung.notify_one()),
        }
    }
}

/// The reader of one watched trace; ends when nobody watches.
async fn read_on(hub: Arc<Inner>, watched: Arc<Watched>) {
    let log = &hub.log;
    let mut subscribed = false;
    let mut woken_by_time = false;
    let mut place = Place::default();
    loop {
        if !subscribed {
            // Subscribe first, then read: what comes between is ahead of the cursor.
            match log.redis.subscribe(&watched.bell).await {
                Ok(()) => subscribed = true,
                Err(error) => {
                    debug!(trace = %watched.trace, %error, "failed to subscribe; reading on by time")
                }
            }
        }
        let rung_at = lock(&watched.rung_at).take();
        let known = place.cursor;
        let pause = match read_once(log, &watched, &mut place).await {
            Ok(pause) => {
                if let Some(rung_at) = rung_at {
                    log.metrics
                        .ring_to_frame_seconds
                        .observe(rung_at.elapsed().as_secs_f64());
                }
                pause
            }
            Err(error) => {
                debug!(trace = %watched.trace, %error, "failed to read a watched trace");
                watched.show(|window| window.tail = Tail::Unavailable);
                RETRY_READ
            }
        };
        if woken_by_time && known.is_some() && known != place.cursor {
            // There was news and no ring: the channel went elsewhere with its slot, or its connection died without a word.
            subscribed = false;
        }
        woken_by_time = tokio::select! {
            () = watched.rung.notified() => false,
            () = tokio::time::sleep(pause) => true,
        };
        if watched.viewers.load(Ordering::SeqCst) == 0 {
            let mut all = lock(&hub.watched);
            // Somebody may have come while we looked.
            if watched.viewers.load(Ordering::SeqCst) == 0 {
                all.remove(&watched.bell);
                drop(all);
                break;
            }
        }
    }
    log.metrics.watched_traces.dec();
    let is_watched = || lock(&hub.watched).contains_key(&watched.bell);
    let_go(log, &watched.bell, is_watched).await;
}

/// Ends the subscription to a channel that nobody waits on any more, unless somebody came meanwhile.
pub(super) async fn let_go(log: &Log, channel: &str, is_watched: impl Fn() -> bool) {
    loop {
        if let Err(error) = log.redis.unsubscribe(channel).await {
            debug!(channel, %error, "failed to unsubscribe");
        }
        // Who came right after we left has a subscription of their own, which we may have undone.
        if !is_watched() {
            return;
        }
        if let Err(error) = log.redis.subscribe(channel).await {
            warn!(channel, %error, "failed to subscribe again");
        }
        // And they may have left and unsubscribed before we subscribed.
        if is_watched() {
            return;
        }
    }
}

/// Where the reader of a trace is.
#[derive(Default)]
struct Place {
    cursor: Option<Cursor>,
    /// Of which life what was read is: it changes also when what is stored is redacted.
    life: String,
    /// It is not in the log; whether it is in the archive was looked up, once.
    looked_in_archive: bool,
    is_archived: bool,
    /// Having looked after this event whether the run ended, it is not worth looking again before this time (ms since 1970).
    not_ended: Option<(u64, u64)>,
}

/// Reads on from the cursor until the end of the log. Returns how long to wait for a ring.
async fn read_once(log: &Log, watched: &Watched, place: &mut Place) -> Result<Duration, LogError> {
    let (tenant, trace) = (&watched.tenant, &watched.trace);
    loop {
        let Some(at) = place.cursor else {
            // The window begins at the end: who wants history reads it.
            let state = match place.looked_in_archive {
                false => log.state_or_archived(tenant, trace).await?,
                true => log.state(tenant, trace).await?,
            };
            place.looked_in_archive = true;
            place.is_archived = state.as_ref().is_some_and(|state| state.archived);
            place.cursor = state.as_ref().map(TraceState::cursor);
            state
                .as_ref()
                .map_or("", TraceState::life)
                .clone_into(&mut place.life);
            watched.show(|window| window.restart(state.clone()));
            return Ok(UNRUNG_READ);
        };
        let page = log
            .page(tenant, trace, ReadFrom::After(at), PageSize::LARGE)
            .await?;
        let Some(state) = page.state else {
            if place.is_archived {
                return Ok(UNRUNG_READ);
            }
            place.cursor = None;
            watched.show(|window| window.restart(None));
            return Ok(UNRUNG_READ);
        };
        place.is_archived = false;
        if place.life != state.life() {
            // What lies framed may hold what was taken out of the log since. Who has seen it goes on where he is.
            state.life().clone_into(&mut place.life);
            let mut shown = state.clone();
            (shown.seq, shown.mark) = (at.seq, at.mark.unwrap_or_default());
            watched.show(|window| window.restart(Some(shown)));
        }
        let mut at = at;
        let mut framed = Vec::new();
        let mut broken = state.dead
            || at.seq < state.base
            || page.chunks.is_empty()
                && (locate(at, state.extent(), None) != Continuity::Continues
                    || at.mark != Some(state.mark) && at.seq > 0);
        for chunk in &page.chunks {
            broken =
                broken || locate(at, state.extent(), Some(chunk.span)) != Continuity::Continues;
            if broken {
                break;
            }
            let events = log.recorded(tenant, trace, chunk).await?;
            framed.push(watched.framed(&log.prices, chunk, &events));
            at = chunk.span.end();
        }
        if broken {
            // Viewers find out by their own cursors what the break means for them.
            place.cursor = Some(state.cursor());
            watched.show(|window| window.restart(Some(state.clone())));
            return Ok(UNRUNG_READ);
        }
        place.cursor = Some(at);
        // Shown before anything else is done: a settlement folds, and viewers would wait for it.
        watched.show(|window| window.extend(framed, &state, at));
        if at.seq >= state.seq {
            return Ok(settle_when_due(log, watched, &state, &mut place.not_ended).await);
        }
    }
}

/// A follower settles what it follows, so that streams end where no other process is awake. Returns how long to wait for a ring.
async fn settle_when_due(
    log: &Log,
    watched: &Watched,
    state: &TraceState,
    not_ended: &mut Option<(u64, u64)>,
) -> Duration {
    if !state.may_have_ended || state.ended().is_some() {
        return UNRUNG_READ;
    }
    let due = match *not_ended {
        Some((seq, until)) if seq == state.seq => until,
        _ => state
            .last_arrival_unix_ms
            .saturating_add(log.patience.grace_ms),
    };
    let now = now_unix_ms();
    if now < due {
        return Duration::from_millis(due - now).min(UNRUNG_READ);
    }
    match log.settle(&watched.tenant, &watched.trace).await {
        // The settlement rings.
        Ok(Look::Settled | Look::Gone) => UNRUNG_READ,
        Ok(Look::Again { at_unix_ms }) => {
            *not_ended = Some((state.seq, at_unix_ms));
            Duration::from_millis(at_unix_ms.saturating_sub(now_unix_ms()).max(50)).min(UNRUNG_READ)
        }
        Err(error) => {
            debug!(trace = %watched.trace, %error, "failed to settle a watched trace");
            UNRUNG_READ
        }
    }
}

impl Watched {
    /// The lens as all who look so share it. One too many is the viewer's own, who then reads the log itself.
    fn look_through(&self, lens: Lens) -> Arc<Lens> {
        let mut lenses = lock(&self.lenses);
        if let Some((known, viewers)) = lenses.iter_mut().find(|(known, _)| **known == lens) {
            *viewers += 1;
            return Arc::clone(known);
        }
        let lens = Arc::new(lens);
        if lenses.len() < MOST_LENSES {
            lenses.push((Arc::clone(&lens), 1));
        }
        lens
    }

    fn look_away(&self, lens: &Arc<Lens>) {
        lock(&self.lenses).retain_mut(|(known, viewers)| {
            *viewers -= usize::from(Arc::ptr_eq(known, lens));
            *viewers > 0
        });
    }

    fn framed(&self, prices: &Prices, chunk: &StoredChunk, events: &[Recorded]) -> Shown {
        let lenses: Vec<Arc<Lens>> = lock(&self.lenses)
            .iter()
            .map(|(lens, _)| Arc::clone(lens))
            .collect();
        let framed = lenses.into_iter().map(|lens| {
            let framed = Framed::new(&lens, prices, &self.trace, chunk, events);
            (lens, Arc::new(framed))
        });
        Shown {
            span: chunk.span,
            framed: framed.collect(),
        }
    }

    fn show(&self, change: impl FnOnce(&mut Window)) {
        change(&mut lock(&self.window));
        self.version.fetch_add(1, Ordering::SeqCst);
        for waker in lock(&self.wakers).by_viewer.values() {
            waker.wake();
        }
    }
}

impl Window {
    fn restart(&mut self, state: Option<TraceState>) {
        self.chunks.clear();
        self.bytes = 0;
        self.tail = state.map_or(Tail::Gone, |state| Tail::At(Arc::new(state)));
    }

    fn extend(&mut self, framed: Vec<Shown>, state: &TraceState, at: Cursor) {
        for chunk in framed {
            self.bytes += chunk.bytes();
            self.chunks.push_back(chunk);
        }
        while self.chunks.len() > 1
            && (self.chunks.len() > WINDOW_CHUNKS || self.bytes > WINDOW_BYTES)
        {
            if let Some(oldest) = self.chunks.pop_front() {
                self.bytes -= oldest.bytes();
            }
        }
        // What the window does not hold yet is not the end of it: the reader goes on at once.
        let mut state = state.clone();
        if at.seq < state.seq {
            state.seq = at.seq;
            state.mark = at.mark.unwrap_or_default();
        }
        self.tail = Tail::At(Arc::new(state));
    }
}

/// A poisoned lock means a panic elsewhere while it was held; the data are whole between statements, so going on is right.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
