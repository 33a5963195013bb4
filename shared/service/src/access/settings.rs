//! How this process finds out who somebody is, as the operator said it.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `TAILSPAN_AUTH` | `keys` where tokens are configured, else `none` | `none`: everybody is the default tenant; `keys`: a configured token or an API key is needed |
//! | `TAILSPAN_SIGNING_KEY` | made once, kept in Redis | signs viewer tokens; at least 32 characters. Several, comma separated: the first signs, all are known |

use std::{fmt, str::FromStr};

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everybody, as the default tenant.
    None,
    /// Who has a configured token or an API key.
    Keys,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "keys" => Ok(Self::Keys),
            _ => Err("must be none or keys".to_owned()),
        }
    }
}

/// Characters of a key that signs: as many as 128 bits have in hexadecimal.
const SHORTEST_KEY: usize = 32;

/// What the table above says.
#[derive(Clone, Default)]
pub struct AccessSettings {
    pub mode: Option<Mode>,
    /// The first signs; what any of them signed is good.
    pub signing_keys: Vec<String>,
}

/// Without what is secret.
impl fmt::Debug for AccessSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessSettings")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl AccessSettings {
    /// Reads the variables of the table; `mistakes` gets a line for each that cannot be read, without what is secret.
    pub fn from_vars(
        var: &impl Fn(&str) -> Option<String>,
        mistakes: &mut Vec<String>,
    ) -> AccessSettings {
        let said = |name: &str| var(name).filter(|text| !text.trim().is_empty());
        let mut settings = Self::default();
        if let Some(mode) = said("TAILSPAN_AUTH") {
            match mode.trim().parse() {
                Ok(mode) => settings.mode = Some(mode),
                Err(mistake) => mistakes.push(format!("TAILSPAN_AUTH {mistake}")),
            }
        }
        if let Some(keys) = said("TAILSPAN_SIGNING_KEY") {
            settings.signing_keys = keys.split(',').map(|key| key.trim().to_owned()).collect();
            let is_short = |key: &String| key.chars().count() < SHORTEST_KEY;
            if settings.signing_keys.iter().any(is_short) {
                mistakes.push(format!(
                    "TAILSPAN_SIGNING_KEY must have at least {SHORTEST_KEY} characters"
                ));
            }
        }
        settings
    }
}
