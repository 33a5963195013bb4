//! Whose tokens are taken, and what their claims are here.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `TAILSPAN_JWT_ISSUER` | needed | what `iss` of a token must be, to the letter |
//! | `TAILSPAN_JWT_AUDIENCE` | needed | what `aud` must be or have among it; several, comma separated |
//! | `TAILSPAN_JWT_JWKS` | what the issuer says at `/.well-known/openid-configuration` | where its keys are: an `https` URL, a file, or the JWK set itself |
//! | `TAILSPAN_JWT_TENANT_CLAIM` | needed | the claim that names the tenant, see [`super::mapping`] |
//! | `TAILSPAN_JWT_TENANTS` | the claim's value is the tenant | `value=tenant`, comma separated: only these |
//! | `TAILSPAN_JWT_SCOPES_CLAIM` | `scope` | the claim with the scopes: words, or a list |
//! | `TAILSPAN_JWT_SCOPES` | the claim's words are `ingest`, `read`, `admin` | `word=read ingest`, comma separated: only these |
//!
//! `http` is taken only from this machine: who can change keys on their way can make tokens.

use std::path::PathBuf;

use tailspan_core::id::TenantId;
use url::{Host, Url};

use super::{
    keyset::KeySet,
    mapping::{ClaimPath, Mapping, table},
};
use crate::access::Scopes;

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Where the issuer's own document says.
    Discovery(Url),
    At(Url),
    File(PathBuf),
    /// The keys themselves.
    Given(String),
}

/// What the table above says.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    pub(super) source: Source,
    pub(super) mapping: Mapping,
}

impl JwtSettings {
    /// Reads the variables of the table; `None` when something is missing, which `mistakes` then says.
    pub(crate) fn from_vars(
        var: &impl Fn(&str) -> Option<String>,
        mistakes: &mut Vec<String>,
    ) -> Option<Self> {
        let said = |name: &str| {
            let text = var(name).map(|text| text.trim().to_owned());
            text.filter(|text| !text.is_empty())
        };
        let before = mistakes.len();
        let mut needed = |name: &str| {
            said(name).unwrap_or_else(|| {
                mistakes.push(format!("{name} must be set where TAILSPAN_AUTH is jwt"));
                String::new()
            })
        };
        let issuer = needed("TAILSPAN_JWT_ISSUER");
        let audiences = needed("TAILSPAN_JWT_AUDIENCE");
        let audiences = audiences.split(',').map(str::trim);
        let audiences: Vec<_> = audiences
            .filter(|audience| !audience.is_empty())
            .map(str::to_owned)
            .collect();
        let tenant = ClaimPath::parse(&needed("TAILSPAN_JWT_TENANT_CLAIM"));
        let source = match said("TAILSPAN_JWT_JWKS") {
            Some(keys) => source(&keys).map_err(|mistake| format!("TAILSPAN_JWT_JWKS {mistake}")),
            None if issuer.is_empty() => Err(String::new()),
            None => discovery(&issuer).map_err(|mistake| format!("TAILSPAN_JWT_ISSUER {mistake}")),
        };
        let tenants = said("TAILSPAN_JWT_TENANTS").map(|text| {
            let tenant = |name: &str| TenantId::parse(name).map_err(|error| error.to_string());
            table(&text, tenant).map_err(|mistake| format!("TAILSPAN_JWT_TENANTS {mistake}"))
        });
        let scopes = said("TAILSPAN_JWT_SCOPES").map(|text| {
            table(&text, scopes).map_err(|mistake| format!("TAILSPAN_JWT_SCOPES {mistake}"))
        });
        let scope = said("TAILSPAN_JWT_SCOPES_CLAIM").unwrap_or_else(|| "scope".to_owned());
        let mut told = |mistake: String| {
            if !mistake.is_empty() {
                mistakes.push(mistake);
            }
        };
        let source = source.map_err(&mut told).ok();
        let tenants = tenants.transpose().map_err(&mut told).ok();
        let scopes = scopes.transpose().map_err(&mut told).ok();
        let settings = Self {
            issuer,
            audiences,
            source: source?,
            mapping: Mapping {
                tenant,
                tenants: tenants?,
                scope: ClaimPath::parse(&scope),
                scopes: scopes?,
            },
        };
        (mistakes.len() == before).then_some(settings)
    }
}

