#!/usr/bin/env bash
# HTTP/2 as its RFCs have it, and under floods: http2.sh BINARY WORKDIR
#
# Needs curl and python3 and, for calls in bulk, h2load; all on loopback, each a process of this script.
# One line for each check and, last, `http2: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=20

binary=$(realpath "${1:?usage: http2.sh BINARY WORKDIR}")
work=${2:?usage: http2.sh BINARY WORKDIR}
rm -rf "$work"
# the gateway watches the folder of its configuration, so what grows is in another one
mkdir -p "$work/log"
cd "$work"

# --- gateway and backend ----------------------------------------------------------------------------

read -r plain tls admin backend < <(free_ports 4)

configure() {
    cat >config.yaml <<YAML
public_url: https://localhost:$tls
listeners:
  - { address: "$host:$plain" }
  - { address: "$host:$tls", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
backends:
  octets: { servers: ["http://$host:$backend"] }
routes:
  - { name: open, path: /open, backend: octets, authorization: none }
YAML
    # answers once it has all of a request, with as many octets as the query says
    cat >backend.py <<'PYTHON'
import http.client
import socketserver
import sys


class Answer(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while line := self.rfile.readline().decode():
            method, target, _ = line.split()
            self.read_content(http.client.parse_headers(self.rfile))
            length = int(target.partition("?")[2] or 16)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
            self.wfile.write(head + (b"" if method == "HEAD" else bytes(length)))

    def read_content(self, fields):
        if "transfer-encoding" not in fields:
            self.rfile.read(int(fields.get("content-length", 0)))
            return
        while size := int(self.rfile.readline() or "0", 16):
            self.rfile.read(size + 2)
        http.client.parse_headers(self.rfile)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 512

    def handle_error(self, *_):
        """Nothing is to be said of a gateway that leaves."""


Server(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
PYTHON
}

listens() { (: <"/dev/tcp/$host/$1"); }
up() { [[ $(curl -s --cacert certs/ca.pem -o log/up -w '%{http_code}' "https://localhost:$tls/open") == 200 ]]; }

# The demo makes certificates and keys, and an echo flow where no backend listens yet.
start_all() {
    configure
    start log/backend python3 backend.py "$backend"
    until_true listens "$backend"
    start log/gateway "$binary" demo --dir .
    gateway=$!
    until_true up || { tail -n 3 log/gateway.err >&2; exit 1; }
}

# --- the checks -------------------------------------------------------------------------------------

loaded() { has '2000 2xx, 0 3xx, 0 4xx, 0 5xx' "$(h2load -n 2000 -c 10 -m 20 "$1")"; }

check_load() {
    check 'http2 load: 2000 calls in plain text, 200 at once' loaded "http://$host:$plain/open"
    check 'http2 load: 2000 calls over TLS, 200 at once' loaded "https://$host:$tls/open"
}

start_all
python3 "$here/http2.py" "$host" "$plain" /open "$gateway" 2>log/http2.err | tee log/results
if command -v h2load >/dev/null; then
    check_load | tee --append log/results
fi
echo "http2: $(grep -c '^ok ' log/results || true) passed, $(grep -c '^not ok ' log/results || true) failed"
