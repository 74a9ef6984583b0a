"""Networks of torch become ONNX files that answer the same, or the one thing that is wrong is said."""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from torch import nn

from optimizer_jobs.commands.baseline import run
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.nets import native
from optimizer_jobs.nets.catalogue import convnet, mlp, transformer
from retune.api.model import Data, Model, ModelFormat, Task
from retune.api.own_code import Factory
from retune.contract.requests import BaselineRequest
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.models_for_tests import digits
from tests.unit.jobs.networks_for_tests import factory
from tests.unit.jobs.torch_factories import Pair, Typed

pytestmark = pytest.mark.torch

CATALOGUE = "optimizer_jobs.nets.catalogue"
HERE = "tests.unit.jobs.torch_factories"
MLP = factory(f"{CATALOGUE}:mlp", inputs="64", outputs="10", width="16")

Ask = Callable[..., BaselineRequest]


@pytest.fixture
def ask(data: Data, store: str) -> Ask:
    """Return a baseline request for a model of claim digits."""

    def request(name: str, format_: ModelFormat, *, built_by: Factory | None = None, **fields: Any) -> BaselineRequest:
        trust = "RunsCodeFromFile" if format_.runs_code else None
        model = {"uri": f"pvc://digits/{name}", "format": format_, "factory": built_by, "trust": trust, **fields}
        return BaselineRequest(
            resource="ml/digits", spec_hash="abc", model=Model.model_validate(model), data=data, store=store, threads=1
        )

    return request


def refused(request: BaselineRequest, claims: Claims) -> JobError:
    """Run a request that must fail, and return why; nothing may have been published."""
    with pytest.raises(JobError) as caught:
        run(request)
    assert not list(claims.path("pvc://retune-artifacts").rglob("*"))
    return caught.value


def taught(module: nn.Module, steps: int = 60) -> nn.Module:
    """Train a network a little on the digits, so that it is right on some rows."""
    torch.manual_seed(0)
    X, y = (torch.from_numpy(values) for values in digits("training"))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X), y).backward()
        optimizer.step()
    return module.eval()


def answers_alike(request: BaselineRequest, module: nn.Module, inputs: dict[str, np.ndarray]) -> Any:
    """Run a request and hold what was published against the network; returns the bundle."""
    result = run(request)
    bundle = open_bundle(result.bundle.uri, digest=result.bundle.digest)
    outputs = open_session(bundle).run(inputs)
    with torch.no_grad():
        expected = module(*(torch.from_numpy(values) for values in inputs.values())).numpy()
    np.testing.assert_allclose(outputs[bundle.manifest.signature.outputs[0].name], expected, rtol=1e-3, atol=1e-4)
    return bundle


@pytest.mark.parametrize(
    "entry,arguments",
    [
        ("mlp", {"inputs": "64", "outputs": "10", "width": "16"}),
        ("pixels_convnet", {"side": "8", "outputs": "10", "width": "4"}),
    ],
)
def test_weights_and_factory_become_version_one(
    ask: Ask, claims: Claims, entry: str, arguments: dict[str, str]
) -> None:
    """The bundle has the ONNX file, any batch of which is answered as the network does, and the weights beside it."""
    built_by = factory(f"{CATALOGUE}:{entry}", **arguments)
    made = native.build  # the very function that conversion uses is not what the test compares with
    module = taught({"mlp": mlp(inputs=64, outputs=10, width=16)}.get(entry) or _pixels())
    native.save(module, claims.root / "digits" / "net.safetensors")
    request = ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=built_by)
    bundle = answers_alike(request, module, {"x": digits("test")[0][:33]})
    assert bundle.native.factory == built_by
    assert bundle.native.path.read_bytes() == (claims.root / "digits" / "net.safetensors").read_bytes()
    assert made(bundle.native) is not None


def _pixels() -> nn.Module:
    net = convnet(channels=1, outputs=10, width=4)
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *net)


def test_the_same_delivery_gives_the_same_bundle(ask: Ask, claims: Claims) -> None:
    """A Job that is repeated finds its own bundle."""
    native.save(taught(mlp(inputs=64, outputs=10, width=16)), claims.root / "digits" / "net.safetensors")
    request = ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=MLP)
    assert run(request).bundle == run(request).bundle


