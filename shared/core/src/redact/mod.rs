//! Redaction: what must not be stored is taken out of whatever comes, before anything else sees it.
//!
//! | what | how it is named | when |
//! | --- | --- | --- |
//! | names | attributes and fields of JSON: `authorization`, `api_key`, `password`, `secret`, `access_token`, `cookie` and their like | always |
//! | forms | private keys, JSON Web Tokens, bearer tokens, passwords in URLs, API keys of known providers | always |
//! | names, paths, forms | [`Rules`]: `names`, `paths`, `patterns` | when asked for |
//! | what was said | [`Rules`]: `"content": "off"`, which records no more than the level `minimal` of [`crate::lower`] | when asked for |
//!
//! What is taken out is replaced by `[redacted]`, or by `[hmac:<16 hex digits>]` under a key of the tenant's own: equal values of a tenant stay equal, and of two tenants differ. Every byte that is not secret
//! stays as it was, and so does the whole observation of which nothing is.
//!
//! Whatever reaches the log is [`Clean`], which only [`Redactor::clean`] makes.
//!
//! **Identity** is that of what is stored, where it is made of content: no hash of a secret is kept anywhere. A repeat is redacted to the same bytes and is known again; two log records of the same nanosecond that
//! differ in nothing but a secret are one. Ids that producers gave stay.

mod frame;
mod paths;
mod patterns;
mod quick;
mod rules;
mod text;

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use prost::Message as _;
use serde_json::{Map, Value};
use sha2::Sha256;

pub use self::rules::Rules;
use self::{paths::Active, rules::Compiled};
use crate::{
    id::{TenantId, hex},
    live::wire_form::VERBATIM,
    native,
    observed::{Canonical, Context, Incoming, What},
    otlp,
    verbosity::Verbosity,
    wire::{self, AnyValue, KeyValue, any_value},
};

/// What stands where something was taken out.
pub const REDACTED: &str = "[redacted]";
const HMAC: (&str, &str) = ("[hmac:", "]");
/// Of an HMAC, which has 256: enough that a tenant's values do not meet.
const HMAC_DIGITS: usize = 16;
/// The longer one of the two marks.
const MARK_BYTES: usize = HMAC.0.len() + HMAC_DIGITS + HMAC.1.len();
/// Bytes of a key, at least: half of what the hash has (RFC 2104, section 3).
pub const MIN_KEY_BYTES: usize = 16;

/// What stands where something was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Remove,
    Hmac,
}

/// An observation without what must not be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Clean(Incoming);

impl Deref for Clean {
    type Target = Incoming;

    fn deref(&self) -> &Incoming {
        &self.0
    }
}

/// A batch without what must not be stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cleaned {
    pub events: Vec<Clean>,
    /// Values that were taken out.
    pub redacted: u64,
}

/// The rules of all tenants, ready to be applied.
#[derive(Debug, Default)]
pub struct Redactor {
    written: Rules,
    /// `None`: what is done always, and nothing more.
    all: Option<Arc<Compiled>>,
    tenants: HashMap<TenantId, Arc<Compiled>>,
    key: Option<Key>,
}

/// From which each tenant's own key is made.
struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn of(&self, tenant: &TenantId) -> Option<Hmac<Sha256>> {
        let mut of_tenant = self.0.clone();
        of_tenant.update(b"tailspan redaction ");
        of_tenant.update(tenant.as_str().as_bytes());
        Hmac::new_from_slice(&of_tenant.finalize().into_bytes()).ok()
    }
}

