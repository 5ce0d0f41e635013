"""WebSockets through the gateway: tunnels.py CHECK; their backend is tunnels.py serve PORT [CERTIFICATE].

The backend echoes; it refuses the path /refused, and leaves /left at the first message.
"""

import contextlib
import ssl
import subprocess
import time

from h2.events import DataReceived, ResponseReceived, StreamEnded
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.sync.client import connect
from websockets.sync.server import serve as serve_tunnels
from websockets.uri import parse_uri

import world
from http2_client import Http2Client

SUBPROTOCOL = "orders.v2"
IDLE = 1  # seconds, as the script has configured it

# --- the backend ----------------------------------------------------------------------------------------------


def serve(port, certificate=None):
    def refuse(connection, request):
        world.note(backend="tunnels", event="request", target=request.path, fields=[*request.headers.raw_items()])
        return connection.respond(403, "not here\n") if request.path.endswith("/refused") else None

    def echo(connection):
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                connection.send(message)
                if connection.request.path.endswith("/left"):
                    connection.close(4001, "enough")
        closed = {"code": connection.close_code, "reason": connection.close_reason}
        world.note(backend="tunnels", event="closed", target=connection.request.path, **closed)

    def choose(_, offered):
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    options = {"process_request": refuse, "select_subprotocol": choose, "max_size": None}
    server = serve_tunnels(echo, world.HOST, int(port), ssl=secured_by(certificate), **options)
    print("ready", flush=True)
    server.serve_forever()


def secured_by(certificate):
    """Prefers HTTP/2, as a server would that takes calls as well; here it could not be spoken."""
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


# --- clients --------------------------------------------------------------------------------------------------


def opened(path, token=None, fields=(), **options):
    fields = [*fields, *(world.bearer(token).items() if token else ())]
    uri = f"wss://localhost:{world.TLS_PORT}{path}"
    return connect(uri, ssl=world.trust(), additional_headers=fields, proxy=None, **options)


def echoed(tunnel, message):
    tunnel.send(message)
    back = tunnel.recv(timeout=world.PATIENCE)
    assert back == message, f"{len(message)} sent, {len(back)} came back: {back[:80]}"


def ends(tunnel, within):
    """How the tunnel ends."""
    try:
        raise AssertionError(f"got {tunnel.recv(timeout=within)[:80]!r} in place of an end")
    except TimeoutError:
        raise AssertionError(f"still open after {within} s") from None
    except ConnectionClosed as closed:
        return closed


def refused(status, path, token=None):
    try:
        with opened(path, token):
            raise AssertionError("it was opened")
    except InvalidStatus as answer:
        assert answer.response.status_code == int(status), answer
        return answer.response


def text():
    with opened("/ws/text", world.token()) as tunnel:
        for message in ("", "order 4711", "\u00e4\u20ac\U0001f600", "a" * 70_000):
            echoed(tunnel, message)


def binary():
    with opened("/ws/binary", world.token()) as tunnel:
        echoed(tunnel, bytes(range(256)) * 4096)


def ping():
    with opened("/ws/ping", world.token()) as tunnel:
        assert tunnel.ping(b"payload").wait(world.PATIENCE), "no pong"


def subprotocol():
    with opened("/ws/subprotocol", world.token(), subprotocols=["orders.v1", SUBPROTOCOL]) as tunnel:
        assert tunnel.subprotocol == SUBPROTOCOL, tunnel.subprotocol


def secured():
    with opened("/ws-tls/secured", world.token()) as tunnel:
        echoed(tunnel, "order")


def identity():
    """The caller's name arrives, its token and a name of its own making do not."""
    with opened("/ws/identity", world.token(), [("X-Auth-Client-Id", "somebody else")]):
        pass
    noted = world.until_noted(event="request", target="/ws/identity")
    fields = [(name.lower(), value) for name, value in noted["fields"]]
    ids = [value for name, value in fields if name == "x-auth-client-id"]
    assert len(ids) == 1 and ids[0].startswith("sb-"), ids
    assert "authorization" not in dict(fields), "the token went along"


def without_token():
    refused(401, "/ws/without-token")
    refused(401, "/ws/without-token", "not.a.token")
    assert not world.noted(target="/ws/without-token"), "the backend was asked"


def without_role():
    refused(403, "/ws/without-role", world.token("demo-outsider"))
    assert not world.noted(target="/ws/without-role"), "the backend was asked"


def backend_refuses():
    body = refused(403, "/ws/refused", world.token()).body
    assert body == b"not here\n", body


def route_refuses():
    """The call goes on as an ordinary one."""
    body = refused(200, "/ws-refuse/plain", world.token()).body.decode()
    assert '"x-auth-client-id"' in body and '"upgrade"' not in body, body


