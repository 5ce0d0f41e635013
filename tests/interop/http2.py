"""How a server keeps to HTTP/2 (RFC 9113) and HPACK (RFC 7541): http2.py HOST PORT PATH PID

Speaks HTTP/2 with prior knowledge over plain TCP. The server answers a call of PATH with 200, once it has all of
the request, and with as many octets as the query says, or sixteen. PID is its process, whose memory is watched
while it is flooded. One line for each check; what became of each is told on the standard error.

Sections have the numbers of RFC 7540: RFC 9113 has the preface in 3.4, malformed messages in 8.1.1, 8.2 and 8.3,
and push in 8.4. `hpack` are the sections of RFC 7541, and `generic` is what every client does.
"""

import collections
import contextlib
import itertools
import pathlib
import re
import socket
import struct
import sys
import threading
import time
from functools import partial

HOST, PORT, PATH, PID = sys.argv[1:]
PATIENCE, QUIET = 3, 0.25

# --- HPACK ----------------------------------------------------------------------------------------------------

# a pattern, and how many bits of an integer come with it
WITHOUT_INDEXING, NEVER_INDEXED, SIZE_UPDATE, INCREMENTAL, INDEXED = (0, 4), (0x10, 4), (0x20, 5), (0x40, 6), (0x80, 7)
PLAIN, HUFFMAN = (0, 7), (0x80, 7)
METHOD_GET, PATH_NAME, SCHEME_HTTP, NEWEST = 2, 4, 6, 62
STATUSES = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
DIGITS = "00000 00001 00010 011001 011010 011011 011100 011101 011110 011111".split()


def integer(form, value):
    pattern, bits = form
    most = (1 << bits) - 1
    if value < most:
        return bytes([pattern | value])
    octets, value = [pattern | most], value - most
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


indexed = partial(integer, INDEXED)


def string(octets, form=PLAIN):
    return integer(form, len(octets)) + octets


def literal(name, value, form=WITHOUT_INDEXING):
    """A field; its name is a text, or the index of one."""
    start = integer(form, name) if isinstance(name, int) else integer(form, 0) + string(name.encode("latin-1"))
    return start + string(value.encode())


def fields(*more, method="GET", scheme="http", path=PATH):
    """The field block of a request; a pseudo-header field that is None is left out."""
    pseudo = {":method": method, ":scheme": scheme, ":path": path, ":authority": f"{HOST}:{PORT}"}
    return b"".join(literal(name, value) for name, value in [*pseudo.items(), *more] if value is not None)


def status_of(block):
    """Of an answer, whose first field it is."""
    while block[0] & 0xE0 == 0x20:
        block = block[1:]
    if block[0] & 0x80:
        return STATUSES.get(block[0] & 0x7F, "a status of the dynamic table")
    value = block[2 : 2 + (block[1] & 0x7F)]
    if not block[1] & 0x80:
        return value.decode()
    codes = re.findall("000..|011...", "".join(f"{octet:08b}" for octet in value))
    return "".join(str(DIGITS.index(code)) for code in codes)


# --- frames ---------------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
WHOLE = END_STREAM | END_HEADERS
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6
CODES = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
    "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()
NO_ERROR, CANCEL = 0, 8
EXTENSION = UNKNOWN_CODE = 0xFA
LARGEST_WINDOW = 2**31 - 1
EXCLUSIVE = RESERVED = 1 << 31
WEIGHT = b"\x0f"

Frame = collections.namedtuple("Frame", "kind flags stream payload")


def frame(kind, stream, *payload, flags=0):
    """The payload has octets, and numbers of 32 bits."""
    payload = b"".join(part if isinstance(part, bytes) else struct.pack(">I", part) for part in payload)
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


data = partial(frame, DATA, flags=END_STREAM)
headers = partial(frame, HEADERS, flags=WHOLE)
priority = partial(frame, PRIORITY)
reset = partial(frame, RST_STREAM)
push = partial(frame, PUSH_PROMISE, flags=END_HEADERS)
ping = partial(frame, PING, 0)
goaway = partial(frame, GOAWAY)
window_update = partial(frame, WINDOW_UPDATE)
continuation = partial(frame, CONTINUATION, flags=END_HEADERS)


