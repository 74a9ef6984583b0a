"""Recalibration of networks as torch exports them: logits, pairs of probabilities, and a single one a row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from optimizer_jobs.signature import Scale
from tests.unit.jobs.shifted_for_tests import COLUMNS, answers, check, data, delivered

pytestmark = pytest.mark.torch


class Network(torch.nn.Module):  # type: ignore[misc, unused-ignore] # without torch, it is anything
    """A perceptron that ends as asked."""

    def __init__(self, width: int, end: str) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(COLUMNS, 32), torch.nn.ReLU(), torch.nn.Linear(32, max(1, width))
        )
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores (N, width), or one number a row."""
        logits: torch.Tensor = self.layers(x)
        if self.end == "softmax":
            return torch.softmax(logits, dim=1)
        if self.end.startswith("sigmoid"):
            logits = torch.sigmoid(logits)
        return logits.squeeze(1) if self.end.endswith("line") else logits


def trained(width: int, end: str, *, classes: int) -> Network:
    """Return a network that was trained for a while on equally frequent classes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Network(width, end)
    X, y = (torch.as_tensor(part) for part in data("training", classes=classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(150):
        logits = network.layers(X)
        if width == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.float())
        else:
            loss = torch.nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return network


def exported(network: Network, path: Path, **how: Any) -> Path:
    """Write a network with any number of rows, as torch does."""
    sample = torch.as_tensor(data("training")[0][:4])
    free = torch.export.Dim("rows")
    rows = {"dynamic_shapes": {"x": {0: free}}} if how["dynamo"] else {"dynamic_axes": {"x": [0], "scores": [0]}}
    torch.onnx.export(network, (sample,), str(path), input_names=["x"], output_names=["scores"], **rows, **how)
    return path


FORMS = [
    (2, "logits", 2),
    (2, "softmax", 2),
    (1, "sigmoid", 2),
    (1, "sigmoid line", 2),
    (1, "logits", 2),
    (3, "logits", 3),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("opset", "dynamo"), [(13, False), (17, False), (18, True), (21, True)])
@pytest.mark.parametrize(("width", "end", "classes"), FORMS, ids=str)
def test_a_network_of_torch_is_corrected(
    width: int,
    end: str,
    classes: int,
    opset: int,
    dynamo: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """By both exporters of torch, in each form of scores; labels follow from the scores there."""
    network = trained(width, end, classes=classes)
    given = delivered(exported(network, tmp_path / "m.onnx", opset_version=opset, dynamo=dynamo), classes=classes)
    assert given.signature.score_scale is (Scale.LOGITS if end == "logits" else Scale.PROBABILITIES)
    for method in ("Both", "PriorShift", *(["Isotonic"] if classes == 2 else [])):
        after = check(given, method, tmp_path)
        before = answers(given, given.model, given.test)
        right = [np.mean(each.labels == given.test.answers) for each in (before, after)]
        assert right[1] > right[0]
