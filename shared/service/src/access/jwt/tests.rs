//! Tokens that another implementation made (`tests/peers/jwt.py`), and what strangers make of them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::{
    keyset::KeySet,
    token::{Expected, Refusal, parse, verified},
};

/// A moment at which the tokens of the file are good.
const NOW_MS: u64 = 1_790_000_000_000;
const AUDIENCES: &str = "tailspan";

fn others() -> Value {
    serde_json::from_str(include_str!("others.json")).unwrap()
}

fn read(text: &str, keys: &KeySet) -> Result<Value, Refusal> {
    let audiences = [AUDIENCES.to_owned()];
    let expected = Expected {
        issuer: "https://id.example.com",
        audiences: &audiences,
        now_unix_ms: NOW_MS,
    };
    let token = parse(text, &expected)?;
    verified(&token, keys).map(|claims| Value::Object(claims.clone()))
}

fn keys_of(keys: &Value) -> KeySet {
    KeySet::parse(keys.to_string().as_bytes()).unwrap()
}

#[test]
fn tokens_of_another_implementation_are_read_as_it_meant_them() {
    let others = others();
    let keys = keys_of(&others["keys"]);
    let tokens = others["tokens"].as_object().unwrap();
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for (name, token) in tokens {
        let token = token.as_str().unwrap();
        match read(token, &keys) {
            Ok(claims) => {
                assert_eq!(claims["sub"], "ada");
                good.push(name.as_str());
            }
            Err(refusal) => {
                assert!(
                    matches!(refusal, Refusal::Malformed(_)),
                    "{name}: {refusal}"
                );
                refused.push(name.as_str());
            }
        }
        if good.last() != Some(&name.as_str()) {
            continue;
        }
        // Any character of it changed, or its end cut, makes it another.
        for at in 0..token.len() {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(read(&changed, &keys).is_err(), "{name}: {at}");
            assert!(read(&token[..at], &keys).is_err(), "{name}: {at}");
        }
        // Signed by none, by the key of another algorithm, in the name of another key.
        let (header, rest) = token.split_once('.').unwrap();
        let header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        let with = |name: &str, value: &str| {
            let mut header = header.clone();
            header[name] = value.into();
            format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
        };
        for other in [
            "none", "None", "NONE", "", "HS256", "HS512", "RS256", "PS256", "RS384", "ES256",
            "EdDSA", "ES512", "RS1",
        ] {
            if header["alg"] != other {
                assert!(
                    read(&with("alg", other), &keys).is_err(),
                    "{name} as {other}"
                );
            }
        }
        for kid in ["rsa", "p256", "p384", "ed", "other", "secret", "../ed", ""] {
            if header["kid"] != kid {
                assert!(read(&with("kid", kid), &keys).is_err(), "{name} by {kid}");
            }
        }
    }
    let all = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
    ];
    assert_eq!(good, all);
    assert_eq!(refused.len(), 4, "{refused:?}");
}

#[test]
fn a_key_says_what_it_is_for() {
    let others = others();
    let token = |name: &str| others["tokens"][name].as_str().unwrap().to_owned();
    let key = |kid: &str| {
        let mut keys = others["keys"]["keys"].as_array().unwrap().iter();
        keys.find(|key| key["kid"] == kid).unwrap().clone()
    };
    let with = |kid: &str, changes: Value| {
        let mut key = key(kid);
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => key.as_object_mut().unwrap().remove(name),
                value => key
                    .as_object_mut()
                    .unwrap()
                    .insert(name.clone(), value.clone()),
            };
        }
        json!({"keys": [key, self::key_of(&Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(), "mine")]})
    };
    let check = |name: &str, kid: &str, changes: Value, expected: Result<(), Refusal>| {
        let keys = keys_of(&with(kid, changes.clone()));
        let found = read(&token(name), &keys).map(|_| ());
        assert_eq!(found, expected, "{name} {changes}");
    };
    check("RS256", "rsa", json!({"alg": "RS256"}), Ok(()));
    check(
        "RS256",
        "rsa",
        json!({"alg": "PS256"}),
        Err(Refusal::Signature),
    );
    check(
        "RS256",
        "rsa",
        json!({"use": "enc"}),
        Err(Refusal::UnknownKey),
    );
    check(
        "RS256",
        "rsa",
        json!({"alg": "HS256"}),
        Err(Refusal::UnknownKey),
    );
    check(
        "RS256",
        "rsa",
        json!({"key_ops": ["sign"]}),
        Err(Refusal::UnknownKey),
    );
    check(
        "RS256",
        "rsa",
        json!({"kid": "new"}),
        Err(Refusal::UnknownKey),
    );
    check(
        "ES256",
        "p256",
        json!({"crv": "P-384"}),
        Err(Refusal::UnknownKey),
    );
    check(
        "ES256",
        "p256",
        json!({"x": "AA"}),
        Err(Refusal::UnknownKey),
    );
    // Some write the number as one that cannot be negative.
    let n = key("rsa")["n"].as_str().unwrap().to_owned();
    let n = [vec![0], URL_SAFE_NO_PAD.decode(n).unwrap()].concat();
    check(
        "RS256",
        "rsa",
        json!({"n": URL_SAFE_NO_PAD.encode(n)}),
        Ok(()),
    );
}

fn key_of(pair: &Ed25519KeyPair, kid: &str) -> Value {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid})
}

