"""A token service: notes each client with the life of its token. Lives are short until SIGUSR1."""
import json, signal, socketserver, sys
from urllib.parse import parse_qs

port, journal, life = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1), 2


def prolong(*_):
    global life
    life = 36000


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not length:
            return
        client, seconds = parse_qs(self.rfile.read(length).decode())["client_id"][0], life
        journal.write(f"{client} {seconds}\n")
        body = json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": seconds}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 64


signal.signal(signal.SIGUSR1, prolong)
Server(("127.0.0.1", port), Answer).serve_forever()
