"""Asks a model server for a while, over new connections, as a Job in the cluster; counts the answers by their code.

`python asking.py URL SECONDS`: a request every tenth of a second, each to whichever pod the Service chooses.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

BODY = {"inputs": [{"name": "X", "shape": [1, 30], "datatype": "FP32", "data": [0.0] * 30}]}
TIMEOUT_SECONDS, PAUSE_SECONDS = 5.0, 0.1


def ask(url: str) -> str:
    """Return the code of one answer, or what went wrong instead."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(BODY).encode(), headers)  # noqa: S310 - the test's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return type(error).__name__


def main(url: str, seconds: float) -> None:
    """Ask until the time is over."""
    counts, end = Counter[str](), time.monotonic() + seconds
    while time.monotonic() < end:
        counts[ask(url)] += 1
        time.sleep(PAUSE_SECONDS)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
