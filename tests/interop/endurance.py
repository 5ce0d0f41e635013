"""All kinds of callers at once, without pause: endurance.py PORT TLS CA KEY KILLS JOURNAL

Calls until SIGTERM. Then it tells how many calls of each kind there were and what became of those that
failed. KILLS has the times at which a backend was killed: a POST that was under way there may have failed, but its id
may have arrived no more than once, which JOURNAL tells.
"""

import base64
import collections
import http.client
import itertools
import json
import pathlib
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from functools import partial

PORT, TLS, CA, KEY, KILLS, JOURNAL = sys.argv[1:]
HOST, PATIENCE, PAUSE = "127.0.0.1", 10, 0.01
# so long a token is used: the gateway remembers each one, which is not to look like a leak
LIFE = 60
# between a kill and the moment at which every connection tells of it
AFTERMATH = 0.2
UPLOAD = bytes(256 << 10)
Failure = collections.namedtuple("Failure", "kind method target start end what")

stopping = threading.Event()
numbers = itertools.count()
calls = collections.Counter()
failures = []
token = ""

context = ssl.create_default_context(cafile=CA)
client = json.loads(pathlib.Path(KEY).read_text())["oauth"]


def plain():
    return http.client.HTTPConnection(HOST, int(PORT), timeout=PATIENCE)


def secure():
    return http.client.HTTPSConnection(HOST, int(TLS), timeout=PATIENCE, context=context)


# --- calls ----------------------------------------------------------------------------------------------------


def exchange(connection, method, target, content=None, headers=None):
    """The content of a good answer."""
    connection.request(method, target, content, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {json.loads(content).get('code')}")
    return content


def counted(kind, method, target, action):
    """What the action returns, unless it fails."""
    start = time.time()
    calls[kind] += 1
    try:
        return action()
    except (http.client.HTTPException, OSError, ValueError, AssertionError) as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        failures.append(Failure(kind, method, target, start, time.time(), what))


def caller(kind, make, method, path, content=None, kept=True, headers=dict):
    """Calls again and again, each time with a target of its own."""
    connection = make()
    while not stopping.wait(PAUSE):
        target = f"{path}?{next(numbers)}"
        send = partial(exchange, connection, method, target, content, headers())
        if counted(kind, method, target, send) is None or not kept:
            connection.close()


def bearer():
    return {"Authorization": f"Bearer {token}"}


def fetch(connection):
    basic = base64.b64encode(f"{client['clientid']}:{client['clientsecret']}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    content = urllib.parse.urlencode({"grant_type": "client_credentials"})
    return json.loads(exchange(connection, "POST", "/oauth/token", content, headers))["access_token"]


def fetch_tokens():
    global token
    connection, renewed = secure(), time.monotonic()
    while not stopping.wait(10 * PAUSE):
        fresh = counted("tokens", "POST", "/oauth/token", partial(fetch, connection))
        if fresh is None:
            connection.close()
        elif time.monotonic() - renewed > LIFE:
            token, renewed = fresh, time.monotonic()


# --- what goes on for long ------------------------------------------------------------------------------------


def stream():
    """Server-sent events, from the first to the last."""
    connection = plain()
    connection.request("GET", "/steady/stream")
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    for number in itertools.count():
        assert (line := answer.readline()) == b"data: %d\n" % number, line
        assert answer.readline() == b"\n"
        calls["events of one stream"] += 1
        if stopping.is_set():
            break


def tunnel():
    """What is sent into a WebSocket comes back."""
    with socket.create_connection((HOST, int(PORT)), PATIENCE) as connection:
        connection.sendall(b"GET /steady/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        while not stopping.wait(PAUSE):
            sent = b"%8d" % calls["echoes of one tunnel"]
            connection.sendall(sent)
            assert connection.recv(len(sent), socket.MSG_WAITALL) == sent
            calls["echoes of one tunnel"] += 1


# --- all together ---------------------------------------------------------------------------------------------

CALLERS = [
    partial(caller, "reads", plain, "GET", "/open/itself"),
    partial(caller, "reads on new connections", plain, "GET", "/open/itself", kept=False),
    partial(caller, "reads on new TLS connections", secure, "GET", "/open/itself", kept=False),
    partial(caller, "slow reads", plain, "GET", "/open/slow"),
    partial(caller, "reads with a token", secure, "GET", "/closed/itself", headers=bearer),
    partial(caller, "orders with a token", secure, "POST", "/closed/itself", b"order", headers=bearer),
    partial(caller, "slow orders", plain, "POST", "/open/slow", b"order"),
    partial(caller, "uploads", plain, "POST", "/open/itself", UPLOAD),
    partial(fetch_tokens),
    partial(counted, "streams", "GET", "/steady/stream", stream),
    partial(counted, "tunnels", "GET", "/steady/tunnel", tunnel),
]


def run():
    global token
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    token = fetch(secure())
    threads = [threading.Thread(target=each) for each in CALLERS]
    for each in threads:
        each.start()
    signal.sigwait({signal.SIGTERM})
    stopping.set()
    for each in threads:
        each.join()


def excused(failure, kills):
    under_way = any(failure.start - AFTERMATH <= kill <= failure.end for kill in kills)
    return failure.method == "POST" and failure.what == "502 backend_failed" and under_way


def tell():
    kills = [float(line) for line in pathlib.Path(KILLS).read_text().split()]
    arrivals = collections.Counter(tuple(line.split()[3:]) for line in pathlib.Path(JOURNAL).read_text().splitlines())
    for kind, count in calls.items():
        print(f"calls {count} {kind}")
    for failure in failures:
        word = "excused" if excused(failure, kills) else "failed"
        print(f"{word} {failure.method} {failure.target}: {failure.what}")
    for (method, target), count in arrivals.items():
        if method == "POST" and count > 1:
            print(f"repeated {count} {target}")


run()
tell()
