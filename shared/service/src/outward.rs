//! Requests to servers that the operator named: no address from an answer, bounded in time and in bytes.

use std::{
    error::Error as _,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use axum::http::{HeaderMap, header::RETRY_AFTER};
use bytes::Bytes;
use reqwest::{Client, ClientBuilder, redirect};
use url::Url;

use crate::tls;

/// Until the connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that nobody uses is closed after this; most servers close theirs later.
const IDLE: Duration = Duration::from_secs(30);

/// Whose proxies a client goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Nobody's: the operator's file says where a request goes, often to a neighbour.
    Nobodys,
    /// That of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`: to public services there may be no other way out.
    Environments,
}

/// What every client here begins as. It follows no redirect, which would carry what is sent to who knows where, and gives up a connection that does not come to
/// stand. `tls` is [`tls::client`]'s, shared between clients because reading the system's roots takes milliseconds; without it `https` cannot be asked.
pub fn client(proxy: Proxy, tls: Option<rustls::ClientConfig>) -> ClientBuilder {
    let mut client = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .user_agent(concat!("tailspan/", env!("CARGO_PKG_VERSION")));
    if proxy == Proxy::Nobodys {
        client = client.no_proxy();
    }
    match tls {
        Some(tls) => client.use_preconfigured_tls(tls),
        None => client,
    }
}

/// Connections that are kept. Cheap until the first request; reading the system's roots takes milliseconds, so who calls nobody over TLS does not.
#[derive(Default)]
pub struct Outward {
    plain: OnceLock<Option<Client>>,
    secure: OnceLock<Option<Client>>,
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Milliseconds after which it wants to be asked again.
    pub retry_after_ms: Option<u64>,
    /// As much of the body as was asked for.
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Outward {
    /// Posts a body. A redirect is an answer like any other. Of the answer's body at most so many bytes are read, and what cannot be read of it is left out: the
    /// status says how it went.
    ///
    /// # Errors
    /// No answer within the time: why, without the address, which may hold a secret.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        within: Duration,
        most_bytes: usize,
    ) -> Result<Answer, String> {
        let client = match url.scheme() {
            "https" => self.secure.get_or_init(|| made(true)),
            _ => self.plain.get_or_init(|| made(false)),
        };
        let Some(client) = client else {
            return Err("this machine cannot make a client; the log says why".to_owned());
        };
        let request = client.post(url.clone()).headers(headers).body(body);
        let by = tokio::time::Instant::now() + within;
        let mut response = match tokio::time::timeout_at(by, request.send()).await {
            Err(_) => return Err(format!("no answer within {within:?}")),
            Ok(Err(error)) => return Err(told(error)),
            Ok(Ok(response)) => response,
        };
        let asked = response.headers().get(RETRY_AFTER);
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after_ms: asked
                .and_then(|asked| asked.to_str().ok())
                .and_then(|asked| retry_after_ms(asked, SystemTime::now())),
            body: Vec::new(),
        };
        while answer.body.len() < most_bytes {
            let Ok(Ok(Some(piece))) = tokio::time::timeout_at(by, response.chunk()).await else {
                break;
            };
            let room = most_bytes - answer.body.len();
            answer.body.extend(piece.iter().take(room));
        }
        Ok(answer)
    }
}

fn made(is_secure: bool) -> Option<Client> {
    let made = client(Proxy::Nobodys, is_secure.then(tls::client)).build();
    if let Err(error) = &made {
        tracing::error!(%error, "failed to make a client");
    }
    made.ok()
}

/// The whole cause: a client's own sentence only says that it failed.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after_ms(asked: &str, now: SystemTime) -> Option<u64> {
    let asked = asked.trim();
    if let Ok(seconds) = asked.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let date = httpdate::parse_http_date(asked).ok()?;
    let wait = date.duration_since(now).unwrap_or_default();
    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_asks_for_time_by_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |asked| retry_after_ms(asked, now);
        assert_eq!(read(" 120 "), Some(120_000));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60_000));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(read("99999999999999999999"), None);
        assert_eq!(read("soon"), None);
    }
}
