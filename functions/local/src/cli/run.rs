//! `tailspan run`: scores recorded runs from files, for people and for pipelines.

use std::fmt::Display;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tailspan_core::eval::config::{Overrides, TurnCount};
use tailspan_core::eval::trajectory::MatchType;
use tailspan_core::eval::{Config, EvalSet, RunResult, Subject, report};
use tailspan_core::files::{self, FileError, FileTrace, Format};
use tailspan_core::pricing::Prices;
use tailspan_service::evaluation::{Evaluation, Progress, Providers, Request};

use super::Outcome;
use super::input::{self, Source};
use super::terminal::{self, clean, clean_json};

/// What `tailspan run` can be told.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  tailspan run trace.json --eval-set golden.json
  tailspan run traces/ -e golden.json -m tool_trajectory_avg_score -m response_match_score --threshold 0.8
  tailspan run - --config evaluators.yaml --output summary < trace.jsonl.gz
  tailspan run traces/ -e golden.json -o report.xml -o results.json     # for a pipeline, beside the table

Exit code: 0 when everything passed, 1 when a metric failed, could not be computed, or a file could not be read, 2 when the command
line cannot be understood or names a file that is not there.")]
pub struct RunOptions {
    /// Trace files, directories of them, or - for standard input; gzip and zstd are unpacked
    #[arg(value_name = "FILES", required = true, value_parser = existing_or_stdin)]
    pub files: Vec<PathBuf>,

    /// The golden runs to compare with: an eval set, JSON
    #[arg(short, long, value_name = "FILE", value_parser = existing)]
    pub eval_set: Option<PathBuf>,

    /// Evaluators, their thresholds, rubrics, judges and budgets: YAML
    #[arg(short, long, value_name = "FILE", value_parser = existing)]
    pub config: Option<PathBuf>,

    /// A metric; may be repeated (`tailspan metrics` lists them) [default: tool_trajectory_avg_score]
    #[arg(short, long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,

    /// What a score must reach [default: 0.5]
    #[arg(short, long, value_name = "SCORE", allow_negative_numbers = true)]
    pub threshold: Option<f64>,

    /// How tool calls are compared: EXACT, IN_ORDER or ANY_ORDER
    #[arg(long, value_name = "TYPE", value_parser = match_type)]
    pub trajectory_match_type: Option<MatchType>,

    /// Who judges where a metric asks a model [default: gemini-2.5-flash]
    #[arg(short, long, value_name = "MODEL")]
    pub judge_model: Option<String>,

    /// How the files are written [default: told by their content]
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::NAMES)]
    pub format: Option<String>,

    /// Turns that only the run or only the eval set has: count as 0, or truncate, which leaves them out
    #[arg(long, value_name = "HOW", value_parser = TurnCount::NAMES)]
    pub turns: Option<String>,

    /// A JSON file of prices of models, which go before the built-in ones
    #[arg(long, env = "TAILSPAN_PRICES", value_name = "FILE", value_parser = existing)]
    pub prices: Option<PathBuf>,

    /// What is printed (table, json, summary or junit), or a file to write beside it: its ending says what (.json, .xml), else it is
    /// what is printed; may be repeated [default: table]
    #[arg(short, long, value_name = "FORM|FILE", value_parser = output)]
    pub output: Vec<Output>,
}

/// A form, or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Form(Form),
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    Json,
    Summary,
    Junit,
}

impl Form {
    fn of(self, run: &RunResult) -> anyhow::Result<String> {
        Ok(match self {
            Self::Table => report::table(run),
            Self::Summary => report::summary(run),
            Self::Junit => report::junit(run),
            Self::Json => serde_json::to_string_pretty(&report::json(run))?,
        })
    }
}

/// A word that is none of the forms and has nothing of a file's name is a slip, and no reason to write a file of that name.
fn output(text: &str) -> Result<Output, String> {
    match Form::from_str(text, false) {
        Ok(form) => Ok(Output::Form(form)),
        Err(_) if text.contains(['.', '/']) => Ok(Output::File(text.into())),
        Err(_) => {
            Err("none of table, json, summary, junit, and no file name with an ending".to_owned())
        }
    }
}

