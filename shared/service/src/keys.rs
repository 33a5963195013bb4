//! Every key and channel in Redis, by meaning. Braces are the cluster hash tag: all of one trace lies in one slot, all of one tenant's
//! indexes in another. Only validated ids enter a key, so no two of them can make the same one: a tenant has no `/`, a session's
//! key no `/` or brace, and what follows the tag is ours.

use tailspan_core::{
    id::{SessionKey, TenantId, TraceId},
    stats::{Bucket, Dimension},
};

/// Makes keys under one prefix.
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

impl TraceKeys {
    /// All that lies in Redis of the trace, its counted state first; scripts that remove a trace take them in this order.
    pub fn stored(&self) -> [&str; 5] {
        [
            &self.trace,
            &self.events,
            &self.seen,
            &self.blobs,
            &self.fold,
        ]
    }
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
    /// Hash: up to which seq each trace was noted, and its labels.
    pub noted: String,
    /// Sorted set: sessions by their last notice, ms.
    pub sessions: String,
    /// What the key of a label's sorted set (traces by start, ms) begins with.
    pub by: String,
    /// Sorted set: live sessions by start, µs.
    pub live: String,
    /// What the key of a live session's hash begins with; its session's key ends it.
    pub live_of: String,
}

/// The keys of one session, one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKeys {
    /// Hash: its name, its traces and what was noted of each.
    pub session: String,
    /// Stream: its notices, capped.
    pub log: String,
}

/// The keys of a tenant's notifications, in the slot of its indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryKeys {
    /// What the key of a delivery's hash begins with; its id ends it.
    pub of: String,
    /// What the key of an endpoint's sorted set (deliveries by when they are tried next, ms) begins with.
    pub due_of: String,
    /// Sorted sets: deliveries by when they were made, were given up, were taken, ms.
    pub waiting: String,
    pub dead: String,
    pub delivered: String,
}

/// The keys of what is forwarded of a tenant to a target, in the slot of its indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardKeys {
    /// Hash: targets that want the tenant's traces, until when, ms. A queue's key begins with it.
    pub wanted: String,
    /// Sorted set: traces of which something is to be forwarded, by since when, ms.
    pub todo: String,
    /// Hash: who forwards.
    pub lease: String,
}

impl DeliveryKeys {
    pub fn delivery(&self, id: &str) -> String {
        format!("{}{id}", self.of)
    }

    pub fn due(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.due_of)
    }
}

impl Keys {
    /// `prefix` comes from the configuration, which checks its alphabet.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Where a trace lies.
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

    /// Where a tenant's indexes lie.
    pub fn tenant(&self, tenant: &TenantId) -> TenantKeys {
        let tag = format!("{}{{{tenant}}}", self.prefix);
        TenantKeys {
            traces: format!("{tag}:traces"),
            due: format!("{tag}:due"),
            rows: format!("{tag}:rows"),
            log: format!("{tag}:log"),
            noted: format!("{tag}:noted"),
            sessions: format!("{tag}:sessions"),
            by: format!("{tag}:by:"),
            live: format!("{tag}:live"),
            live_of: format!("{tag}:live:"),
        }
    }

    /// Hash: a live session, in the slot of its tenant.
    pub fn live_session(&self, tenant: &TenantId, session: &SessionKey) -> String {
        format!("{}{{{tenant}}}:live:{}", self.prefix, session.as_str())
    }

    /// Where it lies what is to be forwarded of a tenant.
    pub fn forward(&self, tenant: &TenantId, target: &str) -> ForwardKeys {
        let wanted = format!("{}{{{tenant}}}:forward", self.prefix);
        ForwardKeys {
            todo: format!("{wanted}:todo:{target}"),
            lease: format!("{wanted}:lease:{target}"),
            wanted,
        }
    }

