//! Agent telemetry made up for measuring: the attributes and proportions of real exports, texts that never repeat unless a history does.
//! Everything comes from a seed, so two runs measure the same bytes.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value as Json, json};
use tailspan_core::{
    id::hex,
    wire::{self, AnyValue, ArrayValue, KeyValue, any_value::Value},
};

/// A seeded generator (SplitMix64, public domain): quick, and the same everywhere.
pub(crate) struct Dice(pub(crate) u64);

/// About a third of running English.
const COMMON: &[&str] = &[
    "the", "of", "and", "to", "a", "in", "is", "that", "for", "it", "was", "on", "are", "as",
    "with", "be", "at", "this", "have", "from", "or", "by", "not", "but", "what", "all", "were",
    "when", "we", "there", "can", "an", "your", "which", "their", "if", "do", "will", "each",
    "how", "them", "then", "many", "some", "so", "these", "would", "other", "into", "has", "more",
    "two", "like", "him", "see", "time", "could", "no", "make", "than", "first", "been", "its",
    "who", "now", "people", "my", "made", "over", "did", "down", "only", "way", "find", "use",
    "may", "long", "little", "very", "after",
];
const SYLLABLES: &[&str] = &[
    "re", "con", "ti", "mar", "sol", "ven", "tri", "plan", "der", "ing", "ber", "sta", "lo", "pre",
    "mi", "cal", "ton", "ra", "sen", "pro", "dis", "ment", "ca", "ful", "ac", "hou", "ly", "po",
    "est", "gra", "on", "ter", "ex", "im", "ble", "ni", "ket", "or", "sub", "ance",
];

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let at = self.below(list.len() as u64) as usize;
        list.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Bytes {
        let bytes: Vec<u8> = (0..N).map(|_| self.next() as u8 | 1).collect();
        bytes.into()
    }

    fn letters(&mut self, count: usize) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..count)
            .map(|_| char::from(ALPHABET[self.below(62) as usize]))
            .collect()
    }

    /// Prose of about this many characters. Common words, rarer ones by a steep curve, numbers and names: zstd makes about
    /// half of a kilobyte of it, as of real prose.
    pub(crate) fn prose(&mut self, characters: usize) -> String {
        let mut text = String::with_capacity(characters + 16);
        let mut sentence = 0;
        while text.len() < characters {
            if sentence > 0 {
                text.push(' ');
            }
            match self.below(100) {
                0..38 => text.push_str(self.pick(COMMON)),
                38..42 => text.push_str(&self.below(5_000).to_string()),
                _ => {
                    // Squaring twice makes few words frequent and most of them rare.
                    let share = self.below(1 << 16) as f64 / 65_536.0;
                    let rank = (share * share * 6_000.0) as u64;
                    let mut word = Dice(rank.wrapping_mul(7919));
                    for _ in 0..2 + word.below(3) {
                        text.push_str(word.pick(SYLLABLES));
                    }
                }
            }
            sentence += 1;
            if sentence == 14 {
                text.push_str(". ");
                sentence = 0;
            }
        }
        text
    }
}

fn text(value: impl Into<String>) -> AnyValue {
    AnyValue {
        value: Some(Value::String(value.into().into())),
    }
}

fn int(value: u64) -> AnyValue {
    AnyValue {
        value: Some(Value::Int(value as i64)),
    }
}

fn pair(key: impl Into<String>, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.into().into(),
        value: Some(value),
    }
}

fn message(role: &str, content: &str) -> Json {
    json!({"role": role, "parts": [{"type": "text", "content": content}]})
}

/// Spans of one trace, one after the other.
pub(crate) struct Run {
    pub(crate) dice: Dice,
    trace_id: Bytes,
    root: Bytes,
    clock_ns: u64,
    /// What each agent is told before every call, and what was said last; for [`Texts::Passed`].
    instructions: [String; 4],
    said: String,
}

