"""A delivered ONNX file is opened only after it has been shown to be harmless."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.external import external_files
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.sandbox import CHECK_SECONDS, check_in_sandbox, run_in_sandbox
from optimizer_jobs.signature import TensorSpec
from retune.contract.results import Reason
from tests.unit.jobs.models_for_tests import OPSET, digits, fit_mlp, save_external, save_graph


def refused(path: Path) -> str:
    """Check a file that must be refused as ModelInvalid, and return the sentence."""
    with pytest.raises(JobError) as caught:
        check_onnx(path, uri="pvc://digits/model.onnx")
    assert caught.value.reason is Reason.MODEL_INVALID
    assert caught.value.object == "pvc://digits/model.onnx"
    return str(caught.value)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_a_sound_model_gives_its_signature(delivered: Path, name: str) -> None:
    """Names, element types and shapes are the model's; a free batch is -1."""
    signature = check_onnx(delivered / f"{name}.onnx")
    assert signature.inputs == (TensorSpec(name="x", dtype="float32", shape=(-1, 64)),)
    assert signature.outputs == (TensorSpec(name="scores", dtype="float32", shape=(-1, 10)),)
    assert signature.batch is None
    assert signature.label_output is None


def test_a_converted_estimator_gives_labels_and_scores(delivered: Path) -> None:
    """A scikit-learn classifier has a label output beside its scores."""
    signature = check_onnx(delivered / "sklearn.onnx")
    assert signature.label_output == TensorSpec(name="label", dtype="int64", shape=(-1,))
    assert signature.score_output is not None
    assert signature.score_output.name == "probabilities"


def test_a_fixed_batch_is_seen(tmp_path: Path) -> None:
    """A model exported for one row at a time says so."""
    node = helper.make_node("Gemm", ["x", "w"], ["scores"])
    path = save_graph(tmp_path / "one.onnx", [node], {"w": np.eye(64, 10)}, batch=1)
    assert check_onnx(path).batch == 1


def test_a_truncated_file_is_refused(delivered: Path, tmp_path: Path) -> None:
    """Half an upload is not a model."""
    path = tmp_path / "model.onnx"
    whole = (delivered / "mlp.onnx").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "ONNX" in refused(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x80\x04\x95pickle", b"{}", b"\0" * 4096, b"<html>no</html>"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Other formats are refused, whatever the name says."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "not an ONNX file" in refused(path)


def test_the_name_does_not_choose_the_parser(delivered: Path, tmp_path: Path) -> None:
    """A model named .json is still read as the binary format that the engine will read."""
    path = tmp_path / "model.json"
    path.write_bytes((delivered / "mlp.onnx").read_bytes())
    assert check_onnx(path).inputs


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file of 1 TB is refused by its size."""
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(JobError) as caught:
        check_onnx(tmp_path / "model.onnx")
    assert caught.value.reason is Reason.MODEL_TOO_LARGE


def test_external_data_beside_the_file_is_accepted(delivered: Path, tmp_path: Path) -> None:
    """Weights in a plain file beside the model are part of it, and are listed."""
    proto = onnx.load(delivered / "mlp.onnx")
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert external_files(path) == ("weights.bin",)
    assert check_onnx(path) == check_onnx(delivered / "mlp.onnx")


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "sub/weights.bin",
        "..",
        "",
        "a\\..\\b",
        "weights\0.bin",
        "golden.json",
        "native.skops",
    ],
)
def test_external_data_elsewhere_is_refused(delivered: Path, tmp_path: Path, location: str) -> None:
    """Only a plain name is a place for external data; no path leads out of the folder."""
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 20))
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(folder / "model.onnx", delivered / "mlp.onnx", location=location)
    assert "has its data" in refused(path)
    with pytest.raises(JobError):
        external_files(path)


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_linked_external_data_is_refused(delivered: Path, tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    """A link beside the model would let it read a file that is not its own."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1 << 20))
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(folder / "model.onnx", delivered / "mlp.onnx", location="weights.bin")
    link(secret, folder / "weights.bin")
    assert "link" in refused(path)


def test_missing_or_short_external_data_is_refused(delivered: Path, tmp_path: Path) -> None:
    """External data that is absent, or ends too early, is said before the model is used."""
    path = save_external(tmp_path / "model.onnx", delivered / "mlp.onnx", location="weights.bin")
    assert "missing" in refused(path)
    (tmp_path / "weights.bin").write_bytes(b"short")
    assert refused(path)


def test_external_data_hidden_in_a_subgraph_is_found(tmp_path: Path) -> None:
    """A tensor inside the branch of an If node is held to the same rule."""
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1, 10], np.zeros(10, np.float32).tobytes(), raw=True)
    onnx.external_data_helper.set_external_data(tensor, location="../../etc/passwd")
    tensor.ClearField("raw_data")
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Constant", [], ["o"], value=tensor)], "branch", [], [value])
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["scores"], then_branch=branch, else_branch=branch),
    ]
    path = save_graph(tmp_path / "model.onnx", nodes, {})
    assert "outside the model's folder" in refused(path)


