//! An agent under development over its WebSocket, beside agentevals 0.7.3, whose protocol it is: what a span costs while a page listens, what the end of a session of a thousand turns costs, and what
//! others notice of it.
//!
//! The client is raw bytes that were made before, so its own cost is small and in none of the figures.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    agentevals::Agentevals,
    sample::Dice,
    serve::Server,
    store::{Client, Store},
    table::{self, Row, whole},
};

const TURNS: u64 = 1_000;
/// A turn: its agent, four calls of a model and four of a tool.
const SPANS_A_TURN: u64 = 9;
const SPANS: u64 = TURNS * SPANS_A_TURN;
/// Sessions of this size that each side is told of in turns, so that both see the same machine: a neighbour of it makes the same work twice as dear for seconds or minutes.
const PAIRS: u64 = 10;
/// Sessions in all, for the memory.
const SESSIONS: u64 = 20;
/// Of another session, while nothing else happens and while the large one ends.
const CALM_SPANS: u64 = 50;
const PERIOD: Duration = Duration::from_millis(20);
/// Of an agent that does not send as fast as it can: so many spans, one each period.
const STEADY_SPANS: u64 = 2_000;
const STEADY_PERIOD: Duration = Duration::from_millis(1);
/// A run's end is settled a second after it, see `TAILSPAN_GRACE_MS`; then its row, its statistics and its snapshot are made.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);
/// Nothing here takes that long.
const STALLED: Duration = Duration::from_secs(120);

/// What stood on one side.
#[derive(Default)]
struct Measured {
    /// Of the sessions that were told in turns, one by one.
    ingest_cpu: Vec<Duration>,
    steady_cpu: Duration,
    end_cpu: Duration,
    end_time: Duration,
    /// What follows an end, until nothing moves any more.
    after_cpu: Vec<Duration>,
    calm: Vec<Duration>,
    meanwhile: Vec<Duration>,
    resident: Vec<(u64, u64)>,
}

