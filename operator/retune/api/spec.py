"""`ModelOptimization.spec`: what a user declares.

The smallest useful object names a model, the data it is judged by, and the Deployment that serves it; every other
field has the default a careful engineer would choose. Only what the operator honours is here.
"""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, cel_list, map_list, rules
from retune.api.execution import Execution, History
from retune.api.metrics import CUSTOM, unfit_metrics
from retune.api.model import Data, Model, Task
from retune.api.monitoring import Monitoring
from retune.api.objectives import Objective, Selection, default_objectives
from retune.api.registry import Registry
from retune.api.rollout import Rollout
from retune.api.search import Search, Serving
from retune.api.target import Target
from retune.api.techniques import QuantizationScheme, Technique, TechniqueType
from retune.api.triggers import Refresh, Triggers


class Mode(StrEnum):
    """How far the operator may go by itself."""

    AUTOMATIC = "Automatic"
    PROPOSE = "Propose"
    RECOMMEND_ONLY = "RecommendOnly"
    OBSERVE_ONLY = "ObserveOnly"


class DeletionPolicy(StrEnum):
    """What a deleted resource leaves behind on its target."""

    KEEP_CHAMPION = "KeepChampion"
    RESTORE_ORIGINAL = "RestoreOriginal"


def _quantizes(scheme: QuantizationScheme) -> str:
    """Return the CEL expression that a technique of the spec is quantization with this scheme."""
    return (
        "self.techniques.exists(t, t.type == 'Quantization' && has(t.quantization) && has(t.quantization.schemes) && "
        f"'{scheme}' in t.quantization.schemes)"
    )


def _has_type(kinds: Iterable[TechniqueType]) -> str:
    """Return the CEL expression that a technique of the spec is of one of these types."""
    return f"self.techniques.{_some_is(kinds)}"


def _some_is(kinds: Iterable[TechniqueType]) -> str:
    """Return the CEL call on a list of techniques that one of them is of one of these types."""
    return f"exists(t, t.type in {cel_list(kinds)})"


def _has_shadow(strategy: str) -> str:
    """Return the CEL expression that a strategy's part of the rollout is given, and a shadow in it."""
    return f"(has(self.rollout.{strategy}) && has(self.rollout.{strategy}.shadow))"


def _of_task(task: Task) -> str:
    """Return the CEL expression that the model has another task, or objective `o` has a metric that fits it."""
    return f"(self.model.task != '{task}' || !(o.metric in {cel_list(unfit_metrics(task))}))"


def _watched_of(task: Task) -> str:
    """Return the CEL expression that the model has another task, or what is watched fits it."""
    return f"(self.model.task != '{task}' || !(self.monitoring.quality.metric in {cel_list(unfit_metrics(task))}))"


_LEARNING = (
    TechniqueType.HYPERPARAMETER_TUNING,
    TechniqueType.ARCHITECTURE,
    TechniqueType.DATA_PREPARATION,
    TechniqueType.AUGMENTATION,
    TechniqueType.ADVERSARIAL_TRAINING,
)
_ONE_OBJECTIVE = "(has(self.objectives) && self.objectives.filter(o, o.role == 'Optimize').size() == 1)"
_IS_CUSTOM = f"o.metric in {cel_list(CUSTOM)}"
_NO_QUALITY = "!has(self.monitoring) || !has(self.monitoring.quality)"
_NO_QUALITY_METRIC = f"{_NO_QUALITY} || !has(self.monitoring.quality.metric)"
_TOLD_BY_CODE = (Task.EMBEDDING, Task.GENERIC)
"""Tasks whose answers are right or wrong only by code of the owner's own."""
_SEVERAL_ANSWERS = (Task.MULTI_LABEL, Task.REGRESSION)
"""Tasks whose labels may be several a row."""

