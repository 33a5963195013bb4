//! What was looked for in stored knowledge, and the chunks that were found.
//!
//! Vector stores, frameworks and hand-written steps call the same few things by many names; like messages they are read by shape.

use serde_json::{Map, Value};

use super::{Look, keys};
use crate::{
    attributes::parse_text,
    model::{Chunk, Kind, Retrieval, Span},
};

/// Chunks of one retrieval that are read; `chunks_total` counts all.
const MAX_CHUNKS: usize = 1_000;
/// How far wrappers (`{"output": {"nodes": [..]}}`) are followed.
const MAX_WRAPPERS: usize = 6;

/// Where the list of chunks lies.
const LISTS: [&str; 14] = [
    "chunks",
    "documents",
    "nodes",
    "source_nodes",
    "source_documents",
    "contexts",
    "passages",
    "matches",
    "hits",
    "results",
    "retrieved",
    "output",
    "outputs",
    "data",
];
/// Where the text of a chunk lies.
const TEXTS: [&str; 7] = [
    "text",
    "content",
    "page_content",
    "content_with_weight",
    "chunk",
    "passage",
    "snippet",
];

/// What a span of a retriever or reranker says.
pub(super) fn read(look: &Look, span: &Span) -> Retrieval {
    let attributes = &look.attributes;
    attributes.about("retrieval");
    if let Some(Value::Object(mut recorded)) = attributes.json(crate::lower::RETRIEVAL) {
        return read_native(&mut recorded);
    }
    let mut retrieval = Retrieval::default();
    let asked = span.input_value.as_ref();
    // Frameworks write what their function was called with: the query alone or with its settings.
    if let Some(Value::Object(asked)) = asked {
        settings(&mut asked.clone(), &mut retrieval);
    }
    if let Some(query) = attributes
        .first_text(keys::RETRIEVAL_QUERY)
        .or_else(|| asked.and_then(query_in))
    {
        retrieval.query = Some(query);
    }
    if let Some(count) = attributes.count(keys::RETRIEVAL_TOP_K) {
        retrieval.top_k = Some(count);
    }
    for key in keys::KNOWLEDGE_BASES {
        let named = attributes.texts(key);
        if !named.is_empty() {
            retrieval.knowledge_bases = named;
            break;
        }
    }
    let found = match span.kind {
        Kind::Reranker => attributes.structure("reranker.output_documents"),
        _ => attributes
            .first_json(keys::RETRIEVAL_DOCUMENTS)
            .or_else(|| attributes.structure("retrieval.documents")),
    };
    if let Some(found) = found.as_ref().or(span.output_value.as_ref()) {
        (retrieval.chunks, retrieval.chunks_total) = chunks(found);
    }
    retrieval
}

/// What a native event says; the fields that told it are taken out.
pub(super) fn read_native(fields: &mut Map<String, Value>) -> Retrieval {
    let mut retrieval = Retrieval::default();
    settings(fields, &mut retrieval);
    retrieval.query = ["query", "question"]
        .iter()
        .find_map(|key| text(fields.get(*key)?));
    if retrieval.query.is_some() {
        fields.shift_remove("query");
    }
    if let Some(found) = ["chunks", "documents"]
        .iter()
        .find_map(|key| fields.shift_remove(*key))
        && !found.is_null()
    {
        (retrieval.chunks, retrieval.chunks_total) = chunks(&found);
    }
    if let Some(total) = ["chunks_retrieved", "chunks_count", "chunks_total"]
        .iter()
        .find_map(|key| fields.shift_remove(*key)?.as_u64())
    {
        retrieval.chunks_total = Some(retrieval.chunks_total.unwrap_or(0).max(total));
    }
    retrieval
}

