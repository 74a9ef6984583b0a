"""`retune optimize` and `retune init` with the real Jobs, real models and real data, and no cluster anywhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.cli.local.optimize import read_manifest
from tests.unit.jobs import models_for_tests as models

Json = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path, delivered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder `digits` that holds a model and three data sets."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for name in ("mlp.onnx", "training.npz", "validation.npz", "test.npz"):
        shutil.copyfile(delivered / name, folder / name)
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


@pytest.mark.slow
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
    page = Path(result["paths"]["report"]).read_text()
    if "worth" in result:
        worth = result["worth"]
        assert (worth["threads"], worth["limitOf"]) == (1, "Champion")
        assert worth["ratio"]["low"] <= worth["after"]["value"] / worth["before"]["value"] <= worth["ratio"]["high"]
        assert "A replay of the measured call times as a queue" in page
    else:  # on a node that is too busy to judge latency
        assert "latency cannot be judged on this node" in result["worthUnknown"]
        assert "Nothing is said: latency cannot be judged" in page


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


@pytest.mark.slow
def test_init_writes_what_optimize_takes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Roles from names, task and label from the files, techniques as the image has them."""
    assert command_line.main(["init", str(files / "mlp.onnx"), "--claim", "digits", "-f", "new.yaml"]) == Exit.DONE
    resource = read_manifest(Path("new.yaml"))
    assert resource.spec.model.task == "Classification"
    assert resource.spec.data.validation.uri == "pvc://digits/validation.npz"
    assert resource.spec.data.test is not None
    written = Path("new.yaml").read_text()
    assert "Quantization" in written
    assert "# label: column 'label', because of its name." in written
    assert "# task: Classification, because labels are whole numbers below 10" in written
    assert resource.spec.objectives is None
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


