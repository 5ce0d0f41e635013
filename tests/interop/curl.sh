#!/usr/bin/env bash
# Every form of token request, and the calls that curl can make like no other client: curl.sh FOLDER
set -euo pipefail
source "$(dirname "$0")/check.sh"

folder=$1
keys=$folder/keys
origin=$(field "$keys/demo-sender.json" oauth url)
token_url=$(field "$keys/demo-sender.json" oauth tokenurl)
flow=$origin/http/orders/1
id=$(field "$keys/demo-sender.json" oauth clientid)
secret=$(field "$keys/demo-sender.json" oauth clientsecret)
outsider=$(field "$keys/demo-outsider.json" oauth clientid):$(field "$keys/demo-outsider.json" oauth clientsecret)

query="$token_url?grant_type=client_credentials"
basic=(--user "$id:$secret")
certificate=(--cert "$keys/cert.pem" --key "$keys/cert.key")

# strict TEXT: percent-encoded all but letters and digits, as the strictest clients spell credentials.
strict() {
    python3 -c 'import re, sys; print(re.sub(r"\W|_", lambda c: f"%{ord(c[0]):02X}", sys.argv[1], flags=re.A))' "$1"
}

fetch() {
    curl --silent --show-error --max-time 20 --cacert "$folder/certs/ca.pem" "$@"
}

# token REQUEST...: the access token that a token request gets.
token() {
    local response
    response=$(fetch --fail-with-body "$@") || { echo "$response" >&2; return 1; }
    sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p' <<<"$response" | grep .
}

# answers STATUS REQUEST...
answers() {
    local wanted=$1 got
    shift
    got=$(fetch --output /dev/null --write-out '%{http_code}' "$@") && [[ $got == "$wanted" ]] ||
        { echo "wanted status $wanted, got $got"; return 1; }
}

# grants REQUEST...: the token request gets a token, and the token gets a call through.
grants() {
    local bearer
    bearer=$(token "$@") && answers 200 --header "Authorization: Bearer $bearer" "$flow"
}

# echoes BODY REQUEST...: the flow, which answers with what arrived, got this body.
echoes() {
    local body=$1 response
    shift
    response=$(printf %s "$body" | fetch --fail-with-body --data-binary @- "$@") &&
        [[ $response == *"\"body\": \"$body\""* ]] || { echo "the flow got: ${response:0:500}"; return 1; }
}

# continues REQUEST...: the gateway answers 100 before the body is sent.
continues() {
    local heads
    heads=$(fetch --dump-header - --output /dev/null "$@") && [[ $heads == *" 100 Continue"*" 200 OK"* ]] ||
        { echo "$heads"; return 1; }
}

# speaks VERSION REQUEST...: the call is made in this version of HTTP.
speaks() {
    local wanted=$1 got
    shift
    got=$(fetch --output /dev/null --write-out '%{http_version}' "$@") && [[ $got == "$wanted" ]] ||
        { echo "wanted HTTP $wanted, got $got"; return 1; }
}

check "curl token: query and Basic, no body" grants --request POST "${basic[@]}" "$query"
check "curl token: query and Basic, empty form" grants --data '' "${basic[@]}" "$query"
check "curl token: query and Basic, empty JSON" \
    grants --request POST --header 'Content-Type: application/json' "${basic[@]}" "$query"
check "curl token: form and Basic" grants --data grant_type=client_credentials "${basic[@]}" "$token_url"
check "curl token: query and form alike" grants --data grant_type=client_credentials "${basic[@]}" "$query"
check "curl token: credentials in the form" grants --data grant_type=client_credentials \
    --data-urlencode "client_id=$id" --data-urlencode "client_secret=$secret" "$token_url"
check "curl token: Basic, percent-encoded" \
    grants --request POST --user "$(strict "$id"):$(strict "$secret")" "$query"
check "curl token: certificate and client_id" \
    grants "${certificate[@]}" --data-urlencode "client_id=$id" "$query"
check "curl token: certificate alone" grants "${certificate[@]}" --request POST "$query"
check "curl token: wrong secret" answers 401 --request POST --user "$id:wrong" "$query"

bearer="Authorization: Bearer $(token --request POST "${basic[@]}" "$query")"
stranger="Authorization: Bearer $(token --request POST --user "$outsider" "$query")"
megabytes=$(head -c 2097152 /dev/zero | tr '\0' x)

for version in 1.1 2; do
    http=--http$version
    check "curl $http call: in that version" speaks "$version" "$http" --header "$bearer" "$flow"
    check "curl $http call: with a token" answers 200 "$http" --header "$bearer" "$flow"
    check "curl $http call: scheme in small letters" answers 200 "$http" --header "${bearer/Bearer/bearer}" "$flow"
    check "curl $http call: without a token" answers 401 "$http" "$flow"
    check "curl $http call: without the role" answers 403 "$http" --header "$stranger" "$flow"
    check "curl $http call: HEAD" answers 200 "$http" --head --header "$bearer" "$flow"
    check "curl $http call: HEAD without a token" answers 401 "$http" --head "$flow"
    check "curl $http call: chunked" \
        echoes 'one two three' "$http" --header "$bearer" --header 'Transfer-Encoding: chunked' "$flow"
    check "curl $http call: 2 MiB, Expect: 100-continue" \
        echoes "$megabytes" "$http" --header "$bearer" --header 'Expect: 100-continue' "$flow"
done
check "curl --http1.1 call: 100 before the body" \
    continues --http1.1 --header "$bearer" --header 'Expect: 100-continue' --data order "$flow"
