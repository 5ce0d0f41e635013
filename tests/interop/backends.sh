# shellcheck shell=bash
# Backends that come and go, each a process of backend.py; to be sourced after processes.sh. What arrives is in
# log/journal; `backends` has the port of each.
declare -A backends=() backend_processes=()

listens() { (: <"/dev/tcp/$host/$1"); }

# raise NAME [CERTIFICATE]: starts a backend, which listens then.
raise() {
    start "log/$1" python3 "$here/backend.py" "${backends[$1]}" log/journal "${@:2}"
    backend_processes[$1]=$!
    until_true listens "${backends[$1]}"
}

# fell NAME: ends a backend without a warning.
fell() {
    kill -KILL "${backend_processes[$1]}"
    wait "${backend_processes[$1]}" 2>/dev/null || true
}

# become NAME WHAT: all that the backend is asked for means this, from now on.
become() { curl -sS --fail --max-time 5 -o log/become "http://$host:${backends[$1]}/become/$2"; }

# arrived TARGET [NAME]: how often, at one backend or at all.
arrived() { awk -v target="$1" -v port="${2:+${backends[$2]}}" '$5 == target && (port == "" || $1 == port)' log/journal | wc -l; }

milliseconds() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
