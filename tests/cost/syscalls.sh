#!/usr/bin/env bash
# Counts the system calls of a proxied request and holds them against tests/cost/limits. Counts do
# not depend on the machine's mood. Usage: syscalls.sh BINARY WORKDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$1")
work=$2
requests=2000
mkdir -p "$work"
cd "$work"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
limit() { awk -v name="$1" '$1 == name { print $2 }' "$here/limits"; }
until_true() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return 0; read -rt 0.05 <> <(:) || true; done; echo "waited in vain: $*" >&2; exit 1; }

tls=$(free_port) plain=$(free_port) admin=$(free_port) backend=$(free_port)
cat > config.yaml <<YAML
public_url: https://localhost:$tls
listeners:
  - { address: "127.0.0.1:$tls", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
  - { address: "127.0.0.1:$plain" }
admin: { address: "127.0.0.1:$admin" }
backends:
  orders: { servers: ["http://127.0.0.1:$backend"] }
routes:
  - { name: orders, path: /http/orders/*, backend: orders }
YAML
# the backend is a process of its own, so that its calls are not counted
cat > backend.py <<'PY'
import socketserver, sys


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline():
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True


Server(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
PY
python3 backend.py "$backend" & backend_pid=$!
trap 'kill $backend_pid 2>/dev/null || true' EXIT
until_true python3 -c "import socket; socket.create_connection(('127.0.0.1', $backend))"
"$binary" demo >out 2>err & pid=$!
trap 'kill $pid $backend_pid 2>/dev/null || true' EXIT
until_true curl -sf --cacert certs/ca.pem "https://localhost:$tls/token_keys"
"$binary" token get --key keys/demo-sender.json --cacert certs/ca.pem > token
python3 "$here/load.py" "$plain" 400 < token
strace -f -c -o calls -p $pid 2>strace.err & strace_pid=$!
until_true grep -q attached strace.err
python3 "$here/load.py" "$plain" $requests < token
kill -INT $strace_pid
wait $strace_pid || true

per_request() { awk -v requests=$requests -v names="$1" '
    $1 ~ /^[0-9.]+$/ && $NF != "total" && (names == "" || $NF ~ names) { sum += $4 } END { printf "%.2f", sum / requests }' calls; }
failed=0
check() {
    local name=$1 value=$2 most
    most=$(limit "$name")
    if awk -v value="$value" -v most="$most" 'BEGIN { exit !(value <= most) }'; then
        echo "ok $name: $value (limit $most)"
    else
        echo "not ok $name: $value is above $most" && failed=1
    fi
}
check data_calls_per_request "$(per_request '^(read|readv|recvfrom|recvmsg|write|writev|sendto|sendmsg)$')"
check all_calls_per_request "$(per_request '')"
[ $failed = 0 ] || { cat calls; exit 1; }
