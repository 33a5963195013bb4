//! `tailspan metrics`: what runs can be evaluated with.

use clap::Args;
use tailspan_core::eval::metrics::{METRICS, Metric};

use super::Outcome;
use super::terminal::{self, Paint};

/// What `tailspan metrics` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan metrics
  tailspan metrics --json | jq -r '.[] | select(.requiresLLM) | .name'
  tailspan run trace.json --eval-set golden.json -m response_match_score")]
pub struct MetricsOptions {
    /// All that is known of each, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints them.
///
/// # Errors
/// Nobody reads.
pub fn run(options: &MetricsOptions) -> anyhow::Result<Outcome> {
    if options.json {
        terminal::say(&serde_json::to_string_pretty(&METRICS.as_slice())?)?;
        return Ok(Outcome::Well);
    }
    let paint = Paint::of_stdout();
    let mut category = "";
    for metric in METRICS.iter() {
        if metric.category != category {
            if !category.is_empty() {
                terminal::say("")?;
            }
            category = metric.category;
            terminal::say(&paint.strong(category))?;
        }
        let needs = needs(metric);
        let needs = match needs.is_empty() {
            true => String::new(),
            false => paint.moving(&format!("  ({})", needs.join(", "))),
        };
        terminal::say(&format!("  {}{needs}", paint.good(metric.name)))?;
        terminal::say(&format!("      {}", metric.description))?;
    }
    Ok(Outcome::Well)
}

fn needs(metric: &Metric) -> Vec<&'static str> {
    let needs = [
        (metric.requires_eval_set, "needs an eval set"),
        (metric.requires_llm, "asks a judge"),
        (metric.requires_rubrics, "needs rubrics"),
        (metric.requires_gcp, "needs Google's Vertex AI"),
        (!metric.working, "cannot be computed here"),
    ];
    let needs = needs.into_iter().filter(|(holds, _)| *holds);
    needs.map(|(_, words)| words).collect()
}
