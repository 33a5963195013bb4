//! What is said and done in a trace, told event by event while it goes on: for the live view of a session.
//!
//! [`crate::invocations`] reads a whole trace and knows its tree; here an event is read once, in the order of the log, and what lies above it has usually not come yet. So one turn's messages go by the
//! invocation that the event itself names (as the dev server's dialect has it), and a message is told once for each time that it was said, as far as what came before tells that: see [`Extractor`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::attributes::{Attributes, parse_text};
use crate::convention;
use crate::fold::{Line, Said, answer_in, digest, digest_step, question_in, shorten, text_hash};
use crate::model::{Kind, Log, Message, Native, Span, Tool, ToolKind, Usage};
use crate::observed::{Recorded, What};

/// Of each sort of thing that is remembered to know it again.
const REMEMBERED: usize = 2_048;
/// Calls that a model asked for and nothing is known to have run.
const MAX_PENDING: usize = 256;
/// Model calls that log records tell of and that are not over.
const MAX_BURSTS: usize = 32;
/// Results that one model call is told by log records.
const MAX_RESULTS: usize = 64;
/// Kept of a text that waits for more.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// Kept of a result that waits for more.
const MAX_RESULT_BYTES: usize = 4 << 10;
/// What a tool is for, as the span of its call tells.
const DESCRIPTION: &str = "gen_ai.tool.description";
/// What the dialect calls what has no name.
const UNKNOWN: &str = "unknown";
/// Kept of ids and names.
const MAX_NAME_BYTES: usize = 512;

/// One thing that was said, done or counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// The producer's id of the turn, else the span above the one that tells, else that span.
    pub invocation_id: String,
    pub what: Told,
}

/// What an increment tells. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    UserInput {
        text: String,
        at_ns: u64,
    },
    AgentResponse {
        text: String,
        at_ns: u64,
    },
    ToolCall {
        id: String,
        name: String,
        args: Value,
        tool_type: Option<String>,
        description: Option<String>,
        at_ns: u64,
    },
    ToolResult {
        id: String,
        name: String,
        /// An object; what is none stands in it as `result`.
        response: Value,
        is_error: bool,
        at_ns: u64,
    },
    /// Of one model call.
    Tokens {
        input: u64,
        output: u64,
        model: Option<String>,
    },
}

/// Reads the events of one trace in their order. The same events give the same increments, wherever reading was interrupted.
///
/// A question is told when a model is first asked it. It counts as asked again when the trace's turn is over (a span without a parent ended) and it is the last thing that the model is shown; or when,
/// within a turn, the model's own answer stands before it in the history. So the history that every call repeats says nothing anew, and "yes" in two turns is told twice.
///
/// Holds a bounded amount, whatever comes; an event costs what reading it costs.
#[derive(Debug, Default)]
pub struct Extractor {
    /// Spans without a parent that ended.
    turns: u64,
    /// Turns, and questions within one that followed an answer.
    rounds: u64,
    /// Answers told.
    answers: u64,
    /// By what was said up to and with a question.
    asked: Recent<Asked>,
    /// By its text alone.
    questions: Recent<u64>,
    /// In which round an answer of this text was told.
    answered: Recent<u64>,
    /// The last model call of an invocation.
    last_call: Recent<LastCall>,
    pending: VecDeque<Pending>,
    /// Tools that ran without being asked for by a call that came before.
    unasked: VecDeque<Unasked>,
    calls: Recent<Arc<ShownCall>>,
    /// Spans of model calls that were counted, and spans above them.
    counted: Recent<()>,
    /// Spans whose messages log records told, or they themselves.
    spoken: Recent<()>,
    /// By the span it is of; records that name none share the empty name.
    bursts: VecDeque<(String, Burst)>,
    /// The invocation of the last model or tool span.
    current: Option<String>,
    /// What agents below the root say, for a root whose model calls say nothing.
    agents: AgentWords,
    spoke_in_turn: (bool, bool),
    /// Native tool calls that began without an id, by name.
    running: VecDeque<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    turn: u64,
    answers: u64,
}

#[derive(Clone, Copy, Debug)]
struct LastCall {
    question: Option<u64>,
    /// 0: it asked for tools, or said nothing.
    answer: u64,
    /// When the first of its calls began.
    began_ns: u64,
}

/// A call that a model asked for.
#[derive(Debug)]
struct Pending {
    invocation: String,
    id: Option<String>,
    name: String,
    args: Value,
    at_ns: u64,
}

#[derive(Debug)]
struct Unasked {
    name: String,
    /// Under which it was told.
    id: String,
    has_own_id: bool,
    start_ns: u64,
}

#[derive(Clone, Debug)]
struct ShownCall {
    invocation: String,
    /// Under which it was told.
    id: String,
    name: String,
    has_result: bool,
}

#[derive(Debug, Default)]
struct AgentWords {
    question: Option<(String, u64, String)>,
    answer: Option<(String, u64, String)>,
}

/// What log records have said of one model call so far.
#[derive(Debug, Default)]
struct Burst {
    invocation: Option<String>,
    history: u64,
    question: Option<Question>,
    results: Vec<ToolSaid>,
    /// Names of the calls in the history, by id.
    names: VecDeque<(String, String)>,
    /// The assistant's message that stands last: the answer, unless more follows.
    tail: Option<Message>,
    at_ns: u64,
}

#[derive(Clone, Debug)]
struct Question {
    text: String,
    /// Of all that was said up to it.
    history: u64,
    /// Something of the model or of tools follows it.
    is_past: bool,
    at_ns: u64,
}

/// What a tool said, as a model was given it.
#[derive(Clone, Debug)]
struct ToolSaid {
    id: String,
    name: Option<String>,
    text: String,
}

/// A model call's content and where it belongs.
struct Call<'a> {
    invocation: &'a str,
    /// Nothing is known to lie above it.
    is_bare: bool,
    question: Option<Question>,
    outline: Vec<Line>,
    answer: Option<String>,
    answer_hash: u64,
    calls: Vec<(Option<String>, String, Value)>,
    results: Vec<ToolSaid>,
    start_ns: u64,
    end_ns: u64,
}

