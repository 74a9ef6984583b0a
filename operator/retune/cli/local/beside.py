"""The owner's own commands on this machine, in place of their containers: only where an option allows each.

There is no sandbox here: a command runs with the rights of the person who started us. The shell loop of the cluster
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
from retune.api.own_code import MetricContainer
from retune.api.techniques import TrainingContainer
from retune.cli.access import AccessError
from retune.contract.exchange import EXCHANGE_VARIABLE, METRIC_VARIABLE, command

TRAIN, MEASURE = "--run-training-here", "--run-metric-here"
"""Options that allow a command to run."""
STOP_SECONDS = 10.0
"""Time that the command has to stop before it is killed."""


def check_allowed(resource: ModelOptimization, *, training: bool, metric: bool) -> None:
    """Raise AccessError where a spec names a container of its owner's and its command may not run here."""
    for what, own, allowed, option in (
        ("technique CustomTraining trains", _training(resource), training, TRAIN),
        ("model.customMetric measures", _metric(resource), metric, MEASURE),
    ):
        if own is not None and not allowed:
            raise AccessError(
                f"{what} in image {own.image}; without a cluster its command would run here with your own rights and "
                f"no sandbox: run it in the cluster, or add {option}"
            )


@contextmanager
def measuring(resource: ModelOptimization, *, threads: int) -> Iterator[Mapping[str, str]]:
    """Run what measures quality beside one Job, and yield the variables that the Job's environment gets.

    Args:
        resource: May name a container that measures; without one nothing runs and there are no variables.
        threads: Threads that the command is told to use.
    """
    with ExitStack() as stack:
        yield _beside(stack, _metric(resource), METRIC_VARIABLE, threads)


@contextmanager
def working(resource: ModelOptimization, *, workers: int, threads: int) -> Iterator[list[Mapping[str, str]]]:
    """Run what trains and what measures beside each worker of a search, and yield the variables of each."""
    with ExitStack() as stack:
        yield [
            {
                **_beside(stack, _training(resource), EXCHANGE_VARIABLE, threads),
                **_beside(stack, _metric(resource), METRIC_VARIABLE, threads),
            }
            for _ in range(workers)
        ]


def _beside(
    stack: ExitStack, own: TrainingContainer | MetricContainer | None, variable: str, threads: int
) -> Mapping[str, str]:
    if own is None:
        return {}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="retune-x-")))
    stack.enter_context(_standing_by(own.command, folder, threads))
    return {variable: str(folder)}


@contextmanager
def _standing_by(words: tuple[str, ...], folder: Path, threads: int) -> Iterator[None]:
    environment = {**os.environ, "RETUNE_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(  # noqa: S603 - what the user allowed by an option
        command(str(folder), words),
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


def _training(resource: ModelOptimization) -> TrainingContainer | None:
    return next((technique.container for technique in resource.spec.techniques or () if technique.container), None)


def _metric(resource: ModelOptimization) -> MetricContainer | None:
    custom = resource.spec.model.custom_metric
    return custom.container if custom else None
