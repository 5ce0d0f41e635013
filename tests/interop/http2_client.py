"""A client that says what it likes in HTTP/2, which a library for calls would not let it.

It never opens its windows any further: what an answer has beyond 65,535 octets is for the server to keep.
"""

import contextlib
import socket

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, StreamReset

from world import HOST, PATIENCE, TLS_PORT, trust


class Http2Client(contextlib.AbstractContextManager):
    def __init__(self):
        context = trust()
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((HOST, TLS_PORT), timeout=PATIENCE)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.unread = []
        self.state = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.state.initiate_connection()
        self.flush()

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.state.data_to_send())

    def request(self, target, *fields, method="GET", end=False, pseudo=()):
        stream = self.state.get_next_available_stream_id()
        head = [(":method", method), *pseudo, (":scheme", "https"), (":path", target), (":authority", "localhost")]
        self.state.send_headers(stream, [*head, *fields], end_stream=end)
        self.flush()
        return stream

    def send(self, stream, content, end=False):
        self.state.send_data(stream, content, end_stream=end)
        self.flush()

    def trailers(self, stream, *fields):
        self.state.send_headers(stream, fields, end_stream=True)
        self.flush()

    def next(self, kind, stream=None):
        """The next event of a kind, until the server resets the stream or closes the connection."""
        while True:
            for event in self.events():
                if isinstance(event, kind) and stream in (None, event.stream_id):
                    return event
                if isinstance(event, (StreamReset, ConnectionTerminated)):
                    raise ConnectionError(f"the server ends it: {event}")

    def events(self):
        if not self.unread:
            if not (octets := self.socket.recv(65536)):
                raise ConnectionError("the server has closed the connection")
            self.unread = self.state.receive_data(octets)
            self.flush()
        while self.unread:
            yield self.unread.pop(0)
