//! Destinations: looked up by programs, managed by operators, their tokens fetched once.

use crate::stub::{Seen, Stub, form, reply};
use crate::world::{Connection, HOLD, ROUTES, Reply, Sender, World, overlaid, time_until, until};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;

const ROOT: &str = "/destination-configuration";

/// A program with a token of an instance of its own.
struct Program<'a> {
    world: &'a World,
    token: String,
}

impl<'a> Program<'a> {
    fn new(world: &'a World, instance: &str) -> Self {
        world.done(&["instance", "create", instance, "--plan", "destination"]);
        let key: Value = serde_json::from_str(&world.done(&["key", "create", instance, "k"])).expect("JSON");
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        let sender = Sender { id: text("clientid"), secret: text("clientsecret") };
        let ask = || world.post("/oauth/token", &sender.basic(), "grant_type=client_credentials");
        until("the key is known", || ask().status == 200);
        Self { world, token: world.token(&sender) }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let head = format!(
            "{method} {ROOT}{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.world.raw(head.as_bytes())
    }

    fn find(&self, name: &str, headers: &str) -> Reply {
        self.send("GET", &format!("/v1/destinations/{name}"), headers, "")
    }

    fn store(&self, destination: &Value) {
        let reply = self.send("POST", "/v1/subaccountDestinations", "", &destination.to_string());
        assert_eq!(reply.status, 201, "{}", reply.text());
    }

    /// The entry of `authTokens` of a lookup that succeeds.
    fn told(&self, name: &str, headers: &str) -> Value {
        let reply = self.find(name, headers);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["authTokens"][0].clone()
    }
}

fn world() -> World {
    World::with(ROUTES, "outbound: { allow_networks: [127.0.0.0/8] }\n")
}

/// Tokens `t0`, `t1` and so on.
fn service() -> Stub {
    Stub::new(|before, _| granted(before, &json!({})))
}

fn granted(number: usize, more: &Value) -> String {
    let members = json!({ "access_token": format!("t{number}"), "token_type": "bearer", "expires_in": 3600 });
    reply("200 OK", &overlaid(members, more).to_string())
}

fn destination(service: &Stub, more: &Value) -> Value {
    let members = json!({
        "Name": "crm", "Type": "HTTP", "URL": "https://crm.example/api", "ProxyType": "Internet",
        "Authentication": "OAuth2ClientCredentials", "clientId": "our id", "clientSecret": "s3cr3t-of-ours",
        "tokenServiceURL": format!("http://{}/token", service.address),
    });
    overlaid(members, more)
}

#[test]
fn a_lookup_answers_as_programs_read_it() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "lookups");
    program.store(&destination(&service, &json!({ "URL.headers.x-plain": "1", "my.own": "kept" })));

    let found = program.find("crm", "");
    let said = found.json();
    let zone = said["owner"]["SubaccountId"].as_str().expect("a zone");
    assert!(zone.len() == 36 && said["owner"]["InstanceId"].is_null());
    let configuration = &said["destinationConfiguration"];
    assert_eq!((&configuration["clientSecret"], &configuration["my.own"]), (&json!("s3cr3t-of-ours"), &json!("kept")));
    let token = &said["authTokens"][0];
    assert_eq!((&token["type"], &token["value"]), (&json!("Bearer"), &json!("t0")));
    assert_eq!(token["http_header"], json!({ "key": "Authorization", "value": "Bearer t0" }));
    let left: i64 = token["expires_in"].as_str().expect("a text").parse().expect("a number");
    assert!((3_560..=3_570).contains(&left), "{left} is not the life less the margin");
    let kept = found.header("cache-control").expect("told");
    assert!(kept.starts_with("private, max-age=35"), "{kept}");

    assert!(found.header("vary").is_some_and(|names| names.contains("authorization") && names.contains("x-tenant")));
    // the tag changes with each half minute of the token's life, which may end right here
    until("it is unchanged", || {
        let tag = program.find("crm", "").header("etag").expect("a tag").to_owned();
        let again = program.find("crm", &format!("If-None-Match: {tag}\r\n"));
        tag.starts_with("W/") && again.status == 304 && again.body.is_empty()
    });
    assert_eq!(program.find("crm", "If-Match: \"other\"\r\n").status, 412);

    let plain = program.send("GET", "/v1/destinations/crm?$skipTokenRetrieval=true&$skipCredentials=true", "", "");
    let said = plain.json();
    assert!(said.get("authTokens").is_none() && !plain.text().contains("s3cr3t"));
    assert_eq!(said["destinationConfiguration"]["URL.headers.x-plain"], "1");
    assert_eq!(service.journal().len(), 1);
}

