"""The release after this one and the one before it, played: what they define, write and answer otherwise.

There is one released version. Another one differs by fields, and by words where a list of words stands: so that is what
the newer one has everywhere, and the older one lacks.
"""

import json
from collections.abc import Iterator
from typing import Any

from retune.contract.results import JobResult, encode_result
from tests.cluster.harness import MERGE
from tests.cluster.site import BATCH, Site

Json = dict[str, Any]
FIELD, WORD = "fromTheFuture", "FromTheFuture"
_NOTE = {"retune.dev/from-the-future": "yes"}
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_LATER_RESULTS = {"reference", "shown_by", "ended", "best", "lost"}
_LATER_STATUS: dict[str, set[str]] = {
    "": {"lastRollback", "nextRollback", "versions", "observedRetry"},
    "candidate": {"acceptedAt", "referenceDigest"},
    "champion": {"acceptedAt", "referenceDigest", "shownBy"},
    "original": {"referenceDigest"},
    "lastRun": {"originalVersion"},
    "run": {"why", "data"},
    "rollout": {"step", "stepStartTime", "stepJobs", "asked", "template", "shownBy", "errorsBefore", "edited"},
}
"""Fields that a status had not from the beginning, by the object that they are in."""


def of_newer_release(schema: Any) -> Any:
    """Return a definition with a field more in every object and a word more in every list of words."""
    if isinstance(schema, list):
        return [of_newer_release(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: of_newer_release(inner) for name, inner in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and "metadata" not in changed:
        changed["properties"] |= {FIELD: _ANYTHING}
    if schema.get("type") == "string" and isinstance(schema.get("enum"), list):
        changed["enum"] = [*schema["enum"], WORD]
    return changed


def noted(value: Any) -> Any:
    """Return a document as a newer release writes it: with a field more in every object, which says whose it is."""
    if isinstance(value, list):
        return [noted(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    known = {name: noted(inner) for name, inner in value.items() if name != FIELD}
    return known | {FIELD: value.get(FIELD) or {"of": str(value.get("digest") or value.get("name"))}}


def newer_result(result: JobResult) -> bytes:
    """Return a result as the image of a newer release writes it."""
    return json.dumps(noted(json.loads(encode_result(result)))).encode()


def older_result(result: JobResult) -> bytes:
    """Return a result as the image of an older release writes it, which knew less."""
    return json.dumps(_without(json.loads(encode_result(result)), _LATER_RESULTS)).encode()


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, list):
        return [_without(entry, names) for entry in value]
    if not isinstance(value, dict):
        return value
    return {name: _without(inner, names) for name, inner in value.items() if name not in names}


def newer_was_here(site: Site) -> None:
    """Have an operator of a newer release write everything that there is once."""
    site.write_status(noted(site.status))
    for run in site.backup("OptimizationRun"):
        path = f"{site.bench.path('optimizationruns', run['metadata']['name'])}/status"
        site.bench.patch(path, {"status": noted(run.get("status", {}))})
    for job in site.bench.jobs:
        path = site.bench.path("jobs", job["metadata"]["name"], api=BATCH)
        site.bench.api.request("PATCH", path, {"metadata": {"labels": _NOTE, "annotations": _NOTE}}, kind=MERGE)


def older_was_here(site: Site) -> None:
    """Have an operator of an older release write the status, which has no field that came later."""
    status = site.status
    for part, later in _LATER_STATUS.items():
        holder: Json = (status.get(part) if part else status) or {}
        for name in later & set(holder):
            del holder[name]
    site.write_status(status)


def objects(value: Any) -> Iterator[Json]:
    """Yield every object in a document, but those that only the newer release knows."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list) and name != FIELD:
            yield from objects(inner)
    if isinstance(value, dict):
        yield value
