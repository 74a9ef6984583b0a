"""The data of a run: recent production rows where a signal, a schedule or a person starts it and labels are there.

A run that follows a change of the spec is judged by the data that the spec names, as its author expects. A run that
follows a change of the live data waits until there is enough to learn the change from: sooner it could bring nothing.
"""

import math
from datetime import UTC, datetime, timedelta

from retune.api.base import seconds
from retune.api.model import Data, Dataset, DatasetFormat
from retune.api.status import ActiveRun
from retune.api.triggers import TriggerReason
from retune.api.watched import MonitoringStatus, StoredData
from retune.contract.requests import GatherRequest
from retune.plan.draft import Draft, bundle_of
from retune.plan.watch import alarms, windows

_ON_SPEC_DATA = {TriggerReason.INITIAL, TriggerReason.SPEC_CHANGE}
_ON_A_CHANGE = {TriggerReason.DRIFT, TriggerReason.QUALITY_DEGRADATION, TriggerReason.SEGMENT_DEGRADATION}


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
    """Return when the live data began to differ, in seconds since 1970; None while no signal says so.

    Where labelled rows teach more than the champion knows, it began with the rows that taught it.
    """
    state, monitoring = draft.status.monitoring, draft.spec.monitoring
    if state is None or monitoring is None:
        return None
    first, headroom = alarms.first_bad(state.signals), alarms.first_bad(state.signals, of=frozenset({alarms.HEADROOM}))
    taught = (
        []
        if headroom is None or monitoring.learning is None
        else [windows.first_learned(state, headroom, monitoring.learning.windows)]
    )
    starts = [window for window in (first, *taught) if window is not None]
    return windows.window(min(starts), state.window_seconds).start if starts else None


def why_wait(draft: Draft, reason: str) -> str | None:
    """Return why a run for this reason starts later, or None: rows of after the change are too few to learn from yet.

    How many there are is reckoned from the last window that was judged, and from the time that labels may take.
    """
    enough = _enough_at(draft) if reason in _ON_A_CHANGE and is_wanted(draft, reason) else None
    if enough is None or draft.now >= enough:
        return None
    draft.wake(after=max(1.0, (enough - draft.now).total_seconds()))
    least = draft.spec.refresh.min_rows
    return (
        f"waits until about {enough:%Y-%m-%d %H:%M:%S} UTC: by then {least} rows of after the change should have their "
        "labels (refresh.minRows, production.labels.maxDelay)"
    )


def _enough_at(draft: Draft) -> datetime | None:
    """Return when enough labelled rows of after the change should be there; None where nobody knows, or never.

    All rows of after it are taken, however long ago it was: only those are never enough that are removed before.
    """
    changed, state, monitoring = _changed(draft), draft.status.monitoring, draft.spec.monitoring
    if monitoring is None or monitoring.production is None or monitoring.production.labels is None:
        return None
    labels, rows = monitoring.production.labels, _labelled_rows(state) if state else None
    if changed is None or state is None or not rows:
        return None
    refresh = draft.spec.refresh
    lasts = math.ceil(refresh.min_rows / rows) * state.window_seconds + seconds(labels.max_delay)
    kept = monitoring.production.kept_seconds
    if kept is not None and lasts > kept:
        return None
    return datetime.fromtimestamp(changed, tz=UTC) + timedelta(seconds=lasts)


def _labelled_rows(state: MonitoringStatus) -> int | None:
    """Return how many labelled rows a window has; where labels were not seen yet, every captured row counts.

    Those that a signal of quality was computed from are fewer: of rows that depend on each other, it takes some.
    """
    return state.labelled_rows or state.samples


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


def _dataset(stored: StoredData, label: str | None, beside: dict[str, str | None]) -> Dataset:
    """Return a stored data set; `beside` names its columns of groups and weights, of which learning takes none."""
    return Dataset(uri=stored.uri, digest=stored.digest, format=DatasetFormat.NPZ, label_column=label, **beside)