/// `agentevals`: version 0.7.3, where it is installed.
pub(crate) fn measure(agentevals: Option<&Path>) -> Result<()> {
    let store = Store::start()?;
    let mut look = store.client()?;
    let server = Server::start(&store.url())?;
    let their_server = agentevals.map(Agentevals::start_live).transpose()?;
    let mut ours = Side::open(
        &server.address,
        Box::new(|| cpu_of_both(&server, &mut look)),
        Box::new(|| server.resident_bytes()),
    )?;
    let mut theirs = match &their_server {
        Some(server) => Some(Side::open(
            server.address(),
            Box::new(|| server.cpu()),
            Box::new(|| server.resident_bytes()),
        )?),
        None => None,
    };
    for pair in 1..=PAIRS {
        ours.ingest(&format!("session {pair}"))?;
        ours.finish(&format!("session {pair}"))?;
        ours.note_resident(pair)?;
        if let Some(theirs) = &mut theirs {
            // Left open: an end takes them the better part of a minute.
            theirs.ingest(&format!("session {pair}"))?;
            theirs.note_resident(pair)?;
        }
    }
    ours.steady()?;
    ours.end_of_a_large_one()?;
    if let Some(theirs) = &mut theirs {
        theirs.steady()?;
        theirs.end_of_a_large_one()?;
    }
    for session in PAIRS + 3..=SESSIONS {
        ours.run(&format!("session {session}"))?;
        ours.finish(&format!("session {session}"))?;
    }
    ours.note_resident(SESSIONS)?;
    let (ours, theirs) = (ours.measured, theirs.map(|theirs| theirs.measured));

    let rate = |cpu: Duration| SPANS as f64 / cpu.as_secs_f64();
    let usual_rate = |measured: &Measured| rate(quantile(&measured.ingest_cpu, 0.5));
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let us = |time: Duration| format!("{:.0} us", time.as_secs_f64() * 1e6);
    let of = |theirs: &Option<Measured>, figure: &dyn Fn(&Measured) -> String| {
        theirs.as_ref().map_or_else(String::new, figure)
    };
    let ratio = |figure: &dyn Fn(&Measured) -> f64| {
        let ratio = theirs.as_ref().map(|theirs| figure(&ours) / figure(theirs));
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
    };
    let seconds = |time: Duration| time.as_secs_f64();
    let slowest_to_fastest = |measured: &Measured| {
        let [slowest, fastest] =
            [1.0, 0.0].map(|share| rate(quantile(&measured.ingest_cpu, share)));
        format!("{}-{}", whole(slowest), whole(fastest))
    };
    let mut rows = vec![
        Row::new(
            "spans/CPU-s while a page listens, server and its Redis; ratio: the median of pairs",
            whole(usual_rate(&ours)),
            of(&theirs, &|theirs| whole(usual_rate(theirs))),
            theirs.as_ref().map_or_else(String::new, |theirs| {
                let [low, middle, high] = of_pairs(&ours.ingest_cpu, &theirs.ingest_cpu);
                format!("{middle:.2} ({low:.2}-{high:.2})")
            }),
        ),
        Row::new(
            "the same, slowest and fastest session",
            slowest_to_fastest(&ours),
            of(&theirs, &slowest_to_fastest),
            "",
        ),
        Row::new(
            "CPU of a span, one each millisecond",
            us(ours.steady_cpu / STEADY_SPANS as u32),
            of(&theirs, &|theirs| {
                us(theirs.steady_cpu / STEADY_SPANS as u32)
            }),
            ratio(&|side| seconds(side.steady_cpu)),
        ),
        Row::new(
            format!("CPU of the end of {TURNS} turns"),
            ms(ours.end_cpu),
            of(&theirs, &|theirs| ms(theirs.end_cpu)),
            ratio(&|side| seconds(side.end_cpu)),
        ),
        Row::new(
            "time to its answer",
            ms(ours.end_time),
            of(&theirs, &|theirs| ms(theirs.end_time)),
            ratio(&|side| seconds(side.end_time)),
        ),
    ];
    rows.push(Row::new(
        "CPU of what follows an end: its row, statistics and snapshot",
        ms(quantile(&ours.after_cpu, 0.5)),
        of(&theirs, &|theirs| ms(quantile(&theirs.after_cpu, 0.5))),
        "",
    ));
    for (name, part) in [
        (
            "before",
            (|side| &side.calm) as fn(&Measured) -> &Vec<Duration>,
        ),
        ("meanwhile", |side| &side.meanwhile),
    ] {
        for share in [0.5, 1.0] {
            rows.push(Row::new(
                format!(
                    "another session's span to the page, {name}, p{:.0}",
                    share * 100.0
                ),
                ms(quantile(part(&ours), share)),
                of(&theirs, &|theirs| ms(quantile(part(theirs), share))),
                "",
            ));
        }
    }
    let resident = |side: &Measured| {
        let all = side.resident.iter();
        let all = all.map(|(sessions, bytes)| format!("{sessions}: {:.0}", *bytes as f64 / 1e6));
        all.collect::<Vec<_>>().join(", ")
    };
    rows.push(Row::new(
        format!("resident MB after so many sessions of {SPANS} spans"),
        resident(&ours),
        of(&theirs, &resident),
        "",
    ));
    table::print(
        &format!(
            "WebSocket: sessions of {TURNS} turns, {SPANS} spans of about 1 kB, with a listener"
        ),
        ["figure", "tailspan", "agentevals 0.7.3", "ratio"],
        &rows,
    );
    Ok(())
}

