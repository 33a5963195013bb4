//! How much a tenant may send, watch and hold: what the operator wrote, as values.
//!
//! `rate=1000/s,burst=5000,streams=200,stored=10GiB,spans=50000; team-a: rate=100/s, streams=none`: sections by semicolon, the one without a name is everybody's. A tenant of its own section
//! has everybody's limits where it says nothing; a burst belongs to its rate.

use std::{collections::HashMap, time::Duration};

use crate::id::TenantId;

/// A burst that nobody named: so many seconds' worth of the rate.
const BURST_SECONDS: f64 = 10.0;
/// A process takes so much of a second's worth at once, and asks for less than this many events each time by itself: with a small rate every event is counted where all instances see it.
const LEASED_SECONDS: f64 = 0.05;
const LEAST_LEASE: u64 = 10;
/// What nobody means, and what numbers of Lua still hold exactly in microseconds.
const MOST: u64 = 1_000_000_000;
const LONGEST_FILLING: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A bucket of events that fills at a rate: whoever finds one in it may send, and owes what was not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub events_per_second: f64,
    /// Events that it holds.
    pub burst: u64,
}

impl Bucket {
    /// Microseconds from one event to the next.
    pub fn us_per_event(&self) -> f64 {
        1e6 / self.events_per_second
    }

    /// How long an empty one takes to be full, in seconds.
    pub fn seconds_to_fill(&self) -> f64 {
        self.burst as f64 / self.events_per_second
    }

    /// Events that a process takes beyond what it needs now, so that it need not ask for each request.
    pub fn lease(&self) -> u64 {
        let events = self.events_per_second * LEASED_SECONDS;
        match events as u64 {
            few if few < LEAST_LEASE => 0,
            events => events.min(self.burst),
        }
    }

    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11, section 3).
    pub fn policy(&self) -> String {
        let window = self.seconds_to_fill().ceil().max(1.0);
        format!("\"events\";q={};w={window:.0};qu=\"events\"", self.burst)
    }
}

/// A tenant's limits; `None`: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quota {
    /// Of spans, log records and native events.
    pub rate: Option<Bucket>,
    /// Open at the same time, over all instances.
    pub streams: Option<u64>,
    /// Of what its traces hold in the store.
    pub stored_bytes: Option<u64>,
    pub spans_per_trace: Option<u64>,
}

/// Every tenant's limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    default: Quota,
    by_tenant: HashMap<TenantId, Quota>,
}

impl Quotas {
    pub fn of(&self, tenant: &TenantId) -> &Quota {
        self.by_tenant.get(tenant).unwrap_or(&self.default)
    }

    /// Reads limits as the module's head shows them; an empty text says nothing.
    ///
    /// # Errors
    /// What is wrong, a sentence for each mistake.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut everybodys = None;
        let mut named: Vec<(TenantId, Said)> = Vec::new();
        let sections = text.split(';').map(str::trim);
        for section in sections.filter(|section| !section.is_empty()) {
            let (tenant, words) = match section.split_once(':') {
                Some((tenant, words)) => (Some(tenant.trim()), words),
                None => (None, section),
            };
            let of = tenant.map_or(String::new(), |tenant| format!("{tenant}: "));
            let said = Said::parse(words, |mistake| mistakes.push(format!("{of}{mistake}")));
            match tenant.map(TenantId::parse) {
                None if everybodys.is_some() => {
                    mistakes.push("there is more than one section without a tenant".to_owned());
                }
                None => everybodys = Some(said),
                Some(Ok(tenant)) if named.iter().any(|(known, _)| *known == tenant) => {
                    mistakes.push(format!("\"{tenant}\" has more than one section"));
                }
                Some(Ok(tenant)) => named.push((tenant, said)),
                Some(Err(invalid)) => mistakes.push(format!("{of}{invalid}")),
            }
        }
        let default = everybodys.unwrap_or_default();
        let mut quota = |of: &str, said: Said| match said.quota() {
            Ok(quota) => quota,
            Err(mistake) => {
                mistakes.push(format!("{of}{mistake}"));
                Quota::default()
            }
        };
        let quotas = Self {
            default: quota("", default),
            by_tenant: named
                .into_iter()
                .map(|(tenant, said)| {
                    let quota = quota(&format!("{tenant}: "), said.or(default));
                    (tenant, quota)
                })
                .collect(),
        };
        mistakes.dedup();
        match mistakes.is_empty() {
            true => Ok(quotas),
            false => Err(mistakes),
        }
    }
}

/// What one section says; `Some(None)`: that there is no such limit.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Events a second.
    rate: Option<Option<f64>>,
    burst: Option<u64>,
    streams: Option<Option<u64>>,
    stored_bytes: Option<Option<u64>>,
    spans_per_trace: Option<Option<u64>>,
}

