//! Statistics over a tenant's runs: what each trace adds, and what they add up to.
//!
//! A trace's contribution is kept beside the sums, and both are changed by one script, in steps of a few cells: whatever is in the sums is exactly what is kept as contributed.
//! So a run that ends again, a job that comes twice and a worker that dies in between count once.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tailspan_core::{
    id::{TenantId, TraceId},
    stats::{
        Bucket, Change, Contribution, Dimension, Figures, History, NAMES_OF_A_BUCKET, OTHER,
        SLOT_MS, Window, stored_name,
    },
};
use tracing::warn;

use super::{Log, LogError, now_unix_ms};
use crate::redis::{Arg, Reply, Script};

static ADD: Script = Script::new(include_str!("../lua/stats_add.lua"));

/// Cells that one script changes, each in three buckets: 0.1 ms of Redis's time, and 0.8 where every row holds 120 different durations.
const CELLS_AT_ONCE: usize = 4;
/// Buckets read at the same time.
const BUCKETS_AT_ONCE: usize = 8;
/// Names that are told apart while buckets are added up; what comes beyond them counts under [`OTHER`].
const MOST_NAMES: usize = 2_000;
/// Names asked for in one command.
const NAMES_AT_ONCE: usize = 100;
/// What stands before a kept contribution, to see whether it is still the same.
const TOKEN_BYTES: usize = 16;
/// How often a step that another worker overtook is begun again, before the job is left for later.
const ATTEMPTS: usize = 16;

/// What was counted of a tenant's runs in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Since when calls count, in ms since 1970. `None`: since ever.
    pub from_unix_ms: Option<u64>,
    pub to_unix_ms: u64,
    pub rows: BTreeMap<Dimension, BTreeMap<String, Figures>>,
}

impl Log {
    /// Sees to it that what a trace adds to the statistics is `contribution`, which goes through event `through`. What was added by a later look at the trace stays.
    ///
    /// # Errors
    /// [`LogError`]; what was added is known, and doing it again goes on there.
    pub async fn keep_stats(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        contribution: &Contribution,
        through: u64,
    ) -> Result<(), LogError> {
        self.put_stats(tenant, trace, contribution, through, false)
            .await
    }

    /// As [`Log::keep_stats`]. `again`: also what was added by the same look, for what is stored says something else now.
    pub(super) async fn put_stats(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        contribution: &Contribution,
        through: u64,
        again: bool,
    ) -> Result<(), LogError> {
        for _ in 0..ATTEMPTS {
            let (token, mut kept, kept_through) = self.kept_stats(tenant, trace).await?;
            if kept_through > through || kept_through == through && !again {
                return Ok(());
            }
            let changes = contribution.changes_from(&kept);
            let mut token = token;
            let mut steps = changes.chunks(CELLS_AT_ONCE).peekable();
            let done = loop {
                let step = steps.next().unwrap_or_default();
                kept.take(step, contribution);
                let is_last = steps.peek().is_none();
                let through = if is_last { through } else { kept_through };
                let next = format!("{:016x}", rand::random::<u64>());
                let answer = self
                    .add_stats(tenant, trace, (&token, &next), &kept.encode(through), step)
                    .await?;
                match answer {
                    Reply::Int(1) if is_last => break true,
                    Reply::Int(1) => token = next,
                    // It was removed: what it adds stays as it is.
                    Reply::Int(-1) => break true,
                    _ => break false,
                }
            };
            if done {
                return Ok(());
            }
        }
        Err(LogError::Unavailable(format!(
            "others change the statistics of {trace}"
        )))
    }

