"""Remove from the store what the operator says that nobody needs any more, before the search fills it again.

Only what the request names is touched, and only where it is what Retune has written there: a folder into which anybody
else has put a file stays whole, and so does one that cannot be read. Where another resource has worked in the same
store too, as one of the same name in another cluster, no bundle goes, because it may be that one's champion. A bundle
loses its name before its files, so that nobody opens half of it.
"""

from optimizer_jobs.commands.search.shelves import Shelf, open_shelf
from optimizer_jobs.errors import JobError, store_access
from optimizer_jobs.progress import say
from retune.contract.paths import leftover_run
from retune.contract.requests import SearchRequest


def remove_leftovers(request: SearchRequest) -> str | None:
    """Remove what the request names; return the last of it, or None where there is nothing or something resists."""
    if not request.leftovers:
        return None
    store = request.store.rstrip("/")
    try:
        with store_access(store):
            shelf = open_shelf(store)
            other = _run_of_another(shelf, request.run)
            for path in request.leftovers:
                if other is None or path.startswith("runs/"):
                    _remove(shelf, path, uri=f"{store}/{path}")
    except JobError as error:
        say(f"what nobody needs any more was not all removed from the store: {error}")
        return None
    if other is not None:
        folder = f"{store}/{other}"
        say(f"no bundle is removed: {folder} is of another resource, which may serve one. If none does, remove it")
    return request.leftovers[-1] if other is None else None


def _run_of_another(shelf: Shelf, run: str) -> str | None:
    """Return the path of a run that another resource has made in this store, by the end of its name; else None."""
    own = run.rpartition("-")[2]
    other = next((name for name in sorted(shelf.runs()) if name.rpartition("-")[2] != own), None)
    return leftover_run(other) if other else None


def _remove(shelf: Shelf, path: str, *, uri: str) -> None:
    kind, _, name = path.partition("/")
    if not shelf.is_there(path):
        return
    is_ours = shelf.holds_only_a_bundle(path) if kind == "bundles" else shelf.holds_only_a_run(path)
    if not is_ours:
        say(f"{uri} stays: it holds what Retune has not written")
        return
    shelf.remove(path)
    if kind == "bundles":
        shelf.remove_reference(name)
    say(f"{uri} is removed: nobody needs it any more")
