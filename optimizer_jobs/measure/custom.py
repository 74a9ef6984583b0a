"""A metric of the owner's own code, computed in a process without credentials or in a container of the owner's own.

Code that returns one number a row is a mean like any other. Code that returns one number for all rows is asked again on
rows that are drawn again, a bounded number of times: few draws know the spread, but not the tails, so that their
interval is a normal one.
"""

import inspect
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs import owned_code
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.measure.answers import Array, Floats
from optimizer_jobs.measure.bootstrap import DRAWS_OF_CODE, times_drawn
from optimizer_jobs.measure.metric_container import Answered, measured
from optimizer_jobs.measure.metrics.evaluation import Evaluation, mean_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.sandbox import Errand, run_in_sandbox
from retune.api.metrics import Metric
from retune.api.own_code import CustomMetric

CALL_SECONDS = 300.0
"""Longest time of one call."""
RESAMPLING_SECONDS = 60.0
"""Time for calls on rows that are drawn again."""
RESAMPLING_SECONDS_BESIDE = 120.0
"""The same for a container, whose command starts anew for each call."""
LEAST_DRAWS = 30
"""Fewest draws that say how far the metric spreads."""

_FIELD = "model.customMetric"
_COARSE = 20
"""Most different scores that are as coarse as right and wrong."""
_ERRAND = Errand(
    doing="computing it",
    done="it has not returned",
    process="the process that computes it",
    smaller="measure on fewer rows",
    other="make its code faster",
    again="Correct its code: it runs alone with outputs and labels, and needs nothing else.",
)


class CustomMetricError(UnfitAnswersError):
    """The owner's code cannot be used, or has not returned what a metric is."""

    def __init__(self, custom: CustomMetric, message: str, next_step: str) -> None:
        super().__init__(f"{custom.words}: {message.rstrip('.')}")
        self.refusal = owned_code.invalid(custom.words, message, next_step)
        """What a person reads."""


def evaluate_custom(
    metric: Metric, custom: CustomMetric | None, outputs: Mapping[str, Array], rows: Rows
) -> Evaluation:
    """Return what the owner's code says of answers.

    Args:
        metric: CUSTOM or CUSTOM_LOSS.
        custom: The code and its arguments.
        outputs: Every output of the model by name, with shape (N, ...).
        rows: N rows with labels of any shape (N, ...).

    Raises:
        UnfitAnswersError: There is no such code, or there are no labels.
        CustomMetricError: The code cannot be used, fails, or returns what is no metric.
    """
    if custom is None or not (custom.entry_point or custom.container):
        raise UnfitAnswersError(f"{metric} needs model.customMetric, with either entryPoint or container")
    if rows.labels is None:
        raise UnfitAnswersError(f"{metric} compares outputs with labels, and these rows have none")
    asked = partial(_ask, custom, outputs, rows)
    returned = asked(draws=0)
    value = float(returned.mean())
    if value < 0:
        raise CustomMetricError(custom, f"it is {value:.4g}, and a metric is at least 0.", "Add a constant to it.")
    if returned.shape == (len(rows),):
        return _of_rows(metric, returned)
    if rows.weights is not None:
        what = "one number a group" if returned.ndim else "one number"
        raise CustomMetricError(
            custom, f"it returns {what}, which cannot be weighted by rows.", "Return an array of one number a row."
        )
    return replace(_of_rows(metric, returned), unit="groups") if returned.ndim else _of_all(value, asked, rows)


def _of_rows(metric: Metric, scores: Floats) -> Evaluation:
    """Return the mean of scores (N,); few different ones are as coarse as right and wrong."""
    is_share = metric is Metric.CUSTOM and bool(np.isin(scores, (0.0, 1.0)).all())
    coarse = float(scores.min()) >= 0 and len(np.unique(scores)) <= _COARSE
    return mean_of(scores, is_share=is_share, flip=(float(scores.max()) or 1.0) if coarse else 0.0)


def _of_all(value: float, asked: Callable[..., Floats], rows: Rows) -> Evaluation:
    """Return the evaluation of one number for all N rows."""

    def at(_: Floats) -> Floats:
        raise ValueError("one number for all rows has no weights")

    @cache
    def redrawn(draws: int) -> Floats:
        return asked(draws=draws)

    blocks = None if rows.groups is None else np.unique(rows.groups, return_inverse=True)[1]
    unit = f"test rows, drawn again {DRAWS_OF_CODE} times at most,"
    return Evaluation(value=value, scores=np.zeros(len(rows)), at=at, unit=unit, blocks=blocks, redrawn=redrawn)


