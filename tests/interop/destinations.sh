#!/usr/bin/env bash
# Destinations as real clients look them up: destinations.sh BINARY WORKDIR [PYTHON]
#
# Needs curl, openssl, tinyproxy, node with oidc-provider and SAP's Cloud SDK, and a PYTHON with sap-cloud-sdk,
# all on loopback, each a process of this script.
# One line for each check and, last, `destinations: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

binary=$(realpath "${1:?usage: destinations.sh BINARY WORKDIR [PYTHON]}")
work=${2:?usage: destinations.sh BINARY WORKDIR [PYTHON]}
python=${3:-python3}
rm -rf "$work"
mkdir -p "$work/stored"
cd "$work"

# --- gateway, provider and what else there is -------------------------------------------------------

read -r port admin backend provider provider_tls service target wire proxy < <(free_ports 9)
gateway=https://localhost:$port
api=$gateway/destination-configuration
issuer=http://$host:$provider
secret='s3cret:+%/&= ~'
password='p12:+%/&= ~'
# it differs whether it is decoded once, twice or not at all
redirect="http://$host:$backend/callback?for=crm&to=a%252Fb"
encoded=$(python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$redirect")

configure() {
    cat >config.yaml <<YAML
public_url: $gateway
tenant: { subdomain: demo }
listeners:
  - { address: "$host:$port", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
outbound:
  allow_networks: [127.0.0.0/8]
  connectivity_proxy: { url: "http://$host:$wire", credential: connectivity }
backends:
  echo: { servers: ["http://$host:$backend"] }
routes:
  - { name: open, path: /open, backend: echo, authorization: none }
YAML
    cat >tinyproxy.conf <<CONF
Listen $host
Port $proxy
Allow $host
LogFile "$PWD/tinyproxy.log"
LogLevel Info
CONF
}

flowgate() { "$binary" "$@" --config config.yaml; }
ask() { curl -sS --cacert certs/ca.pem --max-time 20 "$@"; }
up() { ask --fail -o /dev/null "$gateway/open"; }
proxy_up() { ask --fail -o /dev/null --noproxy '' --proxy "http://$host:$proxy" "http://$host:$backend/up"; }

# The keystores hold the same key; OpenSSL 3 writes them otherwise than its forerunners did.
certificates() {
    local new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30'
    local pack=(openssl pkcs12 -export -in client.pem -inkey client-key.pem -passout "pass:$password")
    openssl req -x509 $new -keyout client-key.pem -out client.pem -subj '/CN=client'
    openssl req -x509 $new -keyout provider-ca-key.pem -out stored/provider-ca.pem -subj '/CN=ca of the provider' \
        -addext 'keyUsage=critical,keyCertSign'
    openssl req -x509 $new -keyout provider-key.pem -out provider.pem -subj /CN=provider -CA stored/provider-ca.pem \
        -CAkey provider-ca-key.pem -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=IP:$host"
    cat client.pem client-key.pem >stored/client.pem
    "${pack[@]}" -out stored/modern.p12
    "${pack[@]}" -legacy -out stored/legacy.pfx
}

# The sample of the model's documentation, with URLs and credentials of ours.
sample() {
    cat <<JSON
{
    "Name": "sample",
    "Type": "HTTP",
    "URL": "http://$host:$backend/crm",
    "ProxyType": "Internet",
    "Authentication": "OAuth2AuthorizationCode",
    "clientId": "by-body",
    "clientSecret": "$secret",
    "tokenServiceURL": "$issuer/token"
}
JSON
}

# plain NAME PATH: a destination without more.
plain() {
    cat <<JSON
{ "Name": "$1", "Type": "HTTP", "URL": "http://$host:$backend/$2", "ProxyType": "Internet",
  "Authentication": "NoAuthentication" }
JSON
}

# All others, as a list.
destinations() {
    python3 - "$secret" "$password" "http://$host:$backend" "$issuer/token" "https://$host:$provider_tls/token" \
        "http://$host:$service" "https://$host:$target" <<'PYTHON'
import json, sys
secret, password, echo, token, token_tls, service, target = sys.argv[1:]
by_secret = {"clientId": "by-body", "clientSecret": secret, "tokenServiceURL": token}
elsewhere = {"clientId": "id", "clientSecret": "secret", "tokenServiceURL": f"{service}/token"}
common = {"tokenServiceURLType": "Common", "tokenServiceURL": f"{service}/{{tenant}}/token"}
scope = {"scope": "orders"}
trusted = {"TrustStoreLocation": "provider-ca.pem"}
premise = {"ProxyType": "OnPremise", "CloudConnectorLocationId": "cellar", **scope}

def made(name, authentication, *more):
    one = {"Name": name, "Type": "HTTP", "ProxyType": "Internet", "Authentication": authentication, "URL": f"{echo}/crm"}
    for members in more:
        one |= members
    return one

def credentials(name, *more):
    return made(name, "OAuth2ClientCredentials", by_secret, scope, *more)

def keyed(name, keystore, *more):
    of_service = {"clientId": "by-certificate", "tokenServiceURL": token_tls, "tokenService.KeyStoreLocation": keystore}
    return made(name, "OAuth2ClientCredentials", of_service, scope, *more)

def shown(name, keystore, *more):
    return made(name, "ClientCertificateAuthentication", trusted, {"URL": target, "KeyStoreLocation": keystore}, *more)

def opened(by):
    return {"tokenService.KeyStorePassword": by}

json.dump([
    made("headed", "OAuth2AuthorizationCode", by_secret,
         {"clientId": "by header", "tokenService.addClientCredentialsInBody": "false"}),
    made("refresh", "OAuth2RefreshToken", by_secret),
    made("basic", "BasicAuthentication", {"User": "user", "Password": "päss:word"}),
    made("password", "OAuth2Password", elsewhere, {"User": "user", "Password": "p+ss w%rd"}),
    made("common", "OAuth2ClientCredentials", elsewhere, common),
    credentials("credentials", {"URL.headers.x-interop": "of the destination", "URL.queries.interop": "a b"}),
    credentials("wrong", {"clientSecret": "no"}),
    credentials("premise-http", premise),
    credentials("premise-https", premise, trusted, {"tokenServiceURL": token_tls}),
    keyed("by-pem", "client.pem", trusted),
    keyed("by-modern", "modern.p12", trusted, opened(password)),
    keyed("by-legacy", "legacy.pfx", trusted, opened(password)),
    keyed("by-wrong", "modern.p12", trusted, opened("n0t-the-password")),
    keyed("by-untrusted", "client.pem"),
    shown("shown-pem", "client.pem"),
    shown("shown-p12", "modern.p12", {"KeyStorePassword": password}),
], sys.stdout, indent=1)
PYTHON
}

start_all() {
    configure
    certificates 2>openssl.err
    cp stored/provider-ca.pem .
    sample >sample.json
    plain open open >stored/open.json
    plain own subaccount >stored/own.json
    plain own instance >own.json
    destinations >stored/destinations.json
    start provider node "$here/provider.mjs" "$provider" "$provider_tls" "$redirect"
    start services node "$here/services.mjs" "$service" "$target" "$wire" "$proxy"
    start tinyproxy tinyproxy -d -c tinyproxy.conf
    start gateway "$binary" demo --dir .
    until_true up || { tail -n 3 gateway.err >&2; exit 1; }
    until_true grep -q ready provider.out
    until_true grep -q ready services.out
    until_true proxy_up
}

# What programs are bound to, and what they look up.
store_all() {
    flowgate instance create programs --plan destination
    flowgate key create programs first >binding.json
    flowgate key create demo-sender second >sender.json
    flowgate instance show demo-sender --output json >instance.json
    python3 - >xsuaa.json <<'PYTHON'
import json
read = lambda name: json.load(open(name))
print(json.dumps(read("instance.json") | read("sender.json")["oauth"]))
PYTHON
    cat >connectivity.json <<JSON
{ "name": "connectivity", "type": "oauth2-client-credentials", "client-id": "by header", "client-secret": "$secret",
  "send-as": "header", "scope": "orders", "token-service-url": "$issuer/token" }
JSON
    flowgate credential create --parameters connectivity.json
    flowgate destination put --file stored
    flowgate destination put --file own.json --level instance --instance programs
    bearer=$(ask "$gateway/oauth/token" -d grant_type=client_credentials \
        --user "$(field binding.json clientid):$(field binding.json clientsecret)" | python3 -c '
import json, sys
print(json.load(sys.stdin)["access_token"])')
    until_true shows own instance
}

# --- what is expected -------------------------------------------------------------------------------

# found NAME [HEADER...]: looked up as the model's documentation does; the answer is in answer.json.
found() {
    local name=$1 header status
    local -a headers=()
    shift
    for header; do headers+=(--header "$header"); done
    status=$(ask --location --request GET "$api/v1/destinations/$name" "${headers[@]}" \
        --header "Authorization: Bearer $bearer" -o answer.json -w '%{http_code}') || return
    [[ $status == 200 ]] || { echo "$status $(<answer.json)"; return 1; }
}

# told MEMBER: of the one token in the answer, or of what is there in its place.
told() {
    python3 - "$1" <<'PYTHON'
import json, sys
(token,) = json.load(open("answer.json"))["authTokens"]
failed, header = token.get("error"), {"key": "Authorization", "value": f"Bearer {token['value']}"}
if failed:
    assert token["type"] == token["value"] == "", token
else:
    assert token["type"] == "Bearer" and token["http_header"] == header and int(token["expires_in"]) > 0, token
assert sys.argv[1] in token and (not failed or sys.argv[1] == "error"), token
print(token[sys.argv[1]])
PYTHON
}

# known TOKEN CLIENT: the provider says that it has issued the token to the client, and that it is good.
known() {
    local said
    said=$(curl -sS "$issuer/token/introspection" --data-urlencode "token=$1" -d client_id=by-body \
        --data-urlencode "client_secret=$secret")
    has '"active":true' "$said" && has "\"client_id\":\"$2\"" "$said"
}

# gets CLIENT NAME [HEADER...]: the lookup comes with a token of that client.
gets() {
    local client=$1 token
    shift
    found "$@" && token=$(told value) && known "$token" "$client"
}

# lacks WHY NAME [HEADER...]: the lookup tells why there is no token.
lacks() {
    local wanted=$1 why
    shift
    found "$@" && why=$(told error) && has "$wanted" "$why"
}

# shows NAME PATH: the lookup shows the destination with the URL that ends so.
shows() { found "$1" && has "\"URL\":\"http://$host:$backend/$2\"" "$(<answer.json)"; }

# page OPTION...: the address at which a browser would be.
page() { curl -sS --location --max-time 20 --cookie-jar jar --cookie jar -o page.html -w '%{url_effective}' "$@"; }

# code CLIENT: the user logs in and says yes to the provider; the code's verifier is in a file.
code() {
    local url
    rm -f jar
    openssl rand -hex 32 | tr -d '\n' >verifier
    url=$(page --get "$issuer/auth" -d response_type=code -d 'scope=openid+offline_access' -d prompt=consent \
        --data-urlencode "client_id=$1" --data-urlencode "redirect_uri=$redirect" -d code_challenge_method=S256 \
        -d "code_challenge=$(openssl dgst -sha256 -binary verifier | basenc --base64url | tr -d =)") || return
    url=$(page "$url" -d 'prompt=login&login=user&password=any') || return
    url=$(page "$url" -d prompt=consent) || return
    [[ $url == "$redirect&code="* ]] || { echo "ended at $url" >&2; return 1; }
    sed 's/.*&code=\([^&]*\).*/\1/' <<<"$url"
}

# exchanged CLIENT NAME REDIRECT: a code, and the redirect URI as it is written there.
exchanged() {
    local code
    code=$(code "$1") && gets "$1" "$2" "X-code: $code" "X-redirect-uri: $3" "X-code-verifier: $(<verifier)"
}

used_twice() {
    local code
    code=$(code by-body) || return
    set -- sample "X-code: $code" "X-redirect-uri: $redirect" "X-code-verifier: $(<verifier)"
    gets by-body "$@" && lacks invalid_grant "$@"
}

# refused HEADER-BUT-CODE...: the provider refuses a good code.
refused() {
    local code
    code=$(code by-body) && lacks invalid_grant sample "X-code: $code" "$@"
}

stored_silently() {
    local said
    said=$(flowgate destination put --file "$1" 2>&1) && [[ $said == "destination $2 is stored" ]] || { echo "$said"; return 1; }
}

bare() {
    found 'sample?$skipCredentials=true&$skipTokenRetrieval=true' && has by-body "$(<answer.json)" || return
    [[ $(<answer.json) != *s3cret* && $(<answer.json) != *authTokens* ]] || { cat answer.json; return 1; }
}

# for_tenant NAME: the token service's token tells which path it was asked for.
for_tenant() { found common "X-tenant: $1" && has "\"/$1/token\"" "$(told value | tr -- -_ +/ | base64 -d 2>/dev/null)"; }

# on_the_command_line: the same lookup by the operator.
on_the_command_line() {
    local code
    code=$(code by-body) || return
    flowgate destination find sample --code "$code" --redirect-uri "$redirect" --code-verifier "$(<verifier)" >answer.json
    known "$(told value)" by-body
}

by_python() {
    local code token
    code=$(code by-body) || return
    token=$(REQUESTS_CA_BUNDLE=certs/ca.pem SSL_CERT_FILE=certs/ca.pem "$python" "$here/destinations.py" sample "$code" \
        "$1" "$(<verifier)") || return
    known "${token##*$'\n'}" by-body
}

# with_cloud_sdk: prints its own lines.
with_cloud_sdk() {
    local refresh_token
    refresh_token=$({ exchanged by-body sample "$redirect" && told refresh_token; } 2>sdk.err) || true
    NODE_EXTRA_CA_CERTS=certs/ca.pem NODE_OPTIONS=--dns-result-order=ipv4first \
        timeout 60 node "$here/destinations.mjs" "$issuer" "$refresh_token" "$bearer" 2>>sdk.err ||
        echo "not ok destinations Cloud SDK: ended early, see sdk.err"
}

# keeps_its_password: what is told of a keystore that does not open leaves out what was tried.
keeps_its_password() {
    lacks 'password' by-wrong || return
    ! has n0t-the-password "$(told error)" >/dev/null || { told error; return 1; }
}

# over_the_wire NAME REQUEST-LINE: what the connectivity proxy is told, and that the real one has forwarded it.
over_the_wire() {
    local head token
    gets by-body "$1" || return
    head=$(tail -n 1 services.out)
    token=$(sed -nE 's/.*"proxy-authorization: Bearer ([^"]*)".*/\1/Ip' <<<"$head")
    has "[\"$2\"," "$head" && has '"sap-connectivity-scc-location_id: cellar"' "${head,,}" && known "$token" 'by header' &&
        has "$2" "$(grep 'Request (' tinyproxy.log | tail -n 1)"
}

# stays_outside: what is for the connectivity proxy does not go through its tunnel.
stays_outside() {
    local headers
    headers=$(curl -sS "$issuer/journal" >journal.json && field journal.json headers) && has content-type "$headers" || return
    [[ $headers != *proxy-authorization* && $headers != *location_id* ]] || { echo "$headers"; return 1; }
}

# --- management: each call, and what a lookup shows right after it ----------------------------------

# manage 'STATUS BODY' METHOD PATH [OPTION...]: BODY is a part of the answer.
manage() {
    local wanted=$1 method=$2 path=$3 said
    shift 3
    said=$(ask --request "$method" "$api/v1/$path" --header "Authorization: Bearer $bearer" \
        --header 'Content-Type: application/json' -w '\n%{http_code}' "$@") || return
    [[ ${said##*$'\n'} == "${wanted%% *}" ]] || { echo "wanted $wanted, got $said"; return 1; }
    [[ $wanted != *' '* ]] || has "${wanted#* }" "$said"
}

tag_of() { ask -o /dev/null -D - "$api/v1/$1" --header "Authorization: Bearer $bearer" | sed -n 's/\r$//; s/^etag: *//Ip' | grep .; }

unknown() {
    local said
    ! said=$(found "$1") && has '404 {"ErrorMessage":"Configuration with the specified name was not found"}' "$said"
}

# filtered FILTER: which destinations there are of those that are managed here.
filtered() {
    ask --get "$api/v1/subaccountDestinations" --data-urlencode "\$filter=$1" --header "Authorization: Bearer $bearer" |
        python3 -c 'import json, sys; print(*(one["Name"] for one in json.load(sys.stdin)))'
}

posted() { manage 201 POST subaccountDestinations --data "$(plain one first)" && shows one first; }

posted_many() {
    local bad='{ "Name": "three", "Type": "HTTP" }'
    manage '207 "name":"two","status":201' POST subaccountDestinations \
        --data "[$(plain two first), $bad, $(plain four first)]" && shows two first && shows four first && unknown three
}

put() { manage '200 {"Count":1}' PUT subaccountDestinations --data "$(plain one second)" && shows one second; }

# A tag holds until the entry is another.
tagged() {
    local tag
    tag=$(tag_of subaccountDestinations/two) && manage 304 GET subaccountDestinations/two --header "If-None-Match: $tag" &&
        manage '200 {"Count":1}' PUT subaccountDestinations --data "$(plain two second)" &&
        manage '200 "URL"' GET subaccountDestinations/two --header "If-None-Match: $tag" &&
        manage 412 PUT subaccountDestinations --data "$(plain two third)" --header "If-Match: $tag" && shows two second
}

lookup_tagged() {
    local tag
    tag=$(tag_of destinations/two) && manage 304 GET destinations/two --header "If-None-Match: $tag" &&
        manage '200 {"Count":1}' PUT subaccountDestinations --data "$(plain two fourth)" &&
        manage "200 $backend/fourth" GET destinations/two --header "If-None-Match: $tag"
}

lists() {
    [[ $(filtered "Name in ('two','one','three')") == 'one two' && $(filtered "startswith(Name,'fo')") == four ]] ||
        { filtered "Name in ('two','one','three')"; filtered "startswith(Name,'fo')"; return 1; }
}

# An instance's own comes before everybody's.
levels() {
    manage 201 POST instanceDestinations --data "$(plain one own)" && shows one own &&
        manage '200 {"Count":1}' DELETE instanceDestinations/one && shows one second
}

fragments() {
    manage 201 POST subaccountDestinationFragments --data '{ "FragmentName": "other", "my.own": "value" }' &&
        found one 'X-fragment-name: other' && has '"my.own":"value"' "$(<answer.json)" &&
        manage '200 {"Count":1}' DELETE subaccountDestinationFragments/other && ! found one 'X-fragment-name: other'
}

# Nobody is shown the key that came with a certificate.
certificate() {
    manage 201 POST subaccountCertificates \
        --data "{ \"Name\": \"posted.pem\", \"Content\": \"$(base64 -w0 stored/client.pem)\" }" &&
        manage "200 \"Content\":\"$(base64 -w0 client.pem)\"" GET subaccountCertificates/posted.pem &&
        manage '200 {"Count":1}' DELETE subaccountCertificates/posted.pem && manage 404 GET subaccountCertificates/posted.pem
}

deleted() { manage '200 {"Count":1}' DELETE subaccountDestinations/one && unknown one; }

deleted_many() {
    manage '200 {"Count":2,' DELETE "subaccountDestinations?\$filter=Name%20in%20('two','three','four')" &&
        unknown two && unknown four
}

stranger() { [[ $(ask -o /dev/null -w '%{http_code}' "$api/v1/$1") == 401 ]]; }

# --- the checks -------------------------------------------------------------------------------------

check_code() {
    check 'destinations code: the sample is stored from its file' stored_silently sample.json sample
    check 'destinations code: it is found at once' until_true shows sample crm
    check 'destinations code: a code gets a token' exchanged by-body sample "$redirect"
    check 'destinations code: the redirect URI is URL-encoded' exchanged by-body sample "$encoded"
    check 'destinations code: the secret in the header' exchanged 'by header' headed "$redirect"
    check 'destinations code: a code twice' used_twice
    check 'destinations code: another verifier' \
        refused "X-redirect-uri: $redirect" "X-code-verifier: $(openssl rand -hex 32)"
    check 'destinations code: no verifier' refused "X-redirect-uri: $redirect"
    check 'destinations code: another redirect URI' refused "X-redirect-uri: http://$host:$backend/callback"
    check 'destinations code: no code' lacks X-code sample
    check 'destinations code: without credentials and tokens' bare
    check 'destinations code: on the command line' on_the_command_line
    check 'destinations Python SDK: a code gets a token' by_python "$redirect"
    check 'destinations Python SDK: the redirect URI is URL-encoded' by_python "$encoded"
}

check_tenants() {
    check 'destinations Common: a tenant' for_tenant acme
    check 'destinations Common: no tenant' \
        lacks 'You must send the X-tenant header when the tokenServiceURLType property is Common' common
    check 'destinations Dedicated: a tenant' manage '400 x-tenant' GET destinations/credentials --header 'X-tenant: acme'
}

check_keystores() {
    check 'destinations keystore: PEM with its key' gets by-certificate by-pem
    check 'destinations keystore: PKCS#12' gets by-certificate by-modern
    check 'destinations keystore: PKCS#12 of an older kind' gets by-certificate by-legacy
    check 'destinations keystore: a wrong password, which is not told' keeps_its_password
    check 'destinations keystore: a server of a CA that is not named' lacks UnknownIssuer by-untrusted
}

check_premise() {
    check 'destinations OnPremise: http, as a whole URL' \
        over_the_wire premise-http "POST $issuer/token HTTP/1.1"
    check 'destinations OnPremise: https, through a tunnel' \
        over_the_wire premise-https "CONNECT $host:$provider_tls HTTP/1.1"
    check 'destinations OnPremise: the token service is told nothing of it' stays_outside
}

check_management() {
    check 'destinations management: post one' posted
    check 'destinations management: post one that is there' manage 409 POST subaccountDestinations --data "$(plain one third)"
    check 'destinations management: post many, one of them bad' posted_many
    check 'destinations management: put' put
    check 'destinations management: put one that is not there' \
        manage 404 PUT subaccountDestinations --data "$(plain nobody first)"
    check 'destinations management: an entity tag' tagged
    check "destinations management: a lookup's entity tag" lookup_tagged
    check 'destinations management: a filtered list' lists
    check "destinations management: an instance's own" levels
    check 'destinations management: a fragment' fragments
    check 'destinations management: a certificate' certificate
    check 'destinations management: delete one' deleted
    check 'destinations management: delete many' deleted_many
    check 'destinations management: without a token' stranger subaccountDestinations
    check 'destinations management: a lookup without a token' stranger destinations/sample
}

start_all
store_all >store.log
{
    check_code
    with_cloud_sdk
    check_tenants
    check_keystores
    check_premise
    check_management
} | tee results
echo "destinations: $(grep -c '^ok ' results || true) passed, $(grep -c '^not ok ' results || true) failed"
