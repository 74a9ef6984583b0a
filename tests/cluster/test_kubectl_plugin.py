"""`kubectl retune`: kubectl finds the command line by its name, and passes on its output and its exit code."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.cli.follow import Exit
from tests import samples
from tests.cluster.crds import path_of
from tools.kubectl import CommandError, Kubectl
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane

PLUGIN = Path(sys.executable).with_name("kubectl-retune")
"""The command line as it is installed beside the Python that runs the tests."""


@pytest.fixture
def kubectl(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """A kubectl with only the plugin's folder on PATH. Options cannot stand before a plugin: variables say the rest."""
    monkeypatch.setenv("PATH", str(PLUGIN.parent))
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    return Kubectl(program=str(plane.kubectl_path))


@pytest.fixture
def resource(api: Api) -> Iterator[str]:
    """A ModelOptimization in the namespace default; its name."""
    name = "plugged"
    path = path_of("retune.dev", "modeloptimizations")
    api.request("POST", path, samples.manifest() | {"metadata": {"name": name}})
    yield name
    api.request("DELETE", f"{path}/{name}")


def test_kubectl_lists_the_plugin(kubectl: Kubectl) -> None:
    """Its name is what kubectl looks for, and it may be executed."""
    assert str(PLUGIN) in kubectl("plugin", "list").splitlines()


def test_the_plugin_shows_what_the_kubeconfig_leads_to(kubectl: Kubectl, resource: str) -> None:
    """`kubectl retune status` lists resources, with a name it shows one, and options come after the command."""
    heading, row = kubectl("retune", "status", "--namespace", "default").splitlines()
    assert heading.split()[:3] == ["NAME", "STAGE", "READY"]
    assert row.split()[:3] == [resource, "Pending", "Unknown"]
    assert f"default/{resource}" in kubectl("retune", "status", resource, "-n", "default")


def test_an_error_of_the_plugin_is_an_error_of_kubectl(kubectl: Kubectl) -> None:
    """Scripts see the exit code, and people the sentence."""
    with pytest.raises(CommandError, match="there is no ModelOptimization nobody in namespace default"):
        kubectl("retune", "status", "nobody", "-n", "default")


MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
VERSION = {"version": 2, "uri": "pvc://store/2", "digest": samples.DIGEST, "runName": "plugged-r1"}


def spec_of(api: Api, name: str) -> dict[str, Any]:
    """The spec as the API server holds it."""
    spec: dict[str, Any] = api.get(f"{path_of('retune.dev', 'modeloptimizations')}/{name}")["spec"]
    return spec


def tell(api: Api, name: str, **status: Any) -> None:
    """Write a status, as the operator would."""
    path = f"{path_of('retune.dev', 'modeloptimizations')}/{name}/status"
    api.request("PATCH", path, {"status": status}, kind=MERGE)


def test_verbs_change_the_spec_under_a_manager_of_their_own(api: Api, kubectl: Kubectl, resource: str) -> None:
    """Git and the operator see what a person wants; the API server's rules hold for it as for any edit."""
    waiting = {**VERSION, "version": 3, "digest": "sha256:" + "3c" * 32}
    api.request(
        "PATCH",
        f"{path_of('retune.dev', 'modeloptimizations')}/{resource}",
        {"spec": {"rollout": {"approval": "Manual"}}},
        kind=MERGE,
    )
    tell(api, resource, champion=VERSION, candidate=waiting)
    for words in (("approve", resource, "3"), ("pause", resource), ("run", resource), ("rollback", resource)):
        if words[0] == "rollback":
            tell(api, resource, versions=[{**VERSION, "version": 7, "digest": "sha256:" + "7a" * 32}])
        kubectl("retune", *words, "-n", "default")
    spec = spec_of(api, resource)
    assert spec["rollout"]["approvedVersion"] == waiting["digest"]
    assert (spec["suspend"], spec["rollout"]["rollbackTo"]) == (True, 7)
    assert spec["manualNonce"].startswith("retune-")
    raw = api.get(f"{path_of('retune.dev', 'modeloptimizations')}/{resource}")
    assert "retune-cli" in {entry["manager"] for entry in raw["metadata"]["managedFields"]}
    kubectl("retune", "unpin", resource, "-n", "default")
    assert "rollbackTo" not in spec_of(api, resource)["rollout"]
    assert "candidate" in kubectl("retune", "versions", resource, "-n", "default")


def test_what_a_gitops_controller_declares_is_left_to_git(api: Api, kubectl: Kubectl, resource: str) -> None:
    """As such controllers do, by server-side apply under their own name: only what is in their manifest is theirs."""
    name = f"{resource}-git"
    manifest = samples.manifest() | {"metadata": {"name": name, "namespace": "default"}}
    manifest["spec"] = manifest["spec"] | {"suspend": False}
    path = f"{path_of('retune.dev', 'modeloptimizations')}/{name}"
    query = "?fieldManager=kustomize-controller&force=true"
    api.request("PATCH", f"{path}{query}", manifest, kind=APPLY)
    with pytest.raises(CommandError, match=r"spec\.suspend is declared by kustomize-controller"):
        kubectl("retune", "pause", name, "-n", "default")
    assert spec_of(api, name)["suspend"] is False
    kubectl("retune", "run", name, "-n", "default")
    nonce = spec_of(api, name)["manualNonce"]
    api.request("PATCH", f"{path}{query}", manifest, kind=APPLY)
    assert spec_of(api, name)["manualNonce"] == nonce
    api.request("DELETE", path)


def test_scripts_tell_apart_why_nothing_was_changed(kubectl: Kubectl, resource: str) -> None:
    """Nothing to do, Git's field and wrong words have exit codes of their own."""

    def code(*words: str) -> int:
        program = [str(PLUGIN), *words, "-n", "default"]
        return subprocess.run(program, capture_output=True, check=False).returncode

    assert code("approve", resource) == Exit.BAD_OUTCOME
    assert code("approve", "nobody") == Exit.USAGE
    assert code("aprove", resource) == Exit.USAGE
    assert code("pause", resource) == Exit.DONE
    assert yaml.safe_load(kubectl("retune", "-n", "default", "resume", resource, "--dry-run")) == {
        "spec": {"suspend": False}
    }
