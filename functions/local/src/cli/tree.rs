//! A trace as a tree of calls, as lines of text.

use std::collections::HashMap;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::terminal::{Paint, clean};

/// Deeper steps stand at this depth and say how deep they are: a chain of calls draws a line for each of them, not a square.
const DEEPEST: usize = 32;
const RULE: usize = 60;

/// What `GET /traces/{trace_id}` says that is drawn.
#[derive(Debug, Deserialize)]
pub(crate) struct Trace {
    pub trace_id: String,
    pub status: String,
    #[serde(default)]
    pub started_at: Option<String>,
    #[serde(default)]
    pub duration_ms: Option<f64>,
    #[serde(default)]
    pub agents: Vec<String>,
    #[serde(default)]
    pub errors: Vec<Failed>,
    #[serde(default)]
    pub total_tokens: u64,
    #[serde(default)]
    pub cost_usd: Option<f64>,
    #[serde(default)]
    pub total_llm_calls: u64,
    #[serde(default)]
    pub total_tool_calls: u64,
    #[serde(default)]
    pub total_events: u64,
    #[serde(default)]
    pub truncated: bool,
    #[serde(default)]
    pub spans: Vec<Step>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Failed {
    #[serde(default)]
    pub span_id: Option<String>,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub message: String,
}

/// A row of the tree; rows come depth first.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Step {
    pub span_id: String,
    #[serde(default)]
    pub depth: usize,
    pub name: String,
    #[serde(default)]
    pub agent_name: Option<String>,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub start_time: Option<String>,
    #[serde(default)]
    pub end_time: Option<String>,
    #[serde(default)]
    pub duration_ms: Option<f64>,
    #[serde(default)]
    pub usage: Option<Usage>,
    #[serde(default)]
    pub cost_usd: Option<f64>,
    #[serde(default)]
    pub error_type: Option<String>,
    #[serde(default)]
    pub convention: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub input_tokens: u64,
    #[serde(default)]
    pub output_tokens: u64,
}

/// How a tree is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub paint: Paint,
    /// Tokens and cost behind each call of a model.
    pub usage: bool,
    /// For how long open steps have been open; `None` does not say it.
    pub now: Option<OffsetDateTime>,
}

impl Step {
    fn is_open(&self) -> bool {
        self.status == "running"
    }

    /// The caller's side of a call between agents of a mesh: it repeats what the agent itself tells.
    fn is_wrapper(&self) -> bool {
        self.convention.starts_with("mesh:")
            && (self.name == "proxy_call_wrapper" || self.name.starts_with("_internal_"))
    }
}

impl Trace {
    /// Takes the wrappers of a mesh out, what is in them moves up. Returns how many they were.
    pub(crate) fn hide_wrappers(&mut self) -> usize {
        let before = self.spans.len();
        // The depths of the wrappers around the row at hand.
        let mut around: Vec<usize> = Vec::new();
        self.spans.retain_mut(|step| {
            while around.last().is_some_and(|depth| *depth >= step.depth) {
                around.pop();
            }
            let depth = step.depth;
            step.depth = depth.saturating_sub(around.len());
            let is_wrapper = step.is_wrapper();
            if is_wrapper {
                around.push(depth);
            }
            !is_wrapper
        });
        before - self.spans.len()
    }

    /// The whole tree with its title and summary.
    pub(crate) fn page(&self, look: Look, hidden: usize) -> Vec<String> {
        let paint = look.paint;
        let title = format!("Call Tree for trace {}", clean(&self.trace_id));
        let mut lines = vec![paint.strong(&title), "═".repeat(RULE)];
        lines.extend(self.rows(look, None));
        lines.push("─".repeat(RULE));
        lines.push(self.summary(paint, hidden));
        let agents: Vec<_> = self.agents.iter().map(|agent| clean(agent)).collect();
        if !agents.is_empty() {
            lines.push(format!("Agents: {}", agents.join(", ")));
        }
        lines
    }

