"""Asks a model server so many times, one request after the other, and counts who has answered.

`python counting.py URL REQUESTS [HEADER VALUE]` prints the answers by their code and the digest of the bundle that they
name; with a header, every request has it.
"""

import json
import sys
import urllib.error
import urllib.request
from collections import Counter

BODY = {"inputs": [{"name": "X", "shape": [1, 30], "datatype": "FP32", "data": [0.0] * 30}]}
TIMEOUT_SECONDS = 10.0


def ask(url: str, asked: dict[str, str]) -> str:
    """Return the code of one answer and the digest that it names, `delivered` where it names none."""
    headers = {"Content-Type": "application/json"} | asked
    request = urllib.request.Request(url, json.dumps(BODY).encode(), headers)  # noqa: S310 - the test's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            named = json.load(answer).get("parameters") or {}
            return f"{answer.status} {named.get('bundle_digest') or 'delivered'}"
    except urllib.error.HTTPError as error:
        return str(error.code)


def main(url: str, requests: int, *header: str) -> None:
    """Ask, and print what was counted."""
    asked = dict(zip(header[::2], header[1::2], strict=True))
    counts = Counter(ask(url, asked) for _ in range(requests))
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
