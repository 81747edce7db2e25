#!/usr/bin/env python3
"""h2_deaf: an HTTP/2 server that takes each request, knows of no deadline and never answers.

Prints each request with its `grpc-timeout`, and when and how its stream ended before it answered.
"""

import argparse
import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions


def hear(connection):
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    http.initiate_connection()
    connection.sendall(http.data_to_send())
    begun = {}

    def tell(stream, how):
        if stream in begun:
            print(f"stream ended: {how} after {(time.monotonic() - begun.pop(stream)) * 1000:.0f} ms", flush=True)

    try:
        while data := connection.recv(65536):
            for event in http.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    begun[event.stream_id] = time.monotonic()
                    print(f"asked with grpc-timeout {dict(event.headers).get('grpc-timeout')}", flush=True)
                elif isinstance(event, h2.events.DataReceived):
                    http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    tell(event.stream_id, f"reset {int(event.error_code)}")
            connection.sendall(http.data_to_send())
    except (OSError, h2.exceptions.ProtocolError) as problem:
        print(f"the connection failed: {problem}", flush=True)
    for stream in list(begun):
        tell(stream, "closed")
    connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9090")
    host, _, port = parser.parse_args().listen.rpartition(":")
    listener = socket.create_server((host, int(port)), backlog=128)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=hear, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
