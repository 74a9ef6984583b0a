"""A controller that is ready meets a burst of new objects: the same procedure for the operator and for its peers."""

import http.client
import re
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tests.bench.measured import Posted, cpu, memory, server_cpu, server_writes
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane

STILL_SECONDS = 5.0
"""How long nothing must have been written before a burst counts as over."""
REST_SECONDS = 50
PATIENCE_SECONDS = 900
"""How long all children may take to be seen."""


@dataclass(frozen=True)
class Burst:
    """What a controller made of N objects. Seconds; processor time in milliseconds an object; memory in MB at rest."""

    span: float
    """From the first create to the moment when a watch shows the last object's child."""
    p50: float
    p99: float
    writes: float
    """Writes to the API an object, until nothing was written any more, as the API server counts them."""
    rest_writes_per_hour: float
    cpu: float
    """Of the controller, until the last child was seen."""
    settled_cpu: float
    """Of the controller, until nothing was written any more, and STILL_SECONDS longer."""
    server_cpu: float
    """Of API server and etcd, until the last child was seen."""
    rss: float
    peak: float


class Watch:
    """Notes when the first object of each name under a path is seen; `names` finds the name in an event."""

    def __init__(
        self, plane: ControlPlane, path: str, *, names: re.Pattern[bytes], stop_after: int = sys.maxsize
    ) -> None:
        self._seen: dict[str, float] = {}
        self._names, self._stop_after = names, stop_after
        self._changed = threading.Condition()
        target = f"{path}?watch=true&timeoutSeconds={PATIENCE_SECONDS}"
        response = Api(plane.kubeconfig).open("GET", target, kind="application/json", timeout=PATIENCE_SECONDS)
        threading.Thread(target=self._follow, args=(response,), daemon=True).start()

    def _follow(self, response: Any) -> None:
        """Read names off the raw events: parsing them whole would take time from what is measured."""
        with response, suppress(OSError, http.client.HTTPException):  # the API server is ended at the end
            for line in response:
                found = self._names.search(line)
                with self._changed:
                    if found:
                        self._seen.setdefault(found[1].decode(), time.monotonic())
                        self._changed.notify_all()
                    if len(self._seen) >= self._stop_after:
                        return

    def wait(self, count: int) -> dict[str, float]:
        """Wait until objects of so many names were seen; returns when each was."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._seen) >= count, timeout=PATIENCE_SECONDS):
                raise SystemExit(f"only {len(self._seen)} of {count} after {PATIENCE_SECONDS} s")
            return dict(self._seen)


def meet(
    plane: ControlPlane,
    pid: int,
    *,
    create: Callable[[], Posted],
    watch: Watch,
    kinds: Collection[tuple[str, str]],
    generated: int = 0,
) -> Burst:
    """Let a controller that is ready meet a burst, and then rest.

    Args:
        plane: Where it runs.
        pid: Its process.
        create: Creates the objects.
        watch: Sees their children.
        kinds: Resources that it writes to, each with its subresource.
        generated: Writes an object to these that are the generator's.
    """
    written = partial(server_writes, Api(plane.kubeconfig), kinds)
    writes, own, server = written(), cpu([pid]), server_cpu(plane)
    asked = create().asked
    seen, size = watch.wait(len(asked)), len(asked)
    until_seen, server = cpu([pid]) - own, server_cpu(plane) - server
    settled = settle(written)
    until_settled = cpu([pid]) - own
    time.sleep(REST_SECONDS)
    rss, peak = memory(pid)
    return Burst(
        **_times(asked, seen),
        writes=(settled - writes) / size - generated,
        rest_writes_per_hour=(written() - settled) * 3600 / REST_SECONDS,
        cpu=until_seen * 1000 / size,
        settled_cpu=until_settled * 1000 / size,
        server_cpu=server * 1000 / size,
        rss=rss,
        peak=peak,
    )


def _times(asked: dict[str, float], seen: dict[str, float]) -> dict[str, float]:
    waits = np.array([seen[name] - moment for name, moment in asked.items()])
    p50, p99 = (float(percentile) for percentile in np.percentile(waits, [50, 99]))
    return {"span": max(seen.values()) - min(asked.values()), "p50": p50, "p99": p99}


def settle(count: Callable[[], float]) -> float:
    """Wait until a count of writes stands still; returns it."""
    found, since = count(), time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        time.sleep(0.25)
        latest = count()
        if latest != found:
            found, since = latest, time.monotonic()
    return found
