//! `tailspan mcp`: the tools of a running server, and evaluation of files, for assistants that speak the Model Context Protocol.
//!
//! Lines of the protocol are all that goes to standard output. Names and answers of `list_metrics`, `evaluate_traces`, `list_sessions`,
//! `summarize_session` and `evaluate_sessions` are those of agentevals; the others are Tailspan's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tailspan_core::eval::metrics::METRICS;
use tailspan_core::eval::{RunResult, Status, trajectory::MatchType};
use tokio::time::{Instant, timeout_at};

use super::Outcome;
use super::client::{Client, Failure, Next, Query, ServerOptions, session_path, trace_path};
use super::run::{self, Bar, RunOptions};

/// What `tailspan mcp` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  claude mcp add tailspan -- tailspan mcp
  tailspan mcp --url https://tailspan.example --token \"$SECRET\"

In the configuration of other clients:
  {\"mcpServers\": {\"tailspan\": {\"command\": \"tailspan\", \"args\": [\"mcp\"]}}}")]
pub struct McpOptions {
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Answers on standard input and output until the client closes them.
///
/// # Errors
/// The address is none, or the client does not speak the protocol.
pub async fn run(options: &McpOptions) -> anyhow::Result<Outcome> {
    let tools = Tools {
        client: Client::new(&options.server)?,
    };
    let service = tools.serve(rmcp::transport::stdio()).await?;
    service.waiting().await?;
    Ok(Outcome::Well)
}

/// Events that one answer holds at most: they are read by a model.
const MOST_EVENTS: usize = 200;
const SOME_EVENTS: usize = 50;
/// How long a tool may wait; clients give up after a minute or a few.
const MOST_SECONDS: u64 = 300;
const SOME_SECONDS: u64 = 30;
/// After something happened, this long for what comes right behind it.
const SETTLE: Duration = Duration::from_millis(300);
const DEFAULT_METRIC: &str = "tool_trajectory_avg_score";

#[derive(Clone)]
struct Tools {
    client: Client,
}

#[derive(Deserialize, JsonSchema)]
struct ListTraces {
    /// running, stalled, lost, completed or failed
    status: Option<String>,
    /// Name or id of an agent in the trace
    agent: Option<String>,
    /// Name of the session
    session: Option<String>,
    /// Traces that began then or later, RFC 3339
    since: Option<String>,
    /// At most so many (20, up to 200)
    limit: Option<u32>,
    /// The next_cursor of the page before
    cursor: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// What to look for, in names of traces, agents, tools and steps, and in errors
    text: String,
    /// running, stalled, lost, completed or failed
    status: Option<String>,
    /// At most so many (20, up to 200)
    limit: Option<u32>,
    /// The next_cursor of the page before
    cursor: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Read {
    trace_id: String,
    /// What of it: "events" (the default), "tree" or "invocations" (the turns of its conversation)
    what: Option<What>,
    /// Of events: minimal, standard, detailed (the default) or debug
    level: Option<String>,
    /// Of events: only these types, separated by commas
    event_types: Option<String>,
    /// Of events: the next_cursor of the page before
    cursor: Option<String>,
    /// Of a tree: rows to pass over
    offset: Option<usize>,
    /// At most so many events or rows (50, up to 200)
    limit: Option<usize>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum What {
    Events,
    Tree,
    Invocations,
}

#[derive(Deserialize, JsonSchema)]
struct OfTrace {
    trace_id: String,
}

#[derive(Deserialize, JsonSchema)]
struct Compare {
    /// The trace to compare with
    first: String,
    /// The trace to compare
    second: String,
}

#[derive(Deserialize, JsonSchema)]
struct Evaluate {
    /// Traces of the server, by id
    #[serde(default)]
    traces: Vec<String>,
    /// Sessions of the server, by name: the newest 20 traces of each
    #[serde(default)]
    sessions: Vec<String>,
    /// Trace files on this machine
    #[serde(default)]
    files: Vec<String>,
    /// An eval set on this machine, with the golden runs
    eval_set_file: Option<String>,
    /// A YAML configuration of evaluators on this machine
    config_file: Option<String>,
    /// Names of metrics, see list_metrics
    metrics: Option<Vec<String>>,
    /// What a score must reach
    threshold: Option<f64>,
    /// EXACT, IN_ORDER or ANY_ORDER
    trajectory_match_type: Option<String>,
    /// Who judges, where a metric asks a model
    judge_model: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct WaitFor {
    trace_id: String,
    /// At most so long (30, up to 300)
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
struct FollowOn {
    /// A trace; without it and without a session everything is followed
    trace_id: Option<String>,
    /// A session, by name
    session: Option<String>,
    /// The cursor of the answer before. Without one a trace and a session begin at their start, everything begins now
    cursor: Option<String>,
    /// Wait so long for something to happen (30, up to 300)
    wait_seconds: Option<u64>,
    /// At most so many events (50, up to 200)
    limit: Option<usize>,
    /// minimal, standard (the default), detailed or debug
    level: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct EvaluateTraces {
    /// Paths of trace files
    trace_files: Vec<String>,
    metrics: Option<Vec<String>>,
    /// jaeger-json, otlp-json or otlp-protobuf; told by the content otherwise
    trace_format: Option<String>,
    /// Path of an eval set
    eval_set_file: Option<String>,
    judge_model: Option<String>,
    threshold: Option<f64>,
    /// Path of a YAML configuration
    eval_config_file: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct ListSessions {
    /// At most so many (20)
    limit: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
struct OfSession {
    session_id: String,
}

#[derive(Deserialize, JsonSchema)]
struct EvaluateSessions {
    /// The session that the others are compared with
    golden_session_id: String,
    metrics: Option<Vec<String>>,
    judge_model: Option<String>,
    eval_set_id: Option<String>,
}

/// Why a tool has no answer, in words for who called it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Server(#[from] Failure),
    #[error("{0}")]
    Asked(String),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Both forms of an answer: the structure, and the same as text.
fn told(answer: Result<Value, Refusal>) -> CallToolResult {
    match answer {
        Ok(value) => CallToolResult::structured(value),
        Err(refusal) => CallToolResult::error(vec![ContentBlock::text(refusal.to_string())]),
    }
}

#[tool_router]
impl Tools {
    #[tool(
        description = "List traces (runs of agents), newest first, with their status, agents, tokens, cost and errors.",
        annotations(read_only_hint = true)
    )]
    async fn list_traces(&self, Parameters(asked): Parameters<ListTraces>) -> CallToolResult {
        let query = Query::new()
            .with("status", asked.status)
            .with("agent_id", asked.agent)
            .with("session_id", asked.session)
            .with("start_time", asked.since)
            .with("limit", asked.limit.map(|limit| limit.to_string()))
            .with("cursor", asked.cursor);
        told(self.get("/traces", &query).await)
    }

    #[tool(
        description = "Find traces by words in the names of their agents, tools and steps, and in their errors.",
        annotations(read_only_hint = true)
    )]
    async fn search(&self, Parameters(asked): Parameters<Search>) -> CallToolResult {
        let query = Query::new()
            .with("text", Some(asked.text))
            .with("status", asked.status)
            .with("limit", asked.limit.map(|limit| limit.to_string()))
            .with("cursor", asked.cursor);
        told(self.get("/traces", &query).await)
    }

    #[tool(
        description = "Read a trace, a page at a time: its events (what was said, called and answered), its tree of calls, or the turns of its conversation.",
        annotations(read_only_hint = true)
    )]
    async fn read(&self, Parameters(asked): Parameters<Read>) -> CallToolResult {
        told(self.read_page(asked).await)
    }

    #[tool(
        description = "Summarize a trace: status, duration, agents, models, tokens, cost, calls, errors, and the turns of its conversation.",
        annotations(read_only_hint = true)
    )]
    async fn summarize(&self, Parameters(asked): Parameters<OfTrace>) -> CallToolResult {
        told(self.summary(&asked.trace_id).await)
    }

