"""The baseline Job: check the delivered model and all data, publish version 1's bundle, and measure it.

The model is not changed: version 1 is the delivered ONNX file, byte for byte, or the conversion of the delivered file,
with sensible engine options.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from optimizer_jobs.data.datasets import Rows, joined, read_dataset
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.data.overlap import overlap
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.delivery import Opened, fetch_model, open_delivered
from optimizer_jobs.measure.answers import Answers, UnfitAnswersError, answer
from optimizer_jobs.measure.chance import no_better_than_chance
from optimizer_jobs.measure.finding import classes_of_graph, find_reading
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.latency import interleave_until
from optimizer_jobs.measure.quality import MAIN, evaluate
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle, publish
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.missing import unanswered
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.production.stored import store_reference
from optimizer_jobs.progress import say, step
from retune.api.model import Data, Dataset, Task
from retune.api.objectives import Metric
from retune.api.status import Measurement
from retune.contract.paths import bundles
from retune.contract.requests import BaselineRequest
from retune.contract.results import BaselineResult, Reason

CONFIDENCE = 0.95
SUBJECT = "model"
LIBRARIES = ("onnxruntime", "onnx", "numpy")
"""Libraries whose versions a bundle records."""

_UNSEEN = "Give test data that nothing else uses."
_STEPS = 5
_ROLES = {
    Task.CLASSIFICATION: "a classifier",
    Task.REGRESSION: "a regression",
    Task.EMBEDDING: "an embedding",
}
_QUANTILES = {Metric.LATENCY_P50_MS: 0.5, Metric.LATENCY_P95_MS: 0.95}


def run(request: BaselineRequest) -> BaselineResult:
    """Return the published bundle of version 1 and its measurements.

    Quality and latency are measured on the test split, or on validation when there is none.

    Raises:
        JobError: Model, data or store cannot be used; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="baseline-") as scratch:
        return _baseline(request, Path(scratch))


def _baseline(request: BaselineRequest, scratch: Path) -> BaselineResult:
    step(1, _STEPS, text=f"fetching {request.model.uri}", about="1 s per 200 MB")
    model = fetch_model(request.model, scratch / "model")
    step(2, _STEPS, text="checking the model and opening it", about="5 s, a minute where it is converted")
    opened = open_delivered(request.model, model, request.data.validation, scratch=scratch)
    step(3, _STEPS, text="reading and checking the data", about="5 s")
    splits = read_splits(request.data, opened, task=request.model.task, into=scratch / "data")
    opened = _read(request, opened, splits["validation"])
    step(4, _STEPS, text=f"publishing version 1 to {request.store}", about="5 s")
    try:
        bundle = _version_one(request, model, opened, rows=splits["validation"], folder=scratch / "bundle")
        ref = publish(bundle, uri=bundles(request.store))
        step(5, _STEPS, text="measuring quality and latency", about="10 s")
        metrics = _measured(request, bundle, splits)
    except (EngineError, UnfitAnswersError) as error:
        raise _cannot_run(request, error) from error
    return BaselineResult(
        spec_hash=request.spec_hash,
        bundle=ref,
        model_digest=model.digest,
        size_bytes=bundle.manifest.size_bytes,
        metrics=metrics,
        fingerprint=fingerprint().short,
    )


def _measured(request: BaselineRequest, bundle: Bundle, splits: Mapping[str, Rows]) -> tuple[Measurement, ...]:
    """Store the reference for monitoring, and measure the bundle."""
    session = open_session(bundle, threads_limit=request.threads)
    held_out = joined([splits[name] for name in ("validation", "test") if name in splits])
    _check_chance(request, session, bundle, held_out)
    store_reference(request.store, bundle.digest, session, held_out, seed=request.seed)
    rows = splits.get("test", splits["validation"])
    return measure(session, rows, bundle=bundle, seed=request.seed, batch=request.serving.batch_size)


def _check_chance(request: BaselineRequest, session: Session, bundle: Bundle, rows: Rows) -> None:
    """Refuse a model whose answers cannot be told from chance: it would be a yardstick that everything passes."""
    reason = no_better_than_chance(_answers(session, rows, bundle, request.serving.batch_size), rows)
    if reason is not None:
        raise JobError(
            Reason.BASELINE_NOT_BETTER_THAN_CHANCE,
            request.model.uri,
            f"{reason}.",
            "Name the right output in model.outputs, the classes in model.classes or the label in data.*.labelColumn, "
            "or give more rows.",
        )


def _answers(session: Session, rows: Rows, bundle: Bundle, batch: int) -> Answers:
    manifest = bundle.manifest
    return answer(
        session,
        rows,
        task=manifest.task,
        classes=manifest.classes or None,
        reading=manifest.signature.reading,
        batch=batch,
    )


def _read(request: BaselineRequest, opened: Opened, rows: Rows) -> Opened:
    """Return the model with how its outputs are read, found on the validation rows."""
    hint = opened.classes or classes_of_graph(onnx.load(opened.model, load_external_data=False))
    try:
        session = open_model(opened.model, EngineOptions(spinning=False, threads=request.threads))
        found = find_reading(session, request.model, rows, classes=hint, batch=request.serving.batch_size)
    except (EngineError, UnfitAnswersError) as error:
        raise _cannot_run(request, error) from error
    for note in found.notes:
        say(f"  {note}")
    signature = opened.signature.model_copy(update={"reading": found.reading})
    return replace(opened, signature=signature, classes=found.classes)


