"""`ModelOptimization.spec`: what a user declares.

The smallest useful object names a model, the data it is judged by, and the Deployment that serves it; every other
field has the default a careful engineer would choose. Only what the operator honours is here.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, ObjectName, map_list, rules, text
from retune.api.execution import Execution, History, Rollout
from retune.api.model import Data, Model
from retune.api.monitoring import Monitoring, Refresh, Triggers
from retune.api.objectives import Objective, Selection, default_objectives
from retune.api.search import Search, Serving
from retune.api.techniques import Technique


class Mode(StrEnum):
    """How far the operator may go by itself."""

    AUTOMATIC = "Automatic"
    RECOMMEND_ONLY = "RecommendOnly"
    OBSERVE_ONLY = "ObserveOnly"


class Takeover(StrEnum):
    """What to do when another manager already owns the field that names the model."""

    REFUSE = "Refuse"
    FORCE = "Force"


class DeletionPolicy(StrEnum):
    """What a deleted resource leaves behind on its target."""

    KEEP_CHAMPION = "KeepChampion"
    RESTORE_ORIGINAL = "RestoreOriginal"


class TargetRef(ApiModel):
    """The workload that serves the model, in the resource's own namespace."""

    api_version: Literal["apps/v1"] = "apps/v1"
    """API version of the workload."""
    kind: Literal["Deployment"] = "Deployment"
    """Kind of the workload."""
    name: ObjectName
    """Name of the workload."""


class Injection(ApiModel):
    """The one field of the target that Retune owns: the environment variable that names the model."""

    type: Literal["EnvVar"] = "EnvVar"
    """How the model is named to the server."""
    name: text(  # type: ignore[valid-type]
        pattern=r"[A-Za-z_][A-Za-z0-9_]*",
        max_length=128,
        message="an environment variable's name has letters, digits and _, and does not start with a digit",
    ) = "MODEL_URI"
    """Name of the environment variable."""
    takeover: Takeover = Takeover.REFUSE
    """Refuse stops with FieldConflict when another manager owns the variable; Force takes it over."""


class Inference(ApiModel):
    """How the served model is asked, by the Open Inference Protocol v2 over HTTP."""

    port: int = Field(default=8080, ge=1, le=65535)
    """HTTP port of the server's pods."""
    model_name: text(  # type: ignore[valid-type]
        pattern=r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?",
        max_length=128,
        message="a served model's name has letters, digits and _ . -, and starts and ends with a letter or digit",
    )
    """Name under which the server serves the model."""


