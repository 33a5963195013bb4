//! What is taken out wherever it stands: credentials by their form always, e-mail addresses and card numbers when they are asked for.
//!
//! The forms of keys are those that their issuers publish (and that the secret scanners of GitHub and GitLab look for). All of it is ASCII, so it is looked for in bytes.

use std::{ops::Range, sync::LazyLock};

use regex::bytes::{Captures, Regex, RegexBuilder};

/// A form. What is taken out is group 1, else all of it.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    check: Check,
}

/// What a form alone does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    None,
    /// A run of letters may be a word; a key has a digit in it.
    Digit,
    /// The check digit and the length of an issuer's numbers.
    Card,
    /// What stands around it: a local part before, a domain behind.
    Email,
}

/// Taken out always: form, check. Each stands for itself and begins with something that prose seldom has.
const CREDENTIALS: [(&str, Check); 16] = [
    // To its end, or to the end of the text where it was cut off.
    (
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)",
        Check::None,
    ),
    // JSON Web Tokens (RFC 7519) and encrypted ones (RFC 7516): `{"` is `eyJ` in base64.
    (
        r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}",
        Check::None,
    ),
    (
        r"(?i)\bbearer(?:\s|%20|\+)+([A-Za-z0-9._~+/=%\\-]{12,})",
        Check::Digit,
    ),
    (r"(?i)\bbasic\s+([A-Za-z0-9+/]{12,}={0,2})", Check::Digit),
    // Who and with which password, in a URL (RFC 3986, 3.2.1).
    (
        r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@"'<>\\]*:([^\s/@"'<>\\]+)@"#,
        Check::None,
    ),
    // AWS: ids of access keys, long-lived and temporary.
    (r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b", Check::None),
    // OpenAI, Anthropic, OpenRouter, DeepSeek and others.
    (r"\bsk-[A-Za-z0-9_-]{20,}", Check::Digit),
    // Google: API keys and OAuth tokens.
    (r"\bAIza[A-Za-z0-9_-]{35}", Check::None),
    (r"\bya29\.[A-Za-z0-9_-]{20,}", Check::None),
    // GitHub and GitLab.
    (
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|gl[a-z]{2,6}-[A-Za-z0-9_-]{20,})",
        Check::Digit,
    ),
    // Slack: tokens and the URLs of incoming webhooks.
    (
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{20,}|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+]{16,}",
        Check::Digit,
    ),
    // Stripe, and others that do as Stripe does.
    (r"\b[a-z]{2,5}_(?:live|test)_[A-Za-z0-9]{16,}", Check::Digit),
    // Hugging Face, npm, Groq, xAI, Perplexity, Replicate, Tavily, Databricks, DigitalOcean.
    (
        r"\b(?:hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|pplx-[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}|tvly-[A-Za-z0-9-]{20,}|dapi[0-9a-f]{32}|do[oprt]_v1_[0-9a-f]{64})",
        Check::Digit,
    ),
    (r"\bpypi-[A-Za-z0-9_-]{50,}", Check::None),
    (r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", Check::None),
    // Our own API keys.
    (r"\bts_[a-z0-9]{8,}_[A-Za-z0-9_-]{20,}", Check::Digit),
];

/// Of any of those, seen in one quick look: how each begins. More is let through than is taken out.
const CREDENTIALS_BEGIN: &str = r"PRIVATE KEY|eyJ[A-Za-z0-9_-]{8}|(?i:bearer)(?:\s|%20|\+)|(?i:basic)\s+[A-Za-z0-9+/]{12}|://[^\s/:@]*:[^\s/@]+@|A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{4}|sk-[A-Za-z0-9_-]{20}|AIza|ya29\.|gh[pousr]_|github_pat_|gl[a-z]{2,6}-[A-Za-z0-9_-]{20}|xox[abeoprs]-|xapp-|hooks\.slack\.com/|_(?:live|test)_|hf_[A-Za-z0-9]{8}|npm_[A-Za-z0-9]{8}|gsk_|xai-|pplx-|r8_|tvly-|dapi[0-9a-f]{8}|do[oprt]_v1_|pypi-|SG\.|ts_[a-z0-9]{8}";

/// `@`, as itself or as URLs have it. What stands around it is found by [`email_around`]: an expression with that many counted parts looks at a long text again and again.
const EMAIL: &str = r"@|%40";
const EMAIL_BEGINS: &str = r"(?:@|%40)[A-Za-z0-9-]+\.";

/// 13 to 19 digits (ISO/IEC 7812), side by side or in groups, that no letter or digit touches; the first one is that of a payment card's issuer.
const CARD: &str = r"(?:^|[^A-Za-z0-9_.-])([2-6](?:[ -]?[0-9]){12,18})(?:[^A-Za-z0-9_-]|$)";
const CARD_BEGINS: &str = r"[2-6](?:[ -]?[0-9]){12}";

/// The names under which more can be asked for.
pub(super) const NAMED: [&str; 2] = ["email", "card"];

