#!/usr/bin/env python3
"""mesh_grpc: a gRPC server that answers with the metadata it was sent, and its client.

The server has the methods Echo and EchoTwo of lab.Mesh. The client makes `--count` calls over one
channel and prints one line of JSON: how often each server answered and each code came, and the last call.
"""

import argparse
import json
import signal
import threading
from concurrent import futures

import grpc


def echo(name):
    def handle(_request, context):
        metadata = {}
        for key, value in context.invocation_metadata():
            if isinstance(value, str):
                metadata.setdefault(key, []).append(value)
        return json.dumps({"server": name, "metadata": metadata}).encode()

    return grpc.unary_unary_rpc_method_handler(handle)


def serve(args):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    methods = {"Echo": echo(args.name), "EchoTwo": echo(args.name)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Mesh", methods),))
    if server.add_insecure_port(args.listen) == 0:
        raise SystemExit(f"cannot listen on {args.listen}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    print("ready", flush=True)
    stop.wait()
    server.stop(1).wait()


def call(args):
    metadata = tuple(tuple(pair.split(": ", 1)) for pair in args.header)
    servers, codes, last = {}, {}, {}
    with grpc.insecure_channel(args.call, options=(("grpc.enable_http_proxy", 0),)) as channel:
        method = channel.unary_unary(f"/lab.Mesh/{args.method}")
        for _ in range(args.count):
            try:
                last = json.loads(method(b"", metadata=metadata, timeout=10, wait_for_ready=True))
                servers[last["server"]] = servers.get(last["server"], 0) + 1
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
                initial = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
                last = {"message": error.details(), "proxy-status": initial.get("proxy-status", "")}
            codes[code] = codes.get(code, 0) + 1
    print(json.dumps({"servers": servers, "codes": codes, "last": last}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", help="serve on host:port")
    parser.add_argument("--name", default="mesh_grpc")
    parser.add_argument("--call", help="call host:port")
    parser.add_argument("--method", default="Echo")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--header", action="append", default=[], help="name: value")
    args = parser.parse_args()
    if args.listen:
        serve(args)
    else:
        call(args)


if __name__ == "__main__":
    main()
