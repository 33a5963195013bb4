//! ROUGE-1 against Google's `rouge-score`: pairs of texts with the score that it gave them.
//!
//! `tests/peers/rouge.py` makes them; `TAILSPAN_ROUGE_PAIRS` names a file with more.

use tailspan_core::eval::rouge::rouge_1;

#[test]
fn scores_are_those_of_rouge_score() {
    let pairs = match std::env::var("TAILSPAN_ROUGE_PAIRS") {
        Ok(path) => std::fs::read_to_string(path).unwrap(),
        Err(_) => include_str!("rouge.json").to_owned(),
    };
    let pairs: Vec<(String, String, f64)> = serde_json::from_str(&pairs).unwrap();
    for (candidate, reference, score) in &pairs {
        let ours = rouge_1(candidate, reference);
        assert!(
            (ours - score).abs() <= 1e-9,
            "{ours} instead of {score}: {candidate:?} / {reference:?}"
        );
    }
    eprintln!("{} pairs are scored alike", pairs.len());
}