impl Said {
    fn parse(words: &str, mut mistaken: impl FnMut(String)) -> Self {
        let mut said = Self::default();
        for word in words
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let (name, value) = (name.trim(), value.trim());
            let is_again = match name {
                "rate" => said.rate.is_some(),
                "burst" => said.burst.is_some(),
                "streams" => said.streams.is_some(),
                "stored" => said.stored_bytes.is_some(),
                "spans" => said.spans_per_trace.is_some(),
                _ => false,
            };
            if is_again {
                mistaken(format!("{name} is said twice"));
                continue;
            }
            let is_read = match name {
                "rate" => limit(value, rate).map(|rate| said.rate = Some(rate)),
                "burst" => count(value).map(|events| said.burst = Some(events)),
                "streams" => limit(value, count).map(|count| said.streams = Some(count)),
                "stored" => limit(value, bytes).map(|bytes| said.stored_bytes = Some(bytes)),
                "spans" => limit(value, count).map(|count| said.spans_per_trace = Some(count)),
                _ => {
                    mistaken(format!(
                        "\"{word}\" is no limit: there are rate, burst, streams, stored and spans"
                    ));
                    continue;
                }
            };
            if is_read.is_none() {
                let must = match name {
                    "rate" => "a number of events a time such as 100/s, 6000/m or 10000/h, or none",
                    "burst" => "a number of events",
                    "stored" => "a number of bytes such as 500MiB or 10GiB, or none",
                    _ => "a number, or none",
                };
                mistaken(format!("{name} must be {must}, not \"{value}\""));
            }
        }
        said
    }

    /// With another's words where this says nothing.
    fn or(self, other: Self) -> Self {
        Self {
            rate: self.rate.or(other.rate),
            burst: match self.rate {
                Some(_) => self.burst,
                None => self.burst.or(other.burst),
            },
            streams: self.streams.or(other.streams),
            stored_bytes: self.stored_bytes.or(other.stored_bytes),
            spans_per_trace: self.spans_per_trace.or(other.spans_per_trace),
        }
    }

    fn quota(self) -> Result<Quota, String> {
        let rate = match (self.rate.flatten(), self.burst) {
            (None, Some(_)) => return Err("burst is of a rate, and there is none".to_owned()),
            (None, None) => None,
            (Some(events_per_second), burst) => {
                let usual = (events_per_second * BURST_SECONDS).ceil() as u64;
                let bucket = Bucket {
                    events_per_second,
                    burst: burst.unwrap_or_else(|| usual.clamp(1, MOST)),
                };
                if bucket.seconds_to_fill() > LONGEST_FILLING.as_secs_f64() {
                    return Err("the burst takes more than ten years at this rate".to_owned());
                }
                Some(bucket)
            }
        };
        Ok(Quota {
            rate,
            streams: self.streams.flatten(),
            stored_bytes: self.stored_bytes.flatten(),
            spans_per_trace: self.spans_per_trace.flatten(),
        })
    }
}

/// A limit, or the word for none. The outer `None`: it is neither.
fn limit<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        "none" => Some(None),
        text => read(text).map(Some),
    }
}

fn count(text: &str) -> Option<u64> {
    // `parse` would also take "+1".
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = text.parse().ok().filter(|_| digits)?;
    (1..=MOST).contains(&number).then_some(number)
}

fn rate(text: &str) -> Option<f64> {
    let (events, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Some(count(events.trim())? as f64 / seconds)
}

/// Bytes with or without their unit, of which those with an `i` are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let digits = digits.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    number
        .checked_mul(unit)
        .filter(|bytes| (1..1 << 53).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn a_tenant_has_its_own_limits_and_everybodys_where_it_says_nothing() {
        let quotas = Quotas::parse(
            "rate=1000/s,burst=5000,streams=200,stored=10GiB,spans=50000; team-a: rate=6000/m, streams=none; team-b: burst=7, stored=1kB",
        )
        .unwrap();
        let everybodys = Quota {
            rate: Some(Bucket {
                events_per_second: 1000.0,
                burst: 5000,
            }),
            streams: Some(200),
            stored_bytes: Some(10 << 30),
            spans_per_trace: Some(50_000),
        };
        assert_eq!(*quotas.of(&TenantId::default()), everybodys);
        let of_a = Quota {
            rate: Some(Bucket {
                events_per_second: 100.0,
                burst: 1000,
            }),
            streams: None,
            ..everybodys
        };
        assert_eq!(*quotas.of(&tenant("team-a")), of_a);
        let of_b = Quota {
            rate: everybodys.rate.map(|rate| Bucket { burst: 7, ..rate }),
            stored_bytes: Some(1000),
            ..everybodys
        };
        assert_eq!(*quotas.of(&tenant("team-b")), of_b);
        assert_eq!(Quotas::parse(" ; "), Ok(Quotas::default()));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let wrong = "rate=fast, burst=0, spams=1; rate=1/s; a: burst=5; NO: streams=1; a: stored=-1; b: rate=1/d, burst=1000000000, spans=1, spans=2";
        let told = Quotas::parse(wrong).unwrap_err();
        assert_eq!(
            told,
            [
                "rate must be a number of events a time such as 100/s, 6000/m or 10000/h, or none, not \"fast\"",
                "burst must be a number of events, not \"0\"",
                "\"spams=1\" is no limit: there are rate, burst, streams, stored and spans",
                "there is more than one section without a tenant",
                "NO: tenant must be 1 to 40 characters of a-z 0-9 -",
                "a: stored must be a number of bytes such as 500MiB or 10GiB, or none, not \"-1\"",
                "\"a\" has more than one section",
                "b: spans is said twice",
                "a: burst is of a rate, and there is none",
                "b: the burst takes more than ten years at this rate",
            ]
        );
    }

    #[test]
    fn a_small_rate_is_counted_event_by_event() {
        let bucket = |events_per_second, burst| Bucket {
            events_per_second,
            burst,
        };
        assert_eq!(bucket(199.0, 1000).lease(), 0);
        assert_eq!(bucket(1000.0, 5000).lease(), 50);
        assert_eq!(bucket(1000.0, 5).lease(), 5);
        let policy = bucket(1000.0, 5500).policy();
        assert_eq!(policy, "\"events\";q=5500;w=6;qu=\"events\"");
    }
}