/// How was looked: taken out of the object that says it.
fn settings(of: &mut Map<String, Value>, retrieval: &mut Retrieval) {
    let mut take = |keys: &[&str], fits: fn(&Value) -> bool| {
        let key = keys.iter().find(|key| of.get(**key).is_some_and(fits))?;
        of.shift_remove(*key)
    };
    let is_count = |value: &Value| number(value).is_some_and(|n| n >= 0.0 && n.fract() == 0.0);
    retrieval.top_k = take(
        &["top_k", "topK", "similarity_top_k", "top_n", "k"],
        is_count,
    )
    .and_then(|count| number(&count))
    .map(|count| count as u64);
    retrieval.threshold = take(
        &[
            "similarity_threshold",
            "score_threshold",
            "threshold",
            "similarity_cutoff",
            "min_score",
        ],
        |value| number(value).is_some(),
    )
    .and_then(|threshold| number(&threshold));
    retrieval.rerank = take(
        &["rerank_enabled", "rerank", "reranking_enabled"],
        Value::is_boolean,
    )
    .and_then(|rerank| rerank.as_bool());
    let is_named = |value: &Value| value.is_string() || value.is_array();
    retrieval.knowledge_bases = match take(
        &[
            "knowledge_bases",
            "knowledge_base",
            "kb_ids",
            "collection",
            "collection_name",
            "index_name",
        ],
        is_named,
    ) {
        Some(Value::Array(names)) => names.iter().filter_map(named).take(MAX_CHUNKS).collect(),
        Some(name) => text(&name).into_iter().collect(),
        None => Vec::new(),
    };
}

/// A knowledge base is a name, or an object that has one.
fn named(value: &Value) -> Option<String> {
    text(value).or_else(|| ["name", "id"].iter().find_map(|key| text(value.get(*key)?)))
}

/// The words that were looked for, in what a step took in.
fn query_in(value: &Value) -> Option<String> {
    const FIELDS: [&str; 10] = [
        "query",
        "question",
        "query_str",
        "str_or_query_bundle",
        "query_bundle",
        "search_query",
        "input",
        "text",
        "content",
        "inputs",
    ];
    let mut value = value;
    for _ in 0..MAX_WRAPPERS {
        match value {
            Value::String(query) if !query.trim().is_empty() => return Some(query.clone()),
            Value::Object(object) => {
                value = FIELDS
                    .iter()
                    .chain(&["kwargs"])
                    .find_map(|key| object.get(*key).filter(|inner| !inner.is_null()))?;
            }
            Value::Array(items) => value = items.first()?,
            _ => return None,
        }
    }
    None
}

/// The chunks in what was found, at most [`MAX_CHUNKS`], and how many there are.
fn chunks(found: &Value) -> (Vec<Chunk>, Option<u64>) {
    chunks_within(found, MAX_WRAPPERS).unwrap_or_default()
}

fn chunks_within(found: &Value, wrappers: usize) -> Option<(Vec<Chunk>, Option<u64>)> {
    let deeper = wrappers.checked_sub(1)?;
    match found {
        // A list for each of several queries.
        Value::Array(items) if matches!(items.as_slice(), [Value::Array(_)]) => {
            chunks_within(items.first()?, deeper)
        }
        Value::Array(items) => {
            let read = items.iter().take(MAX_CHUNKS).map(chunk).collect();
            Some((read, Some(items.len() as u64)))
        }
        Value::Object(object) => {
            let mut inner = LISTS.iter().filter_map(|key| object.get(*key));
            chunks_within(
                inner.find(|inner| inner.is_array() || inner.is_object())?,
                deeper,
            )
        }
        Value::String(text) => match parse_text(text) {
            Value::String(_) => None,
            parsed => chunks_within(&parsed, deeper),
        },
        _ => None,
    }
}

