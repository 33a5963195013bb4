//! Asking judges over HTTP: so many at a time, each in bounded time, within a budget.

use std::{
    error::Error as _,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use rand::Rng as _;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tailspan_core::{
    eval::{
        MetricResult,
        config::Budget,
        judge::{Judging, Question},
    },
    model::Usage,
    pricing::{Cost, Prices},
};
use tokio::{sync::Semaphore, time::timeout};

use super::providers::{self, Answer, Model, Providers};
use crate::{
    outward::{self, Proxy},
    tls,
};

/// Questions of one run under way at a time.
const MAX_IN_FLIGHT: usize = 10;
/// Tries of one question when a provider is busy or breaks off.
const MAX_TRIES: u32 = 3;
/// Before the second try, and the most that a provider may make us wait; half as much again is added at random.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Of a provider's error, what is told.
const ERROR_CHARACTERS: usize = 300;

/// Asks judges; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Judges {
    providers: Providers,
    prices: Arc<Prices>,
    /// One that goes through the environment's proxy, and one for this machine.
    clients: Arc<OnceLock<Result<[Client; 2], String>>>,
}

/// What one run may ask, and has.
pub(super) struct Spending {
    budget: Budget,
    time: Duration,
    in_flight: Semaphore,
    spent: Mutex<Spent>,
}

#[derive(Clone, Copy, Default)]
struct Spent {
    calls: u64,
    tokens: u64,
    cost: Cost,
}

impl Spending {
    /// `time` is for one answer.
    pub(super) fn new(budget: Budget, time: Duration) -> Self {
        Self {
            budget,
            time,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            spent: Mutex::default(),
        }
    }

    /// Takes a call out of the budget. What is under way is not counted in tokens yet: they can be exceeded by as much.
    fn take(&self) -> Result<(), Failed> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = &self.budget;
        let over = if spent.calls >= budget.max_calls {
            format!("{} calls", budget.max_calls)
        } else if let Some(most) = budget.max_tokens.filter(|most| spent.tokens >= *most) {
            format!("{most} tokens")
        } else if let Some(most) = budget.max_usd.filter(|most| spent.cost.usd() >= *most) {
            format!("{most} US dollars")
        } else {
            spent.calls += 1;
            return Ok(());
        };
        Err(Failed::lasting(format!("the budget of {over} is used up")))
    }

    fn add(&self, usage: &Usage, cost: Option<Cost>) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.tokens = spent.tokens.saturating_add(usage.total());
        spent.cost = spent.cost.plus(cost.unwrap_or_default());
    }
}

/// Why there is no answer.
struct Failed {
    why: String,
    /// Whether another try may help, and how long to wait at least.
    again_after: Option<Duration>,
}

impl Failed {
    fn lasting(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            again_after: None,
        }
    }

    fn passing(why: impl Into<String>, after: Duration) -> Self {
        Self {
            why: why.into(),
            again_after: Some(after),
        }
    }
}

impl Judges {
    pub(super) fn new(providers: Providers, prices: Arc<Prices>) -> Self {
        Self {
            providers,
            prices,
            clients: Arc::default(),
        }
    }

    /// Asks what is to be asked, and says what was found. Dropping it ends what is under way.
    pub(super) async fn judge(&self, mut judging: Judging, spending: &Spending) -> MetricResult {
        let model = match self.model(judging.model(), spending) {
            Ok(model) => model,
            Err(why) => {
                judging.unanswered(&why);
                return judging.result();
            }
        };
        let mut used = Used::default();
        let mut under_way = FuturesUnordered::new();
        loop {
            for question in judging.questions() {
                let model = &model;
                under_way.push(async move {
                    let ticket = question.ticket;
                    (ticket, self.ask(model, &question, spending).await)
                });
            }
            match under_way.next().await {
                None => break,
                Some((ticket, Ok((answer, cost)))) => {
                    used.calls += 1;
                    used.usage.add(&answer.usage);
                    used.cost = match (used.cost, cost) {
                        (sum, Some(cost)) => Some(sum.unwrap_or_default().plus(cost)),
                        (sum, None) => sum,
                    };
                    judging.answered(ticket, &answer.text);
                }
                Some((_, Err(why))) => {
                    judging.unanswered(&why);
                    // The others would be paid for and not be looked at.
                    break;
                }
            }
        }
        drop(under_way);
        let mut result = judging.result();
        let judge = result
            .details
            .as_mut()
            .and_then(|said| said.get_mut("judge"));
        if let Some(Value::Object(judge)) = judge {
            judge.insert(
                "used".to_owned(),
                json!({
                    "answers": used.calls, "input_tokens": used.usage.input, "output_tokens": used.usage.output,
                    "cost_usd": used.cost.map(Cost::usd),
                }),
            );
        }
        result
    }

