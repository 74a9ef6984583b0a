"""`kubectl retune`: kubectl finds the command line by its name, and passes on its output and its exit code."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
