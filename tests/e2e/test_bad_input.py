"""What bad input gets: a condition with reason, object and next step; the target untouched; the others go on.

All cases are applied at once, so that each also shows that the operator goes on with the rest.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.stores.folder import WRITING
from tests.e2e import kube
from tests.e2e.scenario import MODELS, NAMESPACE, STORE, data, idle_target, resource

pytestmark = pytest.mark.timeout(600)
Json = dict[str, Any]
SOUND = "sound"


@dataclass(frozen=True)
class Case:
    """A resource that cannot work, and what its user is told."""

    name: str
    reason: str
    says: tuple[str, ...]
    """Words of the message: the object, and what to do."""
    spec: Json = field(default_factory=dict)
    kind: str = "Baselined"
    target: str | None = ""
    """Name of its Deployment: empty for one of its own, None for none."""
    containers: tuple[str, ...] = ("server",)


CASES = (
    Case("model-missing", "ModelNotFound", ("models/none.onnx",), {"model": {"uri": f"{MODELS}/none.onnx"}}),
    Case("model-forbidden", "ModelForbidden", ("models/secret.onnx",), {"model": {"uri": f"{MODELS}/secret.onnx"}}),
    Case(
        "model-digest",
        "DigestMismatch",
        ("models/good.onnx", "sha256:"),
        {"model": {"uri": f"{MODELS}/good.onnx", "digest": "sha256:" + "0" * 64}},
    ),
    Case("model-truncated", "ModelInvalid", ("truncated.onnx",), {"model": {"uri": f"{MODELS}/truncated.onnx"}}),
    Case("model-not-onnx", "ModelInvalid", ("text.onnx",), {"model": {"uri": f"{MODELS}/text.onnx"}}),
    Case("weights-outside", "ModelInvalid", ("outside.onnx", "hostname"), {"model": {"uri": f"{MODELS}/outside.onnx"}}),
    Case("data-missing", "DataNotFound", ("data/none.npz",), {"data": data(test="none.npz")}),
    Case("label-missing", "DataInvalid", ("unlabelled.npz", "label"), {"data": data(test="unlabelled.npz")}),
    Case("data-empty", "DataInvalid", ("empty.npz",), {"data": data(test="empty.npz")}),
    Case("labels-nan", "DataInvalid", ("nan-labels.npz", "29"), {"data": data(test="nan-labels.npz")}),
    Case("one-class", "DataInvalid", ("one-class.npz", "class"), {"data": data(test="one-class.npz")}),
    Case("data-narrow", "DataInvalid", ("narrow.npz", "12"), {"data": data(test="narrow.npz")}),
    Case("target-missing", "NotFound", ("Deployment target-missing", "create it"), kind="TargetResolved", target=None),
    Case(
        "container-missing",
        "ContainerNotFound",
        ("no container engine", "server"),
        kind="TargetResolved",
        spec={"target": {"ref": {"name": "container-missing"}, "container": "engine"}},
    ),
    Case(
        "container-unclear",
        "ContainerNotFound",
        ("several containers", "spec.target.container"),
        kind="TargetResolved",
        containers=("server", "sidecar"),
    ),
    Case(
        "target-taken",
        "HeldByAnother",
        (f"{SOUND}",),
        kind="TargetOwned",
        target=SOUND,
    ),
    Case("store-full", "StoreFull", ("pvc://full",), {"execution": {"artifactStore": "pvc://full"}}),
    Case("store-read-only", "StoreNotWritable", ("pvc://locked",), {"execution": {"artifactStore": "pvc://locked"}}),
    Case(
        "image-missing",
        "ImagePullFailed",
        ("localhost/retune/none:dev",),
        {"execution": {"image": "localhost/retune/none:dev"}},
    ),
    Case(
        "memory-small",
        "OutOfMemory",
        ("spec.execution.resources.limits.memory",),
        {"execution": {"resources": {"requests": {"cpu": "50m", "memory": "24Mi"}, "limits": {"memory": "24Mi"}}}},
    ),
    Case(
        "claim-missing",
        "ObjectMissing",
        ("PersistentVolumeClaim nowhere", "create it"),
        {"execution": {"artifactStore": "pvc://nowhere"}},
    ),
)


@pytest.fixture(scope="module")
def odd_stores(seeded: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Two claims on real folders of this node: one on a full file system, one that belongs to somebody else."""
    if os.environ.get("RETUNE_KUBECONTEXT") or os.geteuid() != 0:
        pytest.skip("needs to be root on the cluster's node, as with the local cluster")
    kube.kubectl("delete", "persistentvolume", "e2e-full", "e2e-locked", "--ignore-not-found", "--timeout=1m")
    folders = {name: tmp_path_factory.mktemp("store") / name for name in ("full", "locked")}
    for name, folder in folders.items():
        folder.mkdir(mode=0o755)
        kube.apply(_volume(name, folder), _claim(name))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0777", "tmpfs", str(folders["full"])], check=True)
    yield folders
    kube.kubectl("delete", "modeloptimization", "store-full", "store-read-only", "-n", seeded, "--ignore-not-found")
    subprocess.run(["umount", "--lazy", str(folders["full"])], check=True)
    kube.kubectl("delete", "persistentvolume", "e2e-full", "e2e-locked", "--wait=false")