def client_closes():
    with opened("/ws/client-closes", world.token()) as tunnel:
        tunnel.close(3001, "done")
    closed = world.until_noted(event="closed", target="/ws/client-closes")
    assert (closed["code"], closed["reason"]) == (3001, "done"), closed


def backend_closes():
    with opened("/ws/left", world.token()) as tunnel:
        echoed(tunnel, "the last one")
        closed = ends(tunnel, world.PATIENCE)
    assert closed.rcvd and (closed.rcvd.code, closed.rcvd.reason) == (4001, "enough"), closed


def client_vanishes():
    tunnel = opened("/ws/client-vanishes", world.token())
    echoed(tunnel, "order")
    tunnel.socket.close()
    assert world.until_noted(event="closed", target="/ws/client-vanishes")["code"] == 1006


def revoked():
    """One tunnel ends with the token, another one may stay."""
    token = world.token()
    with opened("/ws/revoked", token) as follows, opened("/ws-stay/revoked", token) as stays:
        echoed(follows, "order")
        echoed(stays, "order")
        world.post("/oauth/revoke", "demo-sender", token=token)
        ends(follows, 2)
        world.until_noted(event="closed", target="/ws/revoked")
        until = time.monotonic() + 1
        while time.monotonic() < until:
            echoed(stays, "order")
    refused(401, "/ws/revoked", token)


def role_withdrawn(flowgate):
    with opened("/ws/role-withdrawn", world.token("visitor")) as tunnel:
        echoed(tunnel, "order")
        command = [flowgate, "instance", "update", "visitor", "--roles", "Reports.read", "--config", "config.yaml"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ends(tunnel, 2)


def idle():
    """What moves stays, what does not is closed."""
    with opened("/ws-idle/idle", world.token()) as tunnel:
        until = time.monotonic() + 2 * IDLE
        while time.monotonic() < until:
            echoed(tunnel, "order")
        last = time.monotonic()
        ends(tunnel, IDLE + 2)
        assert time.monotonic() - last >= IDLE, "closed too early"


# --- RFC 8441 -------------------------------------------------------------------------------------------------


class Tunnel(Http2Client):
    """A WebSocket on a stream of HTTP/2."""

    def __init__(self, path, token=None):
        super().__init__()
        fields = [("sec-websocket-version", "13")] + [("authorization", f"Bearer {token}")] * bool(token)
        self.frames = ClientProtocol(parse_uri("wss://localhost/"), state=State.OPEN)
        self.stream = self.request(path, *fields, method="CONNECT", pseudo=[(":protocol", "websocket")])
        self.head = dict(self.next(ResponseReceived, self.stream).headers)

    def write(self):
        for octets in self.frames.data_to_send():
            self.send(self.stream, octets)

    def read(self):
        """The next frame."""
        while not (frames := self.frames.events_received()):
            self.frames.receive_data(self.next(DataReceived, self.stream).data)
        return frames[0]


def extended_connect():
    with Tunnel("/ws/extended", world.token()) as tunnel:
        assert tunnel.head[":status"] == "200", tunnel.head
        assert not {"sec-websocket-accept", "upgrade", "connection"} & tunnel.head.keys(), tunnel.head
        tunnel.frames.send_text("order 4711".encode())
        tunnel.write()
        assert tunnel.read().data == b"order 4711"
        tunnel.frames.send_binary(bytes(1000))
        tunnel.write()
        assert tunnel.read().data == bytes(1000)
        tunnel.frames.send_close(3002, "done")
        tunnel.write()
        assert tunnel.read().opcode is Opcode.CLOSE
        tunnel.next(StreamEnded, tunnel.stream)
    assert world.until_noted(event="closed", target="/ws/extended")["code"] == 3002


def extended_connect_revoked():
    token = world.token()
    with Tunnel("/ws/extended-revoked", token) as tunnel:
        assert tunnel.head[":status"] == "200", tunnel.head
        world.post("/oauth/revoke", "demo-sender", token=token)
        tunnel.socket.settimeout(2)
        with contextlib.suppress(ConnectionError):  # a stream that is reset has ended as well
            tunnel.next(StreamEnded, tunnel.stream)
    world.until_noted(event="closed", target="/ws/extended-revoked")


def extended_connect_refused():
    for token, status in ((None, "401"), (world.token("demo-outsider"), "403")):
        with Tunnel("/ws/extended-refused", token) as tunnel:
            assert tunnel.head[":status"] == status, tunnel.head
    assert not world.noted(target="/ws/extended-refused"), "the backend was asked"


if __name__ == "__main__":
    world.run(globals())