impl Extractor {
    /// The increments of the trace's next event.
    pub fn apply(&mut self, recorded: &Recorded) -> Vec<Increment> {
        let mut told = Vec::new();
        let (observation, _) = convention::told(&recorded.observation);
        let context = &observation.context;
        match &observation.what {
            What::Span(span) => {
                let is_described = span.attributes.iter().any(|pair| pair.key == DESCRIPTION);
                let description = is_described
                    .then(|| Attributes::new(&span.attributes).text(DESCRIPTION))
                    .flatten();
                let span = convention::read_said(span, context);
                self.span(span, description, &mut told);
            }
            What::Log(record) => {
                let mut log = convention::read_log(record, context);
                if log.time_ns == 0 {
                    log.time_ns = recorded.arrived_unix_ms.saturating_mul(1_000_000);
                }
                self.log(log, &mut told);
            }
            What::Native(text) => {
                let event = convention::read_native(text, recorded.arrived_unix_ms);
                self.native(event, recorded.seq, &mut told);
            }
        }
        told
    }

    /// What is still open when the trace's run is over: calls that were asked for and that nothing is known to have run, and what only log records told of.
    pub fn finish(&mut self) -> Vec<Increment> {
        let mut told = Vec::new();
        while let Some((_, burst)) = self.bursts.pop_front() {
            let invocation = burst.invocation.clone().unwrap_or_default();
            let at_ns = burst.at_ns;
            self.tell_burst(burst, None, &invocation, at_ns, &mut told);
        }
        self.show_all_pending(&mut told);
        told
    }

    fn span(&mut self, mut span: Span, description: Option<String>, told: &mut Vec<Increment>) {
        // What began is told again when it ends, then with its content.
        let Some(end_ns) = span.end_ns.filter(|_| !span.made_up) else {
            return;
        };
        let own = span.parent_id.as_ref().unwrap_or(&span.id);
        let invocation = cut(span.invocation_id.as_ref().unwrap_or(own));
        match span.kind {
            Kind::Llm => {
                self.model_call(&span, &invocation, end_ns, told);
                self.current = Some(invocation);
            }
            Kind::Tool => {
                if let Some(tool) = span.tool.take() {
                    self.tool(&span, tool, (&invocation, description), end_ns, told);
                }
                self.current = Some(invocation);
            }
            Kind::Agent | Kind::Workflow => self.step(&span, end_ns, told),
            Kind::Task => {
                self.pass_on(&span);
                self.step(&span, end_ns, told);
            }
            _ => self.pass_on(&span),
        }
        if span.parent_id.is_none() {
            if !matches!(span.kind, Kind::Llm | Kind::Tool) {
                self.show_all_pending(told);
                self.speak_for_agents(told);
            }
            self.turns += 1;
            self.rounds += 1;
            self.agents = AgentWords::default();
            self.spoke_in_turn = (false, false);
        }
    }

    fn model_call(
        &mut self,
        span: &Span,
        invocation: &str,
        end_ns: u64,
        told: &mut Vec<Increment>,
    ) {
        let bursts = [span.id.as_str(), ""];
        for of in bursts {
            if let Some(burst) = self.take_burst(of) {
                let invocation = burst
                    .invocation
                    .clone()
                    .unwrap_or_else(|| invocation.to_owned());
                let is_answered = self.tell_burst(burst, None, &invocation, end_ns, told);
                if !of.is_empty() && is_answered {
                    self.spoken.put(hash(&[of]), ());
                }
            }
        }
        let speaks = !(span.input.is_empty() && span.output.is_empty());
        if speaks && self.spoken.get(hash(&[&span.id])).is_none() {
            self.spoken.put(hash(&[&span.id]), ());
            let said = digest(&span.input, &span.output);
            let call = Call::of(span, said, invocation, end_ns);
            self.tell_call(call, told);
        }
        self.count(span, invocation, told);
    }

    /// Tokens of a call once, and not again those of a span around it.
    fn count(&mut self, span: &Span, invocation: &str, told: &mut Vec<Increment>) {
        let Some(usage) = span.usage.filter(counts) else {
            return;
        };
        let own = hash(&["span", &span.id]);
        if self.counted.get(own).is_none() {
            told.push(tokens(invocation, usage, span.request_model.as_ref()));
        }
        self.counted.put(own, ());
        if let Some(parent) = &span.parent_id {
            self.counted.put(hash(&["span", parent]), ());
        }
    }

    fn tell_call(&mut self, call: Call<'_>, told: &mut Vec<Increment>) {
        let elsewhere = call.is_bare.then_some(call.invocation);
        for result in &call.results {
            self.told_by_model(result, elsewhere, call.start_ns, told);
        }
        let key = hash(&[call.invocation]);
        let last = self.last_call.get(key).copied();
        let began_ns = last.map_or(call.start_ns, |last| last.began_ns.min(call.start_ns));
        let question_hash = call.question.as_ref();
        let question_hash = question_hash.map(|question| text_hash(&question.text));
        if let Some(question) = call.question {
            // A call that began before those that were told of: what it was asked was asked first.
            let last = last.filter(|last| last.began_ns <= call.start_ns);
            let follows = last.map(|last| follows(last, &question, &call.outline));
            let is_new = follows.unwrap_or_else(|| self.is_asked_anew(&question, call.is_bare));
            self.remember(&question);
            if is_new {
                if follows == Some(true) {
                    self.rounds += 1;
                }
                self.ask(question, call.invocation, told);
            }
        }
        if let Some(answer) = call.answer {
            self.answer(answer, call.invocation, call.end_ns, told);
        }
        let last = LastCall {
            question: question_hash,
            answer: if call.calls.is_empty() {
                call.answer_hash
            } else {
                0
            },
            began_ns,
        };
        self.last_call.put(key, last);
        for (id, name, args) in call.calls {
            let shown = id
                .as_ref()
                .is_some_and(|id| self.calls.get(hash(&[id])).is_some());
            if shown || self.ran_before(id.as_deref(), &name, call.start_ns) {
                continue;
            }
            self.pending.push_back(Pending {
                invocation: call.invocation.to_owned(),
                id,
                name,
                args,
                at_ns: call.end_ns,
            });
            if self.pending.len() > MAX_PENDING
                && let Some(first) = self.pending.pop_front()
            {
                self.show(first, told);
            }
        }
    }

