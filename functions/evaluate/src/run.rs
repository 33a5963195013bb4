//! `/api/evaluate`, of uploaded files and of JSON, each also as a stream that tells how it goes.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tailspan_core::{
    eval::{Config, EvalSet, RunResult, Subject},
    files::{self, Format},
};
use tailspan_service::{
    error::ApiError,
    evaluation::{self, Progress},
    extract::{Read, Tenant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

#[cfg(feature = "openapi")]
use crate::openapi::{DevRefusal, EvaluateForm, EvaluateJson, RunReport};
use crate::{
    Evaluate,
    answer::{Answer, Refusal},
    convert::Metadata,
    request::{Fields, Form, JSON_BODY_BYTES, absent, problem},
    sets,
    shape::camelized,
    uploads::{TraceFile, Uploaded, format, limits},
};

/// Frames that a stream holds for a client that is slow to read; what tells of progress is left out beyond, the result never.
const FRAMES_HELD: usize = 64;

/// An evaluation that may begin. It counts as one that is under way for as long as this lives.
struct Wanted {
    subjects: Vec<Subject>,
    /// Of each subject, what is told of it in a line.
    metadata: Vec<Metadata>,
    eval_set: Option<EvalSet>,
    config: Config,
    /// What could not be read; the rest is evaluated.
    errors: Vec<String>,
    _place: OwnedSemaphorePermit,
}

/// What a request brought, before it is read.
enum Brought {
    Files(Vec<TraceFile>),
    /// An export, as JSON.
    Export(Value),
}

/// Evaluates the traces of uploaded files.
///
/// A file that cannot be read, or an eval set that is none, is an error of the result; the rest is evaluated. Programs are the operator's: a request names those of its configuration.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/evaluate", tag = "dev", operation_id = "dev_evaluate",
    request_body(content = EvaluateForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "the result", body = Answer<RunReport>),
        (status = 413, description = "the body is too large", body = DevRefusal),
        (status = 422, description = "there is no file, or no configuration", body = DevRefusal),
        (status = 429, description = "too much is taken in, or evaluated, at this moment", body = DevRefusal),
    ),
))]
pub(crate) async fn of_files(
    State(evaluate): State<Evaluate>,
    _: Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<Value>>, Refusal> {
    let form = form(&evaluate, request).await?;
    let wanted = from_form(&evaluate, form).await?;
    Ok(Answer::of(whole(&evaluate, wanted).await))
}

/// Evaluates the traces of uploaded files, and tells how it goes.
///
/// First a frame `performance_metrics` for each trace; then `{message}`, `{traceProgress}` after each metric, and at last `{done, result}` or `{error}`.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/evaluate/stream", tag = "dev", operation_id = "dev_evaluate_stream",
    request_body(content = EvaluateForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "how it goes, up to the result", content((String = "text/event-stream"))),
        (status = 413, description = "the body is too large", body = DevRefusal),
        (status = 422, description = "there is no file, or no configuration", body = DevRefusal),
        (status = 429, description = "too much is taken in, or evaluated, at this moment", body = DevRefusal),
    ),
))]
pub(crate) async fn of_files_streamed(
    State(evaluate): State<Evaluate>,
    _: Tenant<Read>,
    request: Request,
) -> Result<Response, Refusal> {
    let form = form(&evaluate, request).await?;
    let wanted = from_form(&evaluate, form).await;
    streamed(&evaluate, wanted)
}

/// Evaluates the traces of an OTLP export.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/evaluate/json", tag = "dev", operation_id = "dev_evaluate_json", request_body = EvaluateJson,
    responses(
        (status = 200, description = "the result", body = Answer<RunReport>),
        (status = 413, description = "the body is too large", body = DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = DevRefusal),
        (status = 429, description = "too much is taken in, or evaluated, at this moment", body = DevRefusal),
    ),
))]
pub(crate) async fn of_json(
    State(evaluate): State<Evaluate>,
    _: Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<Value>>, Refusal> {
    let brought = JsonBody::read(&evaluate, request).await?;
    let wanted = from_json(&evaluate, brought).await?;
    Ok(Answer::of(whole(&evaluate, wanted).await))
}

/// Evaluates the traces of an OTLP export, and tells how it goes, as the stream of files does.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/evaluate/json/stream", tag = "dev", operation_id = "dev_evaluate_json_stream", request_body = EvaluateJson,
    responses(
        (status = 200, description = "how it goes, up to the result", content((String = "text/event-stream"))),
        (status = 413, description = "the body is too large", body = DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = DevRefusal),
        (status = 429, description = "too much is taken in, or evaluated, at this moment", body = DevRefusal),
    ),
))]
pub(crate) async fn of_json_streamed(
    State(evaluate): State<Evaluate>,
    _: Tenant<Read>,
    request: Request,
) -> Result<Response, Refusal> {
    let brought = JsonBody::read(&evaluate, request).await?;
    let wanted = from_json(&evaluate, brought).await;
    streamed(&evaluate, wanted)
}

