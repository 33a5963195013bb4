//! Notices: what a tenant's and a session's followers read to learn which traces moved.
//!
//! They come after the append and may fail without harm: each goes from where the last one ended, so the next heals what was lost, and the settlement of a
//! run notes it once more.

use std::collections::BTreeMap;

use tailspan_core::{
    convention,
    id::{SessionKey, TenantId, TraceId},
    observed::Incoming,
};
use tracing::warn;

use super::{Log, now_unix_ms};
use crate::redis::{Arg, Script};

static NOTE: Script = Script::new(include_str!("../lua/note.lua"));
static NOTE_SESSION: Script = Script::new(include_str!("../lua/note_session.lua"));

/// Notices a log keeps, about.
const NOTICES_KEPT: u64 = 10_000;
/// Traces a session remembers.
const TRACES_OF_A_SESSION: u64 = 10_000;
/// Sessions that one batch of a trace may name; more are those of a stranger.
const SESSIONS_OF_A_BATCH: usize = 16;

/// A trace that moved.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    pub trace: &'a TraceId,
    pub last_seq: u64,
    pub sessions: &'a [String],
}

impl Log {
    /// Writes notices for the tenant and for every session named.
    pub async fn note(&self, tenant: &TenantId, notices: &[Notice<'_>]) {
        let now = now_unix_ms();
        let mut of_tenant = vec![
            Arg::from(NOTICES_KEPT),
            Arg::from(now),
            Arg::from(now.saturating_add(self.patience.stalled_ms)),
        ];
        let nothing = of_tenant.len();
        let mut of_sessions: BTreeMap<&str, Vec<Arg>> = BTreeMap::new();
        for notice in notices.iter().filter(|notice| notice.last_seq > 0) {
            let moved = [Arg::from(notice.trace.as_str()), Arg::from(notice.last_seq)];
            for session in notice.sessions {
                of_sessions
                    .entry(session)
                    .or_default()
                    .extend(moved.clone());
            }
            of_tenant.extend(moved);
        }
        if of_tenant.len() == nothing {
            return;
        }
        let index = self.keys.tenant(tenant);
        let slots = [index.log.as_str(), &index.noted, &index.traces, &index.due];
        let noted = self.redis.script(&NOTE, &slots, of_tenant);
        let sessions = futures::future::join_all(of_sessions.into_iter().map(|(name, moved)| {
            let keys = self.keys.session(tenant, &SessionKey::of(name));
            let mut args = vec![
                Arg::from(NOTICES_KEPT),
                Arg::from(self.ttl_seconds()),
                Arg::from(now),
                Arg::from(name),
                Arg::from(TRACES_OF_A_SESSION),
            ];
            args.extend(moved);
            async move {
                self.redis
                    .script(&NOTE_SESSION, &[&keys.session, &keys.log], args)
                    .await
            }
        }));
        let (noted, sessions) = tokio::join!(noted, sessions);
        for answer in sessions.into_iter().chain([noted]) {
            if let Err(error) = answer {
                warn!(%tenant, %error, "failed to write a notice; the next one covers it");
            }
        }
    }
}

/// The sessions a batch names, each once.
pub(super) fn sessions_of(events: &[Incoming]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for incoming in events {
        for name in convention::sessions(&incoming.what) {
            if names.len() < SESSIONS_OF_A_BATCH && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}
