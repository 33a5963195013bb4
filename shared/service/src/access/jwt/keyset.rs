//! The keys of an issuer (a JWK set, RFC 7517), and whether one of them made a signature.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    self, EcdsaVerificationAlgorithm, EdDSAParameters, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;

/// Keys of a set that are looked at; issuers have a handful.
const MOST_KEYS: usize = 100;

/// How a token may be signed: only by a key that its verifiers do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// By its name in a header or a key. `None`: we take none of it; so of `none` and of everything with a shared secret.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // RFC 9864 has a name of its own for each curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::EdDsa => return None,
        })
    }
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A curve with the one algorithm that it has, and the point, uncompressed.
    Ecdsa(Algorithm, &'static EcdsaVerificationAlgorithm, Vec<u8>),
    EdDsa(&'static EdDSAParameters, Vec<u8>),
}

struct Key {
    id: Option<String>,
    /// The one that it is for, where it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

impl Key {
    /// A key that signs tokens, of a kind that we know. `None`: it is another, of which issuers have some too.
    fn parse(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if jwk.get("use").is_some_and(|it| it != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops") {
            let mut operations = operations.as_array()?.iter();
            if !operations.any(|it| it == "verify") {
                return None;
            }
        }
        let algorithm = match jwk.get("alg") {
            Some(name) => Some(Algorithm::named(name.as_str()?)?),
            None => None,
        };
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa {
                n: whole(bytes("n")?),
                e: whole(bytes("e")?),
            },
            ("EC", Some("P-256")) => Material::Ecdsa(
                Algorithm::Es256,
                &signature::ECDSA_P256_SHA256_FIXED,
                point(32)?,
            ),
            ("EC", Some("P-384")) => Material::Ecdsa(
                Algorithm::Es384,
                &signature::ECDSA_P384_SHA384_FIXED,
                point(48)?,
            ),
            ("OKP", Some("Ed25519")) => Material::EdDsa(
                &signature::ED25519,
                bytes("x").filter(|point| point.len() == 32)?,
            ),
            _ => return None,
        };
        let id = text("kid").map(str::to_owned);
        Some(Self {
            id,
            algorithm,
            material,
        })
    }

    /// Whether it may have made a signature of this kind.
    fn suits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|only| only == algorithm)
            && match &self.material {
                Material::Rsa { .. } => algorithm.rsa().is_some(),
                Material::Ecdsa(only, ..) => *only == algorithm,
                Material::EdDsa(..) => algorithm == Algorithm::EdDsa,
            }
    }

    fn made(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => algorithm.rsa().is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature).is_ok()
            }),
            Material::Ecdsa(_, curve, point) => UnparsedPublicKey::new(*curve, point)
                .verify(message, signature)
                .is_ok(),
            Material::EdDsa(curve, point) => UnparsedPublicKey::new(*curve, point)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// A number without zeros before it, as ring wants it; some issuers write one.
fn whole(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// What a look at a signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Good,
    Bad,
    /// The key that it names, or the only one that it could be of, is not among them: the issuer may have a new one.
    NoKey,
}

/// The keys with which an issuer signs tokens.
pub(super) struct KeySet(Vec<Key>);

/// How many; they are public, and of no use in a log.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({})", self.0.len())
    }
}

impl KeySet {
    /// Reads a JWK set; keys that are not for this are passed over.
    ///
    /// # Errors
    /// It is none, or none of its keys signs tokens.
    pub(super) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "the keys are not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("the keys are no JWK set (an object with a list \"keys\")")?;
        let keys: Vec<_> = keys.iter().take(MOST_KEYS).filter_map(Key::parse).collect();
        match keys.is_empty() {
            true => Err("no key is one that signs tokens (RSA, P-256, P-384, Ed25519)"),
            false => Ok(Self(keys)),
        }
    }

    /// Whether one of the keys made a signature: the one that is named, else the only one that could.
    pub(super) fn check(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Found {
        let made = |key: &&Key| key.made(algorithm, message, signature);
        let suiting = self.0.iter().filter(|key| key.suits(algorithm));
        if key_id.is_some() {
            let is_it = |key: &&Key| key.id.as_deref() == key_id;
            if !self.0.iter().any(|key| is_it(&key)) {
                return Found::NoKey;
            }
            // Names that two keys have are the issuer's mistake; RFC 7517 allows them for keys of different kinds.
            return match suiting.filter(is_it).any(|key| made(&key)) {
                true => Found::Good,
                false => Found::Bad,
            };
        }
        let suiting: Vec<_> = suiting.collect();
        match suiting.as_slice() {
            [] => Found::NoKey,
            // Another may stand in its place by now.
            [only] => match made(only) {
                true => Found::Good,
                false => Found::NoKey,
            },
            _ => Found::Bad,
        }
    }
}
