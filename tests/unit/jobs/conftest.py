"""Real data and real models for the Jobs, made once a session, and claims to put them in, made once a test."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from retune.api.model import Data, Dataset
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs.captured_for_tests import Shop

SPLITS = ("training", "validation", "test")
HEAVY = {
    "check_columns",
    "check_estimate",
    "check_quality",
    "check_sets",
    "check_watched",
    "compress_conformance",
    "compress_tables",
    "compress_trees",
    "compress_trees_fitted",
    "data_memory",
    "estimators_convert",
    "estimators_faithful",
    "judge_gather",
    "judge_worth",
    "measure_capacity",
    "measure_chance",
    "measure_custom",
    "measure_intervals",
    "measure_latency",
    "measure_metrics",
    "measure_multi_label",
    "measure_quality",
    "measure_stats",
    "missing_values",
    "production_windows",
    "recalibration",
    "recalibration_files",
    "report",
    "sandbox",
    "search_prospects",
    "search_samplers",
    "search_space",
    "tune_table_students",
}
"""Modules of tests that mostly fit, convert and measure: `make test-fast` leaves them out."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of heavy modules as slow."""
    if item.path.stem.removeprefix("test_") in HEAVY:
        item.add_marker(pytest.mark.slow)


@dataclass(frozen=True)
class Claims:
    """Claims as folders of this machine, as outside a cluster."""

    root: Path

    def path(self, uri: str) -> Path:
        """Return the local path of a pvc:// URI."""
        return self.root / uri.removeprefix("pvc://")


@pytest.fixture(scope="session")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mlp.onnx, sklearn.onnx, conv.onnx and the three splits of the digits as NPZ."""
    folder = tmp_path_factory.mktemp("delivered")
    network = models.fit_mlp()
    models.save_mlp(folder / "mlp.onnx", network)
    models.save_sklearn(folder / "sklearn.onnx", network)
    models.save_conv(folder / "conv.onnx")
    models.save_digits(folder)
    return folder


@pytest.fixture
def claims(tmp_path: Path, delivered: Path, monkeypatch: pytest.MonkeyPatch) -> Claims:
    """Claim `digits` with what was delivered, and the empty claim `retune-artifacts`."""
    root = tmp_path / "claims"
    shutil.copytree(delivered, root / "digits")
    (root / "retune-artifacts").mkdir()
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(root))
    return Claims(root)


@pytest.fixture
def store(claims: Claims) -> str:
    """URI of an artefact store that does not exist yet, in a claim that does."""
    return f"pvc://{(claims.root / 'retune-artifacts').name}/digits"


@pytest.fixture
def data(claims: Claims) -> Data:
    """The three splits of the digits as a spec names them."""
    return Data.model_validate(
        {path.stem: {"uri": f"pvc://digits/{path.name}"} for path in claims.path("pvc://digits").glob("*.npz")}
    )


@pytest.fixture(scope="session")
def splits(delivered: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """The rows of the three splits, as every test model takes them."""
    signature = check_onnx(delivered / "mlp.onnx")
    scratch = tmp_path_factory.mktemp("scratch")
    specs = {split: Dataset.model_construct(uri=f"file://{delivered}/{split}.npz") for split in SPLITS}
    return {split: read_dataset(spec, signature, into=scratch / split) for split, spec in specs.items()}


@pytest.fixture
def shop(claims: Claims, delivered: Path) -> Shop:
    """A server of mlp.onnx that nobody asked yet, with claim `shop` for what it captures."""
    return Shop(claims.root / "shop", open_model(delivered / "mlp.onnx", EngineOptions()), *models.digits("test"))


@pytest.fixture
def make(delivered: Path, splits: dict[str, Rows], tmp_path: Path) -> Callable[..., Bundle]:
    """Make a bundle of a delivered model, with any part replaced."""

    def make_it(folder: str = "bundle", *, model: Path = delivered / "mlp.onnx", **parts: Any) -> Bundle:
        engine = parts.get("engine", EngineOptions())
        defaults = {
            "engine": engine,
            "signature": check_onnx(model),
            "techniques": (),
            "lineage": Lineage(resource="ml/digits", original_model=file_digest(model)),
            "golden": record(open_model(model, engine), splits["validation"]),
        }
        return make_bundle(tmp_path / folder, model=model, **(defaults | parts))

    return make_it
