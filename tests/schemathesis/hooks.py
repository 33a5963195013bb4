"""What schemathesis knows of the running product beside its document: what is stored there, so that requests hit something.

SEEDED is a JSON object: names of path parameters and, for an operation's id, of its own; each with a list of values.
"""

import copy
import json
import os
import re
import zlib

import schemathesis

SEEDED = json.loads(os.environ.get("SEEDED", "{}"))
# A wait that is longer holds up the run for as long, and shows nothing more.
LONGEST_WAIT_MS = 200


def known(operation_id, name):
    return SEEDED.get(operation_id, {}).get(name) or SEEDED.get("*", {}).get(name)


@schemathesis.deserializer("application/x-protobuf")
def protobuf(ctx, response):
    return response.content.decode("latin-1")


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    for item in raw_schema["paths"].values():
        for operation in item.values():
            # A body that is not packed as its head says is refused before it is looked at; tests/peers packs its bodies.
            operation["parameters"] = [it for it in operation.get("parameters", []) if it["name"] != "Content-Encoding"]
            for parameter in operation["parameters"]:
                values = known(operation["operationId"], parameter["name"])
                if values:
                    parameter["examples"] = {str(at): {"value": value} for at, value in enumerate(values)}
    close(raw_schema)


def close(document):
    """In this run a field that the document does not name is an error: clients may see new fields, the document has to."""
    schemas = document["components"]["schemas"]
    prefix = "#/components/schemas/"
    reached, queue = set(), [document["components"]["responses"]]
    queue += [operation["responses"] for item in document["paths"].values() for operation in item.values()]
    while queue:
        value = queue.pop()
        if isinstance(value, list):
            queue += value
        elif isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix(prefix)
            if name in schemas and name not in reached:
                reached.add(name)
                queue.append(schemas[name])
            queue += value.values()
            # What is a part of something larger stays open there.
            for part in value.get("allOf", []):
                name = part.get("$ref", "").removeprefix(prefix)
                if name in schemas:
                    schemas[f"{name}.part"] = copy.deepcopy(schemas[name])
                    part["$ref"] = f"{prefix}{name}.part"
    for name in reached:
        schema = schemas[name]
        if not name.endswith(".part") and ("properties" in schema or "allOf" in schema):
            schema.setdefault("unevaluatedProperties", False)


def of_what_is_there(ctx, parameters):
    """Two of three requests are about something that is there."""
    drawn = zlib.crc32(repr(sorted((parameters or {}).items())).encode())
    for name in (parameters or {}) if drawn % 3 else ():
        values = known(ctx.operation.definition.raw["operationId"], name)
        if values:
            # One index for all: a span is looked for in its own trace.
            parameters[name] = values[drawn // 3 % len(values)]
    return parameters


@schemathesis.hook
def map_path_parameters(ctx, path_parameters):
    return of_what_is_there(ctx, path_parameters)


@schemathesis.hook
def map_query(ctx, query):
    return of_what_is_there(ctx, query)


@schemathesis.hook
def map_body(ctx, body):
    """Most agents are asked something."""
    if ctx.operation.definition.raw["operationId"].startswith("complete") and isinstance(body, dict) and zlib.crc32(repr(body).encode()) % 4:
        body["question"] = "How warm is it?"
        body.pop("messages", None)
    return body


FILTERS = {"component", "component_id", "agent", "agent_id", "event_types", "user_id", "session_id", "status", "start_time", "end_time",
           "min_duration", "max_duration", "min_duration_ms", "max_duration_ms", "has_error", "text", "operation"}
EXCLUSIVE = [("cursor", "offset"), ("cursor", "page"), ("cursor", "page_size"), ("limit", "page"), ("limit", "page_size"), ("include", "level"),
             ("include", "format")]


def relax(query, drawn):
    """Parameters that exclude one another are refused together, and filters of random words leave nothing to look at: mostly without them."""
    if drawn % 4:
        for name in FILTERS & query.keys():
            del query[name]
        for one, other in EXCLUSIVE:
            if one in query and other in query:
                del query[one if drawn % 3 else other]


@schemathesis.hook
def before_call(ctx, case, kwargs):
    trace = (case.path_parameters or {}).get("trace_id")
    own = known(case.operation.definition.raw["operationId"], "trace_id") or ["posted-1"]
    if case.method != "GET" and trace in SEEDED["*"]["trace_id"] and trace not in own:
        # What schemathesis found in other answers is for reading.
        case.path_parameters["trace_id"] = own[zlib.crc32(case.id.encode()) % len(own)]
    drawn = zlib.crc32(case.id.encode())
    relax(case.query or {}, drawn)
    if drawn % 4 and case.headers:
        # It wins over the other ways to say where a stream begins.
        case.headers.pop("Last-Event-ID", None)
    wait = (case.query or {}).get("wait")
    found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|)", wait) if isinstance(wait, str) else None
    if found:
        milliseconds = int(found[1]) * {"ms": 1, "m": 60_000}.get(found[2], 1_000)
        if LONGEST_WAIT_MS < milliseconds <= 300_000:
            case.query["wait"] = f"{LONGEST_WAIT_MS}ms"
