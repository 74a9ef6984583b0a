"""An estimate's numbers in a check's result: they come back as they were, and go before any verdict does."""

from optimizer_jobs.commands.check.result import fitted, untrusted
from retune.api.watched import Verdict
from retune.contract.paths import RESULT_LIMIT
from retune.contract.results import CheckResult, ColumnDrift, encode_result, parse_result


def result(message: str, *, columns: int = 0) -> CheckResult:
    """Return a result whose estimate is not trusted."""
    said = untrusted("OutsideReference", message, samples=600)
    column = ColumnDrift(name="x" * 60, method="Wasserstein", score="1", drifted=True, looks_like="y" * 200)
    return CheckResult(
        spec_hash="0123456789abcdef",
        window=7,
        champion_digest="sha256:" + "0" * 64,
        drift=said.model_copy(update={"verdict": Verdict.BREACH}),
        quality=said.model_copy(update={"outside": "0.41", "estimated": True, "low": "0.8", "high": "0.9"}),
        columns=(column,) * columns,
    )


def test_an_estimate_comes_back_as_it_was_sent() -> None:
    """Interval, verdict and share outside survive the termination message."""
    sent = result("41 % of the rows lie outside.")
    assert parse_result(encode_result(sent)) == sent


def test_a_verdict_of_a_newer_release_says_nothing() -> None:
    """A Job's image may be newer than the operator: its window is not lost, and changes no signal."""
    sent = encode_result(result("41 % of the rows lie outside.")).replace(b'"Untrusted"', b'"Doubtful"')
    read = parse_result(sent)
    assert isinstance(read, CheckResult)
    assert read.quality is not None
    assert (read.quality.verdict, read.quality.reason) == (Verdict.UNKNOWN, "OutsideReference")


def test_where_there_is_no_room_verdicts_stay() -> None:
    """Sentences of a thousand letters and sixteen columns."""
    shorter = fitted(result("é" * 1000, columns=16))
    assert len(encode_result(shorter)) <= RESULT_LIMIT
    assert shorter.quality is not None
    assert (shorter.quality.verdict, shorter.quality.reason) == (Verdict.UNTRUSTED, "OutsideReference")
    assert shorter.drift is not None
    assert shorter.drift.verdict is Verdict.BREACH
