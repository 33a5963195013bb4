//! What is evaluated with what: the YAML of `--config`, the JSON of a request, what a command line adds.

use serde_json::{Map, Value};

use super::eval_set::read_rubrics;
use super::metrics::{DEFAULT_METRIC, DEFAULT_THRESHOLD, Means, find};
use super::reader::{Fields, Mistakes, Spelling, kind};
use super::trajectory::MatchType;
use super::turn::Rubric;

/// The judge where nobody names one.
pub const DEFAULT_JUDGE_MODEL: &str = "gemini-2.5-flash";
/// Opinions that a judge is asked for.
const DEFAULT_SAMPLES: u64 = 5;
const MAX_SAMPLES: u64 = 25;
/// Tries for an answer that can be read.
const DEFAULT_ATTEMPTS: u64 = 3;
const DEFAULT_JUDGE_SECONDS: u64 = 60;
const DEFAULT_PROGRAM_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 3_600;
/// Calls of judges that a run may make unless it is told otherwise.
const DEFAULT_MAX_CALLS: u64 = 10_000;
const MAX_EVALUATORS: usize = 200;
/// YAML that is read; an evaluators' list is a page or two.
const MAX_YAML_BYTES: usize = 1 << 20;

/// What traces are evaluated with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// In the order in which results are listed: built-in metrics first.
    pub evaluators: Vec<Evaluator>,
    /// Path of an eval set, as the file says it.
    pub eval_set: Option<String>,
    pub judge_model: Option<String>,
    /// Of built-in metrics without one of their own.
    pub threshold: Option<f64>,
    pub match_type: Option<MatchType>,
    /// `jaeger-json`, `otlp-json` or what else trace files may be called.
    pub trace_format: Option<String>,
    pub turns: TurnCount,
    /// Asked of every turn, beside those of the eval set.
    pub rubrics: Vec<Rubric>,
    /// Opinions per question.
    pub samples: usize,
    /// Tries for each opinion until it can be read.
    pub attempts: usize,
    /// For one answer of a judge.
    pub judge_seconds: u64,
    pub budget: Budget,
    pub max_concurrent_traces: usize,
    pub max_concurrent_evals: usize,
    /// What was said and is not known: nothing follows from it, and somebody should be told.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            evaluators: Vec::new(),
            eval_set: None,
            judge_model: None,
            threshold: None,
            match_type: None,
            trace_format: None,
            turns: TurnCount::default(),
            rubrics: Vec::new(),
            samples: DEFAULT_SAMPLES as usize,
            attempts: DEFAULT_ATTEMPTS as usize,
            judge_seconds: DEFAULT_JUDGE_SECONDS,
            budget: Budget::default(),
            max_concurrent_traces: 10,
            max_concurrent_evals: 5,
            warnings: Vec::new(),
        }
    }
}

/// What happens with turns that only the run, or only the eval set, has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TurnCount {
    /// Each scores 0.
    #[default]
    Count,
    /// They are left out, as agentevals does.
    Truncate,
}

impl TurnCount {
    pub const NAMES: [&str; 2] = ["count", "truncate"];

    /// # Errors
    /// A sentence with the names that there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "count" => Ok(Self::Count),
            "truncate" => Ok(Self::Truncate),
            _ => Err(format!("turns `{name}` is none of count, truncate")),
        }
    }
}

/// What all judges of one run may use together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    pub max_calls: u64,
    /// Input and output.
    pub max_tokens: Option<u64>,
    /// US dollars by the price table; a model without a price cannot be asked under such a limit.
    pub max_usd: Option<f64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            max_calls: DEFAULT_MAX_CALLS,
            max_tokens: None,
            max_usd: None,
        }
    }
}

/// One metric, built in or the operator's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluator {
    pub name: String,
    pub threshold: Option<f64>,
    /// Options of a built-in metric; what a program gets as its `config`.
    pub config: Map<String, Value>,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq)]
pub enum How {
    Builtin {
        judge_model: Option<String>,
        rubrics: Vec<Rubric>,
    },
    Program(Program),
    /// Known to agentevals and not done here; why.
    Unsupported(String),
}