def _cannot_run(request: BaselineRequest, error: Exception) -> JobError:
    role, reason = _ROLES[request.model.task], printable(str(error), limit=300)
    return JobError(
        Reason.MODEL_INVALID,
        request.model.uri,
        f"the model cannot be run as {role} on this data: {reason}.",
        "Give a model whose outputs fit spec.model.task, and data of the shape it takes.",
    )


def read_splits(data: Data, opened: Opened, *, task: Task, into: Path) -> dict[str, Rows]:
    """Read every data set of the spec, so that a fault in any of them shows before a run is spent on it.

    Args:
        data: The data sets.
        opened: The delivered model.
        task: What the model does.
        into: Folder for private copies.

    Returns:
        Rows by split.

    Raises:
        JobError: A data set cannot be used, or the test set is another one, or holds many of its rows.
    """
    specs = {name: getattr(data, name) for name in ("training", "validation", "test", "calibration")}
    missing = opened.accepts_missing
    splits = {
        name: read_dataset(spec, opened.signature, into=into / name, task=task, missing=missing)
        for name, spec in specs.items()
        if spec is not None
    }
    if missing:
        _check_missing(opened, splits, specs)
    _check_test_is_separate(splits, specs)
    _check_leaks(splits, specs)
    return splits


def _check_test_is_separate(splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    for other in ("training", "validation", "calibration"):
        if "test" in splits and other in splits and splits[other].digest == splits["test"].digest:
            raise JobError(
                Reason.DATA_INVALID,
                specs["test"].uri,
                f"the test set is the same file as the {other} set, so it would prove nothing.",
                _UNSEEN,
            )


def _check_leaks(splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    """Refuse a test set that a search may have learned from; say where a few rows are the same."""
    for name, rows in splits.items():
        if name == "test" or "test" not in splits or rows.labels is None:
            continue
        shared = overlap(splits["test"], rows)
        words = f"{shared.copies} of {shared.rows} test rows are rows of the {name} set too"
        if shared.is_leak:
            raise JobError(Reason.DATA_INVALID, specs["test"].uri, f"{words}, so they would prove nothing.", _UNSEEN)
        if shared.copies:
            say(f"  {words}: quality on them says nothing of rows that were never seen")


def _check_missing(opened: Opened, splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    """Refuse rows with missing values to which the model gives no finite answer."""
    session = open_model(opened.model, EngineOptions(spinning=False))
    for name, rows in splits.items():
        reason = unanswered(session, rows)
        if reason is not None:
            raise JobError(
                Reason.DATA_INVALID,
                specs[name].uri,
                f"{reason}.",
                "Fill these values, or deliver a pipeline with an imputer in front of the estimator.",
            )


def measure(session: Session, rows: Rows, *, bundle: Bundle, seed: int, batch: int = 1) -> tuple[Measurement, ...]:
    """Measure a model.

    Args:
        session: The open model.
        rows: Rows with labels.
        bundle: The model's bundle.
        seed: Seed of the latency measurement.
        batch: Rows of one request.

    Returns:
        The quality metrics of the task, latency percentiles in milliseconds for a request, and the size, each with its
        interval.

    Raises:
        UnfitAnswersError: The outputs do not fit the task.
    """
    answers = _answers(session, rows, bundle, batch)
    measured = {metric: evaluate(metric, answers, rows) for metric in MAIN[bundle.manifest.task]}
    quality = {metric: own_interval(measured[metric])(CONFIDENCE) for metric in measured}
    size = Interval.exact(bundle.manifest.size_bytes)
    numbers = {**quality, **_latency(session, rows, seed=seed, batch=batch), Metric.SIZE_BYTES: size}
    return tuple(_measurement(metric, interval) for metric, interval in numbers.items())


def _latency(session: Session, rows: Rows, *, seed: int, batch: int) -> dict[Metric, Interval]:
    timings = interleave_until(
        {SUBJECT: session},
        rows,
        reference=SUBJECT,
        quantiles=tuple(_QUANTILES.values()),
        confidence=CONFIDENCE,
        seed=seed,
        batch=session.signature.batch or min(batch, len(rows)),
    )[SUBJECT]
    return {
        metric: timings.percentile(quantile, confidence=CONFIDENCE, seed=seed)
        for metric, quantile in _QUANTILES.items()
    }


def _version_one(request: BaselineRequest, model: Fetched, opened: Opened, *, rows: Rows, folder: Path) -> Bundle:
    engine = EngineOptions(threads=request.threads)
    lineage = Lineage(
        resource=request.resource,
        original_model=model.digest,
        data={"validation": rows.digest},
        seed=request.seed,
        versions={name: version(name) for name in LIBRARIES},
    )
    return make_bundle(
        folder,
        model=opened.model,
        engine=engine,
        signature=opened.signature,
        classes=opened.classes,
        task=request.model.task,
        native=opened.native,
        accepts_missing=opened.accepts_missing,
        techniques=(),
        lineage=lineage,
        golden=record(open_model(opened.model, engine), rows),
    )


def _measurement(metric: Metric, interval: Interval) -> Measurement:
    value, low, high = (_decimal(number) for number in (interval.value, interval.low, interval.high))
    return Measurement(name=metric.value, value=value, low=low, high=high, samples=interval.samples)


def _decimal(number: float) -> str:
    """Return a number without an exponent: whole numbers exactly, all others with four significant digits."""
    if float(number).is_integer():
        return str(int(number))
    return str(np.format_float_positional(number, precision=4, fractional=False, trim="-"))
