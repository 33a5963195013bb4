//! Where Redis is and who we are there, read from `TAILSPAN_REDIS_URL`. Pure; nothing here prints a secret, not even in `Debug` or in what it says of mistakes.
//!
//! ```text
//! redis://[user:password@]host[:6379][/database]                 a node
//! redis-cluster://[user:password@]host[:6379][?node=host:port]   a cluster: any of its nodes, the rest is found
//! redis-sentinel://[user:password@]sentinel[:26379][/database]?service=name[&node=host:port][&sentinel_user=..][&sentinel_password=..]
//! redis+unix:///path/to/socket[?user=..][&password=..][&database=0]
//! ```
//! `rediss` in place of `redis` is the same over TLS; with sentinels, to them as well. A password alone (`:password@`) is that of
//! `requirepass`. Letters that mean something in a URL (`/ ? # @ : %`) are percent-encoded in names and passwords.

use std::{fmt, path::PathBuf};

use url::Url;

const NODE_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// A user of Redis or of a sentinel; without a name the one called `default`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .finish()
    }
}

/// How the data is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Node(Address),
    /// Nodes of a cluster, at least one.
    Cluster(Vec<Address>),
    /// Sentinels, at least one, and what they call the master.
    Sentinel {
        sentinels: Vec<Address>,
        service: String,
        credentials: Credentials,
    },
    Unix(PathBuf),
}

/// What a URL said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    pub place: Place,
    pub tls: bool,
    pub credentials: Credentials,
    pub database: Option<u8>,
}

const SCHEMES: &str = "it must begin with redis://, rediss://, redis-cluster://, rediss-cluster://, redis-sentinel://, rediss-sentinel:// or redis+unix://";
const ENCODE: &str =
    "in a password, write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and % as %25";

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with what to do; no part of the URL is repeated, for it may be a secret.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let text = text.trim();
        let parsed = Url::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => vec![SCHEMES.to_owned()],
            error => vec![format!("{error}; {ENCODE}")],
        })?;
        let (scheme, tls) = match parsed.scheme().strip_prefix("rediss") {
            Some(rest) => (rest, true),
            None => (
                parsed
                    .scheme()
                    .strip_prefix("redis")
                    .ok_or_else(|| vec![SCHEMES.to_owned()])?,
                false,
            ),
        };
        let mut said = Said::of(&parsed);
        let place = match (scheme, tls) {
            ("", _) => Place::Node(said.address(NODE_PORT)),
            ("-cluster", _) => Place::Cluster(said.addresses(NODE_PORT)),
            ("-sentinel", _) => Place::Sentinel {
                sentinels: said.addresses(SENTINEL_PORT),
                service: said.service(),
                credentials: Credentials {
                    user: said.parameter("sentinel_user"),
                    password: said.parameter("sentinel_password"),
                },
            },
            ("+unix", false) => said.socket(),
            _ => return Err(vec![SCHEMES.to_owned()]),
        };
        let database = said.database(&place);
        if said.credentials.user.is_some() && said.credentials.password.is_none() {
            let mistake = "a user needs a password (any, for a user with nopass)";
            said.mistakes.push(mistake.to_owned());
        }
        said.nothing_else(&place);
        if said.mistakes.is_empty() {
            Ok(Self {
                place,
                tls,
                credentials: said.credentials,
                database,
            })
        } else {
            Err(said.mistakes)
        }
    }
}

/// The parts of a URL that nobody has taken yet.
struct Said<'a> {
    url: &'a Url,
    credentials: Credentials,
    parameters: Vec<(String, String)>,
    mistakes: Vec<String>,
}

impl<'a> Said<'a> {
    fn of(url: &'a Url) -> Self {
        let mut mistakes = Vec::new();
        let mut decoded =
            |text: &str| match percent_encoding::percent_decode_str(text).decode_utf8() {
                Ok(text) => Some(text.into_owned()).filter(|text| !text.is_empty()),
                Err(_) => {
                    mistakes.push("user and password must be UTF-8 when decoded".to_owned());
                    None
                }
            };
        let credentials = Credentials {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
        };
        if url.fragment().is_some() {
            mistakes.push(format!("nothing may stand after #; {ENCODE}"));
        }
        Self {
            url,
            credentials,
            parameters: url.query_pairs().into_owned().collect(),
            mistakes,
        }
    }

