//! What calls to models cost.
//!
//! The table `pricing/prices.json` has the list prices by model; an operator's file of the same form goes before it. A model that neither knows has no
//! cost: never zero, which would make a sum look whole that is not.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::model::Usage;
use crate::summary::provider_and_model;

/// The table of this release.
const BUILTIN: &str = include_str!("pricing/prices.json");
/// Models that a file may price.
const MAX_MODELS: usize = 10_000;
/// Dollars per million tokens; more is a slip of the unit.
const MAX_PRICE: f64 = 1_000_000.0;
/// Servers that run a model themselves: it costs what the machine costs, whatever its vendor asks for it elsewhere.
const OWN_MACHINES: [&str; 7] = [
    "ollama",
    "ollama_chat",
    "lm_studio",
    "lmstudio",
    "vllm",
    "llamacpp",
    "llama_cpp",
];

/// Money, exactly: whole pico-dollars (10⁻¹² USD), because a price of six decimals per million tokens is a whole number of them per token.
/// Sums end at 18 million dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

impl Cost {
    pub const ZERO: Self = Self(0);

    pub fn from_pico_usd(pico: u64) -> Self {
        Self(pico)
    }

    pub fn pico_usd(self) -> u64 {
        self.0
    }

    /// Millionths of a dollar, to the nearest.
    pub fn micro_usd(self) -> u64 {
        self.0.saturating_add(500_000) / 1_000_000
    }

    /// Dollars, for showing.
    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e12
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// A sum of costs of which some are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// `None`: nothing in it is known.
    pub known: Option<Cost>,
    /// Calls whose cost is not known.
    pub unpriced: usize,
}

impl Costs {
    pub fn add(&mut self, cost: Option<Cost>) {
        match cost {
            Some(cost) => self.known = Some(self.known.unwrap_or_default().plus(cost)),
            None => self.unpriced += 1,
        }
    }
}

/// Pico-dollars per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Price {
    rates: Rates,
    /// Calls with more input than this cost `long`, every token of them; `None` there: nobody knows what.
    long: Option<(u64, Option<Rates>)>,
}

/// What a table says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Price(Price),
    SameAs(String),
    /// No price, whatever another table says.
    Unknown,
}

/// A table of prices by model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    entries: HashMap<String, Entry>,
}

impl Prices {
    /// The list prices that this release knows; their date and source stand in `pricing/prices.json`.
    pub fn builtin() -> Self {
        // A test reads the same text.
        Self::parse(BUILTIN).unwrap_or_default()
    }

    /// Reads `{"models": {name: {"input", "output", "cache_read"?, "cache_write"?, "long"?: {"above", ..}}}}`, US dollars per million tokens.
    ///
    /// What a cache gives or takes costs as other input where nothing is said of it. `long` are the prices of calls with more input tokens than `above`; without prices there is none
    /// for such calls. A text instead of an object is the name of another model with the same price, `null` says that there is no price. Names are compared in lower case.
    ///
    /// # Errors
    /// Every mistake, a sentence each.
    pub fn parse(json: &str) -> Result<Self, Vec<String>> {
        let file: Value =
            serde_json::from_str(json).map_err(|error| vec![format!("no JSON: {error}")])?;
        let Some(models) = file.get("models").and_then(Value::as_object) else {
            return Err(vec!["must be an object with `models`".to_owned()]);
        };
        let mut mistakes = Vec::new();
        if models.len() > MAX_MODELS {
            return Err(vec![format!(
                "{} models, at most {MAX_MODELS} are taken",
                models.len()
            )]);
        }
        let mut entries = HashMap::with_capacity(models.len());
        for (name, value) in models {
            let entry = match value {
                Value::Null => Entry::Unknown,
                Value::String(other) => Entry::SameAs(other.trim().to_lowercase()),
                Value::Object(fields) => match price(name, fields, &mut mistakes) {
                    Some(price) => Entry::Price(price),
                    None => continue,
                },
                _ => {
                    mistakes.push(format!(
                        "{name}: must be an object with `input` and `output`, the name of a model, or null"
                    ));
                    continue;
                }
            };
            entries.insert(name.trim().to_lowercase(), entry);
        }
        match mistakes.is_empty() {
            true => Ok(Self { entries }),
            false => Err(mistakes),
        }
    }

    /// This table with another before it: what both name has the other's price.
    ///
    /// # Errors
    /// Names in `overrides` that stand for a model that neither table prices.
    pub fn with(mut self, overrides: Self) -> Result<Self, Vec<String>> {
        let named: Vec<(String, String)> = overrides
            .entries
            .iter()
            .filter_map(|(name, entry)| match entry {
                Entry::SameAs(other) => Some((name.clone(), other.clone())),
                _ => None,
            })
            .collect();
        self.entries.extend(overrides.entries);
        let mut mistakes: Vec<String> = named
            .iter()
            .filter(|(_, other)| !matches!(self.entries.get(other), Some(Entry::Price(_))))
            .map(|(name, other)| format!("{name}: there is no price of {other}"))
            .collect();
        mistakes.sort();
        match mistakes.is_empty() {
            true => Ok(self),
            false => Err(mistakes),
        }
    }

