"""Results of steps, kept under the hash of all that went into them, so that trials and workers share the work.

A kept result is never changed; two workers that make the same one at the same time write the same bytes. One that is
not whole any more, on a file system that lost power or space, is made anew.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from optimizer_jobs.machinery.training.fit import fit
from optimizer_jobs.progress import say
from optimizer_jobs.technique import Applied, Context, Params, Rewriting, Skipped
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.model import Factory
from retune.api.techniques import TechniqueType

Json = Any
_OUTCOME, _MODEL, _STAGED = "outcome.json", "model.onnx", ".staged-"

Entering = Callable[[str], None]
"""Takes the kind of work that a step is: the same text where trainings can be compared with each other."""


@dataclass(frozen=True)
class Step:
    """One technique with its parameters."""

    name: str
    type: TechniqueType
    params: Params

    @property
    def names(self) -> tuple[str, ...]:
        """The name alone."""
        return (self.name,)

    @property
    def words(self) -> str:
        """The step in a few words."""
        return TECHNIQUES[self.type].describe(self.params)

    @property
    def key(self) -> Json:
        """What the result depends on besides model and context."""
        return [str(self.type), self.params]

    def apply(self, model: Path, context: Context) -> Applied | Skipped:
        """Rewrite a file as the step says."""
        return cast("Rewriting", TECHNIQUES[self.type]).apply(model, self.params, context)


@dataclass(frozen=True)
class Built:
    """A model after its steps."""

    model: Path
    applied: tuple[str, ...]
    skipped: tuple[str, ...]
    """Why steps left the model as it was."""
    idle: tuple[str, ...] = ()
    """Names of these steps."""
    native: Path | None = None
    """The same model in the format it was delivered in, where the steps made it."""
    factory: Factory | None = None
    """What builds the network whose weights `native` holds."""


def build(
    model: Path, steps: Sequence[Step], *, context: Context, kept: Path, entering: Entering | None = None
) -> Built:
    """Train as all training steps together say, then apply the others in order.

    Results are taken from the folder `kept` where they were made before, and added to it where not. `entering` hears
    of each step before it is taken or made, and may raise to end the work there.
    """
    training = [step for step in steps if TECHNIQUES[step.type].TRAINS]
    plan = {step.type: step.params for step in training}
    rewriting = dataclasses.replace(context, training_plan=plan)
    before = _Training(training).group if training else ""
    work: list[tuple[str, Step | _Training, Context]] = [(before, _Training(training), context)] if training else []
    work += [(f"{before}+{step.type}".strip("+"), step, rewriting) for step in steps if step not in training]
    built = Built(model=model, applied=(), skipped=())
    for group, step, its_context in work:
        if entering is not None:
            entering(group)
        built = _then(built, step, _cached(built.model, step, context=its_context, kept=kept))
    return built


@dataclass(frozen=True)
class _Training:
    """All training steps of a plan, as the one step that they are."""

    steps: Sequence[Step]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @property
    def group(self) -> str:
        starts = [str(step.params["start"]) for step in self.steps if "start" in step.params]
        return "+".join([*(step.type for step in self.steps), *starts])

    @property
    def key(self) -> Json:
        return {str(step.type): step.params for step in self.steps}

    def apply(self, model: Path, context: Context) -> Applied | Skipped:
        return fit(model, {step.type: step.params for step in self.steps}, context)


def _then(built: Built, step: Step | _Training, outcome: Applied | Skipped) -> Built:
    """Return what is built after one more step; a rewritten file is no longer what the native one says."""
    if isinstance(outcome, Skipped):
        skipped = (*built.skipped, outcome.reason)
        return dataclasses.replace(built, skipped=skipped, idle=(*built.idle, *step.names))
    applied = (*built.applied, outcome.summary)
    return Built(outcome.model, applied, built.skipped, built.idle, native=outcome.native, factory=outcome.factory)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(model: Path, step: Step | _Training, *, context: Context, kept: Path) -> Applied | Skipped:
    entry = kept / _key(model, step, context)
    outcome = _read(entry)
    if outcome is None:
        _make(model, step, context=context, entry=entry)
        outcome = json.loads((entry / _OUTCOME).read_text())
    if "reason" in outcome:
        return Skipped(reason=outcome["reason"])
    native = entry / outcome["native"] if outcome["native"] else None
    factory = Factory.model_validate(outcome["factory"]) if outcome["factory"] else None
    return Applied(model=entry / _MODEL, summary=outcome["summary"], native=native, factory=factory)


def _read(entry: Path) -> Json | None:
    """Return the record of a kept result, or None when it is not there or not whole; what is not whole is removed."""
    if not entry.exists():
        return None
    try:
        outcome = json.loads((entry / _OUTCOME).read_text())
        if all(digest(entry / name) == known for name, known in outcome["digests"].items()):
            return outcome
    except (OSError, ValueError, LookupError):
        pass
    say(f"a kept result is damaged and is made anew: {entry.name[:12]}")
    shutil.rmtree(entry, ignore_errors=True)
    return None


def _make(model: Path, step: Step | _Training, *, context: Context, entry: Path) -> None:
    """Apply a step and publish its result with one rename; another worker's equal result wins silently."""
    with tempfile.TemporaryDirectory(dir=context.workdir) as scratch:
        outcome = step.apply(model, dataclasses.replace(context, workdir=Path(scratch)))
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=_STAGED) as folder:
            staged = Path(folder) / "result"
            staged.mkdir()
            (staged / _OUTCOME).write_text(json.dumps(_stage(outcome, staged)))
            try:
                staged.rename(entry)
            except OSError:
                if _read(entry) is None:
                    raise


def _stage(outcome: Applied | Skipped, folder: Path) -> dict[str, Json]:
    """Copy what a step made into the folder and return the record of it."""
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