_AMONG_OBJECTIVES = rules(
    ("self.exists(o, o.role == 'Optimize')", "at least one objective must have role Optimize: it ranks candidates"),
    (
        f"self.filter(o, {_IS_CUSTOM}).size() <= 1",
        "model.customMetric is either metric custom, where more is better, or custom_loss, where less is",
    ),
)
_AMONG_TECHNIQUES = rules(
    (
        "!self.exists(t, t.type == 'CustomTraining') || (self.exists_one(t, t.type == 'CustomTraining') && "
        f"!self.{_some_is((*_LEARNING, TechniqueType.DISTILLATION))})",
        "CustomTraining does all the training of a candidate: name one, and no other technique that trains",
    )
)
_ACROSS_FIELDS = rules(
    (
        "has(self.data.test) || self.mode == 'ObserveOnly'",
        "data.test is required unless mode is ObserveOnly: it decides promotion",
    ),
    (
        "!has(self.techniques) || has(self.data.training) || has(self.data.calibration) || "
        f"!{_quantizes(QuantizationScheme.STATIC)}",
        "static quantization needs data.training or data.calibration; without them leave Static out of "
        "quantization.schemes",
    ),
    (
        f"!has(self.techniques) || has(self.data.training) || !{_quantizes(QuantizationScheme.AWARE)}",
        "quantization-aware training needs data.training; without it leave Aware out of quantization.schemes",
    ),
    (
        "!has(self.techniques) || has(self.data.training) || "
        f"!{_has_type((TechniqueType.CUSTOM_TRAINING, *_LEARNING))}",
        "techniques that train need data.training",
    ),
    (
        f"self.search.sampler != 'CMAES' || {_ONE_OBJECTIVE}",
        "search.sampler CMAES needs exactly one objective with role Optimize: give the others role Constrain, or use "
        "Auto",
    ),
    (
        f"!has(self.objectives) || self.objectives.all(o, {' && '.join(map(_of_task, Task))})",
        "an objective's quality metric must fit model.task, such as accuracy for Classification, rmse for Regression, "
        "neighbor_agreement for Embedding, f1_micro for MultiLabel, fidelity for Generic",
    ),
    (
        f"!has(self.objectives) || has(self.model.customMetric) || !self.objectives.exists(o, {_IS_CUSTOM})",
        "metrics custom and custom_loss need model.customMetric: the code that computes them",
    ),
    (
        "self.mode != 'Propose' || (self.rollout.approval == 'Automatic' && !has(self.rollout.rollbackTo))",
        "mode Propose leaves the target to Git, where people approve and take back: rollout.approval must be "
        "Automatic, and rollout.rollbackTo left out",
    ),
    (
        "self.mode != 'Propose' || self.deletionPolicy != 'RestoreOriginal'",
        "mode Propose leaves the target to Git: deletionPolicy must be KeepChampion",
    ),
    (
        "self.rollout.strategy == 'RollingUpdate' || self.target.ref.kind == 'Deployment'",
        "rollout.strategy Canary and BlueGreen make a Deployment beside the target, which must be one too: take "
        "RollingUpdate for another kind of target",
    ),
    (
        "self.rollout.strategy == 'RollingUpdate' || self.target.injection.type != 'ConfigMap'",
        "rollout.strategy Canary and BlueGreen give some pods a version first, and all pods follow the one key of "
        "type ConfigMap: take RollingUpdate, or target.injection.type EnvVar",
    ),
    (
        f"!({_has_shadow('canary')} || {_has_shadow('blueGreen')}) || "
        "(has(self.target.inference) && has(self.monitoring) && has(self.monitoring.production))",
        "a shadow asks the pods what users have asked before: give monitoring.production and target.inference",
    ),
    (
        "self.rollout.deliveredModel != 'GoesLive' || "
        f"!(self.model.task in {cel_list(_TOLD_BY_CODE)}) || "
        f"(has(self.objectives) && self.objectives.exists(o, {_IS_CUSTOM}))",
        "rollout.deliveredModel GoesLive compares two models by labels: models of task Embedding and Generic need an "
        "objective with metric custom or custom_loss",
    ),
    (
        "self.model.updatePolicy != 'Follow' || has(self.monitoring)",
        "model.updatePolicy Follow looks once a monitoring window: give spec.monitoring",
    ),
    (
        "!has(self.registry) || !(self.model.uri in ['latest', self.registry.aliases.challenger, "
        "self.registry.aliases.champion].map(alias, self.registry.uri + '@' + alias))",
        "model.uri reads what registry writes: name a version, or an alias that registry.aliases does not move, so "
        "that no candidate is taken for a delivered model",
    ),
    (
        f"{_NO_QUALITY_METRIC} || ({' && '.join(map(_watched_of, Task))})",
        "monitoring.quality.metric must fit model.task, such as accuracy for Classification, f1_micro for MultiLabel, "
        "rmse for Regression",
    ),
    (
        f"{_NO_QUALITY} || has(self.monitoring.quality.metric) || !(self.model.task in {cel_list(_TOLD_BY_CODE)}) || "
        f"(has(self.objectives) && self.objectives.exists(o, {_IS_CUSTOM}))",
        "labels tell the quality of tasks Embedding and Generic by model.customMetric only: set "
        "monitoring.quality.metric to custom or custom_loss, or leave out monitoring.quality",
    ),
    (
        "!has(self.monitoring) || !has(self.monitoring.production) || !has(self.monitoring.production.labels) || "
        f"!has(self.monitoring.production.labels.columns) || self.model.task in {cel_list(_SEVERAL_ANSWERS)}",
        "monitoring.production.labels.columns belongs to model.task MultiLabel, or Regression of several numbers: "
        "name the one column in labels.column",
    ),
    (
        f"{_NO_QUALITY_METRIC} || has(self.model.customMetric) || "
        f"!(self.monitoring.quality.metric in {cel_list(CUSTOM)})",
        "monitoring.quality.metric custom and custom_loss need model.customMetric: the code that computes them",
    ),
)
"""Rules that hold fields of different parts of the spec against each other.

The API server evaluates every rule at every write, of a status too, and each `self.FIELD` costs it as much as the spec
has fields: the test that decides for most resources comes first. Parts with a default, such as rollout, are always
there.
"""


