"""The image has what its techniques need, and nothing in it reports home."""

from importlib import import_module
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    "name", ["torch", "torch_pruning", "onnxscript", "openvino", "nncf", "skops", "safetensors", "transformers"]
)
def test_library_of_a_technique_is_there(name: str) -> None:
    """A technique that is offered does not fail for want of its library."""
    import_module(name)


@pytest.mark.parametrize("name", ["treelite", "xgboost", "lightgbm", "catboost"])
def test_library_of_boosted_trees_is_there(name: str) -> None:
    """Pickles of its classes open, and conversions are compared with its own answers."""
    import_module(name)


@pytest.mark.parametrize("name", ["openvino_telemetry", "wandb", "mlflow"])
def test_nothing_that_reports_home_is_there(name: str) -> None:
    """Left out of the lock on purpose."""
    assert find_spec(name) is None
