//! Reading what is sent: JSON bodies field by field, uploaded files; all within bounds, and what is wrong with them in the dev server's words.

use axum::{
    body::Body,
    extract::{FromRequest as _, Multipart, Request},
    http::header::CONTENT_TYPE,
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tailspan_service::body::{Intake, Share, header};

use crate::answer::Refusal;

/// Of a JSON body that is only names and choices.
pub(crate) const SMALL_BODY_BYTES: usize = 1024 * 1024;
/// Of a JSON body that brings traces.
pub(crate) const JSON_BODY_BYTES: usize = 50 * 1024 * 1024;
/// Of one uploaded file.
pub(crate) const FILE_BYTES: usize = 10 * 1024 * 1024;
/// Of all files of a request.
const FORM_BYTES: usize = 64 * 1024 * 1024;
/// Files and fields of a request.
const MOST_PARTS: usize = 1000;
/// What is wrong is told beside it, unless it is longer.
const SHOWN_BYTES: usize = 1000;

/// The fields of a JSON body, and what was found to be wrong with them. The body counts as in flight for as long as this lives.
pub(crate) struct Fields {
    fields: Map<String, Value>,
    problems: Vec<Value>,
    _share: Share,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// 413 beyond `limit` bytes, 422 for what is no JSON object, 429, 503.
    pub(crate) async fn read(
        intake: &Intake,
        request: Request,
        limit: usize,
    ) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let content_type = header(&parts.headers, &CONTENT_TYPE).map(str::to_owned);
        let (body, mut share) = read(intake, &parts.headers, body, limit).await?;
        // Parsed it may need several times its size.
        intake.grow(&mut share, body.len().saturating_mul(4))?;
        let fields = intake
            .decode(body, false, move |body| {
                object(content_type.as_deref(), body)
            })
            .await?;
        Ok(Self {
            fields,
            problems: Vec::new(),
            _share: share,
        })
    }

    /// A text that has to be there.
    pub(crate) fn text(&mut self, name: &str) -> String {
        match self.fields.remove(name) {
            Some(Value::String(text)) => text,
            Some(other) => {
                self.wrong("string_type", name, "Input should be a valid string", other);
                String::new()
            }
            None => self.missing(name),
        }
    }

    /// A text that may be absent or null.
    pub(crate) fn optional_text(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.wrong("string_type", name, "Input should be a valid string", other);
                None
            }
        }
    }

    /// A list of texts; `None` when it is absent.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let list = self.list(name)?;
        let mut texts = Vec::with_capacity(list.len());
        for (at, value) in list.into_iter().enumerate() {
            match value {
                Value::String(text) => texts.push(text),
                other => self.problems.push(problem(
                    "string_type",
                    &[json!("body"), json!(name), json!(at)],
                    "Input should be a valid string",
                    &other,
                )),
            }
        }
        Some(texts)
    }

    /// A list; `None` when it is absent.
    pub(crate) fn list(&mut self, name: &str) -> Option<Vec<Value>> {
        match self.fields.remove(name)? {
            Value::Array(list) => Some(list),
            other => {
                self.wrong("list_type", name, "Input should be a valid list", other);
                None
            }
        }
    }

    /// Whatever stands under a name.
    pub(crate) fn any(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name)
    }

    /// An object; `None` when it is absent or null.
    pub(crate) fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.fields.remove(name)? {
            Value::Null => None,
            Value::Object(object) => Some(object),
            other => {
                let says = "Input should be a valid dictionary";
                self.wrong("dict_type", name, says, other);
                None
            }
        }
    }

    /// Notes that a field has to be there.
    pub(crate) fn missing<T: Default>(&mut self, name: &str) -> T {
        let at = [json!("body"), json!(name)];
        let problem = problem("missing", &at, "Field required", &Value::Null);
        self.problems.push(problem);
        T::default()
    }

    /// Notes that a field is of another kind.
    pub(crate) fn wrong(&mut self, kind: &str, name: &str, says: &str, found: Value) {
        let at = [json!("body"), json!(name)];
        self.problems.push(problem(kind, &at, says, &found));
    }

    /// Says what was wrong with the fields that were read.
    ///
    /// # Errors
    /// 422.
    pub(crate) fn check(&mut self) -> Result<(), Refusal> {
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(Refusal::misshapen(std::mem::take(&mut self.problems))),
        }
    }
}

/// One of the things that are wrong with a body, in the form of the original's framework.
pub(crate) fn problem(kind: &str, at: &[Value], says: &str, found: &Value) -> Value {
    // What is large is not sent back.
    let is_short = match found {
        Value::String(text) => text.len() <= SHOWN_BYTES,
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    };
    let found = if is_short { found } else { &Value::Null };
    json!({"type": kind, "loc": at, "msg": says, "input": found})
}

