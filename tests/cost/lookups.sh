#!/usr/bin/env bash
# Counts the instructions of a destination's lookup that is answered from what is kept, under valgrind, and
# holds them against those of a proxied request whose token is known. Usage: lookups.sh BINARY WORKDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/site.sh"
requests=800

service=$(free_port)
python3 "$here/tokens.py" "$service" log/journal 2>log/service & processes+=($!) tokens=$!
until_true listens "$service"
kill -USR1 $tokens
sed -i '1i outbound: { allow_networks: [127.0.0.0/8] }' config.yaml
start valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$work/log/count" "$binary" demo

"$binary" instance create shop --plan destination >/dev/null
"$binary" key create shop key > log/key.json
cat > log/crm.json <<JSON
{ "Name": "crm", "Type": "HTTP", "URL": "https://crm.example/api", "ProxyType": "Internet",
  "Authentication": "OAuth2ClientCredentials", "clientId": "id", "clientSecret": "secret",
  "tokenServiceURL": "http://127.0.0.1:$service/token", "scope": "orders" }
JSON
"$binary" destination put --file log/crm.json >/dev/null
token() { "$binary" token get --key log/key.json --cacert certs/ca.pem > log/shop; }
until_true token

# instructions FILE PATH NAME: of one request, once everything that can be kept is
instructions() {
    python3 "$here/load.py" "$plain" 80 "$2" < "$1"
    callgrind_control -i on "$pid" >/dev/null
    python3 "$here/load.py" "$plain" $requests "$2" < "$1"
    callgrind_control -i off "$pid" >/dev/null
    callgrind_control -d "$3" "$pid" >/dev/null
}
instructions log/token /http/orders/1 proxied
instructions log/shop /destination-configuration/v1/destinations/crm lookup
kill -TERM "$pid"
wait "$pid" || true

# the journal tells that nothing but the first lookup has asked for a token
[ "$(wc -l < log/journal)" = 1 ] || { echo "not ok lookups: the token was asked for again" && failed=1; }
per_request() { awk -v requests=$requests '/^(summary|totals):/ { sum = $2 } END { printf "%d", sum / requests }' "$1"; }
proxied=$(per_request log/count.1) lookup=$(per_request log/count.2)
echo "a lookup: $lookup instructions, a proxied request: $proxied"
check lookup_ratio "$(awk "BEGIN { printf \"%.2f\", $lookup / $proxied }")"
finish
