#!/usr/bin/env bash
# Backends that fail in every way, and too much of everything: faults.sh BINARY WORKDIR
#
# Needs curl, openssl and python3, all on loopback, each a process of this script.
# One line for each check, what was measured and, last, `faults: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
source "$here/backends.sh"
patience=10

binary=$(realpath "${1:?usage: faults.sh BINARY WORKDIR}")
work=${2:?usage: faults.sh BINARY WORKDIR}
rm -rf "$work"
# the gateway watches the folder of its configuration, so what grows is in another one
mkdir -p "$work"/{log,data,keys}
cd "$work"

# --- gateway and backends ---------------------------------------------------------------------------

read -r port admin nobody deaf one two three gone pooled tls < <(free_ports 10)
backends=([one]=$one [two]=$two [three]=$three [gone]=$gone [pooled]=$pooled [tls]=$tls)
gateway=http://$host:$port
routes=(single hasty brief deaf mistaken distrusted trusted named gone pooled some none sick weighed checked busy few)

# configure LIMITS
configure() {
    local route
    cat >config.yaml <<YAML
public_url: $gateway
listeners:
  - { address: "$host:$port" }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
limits: $1
backends:
  single: { servers: ["http://$host:$one"], ejection: { failures: 0 } }
  hasty: { servers: ["http://$host:$one"], ejection: { failures: 0 }, timeout: 300ms, idle_timeout: 300ms }
  brief: { servers: ["http://$host:$one"], ejection: { failures: 0 }, total_timeout: 300ms }
  deaf: { servers: ["http://$host:$deaf"], connect_timeout: 300ms }
  mistaken: { servers: ["https://$host:$one"] }
  distrusted: { servers: ["https://$host:$tls"] }
  trusted: { servers: ["https://$host:$tls"], tls: { trusted_cas: [backend.pem] } }
  named: { servers: ["http://localhost:$one"] }
  gone: { servers: ["http://$host:$gone"], ejection: { failures: 3 } }
  pooled: { servers: ["http://$host:$pooled"] }
  some: { servers: ["http://$host:$two", "http://$host:$nobody", "http://$host:$three"] }
  none: { servers: ["http://$host:$nobody", "http://$host:$gone"] }
  sick: { servers: ["http://$host:$two", "http://$host:$three"], ejection: { failures: 3 } }
  weighed: { servers: [{ url: "http://$host:$two", weight: 1 }, { url: "http://$host:$three", weight: 3 }] }
  checked:
    servers: ["http://$host:$two", "http://$host:$three"]
    ejection: { failures: 0 }
    health: { path: /health, interval: 100ms, down_after: 2, up_after: 2 }
  busy: { servers: ["http://$host:$one"], max_requests: 2 }
  few: { servers: ["http://$host:$three"], max_connections: 3 }
routes:
YAML
    for route in "${routes[@]}"; do
        echo "  - { name: $route, path: /$route/*, backend: $route, authorization: none }"
    done >>config.yaml
}

certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=backend \
        -addext "subjectAltName=IP:$host" -keyout backend-key.pem -out backend.pem
    cat backend-key.pem backend.pem >backend-both.pem
}

# A server whose queue is full: a connection takes the one place in it.
start_deaf() {
    start log/deaf python3 - "$deaf" <<'PYTHON'
import signal, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=0)
queued = socket.create_connection(listening.getsockname())
print("ready", flush=True)
signal.pause()
PYTHON
    until_true grep -q ready log/deaf.out
}

up() { [[ $(status admin-up "http://$host:$admin/readyz") == 200 ]]; }

# run_gateway [DESCRIPTORS]
run_gateway() {
    start log/gateway bash -c "ulimit -n ${1:-4096}; exec \"\$@\"" - "$binary" serve --config config.yaml
    process=$!
    until_true up || { tail -n 3 log/gateway.err >&2; exit 1; }
}

stop_gateway() {
    kill -TERM "$process"
    wait "$process"
}

start_all() {
    local name
    certificate 2>log/openssl
    configure '{ requests: 1000 }'
    for name in one two three pooled; do raise "$name"; done
    raise tls backend-both.pem
    start_deaf
    run_gateway
}

# --- calls ------------------------------------------------------------------------------------------

