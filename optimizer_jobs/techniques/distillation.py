"""Technique Distillation: a smaller network, the student, learns the answers of any model: trees or a larger network.

Only the student and what it learns from are chosen here. The student of a model of tables is trained by
`machinery.training.table_students`, without torch. All others are built by `nets.learning.students` and trained by
`machinery.training.networks`; where their teacher is a network, they also learn its hidden features
(`nets.learning.features`). Where there are labels, a student that learns from them alone is always tried too, because
it is often as good.
"""

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.fit import unchangeable, untaught
from optimizer_jobs.machinery.training.parameters import Space, among, choices, trial_params
from optimizer_jobs.machinery.training.tabular import teaches_by_tables, unteachable
from optimizer_jobs.nets.learning.answerable import not_answerable
from optimizer_jobs.nets.learning.settings import FACTORY
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import Task
from retune.api.techniques import Distillation, Parameter, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.DISTILLATION
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
_STUDENT = (among("width", (32, 16, 64, 128, 256)), among("depth", (1, 2, 3)))
_TEACHING = (among("teacher_weight", (0.7, 0.0, 0.3, 1.0)), among("temperature", (2.0, 1.0, 4.0)))
_FEATURES = among("feature_weight", (5.0, 0.0))
_EPOCHS: Params = {"epochs": 60}
"""A student starts from new weights, so it gets more time than a model that is trained further."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no student can learn this model's answers, or None."""
    settings = _settings(spec)
    if _by_tables(spec, subject):
        return unteachable(subject)
    reason = untaught(subject)
    if reason is not None:
        return reason
    from optimizer_jobs.nets.learning.students import not_learnable

    unfit = not_learnable if settings.student is None else not_answerable
    return parameters.wrong(settings.parameters or ()) or unfit(subject.signature)


def _by_tables(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether the student is one of tables. One of the owner's own is a network of torch."""
    if _settings(spec).student is not None:
        return False
    return teaches_by_tables(subject.graph, subject.signature, native=subject.native, task=subject.task)


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the student's shape and what it learns from."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    chosen = _space(spec, subject).choose(trial, spec.name) | _fixed(spec, subject)
    if chosen.get("teacher_weight") == 0.0:
        for name in ("temperature", "feature_weight"):
            chosen.pop(name, None)
    if chosen.get("feature_weight") == 0.0:
        chosen.pop("feature_weight")
    student = _settings(spec).student
    factory: Params = {FACTORY: student.model_dump_json(by_alias=True)} if student else {}
    return _EPOCHS | factory | chosen if mode == ON else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return a student of the model's answers and features, one of its answers alone, and one of the labels alone.

    The last two only where the model shows features, and where there are labels.
    """
    usual = off(spec, subject) | trial_params(spec.name, {"mode": ON})
    labels = [usual | trial_params(spec.name, {"teacher_weight": 0.0})] if _teaching(spec, subject) else []
    answers = [usual | trial_params(spec.name, {"feature_weight": 0.0})] if _shows_features(spec, subject) else []
    return (usual, *answers, *labels)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no student."""
    return trial_params(spec.name, {"mode": OFF}, _space(spec, subject).first())


def describe(params: Params) -> str:
    """Return the student and what it learns from, such as `student of width 32, depth 1, taught by answers 0.7`."""
    shape = [f"{name.replace('_', ' ')} {value}" for name, value in params.items() if name not in _NOT_SHAPE]
    weight = params.get("teacher_weight")
    teaching = "from labels alone" if weight == 0.0 else f"taught by {_answers(weight)}"
    teaching += " and hidden features" if params.get("feature_weight") else ""
    return ", ".join([f"student of {', '.join(shape)}" if shape else "student", teaching])


_NOT_SHAPE = {FACTORY, "teacher_weight", "temperature", "epochs", "feature_weight"}
"""Parameters that say nothing about the student's shape."""


def _answers(weight: ParamValue | None) -> str:
    return "answers alone" if weight in {None, 1.0} else f"answers {weight:g}"


def _space(spec: TechniqueSpec, subject: Subject) -> Space:
    """Return the student's arguments, and how much it learns from the teacher where there are labels too."""
    settings = _settings(spec)
    shape: tuple[Parameter, ...] = _STUDENT if settings.student is None else settings.parameters or ()
    features = (_FEATURES,) if _shows_features(spec, subject) else ()
    return Space((*shape, *_teaching(spec, subject), *features))


def _teaching(spec: TechniqueSpec, subject: Subject) -> tuple[Parameter, ...]:
    """Return the parameters of how answers and labels are weighed; none where labels are not used.

    Students of tables learn logits, which have no temperature; and beside scores that are no probabilities, labels say
    nothing.
    """
    if subject.task is Task.EMBEDDING:
        return ()
    if subject.task is Task.REGRESSION:
        return _TEACHING[:1]
    if not _by_tables(spec, subject):
        return _TEACHING
    reading = subject.signature.reading
    return () if reading is not None and reading.scale is None else _TEACHING[:1]


def _fixed(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return hidden features that the user wants and the model does not show, so that the summary can say why."""
    wanted = _learns_features(spec, subject) and not _shows_features(spec, subject)
    return {"feature_weight": choices(_FEATURES)[0]} if wanted else {}


def _learns_features(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether hidden features are wanted. Answers of an embedding are features already, and trees have none."""
    wanted = _settings(spec).features == "Auto" and subject.task is not Task.EMBEDDING
    return wanted and not _by_tables(spec, subject)


def _shows_features(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether hidden features are wanted and the model is a network whose layers show them."""
    return _learns_features(spec, subject) and unchangeable(subject) is None


def _settings(spec: TechniqueSpec) -> Distillation:
    return spec.distillation or Distillation()
