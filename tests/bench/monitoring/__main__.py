"""How often monitoring cries wolf and how soon it sees a change: `python -m tests.bench.monitoring` prints tables.

Windows are drawn from real rows that a real model answers, through the check's own code, 50 windows to a reference as
they share one in a cluster. A false alarm is a raised signal: as many breaches in a row as the defaults ask for. Beside
stand Evidently's defaults on the same windows. Times belong to this machine.
"""

import argparse
import itertools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from tests.bench.monitoring import alarms, costs, segments, tradeoff
from tests.bench.monitoring.picture import curve
from tests.bench.monitoring.worlds import LOADERS, World, world
from tests.bench.streams.sources import SOURCES

REFERENCE_ROWS = {"breast_cancer": 200, "wine": 100, "digits": 500}
QUIET = ((500, 0.0, None), (500, 0.2, None), (2000, 0.9, 2000))
"""Rows of a window, how much each row resembles the one before, and rows of the reference where not as above."""
HARD = 0.3
"""Size of the change of the picture, in standard deviations: large enough to matter, and hard to see."""
SHIFTS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
ROWS = 500
OUT = Path(os.environ.get("RETUNE_CACHE", "out")) / "bench-monitoring"
"""Where the picture goes: beside what is downloaded, or else below the tree."""
BESIDE = 300


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.monitoring", description=__doc__)
    parser.add_argument("--windows", type=int, default=2000, help="windows without a change, a world (default: 2000)")
    parser.add_argument("--runs", type=int, default=40, help="changes, a size and world (default: 40)")
    parser.add_argument("--worlds", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--skip-costs", action="store_true", help="do not measure time and memory")
    parser.add_argument("--only-segments", action="store_true", help="the part of segments alone")
    parser.add_argument("--packages", type=Path, help="folder of the packages with streams, for segments of their rows")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the picture")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    names = [*options.worlds, *(SOURCES if options.packages else ())]
    _segments(names, options.packages, windows=options.windows, runs=options.runs)
    if options.only_segments:
        return
    worlds = [world(name) for name in options.worlds]
    _quiet(worlds, options.windows)
    _changes(worlds, options.runs)
    _tradeoff(worlds, max(alarms.PER_REFERENCE, options.windows // 2), options.runs, options.out)
    if not options.skip_costs:
        _costs()


def _quiet(worlds: Sequence[World], windows: int) -> None:
    beside = min(BESIDE, windows)
    print(f"False alarms without a change, in {windows} windows each, {beside} of them shown to Evidently's defaults")
    heads = ("world", "rows", "rho", "windows", "breaches", "raised", "unknown", "raised in 1000")
    print(_line(*heads, "Evidently: drifted", "some column"))
    for each in worlds:
        for rows, rho, reference in QUIET:
            found = alarms.quiet(
                each,
                windows=windows,
                rows=rows,
                reference=reference or REFERENCE_ROWS[each.name],
                rho=rho,
                beside=beside,
            )
            per_mille = f"{1000 * found.raised / found.windows:.2f}"
            counts = (found.windows, found.breaches, found.raised, found.unknown, per_mille)
            theirs = [f"{share / found.evidently_windows:.1%}" for share in (found.evidently, found.evidently_any)]
            print(_line(each.name, rows, rho, *counts, *theirs), flush=True)


def _changes(worlds: Sequence[World], runs: int) -> None:
    print(f"\nA shift of a quarter of the columns, {ROWS} rows a window, {runs} runs each: windows until the alarm")
    print(_line("world", "shift", "within 2", "median", "missed"))
    for each in worlds:
        for size in SHIFTS:
            found = sorted(
                alarms.delays(
                    each, deviations=size, share=0.25, runs=runs, rows=ROWS, reference=REFERENCE_ROWS[each.name]
                )
            )
            soon = sum(delay <= 2 for delay in found) / len(found)
            missed = sum(delay > alarms.DELAY_LIMIT for delay in found)
            print(_line(each.name, size, f"{soon:.0%}", found[len(found) // 2], missed), flush=True)


def _segments(names: Sequence[str], packages: Path | None, *, windows: int, runs: int) -> None:
    """Print false alarms of segments without a change, and how soon a loss in one is raised."""
    print(f"Segments without a change, {windows} windows each")
    heads = ("rows", "rho", "reference", "columns", "segments", "windows", "breaches", "raised", "raised in 1000")
    print(_line("world", *heads))
    places = [segments.place(name, packages) for name in names]
    for each in places:
        eight = [str(name) for name in each.rows][-8:]
        for rows, rho, reference, columns in (
            (500, 0.0, 1000, None),
            (2000, 0.0, 5000, eight),
            (2000, 0.3, 5000, eight),
        ):
            found = segments.quiet(each, windows=windows, rows=rows, reference=reference, columns=columns, rho=rho)
            per_mille = f"{1000 * found.raised / found.windows:.2f}"
            counts = (f"{found.segments:.1f}", found.windows, found.breaches, found.raised, per_mille)
            print(_line(each.name, rows, rho, reference, "8" if columns else "chosen", *counts), flush=True)
    print(f"\nA loss in one segment alone, {runs} runs each: windows until it is raised, and whether the whole is, too")
    print(_line("world", "share", "segment", "loss", "rows", "within 2", "median", "missed", "whole raised"))
    for each in places:
        for share, loss, rows in itertools.product((0.05, 0.1, 0.25), (0.15, 0.3), (1000, 5000)):
            told = segments.planted(each, share=share, loss=loss, runs=runs, rows=rows, reference=5000)
            if told is None:
                continue
            soon = f"{sum(delay <= 2 for delay in told.delays) / runs:.0%}"
            missed = sum(delay > alarms.DELAY_LIMIT for delay in told.delays)
            cells = (f"{told.share:.1%}", told.segment, loss, rows, soon, told.delays[runs // 2], missed, told.whole)
            print(_line(each.name, *cells), flush=True)
    print()


def _tradeoff(worlds: Sequence[World], windows: int, runs: int, out: Path) -> None:
    title = f"A quarter of the columns shifted by {HARD} deviations: {windows} quiet windows and {runs} runs a world"
    print(f"\n{title}")
    print(_line("rule", "setting", "alarms in 1000", "mean delay"))
    found = tradeoff.sample(worlds, REFERENCE_ROWS, windows=windows, runs=runs, rows=ROWS, deviations=HARD)
    lines = tradeoff.curves(found)
    for name, line in lines.items():
        for each in line:
            mark = " (default)" if each.default else ""
            print(_line(name, each.setting, f"{each.alarms:.2f}", f"{each.delay:.1f}{mark}"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "delay.svg").write_text(curve(lines, title=title))
    print(f"Picture: {out / 'delay.svg'}", flush=True)


def _costs() -> None:
    print(f"\nOne check, reference of {costs.REFERENCE_ROWS} rows; CPU seconds and most memory")
    print(_line("rows x columns", *costs.RUNS))
    for rows, columns in costs.SIZES:
        found = [costs.measure(name, rows, columns) for name in costs.RUNS]
        words = [f"{each.seconds:.1f} s {each.megabytes:.0f} MB" if each else "not done" for each in found]
        print(_line(f"{rows} x {columns}", *words), flush=True)


def _line(*cells: object) -> str:
    return "  ".join(f"{cell!s:>16}" for cell in cells)


if __name__ == "__main__":
    main()