/// What a token service was sent, as a test compares it.
fn sent(seen: &Seen) -> Value {
    let mut members: Vec<_> = form(&seen.body).into_iter().collect();
    members.sort();
    let members: serde_json::Map<_, _> = members.into_iter().map(|(name, value)| (name, json!(value))).collect();
    json!({
        "line": seen.line, "authorization": seen.header("authorization"), "x-extra": seen.header("x-extra"),
        "body": members,
    })
}

#[test]
fn every_property_reaches_the_token_service_as_the_model_has_it() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "properties");
    let secret = json!({ "client_id": "our id", "client_secret": "s3cr3t-of-ours" });
    let code = json!({ "Authentication": "OAuth2AuthorizationCode" });
    let asked = "X-code: c0de\r\nX-redirect-uri: https%3A%2F%2Fapp.example%2Fcb\r\nX-code-verifier: v3rifier\r\n";
    let rows = [
        (json!({}), "", json!({ "grant_type": "client_credentials" }), json!({})),
        (json!({ "scope": "a b" }), "", json!({ "grant_type": "client_credentials", "scope": "a b" }), json!({})),
        (
            json!({ "tokenServiceURL.headers.X-Extra": "e", "tokenServiceURL.queries.q 1": "x&y",
                "tokenService.body.resource": "urn:r" }),
            "",
            json!({ "grant_type": "client_credentials", "resource": "urn:r" }),
            json!({ "line": "POST /token?q+1=x%26y HTTP/1.1", "x-extra": "e" }),
        ),
        (
            json!({ "tokenServiceUser": "u", "tokenServicePassword": "p" }),
            "",
            json!({ "grant_type": "client_credentials" }),
            json!({ "authorization": "Basic dTpw" }),
        ),
        (
            json!({ "Authentication": "OAuth2Password", "User": "ann", "Password": "pä ss" }),
            "",
            json!({ "grant_type": "password", "username": "ann", "password": "pä ss" }),
            json!({}),
        ),
        (
            json!({ "Authentication": "OAuth2RefreshToken", "scope": "a" }),
            "X-refresh-token: r3fresh\r\n",
            json!({ "grant_type": "refresh_token", "refresh_token": "r3fresh", "scope": "a" }),
            json!({}),
        ),
        (code.clone(), "X-code: c0de\r\n", json!({ "grant_type": "authorization_code", "code": "c0de" }), json!({})),
        (
            code,
            asked,
            json!({ "grant_type": "authorization_code", "code": "c0de", "redirect_uri": "https://app.example/cb",
                "code_verifier": "v3rifier" }),
            json!({}),
        ),
    ];
    for (at, (more, headers, body, besides)) in rows.into_iter().enumerate() {
        let name = format!("d{at}");
        program.store(&overlaid(destination(&service, &more), &json!({ "Name": name })));
        program.told(&name, headers);
        let journal = service.journal();
        let want = json!({ "line": "POST /token HTTP/1.1", "authorization": null, "x-extra": null });
        let mut want = overlaid(want, &besides);
        want["body"] = overlaid(body, &secret);
        assert_eq!(sent(journal.last().expect("asked")), want, "{more}");
    }
}

#[test]
fn the_client_may_prove_itself_by_basic() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "basic");
    program.store(&destination(&service, &json!({ "tokenService.addClientCredentialsInBody": "false" })));
    program.told("crm", "");
    let last = sent(&service.journal()[0]);
    let (basic, body) = ("Basic b3VyK2lkOnMzY3IzdC1vZi1vdXJz", json!({ "grant_type": "client_credentials" }));
    assert_eq!((&last["authorization"], &last["body"]), (&json!(basic), &body));
}

#[test]
fn a_thousand_lookups_at_once_make_one_token_request() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "many");
    program.store(&destination(&service, &json!({})));
    let at_once = 50;
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let mut connection = world.connection();
                let request = format!(
                    "GET {ROOT}/v1/destinations/crm HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
                    program.token
                );
                for _ in 0..1_000 / at_once {
                    let said = connection.send(&request).json();
                    assert_eq!(said["authTokens"][0]["value"], "t0");
                }
            });
        }
    });
    assert_eq!(service.journal().len(), 1);
}

