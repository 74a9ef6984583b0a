"""The demo's second act: real traffic, another hand that writes it, and a model that learns it without a person.

What is printed comes from the cluster: windows as the status tells them, the run with its reason, quality before,
during and after.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from examples.digits.kube import NAME, NAMESPACE, DemoError, Json, Tools

TRAFFIC = "digits-traffic"
PATIENCE_SECONDS = 900.0
LOOK_SECONDS = 2.0

Say = Callable[[str], None]


def begin_traffic(tools: Tools) -> None:
    """Send usual digits, and tell labels."""
    script = Path(__file__).with_name("traffic.py").read_text()
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TRAFFIC}, "data": {"traffic.py": script}}
    tools.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(config))
    tools.apply("50-traffic.yaml")
    change_hand(tools, "usual")


def change_hand(tools: Tools, hand: str) -> None:
    """Let somebody else write from now on."""
    tools.kubectl("set", "env", f"deployment/{TRAFFIC}", f"HAND={hand}")
    tools.kubectl("rollout", "status", f"deployment/{TRAFFIC}", "--timeout", "2m")


def rest(tools: Tools) -> None:
    """Stop the traffic and judge by the hour, so that the cluster is not kept busy after the demo."""
    tools.kubectl("scale", f"deployment/{TRAFFIC}", "--replicas", "0")
    patch = json.dumps({"spec": {"monitoring": {"window": "1h"}}})
    tools.kubectl("patch", "modeloptimization", NAME, "--type", "merge", "--patch", patch)


def until_calm(tools: Tools, say: Say) -> None:
    """Follow windows until quality was seen to be good and no drift in the last one."""
    _windows(tools, say, lambda state: _verdict(state, "Quality") == "Clear" and _verdict(state, "Drift") == "Clear")


def until_run(tools: Tools, say: Say) -> str:
    """Follow windows until a signal starts a run; return its reason."""
    found: list[str] = []

    def started(_: Json) -> bool:
        run = _status(tools).get("run") or {}
        if run:
            found.append(f"{run['name']}: {run['trigger']}: {run.get('why', '')}")
        return bool(run)

    _windows(tools, say, started)
    return found[0]


def champion(tools: Tools) -> int:
    """Return the version that serves."""
    version: int = (_status(tools).get("champion") or {}).get("version", 0)
    return version


def _windows(tools: Tools, say: Say, enough: Callable[[Json], bool]) -> None:
    deadline, told = time.monotonic() + PATIENCE_SECONDS, None
    while time.monotonic() < deadline:
        state = _status(tools).get("monitoring") or {}
        if state.get("window") != told:
            told = state.get("window")
            say(_line(state))
        if enough(state):
            return
        time.sleep(LOOK_SECONDS)
    raise DemoError(
        f"nothing came of it within {PATIENCE_SECONDS / 60:g} min",
        hint=f"kubectl -n {NAMESPACE} describe modeloptimization {NAME}",
    )


def _status(tools: Tools) -> Json:
    found: Json = (tools.get("modeloptimization", NAME) or {}).get("status", {})
    return found


def _signal(state: Json, name: str) -> Json:
    return next((each for each in state.get("signals", ()) if each["name"] == name), {})


def _verdict(state: Json, name: str) -> str:
    verdict: str = _signal(state, name).get("verdict", "Unknown")
    return verdict


def _line(state: Json) -> str:
    """Return one line for a window: rows, drift and quality with their verdicts."""
    parts = [f"window {state.get('window')}  {state.get('samples') or 0} rows"]
    for name, label in (("Drift", "drift"), ("Quality", "quality"), ("EstimatedQuality", "estimated")):
        signal = _signal(state, name)
        if signal:
            value = signal.get("value") or signal.get("reason")
            parts.append(f"{label} {value} ({signal['verdict']}{', raised' if signal.get('raised') else ''})")
    return "  ".join(parts)
