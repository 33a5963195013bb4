//! What a judge wrote, read.

use serde_json::Value;

use crate::eval::metrics::Judge;

/// What a judge says of one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) holds: bool,
    pub(super) reason: String,
}

/// Of an answer that is looked at.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The verdicts on all claims, in their order.
///
/// Models put JSON between fences or after what they thought; the last object with `verdicts` counts.
///
/// # Errors
/// What is missing, for people.
pub(super) fn read(judge: Judge, claims: usize, text: &str) -> Result<Vec<Verdict>, String> {
    if text.len() > MAX_ANSWER_BYTES {
        return Err("the answer is too long".to_owned());
    }
    let value = object_in(text).ok_or("there is no JSON object with `verdicts`")?;
    let said = value.get("verdicts").and_then(Value::as_array);
    let mut verdicts: Vec<Option<Verdict>> = vec![None; claims];
    for verdict in said.into_iter().flatten() {
        let number = verdict.get("claim").and_then(number_of);
        let word = verdict.get("verdict").and_then(Value::as_str);
        let (Some(number), Some(word)) = (number, word) else {
            return Err("a verdict lacks `claim` or `verdict`".to_owned());
        };
        let holds = meaning(judge, word).ok_or_else(|| {
            let word: String = word.chars().take(40).collect();
            format!("`{word}` is no verdict")
        })?;
        let slot = number.checked_sub(1).and_then(|at| verdicts.get_mut(at));
        let slot = slot.ok_or_else(|| format!("there is no claim {number}"))?;
        if slot.is_some() {
            return Err(format!("claim {number} has two verdicts"));
        }
        let reason = verdict.get("reason").and_then(Value::as_str);
        *slot = Some(Verdict {
            holds,
            reason: reason.unwrap_or_default().trim().to_owned(),
        });
    }
    let given = verdicts.iter().filter(|verdict| verdict.is_some()).count();
    verdicts
        .into_iter()
        .collect::<Option<Vec<Verdict>>>()
        .ok_or_else(|| format!("{given} of {claims} claims have a verdict"))
}

fn number_of(value: &Value) -> Option<usize> {
    let number = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))?;
    usize::try_from(number).ok()
}

fn meaning(judge: Judge, word: &str) -> Option<bool> {
    let word = word.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    let (yes, no): (&[&str], &[&str]) = match judge {
        Judge::FinalResponseMatch => (&["valid"], &["invalid"]),
        Judge::Hallucinations => (
            &["supported", "not_applicable"],
            &["unsupported", "contradicted", "disputed"],
        ),
        Judge::Safety => (&["safe"], &["unsafe"]),
        Judge::ResponseRubrics | Judge::ToolRubrics => (&["yes"], &["no"]),
    };
    if yes.contains(&word.as_str()) {
        Some(true)
    } else if no.contains(&word.as_str()) {
        Some(false)
    } else {
        None
    }
}

/// The last object of a text that has `verdicts`. Each brace is tried as a beginning, from the end, so many times.
fn object_in(text: &str) -> Option<Value> {
    const TRIES: usize = 16;
    let has_verdicts = |value: &Value| value.get("verdicts").is_some();
    if let Ok(value) = serde_json::from_str::<Value>(text.trim())
        && has_verdicts(&value)
    {
        return Some(value);
    }
    text.rmatch_indices("\"verdicts\"")
        .take(TRIES)
        .find_map(|(at, _)| {
            let begin = text.get(..at)?.rfind('{')?;
            let rest = text.get(begin..)?;
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            values.next()?.ok().filter(has_verdicts)
        })
}
