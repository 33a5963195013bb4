//! Where judges are: a model's name to an address, a form and a key. Keys come from the environment only.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `OPENAI_API_KEY` | none | for `openai/..`; needed unless `OPENAI_BASE_URL` is set |
//! | `OPENAI_BASE_URL` | `https://api.openai.com/v1` | any server that has `/chat/completions` |
//! | `ANTHROPIC_API_KEY` | none | for `anthropic/..` |
//! | `ANTHROPIC_BASE_URL` | `https://api.anthropic.com` | |
//! | `GOOGLE_API_KEY`, else `GEMINI_API_KEY` | none | for `gemini-..` |
//! | `GEMINI_BASE_URL` | `https://generativelanguage.googleapis.com` | |
//! | `OLLAMA_API_BASE`, else `OLLAMA_HOST` | `http://127.0.0.1:11434` | for `ollama/..` |

use std::fmt;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tailspan_core::{eval::judge::Question, model::Usage};
use url::Url;

/// Addresses and keys of those who may be asked.
#[derive(Clone, Default)]
pub struct Providers {
    openai: Endpoint,
    anthropic: Endpoint,
    gemini: Endpoint,
    ollama: Endpoint,
}

#[derive(Clone, Default)]
struct Endpoint {
    /// As the environment says it.
    base: Option<String>,
    key: Option<String>,
}

/// Without keys.
impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").finish_non_exhaustive()
    }
}

/// The form in which a provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// OpenAI's own chat completions.
    OpenAi,
    /// Chat completions of others, who may know less.
    OpenAiLike,
    /// The same, of Ollama.
    Ollama,
    Anthropic,
    Gemini,
}

/// A model that can be asked.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) form: Form,
    /// Its own name, without the provider's.
    pub(super) name: String,
    /// As prices call the provider.
    pub(super) provider: &'static str,
    pub(super) url: Url,
    /// Marked sensitive.
    pub(super) headers: HeaderMap,
    key: Option<String>,
}

impl Model {
    /// A text of the provider's (an error that repeats the key, say) without the key.
    pub(super) fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "***"),
            None => text.to_owned(),
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) usage: Usage,
}

impl Providers {
    /// Reads the variables of the table above.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| {
            let value = var(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        let endpoint = |base: Option<String>, key: Option<String>| Endpoint { base, key };
        let host = said("OLLAMA_HOST").map(|host| match host.contains("://") {
            true => host,
            false => format!("http://{host}"),
        });
        Self {
            openai: endpoint(said("OPENAI_BASE_URL"), said("OPENAI_API_KEY")),
            anthropic: endpoint(said("ANTHROPIC_BASE_URL"), said("ANTHROPIC_API_KEY")),
            gemini: endpoint(
                said("GEMINI_BASE_URL"),
                said("GOOGLE_API_KEY").or_else(|| said("GEMINI_API_KEY")),
            ),
            ollama: endpoint(said("OLLAMA_API_BASE").or(host), None),
        }
    }

