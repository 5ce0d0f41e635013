"""Sends COUNT authenticated requests for a PATH over some kept connections and checks each answer."""
import socket, sys

port, count, token = int(sys.argv[1]), int(sys.argv[2]), sys.stdin.read().strip()
path = sys.argv[3] if len(sys.argv) > 3 else "/http/orders/1"
request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]


def answer(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 200"), head


for _ in range(count // len(connections)):
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        answer(connection)
