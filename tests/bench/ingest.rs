//! Spans per CPU-second, stage by stage, in one thread; Redis's CPU apart.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use tailspan_core::{
    chunk, convention,
    id::{TenantId, TraceId},
    limits::Limits,
    observed::Incoming,
    otlp::{self, Encoding},
    wire,
};
use tailspan_service::{
    App,
    config::{Config, RedisTls},
    redis::{Arg, Redis},
};

use crate::{
    agentevals::Agentevals,
    phoenix::Phoenix,
    sample::{self, Run, Texts},
    serve::Server,
    store::{Client, Store},
    table::{self, Row, whole},
};

const SPANS_A_BATCH: usize = 512;
const BATCHES: u64 = 60;
/// It takes about a hundred spans per CPU-second, so it gets few, and once.
const PHOENIX_BATCHES: usize = 3;
/// Requests of an export as it was recorded, sent again and again as new traces.
const CORPUS_ROUNDS: usize = 40;

type Traces = Vec<(TraceId, Vec<Incoming>)>;

/// `agentevals`, `phoenix`: the programs of those names, where they are installed.
pub(crate) fn measure(
    corpus: &Path,
    agentevals: Option<&Path>,
    phoenix: Option<&Path>,
) -> Result<()> {
    for (traces_a_batch, texts, name) in [
        (1, Texts::New, "one run a batch, no text twice"),
        (8, Texts::New, "eight runs a batch, no text twice"),
        (1, Texts::Passed, "one run a batch, texts handed on"),
    ] {
        let bodies: Vec<Bytes> = (0..BATCHES)
            .map(|batch| made(batch * 8 + 1, traces_a_batch, texts))
            .collect();
        stages(
            &format!(
                "Ingest: {BATCHES} protobuf batches of {SPANS_A_BATCH} agent spans, {name}, one thread"
            ),
            &bodies,
        )?;
        let ours = through_http(&bodies)?;
        if let Some(program) = agentevals {
            let (taken, cpu) = Agentevals::start(program)?.take(&bodies)?;
            let theirs = (taken * SPANS_A_BATCH) as f64 / cpu.as_secs_f64();
            let spans = (bodies.len() * SPANS_A_BATCH) as f64;
            println!(
                "  agentevals, {taken} of the same requests until it was full: {} spans/CPU-s; ours is {:.1} times that, with its Redis {:.1} times",
                whole(theirs),
                spans / ours.product.as_secs_f64() / theirs,
                spans / (ours.product + ours.redis).as_secs_f64() / theirs,
            );
        }
        if let (Some(program), true) = (phoenix, traces_a_batch == 1 && texts == Texts::New) {
            let some = bodies.get(..PHOENIX_BATCHES).unwrap_or(&bodies);
            let sent = (some.len() * SPANS_A_BATCH) as u64;
            let stored = Phoenix::start(program)?.take(some, sent)?;
            let theirs = stored.spans as f64 / stored.cpu.as_secs_f64();
            let spans = (bodies.len() * SPANS_A_BATCH) as f64;
            println!(
                "  Phoenix, {} of {sent} spans in its SQLite: {} spans/CPU-s; ours is {:.0} times that, with its Redis {:.0} times",
                stored.spans,
                whole(theirs),
                spans / ours.product.as_secs_f64() / theirs,
                spans / (ours.product + ours.redis).as_secs_f64() / theirs,
            );
        }
    }
    let recorded = recorded(corpus)?;
    if recorded.is_empty() {
        println!("\nno recorded exports in {}", corpus.display());
    } else {
        stages(
            &format!(
                "Ingest: {} recorded requests of real frameworks (protobuf, as small as they were sent), one thread",
                recorded.len()
            ),
            &recorded,
        )?;
    }
    Ok(())
}

/// One export request: spans of several runs, each run's own one after the other.
fn made(seed: u64, traces: usize, texts: Texts) -> Bytes {
    let spans: Vec<_> = (0..traces)
        .flat_map(|trace| {
            let mut run = Run::new(seed + trace as u64);
            (0..SPANS_A_BATCH / traces)
                .map(|at| run.mixed(at, texts))
                .collect::<Vec<_>>()
        })
        .collect();
    sample::protobuf(&spans)
}

