//! ROUGE-1: how many words two texts have in common, as Google's `rouge-score` counts them with stemming.

use std::collections::HashMap;

use super::stem::stem;

/// The F-measure, 0 to 1, of the words that `candidate` and `reference` share; 0 when either has none.
///
/// Words are runs of `[a-z0-9]` after lower-casing, stemmed when longer than three letters; a word counts as often as it stands in both.
/// Linear in the texts.
pub fn rouge_1(candidate: &str, reference: &str) -> f64 {
    let (candidate, reference) = (counted(candidate), counted(reference));
    let total = |words: &HashMap<String, u64>| words.values().sum::<u64>().max(1) as f64;
    let shared: u64 = reference
        .iter()
        .map(|(word, count)| *count.min(candidate.get(word).unwrap_or(&0)))
        .sum();
    let precision = shared as f64 / total(&candidate);
    let recall = shared as f64 / total(&reference);
    if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    }
}

fn counted(text: &str) -> HashMap<String, u64> {
    let mut words = HashMap::new();
    for word in words_of(text) {
        *words.entry(word).or_insert(0) += 1;
    }
    words
}

fn words_of(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| {
            if word.len() > 3 {
                stem(word)
            } else {
                word.to_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_often_as_both_have_them() {
        assert_eq!(rouge_1("The cats sat.", "the cat sat"), 1.0);
        assert_eq!(rouge_1("a a b", "a b b"), 2.0 / 3.0);
        assert_eq!(rouge_1("", "a"), 0.0);
        assert_eq!(rouge_1("", ""), 0.0);
        assert_eq!(
            words_of("Naïve Relational-ISTANBUL İ"),
            ["na", "ve", "relat", "istanbul", "i"]
        );
    }
}
