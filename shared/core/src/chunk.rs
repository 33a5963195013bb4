//! How observations lie in the log: blocks, and text that is stored once.
//!
//! A chunk is what one append stores: up to [`MAX_EVENTS`] observations as one zstd block. An observation larger than [`WHOLE_BYTES`] is
//! split: its attributes, as they are encoded, are cut where their content says so, and the pieces lie once per trace under the
//! hash of their content. An LLM call repeats the whole conversation before it, so call n + 1 shares all pieces with call n but the
//! last ones, however the history is written: as one text, or as an attribute for each field of each message. What surely is the
//! observation's own - what stands before the first cut and behind the last - stays in the block.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    io::Read as _,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;
use zstd::{
    bulk::Compressor,
    dict::{DecoderDictionary, EncoderDictionary},
    stream::raw::CParameter,
};

use crate::{
    observed::{Canonical, Context, Observation, What},
    protobuf::{Fields, Raw, begin_field, put_bytes, put_varint},
    wire::{self, AnyValue, KeyValue, any_value::Value},
};

/// Events a chunk holds at most (DESIGN.md section 4, "Blocks").
pub const MAX_EVENTS: usize = 256;
/// Raw bytes a chunk holds at most, beside its last event: one event may be larger than this, and then stands alone.
pub const MAX_BYTES: usize = 256 * 1024;
/// Observations up to this length lie in their block as they are: zstd makes more of them beside their neighbours than a hash of their pieces would.
pub const WHOLE_BYTES: usize = 2048;

/// The format this release writes. It reads this one and, from the second format on, the one before.
const FORMAT: u8 = 1;
/// What zstd knows before it reads the first byte: attributes of agent telemetry, the commonest last, where they are nearest. A block of one
/// span is half as large with it. Stored blocks need it as it is: another list is another dictionary, with a number of its own.
const WORDS: &str = include_str!("chunk/words.txt");
const DICTIONARY: u8 = 1;
/// A block that was packed without it.
const NO_DICTIONARY: u8 = 0;
/// Up to here the dictionary is used; more bytes have their words in themselves, and with a dictionary zstd takes them half as fast.
const SMALL_BYTES: usize = 16 * 1024;
/// Least, aimed-at and most bytes of a piece. Smaller ones cost more in hash entries than they share; of larger ones a history that was flattened to
/// attributes shares less from call to call.
const PIECE_BYTES: (usize, usize, usize) = (640, 640, 8192);
/// A text this long is cut from its own first byte: what stands before it has other lengths and numbers in every call.
const LONG_TEXT_BYTES: usize = 4096;
/// What a block may unfold to: the largest accepted request (16 MiB) with room for what surrounds it.
const MAX_UNFOLDED_BYTES: u64 = 64 * 1024 * 1024;
/// Of small blocks and pieces, which are many: level 1 makes them 2 to 3 % larger.
const SMALL_LEVEL: i32 = 3;
/// Of other blocks: level 3 gains 10 % and takes a third longer, and packing is most of what ingest costs.
const LARGE_LEVEL: i32 = 1;
/// The shortest repeat that large blocks look for, where level 1 would take 6: prose has many short ones that save a byte or two each. Packing takes a seventh
/// less time; random prose becomes 4 % larger, recorded exports no larger.
const LARGE_LEAST_REPEAT: u32 = 7;

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

/// Written by [`Encoder`], field by field; read as a message.
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
    #[prost(string, optional, tag = "4")]
    native: Option<String>,
    /// Further fields of the span or log record, or the text of the native event.
    #[prost(message, optional, tag = "5")]
    rest: Option<StoredRest>,
}

/// Bytes, some of which are pieces.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredRest {
    /// Hashes of 8 bytes each.
    #[prost(bytes = "bytes", tag = "1")]
    pieces: Bytes,
    /// For each piece, how many of the bytes below stand between it and the piece before.
    #[prost(uint32, repeated, tag = "2")]
    gaps: Vec<u32>,
    /// The bytes between the pieces, and those behind the last.
    #[prost(bytes = "bytes", tag = "3")]
    own: Bytes,
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

/// Encodes observations as one block and the pieces it refers to.
pub fn encode<'a>(
    observations: impl IntoIterator<Item = (&'a Arc<Context>, &'a Canonical)>,
) -> Encoded {
    let mut encoder = Encoder {
        raw: RAW.take(),
        ..Encoder::default()
    };
    for (context, what) in observations {
        encoder.put(context, what);
    }
    encoder.finish()
}

