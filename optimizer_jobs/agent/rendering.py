"""Before a server of others starts: what a URI names, in the server's own layout, in a folder that it reads.

Kubernetes may run an init container more than once for one pod, so what an earlier run has written is replaced.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.agent.opening import fetched
from optimizer_jobs.agent.scratch import private_folder
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError, store_access
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.version_numbers import DELIVERED, number_of
from optimizer_jobs.serving import ovms
from optimizer_jobs.serving.render import Rendered, render
from retune.contract.requests import Server
from retune.contract.results import Reason

_STAGED, _MARK = ".retune-new-", ".retune-"
"""Starts of the names of what is written and not yet in place, and of the file that says that a model is ours."""


@dataclass(frozen=True)
class Prepared:
    """What a server will read."""

    digest: str | None
    """Digest of the bundle; None where a model is served as it was delivered."""
    version: int
    """Number of the version, which the server names in its answers."""
    lost: tuple[str, ...]
    """What the bundle asks and the server cannot express, each as a sentence."""
    tried: str
    """What was tried of it here, or why nothing was, as a sentence."""


def render_for(uri: str, server: Server, *, name: str, into: Path, threads: int | None) -> Prepared:
    """Write what a URI names into the folder of a server that does not run yet, in place of what has that name there.

    Args:
        uri: The bundle, or the ONNX file as delivered; see `fetched`.
        server: The server that will read the folder.
        name: Name that clients ask the model by.
        into: The server's folder; other models of a Triton may lie in it.
        threads: Cores of the container, for a model as delivered; a bundle brings its own number.

    Raises:
        JobError: There is nothing, it is damaged, the server cannot serve it, or the folder cannot be written. What was
            in the folder is left as it was.
    """
    with private_folder() as scratch, store_access(str(into)):
        found = fetched(uri, into=scratch)
        delivered = not isinstance(found, Bundle)
        bundle = found if isinstance(found, Bundle) else _as_bundle(found, uri, scratch, threads=threads)
        made = _replaced(bundle, server, name=name, into=into, delivered=delivered)
    return Prepared(
        digest=None if delivered else bundle.digest,
        version=DELIVERED if delivered else number_of(bundle.digest),
        lost=() if delivered else made.lost,
        tried=made.tried,
    )


def _as_bundle(model: Path, uri: str, scratch: Path, *, threads: int | None) -> Bundle:
    """Return a model as delivered in the form of a bundle, which nobody publishes and nothing names."""
    return make_bundle(
        scratch / "delivered",
        model=model,
        engine=EngineOptions(threads=threads or 1),
        signature=check_onnx(model, uri=uri),
        techniques=(),
        lineage=Lineage(resource="delivered", original_model=file_digest(model)),
        golden=Golden(),
    )


def _replaced(bundle: Bundle, server: Server, *, name: str, into: Path, delivered: bool) -> Rendered:
    into.mkdir(parents=True, exist_ok=True)
    _check_alone(into, server, name)
    mark = into / f"{_MARK}{name}"
    if (into / name).exists() and not mark.exists():
        raise JobError(
            Reason.REQUEST_INVALID,
            str(into / name),
            "it is there already, and this command has not written it.",
            "Name a folder that nobody else writes into, such as one of an emptyDir.",
        )
    staged = into / f"{_STAGED}{name}"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        made = render(bundle, server, name=name, into=staged, delivered=delivered)
        mark.touch()
        shutil.rmtree(into / name, ignore_errors=True)
        for part in sorted(staged.iterdir()):
            part.replace(into / part.name)
        return made
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _check_alone(into: Path, server: Server, name: str) -> None:
    """Refuse a folder whose one configuration names other models, which would not be served any more."""
    if server is not Server.OVMS:
        return
    others: set[str] = set()
    with suppress(OSError, ValueError, LookupError, TypeError):
        listed = json.loads((into / ovms.CONFIG).read_bytes())["model_config_list"]
        others = {str(entry["config"]["name"]) for entry in listed} - {name}
    if others:
        raise JobError(
            Reason.REQUEST_INVALID,
            str(into / ovms.CONFIG),
            f"it names {', '.join(sorted(others))}, which would not be served any more.",
            "Give each model of OpenVINO Model Server a folder and a server of its own.",
        )
