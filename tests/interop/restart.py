"""Who deals with a gateway that restarts: restart.py load|goaway|tunnel|late|queued|served|reloads ARGUMENT...

`load` calls without pause until SIGTERM, then tells how many calls there were and what became of those that failed. The
next four send SIGTERM to the gateway's process and tell how their connections end. `served` counts connections,
`reloads` sends SIGHUP again and again and tells what the process takes up.
"""

import collections
import contextlib
import http.client
import os
import pathlib
import re
import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from functools import partial

HOST, PATIENCE = "127.0.0.1", 15
GET = b"GET /open/itself HTTP/1.1\r\nHost: x\r\n\r\n"

# --- calls without pause --------------------------------------------------------------------------------------

CALLERS = 3


class Load:
    """Callers with a new connection for each call, and callers that keep theirs, with and without TLS."""

    def __init__(self, port, tls, ca):
        self.makers = {"plain": partial(to_gateway, port), "TLS": partial(to_gateway, tls, trust(ca))}
        self.calls, self.failures, self.stopping = collections.Counter(), collections.Counter(), False
        self.lock = threading.Lock()

    def run(self):
        kinds = [(name, kept) for name in self.makers for kept in (False, True)] * CALLERS
        threads = [threading.Thread(target=self.caller, args=kind) for kind in kinds]
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        for each in threads:
            each.start()
        signal.sigwait({signal.SIGTERM})
        self.stopping = True
        for each in threads:
            each.join()

    def caller(self, name, kept):
        kind = f"{name}, {'kept' if kept else 'new'}"
        connection = self.makers[name]()
        while not self.stopping:
            failure = call(connection)
            with self.lock:
                self.calls[kind] += 1
                self.failures[kind, failure] += bool(failure)
            if failure or not kept:
                connection.close()


def trust(ca):
    return ssl.create_default_context(cafile=ca)


def to_gateway(port, context=None):
    """A connection that is yet to be made."""
    if context:
        return http.client.HTTPSConnection(HOST, int(port), timeout=PATIENCE, context=context)
    return http.client.HTTPConnection(HOST, int(port), timeout=PATIENCE)


def call(connection):
    """What is wrong with the answer. Between two calls a connection may end, which the second one finds out."""
    kept = connection.sock is not None
    try:
        connection.request("GET", "/open/itself")
        answer = connection.getresponse()
        content = answer.read()
        return "" if (answer.status, content) == (200, b"ok\n") else f"{answer.status} {content[:80]}"
    except (http.client.HTTPException, OSError) as error:
        connection.close()
        if kept and isinstance(error, (ConnectionError, ssl.SSLEOFError)):
            return call(connection)
        return f"{type(error).__name__} {error}"


def load(*arguments):
    work = Load(*arguments)
    work.run()
    for kind, count in sorted(work.calls.items()):
        print(f"calls {count} {kind}")
    for (kind, failure), count in work.failures.items():
        if failure:
            print(f"failed {count} {kind}: {failure}")


# --- one connection -------------------------------------------------------------------------------------------

SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1


def frame(kind, payload=b"", flags=0):
    return struct.pack(">HBBBI", 0, len(payload), kind, flags, 0) + payload


def frames(stream):
    while head := stream.read(9):
        yield head[3], head[4], stream.read(int.from_bytes(head[:3], "big"))


def goaway(pid, port):
    """The errors of the GOAWAY frames that an HTTP/2 connection gets before it is closed."""
    errors = []
    with socket.create_connection((HOST, int(port)), PATIENCE) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
        for kind, flags, payload in frames(stream):
            if kind == SETTINGS and flags & ACK:
                os.kill(int(pid), signal.SIGTERM)
            elif kind == PING:
                connection.sendall(frame(PING, payload, ACK))
            elif kind == GOAWAY:
                errors.append(int.from_bytes(payload[4:8], "big"))
    print(*errors)


def tunnel(pid, port):
    """For how many milliseconds a WebSocket's bytes come back after the signal."""
    with socket.create_connection((HOST, int(port)), PATIENCE) as connection:
        connection.sendall(b"GET /open/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 "), "no tunnel"
        os.kill(int(pid), signal.SIGTERM)
        start = last = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while echo(connection, b"there and back"):
                last = time.monotonic()
    print(round((last - start) * 1000))


def echo(connection, octets):
    connection.sendall(octets)
    time.sleep(0.02)
    return connection.recv(len(octets))


def late(pid, port, ca=None):
    """The status line for a call that comes after the signal, on a connection from before it."""
    context = ca and trust(ca)
    with socket.create_connection((HOST, int(port)), PATIENCE) as early:
        # whoever came later has been accepted, and so has this one
        call(to_gateway(port, context))
        os.kill(int(pid), signal.SIGTERM)
        select.select([early], [], [], 0.2)
        try:
            connection = context.wrap_socket(early, server_hostname=HOST) if ca else early
            connection.sendall(GET)
            print(connection.recv(4096).split(b"\r\n")[0].decode() or "closed without an answer")
        except OSError as error:
            print(f"{type(error).__name__} {error}")


def queued(pid, port, log):
    """The answers to calls that come while no gateway is there."""
    ended = pathlib.Path(log).read_text().count("\nended")
    os.kill(int(pid), signal.SIGTERM)
    until("its end", lambda: pathlib.Path(log).read_text().count("\nended") > ended)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection((HOST, int(port)), PATIENCE)) for _ in range(100)]
        for each in waiting:
            each.sendall(GET)
        answers = collections.Counter(each.recv(4096).split(b"\r\n")[0].decode() for each in waiting)
    for line, count in answers.items():
        print(count, line)


def served(port, count):
    """On how many of so many connections a call is answered, while all of them stay open."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection((HOST, int(port)))) for _ in range(int(count))]
        for each in opened:
            each.sendall(GET)
        silent = set(opened)
        while answered := select.select(silent, [], [], 0.5)[0]:
            silent.difference_update(answered)
        print(len(opened) - len(silent))


# --- reloads --------------------------------------------------------------------------------------------------

WARM, LAST = 200, 1000


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain: {what}")
        time.sleep(0.001)


def listens(port):
    with contextlib.suppress(ConnectionError), socket.create_connection((HOST, int(port))):
        return True
    return False


def taken_up(pid):
    """Resident memory in KiB, threads and descriptors at this moment."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    numbers = [int(re.search(rf"{name}:\s*(\d+)", status)[1]) for name in ("VmRSS", "Threads")]
    return *numbers, len(os.listdir(f"/proc/{pid}/fd"))


def at_rest(pid):
    """The least of some moments: connections that are about to be closed do not count."""
    moments = []
    for _ in range(20):
        moments.append(taken_up(pid))
        time.sleep(0.02)
    return map(min, zip(*moments))


def reloads(pid, log, extra, *folders):
    """Of two configurations in turn, the second of which has the listener `extra`.

    The link to their folder is swapped, which is no event in a folder that is watched, so that a signal is one reload.
    """
    with open(log, encoding="utf-8") as told:
        told.seek(0, os.SEEK_END)
        for number in range(1, LAST + 1):
            os.symlink(folders[number % 2], "next")
            os.replace("next", "live")
            os.kill(int(pid), signal.SIGHUP)
            until(f"the end of reload {number}", lambda: told.readline().startswith("READY=1"))
            until(f"what reload {number} is to bring", lambda: listens(extra) == bool(number % 2))
            if number in (WARM, LAST):
                print(*at_rest(pid))


globals()[sys.argv[1]](*sys.argv[2:])