/// Writes a [`StoredChunk`] from the observations' own bytes.
#[derive(Default)]
struct Encoder<'a> {
    contexts: Vec<&'a Arc<Context>>,
    raw: Vec<u8>,
    /// Reused for every event.
    event: Vec<u8>,
    known: HashSet<PieceId>,
    found: Vec<(PieceId, Vec<u8>)>,
}

impl<'a> Encoder<'a> {
    fn put(&mut self, context: &'a Arc<Context>, what: &Canonical) {
        let context = self.context(context);
        self.event.clear();
        if context > 0 {
            self.event.push(1 << 3);
            put_varint(context as u64, &mut self.event);
        }
        let (number, bytes) = match what {
            Canonical::Span(bytes) => (2, &bytes[..]),
            Canonical::Log(bytes) => (3, &bytes[..]),
            Canonical::Native(json) => (4, json.as_bytes()),
        };
        if bytes.len() <= WHOLE_BYTES {
            put_bytes(number, bytes, &mut self.event);
        } else {
            let parts = match what {
                Canonical::Span(bytes) => Parts::of_span(bytes),
                Canonical::Log(bytes) => Parts::of_log(bytes),
                Canonical::Native(json) => Parts {
                    rest: json.as_bytes().to_vec(),
                    ..Parts::default()
                },
            };
            put_bytes(number, &parts.head, &mut self.event);
            self.put_rest(&parts);
        }
        put_bytes(2, &self.event, &mut self.raw);
    }

    /// Contexts are shared by pointer within a request; the few that differ are compared by value.
    fn context(&mut self, context: &'a Arc<Context>) -> usize {
        let known = self.contexts.iter();
        known
            .clone()
            .rposition(|known| Arc::ptr_eq(known, context))
            .or_else(|| known.clone().position(|known| ***known == **context))
            .unwrap_or_else(|| {
                self.contexts.push(context);
                self.contexts.len() - 1
            })
    }

    /// Cuts `rest` and stores its pieces.
    fn put_rest(
        &mut self,
        Parts {
            rest, long_texts, ..
        }: &Parts,
    ) {
        let (min, average, max) = PIECE_BYTES;
        let (mut hashes, mut gaps, mut own, mut gap) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut begin = 0;
        for end in long_texts.iter().copied().chain([rest.len()]) {
            let region = rest.get(begin..end).unwrap_or_default();
            for cut in fastcdc::v2020::FastCDC::new(region, min, average, max) {
                let cut_end = cut.offset + cut.length;
                let bytes = region.get(cut.offset..cut_end).unwrap_or_default();
                // The beginning holds what no other call has (ids, token counts), and what ends with its region will go on in the next call.
                if cut_end == region.len() || cut.offset == 0 && begin == 0 {
                    own.extend_from_slice(bytes);
                    gap += bytes.len();
                    continue;
                }
                let id = xxh3_64(bytes).to_le_bytes();
                hashes.extend_from_slice(&id);
                gaps.push(u32::try_from(gap).unwrap_or(u32::MAX));
                gap = 0;
                if self.known.insert(id) {
                    self.found.push((id, pack(bytes)));
                }
            }
            begin = end;
        }
        let stored = StoredRest {
            pieces: hashes.into(),
            gaps,
            own: own.into(),
        };
        put_message(5, &stored, &mut self.event);
    }

    fn finish(mut self) -> Encoded {
        for context in self.contexts {
            let stored = StoredContext {
                resource: context.resource.clone(),
                scope: Some(context.scope.clone()),
                schema_url: context.schema_url.clone(),
            };
            put_message(1, &stored, &mut self.raw);
        }
        let mut block = vec![FORMAT];
        if self.raw.len() <= SMALL_BYTES {
            block.push(DICTIONARY);
            pack_small(&self.raw, &mut block);
        } else {
            block.push(NO_DICTIONARY);
            pack_large(&self.raw, &mut block);
        }
        self.raw.clear();
        self.raw.shrink_to(KEPT_BYTES);
        RAW.set(self.raw);
        Encoded {
            block,
            pieces: self.found,
        }
    }
}

/// A message in two: what is small and its own, and what other observations may share.
#[derive(Default)]
struct Parts {
    head: Vec<u8>,
    rest: Vec<u8>,
    /// Where in `rest` a long text begins.
    long_texts: Vec<usize>,
}

