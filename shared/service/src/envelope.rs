//! The envelope of seed 001: `{"code", "message", "data"}` around every answer of `/v1/trace`, under the true HTTP status.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::error::Told;

/// The seed's codes: done, an argument is wrong, there is no such thing, not allowed to ask, anything else.
const DONE: u16 = 0;
const WRONG_ARGUMENT: u16 = 101;
const NOT_FOUND: u16 = 102;
const UNAUTHORIZED: u16 = 401;
const FAILED: u16 = 100;

/// An answer's data in the envelope.
#[derive(Clone, Debug)]
pub struct Enveloped<T>(pub T);

impl<T: Serialize> IntoResponse for Enveloped<T> {
    fn into_response(self) -> Response {
        Json(json!({"code": DONE, "message": "success", "data": self.0})).into_response()
    }
}

/// Puts an error into the envelope; what is no error passes. For a layer around the routes of `/v1/trace`.
pub async fn put_errors_in(response: Response) -> Response {
    let Some(told) = response.extensions().get::<Told>().cloned() else {
        return response;
    };
    let (mut parts, _) = response.into_parts();
    let body = error(parts.status, told.code, &told.message);
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    let mut enveloped = (parts.status, Json(body)).into_response();
    for (name, value) in &parts.headers {
        enveloped
            .headers_mut()
            .entry(name)
            .or_insert_with(|| value.clone());
    }
    enveloped
}

/// An error in the envelope.
pub fn error(status: StatusCode, code: &str, message: &str) -> serde_json::Value {
    let seeds = match status {
        StatusCode::NOT_FOUND => NOT_FOUND,
        StatusCode::UNAUTHORIZED => UNAUTHORIZED,
        status if status.is_client_error() => WRONG_ARGUMENT,
        _ => FAILED,
    };
    json!({"code": seeds, "message": message, "data": null, "error": code})
}
