#!/usr/bin/env python3
"""grpc_unary: a gRPC service that tells each call it saw, and a client that tells what came back."""

import argparse
import json
import sys
from concurrent import futures

import grpc


def tell(method, context, payload):
    metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
    print(json.dumps({"method": method, "metadata": metadata, "payload": payload}), flush=True)


def unary(request, context):
    tell("Unary", context, request.decode())
    return b"reply to " + request


def up(requests, context):
    tell("Up", context, b" ".join(requests).decode())
    return b"up"


def down(request, context):
    tell("Down", context, request.decode())
    yield b"one"
    yield b"two"


def both(requests, context):
    tell("Both", context, b" ".join(requests).decode())
    yield b"both"


def serve(args):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", handlers),))
    if server.add_insecure_port(args.address) == 0:
        raise SystemExit(f"cannot listen on {args.address}")
    server.start()
    print(json.dumps({"ready": True}), flush=True)
    # Ends with its standard input, that is with the test.
    sys.stdin.read()
    server.stop(0)


def call(args):
    options = (("grpc.default_authority", args.authority), ("grpc.enable_http_proxy", 0))
    channel = grpc.insecure_channel(args.address, options=options)
    metadata = [tuple(pair.split("=", 1)) for pair in args.metadata]
    payload = [word.encode() for word in args.payload]
    path = f"/shop.Orders/{args.method}"
    try:
        if args.method == "Unary":
            reply, info = channel.unary_unary(path).with_call(payload[0], timeout=args.timeout, metadata=metadata)
            replies = [reply]
        elif args.method == "Up":
            reply, info = channel.stream_unary(path).with_call(iter(payload), timeout=args.timeout, metadata=metadata)
            replies = [reply]
        elif args.method == "Down":
            info = channel.unary_stream(path)(payload[0], timeout=args.timeout, metadata=metadata)
            replies = list(info)
        else:
            info = channel.stream_stream(path)(iter(payload), timeout=args.timeout, metadata=metadata)
            replies = list(info)
        told = {"code": info.code().name, "replies": [reply.decode() for reply in replies]}
        trailing = info.trailing_metadata()
    except grpc.RpcError as error:
        told = {"code": error.code().name, "message": error.details(), "replies": []}
        trailing = error.trailing_metadata()
    told["trailing"] = {key: value for key, value in trailing or () if isinstance(value, str)}
    print(json.dumps(told))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["serve", "call"])
    parser.add_argument("address")
    parser.add_argument("--authority", default="")
    parser.add_argument("--method", default="Unary")
    parser.add_argument("--metadata", action="append", default=[])
    parser.add_argument("--payload", action="append", default=[])
    parser.add_argument("--timeout", type=float, default=8)
    args = parser.parse_args()
    serve(args) if args.what == "serve" else call(args)


if __name__ == "__main__":
    main()
