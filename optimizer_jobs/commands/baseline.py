"""The baseline Job: check the delivered model and all data, publish version 1's bundle, and measure it.

The model is not changed: version 1 is the delivered ONNX file, byte for byte, or the conversion of the delivered file,
with sensible engine options.
"""

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from optimizer_jobs.data.datasets import Rows, joined
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened, fetch_model, open_delivered
from optimizer_jobs.measure.answers import answer_as
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.latency import interleave_until
from optimizer_jobs.measure.mix import ONE_ROW, Mix, only, usual_size
from optimizer_jobs.measure.quality import evaluate, measured_metrics
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.preflight.reading import check_chance, check_costs, with_reading
from optimizer_jobs.preflight.refusal import cannot_run
from optimizer_jobs.preflight.rehearsal import rehearse, techniques
from optimizer_jobs.preflight.rows_first import check_rows
from optimizer_jobs.preflight.server import check_server
from optimizer_jobs.preflight.splits import read_splits, specs_of, with_lacking
from optimizer_jobs.production.stored import store_reference
from optimizer_jobs.progress import say, step
from optimizer_jobs.quota import require_room
from optimizer_jobs.serving.limits import as_served, limits_of
from optimizer_jobs.signature import Signature
from optimizer_jobs.stores.published import open_bundle, publish
from retune.api.metrics import Metric
from retune.api.status import Measurement
from retune.contract.paths import bundles
from retune.contract.requests import BaselineRequest, BundleRef
from retune.contract.results import BaselineResult, Reason, ServedBundle

CONFIDENCE = 0.95
SUBJECT = "model"
LIBRARIES = ("onnxruntime", "onnx", "numpy")
"""Libraries whose versions a bundle records."""

_LOST = frozenset({Reason.BUNDLE_NOT_FOUND, Reason.BUNDLE_CORRUPT})
_STEPS = 5
_QUANTILES = {Metric.LATENCY_P50_MS: 0.5, Metric.LATENCY_P95_MS: 0.95}


