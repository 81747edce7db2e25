#!/usr/bin/env python3
"""ws_client: sends messages over one WebSocket and compares what comes back; one line of JSON."""

import argparse
import asyncio
import json
import os
import time

from websockets.asyncio.client import connect


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--path", default="/")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--idle", type=float, default=0, help="silent seconds before the last message")
    parser.add_argument("--text", action="store_true", help="letters of several bytes each")
    parser.add_argument("--ask-close", type=int, help="the code the server shall close with")
    parser.add_argument("--timeout", type=float, default=10)
    args = parser.parse_args()
    result = {"messages": args.count, "echoed": 0, "error": None}
    began = time.monotonic()
    try:
        async with connect(
            f"ws://{args.target}{args.path}", proxy=None, open_timeout=args.timeout, max_size=16 * 1024 * 1024
        ) as connection:
            for number in range(args.count):
                if args.idle and number == args.count - 1:
                    await asyncio.sleep(args.idle)
                sent = "ü" * (args.bytes // 2) if args.text else os.urandom(args.bytes)
                await connection.send(sent)
                back = await asyncio.wait_for(connection.recv(), args.timeout)
                result["echoed"] += back == sent
            pong = await connection.ping()
            result["pong_ms"] = round(await asyncio.wait_for(pong, args.timeout) * 1000, 3)
            if args.ask_close:
                await connection.send(f"close {args.ask_close}")
                await asyncio.wait_for(connection.wait_closed(), args.timeout)
        result["close_code"] = connection.close_code
        result["close_reason"] = connection.close_reason
    except Exception as error:  # Whatever went wrong is the result.
        result["error"] = f"{type(error).__name__}: {error}"
    result["ms"] = round((time.monotonic() - began) * 1000, 3)
    print(json.dumps(result))


asyncio.run(main())
