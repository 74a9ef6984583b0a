"""What the numbers of segments mean: the verdict on each, on all together, and the sentences that say so. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.check.result import MESSAGE_LIMIT, unknown
from optimizer_jobs.commands.check.segment_losses import LEVEL, Standing
from optimizer_jobs.errors import printable
from retune.api.metrics import Metric
from retune.api.monitoring import Quality, Segments
from retune.api.watched import Verdict
from retune.contract.results import SegmentVerdict, SignalVerdict

_SHOWN = 8
_OTHERS = 2
_RANK = (Verdict.BREACH, Verdict.BETWEEN, Verdict.CLEAR, Verdict.UNKNOWN)
_REASONS = {Verdict.BETWEEN: "SegmentBetween", Verdict.CLEAR: "SegmentsKept"}
_LOST = {Verdict.BREACH: "SegmentLost", Verdict.BETWEEN: "SegmentNotProven"}


@dataclass(frozen=True)
class Segment:
    """One segment of a window."""

    name: str
    verdict: Verdict
    rows: int
    """Rows of the window that is checked."""
    standing: Standing | None = None
    """How its quality stands; None where that cannot be said."""
    drift: float | None = None
    """How far the answers to it moved; None where that is not proven."""


@dataclass(frozen=True)
class Segmented:
    """What a window says of its segments."""

    verdict: SignalVerdict | None
    """None where no window with labels is due."""
    segments: tuple[Segment, ...] = ()
    """The worst first."""
    broken: bool = False
    """Whether they could not be judged, so that nothing is said of any, also not that one is gone."""

    def listed(self, wanted: Sequence[str]) -> tuple[SegmentVerdict, ...]:
        """Return the segments for the result: those that are asked for, and then the worst.

        One that is asked for and is none any more is clear: nothing can be said of it again.
        """
        if self.broken:
            return ()
        by_name = {segment.name: segment for segment in self.segments}
        first = [by_name.get(name, Segment(name, Verdict.CLEAR, 0)) for name in wanted]
        telling = [one for one in self.segments if one.standing is not None or one.drift is not None]
        rest = [segment for segment in telling if segment.name not in wanted]
        return tuple(_as_result(segment) for segment in [*first, *rest][:_SHOWN])

    @property
    def tells(self) -> bool:
        """Whether there is anything to look at; of many segments, some have often lost what may be chance."""
        return any(one.verdict is Verdict.BREACH or one.drift is not None for one in self.segments)


def segment_of(name: str, rows: int, standing: Standing | None, drift: float | None, settings: Segments) -> Segment:
    """Return one segment of a window, with its rows there, how its quality stands, and how far its answers moved."""
    verdict = Verdict.UNKNOWN if standing is None else verdict_of(standing, settings)
    return Segment(name, verdict, rows, standing, drift)


def verdict_of(standing: Standing, settings: Segments) -> Verdict:
    """Return what one segment's numbers say."""
    limit = float(settings.max_degradation)
    if standing.loss >= limit:
        return Verdict.BREACH if standing.adjusted <= LEVEL else Verdict.BETWEEN
    return Verdict.CLEAR if standing.loss <= limit / 2 else Verdict.BETWEEN


def badness(segment: Segment) -> tuple[int, float, float]:
    """Return a key that sorts the worst segments first."""
    loss = segment.standing.loss if segment.standing else 0.0
    return _RANK.index(segment.verdict), -loss, -(segment.drift or 0.0)


def summary(
    metric: Metric,
    settings: Segments,
    quality: Quality,
    found: Mapping[str, Standing],
    together: Standing | None,
    *,
    notes: str = "",
    samples: int = 0,
) -> SignalVerdict:
    """Return the verdict on all segments together.

    Args:
        metric: What quality is measured by.
        settings: Settings of segments.
        quality: Settings of quality, by which it is said what the whole shows.
        found: How each segment stands that has enough rows.
        together: How the whole stands.
        notes: Sentences for the end of the message.
        samples: Labelled rows of the window.
    """
    if not found:
        words = f"No segment has {settings.min_labels} independent labelled rows and 30 in the reference.{notes}"
        return unknown("SegmentsTooSmall", words, samples=samples)
    order = sorted(found, key=lambda name: (_RANK.index(verdict_of(found[name], settings)), -found[name].loss))
    name, standing = order[0], found[order[0]]
    verdict = verdict_of(standing, settings)
    bad = [other for other in order[1:] if verdict_of(found[other], settings) is Verdict.BREACH]
    words = _sentence(name, metric, standing)
    if verdict is Verdict.CLEAR:
        words = f"{len(found)} segments are judged; the worst is {words}"
    message = f"{words}{_whole_words(together, quality)}.{_also(bad, found)}{notes}"
    return SignalVerdict(
        verdict=verdict,
        reason=_REASONS[verdict] if standing.loss < float(settings.max_degradation) else _LOST[verdict],
        message=printable(message, limit=MESSAGE_LIMIT),
        value=_number(standing.value),
        reference=_number(standing.reference),
        samples=standing.samples,
    )


def _sentence(name: str, metric: Metric, standing: Standing) -> str:
    was = f"{metric} {standing.value:.3g}, was {standing.reference:.3g} on the reference"
    return f"{name}: {was}, {standing.samples} labelled rows"


def _whole_words(together: Standing | None, quality: Quality) -> str:
    if together is None:
        return ""
    numbers = f" ({together.value:.3g}, was {together.reference:.3g})"
    if together.loss >= float(quality.max_degradation):
        return f"; the whole has lost, too{numbers}"
    shows = "no loss" if together.loss <= float(quality.clear_degradation) else "a small loss"
    return f"; the whole shows {shows}{numbers}"


def _also(bad: Sequence[str], found: Mapping[str, Standing]) -> str:
    if not bad:
        return ""
    shown = "; ".join(f"{name} {found[name].value:.3g}, was {found[name].reference:.3g}" for name in bad[:_OTHERS])
    return f" Also lost: {shown}{f' and {len(bad) - _OTHERS} more' if len(bad) > _OTHERS else ''}."


def _as_result(segment: Segment) -> SegmentVerdict:
    standing = segment.standing
    return SegmentVerdict(
        name=segment.name,
        verdict=segment.verdict,
        value=None if standing is None else _number(standing.value),
        reference=None if standing is None else _number(standing.reference),
        samples=0 if standing is None else standing.samples,
        rows=segment.rows,
        drift=None if segment.drift is None else f"{segment.drift:.3g}",
    )


def _number(value: float) -> str:
    return f"{value:.4g}"


def lines(segmented: Segmented) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a table of all segments, the worst first: what the page shows."""
    for one in segmented.segments:
        standing = one.standing
        quality = (
            ("-", "-", "-")
            if standing is None
            else (f"{standing.value:.3g}", f"{standing.reference:.3g}", f"{standing.samples:,}")
        )
        yield one.name, str(one.verdict), *quality, f"{one.rows:,}", "-" if one.drift is None else f"{one.drift:.2g}"
