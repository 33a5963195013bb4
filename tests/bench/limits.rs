//! What it costs to refuse a tenant that has sent all that it may, beside accepting it: CPU time of Redis and of the product.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    latency::Http,
    serve::Server,
    store::{Client, Store},
    table::{self, Row},
};

const SPANS: u64 = 32;
const ACCEPTED: u64 = 2_000;
const REFUSED: u64 = 20_000;

/// Microseconds for a request.
struct Cost {
    redis: f64,
    product: f64,
}

/// Prints both, as ratios of a refused request to an accepted one.
pub(crate) fn measure() -> Result<()> {
    let store = Store::start()?;
    // What one request too many owes is paid after half a minute.
    let limits = format!("rate=1/s,burst={}", SPANS * ACCEPTED);
    let server = Server::start_with(&store.url(), &[("TAILSPAN_LIMITS", &limits)])?;
    let mut bare = store.client()?;
    let mut http = Http::connect(&server.address)?;
    let accepted = send(&mut http, &mut bare, &server, ACCEPTED, 200)?;
    // The bucket has a few events again.
    while http
        .answer_to("/v1/traces", "application/json", &request(0))?
        .0
        == 200
    {}
    let refused = send(&mut http, &mut bare, &server, REFUSED, 429)?;
    let row = |of: &str, refused: f64, accepted: f64| {
        Row::new(
            format!("{of}, us a request"),
            format!("{refused:.2}"),
            format!("{accepted:.1}"),
            format!("{:.4}", refused / accepted),
        )
    };
    table::print(
        &format!("Refusing a tenant, requests of {SPANS} spans"),
        ["figure", "refused", "accepted", "ratio"],
        &[
            row("CPU of Redis", refused.redis, accepted.redis),
            row("CPU of tailspan serve", refused.product, accepted.product),
        ],
    );
    Ok(())
}

fn send(
    http: &mut Http,
    bare: &mut Client,
    server: &Server,
    count: u64,
    expected: u16,
) -> Result<Cost> {
    let requests: Vec<_> = (1..=count).map(request).collect();
    let before = (bare.cpu()?, server.cpu()?);
    for body in &requests {
        let (status, _) = http.answer_to("/v1/traces", "application/json", body)?;
        ensure!(status == expected, "answered {status}, not {expected}");
    }
    let us = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
    Ok(Cost {
        redis: us(bare.cpu()?.saturating_sub(before.0)),
        product: us(server.cpu()?.saturating_sub(before.1)),
    })
}

/// Spans of a trace of this number.
fn request(number: u64) -> Vec<u8> {
    let trace = format!("{:032x}", number + 1);
    let spans: Vec<_> = (1..=SPANS)
        .map(|id| {
            json!({
                "traceId": trace, "spanId": format!("{id:016x}"), "name": "call a model", "kind": 3,
                "startTimeUnixNano": "1763769600000000000", "endTimeUnixNano": "1763769601000000000",
                "attributes": [
                    {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                    {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o-mini"}},
                    {"key": "gen_ai.input.messages", "value": {"stringValue": format!("what is {id} and {number}?")}},
                ],
            })
        })
        .collect();
    json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
        .to_string()
        .into_bytes()
}