    /// Takes a parameter; a second one of the name stays and is a mistake.
    fn parameter(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(key, _)| key == name)?;
        Some(self.parameters.swap_remove(at).1)
    }

    fn address(&mut self, default_port: u16) -> Address {
        let host = self.url.host_str().unwrap_or_default();
        if host.is_empty() {
            self.mistakes.push("a host must follow //".to_owned());
        }
        Address {
            host: bare(host),
            port: self.url.port().unwrap_or(default_port),
        }
    }

    /// That of the URL, and those of its `node` parameters.
    fn addresses(&mut self, default_port: u16) -> Vec<Address> {
        let mut all = vec![self.address(default_port)];
        while let Some(node) = self.parameter("node") {
            let (host, port) = match node.rsplit_once(':') {
                // The last part of an IPv6 address is no port.
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
                _ => (node.as_str(), Some(default_port)),
            };
            match port.filter(|port| *port != 0 && !host.is_empty()) {
                Some(port) => all.push(Address {
                    host: bare(host),
                    port,
                }),
                None => self
                    .mistakes
                    .push("every node parameter must be host:port".to_owned()),
            }
        }
        all
    }

    fn service(&mut self) -> String {
        let name = self.parameter("service").unwrap_or_default();
        if name.is_empty() {
            let mistake = "?service= must say what the sentinels call the master (the name after \"sentinel monitor\")";
            self.mistakes.push(mistake.to_owned());
        }
        name
    }

    fn socket(&mut self) -> Place {
        if self.url.host_str().is_some_and(|host| !host.is_empty()) {
            let mistake = "the path of a socket begins with a third slash: redis+unix:///path";
            self.mistakes.push(mistake.to_owned());
        }
        self.credentials = Credentials {
            user: self.parameter("user"),
            password: self.parameter("password"),
        };
        let path = percent_encoding::percent_decode_str(self.url.path()).decode_utf8_lossy();
        if path.len() < 2 {
            self.mistakes
                .push("the path of the socket must follow redis+unix://".to_owned());
        }
        Place::Unix(path.into_owned().into())
    }

    fn database(&mut self, place: &Place) -> Option<u8> {
        let text = match place {
            Place::Unix(_) => self.parameter("database").unwrap_or_default(),
            _ => self.url.path().trim_start_matches('/').to_owned(),
        };
        if text.is_empty() {
            return None;
        }
        match (text.parse(), place) {
            (Ok(0), Place::Cluster(_)) => None,
            (_, Place::Cluster(_)) => {
                let mistake = "a cluster has no databases: leave the path away";
                self.mistakes.push(mistake.to_owned());
                None
            }
            (Ok(number), _) => Some(number),
            (Err(_), _) => {
                let mistake = format!("the database must be a number from 0 to 255; {ENCODE}");
                self.mistakes.push(mistake);
                None
            }
        }
    }

    /// An option that would be ignored is a mistake.
    fn nothing_else(&mut self, place: &Place) {
        if self.parameters.is_empty() {
            return;
        }
        let known = match place {
            Place::Node(_) => "none",
            Place::Cluster(_) => "node, as often as you like",
            Place::Sentinel { .. } => {
                "service, sentinel_user, sentinel_password, and node as often as you like"
            }
            Place::Unix(_) => "user, password, database",
        };
        self.mistakes.push(format!(
            "a parameter after ? is not known or given twice; there are: {known}"
        ));
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"))
    }

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn a_node_with_everything() {
        let url = parsed("rediss://tails%40pan:p%2Fa%3Ass@redis.example:7000/3");
        assert_eq!(url.place, Place::Node(at("redis.example", 7000)));
        assert!(url.tls);
        assert_eq!(url.credentials.user.as_deref(), Some("tails@pan"));
        assert_eq!(url.credentials.password.as_deref(), Some("p/a:ss"));
        assert_eq!(url.database, Some(3));
    }

    #[test]
    fn a_password_alone_and_an_address_of_the_new_kind() {
        let url = parsed("redis://:old@[::1]");
        assert_eq!(url.place, Place::Node(at("::1", 6379)));
        assert_eq!(url.credentials.user, None);
        assert_eq!(url.credentials.password.as_deref(), Some("old"));
    }

    #[test]
    fn a_cluster_has_nodes() {
        let url = parsed("redis-cluster://a:1?node=b:2&node=[::1]:3&node=c");
        let Place::Cluster(mut nodes) = url.place else {
            panic!("a cluster");
        };
        nodes.sort_by_key(|node| node.port);
        assert_eq!(nodes, [at("a", 1), at("b", 2), at("::1", 3), at("c", 6379)]);
    }

    #[test]
    fn sentinels_have_a_service_and_users_of_their_own() {
        let url = parsed(
            "rediss-sentinel://u:p@s1/2?service=main&node=s2:1&sentinel_user=su&sentinel_password=s%26p",
        );
        assert!(url.tls);
        assert_eq!(url.database, Some(2));
        let Place::Sentinel {
            sentinels,
            service,
            credentials,
        } = url.place
        else {
            panic!("sentinels");
        };
        assert_eq!(sentinels, [at("s1", 26379), at("s2", 1)]);
        assert_eq!(service, "main");
        assert_eq!(credentials.user.as_deref(), Some("su"));
        assert_eq!(credentials.password.as_deref(), Some("s&p"));
    }

    #[test]
    fn a_socket() {
        let url = parsed("redis+unix:///run/a%20b/redis.sock?user=u&password=p&database=1");
        assert_eq!(url.place, Place::Unix("/run/a b/redis.sock".into()));
        assert_eq!(url.credentials.password.as_deref(), Some("p"));
        assert_eq!(url.database, Some(1));
    }

    #[test]
    fn mistakes_are_told_all_at_once_and_without_the_secret() {
        for (url, told) in [
            ("hunter2@host:6379", "must begin with"),
            ("hunter2:6379", "must begin with"),
            ("http://:hunter2@host", "must begin with"),
            ("redis-hunter2://host", "must begin with"),
            ("redis://:hun/ter2@host", "%2F"),
            ("redis://:hun#ter2@host", "%2F"),
            ("redis://:hun?ter2@host", "%2F"),
            ("redis://:hunter2@", "host"),
            ("redis://hunter2@host", "needs a password"),
            ("redis://:hunter2@host:70000", "port"),
            ("redis://:hunter2@host/hunter2", "0 to 255"),
            ("redis://:hunter2@host/256", "0 to 255"),
            ("redis://host?hunter2=hunter2", "there are: none"),
            ("redis-cluster://:hunter2@host/1", "no databases"),
            ("redis-cluster://host?node=hunter2:x", "host:port"),
            ("redis-sentinel://:hunter2@host", "?service="),
            (
                "redis-sentinel://h?service=a&service=hunter2",
                "given twice",
            ),
            ("redis+unix://hunter2/path", "third slash"),
            ("rediss+unix:///hunter2", "must begin with"),
            ("", "must begin with"),
        ] {
            let mistakes = RedisUrl::parse(url).expect_err(url).join("\n");
            assert!(mistakes.contains(told), "{url}: {mistakes}");
            for secret in ["hunter2", "ter2"] {
                assert!(!mistakes.contains(secret), "{url}: {mistakes}");
            }
        }
        let both = RedisUrl::parse("redis-sentinel://h/x?node=:1").expect_err("three mistakes");
        assert_eq!(both.len(), 3, "{both:?}");
        let url = parsed("redis-sentinel://u:hunter2@h?service=m&sentinel_password=hunter2");
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
