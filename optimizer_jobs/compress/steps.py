"""Results of steps, kept under the hash of all that went into them, so that trials and workers share the work.

A kept result is never changed; two workers that make the same one at the same time write the same bytes.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.compress.base import Applied, Context, Params, Skipped
from optimizer_jobs.compress.registry import TECHNIQUES
from retune.api.spec import TechniqueType


@dataclass(frozen=True)
class Step:
    """One technique with its parameters."""

    name: str
    type: TechniqueType
    params: Params

    @property
    def words(self) -> str:
        """The step in a few words."""
        return TECHNIQUES[self.type].describe(self.params)


@dataclass(frozen=True)
class Built:
    """A model after its steps."""

    model: Path
    applied: tuple[str, ...]
    skipped: tuple[str, ...]


def build(model: Path, steps: Sequence[Step], *, context: Context, kept: Path) -> Built:
    """Apply the steps in order, taking from the folder `kept` what was made before and adding what was not."""
    applied, skipped = [], []
    for step in steps:
        outcome = _cached(model, step, context=context, kept=kept)
        if isinstance(outcome, Skipped):
            skipped.append(outcome.reason)
        else:
            model = outcome.model
            applied.append(outcome.summary)
    return Built(model=model, applied=tuple(applied), skipped=tuple(skipped))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(model: Path, step: Step, *, context: Context, kept: Path) -> Applied | Skipped:
    entry = kept / _key(model, step, context)
    if not (entry / "outcome.json").exists():
        _make(model, step, context=context, entry=entry)
    outcome = json.loads((entry / "outcome.json").read_text())
    if "reason" in outcome:
        return Skipped(reason=outcome["reason"])
    return Applied(model=entry / "model.onnx", summary=outcome["summary"])


def _make(model: Path, step: Step, *, context: Context, entry: Path) -> None:
    """Apply a step and publish its result with one rename; another worker's equal result wins silently."""
    with tempfile.TemporaryDirectory(dir=context.workdir) as scratch:
        outcome = TECHNIQUES[step.type].apply(model, step.params, dataclasses.replace(context, workdir=Path(scratch)))
        entry.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".staged-"))
        if isinstance(outcome, Applied):
            shutil.copyfile(outcome.model, staged / "model.onnx")
            record = {"summary": outcome.summary}
        else:
            record = {"reason": outcome.reason}
        (staged / "outcome.json").write_text(json.dumps(record))
        try:
            staged.rename(entry)
        except OSError:
            shutil.rmtree(staged)
            if not (entry / "outcome.json").exists():
                raise


def _key(model: Path, step: Step, context: Context) -> str:
    parts = [digest(model), step.type, step.params, context.identity, context.seed, sorted(context.cpu_flags)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
