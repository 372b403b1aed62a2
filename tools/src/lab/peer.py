#!/usr/bin/env python3
"""The programs at both ends of the laboratory.

  peer.py serve [ADDRESS]              HTTP on 8080, TCP echo on 7000, UDP echo on 7000, until ended
  peer.py udp ADDRESS COUNT SIZE       COUNT datagrams, one after the other, each echoed
  peer.py udp-once ADDRESS SOURCE      one datagram from source port SOURCE, as whom it was seen
  peer.py tcp-idle ADDRESS SECONDS     one connection: talk, be silent for SECONDS, talk again
  peer.py tcp-many ADDRESS COUNT SIZE  COUNT connections open at once, SIZE bytes through each

HTTP: /  who is asking;  /bytes/N  N bytes;  /sha256/N  their digest.
The echo servers' first line, and first answer, is the address and port of the client as they see it.
Clients print one line and end with status 0, or print why not and end with status 1.
"""
import hashlib
import http.server
import random
import selectors
import socket
import sys
import threading
import time

HTTP, ECHO = 8080, 7000
WAIT = 10  # seconds that a client waits for an answer
CHUNK = random.Random(7).randbytes(1 << 16)


def shown(address):
    return "%s %d" % (address[0].removeprefix("::ffff:"), address[1])


def content(size):
    """SIZE bytes that differ from place to place, so that a piece lost, doubled or moved is seen."""
    for number in range((size + len(CHUNK) - 1) // len(CHUNK)):
        piece = number.to_bytes(8, "big") + CHUNK[8:]
        yield piece[: size - number * len(CHUNK)]


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, size = self.path.strip("/").partition("/")
        if kind == "bytes":
            self.begin(int(size))
            for piece in content(int(size)):
                self.wfile.write(piece)
        elif kind == "sha256":
            digest = hashlib.sha256()
            for piece in content(int(size)):
                digest.update(piece)
            self.answer(digest.hexdigest() + "\n")
        else:
            self.answer(shown(self.client_address) + "\n")

    def begin(self, size):
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def answer(self, text):
        self.begin(len(text))
        self.wfile.write(text.encode())


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super(http.server.HTTPServer, self).server_bind()


def echo_connection(connection, address):
    with connection:
        connection.sendall(shown(address).encode() + b"\n")
        while data := connection.recv(65536):
            connection.sendall(data)


def dual(kind):
    listener = socket.socket(socket.AF_INET6, kind)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", ECHO))
    return listener


def serve():
    web, streams, datagrams = Server(("::", HTTP), Page), dual(socket.SOCK_STREAM), dual(socket.SOCK_DGRAM)
    streams.listen(1024)
    threading.Thread(target=web.serve_forever, daemon=True).start()

    def accept():
        while True:
            threading.Thread(target=echo_connection, args=streams.accept(), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    while True:
        data, address = datagrams.recvfrom(65536)
        print("udp", shown(address), flush=True)
        datagrams.sendto(data if data != b"who" else shown(address).encode(), address)


def datagram_socket(address, source=0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.bind(("::" if ":" in address else "", source))
    sender.connect((address, ECHO))
    sender.settimeout(WAIT)
    return sender


def udp(address, count, size):
    sender = datagram_socket(address)
    for number in range(count):
        data = number.to_bytes(4, "big") + random.randbytes(size - 4)
        sender.send(data)
        assert sender.recv(65536) == data, "datagram %d came back changed" % number
    print(count, "echoed")


def udp_once(address, source):
    sender = datagram_socket(address, source)
    sender.settimeout(3)
    sender.send(b"who")
    print(sender.recv(65536).decode())


def talk(stream, data):
    stream.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = stream.recv(65536)
        assert piece, "the connection was closed"
        got += piece
    assert got == data, "the answer differs from the question"


def tcp_idle(address, seconds):
    with socket.create_connection((address, ECHO), WAIT) as stream:
        seen = stream.makefile("rb", buffering=0).readline().decode().strip()
        talk(stream, b"before")
        time.sleep(seconds)
        talk(stream, b"after")
    print(seen)


def tcp_many(address, count, size):
    """All connections are opened before the first is closed; each carries its own bytes."""
    streams, ready = [], selectors.DefaultSelector()
    for _ in range(count):
        stream = socket.create_connection((address, ECHO), WAIT)
        stream.setblocking(False)
        state = {"send": random.randbytes(size), "got": bytearray()}
        state["want"] = state["send"]
        ready.register(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, state)
        streams.append((stream, state))
    left, seen, deadline = count, set(), time.monotonic() + 6 * WAIT
    while left:
        assert time.monotonic() < deadline, "%d of %d connections did not finish" % (left, count)
        for key, mask in ready.select(1):
            stream, state = key.fileobj, key.data
            if mask & selectors.EVENT_WRITE and state["send"]:
                state["send"] = state["send"][stream.send(state["send"][:16384]):]
                if not state["send"]:
                    ready.modify(stream, selectors.EVENT_READ, state)
            if mask & selectors.EVENT_READ:
                piece = stream.recv(65536)
                assert piece, "a connection was closed early"
                state["got"] += piece
                who, newline, data = bytes(state["got"]).partition(b"\n")
                if newline and len(data) == len(state["want"]):
                    assert data == state["want"], "the answer differs from the question"
                    seen.add(who)
                    left -= 1
                    ready.unregister(stream)
    for stream, _ in streams:
        stream.close()
    assert len(seen) == count, "two connections were seen as the same client"
    print(count, "connections")


VERBS = {"serve": serve, "udp": udp, "udp-once": udp_once, "tcp-idle": tcp_idle, "tcp-many": tcp_many}


def main():
    verb, *words = sys.argv[1:] or [""]
    if verb not in VERBS:
        sys.exit(__doc__)
    try:
        VERBS[verb](*(int(word) if word.isdigit() else word for word in words))
    except (AssertionError, OSError) as error:
        print("%s: %s" % (verb, error or type(error).__name__))
        sys.exit(1)


main()
