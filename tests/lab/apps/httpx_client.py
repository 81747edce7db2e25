#!/usr/bin/env python3
"""httpx_client: asks one URL --count times with httpx, --at-once of them together, and prints what came.

Over HTTP/1.1 with keep-alive, or with --http2 over HTTP/2 with prior knowledge (the library h2).
"""

import argparse
import asyncio
import json

import httpx


async def ask(args):
    count = {"versions": {}, "statuses": {}, "bytes": 0, "wrong": []}
    limits = httpx.Limits(max_connections=args.at_once, max_keepalive_connections=args.at_once)
    # The environment's proxies are none of this test's.
    options = {"http1": not args.http2, "http2": args.http2, "limits": limits, "trust_env": False}
    turns = asyncio.Semaphore(args.at_once)

    async with httpx.AsyncClient(timeout=args.timeout, **options) as client:

        async def one(number):
            async with turns:
                if args.bytes:
                    body = b"%06d" % number * (args.bytes // 6)
                    response = await client.post(args.url, content=body)
                else:
                    response = await client.get(args.url)
            for name, value in (("versions", response.http_version), ("statuses", str(response.status_code))):
                count[name][value] = count[name].get(value, 0) + 1
            count["bytes"] += len(response.content)

        # The first makes the connection that HTTP/2 shares.
        await one(0)
        results = await asyncio.gather(*map(one, range(1, args.count)), return_exceptions=True)
    count["wrong"] = [repr(result) for result in results if result is not None][:5]
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=0, help="of each request's body, which makes it a POST")
    parser.add_argument("--timeout", type=float, default=10)
    print(json.dumps(asyncio.run(ask(parser.parse_args()))))


if __name__ == "__main__":
    main()
