"""`make demo` as its reader sees it: run once from nothing, then what it printed is held against what it left behind.

What the demo claims must be true of the cluster, and what README promises of it must have come about: a smaller version
goes live, another hand begins to write, and the model learns it without a person.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.digits import demo, live
from examples.digits.kube import DIGITS, NAME, NAMESPACE
from examples.kube import RELEASE, REPOSITORY, SYSTEM, Tools
from retune.api.objects import ModelOptimization
from tests.demo.reaching import reached
from tests.e2e import kube, scenario
from tests.kstatus import Kstatus, kstatus

pytestmark = pytest.mark.timeout(2700)
Json = dict[str, Any]
STEP = re.compile(r"^\[(\d+)/(\d+)\] (.+) \(about .+\)$", re.MULTILINE)
ANSWER = re.compile(r"^ +(service|pod)/(\S+) +((?:\d )+) +(\d+) right, serves (\w+)$", re.MULTILINE)
VERSIONS = re.compile(r"^ +version (\d+) -> (\d+) without a person, \d+ s after the traffic began$", re.MULTILINE)
STRANGER = "digits-stranger"
ENFORCED = pytest.mark.skipif(
    os.environ.get("RETUNE_POLICIES") != "enforced", reason="`make test-demo-strict` has network policies enforced"
)
NOTICED = re.compile(r"^ +(\d+) digits were answered meanwhile, and (\d+) requests failed$", re.MULTILINE)
RUN = re.compile(r"^ +run (digits-r\d+): (\w+): .+$", re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """What the demo printed, by its steps, how it ended, and the folder it was called from."""

    code: int
    text: str
    folder: Path

    def step(self, number: int) -> str:
        """Return what was printed in a step."""
        parts = re.split(rf"^\[(?=\d+/{demo.STEPS}\] )", self.text, flags=re.MULTILINE)
        return next(part for part in parts if part.startswith(f"{number}/"))


def call(folder: Path, *words: str) -> Shown:
    """Call the demo from a folder, as `make demo` calls it from the repository; shows what it prints as it comes."""
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}/operator:{REPOSITORY}"}
    command = [sys.executable, "-m", "examples.digits.demo", *words]
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        for line in child.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return Shown(child.returncode, "".join(lines), folder)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The demo, from a cluster without a trace of it to its end; afterwards, there is no trace of it again."""
    folder = tmp_path_factory.mktemp("demo")
    left = (scenario.NAMESPACE,)  # servers of the end to end tests would leave the demo's Jobs no processor
    kube.kubectl("delete", "namespace", *left, "--ignore-not-found", "--wait", "--timeout=3m")
    assert call(folder, "--clean").code == 0
    yield call(folder)
    assert call(folder, "--clean").code == 0
    tools = Tools.find(DIGITS, images=kube.REGISTRY)
    assert tools.kubectl.find("namespace", NAMESPACE) is None
    assert RELEASE not in tools.helm("list", "--short").split()
    assert tools.kubectl.find("customresourcedefinition", "modeloptimizations.retune.dev") is not None


@pytest.fixture(scope="module")
def resource(shown: Shown) -> Json:
    """The ModelOptimization as the demo left it, once the operator has seen that the demo judges by the hour now."""
    assert shown.code == 0
    path = "{.status.conditions[?(@.type=='Reconciling')].reason}=Settled"
    kube.kubectl("wait", f"modeloptimization/{NAME}", "-n", NAMESPACE, f"--for=jsonpath={path}", "--timeout=3m")
    return kube.get("modeloptimization", NAME, namespace=NAMESPACE)


def runs() -> dict[str, Json]:
    """Return the OptimizationRuns by name."""
    return {each["metadata"]["name"]: each for each in kube.items("optimizationruns", namespace=NAMESPACE)}


