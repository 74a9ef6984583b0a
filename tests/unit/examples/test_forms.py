"""The digits example in its other forms: without a shared volume, and with KServe."""

import dataclasses
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from examples.digits.kube import DIGITS
from examples.digits.upload import upload
from examples.kube import TARGETS, DemoError, Tools
from tools.kubectl import Kubectl

Json = dict[str, Any]
NAMES = sorted(path.name for path in (DIGITS.folder / "manifests").glob("*.yaml"))


def manifests(store: str = "pvc", target: str = "deployment") -> list[Json]:
    """Every object of the example, as it is applied for a store and a kind of model server."""
    tools = Tools(DIGITS, Kubectl(), None, "localhost/retune", store, target)
    return [document for name in NAMES for document in yaml.safe_load_all(tools.manifest(name))]


def test_no_object_of_the_bucket_s_demo_knows_a_shared_volume() -> None:
    """The one claim there is belongs to the S3 server alone, and no address is one of a claim."""
    objects = manifests("s3")
    assert "pvc://" not in yaml.safe_dump_all(objects)
    claims = [each for each in objects if each["kind"] == "PersistentVolumeClaim"]
    assert [(claim["metadata"]["name"], claim["spec"]["accessModes"]) for claim in claims] == [
        ("object-store", ["ReadWriteOnce"])
    ]
    mounting = [each["metadata"]["name"] for each in objects if "persistentVolumeClaim" in yaml.safe_dump(each)]
    assert mounting == ["object-store"]


def test_both_demos_have_the_same_objects_but_for_the_server_of_the_bucket() -> None:
    """What a reader learns of one is true of the other."""
    of_both = [{(each["kind"], each["metadata"]["name"]) for each in manifests(store)} for store in ("pvc", "s3")]
    assert of_both[0] - of_both[1] == {("PersistentVolumeClaim", "retune-artifacts")}
    assert {name for _, name in of_both[1] - of_both[0]} == {"object-store", "to-object-store"}


def test_the_demo_of_kserve_differs_in_its_model_server_alone() -> None:
    """The goal and how it is proven are the same, and pods are found by a label that KServe leaves as it is."""
    plain, ours = ({(each["kind"], each["metadata"]["name"]): each for each in manifests(target=t)} for t in TARGETS)
    assert set(plain) - set(ours) == {("Deployment", "digits")}
    assert set(ours) - set(plain) == {("ServingRuntime", "retune"), ("InferenceService", "digits")}
    wanted = [dict(each["ModelOptimization", "digits"]["spec"]) for each in (plain, ours)]
    targets = [spec.pop("target") for spec in wanted]
    assert wanted[0] == wanted[1]
    assert targets[0]["inference"] == targets[1]["inference"]
    assert ours["InferenceService", "digits"]["spec"]["predictor"]["labels"] == {"model": "digits"}
    assert plain["Deployment", "digits"]["spec"]["template"]["metadata"]["labels"]["model"] == "digits"


def test_a_store_that_the_example_has_not_is_refused_with_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is created."""
    monkeypatch.setattr("examples.kube.find_program", lambda name: name)
    monkeypatch.setenv("RETUNE_STORE", "az")
    with pytest.raises(DemoError, match="'az'") as error:
        Tools.find(DIGITS, images="localhost/retune")
    assert error.value.hint == "RETUNE_STORE=pvc or s3"
    monkeypatch.setenv("RETUNE_STORE", "s3")
    with pytest.raises(DemoError, match="recommender"):
        Tools.find(dataclasses.replace(DIGITS, name="recommender", stores=("pvc",)), images="localhost/retune")
    monkeypatch.setenv("RETUNE_TARGET", "kserve")
    with pytest.raises(DemoError, match="RETUNE_TARGET is 'kserve'"):  # it would need KServe's own downloader
        Tools.find(DIGITS, images="localhost/retune")


def test_every_file_is_copied_under_its_own_name(tmp_path: Path) -> None:
    """Folders are not, and the bucket is made on the way."""
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "test.npz").write_bytes(b"rows")
    (tmp_path / "folder").mkdir()
    assert upload(tmp_path, "memory://retune/digits") == [
        "memory://retune/digits/model.onnx",
        "memory://retune/digits/test.npz",
    ]
    fs = fsspec.filesystem("memory")
    assert {path: fs.cat(path) for path in fs.ls("/retune/digits", detail=False)} == {
        "/retune/digits/model.onnx": b"model",
        "/retune/digits/test.npz": b"rows",
    }