    /// What one call cost. `None`: the model has no price (or none for so long a call), or nobody told the tokens.
    ///
    /// The name may have a provider before it (`openai/`, `us.anthropic.`) and a date or version after it (`-2024-08-06`, `@20250929`, `-v1:0`, `-latest`). `provider/name` is asked
    /// for before `name`, so one provider's price of a model can be told from the others'.
    pub fn cost(&self, model: &str, provider: Option<&str>, usage: &Usage) -> Option<Cost> {
        if usage.is_zero() {
            return None;
        }
        let price = self.price_of(model, provider)?;
        let rates = match price.long {
            Some((above, long)) if usage.input > above => long?,
            _ => price.rates,
        };
        let fresh = usage
            .input
            .saturating_sub(usage.cache_read)
            .saturating_sub(usage.cache_write);
        let parts = [
            (fresh, rates.input),
            (usage.cache_read, rates.cache_read),
            (usage.cache_write, rates.cache_write),
            (usage.output, rates.output),
        ];
        Some(parts.iter().fold(Cost::ZERO, |sum, (tokens, rate)| {
            sum.plus(Cost(tokens.saturating_mul(*rate)))
        }))
    }

    /// What a call cost by the model that answered, else by the one that was asked for, whose name may tell the provider (`azure/gpt-4o`).
    pub fn cost_of_call(
        &self,
        asked: Option<&str>,
        answered: Option<&str>,
        provider: Option<&str>,
        usage: &Usage,
    ) -> Option<Cost> {
        let named = asked.and_then(|model| provider_and_model(model).0);
        [answered, asked]
            .into_iter()
            .flatten()
            .find_map(|model| self.cost(model, named.or(provider), usage))
    }

    fn price_of(&self, model: &str, provider: Option<&str>) -> Option<Price> {
        let model = model.trim().to_lowercase();
        if model.contains('/')
            && let Some(entry) = self.entries.get(&model)
        {
            return self.resolve(entry);
        }
        let (named, plain) = provider_and_model(&model);
        let provider = named.or(provider).map(str::to_lowercase);
        if let Some(provider) = &provider
            && let Some(entry) = self.find(&format!("{provider}/{plain}"))
        {
            return self.resolve(entry);
        }
        if provider.is_some_and(|provider| OWN_MACHINES.contains(&provider.as_str())) {
            return None;
        }
        self.resolve(self.find(without_vendor(plain))?)
    }

    /// The entry of a name, or of what it is a version of.
    fn find(&self, name: &str) -> Option<&Entry> {
        let mut end = name.len();
        loop {
            let (head, version) = (name.get(..end)?, name.get(end..)?);
            if let Some(entry) = self.entries.get(head)
                && is_version(version)
            {
                return Some(entry);
            }
            end = head.rfind(VERSION_BEGINS)?;
        }
    }

    fn resolve(&self, entry: &Entry) -> Option<Price> {
        match entry {
            Entry::Price(price) => Some(*price),
            Entry::SameAs(other) => match self.entries.get(other)? {
                Entry::Price(price) => Some(*price),
                _ => None,
            },
            Entry::Unknown => None,
        }
    }
}

/// What stands between a model's name and its versions.
const VERSION_BEGINS: [char; 3] = ['-', '@', ':'];

/// Whether what follows a name only says which edition of the model it is: `-2024-08-06`, `-0613`, `@20250929`, `-preview-05-20`, `-v1:0`, `-001`. `-mini` is another model, and so is `-5`
/// after `claude-sonnet-4`.
fn is_version(rest: &str) -> bool {
    let mut parts = rest.split(VERSION_BEGINS).skip(1);
    let is_number =
        |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    let begins = |part: &str| {
        matches!(part, "latest" | "preview" | "exp" | "experimental")
            || part.strip_prefix('v').is_some_and(is_number)
            || (part.len() >= 3 && is_number(part))
    };
    match parts.next() {
        None => true,
        Some(first) => begins(first) && parts.all(|part| begins(part) || is_number(part)),
    }
}

