//! The API's document, OpenAPI 3.1: what each function says of its routes, and what holds for all of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tailspan_service::openapi::{
    AgentNotFound, ErrorBody, Forbidden, Internal, Invalid, NotAcceptable, SeedRefusal,
    SpanNotFound, TooLarge, TooMany, TraceDeleted, TraceNotFound, Unauthorized, Unavailable,
    UnsupportedMediaType,
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
        (name = "dev", description = "The live dev server of seed 002, for its web interface and its programs"),
        (name = "agents", description = "Agents in service, called and traced"),
        (name = "access", description = "Who may do what: API keys and viewer tokens"),
        (name = "webhooks", description = "Who is told of runs, and what was not taken"),
        (name = "process", description = "The process itself"),
    ),
    components(
        schemas(ErrorBody, SeedRefusal),
        responses(
            AgentNotFound,
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
    for function in of_each_function() {
        document.merge(function);
    }
    let mut document = serde_json::to_value(document).unwrap_or_default();
    if let Some(components) = document.get_mut("components") {
        components["securitySchemes"] = json!({
            "bearer": {"type": "http", "scheme": "bearer", "description": "a configured token, an API key (`ts_...`), or a viewer token (`tv_...`)"},
            "token": {
                "type": "apiKey", "in": "query", "name": "token",
                "description": "for clients that cannot send a header, as a browser's EventSource; percent-encoded",
            },
        });
        frames(&mut components["schemas"]);
        if let Some(responses) = components["responses"].as_object_mut() {
            families(responses);
        }
    }
    raw_bytes(&mut document);
    any_shape(&mut document["components"]);
    any_shape(&mut document["paths"]);
    // Where no tokens are configured, none is asked for.
    document["security"] = json!([{}, {"bearer": []}, {"token": []}]);
    each_operation(&mut document, |operation| {
        common_answers(operation);
        event_streams(operation);
        parameters(operation);
    });
    drop_unused(&mut document);
    document
}

/// What each function says of its own routes.
pub fn of_each_function() -> [utoipa::openapi::OpenApi; 6] {
    [
        tailspan_ingest::openapi::Document::openapi(),
        tailspan_query::openapi::Document::openapi(),
        tailspan_cleanup::openapi::Document::openapi(),
        tailspan_stream::openapi::Document::openapi(),
        tailspan_evaluate::openapi::Document::openapi(),
        tailspan_socket::openapi::Document::openapi(),
    ]
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

/// How a family of routes words its errors, as the prefix of a response's name.
fn family(operation: &Map<String, Value>) -> &'static str {
    let id = operation.get("operationId").and_then(Value::as_str);
    match operation["tags"][0].as_str() {
        Some("seed") => "Seed",
        Some("dev") => "Dev",
        _ if id.is_some_and(|id| id.starts_with("otlp_")) => "Otlp",
        _ => "",
    }
}

/// What every route may answer, where it does not say it in words of its own.
fn common_answers(operation: &mut Map<String, Value>) {
    let is_open = operation.contains_key("security");
    let family = family(operation);
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
    let of_otlp = of_otlp.into_iter().filter(|_| family == "Otlp");
    for (status, name) in everywhere.into_iter().chain(of_otlp) {
        if status == "401" && is_open || answers.contains_key(status) {
            continue;
        }
        let reference = json!({"$ref": format!("#/components/responses/{family}{name}")});
        answers.insert(status.to_owned(), reference);
    }
    answers.sort_keys();
}

/// The common answers of the families that word errors in their own way; what stands in front of all routes (names and origins of requests, too many
/// connections) words them as everywhere.
fn families(responses: &mut Map<String, Value>) {
    let json = |schema: &str| json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
    let everywhere = [
        "Invalid",
        "Unauthorized",
        "Forbidden",
        "Internal",
        "Unavailable",
    ];
    let of_otlp = ["TooLarge", "UnsupportedMediaType", "TooMany"];
    for name in everywhere.into_iter().chain(of_otlp) {
        let Some(mut refusal) = responses.get(name).cloned() else {
            continue;
        };
        if everywhere.contains(&name) {
            refusal["content"] = json!({"application/json": json("SeedRefusal")});
            responses.insert(format!("Seed{name}"), refusal.clone());
            refusal["content"] = json!({"application/json": json("DevRefusal")});
            responses.insert(format!("Dev{name}"), refusal.clone());
        }
        refusal["content"] =
            json!({"application/json": json("OtlpRefusal"), "application/x-protobuf": {}});
        responses.insert(format!("Otlp{name}"), refusal);
    }
    responses.sort_keys();
}

/// Bytes that OpenAPI has no words for.
fn raw_bytes(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for kind in ["application/x-protobuf", "application/zip"] {
                if let Some(content) = object.get_mut(kind) {
                    content["schema"] = json!({"type": "string", "format": "binary"});
                }
            }
            object.values_mut().for_each(raw_bytes);
        }
        Value::Array(values) => values.iter_mut().for_each(raw_bytes),
        _ => {}
    }
}

