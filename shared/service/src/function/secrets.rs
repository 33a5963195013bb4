//! Secrets that the environment names and does not hold: `TAILSPAN_<NAME>_SECRET_ARN` is where the value of `TAILSPAN_<NAME>` lies, and `TAILSPAN_REDIS_SECRET_ARN` where user and password for `TAILSPAN_REDIS_URL` do.
//!
//! `TAILSPAN_SETTINGS_SECRET_ARN` names JSON objects whose fields are variables; they win over what the environment has.
//!
//! They are read once, when the process begins. So a new value is that of the next process: let the old one hold for as long as a process may live.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::future::try_join_all;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::aws::{Aws, AwsError, Service};

const PREFIX: &str = "TAILSPAN_";
const SUFFIX: &str = "_SECRET_ARN";
/// Of the Redis, whose URL stays in sight.
const REDIS: &str = "REDIS";
/// Several variables at once.
const SETTINGS: &str = "SETTINGS";
/// One request; the platform gives a function ten seconds to start.
const TIMEOUT: Duration = Duration::from_millis(2500);
const PAUSES_MS: [u64; 2] = [100, 400];

/// Why a secret was not read; never what it is.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    #[error("{name}: {mistake}")]
    Mistake { name: String, mistake: &'static str },
    #[error("{name}: {error}")]
    Unread { name: String, error: AwsError },
}

/// What an ARN names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A secret, or one field of it when it is a JSON object.
    Secret {
        id: String,
        field: Option<String>,
    },
    Parameter {
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Arn {
    region: String,
    /// Where the services of its partition are.
    domain: &'static str,
    place: Place,
}

impl Arn {
    /// `arn:aws:secretsmanager:<region>:<account>:secret:<name>[:<field>]`, `arn:aws:ssm:<region>:<account>:parameter/<name>`.
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let [scheme, partition, service, region, account, rest] = parts.as_slice() else {
            return None;
        };
        let is_region = !region.is_empty()
            && region
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if *scheme != "arn" || !is_region {
            return None;
        }
        let place = match *service {
            "secretsmanager" => {
                let (name, field) = match rest.strip_prefix("secret:")?.split_once(':') {
                    Some((name, field)) => (name, Some(field)),
                    None => (rest.strip_prefix("secret:")?, None),
                };
                // As elsewhere in AWS stage and version may follow the field; here they are always the newest.
                let field = field.map(|field| field.trim_end_matches(':').to_owned());
                Place::Secret {
                    id: format!("arn:{partition}:secretsmanager:{region}:{account}:secret:{name}"),
                    field: field.filter(|field| !field.is_empty()),
                }
            }
            "ssm" => Place::Parameter {
                name: rest.strip_prefix("parameter")?.to_owned(),
            },
            _ => return None,
        };
        Some(Self {
            region: (*region).to_owned(),
            domain: match *partition {
                "aws-cn" => "amazonaws.com.cn",
                _ => "amazonaws.com",
            },
            place,
        })
    }
}

/// The values of the variables that are named by ARN, by the names of those variables.
///
/// # Errors
/// [`SecretError`]: of the first that cannot be had.
pub(super) async fn read(
    vars: &HashMap<String, String>,
) -> Result<HashMap<String, String>, SecretError> {
    // Settings first: what is named by itself wins over them.
    let mut named: Vec<_> = vars
        .iter()
        .filter_map(|(name, arns)| {
            let what = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
            Some((what != SETTINGS, what, name, arns))
        })
        .flat_map(|(order, what, name, arns)| {
            let arns = arns.split(',').map(str::trim).filter(|arn| !arn.is_empty());
            arns.enumerate()
                .map(move |(at, arn)| (order, what, at, name, arn))
        })
        .collect();
    named.sort_unstable();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let unread = |name: &str, error| SecretError::Unread {
        name: name.to_owned(),
        error,
    };
    let aws = Aws::new(TIMEOUT).map_err(|error| unread("secrets", error))?;
    let mistake = |name: &str, mistake| SecretError::Mistake {
        name: name.to_owned(),
        mistake,
    };
    let (aws, unread) = (&aws, &unread);
    let values = named.into_iter().map(async |(_, what, at, name, arn)| {
        if at > 0 && what != SETTINGS {
            return Err(mistake(name, "it must be one ARN"));
        }
        let arn = Arn::parse(arn).ok_or_else(|| {
            mistake(name, "it must be the ARN of a secret (arn:aws:secretsmanager:...:secret:...) or of a parameter (arn:aws:ssm:...:parameter/...)")
        })?;
        let text = fetch(aws, vars, &arn).await.map_err(|error| unread(name, error))?;
        let text = match &arn.place {
            Place::Secret { field: Some(field), .. } => field_of(&text, field)
                .ok_or_else(|| mistake(name, "the secret is no JSON object with this field"))?,
            _ => text,
        };
        if what == REDIS {
            let url = vars.get("TAILSPAN_REDIS_URL").map(String::as_str).unwrap_or_default();
            let url = with_credentials(url, &text)
                .ok_or_else(|| mistake(name, "TAILSPAN_REDIS_URL must be a URL without user and password for it"))?;
            return Ok(vec![("TAILSPAN_REDIS_URL".to_owned(), url)]);
        }
        if what == SETTINGS {
            let fields = serde_json::from_str::<BTreeMap<String, String>>(&text);
            return match fields {
                Ok(fields) => Ok(fields.into_iter().collect()),
                Err(_) => Err(mistake(name, "the secret is no JSON object of texts")),
            };
        }
        let of = format!("{PREFIX}{what}");
        if vars.get(&of).is_some_and(|value| !value.is_empty()) {
            return Err(mistake(name, "its value is set by a variable too: keep one of them"));
        }
        Ok(vec![(of, text)])
    });
    Ok(try_join_all(values).await?.into_iter().flatten().collect())
}

