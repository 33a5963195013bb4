//! `/api/validate/eval-set`.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use tailspan_core::eval::EvalSet;
use tailspan_service::extract::{Read, Tenant};

use crate::{
    Evaluate,
    answer::{Answer, Refusal},
    request::{FILE_BYTES, Form, Part},
};

/// What was found of an eval set.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Validation {
    valid: bool,
    eval_set_id: Option<String>,
    num_cases: Option<usize>,
    /// Each with its place; at most 20.
    errors: Vec<String>,
}

/// Whether a file is an eval set; what is wrong with it is told with 200, too.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/validate/eval-set", tag = "dev", operation_id = "dev_validate_eval_set",
    request_body(content = crate::openapi::EvalSetForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "what was found", body = Answer<Validation>),
        (status = 413, description = "the body is too large", body = crate::openapi::DevRefusal),
        (status = 422, description = "there is no file", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn validate(
    State(evaluate): State<Evaluate>,
    _: Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<Validation>>, Refusal> {
    let form = Form::read(&evaluate.intake, request).await?;
    let files = form.files("eval_set_file");
    let files = files.map_err(|problem| Refusal::misshapen(vec![problem]))?;
    let Some(file) = files.last() else {
        return Ok(Answer::of(Validation::default()));
    };
    Ok(Answer::of(match parse(file)? {
        Ok(set) => Validation {
            valid: true,
            eval_set_id: Some(set.id),
            num_cases: Some(set.cases.len()),
            errors: Vec::new(),
        },
        Err(errors) => Validation {
            errors,
            ..Validation::default()
        },
    }))
}

/// Reads an uploaded eval set; `Err` within: what is wrong with it.
///
/// # Errors
/// 400 for a file that is too large.
pub(crate) fn parse(file: &Part) -> Result<Result<EvalSet, Vec<String>>, Refusal> {
    if file.bytes.len() > FILE_BYTES {
        return Err(Refusal::unusable("Eval set file exceeds 10MB limit"));
    }
    Ok(EvalSet::parse(&file.bytes).map_err(|error| error.mistakes))
}