    /// The model of this name: `openai/gpt-4o`, `anthropic/claude-..`, `gemini-..`, `ollama/..`; names that begin with `gpt-` or `claude-` tell their provider.
    ///
    /// # Errors
    /// A sentence for people: nobody has a model of this name, or a key is missing.
    pub(super) fn model(&self, name: &str) -> Result<Model, String> {
        let (provider, plain) = match name.split_once('/') {
            Some((provider, plain)) if !plain.is_empty() => (provider, plain),
            _ if name.starts_with("gemini-") => ("gemini", name),
            _ if name.starts_with("gpt-") => ("openai", name),
            _ if name.starts_with("claude-") => ("anthropic", name),
            _ => ("", name),
        };
        match provider {
            "openai" => {
                let own = self.openai.base.is_some();
                let key = match (&self.openai.key, own) {
                    (None, false) => return Err("OPENAI_API_KEY is not set".to_owned()),
                    (key, _) => key.as_deref(),
                };
                let base = self.openai.base.as_deref();
                let form = if own { Form::OpenAiLike } else { Form::OpenAi };
                let url = address(
                    base.unwrap_or("https://api.openai.com/v1"),
                    "chat/completions",
                )?;
                model(form, plain, "openai", url, key, "authorization")
            }
            "ollama" | "ollama_chat" => {
                let base = self.ollama.base.as_deref();
                let url = address(
                    base.unwrap_or("http://127.0.0.1:11434"),
                    "v1/chat/completions",
                )?;
                model(Form::Ollama, plain, "ollama", url, None, "authorization")
            }
            "anthropic" => {
                let key = self.anthropic.key.as_deref();
                let key = key.ok_or("ANTHROPIC_API_KEY is not set")?;
                let base = self.anthropic.base.as_deref();
                let url = address(base.unwrap_or("https://api.anthropic.com"), "v1/messages")?;
                let mut model = model(
                    Form::Anthropic,
                    plain,
                    "anthropic",
                    url,
                    Some(key),
                    "x-api-key",
                )?;
                model.headers.insert(
                    HeaderName::from_static("anthropic-version"),
                    HeaderValue::from_static("2023-06-01"),
                );
                Ok(model)
            }
            "gemini" | "google" => {
                let key = self.gemini.key.as_deref();
                let key = key.ok_or("GOOGLE_API_KEY is not set")?;
                // It becomes a part of the path.
                let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if !plain.chars().all(is_name) {
                    return Err(format!("`{plain}` is no name of a Gemini model"));
                }
                let base = self.gemini.base.as_deref();
                let base = base.unwrap_or("https://generativelanguage.googleapis.com");
                let url = address(base, &format!("v1beta/models/{plain}:generateContent"))?;
                model(
                    Form::Gemini,
                    plain,
                    "gemini",
                    url,
                    Some(key),
                    "x-goog-api-key",
                )
            }
            _ => Err(format!(
                "`{name}` names no provider: write openai/.., anthropic/.., gemini-.. or ollama/.."
            )),
        }
    }
}

fn address(base: &str, path: &str) -> Result<Url, String> {
    let text = format!("{}/{path}", base.trim_end_matches('/'));
    let url = Url::parse(&text).map_err(|error| format!("`{base}` is no address: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(format!("`{base}` is no address of http or https")),
    }
}

fn model(
    form: Form,
    name: &str,
    provider: &'static str,
    url: Url,
    key: Option<&str>,
    header: &'static str,
) -> Result<Model, String> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let value = match header {
            "authorization" => format!("Bearer {key}"),
            _ => key.to_owned(),
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| "the key has characters that no header may have".to_owned())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(header), value);
    }
    Ok(Model {
        form,
        name: name.to_owned(),
        provider,
        url,
        headers,
        key: key.map(str::to_owned),
    })
}

/// The body of a question.
pub(super) fn body(model: &Model, question: &Question) -> Value {
    let most = question.max_answer_tokens;
    match model.form {
        Form::OpenAi | Form::OpenAiLike | Form::Ollama => {
            let mut body = json!({
                "model": model.name,
                "messages": [
                    {"role": "system", "content": question.system},
                    {"role": "user", "content": &*question.prompt},
                ],
            });
            // OpenAI's reasoning models refuse `max_tokens`, others know nothing else; a server that we know nothing of may not know the format.
            let (limit, has_format) = match model.form {
                Form::OpenAi => ("max_completion_tokens", true),
                Form::Ollama => ("max_tokens", true),
                _ => ("max_tokens", false),
            };
            if let Some(body) = body.as_object_mut() {
                body.insert(limit.to_owned(), json!(most));
                if has_format {
                    let format = json!({"type": "json_object"});
                    body.insert("response_format".to_owned(), format);
                }
            }
            body
        }
        Form::Anthropic => json!({
            "model": model.name,
            "max_tokens": most,
            "system": question.system,
            "messages": [{"role": "user", "content": &*question.prompt}],
        }),
        Form::Gemini => json!({
            "systemInstruction": {"parts": [{"text": question.system}]},
            "contents": [{"role": "user", "parts": [{"text": &*question.prompt}]}],
            // Gemini counts what it thinks as output.
            "generationConfig": {"maxOutputTokens": most.saturating_mul(4), "responseMimeType": "application/json"},
        }),
    }
}

