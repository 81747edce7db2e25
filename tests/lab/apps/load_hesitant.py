"""A client that connects, hesitates, perhaps asks, and then keeps the connection."""

import argparse
import socket
import time

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True, help="HOST:PORT")
parser.add_argument("--hesitate", type=float, default=0.2, help="seconds before it asks")
parser.add_argument("--mute", action="store_true", help="never ask")
args = parser.parse_args()

host, port = args.to.rsplit(":", 1)
connection = socket.create_connection((host, int(port)))
print("connected", flush=True)
if not args.mute:
    time.sleep(args.hesitate)
    connection.sendall(b"GET / HTTP/1.1\r\nhost: %s\r\n\r\n" % host.encode())
    print("answered:", connection.recv(4096).split(b"\r\n")[0].decode(), flush=True)
while said := connection.recv(4096):
    print("heard:", said, flush=True)
print("the end", flush=True)
