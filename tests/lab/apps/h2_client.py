#!/usr/bin/env python3
"""h2_client: prior-knowledge HTTP/2 on a plain socket, with the library h2.

Sends --count requests as concurrent streams of one connection, each with a body and, asked for,
trailers; prints the statuses, the trailers and the bytes that came back as one line of JSON.
"""

import argparse
import json
import socket

import h2.config
import h2.connection
import h2.events
import h2.exceptions


class Client:
    def __init__(self, args):
        host, _, port = args.target.rpartition(":")
        self.args = args
        self.socket = socket.create_connection((host, int(port)), timeout=args.timeout)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.left, self.streams, self.goaway = {}, {}, None

    def flush(self):
        if data := self.http.data_to_send():
            self.socket.sendall(data)

    def open(self):
        stream = self.http.get_next_available_stream_id()
        headers = [
            (":method", self.args.method),
            (":scheme", "http"),
            (":authority", self.args.authority or self.args.target),
            (":path", self.args.path),
        ] + [tuple(header.split(":", 1)) for header in self.args.header]
        ends = not self.args.bytes and not self.args.trailers
        self.http.send_headers(stream, headers, end_stream=ends)
        self.streams[stream] = {"status": None, "bytes": 0, "trailers": {}, "reset": None, "ended": False}
        self.left[stream] = None if ends else self.args.bytes

    def push(self, stream):
        """Sends as much of a body as the windows let, and the trailers behind it."""
        left = self.left.get(stream)
        while left:
            room = self.http.local_flow_control_window(stream)
            size = min(left, room, self.http.max_outbound_frame_size)
            if size <= 0:
                break
            left -= size
            self.http.send_data(stream, b"x" * size, end_stream=left == 0 and not self.args.trailers)
        if left == 0 and self.args.trailers:
            self.http.send_headers(stream, [("x-trailer", "sent")], end_stream=True)
        self.left[stream] = left if left else None

    def handle(self, event):
        kind = type(event).__name__
        seen = self.streams.get(getattr(event, "stream_id", None))
        if kind == "ResponseReceived":
            seen["status"] = int(dict(event.headers)[":status"])
            seen["server"] = dict(event.headers).get("x-server")
            seen["headers"] = dict(event.headers)
        elif kind == "DataReceived":
            seen["bytes"] += len(event.data)
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif kind == "TrailersReceived":
            seen["trailers"] = dict(event.headers)
        elif kind == "StreamEnded":
            seen["ended"] = True
        elif kind == "StreamReset" and seen:
            seen["reset"] = int(event.error_code)
            self.left[event.stream_id] = None
        elif kind == "ConnectionTerminated":
            self.goaway = int(event.error_code)

    def done(self):
        return all(s["ended"] or s["reset"] is not None for s in self.streams.values())

    def run(self):
        self.http.initiate_connection()
        self.flush()
        waiting, error = self.args.count, None
        settled = False
        while waiting or not self.done():
            # Only once the server's settings are known is its number of streams.
            while settled and waiting and self.http.open_outbound_streams < min(
                self.args.concurrency, self.http.remote_settings.max_concurrent_streams
            ):
                self.open()
                waiting -= 1
            for stream in [s for s, left in self.left.items() if left is not None]:
                self.push(stream)
            self.flush()
            try:
                data = self.socket.recv(65536)
                if not data:
                    error = "the connection ended"
                    break
                for event in self.http.receive_data(data):
                    settled |= isinstance(event, h2.events.RemoteSettingsChanged)
                    self.handle(event)
            except (OSError, h2.exceptions.ProtocolError) as problem:
                error = f"{type(problem).__name__}: {problem}"
                break
            if self.goaway is not None:
                waiting = 0
        self.socket.close()
        return self.report(error)

    def report(self, error):
        statuses, servers = {}, {}
        for stream in self.streams.values():
            status = str(stream["status"])
            statuses[status] = statuses.get(status, 0) + 1
            if name := stream.get("server"):
                servers[name] = servers.get(name, 0) + 1
        streams = list(self.streams.values())
        return {
            "streams": len(streams),
            "statuses": statuses,
            "servers": servers,
            "bytes": sum(s["bytes"] for s in streams),
            "resets": [s["reset"] for s in streams if s["reset"] is not None][:10],
            "headers": streams[0].get("headers", {}) if streams else {},
            "trailers": streams[0]["trailers"] if streams else {},
            "goaway": self.goaway,
            "error": error,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--authority")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--path", default="/")
    parser.add_argument("--header", action="append", default=[], help="name:value")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=0, help="of each request's body")
    parser.add_argument("--trailers", action="store_true")
    parser.add_argument("--timeout", type=float, default=10)
    print(json.dumps(Client(parser.parse_args()).run()))


if __name__ == "__main__":
    main()
