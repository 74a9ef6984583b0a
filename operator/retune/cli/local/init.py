"""Write a starting ModelOptimization by looking at the model and at data files.

What cannot be seen is left out or marked, never made up: comments in the file say what a person still has to fill in.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from retune.api.model import USUAL_LABEL, Dataset, InputValue, Model, ModelFormat, Task
from retune.api.own_code import Factory
from retune.cli.access import AccessError
from retune.cli.local.jobs import Job, job_environment, run
from retune.contract.file_formats import UnknownFormatError, format_of
from retune.contract.foreign import foreign, is_hugging_face
from retune.contract.machines import InspectedFile, InspectResult
from retune.contract.requests import InspectRequest

ROLES = {"training": ("train",), "validation": ("val", "dev"), "test": ("test",), "calibration": ("calib",)}
"""How the file of a data set may begin, by the role of the data set."""

_WHOLE = "whole"
_DATA = {".npz", ".parquet", ".csv"}


@dataclass(frozen=True)
class Guess:
    """What the names of the files say of model and data."""

    claim: str
    """Name of the PersistentVolumeClaim that is to hold the files."""
    root: Path
    """Folder that is to become the content of the claim."""
    model: Model
    sets: Mapping[str, Dataset]
    """Data sets by role."""
    whole: Dataset | None = None
    """The one dated table that is to become all of them."""


def guess(
    model: Path,
    data: Sequence[Path],
    *,
    claim: str,
    factory: str | None,
    trusted: bool,
    inputs: Sequence[InputValue] = (),
    time: str | None = None,
    roles_needed: bool = True,
) -> Guess:
    """Return what the names of the files say.

    Args:
        model: Model file, or a folder of Hugging Face.
        data: Data files, or folders of them; the folder that the model lies in where there are none.
        claim: Name of the PersistentVolumeClaim that is to hold the files.
        factory: `package.module:callable` that builds the network of a file of weights.
        trusted: Whether formats that run code from the file may be loaded.
        inputs: Values of inputs that the data lacks.
        time: Column with the time of each row. One data file without a role is then divided by it.
        roles_needed: Whether the name of every data file must say what it is for; else one that does not is validation.

    Raises:
        AccessError: The format of the model or the role of a data file cannot be told, or the format is not trusted.
    """
    format_ = _format(model)
    if format_ is ModelFormat.TORCHSCRIPT and factory is not None:
        format_ = ModelFormat.STATE_DICT  # both are .pt; a script needs no factory
    if format_.runs_code and not trusted:
        raise AccessError(f"loading format {format_} runs code from {model}: add --allow-code if you trust its author")
    if format_.weights_only and factory is None:
        raise AccessError(f"{model} holds weights only: name what builds the network with --factory MODULE:CALLABLE")
    places = data or [model.parent]
    whole = _only_table(places) if time and roles_needed else None
    files = {_WHOLE: whole} if whole else _data_files(places, roles_needed=roles_needed)
    root = _common_folder([model, *files.values()])
    if format_.is_folder:
        _check_links(model, root)
    delivered = Model(
        uri=_uri(claim, root, model),
        format=format_,
        factory=Factory(entry_point=factory) if factory else None,
        trust="RunsCodeFromFile" if format_.runs_code else None,
        inputs=tuple(inputs),
    )
    sets = {role: Dataset(uri=_uri(claim, root, file), time_column=time) for role, file in files.items()}
    ordered = {role: sets[role] for role in ROLES if role in sets}
    return Guess(claim=claim, root=root, model=delivered, sets=ordered, whole=sets.get(_WHOLE))


def _format(model: Path) -> ModelFormat:
    """Return the format of a file or folder; raises AccessError where it shows none that is read."""
    members = frozenset(path.name for path in model.iterdir()) if model.is_dir() else frozenset()
    if is_hugging_face(members):
        return ModelFormat.HUGGING_FACE
    if (known := foreign(str(model), members)) is not None:
        raise AccessError(f"{model} {known[0]}: {known[1]}")
    if not model.is_file():
        raise AccessError(f"{model} is no file, and no folder with config.json and model.safetensors")
    try:
        return format_of(model)
    except UnknownFormatError as error:
        raise AccessError(str(error)) from error


def _check_links(folder: Path, root: Path) -> None:
    """Refuse a folder of links that lead out of what is to be the claim, as a cache of downloads has them."""
    parts = [path for pattern in ("*.json", "*.safetensors", "*/config.json") for path in sorted(folder.glob(pattern))]
    astray = next((path for path in parts if not path.resolve().is_relative_to(root)), None)
    if astray is not None:
        raise AccessError(
            f"{astray} is a link that leads out of {root}, which is to be the claim: copy the folder with its files, "
            f"cp -rL {folder} COPY, and name the copy"
        )


def inspect(
    files: Guess,
    *,
    task: Task | None = None,
    labels: Sequence[str] = (),
    output: str | None = None,
    code: Sequence[Path] = (),
) -> InspectResult:
    """Have a Job look at model and data.

    Args:
        files: What the names of the files say.
        task: What the model does; None to find out.
        labels: Columns with the labels; none to find out.
        output: Output with the answer; None to find out.
        code: Folders of the owner's own code, where factories are looked for.

    Raises:
        AccessError: The model or a file cannot be used; the sentence is the Job's.
    """
    data = dict(files.sets) if files.whole is None else {"validation": files.whole}
    known = {"task": task, "labels": tuple(labels), "output": output, "divide": files.whole is not None}
    request = InspectRequest.model_validate({"resource": "local/init", "model": files.model, "data": data} | known)
    (result,) = run([Job(request, environment=job_environment({files.claim: files.root}, code))], heard=lambda _: None)
    if not isinstance(result, InspectResult):
        raise AccessError(f"the model could not be looked at: the Job answered with {result.kind}")
    return result


def manifest(files: Guess, inspected: InspectResult, *, name: str) -> str:
    """Return the YAML of a ModelOptimization, with comments on what was seen, guessed and is missing.

    Args:
        files: What the names of the files say.
        inspected: What the Job has seen in them.
        name: Name of the resource and of the Deployment that serves the model.
    """
    contents = {file.split: file for file in inspected.files}
    lines = [
        f"# Inputs: {'; '.join(inspected.inputs)}. Outputs: {'; '.join(inspected.outputs)}.",
        f"# task: {inspected.task}, because {inspected.task_because}.",
        f"# label: {inspected.label_because}.",
        f"# output: {inspected.output_because}.",
        f"# objectives: none listed, so {inspected.limits_because}; then p95 latency decides, then size.",
        *([f"# data: {inspected.divided_because}."] if inspected.divided_because else []),
        *_techniques(inspected),
        "apiVersion: retune.dev/v1alpha1",
        "kind: ModelOptimization",
        "metadata:",
        f"  name: {name}",
        "spec:",
        *_model(files.model, inspected),
        "  data:",
        *(line for role in ROLES for line in _dataset(role, _set_of(role, files, contents), contents)),
        "  target:",
        f"    ref: {{kind: Deployment, name: {name}}} # the Deployment that serves the model",
    ]
    return "\n".join(lines) + "\n"


def _techniques(inspected: InspectResult) -> list[str]:
    """Return comments on the techniques that can be used, and why others cannot."""
    usable = [kind for kind, reason in inspected.techniques.items() if reason is None]
    left_out = [f"#   {kind}: {reason}" for kind, reason in inspected.techniques.items() if reason is not None]
    heading = ["# Not usable (`retune doctor` says what would bring more):"] if left_out else []
    return [f"# Techniques to be tried: {', '.join(usable) or 'none'}.", *heading, *left_out]


def _model(model: Model, inspected: InspectResult) -> list[str]:
    lines = ["  model:", f"    uri: {model.uri}", f"    format: {model.format}", f"    task: {inspected.task}"]
    for field, name in inspected.asked.to_dict().items():
        lines += ["    outputs:", f"      {field}: {json.dumps(name)}"]
    if model.inputs:
        lines += ["    inputs:"]
    for constant in model.inputs:
        lines += [f"    - {{name: {json.dumps(constant.name)}, value: {json.dumps(constant.value)}}}"]
    if model.factory:
        lines += ["    factory:", f"      entryPoint: {model.factory.entry_point}"]
    return [*lines, *([f"    trust: {model.trust}"] if model.trust else [])]


def _set_of(role: str, files: Guess, contents: Mapping[str, InspectedFile]) -> Dataset | None:
    """Return the data set of a role, which a Job may have made of the one table."""
    if files.whole is None or role not in contents:
        return files.sets.get(role)
    return files.whole.model_copy(update={"uri": contents[role].uri})


def _dataset(role: str, dataset: Dataset | None, contents: Mapping[str, InspectedFile]) -> list[str]:
    """Return the lines of a data set, or a comment where there is none; calibration data may be missing."""
    if dataset is None:
        missing = f"    # {role}: no file whose name begins with {' or '.join(ROLES[role])} was given"
        return [missing] if role != "calibration" else []
    file = contents[role]
    time = [f"      timeColumn: {json.dumps(dataset.time_column)}"] if dataset.time_column else []
    return [f"    {role}: # {file.rows} rows", f"      uri: {dataset.uri}", *_labels(file), *time]


def _labels(file: InspectedFile) -> list[str]:
    """Return the line that names the label columns, where they are not the usual one."""
    if file.label_columns:
        return [f"      labelColumns: {json.dumps(file.label_columns)}"]
    return (
        [f"      labelColumn: {json.dumps(file.label_column)}"] if file.label_column not in {None, USUAL_LABEL} else []
    )


def _role(path: Path) -> str | None:
    """Return what a data file is for, by the beginning of its name."""
    return next((role for role, starts in ROLES.items() if path.stem.lower().startswith(starts)), None)


def _only_table(places: Sequence[Path]) -> Path | None:
    """Return the only data file there is, where its name does not say what it is for; else None."""
    inside = [path for place in places for path in (sorted(place.iterdir()) if place.is_dir() else [place])]
    files = [path for path in inside if path.suffix.lower() in _DATA]
    return files[0] if len(files) == 1 and _role(files[0]) is None else None


def _data_files(places: Sequence[Path], *, roles_needed: bool) -> dict[str, Path]:
    """Return data files by role; raises AccessError when two files have one role or a named file has none."""
    files: dict[str, Path] = {}
    for place in places:
        if not place.exists():
            raise AccessError(f"{place} is no file or folder")
        candidates = sorted(place.iterdir()) if place.is_dir() else [place]
        for path in (candidate for candidate in candidates if candidate.suffix.lower() in _DATA):
            role = _role(path)
            if role is None and not place.is_dir() and not roles_needed:
                role = "validation"
            if role is None and not place.is_dir():
                raise AccessError(
                    f"{path}: name it train..., val..., test... or calib..., so that its role is known; one dated "
                    "table is divided by time with --time COLUMN"
                )
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
    """Return the URI of a file; raises AccessError where no URI can name it."""
    uri = f"pvc://{claim}/{path.resolve().relative_to(root)}"
    try:
        return Dataset(uri=uri).uri
    except ValidationError as error:
        raise AccessError(f"{uri} can be no URI: rename what is not letters, digits and _ . = : + -") from error
