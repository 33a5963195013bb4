//! The API's document, OpenAPI 3.1: what each function says of its routes, and what holds for all of them.

use serde_json::{Map, Value, json};
use tailspan_service::openapi::{
    AgentFailed, AgentNotFound, AgentTimeout, ErrorBody, Forbidden, Internal, Invalid,
    NotAcceptable, SpanNotFound, TooLarge, TooMany, TraceDeleted, TraceNotFound, Unauthorized,
    Unavailable, UnsupportedMediaType,
};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tailspan",
        description = "`tail -f` for multi-agent runs.\n\nErrors are `{\"error\": {\"code\", \"message\"}}` and told apart by their status: absent (404), invalid (400), \
            unauthorised (401, 403), too much (413, 429) and unavailable (503, with `Retry-After`). A path that takes other methods answers 405, an \
            unknown one 404. New fields may be added to answers.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/")),
    tags(
        (name = "ingest", description = "What happens, sent in: OTLP and native events"),
        (name = "traces", description = "Runs, listed and told"),
        (name = "streams", description = "Runs as they happen, as server-sent events"),
        (name = "seed", description = "The trace service of seed 001, for its clients"),
        (name = "agents", description = "Agents in service, called and traced"),
        (name = "process", description = "The process itself"),
    ),
    components(
        schemas(ErrorBody),
        responses(
            AgentFailed,
            AgentNotFound,
            AgentTimeout,
            Forbidden,
            Internal,
            Invalid,
            NotAcceptable,
            SpanNotFound,
            TooLarge,
            TooMany,
            TraceDeleted,
            TraceNotFound,
            Unauthorized,
            Unavailable,
            UnsupportedMediaType,
        )
    ),
)]
struct Document;

/// The document as JSON, each object's keys in the order in which OpenAPI tells of them.
pub fn document() -> Value {
    let mut document = Document::openapi();
    for function in [
        tailspan_ingest::openapi::Document::openapi(),
        tailspan_query::openapi::Document::openapi(),
        tailspan_cleanup::openapi::Document::openapi(),
        tailspan_stream::openapi::Document::openapi(),
    ] {
        document.merge(function);
    }
    let mut document = serde_json::to_value(document).unwrap_or_default();
    if let Some(components) = document.get_mut("components") {
        components["securitySchemes"] = json!({
            "bearer": {"type": "http", "scheme": "bearer"},
            "token": {
                "type": "apiKey", "in": "query", "name": "token",
                "description": "for clients that cannot send a header, as a browser's EventSource; percent-encoded",
            },
        });
        frames(&mut components["schemas"]);
        if let Some(responses) = components["responses"].as_object_mut() {
            otlp_refusals(responses);
        }
    }
    // Where no tokens are configured, none is asked for.
    document["security"] = json!([{}, {"bearer": []}, {"token": []}]);
    each_operation(&mut document, |operation| {
        common_answers(operation);
        event_streams(operation);
    });
    document
}

/// Calls `change` with every operation.
fn each_operation(document: &mut Value, mut change: impl FnMut(&mut Map<String, Value>)) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (_, path) in paths.into_iter().flatten() {
        for (_, operation) in path.as_object_mut().into_iter().flatten() {
            operation.as_object_mut().into_iter().for_each(&mut change);
        }
    }
}

/// What every route may answer, where it does not say it in words of its own.
fn common_answers(operation: &mut Map<String, Value>) {
    let is_open = operation.contains_key("security");
    let is_otlp = is_otlp(operation);
    let Some(answers) = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let everywhere = [
        ("400", "Invalid"),
        ("401", "Unauthorized"),
        ("403", "Forbidden"),
        ("500", "Internal"),
        ("503", "Unavailable"),
    ];
    let of_otlp = [
        ("413", "TooLarge"),
        ("415", "UnsupportedMediaType"),
        ("429", "TooMany"),
    ];
    let of_otlp = of_otlp.into_iter().filter(|_| is_otlp);
    for (status, name) in everywhere.into_iter().chain(of_otlp) {
        if status == "401" && is_open || answers.contains_key(status) {
            continue;
        }
        let prefix = if is_otlp { "Otlp" } else { "" };
        let reference = json!({"$ref": format!("#/components/responses/{prefix}{name}")});
        answers.insert(status.to_owned(), reference);
    }
    answers.sort_keys();
}

