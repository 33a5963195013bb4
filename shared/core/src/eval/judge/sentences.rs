//! A response in sentences, without a language's grammar.

/// The sentences of a text; what is left beyond the most is the last one.
///
/// A sentence ends with a line, or with a mark that is followed by space and not by a lower-case letter (`e.g. this` goes on).
pub(super) fn split(text: &str, most: usize) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut begun = 0;
        for (at, c) in line.char_indices() {
            let is_wide = matches!(c, '。' | '！' | '？');
            if !is_wide && !matches!(c, '.' | '!' | '?') {
                continue;
            }
            let end = at + c.len_utf8();
            let rest = line.get(end..).unwrap_or_default();
            let mut after = rest.chars();
            let is_end = is_wide
                || (after.next().is_none_or(char::is_whitespace)
                    && after
                        .find(|c| !c.is_whitespace())
                        .is_none_or(|c| !c.is_lowercase()));
            // `1. First` is one sentence with its number.
            let said = line.get(begun..end).unwrap_or_default().trim();
            let is_number = said
                .trim_end_matches('.')
                .chars()
                .all(|c| c.is_ascii_digit());
            if is_end && !is_number {
                push(&mut sentences, said, most);
                begun = end;
            }
        }
        push(
            &mut sentences,
            line.get(begun..).unwrap_or_default().trim(),
            most,
        );
    }
    sentences
}

fn push(sentences: &mut Vec<String>, sentence: &str, most: usize) {
    if !sentence.chars().any(char::is_alphanumeric) {
        return;
    }
    if sentences.len() >= most
        && let Some(last) = sentences.last_mut()
    {
        last.push(' ');
        last.push_str(sentence);
    } else {
        sentences.push(sentence.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn sentences_end_where_they_end() {
        assert_eq!(
            split(
                "It is 21.5 degrees, e.g. warm. Go out!\n\n1. Take a hat.\n---\n气温是21度。很暖和",
                10
            ),
            [
                "It is 21.5 degrees, e.g. warm.",
                "Go out!",
                "1. Take a hat.",
                "气温是21度。",
                "很暖和"
            ]
        );
        assert_eq!(split("A. B. C.", 2), ["A.", "B. C."]);
        assert!(split(" \n ...", 2).is_empty());
    }
}
