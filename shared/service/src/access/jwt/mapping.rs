//! What an issuer's claims are here: a tenant, and scopes.
//!
//! A claim is named by its name (`tenant`), by the way to it (`realm.tenant`), or by a JSON pointer (`/https:~1~1example.com~1tenant`); a name with `://` in it is taken whole. Its value is a text, or a list of texts.
//!
//! Without a table a value is the name of a tenant, or of a scope, itself. With one, nothing but what stands in the table is: what others call `admin` is not ours by accident.

use std::{collections::HashMap, hash::Hash};

use serde_json::{Map, Value};
use tailspan_core::id::TenantId;

use crate::access::Scopes;

/// The way to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimPath {
    said: String,
    pointer: String,
}

impl ClaimPath {
    pub(super) fn parse(text: &str) -> Self {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        let pointer = if text.starts_with('/') {
            text.to_owned()
        } else if text.contains("://") {
            format!("/{}", escaped(text))
        } else {
            let names = text.split('.').map(|name| format!("/{}", escaped(name)));
            names.collect()
        };
        Self {
            said: text.to_owned(),
            pointer,
        }
    }

    fn value<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        // serde_json has pointers into values, not into their maps.
        let rest = self.pointer.strip_prefix('/')?;
        let (first, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let first = first.replace("~1", "/").replace("~0", "~");
        claims.get(&first)?.pointer(rest)
    }
}

/// A text, or those of a list; something else is none.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What the operator said of claims.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) tenant: ClaimPath,
    pub(super) tenants: Option<HashMap<String, TenantId>>,
    pub(super) scope: ClaimPath,
    pub(super) scopes: Option<HashMap<String, Scopes>>,
}

impl Mapping {
    /// The claim that names the tenant, as it was said.
    pub(super) fn tenant_claim(&self) -> &str {
        &self.tenant.said
    }

    /// The tenant that the claims name. `None`: they name none, or several.
    pub(super) fn tenant(&self, claims: &Map<String, Value>) -> Option<TenantId> {
        let named = texts(self.tenant.value(claims)).into_iter();
        let mut tenants = named.filter_map(|text| match &self.tenants {
            Some(table) => table.get(text).cloned(),
            None => TenantId::parse(text).ok(),
        });
        let tenant = tenants.next()?;
        tenants.all(|other| other == tenant).then_some(tenant)
    }

    /// The scopes that the claims give; what is none of ours gives nothing.
    pub(super) fn scopes(&self, claims: &Map<String, Value>) -> Scopes {
        // A text has words (RFC 8693, 4.2); what stands in a list is one name, spaces or not.
        let named: Vec<&str> = match self.scope.value(claims) {
            Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
            other => texts(other),
        };
        let ours = named.into_iter().filter_map(|name| match &self.scopes {
            Some(table) => table.get(name).copied(),
            None => Scopes::named(name),
        });
        ours.fold(Scopes::NONE, Scopes::with)
    }
}

