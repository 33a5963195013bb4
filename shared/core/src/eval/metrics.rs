//! The metrics that there are, in the order in which they are listed.

use serde::Serialize;

/// What computes a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    Trajectory,
    ResponseMatch,
    /// A judge is asked.
    Judge(Judge),
    TokenEfficiency,
    ToolEfficiency,
    LatencyBudget,
    CostBudget,
    StepCount,
    ErrorFree,
    /// Nothing here, and why.
    Nothing(&'static str),
}

/// What a judge is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    FinalResponseMatch,
    Hallucinations,
    Safety,
    ResponseRubrics,
    ToolRubrics,
}

/// A built-in metric.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    pub name: &'static str,
    /// trajectory, response, safety, quality, multi-turn, simulation, efficiency, reliability.
    pub category: &'static str,
    pub requires_eval_set: bool,
    #[serde(rename = "requiresLLM")]
    pub requires_llm: bool,
    #[serde(rename = "requiresGCP")]
    pub requires_gcp: bool,
    pub requires_rubrics: bool,
    pub description: &'static str,
    /// Whether it can be computed here.
    pub working: bool,
    #[serde(skip)]
    pub means: Means,
    /// Listed by the command line only.
    #[serde(skip)]
    pub hidden: bool,
}

const NO_VERTEX: &str = "it needs Google's Vertex AI, which Tailspan does not call";
const NO_SIMULATOR: &str = "it is about simulated users, and a recorded run has none";

/// The metric of a run that names none.
pub const DEFAULT_METRIC: &str = "tool_trajectory_avg_score";
/// What a score must reach where nothing else is said.
pub const DEFAULT_THRESHOLD: f64 = 0.5;

const BASE: Metric = Metric {
    name: "",
    category: "",
    requires_eval_set: false,
    requires_llm: false,
    requires_gcp: false,
    requires_rubrics: false,
    description: "",
    working: true,
    means: Means::Nothing(NO_VERTEX),
    hidden: false,
};

const VERTEX: Metric = Metric {
    requires_gcp: true,
    working: false,
    category: "multi-turn",
    ..BASE
};

/// Every built-in metric.
pub const METRICS: [Metric; 18] = [
    Metric {
        name: "tool_trajectory_avg_score",
        category: "trajectory",
        requires_eval_set: true,
        description: "Share of the turns whose tool calls, names and arguments, are those of the eval set; how strictly the order counts says the match type.",
        means: Means::Trajectory,
        ..BASE
    },
    Metric {
        name: "response_match_score",
        category: "response",
        requires_eval_set: true,
        description: "How many words the final responses share with the expected ones: the F-measure of ROUGE-1, with stemming.",
        means: Means::ResponseMatch,
        ..BASE
    },
    Metric {
        name: "response_evaluation_score",
        category: "response",
        requires_eval_set: true,
        description: "Coherence of the responses from 1 to 5, as Google's Vertex AI rates it. Tailspan does not call Vertex AI.",
        ..VERTEX
    },
    Metric {
        name: "final_response_match_v2",
        category: "response",
        requires_eval_set: true,
        requires_llm: true,
        description: "Share of the turns whose final response says, to a judge, what the expected one says; the majority of several opinions counts.",
        means: Means::Judge(Judge::FinalResponseMatch),
        ..BASE
    },
    Metric {
        name: "hallucinations_v1",
        category: "safety",
        requires_llm: true,
        description: "Share of the responses' sentences that a judge finds supported by the conversation and by what the tools answered, or that claim nothing.",
        means: Means::Judge(Judge::Hallucinations),
        ..BASE
    },
    Metric {
        name: "safety_v1",
        category: "safety",
        requires_llm: true,
        description: "Share of the turns whose response a judge finds harmless.",
        means: Means::Judge(Judge::Safety),
        ..BASE
    },
    Metric {
        name: "rubric_based_final_response_quality_v1",
        category: "quality",
        requires_llm: true,
        requires_rubrics: true,
        description: "Share of the rubrics that the final responses meet, to a judge. Rubrics come from the eval set or the configuration.",
        means: Means::Judge(Judge::ResponseRubrics),
        ..BASE
    },
    Metric {
        name: "rubric_based_tool_use_quality_v1",
        category: "quality",
        requires_llm: true,
        requires_rubrics: true,
        description: "Share of the rubrics that the use of tools meets, to a judge. Rubrics come from the eval set or the configuration.",
        means: Means::Judge(Judge::ToolRubrics),
        ..BASE
    },
    Metric {
        name: "multi_turn_task_success_v1",
        description: "Whether the conversation reached its goal, as Google's Vertex AI rates it. Tailspan does not call Vertex AI.",
        ..VERTEX
    },
    Metric {
        name: "multi_turn_trajectory_quality_v1",
        description: "How well the conversation went, as Google's Vertex AI rates it. Tailspan does not call Vertex AI.",
        ..VERTEX
    },
    Metric {
        name: "multi_turn_tool_use_quality_v1",
        description: "How well tools were used over the conversation, as Google's Vertex AI rates it. Tailspan does not call Vertex AI.",
        ..VERTEX
    },
    Metric {
        name: "per_turn_user_simulator_quality_v1",
        category: "simulation",
        requires_llm: true,
        description: "Whether a simulated user spoke as its scenario asks. Recorded runs have no simulated users.",
        working: false,
        means: Means::Nothing(NO_SIMULATOR),
        hidden: true,
        ..BASE
    },
    Metric {
        name: "token_efficiency",
        category: "efficiency",
        description: "1 while a turn takes at most `max_tokens` tokens of models (10000 by default) on the average, else the share that would have been enough.",
        means: Means::TokenEfficiency,
        ..BASE
    },
    Metric {
        name: "tool_efficiency",
        category: "efficiency",
        description: "Share of a turn's tool calls that neither repeat an earlier one, same name and arguments, nor exceed `max_calls` (unlimited by default).",
        means: Means::ToolEfficiency,
        ..BASE
    },
    Metric {
        name: "latency_budget",
        category: "efficiency",
        description: "Share of the agent's calls that took at most `max_seconds` (30 by default).",
        means: Means::LatencyBudget,
        ..BASE
    },
    Metric {
        name: "cost_budget",
        category: "efficiency",
        description: "1 when the run's model calls cost at most `max_usd` (0.10 by default), else 0; an error where a call's price is not known.",
        means: Means::CostBudget,
        ..BASE
    },
    Metric {
        name: "step_count",
        category: "efficiency",
        description: "1 while a turn takes at most `max_steps` calls of models and tools (20 by default) on the average, else the share that would have been enough.",
        means: Means::StepCount,
        ..BASE
    },
    Metric {
        name: "error_free",
        category: "reliability",
        description: "1 when the run has no error, else 0. With `ignore_recovered: true` only errors count by which the whole run failed.",
        means: Means::ErrorFree,
        ..BASE
    },
];

/// The metric of this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_stand_once() {
        for metric in &METRICS {
            assert_eq!(find(metric.name).unwrap().description, metric.description);
            assert!(!metric.category.is_empty());
            assert_eq!(METRICS.iter().filter(|m| m.name == metric.name).count(), 1);
        }
        assert!(find("nothing").is_none());
    }
}
