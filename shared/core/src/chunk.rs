//! How observations lie in the log: blocks, and text that is stored once.
//!
//! A chunk is what one append stores: up to [`MAX_EVENTS`] observations as one zstd block. A string longer than
//! [`INLINE_BYTES`] is cut into content-defined pieces that lie once per trace under the hash of their content. An LLM call repeats the whole
//! conversation before it, so call n + 1 shares all pieces with call n but the last ones, in whatever format the history is written.

use std::{collections::HashMap, io::Read as _, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    observed::{Context, Observation, What},
    wire::{self, AnyValue, KeyValue, any_value::Value},
};

/// Events a chunk holds at most (DESIGN.md section 4, "Blocks").
pub const MAX_EVENTS: usize = 256;
/// Raw bytes a chunk holds at most, beside its last event: one event may be larger than this, and then stands alone.
pub const MAX_BYTES: usize = 256 * 1024;
/// Strings up to this length stay inside their block.
pub const INLINE_BYTES: usize = 256;

/// The format this release writes. It reads this one and, from the second format on, the one before.
const FORMAT: u8 = 1;
/// No zstd dictionary yet; the byte keeps the place.
const NO_DICTIONARY: u8 = 0;
/// Pieces between 256 bytes and 8 KiB, about 1 KiB: smaller ones cost more in hash entries than they share.
const PIECE_BYTES: (usize, usize, usize) = (256, 1024, 8192);
/// What a block may unfold to: the largest accepted request (16 MiB) with room for what surrounds it.
const MAX_UNFOLDED_BYTES: u64 = 64 * 1024 * 1024;
/// zstd's fastest level with good ratios on JSON of this size; measured by `scripts/bench`.
const ZSTD_LEVEL: i32 = 3;

/// The hash of a piece's content, and its name in the trace's blobs.
pub type PieceId = [u8; 8];

/// A chunk ready to be appended.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub block: Vec<u8>,
    /// Pieces the block refers to, each once; those that the trace has already are the same bytes.
    pub pieces: Vec<(PieceId, Vec<u8>)>,
}