@pytest.mark.parametrize(("domain", "op"), [("evil.ops", "Run"), ("com.microsoft", "EPContext")])
def test_custom_operators_are_refused(tmp_path: Path, domain: str, op: str) -> None:
    """Operators of unknown sets, or that load further files, are refused by name."""
    node = helper.make_node(op, ["x"], ["scores"], name="bad", domain=domain)
    path = save_graph(tmp_path / "model.onnx", [node], {}, domains=[domain])
    assert f"{domain}:{op}" in refused(path)


def test_functions_of_the_model_itself_are_accepted(tmp_path: Path) -> None:
    """An operator that the model defines from standard ones is no custom operator."""
    path = save_graph(
        tmp_path / "model.onnx",
        [helper.make_node("Head", ["x", "w"], ["scores"], domain="mine")],
        {"w": np.eye(64, 10)},
        domains=["mine"],
    )
    proto = onnx.load(path)
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    proto.functions.append(
        helper.make_function("mine", "Head", ["a", "b"], ["c"], body, [helper.make_opsetid("", OPSET)])
    )
    onnx.save(proto, path)
    assert check_onnx(path).outputs[0].name == "scores"


def test_a_malformed_graph_is_refused(delivered: Path, tmp_path: Path) -> None:
    """A graph whose parts do not fit together is refused with the checker's own words."""
    proto = onnx.load(delivered / "mlp.onnx")
    proto.graph.node[1].input[0] = "nowhere"
    onnx.save(proto, tmp_path / "model.onnx")
    assert "nowhere" in refused(tmp_path / "model.onnx")


def test_a_model_the_engine_cannot_open_is_refused(tmp_path: Path) -> None:
    """Weights of the wrong shape pass the checker, but not the engine."""
    node = helper.make_node("Gemm", ["x", "w"], ["scores"])
    path = save_graph(tmp_path / "model.onnx", [node], {"w": np.eye(65, 10)})
    assert "cannot open it" in refused(path)


def test_outputs_that_are_no_tensors_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """A scikit-learn model converted with its default zipmap is told which option to use."""
    from skl2onnx import to_onnx

    path = tmp_path / "model.onnx"
    model = to_onnx(fit_mlp(hidden=8), digits("training")[0][:1], target_opset=OPSET)
    path.write_bytes(model.SerializeToString())
    assert "zipmap=False" in refused(path)


@pytest.mark.slow
def test_the_check_apart_agrees_with_the_check_here(delivered: Path, tmp_path: Path) -> None:
    """A process of its own changes neither the signature nor the reason."""
    model = delivered / "mlp.onnx"
    assert check_in_sandbox(model, uri="pvc://digits/mlp.onnx") == check_onnx(model)
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(JobError) as caught:
        check_in_sandbox(tmp_path / "bad.onnx", uri="pvc://digits/bad.onnx")
    assert caught.value.reason is Reason.MODEL_INVALID
    assert caught.value.object == "pvc://digits/bad.onnx"


def die(_question: dict[str, Any]) -> dict[str, Any]:
    """End this process at once, as a crash in native code does; called in the child process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.slow
def test_a_model_that_kills_its_parser_is_a_finding() -> None:
    """When the child dies, as it would of a crash in native code, the Job goes on and says so."""
    with pytest.raises(JobError, match="died") as caught:
        run_in_sandbox(f"{__name__}:die", {}, uri="pvc://digits/mlp.onnx", seconds=CHECK_SECONDS)
    assert caught.value.reason is Reason.MODEL_INVALID


def test_a_child_that_never_starts_is_not_blamed_on_the_model(delivered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the child dies before it has seen the model, that is an error of the Job, which may be retried."""
    resource_tracker.ensure_running()  # it is started by the same program, once a process, and has to outlive this test
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        check_in_sandbox(delivered / "mlp.onnx", uri="pvc://digits/mlp.onnx")


def test_a_model_that_stalls_its_parser_is_a_finding(delivered: Path) -> None:
    """When the child needs longer than it may, it is ended and the Job says so."""
    with pytest.raises(JobError, match="not open after"):
        check_in_sandbox(delivered / "mlp.onnx", uri="pvc://digits/mlp.onnx", seconds=0.001)
    assert not multiprocessing.active_children()