    fn summary(&self, paint: Paint, hidden: usize) -> String {
        let mut line = format!(
            "Summary: {} across {}",
            counted(self.spans.len(), "span"),
            counted(self.agents.len(), "agent")
        );
        if hidden > 0 {
            line += &format!(" ({hidden} hidden)");
        }
        if self.truncated {
            line += " (there are more)";
        }
        if let Some(took) = self.duration_ms {
            line += &format!(" | {}", duration(took));
        }
        let mark = match self.status.as_str() {
            "completed" => paint.good("✓"),
            "failed" => paint.bad("✗"),
            status => paint.status(&clean(status)),
        };
        format!("{line} | {mark}")
    }

    /// A screen of this many lines: what is open, what is around it, then what ended last. The last lines are the sums.
    pub(crate) fn screen(&self, look: Look, height: usize, remark: &str) -> Vec<String> {
        let paint = look.paint;
        let room = height.saturating_sub(3).max(1);
        let errors = self.spans.iter().filter(|step| step.status == "error");
        let shown = self.chosen(room.saturating_sub(errors.count().min(room / 3)).max(1));
        let mut lines = vec![paint.strong(&format!("trace {}", clean(&self.trace_id)))];
        let mut rows = self.rows(look, Some(&shown));
        rows.truncate(room);
        lines.append(&mut rows);
        let left_out = self.spans.len() - shown.iter().filter(|shown| **shown).count();
        let mut sums = vec![paint.status(&clean(&self.status))];
        let took = match (look.now, self.started_at.as_deref().and_then(moment)) {
            (Some(now), Some(start)) if self.status == "running" => Some(milliseconds(now - start)),
            _ => self.duration_ms,
        };
        sums.extend(took.map(duration));
        if left_out > 0 {
            sums.push(format!("{left_out} not shown"));
        }
        sums.push(counted_text(self.total_events, "event"));
        sums.push(counted_text(self.total_llm_calls, "model call"));
        sums.push(counted_text(self.total_tool_calls, "tool call"));
        sums.push(counted_text(self.total_tokens, "token"));
        sums.extend(self.cost_usd.map(cost));
        lines.push(String::new());
        lines.push(sums.join(" · "));
        if !remark.is_empty() {
            lines.push(paint.moving(&clean(remark)));
        }
        lines
    }

    /// Which rows a screen with this much room shows: each with what is above it in the tree.
    fn chosen(&self, room: usize) -> Vec<bool> {
        let mut shown = vec![false; self.spans.len()];
        let parents = self.parents();
        let mut order: Vec<usize> = (0..self.spans.len()).collect();
        // Open ones first, begun last in front; then those that ended, the last one in front. RFC 3339 in UTC sorts as text.
        order.sort_by_key(|at| {
            let step = self.spans.get(*at);
            let open = step.is_some_and(Step::is_open);
            let time = step.and_then(|step| match open {
                true => step.start_time.as_deref(),
                false => step.end_time.as_deref(),
            });
            std::cmp::Reverse((open, time))
        });
        let mut left = room;
        for at in order {
            let mut path = Vec::new();
            let mut next = Some(at);
            while let Some(at) = next.filter(|at| !shown.get(*at).copied().unwrap_or(true)) {
                // A path that does not fit ends the search: nothing is looked at for longer than the room allows.
                if path.len() > left {
                    break;
                }
                path.push(at);
                next = parents.get(at).copied().flatten();
            }
            if path.len() > left {
                break;
            }
            left -= path.len();
            for at in path {
                if let Some(shown) = shown.get_mut(at) {
                    *shown = true;
                }
            }
        }
        // Too little room for any path: at least where it all began.
        if left == room
            && let Some(first) = shown.first_mut()
        {
            *first = true;
        }
        shown
    }

