# Sourced by the counting scripts: a gateway on free ports, a backend of its own process, a token.
# Expects $here and the caller's arguments BINARY WORKDIR.
binary=$(realpath "$1")
work=$2
# what is written while the gateway runs is in a folder of its own: the gateway watches the one of its
# configuration and reads all of it again, which would be counted too
mkdir -p "$work/log"
work=$(realpath "$work")
cd "$work"
failed=0
processes=()
trap 'kill "${processes[@]}" 2>/dev/null || true' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
limit() { awk -v name="$1" '$1 == name { print $2 }' "$here/limits"; }
until_true() { for _ in $(seq 1200); do "$@" >/dev/null 2>&1 && return 0; read -rt 0.05 <> <(:) || true; done; echo "waited in vain: $*" >&2; exit 1; }

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
listens() { python3 -c "import socket; socket.create_connection(('127.0.0.1', $1))"; }
python3 backend.py "$backend" & processes+=($!)
until_true listens "$backend"

# start COMMAND...: runs the gateway as given and waits until it issues tokens
start() {
    "$@" >log/out 2>log/err & pid=$!
    processes+=($pid)
    until_true curl -sf --cacert certs/ca.pem "https://localhost:$tls/token_keys"
    "$binary" token get --key keys/demo-sender.json --cacert certs/ca.pem > log/token
}

check() {
    local name=$1 value=$2 most
    most=$(limit "$name")
    if awk -v value="$value" -v most="$most" 'BEGIN { exit !(value > 0 && value <= most) }'; then
        echo "ok $name: $value (limit $most)"
    else
        echo "not ok $name: $value is not within $most" && failed=1
    fi
}

finish() { [ $failed = 0 ]; }
