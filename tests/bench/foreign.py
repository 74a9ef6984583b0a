"""The optimizer beside its peers over foreign models: `python -m tests.bench.foreign [MODEL ...]` prints a table.

Each network of the corpus is optimized by `retune optimize` as a person runs it, told nothing, within a budget. Each
peer takes the file of version 1 by its own recipe. All versions are then measured in the same rounds of one process,
with one thread. A peer's version counts where it keeps the limits on quality that ours had to keep, without any
interval: ours had to prove them. p95 and size are ratios to version 1. `faster` and `smaller` are the best of the
peers, version 1 among them, divided by ours: above 1 ours is better. The best in speed and the best in size may be two
peers; `beaten by` names those that are better on one side and no worse on the other.
"""

import argparse
import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.latency import Effort, interleave_until, ratio
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.bundle import Bundle, open_bundle
from optimizer_jobs.models.engine import EngineOptions, Session
from optimizer_jobs.models.runtime import open_model
from retune.api.model import Dataset, Task
from tests.bench.optimizer.peers import Made, Peer, nncf_static, ort_prepared, ort_static
from tests.bench.optimizer.subjects import Subject
from tests.foreign.answers import MODEL, Outputs
from tests.foreign.corpus import CORPUS
from tests.foreign.delivered import Delivered, Foreign
from tests.foreign.figures import Limit, Reading, figure, limits, read
from tests.foreign.local import Budget, Ended, optimize

OURS, REFERENCE = "Retune", "version 1"
ENGINES = ("ONNXRuntime", "OpenVINO")
"""What ours may use, because the peers use both."""
EFFORT = Effort(max_seconds=20.0, half_width=0.02)
_AT_ONCE = 64
_NOTHING = 1e-12
_ALIKE = 0.01
"""Sizes that differ by less are alike."""


def _one_liner(_: Subject, model: Path, _rows: Rows, folder: Path) -> Path:
    """ONNX Runtime's dynamic quantization with nothing but the two files; where that fails, after its preprocessing."""
    from onnxruntime.quantization import quantize_dynamic

    try:
        quantize_dynamic(model, folder / "model.onnx")
    except ValueError:  # such as weights that are no initializers
        quantize_dynamic(ort_prepared(model, folder, symbolic=True), folder / "model.onnx")
    return folder / "model.onnx"


PEERS = (
    Peer("ORT dynamic", "onnxruntime", _one_liner),
    Peer("ORT static", "onnxruntime", ort_static),
    Peer("NNCF + OpenVINO", "openvino", nncf_static),
)


@dataclass(frozen=True)
class Version:
    """One version of a model."""

    made: Made
    size: int
    """Bytes of the file with its external data."""


@dataclass(frozen=True)
class Line:
    """One measured version."""

    name: str
    p95: Interval
    """p95 latency divided by that of version 1."""
    size: float
    """Size divided by that of version 1."""
    figures: Mapping[str, float]
    misses: tuple[str, ...]
    """Metrics whose limits it misses on the test rows; a version with none counts."""

    def beats(self, other: "Line") -> bool:
        """Return whether it is faster or smaller and neither slower nor larger, by more than the noise."""
        is_faster, is_slower = self.p95.high < other.p95.low, self.p95.low > other.p95.high
        is_smaller, is_larger = self.size < (1 - _ALIKE) * other.size, other.size < (1 - _ALIKE) * self.size
        return (is_faster and not is_larger) or (is_smaller and not is_slower)


