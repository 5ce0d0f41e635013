"""Clients that take their time, or too much of what there is: slow.py CHECK.

SMALL_PORT is a listener with few connections, ADMIN_PORT the gateway's own side, ORIGIN_PORT the backend. What a
limit permits is what limits.sh has configured, a sweep of each second included.
"""

import contextlib
import itertools
import os
import pathlib
import select
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection

from h2.events import ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, HeadersFrame

import world
from http2_client import Http2Client

SMALL_PORT, ADMIN_PORT, ORIGIN_PORT = (int(os.environ[name]) for name in ("SMALL_PORT", "ADMIN_PORT", "ORIGIN_PORT"))
CUT_OFF, GRACE, PAUSE, QUIET = 6, 3, 0.5, 0.3
LARGE, LITTLE = 50 << 20, 32 << 10
GOAWAY = b"\0\0\x08\x07\0\0\0\0\0"  # how a frame of this type begins that says no more than it must


# --- connections ----------------------------------------------------------------------------------------------


def plain(port=world.PLAIN_PORT, address=world.HOST):
    return socket.create_connection((world.HOST, port), timeout=world.PATIENCE, source_address=(address, 0))


def asks(connection, target, method="GET", *fields):
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields, "", ""]
    connection.sendall("\r\n".join(lines).encode())


def answer(connection):
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response


def served(connection, target="/open/served"):
    asks(connection, target)
    status = answer(connection).status
    assert status == 200, f"got {status}"


def until_closed(connection, within=CUT_OFF):
    """What still comes."""
    deadline, octets = time.monotonic() + within, b""
    with contextlib.suppress(ConnectionError):
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                more = connection.recv(1 << 20)
            except TimeoutError:
                break
            if not more:
                return octets
            octets += more
        raise AssertionError(f"still open after {within} s")
    return octets


def drips(connection, pieces, within=CUT_OFF):
    """Sends piece by piece until the server ends it."""
    deadline = time.monotonic() + within
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        for piece in pieces:
            assert time.monotonic() < deadline, f"still open after {within} s"
            connection.sendall(piece)
            if select.select([connection], [], [], PAUSE)[0] and not connection.recv(1 << 16):
                return


# --- slow clients ---------------------------------------------------------------------------------------------


def head_drips():
    with plain() as connection:
        drips(connection, itertools.chain([b"G", b"E", b"T"], itertools.repeat(b" ")))


def later_head_drips():
    """After a request that was whole."""
    with plain() as connection:
        served(connection)
        drips(connection, itertools.chain([b"GET / HTTP/1.1\r\nX-Name: "], itertools.repeat(b"a")))


def http2_head_drips():
    head = Encoder().encode([(":method", "GET"), (":scheme", "https"), (":path", "/open/x"), (":authority", "a")])
    with Http2Client() as http:
        begun = HeadersFrame(1, head, flags=["END_STREAM"]).serialize()
        more = Encoder().encode([("x-name", "a")], huffman=False)
        pieces = itertools.chain([begun], itertools.repeat(ContinuationFrame(1, more).serialize()))
        drips(http.socket, pieces, CUT_OFF + GRACE)


def body_pauses():
    with plain() as connection:
        asks(connection, "/open/pauses", "POST", "Content-Length: 10")
        connection.sendall(b"order")
        told = until_closed(connection)
    assert told.startswith(b"HTTP/1.1 408 "), told


def http2_body_pauses():
    with Http2Client() as http:
        stream = http.request("/open/pauses", method="POST")
        http.send(stream, b"order")
        head = dict(http.next(ResponseReceived, stream).headers)
    assert head[":status"] == "408", head


def released_by(target, begun):
    world.until_noted(event="broken", target=target)
    taken = time.monotonic() - begun
    assert taken < world.PATIENCE, f"the backend's connection is released after {taken:.0f} s"


def answer_unread():
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
        connection.connect((world.HOST, world.PLAIN_PORT))
        begun = time.monotonic()
        asks(connection, "/open/unread/large")
        released_by("/open/unread/large", begun)
        assert len(until_closed(connection)) < LARGE, "the whole answer came"


def http2_answer_unread():
    """Its window stays closed, while the connection itself takes all that is sent."""
    with Http2Client() as http:
        begun = time.monotonic()
        http.request("/open/http2-unread/large", end=True)
        released_by("/open/http2-unread/large", begun)


def http2_one_answer_unread():
    """The client takes other answers on the same connection, whose own window stays open."""
    with Http2Client() as http:
        http.state.increment_flow_control_window(1 << 30)
        begun = time.monotonic()
        http.request("/open/http2-one-unread/large", end=True)
        while not world.noted(event="broken", target="/open/http2-one-unread/large"):
            assert time.monotonic() - begun < world.PATIENCE, "the backend's connection is still held"
            # the library takes nothing any more once it has been told of the end
            with contextlib.suppress(OSError, ProtocolError):
                http.next(StreamEnded, http.request("/open/other", end=True))
            time.sleep(PAUSE)


