"""Remove from the store what the operator says that nobody needs any more, before the search fills it again.

Only what the request names is touched, and only where it is what Retune has written there: a folder into which anybody
else has put a file stays whole, and so does one that cannot be read. Where another resource has worked in the same
store too, as one of the same name in another cluster, no bundle goes, because it may be that one's champion. A bundle
loses its name before its files, so that nobody opens half of it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError, store_access
from optimizer_jobs.models.bundle import holds_only_a_bundle, put_aside
from optimizer_jobs.production.reference import of_bundle
from optimizer_jobs.progress import say
from optimizer_jobs.study.trials import JOURNAL
from retune.contract.requests import SearchRequest

_OF_A_RUN = frozenset({"data", "steps", "candidates", "report.html", "report.json", "verdict.json"})
"""What gather, search and judge leave in the folder of a run, besides its study."""


def remove_leftovers(request: SearchRequest) -> str | None:
    """Remove what the request names; return the last of it, or None where there is nothing or something resists."""
    if not request.leftovers:
        return None
    store = request.store.rstrip("/")
    try:
        with store_access(store):
            other = _run_of_another(store, request.run)
            for path in request.leftovers:
                if other is None or path.startswith("runs/"):
                    _remove(store, path)
    except JobError as error:
        say(f"what nobody needs any more was not all removed from the store: {error}")
        return None
    if other is not None:
        say(f"no bundle is removed: {other} is of another resource, which may serve one. If none does, remove it")
    return request.leftovers[-1] if other is None else None


def _run_of_another(store: str, run: str) -> str | None:
    """Return the folder of a run that another resource has made in this store, by the end of its name; else None."""
    own = run.rpartition("-")[2]
    names = sorted(_names(resolve(f"{store}/runs").local))
    other = next((name for name in names if not name.startswith(".") and name.rpartition("-")[2] != own), None)
    return f"{store}/runs/{other}" if other else None


def _remove(store: str, path: str) -> None:
    kind, _, name = path.partition("/")
    folder = _folder(f"{store}/{path}")
    if folder is None:
        return
    is_ours = holds_only_a_bundle(folder, f"sha256:{name}") if kind == "bundles" else _holds_only_a_run(folder)
    if not is_ours:
        say(f"{store}/{path} stays: it holds what Retune has not written")
        return
    put_aside(folder)
    if kind == "bundles":
        resolve(of_bundle(store, name)).local.unlink(missing_ok=True)
    say(f"{store}/{path} is removed: nobody needs it any more")


def _folder(uri: str) -> Path | None:
    """Return a folder of the store by its own name, which no symbolic link is; None where there is none."""
    parent, _, name = uri.rpartition("/")
    folder = resolve(parent).local / name
    return folder if folder.is_dir() and not folder.is_symlink() else None


def _holds_only_a_run(folder: Path) -> bool:
    return all(name in _OF_A_RUN or name.startswith((JOURNAL, ".")) for name in _names(folder))


def _names(folder: Path) -> Iterator[str]:
    with suppress(FileNotFoundError):
        yield from (path.name for path in folder.iterdir())