def settings(*values, flags=0):
    return frame(SETTINGS, 0, *(struct.pack(">HI", *each) for each in values), flags=flags)


def get(stream, *more, **pseudo):
    return headers(stream, fields(*more, **pseudo))


def post(stream, *more):
    """A request whose content is to follow."""
    return headers(stream, fields(*more, method="POST"), flags=END_HEADERS)


def padded(payload):
    return b"\xff" + payload + bytes(255)


def code_of(octets):
    code = int.from_bytes(octets, "big")
    return CODES[code] if code < len(CODES) else hex(code)


# --- connections ----------------------------------------------------------------------------------------------


class Peer(contextlib.AbstractContextManager):
    """A connection after the SETTINGS of both sides."""

    def __init__(self, *values, start=None):
        self.socket = socket.create_connection((HOST, int(PORT)), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""
        self.send(PREFACE, start or settings(*values))
        first = next(self.frames(), None)
        if not first or first.kind != SETTINGS or first.flags & ACK:
            raise OSError(f"the server begins with {first}")
        self.settings = dict(struct.iter_unpack(">HI", first.payload))
        self.largest = self.settings.get(MAX_FRAME_SIZE, 1 << 14)
        self.send(settings(flags=ACK))

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        """Frames, or functions of this connection that make them."""
        try:
            self.socket.sendall(b"".join(each(self) if callable(each) else each for each in frames))
        except ConnectionError:
            pass  # what the server said before it closed is still to be read

    def take(self, count):
        while len(self.unread) < count:
            octets = self.socket.recv(65536)
            if not octets:
                raise ConnectionResetError
            self.unread += octets
        octets, self.unread = self.unread[:count], self.unread[count:]
        return octets

    def frames(self):
        """What the server sends until it closes; TimeoutError when it does not."""
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                head = self.take(9)
                payload = self.take(int.from_bytes(head[:3], "big"))
                yield Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
            raise TimeoutError
        except ConnectionError:
            pass

    def outcome(self, stream=1):
        """The status of a stream that has ended, or the error that the stream or the connection had before."""
        status = error = None
        for each in self.frames():
            if each.kind == GOAWAY and (code := code_of(each.payload[4:8])) != "NO_ERROR":
                error = f"GOAWAY {code}"
            if error or each.stream != stream:
                continue
            if each.kind == RST_STREAM:
                return f"RST_STREAM {code_of(each.payload)}"
            if each.kind == HEADERS:
                status = status_of(each.payload)
            if each.kind in (HEADERS, DATA) and each.flags & END_STREAM:
                return status
        return error or "closed"


# --- what is permitted ----------------------------------------------------------------------------------------

# each can stand for any other one (RFC 9113, 5.4)
GENERIC = "PROTOCOL_ERROR", "INTERNAL_ERROR"
Check = collections.namedtuple("Check", "section sentence permitted run")
CHECKS = []


def connection_error(*codes):
    """GOAWAY may get lost, or be left out (5.4.1)."""
    return {"closed", *(f"GOAWAY {code}" for code in GENERIC + codes)}


def stream_error(*codes):
    """A server may treat it as a connection error (5.4.1)."""
    return connection_error(*codes) | {f"RST_STREAM {code}" for code in GENERIC + codes}


def check(section, sentence, permitted, run, *arguments, **options):
    CHECKS.append(Check(section, sentence, permitted, partial(run, *arguments, **options)))


def exchange(*frames, stream=1, values=(), start=None, before=b""):
    """What becomes of a stream; `before` is a request of stream 1 that has its answer first."""
    with Peer(*values, start=start) as peer:
        peer.send(before)
        if before and (outcome := peer.outcome()) != "200":
            return f"{outcome} before"
        peer.send(*frames)
        return peer.outcome(stream)


def first_line(start):
    """Of an answer, for what is no HTTP/2 at all may be answered in HTTP/1.1."""
    with socket.create_connection((HOST, int(PORT)), timeout=PATIENCE) as connection:
        connection.sendall(start)
        return connection.makefile("rb").read().split(b"\r\n")[0]


def after_refusal(request):
    """What becomes of a request that names the newest field of a refused one, unless that ended the connection."""
    with Peer() as peer:
        peer.send(request)
        if (outcome := peer.outcome()) in connection_error():
            return outcome
        peer.send(headers(3, fields(), indexed(NEWEST)))
        return f"{peer.outcome(3)} later"


def one_too_many():
    with Peer() as peer:
        last = 1 + 2 * peer.settings[MAX_CONCURRENT_STREAMS]
        peer.send(*(post(stream) for stream in range(1, last, 2)), get(last))
        return peer.outcome(last)


def acknowledged(kind, count, *frames):
    """What so many acknowledgements hold."""
    with Peer() as peer:
        peer.send(*frames)
        held = (each.payload for each in peer.frames() if each.kind == kind and each.flags & ACK)
        return tuple(itertools.islice(held, count))


def content(window, *changes, path=PATH):
    """So many octets of an answer come at first, and after each change, until its stream falls quiet."""
    counts = []
    with Peer((INITIAL_WINDOW_SIZE, window)) as peer:
        for sent in [get(1, path=path), *changes]:
            peer.send(sent)
            counts.append(0)
            with contextlib.suppress(TimeoutError):
                for each in peer.frames():
                    counts[-1] += len(each.payload) if each.kind == DATA else 0
                    peer.socket.settimeout(QUIET if each.stream == 1 else PATIENCE)
            peer.socket.settimeout(PATIENCE)
    return tuple(counts)


def taken(section, sentence, *frames, **options):
    check(section, f"{sentence}: answered", {"200"}, exchange, *frames, **options)


def fatal(section, sentence, *frames, code="PROTOCOL_ERROR", **options):
    check(section, f"{sentence}: a connection error", connection_error(code), exchange, *frames, **options)


def refused(section, sentence, *frames, code="PROTOCOL_ERROR", **options):
    check(section, f"{sentence}: a stream error", stream_error(code), exchange, *frames, **options)


def malformed(section, sentence, *frames):
    check(section, f"{sentence}: malformed", stream_error() | {"400"}, exchange, *frames)


uncompressed = partial(fatal, code="COMPRESSION_ERROR")
missized = partial(fatal, code="FRAME_SIZE_ERROR")
overflown = partial(fatal, code="FLOW_CONTROL_ERROR")
NO_WINDOW = [(INITIAL_WINDOW_SIZE, 0)]
FIELD = literal("x-name", "value")
NEW_FIELD = literal("x-name", "value", INCREMENTAL)
EMPTIED = integer(SIZE_UPDATE, 0)
BEGUN, REST = headers(1, fields()[:30], flags=END_STREAM), fields()[30:]

# --- what every client does -----------------------------------------------------------------------------------

taken("generic 1", "a request after SETTINGS of both sides", get(1))
taken("generic 2", "PRIORITY on an idle stream", priority(1, 0, WEIGHT), get(1))
taken("generic 2", "PRIORITY on a half-closed stream", get(1), priority(1, 0, WEIGHT))
taken("generic 2", "PRIORITY on a closed stream", priority(1, 0, WEIGHT), get(3), before=get(1), stream=3)
taken("generic 2", "WINDOW_UPDATE on a half-closed stream", get(1), window_update(1, 100), values=NO_WINDOW)
taken("generic 2", "WINDOW_UPDATE on a closed stream", window_update(1, 1), get(3), before=get(1), stream=3)
taken("generic 2", "RST_STREAM on a half-closed stream", get(1), reset(1, CANCEL), get(3), stream=3)
taken("generic 2", "RST_STREAM on a closed stream", reset(1, CANCEL), get(3), before=get(1), stream=3)
taken("generic 3.1", "content in one DATA frame", post(1), data(1, b"content"))
taken("generic 3.1", "content in several DATA frames", post(1), data(1, b"con", flags=0), data(1, b"tent"))
taken("generic 3.1", "DATA with padding", post(1), data(1, padded(b"content"), flags=END_STREAM | PADDED))
taken("generic 3.2", "HEADERS with padding", headers(1, padded(fields()), flags=WHOLE | PADDED))
taken("generic 3.2", "HEADERS with a priority", headers(1, 0, WEIGHT, fields(), flags=WHOLE | WITH_PRIORITY))
taken("generic 3.2", "HEADERS with padding and a priority",
      headers(1, padded(bytes(5) + fields()), flags=WHOLE | PADDED | WITH_PRIORITY))
taken("generic 3.3", "PRIORITY of any weight", priority(1, 0, b"\0"), priority(3, 0, b"\xff"), get(1))
taken("generic 3.3", "PRIORITY on any stream", priority(1, 7, WEIGHT), priority(9, 1 | EXCLUSIVE, WEIGHT), get(1))
taken("generic 3.4", "RST_STREAM, which ends one stream and no other", post(1), reset(1, CANCEL), get(3), stream=3)
taken("generic 3.5", "SETTINGS amid a request", post(1), settings((MAX_FRAME_SIZE, 1 << 15)), data(1))
taken("generic 3.7", "PING amid a request", post(1), ping(bytes(8)), data(1))
taken("generic 3.8", "GOAWAY, which leaves the client's own requests alone", get(1), goaway(0, 0, NO_ERROR))
taken("generic 3.9", "WINDOW_UPDATE for all and for one", window_update(0, 1), post(1), window_update(1, 1), data(1))
taken("generic 3.10", "a field block with CONTINUATION", BEGUN, continuation(1, REST))
taken("generic 3.10", "a field block with several CONTINUATION frames, one of them empty",
      BEGUN, continuation(1, REST[:9], flags=0), continuation(1, flags=0), continuation(1, REST[9:]))
taken("generic 4", "GET", get(1))
taken("generic 4", "HEAD", get(1, method="HEAD"))
taken("generic 4", "POST with content-length", post(1, ("content-length", "7")), data(1, b"content"))
taken("generic 4", "POST with trailers", post(1, ("te", "trailers")), data(1, b"content", flags=0), headers(1, FIELD))

SHORT = indexed(METHOD_GET) + indexed(SCHEME_HTTP) + literal(":authority", HOST)
taken("generic 5", "fields of the static table", headers(1, SHORT + literal(":path", PATH)))
taken("generic 5", "a literal with an indexed name", headers(1, SHORT + literal(PATH_NAME, PATH)))
taken("generic 5", "a literal that is never indexed", headers(1, SHORT + literal(PATH_NAME, PATH, NEVER_INDEXED)))
for kind, name in [("a new", ":path"), ("an indexed", PATH_NAME)]:
    taken("generic 5", f"a literal with {kind} name, from the dynamic table", headers(3, SHORT + indexed(NEWEST)),
          before=headers(1, SHORT + literal(name, PATH, INCREMENTAL)), stream=3)
# custom-key: custom-value (RFC 7541, C.4.3)
taken("generic 5", "Huffman codes", headers(1, fields(), bytes.fromhex("408825a849e95ba97d7f8925a849e95bb8e8b4bf")))
taken("generic 5", "a dynamic table, resized twice", headers(1, EMPTIED, integer(SIZE_UPDATE, 4096), fields()))

# --- RFC 7541 -------------------------------------------------------------------------------------------------

uncompressed("hpack 2.3.3", "a field beyond the tables", headers(1, fields(), indexed(70)))
uncompressed("hpack 2.3.3", "a name beyond the tables", headers(1, fields(), literal(70, "value", INCREMENTAL)))
uncompressed("hpack 4.2", "a resize after a field", headers(1, fields(), EMPTIED))
uncompressed("hpack 4.3", "a field that a resize has evicted",
             headers(3, EMPTIED, fields(), indexed(NEWEST)), before=headers(1, fields(), NEW_FIELD), stream=3)
uncompressed("hpack 5.1", "an integer without end", headers(1, fields(), b"\xff" + b"\x80" * 16 + b"\x01"))
uncompressed("hpack 5.2", "a string longer than its block", headers(1, fields(), FIELD[:-1]))
for name, octets in {"more than seven bits": b"\x1f\xff", "zeros": b"\x18", "the end of string": b"\xff" * 4}.items():
    uncompressed("hpack 5.2", f"a Huffman code padded with {name}",
                 headers(1, fields(), integer(WITHOUT_INDEXING, 0), string(b"x-name"), string(octets, HUFFMAN)))
uncompressed("hpack 6.1", "the index zero", headers(1, fields(), indexed(0)))
uncompressed("hpack 6.3", "a table larger than the server allows",
             lambda peer: headers(1, integer(SIZE_UPDATE, peer.settings.get(HEADER_TABLE_SIZE, 4096) + 1), fields()))

# --- RFC 9113: preface, frames and streams --------------------------------------------------------------------

for name, start in {"no preface": bytes(24), "half a preface": PREFACE[:-6] + b"XX\r\n\r\n"}.items():
    check("3.5", f"{name}: a connection error", {b"", b"HTTP/1.1 400 Bad Request", "closed"}, first_line, start)
fatal("3.5", "a preface without SETTINGS", get(1), start=ping(bytes(8)))
taken("4.1", "a frame of an unknown type, which is ignored", frame(EXTENSION, 0, b"payload", flags=0xFF), get(1))
taken("4.1", "flags without a meaning, which are ignored", headers(1, fields(), flags=WHOLE | 0xD2))
taken("4.1", "the reserved bit, which is ignored", headers(1 | RESERVED, fields()))
taken("4.2", "DATA as large as the server allows", post(1), lambda peer: data(1, bytes(peer.largest)))
refused("4.2", "DATA that are larger", post(1), lambda peer: data(1, bytes(peer.largest + 1)), code="FRAME_SIZE_ERROR")
missized("4.2", "HEADERS that are larger", lambda peer: headers(1, fields(("x-name", "a" * peer.largest))))
uncompressed("4.3", "a field block that cannot be read", headers(1, b"\xff" * 8))
fatal("4.3", "PRIORITY amid a field block", BEGUN, priority(1, 0, WEIGHT), continuation(1, REST))
fatal("4.3", "HEADERS of another stream amid a field block", BEGUN, get(3), continuation(1, REST))
fatal("4.3", "CONTINUATION of another stream amid a field block", BEGUN, continuation(3, REST))
for name, request in {
    "malformed": headers(1, fields(("X-Upper", "value")), NEW_FIELD),
    "self-dependent": headers(1, 1, WEIGHT, fields(), NEW_FIELD, flags=WHOLE | WITH_PRIORITY),
}.items():
    check("4.3", f"the new field of a {name} request is in the dynamic table all the same",
          connection_error() | {"200 later"}, after_refusal, request)
for name, sent, late in [
    ("DATA", data(1, b"content"), refused),
    ("HEADERS", get(1), refused),
    ("CONTINUATION", continuation(1, fields()), fatal),
]:
    late("5.1", f"{name} on a half-closed stream", get(1), sent, values=NO_WINDOW, code="STREAM_CLOSED")
    late("5.1", f"{name} on a stream that has ended", sent, before=get(1), code="STREAM_CLOSED")
    late("5.1", f"{name} on a stream that the client has reset", post(1), reset(1, CANCEL), sent, code="STREAM_CLOSED")
fatal("5.1", "DATA on an idle stream", data(1, b"content"), code="STREAM_CLOSED")
fatal("5.1", "RST_STREAM on an idle stream", reset(1, CANCEL))
fatal("5.1", "WINDOW_UPDATE on an idle stream", window_update(1, 100))
fatal("5.1", "CONTINUATION on an idle stream", continuation(1, fields()))
fatal("5.1.1", "a stream with an even number", get(2), stream=2)
fatal("5.1.1", "a stream with a number below that of another one", post(5), get(3), stream=3, code="STREAM_CLOSED")
check("5.1.2", "a stream more than the server allows: a stream error", stream_error("REFUSED_STREAM"), one_too_many)
# RFC 9113 has no word on these any more, so that a server may also take them
check("5.3.1", "HEADERS that depend on their own stream do no harm", stream_error() | {"200"},
      exchange, headers(1, 1, WEIGHT, fields(), flags=WHOLE | WITH_PRIORITY))
check("5.3.1", "PRIORITY that depends on its own stream does no harm", stream_error() | {"200"},
      exchange, post(1), priority(1, 1, WEIGHT), data(1))
check("5.4.1", "a connection error is told before the connection is closed",
      connection_error("FRAME_SIZE_ERROR") - {"closed"}, exchange, ping(bytes(7)))
taken("5.5", "an extension frame, which is ignored", post(1), frame(EXTENSION, 1, flags=END_STREAM), data(1))
fatal("5.5", "an extension frame amid a field block", BEGUN, frame(EXTENSION, 1), continuation(1, REST))

# --- RFC 9113: the types of frames ----------------------------------------------------------------------------

fatal("6.1", "DATA on stream 0", data(0, b"content"))
fatal("6.1", "DATA with padding as long as its payload", post(1), data(1, b"\5four", flags=END_STREAM | PADDED))
fatal("6.2", "HEADERS on stream 0", headers(0, fields()))
fatal("6.2", "HEADERS with padding as long as their payload", headers(1, b"\xff", fields(), flags=WHOLE | PADDED))
fatal("6.2", "another frame after HEADERS without END_HEADERS", BEGUN, ping(bytes(8)), continuation(1, REST))
fatal("6.3", "PRIORITY on stream 0", priority(0, 0, WEIGHT))
refused("6.3", "PRIORITY of four octets", post(1), priority(1, 0), code="FRAME_SIZE_ERROR")
fatal("6.4", "RST_STREAM on stream 0", reset(0, CANCEL))
fatal("6.4", "RST_STREAM on an idle stream", reset(1, CANCEL))
missized("6.4", "RST_STREAM of three octets", post(1), reset(1, bytes(3)))
missized("6.5", "an acknowledgement of SETTINGS with a payload", settings((ENABLE_PUSH, 0), flags=ACK))
fatal("6.5", "SETTINGS on a stream", frame(SETTINGS, 1))
missized("6.5", "SETTINGS of three octets", frame(SETTINGS, 0, bytes(3)))
fatal("6.5.2", "ENABLE_PUSH of 2", settings((ENABLE_PUSH, 2)))
overflown("6.5.2", "INITIAL_WINDOW_SIZE above its bounds", settings((INITIAL_WINDOW_SIZE, LARGEST_WINDOW + 1)))
fatal("6.5.2", "MAX_FRAME_SIZE below its bounds", settings((MAX_FRAME_SIZE, (1 << 14) - 1)))
fatal("6.5.2", "MAX_FRAME_SIZE above its bounds", settings((MAX_FRAME_SIZE, 1 << 24)))
taken("6.5.2", "an unknown setting, which is ignored", settings((0xFF, 1)), get(1))
check("6.5.3", "SETTINGS are acknowledged, each", {(b"", b"", b"")},
      acknowledged, SETTINGS, 3, settings((ENABLE_PUSH, 0)), settings((0xFF, 1)))
check("6.5.3", "the last value of a setting counts", {(0, 1)},
      content, 0, settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)))