#[test]
fn a_code_is_used_once_for_each_lookup_and_its_answer_not_kept() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "codes");
    program.store(&destination(&service, &json!({ "Authentication": "OAuth2AuthorizationCode" })));
    service.say(|before, _| granted(before, &json!({ "refresh_token": "next", "scope": "a" })));
    let found = program.find("crm", "X-code: one\r\n");
    let token = &found.json()["authTokens"][0];
    assert_eq!((&token["refresh_token"], &token["scope"]), (&json!("next"), &json!("a")));
    assert_eq!(found.header("cache-control"), Some("no-store"));
    assert_eq!(program.told("crm", "X-code: one\r\n")["value"], "t1", "asked again, since the program did");
    let head = program.send("HEAD", "/v1/destinations/crm", "X-code: three\r\n", "");
    assert_eq!((head.status, service.journal().len()), (200, 2), "an answer without a body costs no code");
    let conditional = program.find("crm", "X-code: four\r\nIf-None-Match: *\r\nIf-Match: \"x\"\r\n");
    assert_eq!((conditional.status, &conditional.json()["authTokens"][0]["value"]), (200, &json!("t2")));

    service.say(|_, _| reply("503 Service Unavailable", "{}"));
    let error = program.told("crm", "X-code: two\r\n")["error"].clone();
    assert!(error.as_str().expect("told").contains("answered 503"), "{error}");
    assert_eq!(service.journal().len(), 4, "a failure is not tried again");
}

#[test]
fn a_refresh_token_is_exchanged_once_however_often_it_is_shown() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "refreshes");
    program.store(&destination(&service, &json!({ "Authentication": "OAuth2RefreshToken" })));
    let shown = |token: &str| program.told("crm", &format!("X-refresh-token: {token}\r\n"))["value"].clone();
    assert_eq!([shown("a"), shown("a"), shown("b")], ["t0", "t0", "t1"]);
}

#[test]
fn a_token_that_cannot_be_had_is_told_in_the_answer_and_tells_no_secret() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "failures");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("an address").local_addr().expect("an address");
    let code = json!({ "Authentication": "OAuth2AuthorizationCode" });
    let common = json!({ "tokenServiceURLType": "Common", "tokenServiceURL": "https://{tenant}.auth.example/token" });
    let rows = [
        (code, "You must send the X-code header"),
        (json!({ "Authentication": "OAuth2RefreshToken" }), "You must send the X-refresh-token header"),
        (common, "You must send the X-tenant header when the tokenServiceURLType property is Common"),
        (json!({ "tokenServiceURL": format!("http://{nobody}/token") }), "cannot be reached"),
        (json!({ "tokenServiceURL": "https://10.1.2.3/token" }), "no public address"),
        (json!({ "tokenServiceURL": "http://169.254.169.254/token" }), "metadata"),
        (json!({ "tokenService.KeyStoreLocation": "gone.pem" }), "there is no certificate `gone.pem`"),
        (json!({ "TrustStoreLocation": "gone.pem" }), "there is no certificate `gone.pem`"),
        (json!({ "clientAssertion.destinationName": "gone" }), "there is no destination `gone`"),
        (json!({ "ProxyType": "OnPremise" }), "outbound.connectivity_proxy"),
        (json!({ "clientSecret": "" }), "clientSecret is missing"),
        (json!({ "scope": "a" }), "invalid_client: no *** here"),
    ];
    service.say(|_, seen| {
        let secret = form(&seen.body)["client_secret"].clone();
        let said = json!({ "error": "invalid_client", "error_description": format!("no {secret} here") });
        reply("401 Unauthorized", &said.to_string())
    });
    for (at, (more, says)) in rows.into_iter().enumerate() {
        let name = format!("d{at}");
        program.store(&overlaid(destination(&service, &more), &json!({ "Name": name })));
        let reply = program.find(&name, "");
        let token = &reply.json()["authTokens"][0];
        let error = token["error"].as_str().unwrap_or_else(|| panic!("{more}: {token}"));
        assert!(
            error.starts_with("Retrieval of OAuthToken failed due to: ") && error.contains(says),
            "{more}: {error}"
        );
        assert!(!token.to_string().contains("s3cr3t"), "{token}");
        assert_eq!((&token["type"], &token["value"]), (&json!(""), &json!("")));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn an_outage_ends_by_itself() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "outage");
    program.store(&destination(&service, &json!({})));
    let good = service.say(|_, _| reply("500 Internal Server Error", "{}"));
    assert!(program.told("crm", "")["error"].is_string());
    service.resume(good);
    until("there is a token again", || program.told("crm", "")["value"] != "");
}

#[test]
fn a_silent_token_service_is_given_up_in_the_destinations_own_time() {
    let world = world();
    let program = Program::new(&world, "silent");
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let url = format!("http://{}/token", silent.local_addr().expect("an address"));
    let times = json!({ "tokenServiceURL": url, "tokenServiceURL.ConnectionTimeoutInSeconds": "1",
        "tokenServiceURL.SocketReadTimeoutInSeconds": "1" });
    program.store(&destination(&service(), &times));
    let error = program.told("crm", "")["error"].clone();
    assert!(error.as_str().expect("told").contains("did not answer within 2 s"), "{error}");
}