impl Redactor {
    /// Rules to be applied, and the secret from which the keys of tenants are made.
    ///
    /// # Errors
    /// What cannot be done, a sentence each: no key where one is needed, one that is too short, rules that are too many together.
    pub fn new(rules: &Rules, key: Option<&[u8]>) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let key = match key {
            Some(key) if key.len() < MIN_KEY_BYTES => {
                mistakes.push(format!("the key must have at least {MIN_KEY_BYTES} bytes"));
                None
            }
            Some(key) => Hmac::new_from_slice(key).ok().map(Key),
            None => None,
        };
        if rules.needs_key() && key.is_none() {
            mistakes.push("the mode \"hmac\" needs a key".to_owned());
        }
        let mut compile = |rules: &Rules| match Compiled::of(rules) {
            Ok(compiled) => Some(Arc::new(compiled)),
            Err(why) => {
                mistakes.push(why);
                None
            }
        };
        let for_all = Rules {
            tenants: HashMap::new(),
            ..rules.clone()
        };
        let all = match for_all == Rules::default() {
            true => None,
            false => compile(&for_all),
        };
        let of_tenants = rules.tenants.iter();
        let tenants: HashMap<_, _> = of_tenants
            .filter_map(|(tenant, own)| Some((tenant.clone(), compile(&rules.with(own))?)))
            .collect();
        match mistakes.is_empty() {
            true => Ok(Self {
                written: rules.clone(),
                all,
                tenants,
                key,
            }),
            false => Err(mistakes),
        }
    }

    /// These rules, and more for one occasion.
    ///
    /// # Errors
    /// As [`Redactor::new`].
    pub fn and(&self, tenant: &TenantId, more: &Rules) -> Result<Self, Vec<String>> {
        if more.needs_key() && self.key.is_none() {
            return Err(vec!["the mode \"hmac\" needs a key".to_owned()]);
        }
        let own = self
            .written
            .tenants
            .get(tenant)
            .cloned()
            .unwrap_or_default();
        let rules = self.written.with(&own).with(more);
        let all = Compiled::of(&rules).map_err(|why| vec![why])?;
        Ok(Self {
            written: rules,
            all: Some(Arc::new(all)),
            tenants: HashMap::new(),
            key: self.key.as_ref().map(|key| Key(key.0.clone())),
        })
    }

    /// Takes out of a batch what must not be stored.
    pub fn clean(&self, tenant: &TenantId, events: Vec<Incoming>) -> Cleaned {
        let pass = self.pass(tenant);
        let events = events
            .into_iter()
            .map(|incoming| Clean(pass.incoming(incoming)));
        let events = events.collect();
        Cleaned {
            events,
            redacted: pass.redacted.get(),
        }
    }

    /// As [`Redactor::clean`], of what was stored before. Beside each event, where it changed, the identity that it had by its content, and the one that it has now.
    pub fn clean_stored(
        &self,
        tenant: &TenantId,
        events: Vec<(Arc<Context>, Canonical)>,
    ) -> (Cleaned, Vec<(i64, i64)>) {
        let events: Vec<_> = events
            .into_iter()
            .map(|(context, what)| Incoming {
                identity: otlp::identity_of(&what).or_else(|| native::identity_of(&what)),
                context,
                what,
                may_end_run: false,
                trace_level: Verbosity::Debug,
            })
            .collect();
        let before: Vec<_> = events.iter().map(|event| event.identity).collect();
        let cleaned = self.clean(tenant, events);
        let identities = before.into_iter().zip(&cleaned.events);
        let changed = identities.filter_map(|(before, event)| {
            let pair = before.zip(event.identity)?;
            (pair.0 != pair.1).then_some(pair)
        });
        let changed = changed.collect();
        (cleaned, changed)
    }

    /// A text of a tenant's that is no observation: the name of a session, a reason, a value of something set aside.
    pub fn clean_text<'a>(&self, tenant: &TenantId, text: &'a str) -> Cow<'a, str> {
        match self.pass(tenant).text(text.as_bytes(), &[]) {
            Some(clean) => Cow::Owned(lossy(clean)),
            None => Cow::Borrowed(text),
        }
    }

    /// As [`Redactor::clean_text`], of a name and what stands under it.
    pub fn clean_pair(&self, tenant: &TenantId, name: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let pass = self.pass(tenant);
        let clean = |text: &[u8], active: &[Active<'_>]| {
            let clean = pass.text(text, active);
            clean.unwrap_or_else(|| text.to_vec())
        };
        let value = match pass.rules.is_secret_name(name) && !value.is_empty() && !is_mark(value) {
            true => pass.mark(value).into_bytes(),
            false => {
                let name = String::from_utf8_lossy(name);
                clean(value, &pass.rules.paths_at(Some(&name)))
            }
        };
        (clean(name, &[]), value)
    }

    /// As [`Redactor::clean_text`], of an object of JSON.
    pub fn clean_object(
        &self,
        tenant: &TenantId,
        object: &Map<String, Value>,
    ) -> Map<String, Value> {
        let text = Value::Object(object.clone()).to_string();
        let pass = self.pass(tenant);
        match pass.text(text.as_bytes(), &pass.rules.paths_at_fields()) {
            None => object.clone(),
            // What cannot be read any more is not kept.
            Some(clean) => serde_json::from_slice(&clean).unwrap_or_default(),
        }
    }

    fn pass(&self, tenant: &TenantId) -> Pass<'_> {
        let rules = self
            .tenants
            .get(tenant)
            .or(self.all.as_ref())
            .unwrap_or(&ALWAYS);
        let key = match rules.mode {
            Mode::Remove => None,
            Mode::Hmac => self.key.as_ref().and_then(|key| key.of(tenant)),
        };
        Pass {
            rules,
            key,
            redacted: Cell::new(0),
            contexts: RefCell::default(),
        }
    }
}

