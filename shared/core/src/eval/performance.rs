//! How long a run took, what it used and what it called.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::fold::State;
use crate::model::Kind;
use crate::pricing::{Cost, Costs, Prices};
use crate::run::Run;

/// Errors kept, for the details of `error_free`.
const MAX_ERRORS: usize = 20;

/// What metrics and reports know of a trace beside what was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Performance {
    /// Milliseconds of each outermost agent's call, else of each root; of what has ended.
    pub overall_ms: Vec<f64>,
    /// Of each call to a model, counted once.
    pub llm_ms: Vec<f64>,
    /// Of each tool that ran.
    pub tool_ms: Vec<f64>,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    /// Input and output tokens of each call that told them.
    pub tokens_per_call: Vec<u64>,
    pub cache_creation_tokens: u64,
    pub cache_read_tokens: u64,
    pub llm_calls: usize,
    pub tool_calls: usize,
    pub invocations: usize,
    pub models: BTreeSet<String>,
    pub tool_names: BTreeSet<String>,
    /// US dollars over the calls with a known price; `None`: of none it is known.
    pub cost_usd: Option<f64>,
    /// Calls without a known price.
    pub unpriced_llm_calls: usize,
    /// The run's errors, each once where it arose: the step, and what it said.
    pub errors: Vec<(String, String)>,
    pub errors_count: usize,
    /// Whether the run as a whole failed by its errors.
    pub has_failed: bool,
}

impl Performance {
    /// Of a folded trace with so many turns; linear in its steps, but for sorting.
    pub fn of(state: &State, invocations: usize, prices: &Prices) -> Self {
        let run = Run::of(state);
        let mut performance = Self {
            invocations,
            ..Self::default()
        };
        let took_ms = |index: usize| -> Option<f64> {
            let facts = &run.steps.get(index)?.facts;
            let took = facts.end_ns?.saturating_sub(facts.start_ns);
            Some(took as f64 / 1e6)
        };

        let mut within_agent = vec![false; run.forest.parent.len()];
        let (mut agents, mut roots) = (Vec::new(), Vec::new());
        for (index, depth) in run.forest.depth_first() {
            let above = run.forest.parent.get(index).copied().flatten();
            let within = above.is_some_and(|above| within_agent.get(above) == Some(&true));
            let is_agent = run
                .steps
                .get(index)
                .is_some_and(|step| step.facts.kind == Kind::Agent);
            if is_agent && !within {
                agents.push(index);
            }
            if depth == 0 {
                roots.push(index);
            }
            if let Some(slot) = within_agent.get_mut(index) {
                *slot = within || is_agent;
            }
        }
        let outermost = if agents.is_empty() { roots } else { agents };
        performance.overall_ms = outermost.into_iter().filter_map(took_ms).collect();

        let calls = run.llm_calls();
        let mut costs = Costs::default();
        for call in &calls {
            performance.llm_ms.extend(took_ms(call.step));
            let usage = &call.usage;
            performance.prompt_tokens = performance.prompt_tokens.saturating_add(usage.input);
            performance.output_tokens = performance.output_tokens.saturating_add(usage.output);
            performance.cache_read_tokens = performance
                .cache_read_tokens
                .saturating_add(usage.cache_read);
            performance.cache_creation_tokens = performance
                .cache_creation_tokens
                .saturating_add(usage.cache_write);
            if usage.input + usage.output > 0 {
                performance
                    .tokens_per_call
                    .push(usage.input.saturating_add(usage.output));
            }
            let ended = run.steps.get(call.step).is_some_and(|step| !step.is_open());
            if ended || !usage.is_zero() {
                costs.add(call.cost(prices));
            }
            let model = call.request_model.or(call.response_model);
            performance.models.extend(model.map(str::to_owned));
        }
        performance.llm_calls = calls.len();
        performance.cost_usd = costs.known.map(Cost::usd);
        performance.unpriced_llm_calls = costs.unpriced;

        let tools = run.tool_calls(&calls);
        performance.tool_calls = tools.len();
        for tool in &tools {
            performance.tool_names.insert(tool.name.clone());
            performance.tool_ms.extend(tool.ran.and_then(took_ms));
        }
        let causes = run.causes();
        performance.errors_count = causes.len();
        performance.has_failed = run.has_failed();
        performance.errors = causes
            .into_iter()
            .take(MAX_ERRORS)
            .filter_map(|cause| {
                let name = run.steps.get(cause.step)?.facts.name.clone();
                let failure = cause.failure;
                let said = [failure.kind, failure.message]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(": ");
                Some((name, said))
            })
            .collect();
        performance
    }

