"""The models of the bench with their data, each made from what is on this machine or on PyPI, seeded.

A sentence encoder, a convolutional network, a tabular multilayer network and boosted trees: the kinds that teams serve.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from retune.api.model import Data, Model, Task
from retune.api.objectives import Objective

Array = NDArray[Any]
Json = dict[str, Any]
SEED = 11
OPSETS = {"": 17, "ai.onnx.ml": 3}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model to optimize. Files lie in the claim of its name."""

    name: str
    task: Task
    margin: Json
    """The quality limit, as an objective."""
    transformer: bool = False
    """Whether peers are told that it is one."""
    shapes: tuple[tuple[int, str], ...] = ((1, "test"),)
    """What latency is measured with: rows a request, and the data set they are taken from."""
    mark: str = ""
    """Name of the peer whose version the search must find by itself and then beat; empty where there is none."""
    tighter: Json = field(default_factory=dict)
    """The quality limit of a second search; empty where there is none."""
    make: Callable[[Path], None] = field(repr=False)
    """Writes model.onnx, training.npz, validation.npz, test.npz into a folder."""

    @property
    def model(self) -> Model:
        """The model as a spec names it."""
        return Model(uri=f"pvc://{self.name}/model.onnx", task=self.task)

    @property
    def data(self) -> Data:
        """The data sets as a spec names them."""
        return Data.model_validate(
            {split: {"uri": f"pvc://{self.name}/{split}.npz"} for split in ("training", "validation", "test")}
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Quality as a limit, then p95 latency, then size."""
        ranked: list[Mapping[str, str]] = [{"metric": "latency_p95_ms", "tolerance": "0.05"}, {"metric": "size_bytes"}]
        return tuple(Objective.model_validate(each) for each in (self.margin, *ranked))


def _accuracy(margin: str) -> Json:
    return {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": margin}}


def _agreement(least: str) -> Json:
    return {"metric": "neighbor_agreement", "role": "Constrain", "goal": {"type": "Threshold", "value": least}}


def _minilm(folder: Path) -> None:
    """MiniLM as it comes from PyPI; rows of 16 tokens to search with, and rows of 64 to measure with, too."""
    from tools.minilm.files import ensure

    found = ensure()
    shutil.copyfile(found.model, folder / "model.onnx")
    for split in ("training", "validation", "test"):
        shutil.copyfile(found.data(split, length=16), folder / f"{split}.npz")
    shutil.copyfile(found.data("test", length=64), folder / "long.npz")


def _digits_net(folder: Path) -> None:
    """Two convolutions and a dense layer on the scanned digits, trained with torch."""
    import torch
    from torch import nn

    images, labels = load_digits(return_X_y=True)
    splits = _split((images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64))
    _save(folder, splits)
    torch.manual_seed(SEED)
    net = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    inputs, targets = (torch.from_numpy(each) for each in splits["training"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(30):
        for batch in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    _export(net.eval(), inputs[:2], folder / "model.onnx")


def _export(net: Any, example: Any, target: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that every peer reads is called legacy
        torch.onnx.export(
            net,
            (example,),
            str(target),
            input_names=["x"],
            output_names=["scores"],
            opset_version=17,
            dynamo=False,
            dynamic_axes={"x": {0: "N"}, "scores": {0: "N"}},
        )


def _tabular_net(folder: Path) -> None:
    """A wide multilayer network on the breast cancer table, from scikit-learn."""
    inputs, labels = load_breast_cancer(return_X_y=True)
    inputs = StandardScaler().fit_transform(inputs).astype(np.float32)
    splits = _split(inputs, labels.astype(np.int64))
    _save(folder, splits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net = MLPClassifier((512, 512), max_iter=60, random_state=SEED).fit(*splits["training"])
    _convert(net, splits["training"][0][:1], folder / "model.onnx", scores_only=True)


def _boosted_trees(folder: Path) -> None:
    """Boosted trees on the digits as a table: 60 rounds of 10 trees."""
    inputs, labels = load_digits(return_X_y=True)
    splits = _split((inputs / 16).astype(np.float32), labels.astype(np.int64))
    _save(folder, splits)
    trees = HistGradientBoostingClassifier(max_iter=60, random_state=SEED).fit(*splits["training"])
    _convert(trees, splits["training"][0][:1], folder / "model.onnx")


def _convert(estimator: Any, example: Array, target: Path, *, scores_only: bool = False) -> None:
    from skl2onnx import to_onnx

    options = {"zipmap": False} | ({"output_class_labels": False} if scores_only else {})
    target.write_bytes(to_onnx(estimator, example, options=options, target_opset=OPSETS).SerializeToString())


def _split(inputs: Array, labels: Array) -> dict[str, tuple[Array, Array]]:
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=SEED)
    train, validation = train_test_split(rest, test_size=0.3, stratify=labels[rest], random_state=SEED)
    return {
        name: (inputs[rows], labels[rows])
        for name, rows in (("training", train), ("validation", validation), ("test", test))
    }


def _save(folder: Path, splits: Mapping[str, tuple[Array, Array]]) -> None:
    for name, (inputs, labels) in splits.items():
        np.savez(folder / f"{name}.npz", x=inputs, label=labels)


SUBJECTS = (
    Subject(
        name="minilm",
        task=Task.EMBEDDING,
        transformer=True,
        make=_minilm,
        shapes=((1, "test"), (16, "long")),
        mark="NNCF + OpenVINO, int8",
        margin=_agreement("0.9"),
        tighter=_agreement("0.95"),
    ),
    Subject(name="digits-net", task=Task.CLASSIFICATION, make=_digits_net, margin=_accuracy("0.02")),
    Subject(name="tabular-net", task=Task.CLASSIFICATION, make=_tabular_net, margin=_accuracy("0.03")),
    Subject(name="boosted-trees", task=Task.CLASSIFICATION, make=_boosted_trees, margin=_accuracy("0.02")),
)