def _ask(custom: CustomMetric, outputs: Mapping[str, Array], rows: Rows, *, draws: int) -> Floats:
    """Have the code called on the rows, or on that many draws of them, or as many as there is time for."""
    beside = custom.container is not None
    returned, words = (_beside if beside else _apart)(custom, outputs, rows, draws=draws)
    if draws and len(returned) < LEAST_DRAWS:
        seconds = RESAMPLING_SECONDS_BESIDE if beside else RESAMPLING_SECONDS
        calls = f"it was called {len(returned)} times in {seconds:g} s, and its interval needs {LEAST_DRAWS} calls."
        raise CustomMetricError(custom, calls, "Return one number a row, or measure on fewer rows.")
    return _sound(custom, returned, rows, drawn=bool(draws), words=words)


def _beside(custom: CustomMetric, outputs: Mapping[str, Array], rows: Rows, *, draws: int) -> tuple[Floats, str]:
    """Return what a container of the owner's own answers, and what that is in words."""
    answered = Answered(outputs, rows.answers, rows.groups)
    try:
        if not draws:
            returned = measured(custom, answered, seconds=CALL_SECONDS)
            return returned, f"an array of shape {returned.shape}"
        blocks = answered.numbered
        numbers = [
            measured(custom, answered.take(drawn, _regrouped(blocks, drawn, copies)), seconds=CALL_SECONDS)
            for drawn, copies in _draws(len(rows), blocks, draws=draws, seconds=RESAMPLING_SECONDS_BESIDE)
        ]
    except JobError as error:
        raise CustomMetricError(custom, error.message, error.next_step) from error
    if any(number.ndim for number in numbers):
        message = "it returned one number for all rows, and an array for as many that were drawn again."
        raise CustomMetricError(custom, message, "Return one number for any rows.")
    return np.asarray([float(number) for number in numbers]), ""


def _regrouped(blocks: Array | None, drawn: Array, copies: Array) -> Array | None:
    """Return the groups (M,) of drawn rows: a group that is drawn twice is two."""
    return None if blocks is None else blocks[drawn] + copies * (int(blocks.max()) + 1)


def _apart(custom: CustomMetric, outputs: Mapping[str, Array], rows: Rows, *, draws: int) -> tuple[Floats, str]:
    """Return what code in a process of its own answers, and what that is in words."""
    with tempfile.TemporaryDirectory(prefix="metric-") as folder:
        names = _save(Path(folder), outputs, rows)
        question = {"custom": custom.to_dict(), "folder": folder, "outputs": names, "draws": draws}
        seconds = CALL_SECONDS + (RESAMPLING_SECONDS if draws else 0.0)
        try:
            reply = run_in_sandbox(f"{__name__}:answer", question, uri=custom.words, seconds=seconds, errand=_ERRAND)
            returned = np.load(Path(folder) / "returned.npy", allow_pickle=False).astype(np.float64)
        except JobError as error:
            raise CustomMetricError(custom, error.message, error.next_step) from error
        except (OSError, ValueError) as error:
            raise CustomMetricError(custom, f"{_ERRAND.process} gave no numbers.", _ERRAND.again) from error
    return returned, str(reply.get("returned", ""))


def _sound(custom: CustomMetric, returned: Floats, rows: Rows, *, drawn: bool, words: str) -> Floats:
    """Return what the code has returned, after checking its shape and numbers: another process may have forged it."""
    if not drawn and returned.shape not in _shapes(custom, rows):
        message = f"it returned {printable(words, limit=120) or 'nothing'} for {len(rows)} rows."
        raise CustomMetricError(custom, message, "Return an array of one number a row, or one number.")
    infinite = int((~np.isfinite(returned)).sum())
    if infinite and not drawn:
        message = f"{infinite} of the {returned.size} numbers that it returned are not finite."
        raise CustomMetricError(custom, message, "Return finite numbers, also where a row has no label.")
    return returned


def _shapes(custom: CustomMetric, rows: Rows) -> set[tuple[int, ...]]:
    """Return the shapes that numbers may have: of one, of one a row, and of one a group for code that knows groups."""
    groups = rows.groups if custom.container else None
    return {(), (len(rows),)} | (set() if groups is None else {(len(np.unique(groups)),)})


