#!/usr/bin/env bash
# What goes through the gateway besides plain calls, and how: protocols.sh BINARY WORKDIR PYTHON
#
# Needs curl, openssl and a PYTHON with what requirements.txt names, all on loopback, each a process of this script.
# One line for each check and, last, `protocols: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

usage='usage: protocols.sh BINARY WORKDIR PYTHON'
binary=$(realpath "${1:?$usage}")
work=${2:?$usage}
python=${3:?$usage}
rm -rf "$work"
# the gateway watches the folder of its configuration, so what grows is in another one
mkdir -p "$work"/{log,certs,ca}
cd "$work"

# --- certificates -----------------------------------------------------------------------------------

new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
moment() { date -u -d "$1" +%Y%m%d%H%M%SZ; }

authority() {
    openssl req -x509 $new -days 30 -subj "/CN=ca of the backends" -keyout "ca/$1-key.pem" -out "ca/$1.pem" \
        -addext keyUsage=critical,keyCertSign
}

# mint NAME CA USAGE SUBJECT-ALTERNATIVE-NAME [FROM UNTIL]: certs/NAME.pem, its key within.
mint() {
    openssl req -new $new -subj "/CN=$1" -addext "subjectAltName=$4" -addext "extendedKeyUsage=$3" \
        -addext basicConstraints=critical,CA:FALSE -keyout "certs/$1-key.pem" -out "ca/$1.csr"
    openssl ca -batch -notext -config ca/openssl.cnf -cert "ca/$2.pem" -keyfile "ca/$2-key.pem" -in "ca/$1.csr" \
        -startdate "$(moment "${5:--1 hour}")" -enddate "$(moment "${6:-+30 days}")" -out "certs/$1.pem"
    cat "certs/$1-key.pem" >>"certs/$1.pem"
}

# The stranger's CA has the name of ours, and another key.
certificates() {
    cat >ca/openssl.cnf <<CNF
[ca]
default_ca = this
[this]
database = ca/index
new_certs_dir = ca
default_md = sha256
rand_serial = yes
unique_subject = no
copy_extensions = copy
policy = any
[any]
commonName = supplied
CNF
    : >ca/index
    authority backends
    authority stranger
    mint backend backends serverAuth "IP:$host"
    mint internal backends serverAuth DNS:orders.internal
    mint foreign stranger serverAuth "IP:$host"
    mint expired backends serverAuth "IP:$host" '-2 days' '-1 day'
    mint gateway backends clientAuth DNS:gateway
    mint orders backends serverAuth DNS:orders.example.com
    mint wild backends serverAuth 'DNS:*.example.org'
}

# --- gateway and backends ---------------------------------------------------------------------------

read -r tls plain admin http1 h2c few strict secure secure1 mutual internal foreign expired tunnels tunnels_tls grpc \
    < <(free_ports 16)
gateway=https://localhost:$tls

# backend NAME PORT [SETTINGS]: over TLS, by an address that only the tested certificates may vouch for.
backend() { echo "  $1: { servers: [\"https://$host:$2\"], ${3:-tls: { $ours \}} }"; }
open_routes() { printf '  - { name: %s, path: /open/%s/*, backend: %s, authorization: none }\n' "${@/*/& & &}"; }

configure() {
    local ours='trusted_cas: [ca/backends.pem]' each
    cat >config.yaml <<YAML
public_url: $gateway
listeners:
  - address: "$host:$tls"
    tls:
      certificate: certs/server.pem
      key: certs/server-key.pem
      certificates:
        - { certificate: certs/orders.pem, key: certs/orders-key.pem }
        - { certificate: certs/wild.pem, key: certs/wild-key.pem }
  - { address: "$host:$plain" }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
backends:
  http1: { servers: ["http://$host:$http1"] }
  h2c: { servers: ["http://$host:$h2c"], protocol: http2 }
  few: { servers: ["http://$host:$few"], protocol: http2, timeout: 10s }
  tunnels: { servers: ["http://$host:$tunnels"] }
  tunnels_idle: { servers: ["http://$host:$tunnels"], idle_timeout: 1s }
  grpc: { servers: ["http://$host:$grpc"], protocol: http2 }
$(
    backend secure "$secure" "tls: { $ours }"
    backend secure_h2 "$secure" "tls: { $ours }, protocol: http2"
    backend negotiated "$secure" "tls: { $ours }, protocol: auto"
    backend negotiated1 "$secure1" "tls: { $ours }, protocol: auto"
    backend strict "$strict" "tls: { $ours }, protocol: auto, timeout: 10s"
    backend mutual "$mutual" "tls: { $ours, certificate: certs/gateway.pem, key: certs/gateway-key.pem }"
    backend shy "$mutual" "tls: { $ours }"
    backend internal "$internal" "tls: { $ours, server_name: orders.internal }"
    backend misnamed "$internal" "tls: { $ours }"
    backend foreign "$foreign" "tls: { $ours }"
    backend expired "$expired" "tls: { $ours }"
    backend tunnels_tls "$tunnels_tls" "tls: { $ours }, protocol: auto"
)
routes:
$(
    for each in http1 h2c few secure secure_h2 negotiated negotiated1 strict mutual shy internal misnamed foreign expired; do
        echo "  - { name: $each, path: /open/$each/*, backend: $each, authorization: none }"
    done
)
  - { name: slow, path: /slow/*, backend: http1, authorization: none, body_gap: 1s }
  - { name: orders, path: /orders/*, backend: http1 }
  - { name: grpc, path: /interop.Calls/*, backend: grpc }
  - { name: ws, path: /ws/*, backend: tunnels }
  - { name: ws-stay, path: /ws-stay/*, backend: tunnels, websocket: stay }
  - { name: ws-refuse, path: /ws-refuse/*, backend: http1, websocket: refuse }
  - { name: ws-idle, path: /ws-idle/*, backend: tunnels_idle }
  - { name: ws-tls, path: /ws-tls/*, backend: tunnels_tls }
YAML
}
