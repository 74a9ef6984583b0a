"""How well quality is estimated without labels: `python -m tests.bench.estimates --packages DIR` prints tables.

DIR is where `requirements/neighbours/streams.txt` was installed. With `--nannyml PYTHON`, an interpreter that has
NannyML, its CBPE stands beside. Constants were chosen on the worlds of the first table, and on none of the second.
Everything but the times comes out the same again.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from optimizer_jobs.commands.check.estimated_quality import Seen, Unlabelled
from optimizer_jobs.measure.answers import Answers, Predictions
from retune.api.metrics import Metric
from retune.api.monitoring import Quality
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict
from tests.bench.estimates import peers
from tests.bench.estimates.worlds import REPORTED, TUNED, Case, Sample, World, worlds

HEADS = (
    "world",
    "windows",
    "speaks",
    "covered",
    "error",
    "its half width",
    "confidence",
    "CBPE",
    "CBPE covered",
    "CPU s",
)


@dataclass(frozen=True)
class Found:
    """What was said of a window."""

    true: float
    verdict: SignalVerdict | None
    confidence: float | None
    """Accuracy by confidence alone; None of other metrics."""
    seconds: float
    cbpe: tuple[float, float, float] | None = None

    @property
    def speaks(self) -> bool:
        """Whether there is an estimate."""
        return self.verdict is not None and self.verdict.verdict not in {Verdict.UNTRUSTED, Verdict.UNKNOWN}

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return (float(self.verdict.low or "nan"), float(self.verdict.high or "nan")) if self.verdict else (0.0, 0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.estimates", description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the packages that carry the data")
    parser.add_argument("--nannyml", type=Path, help="interpreter of an environment with NannyML")
    parser.add_argument("--worlds", nargs="+", choices=[*TUNED, *REPORTED], default=[*TUNED, *REPORTED])
    parser.add_argument("--metric", type=Metric, default=Metric.ACCURACY, help="what is estimated (default: accuracy)")
    parser.add_argument("--every", action="store_true", help="print every window")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for words, group in (("on which constants were chosen", TUNED), ("on which none was", REPORTED)):
            chosen = {name: build for name, build in group.items() if name in options.worlds}
            if chosen:
                print(f"\n{options.metric}, worlds {words}\n{_line(*HEADS)}", flush=True)
            every = []
            for world in worlds(options.packages, chosen):
                every += _world(world, options)
            if len(chosen) > 1:
                print(_told("all", every), flush=True)


def _world(world: World, options: argparse.Namespace) -> list[Found]:
    found = [_found(case, options.metric, seed=place) for place, case in enumerate(world.cases)]
    if options.nannyml is not None and options.metric is Metric.ACCURACY:
        told = _cbpe(world, options.nannyml)
        found = [
            Found(one.true, one.verdict, one.confidence, one.seconds, cbpe)
            for one, cbpe in zip(found, told, strict=True)
        ]
    print(_told(world.name, found), flush=True)
    for case, one in zip(world.cases, found, strict=True) if options.every else ():
        print(f"    {case.name}: {one.true:.4f}; {one.verdict.message if one.verdict else 'nothing'}")
    return found


def _found(case: Case, metric: Metric, *, seed: int) -> Found:
    reference, window = _seen(case.reference), _seen(case.window)
    watched = Unlabelled(metric, Quality(), seed=seed)
    began = time.process_time()
    verdict = watched.verdict(reference, case.reference.labels, window)
    seconds = time.process_time() - began
    true = watched.measured(window, case.window.labels)
    alone = peers.confidence_only(case.window.probabilities) if metric is Metric.ACCURACY else None
    return Found(true, verdict, alone, seconds)


def _seen(sample: Sample) -> Seen:
    answered, classes = sample.probabilities.argmax(axis=1), tuple(range(sample.probabilities.shape[1]))
    return Seen(sample.inputs, Answers(Predictions(answered, sample.probabilities, sample.probabilities, classes)))


def _cbpe(world: World, python: Path) -> list[tuple[float, float, float]]:
    with tempfile.TemporaryDirectory(prefix="estimates-") as name:
        folder = Path(name)
        for place, case in enumerate(world.cases):
            for part, sample in (("reference", case.reference), ("window", case.window)):
                rows = peers.table(sample.probabilities, sample.labels)
                rows.to_parquet(folder / f"{place}.{part}.parquet", index=False)
        return peers.estimates(python, folder)


def _told(name: str, found: Sequence[Found]) -> str:
    """Return a line of the table: shares of windows, and mean absolute errors."""
    spoken = [one for one in found if one.speaks]
    covered = [one.ends[0] <= one.true <= one.ends[1] for one in spoken]
    errors = [abs(float(one.verdict.value or "nan") - one.true) for one in spoken if one.verdict]
    widths = [(one.ends[1] - one.ends[0]) / 2 for one in spoken]
    confidence = [abs(one.confidence - one.true) for one in spoken if one.confidence is not None]
    theirs = [(abs(one.cbpe[0] - one.true), one.cbpe[1] <= one.true <= one.cbpe[2]) for one in spoken if one.cbpe]
    return _line(
        name,
        len(found),
        f"{len(spoken) / max(1, len(found)):.0%}",
        *(
            _mean(values, "{:.0%}" if values is covered else "{:.4f}")
            for values in (covered, errors, widths, confidence)
        ),
        _mean([error for error, _ in theirs], "{:.4f}"),
        _mean([held for _, held in theirs], "{:.0%}"),
        f"{np.mean([one.seconds for one in found]):.2f}",
    )


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(float(np.mean(values))) if len(values) else "-"


def _line(*cells: object) -> str:
    return "  ".join(f"{cell!s:>15}" for cell in cells)


if __name__ == "__main__":
    main()
