#!/usr/bin/env bash
# Counts the instructions of a proxied request on the lanes alone, under valgrind, while 500 artifacts
# refresh their tokens, and holds them against those of the same requests while none does: keeping
# credentials alive is not a lane's work. Usage: refreshing.sh BINARY WORKDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/site.sh"
artifacts=500
# every round waits for its share of the refreshing, or else the requests would be over long before it
rounds=10
per_round=120

service=$(free_port)
touch log/journal
python3 "$here/tokens.py" "$service" log/journal 2>log/service & processes+=($!) tokens=$!
until_true listens "$service"

# the store is made, then filled while nothing watches it
sed -i '1i outbound: { allow_networks: [127.0.0.0/8] }' config.yaml
start "$binary" demo
kill -TERM "$pid"
wait "$pid" || true
mkdir -p artifacts
for each in $(seq $artifacts); do
    cat > "artifacts/a$each.json" <<JSON
{ "name": "a$each", "type": "oauth2-client-credentials", "client-id": "a$each", "client-secret": "s",
  "send-as": "body", "token-service-url": "http://127.0.0.1:$service/token" }
JSON
done
seq $artifacts | xargs -P2 -I% "$binary" credential create --parameters artifacts/a%.json >log/created
# only what a route uses is kept alive; nobody calls these
for each in $(seq $artifacts); do
    echo "  - { name: a$each, path: /a/$each, backend: orders, credential: a$each }"
done >> config.yaml

# clients LIFE FROM: how many clients have got tokens of that life since that line of the journal
clients() { tail -n "+$2" log/journal | awk -v life="$1" '$2 == life && !seen[$1]++ { count++ } END { print count + 0 }'; }
had() { [ "$(clients "$1" "$2")" -ge "$3" ]; }
asked() { wc -l < log/journal; }
round() { python3 "$here/load.py" "$plain" $per_round < log/token; }
count() { callgrind_control "$@" "$pid" >/dev/null 2>&1; }

# instructions per request: of the threads that are lanes, and of what serves a connection on them
lanes() { grep -l 'flowgate::serve::lanes::' "$@"; }
per_request() { awk -v requests=$((rounds * per_round)) '{ sum += $1 } END { printf "%d", sum / requests }'; }
whole() { lanes "$@" | xargs awk '/^(summary|totals):/ { of[FILENAME] = $2 } END { for (each in of) print of[each] }' | per_request; }
served() {
    for each in $(lanes "$@"); do
        callgrind_annotate --inclusive=yes --auto=no "$each" |
            awk 'index($0, "flowgate::net::listen::run::{{closure}} ") && !found++ { gsub(",", ""); print }'
    done | per_request
}
# compare NAME HOW: what was counted while tokens were refreshed against what was counted in the quiet
compare() {
    local refreshing quiet
    refreshing=$($2 log/count.1-*) quiet=$($2 log/count-*)
    echo "$2: $refreshing instructions per request while $artifacts artifacts got $refreshed tokens, $quiet while they got none"
    check "$1" "$(awk "BEGIN { printf \"%.4f\", $refreshing / $quiet }")"
}

start valgrind --tool=callgrind --separate-threads=yes --instr-atstart=no --callgrind-out-file="$work/log/count" "$binary" demo
round
until_true had 2 1 $artifacts

# tokens end sooner than 500 can be had, so that all of them are due all the time
from=$(($(asked) + 1))
count -i on
for each in $(seq $rounds); do
    round
    until_true had 2 $from $((artifacts * each / rounds))
done
refreshed=$(($(asked) + 1 - from))
count -i off
count -d

from=$(($(asked) + 1))
kill -USR1 $tokens
until_true had 36000 $from $artifacts
from=$(asked)
count -i on
for each in $(seq $rounds); do round; done
count -i off
if [ "$(asked)" != "$from" ]; then echo "not ok refreshing: it went on in the quiet" && failed=1; fi
kill -TERM "$pid"
wait "$pid" || true

compare refreshing_requests served
compare refreshing_lanes whole
finish
