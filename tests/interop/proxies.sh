#!/usr/bin/env bash
# Client certificates as real clients and real load balancers show them: proxies.sh BINARY WORKDIR
#
# Needs openssl, curl, python3, nginx and haproxy, all on loopback, each a process of this script.
# One line for each check and, last, `proxies: N passed, M failed`; logs stay in WORKDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/check.sh"
source "$here/processes.sh"
patience=10

binary=$(realpath "${1:?usage: proxies.sh BINARY WORKDIR}")
work=${2:?usage: proxies.sh BINARY WORKDIR}
rm -rf "$work"
mkdir -p "$work"/{certs/trusted-cas,ca/partner,ca/impostor,who,nginx}
cd "$work"
work=$PWD
PATH=$PATH:/usr/sbin

# --- certificates -----------------------------------------------------------------------------------

# authority FOLDER: both CAs have the same name, each has a key of its own.
authority() {
    cat >"ca/$1/openssl.cnf" <<CNF
[req]
distinguished_name = name
[name]
[ca]
default_ca = this
[this]
database = ca/$1/index
new_certs_dir = ca/$1
certificate = ca/$1/ca.pem
private_key = ca/$1/ca.key
default_md = sha256
default_crl_days = 30
crlnumber = ca/$1/crlnumber
crl_extensions = crl
rand_serial = yes
unique_subject = no
policy = any
x509_extensions = client
[any]
O = supplied
CN = supplied
[crl]
authorityKeyIdentifier = keyid
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CNF
    : >"ca/$1/index"
    echo 01 >"ca/$1/crlnumber"
    new_key "ca/$1/ca.key"
    openssl req -x509 -new -config "ca/$1/openssl.cnf" -extensions authority -key "ca/$1/ca.key" \
        -subj "/O=Partner/CN=Partner CA" -days 30 -out "ca/$1/ca.pem"
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
authorize() { local folder=$1; shift; openssl ca -batch -notext -config "ca/$folder/openssl.cnf" "$@"; }
moment() { date -u -d "$1" +%Y%m%d%H%M%SZ; }

# mint NAME CA CN FROM UNTIL: who/NAME.pem and its key.
mint() {
    new_key "who/$1.key"
    openssl req -new -config "ca/$2/openssl.cnf" -key "who/$1.key" -subj "/O=Partner/CN=$3" -out "who/$1.csr"
    authorize "$2" -in "who/$1.csr" -startdate "$(moment "$4")" -enddate "$(moment "$5")" -out "who/$1.pem"
}

# The three bad ones have the names of a key that goes by names, and would pass as its renewal if
# nobody judged their path.
make_certificates() {
    authority partner
    authority impostor
    mint known partner known '-3 days' '+30 days'
    mint renewable partner renewable '-3 days' '+30 days'
    mint unknown partner unknown '-3 days' '+30 days'
    mint expired partner renewable '-2 days' '-1 day'
    mint revoked partner renewable '-1 day' '+30 days'
    mint impostor impostor renewable '-1 day' '+30 days'
    authorize partner -revoke who/revoked.pem
    authorize partner -gencrl -out certs/trusted-cas/partner.crl
    cp ca/partner/ca.pem certs/trusted-cas/partner.pem
}

base64_der() { openssl x509 -in "who/$1.pem" -outform der | base64 -w0; }
percent_pem() { python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(open(sys.argv[1]).read(), safe=""))' "who/$1.pem"; }

# --- gateway and proxies ----------------------------------------------------------------------------

read -r direct for_nginx for_haproxy stranger rfc9440 envoy admin backend nginx haproxy < <(free_ports 10)

# The proxies pass on whatever certificate they are shown: judging is the gateway's part.
configure() {
    cat >config.yaml <<YAML
public_url: https://localhost:$direct
listeners:
  - { address: "$host:$direct", tls: { certificate: certs/server.pem, key: certs/server-key.pem } }
  - { address: "$host:$for_nginx", trusted_proxies: [$host], certificate_header: x-ssl-client-cert }
  - { address: "$host:$for_haproxy", trusted_proxies: [$host], certificate_header: x-ssl-client-cert, proxy_protocol: true }
  - { address: "$host:$stranger", trusted_proxies: [192.0.2.1], certificate_header: x-forwarded-client-cert }
  - { address: "$host:$rfc9440", trusted_proxies: [$host], certificate_header: client-cert }
  - { address: "$host:$envoy", trusted_proxies: [$host], certificate_header: x-forwarded-client-cert }
admin: { address: "$host:$admin" }
store: { url: "sqlite:data/flowgate.db", master_key: "\${file:keys/master.key}" }
trusted_cas: [certs/trusted-cas]
backends:
  orders: { servers: ["http://$host:$backend"] }
routes:
  - { name: orders, path: /http/orders/*, backend: orders }
  - { name: tokens, path: /http/tokens/*, backend: orders, accept: [bearer] }
  - { name: open, path: /http/open/*, backend: orders, authorization: none }
  - name: listed
    path: /http/listed/*
    backend: orders
    authorization: client_certificate
    certificates:
      - { subject: "CN=known,O=Partner", issuer: "CN=Partner CA,O=Partner" }
      - { subject: "CN=renewable,O=Partner", issuer: "CN=Partner CA,O=Partner" }
YAML
    # an expired certificate is an error of its own for nginx, which optional_no_ca does not cover
    cat >nginx/nginx.conf <<CONF
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen $host:$nginx ssl;
        ssl_certificate $work/certs/server.pem;
        ssl_certificate_key $work/certs/server-key.pem;
        ssl_verify_client optional_no_ca;
        error_page 495 = @gateway;
        location / { try_files /nonexistent @gateway; }
        location @gateway {
            proxy_pass http://$host:$for_nginx;
            proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-SSL-Client-Cert \$ssl_client_escaped_cert;
        }
    }
}
CONF
    cat >haproxy.cfg <<CFG
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend callers
    bind $host:$haproxy ssl crt $work/certs/haproxy.pem ca-file $work/certs/trusted-cas/partner.pem verify optional crt-ignore-err all ca-ignore-err all
    http-request set-header X-SSL-Client-Cert %[ssl_c_der,base64]
    default_backend gateway
backend gateway
    server gateway $host:$for_haproxy send-proxy-v2
CFG
}

flowgate() { "$binary" "$@" --config config.yaml >>commands.log; }
up() { [[ $(curl -s --cacert certs/ca.pem -o /dev/null -w '%{http_code}' "https://$host:$1/http/open/up") == 200 ]]; }

start_all() {
    configure
    start gateway "$binary" demo --dir .
    until_true up "$direct" || { tail -n 3 gateway.err >&2; exit 1; }
    cat certs/server.pem certs/server-key.pem >certs/haproxy.pem
    start nginx nginx -p "$work/nginx" -e error.log -c nginx.conf
    start haproxy haproxy -db -f haproxy.cfg
    until_true up "$nginx"
    until_true up "$haproxy"
    flowgate instance create partner --roles ESBMessaging.send
    local key=(--key-type certificate_external)
    flowgate key create partner known "${key[@]}" --certificate who/known.pem
    flowgate key create partner renewable "${key[@]}" --certificate who/renewable.pem --pin-certificate false
    until_true gets 200 by_curl "$direct" known token
    until_true gets 200 by_curl "$direct" renewable token
}

# --- clients: each prints status line, headers and body ---------------------------------------------

# method, path and body of what is asked
declare -A request=(
    [token]='POST /oauth/token grant_type=client_credentials'
    [call]='GET /http/orders/1 '
    [tokens]='GET /http/tokens/1 '
    [listed]='GET /http/listed/1 '
    [open]='GET /http/open/1 '
)

# by_curl PORT WHO ASKED OPTION...: over TLS, with the certificate of WHO or `none`.
by_curl() {
    local port=$1 who=$2 asked=$3
    shift 3
    [[ $who == none ]] || set -- --cert "who/$who.pem" --key "who/$who.key" "$@"
    send "https://$host:$port" "$asked" --cacert certs/ca.pem "$@"
}

# as_proxy PORT ASKED OPTION...: in plain text, as a load balancer would.
as_proxy() { local port=$1; shift; send "http://$host:$port" "$@"; }

send() {
    local origin=$1 method path body
    read -r method path body <<<"${request[$2]}"
    shift 2
    curl -sS -i --http1.1 --max-time 20 --request "$method" ${body:+--data "$body"} "$@" "$origin$path"
}

curl_1.2() { by_curl "$@" --tlsv1.2 --tls-max 1.2; }
curl_1.3() { by_curl "$@" --tlsv1.3; }
openssl_1.2() { by_openssl -tls1_2 "$@"; }
openssl_1.3() { by_openssl -tls1_3 "$@"; }
python_1.2() { by_python TLSv1_2 "$@"; }
python_1.3() { by_python TLSv1_3 "$@"; }

by_openssl() {
    local version=$1 port=$2 who=$3 method path body certificate=()
    read -r method path body <<<"${request[$4]}"
    [[ $who == none ]] || certificate=(-cert "who/$who.pem" -key "who/$who.key")
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %s\r\n\r\n%s' "$method" "$path" \
        "${body:+$'Content-Type: application/x-www-form-urlencoded\r\n'}" "${#body}" "$body" |
        timeout 20 openssl s_client -quiet -verify_return_error -CAfile certs/ca.pem "$version" "${certificate[@]}" \
            -servername localhost -connect "$host:$port"
}

by_python() {
    local method path body
    read -r method path body <<<"${request[$4]}"
    timeout 20 python3 - "$1" "$host" "$2" "$3" "$method" "$path" "$body" <<'PYTHON'
import http.client, ssl, sys
version, host, port, who, method, path, body = sys.argv[1:]
context = ssl.create_default_context(cafile="certs/ca.pem")
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
if who != "none":
    context.load_cert_chain(f"who/{who}.pem", f"who/{who}.key")
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
connection.request(method, path, body or None, kind)
answer = connection.getresponse()
print(f"HTTP/1.1 {answer.status} {answer.reason}", answer.headers, answer.read().decode(), sep="\n")
PYTHON
}

# --- what is expected -------------------------------------------------------------------------------

header_of() { sed -n "s/^$1: *\([^[:cntrl:]]*\).*/\1/Ip" <<<"$2"; }
logged() { grep -F "\"request_id\":\"$1\"" gateway.out | grep -F "$2"; }
refusals() { grep -F 'client certificate refused' gateway.err | grep -cF "$1"; }
more_refusals() { (($(refusals "$1") > $2)); }

# gets 'STATUS WHY' REQUEST...: WHY stands in the gateway's log, for this very request. The status
# `refused` is a handshake that failed, for a reason that the gateway has told once more than before.
gets() {
    local wanted why before response status
    read -r wanted why <<<"$1"
    shift
    before=$(refusals "$why") || true
    response=$("$@") || true
    status=$(sed -n '1s|^HTTP/[0-9.]* \([0-9]*\).*|\1|p' <<<"$response")
    [[ ${status:-refused} == "$wanted" ]] || { echo "wanted $wanted $why, got ${status:-no answer}: ${response:0:300}"; return 1; }
    [[ $why ]] || return 0
    if [[ $wanted == refused ]]; then
        until_true more_refusals "$why" "$before"
    else
        until_true logged "$(header_of x-request-id "$response")" "$why"
    fi
}

# wanted WHO ASKED BAD: what a caller gets; BAD is what becomes of a certificate that is not believed.
wanted() {
    case $1:$2 in
    *:tokens) echo 401 token-missing ;;
    known:*) echo 200 ;;
    unknown:listed) echo 403 certificate-not-listed ;;
    unknown:*) echo 401 certificate-unknown ;;
    none:token) echo 401 client-auth-missing ;;
    none:listed) echo 401 certificate-missing ;;
    none:*) echo 401 token-missing ;;
    expired:*) echo "$3 it has expired" ;;
    revoked:*) echo "$3 is on the revocation list of its CA" ;;
    impostor:*) echo "$3 another CA of the same name issued it" ;;
    esac
}