class Target(ApiModel):
    """What serves the model and how a new version is given to it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.injection.name == oldSelf.injection.name",
             "target.injection.name is immutable: create another ModelOptimization"),
        )
    )  # fmt: skip

    ref: Annotated[
        TargetRef,
        Field(
            json_schema_extra=rules(
                ("self == oldSelf", "target.ref is immutable: create another ModelOptimization for it")
            )
        ),
    ]
    """The workload."""
    container: str | None = Field(default=None, min_length=1, max_length=63)
    """Container that loads the model; may be left out when the pod has one container."""
    injection: Injection = Injection()
    """The field that names the model."""
    inference: Inference | None = None
    """How to ask the server golden requests after a rollout. Left out: readiness alone decides, and status says so."""


class ModelOptimizationSpec(ApiModel):
    """A served model, the data it is judged by, what better means, and how a new version may go live."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.mode == 'ObserveOnly' || has(self.data.test)", "data.test is required unless mode is ObserveOnly: it decides promotion"),
            ("!has(self.techniques) || has(self.data.training) || has(self.data.calibration) || !self.techniques.exists(t, "
             "t.type == 'Quantization' && has(t.quantization) && has(t.quantization.schemes) && 'Static' in t.quantization.schemes)",
             "static quantization needs data.training or data.calibration; without them leave Static out of quantization.schemes"),
            ("!has(self.techniques) || has(self.data.training) || !self.techniques.exists(t, "
             "t.type == 'Quantization' && has(t.quantization) && has(t.quantization.schemes) && 'Aware' in t.quantization.schemes)",
             "quantization-aware training needs data.training; without it leave Aware out of quantization.schemes"),
            ("!has(self.techniques) || has(self.data.training) || !self.techniques.exists(t, t.type in "
             "['CustomTraining', 'HyperparameterTuning', 'Architecture', 'DataPreparation', 'Augmentation', "
             "'AdversarialTraining'])",
             "techniques that train need data.training"),
            ("!has(self.techniques) || !self.techniques.exists(t, t.type == 'CustomTraining') || "
             "(self.techniques.exists_one(t, t.type == 'CustomTraining') && !self.techniques.exists(t, t.type in "
             "['HyperparameterTuning', 'Architecture', 'DataPreparation', 'Augmentation', 'AdversarialTraining', "
             "'Distillation']))",
             "CustomTraining does all the training of a candidate: name one, and no other technique that trains"),
            ("!has(self.search) || self.search.sampler != 'CMAES' || (has(self.objectives) && "
             "self.objectives.filter(o, o.role == 'Optimize').size() == 1)",
             "search.sampler CMAES needs exactly one objective with role Optimize: give the others role Constrain, or use Auto"),
            ("!has(self.objectives) || self.objectives.all(o, "
             "(!(o.metric in ['accuracy', 'robust_accuracy']) || self.model.task == 'Classification') && "
             "(!(o.metric in ['mae', 'rmse']) || self.model.task == 'Regression') && "
             "(!(o.metric in ['cosine', 'neighbor_agreement']) || self.model.task == 'Embedding'))",
             "an objective's quality metric must fit model.task: accuracy for Classification, rmse or mae for Regression, "
             "cosine or neighbor_agreement for Embedding"),
            ("self.model.updatePolicy != 'Follow' || has(self.monitoring)",
             "model.updatePolicy Follow looks once a monitoring window: give spec.monitoring"),
            ("!has(self.monitoring) || !has(self.monitoring.quality) || !has(self.monitoring.quality.metric) || "
             "(self.monitoring.quality.metric == 'accuracy') == (self.model.task == 'Classification')",
             "monitoring.quality.metric must fit model.task: accuracy for Classification, rmse or mae for Regression"),
        )
    )  # fmt: skip

    suspend: bool = False
    """Freezes everything in place: Jobs are suspended, a rollout holds, what serves goes on serving."""
    mode: Mode = Mode.AUTOMATIC
    """Automatic rolls winners out; RecommendOnly stops at a proven candidate; ObserveOnly only measures the champion."""
    manual_nonce: str | None = Field(default=None, min_length=1, max_length=64)
    """Any new value starts one run, and tries a failed baseline again at once."""
    model: Model
    """The model as delivered."""
    data: Data
    """The data it is judged by."""
    objectives: tuple[Objective, ...] | None = Field(
        default=None, min_length=1, max_length=8,
        json_schema_extra=map_list("metric")
        | rules(("self.exists(o, o.role == 'Optimize')", "at least one objective must have role Optimize: it ranks candidates")),
    )  # fmt: skip
    """What better means. Left out: quality at most 1 % below the champion's (embeddings: 95 % of nearest neighbours as
    the delivered model finds them), then p95 latency, then size."""
    selection: Selection = Selection()
    """How the winner is chosen."""
    techniques: tuple[Technique, ...] | None = Field(
        default=None, min_length=1, max_length=16, json_schema_extra=map_list("name")
    )
    """Techniques the search may combine. Left out: a recipe chosen from the model and the data given."""
    search: Search = Search()
    """How they are explored."""
    serving: Serving = Serving()
    """Where and how the model serves."""
    target: Target
    """What serves the model."""
    monitoring: Monitoring | None = None
    """How the live model is watched. Left out: it is not."""
    refresh: Refresh = Refresh()
    """Which data a run that follows a signal learns from."""
    triggers: Triggers = Triggers()
    """What may start a run by itself, and how often."""
    execution: Execution = Execution()
    """How Jobs run."""
    rollout: Rollout = Rollout()
    """How a winner goes live."""
    history: History = History()
    """How much history is kept."""
    deletion_policy: DeletionPolicy = DeletionPolicy.KEEP_CHAMPION
    """What a deleted resource leaves on the target: the champion, or the value found before the first change."""

    @property
    def better(self) -> tuple[Objective, ...]:
        """What better means: the objectives as given, or those that fit the task."""
        return self.objectives or default_objectives(self.model.task)