    /// Adds what another trace of the same session took.
    pub fn add(&mut self, other: Self) {
        self.overall_ms.extend(other.overall_ms);
        self.llm_ms.extend(other.llm_ms);
        self.tool_ms.extend(other.tool_ms);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.tokens_per_call.extend(other.tokens_per_call);
        self.cache_creation_tokens = self
            .cache_creation_tokens
            .saturating_add(other.cache_creation_tokens);
        self.cache_read_tokens = self
            .cache_read_tokens
            .saturating_add(other.cache_read_tokens);
        self.llm_calls += other.llm_calls;
        self.tool_calls += other.tool_calls;
        self.invocations += other.invocations;
        self.models.extend(other.models);
        self.tool_names.extend(other.tool_names);
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (Some(one), Some(more)) => Some(one + more),
            (one, more) => one.or(more),
        };
        self.unpriced_llm_calls += other.unpriced_llm_calls;
        self.errors.extend(other.errors);
        self.errors.truncate(MAX_ERRORS);
        self.errors_count += other.errors_count;
        self.has_failed |= other.has_failed;
    }

    pub fn total_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.output_tokens)
    }

    /// The form of reports: durations in milliseconds, snake_case.
    pub fn to_json(&self) -> Value {
        let per_call: Vec<f64> = self.tokens_per_call.iter().map(|n| *n as f64).collect();
        json!({
            "latency": {
                "overall": statistics(&self.overall_ms),
                "llm_calls": statistics(&self.llm_ms),
                "tool_executions": statistics(&self.tool_ms),
            },
            "tokens": {
                "total_prompt": self.prompt_tokens,
                "total_output": self.output_tokens,
                "total": self.total_tokens(),
                "per_llm_call": statistics(&per_call),
                "cache_creation_tokens": self.cache_creation_tokens,
                "cache_read_tokens": self.cache_read_tokens,
            },
            "counts": {
                "llm_calls": self.llm_calls,
                "tool_calls": self.tool_calls,
                "invocations": self.invocations,
            },
            "models": self.models,
            "tool_names": self.tool_names,
        })
    }
}

/// Of all traces of a run together; `None` of none.
pub fn overall<'a>(traces: impl IntoIterator<Item = &'a Performance>) -> Option<Value> {
    let (mut count, mut prompt, mut output) = (0_u64, 0_u64, 0_u64);
    let (mut created, mut read, mut llm_calls, mut tool_calls) = (0_u64, 0_u64, 0_usize, 0_usize);
    let mut models: BTreeSet<&str> = BTreeSet::new();
    let mut medians = Vec::new();
    for trace in traces {
        count += 1;
        prompt = prompt.saturating_add(trace.prompt_tokens);
        output = output.saturating_add(trace.output_tokens);
        created = created.saturating_add(trace.cache_creation_tokens);
        read = read.saturating_add(trace.cache_read_tokens);
        llm_calls += trace.llm_calls;
        tool_calls += trace.tool_calls;
        models.extend(trace.models.iter().map(String::as_str));
        medians.extend(Order::of(&trace.overall_ms).map(|order| order.median));
    }
    if count == 0 {
        return None;
    }
    let per_trace = |sum: f64| sum / count as f64;
    let latency = Order::of(&medians).map_or_else(Map::new, |order| {
        let mut latency = Map::new();
        let values = json!({"p50": order.median, "p95": order.p95, "p99": order.p99});
        latency.insert("overall_per_trace".into(), values);
        latency
    });
    Some(json!({
        "tokens": {
            "total_prompt": prompt,
            "total_output": output,
            "total": prompt.saturating_add(output),
            "avg_per_trace": {"prompt": per_trace(prompt as f64), "output": per_trace(output as f64)},
            "cache_creation_tokens": created,
            "cache_read_tokens": read,
        },
        "latency": latency,
        "counts": {
            "traces": count,
            "total_llm_calls": llm_calls,
            "total_tool_calls": tool_calls,
            "avg_llm_calls_per_trace": per_trace(llm_calls as f64),
            "avg_tool_calls_per_trace": per_trace(tool_calls as f64),
        },
        "models": models,
        "trace_count": count,
    }))
}

struct Order {
    min: f64,
    median: f64,
    max: f64,
    p95: f64,
    p99: f64,
}

impl Order {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let at = |index: usize| sorted.get(index.min(n.saturating_sub(1))).copied();
        let upper = at(n / 2)?;
        let median = if n.is_multiple_of(2) {
            (at(n / 2 - 1)? + upper) / 2.0
        } else {
            upper
        };
        Some(Self {
            min: at(0)?,
            median,
            max: at(n - 1)?,
            p95: at((n as f64 * 0.95) as usize)?,
            p99: at((n as f64 * 0.99) as usize)?,
        })
    }
}

fn statistics(values: &[f64]) -> Value {
    let order = Order::of(values).unwrap_or(Order {
        min: 0.0,
        median: 0.0,
        max: 0.0,
        p95: 0.0,
        p99: 0.0,
    });
    json!({
        "min": order.min,
        "median": order.median,
        "max": order.max,
        "count": values.len(),
        "p50": order.median,
        "p95": order.p95,
        "p99": order.p99,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let found = statistics(&values);
        assert_eq!(found["median"], json!(10.5));
        assert_eq!(found["p95"], json!(20.0));
        assert_eq!(found["count"], json!(20));
        assert_eq!(statistics(&[])["max"], json!(0.0));
        assert_eq!(overall([]), None);
    }
}