fatal("6.6", "PUSH_PROMISE", post(1), push(1, 2, fields()))
check("6.7", "PING is answered with its own payload", {(b"\0\xff octet",)},
      acknowledged, PING, 1, ping(b"\0\xff octet"))
check("6.7", "an answer to PING is not answered", {(b"question",)},
      acknowledged, PING, 1, ping(b"answered", flags=ACK), ping(b"question"))
fatal("6.7", "PING on a stream", frame(PING, 1, bytes(8)))
missized("6.7", "PING of seven octets", ping(bytes(7)))
fatal("6.8", "GOAWAY on a stream", goaway(1, 0, NO_ERROR))
fatal("6.9", "WINDOW_UPDATE of 0 on the connection", window_update(0, 0))
refused("6.9", "WINDOW_UPDATE of 0 on a stream", post(1), window_update(1, 0))
missized("6.9", "WINDOW_UPDATE of three octets", window_update(0, bytes(3)))
check("6.9.1", "an answer keeps within the window of its stream", {(1, 2)}, content, 1, window_update(1, 2))
check("6.9.1", "an answer keeps within the window of the connection", {(65535, 3)},
      content, LARGEST_WINDOW, window_update(0, 3), path=f"{PATH}?70000")
overflown("6.9.1", "a window of the connection beyond the largest", window_update(0, LARGEST_WINDOW))
refused("6.9.1", "a window of a stream beyond the largest", post(1), window_update(1, LARGEST_WINDOW),
        code="FLOW_CONTROL_ERROR")