/// What a provider answered; a text that is missing is an empty one, which no judge's reader takes for an answer.
pub(super) fn answer(form: Form, body: &Value) -> Answer {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let count = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let parts = |pointer: &str| -> String {
        let parts = body.pointer(pointer).and_then(Value::as_array);
        parts
            .into_iter()
            .flatten()
            .filter(|part| part.get("thought") != Some(&Value::Bool(true)))
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect()
    };
    match form {
        Form::OpenAi | Form::OpenAiLike | Form::Ollama => Answer {
            text: match text("/choices/0/message/content") {
                Some(text) => text.to_owned(),
                None => parts("/choices/0/message/content"),
            },
            usage: Usage {
                input: count("/usage/prompt_tokens"),
                output: count("/usage/completion_tokens"),
                cache_read: count("/usage/prompt_tokens_details/cached_tokens"),
                ..Usage::default()
            },
        },
        Form::Anthropic => {
            let (read, write) = (
                count("/usage/cache_read_input_tokens"),
                count("/usage/cache_creation_input_tokens"),
            );
            Answer {
                text: parts("/content"),
                usage: Usage {
                    // Anthropic tells apart what our own numbers hold together.
                    input: count("/usage/input_tokens") + read + write,
                    output: count("/usage/output_tokens"),
                    cache_read: read,
                    cache_write: write,
                    ..Usage::default()
                },
            }
        }
        Form::Gemini => Answer {
            text: parts("/candidates/0/content/parts"),
            usage: Usage {
                input: count("/usageMetadata/promptTokenCount"),
                output: count("/usageMetadata/candidatesTokenCount")
                    + count("/usageMetadata/thoughtsTokenCount"),
                cache_read: count("/usageMetadata/cachedContentTokenCount"),
                ..Usage::default()
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers(vars: &[(&str, &str)]) -> Providers {
        Providers::from_vars(|name| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn names_tell_whom_to_ask() {
        let all = providers(&[
            ("OPENAI_API_KEY", "k1"),
            ("ANTHROPIC_API_KEY", "k2"),
            ("GEMINI_API_KEY", "k3"),
            ("OLLAMA_HOST", "box:1"),
        ]);
        for (name, url) in [
            (
                "openai/gpt-4o",
                "https://api.openai.com/v1/chat/completions",
            ),
            ("gpt-4o", "https://api.openai.com/v1/chat/completions"),
            (
                "anthropic/claude-x",
                "https://api.anthropic.com/v1/messages",
            ),
            (
                "gemini-2.5-flash",
                "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
            ),
            ("ollama/llama3:8b", "http://box:1/v1/chat/completions"),
        ] {
            assert_eq!(all.model(name).unwrap().url.as_str(), url, "{name}");
        }
        assert_eq!(all.model("openai/gpt-4o").unwrap().name, "gpt-4o");
        assert_eq!(
            all.model("openai/a").unwrap().without_key("bad key k1"),
            "bad key ***"
        );
        for name in ["llama", "", "gemini/../x", "azure/gpt"] {
            assert!(all.model(name).is_err(), "{name}");
        }
        let none = providers(&[]);
        assert_eq!(
            none.model("gpt-4o").err().unwrap(),
            "OPENAI_API_KEY is not set"
        );
        let own = providers(&[("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")]);
        let model = own.model("openai/local").unwrap();
        assert_eq!(
            (model.url.as_str(), model.headers.len()),
            ("http://127.0.0.1:9/v1/chat/completions", 0)
        );
    }

    #[test]
    fn answers_are_read_in_each_form() {
        for (form, body) in [
            (
                Form::OpenAi,
                json!({"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            ),
            (
                Form::Anthropic,
                json!({"content": [{"type": "text", "text": "a"}], "usage": {"input_tokens": 2, "cache_read_input_tokens": 1, "output_tokens": 2}}),
            ),
            (
                Form::Gemini,
                json!({"candidates": [{"content": {"parts": [{"thought": true, "text": "x"}, {"text": "a"}]}}],
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "thoughtsTokenCount": 1}}),
            ),
        ] {
            let answer = answer(form, &body);
            assert_eq!(
                (
                    answer.text.as_str(),
                    answer.usage.input,
                    answer.usage.output
                ),
                ("a", 3, 2),
                "{form:?}"
            );
        }
        assert_eq!(answer(Form::Gemini, &json!({})), Answer::default());
    }
}
