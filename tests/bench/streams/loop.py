"""The product on a stream, without a cluster: the operator's own passes, and the Jobs' own commands in this process.

The clock is simulated; everything else is real: captured files, the check of every window, the planner's rules, the
gathering of fresh data, the search, the judge with its gate, and the bundles that it publishes. Only pods are played:
a new version is there at once, and its golden requests are right.
"""

import contextlib
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from optimizer_jobs.run import execute
from retune.api.spec import ModelOptimizationSpec
from retune.contract.requests import CheckRequest, JobRequest, VerifyRequest, encode_request
from retune.contract.results import CheckResult, Failure, JobResult
from retune.plan.observed import JobPhase
from tests.answers import answer
from tests.bench.streams.live import Live, Server
from tests.unit.plan.world import World

_JOB_SECONDS = 60
"""How long a Job takes on the simulated clock."""
_LEAST_STEP = 1.0


@dataclass(frozen=True)
class Served:
    """Since when which bundle serves."""

    since: np.datetime64
    uri: str


@dataclass
class Run:
    """An attempt to improve the model."""

    since: np.datetime64
    trigger: str
    outcome: str = "under way"
    data: str = ""
    """Which data it learned from and was judged by, in words."""
    message: str = ""
    """Why it ended so."""


@dataclass
class Story:
    """What became of a stream under the product."""

    served: list[Served] = field(default_factory=list)
    """Versions that served, the delivered one first."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Runs by name, in the order of time."""
    check_seconds: float = 0.0
    """CPU seconds of the checks of windows."""
    run_seconds: float = 0.0
    """CPU seconds of the Jobs of runs."""
    windows: list[CheckResult] = field(default_factory=list)
    """What every window's check said."""


def played(spec: ModelOptimizationSpec, live: Live, *, log: Path, heard: Callable[[str], None]) -> Story:
    """Let the product watch over a stream from its beginning to its end, and return what happened.

    Args:
        spec: The resource, which is created when the stream begins.
        live: The stream as it is served.
        log: File for what the Jobs print.
        heard: Takes a line for everything that the operator tells people.
    """
    world, story = World(spec=spec, now=_datetime(live.begins)), Story()
    stage = _Stage(world, live, story, log, heard)
    while _moment(world) < live.ends:
        stage.step(live.ends)
    live.serve_until(live.ends, stage.server)
    return story


class _Stage:
    """Moves the clock, plays the pods and runs the Jobs."""

    def __init__(self, world: World, live: Live, story: Story, log: Path, heard: Callable[[str], None]) -> None:
        self._world, self._live, self._story, self._log, self._heard = world, live, story, log, heard
        self._server: Server | None = None
        self._events = 0

    @property
    def server(self) -> Server:
        """What serves now."""
        if self._server is None:
            raise RuntimeError("nothing serves yet")
        return self._server

    def step(self, end: np.datetime64) -> None:
        """Make a pass, and run what it asked for or move on to when the next one is due."""
        self._world.reconcile()
        self._tell()
        self._note_runs()
        self._change_server()
        jobs = self._world.active_jobs()
        for name in jobs:
            self._run(name)
        self._world.settled = True
        left = (_datetime(end) - self._world.now).total_seconds()
        wait = _JOB_SECONDS if jobs else self._world.look_again or left
        self._world.wait(max(_LEAST_STEP, min(wait, left)))

    def _change_server(self) -> None:
        """Have the pods serve what the target names, else the champion."""
        champion = self._world.resource.status.champion
        uri = self._world.value or (champion.uri if champion else None)
        if uri is None or (self._story.served and self._story.served[-1].uri == uri):
            return
        now = _moment(self._world)
        if self._server is not None:
            self._live.serve_until(now, self._server)
        self._server = Server.of(uri)
        self._story.served.append(Served(now, uri))

    def _run(self, name: str) -> None:
        """Run a Job's command on what has happened so far; pods are asked nothing."""
        request = self._world.requests[name]
        if self._server is not None:
            self._live.serve_until(_moment(self._world), self._server)
        began = _cpu_seconds()
        result = answer(request) if isinstance(request, VerifyRequest) else _executed(request, self._log)
        spent = _cpu_seconds() - began
        if isinstance(request, CheckRequest):
            self._story.check_seconds += spent
            self._story.windows += [result] if isinstance(result, CheckResult) else []
        elif self._world.resource.status.run is not None:
            self._story.run_seconds += spent
        phase = JobPhase.FAILED if isinstance(result, Failure) else JobPhase.SUCCEEDED
        self._world.jobs[name] = replace(self._world.jobs[name], phase=phase, result=result)

    def _note_runs(self) -> None:
        """Remember the run under way, and how the last one ended: the operator forgets old ones."""
        status = self._world.resource.status
        if (run := status.run) is not None:
            known = self._story.runs.setdefault(run.name, Run(_moment(self._world), run.trigger))
            known.data = run.data or ""
        if (last := status.last_run) is not None and last.name in self._story.runs:
            ended = self._story.runs[last.name]
            ended.outcome, ended.message = last.outcome.value, last.message

    def _tell(self) -> None:
        """Say what the operator has told people."""
        for event in self._world.events[self._events :]:
            self._heard(f"{self._world.now:%Y-%m-%d %H:%M} {event.reason}: {event.message}")
        self._events = len(self._world.events)


def _executed(request: JobRequest, log: Path) -> JobResult:
    """Run a Job's command in this process; what it prints goes into a file."""
    with tempfile.TemporaryDirectory(prefix="stream-job-") as folder, log.open("a") as lines:
        path = Path(folder) / "request.json"
        path.write_text(encode_request(request))
        with contextlib.redirect_stdout(lines):
            result, _ = execute(path)
    return result


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _datetime(moment: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(moment.astype("datetime64[s]").astype(np.int64)), tz=UTC)


def _moment(world: World) -> np.datetime64:
    return np.datetime64(int(world.now.timestamp()), "s")
