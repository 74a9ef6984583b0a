"""What a search is asked to remove from the store before it begins, and what is noted of that afterwards.

Only what the status has written down as useless may be named, and never what the target or its canary serves by the
hand of others.
"""

from retune.contract.paths import leftover_bundle
from retune.contract.results import SearchResult
from retune.plan.belief import bundle_in
from retune.plan.draft import Draft


def removable(draft: Draft) -> tuple[str, ...]:
    """Return what the run's search may remove, the oldest first."""
    canary, container = draft.observed.traffic.canary, draft.container
    values = [container.value] if container else []
    if canary is not None and container is not None:
        values.append(canary.serves(container.name))
    bundles = (bundle_in(value, store=draft.store) for value in values)
    served = {leftover_bundle(bundle.digest) for bundle in bundles if bundle is not None}
    return tuple(path for path in draft.status.leftovers if path not in served)


def note_removed(draft: Draft, result: SearchResult) -> None:
    """Forget what a search has removed: everything up to what it names, but for what it was not asked to."""
    known = draft.status.leftovers
    if result.removed not in known:
        return
    done = known[: known.index(result.removed) + 1]
    asked = set(removable(draft))
    draft.update(leftovers=tuple(path for path in known if path not in done or path not in asked))