    fn parents(&self) -> Vec<Option<usize>> {
        let mut above: Vec<usize> = Vec::new();
        let mut parents = Vec::with_capacity(self.spans.len());
        for (at, step) in self.spans.iter().enumerate() {
            above.truncate(step.depth);
            parents.push(above.last().copied());
            above.push(at);
        }
        parents
    }

    /// The lines of the tree, of all rows or of some; a failed step has a second line.
    fn rows(&self, look: Look, only: Option<&[bool]>) -> Vec<String> {
        let mut messages: HashMap<&str, String> = HashMap::new();
        for error in &self.errors {
            let text = match (error.kind.as_str(), error.message.as_str()) {
                (kind, "") => kind.to_owned(),
                ("", message) => message.to_owned(),
                (kind, message) => format!("{kind}: {message}"),
            };
            if let Some(span) = error.span_id.as_deref() {
                messages.entry(span).or_insert(text);
            }
        }
        // From the last row up: whether a later row stands at a depth, below the same parent, is then known.
        let mut later = [false; DEEPEST + 1];
        let mut lines = Vec::new();
        for (at, step) in self.spans.iter().enumerate().rev() {
            if only.is_some_and(|only| !only.get(at).copied().unwrap_or(false)) {
                continue;
            }
            let depth = step.depth.min(DEEPEST);
            let (above, below) = later.split_at_mut(depth);
            let rail: String = above
                .iter()
                .map(|more| if *more { "│  " } else { "   " })
                .collect();
            let [own, deeper @ ..] = below else { continue };
            if let Some(error) = self.error_of(step, &messages) {
                let rail = format!("{rail}{}", if *own { "│  " } else { "   " });
                lines.push(format!(
                    "{}{}",
                    look.paint.faint(&rail),
                    look.paint.bad(&error)
                ));
            }
            let branch = format!("{rail}{}", if *own { "├─ " } else { "└─ " });
            lines.push(format!(
                "{}{}",
                look.paint.faint(&branch),
                self.label(step, look)
            ));
            *own = true;
            // Chains that are too deep to be drawn do not end what stands above them.
            deeper.fill(false);
        }
        lines.reverse();
        lines
    }

    fn error_of(&self, step: &Step, messages: &HashMap<&str, String>) -> Option<String> {
        if step.status != "error" {
            return None;
        }
        let said = messages.get(step.span_id.as_str()).map(String::as_str);
        let text = said
            .or(step.error_type.as_deref())
            .filter(|text| !text.is_empty())?;
        Some(format!("Error: {}", clean(text)))
    }

    fn label(&self, step: &Step, look: Look) -> String {
        let paint = look.paint;
        let mut label = String::new();
        if step.depth > DEEPEST {
            label += &paint.faint(&format!("({} deep) ", step.depth));
        }
        label += &clean(&step.name);
        if let Some(agent) = step.agent_name.as_deref().filter(|agent| !agent.is_empty()) {
            label += &format!(" ({})", clean(agent));
        }
        let since = step.start_time.as_deref().and_then(moment);
        let took = match (step.is_open(), look.now, since) {
            (true, Some(now), Some(since)) => Some(milliseconds(now - since)),
            (true, ..) => None,
            (false, ..) => step.duration_ms,
        };
        if let Some(took) = took {
            label += &paint.faint(&format!(" [{}]", duration(took)));
        }
        label.push(' ');
        label += &match step.status.as_str() {
            "error" => paint.bad("✗"),
            "running" => paint.moving("…"),
            _ => paint.good("✓"),
        };
        if look.usage
            && let Some(usage) = step.usage
        {
            let tokens = format!("{} → {} tokens", usage.input_tokens, usage.output_tokens);
            let cost = step.cost_usd.map(|usd| format!(", {}", cost(usd)));
            label += &paint.faint(&format!(" {tokens}{}", cost.unwrap_or_default()));
        }
        label
    }
}

fn counted(count: usize, what: &str) -> String {
    counted_text(u64::try_from(count).unwrap_or(u64::MAX), what)
}

