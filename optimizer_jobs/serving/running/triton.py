"""A Triton Inference Server that runs with `--model-control-mode=explicit` and a model repository that we write.

A model is loaded from a new folder that takes the old one's name. Triton keeps what it has loaded until the new model
is ready, and goes on with it where the new one is refused; then the old folder gets its name back.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.serving.base import called
from optimizer_jobs.serving.render import check_name, render
from optimizer_jobs.serving.running.session import ServedSession
from optimizer_jobs.serving.running.web import LOADING_SECONDS, Web, model_path, wait_until
from optimizer_jobs.serving.triton import DIGEST
from retune.contract.requests import Server

_REPOSITORY = "/v2/repository"
_STAGED, _FORMER = ".retune-new-", ".retune-old-"
"""Starts of the names of folders in the repository that Triton is never told to load."""
_GONE = (None, "UNAVAILABLE")


class TritonServer:
    """A `RunningServer`: one Triton on this machine."""

    def __init__(self, address: str, repository: Path, *, loading_seconds: float = LOADING_SECONDS) -> None:
        """Know a server, without asking it anything.

        Args:
            address: `http://HOST:PORT` of its HTTP.
            repository: Its model repository, as this process sees it.
            loading_seconds: Longest time in which it loads or unloads a model.
        """
        self.web = Web("Triton", address.rstrip("/"))
        self._repository, self._seconds = repository, loading_seconds

    def load(self, bundle: Bundle, *, name: str) -> None:
        """Load a bundle under a name; see `RunningServer`."""
        check_name(name)
        staged = self._repository / f"{_STAGED}{name}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            render(bundle, Server.TRITON, name=name, into=staged)
            with self._in_place(staged / name, name):
                self._load(bundle, name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def unload(self, *, name: str) -> None:
        """Unload what has a name, and remove its folder; see `RunningServer`."""
        check_name(name)
        if self._state(name) not in _GONE:
            body = {"parameters": {"unload_dependents": False}}
            answer = self.web.post(f"{_REPOSITORY}{_model(name)}/unload", body, seconds=self._seconds)
            if not answer.is_good:
                raise self.web.refused(f"without {name!r}", answer.words)
            if not wait_until(lambda: self._state(name) in _GONE, seconds=self._seconds):
                raise self.web.unreachable(f"it has not unloaded {name!r} in {self._seconds:g} s")
        shutil.rmtree(self._repository / name, ignore_errors=True)

    def serves(self, bundle: Bundle, *, name: str) -> bool:
        """Return whether a name is ready and its configuration has the bundle's digest."""
        if not self.web.get(f"{model_path(name)}/ready").is_good:
            return False
        return _digest(self.web.get(f"{model_path(name)}/config").document) == bundle.digest

    def endpoint(self, *, name: str) -> str:
        """Return the URL of a model."""
        return f"{self.web.address}{model_path(name)}"

    def session(self, bundle: Bundle, *, name: str, seconds: float) -> ServedSession:
        """Return a bundle's model behind a name; an answer of it may take so many seconds."""
        return ServedSession(self.web, self.endpoint(name=name), bundle.manifest.signature, seconds=seconds)

    def _load(self, bundle: Bundle, name: str) -> None:
        answer = self.web.post(f"{_REPOSITORY}{_model(name)}/load", {}, seconds=self._seconds)
        if not answer.is_good:
            raise self.web.refused(called(bundle), answer.words)
        if not self.serves(bundle, name=name):
            raise self.web.refused(called(bundle), f"it said that {name!r} is loaded, and serves another model")

    @contextmanager
    def _in_place(self, made: Path, name: str) -> Iterator[None]:
        """Give a new folder the name of the model; where what follows fails, the old one gets its name back."""
        folder, former = self._repository / name, self._repository / f"{_FORMER}{name}"
        shutil.rmtree(former, ignore_errors=True)
        had = folder.exists()
        if had:
            folder.rename(former)
        made.rename(folder)
        try:
            yield
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            if had:
                former.rename(folder)
            raise
        shutil.rmtree(former, ignore_errors=True)

    def _state(self, name: str) -> str | None:
        """Return the state of a model in the words of Triton's index; None where it knows of none."""
        index = self.web.post(f"{_REPOSITORY}/index", {}).document
        entries = [entry for entry in index if isinstance(entry, dict)] if isinstance(index, list) else []
        states = {str(entry["state"]) for entry in entries if entry.get("name") == name and entry.get("state")}
        return next(iter(states - {"UNAVAILABLE"} or states), None)


def _model(name: str) -> str:
    return model_path(name).removeprefix("/v2")


def _digest(config: Any) -> str | None:
    """Return the bundle's digest in a configuration as Triton tells it; None where there is none."""
    parameters = config.get("parameters") if isinstance(config, dict) else None
    entry = parameters.get(DIGEST) if isinstance(parameters, dict) else None
    said = entry.get("string_value") if isinstance(entry, dict) else None
    return said if isinstance(said, str) else None