/// Bedrock's names: `us.anthropic.claude-sonnet-4-5-20250929-v1:0`.
fn without_vendor(name: &str) -> &str {
    const REGIONS: [&str; 7] = ["us", "eu", "apac", "jp", "au", "us-gov", "global"];
    const VENDORS: [&str; 8] = [
        "anthropic",
        "amazon",
        "meta",
        "mistral",
        "cohere",
        "ai21",
        "deepseek",
        "openai",
    ];
    let rest = match name.split_once('.') {
        Some((region, rest)) if REGIONS.contains(&region) => rest,
        _ => name,
    };
    match rest.split_once('.') {
        Some((vendor, model)) if VENDORS.contains(&vendor) => model,
        _ => rest,
    }
}

fn price(name: &str, fields: &Map<String, Value>, mistakes: &mut Vec<String>) -> Option<Price> {
    let before = mistakes.len();
    let rates = rates(name, fields, &["long"], mistakes);
    let long = match fields.get("long") {
        None => None,
        Some(Value::Object(long)) => match long.get("above").and_then(Value::as_u64) {
            Some(above) if long.len() == 1 => Some((above, None)),
            Some(above) => {
                let rates = self::rates(&format!("{name}, long"), long, &["above"], mistakes);
                Some((above, Some(rates)))
            }
            None => {
                mistakes.push(format!("{name}, long: `above` must be a number of tokens"));
                None
            }
        },
        Some(_) => {
            mistakes.push(format!("{name}: `long` must be an object"));
            None
        }
    };
    (mistakes.len() == before).then_some(Price { rates, long })
}

