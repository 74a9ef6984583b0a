"""What a window says of its segments: which one has lost quality that the average may hide, and where answers moved.

Segments and what they are compared with come from the champion's reference alone. A loss is told with its segment, its
numbers and what the whole shows beside it; how far answers moved is told too, and raises nothing.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check import segment_choice
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.drift import Compared, measure
from optimizer_jobs.commands.check.guard import FAILED, guarded
from optimizer_jobs.commands.check.labelled_quality import metric_of
from optimizer_jobs.commands.check.quality_verdict import Labelled, labelled_part
from optimizer_jobs.commands.check.result import NOT_MEASURABLE, unknown
from optimizer_jobs.commands.check.segment_cuts import Cut, Mask, cuts, largest, masks
from optimizer_jobs.commands.check.segment_losses import LEVEL, Labels, Standing, holm, standings, whole
from optimizer_jobs.commands.check.segment_verdict import Segmented, badness, segment_of, summary
from optimizer_jobs.commands.check.sources import answers, carried_by_column
from optimizer_jobs.commands.check.watched_quality import Answered, in_time
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.production.features import PREDICTION, is_wide
from optimizer_jobs.production.labels import Truth
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from retune.api.metrics import CUSTOM, RANKING, Metric
from retune.api.monitoring import Drift, Quality
from retune.contract.results import SignalVerdict

_SHOWN = 8
_KEYS = ("request_ids", "rows", "times", "models")
_STRICTER = 2
"""How many times rarer than a loss it is that moved answers are told by chance."""


def judge_segments(
    check: Check, reference: Reference | None, current: Captured, labelled: Labelled | None, names: Sequence[str] | None
) -> Segmented | None:
    """Return what a window says of its segments; None where none are wanted, or there is nothing to compare with.

    Args:
        check: The check.
        reference: The reference, if there is one.
        current: Rows of the window that is checked.
        labelled: Rows of the newest window whose labels are due, if there is one.
        names: Names of the feature columns, if they are known.
    """
    if not check.request.segments.wanted or reference is None or not len(current):
        return None
    frames = _Frames(check, reference, names)
    if not frames.columns:
        return Segmented(
            _without(labelled, "SegmentsMissing", "The captured inputs have no column of numbers or text.")
        )
    settings, lacking = check.request.segments, ""
    if settings.columns is not None:
        columns = [name for name in settings.columns if name in frames.columns]
        lacking = _lacking(settings.columns, frames.columns)
    else:
        columns = frames.chosen()
    divided = cuts(frames.reference, columns)
    if not divided:
        words = lacking or "No column divides the reference's rows."
        return Segmented(_without(labelled, "SegmentsMissing", words))
    return _judged(frames, divided, current, labelled, lacking)


def _without(labelled: Labelled | None, reason: str, words: str) -> SignalVerdict | None:
    return None if labelled is None else unknown(reason, words.strip())


def _lacking(wanted: Sequence[str], there: Sequence[str]) -> str:
    """Return which columns are wanted that the captured inputs do not have; empty where they have all."""
    missing = [printable(name, limit=40) for name in wanted if name not in there]
    if not missing:
        return ""
    known = ", ".join(printable(name, limit=40) for name in there[:_SHOWN])
    return (
        f" No captured input is called {', '.join(missing)}; there are {known}{' and others' * (len(there) > _SHOWN)}."
    )


class _Frames:
    """The reference as a table of its inputs and answers, and what is known of its labels."""

    def __init__(self, check: Check, reference: Reference, names: Sequence[str] | None) -> None:
        self.check, self._reference, self._names = check, reference, names
        inputs = check.manifest.signature.inputs
        self._narrow = tuple(spec for spec in inputs if not is_wide(reference.rows.inputs[spec.name]))
        self.reference = self.of(reference.rows)
        answered = set(answers(reference.rows, check.manifest))
        self.columns = [str(name) for name in self.reference if name not in answered]
        self.by_choice = check.request.segments.columns is None

    def of(self, rows: Captured) -> pd.DataFrame:
        """Return captured rows as a table."""
        return answers(rows, self.check.manifest, self._narrow, self._names)

    def known(self) -> tuple[Captured, Truth]:
        """Return the labelled rows of the reference."""
        return labelled_part(self._reference)

    def chosen(self) -> list[str]:
        """Return the columns that tell most of the champion's quality; those that carry most where nothing does."""
        shares = dict(carried_by_column(self._reference, self.check.manifest, self._narrow, self._names))
        frame = self.reference[self.columns]
        rows, truth = self.known()
        first, _ = segment_choice.halves(len(rows))
        if not first.any():
            return segment_choice.choose(frame, np.zeros(len(frame)), shares)
        yardstick = Yardstick.of(self.check.request)
        part = Answered.of(rows.take(first), truth.take(first), self.check.manifest, yardstick)
        return segment_choice.choose(frame[self._reference.labelled][first], in_time(part), shares)

    def comparable(self) -> Mask:
        """Return which rows (M,) of the reference windows are compared with: not those that columns were chosen on."""
        kept = np.array(self._reference.labelled)
        if self.by_choice:
            kept[kept] = segment_choice.halves(int(kept.sum()))[1]
        return kept

    def comparable_labels(self) -> tuple[Captured, Truth]:
        """Return those of them that have a label, which are all."""
        rows, truth = self.known()
        mask = self.comparable()[self._reference.labelled]
        return rows.take(mask), truth.take(mask)


