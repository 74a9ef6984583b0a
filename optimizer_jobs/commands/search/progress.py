"""What people and Prometheus see of a running search: a line for each trial on stdout, and gauges on the metrics port.

Never decides anything.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import optuna
from optuna.trial import TrialState
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from optimizer_jobs.progress import say
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.trials import TrialResult, counted
from retune.api.objectives import Objective
from retune.contract.paths import METRIC_BEST, METRIC_TRIALS_DONE, METRIC_TRIALS_FAILED, METRIC_TRIALS_TOTAL


def trial_line(number: int, budget: int, *, result: TrialResult, state: TrialState, unchanged: bool = False) -> str:
    """Return a trial's line, such as `trial 7/24  int8 dynamic, 2 threads  accuracy 0.981 (-0.002)  size x0.26`.

    A trial that ran nothing new has no number, because it does not count.
    """
    if unchanged:
        return "  ".join(["does not count", result.plan, str(result.reason), *result.skipped])
    parts = [f"trial {number}/{budget}", result.plan]
    if state is TrialState.COMPLETE:
        missed = [f"misses the limit on {name}" for name, amount in result.shortfalls.items() if amount > 0]
        reverted = [summary.partition(": ")[2] for summary in result.techniques if "reverted" in summary]
        control = ["the champion itself, as a control"] if result.control else []
        parts += [result.words, *reverted, *result.skipped, *missed, *control]
    elif result.stopped:
        parts.append(str(result.reason))
    else:
        parts.append(f"{'discarded' if state is TrialState.PRUNED else 'failed'}: {result.reason}")
    return "  ".join(parts)


class Gauges:
    """The gauges of one worker; their values are about the whole study."""

    def __init__(self, study: optuna.Study, objectives: Sequence[Objective], *, budget: int) -> None:
        self._study, self._objectives = study, objectives
        self.registry = CollectorRegistry()
        self._done = Gauge(METRIC_TRIALS_DONE, "Trials finished in the study.", registry=self.registry)
        self._failed = Gauge(METRIC_TRIALS_FAILED, "Trials that ended with an error.", registry=self.registry)
        self._best = Gauge(
            METRIC_BEST, "Best feasible candidate relative to the champion.", ["metric"], registry=self.registry
        )
        Gauge(METRIC_TRIALS_TOTAL, "Trials that the run may spend.", registry=self.registry).set(budget)

    def refresh(self) -> None:
        """Set the gauges to the current state of the study."""
        trials = [trial for trial in counted(self._study) if trial.state.is_finished()]
        self._done.set(len(trials))
        self._failed.set(sum(trial.state is TrialState.FAIL for trial in trials))
        best = finalists(self._study, self._objectives, count=1)
        if best and best[0].feasible:
            for name, value in best[0].result.values.items():
                self._best.labels(metric=name).set(_relative(value, best[0].result.champion[name]))

    @contextmanager
    def served(self, port: int) -> Iterator[int | None]:
        """Serve the gauges until the block ends, and yield the port; None when the port is taken, which is no error."""
        listening: int | None = None
        with ExitStack() as stack:
            try:
                server, thread = start_http_server(port, registry=self.registry)
                listening = server.server_port
                stack.callback(thread.join)
                stack.callback(server.server_close)
                stack.callback(server.shutdown)
            except OSError as error:
                say(f"metrics are not served: port {port}: {error.strerror}")
            yield listening


def _relative(value: float, champion: float) -> float:
    """Return the ratio to the champion."""
    return value / champion if champion else 0.0