async fn fetch(aws: &Aws, vars: &HashMap<String, String>, arn: &Arn) -> Result<String, AwsError> {
    let (service, variable, target, ask) = match &arn.place {
        Place::Secret { id, .. } => (
            "secretsmanager",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            "secretsmanager.GetSecretValue",
            json!({"SecretId": id}),
        ),
        Place::Parameter { name } => (
            "ssm",
            "AWS_ENDPOINT_URL_SSM",
            "AmazonSSM.GetParameter",
            json!({"Name": name, "WithDecryption": true}),
        ),
    };
    let usual = || format!("https://{service}.{}.{}/", arn.region, arn.domain);
    let endpoint = vars.get(variable).filter(|url| !url.is_empty());
    let url = endpoint.cloned().unwrap_or_else(usual);
    let url =
        Url::parse(&url).map_err(|error| AwsError::Unsigned(format!("{variable}: {error}")))?;
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", target),
    ];
    let of = Service {
        name: service,
        region: &arn.region,
    };
    let mut pauses = PAUSES_MS.into_iter();
    let answer = loop {
        let body = ask.to_string().into_bytes();
        match aws
            .send(of, Method::POST, url.clone(), &headers, body)
            .await
        {
            Err(error) if error.is_passing() => match pauses.next() {
                Some(pause_ms) => tokio::time::sleep(Duration::from_millis(pause_ms)).await,
                None => return Err(error),
            },
            answer => break answer?,
        }
    };
    let told = serde_json::from_slice::<Value>(&answer).unwrap_or_default();
    let value = match arn.place {
        Place::Secret { .. } => told.get("SecretString"),
        Place::Parameter { .. } => told.get("Parameter").and_then(|of| of.get("Value")),
    };
    let value = value.and_then(Value::as_str).map(ToOwned::to_owned);
    value.ok_or_else(|| AwsError::Refused {
        service,
        status: 200,
        code: "NoText".to_owned(),
    })
}

fn field_of(text: &str, field: &str) -> Option<String> {
    let of = serde_json::from_str::<Value>(text).ok()?;
    Some(of.get(field)?.as_str()?.to_owned())
}

/// A URL with user and password: those of a JSON object (`username`, `password`), or a bare password. `None`: it is no URL, or has some already.
fn with_credentials(url: &str, secret: &str) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let (user, password) = match field_of(secret, "password") {
        Some(password) => (field_of(secret, "username"), password),
        None => (None, secret.trim().to_owned()),
    };
    if let Some(user) = user {
        url.set_username(&user).ok()?;
    }
    url.set_password(Some(&password)).ok()?;
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_url::RedisUrl;

    #[test]
    fn arns_say_where_a_value_lies() {
        let place = |text: &str| Arn::parse(text).map(|arn| (arn.region, arn.place));
        let region = || "eu-central-1".to_owned();
        let id = "arn:aws:secretsmanager:eu-central-1:1:secret:redis-AbCdEf";
        let secret = |field: Option<&str>| Place::Secret {
            id: id.to_owned(),
            field: field.map(ToOwned::to_owned),
        };
        assert_eq!(place(id), Some((region(), secret(None))));
        for more in ["password", "password::"] {
            let with_field = format!("{id}:{more}");
            assert_eq!(
                place(&with_field),
                Some((region(), secret(Some("password"))))
            );
        }
        let parameter = Place::Parameter {
            name: "/tailspan/keys".to_owned(),
        };
        let arn = "arn:aws:ssm:eu-central-1:1:parameter/tailspan/keys";
        assert_eq!(place(arn), Some((region(), parameter)));
        for none in [
            "",
            "redis",
            "arn:aws:s3:::bucket",
            "arn:aws:ssm:evil.example/:1:parameter/x",
        ] {
            assert_eq!(place(none), None, "{none}");
        }
    }

    #[test]
    fn a_url_gets_the_credentials_of_a_secret() {
        let url = "rediss-cluster://store.example:6379";
        let read = |secret: &str| {
            let url = with_credentials(url, secret)?;
            let read = RedisUrl::parse(&url).ok()?;
            Some((read.credentials.user, read.credentials.password))
        };
        let password = |text: &str| Some(text.to_owned());
        let hard = r#"{"username":"tailspan","password":"a/b?c#d@e:f%g"}"#;
        let user = Some("tailspan".to_owned());
        assert_eq!(read(hard), Some((user, password("a/b?c#d@e:f%g"))));
        assert_eq!(read("p@ss\n"), Some((None, password("p@ss"))));
        assert_eq!(with_credentials("redis://:known@host", "x"), None);
    }
}
