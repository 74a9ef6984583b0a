"""What a pass has made useless in the store: written down before anything removes it, and only what was known by name.

A version is out of the status before its files go, so that nobody can ask for it meanwhile. What this resource has
never named, such as the work of people or of an earlier resource of its name, is never written down.
"""

from retune.api.bounds import LEFTOVERS_LIMIT
from retune.api.status import ModelOptimizationStatus, Version
from retune.contract.paths import leftover_bundle, leftover_run
from retune.plan import names
from retune.plan.actions import DeleteRun
from retune.plan.belief import bundle_fault
from retune.plan.draft import Draft, bundle_of
from retune.plan.kept import known, named, own


def note(draft: Draft) -> None:
    """Drop versions beyond spec.history, and write down what the status has named before and does not name any more."""
    _drop_versions(draft)
    needed = {leftover_bundle(version.digest) for version in known(draft.status)} | _of_run(draft)
    useless = dict.fromkeys((*draft.status.leftovers, *_bundles(draft), *_runs(draft)))
    leftovers = tuple(path for path in useless if path not in needed)[-LEFTOVERS_LIMIT:]
    if leftovers != draft.status.leftovers:
        draft.update(leftovers=leftovers)


def _drop_versions(draft: Draft) -> None:
    """Keep as many earlier champions as the spec says, the newest; one that is named elsewhere is none of them."""
    status = draft.status
    spared = {version.digest for version in _spared(draft) if version is not None}
    earlier = [version.digest for version in status.versions if version.digest not in spared]
    dropped = set(earlier[: -draft.spec.history.versions])
    if dropped:
        draft.update(versions=tuple(version for version in status.versions if version.digest not in dropped))


def _spared(draft: Draft) -> tuple[Version | None, ...]:
    """Return the versions that do not count: they serve, wait, are on their way back, or a person names them."""
    status, rollout = draft.status, draft.status.rollout
    returning = named(status, str(rollout.version)) if rollout else None
    delivered, wanted = (status.original, own(status)), named(status, draft.spec.rollout.rollback_to)
    return *delivered, status.champion, status.candidate, returning, wanted


def _bundles(draft: Draft) -> list[str]:
    """Return the bundles of the present store that the status named before this pass."""
    before: ModelOptimizationStatus = draft.resource.status
    stored = (version for version in known(before) if bundle_fault(bundle_of(version), store=draft.store) is None)
    return [leftover_bundle(version.digest) for version in stored]


def _runs(draft: Draft) -> list[str]:
    """Return the folders of the runs whose records this pass deletes."""
    uid = draft.resource.metadata.uid
    deleted = (action.name for action in draft.actions if isinstance(action, DeleteRun))
    return [leftover_run(names.run_in_store(name, uid=uid)) for name in deleted] if draft.store else []


def _of_run(draft: Draft) -> set[str]:
    run = draft.status.run
    return {leftover_run(names.run_in_store(run.name, uid=draft.resource.metadata.uid))} if run else set()