def _save(folder: Path, outputs: Mapping[str, Array], rows: Rows) -> list[str]:
    """Write outputs, labels and groups for the other process, and return the names of the outputs."""
    names = list(outputs)
    arrays = {f"output{place}": _plain(outputs[name]) for place, name in enumerate(names)}
    beside = {} if rows.groups is None else {"blocks": np.unique(rows.groups, return_inverse=True)[1]}
    np.savez(folder / "given.npz", allow_pickle=False, labels=_plain(rows.answers), **beside, **arrays)
    return names


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.str_) if values.dtype == object else values


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Call the code and write what it returned; called in the other process."""
    custom, folder = CustomMetric.model_validate(question["custom"]), Path(question["folder"])
    with np.load(folder / "given.npz", allow_pickle=False) as arrays:
        outputs = {name: arrays[f"output{place}"] for place, name in enumerate(question["outputs"])}
        labels, blocks = arrays["labels"], arrays["blocks"] if "blocks" in arrays.files else None
    call = _callable(custom)
    if question["draws"]:
        numbers = _on_draws(call, outputs, labels, blocks=blocks, draws=int(question["draws"]))
        np.save(folder / "returned.npy", np.asarray(numbers, dtype=np.float64))
        return {}
    returned = call(outputs=outputs, labels=labels)
    numeric = _as_numbers(returned)
    np.save(folder / "returned.npy", np.empty((0, 0)) if numeric is None else numeric)
    shape = "" if numeric is None else f" of shape {numeric.shape}"
    return {"returned": f"a {type(returned).__name__}{shape}"}


def _as_numbers(returned: object) -> Floats | None:
    try:
        numbers = np.asarray(returned, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if returned is not None else None


def _callable(custom: CustomMetric) -> Callable[..., Any]:
    """Return the code with its arguments: only what takes outputs and labels by name, nothing else of the image.

    Raises:
        JobError: ModelInvalid; it is not there, or it does not take these arguments.
    """
    where, name = custom.words, custom.entry_point or ""
    entry = owned_code.named(name, what="metric", field=_FIELD)
    arguments = owned_code.arguments_of(custom.arguments, where=where, field=_FIELD)
    fault = _fault(entry, arguments)
    if fault is not None:
        words = f"def {name.partition(':')[2]}(outputs, labels{''.join(f', {argument}' for argument in arguments)})"
        raise owned_code.invalid(where, f"it cannot be called: {fault}.", f"Write `{words}`.")
    return partial(entry, **arguments)


def _fault(entry: Any, arguments: Mapping[str, Any]) -> str | None:
    """Return why something is no metric, or None when it can be called as one."""
    if not callable(entry):
        return f"it is a {type(entry).__name__}"
    try:
        signature = inspect.signature(entry)
        signature.bind(outputs={}, labels=None, **arguments)
    except (TypeError, ValueError) as error:
        return str(error)
    return None if {"outputs", "labels"} <= signature.parameters.keys() else "it has no parameters outputs and labels"


def _on_draws(
    call: Callable[..., Any], outputs: Mapping[str, Array], labels: Array, *, blocks: Array | None, draws: int
) -> list[float]:
    """Return the number on as many draws of the rows as there is time for, the same draws for every model."""
    return [
        float(call(outputs={name: out[drawn] for name, out in outputs.items()}, labels=labels[drawn]))
        for drawn, _ in _draws(len(labels), blocks, draws=draws, seconds=RESAMPLING_SECONDS)
    ]


def _draws(rows: int, blocks: Array | None, *, draws: int, seconds: float) -> Iterator[tuple[Array, Array]]:
    """Yield which rows (M,) are drawn again, and for each which time it comes (M,), as often as there is time for."""
    until = time.monotonic() + seconds
    block_of = np.arange(rows) if blocks is None else np.asarray(blocks, dtype=np.int64)
    left = draws
    for counts in times_drawn(int(block_of.max()) + 1, rows=rows):
        for times in counts:
            if not left or time.monotonic() > until:
                return
            left -= 1
            of_row = times[block_of].astype(np.int64)
            drawn = np.repeat(np.arange(rows), of_row)
            yield drawn, np.arange(len(drawn)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