def test_every_step_is_announced_in_order_and_the_demo_ends_well(shown: Shown) -> None:
    """With how long it takes; nothing of it ends in an excuse."""
    steps = STEP.findall(shown.text)
    assert [int(number) for number, _, _ in steps] == list(range(1, demo.STEPS + 1))
    assert {total for _, total, _ in steps} == {str(demo.STEPS)}
    assert shown.code == 0
    assert "The demo stopped" not in shown.text
    assert "Try next:" in shown.text


def test_the_first_run_made_the_model_smaller_and_no_worse(shown: Shown) -> None:
    """The comparison that is printed is the run's own, and the candidate keeps its limit by the proven end."""
    first = runs()["digits-r1"]
    assert first["status"]["outcome"] == "Promoted"
    assert first["spec"]["trigger"]["reason"] == "Initial"
    compared = {row["name"]: row for row in first["status"]["comparisons"]}
    size, accuracy = compared["size_bytes"], compared["accuracy"]
    assert float(size["candidate"]["value"]) < 0.5 * float(size["champion"]["value"])
    assert float(accuracy["change"]["low"]) >= -0.02
    table = shown.step(7)
    assert "digits-r1: Promoted" in table
    assert first["status"]["candidateDigest"].removeprefix("sha256:")[:12] in table
    for name in ("accuracy", "latency_p50_ms", "latency_p95_ms", "size_bytes"):
        assert re.search(rf"^ *{name} ", table, re.MULTILINE), name


def test_every_pod_serves_the_version_that_is_shown(shown: Shown) -> None:
    """Before, all serve what was delivered; after, all serve the winner; few of the test rows are told wrong."""
    before, after = (ANSWER.findall(shown.step(number)) for number in (5, 7))
    assert {kind for kind, *_ in before} == {kind for kind, *_ in after} == {"service", "pod"}
    (delivered,), (winner,) = ({version for *_, version in answers} for answers in (before, after))
    assert delivered != winner
    assert runs()["digits-r1"]["status"]["candidateDigest"].removeprefix("sha256:").startswith(winner)
    for *_, digits, right, _ in before + after:
        assert len(digits.split()) == demo.ROWS
        assert int(right) >= demo.ROWS - 2


def test_the_report_is_left_where_the_demo_says(shown: Shown) -> None:
    """A page of its own, about the run that was shown."""
    report = shown.folder / demo.REPORT
    assert str(demo.REPORT) in shown.step(7)
    page = report.read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "digits-r1" in page
    assert not re.search(r"<script|src=[\"']https?:", page)


