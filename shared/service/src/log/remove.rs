//! Removal: a trace that is deleted or begun again, and retention, under which traces that nobody touched for longer go with every key and row of theirs.
//!
//! Whatever removes many goes in steps of a hundred rows, each row by a script of its own: none holds Redis up, and who is stopped in between goes on where it was. Data goes
//! before rows: a row whose data is gone is found, and dropped, by the next that comes by; a trace without a row never is.

use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tailspan_core::{
    id::{TenantId, TraceId},
    listing::{Label, Place},
    retention::ENDED,
    settle::Status,
};

use tracing::warn;

use super::{Log, LogError, RETRY_PAUSES, frozen::Frozen, now_unix_ms};
use crate::redis::{Arg, RedisError, Reply, Script};

static FORGET: Script = Script::new(include_str!("../lua/forget.lua"));
static EXPIRE: Script = Script::new(include_str!("../lua/expire.lua"));

/// Rows looked at in one step.
const ROWS_AT_ONCE: usize = 100;
/// Traces removed at the same time, and rows dropped in one command.
const TRACES_AT_ONCE: usize = 16;
/// Where they are archived before they go: each is packed, written and looked at.
const ROWS_AT_ONCE_TO_ARCHIVE: usize = 16;
const ARCHIVED_AT_ONCE: usize = 4;

/// Which traces of a tenant are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Those whose last event came before, ms since 1970.
    pub before_unix_ms: u64,
    pub wanted: Wanted,
    /// They are only counted.
    pub dry_run: bool,
}

/// How a trace must stand to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// However.
    Any,
    /// Its run ended, whichever way.
    Ended,
    /// Its run ended this way.
    As(Status),
}

/// What a step of a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Traces that were to go.
    pub matched: u64,
    /// Those that went.
    pub removed: u64,
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<Place>,
}

/// What retention did for a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub removed: u64,
    /// `false`: the time was over before everything was looked at; the next sweep goes on.
    pub complete: bool,
}

/// What comes after a life that is ended.
#[derive(Clone, Copy)]
pub(super) enum Forget {
    /// The name stays taken.
    Delete,
    /// The same, of what the log does not have.
    Bury,
    /// A new life begins above the old numbers.
    Replace,
}

impl Log {
    /// Ends the life of a trace, and removes its archived copy. `false`: there is no such trace.
    ///
    /// # Errors
    /// [`LogError`]; deleting it again does what is left.
    pub async fn delete(&self, tenant: &TenantId, trace: &TraceId) -> Result<bool, LogError> {
        let how = match self.archive {
            Some(_) if self.state(tenant, trace).await?.is_none() => {
                match self.is_archived(tenant, trace).await? {
                    true => Forget::Bury,
                    false => return Ok(false),
                }
            }
            _ => Forget::Delete,
        };
        // First: who dies in between leaves a trace that can be deleted again, and no copy that nobody knows of.
        self.forget_archived(tenant, trace).await?;
        let existed = self.forget(tenant, trace, how).await?;
        // A sweep may have been at it.
        self.forget_archived(tenant, trace).await?;
        self.drop_rows(tenant, std::slice::from_ref(trace)).await?;
        Ok(existed)
    }

