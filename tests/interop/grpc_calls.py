"""gRPC through the gateway: grpc_calls.py CHECK; its server is grpc_calls.py serve PORT.

Messages are octets as they are, so that no description of them is needed.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

import world

SERVICE = "interop.Calls"
SEVERAL = [f"order {number}".encode() for number in range(5)]


# --- the server -----------------------------------------------------------------------------------------------


def unary(message, context):
    fields = dict(context.invocation_metadata())
    world.note(backend="grpc", event="unary", client=fields.get("x-auth-client-id"), token=fields.get("authorization"))
    return message


def split(message, _):
    """Each word is an answer."""
    yield from message.split()


def join(messages, _):
    return b" ".join(messages)


def echo(messages, _):
    yield from messages


def fail(message, context):
    context.set_trailing_metadata((("x-checksum", "ab12"), ("x-octets-bin", b"\0\xff")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, message.decode())


def fail_late(messages, context):
    yield next(messages)
    fail(next(messages), context)


def wait(_, context):
    world.note(backend="grpc", event="waits", left=context.time_remaining())
    context.add_callback(lambda: world.note(backend="grpc", event="waits no more"))
    while context.is_active():
        time.sleep(0.02)
    return iter(())


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Split": grpc.unary_stream_rpc_method_handler(split),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.stream_stream_rpc_method_handler(fail_late),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
}


def serve(port):
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, METHODS)])
    server.add_insecure_port(f"{world.HOST}:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


# --- clients --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stub(kind, method, key="demo-sender"):
    """A method of the server, to be called with the token of a key."""
    with open("certs/ca.pem", "rb") as ca:
        credentials = grpc.ssl_channel_credentials(ca.read())
    token = [("authorization", f"Bearer {world.token(key)}")] if key else None
    with grpc.secure_channel(f"localhost:{world.TLS_PORT}", credentials) as channel:
        call = getattr(channel, kind)(f"/{SERVICE}/{method}")
        yield lambda sent, timeout=world.PATIENCE, **options: call(sent, timeout, token, **options)


def failure(result):
    """The error that a call ends with."""
    try:
        raise AssertionError(f"it gives {result()!r}")
    except grpc.RpcError as error:
        return error


def unary_call():
    with stub("unary_unary", "Unary") as call:
        assert call(b"order") == b"order"
    noted = world.until_noted(event="unary")
    assert noted["client"].startswith("sb-") and not noted["token"], noted


def large_message():
    with stub("unary_unary", "Unary") as call:
        message = bytes(range(256)) * 8192
        assert call(message) == message


def server_streaming():
    with stub("unary_stream", "Split") as call:
        assert [*call(b"one two three")] == [b"one", b"two", b"three"]


def client_streaming():
    with stub("stream_unary", "Join") as call:
        assert call(iter(SEVERAL)) == b" ".join(SEVERAL)


def bidirectional():
    """Each message is sent after the answer to the one before."""
    answered = []

    def messages():
        for number, message in enumerate(SEVERAL):
            world.until(lambda number=number: len(answered) == number, f"answer {number}")
            yield message

    with stub("stream_stream", "Echo") as call:
        for answer in call(messages()):
            answered.append(answer)
    assert answered == SEVERAL, answered


def many_messages():
    sent = [b"order %d" % number for number in range(1000)]
    with stub("stream_stream", "Echo") as call:
        assert [*call(iter(sent), 30)] == sent


def failing(error):
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "50% \u00e4"), error
    told = dict(error.trailing_metadata())
    assert (told["x-checksum"], told["x-octets-bin"]) == ("ab12", b"\0\xff"), told


def status():
    with stub("unary_unary", "Fail") as call:
        failing(failure(lambda: call("50% \u00e4".encode())))


def late_status():
    """After a message, so that the status comes in trailers of their own."""
    with stub("stream_stream", "FailLate") as call:
        answers = call(iter([b"first", "50% \u00e4".encode()]))
        assert next(answers) == b"first"
        failing(failure(lambda: next(answers)))


def deadline():
    with stub("unary_stream", "Wait") as call:
        error = failure(lambda: next(call(b"", 1)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error
    left = world.until_noted(event="waits")["left"]
    assert 0 < left <= 1, f"the server was told of {left} s"


def cancelled():
    """What a client gives up ends at the server too."""
    with stub("unary_stream", "Wait") as call:
        before = len(world.noted(event="waits"))
        waiting = call(b"", 60)
        world.until(lambda: len(world.noted(event="waits")) > before, "the call")
        waiting.cancel()
        world.until(lambda: len(world.noted(event="waits no more")) > before, "its end")


def refused(code, key=None):
    with stub("unary_unary", "Unary", key) as call:
        error = failure(lambda: call(b"order"))
    assert error.code().name == code, error


if __name__ == "__main__":
    world.run(globals())