def test_inputs_are_given_by_name_whatever_their_order(ask: Ask, claims: Claims) -> None:
    """Arrays feed the parameters of forward that have their names."""
    module = Pair()
    native.save(module, claims.root / "digits" / "pair.safetensors")
    for split in ("training", "validation", "test"):
        X, y = digits(split)
        np.savez(claims.root / "digits" / f"{split}.npz", left=X[:, :32], right=X[:, 32:], label=y)
    request = ask("pair.safetensors", ModelFormat.SAFETENSORS, built_by=factory(f"{HERE}:Pair", width="8"))
    X = digits("test")[0][:5]
    bundle = answers_alike(request, module, {"right": X[:, 32:], "left": X[:, :32]})
    assert [one.name for one in bundle.manifest.signature.inputs] == ["right", "left"]


def test_a_table_is_one_input(ask: Ask, claims: Claims) -> None:
    """The columns of a CSV file, in their order, are a row."""
    module = taught(mlp(inputs=64, outputs=10, width=16))
    native.save(module, claims.root / "digits" / "net.safetensors")
    specs = {}
    for split in ("training", "validation", "test"):
        X, y = digits(split)
        path = claims.root / "digits" / f"{split}.csv"
        np.savetxt(
            path,
            np.column_stack([X, y]),
            delimiter=",",
            header=",".join([*(f"p{i}" for i in range(64)), "label"]),
            comments="",
        )
        specs[split] = {"uri": f"pvc://digits/{split}.csv"}
    request = ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=MLP)
    request = request.model_copy(update={"data": Data.model_validate(specs)})
    answers_alike(request, module, {"x": digits("test")[0][:7]})


def test_token_sequences_of_any_length_are_one_model(ask: Ask, claims: Claims) -> None:
    """Whole numbers in rows are tokens: batch and length stay free."""
    module = transformer(vocabulary=17, outputs=10, width=16, depth=1, heads=2, longest=64).eval()
    native.save(module, claims.root / "digits" / "words.safetensors")
    for split in ("training", "validation", "test"):
        X, y = digits(split)
        np.savez(claims.root / "digits" / f"{split}.npz", input_ids=(X * 16).astype(np.int64), label=y)
    built_by = factory(
        f"{CATALOGUE}:transformer", vocabulary="17", outputs="10", width="16", depth="1", heads="2", longest="64"
    )
    request = ask("words.safetensors", ModelFormat.SAFETENSORS, built_by=built_by)
    tokens = (digits("test")[0][:3] * 16).astype(np.int64)
    bundle = answers_alike(request, module, {"input_ids": tokens[:, :20]})
    (spec,) = bundle.manifest.signature.inputs
    assert (spec.dtype, spec.shape) == ("int64", (-1, -1))


def test_inputs_of_their_own_types_become_version_one(ask: Ask, claims: Claims) -> None:
    """Pixels of 8 bits, truth values and codes, all the way to golden requests; labels are the text of `classes`."""
    torch.manual_seed(0)
    module = Typed().eval()
    native.save(module, claims.root / "digits" / "typed.safetensors")
    inputs: dict[str, Any] = {}
    for split in ("training", "validation", "test"):
        X, y = digits(split)
        inputs = {"pixels": (X * 255).astype(np.uint8), "lit": X > 0.5, "code": (X[:, 20] * 3).astype(np.int64)}
        np.savez(claims.root / "digits" / f"{split}.npz", **inputs, label=np.array(module.classes)[y])
    request = ask("typed.safetensors", ModelFormat.SAFETENSORS, built_by=factory(f"{HERE}:Typed"))
    bundle = answers_alike(request, module, {name: values[:5] for name, values in inputs.items()})
    assert [spec.dtype for spec in bundle.manifest.signature.inputs] == ["uint8", "bool", "int64"]
    assert bundle.manifest.classes == module.classes


