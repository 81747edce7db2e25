#!/usr/bin/env python3
"""user_version: gives a SQLite database another version, as a later release would."""

import json
import sqlite3
import sys


def main():
    given = json.load(sys.stdin)
    database = sqlite3.connect(given["database"])
    (before,) = database.execute("PRAGMA user_version").fetchone()
    database.execute(f"PRAGMA user_version = {int(given['version'])}")
    database.commit()
    database.close()
    print(json.dumps({"before": before}))


if __name__ == "__main__":
    main()