impl Parts {
    /// `rest`: the attributes and events.
    fn of_span(message: &[u8]) -> Self {
        Self::of(message, |number| match number {
            9 => Some(Holds::Attribute),
            11 => Some(Holds::Other),
            _ => None,
        })
    }

    /// `rest`: the body and the attributes.
    fn of_log(message: &[u8]) -> Self {
        Self::of(message, |number| match number {
            5 => Some(Holds::Value),
            6 => Some(Holds::Attribute),
            _ => None,
        })
    }

    fn of(message: &[u8], shared: impl Fn(u32) -> Option<Holds>) -> Self {
        let mut parts = Self::default();
        let mut fields = Fields(message);
        let mut before = message;
        // Canonical bytes are a message; of others what can be read is kept.
        while let Ok(Some((number, raw))) = fields.next() {
            let (field, _) = before.split_at(before.len() - fields.0.len());
            before = fields.0;
            let Some(holds) = shared(number) else {
                parts.head.extend_from_slice(field);
                continue;
            };
            parts.rest.extend_from_slice(field);
            let text = match holds {
                Holds::Attribute => field_of(raw.bytes(), 2).and_then(|value| field_of(value, 1)),
                Holds::Value => field_of(raw.bytes(), 1),
                Holds::Other => None,
            };
            // A text is the last thing its attribute is encoded to, so it begins its length before the attribute's end.
            if let Some(text) = text.filter(|text| text.len() >= LONG_TEXT_BYTES) {
                parts
                    .long_texts
                    .extend(parts.rest.len().checked_sub(text.len()));
            }
        }
        parts
    }
}

/// What a shared field holds, as far as long texts are looked for in it.
enum Holds {
    Attribute,
    Value,
    Other,
}

/// The bytes of a message's field.
fn field_of(message: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut fields = Fields(message);
    while let Ok(Some((number, raw))) = fields.next() {
        if let (true, Raw::Bytes(bytes)) = (number == wanted, raw) {
            return Some(bytes);
        }
    }
    None
}

/// A field of a message (its number below 16) that is a message.
fn put_message(number: u8, message: &impl Message, out: &mut Vec<u8>) {
    begin_field(number, message.encoded_len(), out);
    message.encode_raw(out);
}

/// The bytes within a stored block or piece as they were packed, unread: for who looks for something in all that is stored. `None`: it is neither.
pub fn unpacked(stored: &[u8]) -> Option<Vec<u8>> {
    match stored {
        [FORMAT, NO_DICTIONARY, packed @ ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed);
            decoder.and_then(unfold).ok()
        }
        [FORMAT, DICTIONARY, packed @ ..] => unfold_small(packed).ok(),
        _ => None,
    }
    .or_else(|| unpack(&Bytes::copy_from_slice(stored)))
}

/// A block that was read, its pieces still to be filled in.
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
    let raw = match *dictionary {
        NO_DICTIONARY => zstd::stream::read::Decoder::with_buffer(packed).and_then(unfold),
        DICTIONARY => unfold_small(packed),
        _ => return Err(damaged(&"it names an unknown dictionary")),
    };
    let raw = raw.map_err(|error| damaged(&error))?;
    let chunk = StoredChunk::decode(raw.as_slice()).map_err(|error| damaged(&error))?;
    Ok(Decoded { chunk })
}

