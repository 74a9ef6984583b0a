"""What a watched model's owner is told, by Jobs on a real kubelet: a loss in one segment, and what nobody can know.

Requests are captured, and labels come, as any server would write them; windows are half a minute long.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import kube, scenario

pytestmark = [pytest.mark.timeout(1200), pytest.mark.verdicts]
Json = dict[str, Any]
NAME, NAMESPACE = "living", "retune-e2e-verdicts"
CLAIMS = (scenario.DATA, scenario.STORE)
ROOT = f"/mnt/pvc/{scenario.DATA}"
SCRIPT = Path(__file__).parent / "living.py"
PATIENCE = 420.0


def resource() -> Json:
    """A model that is watched, where nothing but drift may start a run, and drift not alone."""
    made = scenario.resource(
        NAME,
        model={"uri": f"pvc://{scenario.DATA}/model.onnx"},
        data={name: {"uri": f"pvc://{scenario.DATA}/{name}.npz"} for name in ("training", "validation", "test")},
        objectives=[
            {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.1"}},
            {"metric": "size_bytes"},
        ],
        techniques=[{"name": "graph", "type": "GraphOptimization"}, {"name": "again", "type": "Recalibration"}],
        search={"maxTrials": 1},
        monitoring={
            "window": "30s",
            "delay": "5s",
            "minSamples": 300,
            "production": {
                "uri": f"pvc://{scenario.DATA}/captured",
                "labels": {"uri": f"pvc://{scenario.DATA}/labels", "maxDelay": "6s"},
            },
            "quality": {"maxDegradation": "0.1"},
            "segments": {"columns": ["X[27]", "X[0]"]},
        },
        triggers={"signals": ["Drift"], "cooldown": "1s"},
    )
    made["metadata"]["namespace"] = NAMESPACE
    return made


def living(name: str, *arguments: str) -> None:
    """Start a Job of the script."""
    kube.apply(*kube.python_job(name, SCRIPT, namespace=NAMESPACE, claims=CLAIMS, arguments=arguments))


@pytest.fixture(scope="module")
def watched(operator: str) -> Iterator[str]:
    """A resource whose first run is over; returns its champion's digest."""
    assert operator
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=3m")
    kube.apply(kube.namespace(NAMESPACE), *(kube.claim(each, namespace=NAMESPACE) for each in CLAIMS))
    living("learn", "learn", ROOT)
    kube.kubectl("wait", "job/learn", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=3m")
    target = scenario.idle_target(NAME)
    target["metadata"]["namespace"] = NAMESPACE
    kube.apply(target, resource())
    settled = kube.wait_reason(NAME, "Reconciling", "Settled", namespace=NAMESPACE, seconds=420)
    yield settled["status"]["champion"]["digest"]
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def status() -> Json:
    """What the resource says."""
    found: Json = kube.get("modeloptimization", NAME, namespace=NAMESPACE)["status"]
    return found


def until(told: Callable[[Json], bool], what: str) -> Json:
    """Look at the status until it tells something; returns it, or fails with what it says."""
    deadline, found = time.monotonic() + PATIENCE, status()
    while not told(found):
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {PATIENCE:g} s: {json.dumps(found, indent=1)}")
        time.sleep(1)
        found = status()
    return found


def signal(found: Json, name: str) -> Json:
    """A signal as a status tells it."""
    return next((each for each in found.get("monitoring", {}).get("signals", ()) if each["name"] == name), {})


def condition(found: Json, kind: str) -> tuple[str, str, str]:
    """Status, reason and sentence of a condition."""
    one = kube.condition({"status": found}, kind)
    return one.get("status", ""), one.get("reason", ""), one.get("message", "")


def serve(digest: str, kind: str) -> None:
    """Capture windows of a kind from now on, and of no other."""
    kube.kubectl("delete", "jobs", "-n", NAMESPACE, "usual", "lost", "strange", "--ignore-not-found", "--wait")
    living(kind, "serve", ROOT, f"pvc://{scenario.STORE}/{NAME}", digest, kind)


def told(command: str) -> str:
    """What a command of Retune prints about the resource."""
    words = [str(Path(sys.executable).with_name("retune")), command, NAME, "-n", NAMESPACE]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_loss_that_the_whole_hides_has_its_segment_named(watched: str) -> None:
    """Condition and commands name the segment; the quality of all rows raises nothing, and no run is started."""
    serve(watched, "usual")
    until(lambda found: signal(found, "Segment").get("verdict") == "Clear", "quiet window")
    serve(watched, "lost")
    found = until(lambda found: signal(found, "Segment").get("raised", False), "lost segment")
    assert signal(found, "Quality")["raised"] is False, signal(found, "Quality")
    sentence = signal(found, "Segment")["message"]
    assert sentence.startswith("X[27]>"), sentence
    assert "the whole shows" in sentence
    degraded, _, message = condition(found, "QualityDegraded")
    assert (degraded, sentence in message) == ("True", True), message
    assert "X[27]>" in told("explain")
    assert "X[27]>" in told("status")
    assert (found.get("run"), found["lastRun"]["name"]) == (None, f"{NAME}-r1")


def test_rows_that_nobody_can_judge_are_said_to_need_labels(watched: str) -> None:
    """Drift of unseen rows without labels starts nothing, and both what holds it and what would help is told."""
    serve(watched, "strange")
    found = until(lambda found: condition(found, "Curable")[1] == "LabelsMissing", "sentence of what would help")
    assert signal(found, "Drift")["raised"]
    estimate = signal(found, "EstimatedQuality")
    assert (estimate["verdict"], estimate["reason"]) == ("Untrusted", "OutsideReference"), estimate
    assert "value" not in estimate
    assert "quality cannot be estimated on such rows, label some" in found["triggers"]["held"]
    assert condition(found, "Curable")[2].startswith("Drift is raised, but no row has a label")
    explained = told("explain")
    assert "no row has a label" in explained
    assert (found.get("run"), found["lastRun"]["name"]) == (None, f"{NAME}-r1")
