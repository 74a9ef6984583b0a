"""What the Jobs of a run are asked: the spec's own wishes, the models to beat, and the data that counts."""

from retune.api.spec import ModelOptimizationSpec
from retune.api.status import ActiveRun
from retune.contract.requests import JudgeRequest, SearchRequest
from retune.plan import names
from retune.plan.draft import Draft, bundle_of
from retune.plan.run.fresh_data import data_of
from retune.plan.run.leftovers import removable
from retune.plan.run.restoring import restoring

_WARM_STARTS = 5
"""Most earlier runs that a search takes into account."""


def asked_of(spec: ModelOptimizationSpec) -> dict[str, object]:
    """Return the fields of a search or judge request that are the spec's own: the same without a cluster."""
    return {
        "data": spec.data,
        "objectives": spec.better,
        "chosen_by_default": spec.objectives is None,
        "selection": spec.selection,
        "techniques": spec.techniques,
        "costs": spec.model.costs or (),
        "custom_metric": spec.model.custom_metric,
        "search": spec.search,
        "serving": spec.serving,
    }


def search_request(draft: Draft, run: ActiveRun) -> SearchRequest:
    """Return what a run's search is asked; raises ValueError without a measured champion and a store."""
    return SearchRequest.model_validate(_fields(draft, run) | {"leftovers": removable(draft)})


def judge_request(draft: Draft, run: ActiveRun) -> JudgeRequest:
    """Return what a run's judge is asked; raises ValueError without a measured champion and a store."""
    told = run.fresh.words if run.fresh and run.fresh.policy else None
    fields = {"trigger": run.trigger, "delivered": run.delivered or None, "learned_from": told}
    return JudgeRequest.model_validate(_fields(draft, run) | fields)


def _fields(draft: Draft, run: ActiveRun) -> dict[str, object]:
    spec, status = draft.spec, draft.status
    if status.champion is None or status.original is None or draft.store is None:
        raise ValueError("a run needs a measured champion and a store")
    return {
        "resource": draft.resource.key,
        "run": name_in_store(draft, run),
        "spec_hash": run.spec_hash,
        **asked_of(spec),
        "data": data_of(draft, run),
        "objectives": restoring(spec.better, spec.model.task) if run.fresh else spec.better,
        "champion": bundle_of(status.champion),
        "original": bundle_of(status.original),
        "rejected": tuple(entry.digest for entry in status.rejected),
        "warm_start": _earlier_runs(draft, run),
        "store": draft.store,
        "threads": draft.threads,
        "cpu_limit": draft.cpu_limit,
    }


def _earlier_runs(draft: Draft, run: ActiveRun) -> tuple[str, ...]:
    """Return earlier runs by their names in the store, newest first; what they found best is tried first."""
    if not draft.spec.search.warm_start:
        return ()
    earlier = [other for other in draft.observed.runs.values() if other.spec.number < run.number]
    newest = sorted(earlier, key=lambda other: other.spec.number, reverse=True)[:_WARM_STARTS]
    uid = draft.resource.metadata.uid
    return tuple(names.run_in_store(other.metadata.name, uid=uid) for other in newest)


def name_in_store(draft: Draft, run: ActiveRun) -> str:
    """Return what a run is called in the store."""
    return names.run_in_store(run.name, uid=draft.resource.metadata.uid)