/// A parameter is there or not; it cannot be null. One that is said twice is as it is said last.
fn parameters(operation: &mut Map<String, Value>) {
    let Some(parameters) = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    let mut kept: Vec<Value> = Vec::new();
    for mut parameter in std::mem::take(parameters) {
        if let Some(schema) = parameter.get_mut("schema") {
            without_null(schema);
            choices(schema);
        }
        let same =
            |other: &Value| other["name"] == parameter["name"] && other["in"] == parameter["in"];
        match kept.iter_mut().find(|other| same(other)) {
            Some(before) => *before = parameter,
            None => kept.push(parameter),
        }
    }
    *parameters = kept;
}

fn without_null(schema: &mut Value) {
    if let Some([kind, Value::String(null)]) = schema["type"].as_array().map(Vec::as_slice)
        && null == "null"
    {
        schema["type"] = kind.clone();
    } else if let Some(shapes) = schema["oneOf"].as_array()
        && let [Some(one), None] = [0, 1].map(|at| {
            shapes
                .iter()
                .filter(|shape| shape["type"] != "null")
                .nth(at)
        })
    {
        *schema = one.clone();
    }
}

/// A pattern of words, `^(this|that)$`, is a choice.
fn choices(schema: &mut Value) {
    let Some(pattern) = schema["pattern"].as_str().map(str::to_owned) else {
        return;
    };
    let inside = pattern
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix('$'))
        .map(|inside| {
            inside
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .unwrap_or(inside)
        });
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if let Some(words) = inside.map(|inside| inside.split('|').collect::<Vec<_>>())
        && words.iter().all(|word| is_word(word))
        && let Value::Object(schema) = schema
    {
        schema.insert("enum".to_owned(), json!(words));
        schema.remove("pattern");
    }
}

/// The arguments of generic types stand inside of what is made of them: nothing refers to them.
fn drop_unused(document: &mut Value) {
    loop {
        let mut used = BTreeSet::new();
        references(document, &mut used);
        let Some(schemas) = document["components"]["schemas"].as_object_mut() else {
            return;
        };
        let before = schemas.len();
        schemas.retain(|name, _| used.contains(&format!("#/components/schemas/{name}")));
        if schemas.len() == before {
            return;
        }
    }
}

/// Every `$ref` below a value.
pub fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                into.insert(reference.clone());
            }
            object.values().for_each(|value| references(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, into)),
        _ => {}
    }
}

/// Which of several shapes an answer has is seen by its fields; a value may have more than one of them.
fn any_shape(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(shapes) = object.remove("oneOf") {
                object.insert("anyOf".to_owned(), shapes);
            }
            object.values_mut().for_each(any_shape);
        }
        Value::Array(values) => values.iter_mut().for_each(any_shape),
        _ => {}
    }
}

/// The schema of an event stream is that of each frame, as a client dispatches it: `data` is text that holds JSON.
fn event_streams(operation: &mut Map<String, Value>) {
    let id = operation.get("operationId").and_then(Value::as_str);
    let frame = match family(operation) {
        _ if id.is_some_and(|id| id.starts_with("complete")) => "CompletionFrame",
        "Seed" => "SeedFrame",
        "Dev" if id.is_some_and(|id| id.starts_with("dev_evaluate")) => "EvaluationFrame",
        _ if matches!(id, Some("stream_tenant" | "stream_session")) => "FeedFrame",
        _ if id == Some("stream_updates") => "UpdateFrame",
        _ => "Frame",
    };
    let answers = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    for (_, answer) in answers.into_iter().flatten() {
        if let Some(stream) = answer.pointer_mut("/content/text~1event-stream") {
            stream["schema"] = json!({"$ref": format!("#/components/schemas/{frame}")});
        }
    }
}