/// What is done always: one for the whole process, made when something comes.
static ALWAYS: LazyLock<Arc<Compiled>> = LazyLock::new(|| match Compiled::of(&Rules::default()) {
    Ok(compiled) => Arc::new(compiled),
    // Nothing is stored rather than everything; a test holds it to that.
    Err(why) => panic!("the rules that are always applied: {why}"),
});

/// Whether a text is one that stands where something was taken out.
fn is_mark(text: &[u8]) -> bool {
    text == REDACTED.as_bytes()
        || text.len() == MARK_BYTES
            && text.starts_with(HMAC.0.as_bytes())
            && text.ends_with(HMAC.1.as_bytes())
            && text
                .get(HMAC.0.len()..HMAC.0.len() + HMAC_DIGITS)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// One batch on its way through the rules.
struct Pass<'a> {
    rules: &'a Compiled,
    key: Option<Hmac<Sha256>>,
    redacted: Cell<u64>,
    /// Contexts are shared within a batch, and stay so. The first one is held, so that its place is not given to another one.
    contexts: RefCell<HashMap<*const Context, BeforeAndAfter>>,
}

type BeforeAndAfter = (Arc<Context>, Arc<Context>);

impl Pass<'_> {
    fn count(&self, more: u64) {
        self.redacted.set(self.redacted.get() + more);
    }

    /// What stands where this was taken out.
    fn mark(&self, value: &[u8]) -> String {
        let Some(key) = &self.key else {
            return REDACTED.to_owned();
        };
        let mut of_value = key.clone();
        of_value.update(value);
        let digits = hex(&of_value.finalize().into_bytes());
        let digits = digits.get(..HMAC_DIGITS).unwrap_or_default();
        format!("{}{digits}{}", HMAC.0, HMAC.1)
    }

    fn incoming(&self, mut incoming: Incoming) -> Incoming {
        if self.rules.content_off {
            incoming.trace_level = incoming.trace_level.min(Verbosity::Minimal);
        }
        let context = self.context(Arc::clone(&incoming.context));
        if !Arc::ptr_eq(&context, &incoming.context)
            && let Canonical::Span(span) = &mut incoming.what
        {
            // A frame's span names its trace, which the context does here.
            span.forget_sent();
        }
        incoming.context = context;
        let bytes = match &incoming.what {
            Canonical::Span(span) => &span[..],
            Canonical::Log(bytes) => &bytes[..],
            Canonical::Native(json) => json.as_bytes(),
        };
        if !self.rules.quick.is_match(bytes) {
            return incoming;
        }
        let before = self.redacted.get();
        let what = match incoming.what.read() {
            What::Span(span) => {
                let mut span = Arc::unwrap_or_clone(span);
                self.span(&mut span);
                What::Span(Arc::new(span))
            }
            What::Log(record) => {
                let mut record = Arc::unwrap_or_clone(record);
                self.log(&mut record);
                What::Log(Arc::new(record))
            }
            What::Native(json) => match self.text(json.as_bytes(), &self.rules.paths_at_fields()) {
                Some(clean) => What::Native(self.still_json(lossy(clean), &json).into()),
                None => What::Native(json),
            },
        };
        if self.redacted.get() > before {
            let what = Canonical::from(&what);
            incoming.identity = incoming
                .identity
                .map(|of| identity(of, &incoming.what, &what));
            incoming.what = what;
        }
        incoming
    }

    /// An operator's expression may hit what is no text: then the texts are looked at one by one.
    fn still_json(&self, clean: String, sent: &str) -> String {
        if serde_json::from_str::<serde::de::IgnoredAny>(&clean).is_ok() {
            return clean;
        }
        match serde_json::from_str(sent) {
            Ok(mut value) => {
                self.leaves(&mut value);
                value.to_string()
            }
            Err(_) => clean,
        }
    }

    fn leaves(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.leaves(value)),
            Value::Object(fields) => {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(mut name, mut value)| {
                        match self.rules.is_secret_name(name.as_bytes()) {
                            true => value = Value::String(self.mark(value.to_string().as_bytes())),
                            false => self.leaves(&mut value),
                        }
                        self.string(&mut name);
                        (name, value)
                    })
                    .collect();
            }
            Value::Number(number) => {
                if let Some(clean) = self.text(number.to_string().as_bytes(), &[]) {
                    *value = Value::String(lossy(clean));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn context(&self, context: Arc<Context>) -> Arc<Context> {
        let mut known = self.contexts.borrow_mut();
        let (_, clean) = known.entry(Arc::as_ptr(&context)).or_insert_with(|| {
            let mut bytes = Vec::new();
            let Context {
                resource,
                scope,
                schema_url,
            } = context.as_ref();
            resource.iter().for_each(|pair| pair.encode_raw(&mut bytes));
            scope.encode_raw(&mut bytes);
            bytes.extend_from_slice(schema_url.as_bytes());
            if !self.rules.quick.is_match(&bytes) {
                return (Arc::clone(&context), Arc::clone(&context));
            }
            let before = self.redacted.get();
            let mut clean = context.as_ref().clone();
            self.pairs(&mut clean.resource);
            self.string(&mut clean.scope.name);
            self.string(&mut clean.scope.version);
            self.pairs(&mut clean.scope.attributes);
            self.string(&mut clean.schema_url);
            let clean = match self.redacted.get() > before {
                true => Arc::new(clean),
                false => Arc::clone(&context),
            };
            (Arc::clone(&context), clean)
        });
        Arc::clone(clean)
    }

    fn span(&self, span: &mut wire::Span) {
        self.string(&mut span.trace_state);
        self.string(&mut span.name);
        self.pairs(&mut span.attributes);
        for event in &mut span.events {
            self.string(&mut event.name);
            self.pairs(&mut event.attributes);
        }
        for link in &mut span.links {
            self.string(&mut link.trace_state);
            self.pairs(&mut link.attributes);
        }
        if let Some(status) = &mut span.status {
            self.string(&mut status.message);
        }
    }

    fn log(&self, record: &mut wire::LogRecord) {
        self.string(&mut record.severity_text);
        self.string(&mut record.event_name);
        if let Some(body) = &mut record.body {
            // What stands in a body are fields, as attributes are.
            self.any(body, &self.rules.paths_at_fields());
        }
        self.pairs(&mut record.attributes);
    }

    fn pairs(&self, pairs: &mut [KeyValue]) {
        for pair in pairs {
            self.pair(pair, &self.rules.paths_at(Some(&pair.key)));
        }
    }

    fn pair(&self, pair: &mut KeyValue, active: &[Active<'_>]) {
        if let Some(value) = &mut pair.value {
            match self.rules.is_secret_name(pair.key.as_bytes()) {
                true => self.blank(value),
                false if pair.key == VERBATIM => self.frame(value),
                false => self.any(value, active),
            }
        }
        self.string(&mut pair.key);
    }

    fn any(&self, value: &mut AnyValue, active: &[Active<'_>]) {
        match &mut value.value {
            Some(any_value::Value::String(text)) => self.string_at(text, active),
            Some(any_value::Value::Bytes(bytes)) => {
                if let Some(clean) = self.text(bytes, active) {
                    *bytes = Bytes::from(clean);
                }
            }
            Some(any_value::Value::Array(list)) => {
                for (at, element) in list.values.iter_mut().enumerate() {
                    let (left, is_end) = paths::step(active, paths::Step::Element(at));
                    match is_end {
                        true => self.blank(element),
                        false => self.any(element, &left),
                    }
                }
            }
            Some(any_value::Value::Map(map)) => {
                for pair in &mut map.values {
                    let (left, is_end) = paths::step(active, paths::Step::Field(&pair.key));
                    match (is_end, &mut pair.value) {
                        (true, Some(value)) => {
                            self.blank(value);
                            self.string(&mut pair.key);
                        }
                        _ => self.pair(pair, &left),
                    }
                }
            }
            // A number of a card may have been sent as one.
            Some(any_value::Value::Int(number)) => {
                let text = number.to_string();
                if let Some(clean) = self.text(text.as_bytes(), &[]) {
                    value.value = Some(any_value::Value::String(lossy(clean).into()));
                }
            }
            Some(any_value::Value::Bool(_) | any_value::Value::Double(_)) | None => {}
        }
    }

    /// Takes a value out whole. A list stays a list; nothing and a truth tell nothing.
    fn blank(&self, value: &mut AnyValue) {
        let is_empty = match &value.value {
            None | Some(any_value::Value::Bool(_)) => true,
            Some(any_value::Value::String(text)) => text.is_empty() || is_mark(text.as_bytes()),
            Some(any_value::Value::Array(list)) => list.values.is_empty(),
            Some(any_value::Value::Map(map)) => map.values.is_empty(),
            Some(_) => false,
        };
        if is_empty {
            return;
        }
        let marked = |of: &[u8]| Some(any_value::Value::String(self.mark(of).into()));
        value.value = match value.value.take() {
            Some(any_value::Value::String(text)) => marked(text.as_bytes()),
            Some(any_value::Value::Int(number)) => marked(number.to_string().as_bytes()),
            Some(any_value::Value::Double(number)) => marked(number.to_string().as_bytes()),
            Some(any_value::Value::Bytes(bytes)) => marked(&bytes),
            Some(any_value::Value::Array(mut list)) => {
                list.values
                    .iter_mut()
                    .for_each(|element| self.blank(element));
                value.value = Some(any_value::Value::Array(list));
                return;
            }
            Some(any_value::Value::Map(map)) => marked(&prost::Message::encode_to_vec(&map)),
            other => other,
        };
        self.count(1);
    }

    fn string<T: AsRef<str> + From<String>>(&self, text: &mut T) {
        self.string_at(text, &[]);
    }

    fn string_at<T: AsRef<str> + From<String>>(&self, text: &mut T, active: &[Active<'_>]) {
        if let Some(clean) = self.text(text.as_ref().as_bytes(), active) {
            *text = lossy(clean).into();
        }
    }
}

/// The identity of what is stored, where it was that of the content; else the one that it had.
fn identity(of: i64, sent: &Canonical, stored: &Canonical) -> i64 {
    if otlp::identity_of(sent) == Some(of) {
        return otlp::identity_of(stored).unwrap_or(of);
    }
    match stored {
        // Its id was taken out of it: those of several events may be the same now.
        Canonical::Native(text)
            if native::identity_of(sent) == Some(of) && native::identity_of(stored) != Some(of) =>
        {
            native::identity_by_content(text)
        }
        _ => of,
    }
}

#[cfg(test)]
mod tests;
