"""Apply the steps of a plan, and keep each result under the hash of its inputs, so that trials and workers share work.

A kept result is never changed, and two workers that make the same result at the same time write the same bytes. A
result that is damaged, because the file system lost power or space, or that no worker of this search has sealed, is
made again.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, cast

from optimizer_jobs.machinery.training.fit import fit
from optimizer_jobs.progress import say
from optimizer_jobs.seal import study_seal
from optimizer_jobs.technique import Applied, Context, Params, Rewriting, Skipped
from optimizer_jobs.techniques.containment import contained
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.own_code import Factory
from retune.api.techniques import TechniqueType

Json = Any
OUTCOME = "outcome.json"
"""Name of the sealed record in the folder of a kept result."""
_MODEL, _STAGED = "model.onnx", ".staged-"

Entering = Callable[[str], None]
"""Called with the kind of a step; steps of the same kind can be compared with each other while they train."""


class Elsewhere(Protocol):
    """Where workers that share no folder give each other kept results."""

    def bring(self, entry: Path) -> None:
        """Fill the folder of a result, named by its hash, with what another worker has given, if any has."""

    def give(self, entry: Path, *, seconds: float) -> None:
        """Let other workers have a result, which took so long to make."""


@dataclass(frozen=True)
class Step:
    """One technique with its parameters."""

    name: str
    type: TechniqueType
    params: Params

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, as a list of one."""
        return (self.name,)

    @property
    def words(self) -> str:
        """The step in a few words, such as `pruned by 50 %`."""
        return TECHNIQUES[self.type].describe(self.params)

    @property
    def key(self) -> Json:
        """What the result depends on besides model and context, as JSON."""
        return [str(self.type), self.params]

    def apply(self, model: Path, context: Context) -> Applied | Skipped:
        """Rewrite the file with these parameters."""
        return cast("Rewriting", TECHNIQUES[self.type]).apply(model, self.params, context)


@dataclass(frozen=True)
class Built:
    """A model after its steps."""

    model: Path
    applied: tuple[str, ...]
    skipped: tuple[str, ...]
    """Why steps left the model as it was."""
    idle: tuple[str, ...] = ()
    """Names of the steps that left the model as it was."""
    native: Path | None = None
    """The same model in the format it was delivered in, where the steps made it."""
    factory: Factory | None = None
    """What builds the network whose weights `native` holds."""


def build(
    model: Path,
    steps: Sequence[Step],
    *,
    context: Context,
    kept: Path,
    elsewhere: Elsewhere | None = None,
    entering: Entering | None = None,
) -> Built:
    """Train once with all training steps together, then apply the other steps in order.

    Raises:
        BrokenTechniqueError: A step raised something.

    Args:
        model: The ONNX file to start from.
        steps: The steps of the plan.
        context: What steps may use besides the model.
        kept: Folder of kept results. A result that is not there yet is added.
        elsewhere: Where results are looked for that are not in the folder; None where all workers share it.
        entering: Called before each step; it may raise to end the work.
    """
    built = Built(model=model, applied=(), skipped=())
    for kind, step, step_context in _work(steps, context):
        if entering is not None:
            entering(kind)
        built = _then(built, step, _cached(built.model, step, step_context, kept, elsewhere))
    return built


def _work(steps: Sequence[Step], context: Context) -> Iterator[tuple[str, "Step | _Training", Context]]:
    """Yield each piece of work with its kind and its context; the training steps are the first one, together."""
    training = _Training([step for step in steps if TECHNIQUES[step.type].TRAINS])
    if training.steps:
        yield training.kind, training, context
    rewriting = dataclasses.replace(context, training_plan=training.plan)
    for step in steps:
        if step not in training.steps:
            yield f"{training.kind}+{step.type}".strip("+"), step, rewriting


@dataclass(frozen=True)
class _Training:
    """All training steps of a plan as one step."""

    steps: Sequence[Step]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @property
    def kind(self) -> str:
        """Techniques and start of the training; empty without steps."""
        starts = [str(step.params["start"]) for step in self.steps if "start" in step.params]
        return "+".join([*(step.type for step in self.steps), *starts])

    @property
    def key(self) -> Json:
        return {str(step.type): step.params for step in self.steps}

    @property
    def plan(self) -> dict[TechniqueType, Params]:
        return {step.type: step.params for step in self.steps}

    def apply(self, model: Path, context: Context) -> Applied | Skipped:
        return fit(model, self.plan, context)