#[test]
fn only_a_token_of_an_instance_of_plan_destination_may_ask() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "asks");
    program.store(&destination(&service, &json!({})));
    let path = format!("{ROOT}/v1/destinations/crm");
    let nobody = world.get(&path, "");
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, Some("Bearer realm=\"flowgate\"")));
    assert_eq!(world.call(&path, "nonsense").status, 401);
    let other = world.sender("flows", "ESBMessaging.send");
    let other = world.call(&path, &world.token(&other));
    assert_eq!(other.status, 403);
    assert!(other.json()["ErrorMessage"].as_str().expect("told").contains("may look destinations up"));
    world.done(&["key", "delete", "asks", "k"]);
    let took = time_until("the token has ended", || program.find("crm", "").status == 401);
    assert!(took < HOLD, "{took:?}");
}

#[test]
fn an_instance_sees_its_own_level_first_and_no_other_instances() {
    let (world, service) = (world(), service());
    let (one, other) = (Program::new(&world, "one"), Program::new(&world, "other"));
    one.store(&destination(&service, &json!({ "Authentication": "NoAuthentication", "Description": "all" })));
    let own = destination(&service, &json!({ "Authentication": "NoAuthentication", "Description": "own" }));
    assert_eq!(one.send("POST", "/v1/instanceDestinations", "", &own.to_string()).status, 201);
    let told = |program: &Program<'_>, path: &str| {
        let said = program.send("GET", path, "", "").json();
        let within = &said["destinationConfiguration"]["$metadata"]["owner"]["destinations"][0];
        let owned = said["owner"]["InstanceId"].is_string() || within["InstanceId"].is_string();
        (said["destinationConfiguration"]["Description"].clone(), owned)
    };
    assert_eq!(told(&one, "/v1/destinations/crm"), (json!("own"), true));
    assert_eq!(told(&other, "/v1/destinations/crm"), (json!("all"), false));
    assert_eq!(told(&one, "/v2/destinations/crm@subaccount"), (json!("all"), false));
    assert_eq!(told(&one, "/v2/destinations/crm@instance?includeMetadata=owner"), (json!("own"), true));
    let plain = one.send("GET", "/v2/destinations/crm", "", "").json();
    assert!(plain.get("owner").is_none() && plain["destinationConfiguration"].get("$metadata").is_none());
    assert_eq!(other.send("GET", "/v2/destinations/crm@instance", "", "").status, 404, "no falling back");
    assert_eq!(other.send("GET", "/v1/instanceDestinations", "", "").text(), "[]");
    let refused = world.cli(&["instance", "delete", "other"]);
    assert!(!refused.status.success(), "it still has a key");
    world.done(&["key", "delete", "one", "k"]);
    let refused = world.cli(&["instance", "delete", "one"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("destination"), "it still has a destination");
}

#[test]
fn what_is_no_name_is_found_nowhere_and_learns_nothing() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "names");
    program.store(&destination(&service, &json!({})));
    let body = r#"{"ErrorMessage":"Configuration with the specified name was not found"}"#;
    for name in ["CRM", "crm2", "%2e%2e%2fcrm", "crm%00", "crm%2F", "..%2f", "crm%20", "a@subaccount", "%ff"] {
        let reply = program.find(name, "");
        assert_eq!((reply.status, reply.text().as_str()), (404, body), "{name}");
    }
    assert_eq!(program.find("%63rm", "").status, 200, "decoded once");
    assert_eq!(program.find(&"a".repeat(4_001), "").status, 414);
    for path in ["/v1/nothing", "/v3/destinations/crm", "/v2/subaccountDestinations", "", "/v1"] {
        assert_eq!(program.send("GET", path, "", "").status, 404, "{path}");
    }
    assert_eq!(program.send("POST", "/v1/destinations/crm", "", "").status, 405);
}

#[test]
fn headers_that_do_not_go_together_are_refused() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "headers");
    program.store(&destination(&service, &json!({})));
    for headers in [
        "X-tenant: a\r\nX-user-token: b\r\n",
        "X-tenant: a\r\n",
        "X-user-token: nonsense\r\n",
        "X-client-assertion: a\r\n",
        "X-fragment-name: a,b\r\nX-fragment-optional: true\r\n",
        "X-subject-token: a\r\n",
        "X-code: a\r\nX-code: b\r\n",
    ] {
        let reply = program.find("crm", headers);
        assert_eq!(reply.status, 400, "{headers}");
        assert!(reply.json()["ErrorMessage"].is_string());
    }
    assert!(service.journal().is_empty());
    let user = format!("X-user-token: {}\r\n", program.token);
    assert_eq!(program.told("crm", &user)["value"], "t0");
}

