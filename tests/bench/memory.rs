//! What a trace takes in Redis, all of its keys and its share of the indexes counted.

use anyhow::{Context as _, Result};
use tailspan_core::{
    id::TenantId,
    limits::Limits,
    otlp::{self, Encoding},
    wire,
};
use tailspan_service::{App, config::Config};

use crate::{
    sample::{self, History, Run},
    store::{Client, Store},
    table::{self, Row},
};

/// Traces over which `used_memory` is averaged.
const TRACES: u64 = 100;
/// Spans that a long trace has more than a short one, about: Redis takes memory for a stream 4 KiB at a time, so few would measure its rounding.
const FURTHER_SPANS: usize = 128;

pub(crate) fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Store::start()?;
        let config = Config {
            redis_url: store.url(),
            ..Config::default()
        };
        let app = App::start(config).await?;
        let mut bare = store.client()?;
        let mut seeds = 1..;
        // Scripts, buffers and tables of the server have their size before anything is measured.
        spans(&app, &mut bare, &mut seeds, 8, 2, 100).await?;

        let mut rows = Vec::new();
        for batch in [1, 8, 32] {
            let batches = (FURTHER_SPANS / batch).max(8);
            let short = spans(&app, &mut bare, &mut seeds, batch, 1, TRACES).await?;
            let long = spans(&app, &mut bare, &mut seeds, batch, 1 + batches, TRACES).await?;
            let added = (batch * batches) as f64;
            let per_span = (long.bytes - short.bytes) / added;
            let json = (long.json - short.json) / added;
            rows.push(Row::new(
                format!("a further span, {batch} a batch"),
                format!("{per_span:.0} B"),
                format!("{json:.0} B"),
                format!("1 : {:.1}", json / per_span),
            ));
            let fixed = short.bytes - per_span * batch as f64;
            let json = short.json / batch as f64;
            rows.push(Row::new(
                format!("fixed per trace, {batch} a batch"),
                format!("{fixed:.0} B"),
                format!("{json:.0} B"),
                format!("{:.1}", fixed / json),
            ));
        }
        for calls in [50, 100] {
            for (shape, name) in [
                (History::Json, "gen_ai.input.messages"),
                (History::Flattened, "llm.input_messages.<i>"),
            ] {
                let (bytes, json) = growing(&app, &mut bare, &mut seeds, calls, shape).await?;
                rows.push(Row::new(
                    format!("{calls} calls, history in {name}"),
                    format!("{:.1} kB", bytes / 1e3),
                    format!("{:.0} kB", json / 1e3),
                    format!("1 : {:.1}", json / bytes),
                ));
            }
        }
        for batch in [1, 8] {
            let mut run = Run::new(seeds.next().context("a seed")?);
            let spans: Vec<_> = (0..batch).map(|_| run.kilobyte()).collect();
            append(&app, &spans).await?;
            let keys = bare.memory_of(&run.trace_hex())?;
            let bytes: i64 = keys.iter().map(|(_, bytes)| bytes).sum();
            let json: usize = spans.iter().map(sample::json_size).sum();
            rows.push(Row::new(
                format!("trace of one batch of {batch}, MEMORY USAGE of all keys"),
                format!("{bytes} B"),
                format!("{json} B"),
                format!("{:.1}", bytes as f64 / json as f64),
            ));
        }
        table::print(
            "Bytes in Redis (change of used_memory over many traces: keys, indexes, notices) and the same spans as OTLP JSON",
            ["figure", "stored", "OTLP JSON", "ratio"],
            &rows,
        );

        let mut rows = Vec::new();
        let mut run = Run::new(seeds.next().context("a seed")?);
        let one: Vec<_> = vec![run.kilobyte()];
        append(&app, &one).await?;
        keys(&mut bare, &run, "one span", &mut rows)?;
        let mut run = Run::new(seeds.next().context("a seed")?);
        for _ in 0..FURTHER_SPANS / 8 {
            let batch: Vec<_> = (0..8).map(|_| run.kilobyte()).collect();
            append(&app, &batch).await?;
        }
        keys(&mut bare, &run, &format!("{} spans by 8", FURTHER_SPANS), &mut rows)?;
        let mut run = Run::new(seeds.next().context("a seed")?);
        converse(&app, &mut run, 100, History::Json).await?;
        keys(&mut bare, &run, "100 calls, JSON", &mut rows)?;
        let mut run = Run::new(seeds.next().context("a seed")?);
        converse(&app, &mut run, 100, History::Flattened).await?;
        keys(&mut bare, &run, "100 calls, flattened", &mut rows)?;
        table::print(
            "Where they lie (MEMORY USAGE of every key of one trace)",
            ["trace", "bytes", "key", "share"],
            &rows,
        );
        app.close().await;
        Ok(())
    })
}

