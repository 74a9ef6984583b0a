"""How long a canary takes, and how soon harm ends it: `python -m tests.bench.rollouts` prints a table.

On a control plane of its own (real API server and etcd, real controllers of Deployments and ReplicaSets), a target of
four pods is given a new version by a canary of the same shares and holds, in turns by Retune on a plain Deployment and
by Argo Rollouts' own controller. Pods are ready at once, so that what is measured beside the holds is the controllers'.

1. A good version: from the moment when it is accepted (Retune: the gate is passed; Argo: its variable is changed) to
   the moment when every pod of the target has it and the controller says so. Each counts its own API writes.
2. A version that fails a share of its requests: from the moment when its first pod is ready to the moment when no pod
   of its is wanted any more. Retune listens to the pods as by default; Argo asks the share of all failed requests every
   five seconds by a web metric, and fails above 5 %, which is the limit that Retune has by default.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests import samples
from tests.bench.measured import operator_process, operator_writes, quiet, until
from tests.bench.rollouts.pods import Pods, answering
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.play import DELIVERED, pod_template
from tests.faults.stagehand import Stagehand
from tests.neighbours import argo_rollouts
from tools.localcluster.controlplane import ControlPlane, control_plane

Json = dict[str, Any]
ARGO, APPS = "/apis/argoproj.io/v1alpha1", "/apis/apps/v1"
SHARES, HOLD_SECONDS, REPLICAS = (25, 50), 10, 4
HARM = (0.5, 0.1)
LIMIT_SECONDS = 300.0
_LOOK_SECONDS = 0.05


@dataclass
class Seen:
    """What was measured of one controller."""

    good: list[float] = field(default_factory=list)
    """Seconds from accepted to everywhere."""
    writes: list[float] = field(default_factory=list)
    """API writes of the controller meanwhile."""
    harm: dict[float, list[float]] = field(default_factory=lambda: {share: [] for share in HARM})
    """Seconds from the first bad pod to none wanted, by the share of requests that fail."""


class Stage:
    """The control plane with both controllers, and what they are given."""

    def __init__(self, plane: ControlPlane, pods: Pods, bench: Bench, *, operator: int, argo: int, port: int) -> None:
        self.plane, self.pods, self.bench = plane, pods, bench
        self._operator, self._argo, self._port = operator, argo, port

    def target(self, kind: str, api: str, name: str, **spec: Any) -> str:
        """Create a target of four pods with the delivered model; returns its path."""
        body = {"apiVersion": api.removeprefix("/apis/"), "kind": kind, "metadata": {"name": name}}
        template = pod_template(name)
        for labels in (template["selector"]["matchLabels"], template["template"]["metadata"]["labels"]):
            labels["track"] = "stable"
        plural = f"{kind.lower()}s"
        self.bench.create(plural, body | {"spec": {"replicas": REPLICAS} | template | spec}, api=api)
        return self.bench.path(plural, name, api=api)

    def retune(self, name: str, *, hold: int) -> str:
        """Have Retune find a version for a new Deployment, which goes live by a canary; returns the target's path."""
        path = self.target("Deployment", APPS, name)
        service = {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}}
        self.bench.create("services", service, api="/api/v1")
        wait(lambda: self.bench.api.get(path).get("status", {}).get("readyReplicas") == REPLICAS, "the target")
        steps = [{"weight": share, "hold": f"{hold}s", "minRequests": 0} for share in SHARES]
        spec = samples.manifest(
            execution={},
            target={"ref": {"name": name}, "injection": {"takeover": "Force"}},
            rollout={"strategy": "Canary", "canary": {"steps": steps}, "bakeTime": "0s"},
            monitoring={"performance": {"pods": {"port": self._port}}},
        )
        spec["metadata"] = {"name": name, "namespace": self.bench.namespace}
        self.bench.api.request("POST", self.bench.path("modeloptimizations"), spec)
        return path

    def argo(self, name: str, *, hold: int, analysis: bool) -> str:
        """Give a new Rollout another version, which goes live by a canary; returns the Rollout's path."""
        steps: list[Json] = []
        for share in SHARES:
            steps += [{"setWeight": share}, {"pause": {"duration": f"{hold}s"}}]
        canary: Json = {"steps": steps}
        if analysis:
            web = {"url": f"http://127.0.0.1:{self._port}/failed/{name}", "jsonPath": "{$.share}"}
            metric = {"name": "failed", "interval": "5s", "failureCondition": "result > 0.05", "provider": {"web": web}}
            template = {"apiVersion": ARGO.removeprefix("/apis/"), "kind": "AnalysisTemplate"}
            body = template | {"metadata": {"name": name}, "spec": {"metrics": [metric]}}
            self.bench.create("analysistemplates", body, api=ARGO)
            canary["analysis"] = {"templates": [{"templateName": name}], "startingStep": 1}
        path = self.target("Rollout", ARGO, name, strategy={"canary": canary})
        wait(lambda: self.phase(path) == "Healthy", "the Rollout")
        return path

    def give(self, path: str) -> None:
        """Change a Rollout's variable."""
        template = self.bench.api.get(path)["spec"]["template"]
        template["spec"]["containers"][0]["env"][0]["value"] = f"{DELIVERED}.new"
        self.bench.patch(path, {"spec": {"template": template}})

    def phase(self, path: str) -> str | None:
        """Return what Argo says of a Rollout."""
        phase: str | None = self.bench.api.get(path).get("status", {}).get("phase")
        return phase

    def condition(self, name: str, kind: str) -> Json:
        """Return a condition of a ModelOptimization; empty before it is there."""
        status = self.bench.api.get(self.bench.path("modeloptimizations", name)).get("status", {})
        return next((entry for entry in status.get("conditions", ()) if entry["type"] == kind), {})

    def settled(self) -> bool:
        """Whether nothing is due in the operator."""
        return quiet(self._operator)

    def writes_of_operator(self) -> float:
        """Return the writes that the operator has counted."""
        return operator_writes(self._operator)

    def writes_of_argo(self) -> float:
        """Return the writes that Argo's controller has counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._argo}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = re.findall(r'^controller_clientset_k8s_request_total\{.*verb="(\w+)"\} (\S+)', text, re.MULTILINE)
        return sum(float(count) for verb, count in found if verb in {"Create", "Update", "Patch", "Delete"})


def wait(check: Callable[[], bool], what: str) -> float:
    """Wait for something; returns when it was seen, in seconds of the monotonic clock."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {LIMIT_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic()


