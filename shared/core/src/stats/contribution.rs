//! What one trace adds to the statistics of its tenant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::{Dimension, Figures, NAMES_OF_A_RUN, OTHER, SLOT_MS, counted_name, edge_name};
use crate::fold::State;
use crate::model::{Kind, ToolKind};
use crate::pricing::Prices;
use crate::run::{LlmCall, Run};
use crate::summary::plain_model;

/// The form of what is kept.
const FORMAT: u8 = 1;
/// What a kept contribution may unfold to: some millions of cells, far beyond what the fold holds.
const MAX_UNFOLDED_BYTES: u64 = 64 << 20;
/// What a model call counts under whose model nobody told.
const UNKNOWN_MODEL: &str = "(unknown)";

/// What is counted of a name in five minutes.
type Cells = BTreeMap<(Dimension, String, u64), Figures>;

/// What a trace adds, by dimension, name, and the five minutes in which a step ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    cells: Cells,
}

/// A cell in which two contributions differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub dimension: Dimension,
    pub name: String,
    /// Five minutes, counted from 1970.
    pub slot: u64,
    /// What is to be added, as [`Figures`] are written, with signs.
    pub delta: String,
}

/// What a trace adds: its steps that ended, each under the agent, edge, model or tool it was a step of.
///
/// - agent: its spans, one within another of the same name counted once; tokens and cost of the model calls that it made itself.
/// - edge: an agent's span below another agent's, and a hand-off; tokens and cost of the model calls right below it.
/// - model, tool: calls, each counted once however many spans tell of it.
///
/// Of each dimension the first [`NAMES_OF_A_RUN`] names by start have their own; a step that ended later than the last event arrived, by a clock that is ahead, counts as ended then. A model call counts as unpriced by the same rule as in a summary.
pub fn of(state: &State, prices: &Prices) -> Contribution {
    let run = Run::of(state);
    let mut counted = Counted {
        prices,
        latest_slot: state.last_arrival_unix_ms / SLOT_MS,
        names: HashMap::new(),
        cells: Cells::new(),
    };
    let calls = Calls::of(&run);
    for (index, caller) in &calls.invocations {
        let Some(step) = run.steps.get(*index) else {
            continue;
        };
        let callee = step.facts.agent.as_deref().unwrap_or(&step.facts.name);
        counted.step(&run, *index, Dimension::Agent, counted_name(callee));
        if let Some(caller) = caller {
            let edge = edge_name(caller, callee, &step.facts.name);
            counted.step(&run, *index, Dimension::Edge, edge);
        }
    }
    for (index, from, to) in handoffs(&run, &calls) {
        let name = run.steps.get(index).map_or("", |step| &step.facts.name);
        counted.step(&run, index, Dimension::Edge, edge_name(&from, &to, name));
    }
    for call in run.llm_calls() {
        let model = call.request_model.or(call.response_model);
        let name = counted_name(model.map_or(UNKNOWN_MODEL, plain_model));
        counted.step(&run, call.step, Dimension::Model, name.clone());
        counted.tokens(&run, &call, Dimension::Model, name);
        if let Some(agent) = run.agent_of.get(call.step).cloned().flatten() {
            counted.tokens(&run, &call, Dimension::Agent, counted_name(&agent));
        }
        if let Some((index, Some(caller))) = calls.above(call.step)
            && let Some(step) = run.steps.get(index)
        {
            let callee = step.facts.agent.as_deref().unwrap_or(&step.facts.name);
            let edge = edge_name(caller, callee, &step.facts.name);
            counted.tokens(&run, &call, Dimension::Edge, edge);
        }
    }
    for (name, index) in run.tools_that_ran() {
        counted.step(&run, index, Dimension::Tool, counted_name(&name));
    }
    Contribution {
        cells: counted.cells,
    }
}

/// The agents' spans that count as calls of them.
struct Calls {
    /// Parents before children: the step, and the agent that called.
    invocations: Vec<(usize, Option<String>)>,
    /// For every step the place in `invocations` of the nearest at or above it.
    nearest: Vec<Option<usize>>,
}

