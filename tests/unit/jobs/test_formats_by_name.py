"""A file whose name shows another format than the spec says is refused with that format, and no other is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened, fetch_model, open_delivered
from retune.api.model import Dataset, Model, ModelFormat
from retune.contract.file_formats import EXTENSIONS, UNCERTAIN, other_format
from tests.unit.jobs.conftest import Claims

BOOSTER = b'{"learner":{"attributes":{},"feature_names":[]'

Refused = Callable[..., JobError]


@pytest.fixture
def refused(claims: Claims, tmp_path: Path) -> Refused:
    """Deliver a file that cannot be opened, and return why."""

    def refusal(name: str, content: bytes, **fields: object) -> JobError:
        (claims.root / "digits" / name).write_bytes(content)
        model = Model.model_validate({"uri": f"pvc://digits/{name}", **fields})
        with pytest.raises(JobError) as caught:
            opened(model, tmp_path)
        return caught.value

    return refusal


def opened(model: Model, scratch: Path) -> Opened:
    """Fetch and open a model as the baseline does."""
    rows = Dataset(uri="pvc://digits/validation.npz")
    return open_delivered(model, fetch_model(model, scratch / "model"), rows, scratch=scratch / "scratch")


@pytest.mark.parametrize(
    ("name", "content", "step"),
    [
        ("m.ubj", b"{L", "Set model.format: XGBoost."),
        ("m.json", BOOSTER, "Set model.format: XGBoost."),
        ("m.txt", b"tree\nversion=v4\n", "Set model.format: LightGBM."),
        ("m.cbm", b"CBM1", "Set model.format: CatBoost."),
        ("m.skops", b"PK", "Set model.format: Skops."),
        ("m.safetensors", b"0", "Set model.format: SafeTensors and model.factory."),
        ("m.pkl", b"\x80\4.", "Set model.format: Pickle, and model.trust: RunsCodeFromFile if you trust its author."),
    ],
)
def test_a_spec_without_a_format_is_told_which_the_name_shows(
    refused: Refused, name: str, content: bytes, step: str
) -> None:
    """Not that it is no ONNX file, which its owner knows."""
    error = refused(name, content)
    assert error.next_step == step
    assert "model.format is ONNX where a spec names none, and the name of the file shows" in error.message


def test_another_wrong_format_is_told_too(refused: Refused) -> None:
    """With what its own reader found wrong."""
    error = refused("m.ubj", BOOSTER, format="LightGBM")
    assert error.next_step == "Set model.format: XGBoost."
    assert "model.format is LightGBM, and the name of the file shows XGBoost (" in error.message


@pytest.mark.parametrize("name", ["m.onnx", "m.bin", "m.json", "model"])
def test_a_name_that_shows_no_other_format_changes_nothing(refused: Refused, name: str) -> None:
    """A broken ONNX file stays one."""
    assert "this is not an ONNX file" in refused(name, b"no model").message


def test_names_of_files_that_torch_writes_fit_all_its_formats(tmp_path: Path) -> None:
    """Weights, scripts and programs have one extension, as pickles of joblib and of pickle have."""
    for suffix in (".pt", ".pth"):
        for format_ in (ModelFormat.TORCHSCRIPT, ModelFormat.STATE_DICT, ModelFormat.TORCH_EXPORT):
            assert other_format(format_, name=f"net{suffix}", file=tmp_path) is None
    assert other_format(ModelFormat.JOBLIB, name="m.pkl", file=tmp_path) is None
    assert not set(EXTENSIONS) & set(UNCERTAIN)
