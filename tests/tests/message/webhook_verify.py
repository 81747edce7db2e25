#!/usr/bin/env python3
"""webhook_verify: holds a webhook against the reference library of Standard Webhooks."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def main():
    given = json.load(sys.stdin)
    try:
        event = Webhook(given["secret"]).verify(given["body"], given["headers"])
        print(json.dumps({"verified": True, "event": event}))
    except WebhookVerificationError as error:
        print(json.dumps({"verified": False, "error": str(error)}))


if __name__ == "__main__":
    main()