// --- What is asked for ---------------------------------------------------------------------------------------------------------

/// The form of an evaluation, with the fields that have to be there.
async fn form(evaluate: &Evaluate, request: Request) -> Result<Form, Refusal> {
    let form = Form::read(&evaluate.intake, request).await?;
    let mut problems = Vec::new();
    problems.extend(form.files("trace_files").err());
    if form.text("config").is_none() {
        problems.push(absent("config"));
    }
    match problems.is_empty() {
        true => Ok(form),
        false => Err(Refusal::misshapen(problems)),
    }
}

async fn from_form(evaluate: &Evaluate, form: Form) -> Result<Wanted, Refusal> {
    let config = form.text("config").unwrap_or_default();
    let config: Value = serde_json::from_str(&config)
        .map_err(|error| Refusal::unusable(format!("Invalid config JSON: {error}")))?;
    let files = form.files("trace_files").unwrap_or_default();
    let files = TraceFile::all(&files)?;
    let mut errors = Vec::new();
    let eval_set = match form.file("eval_set_file") {
        Some(file) if !file.called().to_ascii_lowercase().ends_with(".json") => {
            return Err(Refusal::unusable(
                "Invalid file extension for eval set. Only .json files are allowed.",
            ));
        }
        Some(file) => match sets::parse(file)? {
            Ok(set) => Some(set),
            Err(mistakes) => {
                let mistakes = mistakes.join("; ");
                errors.push(format!("Failed to load eval set: {mistakes}"));
                None
            }
        },
        None => None,
    };
    let config = asked(evaluate, &config).map_err(Refusal::unusable)?;
    let format = format(config.trace_format.as_deref())?;
    let wanted = prepare(
        evaluate,
        Brought::Files(files),
        format,
        (eval_set, config, errors),
    )
    .await?;
    // Its files count as taken in until they are read.
    drop(form);
    Ok(wanted)
}

/// The fields of a JSON body, in either spelling.
struct JsonBody {
    traces: Value,
    config: Value,
    eval_set: Option<Value>,
    _fields: Fields,
}

impl JsonBody {
    async fn read(evaluate: &Evaluate, request: Request) -> Result<Self, Refusal> {
        let mut fields = Fields::read(&evaluate.intake, request, JSON_BODY_BYTES).await?;
        let traces = match fields.any("traces") {
            Some(traces @ Value::Object(_)) => traces,
            Some(other) => {
                let says = "Input should be a valid dictionary";
                fields.wrong("dict_type", "traces", says, other);
                Value::Null
            }
            None => fields.missing("traces"),
        };
        let config = match fields.any("config") {
            None => json!({}),
            Some(config @ Value::Object(_)) => config,
            Some(other) => {
                let says = "Input should be a valid dictionary";
                fields.wrong("dict_type", "config", says, other);
                Value::Null
            }
        };
        let camel = fields.object("evalSet");
        let snake = fields.object("eval_set");
        fields.check()?;
        Ok(Self {
            traces,
            config,
            eval_set: camel.or(snake).map(Value::Object),
            _fields: fields,
        })
    }
}

