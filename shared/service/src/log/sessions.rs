//! A tenant's sessions: which there are, by when they were heard of last.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tailspan_core::{
    id::{SessionKey, TenantId, TraceId},
    listing::Label,
};

use super::{Log, LogError};
use crate::redis::Arg;

/// Sessions asked for at the same time.
const AT_ONCE: usize = 16;

/// A session as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub key: SessionKey,
    /// As its producers call it.
    pub name: String,
    /// Traces that name it and are kept.
    pub traces: u64,
    /// First and last notice, milliseconds since 1970.
    pub first_unix_ms: u64,
    pub last_unix_ms: u64,
}

impl Log {
    /// Sessions by their last notice, newest first, after one that was seen (its last notice and its key); and the last of them when there are more.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn sessions(
        &self,
        tenant: &TenantId,
        after: Option<(u64, &str)>,
        limit: usize,
    ) -> Result<(Vec<Session>, Option<(u64, SessionKey)>), LogError> {
        let index = self.keys.tenant(tenant).sessions;
        let from = after.map_or_else(|| "+inf".to_owned(), |(at, _)| at.to_string());
        let (mut keys, mut offset) = (Vec::new(), 0);
        let step = limit.max(1) + 1;
        while keys.len() <= limit {
            let mut args = [&index, &from, "-inf", "BYSCORE", "REV", "LIMIT"]
                .map(|text| Arg::from(text as &str))
                .to_vec();
            args.extend([Arg::from(offset), Arg::from(step), Arg::from("WITHSCORES")]);
            let found = self.redis.command("ZRANGE", &index, args).await?.list();
            let pairs = found.chunks_exact(2);
            let fetched = pairs.len();
            offset += fetched;
            keys.extend(pairs.filter_map(|pair| {
                let key = SessionKey::parse(&pair.first()?.text()?)?;
                let at = pair.get(1)?.number()?;
                // Sessions of one millisecond stand in reverse order of their keys.
                let seen = after.is_some_and(|(last, known)| at == last && key.as_str() >= known);
                (!seen).then_some((key, at))
            }));
            if fetched < step {
                break;
            }
        }
        let more = keys.len() > limit;
        keys.truncate(limit);
        let last = keys.last().filter(|_| more);
        let last = last.map(|(key, at)| (*at, key.clone()));
        let sessions = stream::iter(keys)
            .map(|(key, at)| async move {
                let session = self.session(tenant, &key).await?;
                Ok::<_, LogError>(session.map(|session| Session {
                    last_unix_ms: at,
                    ..session
                }))
            })
            .buffered(AT_ONCE);
        let sessions: Vec<Option<Session>> = sessions.try_collect().await?;
        Ok((sessions.into_iter().flatten().collect(), last))
    }

    /// Whether the trace names the session.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) async fn is_of_session(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        session: &SessionKey,
    ) -> Result<bool, LogError> {
        let index = self.keys.tenant(tenant).by + Label::session(session).as_str();
        let args = vec![Arg::from(&index), Arg::from(trace.as_str())];
        let at = self.redis.command("ZSCORE", &index, args).await?;
        Ok(at.text().is_some())
    }

    /// One session. `None`: there is none, or nothing is left of it.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn session(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
    ) -> Result<Option<Session>, LogError> {
        let hash = self.keys.session(tenant, key).session;
        let args = [&hash, "name", "from", "at"].map(|text| Arg::from(text as &str));
        let label = Label::session(key);
        let labels = [Some(&label)];
        let (fields, counts) = tokio::try_join!(
            async { Ok(self.redis.command("HMGET", &hash, args.to_vec()).await?) },
            self.count_traces(tenant, &labels, None, None),
        )?;
        let fields = fields.list();
        let number = |at: usize| fields.get(at).and_then(crate::redis::Reply::number);
        let Some(name) = fields.first().and_then(crate::redis::Reply::text) else {
            return Ok(None);
        };
        Ok(Some(Session {
            key: key.clone(),
            name,
            traces: counts.first().copied().unwrap_or_default(),
            first_unix_ms: number(1).unwrap_or_default(),
            last_unix_ms: number(2).unwrap_or_default(),
        }))
    }
}
