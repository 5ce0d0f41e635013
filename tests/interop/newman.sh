#!/usr/bin/env bash
# Runs the collections that flowgate writes for a service key in Postman's runner: newman.sh FOLDER BINARY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"

folder=$1
binary=$2

# tested REPORT: newman is content with a collection that tests nothing.
tested() {
    (($(field "$1" run stats assertions total) > 0)) || { echo "the collection has no tests"; return 1; }
}

# runs KEY OPTION...: writes the collection for a service key and runs it.
runs() {
    local key=$1 out=$folder/postman/$1
    shift
    "$binary" postman --key "$folder/keys/$key.json" --out "$out" --config "$folder/config.yaml" || return
    "$here/node_modules/.bin/newman" run "$out/flowgate.postman_collection.json" \
        --environment "$out/flowgate.postman_environment.json" \
        --ssl-extra-ca-certs "$folder/certs/ca.pem" --color off --timeout 60000 \
        --reporters cli,json --reporter-json-export "$out/report.json" "$@" || return
    tested "$out/report.json"
}

check "newman with a secret" runs demo-sender
check "newman with a certificate" \
    runs cert --ssl-client-cert "$folder/keys/cert.pem" --ssl-client-key "$folder/keys/cert.key"
