"""The command `gather`: build a run's data from recent production rows, or say why the original data is used.

The data is built only once; a Job that is started again returns the recorded result, if it has sealed it itself. It is
not a failure when the production rows are not good enough, because the run can use the original data.
"""

import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from optimizer_jobs.commands.gather.choosing import choose
from optimizer_jobs.commands.gather.policies import Parts, Policy, TrainingSet, all_sets, recent_only
from optimizer_jobs.commands.gather.sources import Labelled, Sources
from optimizer_jobs.commands.gather.splits import Splits, fingerprints, imbalance, in_time, rare_label, split, without
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.times import NAMES, SHARES
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.measure.label_sets import true_sets
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.labels import OTHERS
from optimizer_jobs.progress import say, step
from optimizer_jobs.quota import require_room
from optimizer_jobs.seal import own_seal
from optimizer_jobs.signature import TEXT, Signature
from optimizer_jobs.stores.base import AbsentError
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.published import open_bundle
from optimizer_jobs.stores.records import read_record, run_key
from retune.api.model import Data, Dataset, Task
from retune.api.production import Labels
from retune.api.watched import FreshData, StoredData
from retune.contract.paths import run_folder
from retune.contract.requests import GatherRequest
from retune.contract.results import GatherResult

Array = NDArray[Any]

FOLDER = "data"
RECORD = "gathered.json"
JUDGED = NAMES[1:]
"""Splits that models are judged by: they have the groups and weights of the labels."""
_STEPS = 4
_WORDS = 1000
_THREADS = 1
"""Threads that quick learners use: they take seconds, and give the same on every node."""


class NotEnoughError(Exception):
    """The production rows cannot be used; the message is a sentence."""


@dataclass(frozen=True)
class Sets:
    """The data sets that are written."""

    rows: Mapping[str, Rows]
    """Rows by split."""
    policy: Policy
    """How the training rows were put together."""
    words: str
    """A sentence on what they were built from."""


def run(request: GatherRequest) -> GatherResult:
    """Return the fresh data, or why there is none.

    Raises:
        JobError: The champion, the original data, the folder of captured requests or the store cannot be used.
    """
    result = recorded(request)
    if result is not None:
        say("The data of this run is there already.")
        return result
    require_room(request.store)
    with tempfile.TemporaryDirectory(prefix="gather-") as scratch:
        try:
            return _gather(request, Path(scratch))
        except NotEnoughError as why:
            say(str(why))
            return GatherResult(spec_hash=request.spec_hash, run=request.run, message=printable(str(why), limit=_WORDS))


def recorded(request: GatherRequest) -> GatherResult | None:
    """Return the result that an earlier start of this Job recorded, or None."""
    try:
        record = read_record(open_store(request.store), run_key(request.run, FOLDER, RECORD), own_seal())
        result = GatherResult.model_validate(record)
    except AbsentError:
        return None
    except ValidationError:
        say(f"{_folder(request)}/{RECORD} was not sealed by this Job: it is not believed, and the data is built again.")
        return None
    return result if (result.run, result.spec_hash) == (request.run, request.spec_hash) else None


def _gather(request: GatherRequest, scratch: Path) -> GatherResult:
    if request.production.labels is None or request.refresh.policy == "Never":
        raise NotEnoughError("No production rows are used: there are no labels for them, or refresh.policy is Never.")
    _check_columns(request.data, request.production.labels)
    champion = open_bundle(request.champion.uri, digest=request.champion.digest, into=scratch / "champion")
    sources = Sources(request, champion, scratch)
    step(1, _STEPS, text="reading labels and captured rows", about="1 s per 50,000 rows")
    known = sources.known(request.production.labels)
    labelled = sources.labelled(known, max_rows=round(request.refresh.max_rows / SHARES[0]))
    say(f"  {len(labelled.rows)} rows with labels{_listed(labelled.set_aside)}")
    _check_count(len(labelled.rows), request, labelled.set_aside)
    step(2, _STEPS, text="splitting them by time, and choosing what to learn from", about="20 s")
    sets = _sets(request, sources, labelled)
    step(3, _STEPS, text="writing the data", about="5 s")
    written = _write(request, sets, sources.signature, scratch)
    step(4, _STEPS, text="checking it as the search will read it", about="5 s")
    _check_readable(request, sources, written, scratch)
    return _publish(request, sets, written)


def _check_columns(data: Data, labels: Labels) -> None:
    """Refuse labels without the groups or weights that the original data is judged by: the yardstick would differ."""
    judged = [spec for spec in (data.validation, data.test) if spec is not None]
    for what, field, there in (
        ("groups", "groupColumn", labels.group_column or not any(spec.group_column for spec in judged)),
        ("weights", "weightColumn", labels.weight_column or not any(spec.weight_column for spec in judged)),
    ):
        if not there:
            raise NotEnoughError(
                f"The original data is used: it is judged by {what}, and production rows have none: name their column "
                f"in production.labels.{field}."
            )


