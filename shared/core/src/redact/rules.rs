//! Rules as they are written, and as they are applied.

use std::collections::HashMap;

use regex::bytes::Regex;
use serde_json::{Map, Value};

use super::{
    Mode,
    paths::{PathRule, Segment},
    patterns::{self, Pattern, compile},
    quick::Quick,
};
use crate::{id::TenantId, live::wire_form::VERBATIM};

/// Names that always stand for something secret, alone or at the end of a longer name (`http.request.header.authorization`, `OPENAI_API_KEY`), with or without one of `_ - .` or a space between words.
/// Counts of tokens end otherwise.
const SECRET_NAMES: &str = r"(?i:authorization|api[_. -]?keys?|passwords?|passwd|passphrase|secrets?|cookies?|(?:access|refresh|session|auth|bearer|security)[_. -]?token|secret[_. -]?(?:access[_. -]?)?key|private[_. -]?key)";
/// What flattened lists put behind a name.
const PLACES: &str = r"(?:[.\[]?[0-9]+\]?)*";

/// ASCII that JSON may write as `\u00..`, which would hide it from a look at the bytes.
pub(super) const HIDDEN: &str = r"\\u00[2-7]";

/// Rules of one request or tenant, or of all.
const MAX_RULES: usize = 1_000;
const MAX_RULE_BYTES: usize = 1_024;

/// What is asked for beyond what is always done. Written as JSON:
///
/// ```json
/// {"names": ["user.email", "*.ssn"], "paths": ["gen_ai.tool.call.arguments $.customer.iban", "$..birthday"],
///  "patterns": ["email", "card", "/EMP-[0-9]{6}/"], "content": "off", "mode": "hmac", "tenants": {"team-a": {"patterns": ["email"]}}}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub(super) names: Vec<String>,
    pub(super) paths: Vec<String>,
    pub(super) patterns: Vec<String>,
    pub(super) content_off: Option<bool>,
    pub(super) mode: Option<Mode>,
    pub(super) tenants: HashMap<TenantId, Rules>,
}

impl Rules {
    /// Reads rules; `{}` asks for nothing.
    ///
    /// # Errors
    /// Every part that is none, with what it should be.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => {
                let mut mistakes = Vec::new();
                let rules = Self::of(&fields, "", &mut mistakes);
                match mistakes.is_empty() {
                    true => Ok(rules),
                    false => Err(mistakes),
                }
            }
            Ok(_) => Err(vec!["rules are a JSON object".to_owned()]),
            Err(error) => Err(vec![format!("rules are a JSON object: {error}")]),
        }
    }

    fn of(fields: &Map<String, Value>, place: &str, mistakes: &mut Vec<String>) -> Self {
        let mut rules = Self::default();
        for (field, value) in fields {
            let mut wrong = |what: String| mistakes.push(format!("{place}{field}: {what}"));
            match (field.as_str(), value) {
                ("names", Value::Array(all)) => {
                    rules.names = texts(all, &mut wrong, |text| name(text).map(drop));
                }
                ("paths", Value::Array(all)) => {
                    rules.paths = texts(all, &mut wrong, |text| PathRule::parse(text).map(drop));
                }
                ("patterns", Value::Array(all)) => {
                    rules.patterns = texts(all, &mut wrong, |text| pattern(text).map(drop));
                }
                ("names" | "paths" | "patterns", _) => wrong("must be a list of texts".to_owned()),
                ("content", Value::String(text)) if text == "off" || text == "on" => {
                    rules.content_off = Some(text == "off");
                }
                ("content", _) => wrong("must be \"on\" or \"off\"".to_owned()),
                ("mode", Value::String(text)) if text == "remove" || text == "hmac" => {
                    let is_hmac = text == "hmac";
                    rules.mode = Some(if is_hmac { Mode::Hmac } else { Mode::Remove });
                }
                ("mode", _) => wrong("must be \"remove\" or \"hmac\"".to_owned()),
                ("tenants", Value::Object(all)) if place.is_empty() => {
                    for (tenant, fields) in all {
                        match (TenantId::parse(tenant), fields) {
                            (Ok(id), Value::Object(fields)) => {
                                let place = format!("tenants.{tenant}.");
                                let of = Self::of(fields, &place, mistakes);
                                rules.tenants.insert(id, of);
                            }
                            (Err(invalid), _) => {
                                mistakes.push(format!("tenants: \"{tenant}\": {invalid}"));
                            }
                            (Ok(_), _) => mistakes
                                .push(format!("tenants.{tenant}: must be an object of rules")),
                        }
                    }
                }
                ("tenants", _) => wrong("must be an object of rules by tenant".to_owned()),
                _ => wrong("is no rule: names, paths, patterns, content, mode, tenants".to_owned()),
            }
        }
        rules
    }

    /// Whether equal values shall stay recognisable somewhere, for which a key is needed.
    pub fn needs_key(&self) -> bool {
        let of_tenants = self.tenants.values();
        self.mode == Some(Mode::Hmac)
            || of_tenants
                .into_iter()
                .any(|rules| rules.mode == Some(Mode::Hmac))
    }

    /// Whether some are for single tenants.
    pub fn names_tenants(&self) -> bool {
        !self.tenants.is_empty()
    }

    /// These, and those beside them; where both say how, the later ones say.
    pub(super) fn with(&self, more: &Self) -> Self {
        let both = |one: &[String], other: &[String]| [one, other].concat();
        Self {
            names: both(&self.names, &more.names),
            paths: both(&self.paths, &more.paths),
            patterns: both(&self.patterns, &more.patterns),
            content_off: more.content_off.or(self.content_off),
            mode: more.mode.or(self.mode),
            tenants: HashMap::new(),
        }
    }
}

