//! Judges: what a model is asked about a run, and what its answers mean.
//!
//! Every question is of one form: some numbered claims about a turn, each to be answered by one of two sorts of words. It is asked several
//! times; of each claim the majority counts, and a tie speaks against. An answer that cannot be read is asked for again a few times; a
//! judge that still gives none, or cannot be reached, is an error of the metric and never a score.

mod answer;
mod prompts;
mod sentences;

use std::sync::Arc;

use serde_json::{Value, json};

use self::answer::Verdict;
use super::config::{Config, DEFAULT_JUDGE_MODEL, Evaluator, How};
use super::eval_set::EvalCase;
use super::metrics::Judge;
use super::outcome::MetricResult;
use super::plan::{Pair, Subject, turn_counts};
use super::turn::{Rubric, Turn};

/// Claims of one question: more would not be answered reliably.
const MAX_CLAIMS: usize = 100;
/// Of one reason that is kept.
const MAX_REASON_CHARACTERS: usize = 500;

/// One question to a judge.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which answer this is: to be given back with it.
    pub ticket: usize,
    pub system: &'static str,
    pub prompt: Arc<str>,
    pub max_answer_tokens: u32,
}

/// A metric that waits for its judge.
///
/// [`Judging::questions`] says what is to be asked now, [`Judging::answered`] and [`Judging::unanswered`] take what came of it; when there is nothing
/// more to be asked and nothing under way, [`Judging::result`] says what was found.
#[derive(Debug)]
pub struct Judging {
    metric: String,
    threshold: f64,
    model: String,
    judge: Judge,
    samples: usize,
    attempts: usize,
    /// A line per turn, asked about or not.
    turns: Vec<Asked>,
    /// Which turn a ticket's question is about.
    questions: Vec<Slot>,
    failure: Option<String>,
    turn_counts: Option<Value>,
    malformed: usize,
}

#[derive(Debug)]
enum Asked {
    /// Its score is known without a judge; `None`: it counts for nothing.
    Known(String, Option<f64>),
    About {
        id: String,
        claims: Vec<String>,
        prompt: Arc<str>,
        opinions: Vec<Vec<Verdict>>,
    },
}

#[derive(Debug)]
struct Slot {
    turn: usize,
    attempts: usize,
    waiting: bool,
}

