#!/usr/bin/env python3
"""http_echo: an HTTP/1.1 server that answers with what it was asked, and counts.

/status/NNN answers with that status, /fail/N with 503 for the first N requests under the same
?key= and 200 after, /slow/SECONDS takes that long, /sip/RATE reads the body at so many MiB/s, /bytes/N answers N bytes, /counts tells the
counts; every other path echoes.
"""

import argparse
import hashlib
import json
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, address, name):
        super().__init__(address, Handler)
        self.name = name
        self.lock = threading.Lock()
        self.counts = {"requests": 0, "connections": 0, "paths": {}, "peers": {}}
        self.failed = {}

    def count(self, path, peer):
        with self.lock:
            self.counts["requests"] += 1
            # Bounded, for a long run with a different path in every request.
            for key, value in (("paths", path), ("peers", peer)):
                table = self.counts[key]
                value = value if value in table or len(table) < 100 else "other"
                table[value] = table.get(value, 0) + 1

    def fails(self, key, times):
        with self.lock:
            done = self.failed.get(key, 0)
            self.failed[key] = done + 1
            return done < times


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lab"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.counts["connections"] += 1

    def log_message(self, *_):
        pass

    def body(self):
        """The digest and the length of the request's body, whichever way it is framed."""
        digest, size, began = hashlib.sha256(), 0, time.monotonic()
        _, sips, rate = self.path.partition("/sip/")
        for part in self.parts():
            digest.update(part)
            size += len(part)
            if sips:
                time.sleep(max(0, began + size / (float(rate) * 1024 * 1024) - time.monotonic()))
        return size, digest.hexdigest()

    def parts(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                length = int(self.rfile.readline().split(b";")[0], 16)
                if length == 0:
                    while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                        pass
                    return
                yield self.rfile.read(length)
                self.rfile.readline()
        left = int(self.headers.get("content-length", 0))
        while left > 0:
            part = self.rfile.read(min(left, 65536))
            if not part:
                raise ConnectionError("the body ended early")
            left -= len(part)
            yield part

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-server", self.server.name)
        empty = status < 200 or status in (204, 304)
        if not empty:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if not empty and self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        url = urlsplit(self.path)
        size, digest = self.body()
        word, _, value = url.path.strip("/").partition("/")
        if word == "counts":
            with self.server.lock:
                return self.answer(200, json.dumps(self.server.counts).encode())
        self.server.count(url.path, self.client_address[0])
        status = 200
        if word == "status":
            status = int(value)
        elif word == "fail":
            key = parse_qs(url.query).get("key", [""])[0]
            status = 503 if self.server.fails(key, int(value)) else 200
        elif word == "slow":
            time.sleep(float(value))
        elif word == "bytes":
            return self.answer(200, b"x" * int(value), "application/octet-stream")
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        echo = {
            "server": self.server.name,
            "method": self.command,
            "path": self.path,
            "version": self.request_version,
            "headers": headers,
            "body_bytes": size,
            "body_sha256": digest,
            "peer": self.client_address[0],
        }
        self.answer(status, json.dumps(echo).encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = handle_any


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8080")
    parser.add_argument("--name", default=socket.gethostname())
    args = parser.parse_args()
    host, _, port = args.listen.rpartition(":")
    server = Server((host, int(port)), args.name)
    # Shutdown waits for the loop, and so must be asked for from another thread.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("ready", flush=True)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
