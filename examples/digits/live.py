"""The demo's acts under real traffic: another handwriting that is learned, and two bad models that are caught.

What is printed comes from the cluster: windows as the status has them, the run with its reason, and quality before,
during and after.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from examples.digits.kube import NAME, NAMESPACE
from examples.kube import STORES, DemoError, Json, Tools

TRAFFIC = "digits-traffic"
PATIENCE_SECONDS = 900.0
LOOK_SECONDS = 2.0

Say = Callable[[str], None]
_TOLD = re.compile(r"^(\d+) digits, .* right, (\d+) requests failed$", re.MULTILINE)


@dataclass(frozen=True)
class Users:
    """What the traffic has had in answer."""

    digits: int
    """Digits that were answered."""
    failed: int
    """Requests that were not."""


def begin_traffic(tools: Tools) -> None:
    """Send digits in the usual handwriting, with their labels."""
    tools.apply_script(TRAFFIC, Path(__file__).with_name("traffic.py"))
    tools.apply("50-traffic.yaml")
    change_hand(tools, "usual")


def change_hand(tools: Tools, hand: str) -> None:
    """Send digits in another handwriting from now on, which `traffic.HANDS` names."""
    tools.kubectl("set", "env", f"deployment/{TRAFFIC}", f"HAND={hand}")
    tools.kubectl("rollout", "status", f"deployment/{TRAFFIC}", "--timeout", "2m")


def deliver(tools: Tools, model: str, *, fault: str, slow_margin: str | None = None) -> str:
    """Deliver another model, which goes live by a canary where it is judged no worse; return when, for `users`.

    One that an earlier call of the demo has seen rejected for this fault is let in again, as `rollout.retry` does.
    `slow_margin` is how much more of its requests may be slow than of the champion's; None keeps the default.
    """
    steps = [{"weight": 33, "hold": "1m", "minRequests": 100}]
    rollout = {"strategy": "Canary", "canary": {"steps": steps}, "deliveredModel": "GoesLive"}
    rollout["analysis"] = {"slowMargin": slow_margin}
    caught = [entry["digest"] for entry in _status(tools).get("rejected", ()) if entry["reason"] == fault]
    spec = {
        "model": {"uri": f"{STORES[tools.store]}/{NAME}/{model}"},
        "rollout": rollout | ({"retry": caught[-1]} if caught else {}),
    }
    tools.kubectl("patch", "modeloptimization", NAME, "--type", "merge", "--patch", json.dumps({"spec": spec}))
    return datetime.now(UTC).isoformat(timespec="seconds")


def users(tools: Tools, *, since: str) -> Users:
    """Return what the traffic has had in answer since a time."""
    told = _TOLD.findall(tools.kubectl("logs", f"deployment/{TRAFFIC}", "--since-time", since))
    return Users(sum(int(digits) for digits, _ in told), sum(int(failed) for _, failed in told))


def rest(tools: Tools) -> None:
    """Stop the traffic and judge by the hour, so that the cluster is not kept busy after the demo."""
    tools.kubectl("scale", f"deployment/{TRAFFIC}", "--replicas", "0")
    patch = json.dumps({"spec": {"monitoring": {"window": "1h"}, "rollout": {"retry": None}}})
    tools.kubectl("patch", "modeloptimization", NAME, "--type", "merge", "--patch", patch)


def until_calm(tools: Tools, say: Say) -> None:
    """Follow windows until quality was seen to be good and no drift in the last one."""
    _windows(tools, say, lambda state: _verdict(state, "Quality") == "Clear" and _verdict(state, "Drift") == "Clear")


def until_run(tools: Tools, say: Say) -> str:
    """Follow windows until a signal starts a run; return the run's name and reason."""
    runs: list[Json] = []

    def started(_: Json) -> bool:
        runs.extend(filter(None, [_status(tools).get("run")]))
        return bool(runs)

    _windows(tools, say, started)
    return f"{runs[0]['name']}: {runs[0]['trigger']}: {runs[0].get('why', '')}"


def champion(tools: Tools) -> int:
    """Return the version that serves."""
    version: int = (_status(tools).get("champion") or {}).get("version", 0)
    return version


def _windows(tools: Tools, say: Say, enough: Callable[[Json], bool]) -> None:
    """Say a line for each window until there is enough."""
    deadline, window = time.monotonic() + PATIENCE_SECONDS, None
    while time.monotonic() < deadline:
        state = _status(tools).get("monitoring") or {}
        if state.get("window") != window:
            window = state.get("window")
            say(_line(state))
        if enough(state):
            return
        time.sleep(LOOK_SECONDS)
    raise DemoError(
        f"nothing came of it within {PATIENCE_SECONDS / 60:g} min",
        hint=f"kubectl -n {NAMESPACE} describe modeloptimization {NAME}",
    )


def _status(tools: Tools) -> Json:
    resource = tools.kubectl.find("modeloptimization", NAME) or {}
    status: Json = resource.get("status", {})
    return status


def _signal(state: Json, name: str) -> Json:
    return next((signal for signal in state.get("signals", ()) if signal["name"] == name), {})


def _verdict(state: Json, name: str) -> str:
    verdict: str = _signal(state, name).get("verdict", "Unknown")
    return verdict


def _line(state: Json) -> str:
    """Return one line for a window: rows, drift and quality with their verdicts, and whose they are if not its own."""
    parts = [f"window {state.get('window')}  {state.get('samples') or 0} rows"]
    for name, label in (("Drift", "drift"), ("Quality", "quality"), ("EstimatedQuality", "estimated")):
        signal = _signal(state, name)
        if signal:
            value = signal.get("value") or signal.get("reason")
            earlier = f" in {signal.get('window')}" if signal.get("window") != state.get("window") else ""
            parts.append(f"{label} {value}{earlier} ({signal['verdict']}{', raised' if signal.get('raised') else ''})")
    return "  ".join(parts)
