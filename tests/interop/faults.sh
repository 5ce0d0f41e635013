#!/usr/bin/env bash
# Backends that fail in every way, and too much of everything: faults.sh BINARY WORKDIR
#
# Needs curl, openssl and python3, all on loopback, each a process of this script.
# One line for each check, then what was measured and `faults: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
source "$here/trials.sh"
patience=10

binary=$(realpath "${1:?usage: faults.sh BINARY WORKDIR}")
work=${2:?usage: faults.sh BINARY WORKDIR}
rm -rf "$work"
# the gateway watches the folder of its configuration, so what grows is in another one
mkdir -p "$work"/{log,data,keys}
cd "$work"

# --- gateway and backends ---------------------------------------------------------------------------

read -r port admin nobody deaf one two three gone pooled few tls < <(free_ports 11)
backends=([one]=$one [two]=$two [three]=$three [gone]=$gone [pooled]=$pooled [few]=$few [tls]=$tls)
gateway=http://$host:$port
routes=(single telling hasty brief deaf mistaken distrusted trusted named gone pooled some none sick weighed checked busy few)

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
  telling: { servers: ["http://$host:$one"], ejection: { failures: 0 }, interim_responses: pass }
  hasty: { servers: ["http://$host:$one"], ejection: { failures: 0 }, timeout: 300ms, idle_timeout: 300ms }
  brief: { servers: ["http://$host:$one"], ejection: { failures: 0 }, total_timeout: 300ms }
  deaf: { servers: ["http://$host:$deaf"], connect_timeout: 300ms }
  mistaken: { servers: ["https://$host:$one"] }
  distrusted: { servers: ["https://$host:$tls"] }
  trusted: { servers: ["https://$host:$tls"], tls: { trusted_cas: [ca.pem] } }
  named: { servers: ["http://localhost:$one"] }
  gone: { servers: ["http://$host:$gone"], ejection: { failures: 3 } }
  pooled: { servers: ["http://$host:$pooled"], ejection: { failures: 0 } }
  some: { servers: ["http://$host:$two", "http://$host:$nobody", "http://$host:$three"] }
  none: { servers: ["http://$host:$nobody", "http://localhost:$nobody"] }
  sick: { servers: ["http://$host:$two", "http://$host:$three"], ejection: { failures: 3 } }
  weighed: { servers: [{ url: "http://$host:$two", weight: 1 }, { url: "http://$host:$three", weight: 3 }] }
  checked:
    servers: ["http://$host:$two", "http://$host:$three"]
    ejection: { failures: 0 }
    health: { path: /health, interval: 100ms, down_after: 2, up_after: 2 }
  busy: { servers: ["http://$host:$one"], max_requests: 2 }
  few: { servers: ["http://$host:$few"], max_connections: 1 }
routes:
YAML
    for route in "${routes[@]}"; do
        echo "  - { name: $route, path: /$route/*, backend: $route, authorization: none }"
    done >>config.yaml
}

# A server with a full queue: a connection takes the one place that there is.
start_deaf() {
    start log/deaf python3 -c '
import signal, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=0)
queued = socket.create_connection(listening.getsockname())
print("ready", flush=True)
signal.pause()
' "$deaf"
    until_true grep -q ready log/deaf.out
}

up() { [[ $(status "http://$host:$admin/readyz") == 200 ]]; }

# run_gateway LIMITS [DESCRIPTORS]
run_gateway() {
    configure "$1"
    start log/gateway bash -c "ulimit -n ${2:-4096} && exec \"\$@\"" - "$binary" serve --config config.yaml
    process=$!
    until_true up || { tail -n 3 log/gateway.err >&2; exit 1; }
}

stop_gateway() {
    kill -TERM "$process"
    wait "$process"
}

start_all() {
    local name
    certificate backend
    for name in one two three pooled few; do raise "$name"; done
    raise tls backend.pem
    start_deaf
    run_gateway '{ requests: 1000 }'
}

# --- calls ------------------------------------------------------------------------------------------

ask() { curl -sS --max-time 20 "$@"; }

# status URL [OPTION...]: the head and the content of the answer are in files.
status() { ask -D log/head -o log/content -w '%{http_code}' "$@"; }

# answers STATUS TARGET [OPTION...]
answers() {
    local got
    got=$(status "$gateway$2" "${@:3}") || true
    [[ $got == "$1" ]] || { echo "wanted $1, got $got: $(tail -c 300 log/content)"; return 1; }
}

