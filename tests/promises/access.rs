//! Who may reach Redis, and what is said when we may not.

use tailspan_service::{App, config::RedisTls, log::LogError};

use crate::{
    stores::{Secured, documented_rule},
    support::{RedisServer, config},
};

/// What the first use of a Redis at this URL says.
async fn refused(url: &str) -> String {
    let app = App::start(config(url)).await.expect("starts all the same");
    let error = app.store_memory().await.expect_err("not let in");
    assert!(matches!(error, LogError::Unavailable(_)), "{error}");
    error.to_string()
}

async fn let_in(url: &str) {
    let app = App::start(config(url)).await.expect("starts");
    app.store_memory().await.expect("let in");
    app.ask_what_we_may().await;
    assert_eq!(app.refusals(), [""; 0]);
}

#[tokio::test]
async fn a_password_of_either_kind_lets_in_and_a_wrong_one_is_not_repeated() {
    let server = RedisServer::start().await;
    server
        .cli(&[
            "ACL", "SETUSER", "somebody", "on", ">a/b@c", "~*", "&*", "+@all",
        ])
        .await;
    server
        .cli(&["CONFIG", "SET", "requirepass", "old one"])
        .await;
    let port = server.port;
    let_in(&format!("redis://:old%20one@127.0.0.1:{port}/3")).await;
    let_in(&format!("redis://somebody:a%2Fb%40c@127.0.0.1:{port}")).await;
    let said = refused(&format!("redis://somebody:hunter2@127.0.0.1:{port}")).await;
    assert!(!said.contains("hunter2"), "{said}");
    refused(&format!("redis://127.0.0.1:{port}")).await;
}

#[tokio::test]
async fn the_documented_rule_is_enough_and_what_is_missing_is_named() {
    let secured = Secured::start().await;
    let app = App::start(secured.config()).await.expect("starts");
    app.ask_what_we_may().await;
    assert_eq!(app.refusals(), [""; 0]);
    let rule = |extra: &[&str]| {
        let mut rule = documented_rule();
        rule.extend(extra.iter().map(ToString::to_string));
        rule
    };
    for (extra, told) in [
        (["resetchannels"].as_slice(), "&*:bell"),
        (&["-xadd", "-hset"], "may not run HSET XADD"),
        (&["-publish"], "may not PUBLISH"),
        (&["-subscribe"], "may not SUBSCRIBE"),
        (&["-evalsha"], "evalsha"),
    ] {
        let rule = rule(extra);
        let rule: Vec<_> = rule.iter().map(String::as_str).collect();
        assert_eq!(secured.server.cli(&rule).await, "+OK\r\n");
        let app = App::start(secured.config()).await.expect("starts");
        app.ask_what_we_may().await;
        let told_all = app.refusals().join("\n");
        assert!(told_all.contains(told), "{extra:?}: {told_all}");
    }
}

#[tokio::test]
async fn tls_checks_the_authority_and_the_name() {
    let secured = Secured::start().await;
    for (what, config) in [
        ("the authority is unknown", {
            let mut config = secured.config();
            config.redis_tls = RedisTls {
                ca_file: Some(secured.files.path().join("client.pem")),
                ..config.redis_tls
            };
            config
        }),
        ("the name is another", {
            let mut config = secured.config();
            config.redis_url = config.redis_url.replace("localhost", "127.0.0.1");
            config
        }),
        ("the client shows no certificate", {
            let mut config = secured.config();
            config.redis_tls.client_files = None;
            config
        }),
        ("the port speaks no tls", {
            let mut config = secured.config();
            config.redis_url = format!(
                "rediss://tailspan:a-long-password@localhost:{}",
                secured.server.port
            );
            config
        }),
    ] {
        let app = App::start(config).await.expect("starts all the same");
        assert!(app.store_memory().await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_url_or_file_that_cannot_be_read_is_told_before_anything_starts() {
    let started = async |url: &str, ca: Option<&str>| {
        let mut config = config(url);
        config.redis_tls.ca_file = ca.map(Into::into);
        match App::start(config).await {
            Ok(_) => panic!("{url} is wrong"),
            Err(error) => error.to_string(),
        }
    };
    let said = started("redis://:hunter2@h/x", None).await;
    assert!(
        said.contains("0 to 255") && !said.contains("hunter2"),
        "{said}"
    );
    let said = started("rediss://h", Some("/nowhere.pem")).await;
    assert!(
        said.contains("TAILSPAN_REDIS_CA_FILE") && said.contains("/nowhere.pem"),
        "{said}"
    );
}
