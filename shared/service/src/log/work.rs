//! The work stream: what must happen once when a run ends, whoever is awake.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use tailspan_core::id::{TenantId, TraceId};
use tracing::{error, warn};

use super::{Log, LogError};
use crate::{
    group::{Entry, Group},
    redis::{Arg, BlockingConnection},
};

const GROUP: &str = "workers";
/// A job that was taken and not acknowledged for this long is taken over.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(30);
/// After this many deliveries a job is set aside and counted.
const MOST_DELIVERIES: u64 = 5;
/// Members that have nothing in hand and were not heard of for this long are removed.
const SILENT: Duration = Duration::from_secs(3_600);
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
    group: Group,
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
            group: self.work_group(),
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
        let group = self.work_group().counts().await?;
        Ok(WorkCounts {
            length: length(&work).await?,
            set_aside: length(&aside).await?,
            pending: group.pending,
            consumers: group.consumers,
        })
    }

    fn work_group(&self) -> Group {
        Group {
            redis: self.redis.clone(),
            stream: self.keys.work(),
            name: GROUP.to_owned(),
        }
    }
}

impl Worker {
    /// New jobs, waiting for them up to `block` (at most 2 s). Makes the group where it is missing, also after a `DEL` of the stream.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn next(&self, block: Duration) -> Result<Vec<Taken>, LogError> {
        let (group, consumer) = (&self.group, &self.consumer);
        let entries = group.read(&self.connection, consumer, "16", block).await?;
        Ok(self.jobs(entries).await)
    }

    /// Jobs that others took and left: their takers died. Those that failed too often are set aside.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn take_over(&self) -> Result<Vec<Taken>, LogError> {
        let taken = self.group.take_over(&self.consumer, TAKE_OVER_AFTER, None);
        let mut entries = Vec::new();
        for (entry, deliveries) in taken.await?.entries {
            if deliveries >= MOST_DELIVERIES {
                let id = &entry.id;
                error!(
                    entry = id,
                    deliveries, "set a job aside: it failed each time"
                );
                self.set_aside(&entry).await?;
            } else {
                entries.push(entry);
            }
        }
        self.group.reap(SILENT).await?;
        Ok(self.jobs(entries).await)
    }

    /// Done: the job goes from the group and from the stream.
    ///
    /// # Errors
    /// [`LogError`]; the job comes again, and does nothing twice.
    pub async fn done(&self, taken: &Taken) -> Result<(), LogError> {
        self.finish(&taken.entry).await
    }

    /// Keeps a job in hand that takes long: nobody takes it over for another while. To be called every ten seconds or so.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn hold(&self, taken: &Taken) -> Result<(), LogError> {
        self.group.hold(&self.consumer, &taken.entry).await?;
        Ok(())
    }

    async fn finish(&self, entry: &str) -> Result<(), LogError> {
        self.group.acknowledge(&[entry.to_owned()]).await?;
        let (redis, work) = (&self.log.redis, &self.group.stream);
        let args = [work.as_str(), entry].map(Arg::from).to_vec();
        redis.command("XDEL", work, args).await?;
        Ok(())
    }

    async fn set_aside(&self, entry: &Entry) -> Result<(), LogError> {
        let aside = self.log.keys.set_aside();
        let kept = SET_ASIDE_KEPT.to_string();
        let mut args = [&aside, "MAXLEN", "~", &kept, "*"].map(Arg::from).to_vec();
        for (name, value) in &entry.fields {
            args.extend([Arg::from(name.clone()), Arg::from(value.clone())]);
        }
        self.log.redis.command("XADD", &aside, args).await?;
        self.log.metrics.set_aside.inc();
        self.finish(&entry.id).await
    }

    /// Jobs of stream entries; an entry that is none is set aside at once.
    async fn jobs(&self, entries: Vec<Entry>) -> Vec<Taken> {
        let mut jobs = Vec::new();
        for entry in entries {
            if let Some(job) = parse_job(&entry) {
                jobs.push(Taken {
                    entry: entry.id,
                    job,
                });
                continue;
            }
            let id = &entry.id;
            error!(
                entry = id,
                "set an entry of the work stream aside: it is no job"
            );
            if let Err(error) = self.set_aside(&entry).await {
                warn!(entry = id, %error, "failed to set an entry aside");
            }
        }
        jobs
    }
}

fn parse_job(entry: &Entry) -> Option<Job> {
    let (_, text) = entry.fields.first()?;
    let text: JobText = serde_json::from_slice(text).ok()?;
    Some(Job {
        tenant: TenantId::parse(&text.tenant).ok()?,
        trace: TraceId::parse(&text.trace).ok()?,
        run: text.run,
        through: text.through,
        status: text.status,
    })
}
