"""The user's own training command on this machine, in place of its container: only where an option allows it.

There is no sandbox here: the command runs with the rights of the person who started us. The shell loop of the cluster
starts it, so that it behaves the same.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from retune.api.objects import ModelOptimization
from retune.api.techniques import TrainingContainer
from retune.cli.access import AccessError
from retune.contract.exchange import EXCHANGE_VARIABLE, command

OPTION = "--run-training-here"
"""Option that allows the command to run."""
STOP_SECONDS = 10.0
"""Time that the command has to stop before it is killed."""


def check_allowed(resource: ModelOptimization, *, allowed: bool) -> None:
    """Raise AccessError where a technique has a training container and its command may not run here."""
    container = _container(resource)
    if container is not None and not allowed:
        raise AccessError(
            f"technique CustomTraining trains in image {container.image}; without a cluster its command would run here "
            f"with your own rights and no sandbox: run it in the cluster, or add {OPTION}"
        )


@contextmanager
def training_beside(resource: ModelOptimization, *, workers: int, threads: int) -> Iterator[list[Mapping[str, str]]]:
    """Run a training command beside each worker, and yield the variables that each worker's environment gets.

    Args:
        resource: May name a training container; without one nothing runs and there are no variables.
        workers: Number of workers.
        threads: Threads that the command is told to use.
    """
    container = _container(resource)
    if container is None:
        yield [{} for _ in range(workers)]
        return
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="retune-x-"))) for _ in range(workers)]
        for folder in folders:
            stack.enter_context(_standing_by(container, folder, threads))
        yield [{EXCHANGE_VARIABLE: str(folder)} for folder in folders]


@contextmanager
def _standing_by(container: TrainingContainer, folder: Path, threads: int) -> Iterator[None]:
    environment = {**os.environ, "RETUNE_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(  # noqa: S603 - what the user allowed by an option
        command(str(folder), container.command),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _container(resource: ModelOptimization) -> TrainingContainer | None:
    return next((technique.container for technique in resource.spec.techniques or () if technique.container), None)
