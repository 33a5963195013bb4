//! What a filtered page of the list of traces costs Redis, over ten thousand to a million of them.
//!
//! The traces are put there in bulk, under the keys and in the form that the product uses: indexes, labels, rows and counted states. Beside each page over a million stands the same page over
//! ten thousand, and beside all of them the way of seed 001: `KEYS`, and a `GET` of each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tailspan_core::{listing::Label, settle::Status};

use crate::{
    latency::Http,
    serve::Server,
    store::{Client, Store},
    table::{self, Row},
};

const SIZES: [u64; 2] = [10_000, 1_000_000];
const PAGE: usize = 20;
const PAGES: usize = 200;
/// Traces that one script makes.
const AT_ONCE: u64 = 2_000;
/// Between the starts of two traces, ms: a million of them are of the last 14 hours, and none is too old to be kept.
const APART_MS: u64 = 50;

/// A page, and how many traces it must show.
const LISTS: [(&str, &str, usize); 7] = [
    ("no filter", "", PAGE),
    ("agent_id", "&agent_id=agent-3", PAGE),
    ("status", "&status=failed", PAGE),
    (
        "agent_id, status, user_id",
        "&agent_id=agent-3&status=failed&user_id=user-3",
        PAGE,
    ),
    (
        "agent_id, duration, text",
        "&agent_id=agent-3&min_duration_ms=3000&text=quota",
        PAGE,
    ),
    ("text of one in 50", "&text=needle", PAGE),
    // All steps that a request may take, for nothing.
    (
        "two labels that never meet",
        "&agent_id=agent-3&user_id=user-4",
        0,
    ),
];

/// A trace of every sort. Agents and users have a tenth of the traces each, one in five failed, every 50th has a needle.
const FILL: &str = r#"
local first, last, start, apart = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tag = '{default}:'
for i = first, last - 1 do
  local trace = string.format('%032x', i)
  local at = string.format('%.0f', start + i * apart)
  local failed = i % 5 == 3
  local labels = {ARGV[5 + i % 10], ARGV[15 + i % 10], failed and 'status:failed' or 'status:completed', failed and 'error' or nil}
  redis.call('ZADD', tag .. 'traces', at, trace)
  for _, label in ipairs(labels) do redis.call('ZADD', tag .. 'by:' .. label, at, trace) end
  redis.call('HSET', tag .. 'noted', trace, '9 ' .. table.concat(labels, ' '))
  local agent = 'agent-' .. i % 10
  local row = '{"name":"' .. agent .. '","trace_id":"' .. trace .. '","status":"' .. (failed and 'failed' or 'completed') .. '","started_at":"2026-11-21T10:00:00.000000Z","ended_at":"2026-11-21T10:00:05.000000Z","duration_ms":' .. (i % 97) * 100
    .. '.0,"agents":["' .. agent .. '"],"models":["gpt-4o-mini"],"response_models":["gpt-4o-mini-2024-07-18"],"providers":["openai"],"services":["shop"],"input_tokens":1830,"output_tokens":240,"total_tokens":2070,"cached_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0,"cost_usd":0.00042,'
    .. '"total_llm_calls":3,"unpriced_llm_calls":0,"total_tool_calls":2,"total_retrievals":0,"errors_count":' .. (failed and 1 or 0) .. ',"errors":[' .. (failed and '{"span_id":"00f067aa0ba902b7","agent":"' .. agent .. '","name":"search","kind":"tool","type":"QuotaError","message":"the quota of today is used up"}' or '')
    .. '],"total_events":9,"total_spans":9,"nodes_executed":6,"open_spans":0,"sessions":[],"users":["user-' .. i % 10 .. '"],"as_of_seq":9,"truncated":false}\n0102030405060708\n' .. agent .. (failed and '\nquotaerror\nthe quota of today is used up' or '') .. '\nsearch\nread_sensor\nplan\nanswer' .. (i % 50 == 7 and '\nneedle' or '')
  redis.call('HSET', tag .. 'rows', trace, '9 0 ' .. row)
  redis.call('HSET', '{default/' .. trace .. '}:trace', 'seq', '9', 'mark', '7', 'at', at, 'from', at, 'spans', '9', 'armed', '0', 'settled', failed and 'failed' or 'completed', 'settled_seq', '9', 'settled_at', at)
  -- As seed 001 keeps a trace: one text, here without its events.
  redis.call('SET', 'trace_session:' .. trace, string.sub(row, 1, 400))
end
return last - first
"#;