    #[tool(
        description = "Analyze a trace: why it was slow or wrong. Findings with recommendations, the critical path, where the time went, errors.",
        annotations(read_only_hint = true)
    )]
    async fn analyze(&self, Parameters(asked): Parameters<OfTrace>) -> CallToolResult {
        let path = trace_path(&asked.trace_id, "/analysis");
        told(self.get(&path, &Query::new()).await)
    }

    #[tool(
        description = "Compare two traces side by side: status, duration, tokens, cost, errors, calls of each tool, agents.",
        annotations(read_only_hint = true)
    )]
    async fn compare(&self, Parameters(asked): Parameters<Compare>) -> CallToolResult {
        told(self.side_by_side(&asked.first, &asked.second).await)
    }

    #[tool(
        description = "Score traces of the server, sessions, or trace files of this machine, against an eval set or with metrics that need none.",
        annotations(read_only_hint = true)
    )]
    async fn evaluate(&self, Parameters(asked): Parameters<Evaluate>) -> CallToolResult {
        told(self.score(asked).await)
    }

    #[tool(
        description = "Wait until a trace ends, or for as long as is said; then its summary.",
        annotations(read_only_hint = true)
    )]
    async fn wait_for(&self, Parameters(asked): Parameters<WaitFor>) -> CallToolResult {
        told(self.await_end(&asked).await)
    }

    #[tool(
        description = "What happened since the last call: new events of a trace, a session or everything, and a cursor for the next call. Waits for the first one.",
        annotations(read_only_hint = true)
    )]
    async fn follow(&self, Parameters(asked): Parameters<FollowOn>) -> CallToolResult {
        told(self.news(asked).await)
    }

    #[tool(
        description = "List the metrics that evaluations can use.",
        annotations(read_only_hint = true)
    )]
    async fn list_metrics(&self) -> CallToolResult {
        told(match serde_json::to_value(METRICS.as_slice()) {
            Ok(metrics) => Ok(json!({ "result": metrics })),
            Err(error) => Err(Refusal::Other(error.into())),
        })
    }

    #[tool(
        description = "Evaluate trace files of this machine; works without a server.",
        annotations(read_only_hint = true)
    )]
    async fn evaluate_traces(
        &self,
        Parameters(asked): Parameters<EvaluateTraces>,
    ) -> CallToolResult {
        let options = RunOptions {
            files: asked.trace_files.into_iter().map(PathBuf::from).collect(),
            eval_set: asked.eval_set_file.map(PathBuf::from),
            config: asked.eval_config_file.map(PathBuf::from),
            metrics: asked.metrics.unwrap_or_default(),
            threshold: asked.threshold,
            judge_model: asked.judge_model,
            format: asked.trace_format,
            ..RunOptions::default()
        };
        told(evaluated(options, Vec::new()).await.map(|run| brief(&run)))
    }

    #[tool(
        description = "List live sessions, newest first.",
        annotations(read_only_hint = true)
    )]
    async fn list_sessions(&self, Parameters(asked): Parameters<ListSessions>) -> CallToolResult {
        let sessions = self.get("/api/streaming/sessions", &Query::new()).await;
        told(sessions.map(|answer| {
            let mut sessions = data(answer).as_array().cloned().unwrap_or_default();
            let at = |session: &Value| session.get("startedAt").and_then(Value::as_str).map(str::to_owned);
            sessions.sort_by_key(|session| std::cmp::Reverse(at(session)));
            sessions.truncate(asked.limit.unwrap_or(20));
            let told = sessions.iter().map(|session| {
                json!({"session_id": session.get("sessionId"), "is_complete": session.get("isComplete"),
                    "span_count": session.get("spanCount"), "started_at": session.get("startedAt")})
            });
            json!({ "result": told.collect::<Vec<_>>() })
        }))
    }

    #[tool(
        description = "Summarize a live session: its turns, what was asked, answered and called.",
        annotations(read_only_hint = true)
    )]
    async fn summarize_session(&self, Parameters(asked): Parameters<OfSession>) -> CallToolResult {
        told(self.session_turns(&asked.session_id).await)
    }

    #[tool(
        description = "Compare every complete live session with a golden one.",
        annotations(read_only_hint = true)
    )]
    async fn evaluate_sessions(
        &self,
        Parameters(asked): Parameters<EvaluateSessions>,
    ) -> CallToolResult {
        let golden = asked.golden_session_id;
        let body = json!({
            "eval_set_id": asked.eval_set_id.unwrap_or_else(|| format!("{golden}-golden")),
            "golden_session_id": golden,
            "metrics": asked.metrics.unwrap_or_else(|| vec![DEFAULT_METRIC.to_owned()]),
            "judge_model": asked.judge_model.unwrap_or_else(|| "gemini-2.5-flash".to_owned()),
        });
        let answer = self
            .client
            .post::<Value>("/api/streaming/evaluate-sessions", &body)
            .await;
        told(answer.map(data).map_err(Refusal::from))
    }
}

