"""The command `gather`: build a run's data from recent production rows, or say why the original data is better.

What is built is built once: a Job started again finds its record and repeats it. Whatever keeps fresh data from being
good enough is no failure, because the original data is there.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from optimizer_jobs.commands.gather.mixing import mix, newest
from optimizer_jobs.commands.gather.sources import Labelled, Sources
from optimizer_jobs.commands.gather.splits import NAMES, SHARES, Splits, fingerprints, imbalance, split, without
from optimizer_jobs.data.datasets import Rows, joined, read_dataset
from optimizer_jobs.data.fetch import file_digest
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError, printable, store_access
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.progress import say, step
from optimizer_jobs.signature import TEXT, Signature
from retune.api.model import Dataset, Task
from retune.api.watched import FreshData, StoredData
from retune.contract.paths import run_folder
from retune.contract.requests import GatherRequest
from retune.contract.results import GatherResult

Array = NDArray[Any]

FOLDER = "data"
RECORD = "gathered.json"
_STEPS = 4
_WORDS = 1000


class NotEnoughError(Exception):
    """Why there is no fresh data, as a sentence."""


@dataclass(frozen=True)
class Sets:
    """What is written: rows by split, and what they were built from."""

    rows: Mapping[str, Rows]
    words: str


def run(request: GatherRequest) -> GatherResult:
    """Return the fresh data, or none and why.

    Raises:
        JobError: The champion, the original data, the folder of captured requests or the store cannot be used.
    """
    result = recorded(request)
    if result is not None:
        say("The data of this run is there already.")
        return result
    with tempfile.TemporaryDirectory(prefix="gather-") as scratch:
        try:
            return _gather(request, Path(scratch))
        except NotEnoughError as why:
            say(str(why))
            return GatherResult(spec_hash=request.spec_hash, run=request.run, message=printable(str(why), limit=_WORDS))


def recorded(request: GatherRequest) -> GatherResult | None:
    """Return what an earlier start of this same Job built."""
    try:
        found = GatherResult.model_validate_json((resolve(_folder(request)).local / RECORD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found if (found.run, found.spec_hash) == (request.run, request.spec_hash) else None


def _gather(request: GatherRequest, scratch: Path) -> GatherResult:
    if request.production.labels is None or request.refresh.policy == "Never":
        raise NotEnoughError("No production rows are used: there are no labels for them, or refresh.policy is Never.")
    champion = open_bundle(request.champion.uri, digest=request.champion.digest, into=scratch / "champion")
    sources = Sources(request, champion, scratch)
    step(1, _STEPS, text="reading labels and captured rows", about="1 s per 50,000 rows")
    known = sources.known(request.production.labels)
    labelled = sources.labelled(known, max_rows=round(request.refresh.max_rows / SHARES[0]))
    say(f"  {len(labelled.rows)} rows with labels{_listed(labelled.set_aside)}")
    _check_count(len(labelled.rows), request, labelled.set_aside)
    step(2, _STEPS, text="splitting them in the order of time, and mixing in the original data", about="5 s")
    sets = _sets(request, sources, labelled)
    step(3, _STEPS, text="writing the data", about="5 s")
    written = _write(request, sets, sources.signature, scratch)
    step(4, _STEPS, text="checking it as the search will read it", about="5 s")
    _check_readable(request, sources, written, scratch)
    return _publish(request, sets, written)


def _check_count(count: int, request: GatherRequest, set_aside: Mapping[str, int]) -> None:
    if count < request.refresh.min_rows:
        raise NotEnoughError(
            f"The original data is used: {count} labelled production rows in the last {request.refresh.span}, and "
            f"refresh.minRows is {request.refresh.min_rows}{_listed(set_aside)}."
        )


def _sets(request: GatherRequest, sources: Sources, labelled: Labelled) -> Sets:
    found = split(labelled.rows)
    fresh = {name: _rows(labelled, found.places[name]) for name in NAMES}
    _check_count(sum(map(len, fresh.values())), request, {"rows that come again later": found.repeated})
    empty = [name for name, rows in fresh.items() if not len(rows)]
    if empty:
        raise NotEnoughError(f"The original data is used: no row is left for {', '.join(empty)}.")
    if sources.champion.manifest.task is Task.CLASSIFICATION:
        _check_classes({name: rows.answers for name, rows in fresh.items()})
    original = sources.original()
    training, used = _training(request, fresh, original)
    words = _words(_span(request, labelled), fresh, found, used=used, set_aside=labelled.set_aside)
    return Sets({**fresh, "training": training}, words)


def _check_classes(labels: Mapping[str, Array]) -> None:
    if len({found.dtype.kind for found in labels.values()}) > 1:
        raise NotEnoughError("The original data is used: some labels are numbers and some are text.")
    missing = imbalance(labels)
    if missing is not None:
        raise NotEnoughError(f"The original data is used: {missing}.")


def _training(request: GatherRequest, fresh: Mapping[str, Rows], original: Rows | None) -> tuple[Rows, int]:
    """Return the training rows and how many different ones of them are original."""
    recent, limit = fresh["training"], request.refresh.max_rows
    if request.refresh.policy != "Mixed" or original is None:
        return recent.take(newest(len(recent), limit=limit)), 0
    judged = {each for name in NAMES[1:] for each in fingerprints(fresh[name].inputs)}
    old = without(original, judged)
    if not len(old) or not _alike(recent, old):
        return recent.take(newest(len(recent), limit=limit)), 0
    share = float(request.refresh.recent_share)
    mine, theirs = mix(len(recent), len(old), share=share, limit=limit, seed=request.seed)
    return joined([recent.take(mine), old.take(theirs)]), len(np.unique(theirs))


def _alike(one: Rows, other: Rows) -> bool:
    """Whether rows can stand in one data set."""
    shapes = all(values.shape[1:] == other.inputs[name].shape[1:] for name, values in one.inputs.items())
    return shapes and (one.answers.dtype.kind == "U") == (other.answers.dtype.kind == "U")


def _rows(labelled: Labelled, places: Array) -> Rows:
    chosen = labelled.rows.take(places)
    return Rows(inputs=chosen.inputs, labels=labelled.labels[places], digest="")


def _write(request: GatherRequest, sets: Sets, signature: Signature, scratch: Path) -> Path:
    """Write all files into a folder of this Job's own, and return it; their labels are called as validation's are."""
    folder = scratch / "written"
    folder.mkdir()
    for name, rows in sets.rows.items():
        arrays = {spec.name: _plain(rows.inputs[spec.name], spec.dtype) for spec in signature.inputs}
        label = request.data.validation.label_column
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays, **{label: rows.answers})
    return folder


def _plain(values: Array, dtype: str) -> Array:
    return values.astype(np.str_) if dtype == TEXT else values


def _check_readable(request: GatherRequest, sources: Sources, written: Path, scratch: Path) -> None:
    """See that the search can read the files; whatever a model cannot learn from shows here."""
    manifest = sources.champion.manifest
    for name in NAMES:
        spec = Dataset.model_construct(
            uri=f"file://{written}/{name}.npz",
            digest=None,
            format=None,
            label_column=request.data.validation.label_column,
        )
        try:
            read_dataset(
                spec,
                manifest.signature,
                into=scratch / "again" / name,
                task=manifest.task,
                missing=bool(manifest.accepts_missing),
            )
        except JobError as error:
            raise NotEnoughError(f"The original data is used: in the {name} rows, {error.message}") from error


def _publish(request: GatherRequest, sets: Sets, written: Path) -> GatherResult:
    """Put the folder into the store whole or not at all."""
    uri = _folder(request)
    files = {name: f"{name}.npz" for name in NAMES}
    stored = {
        name: StoredData(uri=f"{uri}/{file}", digest=file_digest(written / file), rows=len(sets.rows[name]))
        for name, file in files.items()
    }
    fresh = FreshData(**stored, words=sets.words)
    result = GatherResult(spec_hash=request.spec_hash, run=request.run, fresh=fresh, message=sets.words)
    (written / RECORD).write_bytes(result.model_dump_json(by_alias=True, exclude_none=True).encode())
    target = resolve(uri).local
    with store_access(uri):
        _place(written, target)
    say(sets.words)
    return result


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(source, beside)
        for path in beside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _folder(request: GatherRequest) -> str:
    return f"{run_folder(request.store, request.run)}/{FOLDER}"


def _span(request: GatherRequest, labelled: Labelled) -> str:
    if labelled.since != request.changed:
        return f"of the last {request.refresh.span}"
    return f"since {datetime.fromtimestamp(labelled.since, tz=UTC):%Y-%m-%d %H:%M:%S} UTC, when the live data changed"


def _words(span: str, fresh: Mapping[str, Rows], found: Splits, *, used: int, set_aside: Mapping[str, int]) -> str:
    counts = ", ".join(f"{len(fresh[name])} for {name}" for name in NAMES)
    mixed = f", training mixed with {used} original rows" if used else ""
    aside = {**set_aside, **({"rows that come again later": found.repeated} if found.repeated else {})}
    return printable(f"Labelled production rows {span}: {counts}{mixed}{_listed(aside)}.", limit=_WORDS)


def _listed(set_aside: Mapping[str, int]) -> str:
    if not set_aside:
        return ""
    return f"; set aside: {', '.join(f'{count} {reason}' for reason, count in sorted(set_aside.items()))}"
