"""`ModelOptimization.spec`: what a user declares.

The smallest useful object names a model, the data it is judged by, and the Deployment that serves it; every other
field has the default a careful engineer would choose. Only what the operator honours is here.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import SET, ApiModel, Decimal, Digest, FileUri, ObjectName, if_decimal, map_list, rules, text
from retune.api.execution import Execution, History, Rollout


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


class Role(StrEnum):
    """A constraint refuses candidates; an optimized objective ranks those that remain."""

    OPTIMIZE = "Optimize"
    CONSTRAIN = "Constrain"


class Metric(StrEnum):
    """What a model is measured by. Accuracy is better when higher; everything else when lower."""

    ACCURACY = "accuracy"
    LATENCY_P50_MS = "latency_p50_ms"
    LATENCY_P95_MS = "latency_p95_ms"
    SIZE_BYTES = "size_bytes"

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self is Metric.ACCURACY


class GoalType(StrEnum):
    """How a goal's value is read: absolute, or relative to the champion."""

    THRESHOLD = "Threshold"
    MIN_IMPROVEMENT = "MinImprovement"
    PERCENT_MIN_IMPROVEMENT = "PercentMinImprovement"
    MAX_DEGRADATION = "MaxDegradation"
    PERCENT_MAX_DEGRADATION = "PercentMaxDegradation"


class Model(ApiModel):
    """The model as it was delivered; it becomes version 1."""

    uri: FileUri
    """Where the model file lies, such as pvc://CLAIM/PATH/model.onnx."""
    digest: Digest | None = None
    """SHA-256 the file must have. When left out, the file found first becomes version 1, under its digest."""
    format: Literal["ONNX"] = "ONNX"
    """Format of the model file."""
    task: Literal["Classification"] = "Classification"
    """What the model does; it decides which quality metric applies."""


class DatasetFormat(StrEnum):
    """Formats a data set can have."""

    NPZ = "NPZ"
    PARQUET = "Parquet"
    CSV = "CSV"


class Dataset(ApiModel):
    """One labelled data set."""

    uri: FileUri
    """Where the file lies, such as pvc://CLAIM/PATH/test.npz."""
    digest: Digest | None = None
    """SHA-256 the file must have."""
    format: DatasetFormat | None = None
    """Format of the file; when left out, the extension decides (.npz, .parquet, .csv)."""
    label_column: str = Field(default="label", min_length=1, max_length=128)
    """Column (or NPZ array) that holds the label. All other columns are model inputs."""


class Data(ApiModel):
    """The data a model is judged by. Search sees training and validation; test is opened once a run, by the judge."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.test) || self.test.uri != self.validation.uri",
             "data.test decides promotion and must not be the validation set that the search uses"),
            ("!has(self.training) || self.training.uri != self.validation.uri",
             "data.training must not be the validation set"),
            ("!has(self.training) || !has(self.test) || self.training.uri != self.test.uri",
             "data.training must not be the test set"),
            ("!has(self.calibration) || !has(self.test) || self.calibration.uri != self.test.uri",
             "data.calibration must not be the test set"),
        )
    )  # fmt: skip

    training: Dataset | None = None
    """Data the model may learn from; calibration samples come from here unless calibration is given."""
    validation: Dataset
    """Data the search compares candidates on."""
    test: Dataset | None = None
    """Data that decides promotion; the search never sees it. Needed unless mode is ObserveOnly."""
    calibration: Dataset | None = None
    """Data that static quantization observes value ranges on; defaults to training."""


class Goal(ApiModel):
    """A limit that a candidate must keep, by the pessimistic end of its interval."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (if_decimal("self.value", "double(self.value) >= 0.0"), "goal.value must not be negative"),
            ("!self.type.startsWith('Percent') || " + if_decimal("self.value", "double(self.value) <= 100.0"),
             "goal.value is a percentage for this goal type and must not exceed 100"),
        )
    )  # fmt: skip

    type: GoalType
    """Threshold is absolute; the others compare with the champion, in the metric's unit or in percent."""
    value: Decimal
    """The limit, a decimal in quotes, such as "0.01"."""


class Objective(ApiModel):
    """One thing that matters about a model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.role != 'Constrain' || has(self.goal)",
             "an objective with role Constrain needs a goal: the limit that candidates must keep"),
            (if_decimal("self.tolerance", "double(self.tolerance) >= 0.0 && double(self.tolerance) < 1.0"),
             'tolerance is a fraction of at least 0 and below 1: write 5 % as "0.05"'),
            ("!has(self.goal) || self.metric != 'accuracy' || self.goal.type.startsWith('Percent') || "
             + if_decimal("self.goal.value", "double(self.goal.value) <= 1.0"),
             'accuracy lies between 0 and 1: write a margin of one point as "0.01"'),
        )
    )  # fmt: skip

    metric: Metric
    """What is measured. Accuracy is maximized; latencies and size are minimized."""
    role: Role = Role.OPTIMIZE
    """Constrain refuses candidates that miss the goal; Optimize ranks the rest, in list order."""
    goal: Goal | None = None
    """The limit to keep; required for Constrain."""
    tolerance: Decimal = "0"
    """Relative difference within which two candidates count as equal and the next objective decides."""


DEFAULT_OBJECTIVES = (
    Objective(metric=Metric.ACCURACY, role=Role.CONSTRAIN, goal=Goal(type=GoalType.MAX_DEGRADATION, value="0.01")),
    Objective(metric=Metric.LATENCY_P95_MS, tolerance="0.05"),
    Objective(metric=Metric.SIZE_BYTES, tolerance="0.05"),
)


class Selection(ApiModel):
    """How the winner is chosen among candidates that keep every constraint."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (if_decimal("self.minGain", "double(self.minGain) >= 0.0 && double(self.minGain) < 1.0"),
             'selection.minGain is a fraction of at least 0 and below 1: write 5 % as "0.05"'),
            (if_decimal("self.confidence", "double(self.confidence) >= 0.5 && double(self.confidence) < 1.0"),
             'selection.confidence is a fraction of at least 0.5 and below 1: write 95 % as "0.95"'),
        )
    )  # fmt: skip

    min_gain: Decimal = "0.05"
    """Relative gain on an optimized objective that is worth replacing the champion for."""
    confidence: Decimal = "0.95"
    """Confidence of every interval and test."""


