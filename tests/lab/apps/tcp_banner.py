#!/usr/bin/env python3
"""tcp_banner: a server that speaks first, as SMTP's do, and then echoes what it hears."""

import argparse
import asyncio


async def serve(reader, writer):
    try:
        writer.write(b"220 ready\r\n")
        await writer.drain()
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:2525")
    host, _, port = parser.parse_args().listen.rpartition(":")
    server = await asyncio.start_server(serve, host, int(port), backlog=1024)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
