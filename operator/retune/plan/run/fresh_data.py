"""The data of a run: recent production rows where a signal, a schedule or a person starts it and labels are there.

A run that follows a change of the spec is judged by the data that the spec names, as its author expects.
"""

import math

from retune.api.base import seconds
from retune.api.model import Data, Dataset, DatasetFormat
from retune.api.monitoring import TriggerReason
from retune.api.status import ActiveRun
from retune.api.watched import StoredData
from retune.contract.requests import GatherRequest
from retune.plan.draft import Draft, bundle_of
from retune.plan.watch import alarms, windows

_ON_SPEC_DATA = {TriggerReason.INITIAL, TriggerReason.SPEC_CHANGE}


def is_wanted(draft: Draft, reason: str) -> bool:
    """Whether a run that starts for this reason gets data of its own."""
    monitoring = draft.spec.monitoring
    production = monitoring.production if monitoring else None
    labelled = production is not None and production.labels is not None
    return labelled and draft.spec.refresh.policy != "Never" and reason not in _ON_SPEC_DATA


def gather_request(draft: Draft, run: ActiveRun, name_in_store: str) -> GatherRequest:
    """Return what the Job that builds the data is asked; raises ValueError where `is_wanted` says no."""
    monitoring, champion = draft.spec.monitoring, draft.status.champion
    if monitoring is None or monitoring.production is None or monitoring.production.labels is None:
        raise ValueError("there are no labelled production rows")
    if champion is None or draft.store is None:
        raise ValueError("a run needs a measured champion and a store")
    labelled_until = run.start_time.timestamp() - seconds(monitoring.production.labels.max_delay)
    return GatherRequest(
        resource=draft.resource.key,
        run=name_in_store,
        spec_hash=run.spec_hash,
        data=draft.spec.data,
        production=monitoring.production,
        refresh=draft.spec.refresh,
        until=max(1, math.floor(labelled_until)),
        changed=_changed(draft),
        champion=bundle_of(champion),
        store=draft.store,
        seed=draft.spec.search.seed,
    )


def _changed(draft: Draft) -> int | None:
    """Return when the live data began to differ, in seconds since 1970; None while no signal says so."""
    state = draft.status.monitoring
    window = alarms.first_bad(state.signals) if state else None
    return None if state is None or window is None else windows.window(window, state.window_seconds).start


def data_of(draft: Draft, run: ActiveRun) -> Data:
    """Return the data that a run learns from and is judged by."""
    fresh = run.fresh
    if fresh is None:
        return draft.spec.data
    label = draft.spec.data.validation.label_column
    monitoring = draft.spec.monitoring
    labels = monitoring.production.labels if monitoring and monitoring.production else None
    beside = labels.beside if labels else {}
    return Data(
        training=_dataset(fresh.training, label, {}),
        validation=_dataset(fresh.validation, label, beside),
        test=_dataset(fresh.test, label, beside),
    )


def _dataset(stored: StoredData, label: str, beside: dict[str, str | None]) -> Dataset:
    """Return a stored data set; `beside` names its columns of groups and weights, of which learning takes none."""
    return Dataset(uri=stored.uri, digest=stored.digest, format=DatasetFormat.NPZ, label_column=label, **beside)