#[test]
fn a_tenant_has_a_token_of_its_own() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "tenants");
    let url = format!("http://{}/{{tenant}}/token", service.address);
    let common = json!({ "tokenServiceURLType": "Common", "tokenServiceURL": url });
    program.store(&destination(&service, &common));
    program.store(&destination(
        &service,
        &overlaid(common, &json!({ "Name": "code", "Authentication": "OAuth2AuthorizationCode" })),
    ));
    let tenant = |name: &str| program.told("crm", &format!("X-tenant: {name}\r\n"))["value"].clone();
    assert_eq!([tenant("a"), tenant("b"), tenant("a")], ["t0", "t1", "t0"]);
    assert_eq!(program.told("code", "X-code: c\r\n")["value"], "t2");
    let lines: Vec<_> = service.journal().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["a", "b", "demo"].map(|tenant| format!("POST /{tenant}/token HTTP/1.1")));
}

#[test]
fn a_fragment_lies_over_the_destination() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "fragments");
    program.store(&destination(&service, &json!({})));
    let fragment = json!({ "FragmentName": "test", "URL": "https://test.example", "scope": "test", "Name": "other" });
    let stored = program.send("POST", "/v1/subaccountDestinationFragments", "", &fragment.to_string());
    assert_eq!(stored.status, 201, "{}", stored.text());
    let said = program.find("crm", "X-fragment-name: test\r\n").json();
    let configuration = &said["destinationConfiguration"];
    assert_eq!((&configuration["URL"], &configuration["Name"]), (&json!("https://test.example"), &json!("crm")));
    assert_eq!(configuration["FragmentName"], "test");
    assert_eq!(form(&service.journal()[0].body)["scope"], "test");
    assert_eq!(program.told("crm", "")["value"], "t1", "another token without it");
    let many = (0..11).map(|at| format!("f{at}")).collect::<Vec<_>>().join(",");
    assert_eq!(program.find("crm", &format!("X-fragment-name: {many}\r\n")).status, 400);
    assert_eq!(program.find("crm", "X-fragment-name: gone\r\n").status, 404);
    assert_eq!(program.find("crm", "X-fragment-name: gone\r\nX-fragment-optional: true\r\n").status, 200);
}

#[test]
fn an_assertion_comes_from_the_caller_or_from_another_destination() {
    const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let (world, service) = (world(), service());
    let program = Program::new(&world, "assertions");
    let provider = json!({ "Name": "provider", "clientAssertion.type": KIND });
    let user = json!({ "clientAssertion.destinationName": "provider", "clientSecret": null });
    program.store(&destination(&service, &provider));
    program.store(&destination(&service, &user));
    assert_eq!(program.told("crm", "")["value"], "t1");
    let asked = form(&service.journal()[1].body);
    assert_eq!((asked["client_assertion"].as_str(), asked["client_assertion_type"].as_str()), ("t0", KIND));
    assert!(!asked.contains_key("client_secret"));
    let given = format!("X-client-assertion: mine\r\nX-client-assertion-type: {KIND}\r\n");
    program.told("crm", &given);
    assert_eq!(form(&service.journal()[2].body)["client_assertion"], "mine");
    assert_eq!(service.journal().len(), 3, "the provider's token was kept");

    let deleted = program.send("DELETE", "/v1/subaccountDestinations/provider", "", "");
    assert_eq!(deleted.status, 400, "{}", deleted.text());
    for (more, says) in [
        (json!({ "Name": "a", "clientAssertion.destinationName": "a" }), "is the destination itself"),
        (
            json!({ "Name": "a", "clientAssertion.destinationName": "b", "clientAssertion.type": KIND }),
            "needs none itself",
        ),
    ] {
        let circular = destination(&service, &more).to_string();
        let reply = program.send("POST", "/v1/subaccountDestinations", "", &circular);
        assert!(reply.status == 400 && reply.text().contains(says), "{}", reply.text());
    }
    program.store(&destination(&service, &json!({ "Name": "chain", "clientAssertion.destinationName": "crm" })));
    let error = program.told("chain", "")["error"].to_string();
    assert!(error.contains("cannot provide assertions"), "{error}");
}

#[test]
fn what_is_behind_the_proxy_is_not_the_proxys_own_host() {
    let service = service();
    let proxy = format!("connectivity_proxy: {{ url: \"http://{}\" }}", service.address);
    let world = World::with(ROUTES, &format!("outbound: {{ {proxy} }}\n"));
    let program = Program::new(&world, "near");
    let urls = ["http://169.254.169.254/token", "http://127.0.0.1:1/token", "https://localhost/token"];
    for (at, url) in urls.iter().enumerate() {
        let near = json!({ "Name": format!("d{at}"), "ProxyType": "OnPremise", "tokenServiceURL": url });
        program.store(&destination(&service, &near));
        assert!(program.told(&format!("d{at}"), "")["error"].is_string(), "{url}");
    }
    assert!(service.journal().is_empty());
}