impl Calls {
    fn of(run: &Run) -> Self {
        let mut invocations: Vec<(usize, Option<String>)> = Vec::new();
        let mut nearest: Vec<Option<usize>> = vec![None; run.forest.parent.len()];
        for (index, _) in run.forest.depth_first() {
            let parent = run.forest.parent.get(index).copied().flatten();
            let above = parent.and_then(|parent| nearest.get(parent).copied().flatten());
            let mut here = above;
            if let Some(step) = run.steps.get(index)
                && step.facts.kind == Kind::Agent
                && !step.facts.made_up
                && !step.estimated
                && !run.is_a_graph(index)
                && !is_told_again(run, index, above.and_then(|at| invocations.get(at)))
            {
                let caller = parent.and_then(|parent| run.agent_of.get(parent).cloned().flatten());
                here = Some(invocations.len());
                invocations.push((index, caller));
            }
            if let Some(slot) = nearest.get_mut(index) {
                *slot = here;
            }
        }
        Self {
            invocations,
            nearest,
        }
    }

    /// The call of an agent that a step is part of: its step, and who called.
    fn above(&self, index: usize) -> Option<(usize, Option<&str>)> {
        let at = self.nearest.get(index).copied().flatten()?;
        let (step, caller) = self.invocations.get(at)?;
        Some((*step, caller.as_deref()))
    }
}

/// A span of the agent that is being called anyway, without a tool in between: the same call, seen by another instrumentation. A mesh's entries are a function each.
fn is_told_again(run: &Run, index: usize, above: Option<&(usize, Option<String>)>) -> bool {
    let name = |index: usize| {
        let facts = &run.steps.get(index)?.facts;
        Some(facts.agent.as_deref().unwrap_or(&facts.name))
    };
    let tool_above = |index: usize| run.tool_above.get(index).copied().flatten();
    let is_function = run
        .steps
        .get(index)
        .is_some_and(|step| step.facts.rule == "mesh:entry");
    above.is_some_and(|(above, _)| {
        !is_function && name(*above) == name(index) && tool_above(*above) == tool_above(index)
    })
}

/// Hand-offs whose agent does not run below them, as step, agent that hands over, agent that takes over.
fn handoffs(run: &Run, calls: &Calls) -> Vec<(usize, String, String)> {
    let runs_below: BTreeSet<usize> = calls
        .invocations
        .iter()
        .filter_map(|(index, _)| run.tool_above.get(*index).copied().flatten())
        .collect();
    let tools = run.tools_that_ran().into_iter();
    tools
        .filter_map(|(_, index)| {
            let tool = run.steps.get(index)?.facts.tool.as_ref()?;
            let is_handoff = tool.kind == ToolKind::Handoff && !runs_below.contains(&index);
            let from = run.agent_of.get(index)?.clone()?;
            let to = tool.target.clone().filter(|_| is_handoff)?;
            Some((index, from, to))
        })
        .collect()
}

struct Counted<'a> {
    prices: &'a Prices,
    latest_slot: u64,
    names: HashMap<Dimension, BTreeSet<String>>,
    cells: Cells,
}