def good_by_retune(stage: Stage, name: str, seen: Seen) -> None:
    """Measure a good version of Retune's."""
    path = stage.retune(name, hold=HOLD_SECONDS)
    began = wait(lambda: stage.condition(name, "CandidateAccepted").get("status") == "True", "the gate")
    before = stage.writes_of_operator()
    ended = wait(lambda: stage.condition(name, "RolledOut").get("reason") == "Promoted", "the promotion")
    assert stage.bench.api.get(path)["status"]["updatedReplicas"] == REPLICAS
    until(stage.settled, what="rest")
    seen.good.append(ended - began)
    seen.writes.append(stage.writes_of_operator() - before)


def good_by_argo(stage: Stage, name: str, seen: Seen) -> None:
    """Measure a good version of Argo's."""
    path, before = stage.argo(name, hold=HOLD_SECONDS, analysis=False), stage.writes_of_argo()
    stage.give(path)
    began = time.monotonic()
    wait(lambda: stage.phase(path) == "Progressing" or stage.phase(path) == "Paused", "the begin")
    ended = wait(lambda: stage.phase(path) == "Healthy", "the promotion")
    assert stage.bench.api.get(path)["status"]["updatedReplicas"] == REPLICAS
    seen.good.append(ended - began)
    seen.writes.append(stage.writes_of_argo() - before)


