//! The API's document, and a page that shows it to people. Both are made with the program: neither asks for a token or for anything outside.

use std::sync::LazyLock;

use axum::{
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    response::{Html, IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// Written by tests/openapi, which fails when it is not that of the code.
const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
const PAGE: &str = include_str!("docs.html");

/// Only what stands in the page itself may run or style it, and it may ask its own server alone.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let inside = PAGE
            .split_once(&format!("<{tag}>"))
            .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
            .map_or("", |(inside, _)| inside);
        STANDARD.encode(Sha256::digest(inside))
    };
    let (script, style) = (hash("script"), hash("style"));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// This document: OpenAPI 3.1.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/openapi.json", tag = "process", security(()),
    responses((status = 200, description = "the document", body = Object, content_type = "application/json")),
))]
pub(crate) async fn document() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], DOCUMENT).into_response()
}

/// This document, for people.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/docs", tag = "process", security(()),
    responses((status = 200, description = "a page of its own, which needs nothing from elsewhere", body = String, content_type = "text/html")),
))]
pub(crate) async fn page() -> Response {
    const NOT_GUESSED: (HeaderName, HeaderValue) =
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    const NOT_TOLD: (HeaderName, HeaderValue) =
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    headers.extend([NOT_GUESSED, NOT_TOLD]);
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
