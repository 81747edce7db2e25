#!/usr/bin/env python3
"""grpc_echo: a gRPC server of bytes. Unary, streams, slow answers and failures on demand."""

import argparse
import signal
import threading
import time
from concurrent import futures

import grpc


def unary(request, context):
    for key, value in context.invocation_metadata():
        if key == "x-echo":
            context.send_initial_metadata((("x-echo", value),))
    context.set_trailing_metadata((("x-server", NAME), ("x-peer", context.peer())))
    return request


def server_stream(request, _context):
    """The request is a count, a space and a payload; the payload comes that many times."""
    count, _, payload = request.partition(b" ")
    for number in range(int(count)):
        yield b"%d %s" % (number, payload)


def client_stream(requests, _context):
    count = size = 0
    for request in requests:
        count += 1
        size += len(request)
    return b"%d %d" % (count, size)


def bidi(requests, _context):
    yield from requests


def slow(request, context):
    """The request is seconds to take; whoever went away is not waited for."""
    until = time.monotonic() + float(request)
    while time.monotonic() < until and context.is_active():
        time.sleep(0.01)
    with LOCK:
        COUNTS["finished" if context.is_active() else "abandoned"] += 1
    return b"%d %d" % (COUNTS["finished"], COUNTS["abandoned"])


def fail(request, context):
    """The request is a status code by number, maybe with a message behind a space."""
    number, _, message = request.decode().partition(" ")
    code = next(c for c in grpc.StatusCode if c.value[0] == int(number))
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x00details\xff"), ("x-server", NAME)))
    context.abort(code, message or "asked to fail")


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}
COUNTS = {"finished": 0, "abandoned": 0}
LOCK = threading.Lock()
NAME = "grpc_echo"


def main():
    global NAME
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9090")
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--grace", type=float, default=5, help="seconds a call may take after SIGTERM")
    args = parser.parse_args()
    NAME = args.name
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Echo", HANDLERS),))
    if server.add_insecure_port(args.listen) == 0:
        raise SystemExit(f"cannot listen on {args.listen}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    print("ready", flush=True)
    stop.wait()
    server.stop(args.grace).wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
