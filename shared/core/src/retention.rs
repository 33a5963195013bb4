//! How long traces are kept, and what a request to clean up asks for.

mod request;

use crate::id::TenantId;
use crate::settle::Status;

pub use self::request::CleanupRequest;

/// A hundred years: what is to be kept longer is kept for ever as far as anybody will see.
const LONGEST_MS: u64 = 100 * 365 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How a trace can have ended; each may have a retention of its own.
pub const ENDED: [Status; 3] = [Status::Completed, Status::Failed, Status::Lost];

/// How long traces are kept after their last event, by tenant and by how they ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Where no rule says otherwise, in milliseconds.
    pub default_ms: u64,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `None`: every tenant that has no rule of its own for this.
    tenant: Option<TenantId>,
    /// `None`: however it ended, also not at all.
    status: Option<Status>,
    kept_ms: u64,
}

impl Retention {
    /// The same for all.
    pub fn new(default_ms: u64) -> Self {
        Self {
            default_ms: default_ms.min(LONGEST_MS),
            rules: Vec::new(),
        }
    }

    /// Reads rules: `status=time` or `tenant/status=time`, comma separated; a status is `completed`, `failed`, `lost`, or with a tenant `*` for all of its traces; a time as [`duration_ms`] reads it.
    ///
    /// # Errors
    /// What is wrong, a sentence for each mistake.
    pub fn with_rules(mut self, text: &str) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let parts = text.split(',').map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            match Rule::parse(part) {
                Ok(rule) => {
                    let of = |other: &&Rule| {
                        (&other.tenant, other.status) == (&rule.tenant, rule.status)
                    };
                    if self.rules.iter().any(|other| of(&other)) {
                        mistakes.push(format!("\"{part}\" says again what was said before it"));
                    }
                    self.rules.push(rule);
                }
                Err(mistake) => mistakes.push(format!("\"{part}\" {mistake}")),
            }
        }
        match mistakes.is_empty() {
            true => Ok(self),
            false => Err(mistakes),
        }
    }

    /// How long a tenant's traces are kept that ended so (`None`: that did not end), in milliseconds: the rule of its own for the status, its own for all, the one of the status, the default.
    pub fn of(&self, tenant: &TenantId, status: Option<Status>) -> u64 {
        let rule = |tenant: Option<&TenantId>, status: Option<Status>| {
            let mut rules = self.rules.iter();
            rules.find(|rule| rule.tenant.as_ref() == tenant && rule.status == status)
        };
        let own = status.and_then(|status| rule(Some(tenant), Some(status)));
        own.or_else(|| rule(Some(tenant), None))
            .or_else(|| rule(None, Some(status?)))
            .map_or(self.default_ms, |rule| rule.kept_ms)
    }

    /// The longest that any trace is kept, in milliseconds.
    pub fn longest_ms(&self) -> u64 {
        let rules = self.rules.iter().map(|rule| rule.kept_ms);
        rules.max().unwrap_or_default().max(self.default_ms)
    }

    /// The shortest.
    pub fn shortest_ms(&self) -> u64 {
        let rules = self.rules.iter().map(|rule| rule.kept_ms);
        rules.min().unwrap_or(u64::MAX).min(self.default_ms)
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let (of, time) = text
            .split_once('=')
            .ok_or("must be status=time or tenant/status=time")?;
        let (tenant, status) = match of.trim().split_once('/') {
            Some((tenant, status)) => {
                let tenant = TenantId::parse(tenant)
                    .map_err(|invalid| format!("names no tenant: {invalid}"))?;
                (Some(tenant), status)
            }
            None => (None, of.trim()),
        };
        let status = match status {
            "*" if tenant.is_some() => None,
            "*" => {
                return Err(
                    "is for one tenant: for all of them there is the plain retention".to_owned(),
                );
            }
            status => Some(ended(status).ok_or_else(|| {
                format!(
                    "names no status that traces end with: {}",
                    ENDED.map(Status::as_str).join(", ")
                )
            })?),
        };
        Ok(Self {
            tenant,
            status,
            kept_ms: duration_ms(time.trim())
                .ok_or("has no time such as 90s, 30m, 12h, 7d or 2w")?,
        })
    }
}

/// A status that a trace ended with, by its name.
fn ended(name: &str) -> Option<Status> {
    ENDED.into_iter().find(|status| status.as_str() == name)
}

/// Milliseconds of a whole number and its unit: `90s`, `30m`, `12h`, `7d`, `2w`. `None`: it is no such text, none at all, or more than a hundred years.
pub fn duration_ms(text: &str) -> Option<u64> {
    let unit = text.chars().next_back()?;
    let number = text.strip_suffix(unit)?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        'w' => 7 * DAY_MS,
        _ => return None,
    };
    // `parse` would also take "+1".
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|number| digits && *number > 0)?;
    number.checked_mul(unit_ms).filter(|ms| *ms <= LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rule_says_how_long() {
        let rules = "failed=30d, completed=7d,team-a/completed=12h,team-b/*=2w, team-b/failed=90s";
        let retention = Retention::new(3 * DAY_MS).with_rules(rules).unwrap();
        let of = |tenant: &str, status| retention.of(&TenantId::parse(tenant).unwrap(), status);
        let (completed, failed, lost) = (
            Some(Status::Completed),
            Some(Status::Failed),
            Some(Status::Lost),
        );
        assert_eq!(of("x", failed), 30 * DAY_MS);
        assert_eq!((of("x", lost), of("x", None)), (3 * DAY_MS, 3 * DAY_MS));
        assert_eq!(
            (of("team-a", completed), of("team-a", failed)),
            (DAY_MS / 2, 30 * DAY_MS)
        );
        assert_eq!(
            (of("team-b", completed), of("team-b", None)),
            (14 * DAY_MS, 14 * DAY_MS)
        );
        assert_eq!(of("team-b", failed), 90_000);
        assert_eq!(
            (retention.longest_ms(), retention.shortest_ms()),
            (30 * DAY_MS, 90_000)
        );
    }

    #[test]
    fn every_mistake_is_told() {
        let rules = "failed, ended=7d, *=7d, NO/failed=7d, lost=0d, lost=7, lost=7d, lost=8d";
        let mistakes = Retention::new(1).with_rules(rules).unwrap_err();
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
        assert_eq!(Retention::new(1).with_rules("").unwrap(), Retention::new(1));
    }

    #[test]
    fn times_are_whole_and_bounded() {
        for (text, ms) in [
            ("1s", Some(1_000)),
            ("2w", Some(14 * DAY_MS)),
            ("036500d", Some(LONGEST_MS)),
        ] {
            assert_eq!(duration_ms(text), ms, "{text}");
        }
        for text in [
            "",
            "d",
            "7",
            "0s",
            "-1d",
            "+1d",
            "1.5h",
            "1 d",
            "36501d",
            "99999999999999999999d",
            "1é",
        ] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }
}