fn scopes(words: &str) -> Result<Scopes, String> {
    let mut all = Scopes::NONE;
    for word in words.split_ascii_whitespace() {
        let scope = Scopes::named(word);
        all = all.with(scope.ok_or("must be of ingest, read and admin, with spaces between")?);
    }
    Ok(all)
}

fn source(text: &str) -> Result<Source, String> {
    if text.starts_with('{') {
        KeySet::parse(text.as_bytes())?;
        return Ok(Source::Given(text.to_owned()));
    }
    if text.contains("://") {
        return keys_url(text).map(Source::At);
    }
    let read = std::fs::read(text).map_err(|error| format!("({text}): {error}"))?;
    KeySet::parse(&read).map_err(|mistake| format!("({text}): {mistake}"))?;
    Ok(Source::File(text.into()))
}

/// The issuer's own document. A slash at the issuer's end is not doubled (OpenID Connect Discovery 1.0, 4.1).
fn discovery(issuer: &str) -> Result<Source, String> {
    let issuer = issuer.trim_end_matches('/');
    keys_url(&format!("{issuer}/.well-known/openid-configuration")).map(Source::Discovery)
}

/// An address from which keys may be taken.
///
/// # Errors
/// What is wrong with it.
pub(super) fn keys_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !url.username().is_empty() || url.password().is_some() {
        // It is named in log lines.
        return Err("must hold no user and no password".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => Err("must be https, or http on this machine".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> (Option<JwtSettings>, Vec<String>) {
        let mut mistakes = Vec::new();
        let var = |name: &str| {
            let mut all = vars.iter();
            all.find_map(|(key, value)| (*key == name).then(|| (*value).to_owned()))
        };
        (JwtSettings::from_vars(&var, &mut mistakes), mistakes)
    }

    #[test]
    fn all_that_is_missing_or_wrong_is_told_at_once() {
        let (settings, mistakes) = read(&[]);
        assert!(settings.is_none());
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        let (settings, mistakes) = read(&[
            ("TAILSPAN_JWT_ISSUER", "http://id.example.com"),
            ("TAILSPAN_JWT_AUDIENCE", "tailspan"),
            ("TAILSPAN_JWT_TENANT_CLAIM", "tenant"),
            ("TAILSPAN_JWT_TENANTS", "Team A=Team A"),
            ("TAILSPAN_JWT_SCOPES", "them=write"),
        ]);
        assert!(settings.is_none());
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    }

    #[test]
    fn keys_are_where_the_issuer_says_or_where_the_operator_does() {
        let keys = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let of = |issuer: &str, jwks: Option<&str>| {
            let mut vars = vec![
                ("TAILSPAN_JWT_ISSUER", issuer),
                ("TAILSPAN_JWT_AUDIENCE", "a, b"),
                ("TAILSPAN_JWT_TENANT_CLAIM", "tenant"),
            ];
            vars.extend(jwks.map(|jwks| ("TAILSPAN_JWT_JWKS", jwks)));
            let (settings, mistakes) = read(&vars);
            settings.map(|it| it.source).ok_or(mistakes)
        };
        let found = |url: &str| Ok(Source::Discovery(Url::parse(url).unwrap()));
        let at = "https://id.example.com/realms/x/.well-known/openid-configuration";
        assert_eq!(of("https://id.example.com/realms/x", None), found(at));
        assert_eq!(of("https://id.example.com/realms/x/", None), found(at));
        let here = "http://127.0.0.1:9/.well-known/openid-configuration";
        assert_eq!(of("http://127.0.0.1:9", None), found(here));
        assert_eq!(of("anybody", Some(keys)), Ok(Source::Given(keys.into())));
        for wrong in [
            ("anybody", None),
            ("https://a", Some("http://example.com/jwks")),
            ("https://a", Some("file:///etc/passwd")),
            ("https://a", Some("https://user:word@example.com/jwks")),
            ("https://a", Some("http://127.0.0.1.example.com/jwks")),
            ("https://a", Some("/nowhere/jwks.json")),
            ("https://a", Some(r#"{"keys": []}"#)),
            (
                "https://a",
                Some(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#),
            ),
        ] {
            assert!(of(wrong.0, wrong.1).is_err(), "{wrong:?}");
        }
    }
}