#[tool_handler(
    name = "tailspan",
    instructions = "Tailspan shows runs of multi-agent systems. Begin with list_traces or search, then summarize and analyze a trace, read its events for \
                    what was said, compare it with one that went well, evaluate it. wait_for and follow watch a run that goes on."
)]
impl ServerHandler for Tools {}

impl Tools {
    async fn get(&self, path: &str, query: &Query) -> Result<Value, Refusal> {
        Ok(self.client.json(path, query).await?)
    }

    async fn read_page(&self, asked: Read) -> Result<Value, Refusal> {
        let limit = asked.limit.unwrap_or(SOME_EVENTS).clamp(1, MOST_EVENTS);
        match asked.what.unwrap_or(What::Events) {
            What::Events => {
                let level = asked.level.as_deref().unwrap_or("detailed");
                let query = Query::new()
                    .with("level", Some(level))
                    .with("event_types", asked.event_types)
                    .with("cursor", asked.cursor)
                    .with("limit", Some(limit.to_string()));
                self.get(&trace_path(&asked.trace_id, "/events"), &query)
                    .await
            }
            What::Invocations => {
                let query = Query::new().with("level", asked.level);
                let path = trace_path(&asked.trace_id, "/invocations");
                self.get(&path, &query).await.map(in_object)
            }
            What::Tree => {
                let mut trace = self
                    .get(&trace_path(&asked.trace_id, ""), &Query::new())
                    .await?;
                let rows = trace.get_mut("spans").map(Value::take).unwrap_or_default();
                let rows = rows.as_array().cloned().unwrap_or_default();
                let offset = asked.offset.unwrap_or(0);
                let page: Vec<Value> = rows.iter().skip(offset).take(limit).cloned().collect();
                let next = offset.saturating_add(page.len());
                Ok(json!({
                    "trace_id": asked.trace_id, "status": trace.get("status"), "total": rows.len(), "spans": page,
                    "next_offset": (next < rows.len()).then_some(next),
                }))
            }
        }
    }

