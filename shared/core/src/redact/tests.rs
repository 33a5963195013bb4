use proptest::prelude::*;

use super::{patterns::Pattern, *};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn redactor(rules: &str) -> Redactor {
    let rules = Rules::parse(rules).unwrap();
    Redactor::new(&rules, Some(b"a key of sixteen bytes")).unwrap()
}

fn clean(rules: &str, text: &str) -> String {
    redactor(rules)
        .clean_text(&TenantId::default(), text)
        .into_owned()
}

/// `before` becomes `after`, and stays that.
fn check(rules: &str, before: &str, after: &str) {
    assert_eq!(clean(rules, before), after, "{before}");
    assert_eq!(clean(rules, after), after, "again: {before}");
}

const R: &str = REDACTED;

#[test]
fn what_stands_under_a_secret_name_goes_and_the_rest_stays_byte_for_byte() {
    check(
        "{}",
        r#"{"password":"hunter2", "n": 1.50}"#,
        &format!(r#"{{"password":"{R}", "n": 1.50}}"#),
    );
    check(
        "{}",
        r#"{"OPENAI_API_KEY": 12345, "b":[1 ,2]}"#,
        &format!(r#"{{"OPENAI_API_KEY": "{R}", "b":[1 ,2]}}"#),
    );
    check(
        "{}",
        r#"{"apiKey":["a","b"],"x":0}"#,
        &format!(r#"{{"apiKey":["{R}"],"x":0}}"#),
    );
    check(
        "{}",
        r#"{"clientSecret":{"a":{"b":"}"}},"x":0}"#,
        &format!(r#"{{"clientSecret":"{R}","x":0}}"#),
    );
    check(
        "{}",
        r#"{'password': 'it\'s', 'x': "a"}"#,
        &format!(r#"{{'password': '{R}', 'x': "a"}}"#),
    );
    // JSON within JSON, twice.
    check(
        "{}",
        r#"{"a":"{\"password\":\"x\\\"y\",\"b\":\"{\\\"secret\\\":\\\"z\\\"}\"}"}"#,
        &format!(r#"{{"a":"{{\"password\":\"{R}\",\"b\":\"{{\\\"secret\\\":\\\"{R}\\\"}}\"}}"}}"#),
    );
    // What was cut off.
    check(
        "{}",
        r#"{"a":1,"password":"hunt"#,
        &format!(r#"{{"a":1,"password":"{R}"#),
    );
    // Written so that it is not seen.
    check(
        "{}",
        r#"{"pass\u0077ord":"x","é":"\u00e9"}"#,
        &format!(r#"{{"password":"{R}","é":"\u00e9"}}"#),
    );
    check(
        "{}",
        r#"{"key":"password","value":{"stringValue":"x"}}"#,
        &format!(r#"{{"key":"password","value":{{"stringValue":"{R}"}}}}"#),
    );
    check(
        "{}",
        "GET /a?api_key=abc&b=1 and PASSWORD=abc.",
        &format!("GET /a?api_key={R}&b=1 and PASSWORD={R}"),
    );
    check("{}", "Cookie: a=b; c=d\nx", &format!("Cookie: {R}\nx"));
    check("{}", "password: hunter2!", &format!("password: {R}"));
}

#[test]
fn what_is_not_secret_stays() {
    for text in [
        r#"{"input_tokens":12,"max_tokens":100,"token_count":{"total":3},"total_token":5}"#,
        r#"{"password":null,"secret":true,"cookies":[],"api_key":""}"#,
        r#"{"password":{"type":"string","description":"of the user"}}"#,
        "Forgot your password? Enter the password: click here",
        "secret: String, api_key=(",
        "the secretary of the cookie company authorizes it",
        "task-force-of-people-who-take-risk-very-seriously sk-folding-cube-container-of-css",
        "bearer of tidings-of-great-joy",
        "1234567890123456 4111111111111112 4111111111111111 a@b.example",
        r"C:\u0061bc é\u0041",
        "https://host:8080/a@b http://a.example/x:y@z",
        "7c9e6679-7425-40de-944b-e07fc1f90ae7 4bf92f3577b34da6a3ce929d0e0e4736",
    ] {
        assert_eq!(clean("{}", text), text);
    }
    let both = r#"{"patterns":["email","card"]}"#;
    for text in [
        "1234567890123456",
        "4111111111111112",
        "1800000000000000000",
        "a@b",
        "@decorator.name",
        "x4111111111111111",
    ] {
        assert_eq!(clean(both, text), text);
    }
}

#[test]
fn credentials_are_known_by_their_form() {
    let digits = "0123456789".repeat(4);
    for secret in [
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        format!("sk-ant-api03-{digits}"),
        format!("sk-proj-{digits}"),
        format!("AIza{}", &digits[..35]),
        format!("ghp_{}", &digits[..36]),
        format!("github_pat_{digits}"),
        format!("glpat-{}", &digits[..20]),
        format!("xoxb-{digits}"),
        format!("sk_live_{digits}"),
        format!("hf_{digits}"),
        format!("gsk_{digits}"),
        format!("SG.{}.{digits}", &digits[..22]),
        format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{digits}"),
        format!("-----BEGIN RSA PRIVATE KEY-----\n{digits}\n-----END RSA PRIVATE KEY-----"),
        r"-----BEGIN PRIVATE KEY-----\nabc".to_owned(),
    ] {
        check("{}", &format!("see {secret}"), &format!("see {R}"));
    }
    check("{}", "Bearer abcdefghijkl0", &format!("Bearer {R}"));
    check(
        "{}",
        "postgres://app:hunter2@db/x",
        &format!("postgres://app:{R}@db/x"),
    );
    let asked = r#"{"patterns":["email","card","/EMP-[0-9]{4}/"]}"#;
    check(
        asked,
        "to ada.l+x@mail.example.com, EMP-12345",
        &format!("to {R}, {R}5"),
    );
    check(
        asked,
        "4111 1111 1111 1111; 378282246310005",
        &format!("{R}; {R}"),
    );
    check(
        asked,
        r#"{"n": 4111111111111111,"a":"[1,4111111111111111]"}"#,
        &format!(r#"{{"n": "{R}","a":"[1,\"{R}\"]"}}"#),
    );
    check(
        asked,
        r#"{"a":[4111111111111111,"x",4111111111111111]}"#,
        &format!(r#"{{"a":["{R}","x","{R}"]}}"#),
    );
    check(
        asked,
        r#"{"to":"ada\u0040b.example"}"#,
        &format!(r#"{{"to":"{R}"}}"#),
    );
}

#[test]
fn names_and_paths_are_as_they_were_asked_for() {
    let rules = r#"{"names":["user.*mail","ssn"],"paths":["$.customer.iban","args $.all[*].x","$..birthday"]}"#;
    check(
        rules,
        r#"{"user.e_mail":"x","SSN":1,"assn":2}"#,
        &format!(r#"{{"user.e_mail":"{R}","SSN":"{R}","assn":2}}"#),
    );
    let value = |redactor: &Redactor, key: &str, text: &str| {
        let mut pairs = vec![KeyValue {
            key: key.into(),
            value: Some(AnyValue {
                value: Some(any_value::Value::String(text.into())),
            }),
        }];
        let of = TenantId::default();
        redactor.pass(&of).pairs(&mut pairs);
        match pairs.remove(0).value.unwrap().value.unwrap() {
            any_value::Value::String(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let redactor = redactor(rules);
    for (key, before, after) in [
        (
            "x",
            r#"{"customer": {"iban":"a","b":1}}"#,
            format!(r#"{{"customer": {{"iban":"{R}","b":1}}}}"#),
        ),
        (
            "args",
            r#"{"all":[{"x":1},{"y":2, "x":{"z":"]"}}]}"#,
            format!(r#"{{"all":[{{"x":"{R}"}},{{"y":2, "x":"{R}"}}]}}"#),
        ),
        (
            "other",
            r#"{"all":[{"x":1}]}"#,
            r#"{"all":[{"x":1}]}"#.to_owned(),
        ),
        (
            "x",
            r#"{"a":[{"birthday":"b"}],"s":"{\"birthday\":5}"}"#,
            format!(r#"{{"a":[{{"birthday":"{R}"}}],"s":"{{\"birthday\":\"{R}\"}}"}}"#),
        ),
        // Cut off.
        (
            "x",
            r#"{"customer":{"iban":"ab"#,
            format!(r#"{{"customer":{{"iban":"{R}"#),
        ),
        ("http.request.header.authorization.0", "x", R.to_owned()),
        ("gen_ai.usage.input_tokens", "12", "12".to_owned()),
    ] {
        assert_eq!(value(&redactor, key, before), after, "{before}");
        assert_eq!(value(&redactor, key, &after), after, "{before}");
    }
}

#[test]
fn equal_values_of_a_tenant_have_equal_marks_and_of_two_tenants_none() {
    let redactor = redactor(r#"{"mode":"hmac"}"#);
    let of = |tenant_name: &str, text: &str| {
        redactor.clean_text(&tenant(tenant_name), text).into_owned()
    };
    let one = of("a", r#"{"password":"hunter2"}"#);
    assert!(one.starts_with(r#"{"password":"[hmac:"#), "{one}");
    assert_eq!(of("a", &one), one);
    assert_eq!(of("a", r#"{"password":"hunter2"}"#), one);
    assert_eq!(
        of("a", r#"{'secret':'hunter2'}"#)[11..],
        one.replace('"', "'")[13..]
    );
    assert_ne!(of("b", r#"{"password":"hunter2"}"#), one);
    assert_ne!(of("a", r#"{"password":"hunter3"}"#), one);
    assert!(Redactor::new(&Rules::parse(r#"{"mode":"hmac"}"#).unwrap(), None).is_err());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let rules = r#"{"names":["*","a"],"paths":["x"],"patterns":["mail","/(/","/a*/"],"content":"no","mode":1,"what":2,"tenants":{"A b":{},"a":{"names":3},"b":4}}"#;
    let mistakes = Rules::parse(rules).unwrap_err();
    assert_eq!(mistakes.len(), 12, "{mistakes:#?}");
    assert!(Rules::parse("[").is_err() && Rules::parse("[]").is_err());
}

#[test]
fn what_is_always_done_compiles() {
    assert_eq!(Pattern::credentials().len(), patterns::credentials_count());
    LazyLock::force(&ALWAYS);
}

fn bits() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("password"),
        Just("\"api_key\""),
        Just("'"),
        Just("\""),
        Just("\\"),
        Just("\\\""),
        Just(":"),
        Just("="),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(" "),
        Just("\n"),
        Just("\\u0070assword"),
        Just("[redacted]"),
        Just("[hmac:0123456789abcdef]"),
        Just("a@b.example"),
        Just("4111111111111111"),
        Just("Bearer abcdefghijklm0"),
        Just("é"),
        Just("value"),
        Just("customer"),
        Just("stringValue"),
        Just("://a:b@"),
        Just("null"),
        Just("1"),
        Just("cookie: a=b"),
        Just("-----BEGIN PRIVATE KEY-----"),
        Just("x"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|all| all.concat())
}

const EVERYTHING: &str = r#"{"names":["xx*y"],"paths":["$..customer","$.value[*]"],"patterns":["email","card","/[0-9]x/"]}"#;

static REMOVE: LazyLock<Redactor> = LazyLock::new(|| redactor(EVERYTHING));
static KEYED: LazyLock<Redactor> =
    LazyLock::new(|| redactor(&EVERYTHING.replacen('{', r#"{"mode":"hmac","#, 1)));

proptest! {
    #[test]
    fn nothing_panics_and_what_is_clean_stays(text in bits(), other in any::<String>()) {
        let of = TenantId::default();
        for redactor in [&*REMOVE, &*KEYED] {
            for text in [&text, &other] {
                let pass = redactor.pass(&of);
                let active = pass.rules.paths_at(None);
                if let Some(once) = pass.text(text.as_bytes(), &active) {
                    prop_assert_eq!(pass.text(&once, &active).map(lossy), None, "{:?} -> {:?}", text, lossy(once));
                }
            }
        }
    }

    #[test]
    fn json_stays_json(name in "[a-z_]{0,8}(password|api_key)?", value in any::<String>(), number in any::<i64>(), depth in 0..3_usize) {
        let mut text = serde_json::json!({name: value, "n": number, "api_key": {"a": [value]}, "token": value}).to_string();
        for _ in 0..depth {
            text = serde_json::json!({"inner": text}).to_string();
        }
        let clean = REMOVE.clean_text(&TenantId::default(), &text).into_owned();
        prop_assert!(serde_json::from_str::<Value>(&clean).is_ok(), "{} -> {}", text, clean);
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        REMOVE.pass(&TenantId::default()).text(&bytes, &[]);
    }
}

/// What a stranger repeats as often as a request may hold it is looked at in time: these took minutes where each was looked at to the end of the text.
#[test]
fn no_text_is_looked_at_again_and_again() {
    let began = std::time::Instant::now();
    for piece in [
        r#""password":[ "#,
        "cookie: ",
        "[a@b.example ",
        "'secret','",
        r#"\"api_key\":{"#,
        "4111111111111111,",
        "authorization: x ",
    ] {
        let text = piece.repeat((1 << 17) / piece.len());
        REMOVE.clean_text(&TenantId::default(), &text);
        REMOVE.clean_text(&TenantId::default(), &format!("[{text}"));
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
