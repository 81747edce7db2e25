#!/usr/bin/env python3
"""ws_echo: a WebSocket server that echoes; the text `close CODE` has it close with that code."""

import argparse
import asyncio

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            return await connection.close(int(message.split()[1]), "as asked")
        await connection.send(message)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8765")
    host, _, port = parser.parse_args().listen.rpartition(":")
    async with serve(echo, host, int(port), max_size=16 * 1024 * 1024) as server:
        print("ready", flush=True)
        await server.serve_forever()


asyncio.run(main())
