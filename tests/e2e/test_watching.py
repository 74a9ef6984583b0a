"""The loop closes by itself, with the example on a real kubelet: what passes starts nothing, what lasts is learned.

Traffic, labels, checks, training and rollout are the example's own; nothing is played. Windows are half a minute long.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from examples.digits import live
from examples.digits.kube import DIGITS, NAME
from examples.digits.traffic import HANDS, REQUEST_ROWS, Server, requests
from examples.digits.train import SEED, splits
from examples.kube import Tools, forwarded
from examples.steps import serve, train
from tests.dice import thrown
from tests.e2e import kube, scenario

pytestmark = [pytest.mark.timeout(1500), pytest.mark.windows]
Json = dict[str, Any]
NAMESPACE = "retune-e2e-live"
WINDOW = 30
BURST_SECONDS, BURST_RATE = 18.0, 100.0
PATIENCE = 600.0
MOST = 0.8
"""Share of what was lost that has to come back; how much more does depends on how long a busy machine can train."""


@pytest.fixture(scope="module")
def watched(operator: str) -> Iterator[Tools]:
    """The example in a namespace of its own: its first run is over, and usual traffic was judged to be fine."""
    assert operator
    tools = Tools.find(DIGITS, images=kube.REGISTRY, namespace=NAMESPACE)
    left = (NAMESPACE, scenario.NAMESPACE)  # servers of the other tests would leave the example's Jobs no processor
    kube.kubectl("delete", "namespace", *left, "--ignore-not-found", "--wait", "--timeout=3m")
    kube.apply(kube.namespace(NAMESPACE))
    tools.apply("10-storage.yaml")
    train(tools)
    serve(tools)
    live.begin_traffic(tools)
    kube.apply(quick(yaml.safe_load(tools.manifest("40-modeloptimization.yaml"))))
    kube.wait_reason(NAME, "Reconciling", "Settled", namespace=NAMESPACE, seconds=420)
    live.until_calm(tools, print)
    yield tools
    live.rest(tools)


def quick(resource: Json) -> Json:
    """Return the example's resource with a small search and a short bake, where drift alone may start a run."""
    spec = resource["spec"]
    spec["search"]["maxTrials"], spec["rollout"]["bakeTime"] = 8, "5s"
    spec["triggers"] |= {"cooldown": "1s", "corroboration": "None"}
    return resource


def status() -> Json:
    """What the resource says."""
    found: Json = kube.get("modeloptimization", NAME, namespace=NAMESPACE)["status"]
    return found


def until(told: Callable[[Json], bool], what: str) -> Json:
    """Look at the status until it tells something; returns it, or fails with what it says."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = status()
        if told(found):
            return found
        time.sleep(1)
    raise AssertionError(f"no {what} within {PATIENCE:g} s: {json.dumps(status(), indent=1)}")


def runs_since(before: Json) -> list[Json]:
    """The statuses of the runs that began after a status was read, in their order, all of them ended."""
    known = before["lastRun"]["completionTime"]
    statuses = [run["status"] for run in kube.ended_runs(NAME, namespace=NAMESPACE)]
    return [run for run in statuses if run["startTime"] > known]


def quality_of(found: Json) -> float:
    """The quality that was last measured with labels."""
    return float(found["monitoring"]["quality"])


def accuracy_lost(began: list[Json]) -> float:
    """What was left of the champion's accuracy on the changed rows, as the promoted run measured it."""
    (promoted,) = (run for run in began if run["outcome"] == "Promoted")
    (accuracy,) = (row for row in promoted["comparisons"] if row["name"] == "accuracy")
    return float(accuracy["champion"]["value"])


def follow_one_another(began: list[Json]) -> None:
    """Hold that no run was started twice: each began after the one before it had ended."""
    ends = [run["completionTime"] for run in began]
    assert began
    assert all(end <= later["startTime"] for end, later in zip(ends, began[1:], strict=False))