/// How many times as much CPU theirs took: the lowest, the middle and the highest of all pairs.
fn of_pairs(ours: &[Duration], theirs: &[Duration]) -> [f64; 3] {
    let pairs = ours.iter().zip(theirs);
    let mut ratios: Vec<f64> = pairs
        .map(|(ours, theirs)| theirs.as_secs_f64() / ours.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len().saturating_sub(1);
    [0, last / 2, last].map(|at| ratios.get(at).copied().unwrap_or_default())
}

fn cpu_of_both(server: &Server, look: &mut Client) -> Result<Duration> {
    Ok(server.cpu()? + look.cpu()?)
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let at = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

/// A server, its client and a page that listens to it.
struct Side<'a> {
    address: String,
    cpu: Box<dyn FnMut() -> Result<Duration> + 'a>,
    resident: Box<dyn Fn() -> Result<u64> + 'a>,
    page: Page,
    agent: Agent,
    measured: Measured,
}

impl<'a> Side<'a> {
    fn open(
        address: &str,
        cpu: Box<dyn FnMut() -> Result<Duration> + 'a>,
        resident: Box<dyn Fn() -> Result<u64> + 'a>,
    ) -> Result<Self> {
        let mut page = Page::open(address)?;
        let mut agent = Agent::connect(address)?;
        // Both are warm: what they load only once is loaded.
        agent.run("warm", 90)?;
        page.spans(90)?;
        agent.end("warm")?;
        page.complete()?;
        Ok(Self {
            address: address.to_owned(),
            cpu,
            resident,
            page,
            agent,
            measured: Measured::default(),
        })
    }

    /// Tells of a session; the CPU time until the page was shown all of it.
    fn run(&mut self, name: &str) -> Result<Duration> {
        let before = (self.cpu)()?;
        self.agent.run(name, SPANS)?;
        self.page.spans(SPANS)?;
        Ok((self.cpu)()?.saturating_sub(before))
    }

    fn ingest(&mut self, name: &str) -> Result<()> {
        let cpu = self.run(name)?;
        self.measured.ingest_cpu.push(cpu);
        Ok(())
    }

    /// Tells of a session as an agent does that has something to do between its spans.
    fn steady(&mut self) -> Result<()> {
        let before = (self.cpu)()?;
        self.agent.run_steadily("steady", STEADY_SPANS)?;
        self.page.spans(STEADY_SPANS)?;
        self.measured.steady_cpu = (self.cpu)()?.saturating_sub(before);
        self.finish("steady")
    }

    /// Ends a session and waits for what follows it.
    fn finish(&mut self, name: &str) -> Result<()> {
        self.agent.end(name)?;
        self.page.complete()?;
        let after = settled(&mut self.cpu)?;
        self.measured.after_cpu.push(after);
        Ok(())
    }

    fn note_resident(&mut self, sessions: u64) -> Result<()> {
        if [1, 2, 3, 5, 10, 20].contains(&sessions) {
            let bytes = (self.resident)()?;
            self.measured.resident.push((sessions, bytes));
        }
        Ok(())
    }

    /// What the end of a session costs, and what another one notices of the end of a second.
    fn end_of_a_large_one(&mut self) -> Result<()> {
        self.run("large")?;
        let (before, since) = ((self.cpu)()?, Instant::now());
        let answer = self.agent.end("large")?;
        self.measured.end_time = since.elapsed();
        self.page.complete()?;
        self.measured.end_cpu = (self.cpu)()?.saturating_sub(before);
        let turns = answer["invocations"].as_array().map_or(0, Vec::len) as u64;
        ensure!(turns == TURNS, "{turns} turns were told of {TURNS}");
        let after = settled(&mut self.cpu)?;
        self.measured.after_cpu.push(after);

        self.run("second")?;
        let mut other = Agent::connect(&self.address)?;
        other.send(&start("other"))?;
        self.measured.calm = other.timed(&mut self.page, 1, || false)?;
        let end = json!({"type": "session_end", "session_id": "second"});
        self.agent.send(&frame(&end))?;
        let answers = &self.agent.answers;
        self.measured.meanwhile = other.timed(&mut self.page, 2, || answers.try_recv().is_ok())?;
        self.page.complete()?;
        settled(&mut self.cpu)?;
        Ok(())
    }
}

/// CPU time until nothing moves any more.
fn settled(cpu: &mut impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let before = cpu()?;
    thread::sleep(SETTLED_AFTER);
    let mut last = cpu()?;
    loop {
        thread::sleep(QUIET);
        let now = cpu()?;
        // A tick is what doing nothing costs.
        if now.saturating_sub(last) <= Duration::from_millis(10) {
            return Ok(now.saturating_sub(before));
        }
        last = now;
    }
}

/// A masked text frame (RFC 6455, section 5.2). Its mask is zero, which leaves the text as it is.
fn frame(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    let mut frame = vec![0x81];
    match text.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

fn start(session: &str) -> Vec<u8> {
    let trace = format!("{:032x}", session.len());
    frame(
        &json!({"type": "session_start", "session_id": session, "trace_id": trace, "metadata": {}}),
    )
}

/// The span at a place of a session, as the dialect's client sends it.
fn span(dice: &mut Dice, session: &str, at: u64) -> Vec<u8> {
    let (turn, within) = (at / SPANS_A_TURN, at % SPANS_A_TURN);
    let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
    let said = |role: &str, text: &str| {
        json!([{"role": role, "parts": [{"type": "text", "content": text}]}]).to_string()
    };
    let (question, answer) = (dice.prose(200), dice.prose(200));
    let number = |key: &str, number: u64| json!({"key": key, "value": {"intValue": number}});
    let (name, attributes) = match within {
        0 => (
            "invoke_agent helper",
            vec![
                text("gen_ai.operation.name", "invoke_agent"),
                text("gen_ai.agent.name", "helper"),
            ],
        ),
        odd if odd % 2 == 1 => (
            "chat gpt-4o",
            vec![
                text("gen_ai.operation.name", "chat"),
                text("gen_ai.system", "openai"),
                text("gen_ai.request.model", "gpt-4o"),
                text("gen_ai.response.model", "gpt-4o-2024-08-06"),
                text(
                    "gen_ai.input.messages",
                    &said("user", &format!("{turn}: {question}")),
                ),
                text("gen_ai.output.messages", &said("assistant", &answer)),
                text("gen_ai.response.finish_reasons", "('stop',)"),
                number("gen_ai.usage.input_tokens", 100 + within),
                number("gen_ai.usage.output_tokens", 20 + within),
            ],
        ),
        _ => (
            "execute_tool search",
            vec![
                text("gen_ai.operation.name", "execute_tool"),
                text("gen_ai.tool.name", "search"),
                text("gen_ai.tool.call.id", &format!("call_{at}")),
                text(
                    "gen_ai.tool.call.arguments",
                    &json!({"query": question}).to_string(),
                ),
                text(
                    "gen_ai.tool.call.result",
                    &json!({"found": answer}).to_string(),
                ),
            ],
        ),
    };
    let scope = [
        text("otel.scope.name", "opentelemetry.instrumentation.helper"),
        text("otel.scope.version", "0.1.0"),
    ];
    let attributes: Vec<Value> = scope.into_iter().chain(attributes).collect();
    let id = |at: u64| format!("{:016x}", (at + 1) << 8 | 7);
    let parent = (within > 0).then(|| id(at - within));
    let begins = 1_760_000_000_000_000_000 + at * 10_000_000;
    frame(&json!({"type": "span", "session_id": session, "span": {
        "traceId": format!("{:032x}", turn + 1), "spanId": id(at), "parentSpanId": parent,
        "name": name, "kind": 2,
        "startTimeUnixNano": begins.to_string(), "endTimeUnixNano": (begins + 9_000_000).to_string(),
        "attributes": attributes, "status": {"code": 0},
    }}))
}

/// The client's end of a WebSocket. What comes is read by a thread of its own: who does not answer pings is let go.
struct Agent {
    socket: Arc<Mutex<TcpStream>>,
    answers: Receiver<Value>,
}

impl Agent {
    fn connect(address: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(STALLED))?;
        let request = format!(
            "GET /ws/traces HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101"), "no websocket: {head}");
        let reader = BufReader::new(socket.try_clone()?);
        let socket = Arc::new(Mutex::new(socket));
        let (sender, answers) = channel();
        let pongs = Arc::clone(&socket);
        thread::spawn(move || {
            if let Err(error) = hear(reader, &pongs, &sender) {
                eprintln!("a websocket ended: {error}");
            }
        });
        Ok(Self { socket, answers })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(locked(&self.socket).write_all(bytes)?)
    }

    /// Begins a session and tells of so many spans, each a frame, as fast as they are taken.
    fn run(&mut self, session: &str, spans: u64) -> Result<()> {
        let mut dice = Dice(spans);
        let mut all = vec![start(session)];
        all.extend((0..spans).map(|at| span(&mut dice, session, at)));
        for frames in all.chunks(16) {
            self.send(&frames.concat())?;
        }
        Ok(())
    }

    /// Begins a session and tells of so many spans, one each period.
    fn run_steadily(&mut self, session: &str, spans: u64) -> Result<()> {
        let mut dice = Dice(spans);
        self.send(&start(session))?;
        let begun = Instant::now();
        for at in 0..spans {
            let due = STEADY_PERIOD.saturating_mul(at as u32);
            thread::sleep(due.saturating_sub(begun.elapsed()));
            self.send(&span(&mut dice, session, at))?;
        }
        Ok(())
    }

    fn end(&mut self, session: &str) -> Result<Value> {
        self.send(&frame(
            &json!({"type": "session_end", "session_id": session}),
        ))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        Ok(self.answers.recv_timeout(STALLED)?)
    }

    /// How long spans of a session of its own take to the page, one each period: so many, or until something else is over.
    fn timed(
        &mut self,
        page: &mut Page,
        seed: u64,
        mut is_over: impl FnMut() -> bool,
    ) -> Result<Vec<Duration>> {
        let mut dice = Dice(seed);
        let mut times = Vec::new();
        for at in 0.. {
            let begun = Instant::now();
            self.send(&span(
                &mut dice,
                "other",
                seed * 100_000 + at * SPANS_A_TURN + 1,
            ))?;
            times.push(page.span()?.saturating_duration_since(begun));
            if is_over() || seed == 1 && at + 1 >= CALM_SPANS {
                break;
            }
            thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
        }
        Ok(times)
    }
}

