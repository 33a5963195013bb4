//! Requests to services of AWS, signed with the role of this process (Signature Version 4). For the few calls that a function makes a client of its own for each service would be most of its package.

use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use reqwest::{Client, Request, StatusCode, header::HeaderValue};
pub use reqwest::{Method, Url};

use crate::{
    outward::{self, Proxy},
    tls,
};

/// Bytes of an answer that is read; none of the calls here has a longer one.
const LONGEST_ANSWER: usize = 1 << 20;

/// Why a request came to nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AwsError {
    /// The environment has no credentials, or a request cannot be signed with them.
    #[error("cannot sign a request: {0}")]
    Unsigned(String),
    /// No answer in time.
    #[error("{service} does not answer: {why}")]
    Unreachable { service: &'static str, why: String },
    /// What the service says of its own failure.
    #[error("{service} refuses: {status} {code}")]
    Refused {
        service: &'static str,
        status: u16,
        code: String,
    },
}

impl AwsError {
    /// Whether the same request may go better a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unsigned(_) => false,
            Self::Unreachable { .. } => true,
            Self::Refused { status, code, .. } => {
                *status == 429 || *status >= 500 || code.contains("Throttl")
            }
        }
    }
}

/// A service, as requests to it are signed.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Its name in signatures.
    pub name: &'static str,
    pub region: &'a str,
}

/// Sends signed requests.
pub struct Aws {
    http: Client,
    credentials: EnvironmentVariableCredentialsProvider,
}

impl Aws {
    /// `timeout` is that of one request, from its connection to the end of its answer. Reads the system's roots of trust, which takes milliseconds: keep it.
    ///
    /// # Errors
    /// [`AwsError::Unsigned`]: TLS cannot be set up.
    pub fn new(timeout: Duration) -> Result<Self, AwsError> {
        let http = outward::client(Proxy::Environments, Some(tls::client()))
            .timeout(timeout)
            .build()
            .map_err(|error| AwsError::Unsigned(error.to_string()))?;
        Ok(Self {
            http,
            credentials: EnvironmentVariableCredentialsProvider::new(),
        })
    }

    /// Sends a request; its answer, if it is one of success.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn send(
        &self,
        service: Service<'_>,
        method: Method,
        url: Url,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Result<Vec<u8>, AwsError> {
        let mut request = Request::new(method, url);
        for (name, value) in headers {
            request.headers_mut().insert(*name, header(value)?);
        }
        self.sign(&mut request, service, &body).await?;
        *request.body_mut() = Some(body.into());
        let unreachable = |error: reqwest::Error| AwsError::Unreachable {
            service: service.name,
            // Without the address: it may name what is nobody else's.
            why: error.without_url().to_string(),
        };
        let mut response = self.http.execute(request).await.map_err(unreachable)?;
        let status = response.status();
        let kind = response.headers().get("x-amzn-errortype");
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .map(ToOwned::to_owned);
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if answer.len() + part.len() > LONGEST_ANSWER {
                break;
            }
            answer.extend_from_slice(&part);
        }
        match status.is_success() {
            true => Ok(answer),
            false => Err(refusal(service.name, status, kind, &answer)),
        }
    }

    async fn sign(
        &self,
        request: &mut Request,
        service: Service<'_>,
        body: &[u8],
    ) -> Result<(), AwsError> {
        fn unsigned(error: impl std::fmt::Display) -> AwsError {
            AwsError::Unsigned(error.to_string())
        }
        // Read anew each time: the platform may renew them under a long-lived process.
        let credentials = self.credentials.provide_credentials().await;
        let identity = credentials.map_err(unsigned)?.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(service.region)
            .name(service.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(unsigned)?
            .into();
        let headers = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.url().as_str(),
            headers,
            SignableBody::Bytes(body),
        );
        let (signed, _) = sign(signable.map_err(unsigned)?, &params)
            .map_err(unsigned)?
            .into_parts();
        let (headers, _) = signed.into_parts();
        for each in headers {
            let mut value = header(each.value())?;
            value.set_sensitive(each.sensitive());
            request.headers_mut().insert(each.name(), value);
        }
        Ok(())
    }
}

fn header(value: &str) -> Result<HeaderValue, AwsError> {
    HeaderValue::from_str(value).map_err(|error| AwsError::Unsigned(error.to_string()))
}

/// What a service says went wrong: a name, by which its manual tells more. The message beside it may repeat what was asked.
fn refusal(
    service: &'static str,
    status: StatusCode,
    kind: Option<String>,
    answer: &[u8],
) -> AwsError {
    let told = serde_json::from_slice::<serde_json::Value>(answer).unwrap_or_default();
    let code = kind.or_else(|| Some(told.get("__type")?.as_str()?.to_owned()));
    let code = code.unwrap_or_default();
    // `com.amazonaws.ssm#ParameterNotFound`, `GoneException:http://...`
    let code = code.rsplit('#').next().unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default();
    AwsError::Refused {
        service,
        status: status.as_u16(),
        code: code.chars().take(100).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_name() {
        let told = |kind: Option<&str>, answer: &str| {
            let kind = kind.map(ToOwned::to_owned);
            let refused = refusal("ssm", StatusCode::BAD_REQUEST, kind, answer.as_bytes());
            (refused.to_string(), refused.is_passing())
        };
        let body = r#"{"__type":"com.amazonaws.ssm#ParameterNotFound","message":"secret/name"}"#;
        let refused = "ssm refuses: 400 ParameterNotFound".to_owned();
        assert_eq!(told(None, body), (refused, false));
        let throttled = told(Some("ThrottlingException:http://x"), "not json");
        let refused = "ssm refuses: 400 ThrottlingException".to_owned();
        assert_eq!(throttled, (refused, true));
    }
}