def _check_count(count: int, request: GatherRequest, set_aside: Mapping[str, int]) -> None:
    if count < request.refresh.min_rows:
        raise NotEnoughError(
            f"The original data is used: {count} labelled production rows in the last {request.refresh.span}, and "
            f"refresh.minRows is {request.refresh.min_rows}{_listed(set_aside)}."
        )


def _sets(request: GatherRequest, sources: Sources, labelled: Labelled) -> Sets:
    splits = split(labelled.rows)
    fresh = {name: _rows(labelled, splits.indices[name]) for name in NAMES}
    _check_count(sum(map(len, fresh.values())), request, {"rows that another part has, too": splits.repeated})
    empty = [name for name, rows in fresh.items() if not len(rows)]
    if empty:
        raise NotEnoughError(f"The original data is used: no row is left for {', '.join(empty)}.")
    _check_width(request.data.validation, fresh["test"].answers)
    _check_labels({name: rows.answers for name, rows in fresh.items()}, sources.champion.manifest, labelled)
    before = tuple(_rows(labelled, places) for places in in_time(splits))
    training, choice = _training(request, fresh, before, sources)
    words = _words(_span(request, labelled), fresh, splits, training=training, set_aside=labelled.set_aside)
    return Sets({**fresh, "training": training.rows}, training.policy, printable(f"{words}{choice}", limit=_WORDS))


def _check_width(data: Dataset, answers: Array) -> None:
    """Refuse rows of production with another number of labels than the original data has columns of them."""
    columns, width = data.label_columns or (), answers.shape[1] if answers.ndim > 1 else 1
    if columns and width != len(columns):
        raise NotEnoughError(
            f"The original data is used: its labels are {len(columns)} columns (data.*.labelColumns), and a row of "
            f"production.labels has {width}."
        )


def _check_labels(labels: Mapping[str, Array], manifest: Manifest, labelled: Labelled) -> None:
    if manifest.task is Task.CLASSIFICATION:
        _check_classes(labels)
    if manifest.task is Task.MULTI_LABEL:
        _check_sets(labels, manifest, labelled)


def _check_sets(labels: Mapping[str, Array], manifest: Manifest, labelled: Labelled) -> None:
    """Refuse labels that are not a zero or one for every label of the model, and labels that a split lacks."""
    if labelled.set_aside.get(OTHERS):
        raise NotEnoughError(
            f"The original data is used: {labelled.set_aside[OTHERS]} labels have another form than most."
        )
    try:
        labels_given = true_sets(labelled.truth.labels).shape[1]
    except UnfitAnswersError as error:
        raise NotEnoughError(f"The original data is used: {error}.") from error
    answered = _labels_answered(manifest.signature, labelled)
    if answered not in {None, labels_given}:
        words = f"a row has {labels_given} labels, and the model answers {answered}"
        raise NotEnoughError(f"The original data is used: {words}.")
    missing = rare_label(labels)
    if missing is not None:
        raise NotEnoughError(f"The original data is used: {missing}.")


def _labels_answered(signature: Signature, labelled: Labelled) -> int | None:
    """Return how many labels the model answers for a row; None where no output is known to hold them."""
    reading = signature.reading
    name = None if reading is None else reading.scores or reading.label
    return None if name is None else int(labelled.rows.outputs[name].shape[-1])


def _check_classes(labels: Mapping[str, Array]) -> None:
    if len({values.dtype.kind for values in labels.values()}) > 1:
        raise NotEnoughError("The original data is used: some labels are numbers and some are text.")
    missing = imbalance(labels)
    if missing is not None:
        raise NotEnoughError(f"The original data is used: {missing}.")


def _parts(request: GatherRequest, recent: Rows, judged: Iterable[Rows], original: Rows | None) -> Parts:
    """Return what training sets are made of: original rows that are among those that judge are left out."""
    refresh, old = request.refresh, original
    if old is not None:
        old = without(old, {fingerprint for rows in judged for fingerprint in fingerprints(rows.inputs)})
    usable = old is not None and len(old) > 0 and _compatible(recent, old)
    share = float(refresh.recent_share)
    return Parts(recent, old if usable else None, share=share, limit=refresh.max_rows, seed=request.seed)


