//! A consumer group on a stream: entries that several processes share, each entry for one of them.
//!
//! What a member read and did not acknowledge is pending; when the member died it is taken over by another. Who works on the entries must do so in a way that twice is once.

use std::time::Duration;

use bytes::Bytes;
use tracing::info;

use crate::redis::{Arg, BlockingConnection, LONGEST_BLOCK, Redis, RedisError, Reply, Script};

static REAP: Script = Script::new(include_str!("lua/reap.lua"));

/// Entries that are taken over in one go.
const TAKEN_OVER_AT_ONCE: &str = "64";

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) fields: Vec<(Bytes, Bytes)>,
}

/// What was taken over from members that fell silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// Each with the number of times it had been delivered before.
    pub(crate) entries: Vec<(Entry, u64)>,
    /// Entries that were pending and are gone from the stream; they are acknowledged.
    pub(crate) gone: u64,
}

/// A group, over all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Read and not acknowledged.
    pub(crate) pending: u64,
    pub(crate) consumers: u64,
    /// Not read yet; `None` where Redis cannot tell (before 7.0, or after entries were deleted).
    pub(crate) lag: Option<u64>,
}

#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) redis: Redis,
    pub(crate) stream: String,
    pub(crate) name: String,
}

impl Group {
    /// New entries, waiting for them up to `block` (at most 2 s). Makes the group where it is missing, also after a `DEL` of the stream, from the stream's beginning.
    pub(crate) async fn read(
        &self,
        connection: &BlockingConnection,
        consumer: &str,
        count: &str,
        block: Duration,
    ) -> Result<Vec<Entry>, RedisError> {
        let block_ms = block.min(LONGEST_BLOCK).as_millis().max(1).to_string();
        let args = [
            "GROUP",
            &self.name,
            consumer,
            "COUNT",
            count,
            "BLOCK",
            &block_ms,
            "STREAMS",
            &self.stream,
            ">",
        ];
        let args = args.map(Arg::from).to_vec();
        let read = || connection.command("XREADGROUP", &self.stream, args.clone());
        let reply = match read().await {
            Err(error) if error.is_no_group() => {
                self.make().await?;
                read().await?
            }
            reply => reply?,
        };
        Ok(entries(of_one_stream(reply)))
    }

    /// Takes what has been pending for longer than `idle`, whoever has it, or this member only.
    pub(crate) async fn take_over(
        &self,
        consumer: &str,
        idle: Duration,
        from: Option<&str>,
    ) -> Result<TakenOver, RedisError> {
        let idle_ms = idle.as_millis().to_string();
        let args = [&self.stream, &self.name, "IDLE", &idle_ms, "-", "+"];
        let mut args = args.map(|text| Arg::from(text as &str)).to_vec();
        args.push(Arg::from(TAKEN_OVER_AT_ONCE));
        args.extend(from.map(Arg::from));
        let pending = match self.redis.command("XPENDING", &self.stream, args).await {
            Err(error) if error.is_no_group() => return Ok(TakenOver::default()),
            reply => reply?.list(),
        };
        // [id, consumer, idle, deliveries]
        let pending: Vec<(String, u64)> = pending
            .into_iter()
            .filter_map(|entry| {
                let entry = entry.list();
                Some((entry.first()?.text()?, entry.get(3)?.number()?))
            })
            .collect();
        if pending.is_empty() {
            return Ok(TakenOver::default());
        }
        let head = [&self.stream, &self.name, consumer, &idle_ms];
        let mut args = head.map(|text| Arg::from(text as &str)).to_vec();
        args.extend(pending.iter().map(|(id, _)| Arg::from(id)));
        let claimed = self.redis.command("XCLAIM", &self.stream, args).await?;
        let mut taken = TakenOver::default();
        let mut claimed = entries(claimed.list()).into_iter().peekable();
        for (id, deliveries) in pending {
            match claimed.next_if(|entry| entry.id == id) {
                Some(entry) => taken.entries.push((entry, deliveries)),
                // Somebody else was quicker, or it was trimmed away; Redis before 7.0 keeps what is gone pending.
                None if self.is_gone(&id).await? => {
                    taken.gone += 1;
                    self.acknowledge(&[id]).await?;
                }
                None => {}
            }
        }
        Ok(taken)
    }

    async fn is_gone(&self, id: &str) -> Result<bool, RedisError> {
        let args = [&self.stream, id, id].map(Arg::from).to_vec();
        let found = self.redis.command("XRANGE", &self.stream, args).await?;
        Ok(found.list().is_empty())
    }

    /// Says that an entry is being worked on: its time begins anew, and it does not count as given once more.
    pub(crate) async fn hold(&self, consumer: &str, id: &str) -> Result<(), RedisError> {
        let args = [&self.stream, &self.name, consumer, "0", id, "JUSTID"];
        let args = args.map(|text| Arg::from(text as &str)).to_vec();
        self.redis.command("XCLAIM", &self.stream, args).await?;
        Ok(())
    }

