//! Deadlines and settlement: deciding that a run ended, once.
//!
//! Nobody keeps timers. A due time lies in a sorted set; whoever is awake claims what is due, folds the trace and decides. The job for the workers is
//! written before the status, so a settler that dies in between leaves a lease that runs out, and the run is settled again; what a job does is keyed by
//! the run's last event, so twice is once.

use tailspan_core::{
    id::{TenantId, TraceId},
    listing::next_look_unix_ms,
    settle::{Status, Verdict, decide},
};
use tracing::{debug, warn};

use super::{
    Log, LogError, now_unix_ms,
    read::{Folded, TraceState},
    work::Job,
};
use crate::redis::{Arg, Reply, Script};

static CLAIM: Script = Script::new(include_str!("../lua/claim.lua"));
static RELEASE: Script = Script::new(include_str!("../lua/release.lua"));
static BEGIN: Script = Script::new(include_str!("../lua/settle_begin.lua"));
static SET_IF_THERE: Script = Script::new(include_str!("../lua/set_if_there.lua"));
static END: Script = Script::new(include_str!("../lua/settle_end.lua"));

/// Traces that one claim takes.
const CLAIM_AT_ONCE: usize = 50;
/// How long a claim and the lease of a settlement hold. A settler that is slower than this is overtaken, which is harmless.
const LEASE_MS: u64 = 30_000;
/// How long an index row may wait for its trace's first append.
const ORPHAN_ROW_MS: u64 = 10 * 60 * 1000;

/// Clocks of processes may differ by this much. What lies further ahead was written under a clock that has since been set back.
const CLOCK_SLACK_MS: u64 = 60_000;

/// What a look at a trace led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Its run ended, now or before; nothing more is due.
    Settled,
    /// Nothing to decide yet.
    Again { at_unix_ms: u64 },
    /// There is no such trace.
    Gone,
}