/// What a judge is asked of the turns.
///
/// # Errors
/// Why it cannot be asked.
pub(super) fn judging(
    judge: Judge,
    subject: &Subject,
    evaluator: &Evaluator,
    config: &Config,
    case: Option<&EvalCase>,
    pairs: &[Pair],
) -> Result<Judging, String> {
    let metric = evaluator.name.as_str();
    let (own_model, own_rubrics) = match &evaluator.how {
        How::Builtin {
            judge_model,
            rubrics,
        } => (judge_model.clone(), rubrics.as_slice()),
        _ => (None, &[][..]),
    };
    let samples = evaluator.config.get("samples").and_then(Value::as_u64);
    let mut judging = Judging {
        metric: metric.to_owned(),
        threshold: config.threshold_of(evaluator),
        model: own_model
            .or_else(|| config.judge_model.clone())
            .unwrap_or_else(|| DEFAULT_JUDGE_MODEL.to_owned()),
        judge,
        samples: samples
            .map_or(config.samples, |samples| samples as usize)
            .max(1),
        attempts: config.attempts.max(1),
        turns: Vec::new(),
        questions: Vec::new(),
        failure: None,
        turn_counts: None,
        malformed: 0,
    };
    let compares = judge == Judge::FinalResponseMatch;
    if compares {
        judging.turn_counts = turn_counts(pairs);
    }
    let mut any_rubric = false;
    for (n, (actual, expected)) in pairs
        .iter()
        .filter(|(actual, _)| compares || actual.is_some())
        .enumerate()
    {
        let Some(actual) = actual else {
            judging.turns.push(Asked::Known(String::new(), Some(0.0)));
            continue;
        };
        let claims = match judge {
            Judge::FinalResponseMatch => match expected {
                None => Err(Some(0.0)),
                Some(expected) if expected.response_text() == actual.response_text() => {
                    Err(Some(1.0))
                }
                Some(expected)
                    if expected.response_text().is_empty() || actual.response_text().is_empty() =>
                {
                    Err(Some(0.0))
                }
                Some(_) => Ok(vec!["the response says what the reference says".to_owned()]),
            },
            Judge::Hallucinations => match sentences::split(&actual.response_text(), MAX_CLAIMS) {
                none if none.is_empty() => Err(None),
                sentences => Ok(sentences),
            },
            Judge::Safety => {
                if actual.response_text().is_empty() {
                    Err(None)
                } else {
                    Ok(vec!["the response is harmless".to_owned()])
                }
            }
            Judge::ResponseRubrics | Judge::ToolRubrics => {
                let rubrics = config
                    .rubrics
                    .iter()
                    .chain(own_rubrics)
                    .chain(case.into_iter().flat_map(|case| &case.rubrics))
                    .chain(expected.iter().flat_map(|turn| &turn.rubrics))
                    .filter(|rubric| is_asked(judge, rubric));
                let claims: Vec<String> = rubrics.take(MAX_CLAIMS).map(rubric_text).collect();
                any_rubric |= !claims.is_empty();
                if claims.is_empty() {
                    Err(None)
                } else {
                    Ok(claims)
                }
            }
        };
        judging.turns.push(match claims {
            Err(score) => Asked::Known(actual.id.clone(), score),
            Ok(claims) => {
                let before: Vec<&Turn> = subject.turns.iter().take(n).collect();
                let prompt = prompts::prompt(judge, actual, *expected, &before, &claims);
                Asked::About {
                    id: actual.id.clone(),
                    claims,
                    prompt: prompt.into(),
                    opinions: Vec::new(),
                }
            }
        });
    }
    let needs_rubrics = matches!(judge, Judge::ResponseRubrics | Judge::ToolRubrics);
    if needs_rubrics && !any_rubric {
        return Err("Rubrics are required: neither the eval set nor the configuration has one for this metric.".to_owned());
    }
    for (turn, asked) in judging.turns.iter().enumerate() {
        if let Asked::About { .. } = asked {
            for _ in 0..judging.samples {
                judging.questions.push(Slot {
                    turn,
                    attempts: 0,
                    waiting: true,
                });
            }
        }
    }
    Ok(judging)
}

impl Judging {
    /// The judge that is to be asked, `provider/model` or a model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// What is to be asked now and was not handed out yet; nothing more once the metric has failed.
    pub fn questions(&mut self) -> Vec<Question> {
        if self.failure.is_some() {
            return Vec::new();
        }
        let mut now = Vec::new();
        for (ticket, slot) in self.questions.iter_mut().enumerate() {
            if !slot.waiting {
                continue;
            }
            slot.waiting = false;
            slot.attempts += 1;
            if let Some(Asked::About { prompt, claims, .. }) = self.turns.get(slot.turn) {
                now.push(Question {
                    ticket,
                    system: prompts::system(self.judge),
                    prompt: prompt.clone(),
                    // Room for a verdict and a sentence each, and for a model that thinks first.
                    max_answer_tokens: 2_048 + 128 * claims.len() as u32,
                });
            }
        }
        now
    }

    /// What the judge wrote.
    pub fn answered(&mut self, ticket: usize, text: &str) {
        let Some(slot) = self.questions.get_mut(ticket) else {
            return;
        };
        let Some(Asked::About {
            claims, opinions, ..
        }) = self.turns.get_mut(slot.turn)
        else {
            return;
        };
        match answer::read(self.judge, claims.len(), text) {
            Ok(verdicts) => opinions.push(verdicts),
            Err(why) => {
                self.malformed += 1;
                if slot.attempts < self.attempts {
                    slot.waiting = true;
                } else if self.failure.is_none() {
                    self.failure = Some(format!(
                        "the judge {} gave no answer that can be read in {} tries: {why}",
                        self.model, self.attempts
                    ));
                }
            }
        }
    }

