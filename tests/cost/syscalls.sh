#!/usr/bin/env bash
# Counts the system calls of a proxied request and holds them against tests/cost/limits. Counts do
# not depend on the machine's mood. Usage: syscalls.sh BINARY WORKDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/site.sh"
requests=2000

start "$binary" demo
python3 "$here/load.py" "$plain" 400 < log/token
strace -f -c -o calls -p $pid 2>strace.err & strace_pid=$!
until_true grep -q attached strace.err
python3 "$here/load.py" "$plain" $requests < log/token
kill -INT $strace_pid
wait $strace_pid || true

per_request() { awk -v requests=$requests -v names="$1" '
    $1 ~ /^[0-9.]+$/ && $NF != "total" && (names == "" || $NF ~ names) { sum += $4 } END { printf "%.2f", sum / requests }' calls; }
check data_calls_per_request "$(per_request '^(read|readv|recvfrom|recvmsg|write|writev|sendto|sendmsg)$')"
check all_calls_per_request "$(per_request '')"
finish || { cat calls; exit 1; }