impl Counted<'_> {
    fn step(&mut self, run: &Run, index: usize, dimension: Dimension, name: String) {
        let Some((step, end_ns)) = run
            .steps
            .get(index)
            .and_then(|step| Some((step, step.facts.end_ns?)))
        else {
            return;
        };
        let duration_ns = end_ns.saturating_sub(step.facts.start_ns);
        let failed = step.facts.failure.is_some();
        self.cell(dimension, name, end_ns)
            .record(duration_ns, failed);
    }

    fn tokens(&mut self, run: &Run, call: &LlmCall, dimension: Dimension, name: String) {
        let Some((step, end_ns)) = run
            .steps
            .get(call.step)
            .and_then(|step| Some((step, step.facts.end_ns?)))
        else {
            return;
        };
        // What failed before it used a token cost nothing.
        if call.usage.is_zero() && step.facts.failure.is_some() {
            return;
        }
        let cost = call.cost(self.prices);
        let figures = self.cell(dimension, name, end_ns);
        figures.input_tokens = figures.input_tokens.saturating_add(call.usage.input);
        figures.output_tokens = figures.output_tokens.saturating_add(call.usage.output);
        match cost {
            Some(cost) => {
                let nano_usd = (cost.pico_usd() + 500) / 1_000;
                figures.cost_nano_usd = figures.cost_nano_usd.saturating_add(nano_usd);
                figures.priced_calls = figures.priced_calls.saturating_add(1);
            }
            None => figures.unpriced_calls = figures.unpriced_calls.saturating_add(1),
        }
    }

    fn cell(&mut self, dimension: Dimension, name: String, end_ns: u64) -> &mut Figures {
        let names = self.names.entry(dimension).or_default();
        let name = match names.contains(&name) || names.len() < NAMES_OF_A_RUN {
            true => {
                names.insert(name.clone());
                name
            }
            false => OTHER.to_owned(),
        };
        let slot = (end_ns / 1_000_000 / SLOT_MS).min(self.latest_slot);
        self.cells.entry((dimension, name, slot)).or_default()
    }
}

/// A cell as it is written: dimension, name, slot, figures.
type Line = (char, String, u64, Figures);

fn letter(dimension: Dimension) -> char {
    match dimension {
        Dimension::Agent => 'a',
        Dimension::Edge => 'e',
        Dimension::Model => 'm',
        Dimension::Tool => 't',
    }
}

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    through: u64,
    lines: std::borrow::Cow<'a, [Line]>,
}

impl Contribution {
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// What was counted, by dimension, name and five minutes since 1970.
    pub fn cells(&self) -> impl Iterator<Item = (Dimension, &str, u64, &Figures)> {
        self.cells
            .iter()
            .map(|((dimension, name, slot), figures)| (*dimension, name.as_str(), *slot, figures))
    }

    /// Where `old` has to be changed to become this, by name.
    pub fn changes_from(&self, old: &Self) -> Vec<Change> {
        let nothing = Figures::default();
        let cells: BTreeSet<_> = self.cells.keys().chain(old.cells.keys()).collect();
        let changes = cells.into_iter().filter_map(|cell| {
            let new = self.cells.get(cell).unwrap_or(&nothing);
            let (dimension, name, slot) = cell.clone();
            let delta = new.change_from(old.cells.get(cell).unwrap_or(&nothing), slot)?;
            Some(Change {
                dimension,
                name,
                slot,
                delta,
            })
        });
        changes.collect()
    }

    /// Takes over from `new` what these changes name: after all of [`Contribution::changes_from`], it is `new`.
    pub fn take(&mut self, changes: &[Change], new: &Self) {
        for change in changes {
            let cell = (change.dimension, change.name.clone(), change.slot);
            match new.cells.get(&cell) {
                Some(figures) => self.cells.insert(cell, figures.clone()),
                None => self.cells.remove(&cell),
            };
        }
    }

    /// As it is kept, with the event it goes through.
    pub fn encode(&self, through: u64) -> Vec<u8> {
        let lines = self.cells().map(|(dimension, name, slot, figures)| {
            (letter(dimension), name.to_owned(), slot, figures.clone())
        });
        let lines = lines.collect::<Vec<_>>().into();
        // Numbers and names: none of it cannot be written.
        let text = serde_json::to_vec(&Kept { through, lines }).unwrap_or_default();
        let mut kept = vec![FORMAT];
        match zstd::bulk::compress(&text, 3) {
            Ok(packed) => kept.extend(packed),
            Err(_) => kept.clear(),
        }
        kept
    }

