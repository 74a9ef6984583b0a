"""Rows that are changed to deceive one model, for metric robust_accuracy.

A model whose file can be differentiated is attacked by gradients (PGD). For others, random corners of the allowed box
are tried, which finds fewer weaknesses. Numbers of both attacks are never compared: models that are compared all face
the one attack that is possible on all of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from optimizer_jobs.data.datasets import Array, Rows
from optimizer_jobs.measure.answers import Floats, Predictions, correct, predict
from optimizer_jobs.models.engine import Session
from optimizer_jobs.signature import Reading
from optimizer_jobs.technique import Params
from retune.api.model import Task
from retune.api.techniques import Adversarial

WHITE_BOX, BLACK_BOX = "PGD", "random corners"
CORNERS = 40
"""Corners of the box that are tried for each row, where there is no gradient."""
_BATCH = 256


def method_for(models: Iterable[Path]) -> str:
    """Return the strongest attack that is possible on all of these models."""
    return WHITE_BOX if all(map(_differentiable, models)) else BLACK_BOX


def withstood(  # noqa: PLR0913 - all that an attack depends on
    model: Path,
    session: Session,
    rows: Rows,
    *,
    method: str,
    settings: Adversarial,
    classes: tuple[int | str, ...],
    seed: int,
    reading: Reading | None = None,
    batch: int = _BATCH,
) -> Floats:
    """Return, for each row, whether it is still answered right under attack. The mean is robust_accuracy.

    Args:
        model: The ONNX file.
        session: The same model, opened.
        rows: Labelled rows.
        method: WHITE_BOX or BLACK_BOX.
        settings: How far inputs may be changed, and in how many steps.
        classes: Label of each score column; empty means that the column's number is the label.
        seed: Seed of everything random.
        reading: Which outputs are the answer.
        batch: Rows in a call.

    Returns:
        1 for each row that is answered right, else 0, (N,).
    """
    if method == WHITE_BOX:
        changed = _white_box(model, session, rows, settings=settings, classes=classes, seed=seed)
    else:
        answers = partial(predict, session, classes=classes or None, reading=reading)
        changed = _black_box(answers, rows, settings=settings, seed=seed)
    predictions = predict(session, changed, batch=batch, classes=classes or None, reading=reading)
    return correct(predictions, rows).astype(np.float64)


def _differentiable(model: Path) -> bool:
    if find_spec("torch") is None:
        return False
    from optimizer_jobs.nets.conversion.importer import not_importable

    return not_importable(onnx.load(model, load_external_data=False)) is None


def _white_box(
    model: Path, session: Session, rows: Rows, *, settings: Adversarial, classes: tuple[int | str, ...], seed: int
) -> Rows:
    """Return the rows after PGD. Labels stay, and rows that do not deceive the model are changed as well."""
    import torch

    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning.attack import Attack
    from optimizer_jobs.nets.learning.rows import samples

    module = import_module(model).eval()
    labelled = samples(rows, task=Task.CLASSIFICATION, classes=classes)
    params: Params = {"method": "PGD", "epsilon": float(settings.epsilon), "steps": settings.steps}
    attack = Attack.of(params, labelled.inputs, score=session.signature.score_place)
    generator = torch.Generator().manual_seed(seed)
    if labelled.targets is None:
        raise ValueError("an attack needs labels")
    batches = (
        labelled.take(torch.arange(start, min(start + _BATCH, len(labelled))))
        for start in range(0, len(labelled), _BATCH)
    )
    attacked_batches = [
        attack(module, batch.inputs, batch.targets, generator)[0] for batch in batches if batch.targets is not None
    ]
    columns = zip(*attacked_batches, strict=True)
    changed = {name: torch.cat(parts).numpy() for name, parts in zip(rows.inputs, columns, strict=True)}
    return replace(rows, inputs=changed)


def _black_box(answers: Callable[[Rows], Predictions], rows: Rows, *, settings: Adversarial, seed: int) -> Rows:
    """Return for each row the first corner at which the model errs, else the last one that was tried."""
    generator, changed = np.random.default_rng(seed), rows
    bounds = {name: _bound(values, float(settings.epsilon)) for name, values in rows.inputs.items()}
    holds = np.ones(len(rows), dtype=bool)
    for _ in range(CORNERS):
        inputs = {
            name: _moved(values, bounds[name], generator, where=holds, others=changed.inputs[name])
            for name, values in rows.inputs.items()
        }
        changed = replace(rows, inputs=inputs)
        holds &= correct(answers(changed), rows)
    return changed


def _moved(values: Array, bound: float, generator: np.random.Generator, *, where: Array, others: Array) -> Array:
    """Return a random corner of the box around the values of each row in `where`, and `others` for the other rows.

    Args:
        values: Values of one input, (N, ...).
        bound: Largest change of a number.
        generator: Source of the corners.
        where: Mask over rows, (N,).
        others: Values of the rows that are not moved, (N, ...).
    """
    corners = values + bound * _signs(generator, values)
    return np.where(_column(where, values), corners, others).astype(values.dtype)


def _bound(values: Array, epsilon: float) -> float:
    return epsilon * float(values.max() - values.min()) if values.dtype.kind == "f" else 0.0


def _signs(generator: np.random.Generator, values: Array) -> Array:
    return generator.choice([-1.0, 1.0], size=values.shape) if values.dtype.kind == "f" else np.zeros(values.shape)


def _column(mask: Array, values: Array) -> Array:
    """Return a mask over rows, (N,), in the shape (N, 1, ...) that spreads over all numbers of a row."""
    return mask.reshape(-1, *[1] * (values.ndim - 1))
