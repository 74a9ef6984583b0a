"""Have the user's own container train the model, and take back what it made.

It gets data, delivered model and parameters as files and may do what it likes with them; what comes back is checked
like a delivered model and must take and answer the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.training import exchange
from optimizer_jobs.machinery.training.exchange import CustomTrainingError, Work, take
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES
from optimizer_jobs.models.sandbox import check_in_sandbox
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from retune.api.model import DatasetFormat, ModelFormat

LABEL = "label"
"""Array of the data files that is no input."""
EXTENSIONS = {
    ModelFormat.ONNX: ".onnx",
    ModelFormat.SAFETENSORS: ".safetensors",
    ModelFormat.SKOPS: ".skops",
    ModelFormat.JOBLIB: ".joblib",
    ModelFormat.PICKLE: ".pkl",
    ModelFormat.TORCHSCRIPT: ".pt",
    ModelFormat.TORCH_EXPORT: ".pt2",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training that the container is to do."""

    parameters: Params
    """The trial's parameters, by the names that the spec gives them."""
    timeout: float
    """Seconds it may take."""
    summary: str
    """What it is called in the report."""


def train(model: Path, run: Run, context: Context) -> Applied | Skipped:
    """Have the container train, and return what it made as a model that takes and answers the same.

    Raises:
        CustomTrainingError: It failed, took too long, or made something else.
        StoppedEarlyError: The training fell behind or the budget is spent.
    """
    folder = exchange.exchange()
    if folder is None or context.training is None or context.validation is None:
        return Skipped("no training container stands by, or there are no rows to train on")
    exchange.wait_until_ready(folder, context.alive)
    data = _data(folder, model, context)
    trial = exchange.new_trial(folder)
    try:
        exchange.train(folder, trial, _work(trial, data, run, context))
        return _made(trial / "output", data["validation"], run, context)
    except JobError as error:  # whatever is wrong with the file is the trial's fault, not the run's
        raise CustomTrainingError(f"the training made no model: {error}") from error
    finally:
        exchange.forget(trial)


def _data(folder: Path, model: Path, context: Context) -> Mapping[str, Path]:
    """Return the files that every trial of this worker reads, written when the first one is."""
    rows = {"training": context.training, "validation": context.validation}
    named = {name: folder / "data" / f"{name}-{_name(found)}.npz" for name, found in rows.items() if found}
    for name, path in named.items():
        found = rows[name]
        if found is not None and not path.exists():
            _save(found, path)
    source = context.native.path if context.native else model
    delivered = folder / "data" / f"model{source.suffix}"
    if not delivered.exists():
        take(source, delivered, limit=MODEL_LIMIT_BYTES)
    return {**named, "model": delivered}


def _name(rows: Rows) -> str:
    return rows.digest.removeprefix("sha256:")[:16]


def _save(rows: Rows, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    labels = {} if rows.labels is None else {LABEL: rows.labels}
    np.savez(beside, allow_pickle=False, **rows.inputs, **labels)
    beside.rename(path)


def _work(trial: Path, data: Mapping[str, Path], run: Run, context: Context) -> Work:
    (trial / "parameters.json").write_text(json.dumps(run.parameters, indent=2) + "\n")
    return Work(
        variables={
            **{f"RETUNE_PARAM_{name.upper()}": _text(value) for name, value in run.parameters.items()},
            **{f"RETUNE_{name.upper()}{'' if name == 'model' else '_DATA'}": str(path) for name, path in data.items()},
            "RETUNE_SEED": str(context.seed),
        },
        files={"RETUNE_PARAMETERS": "parameters.json", "RETUNE_METRICS": "metrics.jsonl", "RETUNE_OUTPUT": "output"},
        timeout=run.timeout,
        report=context.report,
        alive=context.alive,
    )


def _text(value: object) -> str:
    """Return a value for a variable: a text as it is, anything else as JSON, on one line."""
    return " ".join((value if isinstance(value, str) else json.dumps(value)).splitlines())


def _made(output: Path, validation: Path, run: Run, context: Context) -> Applied:
    """Return the model in the output folder, in the format of delivery where it is there, else as ONNX."""
    delivered = context.native.format if context.native else ModelFormat.ONNX
    for format_ in dict.fromkeys((delivered, ModelFormat.ONNX)):
        name = f"model{EXTENSIONS[format_]}"
        file = context.workdir / name
        if take(output / name, file, limit=MODEL_LIMIT_BYTES):
            return _checked(Native(file, format_), validation, run, context)
    found = ", ".join(sorted(path.name for path in output.iterdir())[:5]) or "nothing"
    raise CustomTrainingError(f"the training left no model{EXTENSIONS[delivered]} in RETUNE_OUTPUT, but {found}")


def _checked(made: Native, validation: Path, run: Run, context: Context) -> Applied:
    """Return the model as ONNX; raises CustomTrainingError when it takes or answers something else."""
    if made.format is ModelFormat.ONNX:
        _same(check_in_sandbox(made.path, uri="the trained model"), context.signature)
        return Applied(model=made.path, summary=run.summary)
    from optimizer_jobs.machinery.formats.sandbox import Sample, convert_in_sandbox

    factory = context.native.factory if context.native else None
    converted = convert_in_sandbox(
        Native(made.path, made.format, factory),
        uri="the trained model",
        task=context.task,
        sample=Sample(path=validation, format=DatasetFormat.NPZ, label=LABEL, limit_bytes=DATA_LIMIT_BYTES),
        into=context.workdir / "converted",
    )
    _same(converted.signature, context.signature)
    if converted.classes != context.classes:
        raise CustomTrainingError(f"the trained model knows the classes {converted.classes}, not {context.classes}")
    native = converted.native or made
    return Applied(model=converted.model, summary=run.summary, native=native.path, factory=factory)


def _same(found: Signature, wanted: Signature) -> None:
    if found != wanted:
        raise CustomTrainingError(f"the trained model is {found.words}, not {wanted.words}")
