//! Reading JSON of people's making: every mistake is said, and where it is.

use serde_json::{Map, Value};

/// Mistakes that are listed; nobody reads more at once.
const MAX_MISTAKES: usize = 20;

/// Collects what is wrong, each as `path: what`.
#[derive(Default)]
pub(super) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(super) fn add(&mut self, path: &str, what: impl AsRef<str>) {
        if self.0.len() < MAX_MISTAKES {
            self.0.push(if path.is_empty() {
                what.as_ref().to_owned()
            } else {
                format!("{path}: {}", what.as_ref())
            });
        }
    }

    /// The value, if nothing was wrong with it.
    ///
    /// # Errors
    /// What was.
    pub(super) fn end<T>(self, value: T) -> Result<T, Vec<String>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}

/// Which spellings of a key are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    Snake,
    /// `snake_case` or `camelCase`.
    Both,
}

/// An object and where it stands.
pub(super) struct Fields<'a> {
    pub(super) path: String,
    object: &'a Map<String, Value>,
    spelling: Spelling,
}

impl<'a> Fields<'a> {
    pub(super) fn of(
        value: &'a Value,
        path: String,
        spelling: Spelling,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        match value {
            Value::Object(object) => Some(Self {
                path,
                object,
                spelling,
            }),
            other => {
                mistakes.add(&path, format!("must be an object, it is {}", kind(other)));
                None
            }
        }
    }

    /// Says of every other key that nobody knows it.
    pub(super) fn only(&self, known: &[&str], mistakes: &mut Mistakes) {
        for key in self.object.keys() {
            let is_known = known.iter().any(|name| {
                name == key || (self.spelling == Spelling::Both && camel(name) == *key)
            });
            if !is_known {
                mistakes.add(&self.path, format!("unknown key `{key}`"));
            }
        }
    }

    /// The value of a key that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        let value = self.object.get(name).or_else(|| match self.spelling {
            Spelling::Both => self.object.get(&camel(name)),
            Spelling::Snake => None,
        });
        value.filter(|value| !value.is_null())
    }

    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub(super) fn text(&self, name: &str, mistakes: &mut Mistakes) -> Option<&'a str> {
        match self.get(name)? {
            Value::String(text) => Some(text),
            other => {
                mistakes.add(
                    &self.at(name),
                    format!("must be a text, it is {}", kind(other)),
                );
                None
            }
        }
    }

    pub(super) fn required_text(&self, name: &str, mistakes: &mut Mistakes) -> &'a str {
        if self.get(name).is_none() {
            mistakes.add(&self.at(name), "missing");
        }
        self.text(name, mistakes).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str, mistakes: &mut Mistakes) -> Option<f64> {
        let value = self.get(name)?;
        if value.as_f64().is_none() {
            mistakes.add(
                &self.at(name),
                format!("must be a number, it is {}", kind(value)),
            );
        }
        value.as_f64()
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count(
        &self,
        name: &str,
        least: u64,
        most: u64,
        mistakes: &mut Mistakes,
    ) -> Option<u64> {
        let value = self.get(name)?;
        let count = value
            .as_u64()
            .filter(|count| (least..=most).contains(count));
        if count.is_none() {
            let rule = format!("must be a whole number from {least} to {most}");
            mistakes.add(&self.at(name), rule);
        }
        count
    }

    pub(super) fn list(&self, name: &str, mistakes: &mut Mistakes) -> Option<&'a [Value]> {
        match self.get(name)? {
            Value::Array(items) => Some(items),
            other => {
                mistakes.add(
                    &self.at(name),
                    format!("must be a list, it is {}", kind(other)),
                );
                None
            }
        }
    }

    pub(super) fn object(
        &self,
        name: &str,
        mistakes: &mut Mistakes,
    ) -> Option<&'a Map<String, Value>> {
        match self.get(name)? {
            Value::Object(object) => Some(object),
            other => {
                mistakes.add(
                    &self.at(name),
                    format!("must be an object, it is {}", kind(other)),
                );
                None
            }
        }
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `user_content` to `userContent`.
pub(super) fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            camel.extend(c.to_uppercase());
            upper = false;
        } else {
            camel.push(c);
        }
    }
    camel
}
