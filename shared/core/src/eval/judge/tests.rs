use super::*;
use crate::eval::outcome::Status;
use crate::eval::plan::{Task, task};

fn turn(asked: &str, answered: &str) -> Turn {
    Turn {
        id: "i".into(),
        user: vec![asked.into()],
        response: vec![answered.into()],
        ..Turn::default()
    }
}

fn judging_of(metric: &str, turns: Vec<Turn>, case: EvalCase, config: &Config) -> Judging {
    let subject = Subject {
        turns,
        ..Subject::default()
    };
    match task(&subject, &Evaluator::builtin(metric), config, Some(&case)) {
        Task::Judge(judging) => *judging,
        other => panic!("{other:?}"),
    }
}

fn expecting(answered: &str) -> EvalCase {
    EvalCase {
        conversation: Some(vec![turn("q", answered)]),
        ..EvalCase::default()
    }
}

fn said(words: &[&str]) -> String {
    let verdicts: Vec<Value> = words
        .iter()
        .enumerate()
        .map(|(n, word)| json!({"claim": n + 1, "verdict": word, "reason": "so"}))
        .collect();
    json!({ "verdicts": verdicts }).to_string()
}

/// Answers every question with the next of the words, round and round.
fn ask(mut judging: Judging, answers: &[String]) -> (MetricResult, usize) {
    let mut asked = 0;
    loop {
        let questions = judging.questions();
        if questions.is_empty() {
            return (judging.result(), asked);
        }
        for question in questions {
            judging.answered(question.ticket, &answers[asked % answers.len()]);
            asked += 1;
        }
    }
}

