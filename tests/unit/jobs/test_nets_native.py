"""Weights and their factory: read strictly, written the same again, and refused with a sentence that helps."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from optimizer_jobs.errors import JobError  # noqa: E402
from optimizer_jobs.models.native import Native  # noqa: E402
from optimizer_jobs.nets import factory, native  # noqa: E402
from retune.api.model import ModelFormat  # noqa: E402
from retune.api.own_code import Factory  # noqa: E402
from retune.contract.results import Reason  # noqa: E402
from tests.unit.jobs.networks_for_tests import CATALOGUE, digits_mlp  # noqa: E402
from tests.unit.jobs.networks_for_tests import factory as named  # noqa: E402

pytestmark = pytest.mark.torch

DIGITS = {"inputs": "64", "outputs": "10", "depth": "1"}
BILINEAR = {"in1_features": "3", "in2_features": "3", "out_features": "2"}


def _refused(given: Native) -> JobError:
    with pytest.raises(JobError) as refused:
        native.build(given)
    assert refused.value.reason is Reason.MODEL_INVALID
    return refused.value


def test_a_network_is_built_with_its_weights(tmp_path: Path) -> None:
    """And saved again as the same bytes."""
    given = digits_mlp(tmp_path)
    module = native.build(given)
    assert not module.training
    native.save(module, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == given.path.read_bytes()


def test_other_arguments_keep_the_weights_only_where_they_fit(tmp_path: Path) -> None:
    """A rate of dropout changes no shape; a width does, and then the network starts anew."""
    given = digits_mlp(tmp_path)
    same = native.build(given, overrides={"dropout": 0.0})
    assert native.weights_fit(same, given)
    assert torch.equal(same[1].weight, native.build(given)[1].weight)
    other = native.build(given, overrides={"width": 8})
    assert not native.weights_fit(other, given)
    assert other[1].weight.shape == (8, 64)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.module."])
def test_half_precision_and_prefixes_of_wrappers_are_undone(tmp_path: Path, kind: Any, prefix: str) -> None:
    """The network computes in 32-bit floats, with the weights by their own names."""
    given = digits_mlp(tmp_path)
    weights = native.build(given).state_dict()
    save_file({f"{prefix}{name}": value.to(kind) for name, value in weights.items()}, given.path)
    module = native.build(given)
    for name, value in module.state_dict().items():
        assert value.dtype is torch.float32
        assert torch.equal(value, weights[name].to(kind).float()), name


def test_a_prefix_that_makes_no_name_fit_is_left(tmp_path: Path) -> None:
    """The message speaks of the names that are in the file, and names what they are nearest to."""
    given = digits_mlp(tmp_path)
    weights = native.build(given).state_dict() | {"4.bias": torch.zeros(3)}
    save_file({f"module.{name}": value for name, value in weights.items()}, given.path)
    message = _refused(given).message
    assert "weight 1.weight [32, 64] of the network is missing in the file (the nearest is module.1.weight)" in message


@pytest.mark.parametrize(
    "change, says",
    [
        ({"3.weight": None}, r"weight 3.weight \[10, 32\] of the network is missing in the file"),
        ({"head.bias": torch.zeros(3)}, "weight head.bias is not in the network"),
        ({"3.bias": torch.zeros(9)}, r"weight 3.bias has shape \[9\] in the file and \[10\] in the network"),
        ({"3.bias": torch.zeros(10).double()}, "weight 3.bias has type F64 in the file and F32 in the network"),
    ],
    ids=["missing", "unexpected", "shape", "type"],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """With what to do: nothing is loaded in part."""
    given = digits_mlp(tmp_path)
    weights = native.build(given).state_dict() | change
    save_file({name: value for name, value in weights.items() if value is not None}, given.path)
    error = _refused(given)
    assert error.object == native.FILE
    assert re.search(says, error.message)
    assert "state_dict" in error.next_step


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    """Broken bytes are a sentence, not a traceback."""
    given = digits_mlp(tmp_path)
    given.path.write_bytes(b"PK\x03\x04" + bytes(64))
    assert "no safetensors file" in _refused(given).message


def test_a_file_of_weights_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is read."""
    given = digits_mlp(tmp_path)
    monkeypatch.setattr(native, "WEIGHTS_LIMIT_BYTES", 100)
    with pytest.raises(JobError) as refused:
        native.build(given)
    assert refused.value.reason is Reason.MODEL_TOO_LARGE


