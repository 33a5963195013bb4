//! Every key and channel in Redis, by meaning. Braces are the cluster hash tag: all of one trace lies in one slot, all of one tenant's
//! indexes in another. Only validated ids enter a key, so no two of them can make the same one: a tenant has no `/`, a session's
//! key no `/` or brace, and what follows the tag is ours.

use tailspan_core::id::{SessionKey, TenantId, TraceId};

#[derive(Clone, Debug, Default)]
pub struct Keys {
    prefix: String,
}

/// The keys of one trace, one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceKeys {
    /// Stream: one entry per chunk.
    pub events: String,
    /// Hash: counted state, tombstone, settlement.
    pub trace: String,
    /// Set: identities of what was stored.
    pub seen: String,
    /// Hash: pieces of long strings.
    pub blobs: String,
    /// String: snapshot of the folded state.
    pub fold: String,
    /// Channel: its last seq, when something was appended.
    pub bell: String,
}

/// The keys of one tenant, one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantKeys {
    /// Sorted set: traces by start, ms.
    pub traces: String,
    /// Sorted set: when to look at a trace again, ms.
    pub due: String,
    /// Hash: what a list shows of an ended run.
    pub rows: String,
    /// Stream: notices of every trace, capped.
    pub log: String,
    /// Hash: up to which seq each trace was noted.
    pub noted: String,
}

/// The keys of one session, one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKeys {
    /// Hash: its name, its traces and what was noted of each.
    pub session: String,
    /// Stream: its notices, capped.
    pub log: String,
}

impl Keys {
    /// `prefix` comes from the configuration, which checks its alphabet.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub fn trace(&self, tenant: &TenantId, trace: &TraceId) -> TraceKeys {
        let tag = format!("{}{{{tenant}/{trace}}}", self.prefix);
        TraceKeys {
            events: format!("{tag}:events"),
            trace: format!("{tag}:trace"),
            seen: format!("{tag}:seen"),
            blobs: format!("{tag}:blobs"),
            fold: format!("{tag}:fold"),
            bell: format!("{tag}:bell"),
        }
    }

    pub fn tenant(&self, tenant: &TenantId) -> TenantKeys {
        let tag = format!("{}{{{tenant}}}", self.prefix);
        TenantKeys {
            traces: format!("{tag}:traces"),
            due: format!("{tag}:due"),
            rows: format!("{tag}:rows"),
            log: format!("{tag}:log"),
            noted: format!("{tag}:noted"),
        }
    }

    /// The infix keeps a session's tag apart from that of a trace of the same name.
    pub fn session(&self, tenant: &TenantId, session: &SessionKey) -> SessionKeys {
        let tag = format!("{}{{{tenant}/s/{}}}", self.prefix, session.as_str());
        SessionKeys {
            session: format!("{tag}:session"),
            log: format!("{tag}:log"),
        }
    }

    /// Set: tenants that ever began a trace.
    pub fn tenants(&self) -> String {
        format!("{}tenants", self.prefix)
    }

    /// Stream: jobs for the worker group.
    pub fn work(&self) -> String {
        format!("{}work", self.prefix)
    }

    /// Stream: jobs that failed too often, capped.
    pub fn set_aside(&self) -> String {
        format!("{}work:set-aside", self.prefix)
    }
}
