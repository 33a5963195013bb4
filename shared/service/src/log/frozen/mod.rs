//! Traces in the archive: written there before retention removes them, read there when the log has none, and brought back.
//!
//! A trace is archived as of its last event, and removed only if that is still its last one. Who dies in between archives it again, which gives the same object. What comes
//! for a trace after it was archived begins a log of its own, and is archived behind what is there.

mod freeze;
mod redact;
mod restore;
mod thaw;

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use tailspan_core::id::{TenantId, TraceId};

pub(super) use self::freeze::Frozen;
pub use self::restore::{NotRestored, Restored};
pub(crate) use self::thaw::Thaws;
use super::{
    Log, LogError,
    read::{TraceState, parse_state},
};
use crate::{
    archive::{Archive, ArchiveError, object_name},
    redis::Reply,
};

/// When the trace began for the tenant's lists, milliseconds since 1970; of the index, and archived with the state.
const LISTED: &str = "listed";
/// Fields of a trace's state that say something of this store and not of the trace.
const NOT_KEPT: [&str; 9] = [
    "fold",
    "redacting",
    "settling",
    "token",
    "kept_until",
    "compacted",
    "restored",
    "armed",
    LISTED,
];
/// The fields that [`parse_state`] reads, in its order.
const FIELDS: [&str; 16] = [
    "seq",
    "mark",
    "at",
    "from",
    "dead",
    "base",
    "settled",
    "settled_seq",
    "run",
    "term",
    "spans",
    "settled_at",
    "fold",
    "life",
    "reopened",
    "compacted",
];

impl From<ArchiveError> for LogError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Unavailable(_) => Self::Unavailable(error.to_string()),
            ArchiveError::TooLarge { .. } => Self::TooLargeToRead,
        }
    }
}

fn state_of(fields: &BTreeMap<String, String>) -> Option<TraceState> {
    let replies = FIELDS.map(|field| match fields.get(field) {
        Some(value) if !NOT_KEPT.contains(&field) => {
            Reply::Bytes(Bytes::copy_from_slice(value.as_bytes()))
        }
        _ => Reply::Bytes(Bytes::new()),
    });
    parse_state(&replies)
}

impl Log {
    /// Removes what is archived of a trace; whoever held it forgets it within a minute.
    ///
    /// # Errors
    /// [`LogError`].
    pub(in crate::log) async fn forget_archived(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<(), LogError> {
        if let Some(archive) = &self.archive {
            archive.remove(&object_name(tenant, trace)).await?;
            self.thaws.forget(tenant, trace);
        }
        Ok(())
    }

    pub(in crate::log) async fn is_archived(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<bool, LogError> {
        let Some(archive) = &self.archive else {
            return Ok(false);
        };
        match archive.get(&object_name(tenant, trace), 0).await {
            Ok(found) => Ok(found.is_some()),
            Err(ArchiveError::TooLarge { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// How the archive is, where there is one.
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_deref()
    }
}

fn failed(what: &str, trace: &TraceId, error: &io::Error) -> LogError {
    // A full disk, and a file that is damaged: neither is a reason to remove the trace.
    let why = format!("failed to {what} trace {trace}: {error}");
    match error.kind() {
        io::ErrorKind::InvalidData => LogError::Internal(why),
        _ => LogError::Unavailable(why),
    }
}
