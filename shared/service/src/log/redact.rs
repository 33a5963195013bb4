//! Redaction after the fact: a stored trace without what must not be stored, under the numbers that it has.
//!
//! What it touches: the chunks and their pieces (joined, as [`super::rewrite`] does it), the snapshot of the fold, identities that were made of what was taken out, the list's row, labels and sessions,
//! what it adds to the statistics, its archived copy, and what this process holds of it. Other processes let go of it when they see the new life that the trace has: at once where it is folded or
//! watched; what they stored themselves within two seconds, and what they read of the archive within a minute.
//! Followers go on where they are: seqs and marks are the same.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tailspan_core::{
    id::{SessionKey, TenantId, TraceId},
    listing::{self, Label},
    lower,
    observed::Incoming,
    redact::Redactor,
    settle::Status,
    stats,
    summary::summary,
    verbosity::Verbosity,
};
use tracing::info;

use super::{
    Log, LogError,
    notice::{Named, Notice},
    read::TraceState,
    rewrite::{Events, MADE_TTL_SECONDS},
};
use crate::redis::{Arg, Reply, Script};

static REDACT: Script = Script::new(include_str!("../lua/redact.lua"));
static REDACTING: Script = Script::new(include_str!("../lua/redacting.lua"));
static RELABEL: Script = Script::new(include_str!("../lua/relabel.lua"));
static LEAVE_SESSION: Script = Script::new(include_str!("../lua/leave_session.lua"));

/// For how long a trace is not removed while its archived copy is redacted: longer than the largest takes.
const HELD_SECONDS: u64 = 3600;
/// How often a trace to which something is appended meanwhile is begun again.
const ATTEMPTS: usize = 8;

/// What was done to a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redacted {
    /// Events that were looked at, in the log and in the archive.
    pub events: u64,
    /// Values that were taken out.
    pub redacted: u64,
    /// There is an archived copy, and it was looked at.
    pub archived: bool,
}

/// What a batch of stored events becomes: without what must not be stored, and how many values that were; identities that changed.
pub(super) fn change(
    redactor: &Redactor,
    tenant: &TenantId,
    events: Events,
) -> (Events, u64, Vec<(i64, i64)>) {
    let (cleaned, identities) = redactor.clean_stored(tenant, events);
    let clean: Vec<&Incoming> = cleaned.events.iter().map(|clean| &**clean).collect();
    let level = clean.iter().map(|event| event.trace_level).min();
    let own = |events: &[Incoming]| -> Events {
        let events = events.iter();
        events
            .map(|event| (event.context.clone(), event.what.clone()))
            .collect()
    };
    match level.filter(|level| *level < Verbosity::Debug) {
        Some(level) => {
            // What was said goes too; what is as it would be recorded now was not changed.
            let (before, after) = (own(&cloned(&clean)), own(&lower::lower(&clean, level)));
            let lowered = before
                .iter()
                .zip(&after)
                .filter(|(one, other)| one != other);
            let lowered = lowered.count() as u64;
            (after, cleaned.redacted + lowered, identities)
        }
        None => (own(&cloned(&clean)), cleaned.redacted, identities),
    }
}

fn cloned(events: &[&Incoming]) -> Vec<Incoming> {
    events.iter().map(|event| (*event).clone()).collect()
}

impl Log {
    /// The rules of the process, and more.
    ///
    /// # Errors
    /// What cannot be applied, a sentence each.
    pub fn redactor_with(
        &self,
        tenant: &TenantId,
        more: &tailspan_core::redact::Rules,
    ) -> Result<Redactor, Vec<String>> {
        self.redactor.and(tenant, more)
    }

