//! The work stream: what must happen once when a run ends, whoever is awake.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use tailspan_core::id::{TenantId, TraceId};
use tracing::{error, info, warn};

use super::{Log, LogError};
use crate::redis::{Arg, BlockingConnection, LONGEST_BLOCK, RedisError, Reply};

const GROUP: &str = "workers";
/// A job that was taken and not acknowledged for this long is taken over.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(30);
/// After this many deliveries a job is set aside and counted.
const MOST_DELIVERIES: u64 = 5;
/// Jobs set aside that are kept for a look.
const SET_ASIDE_KEPT: u64 = 1_000;

/// A run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub tenant: TenantId,
    pub trace: TraceId,
    pub run: u64,
    /// The run's last event: with the trace and the kind of effect, the key under which an effect happens once.
    pub through: u64,
    pub status: String,
}

#[derive(Serialize, Deserialize)]
struct JobText {
    tenant: String,
    trace: String,
    run: u64,
    through: u64,
    status: String,
}

/// A job in hand: to be acknowledged when it is done.
#[derive(Clone, Debug)]
pub struct Taken {
    pub entry: String,
    pub job: Job,
}

/// The work stream and its group, over all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounts {
    /// Jobs in the stream: those that wait, and those in hand.
    pub length: u64,
    /// Jobs taken and not acknowledged.
    pub pending: u64,
    pub set_aside: u64,
    /// Members of the group, also those that left in the last hour.
    pub consumers: u64,
}

/// One member of the worker group.
pub struct Worker {
    log: Log,
    connection: BlockingConnection,
    consumer: String,
}

impl Log {
    pub(super) async fn add_job(&self, job: &Job) -> Result<(), LogError> {
        let text = serde_json::to_string(&JobText {
            tenant: job.tenant.to_string(),
            trace: job.trace.to_string(),
            run: job.run,
            through: job.through,
            status: job.status.clone(),
        })
        .map_err(|error| LogError::Internal(error.to_string()))?;
        let work = self.keys.work();
        let args = vec![
            Arg::from(&work),
            Arg::from("*"),
            Arg::from("job"),
            Arg::from(text),
        ];
        self.redis.command("XADD", &work, args).await?;
        Ok(())
    }

    /// Joins the worker group under a name of its own.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn worker(&self, consumer: &str) -> Result<Worker, LogError> {
        Ok(Worker {
            connection: self.redis.blocking_connection().await?,
            log: self.clone(),
            consumer: consumer.to_owned(),
        })
    }

    /// How much work there is, and who is there to do it.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn work_counts(&self) -> Result<WorkCounts, LogError> {
        let (work, aside) = (self.keys.work(), self.keys.set_aside());
        let length = async |stream: &String| {
            let reply = self.redis.command("XLEN", stream, vec![stream.into()]);
            Ok::<_, LogError>(reply.await?.number().unwrap_or_default())
        };
        let mut counts = WorkCounts {
            length: length(&work).await?,
            set_aside: length(&aside).await?,
            ..WorkCounts::default()
        };
        let args = ["GROUPS", &work].map(Arg::from).to_vec();
        let groups = match self.redis.command("XINFO", &work, args).await {
            Ok(reply) => reply.list(),
            // No job was ever added.
            Err(RedisError::Refused(text)) if text.contains("no such key") => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut groups = groups.into_iter().map(Reply::list);
        let is_ours = |group: &Vec<Reply>| {
            field(group, "name").and_then(|name| name.text()).as_deref() == Some(GROUP)
        };
        if let Some(group) = groups.find(is_ours) {
            let number = |name| field(&group, name).and_then(|number| number.number());
            counts.pending = number("pending").unwrap_or_default();
            counts.consumers = number("consumers").unwrap_or_default();
        }
        Ok(counts)
    }
}