    /// A tool may be told of before the call that asked for it: some calls last for as long as all that they trigger, and exporters of two processes do not wait for each other.
    fn ran_before(&mut self, id: Option<&str>, name: &str, start_ns: u64) -> bool {
        let ran = self.unasked.iter().position(|ran| {
            ran.name == name && ran.start_ns >= start_ns && !(ran.has_own_id && id.is_some())
        });
        let Some(ran) = ran.and_then(|at| self.unasked.remove(at)) else {
            return false;
        };
        // What the model is given of it comes under the model's id.
        if let (Some(id), Some(call)) = (id, self.calls.get(hash(&[&ran.id])).cloned()) {
            self.calls.put(hash(&[id]), call);
        }
        true
    }

    /// Whether a question in a call of an invocation that was not seen before is told.
    fn is_asked_anew(&self, question: &Question, is_bare: bool) -> bool {
        match self.asked.get(question.history) {
            // Bare calls are traces of their own: a call in the middle of a turn repeats what another trace told.
            None => !(is_bare && question.is_past),
            Some(asked) => {
                !question.is_past
                    && asked.turn < self.turns
                    && (!is_bare || asked.answers < self.answers)
            }
        }
    }

    fn ask(&mut self, question: Question, invocation: &str, told: &mut Vec<Increment>) {
        self.spoke_in_turn.0 = true;
        told.push(Increment {
            invocation_id: invocation.to_owned(),
            what: Told::UserInput {
                text: question.text,
                at_ns: question.at_ns,
            },
        });
    }

    fn remember(&mut self, question: &Question) {
        let asked = Asked {
            turn: self.turns,
            answers: self.answers,
        };
        self.asked.put(question.history, asked);
        self.questions.put(text_hash(&question.text), self.turns);
    }

    fn answer(&mut self, text: String, invocation: &str, at_ns: u64, told: &mut Vec<Increment>) {
        let key = text_hash(&text);
        if text.trim().is_empty() || self.answered.get(key) == Some(&self.rounds) {
            return;
        }
        self.answered.put(key, self.rounds);
        self.answers += 1;
        self.spoke_in_turn.1 = true;
        told.push(Increment {
            invocation_id: invocation.to_owned(),
            what: Told::AgentResponse { text, at_ns },
        });
    }