    /// Where a tenant's notifications lie.
    pub fn deliveries(&self, tenant: &TenantId) -> DeliveryKeys {
        let tag = format!("{}{{{tenant}}}", self.prefix);
        DeliveryKeys {
            of: format!("{tag}:hook:"),
            due_of: format!("{tag}:hooks:due:"),
            waiting: format!("{tag}:hooks:waiting"),
            dead: format!("{tag}:hooks:dead"),
            delivered: format!("{tag}:hooks:delivered"),
        }
    }

    /// Hash: what is counted of each name of a dimension in a stretch of time.
    pub fn stats(&self, tenant: &TenantId, dimension: Dimension, bucket: Bucket) -> String {
        let (dimension, bucket) = (dimension.as_str(), bucket.name());
        format!("{}{{{tenant}}}:stats:{dimension}:{bucket}", self.prefix)
    }

    /// Hash: what each trace added to those.
    pub fn stats_of(&self, tenant: &TenantId) -> String {
        format!("{}{{{tenant}}}:stats:of", self.prefix)
    }

    /// The infix keeps a session's tag apart from that of a trace of the same name.
    pub fn session(&self, tenant: &TenantId, session: &SessionKey) -> SessionKeys {
        let tag = format!("{}{{{tenant}/s/{}}}", self.prefix, session.as_str());
        SessionKeys {
            session: format!("{tag}:session"),
            log: format!("{tag}:log"),
        }
    }

    /// String: with what somebody was let in whose connection a gateway holds.
    pub fn connection(&self, id: &str) -> String {
        format!("{}socket:{id}", self.prefix)
    }

    /// Hash: an API key, by its id.
    pub fn api_key(&self, id: &str) -> String {
        format!("{}access:key:{id}", self.prefix)
    }

    /// Sorted set: a tenant's API keys by when they were made, ms.
    pub fn api_keys(&self, tenant: &TenantId) -> String {
        format!("{}{{{tenant}}}:keys", self.prefix)
    }

    /// Sorted set: what a tenant lends by when it expires, ms; and a hash that describes each.
    pub fn lent(&self, tenant: &TenantId) -> (String, String) {
        let tag = format!("{}{{{tenant}}}", self.prefix);
        (format!("{tag}:lent"), format!("{tag}:lent:of"))
    }

    /// String: when a tenant's bucket of events is full again, µs.
    pub fn rate(&self, tenant: &TenantId) -> String {
        format!("{}{{{tenant}}}:rate", self.prefix)
    }

    /// Hash: bytes that are stored of each of a tenant's traces, of all of them (`*`), and how far they were counted again (`@`).
    pub fn stored(&self, tenant: &TenantId) -> String {
        format!("{}{{{tenant}}}:stored", self.prefix)
    }

    /// Sorted set: a tenant's open streams by when their places end, ms.
    pub fn streams(&self, tenant: &TenantId) -> String {
        format!("{}{{{tenant}}}:streams", self.prefix)
    }

    /// String: what signs viewer tokens, where none is configured.
    pub fn signing_key(&self) -> String {
        format!("{}access:signing", self.prefix)
    }