    /// Takes out of a stored trace what must not be stored. `None`: there is no such trace, in the log or in the archive.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: something was appended again and again, or the store is away; doing it again is harmless. [`LogError::Internal`]: it cannot be read in full, and is as it was.
    pub async fn redact(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        redactor: &Redactor,
    ) -> Result<Option<Redacted>, LogError> {
        let mut done = Redacted::default();
        let mut is_there = false;
        let mut attempts = 0;
        while let Some(state) = self.state(tenant, trace).await?.filter(|state| !state.dead) {
            is_there = true;
            if let Some((events, redacted)) =
                self.redact_log(tenant, trace, &state, redactor).await?
            {
                done.events = events;
                done.redacted = redacted;
                // Also when nothing was taken out of it now: who did that before may have died over this.
                self.tell_anew(tenant, trace, &state, redactor).await?;
                break;
            }
            attempts += 1;
            if attempts >= ATTEMPTS {
                return Err(LogError::Unavailable(format!(
                    "trace {trace} moves on and on"
                )));
            }
        }
        // After the log: what is archived meanwhile is written of what the log has now, or not removed there.
        self.hold(tenant, trace, HELD_SECONDS).await?;
        let archived = self.redact_archived(tenant, trace, redactor).await;
        self.hold(tenant, trace, 0).await?;
        if let Some((events, redacted)) = archived? {
            is_there = true;
            done.archived = true;
            done.events += events;
            done.redacted += redacted;
        }
        self.thaws.forget(tenant, trace);
        self.folds.forget(tenant, trace);
        self.metrics.redacted.inc_by(done.redacted);
        info!(%trace, events = done.events, redacted = done.redacted, archived = done.archived, "redacted a stored trace");
        Ok(is_there.then_some(done))
    }

    /// Keeps the sweep from removing a trace meanwhile.
    async fn hold(&self, tenant: &TenantId, trace: &TraceId, seconds: u64) -> Result<(), LogError> {
        if self.archive.is_some() {
            let key = self.keys.trace(tenant, trace).trace;
            let args = vec![Arg::from(seconds)];
            self.redis.script(&REDACTING, &[&key], args).await?;
        }
        Ok(())
    }

    /// How many events the log has, and how many values were taken out. `None`: it moved meanwhile.
    async fn redact_log(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        state: &TraceState,
        redactor: &Redactor,
    ) -> Result<Option<(u64, u64)>, LogError> {
        let keys = self.keys.trace(tenant, trace);
        let mut redacted = 0;
        let mut identities: HashMap<i64, i64> = HashMap::new();
        let mut each = |events: Events| {
            let (events, more, changed) = change(redactor, tenant, events);
            redacted += more;
            identities.extend(changed);
            events
        };
        let Some(mut joined) = self.joined(tenant, trace, state, &mut each).await? else {
            // It may have been removed, or begun anew.
            let now = self.state(tenant, trace).await?;
            return match now.as_ref() == Some(state) {
                true => Err(LogError::Internal(format!(
                    "trace {trace} cannot be read in full: delete it, or try again when the store has all of it"
                ))),
                false => Ok(None),
            };
        };
        let events = state.seq - state.base;
        if redacted == 0 {
            return Ok(Some((events, 0)));
        }
        let token = rand::random::<u64>();
        let [made, made_blobs] =
            [&keys.events, &keys.blobs].map(|key| format!("{key}:made:{token:016x}"));
        let (mut bytes, mut pieces) = (0, 0);
        for (at, entry) in joined.iter_mut().enumerate() {
            for part in &mut entry.parts {
                if let Some(all) = &part.identities {
                    part.identities = Some(renamed(all, &identities));
                }
            }
            let (of_block, of_pieces) = self.put(&made, &made_blobs, entry).await?;
            bytes += of_block;
            pieces += of_pieces;
            if at == 0 {
                for key in [&made, &made_blobs] {
                    let args = vec![Arg::from(key), Arg::from(MADE_TTL_SECONDS)];
                    self.redis.command("EXPIRE", key, args).await?;
                }
            }
        }
        // Pieces may have come with a later entry.
        let args = vec![Arg::from(&made_blobs), Arg::from(MADE_TTL_SECONDS)];
        self.redis.command("EXPIRE", &made_blobs, args).await?;
        let mut args = vec![
            Arg::from(state.seq),
            Arg::from(state.life()),
            Arg::from(MADE_TTL_SECONDS),
            Arg::from(self.publish()),
            Arg::from(&keys.bell),
            Arg::from(bytes),
            Arg::from(pieces),
        ];
        for (before, now) in identities {
            args.extend([Arg::from(before), Arg::from(now)]);
        }
        let slots = [
            keys.trace.as_str(),
            &keys.events,
            &keys.seen,
            &keys.blobs,
            &keys.fold,
            &made,
            &made_blobs,
        ];
        let is_done = self.redis.script(&REDACT, &slots, args).await? == Reply::Int(1);
        if is_done {
            self.count_again(tenant, trace).await;
        }
        self.recent.forget();
        self.folds.forget(tenant, trace);
        Ok(is_done.then_some((events, redacted)))
    }

