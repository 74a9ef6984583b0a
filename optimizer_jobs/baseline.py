"""The baseline Job: check the delivered model and all data, put version 1's bundle into the store, and measure it.

It changes nothing about the model: version 1 is the delivered file, byte by byte, with sensible engine options.
"""

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.data.fetch import Fetched, fetch
from optimizer_jobs.data.uris import sibling
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.latency import interleave_until
from optimizer_jobs.measure.quality import NotAClassifierError, correct, predict
from optimizer_jobs.measure.stats import Interval, wilson
from optimizer_jobs.models.apart import check_apart
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle, publish
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES, external_files
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.models.signature import Signature
from optimizer_jobs.progress import step
from retune.api.spec import Data, Metric
from retune.api.status import Measurement
from retune.contract.paths import bundles
from retune.contract.requests import BaselineRequest
from retune.contract.results import BaselineResult, Reason

CONFIDENCE = 0.95
SUBJECT = "model"
LIBRARIES = ("onnxruntime", "onnx", "numpy")
"""Libraries whose versions a bundle records."""

EXTERNAL_LIMIT_BYTES = 8 << 30
"""Bytes a file of external data may have."""

_STEPS = 5
_QUANTILES = {Metric.LATENCY_P50_MS: 0.5, Metric.LATENCY_P95_MS: 0.95}


def run(request: BaselineRequest) -> BaselineResult:
    """Return the published bundle of version 1 and its numbers.

    Accuracy and latency are measured on the test split, or on validation when there is none.

    Raises:
        JobError: Anything that is wrong with model, data or store, naming it.
    """
    with tempfile.TemporaryDirectory(prefix="baseline-") as scratch:
        return _baseline(request, Path(scratch))


def _baseline(request: BaselineRequest, scratch: Path) -> BaselineResult:
    step(1, _STEPS, text=f"fetching {request.model.uri}", about="1 s per 200 MB")
    model = fetch_model(request, scratch / "model")
    step(2, _STEPS, text="checking the model and opening it", about="5 s")
    signature = check_apart(model.path, uri=request.model.uri)
    step(3, _STEPS, text="reading and checking the data", about="5 s")
    splits = read_splits(request.data, signature, into=scratch / "data")
    step(4, _STEPS, text=f"publishing version 1 to {request.store}", about="5 s")
    try:
        bundle = _version_one(request, model, signature=signature, rows=splits["validation"], folder=scratch / "bundle")
        reference = publish(bundle, uri=bundles(request.store))
        step(5, _STEPS, text="measuring accuracy and latency", about="10 s")
        session = open_session(bundle, threads_limit=request.threads)
        metrics = measure(session, splits.get("test", splits["validation"]), bundle=bundle, seed=request.seed)
    except (EngineError, NotAClassifierError) as error:
        message = f"the model cannot be run as a classifier on this data: {printable(str(error), limit=300)}."
        raise JobError(
            Reason.MODEL_INVALID, request.model.uri, message, "Give a classifier and data of the shape it takes."
        ) from error
    return BaselineResult(
        spec_hash=request.spec_hash,
        bundle=reference,
        model_digest=model.digest,
        size_bytes=bundle.manifest.size_bytes,
        metrics=metrics,
        fingerprint=fingerprint().short,
    )


def fetch_model(request: BaselineRequest, into: Path) -> Fetched:
    """Fetch the delivered model, with the external data it wants beside it, into the folder `into`."""
    uri = request.model.uri
    model = fetch(uri, digest=request.model.digest, limit_bytes=MODEL_LIMIT_BYTES, into=into, what="Model")
    for name in external_files(model.path, uri=uri):
        fetch(sibling(uri, name), limit_bytes=EXTERNAL_LIMIT_BYTES, into=into, what="Model")
    return model


def read_splits(data: Data, signature: Signature, *, into: Path) -> dict[str, Rows]:
    """Read every data set that is given, by split name, so that a fault in any shows before a run is spent on it.

    Raises JobError, also when two splits are the same file under two names.
    """
    specs = {name: getattr(data, name) for name in ("training", "validation", "test", "calibration")}
    splits = {name: read_dataset(spec, signature, into=into / name) for name, spec in specs.items() if spec is not None}
    for other in ("training", "validation", "calibration"):
        if "test" in splits and other in splits and splits[other].digest == splits["test"].digest:
            raise JobError(
                Reason.DATA_INVALID,
                specs["test"].uri,
                f"the test set is the same file as the {other} set, so it would prove nothing.",
                "Give test data that nothing else uses.",
            )
    return splits


def measure(session: Session, rows: Rows, *, bundle: Bundle, seed: int) -> tuple[Measurement, ...]:
    """Return accuracy with its Wilson interval, latency percentiles in milliseconds for single rows, and size."""
    answers = predict(session, rows, classes=bundle.manifest.classes or None)
    right = correct(answers, rows)
    if not right.any():
        raise NotAClassifierError(
            f"right on none of {len(rows)} rows; labels are like {rows.labels[0]}, answers like {answers.labels[0]}"
        )
    timings = interleave_until(
        {SUBJECT: session},
        rows,
        reference=SUBJECT,
        quantiles=tuple(_QUANTILES.values()),
        confidence=CONFIDENCE,
        seed=seed,
    )[SUBJECT]
    numbers: Mapping[Metric, Interval] = {
        Metric.ACCURACY: wilson(int(np.sum(right)), len(rows), confidence=CONFIDENCE),
        **{metric: timings.percentile(q, confidence=CONFIDENCE, seed=seed) for metric, q in _QUANTILES.items()},
        Metric.SIZE_BYTES: Interval.exact(bundle.manifest.size_bytes),
    }
    return tuple(_measurement(metric, interval) for metric, interval in numbers.items())


def _version_one(request: BaselineRequest, model: Fetched, *, signature: Signature, rows: Rows, folder: Path) -> Bundle:
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
        model=model.path,
        engine=engine,
        signature=signature,
        techniques=(),
        lineage=lineage,
        golden=record(open_model(model.path, engine), rows),
    )


def _measurement(metric: Metric, interval: Interval) -> Measurement:
    value, low, high = (_decimal(number) for number in (interval.value, interval.low, interval.high))
    return Measurement(name=metric.value, value=value, low=low, high=high, samples=interval.samples)


def _decimal(number: float) -> str:
    """Return a number without exponent: whole, or to four significant digits."""
    if float(number).is_integer():
        return str(int(number))
    return str(np.format_float_positional(number, precision=4, fractional=False, trim="-"))
