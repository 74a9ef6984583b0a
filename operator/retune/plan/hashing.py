"""Hashes that show whether a decision still belongs to the spec it was made for.

Only what the user set counts: fields at their default are left out, so that an operator that learns a new field does
not start every model's optimization anew.
"""

import hashlib
import json

from retune.api.base import ApiModel
from retune.api.model import Data, Model
from retune.api.monitoring import Monitoring
from retune.api.objects import Snapshot
from retune.api.registry import Registry
from retune.api.search import Serving
from retune.api.servers import ServerRuntime
from retune.api.spec import ModelOptimizationSpec


def snapshot(spec: ModelOptimizationSpec) -> Snapshot:
    """Return the parts of the spec that a run is judged by."""
    fields = {name: getattr(spec, name) for name in Snapshot.model_fields if getattr(spec, name) is not None}
    return Snapshot.model_validate(fields | {"objectives": spec.better})


def snapshot_hash(spec: ModelOptimizationSpec) -> str:
    """Return the hash of everything a run depends on."""
    return _digest(snapshot(spec))


def baseline_hash(spec: ModelOptimizationSpec) -> str:
    """Return the hash of everything the baseline depends on: model and data, and the server where one is named."""
    return _digest(spec.model, spec.data, *_server(spec.serving))


def monitoring_hash(spec: Monitoring, model: Model, data: Data, champion_digest: str) -> str:
    """Return the hash of all that a window's verdict depends on beside the window: not on where or when it is found."""
    return _digest(spec.model_copy(update={"check_host": None, "spread": None}), model, data, nonce=champion_digest)


def attempt_hash(spec: ModelOptimizationSpec) -> str:
    """Return the hash of a baseline attempt: also of how its Job runs, so that a corrected image is tried at once."""
    return _digest(spec.model, spec.data, spec.execution, *_server(spec.serving), nonce=spec.manual_nonce)


def registry_hash(registry: Registry, *, champion: str | None, challenger: str | None) -> str:
    """Return the hash of what a registry is to say: which bundles, by their digests, are what to the target."""
    return _digest(registry, nonce=f"{champion} {challenger}")


def _server(serving: Serving) -> tuple[Serving, ...]:
    """Return the server that decides whether and how the delivered model runs; nothing where it runs any, as any."""
    if serving.runtime is ServerRuntime.RETUNE and serving.engine_version is None:
        return ()
    return (Serving(runtime=serving.runtime, engines=serving.engines, engine_version=serving.engine_version),)


def _digest(*parts: ApiModel, nonce: str | None = None) -> str:
    documents = [
        part.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True) for part in parts
    ]
    if nonce is not None:
        documents.append({"manualNonce": nonce})
    return hashlib.sha256(json.dumps(documents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
