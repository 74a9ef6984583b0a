"""The two kinds as whole objects, and the spec and status of an OptimizationRun.

An OptimizationRun is one attempt: an immutable snapshot, owned by its ModelOptimization, kept as history.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, Time, map_list, one_of, rules
from retune.api.bounds import Address, Hash, Sentence, Word
from retune.api.model import Data, Model
from retune.api.objectives import Objective, Selection
from retune.api.search import Search, Serving
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import Condition, Measurement, ModelOptimizationStatus, Outcome, Trials
from retune.api.techniques import Technique
from retune.api.triggers import TriggerReason


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

    reason: Annotated[Word, Field(description=f"What started the run: {one_of(TriggerReason)}.")]
    message: Sentence
    """Why it was started, as a sentence."""


class Snapshot(ApiModel):
    """The parts of the ModelOptimization's spec that a run depends on, as they were when it started."""

    model: Model
    """The model as delivered."""
    data: Data
    """The data that the model learns from and is judged by; status.data says where gathered data took its place."""
    objectives: tuple[Objective, ...] = Field(max_length=8, json_schema_extra=map_list("metric"))
    """What better means."""
    selection: Selection = Selection()
    """How the winner is chosen."""
    techniques: tuple[Technique, ...] | None = Field(default=None, max_length=16, json_schema_extra=map_list("name"))
    """Techniques that the search may combine. Left out: all that this model and this data allow."""
    search: Search = Search()
    """How combinations of techniques and engine options are explored."""
    serving: Serving = Serving()
    """Where and how the model serves."""


class OptimizationRunSpec(ApiModel):
    """One attempt, fixed when it starts."""

    model_config = ConfigDict(json_schema_extra=rules(("self == oldSelf", "an OptimizationRun's spec is immutable")))

    number: int = Field(ge=1)
    """Number of the run among those of its ModelOptimization."""
    trigger: Trigger
    """Why it started."""
    spec_generation: int = Field(ge=0)
    """Generation of the ModelOptimization that the snapshot was taken from."""
    spec_hash: Hash
    """Hash of the snapshot."""
    champion_version: int = Field(ge=1)
    """Version that candidates are compared with."""
    champion_digest: Hash
    """Digest of that version's bundle."""
    snapshot: Snapshot
    """What the run depends on."""


class Comparison(ApiModel):
    """One metric of champion and candidate, measured side by side."""

    name: Word
    """Name of the metric."""
    champion: Measurement
    """The champion's value."""
    candidate: Measurement
    """The candidate's value."""
    change: Measurement | None = None
    """Candidate against champion, on the same rows and in the same moments: of a quality metric the difference, of
    everything else the ratio."""


class OptimizationRunStatus(ApiModel):
    """How the attempt went."""

    conditions: tuple[Condition, ...] = Field(default=(), max_length=8, json_schema_extra=map_list("type"))
    """One condition, Succeeded: Unknown while the run is under way, then True or False."""
    trials: Trials | None = None
    """Trials of the search, once it has ended; before that, they are in the ModelOptimization's status."""
    data: Sentence | None = None
    """Which data it learned from and was judged by, where production rows were gathered, or why they were not used."""
    outcome: Outcome | None = None
    """How it ended."""
    message: Sentence | None = None
    """Why it ended so, as a sentence."""
    candidate_digest: Hash | None = None
    """Digest of the bundle that the verdict is about: the best candidate's."""
    comparisons: tuple[Comparison, ...] = Field(default=(), max_length=16, json_schema_extra=map_list("name"))
    """Champion against best candidate, metric by metric."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where the run's report lies."""
    start_time: Time | None = None
    """When it started."""
    completion_time: Time | None = None
    """When it ended."""


class OptimizationRun(ApiModel):
    """One attempt to improve a model."""

    metadata: ObjectMeta
    spec: OptimizationRunSpec
    status: OptimizationRunStatus = OptimizationRunStatus()