/// The plain protobuf trace requests of a corpus, each round under trace ids of its own.
fn recorded(corpus: &Path) -> Result<Vec<Bytes>> {
    let mut bodies = Vec::new();
    let Ok(scenarios) = std::fs::read_dir(corpus) else {
        return Ok(bodies);
    };
    let mut paths = Vec::new();
    for scenario in scenarios {
        if let Ok(requests) = std::fs::read_dir(scenario?.path().join("requests")) {
            for request in requests {
                paths.push(request?.path());
            }
        }
    }
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "body"))
    {
        let about = std::fs::read_to_string(path.with_extension("json"))?;
        let about: serde_json::Value = serde_json::from_str(&about)?;
        let headers = about["headers"].to_string().to_lowercase();
        if about["path"] == "/v1/traces"
            && headers.contains("application/x-protobuf")
            && !headers.contains("content-encoding")
        {
            bodies.push(Bytes::from(std::fs::read(path)?));
        }
    }
    let mut rounds = Vec::new();
    for round in 0..CORPUS_ROUNDS {
        for body in &bodies {
            let mut request = wire::ExportRequest::decode(body.clone())?;
            for scope in request
                .resources
                .iter_mut()
                .flat_map(|items| &mut items.scopes)
            {
                for item in &mut scope.items {
                    let mut span = wire::Span::decode(item.clone())?;
                    let mut trace_id = span.trace_id.to_vec();
                    if let Some(byte) = trace_id.last_mut() {
                        *byte = byte.wrapping_add(round as u8);
                    }
                    span.trace_id = trace_id.into();
                    *item = span.encode_to_vec().into();
                }
            }
            rounds.push(Bytes::from(request.encode_to_vec()));
        }
    }
    Ok(rounds)
}

/// CPU time of this thread while `work` ran, and what it made.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = thread_cpu();
    let made = work();
    (thread_cpu() - before, made)
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

fn decode_all(bodies: &[Bytes]) -> Result<Vec<Traces>> {
    bodies
        .iter()
        .map(|body| Ok(otlp::decode_traces(Encoding::Protobuf, body, &Limits::default())?.traces))
        .collect()
}

fn encode_all(batches: &[Traces]) -> Vec<chunk::Encoded> {
    let mut chunks = Vec::new();
    for (_, events) in batches.iter().flatten() {
        let by_reference: Vec<&Incoming> = events.iter().collect();
        for events in chunk::split(by_reference, |event| event.what.len()) {
            chunks.push(chunk::encode(
                events.iter().map(|event| (&event.context, &event.what)),
            ));
        }
    }
    chunks
}