# heads STATUSES TARGET [OPTION...]: of the interim answers and the last one.
heads() {
    local got
    status "$gateway$2" "${@:3}" >log/status || true
    got=$(grep -oE '^HTTP/[0-9.]+ [0-9]+' log/head | cut -d ' ' -f 2 | xargs)
    [[ $got == "$1" ]] || { echo "wanted $1, got $got"; return 1; }
}

hints() { heads "$@" && has 'link: </style.css>; rel=preload' "$(<log/head)"; }

# refuses STATUS CODE TARGET [OPTION...]: the answer is the gateway's own.
refuses() { answers "$1" "${@:3}" && has "\"code\":\"$2\"" "$(<log/content)"; }

# breaks CODES TARGET [OPTION...]: the answer is not whole, which curl says with one of its exit codes.
breaks() {
    local code=0
    ask -o log/content "$gateway$2" "${@:3}" || code=$?
    [[ " $1 " == *" $code "* ]] || { echo "wanted exit code $1, got $code"; return 1; }
}

# arrives TIMES TARGET COMMAND...: the command succeeds, and the target has arrived so often.
arrives() {
    local times
    "${@:3}" || return
    times=$(arrivals "$2" | awk '{ print $1 }')
    [[ $times == "$1" ]] || { echo "arrived ${times:-0} times"; return 1; }
}

# each_once COUNT PATTERN: so many targets have arrived, none of them twice.
each_once() {
    local times
    times=$(arrivals "$2" | awk '{ print $1 }' | sort | uniq -c | xargs)
    [[ $times == "$1 1" ]] || { arrivals "$2" | sort -nr | head; return 1; }
}

# all TARGETS [OPTION...]: calls one after another; log/calls has status and Retry-After of each.
all() { ask -o log/content -w '%{http_code} %header{retry-after}\n' "$gateway$1" "${@:2}" >log/calls || true; }

# at_once TARGETS [OPTION...]: the same, all at once.
at_once() { all "$@" --no-progress-meter --parallel --parallel-immediate --parallel-max 200; }

tally() { cut -d ' ' -f 1 log/calls | sort | uniq -c | awk '{ print $2 ": " $1 }' | paste -sd ' '; }

# tells PATTERN COMMAND...: of the command's calls.
tells() {
    "${@:2}"
    # shellcheck disable=SC2053
    [[ $(tally) == $1 ]] || { echo "wanted $1, got $(tally)"; return 1; }
}

# soon WHAT COMMAND...: measures how long it takes until the command succeeds.
soon() {
    local start
    start=$(milliseconds)
    until_true "${@:2}" || return
    measured "$1" "$(($(milliseconds) - start)) ms"
}

# --- one server -------------------------------------------------------------------------------------

left_out() { answers 503 /gone/itself && has 'retry-after: ' "$(<log/head)"; }

check_gone() {
    judge 'faults gone: a connection is refused' refuses 502 backend_unreachable /gone/itself
    until_true left_out || true
    judge 'faults gone: the server is left out after three failures, with Retry-After' left_out
    raise gone
    judge 'faults gone: calls succeed within a second of its return' \
        within 0 1000 soon 'traffic flows again after' answers 200 /gone/itself -d order
}

# second STATUS TARGET [OPTION...]: of the second call of a connection, for which there is a kept one to the backend.
second() {
    local got
    got=$(ask -o log/content -w '%{http_code} ' "$gateway/single/itself" --next -sS --max-time 20 -o log/content \
        -w '%{http_code}' "$gateway$2" "${@:3}") || true
    [[ $got == "200 $1" ]] || { echo "wanted 200 $1, got $got"; return 1; }
}

check_resets() {
    local new=/single/reset-once kept=/single/reset-reused
    judge 'faults reset: a GET on a new connection is not repeated' arrives 1 "$new?get" answers 502 "$new?get"
    judge 'faults reset: a POST on a new connection is not' arrives 1 "$new?post" answers 502 "$new?post" -d order
    judge 'faults reset: a GET on a kept connection is repeated' arrives 2 "$kept?get" second 200 "$kept?get"
    judge 'faults reset: a POST on a kept connection is not' arrives 1 "$kept?post" second 502 "$kept?post" -d order
    judge 'faults reset: a GET is repeated once' arrives 2 /single/reset?kept second 502 /single/reset?kept
}