fn locked(socket: &Mutex<TcpStream>) -> MutexGuard<'_, TcpStream> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads frames to the end: texts are passed on, pings answered.
fn hear(
    mut reader: BufReader<TcpStream>,
    socket: &Mutex<TcpStream>,
    answers: &Sender<Value>,
) -> Result<()> {
    loop {
        let mut head = [0; 2];
        if reader.read_exact(&mut head).is_err() {
            return Ok(());
        }
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                reader.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                reader.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length)?];
        reader.read_exact(&mut payload)?;
        match head[0] & 0x0f {
            1 => {
                let _ = answers.send(serde_json::from_slice(&payload)?);
            }
            9 => {
                let mut pong = vec![0x8a, 0x80 | head[1], 0, 0, 0, 0];
                pong.extend(payload);
                locked(socket).write_all(&pong)?;
            }
            8 => bail!("closed with {payload:?}"),
            _ => {}
        }
    }
}

/// A page that shows everything: it listens, and notes when what was there.
struct Page {
    spans: Receiver<Instant>,
    completes: Receiver<Instant>,
}

impl Page {
    fn open(address: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(STALLED))?;
        let request = format!(
            "GET /stream/ui-updates HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let mut head = [0; 12];
        socket.read_exact(&mut head)?;
        ensure!(
            head.ends_with(b"200"),
            "/stream/ui-updates answered {}",
            String::from_utf8_lossy(&head)
        );
        let (spans, completes) = (channel(), channel());
        thread::spawn(move || listen(socket, &spans.0, &completes.0));
        Ok(Self {
            spans: spans.1,
            completes: completes.1,
        })
    }

