#!/usr/bin/env python3
"""dns_zone: a name server over UDP that answers from a file, read at every question.

The file is JSON: {"negative_ttl": SECONDS, "names": {NAME: {"ttl": SECONDS, "a": [ADDRESS, …]}}}. A name
that is not in it does not exist (NXDOMAIN), one without addresses of the type asked for has none; both
answers carry a SOA, from which resolvers take how long that holds (RFC 2308 §5). Each question is
printed: `asked TYPE NAME`.
"""

import argparse
import ipaddress
import json
import signal
import socket
import struct
import sys

TYPES = {1: "A", 28: "AAAA", 6: "SOA", 5: "CNAME", 65: "HTTPS"}
NO_ERROR, NX_DOMAIN = 0, 3
# The name at offset 12: the question's (RFC 1035 §4.1.4).
QUESTIONS_NAME = b"\xc0\x0c"


def question(packet):
    """The name, the type, and the question's bytes."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii").lower())
        at += 1 + packet[at]
    (kind,) = struct.unpack_from("!H", packet, at + 1)
    return ".".join(labels), kind, packet[12 : at + 5]


def record(name, kind, ttl, data):
    return name + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def soa(negative_ttl):
    """The root's, so that it is above every name."""
    numbers = struct.pack("!IIIII", 1, 3600, 600, 86400, negative_ttl)
    return record(b"\0", 6, negative_ttl, b"\x02ns\0" + b"\x04root\0" + numbers)


def answer(packet, zone):
    name, kind, asked = question(packet)
    print("asked", TYPES.get(kind, kind), name, flush=True)
    entry = zone["names"].get(name)
    addresses = entry["a"] if entry and kind == 1 else []
    answers = [
        record(QUESTIONS_NAME, 1, entry["ttl"], ipaddress.IPv4Address(address).packed) for address in addresses
    ]
    authority = [] if answers else [soa(zone["negative_ttl"])]
    # An authoritative response that repeats "recursion desired".
    flags = 0x8480 | (packet[2] & 1) << 8 | (NO_ERROR if entry else NX_DOMAIN)
    head = packet[:2] + struct.pack("!HHHHH", flags, 1, len(answers), len(authority), 0)
    return head + asked + b"".join(answers + authority)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:53")
    parser.add_argument("--zone", required=True)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, _, port = args.listen.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((host, int(port)))
        print("ready", flush=True)
        while True:
            packet, client = server.recvfrom(4096)
            with open(args.zone, encoding="utf-8") as file:
                zone = json.load(file)
            server.sendto(answer(packet, zone), client)


if __name__ == "__main__":
    main()
