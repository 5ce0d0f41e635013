#!/usr/bin/env bash
# Counts the instructions of a proxied request under valgrind and holds them against
# tests/cost/limits. The build is the tests' own, unoptimised: the number is for comparing one
# change with the next. Usage: instructions.sh BINARY WORKDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/site.sh"
requests=800

start valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$work/count" "$binary" demo
python3 "$here/load.py" "$plain" 80 < log/token
callgrind_control -i on "$pid" >/dev/null
python3 "$here/load.py" "$plain" $requests < log/token
callgrind_control -i off "$pid" >/dev/null
kill -TERM "$pid"
wait "$pid" || true
check instructions_per_request "$(awk -v requests=$requests '/^(summary|totals):/ { sum = $2 } END { printf "%d", sum / requests }' count*)"
finish