    fn span(&mut self) -> Result<Instant> {
        self.spans.recv_timeout(STALLED).map_err(why)
    }

    fn spans(&mut self, count: u64) -> Result<()> {
        for at in 0..count {
            self.span()
                .with_context(|| format!("the page was shown {at} of {count} spans"))?;
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        self.completes.recv_timeout(STALLED).map_err(why)?;
        Ok(())
    }
}

fn why(error: RecvTimeoutError) -> anyhow::Error {
    anyhow::anyhow!("the page was shown no more: {error}")
}

fn listen(mut socket: TcpStream, spans: &Sender<Instant>, completes: &Sender<Instant>) {
    const SPAN: &[u8] = b"\"span_received\"";
    const COMPLETE: &[u8] = b"\"session_complete\"";
    let mut text = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = socket.read(&mut buffer) {
        let now = Instant::now();
        text.extend_from_slice(buffer.get(..read).unwrap_or_default());
        for at in 0..text.len().saturating_sub(COMPLETE.len() - 1) {
            let rest = text.get(at..).unwrap_or_default();
            if rest.starts_with(SPAN) {
                let _ = spans.send(now);
            } else if rest.starts_with(COMPLETE) {
                let _ = completes.send(now);
            }
        }
        // What may be the beginning of a word.
        let keep = text.len().min(COMPLETE.len() - 1);
        text.drain(..text.len() - keep);
    }
}