    /// String: the keys of the issuer of tokens that is known by this; and `..:asked`, when it was asked.
    pub fn issuer_keys(&self, source: &str) -> String {
        format!("{}access:jwks:{source}", self.prefix)
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

    /// Stream: entries of a mesh that cannot be stored, capped.
    pub fn mesh_set_aside(&self) -> String {
        format!("{}mesh:set-aside", self.prefix)
    }

    /// Hash: how often entries of a mesh were looked at that kill whoever reads them.
    pub fn mesh_tries(&self) -> String {
        format!("{}mesh:tries", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn all(keys: &Keys, tenant: &str, trace: &str, session: &str) -> Vec<String> {
        let tenant = TenantId::parse(tenant).expect("valid");
        let of = tenant.clone();
        let of_trace = keys.trace(&tenant, &TraceId::parse(trace).expect("valid"));
        let of_tenant = keys.tenant(&tenant);
        let of_session = keys.session(&tenant, &SessionKey::of(session));
        let TraceKeys {
            events,
            trace,
            seen,
            blobs,
            fold,
            bell,
        } = of_trace;
        let TenantKeys {
            traces,
            due,
            rows,
            log,
            noted,
            sessions,
            by,
            live,
            live_of,
        } = of_tenant;
        let mut all = vec![
            events, trace, seen, blobs, fold, bell, traces, due, rows, log, noted, sessions, by,
            live, live_of,
        ];
        all.extend(Dimension::ALL.map(|dimension| {
            let bucket = Bucket::Slot(7);
            keys.stats(&of, dimension, bucket)
        }));
        all.extend([
            keys.stats_of(&of),
            keys.stats(&of, Dimension::Tool, Bucket::Hour(7)),
            keys.stats(&of, Dimension::Tool, Bucket::All),
            keys.live_session(&of, &SessionKey::of(session)),
            of_session.session,
            of_session.log,
            keys.forward(&of, "backend").wanted,
            keys.forward(&of, "backend").todo,
            keys.forward(&of, "backend").lease,
            keys.deliveries(&of).delivery("msg_0123"),
            keys.deliveries(&of).due("ops"),
            keys.deliveries(&of).waiting,
            keys.deliveries(&of).dead,
            keys.deliveries(&of).delivered,
            keys.api_keys(&of),
            keys.lent(&of).0,
            keys.lent(&of).1,
            keys.rate(&of),
            keys.stored(&of),
            keys.streams(&of),
            keys.api_key("0123456789abcdef"),
            keys.signing_key(),
            keys.tenants(),
            keys.work(),
            keys.set_aside(),
            keys.mesh_set_aside(),
            keys.mesh_tries(),
        ]);
        all
    }

    /// What a cluster hashes: the text between the first `{` and the next `}` (Redis cluster specification, "Hash tags").
    fn tag(key: &str) -> Option<&str> {
        let (_, rest) = key.split_once('{')?;
        rest.split_once('}')
            .map(|(tag, _)| tag)
            .filter(|tag| !tag.is_empty())
    }

    proptest! {
        #[test]
        fn distinct_ids_give_distinct_keys(
            one in ("[a-z0-9-]{1,40}", "[A-Za-z0-9_-]{1,128}", ".{0,40}"),
            other in ("[a-z0-9-]{1,40}", "[A-Za-z0-9_-]{1,128}", ".{0,40}"),
            prefix in "[a-z0-9:-]{0,8}",
        ) {
            let keys = Keys::new(&prefix);
            let ones = all(&keys, &one.0, &one.1, &one.2);
            prop_assert_eq!(ones.iter().collect::<HashSet<_>>().len(), ones.len(), "within one");
            let same_trace = one.0 == other.0
                && TraceId::parse(&one.1).expect("valid") == TraceId::parse(&other.1).expect("valid");
            if !same_trace {
                let others = all(&keys, &other.0, &other.1, &other.2);
                for (at, (mine, theirs)) in ones.iter().zip(&others).enumerate() {
                    // The first six are a trace's; a tenant's and a session's may be shared, the last five always are.
                    prop_assert!(at > 5 || mine != theirs, "{}", mine);
                }
            }
        }

        #[test]
        fn a_trace_lies_in_one_slot_whatever_its_name(tenant in "[a-z0-9-]{1,40}", trace in "[A-Za-z0-9_-]{1,128}") {
            let tenant = TenantId::parse(&tenant).expect("valid");
            let trace = TraceId::parse(&trace).expect("valid");
            let keys = Keys::default().trace(&tenant, &trace);
            let expected = format!("{tenant}/{trace}");
            for key in [&keys.events, &keys.trace, &keys.seen, &keys.blobs, &keys.fold, &keys.bell] {
                prop_assert_eq!(tag(key), Some(expected.as_str()));
            }
        }
    }
}