check_breaks() {
    local name
    judge 'faults answer: half a head' refuses 502 backend_failed /single/half-head
    judge 'faults answer: half a head, after a POST' \
        arrives 1 /single/half-head?post answers 502 /single/half-head?post -d order
    for name in short endless; do
        judge "faults answer: $name content, over HTTP/1.1" breaks 18 "/single/$name"
        judge "faults answer: $name content, over HTTP/2" breaks 92 "/single/$name" --http2-prior-knowledge
    done
    judge 'faults answer: no HTTP' refuses 502 backend_failed /single/garbage
    judge 'faults answer: a head of 100 MiB' within 0 2000 refuses 502 backend_failed /single/huge-head
    judge 'faults answer: 103 before it' heads 200 /single/early-hints
    judge 'faults answer: 103 before it, to be passed on' hints '103 200' /telling/early-hints
    judge 'faults answer: 103 alone, which is passed on at once' hints 103 /telling/hints-alone --max-time 1
    judge 'faults answer: 103 before it, to HTTP/1.0' heads 200 /telling/early-hints --http1.0
    judge 'faults answer: 103 before it, to HTTP/2' heads 200 /telling/early-hints --http2-prior-knowledge
    judge 'faults answer: 100 before it' heads 200 /telling/continue
    judge 'faults answer: 100 before it, after a POST' heads 200 /telling/continue -d order
    judge 'faults answer: 101 that nobody asked for' refuses 502 backend_failed /single/switching
}

check_times() {
    judge 'faults timeout: silence' within 300 1500 refuses 504 backend_timeout /hasty/silent
    judge 'faults idle_timeout: over HTTP/1.1' within 300 1500 breaks '18 56' /hasty/stalls
    judge 'faults idle_timeout: over HTTP/2' within 300 1500 breaks 92 /hasty/stalls --http2-prior-knowledge
    judge 'faults idle_timeout: a stream that goes on is not cut' breaks 28 /hasty/stream --max-time 1
    judge 'faults total_timeout: silence' within 300 1500 refuses 504 backend_timeout /brief/silent
    judge 'faults total_timeout: a stream, over HTTP/1.1' within 300 1500 breaks '18 56' /brief/stream
    judge 'faults total_timeout: a stream, over HTTP/2' within 300 1500 breaks 92 /brief/stream --http2-prior-knowledge
    judge 'faults connect_timeout: a full queue' within 300 1500 refuses 502 backend_unreachable /deaf/itself
}

check_connections() {
    judge 'faults TLS: the backend does not speak it' refuses 502 backend_unreachable /mistaken/itself
    judge 'faults TLS: a certificate of nobody who is trusted' refuses 502 backend_unreachable /distrusted/itself
    judge 'faults TLS: the same, trusted' answers 200 /trusted/itself
    judge 'faults name: the address that answers is found' answers 200 /named/itself
}

# --- kept connections -------------------------------------------------------------------------------

posts_reach() {
    tells '200: 50' at_once '/pooled/itself?order=[1-50]' -d order && each_once 50 '/pooled/itself?order='
}

# The backend closes each connection without a word, a while before the next call.
closing() {
    tells '200: 10' all '/pooled/closing?order=[1-10]' -d order --rate 1200/m &&
        each_once 10 '/pooled/closing?order='
}

check_pool() {
    judge 'faults pool: 50 calls leave connections behind' tells '200: 50' at_once '/pooled/slow?[1-50]'
    fell pooled
    raise pooled
    judge 'faults pool: after a restart of the backend 50 POSTs arrive, each once' posts_reach
    judge 'faults pool: POSTs after connections that the backend has closed' closing
    judge 'faults pool: GETs while connections are closed' tells '200: 50' all '/pooled/closing?get=[1-50]'
    judge 'faults pool: again 50 calls leave connections behind' tells '200: 50' at_once '/pooled/slow?again=[1-50]'
    become pooled reset-reused
    judge 'faults pool: a GET where all that was kept is reset' answers 200 /pooled/lost
    become pooled itself
}

# --- several servers --------------------------------------------------------------------------------

rest_take_over() {
    tells '200: 60' at_once '/some/itself?order=[1-60]' -d order && each_once 60 '/some/itself?order='
}

