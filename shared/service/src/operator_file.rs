//! What operators write about whom we call: a thing by thing read of its fields, by which all mistakes are told at once and nothing secret with them.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tailspan_core::id::TenantId;
use url::{Host, Url};

/// The longest of any time-out, in seconds.
const LONGEST_SECONDS: f64 = 3_600.0;
/// The longest until whoever is only told something has answered.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Headers that are ours to set.
const OWN_HEADERS: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "accept",
    "traceparent",
    "x-trace-id",
    "x-parent-span",
];

/// The text of a file that a setting names.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn read(path: &str) -> Result<String, Vec<String>> {
    std::fs::read_to_string(path).map_err(|error| vec![format!("cannot read {path}: {error}")])
}

/// Names, each with its fields.
pub(crate) type Things = Vec<(String, Map<String, Value>)>;

/// Reads a file of YAML or JSON that holds one map, of name to fields.
///
/// # Errors
/// What it is instead, without repeating it.
pub(crate) fn things(text: &str, of: &str, most: usize) -> Result<Things, Vec<String>> {
    const MOST_BYTES: usize = 1 << 20;
    let wrong = |what: String| Err(vec![what]);
    if text.len() > MOST_BYTES {
        return wrong(format!("it has more than {MOST_BYTES} bytes"));
    }
    // The parser's sentence may repeat a line, and that a secret.
    let Ok(Value::Object(mut file)) = serde_saphyr::from_str(text) else {
        return wrong(format!("it must be YAML or JSON with \"{of}\", a map"));
    };
    let Some(Value::Object(all)) = file.shift_remove(of) else {
        return wrong(format!("\"{of}\" must be a map, of name to fields"));
    };
    if let Some(name) = file.keys().next() {
        return wrong(format!("there is nothing but \"{of}\" in it; {name:?} is"));
    }
    if all.len() > most {
        return wrong(format!("\"{of}\" has more than {most}"));
    }
    Ok(fields_of(all))
}

/// The fields of each; of what has none, all that is missing is told.
pub(crate) fn fields_of(all: Map<String, Value>) -> Things {
    let all = all.into_iter().map(|(name, fields)| match fields {
        Value::Object(fields) => (name, fields),
        _ => (name, Map::new()),
    });
    all.collect()
}