impl Decoded {
    /// The pieces to fetch, each once.
    pub fn pieces(&self) -> Vec<PieceId> {
        let rests = self
            .chunk
            .events
            .iter()
            .filter_map(|event| event.rest.as_ref());
        let mut ids: Vec<PieceId> = rests.flat_map(StoredRest::ids).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The observations, pieces filled in, and how many pieces are gone. Text that is gone is replaced by [`LOST`]; of a span or log record the
    /// attributes from there on are gone too, and [`LOST_KEY`] says so.
    pub fn resolve(self, pieces: &HashMap<PieceId, Bytes>) -> (Vec<Observation>, usize) {
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
        let mut lost = 0;
        let observations = self
            .chunk
            .events
            .into_iter()
            .map(|event| Observation {
                context: contexts
                    .get(event.context as usize)
                    .cloned()
                    .unwrap_or_default(),
                what: whole(event, pieces, &mut lost),
            })
            .collect();
        (observations, lost)
    }
}

/// Stands where a piece of text should be that the store does not have any more.
pub const LOST: &str = "\u{fffd}[text lost]";
/// The attribute of a span or log record that lost others.
pub const LOST_KEY: &str = "tailspan.lost";

fn whole(event: StoredEvent, pieces: &HashMap<PieceId, Bytes>, lost: &mut usize) -> What {
    let rest = event.rest.as_ref().map(|rest| rest.fill(pieces));
    let gone = rest.as_ref().map_or(0, |rest| rest.gone);
    *lost += gone;
    // A message is read up to the first piece that is gone: behind it no length can be trusted.
    let fields = || {
        let rest = rest.as_ref()?;
        Some(rest.bytes.get(..rest.sure).unwrap_or_default())
    };
    let marker = || KeyValue {
        key: LOST_KEY.into(),
        value: Some(AnyValue {
            value: Some(Value::String(LOST.into())),
        }),
    };
    if let Some(mut span) = event.span {
        // What was read before an error stays.
        if fields().is_some_and(|fields| span.merge(fields).is_err()) || gone > 0 {
            *lost += usize::from(gone == 0);
            span.attributes.push(marker());
        }
        What::Span(Arc::new(span))
    } else if let Some(mut log) = event.log {
        if fields().is_some_and(|fields| log.merge(fields).is_err()) || gone > 0 {
            *lost += usize::from(gone == 0);
            log.attributes.push(marker());
        }
        What::Log(Arc::new(log))
    } else {
        let text = rest.map_or_else(
            || event.native.unwrap_or_default(),
            |rest| {
                // Only where a piece that is gone cut a character is this not the text as it was.
                String::from_utf8(rest.bytes)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
            },
        );
        What::Native(text.into())
    }
}

/// A rest, put together.
struct Filled {
    bytes: Vec<u8>,
    /// How many bytes stand before the first piece that is gone.
    sure: usize,
    gone: usize,
}

impl StoredRest {
    fn ids(&self) -> impl Iterator<Item = PieceId> {
        let ids = self.pieces.chunks_exact(8);
        ids.filter_map(|id| id.try_into().ok())
    }

    fn fill(&self, pieces: &HashMap<PieceId, Bytes>) -> Filled {
        let (mut bytes, mut own, mut sure, mut gone) = (Vec::new(), &*self.own, None, 0);
        for (id, gap) in self.ids().zip(&self.gaps) {
            let (before, after) = own.split_at(own.len().min(*gap as usize));
            bytes.extend_from_slice(before);
            own = after;
            match pieces.get(&id).and_then(unpack) {
                Some(piece) => bytes.extend(piece),
                None => {
                    sure.get_or_insert(bytes.len());
                    bytes.extend_from_slice(LOST.as_bytes());
                    gone += 1;
                }
            }
        }
        bytes.extend_from_slice(own);
        Filled {
            sure: sure.unwrap_or(bytes.len()),
            bytes,
            gone,
        }
    }
}

/// 1 and a zstd frame, or 0 and the bytes where compression gains nothing.
fn pack(piece: &[u8]) -> Vec<u8> {
    let mut packed = vec![1];
    pack_small(piece, &mut packed);
    if packed.len() > piece.len() {
        packed.clear();
        packed.push(0);
        packed.extend_from_slice(piece);
    }
    packed
}

fn unpack(packed: &Bytes) -> Option<Vec<u8>> {
    match packed.split_first()? {
        (0, raw) => Some(raw.to_vec()),
        (1, frame) => unfold_small(frame).ok(),
        _ => None,
    }
}

/// [`WORDS`] as attributes are encoded: a line is a key, and behind a tab a value.
static DICTIONARY_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for line in WORDS.lines() {
        let (key, value) = line.split_once('\t').unwrap_or((line, ""));
        let attribute = KeyValue {
            key: key.into(),
            value: Some(AnyValue {
                value: Some(Value::String(value.into())),
            }),
        };
        put_message(9, &attribute, &mut bytes);
    }
    bytes
});
static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(&DICTIONARY_BYTES, SMALL_LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(&DICTIONARY_BYTES));

