"""Write a starting ModelOptimization by looking at the model and at data files.

What cannot be seen is left out or marked, never made up: the file says what a person still has to fill in.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retune.api.model import Dataset, Factory, Model, ModelFormat, Task
from retune.cli.access import AccessError
from retune.cli.local.jobs import Job, job_environment, run
from retune.contract.requests import InspectRequest
from retune.contract.results import InspectedFile, InspectResult

FORMATS = {
    ".onnx": ModelFormat.ONNX,
    ".safetensors": ModelFormat.SAFETENSORS,
    ".skops": ModelFormat.SKOPS,
    ".joblib": ModelFormat.JOBLIB,
    ".pkl": ModelFormat.PICKLE,
    ".pickle": ModelFormat.PICKLE,
    ".pt": ModelFormat.TORCHSCRIPT,
    ".pt2": ModelFormat.TORCH_EXPORT,
}
ROLES = {"training": ("train",), "validation": ("val", "dev"), "test": ("test",), "calibration": ("calib",)}
"""Role of a data set to what its file's name begins with."""

_DATA = {".npz", ".parquet", ".csv"}
_QUALITY = {
    Task.CLASSIFICATION: '{metric: accuracy, role: Constrain, goal: {type: MaxDegradation, value: "0.01"}}',
    Task.REGRESSION: '{metric: rmse, role: Constrain, goal: {type: PercentMaxDegradation, value: "1"}}',
    Task.EMBEDDING: '{metric: neighbor_agreement, role: Constrain, goal: {type: Threshold, value: "0.95"}}',
}


@dataclass(frozen=True)
class Guess:
    """Model and data as they were found, below one folder that is to be the claim."""

    claim: str
    root: Path
    model: Model
    sets: Mapping[str, Dataset]
    """Data set by role."""


def guess(model: Path, data: Sequence[Path], *, claim: str, factory: str | None, trusted: bool) -> Guess:
    """Return what the files' names say; raises AccessError when the format or a role cannot be told."""
    if not model.is_file():
        raise AccessError(f"{model} is no file")
    format_ = FORMATS.get(model.suffix.lower())
    if format_ is None:
        raise AccessError(f"{model}: extension {model.suffix!r} shows no format; known are {', '.join(FORMATS)}")
    if format_.runs_code and not trusted:
        raise AccessError(f"loading format {format_} runs code from {model}: add --allow-code if you trust its author")
    if format_ is ModelFormat.SAFETENSORS and factory is None:
        raise AccessError(f"{model} holds weights only: name what builds the network with --factory MODULE:CALLABLE")
    files = _data_files(data or [model.parent])
    root = _common_folder([model, *files.values()])
    return Guess(
        claim=claim,
        root=root,
        model=Model(
            uri=_uri(claim, root, model), format=format_, factory=Factory(entry_point=factory) if factory else None,
            trust="RunsCodeFromFile" if format_.runs_code else None,
        ),
        sets={role: Dataset(uri=_uri(claim, root, path)) for role, path in files.items()},
    )  # fmt: skip


def inspect(found: Guess) -> InspectResult:
    """Have a Job look at model and data; raises AccessError with its sentence when it cannot open them."""
    request = InspectRequest(resource="local/init", model=found.model, data=tuple(found.sets.values()))
    (result,) = run([Job(request, environment=job_environment({found.claim: found.root}))], heard=lambda _: None)
    if not isinstance(result, InspectResult):
        raise AccessError(f"the model could not be looked at: the Job answered with {result.kind}")
    return result


def manifest(found: Guess, seen: InspectResult, *, name: str) -> str:
    """Return the YAML, with what was seen as comments and what is missing marked."""
    files = {file.uri: file for file in seen.files}
    lines = [
        f"# Inputs: {'; '.join(seen.inputs)}. Outputs: {'; '.join(seen.outputs)}.",
        *_techniques(seen),
        "apiVersion: retune.dev/v1alpha1",
        "kind: ModelOptimization",
        "metadata:",
        f"  name: {name}",
        "spec:",
        *_model(found.model, seen.task),
        "  data:",
        *(line for role in ROLES for line in _dataset(role, found.sets.get(role), files)),
        "  objectives:",
        f"    - {_QUALITY[seen.task]}",
        '    - {metric: latency_p95_ms, tolerance: "0.05"}',
        '    - {metric: size_bytes, tolerance: "0.05"}',
        "  target:",
        f"    ref: {{kind: Deployment, name: {name}}} # the Deployment that serves the model",
    ]
    return "\n".join(lines) + "\n"


def _techniques(seen: InspectResult) -> list[str]:
    usable = [kind for kind, reason in seen.techniques.items() if reason is None]
    left_out = [f"#   {kind}: {reason}" for kind, reason in seen.techniques.items() if reason is not None]
    return [f"# Techniques to be tried: {', '.join(usable) or 'none'}.", *(["# Not usable:"] if left_out else []),
            *left_out]  # fmt: skip


def _model(model: Model, task: Task) -> list[str]:
    lines = ["  model:", f"    uri: {model.uri}", f"    format: {model.format}", f"    task: {task}"]
    if model.factory:
        lines += ["    factory:", f"      entryPoint: {model.factory.entry_point}"]
    return [*lines, *([f"    trust: {model.trust}"] if model.trust else [])]


def _dataset(role: str, given: Dataset | None, files: Mapping[str, InspectedFile]) -> list[str]:
    if given is None:
        missing = f"    # {role}: no file whose name begins with {' or '.join(ROLES[role])} was given"
        return [missing] if role != "calibration" else []
    file = files[given.uri]
    label = [f"      labelColumn: {file.label_column}"] if file.label_column not in {None, "label"} else []
    return [f"    {role}: # {file.rows} rows", f"      uri: {given.uri}", *label]


def _data_files(places: Sequence[Path]) -> dict[str, Path]:
    """Return data files by role; raises AccessError when two files have one role or a given file has none."""
    files: dict[str, Path] = {}
    for place in places:
        candidates = sorted(place.iterdir()) if place.is_dir() else [place]
        for path in (each for each in candidates if each.suffix.lower() in _DATA):
            role = next((role for role, starts in ROLES.items() if path.stem.lower().startswith(starts)), None)
            if role is None and not place.is_dir():
                raise AccessError(f"{path}: name it train..., val..., test... or calib..., so that its role is known")
            if role in files:
                raise AccessError(
                    f"{files[role]} and {path} both look like {role} data: give the files, not the folder"
                )
            if role:
                files[role] = path
    return files


def _common_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.resolve().parent for path in paths]))


def _uri(claim: str, root: Path, path: Path) -> str:
    return f"pvc://{claim}/{path.resolve().relative_to(root)}"
