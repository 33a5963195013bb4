//! An archived trace without what must not be stored: the same chunks under the same numbers.

use std::{collections::HashMap, io};

use tailspan_core::{
    archive::{self, Item},
    id::{TenantId, TraceId},
    redact::Redactor,
};

use super::failed;
use crate::{
    archive::{Lines, Spill, object_name},
    log::{Log, LogError, beside, redact::change},
};

impl Log {
    /// How many events are archived, and how many values were taken out. `None`: nothing is archived of it.
    pub(in crate::log) async fn redact_archived(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        redactor: &Redactor,
    ) -> Result<Option<(u64, u64)>, LogError> {
        let Some(archive) = &self.archive else {
            return Ok(None);
        };
        let name = object_name(tenant, trace);
        let Some(file) = archive.fetch(&name).await? else {
            return Ok(None);
        };
        let failed = |error: io::Error| failed("redact what is archived of", trace, &error);
        let opened =
            beside(move || Ok::<_, io::Error>((Lines::of_file(file, u64::MAX)?, Spill::new()?)));
        let (mut lines, mut spill) = opened.await?.map_err(failed)?;
        let (mut events, mut redacted) = (0, 0);
        let mut identities: HashMap<i64, i64> = HashMap::new();
        loop {
            let (back, item) = beside(move || {
                let item = lines.read_next();
                (lines, item)
            })
            .await?;
            lines = back;
            let text = match item.map_err(failed)? {
                None => break,
                Some(Item::Chunk(mut chunk)) => {
                    events += chunk.events.len() as u64;
                    let (now, more, changed) =
                        change(redactor, tenant, std::mem::take(&mut chunk.events));
                    redacted += more;
                    identities.extend(changed);
                    chunk.events = now;
                    match more {
                        0 => std::mem::take(&mut lines.text),
                        _ => archive::chunk_lines(
                            trace,
                            chunk.span,
                            chunk.arrived_unix_ms,
                            &archive::recorded(&chunk),
                        ),
                    }
                }
                Some(Item::Identities(all)) => {
                    let all = all.into_iter();
                    let all: Vec<i64> = all
                        .map(|identity| identities.get(&identity).copied().unwrap_or(identity))
                        .collect();
                    archive::identity_lines(&all)
                }
                Some(Item::Header(mut header)) => {
                    // Whoever folded it knows by this that it is another one now.
                    let life = header.number("life") + 1;
                    header.state.insert("life".to_owned(), life.to_string());
                    header.line()
                }
                Some(Item::End { .. }) => continue,
            };
            spill = beside(move || spill.write(&text).map(|()| spill))
                .await?
                .map_err(failed)?;
        }
        if redacted == 0 {
            return Ok(Some((events, 0)));
        }
        let spilled = beside(move || {
            spill.write(&archive::end_line(events))?;
            spill.finish()
        });
        let spilled = spilled.await?.map_err(failed)?;
        archive.put(&name, spilled).await?;
        Ok(Some((events, redacted)))
    }
}