fn is_otlp(operation: &Map<String, Value>) -> bool {
    let id = operation.get("operationId").and_then(Value::as_str);
    id.is_some_and(|id| id.starts_with("otlp_"))
}

/// OTLP's routes are refused in the request's encoding; what stands in front of them speaks JSON.
fn otlp_refusals(responses: &mut Map<String, Value>) {
    for name in [
        "Invalid",
        "Unauthorized",
        "Forbidden",
        "TooLarge",
        "UnsupportedMediaType",
        "TooMany",
        "Internal",
        "Unavailable",
    ] {
        let Some(mut refusal) = responses.get(name).cloned() else {
            continue;
        };
        refusal["content"] = json!({
            "application/json": {"schema": {"$ref": "#/components/schemas/OtlpRefusal"}},
            "application/x-protobuf": {"schema": {"type": "string", "format": "binary", "description": "`google.rpc.Status`"}},
        });
        responses.insert(format!("Otlp{name}"), refusal);
    }
    responses.sort_keys();
}

/// A stream as its frames, in the words that OpenAPI 3.2 has for them: `data` is text that holds JSON.
fn event_streams(operation: &mut Map<String, Value>) {
    let id = operation.get("operationId").and_then(Value::as_str);
    let frame = match id.is_some_and(|id| id.starts_with("complete")) {
        true => "CompletionFrame",
        false => "Frame",
    };
    let answers = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    for (_, answer) in answers.into_iter().flatten() {
        if let Some(stream) = answer.pointer_mut("/content/text~1event-stream") {
            stream["schema"] = json!({
                "type": "array",
                "description": "The frames in their order, each with its fields.",
                "items": {"$ref": format!("#/components/schemas/{frame}")},
            });
        }
    }
}

fn frames(schemas: &mut Value) {
    let data = |name: &str| {
        json!({
            "type": "string", "contentMediaType": "application/json",
            "contentSchema": {"$ref": format!("#/components/schemas/{name}")},
        })
    };
    let id = json!({"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$", "description": "the cursor after this frame"});
    let control = |name: &str, schema: &str| {
        json!({
            "type": "object", "required": ["event", "data"],
            "properties": {"id": id, "event": {"const": name}, "data": data(schema)},
        })
    };
    schemas["DataFrame"] = json!({
        "type": "object", "required": ["id", "data"],
        "description": "An event. It has no name, so that `onmessage` gets it.",
        "properties": {"id": id, "event": false, "data": data("Event")},
    });
    schemas["GapFrame"] = control("gap", "GapData");
    schemas["EndFrame"] = control("end", "EndData");
    schemas["QuietFrame"] = json!({
        "type": "object",
        "description": "Without data, so that no client sees an event: how long to wait before coming back, or a heartbeat with the cursor.",
        "properties": {"id": id, "retry": {"type": "string"}, "event": false, "data": false},
    });
    schemas["CompletionFrame"] = json!({
        "type": "object",
        "description": "A frame of the agent's, or one of ours: `data` is JSON with `event` `trace_started`, `trace`, `trace_gap` or `error`, and `[DONE]` at the end.",
        "properties": {
            "id": id,
            "event": {"type": "string", "description": "of a frame of the agent's, if it has a name"},
            "data": {"type": "string"},
        },
    });
    let any = ["DataFrame", "GapFrame", "EndFrame", "QuietFrame"]
        .map(|name| json!({"$ref": format!("#/components/schemas/{name}")}));
    schemas["Frame"] = json!({"oneOf": any});
}
