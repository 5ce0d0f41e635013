#!/usr/bin/env bash
# Routes that take the tokens of an issuer of others' making: issuers.sh BINARY WORKDIR
#
# Needs curl, python3 and node with oidc-provider, all on loopback, each a process of this script.
# One line for each check and, last, `issuers: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

binary=$(realpath "${1:?usage: issuers.sh BINARY WORKDIR}")
work=${2:?usage: issuers.sh BINARY WORKDIR}
rm -rf "$work"
mkdir -p "$work"
cd "$work"

# --- gateway and issuer -----------------------------------------------------------------------------

read -r port admin backend provider < <(free_ports 4)
gateway=https://localhost:$port
issuer=http://$host:$provider

configure() {
    cat >config.yaml <<YAML
public_url: $gateway
listeners:
  - { address: "$host:$port", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
outbound: { allow_networks: [127.0.0.0/8] }
issuers:
  - { issuer: "$issuer", jwks: "$issuer/jwks", audience: "urn:orders", roles_claim: scope }
backends:
  echo: { servers: ["http://$host:$backend"] }
routes:
  - { name: open, path: /open, backend: echo, authorization: none }
  - { name: own, path: /own, backend: echo }
  - { name: theirs, path: /theirs, backend: echo, issuers: ["$issuer"] }
  - { name: both, path: /both, backend: echo, issuers: [own, "$issuer"] }
YAML
}

get() { curl -sS --cacert certs/ca.pem --max-time 20 -w '\n%{http_code}' "$@"; }
up() { [[ $(get "$gateway/open") == *$'\n200' ]]; }

start_all() {
    configure
    start provider node "$here/issuers.mjs" "$provider"
    provider_process=$!
    until_true grep -q ready provider.out
    start gateway "$binary" demo --dir .
    until_true up || { tail -n 3 gateway.err >&2; exit 1; }
}

# --- what is expected -------------------------------------------------------------------------------

# issued [SCOPE]: a new token of the issuer.
issued() {
    curl -sS --max-time 20 "$issuer/token" -d grant_type=client_credentials -d client_id=theirs \
        -d 'client_secret=their secret' ${1:+-d "scope=$1"} | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' | grep .
}
sender() { issued ESBMessaging.send; }
ours() { "$binary" token get --key keys/demo-sender.json --cacert certs/ca.pem --config config.yaml; }

# called PATH TOKEN: the answer, its status last.
called() { get "$gateway/$1" --header "Authorization: Bearer $2"; }
# answers STATUS PATH TOKEN
answers() { has $'\n'"$1" "$(called "$2" "$3")"; }

told() {
    local seen
    seen=$(called theirs "$1")
    seen=${seen,,}
    has '"x-auth-client-id": "theirs"' "$seen" && has "\"x-auth-issuer\": \"$issuer\"" "$seen"
}

# Calls without end, each with a new token; `calls` has the status of each and the token's header, which
# names the key.
load() {
    local token said
    until [[ -e calm ]]; do
        token=$(sender) || token=none
        said=$(called theirs "$token") || said=failed
        echo "${said##*$'\n'} ${token%%.*}" >>calls
    done
}

start_load() {
    local each
    load_processes=()
    for each in 1 2 3 4; do
        start "load-$each" load
        load_processes+=($!)
    done
}

# good COUNT HEADER [SINCE]: so many good calls with this key, and keys that were fetched then may be again.
good() { (($(grep -c "^200 $2\$" calls) >= $1 && SECONDS >= ${3:-0} + 7)); }

# The key of this moment is taken, until another one would be as well.
taken() {
    local token
    token=$(sender) || return
    until_true good 1 "${token%%.*}" -7 && until_true good 50 "${token%%.*}" "$SECONDS"
}

rotates() {
    curl -sS --fail -X POST "$issuer/rotate" && taken
}

# Of three keys, each one had its calls.
all_good() {
    local keys
    keys=$(cut -d ' ' -f 2 calls | sort -u | wc -l)
    ! grep -v '^200 ' calls | cut -d ' ' -f 1 | sort | uniq -c | grep . || { wc -l calls; return 1; }
    [[ $keys == 3 ]] || { echo "$keys keys"; return 1; }
}

# --- the checks -------------------------------------------------------------------------------------

check_routes() {
    check 'issuers routes: a token of theirs' answers 200 theirs "$theirs"
    check 'issuers routes: a token of theirs, where both count' answers 200 both "$theirs"
    check 'issuers routes: a token of theirs, where ours alone count' answers 401 own "$theirs"
    check 'issuers routes: a token of ours' answers 200 own "$own"
    check 'issuers routes: a token of ours, where both count' answers 200 both "$own"
    check 'issuers routes: a token of ours, where theirs alone count' answers 401 theirs "$own"
    check 'issuers routes: a token of theirs without the role' answers 403 theirs "$(issued)"
    check 'issuers routes: the backend is told whose client it is' told "$theirs"
}

check_rotation() {
    check 'issuers rotation: the first key under load' taken
    check 'issuers rotation: a second key' rotates
    check 'issuers rotation: a token of the key before, which is still published' answers 200 theirs "$theirs"
    check 'issuers rotation: a third key' rotates
    check 'issuers rotation: a token of the first key, which is published no more' answers 401 theirs "$theirs"
}

check_outage() {
    check 'issuers outage: a token that was taken before' answers 200 theirs "$used"
    check 'issuers outage: a token that is new' answers 200 both "$unused"
}

start_all
theirs=$(sender)
own=$(ours)
check_routes | tee results
start_load
check_rotation | tee --append results
touch calm
wait "${load_processes[@]}"
check 'issuers rotation: not one call was refused' all_good | tee --append results
used=$(sender)
unused=$(sender)
called theirs "$used" >used.out
kill -TERM "$provider_process"
wait "$provider_process" || true
check_outage | tee --append results
echo "issuers: $(grep -c '^ok ' results || true) passed, $(grep -c '^not ok ' results || true) failed"
