"""A run of MLflow that files and numbers are logged to, found by the digest of the bundle that it is about."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimizer_jobs.data.mlflow.refusals import refused
from optimizer_jobs.data.mlflow.server import AnswerError, Server, UnfitAnswerError
from optimizer_jobs.data.mlflow.versions import ABSENT, DIGEST_TAG, EXISTS, Sink, as_tags

_VALUE_LIMIT = 250
"""Characters of a parameter's value that servers of every release keep."""
_NAME = re.compile(r"[^\w.\- /]")


@dataclass(frozen=True)
class Run:
    """A run."""

    id: str
    root: str
    """URI of the folder of its files."""


def ensure_experiment(sink: Sink, name: str) -> str:
    """Return the ID of an experiment, which is made where there is none.

    Raises:
        JobError: RegistryRefused, when it is deleted and its name not free.
        AnswerError: The server refuses it; other errors are those of `Server.ask`.
    """
    found = _experiment(sink.server, name)
    if found is None:
        try:
            return str(sink.server.send("experiments/create", name=name).get("experiment_id"))
        except AnswerError as error:
            if error.code != EXISTS:
                raise
        found = _experiment(sink.server, name) or {}
    if found.get("lifecycle_stage") == "deleted":
        message = f"experiment {name} is deleted, and its name is not free."
        raise refused(sink.uri, message, "Restore it, or name another one in spec.registry.experiment.")
    return str(found.get("experiment_id"))


def ensure_run(sink: Sink, experiment: str, *, digest: str, name: str, tags: Mapping[str, str]) -> Run:
    """Return the run about a bundle: one that was begun before, or a new one; errors are those of `Server.ask`."""
    wanted = f"tags.`{DIGEST_TAG}` = '{digest}'"
    found = sink.server.send("runs/search", experiment_ids=[experiment], filter=wanted, max_results=1)
    listed = found.get("runs")
    if isinstance(listed, list) and listed:
        return _run_in(listed[0])
    begun: dict[str, Any] = {"experiment_id": experiment, "run_name": name, "start_time": _now(), "tags": as_tags(tags)}
    return _run_in(sink.server.send("runs/create", **begun).get("run"))


def log(server: Server, run: Run, *, metrics: Mapping[str, str], params: Mapping[str, str]) -> None:
    """Log numbers and parameters, and end the run; what is no number is left out. Errors are those of `Server.ask`."""
    at = _now()
    numbers = {_NAME.sub("_", name): float(value) for name, value in metrics.items() if _is_number(value)}
    server.send(
        "runs/log-batch",
        run_id=run.id,
        metrics=[{"key": key, "value": value, "timestamp": at, "step": 0} for key, value in numbers.items()],
        params=[{"key": _NAME.sub("_", key), "value": value[:_VALUE_LIMIT]} for key, value in params.items()],
    )
    server.send("runs/update", run_id=run.id, status="FINISHED", end_time=at)


def _experiment(server: Server, name: str) -> dict[str, Any] | None:
    try:
        found = server.ask("experiments/get-by-name", experiment_name=name).get("experiment")
    except AnswerError as error:
        if error.code == ABSENT:
            return None
        raise
    return found if isinstance(found, dict) else {}


def _run_in(found: Any) -> Run:
    info = found.get("info") if isinstance(found, dict) else None
    run_id = str(info.get("run_id") or "") if isinstance(info, dict) else ""
    if not isinstance(info, dict) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id):
        raise UnfitAnswerError("its answer names no run.")
    return Run(run_id, str(info.get("artifact_uri") or ""))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _now() -> int:
    """Return the milliseconds since 1970."""
    return int(time.time() * 1000)
