//! An issuer of tokens: its documents over HTTP, the keys that it has now, and what it signs with them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tailspan_service::{access::settings::AccessSettings, config::Config, log::now_unix_ms};

pub(crate) const AUDIENCE: &str = "tailspan-tests";

/// A key of an issuer's, or of somebody who would like to be one.
pub(crate) struct Signer {
    kid: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub(crate) fn new(kid: &str) -> Self {
        let seed: [u8; 32] = rand::random();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let kid = kid.to_owned();
        Self { kid, pair }
    }

    pub(crate) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid, "x": x})
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(
            &json!({"alg": "EdDSA", "kid": self.kid, "typ": "JWT"}),
            &claims.to_string(),
        )
    }

    /// With a header and claims as they are.
    pub(crate) fn sign_as(&self, header: &Value, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(&header.to_string()), part(claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(crate) fn now_seconds() -> u64 {
    now_unix_ms() / 1000
}

/// What a token says of this tenant and these scopes, for an hour.
pub(crate) fn claims(issuer: &str, tenant: &str, scopes: &str) -> Value {
    let now = now_seconds();
    json!({
        "iss": issuer, "aud": [AUDIENCE, "another"], "sub": "somebody", "iat": now, "exp": now + 3600,
        "org": {"id": tenant}, "scope": scopes,
    })
}

/// Settings with tokens of this issuer: its tenant is in `org.id`.
pub(crate) fn access(issuer: &str, more: &[(&str, &str)]) -> AccessSettings {
    let vars = [
        ("TAILSPAN_AUTH", "jwt"),
        ("TAILSPAN_JWT_ISSUER", issuer),
        ("TAILSPAN_JWT_AUDIENCE", AUDIENCE),
        ("TAILSPAN_JWT_TENANT_CLAIM", "org.id"),
    ];
    let var = |name: &str| {
        let mut all = more.iter().chain(&vars);
        all.find_map(|(key, value)| (*key == name).then(|| (*value).to_owned()))
    };
    Config::from_vars(var).unwrap().access
}

/// What the issuer answers, when it is not as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mood {
    pub(crate) issuer: Option<String>,
    pub(crate) jwks_uri: Option<String>,
    pub(crate) jwks: Option<String>,
}

#[derive(Default)]
struct Shown {
    url: Mutex<String>,
    keys: Mutex<Vec<Value>>,
    mood: Mutex<Mood>,
    is_down: AtomicBool,
    asked: AtomicUsize,
    elsewhere: AtomicUsize,
}

/// A server with the documents of an issuer.
pub(crate) struct Issuer {
    pub(crate) url: String,
    shown: Arc<Shown>,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let shown = Arc::new(Shown::default());
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/redirect", get(redirect))
            .route("/elsewhere", get(elsewhere))
            .with_state(Arc::clone(&shown));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        shown.url.lock().unwrap().clone_from(&url);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shown }
    }

    pub(crate) fn has(&self, signers: &[&Signer]) {
        let keys = signers.iter().map(|signer| signer.jwk()).collect();
        *self.shown.keys.lock().unwrap() = keys;
    }

    pub(crate) fn is_down(&self, is_down: bool) {
        self.shown.is_down.store(is_down, Ordering::SeqCst);
    }

    pub(crate) fn answers(&self, mood: Mood) {
        *self.shown.mood.lock().unwrap() = mood;
    }

    /// How often somebody asked for its document.
    pub(crate) fn asked(&self) -> usize {
        self.shown.asked.load(Ordering::SeqCst)
    }

    /// How often somebody followed it elsewhere.
    pub(crate) fn followed(&self) -> usize {
        self.shown.elsewhere.load(Ordering::SeqCst)
    }

    pub(crate) fn claims(&self, tenant: &str, scopes: &str) -> Value {
        claims(&self.url, tenant, scopes)
    }
}

async fn document(State(shown): State<Arc<Shown>>) -> Response {
    shown.asked.fetch_add(1, Ordering::SeqCst);
    if shown.is_down.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let url = shown.url.lock().unwrap().clone();
    let mood = shown.mood.lock().unwrap().clone();
    let keys = mood.jwks_uri.unwrap_or_else(|| format!("{url}/keys"));
    let issuer = mood.issuer.unwrap_or(url);
    axum::Json(json!({"issuer": issuer, "jwks_uri": keys})).into_response()
}

async fn keys(State(shown): State<Arc<Shown>>) -> String {
    let mood = shown.mood.lock().unwrap().clone();
    let keys = shown.keys.lock().unwrap().clone();
    mood.jwks
        .unwrap_or_else(|| json!({ "keys": keys }).to_string())
}

async fn redirect() -> Response {
    (StatusCode::FOUND, [(LOCATION, "/elsewhere")]).into_response()
}

async fn elsewhere(State(shown): State<Arc<Shown>>) -> String {
    shown.elsewhere.fetch_add(1, Ordering::SeqCst);
    let keys = shown.keys.lock().unwrap().clone();
    json!({ "keys": keys }).to_string()
}
