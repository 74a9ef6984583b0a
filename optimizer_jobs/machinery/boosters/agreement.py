"""Compare an ONNX file with what its trees were read from, on rows where readers of trees usually go wrong.

The library itself answers where it is installed. Otherwise treelite does, which has a predictor of its own.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from optimizer_jobs.machinery.boosters.forest import Answer, Array, Booster, BoosterError
from optimizer_jobs.machinery.boosters.write import MATRIX, PROBABILITIES, VALUE
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model

TOLERANCE = 1e-5
"""How far answers may differ, as a share of the largest answer: single precision, and sums in another order."""

_UNKNOWN = "\0unknown"
_MISSING_SHARE = 0.2
_ZERO = 1e-34
"""Numbers up to here are not tried beside 0, because treelite and LightGBM disagree on the smallest of them."""

Native = Callable[[Array], Array | None]
"""Answers (N, outputs) of a library to rows (N, F) in which categories are codes; None when it takes no such rows."""


def check(booster: Booster, model: Path, rows: Mapping[str, Array], *, native: Native) -> None:
    """Compare the answers to the rows, and to the same rows with missing, borderline and unknown values.

    Args:
        booster: The trees as they were read.
        model: The ONNX file that was written.
        rows: Values by input name.
        native: What the library answers.

    Raises:
        BoosterError: Some answers differ, with numbers.
    """
    session = open_model(model, EngineOptions(spinning=False))
    name = PROBABILITIES if booster.forest.classes else VALUE
    for kind, matrix in _variants(booster, _coded(booster, rows)).items():
        theirs = native(_codes(booster, matrix))
        if theirs is None:
            continue
        answers, expected = session.run(_inputs(booster, matrix))[name], _shaped(theirs, booster)
        limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        differs = ~(np.abs(answers - expected) <= limit).all(axis=1)
        if differs.any():
            worst = float(np.nanmax(np.abs(answers - expected)))
            raise BoosterError(
                f"as ONNX it answers {differs.sum()} of {len(matrix)} {kind} otherwise than {booster.library}, "
                f"by up to {worst:.2g}"
            )


def _variants(booster: Booster, rows: Array) -> dict[str, Array]:
    """Return rows (N, F) by what they are."""
    random = np.random.default_rng(0)
    missing = np.where(random.random(rows.shape) < _MISSING_SHARE, np.float32(np.nan), rows)
    borderline, unknown = rows.copy(), rows.copy()
    tests = [(tree, node) for tree in booster.forest.trees for node in np.flatnonzero(~tree.leaf).tolist()]
    for row, place in enumerate(random.integers(len(tests), size=len(rows)) if tests else ()):
        tree, node = tests[place]
        column = int(tree.feature[node])
        if node not in tree.categories:
            limit = tree.threshold[node] if abs(tree.threshold[node]) > _ZERO else np.float32(0)
            with np.errstate(over="ignore"):
                beside = np.nextafter(limit, np.float32((-np.inf, np.inf)[row % 3 - 1]))
            borderline[row, column] = limit if row % 3 == 0 or not limit else beside
        elif column not in booster.categories:
            unknown[row, column] = (-1, max(tree.categories[node].inside, default=0) + 1, 1 << 23)[row % 3]
    return {
        "rows": rows,
        "rows with missing values": missing,
        "rows at thresholds": borderline,
        "rows of unknown categories": unknown,
    }


def _coded(booster: Booster, rows: Mapping[str, Array]) -> Array:
    """Return one matrix (N, F), float32, with codes in the place of text."""
    if not booster.textual:
        return np.ascontiguousarray(rows[MATRIX], dtype=np.float32)
    columns = []
    for place, name in enumerate(booster.names):
        values = rows[name].ravel()
        if place in booster.textual:
            codes = {text: float(code) for code, text in enumerate(booster.categories[place])}
            values = np.asarray([codes.get(str(value), np.nan) for value in values])
        columns.append(values.astype(np.float32))
    return np.stack(columns, axis=1)


def _codes(booster: Booster, matrix: Array) -> Array:
    """Return the matrix with codes in the place of categories that are numbers; unknown ones are missing."""
    matrix = matrix.copy()
    for place in booster.numbers:
        codes = {np.float32(number): float(code) for code, number in enumerate(booster.numbers[place])}
        matrix[:, place] = [codes.get(value, np.nan) for value in matrix[:, place]]
    return matrix


def _inputs(booster: Booster, matrix: Array) -> dict[str, Array]:
    """Return the matrix as the file takes it."""
    if not booster.textual:
        return {MATRIX: matrix}
    inputs: dict[str, Array] = {}
    for place, name in enumerate(booster.names):
        column = matrix[:, place]
        if place in booster.textual:
            texts = booster.categories[place]
            column = np.asarray([texts[int(code)] if code == code else _UNKNOWN for code in column], dtype=object)  # noqa: PLR0124
        inputs[name] = column[:, np.newaxis]
    return inputs


def _shaped(answers: Array, booster: Booster) -> Array:
    """Return the answers as the file gives them: (N, outputs), and two columns where the library has one for two."""
    table = np.asarray(answers, dtype=np.float64).reshape(len(answers), -1)
    if booster.forest.classes == 2 and table.shape[1] == 1:
        return np.hstack([1 - table, table])
    return table


def native_of(booster: Booster, path: Path) -> Native | None:
    """Return what answers for the library: itself, or else treelite, which uses all trees; None where neither can."""
    if find_spec(booster.library.lower()) is not None:
        askers = {"XGBoost": _by_xgboost, "LightGBM": _by_lightgbm, "CatBoost": _by_catboost}
        return askers[booster.library](booster, path)
    return _by_treelite(booster) if booster.rounds is None else None


def _by_xgboost(booster: Booster, path: Path) -> Native:
    import xgboost

    model = xgboost.Booster(model_file=path)
    if booster.objective == "multi:softmax":
        model.set_param({"objective": "multi:softprob"})

    def answers(matrix: Array) -> Array:
        rows = xgboost.DMatrix(
            matrix, feature_names=model.feature_names, feature_types=model.feature_types, enable_categorical=True
        )
        return np.asarray(model.predict(rows, iteration_range=(0, booster.rounds or 0)))

    return answers


def _by_lightgbm(_: Booster, path: Path) -> Native:
    import lightgbm

    model = lightgbm.Booster(model_file=path)
    return lambda matrix: np.asarray(model.predict(matrix, num_threads=1))


def _by_catboost(booster: Booster, path: Path) -> Native:
    import catboost

    model = catboost.CatBoost().load_model(str(path))
    kinds = {Answer.VALUE: "RawFormulaVal", Answer.EXP: "Exponent"}
    kind = kinds.get(booster.forest.answer, "Probability")

    def answers(matrix: Array) -> Array | None:
        try:
            return np.asarray(model.predict(matrix, prediction_type=kind, thread_count=1))
        except catboost.CatBoostError:
            if np.isnan(matrix).any():  # it takes missing values only where it has seen some in training
                return None
            raise

    return answers


def _by_treelite(booster: Booster) -> Native:
    import treelite

    model = booster.parsed
    return lambda matrix: np.asarray(treelite.gtil.predict(model, matrix, nthread=1))
