"""`ModelOptimization.spec`: what a user declares.

The smallest useful object names a model, the data it is judged by, and the Deployment that serves it; every other
field has the default a careful engineer would choose. Only what the operator honours is here.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import (
    ATOMIC,
    SET,
    ApiModel,
    Cpu,
    Decimal,
    Digest,
    Duration,
    Memory,
    ObjectName,
    Uri,
    map_list,
    rules,
    text,
)


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

    uri: Uri
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

    uri: Uri
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
            ("self.type == 'Threshold' || double(self.value) >= 0.0", "goal.value must not be negative for this goal type"),
            ("!(self.type in ['PercentMinImprovement','PercentMaxDegradation']) || double(self.value) <= 100.0",
             "a percentage goal must not exceed 100"),
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
            ("self.role != 'Constrain' || has(self.goal)", "an objective with role Constrain needs a goal"),
            ("double(self.tolerance) >= 0.0", "tolerance must not be negative"),
            ("!has(self.goal) || self.metric != 'accuracy' || self.goal.type.startsWith('Percent') || double(self.goal.value) <= 1.0",
             "accuracy lies between 0 and 1: write a one-point margin as 0.01"),
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
            ("double(self.minGain) >= 0.0 && double(self.minGain) < 1.0", "selection.minGain must be at least 0 and below 1"),
            ("double(self.confidence) >= 0.5 && double(self.confidence) < 1.0",
             "selection.confidence must be at least 0.5 and below 1"),
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
             "quantization may only be set when type is Quantization"),
        )
    )  # fmt: skip

    name: text(  # type: ignore[valid-type]
        pattern=r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", max_length=40, message="a technique's name is a lower-case DNS label"
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
        message="an environment variable's name has letters, digits and _",
    ) = "MODEL_URI"
    """Name of the environment variable."""
    takeover: Takeover = Takeover.REFUSE
    """Refuse stops with FieldConflict when another manager owns the variable; Force takes it over."""


class Inference(ApiModel):
    """How the served model is asked, by the Open Inference Protocol v2 over HTTP."""

    port: int = Field(default=8080, ge=1, le=65535)
    """HTTP port of the server's pods."""
    model_name: str = Field(min_length=1, max_length=128)
    """Name under which the server serves the model."""


class Target(ApiModel):
    """What serves the model and how a new version is given to it."""

    ref: Annotated[
        TargetRef,
        Field(
            json_schema_extra=rules(("self == oldSelf", "target.ref is immutable: create another ModelOptimization"))
        ),
    ]
    """The workload."""
    container: str | None = Field(default=None, min_length=1, max_length=63)
    """Container that loads the model; may be left out when the pod has one container."""
    injection: Injection = Injection()
    """The field that names the model."""
    inference: Inference | None = None
    """How to ask the server golden requests after a rollout. Left out: readiness alone decides, and status says so."""


class ResourceList(ApiModel):
    """Amounts of CPU and memory."""

    cpu: Cpu | None = None
    """CPU, such as "1" or "500m"."""
    memory: Memory | None = None
    """Memory, such as "2Gi"."""


class Resources(ApiModel):
    """What a Job's pod asks for and is held to."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.requests.cpu) || !has(self.limits.cpu) || quantity(self.requests.cpu).compareTo(quantity(self.limits.cpu)) <= 0",
             "requests.cpu must not exceed limits.cpu"),
            ("!has(self.requests.memory) || !has(self.limits.memory) || quantity(self.requests.memory).compareTo(quantity(self.limits.memory)) <= 0",
             "requests.memory must not exceed limits.memory"),
        )
    )  # fmt: skip

    requests: ResourceList = ResourceList()
    """Amounts reserved."""
    limits: ResourceList = ResourceList()
    """Amounts allowed."""


class Toleration(ApiModel):
    """A taint that a Job's pod tolerates."""

    key: str | None = Field(default=None, max_length=317)
    """Taint key; empty matches all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: str | None = Field(default=None, max_length=63)
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect to tolerate; empty matches all."""


class Execution(ApiModel):
    """How and where Jobs run. What is left out comes from the operator's settings or from the target."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("duration(self.runTimeout) >= duration('1m') && duration(self.runTimeout) <= duration('168h')",
             "execution.runTimeout must lie between 1m and 168h"),
            ("duration(self.ttlAfterFinished) >= duration('10m')",
             "execution.ttlAfterFinished must be at least 10m, so that results are read before they go"),
        )
    )  # fmt: skip

    image: str | None = Field(default=None, min_length=1, max_length=512)
    """Image of the optimizer Jobs; defaults to the operator's setting."""
    artifact_store: Uri | None = None
    """Where bundles, studies and reports go; defaults to the operator's setting."""
    resources: Resources = Resources()
    """Resources of the Jobs. The judge always runs under the serving container's CPU limit."""
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(default={}, max_length=16)
    """Nodes for the Jobs; defaults to the target's own selector, so that measurements count."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """Taints the Jobs tolerate; defaults to the target's own."""
    queue_name: str | None = Field(default=None, min_length=1, max_length=63)
    """Kueue queue; the Jobs carry its label and wait for admission."""
    run_timeout: Duration = "2h"
    """Longest time one Job of a run may run; time spent suspended does not count."""
    backoff_limit: int = Field(default=2, ge=0, le=10)
    """Pod failures that a Job retries; bad input is never retried."""
    ttl_after_finished: Duration = "24h"
    """How long finished Jobs are kept."""


class Rollout(ApiModel):
    """How a winner goes live."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("duration(self.progressDeadline) >= duration('10s') && duration(self.progressDeadline) <= duration('24h')",
             "rollout.progressDeadline must lie between 10s and 24h"),
            ("duration(self.bakeTime) <= duration('24h')", "rollout.bakeTime must not exceed 24h"),
        )
    )  # fmt: skip

    strategy: Literal["RollingUpdate"] = "RollingUpdate"
    """RollingUpdate changes the owned field and lets the workload replace its pods."""
    progress_deadline: Duration = "10m"
    """When the new pods are not all ready by then, the previous version returns."""
    bake_time: Duration = "2m"
    """How long the new version is watched before it counts as champion."""


class History(ApiModel):
    """How many finished OptimizationRuns are kept."""

    successful_runs: int = Field(default=3, ge=1, le=50)
    """Runs kept that ended Promoted, Recommended or NoGain."""
    failed_runs: int = Field(default=3, ge=1, le=50)
    """Runs kept that ended GateFailed, RolledBack, Failed or Cancelled."""


class ModelOptimizationSpec(ApiModel):
    """A served model, the data it is judged by, what better means, and how a new version may go live."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.mode == 'ObserveOnly' || has(self.data.test)", "data.test is required unless mode is ObserveOnly"),
            ("!has(self.techniques) || !self.techniques.exists(t, t.type == 'Quantization' && has(t.quantization) && 'Static' in t.quantization.schemes)"
             " || has(self.data.training) || has(self.data.calibration)",
             "static quantization needs data.training or data.calibration"),
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
        | rules(("self.exists(o, o.role == 'Optimize')", "at least one objective must have role Optimize")),
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