/// Where a mixed run's spans have their texts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    /// Every text is new: the worst that can be.
    New,
    /// As agents do: the same instructions in every call, and what one step says is what the next is asked.
    Passed,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        Self {
            trace_id: dice.bytes::<16>(),
            root: dice.bytes::<8>(),
            // 2026-01-01; each run at its own time.
            clock_ns: 1_767_225_600_000_000_000 + dice.below(1 << 50),
            instructions: [250; 4].map(|length| dice.prose(length)),
            said: dice.prose(350),
            dice,
        }
    }

    pub(crate) fn trace_hex(&self) -> String {
        hex(&self.trace_id)
    }

    fn span(&mut self, name: String, kind: i32, attributes: Vec<KeyValue>) -> wire::Span {
        let start = self.clock_ns + self.dice.below(40_000_000);
        self.clock_ns = start + 20_000_000 + self.dice.below(2_000_000_000);
        wire::Span {
            trace_id: self.trace_id.clone(),
            span_id: self.dice.bytes::<8>(),
            parent_span_id: self.root.clone(),
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: self.clock_ns,
            attributes,
            flags: 0x100,
            ..wire::Span::default()
        }
    }

    fn model_attributes(&mut self, agent: &str) -> Vec<KeyValue> {
        vec![
            pair("gen_ai.operation.name", text("chat")),
            pair("gen_ai.provider.name", text("openai")),
            pair("gen_ai.request.model", text("gpt-4.1-mini")),
            pair("gen_ai.response.model", text("gpt-4.1-mini-2025-04-14")),
            pair(
                "gen_ai.response.id",
                text(format!("chatcmpl-{}", self.dice.letters(29))),
            ),
            pair(
                "gen_ai.response.finish_reasons",
                AnyValue {
                    value: Some(Value::Array(ArrayValue {
                        values: vec![text("stop")],
                    })),
                },
            ),
            pair("gen_ai.usage.input_tokens", int(self.dice.below(9_000))),
            pair("gen_ai.usage.output_tokens", int(self.dice.below(900))),
            pair("gen_ai.agent.name", text(agent)),
            pair("gen_ai.conversation.id", text(hex(&self.trace_id))),
            pair("server.address", text("api.openai.com")),
            pair("server.port", int(443)),
        ]
    }

    /// One span of a mixed run: about 1.3 kB of protobuf on average.
    pub(crate) fn mixed(&mut self, at: usize, texts: Texts) -> wire::Span {
        let agent = ["planner", "researcher", "writer", "reviewer"][at / 8 % 4];
        match at % 8 {
            0 => {
                let (asked, said) = (self.asked(160, texts), self.says(300));
                self.span(
                    format!("invoke_agent {agent}"),
                    1,
                    vec![
                        pair("gen_ai.operation.name", text("invoke_agent")),
                        pair("gen_ai.provider.name", text("openai")),
                        pair("gen_ai.agent.name", text(agent)),
                        pair(
                            "gen_ai.agent.description",
                            text("An agent of the bench run"),
                        ),
                        pair(
                            "gen_ai.input.messages",
                            text(json!([message("user", &asked)]).to_string()),
                        ),
                        pair(
                            "gen_ai.output.messages",
                            text(json!([message("assistant", &said)]).to_string()),
                        ),
                    ],
                )
            }
            1 | 3 | 5 | 7 => {
                let system = match texts {
                    Texts::New => self.dice.prose(250),
                    Texts::Passed => self.instructions[at / 8 % 4].clone(),
                };
                let (asked, said) = (self.asked(350, texts), self.says(400));
                let mut attributes = self.model_attributes(agent);
                attributes.extend([
                    pair("gen_ai.request.temperature", text("0.2")),
                    pair("gen_ai.request.max_tokens", int(2_048)),
                    pair(
                        "gen_ai.input.messages",
                        text(
                            json!([message("system", &system), message("user", &asked)])
                                .to_string(),
                        ),
                    ),
                    pair(
                        "gen_ai.output.messages",
                        text(json!([message("assistant", &said)]).to_string()),
                    ),
                ]);
                self.span("chat gpt-4.1-mini".to_owned(), 3, attributes)
            }
            _ => {
                let arguments =
                    json!({"query": self.dice.prose(90), "limit": self.dice.below(50)}).to_string();
                let result =
                    json!({"hits": [{"title": self.dice.prose(60), "text": self.says(380)}]})
                        .to_string();
                let call = format!("call_{}", self.dice.letters(24));
                self.span(
                    "execute_tool search_documents".to_owned(),
                    1,
                    vec![
                        pair("gen_ai.operation.name", text("execute_tool")),
                        pair("gen_ai.tool.name", text("search_documents")),
                        pair("gen_ai.tool.type", text("function")),
                        pair("gen_ai.tool.call.id", text(call)),
                        pair("gen_ai.tool.call.arguments", text(arguments)),
                        pair("gen_ai.tool.call.result", text(result)),
                        pair("gen_ai.agent.name", text(agent)),
                    ],
                )
            }
        }
    }

    fn asked(&mut self, characters: usize, texts: Texts) -> String {
        match texts {
            Texts::New => self.dice.prose(characters),
            Texts::Passed => self.said.clone(),
        }
    }

    fn says(&mut self, characters: usize) -> String {
        self.said = self.dice.prose(characters);
        self.said.clone()
    }

    /// A chat span of about 1,000 bytes as OTLP JSON, a quarter of which is text that stands nowhere else.
    pub(crate) fn kilobyte(&mut self) -> wire::Span {
        let said = self.dice.prose(260);
        let attributes = vec![
            pair("gen_ai.operation.name", text("chat")),
            pair("gen_ai.request.model", text("gpt-4.1-mini")),
            pair("gen_ai.agent.name", text("researcher")),
            pair("gen_ai.usage.input_tokens", int(self.dice.below(9_000))),
            pair("gen_ai.usage.output_tokens", int(self.dice.below(900))),
            pair(
                "gen_ai.output.messages",
                text(json!([message("assistant", &said)]).to_string()),
            ),
        ];
        self.span("chat gpt-4.1-mini".to_owned(), 3, attributes)
    }

    /// One call of a conversation, which carries all that was said before it.
    pub(crate) fn call(&mut self, history: &[(&str, String)], shape: History) -> wire::Span {
        let said = self.dice.prose(300);
        let mut attributes = self.model_attributes("researcher");
        match shape {
            History::Json => {
                let messages: Vec<Json> = history
                    .iter()
                    .map(|(role, content)| message(role, content))
                    .collect();
                attributes.push(pair(
                    "gen_ai.input.messages",
                    text(Json::from(messages).to_string()),
                ));
                attributes.push(pair(
                    "gen_ai.output.messages",
                    text(json!([message("assistant", &said)]).to_string()),
                ));
            }
            History::Flattened => {
                for (at, (role, content)) in history.iter().enumerate() {
                    let key = format!("llm.input_messages.{at}.message");
                    attributes.push(pair(format!("{key}.role"), text(*role)));
                    attributes.push(pair(format!("{key}.content"), text(content)));
                }
                attributes.push(pair(
                    "llm.output_messages.0.message.role",
                    text("assistant"),
                ));
                attributes.push(pair("llm.output_messages.0.message.content", text(said)));
            }
        }
        self.span("chat gpt-4.1-mini".to_owned(), 3, attributes)
    }
}

