//! How this process finds out who somebody is, as the operator said it.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `TAILSPAN_AUTH` | `keys` where tokens are configured, else `none` | `none`: everybody is the default tenant; `keys`: a configured token or an API key is needed; `jwt`: one of those, or a token of an issuer, see [`super::JwtSettings`] |
//! | `TAILSPAN_SIGNING_KEY` | made once, kept in Redis | signs viewer tokens; at least 32 characters. Several, comma separated: the first signs, all are known |

use std::{fmt, str::FromStr};

use super::JwtSettings;

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everybody, as the default tenant.
    None,
    /// Who has a configured token or an API key.
    Keys,
    /// They, and who has a token of the issuer.
    Jwt,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "keys" => Ok(Self::Keys),
            "jwt" => Ok(Self::Jwt),
            _ => Err("must be none, keys or jwt".to_owned()),
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
    /// Whose tokens are taken, in mode `jwt`.
    pub jwt: Option<JwtSettings>,
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
        if settings.mode == Some(Mode::Jwt) {
            settings.jwt = JwtSettings::from_vars(var, mistakes);
        } else if said("TAILSPAN_JWT_ISSUER").is_some() {
            mistakes.push(
                "TAILSPAN_JWT_ISSUER is set, and TAILSPAN_AUTH is not jwt: set or unset both"
                    .to_owned(),
            );
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
