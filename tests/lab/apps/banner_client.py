#!/usr/bin/env python3
"""banner_client: how long the first word of a server takes, and whether an echo is whole.

With several targets, each round asks one after the other; `ms` lists what each took.
"""

import argparse
import hashlib
import json
import os
import socket
import threading
import time


def read_line(connection):
    line = b""
    while not line.endswith(b"\r\n"):
        data = connection.recv(1)
        if not data:
            raise ConnectionError(f"ended after {line!r}")
        line += data
    return line


def echo(connection, size):
    """Sends random bytes, half-closes, and compares what comes back until the end."""
    sent = os.urandom(size)

    def send():
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    back, count = hashlib.sha256(), 0
    while data := connection.recv(65536):
        back.update(data)
        count += len(data)
    sender.join()
    if back.digest() != hashlib.sha256(sent).digest():
        raise ConnectionError(f"{count} bytes of {size} came back, or others")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="target", help="host:port")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--bytes", type=int, default=0, help="to be echoed on each connection")
    parser.add_argument("--timeout", type=float, default=10)
    args = parser.parse_args()
    # Names are looked up before the clock runs.
    pairs = [target.rpartition(":") for target in args.targets]
    addresses = [(socket.gethostbyname(host), int(port)) for host, _, port in pairs]
    times, errors, each = [], [], {target: [] for target in args.targets}
    for target, address in list(zip(args.targets, addresses)) * args.count:
        began = time.monotonic()
        try:
            with socket.create_connection(address, timeout=args.timeout) as connection:
                line = read_line(connection)
                times.append((time.monotonic() - began) * 1000)
                each[target].append(round(times[-1], 3))
                if line != b"220 ready\r\n":
                    raise ConnectionError(f"unexpected banner {line!r}")
                if args.bytes:
                    echo(connection, args.bytes)
        except OSError as error:
            errors.append(str(error))
    times.sort()
    count = args.count * len(args.targets)
    result = {"connections": count, "banners": len(times), "errors": errors[:5], "failed": len(errors)}
    if len(each) > 1:
        result["ms"] = each
    if times:
        result.update(
            min_ms=round(times[0], 3),
            median_ms=round(times[len(times) // 2], 3),
            max_ms=round(times[-1], 3),
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