/// How a conversation is written into a span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum History {
    /// OTel GenAI: one JSON text, `gen_ai.input.messages`.
    Json,
    /// OpenInference: an attribute per field, `llm.input_messages.<i>.message.*`.
    Flattened,
}

fn resource() -> Vec<KeyValue> {
    vec![
        pair("service.name", text("bench-agents")),
        pair("service.version", text("1.4.2")),
        pair("telemetry.sdk.language", text("python")),
        pair("telemetry.sdk.name", text("opentelemetry")),
        pair("telemetry.sdk.version", text("1.38.0")),
    ]
}

const SCOPE: &str = "opentelemetry.instrumentation.openai_v2";

/// The body of an export in protobuf.
pub(crate) fn protobuf(spans: &[wire::Span]) -> Bytes {
    wire::ExportRequest {
        resources: vec![wire::ResourceItems {
            resource: Some(wire::Resource {
                attributes: resource(),
            }),
            scopes: vec![wire::ScopeItems {
                scope: Some(wire::Scope {
                    name: SCOPE.to_owned(),
                    version: "2.2b0".to_owned(),
                    attributes: Vec::new(),
                }),
                items: spans
                    .iter()
                    .map(|span| span.encode_to_vec().into())
                    .collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
    .into()
}

/// The span alone as OTLP JSON: the size that bytes in Redis are compared with.
pub(crate) fn json_size(span: &wire::Span) -> usize {
    fn value(any: &AnyValue) -> Json {
        match &any.value {
            Some(Value::String(text)) => json!({"stringValue": text}),
            Some(Value::Int(number)) => json!({"intValue": number.to_string()}),
            Some(Value::Array(array)) => {
                json!({"arrayValue": {"values": array.values.iter().map(value).collect::<Vec<_>>()}})
            }
            // The samples hold nothing else.
            _ => Json::Null,
        }
    }
    let attributes: Vec<Json> = span
        .attributes
        .iter()
        .map(|pair| json!({"key": pair.key, "value": pair.value.as_ref().map(value)}))
        .collect();
    json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id),
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes,
        "status": {},
    })
    .to_string()
    .len()
}