class TechniqueType(StrEnum):
    """What can be done to a model."""

    GRAPH_OPTIMIZATION = "GraphOptimization"
    QUANTIZATION = "Quantization"


class QuantizationScheme(StrEnum):
    """How activations are quantized: while running, or with ranges calibrated beforehand."""

    DYNAMIC = "Dynamic"
    STATIC = "Static"


class CalibrationMethod(StrEnum):
    """How the range of an activation is derived from calibration samples."""

    MIN_MAX = "MinMax"
    ENTROPY = "Entropy"
    PERCENTILE = "Percentile"


class Calibration(ApiModel):
    """How static quantization observes activations."""

    methods: tuple[CalibrationMethod, ...] = Field(
        default=(CalibrationMethod.MIN_MAX, CalibrationMethod.PERCENTILE),
        min_length=1, max_length=3, json_schema_extra=SET,
    )  # fmt: skip
    """Methods the search may choose from."""
    samples: int = Field(default=300, ge=16, le=10000)
    """Rows observed."""


class Quantization(ApiModel):
    """8-bit integers in place of 32-bit floats."""

    schemes: tuple[QuantizationScheme, ...] = Field(
        default=(QuantizationScheme.STATIC, QuantizationScheme.DYNAMIC),
        min_length=1, max_length=2, json_schema_extra=SET,
    )  # fmt: skip
    """Schemes the search may choose from."""
    calibration: Calibration = Calibration()
    """How the static scheme is calibrated."""
    fallback: Literal["None", "RevertWorstLayers"] = "RevertWorstLayers"
    """When quality drops too far, return the layers that hurt most to float."""


class Technique(ApiModel):
    """One technique the search may use, alone or with the others."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.type == 'Quantization' || !has(self.quantization)",
             "quantization may only be set where type is Quantization: remove it or correct type"),
        )
    )  # fmt: skip

    name: text(  # type: ignore[valid-type]
        pattern=r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        max_length=40,
        message="a technique's name has lower-case letters, digits and '-'",
    )
    """Name of the step, as the report shows it."""
    type: TechniqueType
    """What is done."""
    quantization: Quantization | None = None
    """Settings of type Quantization; left out means its defaults."""


class Search(ApiModel):
    """How combinations of techniques and engine options are explored."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.parallelism <= self.maxTrials", "search.parallelism must not exceed search.maxTrials"),
        )
    )  # fmt: skip

    sampler: Literal["Auto", "Random", "TPE", "NSGAII"] = "Auto"
    """Sampler of the study. Auto takes TPE for small budgets and NSGA-II from 200 trials."""
    max_trials: int = Field(default=24, ge=1, le=1000)
    """Trials a run may spend."""
    parallelism: int = Field(default=1, ge=1, le=64)
    """Workers that share one study."""
    finalists: int = Field(default=3, ge=1, le=5)
    """Candidates that the judge compares with the champion."""
    seed: int = Field(default=0, ge=0, le=2147483647)
    """Seed of everything random in the run."""


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
             "t.type == 'Quantization' && (!has(t.quantization) || 'Static' in t.quantization.schemes))",
             "static quantization needs data.training or data.calibration; without them set quantization.schemes: [Dynamic]"),
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
    objectives: tuple[Objective, ...] = Field(
        default=DEFAULT_OBJECTIVES, min_length=1, max_length=4,
        json_schema_extra=map_list("metric")
        | rules(("self.exists(o, o.role == 'Optimize')", "at least one objective must have role Optimize: it ranks candidates")),
    )  # fmt: skip
    """What better means. Default: accuracy at most one point below the champion, then p95 latency, then size."""
    selection: Selection = Selection()
    """How the winner is chosen."""
    techniques: tuple[Technique, ...] | None = Field(
        default=None, min_length=1, max_length=16, json_schema_extra=map_list("name")
    )
    """Techniques the search may combine. Left out: a recipe chosen from the model and the data given."""
    search: Search = Search()
    """How they are explored."""
    target: Target
    """What serves the model."""
    execution: Execution = Execution()
    """How Jobs run."""
    rollout: Rollout = Rollout()
    """How a winner goes live."""
    history: History = History()
    """How much history is kept."""
    deletion_policy: DeletionPolicy = DeletionPolicy.KEEP_CHAMPION
    """What a deleted resource leaves on the target: the champion, or the value found before the first change."""
