//! Porter's stemmer as Google's `rouge-score` uses it: the algorithm of 1980 with the extensions of NLTK (`PorterStemmer`, mode `NLTK_EXTENSIONS`).
//!
//! Snowball's "porter" is another function: it lacks the irregular forms and the rules marked as NLTK's below. Words are lower-case ASCII
//! letters and digits; digits count as consonants.

/// Forms that no rule gets right (NLTK's list).
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// A suffix, what stands in its place, and the measure that the rest must exceed.
type Rule = (&'static str, &'static str, usize);

/// The first rule whose suffix fits decides, also when its condition does not hold.
const STEP_2: [Rule; 21] = [
    ("ational", "ate", 0),
    ("tional", "tion", 0),
    ("enci", "ence", 0),
    ("anci", "ance", 0),
    ("izer", "ize", 0),
    ("bli", "ble", 0),
    ("alli", "al", 0),
    ("entli", "ent", 0),
    ("eli", "e", 0),
    ("ousli", "ous", 0),
    ("ization", "ize", 0),
    ("ation", "ate", 0),
    ("ator", "ate", 0),
    ("alism", "al", 0),
    ("iveness", "ive", 0),
    ("fulness", "ful", 0),
    ("ousness", "ous", 0),
    ("aliti", "al", 0),
    ("iviti", "ive", 0),
    ("biliti", "ble", 0),
    // NLTK's.
    ("fulli", "ful", 0),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic", 0),
    ("ative", "", 0),
    ("alize", "al", 0),
    ("iciti", "ic", 0),
    ("ical", "ic", 0),
    ("ful", "", 0),
    ("ness", "", 0),
];

const STEP_4: [Rule; 19] = [
    ("al", "", 1),
    ("ance", "", 1),
    ("ence", "", 1),
    ("er", "", 1),
    ("ic", "", 1),
    ("able", "", 1),
    ("ible", "", 1),
    ("ant", "", 1),
    ("ement", "", 1),
    ("ment", "", 1),
    ("ent", "", 1),
    // Only after s or t.
    ("ion", "", 1),
    ("ou", "", 1),
    ("ism", "", 1),
    ("ate", "", 1),
    ("iti", "", 1),
    ("ous", "", 1),
    ("ive", "", 1),
    ("ize", "", 1),
];

/// The stem of a lower-case ASCII word; linear in its length.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let word = step_1a(word);
    let word = step_1b(&word);
    let word = step_1c(&word);
    let word = step_2(&word);
    let word = apply(&word, &STEP_3);
    let word = apply(&word, &STEP_4);
    let word = step_5a(&word);
    step_5b(&word)
}

fn step_1a(word: &str) -> String {
    if let Some(rest) = word.strip_suffix("ies") {
        // NLTK's: dies, not di.
        let end = if word.len() == 4 { "ie" } else { "i" };
        return format!("{rest}{end}");
    }
    if let Some(rest) = word.strip_suffix("sses") {
        return format!("{rest}ss");
    }
    if word.ends_with("ss") {
        return word.to_owned();
    }
    word.strip_suffix('s').unwrap_or(word).to_owned()
}

fn step_1b(word: &str) -> String {
    // NLTK's.
    if let Some(rest) = word.strip_suffix("ied") {
        let end = if word.len() == 4 { "ie" } else { "i" };
        return format!("{rest}{end}");
    }
    if let Some(rest) = word.strip_suffix("eed") {
        return if measure(rest) > 0 {
            format!("{rest}ee")
        } else {
            word.to_owned()
        };
    }
    let Some(rest) = ["ed", "ing"]
        .into_iter()
        .filter_map(|suffix| word.strip_suffix(suffix))
        .find(|rest| has_vowel(rest))
    else {
        return word.to_owned();
    };
    if rest.ends_with("at") || rest.ends_with("bl") || rest.ends_with("iz") {
        return format!("{rest}e");
    }
    if ends_double_consonant(rest) {
        return match rest.bytes().last() {
            Some(b'l' | b's' | b'z') | None => rest.to_owned(),
            Some(_) => rest.get(..rest.len() - 1).unwrap_or(rest).to_owned(),
        };
    }
    if measure(rest) == 1 && ends_cvc(rest) {
        return format!("{rest}e");
    }
    rest.to_owned()
}

