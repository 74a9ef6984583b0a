"""The two kinds as whole objects, and the spec and status of an OptimizationRun.

An OptimizationRun is one attempt: an immutable snapshot, owned by its ModelOptimization, kept as history.
"""

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, Time, map_list, rules
from retune.api.bounds import Address, Hash, Name, Sentence, Word
from retune.api.model import Data, Model
from retune.api.objectives import Objective, Selection
from retune.api.search import Search, Serving
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import Condition, Measurement, ModelOptimizationStatus, Outcome, Trials
from retune.api.techniques import Technique


class ObjectMeta(ApiModel):
    """The parts of an object's metadata that Retune reads."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: Time | None = None
    creation_timestamp: Time | None = None
    finalizers: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class ModelOptimization(ApiModel):
    """A served model that Retune keeps at its best."""

    metadata: ObjectMeta
    spec: ModelOptimizationSpec
    status: ModelOptimizationStatus = ModelOptimizationStatus()

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class Trigger(ApiModel):
    """Why a run started."""

    reason: Word
    """Why, as one word: Initial, SpecChange or Manual."""
    message: Sentence
    """Why, as a sentence."""


class Snapshot(ApiModel):
    """The parts of the policy that a run is judged by, frozen when it started."""

    model: Model
    """The model as delivered."""
    data: Data
    """The data it is judged by."""
    objectives: tuple[Objective, ...] = Field(max_length=8, json_schema_extra=map_list("metric"))
    """What better means."""
    selection: Selection = Selection()
    """How the winner is chosen."""
    techniques: tuple[Technique, ...] | None = Field(default=None, max_length=16, json_schema_extra=map_list("name"))
    """Techniques the search may combine."""
    search: Search = Search()
    """How they are explored."""
    serving: Serving = Serving()
    """Where and how the model serves."""


class OptimizationRunSpec(ApiModel):
    """One attempt, fixed when it starts."""

    model_config = ConfigDict(json_schema_extra=rules(("self == oldSelf", "an OptimizationRun's spec is immutable")))

    number: int = Field(ge=1)
    """Number of the run, counted for its ModelOptimization."""
    trigger: Trigger
    """Why it started."""
    spec_generation: int = Field(ge=0)
    """Generation of the ModelOptimization it was taken from."""
    spec_hash: Hash
    """Hash of the snapshot."""
    champion_version: int = Field(ge=1)
    """Version it is compared with."""
    champion_digest: Hash
    """Digest of that version's bundle."""
    snapshot: Snapshot
    """What it is judged by."""


class Comparison(ApiModel):
    """One metric of champion and candidate, measured side by side."""

    name: Word
    """Metric name."""
    champion: Measurement
    """The champion's number."""
    candidate: Measurement
    """The candidate's number."""
    change: Measurement | None = None
    """Candidate against champion in the same rows and moments: difference of accuracy, ratio of everything else."""


class OptimizationRunStatus(ApiModel):
    """How the attempt went."""

    conditions: tuple[Condition, ...] = Field(default=(), max_length=8, json_schema_extra=map_list("type"))
    """Succeeded: Unknown while it runs, then True or False."""
    trials: Trials | None = None
    """Trials of the search."""
    data: Sentence | None = None
    """Which data it learned from and was judged by, where that was not the snapshot's as it is."""
    outcome: Outcome | None = None
    """How it ended."""
    message: Sentence | None = None
    """Why, as a sentence."""
    candidate_digest: Hash | None = None
    """Digest of the best candidate's bundle."""
    comparisons: tuple[Comparison, ...] = Field(default=(), max_length=16, json_schema_extra=map_list("name"))
    """Champion against best candidate."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where the report lies."""
    start_time: Time | None = None
    """When it started."""
    completion_time: Time | None = None
    """When it ended."""


class OptimizationRun(ApiModel):
    """One attempt to improve a model."""

    metadata: ObjectMeta
    spec: OptimizationRunSpec
    status: OptimizationRunStatus = OptimizationRunStatus()


__all__ = ["ModelOptimization", "Name", "ObjectMeta", "OptimizationRun", "OptimizationRunSpec", "OptimizationRunStatus"]