#[test]
fn a_token_service_that_is_silent_does_not_hold_up_other_lookups() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "apart");
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let url = format!("http://{}/token", silent.local_addr().expect("an address"));
    let code = json!({ "Name": "silent", "Authentication": "OAuth2AuthorizationCode", "tokenServiceURL": url });
    program.store(&destination(&service, &code));
    program.store(&destination(&service, &json!({})));
    let lookup = |name: &str, code: usize| {
        let head = format!("GET {ROOT}/v1/destinations/{name} HTTP/1.1\r\nHost: localhost\r\n");
        format!("{head}Authorization: Bearer {}\r\nX-code: {code}\r\n\r\n", program.token)
    };
    let waiting: Vec<_> = (0..300)
        .map(|code| {
            let mut connection = world.connection();
            connection.0.write_all(lookup("silent", code).as_bytes()).expect("sent");
            connection
        })
        .collect();
    // no more than so many wait for one service; the others hear so at once
    let answered = |connection: &&Connection| {
        connection.0.set_nonblocking(true).expect("set");
        let there = connection.0.peek(&mut [0]).is_ok_and(|length| length > 0);
        connection.0.set_nonblocking(false).expect("set");
        there
    };
    until("those for whom there is no room are told", || waiting.iter().filter(answered).count() == 300 - 256);
    assert_eq!(program.told("crm", "")["value"], "t0");
    for connection in waiting.iter().filter(answered) {
        let reply = Reply::read_one(&mut &connection.0);
        assert!(reply.text().contains("busy"), "{}", reply.text());
    }
}

#[test]
fn a_destination_may_hand_out_a_deployed_credentials_token() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "material");
    let credential = json!({ "type": "oauth2-client-credentials", "name": "mail", "client-id": "i", "client-secret": "s",
        "token-service-url": format!("http://{}/token", service.address) });
    std::fs::write(world.file("mail.json"), credential.to_string()).expect("written");
    let file = world.file("mail.json");
    world.done(&["credential", "create", "--parameters", file.to_str().expect("a path")]);
    let mail = json!({ "Name": "mail", "Type": "HTTP", "URL": "https://x.example", "ProxyType": "Internet",
        "Authentication": "OAuth2ClientCredentials", "securityMaterial": "mail" });
    let fragment = json!({ "FragmentName": "f", "securityMaterial": "mail" });
    for (kind, entry) in [("Destinations", &mail), ("DestinationFragments", &fragment)] {
        let refused = program.send("POST", &format!("/v1/subaccount{kind}"), "", &entry.to_string());
        assert!(refused.status == 400 && refused.text().contains("for the operator to set"), "{}", refused.text());
    }
    let file = world.file("d.json");
    std::fs::write(&file, mail.to_string()).expect("written");
    world.done(&["destination", "put", "--file", file.to_str().expect("a path")]);
    until("its token is handed out", || {
        program.find("mail", "").status == 200 && program.told("mail", "")["value"] == "t0"
    });
    assert_eq!(world.done(&["credential", "token", "mail"]).trim(), "t0", "the same for all");
    assert_eq!(service.journal().len(), 1);
}

#[test]
fn what_is_behind_a_connectivity_proxy_is_reached_through_it() {
    let service = service();
    let proxy = Stub::new(|before, seen| match form(&seen.body).get("client_id").map(String::as_str) {
        Some("proxy client") => granted(before, &json!({ "access_token": "for-the-proxy" })),
        _ => granted(before, &json!({})),
    });
    let more = format!(
        "outbound: {{ allow_networks: [127.0.0.0/8], connectivity_proxy: {{ url: \"http://{}\", credential: proxy }} }}\n",
        proxy.address
    );
    let world = World::with(ROUTES, &more);
    let program = Program::new(&world, "premise");
    let credential = json!({ "type": "oauth2-client-credentials", "name": "proxy", "client-id": "proxy client",
        "client-secret": "s", "token-service-url": format!("http://{}/token", proxy.address) });
    std::fs::write(world.file("proxy.json"), credential.to_string()).expect("written");
    let file = world.file("proxy.json");
    world.done(&["credential", "create", "--parameters", file.to_str().expect("a path")]);
    program.store(&destination(
        &service,
        &json!({ "ProxyType": "OnPremise", "CloudConnectorLocationId": "eu",
        "tokenServiceURL": "http://virtual.internal:1234/token?a=b" }),
    ));
    until("there is a token", || program.told("crm", "")["value"] == "t1");
    let seen = proxy.journal().pop().expect("asked");
    assert_eq!(seen.line, "POST http://virtual.internal:1234/token?a=b HTTP/1.1");
    assert_eq!(seen.header("host"), Some("virtual.internal:1234"));
    assert_eq!(seen.header("proxy-authorization"), Some("Bearer for-the-proxy"));
    assert_eq!(seen.header("sap-connectivity-scc-location_id"), Some("eu"));
}

