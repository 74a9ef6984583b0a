"""An OpenVINO Model Server that runs with `--config_path` of a file that we write, in a folder that we fill.

Each bundle has a folder of its own, with a version whose number comes from its digest: the server tells which versions
it has, and keeps the former one until the new one is ready. What is refused is taken out of `config.json` again.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.version_numbers import number_of
from optimizer_jobs.serving.base import called
from optimizer_jobs.serving.ovms import CONFIG
from optimizer_jobs.serving.render import check_name, render
from optimizer_jobs.serving.running.session import ServedSession
from optimizer_jobs.serving.running.web import LOADING_SECONDS, Web, model_path
from retune.contract.requests import Server

_LIST, _ENTRY = "model_config_list", "config"
EMPTY = json.dumps({_LIST: []}).encode()
"""A configuration of no models, which the server needs to start with."""


class OvmsServer:
    """A `RunningServer`: one OpenVINO Model Server on this machine."""

    def __init__(self, address: str, folder: Path, *, loading_seconds: float = LOADING_SECONDS) -> None:
        """Know a server, without asking it anything.

        Args:
            address: `http://HOST:PORT` of its REST.
            folder: Folder of its `config.json`, as this process sees it.
            loading_seconds: Longest time in which it loads or unloads a model.
        """
        self.web = Web("OpenVINO Model Server", address.rstrip("/"))
        self._folder, self._seconds = folder, loading_seconds

    def load(self, bundle: Bundle, *, name: str) -> None:
        """Load a bundle under a name; see `RunningServer`."""
        check_name(name)
        before, base = self._entries(), self._base(bundle, name)
        entry = self._written(bundle, name, base)
        try:
            self._reload({**before, name: entry})
            self._require(bundle, name)
        except JobError:
            self._put_back(before)
            if before.get(name, {}).get("base_path") != base:
                shutil.rmtree(self._folder / base, ignore_errors=True)
            raise
        self._sweep(name, but=base)

    def unload(self, *, name: str) -> None:
        """Take a name out of the configuration, and remove its folder; see `RunningServer`."""
        check_name(name)
        before = self._entries()
        if name in before:
            self._reload({other: entry for other, entry in before.items() if other != name})
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def serves(self, bundle: Bundle, *, name: str) -> bool:
        """Return whether a name is ready, and the version with the bundle's number is what answers."""
        if not self.web.get(f"{model_path(name)}/ready").is_good:
            return False
        available = [version for version, state in self._versions(name).items() if state.get("state") == "AVAILABLE"]
        return available == [version_of(bundle)]

    def endpoint(self, *, name: str) -> str:
        """Return the URL of a model."""
        return f"{self.web.address}{model_path(name)}"

    def session(self, bundle: Bundle, *, name: str, seconds: float) -> ServedSession:
        """Return a bundle's model behind a name; an answer of it may take so many seconds."""
        endpoint = self.endpoint(name=name)
        return ServedSession(self.web, endpoint, bundle.manifest.signature, seconds=seconds, number=())

    def _base(self, bundle: Bundle, name: str) -> str:
        return f"{name}/{bundle.digest.removeprefix('sha256:')}"

    def _written(self, bundle: Bundle, name: str, base: str) -> dict[str, Any]:
        """Write a bundle into its folder, and return what the configuration says of it."""
        staged = self._folder / f".retune-new-{name}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            render(bundle, Server.OVMS, name=name, into=staged)
            entries = json.loads((staged / CONFIG).read_bytes())[_LIST]
            shutil.rmtree(self._folder / base, ignore_errors=True)
            (self._folder / name).mkdir(exist_ok=True)
            (staged / name).rename(self._folder / base)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return {**entries[0][_ENTRY], "base_path": base}

    def _require(self, bundle: Bundle, name: str) -> None:
        if not self.serves(bundle, name=name):
            said = self._versions(name).get(version_of(bundle), {})
            words = _fault(said) or f"its state is {said.get('state', 'not told')}"
            raise self.web.refused(called(bundle), words)

    def _reload(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the configuration at once, and have the server read it; raises JobError where it refuses."""
        document = {_LIST: [{_ENTRY: entry} for entry in entries.values()]}
        beside = self._folder / f".{CONFIG}.new"
        beside.write_text(json.dumps(document, indent=2) + "\n")
        beside.chmod(0o644)
        beside.replace(self._folder / CONFIG)
        answer = self.web.post("/v1/config/reload", seconds=self._seconds)
        if not answer.is_good:
            raise self.web.refused("its configuration", f"{answer.words}{self._faults(entries)}")

    def _faults(self, entries: Mapping[str, Any]) -> str:
        """Return what the server says of versions that it could not load, after what it said of all of them."""
        states = [state for name in entries for state in self._versions(name).values()]
        said = [fault for state in states if state.get("state") != "AVAILABLE" and (fault := _fault(state))]
        return f" ({'; '.join(said)})" if said else ""

    def _put_back(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Have the server read what it had before; where it does not answer, it reads that when it starts again."""
        try:
            self._reload(entries)
        except JobError:
            return

    def _entries(self) -> dict[str, dict[str, Any]]:
        """Return the models of the configuration, by name; none where there is no file."""
        try:
            document = json.loads((self._folder / CONFIG).read_bytes())
        except FileNotFoundError:
            return {}
        return {str(item[_ENTRY]["name"]): item[_ENTRY] for item in document[_LIST]}

    def _versions(self, name: str) -> dict[str, dict[str, Any]]:
        """Return what the server says of each version of a model, by its number."""
        document = self.web.get(f"/v1/models/{quote(name, safe='')}").document
        listed = document.get("model_version_status") if isinstance(document, dict) else None
        states = [state for state in listed if isinstance(state, dict)] if isinstance(listed, list) else []
        return {str(state.get("version")): state for state in states}

    def _sweep(self, name: str, *, but: str) -> None:
        """Remove the folders of bundles that a name had before."""
        for folder in (self._folder / name).iterdir():
            if folder != self._folder / but:
                shutil.rmtree(folder, ignore_errors=True)


def _fault(state: Mapping[str, Any]) -> str:
    """Return what the server says of a version, in its own words; empty where it says nothing."""
    status = state.get("status")
    return str(status.get("error_message") or "") if isinstance(status, dict) else ""


def version_of(bundle: Bundle) -> str:
    """Return the number of the version that a bundle is served as, as the server writes it."""
    return str(number_of(bundle.digest))
