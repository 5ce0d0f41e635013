#!/usr/bin/env bash
# The examples of deploy/, as far as they can be tried without a cluster: deploy.sh BINARY WORKDIR [PYTHON]
#
# Needs curl and openssl; systemd-analyze, systemd-socket-activate and PyYAML (of PYTHON, else python3) are
# used where they are. Run as root, the gateway is the user of the container image. One line for each check
# and, last, `deploy: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

binary=$(realpath "${1:?usage: deploy.sh BINARY WORKDIR [PYTHON]}")
work=${2:?usage: deploy.sh BINARY WORKDIR [PYTHON]}
python=${3:-python3}
examples=$(cd "$here/../../deploy" && pwd)
rm -rf "$work"
mkdir -p "$work/units" "$work/log"
cd "$work"

# another user may not get into WORKDIR, which is often below a private folder
place=$(mktemp -d)
trap 'kill "${processes[@]}" 2>/dev/null || true; wait || true; rm -rf "$place"' EXIT

have() { command -v "$1" >/dev/null 2>&1; }

# --- units ------------------------------------------------------------------------------------------

# The program must be there, and what is older than systemd 253 does not know notify-reload.
copy_units() {
    local type=notify-reload
    (($(systemd-analyze --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') >= 253)) || type=notify
    sed -e "s|^ExecStart=[^ ]*|ExecStart=$binary|" -e "s|^Type=.*|Type=$type|" \
        "$examples/flowgate.service" >units/flowgate.service
    cp "$examples/flowgate.socket" units
}

# Warnings count, which the exit code leaves out.
units_pass() {
    local said
    said=$(systemd-analyze verify --man=no "$PWD"/units/* 2>&1) || said+=' (failed)'
    [[ -z $said ]] || { echo "$said"; return 1; }
}

# --- manifest ---------------------------------------------------------------------------------------

manifest_fits() {
    "$python" - "$examples/kubernetes.yaml" <<'PYTHON'
import sys
import yaml

with open(sys.argv[1]) as file:
    parts = {each["kind"]: each for each in yaml.safe_load_all(file)}
stateful = parts["StatefulSet"]["spec"]
pod = stateful["template"]["spec"]
drain = yaml.safe_load(parts["ConfigMap"]["data"]["config.yaml"])["limits"]["drain_time"]
assert stateful["replicas"] == 1, "one process serves a store"
assert pod["terminationGracePeriodSeconds"] > int(drain.removesuffix("s")), "the drain would be cut off"
PYTHON
}

# The ConfigMap's file with addresses and state of our own, and beside it what the pod has from its Secrets.
make_place() {
    read -r port admin < <(free_ports 2)
    mkdir -p "$place/etc/tls" "$place/etc/keys" "$place/state"
    cp "$binary" "$place/flowgate"
    awk '/^---/ { inside = 0 } inside { print substr($0, 5) } /^  config\.yaml: \|$/ { inside = 1 }' \
        "$examples/kubernetes.yaml" |
        sed -e "s|0\.0\.0\.0:8443|$host:$port|" -e "s|0\.0\.0\.0:8444|$host:$admin|" \
            -e "s|/var/lib/flowgate|$place/state|" >"$place/etc/config.yaml"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$place/etc/tls/tls.key" -out "$place/etc/tls/tls.crt" 2>log/openssl
    openssl rand -base64 32 >"$place/etc/keys/master.key"
    find "$place" -type d -exec chmod 755 {} +
    find "$place/etc" -type f -exec chmod 440 {} +
    chmod 700 "$place/state"
    service=()
    if [[ $(id -u) == 0 ]]; then
        chown -R 0:65532 "$place/etc"
        chown 65532:65532 "$place/state"
        service=(setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs)
    fi
    gateway=("${service[@]}" "$place/flowgate" serve --config "$place/etc/config.yaml")
}

config_passes() { "${service[@]}" "$place/flowgate" check --config "$place/etc/config.yaml"; }

ready() { [[ $(curl -sS --max-time 5 -w '%{http_code}' "http://$host:$admin/readyz") == ready*200 ]]; }
answers() {
    has 401 "$(curl -sS --max-time 20 --cacert "$place/etc/tls/tls.crt" -o log/answer -w '%{http_code}' \
        "https://localhost:$port/http/orders/1")"
}
runs_as() { has $'\nUid:\t65532\t65532\t65532\t65532' "$(cat "/proc/$1/status")"; }
writes_state_alone() {
    has "$place/state" "$("${service[@]}" find "$place" -writable -print -prune)" || return
    ! "${service[@]}" find "$place" -path "$place/state" -prune -o -writable -print | grep .
}

# stop ID: with the signal that systemd and Kubernetes send; `ended` is how it went.
stop() {
    ended=0
    kill -TERM "$1" || true
    wait "$1" || ended=$?
}

# --- the checks -------------------------------------------------------------------------------------

check_units() {
    copy_units
    check 'deploy units: systemd-analyze verify' units_pass
}

check_config() {
    check 'deploy config: flowgate check' config_passes
    start log/gateway "${gateway[@]}"
    process=$!
    check 'deploy config: the gateway becomes ready' until_true ready
    check 'deploy config: it answers callers' answers
    if ((${#service[@]})); then
        check 'deploy config: it is user 65532' runs_as "$process"
        check 'deploy config: its state is all that it can write' writes_state_alone
    fi
    stop "$process"
    check 'deploy config: SIGTERM ends it' test "$ended" = 0
}

# Before the first call there is no gateway, so that only the socket that waits can have taken it.
check_socket() {
    start log/socket systemd-socket-activate -l "$host:$port" "${gateway[@]}"
    process=$!
    until_true grep -q 'Listening on' log/socket.err || true
    check 'deploy socket: a call that came before the gateway' answers
    check 'deploy socket: the gateway becomes ready' until_true ready
    stop "$process"
    check 'deploy socket: SIGTERM ends it' test "$ended" = 0
}

check_all() {
    if have systemd-analyze; then check_units; fi
    if "$python" -c 'import yaml' 2>/dev/null; then check 'deploy kubernetes: the manifest parses and fits' manifest_fits; fi
    check_config
    if have systemd-socket-activate; then check_socket; fi
}

make_place
# not through a pipe: the processes must be this shell's, which ends them
check_all >results
cat results
echo "deploy: $(grep -c '^ok ' results || true) passed, $(grep -c '^not ok ' results || true) failed"