def test_tied_weights_are_saved_once_and_read_into_both(tmp_path: Path) -> None:
    """As safetensors wants them: it refuses two names for one piece of memory."""
    given = Native(tmp_path / native.FILE, ModelFormat.SAFETENSORS, named("torch.nn:Bilinear", **BILINEAR))
    module = factory.network(native.factory_of(given))
    module.again = module.weight
    native.save(module, given.path)
    with safe_open(given.path, framework="pt") as file:
        assert sorted(file.keys()) == ["bias", "weight"]
    assert torch.equal(native.build(given).weight, module.weight)


@pytest.mark.parametrize(
    "given, says",
    [
        (named("no_such_package:build"), "it is not there"),
        (named(f"{CATALOGUE}:nothing"), "it is not there"),
        (named("os:system", command='"touch PWNED"'), "neither a class derived from torch.nn.Module nor a function"),
        (named("subprocess:Popen", args='"ls"'), "neither a class derived from torch.nn.Module nor a function"),
        (named(f"{CATALOGUE}:mlp", **DIGITS, widht="3"), "unexpected keyword argument 'widht'"),
        (named(f"{CATALOGUE}:mlp", **DIGITS, width="[3]"), r"argument width is [3], not a number"),
        (named(f"{CATALOGUE}:mlp", **DIGITS, width="-3"), "with (inputs=64, outputs=10, depth=1, width=-3) it raises"),
    ],
    ids=["package", "name", "function", "class", "argument", "list", "value"],
)
def test_a_factory_that_cannot_be_called_says_why(given: Factory, says: str, tmp_path: Path) -> None:
    """And nothing that does not promise a network is ever called."""
    error = _refused(Native(digits_mlp(tmp_path).path, ModelFormat.SAFETENSORS, given))
    assert error.object == f"factory {given.entry_point}"
    assert says in error.message
    assert not Path("PWNED").exists()


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the owner's own code, with a module `shopnets`."""
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "shopnets.py").write_text(
        "import os\nfrom torch import nn\n\n"
        "def build(width=4):\n    return nn.Linear(3, width)\n\n"
        "def number() -> int:\n    return 3\n\n"
        "remove = os.remove\n"
    )
    (folder / "needy.py").write_text("import no_such_package.nets\n")
    monkeypatch.setenv("RETUNE_CODE", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def test_a_function_in_the_owners_code_needs_no_annotation(own_code: Path) -> None:
    """The folder was named by whoever trusts it; it is looked into after everything that is installed."""
    assert factory.network(named("shopnets:build", width="5")).weight.shape == (5, 3)
    assert sys.path[-1] == str(own_code)


@pytest.mark.parametrize(
    "entry, says, next_step",
    [
        ("shopnets:number", "neither a class", "-> torch.nn.Module"),
        ("shopnets:remove", "neither a class", "-> torch.nn.Module"),
        ("shop.nets:build", "it is not there", "--code"),
        ("needy:build", "needs the Python module no_such_package", "pip install no_such_package"),
    ],
)
@pytest.mark.usefixtures("own_code")
def test_what_is_wrong_with_the_owners_code_has_a_next_step(entry: str, says: str, next_step: str) -> None:
    """Functions that say that they build something else are not called there either, nor those of other modules."""
    with pytest.raises(JobError) as caught:
        factory.network(named(entry))
    assert says in caught.value.message
    assert next_step in caught.value.next_step


def test_arguments_are_json_or_text() -> None:
    """As the spec says: 64, 0.5, true or relu."""
    given = named(f"{CATALOGUE}:mlp", inputs="64", dropout="0.5", flag="true", activation="relu", odd="NaN")
    assert factory.arguments_of(given) == {
        "inputs": 64,
        "dropout": 0.5,
        "flag": True,
        "activation": "relu",
        "odd": "NaN",
    }


def test_what_a_factory_takes_is_known_with_its_values() -> None:
    """Given ones win over those of the signature."""
    assert factory.usual(named(f"{CATALOGUE}:mlp", inputs="64", outputs="10", depth="1")) == {
        "inputs": 64,
        "outputs": 10,
        "width": 128,
        "depth": 1,
        "dropout": 0.0,
        "activation": "relu",
    }