thread_local! {
    /// What a chunk was written into before: memory of its size is asked of the system anew each time, and comes as pages to be filled with zeros (4 % of what a span over a WebSocket costs, by `perf` of `scripts/bench socket`).
    static RAW: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static PACKER: RefCell<Packer> = RefCell::default();
}
/// What a thread keeps of each, at most: some more than a full chunk.
const KEPT_BYTES: usize = 2 * MAX_BYTES;

/// What a thread packs with. A fresh zstd context costs more than compressing a kilobyte with it.
#[derive(Default)]
struct Packer {
    small: Option<Compressor<'static>>,
    large: Option<Compressor<'static>>,
    packed: Vec<u8>,
}

/// Appends a zstd frame of a block or piece that knows the dictionary.
fn pack_small(raw: &[u8], into: &mut Vec<u8>) {
    PACKER.with_borrow_mut(|Packer { small, packed, .. }| {
        let make = || Compressor::with_prepared_dictionary(&ENCODER);
        compress(small, make, raw, packed, into);
    });
}

/// Appends a zstd frame of a block that has its words in itself.
fn pack_large(raw: &[u8], into: &mut Vec<u8>) {
    PACKER.with_borrow_mut(|Packer { large, packed, .. }| {
        let make = || {
            let mut compressor = Compressor::new(LARGE_LEVEL)?;
            compressor.set_parameter(CParameter::MinMatch(LARGE_LEAST_REPEAT))?;
            Ok(compressor)
        };
        compress(large, make, raw, packed, into);
    });
}

/// By way of `packed`, which has room for the worst; what is appended has its own length.
fn compress(
    slot: &mut Option<Compressor<'static>>,
    make: impl FnOnce() -> std::io::Result<Compressor<'static>>,
    raw: &[u8],
    packed: &mut Vec<u8>,
    into: &mut Vec<u8>,
) {
    packed.clear();
    packed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    // Both fail only where memory cannot be had at all: level and dictionary are ours, and there is room for what zstd makes of any bytes.
    slot.get_or_insert_with(|| make().expect("zstd makes a context"))
        .compress_to_buffer(raw, packed)
        .expect("zstd compresses any bytes into a buffer of its own bound");
    into.extend_from_slice(packed);
    packed.clear();
    packed.shrink_to(KEPT_BYTES);
}

fn unfold_small(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::stream::read::Decoder::with_prepared_dictionary(packed, &DECODER).and_then(unfold)
}

fn unfold(decoder: zstd::stream::read::Decoder<'_, &[u8]>) -> std::io::Result<Vec<u8>> {
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

    fn encode_all(observations: &[Observation]) -> Encoded {
        let whats: Vec<_> = observations
            .iter()
            .map(|seen| (&seen.context, Canonical::from(&seen.what)))
            .collect();
        encode(whats.iter().map(|(context, what)| (*context, what)))
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
        let encoded = encode_all(&observations);
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
            let encoded = encode_all(&[native(&format!("[{history}]"))]);
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
        let text: String = (0..2_000).map(|n| format!("{n} ")).collect();
        let pair = |key: &str, text: &str| KeyValue {
            key: key.into(),
            value: Some(AnyValue {
                value: Some(Value::String(text.into())),
            }),
        };
        let span = wire::Span {
            name: "chat".to_owned(),
            attributes: vec![
                pair("model", "m"),
                pair("history", &text),
                pair("late", "l"),
            ],
            ..wire::Span::default()
        };
        let observations = [
            native(&text),
            Observation {
                context: Arc::default(),
                what: What::Span(Arc::new(span)),
            },
        ];
        let encoded = encode_all(&observations);
        assert_eq!(read_back(&encoded), (observations.to_vec(), 0));
        let (observations, lost) = decode(&encoded.block)
            .expect("own block")
            .resolve(&HashMap::new());
        assert!(lost > 2, "{lost}");
        let What::Native(json) = &observations[0].what else {
            panic!("a native event");
        };
        assert!(json.starts_with("0 1 2 ") && json.contains(LOST) && json.ends_with("1999 "));
        let What::Span(span) = &observations[1].what else {
            panic!("a span");
        };
        assert_eq!(span.name, "chat");
        assert_eq!(span.attributes, [pair("model", "m"), pair(LOST_KEY, LOST)]);
    }

    #[test]
    fn the_dictionary_is_the_one_that_stored_blocks_were_written_with() {
        assert_eq!(
            (DICTIONARY, xxh3_64(&DICTIONARY_BYTES)),
            (1, 17_557_800_042_253_797_746)
        );
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
