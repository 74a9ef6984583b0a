"""Mode Propose on a real API server: a folder as in Git, kustomize, server-side apply by another manager, real patches.

The folder is applied by force under the name of Flux's controller, as that one does at each interval.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.api import FIELD_MANAGER
from retune.contract.requests import JobRequest, VerifyRequest
from retune.contract.results import Failure, JobResult, Reason
from tests.answers import answer
from tests.cluster.proposals import proposal
from tests.faults.stage import deployment, prepare, run_until
from tests.faults.stagehand import Stagehand
from tools.kubectl import Kubectl
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
pytestmark = pytest.mark.usefixtures("routes")
WRONG = Failure(reason=Reason.GOLDEN_MISMATCH, object="the pods", message="answer otherwise.", next_step="See logs.")


class Repository:
    """A folder with a Deployment and a kustomization, and what applies it."""

    def __init__(self, folder: Path, plane: ControlPlane, namespace: str) -> None:
        self._folder, self._namespace = folder, namespace
        self._kubectl = Kubectl(program=str(plane.kubectl_path), options=("--kubeconfig", str(plane.kubeconfig)))
        (folder / "deployment.yaml").write_text(yaml.safe_dump(deployment(namespace)))

    def merge(self, patches: str = "{}") -> None:
        """Commit what `retune proposal -o kustomize` printed, and apply the folder."""
        kustomization = {"resources": ["deployment.yaml"]} | yaml.safe_load(patches)
        (self._folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        manager = ("--server-side", "--force-conflicts", "--field-manager", "kustomize-controller")
        self._kubectl("apply", *manager, "--namespace", self._namespace, "-k", str(self._folder))


def rolled_out(reason: str) -> Callable[[Json], bool]:
    """Whether condition RolledOut has this reason in a state."""

    def over(state: Json) -> bool:
        conditions = state.get("status", {}).get("conditions", [])
        return any((shown["type"], shown["reason"]) == ("RolledOut", reason) for shown in conditions)

    return over


def environment(api: Api, namespace: str) -> tuple[Json, set[str]]:
    """The target's environment, and who owns entries of it."""
    raw = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/digits-server")
    managers = {entry["manager"] for entry in raw["metadata"]["managedFields"] if "f:env" in str(entry["fieldsV1"])}
    entries = raw["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return {entry["name"]: entry.get("value") for entry in entries}, managers


def failing(request: JobRequest) -> JobResult:
    """Answer as a Job would whose pods give wrong answers."""
    return WRONG if isinstance(request, VerifyRequest) else answer(request)


def test_what_git_merges_becomes_champion(plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """The printed patch builds and applies as it is, and the operator has written nothing on the target."""
    prepare(api, "merged", mode="Propose")
    git = Repository(tmp_path, plane, "merged")
    git.merge()
    with Stagehand(api, namespace="merged"):
        run_until(rolled_out("Proposed"), api, plane.kubeconfig, ["merged"])
        assert environment(api, "merged")[0] == {}
        git.merge(proposal("merged", plane.kubeconfig))
        run_until(rolled_out("Promoted"), api, plane.kubeconfig, ["merged"])
    status = api.get("/apis/retune.dev/v1alpha1/namespaces/merged/modeloptimizations/digits")["status"]
    values, managers = environment(api, "merged")
    assert values == {"MODEL_URI": status["champion"]["injectedValue"]}
    assert (status["champion"]["version"], FIELD_MANAGER in managers) == (2, False)


def test_what_failed_goes_back_by_the_patch_that_is_shown(plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """The operator leaves even a failed version there, until Git takes it back; then the run ends RolledBack."""
    prepare(api, "reverted", mode="Propose")
    git = Repository(tmp_path, plane, "reverted")
    git.merge()
    with Stagehand(api, reply=failing, namespace="reverted"):
        run_until(rolled_out("Proposed"), api, plane.kubeconfig, ["reverted"])
        git.merge(proposal("reverted", plane.kubeconfig))
        run_until(rolled_out("RevertProposed"), api, plane.kubeconfig, ["reverted"])
        assert set(environment(api, "reverted")[0]) == {"MODEL_URI"}
        git.merge(proposal("reverted", plane.kubeconfig))
        run_until(rolled_out("RolledBack"), api, plane.kubeconfig, ["reverted"])
    values, managers = environment(api, "reverted")
    assert (values, FIELD_MANAGER in managers) == ({}, False)