fn stages(title: &str, bodies: &[Bytes]) -> Result<()> {
    let (prost_cpu, spans) = timed(|| -> Result<usize> {
        let mut spans = 0;
        for body in bodies {
            let request = wire::ExportRequest::decode(body.clone())?;
            for item in request
                .resources
                .iter()
                .flat_map(|items| &items.scopes)
                .flat_map(|scope| &scope.items)
            {
                std::hint::black_box(wire::Span::decode(item.clone())?);
                spans += 1;
            }
        }
        Ok(spans)
    });
    let spans = spans?;
    let (decode_cpu, batches) = timed(|| decode_all(bodies));
    let batches = batches?;
    let (map_cpu, ()) = timed(|| {
        for (_, events) in batches.iter().flatten() {
            std::hint::black_box(convention::labels(events));
        }
    });
    let (encode_cpu, chunks) = timed(|| encode_all(&batches));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (append_cpu, append_redis, bare_cpu, bare_redis) = runtime.block_on(async {
        let store = Store::start()?;
        let mut look = store.client()?;
        let config = Config {
            redis_url: store.url(),
            ..Config::default()
        };
        let app = App::start(config).await?;
        let tenant = TenantId::default();
        let redis_before = look.cpu()?;
        let before = thread_cpu();
        for traces in batches {
            app.log.append_all(&tenant, traces).await?;
        }
        let append_cpu = thread_cpu() - before;
        let append_redis = look.cpu()? - redis_before;
        app.close().await;

        // The same bytes, as plain entries of one stream, by the same client.
        let redis = Redis::connect(&store.url(), &RedisTls::default()).await?;
        let entries: Vec<Bytes> = chunks
            .iter()
            .map(|chunk| {
                let pieces = chunk.pieces.iter().flat_map(|(_, piece)| piece);
                chunk.block.iter().chain(pieces).copied().collect()
            })
            .collect();
        let redis_before = look.cpu()?;
        let before = thread_cpu();
        for entry in &entries {
            let args = ["bare", "*", "b"].map(Arg::from).into_iter();
            let args = args.chain([Arg::from(entry.clone())]).collect();
            redis.command("XADD", "bare", args).await?;
        }
        let bare_cpu = thread_cpu() - before;
        let bare_redis = look.cpu()? - redis_before;
        redis.close().await;
        anyhow::Ok((append_cpu, append_redis, bare_cpu, bare_redis))
    })?;

    // The append makes the sessions and the chunks itself; what is left is the log's own.
    let script_cpu = append_cpu.saturating_sub(map_cpu + encode_cpu);
    let whole_cpu = decode_cpu + append_cpu;
    let rate = |cpu: Duration| spans as f64 / cpu.as_secs_f64().max(1e-9);
    let per_second = |cpu: Duration| whole(rate(cpu));
    let share = |cpu: Duration| {
        format!(
            "{:.0} %",
            100.0 * cpu.as_secs_f64() / whole_cpu.as_secs_f64()
        )
    };
    let of = |ours: Duration, bare: Duration| format!("{:.2}", rate(ours) / rate(bare));
    let mut rows = vec![
        Row::new(
            format!("decode ({})", share(decode_cpu)),
            per_second(decode_cpu),
            format!("{} prost decode alone", per_second(prost_cpu)),
            of(decode_cpu, prost_cpu),
        ),
        Row::new(
            format!("map ({})", share(map_cpu)),
            per_second(map_cpu),
            "",
            "",
        ),
        Row::new(
            format!("compress ({})", share(encode_cpu)),
            per_second(encode_cpu),
            "",
            "",
        ),
        Row::new(
            format!("append ({})", share(script_cpu)),
            per_second(script_cpu),
            format!("{} XADD of the same bytes", per_second(bare_cpu)),
            of(script_cpu, bare_cpu),
        ),
        Row::new(
            "all stages",
            per_second(whole_cpu),
            format!("{} prost decode + XADD", per_second(prost_cpu + bare_cpu)),
            of(whole_cpu, prost_cpu + bare_cpu),
        ),
        Row::new(
            "redis, apart",
            per_second(append_redis),
            format!("{} XADD of the same bytes", per_second(bare_redis)),
            of(append_redis, bare_redis),
        ),
    ];
    let sent: usize = bodies.iter().map(Bytes::len).sum();
    let stored: usize = chunks
        .iter()
        .map(|chunk| {
            chunk.block.len()
                + chunk
                    .pieces
                    .iter()
                    .map(|(_, piece)| piece.len() + 8)
                    .sum::<usize>()
        })
        .sum();
    rows.push(Row::new(
        "bytes a span, stored",
        format!("{:.0}", stored as f64 / spans as f64),
        format!("{:.0} as sent", sent as f64 / spans as f64),
        format!("1 : {:.1}", sent as f64 / stored as f64),
    ));
    table::print(
        title,
        ["stage (share)", "spans/CPU-s", "baseline", "ratio"],
        &rows,
    );
    Ok(())
}

/// The same batches as requests to a process of their own: what HTTP, threads and answers add.
fn through_http(bodies: &[Bytes]) -> Result<Cpu> {
    let store = Store::start()?;
    let mut look = store.client()?;
    let server = Server::start(&store.url())?;
    let mut client = crate::latency::Http::connect(&server.address)?;
    let (server_before, redis_before) = (server.cpu()?, look.cpu()?);
    for body in bodies {
        client.post("/v1/traces", "application/x-protobuf", body)?;
    }
    let server_cpu = server.cpu()? - server_before;
    let redis_cpu = look.cpu()? - redis_before;
    let spans = (bodies.len() * SPANS_A_BATCH) as f64;
    check_stored(&mut look, spans)?;
    println!(
        "  through HTTP, a process of its own: {} spans/CPU-s; its Redis {} spans/CPU-s; both together {}",
        whole(spans / server_cpu.as_secs_f64()),
        whole(spans / redis_cpu.as_secs_f64()),
        whole(spans / (server_cpu + redis_cpu).as_secs_f64()),
    );
    Ok(Cpu {
        product: server_cpu,
        redis: redis_cpu,
    })
}

/// What the same requests cost.
struct Cpu {
    product: Duration,
    redis: Duration,
}

/// A figure for spans that were not stored would be worth nothing.
fn check_stored(look: &mut Client, expected: f64) -> Result<()> {
    let mut stored = 0;
    let mut of_key: BTreeMap<String, i64> = BTreeMap::new();
    for key in look.command(&[b"KEYS", b"*:seen"])?.list() {
        let key = key.text();
        let members = look.command(&[b"SCARD", key.as_bytes()])?.int();
        stored += members;
        of_key.insert(key, members);
    }
    anyhow::ensure!(
        stored as f64 == expected,
        "{stored} spans in {} traces are stored, {expected} were sent",
        of_key.len()
    );
    Ok(())
}
