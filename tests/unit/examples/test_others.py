"""The manifests for servers of others are those of their page, and name options that the commands have."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from optimizer_jobs.agent.command import _parser
from tests.unit.docs.manual import ROOT, examples

FOLDER = ROOT / "examples" / "servers" / "triton"
FILES = sorted(FOLDER.glob("*.yaml"))


def documents(text: str) -> list[Any]:
    """The objects of a file or block."""
    return list(yaml.safe_load_all(text))


def on_the_page() -> list[Any]:
    """The objects that the page shows and a cluster takes."""
    blocks = [example.block.text for example in examples("yaml") if example.page.name == "running-servers.md"]
    return [document for block in blocks for document in documents(block) if "apiVersion" in document]


def test_the_files_are_what_the_page_shows() -> None:
    """Word for word: who copies either has the same."""
    assert len(FILES) == 2
    assert [document for file in FILES for document in documents(file.read_text())] == on_the_page()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_the_commands_take_their_arguments_and_find_what_they_mount(file: Path) -> None:
    """Options are read by the command itself; folders that are named are mounted, and claims are there."""
    (pod,) = [
        document["spec"]["template"]["spec"]
        for document in documents(file.read_text())
        if document["kind"] == "Deployment"
    ]
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    (ours,) = [container for container in containers if "retune-runtime" in container["image"]]
    arguments = _parser().parse_args(ours["args"])
    mounts = {mount["mountPath"]: mount["name"] for mount in ours["volumeMounts"]}
    named = [getattr(arguments, option, None) for option in ("into", "models")]
    assert {str(folder) for folder in named if folder} == {"/models"}
    (server,) = [container for container in containers if container["name"] == "server"]
    assert {"name": mounts["/models"], "mountPath": "/models", "readOnly": True} in server["volumeMounts"]
    assert set(mounts.values()) <= {volume["name"] for volume in pod["volumes"]}
    probed = server["readinessProbe"]["httpGet"]
    assert probed == {"path": f"/v2/models/{arguments.name}/ready", "port": server["ports"][0]["containerPort"]}
