#!/usr/bin/env bash
# Mixed load while backends come and go and the configuration changes: endurance.sh BINARY WORKDIR [SECONDS=30]
#
# Needs curl and python3 and, for HTTP/2, h2load; all on loopback, each a process of this script.
# One line for each check, then what was measured and `endurance: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
source "$here/trials.sh"
patience=20

binary=$(realpath "${1:?usage: endurance.sh BINARY WORKDIR [SECONDS]}")
work=${2:?usage: endurance.sh BINARY WORKDIR [SECONDS]}
seconds=${3:-30}
((seconds >= 10)) || { echo 'endurance: it takes ten seconds to see anything grow' >&2; exit 1; }
rm -rf "$work"
# the gateway watches the folder of its configuration, so what grows is in another one
mkdir -p "$work/log"
cd "$work"

# --- gateway and backends ---------------------------------------------------------------------------

read -r port tls admin one two steady < <(free_ports 6)
backends=([one]=$one [two]=$two [steady]=$steady)

# configure WEIGHT: of the backend that is killed now and again. The file is replaced in one step.
configure() {
    cat >next.yaml <<YAML
public_url: https://localhost:$tls
listeners:
  - { address: "$host:$port" }
  - { address: "$host:$tls", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
backends:
  pair:
    servers: [{ url: "http://$host:$one", weight: $1 }, "http://$host:$two"]
    ejection: { time: 1s }
  steady: { servers: ["http://$host:$steady"] }
routes:
  - { name: open, path: /open/*, backend: pair, authorization: none }
  - { name: closed, path: /closed/*, backend: pair }
  - { name: steady, path: /steady/*, backend: steady, authorization: none }
YAML
    mv next.yaml config.yaml
}

up() { curl -sSf --max-time 5 -o log/up "http://$host:$port/open/up"; }

# The demo makes certificates, keys and a client.
start_all() {
    local name
    configure 1
    for name in one two steady; do raise "$name"; done
    start log/gateway "$binary" demo --dir .
    process=$!
    until_true up || { tail -n 3 log/gateway.err >&2; exit 1; }
}

# --- load and trouble -------------------------------------------------------------------------------

start_load() {
    : >log/kills
    start log/calls python3 "$here/endurance.py" "$port" "$tls" certs/ca.pem keys/demo-sender.json log/kills log/journal
    callers=$!
    if command -v h2load >/dev/null; then
        start log/h2load h2load --duration "$((seconds - 1))" --clients 2 --max-concurrent-streams 4 --rps 25 \
            "https://$host:$tls/open/itself"
    fi
}

stop_load() {
    kill -TERM "$callers"
    wait "$callers" || true
}

kill_one() {
    echo "$EPOCHREALTIME" >>log/kills
    fell one
}

reload() {
    configure "$1"
    kill -HUP "$process"
}

# Resident memory in KiB, and descriptors.
sample() {
    local descriptors=("/proc/$process/fd/"*)
    echo "$(awk '/^VmRSS:/ { print $2 }' "/proc/$process/status") ${#descriptors[@]}"
}

half_a_second() { read -rt 0.5 <> <(:) || true; }

# Twice a second another configuration; every four seconds a backend dies, and is back a second later.
trouble() {
    local tick
    for ((tick = 0; tick < 2 * seconds; tick++)); do
        reload $((1 + tick % 2))
        case $((tick % 8)) in
            3) kill_one ;;
            5) raise one ;;
        esac
        sample >>log/samples
        half_a_second
    done
}

# --- the checks -------------------------------------------------------------------------------------

# none WORD: no line of the callers begins so, and they have come to their end.
none() {
    grep -q ^calls log/calls.out || { cat log/calls.err; return 1; }
    ! grep "^$1" log/calls.out
}

none_refused() { ! grep 'not reloaded' log/gateway.err; }

over_http2() {
    has ' 0 failed, 0 errored, 0 timeout' "$(grep ^requests: log/h2load.out)" &&
        has ' 0 3xx, 0 4xx, 0 5xx' "$(grep '^status codes:' log/h2load.out)"
}

# at COLUMN PART: the mean of a column of the samples, over the last tenth of so many thirds of them.
at() {
    awk -v column="$1" -v part="$2" '{ value[NR] = $column } END {
        end = int(NR * part / 3); begin = end - int(NR / 10)
        for (i = begin + 1; i <= end; i++) sum += value[i]
        printf "%d", sum / (end - begin) }' log/samples
}

# grows WHAT MOST COLUMN: by no more, after a warm-up of a third of the time.
grows() {
    local from to
    from=$(at "$3" 1)
    to=$(at "$3" 3)
    measured "$1 after the warm-up and at the end" "$from, $to"
    ((to - from <= $2)) || { echo "$from to $to"; return 1; }
}

check_all() {
    judge 'endurance: no call fails but what was under way at the backend that was killed' none failed
    judge 'endurance: no POST arrives twice' none repeated
    if [[ -e log/h2load.out ]]; then
        judge 'endurance: no call over HTTP/2 fails' over_http2
    fi
    judge 'endurance: no configuration was refused' none_refused
    judge 'endurance: memory grows by less than 8 MiB' grows 'KiB of memory' 8191 1
    judge 'endurance: descriptors grow by less than ten' grows 'descriptors' 9 2
}

measure() {
    local count kind
    while read -r _ count kind; do measured "$kind" "$count"; done < <(grep ^calls log/calls.out)
    measured 'failed calls' "$(grep -c ^failed log/calls.out || true)"
    measured 'POSTs under way at a backend that was killed, which failed' "$(grep -c ^excused log/calls.out || true)"
    measured 'times that a backend was killed' "$(wc -l <log/kills)"
    measured 'configurations taken' "$(grep -c 'configuration reloaded' log/gateway.err || true)"
}

start_all
start_load
trouble
stop_load
check_all
measure
conclude endurance