/// Prints Redis's CPU time of a page for each list and size.
pub(crate) fn measure() -> Result<()> {
    let store = Store::start()?;
    let server = Server::start(&store.url())?;
    let mut bare = store.client()?;
    for words in [
        [
            b"CONFIG".as_slice(),
            b"SET",
            b"slowlog-log-slower-than",
            b"2000",
        ],
        [b"CONFIG", b"SET", b"slowlog-max-len", b"1000"],
    ] {
        bare.command(&words)?;
    }
    // The newest is of now.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now_ms = u64::try_from(now.as_millis())?;
    let start_ms = now_ms - APART_MS * SIZES[SIZES.len() - 1];
    let (mut made, mut slow) = (0, 0);
    let mut pages: Vec<Vec<Figures>> = Vec::new();
    let mut seed = Vec::new();
    for size in SIZES {
        fill(&mut bare, made, size, start_ms)?;
        made = size;
        bare.command(&[b"SLOWLOG", b"RESET"])?;
        // A connection that waited for a million traces to be made is one that the server has closed.
        let mut http = Http::connect(&server.address)?;
        let lists = LISTS.iter();
        pages.push(
            lists
                .map(|(_, query, shown)| page(&mut http, &mut bare, query, *shown))
                .collect::<Result<_>>()?,
        );
        let entries = bare.command(&[b"SLOWLOG", b"LEN"])?.int();
        if entries > 0 {
            let slowest = bare.command(&[b"SLOWLOG", b"GET", b"3"])?;
            eprintln!("slow over {size} traces: {slowest:?}");
        }
        slow += entries;
        seed.push(as_the_seed_does(&mut bare)?);
    }
    let [small, large] = pages.as_slice() else {
        anyhow::bail!("two sizes");
    };
    let mut rows = Vec::new();
    for (((name, ..), small), large) in LISTS.iter().zip(small).zip(large) {
        rows.push(Row::new(
            format!("{name}, us of Redis"),
            format!("{:.0}", large.redis_us),
            format!("{:.0}", small.redis_us),
            format!("{:.2}", large.redis_us / small.redis_us),
        ));
        rows.push(Row::new(
            format!("{name}, ms to the client (median)"),
            format!("{:.2}", large.median_ms),
            format!("{:.2}", small.median_ms),
            format!("{:.2}", large.median_ms / small.median_ms),
        ));
    }
    if let [small, large] = seed.as_slice() {
        rows.push(Row::new(
            "KEYS and GET of all, us of Redis",
            table::whole(*large),
            table::whole(*small),
            format!("{:.2}", large / small),
        ));
    }
    rows.push(Row::new(
        "entries of the slow log over 2 ms (but of the row above)",
        slow.to_string(),
        String::new(),
        String::new(),
    ));
    let (one, many) = (table::whole(SIZES[0] as f64), table::whole(SIZES[1] as f64));
    table::print(
        &format!("GET /traces?limit={PAGE} over {many} traces beside {one}, {PAGES} pages of each"),
        ["page", &many, &one, "ratio"],
        &rows,
    );
    Ok(())
}

struct Figures {
    redis_us: f64,
    median_ms: f64,
}

fn fill(bare: &mut Client, from: u64, to: u64, start_ms: u64) -> Result<()> {
    let agents = (0..10).map(|n| Label::agent(&format!("agent-{n}")).to_string());
    let users = (0..10).map(|n| Label::user(&format!("user-{n}")).to_string());
    let labels: Vec<String> = agents.chain(users).collect();
    ensure!(
        Label::status(Status::Failed).as_str() == "status:failed"
            && Label::error().as_str() == "error"
    );
    let (mut at, start, apart) = (from, start_ms.to_string(), APART_MS.to_string());
    while at < to {
        let end = (at + AT_ONCE).min(to);
        let (first, last) = (at.to_string(), end.to_string());
        let mut words: Vec<&[u8]> = vec![b"EVAL", FILL.as_bytes(), b"0"];
        words.extend([&first, &last, &start, &apart].map(|text| text.as_bytes()));
        words.extend(labels.iter().map(String::as_bytes));
        bare.command(&words)?;
        at = end;
    }
    Ok(())
}

/// A page from the middle of the newest, over and over.
fn page(http: &mut Http, bare: &mut Client, query: &str, shown: usize) -> Result<Figures> {
    let path = format!("/traces?limit={PAGE}{query}");
    let mut once = || -> Result<Duration> {
        let since = Instant::now();
        let (status, body) = http.get(&path)?;
        let took = since.elapsed();
        let traces = String::from_utf8_lossy(&body)
            .matches("\"as_of_seq\":9,\"run\"")
            .count();
        ensure!(
            status == 200 && traces == shown,
            "{path} answered {status} with {traces} traces"
        );
        Ok(took)
    };
    for _ in 0..10 {
        once()?;
    }
    let before = bare.cpu()?;
    let mut times = (0..PAGES).map(|_| once()).collect::<Result<Vec<_>>>()?;
    let spent = bare.cpu()? - before;
    times.sort_unstable();
    Ok(Figures {
        redis_us: spent.as_secs_f64() * 1e6 / PAGES as f64,
        median_ms: times.get(PAGES / 2).context("a page")?.as_secs_f64() * 1e3,
    })
}

/// Microseconds of Redis for one page of seed 001: every session by its key. What the client does with them is not counted.
fn as_the_seed_does(bare: &mut Client) -> Result<f64> {
    let before = bare.cpu()?;
    let keys = bare.command(&[b"KEYS", b"trace_session:*"])?.list();
    for keys in keys.chunks(1_000) {
        let keys: Vec<String> = keys.iter().map(crate::store::Answer::text).collect();
        let commands: Vec<Vec<&[u8]>> = keys
            .iter()
            .map(|key| vec![b"GET".as_slice(), key.as_bytes()])
            .collect();
        bare.pipeline(&commands)?;
    }
    Ok((bare.cpu()? - before).as_secs_f64() * 1e6)
}
