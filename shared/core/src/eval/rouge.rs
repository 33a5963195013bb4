//! ROUGE-1: how many words two texts have in common, as Google's `rouge-score` counts them with stemming.

use std::collections::HashMap;

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use super::stem::stem;

/// The F-measure, 0 to 1, of the words that `candidate` and `reference` share; 0 when either has none.
///
/// Words are runs of `[a-z0-9]` after lower-casing, stemmed when longer than three letters; a word counts as often as it stands in both.
/// Linear in the texts.
pub fn rouge_1(candidate: &str, reference: &str) -> f64 {
    f_measure(words_of(candidate), words_of(reference))
}

/// As [`rouge_1`], for text in any script: `response_match_score` as Google's ADK counts it since it knows more than Latin letters.
///
/// Text is brought into one form (NFKC) and lower-cased. A word is a run of letters, digits and marks; Chinese, Japanese and Korean characters are words of their own, those of
/// Thai, Lao, Khmer and Burmese with the marks that follow them. Words of `[a-z0-9]` are stemmed, others compared as they are. Linear in the texts.
pub fn rouge_1_of_any_script(candidate: &str, reference: &str) -> f64 {
    f_measure(
        words_of_any_script(candidate),
        words_of_any_script(reference),
    )
}

fn f_measure(candidate: Vec<String>, reference: Vec<String>) -> f64 {
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

fn counted(words: Vec<String>) -> HashMap<String, u64> {
    let mut counted = HashMap::new();
    for word in words {
        *counted.entry(word).or_insert(0) += 1;
    }
    counted
}

fn words_of_any_script(text: &str) -> Vec<String> {
    let text = text.nfkc().collect::<String>().to_lowercase();
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Han, Hiragana, Katakana, Hangul.
            '\u{4e00}'..='\u{9fff}' | '\u{3040}'..='\u{30ff}' | '\u{ac00}'..='\u{d7af}' => {
                spaced.extend([' ', c, ' ']);
            }
            c if is_combining_mark(c) => spaced.push(c),
            // Thai and Lao, Burmese, Khmer.
            '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' => {
                spaced.extend([' ', c]);
            }
            c if c.is_alphanumeric() => spaced.push(c),
            _ => spaced.push(' '),
        }
    }
    let words = spaced.split_whitespace();
    words
        .map(|word| match word.is_ascii() && word.len() > 3 {
            true => stem(word),
            false => word.to_owned(),
        })
        .collect()
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
    fn every_script_has_words() {
        let same = |one: &str, other: &str| rouge_1_of_any_script(one, other);
        assert_eq!(same("The cats sat.", "the cat sat"), 1.0);
        assert_eq!(same("東京都", "京"), 0.5);
        assert_eq!(same("naïve İstanbul", "NAI\u{308}VE other"), 0.5);
        assert_eq!(same("\u{e01}\u{e31}\u{e02}", "\u{e01}\u{e31}"), 2.0 / 3.0);
        assert_eq!(same("नमस्ते दुनिया", "नमस्ते"), 2.0 / 3.0);
        assert_eq!(same("😀 !", "😀"), 0.0);
        assert_eq!(rouge_1("東京", "東京"), 0.0);
    }

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
