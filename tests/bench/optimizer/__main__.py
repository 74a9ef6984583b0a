"""How Retune's optimizer compares with its peers: `python -m tests.bench.optimizer [SUBJECT ...]` prints a table.

For each model: every peer's recipe, then one run of ours within a time budget and told nothing but the objectives; then
all versions are measured side by side in the same rounds of one process, against ONNX Runtime with the file as it was
delivered. Latency is p95 of requests with real rows; below 1 is faster. Times belong to this machine, ratios less so.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from tests.bench.optimizer import ours
from tests.bench.optimizer.peers import PEERS, Made, Peer
from tests.bench.optimizer.race import REFERENCE, Line, beside_mark, race, read
from tests.bench.optimizer.subjects import SUBJECTS, Subject
from tests.bench.optimizer.trees import missing

OURS, TIGHTER = "Retune", "Retune's search, tighter limit"
"""The second is not judged: its limit lies nearer to what it found than 400 rows can tell apart."""
MINUTES = {"minilm": 20.0}
"""Time for our search; the other models get FEW_MINUTES."""
FEW_MINUTES = 4.0
TRIALS = 60


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench and print one table a model."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.optimizer", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(names)}; all")
    parser.add_argument("--minutes", type=float, help="time for our search, in place of the usual")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--tighter", type=float, default=0.0, help="minutes of a second search with a tighter limit, where there is one"
    )
    options = parser.parse_args(arguments)
    console = Console(width=150)
    console.print(f"{fingerprint().short}, {options.threads} threads for everybody")
    for words in engine_words(options.subjects or names):
        console.print(words)
    if TREES in (options.subjects or names) and (reason := missing()) is not None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as folder:
        os.environ["RETUNE_CLAIM_ROOT"] = folder
        os.chdir(folder)  # peers leave files where they are called
        for subject in SUBJECTS:
            if subject.name in (options.subjects or names):
                minutes = options.minutes or MINUTES.get(subject.name, FEW_MINUTES)
                tighter = {TIGHTER: options.tighter} if options.tighter and subject.tighter else {}
                searches = {OURS: minutes, **tighter}
                lines = _lines(subject, Path(folder), searches, options.threads)
                console.print(_table(subject, lines))
                for words in beside_mark(lines, subject.mark, ours=tuple(searches)):
                    console.print(words)


TREES = "boosted-trees"
"""The subject that has trees."""
SLOW_TREES = ("1.23.",)
"""Versions of ONNX Runtime, by their beginning, for which twice the time in trees was reported."""


def engine_words(subjects: Sequence[str], version: str | None = None) -> list[str]:
    """Return which ONNX Runtime answers, and a warning where trees are measured with a version that is slow at them.

    Args:
        subjects: Names of the models that are measured.
        version: The version; by default, that of the installed one.
    """
    import onnxruntime

    version = version or str(onnxruntime.__version__)
    slow = TREES in subjects and version.startswith(SLOW_TREES)
    warning = f"WARNING: version {version} is known to be slow at trees: their times say nothing about other versions"
    return [f"ONNX Runtime {version}", *([warning] if slow else [])]


def _lines(subject: Subject, root: Path, searches: Mapping[str, float], threads: int) -> list[Line]:
    """Return a line for each peer and each of our searches, given by name and minutes."""
    print(f"==> {subject.name}: making the model (about 1 min)", flush=True)
    (root / subject.name).mkdir()
    subject.make(root / subject.name)
    model = root / subject.name / "model.onnx"
    signature = check_onnx(model)
    versions = {REFERENCE: Made(model, EngineOptions(threads=threads))}
    seconds: dict[str, float] = {}
    notes: dict[str, str] = {}
    rows = read(subject, "training", signature, into=root / "scratch")
    for peer in PEERS:
        print(f"==> {subject.name}: {peer.name} (about 20 s)", flush=True)
        began = time.monotonic()
        made = _try(peer, subject, model, rows, folder=root / subject.name / f"peer-{len(notes)}", threads=threads)
        if isinstance(made, Made):
            versions[peer.name], seconds[peer.name] = made, time.monotonic() - began
        notes[peer.name] = made if isinstance(made, str) else ""
    for number, (name, minutes) in enumerate(searches.items(), start=1):
        print(f"==> {subject.name}: {name}, {minutes:g} min of search at most", flush=True)
        outcome = ours.optimize(
            replace(subject, margin=subject.tighter) if name == TIGHTER else subject,
            store=f"pvc://{subject.name}/store-{number}",
            threads=threads,
            minutes=minutes,
            trials=TRIALS,
            judged=name != TIGHTER,
        )
        versions[name], seconds[name], notes[name] = outcome.made, outcome.seconds, outcome.words
    print(f"==> {subject.name}: measuring {len(versions)} versions side by side (about 2 min)", flush=True)
    measured = race(subject, versions, signature=signature, scratch=root / "scratch")
    return [
        *(
            Line(
                name,
                quality,
                ratios,
                _size(versions[name]) / _size(versions[REFERENCE]),
                seconds.get(name),
                notes.get(name, ""),
            )
            for name, (quality, ratios) in measured.items()
        ),
        *(Line(peer.name, {}, (), float("nan"), None, notes[peer.name]) for peer in PEERS if peer.name not in measured),
    ]


def _try(peer: Peer, subject: Subject, model: Path, rows: Rows, *, folder: Path, threads: int) -> Made | str:
    """Return a peer's version, or why there is none: it raised, or its file does not open or answer."""
    try:
        made = peer.run(subject, model, rows, folder=folder, threads=threads)
        open_model(made.model, made.engine).run({name: values[:1] for name, values in rows.inputs.items()})
    except Exception as error:  # noqa: BLE001 - whatever a peer raises goes into the table
        return " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return made


def _size(made: Made) -> int:
    return made.model.stat().st_size


def _table(subject: Subject, lines: Sequence[Line]) -> Table:
    table = Table(title=subject.name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    shapes = [f"p95, {batch} {'row' if batch == 1 else 'rows'} of {split}" for batch, split in subject.shapes]
    for column in ("version", "quality", *shapes, "size", "seconds", "note"):
        table.add_column(column, overflow="fold")
    for line in lines:
        quality = ", ".join(f"{name} {value:.4f}" for name, value in line.quality.items())
        times = [f"x{each.value:.3f} ({each.low:.3f}..{each.high:.3f})" for each in line.ratios] or ["-"] * len(shapes)
        size = "-" if math.isnan(line.size_ratio) else f"x{line.size_ratio:.3f}"
        spent = "-" if line.seconds is None else f"{line.seconds:.0f}"
        table.add_row(line.name, quality or "-", *times, size, spent, line.note)
    return table


if __name__ == "__main__":
    main()