impl Pattern {
    /// Those that are always looked for: made when a quick look saw something.
    pub(super) fn credentials() -> &'static [Self] {
        static MADE: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
            let all = CREDENTIALS.iter();
            all.filter_map(|(regex, check)| Pattern::new(regex, *check).ok())
                .collect()
        });
        &MADE
    }

    /// One of [`NAMED`].
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "email" => Self::new(EMAIL, Check::Email).ok(),
            "card" => Self::new(CARD, Check::Card).ok(),
            _ => None,
        }
    }

    /// A form of an operator's own.
    pub(super) fn own(regex: &str) -> Result<Self, String> {
        let own = Self::new(regex, Check::None)?;
        match own.regex.is_match(b"") {
            true => Err("it matches nothing at all, so everywhere".to_owned()),
            false => Ok(own),
        }
    }

    fn new(regex: &str, check: Check) -> Result<Self, String> {
        let regex = compile(regex)?;
        Ok(Self { regex, check })
    }

    /// What is to be taken out of a text, in order.
    pub(super) fn find_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let found = self.regex.captures_iter(text);
        // Of an address that another one touches the first is whole.
        let mut done = 0;
        found.filter_map(move |captures: Captures<'_>| {
            let found = captures.get(1).or_else(|| captures.get(0))?;
            let is_one = match self.check {
                Check::None => true,
                Check::Digit => found.as_bytes().iter().any(u8::is_ascii_digit),
                Check::Card => is_card(found.as_bytes()),
                Check::Email => {
                    let whole = email_around(text, found.range(), done)?;
                    done = whole.end;
                    return Some(whole);
                }
            };
            is_one.then(|| found.range())
        })
    }
}

/// What the quick look looks for.
pub(super) fn begin_of_credentials() -> &'static str {
    CREDENTIALS_BEGIN
}

/// As [`begin_of_credentials`], of a named form.
pub(super) fn begin_of(name: &str) -> Option<&'static str> {
    match name {
        "email" => Some(EMAIL_BEGINS),
        "card" => Some(CARD_BEGINS),
        _ => None,
    }
}

/// The address of which this is the `@`: a local part of up to 64 bytes that does not begin before `from`, and a domain with a dot in it (the usual subset of RFC 5322 that is written without quotes).
fn email_around(text: &[u8], at: Range<usize>, from: usize) -> Option<Range<usize>> {
    let is_local =
        |byte: &u8| byte.is_ascii_alphanumeric() || b".!#$%&*+/=?^_`{|}~-".contains(byte);
    let before = text.get(from..at.start)?.iter().rev();
    let local = before.take(64).take_while(|byte| is_local(byte)).count();
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let behind = text.get(at.end..)?.iter().take(253);
    let longest = behind.take_while(|byte| is_domain(byte)).count();
    let domain = text.get(at.end..at.end + longest)?;
    let (mut labels, mut length) = (0, 0);
    for label in domain.split(|byte| *byte == b'.') {
        if label.is_empty() || label.starts_with(b"-") || label.ends_with(b"-") {
            break;
        }
        length += label.len() + usize::from(labels > 0);
        labels += 1;
    }
    (local > 0 && labels > 1).then(|| at.start - local..at.end + length)
}

/// Of bytes; what an operator writes is bounded in what it may take.
pub(super) fn compile(regex: &str) -> Result<Regex, String> {
    RegexBuilder::new(regex)
        .unicode(false)
        .size_limit(4 << 20)
        .build()
        .map_err(|error| error.to_string())
}

/// Whether digits may be the number of a card: its length and beginning are those of a network's, and its check digit is right (Luhn, ISO/IEC 7812-1 annex B).
pub(super) fn is_card(text: &[u8]) -> bool {
    let digits: Vec<u32> = text
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .map(|byte| u32::from(byte - b'0'))
        .collect();
    let begin = |count: usize| {
        digits
            .iter()
            .take(count)
            .fold(0, |sum, digit| sum * 10 + digit)
    };
    let is_of_a_network = match digits.len() {
        // Visa, once.
        13 => begin(1) == 4,
        14 => matches!(begin(3), 300..=305) || matches!(begin(2), 36 | 38 | 39),
        15 => matches!(begin(2), 34 | 37),
        16 => {
            begin(1) == 4
                || matches!(begin(2), 50..=55 | 62 | 64 | 65)
                || matches!(begin(4), 2221..=2720 | 3528..=3589 | 6011)
        }
        17..=19 => matches!(begin(2), 62) || begin(1) == 4 && digits.len() == 19,
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2 == 1, digit * 2) {
            (false, _) => *digit,
            (true, doubled) if doubled > 9 => doubled - 9,
            (true, doubled) => doubled,
        })
        .sum();
    is_of_a_network && sum.is_multiple_of(10)
}

#[cfg(test)]
pub(super) fn credentials_count() -> usize {
    CREDENTIALS.len()
}