fn existing(text: &str) -> Result<PathBuf, String> {
    match Path::new(text).exists() {
        true => Ok(text.into()),
        false => Err("there is no such file".to_owned()),
    }
}

fn existing_or_stdin(text: &str) -> Result<PathBuf, String> {
    match text {
        "-" => Ok(text.into()),
        text => existing(text),
    }
}

fn match_type(text: &str) -> Result<MatchType, String> {
    MatchType::parse(&text.to_ascii_uppercase())
}

/// Evaluates the files and prints what was found.
///
/// # Errors
/// The configuration or the prices have mistakes, a report cannot be written, or nobody reads.
pub async fn run(options: &RunOptions) -> anyhow::Result<Outcome> {
    let run = evaluate(options, Vec::new(), &Bar::new()).await?;
    tell(&run, &options.output)?;
    Ok(match run.is_success() {
        true => Outcome::Well,
        false => Outcome::Failed,
    })
}

/// Evaluates the files, and what was fetched from elsewhere under these names.
///
/// # Errors
/// The configuration or the prices have mistakes. What is wrong with a file or the eval set is told in the result.
pub(super) async fn evaluate(
    options: &RunOptions,
    fetched: Vec<(String, Vec<u8>)>,
    bar: &Bar,
) -> anyhow::Result<RunResult> {
    let config = config(options)?;
    for warning in &config.warnings {
        terminal::remark(warning);
    }
    let prices = Arc::new(prices(options.prices.as_deref())?);
    let mut errors = Vec::new();
    let mut subjects = subjects(&options.files, &config, &prices, bar, &mut errors);
    for (name, bytes) in fetched {
        match files::read(&name, &bytes, Some(Format::OtlpJson)) {
            Ok(traces) => subjects.extend(traces.iter().map(|trace| subject(trace, &prices))),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let eval_set = match eval_set(options, &config) {
        Some(Ok(set)) => Some(set),
        Some(Err(error)) => {
            errors.push(error);
            None
        }
        None => None,
    };
    let evaluation = Evaluation::new(
        Providers::from_vars(|name| std::env::var(name).ok()),
        prices,
    );
    let request = Request {
        subjects: &subjects,
        eval_set: eval_set.as_ref(),
        config: &config,
        folder: options.config.as_deref().map(folder),
    };
    let mut run = evaluation
        .run(request, &|progress| bar.show(progress))
        .await;
    bar.done();
    errors.append(&mut run.errors);
    run.errors = errors;
    Ok(run)
}

fn config(options: &RunOptions) -> anyhow::Result<Config> {
    let file = match &options.config {
        None => Config::default(),
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
            Config::from_yaml(&text).map_err(|mistakes| wrong(path, &mistakes))?
        }
    };
    let turns = options.turns.as_deref().map(TurnCount::parse).transpose();
    Ok(file.with(Overrides {
        metrics: options.metrics.clone(),
        eval_set: None,
        judge_model: options.judge_model.clone(),
        threshold: options.threshold,
        match_type: options.trajectory_match_type,
        trace_format: options.format.clone(),
        turns: turns.map_err(anyhow::Error::msg)?,
    }))
}

fn prices(path: Option<&Path>) -> anyhow::Result<Prices> {
    let Some(path) = path else {
        return Ok(Prices::builtin());
    };
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
    let prices = Prices::parse(&text).and_then(|file| Prices::builtin().with(file));
    prices.map_err(|mistakes| wrong(path, &mistakes))
}

fn wrong<T: Display>(path: &Path, mistakes: &[T]) -> anyhow::Error {
    let mistakes: Vec<String> = mistakes.iter().map(T::to_string).collect();
    anyhow::anyhow!("{}: {}", path.display(), mistakes.join("; "))
}

/// Where relative paths of a configuration begin.
fn folder(config: &Path) -> &Path {
    match config.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The eval set of the command line, else that of the configuration: from here, else from where the configuration is.
fn eval_set(options: &RunOptions, config: &Config) -> Option<Result<EvalSet, String>> {
    let path = match (&options.eval_set, &config.eval_set, &options.config) {
        (Some(path), ..) => path.clone(),
        (None, Some(said), Some(file)) if !Path::new(said).exists() => folder(file).join(said),
        (None, Some(said), _) => PathBuf::from(said),
        (None, None, _) => return None,
    };
    let failed =
        |cause: &dyn Display| format!("Failed to load eval set '{}': {cause}", path.display());
    Some(match fs::read(&path) {
        Ok(bytes) => EvalSet::parse(&bytes).map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    })
}

/// Every trace of every file; what cannot be read is an error of the run, and the rest goes on.
fn subjects(
    files: &[PathBuf],
    config: &Config,
    prices: &Prices,
    bar: &Bar,
    errors: &mut Vec<String>,
) -> Vec<Subject> {
    let format = config.trace_format.as_deref();
    let format = match format.map(str::parse::<Format>).transpose() {
        Ok(format) => format,
        Err(error) => {
            errors.push(error.to_string());
            return Vec::new();
        }
    };
    let mut subjects = Vec::new();
    for source in input::sources(files) {
        if let Ok(source) = &source {
            bar.reads(&source.name());
        }
        let traces = source.and_then(|source: Source| source.traces(format));
        match traces {
            Ok(traces) => {
                let traces = traces.iter().flatten();
                subjects.extend(traces.map(|trace| subject(trace, prices)));
            }
            Err(error) => {
                let message = format!(
                    "Failed to load trace file '{}': {}",
                    error.name,
                    place(&error)
                );
                errors.push(message);
            }
        }
    }
    subjects
}

/// The id is that which its file has: that is what somebody looks for.
fn subject(trace: &FileTrace, prices: &Prices) -> Subject {
    Subject::of(&trace.spelled, &trace.fold(), prices)
}

/// What is wrong and where, without the name.
fn place(error: &FileError) -> String {
    match error.place {
        Some((line, column)) => format!("line {line}, column {column}: {}", error.message),
        None => error.message.clone(),
    }
}

/// Prints what was found, and writes the files.
fn tell(run: &RunResult, outputs: &[Output]) -> anyhow::Result<()> {
    let form = outputs.iter().rev().find_map(|output| match output {
        Output::Form(form) => Some(*form),
        Output::File(_) => None,
    });
    let form = form.unwrap_or(Form::Table);
    for output in outputs {
        let Output::File(path) = output else { continue };
        let ending = path.extension().and_then(|ending| ending.to_str());
        let form = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("json") => Form::Json,
            Some("xml") => Form::Junit,
            _ => form,
        };
        let mut text = form.of(run)?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let text = form.of(run)?;
    let text = text.trim_end_matches('\n');
    match form {
        Form::Json => terminal::say(&clean_json(text))?,
        Form::Table | Form::Summary | Form::Junit => {
            for line in text.split('\n') {
                terminal::say(&clean(line))?;
            }
        }
    }
    Ok(())
}

/// How far it is, on a terminal; nothing anywhere else.
pub(super) struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    fn reads(&self, file: &str) {
        self.0.set_message(format!("reading {}", clean(file)));
    }

    fn show(&self, progress: Progress<'_>) {
        match progress {
            Progress::Begun { traces } => {
                let style = ProgressStyle::with_template(
                    "{spinner} {bar:30} {pos}/{len} traces {wide_msg}",
                );
                if let Ok(style) = style {
                    self.0.set_style(style);
                }
                self.0.set_length(traces as u64);
            }
            Progress::Trace {
                number, subject, ..
            } => {
                self.0.set_position((number as u64).saturating_sub(1));
                self.0.set_message(clean(&subject.trace_id).into_owned());
            }
            Progress::Evaluator { name } => self.0.set_message(clean(name).into_owned()),
            Progress::Result(_) => {}
            Progress::Ended => self.done(),
        }
    }

    fn done(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_a_form_or_a_file() {
        assert_eq!(output("json"), Ok(Output::Form(Form::Json)));
        assert_eq!(output("junit"), Ok(Output::Form(Form::Junit)));
        assert_eq!(output("r.xml"), Ok(Output::File("r.xml".into())));
        assert_eq!(output("./json"), Ok(Output::File("./json".into())));
        assert!(output("tabel").is_err());
        assert!(output("JSON").is_err());
    }
}
