//! Spans and log records of frames, kept word for word as the JSON that they came as: names and structure are in it as OTLP's JSON has them, and so are bytes, which no look at the text sees.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{Pass, is_mark, paths, paths::Active};
use crate::wire::{AnyValue, any_value};

impl Pass<'_> {
    /// Takes out of what came word for word what is taken out of what was read of it.
    pub(super) fn frame(&self, value: &mut AnyValue) {
        let Some(any_value::Value::String(text)) = &mut value.value else {
            return;
        };
        if let Ok(mut said) = serde_json::from_str(text) {
            let before = self.redacted.get();
            self.part(&mut said);
            if self.redacted.get() > before {
                *text = said.to_string().into();
            }
        }
        self.string(text);
    }

    /// A part of a frame, with attributes somewhere in it.
    fn part(&self, said: &mut Value) {
        match said {
            Value::Array(list) => list.iter_mut().for_each(|each| self.part(each)),
            Value::Object(fields) => match named(fields) {
                Some(name) => {
                    if let Some(value) = fields.get_mut("value") {
                        self.any_json(value, &self.rules.paths_at(Some(&name)));
                    }
                }
                None => {
                    for (name, value) in fields {
                        match (name.as_str(), value) {
                            // As the dialect's own client writes those of a log record.
                            ("attributes", Value::Object(attributes)) => {
                                for (name, value) in attributes {
                                    self.plain(value, &self.rules.paths_at(Some(name)));
                                }
                            }
                            ("body", body) => self.any_json(body, &self.rules.paths_at_fields()),
                            (_, value) => self.part(value),
                        }
                    }
                }
            },
            _ => {}
        }
    }

    /// A value in OTLP's JSON form, or one that is plain JSON.
    fn any_json(&self, value: &mut Value, active: &[Active<'_>]) {
        let only = match value {
            Value::Object(fields) if fields.len() == 1 => fields.iter_mut().next(),
            _ => None,
        };
        match only {
            Some((kind, Value::String(text))) if kind == "stringValue" => {
                self.string_at(text, active);
            }
            Some((kind, Value::String(text))) if kind == "bytesValue" => {
                let bytes = STANDARD.decode(text.as_bytes()).unwrap_or_default();
                if let Some(clean) = self.text(&bytes, active) {
                    *text = STANDARD.encode(clean);
                }
            }
            Some((kind, Value::Object(list))) if kind == "arrayValue" => {
                for (at, element) in values_of(list).enumerate() {
                    self.step(element, active, paths::Step::Element(at));
                }
            }
            Some((kind, Value::Object(list))) if kind == "kvlistValue" => {
                for pair in values_of(list).filter_map(Value::as_object_mut) {
                    if let Some(name) = named(pair)
                        && let Some(value) = pair.get_mut("value")
                    {
                        self.step(value, active, paths::Step::Field(&name));
                    }
                }
            }
            _ => self.plain(value, active),
        }
    }

    fn step(&self, value: &mut Value, active: &[Active<'_>], step: paths::Step<'_>) {
        let (left, is_end) = paths::step(active, step);
        if !is_end {
            return self.any_json(value, &left);
        }
        let is_done = value["stringValue"]
            .as_str()
            .is_some_and(|text| text.is_empty() || is_mark(text.as_bytes()));
        if !is_done {
            *value = json!({"stringValue": self.mark(value.to_string().as_bytes())});
            self.count(1);
        }
    }

    fn plain(&self, value: &mut Value, active: &[Active<'_>]) {
        if active.is_empty() || value.is_null() {
            return;
        }
        if let Some(clean) = self.text(value.to_string().as_bytes(), active) {
            // What cannot be read any more is not kept.
            *value = serde_json::from_slice(&clean)
                .unwrap_or_else(|_| Value::String(super::REDACTED.to_owned()));
        }
    }
}

/// The name of what is an attribute.
fn named(fields: &Map<String, Value>) -> Option<String> {
    let name = fields.get("key")?.as_str()?;
    fields.contains_key("value").then(|| name.to_owned())
}

fn values_of(list: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    let values = list.get_mut("values").and_then(Value::as_array_mut);
    values.into_iter().flatten()
}
