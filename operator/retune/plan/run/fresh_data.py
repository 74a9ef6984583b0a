"""The data of a run: recent production rows where a signal, a schedule or a person starts it and labels are there.

A run that follows a change of the spec is judged by the data that the spec names, as its author expects.
"""

import math

from retune.api.base import seconds
from retune.api.model import Data, Dataset, DatasetFormat
from retune.api.monitoring import TriggerReason
from retune.api.status import ActiveRun, Version
from retune.api.watched import StoredData
from retune.contract.requests import BundleRef, GatherRequest
from retune.plan.draft import Draft
from retune.plan.watch import alarms, windows

_ON_SPEC_DATA = {TriggerReason.INITIAL, TriggerReason.SPEC_CHANGE}


def wanted(draft: Draft, reason: str) -> bool:
    """Return whether a run that starts for this reason gets data of its own."""
    watched = draft.spec.monitoring
    labelled = watched is not None and watched.production is not None and watched.production.labels is not None
    return labelled and draft.spec.refresh.policy != "Never" and reason not in _ON_SPEC_DATA


def request(draft: Draft, run: ActiveRun, in_store: str) -> GatherRequest:
    """Return what the Job that builds the data is asked; raises ValueError where `wanted` says no."""
    watched, champion = draft.spec.monitoring, draft.status.champion
    if watched is None or watched.production is None or watched.production.labels is None:
        raise ValueError("there are no labelled production rows")
    if champion is None or draft.store is None:
        raise ValueError("a run needs a measured champion and a store")
    known = run.start_time.timestamp() - seconds(watched.production.labels.max_delay)
    return GatherRequest(
        resource=draft.resource.key, run=in_store, spec_hash=run.spec_hash, data=draft.spec.data,
        production=watched.production, refresh=draft.spec.refresh, until=max(1, math.floor(known)),
        changed=_changed(draft), champion=_bundle(champion), store=draft.store, seed=draft.spec.search.seed,
    )  # fmt: skip


def _changed(draft: Draft) -> int | None:
    """Return the begin of the window with which the live data became other than they were, in seconds since 1970."""
    state = draft.status.monitoring
    window = alarms.first_bad(state.signals) if state else None
    return None if state is None or window is None else windows.window(window, state.window_seconds).start


def data_of(draft: Draft, run: ActiveRun) -> Data:
    """Return the data that a run learns from and is judged by."""
    if run.fresh is None:
        return draft.spec.data
    label = draft.spec.data.validation.label_column

    def named(stored: StoredData) -> Dataset:
        return Dataset(uri=stored.uri, digest=stored.digest, format=DatasetFormat.NPZ, label_column=label)

    fresh = run.fresh
    return Data(training=named(fresh.training), validation=named(fresh.validation), test=named(fresh.test))


def _bundle(champion: Version) -> BundleRef:
    return BundleRef(uri=champion.uri, digest=champion.digest)
