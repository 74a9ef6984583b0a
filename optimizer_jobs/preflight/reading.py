"""Find how the outputs of a delivered model are read, and refuse one whose answers cannot be told from chance."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from optimizer_jobs.data.datasets import Rows, joined
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.measure.answers import answer, spelled
from optimizer_jobs.measure.chance import may_tell_a_quantile, no_better_than_chance
from optimizer_jobs.measure.finding import classes_of_graph, find_reading
from optimizer_jobs.measure.metrics.costs import unknown_labels
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.preflight.refusal import cannot_run, stage
from optimizer_jobs.progress import say
from retune.api.model import Model
from retune.contract.results import Reason

_SHOWN = 20
_RIGHT_OUTPUT = (
    "Name the right output in model.outputs, the classes in model.classes or the label in data.*.labelColumn, or give "
    "more rows."
)
_PERHAPS_A_QUANTILE = (
    "If it forecasts a quantile and not the mean, set model.task: Generic, or --task, so that every version is held to "
    "the answers of the model as delivered; else name the right output in model.outputs or the label in "
    "data.*.labelColumn, or give more rows."
)


def with_reading(opened: Opened, spec: Model, rows: Rows, *, batch: int = 1) -> Opened:
    """Return the model with how its outputs are read, and say what was found rather than told.

    Args:
        opened: The model as delivered.
        spec: What the spec says about it.
        rows: Validation rows.
        batch: Rows of a usual request.

    Raises:
        JobError: ModelInvalid; no output is an answer of the task, or several could be.
    """
    hint = opened.classes or classes_of_graph(onnx.load(opened.model, load_external_data=False))
    try:
        with stage("finding its answers"):
            session = open_model(opened.model, EngineOptions(spinning=False))
            how = find_reading(session, spec, rows, classes=hint, batch=batch)
    except (EngineError, UnfitAnswersError) as error:
        raise cannot_run(error, uri=spec.uri, task=spec.task) from error
    for note in how.notes:
        say(f"  {note}")
    signature = opened.signature.model_copy(update={"reading": how.reading})
    return replace(opened, signature=signature, classes=how.classes)


def check_costs(opened: Opened, spec: Model, splits: Mapping[str, Rows]) -> None:
    """Refuse costs of labels that neither the model nor the data has: a misspelt label would count as not listed.

    Args:
        opened: The model as delivered, with how its outputs are read.
        spec: What the spec says about the model.
        splits: Rows by split.

    Raises:
        JobError: ModelInvalid, with the labels that nobody knows and those that are known.
    """
    reading = opened.signature.reading
    scores = None if reading is None else reading.scores
    widths = [output.shape[-1] for output in opened.signature.outputs if output.name == scores and not opened.classes]
    seen = [str(label) for rows in splits.values() for label in spelled(np.unique(rows.answers))] if spec.costs else []
    known = dict.fromkeys(
        [*map(str, opened.classes), *(str(place) for width in widths for place in range(width)), *seen]
    )
    unknown = unknown_labels(spec.costs or (), tuple(known))
    if unknown:
        raise JobError(
            Reason.MODEL_INVALID,
            "model.costs",
            f"it names {', '.join(unknown)}, and the labels are {', '.join(list(known)[:_SHOWN])}.",
            "Spell labels as the data does.",
        )


def check_chance(opened: Opened, spec: Model, splits: Mapping[str, Rows], *, batch: int = 1) -> None:
    """Refuse a model whose answers cannot be told from chance: it would be a yardstick that everything passes.

    Args:
        opened: The model as delivered, with how its outputs are read.
        spec: What the spec says about it.
        splits: Rows by split; those are asked that it has not learned from.
        batch: Rows of a usual request.

    Raises:
        JobError: BaselineNotBetterThanChance, with the numbers.
    """
    held_out = [splits[name] for name in ("validation", "test") if name in splits] or [*splits.values()]
    rows = joined(held_out)
    try:
        with stage("asking it rows that it has not learned from"):
            session = open_model(opened.model, EngineOptions(spinning=False))
            answers = answer(
                session,
                rows,
                task=spec.task,
                classes=opened.classes or None,
                reading=opened.signature.reading,
                batch=batch,
            )
    except (EngineError, UnfitAnswersError) as error:
        raise cannot_run(error, uri=spec.uri, task=spec.task) from error
    reason = no_better_than_chance(answers, rows)
    if reason is not None:
        raise JobError(
            Reason.BASELINE_NOT_BETTER_THAN_CHANCE,
            spec.uri,
            f"{reason}.",
            _PERHAPS_A_QUANTILE if may_tell_a_quantile(answers, rows) else _RIGHT_OUTPUT,
        )