def test_what_is_known_overrules_what_is_guessed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--task` and `--label` are written, with themselves as the reason."""
    for split in ("training", "validation", "test"):
        with np.load(files / f"{split}.npz") as arrays:
            np.savez(files / f"{split}.npz", x=arrays["x"], label=arrays["label"], parity=arrays["label"] % 2)
    words = ["init", str(files / "mlp.onnx"), "--task", "Embedding", "--label", "parity"]
    assert command_line.main(words) == Exit.DONE
    written = capsys.readouterr().out
    assert "# task: Embedding, because --task says so." in written
    assert "# label: column 'parity', as --label says." in written
    assert written.count('labelColumn: "parity"') == 3


def test_of_two_outputs_the_answer_is_asked_for_and_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two outputs that know the labels alike: a refusal names them, and `--output-name` chooses one."""
    model = onnx.load(files / "mlp.onnx")
    model.graph.node.append(helper.make_node("Neg", ["scores"], ["distances"]))
    model.graph.node.append(helper.make_node("Neg", ["distances"], ["logits"]))
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10]))
    onnx.save(model, files / "mlp.onnx")
    assert command_line.main(["init", str(files / "mlp.onnx")]) == Exit.USAGE
    assert "outputs scores, logits could each be the answer" in capsys.readouterr().err
    assert command_line.main(["init", str(files / "mlp.onnx"), "--output-name", "logits"]) == Exit.DONE
    written = capsys.readouterr().out
    assert "# output: scores in 'logits', read as probabilities, as --output-name says." in written
    assert '    outputs:\n      scores: "logits"' in written


def test_a_regression_is_seen_by_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole numbers to predict, in a column of a usual name: the task is a regression, and the reason is written."""
    monkeypatch.chdir(tmp_path)
    X, y = load_diabetes(return_X_y=True)
    model = to_onnx(Ridge().fit(X, y), X[:1].astype(np.float32))
    Path("model.onnx").write_bytes(model.SerializeToString())
    names = [*(f"f{number}" for number in range(X.shape[1])), "target"]
    for split, rows in {"train": slice(0, 200), "val": slice(200, 300), "test": slice(300, None)}.items():
        table = np.column_stack([X[rows], y[rows]])
        np.savetxt(f"{split}.csv", table, delimiter=",", header=",".join(names), comments="", fmt="%g")
    assert command_line.main(["init", "model.onnx", "-f", "mo.yaml"]) == Exit.DONE
    assert "different whole numbers in 200 rows, too many for classes" in Path("mo.yaml").read_text()
    spec = read_manifest(Path("mo.yaml")).spec
    assert (spec.model.task, spec.data.validation.label_column) == ("Regression", "target")
    assert "Traceback" not in capsys.readouterr().err


def test_a_table_whose_labels_no_name_shows_asks_for_the_option(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One column too many, and none is called like a label."""
    X, y = models.digits("test")
    names = ",".join([*(f"p{number}" for number in range(64)), "digit"])
    np.savetxt(files / "only.csv", np.column_stack([X, y])[:50], delimiter=",", header=names, comments="")
    assert command_line.main(["inspect", str(files / "mlp.onnx"), "--data", str(files / "only.csv")]) == Exit.USAGE
    error = capsys.readouterr().err
    assert "has 65 columns" in error
    assert "Name it with --label." in error


def test_a_look_at_a_model_says_what_applies_and_why_not(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a table for people and as JSON for programs, with a data file of any name, and nothing is written."""
    (files / "test.npz").rename(files / "rows.npz")
    words = ["inspect", str(files / "mlp.onnx"), "--data", str(files / "rows.npz")]
    assert command_line.main(words) == Exit.DONE
    shown = capsys.readouterr().out
    assert "x float32 (N, 64)" in shown
    assert "set data.training" in shown
    assert command_line.main([*words, "-o", "json"]) == Exit.DONE
    seen = json.loads(capsys.readouterr().out)
    assert (seen["task"], seen["opset"], seen["files"][0]["rows"]) == ("Classification", models.OPSET, 497)
    assert seen["techniques"]["Quantization"] is None


def test_what_is_missing_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor` ends with 0 and, where something is missing, with a command that brings it."""
    assert command_line.main(["doctor", "-o", "json"]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    states = {part["name"]: part["state"] for part in told["parts"]}
    assert {states[name] for name in ("ONNX", "GraphOptimization", "ONNXRuntime")} == {"ready"}
    absent = {package["name"] for package in told["packages"] if not package["fits"]}
    assert all(any(name in command for command in told["install"].values()) for name in absent)
    assert command_line.main(["doctor"]) == Exit.DONE
    assert "Quantization" in capsys.readouterr().out


def test_a_name_that_no_uri_can_hold_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blanks are usual on a laptop."""
    (tmp_path / "my model.onnx").touch()
    assert command_line.main(["init", str(tmp_path / "my model.onnx")]) == Exit.USAGE
    assert "rename what is not letters, digits" in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_a_run_without_test_data_ends_before_it_begins(manifest: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Not after a search whose winner nobody can judge."""
    sets = {name: {"uri": f"pvc://digits/{name}.npz"} for name in ("training", "validation")}
    assert command_line.main(["optimize", "-f", str(manifest(data=sets))]) == Exit.USAGE
    assert "set spec.data.test" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_of_single_rows_is_made_no_larger_than_one_line_makes_it(
    files: Path, manifest: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person gets by one call of quantize_dynamic is tried, judged, and in the report for comparison."""
    network = onnx.load(files / "mlp.onnx")
    for tensor in (*network.graph.input, *network.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, files / "mlp.onnx")
    quantize_dynamic(files / "mlp.onnx", files / "by-hand.onnx")
    assert command_line.main(["optimize", "-f", str(manifest()), "-o", "json"]) == Exit.DONE
    result = json.loads(capsys.readouterr().out)
    report = json.loads((Path(result["paths"]["report"]).parent / "report.json").read_text())
    (line,) = (trial for trial in report["trials"] if "quantize_dynamic as one line" in trial["plan"])
    assert line["finalist"]
    assert result["candidate"]["sizeBytes"] <= (files / "by-hand.onnx").stat().st_size