#[test]
fn what_a_token_must_say_it_must_say_once_and_well() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let keys = keys_of(&json!({"keys": [key_of(&pair, "mine")]}));
    let sign = |header: &str, claims: &str| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let now = NOW_MS / 1000;
    let usual = r#"{"alg":"EdDSA","kid":"mine"}"#;
    let good = json!({"iss": "https://id.example.com", "aud": "tailspan", "exp": now + 60});
    let claims = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        read(&sign(usual, &claims.to_string()), &keys).is_ok()
    };
    let header = |header: &str| read(&sign(header, &good.to_string()), &keys).is_ok();
    let raw = |text: &str| read(&sign(usual, text), &keys).is_ok();

    assert!(claims("sub", json!("ada")));
    for (name, value) in [
        ("aud", json!(["x", "tailspan"])),
        ("exp", json!(now - 59)),
        ("exp", json!(now as f64 + 0.5)),
        ("exp", json!(u64::MAX)),
        ("nbf", json!(now + 60)),
        ("nbf", json!(0)),
        ("iat", json!(now + 59)),
    ] {
        assert!(claims(name, value.clone()), "{name} {value}");
    }
    for (name, value) in [
        ("iss", json!("https://id.example.com/")),
        ("iss", json!(["https://id.example.com"])),
        ("iss", json!("https://ID.example.com")),
        ("iss", json!(null)),
        ("aud", json!("tailspan2")),
        ("aud", json!(["x"])),
        ("aud", json!([])),
        ("aud", json!({"tailspan": true})),
        ("aud", json!([["tailspan"]])),
        ("aud", json!(null)),
        ("exp", json!(now - 60)),
        ("exp", json!(now.to_string())),
        ("exp", json!(-1)),
        ("exp", json!(null)),
        ("nbf", json!(now + 61)),
        ("nbf", json!("0")),
        ("iat", json!(now + 61)),
        ("iat", json!(true)),
    ] {
        assert!(!claims(name, value.clone()), "{name} {value}");
    }
    for name in ["iss", "aud", "exp"] {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(name);
        assert!(!raw(&without.to_string()), "without {name}");
    }
    let said = good.to_string();
    let said = said.trim_matches(['{', '}']);
    assert!(raw(&format!("{{{said}}}")));
    for wrong in [
        format!("{{{said},\"iss\":\"https://id.example.com\"}}"),
        format!("{{{said},\"org\":{{\"id\":\"a\",\"id\":\"b\"}}}}"),
        format!(
            "{{{said},\"deep\":{}{}}}",
            "[".repeat(5000),
            "]".repeat(5000)
        ),
        format!("[{{{said}}}]"),
        format!("{{{said}}} {{}}"),
        format!("{{{said},\"long\":\"{}\"}}", "x".repeat(16 * 1024)),
        "null".to_owned(),
        String::new(),
    ] {
        assert!(!raw(&wrong), "{}", &wrong[..wrong.len().min(200)]);
    }

    let mine = key_of(&other, "mine").to_string();
    for fine in [
        r#"{"alg":"EdDSA"}"#.to_owned(),
        r#"{"alg":"Ed25519","kid":"mine","typ":"at+JWT"}"#.to_owned(),
        r#"{"alg":"EdDSA","kid":"mine","typ":"application/jwt"}"#.to_owned(),
        // Where they say that keys are, nobody looks.
        format!(
            r#"{{"alg":"EdDSA","kid":"mine","jwk":{mine},"jku":"http://127.0.0.1:1/","x5u":"file:///etc/passwd","x5c":["AA"]}}"#
        ),
    ] {
        assert!(header(&fine), "{fine}");
    }
    for wrong in [
        r#"{"alg":"EdDSA","kid":"mine","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","kid":"mine","crit":[]}"#,
        r#"{"alg":"EdDSA","kid":"mine","typ":"logout+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"mine","typ":7}"#,
        r#"{"alg":"EdDSA","kid":7}"#,
        r#"{"alg":"EdDSA","kid":"yours"}"#,
        r#"{"alg":"EdDSA","alg":"none","kid":"mine"}"#,
        r#"{"alg":["EdDSA"],"kid":"mine"}"#,
        r#"{"kid":"mine"}"#,
        "[]",
        "",
    ] {
        assert!(!header(wrong), "{wrong}");
    }
    // The key that a token brings along signs nothing.
    let signed = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"mine","jwk":{mine}}}"#));
    let signed = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(good.to_string()));
    let forged = URL_SAFE_NO_PAD.encode(other.sign(signed.as_bytes()));
    let found = read(&format!("{signed}.{forged}"), &keys);
    assert_eq!(found.unwrap_err(), Refusal::Signature);
    let good = sign(usual, &good.to_string());
    for wrong in [
        format!("{good}="),
        format!("{good}.x"),
        format!(" {good}"),
        good.replace('.', ".."),
        "..".to_owned(),
        String::new(),
    ] {
        assert!(read(&wrong, &keys).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_is_refused_and_nothing_falls(
        text in "[A-Za-z0-9_.-]{0,80}",
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4),
        claims in "[{\\[\"a-z,:0-9eE.\\]}-]{0,60}",
    ) {
        let keys = keys_of(&others()["keys"]);
        let encoded: Vec<_> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#);
        let claims = URL_SAFE_NO_PAD.encode(claims);
        for text in [text, encoded.join("."), format!("{header}.{claims}.AAAA")] {
            prop_assert!(read(&text, &keys).is_err());
            let _ = KeySet::parse(text.as_bytes());
        }
    }
}