def _training(
    request: GatherRequest, fresh: Mapping[str, Rows], before: tuple[Rows, ...], sources: Sources
) -> tuple[TrainingSet, str]:
    """Return the training set that the spec names, or the one that is best for newer rows, and why that is so.

    Args:
        request: The request.
        fresh: Rows by split.
        before: All rows but the test's, older and newer ones, on which ways to make a training set are compared.
        sources: Where the original rows come from.
    """
    original, task = sources.original(), sources.champion.manifest.task
    parts = _parts(request, fresh["training"], [fresh[name] for name in JUDGED], original)
    if request.refresh.policy == "RecentOnly":
        return recent_only(parts), ""
    with threadpool_limits(_THREADS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sets = all_sets(parts)
        usual = next(iter(sets.values()))
        if request.refresh.policy != "Auto":
            return sets.get(Policy(request.refresh.policy), usual), ""
        older, newer = before
        compared = all_sets(_parts(request, older, [newer, fresh["test"]], original))
        choice = choose(compared, newer, task=task, linear=sources.is_linear, seed=request.seed)
    return sets.get(choice.policy, usual), f" Chosen to learn from: {choice.words}."


def _compatible(recent: Rows, old: Rows) -> bool:
    """Return whether two sets of rows can be joined: equal shapes, and labels that are either all text or all not."""
    shapes = all(values.shape[1:] == old.inputs[name].shape[1:] for name, values in recent.inputs.items())
    alike = recent.answers.shape[1:] == old.answers.shape[1:]
    return shapes and alike and (recent.answers.dtype.kind == "U") == (old.answers.dtype.kind == "U")


def _rows(labelled: Labelled, indices: Array) -> Rows:
    truth = labelled.truth
    return Rows(
        inputs=labelled.rows.take(indices).inputs,
        labels=truth.labels[indices],
        digest="",
        groups=None if truth.groups is None else truth.groups[indices],
        weights=None if truth.weights is None else truth.weights[indices],
    )


def _write(request: GatherRequest, sets: Sets, signature: Signature, scratch: Path) -> Path:
    """Write all files into a scratch folder and return it; the label column is named as in the validation data."""
    folder = scratch / "written"
    folder.mkdir()
    for name, rows in sets.rows.items():
        arrays = {spec.name: _plain(rows.inputs[spec.name], spec.dtype) for spec in signature.inputs}
        beside = _beside(request, rows) if name in JUDGED else {}
        label = request.data.validation.label
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **{**beside, **arrays, label: rows.answers})
    return folder


def _beside(request: GatherRequest, rows: Rows) -> dict[str, Array]:
    """Return the groups and weights of rows under the names of their columns."""
    labels = request.production.labels
    named = {} if labels is None else {labels.group_column: rows.groups, labels.weight_column: rows.weights}
    return {name: values for name, values in named.items() if name is not None and values is not None}


def _plain(values: Array, dtype: str) -> Array:
    return values.astype(np.str_) if dtype == TEXT else values


def _check_readable(request: GatherRequest, sources: Sources, written: Path, scratch: Path) -> None:
    """Read the files as the search will read them; raises NotEnoughError when the search could not use them."""
    label, labels = request.data.validation.label, request.production.labels
    for name in NAMES:
        uri = f"file://{written}/{name}.npz"
        columns = labels.beside if labels is not None and name in JUDGED else {}
        spec = Dataset.model_construct(uri=uri, digest=None, format=None, label_column=label)
        try:
            sources.read(spec.model_copy(update=columns), into=scratch / "again" / name)
        except JobError as error:
            raise NotEnoughError(f"The original data is used: in the {name} rows, {error.message}") from error


def _publish(request: GatherRequest, sets: Sets, written: Path) -> GatherResult:
    """Copy the files into the store, and the sealed record last, so that a record means that all is there."""
    uri = _folder(request)
    stored = {name: _stored(f"{uri}/{name}.npz", written / f"{name}.npz", sets.rows[name]) for name in NAMES}
    fresh = FreshData(**stored, policy=sets.policy, words=sets.words)
    result = GatherResult(spec_hash=request.spec_hash, run=request.run, fresh=fresh, message=sets.words)
    store = open_store(request.store)
    for name in NAMES:
        store.replace(run_key(request.run, FOLDER, f"{name}.npz"), written / f"{name}.npz")
    store.replace(run_key(request.run, FOLDER, RECORD), own_seal().sealed(result.to_dict()))
    say(sets.words)
    return result


def _stored(uri: str, file: Path, rows: Rows) -> StoredData:
    return StoredData(uri=uri, digest=file_digest(file), rows=len(rows))


def _folder(request: GatherRequest) -> str:
    return f"{run_folder(request.store, request.run)}/{FOLDER}"


def _span(request: GatherRequest, labelled: Labelled) -> str:
    if labelled.since != request.changed:
        return f"of the last {request.refresh.span}"
    return f"since {datetime.fromtimestamp(labelled.since, tz=UTC):%Y-%m-%d %H:%M:%S} UTC, when the live data changed"


def _words(
    span: str, fresh: Mapping[str, Rows], splits: Splits, *, training: TrainingSet, set_aside: Mapping[str, int]
) -> str:
    counts = ", ".join(f"{len(fresh[name])} for {name}" for name in NAMES)
    resembling = " that resemble them" if training.policy is Policy.WEIGHTED else ""
    mixed = f", training mixed with {training.original} original rows{resembling}" if training.original else ""
    repeated = {"rows that another part has, too": splits.repeated} if splits.repeated else {}
    listed = _listed({**set_aside, **repeated})
    return f"Labelled production rows {span}: {counts}{mixed}{listed}."


def _listed(set_aside: Mapping[str, int]) -> str:
    if not set_aside:
        return ""
    return f"; set aside: {', '.join(f'{count} {reason}' for reason, count in sorted(set_aside.items()))}"