check("6.9.2", "INITIAL_WINDOW_SIZE counts for open streams", {(0, 1)}, content, 0, settings((INITIAL_WINDOW_SIZE, 1)))
check("6.9.2", "a window may become negative", {(3, 1)},
      content, 3, settings((INITIAL_WINDOW_SIZE, 2)) + window_update(1, 2))
overflown("6.9.2", "INITIAL_WINDOW_SIZE that widens a window beyond the largest",
          post(1), window_update(1, 1 << 30), settings((INITIAL_WINDOW_SIZE, LARGEST_WINDOW)))
fatal("6.10", "CONTINUATION on stream 0", BEGUN, continuation(0, REST))
fatal("6.10", "CONTINUATION after HEADERS with END_HEADERS", post(1), continuation(1, FIELD))
fatal("6.10", "CONTINUATION after CONTINUATION with END_HEADERS",
      BEGUN, continuation(1, REST), continuation(1, FIELD))
fatal("6.10", "CONTINUATION after DATA", post(1), data(1, b"content", flags=0), continuation(1, FIELD))
fatal("6.10", "another frame after CONTINUATION without END_HEADERS", BEGUN, continuation(1, flags=0), data(1))
taken("7", "an unknown code in RST_STREAM", post(1), reset(1, UNKNOWN_CODE), get(3), stream=3)
check("7", "an unknown code in GOAWAY, after which a server may go", {(b"question",), ()},
      acknowledged, PING, 1, goaway(0, 0, UNKNOWN_CODE), ping(b"question"))

