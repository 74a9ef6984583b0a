"""What `kubectl explain` says of closed lists of words: every word that the operator writes or reads is named."""

import re
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.api.model import DatasetFormat
from retune.api.status import ConditionType, Outcome, RunStage
from retune.api.triggers import SIGNAL_REASONS, TriggerReason
from retune.api.watched import Verdict
from retune.contract.results import Reason
from retune.contract.results import Verdict as Judged
from retune.signals.exposition import PATH_LABELS, STATUS_LABELS
from retune.signals.prometheus import NAMES
from tests.unit.plan.test_monitoring import judged, watched
from tests.unit.plan.test_triggers import QUICK, finish, suffering
from tests.unit.plan.world import World

Json = dict[str, Any]
CRDS = {"mo": modeloptimization_crd(), "orun": optimizationrun_crd()}


def description(path: str) -> str:
    """Return what `kubectl explain` says of a field, such as `mo.status.run.stage`."""
    kind, *names = path.split(".")
    node: Json = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in names:
        node = node.get("items", node)["properties"][name]
    return str(node["description"])


def words_of(path: str) -> set[str]:
    """Return the words of a field's description."""
    return set(re.findall(r"[\w.]*\w", description(path)))


LISTS = [
    ("orun.spec.trigger.reason", TriggerReason),
    ("mo.status.run.trigger", TriggerReason),
    ("mo.status.triggers.pending.reason", SIGNAL_REASONS),
    ("mo.status.conditions.type", ConditionType),
    ("orun.status.conditions.type", ConditionType),
    ("mo.status.monitoring.signals.verdict", Verdict),
    ("mo.spec.history.successfulRuns", [end for end in Outcome if end.successful]),
    ("mo.spec.history.failedRuns", [end for end in Outcome if not end.successful]),
    ("mo.spec.data.test.format", [f".{name.lower()}" for name in DatasetFormat]),
    ("mo.spec.monitoring.performance.signals.query", NAMES),
    ("mo.spec.monitoring.performance.pods.requests", STATUS_LABELS),
    ("mo.spec.monitoring.performance.pods.pathSuffix", PATH_LABELS),
]


@pytest.mark.parametrize("path,listed", LISTS, ids=[path for path, _ in LISTS])
def test_a_description_names_every_word_of_its_list(path: str, listed: Any) -> None:
    """A word that is added to the code and not to the text would leave the reader with a stale list."""
    assert {str(word) for word in listed} <= words_of(path)


def test_signals_that_start_runs_are_reasons_of_runs() -> None:
    """The spec's list of signals and the reasons that a run records are the same words."""
    assert set(SIGNAL_REASONS) < set(TriggerReason)
    people = set(TriggerReason) - set(SIGNAL_REASONS)
    assert people == {TriggerReason.INITIAL, TriggerReason.SPEC_CHANGE, TriggerReason.MANUAL}


def test_a_run_goes_through_every_stage_that_is_described() -> None:
    """From gathered data to the rollout, the status has these words and no others."""
    world = watched(triggers=QUICK)
    world.change(manualNonce="again")
    seen = []
    for _ in range(6):
        world.reconcile()
        if world.resource.status.run:
            seen.append(world.resource.status.run.stage)
        for name in world.active_jobs():
            world.finish(name)
    assert list(dict.fromkeys(seen)) == list(RunStage)
    assert set(RunStage) <= words_of("mo.status.run.stage")


def test_every_reason_that_starts_a_run_is_described() -> None:
    """First run, person, changed spec and signal: what the planner writes is a word of the list."""
    world = watched(triggers=QUICK)
    reasons = {run.spec.trigger.reason for run in suffering(world).runs.values()}
    world.change(manualNonce="again")
    world.reconcile()
    reasons |= {run.spec.trigger.reason for run in world.runs.values()}
    world.change(search={"maxTrials": 3})
    world.reconcile()
    reasons |= {run.spec.trigger.reason for run in world.runs.values()}
    assert reasons == {"Initial", "QualityDegradation", "Manual", "SpecChange"}
    assert reasons <= set(TriggerReason)


def test_every_signal_that_a_check_raises_is_described() -> None:
    """Drift, measured and estimated quality have names of their own; all others are live signals of the spec."""
    world = watched(triggers=QUICK)
    judged(world, drift=Verdict.BREACH, quality=Verdict.CLEAR)
    judged(world, drift=Verdict.CLEAR, quality=Verdict.CLEAR, estimated=True)
    assert world.resource.status.monitoring is not None
    names = {signal.name for signal in world.resource.status.monitoring.signals}
    assert len(names) == 3
    assert names <= words_of("mo.status.monitoring.signals.name")


def exhausted() -> World:
    """A world in which three runs in a row brought nothing."""
    world = suffering(watched(triggers=QUICK))
    for _ in range(2):
        finish(world, Judged.NO_GAIN)
        suffering(world, 1)
    return world


def rolled_back_twice() -> World:
    """A world in which two candidates in a row answered wrong when they were live."""
    world = suffering(watched(triggers=QUICK))
    for attempt in ("first", "second"):
        finish(world, Judged.PROMOTE)
        world.settled = True
        world.reconcile()
        (verify,) = (name for name in world.active_jobs() if "-verify" in name)
        world.fail(verify, Reason.GOLDEN_MISMATCH)
        world.reconcile()
        world.settled = True
        world.reconcile()
        suffering(world, 1 if attempt == "first" else 0)
    return world


@pytest.mark.parametrize("opened,word", [(exhausted, "Exhausted"), (rolled_back_twice, "RollbackLoop")])
def test_every_reason_of_an_open_circuit_is_described(opened: Any, word: str) -> None:
    """Whoever reads the word in a status finds what closes the circuit."""
    assert opened().resource.status.triggers.circuit == word
    assert word in words_of("mo.status.triggers.circuit")
