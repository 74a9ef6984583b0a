"""Have the user's own container train the model, and take back the model that it wrote.

The container gets data, delivered model and parameters as files, and may do with them as it likes. The model that comes
back is checked like a delivered model, and must have the same inputs and outputs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.exchange import Beside, Work, created, forget, on_one_line
from optimizer_jobs.machinery.formats.onnx_files import check_in_sandbox
from optimizer_jobs.machinery.training import exchange
from optimizer_jobs.machinery.training.exchange import CustomTrainingError
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from retune.api.model import DatasetFormat, ModelFormat

LABEL = "label"
"""Array of the data files that holds the labels; all others are inputs."""
EXTENSIONS = {
    ModelFormat.ONNX: ".onnx",
    ModelFormat.SAFETENSORS: ".safetensors",
    ModelFormat.STATE_DICT: ".pt",
    ModelFormat.SKOPS: ".skops",
    ModelFormat.JOBLIB: ".joblib",
    ModelFormat.PICKLE: ".pkl",
    ModelFormat.TORCHSCRIPT: ".pt",
    ModelFormat.TORCH_EXPORT: ".pt2",
    ModelFormat.XGBOOST: ".ubj",
    ModelFormat.LIGHTGBM: ".txt",
    ModelFormat.CATBOOST: ".cbm",
}

_URI = "the trained model"
"""What messages call the trained model."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training for the container to do."""

    parameters: Params
    """The trial's parameters, by the names that the spec gives them."""
    timeout: float
    """Seconds that it may take."""
    summary: str
    """What the report calls it."""


def train(model: Path, run: Run, context: Context) -> Applied | Skipped:
    """Have the container train, and return the model that it wrote, with the inputs and outputs of the delivered one.

    Args:
        model: The ONNX file that the container starts from, where the model was delivered as ONNX.
        run: What to train.
        context: Rows, signature, and where the new file goes.

    Raises:
        CustomTrainingError: The training failed, took too long, or wrote no such model.
        StoppedEarlyError: The training fell behind, or the budget is spent.
    """
    container = exchange.standing_by()
    if container is None or context.training is None or context.validation is None:
        return Skipped("no training container stands by, or there are no rows to train on")
    container.wait_until_ready(context.alive)
    data = _data(container, model, context)
    trial = container.new_trial()
    try:
        exchange.train(container, trial, _work(trial, data, run, context), context.report)
        return _taken(container, trial / "output", data["validation"], run, context)
    except JobError as error:  # a bad file fails this trial, not the whole run
        raise CustomTrainingError(f"the training made no model: {error}") from error
    finally:
        forget(trial)


def _data(container: Beside, model: Path, context: Context) -> Mapping[str, Path]:
    """Return the files that every trial of this worker reads; the first trial writes them."""
    folder = container.folder
    splits = {"training": context.training, "validation": context.validation}
    files = {split: _saved(rows, split, folder / "data") for split, rows in splits.items() if rows}
    source = context.native.path if context.native else model
    delivered = folder / "data" / f"model{source.suffix}"
    if not delivered.exists():
        container.take(source, delivered, limit=MODEL_LIMIT_BYTES)
    return {**files, "model": delivered}


def _saved(rows: Rows, split: str, folder: Path) -> Path:
    """Return the NPZ file of these rows; it is written with one rename when it is not there yet."""
    path = folder / f"{split}-{rows.digest.removeprefix('sha256:')[:16]}.npz"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    labels = {} if rows.labels is None else {LABEL: rows.labels}
    with created(hidden) as file:
        np.savez(file, allow_pickle=False, **rows.inputs, **labels)
    return hidden.rename(path)


def _work(trial: Path, data: Mapping[str, Path], run: Run, context: Context) -> Work:
    """Write the parameters, and return what the container is told."""
    with created(trial / "parameters.json") as file:
        file.write(f"{json.dumps(run.parameters, indent=2)}\n".encode())
    parameters = {f"RETUNE_PARAM_{name.upper()}": on_one_line(value) for name, value in run.parameters.items()}
    paths = {f"RETUNE_{name.upper()}{'' if name == 'model' else '_DATA'}": str(path) for name, path in data.items()}
    return Work(
        variables={**parameters, **paths, "RETUNE_SEED": str(context.seed)},
        files={"RETUNE_PARAMETERS": "parameters.json", "RETUNE_METRICS": exchange.METRICS, "RETUNE_OUTPUT": "output"},
        timeout=run.timeout,
        alive=context.alive,
    )


def _taken(container: Beside, output: Path, validation: Path, run: Run, context: Context) -> Applied:
    """Return the model in the output folder: in the format of delivery when it is there, else as ONNX."""
    delivered = context.native.format if context.native else ModelFormat.ONNX
    for format_ in dict.fromkeys((delivered, ModelFormat.ONNX)):
        name = f"model{EXTENSIONS[format_]}"
        file = context.workdir / name
        if container.take(output / name, file, limit=MODEL_LIMIT_BYTES):
            return _checked(Native(file, format_), validation, run, context)
    present = ", ".join(sorted(path.name for path in output.iterdir())[:5]) or "nothing"
    raise CustomTrainingError(f"the training left no model{EXTENSIONS[delivered]} in RETUNE_OUTPUT, but {present}")


def _checked(trained: Native, validation: Path, run: Run, context: Context) -> Applied:
    """Return the trained model as ONNX.

    Raises:
        CustomTrainingError: Its inputs, outputs or classes differ from those of the delivered model.
    """
    if trained.format is ModelFormat.ONNX:
        checked = check_in_sandbox(trained.path, uri=_URI)
        _check_signature(checked.signature, context.signature)
        return Applied(model=checked.path, summary=run.summary)
    from optimizer_jobs.machinery.formats.sandbox import Sample, convert_in_sandbox

    factory = context.native.factory if context.native else None
    converted = convert_in_sandbox(
        Native(trained.path, trained.format, factory),
        uri=_URI,
        task=context.task,
        sample=Sample(path=validation, format=DatasetFormat.NPZ, label=LABEL, limit_bytes=DATA_LIMIT_BYTES),
        into=context.workdir / "converted",
    )
    _check_signature(converted.signature, context.signature)
    if converted.classes and context.classes and converted.classes != context.classes:
        raise CustomTrainingError(f"the trained model knows the classes {converted.classes}, not {context.classes}")
    native = converted.native or trained
    return Applied(model=converted.model, summary=run.summary, native=native.path, factory=factory)


def _check_signature(trained: Signature, delivered: Signature) -> None:
    if not trained.same_tensors(delivered):
        raise CustomTrainingError(f"the trained model is {trained.words}, not {delivered.words}")
