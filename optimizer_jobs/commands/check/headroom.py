"""Headroom: how much of the champion's error a quick learner takes away that knows more labelled rows than it does.

A watch that compares a model with its own past does not see that the world has moved on to where another model would
do better: a season that the model never saw looks like any other month of middling quality. So labelled rows of earlier
windows, with what the champion answered to them, teach a correction of its answers, and this window, which the
correction has not seen, shows what that is worth. Rows that occur in both teach nothing, or they would be known by
heart. What it takes away of later rows, a run may take away for good. Where it takes nothing, a run would hardly help,
whatever has drifted.

The last windows are judged together, each corrected by what was known before it: a gain that comes and goes with the
weather is seldom proven in one window, and hardly ever in several alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.correction import MOST_CLASSES, Lesson, corrected, lesson_of
from optimizer_jobs.commands.check.guard import FAILED, guarded
from optimizer_jobs.commands.check.quality_verdict import Labelled, labelled_among, labelled_part
from optimizer_jobs.commands.check.result import MESSAGE_LIMIT, NOT_MEASURABLE, unknown
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.production.features import is_wide
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.progress import say
from retune.api.model import Task
from retune.api.monitoring import Headroom, Quality
from retune.api.watched import Verdict
from retune.contract.requests import Window
from retune.contract.results import SignalVerdict

Floats = NDArray[np.float64]

BLOCKS = 10
"""Parts of a window in the order of time whose gains count as independent: rows that are close resemble each other."""
CONFIDENCE = 0.995
"""That the gain is above 0, one-sided: without one, at most one verdict in 200 says so."""
_LEARNED_ROWS, _LEARNED_NUMBERS = 20_000, 40_000
"""Most rows that teach the correction, and most numbers to correct; of more, the newest rows."""
_LEAST_BRIER = 0.002
"""Smallest gain in the Brier score that counts: of a classifier that is hardly ever wrong, a share says little."""
_ERROR = {Task.CLASSIFICATION: "Brier score", Task.REGRESSION: "squared error"}


@dataclass(frozen=True)
class Gain:
    """What a correction takes off the champion's loss, as shares of it."""

    value: float
    low: float
    """Low end of the two-sided interval whose one side has the confidence above."""
    high: float
    loss: float
    """The champion's mean loss on the rows."""
    rows: int
    windows: int = 1
    """Windows that the rows are of."""


def judge_headroom(check: Check, reference: Reference | None, labelled: Labelled | None) -> SignalVerdict | None:
    """Return the verdict on the window whose labels are due; None where nothing is asked, or nothing can be learned.

    Tasks without such an error teach nothing, and neither do models of images and tensors alone: their answers are
    like a fingerprint, by which the learner would know rows again that come twice with a little noise.

    Args:
        check: The check.
        reference: The reference, if there is one.
        labelled: Rows of the newest window whose labels are due, if there is one.

    Raises:
        JobError: The folder of labels cannot be listed, or its server cannot be read.
    """
    settings, window = check.request.headroom, check.request.learned
    if settings is None or window is None or labelled is None or check.manifest.task not in _ERROR:
        return None
    if all(is_wide(values) for values in labelled.rows.inputs.values()):
        return None
    earlier = labelled_among(check, check.rows(window), folder="learned")
    verdict = guarded(
        partial(_judged, check, settings, reference, labelled, earlier),
        lambda words: unknown(FAILED, f"{words}.", samples=len(labelled.known)),
        what="Headroom could not be judged",
    )
    say(f"  {verdict.verdict}: {verdict.message}")
    return verdict


def _judged(
    check: Check, settings: Headroom, reference: Reference | None, labelled: Labelled, earlier: Labelled
) -> SignalVerdict:
    rows, least = len(labelled.known), (check.request.quality or Quality()).min_labels
    if min(rows, len(earlier.known)) < least:
        return _too_few(rows, len(earlier.known), least)
    try:
        lessons = [_Judged.of(check, reference, labelled, earlier)]
        if min(len(lessons[0].asked), len(lessons[0].taught)) < least:
            return _too_few(len(lessons[0].asked), len(lessons[0].taught), least)
        before = (_Judged.of(check, reference, *parts) for parts in _windows_before(check, settings, earlier))
        lessons += [each for each in before if min(len(each.asked), len(each.taught)) >= least]
        gain = gain_of([each.losses(seed=check.request.seed) for each in lessons])
    except UnfitAnswersError as error:
        return unknown(NOT_MEASURABLE, f"Headroom cannot be measured: {error}.", samples=rows)
    return verdict_of(gain, settings, task=check.manifest.task, learned=len(lessons[0].taught))


