"""Statuses that another version of the operator wrote (fault 32)."""

from retune.api.status import ModelOptimizationStatus, Stage


def test_a_stage_of_a_newer_operator_is_no_error() -> None:
    """The word is for people; the rest of the status is read as ever."""
    status = ModelOptimizationStatus.model_validate({"stage": "Canarying", "nextRun": 7, "unheardOf": {"a": 1}})
    assert status.stage is None
    assert status.next_run == 7


def test_a_known_stage_is_read() -> None:
    """The same for the words of this version."""
    assert ModelOptimizationStatus.model_validate({"stage": "Baking"}).stage is Stage.BAKING
