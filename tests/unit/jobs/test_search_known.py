"""What earlier trials teach saves trials that can bring nothing new, and no others."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optimizer_jobs.commands.search.equivalence import Equivalence
from optimizer_jobs.commands.search.space import Plan, Space
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.study.trials import KEY, NUMBER, RESULT, TrialResult, record
from optimizer_jobs.technique import Params
from optimizer_jobs.techniques.steps import Step
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs.models_for_tests import subject

GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)
SPACE = Space((GRAPH, QUANTIZE), subject(), threads=4)
FOLD: Params = {"graph.passes": "SlimAndFold"}
SLIM: Params = {"graph.passes": "Slim"}
DYNAMIC: Params = {"quantize.variant": "Dynamic"}
ONE_THREAD: Params = {"engine.threads": 1}


def told(*parts: Mapping[str, Any]) -> Params:
    """Return trial parameters: the control's, with these in their place."""
    merged = SPACE.control()
    for part in parts:
        merged = merged | dict(part)
    return merged


def plan(*parts: Mapping[str, Any]) -> Plan:
    """Return the plan of such parameters."""
    return SPACE.draw(optuna.trial.FixedTrial(told(*parts)))


def known(*trials: tuple[Params, TrialResult]) -> Equivalence:
    """Return what a study with these trials teaches."""
    study = optuna.create_study(directions=["minimize"] * 2)
    asked = study.ask()
    SPACE.draw(asked)
    for number, (params, found) in enumerate(trials, start=1):
        key = SPACE.draw(optuna.trial.FixedTrial(params)).key
        attributes = {RESULT: record(found), NUMBER: number, KEY: key}
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED, params=params, distributions=asked.distributions, user_attrs=attributes
            )
        )
    taught = Equivalence(study, SPACE)
    taught.draw(study.ask())
    return taught


IDLE = TrialResult(plan="", idle=("graph",))
BROKEN = TrialResult(plan="", broken=True)


def test_a_step_that_changed_nothing_is_the_plan_without_it() -> None:
    """Folding did nothing: folding and quantizing is quantizing, whatever runs it."""
    taught = known((told(FOLD), IDLE))
    assert taught.key(plan(FOLD, DYNAMIC)) == taught.key(plan(DYNAMIC)) == plan(DYNAMIC).key
    assert taught.key(plan(FOLD, DYNAMIC, ONE_THREAD)) == plan(DYNAMIC, ONE_THREAD).key


def test_a_plan_that_was_tried_with_an_idle_step_is_known_without_it() -> None:
    """The plan as it was drawn is what other trials are compared with."""
    taught = known((told(FOLD, DYNAMIC), IDLE))
    assert taught.key(plan(DYNAMIC)) == plan(FOLD, DYNAMIC).key


def test_other_parameters_of_an_idle_step_are_tried() -> None:
    """That one pass did nothing says nothing of another."""
    taught = known((told(FOLD), IDLE))
    assert taught.key(plan(SLIM, DYNAMIC)) == plan(SLIM, DYNAMIC).key


def test_a_step_idle_after_another_is_not_idle_alone() -> None:
    """What a step does depends on the model that it is given."""
    taught = known((told(FOLD, DYNAMIC), TrialResult(plan="", idle=("quantize",))))
    assert taught.key(plan(DYNAMIC)) == plan(DYNAMIC).key
    assert taught.key(plan(FOLD, DYNAMIC, ONE_THREAD)) == plan(FOLD, ONE_THREAD).key


def test_a_broken_model_is_broken_however_it_is_run() -> None:
    """Threads and graph level decide how fast it answers, not what."""
    taught = known((told(DYNAMIC), BROKEN))
    assert taught.key(plan(DYNAMIC, ONE_THREAD)) == plan(DYNAMIC).key


def test_rewriting_does_not_mend_a_broken_model() -> None:
    """Folding broke it, so quantizing what was folded is known to be broken; quantizing alone is not."""
    taught = known((told(FOLD), BROKEN))
    assert taught.key(plan(FOLD, DYNAMIC, ONE_THREAD)) == plan(FOLD).key
    assert taught.key(plan(DYNAMIC)) == plan(DYNAMIC).key


@pytest.mark.parametrize(
    ("kind", "params"),
    [(TechniqueType.PRUNING, {}), (TechniqueType.FACTORIZATION, {}), (TechniqueType.QUANTIZATION, {"scheme": "Aware"})],
)
def test_training_may_mend_a_broken_model(kind: TechniqueType, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that train on after they changed a model are tried all the same."""
    from optimizer_jobs.commands.search import equivalence as module
    from optimizer_jobs.commands.search import stages

    for place in (module, stages):
        monkeypatch.setattr(
            place,
            "TECHNIQUES",
            {
                TechniqueType.GRAPH_OPTIMIZATION: _Rewriting,
                TechniqueType.PRUNING: _Rewriting,
                TechniqueType.FACTORIZATION: _Rewriting,
                TechniqueType.QUANTIZATION: _Rewriting,
            },
        )
    taught = known((told(FOLD), BROKEN))
    after = Step(name="last", type=kind, params=params)
    mended = Plan(steps=(*plan(FOLD).steps, after), engine=plan().engine)
    assert taught.key(mended) == mended.key


def test_another_engine_may_answer_right() -> None:
    """A model that is broken in one engine or precision is tried in another."""
    taught = known((told(DYNAMIC), BROKEN))
    elsewhere = Plan(steps=plan(DYNAMIC).steps, engine=EngineOptions(engine="openvino"))
    assert taught.key(elsewhere) == elsewhere.key


def test_an_engine_that_breaks_the_delivered_model_says_nothing_of_others() -> None:
    """The delivered model itself is no prefix to learn from."""
    taught = known((told(), BROKEN))
    assert taught.key(plan(FOLD)) == plan(FOLD).key
    assert taught.key(plan(ONE_THREAD)) == plan().key


def test_training_that_gained_nothing_is_left_out_of_plans_that_do_not_train_again() -> None:
    """It is left out before steps that only rewrite; what trains on uses its settings and stays as it is."""
    from optimizer_jobs.commands.search.equivalence import _idle

    train = Step(name="tune", type=TechniqueType.HYPERPARAMETER_TUNING, params={"epochs": 3})
    fold = plan(FOLD).steps[0]
    taught = known()
    taught._idle |= _idle((train, fold), TrialResult(plan="", idle=("tune",)))
    prune = Step(name="prune", type=TechniqueType.PRUNING, params={})
    engine = plan().engine
    assert taught.key(Plan((train, fold), engine)) == plan(FOLD).key
    assert taught.key(Plan((train, fold, prune), engine)) == Plan((train, fold, prune), engine).key


class _Rewriting:
    """A technique that does not train by itself."""

    TRAINS = False

    def suggest(self, *_: object) -> None:
        """Return nothing."""
