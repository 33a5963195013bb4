//! Feeds: all traces of a session, or of a tenant, followed by their log of notices.
//!
//! A notice says which events of which trace came; the events themselves are read from the trace's own log. So a feed costs nothing while nobody follows it, and its order is
//! that of the notices: every event of a trace once, in the trace's order. A log of notices is capped; a cursor whose notice is gone is told so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailspan_core::{
    feed::{FeedCursor, Happened, SessionNews},
    id::{SessionKey, TenantId, TraceId},
};
use tokio::sync::watch;
use tracing::debug;

use super::{
    Log, LogError,
    follow::{let_go, lock},
};
use crate::redis::{Arg, Reply};

/// A watched log that did not ring is looked at this often.
const UNRUNG_READ: Duration = Duration::from_secs(2);

/// Whose traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Tenant,
    Session(SessionKey),
}

/// An entry of a log of notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    pub ms: u64,
    pub n: u64,
    /// The trace it is about; for the news of a session the one that they came with.
    pub trace: TraceId,
    pub happened: Happened,
    /// The live session that the trace was in when events of it were noted, in a tenant's log.
    pub session: Option<SessionKey>,
}

impl Log {
    fn feed_key(&self, tenant: &TenantId, scope: &Scope) -> String {
        match scope {
            Scope::Tenant => self.keys.tenant(tenant).log,
            Scope::Session(session) => self.keys.session(tenant, session).log,
        }
    }

    /// Notices from that of the cursor on, itself included when it is still there; at most `count`.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn notices(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        from: FeedCursor,
        count: usize,
    ) -> Result<Vec<Noticed>, LogError> {
        let key = self.feed_key(tenant, scope);
        let from = format!("{}-{}", from.ms, from.n);
        let args = [&key, &from, "+", "COUNT"].map(|text| Arg::from(text as &str));
        let mut args = args.to_vec();
        args.push(Arg::from(count));
        let entries = self.redis.command("XRANGE", &key, args).await?.list();
        Ok(entries.into_iter().filter_map(noticed).collect())
    }

    /// The end of a log of notices; the start where it has none.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn last_notice(
        &self,
        tenant: &TenantId,
        scope: &Scope,
    ) -> Result<FeedCursor, LogError> {
        let key = self.feed_key(tenant, scope);
        let args = [&key, "+", "-", "COUNT", "1"].map(|text| Arg::from(text as &str));
        let entries = self
            .redis
            .command("XREVRANGE", &key, args.to_vec())
            .await?
            .list();
        let last = entries.into_iter().next().and_then(noticed);
        Ok(last.map_or(FeedCursor::START, |last| FeedCursor {
            ms: last.ms,
            n: last.n,
            seq: match last.happened {
                Happened::Moved { last, .. } => last,
                Happened::Ended { .. } | Happened::Session { .. } => 0,
            },
        }))
    }

    /// Whether some trace named the session.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn knows_session(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
    ) -> Result<bool, LogError> {
        let key = self.keys.session(tenant, session).session;
        let reply = self
            .redis
            .command("EXISTS", &key, vec![Arg::from(&key)])
            .await?;
        Ok(reply.number() == Some(1))
    }
}

fn noticed(entry: Reply) -> Option<Noticed> {
    let mut entry = entry.list().into_iter();
    let id = entry.next()?.text()?;
    let (ms, n) = id.split_once('-')?;
    let fields: Vec<String> = entry
        .next()?
        .list()
        .iter()
        .filter_map(Reply::text)
        .collect();
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        let pair = pairs.find(|pair| pair.first().is_some_and(|key| key == name))?;
        pair.get(1)
    };
    let session = field("session").and_then(|key| SessionKey::parse(key));
    let happened = match (field("live"), field("ended")) {
        (Some(news), _) => Happened::Session {
            session: session.clone()?,
            name: field("name")?.clone(),
            life: field("life")?.parse().ok()?,
            news: match news.as_str() {
                "started" => SessionNews::Started,
                "complete" => SessionNews::Complete,
                "removed" => SessionNews::Removed {
                    absorbed_by: field("by").cloned(),
                },
                _ => return None,
            },
        },
        (None, Some(status)) => Happened::Ended {
            status: status.clone(),
            last: field("last")?.parse().ok()?,
        },
        (None, None) => Happened::Moved {
            first: field("first")?.parse().ok()?,
            last: field("last")?.parse().ok()?,
        },
    };
    Some(Noticed {
        ms: ms.parse().ok()?,
        n: n.parse().ok()?,
        trace: TraceId::parse(field("trace")?).ok()?,
        happened,
        session,
    })
}

/// Who waits for which log of notices in this process.
#[derive(Default)]
pub(super) struct Bells {
    by_log: Mutex<HashMap<String, Arc<Bell>>>,
}

struct Bell {
    /// Goes up with each ring.
    rung: watch::Sender<u64>,
}

/// A hold on a log of notices; dropping it lets go.
pub struct FeedWatch {
    rung: watch::Receiver<u64>,
}

impl FeedWatch {
    /// Until there may be news: a ring, or two seconds. What rang since the last call counts.
    pub async fn changed(&mut self) {
        let _ = tokio::time::timeout(UNRUNG_READ, self.rung.changed()).await;
    }
}

impl Bells {
    /// A ring on a channel; on all of them where one may have been missed.
    pub(super) fn ring(&self, channel: Option<&str>) {
        let all = lock(&self.by_log);
        let ring = |bell: &Arc<Bell>| bell.rung.send_modify(|rings| *rings += 1);
        match channel {
            Some(channel) => all.get(channel).into_iter().for_each(ring),
            None => all.values().for_each(ring),
        }
    }

    pub(super) fn watch(
        self: &Arc<Self>,
        log: &Log,
        tenant: &TenantId,
        scope: &Scope,
    ) -> FeedWatch {
        let channel = format!("{}:bell", log.feed_key(tenant, scope));
        let mut all = lock(&self.by_log);
        let bell = all.entry(channel.clone()).or_insert_with(|| {
            let bell = Arc::new(Bell {
                rung: watch::Sender::new(0),
            });
            let (bells, log) = (Arc::clone(self), log.clone());
            tokio::spawn(hear(bells, log, channel, Arc::clone(&bell)));
            bell
        });
        FeedWatch {
            rung: bell.rung.subscribe(),
        }
    }
}

/// Keeps a subscription for as long as somebody waits.
async fn hear(bells: Arc<Bells>, log: Log, channel: String, bell: Arc<Bell>) {
    loop {
        match log.redis.subscribe(&channel).await {
            Ok(()) => break,
            // Who waits reads by time meanwhile.
            Err(error) => debug!(channel, %error, "failed to subscribe to notices"),
        }
        tokio::time::sleep(UNRUNG_READ).await;
        if bell.rung.receiver_count() == 0 {
            break;
        }
    }
    // What was noted before the subscription held.
    bell.rung.send_modify(|rings| *rings += 1);
    loop {
        bell.rung.closed().await;
        let mut all = lock(&bells.by_log);
        // Under the lock: who comes now finds either this bell, or none.
        if bell.rung.receiver_count() == 0 {
            all.remove(&channel);
            break;
        }
    }
    let is_watched = || lock(&bells.by_log).contains_key(&channel);
    let_go(&log, &channel, is_watched).await;
}
