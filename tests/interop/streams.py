"""Whether what goes through the gateway in pieces is passed on piece by piece: streams.py CHECK."""

import time

import httpx
from h2.events import StreamEnded
from httpx_sse import connect_sse

import world
from http2_client import Http2Client

MOST = 1  # seconds from one end to the other


def client(version):
    """Speaks HTTP/1.1 alone, or HTTP/2."""
    http2 = version == "HTTP/2"
    origin = f"https://localhost:{world.TLS_PORT}"
    return httpx.Client(base_url=origin, verify=world.trust(), http1=not http2, http2=http2, trust_env=False)


def events(version, backend):
    """The backend sends each event after the client has released it, so none of them can wait for another."""
    with client(version) as http, client(version) as other:
        with connect_sse(http, "GET", f"/open/{backend}/events") as source:
            assert source.response.http_version == version, source.response.http_version
            count = 0
            for event in source.iter_sse():
                late = time.time() - float(event.data)
                assert late < MOST, f"event {count} comes after {late:.1f} s"
                assert event.id == str(count), event
                other.get(f"/open/{backend}/release").raise_for_status()
                count += 1
    assert count == 3, f"{count} events"


def pieces(version, backend):
    """Each piece is sent once the backend has the one before."""
    target = f"/open/{backend}/pieces-by-{version[-1]}"

    def content():
        for piece in ("one", "two", "three"):
            yield piece.encode()
            world.until_noted(event="piece", target=target, content=piece)

    with client(version) as http:
        answer = http.post(target, content=content()).raise_for_status()
    assert answer.json()["length"] == len("onetwothree"), answer.text


def request_trailers():
    """Those that would name a caller stay behind, others arrive."""
    named = [("x-auth-client-id", "somebody"), ("x_auth_client_id", "somebody"), ("authorization", "Bearer x")]
    with Http2Client() as http:
        stream = http.request("/open/h2c/trailers-by-2", ("te", "trailers"), method="POST")
        http.send(stream, b"content")
        http.trailers(stream, ("x-checksum", "ab12"), *named)
        http.next(StreamEnded, stream)
    trailers = world.until_noted(event="end", target="/open/h2c/trailers-by-2")["trailers"]
    assert trailers == [["x-checksum", "ab12"]], trailers


if __name__ == "__main__":
    world.run(globals())
