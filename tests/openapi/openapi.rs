//! Is the document that of the code?

#![allow(clippy::unwrap_used, reason = "a failed unwrap is how a test fails")]

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use tailspan_service::openapi::CODES;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// docs/openapi.json; with TAILSPAN_BLESS set it is written anew.
#[test]
fn the_committed_document_is_that_of_the_code() {
    let document = serde_json::to_string_pretty(&tailspan_openapi::document()).unwrap() + "\n";
    if std::env::var_os("TAILSPAN_BLESS").is_some() {
        fs::write(Path::new(ROOT).join("docs/openapi.json"), document).unwrap();
    } else if document != read("docs/openapi.json") {
        panic!(
            "docs/openapi.json is not that of the code: run this test with TAILSPAN_BLESS=1 to write it anew"
        );
    }
}

/// Merging keeps the first of two that share a name, and says nothing.
#[test]
fn a_schema_of_one_name_is_the_same_in_every_function() {
    let mut known = serde_json::Map::new();
    for function in tailspan_openapi::of_each_function() {
        let document = serde_json::to_value(function).unwrap();
        let schemas = document["components"]["schemas"].as_object();
        for (name, schema) in schemas.into_iter().flatten() {
            let before = known.entry(name.as_str()).or_insert_with(|| schema.clone());
            assert_eq!(before, schema, "two types are called {name}");
        }
    }
}

/// `METHOD path` of the document's operations.
fn documented() -> BTreeSet<String> {
    let document = tailspan_openapi::document();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

/// A function's `.route("path", get(..).post(..))`, read off its sources.
fn routed(sources: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for route in sources.split(".route(").skip(1) {
        // Up to the parenthesis that closes the call.
        let mut depth = 1;
        let end = route.find(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        let route = &route[..end.unwrap()];
        let path = route.split('"').nth(1).unwrap();
        for method in METHODS {
            let call = format!("{method}(");
            let is_called = route.match_indices(&call).any(|(at, _)| {
                !route[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            });
            if is_called {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

/// Routes that stand for another in axum's table: a trace may be called "events".
const STANDS_FOR: [(&str, &str); 1] = [("POST /traces/{trace_id}", "POST /traces/events")];

#[test]
fn every_route_is_in_the_document_and_every_operation_has_a_route() {
    let mut routes = BTreeSet::new();
    let mut functions = 0;
    for function in fs::read_dir(Path::new(ROOT).join("functions")).unwrap() {
        // `local` merges the others' routers; its own routes are those of its tests.
        let function = function.unwrap().path();
        if function.ends_with("local") {
            continue;
        }
        functions += 1;
        routes.extend(routed(&read(function.join("src/lib.rs"))));
    }
    assert!(functions > 3 && routes.len() > 10);
    for (route, operation) in STANDS_FOR {
        assert!(routes.remove(route), "{route} is gone");
        routes.insert(operation.to_owned());
    }
    assert_eq!(routes, documented());
}

#[test]
fn the_paths_of_cargo_lambda_are_those_of_the_document() {
    let manifest = read("Cargo.toml");
    let table = manifest
        .split_once("[workspace.metadata.lambda.watch.router]\n")
        .unwrap()
        .1;
    let lambda: BTreeSet<&str> = table
        .lines()
        .take_while(|line| !line.starts_with("[workspace"))
        .filter_map(|line| line.strip_prefix('"')?.split_once('"'))
        .map(|(path, _)| path)
        .collect();
    let documented = documented();
    let documented: BTreeSet<&str> = documented
        .iter()
        .map(|operation| operation.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(lambda, documented);
}

#[test]
fn every_operation_and_parameter_is_described() {
    let document = tailspan_openapi::document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
            assert!(!text(operation, "summary").is_empty(), "{what}: no summary");
            assert!(
                ids.insert(text(operation, "operationId")),
                "{what}: its id is another's"
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = text(parameter, "name");
                assert!(
                    !text(parameter, "description").is_empty(),
                    "{what}: nothing is said of {name}"
                );
                let is_segment = path.contains(&format!("{{{name}}}"));
                assert_eq!(
                    text(parameter, "in") == "path",
                    is_segment,
                    "{what}: {name} does not stand where it says"
                );
            }
        }
    }
}

/// Every reference leads somewhere, and nothing is defined in vain.
#[test]
fn references_meet_their_definitions() {
    let document = tailspan_openapi::document();
    let mut used = BTreeSet::new();
    tailspan_openapi::references(&document, &mut used);
    let mut defined = BTreeSet::new();
    for kind in ["schemas", "responses"] {
        let names = document["components"][kind].as_object().unwrap().keys();
        defined.extend(names.map(|name| format!("#/components/{kind}/{name}")));
    }
    let apart: Vec<_> = used.symmetric_difference(&defined).collect();
    assert!(
        apart.is_empty(),
        "used and not defined, or defined and not used: {apart:?}"
    );
}

/// Codes as they stand in the sources, outside of their tests.
#[test]
fn every_error_code_of_the_sources_is_in_the_document() {
    fn sources(folder: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                into.push(text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned());
            }
        }
    }
    let mut texts = Vec::new();
    for folder in [
        "functions/query/src",
        "functions/stream/src",
        "functions/ingest/src",
        "shared/service/src",
    ] {
        sources(&Path::new(ROOT).join(folder), &mut texts);
    }
    let known: BTreeSet<&str> = CODES.iter().copied().collect();
    let mut found = BTreeSet::new();
    for text in &texts {
        for before in [
            "ApiError::invalid(",
            "error.code =",
            "full.code =",
            "Self::new(",
        ] {
            for place in text.split(before).skip(1) {
                // The first text in what follows, when it is near and one word.
                let near = place.split(';').next().unwrap();
                if let Some(code) = near.split('"').nth(1)
                    && !code.is_empty()
                    && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                {
                    found.insert(code);
                }
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "not in service::openapi::CODES: {unknown:?}"
    );
}
