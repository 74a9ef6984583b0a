"""A registered model that is written to: its versions, found by the digest of what they hold.

A version has its digest as a tag from the request on that makes it, so that a second start finds it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from optimizer_jobs.data.mlflow.refusals import refused
from optimizer_jobs.data.mlflow.server import AnswerError, Server, UnfitAnswerError, tracking_server
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from retune.contract.results import Reason

DIGEST_TAG, RESOURCE_TAG = "retune.digest", "retune.resource"
"""Tags of every version that is made here: the digest of its bundle, and `namespace/name` of its resource."""
ABSENT, EXISTS = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
"""MLflow's words for a thing that is not there, and for one that is there already."""

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_PAGE, _PAGES = 200, 100
_PROMPT = "mlflow.prompt.is_prompt"


@dataclass(frozen=True)
class Version:
    """A version in the registry."""

    number: str
    tags: Mapping[str, str]
    stage: str = "READY"


@dataclass(frozen=True)
class Sink:
    """A registered model, to be written to."""

    server: Server
    uri: str
    name: str

    def ensure(self, about: str) -> None:
        """Have the registered model; `about` describes a new one.

        Raises:
            JobError: RegistryConflict, when the name is that of a prompt.
            AnswerError: The server refuses it; other errors are those of `Server.ask`.
        """
        found = self._model()
        if found is None:
            try:
                self.server.send("registered-models/create", name=self.name, description=about)
            except AnswerError as error:
                if error.code != EXISTS:
                    raise
            found = self._model() or {}
        if tags_in(found).get(_PROMPT, "").lower() == "true":
            message = f"{self.name} is a prompt, and no model can be registered under its name."
            raise JobError(Reason.REGISTRY_CONFLICT, self.uri, message, "Name another model in spec.registry.uri.")

    def versions(self) -> list[Version]:
        """Return all versions.

        Raises:
            JobError: RegistryRefused, when there are more than can be looked through.
            AnswerError: The server refuses it; other errors are those of `Server.ask`.
        """
        found: list[Version] = []
        token: dict[str, str] = {}
        for _ in range(_PAGES):
            answer = self.server.ask(
                "model-versions/search", filter=f"name='{self.name}'", max_results=str(_PAGE), **token
            )
            listed = answer.get("model_versions")
            found += [version_in(entry) for entry in listed] if isinstance(listed, list) else []
            if not answer.get("next_page_token"):
                return found
            token = {"page_token": str(answer["next_page_token"])}
        message = f"it has more than {_PAGES * _PAGE} versions, and none can be found among so many."
        raise refused(self.uri, message, "Delete old versions, or name another model in spec.registry.uri.")

    def find(self, digest: str) -> Version | None:
        """Return the version that holds a bundle, the first where there are several; None where none does.

        Raises:
            JobError: RegistryUnreachable, when the server is still at work on it; or as `versions`.
        """
        found = [version for version in self.versions() if version.tags.get(DIGEST_TAG) == digest]
        whole = [version for version in found if not version.stage.startswith("FAILED")]
        return min(whole, key=lambda version: int(version.number)) if whole else None

    def create(self, source: str, *, run_id: str | None, tags: Mapping[str, str], about: str) -> Version:
        """Return a new version of the files at `source`; errors are those of `Server.ask`."""
        fields: dict[str, Any] = {"name": self.name, "source": source, "description": about, "tags": as_tags(tags)}
        answer = self.server.send("model-versions/create", **fields, **({"run_id": run_id} if run_id else {}))
        return version_in(answer.get("model_version"))

    def check_ready(self, version: Version) -> None:
        """Raise JobError unless the server has finished with a version."""
        if version.stage == "PENDING_REGISTRATION":
            message = f"version {version.number} is being registered."
            step = "It is tried again; see the server's log where it stays so."
            raise JobError(Reason.REGISTRY_UNREACHABLE, self.uri, message, step, RETRY_EXIT)
        if version.stage != "READY":
            shown = printable(version.stage, limit=100)
            step = "See the server's log, and delete that version: it is registered anew."
            raise refused(self.uri, f"version {version.number} was not registered ({shown}).", step)

    def _model(self) -> dict[str, Any] | None:
        try:
            found = self.server.ask("registered-models/get", name=self.name).get("registered_model")
        except AnswerError as error:
            if error.code == ABSENT:
                return None
            raise
        return found if isinstance(found, dict) else {}


def open_sink(uri: str) -> Sink:
    """Return the registered model that mlflow://NAME names, on the server of the environment; nothing is asked yet.

    Raises:
        CredentialsError: The environment names no server, or credentials that cannot be used.
        RefusedError: The server must not be connected to.
    """
    return Sink(tracking_server(), uri, unquote(uri.removeprefix("mlflow://")))


def version_in(found: Any) -> Version:
    """Return the version that an answer describes; raises UnfitAnswerError where it describes none."""
    number = str(found.get("version")) if isinstance(found, dict) else ""
    if not _VERSION.fullmatch(number):
        raise UnfitAnswerError("its answer names no version of a model.")
    return Version(number, tags_in(found), str(found.get("status") or "READY"))


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in MLflow's form."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def tags_in(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of whatever an answer describes."""
    listed = found.get("tags")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {str(entry.get("key")): str(entry.get("value") or "") for entry in entries}