    async fn summary(&self, trace: &str) -> Result<Value, Refusal> {
        let mut summary = self
            .get(&trace_path(trace, "/summary"), &Query::new())
            .await?;
        let query = Query::new().with("level", Some("detailed"));
        let turns = self.get(&trace_path(trace, "/invocations"), &query).await?;
        if let Some(summary) = summary.as_object_mut() {
            summary.insert("invocations".to_owned(), list_in(turns));
        }
        Ok(summary)
    }

    async fn side_by_side(&self, first: &str, second: &str) -> Result<Value, Refusal> {
        let (paths, query) = (
            [trace_path(first, ""), trace_path(second, "")],
            Query::new(),
        );
        let [one, other] = &paths;
        let (one, other) = tokio::try_join!(self.get(one, &query), self.get(other, &query))?;
        let mut numbers = Map::new();
        for name in COMPARED {
            let number = |trace: &Value| trace.get(name).and_then(Value::as_f64);
            let (one, other) = (number(&one), number(&other));
            let ratio = one
                .zip(other)
                .filter(|(one, _)| *one != 0.0)
                .map(|(one, other)| other / one);
            let change = one.zip(other).map(|(one, other)| other - one);
            let row = json!({"first": one, "second": other, "change": change, "ratio": ratio});
            numbers.insert(name.to_owned(), row);
        }
        let (tools_one, tools_other) = (tools(&one), tools(&other));
        let mut names: Vec<&String> = tools_one.keys().chain(tools_other.keys()).collect();
        names.sort();
        names.dedup();
        let rows = names.iter().map(|name| {
            let of =
                |tools: &BTreeMap<String, Calls>| tools.get(*name).copied().unwrap_or_default();
            let (one, other) = (of(&tools_one), of(&tools_other));
            json!({"tool": name, "first": one.json(), "second": other.json()})
        });
        let rows: Vec<Value> = rows.collect();
        let brief = |trace: &Value| {
            let facts = ["trace_id", "status", "started_at", "models", "errors"];
            let facts = facts
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), trace.get(*name)?.clone())));
            Value::Object(facts.collect())
        };
        let (agents_one, agents_other) = (texts(&one, "agents"), texts(&other, "agents"));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these
                .iter()
                .filter(|name| !those.contains(name))
                .cloned()
                .collect()
        };
        Ok(json!({
            "first": brief(&one), "second": brief(&other), "numbers": numbers, "tools": rows,
            "agents": {
                "both": agents_one.iter().filter(|name| agents_other.contains(name)).collect::<Vec<_>>(),
                "only_first": only(&agents_one, &agents_other),
                "only_second": only(&agents_other, &agents_one),
            },
        }))
    }

    async fn score(&self, asked: Evaluate) -> Result<Value, Refusal> {
        let mut traces = asked.traces;
        for session in &asked.sessions {
            let query = Query::new().with("session_id", Some(session.as_str()));
            let page = self.get("/traces", &query).await?;
            let rows = page.get("traces").and_then(Value::as_array);
            let ids = rows
                .into_iter()
                .flatten()
                .filter_map(|row| row.get("trace_id")?.as_str());
            let before = traces.len();
            traces.extend(ids.map(str::to_owned));
            if traces.len() == before {
                return Err(Refusal::Asked(format!(
                    "there is no trace of session {session}"
                )));
            }
        }
        if traces.is_empty() && asked.files.is_empty() {
            return Err(Refusal::Asked("name traces, sessions or files".to_owned()));
        }
        let mut fetched = Vec::new();
        let query = Query::new().with("format", Some("otlp"));
        for trace in traces {
            let text = self
                .client
                .text(&trace_path(&trace, "/export"), &query)
                .await?;
            fetched.push((trace, text.into_bytes()));
        }
        let match_type = asked
            .trajectory_match_type
            .map(|name| MatchType::parse(&name.to_ascii_uppercase()));
        let options = RunOptions {
            files: asked.files.into_iter().map(PathBuf::from).collect(),
            eval_set: asked.eval_set_file.map(PathBuf::from),
            config: asked.config_file.map(PathBuf::from),
            metrics: asked.metrics.unwrap_or_default(),
            threshold: asked.threshold,
            trajectory_match_type: match_type.transpose().map_err(Refusal::Asked)?,
            judge_model: asked.judge_model,
            ..RunOptions::default()
        };
        let run = evaluated(options, fetched).await?;
        let mut answer = tailspan_core::eval::report::json(&run);
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("passed".to_owned(), json!(run.is_success()));
        }
        Ok(answer)
    }

    async fn await_end(&self, asked: &WaitFor) -> Result<Value, Refusal> {
        let seconds = asked
            .timeout_seconds
            .unwrap_or(SOME_SECONDS)
            .min(MOST_SECONDS);
        let until = Instant::now() + Duration::from_secs(seconds);
        // Whether it is there at all is told at once; so is its end, when it has ended.
        let query = Query::new()
            .with("from", Some("now"))
            .with("level", Some("minimal"));
        let mut follow = self
            .client
            .follow(trace_path(&asked.trace_id, "/stream"), query);
        let mut ended = false;
        while !ended {
            match timeout_at(until, follow.next()).await {
                Ok(next) => {
                    ended = match next? {
                        Next::Over => true,
                        Next::Frame(frame) => frame.event.as_deref() == Some("end"),
                        Next::Lost(_) | Next::Back => false,
                    };
                }
                Err(_) => break,
            }
        }
        match self.summary(&asked.trace_id).await {
            Ok(summary) => {
                Ok(json!({"ended": ended, "status": summary.get("status"), "summary": summary}))
            }
            // It ended by being deleted.
            Err(Refusal::Server(failure)) if ended && failure.is_absent() => {
                Ok(json!({"ended": true, "status": "deleted"}))
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn news(&self, asked: FollowOn) -> Result<Value, Refusal> {
        let limit = asked.limit.unwrap_or(SOME_EVENTS).clamp(1, MOST_EVENTS);
        let seconds = asked.wait_seconds.unwrap_or(SOME_SECONDS).min(MOST_SECONDS);
        let path = match (&asked.trace_id, &asked.session) {
            (Some(trace), None) => trace_path(trace, "/stream"),
            (None, Some(session)) => session_path(session, "/stream"),
            (None, None) => "/stream".to_owned(),
            (Some(_), Some(_)) => {
                return Err(Refusal::Asked(
                    "name a trace or a session, not both".to_owned(),
                ));
            }
        };
        let level = asked.level.as_deref().unwrap_or("standard");
        let query = Query::new()
            .with("level", Some(level))
            .with("cursor", asked.cursor.clone());
        let mut follow = self.client.follow(path, query);
        let mut until = Instant::now() + Duration::from_secs(seconds);
        let (mut events, mut gaps, mut ended) = (Vec::new(), Vec::new(), None);
        while events.len() < limit && ended.is_none() {
            let Ok(next) = timeout_at(until, follow.next()).await else {
                break;
            };
            let frame = match next? {
                Next::Over => {
                    ended = Some(Value::Null);
                    continue;
                }
                Next::Lost(_) | Next::Back => continue,
                Next::Frame(frame) => frame,
            };
            let data: Value = serde_json::from_str(&frame.data).unwrap_or_default();
            match frame.event.as_deref() {
                Some("end") => ended = Some(data.get("status").cloned().unwrap_or_default()),
                Some(_) => gaps.push(data),
                None => events.push(data),
            }
            until = until.min(Instant::now() + SETTLE);
        }
        let cursor = follow.cursor().map(str::to_owned).or(asked.cursor);
        Ok(json!({
            "events": events, "gaps": gaps, "cursor": cursor,
            "ended": ended.is_some(), "status": ended.filter(|status| !status.is_null()),
        }))
    }

    async fn session_turns(&self, session: &str) -> Result<Value, Refusal> {
        let sessions = data(self.get("/api/streaming/sessions", &Query::new()).await?);
        let mut sessions = sessions.as_array().into_iter().flatten();
        let named = |of: &&Value| of.get("sessionId").and_then(Value::as_str) == Some(session);
        let found = sessions.rfind(named);
        let Some(found) = found else {
            return Err(Refusal::Asked(format!("there is no session {session}")));
        };
        let turns = found.get("invocations").and_then(Value::as_array);
        let turns: Vec<Value> = turns.into_iter().flatten().map(turn).collect();
        Ok(json!({
            "session_id": session, "num_spans": found.get("spanCount"), "num_invocations": turns.len(), "invocations": turns,
        }))
    }
}

/// A turn of the dev server's sessions, in the words of this tool.
fn turn(turn: &Value) -> Value {
    let calls = turn.get("toolCalls").and_then(Value::as_array);
    let calls = calls.into_iter().flatten();
    let calls = calls.map(|call| json!({"tool": call.get("name"), "args": call.get("args")}));
    json!({
        "user": turn.get("userText"), "response": turn.get("agentText"), "tool_calls": calls.collect::<Vec<_>>(),
    })
}

/// What is compared as numbers.
const COMPARED: [&str; 10] = [
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "cost_usd",
    "total_llm_calls",
    "total_tool_calls",
    "errors_count",
    "total_spans",
];

#[derive(Clone, Copy, Default)]
struct Calls {
    calls: u64,
    failed: u64,
    ms: f64,
}

impl Calls {
    fn json(self) -> Value {
        json!({"calls": self.calls, "failed": self.failed, "duration_ms": self.ms})
    }
}

/// The calls of each tool in a tree.
fn tools(trace: &Value) -> BTreeMap<String, Calls> {
    let mut tools: BTreeMap<String, Calls> = BTreeMap::new();
    let rows = trace.get("spans").and_then(Value::as_array);
    for row in rows.into_iter().flatten() {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("kind") != "tool" {
            continue;
        }
        let calls = tools.entry(text("name").to_owned()).or_default();
        calls.calls += 1;
        calls.failed += u64::from(text("status") == "error");
        calls.ms += row
            .get("duration_ms")
            .and_then(Value::as_f64)
            .unwrap_or(0.0);
    }
    tools
}

fn texts(trace: &Value, name: &str) -> Vec<String> {
    let list = trace.get(name).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The dev server's routes wrap what they say.
fn data(mut answer: Value) -> Value {
    match answer.get_mut("data") {
        Some(data) => data.take(),
        None => answer,
    }
}

/// The list in an answer that is one, or holds one.
fn list_in(answer: Value) -> Value {
    match answer {
        Value::Object(mut object) => object.remove("invocations").unwrap_or_default(),
        list => list,
    }
}

/// Structured answers are objects.
fn in_object(answer: Value) -> Value {
    match answer {
        Value::Object(_) => answer,
        list => json!({ "invocations": list }),
    }
}

/// On a thread of its own: files are read, and the other tools go on answering.
async fn evaluated(
    options: RunOptions,
    fetched: Vec<(String, Vec<u8>)>,
) -> Result<RunResult, Refusal> {
    let evaluation = tokio::task::spawn_blocking(move || {
        // Standard output and error are the client's.
        super::block_on(async { run::evaluate(&options, fetched, &Bar::hidden()).await })
    });
    let run = evaluation.await.map_err(anyhow::Error::from)??;
    Ok(run)
}

/// The answer of agentevals' tool: a run has passed while no metric has failed.
fn brief(run: &RunResult) -> Value {
    let metrics = run
        .trace_results
        .iter()
        .flat_map(|trace| &trace.metric_results);
    let passed = !metrics
        .into_iter()
        .any(|metric| metric.eval_status == Status::Failed);
    let traces = run.trace_results.iter().map(|trace| {
        let metrics = trace.metric_results.iter().map(|metric| {
            json!({"metric": metric.metric_name, "score": metric.score, "status": metric.eval_status, "error": metric.error})
        });
        json!({
            "trace_id": trace.trace_id, "num_invocations": trace.num_invocations,
            "metrics": metrics.collect::<Vec<_>>(), "warnings": trace.conversion_warnings,
        })
    });
    json!({"passed": passed, "traces": traces.collect::<Vec<_>>(), "errors": run.errors})
}