def test_a_network_that_embeds_needs_no_labels(ask: Ask, claims: Claims) -> None:
    """Task Embedding names the output, and rows without labels are enough."""
    module = mlp(inputs=64, outputs=16, width=16).eval()
    native.save(module, claims.root / "digits" / "net.safetensors")
    for split in ("training", "validation", "test"):
        np.savez(claims.root / "digits" / f"{split}.npz", x=digits(split)[0])
    built_by = factory(f"{CATALOGUE}:mlp", inputs="64", outputs="16", width="16")
    request = ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=built_by, task=Task.EMBEDDING)
    bundle = answers_alike(request, module, {"x": digits("test")[0][:5]})
    assert bundle.manifest.signature.outputs[0].name == "embedding"


def test_a_scripted_network_becomes_version_one(ask: Ask, claims: Claims) -> None:
    """TorchScript, trusted in words, is exported with a free batch."""
    module = taught(mlp(inputs=64, outputs=10, width=16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # users have such files, whatever is written today
        torch.jit.trace(module, torch.zeros(2, 64)).save(str(claims.root / "digits" / "net.pt"))
    answers_alike(ask("net.pt", ModelFormat.TORCHSCRIPT), module, {"x": digits("test")[0][:9]})


def test_an_exported_program_becomes_version_one(ask: Ask, claims: Claims) -> None:
    """TorchExport, trusted in words, keeps the free batch that it was exported with."""
    module = taught(mlp(inputs=64, outputs=10, width=16))
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(module, (torch.zeros(2, 64),), dynamic_shapes=({0: batch},))
    torch.export.save(program, claims.root / "digits" / "net.pt2")
    answers_alike(ask("net.pt2", ModelFormat.TORCH_EXPORT), module, {"x": digits("test")[0][:9]})


@pytest.mark.parametrize(
    "around",
    [lambda weights: weights, lambda weights: {"epoch": 3, "state_dict": weights}, lambda weights: {"model": weights}],
    ids=["weights", "checkpoint", "model"],
)
def test_weights_of_torch_save_become_version_one(ask: Ask, claims: Claims, around: Callable[[Any], Any]) -> None:
    """Alone or in a checkpoint; training starts from a safetensors file of the same weights and factory."""
    module = taught(mlp(inputs=64, outputs=10, width=16), steps=5)
    torch.save(around(module.state_dict()), claims.root / "digits" / "net.pth")
    request = ask("net.pth", ModelFormat.STATE_DICT, built_by=MLP)
    bundle = answers_alike(request, module, {"x": digits("test")[0][:33]})
    assert (bundle.native.format, bundle.native.factory) == (ModelFormat.SAFETENSORS, MLP)
    assert torch.equal(native.build(bundle.native)[1].weight, module[1].weight)


def test_a_whole_network_of_torch_save_is_not_loaded(ask: Ask, claims: Claims) -> None:
    """Its code would run; the message says what to save instead."""
    torch.save(mlp(inputs=64, outputs=10, width=16), claims.root / "digits" / "net.pth")
    error = refused(ask("net.pth", ModelFormat.STATE_DICT, built_by=MLP), claims)
    assert "would run code" in error.message
    assert "state_dict" in error.next_step


@pytest.mark.parametrize("content", [b"", b"no", pickle.dumps({"a": 1}), pickle.dumps([1, 2])])
def test_what_holds_no_weights_is_said_to_hold_none(ask: Ask, claims: Claims, content: bytes) -> None:
    """Whatever it is, there is a sentence."""
    (claims.root / "digits" / "net.pth").write_bytes(content)
    error = refused(ask("net.pth", ModelFormat.STATE_DICT, built_by=MLP), claims)
    assert error.reason is Reason.MODEL_INVALID
    assert "torch.save(network.state_dict(), PATH)" in error.next_step


@pytest.mark.parametrize("cut", [0, 4, 200, -1])
def test_truncated_weights_are_refused(ask: Ask, claims: Claims, cut: int) -> None:
    """A file that ends too early is no safetensors file, wherever it ends."""
    path = claims.root / "digits" / "net.safetensors"
    native.save(mlp(inputs=64, outputs=10, width=16), path)
    path.write_bytes(path.read_bytes()[:cut])
    error = refused(ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=MLP), claims)
    assert (error.reason, error.object) == (Reason.MODEL_INVALID, "pvc://digits/net.safetensors")
    assert "safetensors" in error.message


@pytest.mark.parametrize("header", [b"{" * 100, b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'])
@pytest.mark.parametrize("promised", [None, 1 << 62])
def test_a_hostile_header_is_refused(ask: Ask, claims: Claims, header: bytes, promised: int | None) -> None:
    """Neither a header that says it is endless, nor shapes that the file has no room for, take memory."""
    content = struct.pack("<Q", promised or len(header)) + header + b"\0" * 4
    (claims.root / "digits" / "net.safetensors").write_bytes(content)
    error = refused(ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=MLP), claims)
    assert error.reason is Reason.MODEL_INVALID


@pytest.mark.parametrize(
    "built_by,says",
    [
        (factory(f"{CATALOGUE}:mlp", inputs="63", outputs="10", width="16"), "shape"),
        (factory(f"{CATALOGUE}:mlp", inputs="64"), "outputs"),
        (factory(f"{CATALOGUE}:none"), "not there"),
        (factory("no.such.package:build"), "not there"),
        (factory("os:system", command='"true"'), "neither a class"),
        (factory(f"{HERE}:raising", inputs="64"), "KeyError"),
        (factory(f"{HERE}:exiting"), "died|SystemExit"),
        (factory(f"{HERE}:number"), "neither a class"),
    ],
)
def test_a_wrong_factory_is_named(ask: Ask, claims: Claims, built_by: Factory, says: str) -> None:
    """Whatever a factory does, the message says what, and nothing is published."""
    native.save(mlp(inputs=64, outputs=10, width=16), claims.root / "digits" / "net.safetensors")
    error = refused(ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=built_by), claims)
    assert error.reason is Reason.MODEL_INVALID
    assert any(each in error.message for each in says.split("|")), error.message


def test_rows_of_another_shape_are_told(ask: Ask, claims: Claims) -> None:
    """A network that cannot take the rows says so with torch's own words."""
    native.save(mlp(inputs=60, outputs=10, width=16), claims.root / "digits" / "net.safetensors")
    built_by = factory(f"{CATALOGUE}:mlp", inputs="60", outputs="10", width="16")
    error = refused(ask("net.safetensors", ModelFormat.SAFETENSORS, built_by=built_by), claims)
    assert error.reason is Reason.MODEL_INVALID
    assert "validation rows" in error.message


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        function, *arguments = self.call
        return function, tuple(arguments)


def poisoned(path: Path, call: Runs) -> None:
    """Plant a pickle in an exported program, where torch unpickles it."""
    module = mlp(inputs=64, outputs=10, width=16).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 64),)), path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = next(name for name in content if name.endswith("model_weights_config.json"))
    content[config] = content[config].replace(b'"use_pickle": false', b'"use_pickle": true')
    weights = [name for name in content if "/weights/weight_" in name]
    assert b'"use_pickle": true' in content[config]
    assert weights
    for name in weights:
        content[name] = pickle.dumps(call)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_planted_pickle_does_not_run_without_trust(ask: Ask, claims: Claims, tmp_path: Path) -> None:
    """Without the user's word the file is not opened; with it, the same file shows that it would have run."""
    trace = tmp_path / "trace"
    poisoned(claims.root / "digits" / "net.pt2", Runs(os.mkdir, str(trace)))
    request = ask("net.pt2", ModelFormat.TORCH_EXPORT)
    distrusted = request.model_copy(update={"model": request.model.model_copy(update={"trust": None})})
    error = refused(distrusted, claims)
    assert "runs code" in error.message
    assert not trace.exists()
    assert refused(request, claims).reason is Reason.MODEL_INVALID
    assert trace.exists()


@pytest.mark.parametrize("format_", [ModelFormat.TORCHSCRIPT, ModelFormat.TORCH_EXPORT])
def test_what_is_no_program_is_said_to_be_none(ask: Ask, claims: Claims, format_: ModelFormat) -> None:
    """A file of another kind is refused with a sentence, not a traceback."""
    (claims.root / "digits" / "net.pt").write_bytes(b"no")
    error = refused(ask("net.pt", format_), claims)
    assert error.reason is Reason.MODEL_INVALID
    assert str(format_) in error.message