# shares LEAST MOST PATTERN: of the calls that begin so, at the second backend.
shares() {
    local count
    count=$(arrivals "$3" two | wc -l)
    (($1 <= count && count <= $2)) || { echo "$count of $(arrivals "$3" | wc -l)"; return 1; }
}

by_weight() { tells '200: 400' all '/weighed/itself?[1-400]' && shares 60 140 '/weighed/itself?'; }

one_alone() { tells '200: 20' all '/checked/itself?[1-20]'; }

# Of some calls each server has its part.
both() {
    local tag=$EPOCHREALTIME
    all "/checked/itself?$tag=[1-20]" && shares 1 19 "/checked/itself?$tag="
}

taken_out() { become three 503 && soon 'health checks take a server out after' one_alone; }
taken_in() { become three itself && soon 'health checks take a server in after' both; }

check_servers() {
    judge 'faults servers: where one of three is away, 60 POSTs arrive, each once' rest_take_over
    judge 'faults servers: weights 1 and 3' by_weight
    become three 503
    judge 'faults servers: one that answers 503 is left out after three answers' \
        tells '200: 37 503: 3' all '/sick/itself?[1-40]'
    become three itself
    judge 'faults servers: a health check takes one out' taken_out
    judge 'faults servers: a health check takes it in again' taken_in
    judge 'faults servers: 200 calls where all are away' \
        within 0 5000 tells '50[23]: *' at_once '/none/itself?[1-200]'
}

# --- bounds -----------------------------------------------------------------------------------------

busy() {
    tells '200: 2 503: 4' at_once '/busy/slow?[1-6]' && grep -q '^503 [1-9]' log/calls && ! grep '^503 $' log/calls
}

# With calls on connections of many threads, the backend for that alone never has more than one connection.
# The open connections to a port, by their local ends.
established() {
    awk -v port=":$(printf '%04X' "$1")" '$4 == "01" && $3 ~ port "$" { print $2 }' /proc/net/tcp | sort
}

# What is there in two looks, one after the other, was there at once: a single look takes its time.
one_connection() {
    local calls most=0 now before='' both
    at_once '/few/itself?[1-200]' &
    calls=$!
    while kill -0 "$calls" 2>/dev/null; do
        now=$(established "$few")
        both=$(comm -12 <(echo "$before") <(echo "$now") | grep -c : || true)
        ((both <= most)) || most=$both
        before=$now
    done
    wait "$calls" && echo "at most $most at once" && ((most <= 1))
}

check_bounds() {
    judge 'faults max_requests: what comes above is refused, with Retry-After' busy
    judge 'faults max_connections: calls wait for the one connection' tells '200: 6' at_once '/few/slow?[1-6]'
    judge 'faults max_connections: there is never another one' one_connection
}

# --- too much ---------------------------------------------------------------------------------------

# Calls are answered or refused at once, and who looks on is served meanwhile.
overloaded() {
    local calls page
    at_once '/single/slow?[1-100]' &
    calls=$!
    while kill -0 "$calls" 2>/dev/null; do
        for page in healthz metrics; do
            ask --fail --max-time 1 -o log/page "http://$host:$admin/$page" || return
        done
    done
    wait "$calls"
    tells '200: * 503: *' true && ! grep '^503 $' log/calls
}

# holding COMMAND...: while a hundred connections are open.
holding() (
    # shellcheck disable=SC2034
    for _ in {1..100}; do exec {each}<>"/dev/tcp/$host/$port"; done
    "$@"
)

out_of_descriptors() { until_true grep -q 'could not be accepted' log/gateway.err && kill -0 "$process"; }

check_overload() {
    judge 'faults overload: of 100 calls some are served, the rest refused with Retry-After' overloaded
    measured 'calls under overload' "$(tally)"
    judge 'faults overload: afterwards all calls succeed' tells '200: 50' all '/single/itself?[1-50]'
}

check_descriptors() {
    judge 'faults descriptors: the gateway goes on without any' holding out_of_descriptors
    judge 'faults descriptors: it serves within two seconds of their return' \
        within 0 2000 soon 'with descriptors again calls succeed after' answers 200 /single/itself
}

start_all
check_gone
check_resets
check_breaks
check_times
check_connections
check_pool
check_servers
check_bounds
stop_gateway
run_gateway '{ requests: 20 }'
check_overload
stop_gateway
run_gateway '{}' 64
check_descriptors
conclude faults
