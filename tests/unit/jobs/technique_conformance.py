"""What every technique must keep, whatever it does; each one in the registry runs through all of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from optuna.trial import FixedTrial

from optimizer_jobs import technique as facts
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import agreement, predict
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step
from retune.api.model import Task
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType


@dataclass(frozen=True)
class Subject:
    """One technique with one set of parameters, on one model."""

    model: Path
    spec: Technique
    params: Params
    calibration: Rows

    def apply(self, workdir: Path, *, seed: int = 0) -> Applied | Skipped:
        """Run the technique in a fresh folder."""
        workdir.mkdir(parents=True)
        context = Context(
            workdir=workdir,
            signature=check_onnx(self.model),
            training=rows_for(self.model, self.calibration.take(slice(0, 500))),
            validation=rows_for(self.model, self.calibration.take(slice(0, 200))),
            calibration=rows_for(self.model, self.calibration),
            seed=seed,
            cpu_flags=frozenset(fingerprint().features),
        )
        step = Step(name=self.spec.name, type=self.spec.type, params=self.params)
        return step.apply(self.model, context)


def rows_for(model: Path, rows: Rows) -> Rows:
    """Return rows of a single input under the name that this model gives it."""
    (values,) = rows.inputs.values()
    return Rows(inputs={check_onnx(model).inputs[0].name: values}, labels=rows.labels, digest=rows.digest)


def subject_of(model: Path, *, calibration: bool = True, training: bool = True) -> facts.Subject:
    """Return what a technique sees of a model before it is used."""
    return facts.Subject(
        graph=onnx.load(model),
        signature=check_onnx(model),
        task=Task.CLASSIFICATION,
        training=training,
        calibration=calibration,
        cpu_flags=frozenset(fingerprint().features),
    )


def variants(kind: TechniqueType, subject: facts.Subject) -> Iterator[tuple[Technique, Params]]:
    """Yield every variant that a study would try first, those that pay for large models only included."""
    every = Quantization(schemes=tuple(QuantizationScheme)) if kind is TechniqueType.QUANTIZATION else None
    spec = Technique(name="step", type=kind, quantization=every)
    technique = TECHNIQUES[kind]
    for told in technique.defaults(spec, subject):
        params = technique.suggest(FixedTrial(told), spec, subject)
        assert params is not None
        yield spec, params


def check_loads_and_keeps_signature(subject: Subject, made: Applied) -> None:
    """The new file passes the check of delivered models and has the same inputs and outputs."""
    assert check_onnx(made.model) == check_onnx(subject.model)


def check_effect_is_measured(subject: Subject, made: Applied) -> None:
    """The file got smaller or its graph changed; a summary without an effect would be a lie."""
    before, after = (onnx.load(path).graph for path in (subject.model, made.model))
    smaller = made.model.stat().st_size < subject.model.stat().st_size
    assert smaller or [node.op_type for node in before.node] != [node.op_type for node in after.node]
    assert made.summary


def check_fewer_bits_are_fewer_bytes(subject: Subject, made: Applied) -> None:
    """Quantization that leaves the file as large as it was has quantized nothing, whatever its summary says."""
    assert made.model.stat().st_size < 0.9 * subject.model.stat().st_size


def check_same_bytes_again(subject: Subject, made: Applied, *, workdir: Path) -> None:
    """The same arguments give the same bytes, in another folder and a second time."""
    again = subject.apply(workdir)
    assert isinstance(again, Applied)
    assert again.model.read_bytes() == made.model.read_bytes()
    assert again.summary == made.summary


def check_still_classifies(subject: Subject, made: Applied, rows: Rows) -> None:
    """At least nine of ten answers stay as they were on data the technique has not seen."""
    fitting = rows_for(subject.model, rows)
    before, after = (predict(open_model(path, EngineOptions()), fitting) for path in (subject.model, made.model))
    assert np.mean(agreement(before, after)) >= 0.9


def check_original_is_untouched(subject: Subject, *, before: bytes) -> None:
    """A technique writes a new file and never the one it was given."""
    assert subject.model.read_bytes() == before