/// A program of the operator's that speaks protocol 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// As the file says it; relative to the file, else to the working directory.
    pub path: String,
    /// What runs it, where its ending does not say it.
    pub interpreter: Option<String>,
    pub seconds: u64,
    /// Names of environment variables that it gets beside the usual few.
    pub environment: Vec<String>,
}

impl Evaluator {
    pub fn builtin(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            threshold: None,
            config: Map::new(),
            how: How::Builtin {
                judge_model: None,
                rubrics: Vec::new(),
            },
        }
    }

    fn is_builtin(&self) -> bool {
        matches!(self.how, How::Builtin { .. })
    }
}

/// What a command line says; it goes before the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Added to the metrics of the file.
    pub metrics: Vec<String>,
    pub eval_set: Option<String>,
    pub judge_model: Option<String>,
    /// Of all built-in metrics.
    pub threshold: Option<f64>,
    pub match_type: Option<MatchType>,
    pub trace_format: Option<String>,
    pub turns: Option<TurnCount>,
}

impl Config {
    /// The built-in metrics of these names.
    pub fn of_metrics<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            evaluators: names.into_iter().map(Evaluator::builtin).collect(),
            ..Self::default()
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// Every mistake with its place, at most 20.
    pub fn from_yaml(text: &str) -> Result<Self, Vec<String>> {
        if text.len() > MAX_YAML_BYTES {
            return Err(vec![format!("longer than {MAX_YAML_BYTES} bytes")]);
        }
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| vec![format!("not YAML: {error}")])?;
        let mut mistakes = Mistakes::default();
        let mut config = Self::default();
        if let Some(fields) = Fields::of(&value, String::new(), Spelling::Snake, &mut mistakes) {
            config.read_file(&fields, &mut mistakes);
        }
        mistakes.end(config)
    }

    /// Reads the `config` of a request: `metrics`, `threshold`, `judgeModel`, `trajectoryMatchType`, `customEvaluators` and the rest, camelCase or
    /// snake_case. Programs are the operator's: a request names those of `operator`, in `metrics` or as an evaluator of type `code`, and
    /// brings none.
    ///
    /// # Errors
    /// Every mistake with its place, at most 20.
    pub fn from_request(value: &Value, operator: Option<&Self>) -> Result<Self, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let mut config = Self::default();
        if let Some(operator) = operator {
            // What a run may cost is the operator's to say.
            config.budget = operator.budget;
            config.judge_seconds = operator.judge_seconds;
            config.judge_model.clone_from(&operator.judge_model);
        }
        if let Some(fields) = Fields::of(value, String::new(), Spelling::Both, &mut mistakes) {
            config.read_request(&fields, operator, &mut mistakes);
        }
        mistakes.end(config)
    }

    /// What a command line adds and overrides; the default metric where nobody names one.
    #[must_use]
    pub fn with(mut self, overrides: Overrides) -> Self {
        for name in overrides.metrics {
            let is_known = self.evaluators.iter().any(|known| known.name == name);
            if !is_known {
                self.add(Evaluator::builtin(&name));
            }
        }
        if self.evaluators.is_empty() {
            self.add(Evaluator::builtin(DEFAULT_METRIC));
        }
        // What is said now and of all goes before what a file says of one.
        for evaluator in &mut self.evaluators {
            if let How::Builtin { judge_model, .. } = &mut evaluator.how {
                if overrides.threshold.is_some() {
                    evaluator.threshold = None;
                }
                if overrides.judge_model.is_some() {
                    *judge_model = None;
                }
            }
        }
        self.eval_set = overrides.eval_set.or(self.eval_set);
        self.judge_model = overrides.judge_model.or(self.judge_model);
        self.threshold = overrides.threshold.or(self.threshold);
        self.match_type = overrides.match_type.or(self.match_type);
        self.trace_format = overrides.trace_format.or(self.trace_format);
        self.turns = overrides.turns.unwrap_or(self.turns);
        self
    }

    /// What an evaluator's score must reach.
    pub fn threshold_of(&self, evaluator: &Evaluator) -> f64 {
        let general = self.threshold.filter(|_| evaluator.is_builtin());
        evaluator.threshold.or(general).unwrap_or(DEFAULT_THRESHOLD)
    }

    /// Built-in metrics go before programs, as they are listed.
    fn add(&mut self, evaluator: Evaluator) {
        let at = if evaluator.is_builtin() {
            self.evaluators.partition_point(Evaluator::is_builtin)
        } else {
            self.evaluators.len()
        };
        self.evaluators.insert(at, evaluator);
    }

    fn read_file(&mut self, fields: &Fields, mistakes: &mut Mistakes) {
        self.warn_of_unknown(
            fields,
            &[
                "evaluators",
                "eval_set",
                "judge_model",
                "threshold",
                "trajectory_match_type",
                "trace_format",
                "turns",
                "rubrics",
                "judge",
                "budget",
                "max_concurrent_traces",
                "max_concurrent_evals",
            ],
        );
        for (n, entry) in limited(fields, "evaluators", mistakes).iter().enumerate() {
            let path = format!("evaluators[{n}]");
            if let Some(evaluator) = self.read_evaluator(entry, path, Spelling::Snake, mistakes) {
                self.add(evaluator);
            }
        }
        self.eval_set = fields.text("eval_set", mistakes).map(str::to_owned);
        self.read_common(fields, mistakes);
        if let Some(judge) = fields.get("judge")
            && let Some(judge) = Fields::of(judge, fields.at("judge"), Spelling::Snake, mistakes)
        {
            judge.only(&["samples", "attempts", "timeout"], mistakes);
            self.read_samples(&judge, mistakes);
            let attempts = judge.count("attempts", 1, 10, mistakes);
            self.attempts = attempts.map_or(self.attempts, |count| count as usize);
            let seconds = judge.count("timeout", 1, MAX_SECONDS, mistakes);
            self.judge_seconds = seconds.unwrap_or(self.judge_seconds);
        }
        if let Some(budget) = fields.get("budget")
            && let Some(budget) = Fields::of(budget, fields.at("budget"), Spelling::Snake, mistakes)
        {
            budget.only(&["max_calls", "max_tokens", "max_usd"], mistakes);
            let calls = budget.count("max_calls", 0, u64::MAX, mistakes);
            self.budget.max_calls = calls.unwrap_or(self.budget.max_calls);
            self.budget.max_tokens = budget.count("max_tokens", 0, u64::MAX, mistakes);
            self.budget.max_usd = budget.number("max_usd", mistakes);
            if self.budget.max_usd.is_some_and(|usd| usd < 0.0) {
                mistakes.add(&budget.at("max_usd"), "must not be negative");
            }
        }
    }

    fn read_request(&mut self, fields: &Fields, operator: Option<&Self>, mistakes: &mut Mistakes) {
        let own = |name: &str| {
            let mut evaluators = operator.into_iter().flat_map(|config| &config.evaluators);
            evaluators.find(|known| known.name == name && !known.is_builtin())
        };
        match fields.get("metrics") {
            None => self.add(Evaluator::builtin(DEFAULT_METRIC)),
            Some(_) => {
                let metrics = limited(fields, "metrics", mistakes);
                for (n, name) in metrics.iter().enumerate() {
                    match name.as_str() {
                        Some(name) => {
                            let known = own(name).filter(|_| find(name).is_none());
                            self.add(known.cloned().unwrap_or_else(|| Evaluator::builtin(name)));
                        }
                        None => mistakes.add(
                            &format!("{}[{n}]", fields.at("metrics")),
                            format!("must be a name, it is {}", kind(name)),
                        ),
                    }
                }
            }
        }
        for list in ["custom_evaluators", "custom_metrics"] {
            for (n, entry) in limited(fields, list, mistakes).iter().enumerate() {
                let path = format!("{}[{n}]", fields.at(list));
                let said = entry.get("name").and_then(Value::as_str);
                let is_program = entry.get("type").and_then(Value::as_str) == Some("code");
                if is_program {
                    match said.and_then(own) {
                        Some(known) => self.add(known.clone()),
                        None => mistakes.add(
                            &path,
                            "programs are not taken from requests; the operator's configuration has none of this name",
                        ),
                    }
                } else if let Some(evaluator) =
                    self.read_evaluator(entry, path, Spelling::Both, mistakes)
                {
                    self.evaluators.retain(|known| known.name != evaluator.name);
                    self.add(evaluator);
                }
            }
        }
        if self.evaluators.is_empty() {
            mistakes.add(&fields.at("metrics"), "names no metric");
        }
        self.read_common(fields, mistakes);
        self.read_samples(fields, mistakes);
    }

    fn read_common(&mut self, fields: &Fields, mistakes: &mut Mistakes) {
        let judge_model = fields.text("judge_model", mistakes).map(str::to_owned);
        self.judge_model = judge_model.or(self.judge_model.take());
        self.threshold = share(fields, "threshold", mistakes);
        if let Some(name) = fields.text("trajectory_match_type", mistakes) {
            match MatchType::parse(name) {
                Ok(match_type) => self.match_type = Some(match_type),
                Err(error) => mistakes.add(&fields.at("trajectory_match_type"), error),
            }
        }
        self.trace_format = fields.text("trace_format", mistakes).map(str::to_owned);
        if let Some(name) = fields.text("turns", mistakes) {
            match TurnCount::parse(name) {
                Ok(turns) => self.turns = turns,
                Err(error) => mistakes.add(&fields.at("turns"), error),
            }
        }
        self.rubrics = read_rubrics(fields, mistakes);
        let at_once = |name: &str, mistakes: &mut Mistakes| fields.count(name, 1, 100, mistakes);
        if let Some(count) = at_once("max_concurrent_traces", mistakes) {
            self.max_concurrent_traces = count as usize;
        }
        if let Some(count) = at_once("max_concurrent_evals", mistakes) {
            self.max_concurrent_evals = count as usize;
        }
    }

    fn read_samples(&mut self, fields: &Fields, mistakes: &mut Mistakes) {
        let samples = fields.count("samples", 1, MAX_SAMPLES, mistakes);
        self.samples = samples.map_or(self.samples, |count| count as usize);
    }

    fn read_evaluator(
        &mut self,
        entry: &Value,
        path: String,
        spelling: Spelling,
        mistakes: &mut Mistakes,
    ) -> Option<Evaluator> {
        let fields = Fields::of(entry, path, spelling, mistakes)?;
        let name = fields.required_text("name", mistakes).to_owned();
        let kind = fields.required_text("type", mistakes);
        let mut evaluator = Evaluator {
            threshold: share(&fields, "threshold", mistakes),
            config: fields
                .object("config", mistakes)
                .cloned()
                .unwrap_or_default(),
            ..Evaluator::builtin(&name)
        };
        match kind {
            "builtin" => {
                let known = [
                    "name",
                    "type",
                    "threshold",
                    "judge_model",
                    "config",
                    "rubrics",
                ];
                self.warn_of_unknown(&fields, &known);
                for mistake in mistaken_options(&evaluator) {
                    mistakes.add(&fields.at("config"), mistake);
                }
                evaluator.how = How::Builtin {
                    judge_model: fields.text("judge_model", mistakes).map(str::to_owned),
                    rubrics: read_rubrics(&fields, mistakes),
                };
            }
            "code" => {
                let known = [
                    "name",
                    "type",
                    "threshold",
                    "config",
                    "path",
                    "timeout",
                    "executor",
                    "interpreter",
                    "environment",
                ];
                self.warn_of_unknown(&fields, &known);
                if let Some(executor) = fields.text("executor", mistakes)
                    && executor != "local"
                {
                    mistakes.add(&fields.at("executor"), "must be `local`");
                }
                let names = fields.list("environment", mistakes).unwrap_or_default();
                evaluator.how = How::Program(Program {
                    path: fields.required_text("path", mistakes).to_owned(),
                    interpreter: fields.text("interpreter", mistakes).map(str::to_owned),
                    seconds: fields
                        .count("timeout", 1, MAX_SECONDS, mistakes)
                        .unwrap_or(DEFAULT_PROGRAM_SECONDS),
                    environment: names
                        .iter()
                        .filter_map(|name| name.as_str().map(str::to_owned))
                        .collect(),
                });
            }
            "remote" => {
                evaluator.how = How::Unsupported(
                    "evaluators are not fetched from the network: save the file beside the configuration and use `type: code`".to_owned(),
                );
            }
            "openai_eval" => {
                evaluator.how = How::Unsupported(
                    "OpenAI's evals service is not called: use `response_match_score`, `final_response_match_v2` or a program".to_owned(),
                );
            }
            "" => {}
            other => mistakes.add(
                &fields.at("type"),
                format!("`{other}` is none of builtin, code, remote, openai_eval"),
            ),
        }
        Some(evaluator)
    }

    fn warn_of_unknown(&mut self, fields: &Fields, known: &[&str]) {
        let mut unknown = Mistakes::default();
        fields.only(known, &mut unknown);
        self.warnings
            .extend(unknown.end(()).err().into_iter().flatten());
    }
}