async fn from_json(evaluate: &Evaluate, body: JsonBody) -> Result<Wanted, Refusal> {
    let config = asked(evaluate, &body.config).map_err(|says| {
        let at = [json!("body"), json!("config")];
        Refusal::misshapen(vec![problem("value_error", &at, &says, &Value::Null)])
    })?;
    let eval_set = match &body.eval_set {
        Some(set) => Some(
            EvalSet::from_value(set)
                .map_err(|error| Refusal::unusable(format!("Invalid eval set: {error}")))?,
        ),
        None => None,
    };
    // Any other object would pass for a span.
    let is_export = ["resourceSpans", "batches", "trace"]
        .iter()
        .any(|key| body.traces.get(key).is_some());
    if !is_export {
        return Err(Refusal::unusable(
            "Expected OTLP JSON with 'resourceSpans' or 'batches' key (or wrapped under 'trace')",
        ));
    }
    let brought = Brought::Export(body.traces);
    let format = Some(Format::OtlpJson);
    prepare(evaluate, brought, format, (eval_set, config, Vec::new())).await
}

/// The configuration of a request; `Err`: what is wrong with it.
fn asked(evaluate: &Evaluate, config: &Value) -> Result<Config, String> {
    let Value::Object(fields) = config else {
        return Err("Invalid config: it must be an object".to_owned());
    };
    if let Some(metrics) = fields.get("metrics")
        && !matches!(metrics, Value::Array(names) if !names.is_empty())
    {
        return Err("Config must include 'metrics' as a non-empty array".to_owned());
    }
    if let Some(Value::Number(threshold)) = fields.get("threshold")
        && !threshold
            .as_f64()
            .is_some_and(|it| (0.0..=1.0).contains(&it))
    {
        return Err("Threshold must be between 0 and 1".to_owned());
    }
    let operator = evaluate.operator();
    let read = Config::from_request(config, operator.map(|operator| &operator.config));
    read.map_err(|mistakes| {
        let all = mistakes.join("; ");
        let in_evaluators = |it: &String| it.starts_with("custom");
        match mistakes.iter().all(in_evaluators) {
            true => format!("Invalid customEvaluators: {all}"),
            false => format!("Invalid config: {all}"),
        }
    })
}

