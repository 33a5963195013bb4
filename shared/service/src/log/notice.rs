//! Notices: what a tenant's and a session's followers read to learn which traces moved.
//!
//! They come after the append and may fail without harm: each goes from where the last one ended, so the next heals what was lost, and the settlement of a
//! run notes it once more.

use std::{collections::BTreeMap, sync::Arc};

use tailspan_core::{
    convention,
    id::{SessionKey, TenantId, TraceId},
    listing::{Card, Label, MAX_LABELS},
    live::grouping::{self, SessionName},
    observed::Context,
    redact::Clean,
    settle::Status,
    verbosity::Verbosity,
};
use tracing::warn;

use super::{Log, now_unix_ms, now_unix_us};
use crate::redis::{Arg, Script};

static NOTE: Script = Script::new(concat!(
    include_str!("../lua/live.lua"),
    include_str!("../lua/note.lua")
));
static NOTE_SESSION: Script = Script::new(include_str!("../lua/note_session.lua"));

/// Notices a log keeps, about.
pub(crate) const NOTICES_KEPT: u64 = 10_000;
/// Traces a session remembers.
const TRACES_OF_A_SESSION: u64 = 10_000;

/// A trace that moved, or of which something was found out.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    pub trace: &'a TraceId,
    pub last_seq: u64,
    pub named: &'a Named,
    /// How it stands as of `last_seq`, when that was decided; else it runs.
    pub status: Option<Status>,
    /// How much of the batch was recorded.
    pub level: Verbosity,
    /// The trace began with this batch.
    pub is_first: bool,
}

/// What a trace is found by.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Names of its sessions.
    sessions: Vec<String>,
    /// As the script takes them: a `-` before one that the trace must not have.
    labels: Vec<String>,
    /// The live session that a batch names, and how good that name is.
    live: Option<SessionName>,
    /// It says something about the trace and is no part of its run.
    aside: bool,
    /// Whose attributes a live session gets that is begun by this batch.
    context: Option<Arc<Context>>,
}

impl Named {
    /// What a batch names.
    pub(super) fn in_batch(events: &[Clean]) -> Self {
        let all = events.iter().map(|clean| &**clean);
        let named = convention::labels(all.clone());
        Self {
            labels: named.list().iter().map(Label::to_string).collect(),
            live: grouping::session_name(all, &named.sessions),
            sessions: named.sessions,
            context: events.first().map(|first| Arc::clone(&first.context)),
            aside: false,
        }
    }

    /// What a batch names that came for a live session, which goes by its name like any other.
    pub(crate) fn of_session(events: &[Clean], session: &str) -> Self {
        let mut named = convention::labels(events.iter().map(|clean| &**clean));
        if !named.sessions.iter().any(|known| known == session) {
            named.sessions.insert(0, session.to_owned());
        }
        Self {
            labels: named.list().iter().map(Label::to_string).collect(),
            sessions: named.sessions,
            ..Self::default()
        }
    }

    /// For events that are an aside: whoever follows these sessions shall see them too.
    pub(super) fn aside(sessions: Vec<String>) -> Self {
        Self {
            sessions,
            aside: true,
            ..Self::default()
        }
    }

    /// The live session as the script takes it, for a trace that may need one, and what a new one gets.
    fn live(&self, notice: &Notice<'_>) -> (String, String) {
        let own;
        let name = match &self.live {
            Some(name) => name,
            None => {
                own = SessionName::own(notice.trace);
                &own
            }
        };
        let key = SessionKey::of(&name.name);
        let named = format!("{}{}{}", name.rank, key.as_str(), name.name);
        let details = match &self.context {
            // Others find their session there, or have a better name.
            Some(context) if notice.is_first || self.live.is_some() => {
                let (eval_set, metadata) = grouping::session_details(context, notice.level);
                format!("{} {eval_set}{metadata}", eval_set.len())
            }
            _ => String::new(),
        };
        (named, details)
    }
}

impl From<&Card> for Named {
    fn from(card: &Card) -> Self {
        let mut labels: Vec<String> = card.labels.iter().map(Label::to_string).collect();
        if card.without_error {
            labels.push(format!("-{}", Label::error()));
        }
        Self {
            labels,
            sessions: card.sessions.clone(),
            ..Self::default()
        }
    }
}

impl Log {
    /// Writes notices and labels for the tenant, and notices for every session named.
    pub async fn note(&self, tenant: &TenantId, notices: &[Notice<'_>]) {
        let (now, now_us) = (now_unix_ms(), now_unix_us());
        let index = self.keys.tenant(tenant);
        let mut of_tenant = vec![
            Arg::from(NOTICES_KEPT),
            Arg::from(now_us),
            Arg::from(now.saturating_add(self.patience.stalled_ms)),
            Arg::from(&index.by),
            Arg::from(MAX_LABELS),
            Arg::from(self.publish()),
            Arg::from(&index.live_of),
            Arg::from(self.live.max_sessions),
        ];
        let nothing = of_tenant.len();
        let mut of_sessions: BTreeMap<&str, Vec<Arg>> = BTreeMap::new();
        for notice in notices.iter().filter(|notice| notice.last_seq > 0) {
            let moved = [Arg::from(notice.trace.as_str()), Arg::from(notice.last_seq)];
            let status = Arg::from(notice.status.map_or("", Status::as_str));
            for session in &notice.named.sessions {
                let told = of_sessions.entry(session).or_default();
                told.extend(moved.clone());
                told.push(status.clone());
            }
            of_tenant.extend(moved);
            of_tenant.push(if notice.named.aside {
                Arg::from("=")
            } else {
                status
            });
            let (live, details) = notice.named.live(notice);
            of_tenant.extend([Arg::from(live), Arg::from(details)]);
            of_tenant.push(Arg::from(notice.named.labels.len()));
            of_tenant.extend(notice.named.labels.iter().map(Arg::from));
        }
        if of_tenant.len() == nothing {
            return;
        }
        let forward = self.keys.forward(tenant, "").wanted;
        let slots = [
            index.log.as_str(),
            &index.noted,
            &index.traces,
            &index.due,
            &index.sessions,
            &index.live,
            &forward,
        ];
        let noted = self.redis.script(&NOTE, &slots, of_tenant);
        let sessions = futures::future::join_all(of_sessions.into_iter().map(|(name, moved)| {
            let keys = self.keys.session(tenant, &SessionKey::of(name));
            let mut args = vec![
                Arg::from(NOTICES_KEPT),
                Arg::from(self.ttl_seconds()),
                Arg::from(now),
                Arg::from(name),
                Arg::from(TRACES_OF_A_SESSION),
                Arg::from(self.publish()),
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