def test_the_other_hand_was_learned_without_a_person(shown: Shown, resource: Json) -> None:
    """A signal started the run, on what was captured; the version that it says to serve is the one that serves."""
    (told,) = RUN.findall(shown.step(9))
    name, reason = told
    run = runs()[name]
    assert run["spec"]["trigger"]["reason"] == reason
    assert reason in {"Drift", "QualityDegradation"}
    assert run["status"]["outcome"] == "Promoted"
    assert "abelled production rows since" in run["status"]["data"]
    assert "when the live data changed" in run["status"]["data"]
    (versions,) = VERSIONS.findall(shown.step(10))
    champion = resource["status"]["champion"]
    assert (int(versions[1]), champion["runName"]) == (champion["version"], name)
    assert int(versions[0]) < int(versions[1])
    containers = kube.get("deployment", NAME, namespace=NAMESPACE)["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in containers[0]["env"]}
    assert environment["MODEL_URI"] == champion["uri"]


def test_the_slow_and_the_careless_model_were_caught_as_canaries(shown: Shown, resource: Json) -> None:
    """The judge finds nothing wrong with them; live requests do, a few, and no pod of the target ever had either."""
    status, newest = resource["status"], int(resource["status"]["lastRun"]["name"].removeprefix("digits-r"))
    for number, step, reason in ((newest - 1, 11, "LiveLatency"), (newest, 12, "LiveErrors")):
        name = f"digits-r{number}"
        run = runs()[name]
        assert (run["status"]["outcome"], run["status"]["reason"]) == ("RolledBack", reason)
        assert "as a canary" in run["status"]["message"]
        assert f"{name} RolledBack" in shown.step(step)
    assert status["rejected"][-1]["digest"] == runs()[f"digits-r{newest}"]["status"]["candidateDigest"]
    ((digits, failed),) = NOTICED.findall(shown.step(13))
    assert 0 < 8 * int(failed) < 0.1 * int(digits)
    assert f"version {status['champion']['version']} serves, as before" in shown.step(13)
    assert kube.items("deployments", namespace=NAMESPACE, selector="retune.dev/canary") == []


def test_the_cluster_is_left_at_rest(resource: Json) -> None:
    """No traffic, windows of an hour, nothing under way, and a resource that Flux would call current."""
    assert kube.get("deployment", live.TRAFFIC, namespace=NAMESPACE)["spec"]["replicas"] == 0
    assert resource["spec"]["monitoring"]["window"] == "1h"
    assert kstatus(resource) is Kstatus.CURRENT
    status = ModelOptimization.model_validate(resource).status
    assert (status.run, status.rollout, status.candidate) == (None, None, None)
    pods = json.loads(kube.kubectl("get", "pods", "-n", SYSTEM, "-o", "json"))["items"]
    assert sum(each["restartCount"] for pod in pods for each in pod["status"]["containerStatuses"]) == 0


def test_nothing_that_the_demo_needs_was_refused(resource: Json) -> None:
    """Quota and LimitRange let in every pod and every Job, and every container has requests and limits."""
    refused = kube.items("events", namespace=NAMESPACE)
    assert [event["message"] for event in refused if event["reason"] == "FailedCreate"] == []
    conditions = resource["status"]["conditions"]
    assert {each["reason"] for each in conditions}.isdisjoint({"QuotaExceeded", "AdmissionDenied"})
    (quota,) = kube.items("resourcequotas", namespace=NAMESPACE)
    assert quota["status"]["hard"] == quota["spec"]["hard"]


def test_the_operator_hears_live_pods(shown: Shown) -> None:
    """It reads the server's own numbers where the policies of the namespace let it in: the bake counts requests."""
    assert re.search(r"\b\d+ of [1-9]\d* requests failed", " ".join(shown.step(7).split()))


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """Another tenant's namespace."""
    kube.apply(kube.namespace(STRANGER))
    yield STRANGER
    kube.kubectl("delete", "namespace", STRANGER, "--wait", "--timeout=3m")


@ENFORCED
@pytest.mark.parametrize(
    ("here", "labels", "allowed"),
    [
        (True, {"app": live.TRAFFIC}, {"pod", "service"}),
        (True, {"app.kubernetes.io/managed-by": "retune", "retune.dev/command": "verify"}, {"pod", "service"}),
        (True, {"app.kubernetes.io/managed-by": "retune", "retune.dev/command": "judge"}, set()),
        (True, {}, set()),
        (False, {"app": live.TRAFFIC}, set()),
        (False, {"app.kubernetes.io/name": "retune"}, set()),
    ],
    ids=["traffic", "golden requests", "another Job", "a neighbour", "a stranger", "a stranger in disguise"],
)
def test_the_model_server_is_reached_by_those_who_need_it_alone(
    resource: Json, stranger: str, *, here: bool, labels: dict[str, str], allowed: set[str]
) -> None:
    """The same pod connects with a label that a policy names, and is refused without it or from elsewhere."""
    assert resource
    pod = next(each for each in kube.items("pods", namespace=NAMESPACE, selector=f"app={NAME}"))
    address = kube.get("service", NAME, namespace=NAMESPACE)["spec"]["clusterIP"]
    names = {
        f"{pod['status']['podIP']}:8080": "pod",
        f"{pod['status']['podIP']}:8082": "metrics",
        f"{address}:80": "service",
    }
    answered = reached(list(names), namespace=NAMESPACE if here else stranger, labels=labels)
    assert {names[place] for place in answered} == allowed