impl Log {
    /// Every tenant that ever began a trace.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn tenants(&self) -> Result<Vec<TenantId>, LogError> {
        let key = self.keys.tenants();
        let names = self
            .redis
            .command("SMEMBERS", &key, vec![Arg::from(&key)])
            .await?
            .list();
        Ok(names
            .iter()
            .filter_map(|name| TenantId::parse(&name.text()?).ok())
            .collect())
    }

    /// Looks at a tenant's traces that are due, up to 50. Returns how many there were.
    ///
    /// # Errors
    /// [`LogError`] of the claim; a trace that could not be looked at comes due again by itself.
    pub async fn settle_due(&self, tenant: &TenantId) -> Result<usize, LogError> {
        let due = self.keys.tenant(tenant).due;
        let now = self.sure_now().await?;
        // Unlike any due time that `arm` gives, so that a release does not take away a deadline that was set since.
        let until = format!("{}.{:03}", now + LEASE_MS, rand::random_range(1..1000));
        let args = vec![
            Arg::from(now),
            Arg::from(&until),
            Arg::from(CLAIM_AT_ONCE),
            Arg::from(self.latest_due(now)),
        ];
        let claimed = self.redis.script(&CLAIM, &[&due], args).await?.list();
        for name in &claimed {
            let Some(trace) = name.text().and_then(|name| TraceId::parse(&name).ok()) else {
                continue;
            };
            let next = match self.settle(tenant, &trace).await {
                Ok(Look::Again { at_unix_ms }) => {
                    at_unix_ms.clamp(now + 10, self.latest_due(now)).to_string()
                }
                Ok(Look::Settled) => self.compact_when_due(tenant, &trace, now).await,
                Ok(Look::Gone) => self.orphan(tenant, &trace, now).await?,
                Err(error) => {
                    warn!(%trace, %error, "failed to look at a trace that is due");
                    continue;
                }
            };
            let args = vec![
                Arg::from(trace.as_str()),
                Arg::from(&until),
                Arg::from(next),
            ];
            self.redis.script(&RELEASE, &[&due], args).await?;
        }
        Ok(claimed.len())
    }

    /// Joins the chunks of a run that ended a while ago. Returns when to look again, empty for never.
    async fn compact_when_due(&self, tenant: &TenantId, trace: &TraceId, now: u64) -> String {
        let joined = async {
            let Some(state) = self.state(tenant, trace).await?.filter(|state| !state.dead) else {
                return Ok(None);
            };
            let Some(settled) = state.settled.as_ref().filter(|_| state.ended().is_some()) else {
                return Ok(None);
            };
            let due = settled
                .at_unix_ms
                .min(now)
                .saturating_add(self.compact_after_ms);
            if state.compacted == state.seq {
                return Ok(None);
            }
            if now < due {
                return Ok(Some(due));
            }
            self.compact(tenant, trace, &state).await?;
            Ok::<_, LogError>(None)
        };
        match joined.await {
            Ok(next) => next.map_or_else(String::new, |at| at.to_string()),
            Err(error) => {
                warn!(%trace, %error, "failed to join the chunks of a trace");
                (now + LEASE_MS).to_string()
            }
        }
    }

    /// No deadline is later under the clock of now: one that is was set before the clock was set back, and is looked at at once.
    fn latest_due(&self, now_unix_ms: u64) -> u64 {
        let longest = self.patience.lost_ms.max(self.patience.stalled_ms);
        let longest = longest.max(self.compact_after_ms);
        now_unix_ms + longest.max(ORPHAN_ROW_MS) + CLOCK_SLACK_MS
    }

    /// When the last event came. One from the future came before the clock was set back, nobody knows how long ago: longer than the grace,
    /// so that what ended ends, and not so long that an open run is called stalled or lost for it.
    fn last_arrival(&self, state: &TraceState, now_unix_ms: u64) -> u64 {
        let arrival = state.last_arrival_unix_ms;
        match arrival > now_unix_ms + CLOCK_SLACK_MS {
            true => now_unix_ms.saturating_sub(self.patience.grace_ms),
            false => arrival,
        }
    }

    /// How a folded trace stands: as it was settled, else what can be said at this moment.
    pub fn status(&self, folded: &Folded) -> Status {
        match folded.trace.ended() {
            Some(status) => status.parse().unwrap_or(Status::Completed),
            None => decide(
                &folded.state,
                folded.trace.last_arrival_unix_ms,
                now_unix_ms(),
                &self.patience,
            )
            .status(),
        }
    }

    /// Looks at one trace, and settles its run if it ended.
    ///
    /// # Errors
    /// [`LogError`]; looking again is harmless.
    pub async fn settle(&self, tenant: &TenantId, trace: &TraceId) -> Result<Look, LogError> {
        let Some(state) = self.state(tenant, trace).await?.filter(|state| !state.dead) else {
            return Ok(Look::Gone);
        };
        if let Some(ended) = state.ended() {
            if let Ok(status) = ended.parse() {
                self.note_status(tenant, trace, state.seq, status).await;
            }
            return Ok(Look::Settled);
        }
        let now = self.sure_now().await?;
        let stalled_at = self
            .last_arrival(&state, now)
            .saturating_add(self.patience.stalled_ms);
        if !state.may_have_ended && state.run == 0 && now < stalled_at {
            // Nothing came that may have ended it, and it is not silent: not worth a fold, but for the lists, ever more seldom.
            self.show_open_run(tenant, trace, &state, None, Status::Running)
                .await?;
            let next = next_look_unix_ms(state.first_arrival_unix_ms, now);
            return Ok(Look::Again {
                at_unix_ms: next.min(stalled_at),
            });
        }
        let Some(folded) = self.folded(tenant, trace).await? else {
            return Ok(Look::Gone);
        };
        let state = &folded.trace;
        if state.ended().is_some() {
            return Ok(Look::Settled);
        }
        if state.seq == state.base {
            // Replaced, and nothing has come since.
            return Ok(Look::Again {
                at_unix_ms: now + self.patience.stalled_ms,
            });
        }
        let status = match decide(
            &folded.state,
            self.last_arrival(state, now),
            now,
            &self.patience,
        ) {
            verdict @ (Verdict::Running { look_again_unix_ms }
            | Verdict::Stalled { look_again_unix_ms }) => {
                self.show_open_run(tenant, trace, state, Some(&folded), verdict.status())
                    .await?;
                if verdict.status() == Status::Stalled {
                    self.tell_of_stall(tenant, trace, &folded).await?;
                }
                return Ok(Look::Again {
                    at_unix_ms: look_again_unix_ms,
                });
            }
            Verdict::Lost => "lost".to_owned(),
            Verdict::Ended { status } => status.to_string(),
        };
        let keys = self.keys.trace(tenant, trace);
        let begin = vec![
            Arg::from(folded.through),
            Arg::from(now),
            Arg::from(now + LEASE_MS),
        ];
        let reply = self
            .redis
            .script(&BEGIN, &[&keys.trace], begin)
            .await?
            .list();
        let run = match reply.first().and_then(Reply::text).as_deref() {
            Some("go") => reply.get(1).and_then(Reply::number).unwrap_or_default(),
            Some("done") => return Ok(Look::Settled),
            Some("busy") => {
                return Ok(Look::Again {
                    at_unix_ms: now + LEASE_MS,
                });
            }
            _ => {
                return Ok(Look::Again {
                    at_unix_ms: now + self.patience.grace_ms,
                });
            }
        };
        self.keep_fold(tenant, trace, &folded).await;
        self.add_job(&Job {
            tenant: tenant.clone(),
            trace: trace.clone(),
            run,
            through: folded.through,
            status: status.clone(),
        })
        .await?;
        // Before the end is told, so that whoever is told finds it.
        if let Ok(status) = status.parse() {
            self.note_status(tenant, trace, folded.through, status)
                .await;
        }
        let end = vec![
            Arg::from(folded.through),
            Arg::from(&status),
            Arg::from(now_unix_ms()),
            Arg::from(self.publish()),
            Arg::from(&keys.bell),
        ];
        let ended = self.redis.script(&END, &[&keys.trace], end).await? == Reply::Int(1);
        debug!(%trace, status, ended, "settled");
        Ok(if ended {
            Look::Settled
        } else {
            Look::Again {
                at_unix_ms: now + self.patience.grace_ms,
            }
        })
    }

    /// A run that stalled is a job too, once for each silence. The job is written first: told twice is once, and not told is never.
    async fn tell_of_stall(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        folded: &Folded,
    ) -> Result<(), LogError> {
        let key = self.keys.trace(tenant, trace).trace;
        let field = [&key, "stalled"].map(Arg::from).to_vec();
        let told = self.redis.command("HGET", &key, field).await?.number();
        if told == Some(folded.through) {
            return Ok(());
        }
        self.add_job(&Job {
            tenant: tenant.clone(),
            trace: trace.clone(),
            run: folded.trace.run,
            through: folded.through,
            status: Status::Stalled.to_string(),
        })
        .await?;
        let args = vec![Arg::from("stalled"), Arg::from(folded.through)];
        self.redis.script(&SET_IF_THERE, &[&key], args).await?;
        Ok(())
    }

    /// A row whose trace never came, or is gone: drops it when it is old enough. Returns the next due time, empty for none.
    async fn orphan(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        now: u64,
    ) -> Result<String, LogError> {
        let traces = self.keys.tenant(tenant).traces;
        let args = vec![Arg::from(&traces), Arg::from(trace.as_str())];
        let started = self.redis.command("ZSCORE", &traces, args).await?.number();
        match started {
            Some(started) if started + ORPHAN_ROW_MS > now => {
                let at = started + ORPHAN_ROW_MS;
                Ok(at.min(self.latest_due(now)).to_string())
            }
            Some(_) => {
                self.drop_rows(tenant, std::slice::from_ref(trace)).await?;
                Ok(String::new())
            }
            None => Ok(String::new()),
        }
    }
}