# --- RFC 9113: requests ---------------------------------------------------------------------------------------

malformed("8.1", "a second HEADERS frame without END_STREAM", post(1), headers(1, FIELD, flags=END_HEADERS), data(1))
for name, field in {
    "a field name with a capital letter": ("X-Upper", "value"),
    "a field name with a space": ("x name", "value"),
    "a field name with a colon": ("x-name:", "value"),
    "a field name beyond ASCII": ("x-n\u00e4me", "value"),
    "a field value with NUL": ("x-name", "a\0b"),
    "a field value with CR": ("x-name", "a\rb"),
    "a field value with LF": ("x-name", "a\nb"),
    "a field value that begins with a space": ("x-name", " value"),
    "a field value that ends with a tab": ("x-name", "value\t"),
}.items():
    malformed("8.1.2", name, get(1, field))
malformed("8.1.2.1", "a pseudo-header field that is not defined", get(1, (":unknown", "value")))
malformed("8.1.2.1", "a pseudo-header field of answers", get(1, (":status", "200")))
malformed("8.1.2.1", "a pseudo-header field after others", get(1, ("x-name", "value"), (":path", PATH), path=None))
malformed("8.1.2.1", "a pseudo-header field in trailers",
          post(1), data(1, b"content", flags=0), headers(1, literal(":method", "POST")))