#[test]
fn management_is_as_programs_expect_it_and_holds_at_once() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "manages");
    let all = "/v1/subaccountDestinations";
    let send =
        |method: &str, path: &str, body: &Value| program.send(method, &format!("{all}{path}"), "", &body.to_string());
    let named = |name: &str| destination(&service, &json!({ "Name": name }));

    let created = send("POST", "", &named("a"));
    assert_eq!((created.status, created.body.len()), (201, 0));
    assert_eq!(send("POST", "", &named("a")).status, 409);
    let many = send("POST", "", &json!([named("b"), named("a"), { "Name": "c" }]));
    let rows = many.json();
    assert_eq!(many.status, 207);
    let status: Vec<_> = (0..3).map(|at| rows[at]["status"].as_u64().expect("a status")).collect();
    assert_eq!(status, [201, 409, 400], "{rows}");
    assert!(rows[2]["cause"].as_str().expect("a cause").contains("`Type` is missing"));

    let got = send("GET", "/a", &Value::Null);
    assert!(got.status == 200 && !got.text().contains("s3cr3t") && got.json()["clientId"] == "our id");
    let tag = got.header("etag").expect("a tag").to_owned();
    let with = |tag: &str| program.send("GET", &format!("{all}/a"), &format!("If-None-Match: {tag}\r\n"), "").status;
    assert_eq!(with(&tag), 304);
    let change = overlaid(named("a"), &json!({ "scope": "new" }));
    let put = |tag: &str| program.send("PUT", all, &format!("If-Match: {tag}\r\n"), &change.to_string());
    assert_eq!(put("\"other\"").status, 412);
    let changed = put(&tag);
    assert_eq!((changed.status, changed.json()), (200, json!({ "Count": 1 })));
    assert_eq!(program.find("a", "").json()["destinationConfiguration"]["scope"], "new", "at once");
    assert_eq!(send("PUT", "", &named("gone")).status, 404);
    assert_eq!(program.send("PUT", all, "If-Match: *\r\n", &named("gone").to_string()).status, 412);
}

#[test]
fn listings_filter_page_and_select() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "lists");
    let all = "/v1/subaccountDestinations";
    let list = |query: &str| program.send("GET", &format!("{all}{query}"), "", "");
    let delete = |which: &str| program.send("DELETE", &format!("{all}{which}"), "", "");
    let many = ["a", "b", "ba", "d"].map(|name| destination(&service, &json!({ "Name": name })));
    assert_eq!(program.send("POST", all, "", &json!(many).to_string()).status, 201);
    let found = |query: &str| {
        let list = list(query).json();
        list.as_array()
            .expect("a list")
            .iter()
            .map(|one| one["Name"].as_str().expect("named").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(found(""), ["a", "b", "ba", "d"]);
    assert_eq!(found("?$filter=Name%20in%20(%27a%27,%27d%27,%27x%27)"), ["a", "d"]);
    assert_eq!(found("?$filter=startswith(Name,'b')"), ["b", "ba"]);
    assert_eq!(found("?$filter=endswith(Name,'a')"), ["a", "ba"]);
    assert_eq!(found("?$page=2&$pageSize=3"), ["d"]);
    let page = list("?$page=1&$pageSize=3&$entityCount=true&$pageCount=true");
    assert_eq!((page.header("entity-count"), page.header("page-count")), (Some("4"), Some("2")));
    assert!(page.header("link").expect("a next page").contains("$page=2"));
    assert_eq!(list("?$select=Name").json()[0], json!({ "Name": "a" }));
    assert!(list("?$includeMetadata=etag").json()[0]["$metadata"]["etag"].is_string());
    for query in ["?$filter=Name", "?$select=URL", "?$page=0", "?$pageSize=1001", "?$page=1&$select=Name", "?x=y"] {
        assert_eq!(list(query).status, 400, "{query}");
    }

    let gone = delete("?$filter=Name%20in%20('b','x')").json();
    assert_eq!((&gone["Count"], &gone["Summary"][1]["status"]), (&json!(1), &json!("NOT_FOUND")));
    assert_eq!(delete("/a").json(), json!({ "Count": 1 }));
    assert_eq!((delete("/a").status, program.find("a", "").status), (404, 404));
    assert_eq!(delete("").status, 400);
}

#[test]
fn bad_entries_are_refused_with_the_rule_and_odd_ones_with_a_warning() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "refused");
    let all = "/v1/subaccountDestinations";
    let post = |body: &str| program.send("POST", all, "", body);
    for (body, says) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        (r#"{"Name":"a","Name":"b"}"#, "no JSON"),
        ("7", "JSON object"),
        (r#"{"Name":"../a"}"#, "`Name` must be"),
    ] {
        let reply = post(body);
        let told = reply.json()["ErrorMessage"].to_string();
        assert!(reply.status == 400 && told.contains(says), "{body}: {told}");
    }
    let jks = json!({ "tokenService.KeyStoreLocation": "a.jks", "tokenService.KeyStorePassword": "pass-of-ours" });
    let told = post(&destination(&service, &jks).to_string()).text();
    assert!(told.contains("keytool -importkeystore") && !told.contains("pass-of-ours"), "{told}");
    let odd = json!({ "tokenServiceURL.ConnectionTimeoutInSeconds": "61", "tokenserviceurl": "x" });
    let odd = post(&destination(&service, &odd).to_string());
    let warnings = odd.json()["warnings"].to_string();
    assert!(odd.status == 201 && warnings.contains("10 seconds are used"), "{warnings}");
    assert!(warnings.contains("did you mean `tokenServiceURL`?"), "{warnings}");

    let mut connection = world.connection();
    let head = format!(
        "POST {ROOT}{all} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 10485760\r\n\r\n",
        program.token
    );
    assert_eq!(connection.send(&head).status, 413);
    assert_eq!(post(&" ".repeat((1 << 20) + 1)).status, 413);
}

