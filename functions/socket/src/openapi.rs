//! This function's part of the API's document (tests/openapi makes it).

use utoipa::OpenApi;

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(paths(crate::upgrade))]
pub struct Document;
