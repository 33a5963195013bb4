//! Into the archive: a trace as of its last event, behind what was archived of it before.

use std::{collections::BTreeMap, io};

use tailspan_core::{
    archive::{self, Header, Item, Part},
    continuity::ChunkSpan,
    cursor::Cursor,
    id::{TenantId, TraceId},
};

use super::{LISTED, NOT_KEPT, failed};
use crate::{
    archive::{Archive, Lines, Spill, object_name},
    log::{
        Log, LogError, beside,
        read::{PageSize, ReadFrom},
    },
    redis::{Arg, Reply},
};

/// Identities asked for in one command.
const IDENTITIES_AT_ONCE: usize = 4096;

/// What was archived of a trace: it may be removed for as long as it stands so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct Frozen {
    pub(in crate::log) seq: u64,
    /// Of its last chunk.
    pub(in crate::log) mark: String,
    /// Changes also when it is redacted.
    pub(in crate::log) life: String,
}

// Writing.

impl Log {
    /// Writes a trace to the archive. `None`: there is none to write.
    ///
    /// # Errors
    /// [`LogError`]; what was archived before is as it was.
    pub(in crate::log) async fn freeze(
        &self,
        archive: &Archive,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<Frozen>, LogError> {
        let Some(mut state) = self.fields(tenant, trace).await? else {
            return Ok(None);
        };
        let number = |state: &BTreeMap<String, String>, field: &str| {
            let value = state.get(field).and_then(|value| value.parse::<u64>().ok());
            value.unwrap_or_default()
        };
        let (seq, base) = (number(&state, "seq"), number(&state, "base"));
        let frozen = Frozen {
            seq,
            mark: state.get("mark").cloned().unwrap_or_default(),
            life: state.get("life").cloned().unwrap_or_default(),
        };
        if state.contains_key("dead") || seq == base {
            return Ok(None);
        }
        let from_unix_ms = number(&state, "from");
        let traces = self.keys.tenant(tenant).traces;
        let args = vec![Arg::from(&traces), Arg::from(trace.as_str())];
        let listed = self.redis.command("ZSCORE", &traces, args).await?;
        if let Some(listed) = listed.number() {
            state.insert(LISTED.to_owned(), listed.to_string());
        }
        let name = object_name(tenant, trace);
        let before = match archive.fetch(&name).await? {
            None => None,
            Some(file) => {
                let opened = beside(move || Before::open(file, from_unix_ms)).await?;
                opened.map_err(|error| failed("read what is archived of", trace, &error))?
            }
        };
        // Events of now stand behind those that were archived before.
        let (shift, previous, mut parts) = match &before {
            Some(before) => (before.through, before.mark, before.parts.clone()),
            None => (base, 0, Vec::new()),
        };
        let moved = |seq: u64| seq - base + shift;
        parts.push(Part {
            from_unix_ms,
            through: moved(seq),
        });
        if let Some(before) = &before {
            before.join(&mut state, moved(seq));
        }
        let header = Header::new(tenant, trace, state, parts);
        let spill = beside(move || {
            let mut spill = Spill::new()?;
            spill.write(&header.line())?;
            let events = match before {
                Some(before) => before.copy(&mut spill)?,
                None => 0,
            };
            Ok::<_, io::Error>((spill, events))
        });
        let failed = |error: io::Error| failed("write", trace, &error);
        let (mut spill, mut events) = spill.await?.map_err(failed)?;
        let mut after = Cursor {
            seq: base,
            mark: None,
        };
        let mut first_identities = None;
        while after.seq < seq {
            let from = ReadFrom::After(after);
            let page = self.page(tenant, trace, from, PageSize::LARGE).await?;
            let Some(last) = page.chunks.last() else {
                break;
            };
            after = last.span.end();
            let mut read = Vec::new();
            for chunk in page.chunks {
                if chunk.span.first > seq {
                    break;
                }
                if first_identities.is_none() {
                    first_identities = Some(chunk.identities.clone().unwrap_or_default());
                }
                let recorded = self.recorded(tenant, trace, &chunk).await?;
                events += recorded.len() as u64;
                let is_first = chunk.span.first == base + 1;
                let span = ChunkSpan {
                    first: moved(chunk.span.first),
                    last: moved(chunk.span.last),
                    mark: chunk.span.mark,
                    previous: match is_first && shift != base {
                        true => previous,
                        false => chunk.span.previous,
                    },
                };
                read.push((span, chunk.arrived_unix_ms, recorded));
            }
            let of = trace.clone();
            spill = beside(move || {
                for (span, arrived_unix_ms, recorded) in read {
                    let text = archive::chunk_lines(&of, span, arrived_unix_ms, &recorded);
                    spill.write(&text)?;
                }
                Ok(spill)
            })
            .await?
            .map_err(failed)?;
        }
        let of_first = String::from_utf8_lossy(&first_identities.unwrap_or_default())
            .split_ascii_whitespace()
            .filter_map(|identity| identity.parse().ok())
            .collect::<Vec<i64>>();
        spill
            .write(&archive::identity_lines(&of_first))
            .map_err(failed)?;
        spill = self.spill_identities(tenant, trace, spill).await?;
        let spilled = beside(move || {
            spill.write(&archive::end_line(events))?;
            spill.finish()
        });
        let spilled = spilled.await?.map_err(failed)?;
        archive.put(&name, spilled).await?;
        self.thaws.forget(tenant, trace);
        self.metrics.archived_traces.inc();
        Ok(Some(frozen))
    }

    /// A trace's state, field by field. `None`: there is no such trace.
    async fn fields(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<BTreeMap<String, String>>, LogError> {
        let key = self.keys.trace(tenant, trace).trace;
        let args = vec![Arg::from(&key)];
        let reply = self.redis.command("HGETALL", &key, args).await?.list();
        let pairs = reply.chunks_exact(2).filter_map(|pair| {
            let [field, value] = pair else { return None };
            Some((field.text()?, value.text()?))
        });
        let fields: BTreeMap<String, String> = pairs
            .filter(|(field, _)| !NOT_KEPT.contains(&field.as_str()))
            .collect();
        Ok(fields.contains_key("seq").then_some(fields))
    }

    async fn spill_identities(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        mut spill: Spill,
    ) -> Result<Spill, LogError> {
        let key = self.keys.trace(tenant, trace).seen;
        let mut cursor = "0".to_owned();
        loop {
            let args = vec![
                Arg::from(&key),
                Arg::from(&cursor),
                Arg::from("COUNT"),
                Arg::from(IDENTITIES_AT_ONCE),
            ];
            let reply = self.redis.command("SSCAN", &key, args).await?.list();
            let mut reply = reply.into_iter();
            let (Some(next), Some(Reply::List(some))) =
                (reply.next().and_then(|next| next.text()), reply.next())
            else {
                return Err(LogError::Unavailable("an empty answer".to_owned()));
            };
            let some = some.iter().filter_map(|identity| identity.text());
            let some: Vec<i64> = some.filter_map(|text| text.parse().ok()).collect();
            let text = archive::identity_lines(&some);
            spill
                .write(&text)
                .map_err(|error| failed("write", trace, &error))?;
            if next == "0" {
                return Ok(spill);
            }
            cursor = next;
        }
    }
}

/// What is archived of a trace whose log began anew since.
struct Before {
    lines: Lines<std::fs::File>,
    state: BTreeMap<String, String>,
    parts: Vec<Part>,
    /// The last event that stays, and its chunk's mark.
    through: u64,
    mark: u32,
}

impl Before {
    /// `None`: what is there is of the same log, and is written anew.
    fn open(file: std::fs::File, from_unix_ms: u64) -> io::Result<Option<Self>> {
        let mut looking = Lines::of_file(file.try_clone()?, u64::MAX)?;
        let Some(Item::Header(header)) = looking.read_next()? else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        let mut parts = header.parts.clone();
        if let Some(same) = parts
            .iter()
            .position(|part| part.from_unix_ms == from_unix_ms)
        {
            parts.truncate(same);
        }
        let Some(last) = parts.last().copied() else {
            return Ok(None);
        };
        let mut mark = 0;
        while let Some(item) = looking.read_next()? {
            if let Item::Chunk(chunk) = item
                && chunk.span.last <= last.through
            {
                mark = chunk.span.mark;
            }
        }
        let mut lines = Lines::of_file(file, u64::MAX)?;
        lines.read_next()?;
        Ok(Some(Self {
            lines,
            state: header.state,
            parts,
            through: last.through,
            mark,
        }))
    }

    /// Makes of the state of the later log that of both.
    fn join(&self, state: &mut BTreeMap<String, String>, last: u64) {
        let number = |state: &BTreeMap<String, String>, field: &str| {
            let value = state.get(field).and_then(|value| value.parse::<u64>().ok());
            value.unwrap_or_default()
        };
        let base = number(state, "base");
        if let Some(settled) = state.get_mut("settled_seq") {
            let seq = settled.parse::<u64>().unwrap_or_default();
            *settled = (seq.saturating_sub(base) + self.through).to_string();
        }
        state.insert("seq".to_owned(), last.to_string());
        for field in ["spans", "run"] {
            let sum = number(state, field) + number(&self.state, field);
            state.insert(field.to_owned(), sum.to_string());
        }
        for field in ["base", "life", "from", LISTED] {
            match self.state.get(field) {
                Some(value) => state.insert(field.to_owned(), value.clone()),
                None => state.remove(field),
            };
        }
        if let Some(level) = self.state.get("level")
            && state.get("level").is_none_or(|later| later > level)
        {
            state.insert("level".to_owned(), level.clone());
        }
    }

    /// Writes what stays. Returns how many events that is.
    fn copy(mut self, spill: &mut Spill) -> io::Result<u64> {
        let mut events = 0;
        while let Some(item) = self.lines.read_next()? {
            let stays = match item {
                Item::Chunk(chunk) if chunk.span.last <= self.through => {
                    events += chunk.events.len() as u64;
                    true
                }
                Item::Identities(_) => true,
                _ => false,
            };
            if stays {
                spill.write(&self.lines.text)?;
            }
        }
        Ok(events)
    }
}
