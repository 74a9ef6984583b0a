"""Format HuggingFace: a folder as `save_pretrained` writes it, with the configuration and the weights of a network.

Both are data. The network is a class of transformers that the configuration names, and only one of a kind that is known
here; code beside the weights is never run, and nothing is asked of any server.
"""

from pathlib import Path

from optimizer_jobs.data.hugging_face import CONFIG
from optimizer_jobs.errors import printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered, other_task
from optimizer_jobs.machinery.formats.classes import named_classes, numbered_classes
from optimizer_jobs.machinery.formats.hugging_face_folder import Folder, Kind, read
from retune.api.model import Task

_PROBLEMS = {
    "single_label_classification": Task.CLASSIFICATION,
    "multi_label_classification": Task.MULTI_LABEL,
    "regression": Task.REGRESSION,
}
"""Task by the problem_type that a configuration names."""


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Build the network, load the weights, and write it as ONNX."""
    from optimizer_jobs.machinery.formats.hugging_face_network import export_folder, kind_of

    folder = read(delivered)
    kind = kind_of(folder, delivered)
    _check_task(folder, kind, delivered)
    otherwise = f"write them into id2label of {CONFIG}"
    classes = named_classes(folder.names, delivered, otherwise=otherwise) or numbered_classes(folder.names, delivered)
    model, signature = export_folder(folder, kind, delivered, into=into)
    return Converted(model=model, signature=signature, classes=classes)


def _check_task(folder: Folder, kind: Kind, delivered: Delivered) -> None:
    """Refuse a network that does something else than the spec says; any may be held against itself as Generic.

    Raises:
        JobError: ModelInvalid, with the task that the folder shows.
    """
    does = _tasks(folder, kind)
    if delivered.task is Task.GENERIC or delivered.task in does:
        return
    problem = folder.config.get("problem_type")
    why = f" (problem_type {printable(str(problem), limit=40)})" if problem and kind is Kind.SCORES else ""
    raise other_task(delivered, what=f"{folder.architecture}{why}", does=does[0])


def _tasks(folder: Folder, kind: Kind) -> tuple[Task, ...]:
    """Return the tasks that a network may have, the likeliest first."""
    if kind is Kind.TOKENS:
        return (Task.GENERIC,)
    if kind is Kind.ENCODER:
        return (Task.EMBEDDING,)
    stated = _PROBLEMS.get(str(folder.config.get("problem_type")))
    single = len(folder.names) == 1
    first = Task.REGRESSION if single else Task.CLASSIFICATION
    return (stated,) if stated else (first, Task.CLASSIFICATION, Task.REGRESSION, Task.MULTI_LABEL)
