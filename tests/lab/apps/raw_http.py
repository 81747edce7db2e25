#!/usr/bin/env python3
"""raw_http: HTTP/1.1 by hand, for what the libraries hide: chunks and trailers.

`serve ADDRESS` answers every chunked request with two chunks and a trailer, and tells in headers
what it heard. `send HOST:PORT` sends such a request and prints what both sides heard, as JSON; with
a number behind, it is silent for so many seconds first.
"""

import json
import socket
import sys
import threading
import time


def read_head(file):
    first, headers = file.readline().decode().strip(), {}
    while (line := file.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first, headers


def read_chunks(file):
    """The body, and the trailers behind it."""
    body = b""
    while size := int(file.readline().split(b";")[0], 16):
        body += file.read(size)
        file.readline()
    trailers = {}
    while (line := file.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        trailers[name.lower()] = value.strip()
    return body.decode(), trailers


def answer(connection):
    with connection, connection.makefile("rb") as file:
        first, headers = read_head(file)
        if not first:
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, trailers = read_chunks(file)
        else:
            body, trailers = f"not chunked: {headers}", {}
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-answer\r\nConnection: close\r\n"
            + f"X-Body: {body}\r\nX-Trailer: {trailers.get('x-sent')}\r\n\r\n".encode()
            + b"6\r\nfirst \r\n6\r\nsecond\r\n0\r\nX-Answer: answered\r\n\r\n"
        )


def serve(address):
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as server:
        print("ready", flush=True)
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


def send(address, silence="0"):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        time.sleep(float(silence))
        head = f"POST /upload HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
        # Trailers are merged or dropped unless the reader says that it wants them (RFC 9110 §6.5.1).
        connection.sendall(head.encode() + b"TE: trailers\r\nConnection: TE\r\nTrailer: x-sent\r\n\r\n")
        connection.sendall(b"6\r\nhello \r\n5\r\nworld\r\n0\r\nX-Sent: sent\r\n\r\n")
        with connection.makefile("rb") as file:
            first, headers = read_head(file)
            status = int(first.split()[1])
            body, trailers = "", {}
            if headers.get("transfer-encoding", "").lower() == "chunked":
                body, trailers = read_chunks(file)
            print(
                json.dumps(
                    {
                        "status": status,
                        "request_body": headers.get("x-body"),
                        "request_trailer": headers.get("x-trailer"),
                        "response_body": body,
                        "response_trailer": trailers.get("x-answer"),
                        "headers": headers,
                    }
                )
            )


if __name__ == "__main__":
    {"serve": serve, "send": send}[sys.argv[1]](*sys.argv[2:])
