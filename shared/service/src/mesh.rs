//! The agent mesh's trace stream: its entries become events, each once, however many instances read.
//!
//! Agents of a mesh publish into a stream of their own ([`tailspan_core::mesh`]). All instances share one consumer group on it. An entry is read, appended to its
//! trace, then acknowledged; whoever dies in between leaves it pending, another takes it over, and the append knows it by its place in the stream. The stream is also the queue:
//! while the store is away or full, nothing more is read from it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use prometheus_client::metrics::gauge::Gauge;
use tailspan_core::{id::TraceId, limits::Limits, mesh::Decoder, observed::Incoming};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    App,
    config::MeshConfig,
    group::{Entry, Group},
    log::{Log, LogError, now_unix_ms},
    redis::{Arg, BlockingConnection},
};

/// Entries of one read: enough that a full read is one chunk per trace, and little to do again after a crash.
const AT_ONCE: &str = "100";
/// Members with nothing in hand are removed after so many times the silence after which their entries would be taken over.
const SILENCES: u32 = 10;
/// Entries set aside that are kept for a look.
const SET_ASIDE_KEPT: &str = "1000";
/// Of an entry set aside, so many bytes of each value are kept.
const SET_ASIDE_VALUE_BYTES: usize = 4_096;
/// Pauses before what was read is stored again, while the store is away or full.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Where a mesh's entries come from, and where they go.
#[derive(Clone)]
pub struct Intake {
    app: App,
    group: Group,
    /// Under which this process is a member of the group.
    name: String,
}

/// A reader that joined the group.
pub struct Reader {
    intake: Intake,
    connection: BlockingConnection,
}

impl Intake {
    /// The intake that the settings name; `None` where no mesh is read.
    pub fn of(app: &App) -> Option<Self> {
        let stream = app.config.mesh.stream.clone()?;
        let group = Group {
            redis: app.mesh_redis.clone(),
            stream,
            // Two installations on one mesh must not share what each needs in full.
            name: format!("{}{}", app.config.key_prefix, app.config.mesh.group),
        };
        let (process, random) = (std::process::id(), rand::random::<u32>());
        Some(Self {
            app: app.clone(),
            group,
            name: format!("mesh-{process}-{random:08x}"),
        })
    }