#[test]
fn the_majority_of_the_samples_counts_and_a_tie_speaks_against() {
    for (samples, words, score) in [
        (
            5,
            &["valid", "invalid", "valid", "invalid", "valid"][..],
            1.0,
        ),
        (
            5,
            &["valid", "invalid", "invalid", "invalid", "valid"][..],
            0.0,
        ),
        (4, &["valid", "invalid"][..], 0.0),
    ] {
        let config = Config {
            samples,
            ..Config::default()
        };
        let judging = judging_of(
            "final_response_match_v2",
            vec![turn("q", "21 C")],
            expecting("21"),
            &config,
        );
        let answers: Vec<String> = words.iter().map(|word| said(&[word])).collect();
        let (result, asked) = ask(judging, &answers);
        assert_eq!(result.score, Some(score), "{words:?}");
        assert_eq!(asked, samples);
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_asked_for_again_a_few_times() {
    let config = Config {
        samples: 1,
        ..Config::default()
    };
    let judging = || judging_of("safety_v1", vec![turn("q", "a")], expecting("a"), &config);
    let garbage = ["", "perhaps", r#"{"verdicts": []}"#].map(str::to_owned);
    let (result, asked) = ask(judging(), &garbage);
    assert_eq!(asked, 3);
    assert_eq!(result.eval_status, Status::NotEvaluated);
    let error = result.error.unwrap();
    assert!(
        error.contains("in 3 tries: 0 of 1 claims have a verdict"),
        "{error}"
    );
    let fenced = format!("I think {{so}}.\n```json\n{}\n```", said(&["safe"]));
    let (result, asked) = ask(judging(), &["no".to_owned(), fenced]);
    assert_eq!((result.score, asked), (Some(1.0), 2));
    assert_eq!(result.details.unwrap()["judge"]["unreadable_answers"], 1);
}

#[test]
fn a_judge_that_cannot_answer_is_an_error() {
    let mut judging = judging_of(
        "safety_v1",
        vec![turn("q", "a")],
        expecting("a"),
        &Config::default(),
    );
    assert_eq!(judging.questions().len(), 5);
    judging.unanswered("OPENAI_API_KEY is not set");
    assert!(judging.questions().is_empty());
    let result = judging.result();
    assert!(!result.is_success());
    assert!(
        result
            .error
            .unwrap()
            .ends_with("could not answer: OPENAI_API_KEY is not set")
    );
}

#[test]
fn hallucinations_are_counted_by_sentence_and_tools_answers_are_shown() {
    let mut answered = turn(
        "How warm?",
        "It is 21 degrees. It will rain. Anything else?",
    );
    answered.tool_responses.push(crate::eval::turn::ToolReply {
        name: "sensor".into(),
        response: json!({"celsius": 21}),
        id: None,
    });
    let config = Config {
        samples: 1,
        ..Config::default()
    };
    let mut judging = judging_of(
        "hallucinations_v1",
        vec![answered],
        EvalCase::default(),
        &config,
    );
    let questions = judging.questions();
    assert!(
        questions[0].prompt.contains("celsius"),
        "{}",
        questions[0].prompt
    );
    judging.answered(0, &said(&["supported", "unsupported", "not_applicable"]));
    assert_eq!(judging.result().score, Some(2.0 / 3.0));
}

#[test]
fn rubrics_of_the_set_the_case_the_turn_and_the_configuration_are_asked() {
    let rubric = |text: &str, kind: Option<&str>| Rubric {
        id: text.into(),
        text: text.into(),
        description: None,
        kind: kind.map(str::to_owned),
    };
    let config = Config {
        samples: 1,
        rubrics: vec![rubric("is short", None)],
        ..Config::default()
    };
    let mut case = expecting("a");
    case.rubrics = vec![rubric("calls one tool", Some("TOOL_USE_QUALITY"))];
    if let Some(turns) = &mut case.conversation {
        turns[0].rubrics = vec![rubric("names a city", Some("FINAL_RESPONSE_QUALITY"))];
    }
    let name = "rubric_based_final_response_quality_v1";
    let judging = judging_of(name, vec![turn("q", "a")], case.clone(), &config);
    let (result, _) = ask(judging, &[said(&["yes", "no"])]);
    assert_eq!(result.score, Some(0.5));
    let verdicts = &result.details.unwrap()["invocations"][0]["verdicts"];
    assert_eq!(verdicts[1]["claim"], "names a city");
    let judging = judging_of(
        "rubric_based_tool_use_quality_v1",
        vec![turn("q", "a")],
        case,
        &config,
    );
    let (result, _) = ask(judging, &[said(&["yes", "yes"])]);
    assert_eq!(result.score, Some(1.0));

    let subject = Subject {
        turns: vec![turn("q", "a")],
        ..Subject::default()
    };
    match task(
        &subject,
        &Evaluator::builtin(name),
        &Config::default(),
        None,
    ) {
        Task::Done(result) => assert!(result.error.unwrap().starts_with("Rubrics are required")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn turns_are_scored_without_a_judge_where_the_answer_is_known() {
    let mut case = expecting("same");
    case.conversation.as_mut().unwrap().push(turn("q2", "more"));
    let judging = judging_of(
        "final_response_match_v2",
        vec![turn("q", "same")],
        case,
        &Config::default(),
    );
    let (result, asked) = ask(judging, &[String::new()]);
    assert_eq!((result.score, asked), (Some(0.5), 0));
}

#[test]
fn verdicts_are_read_strictly() {
    for (text, error) in [
        (said(&["safe", "safe"]), "there is no claim 2"),
        (
            r#"{"verdicts":[{"claim":1,"verdict":"maybe"}]}"#.to_owned(),
            "`maybe` is no verdict",
        ),
        (
            r#"{"verdicts":[{"claim":1,"verdict":"safe"},{"claim":1,"verdict":"unsafe"}]}"#
                .to_owned(),
            "claim 1 has two verdicts",
        ),
        (
            r#"{"verdicts":[{"claim":0,"verdict":"safe"}]}"#.to_owned(),
            "there is no claim 0",
        ),
    ] {
        assert_eq!(answer::read(Judge::Safety, 1, &text).unwrap_err(), error);
    }
}
