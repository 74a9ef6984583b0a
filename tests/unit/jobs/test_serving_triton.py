"""A bundle in Triton's model repository: what the configuration says, what the warm-up holds, and what is lost."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import Array, EngineOptions
from optimizer_jobs.models.golden import Golden, GoldenRequest, Tensor, feed
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.models.version_numbers import number_of
from optimizer_jobs.serving import prototext, trial
from optimizer_jobs.serving.render import Rendered, render
from optimizer_jobs.signature import Signature, TensorSpec
from retune.contract.requests import Server
from retune.contract.results import Reason
from tests.unit.jobs.served_for_tests import KINDS, STRANGE, bundle_of, judged_in, official, parsed

EXPECTED = """\
name: "digits"
backend: "onnxruntime"
default_model_filename: "model.onnx"
version_policy {
  specific {
    versions: [VERSION]
  }
}
max_batch_size: 0
input {
  name: "x"
  data_type: TYPE_FP32
  dims: [-1, 64]
}
output {
  name: "scores"
  data_type: TYPE_FP32
  dims: [-1, 10]
}
instance_group {
  count: 1
  kind: KIND_CPU
}
optimization {
  graph {
    level: 1
  }
}
parameters {
  key: "intra_op_thread_count"
  value {
    string_value: "2"
  }
}
parameters {
  key: "inter_op_thread_count"
  value {
    string_value: "1"
  }
}
parameters {
  key: "execution_mode"
  value {
    string_value: "0"
  }
}
parameters {
  key: "retune_bundle_digest"
  value {
    string_value: "DIGEST"
  }
}
model_warmup {
  name: "golden-1"
  batch_size: 1
  inputs {
    key: "x"
    value {
      data_type: TYPE_FP32
      dims: [1, 64]
      input_data_file: "golden-1-1"
    }
  }
}
"""


def rendered(bundle: Bundle, into: Path) -> Rendered:
    """Write a bundle for Triton as `digits`."""
    return render(bundle, Server.TRITON, name="digits", into=into)


def first_only(bundle: Bundle) -> Golden:
    """Return the first golden request alone."""
    return bundle.golden.model_copy(update={"requests": bundle.golden.requests[:1]})


def test_the_configuration_says_all_that_decides_speed(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Threads, graph level and instances stand in it; requests of any size are taken, and never put together."""
    engine = EngineOptions(threads=2, graph_level="extended")
    bundle = make(engine=engine, golden=first_only(make("other")))
    made, version = rendered(bundle, tmp_path / "serve"), str(number_of(bundle.digest))
    text = (tmp_path / "serve" / "digits" / "config.pbtxt").read_text()
    assert text == EXPECTED.replace("DIGEST", bundle.digest).replace("VERSION", version)
    assert made.files == (f"digits/{version}/model.onnx", "digits/config.pbtxt", "digits/warmup/golden-1-1")
    assert made.lost == ()
    assert made.tried.endswith("opened the model on this machine and answered its 1 golden requests as recorded.")


@pytest.mark.parametrize(("level", "number"), [("disabled", 2), ("basic", -1), ("extended", 1), ("all", None)])
def test_each_graph_level_has_its_number(
    make: Callable[..., Bundle], tmp_path: Path, level: str, number: int | None
) -> None:
    """Without a number, Triton's backend rewrites the whole graph."""
    rendered(make(engine=EngineOptions.model_validate({"graph_level": level})), tmp_path / "serve")
    optimization = parsed(tmp_path / "serve" / "digits" / "config.pbtxt").optimization
    assert (optimization.graph.level if optimization.HasField("graph") else None) == number