    /// Joins the group, always under the same name.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn reader(&self) -> Result<Reader, LogError> {
        Ok(Reader {
            connection: self.group.redis.blocking_connection().await?,
            intake: self.clone(),
        })
    }

    /// Sets the metrics of the group, over all processes; they stay as they were when Redis does not answer.
    pub async fn count(&self) {
        let set = |gauge: &Gauge, count| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        if let Ok(counts) = self.group.counts().await {
            let metrics = &self.app.metrics;
            set(&metrics.mesh_pending, counts.pending);
            set(&metrics.mesh_consumers, counts.consumers);
            set(&metrics.mesh_lag, counts.lag.unwrap_or_default());
        }
    }

    fn log(&self) -> &Log {
        &self.app.log
    }

    fn config(&self) -> &MeshConfig {
        &self.app.config.mesh
    }

    /// Appends what entries report and acknowledges them. Entries that can never be stored are set aside; those that the store refused stay pending.
    ///
    /// # Errors
    /// The store is away or full, or refuses everything: what was not stored is pending.
    async fn store(&self, entries: &[Entry]) -> Result<(), LogError> {
        if entries.is_empty() {
            return Ok(());
        }
        let limits = Limits::default();
        let mut decoder = Decoder::new(&self.group.stream, &limits);
        let mut places: HashMap<TraceId, usize> = HashMap::new();
        let mut traces: Vec<(TraceId, Vec<Incoming>)> = Vec::new();
        let mut entries_of: Vec<Vec<&Entry>> = Vec::new();
        for entry in entries {
            match decoder.decode(&entry.id, &entry.fields) {
                Ok((trace, incoming)) => {
                    let place = *places.entry(trace.clone()).or_insert(traces.len());
                    if place == traces.len() {
                        traces.push((trace, Vec::new()));
                        entries_of.push(Vec::new());
                    }
                    traces[place].1.push(incoming);
                    entries_of[place].push(entry);
                }
                Err(unreadable) => self.set_aside(entry, &unreadable.to_string()).await?,
            }
        }
        let answers = self
            .log()
            .append_each(&self.config().tenant, traces)
            .await
            .into_iter();
        let mut stored = Vec::new();
        let mut refused = Vec::new();
        let mut failure = None;
        for (answer, entries) in answers.zip(entries_of) {
            match answer {
                Ok(appended) => {
                    if appended.refused > 0 {
                        warn!(
                            spans = appended.refused,
                            "a trace of the mesh has as many spans as it may; further ones were not stored"
                        );
                    }
                    stored.extend(entries.iter().map(|entry| entry.id.clone()));
                }
                Err(LogError::Internal(text)) if !concerns_all(&text) => {
                    refused.extend(entries.into_iter().map(|entry| (entry, text.clone())));
                }
                Err(error) => failure = Some(error),
            }
        }
        self.group.acknowledge(&stored).await?;
        // Agents are never refused: what is too much is owed, and nothing more is read until it is paid.
        let tenant = &self.config().tenant;
        self.app.limits.owe(tenant, stored.len() as u64).await;
        self.app.metrics.mesh_entries.inc_by(stored.len() as u64);
        for (entry, reason) in refused {
            if self.group.deliveries(&entry.id).await? >= self.config().tries {
                self.set_aside(entry, &reason).await?;
            } else {
                warn!(
                    entry = entry.id,
                    reason, "an entry was refused; it is tried again"
                );
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Keeps an entry for people to look at, and is done with it.
    async fn set_aside(&self, entry: &Entry, reason: &str) -> Result<(), LogError> {
        let log = self.log();
        let tenant = &self.config().tenant;
        let reason = &*log.redactor.clean_text(tenant, reason);
        error!(
            stream = self.group.stream,
            entry = entry.id,
            reason,
            "set an entry of the mesh aside"
        );
        let aside = log.keys.mesh_set_aside();
        let head = [&aside, "MAXLEN", "~", SET_ASIDE_KEPT, "*"];
        let told = ["stream", &self.group.stream, "entry", &entry.id];
        let told = told.into_iter().chain(["reason", reason]);
        let mut args: Vec<_> = head.into_iter().chain(told).map(Arg::from).collect();
        for (name, value) in &entry.fields {
            // Cut after it was redacted: half of a secret is not known for one.
            let (mut name, mut value) = log.redactor.clean_pair(tenant, name, value);
            name.truncate(SET_ASIDE_VALUE_BYTES);
            value.truncate(SET_ASIDE_VALUE_BYTES);
            args.extend([Arg::from(name), Arg::from(value)]);
        }
        log.redis.command("XADD", &aside, args).await?;
        self.app.metrics.mesh_set_aside.inc();
        let id = entry.id.clone();
        Ok(self.group.acknowledge(&[id]).await?)
    }

    /// Stores an entry whose readers died again and again, alone. That it is being looked at is written down before, and struck out when that went well: so an entry that
    /// kills whoever decodes it is told from one that was only near when processes were killed.
    async fn store_suspect(&self, entry: Entry) -> Result<(), LogError> {
        let log = self.log();
        let tries_key = log.keys.mesh_tries();
        let field = format!("{} {}", self.group.stream, entry.id);
        let count = [&tries_key, &field, "1"].map(|text| Arg::from(text as &str));
        let tries = log.redis.command("HINCRBY", &tries_key, count.to_vec());
        let tries = tries.await?.number().unwrap_or_default();
        let forget = || {
            let args = vec![Arg::from(&tries_key), Arg::from(&field)];
            log.redis.command("HDEL", &tries_key, args)
        };
        if tries > self.config().tries {
            self.set_aside(&entry, "whoever read it died of it").await?;
            forget().await?;
            return Ok(());
        }
        let limits = Limits::default();
        // What is wrong with it is told by `store`.
        let _ = Decoder::new(&self.group.stream, &limits).decode(&entry.id, &entry.fields);
        forget().await?;
        self.store(&[entry]).await
    }
}

/// Whether a refusal has nothing to do with the trace: who we are, and what we may.
fn concerns_all(refusal: &str) -> bool {
    ["NOPERM", "NOAUTH", "WRONGPASS"]
        .iter()
        .any(|word| refusal.contains(word))
}

impl Reader {
    /// Reads new entries, waiting for them up to `block`, and stores them. Returns how many there were.
    ///
    /// # Errors
    /// [`LogError`]; what was read and not stored stays pending. Before `give_up` nothing is returned while the store is away or full: it is tried again, and nothing more is read.
    pub async fn next(
        &self,
        block: Duration,
        give_up: &CancellationToken,
    ) -> Result<usize, LogError> {
        let Intake { group, name, .. } = &self.intake;
        let entries = group.read(&self.connection, name, AT_ONCE, block).await?;
        let mut pauses = PAUSES.iter();
        let mut pause = PAUSES[0];
        while let Err(error) = self.intake.store(&entries).await {
            warn!(%error, entries = entries.len(), "failed to store what a mesh published; trying again");
            tokio::select! {
                () = give_up.cancelled() => return Err(error),
                () = tokio::time::sleep(pause) => {}
            }
            pause = *pauses.next().unwrap_or(&pause);
        }
        Ok(entries.len())
    }

    /// Stores what this process read earlier and could not store. Returns how many entries there were.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn take_up_again(&self) -> Result<usize, LogError> {
        self.take(Duration::ZERO, Some(&self.intake.name)).await
    }

    /// Takes over what others read and left, and stores it. Returns how many entries there were.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn take_over(&self) -> Result<usize, LogError> {
        self.take(self.intake.config().take_over, None).await
    }

    async fn take(&self, idle: Duration, from: Option<&str>) -> Result<usize, LogError> {
        let (group, config) = (&self.intake.group, self.intake.config());
        let mut all = 0;
        loop {
            let taken = group.take_over(&self.intake.name, idle, from).await?;
            if taken.gone > 0 {
                warn!(
                    entries = taken.gone,
                    "entries of the mesh were trimmed away before they were stored"
                );
                self.intake.app.metrics.mesh_lost.inc_by(taken.gone);
            }
            if taken.entries.is_empty() && taken.gone == 0 {
                return Ok(all);
            }
            all += taken.entries.len();
            let (suspects, entries): (Vec<_>, Vec<_>) = taken
                .entries
                .into_iter()
                .partition(|(_, deliveries)| *deliveries >= config.tries);
            let entries: Vec<_> = entries.into_iter().map(|(entry, _)| entry).collect();
            self.intake.store(&entries).await?;
            for (entry, _) in suspects {
                self.intake.store_suspect(entry).await?;
            }
        }
    }

    /// Removes members that are gone, and from the stream what is older than its retention, if it has one, and done with.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn keep_house(&self) -> Result<(), LogError> {
        let (group, config) = (&self.intake.group, self.intake.config());
        group.reap(config.take_over * SILENCES).await?;
        if let Some(retention) = config.retention {
            let now_ms = group.redis.now_unix_ms().await?.min(now_unix_ms());
            let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
            let removed = group.trim(now_ms.saturating_sub(retention_ms)).await?;
            if removed > 0 {
                info!(
                    removed,
                    "removed entries of the mesh older than its retention"
                );
            }
        }
        self.intake.count().await;
        Ok(())
    }

    /// Leaves the group; what is still in hand is for others.
    pub async fn leave(self) {
        // It is removed by the others if this fails.
        let _ = self.intake.group.leave(&self.intake.name).await;
    }
}