fn frames(schemas: &mut Value) {
    let shapes = |names: &[&str]| -> Value {
        let references = names
            .iter()
            .map(|name| json!({"$ref": format!("#/components/schemas/{name}")}));
        json!({"anyOf": references.collect::<Vec<_>>()})
    };
    let text_of = |names: &[&str]| json!({"type": "string", "contentMediaType": "application/json", "contentSchema": shapes(names)});
    let frame = |says: &str, event: Value, data: Value| {
        let required = match event["const"].as_str() {
            Some("gap" | "end") => json!(["event", "data"]),
            _ => json!(["data"]),
        };
        json!({
            "type": "object", "required": required, "description": says,
            "properties": {
                "id": {"type": "string", "pattern": "^[0-9]+(-[0-9]+(\\.[0-9]+)?)?$", "description": "the cursor after this frame"},
                "event": event,
                "data": data,
            },
        })
    };
    let unnamed =
        json!({"const": "message", "description": "it has no name, so that `onmessage` gets it"});
    schemas["DataFrame"] = frame(
        "An event.",
        unnamed.clone(),
        text_of(&["Event", "FormattedFrame"]),
    );
    schemas["GapFrame"] = frame(
        "What cannot be shown any more; the stream goes on.",
        json!({"const": "gap"}),
        text_of(&["GapData"]),
    );
    schemas["EndFrame"] = frame(
        "The end of a run; the stream closes, unless it was asked to stay.",
        json!({"const": "end"}),
        text_of(&["EndData"]),
    );
    schemas["Frame"] = shapes(&["DataFrame", "GapFrame", "EndFrame"]);
    schemas["Frame"]["description"] = json!("One frame of a stream.");
    let until_done = |data: Value| {
        let last = json!({"const": "[DONE]", "description": "the last line: the stream closes"});
        json!({"type": "string", "anyOf": [data, last]})
    };
    schemas["SeedFrame"] = frame(
        "One frame of a stream of seed 001.",
        unnamed.clone(),
        until_done(text_of(&["FormattedFrame", "SeedRemark"])),
    );
    schemas["FeedEventFrame"] = frame(
        "An event of one of the traces, or what happened to one of them.",
        unnamed.clone(),
        text_of(&[
            "Event",
            "FormattedFrame",
            "TraceHappened",
            "FormattedHappened",
        ]),
    );
    schemas["FeedGapFrame"] = frame(
        "What cannot be shown any more; the stream goes on.",
        json!({"const": "gap"}),
        text_of(&["FeedGap"]),
    );
    schemas["FeedFrame"] = shapes(&["FeedEventFrame", "FeedGapFrame"]);
    schemas["FeedFrame"]["description"] = json!("One frame of a stream of many traces.");
    schemas["EvaluationFrame"] = frame(
        "One frame of an evaluation: what it does, what is found so far, and at last the result.",
        json!({"type": "string", "enum": ["message", "performance_metrics"]}),
        json!({"type": "string", "contentMediaType": "application/json"}),
    );
    schemas["UpdateFrame"] = frame(
        "What was said or done in a live session; `gap` tells of what cannot be shown any more.",
        json!({"type": "string", "enum": ["message", "gap"]}),
        json!({"type": "string", "contentMediaType": "application/json"}),
    );
    schemas["UpdateFrame"]["properties"]["id"]["pattern"] =
        json!("^[0-9]+-[0-9]+\\.[0-9]+(\\.[0-9]+)?$");
    schemas["CompletionFrame"] = frame(
        "One frame of a completion.",
        json!({"type": "string", "description": "of a frame of the agent's, if it has a name"}),
        until_done(text_of(&["CompletionData"])),
    );
}