    fn tool(
        &mut self,
        span: &Span,
        tool: Tool,
        (invocation, description): (&str, Option<String>),
        end_ns: u64,
        told: &mut Vec<Increment>,
    ) {
        // Of spans of one call that nest (MCP's client, server and handler) the first to come was told.
        let known = |place: &str, of: &str| self.calls.get(hash(&[place, of]));
        let nested = || {
            let below = known("around", &span.id);
            let above = || known("tool", span.parent_id.as_ref()?);
            below
                .filter(|call| call.name == tool.name)
                .or_else(|| above().filter(|call| call.name == tool.name))
        };
        let inner = known("tool", &span.id).or_else(nested).cloned();
        let asked = match inner {
            Some(_) => None,
            None => self.take_pending(&tool),
        };
        let asked_id = asked.as_ref().and_then(|asked| asked.id.clone());
        let id = match &inner {
            Some(inner) => inner.id.clone(),
            None => cut(tool
                .call_id
                .as_ref()
                .or(asked_id.as_ref())
                .unwrap_or(&span.id)),
        };
        let name = asked
            .as_ref()
            .map_or_else(|| cut(&tool.name), |asked| asked.name.clone());
        if inner.is_none() && asked.is_none() {
            if self.unasked.len() >= MAX_PENDING {
                self.unasked.pop_front();
            }
            self.unasked.push_back(Unasked {
                name: name.clone(),
                id: id.clone(),
                has_own_id: tool.call_id.is_some(),
                start_ns: span.start_ns,
            });
        }
        let key = hash(&[&id]);
        // An agent's tools may count their calls from 0 in every turn, and a span may be sent twice.
        let per_span = hash(&["tool", &span.id]);
        let known_id = self.calls.get(key).cloned();
        let is_shown = inner.is_some()
            || self.calls.get(per_span).is_some()
            || known_id.as_ref().is_some_and(|known| !known.has_result);
        if !is_shown {
            // As asked for, like the whole has it: a span may wrap what it was called with.
            let asked = asked.map(|asked| asked.args);
            let args = asked
                .filter(|args| !is_nothing(args))
                .or(tool.arguments)
                .unwrap_or_else(|| json!({}));
            told.push(Increment {
                invocation_id: invocation.to_owned(),
                what: Told::ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    args,
                    tool_type: tool.tool_type,
                    description,
                    at_ns: span.start_ns,
                },
            });
        }
        let failure = span.failure.as_ref();
        let has_own_result = tool.result.is_some() || failure.is_some();
        let result = match (tool.result, failure) {
            (Some(result), _) => Some(response(result)),
            (None, Some(failure)) => {
                let words = [&failure.message, &failure.kind];
                let words = words.into_iter().find(|words| !words.is_empty());
                Some(json!({"error": words}))
            }
            (None, None) => None,
        };
        let had_result = match (&inner, &known_id) {
            _ if !is_shown => false,
            (Some(_), known) | (None, known) => {
                known.as_ref().is_some_and(|known| known.has_result)
            }
        };
        if let Some(response) = result
            && !had_result
        {
            let is_error = failure.is_some() || response.get("isError").is_some_and(is_truthy);
            told.push(Increment {
                invocation_id: invocation.to_owned(),
                what: Told::ToolResult {
                    id: id.clone(),
                    name: name.clone(),
                    response,
                    is_error,
                    at_ns: end_ns,
                },
            });
        }
        let shown = Arc::new(ShownCall {
            invocation: invocation.to_owned(),
            id,
            name,
            has_result: had_result || has_own_result,
        });
        self.calls.put(key, Arc::clone(&shown));
        self.calls.put(per_span, Arc::clone(&shown));
        if let Some(parent) = &span.parent_id {
            self.calls.put(hash(&["around", parent]), shown);
        }
    }

    /// A step between two spans of one tool call.
    fn pass_on(&mut self, span: &Span) {
        for (place, from, to) in [
            ("around", Some(&span.id), span.parent_id.as_ref()),
            ("tool", span.parent_id.as_ref(), Some(&span.id)),
        ] {
            if let (Some(from), Some(to)) = (from, to)
                && let Some(call) = self.calls.get(hash(&[place, from])).cloned()
            {
                self.calls.put(hash(&[place, to]), call);
            }
        }
    }

    /// The call that a tool runs, as the model asked for it: by id, by name and arguments, by name.
    fn take_pending(&mut self, tool: &Tool) -> Option<Pending> {
        let is_handoff = |name: &str| name.starts_with("transfer_") || name.starts_with("handoff");
        let passes: [&dyn Fn(&Pending) -> bool; 4] = [
            &|asked| asked.id.is_some() && asked.id == tool.call_id,
            &|asked| asked.name == tool.name && Some(&asked.args) == tool.arguments.as_ref(),
            &|asked| asked.name == tool.name && (asked.id.is_none() || tool.call_id.is_none()),
            &|asked| tool.kind == ToolKind::Handoff && is_handoff(&asked.name),
        ];
        let at = passes
            .iter()
            .find_map(|pass| self.pending.iter().position(pass))?;
        self.pending.remove(at)
    }

    /// A model is given what a tool said: by then it ran, whether or not a span tells. `elsewhere`: the call may have been told of in another trace; then the result is of this invocation.
    fn told_by_model(
        &mut self,
        result: &ToolSaid,
        elsewhere: Option<&str>,
        at_ns: u64,
        told: &mut Vec<Increment>,
    ) {
        let waiting = self
            .pending
            .iter()
            .position(|asked| asked.id.as_ref() == Some(&result.id));
        if let Some(asked) = waiting.and_then(|at| self.pending.remove(at)) {
            self.show(asked, told);
        }
        let key = hash(&[&result.id]);
        let known = self.calls.get(key).cloned();
        let known = known.or_else(|| {
            Some(Arc::new(ShownCall {
                invocation: elsewhere?.to_owned(),
                id: result.id.clone(),
                name: result.name.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
                has_result: false,
            }))
        });
        let Some(call) = known.filter(|call| !call.has_result) else {
            return;
        };
        told.push(Increment {
            invocation_id: call.invocation.clone(),
            what: Told::ToolResult {
                id: call.id.clone(),
                name: call.name.clone(),
                response: response(parse_text(&result.text)),
                is_error: false,
                at_ns,
            },
        });
        let mut answered = call.as_ref().clone();
        answered.has_result = true;
        self.calls.put(key, Arc::new(answered));
    }

    fn show(&mut self, asked: Pending, told: &mut Vec<Increment>) {
        let id = asked.id.unwrap_or_else(|| UNKNOWN.to_owned());
        if id != UNKNOWN {
            let shown = ShownCall {
                invocation: asked.invocation.clone(),
                id: id.clone(),
                name: asked.name.clone(),
                has_result: false,
            };
            self.calls.put(hash(&[&id]), Arc::new(shown));
        }
        told.push(Increment {
            invocation_id: asked.invocation,
            what: Told::ToolCall {
                id,
                name: asked.name,
                args: asked.args,
                tool_type: None,
                description: None,
                at_ns: asked.at_ns,
            },
        });
    }

    fn show_all_pending(&mut self, told: &mut Vec<Increment>) {
        while let Some(asked) = self.pending.pop_front() {
            self.show(asked, told);
        }
    }

    /// An agent's or workflow's own words: of a root when the model calls did not say them, of others only when nobody did.
    fn step(&mut self, span: &Span, end_ns: u64, told: &mut Vec<Increment>) {
        let said = digest_step(span);
        let invocation = cut(span.invocation_id.as_ref().unwrap_or(&span.id));
        let question = said.question.filter(|text| !text.trim().is_empty());
        let answer = said
            .answer
            .filter(|text| !text.trim().is_empty() && span.failure.is_none());
        if span.parent_id.is_some() {
            if span.kind == Kind::Agent {
                let words = |text: String, at_ns| Some((text, at_ns, invocation.clone()));
                if let Some(text) = question
                    && self.agents.question.is_none()
                {
                    self.agents.question = words(text, span.start_ns);
                }
                if let Some(text) = answer {
                    self.agents.answer = words(text, end_ns);
                }
            }
            return;
        }
        if let Some(text) = question {
            self.ask_once_in_turn(text, span.start_ns, &invocation, told);
        }
        if let Some(text) = answer {
            self.answer(text, &invocation, end_ns, told);
        }
    }

    fn ask_once_in_turn(
        &mut self,
        text: String,
        at_ns: u64,
        invocation: &str,
        told: &mut Vec<Increment>,
    ) {
        let key = text_hash(&text);
        if self.questions.get(key) == Some(&self.turns) {
            return;
        }
        let question = Question {
            history: said_after(0, 'u', key),
            text,
            is_past: false,
            at_ns,
        };
        self.ask(question, invocation, told);
        self.questions.put(key, self.turns);
    }

    fn speak_for_agents(&mut self, told: &mut Vec<Increment>) {
        let words = std::mem::take(&mut self.agents);
        if let Some((text, at_ns, invocation)) = words.question
            && !self.spoke_in_turn.0
        {
            self.ask_once_in_turn(text, at_ns, &invocation, told);
        }
        if let Some((text, at_ns, invocation)) = words.answer
            && !self.spoke_in_turn.1
        {
            self.answer(text, &invocation, at_ns, told);
        }
    }

    fn log(&mut self, log: Log, told: &mut Vec<Increment>) {
        if log.input.is_empty() && log.output.is_empty() {
            return;
        }
        let of = log.span_id.as_deref().map(cut).unwrap_or_default();
        // The span itself told it, or another record.
        if !of.is_empty() && self.spoken.get(hash(&[&of])).is_some() {
            return;
        }
        let invocation = match of.is_empty() {
            false => Some(of.clone()),
            true => self.current.clone(),
        };
        let Some(burst) = self.burst(&of, invocation.clone()) else {
            return;
        };
        for message in &log.input {
            burst.add(message, log.time_ns);
        }
        if log.output.is_empty() {
            return;
        }
        let Some(invocation) = burst.invocation.clone().or(invocation) else {
            // No span has come that could say of what turn this is; the first one will.
            for message in &log.output {
                burst.add(message, log.time_ns);
            }
            return;
        };
        if let Some(burst) = self.take_burst(&of) {
            self.tell_burst(burst, Some(&log.output), &invocation, log.time_ns, told);
        }
        if !of.is_empty() {
            self.spoken.put(hash(&[&of]), ());
        }
    }

    fn burst(&mut self, of: &str, invocation: Option<String>) -> Option<&mut Burst> {
        if let Some(at) = self.bursts.iter().position(|(known, _)| known == of)
            && let Some(known) = self.bursts.remove(at)
        {
            self.bursts.push_back(known);
        } else {
            if self.bursts.len() >= MAX_BURSTS {
                self.bursts.pop_front();
            }
            let burst = Burst {
                invocation,
                ..Burst::default()
            };
            self.bursts.push_back((of.to_owned(), burst));
        }
        self.bursts.back_mut().map(|(_, burst)| burst)
    }

    fn take_burst(&mut self, of: &str) -> Option<Burst> {
        let at = self.bursts.iter().position(|(known, _)| known == of)?;
        self.bursts.remove(at).map(|(_, burst)| burst)
    }

    /// What log records said of a call; its answer is what came last, if none is given. Whether there was an answer.
    fn tell_burst(
        &mut self,
        mut burst: Burst,
        output: Option<&[Message]>,
        invocation: &str,
        end_ns: u64,
        told: &mut Vec<Increment>,
    ) -> bool {
        let tail = burst.tail.take();
        let said = match (output, tail) {
            (Some(output), tail) => {
                if let (Some(_), Some(question)) = (tail, &mut burst.question) {
                    question.is_past = true;
                }
                digest(&[], output)
            }
            (None, Some(tail)) => digest(&[], &[tail]),
            (None, None) => Said::default(),
        };
        let calls = asked_for(&said);
        let is_answered = said.answer.is_some() || !calls.is_empty();
        if let Some(question) = burst.question {
            let is_new = self.is_asked_anew(&question, true);
            self.remember(&question);
            if is_new {
                self.ask(question, invocation, told);
            }
        }
        for result in &burst.results {
            self.told_by_model(result, Some(invocation), burst.at_ns, told);
        }
        if let Some(answer) = said.answer {
            self.answer(answer, invocation, end_ns, told);
        }
        for (id, name, args) in calls {
            let is_shown = id
                .as_ref()
                .is_some_and(|id| self.calls.get(hash(&[id])).is_some());
            if !is_shown {
                let asked = Pending {
                    invocation: invocation.to_owned(),
                    id,
                    name,
                    args,
                    at_ns: end_ns,
                };
                self.show(asked, told);
            }
        }
        is_answered
    }

    fn native(&mut self, event: Native, seq: u64, told: &mut Vec<Increment>) {
        let at_ns = event.timestamp_ms.saturating_mul(1_000_000);
        let above = event.parent_span_id.as_ref().or(event.span_id.as_ref());
        let invocation = match (above, &self.current) {
            (Some(above), _) => cut(above),
            (None, Some(current)) => current.clone(),
            (None, None) => format!("event:{seq}"),
        };
        self.current.get_or_insert_with(|| invocation.clone());
        let event_type = event.event_type.as_str();
        let failed = event.failure.is_some();
        let question = event.inputs.as_ref().and_then(question_in);
        let answer = event.outputs.as_ref().and_then(answer_in);
        match event_type {
            "tool_call_started" | "tool_call_completed" | "tool_call_failed" => {
                self.native_tool(&event, &invocation, at_ns, told);
            }
            "llm_call_started" | "llm_call_completed" | "llm_call_failed" => {
                if let Some(text) = question {
                    self.ask_once_in_turn(text, at_ns, &invocation, told);
                }
                if event_type == "llm_call_started" {
                    return;
                }
                if let Some(text) = answer.filter(|_| !failed) {
                    self.answer(text, &invocation, at_ns, told);
                }
                let named = event.call_id.as_ref().or(event.span_id.as_ref());
                let key = named.map(|id| hash(&["native", id]));
                let is_counted = key.is_some_and(|key| self.counted.get(key).is_some());
                if let Some(usage) = event.usage.filter(counts)
                    && !is_counted
                {
                    told.push(tokens(&invocation, usage, event.model.as_ref()));
                    if let Some(key) = key {
                        self.counted.put(key, ());
                    }
                }
            }
            "workflow_started" | "task_started" => {
                if let Some(text) = question {
                    self.ask_once_in_turn(text, at_ns, &invocation, told);
                }
            }
            "workflow_completed" | "task_completed" => {
                if let Some(text) = answer.filter(|_| !failed) {
                    self.answer(text, &invocation, at_ns, told);
                }
                if event_type == "workflow_completed" {
                    self.turns += 1;
                    self.rounds += 1;
                    self.spoke_in_turn = (false, false);
                    self.current = None;
                }
            }
            _ => {}
        }
    }

    fn native_tool(
        &mut self,
        event: &Native,
        invocation: &str,
        at_ns: u64,
        told: &mut Vec<Increment>,
    ) {
        let tool = event.tool.clone().unwrap_or_default();
        let name = match (tool.name.is_empty(), &event.name) {
            (false, _) => cut(&tool.name),
            (true, Some(name)) => cut(name),
            (true, None) => return,
        };
        let begins = event.event_type == "tool_call_started";
        let named = tool
            .call_id
            .as_ref()
            .or(event.call_id.as_ref())
            .or(event.span_id.as_ref());
        let id = match named {
            Some(id) => cut(id),
            None if begins => {
                let id = format!("{invocation}:{name}:{at_ns}:{}", self.running.len());
                if self.running.len() >= MAX_PENDING {
                    self.running.pop_front();
                }
                self.running.push_back((name.clone(), id.clone()));
                id
            }
            None => {
                let at = self.running.iter().position(|(known, _)| *known == name);
                let began = at.and_then(|at| self.running.remove(at));
                began.map_or_else(|| format!("{invocation}:{name}:{at_ns}"), |(_, id)| id)
            }
        };
        let key = hash(&[&id]);
        let known = self.calls.get(key).cloned();
        if known.is_none() {
            told.push(Increment {
                invocation_id: invocation.to_owned(),
                what: Told::ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    args: tool.arguments.clone().unwrap_or_else(|| json!({})),
                    tool_type: tool.tool_type.clone(),
                    description: None,
                    at_ns,
                },
            });
        }
        let mut has_result = known.is_some_and(|known| known.has_result);
        let failure = event.failure.as_ref();
        let result = tool.result.map(response).or_else(|| {
            let failure = failure?;
            Some(json!({"error": failure.message}))
        });
        if let Some(response) = result.filter(|_| !has_result && !begins) {
            has_result = true;
            told.push(Increment {
                invocation_id: invocation.to_owned(),
                what: Told::ToolResult {
                    id: id.clone(),
                    name: name.clone(),
                    response,
                    is_error: failure.is_some(),
                    at_ns,
                },
            });
        }
        let shown = ShownCall {
            invocation: invocation.to_owned(),
            id,
            name,
            has_result,
        };
        self.calls.put(key, Arc::new(shown));
    }
}

