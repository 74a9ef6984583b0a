"""Many workers of one search in one process: who gets which trial, and what they ask of the store meanwhile.

Their study, transactions, leases and budgets are those of a Job. A trial is a wait in which the worker looks at the
budgets; beside whatever it does, it shows that it is alive, as the thread of a Job does.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial, TrialState

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.leases import LEASE_SECONDS, Leases, Worker
from optimizer_jobs.commands.search.sharing import POLL_SECONDS, share
from optimizer_jobs.commands.search.termination import LOOK_SECONDS
from optimizer_jobs.stores.base import Stat, Store
from optimizer_jobs.study.trials import KEY, TrialResult, counted, number_of
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.search import Search
from tests.storage.clocks import Clock, told_by

RUN = "r1"
PARAMETERS, VALUES = 6, 1 << 20
"""Of a trial; the same combination is as good as never drawn twice."""
_SPREAD = 0.5
"""By which share a trial is shorter or longer than the mean at most."""


@dataclass(frozen=True)
class Latency:
    """How long requests take: the median in seconds, and the spread of its logarithm."""

    read: float
    write: float
    spread: float = 0.3

    def drawn(self, kind: str, dice: random.Random) -> float:
        """Draw the seconds of one request; a listing takes as long as a write."""
        median = self.read if kind == "GET" else self.write
        return median * dice.lognormvariate(0.0, self.spread)


@dataclass(frozen=True)
class Asked:
    """A request, at the time of its beginning."""

    moment: float
    kind: str


@dataclass
class Tally:
    """What the workers of one search did and asked."""

    trials: Counter[int] = field(default_factory=Counter)
    """By worker."""
    turns: list[int] = field(default_factory=list)
    """The workers in the order in which they ended trials."""
    decisions: list[float] = field(default_factory=list)
    """Seconds of each taking, telling, or both in one."""
    requests: list[Asked] = field(default_factory=list)
    refused: int = 0
    """Creates that another worker's was before."""
    ran: float = 0.0
    """Seconds of all trials together."""
    seconds: float = 0.0
    """From the beginning to the end of the search."""

    def a_trial(self, kind: str) -> float:
        """Return the requests of a kind, for each trial."""
        return sum(asked.kind == kind for asked in self.requests) / self.trials.total()

    def busiest_second(self, kind: str) -> int:
        """Return the most requests of a kind in one second."""
        return max(Counter(int(asked.moment) for asked in self.requests if asked.kind == kind).values(), default=0)


class Distant:
    """A store that is as far away as it is told, and notes what it is asked.

    What a request does it does at half of its time.
    """

    def __init__(self, store: Store, clock: Clock, latency: Latency, tally: Tally, *, seed: int = 0) -> None:
        """Stand before a store, for one worker or many."""
        self._store, self.uri = store, store.uri
        self._clock, self._latency, self._tally, self._dice = clock, latency, tally, random.Random(seed)

    def _on_its_way(self, kind: str, act: Callable[[], Any]) -> Any:
        half = self._latency.drawn(kind, self._dice) / 2
        self._tally.requests.append(Asked(self._clock.now(), kind))
        self._clock.sleep(half)
        try:
            return act()
        finally:
            self._clock.sleep(half)

    def read(self, key: str, *, limit: int) -> bytes:
        """GET."""
        content: bytes = self._on_its_way("GET", lambda: self._store.read(key, limit=limit))
        return content

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """GET, of small objects."""
        return int(self._on_its_way("GET", lambda: self._store.fetch(key, path, limit=limit)))

    def create(self, key: str, content: bytes | Path) -> bool:
        """PUT with a condition."""
        made = bool(self._on_its_way("PUT", lambda: self._store.create(key, content)))
        self._tally.refused += not made
        return made

    def replace(self, key: str, content: bytes | Path) -> None:
        """PUT."""
        self._on_its_way("PUT", lambda: self._store.replace(key, content))

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """LIST; a page is enough."""
        found: list[Stat] = self._on_its_way("LIST", lambda: list(self._store.stats(prefix, after=after)))
        return iter(found)

    def delete(self, keys: Iterable[str]) -> None:
        """DELETE."""
        self._on_its_way("DELETE", lambda: self._store.delete(keys))


@dataclass(frozen=True)
class Point:
    """A combination of parameters."""

    values: tuple[int, ...]

    @property
    def key(self) -> str:
        """Its values."""
        return " ".join(map(str, self.values))

    @property
    def words(self) -> str:
        """Its values."""
        return self.key