def answer_read_slowly():
    """Who takes a little now and then is let."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
        connection.connect((world.HOST, world.PLAIN_PORT))
        asks(connection, "/open/slowly/large")
        until = time.monotonic() + CUT_OFF
        while time.monotonic() < until:
            assert connection.recv(LITTLE), "cut off"
            select.select([], [], [], QUIET)
        assert not world.noted(event="broken", target="/open/slowly/large"), "the backend's connection is gone"


def idle():
    with plain() as connection:
        served(connection)
        told = until_closed(connection)
    assert not told, told


def http2_idle():
    with Http2Client() as http:
        http.next(ResponseReceived, http.request("/open/idle", end=True))
        told = until_closed(http.socket, CUT_OFF + GRACE)
    assert GOAWAY in told, told


def silent():
    """A client that has never said a word may first be asked to go."""
    with plain() as connection:
        told = until_closed(connection, CUT_OFF + GRACE)
    assert not told, told


def no_handshake():
    with plain(world.TLS_PORT) as connection:
        connection.sendall(b"\x16\x03\x01")
        until_closed(connection, 4)


def meanwhile():
    """Others are served at once, for as long as there is no file that says it is over."""
    count = 0
    while not pathlib.Path("log/calm").exists():
        begun = time.monotonic()
        other = HTTPSConnection("localhost", world.TLS_PORT, timeout=world.PATIENCE, context=world.trust())
        with contextlib.closing(other):
            other.request("GET", "/open/meanwhile")
            status = other.getresponse().status
        taken = time.monotonic() - begun
        assert (status, taken < CUT_OFF / 3) == (200, True), f"call {count}: {status} after {taken:.1f} s"
        count += 1
        time.sleep(0.1)
    assert count > 20, f"{count} calls"


# --- too many of them -----------------------------------------------------------------------------------------


def served_in_turn(last, first):
    """The last one is served when the first one has left, and not before."""
    asks(last, "/open/last")
    assert not select.select([last], [], [], QUIET)[0], "there is room for one more"
    first.close()
    status = answer(last).status
    assert status == 200, f"got {status}"


def listener_connections(most):
    """Who is served before others have come: lanes share out those that wait in any order."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(plain(SMALL_PORT)) for _ in range(int(most))]
        for each in connections:
            served(each)
        served_in_turn(stack.enter_context(plain(SMALL_PORT)), connections[0])


def address_connections(most):
    """One more is closed at once; other addresses do not notice."""
    address = "127.0.0.9"

    def admitted():
        with plain(address=address) as another, contextlib.suppress(ConnectionError):
            asks(another, "/open/served")
            return another.recv(1 << 16)

    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(plain(address=address)) for _ in range(int(most))]
        for each in connections:
            served(each)
        assert not admitted(), "there is room for one more"
        served(stack.enter_context(plain()))
        connections[0].close()
        world.until(admitted, "room after one has left")


def get(port, target):
    connection = HTTPConnection(world.HOST, port, timeout=world.PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", target)
        return connection.getresponse().status


def requests(most):
    """Of so many more at once, those above the bound are told to come back; the gateway's own side still answers."""
    most, target = int(most), "/open/held/hold"
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(plain()) for _ in range(2 * most)]
        for each in held:
            asks(each, target)
        refused = world.until(lambda: over(held, target), "all of them")
        assert len(held) - len(refused) <= most, f"{len(held) - len(refused)} at once"
        for each in refused:
            told = answer(each)
            assert (told.status, told.headers["retry-after"]) == (503, "1"), told.headers
            held.remove(each)
        assert get(ADMIN_PORT, "/healthz") == 200
        get(ORIGIN_PORT, "/release")
        assert {answer(each).status for each in held} == {200}
        served(held[0])


def over(held, target):
    """Those that have an answer, once all others are at the backend."""
    answered = select.select(held, [], [], 0)[0]
    return answered if len(answered) + len(world.noted(event="end", target=target)) == len(held) else None


def requests_of_one(most):
    """As many as the bound says, on one connection."""
    most, target = int(most), "/open/held-by-one/hold"
    with Http2Client() as http:
        streams = [http.request(target, end=True) for _ in range(most)]
        world.until(lambda: len(world.noted(event="end", target=target)) == most, f"{most} calls at the backend", 3)
        get(ORIGIN_PORT, "/release")
        statuses = {dict(http.next(ResponseReceived).headers)[":status"] for _ in streams}
    assert statuses == {"200"}, statuses


if __name__ == "__main__":
    world.run(globals())
