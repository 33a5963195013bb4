//! Opening and examining a run of 500 and of 10,000 spans: twenty times the spans should cost about twenty times as much.
//!
//! The runs are made spans of agents with their model and tool calls, sent over HTTP; what is measured is a request and its answer, after the first one, from which
//! on a snapshot of the folded state is there.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tailspan_core::wire;

use crate::{
    latency::Http,
    sample::{self, Run, Texts},
    serve::Server,
    store::Store,
    table::{self, Row},
};

const SIZES: [usize; 2] = [500, 10_000];
/// Times each answer is asked for; the median counts.
const TIMES: usize = 31;
/// Spans of one request, and of one agent.
const BATCH: usize = 256;
const BLOCK: usize = 8;

/// Prints what each answer takes for both sizes, and their ratio.
pub(crate) fn measure() -> Result<()> {
    let store = Store::start()?;
    let server = Server::start(&store.url())?;
    let mut http = Http::connect(&server.address)?;
    let [small, large] = SIZES;
    let traces = [send(&mut http, small)?, send(&mut http, large)?];
    let mut rows = Vec::new();
    for (name, path) in [
        ("open: GET /traces/{trace_id}, ms", ""),
        ("examine: GET /traces/{trace_id}/analysis, ms", "/analysis"),
        ("sum up: GET /traces/{trace_id}/summary, ms", "/summary"),
    ] {
        let paths = traces
            .each_ref()
            .map(|trace| format!("/traces/{trace}{path}"));
        let [small, large] = medians(&mut http, &paths)?;
        rows.push(Row::new(
            name,
            format!("{large:.2}"),
            format!("{small:.2}"),
            format!("{:.1}", large / small),
        ));
    }
    table::print(
        &format!(
            "A run of {} spans beside one of {} (the median of {TIMES}; at most 25 times as much is what is promised)",
            SIZES[1], SIZES[0]
        ),
        ["answer", "10,000 spans", "500 spans", "ratio"],
        &rows,
    );
    Ok(())
}

/// A run of this many spans, ended; its id.
fn send(http: &mut Http, size: usize) -> Result<String> {
    let mut run = Run::new(size as u64);
    let mut spans: Vec<wire::Span> = (0..size.saturating_sub(1))
        .map(|at| run.mixed(at, Texts::Passed))
        .collect();
    // Each block is an agent and its calls, within its time.
    for block in spans.chunks_mut(BLOCK) {
        let end = block.last().map_or(0, |last| last.end_time_unix_nano);
        if let Some((agent, calls)) = block.split_first_mut() {
            agent.end_time_unix_nano = end;
            for call in calls {
                call.parent_span_id = agent.span_id.clone();
            }
        }
    }
    let first = spans.first().context("a span")?;
    let root = wire::Span {
        span_id: first.parent_span_id.clone(),
        parent_span_id: Vec::new().into(),
        name: "run".to_owned(),
        end_time_unix_nano: spans.last().map_or(0, |last| last.end_time_unix_nano),
        attributes: Vec::new(),
        ..first.clone()
    };
    spans.push(root);
    for batch in spans.chunks(BATCH) {
        http.post(
            "/v1/traces",
            "application/x-protobuf",
            &sample::protobuf(batch),
        )?;
    }
    Ok(run.trace_hex())
}

/// Milliseconds of each path's answer. They are asked for in turn, so that a slow moment of the machine meets both.
fn medians<const N: usize>(http: &mut Http, paths: &[String; N]) -> Result<[f64; N]> {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(TIMES));
    for round in 0..=TIMES {
        for (path, times) in paths.iter().zip(&mut times) {
            let since = Instant::now();
            let (status, body) = http.get(path)?;
            ensure!(
                status == 200,
                "{path} answered {status}: {}",
                String::from_utf8_lossy(&body)
            );
            if round > 0 {
                times.push(since.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.get(TIMES / 2).copied().unwrap_or(f64::NAN)
    }))
}