def draw(trial: BaseTrial) -> Point:
    """Draw the parameters of a trial."""
    return Point(tuple(trial.suggest_int(f"x{number}", 0, VALUES) for number in range(PARAMETERS)))


def fresh(_: set[str]) -> Mapping[str, Any] | None:
    """Draw none anew: there are as good as no two alike."""
    return None


@dataclass(frozen=True)
class Played:
    """A search that is played: how many workers run how many trials of how many seconds."""

    workers: int
    trials: int
    trial_seconds: float
    apart: float = 0.0
    """Seconds in which its workers begin, one after the other at random."""


class Member:
    """One worker of a crowd, which runs its trials as a Job does."""

    def __init__(self, index: int, store: Store, played: Played, clock: Clock, tally: Tally) -> None:
        """Open study, leases and budget."""
        study, shared = share(store, RUN, default_objectives(Task.CLASSIFICATION), lease_seconds=LEASE_SECONDS)
        study.sampler = RandomSampler(seed=index)
        worker = Worker(index, life=f"life{index}")
        search = Search(max_trials=played.trials, max_duration="100h")
        self._budget = Budget(study, search, owner=worker.owner)
        self._leases = Leases(study, worker, shared=shared, budget=played.trials)
        self._index, self._owner, self._shared = index, worker.owner, shared
        self._played, self._clock, self._tally = played, clock, tally
        self._dice, self._ended = random.Random(index), False

    def work(self) -> None:
        """Run trials until none is left."""
        try:
            self._work()
        finally:
            self._ended = True

    def _work(self) -> None:
        poll = POLL_SECONDS
        while not self._leases.finished():
            began = self._clock.now()
            trial = self._leases.take(draw, fresh)
            if trial is None:
                self._live_until(self._clock.now() + poll)
                poll = min(2 * poll, self._shared.longest_poll)
                continue
            if self._clock.now() > began:  # else it was taken with the end of the one before
                self._tally.decisions.append(self._clock.now() - began)
            self._run(trial)
            poll = POLL_SECONDS

    def beat(self) -> None:
        """Show signs of life until the worker has ended."""
        for number in count(1):
            if self._ended:
                return
            self._shared.pulse.show(self._owner, number)
            self._clock.sleep(self._shared.beat_seconds)

    def _run(self, trial: optuna.Trial) -> None:
        seconds = self._played.trial_seconds * self._dice.uniform(1 - _SPREAD, 1 + _SPREAD)
        self._live_until(self._clock.now() + seconds)
        began, result = self._clock.now(), TrialResult(plan=draw(trial).words, costs=(seconds, -seconds))
        assert self._leases.tell(trial, result, state=TrialState.COMPLETE, then=(draw, fresh))
        self._tally.decisions.append(self._clock.now() - began)
        self._tally.trials[self._index] += 1
        self._tally.turns.append(self._index)
        self._tally.ran += seconds

    def _live_until(self, end: float) -> None:
        """Wait, looking at the budgets."""
        while (left := end - self._clock.now()) > 0:
            self._clock.sleep(min(left, LOOK_SECONDS))
            if self._clock.now() < end:
                assert self._budget.look() is None


def play(played: Played, store: Store, latency: Latency) -> Tally:
    """Play a search in an empty store on a clock that jumps.

    Args:
        played: The search.
        store: Where its objects lie.
        latency: How far away that is.
    """
    clock, tally = Clock(), Tally()

    def work(index: int) -> None:
        clock.sleep(random.Random(index).uniform(0.0, played.apart))
        member = Member(index, Distant(store, clock, latency, tally, seed=index), played, clock, tally)
        clock.start(member.beat)
        member.work()
        tally.seconds = max(tally.seconds, clock.now())

    with told_by(clock):
        clock.run(partial(work, index) for index in range(played.workers))
    return tally


def require_each_once(store: Store, trials: int) -> None:
    """Read the study anew, and see that every trial of the budget was run once and none besides."""
    study, _ = share(store, RUN, default_objectives(Task.CLASSIFICATION), lease_seconds=LEASE_SECONDS)
    present = counted(study)
    assert [trial.state for trial in present] == [TrialState.COMPLETE] * trials
    assert sorted(map(number_of, present)) == list(range(1, trials + 1))
    assert len({trial.user_attrs[KEY] for trial in present}) == trials
    assert len(study.get_trials(deepcopy=False)) == trials
