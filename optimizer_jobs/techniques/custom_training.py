"""Technique CustomTraining: the user's own container trains the model, one trial at a time.

It gets data, delivered model and parameters as files and may do what it likes with them; what comes back is checked
like a delivered model and must take and answer the same. Early stopping, budgets and reuse are those of every training.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.exchange import (
    CustomTrainingError,
    Work,
    exchange,
    forget,
    new_trial,
    take,
    train,
    wait_until_ready,
)
from optimizer_jobs.machinery.training.parameters import Space, told
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES
from optimizer_jobs.models.sandbox import check_apart
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.base import seconds
from retune.api.model import DatasetFormat, ModelFormat
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType, TrainingContainer

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.CUSTOM_TRAINING
CHEAP = False
TRAINS = False  # it trains alone: the container knows nothing of what other techniques would say about training

OFF, ON = "Off", "On"
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
_COMMAND, _TIMEOUT = "command", "timeout"
"""What the result depends on besides the parameters: a digest of image and command, and the seconds it may take."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no container can train this model here."""
    if spec.container is None:
        return "it needs techniques[].container: the image and the command that train the model"
    if not subject.training:
        return "there are no rows to train on: give data.training"
    if exchange() is None:
        return (
            "no training container stands beside this process; on a machine of your own, allow its command explicitly"
        )
    return parameters.wrong(spec.container.parameters or ())


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose whether to train, and the parameters."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    chosen = _space(spec).choose(trial, spec.name)
    if mode == OFF or spec.container is None:
        return None
    return {**chosen, f"#{_COMMAND}": _digest(spec.container), f"#{_TIMEOUT}": seconds(spec.container.timeout)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return a training in the middle of the space."""
    return (off(spec, subject) | told(spec.name, {"mode": ON}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no training."""
    return told(spec.name, {"mode": OFF}, _space(spec).first())


def describe(params: Params) -> str:
    """Return the parameters in words, such as `trained by its own container, learning rate 0.01`."""
    words = [f"{name.replace('_', ' ')} {value}" for name, value in _given(params).items()]
    return ", ".join(["trained by its own container", *words])


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Have the container train, and return what it made as a model that takes and answers the same.

    Raises:
        CustomTrainingError: It failed, took too long, or made something else.
        StoppedEarlyError: The training fell behind or the budget is spent.
    """
    folder = exchange()
    if folder is None or context.training is None or context.validation is None:
        return Skipped("no training container stands by, or there are no rows to train on")
    wait_until_ready(folder, context.alive)
    data = _data(folder, model, context)
    trial = new_trial(folder)
    try:
        train(folder, trial, _work(trial, data, params, context))
        return _made(trial / "output", data["validation"], params, context)
    except JobError as error:  # whatever is wrong with the file is the trial's fault, not the run's
        raise CustomTrainingError(f"the training made no model: {error}") from error
    finally:
        forget(trial)


def _space(spec: TechniqueSpec) -> Space:
    return Space((spec.container.parameters if spec.container else None) or ())


def _digest(container: TrainingContainer) -> str:
    words = json.dumps([container.image, *container.command])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _given(params: Params) -> Params:
    return {name: value for name, value in params.items() if not name.startswith("#")}


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


def _work(trial: Path, data: Mapping[str, Path], params: Params, context: Context) -> Work:
    given = _given(params)
    (trial / "parameters.json").write_text(json.dumps(given, indent=2) + "\n")
    return Work(
        variables={
            **{f"RETUNE_PARAM_{name.upper()}": _text(value) for name, value in given.items()},
            **{f"RETUNE_{name.upper()}{'' if name == 'model' else '_DATA'}": str(path) for name, path in data.items()},
            "RETUNE_SEED": str(context.seed),
        },
        files={"RETUNE_PARAMETERS": "parameters.json", "RETUNE_METRICS": "metrics.jsonl", "RETUNE_OUTPUT": "output"},
        timeout=float(params[f"#{_TIMEOUT}"]), report=context.report, alive=context.alive,
    )  # fmt: skip


def _text(value: object) -> str:
    """Return a value for a variable: a text as it is, anything else as JSON, on one line."""
    return " ".join((value if isinstance(value, str) else json.dumps(value)).splitlines())


def _made(output: Path, validation: Path, params: Params, context: Context) -> Applied:
    """Return the model in the output folder, in the format of delivery where it is there, else as ONNX."""
    delivered = context.native.format if context.native else ModelFormat.ONNX
    for format_ in dict.fromkeys((delivered, ModelFormat.ONNX)):
        name = f"model{EXTENSIONS[format_]}"
        file = context.workdir / name
        if take(output / name, file, limit=MODEL_LIMIT_BYTES):
            return _checked(Native(file, format_), validation, params, context)
    found = ", ".join(sorted(path.name for path in output.iterdir())[:5]) or "nothing"
    raise CustomTrainingError(f"the training left no model{EXTENSIONS[delivered]} in RETUNE_OUTPUT, but {found}")


def _checked(made: Native, validation: Path, params: Params, context: Context) -> Applied:
    """Return the model as ONNX; raises CustomTrainingError when it takes or answers something else."""
    if made.format is ModelFormat.ONNX:
        _same(check_apart(made.path, uri="the trained model"), context.signature)
        return Applied(model=made.path, summary=describe(params))
    from optimizer_jobs.machinery.formats.sandbox import convert_apart

    factory = context.native.factory if context.native else None
    converted = convert_apart(
        Native(made.path, made.format, factory), uri="the trained model", task=context.task, rows=validation,
        rows_format=DatasetFormat.NPZ, label=LABEL, into=context.workdir / "converted", limit_bytes=DATA_LIMIT_BYTES,
    )  # fmt: skip
    _same(converted.signature, context.signature)
    if converted.classes != context.classes:
        raise CustomTrainingError(f"the trained model knows the classes {converted.classes}, not {context.classes}")
    native = converted.native or made
    return Applied(model=converted.model, summary=describe(params), native=native.path, factory=factory)


def _same(found: Signature, wanted: Signature) -> None:
    if found != wanted:
        raise CustomTrainingError(f"the trained model is {found.words}, not {wanted.words}")