/// Why a stored block cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("block has format {0}, this release reads {FORMAT}")]
    Format(u8),
    #[error("block is damaged: {0}")]
    Damaged(String),
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredChunk {
    #[prost(message, repeated, tag = "1")]
    contexts: Vec<StoredContext>,
    #[prost(message, repeated, tag = "2")]
    events: Vec<StoredEvent>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredContext {
    #[prost(message, repeated, tag = "1")]
    resource: Vec<KeyValue>,
    #[prost(message, optional, tag = "2")]
    scope: Option<wire::Scope>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredEvent {
    #[prost(uint32, tag = "1")]
    context: u32,
    #[prost(message, optional, tag = "2")]
    span: Option<wire::Span>,
    #[prost(message, optional, tag = "3")]
    log: Option<wire::LogRecord>,
    #[prost(message, optional, tag = "4")]
    native: Option<AnyValue>,
}

/// Splits a batch into chunks, in order: by count and by size.
pub fn split<T>(items: Vec<T>, size_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for item in items {
        let size = size_of(&item);
        if !chunk.is_empty() && (chunk.len() >= MAX_EVENTS || bytes + size > MAX_BYTES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(item);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// About how many bytes an observation takes unfolded.
pub fn size_of(observation: &Observation) -> usize {
    match &observation.what {
        What::Span(span) => span.encoded_len(),
        What::Log(log) => log.encoded_len(),
        What::Native(json) => json.len(),
    }
}

/// Encodes observations as one block and the pieces it refers to.
pub fn encode<'a>(observations: impl IntoIterator<Item = &'a Observation>) -> Encoded {
    let mut pieces = Pieces::default();
    let mut chunk = StoredChunk::default();
    // Contexts are shared by pointer within a request; the few that differ are compared by value.
    let mut contexts: Vec<Arc<Context>> = Vec::new();
    for observation in observations {
        let at = contexts
            .iter()
            .position(|known| {
                Arc::ptr_eq(known, &observation.context) || **known == *observation.context
            })
            .unwrap_or_else(|| {
                contexts.push(Arc::clone(&observation.context));
                contexts.len() - 1
            });
        let mut event = StoredEvent {
            context: u32::try_from(at).unwrap_or(u32::MAX),
            ..StoredEvent::default()
        };
        match &observation.what {
            What::Span(span) => {
                let mut span = (**span).clone();
                pieces.take_attributes(&mut span.attributes);
                for event in &mut span.events {
                    pieces.take_attributes(&mut event.attributes);
                }
                event.span = Some(span);
            }
            What::Log(log) => {
                let mut log = (**log).clone();
                pieces.take_attributes(&mut log.attributes);
                if let Some(body) = &mut log.body {
                    pieces.take(body);
                }
                event.log = Some(log);
            }
            What::Native(json) => {
                let mut value = AnyValue {
                    value: Some(Value::String(json.to_string())),
                };
                pieces.take(&mut value);
                event.native = Some(value);
            }
        }
        chunk.events.push(event);
    }
    chunk.contexts = contexts
        .iter()
        .map(|context| StoredContext {
            resource: context.resource.clone(),
            scope: Some(context.scope.clone()),
            schema_url: context.schema_url.clone(),
        })
        .collect();
    let mut block = vec![FORMAT, NO_DICTIONARY];
    block.extend(compress(&chunk.encode_to_vec()));
    Encoded {
        block,
        pieces: pieces.found,
    }
}

/// A block that was read, its long strings perhaps still to be filled in.
#[derive(Debug)]
pub struct Decoded {
    chunk: StoredChunk,
}

/// Unfolds a block.
///
/// # Errors
/// A format this release does not read, or damage.
pub fn decode(block: &[u8]) -> Result<Decoded, Unreadable> {
    let damaged = |what: &dyn std::fmt::Display| Unreadable::Damaged(what.to_string());
    let (format, rest) = block.split_first().ok_or_else(|| damaged(&"it is empty"))?;
    if *format != FORMAT {
        return Err(Unreadable::Format(*format));
    }
    let (dictionary, packed) = rest
        .split_first()
        .ok_or_else(|| damaged(&"it ends after one byte"))?;
    if *dictionary != NO_DICTIONARY {
        return Err(damaged(&"it names an unknown dictionary"));
    }
    let raw = unfold(packed).map_err(|error| damaged(&error))?;
    let chunk = StoredChunk::decode(raw.as_slice()).map_err(|error| damaged(&error))?;
    Ok(Decoded { chunk })
}

impl Decoded {
    /// The pieces to fetch, each once.
    pub fn pieces(&self) -> Vec<PieceId> {
        let mut ids = Vec::new();
        let mut visit = |value: &AnyValue| {
            for_each_stored(value, &mut |hashes| ids.extend(piece_ids(hashes)));
        };
        for event in &self.chunk.events {
            if let Some(span) = &event.span {
                let of_events = span.events.iter().flat_map(|event| &event.attributes);
                for attribute in span.attributes.iter().chain(of_events) {
                    attribute.value.iter().for_each(&mut visit);
                }
            }
            if let Some(log) = &event.log {
                log.attributes
                    .iter()
                    .filter_map(|attribute| attribute.value.as_ref())
                    .for_each(&mut visit);
                log.body.iter().for_each(&mut visit);
            }
            event.native.iter().for_each(&mut visit);
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The observations, long strings filled in. A piece that is gone leaves [`LOST`] in its place, and is counted.
    pub fn resolve(self, pieces: &HashMap<PieceId, Bytes>) -> (Vec<Observation>, usize) {
        let mut filler = Filler { pieces, lost: 0 };
        let contexts: Vec<_> = self
            .chunk
            .contexts
            .into_iter()
            .map(|context| {
                Arc::new(Context {
                    resource: context.resource,
                    scope: context.scope.unwrap_or_default(),
                    schema_url: context.schema_url,
                })
            })
            .collect();
        let observations = self
            .chunk
            .events
            .into_iter()
            .map(|event| Observation {
                context: contexts
                    .get(event.context as usize)
                    .cloned()
                    .unwrap_or_default(),
                what: if let Some(mut span) = event.span {
                    filler.fill_attributes(&mut span.attributes);
                    for event in &mut span.events {
                        filler.fill_attributes(&mut event.attributes);
                    }
                    What::Span(Box::new(span))
                } else if let Some(mut log) = event.log {
                    filler.fill_attributes(&mut log.attributes);
                    if let Some(body) = &mut log.body {
                        filler.fill(body);
                    }
                    What::Log(Box::new(log))
                } else {
                    let mut value = event.native.unwrap_or_default();
                    filler.fill(&mut value);
                    What::Native(match value.value {
                        Some(Value::String(json)) => json.into(),
                        _ => "{}".into(),
                    })
                },
            })
            .collect();
        (observations, filler.lost)
    }
}

/// Stands where a piece of text should be that the store does not have any more.
pub const LOST: &str = "\u{fffd}[text lost]";

#[derive(Default)]
struct Pieces {
    found: Vec<(PieceId, Vec<u8>)>,
    known: std::collections::HashSet<PieceId>,
}

impl Pieces {
    fn take_attributes(&mut self, attributes: &mut [KeyValue]) {
        for attribute in attributes {
            if let Some(value) = &mut attribute.value {
                self.take(value);
            }
        }
    }

    /// Replaces every long string by the hashes of its pieces. The decoder bounds how deep values nest.
    fn take(&mut self, any: &mut AnyValue) {
        match &mut any.value {
            Some(Value::String(text)) if text.len() > INLINE_BYTES => {
                let (min, average, max) = PIECE_BYTES;
                let mut hashes = BytesMut::new();
                // Level 0: hashes of text. The byte keeps a place for lists of lists.
                hashes.put_u8(0);
                for cut in fastcdc::v2020::FastCDC::new(text.as_bytes(), min, average, max) {
                    let piece = &text.as_bytes()[cut.offset..cut.offset + cut.length];
                    let id = xxh3_64(piece).to_le_bytes();
                    hashes.extend_from_slice(&id);
                    if self.known.insert(id) {
                        self.found.push((id, pack(piece)));
                    }
                }
                any.value = Some(Value::Stored(hashes.freeze()));
            }
            Some(Value::Array(array)) => array.values.iter_mut().for_each(|value| self.take(value)),
            Some(Value::Map(map)) => self.take_attributes(&mut map.values),
            _ => {}
        }
    }
}

struct Filler<'a> {
    pieces: &'a HashMap<PieceId, Bytes>,
    lost: usize,
}

impl Filler<'_> {
    fn fill_attributes(&mut self, attributes: &mut [KeyValue]) {
        for attribute in attributes {
            if let Some(value) = &mut attribute.value {
                self.fill(value);
            }
        }
    }

    fn fill(&mut self, any: &mut AnyValue) {
        match &mut any.value {
            Some(Value::Stored(hashes)) => {
                let mut text = Vec::new();
                for id in piece_ids(hashes) {
                    match self.pieces.get(&id).and_then(unpack) {
                        Some(piece) => text.extend(piece),
                        None => {
                            self.lost += 1;
                            text.extend(LOST.as_bytes());
                        }
                    }
                }
                any.value = Some(Value::String(match String::from_utf8(text) {
                    Ok(text) => text,
                    // Only where a lost piece cut a character.
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                }));
            }
            Some(Value::Array(array)) => array.values.iter_mut().for_each(|value| self.fill(value)),
            Some(Value::Map(map)) => self.fill_attributes(&mut map.values),
            _ => {}
        }
    }
}

fn for_each_stored(any: &AnyValue, visit: &mut impl FnMut(&Bytes)) {
    match &any.value {
        Some(Value::Stored(hashes)) => visit(hashes),
        Some(Value::Array(array)) => array
            .values
            .iter()
            .for_each(|value| for_each_stored(value, visit)),
        Some(Value::Map(map)) => map
            .values
            .iter()
            .filter_map(|attribute| attribute.value.as_ref())
            .for_each(|value| for_each_stored(value, visit)),
        _ => {}
    }
}

fn piece_ids(hashes: &Bytes) -> impl Iterator<Item = PieceId> {
    let hashes = hashes.get(1..).unwrap_or_default();
    hashes.chunks_exact(8).filter_map(|id| id.try_into().ok())
}

/// 1 and a zstd frame, or 0 and the bytes where compression gains nothing.
fn pack(piece: &[u8]) -> Vec<u8> {
    let packed = compress(piece);
    let (kind, bytes) = if packed.len() < piece.len() {
        (1, packed.as_slice())
    } else {
        (0, piece)
    };
    let mut all = Vec::with_capacity(bytes.len() + 1);
    all.push(kind);
    all.extend_from_slice(bytes);
    all
}

fn unpack(packed: &Bytes) -> Option<Vec<u8>> {
    match packed.split_first()? {
        (0, raw) => Some(raw.to_vec()),
        (1, frame) => unfold(frame).ok(),
        _ => None,
    }
}

fn compress(raw: &[u8]) -> Vec<u8> {
    thread_local! {
        // A fresh zstd context costs more than compressing a kilobyte with it.
        static COMPRESSOR: std::cell::RefCell<Option<zstd::bulk::Compressor<'static>>> = const { std::cell::RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        // Both fail only where memory cannot be had at all: the level is valid, and the output vector is sized by zstd itself.
        let compressor = slot.get_or_insert_with(|| {
            zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("zstd makes a context at a valid level")
        });
        compressor
            .compress(raw)
            .expect("zstd compresses any bytes into a buffer of its own bound")
    })
}

fn unfold(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    let mut raw = Vec::new();
    decoder.take(MAX_UNFOLDED_BYTES + 1).read_to_end(&mut raw)?;
    if raw.len() as u64 > MAX_UNFOLDED_BYTES {
        return Err(std::io::Error::other("unfolds to more than 64 MiB"));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(json: &str) -> Observation {
        Observation {
            context: Arc::default(),
            what: What::Native(json.into()),
        }
    }

    fn read_back(encoded: &Encoded) -> (Vec<Observation>, usize) {
        let pieces = encoded
            .pieces
            .iter()
            .map(|(id, piece)| (*id, Bytes::from(piece.clone())))
            .collect();
        decode(&encoded.block).expect("own block").resolve(&pieces)
    }

    #[test]
    fn a_block_reads_back_what_was_appended() {
        let long = format!(
            "{{\"event_type\":\"x\",\"text\":\"{}\"}}",
            "héllo ".repeat(5_000)
        );
        let observations = vec![native("{\"event_type\":\"a\"}"), native(&long)];
        let encoded = encode(&observations);
        assert!(!encoded.pieces.is_empty());
        assert_eq!(read_back(&encoded), (observations, 0));
    }

    #[test]
    fn a_growing_history_is_stored_once() {
        let mut history = String::new();
        let (mut sent, mut stored) = (0, HashMap::new());
        for turn in 0u32..100 {
            let words: Vec<String> = (0..120u32)
                .map(|n| format!("w{}", xxh3_64(&(turn * 1000 + n).to_le_bytes()) % 10_000))
                .collect();
            history.push_str(&format!(
                "{{\"role\":\"user\",\"content\":\"{}\"}},",
                words.join(" ")
            ));
            let encoded = encode(&[native(&format!("[{history}]"))]);
            sent += history.len();
            stored.insert([turn.to_le_bytes(), [0; 4]].concat(), encoded.block.len());
            stored.extend(
                encoded
                    .pieces
                    .iter()
                    .map(|(id, piece)| (id.to_vec(), piece.len())),
            );
        }
        let stored: usize = stored.values().sum();
        assert!(stored * 20 < sent, "{sent} bytes sent are {stored} stored");
    }

    #[test]
    fn a_lost_piece_is_marked_and_counted() {
        let encoded = encode(&[native(&"x".repeat(300))]);
        let (observations, lost) = decode(&encoded.block)
            .expect("own block")
            .resolve(&HashMap::new());
        assert_eq!(lost, 1);
        assert_eq!(observations, [native(LOST)]);
    }

    #[test]
    fn what_is_no_block_is_an_error() {
        for bytes in [
            &b""[..],
            &[1],
            &[1, 0],
            &[1, 0, 9, 9, 9],
            &[1, 7, 0],
            &[2, 0, 0],
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn chunks_are_bounded_by_count_and_by_bytes() {
        let sizes = |items: Vec<usize>| {
            split(items, |size| *size)
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(vec![1; 600]), [256, 256, 88]);
        assert_eq!(sizes(vec![MAX_BYTES + 1, 1, MAX_BYTES, 1]), [1, 1, 1, 1]);
    }
}
