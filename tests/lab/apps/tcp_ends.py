#!/usr/bin/env python3
"""tcp_ends: the ways in which a TCP connection ends, each told from both sides.

The client's first line says which:

  count  the server reads to the end, which comes as a half-close, and only then answers how much
  first  the server says `bye` and half-closes, then reads to the end and logs how much that was
  reset  the server answers `now` and resets the connection
  watch  the server reads until an error and logs it; the client resets the connection
"""

import argparse
import errno
import json
import socket
import struct
import threading

LINGER_NONE = struct.pack("ii", 1, 0)


def read_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        data = connection.recv(1)
        if not data:
            raise ConnectionError(f"ended after {line!r}")
        line += data
    return line.strip().decode()


def drain(connection):
    """How much comes until the end, and how that was."""
    size = 0
    try:
        while data := connection.recv(65536):
            size += len(data)
    except OSError as error:
        return size, errno.errorcode.get(error.errno, str(error))
    return size, "end"


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    connection.close()


def answer(connection):
    with connection:
        word = read_line(connection)
        if word == "count":
            size, how = drain(connection)
            connection.sendall(b"%d %s\n" % (size, how.encode()))
        elif word == "first":
            connection.sendall(b"bye\n")
            connection.shutdown(socket.SHUT_WR)
            print("first saw %d %s" % drain(connection), flush=True)
        elif word == "reset":
            connection.sendall(b"now\n")
            if read_line(connection) == "go":
                reset(connection)
        elif word == "watch":
            connection.sendall(b"yes\n")
            print("watch saw %d %s" % drain(connection), flush=True)


def serve(host, port):
    with socket.create_server((host, port), backlog=128) as server:
        print("ready", flush=True)
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


def ask(word, host, port, size):
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(word.encode() + b"\n")
        if word == "count":
            connection.sendall(b"x" * size)
            connection.shutdown(socket.SHUT_WR)
            return {"answer": read_line(connection), "then": drain(connection)[1]}
        line = read_line(connection)
        if word == "first":
            how = drain(connection)[1]
            connection.sendall(b"x" * size)
            return {"answer": line, "then": how}
        if word == "reset":
            connection.sendall(b"go\n")
            return {"answer": line, "then": drain(connection)[1]}
        reset(connection)
        return {"answer": line, "then": "reset"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", choices=("serve", "count", "first", "reset", "watch"))
    parser.add_argument("target", help="host:port")
    parser.add_argument("--bytes", type=int, default=100_000)
    args = parser.parse_args()
    host, _, port = args.target.rpartition(":")
    if args.word == "serve":
        serve(host, int(port))
    else:
        print(json.dumps(ask(args.word, host, int(port), args.bytes)))


if __name__ == "__main__":
    main()