def _then(built: Built, step: Step | _Training, outcome: Applied | Skipped) -> Built:
    """Return the model after one more step. The native file counts only when this step made it."""
    if isinstance(outcome, Skipped):
        skipped = (*built.skipped, outcome.reason)
        return dataclasses.replace(built, skipped=skipped, idle=(*built.idle, *step.names))
    applied = (*built.applied, outcome.summary)
    return Built(outcome.model, applied, built.skipped, built.idle, native=outcome.native, factory=outcome.factory)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(
    model: Path, step: Step | _Training, context: Context, kept: Path, elsewhere: Elsewhere | None
) -> Applied | Skipped:
    entry = kept / _key(model, step, context)
    outcome = _read(entry)
    if outcome is None and elsewhere is not None:
        elsewhere.bring(entry)
        outcome = _read(entry)
    if outcome is None:
        began = monotonic()
        _make(model, step, context=context, entry=entry)
        outcome = _opened(entry)
        if elsewhere is not None:
            elsewhere.give(entry, seconds=monotonic() - began)
    if "reason" in outcome:
        return Skipped(reason=outcome["reason"])
    native = entry / outcome["native"] if outcome["native"] else None
    factory = Factory.model_validate(outcome["factory"]) if outcome["factory"] else None
    return Applied(model=entry / _MODEL, summary=outcome["summary"], native=native, factory=factory)


def _read(entry: Path) -> Json | None:
    """Return the record of a kept result, or None when it is missing, damaged or foreign. Such a result is removed."""
    if not entry.exists():
        return None
    try:
        outcome = _opened(entry)
        if all(digest(entry / name) == expected for name, expected in outcome["digests"].items()):
            return outcome
    except (OSError, ValueError, LookupError):
        pass
    say(f"a kept result is damaged or foreign and is made anew: {entry.name[:12]}")
    shutil.rmtree(entry, ignore_errors=True)
    return None


def _opened(entry: Path) -> Json:
    """Return the record of a kept result, which belongs to its entry; raises ValueError where it has no right seal."""
    record = study_seal().opened((entry / OUTCOME).read_bytes())
    if record is None or record["entry"] != entry.name:
        raise ValueError("a record of another result")
    return record


def _make(model: Path, step: Step | _Training, *, context: Context, entry: Path) -> None:
    """Apply a step and publish its result with one rename, unless another worker has published it meanwhile."""
    with tempfile.TemporaryDirectory(dir=context.workdir) as scratch:
        with contained(*step.names):
            outcome = step.apply(model, dataclasses.replace(context, workdir=Path(scratch)))
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=_STAGED) as folder:
            staged = Path(folder) / "result"
            staged.mkdir()
            record = _stage(outcome, staged) | {"entry": entry.name}
            (staged / OUTCOME).write_bytes(study_seal().sealed(record))
            try:
                staged.rename(entry)
            except OSError:
                if _read(entry) is None:
                    raise


def _stage(outcome: Applied | Skipped, folder: Path) -> dict[str, Json]:
    """Copy the files that a step made into the folder and return their record."""
    if isinstance(outcome, Skipped):
        return {"reason": outcome.reason, "digests": {}}
    shutil.copyfile(outcome.model, folder / _MODEL)
    if outcome.native is not None:
        shutil.copyfile(outcome.native, folder / outcome.native.name)
    return {
        "summary": outcome.summary,
        "native": outcome.native.name if outcome.native else None,
        "factory": outcome.factory.model_dump(mode="json") if outcome.factory else None,
        "digests": {path.name: digest(path) for path in sorted(folder.iterdir())},
    }


def _key(model: Path, step: Step | _Training, context: Context) -> str:
    plan = {str(kind): params for kind, params in context.training_plan.items()}
    parts = [digest(model), step.key, plan, context.identity, context.seed, sorted(context.cpu_flags)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