fn texts(
    all: &[Value],
    wrong: &mut impl FnMut(String),
    check: impl Fn(&str) -> Result<(), String>,
) -> Vec<String> {
    if all.len() > MAX_RULES {
        wrong(format!(
            "has {} entries, at most {MAX_RULES} are taken",
            all.len()
        ));
        return Vec::new();
    }
    let mut taken = Vec::new();
    for (at, value) in all.iter().enumerate() {
        match value {
            Value::String(text) if text.len() <= MAX_RULE_BYTES => match check(text) {
                Ok(()) => taken.push(text.clone()),
                Err(why) => wrong(format!("{text:?}: {why}")),
            },
            _ => wrong(format!(
                "entry {at} must be a text of at most {MAX_RULE_BYTES} bytes"
            )),
        }
    }
    taken
}

/// A name with `*` for anything, as an expression over whole names, and the longest part of it that is said.
pub(super) fn name(text: &str) -> Result<(String, String), String> {
    let text = text.trim();
    let longest = text
        .split('*')
        .max_by_key(|part| part.len())
        .unwrap_or_default();
    if longest.len() < 2 {
        return Err("a name has at least two characters that are not *".to_owned());
    }
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    Ok((parts.join("(?s:.*)"), regex::escape(longest)))
}

/// A form, and how the quick look finds it.
fn pattern(text: &str) -> Result<(Pattern, String), String> {
    if let (Some(named), Some(begin)) = (Pattern::named(text), patterns::begin_of(text)) {
        return Ok((named, begin.to_owned()));
    }
    match text
        .strip_prefix('/')
        .and_then(|text| text.strip_suffix('/'))
    {
        Some(regex) => Ok((Pattern::own(regex)?, format!("(?:{regex})"))),
        None => Err(format!(
            "must be one of {}, or an expression between slashes",
            patterns::NAMED.join(", ")
        )),
    }
}

/// Rules as they are applied.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Whether there can be anything to do in some bytes: all that any rule needs to hit.
    pub(super) quick: Quick,
    /// Parts of names: where to look whether a name of a field stands there.
    pub(super) parts_of_names: Regex,
    names: Vec<Regex>,
    /// Beside the credentials.
    patterns: Vec<Pattern>,
    pub(super) paths: Vec<PathRule>,
    pub(super) content_off: bool,
    pub(super) mode: Mode,
}

impl Compiled {
    /// # Errors
    /// Rules that are too many together.
    pub(super) fn of(rules: &Rules) -> Result<Self, String> {
        let mut quick = vec![
            HIDDEN.to_owned(),
            patterns::begin_of_credentials().to_owned(),
            // Bytes in what came as JSON are not seen before they are decoded. Other keys go on behind this one.
            format!("{}(?:[^.]|$)", regex::escape(VERBATIM)),
        ];
        let mut parts = vec![SECRET_NAMES.to_owned()];
        let mut names = vec![compile(&format!("{SECRET_NAMES}{PLACES}$"))?];
        let mut expressions = Vec::new();
        for text in &rules.names {
            let (expression, part) = name(text)?;
            expressions.push(expression);
            parts.push(format!("(?i:{part})"));
        }
        if !expressions.is_empty() {
            names.push(compile(&format!(
                "^(?i:{}){PLACES}$",
                expressions.join("|")
            ))?);
        }
        quick.extend(parts.iter().cloned());
        let mut all = Vec::new();
        for text in &rules.patterns {
            let (pattern, begin) = pattern(text)?;
            all.push(pattern);
            quick.push(begin);
        }
        let mut paths = Vec::new();
        for text in &rules.paths {
            let rule = PathRule::parse(text)?;
            quick.push(format!("(?i:{})", regex::escape(rule.part())));
            paths.push(rule);
        }
        Ok(Self {
            quick: Quick::new(&quick.join("|"))?,
            parts_of_names: compile(&parts.join("|"))?,
            names,
            patterns: all,
            paths,
            content_off: rules.content_off == Some(true),
            mode: rules.mode.unwrap_or_default(),
        })
    }

    /// All forms that are looked for.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        Pattern::credentials().iter().chain(&self.patterns)
    }

    /// Whether what stands under this name is secret.
    pub(super) fn is_secret_name(&self, name: &[u8]) -> bool {
        self.names.iter().any(|regex| regex.is_match(name))
    }

    /// How far the paths are fulfilled at the value of an attribute, or at a text that has no name.
    pub(super) fn paths_at(&self, attribute: Option<&str>) -> Vec<super::paths::Active<'_>> {
        let rules = self.paths.iter();
        rules.filter_map(|rule| rule.at(attribute)).collect()
    }

    /// As [`Compiled::paths_at`], at an object whose fields are what attributes are elsewhere.
    pub(super) fn paths_at_fields(&self) -> Vec<super::paths::Active<'_>> {
        let rules = self.paths.iter();
        rules.map(PathRule::at_fields).collect()
    }
}

/// A segment's own words, for the quick look.
pub(super) fn longest_part(segments: &[Segment]) -> Option<&str> {
    segments.iter().rev().find_map(|segment| match segment {
        Segment::Field(name) => {
            let part = name.split('*').max_by_key(|part| part.len())?;
            (part.len() >= 2).then_some(part)
        }
        _ => None,
    })
}
