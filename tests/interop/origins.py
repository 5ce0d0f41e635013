"""HTTP backends that note all that reaches them: origins.py NAME:PORT:PROTOCOLS[:CERTIFICATE[:CLIENT-CA]]...

The protocols have their ALPN names, separated by commas; without a certificate the first one is spoken in plain
text. What a backend does with a call is in the last segment of its path; it echoes what it does not know. On
HTTP/2 a client may have five streams at once on a connection.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes, Settings

from world import HOST, note

STREAMS, LARGE = 5, 50 << 20
PIECE = bytes(64 << 10)


# --- calls ----------------------------------------------------------------------------------------------------


class Call:
    """A request and the answer to it, whichever protocol they come by."""

    def __init__(self, backend, protocol, method, target, fields):
        self.backend, self.protocol, self.method, self.target = backend, protocol, method, target
        self.fields, self.trailers = fields, []
        self.note("request", protocol=protocol, method=method, fields=fields)

    def note(self, event, **members):
        note(backend=self.backend, event=event, target=self.target, **members)

    @property
    def query(self):
        return self.target.partition("?")[2]

    async def read(self):
        """The length of the content, each piece of which is noted when it comes."""
        length = 0
        async for piece in self.pieces():
            length += len(piece)
            self.note("piece", content=piece[:80].decode("latin-1"))
        self.note("end", length=length, trailers=self.trailers)
        return length

    async def serve(self):
        name = self.target.partition("?")[0].rpartition("/")[2]
        try:
            await BEHAVIOURS.get(name, echo)(self)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.note("broken")
            raise


def field(line):
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


class Http1Call(Call):
    def __init__(self, backend, head, reader, writer):
        start, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = start.split(" ")
        super().__init__(backend, "HTTP/1.1", method, target, [field(line) for line in lines if line])
        self.reader, self.writer = reader, writer

    async def pieces(self):
        fields = dict(self.fields)
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            while line := (await self.reader.readuntil(b"\r\n")).decode("latin-1").strip():
                self.trailers.append(field(line))
            return
        left = int(fields.get("content-length", 0))
        while left:
            piece = await self.reader.readexactly(min(left, len(PIECE)))
            left -= len(piece)
            yield piece

    def start(self, *fields):
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields), "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def answer(self, content):
        self.start(("content-length", len(content)))
        self.writer.write(content)

    async def begin(self, *fields):
        self.start(*fields, ("transfer-encoding", "chunked"))

    async def send(self, content):
        self.writer.write(b"%x\r\n%b\r\n" % (len(content), content))
        await self.writer.drain()

    async def finish(self, *trailers):
        self.writer.write("".join(["0\r\n", *(f"{name}: {value}\r\n" for name, value in trailers), "\r\n"]).encode())


class Http2Call(Call):
    def __init__(self, backend, connection, stream, fields):
        pseudo = dict(fields)
        super().__init__(backend, "HTTP/2", pseudo[":method"], pseudo[":path"], fields)
        self.connection, self.stream, self.received = connection, stream, asyncio.Queue()

    async def pieces(self):
        while piece := await self.received.get():
            yield piece

    async def answer(self, content):
        await self.begin()
        self.connection.state.send_data(self.stream, content)
        await self.finish()

    async def begin(self, *fields):
        self.connection.state.send_headers(self.stream, [(":status", "200"), *fields])
        self.connection.flush()

    async def send(self, content):
        self.connection.state.send_data(self.stream, content)
        self.connection.flush()

    async def finish(self, *trailers):
        if trailers:
            self.connection.state.send_headers(self.stream, trailers, end_stream=True)
        else:
            self.connection.state.end_stream(self.stream)
        self.connection.flush()


# --- what is done with a call ---------------------------------------------------------------------------------

released, full, present = asyncio.Event(), asyncio.Event(), set()


async def echo(call):
    length = await call.read()
    seen = {"backend": call.backend, "protocol": call.protocol, "method": call.method, "length": length}
    await call.answer(json.dumps(seen | {"target": call.target, "fields": call.fields}).encode())


async def gather(call):
    """Answers when as many calls as the query says are here at once."""
    await call.read()
    present.add(call)
    try:
        if len(present) == int(call.query):
            full.set()
        await full.wait()
        await call.answer(b"all are here")
    finally:
        present.remove(call)
        if not present:
            full.clear()


async def hold(call):
    await call.read()
    await released.wait()
    await call.answer(b"released")


async def release(call):
    """Lets all go on who wait at this moment."""
    await call.read()
    released.set()
    released.clear()
    await call.answer(b"")


async def events(call):
    """Three events, each with the time at which it is sent; the next one is sent after a release."""
    await call.read()
    await call.begin(("content-type", "text/event-stream"))
    for number in range(3):
        await call.send(f"id: {number}\ndata: {time.time()}\n\n".encode())
        await released.wait()
    await call.finish()


async def stream(call):
    await call.read()
    await call.begin()
    for piece in (b"one, ", b"two"):
        await call.send(piece)
    await call.finish()


async def trailers(call):
    """Trailers after the content, announced if the query says so."""
    await call.read()
    await call.begin(*[("trailer", "x-checksum")] * (call.query == "announced"))
    await call.send(b"content")
    await call.finish(("x-checksum", "ab12"))


async def large(call):
    await call.read()
    await call.begin()
    for _ in range(0, LARGE, len(PIECE)):
        await call.send(PIECE)
    await call.finish()


BEHAVIOURS = {each.__name__: each for each in (gather, hold, release, events, stream, trailers, large)}


# --- connections ----------------------------------------------------------------------------------------------


async def serve_http1(backend, reader, writer):
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        await Http1Call(backend, head, reader, writer).serve()


class Announced(Settings):
    """Leaves it to us what becomes of a stream too many: for the library, that would end the connection."""

    @property
    def max_concurrent_streams(self):
        return 1 << 31


class Http2Connection:
    def __init__(self, backend, reader, writer):
        self.backend, self.reader, self.writer = backend, reader, writer
        self.state = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.calls, self.tasks = {}, {}

    def flush(self):
        self.writer.write(self.state.data_to_send())

    async def serve(self):
        self.state.local_settings = Announced(False, {SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS})
        self.state.initiate_connection()
        self.flush()
        try:
            while octets := await self.reader.read(len(PIECE)):
                for event in self.state.receive_data(octets):
                    self.take(event)
                self.flush()
        finally:
            for task in self.tasks.values():
                task.cancel()

    def take(self, event):
        match event:
            case RequestReceived() if self.state.open_inbound_streams > STREAMS:
                # until SETTINGS are acknowledged, a client cannot know better (RFC 9113, 5.1.2)
                self.state.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            case RequestReceived():
                call = Http2Call(self.backend, self, event.stream_id, event.headers)
                self.calls[event.stream_id] = call
                self.tasks[event.stream_id] = asyncio.create_task(call.serve())
            case DataReceived(stream_id=stream) if stream in self.calls:
                self.state.acknowledge_received_data(event.flow_controlled_length, stream)
                if event.data:
                    self.calls[stream].received.put_nowait(event.data)
            case TrailersReceived(stream_id=stream) if stream in self.calls:
                self.calls[stream].trailers = event.headers
            case StreamEnded(stream_id=stream) if stream in self.calls:
                self.calls[stream].received.put_nowait(None)
            case StreamReset(stream_id=stream) if stream in self.calls:
                self.calls[stream].note("broken")
                self.tasks[stream].cancel()


def serving(backend, first):
    async def serve(reader, writer):
        tls = writer.get_extra_info("ssl_object")
        protocol = tls.selected_alpn_protocol() if tls else first
        note(backend=backend, event="connection", protocol=protocol)
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if protocol == "h2":
                await Http2Connection(backend, reader, writer).serve()
            else:
                await serve_http1(backend, reader, writer)

    return serve


def secured(protocols, certificate=None, client_ca=None):
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(protocols)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def main(specifications):
    servers = []
    for backend, port, protocols, *files in (each.split(":") for each in specifications):
        protocols = protocols.split(",")
        tls = secured(protocols, *files)
        servers.append(await asyncio.start_server(serving(backend, protocols[0]), HOST, port, ssl=tls, backlog=512))
    print("ready", flush=True)
    await asyncio.gather(*(each.serve_forever() for each in servers))


asyncio.run(main(sys.argv[1:]))