/// Reads the traces. That takes a turn, and a place among the evaluations that are under way.
async fn prepare(
    evaluate: &Evaluate,
    brought: Brought,
    format: Option<Format>,
    (eval_set, config, mut errors): (Option<EvalSet>, Config, Vec<String>),
) -> Result<Wanted, Refusal> {
    let place = evaluate.place()?;
    let prices = Arc::clone(&evaluate.app.config.prices);
    let turn = Arc::clone(&evaluate.readings).acquire_owned().await;
    let is_export = matches!(brought, Brought::Export(_));
    let read = tokio::task::spawn_blocking(move || {
        // Held by the work and not by the request: a client that hangs up does not stop the work.
        let _turn = turn;
        let (mut read, mut errors) = (Vec::new(), Vec::new());
        let mut take = |traces: Vec<Uploaded>| {
            read.extend(traces.iter().map(|trace| {
                let subject = Subject::of(&trace.trace_id, &trace.state, &prices);
                (subject, Metadata::of(trace, &trace.turns()))
            }));
        };
        match brought {
            Brought::Files(files) => {
                for file in files {
                    match file.read(format) {
                        Ok(traces) => take(traces),
                        Err(error) => {
                            errors.push(format!("Failed to load trace file: {error}"));
                        }
                    }
                }
            }
            Brought::Export(export) => {
                let bytes = export.to_string().into_bytes();
                drop(export);
                match files::read_within("traces", &bytes, format, &limits(bytes.len())) {
                    Ok(traces) => take(traces.iter().map(Uploaded::of).collect()),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
        (read, errors)
    });
    let (read, unread) = read.await.map_err(|error| {
        tracing::error!(%error, "failed to read traces");
        ApiError::internal()
    })?;
    if is_export && read.is_empty() {
        let why = unread.into_iter().next();
        let why = why.unwrap_or_else(|| "No traces found in OTLP JSON".to_owned());
        return Err(Refusal::unusable(why));
    }
    errors.extend(unread);
    let (subjects, metadata) = read.into_iter().unzip();
    Ok(Wanted {
        subjects,
        metadata,
        eval_set,
        config,
        errors,
        _place: place,
    })
}

// --- What is answered ----------------------------------------------------------------------------------------------------------

/// Evaluates, and tells of it at the end.
async fn whole(evaluate: &Evaluate, wanted: Wanted) -> Value {
    let result = run(evaluate, &wanted, &|_| {}).await;
    report(&result)
}

async fn run(
    evaluate: &Evaluate,
    wanted: &Wanted,
    progress: &(dyn Fn(Progress<'_>) + Send + Sync),
) -> RunResult {
    let request = evaluation::Request {
        subjects: &wanted.subjects,
        eval_set: wanted.eval_set.as_ref(),
        config: &wanted.config,
        folder: evaluate.operator().map(|operator| &*operator.folder),
    };
    let mut result = evaluate.app.evaluation.run(request, progress).await;
    result.errors.splice(0..0, wanted.errors.iter().cloned());
    result
}

/// A run's result, as the dialect has it.
fn report(result: &RunResult) -> Value {
    camelized(serde_json::to_value(result).unwrap_or_default())
}

/// An evaluation as it goes, as server-sent events. It ends with its client.
fn streamed(evaluate: &Evaluate, wanted: Result<Wanted, Refusal>) -> Result<Response, Refusal> {
    let (frames, to_send) = mpsc::channel::<String>(FRAMES_HELD);
    let task = match wanted {
        // Whoever may not ask, or has to come again, is told so by the status; what was asked wrongly, within the stream.
        Err(refusal) if !refusal.status.is_client_error() || refusal.status.as_u16() == 429 => {
            return Err(refusal);
        }
        Err(refusal) => {
            let frame = data(&json!({"error": refusal.sentence()}));
            tokio::spawn(async move {
                let _ = frames.send(frame).await;
            })
        }
        Ok(wanted) => {
            let evaluate = evaluate.clone();
            tokio::spawn(async move { tell(&evaluate, &wanted, &frames).await })
        }
    };
    let going = Going {
        frames: to_send,
        _task: AbortOnDropHandle::new(task),
    };
    let heartbeat = evaluate.app.config.heartbeat;
    let body = stream::unfold(going, move |mut going| async move {
        let frame = match timeout(heartbeat, going.frames.recv()).await {
            Ok(frame) => frame?,
            // A judge may take its time; what stands between does not cut what is silent.
            Err(_) => ":\n\n".to_owned(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(frame)), going))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// An evaluation that tells how it goes.
struct Going {
    frames: mpsc::Receiver<String>,
    _task: AbortOnDropHandle<()>,
}

/// Evaluates, and tells how it goes. A client that hangs up ends it.
async fn tell(evaluate: &Evaluate, wanted: &Wanted, frames: &mpsc::Sender<String>) {
    for (subject, metadata) in wanted.subjects.iter().zip(&wanted.metadata) {
        let mut metadata = serde_json::to_value(metadata).unwrap_or_default();
        if let Value::Object(fields) = &mut metadata {
            fields.remove("sessionName");
        }
        let told = json!({
            "traceId": subject.trace_id,
            "performanceMetrics": camelized(subject.performance.to_json()),
            "traceMetadata": metadata,
        });
        let frame = format!("event: performance_metrics\n{}", data(&told));
        if frames.send(frame).await.is_err() {
            return;
        }
    }
    let tell = |progress: Progress<'_>| {
        // No room: the client is slow, and the result will tell it all.
        let _ = frames.try_send(data(&told(&progress)));
    };
    let result = run(evaluate, wanted, &tell).await;
    let done = json!({"done": true, "result": report(&result)});
    let _ = frames.send(data(&done)).await;
}

/// What is told of a step of an evaluation.
fn told(progress: &Progress<'_>) -> Value {
    let says = match progress {
        Progress::Begun { traces: 1 } => "Evaluating 1 trace...".to_owned(),
        Progress::Begun { traces } => format!("Evaluating {traces} traces..."),
        Progress::Trace {
            number,
            of,
            subject,
        } => {
            let id: String = subject.trace_id.chars().take(12).collect();
            format!("Trace {number}/{of}: {id}...")
        }
        Progress::Evaluator { name } => format!("Running {name}..."),
        Progress::Result(result) => {
            let partial = serde_json::to_value(result).unwrap_or_default();
            let told = json!({"traceId": result.trace_id, "partialResult": camelized(partial)});
            return json!({ "traceProgress": told });
        }
        Progress::Ended => "Evaluation complete".to_owned(),
    };
    json!({ "message": says })
}

fn data(told: &Value) -> String {
    format!("data: {told}\n\n")
}