def _judged(
    frames: _Frames, divided: Sequence[Cut], current: Captured, labelled: Labelled | None, lacking: str
) -> Segmented:
    before, table = masks(divided, frames.reference), frames.of(current)
    kept, now = largest(before), masks(divided, table)
    moved = _moved(frames, table, {name: (before[name], now[name]) for name in kept})
    verdict: SignalVerdict | None = None
    found: dict[str, Standing] = {}
    if labelled is not None:
        there = {name: before[name][frames.comparable()] for name in kept}
        here = masks(divided, frames.of(labelled.known))
        verdict, found = _of_labels(frames, labelled, there, {name: here[name] for name in kept}, lacking)
    settings = frames.check.request.segments
    segments = [segment_of(name, int(now[name].sum()), found.get(name), moved.get(name), settings) for name in kept]
    return Segmented(verdict, tuple(sorted(segments, key=badness)))


def _of_labels(
    frames: _Frames, labelled: Labelled, before: Mapping[str, Mask], now: Mapping[str, Mask], lacking: str
) -> tuple[SignalVerdict, dict[str, Standing]]:
    """Return the verdict on all segments together, and how each stands."""
    check = frames.check
    quality, settings = check.request.quality or Quality(), check.request.segments
    metric = metric_of(check.manifest.task, quality, check.request.objectives)
    reference, window = frames.comparable_labels(), (labelled.known, labelled.truth)
    refusal = _refusal(metric, reference[1], window[1])
    if refusal or metric is None:
        return unknown(NOT_MEASURABLE, f"Segments are not judged: {refusal}.", samples=len(labelled.known)), {}
    try:
        labels = labels_of(check, metric, reference, window)
        found = standings(
            labels,
            before,
            now,
            counts_from=float(settings.max_degradation),
            min_labels=settings.min_labels,
            seed=check.request.seed,
        )
    except (UnfitAnswersError, ValueError) as error:
        words = f"Segments are not judged: {printable(str(error), limit=300)}."
        return unknown(NOT_MEASURABLE, words, samples=len(labelled.known)), {}
    return summary(metric, settings, quality, found, whole(labels), notes=lacking, samples=len(labelled.known)), found


def _refusal(metric: Metric | None, reference: Truth, window: Truth) -> str:
    """Return why labels say nothing of segments, as a clause; empty where they do."""
    if metric is None:
        return "labels say nothing about the quality of such a model"
    if metric in RANKING or metric in CUSTOM:
        return f"{metric} is not measured by segments"
    if reference.groups is not None or window.groups is not None:
        return "rows that belong to groups depend on each other"
    if (reference.weights is None) != (window.weights is None):
        return "rows of the reference or of the labels have weights, and the others have none"
    return ""


def labels_of(
    check: Check, metric: Metric, reference: tuple[Captured, Truth], window: tuple[Captured, Truth]
) -> Labels:
    """Return the labelled rows of reference and window as one.

    Raises:
        UnfitAnswersError: The answers cannot be read.
        ValueError: Rows of both have other shapes.
    """
    yardstick = Yardstick.of(check.request)
    parts = [rows for rows, _ in (reference, window)]
    keys = [np.concatenate([getattr(part, name) for part in parts]) for name in _KEYS]
    outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs}
    both = Captured(keys[0], keys[1], keys[2], keys[3], {"row": np.zeros(len(keys[0]))}, outputs)
    weights = [truth.weights for _, truth in (reference, window) if truth.weights is not None]
    truth = Truth(
        np.concatenate([truth.labels for _, truth in (reference, window)]),
        weights=np.concatenate(weights) if weights else None,
    )
    return Labels(Answered.of(both, truth, check.manifest, yardstick), len(parts[0]), metric, yardstick)


def _moved(frames: _Frames, table: pd.DataFrame, named: Mapping[str, tuple[Mask, Mask]]) -> dict[str, float]:
    """Return how far the answers to each segment moved, of those of which that is proven."""
    if PREDICTION not in table or PREDICTION not in frames.reference:
        return {}
    drift = frames.check.request.drift or Drift()
    found: dict[str, Compared] = {}
    usual, current = frames.reference[[PREDICTION]], table[[PREDICTION]]
    for name, (before, now) in named.items():
        parts = (usual[before], current[now])
        if all(map(len, parts)):
            found.update((name, column) for column in measure(*parts, drift, names=[PREDICTION]).columns)
    adjusted = holm([column.p_value for column in found.values()])
    return {
        name: column.size
        for (name, column), p in zip(found.items(), adjusted, strict=True)
        if p <= LEVEL / _STRICTER and column.size >= float(drift.min_effect)
    }


def try_segments(
    check: Check, reference: Reference | None, current: Captured, labelled: Labelled | None, names: Sequence[str] | None
) -> Segmented | None:
    """Return what `judge_segments` does; what breaks in it costs no other verdict, is told, and clears no segment."""
    found = guarded(
        partial(judge_segments, check, reference, current, labelled, names),
        lambda words: Segmented(_without(labelled, FAILED, f"{words}."), broken=True),
        what="Segments could not be judged",
    )
    if found is not None and found.verdict is not None:
        say(f"  segments: {found.verdict.verdict}: {found.verdict.message}")
    return found