    /// What is kept of a trace's contribution: its token, itself, the event it goes through.
    async fn kept_stats(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<(String, Contribution, u64), LogError> {
        let of = self.keys.stats_of(tenant);
        let args = vec![Arg::from(&of), Arg::from(trace.as_str())];
        let Some(kept) = self.redis.command("HGET", &of, args).await?.bytes() else {
            return Ok(Default::default());
        };
        let token = kept.get(..TOKEN_BYTES).unwrap_or(&kept);
        let token = String::from_utf8_lossy(token).into_owned();
        let (contribution, through) = kept
            .get(TOKEN_BYTES..)
            .and_then(Contribution::decode)
            .unwrap_or_else(|| {
                warn!(%trace, "failed to read what a trace added to the statistics; it may count twice");
                Default::default()
            });
        Ok((token, contribution, through))
    }

    async fn add_stats(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        (token, next): (&str, &str),
        kept: &[u8],
        changes: &[Change],
    ) -> Result<Reply, LogError> {
        let now = now_unix_ms();
        let retention_ms = self.retention.longest_ms();
        let mut buckets: Vec<(String, u64)> = Vec::new();
        let mut place_of: HashMap<(Dimension, Bucket), usize> = HashMap::new();
        let mut cells = Vec::new();
        for change in changes {
            for bucket in Bucket::of_slot(change.slot) {
                let ttl_seconds = match bucket.kept_until_unix_ms(retention_ms) {
                    None => self.ttl_seconds(),
                    Some(until) => until.saturating_sub(now) / 1000,
                };
                if ttl_seconds == 0 {
                    // It expired, or would at once.
                    continue;
                }
                let place = *place_of
                    .entry((change.dimension, bucket))
                    .or_insert_with(|| {
                        let key = self.keys.stats(tenant, change.dimension, bucket);
                        buckets.push((key, ttl_seconds));
                        buckets.len()
                    });
                cells.extend([
                    Arg::from(place),
                    Arg::from(&change.name),
                    Arg::from(&change.delta),
                ]);
            }
        }
        let mut text = next.as_bytes().to_vec();
        text.extend_from_slice(kept);
        let mut args = vec![
            Arg::from(trace.as_str()),
            Arg::from(token),
            Arg::from(text),
            Arg::from(NAMES_OF_A_BUCKET),
            Arg::from(OTHER),
            Arg::from(now.saturating_sub(retention_ms) / SLOT_MS),
            Arg::from(buckets.len()),
        ];
        args.extend(
            buckets
                .iter()
                .map(|(_, ttl_seconds)| Arg::from(*ttl_seconds)),
        );
        args.extend(cells);
        let (of, traces) = (self.keys.stats_of(tenant), self.keys.tenant(tenant).traces);
        let mut slots = vec![of.as_str(), traces.as_str()];
        slots.extend(buckets.iter().map(|(key, _)| key.as_str()));
        Ok(self.redis.script(&ADD, &slots, args).await?)
    }

    /// What a tenant's runs add up to in a window, by these dimensions.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn stats(
        &self,
        tenant: &TenantId,
        window: Window,
        dimensions: &[Dimension],
    ) -> Result<Stats, LogError> {
        let now = now_unix_ms();
        let (from_unix_ms, buckets) = window.buckets(now);
        let mut stats = Stats {
            from_unix_ms,
            to_unix_ms: now,
            rows: BTreeMap::new(),
        };
        for dimension in dimensions {
            let rows = stats.rows.entry(*dimension).or_default();
            let keys: Vec<String> = buckets
                .iter()
                .map(|bucket| self.keys.stats(tenant, *dimension, *bucket))
                .collect();
            let reads = keys.into_iter().map(|key| self.all_fields(key));
            let mut reads = stream::iter(reads).buffered(BUCKETS_AT_ONCE);
            while let Some(fields) = reads.try_next().await? {
                for pair in fields.chunks_exact(2) {
                    let [name, figures] = pair else { continue };
                    let Some((name, figures)) = name.text().zip(parse(figures)) else {
                        continue;
                    };
                    if figures == Figures::default() {
                        continue;
                    }
                    let has_place = rows.len() < MOST_NAMES || rows.contains_key(&name);
                    let name = if has_place { name } else { OTHER.to_owned() };
                    rows.entry(name).or_default().merge(&figures);
                }
            }
        }
        Ok(stats)
    }

    /// Keeps no longer what these traces added; the sums stay. For traces whose rows are gone.
    pub(super) async fn forget_stats(
        &self,
        tenant: &TenantId,
        traces: &[TraceId],
    ) -> Result<(), LogError> {
        let of = self.keys.stats_of(tenant);
        let mut args = vec![Arg::from(&of)];
        args.extend(traces.iter().map(|trace| Arg::from(trace.as_str())));
        self.redis.command("HDEL", &of, args).await?;
        Ok(())
    }

    async fn all_fields(&self, key: String) -> Result<Vec<Reply>, LogError> {
        let read = self.redis.command("HGETALL", &key, vec![Arg::from(&key)]);
        Ok(read.await?.list())
    }

    /// What is known of these names from all runs that ended; for an analysis that compares a run with those before it.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn history(
        &self,
        tenant: &TenantId,
        names: &[(Dimension, String)],
    ) -> Result<History, LogError> {
        let mut history = History::default();
        for dimension in Dimension::ALL {
            let mut wanted: Vec<String> = names
                .iter()
                .filter(|(of, _)| *of == dimension)
                .map(|(_, name)| stored_name(dimension, name))
                .collect();
            wanted.sort_unstable();
            wanted.dedup();
            let key = self.keys.stats(tenant, dimension, Bucket::All);
            for names in wanted.chunks(NAMES_AT_ONCE) {
                let mut args = vec![Arg::from(&key)];
                args.extend(names.iter().map(Arg::from));
                let found = self.redis.command("HMGET", &key, args).await?.list();
                for (name, figures) in names.iter().zip(&found) {
                    if let Some(figures) = parse(figures) {
                        history.add(dimension, name, &figures.durations);
                    }
                }
            }
        }
        Ok(history)
    }
}

fn parse(figures: &Reply) -> Option<Figures> {
    let text = figures.bytes()?;
    Figures::parse(&text)
        .inspect_err(|error| warn!(%error, "failed to read figures of the statistics"))
        .ok()
}