/// How often entries of dead readers are looked for, and house is kept.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);
/// How long a read waits; as long may a shutdown take.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Reads what a mesh publishes until `until` or the process's shutdown. Returns how many entries there were.
///
/// # Errors
/// [`LogError`]; what was read and not stored stays pending, and is taken over by whoever reads next.
pub async fn read(intake: &Intake, until: Option<Instant>) -> Result<usize, LogError> {
    let shutdown = &intake.app.shutdown;
    let left = || until.map(|until| until.saturating_duration_since(Instant::now()));
    let reader = intake.reader().await?;
    let mut looked_around: Option<Instant> = None;
    let mut all = reader.take_up_again().await?;
    while !shutdown.is_cancelled() && left() != Some(Duration::ZERO) {
        let every = LOOK_AROUND_EVERY.min(intake.config().take_over);
        if looked_around.is_none_or(|at| at.elapsed() >= every) {
            looked_around = Some(Instant::now());
            all += reader.take_over().await?;
            reader.keep_house().await?;
        }
        let wait = LONGEST_WAIT.min(left().unwrap_or(LONGEST_WAIT));
        let tenant = &intake.config().tenant;
        let paid = tokio::time::timeout(wait, intake.app.limits.paid(tenant));
        if paid.await.is_err() {
            continue;
        }
        if intake.log().has_room(tenant).await.is_err() {
            tokio::time::sleep(wait).await;
            continue;
        }
        all += reader.next(wait, shutdown).await?;
    }
    reader.leave().await;
    Ok(all)
}