for field in ("connection: close", "keep-alive: timeout=5", "proxy-connection: close", "transfer-encoding: chunked",
              "upgrade: h2c", "te: gzip", "te: trailers, gzip"):
    malformed("8.1.2.2", f"the field {field}", get(1, field.split(": ")))
for name, value in {"method": "GET", "scheme": "http", "path": PATH}.items():
    malformed("8.1.2.3", f"a request without :{name}", get(1, **{name: None}))
    malformed("8.1.2.3", f"a request with an empty :{name}", get(1, **{name: ""}))
    malformed("8.1.2.3", f"a request with two :{name}", headers(1, literal(f":{name}", value), fields()))
malformed("8.1.2.6", "content longer than content-length", post(1, ("content-length", "1")), data(1, b"content"))
malformed("8.1.2.6", "content shorter than content-length", post(1, ("content-length", "8")), data(1, b"content"))
malformed("8.1.2.6", "content-length without content", get(1, ("content-length", "7"), method="POST"))
malformed("8.1.2.6", "content of two frames, longer than content-length",
          post(1, ("content-length", "3")), data(1, b"con", flags=0), data(1, b"tent"))
fatal("8.2", "a push of the client", get(1), push(1, 2, fields()), values=NO_WINDOW)

# --- RFC 9113, 10.5: floods -----------------------------------------------------------------------------------