struct Measured {
    /// Per trace.
    bytes: f64,
    json: f64,
}

/// Makes `traces` traces of `batches` appends each, and divides what Redis grew by.
async fn spans(
    app: &App,
    bare: &mut Client,
    seeds: &mut impl Iterator<Item = u64>,
    batch: usize,
    batches: usize,
    traces: u64,
) -> Result<Measured> {
    let before = bare.used_memory()?;
    let mut json = 0;
    for _ in 0..traces {
        let mut run = Run::new(seeds.next().context("a seed")?);
        for _ in 0..batches {
            let spans: Vec<_> = (0..batch).map(|_| run.kilobyte()).collect();
            json += spans.iter().map(sample::json_size).sum::<usize>();
            append(app, &spans).await?;
        }
    }
    Ok(Measured {
        bytes: (bare.used_memory()? - before) / traces as f64,
        json: json as f64 / traces as f64,
    })
}

/// Bytes in Redis and as OTLP JSON of a conversation of `calls` calls, each exported alone.
async fn growing(
    app: &App,
    bare: &mut Client,
    seeds: &mut impl Iterator<Item = u64>,
    calls: usize,
    shape: History,
) -> Result<(f64, f64)> {
    const RUNS: usize = 5;
    let before = bare.used_memory()?;
    let mut json = 0;
    for _ in 0..RUNS {
        let mut run = Run::new(seeds.next().context("a seed")?);
        json += converse(app, &mut run, calls, shape).await?;
    }
    let bytes = bare.used_memory()? - before;
    Ok((bytes / RUNS as f64, json as f64 / RUNS as f64))
}

/// A question and an answer, or a tool's result, join the history before every call. Returns its size as OTLP JSON.
async fn converse(app: &App, run: &mut Run, calls: usize, shape: History) -> Result<usize> {
    let mut history = vec![("system", run.dice.prose(900))];
    let mut json = 0;
    for turn in 0..calls {
        if turn % 2 == 0 {
            history.push(("user", run.dice.prose(250)));
        } else {
            history.push(("tool", run.dice.prose(700)));
        }
        let span = run.call(&history, shape);
        json += sample::json_size(&span);
        append(app, &[span]).await?;
        history.push(("assistant", run.dice.prose(300)));
    }
    Ok(json)
}

async fn append(app: &App, spans: &[wire::Span]) -> Result<()> {
    let body = sample::protobuf(spans);
    let decoded = otlp::decode_traces(Encoding::Protobuf, &body, &Limits::default())?;
    app.log
        .append_all(&TenantId::default(), decoded.traces)
        .await?;
    Ok(())
}

fn keys(bare: &mut Client, run: &Run, name: &str, rows: &mut Vec<Row>) -> Result<()> {
    let mut keys = bare.memory_of(&run.trace_hex())?;
    keys.sort_by_key(|(_, bytes)| -bytes);
    let all: i64 = keys.iter().map(|(_, bytes)| bytes).sum();
    rows.push(Row::new(name, all.to_string(), "all keys", "100 %"));
    for (key, bytes) in keys {
        let key = key.rsplit_once('}').map_or(key.as_str(), |(_, key)| key);
        let share = 100.0 * bytes as f64 / all as f64;
        rows.push(Row::new(
            "",
            bytes.to_string(),
            key,
            format!("{share:.0} %"),
        ));
    }
    Ok(())
}