    fn model(&self, name: &str, spending: &Spending) -> Result<Model, String> {
        let model = self.providers.model(name)?;
        let probe = Usage {
            input: 1,
            ..Usage::default()
        };
        if spending.budget.max_usd.is_some() && self.cost(&model, &probe).is_none() {
            return Err("the budget is in dollars, and this model has no price".to_owned());
        }
        Ok(model)
    }

    fn cost(&self, model: &Model, usage: &Usage) -> Option<Cost> {
        self.prices
            .cost_of_call(Some(&model.name), None, Some(model.provider), usage)
    }

    async fn ask(
        &self,
        model: &Model,
        question: &Question,
        spending: &Spending,
    ) -> Result<(Answer, Option<Cost>), String> {
        let Ok(_place) = spending.in_flight.acquire().await else {
            return Err("the run has ended".to_owned());
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let asked = async {
                spending.take()?;
                match timeout(spending.time, self.post(model, question)).await {
                    Ok(answered) => answered,
                    // A judge that is too slow once is so again, and each try is paid for.
                    Err(_) => Err(Failed::lasting(format!(
                        "no answer within {} s",
                        spending.time.as_secs_f64()
                    ))),
                }
            };
            match asked.await {
                Ok(answer) => {
                    let cost = self.cost(model, &answer.usage);
                    spending.add(&answer.usage, cost);
                    return Ok((answer, cost));
                }
                Err(failed) => match failed.again_after {
                    Some(pause) if tries < MAX_TRIES => {
                        // Those who were turned away together must not come back together.
                        let jitter = rand::rng().random_range(1.0..1.5);
                        let pause = pause.max(FIRST_PAUSE * 2_u32.pow(tries - 1));
                        // A provider may name any number of seconds, also one that cannot be multiplied.
                        let pause = pause.min(LONGEST_PAUSE).mul_f64(jitter);
                        tokio::time::sleep(pause).await;
                    }
                    _ => return Err(failed.why),
                },
            }
        }
    }

    async fn post(&self, model: &Model, question: &Question) -> Result<Answer, Failed> {
        let request = self
            .client(model)?
            .post(model.url.clone())
            .headers(model.headers.clone())
            .json(&providers::body(model, question));
        let mut response = request.send().await.map_err(|error| not_reached(&error))?;
        let status = response.status();
        let pause = response
            .headers()
            .get("retry-after")
            .and_then(|after| after.to_str().ok()?.trim().parse().ok())
            .map_or(Duration::ZERO, Duration::from_secs);
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) => return Err(not_reached(&error)),
            }
            if body.len() > MAX_ANSWER_BYTES {
                return Err(Failed::lasting(format!(
                    "the answer has more than {MAX_ANSWER_BYTES} bytes"
                )));
            }
        }
        if !status.is_success() {
            let why = format!("status {}: {}", status.as_u16(), reason(model, &body));
            let is_passing = status.is_server_error()
                || matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                );
            return Err(match is_passing {
                true => Failed::passing(why, pause),
                false => Failed::lasting(why),
            });
        }
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| Failed::lasting("the provider's answer is not JSON"))?;
        Ok(providers::answer(model.form, &body))
    }

    fn client(&self, model: &Model) -> Result<&Client, Failed> {
        let [abroad, here] = self
            .clients
            .get_or_init(clients)
            .as_ref()
            .map_err(|why| Failed::lasting(why.clone()))?;
        let is_here = model.url.host().is_some_and(|host| match host {
            url::Host::Domain(name) => name == "localhost",
            url::Host::Ipv4(ip) => ip.is_loopback(),
            url::Host::Ipv6(ip) => ip.is_loopback(),
        });
        Ok(if is_here { here } else { abroad })
    }
}

#[derive(Default)]
struct Used {
    calls: u64,
    usage: Usage,
    cost: Option<Cost>,
}

fn clients() -> Result<[Client; 2], String> {
    let tls = tls::client();
    let made = |proxy| {
        let made = outward::client(proxy, Some(tls.clone())).build();
        made.map_err(|error| format!("failed to make an http client: {error}"))
    };
    Ok([made(Proxy::Environments)?, made(Proxy::Nobodys)?])
}

fn not_reached(error: &reqwest::Error) -> Failed {
    let mut why = match (error.is_connect(), error.is_timeout()) {
        (true, _) => "it cannot be reached".to_owned(),
        (_, true) => "it took too long".to_owned(),
        _ => "the connection broke off".to_owned(),
    };
    // The last cause is the plain one ("connection refused"); the others repeat the address.
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    if let Some(cause) = cause {
        why = format!("{why}: {cause}");
    }
    Failed::passing(why, Duration::ZERO)
}

/// The message in a provider's error, else its beginning.
fn reason(model: &Model, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = serde_json::from_str::<Value>(&text).ok().and_then(|body| {
        let error = body.get("error")?;
        let message = error.get("message").unwrap_or(error);
        Some(message.as_str()?.to_owned())
    });
    let reason = said.unwrap_or_else(|| text.trim().to_owned());
    let reason: String = reason.chars().take(ERROR_CHARACTERS).collect();
    model.without_key(&reason)
}
