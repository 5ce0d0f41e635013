//! A Postman collection and environment (v2.1) for one service key: the token in every form, a call
//! to each route, and what must be refused, each with assertions.

use super::run::load;
use super::token::ServiceKey;
use super::{Failure, Outcome, output};
use crate::config::Config;
use crate::domain::route::Authorization;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";
const COLLECTION: &str = "flowgate.postman_collection.json";
const ENVIRONMENT: &str = "flowgate.postman_environment.json";

pub fn write(config: &Path, key: &Path, out: &Path) -> Outcome {
    write_files(&load(config)?.config, key, out)?;
    output::print(&format!("{}\n{}\n", out.join(COLLECTION).display(), out.join(ENVIRONMENT).display()))
}

/// A published path, as far as a caller notices.
struct Published {
    name: String,
    path: String,
    /// Whether a bad token is refused.
    secured: bool,
    /// Whether a call without a token gets through: on an open route, or by the key's certificate.
    tokenless: bool,
}

/// Routes that take certificates alone are left out: their callers have no token.
pub fn write_files(config: &Config, key: &Path, out: &Path) -> Outcome {
    let key = ServiceKey::read(key)?;
    let by_secret = key.text("clientsecret").is_some();
    let by_token = config.routes.iter().filter(|route| !matches!(route.authorization, Authorization::Certificates(_)));
    let published = by_token.map(|route| {
        let secured = route.authorization != Authorization::None;
        Published {
            name: route.name.clone(),
            path: route.pattern.to_string().trim_end_matches("/*").to_owned(),
            secured,
            tokenless: !secured || (!by_secret && route.accepts.certificate),
        }
    });
    let collection = collection(&published.collect::<Vec<_>>(), by_secret);
    std::fs::create_dir_all(out)?;
    save(&out.join(COLLECTION), &collection)?;
    save(&out.join(ENVIRONMENT), &environment(&key, &config.origin.url))
}

