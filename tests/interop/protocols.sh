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

read -r tls plain admin http1 h2c few few_tls secure old mutual internal foreign expired ws ws_tls grpc \
    < <(free_ports 16)
gateway=https://localhost:$tls

configure() {
    local ours='trusted_cas: [ca/backends.pem]' steady='timeout: 5s, ejection: { failures: 0 }' each
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
  few: { servers: ["http://$host:$few"], protocol: http2, $steady }
  few_auto: { servers: ["https://$host:$few_tls"], protocol: auto, $steady, tls: { $ours } }
  secure: { servers: ["https://$host:$secure"], tls: { $ours } }
  secure_h2: { servers: ["https://$host:$secure"], protocol: http2, tls: { $ours } }
  auto: { servers: ["https://$host:$secure"], protocol: auto, tls: { $ours } }
  auto_old: { servers: ["https://$host:$old"], protocol: auto, tls: { $ours } }
  mutual:
    servers: ["https://$host:$mutual"]
    tls: { $ours, certificate: certs/gateway.pem, key: certs/gateway-key.pem }
  shy: { servers: ["https://$host:$mutual"], tls: { $ours } }
  internal: { servers: ["https://$host:$internal"], tls: { $ours, server_name: orders.internal } }
  misnamed: { servers: ["https://$host:$internal"], tls: { $ours } }
  foreign: { servers: ["https://$host:$foreign"], tls: { $ours } }
  expired: { servers: ["https://$host:$expired"], tls: { $ours } }
  grpc: { servers: ["http://$host:$grpc"], protocol: http2 }
  ws: { servers: ["http://$host:$ws"] }
  ws_idle: { servers: ["http://$host:$ws"], idle_timeout: 1s }
  ws_tls: { servers: ["https://$host:$ws_tls"], protocol: auto, tls: { $ours } }
routes:
$(
    for each in http1 h2c few few_auto secure secure_h2 auto auto_old mutual shy internal misnamed foreign expired; do
        echo "  - { name: $each, path: /open/$each/*, backend: $each, authorization: none }"
    done
)
  - { name: slow, path: /slow/*, backend: http1, authorization: none, body_gap: 1s }
  - { name: orders, path: /orders/*, backend: http1 }
  - { name: grpc, path: /interop.Calls/*, backend: grpc }
  - { name: ws, path: /ws/*, backend: ws }
  - { name: ws-stay, path: /ws-stay/*, backend: ws, websocket: stay }
  - { name: ws-refuse, path: /ws-refuse/*, backend: http1, websocket: refuse }
  - { name: ws-idle, path: /ws-idle/*, backend: ws_idle }
  - { name: ws-tls, path: /ws-tls/*, backend: ws_tls }
YAML
}

flowgate() { "$binary" "$@" --config config.yaml; }
get() { curl -sS --cacert certs/ca.pem --max-time 20 "$@"; }
up() { get --fail -o /dev/null "$gateway/open/http1/up"; }
# ask PROGRAM CHECK ARGUMENT...
ask() { local program=$1; shift; "$python" "$here/$program.py" "$@"; }

start_all() {
    local each
    configure
    # the programs share modules, which are not to leave anything beside the sources
    export PYTHONDONTWRITEBYTECODE=1
    export TLS_PORT=$tls PLAIN_PORT=$plain
    start log/origins "$python" "$here/origins.py" "http1:$http1:http/1.1" "h2c:$h2c:h2" "few:$few:h2" \
        "few_tls:$few_tls:h2,http/1.1:certs/backend.pem" "secure:$secure:h2,http/1.1:certs/backend.pem" \
        "old:$old:http/1.1:certs/backend.pem" "mutual:$mutual:http/1.1:certs/backend.pem:ca/backends.pem" \
        "internal:$internal:http/1.1:certs/internal.pem" "foreign:$foreign:http/1.1:certs/foreign.pem" \
        "expired:$expired:http/1.1:certs/expired.pem"
    start log/ws "$python" "$here/tunnels.py" serve "$ws"
    start log/ws_tls "$python" "$here/tunnels.py" serve "$ws_tls" certs/backend.pem
    start log/grpc "$python" "$here/grpc_calls.py" serve "$grpc"
    for each in origins ws ws_tls grpc; do
        until_true grep -q ready "log/$each.out"
    done
    start log/gateway "$binary" demo --dir .
    until_true up || { tail -n 3 log/gateway.err >&2; exit 1; }
    flowgate instance create visitor --roles ESBMessaging.send >>log/commands
    flowgate key create visitor first >keys/visitor.json
}

# --- what is expected -------------------------------------------------------------------------------

# noted TEXT: the backends' notes that have it.
noted() { grep -F "$1" log/journal || true; }

# unseen TARGET [EVENT]: no request came to a backend whose target begins so, or none to its end.
unseen() {
    local seen
    seen=$(noted "\"event\": \"${2:-request}\", \"target\": \"$1")
    [[ -z $seen ]] || { echo "the backend has seen it: $seen"; return 1; }
}

# reaches BACKEND PROTOCOL ROUTE: the call arrives at this backend in this protocol.
reaches() {
    local answer
    answer=$(get --fail --data order "$gateway/open/$3/reached") &&
        has "\"backend\": \"$1\", \"protocol\": \"$2\", \"method\": \"POST\", \"length\": 5" "$answer"
}

# distrusted ROUTE: the backend is not to be believed, so that it is told nothing.
distrusted() {
    local status
    status=$(get -o /dev/null -w '%{http_code}' "$gateway/open/$1/distrusted")
    [[ $status == 502 ]] || { echo "got $status"; return 1; }
    unseen "/open/$1/distrusted"
}

# gathers ROUTE BACKEND OPTION...: fifty calls at once, none of which ends before all are there, on many connections.
gathers() {
    local route=$1 backend=$2 statuses connections
    shift 2
    statuses=$(get --parallel --parallel-max 50 -o /dev/null -w '%{http_code}\n' "$@" \
        "$gateway/open/$route/[1-50]/gather?50" 2>/dev/null | sort | uniq -c | xargs)
    [[ $statuses == '50 200' ]] || { echo "of 50 calls: $statuses"; return 1; }
    connections=$(noted "\"backend\": \"$backend\", \"event\": \"connection\"" | wc -l)
    ((connections >= 10)) || { echo "$connections connections for 50 streams, 5 on each"; return 1; }
}

# raw REQUESTS: what comes back on one connection until it is closed. All is sent in one piece, as no line of it may
# come when the connection is closed already.
raw() {
    exec 3<>"/dev/tcp/$host/$plain"
    printf '%b' "$1" >log/raw
    cat log/raw >&3
    timeout 5 cat <&3 || { (($? != 124)) || echo 'the connection stays open'; }
}

# ends STATUS TARGET REQUEST: one answer, after which the connection is closed. In the request @ stands for the target,
# and what follows it is another one, which never gets through.
ends() {
    local answer
    answer=$(raw "${3//@/$2}GET $2/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    [[ $answer == "HTTP/1.1 $1 "* && $answer != HTTP*HTTP/1.1* && $answer != *'stays open' ]] ||
        { echo "wanted $1, got: $answer"; return 1; }
    unseen "$2/smuggled"
}

refused() { ends "$@" && unseen "$2"; }
# The head may have got through by the time that the body breaks.
broken() { ends "$@" && unseen "$2" end; }

# curl's statuses of an exchange: 100 too, if there was one.
statuses() {
    get -i --http1.1 --expect100-timeout 10 --header "Expect: $1" --data order "${@:2}" |
        sed -n 's|^HTTP/1.1 \([0-9]*\).*|\1|p' | xargs
}
expects() { local got; got=$(statuses "${@:2}"); [[ $got =~ ^($1)$ ]] || { echo "got $got"; return 1; }; }
unexpected() { expects 401 100-continue "$gateway/orders/unexpected" && unseen /orders/unexpected; }

uploads() {
    head -c 300000 /dev/urandom >log/upload
    has '"length": 300000' "$(get --http1.1 --header 'Transfer-Encoding: chunked' --data-binary @log/upload "$1")"
}

# Two calls of HTTP/1.0 share a connection.
kept() {
    local opened
    opened=$(get --http1.0 --header 'Connection: keep-alive' -o /dev/null -w '%{http_code} %{num_connects} ' \
        "http://$host:$plain/open/http1/kept" -o /dev/null "http://$host:$plain/open/http1/kept")
    [[ $opened == '200 1 200 0 ' ]] || { echo "statuses and new connections: $opened"; return 1; }
}

# There are no chunks in HTTP/1.0 (RFC 9112, 6.1).
unchunked() {
    local answer
    answer=$(raw 'GET /open/http1/stream HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n')
    [[ $answer == HTTP/1.?' 200 '*$'\r\n\r\none, two' && ${answer,,} != *chunked* ]] || { echo "$answer"; return 1; }
}

# It is HTTP/1.1 that asks for Host (RFC 9112, 3.2).
hostless() { has '200 OK' "$(raw 'GET /open/http1/hostless HTTP/1.0\r\n\r\n')"; }

# The fourth of them is refused.
pipelined() {
    local at=/open/http1 head='HTTP/1.1\r\nHost: a\r\n' requests answers wanted
    requests="GET $at/1 $head\r\n"
    requests+="POST $at/2 ${head}Content-Length: 5\r\n\r\norder"
    requests+="POST $at/3 ${head}Transfer-Encoding: chunked\r\n\r\n5\r\norder\r\n0\r\n\r\n"
    requests+="GET /orders/4 $head\r\n"
    requests+="GET $at/5 ${head}Connection: close\r\n\r\n"
    answers=$(raw "$requests" | grep -oE 'HTTP/1.1 [0-9]+|"target": "[^"]*"' | xargs)
    wanted="HTTP/1.1 200 target: $at/1 HTTP/1.1 200 target: $at/2 HTTP/1.1 200 target: $at/3 HTTP/1.1 401 "
    [[ $answers == "${wanted}HTTP/1.1 200 target: $at/5" ]] || { echo "$answers"; return 1; }
}

# Those that would name a caller stay behind.
request_trailers() {
    local target=/open/h2c/trailers-by-1 request='HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n'
    request+='Trailer: x-checksum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\norder\r\n0\r\nX-Checksum: ab12\r\n'
    request+='X-Auth-Client-Id: a\r\nX_Auth_Client_Id: a\r\nAuthorization: Bearer a\r\n\r\n'
    has '"length": 5' "$(raw "POST $target $request")" &&
        has '"trailers": [["x-checksum", "ab12"]]' "$(noted "\"event\": \"end\", \"target\": \"$target\"")"
}

# answer_trailers ROUTE OPTION...
answer_trailers() {
    local route=$1
    shift
    has 'x-checksum: ab12' "$(get -D - --header 'TE: trailers' --header 'Connection: TE' "$@" \
        "$gateway/open/$route/trailers?announced")"
}

handshake() { timeout 10 openssl s_client -connect "$host:$tls" -CAfile certs/ca.pem "$@" </dev/null 2>&1; }
# shown NAME WANTED: the certificate that a client gets that asks for the name.
shown() { has "CN = $2" "$(handshake -servername "$1" | openssl x509 -noout -subject)"; }
agreed() { has "$1" "$(handshake "${@:2}")"; }
outdated() { agreed 'SSL alert number' -tls1_1 -cipher ALL@SECLEVEL=0 && agreed 'Cipher is (NONE)' -tls1_1; }

# --- the checks -------------------------------------------------------------------------------------

check_versions() {
    check 'protocols HTTP/2: 50 uploads at once to a server that nobody knows yet, 5 at once on a connection' \
        gathers few few --parallel-immediate --data order
    check 'protocols HTTP/2: 50 calls at once to a server that negotiates HTTP/2' \
        gathers few_auto few_tls --parallel-immediate
    check 'protocols HTTP/2: 50 calls at once on one connection of the client' gathers few few --http2
    check 'protocols HTTP/2: 50 calls at once on as many connections of clients' \
        gathers few few --parallel-immediate --http1.1
    check 'protocols HTTP/2: in plain text' reaches h2c HTTP/2 h2c
    check 'protocols HTTP/2: over TLS' reaches secure HTTP/2 secure_h2
    check 'protocols HTTP/2: over TLS, because the server prefers it' reaches secure HTTP/2 auto
    check 'protocols HTTP/1.1: over TLS, because the server knows nothing else' reaches old HTTP/1.1 auto_old
    check 'protocols HTTP/1.1: over TLS, whatever else the server speaks' reaches secure HTTP/1.1 secure
    check 'protocols HTTP/1.1: in plain text' reaches http1 HTTP/1.1 http1
}

check_trust() {
    check 'protocols TLS to backends: a client certificate is shown' reaches mutual HTTP/1.1 mutual
    check 'protocols TLS to backends: none is shown where one is asked for' distrusted shy
    check 'protocols TLS to backends: a name of its own' reaches internal HTTP/1.1 internal
    check 'protocols TLS to backends: a certificate of another name' distrusted misnamed
    check 'protocols TLS to backends: a certificate of another CA' distrusted foreign
    check 'protocols TLS to backends: an expired certificate' distrusted expired
}

check_tunnels() {
    check 'protocols WebSocket: text' ask tunnels text
    check 'protocols WebSocket: 1 MiB' ask tunnels binary
    check 'protocols WebSocket: ping and pong' ask tunnels ping
    check 'protocols WebSocket: a subprotocol is agreed on' ask tunnels subprotocol
    check 'protocols WebSocket: to a server that negotiates HTTP/2 for calls' ask tunnels secured
    check 'protocols WebSocket: the backend is told who calls, by nobody else' ask tunnels identity
    check 'protocols WebSocket: without a token' ask tunnels without_token
    check 'protocols WebSocket: without the role' ask tunnels without_role
    check 'protocols WebSocket: the backend refuses' ask tunnels backend_refuses
    check 'protocols WebSocket: the route refuses' ask tunnels route_refuses
    check 'protocols WebSocket: the client closes' ask tunnels client_closes
    check 'protocols WebSocket: the backend closes' ask tunnels backend_closes
    check 'protocols WebSocket: the client vanishes' ask tunnels client_vanishes
    check 'protocols WebSocket: a revoked token ends it, unless it may stay' ask tunnels revoked
    check 'protocols WebSocket: a withdrawn role ends it' ask tunnels role_withdrawn "$binary"
    check 'protocols WebSocket: it is closed when nothing moves' ask tunnels idle
    check 'protocols WebSocket: by extended CONNECT' ask tunnels extended_connect
    check 'protocols WebSocket: by extended CONNECT, a revoked token ends it' ask tunnels extended_connect_revoked
    check 'protocols WebSocket: by extended CONNECT, without token or role' ask tunnels extended_connect_refused
}

check_grpc() {
    check 'protocols gRPC: one message for one' ask grpc_calls unary_call
    check 'protocols gRPC: a message of 2 MiB' ask grpc_calls large_message
    check 'protocols gRPC: many messages for one' ask grpc_calls server_streaming
    check 'protocols gRPC: one message for many' ask grpc_calls client_streaming
    check 'protocols gRPC: both ways in turn' ask grpc_calls bidirectional
    check 'protocols gRPC: 1,000 messages both ways' ask grpc_calls many_messages
    check 'protocols gRPC: a status with details and metadata' ask grpc_calls status
    check 'protocols gRPC: a status after a message' ask grpc_calls late_status
    check 'protocols gRPC: a deadline' ask grpc_calls deadline
    check 'protocols gRPC: a call that its client cancels' ask grpc_calls cancelled
    check 'protocols gRPC: without a token' ask grpc_calls refused UNAUTHENTICATED
    check 'protocols gRPC: without the role' ask grpc_calls refused PERMISSION_DENIED demo-outsider
}

check_streams() {
    local version backend
    for version in HTTP/1.1 HTTP/2; do
        for backend in http1 h2c; do
            check "protocols streams: events in $version from $backend, one by one" \
                ask streams events $version $backend
            check "protocols streams: an upload in $version to $backend, piece by piece" \
                ask streams pieces $version $backend
        done
    done
}

check_trailers() {
    check 'protocols trailers: of an answer, in HTTP/2' answer_trailers http1 --http2
    check 'protocols trailers: of an answer that announces them, in HTTP/1.1' answer_trailers http1 --http1.1
    check 'protocols trailers: of an HTTP/2 answer that announces them, in HTTP/1.1' answer_trailers h2c --http1.1
    check 'protocols trailers: of a request in HTTP/1.1, no name of a caller among them' request_trailers
    check 'protocols trailers: of a request in HTTP/2, no name of a caller among them' ask streams request_trailers
}

check_curl() {
    check 'protocols HTTP/1.1: a body that waits for leave gets it' \
        expects '100 200' 100-continue "$gateway/open/http1/expected"
    check 'protocols HTTP/1.1: a body that waits for leave is refused without it' unexpected
    check 'protocols HTTP/1.1: an expectation that nobody knows' \
        expects '200|417' 200-ok "$gateway/open/http1/expected"
    check 'protocols HTTP/1.1: a chunked upload' uploads "$gateway/open/http1/chunked"
    check 'protocols HTTP/1.1: a chunked upload to an HTTP/2 backend' uploads "$gateway/open/h2c/chunked"
    check 'protocols HTTP/1.1: pipelined requests are answered in their order' pipelined
    check 'protocols HTTP/1.0: a connection is kept where both want it' kept
    check 'protocols HTTP/1.0: a request without Host' hostless
    check 'protocols HTTP/1.0: an answer of unknown length ends with the connection' unchunked
}

# cases JUDGE ROUTE START: a sentence, a status and what follows the start of the request in each line of the input.
cases() {
    local sentence status rest
    while IFS='|' read -r sentence status rest; do
        check "protocols framing: $sentence" "$1" "$status" "$2/framing-$((number += 1))" "$3$rest"
    done
}

check_framing() {
    local number=100
    cases refused /open/http1 'POST @ HTTP/1.1\r\nHost: a\r\n' <<'CASES'
Content-Length beside chunks|400|Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n
chunks beside Content-Length|400|Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n
Content-Length twice|400|Content-Length: 5\r\nContent-Length: 5\r\n\r\norder
two values of Content-Length in one|400|Content-Length: 5, 5\r\n\r\norder
a sign before Content-Length|400|Content-Length: +5\r\n\r\norder
Content-Length beyond 64 bits|400|Content-Length: 18446744073709551621\r\n\r\norder
a blank before the colon of Content-Length|400|Content-Length : 5\r\n\r\norder
Transfer-Encoding gzip, chunked|501|Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n
Transfer-Encoding identity|400|Transfer-Encoding: identity\r\n\r\n
Transfer-Encoding twice|400|Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n
one line that ends with LF alone|400|X-Name: a\nContent-Length: 5\r\n\r\norder
CR within a line|400|X-Name: a\rContent-Length: 5\r\n\r\norder
a folded line|400|X-Name: a\r\n b\r\n\r\n
a blank before the colon|400|X-Name : a\r\n\r\n
a field without a name|400|: a\r\n\r\n
NUL in a field|400|X-Name: a\0b\r\n\r\n
Host twice|400|Host: a\r\nConnection: close\r\n\r\n
CASES
    cases refused /open/http1 '' <<'CASES'
lines that end with LF alone|400|GET @ HTTP/1.1\nHost: a\n\n
a blank before the first field|400|GET @ HTTP/1.1\r\n Host: a\r\nX-Name: a\r\n\r\n
NUL in the target|400|GET @\0 HTTP/1.1\r\nHost: a\r\n\r\n
a blank in the target|400|GET @ b HTTP/1.1\r\nHost: a\r\n\r\n
an unknown version|400|GET @ HTTP/1.2\r\nHost: a\r\n\r\n
no Host|400|GET @ HTTP/1.1\r\nConnection: close\r\n\r\n
Host other than the target|400|GET http://a@ HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n
Transfer-Encoding in HTTP/1.0|400|POST @ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n
CASES
    cases broken /slow 'POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' <<'CASES'
a chunk size that is no number|400|x\r\norder\r\n0\r\n\r\n
a chunk size with a sign|400|+5\r\norder\r\n0\r\n\r\n
a chunk size with a prefix|400|0x5\r\norder\r\n0\r\n\r\n
an empty chunk size|400|\r\norder\r\n0\r\n\r\n
a chunk size beyond 64 bits|400|10000000000000005\r\norder\r\n0\r\n\r\n
a chunk size that ends with LF alone|400|5\norder\r\n0\r\n\r\n
a chunk that is longer than its size|400|4\r\norder\r\n0\r\n\r\n
a chunk that ends with LF alone|400|5\r\norder\n0\r\n\r\n
an extension of a chunk with LF in it|400|5;a\nb\r\norder\r\n0\r\n\r\n
no empty line after the last chunk|400|5\r\norder\r\n0\r\n
a blank before the colon of a trailer|400|0\r\nX-Name : a\r\n\r\n
a chunk that stops|408|500\r\n
CASES
}

check_tls() {
    check 'protocols server TLS: a name' shown orders.example.com orders
    check 'protocols server TLS: a name in capitals' shown ORDERS.Example.Com orders
    check 'protocols server TLS: a name below a wildcard' shown shop.example.org wild
    check 'protocols server TLS: a name two below a wildcard' shown a.shop.example.org localhost
    check 'protocols server TLS: a name that nobody knows' shown example.net localhost
    check 'protocols server TLS: no name' agreed 'CN = localhost' -noservername
    check 'protocols server TLS: version 1.2' agreed 'New, TLSv1.2' -tls1_2
    check 'protocols server TLS: version 1.3' agreed 'New, TLSv1.3' -tls1_3
    check 'protocols server TLS: version 1.1 is refused' outdated
    check 'protocols server TLS: HTTP/2 is chosen' agreed 'ALPN protocol: h2' -alpn http/1.1,h2
    check 'protocols server TLS: HTTP/1.1 is chosen' agreed 'ALPN protocol: http/1.1' -alpn http/1.1
    check 'protocols server TLS: a protocol that nobody knows is refused' \
        agreed 'alert no application protocol' -alpn http/0.9
}

certificates 2>log/openssl
start_all
{
    check_versions
    check_trust
    check_tunnels
    check_grpc
    check_streams
    check_trailers
    check_curl
    check_framing
    check_tls
} | tee log/results
echo "protocols: $(grep -c '^ok ' log/results || true) passed, $(grep -c '^not ok ' log/results || true) failed"