FLOOD_TIME, MOST_TIME, MOST_MEMORY = 5, 1, 64 << 20


def memory():
    return 1024 * int(re.search(r"VmRSS:\s*(\d+)", pathlib.Path(f"/proc/{PID}/status").read_text())[1])


def pour(peer, chunks):
    """Sends all, unless the server ends the connection or leaves it unread."""
    deadline = time.monotonic() + FLOOD_TIME
    with contextlib.suppress(OSError):
        for chunk in itertools.takewhile(lambda _: time.monotonic() < deadline, chunks):
            peer.socket.sendall(chunk)
        time.sleep(QUIET)  # the server has still to work on what it was sent


def flooded(attack, permitted, values):
    """Calls on other connections meanwhile; then what became of stream 1, where it matters."""
    before, slowest, most = memory(), 0, 0
    with Peer(*values) as peer:
        sender = threading.Thread(target=pour, args=(peer, attack(peer)), daemon=True)
        sender.start()
        under_way = True
        while under_way:
            under_way = sender.is_alive()
            begun = time.monotonic()
            other = exchange(get(1))
            slowest, most = max(slowest, time.monotonic() - begun), max(most, memory() - before)
            seen = f"{other} for another call, at most {slowest:.3f} s for one, {most >> 20} MiB more"
            if other != "200" or slowest > MOST_TIME or most > MOST_MEMORY:
                return seen
        print(f"  {seen}", file=sys.stderr)
        return "borne" if not permitted or (outcome := peer.outcome()) in permitted else outcome


