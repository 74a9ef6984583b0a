"""Parameters a user gives: chosen within their bounds, and tried first where a model is now."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna import create_study
from optuna.samplers import RandomSampler

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.parameters import Space, among, between, trial_params
from retune.api.techniques import Parameter

NUMBERS = st.floats(min_value=0.001, max_value=1000, allow_nan=False)


@given(low=NUMBERS, high=NUMBERS, log=st.booleans(), usual=st.none() | st.floats(min_value=-5, max_value=5000))
def test_what_is_tried_first_lies_within_the_bounds(*, low: float, high: float, log: bool, usual: float | None) -> None:
    """Whatever the model has now."""
    parameter = between("rate", min(low, high), max(low, high), log=log)
    value = parameters.first(parameter, usual)
    assert isinstance(value, float)
    assert float(parameter.min or 0) <= value <= float(parameter.max or 0)


@given(low=st.integers(1, 50), more=st.integers(0, 50), log=st.booleans(), seed=st.integers(0, 9))
def test_whole_numbers_stay_whole(*, low: int, more: int, log: bool, seed: int) -> None:
    """Chosen by a trial or tried first."""
    parameter = between("depth", low, low + more, log=log, integer=True)
    trial = create_study(sampler=RandomSampler(seed=seed)).ask()
    for value in (parameters.choose(trial, "s.depth", parameter), parameters.first(parameter)):
        assert isinstance(value, int)
        assert low <= value <= low + more


def test_values_are_json_or_text() -> None:
    """As the spec says; the usual one comes first where it is among them."""
    parameter = Parameter(name="kind", values=("relu", "0.5", "true", "3"))
    assert parameters.choices(parameter) == ("relu", 0.5, True, 3)
    assert parameters.first(parameter, 0.5) == 0.5
    assert parameters.first(parameter, "tanh") == "relu"


@pytest.mark.parametrize(
    "parameter, says",
    [
        (Parameter(name="sizes", values=("[1]",)), r"parameter sizes has value \[1\]"),
        (Parameter(name="n", min="1.2", max="1.8", integer=True), "there is none from 1.2 to 1.8"),
    ],
)
def test_parameters_without_a_value_are_refused(parameter: Parameter, says: str) -> None:
    """Before a trial finds out."""
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(parameters.wrong((parameter,)))


def test_a_space_is_asked_by_the_name_of_its_step() -> None:
    """What is told is what is chosen."""
    space = Space((among("width", (8, 16)), between("rate", 0.1, 1.0)), usual={"width": 16})
    study = create_study()
    study.enqueue_trial(trial_params("shape", {"width": 8}, space.first()))
    assert space.choose(study.ask(), "shape") == {"width": 16, "rate": pytest.approx(0.55)}