@dataclass(frozen=True)
class Raced:
    """All versions of one model."""

    foreign: str
    lines: Mapping[str, Line]
    notes: Mapping[str, str]
    """Why there is no version of a peer, by its name."""
    verdict: str
    within: bool
    """Whether the search kept to its budget."""
    seconds: float
    """Of the whole run."""

    @property
    def faster(self) -> float:
        """p95 of the fastest version of others that counts, divided by ours; version 1 is one of them."""
        return min(line.p95.value for line in self._others) / self.lines[OURS].p95.value

    @property
    def smaller(self) -> float:
        """The same for size."""
        return min(line.size for line in self._others) / self.lines[OURS].size

    @property
    def beaten_by(self) -> list[str]:
        """Versions of others that count and beat ours."""
        return [line.name for line in self._others if line.beats(self.lines[OURS])]

    @property
    def _others(self) -> list[Line]:
        return [line for name, line in self.lines.items() if name != OURS and not line.misses]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench and print a table, the geometric means and the worst cases."""
    nets = [foreign for foreign in CORPUS if foreign.float_net and foreign.refused is None]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.foreign", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(net.name for net in nets)}; all")
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--seconds", type=int, default=90, help="of our search")
    options = parser.parse_args(arguments)
    console = Console(width=170)
    console.print(f"{fingerprint().short}, one thread for everybody")
    raced = []
    for foreign in (net for net in nets if net.name in (options.models or [net.name])):
        print(f"==> {foreign.name} (about 3 min)", flush=True)
        raced.append(_race(foreign, Budget(trials=options.trials, seconds=options.seconds, engines=ENGINES)))
        console.print(_table(raced[-1:]))
    console.print(_table(raced))
    for words in _summary(raced):
        console.print(words)


def _race(foreign: Foreign, budget: Budget) -> Raced:
    """Optimize one model by everybody, and measure what came of it."""
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as name, contextlib.chdir(name):  # peers leave files there
        folder = Path(name)
        (folder / "models").mkdir()
        delivered = foreign.make(folder / "models")
        ended = optimize(delivered, folder, budget)
        if not ended.document:
            raise RuntimeError(f"{foreign.name} was refused: {ended.said}")
        first = open_bundle(f"file://{ended.champion}")
        os.environ["RETUNE_CLAIM_ROOT"] = name
        versions, notes = _versions(foreign, ended, first, folder, budget.threads)
        held = limits(delivered, is_generic=first.manifest.task == Task.GENERIC)
        lines = _measure(versions, _rows(ended, first, "test"), delivered, held)
        within = ended.searched <= budget.longest
        return Raced(foreign.name, lines, notes, ended.document["verdict"], within, ended.seconds)


def _versions(
    foreign: Foreign, ended: Ended, first: Bundle, folder: Path, threads: int
) -> tuple[dict[str, Version], dict[str, str]]:
    """Return every version that can be opened, and why others cannot."""
    path = ended.document["paths"]["bundle"]
    winner = open_bundle(f"file://{(ended.folder / path).resolve()}") if path else first
    versions = {
        REFERENCE: Version(Made(first.model, EngineOptions(threads=threads)), first.manifest.size_bytes),
        OURS: Version(Made(winner.model, winner.manifest.engine), winner.manifest.size_bytes),
    }
    notes = {}
    rows = _rows(ended, first, "train")
    subject = Subject(name=foreign.name, task=first.manifest.task, margin={}, make=lambda _: None)
    for number, peer in enumerate(PEERS):
        try:
            made = peer.run(subject, first.model, rows, folder=folder / f"peer-{number}", threads=threads)
            _ask(open_model(made.model, made.engine), rows.take(np.arange(1)))
        except Exception as error:  # noqa: BLE001 - whatever a peer raises goes into the table
            notes[peer.name] = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        else:
            versions[peer.name] = Version(made, sum(file.stat().st_size for file in _files_of(made.model)))
    return versions, notes


def _files_of(model: Path) -> list[Path]:
    """Return the model file and the external data beside it."""
    return [model, *model.parent.glob(f"{MODEL}.data*")]


def _rows(ended: Ended, first: Bundle, split: str) -> Rows:
    """Return a data set as the run's manifest names it."""
    data = yaml.safe_load((ended.folder / "mo.yaml").read_text())["spec"]["data"]
    dataset = Dataset.model_validate(data["training" if split == "train" else split])
    return read_dataset(
        dataset, first.manifest.signature, into=ended.folder / f"read-{split}", task=Task(first.manifest.task)
    )


