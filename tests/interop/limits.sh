#!/usr/bin/env bash
# What clients can cost that are slow or too many: limits.sh BINARY WORKDIR PYTHON
#
# Needs curl and a PYTHON with what requirements.txt names, all on loopback, each a process of this script.
# One line for each check and, last, `limits: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

usage='usage: limits.sh BINARY WORKDIR PYTHON'
binary=$(realpath "${1:?$usage}")
work=${2:?$usage}
python=${3:?$usage}
rm -rf "$work"
# the gateway watches the folder of its configuration, so what grows is in another one
mkdir -p "$work/log"
cd "$work"

# --- gateway and backend ----------------------------------------------------------------------------

read -r tls plain small admin origin < <(free_ports 5)
gateway=https://localhost:$tls
listener_connections=3
address_connections=40
requests=16

configure() {
    cat >config.yaml <<YAML
public_url: $gateway
listeners:
  - { address: "$host:$tls", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
  - { address: "$host:$plain" }
  - { address: "$host:$small", connections: $listener_connections }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
limits:
  header_time: 2s
  body_gap: 2s
  idle_time: 3s
  write_gap: 3s
  handshake_time: 2s
  connections_per_address: $address_connections
  requests: $requests
  token_rate: 2/s
backends:
  origin: { servers: ["http://$host:$origin"] }
routes:
  - { name: open, path: /open/*, backend: origin, authorization: none }
  - { name: rate, path: /rate/*, backend: origin, rate: 2/s }
  - { name: client-rate, path: /client-rate/*, backend: origin, client_rate: 2/s }
YAML
}

flowgate() { "$binary" "$@" --config config.yaml; }
get() { curl -sS --cacert certs/ca.pem --max-time 20 "$@"; }
up() { get --fail -o log/up "$gateway/open/up"; }
ask() { "$python" "$here/slow.py" "$@"; }
token() { flowgate token get --key "keys/$1.json" --cacert certs/ca.pem; }

start_all() {
    configure
    # the programs share modules, which are not to leave anything beside the sources
    export PYTHONDONTWRITEBYTECODE=1
    export TLS_PORT=$tls PLAIN_PORT=$plain SMALL_PORT=$small ADMIN_PORT=$admin ORIGIN_PORT=$origin
    start log/origin "$python" "$here/origins.py" "origin:$origin:http/1.1"
    until_true grep -q ready log/origin.out
    start log/gateway "$binary" demo --dir .
    until_true up || { tail -n 3 log/gateway.err >&2; exit 1; }
    flowgate instance create other --roles ESBMessaging.send >>log/commands
    flowgate key create other first >keys/other.json
    until_true token other
}

# --- what is expected -------------------------------------------------------------------------------

# calls TOKEN ROUTE: three calls in a row, one more than may be; each with its head.
calls() { get -o log/body --header "Authorization: Bearer $1" -D - "$gateway/$2/[1-3]"; }
statuses() { grep -oE '^HTTP/[0-9.]+ [0-9]+' <<<"$1" | cut -d ' ' -f 2 | xargs; }

# limited HEADS: two are answered, and the third is told when it may come again.
limited() {
    local heads=${1//$'\r'/}
    [[ $(statuses "$heads") == '200 200 429' ]] || { echo "got $(statuses "$heads")"; return 1; }
    has $'\nretry-after: 1\n' "$heads" && has $'\nratelimit-policy: "default";q=2;w=1\n' "$heads" &&
        has $'\nratelimit: "default";r=0;t=1\n' "$heads"
}

# As long as Retry-After says, and not before.
once_more() {
    has 429 "$(statuses "$(calls "$first" client-rate)")" && sleep 1 && limited "$(calls "$first" client-rate)"
}

# One client uses up what all have together.
shared() {
    limited "$(calls "$first" rate)" && has 429 "$(statuses "$(calls "$second" rate)")"
}

alone() {
    limited "$(calls "$first" client-rate)" && limited "$(calls "$second" client-rate)"
}

# tokens KEY [SECRET]: three token requests in a row.
tokens() {
    local id secret
    id=$(field "keys/$1.json" oauth clientid)
    secret=$(field "keys/$1.json" oauth clientsecret)
    get -o log/body -D - --user "$id:${2:-$secret}" --data grant_type=client_credentials "$gateway/oauth/token?[1-3]"
}

unguessed() { has '429' "$(statuses "$(tokens other wrong)")" && limited "$(tokens other)"; }

# --- the checks -------------------------------------------------------------------------------------

# All at once, for it is waiting that they do.
check_slow() {
    local sentence client checks=() others
    check 'limits time: meanwhile others are served at once' ask meanwhile &
    others=$!
    while IFS='|' read -r sentence client; do
        check "limits time: $sentence" ask "$client" &
        checks+=($!)
    done <<'CASES'
a head that drips is cut off|head_drips
a head that drips after a good request is cut off|later_head_drips
a head that drips in HTTP/2 is cut off|http2_head_drips
a body that pauses is refused|body_pauses
a body that pauses in HTTP/2 is refused|http2_body_pauses
an answer that nobody reads is cut off|answer_unread
an answer in HTTP/2 that nobody reads is cut off|http2_answer_unread
an answer in HTTP/2 that nobody reads, beside others that are read, is cut off|http2_one_answer_unread
an answer that is read slowly goes on|answer_read_slowly
an idle connection is closed|idle
an idle connection in HTTP/2 is closed|http2_idle
a connection without a request is closed|silent
a handshake that stops is cut off|no_handshake
CASES
    wait "${checks[@]}"
    touch log/calm
    wait "$others"
}

check_bounds() {
    check 'limits number: connections of a listener' ask listener_connections $listener_connections
    check 'limits number: connections of an address' ask address_connections $address_connections
    check 'limits number: requests, while the admin listener answers' ask requests $requests
    check 'limits number: requests, all of them on one connection' ask requests_of_one $requests
}

check_rates() {
    check 'limits rate: that of a route, which all clients share' shared
    check 'limits rate: that of a client on a route, which it has alone' alone
    check 'limits rate: what is used up comes back' once_more
    check 'limits rate: that of token requests' limited "$(tokens demo-sender)"
    check 'limits rate: who guesses a secret uses up nothing of its owner' unguessed
}

start_all
first=$(token demo-sender)
second=$(token other)
{
    check_slow
    check_bounds
    check_rates
} | tee log/results
echo "limits: $(grep -c '^ok ' log/results || true) passed, $(grep -c '^not ok ' log/results || true) failed"