impl Worker {
    /// New jobs, waiting for them up to `block` (at most 2 s). Makes the group where it is missing, also after a `DEL` of the stream.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn next(&self, block: Duration) -> Result<Vec<Taken>, LogError> {
        let work = self.log.keys.work();
        let block_ms = block.min(LONGEST_BLOCK).as_millis().max(1).to_string();
        let args = [
            "GROUP",
            GROUP,
            &self.consumer,
            "COUNT",
            "16",
            "BLOCK",
            &block_ms,
            "STREAMS",
            &work,
            ">",
        ];
        let args = args.map(Arg::from).to_vec();
        let read = || self.connection.command("XREADGROUP", &work, args.clone());
        let reply = match read().await {
            Err(error) if error.is_no_group() => {
                self.log.make_group().await?;
                read().await?
            }
            reply => reply?,
        };
        Ok(self.log.parse_jobs(streams(reply)).await)
    }

    /// Jobs that others took and left: their takers died. Those that failed too often are set aside.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn take_over(&self) -> Result<Vec<Taken>, LogError> {
        let log = &self.log;
        let work = log.keys.work();
        let idle_ms = TAKE_OVER_AFTER.as_millis().to_string();
        let args =
            [&work, GROUP, "IDLE", &idle_ms, "-", "+", "16"].map(|text| Arg::from(text as &str));
        let pending = match log.redis.command("XPENDING", &work, args.to_vec()).await {
            Err(error) if error.is_no_group() => return Ok(Vec::new()),
            reply => reply?.list(),
        };
        let mut taken = Vec::new();
        for entry in pending {
            let entry = entry.list();
            let (Some(id), Some(deliveries)) = (
                entry.first().and_then(Reply::text),
                entry.get(3).and_then(Reply::number),
            ) else {
                continue;
            };
            let claim =
                [&work, GROUP, &self.consumer, &idle_ms, &id].map(|text| Arg::from(text as &str));
            let claimed = log
                .redis
                .command("XCLAIM", &work, claim.to_vec())
                .await?
                .list();
            if claimed.is_empty() {
                // Somebody else was quicker, or the entry is gone from the stream.
                continue;
            }
            if deliveries >= MOST_DELIVERIES {
                error!(
                    entry = id,
                    deliveries, "set a job aside: it failed each time"
                );
                log.set_aside(&id, claimed).await?;
                continue;
            }
            taken.extend(log.parse_jobs(claimed).await);
        }
        self.reap().await?;
        Ok(taken)
    }

    /// Done: the job goes from the group and from the stream.
    ///
    /// # Errors
    /// [`LogError`]; the job comes again, and does nothing twice.
    pub async fn done(&self, taken: &Taken) -> Result<(), LogError> {
        self.log.finish_job(&taken.entry).await
    }

    /// Removes members that have nothing in hand and were not heard of for an hour. A member with something in hand is left:
    /// deleting it would throw that away.
    async fn reap(&self) -> Result<(), LogError> {
        const SILENT_MS: u64 = 3_600_000;
        let log = &self.log;
        let work = log.keys.work();
        let members = log
            .redis
            .command(
                "XINFO",
                &work,
                ["CONSUMERS", &work, GROUP].map(Arg::from).to_vec(),
            )
            .await?;
        for member in members.list() {
            let fields = member.list();
            let field = |name| field(&fields, name);
            let idle = field("idle")
                .and_then(|idle| idle.number())
                .unwrap_or_default();
            let pending = field("pending").and_then(|pending| pending.number());
            if let (Some(name), Some(0), true) = (
                field("name").and_then(|name| name.text()),
                pending,
                idle > SILENT_MS,
            ) {
                let args = ["DELCONSUMER", &work, GROUP, &name].map(Arg::from).to_vec();
                log.redis.command("XGROUP", &work, args).await?;
            }
        }
        Ok(())
    }
}

impl Log {
    async fn make_group(&self) -> Result<(), LogError> {
        let work = self.keys.work();
        info!(stream = work, "making the worker group");
        let args = ["CREATE", &work, GROUP, "0", "MKSTREAM"]
            .map(Arg::from)
            .to_vec();
        match self.redis.command("XGROUP", &work, args).await {
            Err(error) if error.is_busy_group() => Ok(()),
            reply => Ok(reply.map(drop)?),
        }
    }

    async fn finish_job(&self, entry: &str) -> Result<(), LogError> {
        let work = self.keys.work();
        self.redis
            .command(
                "XACK",
                &work,
                [&work, GROUP, entry]
                    .map(|text| Arg::from(text as &str))
                    .to_vec(),
            )
            .await?;
        self.redis
            .command(
                "XDEL",
                &work,
                [work.as_str(), entry].map(Arg::from).to_vec(),
            )
            .await?;
        Ok(())
    }

    async fn set_aside(&self, entry: &str, claimed: Vec<Reply>) -> Result<(), LogError> {
        let aside = self.keys.set_aside();
        for (_, text) in claimed.into_iter().filter_map(job_text) {
            let kept = SET_ASIDE_KEPT.to_string();
            let args = [&aside, "MAXLEN", "~", &kept, "*", "job", &text]
                .map(|text| Arg::from(text as &str));
            self.redis.command("XADD", &aside, args.to_vec()).await?;
        }
        self.metrics.set_aside.inc();
        self.finish_job(entry).await
    }

    /// Jobs of stream entries; an entry that is none is set aside at once.
    async fn parse_jobs(&self, entries: Vec<Reply>) -> Vec<Taken> {
        let mut jobs = Vec::new();
        for entry in entries {
            let Some((id, text)) = job_text(entry.clone()) else {
                continue;
            };
            match parse_job(&text) {
                Some(job) => jobs.push(Taken { entry: id, job }),
                None => {
                    error!(
                        entry = id,
                        "set an entry of the work stream aside: it is no job"
                    );
                    if let Err(error) = self.set_aside(&id, vec![entry]).await {
                        warn!(entry = id, %error, "failed to set an entry aside");
                    }
                }
            }
        }
        jobs
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
fn streams(reply: Reply) -> Vec<Reply> {
    let mut parts = reply.list();
    // RESP2: [[name, entries]]; RESP3, flattened: [name, entries].
    if let Some(Reply::List(_)) = parts.first() {
        parts = parts.swap_remove(0).list();
    }
    parts.pop().map(Reply::list).unwrap_or_default()
}

/// Id and text of an entry `[id, ["job", text]]`.
fn job_text(entry: Reply) -> Option<(String, String)> {
    let entry = entry.list();
    let id = entry.first()?.text()?;
    let fields = entry.get(1)?.clone().list();
    let text = fields.get(1).and_then(Reply::text).unwrap_or_default();
    Some((id, text))
}

fn parse_job(text: &str) -> Option<Job> {
    let text: JobText = serde_json::from_str(text).ok()?;
    Some(Job {
        tenant: TenantId::parse(&text.tenant).ok()?,
        trace: TraceId::parse(&text.trace).ok()?,
        run: text.run,
        through: text.through,
        status: text.status,
    })
}