def harm_by_retune(stage: Stage, name: str, seen: Seen, share: float) -> None:
    """Measure a bad version of Retune's; no share is left by its time."""
    stage.retune(name, hold=int(LIMIT_SECONDS))
    canary = stage.bench.path("deployments", f"{name}-canary", api=APPS)
    wait(lambda: stage.pods.first_bad(name) is not None, "the canary")
    ended = wait(lambda: not _is_there(stage, canary), "the end of the canary")
    seen.harm[share].append(ended - (stage.pods.first_bad(name) or ended))


def harm_by_argo(stage: Stage, name: str, seen: Seen, share: float) -> None:
    """Measure a bad version of Argo's."""
    path = stage.argo(name, hold=int(LIMIT_SECONDS), analysis=True)
    stage.give(path)
    wait(lambda: stage.pods.first_bad(name) is not None, "the canary")
    ended = wait(lambda: stage.phase(path) == "Degraded", "the end of the canary")
    seen.harm[share].append(ended - (stage.pods.first_bad(name) or ended))


def _is_there(stage: Stage, path: str) -> bool:
    name = path.rpartition("/")[2]
    return name in {each["metadata"]["name"] for each in stage.bench.items("deployments", api=APPS)}


def measure(stage: Stage, times: int) -> dict[str, Seen]:
    """Measure both in turns, so often."""
    seen = {"Retune": Seen(), "Argo Rollouts": Seen()}
    for turn in range(times):
        stage.pods.failing = 0.0
        good_by_retune(stage, f"good-{turn}", seen["Retune"])
        good_by_argo(stage, f"well-{turn}", seen["Argo Rollouts"])
        for share in HARM:
            stage.pods.failing = share
            number = f"{turn}-{share:.0%}".removesuffix("%")
            harm_by_retune(stage, f"bad-{number}", seen["Retune"], share)
            harm_by_argo(stage, f"ill-{number}", seen["Argo Rollouts"], share)
        print(f"turn {turn + 1} of {times} done", file=sys.stderr, flush=True)
    return seen


def table(seen: dict[str, Seen]) -> Table:
    """Return the table."""
    shown = Table("median of the turns", *seen)
    holds = HOLD_SECONDS * len(SHARES)

    def row(name: str, columns: list[list[float]], less: float = 0.0) -> None:
        shown.add_row(name, *(f"{statistics.median(column) - less:.1f}" for column in columns))

    good = [each.good for each in seen.values()]
    row("accepted to everywhere, in s", good)
    row(f"beside the holds of {holds} s", good, holds)
    row("API writes of the controller meanwhile", [each.writes for each in seen.values()])
    for share in HARM:
        columns = [each.harm[share] for each in seen.values()]
        row(f"{share:.0%} fail: first bad pod to none wanted, in s", columns)
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rollouts", description="Canaries beside Argo's.")
    parser.add_argument("--times", type=int, default=3, help="turns (default: %(default)s)")
    times = parser.parse_args().times
    parts = ("deployment-controller", "replicaset-controller")
    with control_plane(controllers=parts) as plane, tempfile.TemporaryDirectory() as folder:
        bench = Bench(plane)
        install(bench.api, [modeloptimization_crd(), optimizationrun_crd(), *argo_rollouts.crds()])
        pods = Pods(bench.api, bench.namespace, delivered=DELIVERED)
        with (
            answering(pods) as port,
            pods,
            Stagehand(bench.api, namespace=bench.namespace, deployments=False),
            operator_process(plane, bench.namespace) as (_, operator),
            argo_rollouts.controller(plane.kubeconfig, Path(folder) / "log") as argo,
        ):
            seen = measure(Stage(plane, pods, bench, operator=operator, argo=argo.metrics, port=port), times)
    Console(width=110).print(table(seen))


if __name__ == "__main__":
    main()
