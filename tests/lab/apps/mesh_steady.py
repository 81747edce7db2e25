#!/usr/bin/env python3
"""mesh_steady: asks one URL over one connection until SIGTERM, and prints each change of the answer.

With a second argument, HOST:PORT of a proxy, the URL is asked there in absolute form. The last line is
JSON: how often it connected, and each answer with how often it came.
"""

import http.client
import json
import signal
import sys
import time
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.002


def main():
    url = urlsplit(sys.argv[1])
    to, target = (url.hostname, url.port or 80), url.path or "/"
    if len(sys.argv) > 2:
        host, _, port = sys.argv[2].rpartition(":")
        to, target = (host, int(port)), sys.argv[1]
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    answers, connections, last, connection = {}, 0, None, None
    while not stopped:
        if connection is None:
            connection = http.client.HTTPConnection(*to, timeout=10)
            connections += 1
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            response.read()
            answer = f"{response.status} {response.getheader('x-server', response.getheader('proxy-status'))}"
            if response.will_close:
                connection = None
        except (OSError, http.client.HTTPException) as error:
            answer, connection = f"{type(error).__name__}: {error}", None
        answers[answer] = answers.get(answer, 0) + 1
        if answer != last:
            print(answer, flush=True)
            last = answer
        time.sleep(PAUSE_SECONDS)
    print(json.dumps({"connections": connections, "answers": answers}), flush=True)


if __name__ == "__main__":
    main()
