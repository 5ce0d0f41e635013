#!/usr/bin/env bash
# Outbound credentials against a certified provider of others' making: provider.sh BINARY WORKDIR
#
# Needs curl, openssl, python3, Chromium and node with oidc-provider, all on loopback, each a process of this script.
# One line for each check and, last, `provider: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

binary=$(realpath "${1:?usage: provider.sh BINARY WORKDIR}")
work=${2:?usage: provider.sh BINARY WORKDIR}
rm -rf "$work"
mkdir -p "$work"
cd "$work"

# --- gateway and provider ---------------------------------------------------------------------------

read -r port admin backend provider provider_tls < <(free_ports 5)
gateway=https://localhost:$port
issuer=http://$host:$provider
secret='s3cret:+%/&= ~'

configure() {
    cat >config.yaml <<YAML
public_url: $gateway
listeners:
  - { address: "$host:$port", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
outbound: { allow_networks: [127.0.0.0/8] }
backends:
  echo: { servers: ["http://$host:$backend"] }
routes:
  - { name: open, path: /open, backend: echo, authorization: none }
  - { name: mail, path: /mail, backend: echo, authorization: none, credential: mail }
YAML
}

get() { curl -sS --cacert certs/ca.pem --max-time 20 -w '\n%{http_code}' "$@"; }
up() { [[ $(get "$gateway/open") == *$'\n200' ]]; }
flowgate() { "$binary" "$@" --config config.yaml; }

# The demo brings the echo that the routes lead to.
start_gateway() {
    start gateway "$binary" demo --dir .
    gateway_process=$!
    until_true up || { tail -n 3 gateway.err >&2; exit 1; }
}

# Not within a pipe or a check: only the shell that has started a process can wait for it.
restart_gateway() {
    kill -TERM "$gateway_process"
    wait "$gateway_process"
    start_gateway
}

# create NAME TYPE CLIENT SECRET SEND-AS [MEMBERS]: a credential of the provider.
create() {
    cat >"$1.json" <<JSON
{ "name": "$1", "type": "oauth2-$2", "client-id": "$3", "client-secret": "$4", "send-as": "$5",
  "token-service-url": "$issuer/token"${6:+, $6} }
JSON
    flowgate credential create --parameters "$1.json"
}

# create_keyed NAME METHOD TOKEN-URL: a credential whose client has the key of client.pem.
create_keyed() {
    python3 - "$@" >"$1.json" <<'PYTHON'
import json, sys
name, method, url = sys.argv[1:]
text = lambda path: open(path).read()
print(json.dumps({
    "name": name, "type": "oauth2-client-credentials", "client-id": name, "client-authentication": method,
    "certificate": text("client.pem"), "private-key": text("client-key.pem"), "scope": "orders",
    "token-service-url": url, "trusted-cas": [text("provider-ca.pem")],
}))
PYTHON
    flowgate credential create --parameters "$1.json"
}

certificates() {
    local new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30'
    openssl req -x509 $new -keyout client-key.pem -out client.pem -subj '/CN=client'
    openssl req -x509 $new -keyout provider-ca-key.pem -out provider-ca.pem -subj '/CN=ca of the provider' \
        -addext 'keyUsage=critical,keyCertSign'
    openssl req -x509 $new -keyout provider-key.pem -out provider.pem -subj /CN=provider -CA provider-ca.pem \
        -CAkey provider-ca-key.pem -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=IP:$host"
}

# A refresh token is given for offline_access alone, and that only if the user is asked.
consented() {
    echo "\"scope\": \"openid offline_access\", \"authorization-url\": \"$issuer/auth?prompt=consent\", \"issuer\": \"$1\""
}

start_all() {
    configure
    certificates 2>openssl.err
    start provider node "$here/provider.mjs" "$provider" "$provider_tls" "$gateway/oauth/callback"
    start_gateway
    until_true grep -q ready provider.out
    create by-header client-credentials 'by header' "$secret" header '"scope": "orders"'
    create by-body client-credentials by-body "$secret" body '"scope": "orders"'
    create_keyed by-assertion private-key-jwt "$issuer/token"
    create_keyed by-certificate certificate "https://$host:$provider_tls/token"
    create wrong client-credentials by-body "not $secret" body
    create mail authorization-code 'by header' "$secret" header "$(consented "$issuer")"
    create calendar authorization-code by-body "$secret" body "$(consented https://other.example)"
}

# --- what is expected -------------------------------------------------------------------------------

# journal NAME: a member of what the provider tells of itself.
journal() { curl -sS "$issuer/journal" >journal.json && field journal.json "$1"; }
refreshes() { journal refreshes; }
codes() { journal code; }
# A refresh token that is shown again is an error and costs the grant.
misuses() { journal ended && grep -o 'invalid_grant[^"]*' journal.json || true; }

# unchanged WHAT COMMAND...: the command succeeds, and the provider tells the same after it.
unchanged() {
    local what=$1 before after
    shift
    before=$("$what")
    "$@" || return
    after=$("$what")
    [[ $before == "$after" ]] || { echo "$what: $before before, $after after"; return 1; }
}

# told NAME WHAT: a member of what `credential list` tells of a credential.
told() {
    flowgate credential list --output json 2>/dev/null | python3 -c '
import json, sys
print(next(row[sys.argv[2]] for row in json.load(sys.stdin) if row["name"] == sys.argv[1]))' "$@"
}
tells() { has "$3" "$(told "$1" "$2")"; }
deployed() { tells "$1" status Deployed && tells "$1" last_error None; }

# known TOKEN CLIENT: the provider says that it has issued the token to the client, and that it is good.
known() {
    local said
    said=$(curl -sS "$issuer/token/introspection" --data-urlencode "token=$1" -d client_id=by-body \
        --data-urlencode "client_secret=$secret")
    has '"active":true' "$said" && has "\"client_id\":\"$2\"" "$said"
}

fails() {
    local wanted=$1 said
    shift
    ! said=$("$@" 2>&1) || { echo "it did not fail: $said"; return 1; }
    has "$wanted" "$said"
}

fetches() {
    local token
    token=$(flowgate credential token "$1") && known "$token" "$2"
}

# The backend is called with a token that is good at this moment.
route_works() {
    local response bearer
    response=$(get "$gateway/mail")
    has $'\n200' "$response" || return
    bearer=$(sed -n 's/.*"authorization": *"Bearer \([^"]*\)".*/\1/p' <<<"$response")
    known "$bearer" 'by header'
}

route_fails() { has $'\n503' "$(get "$gateway/mail")"; }

# walk NAME ANSWER STATUS TEXT: from the printed address through the provider's pages to ours.
walk() {
    local url page
    url=$(flowgate credential authorize "$1" --no-wait) || return
    page=$(timeout 60 node "$here/browser.mjs" "$url" "$2") || return
    sed -n '1s/^[0-9]* //p' <<<"$page" >last_callback
    has "$3 $gateway/oauth/callback?" "$page" && has "$4" "$page"
}

# not_ours URL: a callback whose state belongs to no authorization that is under way.
not_ours() {
    local response
    response=$(get "$1")
    has 'unknown, was used already' "$response" && has $'\n400' "$response"
}

# The state of an authorization that has begun, and another one that differs at its end.
wrong_state() {
    local url state
    url=$(flowgate credential authorize mail --no-wait) || return
    state=$(sed -n 's/.*[?&]state=\([^&]*\).*/\1/p' <<<"$url")
    [[ $state ]] || { echo "no state in $url"; return 1; }
    not_ours "$gateway/oauth/callback?state=${state}x&code=c&iss=$issuer"
}

# goes_on REFRESHES: the route works all the while, until the provider has seen so many more.
goes_on() {
    local wanted=$(($(refreshes) + $1)) deadline=$((SECONDS + 30))
    until (($(refreshes) >= wanted)); do
        route_works || return
        ((SECONDS < deadline)) || { echo "only $(refreshes) refreshes of $wanted"; return 1; }
    done
    until_true deployed mail
}

refresh_at_once() {
    local each
    local -a all=()
    for each in 1 2 3 4; do
        flowgate credential refresh mail &
        all+=($!)
    done
    for each in "${all[@]}"; do wait "$each" || return; done
    deployed mail
}

expects_issuer() {
    echo "{ \"name\": \"calendar\", \"type\": \"oauth2-authorization-code\", \"issuer\": \"$1\" }" >calendar.json
    flowgate credential update --parameters calendar.json
}

# Somebody else shows a refresh token that the gateway has used: the provider then ends the grant.
end_grant() {
    local old
    old=$(journal refresh_token | sed "s/^\['\([^']*\)'.*/\1/")
    curl -sS -u 'by+header:s3cret%3A%2B%25%2F%26%3D+~' "$issuer/token" -d grant_type=refresh_token \
        --data-urlencode "refresh_token=$old" >ended.json
    has 'invalid_grant' "$(<ended.json)" && [[ $(journal ended) == 1 ]]
}

# --- the checks -------------------------------------------------------------------------------------

check_client_credentials() {
    check 'provider client credentials: secret in the header' fetches by-header 'by header'
    check 'provider client credentials: secret in the body' fetches by-body by-body
    check 'provider client credentials: a signed assertion' fetches by-assertion by-assertion
    check 'provider client credentials: a certificate, to a provider of another CA' fetches by-certificate by-certificate
    check 'provider client credentials: a wrong secret fails' fails invalid_client flowgate credential token wrong
    check 'provider client credentials: the listing tells why' tells wrong last_error invalid_client
}

check_consent() {
    check 'provider consent: without it the command says what to do' fails authorise flowgate credential token mail
    check 'provider consent: without it the route has no token' route_fails
    check 'provider consent: a user who says no at first' walk mail deny 400 'the user refused'
    check 'provider consent: the listing says so' tells mail last_error 'the user refused'
    check 'provider consent: the page says that it is authorised' walk mail consent 200 'is authorised'
    check 'provider consent: the credential is deployed' deployed mail
    check 'provider consent: the route calls with its token' until_true route_works
    check 'provider consent: a used state' unchanged codes not_ours "$(<last_callback)"
    check 'provider consent: a wrong state' unchanged codes wrong_state
    check 'provider consent: an issuer that was not promised' unchanged codes walk calendar consent 400 'another provider'
    check 'provider consent: the promised issuer is another now' expects_issuer "$issuer"
    check 'provider consent: with the secret in the body' walk calendar consent 200 'is authorised'
    check 'provider consent: its token is known' fetches calendar by-body
}

check_upkeep() {
    check 'provider upkeep: three rotations, and the route works all the while' unchanged misuses goes_on 3
    check 'provider upkeep: four processes refresh at once' unchanged misuses refresh_at_once
}

check_restart() {
    check 'provider restart: the route works without another consent' unchanged codes until_true route_works
    check 'provider restart: rotations go on' unchanged codes unchanged misuses goes_on 2
}

check_ends() {
    check 'provider revocation: the grant has ended' end_grant
    check 'provider revocation: the listing says so' until_true tells mail last_error 'authorise it again'
    check 'provider revocation: the route has no token' until_true route_fails
    check 'provider revocation: another consent' walk mail consent 200 'is authorised'
    check 'provider revocation: the route works again' until_true route_works
    check 'provider denial: the page says so, with a consent there' walk mail deny 400 'the user refused'
    check 'provider denial: the consent before goes on' unchanged codes unchanged misuses goes_on 2
}

start_all >start.log
{
    check_client_credentials
    check_consent
    check_upkeep
} | tee results
restart_gateway
{
    check_restart
    check_ends
} | tee --append results
echo "provider: $(grep -c '^ok ' results || true) passed, $(grep -c '^not ok ' results || true) failed"