    /// Lets lists, sessions and statistics say of a trace what is stored of it now.
    async fn tell_anew(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        state: &TraceState,
        redactor: &Redactor,
    ) -> Result<(), LogError> {
        let Some(folded) = self.folded(tenant, trace).await? else {
            return Ok(());
        };
        let status = state
            .ended()
            .and_then(|status| status.parse::<Status>().ok());
        let shown = summary(
            &folded.state,
            trace.as_str(),
            status.unwrap_or(Status::Running),
            &self.prices,
        );
        let card = listing::card(&folded.state, shown);
        let mut card = card.map_err(|error| LogError::Internal(error.to_string()))?;
        let live = match self.live_session_of(tenant, trace).await? {
            Some(key) => self.live_session(tenant, &key).await?,
            None => None,
        };
        let index = self.keys.tenant(tenant);
        let mut named = (String::new(), String::new(), String::new(), String::new());
        if let Some(session) = &live {
            let name = redactor.clean_text(tenant, &session.name).into_owned();
            let eval_set = session.eval_set_id.as_deref().unwrap_or_default();
            named = (
                self.keys.live_session(tenant, &session.key),
                name.clone(),
                redactor.clean_text(tenant, eval_set).into_owned(),
                serde_json::Value::Object(redactor.clean_object(tenant, &session.metadata))
                    .to_string(),
            );
            // Frames go by the name of their session, which they do not tell.
            let label = Label::session(&SessionKey::of(&name));
            if session.into.as_ref() == Some(trace) && !card.sessions.contains(&name) {
                card.sessions.push(name);
                card.labels.push(label);
            }
            let trace_of = redactor.clean_text(tenant, &session.trace);
            if *trace_of != session.trace {
                let args = [&*named.0, "trace", &trace_of].map(Arg::from).to_vec();
                self.redis.command("HSET", &named.0, args).await?;
            }
        }
        let (live_key, name, eval_set, metadata) = named;
        // In a cluster every key of a script lies in the tenant's slot, also one that is none.
        let live_key = match live_key.is_empty() {
            true => format!("{}none", index.live_of),
            false => live_key,
        };
        let mut args = vec![
            Arg::from(trace.as_str()),
            Arg::from(&index.by),
            Arg::from(&card.row),
            Arg::from(name),
            Arg::from(eval_set),
            Arg::from(metadata),
        ];
        args.extend(card.labels.iter().map(|label| Arg::from(label.as_str())));
        let slots = [index.noted.as_str(), &index.rows, &live_key, &index.log];
        let gone = self.redis.script(&RELABEL, &slots, args).await?.list();
        let gone: HashSet<String> = gone.iter().filter_map(Reply::text).collect();
        for session in gone.iter().filter_map(|session| SessionKey::parse(session)) {
            let keys = self.keys.session(tenant, &session);
            let args = vec![Arg::from(trace.as_str())];
            self.redis
                .script(&LEAVE_SESSION, &[&keys.session, &keys.log], args)
                .await?;
        }
        let notice = Notice {
            trace,
            last_seq: folded.through,
            named: &Named::from(&card),
            status,
            level: Verbosity::Minimal,
            is_first: false,
        };
        self.note(tenant, &[notice]).await;
        if status.is_some() {
            let contribution = stats::of(&folded.state, &self.prices);
            self.put_stats(tenant, trace, &contribution, folded.through, true)
                .await?;
        }
        Ok(())
    }
}

/// Identities that lie with a chunk, as they are now.
fn renamed(all: &Bytes, now: &HashMap<i64, i64>) -> Bytes {
    let all = String::from_utf8_lossy(all);
    let all = all.split(' ').map(|identity| {
        let known = identity.parse().ok().and_then(|old: i64| now.get(&old));
        known.map_or_else(|| identity.to_owned(), ToString::to_string)
    });
    Bytes::from(all.collect::<Vec<_>>().join(" "))
}