/// NLTK's condition: only after a consonant that is not the whole stem.
fn step_1c(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(rest) if rest.len() > 1 && consonants(rest).last() == Some(true) => {
            format!("{rest}i")
        }
        _ => word.to_owned(),
    }
}

fn step_2(word: &str) -> String {
    // NLTK's: the result goes through the step again; it ends in `al`, so once.
    if let Some(rest) = word.strip_suffix("alli")
        && measure(rest) > 0
    {
        return apply(&format!("{rest}al"), &STEP_2);
    }
    if STEP_2.iter().any(|(suffix, ..)| word.ends_with(suffix)) {
        return apply(word, &STEP_2);
    }
    // NLTK's: the `l` counts with the stem, so that `geologi` is as `archaeologi`.
    match (word.strip_suffix("logi"), word.len().checked_sub(3)) {
        (Some(rest), Some(end)) if word.get(..end).is_some_and(|stem| measure(stem) > 0) => {
            format!("{rest}log")
        }
        _ => word.to_owned(),
    }
}

fn step_5a(word: &str) -> String {
    let Some(rest) = word.strip_suffix('e') else {
        return word.to_owned();
    };
    match measure(rest) {
        0 => word.to_owned(),
        1 if ends_cvc(rest) => word.to_owned(),
        _ => rest.to_owned(),
    }
}

fn step_5b(word: &str) -> String {
    match word.strip_suffix('l') {
        Some(rest) if rest.ends_with('l') && measure(rest) > 1 => rest.to_owned(),
        _ => word.to_owned(),
    }
}

fn apply(word: &str, rules: &[Rule]) -> String {
    for (suffix, replacement, above) in rules {
        let Some(rest) = word.strip_suffix(suffix) else {
            continue;
        };
        let holds = measure(rest) > *above
            && (*suffix != "ion" || rest.ends_with('s') || rest.ends_with('t'));
        return if holds {
            format!("{rest}{replacement}")
        } else {
            word.to_owned()
        };
    }
    word.to_owned()
}

/// For each letter whether it is a consonant: `y` is one unless it follows one.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    word.bytes()
        .scan(None, |before: &mut Option<bool>, letter| {
            let is = match letter {
                b'a' | b'e' | b'i' | b'o' | b'u' => false,
                b'y' => before.is_none_or(|before| !before),
                _ => true,
            };
            *before = Some(is);
            Some(is)
        })
}

/// How often a vowel is followed by a consonant.
fn measure(word: &str) -> usize {
    let mut before = true;
    consonants(word)
        .filter(|is| {
            let counts = *is && !before;
            before = *is;
            counts
        })
        .count()
}

fn has_vowel(word: &str) -> bool {
    consonants(word).any(|is| !is)
}

fn ends_double_consonant(word: &str) -> bool {
    let mut last = word.bytes().rev();
    last.next().is_some_and(|a| last.next() == Some(a)) && consonants(word).last() == Some(true)
}

/// Consonant, vowel, consonant that is not w, x or y; NLTK's: also just vowel, consonant.
fn ends_cvc(word: &str) -> bool {
    let (mut c, mut b, mut a) = (None, None, None);
    for is in consonants(word) {
        (c, b, a) = (b, a, Some(is));
    }
    match (c, b, a) {
        (Some(true), Some(false), Some(true)) => {
            !matches!(word.bytes().last(), Some(b'w' | b'x' | b'y'))
        }
        (None, Some(false), Some(true)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn words_have_the_stems_of_nltk() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("dies", "die"),
            ("died", "die"),
            ("spied", "spi"),
            ("cats", "cat"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("plastered", "plaster"),
            ("sing", "sing"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("radically", "radic"),
            ("geology", "geolog"),
            ("hopefully", "hope"),
            ("adoption", "adopt"),
            ("controll", "control"),
            ("rate", "rate"),
            ("succeed", "succeed"),
            ("dying", "die"),
            ("yyyy", "yyyi"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