class ModelOptimizationSpec(ApiModel):
    """A served model, the data it is judged by, what better means, and how a new version may go live."""

    model_config = ConfigDict(json_schema_extra=_ACROSS_FIELDS)

    suspend: bool = False
    """Freezes everything in place: Jobs are suspended, a rollout holds, what serves goes on serving."""
    mode: Mode = Mode.AUTOMATIC
    """Automatic rolls winners out. Propose leaves the target to Git: it says what to change, and proves a version once
    it is there. RecommendOnly stops at a proven candidate. ObserveOnly starts no runs: it measures the delivered model
    and watches what serves."""
    manual_nonce: str | None = Field(default=None, min_length=1, max_length=64)
    """Any new value starts one run, and tries a failed baseline again at once."""
    model: Model
    """The model as delivered."""
    data: Data
    """The data that the model learns from and is judged by."""
    objectives: tuple[Objective, ...] | None = Field(
        default=None, min_length=1, max_length=8, json_schema_extra=map_list("metric") | _AMONG_OBJECTIVES
    )
    """What better means. Left out: limits on quality, then p95 latency, then size. A classifier keeps its accuracy but
    for 0.01, and 95 % of what its probabilities explain (d2_brier_score); where a class is rare, it keeps
    average_precision and recall instead of accuracy. A regression's rmse rises by at most 1 %. An embedding finds 95 %
    of the nearest neighbours that the delivered model finds. A model of several labels keeps its f1_micro but for 0.01,
    and 95 % of average_precision and d2_brier_score. A generic model keeps a fidelity of 0.95."""
    selection: Selection = Selection()
    """How the winner is chosen."""
    techniques: tuple[Technique, ...] | None = Field(
        default=None, min_length=1, max_length=16, json_schema_extra=map_list("name") | _AMONG_TECHNIQUES
    )
    """Techniques that the search may combine. Left out: all that this model and this data allow."""
    search: Search = Search()
    """How combinations of techniques and engine options are explored."""
    serving: Serving = Serving()
    """Where and how the model serves."""
    target: Target
    """The workload that serves the model."""
    monitoring: Monitoring | None = None
    """How the live model is watched. Left out: it is not."""
    refresh: Refresh = Refresh()
    """Data of runs that a signal, the schedule or manualNonce starts: what they learn from and are judged by."""
    triggers: Triggers = Triggers()
    """What may start a run without a person, and how often."""
    execution: Execution = Execution()
    """How Jobs run."""
    rollout: Rollout = Rollout()
    """How a winner goes live."""
    registry: Registry | None = None
    """Where accepted versions are registered. Left out: nowhere."""
    history: History = History()
    """How much history is kept."""
    deletion_policy: DeletionPolicy = DeletionPolicy.KEEP_CHAMPION
    """What a deleted resource leaves on the target: KeepChampion leaves the champion, RestoreOriginal the value that
    the target had before the first rollout."""

    @property
    def better(self) -> tuple[Objective, ...]:
        """The objectives of the spec, or the default ones of its task."""
        return self.objectives or default_objectives(self.model.task)

    @property
    def learns(self) -> bool:
        """Whether a run may learn from labelled rows; techniques that are left out include some that do."""
        return self.techniques is None or any(technique.type.learns for technique in self.techniques)
