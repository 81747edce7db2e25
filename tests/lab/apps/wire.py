#!/usr/bin/env python3
"""wire: a cable between a pod and its bridge that is slow and loses frames, both ways.

Kernels built for virtual machines often have no netem. This holds each frame in a program instead:
from the pod's end (a packet socket) to a tap device on the bridge, and back. Both carry the virtio
header, so that large segments and checksums not computed yet pass as they are.
"""

import argparse
import collections
import fcntl
import os
import random
import select
import socket
import struct
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
FRAME_BYTES_MAX = 10 + 14 + 65536 + 1024
# Frames on their way, in each direction; more are lost, as in a switch with a full buffer.
FRAMES_MAX = 10_000


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return tap


def open_port(name):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
    port.bind((name, 0))
    port.setblocking(False)
    return port.detach()


def take(source, queue, args):
    """Puts the frames that are there into the queue, each with the time it is due."""
    for _ in range(64):
        try:
            frame = os.read(source, FRAME_BYTES_MAX)
        except BlockingIOError:
            return
        if random.random() >= args.loss and len(queue) < FRAMES_MAX:
            queue.append((time.monotonic() + args.delay_ms / 1000, frame))


def give(queue, to):
    """Hands the due frames over; gives the seconds until the next one, if there is one."""
    while queue:
        wait = queue[0][0] - time.monotonic()
        if wait > 0:
            return wait
        try:
            os.write(to, queue.popleft()[1])
        except OSError:
            pass  # A frame that the other end does not take is lost, as on any cable.
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", required=True, help="the pod's end")
    parser.add_argument("--tap", required=True, help="the device to make for the bridge")
    parser.add_argument("--delay-ms", type=float, default=0, help="each way")
    parser.add_argument("--loss", type=float, default=0, help="0..1, each way")
    args = parser.parse_args()
    tap, port = open_tap(args.tap), open_port(args.port)
    print("ready", flush=True)
    there, back = collections.deque(), collections.deque()
    while True:
        waits = [w for w in (give(there, tap), give(back, port)) if w is not None]
        readable, _, _ = select.select([tap, port], [], [], min(waits) if waits else None)
        if port in readable:
            take(port, there, args)
        if tap in readable:
            take(tap, back, args)


if __name__ == "__main__":
    main()