fn counted_text(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

fn milliseconds(time: time::Duration) -> f64 {
    (time.as_seconds_f64() * 1000.0).max(0.0)
}

pub(crate) fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Microseconds below a millisecond, milliseconds below a second, then seconds with two places.
pub(crate) fn duration(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 1.0 => format!("{:.0}µs", ms * 1000.0),
        ms if ms < 999.5 => format!("{ms:.0}ms"),
        ms => format!("{:.2}s", ms / 1000.0),
    }
}

/// US dollars, small ones with more places.
pub(crate) fn cost(usd: f64) -> String {
    match usd {
        usd if usd.abs() < 1.0 => format!("${usd:.4}"),
        usd => format!("${usd:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn trace() -> Trace {
        let step = |id: &str, depth: usize, name: &str, agent: &str, ms: f64, status: &str| {
            json!({"span_id": id, "depth": depth, "name": name, "agent_name": agent, "duration_ms": ms,
                "status": status, "convention": "mesh:entry", "end_time": format!("2026-01-01T00:00:0{id}Z"),
                "start_time": "2026-01-01T00:00:00Z"})
        };
        serde_json::from_value(json!({
            "trace_id": "abc", "status": "failed", "duration_ms": 45.2, "agents": ["orchestrator", "storage"],
            "errors": [{"span_id": "4", "type": "Timeout", "message": "no\nanswer\u{1b}[2J"}],
            "spans": [
                step("1", 0, "plan", "orchestrator", 45.2, "ok"),
                step("2", 1, "proxy_call_wrapper", "orchestrator", 20.0, "ok"),
                step("3", 2, "read", "storage", 0.25, "ok"),
                step("4", 1, "write", "storage", 1234.0, "error"),
                step("5", 2, "commit", "", 1.0, "running"),
                step("6", 0, "late", "", 999.9, "ok"),
            ],
        }))
        .unwrap()
    }

    const LOOK: Look = Look {
        paint: Paint::none(),
        usage: false,
        now: None,
    };

    #[test]
    fn a_tree_of_calls_with_its_errors_and_sums() {
        let mut trace = trace();
        let hidden = trace.hide_wrappers();
        let expected = "\
Call Tree for trace abc
════════════════════════════════════════════════════════════
├─ plan (orchestrator) [45ms] ✓
│  ├─ read (storage) [250µs] ✓
│  └─ write (storage) [1.23s] ✗
│     Error: Timeout: no answer\u{fffd}[2J
│     └─ commit …
└─ late [1.00s] ✓
────────────────────────────────────────────────────────────
Summary: 5 spans across 2 agents (1 hidden) | 45ms | ✗
Agents: orchestrator, storage";
        assert_eq!(trace.page(LOOK, hidden).join("\n"), expected);
    }

    #[test]
    fn a_small_screen_shows_what_is_open_and_the_way_to_it() {
        let lines = trace().screen(LOOK, 7, "");
        assert_eq!(
            lines[..5],
            [
                "trace abc",
                "└─ plan (orchestrator) [45ms] ✓",
                "   └─ write (storage) [1.23s] ✗",
                "      Error: Timeout: no answer\u{fffd}[2J",
                "      └─ commit …",
            ]
            .map(str::to_owned)[..],
        );
        assert!(lines.last().unwrap().contains("3 not shown"), "{lines:?}");
        assert!(lines.len() <= 7);
    }

    #[test]
    fn a_chain_of_ten_thousand_calls_is_drawn_in_as_many_lines_of_bounded_length() {
        let mut trace = trace();
        trace.spans = (0..10_000)
            .map(|depth| Step {
                depth,
                name: "step".to_owned(),
                ..Step::default()
            })
            .collect();
        let lines = trace.page(LOOK, 0);
        assert!(lines.iter().all(|line| line.chars().count() < 140));
        assert!(lines.iter().any(|line| line.contains("(9999 deep) step")));
        assert!(trace.screen(LOOK, 24, "").len() <= 24);
    }
}