def _measure(
    versions: Mapping[str, Version], rows: Rows, delivered: Delivered, held: Sequence[Limit]
) -> dict[str, Line]:
    """Return quality, size and latency of all versions, timed in the same rounds."""
    sessions = {name: open_model(version.made.model, version.made.engine) for name, version in versions.items()}
    timings = interleave_until(
        sessions, rows, reference=REFERENCE, quantiles=(0.95,), confidence=0.95, seed=0, effort=EFFORT
    )
    answers = {name: read(_ask(session, rows), delivered) for name, session in sessions.items()}
    return {
        name: Line(
            name,
            ratio(timings[REFERENCE], timings[name], 0.95),
            version.size / versions[REFERENCE].size,
            _figures(answers[name], answers[REFERENCE], delivered, held),
            _misses(answers[name], answers[REFERENCE], delivered, held),
        )
        for name, version in versions.items()
    }


def _ask(session: Session, rows: Rows) -> Outputs:
    """Return every output for all rows."""
    fixed = session.signature.inputs[0].shape[0]
    size = fixed if fixed > 0 else _AT_ONCE
    parts = [
        session.run({name: np.ascontiguousarray(values[at : at + size]) for name, values in rows.inputs.items()})
        for at in range(0, len(rows), size)
    ]
    return {name: np.concatenate([np.array(part[name]) for part in parts]) for name in parts[0]}


def _figures(answers: Reading, reference: Reading, delivered: Delivered, held: Sequence[Limit]) -> dict[str, float]:
    values = {limit.metric: figure(limit.metric, answers, delivered, reference=reference) for limit in held}
    return {name: value for name, value in values.items() if value is not None}


def _misses(answers: Reading, reference: Reading, delivered: Delivered, held: Sequence[Limit]) -> tuple[str, ...]:
    """Return the metrics whose limits answers do not keep on the test rows themselves."""
    before, after = (_figures(reading, reference, delivered, held) for reading in (reference, answers))
    known = (limit for limit in held if limit.metric in after)
    return tuple(limit.metric for limit in known if not limit.kept(before[limit.metric], after[limit.metric]))


def _table(raced: Sequence[Raced]) -> Table:
    table = Table(box=None, pad_edge=False)
    names = [OURS, *(peer.name for peer in PEERS)]
    for column in (
        "model",
        "verdict",
        *(f"{name}: p95, size, quality" for name in names),
        "faster",
        "smaller",
        "beaten by",
    ):
        table.add_column(column, overflow="fold")
    for race in raced:
        cells = [_cell(race, name) for name in names]
        late = "" if race.within else ", over its budget"
        table.add_row(
            race.foreign,
            race.verdict + late,
            *cells,
            f"{race.faster:.2f}x",
            f"{race.smaller:.2f}x",
            ", ".join(race.beaten_by) or "none",
        )
    return table


def _cell(race: Raced, name: str) -> str:
    line = race.lines.get(name)
    if line is None:
        return race.notes[name]
    missed = f" (misses {', '.join(line.misses)})" if line.misses else ""
    quality = ", ".join(f"{name} {value:.3f}" for name, value in line.figures.items())
    p95 = f"{line.p95.value:.2f} ({line.p95.low:.2f} to {line.p95.high:.2f})"
    return f"{p95}, {line.size:.2f}, {quality}{missed}"


def _summary(raced: Sequence[Raced]) -> list[str]:
    """Return sentences with the geometric means and the worst cases."""
    sides: list[tuple[str, Callable[[Raced], float]]] = [
        ("faster", lambda race: race.faster),
        ("smaller", lambda race: race.smaller),
    ]
    words = []
    for side, of in sides:
        mean = math.exp(float(np.mean([math.log(max(of(race), _NOTHING)) for race in raced])))
        worst = min(raced, key=of)
        words.append(f"{side}: geometric mean {mean:.2f}x of the best peer, worst {of(worst):.2f}x ({worst.foreign})")
    beaten = [race.foreign for race in raced if race.beaten_by]
    named = f" ({', '.join(beaten)})" if beaten else ""
    words.append(f"beaten by a peer on one side and not better on the other: {len(beaten)} of {len(raced)}{named}")
    return words


if __name__ == "__main__":
    main()