fn limited<'a>(fields: &Fields<'a>, name: &str, mistakes: &mut Mistakes) -> &'a [Value] {
    let list = fields.list(name, mistakes).unwrap_or_default();
    if list.len() > MAX_EVALUATORS {
        let rule = format!(
            "has {} entries, at most {MAX_EVALUATORS} are taken",
            list.len()
        );
        mistakes.add(&fields.at(name), rule);
        return &[];
    }
    list
}

fn share(fields: &Fields, name: &str, mistakes: &mut Mistakes) -> Option<f64> {
    let number = fields.number(name, mistakes)?;
    if !(0.0..=1.0).contains(&number) {
        mistakes.add(&fields.at(name), "must be from 0 to 1");
    }
    Some(number)
}

/// The numbers that a built-in metric takes in its `config`, with what they are by default.
fn numbers_of(means: Means) -> &'static [(&'static str, Option<f64>)] {
    match means {
        Means::TokenEfficiency => &[("max_tokens", Some(10_000.0))],
        Means::ToolEfficiency => &[("max_calls", None)],
        Means::LatencyBudget => &[("max_seconds", Some(30.0))],
        Means::CostBudget => &[("max_usd", Some(0.1))],
        Means::StepCount => &[("max_steps", Some(20.0))],
        Means::Judge(_) => &[("samples", None)],
        _ => &[],
    }
}