# ask [OPTION...]: bounded, and silent but for what is asked for.
ask() { curl -sS --noproxy '*' --max-time 20 "$@"; }

# status FILE [OPTION...]: the answer itself goes to a file.
status() { ask -o "log/$1" -w '%{http_code}' "${@:2}"; }

# answers STATUS PATH [OPTION...]
answers() {
    local got
    got=$(status answer "$gateway/$2" "${@:3}") || true
    [[ $got == "$1" ]] || { echo "wanted $1, got $got: $(tail -c 300 log/answer)"; return 1; }
}

# says CODE STATUS PATH [OPTION...]: the answer is the gateway's own, with that code.
says() { answers "${@:2}" && has "\"code\":\"$1\"" "$(<log/answer)"; }

# later LEAST MOST COMMAND...: it succeeds, after so many milliseconds.
later() {
    local start taken
    start=$(milliseconds)
    "${@:3}" || return
    taken=$(($(milliseconds) - start))
    (($1 <= taken && taken <= $2)) || { echo "it took $taken ms, not $1 to $2"; return 1; }
}

# once N COMMAND...: it succeeds, and what is called arrives so many times; the last word is the tag of the call.
arrives() {
    local times
    "${@:2}" || return
    times=$(arrived "${*: -1}")
    ((times == $1)) || { echo "arrived $times times"; return 1; }
}

# breaks CODES PATH [OPTION...]: curl sees that the answer is not whole, and ends with one of its codes.
breaks() {
    local code=0
    ask -o log/answer "$gateway/$2" "${@:3}" || code=$?
    [[ " $1 " == *" $code "* ]] || { echo "wanted exit code $1, got $code"; return 1; }
}

# many NAME TARGETS [OPTION...]: calls at once; the status, Retry-After and target of each are lines of log/NAME.
many() {
    ask --parallel --parallel-immediate --parallel-max 200 -o /dev/null \
        -w '%{http_code} %header{retry-after} %{url}\n' "$gateway/$2" "${@:3}" >"log/$1" || true
}

# tally NAME: how often there was each status.
tally() { cut -d ' ' -f 1 "log/$1" | sort | uniq -c | awk '{ printf "%s%s: %s", sep, $2, $1; sep = ", " }'; }

# tells NAME WANTED
tells() { [[ $(tally "$1") == "$2" ]] || { echo "wanted $2, got $(tally "$1")"; return 1; }; }

measured() { echo "$1: $2" >>log/measured; }

# --- one server -------------------------------------------------------------------------------------

# POSTs are not sent to a server that is known to be away, so that this is a GET.
back_within() {
    local start taken
    start=$(milliseconds)
    until_true answers 200 gone/itself || return
    taken=$(($(milliseconds) - start))
    measured 'traffic flows again after' "$taken ms"
    ((taken <= $1)) || { echo "it took $taken ms"; return 1; }
}

left_out() {
    answers 503 gone/itself -D log/head && has 'retry-after: ' "$(<log/head)"
}

check_gone() {
    check 'faults gone: a connection is refused' says backend_unreachable 502 gone/itself
    until_true left_out || true
    check 'faults gone: after failures in a row the server is left out' says backend_unreachable 503 gone/itself
    check 'faults gone: which is told with Retry-After' left_out
    raise gone
    check 'faults gone: calls succeed within a second of its return' back_within 1000
}

# after_one STATUS METHOD NAME: the second call of a connection, whose first one left an idle connection behind.
after_one() {
    local codes
    codes=$(ask -o /dev/null -w '%{http_code} ' "$gateway/single/itself" --next -sS -o /dev/null -w '%{http_code}' \
        --request "$2" "$gateway$3") || true
    [[ $codes == "200 $1" ]] || { echo "wanted 200 $1, got $codes"; return 1; }
}

check_resets() {
    check 'faults reset: a GET on a new connection is not lost without an answer' answers 502 'single/reset?new-get'
    check 'faults reset: a POST on a new connection' arrives 1 answers 502 'single/reset?new-post' -d order
    check 'faults reset: a GET on a kept connection is repeated' arrives 2 after_one 200 GET '/single/reset-reused?get'
    check 'faults reset: a POST on a kept connection is not' arrives 1 after_one 502 POST '/single/reset-reused?post'
}
