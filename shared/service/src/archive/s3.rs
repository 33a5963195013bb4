//! The archive as a bucket of S3, or of a server that speaks as S3 does.
//!
//! An object is one PUT: it is there whole or not at all, and the store compares what came with the hash that it was told.

use std::{
    error::Error as _,
    fs::File,
    io::{Seek as _, Write as _},
    sync::OnceLock,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Body, Client, Response, StatusCode, header::CONTENT_LENGTH};
use rusty_s3::{Bucket as Signed, Credentials, S3Action, UrlStyle};
use url::Url;

use super::{ArchiveError, Spilled, unavailable};
use crate::{
    log::beside,
    outward::{self, Proxy},
    tls,
};

/// For how long a signature is good, which a clock that is off must not exceed.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// Silence of the store after which it is given up.
const SILENCE: Duration = Duration::from_secs(20);
const PART_BYTES: usize = 256 * 1024;
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// Which bucket, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    bucket: Signed,
    /// Ends in a slash, unless it is empty.
    prefix: String,
    credentials: (String, String, Option<String>),
}

/// Without what is secret.
impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Config")
    }
}

impl S3Config {
    /// Reads `bucket/prefix`.
    ///
    /// # Errors
    /// What is wrong, or missing in the environment.
    pub fn parse(place: &str, var: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let var = |name: &str| var(name).filter(|said| !said.trim().is_empty());
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_dots = |part: &str| part.is_empty() || part == "." || part == "..";
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err("the bucket's name must be of A-Z a-z 0-9 - . _".to_owned());
        }
        if !prefix.is_empty()
            && (prefix.split('/').any(is_dots)
                || !prefix.bytes().all(|byte| is_name(byte) || byte == b'/'))
        {
            return Err("the prefix must be of A-Z a-z 0-9 - . _ and single slashes".to_owned());
        }
        let region = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let named = var("TAILSPAN_ARCHIVE_ENDPOINT");
        // A bucket with dots fits no certificate; other stores have no names for buckets.
        let style = match named.is_some() || name.contains('.') {
            true => UrlStyle::Path,
            false => UrlStyle::VirtualHost,
        };
        let endpoint = named.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = Url::parse(&endpoint)
            .map_err(|error| format!("TAILSPAN_ARCHIVE_ENDPOINT is no URL: {error}"))?;
        let bucket = Signed::new(endpoint, style, name.to_owned(), region);
        let bucket =
            bucket.map_err(|_| "TAILSPAN_ARCHIVE_ENDPOINT must be http or https".to_owned())?;
        let secrets = var("AWS_ACCESS_KEY_ID").zip(var("AWS_SECRET_ACCESS_KEY"));
        let (key, secret) = secrets
            .ok_or("a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned())?;
        Ok(Self {
            bucket,
            prefix: match prefix {
                "" => String::new(),
                some => format!("{some}/"),
            },
            credentials: (key, secret, var("AWS_SESSION_TOKEN")),
        })
    }
}

pub(super) struct Bucket {
    config: S3Config,
    credentials: Credentials,
    /// Made when it is first needed: a function that archives nothing does not wait for the roots of trust.
    client: OnceLock<Result<Client, String>>,
}

impl Bucket {
    pub(super) fn new(config: S3Config) -> Self {
        let (key, secret, token) = config.credentials.clone();
        Self {
            config,
            credentials: match token {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            },
            client: OnceLock::new(),
        }
    }

    pub(super) async fn put(&self, name: &str, file: Spilled) -> Result<(), ArchiveError> {
        let (key, checksum) = (self.key(name), STANDARD.encode(file.sha256));
        let mut action = self.config.bucket.put_object(Some(&self.credentials), &key);
        action.headers_mut().insert(CHECKSUM, checksum.clone());
        let url = action.sign(SIGNED_FOR);
        let bytes = file.bytes;
        let mut file = file.file;
        file.rewind()
            .map_err(|error| unavailable("write", &error))?;
        let parts = stream::try_unfold(Some(file), |file| async move {
            let Some(file) = file else { return Ok(None) };
            let (file, part) = beside(move || part(file))
                .await
                .map_err(std::io::Error::other)??;
            Ok::<_, std::io::Error>((!part.is_empty()).then_some((part, Some(file))))
        });
        let request = self
            .client()?
            .put(url)
            .header(CONTENT_LENGTH, bytes)
            .header(CHECKSUM, checksum)
            .body(Body::wrap_stream(parts));
        self.send("write", request).await?;
        // The store said that it has it; ask it what it has.
        let action = self
            .config
            .bucket
            .head_object(Some(&self.credentials), &key);
        let head = self.client()?.head(action.sign(SIGNED_FOR));
        let there = self.send("look at", head).await?;
        let there = there.and_then(|answer| {
            let length = answer.headers().get(CONTENT_LENGTH)?;
            length.to_str().ok()?.parse::<u64>().ok()
        });
        match there == Some(bytes) {
            true => Ok(()),
            false => Err(unavailable("write", &"what was written is not there")),
        }
    }