impl<'a> Call<'a> {
    fn of(span: &Span, said: Said, invocation: &'a str, end_ns: u64) -> Self {
        let asks = |message: &Message| message.role == "user" && !message.text.trim().is_empty();
        let asked_at = span.input.iter().rposition(asks);
        let is_past = asked_at.is_some_and(|at| {
            let after = span.input.iter().skip(at + 1);
            let mut after = after.filter(|message| message.role != "system");
            after.any(|message| message.role != "user")
        });
        let mut history = 0;
        let mut up_to_question = 0;
        for Line(who, text) in &said.outline {
            history = said_after(history, *who, *text);
            if *who == 'u' {
                up_to_question = history;
            }
        }
        let calls = asked_for(&said);
        let question = said.question.map(|text| Question {
            text,
            history: up_to_question,
            is_past,
            at_ns: span.start_ns,
        });
        let answering = span
            .input
            .iter()
            .rposition(|message| message.role == "assistant" && !message.tool_calls.is_empty());
        let asked = answering.and_then(|at| span.input.get(at));
        let name_of = |id: &str| {
            let mut calls = asked?.tool_calls.iter();
            let call = calls.find(|call| call.id.as_deref() == Some(id))?;
            Some(cut(&call.name))
        };
        let results = span
            .input
            .iter()
            .skip(answering.map_or(0, |at| at + 1))
            .filter_map(|message| {
                let id = message.tool_call_id.as_deref()?;
                Some(ToolSaid {
                    id: cut(id),
                    name: name_of(id),
                    text: message.text.clone(),
                })
            })
            .collect();
        Self {
            invocation,
            is_bare: span.parent_id.is_none(),
            question,
            outline: said.outline,
            answer: said.answer,
            answer_hash: said.answer_hash,
            calls,
            results,
            start_ns: span.start_ns,
            end_ns,
        }
    }
}

