"""A backend that does what the last part of a path says: backend.py PORT JOURNAL [CERTIFICATE]

Each request that arrives is a line of JOURNAL: the port, how many connections are open, how many requests this one has
had, method and target. A call of /become/NAME makes every later path mean NAME, until another one says `itself`.
CERTIFICATE is a PEM file with its key.
"""

import base64
import contextlib
import hashlib
import http.client
import itertools
import os
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.parse

PORT, JOURNAL, *CERTIFICATE = sys.argv[1:]
PAUSE, TICK = 0.5, 0.1
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


def chunk(octets):
    return b"%x\r\n%s\r\n" % (len(octets), octets)


# what is said before the connection is closed
SAID = {
    "half-head": OK[:20],
    "short": OK.replace(b"3", b"100"),
    "endless": CHUNKED + chunk(b"no last chunk follows"),
    "garbage": b"\x16\x03\x01\x02\0 this is no HTTP\r\n\r\n",
    "closing": OK,
}
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
# what is said before the next request
ANSWERED = {
    "itself": OK,
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n" + OK,
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "early-hints": HINTS + OK,
}


class Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        with contextlib.suppress(ConnectionError):
            for self.number in itertools.count(1):
                if not self.receive() or not self.act():
                    break

    def receive(self):
        """The next request; false where there is none."""
        line = self.rfile.readline().decode()
        if not line:
            return False
        method, self.target, _ = line.split()
        self.fields = http.client.parse_headers(self.rfile)
        self.server.note(self.number, method, self.target)
        self.read_content()
        return True

    def read_content(self):
        if "transfer-encoding" not in self.fields:
            self.rfile.read(int(self.fields.get("content-length", 0)))
            return
        while size := int(self.rfile.readline() or "0", 16):
            self.rfile.read(size + 2)
        http.client.parse_headers(self.rfile)

    def act(self):
        """Does what is asked for; false if that was the last thing on this connection."""
        path = urllib.parse.urlsplit(self.target).path
        *before, name = path.split("/")
        if before[-1] == "become":
            self.server.mood = name
            name = "itself"
        elif self.server.mood != "itself":
            name = self.server.mood
        if name in SAID:
            self.wfile.write(SAID[name])
            return False
        if name in ACTS:
            return ACTS[name](self)
        self.wfile.write(ANSWERED.get(name, OK))
        return True

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # not the server's way to close, which would end the connection in good order first
        socket.close(self.connection.detach())

    def reset_if(self, condition):
        if condition:
            return self.reset()
        self.wfile.write(OK)
        return True

    def reset_reused(self):
        return self.reset_if(self.number > 1)

    def reset_once(self):
        return self.reset_if(self.server.is_new(self.target))

    def wait(self):
        """Says nothing more, until the other side closes."""
        self.rfile.read()

    def hint(self):
        self.wfile.write(HINTS)
        self.wait()

    def stall(self):
        self.wfile.write(CHUNKED + chunk(b"no more follows"))
        self.wait()

    def slow(self):
        time.sleep(PAUSE)
        self.wfile.write(OK)
        return True

    def stream(self):
        """Server-sent events without end."""
        self.wfile.write(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        for number in itertools.count():
            self.wfile.write(chunk(b"data: %d\n\n" % number))
            time.sleep(TICK)

    def huge_head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1600):
            self.wfile.write(b"X-Name: " + b"a" * (1 << 16) + b"\r\n")

    def tunnel(self):
        """A WebSocket's handshake; then it sends back what it gets."""
        key = hashlib.sha1((self.fields["sec-websocket-key"] + GUID).encode()).digest()
        accept = base64.b64encode(key)
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                         b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)
        while octets := self.rfile.read1():
            self.wfile.write(octets)


ACTS = {
    "reset": Connection.reset,
    "reset-reused": Connection.reset_reused,
    "reset-once": Connection.reset_once,
    "silent": Connection.wait,
    "hints-alone": Connection.hint,
    "stalls": Connection.stall,
    "slow": Connection.slow,
    "stream": Connection.stream,
    "huge-head": Connection.huge_head,
    "tunnel": Connection.tunnel,
}


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 512
    mood = "itself"

    def __init__(self):
        super().__init__(("127.0.0.1", int(PORT)), Connection)
        self.journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.open, self.lock, self.targets = 0, threading.Lock(), set()
        self.tls = None
        if CERTIFICATE:
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(CERTIFICATE[0])

    def note(self, *what):
        os.write(self.journal, " ".join(map(str, [PORT, self.open, *what])).encode() + b"\n")

    def count(self, more):
        with self.lock:
            self.open += more

    def is_new(self, target):
        new = target not in self.targets
        self.targets.add(target)
        return new

    def finish_request(self, request, address):
        self.count(1)
        try:
            super().finish_request(self.tls.wrap_socket(request, server_side=True) if self.tls else request, address)
        finally:
            self.count(-1)

    def handle_error(self, *_):
        """Nothing is to be said of a gateway that leaves."""


Server().serve_forever()
