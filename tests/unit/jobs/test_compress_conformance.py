"""Every technique of the registry that rewrites, in every variant a study starts with, on every test model."""

from pathlib import Path

import onnx
import pytest
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.stages import trains
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.technique import Applied, Params
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs import technique_conformance as conformance

SUBJECT = models.subject()
MODELS = ("mlp", "sklearn", "conv")
VARIANTS = [
    pytest.param(
        spec,
        params,
        id="-".join([spec.type, *(str(value) for value in params.values())]),
        marks=[pytest.mark.torch] if trains(Step(name=spec.name, type=kind, params=params)) else [],
    )
    for kind, technique in TECHNIQUES.items()
    if not technique.TRAINS and technique.unavailable(SUBJECT, Technique(name="step", type=kind)) is None
    for spec, params in conformance.variants(kind, SUBJECT)
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("spec", "params"), VARIANTS)
def test_technique_conforms(
    spec: Technique, params: Params, name: str, delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """A step changes the model, keeps its signature and answers, repeats itself, or says why it did nothing."""
    _check_conforms(spec, params, delivered / f"{name}.onnx", splits, tmp_path)


@pytest.mark.torch
def test_separable_convolutions_conform(delivered: Path, splits: dict[str, Rows], tmp_path: Path) -> None:
    """What only a convolutional network is offered keeps all that the other techniques do."""
    pytest.importorskip("torch")
    convolutions = conformance.subject_of(delivered / "conv.onnx")
    offered = list(conformance.variants(TechniqueType.FACTORIZATION, convolutions))
    (spec, params) = next(one for one in offered if "separable" in one[1])
    _check_conforms(spec, params, delivered / "conv.onnx", splits, tmp_path)


def _check_conforms(spec: Technique, params: Params, model: Path, splits: dict[str, Rows], tmp_path: Path) -> None:
    subject = conformance.Subject(model=model, spec=spec, params=params, calibration=splits["training"])
    before = subject.model.read_bytes()
    made = subject.apply(tmp_path / "first")
    conformance.check_original_is_untouched(subject, before=before)
    if not isinstance(made, Applied):
        assert made.reason
        assert spec.type is TechniqueType.GRAPH_OPTIMIZATION, "only a graph that is minimal already may stay as it is"
        return
    conformance.check_loads_and_keeps_signature(subject, made)
    conformance.check_effect_is_measured(subject, made)
    if spec.type is TechniqueType.QUANTIZATION:
        conformance.check_fewer_bits_are_fewer_bytes(subject, made)
    conformance.check_still_classifies(subject, made, splits["validation"])
    conformance.check_same_bytes_again(subject, made, workdir=tmp_path / "second")


def test_graph_optimization_has_an_effect_on_a_converted_model(
    delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """A graph as a converter leaves it loses nodes."""
    spec, params = next(conformance.variants(TechniqueType.GRAPH_OPTIMIZATION, models.subject()))
    subject = conformance.Subject(
        model=delivered / "sklearn.onnx", spec=spec, params=params, calibration=splits["training"]
    )
    made = subject.apply(tmp_path / "work")
    assert isinstance(made, Applied)
    assert len(onnx.load(made.model).graph.node) < len(onnx.load(subject.model).graph.node)


@pytest.mark.parametrize("kind", list(TECHNIQUES))
def test_technique_can_be_switched_off(kind: TechniqueType) -> None:
    """The parameters that switch a technique off, with any others, give no step."""
    spec = Technique(name="step", type=kind)
    technique, subject = TECHNIQUES[kind], models.subject()
    told = next(iter(technique.defaults(spec, subject)), {}) | technique.off(spec, subject)
    assert technique.suggest(FixedTrial(told), spec, subject) is None


def test_every_technique_type_of_the_api_is_registered() -> None:
    """What a user may write in a spec exists, in the API's order."""
    assert list(TECHNIQUES) == list(TechniqueType)