impl Burst {
    fn add(&mut self, message: &Message, at_ns: u64) {
        if let Some(tail) = self.tail.take() {
            // More followed: it is of the history.
            if let Some(question) = &mut self.question {
                question.is_past = true;
            }
            if tail.tool_calls.is_empty() {
                self.history = said_after(self.history, 'a', text_hash(&tail.text));
            }
            self.results.clear();
        }
        self.at_ns = at_ns;
        match message.role.as_str() {
            "user" if !message.text.trim().is_empty() => {
                self.history = said_after(self.history, 'u', text_hash(&message.text));
                self.results.clear();
                self.question = Some(Question {
                    text: shorten(message.text.clone(), MAX_TEXT_BYTES),
                    history: self.history,
                    is_past: false,
                    at_ns,
                });
            }
            "assistant" => {
                let mut message = message.clone();
                message.text = shorten(message.text, MAX_TEXT_BYTES);
                message.thinking = None;
                for call in &message.tool_calls {
                    if let Some(id) = &call.id {
                        self.names.push_back((cut(id), cut(&call.name)));
                    }
                }
                while self.names.len() > MAX_RESULTS {
                    self.names.pop_front();
                }
                self.tail = Some(message);
            }
            _ => {
                if let Some(id) = &message.tool_call_id
                    && self.results.len() < MAX_RESULTS
                {
                    let text = shorten(message.text.clone(), MAX_RESULT_BYTES);
                    let mut names = self.names.iter();
                    let name = names.find(|(known, _)| known == id);
                    let name = name.map(|(_, name)| name.clone());
                    let id = cut(id);
                    self.results.push(ToolSaid { id, name, text });
                    if let Some(question) = &mut self.question {
                        question.is_past = true;
                    }
                }
            }
        }
    }
}

/// A call of the same invocation holds new words of the user: they stand after the answer that the call before gave, which was asked something before that.
fn follows(last: LastCall, question: &Question, outline: &[Line]) -> bool {
    if last.answer == 0 {
        return false;
    }
    let answered = outline
        .iter()
        .rposition(|line| line.0 == 'a' && line.1 == last.answer);
    let Some(answered) = answered else {
        return false;
    };
    let asked = text_hash(&question.text);
    let mut after = outline.iter().skip(answered + 1);
    let mut before = outline.iter().take(answered);
    after.any(|line| *line == Line('u', asked))
        && before.any(|line| line.0 == 'u' && last.question == Some(line.1))
}

fn asked_for(said: &Said) -> Vec<(Option<String>, String, Value)> {
    let calls = said.calls.iter();
    calls
        .map(|call| {
            let args = serde_json::from_str(&call.arguments).unwrap_or(Value::Null);
            (call.id.clone(), call.name.clone(), args)
        })
        .collect()
}

/// A tool's answer as the dialect has it: an object.
fn response(result: Value) -> Value {
    match result {
        Value::Object(_) => result,
        Value::String(text) => json!({"result": text}),
        other => json!({"result": other.to_string()}),
    }
}

fn tokens(invocation: &str, usage: Usage, model: Option<&String>) -> Increment {
    Increment {
        invocation_id: invocation.to_owned(),
        what: Told::Tokens {
            input: usage.input,
            output: usage.output,
            model: model.cloned(),
        },
    }
}

fn counts(usage: &Usage) -> bool {
    usage.input > 0 || usage.output > 0
}