@pytest.mark.parametrize("kind", KINDS)
def test_triton_reads_names_types_and_shapes_of_every_kind(kind: str, tmp_path: Path) -> None:
    """Strictly, by its own messages: texts, several inputs and outputs, states, single numbers, fixed rows."""
    bundle = bundle_of(kind, tmp_path / "made")
    rendered(bundle, tmp_path / "serve")
    config, types = parsed(tmp_path / "serve" / "digits" / "config.pbtxt"), official().DataType
    signature = bundle.manifest.signature
    for side, specs in ((config.input, signature.inputs), (config.output, signature.outputs)):
        assert [tensor.name for tensor in side] == [spec.name for spec in specs]
        assert [tuple(tensor.dims) for tensor in side] == [spec.shape or (1,) for spec in specs]
    named = {tensor.name: types.Name(tensor.data_type) for tensor in config.input}
    assert config.max_batch_size == 0
    if kind == "typed":
        assert named == {
            "words": "TYPE_STRING",
            "count": "TYPE_UINT8",
            STRANGE: "TYPE_INT64",
            "flags": "TYPE_BOOL",
            "half": "TYPE_FP16",
            "double": "TYPE_FP64",
        }


@pytest.mark.parametrize("kind", KINDS)
def test_the_warm_up_asks_the_golden_requests(kind: str, tmp_path: Path) -> None:
    """Read back from the files, each input is the request's: empty and long texts, NaN and half floats among them."""
    bundle = bundle_of(kind, tmp_path / "made")
    rendered(bundle, tmp_path / "serve")
    folder = tmp_path / "serve" / "digits"
    (sample,) = parsed(folder / "config.pbtxt").model_warmup
    expected = feed(bundle.golden.requests[0], bundle.manifest.signature)
    assert sample.batch_size == 1
    assert sample.inputs.keys() == expected.keys()
    for name, values in expected.items():
        given = sample.inputs[name]
        content = (folder / "warmup" / given.input_data_file).read_bytes()
        np.testing.assert_array_equal(unpacked(content, values).reshape(values.shape), values)
        assert tuple(given.dims) == (values.shape or (1,))


def unpacked(content: bytes, like: Array) -> Array:
    """Return the elements in a file of the warm-up, as the protocol sends them."""
    if like.dtype != object:
        return np.frombuffer(content, like.dtype)
    texts = []
    while content:
        (size,) = struct.unpack_from("<I", content)
        texts.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return np.array(texts, dtype=object)


def test_a_request_with_an_empty_tensor_is_left_out(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Triton has no sample without elements; the sentence says that the request is missing."""
    golden = first_only(make("other"))
    empty = Tensor(name="x", shape=(0, 64), datatype="FP32", data=())
    nothing = Tensor(name="scores", shape=(0, 10), datatype="FP32", data=())
    requests = (GoldenRequest(inputs=(empty,), outputs=(nothing,)), *golden.requests)
    made = rendered(make(golden=Golden(requests=requests)), tmp_path / "serve")
    assert [file for file in made.files if "warmup" in file] == ["digits/warmup/golden-2-1"]
    assert made.lost == (
        "1 golden requests have an empty tensor, which Triton's warm-up cannot hold: they are left out.",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"spinning": False}, "do not spin; Triton has no setting for it"),
        ({"rows": 16}, "judged with calls of 16 rows"),
    ],
)
def test_what_triton_cannot_express_is_said(
    make: Callable[..., Bundle], tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    """One sentence for each option, and the configuration still stands for the rest."""
    made = rendered(make(engine=EngineOptions.model_validate(options)), tmp_path / "serve")
    (lost,) = made.lost
    assert sentence in lost


def test_arm_bfloat16_is_said_to_be_lost(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Its answers are not compared, because they were computed in another precision."""
    golden = first_only(make("other"))
    bundle = make(engine=EngineOptions(precision="bfloat16"), golden=golden)
    made = rendered(bundle, tmp_path / "serve")
    assert "multiplies in bfloat16 on Arm" in made.lost[0]
    assert "was asked no golden requests" in made.tried


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("recurrent", "single number is a list of one for Triton: 'gain', 'used' has shape [1]"),
        ("typed", "no float16 in JSON: 'half', 'half-out' is sent"),
        ("fixed", "no missing numbers (null) in JSON"),
    ],
)
def test_what_changes_for_clients_is_said(kind: str, sentence: str, tmp_path: Path) -> None:
    """They have to know it, because their requests have another form."""
    made = rendered(bundle_of(kind, tmp_path / "made"), tmp_path / "serve")
    assert made.tried.endswith("answered its 1 golden requests as recorded.")
    (lost,) = made.lost
    assert sentence in lost