def _windows_before(check: Check, settings: Headroom, earlier: Labelled) -> Iterator[tuple[Labelled, Labelled]]:
    """Yield each window that is judged beside the newest one, with what was known before it."""
    newest, learned = check.request.labelled, check.request.learned
    if newest is None or learned is None:
        return
    length = newest.end - newest.start
    for back in range(1, min(settings.consecutive, newest.index - learned.index)):
        start = newest.start - back * length
        span = Window(index=newest.index - back, start=start, end=start + length)
        yield labelled_among(check, check.rows(span), folder=f"judged{back}"), earlier.until(start)


@dataclass(frozen=True)
class _Judged:
    """A window and what teaches its correction."""

    asked: Lesson
    taught: Lesson

    @classmethod
    def of(cls, check: Check, reference: Reference | None, labelled: Labelled, earlier: Labelled) -> "_Judged":
        """Read both; raises UnfitAnswersError."""
        asked = lesson_of(labelled.known, labelled.truth, check.manifest)
        most = min(_LEARNED_ROWS, _LEARNED_NUMBERS // min(MOST_CLASSES, asked.answered.shape[1]))
        return cls(asked, _known_before(check, reference, earlier).unlike(asked).newest(most))

    def losses(self, *, seed: int) -> tuple[Floats, Floats]:
        """Return the loss (N,) of the champion's answers and of the corrected ones, in the order of time."""
        return self.asked.losses(self.asked.answered), self.asked.losses(corrected(self.taught, self.asked, seed=seed))


def _known_before(check: Check, reference: Reference | None, earlier: Labelled) -> Lesson:
    """Return the labelled rows of the reference and of earlier windows, in the order of time."""
    known = [] if reference is None else [labelled_part(reference)]
    parts = [*known, (earlier.known, earlier.truth)]
    return Lesson.joined([lesson_of(rows, truth, check.manifest) for rows, truth in parts if len(rows)])


def _too_few(rows: int, taught: int, least: int) -> SignalVerdict:
    words = f"{rows} rows of the window have a label, and {taught} other ones before it; {least} of each are needed."
    return unknown("TooFewLabels", words, samples=rows)


def gain_of(windows: Sequence[tuple[Floats, Floats]]) -> Gain:
    """Return what a correction takes off the mean loss, with an interval from the means of blocks of time.

    Args:
        windows: For each window the champion's loss (N,) of each row in the order of time, at least 2 a block, and the
            loss (N,) of its corrected answers.
    """
    before, after = (np.concatenate(losses) for losses in zip(*windows, strict=True))
    loss, value = float(before.mean()), float((before - after).mean())
    if loss <= 0:
        return Gain(0.0, 0.0, 0.0, loss, len(before), len(windows))
    blocks = [np.array_split(champion - corrected, BLOCKS) for champion, corrected in windows]
    means = np.asarray([block.mean() for window in blocks for block in window])
    half = float(stats.t.ppf(CONFIDENCE, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
    return Gain(value / loss, (value - half) / loss, (value + half) / loss, loss, len(before), len(windows))


def verdict_of(gain: Gain, settings: Headroom, *, task: Task, learned: int) -> SignalVerdict:
    """Return the verdict on a gain.

    Args:
        gain: The gain.
        settings: Settings of the spec.
        task: What the model does.
        learned: Rows that taught the correction.
    """
    limit = float(settings.min_gain)
    least = _LEAST_BRIER if task is Task.CLASSIFICATION else 0.0
    if gain.value < limit or gain.value * gain.loss < least:
        verdict, reason = Verdict.CLEAR, "HeadroomSmall"
    elif gain.low > 0:
        verdict, reason = Verdict.BREACH, "HeadroomProven"
    else:
        verdict, reason = Verdict.BETWEEN, "HeadroomNotProven"
    message = (
        f"A correction that {learned} earlier labelled rows teach takes {_percent(gain.value)} % "
        f"({_percent(gain.low)} to {_percent(gain.high)}; limit {_percent(limit)}) off the {_ERROR[task]} "
        f"of {gain.rows} labelled rows{_windows(gain.windows)}, {gain.loss:.4g}."
    )
    return SignalVerdict(
        verdict=verdict,
        reason=reason,
        message=printable(message, limit=MESSAGE_LIMIT),
        value=f"{gain.value:.4g}",
        reference=settings.min_gain,
        low=f"{gain.low:.4g}",
        high=f"{gain.high:.4g}",
        samples=gain.rows,
    )


def _windows(count: int) -> str:
    return f" of {count} windows" if count > 1 else ""


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"