fn chunk(item: &Value) -> Chunk {
    // OpenTelemetry's lists hold objects as JSON text.
    let parsed = item.as_str().map(parse_text);
    let item = parsed.as_ref().unwrap_or(item);
    let outer = item;
    // `{document: {..}}` (OpenInference), `{node: {..}, score}` (LlamaIndex), `{kwargs: {..}}` (LangChain).
    let mut inner = item;
    for _ in 0..MAX_WRAPPERS {
        let deeper = ["document", "node", "kwargs", "chunk", "payload", "_source"]
            .iter()
            .find_map(|key| inner.get(*key).filter(|inner| inner.is_object()));
        match deeper {
            Some(deeper) => inner = deeper,
            None => break,
        }
    }
    if let Value::String(text) = inner {
        return Chunk {
            text: Some(text.clone()),
            ..Chunk::default()
        };
    }
    let find = |keys: &[&str]| {
        [inner, outer]
            .iter()
            .find_map(|place| keys.iter().find_map(|key| text(place.get(*key)?)))
    };
    let metadata = ["metadata", "meta", "extra_info"]
        .iter()
        .find_map(|key| inner.get(*key).or_else(|| outer.get(*key)))
        .map(|metadata| match metadata {
            // OpenInference writes it as JSON text.
            Value::String(text) => parse_text(text),
            other => other.clone(),
        })
        .unwrap_or_default();
    const DOCUMENTS: [&str; 12] = [
        "document",
        "document_name",
        "doc_name",
        "docnm_kwd",
        "source",
        "file_name",
        "filename",
        "file_path",
        "title",
        "url",
        "uri",
        "name",
    ];
    const DOCUMENT_IDS: [&str; 4] = ["document_id", "doc_id", "ref_doc_id", "kb_id"];
    let in_metadata = |keys: &[&str]| keys.iter().find_map(|key| text(metadata.get(*key)?));
    let score = [outer, inner].into_iter().find_map(|place| {
        [
            "score",
            "similarity",
            "relevance_score",
            "relevance",
            "_score",
            "vector_similarity",
        ]
        .iter()
        .find_map(|key| number(place.get(*key)?))
    });
    Chunk {
        id: find(&["chunk_id", "id", "id_", "node_id", "_id"])
            .or_else(|| in_metadata(&["chunk_id", "id"])),
        score: score.or_else(|| {
            ["score", "relevance_score", "similarity"]
                .iter()
                .find_map(|key| number(metadata.get(*key)?))
        }),
        document: find(&DOCUMENTS)
            .or_else(|| in_metadata(&DOCUMENTS))
            .or_else(|| find(&DOCUMENT_IDS))
            .or_else(|| in_metadata(&DOCUMENT_IDS)),
        text: TEXTS.iter().find_map(|key| {
            let said = inner.get(*key)?;
            match said {
                Value::String(text) => Some(text.clone()),
                // Genkit's parts.
                Value::Array(_) => Some(super::messages::text_of(said)),
                _ => None,
            }
        }),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Id, score, document, text.
    type Read<'a> = (
        Option<&'a str>,
        Option<f64>,
        Option<&'a str>,
        Option<&'a str>,
    );

    fn check(found: &Value, expected: &[Read]) {
        let (read, total) = chunks(found);
        let read: Vec<_> = read
            .iter()
            .map(|chunk| {
                (
                    chunk.id.as_deref(),
                    chunk.score,
                    chunk.document.as_deref(),
                    chunk.text.as_deref(),
                )
            })
            .collect();
        assert_eq!(read, expected, "{found}");
        assert_eq!(total, Some(expected.len() as u64));
    }

    #[test]
    fn chunks_are_read_by_their_shape() {
        let a = |score| [(Some("a"), score, Some("guide.md"), Some("words"))];
        // OpenTelemetry and seed 001.
        check(
            &json!([{"id": "a", "score": 0.5, "document": "guide.md", "content": "words"}]),
            &a(Some(0.5)),
        );
        // OpenInference.
        check(
            &json!([{"document": {"id": "a", "score": 0.5, "content": "words", "metadata": "{\"source\": \"guide.md\"}"}}]),
            &a(Some(0.5)),
        );
        // LlamaIndex.
        check(
            &json!({"nodes": [{"node": {"id_": "a", "text": "words", "metadata": {"file_name": "guide.md"}}, "score": 0.5}]}),
            &a(Some(0.5)),
        );
        // LangChain, serialised.
        check(
            &json!({"documents": [{"lc": 1, "type": "constructor", "kwargs": {"id": "a", "page_content": "words", "metadata": {"source": "guide.md"}}}]}),
            &a(None),
        );
        // Haystack.
        check(
            &json!({"documents": [{"id": "a", "content": "words", "meta": {"title": "guide.md"}, "score": 0.5}]}),
            &a(Some(0.5)),
        );
        // RAGFlow.
        check(
            &json!({"chunks": [{"chunk_id": "a", "content_with_weight": "words", "docnm_kwd": "guide.md", "doc_id": "d", "similarity": 0.5}]}),
            &a(Some(0.5)),
        );
        check(&json!(["words"]), &[(None, None, None, Some("words"))]);
        check(&json!([]), &[]);
        assert_eq!(chunks(&json!("nothing found")), (Vec::new(), None));
    }

    #[test]
    fn the_query_lies_alone_or_among_other_arguments() {
        for asked in [
            json!("how warm"),
            json!({"query": "how warm", "k": 3}),
            json!({"kwargs": {"query_str": "how warm"}}),
            json!({"inputs": {"input": "how warm"}}),
        ] {
            assert_eq!(query_in(&asked).as_deref(), Some("how warm"), "{asked}");
        }
        assert_eq!(query_in(&json!({"n": 1})), None);
    }
}
