//! A page of the list of traces, over ten thousand to a million of them.
//!
//! The rows of the index are put there in bulk, under the keys and in the form that the product uses; the traces that the pages show are real ones, appended by the product. Beside each page
//! stands what it cannot do without: its rows from the index, and a hash read for each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    latency::Http,
    serve::Server,
    store::{Client, Store},
    table::{self, Row},
};

const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const PAGE: u64 = 20;
const PAGES: usize = 300;
/// When the first of the made traces began, in ms; each began a second after the one before it.
const FIRST_MS: u64 = 1_500_000_000_000;

/// Prints the time of a page for each size, beside bare Redis and beside the smallest size.
pub(crate) fn measure() -> Result<()> {
    let store = Store::start()?;
    let server = Server::start(&store.url())?;
    let mut http = Http::connect(&server.address)?;
    let mut bare = store.client()?;
    let mut rows = Vec::new();
    let mut smallest: Vec<f64> = Vec::new();
    let mut made = 0;
    for size in SIZES {
        fill(&mut bare, made, size)?;
        made = size;
        let newest = FIRST_MS + size * 1_000;
        let middle = FIRST_MS + size * 500;
        for (name, at) in [
            ("the newest page", newest),
            ("a page in the middle", middle),
        ] {
            for number in 0..PAGE {
                real(
                    &mut http,
                    &mut bare,
                    &format!("real-{size}-{at}-{number}"),
                    at + number,
                )?;
            }
            let path = format!("/traces?limit={PAGE}&cursor={}-zzzz", at + PAGE);
            let ours = median(|| {
                let (status, body) = http.get(&path)?;
                let shown = String::from_utf8_lossy(&body).matches("trace_id").count();
                ensure!(
                    status == 200 && shown >= 20,
                    "{path} answered {status} with {shown} traces"
                );
                Ok(())
            })?;
            let theirs = median(|| bare_page(&mut bare, at + PAGE))?;
            let first = smallest.len() < 2;
            if first {
                smallest.push(ours);
            }
            let before = smallest[usize::from(at == middle)];
            rows.push(Row::new(
                format!(
                    "{name} of {size}, ms ({:.2} of that of {})",
                    ours / before,
                    SIZES[0]
                ),
                format!("{ours:.2}"),
                format!("{theirs:.2}"),
                format!("{:.1}", ours / theirs),
            ));
        }
    }
    table::print(
        &format!(
            "GET /traces?limit={PAGE}, the median of {PAGES}; beside the index rows and {PAGE} HMGET of bare Redis"
        ),
        ["page", "tailspan", "bare redis", "ratio"],
        &rows,
    );
    Ok(())
}

/// Rows of the index, from one number up to another.
fn fill(bare: &mut Client, from: u64, to: u64) -> Result<()> {
    let numbers: Vec<u64> = (from..to).collect();
    for part in numbers.chunks(1_000) {
        let pairs: Vec<_> = part
            .iter()
            .flat_map(|number| {
                [
                    (FIRST_MS + number * 1_000).to_string(),
                    format!("{number:032x}"),
                ]
            })
            .collect();
        let mut words: Vec<&[u8]> = vec![b"ZADD", b"{default}:traces"];
        words.extend(pairs.iter().map(String::as_bytes));
        bare.command(&words)?;
    }
    Ok(())
}

/// A trace of the product's own, put to its place in the index.
fn real(http: &mut Http, bare: &mut Client, trace: &str, started_ms: u64) -> Result<()> {
    let event = br#"{"event_type":"workflow_started","agent_id":"a"}"#;
    let (status, _) = http.answer_to(
        &format!("/traces/{trace}/events"),
        "application/json",
        event,
    )?;
    ensure!(status == 200, "an event was answered {status}");
    let score = started_ms.to_string();
    bare.command(&[
        b"ZADD",
        b"{default}:traces",
        score.as_bytes(),
        trace.as_bytes(),
    ])?;
    Ok(())
}

fn bare_page(bare: &mut Client, from: u64) -> Result<()> {
    let from = from.to_string();
    let limit = PAGE.to_string();
    let words: [&[u8]; 10] = [
        b"ZRANGE",
        b"{default}:traces",
        from.as_bytes(),
        b"-inf",
        b"BYSCORE",
        b"REV",
        b"LIMIT",
        b"0",
        limit.as_bytes(),
        b"WITHSCORES",
    ];
    let found = bare.command(&words)?.list();
    for name in found.iter().step_by(2) {
        let key = format!("{{default/{}}}:trace", name.text());
        bare.command(&[b"HMGET", key.as_bytes(), b"seq", b"mark", b"at", b"settled"])?;
    }
    Ok(())
}

/// Milliseconds.
fn median(mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let since = Instant::now();
        once()?;
        times.push(since.elapsed());
    }
    times.sort_unstable();
    let median: &Duration = times.get(PAGES / 2).context("a page")?;
    Ok(median.as_secs_f64() * 1e3)
}
