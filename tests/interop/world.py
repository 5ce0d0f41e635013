"""What the programs of protocols.sh and limits.sh share: where the gateway is, tokens, and the backends' journal.

They run in the folder of the gateway's configuration; TLS_PORT and PLAIN_PORT are its listeners.
"""

import base64
import json
import os
import pathlib
import ssl
import sys
import time
import urllib.parse
import urllib.request

HOST = "127.0.0.1"
TLS_PORT, PLAIN_PORT = (int(os.environ.get(name, 0)) for name in ("TLS_PORT", "PLAIN_PORT"))
JOURNAL = pathlib.Path("log/journal")
PATIENCE = 10


def run(functions):
    """Calls what the command line names; the reason why that fails goes to the standard error."""
    name, *arguments = sys.argv[1:]
    try:
        functions[name](*arguments)
    except Exception as error:  # whatever a library raises is the check's result
        sys.exit(f"{type(error).__name__}: {error}")


def until(condition, what, patience=PATIENCE):
    """What the condition gives once that is true."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.02)
    return found


# --- the backends' journal ------------------------------------------------------------------------------------


def note(**members):
    with JOURNAL.open("a") as journal:
        journal.write(json.dumps(members) + "\n")


def noted(**wanted):
    """All notes with these members."""
    with JOURNAL.open() as journal:
        notes = map(json.loads, journal)
        return [each for each in notes if wanted.items() <= each.items()]


def until_noted(**wanted):
    return until(lambda: noted(**wanted), wanted)[0]


# --- the gateway ----------------------------------------------------------------------------------------------


def trust():
    return ssl.create_default_context(cafile="certs/ca.pem")


def post(path, key, **form):
    """Calls the token server with a service key's secret."""
    oauth = json.loads(pathlib.Path("keys", f"{key}.json").read_text())["oauth"]
    basic = base64.b64encode(f"{oauth['clientid']}:{oauth['clientsecret']}".encode()).decode()
    request = urllib.request.Request(
        f"https://localhost:{TLS_PORT}{path}",
        urllib.parse.urlencode(form).encode(),
        {"Authorization": f"Basic {basic}"},
    )
    with urllib.request.urlopen(request, context=trust(), timeout=PATIENCE) as answer:
        return answer.read()


def token(key="demo-sender"):
    return json.loads(post("/oauth/token", key, grant_type="client_credentials"))["access_token"]


def bearer(of):
    return {"Authorization": f"Bearer {of}"}
