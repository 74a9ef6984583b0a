"""Technique Distillation: a smaller network learns the answers of any model: trees, an ensemble, a larger network.

Says how; `nets.learning.students` builds the student and `training.networks` trains it. Where the teacher is a network,
its hidden features are learned with its answers (`nets.learning.features`). A student that learns from labels alone is
always tried too, because it is often as good.
"""

from typing import TYPE_CHECKING

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.fit import unchangeable, untaught
from optimizer_jobs.machinery.training.parameters import Space, among, choices, told
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import Task
from retune.api.techniques import Distillation, Parameter, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.DISTILLATION
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
FACTORY = "factory"
_STUDENT = (among("width", (32, 16, 64, 128, 256)), among("depth", (1, 2, 3)))
_LESSON = (among("teacher_weight", (0.7, 0.0, 0.3, 1.0)), among("temperature", (2.0, 1.0, 4.0)))
_FEATURES = among("feature_weight", (5.0, 0.0))
_EPOCHS: Params = {"epochs": 60}
"""A student starts from nothing, so it gets more time than a model that is trained on."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no student can learn this model's answers."""
    reason = untaught(subject)
    if reason is not None:
        return reason
    from optimizer_jobs.nets.learning.students import not_answerable, not_learnable

    settings = _settings(spec)
    wrong = parameters.wrong(settings.parameters or ())
    return wrong or (not_learnable if settings.student is None else not_answerable)(subject.signature)


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the student's shape and what it learns from."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    chosen = _space(spec, subject).choose(trial, spec.name)
    chosen |= _fixed(spec, subject)
    if chosen.get("teacher_weight") == 0.0:
        for name in ("temperature", "feature_weight"):
            chosen.pop(name, None)
    if chosen.get("feature_weight") == 0.0:
        chosen.pop("feature_weight")
    student = _settings(spec).student
    factory: Params = {FACTORY: student.model_dump_json(by_alias=True)} if student else {}
    return _EPOCHS | factory | chosen if mode == ON else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return a student that learns from the model's answers, and where there are labels one that learns from them."""
    usual = off(spec, subject) | told(spec.name, {"mode": ON})
    plain = [usual | told(spec.name, {"teacher_weight": 0.0})] if subject.task is not Task.EMBEDDING else []
    answers = [usual | told(spec.name, {"feature_weight": 0.0})] if _shows_features(spec, subject) else []
    return (usual, *answers, *plain)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no student."""
    return told(spec.name, {"mode": OFF}, _space(spec, subject).first())


def describe(params: Params) -> str:
    """Return student and lesson, such as `student of width 32, depth 1, taught by 0.7`."""
    shape = [f"{name.replace('_', ' ')} {value}" for name, value in params.items() if name not in _OTHER]
    weight = params.get("teacher_weight")
    lesson = "from labels alone" if weight == 0.0 else f"taught by {_share(weight)}"
    lesson += " and hidden features" if params.get("feature_weight") else ""
    return ", ".join([f"student of {', '.join(shape)}" if shape else "student", lesson])


_OTHER = {FACTORY, "teacher_weight", "temperature", "epochs", "feature_weight"}


def _share(weight: ParamValue | None) -> str:
    return "answers alone" if weight in {None, 1.0} else f"answers {weight:g}"


def _space(spec: TechniqueSpec, subject: Subject) -> Space:
    """Return the student's arguments, and what it learns from where there are labels."""
    settings = _settings(spec)
    shape: tuple[Parameter, ...] = _STUDENT if settings.student is None else settings.parameters or ()
    lesson = () if subject.task is Task.EMBEDDING else _LESSON[: 2 if subject.task is Task.CLASSIFICATION else 1]
    features = (_FEATURES,) if _shows_features(spec, subject) else ()
    return Space((*shape, *lesson, *features))


def _fixed(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return what is wanted though it cannot be had, so that the outcome says why."""
    wanted = _learns_features(spec, subject) and not _shows_features(spec, subject)
    return {"feature_weight": choices(_FEATURES)[0]} if wanted else {}


def _learns_features(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether hidden features are wanted; of an embedding, the answers are features themselves."""
    return _settings(spec).features == "Auto" and subject.task is not Task.EMBEDDING


def _shows_features(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether hidden features are wanted, and the model is a network that shows them."""
    return _learns_features(spec, subject) and unchangeable(subject) is None


def _settings(spec: TechniqueSpec) -> Distillation:
    return spec.distillation or Distillation()
