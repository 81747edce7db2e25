#!/usr/bin/env python3
"""grpc_client: calls a grpc_echo and prints what came back, as one line of JSON."""

import argparse
import json
import threading
import time

import grpc


def outcome(call):
    """The result of a call, or the code and words it failed with."""
    began = time.monotonic()
    try:
        result = {"code": "OK", "reply": call()}
    except grpc.RpcError as error:
        result = {"code": error.code().name, "message": error.details()}
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                result["details"] = value.hex()
    result["ms"] = round((time.monotonic() - began) * 1000, 3)
    return result


def unary(channel, args):
    call = channel.unary_unary("/lab.Echo/Unary")
    servers = {}

    def one(number):
        reply, info = call.with_call(
            b"%d" % number, timeout=args.timeout, metadata=(("x-echo", str(number)),)
        )
        trailers = dict(info.trailing_metadata())
        servers[trailers["x-server"]] = servers.get(trailers["x-server"], 0) + 1
        echoed = dict(info.initial_metadata()).get("x-echo") == str(number)
        return reply == b"%d" % number and echoed

    results = [outcome(lambda n=n: one(n)) for n in range(args.count)]
    codes = {}
    for result in results:
        codes[result["code"]] = codes.get(result["code"], 0) + 1
    bad = [r for r in results if r["code"] != "OK" or not r["reply"]]
    return {"calls": args.count, "codes": codes, "servers": servers, "bad": bad[:5]}


def streams(channel, args):
    down = channel.unary_stream("/lab.Echo/ServerStream")
    up = channel.stream_unary("/lab.Echo/ClientStream")
    payload = b"x" * args.bytes
    return {
        "down": outcome(lambda: len(list(down(b"%d %s" % (args.count, payload), timeout=args.timeout)))),
        "up": outcome(lambda: up(iter([payload] * args.count), timeout=args.timeout).decode()),
    }


def bidi(channel, args):
    """Sends the next message only once the last one came back: neither side may hold any back."""
    call = channel.stream_stream("/lab.Echo/Bidi")
    back = threading.Semaphore(1)

    def requests():
        for number in range(args.count):
            back.acquire()
            yield b"%d" % number

    def talk():
        seen = 0
        for reply in call(requests(), timeout=args.timeout):
            if reply != b"%d" % seen:
                return f"out of order: {reply!r} at {seen}"
            seen += 1
            back.release()
        return seen

    return outcome(talk)


def deadline(channel, args):
    call = channel.unary_unary("/lab.Echo/Slow")
    return outcome(lambda: call(b"%f" % args.takes, timeout=args.timeout).decode())


def cancel(channel, args):
    """Gives a slow call up, then asks the server how many calls it saw abandoned."""
    slow = channel.unary_unary("/lab.Echo/Slow")
    pending = slow.future(b"%f" % args.takes, timeout=args.timeout)
    time.sleep(args.after)
    pending.cancel()
    abandoned = 0
    until = time.monotonic() + args.takes
    while not abandoned and time.monotonic() < until:
        time.sleep(0.05)
        abandoned = int(slow(b"0", timeout=args.timeout).split()[1])
    return {"code": pending.code().name, "abandoned": abandoned}


def fail(channel, args):
    call = channel.unary_unary("/lab.Echo/Fail")
    return outcome(lambda: call(b"%d" % args.code, timeout=args.timeout).decode())


COMMANDS = {f.__name__: f for f in (unary, streams, bidi, deadline, cancel, fail)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--timeout", type=float, default=10)
    parser.add_argument("--takes", type=float, default=2, help="seconds a slow call takes")
    parser.add_argument("--after", type=float, default=0.3, help="seconds until a call is given up")
    parser.add_argument("--code", type=int, default=14, help="the status to fail with")
    args = parser.parse_args()
    with grpc.insecure_channel(args.target, options=(("grpc.enable_http_proxy", 0),)) as channel:
        print(json.dumps(COMMANDS[args.command](channel, args)))


if __name__ == "__main__":
    main()