fn rates(
    name: &str,
    fields: &Map<String, Value>,
    others: &[&str],
    mistakes: &mut Vec<String>,
) -> Rates {
    const KNOWN: [&str; 4] = ["input", "output", "cache_read", "cache_write"];
    for key in fields.keys() {
        if !KNOWN.contains(&key.as_str()) && !others.contains(&key.as_str()) {
            mistakes.push(format!("{name}: `{key}` is none of {}", KNOWN.join(", ")));
        }
    }
    let mut rate = |key: &str, is_needed: bool| match fields.get(key) {
        None if !is_needed => None,
        value => {
            let dollars = value.and_then(Value::as_f64);
            let valid = dollars.filter(|dollars| (0.0..=MAX_PRICE).contains(dollars));
            if valid.is_none() {
                mistakes.push(format!(
                    "{name}: `{key}` must be dollars per million tokens, a number of 0 to {MAX_PRICE}"
                ));
            }
            // Dollars per million tokens are micro-dollars per token.
            valid.map(|dollars| (dollars * 1e6).round() as u64)
        }
    };
    let input = rate("input", true).unwrap_or(0);
    Rates {
        input,
        output: rate("output", true).unwrap_or(0),
        cache_read: rate("cache_read", false).unwrap_or(input),
        cache_write: rate("cache_write", false).unwrap_or(input),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Usage {
        Usage {
            input,
            output,
            ..Usage::default()
        }
    }

    /// Dollars for a million tokens in and a million out, in calls of a thousand: below every threshold.
    fn check(model: &str, provider: Option<&str>, expected: Option<(f64, f64)>) {
        let prices = Prices::builtin();
        let of = |usage| {
            let cost = prices.cost(model, provider, &usage)?;
            Some(Cost(cost.0 * 1_000).usd())
        };
        assert_eq!(
            of(usage(1_000, 0)).zip(of(usage(0, 1_000))),
            expected,
            "{model}"
        );
    }

    #[test]
    fn the_table_can_be_read_and_its_names_lead_somewhere() {
        let table = Prices::parse(BUILTIN).expect("our own table");
        assert!(table.entries.len() > 80);
        let all = Prices::default().with(table).expect("no dangling name");
        assert_eq!(all, Prices::builtin());
    }

    #[test]
    fn a_model_is_known_by_its_dated_and_prefixed_names() {
        let gpt_4o = Some((2.5, 10.0));
        check("gpt-4o", None, gpt_4o);
        check("gpt-4o-2024-08-06", Some("openai"), gpt_4o);
        check("openai/gpt-4o", None, gpt_4o);
        check("openrouter/openai/gpt-4o-2024-11-20", None, gpt_4o);
        check("GPT-4o", Some("azure.ai.openai"), gpt_4o);
        check("gpt-4o-2024-05-13", None, Some((5.0, 15.0)));
        check("gpt-4o-mini-2024-07-18", None, Some((0.15, 0.6)));
        check("gpt-4-1106-preview", None, Some((10.0, 30.0)));
        check("gpt-5.2-chat-latest", None, Some((1.75, 14.0)));
        let sonnet = Some((3.0, 15.0));
        check("claude-sonnet-4-5-20250929", None, sonnet);
        check("claude-sonnet-4-5@20250929", None, sonnet);
        check("us.anthropic.claude-sonnet-4-5-20250929-v1:0", None, sonnet);
        check(
            "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0",
            None,
            sonnet,
        );
        check(
            "models/gemini-2.5-flash-preview-09-2025",
            None,
            Some((0.3, 2.5)),
        );
        check("amazon.nova-lite-v1:0", None, Some((0.06, 0.24)));
        check("llama-3.3-70b-versatile", Some("groq"), Some((0.59, 0.79)));
    }

    #[test]
    fn a_model_that_nobody_prices_has_no_cost() {
        for model in [
            "",
            "-",
            "my-model",
            "gpt-4o-audio-preview",
            "gpt-5-2",
            "claude-sonnet-4-7",
            "ft:gpt-4o-mini-2024-07-18:org::id",
            "llama-3.3-70b-versatile",
            "ollama/gpt-4o",
            "größe-ß",
        ] {
            check(model, None, None);
        }
        check("gpt-4o", Some("ollama"), None);
        assert_eq!(Prices::builtin().cost("gpt-4o", None, &usage(0, 0)), None);
    }

    #[test]
    fn what_a_cache_gave_and_took_is_priced_apart() {
        let prices = Prices::builtin();
        let cached = Usage {
            input: 1_000,
            output: 10,
            cache_read: 600,
            cache_write: 300,
            reasoning: 5,
        };
        // 100 × 3 + 600 × 0.3 + 300 × 3.75 + 10 × 15 micro-dollars
        let cost = prices.cost("claude-sonnet-4-5", None, &cached);
        assert_eq!(cost.map(Cost::micro_usd), Some(1_755));
        // No price of its own: as other input.
        let cost = prices.cost("gpt-4", None, &cached);
        assert_eq!(cost.map(Cost::usd), Some(0.0306));
        // More from the cache than there was.
        let odd = Usage {
            input: 1,
            cache_read: 9,
            ..Usage::default()
        };
        assert_eq!(
            prices.cost("gpt-4o", None, &odd).map(Cost::pico_usd),
            Some(11_250_000)
        );
    }

    #[test]
    fn a_long_call_has_the_price_of_long_calls() {
        let prices = Prices::builtin();
        let cost = |model, input| prices.cost(model, None, &usage(input, 0)).map(Cost::usd);
        assert_eq!(cost("gemini-2.5-pro", 200_000), Some(0.25));
        assert_eq!(cost("gemini-2.5-pro", 200_001), Some(0.500_002_5));
        assert_eq!(cost("gpt-6-sol", 272_001), None);
    }

    #[test]
    fn sums_are_exact_and_say_what_they_lack() {
        let prices = Prices::builtin();
        let mut costs = Costs::default();
        for _ in 0..1_000_000 {
            costs.add(prices.cost("gpt-4o-mini", None, &usage(1, 0)));
        }
        costs.add(prices.cost("nobody", None, &usage(1, 0)));
        assert_eq!(costs.known.map(Cost::usd), Some(0.15));
        assert_eq!(costs.unpriced, 1);
        let all = usage(u64::MAX, u64::MAX);
        assert_eq!(
            prices.cost("gpt-4o", None, &all).map(Cost::pico_usd),
            Some(u64::MAX)
        );
    }

    #[test]
    fn an_operators_table_goes_before_ours() {
        let theirs = Prices::parse(
            r#"{"models": {"gpt-4o": {"input": 1, "output": 2}, "azure/gpt-4o": {"input": 3, "output": 4}, "House": "gpt-4o", "o3": null}}"#,
        )
        .expect("valid");
        let prices = Prices::builtin().with(theirs).expect("valid");
        let cost = |model, provider| prices.cost(model, provider, &usage(1_000_000, 0));
        let usd = |model, provider| cost(model, provider).map(Cost::usd);
        assert_eq!(usd("gpt-4o-2024-08-06", None), Some(1.0));
        assert_eq!(usd("azure/gpt-4o", None), Some(3.0));
        assert_eq!(usd("gpt-4o-2024-08-06", Some("azure")), Some(3.0));
        assert_eq!(usd("house", None), Some(1.0));
        assert_eq!(usd("o3-2025-04-16", None), None);
        assert_eq!(usd("o3-mini", None), Some(1.1));
    }

    #[test]
    fn all_mistakes_are_told() {
        let mistakes = |json| Prices::parse(json).expect_err("mistakes").join("\n");
        assert!(mistakes("{").contains("no JSON"));
        assert!(mistakes("[]").contains("`models`"));
        let told = mistakes(
            r#"{"models": {"a": {"input": -1}, "b": 7, "c": {"input": 1, "output": 2, "cached": 1}, "d": {"input": 1, "output": 1, "long": {}}}}"#,
        );
        assert_eq!(told.lines().count(), 5, "{told}");
        let dangling = Prices::parse(r#"{"models": {"a": "b"}}"#).expect("valid");
        assert_eq!(
            Prices::builtin().with(dangling),
            Err(vec!["a: there is no price of b".to_owned()])
        );
    }
}