/// The environment holds the secret, so its file is for the owner alone.
fn save(path: &Path, value: &Value) -> Outcome {
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{value:#}\n").as_bytes())
        .map_err(|error| Failure::text(format!("{} cannot be written: {error}", path.display())))
}

fn environment(key: &ServiceKey, origin: &str) -> Value {
    let entry =
        |name: &str, value: &str, kind: &str| json!({ "key": name, "value": value, "type": kind, "enabled": true });
    json!({
        "name": "flowgate",
        "values": [
            entry("tokenurl", &key.token_url(), "default"),
            entry("url", origin, "default"),
            entry("clientid", key.text("clientid").unwrap_or_default(), "default"),
            entry("clientsecret", key.text("clientsecret").unwrap_or_default(), "secret"),
            entry("token", "", "secret"),
        ],
        "_postman_variable_scope": "environment",
    })
}

fn collection(routes: &[Published], by_secret: bool) -> Value {
    let mut items = if by_secret { token_by_secret() } else { token_by_certificate() };
    for route in routes {
        let (name, path) = (&route.name, &route.path);
        items.push(call(&format!("call {name}"), path, "{{token}}", &PASSES));
        let expected: &[&str] = if route.tokenless { &PASSES } else { &["status 401", "a Bearer challenge"] };
        items.push(call(&format!("{name} without a token"), path, "", expected));
        if route.secured {
            let refused = ["status 401", "invalid_token"];
            items.push(call(&format!("{name} with a broken token"), path, "{{token}}x", &refused));
        }
    }
    items.push(call("a path that nobody publishes", "/nothing/here", "{{token}}", &["status 404"]));
    json!({ "info": { "name": "flowgate", "schema": SCHEMA }, "item": items })
}

const PASSES: [&str; 1] = ["not refused by the gateway"];

fn token_by_secret() -> Vec<Value> {
    let basic = |secret: &str| {
        let entry = |name: &str, value: &str| json!({ "key": name, "value": value, "type": "string" });
        json!({ "type": "basic", "basic": [entry("username", "{{clientid}}"), entry("password", secret)] })
    };
    let form = |names: &[(&str, &str)]| {
        let fields: Vec<_> =
            names.iter().map(|(name, value)| json!({ "key": name, "value": value, "type": "text" })).collect();
        json!({ "mode": "urlencoded", "urlencoded": fields })
    };
    let grant = ("grant_type", "client_credentials");
    let in_body = form(&[grant, ("client_id", "{{clientid}}"), ("client_secret", "{{clientsecret}}")]);
    let query = "{{tokenurl}}?grant_type=client_credentials";
    vec![
        token("token by secret", "{{tokenurl}}", &basic("{{clientsecret}}"), &form(&[grant]), &TOKEN),
        token("token with grant_type in the query", query, &basic("{{clientsecret}}"), &Value::Null, &TOKEN),
        token("token with credentials in the body", "{{tokenurl}}", &none(), &in_body, &TOKEN),
        token(
            "token by a wrong secret",
            "{{tokenurl}}",
            &basic("wrong"),
            &form(&[grant]),
            &["status 401", "invalid_client"],
        ),
        token(
            "token without a grant",
            "{{tokenurl}}",
            &basic("{{clientsecret}}"),
            &Value::Null,
            &["status 400", "invalid_request"],
        ),
    ]
}

/// The certificate itself cannot travel in a collection: it is set in Postman, or given to newman.
fn token_by_certificate() -> Vec<Value> {
    let form = json!({ "mode": "urlencoded", "urlencoded": [
        { "key": "grant_type", "value": "client_credentials", "type": "text" },
        { "key": "client_id", "value": "{{clientid}}", "type": "text" },
    ]});
    let query = "{{tokenurl}}?grant_type=client_credentials";
    vec![
        token("token by certificate", "{{tokenurl}}", &none(), &form, &TOKEN),
        token("token by certificate without client_id", query, &none(), &Value::Null, &TOKEN),
    ]
}

const TOKEN: [&str; 2] = ["status 200", "keeps the token"];

fn none() -> Value {
    json!({ "type": "noauth" })
}

fn token(name: &str, url: &str, auth: &Value, body: &Value, asserts: &[&str]) -> Value {
    let mut request = json!({ "method": "POST", "auth": auth, "header": [], "url": url });
    if !body.is_null() {
        request["body"] = body.clone();
    }
    item(name, &request, asserts)
}

fn call(name: &str, path: &str, token: &str, asserts: &[&str]) -> Value {
    let bearer = json!({ "type": "bearer", "bearer": [{ "key": "token", "value": token, "type": "string" }] });
    let auth = if token.is_empty() { none() } else { bearer };
    item(name, &json!({ "method": "GET", "auth": auth, "header": [], "url": format!("{{{{url}}}}{path}") }), asserts)
}

fn item(name: &str, request: &Value, asserts: &[&str]) -> Value {
    let lines: Vec<_> =
        asserts.iter().map(|what| format!("pm.test('{what}', () => {{ {} }});", assertion(what))).collect();
    let script = json!({ "listen": "test", "script": { "type": "text/javascript", "exec": lines } });
    json!({ "name": name, "request": request, "event": [script] })
}

fn assertion(what: &str) -> String {
    match what {
        "keeps the token" => "pm.environment.set('token', pm.response.json().access_token); pm.expect(pm.environment.get('token')).to.be.a('string');".into(),
        "a Bearer challenge" => "pm.expect(pm.response.headers.get('WWW-Authenticate')).to.match(/^Bearer /);".into(),
        "not refused by the gateway" => "pm.expect(pm.response.code).to.not.be.oneOf([401, 403, 404, 502, 503, 504]);".into(),
        "invalid_token" => "pm.expect(pm.response.json().code).to.eql('invalid_token');".into(),
        status if status.starts_with("status ") => format!("pm.response.to.have.status({});", &status[7..]),
        error => format!("pm.expect(pm.response.json().error).to.eql('{error}');"),
    }
}
