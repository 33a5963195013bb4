//! A trace as a tree of rows, for who draws it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;

use crate::event::{EventUsage, duration_ms, rfc3339_ns};
use crate::fold::State;
use crate::model::Kind;
use crate::pricing::{Cost, Prices};
use crate::run::Run;

/// One line of a trace's tree, parents before children.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SpanRow))]
pub struct Row {
    pub span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// 0 for a root.
    pub depth: usize,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// running, ok or error.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::StepStatus))]
    pub status: &'static str,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// Of a model call: as asked for, else as answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Of a model call: the tokens that this span tells; of a call that is told twice, those of both are the same tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<EventUsage>,
    /// US dollars, on the one span of a call that is counted: the rows' sum is the summary's. Absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Of a failed step: the type of its error; empty when nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The span itself was never seen; its times are those of what it contains.
    pub estimated: bool,
    /// The rule that read it, as in its events; of an estimated one, what tells of it.
    pub convention: Cow<'static, str>,
}

/// The rule of a span of which only those in it tell, by naming it as their parent.
const NAMED_AS_PARENT: &str = "parent:named";

/// The trace as a tree, flattened depth first.
pub fn rows(state: &State, prices: &Prices) -> Vec<Row> {
    let run = Run::of(state);
    let counted: HashMap<usize, (crate::model::Usage, Option<Cost>)> = run
        .llm_calls()
        .iter()
        .map(|call| (call.step, (call.usage, call.cost(prices))))
        .collect();
    run.forest
        .depth_first()
        .into_iter()
        .map(|(index, depth)| {
            let parent_span_id = run
                .forest
                .parent
                .get(index)
                .copied()
                .flatten()
                .and_then(|above| run.id(above));
            match run.steps.get(index) {
                Some(step) => Row {
                    span_id: step.id.clone(),
                    parent_span_id,
                    depth,
                    name: step.facts.name.clone(),
                    kind: step.facts.kind.as_str(),
                    agent_name: step.facts.agent.clone(),
                    status: step.status(),
                    start_time: rfc3339_ns(step.facts.start_ns),
                    end_time: step.facts.end_ns.map(rfc3339_ns),
                    duration_ms: step
                        .facts
                        .end_ns
                        .map(|end| duration_ms(step.facts.start_ns, end)),
                    model: step
                        .facts
                        .request_model
                        .clone()
                        .or_else(|| step.facts.response_model.clone()),
                    usage: counted
                        .get(&index)
                        .map(|(usage, _)| *usage)
                        .filter(|usage| !usage.is_zero())
                        .or(step.facts.usage)
                        .map(EventUsage::from),
                    cost_usd: counted
                        .get(&index)
                        .and_then(|(_, cost)| *cost)
                        .map(Cost::usd),
                    error_type: step
                        .facts
                        .failure
                        .as_ref()
                        .map(|failure| failure.kind.clone()),
                    estimated: step.estimated,
                    convention: step.facts.rule.clone(),
                },
                None => Row {
                    span_id: run.id(index).unwrap_or_default(),
                    parent_span_id,
                    depth,
                    name: "unknown".to_owned(),
                    kind: Kind::Span.as_str(),
                    agent_name: None,
                    status: "running",
                    start_time: rfc3339_ns(run.ghost_start_ns(index)),
                    end_time: None,
                    duration_ms: None,
                    model: None,
                    usage: None,
                    cost_usd: None,
                    error_type: None,
                    estimated: true,
                    convention: Cow::Borrowed(NAMED_AS_PARENT),
                },
            }
        })
        .collect()
}