def flood(sentence, attack, permitted=(), values=()):
    check("10.5", sentence, {"borne"}, flooded, attack, permitted, values)


def many(sent, first=b""):
    return lambda _: [first, *[sent * 1000] * 1000]


def long_lists(peer):
    block = fields(*[("x-name", "a" * 1000)] * (1 + peer.settings[MAX_HEADER_LIST_SIZE] // 1000))
    for stream in range(1, 400, 2):
        yield headers(stream, block[: peer.largest], flags=END_STREAM)
        for at in range(peer.largest, len(block), peer.largest):
            yield continuation(stream, block[at : at + peer.largest], flags=0)
        yield continuation(stream)


def bombs(_):
    yield headers(1, fields(), literal("x-name", "a" * 4000, INCREMENTAL), indexed(NEWEST) * 12_000)
    for stream in range(3, 200, 2):
        yield headers(stream, fields(), indexed(NEWEST) * 16_000)


def unread_answers(_):
    yield b"".join(get(stream, path=f"{PATH}?{1 << 20}") for stream in range(1, 200, 2))
    time.sleep(1)


CUT_OFF = connection_error("ENHANCE_YOUR_CALM", "COMPRESSION_ERROR")
TOO_LARGE = stream_error("REFUSED_STREAM", "ENHANCE_YOUR_CALM", "COMPRESSION_ERROR") | {"400", "431"}
ENDLESS_FIELDS = continuation(1, literal("x-name", "a" * 1000), flags=0)
ODD = range(1, 40_000, 2)
flood("20,000 streams that are reset at once", lambda _: (get(each) + reset(each, CANCEL) for each in ODD))
flood("20,000 streams that the server has to reset",
      lambda _: (get(each) + window_update(each, LARGEST_WINDOW) for each in ODD))
flood("a field block without end is cut off", many(ENDLESS_FIELDS, BEGUN), CUT_OFF)
flood("a field block of empty frames without end is cut off", many(continuation(1, flags=0), BEGUN), CUT_OFF)
flood("header lists over the limit are refused", long_lists, TOO_LARGE)
flood("header lists with one large field thousands of times are refused", bombs, TOO_LARGE)
flood("1,000,000 SETTINGS frames, with no answer read", many(settings((ENABLE_PUSH, 0))))
flood("1,000,000 PING frames, with no answer read", many(ping(bytes(8))))
flood("1,000,000 empty DATA frames", many(data(1, flags=0), post(1)))
flood("100 answers of 1 MiB without a window", unread_answers, values=NO_WINDOW)
flood("1,000,000 PRIORITY frames", many(priority(9, 7, WEIGHT)))
flood("1,000,000 WINDOW_UPDATE frames of one octet", many(window_update(1, 1), get(1, path=f"{PATH}?{1 << 20}")),
      values=NO_WINDOW)

for each in CHECKS:
    name = f"http2 {each.section}: {each.sentence}"
    try:
        outcome = each.run()
    except ConnectionResetError:
        outcome = "closed"
    except OSError as error:
        outcome = str(error) or "timed out"
    print(f"{name}: {outcome}", file=sys.stderr)
    wanted = " or ".join(sorted(map(str, each.permitted)))
    good = outcome in each.permitted
    print(f"ok {name}" if good else f"not ok {name}: got {outcome}, not {wanted}", flush=True)