    /// Removes what is older than the retention, for one tenant, at most until `until`.
    ///
    /// # Errors
    /// [`LogError`]; the next sweep goes on where this one stopped.
    pub async fn sweep(&self, tenant: &TenantId, until: Instant) -> Result<Swept, LogError> {
        let now = self.sure_now().await?;
        let kept_ms = |status| self.retention.of(tenant, status);
        let longest_ms = ENDED
            .map(|status| kept_ms(Some(status)))
            .into_iter()
            .fold(kept_ms(None), u64::max);
        // What is kept less long than others is found in the index of its status; a trace that stands in none of these goes when none is kept any longer.
        let shorter = ENDED
            .into_iter()
            .filter(|status| kept_ms(Some(*status)) < longest_ms)
            .map(|status| (Wanted::As(status), kept_ms(Some(status))));
        let mut swept = Swept {
            removed: 0,
            complete: true,
        };
        for (wanted, kept_ms) in shorter.chain([(Wanted::Any, longest_ms)]) {
            let removal = Removal {
                before_unix_ms: now.saturating_sub(kept_ms),
                wanted,
                dry_run: false,
            };
            let mut after = None;
            loop {
                if Instant::now() >= until {
                    swept.complete = false;
                    return Ok(swept);
                }
                let step = self.remove_step(tenant, &removal, after.as_ref()).await?;
                swept.removed += step.removed;
                after = step.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(swept)
    }

    /// Removes traces whose last event came before a time, however they stand. Returns how many went.
    ///
    /// # Errors
    /// As [`Log::sweep`].
    pub async fn remove_before(
        &self,
        tenant: &TenantId,
        before_unix_ms: u64,
    ) -> Result<u64, LogError> {
        let removal = Removal {
            before_unix_ms,
            wanted: Wanted::Any,
            dry_run: false,
        };
        let (mut removed, mut after) = (0, None);
        loop {
            let step = self.remove_step(tenant, &removal, after.as_ref()).await?;
            removed += step.removed;
            after = step.next;
            if after.is_none() {
                return Ok(removed);
            }
        }
    }

    /// One step of a removal: up to a hundred traces, the oldest first, after a place.
    ///
    /// # Errors
    /// [`LogError`]; the same step again goes on where this one stopped.
    pub async fn remove_step(
        &self,
        tenant: &TenantId,
        removal: &Removal,
        after: Option<&Place>,
    ) -> Result<Step, LogError> {
        let (places, next) = self.oldest(tenant, removal, after).await?;
        let checks = places
            .iter()
            .map(|place| self.remove_one(tenant, &place.trace, removal));
        let checks: Vec<_> = checks.collect();
        let at_once = match self.archive {
            Some(_) => ARCHIVED_AT_ONCE,
            None => TRACES_AT_ONCE,
        };
        let verdicts: Vec<Reply> = stream::iter(checks).buffered(at_once).try_collect().await?;
        let mut step = Step {
            next,
            ..Step::default()
        };
        let mut gone = Vec::new();
        for (place, verdict) in places.into_iter().zip(verdicts) {
            if verdict == Reply::Int(1) {
                step.matched += 1;
            }
            if verdict != Reply::Int(0) && !removal.dry_run {
                step.removed += u64::from(verdict == Reply::Int(1));
                gone.push(place.trace);
            }
        }
        for gone in gone.chunks(TRACES_AT_ONCE) {
            self.drop_rows(tenant, gone).await?;
        }
        self.metrics.swept_traces.inc_by(step.removed);
        Ok(step)
    }

    /// The next traces of a removal's index that began before its time, and the place after them, where the index goes on.
    async fn oldest(
        &self,
        tenant: &TenantId,
        removal: &Removal,
        after: Option<&Place>,
    ) -> Result<(Vec<Place>, Option<Place>), LogError> {
        let index = self.keys.tenant(tenant);
        let index = match removal.wanted {
            Wanted::As(status) => format!("{}{}", index.by, Label::status(status)),
            Wanted::Any | Wanted::Ended => index.traces,
        };
        let from = after.map_or_else(
            || "-inf".to_owned(),
            |place| place.started_unix_ms.to_string(),
        );
        let mut offset = 0;
        let rows_at_once = match self.archive {
            Some(_) => ROWS_AT_ONCE_TO_ARCHIVE,
            None => ROWS_AT_ONCE,
        };
        loop {
            let args = vec![
                Arg::from(&index),
                Arg::from(&from),
                Arg::from(format!("({}", removal.before_unix_ms)),
                Arg::from("BYSCORE"),
                Arg::from("LIMIT"),
                Arg::from(offset),
                Arg::from(rows_at_once),
                Arg::from("WITHSCORES"),
            ];
            let found = self.redis.command("ZRANGE", &index, args).await?.list();
            let fetched = found.len() / 2;
            let places: Vec<Place> = found
                .chunks_exact(2)
                .filter_map(|pair| {
                    Some(Place {
                        trace: TraceId::parse(&pair.first()?.text()?).ok()?,
                        started_unix_ms: pair.get(1)?.number()?,
                    })
                })
                // Of one moment they stand in the order of their names.
                .filter(|place| {
                    after.is_none_or(|after| {
                        place.started_unix_ms > after.started_unix_ms || place.trace > after.trace
                    })
                })
                .collect();
            let is_full = fetched == rows_at_once;
            if let Some(last) = places.last().cloned() {
                return Ok((places, is_full.then_some(last)));
            }
            if !is_full {
                return Ok((places, None));
            }
            // All of them were of the place's own moment, and looked at.
            offset += fetched;
        }
    }

    /// Removes a trace if it is to go, after it was archived. What cannot be archived stays.
    async fn remove_one(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        removal: &Removal,
    ) -> Result<Reply, LogError> {
        let Some(archive) = &self.archive else {
            return self.expire(tenant, trace, removal, None).await;
        };
        let look = Removal {
            dry_run: true,
            ..*removal
        };
        let verdict = self.expire(tenant, trace, &look, None).await?;
        if removal.dry_run {
            return Ok(verdict);
        }
        if verdict != Reply::Int(1) {
            // At most rows go whose trace is gone.
            let none = Frozen::default();
            return self.expire(tenant, trace, removal, Some(&none)).await;
        }
        let frozen = match self.freeze(archive, tenant, trace).await {
            Ok(frozen) => frozen,
            Err(error) => {
                self.metrics.archive_failures.inc();
                return match error {
                    // Of one trace: the others go on.
                    LogError::Internal(_) | LogError::TooLargeToRead => {
                        warn!(%tenant, %trace, %error, "failed to archive a trace; it stays");
                        Ok(Reply::Int(0))
                    }
                    LogError::Unavailable(_) | LogError::Full(_) => Err(error),
                };
            }
        };
        let verdict = self.expire(tenant, trace, removal, frozen.as_ref());
        let verdict = verdict.await?;
        if frozen.is_some() && verdict == Reply::Int(0) {
            let state = self.state(tenant, trace).await?;
            if state.is_some_and(|state| state.dead) {
                // Deleted meanwhile, and its copy with it, which we wrote again.
                self.forget_archived(tenant, trace).await?;
            }
        }
        Ok(verdict)
    }

    /// `archived`: as what it must still stand.
    async fn expire(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        removal: &Removal,
        archived: Option<&Frozen>,
    ) -> Result<Reply, LogError> {
        let keys = self.keys.trace(tenant, trace);
        let args = vec![
            Arg::from(removal.before_unix_ms),
            Arg::from(self.publish()),
            Arg::from(&keys.bell),
            Arg::from(match removal.wanted {
                Wanted::Any => "",
                Wanted::Ended => "ended",
                Wanted::As(status) => status.as_str(),
            }),
            Arg::from(now_unix_ms().saturating_sub(self.patience.lost_ms)),
            Arg::from(if removal.dry_run { "1" } else { "0" }),
            archived.map_or(Arg::from(""), |archived| Arg::from(archived.seq)),
            Arg::from(archived.map_or("", |archived| &archived.mark)),
            Arg::from(archived.map_or("", |archived| &archived.life)),
        ];
        Ok(self.redis.script(&EXPIRE, &keys.stored(), args).await?)
    }

    /// Ends the life of a trace: its data goes, its viewers are told. `false`: there is none.
    pub(super) async fn forget(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        how: Forget,
    ) -> Result<bool, LogError> {
        let keys = self.keys.trace(tenant, trace);
        // Stays over attempts, so that the script knows our own repeat.
        let token = rand::random::<u64>();
        let mut pauses = RETRY_PAUSES.iter();
        loop {
            let args = vec![
                Arg::from(now_unix_ms()),
                Arg::from(self.ttl_seconds()),
                Arg::from(self.publish()),
                Arg::from(&keys.bell),
                Arg::from(match how {
                    Forget::Delete => "delete",
                    Forget::Bury => "bury",
                    Forget::Replace => "replace",
                }),
                Arg::from(token),
            ];
            match (
                self.redis.script(&FORGET, &keys.stored(), args).await,
                pauses.next(),
            ) {
                (Err(RedisError::Unavailable(_)), Some(pause)) => tokio::time::sleep(*pause).await,
                (reply, _) => return Ok(reply?.list().first() == Some(&Reply::Int(1))),
            }
        }
    }
}