#[test]
fn a_change_of_another_process_holds_within_a_second() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "others");
    let put = |more: &Value| {
        let file = world.file("d.json");
        std::fs::write(&file, destination(&service, more).to_string()).expect("written");
        world.done(&["destination", "put", "--file", file.to_str().expect("a path")])
    };
    put(&json!({}));
    let took = time_until("it is found", || program.find("crm", "").status == 200);
    assert!(took < HOLD, "{took:?}");
    let first = program.told("crm", "")["value"].clone();
    put(&json!({ "clientSecret": "another" }));
    let took = time_until("the token is another", || program.told("crm", "")["value"] != first);
    assert!(took < HOLD, "{took:?}");
    let listed = world.done(&["destination", "list"]);
    assert!(listed.contains("crm") && !listed.contains("another"), "{listed}");
    assert!(!world.done(&["destination", "get", "crm"]).contains("another"));
    let found: Value = serde_json::from_str(&world.done(&["destination", "find", "crm"])).expect("JSON");
    assert!(found["authTokens"][0]["value"].as_str().expect("a token").starts_with('t'));
    world.done(&["destination", "delete", "crm"]);
    let took = time_until("it is gone", || program.find("crm", "").status == 404);
    assert!(took < HOLD, "{took:?}");
}

#[test]
fn a_folder_of_exported_files_is_imported() {
    let (world, service) = (world(), service());
    let folder = world.file("exported");
    std::fs::create_dir(&folder).expect("a folder");
    let text = format!(
        "#\n#Sat Nov 21 10:00:00 UTC 2026\nName=exported\nType=HTTP\nURL=https\\://crm.example/a\nProxyType=Internet\nAuthentication=OAuth2ClientCredentials\nclientId=i\nclientSecret=s\ntokenServiceURL=http\\://{}/token\n",
        service.address
    );
    std::fs::write(folder.join("exported"), text).expect("written");
    std::fs::write(folder.join("crm.json"), destination(&service, &json!({})).to_string()).expect("written");
    std::fs::write(folder.join("ca.pem"), &world.ca.certificate).expect("written");
    let said = world.done(&["destination", "put", "--file", folder.to_str().expect("a path")]);
    assert_eq!(said.lines().count(), 3, "{said}");
    let found: Value = serde_json::from_str(&world.done(&["destination", "find", "exported"])).expect("JSON");
    assert_eq!(found["destinationConfiguration"]["URL"], "https://crm.example/a");
    assert_eq!(found["authTokens"][0]["value"], "t0");
}

#[test]
fn no_secret_reaches_the_log() {
    let (world, service) = (world(), service());
    let program = Program::new(&world, "quiet");
    program.store(&destination(&service, &json!({ "Authentication": "OAuth2AuthorizationCode" })));
    program.told("crm", "X-code: c0de-of-theirs\r\nX-code-verifier: v3rifier-of-theirs\r\n");
    program.find("crm", "X-tenant: a\r\nX-user-token: us3r-of-theirs\r\n");
    world.logged(|line| line["endpoint"] == "destinations" && line["status"] == 400);
    for secret in ["c0de", "v3rifier", "us3r", "s3cr3t", &program.token] {
        assert!(!world.log().contains(secret), "{secret}");
    }
}