def _volume(name: str, folder: Path) -> Json:
    for parent in folder.parents[:3]:
        parent.chmod(0o755)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"e2e-{name}"},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "by-hand",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"name": name, "namespace": NAMESPACE},
        },
    }


def _claim(name: str) -> Json:
    document = kube.claim(name, namespace=NAMESPACE, size="1Mi")
    document["spec"] |= {"storageClassName": "by-hand", "volumeName": f"e2e-{name}"}
    return document


@pytest.fixture(scope="module")
def applied(seeded: str, odd_stores: dict[str, Path]) -> str:
    """One sound resource, then every bad one, all in one namespace; returns its name."""
    assert all(folder.is_dir() for folder in odd_stores.values())
    kube.apply(idle_target(SOUND), resource(SOUND, mode="ObserveOnly"))
    kube.wait_reason(SOUND, "TargetOwned", "LeaseHeld", namespace=seeded)
    own = [idle_target(case.name, containers=case.containers) for case in CASES if case.target == ""]
    kube.apply(*own, *(resource(case.name, deployment=case.target or None, **case.spec) for case in CASES))
    return seeded


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_ends_in_a_condition_that_says_what_to_do(case: Case, applied: str) -> None:
    """The reason is the expected one, the message names the object, and nothing was given to the target."""
    found = kube.wait_reason(case.name, case.kind, case.reason, namespace=applied)
    told = kube.condition(found, case.kind)
    for words in case.says:
        assert words in told["message"], told["message"]
    assert kube.condition(found, "Ready")["status"] != "True"
    if case.target == "":
        target = kube.get("deployment", case.name, namespace=applied)
        assert target["metadata"]["generation"] == 1, "the target was changed"


def test_the_operator_goes_on_with_the_others(applied: str) -> None:
    """In the midst of all the bad ones, the sound resource is measured."""
    found = kube.wait_reason(SOUND, "Baselined", "Measured", namespace=applied)
    assert found["status"]["champion"]["version"] == 1
    assert kube.condition(found, "Ready")["status"] == "True"


def test_nothing_half_written_is_left_in_the_store(applied: str, tmp_path: Path) -> None:
    """After every failure, the store holds whole bundles under their digests and nothing else of these resources."""
    for case in CASES:
        kube.wait_reason(case.name, case.kind, case.reason, namespace=applied)
    kube.wait_reason(SOUND, "Baselined", "Measured", namespace=applied)
    script = tmp_path / "look.py"
    script.write_text(
        "import pathlib, sys\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).rglob('*')):\n"
        "    print(path.relative_to(sys.argv[1]))\n",
        encoding="utf-8",
    )
    kube.apply(*kube.python_job("look", script, namespace=applied, claims=[STORE], arguments=[f"/mnt/pvc/{STORE}"]))
    kube.kubectl("wait", "job/look", "-n", applied, "--for=condition=Complete", "--timeout=2m")
    every = [Path(line) for line in kube.kubectl("logs", "job/look", "-n", applied).splitlines()]
    mine = {SOUND, *(case.name for case in CASES)}
    files = [path for path in every if path.parts[0] in mine]
    bundles = {path for path in files if path.parent.name == "bundles"}
    assert bundles, "the sound resource has no bundle"
    assert all(len(path.name) == 64 for path in bundles), bundles
    inside = {path.name for path in files if path.parent in bundles}
    assert inside == {"bundle.json", "golden.json", "model.onnx"}
    unfinished = [
        path for path in files if "tmp" in path.name or path.name.startswith(".") or WRITING in path.parent.parts
    ]
    assert {path.name for path in unfinished} <= {WRITING}, "the folder of what is being written is empty"
