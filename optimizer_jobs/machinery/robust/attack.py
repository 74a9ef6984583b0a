"""Rows that are changed to deceive one model, for metric robust_accuracy.

White-box by gradients (PGD) where the files can be differentiated; otherwise corners of the allowed box are tried,
which finds fewer weaknesses. A number from the one is never compared with a number from the other: models that are
compared are all put to the one attack that fits all of them.
"""

from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from optimizer_jobs.data.datasets import Array, Rows
from optimizer_jobs.measure.quality import Floats, correct, predict
from optimizer_jobs.models.engine import Session
from optimizer_jobs.technique import Params
from retune.api.model import Task
from retune.api.techniques import Adversarial

WHITE_BOX, BLACK_BOX = "PGD", "random corners"
CORNERS = 40
"""Corners of the box that are tried a row, where there is no gradient."""
_BATCH = 256


def method_for(models: Iterable[Path]) -> str:
    """Return the strongest attack that every one of these models can be put to."""
    return WHITE_BOX if all(map(_differentiable, models)) else BLACK_BOX


def attacked(
    model: Path,
    session: Session,
    rows: Rows,
    *,
    method: str,
    settings: Adversarial,
    classes: tuple[int | str, ...],
    seed: int,
) -> Rows:
    """Return the rows after an attack on the model in the file, which `session` has open.

    A row that the attack cannot turn is returned changed all the same; labels stay.
    """
    if method == WHITE_BOX:
        return _white_box(model, rows, settings=settings, classes=classes, seed=seed)
    return _black_box(session, rows, settings=settings, classes=classes, seed=seed)


def withstood(
    model: Path,
    session: Session,
    rows: Rows,
    *,
    method: str,
    settings: Adversarial,
    classes: tuple[int | str, ...],
    seed: int,
    batch: int = _BATCH,
) -> Floats:
    """Return (N,) 1 for each row that is still answered right under attack: what robust_accuracy is the mean of."""
    changed = attacked(model, session, rows, method=method, settings=settings, classes=classes, seed=seed)
    return correct(predict(session, changed, batch=batch, classes=classes or None), rows).astype(np.float64)


def _differentiable(model: Path) -> bool:
    if find_spec("torch") is None:
        return False
    from optimizer_jobs.nets.conversion.importer import not_importable

    return not_importable(onnx.load(model, load_external_data=False)) is None


def _white_box(model: Path, rows: Rows, *, settings: Adversarial, classes: tuple[int | str, ...], seed: int) -> Rows:
    import torch

    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning.attack import Attack
    from optimizer_jobs.nets.learning.rows import samples

    module = import_module(model).eval()
    given = samples(rows, task=Task.CLASSIFICATION, classes=classes)
    params: Params = {"method": "PGD", "epsilon": float(settings.epsilon), "steps": settings.steps}
    attack = Attack.of(params, given.inputs)
    generator = torch.Generator().manual_seed(seed)
    if given.targets is None:
        raise ValueError("an attack needs labels")
    pieces = [
        attack(module, piece.inputs, piece.targets, generator)[0]
        for piece in (given.take(torch.arange(at, min(at + _BATCH, len(given)))) for at in range(0, len(given), _BATCH))
        if piece.targets is not None
    ]
    changed = {
        name: torch.cat(parts).numpy() for name, parts in zip(rows.inputs, zip(*pieces, strict=True), strict=True)
    }
    return replace(rows, inputs=changed)


def _black_box(
    session: Session, rows: Rows, *, settings: Adversarial, classes: tuple[int | str, ...], seed: int
) -> Rows:
    """Return for each row the first corner at which the model errs, else the last one tried."""
    generator = np.random.default_rng(seed)
    bounds = {name: _bound(values, float(settings.epsilon)) for name, values in rows.inputs.items()}
    found, holds = dict(rows.inputs), np.ones(len(rows), dtype=bool)
    for _ in range(CORNERS):
        tried = {
            name: np.where(
                _column(holds, values), values + bounds[name] * _signs(generator, values), found[name]
            ).astype(values.dtype)
            for name, values in rows.inputs.items()
        }
        found = tried
        holds &= correct(predict(session, replace(rows, inputs=tried), classes=classes or None), rows)
    return replace(rows, inputs=found)


def _bound(values: Array, epsilon: float) -> float:
    return epsilon * float(values.max() - values.min()) if values.dtype.kind == "f" else 0.0


def _signs(generator: np.random.Generator, values: Array) -> Array:
    return generator.choice([-1.0, 1.0], size=values.shape) if values.dtype.kind == "f" else np.zeros(values.shape)


def _column(mask: Array, values: Array) -> Array:
    """Return a mask over rows in a shape that spreads over all numbers of a row."""
    return mask.reshape(-1, *[1] * (values.ndim - 1))
