"""Clients for Python: clients.py FOLDER. Trust comes from REQUESTS_CA_BUNDLE and SSL_CERT_FILE."""

import json
import pathlib
import ssl
import sys

import httpx
import requests
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session
from sap import xssec

KEYS = pathlib.Path(sys.argv[1], "keys")
CERTIFICATE = (str(KEYS / "cert.pem"), str(KEYS / "cert.key"))


def read(name):
    return json.loads((KEYS / f"{name}.json").read_text())


KEY = read("demo-sender")["oauth"]
INSTANCE = read("instance")
CREDENTIALS = (KEY["clientid"], KEY["clientsecret"])
TOKEN_URL = KEY["tokenurl"]
FLOW = KEY["url"] + "/http/orders/1"
SCOPE = INSTANCE["xsappname"] + ".ESBMessaging.send"
QUERY = {"grant_type": "client_credentials"}


def body_of(response):
    assert response.status_code == 200, f"{response.status_code} {response.text}"
    return response.json()


def call(get, **options):
    assert body_of(get(FLOW, **options))["flow"] == "echo"


def call_with(token, get):
    call(get, headers={"Authorization": f"Bearer {token}"})


def fetch_by_query(session, **options):
    """requests and httpx alike: POST with a query and no body, then the call."""
    answer = body_of(session.post(TOKEN_URL, params=QUERY, **options))
    call_with(answer["access_token"], session.get)


def requests_secret():
    fetch_by_query(requests, auth=CREDENTIALS)


def requests_certificate():
    fetch_by_query(requests, cert=CERTIFICATE)


def httpx_secret():
    with httpx.Client() as client:
        fetch_by_query(client, auth=CREDENTIALS)


def httpx_certificate():
    context = ssl.create_default_context()
    context.load_cert_chain(*CERTIFICATE)
    with httpx.Client(verify=context) as client:
        fetch_by_query(client)


def requests_oauthlib(scope=None, **options):
    with OAuth2Session(client=BackendApplicationClient(client_id=KEY["clientid"]), scope=scope) as session:
        session.fetch_token(TOKEN_URL, **options)
        call(session.get)


def authlib(method, secret=KEY["clientsecret"], **options):
    with AuthlibSession(KEY["clientid"], secret, token_endpoint_auth_method=method, scope=SCOPE) as session:
        token = session.fetch_token(TOKEN_URL, grant_type="client_credentials", **options)
        assert token["scope"] == SCOPE, token["scope"]
        call(session.get)


def sap_xssec():
    """Without `verificationkey`, to which the library would fall back when it cannot use the key set."""
    binding = {name: INSTANCE[name] for name in INSTANCE if name != "verificationkey"} | KEY
    token = body_of(requests.post(TOKEN_URL, params=QUERY, auth=CREDENTIALS))["access_token"]
    context = xssec.create_security_context(token, binding)
    assert context.check_scope(SCOPE)
    assert context.check_local_scope("ESBMessaging.send")
    assert not context.check_local_scope("Other.send")
    call_with(token, requests.get)


CHECKS = {
    "requests: query and Basic": requests_secret,
    "requests: certificate": requests_certificate,
    "httpx: query and Basic": httpx_secret,
    "httpx: certificate": httpx_certificate,
    "requests-oauthlib: Basic": lambda: requests_oauthlib(auth=HTTPBasicAuth(*CREDENTIALS)),
    "requests-oauthlib: body": lambda: requests_oauthlib(
        client_secret=KEY["clientsecret"], include_client_id=True
    ),
    "requests-oauthlib: with a scope": lambda: requests_oauthlib(
        scope=[SCOPE], auth=HTTPBasicAuth(*CREDENTIALS)
    ),
    "Authlib: client_secret_basic": lambda: authlib("client_secret_basic"),
    "Authlib: client_secret_post": lambda: authlib("client_secret_post"),
    "Authlib: none, certificate": lambda: authlib("none", secret=None, cert=CERTIFICATE),
    "sap-xssec: validation": sap_xssec,
}

for name, run in CHECKS.items():
    try:
        run()
        print(f"ok {name}", flush=True)
    except Exception as error:  # whatever a library raises is the check's result
        print(f"not ok {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