/// Reads `theirs=ours` pairs, comma separated; or, for names with commas in them, a JSON object of the same.
pub(super) fn table<K, V>(
    text: &str,
    value: impl Fn(&str) -> Result<V, String>,
) -> Result<HashMap<K, V>, String>
where
    K: Eq + Hash + From<String>,
{
    let pairs: Vec<(String, String)> = if text.trim_start().starts_with('{') {
        let object: HashMap<String, String> = serde_json::from_str(text)
            .map_err(|_| "begins as JSON, and is no object of texts".to_owned())?;
        object.into_iter().collect()
    } else {
        let parts = text.split(',').map(str::trim);
        let pairs = parts.filter(|part| !part.is_empty()).map(|part| {
            // A name may have a "=" in it; what it stands for has none.
            let (theirs, ours) = part
                .rsplit_once('=')
                .ok_or_else(|| format!("\"{part}\" must be theirs=ours"))?;
            Ok::<_, String>((theirs.trim().to_owned(), ours.trim().to_owned()))
        });
        pairs.collect::<Result<_, _>>()?
    };
    let mut table = HashMap::new();
    for (theirs, ours) in pairs {
        let ours = value(&ours).map_err(|mistake| format!("\"{theirs}\": {mistake}"))?;
        if theirs.is_empty() || table.insert(K::from(theirs.clone()), ours).is_some() {
            return Err(format!("\"{theirs}\" is empty, or named twice"));
        }
    }
    match table.is_empty() {
        true => Err("says nothing: unset it, or name something".to_owned()),
        false => Ok(table),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(of: Value) -> Map<String, Value> {
        of.as_object().cloned().unwrap()
    }

    fn mapping(tenant: &str, tenants: Option<&str>, scopes: Option<&str>) -> Mapping {
        let named = |text: &str| TenantId::parse(text).map_err(|error| error.to_string());
        let set = |text: &str| {
            let all = text.split(' ').filter_map(Scopes::named);
            Ok(all.fold(Scopes::NONE, Scopes::with))
        };
        Mapping {
            tenant: ClaimPath::parse(tenant),
            tenants: tenants.map(|text| table(text, named).unwrap()),
            scope: ClaimPath::parse("scope"),
            scopes: scopes.map(|text| table(text, set).unwrap()),
        }
    }

    #[test]
    fn a_claim_is_a_tenant_as_it_is_or_by_a_table_and_is_never_bent() {
        let check = |path: &str, table: Option<&str>, of: Value, expected: Option<&str>| {
            let tenant = mapping(path, table, None).tenant(&claims(of.clone()));
            assert_eq!(
                tenant.as_ref().map(TenantId::as_str),
                expected,
                "{path} {table:?} {of}"
            );
        };
        check("tenant", None, json!({"tenant": "team-a"}), Some("team-a"));
        check("org.id", None, json!({"org": {"id": "a"}}), Some("a"));
        check("/org/id", None, json!({"org": {"id": "a"}}), Some("a"));
        check("org.id", None, json!({"org.id": "a"}), None);
        check("orgs.0", None, json!({"orgs": ["a", "b"]}), Some("a"));
        let named = "https://example.com/tenant";
        check(named, None, json!({ named: "a" }), Some("a"));
        let pointer = "/https:~1~1example.com~1tenant";
        check(pointer, None, json!({ named: "a" }), Some("a"));
        for none in [
            json!("Team A"),
            json!("TEAM-A"),
            json!("team/a"),
            json!(""),
            json!(7),
            json!(null),
            json!({"a": "a"}),
            json!("a".repeat(41)),
            json!(["a", "b"]),
            json!([]),
        ] {
            check("tenant", None, json!({ "tenant": none }), None);
        }
        check("tenant", None, json!({"tenant": ["a"]}), Some("a"));
        check("tenant", None, json!({}), None);
        let table = Some("Team A=team-a, CN=x=b");
        check("t", table, json!({"t": "Team A"}), Some("team-a"));
        check("t", table, json!({"t": "CN=x"}), Some("b"));
        // What the table does not name is none, also where it would be a tenant's name.
        check("t", table, json!({"t": "team-a"}), None);
        check("t", table, json!({"t": ["other", "CN=x"]}), Some("b"));
        check("t", table, json!({"t": ["Team A", "CN=x"]}), None);
        let table = Some(r#"{"OU=x,CN=y": "a"}"#);
        check("t", table, json!({"t": "OU=x,CN=y"}), Some("a"));
    }

    #[test]
    fn scopes_are_words_of_a_text_or_of_a_list() {
        let check = |table: Option<&str>, of: Value, expected: Scopes| {
            let scopes = mapping("t", None, table).scopes(&claims(json!({ "scope": of.clone() })));
            assert_eq!(scopes, expected, "{of}");
        };
        let both = Scopes::READ.with(Scopes::INGEST);
        check(None, json!("openid read  ingest"), both);
        check(None, json!(["read", "ingest", 7]), both);
        check(None, json!("readx"), Scopes::NONE);
        check(None, json!({"read": true}), Scopes::NONE);
        let table = Some("Traces.Read=read,traces:write=ingest read");
        check(table, json!("Traces.Read admin"), Scopes::READ);
        check(table, json!(["traces:write"]), both);
        let table = Some(r#"{"Domain Admins": "admin"}"#);
        check(table, json!(["Domain Admins"]), Scopes::ADMIN);
        check(Some("admin=admin"), json!(["Print admin"]), Scopes::NONE);
    }

    #[test]
    fn a_table_that_says_something_twice_or_nothing_is_a_mistake() {
        let read = |text: &str| table::<String, _>(text, |ours| Ok::<_, String>(ours.to_owned()));
        for wrong in ["a", "a=b,a=c", "=b", ",", "{", "{}", r#"{"a": 1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