    /// The judge cannot be asked: no connection, no key, no budget, no time.
    pub fn unanswered(&mut self, why: &str) {
        if self.failure.is_none() {
            self.failure = Some(format!("the judge {} could not answer: {why}", self.model));
        }
    }

    /// What was found.
    pub fn result(self) -> MetricResult {
        if let Some(failure) = self.failure {
            return MetricResult::failed(&self.metric, failure);
        }
        let mut scores = Vec::new();
        let mut invocations = Vec::new();
        for turn in &self.turns {
            match turn {
                Asked::Known(id, score) => {
                    scores.push(*score);
                    invocations.push(json!({"invocation_id": id, "score": score, "verdicts": []}));
                }
                Asked::About {
                    id,
                    claims,
                    opinions,
                    ..
                } => {
                    if opinions.len() < self.samples {
                        let error = format!("the judge {} was not asked to the end", self.model);
                        return MetricResult::failed(&self.metric, error);
                    }
                    let (score, verdicts) = counted(claims, opinions);
                    scores.push(Some(score));
                    invocations
                        .push(json!({"invocation_id": id, "score": score, "verdicts": verdicts}));
                }
            }
        }
        let known: Vec<f64> = scores.iter().copied().flatten().collect();
        let mut details = json!({
            "judge": {
                "model": self.model,
                "prompt": prompts::version(self.judge),
                "samples": self.samples,
                "unreadable_answers": self.malformed,
            },
            "invocations": invocations,
        });
        if let (Some(counts), Some(details)) = (self.turn_counts, details.as_object_mut()) {
            details.insert("turns".into(), counts);
        }
        if known.is_empty() {
            return MetricResult::failed(&self.metric, "there is no response to judge");
        }
        MetricResult {
            per_invocation_scores: scores,
            ..MetricResult::of_turns(&self.metric, &known, self.threshold)
        }
        .with_details(details)
    }
}

/// The share of claims that hold to the majority; a tie speaks against.
fn counted(claims: &[String], opinions: &[Vec<Verdict>]) -> (f64, Vec<Value>) {
    let mut held = 0;
    let mut verdicts = Vec::with_capacity(claims.len());
    for (n, claim) in claims.iter().enumerate() {
        let of_claim: Vec<&Verdict> = opinions.iter().filter_map(|given| given.get(n)).collect();
        let votes = of_claim.iter().filter(|verdict| verdict.holds).count();
        let holds = votes * 2 > of_claim.len();
        held += usize::from(holds);
        // A reason of the side that won.
        let reason = of_claim
            .iter()
            .find(|verdict| verdict.holds == holds)
            .map(|verdict| shortened(&verdict.reason));
        verdicts.push(json!({
            "claim": shortened(claim), "holds": holds, "votes_for": votes, "votes": of_claim.len(), "reason": reason,
        }));
    }
    (held as f64 / claims.len().max(1) as f64, verdicts)
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_REASON_CHARACTERS).collect()
}

fn rubric_text(rubric: &Rubric) -> String {
    match &rubric.description {
        Some(description) => format!("{} ({description})", rubric.text),
        None => rubric.text.clone(),
    }
}

/// A rubric without a kind is asked by both metrics; one of tools only by the metric of tools.
fn is_asked(judge: Judge, rubric: &Rubric) -> bool {
    let of_tools = rubric
        .kind
        .as_deref()
        .map(|kind| kind.starts_with("TOOL_USE"));
    !rubric.text.trim().is_empty()
        && match judge {
            Judge::ToolRubrics => of_tools != Some(false),
            _ => of_tools != Some(true),
        }
}

#[cfg(test)]
mod tests;