    /// What [`Contribution::encode`] wrote. `None`: it is none of ours.
    pub fn decode(kept: &[u8]) -> Option<(Self, u64)> {
        let (format, packed) = kept.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let mut text = Vec::new();
        let packed = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
        packed
            .take(MAX_UNFOLDED_BYTES)
            .read_to_end(&mut text)
            .ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        let cells = kept
            .lines
            .iter()
            .filter_map(|(short, name, slot, figures)| {
                let mut all = Dimension::ALL.into_iter();
                let dimension = all.find(|dimension| letter(*dimension) == *short)?;
                Some(((dimension, name.clone(), *slot), figures.clone()))
            });
        let cells = cells.collect();
        Some((Self { cells }, kept.through))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observed::{Context, Observation, Recorded, What};
    use crate::wire;

    /// Id, parent, start and end in ms, attributes; status 2 is a failure.
    struct Told<'a>(u8, u8, u64, u64, i32, &'a str, &'a [(&'a str, &'a str)]);

    fn state(spans: &[Told], arrived_unix_ms: u64) -> State {
        let mut state = State::default();
        for (seq, Told(id, parent, start, end, status, name, attributes)) in (1..).zip(spans) {
            let attributes = attributes.iter().map(|(key, value)| wire::KeyValue {
                key: (*key).into(),
                value: Some(wire::AnyValue {
                    value: Some(match value.parse::<i64>() {
                        Ok(number) => wire::any_value::Value::Int(number),
                        Err(_) => wire::any_value::Value::String((*value).into()),
                    }),
                }),
            });
            let span = wire::Span {
                span_id: vec![*id; 8].into(),
                parent_span_id: vec![*parent; if *parent == 0 { 0 } else { 8 }].into(),
                name: (*name).to_owned(),
                start_time_unix_nano: start * 1_000_000,
                end_time_unix_nano: end * 1_000_000,
                attributes: attributes.collect(),
                status: Some(wire::Status {
                    message: String::new(),
                    code: *status,
                }),
                ..wire::Span::default()
            };
            state.apply(&Recorded {
                seq,
                arrived_unix_ms,
                observation: Observation {
                    context: Arc::new(Context::default()),
                    what: What::Span(Arc::new(span)),
                },
            });
        }
        state
    }

    const PRICES: &str = r#"{"models": {"m-1": {"input": 2, "output": 10}}}"#;
    const AGENT: (&str, &str) = ("gen_ai.operation.name", "invoke_agent");
    const CHAT: (&str, &str) = ("gen_ai.operation.name", "chat");
    const TOOL: (&str, &str) = ("gen_ai.operation.name", "execute_tool");

    fn lines(contribution: &Contribution) -> Vec<String> {
        let cells = contribution
            .cells()
            .map(|(dimension, name, slot, figures)| {
                format!(
                    "{} {} @{slot}: {} calls, {} errors, {}+{} tokens, {} ms, {:?} USD",
                    dimension.as_str(),
                    name.replace('\u{1f}', ">"),
                    figures.calls,
                    figures.errors,
                    figures.input_tokens,
                    figures.output_tokens,
                    figures.total_us / 1000,
                    figures.cost_usd(),
                )
            });
        cells.collect()
    }

    #[test]
    fn steps_count_where_they_belong_and_when_they_ended() {
        let named = |name| ("gen_ai.agent.name", name);
        let model = ("gen_ai.request.model", "openai/m-1");
        let tokens = [
            ("gen_ai.usage.input_tokens", "100"),
            ("gen_ai.usage.output_tokens", "7"),
        ];
        let state = state(
            &[
                Told(
                    1,
                    0,
                    299_000,
                    302_000,
                    0,
                    "invoke_agent planner",
                    &[AGENT, named("planner")],
                ),
                // The same call, seen once more.
                Told(
                    2,
                    1,
                    299_000,
                    302_000,
                    0,
                    "planner.run",
                    &[AGENT, named("planner")],
                ),
                Told(
                    3,
                    2,
                    299_100,
                    299_600,
                    0,
                    "chat m-1",
                    &[CHAT, model, tokens[0], tokens[1]],
                ),
                Told(
                    4,
                    2,
                    299_700,
                    301_000,
                    0,
                    "execute_tool ask",
                    &[TOOL, ("gen_ai.tool.name", "ask")],
                ),
                Told(
                    5,
                    4,
                    299_700,
                    300_900,
                    2,
                    "invoke_agent writer",
                    &[AGENT, named("writer")],
                ),
                Told(
                    6,
                    5,
                    299_800,
                    300_800,
                    2,
                    "chat m-1",
                    &[CHAT, model, tokens[0], tokens[1]],
                ),
                // Not ended yet, and one by a clock that is ahead.
                Told(
                    7,
                    5,
                    299_800,
                    0,
                    0,
                    "execute_tool look",
                    &[TOOL, ("gen_ai.tool.name", "look")],
                ),
                Told(
                    8,
                    2,
                    301_000,
                    9_000_000,
                    0,
                    "execute_tool ask",
                    &[TOOL, ("gen_ai.tool.name", "ask")],
                ),
            ],
            700_000,
        );
        let contribution = of(&state, &Prices::parse(PRICES).unwrap());
        assert_eq!(
            lines(&contribution),
            [
                "agent planner @0: 0 calls, 0 errors, 100+7 tokens, 0 ms, Some(0.00027) USD",
                "agent planner @1: 1 calls, 0 errors, 0+0 tokens, 3000 ms, None USD",
                "agent writer @1: 1 calls, 1 errors, 100+7 tokens, 1200 ms, Some(0.00027) USD",
                "edge planner>writer>invoke_agent writer @1: 1 calls, 1 errors, 100+7 tokens, 1200 ms, Some(0.00027) USD",
                "model m-1 @0: 1 calls, 0 errors, 100+7 tokens, 500 ms, Some(0.00027) USD",
                "model m-1 @1: 1 calls, 1 errors, 100+7 tokens, 1000 ms, Some(0.00027) USD",
                "tool ask @1: 1 calls, 0 errors, 0+0 tokens, 1300 ms, None USD",
                "tool ask @2: 1 calls, 0 errors, 0+0 tokens, 8699000 ms, None USD",
            ]
        );
        let (read, through) = Contribution::decode(&contribution.encode(8)).unwrap();
        assert_eq!((read, through), (contribution, 8));
        assert_eq!(Contribution::decode(b"?"), None);
    }

    #[test]
    fn names_beyond_those_of_a_run_count_together() {
        let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
        let attributes: Vec<_> = names
            .iter()
            .map(|name| [TOOL, ("gen_ai.tool.name", name.as_str())])
            .collect();
        let spans: Vec<_> = (1u8..)
            .zip(&attributes)
            .map(|(id, told)| Told(id, 0, 1, 2, 0, "x", told))
            .collect();
        let contribution = of(&state(&spans, 10), &Prices::default());
        let calls = |wanted: &str| {
            let mut cells = contribution.cells();
            cells
                .find(|(_, name, ..)| *name == wanted)
                .map(|(.., figures)| figures.calls)
        };
        assert_eq!(contribution.cells().count(), NAMES_OF_A_RUN + 1);
        assert_eq!(
            (calls("t63"), calls("t64"), calls(OTHER)),
            (Some(1), None, Some(36))
        );
    }

    #[test]
    fn changes_in_any_number_of_steps_lead_from_the_old_to_the_new() {
        let cells = |seed: u64| {
            let mut cells = Cells::new();
            for n in 0..40u64 {
                let random = xxhash_rust::xxh3::xxh3_64(&(n * 7 + seed).to_le_bytes());
                let name = format!("n{}", random % 12);
                let figures: &mut Figures = cells
                    .entry((Dimension::Tool, name, random / 16 % 3))
                    .or_default();
                figures.record(random % 100_000_000, random.is_multiple_of(5));
            }
            Contribution { cells }
        };
        let (old, new) = (cells(0), cells(1_000));
        let changes = new.changes_from(&old);
        assert!(changes.len() > 10);
        let mut at = old.clone();
        for part in changes.chunks(7) {
            let left = new.changes_from(&at);
            assert_eq!(left.first(), part.first());
            at.take(part, &new);
        }
        assert_eq!(at, new);
    }
}