/// What is wrong with the options of a built-in metric.
fn mistaken_options(evaluator: &Evaluator) -> Vec<String> {
    let Some(metric) = find(&evaluator.name) else {
        return Vec::new();
    };
    let numbers = numbers_of(metric.means);
    evaluator
        .config
        .iter()
        .filter_map(|(key, value)| {
            if metric.means == Means::ErrorFree && key == "ignore_recovered" {
                return (!value.is_boolean()).then(|| format!("`{key}` must be true or false"));
            }
            if !numbers.iter().any(|(name, _)| name == key) {
                return Some(format!("`{}` has no option `{key}`", evaluator.name));
            }
            let is_judge = matches!(metric.means, Means::Judge(_));
            let holds = if is_judge {
                value
                    .as_u64()
                    .is_some_and(|n| (1..=MAX_SAMPLES).contains(&n))
            } else {
                value.as_f64().is_some_and(|number| number >= 0.0)
            };
            (!holds).then(|| {
                if is_judge {
                    format!("`{key}` must be a whole number from 1 to {MAX_SAMPLES}")
                } else {
                    format!("`{key}` must be a number that is not negative")
                }
            })
        })
        .collect()
}

/// A number of a built-in metric's `config`, else its default; `None`: there is no limit.
pub(super) fn option(evaluator: &Evaluator, name: &str) -> Option<f64> {
    let said = evaluator.config.get(name).and_then(Value::as_f64);
    said.or_else(|| {
        let means = find(&evaluator.name)?.means;
        let (_, default) = numbers_of(means).iter().find(|(known, _)| *known == name)?;
        *default
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "
evaluators:
  - {name: my_check, type: code, path: ./my_check.py, threshold: 0.7, timeout: 5, config: {k: v}}
  - {name: tool_trajectory_avg_score, type: builtin, threshold: 0.9}
  - {name: shared, type: remote, source: github, ref: x.py}
  - {name: safety_v1, type: builtin, judge_model: openai/gpt-4o}
eval_set: set.json
threshold: 0.6
trajectory_match_type: in_order
judge: {samples: 3, timeout: 10}
budget: {max_calls: 7, max_usd: 0.5}
colour: red
";

    #[test]
    fn a_file_says_what_is_evaluated() {
        let config = Config::from_yaml(FILE).unwrap();
        let names: Vec<&str> = config.evaluators.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "tool_trajectory_avg_score",
                "safety_v1",
                "my_check",
                "shared"
            ]
        );
        let thresholds: Vec<f64> = config
            .evaluators
            .iter()
            .map(|e| config.threshold_of(e))
            .collect();
        assert_eq!(thresholds, [0.9, 0.6, 0.7, 0.5]);
        assert_eq!(config.match_type, Some(MatchType::InOrder));
        assert_eq!(
            (
                config.samples,
                config.judge_seconds,
                config.budget.max_calls
            ),
            (3, 10, 7)
        );
        assert_eq!(config.warnings, ["unknown key `colour`"]);
        let How::Program(program) = &config.evaluators[2].how else {
            panic!("{config:?}");
        };
        assert_eq!(
            (program.path.as_str(), program.seconds),
            ("./my_check.py", 5)
        );
    }

    #[test]
    fn a_command_line_goes_before_the_file() {
        let config = Config::from_yaml(FILE).unwrap().with(Overrides {
            metrics: vec!["response_match_score".into(), "safety_v1".into()],
            threshold: Some(0.8),
            ..Overrides::default()
        });
        let thresholds: Vec<f64> = config
            .evaluators
            .iter()
            .map(|e| config.threshold_of(e))
            .collect();
        assert_eq!(thresholds, [0.8, 0.8, 0.8, 0.7, 0.5]);
        assert_eq!(config.evaluators[2].name, "response_match_score");
        let plain = Config::default().with(Overrides::default());
        assert_eq!(plain.evaluators, [Evaluator::builtin(DEFAULT_METRIC)]);
    }

    #[test]
    fn a_request_brings_no_programs() {
        let operator = Config::from_yaml(FILE).unwrap();
        let request = json!({"metrics": ["response_match_score", "my_check"], "trajectoryMatchType": "ANY_ORDER",
            "customEvaluators": [{"name": "my_check", "type": "code", "path": "/etc/passwd"}]});
        let config = Config::from_request(&request, Some(&operator)).unwrap();
        assert_eq!(config.evaluators[1], operator.evaluators[2]);
        let mistakes = Config::from_request(&request, None).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].starts_with("custom_evaluators[0]: programs are not taken"));
        let mistakes =
            Config::from_request(&json!({"metrics": [], "threshold": 2}), None).unwrap_err();
        assert_eq!(
            mistakes,
            ["metrics: names no metric", "threshold: must be from 0 to 1"]
        );
    }

    #[test]
    fn mistakes_say_where_they_are() {
        let yaml = "evaluators:\n - {name: a}\n - {name: latency_budget, type: builtin, config: {max_second: 1}}\n - {name: b, type: shell}\n";
        assert_eq!(
            Config::from_yaml(yaml).unwrap_err(),
            [
                "evaluators[0].type: missing",
                "evaluators[1].config: `latency_budget` has no option `max_second`",
                "evaluators[2].type: `shell` is none of builtin, code, remote, openai_eval",
            ]
        );
        assert!(Config::from_yaml("a: [").unwrap_err()[0].starts_with("not YAML: "));
        assert_eq!(
            Config::from_yaml("- a").unwrap_err(),
            ["must be an object, it is a list"]
        );
    }
}