    pub(super) async fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>, ArchiveError> {
        match self.open(name).await? {
            Some(answer) => whole(answer, most).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn fetch(&self, name: &str) -> Result<Option<File>, ArchiveError> {
        let Some(answer) = self.open(name).await? else {
            return Ok(None);
        };
        let failed = |error: std::io::Error| unavailable("read", &error);
        let mut file = tempfile::tempfile().map_err(failed)?;
        let mut parts = answer
            .bytes_stream()
            .map_err(|error| not_reached("read", &error));
        while let Some(part) = parts.try_next().await? {
            let written = beside(move || file.write_all(&part).map(|()| file)).await;
            file = written
                .map_err(|error| unavailable("read", &error))?
                .map_err(failed)?;
        }
        Ok(Some(file))
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let key = self.key(name);
        let action = self
            .config
            .bucket
            .delete_object(Some(&self.credentials), &key);
        let request = self.client()?.delete(action.sign(SIGNED_FOR));
        self.send("remove", request).await.map(|_| ())
    }

    async fn open(&self, name: &str) -> Result<Option<Response>, ArchiveError> {
        let key = self.key(name);
        let action = self.config.bucket.get_object(Some(&self.credentials), &key);
        let request = self.client()?.get(action.sign(SIGNED_FOR));
        self.send("read", request).await
    }

    /// The answer; `None`: there is no such object.
    async fn send(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<Option<Response>, ArchiveError> {
        let answer = request.send().await;
        let answer = answer.map_err(|error| not_reached(what, &error))?;
        match answer.status() {
            status if status.is_success() => Ok(Some(answer)),
            StatusCode::NOT_FOUND if what != "write" => Ok(None),
            // The address has the signature in it, and the text may have the bucket's name.
            status => Err(unavailable(what, &format!("the store answered {status}"))),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.config.prefix)
    }

    fn client(&self) -> Result<&Client, ArchiveError> {
        let made = self.client.get_or_init(client);
        made.as_ref().map_err(|error| unavailable("ask", error))
    }
}

fn client() -> Result<Client, String> {
    let client = outward::client(Proxy::Environments, Some(tls::client()));
    client
        .read_timeout(SILENCE)
        .build()
        .map_err(|error| error.to_string())
}

/// What lies at an address.
pub(super) async fn download(url: &str, most: u64) -> Result<Bytes, ArchiveError> {
    let client = client().map_err(|error| unavailable("ask", &error))?;
    let answer = client.get(url).send().await;
    let answer = answer.map_err(|error| not_reached("read", &error))?;
    match answer.status() {
        status if status.is_success() => whole(answer, most).await,
        status => Err(unavailable("read", &format!("the answer is {status}"))),
    }
}

async fn whole(answer: Response, most: u64) -> Result<Bytes, ArchiveError> {
    let too_large = |bytes| ArchiveError::TooLarge { bytes, limit: most };
    if let Some(bytes) = answer.content_length().filter(|bytes| *bytes > most) {
        return Err(too_large(bytes));
    }
    let (mut all, mut parts) = (BytesMut::new(), answer.bytes_stream());
    while let Some(part) = parts.next().await {
        all.extend_from_slice(&part.map_err(|error| not_reached("read", &error))?);
        if all.len() as u64 > most {
            return Err(too_large(all.len() as u64));
        }
    }
    Ok(all.freeze())
}

fn part(mut file: File) -> std::io::Result<(File, Bytes)> {
    use std::io::Read as _;
    let mut part = vec![0; PART_BYTES];
    let read = file.read(&mut part)?;
    part.truncate(read);
    Ok((file, part.into()))
}

/// Without the address, which has the signature in it.
fn not_reached(what: &str, error: &reqwest::Error) -> ArchiveError {
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    match cause {
        Some(cause) => unavailable(what, &cause),
        None => unavailable(what, &"the connection broke off"),
    }
}