fn object(content_type: Option<&str>, body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let at_body = [json!("body")];
    if body.is_empty() {
        let missing = problem("missing", &at_body, "Field required", &Value::Null);
        return Err(Refusal::misshapen(vec![missing]));
    }
    let kind = content_type.map(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().to_ascii_lowercase()
    });
    let is_json = kind.is_none_or(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    let found = match is_json {
        true => serde_json::from_slice::<Value>(body).map_err(|error| {
            let mut wrong = problem(
                "json_invalid",
                &[json!("body"), json!(error.column())],
                "JSON decode error",
                &Value::Null,
            );
            wrong["ctx"] = json!({"error": error.to_string()});
            Refusal::misshapen(vec![wrong])
        })?,
        false => Value::Null,
    };
    match found {
        Value::Object(fields) => Ok(fields),
        other => {
            let says = "Input should be a valid dictionary or object to extract fields from";
            let wrong = problem("model_attributes_type", &at_body, says, &other);
            Err(Refusal::misshapen(vec![wrong]))
        }
    }
}

/// An uploaded file, or a field of a form.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    name: String,
    /// As its sender calls it; nothing of it becomes a path.
    pub(crate) file_name: Option<String>,
    pub(crate) bytes: Bytes,
}

impl Part {
    /// The file's name, empty for a field that is no file.
    pub(crate) fn called(&self) -> &str {
        self.file_name.as_deref().unwrap_or_default()
    }
}

/// What a form brought. Its files count as in flight for as long as this lives.
pub(crate) struct Form {
    parts: Vec<Part>,
    _share: Share,
}

impl Form {
    /// Reads a form. What is no form at all has no fields.
    ///
    /// # Errors
    /// 400 for a form that breaks off, 413 beyond what a request may bring, 429, 503.
    pub(crate) async fn read(intake: &Intake, request: Request) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let (body, share) = read(intake, &parts.headers, body, FORM_BYTES).await?;
        let whole = Request::from_parts(parts, Body::from(body));
        let mut form = Self {
            parts: Vec::new(),
            _share: share,
        };
        let Ok(mut multipart) = Multipart::from_request(whole, &()).await else {
            return Ok(form);
        };
        loop {
            let field = multipart.next_field().await.map_err(broken)?;
            let Some(field) = field else { return Ok(form) };
            if form.parts.len() == MOST_PARTS {
                let says = format!("A form may have {MOST_PARTS} fields and files");
                return Err(Refusal::too_large(says));
            }
            form.parts.push(Part {
                name: field.name().unwrap_or_default().to_owned(),
                file_name: field.file_name().map(str::to_owned),
                bytes: field.bytes().await.map_err(broken)?,
            });
        }
    }

    /// The files of a name, and `Err` when there is none.
    pub(crate) fn files(&self, name: &str) -> Result<Vec<&Part>, Value> {
        let of_name = || self.parts.iter().filter(|part| part.name == name);
        if let Some(text) = of_name().find(|part| part.file_name.is_none()) {
            let found = Value::String(String::from_utf8_lossy(&text.bytes).into_owned());
            let at = [json!("body"), json!(name)];
            return Err(problem(
                "value_error",
                &at,
                "Value error, a file is expected",
                &found,
            ));
        }
        let files: Vec<_> = of_name().collect();
        match files.is_empty() {
            true => Err(absent(name)),
            false => Ok(files),
        }
    }

    /// The last file of a name; one that nobody chose is none.
    pub(crate) fn file(&self, name: &str) -> Option<&Part> {
        let files = self.parts.iter().filter(|part| part.name == name);
        files.rev().find(|part| !part.called().is_empty())
    }

    /// The last text of a name.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let texts = self.parts.iter().filter(|part| part.name == name);
        let text = texts.rev().find(|part| part.file_name.is_none())?;
        Some(String::from_utf8_lossy(&text.bytes).into_owned())
    }
}

/// That a field of a form has to be there.
pub(crate) fn absent(name: &str) -> Value {
    let at = [json!("body"), json!(name)];
    problem("missing", &at, "Field required", &Value::Null)
}

fn broken(error: axum::extract::multipart::MultipartError) -> Refusal {
    Refusal::unusable(format!(
        "There was an error parsing the body: {}",
        error.body_text()
    ))
}

/// A body within a limit, worded as the dev server does.
async fn read(
    intake: &Intake,
    headers: &axum::http::HeaderMap,
    body: Body,
    limit: usize,
) -> Result<(Bytes, Share), Refusal> {
    let read = intake.read(headers, body, limit).await;
    read.map_err(|error| match error.code {
        "body_too_large" => {
            let megabytes = limit / (1024 * 1024);
            Refusal::too_large(format!("Request body exceeds {megabytes}MB limit"))
        }
        _ => error.into(),
    })
}