/// Reads each thing by its fields; `what` it is, for sentences.
///
/// # Errors
/// Every mistake of all of them.
pub(crate) fn each<V, T, C>(
    what: &'static str,
    things: Things,
    var: &V,
    read: impl Fn(&mut Reader<'_, V>) -> Option<T>,
) -> Result<C, Vec<String>>
where
    C: FromIterator<(String, Arc<T>)>,
{
    let mut mistakes = Vec::new();
    let all = things.into_iter().filter_map(|(id, fields)| {
        let thing = read(&mut Reader {
            what,
            id: &id,
            var,
            fields,
            mistakes: &mut mistakes,
            secrets: Vec::new(),
        })?;
        Some((id, Arc::new(thing)))
    });
    let all = all.collect();
    match mistakes.is_empty() {
        true => Ok(all),
        false => Err(mistakes),
    }
}

/// Whether a thing is for a tenant; where it names none it is for all.
pub(crate) fn is_for(tenants: Option<&[TenantId]>, tenant: &TenantId) -> bool {
    tenants.is_none_or(|tenants| tenants.contains(tenant))
}

/// A text of somebody's whom we called, without what he was sent to let us in.
pub(crate) fn without(secrets: &[String], text: &str) -> String {
    secrets
        .iter()
        .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// Whether what goes there is seen by nobody on the way: `https`, or a loopback address.
pub(crate) fn is_safe(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

/// Reads one thing's fields; what is wrong is noted, and the rest is read on.
pub(crate) struct Reader<'a, V> {
    /// What it is, for sentences.
    pub(crate) what: &'static str,
    pub(crate) id: &'a str,
    /// The environment.
    pub(crate) var: &'a V,
    pub(crate) fields: Map<String, Value>,
    pub(crate) mistakes: &'a mut Vec<String>,
    /// What must not be repeated to anybody.
    pub(crate) secrets: Vec<String>,
}

impl<V: Fn(&str) -> Option<String>> Reader<'_, V> {
    pub(crate) fn wrong(&mut self, what: &str) {
        self.mistakes
            .push(format!("{} {:?}: {what}", self.what, self.id));
    }

    /// Its name is part of a key, and is told to people.
    pub(crate) fn check_name(&mut self) {
        if TenantId::parse(self.id).is_err() {
            self.wrong("its name must have 1 to 40 characters of a-z 0-9 -");
        }
    }

    pub(crate) fn nothing_else(&mut self) {
        let unknown: Vec<_> = self.fields.keys().map(|name| format!("{name:?}")).collect();
        if !unknown.is_empty() {
            self.wrong(&format!("unknown fields: {}", unknown.join(", ")));
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let told = self.fields.shift_remove(name)?;
        let texts: Option<Vec<_>> = told.as_array().and_then(|texts| {
            let texts = texts.iter();
            texts.map(|text| Some(text.as_str()?.to_owned())).collect()
        });
        if texts.is_none() {
            self.wrong(&format!("{name} must be a list of texts"));
        }
        texts
    }

    /// Some of what `named` knows; `known` are all names, for the sentence.
    pub(crate) fn some_of<T>(
        &mut self,
        field: &str,
        named: impl Fn(&str) -> Option<T>,
        known: &str,
    ) -> Option<Vec<T>> {
        let names = self.texts(field)?;
        let some: Vec<_> = names.iter().filter_map(|name| named(name)).collect();
        if some.len() != names.len() || some.is_empty() {
            self.wrong(&format!("{field} must be some of {known}"));
        }
        Some(some)
    }

    /// Until an answer is there.
    pub(crate) fn timeout(&mut self) -> Duration {
        let timeout = self.seconds("timeout_seconds", 10.0);
        if timeout > LONGEST_TIMEOUT {
            let seconds = LONGEST_TIMEOUT.as_secs();
            self.wrong(&format!("timeout_seconds must be at most {seconds}"));
        }
        timeout
    }

    pub(crate) fn number(&mut self, name: &str, usual: u64, allowed: RangeInclusive<u64>) -> u64 {
        let told = self.fields.shift_remove(name);
        let number = match &told {
            None => Some(usual),
            Some(told) => told.as_u64().filter(|number| allowed.contains(number)),
        };
        if number.is_none() {
            let (least, most) = (allowed.start(), allowed.end());
            self.wrong(&format!("{name} must be a number from {least} to {most}"));
        }
        number.unwrap_or(usual)
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.shift_remove(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => {
                self.wrong(&format!("{name} must be text"));
                None
            }
        }
    }

    pub(crate) fn url(&mut self) -> Option<Url> {
        const RULE: &str = "url must be an http or https address with a host";
        let told = match self.fields.shift_remove("url") {
            Some(Value::String(told)) => told,
            _ => {
                self.wrong(RULE);
                return None;
            }
        };
        let url = Url::parse(&self.expand("url", &told)?).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none()
        });
        if url.is_none() {
            self.wrong(RULE);
        }
        if let Some(password) = url.as_ref().and_then(Url::password) {
            self.secrets.push(password.to_owned());
        }
        url
    }

    pub(crate) fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let told = match self.fields.shift_remove("headers") {
            None => return headers,
            Some(Value::Object(told)) => told,
            Some(_) => {
                self.wrong("headers must be an object of text");
                return headers;
            }
        };
        for (name, value) in told {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !OWN_HEADERS.contains(&name.as_str()));
            let Some(parsed) = parsed else {
                self.wrong(&format!(
                    "{name:?} is no header that may be set: these are ours: {}",
                    OWN_HEADERS.join(", ")
                ));
                continue;
            };
            let Value::String(value) = value else {
                self.wrong(&format!("header {name:?} must be text"));
                continue;
            };
            let Some(value) = self.expand(&format!("header {name:?}"), &value) else {
                continue;
            };
            match HeaderValue::from_str(&value) {
                Ok(mut header) => {
                    header.set_sensitive(true);
                    headers.append(parsed, header);
                    // The key by itself too: whoever repeats it seldom repeats the scheme.
                    let key = value.rsplit(' ').next().unwrap_or_default();
                    self.secrets.extend(is_secret(key).then(|| key.to_owned()));
                }
                Err(_) => self.wrong(&format!(
                    "header {name:?} has characters that none may have"
                )),
            }
        }
        headers
    }

    /// Puts variables in; what they hold is secret.
    pub(crate) fn expand(&mut self, what: &str, told: &str) -> Option<String> {
        let mut text = String::new();
        let mut rest = told;
        while let Some((before, after)) = rest.split_once("${") {
            text.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.wrong(&format!("{what}: \"${{\" without a \"}}\""));
                return None;
            };
            let Some(value) = (self.var)(name).filter(|value| !value.is_empty()) else {
                self.wrong(&format!("{what}: the variable {name} is not set"));
                return None;
            };
            text.push_str(&value);
            self.secrets.extend(is_secret(&value).then_some(value));
            rest = after;
        }
        text.push_str(rest);
        Some(text)
    }

    pub(crate) fn seconds(&mut self, name: &str, default: f64) -> Duration {
        let seconds = match self.fields.shift_remove(name) {
            None => Some(default),
            Some(told) => told
                .as_f64()
                .filter(|seconds| *seconds >= 0.001 && *seconds <= LONGEST_SECONDS),
        };
        if seconds.is_none() {
            self.wrong(&format!(
                "{name} must be a number of seconds, at most {LONGEST_SECONDS}"
            ));
        }
        Duration::from_secs_f64(seconds.unwrap_or(default))
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.fields.shift_remove(name) {
            None => true,
            Some(Value::Bool(said)) => said,
            Some(_) => {
                self.wrong(&format!("{name} must be true or false"));
                true
            }
        }
    }

    pub(crate) fn tenants(&mut self) -> Option<Vec<TenantId>> {
        let told = self.fields.shift_remove("tenants")?;
        let tenants: Option<Vec<_>> = told.as_array().and_then(|names| {
            let names = names
                .iter()
                .map(|name| TenantId::parse(name.as_str()?).ok());
            names.collect()
        });
        if tenants.is_none() {
            self.wrong("tenants must be a list of names of a-z 0-9 -");
        }
        tenants
    }
}

/// Short words (`1`, `v2`, `Basic`) are no secrets, and would tear holes into every text.
fn is_secret(text: &str) -> bool {
    text.len() >= 8
}