def run(request: BaselineRequest) -> BaselineResult:
    """Return the published bundle of version 1 and its measurements.

    Quality and latency are measured on the test split, or on validation when there is none.

    Raises:
        JobError: Model, data or store cannot be used; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="baseline-") as scratch:
        require_room(request.store)
        return _baseline(request, Path(scratch))


def _baseline(request: BaselineRequest, scratch: Path) -> BaselineResult:
    step(1, _STEPS, text=f"fetching {request.model.uri}", about="1 s per 200 MB")
    model = fetch_model(request.model, scratch / "model")
    step(2, _STEPS, text="checking the model and opening it", about="5 s, a minute where it is converted")
    opened = open_delivered(request.model, model, request.data.validation, scratch=scratch)
    check_server(opened.model, uri=request.model.uri, limits=limits_of(request.serving))
    check_rows(opened.signature, uri=request.model.uri)
    step(3, _STEPS, text="reading and checking the data, and asking the model a few rows", about="5 s")
    opened = with_lacking(opened, request.model, specs_of(request.data), into=scratch / "names")
    splits = read_splits(specs_of(request.data), opened, task=request.model.task, into=scratch / "data")
    usual = usual_size(request.serving.mix)
    opened = with_reading(opened, request.model, splits["validation"], batch=usual)
    check_costs(opened, request.model, splits)
    check_chance(opened, request.model, splits, batch=usual)
    _rehearse(request, opened, splits)
    step(4, _STEPS, text=f"publishing version 1 to {request.store}", about="5 s")
    try:
        bundle = _version_one(request, model, opened, rows=splits["validation"], folder=scratch / "bundle")
        ref = publish(bundle, uri=bundles(request.store))
        step(5, _STEPS, text="measuring quality and latency", about="10 s")
        metrics, reference = _measured(request, bundle, splits)
        serves, lost = _served(request, bundle.manifest.signature, splits, folder=scratch / "serves")
    except (EngineError, UnfitAnswersError) as error:
        raise cannot_run(error, uri=request.model.uri, task=request.model.task) from error
    return BaselineResult(
        spec_hash=request.spec_hash,
        bundle=ref,
        model_digest=model.digest,
        size_bytes=bundle.manifest.size_bytes,
        metrics=metrics,
        reference=reference,
        serves=serves,
        lost=lost,
        fingerprint=fingerprint().short,
    )


def _measured(
    request: BaselineRequest, bundle: Bundle, splits: Mapping[str, Rows], *, keep: bool = False
) -> tuple[tuple[Measurement, ...], str | None]:
    """Store the reference for monitoring, and measure the bundle; return the measurements and the reference's digest.

    Args:
        request: The request.
        bundle: The bundle.
        splits: Rows by split.
        keep: Whether a reference that is there already stays.
    """
    bundle = as_served(bundle, limits_of(request.serving))
    session = open_session(bundle, threads_limit=request.threads)
    held_out = joined([splits[name] for name in ("validation", "test") if name in splits])
    usual = usual_size(request.serving.mix)
    reference = store_reference(request.store, bundle, session, held_out, keep=keep, seed=request.seed, batch=usual)
    rows = splits.get("test", splits["validation"])
    yardstick = Yardstick.of_model(request.model)
    mix, seed = request.serving.mix, request.seed
    return measure(session, rows, bundle=bundle, seed=seed, mix=mix, yardstick=yardstick), reference


def _served(
    request: BaselineRequest, signature: Signature, splits: Mapping[str, Rows], *, folder: Path
) -> tuple[ServedBundle | None, BundleRef | None]:
    """Verify and measure the bundle that the target names already; return it, or that the store has lost it.

    Version 1 was published before, so the store is there.
    """
    if request.serves is None:
        return None, None
    say(f"the target names {request.serves.uri} already: verifying and measuring it too")
    try:
        bundle = open_bundle(request.serves.uri, digest=request.serves.digest, into=folder)
    except JobError as error:
        if error.reason not in _LOST:
            raise
        say(f"  {error}")
        return None, request.serves
    return _measured_beside(request, request.serves, bundle, signature, splits), None


def _measured_beside(
    request: BaselineRequest, served: BundleRef, bundle: Bundle, signature: Signature, splits: Mapping[str, Rows]
) -> ServedBundle:
    if bundle.manifest.signature.inputs != signature.inputs:
        raise JobError(
            Reason.MODEL_INVALID,
            served.uri,
            f"the target names this bundle, and its inputs are not those of {request.model.uri}.",
            "Deliver the model that it was made from, or set the target's variable back to the delivered model.",
        )
    metrics, reference = _measured(request, bundle, splits, keep=True)
    return ServedBundle(
        bundle=served,
        run=bundle.manifest.lineage.run,
        size_bytes=bundle.manifest.size_bytes,
        techniques=tuple(words[:64] for words in bundle.manifest.techniques[:16]),
        metrics=metrics,
        reference=reference,
    )


def _rehearse(request: BaselineRequest, opened: Opened, splits: Mapping[str, Rows]) -> None:
    """See on a few rows that later stages will not fail, and say which techniques cannot be used."""
    model = request.model
    rehearse(opened, splits, uri=model.uri, task=model.task, sizes=[size for size, _ in request.serving.mix])
    for kind, reason in techniques(opened, splits, task=model.task).items():
        if reason is not None:
            say(f"  {kind} cannot be used: {reason}")


def measure(
    session: Session, rows: Rows, *, bundle: Bundle, seed: int, mix: Mix = ONE_ROW, yardstick: Yardstick = PLAIN
) -> tuple[Measurement, ...]:
    """Measure a model.

    Args:
        session: The open model.
        rows: Rows with labels.
        bundle: The model's bundle.
        seed: Seed of the latency measurement.
        mix: Sizes of the requests, in rows, with their shares; quality is that of the most frequent size.
        yardstick: What the owner measures quality by.

    Returns:
        The quality metrics of the task and of the owner, latency percentiles in milliseconds for a request, and the
        size, each with its interval.

    Raises:
        UnfitAnswersError: The outputs do not fit the task.
    """
    mix = only(session.signature.batch) if session.signature.batch else mix
    batch, keep_outputs = usual_size(mix), yardstick.reads_outputs
    answers = answer_as(bundle.manifest, session, rows, batch=batch, keep_outputs=keep_outputs)
    if yardstick.custom is not None:
        evaluate(Metric.CUSTOM, answers, rows, yardstick=yardstick)  # a fault of the code shows before a run is spent
    metrics = measured_metrics(bundle.manifest.task, (), yardstick)
    measured = {metric: evaluate(metric, answers, rows, yardstick=yardstick) for metric in metrics}
    quality = {metric: own_interval(measured[metric])(CONFIDENCE) for metric in measured}
    size = Interval.exact(bundle.manifest.size_bytes)
    numbers = {**quality, **_latency(session, rows, seed=seed, mix=mix), Metric.SIZE_BYTES: size}
    return tuple(_measurement(metric, interval) for metric, interval in numbers.items())


def _latency(session: Session, rows: Rows, *, seed: int, mix: Mix) -> dict[Metric, Interval]:
    timings = interleave_until(
        {SUBJECT: session},
        rows,
        reference=SUBJECT,
        quantiles=tuple(_QUANTILES.values()),
        confidence=CONFIDENCE,
        seed=seed,
        mix=mix,
    )[SUBJECT]
    return {
        metric: timings.percentile(quantile, confidence=CONFIDENCE, seed=seed)
        for metric, quantile in _QUANTILES.items()
    }


def _version_one(request: BaselineRequest, model: Fetched, opened: Opened, *, rows: Rows, folder: Path) -> Bundle:
    engine = limits_of(request.serving).as_run(EngineOptions(threads=request.threads))
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
        golden=record(open_model(opened.model, engine), rows, sizes=[size for size, _ in request.serving.mix]),
    )


def _measurement(metric: Metric, interval: Interval) -> Measurement:
    value, low, high = (_decimal(number) for number in (interval.value, interval.low, interval.high))
    return Measurement(name=metric.value, value=value, low=low, high=high, samples=interval.samples)


def _decimal(number: float) -> str:
    """Return a number without an exponent: whole numbers exactly, all others with four significant digits."""
    if float(number).is_integer():
        return str(int(number))
    return str(np.format_float_positional(number, precision=4, fractional=False, trim="-"))
