//! This function's part of the API's document (tests/openapi makes it).
#![expect(dead_code, reason = "types that only say what other code writes")]

use tailspan_service::openapi::ErrorBody;
use utoipa::{OpenApi, ToSchema};

use crate::about;

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(paths(about::health, about::config), components(schemas(DevRefusal)))]
pub struct Document;

/// An error as the dev server words it; what stands in front of its routes words it as everywhere.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum DevRefusal {
    Dev(DevError),
    Error(ErrorBody),
}

#[derive(ToSchema)]
pub(crate) struct DevError {
    pub detail: Detail,
}

/// A sentence, or what is wrong with which field.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum Detail {
    Sentence(String),
    Problems(Vec<Problem>),
}

/// What is wrong with a field of a body.
#[derive(ToSchema)]
pub(crate) struct Problem {
    /// A word for programs, as `missing` or `string_type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands: `body`, then names of fields and places in lists.
    pub loc: Vec<serde_json::Value>,
    pub msg: String,
    /// What stood there; null when it is long.
    pub input: serde_json::Value,
    /// More about it.
    #[schema(nullable = false)]
    pub ctx: Option<serde_json::Value>,
}