fn is_nothing(args: &Value) -> bool {
    args.is_null() || args.as_object().is_some_and(Map::is_empty)
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn cut(name: &str) -> String {
    shorten(name.to_owned(), MAX_NAME_BYTES)
}

fn hash(parts: &[&str]) -> u64 {
    parts.iter().fold(parts.len() as u64, |all, part| {
        all.rotate_left(23).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ xxh3_64(part.as_bytes())
    })
}

fn said_after(history: u64, who: char, text: u64) -> u64 {
    let mut bytes = [u8::from(who == 'u'); 17];
    let parts = [history.to_le_bytes(), text.to_le_bytes()];
    for (to, from) in bytes.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    xxh3_64(&bytes)
}

/// The last so many things, by the hash of what they are known by.
#[derive(Debug)]
enum Recent<V> {
    /// Most traces are a turn: what is known of one is looked through.
    Few(Vec<(u64, V)>),
    Many {
        by_key: HashMap<u64, V, foldhash::fast::RandomState>,
        order: VecDeque<u64>,
    },
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<V> Recent<V> {
    const FEW: usize = 32;

    fn get(&self, key: u64) -> Option<&V> {
        match self {
            Self::Few(all) => {
                let found = all.iter().rev().find(|(known, _)| *known == key)?;
                Some(&found.1)
            }
            Self::Many { by_key, .. } => by_key.get(&key),
        }
    }

    fn put(&mut self, key: u64, value: V) {
        if let Self::Few(all) = self {
            if let Some((_, known)) = all.iter_mut().rev().find(|(known, _)| *known == key) {
                *known = value;
                return;
            }
            if all.len() < Self::FEW {
                all.push((key, value));
                return;
            }
            let order = all.iter().map(|(key, _)| *key).collect();
            let by_key = all.drain(..).collect();
            *self = Self::Many { by_key, order };
        }
        if let Self::Many { by_key, order } = self {
            if by_key.insert(key, value).is_none() {
                order.push_back(key);
            }
            if order.len() > REMEMBERED
                && let Some(first) = order.pop_front()
            {
                by_key.remove(&first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observed::{Context, Observation};
    use crate::wire;
    use proptest::prelude::*;

    #[test]
    fn the_last_so_many_are_remembered() {
        let mut recent = Recent::default();
        for round in [1, 2] {
            for key in 0..2 * REMEMBERED as u64 {
                recent.put(key, key * round);
                assert_eq!(recent.get(key), Some(&(key * round)));
                recent.put(key, key);
                let first = key.saturating_sub(REMEMBERED as u64 - 1);
                assert_eq!(recent.get(first), Some(&first), "{key}");
                if let Some(gone) = first.checked_sub(1) {
                    assert_eq!(recent.get(gone), None);
                }
            }
        }
    }

    fn any(value: &Value) -> wire::AnyValue {
        let value = match value {
            Value::Number(number) => wire::any_value::Value::Int(number.as_i64().unwrap_or(0)),
            Value::Object(fields) => wire::any_value::Value::Map(wire::KeyValueList {
                values: pairs(fields),
            }),
            Value::String(text) => wire::any_value::Value::String(text.as_str().into()),
            Value::Array(items) => wire::any_value::Value::Array(wire::ArrayValue {
                values: items.iter().map(any).collect(),
            }),
            other => wire::any_value::Value::String(other.to_string().into()),
        };
        wire::AnyValue { value: Some(value) }
    }

    fn pairs(fields: &Map<String, Value>) -> Vec<wire::KeyValue> {
        let fields = fields.iter();
        fields
            .map(|(key, value)| wire::KeyValue {
                key: key.as_str().into(),
                value: Some(any(value)),
            })
            .collect()
    }

    fn span(id: u8, parent: u8, attributes: &Value) -> What {
        What::Span(Arc::new(wire::Span {
            span_id: vec![id; 8].into(),
            parent_span_id: vec![parent; if parent == 0 { 0 } else { 8 }].into(),
            name: "step".to_owned(),
            start_time_unix_nano: u64::from(id) * 10,
            end_time_unix_nano: u64::from(id) * 10 + 5,
            attributes: attributes.as_object().map(pairs).unwrap_or_default(),
            ..wire::Span::default()
        }))
    }

    fn chat(id: u8, parent: u8, asked: &Value, answered: &Value) -> What {
        span(
            id,
            parent,
            &json!({
                "gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
                "gen_ai.input.messages": asked.to_string(),
                "gen_ai.output.messages": answered.to_string(),
            }),
        )
    }

    fn log(name: &str, body: &Value) -> What {
        What::Log(Arc::new(wire::LogRecord {
            time_unix_nano: 7,
            event_name: name.to_owned(),
            body: Some(any(body)),
            ..wire::LogRecord::default()
        }))
    }

    fn native(event: &Value) -> What {
        What::Native(event.to_string().into())
    }

    fn read(extractor: &mut Extractor, whats: &[What]) -> Vec<Increment> {
        let mut told = Vec::new();
        for (seq, what) in (1..).zip(whats) {
            told.extend(extractor.apply(&Recorded {
                seq,
                arrived_unix_ms: 1,
                observation: Observation {
                    context: std::sync::Arc::new(Context::default()),
                    what: what.clone(),
                },
            }));
        }
        told
    }

    fn short(told: &[Increment]) -> Vec<String> {
        let told = told.iter().map(|told| match &told.what {
            Told::UserInput { text, .. } => format!("user {text}"),
            Told::AgentResponse { text, .. } => format!("agent {text}"),
            Told::ToolCall { id, name, args, .. } => format!("call {id} {name} {args}"),
            Told::ToolResult {
                id,
                name,
                response,
                is_error,
                ..
            } => {
                let error = if *is_error { " failed" } else { "" };
                format!("result {id} {name} {response}{error}")
            }
            Told::Tokens { input, output, .. } => format!("tokens {input} {output}"),
        });
        told.collect()
    }

    #[track_caller]
    fn check(whats: &[What], expected: &[&str]) {
        let mut extractor = Extractor::default();
        let mut told = read(&mut extractor, whats);
        told.extend(extractor.finish());
        assert_eq!(short(&told), expected);
    }

    #[test]
    fn log_records_that_name_no_span_are_of_the_call_that_comes_next() {
        let call = json!({"id": "c", "name": "roll", "arguments": {"n": 6}});
        let bare = || {
            span(
                1,
                0,
                &json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}),
            )
        };
        check(
            &[
                log("gen_ai.user.message", &json!({"content": "Roll"})),
                log(
                    "gen_ai.choice",
                    &json!({"message": {"tool_calls": json!([call])}}),
                ),
                bare(),
                log("gen_ai.user.message", &json!({"content": "Roll"})),
                log(
                    "gen_ai.assistant.message",
                    &json!({"tool_calls": json!([call])}),
                ),
                log("gen_ai.tool.message", &json!({"id": "c", "content": "4"})),
                log("gen_ai.choice", &json!({"message": {"content": "A 4."}})),
            ],
            &[
                "user Roll",
                r#"call c roll {"n":6}"#,
                r#"result c roll {"result":"4"}"#,
                "agent A 4.",
            ],
        );
    }

    #[test]
    fn a_question_that_is_said_again_is_told_again() {
        let (yes, ok) = (
            json!({"role": "user", "content": "yes"}),
            json!({"role": "assistant", "content": "ok"}),
        );
        let root = |id| span(id, 0, &json!({"gen_ai.operation.name": "invoke_agent"}));
        let first = json!([yes]);
        let second = json!([yes, ok, yes]);
        let answer = json!([ok]);
        // Within one turn the second agent is asked the same; in the next turn it is said again, without a history and with one.
        check(
            &[
                chat(1, 9, &first, &answer),
                chat(2, 8, &first, &answer),
                root(9),
                chat(3, 7, &first, &answer),
                root(7),
                chat(4, 6, &second, &answer),
                root(6),
            ],
            &[
                "user yes", "agent ok", "user yes", "agent ok", "user yes", "agent ok",
            ],
        );
    }

    #[test]
    fn a_call_without_a_span_is_told_once_it_is_known_to_have_run() {
        let user = json!({"role": "user", "content": "Roll"});
        let asks = json!({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "roll", "arguments": "{\"n\":6}"}}]});
        let got = json!({"role": "tool", "tool_call_id": "c", "content": "4"});
        let done = json!({"role": "assistant", "content": "A 4."});
        check(
            &[
                chat(1, 9, &json!([user]), &json!([asks])),
                chat(2, 9, &json!([user, asks, got]), &json!([done])),
                span(9, 0, &json!({"gen_ai.operation.name": "invoke_agent"})),
            ],
            &[
                "user Roll",
                r#"call c roll {"n":6}"#,
                r#"result c roll {"result":"4"}"#,
                "agent A 4.",
            ],
        );
        // Nothing ran it: known when the turn ends.
        check(
            &[chat(1, 9, &json!([user]), &json!([asks]))],
            &["user Roll", r#"call c roll {"n":6}"#],
        );
    }

    #[test]
    fn a_tool_that_failed_is_told_with_its_error() {
        let tool = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "roll", "gen_ai.tool.call.id": "c"});
        let mut failed = span(1, 2, &tool);
        if let What::Span(span) = &mut failed {
            Arc::make_mut(span).status = Some(wire::Status {
                message: "lost".to_owned(),
                code: 2,
            });
        }
        check(
            &[failed.clone(), failed],
            &["call c roll {}", r#"result c roll {"error":"lost"} failed"#],
        );
    }

    #[test]
    fn native_events_are_told_too() {
        check(
            &[
                native(&json!({"event_type": "workflow_started", "inputs": {"question": "Roll"}})),
                native(
                    &json!({"event_type": "tool_call_started", "tool": "roll", "tool_name": "roll", "arguments": {"n": 6}}),
                ),
                native(
                    &json!({"event_type": "tool_call_completed", "tool_name": "roll", "result": 4}),
                ),
                native(&json!({"event_type": "workflow_completed", "outputs": {"answer": "A 4."}})),
            ],
            &[
                "user Roll",
                r#"call event:1:roll:1000000:0 roll {"n":6}"#,
                r#"result event:1:roll:1000000:0 roll {"result":"4"}"#,
                "agent A 4.",
            ],
        );
    }

    fn what() -> impl Strategy<Value = What> {
        let roles = prop_oneof![Just("user"), Just("assistant"), Just("tool"), Just("x")];
        let text = prop_oneof![Just("yes"), Just(""), Just("ok"), Just("[1]")];
        let message = (roles, text, 0u8..4).prop_map(|(role, text, id)| {
            let calls = json!([{"id": format!("c{id}"), "name": "t", "arguments": {"n": id}}]);
            match id {
                0 => json!({"role": role, "content": text}),
                1 => json!({"role": role, "content": text, "tool_call_id": "c2"}),
                _ => json!({"role": role, "content": text, "tool_calls": calls}),
            }
        });
        let messages = proptest::collection::vec(message, 0..5).prop_map(Value::from);
        let kinds = prop_oneof![
            Just("chat"),
            Just("execute_tool"),
            Just("invoke_agent"),
            Just("x")
        ];
        let events = prop_oneof![
            Just("gen_ai.user.message"),
            Just("gen_ai.assistant.message"),
            Just("gen_ai.tool.message"),
            Just("gen_ai.choice"),
            Just("x"),
        ];
        prop_oneof![
            (0u8..6, 0u8..6, kinds, messages.clone(), messages.clone()).prop_map(
                |(id, parent, kind, asked, answered)| {
                    span(id, parent, &json!({
                        "gen_ai.operation.name": kind, "gen_ai.request.model": "m", "gen_ai.tool.name": "t",
                        "gen_ai.usage.input_tokens": 3, "gen_ai.input.messages": asked.to_string(),
                        "gen_ai.output.messages": answered.to_string(),
                    }))
                }
            ),
            (events, messages, 0u8..3).prop_map(|(name, messages, id)| {
                let body = messages.get(0).cloned().unwrap_or_default();
                let mut what = log(name, &body);
                if let What::Log(record) = &mut what {
                    Arc::make_mut(record).span_id = vec![id; if id == 0 { 0 } else { 8 }].into();
                }
                what
            }),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: nothing panics, a result is an object, and a reader that begins anew tells the same.
        #[test]
        fn any_order_is_told_soundly(whats in proptest::collection::vec(what(), 0..24)) {
            let told = read(&mut Extractor::default(), &whats);
            prop_assert_eq!(&told, &read(&mut Extractor::default(), &whats));
            for (at, increment) in told.iter().enumerate() {
                if let Told::Tokens { input, .. } = increment.what {
                    prop_assert_eq!(input, 3);
                }
                if let Told::ToolResult { response, .. } = &increment.what {
                    prop_assert!(response.is_object(), "{}", at);
                }
            }
        }
    }
}
