"""A search worker as a process of its own, with the real study and leases and a trial that is quick.

What a trial does is not the point here: who runs it, and whether it counts, is. A worker says `took` and waits for a
line on stdin while it holds a trial that it was told to hold, so that a test kills it at a known moment.
"""

import argparse
import sys
import time
from pathlib import Path

from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from optimizer_jobs.commands.search.leases import Leases, Worker
from optimizer_jobs.commands.search.space import Plan, Space
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.study.trials import TrialResult, open_study
from optimizer_jobs.techniques import registry
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.techniques import Technique
from tests.unit.jobs.models_for_tests import subject

TECHNIQUES = tuple(Technique(name=kind.lower(), type=kind) for kind in registry.TECHNIQUES)
SUBJECT = subject()


def space(*, techniques: tuple[Technique, ...] = TECHNIQUES) -> Space:
    """Return the space that all workers of a test share."""
    return Space(techniques, SUBJECT, threads=4)


def found(plan: Plan) -> TrialResult:
    """Return numbers that depend on the plan only."""
    score = sum(plan.key.encode()) % 97 / 97
    return TrialResult(plan=plan.words, engine=EngineOptions().model_dump(), costs=(score, 1 - score))


def open_claims(store: str, run: str, *, index: int, budget: int, lease: float, journal: Path) -> Leases:
    """Open the study and return this worker's leases on it."""
    study = open_study(store, run, create=default_objectives(Task.CLASSIFICATION))
    study.sampler = RandomSampler(seed=index)
    return Leases(study, Worker(index), journal=journal, budget=budget, first=space().first(), lease_seconds=lease)


def main() -> None:
    """Take trials until the budget is spent; hold the one with number `--hold` until a line comes on stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--lease", type=float, default=3.0)
    parser.add_argument("--hold", action="store_true", help="hold the first trial taken")
    options = parser.parse_args()
    leases = open_claims(
        options.store, "r1", index=options.index, budget=options.budget, lease=options.lease, journal=options.journal
    )
    with leases.alive():
        while not leases.finished():
            trial = leases.take(space().draw, space().fresh)
            if trial is None:
                time.sleep(0.05)
                continue
            print(f"took {leases.number(trial)}", flush=True)
            if options.hold:
                sys.stdin.readline()
            done = leases.tell(trial, found(space().draw(trial)), state=TrialState.COMPLETE)
            print("told" if done else "fenced", leases.number(trial), flush=True)


if __name__ == "__main__":
    main()