def signal(found: Json, name: str) -> Json:
    """A signal as a status tells it."""
    return next((each for each in found["monitoring"].get("signals", ()) if each["name"] == name), {})


def burst(tools: Tools) -> int:
    """Let another hand write in the middle of a window, beside the usual one; returns the window's number."""
    digits = splits(SEED)["test"]
    work = requests(digits.pixels, digits.label, HANDS["shifted"], seed=SEED)
    with forwarded(tools, f"service/{NAME}") as url:
        server = Server(f"{url}/v2/models/{NAME}/infer")
        time.sleep(WINDOW - time.time() % WINDOW + 2)  # the next window has begun
        window, began = int(time.time() // WINDOW), time.time()
        answered = 0
        while time.time() - began < BURST_SECONDS:
            answered += server.ask(str(uuid.uuid4()), next(work)[0]) is not None
            time.sleep(REQUEST_ROWS / BURST_RATE)
    assert answered * REQUEST_ROWS > 400, f"{answered} requests were answered"
    return window


def judged_burst(tools: Tools) -> tuple[int, Json]:
    """Send bursts until one's window is judged, as windows are passed over where the cluster is busy.

    Returns the window's number and the drift told of it.
    """
    for _ in range(4):
        window = burst(tools)

        def is_judged(told: Json, least: int = window) -> bool:
            return bool(told["monitoring"].get("window", 0) >= least)

        drift = signal(until(is_judged, "verdict on the burst"), "Drift")
        if drift["window"] == window:
            return window, drift
    raise AssertionError("the windows of four bursts were passed over")


def test_a_burst_of_odd_traffic_shorter_than_the_limit_starts_nothing(watched: Tools) -> None:
    """One window is told to have drifted; the next one is clear, and no run was started, though drift alone may."""
    before = status()
    window, drift = judged_burst(watched)
    assert (drift["verdict"], drift["raised"], drift["firstBad"]) == ("Breach", False, window), drift
    found = until(lambda told: signal(told, "Drift")["verdict"] == "Clear", "clear window after the burst")
    assert found["triggers"].get("starts", []) == before["triggers"].get("starts", [])
    assert (found.get("run"), found["lastRun"]["name"]) == (None, before["lastRun"]["name"])
    assert signal(found, "Drift").get("firstBad") is None


def test_a_lasting_change_is_learned_unattended_though_the_operator_is_killed(watched: Tools) -> None:
    """From drift to a version that knows the new hand; chance decides at which moment the operator is killed."""
    before = status()
    live.change_hand(watched, "shifted")
    moment = thrown().uniform(0, 180)
    print(f"the operator is killed {moment:.0f} s after the change")
    kill_at = time.monotonic() + moment
    until(lambda _: time.monotonic() >= kill_at, "moment to kill")
    kube.kill_operator()
    until(lambda told: told["champion"]["version"] > before["champion"]["version"], "new champion")
    settled = until(lambda told: not told.get("run") and not told.get("rollout"), "end of the run")
    assert settled["champion"]["version"] == before["champion"]["version"] + 1
    began = runs_since(before)
    print(json.dumps(began, indent=1))
    follow_one_another(began)
    outcomes = [run["outcome"] for run in began]
    assert outcomes.count("Promoted") == 1
    assert set(outcomes) <= {"Promoted", "NoGain", "GateFailed"}  # the first moments may have too little to learn from
    recovered = until(lambda told: signal(told, "Quality").get("verdict") == "Clear", "window of good quality")
    usual, lost, now = quality_of(before), accuracy_lost(began), quality_of(recovered)
    assert now - lost > MOST * (usual - lost), (usual, lost, now)
    assert recovered["monitoring"]["championDigest"] == settled["champion"]["digest"]
    run = kube.get("optimizationrun", settled["lastRun"]["name"], namespace=NAMESPACE)
    assert run["spec"]["trigger"]["reason"] in {"Drift", "QualityDegradation"}
    assert "when the live data changed" in run["status"]["data"]