# told NAME VALUE REQUEST...: the call arrives, and the backend is told this in a header.
told() {
    local response line="\"$1\": \"$2\""
    shift 2
    response=$("$@") && [[ $response == HTTP/*' 200 '*"$line"* ]] || { echo "no $line in: $response"; return 1; }
}

# certificate_stays_behind REQUEST...: the call arrives with its other headers, no certificate does.
certificate_stays_behind() {
    local response
    response=$("$@" --header 'X-Order: 4711') && [[ $response == *'"x-order": "4711"'* ]] ||
        { echo "the call did not arrive: ${response:0:300}"; return 1; }
    ! grep -iE '"[a-z_-]*client[_-]cert[a-z_-]*":' <<<"$response"
}

# --- the checks -------------------------------------------------------------------------------------

check_direct() {
    local client who asked
    for client in {curl,openssl,python}_1.{2,3}; do
        for asked in token call tokens listed; do
            for who in known unknown none; do
                check "proxies direct, $client: $who, $asked" gets "$(wanted $who $asked)" "$client" "$direct" $who $asked
            done
        done
        for who in expired revoked impostor; do
            check "proxies direct, $client: $who, no handshake" gets "$(wanted $who token refused)" "$client" "$direct" $who token
        done
    done
}

# through PROXY PORT
through() {
    local who asked own
    for who in known unknown none expired revoked impostor; do
        for asked in token call tokens listed; do
            check "proxies $1: $who, $asked" gets "$(wanted $who $asked 401)" by_curl "$2" $who $asked
        done
    done
    for own in X-SSL-Client-Cert X_SSL_Client_Cert Client-Cert X-Forwarded-Client-Cert; do
        check "proxies $1: $own of the caller's own making, without a certificate" \
            gets '401 token-missing' by_curl "$2" none call --header "$own: $(base64_der known)"
        check "proxies $1: $own of the caller's own making, beside an unknown certificate" \
            gets '401 certificate-unknown' by_curl "$2" unknown call --header "$own: $(base64_der known)"
    done
    check "proxies $1: the certificate does not reach the backend" certificate_stays_behind by_curl "$2" known call
}

check_addresses() {
    local from
    for from in 127.0.0.2 127.0.0.3; do
        check "proxies haproxy: the backend is told of $from" \
            told x-forwarded-for $from by_curl "$haproxy" known call --interface $from
        check "proxies haproxy: the log is told of $from" \
            gets "401 \"peer\":\"$from:" by_curl "$haproxy" none call --interface $from
        check "proxies nginx: the backend is told of $from and of nginx" \
            told x-forwarded-for "$from, $host" by_curl "$nginx" known call --interface $from
    done
    check "proxies haproxy: no PROXY header, no answer" gets refused as_proxy "$for_haproxy" open
    check "proxies haproxy: with a PROXY header, an answer" gets 200 as_proxy "$for_haproxy" open --haproxy-protocol
}

# The same values are believed where a trusted proxy sends them, so that refusing means something.
check_forms() {
    local asked der pem
    der=$(base64_der known) pem=$(percent_pem known)
    for asked in token call listed; do
        check "proxies header: percent-encoded PEM, $asked" gets 200 as_proxy "$for_nginx" $asked --header "X-SSL-Client-Cert: $pem"
        check "proxies header: base64, $asked" gets 200 as_proxy "$for_nginx" $asked --header "X-SSL-Client-Cert: $der"
        check "proxies header: RFC 9440, $asked" gets 200 as_proxy "$rfc9440" $asked --header "Client-Cert: :$der:"
        check "proxies header: RFC 9440 with a chain, $asked" gets 200 as_proxy "$rfc9440" $asked --header "Client-Cert: :$der:" \
            --header "Client-Cert-Chain: :$(openssl x509 -in ca/partner/ca.pem -outform der | base64 -w0):"
        check "proxies header: Envoy, $asked" gets 200 as_proxy "$envoy" $asked --header "X-Forwarded-Client-Cert: Hash=00;Cert=\"$pem\""
    done
}

check_spoofing() {
    local asked spoof der pem
    der=$(base64_der known) pem=$(percent_pem known)
    for spoof in "X-Forwarded-Client-Cert: Hash=00;Cert=\"$pem\"" "X-SSL-Client-Cert: $pem" "Client-Cert: :$der:" "X_Forwarded_Client_Cert: Cert=$pem"; do
        for asked in token call listed; do
            check "proxies spoofing: ${spoof%%:*} of a stranger, $asked" \
                gets "$(wanted none $asked)" as_proxy "$stranger" $asked --header "$spoof"
            check "proxies spoofing: ${spoof%%:*} over TLS, $asked" \
                gets "$(wanted none $asked)" by_curl "$direct" none $asked --header "$spoof"
        done
        check "proxies spoofing: ${spoof%%:*} of a stranger does not reach an open backend" \
            certificate_stays_behind as_proxy "$stranger" open --header "$spoof"
        check "proxies spoofing: ${spoof%%:*} over TLS does not reach an open backend" \
            certificate_stays_behind by_curl "$direct" none open --header "$spoof"
    done
}

check_malformed() {
    local what port first second asked der pem
    der=$(base64_der known) pem=$(percent_pem known)
    while IFS='|' read -r what port first second; do
        for asked in token call listed; do
            check "proxies header: $what, $asked" gets '400 certificate-header' \
                as_proxy "$port" $asked --header "$first" ${second:+--header "$second"}
        done
    done <<CASES
PEM twice|$for_nginx|X-SSL-Client-Cert: $pem|X-SSL-Client-Cert: $pem
PEM, then nothing|$for_nginx|X-SSL-Client-Cert: $pem|X-SSL-Client-Cert;
no base64|$for_nginx|X-SSL-Client-Cert: known!
base64 of something else|$for_nginx|X-SSL-Client-Cert: AAAA
PEM cut short|$for_nginx|X-SSL-Client-Cert: ${pem:0:300}
not UTF-8|$for_nginx|X-SSL-Client-Cert: %FF
RFC 9440 twice|$rfc9440|Client-Cert: :$der:|Client-Cert: :$der:
RFC 9440 without colons|$rfc9440|Client-Cert: $der
RFC 9440 of something else|$rfc9440|Client-Cert: :AAAA:
RFC 9440 with a bad chain|$rfc9440|Client-Cert: :$der:|Client-Cert-Chain: (:$der:)
Envoy, two callers|$envoy|X-Forwarded-Client-Cert: Cert="$pem",Cert="$pem"
Envoy without a certificate|$envoy|X-Forwarded-Client-Cert: Hash=00
CASES
}

token() { "$@" | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p' | grep .; }

# bound_to WHO TOKEN: the token names the certificate's thumbprint (RFC 8705, 3.1).
bound_to() {
    python3 - "$2" "$(base64_der "$1")" <<'PYTHON'
import base64, hashlib, json, sys
claims = sys.argv[1].split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
digest = hashlib.sha256(base64.b64decode(sys.argv[2])).digest()
wanted = base64.urlsafe_b64encode(digest).decode().rstrip("=")
assert claims.get("cnf") == {"x5t#S256": wanted}, (claims.get("cnf"), wanted)
PYTHON
}

issues_bound() { bound_to known "$(token by_curl "$direct" known token)"; }

# Tokens bind whom they were issued to wherever they are shown, whichever way the certificate came.
check_bound() {
    local free port name issuer bearer
    free=$(token by_curl "$direct" known token) || true
    check "proxies bound: before, a token is of use without a certificate" \
        gets 200 by_curl "$direct" none call --header "Authorization: Bearer $free"
    flowgate instance update partner --certificate-bound-access-tokens true
    check "proxies bound: tokens name their certificate" until_true issues_bound
    check "proxies bound: one from before is of no more use" \
        gets '401 token-certificate-missing' by_curl "$direct" none call --header "Authorization: Bearer $free"
    for issuer in direct nginx haproxy; do
        bearer="Authorization: Bearer $(token by_curl "${!issuer}" known token)" || true
        check "proxies bound: the token names the certificate, issued: $issuer" bound_to known "${bearer##* }"
        for name in direct nginx haproxy; do
            port=${!name}
            check "proxies bound: its certificate, issued: $issuer, shown: $name" \
                gets 200 by_curl "$port" known tokens --header "$bearer"
            check "proxies bound: another certificate, issued: $issuer, shown: $name" \
                gets '401 token-certificate-other' by_curl "$port" renewable tokens --header "$bearer"
            check "proxies bound: no certificate, issued: $issuer, shown: $name" \
                gets '401 token-certificate-missing' by_curl "$port" none tokens --header "$bearer"
        done
    done
    check "proxies bound: its certificate in a stranger's header" gets '401 token-certificate-missing' \
        as_proxy "$stranger" call --header "$bearer" --header "X-Forwarded-Client-Cert: Cert=$(percent_pem known)"
}

make_certificates >openssl.log 2>&1
start_all
{
    check_direct
    through nginx "$nginx"
    through haproxy "$haproxy"
    check_addresses
    check_forms
    check_spoofing
    check_malformed
    check_bound
} | tee results
echo "proxies: $(grep -c '^ok ' results || true) passed, $(grep -c '^not ok ' results || true) failed"
