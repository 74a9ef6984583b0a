"""Small real tasks and networks that training tests start from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.native import Native
from retune.api.model import ModelFormat
from retune.api.own_code import Factory, FactoryArgument

CATALOGUE = "optimizer_jobs.nets.catalogue"


@dataclass(frozen=True)
class Split:
    """Rows to learn from and rows to judge by."""

    training: Rows
    validation: Rows


def digits(*, rows: int = 600) -> Split:
    """Handwritten digits as 64 numbers from 0 to 1, ten classes."""
    images, labels = load_digits(return_X_y=True)
    return _split((images / 16).astype(np.float32), labels, rows)


def cancer() -> Split:
    """Tumours as 30 standardized measures, two classes by name."""
    data = load_breast_cancer()
    measures = (data.data - data.data.mean(0)) / data.data.std(0)
    return _split(measures.astype(np.float32), data.target_names[data.target].astype(str), 400)


def diabetes() -> Split:
    """Patients as ten numbers, and how far their disease went after a year (25 to 346)."""
    measures, progress = load_diabetes(return_X_y=True)
    return _split((measures * 20).astype(np.float32), progress.astype(np.float32), 300)


def factory(entry_point: str, **arguments: str) -> Factory:
    """A factory as a spec names it; arguments are JSON."""
    given = tuple(FactoryArgument(name=name, value=value) for name, value in arguments.items())
    return Factory(entry_point=entry_point, arguments=given)


def digits_mlp(folder: Path, *, width: int = 32) -> Native:
    """Weights of an untrained perceptron for digits, and the factory they belong to."""
    import torch

    from optimizer_jobs.nets import native
    from optimizer_jobs.nets.catalogue import mlp

    torch.manual_seed(0)
    native.save(mlp(inputs=64, outputs=10, width=width, depth=1), folder / native.FILE)
    built_by = factory(f"{CATALOGUE}:mlp", inputs="64", outputs="10", width=str(width), depth="1")
    return Native(folder / native.FILE, ModelFormat.SAFETENSORS, built_by)


def _split(inputs: np.ndarray, labels: np.ndarray, rows: int) -> Split:
    order = np.random.default_rng(0).permutation(len(labels))
    every = Rows(inputs={"x": inputs}, labels=labels, digest="")
    return Split(every.take(order[:rows]), every.take(order[rows : rows + 400]))