    /// Done with these.
    pub(crate) async fn acknowledge(&self, ids: &[String]) -> Result<(), RedisError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut args = vec![Arg::from(&self.stream), Arg::from(&self.name)];
        args.extend(ids.iter().map(Arg::from));
        self.redis.command("XACK", &self.stream, args).await?;
        Ok(())
    }

    /// Removes members that have nothing in hand and were silent for so long. One that only slept joins again by its next read.
    pub(crate) async fn reap(&self, silent: Duration) -> Result<(), RedisError> {
        self.remove("", &silent.as_millis().to_string()).await
    }

    /// Leaves the group, unless something is in hand: that is for others to take over.
    pub(crate) async fn leave(&self, consumer: &str) -> Result<(), RedisError> {
        self.remove(consumer, "0").await
    }

    async fn remove(&self, member: &str, silent_ms: &str) -> Result<(), RedisError> {
        let args = [&self.name, member, silent_ms].map(|text| Arg::from(text as &str));
        let keys = [self.stream.as_str()];
        self.redis.script(&REAP, &keys, args.to_vec()).await?;
        Ok(())
    }

    /// How the group stands; all 0 where it was never made.
    pub(crate) async fn counts(&self) -> Result<Counts, RedisError> {
        let Some(fields) = self.info().await? else {
            return Ok(Counts::default());
        };
        let number = |name| field(&fields, name).and_then(|number| number.number());
        Ok(Counts {
            pending: number("pending").unwrap_or_default(),
            consumers: number("consumers").unwrap_or_default(),
            lag: number("lag"),
        })
    }

    /// How often an entry was given to a member; 0 when it is not pending.
    pub(crate) async fn deliveries(&self, id: &str) -> Result<u64, RedisError> {
        let entry = self.pending(id, id).await?;
        Ok(entry.get(3).and_then(Reply::number).unwrap_or_default())
    }

    /// Removes what is older than this and done with: neither pending nor unread. Returns how many entries that were.
    pub(crate) async fn trim(&self, before_unix_ms: u64) -> Result<u64, RedisError> {
        let Some(fields) = self.info().await? else {
            return Ok(0);
        };
        let milliseconds = |id: Option<String>| -> Option<u64> {
            let id = id?;
            id.split('-').next()?.parse().ok()
        };
        let last_read = field(&fields, "last-delivered-id").and_then(|id| id.text());
        let first_pending = self.pending("-", "+").await?;
        let first_pending = first_pending.first().and_then(Reply::text);
        let done = milliseconds(first_pending).or(milliseconds(last_read));
        let before = done.unwrap_or(0).min(before_unix_ms).to_string();
        let args = [&self.stream, "MINID", "=", &before]
            .map(Arg::from)
            .to_vec();
        let removed = self.redis.command("XTRIM", &self.stream, args).await?;
        Ok(removed.number().unwrap_or_default())
    }

    /// The first pending entry between two ids, as `[id, member, idle, deliveries]`; empty when there is none.
    async fn pending(&self, from: &str, to: &str) -> Result<Vec<Reply>, RedisError> {
        let args = [&self.stream, &self.name, from, to, "1"];
        let args = args.map(Arg::from).to_vec();
        let pending = self.redis.command("XPENDING", &self.stream, args).await?;
        let first = pending.list().into_iter().next();
        Ok(first.map(Reply::list).unwrap_or_default())
    }

    async fn info(&self) -> Result<Option<Vec<Reply>>, RedisError> {
        let args = ["GROUPS", &self.stream].map(Arg::from).to_vec();
        let groups = match self.redis.command("XINFO", &self.stream, args).await {
            Ok(reply) => reply.list(),
            // Nothing was ever added.
            Err(RedisError::Refused(text)) if text.contains("no such key") => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut groups = groups.into_iter().map(Reply::list);
        Ok(groups.find(|group| {
            let name = field(group, "name").and_then(|name| name.text());
            name.as_ref() == Some(&self.name)
        }))
    }

    async fn make(&self) -> Result<(), RedisError> {
        info!(
            stream = self.stream,
            group = self.name,
            "making a consumer group"
        );
        let args = ["CREATE", &self.stream, &self.name, "0", "MKSTREAM"]
            .map(Arg::from)
            .to_vec();
        match self.redis.command("XGROUP", &self.stream, args).await {
            Err(error) if error.is_busy_group() => Ok(()),
            reply => reply.map(drop),
        }
    }
}

/// A field of an `XINFO` answer, which is a list of names and values.
fn field(fields: &[Reply], name: &str) -> Option<Reply> {
    let mut pairs = fields.chunks_exact(2);
    pairs
        .find(|pair| pair.first().and_then(Reply::text).as_deref() == Some(name))
        .and_then(|pair| pair.get(1).cloned())
}

/// The entries of an `XREADGROUP` answer over one stream.
fn of_one_stream(reply: Reply) -> Vec<Reply> {
    let mut parts = reply.list();
    // RESP2: [[name, entries]]; RESP3, flattened: [name, entries].
    if let Some(Reply::List(_)) = parts.first() {
        parts = parts.swap_remove(0).list();
    }
    parts.pop().map(Reply::list).unwrap_or_default()
}

/// Entries `[id, [name, value, ...]]`; Redis before 7.0 gives none for what is gone from the stream.
fn entries(replies: Vec<Reply>) -> Vec<Entry> {
    let entry = |reply: Reply| {
        let entry = reply.list();
        let fields = entry.get(1)?.clone().list();
        let pairs = fields.chunks_exact(2);
        Some(Entry {
            id: entry.first()?.text()?,
            fields: pairs
                .filter_map(|pair| Some((pair.first()?.bytes()?, pair.get(1)?.bytes()?)))
                .collect(),
        })
    };
    replies.into_iter().filter_map(entry).collect()
}
