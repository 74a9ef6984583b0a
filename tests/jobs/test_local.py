"""`retune optimize` and `retune init` with the real Jobs, real models and real data, and no cluster anywhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.cli.local.optimize import read_manifest
from tests.unit.jobs import models_for_tests as models

Json = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder `digits` that holds a model and three data sets."""
    folder = tmp_path / "digits"
    folder.mkdir()
    models.save_mlp(folder / "mlp.onnx", models.fit_mlp())
    models.save_digits(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Write:
    """Write a manifest with these fields of its spec changed, and return its path."""

    def write(**spec: Any) -> Path:
        sets = ("training", "validation", "test")
        base: Json = {
            "model": {"uri": "pvc://digits/mlp.onnx"},
            "data": {name: {"uri": f"pvc://digits/{name}.npz"} for name in sets},
            "objectives": [
                {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}},
                {"metric": "size_bytes"},
            ],
            "search": {"maxTrials": 3, "parallelism": 2},
            "target": {"ref": {"name": "digits"}},
        }
        document = {"apiVersion": "retune.dev/v1alpha1", "kind": "ModelOptimization", "metadata": {"name": "digits"}}
        path = tmp_path / "mo.yaml"
        path.write_text(yaml.safe_dump(document | {"spec": base | spec}))
        return path

    return write


def test_a_better_model_is_found_here_as_in_the_cluster(
    files: Path, manifest: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers, a verdict for programs on stdout, progress apart from it, and files where it says they are."""
    assert command_line.main(["optimize", "-f", str(manifest()), "--threads", "1", "-o", "json"]) == Exit.DONE
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (result["verdict"], result["reason"]) == ("Promote", "SmallerAtEqualQuality")
    assert (Path(result["paths"]["bundle"]) / "model.onnx").stat().st_size < (files / "mlp.onnx").stat().st_size
    assert Path(result["paths"]["report"]).read_text().startswith("<!doctype html>")
    assert "trial 3/3" in said.err


def test_a_jobs_own_sentence_is_the_error(files: Path, manifest: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a user's file is said as the operator would say it, without a traceback."""
    (files / "mlp.onnx").write_bytes(b"no model")
    assert command_line.main(["optimize", "-f", str(manifest())]) == Exit.USAGE
    error = capsys.readouterr().err
    assert "ModelInvalid: pvc://digits/mlp.onnx: this is not an ONNX file" in error
    assert "Traceback" not in error


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"search": {"maxTrials": 0}}, "spec.search.maxTrials: Input should be greater than or equal to 1"),
        ({"model": {"uri": "pvc://models/m.onnx"}}, "say where its files are with --claim models=FOLDER"),
        ({"model": {"uri": "pvc://digits/m.pkl", "format": "Pickle", "trust": "RunsCodeFromFile"}}, "--allow-code"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(
    change: Json, says: str, manifest: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fields by their names, claims with the option that is missing, and no code run without being asked to."""
    assert command_line.main(["optimize", "-f", str(manifest(**change))]) == Exit.USAGE
    assert says in capsys.readouterr().err


def test_a_file_of_several_objects_needs_one_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GitOps files hold more than one object; ours is picked, and its absence is said."""
    path = tmp_path / "all.yaml"
    path.write_text("kind: Service\n---\nkind: Deployment\n")
    assert command_line.main(["optimize", "-f", str(path)]) == Exit.USAGE
    assert "holds 0 ModelOptimizations" in capsys.readouterr().err


def test_init_writes_what_optimize_takes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Roles from names, task and label from the files, techniques as the image has them."""
    assert command_line.main(["init", str(files / "mlp.onnx"), "--claim", "digits", "-f", "new.yaml"]) == Exit.DONE
    resource = read_manifest(Path("new.yaml"))
    assert resource.spec.model.task == "Classification"
    assert resource.spec.data.validation.uri == "pvc://digits/validation.npz"
    assert resource.spec.data.test is not None
    assert "Quantization" in Path("new.yaml").read_text()
    assert "--claim digits=" in capsys.readouterr().err
    assert command_line.main(["init", str(files / "mlp.onnx"), "-f", "new.yaml"]) == Exit.USAGE
    assert "new.yaml exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m.bin", "shows no format"),
        ("m.safetensors", "name what builds the network with --factory"),
        ("m.pkl", "add --allow-code"),
        ("absent.onnx", "is no file"),
    ],
)
def test_init_says_what_it_cannot_tell(
    name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with the option that helps."""
    if name != "absent.onnx":
        (tmp_path / name).write_bytes(b"x")
    assert command_line.main(["init", str(tmp_path / name)]) == Exit.USAGE
    assert says in capsys.readouterr().err
