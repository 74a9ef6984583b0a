"""Whether two models can be compared at all: they read the same rows, and their answers mean the same.

A champion and what was delivered after it may be different models. Numbers of models that answer different questions
say nothing of which is better, so such a comparison is refused before anything is measured.
"""

from collections.abc import Iterator, Sequence

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.signature import Reading, TensorSpec
from retune.contract.requests import BundleRef
from retune.contract.results import Reason

_CURE = (
    "Set spec.model back, or deliver a model with the same task, inputs, outputs and classes; another kind of model "
    "gets a ModelOptimization of its own."
)
_CLASSES_TOLD = 5


def require_comparable(champion: Manifest, delivered: Manifest, ref: BundleRef) -> None:
    """Refuse to compare a delivered model, or what is made from it, with a champion of another kind.

    Args:
        champion: Of the version that serves.
        delivered: Of the model as delivered.
        ref: Where the delivered model's bundle lies, for the refusal.

    Raises:
        JobError: Task, inputs, outputs or classes differ; the first difference is named.
    """
    difference = next(_differences(champion, delivered), None)
    if difference is not None:
        message = f"the delivered model cannot be compared with the champion: {difference}."
        raise JobError(Reason.MODELS_DIFFER, ref.uri, message, _CURE)


def _differences(champion: Manifest, delivered: Manifest) -> Iterator[str]:
    """Yield what differs, as words, the most telling difference first."""
    if champion.task is not delivered.task:
        yield f"its task is {delivered.task}, the champion's {champion.task}"
    before, after = champion.signature, delivered.signature
    if not _alike(before.inputs, after.inputs):
        yield f"its inputs are {_in_words(after.inputs)}, the champion's {_in_words(before.inputs)}"
    if not _alike(before.outputs, after.outputs):
        yield f"its outputs are {_in_words(after.outputs)}, the champion's {_in_words(before.outputs)}"
    if champion.classes != delivered.classes:
        yield f"its classes are {_classes(delivered)}, the champion's {_classes(champion)}"
    ours, theirs = before.reading or Reading(), after.reading or Reading()
    if any(None not in pair and pair[0] != pair[1] for pair in zip(_meaning(ours), _meaning(theirs), strict=True)):
        yield "its answers are read in another way (model.outputs)"
    if None not in {ours.positive, theirs.positive} and ours.positive != theirs.positive:
        yield f"its positive class is {theirs.positive}, the champion's {ours.positive} (model.positiveLabel)"


def _alike(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> bool:
    """Whether tensors have the same names, types and sizes; a free size fits any."""
    return len(ours) == len(theirs) and all(map(_fits, ours, theirs))


def _fits(ours: TensorSpec, theirs: TensorSpec) -> bool:
    same = (ours.name, ours.dtype, len(ours.shape)) == (theirs.name, theirs.dtype, len(theirs.shape))
    return same and all(min(pair) < 0 or pair[0] == pair[1] for pair in zip(ours.shape, theirs.shape, strict=True))


def _meaning(reading: Reading) -> tuple[object, ...]:
    """Return which outputs are the answer and what their numbers are; what is None was found out by nobody."""
    return reading.label, reading.scores, reading.scale


def _in_words(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.words for spec in specs)


def _classes(manifest: Manifest) -> str:
    told = [str(name) for name in manifest.classes[:_CLASSES_TOLD]]
    more = ["..."] if len(manifest.classes) > _CLASSES_TOLD else []
    return ", ".join([*told, *more]) or "the numbers of its score columns"
