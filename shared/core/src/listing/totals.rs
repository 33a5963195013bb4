//! What the traces of a session come to, by their rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::KeptRow;

/// Names listed.
const MAX_NAMES: usize = 50;

/// Sums over rows; a trace of which no row is kept yet is counted in `traces` alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Traces that were summed up here: the newest of them.
    pub traces: u64,
    /// How many stood how, when their rows were made.
    pub by_status: BTreeMap<String, u64>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub total_tokens: u64,
    /// US dollars, over the calls whose cost is known; absent when none is.
    pub cost_usd: Option<f64>,
    pub total_llm_calls: u64,
    pub total_tool_calls: u64,
    pub errors_count: u64,
    /// The sum of the traces' own durations; they may have run at the same time.
    pub duration_ms: f64,
    pub agents: Vec<String>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Summed {
    status: String,
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
    cost_usd: Option<f64>,
    total_llm_calls: u64,
    total_tool_calls: u64,
    errors_count: u64,
    duration_ms: Option<f64>,
    agents: Vec<String>,
}

impl Totals {
    /// Takes in one trace, by its row as it is kept.
    pub fn add(&mut self, row: Option<&str>) {
        self.traces += 1;
        let Some(row) = row
            .and_then(KeptRow::parse)
            .and_then(|row| serde_json::from_str::<Summed>(row.json).ok())
        else {
            return;
        };
        if !row.status.is_empty() {
            *self.by_status.entry(row.status).or_default() += 1;
        }
        for (sum, part) in [
            (&mut self.input_tokens, row.input_tokens),
            (&mut self.output_tokens, row.output_tokens),
            (&mut self.total_tokens, row.total_tokens),
            (&mut self.total_llm_calls, row.total_llm_calls),
            (&mut self.total_tool_calls, row.total_tool_calls),
            (&mut self.errors_count, row.errors_count),
        ] {
            *sum = sum.saturating_add(part);
        }
        if let Some(cost) = row.cost_usd {
            *self.cost_usd.get_or_insert(0.0) += cost;
        }
        self.duration_ms += row.duration_ms.unwrap_or_default();
        for agent in row.agents {
            if self.agents.len() < MAX_NAMES && !self.agents.contains(&agent) {
                self.agents.push(agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed_up() {
        let mut totals = Totals::default();
        totals.add(Some(
            r#"9 0 {"status":"completed","input_tokens":3,"total_tokens":5,"cost_usd":0.25,"duration_ms":10.0,"agents":["a"]}"#,
        ));
        totals.add(Some(
            r#"9 0 {"status":"failed","input_tokens":4,"errors_count":1,"duration_ms":null,"agents":["b","a"]}"#,
        ));
        totals.add(None);
        assert_eq!(
            (
                totals.traces,
                totals.input_tokens,
                totals.total_tokens,
                totals.errors_count
            ),
            (3, 7, 5, 1)
        );
        assert_eq!((totals.cost_usd, totals.duration_ms), (Some(0.25), 10.0));
        assert_eq!(totals.agents, ["a", "b"]);
        assert_eq!(totals.by_status.len(), 2);
    }
}
