# shellcheck shell=bash
# What is on trial: backends that come and go, and what is found out; to be sourced after check.sh and processes.sh by a
# script with a folder `log`. Each backend is a process of backend.py; `backends` has the port of each, and log/journal
# what has arrived.
declare -A backends=() backend_processes=()

# --- backends ---------------------------------------------------------------------------------------

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

# become NAME WHAT: all that the backend is asked for means this from now on.
become() { curl -sS --fail --max-time 5 -o log/become "http://$host:${backends[$1]}/become/$2"; }

# arrivals PATTERN [NAME]: how often each target arrived that begins so, at one backend or at all.
arrivals() {
    awk -v begin="$1" -v port="${2:+${backends[$2]}}" '
        index($5, begin) == 1 && (port == "" || port == $1) { print $5 }' log/journal | sort | uniq -c
}

# --- what is found out ------------------------------------------------------------------------------

# judge NAME COMMAND...: a check whose line is kept.
judge() { check "$@" | tee --append log/results; }

# measured WHAT NUMBER
measured() { echo "$1: $2" >>log/measured; }

# conclude NAME: the numbers, and how many checks there were.
conclude() {
    sort log/measured
    echo "$1: $(grep -c '^ok ' log/results || true) passed, $(grep -c '^not ok ' log/results || true) failed"
}

milliseconds() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# within LEAST MOST COMMAND...: it succeeds, after so many milliseconds.
within() {
    local start taken
    start=$(milliseconds)
    "${@:3}" || return
    taken=$(($(milliseconds) - start))
    (($1 <= taken && taken <= $2)) || { echo "it took $taken ms, not $1 to $2"; return 1; }
}

# certificate NAME: a CA, and NAME.pem with a certificate of it and its key.
certificate() {
    local new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30'
    openssl req -x509 $new -keyout ca-key.pem -out ca.pem -subj /CN=ca -addext keyUsage=critical,keyCertSign
    openssl req -x509 $new -keyout key.pem -out certificate.pem -subj "/CN=$1" -CA ca.pem -CAkey ca-key.pem \
        -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=IP:$host"
    cat key.pem certificate.pem >"$1.pem"
} 2>>log/openssl
