#!/usr/bin/env bash
# A gateway that restarts, drains and reloads: restart.sh BINARY WORKDIR
#
# Needs curl, openssl and python3, all on loopback, each a process of this script.
# One line for each check, then what was measured and `restart: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
source "$here/trials.sh"
patience=15

binary=$(realpath "${1:?usage: restart.sh BINARY WORKDIR}")
work=${2:?usage: restart.sh BINARY WORKDIR}
rm -rf "$work"
# the gateway watches the folders of what it is configured with, so what grows is in another one
mkdir -p "$work"/{log,data,keys,first,second,secured,ten,five}
cd "$work"

# --- gateway, its manager and a backend -------------------------------------------------------------

read -r port tls admin extra backend < <(free_ports 5)
backends=([backend]=$backend)
gateway=http://$host:$port
drain=2000
secure="{ certificate: $PWD/gateway.pem, key: $PWD/gateway.pem }"

# configure FOLDER LISTENER BACKEND CONNECTIONS: in those the configurations differ.
configure() {
    cat >"$1/config.yaml" <<YAML
public_url: $gateway
listeners:
  - { address: "$host:$port" }
  - { address: "$host:$tls", tls: $secure }
  $2
admin: { address: "$host:$admin" }
store: { url: "sqlite:$PWD/data/flowgate.db", master_key: "\${file:$PWD/keys/master.key}" }
limits: { drain_time: ${drain}ms, connections: $4 }
backends:
  backend: { servers: ["http://$host:$backend"], $3 }
routes:
  - { name: open, path: /open/*, backend: backend, authorization: none }
YAML
}

ready() { grep -c ^READY=1 log/manager; }
gateway_id() { sed -n 's/^started //p' log/manager | tail -n 1; }

start_all() {
    certificate gateway
    configure first '' 'timeout: 10s' 1000
    configure second "- { address: \"$host:$extra\" }" 'health: { path: /health, interval: 100ms }' 500
    configure secured "- { address: \"$host:$extra\", tls: $secure }" 'timeout: 10s' 1000
    configure ten '' 'timeout: 10s' 10
    configure five '' 'timeout: 10s' 5
    ln -s first live
    raise backend
    start log/gateway python3 "$here/manager.py" log/manager "$PWD/manager.socket" "$port" "$tls" "$admin" -- \
        "$binary" serve --config live/config.yaml
    until_true ready || { tail -n 3 log/gateway.err >&2; exit 1; }
}

# more COUNT COMMAND...: what the command counts has become more than that.
more() { (($("${@:2}") > $1)); }

# again COMMAND...: after which the gateway is ready another time, whatever came of the command.
again() {
    local before status=0
    before=$(ready)
    "$@" || status=$?
    until_true more "$before" ready && return "$status"
}

terminate() { kill -TERM "$(gateway_id)"; }
ask() { curl -sS --max-time 20 "$@"; }
clients() { python3 "$here/restart.py" "$@"; }

# --- restarts under load ----------------------------------------------------------------------------

arrived() { wc -l <log/journal; }
calls_go_on() { until_true more $(($(arrived) + 200)) arrived; }

restart_under_load() {
    local each start callers
    start log/load python3 "$here/restart.py" load "$port" "$tls" ca.pem
    callers=$!
    for each in 1 2 3; do
        calls_go_on
        start=$(milliseconds)
        again terminate
        measured "restart $each took" "$(($(milliseconds) - start)) ms"
    done
    calls_go_on
    kill -TERM "$callers"
    wait "$callers" || true
    measured 'calls during three restarts' "$(awk '/^calls/ { sum += $2 } END { print sum }' log/load.out)"
    measured 'of these failed' "$(awk '/^failed/ { sum += $2 } END { print sum + 0 }' log/load.out)"
}

none_failed() { grep -q ^calls log/load.out && ! grep -hv ^calls log/load.*; }

# No restart takes long where nothing is under way that does.
each_quick() { ! grep -E 'restart . took: [0-9]{4,} ms' log/measured; }

queued() {
    local answers
    answers=$(clients queued "$(gateway_id)" "$port" log/manager)
    [[ $answers == '100 HTTP/1.1 200 OK' ]] || { echo "$answers"; return 1; }
}

# late PORT [CA]: a call that comes after the signal, on a connection from before it.
late() { has 'HTTP/1.1 200 OK' "$(clients late "$(gateway_id)" "$@")"; }

ended_well() { [[ $(grep -c '^ended 0$' log/manager) == 3 ]] && ! grep '^ended [^0]' log/manager; }

check_restarts() {
    judge 'restart load: not one call fails while the gateway is restarted three times' none_failed
    judge 'restart load: it ends by itself each time' ended_well
    judge 'restart load: each restart takes less than a second' each_quick
    judge 'restart load: a hundred calls wait for the next process, and are answered' again queued
    judge 'restart load: a connection from before the signal, whose call comes after it' again late "$port"
    judge 'restart load: the same, whose handshake comes after it' again late "$tls" ca.pem
}

# --- drain ------------------------------------------------------------------------------------------

is_draining() { [[ $(ask -o log/readyz -w '%{http_code}' "http://$host:$admin/readyz") == 503 ]]; }

# A slow answer, one that never comes and a tunnel are under way when the signal comes.
drain_once() {
    local slow silent opened
    ask "$gateway/open/slow" -o log/slow-content -w '%{http_code}' >log/slow &
    slow=$!
    ask "$gateway/open/silent" >log/silent 2>&1 &
    silent=$!
    until_true grep -q /open/silent log/journal
    clients tunnel "$(gateway_id)" "$port" >log/tunnel 2>&1 &
    opened=$!
    judge 'restart drain: it is not ready meanwhile' until_true is_draining
    wait "$slow" "$silent" "$opened" || true
}

# lasted FILE: so many milliseconds, which are the drain time.
lasted() {
    local taken
    taken=$(<"log/$1")
    ((drain - 200 <= taken && taken <= drain + 500)) || { echo "$taken ms"; return 1; }
}

goaway() {
    local errors
    errors=$(clients goaway "$(gateway_id)" "$port") || return
    [[ $errors =~ ^0( 0)?$ ]] || { echo "got $errors"; return 1; }
}

check_drain() {
    again drain_once
    judge 'restart drain: a slow answer that is under way is finished' has 200 "$(<log/slow)"
    judge 'restart drain: a tunnel goes on, until the drain time has passed' lasted tunnel
    judge 'restart drain: an answer that does not come is cut off' has 'curl: (52)' "$(<log/silent)"
    judge 'restart drain: an HTTP/2 client gets GOAWAY, and no error' again goaway
}

# --- what the manager is told -----------------------------------------------------------------------

# told WHAT...: those lines follow one another, not counting what is told every few seconds.
told() {
    local last
    last=$(grep -v ^WATCHDOG=1 log/manager | cut -d ' ' -f 1 | tail -n $# | paste -sd ' ')
    [[ $last == "$*" ]] || { echo "got $last"; return 1; }
}

# by_clock: a reload is told with its time, which was a moment ago.
by_clock() {
    local told now
    told=$(sed -n 's/^RELOADING=1 MONOTONIC_USEC=//p' log/manager | tail -n 1)
    now=$(python3 -c 'import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)')
    ((now - 10000000 < told && told <= now)) || { echo "told $told at $now"; return 1; }
}

hang_up() { kill -HUP "$(gateway_id)"; }

check_notices() {
    judge 'restart sd_notify: it is stopping, and another one is ready' again terminate
    judge 'restart sd_notify: in this order' told STOPPING=1 ended started READY=1
    judge 'restart sd_notify: it is ready after a reload' again hang_up
    judge 'restart sd_notify: which was told before' told READY=1 RELOADING=1 READY=1
    judge 'restart sd_notify: with its time' by_clock
    judge 'restart sd_notify: it is alive' until_true grep -q ^WATCHDOG=1 log/manager
}

# --- reloads ----------------------------------------------------------------------------------------

reload_often() { clients reloads "$(gateway_id)" log/manager "$extra" first second >log/reloads; }
none_refused() { ! grep 'not reloaded' log/gateway.err; }

# reload_with FOLDER
reload_with() {
    ln -sfn "$1" live
    again hang_up
}

serves() { ask --fail --cacert ca.pem -o log/content "$1://$host:$extra/open/itself"; }
becomes_secure() { reload_with second && serves http && reload_with secured && serves https; }

# While eight of ten connections are open, no more than five are allowed, and then again ten.
bounded_meanwhile() (
    for _ in {1..8}; do exec {each}<>"/dev/tcp/$host/$port"; done
    reload_with five && reload_with ten
)

bound_holds() {
    local served
    reload_with ten && bounded_meanwhile || return
    served=$(clients served "$port" 20)
    ((served == 10)) || { echo "$served connections are served"; return 1; }
}

# grows MOST COLUMN: by no more, from the first line to the last.
grows() {
    awk -v most="$1" -v column="$2" '
        { last = $column; if (NR == 1) first = last }
        END { print first " to " last; exit NR < 2 || last - first > most }' log/reloads
}

check_reloads() {
    local start
    start=$(milliseconds)
    judge 'restart reloads: a thousand are taken' reload_often
    measured 'a thousand reloads took' "$(($(milliseconds) - start)) ms"
    measured 'KiB of memory, threads and descriptors after 200 and 1,000' "$(paste -sd , log/reloads)"
    judge 'restart reloads: none was refused' none_refused
    judge 'restart reloads: memory grows by less than 10 MiB' grows 10239 1
    judge 'restart reloads: there are as many threads as before' grows 0 2
    judge 'restart reloads: there are as many descriptors as before' grows 0 3
    judge 'restart reloads: a listener becomes one with TLS' becomes_secure
    judge 'restart reloads: a bound on connections that was lower while they were open' bound_holds
}

start_all
restart_under_load
check_restarts
check_drain
check_notices
check_reloads
conclude restart