@pytest.mark.parametrize(("precision", "mode"), [("float32", "FP32"), ("float16", "FP16"), ("bfloat16", "BF16")])
def test_tensorrt_is_an_accelerator_on_a_gpu(
    make: Callable[..., Bundle], tmp_path: Path, precision: str, mode: str
) -> None:
    """In the bundle's precision; this machine tries no more than ONNX Runtime, and says so."""
    engine = EngineOptions.model_validate({"engine": "tensorrt", "precision": precision})
    made = rendered(judged_in(engine, make(), tmp_path / "judged"), tmp_path / "serve")
    assert made.tried.endswith("TensorRT was not tried.")
    config = parsed(tmp_path / "serve" / "digits" / "config.pbtxt")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("tensorrt", {"precision_mode": mode})
    assert config.instance_group[0].kind == official().ModelInstanceGroup.KIND_GPU


def test_shapes_of_outputs_are_those_that_the_engine_reports(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Triton compares them exactly; a manifest may know less, because it has the delivered model's."""
    known = TensorSpec(name="x", dtype="float32", shape=(-1, 64))
    signature = Signature(inputs=(known,), outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, -1)),))
    bundle = make(signature=signature, golden=first_only(make("other")))
    rendered(bundle, tmp_path / "serve")
    text = (tmp_path / "serve" / "digits" / "config.pbtxt").read_text()
    expected = EXPECTED.replace("VERSION", str(number_of(bundle.digest)))
    assert text.partition("instance_group")[0] == expected.partition("instance_group")[0]


def test_an_axis_without_room_is_refused(tmp_path: Path) -> None:
    """Triton has no dimension 0; nothing is written."""
    with pytest.raises(JobError, match="'x' has an axis of size 0, which Triton does not take") as caught:
        rendered(bundle_of("hollow", tmp_path / "made"), tmp_path / "serve")
    assert caught.value.next_step
    assert not (tmp_path / "serve").exists()


def test_another_answer_on_this_machine_is_told_and_no_refusal(
    make: Callable[..., Bundle], delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's machine may be the one that answers as recorded."""
    bundle = make()
    monkeypatch.setattr(trial, "open_model", lambda _, options: open_model(delivered / "conv.onnx", options))
    made = rendered(bundle, tmp_path / "serve")
    assert "but not as it was recorded elsewhere (golden request 1: output 'scores' is" in made.tried


def test_openvino_is_asked_for_its_shapes(
    make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not installed, the configuration would be a guess that Triton may refuse."""
    monkeypatch.setattr(trial, "unavailable", lambda _: "the package openvino is not installed")
    bundle = judged_in(EngineOptions(engine="openvino"), make(), tmp_path / "judged")
    with pytest.raises(JobError, match="OpenVINO is not installed here") as caught:
        rendered(bundle, tmp_path / "serve")
    assert caught.value.reason is Reason.ENGINE_UNAVAILABLE


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("typed", "'words' has type str"), ("recurrent", "'gain' has no axis")],
    ids=["texts", "numbers"],
)
def test_what_tritons_openvino_does_not_take_is_refused(kind: str, fault: str, tmp_path: Path) -> None:
    """Before OpenVINO is asked."""
    bundle = bundle_of(kind, tmp_path / "made", engine=EngineOptions(engine="openvino"))
    with pytest.raises(JobError, match=f"{fault}, which Triton's backend for OpenVINO does not take"):
        rendered(bundle, tmp_path / "serve")


def test_texts_are_escaped_as_protobuf_does() -> None:
    """Quotation marks, backslashes, line ends, and letters beyond ASCII as their bytes."""
    assert prototext.quoted('a"\\\n\t') == 'a\\"\\\\\\n\\t'
    assert prototext.quoted("ä\x01€") == "\\303\\244\\001\\342\\202\\254"
